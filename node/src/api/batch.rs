//! Many debits in one call: each with its own key and verdict, those of one customer in their order.
//!
//! ```text
//!   batch  --\                  +-- debits_of_shard ----------------------------+
//!   stream --/-- by shard -->   |  commands --> Shard::submit_many --> results  |
//! ```
//! A customer lives in one shard, and a shard judges a list in its order: so debits are parted by
//! shard, each part goes as one list, and results are put back into the places of their debits.

use std::collections::BTreeMap;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use purser_proto::v1;
use tonic::Status;
use tonic_types::StatusExt;

use super::forward::{Attempts, Route, is_of_the_shape, unsettled};
use super::refusal::{self, malformed};
use super::shape::{Fault, Shape};
use super::{Api, commands};
use crate::shard::{CommandList, ShardError, ShardId};

/// Most debits of a batch.
pub const DEBITS_MAX: usize = 8_000;
/// Results rendered before other work of this thread has its turn: about half a millisecond.
const RENDERED_AT_ONCE_MAX: usize = 256;

impl Api {
    /// Debits, many in one call.
    pub async fn debit_batch(
        &self,
        request: &v1::DebitBatchRequest,
        route: Route,
    ) -> Result<v1::DebitBatchResponse, Status> {
        let debits = &request.debits;
        check_count(debits.len())?;
        let mut places_by_shard = BTreeMap::<ShardId, Vec<usize>>::new();
        for (place, debit) in debits.iter().enumerate() {
            places_by_shard.entry(self.place(&debit.namespace, &debit.customer)).or_default().push(place);
        }
        let parts = places_by_shard.into_iter().map(|(shard, places)| async move {
            let part: Vec<_> = places.iter().map(|place| &debits[*place]).collect();
            (self.debits_of_shard(shard, &part, request.detail(), route).await, places)
        });
        let mut parts: FuturesUnordered<_> = parts.collect();
        let mut results = vec![v1::DebitResult::default(); debits.len()];
        while let Some((part, places)) = parts.next().await {
            for (result, place) in part.into_iter().zip(places) {
                results[place] = result;
            }
        }
        Ok(v1::DebitBatchResponse { results })
    }

    /// Debits of one shard, in their order: a result for each. What another node has to judge is handed
    /// on to it together.
    pub(super) async fn debits_of_shard(
        &self,
        shard: ShardId,
        debits: &[&v1::DebitRequest],
        detail: v1::ReceiptDetail,
        route: Route,
    ) -> Vec<v1::DebitResult> {
        let mut results = self.debits_here(shard, debits, detail).await;
        let Route::Any(until) = route else { return results };
        let open = |results: &[v1::DebitResult]| -> Vec<usize> {
            (0..debits.len()).filter(|place| is_not_leader(&results[*place])).collect()
        };
        let mut places = open(&results);
        if places.is_empty() {
            return results;
        }
        let Ok(_permit) = self.handing_on.try_acquire() else {
            let status =
                refusal::unavailable("too many calls wait for other nodes; try again with the same key");
            places.into_iter().for_each(|place| results[place] = refused(&status));
            return results;
        };
        let mut attempts = Attempts::until(until);
        while let Some(left) = attempts.left() {
            if let Some(node) = self.candidate(shard, attempts.made()) {
                let debits = places.iter().map(|place| debits[*place].clone()).collect();
                let request = v1::DebitBatchRequest { debits, detail: detail.into() };
                let answer: Option<Result<v1::DebitBatchResponse, Status>> =
                    self.ask(node, "debit_batch", &request, left).await;
                let told = answer.and_then(Result::ok).map(|answer| answer.results);
                if let Some(told) = told.filter(|told| told.len() == places.len()) {
                    places.iter().zip(told).for_each(|(place, result)| results[*place] = settled(result));
                    places = open(&results);
                    if places.is_empty() {
                        return results;
                    }
                }
            }
            attempts.pause().await;
            // Leadership may have come here meanwhile.
            let part: Vec<&v1::DebitRequest> = places.iter().map(|place| debits[*place]).collect();
            let told = self.debits_here(shard, &part, detail).await;
            places.iter().zip(told).for_each(|(place, result)| results[*place] = settled(result));
            places = open(&results);
            if places.is_empty() {
                return results;
            }
        }
        results
    }

    /// Debits of one shard that this node leads. A malformed one is refused in its place; the others go
    /// to the shard together.
    async fn debits_here(
        &self,
        shard: ShardId,
        debits: &[&v1::DebitRequest],
        detail: v1::ReceiptDetail,
    ) -> Vec<v1::DebitResult> {
        let shard = match self.shard(shard) {
            Ok(shard) => shard,
            Err(status) => return vec![refused(&status); debits.len()],
        };
        let now = self.clock.now();
        let shaped: Vec<_> = debits.iter().map(|debit| commands::debit(debit, now)).collect();
        let mut list = CommandList::with_capacity(debits.len());
        shaped.iter().flatten().for_each(|command| list.push(command));
        let mut outcomes = shard.submit_many(list).await.into_iter();
        let mut results = Vec::with_capacity(debits.len());
        for command in shaped {
            if results.len() % RENDERED_AT_ONCE_MAX == RENDERED_AT_ONCE_MAX - 1 {
                tokio::task::yield_now().await;
            }
            let answer = command.map_err(malformed).and_then(|command| {
                let nothing = || Err(ShardError::Failed("a command has no outcome".to_owned()));
                self.written(shard.id(), outcomes.next().unwrap_or_else(nothing), &command)
            });
            results.push(match answer {
                Ok(written) => applied(written.debited(detail)),
                Err(status) => refused(&status),
            });
        }
        results
    }
}

/// The result of an attempt that was not the first: see `forward::settled`.
fn settled(result: v1::DebitResult) -> v1::DebitResult {
    use v1::debit_result::Outcome;
    match &result.outcome {
        Some(Outcome::Refused(told)) if is_of_the_shape(&told.reason, &told.metadata) => {
            refused(&refusal::unavailable(unsettled(&told.message)))
        }
        _ => result,
    }
}

fn is_not_leader(result: &v1::DebitResult) -> bool {
    use v1::debit_result::Outcome;
    matches!(&result.outcome, Some(Outcome::Refused(refusal)) if refusal.reason == refusal::NOT_LEADER)
}

fn check_count(count: usize) -> Result<(), Status> {
    let mut shape = Shape::new();
    match count {
        0 => shape.invalid("debits", format!("required: 1 to {DEBITS_MAX} debits")),
        1..=DEBITS_MAX => {}
        _ => shape.fault("debits", Fault::Limit, format!("at most {DEBITS_MAX}, not {count}")),
    }
    shape.finish(()).map_err(malformed)
}

fn applied(response: v1::DebitResponse) -> v1::DebitResult {
    v1::DebitResult { outcome: Some(v1::debit_result::Outcome::Applied(response)) }
}

/// What a single call answers with this status, as a result: with the same reason and metadata.
pub(super) fn refused(status: &Status) -> v1::DebitResult {
    let (reason, metadata) = match status.get_details_error_info() {
        Some(info) => (info.reason, info.metadata.into_iter().collect()),
        None => ("INTERNAL".to_owned(), Default::default()),
    };
    let refusal = v1::Refusal { reason, message: status.message().to_owned(), metadata };
    v1::DebitResult { outcome: Some(v1::debit_result::Outcome::Refused(refusal)) }
}
