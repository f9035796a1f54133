//! Reads: wallets, balances, tranches and movements, from a consistent view of a shard.
//!
//! A read is judged at a ledger time and counts what is due by then as if it were booked; it changes
//! nothing. Its cost grows with what it lists. What is due and not booked yet costs it no more than it costs
//! a command, or a little: a read of a wallet with a longer backlog of activations or time-outs has no
//! result ([`ReadError::Backlog`]).

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use crate::amount::Amount;
use crate::burn;
use crate::codec::Reader;
use crate::command::TrancheKind;
use crate::ids::{Customer, HoldId, RecordId, TrancheId, WalletNo};
use crate::rows::hold::{HoldStatus, StoredHold};
use crate::rows::journal::{self, Movement, RUN_MOVEMENTS, Record};
use crate::rows::keys;
use crate::rows::open::OpenTranche;
use crate::rows::tranche::{TrancheLife, TrancheRow};
use crate::store::{LocalDamage, Store};
use crate::time::Time;
use crate::verdict::{Balance, WalletInfo};
use crate::workspace::{Stop, WalletAt, Workspace};

/// Most rows that one page lists.
pub const PAGE_ROWS_MAX: usize = 1_000;

/// Most items that a read goes through, where a command would ask to be sent again: some ten milliseconds.
const READ_BOOKED_MAX: u32 = 1_000;

/// A wallet as a read shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WalletView {
    /// Its attributes.
    pub info: WalletInfo,
    /// Its figures at the ledger time of the read.
    pub balance: Balance,
    /// How many open holds it has at the ledger time of the read.
    pub open_holds: u64,
    /// How many movements it has, booked.
    pub movements: u64,
    /// The hash that its movements chain up to.
    pub chain_head: [u8; 32],
}

/// What a wallet is whatever is due in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BookedWallet {
    /// Its attributes.
    pub info: WalletInfo,
    /// How many movements it has, booked.
    pub movements: u64,
    /// The hash that its movements chain up to.
    pub chain_head: [u8; 32],
}

/// What a tranche is at the ledger time of a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TrancheStatus {
    /// It becomes active at its effective time.
    Scheduled,
    /// It may be spent.
    Active,
    /// All of it was spent.
    Exhausted,
    /// What was left of it lapsed.
    Expired,
    /// It waits for its invoice.
    Pending,
    /// What was left of it was withdrawn.
    Voided,
    /// Its invoice was not paid.
    Failed,
}

/// A tranche as a read shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrancheView {
    /// Its id.
    pub id: TrancheId,
    /// What was granted.
    pub tranche: TrancheRow,
    /// What it is now.
    pub status: TrancheStatus,
    /// What may be spent of it.
    pub available: Amount,
    /// What open holds have set aside of it.
    pub held: Amount,
    /// What was spent of it.
    pub consumed: Amount,
    /// What lapsed of it.
    pub expired: Amount,
    /// What was withdrawn of it.
    pub voided: Amount,
}

/// Who or what a read did not find.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotFound {
    /// The customer has no wallet.
    Customer,
    /// The customer has no such wallet.
    Wallet,
}

