//! Handing leadership over: the leader stops proposing, brings another voter up to its own last
//! entry, and tells it to campaign at once. The others vote for it though they have a leader.
//!
//! openraft has this too, but a leader whose hand-over fails proposes nothing for the rest of its
//! term. Here it goes on.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::future::Future;
use std::time::Duration;

use openraft::RaftMetrics;
use openraft::ServerState;
use openraft::async_runtime::WatchReceiver;
use openraft::network::{NetTransferLeader, RPCOption};
use openraft::raft::TransferLeaderRequest;

use super::error::Stopped;
use super::group::{Group, Inner};
use super::types::{LogId, ReplicaId, TypeConfig};
use crate::simulation;

type Metrics = RaftMetrics<TypeConfig>;

/// Each step of a hand-over gets this many of the longest election timeouts.
const PATIENCE: u32 = 2;

/// What becomes of the entries that the new leader does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tail {
    /// It gets them first.
    Sent,
    /// It does without: it would not take them.
    Left,
}

impl Group {
    /// Hands leadership over, to a given voter or to the one that lags least, and waits until another
    /// replica leads. `false`: none does after a few election timeouts; this one may lead on.
    pub async fn hand_over(&self, to: Option<ReplicaId>) -> Result<bool, Stopped> {
        self.inner.hand_over(to, Tail::Sent).await
    }
}

impl Inner {
    pub(super) async fn hand_over(&self, to: Option<ReplicaId>, tail: Tail) -> Result<bool, Stopped> {
        let _one_at_a_time = self.handing_over.lock().await;
        let now = self.raft.metrics().borrow_watched().clone();
        if now.state != ServerState::Leader {
            return Ok(self.another_leads(&now));
        }
        let mut successors = successors(&now);
        successors.retain(|successor| to.is_none_or(|to| to == *successor));
        for successor in successors {
            let _nothing_new = self.halt.hand_over(successor);
            if self.hand_over_to(successor, tail).await? {
                simulation::mark("lead handed over");
                return Ok(true);
            }
            let group = self.link.group.0;
            tracing::warn!(group, to = successor.0, "leadership was not taken over");
        }
        Ok(false)
    }

    async fn hand_over_to(&self, to: ReplicaId, tail: Tail) -> Result<bool, Stopped> {
        if tail == Tail::Sent {
            let caught_up = |now: &Metrics| matched(now, to).map(|id| id.index) == now.last_log_index;
            self.wait_for(|now| caught_up(now) || now.state != ServerState::Leader).await?;
        }
        let now = self.raft.metrics().borrow_watched().clone();
        if now.state == ServerState::Leader {
            let request = TransferLeaderRequest::new(now.vote, to, matched(&now, to));
            let told = self.link.peer(to).transfer_leader(request, RPCOption::new(self.patience())).await;
            if !matches!(told, Ok(Ok(()))) {
                tracing::warn!(group = self.link.group.0, to = to.0, ?told, "it does not campaign");
                return Ok(false);
            }
        }
        self.wait_for(|now| self.another_leads(now)).await
    }

    fn another_leads(&self, now: &Metrics) -> bool {
        now.current_leader.is_some_and(|leader| leader != self.link.replica)
    }

    fn patience(&self) -> Duration {
        self.election_max * PATIENCE
    }

    /// Whether something comes true in time.
    fn wait_for(
        &self,
        mut come_true: impl FnMut(&Metrics) -> bool,
    ) -> impl Future<Output = Result<bool, Stopped>> {
        let mut metrics = self.raft.metrics();
        let patience = self.patience();
        async move {
            let waiting = async {
                loop {
                    {
                        let now = metrics.borrow_watched();
                        if let Err(fatal) = &now.running_state {
                            return Err(self.stopped(fatal));
                        }
                        if come_true(&now) {
                            return Ok(true);
                        }
                    }
                    metrics.changed().await.map_err(|_| self.stopped(&"it ended"))?;
                }
            };
            tokio::time::timeout(patience, waiting).await.unwrap_or(Ok(false))
        }
    }
}

/// The last entry that a follower is known to have.
fn matched(now: &Metrics, replica: ReplicaId) -> Option<LogId> {
    now.replication.as_ref().and_then(|replication| replication.get(&replica).copied().flatten())
}

/// The other voters: those with the longest logs first, of these the one that was heard last.
fn successors(now: &Metrics) -> Vec<ReplicaId> {
    let heard: BTreeMap<_, _> = now.heartbeat.clone().unwrap_or_default();
    let mut others: Vec<ReplicaId> =
        now.membership_config.voter_ids().filter(|replica| *replica != now.id).collect();
    others.sort_by_key(|replica| {
        let heard = heard.get(replica).cloned().flatten().map(|at| *at);
        (Reverse((matched(now, *replica), heard)), *replica)
    });
    others
}
