//! The oracle: holds what callers saw against what the shards applied, and that against the naive
//! model. Linear in time, and sound: whatever it reports is a broken promise.
//!
//! ```text
//!   history (every replica, every entry) ── replayed on ──> model         (replay)
//!   answers ── found by their witness in ──> history                      (answers)
//!   answers ── whoever came later in time is later in ──> history         (order)
//!   reads ── each shows one state of ──> model                            (reads)
//!   the last reads ── equal ──> model                                     (finals)
//!   what the client library said ── holds in ──> history, answers         (told)
//!   ledger time ── never far ahead of ──> the clocks of a majority        (clocks)
//! ```

mod answers;
mod clocks;
mod finals;
mod names;
mod order;
mod reads;
mod replay;
mod told;

use std::collections::BTreeMap;
use std::time::Duration;

use purser_node::cluster::ShardMap;

use crate::clocks::Since;
use crate::history::Entries;
use crate::observed::{Attempt, Told};

pub use finals::{Last, Listed};

/// What was found, in words.
pub type Check<T = ()> = Result<T, String>;

/// How often what happened.
pub type Counts = BTreeMap<String, u64>;

/// All that is known of a run.
#[derive(Clone, Debug)]
pub struct Evidence {
    /// What callers saw.
    pub attempts: Vec<Attempt>,
    /// What the shards applied.
    pub history: BTreeMap<u16, Entries>,
    /// What was read when nothing failed any more: each round of reads by itself.
    pub last: Vec<Vec<Last>>,
    /// What gateways were told.
    pub told: Vec<Told>,
    /// Where customers live.
    pub map: ShardMap,
    /// When the run began, in microseconds since 1970.
    pub began_us: u64,
    /// How far the nodes' clocks were ahead, and from when on.
    pub clocks: Vec<Since>,
    /// For each shard the places, among the nodes, of those that have its replicas.
    pub homes: Vec<Vec<usize>>,
    /// How far an entry may be stamped ahead of a follower's clock.
    pub clock_bound: Duration,
    /// What happened inside the nodes.
    pub happened: BTreeMap<&'static str, u64>,
}

/// Checks a run.
pub fn check(evidence: &Evidence) -> Check<Counts> {
    let mut counts: Counts =
        evidence.happened.iter().map(|(what, often)| ((*what).to_owned(), *often)).collect();
    clocks::check(evidence)?;
    told::check(evidence, &mut counts)?;
    for shard in evidence.map.shards() {
        let nothing = Entries::new();
        let entries = evidence.history.get(&shard.0).unwrap_or(&nothing);
        let of_shard = |attempt: &&Attempt| evidence.map.shard_of(attempt.request.customer()) == shard;
        let attempts: Vec<&Attempt> = evidence.attempts.iter().filter(of_shard).collect();
        answers::check(shard, entries, &attempts, &mut counts)?;
        order::check(&attempts)?;
        let mut replay = replay::Replay::new();
        replay.run(entries, &attempts, &mut counts)?;
        for round in &evidence.last {
            for last in round.iter().filter(|last| evidence.map.shard_of(last.customer()) == shard) {
                finals::check(&replay, last)?;
            }
        }
    }
    Ok(counts)
}

/// Whether two things are the same.
fn same<T: PartialEq + std::fmt::Debug>(what: &str, expected: &T, given: &T) -> Check {
    match expected == given {
        true => Ok(()),
        false => Err(format!("{what}:\n   expected {expected:?}\n   given    {given:?}")),
    }
}

fn count(counts: &mut Counts, what: &str) {
    *counts.entry(what.to_owned()).or_default() += 1;
}