/// Why a read has no result: nothing there, or rows that cannot be trusted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// Nothing there.
    #[error("there is no such {}", match .0 { NotFound::Customer => "customer", NotFound::Wallet => "wallet" })]
    NotFound(NotFound),
    /// This replica's rows cannot be trusted.
    #[error(transparent)]
    Damage(#[from] LocalDamage),
    /// More is due in the wallet than a read goes through; the sweep books it.
    #[error("more is due in this wallet than a read goes through; it is being booked")]
    Backlog,
    /// An invariant does not hold.
    #[error("an invariant does not hold: {0}")]
    Fault(&'static str),
}

impl From<Stop> for ReadError {
    fn from(stop: Stop) -> ReadError {
        match stop {
            Stop::Local(damage) => ReadError::Damage(damage),
            Stop::Fault(what) => ReadError::Fault(what),
        }
    }
}

impl From<crate::codec::Damage> for ReadError {
    fn from(damage: crate::codec::Damage) -> ReadError {
        ReadError::Damage(damage.into())
    }
}

/// The ledger time that a shard has reached.
pub fn last_time<S: Store + ?Sized>(store: &S) -> Result<Time, LocalDamage> {
    Ok(Workspace::open(store, 0)?.meta.last_time)
}

/// Whether a sweep at `now` would find something to do.
pub fn something_due<S: Store + ?Sized>(store: &S, now: Time) -> Result<bool, LocalDamage> {
    let meta = Workspace::open(store, 0)?.meta;
    let from = keys::due_wallet(meta.swept_until, meta.swept_wallet);
    let until = keys::due_wallet(Time(now.0.saturating_add(1)), WalletNo(0));
    let mut due = false;
    if from < until {
        store.scan(&from, &until, &mut |_, _| {
            due = true;
            false
        })?;
    }
    Ok(due)
}

/// A wallet, with what is due by `now` counted as booked.
pub fn wallet<S: Store + ?Sized>(
    store: &S,
    customer: Customer<'_>,
    wallet: &str,
    now: Time,
) -> Result<WalletView, ReadError> {
    let BookedWallet { info, movements, chain_head } = booked_wallet(store, customer, wallet)?;
    let (work, at) = settled(store, customer, wallet, now)?;
    let own = work.wallet(at);
    let (balance, open_holds) = (own.balance(work.now()), own.holds.total());
    Ok(WalletView { info, balance, open_holds, movements, chain_head })
}

/// What a wallet is whatever is due in it.
pub fn booked_wallet<S: Store + ?Sized>(
    store: &S,
    customer: Customer<'_>,
    wallet: &str,
) -> Result<BookedWallet, ReadError> {
    let mut work = Workspace::open(store, 0)?;
    let at = find(&mut work, customer, wallet)?;
    let own = work.wallet(at);
    Ok(BookedWallet { info: own.info(wallet), movements: own.movements, chain_head: own.chain_head })
}

/// The figures of a wallet at `now`.
pub fn balance<S: Store + ?Sized>(
    store: &S,
    customer: Customer<'_>,
    wallet: &str,
    now: Time,
) -> Result<Balance, ReadError> {
    let (work, at) = settled(store, customer, wallet, now)?;
    Ok(work.wallet(at).balance(work.now()))
}

/// The attributes of a customer's wallets in order of creation, from the one after `after`.
pub fn wallets<S: Store + ?Sized>(
    store: &S,
    customer: Customer<'_>,
    after: Option<&str>,
    limit: usize,
) -> Result<Vec<WalletInfo>, ReadError> {
    let mut work = Workspace::open(store, 0)?;
    let row = work.customer(&keys::customer(customer))?.ok_or(ReadError::NotFound(NotFound::Customer))?;
    let from = match after {
        None => 0,
        Some(name) => row.wallets.iter().position(|entry| entry.wallet == name).map_or(0, |place| place + 1),
    };
    let mut found = Vec::new();
    for entry in row.wallets.iter().skip(from).take(limit) {
        let at = work.find_wallet(&keys::wallet(customer, &entry.wallet))?;
        let at = at.ok_or(LocalDamage::Missing("a wallet of a customer"))?;
        found.push(work.wallet(at).info(&entry.wallet));
    }
    Ok(found)
}

/// A wallet's tranches in order of creation, from the one after `after`; or, `backwards`, from the
/// one before it.
pub fn tranches<S: Store + ?Sized>(
    store: &S,
    customer: Customer<'_>,
    wallet: &str,
    now: Time,
    after: Option<TrancheId>,
    backwards: bool,
    limit: usize,
) -> Result<Vec<TrancheView>, ReadError> {
    let (work, at) = settled(store, customer, wallet, now)?;
    let no = work.wallet(at).no;
    let prefix = keys::tranches_of(no);
    let (mut from, mut until) = (prefix.clone(), keys::end_of(&prefix));
    match after {
        Some(id) if backwards => until = keys::tranche(no, id),
        Some(id) => from = keys::after(keys::tranche(no, id)),
        None => {}
    }
    let rows = match backwards {
        false => work.scan(&from, &until, limit)?,
        true => {
            // Tranche rows are never deleted: the store has all of them, the workspace newer ones.
            let mut keys_found = Vec::new();
            store
                .scan_back(&from, &until, &mut |key, _| {
                    keys_found.push(key.to_vec());
                    keys_found.len() < limit
                })
                .map_err(LocalDamage::from)?;
            let mut rows = Vec::with_capacity(keys_found.len());
            for key in keys_found {
                let row = work.get(&key)?.ok_or(LocalDamage::Missing("a tranche"))?;
                rows.push((key, row));
            }
            rows
        }
    };
    rows.iter().map(|(key, row)| view_tranche(&work, at, key, row)).collect()
}

fn view_tranche<S: Store + ?Sized>(
    work: &Workspace<'_, S>,
    at: WalletAt,
    key: &[u8],
    row: &[u8],
) -> Result<TrancheView, ReadError> {
    let id = key.last_chunk::<8>().ok_or(LocalDamage::Missing("a tranche id"))?;
    let id = TrancheId(u64::from_be_bytes(*id));
    let tranche = TrancheRow::decode(row)?;
    let zero = Amount::ZERO;
    let held = work.held_of(at, id, &tranche);
    let (mut expired, voided) = (tranche.expired, tranche.voided);
    let (status, pending, available) = match tranche.life {
        TrancheLife::Scheduled => (TrancheStatus::Scheduled, tranche.amount, zero),
        TrancheLife::Pending => (TrancheStatus::Pending, tranche.amount, zero),
        TrancheLife::Expired => (TrancheStatus::Expired, zero, zero),
        TrancheLife::Voided => (TrancheStatus::Voided, zero, zero),
        TrancheLife::Failed => (TrancheStatus::Failed, zero, zero),
        TrancheLife::Open => {
            let mut open = burn::open_part(work, at, id, &tranche)?;
            if tranche.expires_at <= work.now() {
                expired.0 += open.0;
                open = zero;
            }
            let used_up = open == zero && held == zero;
            // One that was wholly held had nothing to be booked at its expiry.
            let status = match tranche.expires_at <= work.now() {
                true if !used_up || expired > zero => TrancheStatus::Expired,
                _ if used_up => TrancheStatus::Exhausted,
                _ => TrancheStatus::Active,
            };
            (status, zero, open)
        }
    };
    let there = [pending, available, held, expired, voided];
    let consumed = Amount(tranche.amount.0 - there.iter().map(|part| part.0).sum::<i128>());
    Ok(TrancheView { id, tranche, status, available, held, consumed, expired, voided })
}

/// A tranche that counts in a balance: active with something available, or scheduled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenView {
    /// Its id.
    pub id: TrancheId,
    /// What sort of credit.
    pub kind: TrancheKind,
    /// What may be spent of it now.
    pub available: Amount,
    /// What open holds have set aside of it.
    pub held: Amount,
    /// What will be, once it is active.
    pub pending: Amount,
    /// Until when, [`Time::NEVER`] for ever.
    pub expires_at: Time,
}

