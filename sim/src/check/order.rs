//! Real time: whoever asks after another has been answered stands behind it in the history. Reads
//! stand behind the last entry that they saw for certain.

use std::time::Duration;

use purser_ledger::time::Time;

use super::Check;
use crate::observed::Attempt;

/// A place in the history of one shard: log index, position. A read stands behind its whole entry.
type Key = (u64, u64);

/// Ledger time never goes back: a read is judged no earlier than any write that was answered before.
fn times(by_begin: &[(&Attempt, Key)], by_end: &[(&Attempt, Key)]) -> Check {
    let mut ended = by_end.iter().peekable();
    let mut latest: Option<(&Attempt, Time)> = None;
    for (attempt, _) in by_begin {
        while let Some((before, _)) = ended.next_if(|(before, _)| before.ended < attempt.begun) {
            let of_write = before.ledger_time().filter(|_| before.request.is_write());
            if let Some(time) = of_write.filter(|time| latest.is_none_or(|(_, known)| known < *time)) {
                latest = Some((before, time));
            }
        }
        let (Some((before, known)), Some(time)) = (latest, attempt.ledger_time()) else { continue };
        if time < known {
            return Err(format!("ledger time went back:\n   {attempt:?}\n   came after {before:?}"));
        }
    }
    Ok(())
}

pub(super) fn check(attempts: &[&Attempt]) -> Check {
    let key = |attempt: &Attempt| -> Option<Key> {
        let witness = attempt.witness().map(|place| (place.index, place.position));
        witness.or_else(|| attempt.read_point().map(|point| (point.read_index, u64::MAX)))
    };
    let placed: Vec<(&Attempt, Key)> =
        attempts.iter().filter_map(|attempt| Some((*attempt, key(attempt)?))).collect();
    let mut by_begin = placed.clone();
    by_begin.sort_by_key(|(attempt, _)| attempt.begun);
    let mut by_end = placed;
    by_end.sort_by_key(|(attempt, _)| attempt.ended);
    times(&by_begin, &by_end)?;
    let mut ended = by_end.into_iter().peekable();
    // The latest place of all that had ended by now.
    let mut latest: Option<(&Attempt, Key)> = None;
    for (attempt, key) in by_begin {
        while let Some((before, place)) = ended.next_if(|(before, _)| before.ended < attempt.begun) {
            if latest.is_none_or(|(_, known)| known < place) {
                latest = Some((before, place));
            }
        }
        let Some((before, place)) = latest else { continue };
        // A write has a place of its own; a read may see no more than another one saw.
        let is_behind = if attempt.request.is_write() { key > place } else { key >= place };
        if !is_behind {
            return Err(format!(
                "what was asked at {} ms stands at {key:?}, before {place:?}, which had been answered at {} ms:\n   \
                 {attempt:?}\n   {before:?}",
                ms(attempt.begun),
                ms(before.ended)
            ));
        }
    }
    Ok(())
}

fn ms(time: Duration) -> u128 {
    time.as_millis()
}
