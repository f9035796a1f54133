//! Who leads a group.

use std::sync::atomic::Ordering;

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
    /// From now on this replica takes no lead that is handed to it.
    pub fn leave(&self) {
        self.inner.leaving.store(true, Ordering::Relaxed);
    }

    /// Whether the replica has stopped for good: it hears of nothing any more.
    pub fn has_stopped(&self) -> bool {
        self.inner.raft.metrics().borrow_watched().running_state.is_err()
    }

    /// Who leads, as far as this replica knows; a stopped one knows nothing. Cheap.
    pub fn leading(&self) -> Option<Leading> {
        if self.has_stopped() {
            return None;
        }
        let metrics = self.inner.raft.server_metrics();
        let now = metrics.borrow_watched();
        let replica = now.current_leader?;
        Some(Leading { replica, term: now.vote.leader_id.term })
    }
}
