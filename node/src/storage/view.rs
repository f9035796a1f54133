//! A shard at one instant: its rows, and the applied state that they stand for.
//!
//! A view costs little to take and nothing to hold for a while; held for hours, it keeps RocksDB
//! from dropping row versions that were overwritten since.
//!
//! One exception to "at one instant": memos that expired more than an hour before the last flush may
//! vanish from a view (see `memo_filter`). They read as absent in any case.

use std::fmt;
use std::sync::Arc;

use purser_ledger::store::{Store, StoreError};
use rocksdb::{DBAccess, DBRawIteratorWithThreadMode, ReadOptions, SnapshotWithThreadMode};
use self_cell::self_cell;

use super::error::StorageError;
use super::shard::{APPLIED, Family, Generation};
use super::state::Db;

type Snapshot<'a> = SnapshotWithThreadMode<'a, Db>;

self_cell!(
    struct OwnedSnapshot {
        owner: Arc<Family>,
        #[covariant]
        dependent: Snapshot,
    }
);

/// A consistent view of one shard.
pub struct ShardView {
    snapshot: OwnedSnapshot,
}

impl fmt::Debug for ShardView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ShardView").field("shard", &self.shard()).finish_non_exhaustive()
    }
}

impl ShardView {
    pub(super) fn new(family: Arc<Family>) -> ShardView {
        ShardView { snapshot: OwnedSnapshot::new(family, |family| family.db().snapshot()) }
    }

    fn family(&self) -> &Family {
        self.snapshot.borrow_owner()
    }

    /// Which shard.
    pub fn shard(&self) -> u16 {
        self.family().shard
    }

    /// Which generation of it.
    pub fn generation(&self) -> Generation {
        self.family().generation
    }

    /// The applied state that these rows stand for, if anything was ever written.
    pub fn applied(&self) -> Result<Option<Vec<u8>>, StorageError> {
        self.snapshot
            .borrow_dependent()
            .get_cf(self.family().column(), APPLIED)
            .map_err(StorageError::failed("reading the applied state"))
    }

    /// Visits all rows in order, without the applied state, until `visit` returns `false`.
    pub fn rows(&self, visit: &mut dyn FnMut(&[u8], &[u8]) -> bool) -> Result<(), StoreError> {
        // Every table of the ledger begins with a byte above 0 and below 255.
        self.scan(&[1], &[u8::MAX], visit)
    }
}

impl Store for ShardView {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let row = self
            .snapshot
            .borrow_dependent()
            .get_pinned_cf(self.family().column(), key)
            .map_err(unreadable)?;
        Ok(row.map(|row| row.to_vec()))
    }

    fn get_many(&self, keys: &[&[u8]]) -> Result<Vec<Option<Vec<u8>>>, StoreError> {
        let mut options = ReadOptions::default();
        options.set_snapshot(self.snapshot.borrow_dependent());
        let family = self.family();
        let rows =
            family.db().batched_multi_get_cf_opt(family.column(), keys.iter().copied(), false, &options);
        rows.into_iter().map(|row| row.map(|row| row.map(|row| row.to_vec())).map_err(unreadable)).collect()
    }

    fn scan(
        &self,
        from: &[u8],
        until: &[u8],
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), StoreError> {
        let snapshot = self.snapshot.borrow_dependent();
        forward(snapshot.raw_iterator_cf_opt(self.family().column(), within(from, until)), from, visit)
    }

    fn scan_back(
        &self,
        from: &[u8],
        until: &[u8],
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), StoreError> {
        let snapshot = self.snapshot.borrow_dependent();
        backward(snapshot.raw_iterator_cf_opt(self.family().column(), within(from, until)), visit)
    }
}

pub(super) fn unreadable(error: rocksdb::Error) -> StoreError {
    StoreError(error.into_string())
}

/// Bounds that let RocksDB stop by itself.
pub(super) fn within(from: &[u8], until: &[u8]) -> ReadOptions {
    let mut options = ReadOptions::default();
    options.set_iterate_lower_bound(from);
    options.set_iterate_upper_bound(until);
    options
}

pub(super) fn forward<D: DBAccess>(
    mut rows: DBRawIteratorWithThreadMode<'_, D>,
    from: &[u8],
    visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
) -> Result<(), StoreError> {
    rows.seek(from);
    while let Some((key, row)) = rows.item() {
        if !visit(key, row) {
            return Ok(());
        }
        rows.next();
    }
    rows.status().map_err(unreadable)
}

pub(super) fn backward<D: DBAccess>(
    mut rows: DBRawIteratorWithThreadMode<'_, D>,
    visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
) -> Result<(), StoreError> {
    rows.seek_to_last();
    while let Some((key, row)) = rows.item() {
        if !visit(key, row) {
            return Ok(());
        }
        rows.prev();
    }
    rows.status().map_err(unreadable)
}
