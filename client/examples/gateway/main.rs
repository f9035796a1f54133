//! A small reverse proxy that enforces a prepaid balance in front of an HTTP service.
//!
//! ```sh
//! purser dev                                      # a ledger, with a customer `acme`
//! python3 -m http.server 9000                     # a service
//! cargo run -p purser-client --example gateway -- --upstream http://127.0.0.1:9000 --cost 5
//! curl -i -H 'X-Customer: acme' http://127.0.0.1:8080/
//! ```

mod proxy;

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use axum::Router;
use axum::http::Uri;
use clap::Parser;
use proxy::{Customers, Gateway, Policy};
use purser_client::v1::debit_request::Payer;
use purser_client::{PurserClient, v1};

const EXAMPLES: &str = "\
Examples:
  # Each request costs 5 credits from the caller's wallet `main`
  gateway --upstream http://127.0.0.1:9000 --cost 5
  curl -i -H 'X-Customer: acme' http://127.0.0.1:8080/

  # Callers show an API key; the file says whose it is, one `key customer` a line
  gateway --upstream http://127.0.0.1:9000 --api-keys keys.txt

  # Any of the customer's wallets in usd/6 pays; with no answer from the ledger, forward all the same
  gateway --upstream http://127.0.0.1:9000 --asset usd/6 --cost 0.0025 --fail-open

Answers:
  402  not enough credit: {reason, message, available, required}; nothing was forwarded
  401  nobody to charge        409  a key that was charged before, replayed too often or too late
  503  no answer from the ledger (try again with the same Idempotency-Key)
  else the upstream's, with X-Credits-Charged and X-Credits-Remaining";

/// A reverse proxy that charges prepaid credits for each request before it forwards it.
#[derive(Debug, Parser)]
#[command(name = "gateway", after_help = EXAMPLES)]
struct Flags {
    /// Where to listen
    #[arg(long, default_value = "127.0.0.1:8080", value_name = "ADDRESS")]
    listen: SocketAddr,

    /// The HTTP service behind: requests go to its path plus theirs
    #[arg(long, value_name = "URL")]
    upstream: Uri,

    /// How long the service behind may take to begin its answer, in seconds
    #[arg(long, default_value_t = 30, value_name = "SECONDS")]
    upstream_wait: u64,

    /// Nodes of the ledger, separated by commas
    #[arg(
        long,
        env = "PURSER_SERVER",
        default_value = "127.0.0.1:7480",
        value_delimiter = ',',
        value_name = "HOST:PORT"
    )]
    ledger: Vec<String>,

    /// The namespace of the customers
    #[arg(long, env = "PURSER_NAMESPACE", default_value = "default", value_name = "NAME")]
    namespace: String,

    /// How long the ledger may take, in milliseconds
    #[arg(long, default_value_t = 2_000, value_name = "MILLISECONDS")]
    deadline: u64,

    /// What a request costs: a decimal amount of the wallet's asset
    #[arg(long, default_value = "1", value_name = "AMOUNT")]
    cost: String,

    /// The wallet that pays
    #[arg(long, default_value = "main", conflicts_with = "asset", value_name = "WALLET")]
    wallet: String,

    /// All of the customer's wallets in this asset pay, such as credits/0
    #[arg(long, value_parser = asset, value_name = "CODE/SCALE")]
    asset: Option<v1::Asset>,

    /// A file of API keys, one `key customer` a line; without it the header X-Customer is believed
    #[arg(long, value_name = "FILE")]
    api_keys: Option<PathBuf>,

    /// Forward without a charge while the ledger gives no answer. By default nothing is forwarded then
    #[arg(long)]
    fail_open: bool,
}

fn asset(text: &str) -> Result<v1::Asset, String> {
    let (code, scale) = text.split_once('/').ok_or("a code and a scale, such as credits/0")?;
    let scale = scale.parse().map_err(|_| format!("{scale} is not a number of decimal places"))?;
    Ok(v1::Asset { code: code.to_owned(), scale })
}

fn api_keys(path: &Path) -> anyhow::Result<BTreeMap<String, String>> {
    let text = std::fs::read_to_string(path).with_context(|| format!("{}", path.display()))?;
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|line| {
            let pair = line.split_once(char::is_whitespace);
            let (key, customer) =
                pair.with_context(|| format!("{}: `key customer` in each line", path.display()))?;
            Ok((key.to_owned(), customer.trim().to_owned()))
        })
        .collect()
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let flags = Flags::parse();
    tracing_subscriber::fmt().with_ansi(std::io::stderr().is_terminal()).with_writer(std::io::stderr).init();
    // Connections come as they are needed: the gateway may start before the ledger.
    let purser = PurserClient::builder(flags.ledger)
        .namespace(flags.namespace)
        .deadline(Duration::from_millis(flags.deadline))
        .build()?;
    let policy = Policy {
        customers: match &flags.api_keys {
            Some(path) => Customers::ApiKeys(api_keys(path)?),
            None => Customers::Header,
        },
        payer: flags.asset.map_or(Payer::Wallet(flags.wallet), Payer::Asset),
        cost: flags.cost,
        fail_open: flags.fail_open,
        upstream_wait: Duration::from_secs(flags.upstream_wait),
    };
    let gateway = Gateway::new(purser, flags.upstream, policy).map_err(anyhow::Error::msg)?;
    let routes = Router::new().fallback(proxy::handle).with_state(Arc::new(gateway));
    let listener = tokio::net::TcpListener::bind(flags.listen).await;
    let listener = listener.with_context(|| format!("cannot listen on {}", flags.listen))?;
    tracing::info!("listening on {}", listener.local_addr()?);
    axum::serve(listener, routes)
        .with_graceful_shutdown(async {
            if tokio::signal::ctrl_c().await.is_err() {
                std::future::pending::<()>().await;
            }
        })
        .await?;
    Ok(())
}
