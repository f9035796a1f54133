//! A shard as the API sees it: commands in, verdicts out, and consistent reads.
//!
//! The batcher clocks itself: while a batch is being made durable the next one forms, so that batches
//! grow with the load and no command waits for a timer. The queue is bounded; over the bound the
//! answer is [`ShardError::Busy`], at once.
//!
//! Commands are judged in the order in which they were submitted. Of a list that does not fit into the
//! queue the first commands are taken and the others refused, so that what is refused of one customer
//! is always the end of what it sent.
//!
//! Time: a batch is stamped with the leader's clock, and never before a time at which this leader
//! judged a read, so that a read never sees less than a write that follows it was judged by.

mod batcher;
mod queue;
mod reads;

use std::sync::{Arc, Mutex, PoisonError};

use purser_ledger::command::{Command, encode_command};
use purser_ledger::time::Time;
use purser_ledger::verdict::Reply;
use tokio::sync::{mpsc, oneshot};

use crate::clock::Clock;
use crate::raft::{Group, ProposeError, ReadError};
use crate::room::Room;
use crate::storage::ShardView;

pub use batcher::Sweeping;
pub use queue::{CommandList, Outcome, QUEUE_COMMANDS_MAX};
use queue::{Pending, Places};

/// Which shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShardId(pub u16);

impl std::fmt::Display for ShardId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Where and when an answer was judged: its place in the one order of its shard's commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Witness {
    /// The shard.
    pub shard: ShardId,
    /// The index of the log entry.
    pub log_index: u64,
    /// The place in the entry's batch.
    pub position: u64,
    /// The ledger time.
    pub now: Time,
}

/// An answered command.
#[derive(Clone, Debug)]
pub struct Placed {
    /// Where and when.
    pub witness: Witness,
    /// What.
    pub reply: Reply,
}

/// Where and when a read was judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadPoint {
    /// The shard.
    pub shard: ShardId,
    /// Everything up to this log index is seen.
    pub read_index: u64,
    /// The ledger time.
    pub now: Time,
}

/// Why a shard gave no answer. In every case but the last the same key may be tried again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ShardError {
    /// The queue is full.
    #[error("the shard's queue is full")]
    Busy,
    /// The log has no room.
    #[error("the disk is full")]
    NoSpace,
    /// Another replica leads, or none does.
    #[error("this node does not lead the shard")]
    NotLeader,
    /// The node is going away.
    #[error("the node is stopping")]
    Stopping,
    /// The replica has stopped; what was asked may or may not have been done.
    #[error("the shard is not served: {0}")]
    Failed(String),
}

impl From<ProposeError> for ShardError {
    fn from(error: ProposeError) -> ShardError {
        match error {
            ProposeError::NotLeader { .. }
            | ProposeError::Overtaken { .. }
            | ProposeError::ClockAhead { .. }
            | ProposeError::Diverged { .. } => ShardError::NotLeader,
            ProposeError::NoSpace => ShardError::NoSpace,
            other => ShardError::Failed(other.to_string()),
        }
    }
}

impl From<ReadError> for ShardError {
    fn from(error: ReadError) -> ShardError {
        match error {
            ReadError::NotLeader { .. } | ReadError::NoQuorum(_) => ShardError::NotLeader,
            ReadError::Stopped(stopped) => ShardError::Failed(stopped.0),
        }
    }
}

/// A handle to one shard of this node; cheap to clone.
#[derive(Clone)]
pub struct Shard {
    inner: Arc<Inner>,
}

pub(crate) struct Inner {
    id: ShardId,
    group: Group,
    clock: Arc<Clock>,
    room: Arc<Room>,
    floor: Mutex<Floor>,
    /// As long as there are places: what waits in it has at least one each, so that it is never full.
    queue: mpsc::Sender<Pending>,
    places: Places,
    readers: mpsc::Sender<reads::Reader>,
}

impl Shard {
    /// Starts serving a shard over its group.
    pub fn start(id: ShardId, group: Group, clock: Arc<Clock>, room: Arc<Room>, sweeping: Sweeping) -> Shard {
        let (queue, pending) = mpsc::channel(QUEUE_COMMANDS_MAX);
        let places = Places::new();
        let (readers, waiting) = mpsc::channel(reads::QUEUE_READS_MAX);
        tokio::spawn(reads::run(group.clone(), waiting));
        let floor = Mutex::default();
        let inner = Arc::new(Inner { id, group, clock, room, floor, queue, places, readers });
        tokio::spawn(batcher::run(id, Arc::downgrade(&inner), pending, sweeping));
        Shard { inner }
    }

