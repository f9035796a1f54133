//! What an entry means. The state machine knows how to apply safely; a `Machine` knows what.

use std::sync::Mutex;

use purser_ledger::apply::apply_batch_cached;
use purser_ledger::cache::WalletCache;
use purser_ledger::command::Batch;
use purser_ledger::store::{Changes, LocalDamage};
use purser_ledger::time::Time;

use super::types::Answers;
use crate::storage::{Generation, ShardStore};

/// What applying an entry came to. Nothing is written yet.
#[derive(Debug)]
pub struct Outcome {
    /// The rows to write and delete.
    pub changes: Changes,
    /// For the proposer, if it is here.
    pub answers: Answers,
    /// The ledger time reached, in microseconds.
    pub time_us: u64,
}

/// What entries mean to one group. Deterministic: it depends on the rows and the entry alone.
///
/// An entry carries its own checksum, made where it was encoded: nothing below adds one that spans
/// the whole way from there through memory, network and disk to every replica's apply.
pub trait Machine: Send + Sync + 'static {
    /// Applies one entry to the rows. It verifies the entry's own checksum before anything else: a
    /// byte that changed on the way is found here or nowhere. An error is local damage: this replica
    /// stops and is replaced.
    fn apply(&self, rows: &ShardStore, entry: &[u8]) -> Result<Outcome, LocalDamage>;

    /// The proposer's clock when it made an entry, if the entry tells it: read cheaply, from a header,
    /// for a follower asks it of every entry before it takes it in.
    fn stamp(&self, entry: &[u8]) -> Option<Time>;
}

/// Decoded wallets kept between batches of one shard: about a kilobyte each.
const CACHED_WALLETS_MAX: usize = 4_096;

/// A shard of the ledger.
#[derive(Debug)]
pub struct LedgerMachine {
    shard_tag: u16,
    cached: Mutex<Cached>,
}

/// Wallets as the last applied batch left them, and the rows that they belong to.
#[derive(Debug)]
struct Cached {
    generation: Generation,
    wallets: WalletCache,
}

impl LedgerMachine {
    /// A shard whose ids carry a tag.
    pub fn new(shard_tag: u16) -> LedgerMachine {
        let cached = Cached { generation: Generation::FIRST, wallets: WalletCache::new(CACHED_WALLETS_MAX) };
        LedgerMachine { shard_tag, cached: Mutex::new(cached) }
    }
}

impl Machine for LedgerMachine {
    fn apply(&self, rows: &ShardStore, entry: &[u8]) -> Result<Outcome, LocalDamage> {
        // A panic in apply stops the group: nobody works on with what it left in the cache.
        let mut cached = self.cached.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if cached.generation != rows.generation() {
            *cached = Cached { generation: rows.generation(), wallets: WalletCache::new(CACHED_WALLETS_MAX) };
        }
        let applied = apply_batch_cached(rows, &mut cached.wallets, self.shard_tag, entry)?;
        Ok(Outcome { changes: applied.changes, answers: applied.answers, time_us: applied.now.0 })
    }

    fn stamp(&self, entry: &[u8]) -> Option<Time> {
        Batch::peek_stamp(entry)
    }
}
