//! Many writes in one call: each with its own key and verdict, those of one customer in their order.
//!
//! ```text
//!   batch  --\                  +-- writes_of_shard ----------------------------+
//!   stream --/-- by shard -->   |  commands --> Shard::submit_many --> results  |
//! ```
//! A customer lives in one shard, and a shard judges a list in its order: so writes are parted by
//! shard, each part goes as one list, and results are put back into the places of their writes. What is
//! different between sorts of them, `batched` says.

use std::collections::BTreeMap;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use purser_proto::v1;
use tonic::Status;

use super::Api;
use super::batched::{Batched, refused};
use super::forward::{Attempts, Route, is_of_the_shape, unsettled};
use super::refusal::{self, malformed};
use super::shape::{Fault, Shape};
use crate::shard::{CommandList, ShardError, ShardId};

/// Most writes of a batch.
pub const WRITES_MAX: usize = 8_000;
/// Results rendered before other work of this thread has its turn: about half a millisecond.
const RENDERED_AT_ONCE_MAX: usize = 256;

impl Api {
    /// Debits, many in one call.
    pub async fn debit_batch(
        &self,
        request: &v1::DebitBatchRequest,
        route: Route,
    ) -> Result<v1::DebitBatchResponse, Status> {
        let results = self.batch(&request.debits, request.detail(), route).await?;
        Ok(v1::DebitBatchResponse { results })
    }

    /// Writes of several sorts, many in one call.
    pub async fn write_batch(
        &self,
        request: &v1::WriteBatchRequest,
        route: Route,
    ) -> Result<v1::WriteBatchResponse, Status> {
        let results = self.batch(&request.writes, request.detail(), route).await?;
        Ok(v1::WriteBatchResponse { results })
    }

    async fn batch<W: Batched>(
        &self,
        writes: &[W],
        detail: v1::ReceiptDetail,
        route: Route,
    ) -> Result<Vec<W::Result>, Status> {
        check_count::<W>(writes.iter().map(W::weight).sum())?;
        let mut places_by_shard = BTreeMap::<ShardId, Vec<usize>>::new();
        for (place, write) in writes.iter().enumerate() {
            let (namespace, customer) = write.customer();
            places_by_shard.entry(self.place(namespace, customer)).or_default().push(place);
        }
        let parts = places_by_shard.into_iter().map(|(shard, places)| async move {
            let part: Vec<_> = places.iter().map(|place| &writes[*place]).collect();
            (self.writes_of_shard(shard, &part, detail, route).await, places)
        });
        let mut parts: FuturesUnordered<_> = parts.collect();
        let mut results = vec![W::Result::default(); writes.len()];
        while let Some((part, places)) = parts.next().await {
            for (result, place) in part.into_iter().zip(places) {
                results[place] = result;
            }
        }
        Ok(results)
    }

    /// Writes of one shard, in their order: a result for each. What another node has to judge is handed
    /// on to it together.
    pub(super) async fn writes_of_shard<W: Batched>(
        &self,
        shard: ShardId,
        writes: &[&W],
        detail: v1::ReceiptDetail,
        route: Route,
    ) -> Vec<W::Result> {
        let mut results = self.writes_here(shard, writes, detail).await;
        let Route::Any(until) = route else { return results };
        let open = |results: &[W::Result]| -> Vec<usize> {
            (0..writes.len()).filter(|place| is_not_leader::<W>(&results[*place])).collect()
        };
        let mut places = open(&results);
        if places.is_empty() {
            return results;
        }
        let Ok(_permit) = self.handing_on.try_acquire() else {
            let status =
                refusal::unavailable("too many calls wait for other nodes; try again with the same key");
            places.into_iter().for_each(|place| results[place] = refused::<W>(&status));
            return results;
        };
        let mut attempts = Attempts::until(until);
        while let Some(left) = attempts.left() {
            if let Some(node) = self.candidate(shard, attempts.made()) {
                let request = W::batch(places.iter().map(|place| writes[*place].clone()).collect(), detail);
                let answer: Option<Result<W::Results, Status>> =
                    self.ask(node, W::BATCH, &request, left).await;
                let told = answer.and_then(Result::ok).map(W::results);
                if let Some(told) = told.filter(|told| told.len() == places.len()) {
                    places
                        .iter()
                        .zip(told)
                        .for_each(|(place, result)| results[*place] = settled::<W>(result));
                    places = open(&results);
                    if places.is_empty() {
                        return results;
                    }
                }
            }
            attempts.pause().await;
            // Leadership may have come here meanwhile.
            let part: Vec<&W> = places.iter().map(|place| writes[*place]).collect();
            let told = self.writes_here(shard, &part, detail).await;
            places.iter().zip(told).for_each(|(place, result)| results[*place] = settled::<W>(result));
            places = open(&results);
            if places.is_empty() {
                return results;
            }
        }
        results
    }

    /// Writes of one shard that this node leads. A malformed one is refused in its place; the others go
    /// to the shard together.
    async fn writes_here<W: Batched>(
        &self,
        shard: ShardId,
        writes: &[&W],
        detail: v1::ReceiptDetail,
    ) -> Vec<W::Result> {
        let shard = match self.shard(shard) {
            Ok(shard) => shard,
            Err(status) => return vec![refused::<W>(&status); writes.len()],
        };
        let now = self.clock.now();
        let shaped: Vec<_> = writes.iter().map(|write| write.command(now)).collect();
        let mut list = CommandList::with_capacity(writes.len());
        shaped.iter().flatten().for_each(|command| list.push(command));
        let mut outcomes = shard.submit_many(list).await.into_iter();
        let mut results = Vec::with_capacity(writes.len());
        for command in shaped {
            if results.len() % RENDERED_AT_ONCE_MAX == RENDERED_AT_ONCE_MAX - 1 {
                tokio::task::yield_now().await;
            }
            let answer = command.map_err(malformed).and_then(|command| {
                let nothing = || Err(ShardError::Failed("a command has no outcome".to_owned()));
                let written = self.written(shard.id(), outcomes.next().unwrap_or_else(nothing), &command)?;
                W::applied(self, &command, &written, detail)
            });
            results.push(answer.unwrap_or_else(|status| refused::<W>(&status)));
        }
        results
    }
}

/// The result of an attempt that was not the first: see `forward::settled`.
fn settled<W: Batched>(result: W::Result) -> W::Result {
    match W::refusal(&result) {
        Some(told) if is_of_the_shape(&told.reason, &told.metadata) => {
            refused::<W>(&refusal::unavailable(unsettled(&told.message)))
        }
        _ => result,
    }
}

fn is_not_leader<W: Batched>(result: &W::Result) -> bool {
    W::refusal(result).is_some_and(|refusal| refusal.reason == refusal::NOT_LEADER)
}

fn check_count<W: Batched>(count: usize) -> Result<(), Status> {
    let mut shape = Shape::new();
    match count {
        0 => shape.invalid(W::MANY, format!("required: 1 to {WRITES_MAX} {}", W::MANY)),
        1..=WRITES_MAX => {}
        _ => shape.fault(W::MANY, Fault::Limit, format!("at most {WRITES_MAX}, not {count}")),
    }
    shape.finish(()).map_err(malformed)
}
