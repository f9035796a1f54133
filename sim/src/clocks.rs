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

fn highest_shown(changes: &[Since], now: Duration) -> Duration {
    let ends = changes.iter().skip(1).map(|next| next.at).chain([now]);
    let shown = changes.iter().zip(ends).filter_map(|(since, end)| {
        let ahead_us = since.ahead_us.iter().copied().max().filter(|ahead_us| *ahead_us > 0)?;
        Some(end + Duration::from_micros(ahead_us.unsigned_abs()))
    });
    shown.max().unwrap_or_default()
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

    /// The simulated time at which a right clock shows what any clock has shown that was ahead.
    pub fn highest_shown(&self) -> Duration {
        highest_shown(&self.changes(), now())
    }

    /// When the run began, in microseconds since 1970, and all changes since.
    pub fn told(&self) -> (u64, Vec<Since>) {
        (self.began_us, self.changes().clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_clocks_have_shown_is_over_once_they_are_right_again() {
        let since = |at, ahead_s: &[i64]| Since {
            at: Duration::from_secs(at),
            ahead_us: ahead_s.iter().map(|ahead_s| ahead_s * 1_000_000).collect(),
        };
        let changes = [since(0, &[0, 0]), since(10, &[60, -5]), since(20, &[0, 0])];
        for now in [30, 300] {
            assert_eq!(highest_shown(&changes, Duration::from_secs(now)), Duration::from_secs(80));
        }
        assert_eq!(highest_shown(&changes[..2], Duration::from_secs(30)), Duration::from_secs(90));
        assert_eq!(highest_shown(&changes[..1], Duration::from_secs(30)), Duration::ZERO);
    }
}
