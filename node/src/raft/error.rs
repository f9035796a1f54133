//! What a group cannot do, said so that the caller knows what to do next.

use super::types::ReplicaId;
use crate::log::LogError;
use crate::storage::StorageError;

/// The group does not work any more on this node. Other groups do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the group stopped on this node: {0}")]
pub struct Stopped(pub String);

/// Why a group did not start.
#[derive(Clone, Debug, thiserror::Error)]
pub enum OpenError {
    /// The log does not serve the group.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The state store does not serve the shard.
    #[error(transparent)]
    Store(#[from] StorageError),
    /// Log and rows do not fit together: entries that the rows lack are gone from the log.
    #[error(
        "the rows stand at {applied:?}, but the log begins after {purged}: \
         the state directory is not the log's; replace this replica"
    )]
    Gap {
        /// The last index in the rows.
        applied: Option<u64>,
        /// The last index purged from the log.
        purged: u64,
    },
    /// What is kept on disk does not decode.
    #[error("this replica is damaged: {0}; replace it")]
    Damaged(String),
    /// The state was found to differ from that of the other replicas.
    #[error("the state of this replica differs from the majority's; replace it")]
    Quarantined,
    /// The configuration cannot work.
    #[error("invalid configuration of a group: {0}")]
    Config(String),
    /// openraft did not start.
    #[error(transparent)]
    Stopped(#[from] Stopped),
}

/// Why a proposal has no answers.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// Nothing was proposed. Ask the leader, if one is known.
    #[error("this replica does not lead")]
    NotLeader {
        /// The leader, as far as this replica knows.
        leader: Option<ReplicaId>,
    },
    /// Nothing was proposed: most replicas find this node's clock too far ahead, and would not take
    /// what it stamps. Another one is to lead; ask again in a moment.
    #[error("most replicas find this node's clock ahead of theirs by {ahead_ms} ms or more")]
    ClockAhead {
        /// By how much at least, in milliseconds.
        ahead_ms: u64,
    },
    /// Nothing was proposed: the replicas' states differ, and none has a majority. Somebody has to find
    /// out which one is right.
    #[error("after entry {index} the replicas' states differ, and none has a majority")]
    Diverged {
        /// The entry after which they were compared.
        index: u64,
    },
    /// Nothing was proposed: the log has no room. Try again when it was flushed, or has more disk.
    #[error("the log has no room")]
    NoSpace,
    /// Nothing was proposed: the command is longer than the log takes. Propose it in parts.
    #[error("the command has {bytes} bytes, the longest may have {bytes_max}")]
    TooLarge {
        /// Its length.
        bytes: usize,
        /// The longest.
        bytes_max: usize,
    },
    /// Leadership was lost meanwhile, and the outcome is not known: it may take effect yet, or never.
    /// Ask the leader again with the same key.
    #[error("the proposal was overtaken by another leader, its outcome is not known")]
    Overtaken {
        /// The leader, as far as this replica knows.
        leader: Option<ReplicaId>,
    },
    /// The group does not work here any more, and the outcome is not known. Ask another replica
    /// again with the same key.
    #[error("the group stopped on this node, the outcome is not known: {0}")]
    Stopped(String),
}

/// Why a read cannot be served here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// Ask the leader, if one is known.
    #[error("this replica does not lead")]
    NotLeader {
        /// The leader, as far as this replica knows.
        leader: Option<ReplicaId>,
    },
    /// Too few replicas answered. Try again.
    #[error("no quorum confirmed the leader: {0}")]
    NoQuorum(String),
    /// The group does not work here.
    #[error(transparent)]
    Stopped(#[from] Stopped),
}
