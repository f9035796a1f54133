//! A shard as the API sees it: commands in, verdicts out, and consistent reads.
//!
//! The batcher clocks itself: while a batch is being made durable the next one forms, so that batches
//! grow with the load and no command waits for a timer. The queue is bounded; over the bound the
//! answer is [`ShardError::Busy`], at once.
//!
//! Time: a batch is stamped with the leader's clock, and never before a time at which a read was
//! judged, so that a read never sees less than a write that follows it was judged by.

mod batcher;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use purser_ledger::command::{Command, encode_command};
use purser_ledger::time::Time;
use purser_ledger::verdict::Reply;
use tokio::sync::{mpsc, oneshot};

use crate::clock::Clock;
use crate::raft::{Group, ProposeError, ReadError};
use crate::room::Room;
use crate::storage::ShardView;

pub use batcher::{QUEUE_COMMANDS_MAX, Sweeping};

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
            ProposeError::NotLeader { .. } | ProposeError::Overtaken { .. } => ShardError::NotLeader,
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

/// A command on its way to the batcher.
pub(crate) struct Pending {
    command: Vec<u8>,
    answer: oneshot::Sender<Result<Placed, ShardError>>,
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
    /// No batch is stamped before this time.
    floor: AtomicU64,
    queue: mpsc::Sender<Pending>,
}

impl Shard {
    /// Starts serving a shard over its group.
    pub fn start(id: ShardId, group: Group, clock: Arc<Clock>, room: Arc<Room>, sweeping: Sweeping) -> Shard {
        let (queue, pending) = mpsc::channel(QUEUE_COMMANDS_MAX);
        let inner = Arc::new(Inner { id, group, clock, room, floor: AtomicU64::new(0), queue });
        tokio::spawn(batcher::run(Arc::downgrade(&inner), pending, sweeping));
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
        QUEUE_COMMANDS_MAX - self.inner.queue.capacity()
    }

    /// Has a command judged, made durable on a majority, and answered.
    pub async fn submit(&self, command: &Command<'_>) -> Result<Placed, ShardError> {
        if !self.inner.room.is_there() {
            return Err(ShardError::NoSpace);
        }
        let mut bytes = Vec::with_capacity(160);
        encode_command(&mut bytes, command);
        let (answer, answered) = oneshot::channel();
        self.inner.queue.try_send(Pending { command: bytes, answer }).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => ShardError::Busy,
            mpsc::error::TrySendError::Closed(_) => ShardError::Stopping,
        })?;
        answered.await.unwrap_or(Err(ShardError::Stopping))
    }

    /// A linearizable read: everything that was answered before it began is seen.
    pub async fn read(&self) -> Result<(ReadPoint, ShardView), ShardError> {
        let read_index = self.inner.group.read_index().await?;
        let view = self.inner.group.view();
        let last_time = purser_ledger::query::last_time(&view)
            .map_err(|damage| ShardError::Failed(damage.to_string()))?;
        let now = self.inner.clock.now().max(last_time);
        self.inner.floor.fetch_max(now.0, Ordering::AcqRel);
        Ok((ReadPoint { shard: self.inner.id, read_index, now }, view))
    }
}

impl Inner {
    /// The stamp of the next batch.
    fn stamp(&self) -> Time {
        self.clock.now().max(Time(self.floor.load(Ordering::Acquire)))
    }
}
