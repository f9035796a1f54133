//! One column family: a shard's rows in one generation. And its snapshots.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use purser_ledger::store::{Store, StoreError};
use rocksdb::{
    AsColumnFamilyRef, BoundColumnFamily, DBAccess, DBRawIteratorWithThreadMode, IngestExternalFileOptions,
    ReadOptions, SnapshotWithThreadMode, SstFileWriter,
};
use self_cell::self_cell;

use super::{Db, LEVELS, RUNS_STOP, Rocks};
use crate::storage::error::StorageError;
use crate::storage::shard::{Generation, ShardStats};

type Handle<'a> = Arc<BoundColumnFamily<'a>>;

self_cell!(
    struct OwnedHandle {
        owner: Arc<Rocks>,
        #[covariant]
        dependent: Handle,
    }
);

/// One column family, for as long as somebody needs it.
pub(in crate::storage) struct Family {
    handle: OwnedHandle,
    watermark_us: Arc<AtomicU64>,
}

impl Family {
    pub fn open(rocks: &Arc<Rocks>, shard: u16, generation: Generation) -> Result<Arc<Family>, StorageError> {
        let name = generation.family(shard);
        let gone = || StorageError::Gone(name.clone());
        let handle =
            OwnedHandle::try_new(Arc::clone(rocks), |rocks| rocks.db.cf_handle(&name).ok_or_else(gone))?;
        let watermark_us = rocks.watermark(&name);
        Ok(Arc::new(Family { handle, watermark_us }))
    }

    pub fn rocks(&self) -> &Arc<Rocks> {
        self.handle.borrow_owner()
    }

    fn db(&self) -> &Db {
        &self.rocks().db
    }

    fn column(&self) -> &impl AsColumnFamilyRef {
        self.handle.borrow_dependent()
    }

    /// Takes sorted rows in as a file of their own, past RocksDB's memtables: nothing of it is there
    /// before all of it is, and then it is on disk.
    pub fn ingest<'r>(
        &self,
        rows: &mut dyn Iterator<Item = (&'r [u8], Option<&'r [u8]>)>,
    ) -> Result<(), StorageError> {
        self.wait_for_compaction();
        let file = self.rocks().new_file();
        let taken = self.write_file(&file, rows).and_then(|()| {
            let mut options = IngestExternalFileOptions::default();
            options.set_move_files(true);
            self.db()
                .ingest_external_file_cf_opts(self.column(), &options, vec![&file])
                .map_err(StorageError::failed("taking in rows"))
        });
        if taken.is_err() {
            // What is left of it, if anything, goes at the next start at the latest.
            let _ = std::fs::remove_file(&file);
        }
        taken
    }

    /// RocksDB holds writers up where there are too many sorted runs, but not those who bring files:
    /// they merge the runs first.
    fn wait_for_compaction(&self) {
        let runs = self.runs();
        if runs >= RUNS_STOP {
            tracing::warn!(runs, "compaction is behind: rows wait for it on their way to disk");
            self.compact();
        }
    }

    /// How many sorted runs there are: each file of level 0, and each level below it that has any.
    fn runs(&self) -> u64 {
        // RocksDB tells these as text.
        let files = |level: i32| {
            let told =
                self.db().property_value_cf(self.column(), &format!("rocksdb.num-files-at-level{level}"));
            told.ok().flatten().and_then(|files| files.parse::<u64>().ok()).unwrap_or(0)
        };
        files(0) + (1..LEVELS).map(|level| files(level).min(1)).sum::<u64>()
    }

    fn number(&self, property: &str) -> u64 {
        self.db().property_int_value_cf(self.column(), property).ok().flatten().unwrap_or(0)
    }

    fn write_file<'r>(
        &self,
        file: &Path,
        rows: &mut dyn Iterator<Item = (&'r [u8], Option<&'r [u8]>)>,
    ) -> Result<(), StorageError> {
        let options = self.rocks().file_options();
        let mut writer = SstFileWriter::create(&options);
        let failed = || StorageError::failed("writing rows");
        writer.open(file).map_err(failed())?;
        for (key, row) in rows {
            match row {
                Some(row) => writer.put(key, row).map_err(failed())?,
                None => writer.delete(key).map_err(failed())?,
            }
        }
        writer.finish().map_err(failed())
    }

    pub fn settle_memos(&self, watermark_us: u64) {
        self.watermark_us.fetch_max(watermark_us, Ordering::Relaxed);
    }

    pub fn compact(&self) {
        self.db().compact_range_cf(self.column(), None::<&[u8]>, None::<&[u8]>);
    }

    pub fn stats(&self) -> ShardStats {
        ShardStats {
            file_bytes: self.number("rocksdb.total-sst-files-size"),
            rows_estimated: self.number("rocksdb.estimate-num-keys"),
            runs: self.runs(),
            ..ShardStats::default()
        }
    }

    pub fn snapshot(self: &Arc<Self>) -> Snapshot {
        Snapshot(OwnedSnapshot::new(Arc::clone(self), |family| family.db().snapshot()))
    }
}

