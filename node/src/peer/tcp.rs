//! The transport of production: one TCP connection to each peer that is called.
//!
//! Each node dials the peers that it calls: requests go from the dialler to the other side, answers come
//! back, numbered. The queue to a peer is bounded by messages and by bytes; over the bound, and while a
//! peer cannot be reached, a call fails at once. A connection on which nothing is heard while requests
//! wait is given up by a watchdog: a broken path may swallow what is sent without ever saying so.
//!
//! One task serves a connection at each end, and a message makes no other detour: what it costs is paid
//! several times for each entry of the log. Before it sends, it lets every other task that is ready go
//! first, once: what the groups of a node have to say at the same moment leaves together.

use std::collections::{BTreeMap, HashMap};
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use prost::Message;
use purser_proto::peer_v1::Hello;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};
use tokio::time::{Instant, MissedTickBehavior};
use uuid::Uuid;

use super::connection::{Connection, broke};
use super::frame::What;
use super::{AddressBook, Answer, CallError, Inbox, Transport};
use crate::cluster::NodeId;

/// The version of the messages. Another one is refused.
const VERSION: u32 = 2;
/// Most bytes of one message: an entry of the log with room around it.
const MESSAGE_BYTES_MAX: usize = 16 << 20;
/// Connections of other nodes at once: one of each, and some that are about to end.
const CONNECTIONS_MAX: usize = 256;
/// The pause after a connection could not be taken in, for want of files for example.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// Times and bounds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerOptions {
    /// How long connecting and the first hello may take.
    pub connect_max: Duration,
    /// How long nothing may be heard on a connection while requests wait for an answer.
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

/// A request on its way to the connection.
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
pub struct TcpTransport {
    shared: Arc<Shared>,
    peers: Mutex<BTreeMap<NodeId, Peer>>,
}

impl TcpTransport {
    /// A transport from one node of a cluster to the others, wherever the book says they are.
    pub fn new(cluster: Uuid, own: NodeId, book: Arc<dyn AddressBook>) -> Arc<TcpTransport> {
        TcpTransport::with_options(cluster, own, book, PeerOptions::default())
    }

