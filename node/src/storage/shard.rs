//! One shard's rows, in the generation that is the valid one, and the next generation while it is
//! being filled.
//!
//! Invariants:
//! - `write` is atomic: all changes and the applied state, or nothing.
//! - What was written before `flush` was called is on disk when it returns.
//! - Rows never begin with byte 0: that table is the applied state's.
//! - A generation that is being filled is nobody's until it was flushed and switched to.

use std::fmt;
use std::sync::{Arc, RwLock};

use purser_ledger::store::{Store, StoreError};

use super::buffer::{Buffer, BufferView, Mark};
use super::error::StorageError;
use super::memos::MARGIN_US;
use super::state::StateStore;
use super::view::ShardView;

use crate::simulation::{self, Bug};

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

    /// The name of its family.
    pub(super) fn family(self, shard: u16) -> String {
        format!("shard-{shard:04}.g{}", self.0)
    }

    /// The shard and generation that a family's name stands for, if it is one.
    pub(super) fn parse(family: &str) -> Option<(u16, Generation)> {
        let (shard, generation) = family.strip_prefix("shard-")?.split_once(".g")?;
        Some((shard.parse().ok()?, Generation(generation.parse().ok()?)))
    }
}

/// What the rows of a shard stand for, if anything was ever written.
pub(super) fn applied(rows: &impl Store) -> Result<Option<Vec<u8>>, StorageError> {
    let failed = |StoreError(reason)| StorageError::Failed { doing: "reading the applied state", reason };
    rows.get(APPLIED).map_err(failed)
}

/// Numbers for the metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ShardStats {
    /// Bytes of its rows that are not on disk yet.
    pub buffer_bytes: u64,
    /// Bytes of its files.
    pub file_bytes: u64,
    /// Its sorted runs on disk: a look-up asks all of them.
    pub runs: u64,
    /// RocksDB's estimate of how many rows there are.
    pub rows_estimated: u64,
    /// Flushes that somebody waited for.
    pub flushes: u64,
}

/// The rows of one shard. Cheap to clone; all clones see the same generation.
#[derive(Clone)]
pub struct ShardStore {
    shard: u16,
    state: StateStore,
    current: Arc<RwLock<Current>>,
}

/// The generation in use.
#[derive(Clone)]
struct Current {
    generation: Generation,
    rows: Arc<Buffer>,
}

impl fmt::Debug for ShardStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let family = self.generation().family(self.shard);
        f.debug_struct("ShardStore").field("family", &family).finish_non_exhaustive()
    }
}

impl ShardStore {
    pub(super) fn new(
        state: StateStore,
        shard: u16,
        generation: Generation,
        rows: Arc<Buffer>,
    ) -> ShardStore {
        ShardStore { shard, state, current: Arc::new(RwLock::new(Current { generation, rows })) }
    }

    fn current(&self) -> Current {
        self.current.read().unwrap_or_else(|poisoned| poisoned.into_inner()).clone()
    }

    fn rows(&self) -> Arc<Buffer> {
        self.current().rows
    }

    /// Which shard.
    pub fn shard(&self) -> u16 {
        self.shard
    }

    /// The generation in use.
    pub fn generation(&self) -> Generation {
        self.current().generation
    }

