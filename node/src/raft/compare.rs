//! Comparing the states of replicas. The leader asks all voters for their digests at one entry. Who
//! differs from the majority has gone wrong and stops for good; where no digest has a majority, nobody
//! can tell who is right, and the leader proposes nothing more.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use openraft::ServerState;
use openraft::async_runtime::WatchReceiver;

use super::digest::Checkpoint;
use super::error::Stopped;
use super::group::{Group, Inner};
use super::types::ReplicaId;
use super::wire::{Answer, Rpc};
use crate::simulation;

/// How long a replica has to tell a digest: it has it at hand.
const ANSWER_MAX: Duration = Duration::from_secs(2);

/// What a comparison found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DigestReport {
    /// The entry after which the states were compared.
    pub index: u64,
    /// The digest of each voter that was there to tell.
    pub digests: BTreeMap<ReplicaId, u64>,
    /// The digest that a majority of all voters have, if one does.
    pub right: Option<u64>,
    /// Those that have another one: they were told to stop.
    pub minority: BTreeSet<ReplicaId>,
}

impl DigestReport {
    fn of(index: u64, digests: BTreeMap<ReplicaId, u64>, voters: usize) -> DigestReport {
        let mut counts: BTreeMap<u64, usize> = BTreeMap::new();
        digests.values().for_each(|digest| *counts.entry(*digest).or_default() += 1);
        let right = counts.iter().find(|(_, count)| **count * 2 > voters).map(|(digest, _)| *digest);
        let wrong = digests.iter().filter(|(_, digest)| right.is_some_and(|right| **digest != right));
        let minority = wrong.map(|(replica, _)| *replica).collect();
        DigestReport { index, digests, right, minority }
    }

    /// The digests differ, and none of them has a majority: nobody can tell who is right, and nothing
    /// is proposed any more.
    pub fn is_undecided(&self) -> bool {
        let first = self.digests.values().next();
        self.right.is_none() && self.digests.values().any(|digest| Some(digest) != first)
    }
}

impl Group {
    /// Compares the states of all voters, if this replica leads, and has those stop that are wrong.
    /// `None`: there was nothing to compare. To be called now and then.
    pub async fn compare_digests(&self) -> Result<Option<DigestReport>, Stopped> {
        let Some(report) = self.inner.ask_for_digests().await? else { return Ok(None) };
        simulation::mark("digests compared");
        self.inner.act_on(&report).await;
        Ok(Some(report))
    }

    /// The last entry applied, and the digest of all that was ever written up to it.
    pub fn digests(&self) -> (Option<u64>, u64) {
        let latest = self.inner.digests.latest();
        (latest.map(|latest| latest.index), latest.map_or(0, |latest| latest.digest))
    }
}

impl Inner {
    async fn ask_for_digests(&self) -> Result<Option<DigestReport>, Stopped> {
        let now = self.raft.metrics().borrow_watched().clone();
        if let Err(fatal) = &now.running_state {
            return Err(self.stopped(fatal));
        }
        let replica = self.link.replica;
        let voters: BTreeSet<ReplicaId> = now.membership_config.voter_ids().collect();
        let others: Vec<ReplicaId> = voters.iter().copied().filter(|voter| *voter != replica).collect();
        let (ServerState::Leader, Some(newest)) = (now.state, self.digests.checkpoint(u64::MAX)) else {
            return Ok(None);
        };
        // First the newest that each one has; then, where they differ, the newest that all have.
        let mut told = self.ask(&others, newest.index).await;
        told.retain(|_, checkpoint| {
            self.digests.checkpoint(checkpoint.index).is_some_and(|own| own.index == checkpoint.index)
        });
        let index = told.values().map(|checkpoint| checkpoint.index).fold(newest.index, u64::min);
        let again: Vec<ReplicaId> =
            told.iter().filter(|(_, checkpoint)| checkpoint.index != index).map(|(at, _)| *at).collect();
        told.extend(self.ask(&again, index).await);
        if voters.contains(&replica) {
            told.extend(self.digests.checkpoint(index).map(|own| (replica, own)));
        }
        told.retain(|_, checkpoint| checkpoint.index == index);
        let digests: BTreeMap<_, _> =
            told.into_iter().map(|(at, checkpoint)| (at, checkpoint.digest)).collect();
        Ok((digests.len() > 1).then(|| DigestReport::of(index, digests, voters.len())))
    }

