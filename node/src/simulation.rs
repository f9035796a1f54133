//! What the simulation wants of a node beside its seams: marks of what happened, so that a sweep can
//! say what it never met, and bugs planted on purpose, so that it can show that it would find them.
//! Under any other build both are nothing.

/// Something happened that a sweep of the simulation has to have met.
#[cfg(not(madsim))]
#[inline(always)]
pub fn mark(_what: &'static str) {}

/// A bug that the simulation plants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// The log says that a run is durable before it has synced it.
    AcknowledgedBeforeSync,
    /// A snapshot leaves out the verdicts under their keys.
    SnapshotWithoutKeys,
}

/// Whether a bug is planted: never, here.
#[cfg(not(madsim))]
#[inline(always)]
pub fn has(_bug: Bug) -> bool {
    false
}

#[cfg(madsim)]
pub use planted::{happened, has, mark, plant};

/// One run of the simulation is one thread.
#[cfg(madsim)]
mod planted {
    use std::cell::{Cell, RefCell};
    use std::collections::BTreeMap;

    use super::Bug;

    thread_local! {
        static MARKS: RefCell<BTreeMap<&'static str, u64>> = const { RefCell::new(BTreeMap::new()) };
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

    /// Plants a bug in all nodes of this thread.
    pub fn plant(bug: Option<Bug>) {
        BUG.set(bug);
    }

    /// Whether a bug is planted.
    pub fn has(bug: Bug) -> bool {
        BUG.get() == Some(bug)
    }
}
