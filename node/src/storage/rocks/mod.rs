//! The engine of production: the one RocksDB of a node, and how it is set up.
//!
//! Invariants:
//! - One block cache for all shards.
//! - Every column family but RocksDB's own `default` (empty) is a generation of a shard.
//! - Rows come in as sorted files (`Family::ingest`), never through RocksDB's own memtables or
//!   write-ahead log.
//! - No snapshot is taken at sequence number 0 (`leave_zero`).

mod family;
mod identity;
mod memo_filter;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use rocksdb::{
    BlockBasedOptions, Cache, ColumnFamilyDescriptor, DBCompactionStyle, DBCompressionType, DBWithThreadMode,
    DataBlockIndexType, MultiThreaded, Options, WriteOptions,
};

use identity::ROWS;
use memo_filter::MemoFilters;

use super::error::{OpenError, StorageError};
use super::options::StoreOptions;
use super::shard::Generation;
use super::state::StoreStats;

pub(super) use family::{Family, Snapshot};

type Db = DBWithThreadMode<MultiThreaded>;

/// About 1 % of the lookups of absent keys read a block in vain.
const BLOOM_BITS_PER_KEY: f64 = 10.0;
/// A block holds some twenty rows: small, for rows are read one by one.
const BLOCK_BYTES: usize = 4 * 1024;
/// RocksDB's own memtables stay empty.
const MEMTABLE_BYTES: usize = 64 * 1024;
/// How files are named that wait to be taken in.
const INCOMING: &str = "incoming-";
/// What RocksDB logs about itself, per file and in files.
const INFO_LOG_BYTES_MAX: usize = 8 * 1024 * 1024;
const INFO_LOGS_MAX: usize = 4;
/// Sorted runs of one shard before some are merged. Most rows are written once and never again, so that
/// rewriting them level by level costs as much as applying: with universal compaction flushes and
/// compactions took 3.3 us of CPU a debit instead of 8.2, and space twice what is live in between.
const RUNS_MAX: i32 = 8;
/// RocksDB's default.
const LEVELS: i32 = 7;
/// With so many, new rows wait until they are merged: each look-up asks all of them.
const RUNS_STOP: u64 = 32;
/// Files are pushed to the disk bit by bit, not all at their end.
const BYTES_PER_SYNC: u64 = 1024 * 1024;

/// What shards share: the database, and the counters beside it.
pub(super) struct Rocks {
    // Fields are dropped in this order: the database before the lock on its directory.
    db: Db,
    options: StoreOptions,
    cache: Cache,
    /// The families that are there, each with the ledger time (microseconds) below which its memos
    /// are dropped.
    families: Families,
    files: AtomicU64,
    _lock: File,
}

type Families = Mutex<BTreeMap<String, Arc<AtomicU64>>>;

impl Rocks {
    /// Opens what is in a directory, or makes it anew where there is nothing.
    pub fn open(directory: &Path, options: StoreOptions) -> Result<Arc<Rocks>, OpenError> {
        options.check()?;
        let lock = identity::claim(directory, &options.identity)?;
        let rows = directory.join(ROWS);

        let cache = Cache::new_lru_cache(options.block_cache_bytes);
        let database = database_options(&options);
        remove_incoming(&rows).map_err(OpenError::io("removing files of an earlier start"))?;
        let is_there = rows.join("CURRENT").exists();
        let families = match is_there {
            true => Db::list_cf(&database, &rows).map_err(|error| OpenError::Damaged(error.into_string()))?,
            false => vec!["default".to_owned()],
        };
        let families: BTreeMap<String, Arc<AtomicU64>> =
            families.into_iter().map(|name| (name, Arc::default())).collect();
        let descriptors = families.iter().map(|(name, watermark)| {
            ColumnFamilyDescriptor::new(name, family_options(&options, &cache, Arc::clone(watermark)))
        });
        let db = Db::open_cf_descriptors(&database, &rows, descriptors)
            .map_err(|error| OpenError::Damaged(error.into_string()))?;
        leave_zero(&db)?;
        let (families, files) = (Mutex::new(families), AtomicU64::new(0));
        Ok(Arc::new(Rocks { db, options, cache, families, files, _lock: lock }))
    }

    fn families(&self) -> MutexGuard<'_, BTreeMap<String, Arc<AtomicU64>>> {
        self.families.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// The watermark of a family; the same one for everybody who asks.
    fn watermark(&self, family: &str) -> Arc<AtomicU64> {
        Arc::clone(self.families().entry(family.to_owned()).or_default())
    }

