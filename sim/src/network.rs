//! The network between nodes, and between callers and nodes: a `Transport` over simulated time.
//!
//! Messages of one sender to one receiver arrive in order, each after a delay of its own, unless one
//! of these strikes, and no others:
//! - **loss**: a message, or its answer, never arrives;
//! - **doubling**: it arrives twice, the second time later;
//! - **lateness**: it arrives up to two seconds late, behind others that were sent after it, as what
//!   an older stream still delivers;
//! - **a break**: the stream ends; all that is on its way is lost, and its callers are told;
//! - **a partition**: nothing passes from one to another, in one direction or in both;
//! - **nobody there**: a node that is down refuses, or says nothing.
//!
//! Everything that is on its way is held here, by the time at which it is due, so that one task
//! delivers it in an order that depends on the seed alone. It is bounded: what would be too much for
//! a link is lost.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use purser_node::cluster::NodeId;
use purser_node::peer::{Answer, CallError, Inbox, Transport};
use tokio::sync::{Notify, mpsc, oneshot};
use xxhash_rust::xxh3::xxh3_64;

use crate::dice::Dice;
use crate::trace::{Trace, now};
use crate::world::NetworkWorld;

/// Messages on their way over one link.
const ON_LINK_MAX: usize = 10_000;
/// Messages that wait at a receiver.
const AT_RECEIVER_MAX: usize = 10_000;
/// Requests that one receiver works on at once; more are lost.
const UNDER_WAY_MAX: usize = 10_000;
/// How late a late message is.
const LATE: std::ops::RangeInclusive<Duration> = Duration::from_millis(50)..=Duration::from_secs(2);

/// A direction: from one to another.
pub type Link = (NodeId, NodeId);

/// The network. Clones are the same one.
#[derive(Clone)]
pub struct Network {
    air: Arc<Mutex<Air>>,
    sent: Arc<Notify>,
    trace: Arc<Trace>,
}

struct Air {
    world: NetworkWorld,
    dice: Dice,
    names: BTreeMap<NodeId, String>,
    plugs: BTreeMap<NodeId, mpsc::Sender<Packet>>,
    /// Whose messages arrive once at most.
    once: BTreeSet<NodeId>,
    /// Links over which nothing passes, and how many cuts they are in.
    cut: BTreeMap<Link, u32>,
    /// The time at which the last message of a link is due: the next one in order comes after it.
    last_due: BTreeMap<Link, Duration>,
    on_link: BTreeMap<Link, usize>,
    /// What is on its way, by the time at which it is due, then by the order of sending.
    flying: BTreeMap<(Duration, u64), Packet>,
    packets: u64,
    calls: u64,
}

#[derive(Clone)]
struct Packet {
    from: NodeId,
    to: NodeId,
    call: u64,
    load: Load,
}

#[derive(Clone)]
enum Load {
    Request(Bytes),
    Answer(Result<Bytes, CallError>),
}

impl Load {
    fn describe(&self) -> String {
        match self {
            Load::Request(bytes) => format!("request {:016x}", xxh3_64(bytes)),
            Load::Answer(Ok(bytes)) => format!("answer {:016x}", xxh3_64(bytes)),
            Load::Answer(Err(error)) => format!("answer: {error}"),
        }
    }
}

impl Air {
    fn name(&self, node: NodeId) -> &str {
        self.names.get(&node).map_or("?", String::as_str)
    }

    /// Puts a message on its way, or loses it.
    fn send(&mut self, packet: Packet) {
        let link = (packet.from, packet.to);
        let on_link = self.on_link.get(&link).copied().unwrap_or(0);
        if self.cut.contains_key(&link) || on_link >= ON_LINK_MAX || self.dice.chance(self.world.lost) {
            return;
        }
        if self.dice.chance(self.world.breaks) {
            self.break_link(link);
            return;
        }
        let arrives = now() + self.dice.span(&self.world.delay);
        if self.dice.chance(self.world.doubled) && !self.once.contains(&packet.from) {
            let again = arrives + self.dice.span(&LATE);
            self.fly(again, packet.clone());
        }
        if self.dice.chance(self.world.late) {
            let late = arrives + self.dice.span(&LATE);
            self.fly(late, packet);
            return;
        }
        let last_due = self.last_due.entry(link).or_default();
        let due = arrives.max(*last_due);
        *last_due = due;
        self.fly(due, packet);
    }

