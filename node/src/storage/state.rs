//! The state store of a node: which shards and generations there are.
//!
//! Invariants:
//! - Every family but RocksDB's own `default` (unused) is a generation of a shard.
//! - Nothing is written with a write-ahead log.
//! - A generation has one write buffer, whoever asks for it: a shard that is opened again by the same
//!   process finds what is not on disk yet.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};

use super::buffer::Buffer;
use super::engine::Engine;
use super::error::{OpenError, StorageError};
use super::flusher::{Flusher, Share};
use super::memory::{Memory, MemoryImage};
use super::options::StoreOptions;
use super::rocks::Rocks;
use super::shard::{Generation, ShardStore};

/// Numbers for the metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoreStats {
    /// Bytes of all rows that are not on disk yet.
    pub buffer_bytes: u64,
    /// Bytes in the block cache.
    pub block_cache_bytes: u64,
    /// Flushes that somebody waited for.
    pub flushes: u64,
}

/// The state store of a node. Cheap to clone; the directory is let go with the last clone, shard or
/// view.
#[derive(Clone)]
pub struct StateStore {
    parts: Arc<Parts>,
}

struct Parts {
    engine: Engine,
    flusher: Flusher,
    share: Arc<Share>,
    buffers: Mutex<BTreeMap<(u16, Generation), Arc<Buffer>>>,
}

/// A store that is closed in peace leaves nothing to be applied again. In the simulation it ends as a
/// process that is killed does.
impl Drop for Parts {
    fn drop(&mut self) {
        if matches!(self.flusher, Flusher::Inline) {
            return;
        }
        let buffers = self.buffers.get_mut().unwrap_or_else(|poisoned| poisoned.into_inner());
        for rows in buffers.values() {
            if let Err(error) = rows.flush() {
                tracing::warn!(%error, "rows are not on disk at the end: they are applied again at the next start");
            }
        }
    }
}

impl std::fmt::Debug for StateStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let path = match &self.parts.engine {
            Engine::Rocks(rocks) => Some(rocks.path()),
            Engine::Memory(_) => None,
        };
        f.debug_struct("StateStore").field("path", &path).finish_non_exhaustive()
    }
}

impl StateStore {
    /// Opens the state of a directory, or makes a new one where there is nothing.
    pub fn open(directory: impl AsRef<Path>, options: StoreOptions) -> Result<StateStore, OpenError> {
        let flusher = match options.compacts_by_itself {
            true => Flusher::thread().map_err(OpenError::io("starting the thread that flushes"))?,
            false => Flusher::Inline,
        };
        let share = Share::new(options.buffers_bytes_max, options.buffer_bytes_max);
        Ok(StateStore::of(Engine::Rocks(Rocks::open(directory.as_ref(), options)?), flusher, share))
    }

    /// A state store in memory, under the same rules: what is flushed is kept in the image, the rest
    /// is gone with the store. For the simulation and for tests.
    pub fn memory(image: MemoryImage) -> Result<StateStore, OpenError> {
        let options = StoreOptions::new("");
        let share = Share::new(options.buffers_bytes_max, options.buffer_bytes_max);
        Ok(StateStore::of(Engine::Memory(Memory::open(image)?), Flusher::Inline, share))
    }

    fn of(engine: Engine, flusher: Flusher, share: Share) -> StateStore {
        let buffers = Mutex::default();
        StateStore { parts: Arc::new(Parts { engine, flusher, share: Arc::new(share), buffers }) }
    }

    fn buffers(&self) -> MutexGuard<'_, BTreeMap<(u16, Generation), Arc<Buffer>>> {
        self.parts.buffers.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// The generations of a shard that are there, ascending.
    pub fn generations(&self, shard: u16) -> Vec<Generation> {
        self.parts.engine.generations(shard)
    }

    /// A shard, in the generation that is the valid one. Others of it (an install that was not
    /// finished, or what one left behind) are dropped. The first generation is made if it is not
    /// there; a later one that is not there is a loss.
    pub fn shard(&self, shard: u16, generation: Generation) -> Result<ShardStore, StorageError> {
        let present = self.generations(shard);
        let rows = match present.contains(&generation) {
            true => self.buffer(shard, generation)?,
            false if generation == Generation::FIRST && present.is_empty() => {
                self.create(shard, generation)?
            }
            false => return Err(StorageError::Gone(generation.family(shard))),
        };
        for other in present.into_iter().filter(|other| *other != generation) {
            self.remove(shard, other)?;
        }
        Ok(ShardStore::new(self.clone(), shard, generation, rows))
    }

    /// The rows of a generation that is there.
    fn buffer(&self, shard: u16, generation: Generation) -> Result<Arc<Buffer>, StorageError> {
        let mut buffers = self.buffers();
        if let Some(rows) = buffers.get(&(shard, generation)) {
            return Ok(Arc::clone(rows));
        }
        let Parts { engine, flusher, share, .. } = &*self.parts;
        let rows = Buffer::new(engine.family(shard, generation)?, Arc::clone(share), flusher.clone());
        buffers.insert((shard, generation), Arc::clone(&rows));
        Ok(rows)
    }

    /// Makes a generation, empty. It is there after a crash too.
    pub(super) fn create(&self, shard: u16, generation: Generation) -> Result<Arc<Buffer>, StorageError> {
        self.parts.engine.create(shard, generation)?;
        self.buffer(shard, generation)
    }

    /// Drops a generation, if it is there. Those who hold it can still read it.
    pub(super) fn remove(&self, shard: u16, generation: Generation) -> Result<(), StorageError> {
        self.buffers().remove(&(shard, generation));
        self.parts.engine.remove(shard, generation)
    }

    /// Removes a shard's rows: those of a replica that is tombstoned or replaced.
    pub fn forget(&self, shard: u16) -> Result<(), StorageError> {
        for generation in self.generations(shard) {
            self.remove(shard, generation)?;
        }
        Ok(())
    }

    /// Numbers for the metrics.
    pub fn stats(&self) -> StoreStats {
        let buffers: Vec<_> = self.buffers().values().cloned().collect();
        let buffer_bytes = buffers.iter().map(|rows| rows.bytes()).sum();
        let flushes = buffers.iter().map(|rows| rows.flushes()).sum();
        StoreStats { buffer_bytes, flushes, ..self.parts.engine.stats() }
    }
}