/// The tranches of a wallet that count in its balance at `now`, in order of creation.
pub fn open_tranches<S: Store + ?Sized>(
    store: &S,
    customer: Customer<'_>,
    wallet: &str,
    now: Time,
) -> Result<Vec<OpenView>, ReadError> {
    let (work, at) = settled(store, customer, wallet, now)?;
    let own = work.wallet(at);
    let active = |tranche: &OpenTranche| OpenView {
        id: tranche.id,
        kind: tranche.kind,
        available: tranche.available,
        held: Amount::ZERO,
        pending: Amount::ZERO,
        expires_at: tranche.expires_at,
    };
    // Those that have expired may not all be booked.
    let counts = |tranche: &&OpenTranche| tranche.expires_at > work.now();
    let mut found: BTreeMap<TrancheId, OpenView> =
        own.window.iter().filter(counts).map(|tranche| (tranche.id, active(tranche))).collect();
    if own.overflow.is_some() {
        for_each_row(&work, &keys::open_of(own.no), |_, row| {
            let tranche = OpenTranche::decode(&mut Reader::new(row))?;
            found.extend(Some(&tranche).filter(counts).map(|tranche| (tranche.id, active(tranche))));
            Ok(())
        })?;
    }
    if own.pending > Amount::ZERO {
        for_each_row(&work, &keys::due_of(own.no), |key, _| {
            let due = keys::parse_due(key)?;
            if due.rank == keys::DueRank::Activation {
                let row = work.get(&keys::tranche(own.no, due.tranche))?;
                let row = TrancheRow::decode(&row.ok_or(LocalDamage::Missing("a scheduled tranche"))?)?;
                let (kind, pending, expires_at) = (row.kind, row.amount, row.expires_at);
                let zero = Amount::ZERO;
                let id = due.tranche;
                let view = OpenView { id, kind, available: zero, held: zero, pending, expires_at };
                found.insert(due.tranche, view);
            }
            Ok(())
        })?;
    }
    if own.pending > Amount::ZERO {
        for_each_row(&work, &keys::pending_of(own.no), |key, _| {
            let id = key.last_chunk::<8>().ok_or(LocalDamage::Missing("a tranche id"))?;
            let id = TrancheId(u64::from_be_bytes(*id));
            let row = work.tranche_row(at, id)?;
            let (kind, pending, expires_at) = (row.kind, row.amount, row.expires_at);
            let zero = Amount::ZERO;
            found.insert(id, OpenView { id, kind, available: zero, held: zero, pending, expires_at });
            Ok(())
        })?;
    }
    for (id, held) in held_tranches(&work, at)? {
        let view = match found.entry(id) {
            Entry::Occupied(there) => there.into_mut(),
            Entry::Vacant(place) => {
                // Its end is not its pins': it may have been restored since.
                let row = work.tranche_row(at, id)?;
                let (kind, expires_at, zero) = (row.kind, row.expires_at, Amount::ZERO);
                place.insert(OpenView { id, kind, available: zero, held: zero, pending: zero, expires_at })
            }
        };
        view.held = held;
    }
    Ok(found.into_values().collect())
}

