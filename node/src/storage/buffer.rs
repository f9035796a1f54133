//! The rows of one shard that are not on disk yet: its write buffer.
//!
//! ```text
//!   write -> active layer -(full, or a flush)-> frozen layers -(oldest first)-> engine: one sorted run
//!   read:    active layer, frozen layers (newest first), engine: the first that knows the key
//! ```
//!
//! RocksDB has such a buffer of its own, a skip list that keeps every version of every row: finding a
//! row's place in it costs about a microsecond of cache misses, three times a debit, and most of what
//! it then writes are versions that nobody asks for any more. Here a row that is only asked for by
//! its key stands in a hash map, and the newest version takes the place of the one before.
//!
//! Invariants:
//! - One thread at a time writes. A frozen layer is never written again.
//! - Layers reach the engine whole, atomically, in order: what is on disk is the state after some
//!   write, with the applied state that belongs to it.
//! - A layer leaves only when the engine has it on disk.
//! - A view shows what was written before it was taken, and nothing else: a version that a live view
//!   may ask for is kept.
//! - The bytes of all layers of a node are bounded: a write that finds no room brings the oldest layer
//!   to disk first.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use purser_ledger::store::{Store, StoreError};

use super::engine::{Family, Snapshot};
use super::error::StorageError;
use super::flusher::{Flusher, Share};
use super::layer::Layer;
use super::merged;
use super::shard::{APPLIED, ShardStats};

/// Frozen layers of a shard that wait for the disk. One: a shard that fills the next one meanwhile
/// waits, too.
pub(super) const FROZEN_MAX: usize = 1;

/// Which write of a shard, counted from 1. A view at 7 shows the first seven.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct WriteNo(pub u64);

impl WriteNo {
    /// For whoever wants the newest rows.
    pub const NEWEST: WriteNo = WriteNo(u64::MAX);
}

/// The views that are alive, by the write that they were taken after.
#[derive(Debug, Default)]
pub(super) struct LiveViews(BTreeMap<WriteNo, usize>);

impl LiveViews {
    fn add(&mut self, at: WriteNo) {
        *self.0.entry(at).or_default() += 1;
    }

    fn remove(&mut self, at: WriteNo) {
        if let Some(views) = self.0.get_mut(&at) {
            *views -= 1;
            if *views == 0 {
                self.0.remove(&at);
            }
        }
    }

    /// Whether some view may ask for a version that was written at this moment, and is replaced now.
    pub fn may_ask_for(&self, written: WriteNo) -> bool {
        self.0.last_key_value().is_some_and(|(newest, _)| *newest >= written)
    }

    /// The oldest one.
    pub fn oldest(&self) -> Option<WriteNo> {
        self.0.first_key_value().map(|(oldest, _)| *oldest)
    }
}

/// The rows of one shard in one generation: those on disk, and those on their way there.
pub(super) struct Buffer {
    family: Family,
    share: Arc<Share>,
    flusher: Flusher,
    state: Mutex<State>,
    /// Held by whoever brings layers to disk.
    flushing: Mutex<()>,
    flushes: AtomicU64,
}

struct State {
    writes: WriteNo,
    /// Of them, those in the active layer.
    active_writes: u64,
    active: Arc<Layer>,
    /// Oldest first.
    frozen: VecDeque<Arc<Layer>>,
    views: LiveViews,
}

impl State {
    /// Closes the active layer, if anything is in it.
    fn freeze(&mut self, share: &Share) {
        if self.active_writes > 0 {
            self.active_writes = 0;
            // The next one will hold about as many rows: finding places anew while it grows costs more.
            let rows = self.active.read().len();
            let full = std::mem::replace(&mut self.active, Layer::new(share.chunks(), rows));
            self.frozen.push_back(full);
        }
    }

    /// All layers that hold something, newest first.
    fn layers(&self) -> Vec<Arc<Layer>> {
        let active = (self.active_writes > 0).then_some(&self.active);
        active.into_iter().chain(self.frozen.iter().rev()).cloned().collect()
    }
}

/// A moment between two writes, with nothing in the active layer. What was written before it can be
/// brought to disk, and looked at there.
pub(super) enum Mark {
    /// All of it was on disk.
    Durable(Arc<Snapshot>),
    /// The last of it is in this layer.
    Through(Arc<Layer>),
}

