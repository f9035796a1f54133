//! The cluster as one node knows it: who it is, which nodes and shards there are, where each is.
//!
//! ```text
//!   directory   who this node is, and the cluster that it belongs to: written once, on its disk
//!   founding    nodes, shards, replicas of a new cluster: the first state of the meta group
//!   state       nodes and replicas at one epoch, and how they change: the cluster's map
//!   meta        the meta group's state machine: its commands, and the rows that keep the state
//!   view        what this node knows of it now; looks up addresses and leaders
//!   ask         what a node asks of others: to take a command of the meta group, to tell the map
//!   upkeep      registers this node, follows the meta group, brings leaders to their places
//!   replacing   moves groups from lost replicas to those that come in their places
//!   place       which shard a customer lives in
//! ```
//! Group 0 is the meta group; group n + 1 is shard n. A node id is random and belongs to its data
//! directory: an empty directory is a new node, even under an old name. Replica ids are never
//! reused: the first ones are counted in the founding, later ones by the meta group, from
//! [`LATER_REPLICA_IDS_FROM`] on. Debits go on while the meta group is down.

pub mod ask;
pub mod directory;
pub mod founding;
pub mod meta;
pub mod place;
pub mod replacing;
mod sealed;
pub mod state;
pub mod upkeep;
pub mod view;

use serde::{Deserialize, Serialize};

use crate::log::GroupId;
use crate::shard::ShardId;

pub use directory::{Descriptor, DirectoryError, Opened};
pub use founding::{Founding, FoundingError};
pub use place::{SHARDS_MAX, ShardMap, customer_hash};
pub use state::{NodePlace, NotReplaced, State};
pub use view::Cluster;

/// Replica ids from here on are those that the meta group gave out.
pub const LATER_REPLICA_IDS_FROM: u64 = 1 << 32;
/// Shards of a cluster that does not say.
pub const SHARDS_DEFAULT: u16 = 16;

/// The meta group.
pub const META: GroupId = GroupId(0);

/// A node: random, made with its data directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct NodeId(pub uuid::Uuid);

impl std::fmt::Display for NodeId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// The group of a shard.
pub fn group_of(shard: ShardId) -> GroupId {
    GroupId(u32::from(shard.0) + 1)
}

/// The shard of a group; none for the meta group.
pub fn shard_of(group: GroupId) -> Option<ShardId> {
    group.0.checked_sub(1).and_then(|shard| u16::try_from(shard).ok()).map(ShardId)
}
