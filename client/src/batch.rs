//! Many writes at once: split by whom to ask, sent side by side, one call to each node at a time.
//!
//! In rounds. Each round sends what is still open, in the order in which it was given, so that writes of
//! one customer reach their shard in that order. As soon as a call leaves something open, no further
//! call goes to that node in this round: a later write does not overtake an earlier one by being in a
//! later call. (Within one call the node judges one write after the other, and may refuse an earlier one
//! for lack of room, and take a later.)

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use tokio::time::{Instant, sleep};

use crate::carrier::Route;
use crate::client::Inner;
use crate::failure::{Effect, Failure, Next, Origin};
use crate::lane::{BATCH_BYTES_MAX, BATCH_WRITES_MAX, left};
use crate::place::Place;
use crate::pursue::{Course, GaveUp};
use crate::routes::Target;
use crate::wire::Sort;

/// One of many writes.
pub(crate) struct Item {
    write: Bytes,
    place: Place,
    /// As how many it counts in a call.
    weight: usize,
    /// Something may have been sent.
    possible: bool,
    /// Why it is still open.
    failure: Option<Failure>,
    /// What came of it: an encoded answer.
    answer: Option<Result<Bytes, GaveUp>>,
}

/// Writes for one node, by their numbers, in order.
struct Group {
    target: Target,
    numbers: Vec<usize>,
}

/// What came of one group, as far as it was sent.
struct Told {
    target: Target,
    answers: Vec<(usize, Result<Bytes, Failure>)>,
}

impl Item {
    pub(crate) fn new(write: Bytes, place: Place, weight: usize) -> Item {
        Item { write, place, weight, possible: false, failure: None, answer: None }
    }

    /// What came of it.
    pub(crate) fn into_answer(self) -> Result<Bytes, GaveUp> {
        let Item { possible, failure, answer, .. } = self;
        let unsent = || Failure::unsent(Origin::Own, "the deadline passed before it was sent");
        answer.unwrap_or_else(|| Err(GaveUp::with(failure.unwrap_or_else(unsent), possible)))
    }
}

impl Inner {
    /// Makes many writes, as far as there is time.
    pub(crate) async fn pursue_all(&self, sort: Sort, items: &mut [Item], until: Instant) {
        self.budget.earn();
        let (mut course, attempt) = (Course::default(), self.attempt_of(until));
        loop {
            let at_once = self.round(sort, items, until, attempt).await;
            let open = || items.iter().filter(|item| item.answer.is_none());
            if open().next().is_none() {
                return;
            }
            // All wait for the one that was asked to wait longest.
            let slowest = open().filter_map(|item| item.failure.as_ref()).max_by_key(|own| own.retry_after());
            // Without a failure, what is open only waits for its turn.
            let Some(slowest) = slowest else { continue };
            if at_once && course.at_once() && !left(until).is_zero() {
                continue;
            }
            match self.pause(&mut course, slowest, until, true) {
                Some(pause) => sleep(pause).await,
                None => return,
            }
        }
    }

    /// Sends what is open, and sorts the answers; says whether what is left may be sent again at once.
    async fn round(&self, sort: Sort, items: &mut [Item], until: Instant, attempt: Duration) -> bool {
        let begun = Instant::now();
        let until = until.min(begun + attempt);
        let whole = until.saturating_duration_since(begun) >= attempt;
        let groups = self.groups(items);
        let sending = groups.into_iter().map(|group| self.send(sort, items, group, until));
        let told = join_all(sending).await;
        let mut at_once = true;
        for Told { target, answers } in told {
            for (number, answer) in answers {
                let item = &mut items[number];
                let failure = match answer {
                    Ok(response) => {
                        self.routes.answered(&target, item.place);
                        item.answer = Some(Ok(response));
                        continue;
                    }
                    Err(failure) => failure,
                };
                let (next, effect) = failure.judge();
                if next == Next::Tell {
                    item.answer = Some(Err(GaveUp::with(failure, item.possible)));
                    continue;
                }
                item.possible |= effect == Effect::Possible;
                at_once &= self.learn(&target, &failure, item.place, whole) && next == Next::Elsewhere;
                item.failure = Some(failure);
            }
        }
        at_once
    }

