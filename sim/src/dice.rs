//! Seeded choices. Each part of the simulation has a stream of its own, so that a change in one place
//! leaves the choices elsewhere as they were.

use std::ops::RangeInclusive;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// A stream of choices.
#[derive(Debug)]
pub struct Dice(StdRng);

impl Dice {
    /// The stream of a seed for one purpose.
    pub fn new(seed: u64, purpose: &str) -> Dice {
        Dice(StdRng::seed_from_u64(xxh3_64_with_seed(purpose.as_bytes(), seed)))
    }

    /// A number in a range.
    pub fn within(&mut self, range: RangeInclusive<u64>) -> u64 {
        self.0.random_range(range)
    }

    /// Any number.
    pub fn any(&mut self) -> u64 {
        self.0.random()
    }

    /// True so many times in a thousand.
    pub fn chance(&mut self, in_thousand: u64) -> bool {
        self.within(0..=999) < in_thousand
    }

    /// One of several things, all as likely.
    pub fn pick<'t, T>(&mut self, things: &'t [T]) -> &'t T {
        &things[self.within(0..=things.len() as u64 - 1) as usize]
    }

    /// One of several things, each as likely as its weight.
    pub fn weighted<T: Copy>(&mut self, things: &[(u64, T)]) -> T {
        let mut left = self.within(0..=things.iter().map(|(weight, _)| weight).sum::<u64>() - 1);
        for (weight, thing) in things {
            match left.checked_sub(*weight) {
                None => return *thing,
                Some(rest) => left = rest,
            }
        }
        unreachable!("what was drawn is below the sum of the weights")
    }

    /// A span of time in a range, to the microsecond.
    pub fn span(&mut self, range: &RangeInclusive<Duration>) -> Duration {
        let us = |span: &Duration| span.as_micros() as u64;
        Duration::from_micros(self.within(us(range.start())..=us(range.end())))
    }
}
