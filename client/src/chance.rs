//! Time of day and randomness: the only two things that the client does not get from its caller or
//! the network. Both can be given, so that a simulation is the same run each time.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prost_types::Timestamp;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use uuid::Uuid;

/// Tells the time of day.
pub(crate) type WallClock = Arc<dyn Fn() -> SystemTime + Send + Sync>;

/// The system's clock.
pub(crate) fn system_clock() -> WallClock {
    // The one place that reads it.
    #[expect(clippy::disallowed_methods, reason = "this is the clock that others are given instead of it")]
    Arc::new(SystemTime::now)
}

/// Clock and randomness of one client.
pub(crate) struct Chance {
    clock: WallClock,
    random: Mutex<SmallRng>,
}

impl Chance {
    /// With a seed, the same numbers each time; without, numbers of the operating system's choice.
    pub(crate) fn new(clock: WallClock, seed: Option<u64>) -> Chance {
        let random = match seed {
            Some(seed) => SmallRng::seed_from_u64(seed),
            None => {
                let mut bytes = <SmallRng as SeedableRng>::Seed::default();
                for half in bytes.chunks_mut(16) {
                    half.copy_from_slice(&Uuid::new_v4().as_bytes()[..half.len()]);
                }
                SmallRng::from_seed(bytes)
            }
        };
        Chance { clock, random: Mutex::new(random) }
    }

    /// The time of day, since 1970.
    pub(crate) fn now(&self) -> Duration {
        (self.clock)().duration_since(UNIX_EPOCH).unwrap_or_default()
    }

    /// A new idempotency key: a UUID of version 7, sortable by time.
    pub(crate) fn key(&self) -> String {
        let mut random = [0; 10];
        self.with(|own| own.fill_bytes(&mut random));
        let millis = u64::try_from(self.now().as_millis()).unwrap_or(u64::MAX);
        uuid::Builder::from_unix_timestamp_millis(millis, &random).into_uuid().to_string()
    }

    /// A wait from nothing up to `longest`, each as likely as the other.
    pub(crate) fn up_to(&self, longest: Duration) -> Duration {
        let micros = u64::try_from(longest.as_micros()).unwrap_or(u64::MAX);
        Duration::from_micros(self.below(micros.saturating_add(1)))
    }

    /// A number below `end`; 0 if there is none.
    pub(crate) fn below(&self, end: u64) -> u64 {
        // Multiply and shift: the bias, below 2^-32 for every span used here, harms nobody.
        let drawn = self.with(|own| own.next_u64());
        ((u128::from(drawn) * u128::from(end)) >> u64::BITS) as u64
    }

    fn with<T>(&self, draw: impl FnOnce(&mut SmallRng) -> T) -> T {
        draw(&mut self.random.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Time of day as protobuf has it, to the microsecond that the ledger counts.
pub(crate) fn timestamp(since_1970: Duration) -> Timestamp {
    Timestamp {
        seconds: i64::try_from(since_1970.as_secs()).unwrap_or(i64::MAX),
        nanos: (since_1970.subsec_micros() * 1_000) as i32,
    }
}

/// The same, back; before 1970 counts as 1970.
pub(crate) fn since_1970(stamp: &Timestamp) -> Duration {
    let seconds = u64::try_from(stamp.seconds).unwrap_or(0);
    Duration::from_secs(seconds) + Duration::from_nanos(u64::try_from(stamp.nanos).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64, seed: Option<u64>) -> Chance {
        Chance::new(Arc::new(move || UNIX_EPOCH + Duration::from_millis(millis)), seed)
    }

    #[test]
    fn the_same_seed_draws_the_same_keys_and_waits() {
        let (first, second) = (at(1_000, Some(7)), at(1_000, Some(7)));
        let draw = |own: &Chance| (own.key(), own.up_to(Duration::from_secs(1)), own.below(1_000));
        assert_eq!(draw(&first), draw(&second));
        assert_ne!(at(1_000, Some(8)).key(), at(1_000, Some(7)).key());
        assert_ne!(at(1_000, None).key(), at(1_000, None).key(), "without a seed every client differs");
    }

    #[test]
    fn a_key_is_a_uuid_of_version_7_that_begins_with_the_time() {
        let key = Uuid::parse_str(&at(0x0123_4567_89ab, Some(1)).key()).expect("a UUID");
        assert_eq!(key.get_version_num(), 7);
        assert_eq!(key.as_bytes()[..6], [0x01, 0x23, 0x45, 0x67, 0x89, 0xab]);
    }

    #[test]
    fn waits_stay_within_their_bound_and_use_all_of_it() {
        let chance = at(0, Some(3));
        let longest = Duration::from_micros(9);
        let drawn: std::collections::BTreeSet<_> = (0..1_000).map(|_| chance.up_to(longest)).collect();
        assert_eq!(drawn.len(), 10, "0 to 9 microseconds, each of them");
        assert!(drawn.iter().all(|wait| *wait <= longest));
        assert_eq!(chance.up_to(Duration::ZERO), Duration::ZERO);
    }

    #[test]
    fn times_come_through_to_the_microsecond() {
        let time = Duration::new(1_700_000_000, 123_456_789);
        let stamp = timestamp(time);
        assert_eq!((stamp.seconds, stamp.nanos), (1_700_000_000, 123_456_000));
        assert_eq!(since_1970(&stamp), Duration::new(1_700_000_000, 123_456_000));
    }
}
