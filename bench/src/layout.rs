//! The layout gate: how many plain debits one core applies a second, and what they write.
//!
//! One replica, one thread, batches of 100 commands: decode, apply, encode rows, one RocksDB write
//! batch through the node's own state store, without a WAL (the Raft log is it). No network, no log. Commands are encoded
//! outside the clock.

use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use purser_ledger::apply::apply_batch_cached;
use purser_ledger::cache::WalletCache;
use purser_ledger::command::BatchEncoder;
use purser_ledger::time::Time;
use purser_ledger::verdict::{Reply, Verdict};
use purser_node::storage::{Generation, StateStore, StoreOptions};

use crate::workload::{self, Draws, Spread, Wallets};

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
    /// Memory for cached blocks of rows, in MiB.
    #[arg(long, default_value_t = 256)]
    cache_mib: usize,
    /// Commands a batch.
    #[arg(long, default_value_t = 100)]
    batch: usize,
}

/// Runs the gate and prints its figures.
pub fn run(options: &Options) -> anyhow::Result<()> {
    let folder = tempfile::tempdir().context("a folder for the store")?;
    let mut store_options = StoreOptions::new("layout");
    store_options.block_cache_bytes = options.cache_mib << 20;
    let state = StateStore::open(folder.path(), store_options)?;
    let rows_of_shard = state.shard(0, Generation::FIRST)?;

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
        let applied = apply_batch_cached(&rows_of_shard, &mut cache, 1, &encoder.finish(clock))?;
        rows_of_shard.write(applied.changes.iter(), b"layout")?;
    }
    rows_of_shard.flush()?;

    let (wallets, mut draws) = (Wallets::new(Spread::Uniform, options.wallets), Draws::new(1));
    let mut figures = Figures::default();
    let background_before = background_cpu()?;
    let mut key = 0u64;
    let mut short: Vec<u64> = Vec::new();
    while figures.debits < options.debits {
        let refilled = std::mem::take(&mut short);
        let mut asked = Vec::with_capacity(options.batch);
        for &wallet in &refilled {
            key += 1;
            let text = format!("refill-{key:029}");
            encoder.push(&workload::refill(workload::header(&names[wallet as usize], &text, clock)));
        }
        for _ in refilled.len()..options.batch {
            key += 1;
            let wallet = draws.wallet(&wallets);
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
        let applied = apply_batch_cached(&rows_of_shard, &mut cache, 1, &entry)?;
        let between = thread_cpu()?;
        rows_of_shard.write(applied.changes.iter(), b"layout")?;
        figures.apply += between - started;
        figures.commit += thread_cpu()? - between;
        figures.rows += applied.changes.len();
        figures.bytes +=
            applied.changes.iter().map(|(key, row)| key.len() + row.map_or(0, <[u8]>::len)).sum::<usize>();
        for (place, answer) in applied.answers.iter().enumerate() {
            match (&answer.reply, place.checked_sub(refilled.len())) {
                (Reply::Verdict { verdict: Verdict::Applied(_), .. }, None) => figures.refills += 1,
                (Reply::Verdict { verdict: Verdict::Applied(_), .. }, Some(_)) => figures.debits += 1,
                (Reply::Verdict { verdict: Verdict::Denied(_), .. }, Some(debit)) => {
                    figures.denied += 1;
                    short.push(asked[debit]);
                }
                (reply, _) => anyhow::bail!("unexpected reply: {reply:?}"),
            }
        }
        short.sort_unstable();
        short.dedup();
    }
    figures.background = background_cpu()? - background_before;
    report(&figures);
    Ok(())
}

/// CPU time of all other threads: what RocksDB flushes and compacts.
fn background_cpu() -> anyhow::Result<Duration> {
    let mut all = Duration::ZERO;
    for thread in std::fs::read_dir("/proc/self/task").context("the threads of this process")? {
        all += cpu_of(&thread?.path())?;
    }
    Ok(all - thread_cpu()?)
}

/// CPU time of this thread: what other work on the machine takes is not counted.
fn thread_cpu() -> anyhow::Result<Duration> {
    cpu_of(Path::new("/proc/thread-self"))
}

fn cpu_of(thread: &Path) -> anyhow::Result<Duration> {
    let times = std::fs::read_to_string(thread.join("schedstat")).context("the CPU time of a thread")?;
    let nanoseconds = times.split(' ').next().unwrap_or_default().parse()?;
    Ok(Duration::from_nanos(nanoseconds))
}

/// What was counted while debits were applied.
#[derive(Default)]
struct Figures {
    debits: u64,
    denied: u64,
    refills: u64,
    rows: usize,
    bytes: usize,
    apply: Duration,
    commit: Duration,
    background: Duration,
}

// A report is read by people; nothing is computed from it.
#[allow(clippy::float_arithmetic)]
fn report(figures: &Figures) {
    let Figures { debits, denied, refills, rows, bytes, apply, commit, background } = *figures;
    let each = |whole: Duration| whole.as_secs_f64() * 1e6 / debits as f64;
    println!("applied debits      {debits}");
    println!("denied, refills     {denied}, {refills}");
    println!("debits a second     {:.0}", debits as f64 / (apply + commit).as_secs_f64());
    println!("us a debit, apply   {:.2}", each(apply));
    println!("us a debit, commit  {:.2}", each(commit));
    println!("us a debit, beside  {:.2}  (flushes and compactions)", each(background));
    println!("rows a debit        {:.2}", rows as f64 / debits as f64);
    println!("bytes a debit       {:.0}  (keys and rows)", bytes as f64 / debits as f64);
}