    /// What is open, by whom to ask.
    fn groups(&self, items: &[Item]) -> Vec<Group> {
        let mut groups: BTreeMap<(Arc<str>, Route), Group> = BTreeMap::new();
        // Whom to ask may change while this goes on; writes of one customer all go the same way.
        let mut targets: BTreeMap<Place, Target> = BTreeMap::new();
        for (number, item) in items.iter().enumerate().filter(|(_, item)| item.answer.is_none()) {
            let target = targets.entry(item.place).or_insert_with(|| self.target(item.place, None)).clone();
            let key = (target.node.address.clone(), target.route);
            groups.entry(key).or_insert(Group { target, numbers: Vec::new() }).numbers.push(number);
        }
        groups.into_values().collect()
    }

    /// Sends a group, call after call, until one leaves something open.
    async fn send(&self, sort: Sort, items: &[Item], group: Group, until: Instant) -> Told {
        let Group { target, numbers } = group;
        let lane = target.node.lane(target.route).clone();
        let mut answers = Vec::with_capacity(numbers.len());
        let mut rest = numbers.as_slice();
        while !rest.is_empty() {
            let (call, later) = rest.split_at(fitting(items, rest, self.options.batching.debits_max));
            rest = later;
            let writes: Vec<Bytes> = call.iter().map(|number| items[*number].write.clone()).collect();
            let results: Vec<Result<Bytes, Failure>> = match lane.batch(sort, &writes, until).await {
                Ok(results) => results.into_iter().map(|result| sort.outcome(result)).collect(),
                Err(failure) => call.iter().map(|_| Err(failure.clone())).collect(),
            };
            let open = |result: &Result<Bytes, Failure>| {
                result.as_ref().is_err_and(|failure| failure.judge().0 != Next::Tell)
            };
            let left_open = results.iter().any(open);
            answers.extend(call.iter().copied().zip(results));
            if left_open {
                break;
            }
        }
        Told { target, answers }
    }
}

/// How many of these writes fit into one call; at least one.
fn fitting(items: &[Item], numbers: &[usize], writes_max: usize) -> usize {
    let (mut bytes, mut weight) = (0, 0);
    let fit = numbers.iter().take(writes_max).take_while(|number| {
        let item = &items[**number];
        bytes += item.write.len();
        weight += item.weight;
        bytes <= BATCH_BYTES_MAX && weight <= BATCH_WRITES_MAX
    });
    fit.count().max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_holds_what_fits_by_count_and_by_bytes_and_at_least_one() {
        let item = |bytes| Item::new(vec![0; bytes].into(), Place::of("", "acme"), 1);
        let small: Vec<Item> = (0..5).map(|_| item(10)).collect();
        assert_eq!(fitting(&small, &[0, 1, 2, 3, 4], 3), 3);
        assert_eq!(fitting(&small, &[3, 4], 3), 2);
        let large = [item(BATCH_BYTES_MAX - 10), item(10), item(1), item(BATCH_BYTES_MAX + 1)];
        assert_eq!(fitting(&large, &[0, 1, 2], 3), 2);
        assert_eq!(fitting(&large, &[3], 3), 1);
        let grant = |tranches| Item::new(vec![0; 10].into(), Place::of("", "acme"), tranches);
        let heavy = [grant(BATCH_WRITES_MAX - 1), grant(1), grant(1), grant(BATCH_WRITES_MAX + 1)];
        assert_eq!(fitting(&heavy, &[0, 1, 2], 3), 2);
        assert_eq!(fitting(&heavy, &[3], 3), 1);
    }
}
