//! The node's clock: where stamps and deadlines come from. Apply never sees it.
//!
//! The test clock stands still until it is moved, and never goes back, so that people can test their
//! expiries to the microsecond. It exists only on a node without peers.

use std::sync::atomic::{AtomicU64, Ordering};
#[cfg(madsim)]
use std::sync::{Arc, atomic::AtomicI64};

use purser_ledger::time::{Span, Time};

/// The node's clock.
#[derive(Debug)]
pub enum Clock {
    /// The system's clock.
    System,
    /// A clock that stands where it was set, in microseconds since 1970.
    Test(AtomicU64),
    /// The system's clock, wrong by as many microseconds (ahead if positive) as the simulation says, and
    /// moving in steps of so many.
    #[cfg(madsim)]
    Skewed(Arc<AtomicI64>, u64),
}

/// The clock cannot be set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClockError {
    /// It is the real clock.
    #[error("the server runs on the real clock; start `purser dev --test-clock` to set it")]
    NotATestClock,
    /// It would go back.
    #[error("the clock never goes back: it stands at {} microseconds since 1970", .0.0)]
    Backwards(Time),
    /// Later than the ledger can count.
    #[error("the clock ends with the year 9999")]
    TooFar,
}

impl Clock {
    /// A clock that stands still at the later of the system's time and `not_before`.
    pub fn test(not_before: Time) -> Clock {
        Clock::Test(AtomicU64::new(not_before.0.max(system_micros())))
    }

    /// Now.
    pub fn now(&self) -> Time {
        match self {
            Clock::System => Time(system_micros()),
            Clock::Test(stands_at) => Time(stands_at.load(Ordering::Acquire)),
            #[cfg(madsim)]
            Clock::Skewed(ahead_us, step_us) => {
                let shows = system_micros().saturating_add_signed(ahead_us.load(Ordering::Acquire));
                Time(shows - shows % step_us)
            }
        }
    }

    /// Whether it may be set.
    pub fn is_test(&self) -> bool {
        matches!(self, Clock::Test(_))
    }

    /// Moves it on by a span.
    pub fn advance(&self, by: Span) -> Result<Time, ClockError> {
        let Clock::Test(stands_at) = self else { return Err(ClockError::NotATestClock) };
        let later = |now: u64| now.checked_add(by.0).filter(|then| *then <= Time::LATEST.0);
        stands_at
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, later)
            .map(|before| Time(before + by.0))
            .map_err(|_| ClockError::TooFar)
    }

    /// Sets it: not to a time before the one it shows.
    pub fn set(&self, to: Time) -> Result<Time, ClockError> {
        let Clock::Test(stands_at) = self else { return Err(ClockError::NotATestClock) };
        if to > Time::LATEST {
            return Err(ClockError::TooFar);
        }
        match stands_at.fetch_max(to.0, Ordering::AcqRel) {
            before if before > to.0 => Err(ClockError::Backwards(Time(before))),
            _ => Ok(to),
        }
    }
}

// The one place where the node reads the time of day; everything else is given a `Time`.
#[allow(clippy::disallowed_methods)]
fn system_micros() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    // Before 1970 the clock is wrong by decades; zero lets the shard's own last time stand.
    since.map_or(0, |since| since.as_micros().min(u128::from(Time::LATEST.0)) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_clock_stands_still_and_moves_forwards_only() {
        let clock = Clock::test(Time(4_000_000_000_000_000));
        assert_eq!(clock.now(), Time(4_000_000_000_000_000));
        assert_eq!(clock.advance(Span(5)), Ok(Time(4_000_000_000_000_005)));
        assert_eq!(clock.set(Time(4_000_000_000_000_005)), Ok(Time(4_000_000_000_000_005)));
        assert_eq!(clock.set(Time(7)), Err(ClockError::Backwards(Time(4_000_000_000_000_005))));
        assert_eq!(clock.advance(Span(u64::MAX)), Err(ClockError::TooFar));
        assert_eq!(clock.now(), Time(4_000_000_000_000_005));
    }

    #[test]
    fn the_real_clock_cannot_be_set() {
        assert_eq!(Clock::System.advance(Span(1)), Err(ClockError::NotATestClock));
        assert_eq!(Clock::System.set(Time::LATEST), Err(ClockError::NotATestClock));
    }
}
