//! The transport of production: one bidirectional gRPC stream to each peer that is called.
//!
//! Each node dials the peers that it calls: requests go from the dialler to the server, answers come
//! back, numbered. The queue to a peer is bounded by messages and by bytes; over the bound, and while a
//! peer cannot be reached, a call fails at once. A stream on which nothing is heard while requests wait
//! is given up by a watchdog: a broken path may swallow what is sent without ever saying so.

use std::collections::{BTreeMap, HashMap};
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{BoxStream, FuturesUnordered};
use futures_util::{FutureExt, StreamExt};
use purser_proto::peer_v1::frame::Body;
use purser_proto::peer_v1::peer_client::PeerClient;
use purser_proto::peer_v1::peer_server::{Peer as PeerRpc, PeerServer};
use purser_proto::peer_v1::{Frame, Hello};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Endpoint;
use tonic::{Request, Response, Status, Streaming};
use uuid::Uuid;

use super::{AddressBook, Answer, CallError, Inbox, Transport};
use crate::cluster::NodeId;

/// The version of the frames. Another one is refused.
const VERSION: u32 = 1;
/// Most bytes of one message: an entry of the log with room around it.
const MESSAGE_BYTES_MAX: usize = 16 << 20;
/// Frames handed to gRPC and not sent yet; what waits beyond is in the peer's queue.
const FRAMES_AHEAD_MAX: usize = 64;

/// Times and bounds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerOptions {
    /// How long connecting and the first hello may take.
    pub connect_max: Duration,
    /// How long nothing may be heard on a stream while requests wait for an answer.
    pub silence_max: Duration,
    /// The pause after a failed connection; it doubles up to the longest.
    pub pause_min: Duration,
    /// The longest pause.
    pub pause_max: Duration,
    /// Most messages that wait for one peer.
    pub queue_messages_max: usize,
    /// Most bytes that wait for one peer.
    pub queue_bytes_max: usize,
    /// Most requests of one peer that are answered at once here; the rest waits on the wire.
    pub under_way_max: usize,
}

impl Default for PeerOptions {
    fn default() -> PeerOptions {
        PeerOptions {
            connect_max: Duration::from_secs(2),
            silence_max: Duration::from_secs(5),
            pause_min: Duration::from_millis(50),
            pause_max: Duration::from_secs(1),
            queue_messages_max: 16_384,
            queue_bytes_max: 64 << 20,
            under_way_max: 4_096,
        }
    }
}

/// A request on its way to the stream.
struct Outgoing {
    message: Bytes,
    answer: oneshot::Sender<Result<Bytes, CallError>>,
}

impl Outgoing {
    fn fail(self, why: &str) {
        // Who has gone away does not wait.
        let _ = self.answer.send(Err(CallError::Unreachable(why.to_owned())));
    }
}

/// What all connections share.
struct Shared {
    cluster: Uuid,
    own: NodeId,
    book: Arc<dyn AddressBook>,
    options: PeerOptions,
}

/// The way to one peer.
#[derive(Clone)]
struct Peer {
    queue: mpsc::Sender<Outgoing>,
    queued_bytes: Arc<AtomicUsize>,
}

/// See the module's head.
pub struct GrpcTransport {
    shared: Arc<Shared>,
    peers: Mutex<BTreeMap<NodeId, Peer>>,
}

impl GrpcTransport {
    /// A transport from one node of a cluster to the others, wherever the book says they are.
    pub fn new(cluster: Uuid, own: NodeId, book: Arc<dyn AddressBook>) -> Arc<GrpcTransport> {
        GrpcTransport::with_options(cluster, own, book, PeerOptions::default())
    }

    /// The same with other times and bounds.
    pub fn with_options(
        cluster: Uuid,
        own: NodeId,
        book: Arc<dyn AddressBook>,
        options: PeerOptions,
    ) -> Arc<GrpcTransport> {
        let shared = Arc::new(Shared { cluster, own, book, options });
        Arc::new(GrpcTransport { shared, peers: Mutex::default() })
    }

    /// The way to a peer; its task ends with the transport.
    fn peer(&self, node: NodeId) -> Peer {
        let mut peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        let made = || {
            let (queue, outgoing) = mpsc::channel(self.shared.options.queue_messages_max);
            let queued_bytes = Arc::new(AtomicUsize::new(0));
            let link = Link {
                shared: Arc::clone(&self.shared),
                to: node,
                outgoing,
                queued_bytes: Arc::clone(&queued_bytes),
                trouble: None,
                messages: metrics::counter!("purser_peer_messages_total", "peer" => node.to_string()),
                connections: metrics::counter!("purser_peer_connections_total", "peer" => node.to_string()),
            };
            tokio::spawn(link.run());
            Peer { queue, queued_bytes }
        };
        peers.entry(node).or_insert_with(made).clone()
    }
}