    /// Which shard.
    pub fn id(&self) -> ShardId {
        self.inner.id
    }

    /// Its Raft group.
    pub fn group(&self) -> &Group {
        &self.inner.group
    }

    /// How many commands wait.
    pub fn queued(&self) -> usize {
        self.inner.places.taken()
    }

    /// Has a command judged, made durable on a majority, and answered.
    pub async fn submit(&self, command: &Command<'_>) -> Outcome {
        let mut bytes = Vec::with_capacity(160);
        encode_command(&mut bytes, command);
        if self.take_places(1)? == 0 {
            return Err(ShardError::Busy);
        }
        let (answer, answered) = oneshot::channel();
        self.enqueue(Pending::One(bytes, answer))?;
        answered.await.unwrap_or(Err(ShardError::Stopping))
    }

    /// The same for many commands: an outcome for each, in order. One customer's are judged in their
    /// order. Of what does not fit into the queue the end is refused.
    pub async fn submit_many(&self, mut commands: CommandList) -> Vec<Outcome> {
        let asked = commands.len();
        let taken = match self.take_places(asked) {
            Ok(taken) => taken,
            Err(error) => return vec![Err(error); asked],
        };
        commands.truncate(taken);
        let mut outcomes = match taken {
            0 => Vec::new(),
            _ => self.answered(commands).await.unwrap_or_else(|error| vec![Err(error); taken]),
        };
        outcomes.resize(asked, Err(ShardError::Busy));
        outcomes
    }

    async fn answered(&self, commands: CommandList) -> Result<Vec<Outcome>, ShardError> {
        let (answer, answered) = oneshot::channel();
        self.enqueue(Pending::Many(commands, answer))?;
        answered.await.map_err(|_| ShardError::Stopping)
    }

    fn take_places(&self, wanted: usize) -> Result<usize, ShardError> {
        if !self.inner.room.is_there() {
            return Err(ShardError::NoSpace);
        }
        Ok(self.inner.places.take_up_to(wanted))
    }

    fn enqueue(&self, pending: Pending) -> Result<(), ShardError> {
        self.inner.queue.try_send(pending).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => ShardError::Busy,
            mpsc::error::TrySendError::Closed(_) => ShardError::Stopping,
        })
    }

    /// A linearizable read: everything that was answered before it began is seen.
    pub async fn read(&self) -> Result<(ReadPoint, ShardView), ShardError> {
        let (reader, confirmed) = oneshot::channel();
        self.inner.readers.try_send(reader).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => ShardError::Busy,
            mpsc::error::TrySendError::Closed(_) => ShardError::Stopping,
        })?;
        let read_index = confirmed.await.map_err(|_| ShardError::Stopping)??;
        let view = self.inner.group.view();
        let last_time = purser_ledger::query::last_time(&view)
            .map_err(|damage| ShardError::Failed(damage.to_string()))?;
        // What is applied needs no floor: no later write is judged before `last_time`. And it may be
        // ahead of what followers take, if most clocks ran ahead once and are right again.
        let stamp = self.inner.read_stamp();
        Ok((ReadPoint { shard: self.inner.id, read_index, now: stamp.max(last_time) }, view))
    }
}

impl Inner {
    /// The stamp of the next batch.
    fn stamp(&self) -> Time {
        let term = self.term();
        let floor = self.floor.lock().unwrap_or_else(PoisonError::into_inner);
        self.clock.now().max(floor.of(term))
    }

    /// Like `stamp`; no batch of this term is stamped before it from now on.
    fn read_stamp(&self) -> Time {
        let term = self.term();
        let mut floor = self.floor.lock().unwrap_or_else(PoisonError::into_inner);
        let stamp = self.clock.now().max(floor.of(term));
        // Whoever has just lost the lead of this term knows of no leader: the floor of the term stays.
        if term >= floor.term {
            *floor = Floor { term, time: stamp };
        }
        stamp
    }

    fn term(&self) -> u64 {
        self.group.leading().map_or(0, |leading| leading.term)
    }
}

/// No batch of a term is stamped before this time. A floor of an earlier term is none: who lost the
/// lead may have lost it because its clock ran ahead.
#[derive(Clone, Copy, Debug, Default)]
struct Floor {
    term: u64,
    time: Time,
}

impl Floor {
    fn of(self, term: u64) -> Time {
        if self.term == term { self.time } else { Time::ZERO }
    }
}
