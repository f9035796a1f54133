//! How long each stage of a debit takes by itself, for a request of 100 debits of one shard: `make
//! bench-stages`. Figures are for orientation, on the machine at hand; what is guarded is counted in
//! instructions (`instructions.rs`).
// What the benchmark's macros write.
#![allow(missing_docs)]

mod support;

use std::hint::black_box;
use std::path::Path;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use purser_ledger::apply::Applied;
use purser_ledger::cache::WalletCache;
use purser_node::log::{self, GroupId, LogEntry, LogHandle, LogOptions, LogWriter, Op, RealDisk};
use purser_node::storage::{Generation, ShardStore, StateStore, StoreOptions};
use tokio::time::Instant;

const GROUP: GroupId = GroupId(1);
/// Entries that the log holds at most.
const KEPT_MAX: u64 = 1_024;

fn stages(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("100 debits");
    group.throughput(Throughput::Elements(support::DEBITS as u64));

    let request = support::request(1);
    group
        .bench_function("1 decode the request", |bench| bench.iter(|| support::decoded(black_box(&request))));
    let decoded = support::decoded(&request);
    group.bench_function("2 check, and encode for the queue", |bench| {
        bench.iter(|| support::list(black_box(&decoded)))
    });
    group.bench_function("3 check, and encode into an entry", |bench| {
        bench.iter(|| support::entry(black_box(&decoded)))
    });

    let folder = tempfile::tempdir().expect("a directory");
    let entry = Bytes::from(support::entry(&decoded));
    let mut durable = Durable::open(&folder.path().join("log"));
    group.bench_function("4 the entry is durable in the log", |bench| bench.iter(|| durable.append(&entry)));

    let mut shard = Shard::open(&folder.path().join("state"));
    group.bench_function("5 judge the entry", |bench| {
        bench.iter_custom(|rounds| {
            timed(rounds, &mut shard, |shard, entry| drop(black_box(shard.judge(entry))))
        })
    });
    group.bench_function("6 judge it and write its rows", |bench| {
        bench.iter_custom(|rounds| timed(rounds, &mut shard, Shard::apply))
    });

    let entry = shard.next();
    let answers = shard.judge(&entry).answers;
    group.bench_function("7 make the answer", |bench| bench.iter(|| support::response(black_box(&answers))));
    group.finish();
}

/// The time of a stage alone: the entries that it works on are made outside of it.
fn timed(rounds: u64, shard: &mut Shard, stage: impl Fn(&mut Shard, &[u8])) -> Duration {
    let mut taken = Duration::ZERO;
    for _ in 0..rounds {
        let entry = shard.next();
        let begun = Instant::now();
        stage(shard, &entry);
        taken += begun.elapsed();
    }
    taken
}

/// A log on this machine's disk.
struct Durable {
    log: LogHandle,
    next_index: u64,
    _writer: LogWriter,
}

impl Durable {
    fn open(directory: &Path) -> Durable {
        let disk = Arc::new(RealDisk::open(directory).expect("a directory"));
        let (log, driver, _) = log::open(disk, LogOptions::new("stages")).expect("a log");
        let _writer = LogWriter::spawn(log.clone(), driver).expect("its threads");
        Durable { log, next_index: 0, _writer }
    }

    /// Appends an entry and waits until it is durable. Now and then drops what is there.
    fn append(&mut self, payload: &Bytes) {
        let (tell, told) = mpsc::channel();
        let (group, index) = (GROUP, self.next_index);
        let entry = LogEntry { index, term: 1, payload: payload.clone() };
        let mut ops = vec![Op::Append { group, entries: vec![entry] }];
        if index > 0 && index.is_multiple_of(KEPT_MAX) {
            ops.insert(0, Op::Purge { group, upto_index: index - 1, mark: Bytes::new() });
        }
        self.next_index += 1;
        let done = Box::new(move |durable| tell.send(durable).expect("it is waited for"));
        self.log.submit(ops, done).expect("room in the queue");
        told.recv().expect("an answer").expect("durable");
    }
}

/// A shard's rows on this machine's disk, as a node keeps them.
struct Shard {
    store: ShardStore,
    cache: WalletCache,
    round: u64,
    _state: StateStore,
}

impl Shard {
    fn open(directory: &Path) -> Shard {
        let state = StateStore::open(directory, StoreOptions::new("stages")).expect("a store");
        let store = state.shard(0, Generation::FIRST).expect("a shard");
        let mut shard = Shard { store, cache: WalletCache::new(support::DEBITS), round: 0, _state: state };
        shard.apply(&support::filling());
        shard
    }

    /// An entry of debits with keys that no other had.
    fn next(&mut self) -> Vec<u8> {
        self.round += 1;
        support::entry(&support::decoded(&support::request(self.round)))
    }

    fn judge(&mut self, entry: &[u8]) -> Applied {
        support::judged(&self.store, &mut self.cache, entry)
    }

    fn apply(&mut self, entry: &[u8]) {
        let applied = self.judge(entry);
        self.store.write(applied.changes.iter(), b"stages").expect("written");
    }
}

criterion_group!(benches, stages);
criterion_main!(benches);
