//! The ledger, as these tests call it.

use std::collections::BTreeMap;

use purser_ledger::apply::{apply_batch, apply_batch_cached};
use purser_ledger::audit::{AuditReport, audit};
use purser_ledger::cache::WalletCache;
use purser_ledger::command::BatchEncoder;
use purser_ledger::ids::{Customer, HoldId, RecordId};
use purser_ledger::query::{self, HoldView, LedgerEntry, OpenView, TrancheView, WalletView};
use purser_ledger::rows::journal::Record;
use purser_ledger::rows::keys;
use purser_ledger::store::{MemStore, Store};
use purser_ledger::time::Time;
use purser_ledger::verdict::{Answer, Balance, WalletInfo};

use super::drafts::Item;

/// The tag of the shard: it must stand in every id that is allocated.
pub const SHARD_TAG: u16 = 7;
/// Movements, tranches or holds read at once.
const PAGE: usize = 1_000;

/// What does not agree, in words.
pub type Check<T = ()> = Result<T, String>;

/// The real core over a store in memory.
#[derive(Clone, Debug, Default)]
pub struct Core {
    store: MemStore,
}

/// The log entry of a batch.
pub fn entry_of(stamp: Time, items: &[Item]) -> Vec<u8> {
    let mut encoder = BatchEncoder::new();
    for item in items {
        match item {
            Item::Command(command) => encoder.push(command),
            Item::Sweep(limit) => encoder.push_sweep(*limit),
        }
    }
    encoder.finish(stamp)
}

impl Core {
    /// Applies an entry; gives the answers and the rolling digest.
    pub fn apply(&mut self, entry: &[u8]) -> Check<(Vec<Answer>, u128)> {
        let applied =
            apply_batch(&self.store, SHARD_TAG, entry).map_err(|error| format!("apply: {error}"))?;
        self.store.commit(&applied.changes);
        Ok((applied.answers, applied.digest))
    }

    /// As [`Core::apply`], with a cache that the batches before have filled.
    pub fn apply_cached(&mut self, cache: &mut WalletCache, entry: &[u8]) -> Check<(Vec<Answer>, u128)> {
        let applied = apply_batch_cached(&self.store, cache, SHARD_TAG, entry);
        let applied = applied.map_err(|error| format!("apply: {error}"))?;
        self.store.commit(&applied.changes);
        Ok((applied.answers, applied.digest))
    }

    /// All rows.
    pub fn rows(&self) -> BTreeMap<Vec<u8>, Vec<u8>> {
        self.store.rows().map(|(key, row)| (key.to_vec(), row.to_vec())).collect()
    }

    /// Whether a sweep would find something to do.
    pub fn something_due(&self, now: Time) -> Check<bool> {
        query::something_due(&self.store, now).map_err(|error| format!("something due: {error}"))
    }

    /// A record of the journal.
    pub fn record(&self, id: RecordId) -> Check<Record> {
        let row = self.store.get(&keys::record(id)).map_err(|error| format!("record: {error}"))?;
        let row = row.ok_or_else(|| format!("there is no record {id:?}"))?;
        Record::decode(id, &row).map_err(|damage| format!("record: {damage}"))
    }

    pub fn wallet(&self, customer: Customer<'_>, wallet: &str, now: Time) -> Check<WalletView> {
        query::wallet(&self.store, customer, wallet, now).map_err(|error| format!("wallet: {error}"))
    }

    /// The attributes of all wallets of a customer.
    pub fn wallets(&self, customer: Customer<'_>) -> Check<Vec<WalletInfo>> {
        query::wallets(&self.store, customer, None, PAGE).map_err(|error| format!("wallets: {error}"))
    }

    pub fn balance(&self, customer: Customer<'_>, wallet: &str, now: Time) -> Check<Balance> {
        query::balance(&self.store, customer, wallet, now).map_err(|error| format!("balance: {error}"))
    }

    pub fn movements(&self, customer: Customer<'_>, wallet: &str, from: u64) -> Check<Vec<LedgerEntry>> {
        query::movements(&self.store, customer, wallet, from, PAGE)
            .map_err(|error| format!("movements: {error}"))
    }

    /// All tranches of a wallet.
    pub fn tranches(&self, customer: Customer<'_>, wallet: &str, now: Time) -> Check<Vec<TrancheView>> {
        let mut all: Vec<TrancheView> = Vec::new();
        loop {
            let after = all.last().map(|view| view.id);
            let views = query::tranches(&self.store, customer, wallet, now, after, false, PAGE)
                .map_err(|error| format!("tranches: {error}"))?;
            let more = views.len() == PAGE;
            all.extend(views);
            if !more {
                return Ok(all);
            }
        }
    }

    pub fn open_tranches(&self, customer: Customer<'_>, wallet: &str, now: Time) -> Check<Vec<OpenView>> {
        query::open_tranches(&self.store, customer, wallet, now)
            .map_err(|error| format!("open tranches: {error}"))
    }

    pub fn hold(&self, customer: Customer<'_>, id: HoldId, now: Time) -> Check<Option<HoldView>> {
        query::hold(&self.store, customer, id, now).map_err(|error| format!("hold: {error}"))
    }

    /// All holds of a wallet, page by page.
    pub fn holds(
        &self,
        customer: Customer<'_>,
        wallet: &str,
        now: Time,
        backwards: bool,
        page: usize,
    ) -> Check<Vec<HoldView>> {
        let mut all: Vec<HoldView> = Vec::new();
        loop {
            let after = all.last().map(|view| view.id);
            let views = query::holds(&self.store, customer, wallet, now, after, backwards, page)
                .map_err(|error| format!("holds: {error}"))?;
            if views.is_empty() {
                return Ok(all);
            }
            all.extend(views);
        }
    }

    pub fn open_holds(
        &self,
        customer: Customer<'_>,
        wallet: &str,
        now: Time,
        limit: usize,
    ) -> Check<Vec<HoldView>> {
        query::open_holds(&self.store, customer, wallet, now, limit)
            .map_err(|error| format!("open holds: {error}"))
    }

    pub fn audit(&self, customer: Customer<'_>, wallet: &str) -> Check<AuditReport> {
        audit(&self.store, customer, wallet).map_err(|error| format!("audit: {error}"))
    }
}
