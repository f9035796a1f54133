//! What the commands of one batch work on: the store's rows under the changes made so far.
//!
//! Wallets are decoded once a batch and encoded once. A command that fails is taken back to its
//! last checkpoint, whole: rows, wallets and counters.

use std::collections::BTreeMap;

use indexmap::IndexMap;
use xxhash_rust::xxh3::Xxh3Builder;

use crate::amount::Amount;
use crate::cache::WalletCache;
use crate::codec::Damage;
use crate::ids::{Customer, HoldId, OperationId, RecordId, TrancheId};
use crate::rows::customer::CustomerRow;
use crate::rows::hold::StoredHold;
use crate::rows::journal::{self, NewMovement, Place, RUN_MOVEMENTS};
use crate::rows::keys::{self, Key};
use crate::rows::meta::Meta;
use crate::rows::tranche::TrancheRow;
use crate::rows::wallet::Wallet;
use crate::store::{Changes, LocalDamage, Store};
use crate::time::Time;

/// Why a command did not come to a reply.
#[derive(Debug)]
pub enum Stop {
    /// This replica's rows cannot be trusted: the replica stops.
    Local(LocalDamage),
    /// An invariant does not hold on good rows: alike on every replica.
    Fault(&'static str),
}

impl<E: Into<LocalDamage>> From<E> for Stop {
    fn from(error: E) -> Stop {
        Stop::Local(error.into())
    }
}

/// A wallet at hand, by its place among the wallets of the batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WalletAt(usize);

struct Slot {
    wallet: Box<Wallet>,
    /// Differs from its row.
    dirty: bool,
    /// Saved for roll-back since the last checkpoint.
    saved: bool,
}

/// The rows of a shard as the batch has made them so far.
pub struct Workspace<'s, S: ?Sized> {
    store: &'s S,
    /// Counters, ledger time, digest.
    pub meta: Meta,
    /// Rows changed so far, wallets apart.
    pub changes: Changes,
    wallets: IndexMap<Key, Slot, Xxh3Builder>,
    saved: Vec<(usize, Option<Wallet>)>,
    saved_meta: Meta,
    /// Holds that commands of the batch are about, as they were placed: that never changes.
    foreseen: BTreeMap<HoldId, StoredHold>,
}

impl<'s, S: Store + ?Sized> Workspace<'s, S> {
    /// A workspace in which nothing is changed.
    pub fn open(store: &'s S, shard_tag: u16) -> Result<Self, LocalDamage> {
        let meta = match store.get(keys::META)? {
            Some(row) => Meta::decode(&row)?,
            None => Meta::new(shard_tag),
        };
        Ok(Workspace {
            store,
            meta,
            changes: Changes::new(),
            wallets: IndexMap::default(),
            saved: Vec::new(),
            saved_meta: meta,
            foreseen: BTreeMap::new(),
        })
    }

    /// What is done up to here stays: a later roll-back comes back to this moment.
    pub fn checkpoint(&mut self) {
        self.changes.begin();
        self.saved_meta = self.meta;
        for (place, _) in self.saved.drain(..) {
            self.wallets[place].saved = false;
        }
    }

    /// Takes back all since the last checkpoint.
    pub fn roll_back(&mut self) {
        self.changes.roll_back();
        self.meta = self.saved_meta;
        while let Some((place, before)) = self.saved.pop() {
            match before {
                Some(wallet) => {
                    let slot = &mut self.wallets[place];
                    *slot.wallet = wallet;
                    slot.saved = false;
                }
                // A wallet created since then is the newest one.
                None => drop(self.wallets.pop()),
            }
        }
    }