impl Buffer {
    pub fn new(family: Family, share: Arc<Share>, flusher: Flusher) -> Arc<Buffer> {
        share.joined();
        let state = State {
            writes: WriteNo(0),
            active_writes: 0,
            active: Layer::new(share.chunks(), 0),
            frozen: VecDeque::new(),
            views: LiveViews::default(),
        };
        let (state, flushing) = (Mutex::new(state), Mutex::new(()));
        Arc::new(Buffer { family, share, flusher, state, flushing, flushes: AtomicU64::new(0) })
    }

    pub fn family(&self) -> &Family {
        &self.family
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn turn(&self) -> MutexGuard<'_, ()> {
        self.flushing.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Writes rows, and what they stand for if it is given: all or nothing, in memory only. Fails
    /// only where the layers are full and the oldest does not get to disk; then nothing has changed.
    pub fn write<'c>(
        self: &Arc<Self>,
        changes: impl IntoIterator<Item = (&'c [u8], Option<&'c [u8]>)>,
        applied: Option<&[u8]>,
    ) -> Result<(), StorageError> {
        self.refuse_cut_off()?;
        self.make_room()?;
        let full = {
            let mut state = self.state();
            let state = &mut *state;
            state.writes.0 += 1;
            state.active_writes += 1;
            let mut rows = state.active.write();
            for (key, row) in changes {
                rows.put(key, row, state.writes, &state.views);
            }
            if let Some(applied) = applied {
                rows.put(APPLIED, Some(applied), state.writes, &state.views);
            }
            let bytes = rows.bytes();
            drop(rows);
            let many = self.family.flushes_after().is_some_and(|writes| state.active_writes >= writes);
            let full = many || bytes >= self.share.bytes();
            if full {
                state.freeze(&self.share);
            }
            full
        };
        if full {
            self.flusher.flush_soon(self);
        }
        Ok(())
    }

    /// Where too many layers wait for the disk, brings the oldest there. Blocks.
    pub fn make_room(&self) -> Result<(), StorageError> {
        let too_many = || self.state().frozen.len() > FROZEN_MAX;
        while too_many() {
            let turn = self.turn();
            // Somebody else may have done it meanwhile.
            if too_many() {
                self.flush_oldest(&turn)?;
            }
        }
        Ok(())
    }

    /// A write that panicked has left a part of an entry here, without its applied state: nothing of it may
    /// get to disk.
    fn refuse_cut_off(&self) -> Result<(), StorageError> {
        match self.state.is_poisoned() {
            false => Ok(()),
            true => {
                Err(StorageError::Failed { doing: "flushing rows", reason: "a write was cut off".to_owned() })
            }
        }
    }

    /// Brings the oldest frozen layer to disk, if there is one. Layers go one at a time, whoever's turn it is.
    fn flush_oldest(&self, _turn: &MutexGuard<'_, ()>) -> Result<(), StorageError> {
        self.refuse_cut_off()?;
        let Some(layer) = self.state().frozen.front().cloned() else { return Ok(()) };
        layer.read().in_order(|rows| self.family.ingest(rows))?;
        // Nothing else gets to disk while it is our turn: this shows the rows up to this layer's last.
        layer.durable.get_or_init(|| Arc::new(self.family.snapshot()));
        self.state().frozen.pop_front();
        Ok(())
    }

    /// Brings all frozen layers to disk. Blocks.
    pub fn flush_frozen(&self) -> Result<(), StorageError> {
        while !self.state().frozen.is_empty() {
            self.flush_oldest(&self.turn())?;
        }
        Ok(())
    }

    /// Marks this moment, between two writes.
    pub fn mark(&self) -> Mark {
        let mut state = self.state();
        state.freeze(&self.share);
        match state.frozen.back() {
            Some(layer) => Mark::Through(Arc::clone(layer)),
            None => Mark::Durable(Arc::new(self.family.snapshot())),
        }
    }

