//! One shard's rows, in the generation that is the valid one, and the next generation while it is
//! being filled.
//!
//! Invariants:
//! - `write` is atomic: all changes and the applied state, or nothing.
//! - What was written before `flush` was called is on disk when it returns.
//! - Rows never begin with byte 0: that table is the applied state's.
//! - A generation that is being filled is nobody's until it was flushed and switched to.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, RwLock};

use purser_ledger::store::{Store, StoreError};
use rocksdb::{AsColumnFamilyRef, BoundColumnFamily, FlushOptions, WriteBatch, WriteOptions};
use self_cell::self_cell;

use super::error::StorageError;
use super::memo_filter::MARGIN_US;
use super::state::{Db, Engine};
use super::view::{self, ShardView};

/// The key of the applied state, before every table of the ledger.
pub(super) const APPLIED: &[u8] = b"\0applied";
/// Rows are put into a new generation in batches of about this size.
const FILL_BYTES: usize = 1024 * 1024;

/// Which filling of a shard's rows: 1 for the first, one more for each snapshot installed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Generation(pub u64);

impl Generation {
    /// The one that a new shard begins with.
    pub const FIRST: Generation = Generation(1);

    /// The name of its column family.
    pub(super) fn family(self, shard: u16) -> String {
        format!("shard-{shard:04}.g{}", self.0)
    }

    /// The shard and generation that a family's name stands for, if it is one.
    pub(super) fn parse(family: &str) -> Option<(u16, Generation)> {
        let (shard, generation) = family.strip_prefix("shard-")?.split_once(".g")?;
        Some((shard.parse().ok()?, Generation(generation.parse().ok()?)))
    }
}

type Handle<'a> = Arc<BoundColumnFamily<'a>>;

self_cell!(
    struct OwnedHandle {
        owner: Arc<Engine>,
        #[covariant]
        dependent: Handle,
    }
);

/// One column family, for as long as somebody needs it.
pub(super) struct Family {
    handle: OwnedHandle,
    pub shard: u16,
    pub generation: Generation,
    watermark_us: Arc<AtomicU64>,
    flushes: AtomicU64,
}

impl Family {
    pub fn open(
        engine: &Arc<Engine>,
        shard: u16,
        generation: Generation,
    ) -> Result<Arc<Family>, StorageError> {
        let name = generation.family(shard);
        let gone = || StorageError::Gone(name.clone());
        let handle =
            OwnedHandle::try_new(Arc::clone(engine), |engine| engine.db.cf_handle(&name).ok_or_else(gone))?;
        let watermark_us = engine.watermark(&name);
        Ok(Arc::new(Family { handle, shard, generation, watermark_us, flushes: AtomicU64::new(0) }))
    }

    pub fn create(
        engine: &Arc<Engine>,
        shard: u16,
        generation: Generation,
    ) -> Result<Arc<Family>, StorageError> {
        let name = generation.family(shard);
        engine.create_family(&name)?;
        Family::open(engine, shard, generation)
    }

    pub fn engine(&self) -> &Arc<Engine> {
        self.handle.borrow_owner()
    }

    pub fn db(&self) -> &Db {
        &self.engine().db
    }

    pub fn column(&self) -> &impl AsColumnFamilyRef {
        self.handle.borrow_dependent()
    }

    fn commit(&self, batch: WriteBatch) -> Result<(), StorageError> {
        let mut options = WriteOptions::default();
        options.disable_wal(true);
        self.db().write_opt(batch, &options).map_err(StorageError::failed("writing rows"))
    }

    fn flush(&self) -> Result<(), StorageError> {
        let mut options = FlushOptions::default();
        options.set_wait(true);
        self.db().flush_cf_opt(self.column(), &options).map_err(StorageError::failed("flushing rows"))?;
        self.flushes.fetch_add(1, Ordering::Relaxed);
        self.engine().flushes.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

/// Numbers for the metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ShardStats {
    /// Bytes of its memtables.
    pub memtable_bytes: u64,
    /// Bytes of its files.
    pub file_bytes: u64,
    /// RocksDB's estimate of how many rows there are.
    pub rows_estimated: u64,
    /// Flushes that somebody waited for.
    pub flushes: u64,
}

/// The rows of one shard. Cheap to clone; all clones see the same generation.
#[derive(Clone)]
pub struct ShardStore {
    shard: u16,
    current: Arc<RwLock<Arc<Family>>>,
}

impl fmt::Debug for ShardStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let family = self.family();
        f.debug_struct("ShardStore")
            .field("family", &family.generation.family(self.shard))
            .finish_non_exhaustive()
    }
}

impl ShardStore {
    pub(super) fn new(shard: u16, family: Arc<Family>) -> ShardStore {
        ShardStore { shard, current: Arc::new(RwLock::new(family)) }
    }

    fn family(&self) -> Arc<Family> {
        Arc::clone(&self.current.read().unwrap_or_else(|poisoned| poisoned.into_inner()))
    }

    /// Which shard.
    pub fn shard(&self) -> u16 {
        self.shard
    }

    /// The generation in use.
    pub fn generation(&self) -> Generation {
        self.family().generation
    }

