//! Why a leader proposes nothing for now. Nothing that is refused for it was put into the log.

use std::sync::{Mutex, MutexGuard};

use purser_ledger::time::Span;

use super::error::ProposeError;
use super::types::ReplicaId;

/// The reasons, each until it is taken back.
#[derive(Debug, Default)]
struct Reasons {
    /// Leadership is going over to this one.
    handing_over: Option<ReplicaId>,
    /// In this term, most peers find this node's clock ahead by so much.
    clock_ahead: Option<(u64, Span)>,
    /// After this entry the replicas' states differ, and nobody can tell who is right.
    diverged: Option<u64>,
}

/// What every proposal is checked against.
#[derive(Debug, Default)]
pub(super) struct Halt {
    reasons: Mutex<Reasons>,
}

impl Halt {
    fn reasons(&self) -> MutexGuard<'_, Reasons> {
        self.reasons.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Why nothing is proposed in a term, if so.
    pub fn check(&self, term: impl FnOnce() -> u64) -> Result<(), ProposeError> {
        let reasons = self.reasons();
        if let Some(index) = reasons.diverged {
            return Err(ProposeError::Diverged { index });
        }
        if let Some((_, ahead)) = reasons.clock_ahead.filter(|(of, _)| *of == term()) {
            return Err(ProposeError::ClockAhead { ahead_ms: ahead.0 / 1_000 });
        }
        match reasons.handing_over {
            Some(to) => Err(ProposeError::NotLeader { leader: Some(to) }),
            None => Ok(()),
        }
    }

    /// Sets or takes back that the clock is ahead, and tells whether it was set for this term.
    pub fn clock_ahead(&self, term: u64, ahead: Option<Span>) -> bool {
        let now = ahead.map(|ahead| (term, ahead));
        let before = std::mem::replace(&mut self.reasons().clock_ahead, now);
        before.is_some_and(|(of, _)| of == term)
    }

    /// Sets or takes back that the replicas' states differ.
    pub fn diverged(&self, index: Option<u64>) {
        self.reasons().diverged = index;
    }

    /// Nothing is proposed while what this gives back is held.
    pub fn hand_over(&self, to: ReplicaId) -> HandingOver<'_> {
        self.reasons().handing_over = Some(to);
        HandingOver(self)
    }
}

/// A hand-over, as long as it lasts.
pub(super) struct HandingOver<'h>(&'h Halt);

impl Drop for HandingOver<'_> {
    fn drop(&mut self) {
        self.0.reasons().handing_over = None;
    }
}
