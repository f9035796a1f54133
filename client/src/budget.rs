//! How many retries are allowed: a share of the calls, plus a small steady allowance, so that an outage
//! is not made worse by those who wait for its end.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// One retry, in the bucket's own count.
const RETRY: u64 = 1_000;
/// Retries that can be saved up: enough for the calls in flight when one leader fails.
const SAVED_MAX: u64 = 1_000 * RETRY;
/// The allowance can be saved up for so long.
const ALLOWANCE_SAVED_S: u64 = 10;

/// How much may be retried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryBudget {
    /// Retries for every hundred calls.
    pub percent: u32,
    /// Retries each second in any case, so that a client with few calls can retry at all.
    pub per_second: u32,
}

impl Default for RetryBudget {
    /// Ten in a hundred, and ten a second.
    fn default() -> RetryBudget {
        RetryBudget { percent: 10, per_second: 10 }
    }
}

/// A bucket of retries.
pub(crate) struct Bucket {
    terms: RetryBudget,
    saved: AtomicU64,
    allowed_until: Mutex<Instant>,
}

impl Bucket {
    pub(crate) fn new(terms: RetryBudget, now: Instant) -> Bucket {
        let allowance = u64::from(terms.per_second) * ALLOWANCE_SAVED_S * RETRY;
        let saved = AtomicU64::new(allowance.min(SAVED_MAX));
        Bucket { terms, saved, allowed_until: Mutex::new(now) }
    }

    /// A call was begun.
    pub(crate) fn earn(&self) {
        // Most of the time it is full: then nothing is written, and cores do not meet here.
        if self.saved.load(Ordering::Relaxed) < SAVED_MAX {
            self.add(u64::from(self.terms.percent) * RETRY / 100);
        }
    }

    /// Takes one retry, if there is one.
    pub(crate) fn spend(&self, now: Instant) -> bool {
        self.allow(now);
        let spent = |saved: u64| saved.checked_sub(RETRY);
        self.saved.fetch_update(Ordering::Relaxed, Ordering::Relaxed, spent).is_ok()
    }

    /// Adds what the allowance has come to.
    fn allow(&self, now: Instant) {
        let mut allowed_until = self.allowed_until.lock().unwrap_or_else(PoisonError::into_inner);
        let since = now.saturating_duration_since(*allowed_until);
        let since = since.min(Duration::from_secs(ALLOWANCE_SAVED_S));
        let come_to = u64::from(self.terms.per_second) * since.as_millis() as u64 * RETRY / 1_000;
        // Less than one unit is left to grow.
        if come_to > 0 {
            *allowed_until = now;
            self.add(come_to);
        }
    }

    fn add(&self, more: u64) {
        let added = |saved: u64| Some(saved.saturating_add(more).min(SAVED_MAX));
        let _ = self.saved.fetch_update(Ordering::Relaxed, Ordering::Relaxed, added);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spent_at_once(bucket: &Bucket, now: Instant) -> usize {
        (0..10_000).take_while(|_| bucket.spend(now)).count()
    }

    #[test]
    fn a_hundred_calls_earn_ten_retries() {
        let now = Instant::now();
        let bucket = Bucket::new(RetryBudget { percent: 10, per_second: 0 }, now);
        assert_eq!(spent_at_once(&bucket, now), 0);
        (0..100).for_each(|_| bucket.earn());
        assert_eq!(spent_at_once(&bucket, now), 10);
    }

    #[test]
    fn a_quiet_client_is_allowed_ten_retries_a_second_but_does_not_hoard_them() {
        let now = Instant::now();
        let bucket = Bucket::new(RetryBudget { percent: 0, per_second: 10 }, now);
        assert_eq!(spent_at_once(&bucket, now), 100, "what it begins with");
        assert_eq!(spent_at_once(&bucket, now + Duration::from_secs(1)), 10);
        assert_eq!(spent_at_once(&bucket, now + Duration::from_millis(1_100)), 1);
        assert_eq!(spent_at_once(&bucket, now + Duration::from_secs(3_600)), 100);
    }

    #[test]
    fn a_long_quiet_time_before_an_outage_saves_up_a_bounded_number_of_retries() {
        let now = Instant::now();
        let bucket = Bucket::new(RetryBudget { percent: 10, per_second: 0 }, now);
        (0..1_000_000).for_each(|_| bucket.earn());
        assert_eq!(spent_at_once(&bucket, now), 1_000);
    }
}
