//! The engine of the simulation and of tests: rows in ordered maps, and an image of what is on disk.
//!
//! A map is shared by all that look at it: taking a snapshot and flushing share it as it is, and the
//! next write copies it. Faults that an image has:
//! - a crash takes every family back to its last flush ([`MemoryImage::crash`]);
//! - families flush by themselves after a number of writes ([`MemoryImage::flush_after`]);
//! - the disk is full ([`MemoryImage::set_full`]).

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::ops::Bound;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, RwLock};

use bytes::Bytes;
use purser_ledger::store::{Store, StoreError};

use super::error::{OpenError, StorageError};
use super::memos::is_expired_memo;
use super::shard::{APPLIED, Generation, ShardStats};
use super::state::StoreStats;

type Rows = BTreeMap<Bytes, Bytes>;
type Place = (u16, Generation);

/// What a store in memory has on disk. Clones share it.
#[derive(Clone, Default)]
pub struct MemoryImage {
    disk: Arc<Mutex<ImageDisk>>,
}

#[derive(Default)]
struct ImageDisk {
    families: BTreeMap<Place, Arc<Rows>>,
    in_use: bool,
    off: bool,
    full: bool,
    flush_after_writes: Option<u64>,
}

impl fmt::Debug for MemoryImage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryImage").field("families", &self.disk().families.len()).finish_non_exhaustive()
    }
}

impl MemoryImage {
    /// An empty disk.
    pub fn new() -> MemoryImage {
        MemoryImage::default()
    }

    fn disk(&self) -> MutexGuard<'_, ImageDisk> {
        self.disk.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Cuts the power. Returns what is there when it comes back; this one is off for ever, and the
    /// store that has it open flushes nothing any more.
    pub fn crash(&self) -> MemoryImage {
        self.disk().off = true;
        self.duplicate()
    }

    /// A copy of what is on disk now.
    pub fn duplicate(&self) -> MemoryImage {
        let copy = ImageDisk { families: self.disk().families.clone(), ..ImageDisk::default() };
        MemoryImage { disk: Arc::new(Mutex::new(copy)) }
    }

    /// Has each family flush by itself after so many writes, as a full memtable does; `None` never.
    pub fn flush_after(&self, writes: Option<u64>) {
        self.disk().flush_after_writes = writes;
    }

    /// While the disk is full, writes and flushes fail with `NoSpace`, and change nothing.
    pub fn set_full(&self, full: bool) {
        self.disk().full = full;
    }
}

impl ImageDisk {
    fn check(&self, doing: &'static str) -> Result<(), StorageError> {
        match (self.off, self.full) {
            (true, _) => Err(StorageError::Failed { doing, reason: "the power is off".to_owned() }),
            (false, true) => Err(StorageError::NoSpace { doing }),
            (false, false) => Ok(()),
        }
    }
}

/// All families of a node, over an image.
pub(super) struct Memory {
    image: MemoryImage,
    tables: Mutex<BTreeMap<Place, Arc<Table>>>,
    flushes: AtomicU64,
}

/// The newest rows of one family.
#[derive(Default)]
struct Table {
    rows: RwLock<Arc<Rows>>,
    watermark_us: AtomicU64,
    unflushed_writes: AtomicU64,
    flushes: AtomicU64,
}

impl Drop for Memory {
    fn drop(&mut self) {
        self.image.disk().in_use = false;
    }
}

impl Memory {
    pub fn open(image: MemoryImage) -> Result<Arc<Memory>, OpenError> {
        let mut disk = image.disk();
        if disk.off {
            return Err(OpenError::io("opening the image")(io::Error::other("the power is off")));
        }
        if std::mem::replace(&mut disk.in_use, true) {
            return Err(OpenError::InUse);
        }
        let table =
            |rows: &Arc<Rows>| Arc::new(Table { rows: RwLock::new(Arc::clone(rows)), ..Table::default() });
        let tables = disk.families.iter().map(|(place, rows)| (*place, table(rows))).collect();
        drop(disk);
        Ok(Arc::new(Memory { image, tables: Mutex::new(tables), flushes: AtomicU64::new(0) }))
    }

    fn tables(&self) -> MutexGuard<'_, BTreeMap<Place, Arc<Table>>> {
        self.tables.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    pub fn generations(&self, shard: u16) -> Vec<Generation> {
        let tables = self.tables();
        tables.keys().filter(|(of, _)| *of == shard).map(|(_, generation)| *generation).collect()
    }

    pub fn create(&self, shard: u16, generation: Generation) -> Result<(), StorageError> {
        let mut disk = self.image.disk();
        disk.check("creating a family")?;
        disk.families.insert((shard, generation), Arc::default());
        self.tables().insert((shard, generation), Arc::default());
        Ok(())
    }

    pub fn remove(&self, shard: u16, generation: Generation) -> Result<(), StorageError> {
        if self.tables().remove(&(shard, generation)).is_none() {
            return Ok(());
        }
        let mut disk = self.image.disk();
        disk.check("dropping a family")?;
        disk.families.remove(&(shard, generation));
        Ok(())
    }