    /// Writes the changes of an entry and the applied state, all or nothing. In memory only, until
    /// the next flush.
    pub fn write<'c>(
        &self,
        changes: impl IntoIterator<Item = (&'c [u8], Option<&'c [u8]>)>,
        applied: &[u8],
    ) -> Result<(), StorageError> {
        let family = self.family();
        let mut batch = WriteBatch::default();
        for (key, row) in changes {
            assert!(key.first().is_some_and(|table| *table != 0), "a row's key begins with its table");
            match row {
                Some(row) => batch.put_cf(family.column(), key, row),
                None => batch.delete_cf(family.column(), key),
            }
        }
        batch.put_cf(family.column(), APPLIED, applied);
        family.commit(batch)
    }

    /// The applied state of the newest write, if there was one.
    pub fn applied(&self) -> Result<Option<Vec<u8>>, StorageError> {
        let family = self.family();
        family
            .db()
            .get_cf(family.column(), APPLIED)
            .map_err(StorageError::failed("reading the applied state"))
    }

    /// Brings everything that was written before the call to disk, and waits for it. Blocks.
    pub fn flush(&self) -> Result<(), StorageError> {
        self.family().flush()
    }

    /// Says that everything up to this ledger time has been flushed: memos that expired an hour
    /// before may go. It never moves back.
    pub fn settle_memos(&self, flushed_time_us: u64) {
        let watermark_us = flushed_time_us.saturating_sub(MARGIN_US);
        self.family().watermark_us.fetch_max(watermark_us, Ordering::Relaxed);
    }

    /// Compacts all rows now. Blocks. For tests and for the operator; RocksDB does it by itself.
    pub fn compact(&self) {
        let family = self.family();
        family.db().compact_range_cf(family.column(), None::<&[u8]>, None::<&[u8]>);
    }

    /// A view of the rows and the applied state at this instant.
    pub fn view(&self) -> ShardView {
        ShardView::new(self.family())
    }

    /// Begins the generation after this one, empty, leaving this one as it is.
    pub fn next_generation(&self) -> Result<NewGeneration, StorageError> {
        let family = self.family();
        let generation = Generation(family.generation.0 + 1);
        // An earlier install may have been given up.
        family.engine().drop_family(&generation.family(self.shard))?;
        let next = Family::create(family.engine(), self.shard, generation)?;
        Ok(NewGeneration { family: next, batch: WriteBatch::default() })
    }

    /// Makes a filled and flushed generation the valid one, and drops the one before it. The caller
    /// has recorded the new one durably: from then on it is the one that a restart opens.
    pub fn switch_to(&self, filled: NewGeneration) -> Result<(), StorageError> {
        let old = {
            let mut current = self.current.write().unwrap_or_else(|poisoned| poisoned.into_inner());
            std::mem::replace(&mut *current, filled.family)
        };
        old.engine().drop_family(&old.generation.family(self.shard))
    }

    /// Numbers for the metrics.
    pub fn stats(&self) -> ShardStats {
        let family = self.family();
        let number =
            |name| family.db().property_int_value_cf(family.column(), name).ok().flatten().unwrap_or(0);
        ShardStats {
            memtable_bytes: number("rocksdb.cur-size-all-mem-tables"),
            file_bytes: number("rocksdb.total-sst-files-size"),
            rows_estimated: number("rocksdb.estimate-num-keys"),
            flushes: family.flushes.load(Ordering::Relaxed),
        }
    }
}

/// Reads the newest rows: what apply uses, being the only one that writes.
impl Store for ShardStore {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let family = self.family();
        let row = family.db().get_pinned_cf(family.column(), key).map_err(view::unreadable)?;
        Ok(row.map(|row| row.to_vec()))
    }

    fn get_many(&self, keys: &[&[u8]]) -> Result<Vec<Option<Vec<u8>>>, StoreError> {
        let family = self.family();
        let rows = family.db().batched_multi_get_cf(family.column(), keys.iter().copied(), false);
        rows.into_iter()
            .map(|row| row.map(|row| row.map(|row| row.to_vec())).map_err(view::unreadable))
            .collect()
    }

    fn scan(
        &self,
        from: &[u8],
        until: &[u8],
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), StoreError> {
        let family = self.family();
        let rows = family.db().raw_iterator_cf_opt(family.column(), view::within(from, until));
        view::forward(rows, from, visit)
    }

    fn scan_back(
        &self,
        from: &[u8],
        until: &[u8],
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), StoreError> {
        let family = self.family();
        let rows = family.db().raw_iterator_cf_opt(family.column(), view::within(from, until));
        view::backward(rows, visit)
    }
}

/// A generation while it is being filled. Given up by dropping it: the next attempt, or the next
/// start, removes what it holds.
pub struct NewGeneration {
    family: Arc<Family>,
    batch: WriteBatch,
}

impl fmt::Debug for NewGeneration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewGeneration").field("generation", &self.family.generation).finish_non_exhaustive()
    }
}

impl NewGeneration {
    /// Its number.
    pub fn generation(&self) -> Generation {
        self.family.generation
    }

    /// Adds a row.
    pub fn put(&mut self, key: &[u8], row: &[u8]) -> Result<(), StorageError> {
        self.batch.put_cf(self.family.column(), key, row);
        if self.batch.size_in_bytes() < FILL_BYTES {
            return Ok(());
        }
        self.family.commit(std::mem::take(&mut self.batch))
    }

    /// Adds the applied state and brings everything to disk. Blocks.
    pub fn finish(&mut self, applied: &[u8]) -> Result<(), StorageError> {
        self.batch.put_cf(self.family.column(), APPLIED, applied);
        self.family.commit(std::mem::take(&mut self.batch))?;
        self.family.flush()
    }
}