impl Transport for GrpcTransport {
    fn call(&self, to: NodeId, message: Bytes, within: Duration) -> Answer {
        let refuse =
            |why: &str| futures_util::future::ready(Err(CallError::Unreachable(why.to_owned()))).boxed();
        let bytes = message.len();
        if bytes > MESSAGE_BYTES_MAX {
            return refuse("the message is too long");
        }
        let peer = self.peer(to);
        let (answer, answered) = oneshot::channel();
        // Counted before it is there to be taken, so that the count never goes below zero.
        if peer.queued_bytes.fetch_add(bytes, Ordering::Relaxed) + bytes > self.shared.options.queue_bytes_max
            || peer.queue.try_send(Outgoing { message, answer }).is_err()
        {
            peer.queued_bytes.fetch_sub(bytes, Ordering::Relaxed);
            return refuse("the queue to it is full");
        }
        async move {
            match tokio::time::timeout(within, answered).await {
                Ok(Ok(answer)) => answer,
                Ok(Err(_)) => Err(CallError::Unreachable("the connection broke".to_owned())),
                Err(_) => Err(CallError::TimedOut(within)),
            }
        }
        .boxed()
    }
}

/// The dialling side of one peer.
struct Link {
    shared: Arc<Shared>,
    to: NodeId,
    outgoing: mpsc::Receiver<Outgoing>,
    queued_bytes: Arc<AtomicUsize>,
    /// What was logged last: a peer that stays away is told of once.
    trouble: Option<String>,
    messages: metrics::Counter,
    connections: metrics::Counter,
}

/// A stream that was opened.
struct Stream {
    /// Where it leads.
    address: String,
    frames: mpsc::Sender<Frame>,
    inbound: Streaming<Frame>,
}

impl Link {
    /// Serves until the transport is dropped.
    async fn run(mut self) {
        let options = self.shared.options.clone();
        let mut pause = options.pause_min;
        while let Some(first) = self.take().await {
            let why = match tokio::time::timeout(options.connect_max, self.connect()).await {
                Ok(Ok(stream)) => {
                    pause = options.pause_min;
                    self.connections.increment(1);
                    tracing::info!(peer = %self.to, "connected");
                    self.trouble = None;
                    self.pump(stream, first).await
                }
                Ok(Err(why)) => {
                    first.fail(&why);
                    why
                }
                Err(_) => {
                    let why = format!("no connection within {} ms", options.connect_max.as_millis());
                    first.fail(&why);
                    why
                }
            };
            if self.trouble.as_ref() != Some(&why) {
                tracing::warn!(peer = %self.to, why, "not connected");
                self.trouble = Some(why.clone());
            }
            self.rest(self.jittered(pause), &why).await;
            pause = (pause * 2).min(options.pause_max);
        }
    }

    async fn take(&mut self) -> Option<Outgoing> {
        let taken = self.outgoing.recv().await?;
        self.queued_bytes.fetch_sub(taken.message.len(), Ordering::Relaxed);
        Some(taken)
    }

    /// Half the pause, and a part of the other half that differs by node, so that nodes do not dial in
    /// step.
    fn jittered(&self, pause: Duration) -> Duration {
        let share = xxhash_rust::xxh3::xxh3_64(self.shared.own.0.as_bytes()) % 100;
        pause / 2 + pause / 200 * share as u32
    }

    /// A pause in which every call fails at once.
    async fn rest(&mut self, pause: Duration, why: &str) {
        let mut over = pin!(tokio::time::sleep(pause));
        loop {
            tokio::select! {
                biased;
                () = &mut over => return,
                taken = self.take() => match taken {
                    Some(outgoing) => outgoing.fail(why),
                    None => return,
                },
            }
        }
    }

