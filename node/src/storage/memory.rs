//! The engine of the simulation and of tests: rows in ordered maps, an image of what is on disk.
//!
//! A map is shared by all that look at it: taking a snapshot shares it as it is, and the next change
//! copies it. Faults that an image has:
//! - a crash leaves what was taken in before it ([`MemoryImage::crash`]);
//! - shards flush after a number of writes, however little that is ([`MemoryImage::flush_after`]);
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
use super::shard::{Generation, ShardStats};
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

    /// Has each shard flush after so many writes, as one does whose write buffer is full; `None` never.
    pub fn flush_after(&self, writes: Option<u64>) {
        self.disk().flush_after_writes = writes;
    }

    /// While the disk is full, flushes fail with `NoSpace`, and change nothing; so do writes, once the
    /// rows that wait for a flush are too many.
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
    /// The families that are there, each with the ledger time below which its memos are dropped.
    families: Mutex<BTreeMap<Place, Arc<AtomicU64>>>,
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
        let families = disk.families.keys().map(|place| (*place, Arc::default())).collect();
        drop(disk);
        Ok(Arc::new(Memory { image, families: Mutex::new(families) }))
    }

    fn families(&self) -> MutexGuard<'_, BTreeMap<Place, Arc<AtomicU64>>> {
        self.families.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    pub fn generations(&self, shard: u16) -> Vec<Generation> {
        let families = self.families();
        families.keys().filter(|(of, _)| *of == shard).map(|(_, generation)| *generation).collect()
    }

    pub fn create(&self, shard: u16, generation: Generation) -> Result<(), StorageError> {
        let mut disk = self.image.disk();
        disk.check("creating a family")?;
        disk.families.insert((shard, generation), Arc::default());
        self.families().insert((shard, generation), Arc::default());
        Ok(())
    }

    pub fn remove(&self, shard: u16, generation: Generation) -> Result<(), StorageError> {
        if self.families().remove(&(shard, generation)).is_none() {
            return Ok(());
        }
        let mut disk = self.image.disk();
        disk.check("dropping a family")?;
        disk.families.remove(&(shard, generation));
        Ok(())
    }

    pub fn stats(&self) -> StoreStats {
        StoreStats::default()
    }
}

/// One family, for as long as somebody needs it.
pub(super) struct Family {
    memory: Arc<Memory>,
    /// The newest rows, also of a family that was dropped.
    rows: RwLock<Arc<Rows>>,
    watermark_us: Arc<AtomicU64>,
    place: Place,
}

impl Family {
    pub fn open(
        memory: &Arc<Memory>,
        shard: u16,
        generation: Generation,
    ) -> Result<Arc<Family>, StorageError> {
        let place = (shard, generation);
        let watermark_us = memory.families().get(&place).cloned();
        let rows = memory.image.disk().families.get(&place).cloned();
        let (Some(watermark_us), Some(rows)) = (watermark_us, rows) else {
            return Err(StorageError::Gone(generation.family(shard)));
        };
        Ok(Arc::new(Family { memory: Arc::clone(memory), rows: RwLock::new(rows), watermark_us, place }))
    }

    /// All rows as they are now.
    fn rows(&self) -> Arc<Rows> {
        Arc::clone(&self.rows.read().unwrap_or_else(|poisoned| poisoned.into_inner()))
    }

    /// Changes the rows, here and on disk, and drops the memos that may go, as a compaction of all files
    /// would.
    fn change(&self, change: impl FnOnce(&mut Rows)) -> Result<(), StorageError> {
        let mut disk = self.memory.image.disk();
        disk.check("flushing rows")?;
        let watermark_us = self.watermark_us.load(Ordering::Relaxed);
        let mut rows = self.rows.write().unwrap_or_else(|poisoned| poisoned.into_inner());
        // The image lets go of them first: else each change would copy them all.
        let kept = disk.families.get_mut(&self.place).map(std::mem::take);
        let there = kept.is_some();
        drop(kept);
        let own = Arc::make_mut(&mut rows);
        change(own);
        if own.iter().any(|(key, row)| is_expired_memo(key, row, watermark_us)) {
            own.retain(|key, row| !is_expired_memo(key, row, watermark_us));
        }
        // A family that was removed in the meantime stays away.
        if there {
            disk.families.insert(self.place, Arc::clone(&rows));
        }
        Ok(())
    }

    pub fn ingest<'r>(
        &self,
        changes: &mut dyn Iterator<Item = (&'r [u8], Option<&'r [u8]>)>,
    ) -> Result<(), StorageError> {
        self.change(|rows| {
            for (key, row) in changes {
                match row {
                    Some(row) => drop(rows.insert(Bytes::copy_from_slice(key), Bytes::copy_from_slice(row))),
                    None => drop(rows.remove(key)),
                }
            }
        })
    }

    pub fn flushes_after(&self) -> Option<u64> {
        self.memory.image.disk().flush_after_writes
    }

    pub fn settle_memos(&self, watermark_us: u64) {
        self.watermark_us.fetch_max(watermark_us, Ordering::Relaxed);
    }

    pub fn compact(&self) {
        if let Err(error) = self.change(|_| {}) {
            tracing::warn!(shard = self.place.0, %error, "not compacted");
        }
    }

    pub fn stats(&self) -> ShardStats {
        ShardStats { rows_estimated: self.rows().len() as u64, ..ShardStats::default() }
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
