//! The carrier of production: a tonic channel for each node, messages as bytes.
//!
//! Messages are encoded and decoded by the caller, in the caller's task; here they are only copied.

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes};
use futures_util::future::BoxFuture;
use futures_util::{FutureExt, StreamExt, TryStreamExt};
use tokio::sync::mpsc;
use tonic::client::Grpc;
use tonic::codec::{BufferSettings, Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::metadata::MetadataValue;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, ConnectError, Request, Status, TimeoutExpired};

use crate::call::Method;
use crate::carrier::{Carrier, Opening, Route, not_sent, root_cause};

/// Largest answer taken: a full page of movements with 1,000 draws each is well below it.
const RESPONSE_BYTES_MAX: usize = 64 << 20;
/// How long a connection may take to be made.
const CONNECT_MAX: Duration = Duration::from_secs(1);
/// A connection with calls under way is asked for a sign of life this often,
const KEEP_ALIVE_EVERY: Duration = Duration::from_secs(5);
/// and given up after so long without one.
const KEEP_ALIVE_MAX: Duration = Duration::from_secs(5);
/// Bytes under way to one node in one direction: a batch of 1,000 debits must not wait for a window.
const WINDOW_BYTES: u32 = 4 << 20;
/// Nodes that a channel is kept for. More than a cluster has; beyond it, channels are made anew.
const CHANNELS_MAX: usize = 1_024;
/// Bytes that a message of usual size takes, its frame included.
const MESSAGE_BYTES: usize = 1_024;
/// Bytes of messages of one stream that are written at once.
const YIELD_BYTES: usize = 32 << 10;

/// Carries calls over gRPC, with one HTTP/2 connection to each node. Connections are made when they are
/// first needed, and again when they have broken.
#[derive(Debug, Default)]
pub struct GrpcCarrier {
    channels: Mutex<BTreeMap<String, Channel>>,
}

impl GrpcCarrier {
    /// Without any connection yet.
    pub fn new() -> GrpcCarrier {
        GrpcCarrier::default()
    }

    fn stub(&self, address: &str) -> Result<Grpc<Channel>, Status> {
        let channel = self.channel(address)?;
        Ok(Grpc::new(channel).max_decoding_message_size(RESPONSE_BYTES_MAX))
    }

    fn channel(&self, address: &str) -> Result<Channel, Status> {
        let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(channel) = channels.get(address) {
            return Ok(channel.clone());
        }
        if channels.len() >= CHANNELS_MAX {
            channels.clear();
        }
        let channel = endpoint(address)?.connect_lazy();
        channels.insert(address.to_owned(), channel.clone());
        Ok(channel)
    }
}

/// Where an address leads: `host:port`, or the same as an `http` URL.
fn endpoint(address: &str) -> Result<Endpoint, Status> {
    let url = if address.contains("://") { address.to_owned() } else { format!("http://{address}") };
    let endpoint = Endpoint::from_shared(url)
        .map_err(|error| not_sent(format!("{address} is not an address: {}", root_cause(&error))))?;
    Ok(endpoint
        .connect_timeout(CONNECT_MAX)
        .tcp_nodelay(true)
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES)
        .http2_keep_alive_interval(KEEP_ALIVE_EVERY)
        .keep_alive_timeout(KEEP_ALIVE_MAX))
}

impl Carrier for GrpcCarrier {
    fn call(
        &self,
        address: &str,
        method: Method,
        route: Route,
        request: Bytes,
        deadline: Duration,
    ) -> BoxFuture<'static, Result<Bytes, Status>> {
        let stub = self.stub(address);
        async move {
            let mut stub = stub?;
            stub.ready().await.map_err(|error| not_sent(told(&error)))?;
            let mut request = Request::new(request);
            request.set_timeout(deadline);
            if route == Route::Direct {
                request.metadata_mut().insert("purser-route", MetadataValue::from_static("direct"));
            }
            let answer = stub.unary(request, PathAndQuery::from_static(method.path()), BytesCodec).await;
            answer.map(tonic::Response::into_inner).map_err(marked)
        }
        .boxed()
    }

    fn open(&self, address: &str, method: Method, mut requests: mpsc::Receiver<Bytes>) -> Opening {
        let stub = self.stub(address);
        async move {
            let mut stub = stub?;
            stub.ready().await.map_err(|error| not_sent(told(&error)))?;
            let requests = futures_util::stream::poll_fn(move |context| requests.poll_recv(context));
            let path = PathAndQuery::from_static(method.path());
            let answers = stub.streaming(Request::new(requests), path, BytesCodec).await.map_err(marked)?;
            Ok(answers.into_inner().map_err(marked).boxed())
        }
        .boxed()
    }
}

/// Marks a call that found no connection: it was not sent. And says of one that took too long what it is,
/// which tonic calls cancelled, on either side.
fn marked(status: Status) -> Status {
    if status.code() == Code::Cancelled && status.message() == TimeoutExpired(()).to_string() {
        return Status::deadline_exceeded("no answer in time");
    }
    let mut cause = status.source();
    while let Some(error) = cause {
        if error.is::<ConnectError>() {
            return not_sent(told(error));
        }
        cause = error.source();
    }
    status
}

fn told(error: &(dyn Error + 'static)) -> String {
    format!("no connection: {}", root_cause(error))
}

/// Messages as they are.
#[derive(Clone, Copy)]
struct BytesCodec;

impl Codec for BytesCodec {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = BytesCodec;
    type Decoder = BytesCodec;

    fn encoder(&mut self) -> BytesCodec {
        BytesCodec
    }

    fn decoder(&mut self) -> BytesCodec {
        BytesCodec
    }
}

impl Encoder for BytesCodec {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, message: Bytes, frame: &mut EncodeBuf<'_>) -> Result<(), Status> {
        frame.reserve(message.len());
        frame.put(message);
        Ok(())
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::new(MESSAGE_BYTES, YIELD_BYTES)
    }
}

impl Decoder for BytesCodec {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, frame: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(frame.copy_to_bytes(frame.remaining())))
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::new(MESSAGE_BYTES, YIELD_BYTES)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::carrier::was_not_sent;

    async fn call(address: &str) -> Status {
        let carrier = GrpcCarrier::new();
        let deadline = Duration::from_secs(10);
        let answer = carrier.call(address, Method::GetShardMap, Route::Any, Bytes::new(), deadline).await;
        answer.expect_err("nobody is there")
    }

    #[tokio::test]
    async fn a_refused_connection_is_known_to_have_sent_nothing() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("its address").to_string();
        drop(listener);
        let status = call(&address).await;
        assert!(was_not_sent(&status), "{status:?}");
        assert!(status.message().contains("refused"), "{}", status.message());
    }

    #[tokio::test]
    async fn what_is_not_an_address_is_known_to_have_sent_nothing() {
        assert!(was_not_sent(&call("not an address").await));
    }
}