    async fn connect(&self) -> Result<Stream, String> {
        let address = self.shared.book.peer_address(self.to).filter(|address| !address.is_empty());
        let address = address.ok_or("its address is not known")?;
        let options = &self.shared.options;
        let endpoint =
            Endpoint::from_shared(format!("http://{address}")).map_err(|error| error.to_string())?;
        let channel = endpoint
            .tcp_nodelay(true)
            .connect_timeout(options.connect_max)
            .http2_keep_alive_interval(options.silence_max)
            .keep_alive_timeout(options.silence_max)
            .initial_stream_window_size(Some(4 << 20))
            .initial_connection_window_size(Some(8 << 20))
            .connect()
            .await
            .map_err(|error| format!("{address}: {}", root_cause(&error)))?;
        let mut client = PeerClient::new(channel)
            .max_decoding_message_size(MESSAGE_BYTES_MAX + 1024)
            .max_encoding_message_size(MESSAGE_BYTES_MAX + 1024);
        let (frames, sent) = mpsc::channel(FRAMES_AHEAD_MAX);
        let own_address = self.shared.book.peer_address(self.shared.own).unwrap_or_default();
        let hello = hello(self.shared.cluster, self.shared.own, self.to, own_address);
        frames.try_send(hello).map_err(|error| error.to_string())?;
        let opened = client.exchange(ReceiverStream::new(sent)).await;
        let mut inbound = opened.map_err(|status| status.message().to_owned())?.into_inner();
        match inbound.message().await {
            Ok(Some(Frame { body: Some(Body::Hello(hello)), .. })) => {
                check(&hello, self.shared.cluster, self.shared.own, Some(self.to))?;
                Ok(Stream { address, frames, inbound })
            }
            Ok(_) => Err(format!("{address}: no hello came back")),
            Err(status) => Err(format!("{address}: {}", status.message())),
        }
    }

    /// Sends requests and hands answers out, until the stream breaks; says why.
    async fn pump(&mut self, stream: Stream, first: Outgoing) -> String {
        let Stream { address, frames, mut inbound } = stream;
        let silence_max = self.shared.options.silence_max;
        let mut look = tokio::time::interval(silence_max / 4);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut waiting: HashMap<u64, oneshot::Sender<Result<Bytes, CallError>>> = HashMap::new();
        let mut heard = Instant::now();
        let mut next = Some(first);
        let mut calls = 0u64;
        let mut open = true;
        loop {
            tokio::select! {
                biased;
                frame = inbound.message() => {
                    heard = Instant::now();
                    let (call, answer) = match frame {
                        Ok(Some(Frame { call, body: Some(Body::Answer(answer)) })) => (call, Ok(answer)),
                        Ok(Some(Frame { call, body: Some(Body::Refused(why)) })) => {
                            (call, Err(CallError::Refused(why)))
                        }
                        Ok(Some(_)) => continue,
                        Ok(None) => return "it closed the connection".to_owned(),
                        Err(status) => return format!("the connection broke: {}", status.message()),
                    };
                    if let Some(waiter) = waiting.remove(&call) {
                        let _ = waiter.send(answer);
                    }
                }
                permit = frames.reserve(), if next.is_some() => {
                    let (Ok(permit), Some(outgoing)) = (permit, next.take()) else {
                        return "the connection broke".to_owned();
                    };
                    // Silence is counted from the first request that waits.
                    if waiting.is_empty() {
                        heard = Instant::now();
                    }
                    calls += 1;
                    waiting.insert(calls, outgoing.answer);
                    permit.send(Frame { call: calls, body: Some(Body::Request(outgoing.message)) });
                    self.messages.increment(1);
                }
                taken = self.take(), if next.is_none() && open => match taken {
                    Some(outgoing) => next = Some(outgoing),
                    None => open = false,
                },
                _ = look.tick() => {
                    waiting.retain(|_, waiter| !waiter.is_closed());
                    if self.shared.book.peer_address(self.to).is_some_and(|now| now != address) {
                        return "it has moved".to_owned();
                    }
                    if !open && waiting.is_empty() {
                        return "no longer needed".to_owned();
                    }
                    if !waiting.is_empty() && heard.elapsed() > silence_max {
                        return format!("nothing was heard for {} ms", silence_max.as_millis());
                    }
                }
            }
        }
    }
}

fn hello(cluster: Uuid, from: NodeId, to: NodeId, address: String) -> Frame {
    let bytes = |id: Uuid| Bytes::copy_from_slice(id.as_bytes());
    let (cluster_id, from, to) = (bytes(cluster), bytes(from.0), bytes(to.0));
    let hello = Hello { version: VERSION, cluster_id, from, to, address };
    Frame { call: 0, body: Some(Body::Hello(hello)) }
}

