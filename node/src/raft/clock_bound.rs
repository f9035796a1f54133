//! A clock that runs ahead must not poison a group for ever: what was applied once at some time is
//! never followed by an earlier one.
//!
//! - A follower does not take an entry into its log that is stamped further ahead of its own clock
//!   than the bound, unless it is committed, or is in its log already: then refusing it would save
//!   nobody, and could keep a majority that holds it from going on.
//! - A leader that is refused so by more than half of its peers proposes nothing more, and hands over
//!   to one of them, which does without the entries that it refused. If nobody takes over, it goes on
//!   when they take its entries again.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, Weak};

use openraft::EntryPayload;
use openraft::ServerState;
use openraft::async_runtime::WatchReceiver;
use openraft::raft::AppendEntriesRequest;
use purser_ledger::time::{Span, Time};
use tokio::sync::Notify;

use super::group::Inner;
use super::hand_over::Tail;
use super::machine::Machine;
use super::types::{LogId, ReplicaId, TypeConfig};
use crate::simulation;

/// Where a follower's clock stands, and how far an entry may be ahead of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct ClockBound {
    pub now: Time,
    pub ahead_max: Span,
}

impl ClockBound {
    /// Cuts from a request what it must not bring into the log: the first entry that is too far ahead,
    /// and all behind it. Tells by how much, if nothing is left of the entries. `holds`: whether an
    /// entry is in the log already.
    pub fn cut(
        &self,
        request: &mut AppendEntriesRequest<TypeConfig>,
        machine: &dyn Machine,
        holds: impl Fn(&LogId) -> bool,
    ) -> Result<(), Span> {
        let committed = request.leader_commit.map(|id| id.index);
        let latest = self.now.0.saturating_add(self.ahead_max.0);
        let too_far = request.entries.iter().enumerate().find_map(|(place, entry)| {
            let EntryPayload::Normal(command) = &entry.payload else { return None };
            let stamp = machine.stamp(&command.0).filter(|stamp| stamp.0 > latest)?;
            (Some(entry.log_id.index) > committed && !holds(&entry.log_id)).then_some((place, stamp))
        });
        match too_far {
            Some((0, stamp)) => Err(Span(stamp.0 - self.now.0)),
            Some((place, _)) => {
                request.entries.truncate(place);
                Ok(())
            }
            None => Ok(()),
        }
    }
}

/// By how much a leader's clock is ahead of those that refuse its entries, as they say.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    by: Mutex<BTreeMap<ReplicaId, Refusal>>,
    changed: Notify,
}

#[derive(Clone, Copy, Debug)]
struct Refusal {
    term: u64,
    ahead: Span,
}

impl Refusals {
    fn by(&self) -> MutexGuard<'_, BTreeMap<ReplicaId, Refusal>> {
        self.by.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    pub fn refused(&self, replica: ReplicaId, term: u64, ahead: Span) {
        simulation::mark("entry stamped ahead refused");
        self.by().insert(replica, Refusal { term, ahead });
        self.changed.notify_one();
    }

    pub fn accepted(&self, replica: ReplicaId) {
        if self.by().remove(&replica).is_some() {
            self.changed.notify_one();
        }
    }

    /// Wakes whoever waits for a change, so that it sees that the group is gone.
    pub fn wake(&self) {
        self.changed.notify_one();
    }

    /// If more than half of these refuse the entries of a term: the least that they are ahead by.
    fn by_most_of(&self, peers: &[ReplicaId], term: u64) -> Option<Span> {
        let by = self.by();
        let refusals = peers.iter().filter_map(|peer| by.get(peer)).filter(|refusal| refusal.term == term);
        let ahead: Vec<Span> = refusals.map(|refusal| refusal.ahead).collect();
        ahead.iter().copied().min().filter(|_| ahead.len() * 2 > peers.len())
    }
}

/// Looks after a leader's clock as long as the group is there.
pub(super) async fn look_after(inner: Weak<Inner>, refusals: Arc<Refusals>) {
    loop {
        refusals.changed.notified().await;
        let Some(inner) = inner.upgrade() else { return };
        inner.heed_refusals().await;
    }
}

