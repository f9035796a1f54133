//! The types that openraft works with here, and the runtime that it works on.

use std::fmt;

use bytes::Bytes;
use openraft::impls::{BoxedErrorSource, EmptyNode, InlineBatch, OneshotResponder};
use openraft::vote::RaftLeaderId;
use openraft::{OptionalSend, RaftTypeConfig};
use purser_ledger::verdict::Answer;

/// The runtime of all groups. One alias, so that the simulation can put its own in its place.
#[cfg(not(madsim))]
pub type Runtime = openraft_rt_tokio::TokioRuntime;
/// The runtime of all groups: the simulation's.
#[cfg(madsim)]
pub type Runtime = super::runtime::SimRuntime;

/// A replica of one shard. Allocated once and never again: not a node, not a host name. openraft
/// cannot tell a reused id from the old replica, and two quorums could form.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
#[serde(transparent)]
pub struct ReplicaId(pub u64);

impl From<u64> for ReplicaId {
    fn from(id: u64) -> ReplicaId {
        ReplicaId(id)
    }
}

impl fmt::Display for ReplicaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A command: bytes of the layer above, which carry a checksum of their own (see `Machine`).
#[derive(Clone, PartialEq, Eq)]
pub struct Command(pub(super) Bytes);

impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Command({} bytes)", self.0.len())
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "command of {} bytes", self.0.len())
    }
}

/// What a command came to: the ledger's answers, one for each item of its batch.
pub type Answers = Vec<Answer>;

/// openraft's types, chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct TypeConfig;

impl RaftTypeConfig for TypeConfig {
    type D = Command;
    type R = Answers;
    type NodeId = ReplicaId;
    // Addresses are the meta group's to tell, not the membership's.
    type Node = EmptyNode;
    type Term = u64;
    // One leader a term, as in the paper.
    type LeaderId = openraft::impls::leader_id_std::LeaderId<u64, ReplicaId>;
    type Vote = openraft::impls::Vote<Self::LeaderId>;
    type Payload = openraft::EntryPayload<Command, ReplicaId, EmptyNode>;
    type Entry = openraft::Entry<<Self::LeaderId as RaftLeaderId>::Committed, Self::Payload>;
    type Responder<T>
        = OneshotResponder<Self, T>
    where
        T: OptionalSend + 'static;
    type Batch<T>
        = InlineBatch<T>
    where
        T: OptionalSend + 'static;
    type AsyncRuntime = Runtime;
    type ErrorSource = BoxedErrorSource;
}

/// The place of an entry: term and index.
pub type LogId = openraft::type_config::alias::LogIdOf<TypeConfig>;
/// A vote.
pub type Vote = openraft::type_config::alias::VoteOf<TypeConfig>;
/// An entry of the Raft log.
pub type Entry = openraft::type_config::alias::EntryOf<TypeConfig>;
/// What an entry carries.
pub type Payload = openraft::type_config::alias::PayloadOf<TypeConfig>;
/// Who takes part, and since which entry.
pub type Membership = openraft::type_config::alias::StoredMembershipOf<TypeConfig>;
pub(super) type CommittedLeaderId = openraft::type_config::alias::CommittedLeaderIdOf<TypeConfig>;
pub(super) type LeaderId = openraft::type_config::alias::LeaderIdOf<TypeConfig>;
pub(super) type SnapshotMeta = openraft::type_config::alias::SnapshotMetaOf<TypeConfig>;

/// A log id from its parts.
pub(super) fn log_id(term: u64, index: u64) -> LogId {
    LogId::new(CommittedLeaderId::new(term), index)
}