/// How much of which tranches of a wallet is held.
fn held_tranches<S: Store + ?Sized>(
    work: &Workspace<'_, S>,
    at: WalletAt,
) -> Result<BTreeMap<TrancheId, Amount>, ReadError> {
    let own = work.wallet(at);
    let in_row: i128 = own.holds.tranches().iter().map(|(_, held)| held.0).sum();
    if in_row == own.held.0 {
        return Ok(own.holds.tranches().iter().copied().collect());
    }
    // More tranches are held than the wallet's row tells of: its holds know all of them.
    let mut held: BTreeMap<TrancheId, Amount> = BTreeMap::new();
    for (_, row) in open_holds_at(work, at, usize::MAX)? {
        for pin in row.parts.iter().filter(|part| part.wallet_no == own.no).flat_map(|part| &part.pins) {
            held.entry(pin.tranche).or_default().0 += pin.amount.0;
        }
    }
    Ok(held)
}

/// A hold as a read shows it, with its status at the ledger time of the read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HoldView {
    /// Its id.
    pub id: HoldId,
    /// What it has set aside, and what became of it.
    pub hold: StoredHold,
}

impl HoldView {
    fn at(id: HoldId, mut hold: StoredHold, now: Time) -> HoldView {
        hold.state = hold.state.at(now);
        if hold.state.status != HoldStatus::Open {
            hold.parts.iter_mut().for_each(|part| part.pins.clear());
        }
        HoldView { id, hold }
    }
}

/// One hold of a customer at `now`; `None` where the customer has no such hold.
pub fn hold<S: Store + ?Sized>(
    store: &S,
    customer: Customer<'_>,
    id: HoldId,
    now: Time,
) -> Result<Option<HoldView>, ReadError> {
    let mut work = Workspace::open(store, 0)?;
    if work.customer(&keys::customer(customer))?.is_none() {
        return Err(ReadError::NotFound(NotFound::Customer));
    }
    let Some(placed) = work.placed_hold(id)? else { return Ok(None) };
    let mut at = None;
    for part in &placed.parts {
        match work.wallet_of_part(customer, part)? {
            Some(own) => at = Some(own),
            None => return Ok(None),
        }
    }
    let Some(at) = at else { return Ok(None) };
    let hold = work.hold_as_it_is(at, id, placed)?;
    Ok(Some(HoldView::at(id, hold, work.meta.last_time.max(now))))
}

