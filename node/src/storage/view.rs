//! A shard at one instant: its rows, and the applied state that they stand for.
//!
//! A view costs little to take and to hold for a while. Held for long, it keeps rows in memory that
//! are on disk by now; only one that was taken by a flush (`ShardStore::flush_to`) does not. Either
//! keeps RocksDB from dropping row versions that were overwritten since.
//!
//! One exception to "at one instant": memos that expired more than an hour before the last flush may
//! vanish from a view (see `memos`). They read as absent in any case.

use std::fmt;

use purser_ledger::store::{Store, StoreError};

use super::buffer::BufferView;
use super::error::StorageError;
use super::shard::{Generation, applied};

/// A consistent view of one shard.
pub struct ShardView {
    shard: u16,
    generation: Generation,
    rows: BufferView,
}

impl fmt::Debug for ShardView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ShardView").field("shard", &self.shard).finish_non_exhaustive()
    }
}

impl ShardView {
    pub(super) fn new(shard: u16, generation: Generation, rows: BufferView) -> ShardView {
        ShardView { shard, generation, rows }
    }

    /// Which shard.
    pub fn shard(&self) -> u16 {
        self.shard
    }

    /// Which generation of it.
    pub fn generation(&self) -> Generation {
        self.generation
    }

    /// The applied state that these rows stand for, if anything was ever written.
    pub fn applied(&self) -> Result<Option<Vec<u8>>, StorageError> {
        applied(&self.rows)
    }

    /// Visits all rows in order, without the applied state, until `visit` returns `false`.
    pub fn rows(&self, visit: &mut dyn FnMut(&[u8], &[u8]) -> bool) -> Result<(), StoreError> {
        // Every table of the ledger begins with a byte above 0 and below 255.
        self.scan(&[1], &[u8::MAX], visit)
    }
}

impl Store for ShardView {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.rows.get(key)
    }

    fn get_many(&self, keys: &[&[u8]]) -> Result<Vec<Option<Vec<u8>>>, StoreError> {
        self.rows.get_many(keys)
    }

    fn scan(
        &self,
        from: &[u8],
        until: &[u8],
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), StoreError> {
        self.rows.scan(from, until, visit)
    }

    fn scan_back(
        &self,
        from: &[u8],
        until: &[u8],
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), StoreError> {
        self.rows.scan_back(from, until, visit)
    }
}
