//! The nouns of the log: groups, slots, entries, and the operations that change them.
//!
//! Payloads are opaque. The layer above encodes its consensus types; the log only keeps bytes,
//! in order, and gives them back or says that it cannot.

use bytes::Bytes;
use std::fmt;

/// One Raft group (shard) whose records share this node's log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupId(pub u32);

impl fmt::Display for GroupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "group {}", self.0)
    }
}

/// A record of which only the latest value counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Slot {
    /// The vote. It must be durable before it is answered.
    Vote,
    /// The committed log id. It rides along: it never forces a sync of its own.
    Committed,
    /// Which generation of the state store is the valid one.
    Generation,
    /// Membership and the like.
    Meta,
}

impl Slot {
    /// Every slot, in the order of their codes on disk.
    pub const ALL: [Slot; 4] = [Slot::Vote, Slot::Committed, Slot::Generation, Slot::Meta];

    /// The code on disk.
    pub(crate) fn code(self) -> u8 {
        match self {
            Slot::Vote => 1,
            Slot::Committed => 2,
            Slot::Generation => 3,
            Slot::Meta => 4,
        }
    }

    /// The slot of a code on disk, if it is one.
    pub(crate) fn from_code(code: u8) -> Option<Slot> {
        Slot::ALL.into_iter().find(|slot| slot.code() == code)
    }

    pub(crate) fn position(self) -> usize {
        usize::from(self.code()) - 1
    }
}

/// One entry of a group's Raft log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogEntry {
    /// Its place in the group's log; the first one of a group is 0.
    pub index: u64,
    /// The term of the leader that made it.
    pub term: u64,
    /// What the layer above wrote.
    pub payload: Bytes,
}

/// A change to one group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Adds entries. Their indexes are contiguous and the first one is the group's next index.
    Append {
        /// Whose log.
        group: GroupId,
        /// What is added.
        entries: Vec<LogEntry>,
    },
    /// Drops the entries `>= from_index`.
    Truncate {
        /// Whose log.
        group: GroupId,
        /// The first index that goes.
        from_index: u64,
    },
    /// Drops the entries `<= upto_index`, which may lie beyond the log's own end. A purge below an
    /// earlier one changes nothing.
    Purge {
        /// Whose log.
        group: GroupId,
        /// The last index that goes.
        upto_index: u64,
        /// The encoded id of the last purged entry, kept for the layer above.
        mark: Bytes,
    },
    /// Replaces the latest value of a slot.
    Put {
        /// Whose slot.
        group: GroupId,
        /// Which one.
        slot: Slot,
        /// The new value.
        value: Bytes,
    },
    /// Removes everything about a group: a replica that is tombstoned or replaced. It also clears
    /// a report of damage, for what was damaged is gone.
    Forget {
        /// Which one.
        group: GroupId,
    },
}

impl Op {
    /// The group that it changes.
    pub fn group(&self) -> GroupId {
        match self {
            Op::Append { group, .. }
            | Op::Truncate { group, .. }
            | Op::Purge { group, .. }
            | Op::Put { group, .. }
            | Op::Forget { group } => *group,
        }
    }

    /// True if it waits for the next run instead of asking for one.
    pub(crate) fn rides_along(&self) -> bool {
        matches!(self, Op::Put { slot: Slot::Committed, .. })
    }
}

/// The ends of a group's log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Extent {
    /// The first index that is (or would be) present: one past the last purged one.
    pub first_index: u64,
    /// The index that the next append must carry. Equal to `first_index` when nothing is present.
    pub next_index: u64,
    /// The term of the last entry, `None` when nothing is present.
    pub last_term: Option<u64>,
}

impl Extent {
    /// The index of the last entry, if there is one.
    pub fn last_index(&self) -> Option<u64> {
        (self.next_index > self.first_index).then(|| self.next_index - 1)
    }
}
