//! What the way of a batch of debits through a node costs around the core, in instructions: the same on
//! each run. A change that makes one dearer by more than 3 % fails. `make instructions`.
//!
//! Each measures one request of 100 debits. What judging them costs is counted in the core's own crate.
// What the benchmark's macros write.
#![allow(missing_docs, unused_qualifications)]

mod support;

use std::hint::black_box;

use gungraun::prelude::*;
use gungraun::{Callgrind, EventKind};
use purser_ledger::cache::WalletCache;
use purser_ledger::store::MemStore;
use purser_ledger::verdict::Answer;
use purser_node::shard::CommandList;
use purser_proto::v1::DebitBatchRequest;

/// Instructions of each measurement when it was last changed on purpose, plus 3 %.
const DECODE_MAX: u64 = 289_500;
const LIST_MAX: u64 = 175_800;
const ANSWER_MAX: u64 = 1_664_500;

fn request() -> Vec<u8> {
    support::request(1)
}

fn decoded() -> DebitBatchRequest {
    support::decoded(&request())
}

fn answers() -> Vec<Answer> {
    let (mut store, mut cache) = (MemStore::new(), WalletCache::new(support::DEBITS));
    let filled = support::judged(&store, &mut cache, &support::filling());
    store.commit(&filled.changes);
    support::judged(&store, &mut cache, &support::entry(&decoded())).answers
}

#[library_benchmark(config = LibraryBenchmarkConfig::default().tool(Callgrind::default().hard_limits([(EventKind::Ir, DECODE_MAX)])))]
#[bench::hundred(request())]
fn decode(request: Vec<u8>) -> (Vec<u8>, DebitBatchRequest) {
    let decoded = support::decoded(black_box(&request));
    (request, decoded)
}

#[library_benchmark(config = LibraryBenchmarkConfig::default().tool(Callgrind::default().hard_limits([(EventKind::Ir, LIST_MAX)])))]
#[bench::hundred(decoded())]
fn list(request: DebitBatchRequest) -> (DebitBatchRequest, CommandList) {
    let list = support::list(black_box(&request));
    (request, list)
}

#[library_benchmark(config = LibraryBenchmarkConfig::default().tool(Callgrind::default().hard_limits([(EventKind::Ir, ANSWER_MAX)])))]
#[bench::hundred(answers())]
fn answer(answers: Vec<Answer>) -> (Vec<Answer>, Vec<u8>) {
    let response = support::response(black_box(&answers));
    (answers, response)
}

library_benchmark_group!(name = batch_through_a_node, benchmarks = [decode, list, answer]);
main!(library_benchmark_groups = batch_through_a_node);