    /// Brings everything that was written before a mark to disk, and shows just that. Blocks.
    pub fn flush_to(&self, mark: &Mark) -> Result<Arc<Snapshot>, StorageError> {
        let layer = match mark {
            Mark::Durable(snapshot) => return Ok(Arc::clone(snapshot)),
            Mark::Through(layer) => layer,
        };
        let turn = self.turn();
        while layer.durable.get().is_none() && !self.state().frozen.is_empty() {
            self.flush_oldest(&turn)?;
        }
        let durable = layer.durable.get().cloned();
        let durable = durable.ok_or(StorageError::Failed {
            doing: "flushing rows",
            reason: "a layer of rows is gone".to_owned(),
        })?;
        self.flushes.fetch_add(1, Ordering::Relaxed);
        Ok(durable)
    }

    /// Brings everything that was written before the call to disk. Blocks.
    pub fn flush(&self) -> Result<(), StorageError> {
        self.flush_to(&self.mark()).map(drop)
    }

    /// Drops now what may go. Blocks.
    pub fn compact(&self) {
        if let Err(error) = self.flush() {
            tracing::warn!(%error, "rows in memory are not compacted");
        }
        self.family.compact();
    }

    /// All rows as they are now.
    pub fn view(self: &Arc<Self>) -> BufferView {
        let mut state = self.state();
        let at = state.writes;
        state.views.add(at);
        let rows = Arc::new(self.family.snapshot());
        BufferView { layers: state.layers(), at, rows, of: Some(Arc::clone(self)) }
    }

    pub fn stats(&self) -> ShardStats {
        let (buffer_bytes, flushes) = (self.bytes(), self.flushes());
        ShardStats { buffer_bytes, flushes, ..self.family.stats() }
    }

    /// About the memory that its layers take.
    pub fn bytes(&self) -> u64 {
        self.layers().iter().map(|layer| layer.read().bytes() as u64).sum()
    }

    /// How often somebody waited for a flush.
    pub fn flushes(&self) -> u64 {
        self.flushes.load(Ordering::Relaxed)
    }

    fn layers(&self) -> Vec<Arc<Layer>> {
        self.state().layers()
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.share.left();
    }
}

/// Reads the newest rows: what apply uses, being the only one that writes.
impl Store for Buffer {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        merged::get(&self.layers(), WriteNo::NEWEST, &self.family, key)
    }

    fn get_many(&self, keys: &[&[u8]]) -> Result<Vec<Option<Vec<u8>>>, StoreError> {
        merged::get_many(&self.layers(), WriteNo::NEWEST, &self.family, keys)
    }

    fn scan(
        &self,
        from: &[u8],
        until: &[u8],
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), StoreError> {
        merged::scan(&self.layers(), WriteNo::NEWEST, &self.family, from, until, visit)
    }

    fn scan_back(
        &self,
        from: &[u8],
        until: &[u8],
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), StoreError> {
        merged::scan_back(&self.layers(), WriteNo::NEWEST, &self.family, from, until, visit)
    }
}

/// The rows of a shard at one moment.
pub(super) struct BufferView {
    /// Newest first.
    layers: Vec<Arc<Layer>>,
    at: WriteNo,
    rows: Arc<Snapshot>,
    /// Where it counts as alive.
    of: Option<Arc<Buffer>>,
}

impl BufferView {
    /// Rows that are all on disk: such a view may be kept for long.
    pub fn durable(rows: Arc<Snapshot>) -> BufferView {
        BufferView { layers: Vec::new(), at: WriteNo::NEWEST, rows, of: None }
    }
}

impl Drop for BufferView {
    fn drop(&mut self) {
        if let Some(buffer) = &self.of {
            buffer.state().views.remove(self.at);
        }
    }
}

impl Store for BufferView {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        merged::get(&self.layers, self.at, &*self.rows, key)
    }

    fn get_many(&self, keys: &[&[u8]]) -> Result<Vec<Option<Vec<u8>>>, StoreError> {
        merged::get_many(&self.layers, self.at, &*self.rows, keys)
    }

    fn scan(
        &self,
        from: &[u8],
        until: &[u8],
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), StoreError> {
        merged::scan(&self.layers, self.at, &*self.rows, from, until, visit)
    }

    fn scan_back(
        &self,
        from: &[u8],
        until: &[u8],
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), StoreError> {
        merged::scan_back(&self.layers, self.at, &*self.rows, from, until, visit)
    }
}