    pub fn stats(&self) -> StoreStats {
        StoreStats { flushes: self.flushes.load(Ordering::Relaxed), ..StoreStats::default() }
    }
}

/// One family, for as long as somebody needs it.
pub(super) struct Family {
    memory: Arc<Memory>,
    table: Arc<Table>,
    shard: u16,
    pub generation: Generation,
}

impl Family {
    pub fn open(
        memory: &Arc<Memory>,
        shard: u16,
        generation: Generation,
    ) -> Result<Arc<Family>, StorageError> {
        let table = memory.tables().get(&(shard, generation)).cloned();
        let table = table.ok_or_else(|| StorageError::Gone(generation.family(shard)))?;
        Ok(Arc::new(Family { memory: Arc::clone(memory), table, shard, generation }))
    }

    pub fn memory(&self) -> &Arc<Memory> {
        &self.memory
    }

    /// All rows as they are now.
    fn rows(&self) -> Arc<Rows> {
        Arc::clone(&self.table.rows.read().unwrap_or_else(|poisoned| poisoned.into_inner()))
    }

    fn change(&self, change: impl FnOnce(&mut Rows)) {
        let mut rows = self.table.rows.write().unwrap_or_else(|poisoned| poisoned.into_inner());
        change(Arc::make_mut(&mut rows));
    }

    pub fn write<'c>(
        &self,
        changes: impl IntoIterator<Item = (&'c [u8], Option<&'c [u8]>)>,
        applied: Option<&[u8]>,
    ) -> Result<(), StorageError> {
        let flush_after_writes = {
            let disk = self.memory.image.disk();
            disk.check("writing rows")?;
            disk.flush_after_writes
        };
        self.change(|rows| {
            for (key, row) in changes {
                match row {
                    Some(row) => drop(rows.insert(Bytes::copy_from_slice(key), Bytes::copy_from_slice(row))),
                    None => drop(rows.remove(key)),
                }
            }
            if let Some(applied) = applied {
                rows.insert(Bytes::from_static(APPLIED), Bytes::copy_from_slice(applied));
            }
        });
        let unflushed_writes = self.table.unflushed_writes.fetch_add(1, Ordering::Relaxed) + 1;
        match flush_after_writes {
            Some(writes) if unflushed_writes >= writes => self.flush(),
            _ => Ok(()),
        }
    }

    /// Flushes, and drops the memos that may go, as a compaction of all files would.
    pub fn flush(&self) -> Result<(), StorageError> {
        self.memory.image.disk().check("flushing rows")?;
        let watermark_us = self.table.watermark_us.load(Ordering::Relaxed);
        if self.rows().iter().any(|(key, row)| is_expired_memo(key, row, watermark_us)) {
            self.change(|rows| rows.retain(|key, row| !is_expired_memo(key, row, watermark_us)));
        }
        // A family that was removed in the meantime stays away.
        if let Some(flushed) = self.memory.image.disk().families.get_mut(&(self.shard, self.generation)) {
            *flushed = self.rows();
        }
        self.table.unflushed_writes.store(0, Ordering::Relaxed);
        self.table.flushes.fetch_add(1, Ordering::Relaxed);
        self.memory.flushes.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    pub fn settle_memos(&self, watermark_us: u64) {
        self.table.watermark_us.fetch_max(watermark_us, Ordering::Relaxed);
    }

    pub fn compact(&self) {
        if let Err(error) = self.flush() {
            tracing::warn!(shard = self.shard, %error, "not compacted");
        }
    }

    pub fn stats(&self) -> ShardStats {
        ShardStats {
            rows_estimated: self.rows().len() as u64,
            flushes: self.table.flushes.load(Ordering::Relaxed),
            ..ShardStats::default()
        }
    }

    pub fn snapshot(&self) -> Snapshot {
        Snapshot(self.rows())
    }
}

/// Reads the newest rows.
impl Store for Family {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.snapshot().get(key)
    }

    fn scan(
        &self,
        from: &[u8],
        until: &[u8],
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), StoreError> {
        self.snapshot().scan(from, until, visit)
    }

    fn scan_back(
        &self,
        from: &[u8],
        until: &[u8],
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), StoreError> {
        self.snapshot().scan_back(from, until, visit)
    }
}

/// A family at one instant.
pub(super) struct Snapshot(Arc<Rows>);

impl Snapshot {
    fn range(&self, from: &[u8], until: &[u8]) -> std::collections::btree_map::Range<'_, Bytes, Bytes> {
        // No rows, like in RocksDB, where a map would panic.
        let until = until.max(from);
        self.0.range::<[u8], _>((Bound::Included(from), Bound::Excluded(until)))
    }
}

impl Store for Snapshot {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.0.get(key).map(|row| row.to_vec()))
    }

    fn scan(
        &self,
        from: &[u8],
        until: &[u8],
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), StoreError> {
        let _ = self.range(from, until).all(|(key, row)| visit(key, row));
        Ok(())
    }

    fn scan_back(
        &self,
        from: &[u8],
        until: &[u8],
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), StoreError> {
        let _ = self.range(from, until).rev().all(|(key, row)| visit(key, row));
        Ok(())
    }
}