/// Whether a hello is meant for this node, and comes from whom it should; who it comes from.
fn check(hello: &Hello, cluster: Uuid, own: NodeId, from: Option<NodeId>) -> Result<NodeId, String> {
    let id = |bytes: &Bytes| Uuid::from_slice(bytes).map_err(|_| "an id that is no UUID".to_owned());
    if hello.version != VERSION {
        return Err(format!("it speaks version {}, this node {VERSION}", hello.version));
    }
    let (theirs, sender, meant) = (id(&hello.cluster_id)?, NodeId(id(&hello.from)?), NodeId(id(&hello.to)?));
    if theirs != cluster {
        return Err(format!("it belongs to cluster {theirs}, this node to {cluster}"));
    }
    if meant != own {
        return Err(format!("it means node {meant}, this is {own}"));
    }
    match from {
        Some(from) if from != sender => Err(format!("node {sender} answers there, not {from}")),
        _ => Ok(sender),
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

/// The receiving side, as a service for a gRPC server. Its streams end when `stop` turns true.
pub fn service(
    cluster: Uuid,
    own: NodeId,
    book: Arc<dyn AddressBook>,
    inbox: Arc<dyn Inbox>,
    stop: watch::Receiver<bool>,
) -> PeerServer<Reception> {
    let under_way_max = PeerOptions::default().under_way_max;
    PeerServer::new(Reception { cluster, own, book, inbox, stop, under_way_max })
        .max_decoding_message_size(MESSAGE_BYTES_MAX + 1024)
        .max_encoding_message_size(MESSAGE_BYTES_MAX + 1024)
}

/// Takes streams of other nodes in.
pub struct Reception {
    cluster: Uuid,
    own: NodeId,
    book: Arc<dyn AddressBook>,
    inbox: Arc<dyn Inbox>,
    stop: watch::Receiver<bool>,
    under_way_max: usize,
}

#[tonic::async_trait]
impl PeerRpc for Reception {
    type ExchangeStream = BoxStream<'static, Result<Frame, Status>>;

    async fn exchange(
        &self,
        request: Request<Streaming<Frame>>,
    ) -> Result<Response<Self::ExchangeStream>, Status> {
        let mut inbound = request.into_inner();
        let first = tokio::time::timeout(PeerOptions::default().connect_max, inbound.message()).await;
        let first = first.map_err(|_| Status::deadline_exceeded("no hello came"))??;
        let Some(Frame { body: Some(Body::Hello(greeting)), .. }) = first else {
            return Err(Status::invalid_argument("the first frame is no hello"));
        };
        let from = check(&greeting, self.cluster, self.own, None).map_err(Status::failed_precondition)?;
        if !greeting.address.is_empty() {
            self.book.moved(from, greeting.address);
        }
        let (answers, sent) = mpsc::channel(FRAMES_AHEAD_MAX);
        // There is room for it: it is the first.
        let _ = answers.try_send(Ok(hello(self.cluster, self.own, from, String::new())));
        tokio::spawn(receive(
            from,
            inbound,
            answers,
            Arc::clone(&self.inbox),
            self.stop.clone(),
            self.under_way_max,
        ));
        Ok(Response::new(ReceiverStream::new(sent).boxed()))
    }
}

/// Hands requests to the inbox in order, and sends answers as they come. Reads no further while too
/// many are under way: the caller's queue fills, and is bounded.
async fn receive(
    from: NodeId,
    mut inbound: Streaming<Frame>,
    answers: mpsc::Sender<Result<Frame, Status>>,
    inbox: Arc<dyn Inbox>,
    mut stop: watch::Receiver<bool>,
    under_way_max: usize,
) {
    let mut under_way = FuturesUnordered::new();
    loop {
        tokio::select! {
            biased;
            // Nobody who could stop it is left: then it is stopped as well.
            () = async { drop(stop.wait_for(|stop| *stop).await) } => return,
            Some((call, answer)) = under_way.next(), if !under_way.is_empty() => {
                let body = match answer {
                    Ok(answer) => Body::Answer(answer),
                    Err(why) => Body::Refused(why),
                };
                if answers.send(Ok(Frame { call, body: Some(body) })).await.is_err() {
                    return;
                }
            }
            frame = inbound.message(), if under_way.len() < under_way_max => match frame {
                Ok(Some(Frame { call, body: Some(Body::Request(message)) })) => {
                    let answer = inbox.receive(from, message);
                    under_way.push(async move { (call, answer.await) });
                }
                Ok(Some(_)) => {}
                Ok(None) | Err(_) => return,
            },
            else => return,
        }
    }
}
