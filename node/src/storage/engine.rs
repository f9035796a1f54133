//! The two engines under the state store, and what both can do: keep rows on disk. RocksDB serves a
//! node; the one in memory serves the simulation and tests, under the same rules.

use std::sync::Arc;

use purser_ledger::store::{Store, StoreError};

use super::error::StorageError;
use super::memory::{self, Memory};
use super::rocks::{self, Rocks};
use super::shard::{Generation, ShardStats};
use super::state::StoreStats;

/// What keeps the rows of all shards of a node.
#[derive(Clone)]
pub(super) enum Engine {
    Rocks(Arc<Rocks>),
    Memory(Arc<Memory>),
}

/// The rows of one shard in one generation.
#[derive(Clone)]
pub(super) enum Family {
    Rocks(Arc<rocks::Family>),
    Memory(Arc<memory::Family>),
}

/// A family at one instant.
pub(super) enum Snapshot {
    Rocks(rocks::Snapshot),
    Memory(memory::Snapshot),
}

/// The same expression over whichever of the two it is.
macro_rules! either {
    ($kind:ident, $value:expr, $inner:ident => $result:expr) => {
        match $value {
            $kind::Rocks($inner) => $result,
            $kind::Memory($inner) => $result,
        }
    };
}

impl Engine {
    /// The generations of a shard that are there, ascending.
    pub fn generations(&self, shard: u16) -> Vec<Generation> {
        let mut generations = either!(Engine, self, engine => engine.generations(shard));
        generations.sort_unstable();
        generations
    }

    /// A family that is there.
    pub fn family(&self, shard: u16, generation: Generation) -> Result<Family, StorageError> {
        Ok(match self {
            Engine::Rocks(rocks) => Family::Rocks(rocks::Family::open(rocks, shard, generation)?),
            Engine::Memory(memory) => Family::Memory(memory::Family::open(memory, shard, generation)?),
        })
    }

    /// A new family, empty. It is there after a crash too.
    pub fn create(&self, shard: u16, generation: Generation) -> Result<Family, StorageError> {
        either!(Engine, self, engine => engine.create(shard, generation)?);
        self.family(shard, generation)
    }

    /// Drops a family, if it is there. Those who hold it can still read it.
    pub fn remove(&self, shard: u16, generation: Generation) -> Result<(), StorageError> {
        either!(Engine, self, engine => engine.remove(shard, generation))
    }

    pub fn stats(&self) -> StoreStats {
        either!(Engine, self, engine => engine.stats())
    }
}

impl Family {
    /// Takes rows in, in the order of their keys, each once; `None` deletes one. All or nothing, and on
    /// disk when it returns. Blocks.
    pub fn ingest<'r>(
        &self,
        rows: &mut dyn Iterator<Item = (&'r [u8], Option<&'r [u8]>)>,
    ) -> Result<(), StorageError> {
        either!(Family, self, family => family.ingest(rows))
    }

    /// After how many writes what was written is to be flushed, however little it is.
    pub fn flushes_after(&self) -> Option<u64> {
        match self {
            Family::Rocks(_) => None,
            Family::Memory(family) => family.flushes_after(),
        }
    }

    /// Memos that expired before this ledger time (microseconds) may go. It never moves back.
    pub fn settle_memos(&self, watermark_us: u64) {
        either!(Family, self, family => family.settle_memos(watermark_us));
    }

    /// Drops now what may go.
    pub fn compact(&self) {
        either!(Family, self, family => family.compact());
    }

    pub fn stats(&self) -> ShardStats {
        either!(Family, self, family => family.stats())
    }

    pub fn snapshot(&self) -> Snapshot {
        match self {
            Family::Rocks(family) => Snapshot::Rocks(family.snapshot()),
            Family::Memory(family) => Snapshot::Memory(family.snapshot()),
        }
    }
}

macro_rules! store_over_either {
    ($kind:ident) => {
        impl Store for $kind {
            fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
                either!($kind, self, rows => rows.get(key))
            }

            fn get_many(&self, keys: &[&[u8]]) -> Result<Vec<Option<Vec<u8>>>, StoreError> {
                either!($kind, self, rows => rows.get_many(keys))
            }

            fn scan(
                &self,
                from: &[u8],
                until: &[u8],
                visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
            ) -> Result<(), StoreError> {
                either!($kind, self, rows => rows.scan(from, until, visit))
            }

            fn scan_back(
                &self,
                from: &[u8],
                until: &[u8],
                visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
            ) -> Result<(), StoreError> {
                either!($kind, self, rows => rows.scan_back(from, until, visit))
            }
        }
    };
}

store_over_either!(Family);
store_over_either!(Snapshot);
