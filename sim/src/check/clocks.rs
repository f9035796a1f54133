//! Ledger time is never further ahead than a majority of the clocks allows: a majority holds each
//! entry, and each of it but the leader refused it as long as it was too far ahead of its own clock.

use std::time::Duration;

use purser_node::shard::ShardId;

use super::{Check, Evidence};
use crate::clocks::Since;

pub(super) fn check(evidence: &Evidence) -> Check {
    let bound_us = evidence.clock_bound.as_micros() as i64;
    for attempt in &evidence.attempts {
        // A read is answered by the clock of one node, and nothing stays of it.
        let Some(time) = attempt.ledger_time().filter(|_| attempt.request.is_write()) else { continue };
        let shard = evidence.map.shard_of(attempt.request.customer());
        let latest = latest_us(evidence, shard, attempt.ended) + bound_us;
        if time.0 as i64 > latest {
            return Err(format!(
                "ledger time is {} ms ahead of what a majority of the clocks allows, in {attempt:?}",
                (time.0 as i64 - latest) / 1_000
            ));
        }
    }
    Ok(())
}

/// The latest that all of a majority's clocks ever stood at, up to a moment. Each for itself: an entry
/// may lie in one log for long before a second node takes it. One of them, the leader, follows its own
/// clock.
fn latest_us(evidence: &Evidence, shard: ShardId, until: Duration) -> i64 {
    let ends = evidence.clocks.iter().skip(1).map(|next| next.at).chain([Duration::MAX]);
    let so_far: Vec<_> =
        evidence.clocks.iter().zip(ends).take_while(|(since, _)| since.at <= until).collect();
    let stood_at = |&node: &usize| {
        let at = |(since, end): &(&Since, Duration)| {
            evidence.began_us as i64 + (*end).min(until).as_micros() as i64 + since.ahead_us[node]
        };
        so_far.iter().map(at).max().unwrap_or(i64::MAX)
    };
    let mut latest: Vec<i64> = evidence.homes[usize::from(shard.0)].iter().map(stood_at).collect();
    latest.sort_unstable_by(|one, other| other.cmp(one));
    // Alone, a node follows its own clock.
    latest[latest.len() / 2]
}
