//! What an operator may choose about the state store, with the reasons for the defaults.

use bytes::Bytes;

use super::error::OpenError;

const MIB: usize = 1024 * 1024;

/// The choices for one state store.
#[derive(Clone, Debug)]
pub struct StoreOptions {
    /// Cluster and node id, in the caller's encoding: another identity's directory is refused.
    pub identity: Bytes,
    /// One block cache for all shards. 256 MiB: the hot wallets of a small node.
    pub block_cache_bytes: usize,
    /// All memtables of the node together; the largest is flushed when they near it. 256 MiB: as
    /// much as a restart has to replay.
    pub memtables_bytes_max: usize,
    /// One memtable of one shard. 16 MiB: measured, a quarter more debits a second than with 64 MiB,
    /// whose skip list is deeper and misses more caches.
    pub memtable_bytes: usize,
    /// Threads that flush and compact. 2: the cores are for commands.
    pub background_jobs: i32,
    /// False only in the simulation: compaction then runs on nobody's own account, so that the same
    /// seed gives the same trace.
    pub compacts_by_itself: bool,
}

impl StoreOptions {
    /// The defaults, for a store of this identity.
    pub fn new(identity: impl Into<Bytes>) -> StoreOptions {
        StoreOptions {
            identity: identity.into(),
            block_cache_bytes: 256 * MIB,
            memtables_bytes_max: 256 * MIB,
            memtable_bytes: 16 * MIB,
            background_jobs: 2,
            compacts_by_itself: true,
        }
    }

    pub(super) fn check(&self) -> Result<(), OpenError> {
        if self.memtable_bytes < 64 * 1024 || self.memtables_bytes_max < self.memtable_bytes {
            return Err(OpenError::Options(
                "memtable_bytes must be 64 KiB at least, and at most memtables_bytes_max",
            ));
        }
        if !(1..=64).contains(&self.background_jobs) {
            return Err(OpenError::Options("background_jobs must be 1 to 64"));
        }
        Ok(())
    }
}
