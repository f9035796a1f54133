//! The state store of a node: which shards and generations there are.
//!
//! Invariants:
//! - Every family but RocksDB's own `default` (unused) is a generation of a shard.
//! - Nothing is written with a write-ahead log.

use std::path::Path;

use super::engine::Engine;
use super::error::{OpenError, StorageError};
use super::memory::{Memory, MemoryImage};
use super::options::StoreOptions;
use super::rocks::Rocks;
use super::shard::{Generation, ShardStore};

/// Numbers for the metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoreStats {
    /// Bytes of all memtables.
    pub memtable_bytes: u64,
    /// Bytes in the block cache.
    pub block_cache_bytes: u64,
    /// Flushes that somebody waited for.
    pub flushes: u64,
}

/// The state store of a node. Cheap to clone; the directory is let go with the last clone, shard or
/// view.
#[derive(Clone)]
pub struct StateStore {
    engine: Engine,
}

impl std::fmt::Debug for StateStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let path = match &self.engine {
            Engine::Rocks(rocks) => Some(rocks.path()),
            Engine::Memory(_) => None,
        };
        f.debug_struct("StateStore").field("path", &path).finish_non_exhaustive()
    }
}

impl StateStore {
    /// Opens the state of a directory, or makes a new one where there is nothing.
    pub fn open(directory: impl AsRef<Path>, options: StoreOptions) -> Result<StateStore, OpenError> {
        Ok(StateStore { engine: Engine::Rocks(Rocks::open(directory.as_ref(), options)?) })
    }

    /// A state store in memory, under the same rules: what is flushed is kept in the image, the rest
    /// is gone with the store. For the simulation and for tests.
    pub fn memory(image: MemoryImage) -> Result<StateStore, OpenError> {
        Ok(StateStore { engine: Engine::Memory(Memory::open(image)?) })
    }

    /// The generations of a shard that are there, ascending.
    pub fn generations(&self, shard: u16) -> Vec<Generation> {
        self.engine.generations(shard)
    }

    /// A shard, in the generation that is the valid one. Others of it (an install that was not
    /// finished, or what one left behind) are dropped. The first generation is made if it is not
    /// there; a later one that is not there is a loss.
    pub fn shard(&self, shard: u16, generation: Generation) -> Result<ShardStore, StorageError> {
        let present = self.generations(shard);
        let family = match present.contains(&generation) {
            true => self.engine.family(shard, generation)?,
            false if generation == Generation::FIRST && present.is_empty() => {
                self.engine.create(shard, generation)?
            }
            false => return Err(StorageError::Gone(generation.family(shard))),
        };
        for other in present.into_iter().filter(|other| *other != generation) {
            self.engine.remove(shard, other)?;
        }
        Ok(ShardStore::new(shard, family))
    }

    /// Removes a shard's rows: those of a replica that is tombstoned or replaced.
    pub fn forget(&self, shard: u16) -> Result<(), StorageError> {
        for generation in self.generations(shard) {
            self.engine.remove(shard, generation)?;
        }
        Ok(())
    }

    /// Numbers for the metrics.
    pub fn stats(&self) -> StoreStats {
        self.engine.stats()
    }
}
