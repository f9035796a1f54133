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
    /// The write buffers of all shards of the node together. 256 MiB: as much as a restart has to
    /// replay.
    pub buffers_bytes_max: usize,
    /// The rows of one shard that are gathered before they go to disk as one file, at most; less where
    /// there are so many shards that all of them together would exceed `buffers_bytes_max`. 16 MiB: a
    /// second's work of a busy shard and more.
    pub buffer_bytes_max: usize,
    /// Threads that compact. 2: the cores are for commands.
    pub background_jobs: i32,
    /// False only in the simulation: nothing then runs on threads of its own, so that the same seed
    /// gives the same trace.
    pub compacts_by_itself: bool,
}

impl StoreOptions {
    /// The defaults, for a store of this identity.
    pub fn new(identity: impl Into<Bytes>) -> StoreOptions {
        StoreOptions {
            identity: identity.into(),
            block_cache_bytes: 256 * MIB,
            buffers_bytes_max: 256 * MIB,
            buffer_bytes_max: 16 * MIB,
            background_jobs: 2,
            compacts_by_itself: true,
        }
    }

    pub(super) fn check(&self) -> Result<(), OpenError> {
        if self.buffer_bytes_max < 64 * 1024 || self.buffers_bytes_max < self.buffer_bytes_max {
            return Err(OpenError::Options(
                "buffer_bytes_max must be 64 KiB at least, and at most buffers_bytes_max",
            ));
        }
        if !(1..=64).contains(&self.background_jobs) {
            return Err(OpenError::Options("background_jobs must be 1 to 64"));
        }
        Ok(())
    }
}