/// The holds that have set something aside in a wallet, in order of placement, from the one after
/// `after`; or, `backwards`, from the one before it.
pub fn holds<S: Store + ?Sized>(
    store: &S,
    customer: Customer<'_>,
    wallet: &str,
    now: Time,
    after: Option<HoldId>,
    backwards: bool,
    limit: usize,
) -> Result<Vec<HoldView>, ReadError> {
    let mut work = Workspace::open(store, 0)?;
    let at = find(&mut work, customer, wallet)?;
    let now = work.meta.last_time.max(now);
    let own = work.wallet(at);
    let prefix = keys::holds_of(own.no);
    let (mut from, mut until) = (prefix.clone(), keys::end_of(&prefix));
    let fits = |id: &HoldId| match after {
        Some(after) if backwards => *id < after,
        Some(after) => *id > after,
        None => true,
    };
    match after {
        Some(id) if backwards => until = keys::hold(own.no, id),
        Some(id) => from = keys::after(keys::hold(own.no, id)),
        None => {}
    }
    // As booked: what is due changes what is told of a hold, and not which there are. Those that stand in the
    // wallet's row have none of their own.
    let mut ids: Vec<HoldId> = own.holds.stated_holds().iter().map(|(_, id)| *id).filter(fits).collect();
    let mut rows = 0;
    let visit = &mut |key: &[u8], _: &[u8]| {
        ids.extend(key.last_chunk::<8>().map(|id| HoldId(u64::from_be_bytes(*id))));
        rows += 1;
        rows < limit
    };
    let scanned = match backwards {
        false => store.scan(&from, &until, visit),
        true => store.scan_back(&from, &until, visit),
    };
    scanned.map_err(LocalDamage::from)?;
    ids.sort_unstable();
    if backwards {
        ids.reverse();
    }
    ids.truncate(limit);
    let mut views = Vec::with_capacity(ids.len());
    for id in ids {
        let hold = stored_hold(&work, at, id)?;
        views.push(HoldView::at(id, hold, now));
    }
    Ok(views)
}

/// The open holds of a wallet at `now`, up to `limit`, the first to time out first.
pub fn open_holds<S: Store + ?Sized>(
    store: &S,
    customer: Customer<'_>,
    wallet: &str,
    now: Time,
    limit: usize,
) -> Result<Vec<HoldView>, ReadError> {
    let (work, at) = settled(store, customer, wallet, now)?;
    let found = open_holds_at(&work, at, limit)?;
    Ok(found.into_iter().map(|(id, hold)| HoldView::at(id, hold, work.now())).collect())
}

fn open_holds_at<S: Store + ?Sized>(
    work: &Workspace<'_, S>,
    at: WalletAt,
    limit: usize,
) -> Result<Vec<(HoldId, StoredHold)>, ReadError> {
    let wallet = work.wallet(at);
    let mut first: Vec<(Time, HoldId)> = wallet.holds.stated_holds().to_vec();
    let mut room = limit;
    for (begin, end) in wallet.holds.spans() {
        let (begin, end) = (keys::hold_due_since(wallet.no, begin), keys::hold_due_since(wallet.no, end));
        for (key, _) in work.scan(&begin, &end, room)? {
            first.push(keys::parse_hold_due(&key)?);
            room -= 1;
        }
        if room == 0 {
            break;
        }
    }
    first.sort_unstable();
    first.truncate(limit);
    first.into_iter().map(|(_, id)| Ok((id, stored_hold(work, at, id)?))).collect()
}

/// One of the holds of a wallet.
fn stored_hold<S: Store + ?Sized>(
    work: &Workspace<'_, S>,
    at: WalletAt,
    id: HoldId,
) -> Result<StoredHold, LocalDamage> {
    let placed = work.placed_hold(id)?.ok_or(LocalDamage::Missing("the movements of a hold"))?;
    work.hold_as_it_is(at, id, placed)
}

fn for_each_row<S: Store + ?Sized>(
    work: &Workspace<'_, S>,
    prefix: &[u8],
    mut visit: impl FnMut(&[u8], &[u8]) -> Result<(), LocalDamage>,
) -> Result<(), LocalDamage> {
    let until = keys::end_of(prefix);
    let mut from = prefix.to_vec();
    loop {
        let rows = work.scan(&from, &until, PAGE_ROWS_MAX)?;
        let Some((last, _)) = rows.last() else { return Ok(()) };
        from = last.clone();
        from.push(0);
        rows.iter().try_for_each(|(key, row)| visit(key, row))?;
    }
}