/// Reads the newest rows.
impl Store for Family {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let row = self.db().get_pinned_cf(self.column(), key).map_err(unreadable)?;
        Ok(row.map(|row| row.to_vec()))
    }

    fn get_many(&self, keys: &[&[u8]]) -> Result<Vec<Option<Vec<u8>>>, StoreError> {
        let rows = self.db().batched_multi_get_cf(self.column(), keys.iter().copied(), false);
        rows.into_iter().map(|row| row.map(|row| row.map(|row| row.to_vec())).map_err(unreadable)).collect()
    }

    fn scan(
        &self,
        from: &[u8],
        until: &[u8],
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), StoreError> {
        forward(self.db().raw_iterator_cf_opt(self.column(), within(from, until)), from, visit)
    }

    fn scan_back(
        &self,
        from: &[u8],
        until: &[u8],
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), StoreError> {
        backward(self.db().raw_iterator_cf_opt(self.column(), within(from, until)), visit)
    }
}

type DbSnapshot<'a> = SnapshotWithThreadMode<'a, Db>;

self_cell!(
    struct OwnedSnapshot {
        owner: Arc<Family>,
        #[covariant]
        dependent: DbSnapshot,
    }
);

/// A family at one instant.
pub(in crate::storage) struct Snapshot(OwnedSnapshot);

impl Store for Snapshot {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let column = self.0.borrow_owner().column();
        let row = self.0.borrow_dependent().get_pinned_cf(column, key).map_err(unreadable)?;
        Ok(row.map(|row| row.to_vec()))
    }

    fn get_many(&self, keys: &[&[u8]]) -> Result<Vec<Option<Vec<u8>>>, StoreError> {
        let mut options = ReadOptions::default();
        options.set_snapshot(self.0.borrow_dependent());
        let family = self.0.borrow_owner();
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
        let column = self.0.borrow_owner().column();
        forward(self.0.borrow_dependent().raw_iterator_cf_opt(column, within(from, until)), from, visit)
    }

    fn scan_back(
        &self,
        from: &[u8],
        until: &[u8],
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), StoreError> {
        let column = self.0.borrow_owner().column();
        backward(self.0.borrow_dependent().raw_iterator_cf_opt(column, within(from, until)), visit)
    }
}

fn unreadable(error: rocksdb::Error) -> StoreError {
    StoreError(error.into_string())
}

/// Bounds that let RocksDB stop by itself.
fn within(from: &[u8], until: &[u8]) -> ReadOptions {
    let mut options = ReadOptions::default();
    options.set_iterate_lower_bound(from);
    options.set_iterate_upper_bound(until);
    options
}

fn forward<D: DBAccess>(
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

fn backward<D: DBAccess>(
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
