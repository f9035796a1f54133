//! The connection to a server, and the flags that every client command shares.

use std::future::Future;
use std::time::Duration;

use clap::{Args, ValueEnum};
use purser_proto::v1::admin_client::AdminClient;
use purser_proto::v1::cluster_client::ClusterClient;
use purser_proto::v1::ledger_client::LedgerClient;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Response, Status};

use super::failure::{FailedCall, Failure};
use super::parse;

/// Where `purser dev` listens.
pub const DEFAULT_SERVER: &str = "http://127.0.0.1:7480";

/// Largest response taken: a full page of movements with 1,000 draws each is well below it.
const RESPONSE_BYTES_MAX: usize = 64 * 1024 * 1024;

const HEADING: &str = "Connection and output";

/// Flags that every client command takes.
#[derive(Clone, Debug, Args)]
pub struct Globals {
    /// The server
    #[arg(long, global = true, env = "PURSER_SERVER", default_value = DEFAULT_SERVER,
          value_name = "URL", help_heading = HEADING)]
    pub server: String,

    /// The namespace
    #[arg(long, global = true, env = "PURSER_NAMESPACE", default_value = "default",
          value_name = "NAME", help_heading = HEADING)]
    pub namespace: String,

    /// How to print the answer
    #[arg(short, long, global = true, value_enum, default_value_t = OutputFormat::Table,
          value_name = "FORMAT", help_heading = HEADING)]
    pub output: OutputFormat,

    /// How long to wait for the answer
    #[arg(long, global = true, default_value = "10s", value_parser = parse::timeout,
          value_name = "DURATION", help_heading = HEADING)]
    pub timeout: Duration,
}

/// How an answer is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OutputFormat {
    /// For people.
    Table,
    /// For programs: amounts as strings, times as RFC 3339.
    Json,
}

/// A connection and the flags that it was made with.
#[derive(Debug)]
pub struct Session {
    channel: Channel,
    globals: Globals,
}

/// What a call is about, for the case that it fails.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct About {
    /// "debit 5 from acme".
    pub what: String,
    /// The idempotency key, if it is a write.
    pub key: Option<String>,
}

impl About {
    /// A read.
    pub fn read(what: impl Into<String>) -> Self {
        Self { what: what.into(), key: None }
    }

    /// A write under a key.
    pub fn write(what: impl Into<String>, key: &str) -> Self {
        Self { what: what.into(), key: Some(key.to_owned()) }
    }
}

impl Session {
    /// Connects within the time-out.
    pub async fn connect(globals: &Globals) -> Result<Self, Failure> {
        let url = parse::server_url(&globals.server).map_err(Failure::Usage)?;
        let endpoint = Endpoint::from_shared(url)
            .map_err(|error| Failure::Usage(format!("--server {}: {error}", globals.server)))?
            .connect_timeout(globals.timeout);
        let channel = endpoint.connect().await.map_err(|error| Failure::Unreachable {
            server: globals.server.clone(),
            cause: root_cause(&error),
        })?;
        Ok(Self { channel, globals: globals.clone() })
    }

    /// The namespace to name in requests.
    pub fn namespace(&self) -> String {
        self.globals.namespace.clone()
    }

    /// How the answer will be printed.
    pub fn output(&self) -> OutputFormat {
        self.globals.output
    }

    /// The bare connection.
    pub fn channel(&self) -> Channel {
        self.channel.clone()
    }

    /// The ledger's stub.
    pub fn ledger(&self) -> LedgerClient<Channel> {
        LedgerClient::new(self.channel()).max_decoding_message_size(RESPONSE_BYTES_MAX)
    }

    /// The operator's stub.
    pub fn admin(&self) -> AdminClient<Channel> {
        AdminClient::new(self.channel())
    }

    /// The cluster's stub.
    pub fn cluster(&self) -> ClusterClient<Channel> {
        ClusterClient::new(self.channel()).max_decoding_message_size(RESPONSE_BYTES_MAX)
    }

    /// A request that tells the server how long we wait.
    pub fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.set_timeout(self.globals.timeout);
        request
    }

    /// Waits for a call, no longer than the time-out, nor than the user does: an interrupt is an
    /// unknown outcome like any other, and the key must be told.
    pub async fn wait<T>(
        &self,
        about: About,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, Failure> {
        let limit = self.globals.timeout;
        let outcome = tokio::select! {
            biased;
            outcome = call => outcome,
            () = interrupted() => Err(Status::cancelled("interrupted")),
            () = tokio::time::sleep(limit) => {
                Err(Status::deadline_exceeded(format!("no answer within {limit:?}")))
            }
        };
        match outcome {
            Ok(response) => Ok(response.into_inner()),
            Err(status) => Err(Failure::Call(Box::new(FailedCall { about, status }))),
        }
    }
}

/// Ends when the user presses Ctrl-C; never where that cannot be watched.
async fn interrupted() {
    if tokio::signal::ctrl_c().await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// The innermost cause: "Connection refused" says more than "transport error".
fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}
