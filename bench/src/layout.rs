//! The layout gate: how many plain debits one core applies a second, and what they write.
//!
//! One replica, one thread, batches of 100 commands: decode, apply, encode rows, one RocksDB write
//! batch without its WAL (the Raft log is the WAL). No network and no log. Commands are encoded
//! outside the clock.

use std::time::Duration;

use anyhow::Context;
use purser_ledger::apply::apply_batch_cached;
use purser_ledger::cache::WalletCache;
use purser_ledger::command::BatchEncoder;
use purser_ledger::store::{Changes, Store, StoreError};
use purser_ledger::time::Time;
use purser_ledger::verdict::{Reply, Verdict};
use rocksdb::{DB, Direction, IteratorMode, Options as DbOptions, WriteBatch, WriteOptions};

use crate::workload::{self, Draws};

/// Options of the layout gate.
#[derive(clap::Args)]
pub struct Options {
    /// How many wallets, one a customer.
    #[arg(long, default_value_t = 10_000)]
    wallets: u64,
    /// How many debits to apply under the clock.
    #[arg(long, default_value_t = 2_000_000)]
    debits: u64,
    /// How many decoded wallets are kept between batches.
    #[arg(long, default_value_t = 50_000)]
    cached_wallets: usize,
    /// Commands a batch.
    #[arg(long, default_value_t = 100)]
    batch: usize,
}

struct Rocks(DB);

impl Store for Rocks {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.0.get(key).map_err(|error| StoreError(error.to_string()))
    }

    fn get_many(&self, keys: &[&[u8]]) -> Result<Vec<Option<Vec<u8>>>, StoreError> {
        self.0
            .multi_get(keys)
            .into_iter()
            .map(|row| row.map_err(|error| StoreError(error.to_string())))
            .collect()
    }

    fn scan(
        &self,
        from: &[u8],
        until: &[u8],
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), StoreError> {
        for row in self.0.iterator(IteratorMode::From(from, Direction::Forward)) {
            let (key, row) = row.map_err(|error| StoreError(error.to_string()))?;
            if *key >= *until || !visit(&key, &row) {
                break;
            }
        }
        Ok(())
    }

    fn scan_back(
        &self,
        _from: &[u8],
        _until: &[u8],
        _visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), StoreError> {
        Err(StoreError("apply does not scan backwards".to_owned()))
    }
}

impl Rocks {
    fn commit(&self, changes: &Changes) -> anyhow::Result<usize> {
        let mut batch = WriteBatch::default();
        for (key, change) in changes.iter() {
            match change {
                Some(row) => batch.put(key, row),
                None => batch.delete(key),
            }
        }
        let mut options = WriteOptions::default();
        options.disable_wal(true);
        let bytes = batch.size_in_bytes();
        self.0.write_opt(batch, &options)?;
        Ok(bytes)
    }
}