    /// The newest checkpoints of some replicas up to an index; those that do not answer are left out.
    async fn ask(&self, replicas: &[ReplicaId], at_most: u64) -> BTreeMap<ReplicaId, Checkpoint> {
        let asked = replicas.iter().map(|replica| {
            let answer = self.link.peer(*replica).call(&Rpc::Digest { at_most }, ANSWER_MAX);
            async move {
                match answer.await {
                    Ok(Answer::Digest(Some(checkpoint))) => Some((*replica, checkpoint)),
                    _ => None,
                }
            }
        });
        join_all(asked).await.into_iter().flatten().collect()
    }

    async fn act_on(self: &Arc<Inner>, report: &DigestReport) {
        let (group, index) = (self.link.group.0, report.index);
        if report.is_undecided() {
            let digests = &report.digests;
            tracing::error!(
                group,
                index,
                ?digests,
                "the replicas' states differ, and none has a majority: nothing is proposed any more"
            );
            self.halt.diverged(Some(index));
        }
        let Some(digest) = report.right else { return };
        self.halt.diverged(None);
        let right = Checkpoint { index, digest };
        for replica in &report.minority {
            tracing::error!(
                group,
                index,
                replica = replica.0,
                "the replica's state differs from the majority's: it is to stop"
            );
            if *replica == self.link.replica {
                self.quarantine(right);
            } else {
                let told = self.link.peer(*replica).call(&Rpc::Quarantine(right), ANSWER_MAX).await;
                if !matches!(told, Ok(Answer::Stops)) {
                    tracing::error!(
                        group,
                        replica = replica.0,
                        ?told,
                        "it was not told to stop; the next comparison tries again"
                    );
                }
            }
        }
    }

    /// What a replica does when its leader says that its state is wrong: it checks that they speak of
    /// the same entry, and of different states.
    pub(super) fn hear_of_quarantine(
        self: &Arc<Inner>,
        from: ReplicaId,
        right: Checkpoint,
    ) -> Result<Answer, String> {
        if self.raft.metrics().borrow_watched().current_leader != Some(from) {
            return Err("only the leader says who is to stop".to_owned());
        }
        match self.digests.checkpoint(right.index) {
            Some(own) if own.index == right.index && own.digest != right.digest => {
                self.quarantine(right);
                Ok(Answer::Stops)
            }
            Some(own) if own == right => Err("the states are the same here".to_owned()),
            _ => Err("the state at that entry is not known here".to_owned()),
        }
    }

    /// Stops this replica for good: it does not come back with a restart either.
    fn quarantine(self: &Arc<Inner>, right: Checkpoint) {
        let inner = Arc::clone(self);
        tokio::spawn(async move {
            let why = format!(
                "its state differs from the majority's at entry {}; replace this replica",
                right.index
            );
            // Between two entries, so that nothing is applied afterwards.
            let marked =
                inner.raft.with_state_machine(move |machine| Box::pin(machine.quarantine(why))).await;
            if let Err(fatal) = marked {
                tracing::error!(group = inner.link.group.0, %fatal, "the group had stopped before");
            }
            let _ = inner.raft.shutdown().await;
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(digests: &[(u64, u64)], voters: usize) -> (Vec<u64>, bool) {
        let digests = digests.iter().map(|(replica, digest)| (ReplicaId(*replica), *digest)).collect();
        let report = DigestReport::of(64, digests, voters);
        (report.minority.iter().map(|replica| replica.0).collect(), report.is_undecided())
    }

    #[test]
    fn whoever_differs_from_a_majority_of_all_voters_is_wrong() {
        assert_eq!(report(&[(1, 7), (2, 7), (3, 7)], 3), (vec![], false));
        assert_eq!(report(&[(1, 7), (2, 8), (3, 7)], 3), (vec![2], false));
        assert_eq!(report(&[(1, 7), (2, 8), (3, 7), (4, 9), (5, 7)], 5), (vec![2, 4], false));
    }

    #[test]
    fn without_a_majority_of_all_voters_nobody_is_wrong_and_all_may_be() {
        assert_eq!(report(&[(1, 7), (2, 8), (3, 9)], 3), (vec![], true));
        assert_eq!(report(&[(1, 7), (2, 8)], 3), (vec![], true), "the third one is away");
        assert_eq!(report(&[(1, 7), (2, 7), (3, 8), (4, 8)], 4), (vec![], true));
        assert_eq!(report(&[(1, 7), (2, 7)], 5), (vec![], false), "what is known agrees");
    }
}