    /// Writes the changes of an entry and the applied state, all or nothing. In memory only, until
    /// the next flush. Fails only where rows of before have to get to disk first and cannot.
    pub fn write<'c>(
        &self,
        changes: impl IntoIterator<Item = (&'c [u8], Option<&'c [u8]>)>,
        applied: &[u8],
    ) -> Result<(), StorageError> {
        let changes = changes.into_iter().inspect(|(key, _)| {
            assert!(key.first().is_some_and(|table| *table != 0), "a row's key begins with its table");
        });
        if simulation::has(Bug::AppliedApartFromRows) {
            self.rows().write([], Some(applied))?;
            return self.rows().write(changes, None);
        }
        self.rows().write(changes, Some(applied))
    }

    /// Sees to it that the next write finds room: where too many rows wait for the disk, brings the
    /// oldest there. Blocks.
    pub fn make_room(&self) -> Result<(), StorageError> {
        self.rows().make_room()
    }

    /// The applied state of the newest write, if there was one.
    pub fn applied(&self) -> Result<Option<Vec<u8>>, StorageError> {
        applied(&*self.rows())
    }

    /// Brings everything that was written before the call to disk, and waits for it. Blocks.
    pub fn flush(&self) -> Result<(), StorageError> {
        self.rows().flush()
    }

    /// Marks this moment between two writes, for [`ShardStore::flush_to`].
    pub fn mark(&self) -> ShardMark {
        let Current { generation, rows } = self.current();
        ShardMark { generation, mark: rows.mark(), rows }
    }

    /// Brings everything that was written before a mark to disk, and shows just that. Blocks. Such a
    /// view holds nothing in memory.
    pub fn flush_to(&self, mark: &ShardMark) -> Result<ShardView, StorageError> {
        let rows = mark.rows.flush_to(&mark.mark)?;
        Ok(ShardView::new(self.shard, mark.generation, BufferView::durable(rows)))
    }

    /// Says that everything up to this ledger time has been flushed: memos that expired an hour
    /// before may go. It never moves back.
    pub fn settle_memos(&self, flushed_time_us: u64) {
        self.rows().family().settle_memos(flushed_time_us.saturating_sub(MARGIN_US));
    }

    /// Compacts all rows now. Blocks. For tests and for the operator; RocksDB does it by itself.
    pub fn compact(&self) {
        self.rows().compact();
    }

    /// A view of the rows and the applied state at this instant.
    pub fn view(&self) -> ShardView {
        let Current { generation, rows } = self.current();
        ShardView::new(self.shard, generation, rows.view())
    }

    /// Begins the generation after this one, empty, leaving this one as it is.
    pub fn next_generation(&self) -> Result<NewGeneration, StorageError> {
        let generation = Generation(self.generation().0 + 1);
        // An earlier install may have been given up.
        self.state.remove(self.shard, generation)?;
        let rows = self.state.create(self.shard, generation)?;
        Ok(NewGeneration { generation, rows, filled: Vec::new(), bytes: 0 })
    }

    /// Makes a filled and flushed generation the valid one, and drops the one before it. The caller
    /// has recorded the new one durably: from then on it is the one that a restart opens.
    pub fn switch_to(&self, filled: NewGeneration) -> Result<(), StorageError> {
        let old = {
            let mut current = self.current.write().unwrap_or_else(|poisoned| poisoned.into_inner());
            std::mem::replace(&mut *current, Current { generation: filled.generation, rows: filled.rows })
        };
        self.state.remove(self.shard, old.generation)
    }

    /// Numbers for the metrics.
    pub fn stats(&self) -> ShardStats {
        self.rows().stats()
    }
}

/// Reads the newest rows: what apply uses, being the only one that writes.
impl Store for ShardStore {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.rows().get(key)
    }

    fn get_many(&self, keys: &[&[u8]]) -> Result<Vec<Option<Vec<u8>>>, StoreError> {
        self.rows().get_many(keys)
    }

    fn scan(
        &self,
        from: &[u8],
        until: &[u8],
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), StoreError> {
        self.rows().scan(from, until, visit)
    }

    fn scan_back(
        &self,
        from: &[u8],
        until: &[u8],
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), StoreError> {
        self.rows().scan_back(from, until, visit)
    }
}

/// A generation while it is being filled. Given up by dropping it: the next attempt, or the next
/// start, removes what it holds.
pub struct NewGeneration {
    generation: Generation,
    rows: Arc<Buffer>,
    /// Rows on their way, and their bytes.
    filled: Vec<(Vec<u8>, Vec<u8>)>,
    bytes: usize,
}

impl fmt::Debug for NewGeneration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewGeneration").field("generation", &self.generation).finish_non_exhaustive()
    }
}

impl NewGeneration {
    /// Its number.
    pub fn generation(&self) -> Generation {
        self.generation
    }

    /// Adds a row.
    pub fn put(&mut self, key: &[u8], row: &[u8]) -> Result<(), StorageError> {
        self.bytes += key.len() + row.len();
        self.filled.push((key.to_vec(), row.to_vec()));
        if self.bytes < FILL_BYTES { Ok(()) } else { self.write(None) }
    }

    /// Adds the applied state and brings everything to disk. Blocks.
    pub fn finish(&mut self, applied: &[u8]) -> Result<(), StorageError> {
        self.write(Some(applied))?;
        if simulation::has(Bug::SnapshotUsedBeforeFlush) {
            return Ok(());
        }
        self.rows.flush()
    }

    fn write(&mut self, applied: Option<&[u8]>) -> Result<(), StorageError> {
        self.bytes = 0;
        let filled = std::mem::take(&mut self.filled);
        self.rows.write(filled.iter().map(|(key, row)| (&key[..], Some(&row[..]))), applied)
    }
}

/// A moment between two writes of a shard.
pub struct ShardMark {
    generation: Generation,
    rows: Arc<Buffer>,
    mark: Mark,
}

impl fmt::Debug for ShardMark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ShardMark").field("generation", &self.generation).finish_non_exhaustive()
    }
}