/// Runs the gate and prints its figures.
pub fn run(options: &Options) -> anyhow::Result<()> {
    let folder = tempfile::tempdir().context("a folder for the store")?;
    let mut db_options = DbOptions::default();
    db_options.create_if_missing(true);
    db_options.set_write_buffer_size(16 << 20);
    db_options.set_max_write_buffer_number(4);
    let mut table = rocksdb::BlockBasedOptions::default();
    table.set_bloom_filter(10.0, false);
    table.set_block_cache(&rocksdb::Cache::new_lru_cache(1 << 30));
    table.set_cache_index_and_filter_blocks(false);
    db_options.set_block_based_table_factory(&table);
    db_options.set_memtable_prefix_bloom_ratio(0.1);
    db_options.set_memtable_whole_key_filtering(true);
    db_options.set_allow_concurrent_memtable_write(false);
    db_options.set_compression_type(rocksdb::DBCompressionType::Lz4);
    let rocks = Rocks(DB::open(&db_options, folder.path())?);

    let names: Vec<String> = (0..options.wallets).map(|n| format!("customer-{n:07}")).collect();
    let mut clock = Time(1_800_000_000_000_000);
    let mut encoder = BatchEncoder::new();
    let mut cache = WalletCache::new(options.cached_wallets);
    eprintln!("creating {} wallets with 4 tranches of 1,000 each", options.wallets);
    for chunk in names.chunks(options.batch) {
        for name in chunk {
            encoder.push(&workload::create(workload::header(name, "create", clock)));
            encoder.push(&workload::refill(workload::header(name, "first", clock)));
        }
        clock.0 += 1_000;
        let applied = apply_batch_cached(&rocks, &mut cache, 1, &encoder.finish(clock))?;
        rocks.commit(&applied.changes)?;
    }
    rocks.0.flush()?;

    let mut draws = Draws::new(1);
    let (mut applied_debits, mut denied, mut refills, mut bytes, mut rows) =
        (0u64, 0u64, 0u64, 0usize, 0usize);
    let (mut in_apply, mut in_commit) = (Duration::ZERO, Duration::ZERO);
    let mut key = 0u64;
    let mut short: Vec<u64> = Vec::new();
    while applied_debits < options.debits {
        let refilled = std::mem::take(&mut short);
        let mut asked = Vec::with_capacity(options.batch);
        for &wallet in &refilled {
            key += 1;
            let text = format!("refill-{key:029}");
            encoder.push(&workload::refill(workload::header(&names[wallet as usize], &text, clock)));
        }
        for _ in refilled.len()..options.batch {
            key += 1;
            let wallet = draws.wallet(options.wallets);
            let text = format!("{key:036}");
            encoder.push(&workload::debit(
                workload::header(&names[wallet as usize], &text, clock),
                draws.amount(),
            ));
            asked.push(wallet);
        }
        clock.0 += 1_000;
        let entry = encoder.finish(clock);
        let started = thread_cpu()?;
        let applied = apply_batch_cached(&rocks, &mut cache, 1, &entry)?;
        let between = thread_cpu()?;
        bytes += rocks.commit(&applied.changes)?;
        in_apply += between - started;
        in_commit += thread_cpu()? - between;
        rows += applied.changes.len();
        for (place, answer) in applied.answers.iter().enumerate() {
            match (&answer.reply, place.checked_sub(refilled.len())) {
                (Reply::Verdict { verdict: Verdict::Applied(_), .. }, None) => refills += 1,
                (Reply::Verdict { verdict: Verdict::Applied(_), .. }, Some(_)) => applied_debits += 1,
                (Reply::Verdict { verdict: Verdict::Denied(_), .. }, Some(debit)) => {
                    denied += 1;
                    short.push(asked[debit]);
                }
                (reply, _) => anyhow::bail!("unexpected reply: {reply:?}"),
            }
        }
        short.sort_unstable();
        short.dedup();
    }
    report(applied_debits, denied, refills, bytes, rows, in_apply, in_commit);
    Ok(())
}

/// CPU time of this thread: what other work on the machine takes is not counted.
fn thread_cpu() -> anyhow::Result<Duration> {
    let times =
        std::fs::read_to_string("/proc/thread-self/schedstat").context("the CPU time of this thread")?;
    let nanoseconds = times.split(' ').next().unwrap_or_default().parse()?;
    Ok(Duration::from_nanos(nanoseconds))
}

// A report is read by people; nothing is computed from it.
#[allow(clippy::float_arithmetic)]
fn report(
    debits: u64,
    denied: u64,
    refills: u64,
    bytes: usize,
    rows: usize,
    apply: Duration,
    commit: Duration,
) {
    let each = |whole: Duration| whole.as_secs_f64() * 1e6 / debits as f64;
    println!("applied debits      {debits}");
    println!("denied, refills     {denied}, {refills}");
    println!("debits a second     {:.0}", debits as f64 / (apply + commit).as_secs_f64());
    println!("us a debit, apply   {:.2}", each(apply));
    println!("us a debit, commit  {:.2}", each(commit));
    println!("rows a debit        {:.2}", rows as f64 / debits as f64);
    println!("bytes a debit       {:.0}  (write batch)", bytes as f64 / debits as f64);
}