/// One tranche of a wallet at `now`.
pub fn tranche<S: Store + ?Sized>(
    store: &S,
    customer: Customer<'_>,
    wallet: &str,
    now: Time,
    id: TrancheId,
) -> Result<Option<TrancheView>, ReadError> {
    let before = (id.0 > 0).then(|| TrancheId(id.0 - 1));
    let found = tranches(store, customer, wallet, now, before, false, 1)?;
    Ok(found.into_iter().find(|own| own.id == id))
}

/// What was granted as some tranches of a wallet, in the order of their ids here: their rows, which stay
/// as they were written. `None` for one that is not there.
pub fn granted<S: Store + ?Sized>(
    store: &S,
    customer: Customer<'_>,
    wallet: &str,
    ids: &[TrancheId],
) -> Result<Vec<Option<TrancheRow>>, ReadError> {
    let mut work = Workspace::open(store, 0)?;
    let at = find(&mut work, customer, wallet)?;
    let keys: Vec<_> = ids.iter().map(|id| keys::tranche(work.wallet(at).no, *id)).collect();
    let keys: Vec<_> = keys.iter().map(Vec::as_slice).collect();
    let rows = store.get_many(&keys).map_err(LocalDamage::from)?;
    let decoded = rows.into_iter().map(|row| row.map(|row| TrancheRow::decode(&row)).transpose());
    Ok(decoded.collect::<Result<_, _>>().map_err(LocalDamage::from)?)
}

/// The wallet that a movement belongs to, among a customer's wallets.
pub fn wallet_of_movement<S: Store + ?Sized>(
    store: &S,
    customer: Customer<'_>,
    id: RecordId,
) -> Result<Option<String>, ReadError> {
    let work = Workspace::open(store, 0)?;
    let row = work.customer(&keys::customer(customer))?.ok_or(ReadError::NotFound(NotFound::Customer))?;
    let Some(record) = work.get(&keys::record(id))? else { return Ok(None) };
    let Record::Movement(movement) = Record::decode(id, &record)? else { return Ok(None) };
    let entry = row.wallets.into_iter().find(|entry| entry.no == movement.wallet_no);
    Ok(entry.map(|entry| entry.wallet))
}

/// A movement with its place in its wallet's hash chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LedgerEntry {
    /// Its id.
    pub id: RecordId,
    /// The movement.
    pub movement: Movement,
    /// The head of the chain before it.
    pub previous_hash: [u8; 32],
    /// The head of the chain after it.
    pub hash: [u8; 32],
}

/// A wallet's movements in order of their numbers, from number `from` (1 is the first); as booked.
pub fn movements<S: Store + ?Sized>(
    store: &S,
    customer: Customer<'_>,
    wallet: &str,
    from: u64,
    limit: usize,
) -> Result<Vec<LedgerEntry>, ReadError> {
    let mut work = Workspace::open(store, 0)?;
    let at = find(&mut work, customer, wallet)?;
    let from = from.max(1);
    let until = work.wallet(at).movements.min(from.saturating_add(limit as u64).saturating_sub(1));
    let mut found = Vec::new();
    if from > until {
        return Ok(found);
    }
    for run in (from - 1) / RUN_MOVEMENTS..=(until - 1) / RUN_MOVEMENTS {
        let entries = run_of_movements(&work, at, run)?;
        found.extend(entries.into_iter().filter(|own| (from..=until).contains(&own.movement.number)));
    }
    Ok(found)
}