    /// The generations of a shard that are there.
    pub fn generations(&self, shard: u16) -> Vec<Generation> {
        let families = self.families();
        let generations = families.keys().filter_map(|name| Generation::parse(name));
        generations.filter(|(of, _)| *of == shard).map(|(_, generation)| generation).collect()
    }

    /// Makes a family, empty.
    pub fn create(&self, shard: u16, generation: Generation) -> Result<(), StorageError> {
        let family = generation.family(shard);
        let watermark = self.watermark(&family);
        self.db
            .create_cf(&family, &family_options(&self.options, &self.cache, watermark))
            .map_err(StorageError::failed("creating a column family"))
    }

    /// Drops a family, if it is there. Those who hold it can still read it.
    pub fn remove(&self, shard: u16, generation: Generation) -> Result<(), StorageError> {
        let family = generation.family(shard);
        match self.families().remove(&family) {
            Some(_) => self.db.drop_cf(&family).map_err(StorageError::failed("dropping a column family")),
            None => Ok(()),
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.db.path()
    }

    pub fn stats(&self) -> StoreStats {
        StoreStats { block_cache_bytes: self.cache.get_usage() as u64, ..StoreStats::default() }
    }

    /// The path of a file that rows are written to before they are taken in.
    fn new_file(&self) -> PathBuf {
        self.path().join(format!("{INCOMING}{}.sst", self.files.fetch_add(1, Ordering::Relaxed)))
    }

    /// How such a file is written: as those of the families are.
    fn file_options(&self) -> Options {
        let mut options = family_options(&self.options, &self.cache, Arc::default());
        options.set_bytes_per_sync(BYTES_PER_SYNC);
        options
    }
}

/// Has the database count a write, where it has counted none.
///
/// RocksDB's compactions take a snapshot at number 0 for none at all: one that sees a row's deletion drops
/// what the snapshot sees of it. Rows that were written have higher numbers, but a file that is taken in
/// gets number 0 where nothing there overlaps with it.
fn leave_zero(db: &Db) -> Result<(), OpenError> {
    if db.latest_sequence_number() > 0 {
        return Ok(());
    }
    let mut options = WriteOptions::default();
    // Lost in a crash, it is written again.
    options.disable_wal(true);
    db.delete_opt(b"", &options).map_err(|error| OpenError::Damaged(error.into_string()))
}

/// Removes what was not taken in before the process ended.
fn remove_incoming(rows: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(rows) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(INCOMING) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

fn database_options(options: &StoreOptions) -> Options {
    let mut database = Options::default();
    database.create_if_missing(true);
    database.set_paranoid_checks(true);
    database.set_max_background_jobs(options.background_jobs);
    database.set_bytes_per_sync(BYTES_PER_SYNC);
    database.set_keep_log_file_num(INFO_LOGS_MAX);
    database.set_max_log_file_size(INFO_LOG_BYTES_MAX);
    // Periodic work of RocksDB itself: nobody reads it, and the simulation must not have it.
    database.set_stats_dump_period_sec(0);
    database.set_stats_persist_period_sec(0);
    database
}

fn family_options(options: &StoreOptions, cache: &Cache, watermark_us: Arc<AtomicU64>) -> Options {
    let mut blocks = BlockBasedOptions::default();
    blocks.set_block_cache(cache);
    blocks.set_block_size(BLOCK_BYTES);
    blocks.set_bloom_filter(BLOOM_BITS_PER_KEY, false);
    blocks.set_whole_key_filtering(true);
    // Index and filter blocks count against the cache: memory stays within what was configured.
    blocks.set_cache_index_and_filter_blocks(true);
    blocks.set_pin_l0_filter_and_index_blocks_in_cache(true);
    blocks.set_data_block_index_type(DataBlockIndexType::BinaryAndHash);

    let mut family = Options::default();
    family.set_block_based_table_factory(&blocks);
    family.set_compression_type(DBCompressionType::Lz4);
    family.set_write_buffer_size(MEMTABLE_BYTES);
    family.set_compaction_style(DBCompactionStyle::Universal);
    family.set_num_levels(LEVELS);
    family.set_level_zero_file_num_compaction_trigger(RUNS_MAX);
    family.set_disable_auto_compactions(!options.compacts_by_itself);
    family.set_paranoid_checks(true);
    // A factory, for RocksDB owns it: a filter set by itself would have to outlive the database, and
    // that of a family created later would not.
    family.set_compaction_filter_factory(MemoFilters { watermark_us });
    family
}
