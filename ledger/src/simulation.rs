//! What the simulation wants of the code beside its seams: marks of what happened, so that a sweep can
//! say what it never met, and bugs planted on purpose, so that it can show that it would find them.
//! Under any other build both are nothing.

/// Something happened that a sweep of the simulation has to have met.
#[cfg(not(madsim))]
#[inline(always)]
pub fn mark(_what: &'static str) {}

/// Declares the bugs, and the list of them all.
macro_rules! bugs {
    ($($(#[$meaning:meta])+ $bug:ident,)+) => {
        /// A bug that the simulation plants.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Bug {
            $($(#[$meaning])+ $bug,)+
        }

        impl Bug {
            /// All of them.
            pub const ALL: &[Bug] = &[$(Bug::$bug,)+];
        }
    };
}

bugs! {
    /// The log says that a run is durable before it has synced it.
    AcknowledgedBeforeSync,
    /// The log says that a vote is durable before it has written it.
    VoteAcknowledgedBeforeSync,
    /// The log answers a write when it is queued.
    AnsweredWhenQueued,
    /// The log does not sync its directory.
    DirectoryNotSynced,
    /// The log is purged up to rows that are not on the disk yet.
    PurgedPastDurable,
    /// The applied index is written apart from the rows of its entry.
    AppliedApartFromRows,
    /// A snapshot says that it is one entry newer than its rows are.
    SnapshotAheadOfRows,
    /// A snapshot leaves out the verdicts under their keys.
    SnapshotWithoutKeys,
    /// The rows of a snapshot become the valid ones before they are on the disk.
    SnapshotUsedBeforeFlush,
    /// A leader reads without asking whether it still leads.
    ReadWithoutQuorum,
    /// A node takes for a shard's leader the one before the last change that it saw.
    StaleShardMap,
    /// The answers to the first two commands of an entry are swapped.
    AnswersSwapped,
    /// Apply looks at the clock.
    ClockInApply,
    /// Apply goes through a map in the order of its hashes.
    MapOrderInApply,
    /// Ledger time follows the stamps of entries, also backwards.
    TimeGoesBack,
    /// A tranche still pays at the very instant at which it expires.
    ExpiryOffByOne,
    /// What a refund gives back does not count in the next one.
    RefundMints,
    /// A hold stays open when it is released.
    HoldReleasedTwice,
    /// A denial is not kept under its key.
    DenialForgotten,
    /// Another request under a used key gets the answer to the first one.
    KeysNotCompared,
    /// One command in a hundred or so ends its shard.
    PoisonedCommand,
    /// A replica that comes in the place of a lost one gets its id, and so votes and acknowledges as if it had
    /// its entries.
    ReplicaIdReused,
}

/// A replica of a group has voted in a term, and told so: it may not forget it.
#[cfg(not(madsim))]
#[inline(always)]
pub fn voted(_group: u32, _replica: u64, _term: u64) {}

/// A replica that starts again remembers that it has voted in a term.
#[cfg(not(madsim))]
#[inline(always)]
pub fn remembers_vote(_group: u32, _replica: u64, _term: u64) {}

/// Whether a bug is planted: never, here.
#[cfg(not(madsim))]
#[inline(always)]
pub fn has(_bug: Bug) -> bool {
    false
}

#[cfg(madsim)]
pub use planted::{happened, has, mark, plant, remembers_vote, voted};

/// One run of the simulation is one thread.
#[cfg(madsim)]
mod planted {
    use std::cell::{Cell, RefCell};
    use std::collections::BTreeMap;

    use super::Bug;

    thread_local! {
        static MARKS: RefCell<BTreeMap<&'static str, u64>> = const { RefCell::new(BTreeMap::new()) };
        static VOTES: RefCell<BTreeMap<(u32, u64), u64>> = const { RefCell::new(BTreeMap::new()) };
        static BUG: Cell<Option<Bug>> = const { Cell::new(None) };
    }

    /// Something happened that a sweep of the simulation has to have met.
    pub fn mark(what: &'static str) {
        MARKS.with_borrow_mut(|marks| *marks.entry(what).or_default() += 1);
    }

    /// What happened on this thread, and how often.
    pub fn happened() -> BTreeMap<&'static str, u64> {
        MARKS.with_borrow(BTreeMap::clone)
    }

    /// A replica of a group has voted in a term, and told so: it may not forget it.
    pub fn voted(group: u32, replica: u64, term: u64) {
        VOTES.with_borrow_mut(|votes| {
            let last = votes.entry((group, replica)).or_default();
            *last = term.max(*last);
        });
    }

    /// A replica that starts again remembers that it has voted in a term. Panics where it is an older one
    /// than it has told of.
    pub fn remembers_vote(group: u32, replica: u64, term: u64) {
        let told = VOTES.with_borrow(|votes| votes.get(&(group, replica)).copied().unwrap_or(0));
        assert!(
            told <= term,
            "replica {replica} of group {group} has voted in term {told}, and remembers {term}"
        );
    }

    /// Plants a bug in everything on this thread.
    pub fn plant(bug: Option<Bug>) {
        BUG.set(bug);
    }

    /// Whether a bug is planted.
    pub fn has(bug: Bug) -> bool {
        BUG.get() == Some(bug)
    }
}