/// A run of up to 64 movements: walked backwards from its last one, chained forwards.
fn run_of_movements<S: Store + ?Sized>(
    work: &Workspace<'_, S>,
    at: WalletAt,
    run: u64,
) -> Result<Vec<LedgerEntry>, ReadError> {
    let wallet = work.wallet(at);
    let begin = run_begin(work, at, run)?.ok_or(LocalDamage::Missing("the begin of a run of movements"))?;
    let mut id = match run_begin(work, at, run + 1)? {
        None => wallet.last_movement,
        Some(next) => movement(work, next.first)?.0.previous,
    };
    let mut walked = Vec::with_capacity(RUN_MOVEMENTS as usize);
    loop {
        let (movement, row) = movement(work, id)?;
        let previous = movement.previous;
        walked.push((id, movement, row));
        if id == begin.first {
            break;
        }
        if walked.len() as u64 > RUN_MOVEMENTS {
            return Err(LocalDamage::Missing("the first of a run of movements").into());
        }
        id = previous;
    }
    let mut head = begin.head_before;
    let mut entries = Vec::with_capacity(walked.len());
    for (id, movement, row) in walked.into_iter().rev() {
        let previous_hash = head;
        head = journal::chain(&head, &row);
        entries.push(LedgerEntry { id, movement, previous_hash, hash: head });
    }
    Ok(entries)
}

struct RunBegin {
    first: RecordId,
    head_before: [u8; 32],
}

fn run_begin<S: Store + ?Sized>(
    work: &Workspace<'_, S>,
    at: WalletAt,
    run: u64,
) -> Result<Option<RunBegin>, ReadError> {
    let Some(row) = work.get(&keys::run(work.wallet(at).no, run))? else { return Ok(None) };
    let mut reader = Reader::new(&row);
    let first = RecordId(u64::from_be_bytes(reader.array("the begin of a run")?));
    let head_before = reader.array("the begin of a run")?;
    reader.finish("the begin of a run")?;
    Ok(Some(RunBegin { first, head_before }))
}

/// One movement of a wallet; `None` where the record is not one of its movements.
pub fn movement_by_id<S: Store + ?Sized>(
    store: &S,
    customer: Customer<'_>,
    wallet: &str,
    id: RecordId,
) -> Result<Option<LedgerEntry>, ReadError> {
    let mut work = Workspace::open(store, 0)?;
    let at = find(&mut work, customer, wallet)?;
    let Some(row) = work.get(&keys::record(id))? else { return Ok(None) };
    match Record::decode(id, &row)? {
        Record::Movement(movement) if movement.wallet_no == work.wallet(at).no => {
            let run = run_of_movements(&work, at, (movement.number - 1) / RUN_MOVEMENTS)?;
            Ok(run.into_iter().find(|own| own.id == id))
        }
        _ => Ok(None),
    }
}

fn movement<S: Store + ?Sized>(
    work: &Workspace<'_, S>,
    id: RecordId,
) -> Result<(Movement, Vec<u8>), ReadError> {
    let row = work.get(&keys::record(id))?.ok_or(LocalDamage::Missing("a movement"))?;
    match Record::decode(id, &row)? {
        Record::Movement(movement) => Ok((movement, row)),
        Record::Wallet(_) | Record::Hold(_) | Record::Tranche(_) => {
            Err(LocalDamage::Missing("a movement").into())
        }
    }
}

/// A wallet at hand, as it is booked.
pub(crate) fn find<S: Store + ?Sized>(
    work: &mut Workspace<'_, S>,
    customer: Customer<'_>,
    wallet: &str,
) -> Result<WalletAt, ReadError> {
    match work.find_wallet(&keys::wallet(customer, wallet))? {
        Some(at) => Ok(at),
        None if work.customer(&keys::customer(customer))?.is_none() => {
            Err(ReadError::NotFound(NotFound::Customer))
        }
        None => Err(ReadError::NotFound(NotFound::Wallet)),
    }
}

/// A throw-away workspace in which what is due in a wallet by `now` is booked, but for expiries that a
/// [`Lapse`](crate::rows::wallet::Lapse) sums up.
fn settled<'s, S: Store + ?Sized>(
    store: &'s S,
    customer: Customer<'_>,
    wallet: &str,
    now: Time,
) -> Result<(Workspace<'s, S>, WalletAt), ReadError> {
    let mut work = Workspace::open(store, 0)?;
    work.meta.last_time = work.meta.last_time.max(now);
    let at = find(&mut work, customer, wallet)?;
    if work.settle(at)? {
        return Ok((work, at));
    }
    match work.book_due(at, READ_BOOKED_MAX)?.more {
        true => Err(ReadError::Backlog),
        false => Ok((work, at)),
    }
}
