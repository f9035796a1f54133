//! What an operator or a test may choose, with the reasons for the defaults.

use super::error::OpenError;
use super::identity::IDENTITY_BYTES_MAX;
use super::run::{BLOCK_BYTES, GROUPS_PER_RUN_MAX, RECORD_BYTES, run_overhead_bytes};
use bytes::Bytes;
use std::time::Duration;

/// Values of slots and marks of purges are copied to the head when an old segment is freed, into
/// the reserve if it must be: 64 KiB is far above any membership.
const SMALL_BYTES_MAX: usize = 64 * 1024;

/// The choices for one log.
#[derive(Clone, Debug)]
pub struct LogOptions {
    /// Cluster and node id, in the caller's encoding: another identity's directory is refused.
    pub identity: Bytes,
    /// The length of a segment file. 64 MiB: a few seconds of full load, and what is freed at once.
    pub segment_bytes: u32,
    /// A run is closed when it would pass this. 4 MiB: a sync of it stays in the milliseconds.
    pub run_bytes_max: u32,
    /// The longest payload of an entry. 8 MiB: far above a batch, and a few fit a segment.
    pub entry_bytes_max: u32,
    /// Kept free of what can still be refused, so that what cannot fits when the disk is full: votes,
    /// purges, and the entries that Raft has decided on.
    pub reserve_bytes: u32,
    /// Submissions in the queue hold at most this. 64 MiB: half a second of a fast disk.
    pub queue_bytes_max: u64,
    /// Entries kept in memory for reading, beyond those that are not durable yet.
    pub cache_bytes_max: u64,
    /// A group with more than this unpurged is named by `groups_to_flush`.
    pub group_bytes_max: u64,
    /// How long the log may be before the groups that pin its oldest segment are named by
    /// `groups_to_flush`: what a restart has to read.
    pub retained_bytes_max: u64,
    /// How long the log is idle before the mark of what is durable moves.
    pub idle_mark: Duration,
    /// A write or sync that takes longer than this counts as failed.
    pub stall_max: Duration,
}

impl LogOptions {
    /// The defaults, for a log of this identity.
    pub fn new(identity: impl Into<Bytes>) -> LogOptions {
        LogOptions {
            identity: identity.into(),
            segment_bytes: 64 * 1024 * 1024,
            run_bytes_max: 4 * 1024 * 1024,
            entry_bytes_max: 8 * 1024 * 1024,
            reserve_bytes: 4 * 1024 * 1024,
            queue_bytes_max: 64 * 1024 * 1024,
            cache_bytes_max: 64 * 1024 * 1024,
            group_bytes_max: 64 * 1024 * 1024,
            retained_bytes_max: 256 * 1024 * 1024,
            idle_mark: Duration::from_millis(100),
            stall_max: Duration::from_secs(60),
        }
    }

    /// How many groups a run may name: so many that naming them takes an eighth of a segment.
    pub(crate) fn groups_per_run_max(&self) -> usize {
        GROUPS_PER_RUN_MAX.min(self.segment_bytes as usize / 64)
    }

    /// The longest value of a slot, or mark of a purge.
    pub(crate) fn small_bytes_max(&self) -> usize {
        SMALL_BYTES_MAX.min(self.entry_bytes_max as usize)
    }

    /// A run of one entry, the longest there may be, takes less than this.
    pub(crate) fn first_of_run_bytes_max(&self) -> u64 {
        let entry = RECORD_BYTES + self.entry_bytes_max as usize + 2 * BLOCK_BYTES;
        (entry + run_overhead_bytes(self.groups_per_run_max())) as u64
    }

    pub(crate) fn check(&self) -> Result<(), OpenError> {
        let wrong = |what: &str| Err(OpenError::Options(what.to_owned()));
        let segment = self.segment_bytes as usize;
        if self.identity.is_empty() || self.identity.len() > IDENTITY_BYTES_MAX {
            return wrong("the identity must have 1 to 1024 bytes");
        }
        if segment == 0 || !segment.is_multiple_of(BLOCK_BYTES) || segment > 1024 * 1024 * 1024 {
            return wrong("segment_bytes must be a multiple of 4096, at most 1 GiB");
        }
        if self.reserve_bytes as usize > segment / 2 {
            return wrong("reserve_bytes must be at most half a segment");
        }
        // So that a segment that is ready has room for any entry, however the one before it ends.
        let kept = u64::from(self.reserve_bytes) + self.first_of_run_bytes_max() + 2 * BLOCK_BYTES as u64;
        if kept + u64::from(self.entry_bytes_max) > u64::from(self.segment_bytes) {
            return wrong("reserve_bytes and two entries of entry_bytes_max do not fit into a segment");
        }
        Ok(())
    }
}
