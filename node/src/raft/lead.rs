//! Who leads a group.

use std::sync::atomic::Ordering;

use openraft::ServerState;
use openraft::async_runtime::{Instant, WatchReceiver};

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

    /// Whether the replica is in touch with a majority: a leader heard of one, and a follower of its leader,
    /// within three election timeouts.
    pub fn is_in_touch(&self) -> bool {
        let limit = self.inner.election_max * 3;
        let metrics = self.inner.raft.metrics();
        let now = metrics.borrow_watched();
        if now.running_state.is_err() {
            return false;
        }
        match now.state {
            ServerState::Leader => {
                let alone = now.membership_config.voter_ids().nth(1).is_none();
                alone || now.last_quorum_acked.is_some_and(|at| Instant::elapsed(&*at) < limit)
            }
            _ => now.current_leader.is_some() && self.inner.last_heard().elapsed() < limit,
        }
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
