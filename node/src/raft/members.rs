//! Changing who takes part in a group, a step at a time. Each step looks at the members as they are, so that
//! it does not matter who did the one before, or whether it was cut off in the middle.
//!
//! ```text
//!   a replica that is missing is added as a learner -> it catches up -> it votes, and who goes does not
//!   (joint, then the new ones alone) -> learners that are not meant are removed
//! ```
//! - A replica votes only when it has nearly all that the leader has: a majority of the new members is not
//!   slower than one of the old.
//! - Nothing is done before the last change is committed.

use std::collections::BTreeSet;
use std::time::Duration;

use openraft::async_runtime::WatchReceiver;
use openraft::errors::{ClientWriteError, RaftError};
use openraft::impls::EmptyNode;
use openraft::{ChangeMembers, ServerState};

use super::error::Stopped;
use super::group::Group;
use super::types::{Membership, ReplicaId, TypeConfig};
use crate::simulation;

/// A replica that lags more than this many entries does not vote yet: some hundred milliseconds of a busy
/// shard.
const LAG_MAX: u64 = 1_000;
/// How long one step may take. It goes on by itself then, and is looked at again.
const STEP_MAX: Duration = Duration::from_secs(5);

/// How far the members are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Moved {
    /// Those who are meant vote, and nobody else takes part; it is committed.
    Done,
    /// Not yet, and why not.
    OnTheWay(String),
}

/// What comes next.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    /// The last change is not committed yet, or a replica lags.
    Wait(&'static str),
    Add(ReplicaId),
    Change,
    Remove(BTreeSet<ReplicaId>),
    Nothing,
}

/// `reached`: the last entry that a replica is known to have; `last`: the leader's.
fn next(
    members: &Membership,
    committed: bool,
    reached: impl Fn(ReplicaId) -> Option<u64>,
    last: Option<u64>,
    meant: &BTreeSet<ReplicaId>,
) -> Step {
    if !committed {
        return Step::Wait("the last change of members is not committed yet");
    }
    let known: BTreeSet<ReplicaId> = members.nodes().map(|(replica, _)| *replica).collect();
    if members.membership().get_joint_config() == std::slice::from_ref(meant) {
        let others: BTreeSet<ReplicaId> = known.difference(meant).copied().collect();
        return if others.is_empty() { Step::Nothing } else { Step::Remove(others) };
    }
    if let Some(missing) = meant.difference(&known).next() {
        return Step::Add(*missing);
    }
    let voters: BTreeSet<ReplicaId> = members.voter_ids().collect();
    let lags = |replica: &ReplicaId| {
        reached(*replica).zip(last).is_none_or(|(reached, last)| reached.saturating_add(LAG_MAX) < last)
    };
    match meant.difference(&voters).any(lags) {
        true => Step::Wait("a replica catches up"),
        false => Step::Change,
    }
}

impl Group {
    /// Brings the members a step nearer to those who are meant, if this replica leads. To be called again
    /// until it is done.
    pub async fn move_to(&self, meant: &BTreeSet<ReplicaId>) -> Result<Moved, Stopped> {
        let raft = &self.inner.raft;
        let now = raft.metrics().borrow_watched().clone();
        if let Err(fatal) = &now.running_state {
            return Err(self.inner.stopped(fatal));
        }
        if now.state != ServerState::Leader {
            return Ok(Moved::OnTheWay("this replica does not lead".to_owned()));
        }
        let members = &now.membership_config;
        let committed = members.log_id() == now.committed_membership_config.log_id();
        let reached = |replica| {
            let matched = now.replication.as_ref().and_then(|own| own.get(&replica).copied().flatten());
            matched.map(|id| id.index)
        };
        let step = next(members, committed, reached, now.last_log_index, meant);
        let group = self.inner.link.group.0;
        let changed = match step {
            Step::Nothing => return Ok(Moved::Done),
            Step::Wait(why) => return Ok(Moved::OnTheWay(why.to_owned())),
            Step::Add(replica) => {
                tracing::info!(group, %replica, "a replica is added");
                simulation::mark("learner added");
                tokio::time::timeout(STEP_MAX, raft.add_learner(replica, EmptyNode::default(), false)).await
            }
            Step::Change => {
                tracing::info!(group, ?meant, "the voters change");
                tokio::time::timeout(STEP_MAX, raft.change_membership(meant.clone(), false)).await
            }
            Step::Remove(others) => {
                let removal = ChangeMembers::RemoveNodes(others);
                tokio::time::timeout(STEP_MAX, raft.change_membership(removal, false)).await
            }
        };
        match changed {
            Ok(Ok(_)) => Ok(Moved::OnTheWay("a step was done".to_owned())),
            Ok(Err(RaftError::Fatal(fatal))) => Err(self.inner.stopped(&fatal)),
            Ok(Err(RaftError::APIError(refused))) => Ok(Moved::OnTheWay(told(&refused))),
            Err(_) => Ok(Moved::OnTheWay("no majority takes the change in time".to_owned())),
        }
    }
}

fn told(refused: &ClientWriteError<TypeConfig>) -> String {
    refused.to_string()
}

#[cfg(test)]
mod tests {
    use super::super::types::log_id;
    use super::*;

    fn ids(ids: &[u64]) -> BTreeSet<ReplicaId> {
        ids.iter().copied().map(ReplicaId).collect()
    }

    fn members(voters: &[&[u64]], learners: &[u64]) -> Membership {
        let sets: Vec<_> = voters.iter().map(|set| ids(set)).collect();
        let all = sets.iter().flatten().copied().chain(ids(learners)).collect::<BTreeSet<_>>();
        Membership::new(Some(log_id(1, 7)), openraft::Membership::new_with_defaults(sets, all))
    }

    /// The next step from these members to replicas 2, 3 and 4, where 4 has this entry of 5,000.
    fn step(members: Membership, reached: Option<u64>) -> Step {
        next(
            &members,
            true,
            |replica| reached.filter(|_| replica == ReplicaId(4)),
            Some(5_000),
            &ids(&[2, 3, 4]),
        )
    }

    #[test]
    fn a_replica_is_added_catches_up_and_votes_instead_of_the_one_that_goes() {
        let wait = Step::Wait("a replica catches up");
        assert_eq!(step(members(&[&[1, 2, 3]], &[]), None), Step::Add(ReplicaId(4)));
        assert_eq!(step(members(&[&[1, 2, 3]], &[4]), None), wait);
        assert_eq!(step(members(&[&[1, 2, 3]], &[4]), Some(3_999)), wait);
        assert_eq!(step(members(&[&[1, 2, 3]], &[4]), Some(4_000)), Step::Change);
        assert_eq!(step(members(&[&[2, 3, 4]], &[]), Some(4_900)), Step::Nothing);
    }

    #[test]
    fn a_change_that_was_cut_off_goes_on() {
        assert_eq!(step(members(&[&[1, 2, 3], &[2, 3, 4]], &[]), None), Step::Change);
        assert_eq!(step(members(&[&[1, 2, 3], &[2, 3, 5]], &[4]), Some(5_000)), Step::Change);
        assert_eq!(step(members(&[&[2, 3, 4]], &[5]), Some(5_000)), Step::Remove(ids(&[5])));
    }

    #[test]
    fn nothing_is_done_before_the_last_change_is_committed() {
        let there = members(&[&[2, 3, 4]], &[]);
        let step = next(&there, false, |_| Some(5_000), Some(5_000), &ids(&[2, 3, 4]));
        assert!(matches!(step, Step::Wait(_)));
    }
}