    /// The same with other times and bounds.
    pub fn with_options(
        cluster: Uuid,
        own: NodeId,
        book: Arc<dyn AddressBook>,
        options: PeerOptions,
    ) -> Arc<TcpTransport> {
        let shared = Arc::new(Shared { cluster, own, book, options });
        Arc::new(TcpTransport { shared, peers: Mutex::default() })
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

impl Transport for TcpTransport {
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

/// A connection whose two sides know each other.
struct Open {
    /// Where it leads.
    address: String,
    connection: Connection,
}

impl Link {
    /// Serves until the transport is dropped.
    async fn run(mut self) {
        let options = self.shared.options.clone();
        let mut pause = options.pause_min;
        while let Some(first) = self.take().await {
            let why = match tokio::time::timeout(options.connect_max, self.connect()).await {
                Ok(Ok(open)) => {
                    pause = options.pause_min;
                    self.connections.increment(1);
                    tracing::info!(peer = %self.to, "connected");
                    self.trouble = None;
                    self.serve(open, first).await
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

    async fn connect(&self) -> Result<Open, String> {
        let Shared { cluster, own, book, .. } = &*self.shared;
        let address = book.peer_address(self.to).filter(|address| !address.is_empty());
        let address = address.ok_or("its address is not known")?;
        let at = |why: String| format!("{address}: {why}");
        let stream = TcpStream::connect(&address).await.map_err(|error| at(error.to_string()))?;
        let mut connection = Connection::new(stream).map_err(|error| at(error.to_string()))?;
        let own_address = book.peer_address(*own).unwrap_or_default();
        connection.put(0, What::Hello, &hello(*cluster, *own, self.to, own_address));
        let hello = connection.hear_hello(MESSAGE_BYTES_MAX).await.map_err(at)?;
        check(&hello, *cluster, *own, Some(self.to))?;
        Ok(Open { address, connection })
    }

    /// Sends requests and hands answers out, until the connection breaks; says why.
    async fn serve(&mut self, open: Open, first: Outgoing) -> String {
        let Open { address, mut connection } = open;
        let mut calls = Calls::default();
        calls.send(first, &mut connection);
        match self.serve_calls(&address, &mut connection, &mut calls).await {
            Ok(()) => "no longer needed".to_owned(),
            Err(why) => why,
        }
    }

    async fn serve_calls(
        &mut self,
        address: &str,
        connection: &mut Connection,
        calls: &mut Calls,
    ) -> Result<(), String> {
        let silence_max = self.shared.options.silence_max;
        let mut look = tokio::time::interval(silence_max / 4);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut open = true;
        loop {
            tokio::select! {
                biased;
                ready = connection.ready(true) => {
                    ready.map_err(broke)?;
                    connection.send().map_err(broke)?;
                    connection.receive()?;
                    while let Some(frame) = connection.take()? {
                        calls.answered(frame.call, match frame.what {
                            What::Answer => Ok(frame.body),
                            What::Refused => {
                                Err(CallError::Refused(String::from_utf8_lossy(&frame.body).into_owned()))
                            }
                            What::Hello | What::Request => continue,
                        });
                    }
                }
                taken = self.take(), if open && connection.has_room() => {
                    let Some(taken) = taken else {
                        open = false;
                        continue;
                    };
                    calls.send(taken, connection);
                    tokio::task::yield_now().await;
                    while connection.has_room() && let Some(Some(taken)) = self.take().now_or_never() {
                        calls.send(taken, connection);
                    }
                    connection.send().map_err(broke)?;
                    self.messages.increment(calls.sent());
                }
                _ = look.tick() => {
                    calls.forget_the_gone();
                    if self.shared.book.peer_address(self.to).is_some_and(|now| now != address) {
                        return Err("it has moved".to_owned());
                    }
                    if !open && calls.waiting.is_empty() {
                        return Ok(());
                    }
                    if !calls.waiting.is_empty() && calls.heard.elapsed() > silence_max {
                        return Err(format!("nothing was heard for {} ms", silence_max.as_millis()));
                    }
                }
            }
        }
    }
}

/// The calls of one connection.
struct Calls {
    waiting: HashMap<u64, oneshot::Sender<Result<Bytes, CallError>>>,
    last: u64,
    /// The last one that was counted as sent.
    counted: u64,
    /// When the other side was heard last, or began to be waited for.
    heard: Instant,
}

impl Default for Calls {
    fn default() -> Calls {
        Calls { waiting: HashMap::new(), last: 0, counted: 0, heard: Instant::now() }
    }
}

impl Calls {
    fn send(&mut self, outgoing: Outgoing, connection: &mut Connection) {
        // Silence is counted from the first request that waits.
        if self.waiting.is_empty() {
            self.heard = Instant::now();
        }
        self.last += 1;
        self.waiting.insert(self.last, outgoing.answer);
        connection.put(self.last, What::Request, &outgoing.message);
    }

    fn answered(&mut self, call: u64, answer: Result<Bytes, CallError>) {
        self.heard = Instant::now();
        if let Some(waiter) = self.waiting.remove(&call) {
            // Who has gone away does not wait.
            let _ = waiter.send(answer);
        }
    }

    fn forget_the_gone(&mut self) {
        self.waiting.retain(|_, waiter| !waiter.is_closed());
    }

    /// How many were sent since it was asked last.
    fn sent(&mut self) -> u64 {
        self.last - std::mem::replace(&mut self.counted, self.last)
    }
}

fn hello(cluster: Uuid, from: NodeId, to: NodeId, address: String) -> Vec<u8> {
    let bytes = |id: Uuid| Bytes::copy_from_slice(id.as_bytes());
    let (cluster_id, from, to) = (bytes(cluster), bytes(from.0), bytes(to.0));
    Hello { version: VERSION, cluster_id, from, to, address }.encode_to_vec()
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

/// The side that is dialled.
pub struct Reception {
    cluster: Uuid,
    own: NodeId,
    book: Arc<dyn AddressBook>,
    inbox: Arc<dyn Inbox>,
    stop: watch::Receiver<bool>,
    under_way_max: usize,
}

impl Reception {
    /// Takes messages for this node in, and hands them to its inbox. Its connections end when `stop`
    /// turns true.
    pub fn new(
        cluster: Uuid,
        own: NodeId,
        book: Arc<dyn AddressBook>,
        inbox: Arc<dyn Inbox>,
        stop: watch::Receiver<bool>,
    ) -> Arc<Reception> {
        let under_way_max = PeerOptions::default().under_way_max;
        Arc::new(Reception { cluster, own, book, inbox, stop, under_way_max })
    }

    /// Serves who dials here, until `stop` turns true.
    pub async fn serve(self: Arc<Reception>, listener: TcpListener) {
        let mut stop = self.stop.clone();
        let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        loop {
            let accepted = tokio::select! {
                biased;
                // Nobody who could stop it is left: then it is stopped as well.
                () = async { drop(stop.wait_for(|stop| *stop).await) } => return,
                accepted = listener.accept() => accepted,
            };
            match (accepted, Arc::clone(&places).try_acquire_owned()) {
                (Ok((stream, _)), Ok(place)) => drop(tokio::spawn(Arc::clone(&self).attend(stream, place))),
                (Ok((_, address)), Err(_)) => tracing::warn!(%address, "too many nodes are connected"),
                (Err(error), _) => {
                    tracing::warn!(%error, "a node's connection could not be taken in");
                    tokio::time::sleep(ACCEPT_AGAIN).await;
                }
            }
        }
    }

    /// Serves one connection.
    async fn attend(self: Arc<Reception>, stream: TcpStream, _place: OwnedSemaphorePermit) {
        let mut stop = self.stop.clone();
        let served = async {
            let mut connection = Connection::new(stream).map_err(broke)?;
            let greeted =
                tokio::time::timeout(PeerOptions::default().connect_max, self.greet(&mut connection));
            let from = greeted.await.map_err(|_| "no hello came".to_owned())??;
            self.receive(from, connection).await
        };
        tokio::select! {
            biased;
            () = async { drop(stop.wait_for(|stop| *stop).await) } => {}
            served = served => if let Err(why) = served {
                tracing::debug!(why, "a node's connection ended");
            }
        }
    }

    /// Hears who dials, and says who this is, or why it does not talk.
    async fn greet(&self, connection: &mut Connection) -> Result<NodeId, String> {
        let greeting = connection.hear_hello(MESSAGE_BYTES_MAX).await?;
        let from = check(&greeting, self.cluster, self.own, None);
        match &from {
            Ok(from) => {
                if !greeting.address.is_empty() {
                    self.book.moved(*from, greeting.address);
                }
                connection.put(0, What::Hello, &hello(self.cluster, self.own, *from, String::new()));
            }
            Err(why) => connection.put(0, What::Refused, why.as_bytes()),
        }
        connection.send_all().await.map_err(broke)?;
        from
    }

    /// Hands requests to the inbox in order, and sends answers as they come. Reads no further while too
    /// many are under way: the caller's queue fills, and is bounded.
    async fn receive(&self, from: NodeId, mut connection: Connection) -> Result<(), String> {
        let mut under_way = FuturesUnordered::new();
        loop {
            // What has arrived beyond the bound stays where it is, and nothing more is read.
            while under_way.len() < self.under_way_max
                && connection.has_room()
                && let Some(frame) = connection.take()?
            {
                if frame.what == What::Request {
                    let answer = self.inbox.receive(from, frame.body);
                    under_way.push(async move { (frame.call, answer.await) });
                }
            }
            let reads = under_way.len() < self.under_way_max && connection.has_room();
            tokio::select! {
                biased;
                Some(answered) = under_way.next(), if !under_way.is_empty() && connection.has_room() => {
                    put_answer(&mut connection, answered);
                    tokio::task::yield_now().await;
                    while connection.has_room() && let Some(Some(answered)) = under_way.next().now_or_never() {
                        put_answer(&mut connection, answered);
                    }
                    connection.send().map_err(broke)?;
                }
                ready = connection.ready(reads), if reads || connection.has_unsent() => {
                    ready.map_err(broke)?;
                    connection.send().map_err(broke)?;
                    if reads {
                        connection.receive()?;
                    }
                }
            }
        }
    }
}

fn put_answer(connection: &mut Connection, (call, answer): (u64, Result<Bytes, String>)) {
    match answer {
        Ok(answer) if answer.len() > MESSAGE_BYTES_MAX => {
            connection.put(call, What::Refused, b"the answer is too long");
        }
        Ok(answer) => connection.put(call, What::Answer, &answer),
        Err(why) => connection.put(call, What::Refused, why.as_bytes()),
    }
}
