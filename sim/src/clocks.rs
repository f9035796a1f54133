//! How wrong the nodes' clocks were, and when.

use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use purser_node::clock::Clock;

use crate::trace::now;

/// From a moment on, how far each clock is ahead, in microseconds.
#[derive(Clone, Debug)]
pub struct Since {
    /// The moment.
    pub at: Duration,
    /// How far each clock is ahead.
    pub ahead_us: Vec<i64>,
}

/// The clocks of a run.
pub struct Clocks {
    began_us: u64,
    changes: Mutex<Vec<Since>>,
}

impl Clocks {
    /// Clocks that are right, of so many nodes.
    pub fn new(nodes: u16) -> Clocks {
        let began_us = Clock::System.now().0 - now().as_micros() as u64;
        let right = Since { at: Duration::ZERO, ahead_us: vec![0; nodes.into()] };
        Clocks { began_us, changes: Mutex::new(vec![right]) }
    }

    fn changes(&self) -> MutexGuard<'_, Vec<Since>> {
        self.changes.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// They are changed.
    pub fn set(&self, ahead_us: Vec<i64>) {
        self.changes().push(Since { at: now(), ahead_us });
    }

    /// The simulated time at which a right clock shows what any clock has shown.
    pub fn highest_shown(&self) -> Duration {
        let changes = self.changes();
        let ends = changes.iter().skip(1).map(|next| next.at).chain([now()]);
        let shown = changes.iter().zip(ends).map(|(since, end)| {
            let ahead_us = since.ahead_us.iter().copied().max().unwrap_or(0);
            end + Duration::from_micros(ahead_us.max(0).unsigned_abs())
        });
        shown.max().unwrap_or_default()
    }

    /// When the run began, in microseconds since 1970, and all changes since.
    pub fn told(&self) -> (u64, Vec<Since>) {
        (self.began_us, self.changes().clone())
    }
}