    fn fly(&mut self, due: Duration, packet: Packet) {
        *self.on_link.entry((packet.from, packet.to)).or_default() += 1;
        self.packets += 1;
        self.flying.insert((due, self.packets), packet);
    }

    /// Ends a stream: what is on its way there is lost, and who waits for an answer is told so.
    fn break_link(&mut self, link: Link) {
        let lost: Vec<(Duration, u64)> = self
            .flying
            .iter()
            .filter(|(_, packet)| (packet.from, packet.to) == link)
            .map(|(at, _)| *at)
            .collect();
        for at in lost {
            let Some(packet) = self.flying.remove(&at) else { continue };
            if let Load::Request(_) = packet.load {
                let error = CallError::Unreachable("the stream broke".to_owned());
                let told =
                    Packet { from: link.1, to: link.0, call: packet.call, load: Load::Answer(Err(error)) };
                let due = now() + self.dice.span(&self.world.delay);
                self.fly(due, told);
            }
        }
        self.on_link.remove(&link);
    }

    /// Hands over what is due, if something is; else says when the next is.
    fn deliver(&mut self, trace: &Trace) -> Option<Duration> {
        while let Some((&(due, number), _)) = self.flying.first_key_value() {
            if due > now() {
                return Some(due);
            }
            let Some(packet) = self.flying.remove(&(due, number)) else { continue };
            self.arrive(packet, trace);
        }
        None
    }

    fn arrive(&mut self, packet: Packet, trace: &Trace) {
        let link = (packet.from, packet.to);
        if let Some(on_link) = self.on_link.get_mut(&link) {
            *on_link = on_link.saturating_sub(1);
        }
        if self.cut.contains_key(&link) {
            return;
        }
        let told = format!("{}>{} {}", self.name(link.0), self.name(link.1), packet.load.describe());
        let (call, asks) = (packet.call, matches!(packet.load, Load::Request(_)));
        let arrived = self.plugs.get(&packet.to).is_some_and(|plug| plug.try_send(packet).is_ok());
        trace.note(format_args!("{told}{}", if arrived { "" } else { ": nobody there" }));
        if !arrived && asks && self.dice.chance(500) {
            let error = CallError::Unreachable("nobody listens there".to_owned());
            self.send(Packet { from: link.1, to: link.0, call, load: Load::Answer(Err(error)) });
        }
    }
}

impl Network {
    /// A network without anybody.
    pub fn new(seed: u64, world: NetworkWorld, trace: Arc<Trace>) -> Network {
        let air = Air {
            world,
            dice: Dice::new(seed, "network"),
            names: BTreeMap::new(),
            plugs: BTreeMap::new(),
            once: BTreeSet::new(),
            cut: BTreeMap::new(),
            last_due: BTreeMap::new(),
            on_link: BTreeMap::new(),
            flying: BTreeMap::new(),
            packets: 0,
            calls: 0,
        };
        Network { air: Arc::new(Mutex::new(air)), sent: Arc::default(), trace }
    }

    fn air(&self) -> MutexGuard<'_, Air> {
        self.air.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn send(&self, packet: Packet) {
        self.air().send(packet);
        self.sent.notify_one();
    }

