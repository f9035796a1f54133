//! What an entry means. The state machine knows how to apply safely; a `Machine` knows what.

use purser_ledger::apply::apply_batch;
use purser_ledger::store::{Changes, LocalDamage};

use super::types::Answers;
use crate::storage::ShardStore;

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
pub trait Machine: Send + Sync + 'static {
    /// Applies one entry to the rows. An error is local damage: this replica stops and is replaced.
    fn apply(&self, rows: &ShardStore, entry: &[u8]) -> Result<Outcome, LocalDamage>;
}

/// A shard of the ledger.
#[derive(Clone, Copy, Debug)]
pub struct LedgerMachine {
    /// Marks the ids that the shard gives out.
    pub shard_tag: u16,
}

impl Machine for LedgerMachine {
    fn apply(&self, rows: &ShardStore, entry: &[u8]) -> Result<Outcome, LocalDamage> {
        let applied = apply_batch(rows, self.shard_tag, entry)?;
        Ok(Outcome { changes: applied.changes, answers: applied.answers, time_us: applied.now.0 })
    }
}
