//! A network in one process: a transport for each node, all ends on one board.
//!
//! - Messages of one pair arrive in the order of the calls; so do those that arrive twice.
//! - A cut link swallows: nobody is told, the caller's time runs out. Links are cut per direction; an
//!   answer needs the way back.
//! - A rule sees every message before it is delivered, and may drop, repeat or change it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use purser_node::cluster::NodeId;
use purser_node::peer::{Answer, CallError, Inbox, Transport};
use tokio::sync::oneshot;

/// What becomes of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    Delivered,
    Dropped,
    /// Delivered, and once more behind it. The second answer goes nowhere.
    Repeated,
    /// Something else arrives.
    Changed(Bytes),
}

type Rule = Box<dyn FnMut(NodeId, NodeId, &Bytes) -> Fate + Send>;

#[derive(Default)]
struct Board {
    inboxes: BTreeMap<NodeId, Arc<dyn Inbox>>,
    cut: BTreeSet<(NodeId, NodeId)>,
    rule: Option<Rule>,
    delivered: BTreeMap<(NodeId, NodeId), u64>,
}

/// The network. Cheap to clone.
#[derive(Clone, Default)]
pub struct Switchboard {
    board: Arc<Mutex<Board>>,
}

impl Switchboard {
    pub fn new() -> Switchboard {
        Switchboard::default()
    }

    fn board(&self) -> MutexGuard<'_, Board> {
        self.board.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// The transport of one node.
    pub fn transport(&self, node: NodeId) -> Arc<dyn Transport> {
        Arc::new(Line { node, switchboard: self.clone() })
    }

    /// Puts a node on the board, in place of what was there under its id.
    pub fn connect(&self, node: NodeId, inbox: Arc<dyn Inbox>) {
        self.board().inboxes.insert(node, inbox);
    }

    /// Takes a node off: calls to it fail at once, as those to a process that is not there.
    pub fn disconnect(&self, node: NodeId) {
        self.board().inboxes.remove(&node);
    }

    /// Nothing arrives any more from one node at another.
    pub fn cut(&self, from: NodeId, to: NodeId) {
        self.board().cut.insert((from, to));
    }

    /// Cuts a node off from some others, both ways.
    pub fn isolate(&self, node: NodeId, others: impl IntoIterator<Item = NodeId>) {
        for other in others {
            self.cut(node, other);
            self.cut(other, node);
        }
    }

    /// Mends all links.
    pub fn heal(&self) {
        self.board().cut.clear();
    }

    /// Has a rule decide about every message that no cut link swallows. It takes the place of the
    /// one before.
    pub fn rule(&self, rule: impl FnMut(NodeId, NodeId, &Bytes) -> Fate + Send + 'static) {
        self.board().rule = Some(Box::new(rule));
    }

    pub fn no_rule(&self) {
        self.board().rule = None;
    }

    /// How many messages one node has had from another.
    pub fn delivered(&self, from: NodeId, to: NodeId) -> u64 {
        self.board().delivered.get(&(from, to)).copied().unwrap_or(0)
    }

    /// Hands a message over, now: the caller's order is the order of arrival. `None`: nobody is
    /// there; an answer that is dropped: it was swallowed.
    fn deliver(&self, from: NodeId, to: NodeId, message: Bytes) -> Option<oneshot::Receiver<Answered>> {
        let (answer, answered) = oneshot::channel();
        let (inbox, messages) = {
            let mut board = self.board();
            let inbox = board.inboxes.get(&to)?.clone();
            if board.cut.contains(&(from, to)) {
                return Some(answered);
            }
            let fate = board.rule.as_mut().map_or(Fate::Delivered, |rule| rule(from, to, &message));
            let messages = match fate {
                Fate::Delivered => vec![message],
                Fate::Dropped => return Some(answered),
                Fate::Repeated => vec![message.clone(), message],
                Fate::Changed(other) => vec![other],
            };
            *board.delivered.entry((from, to)).or_default() += messages.len() as u64;
            (inbox, messages)
        };
        let mut answer = Some(answer);
        for message in messages {
            // Both are worked on, whatever becomes of the caller.
            let answering = tokio::spawn(inbox.receive(from, message));
            let (switchboard, answer) = (self.clone(), answer.take());
            tokio::spawn(async move {
                let answered = answering.await.expect("an inbox does not panic");
                let back = !switchboard.board().cut.contains(&(to, from));
                if let Some(answer) = answer.filter(|_| back) {
                    let _ = answer.send(answered);
                }
            });
        }
        Some(answered)
    }
}

type Answered = Result<Bytes, String>;

struct Line {
    node: NodeId,
    switchboard: Switchboard,
}

impl Transport for Line {
    fn call(&self, to: NodeId, message: Bytes, within: Duration) -> Answer {
        let answered = self.switchboard.deliver(self.node, to, message);
        Box::pin(async move {
            let Some(answered) = answered else {
                return Err(CallError::Unreachable("nobody is there".to_owned()));
            };
            let answered = async {
                match answered.await {
                    Ok(answered) => answered.map_err(CallError::Refused),
                    Err(_) => std::future::pending().await,
                }
            };
            tokio::time::timeout(within, answered).await.unwrap_or(Err(CallError::TimedOut(within)))
        })
    }
}