impl Inner {
    /// Has this leader step aside if its clock is what most of its peers refuse; else lets it go on.
    async fn heed_refusals(&self) {
        let now = self.raft.metrics().borrow_watched().clone();
        let (group, term, replica) = (self.link.group.0, now.current_term, self.link.replica);
        let peers: Vec<ReplicaId> =
            now.membership_config.voter_ids().filter(|peer| *peer != replica).collect();
        let leads = now.state == ServerState::Leader;
        let refused = self.link.refusals.by_most_of(&peers, term).filter(|_| leads);
        let before = self.halt.clock_ahead(term, refused);
        match (refused, before) {
            (Some(ahead), before) => {
                if !before {
                    let ahead_ms = ahead.0 / 1_000;
                    tracing::error!(
                        group,
                        ahead_ms,
                        "most replicas find this node's clock ahead of theirs: it proposes nothing and hands over"
                    );
                }
                // The group ended: nothing is proposed either way.
                let _ = self.hand_over(None, Tail::Left).await;
            }
            (None, true) => tracing::warn!(group, leads, "this node's clock is not refused any more"),
            (None, false) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use openraft::entry::RaftEntry;
    use purser_ledger::store::LocalDamage;

    use super::super::machine::Outcome;
    use super::super::types::{Command, Entry, Vote, log_id};
    use super::*;
    use crate::storage::ShardStore;

    /// The first byte of an entry is its stamp; what is empty has none.
    struct FirstByte;

    impl Machine for FirstByte {
        fn apply(&self, _rows: &ShardStore, _entry: &[u8]) -> Result<Outcome, LocalDamage> {
            Err(LocalDamage::Missing("a meaning"))
        }

        fn stamp(&self, entry: &[u8]) -> Option<Time> {
            entry.first().map(|stamp| Time(u64::from(*stamp)))
        }
    }

    fn request(stamps: &[u8], leader_commit: Option<LogId>) -> AppendEntriesRequest<TypeConfig> {
        let command = |stamp: &u8| EntryPayload::Normal(Command(Bytes::copy_from_slice(&[*stamp])));
        let entries =
            stamps.iter().zip(5..).map(|(stamp, index)| Entry::new(log_id(1, index), command(stamp)));
        AppendEntriesRequest {
            vote: Vote::new_committed(1, ReplicaId(1)),
            prev_log_id: Some(log_id(1, 4)),
            entries: entries.collect(),
            leader_commit,
        }
    }

    /// How many entries are left, at a clock of 10 and a bound of 5.
    fn left(stamps: &[u8], leader_commit: Option<LogId>) -> Result<usize, Span> {
        let mut request = request(stamps, leader_commit);
        let bound = ClockBound { now: Time(10), ahead_max: Span(5) };
        bound.cut(&mut request, &FirstByte, |_| false).map(|()| request.entries.len())
    }

    #[test]
    fn an_entry_that_is_too_far_ahead_is_cut_off_with_all_behind_it() {
        assert_eq!(left(&[9, 10, 15], None), Ok(3));
        assert_eq!(left(&[9, 16, 10], None), Ok(1));
        assert_eq!(left(&[17, 10], None), Err(Span(7)));
        assert_eq!(left(&[], None), Ok(0));
    }

    #[test]
    fn what_is_committed_is_taken_whatever_its_stamp() {
        assert_eq!(left(&[99, 99, 99], Some(log_id(1, 7))), Ok(3));
        assert_eq!(left(&[99, 99, 99], Some(log_id(1, 6))), Ok(2));
        assert_eq!(left(&[99, 99, 99], Some(log_id(1, 4))), Err(Span(89)));
    }

    #[test]
    fn what_is_in_the_log_already_is_taken_whatever_its_stamp() {
        let mut request = request(&[99, 99, 99], None);
        let bound = ClockBound { now: Time(10), ahead_max: Span(5) };
        let cut = bound.cut(&mut request, &FirstByte, |id| *id == log_id(1, 5) || *id == log_id(1, 6));
        assert_eq!(cut.map(|()| request.entries.len()), Ok(2));
    }

    #[test]
    fn entries_without_a_stamp_are_taken() {
        let mut blank = request(&[], None);
        blank.entries = vec![
            Entry::new(log_id(1, 5), EntryPayload::Blank),
            Entry::new(log_id(1, 6), EntryPayload::Normal(Command(Bytes::new()))),
        ];
        let bound = ClockBound { now: Time(0), ahead_max: Span(0) };
        assert_eq!(bound.cut(&mut blank, &FirstByte, |_| false).map(|()| blank.entries.len()), Ok(2));
    }

    #[test]
    fn it_takes_more_than_half_of_the_peers_in_this_term() {
        let refusals = Refusals::default();
        let peers = [2, 3].map(ReplicaId);
        refusals.refused(ReplicaId(2), 4, Span(900));
        assert_eq!(refusals.by_most_of(&peers, 4), None);
        refusals.refused(ReplicaId(3), 4, Span(700));
        assert_eq!(refusals.by_most_of(&peers, 4), Some(Span(700)));
        assert_eq!(refusals.by_most_of(&peers, 5), None);
        refusals.accepted(ReplicaId(3));
        assert_eq!(refusals.by_most_of(&peers, 4), None);
        assert_eq!(refusals.by_most_of(&[], 4), None);
    }
}