    /// Whether every wallet touched since the last checkpoint is sound.
    pub fn check_touched(&self) -> Result<(), &'static str> {
        self.saved.iter().try_for_each(|(place, _)| self.wallets[*place].wallet.check())
    }

    /// Marks a customer and its wallets, so that none of its commands is taken until someone has looked.
    /// To be called right after a roll-back, and to be followed by a checkpoint.
    pub fn quarantine(&mut self, customer: Customer<'_>) -> Result<(), LocalDamage> {
        let key = keys::customer(customer);
        let mut row = self.customer(&key)?.unwrap_or_default();
        row.quarantined = true;
        for entry in &row.wallets {
            let wallet_key = keys::wallet(customer, &entry.wallet);
            if let Some(place) = self.wallets.get_index_of(&wallet_key) {
                self.wallet_mut(WalletAt(place)).quarantined = true;
            } else if let Some(row) = self.store.get(&wallet_key)? {
                // As it is: it may be the one that is not sound.
                let wallet = Wallet { quarantined: true, ..Wallet::decode(&row)? };
                self.create_wallet(wallet_key, wallet);
            }
        }
        self.changes.put(key, row.encode());
        Ok(())
    }

    /// The row under a key, of any table but `W`.
    pub fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, LocalDamage> {
        match self.changes.get(key) {
            Some(change) => Ok(change.clone()),
            None => Ok(self.store.get(key)?),
        }
    }

    /// The first `limit` rows with `from <= key < until`, of an ordered table.
    pub fn scan(&self, from: &[u8], until: &[u8], limit: usize) -> Result<Vec<(Key, Vec<u8>)>, LocalDamage> {
        if from >= until {
            return Ok(Vec::new());
        }
        let mut found: Vec<(Key, Vec<u8>)> = Vec::new();
        let mut changed = self.changes.range(from, until).peekable();
        self.store.scan(from, until, &mut |key, row| {
            while let Some((own, change)) = changed.next_if(|(own, _)| own.as_slice() < key) {
                if let Some(row) = change {
                    found.push((own.clone(), row.clone()));
                }
            }
            match changed.next_if(|(own, _)| own.as_slice() == key) {
                Some((_, None)) => {}
                Some((_, Some(row))) => found.push((key.to_vec(), row.clone())),
                None => found.push((key.to_vec(), row.to_vec())),
            }
            found.len() < limit
        })?;
        for (own, change) in changed {
            if found.len() >= limit {
                break;
            }
            if let Some(row) = change {
                found.push((own.clone(), row.clone()));
            }
        }
        found.truncate(limit);
        Ok(found)
    }

    /// Brings a wallet to hand that the cache has.
    pub fn adopt_cached(&mut self, cache: &mut WalletCache, key: &[u8]) -> bool {
        if self.wallets.contains_key(key) {
            return true;
        }
        let Some((key, wallet)) = cache.take(key) else { return false };
        self.wallets.insert(key, Slot { wallet, dirty: false, saved: false });
        true
    }

    /// Brings wallets to hand whose rows were read ahead.
    pub fn adopt(&mut self, key: Key, row: &[u8]) -> Result<(), Stop> {
        if self.wallets.contains_key(&key) {
            return Ok(());
        }
        let wallet = decode_wallet(row)?;
        self.wallets.insert(key, Slot { wallet: Box::new(wallet), dirty: false, saved: false });
        Ok(())
    }

    /// Keeps a hold that was read ahead for the command about it. Its wallet's id; `None` where the row
    /// does not place a hold, or not the whole of it.
    pub fn foresee_hold(&mut self, id: HoldId, row: &[u8]) -> Result<Option<&str>, LocalDamage> {
        match Self::part_placed_in(id, 0, row)? {
            Some((movement, placed)) if placed.parts == 1 => {
                let hold = StoredHold::placed(movement, placed);
                self.foreseen.insert(id, hold);
                let part = self.foreseen.get(&id).and_then(|hold| hold.parts.first());
                Ok(part.map(|part| part.wallet.as_str()))
            }
            _ => Ok(None),
        }
    }

    /// A hold that was read ahead, as it was placed, once.
    pub fn foreseen_hold(&mut self, id: HoldId) -> Option<StoredHold> {
        self.foreseen.remove(&id)
    }

    /// The wallet under a `W` key, if there is one.
    pub fn find_wallet(&mut self, key: &[u8]) -> Result<Option<WalletAt>, Stop> {
        if let Some(place) = self.wallets.get_index_of(key) {
            return Ok(Some(WalletAt(place)));
        }
        let Some(row) = self.store.get(key)? else { return Ok(None) };
        let slot = Slot { wallet: Box::new(decode_wallet(&row)?), dirty: false, saved: false };
        Ok(Some(WalletAt(self.wallets.insert_full(key.to_vec(), slot).0)))
    }

    /// A wallet at hand.
    pub fn wallet(&self, at: WalletAt) -> &Wallet {
        &self.wallets[at.0].wallet
    }

    /// The id of a wallet at hand.
    pub fn wallet_name(&self, at: WalletAt) -> Result<&str, Damage> {
        let key = self.wallets.get_index(at.0).map(|(key, _)| key).ok_or(Damage("wallet"))?;
        Ok(keys::wallet_names(key)?.2)
    }

    /// The `W` key of a wallet at hand.
    pub fn wallet_key(&self, at: WalletAt) -> Result<Key, Damage> {
        self.wallets.get_index(at.0).map(|(key, _)| key.clone()).ok_or(Damage("wallet"))
    }

    /// A wallet at hand, to be changed.
    pub fn wallet_mut(&mut self, at: WalletAt) -> &mut Wallet {
        let slot = &mut self.wallets[at.0];
        if !slot.saved {
            slot.saved = true;
            self.saved.push((at.0, Some(Wallet::clone(&slot.wallet))));
        }
        slot.dirty = true;
        &mut slot.wallet
    }

    /// Brings a wallet to hand that is not, as one that was changed.
    pub fn create_wallet(&mut self, key: Key, wallet: Wallet) -> WalletAt {
        let (place, _) =
            self.wallets.insert_full(key, Slot { wallet: Box::new(wallet), dirty: true, saved: true });
        self.saved.push((place, None));
        WalletAt(place)
    }

    /// The row of a tranche that is there.
    pub fn tranche_row(&self, at: WalletAt, id: TrancheId) -> Result<TrancheRow, LocalDamage> {
        self.find_tranche(at, id)?.ok_or(LocalDamage::Missing("a tranche"))
    }

    /// The row of a tranche of a wallet, if it is there.
    pub fn find_tranche(&self, at: WalletAt, id: TrancheId) -> Result<Option<TrancheRow>, LocalDamage> {
        let row = self.get(&keys::tranche(self.wallet(at).no, id))?;
        Ok(row.map(|row| TrancheRow::decode(&row)).transpose()?)
    }

    /// A customer's row, if it is there.
    pub fn customer(&self, key: &[u8]) -> Result<Option<CustomerRow>, LocalDamage> {
        Ok(self.get(key)?.map(|row| CustomerRow::decode(&row)).transpose()?)
    }

    /// Writes a movement of a wallet whose totals are already those after it, and chains it.
    pub fn post(
        &mut self,
        at: WalletAt,
        id: RecordId,
        operation: OperationId,
        movement: &NewMovement<'_>,
        lapse_counts: bool,
    ) -> Place {
        let booked_at = self.meta.last_time;
        let wallet = self.wallet_mut(at);
        let mut balance_after = wallet.balance(booked_at);
        if lapse_counts {
            balance_after.available = wallet.available;
        }
        wallet.movements += 1;
        let place = Place {
            id,
            operation,
            wallet_no: wallet.no,
            number: wallet.movements,
            previous: wallet.last_movement,
            booked_at,
            settled_after: Amount(wallet.available.0 + wallet.held.0),
            balance_after,
        };
        let row = journal::encode_movement(&place, movement);
        let head_before = wallet.chain_head;
        wallet.chain_head = journal::chain(&head_before, &row);
        wallet.last_movement = id;
        let (no, number) = (wallet.no, wallet.movements);
        if (number - 1) % RUN_MOVEMENTS == 0 {
            let mut begin = id.0.to_be_bytes().to_vec();
            begin.extend_from_slice(&head_before);
            self.changes.put(keys::run(no, (number - 1) / RUN_MOVEMENTS), begin);
        }
        self.changes.put(keys::record(id), row);
        place
    }

    /// Ends the batch: wallets are written to their rows, the digest rolls on.
    pub fn finish(mut self, cache: &mut WalletCache) -> (Changes, Meta) {
        for (key, slot) in std::mem::take(&mut self.wallets) {
            if slot.dirty {
                self.changes.put(key.clone(), slot.wallet.encode());
            }
            cache.put(key, slot.wallet);
        }
        self.changes.sort();
        self.meta.digest = self.changes.digest(self.meta.digest);
        self.changes.put(keys::META.to_vec(), self.meta.encode());
        (self.changes, self.meta)
    }

    /// The ledger time at which the current command is judged.
    pub fn now(&self) -> Time {
        self.meta.last_time
    }
}

fn decode_wallet(row: &[u8]) -> Result<Wallet, Stop> {
    let wallet = Wallet::decode(row)?;
    // A row that decodes and is unsound was written so: alike on every replica. Once that is known nothing
    // changes it any more.
    if !wallet.quarantined {
        wallet.check().map_err(Stop::Fault)?;
    }
    Ok(wallet)
}
