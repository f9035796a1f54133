//! Who leads a group.

use openraft::async_runtime::WatchReceiver;

use super::group::Group;
use super::types::ReplicaId;

/// Who leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leading {
    /// The replica.
    pub replica: ReplicaId,
    /// Its term.
    pub term: u64,
}

impl Group {
    /// Who leads, as far as this replica knows. Cheap.
    pub fn leading(&self) -> Option<Leading> {
        let metrics = self.inner.raft.server_metrics();
        let now = metrics.borrow_watched();
        let replica = now.current_leader?;
        Some(Leading { replica, term: now.vote.leader_id.term })
    }
}
