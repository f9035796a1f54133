//! Drops expired memos while RocksDB compacts (see `memos`).

use std::ffi::CStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rocksdb::CompactionDecision;
use rocksdb::compaction_filter::CompactionFilter;
use rocksdb::compaction_filter_factory::{CompactionFilterContext, CompactionFilterFactory};

use crate::storage::memos::is_expired_memo;

const NAME: &CStr = c"purser.expired-memos";

/// Gives each compaction of a family its filter.
pub(super) struct MemoFilters {
    pub watermark_us: Arc<AtomicU64>,
}

impl CompactionFilterFactory for MemoFilters {
    type Filter = MemoFilter;

    fn create(&mut self, _context: CompactionFilterContext) -> MemoFilter {
        MemoFilter { watermark_us: self.watermark_us.load(Ordering::Relaxed) }
    }

    fn name(&self) -> &CStr {
        NAME
    }
}

/// The filter of one compaction.
pub(super) struct MemoFilter {
    watermark_us: u64,
}

impl CompactionFilter for MemoFilter {
    fn filter(&mut self, _level: u32, key: &[u8], row: &[u8]) -> CompactionDecision {
        match is_expired_memo(key, row, self.watermark_us) {
            true => CompactionDecision::Remove,
            false => CompactionDecision::Keep,
        }
    }

    fn name(&self) -> &CStr {
        NAME
    }
}