    /// Delivers, for ever.
    pub async fn carry(self) {
        loop {
            let next = self.air().deliver(&self.trace);
            let due = async {
                match next {
                    Some(due) => tokio::time::sleep(due.saturating_sub(now())).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                // Something new may be due earlier.
                () = self.sent.notified() => {}
                () = due => {}
            }
        }
    }

    /// Connects a node, and gives it its line: messages for it go to the inbox, on tasks of the node
    /// that calls this. A line that had the same place before hears nothing any more.
    pub fn plug(&self, node: NodeId, name: &str, inbox: Arc<dyn Inbox>) -> Arc<Line> {
        let (plug, packets) = mpsc::channel(AT_RECEIVER_MAX);
        let mut air = self.air();
        air.names.insert(node, name.to_owned());
        air.plugs.insert(node, plug);
        drop(air);
        let line = Arc::new(Line { network: self.clone(), node, waiting: Arc::default() });
        tokio::spawn(listen(Arc::clone(&line), inbox, packets));
        line
    }

    /// From now on no message of this one is doubled: as with gRPC, which sends a call once, and
    /// leaves it to the caller to send it again.
    pub fn never_double(&self, from: NodeId) {
        self.air().once.insert(from);
    }

    /// Lets nothing pass from one to the other.
    pub fn cut(&self, from: NodeId, to: NodeId) {
        *self.air().cut.entry((from, to)).or_default() += 1;
    }

    /// Takes one cut back: messages pass again where it was the only one.
    pub fn mend(&self, from: NodeId, to: NodeId) {
        if let Entry::Occupied(mut cuts) = self.air().cut.entry((from, to)) {
            *cuts.get_mut() -= 1;
            if *cuts.get() == 0 {
                cuts.remove();
            }
        }
    }

    /// From now on nothing strikes any more.
    pub fn calm(&self) {
        let mut air = self.air();
        air.cut.clear();
        air.world = NetworkWorld { lost: 0, doubled: 0, late: 0, breaks: 0, ..air.world.clone() };
    }
}

type Waiting = Arc<Mutex<BTreeMap<u64, oneshot::Sender<Result<Bytes, CallError>>>>>;

/// One node's way into the network.
pub struct Line {
    network: Network,
    node: NodeId,
    /// Who waits for the answer to which call.
    waiting: Waiting,
}

/// Forgets a call whose caller has gone.
struct Hangup {
    waiting: Waiting,
    call: u64,
}

impl Drop for Hangup {
    fn drop(&mut self) {
        lock(&self.waiting).remove(&self.call);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

impl Transport for Line {
    fn call(&self, to: NodeId, message: Bytes, within: Duration) -> Answer {
        let (answer, answered) = oneshot::channel();
        let call = {
            let mut air = self.network.air();
            air.calls += 1;
            air.calls
        };
        lock(&self.waiting).insert(call, answer);
        let hangup = Hangup { waiting: Arc::clone(&self.waiting), call };
        self.network.send(Packet { from: self.node, to, call, load: Load::Request(message) });
        async move {
            let _hangup = hangup;
            match tokio::time::timeout(within, answered).await {
                Ok(Ok(answer)) => answer,
                Ok(Err(_)) => Err(CallError::Unreachable("the line is gone".to_owned())),
                Err(_) => Err(CallError::TimedOut(within)),
            }
        }
        .boxed()
    }
}

/// Takes in what arrives, in order.
async fn listen(line: Arc<Line>, inbox: Arc<dyn Inbox>, mut packets: mpsc::Receiver<Packet>) {
    let under_way = Arc::new(tokio::sync::Semaphore::new(UNDER_WAY_MAX));
    while let Some(Packet { from, call, load, .. }) = packets.recv().await {
        let request = match load {
            Load::Request(request) => request,
            Load::Answer(answer) => {
                // Who has hung up, or was another process, does not wait.
                if let Some(waiting) = lock(&line.waiting).remove(&call) {
                    let _ = waiting.send(answer);
                }
                continue;
            }
        };
        let Ok(permit) = Arc::clone(&under_way).try_acquire_owned() else { continue };
        let answer = inbox.receive(from, request);
        let line = Arc::clone(&line);
        tokio::spawn(async move {
            let _permit = permit;
            let load = Load::Answer(answer.await.map_err(CallError::Refused));
            line.network.send(Packet { from: line.node, to: from, call, load });
        });
    }
}

/// Takes nothing in: the inbox of those who only call.
pub struct NoInbox;

impl Inbox for NoInbox {
    fn receive(
        &self,
        _from: NodeId,
        _message: Bytes,
    ) -> futures_util::future::BoxFuture<'static, Result<Bytes, String>> {
        std::future::ready(Err("nobody asks a caller".to_owned())).boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use madsim::runtime::Runtime;

    const MS: fn(u64) -> Duration = Duration::from_millis;
    const PATIENCE: Duration = Duration::from_secs(10);

    fn quiet() -> NetworkWorld {
        NetworkWorld { delay: MS(1)..=MS(50), lost: 0, doubled: 0, late: 0, breaks: 0 }
    }

    fn node(number: u128) -> NodeId {
        NodeId(uuid::Uuid::from_u128(number))
    }

    /// Takes everything in, and gives each message back as its answer.
    #[derive(Default)]
    struct Echo {
        taken: Mutex<Vec<Bytes>>,
    }

    impl Inbox for Echo {
        fn receive(
            &self,
            _from: NodeId,
            message: Bytes,
        ) -> futures_util::future::BoxFuture<'static, Result<Bytes, String>> {
            lock(&self.taken).push(message.clone());
            std::future::ready(Ok(message)).boxed()
        }
    }

    /// A caller's line to an echo, in a network like this.
    fn told(world: NetworkWorld, story: impl AsyncFnOnce(Network, Arc<Line>, Arc<Echo>)) {
        Runtime::with_seed_and_config(1, madsim::Config::default()).block_on(async {
            let network = Network::new(1, world, Arc::new(Trace::new(None).expect("no file")));
            tokio::spawn(network.clone().carry());
            let echo = Arc::new(Echo::default());
            network.plug(node(2), "echo", echo.clone());
            let line = network.plug(node(1), "caller", Arc::new(NoInbox));
            story(network, line, echo).await;
        });
    }

    fn messages(count: u8) -> Vec<Bytes> {
        (0..count).map(|number| Bytes::from(vec![number])).collect()
    }

    #[test]
    fn messages_of_a_quiet_link_arrive_once_and_in_order() {
        told(quiet(), async |_, line, echo| {
            let sent = messages(100);
            let answers = sent.iter().map(|message| line.call(node(2), message.clone(), PATIENCE));
            let answers = futures_util::future::join_all(answers).await;
            assert_eq!(answers, sent.iter().cloned().map(Ok).collect::<Vec<_>>());
            assert_eq!(*lock(&echo.taken), sent);
        });
    }

    #[test]
    fn late_and_doubled_messages_arrive_out_of_order_and_twice() {
        told(NetworkWorld { late: 200, doubled: 200, ..quiet() }, async |_, line, echo| {
            let sent = messages(100);
            let answers = sent.iter().map(|message| line.call(node(2), message.clone(), PATIENCE));
            assert!(futures_util::future::join_all(answers).await.iter().all(Result::is_ok));
            tokio::time::sleep(*LATE.end()).await;
            let taken = lock(&echo.taken).clone();
            assert!(!taken.is_sorted(), "some came late");
            assert!(taken.len() > sent.len(), "some came twice");
            assert!(sent.iter().all(|message| taken.contains(message)), "all came");
        });
    }

    #[test]
    fn a_cut_in_one_direction_lets_the_other_pass() {
        told(quiet(), async |network, line, echo| {
            network.cut(node(2), node(1));
            let unanswered = line.call(node(2), Bytes::from_static(b"heard"), MS(500)).await;
            assert_eq!(unanswered, Err(CallError::TimedOut(MS(500))));
            assert_eq!(*lock(&echo.taken), ["heard"]);
            network.mend(node(2), node(1));
            network.cut(node(1), node(2));
            assert!(line.call(node(2), Bytes::from_static(b"unheard"), MS(500)).await.is_err());
            assert_eq!(*lock(&echo.taken), ["heard"]);
        });
    }

    #[test]
    fn a_broken_stream_tells_those_who_wait_on_it() {
        told(NetworkWorld { breaks: 300, ..quiet() }, async |_, line, _| {
            let answers = messages(50).into_iter().map(|message| line.call(node(2), message, MS(500)));
            let answers = futures_util::future::join_all(answers).await;
            let told = |answer: &&Result<Bytes, CallError>| matches!(answer, Err(CallError::Unreachable(_)));
            assert!(answers.iter().filter(told).count() > 5, "{answers:?}");
        });
    }
}
