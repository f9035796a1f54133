//! What load is put on: a system that holds wallets of credits, whichever it is.
//!
//! Load, books and reports know a system by this alone, so that every system does the same work and is
//! measured in the same way. A target tries again, under the same key, what it may: an error is an
//! outcome that nobody knows, and it ends the run, because books could not be balanced after it.

use serde::Serialize;

/// A debit under a key of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Debit {
    /// Whose wallet.
    pub customer: String,
    /// The same debit has the same key, however often it is sent.
    pub key: String,
    /// In whole credits.
    pub amount: u64,
}

/// What came of a debit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It was taken.
    Applied,
    /// There was too little.
    Short,
}

/// What a system has written to its log since it started, over all its servers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct LogCounts {
    /// Syncs of the log to the disk.
    pub syncs: u64,
    /// Entries, each counted once, however many replicas hold it.
    pub entries: u64,
    /// Bytes.
    pub bytes: u64,
}

/// A system that holds one wallet a customer. Clones share connections.
pub trait Target: Clone + Send + Sync + 'static {
    /// The client of a number: spreads clients over connections.
    fn client(&self, number: usize) -> Self;

    /// Creates a customer's wallet.
    fn create(&self, customer: &str, key: String) -> impl Future<Output = anyhow::Result<()>> + Send;

    /// Grants four tranches of so many credits each, in one call.
    fn grant(
        &self,
        customer: &str,
        key: String,
        tranche_credits: u64,
    ) -> impl Future<Output = anyhow::Result<()>> + Send;

    /// Debits.
    fn debit(&self, debit: Debit) -> impl Future<Output = anyhow::Result<Verdict>> + Send;

    /// Debits, many in one call; verdicts in the order of the debits.
    fn debit_batch(&self, debits: Vec<Debit>) -> impl Future<Output = anyhow::Result<Vec<Verdict>>> + Send;

    /// Sets one and a half times the amount aside in a call, and spends the amount in another one, which
    /// gives back the rest.
    fn hold_and_capture(&self, _debit: Debit) -> impl Future<Output = anyhow::Result<Verdict>> + Send {
        async { anyhow::bail!("this system has no holds") }
    }

    /// The same for many: the holds in one call, then the captures in another one; verdicts in the order of
    /// the debits.
    fn hold_and_capture_batch(
        &self,
        _debits: Vec<Debit>,
    ) -> impl Future<Output = anyhow::Result<Vec<Verdict>>> + Send {
        async { anyhow::bail!("this system has no holds") }
    }

    /// What is available to a customer, as of now: every debit that was answered before is in it.
    fn available(&self, customer: &str) -> impl Future<Output = anyhow::Result<u64>> + Send;

    /// How many requests were tried again so far.
    fn retries(&self) -> u64;

    /// What was written to the log so far; `None` where the system does not tell.
    fn log(&self) -> impl Future<Output = anyhow::Result<Option<LogCounts>>> + Send {
        async { Ok(None) }
    }
}

impl LogCounts {
    /// What was written since an earlier look.
    pub fn since(self, earlier: LogCounts) -> LogCounts {
        LogCounts {
            syncs: self.syncs.saturating_sub(earlier.syncs),
            entries: self.entries.saturating_sub(earlier.entries),
            bytes: self.bytes.saturating_sub(earlier.bytes),
        }
    }
}
