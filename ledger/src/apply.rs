//! Applying one log entry: the order of judgement, idempotency, containment.
//!
//! A command is judged in this order: the verdict stored under its key; its deadline; existence;
//! quarantine; what is due in the wallets that it touches is booked; frozen; scope; precision and
//! overflow; credits. The first refusal wins. Every refusal from existence on is a verdict and is
//! stored; bookings stay, whatever becomes of the command.
//!
//! Containment: where an invariant fails on good rows, the command's effects are taken back, its
//! customer is quarantined, the answer is [`Reply::Fault`], and the batch goes on: alike on every
//! replica. Damage of rows or entry is local: the whole batch is refused with [`LocalDamage`], and
//! nothing is written.

use sha2::{Digest, Sha256};

use crate::amount::{Amount, Asset};
use crate::booking::Moved;
use crate::cache::WalletCache;
use crate::command::{Batch, ChargeType, Command, Debit, Hold, Item, Operation, Payer};
use crate::hold::{HoldAt, HoldDone};
use crate::ids::{Customer, HoldId, OperationId, RecordId};
use crate::rows::customer::CustomerRow;
use crate::rows::hold::HoldState;
use crate::rows::journal::{Movement, Record};
use crate::rows::keys::{self, Key};
use crate::rows::memo::{HoldMemo, Memo, Outcome};
use crate::simulation::{self, Bug};
use crate::store::{Changes, LocalDamage, Store};
use crate::time::Time;
use crate::verdict::{
    Answer, Applied as AppliedVerdict, Denial, Effect, Posted, Reason, Reply, Verdict, WalletBalance,
};
use crate::workspace::{Stop, WalletAt, Workspace};

/// What a batch came to. Nothing is written yet: the caller commits the changes in one atomic write
/// with the index that it applied.
#[derive(Debug)]
pub struct Applied {
    /// The rows to write and delete.
    pub changes: Changes,
    /// An answer for each item, in order.
    pub answers: Vec<Answer>,
    /// The shard's rolling digest after the batch.
    pub digest: u128,
    /// The ledger time that the batch was judged at.
    pub now: Time,
}

/// Applies one batch to a shard. `shard_tag` marks the ids of a shard in which nothing has happened
/// yet; afterwards the shard's own row tells it.
pub fn apply_batch<S: Store + ?Sized>(
    store: &S,
    shard_tag: u16,
    entry: &[u8],
) -> Result<Applied, LocalDamage> {
    apply_batch_cached(store, &mut WalletCache::new(0), shard_tag, entry)
}

/// As [`apply_batch`], with the wallets that the batches before have left in a cache. After an error,
/// or where the changes are not committed, the cache must be thrown away.
pub fn apply_batch_cached<S: Store + ?Sized>(
    store: &S,
    cache: &mut WalletCache,
    shard_tag: u16,
    entry: &[u8],
) -> Result<Applied, LocalDamage> {
    let batch = Batch::decode(entry)?;
    let mut work = Workspace::open(store, shard_tag)?;
    work.meta.last_time = work.meta.last_time.max(batch.stamp);
    if simulation::has(Bug::TimeGoesBack) {
        work.meta.last_time = batch.stamp;
    }
    #[cfg(madsim)]
    if simulation::has(Bug::ClockInApply) {
        let clock = std::time::UNIX_EPOCH.elapsed().unwrap_or_default();
        work.meta.last_time.0 += u64::from(clock.subsec_micros());
    }
    work.checkpoint();
    let memos = read_ahead(store, cache, &mut work, &batch)?;
    let mut answers = Vec::with_capacity(batch.items.len());
    for (item, memo) in batch.items.iter().zip(memos) {
        let reply = match item {
            Item::Command { command, body } => contained(&mut work, command, body, memo)?,
            Item::Sweep { limit } => sweep(&mut work, *limit)?,
        };
        work.checkpoint();
        answers.push(Answer { now: work.now(), reply });
    }
    let now = work.now();
    let (changes, meta) = work.finish(cache);
    Ok(Applied { changes, answers, digest: meta.digest, now })
}

/// The verdict that a debit would have at `now`, changing nothing. `None`: a backlog of due items
/// has to be booked first.
pub fn explain<S: Store + ?Sized>(
    store: &S,
    now: Time,
    customer: Customer<'_>,
    debit: &Debit<'_>,
) -> Result<Option<Verdict>, LocalDamage> {
    let mut work = Workspace::open(store, 0)?;
    work.meta.last_time = work.meta.last_time.max(now);
    let header = crate::command::Header {
        customer,
        key: "explain",
        valid_until: Time::NEVER,
        retention: crate::time::Span(0),
        actor: "",
    };
    let command = Command { header, operation: Operation::Debit(debit.clone()) };
    match judge(&mut work, &command) {
        Ok(judged) => Ok(judged.map(|judged| judged.verdict)),
        Err(Stop::Local(damage)) => Err(damage),
        Err(Stop::Fault(what)) => Err(LocalDamage::Missing(what)),
    }
}

/// A command's stored verdict, read ahead, under its key.
struct MemoAt {
    key: Key,
    row: Option<Vec<u8>>,
}

/// Reads all rows that the batch will surely ask for and that are not cached, in one go.
fn read_ahead<S: Store + ?Sized>(
    store: &S,
    cache: &mut WalletCache,
    work: &mut Workspace<'_, S>,
    batch: &Batch<'_>,
) -> Result<Vec<MemoAt>, LocalDamage> {
    let mut memo_keys = Vec::with_capacity(batch.items.len());
    let mut wallet_keys = Vec::new();
    let mut holds = Vec::new();
    for item in &batch.items {
        let Item::Command { command, .. } = item else {
            memo_keys.push(Key::new());
            continue;
        };
        let customer = command.header.customer;
        memo_keys.push(keys::memo(customer, command.header.key));
        if let Some(wallet) = named_wallet(&command.operation) {
            let key = keys::wallet(customer, wallet);
            if !work.adopt_cached(cache, &key) {
                wallet_keys.push(key);
            }
        }
        if let Some((hold, record)) = named_hold(&command.operation) {
            holds.push((customer, hold, keys::record(record)));
        }
    }
    let asked = memo_keys.iter().filter(|key| !key.is_empty()).chain(&wallet_keys);
    let asked = asked.chain(holds.iter().map(|(_, _, key)| key));
    let asked: Vec<&[u8]> = asked.map(Vec::as_slice).collect();
    let mut rows = store.get_many(&asked)?.into_iter();
    let mut memos = Vec::with_capacity(memo_keys.len());
    for key in memo_keys {
        let row = if key.is_empty() { None } else { rows.next().flatten() };
        memos.push(MemoAt { key, row });
    }
    adopt_all(work, wallet_keys, &mut rows)?;
    // Which wallet a hold is of is known from how it was placed.
    let mut wallet_keys = Vec::new();
    for ((customer, hold, _), row) in holds.into_iter().zip(rows) {
        let Some(row) = row else { continue };
        let Some(wallet) = work.foresee_hold(hold, &row)? else { continue };
        let key = keys::wallet(customer, wallet);
        if !work.adopt_cached(cache, &key) {
            wallet_keys.push(key);
        }
    }
    let asked: Vec<&[u8]> = wallet_keys.iter().map(Vec::as_slice).collect();
    let rows = if asked.is_empty() { Vec::new() } else { store.get_many(&asked)? };
    adopt_all(work, wallet_keys, &mut rows.into_iter())?;
    Ok(memos)
}

/// Brings wallets to hand whose rows were read ahead.
fn adopt_all<S: Store + ?Sized>(
    work: &mut Workspace<'_, S>,
    keys: Vec<Key>,
    rows: &mut impl Iterator<Item = Option<Vec<u8>>>,
) -> Result<(), LocalDamage> {
    for (key, row) in keys.into_iter().zip(rows) {
        let Some(row) = row else { continue };
        match work.adopt(key, &row) {
            // An unsound wallet is met again, and contained, when its command is judged.
            Ok(()) | Err(Stop::Fault(_)) => {}
            Err(Stop::Local(damage)) => return Err(damage),
        }
    }
    Ok(())
}

/// The hold that a command names, and the movement that placed it if there is such a hold.
fn named_hold(operation: &Operation<'_>) -> Option<(HoldId, RecordId)> {
    let hold = match operation {
        Operation::ExtendHold(extend) => extend.hold,
        Operation::Capture(capture) => capture.hold,
        Operation::Release(release) => release.hold,
        _ => return None,
    };
    Some((hold, hold.placed_by(0)?))
}

fn named_wallet<'a>(operation: &Operation<'a>) -> Option<&'a str> {
    match operation {
        Operation::Debit(Debit { payer: Payer::Wallet(wallet), .. })
        | Operation::Hold(Hold { payer: Payer::Wallet(wallet), .. }) => Some(wallet),
        Operation::Debit(_) | Operation::Hold(_) => None,
        Operation::ExtendHold(_) | Operation::Capture(_) | Operation::Release(_) => None,
        Operation::Refund(_) => None,
        Operation::UpdateWallet(update) => Some(update.wallet),
        Operation::CloseWallet(close) => Some(close.wallet),
        Operation::EndGrant(end) => Some(end.wallet),
        Operation::ConfirmGrant(confirm) => Some(confirm.wallet),
        Operation::Adjust(adjust) => Some(adjust.wallet),
        Operation::CreateWallet(create) => Some(create.wallet),
        Operation::FreezeWallet(freeze) => Some(freeze.wallet),
        Operation::Grant(grant) => Some(grant.wallet),
    }
}

fn sweep<S: Store + ?Sized>(work: &mut Workspace<'_, S>, limit: u32) -> Result<Reply, LocalDamage> {
    match work.sweep(limit) {
        Ok(swept) => Ok(Reply::Swept { booked: swept.items, more: swept.more }),
        Err(Stop::Local(damage)) => Err(damage),
        // Contained already: the next sweep goes on behind it.
        Err(Stop::Fault(what)) => Ok(Reply::Fault(what)),
    }
}

/// Judges a command, and contains it where an invariant fails.
fn contained<S: Store + ?Sized>(
    work: &mut Workspace<'_, S>,
    command: &Command<'_>,
    body: &[u8],
    memo: MemoAt,
) -> Result<Reply, LocalDamage> {
    let outcome = answer(work, command, body, memo).and_then(|reply| {
        work.check_touched().map_err(Stop::Fault)?;
        Ok(reply)
    });
    match outcome {
        Ok(reply) => Ok(reply),
        Err(Stop::Local(damage)) => Err(damage),
        Err(Stop::Fault(what)) => {
            work.roll_back();
            work.quarantine(command.header.customer)?;
            Ok(Reply::Fault(what))
        }
    }
}

fn answer<S: Store + ?Sized>(
    work: &mut Workspace<'_, S>,
    command: &Command<'_>,
    body: &[u8],
    memo: MemoAt,
) -> Result<Reply, Stop> {
    let now = work.now();
    let fingerprint = fingerprint(body);
    if simulation::has(Bug::PoisonedCommand) && fingerprint[0] < 3 {
        return Err(LocalDamage::Missing("what only a poisoned command asks for").into());
    }
    let row = match work.changes.get(&memo.key) {
        Some(change) => change.clone(),
        None => memo.row,
    };
    if let Some(stored) = row.map(|row| Memo::decode(&row)).transpose()?
        && now < stored.expires_at
    {
        if stored.fingerprint != fingerprint && !simulation::has(Bug::KeysNotCompared) {
            return Ok(Reply::KeyReused);
        }
        let verdict = replay(work, command.header.customer, stored.outcome)?;
        return Ok(Reply::Verdict { replayed: true, verdict });
    }
    let header = &command.header;
    if now >= header.valid_until {
        return Ok(Reply::KeyTooOld);
    }
    let Some(judged) = judge(work, command)? else { return Ok(Reply::Backlog) };
    let expires_at = now.saturating_add(header.retention).max(header.valid_until);
    let memo_row = Memo { expires_at, fingerprint, outcome: judged.outcome };
    let forgotten = simulation::has(Bug::DenialForgotten) && matches!(judged.verdict, Verdict::Denied(_));
    if !forgotten {
        work.changes.put(memo.key, memo_row.encode());
    }
    Ok(Reply::Verdict { replayed: false, verdict: judged.verdict })
}

/// A hash of a request's canonical body: the same request has the same.
fn fingerprint(body: &[u8]) -> [u8; 16] {
    let digest: [u8; 32] = Sha256::digest(body).into();
    let mut fingerprint = [0; 16];
    fingerprint.copy_from_slice(&digest[..16]);
    fingerprint
}

/// A verdict, and what is to be remembered of it.
struct Judged {
    verdict: Verdict,
    outcome: Outcome,
}

impl Judged {
    fn denied(reason: Reason) -> Judged {
        Judged::denial(reason.into())
    }

    fn denial(denial: Denial) -> Judged {
        Judged { verdict: Verdict::Denied(denial), outcome: Outcome::Denied(denial) }
    }

    fn wallet(changed: crate::wallets::WalletChanged) -> Judged {
        let operation = changed.operation;
        let effect = Effect::Wallet(changed.info);
        Judged {
            verdict: Verdict::Applied(AppliedVerdict { operation, effect }),
            outcome: Outcome::Applied {
                operation,
                records: 1,
                remaining: None,
                hold: None,
                bystanders: Vec::new(),
            },
        }
    }

    /// Movements over wallets at hand; those that none of them touched are bystanders.
    fn posted<S: Store + ?Sized>(
        work: &Workspace<'_, S>,
        operation: OperationId,
        movements: Vec<Posted>,
        remaining: Option<Amount>,
        hold: Option<Box<(HoldId, HoldState)>>,
        wallets: &[WalletAt],
    ) -> Result<Judged, Stop> {
        let balances: Result<Vec<_>, Stop> = wallets.iter().map(|&at| balance_of(work, at)).collect();
        let balances = balances?;
        let bystanders = match (wallets.len(), movements.len()) {
            (1, 1..) => Vec::new(),
            _ => balances
                .iter()
                .enumerate()
                .filter(|(place, _)| movements.iter().all(|own| own.balance != *place))
                .map(|(place, balance)| (place as u64, balance.clone()))
                .collect(),
        };
        let remembered = hold.as_ref().map(|hold| {
            let (id, state) = (hold.0, hold.1.clone());
            Box::new(HoldMemo { id, state, places: places_of(&movements) })
        });
        // Where no credits moved, a record tells what happened.
        let records = movements.len().max(1) as u64;
        let effect = Effect::Posted { movements, balances, remaining, hold };
        Ok(Judged {
            verdict: Verdict::Applied(AppliedVerdict { operation, effect }),
            outcome: Outcome::Applied { operation, records, remaining, hold: remembered, bystanders },
        })
    }
}

/// The places of the wallets that movements name, in the order of the movements; empty where that is the
/// order of the places.
fn places_of(movements: &[Posted]) -> Vec<u64> {
    let mut places: Vec<u64> = Vec::new();
    for movement in movements {
        if !places.contains(&(movement.balance as u64)) {
            places.push(movement.balance as u64);
        }
    }
    if places.is_sorted() { Vec::new() } else { places }
}

fn balance_of<S: Store + ?Sized>(work: &Workspace<'_, S>, at: WalletAt) -> Result<WalletBalance, Stop> {
    let wallet = work.wallet(at);
    Ok(WalletBalance {
        wallet: work.wallet_name(at)?.to_owned(),
        asset_code: wallet.asset_code.to_string(),
        asset_scale: wallet.asset_scale,
        balance: wallet.balance(work.now()),
    })
}

/// The verdict, with its effect; `None` where a backlog of due items stands before it.
fn judge<S: Store + ?Sized>(
    work: &mut Workspace<'_, S>,
    command: &Command<'_>,
) -> Result<Option<Judged>, Stop> {
    let header = &command.header;
    if let Operation::CreateWallet(create) = &command.operation {
        return Ok(Some(match work.create_wallet_of(header, create)? {
            Ok(changed) => Judged::wallet(changed),
            Err(reason) => Judged::denied(reason),
        }));
    }
    let Touched { wallets, subject } = match touched(work, command)? {
        Ok(touched) => touched,
        Err(reason) => return Ok(Some(Judged::denied(reason))),
    };
    let mut settled = true;
    for &at in &wallets {
        settled &= work.settle(at)?;
    }
    work.check_touched().map_err(Stop::Fault)?;
    work.checkpoint();
    if !settled {
        return Ok(None);
    }
    let Some(&first) = wallets.first() else { return Err(Stop::Fault("a command without a wallet")) };
    if !matches!(subject, Subject::Hold(_)) && work.wallet(first).closed {
        return Ok(Some(Judged::denied(Reason::WalletClosed)));
    }
    Ok(Some(match &command.operation {
        Operation::CreateWallet(_) => return Err(Stop::Fault("a wallet is created once")),
        Operation::UpdateWallet(update) => changed(work.update_wallet(header, update, first)?),
        Operation::FreezeWallet(freeze) => Judged::wallet(work.freeze_wallet(header, freeze, first)?),
        Operation::CloseWallet(close) => changed(work.close_wallet(header, close, first)?),
        Operation::Grant(grant) => {
            let granted = work.grant(header, grant, first)?;
            moved(work, granted.map_err(Denial::from), &wallets)?
        }
        Operation::ConfirmGrant(confirm) => {
            let Some(granted) = work.confirm_grant(header, confirm, first)? else { return Ok(None) };
            moved(work, granted.map_err(Denial::from), &wallets)?
        }
        Operation::EndGrant(end) => {
            let ended = work.end_grant(header, end, first)?;
            moved(work, ended.map_err(Denial::from), &wallets)?
        }
        Operation::Refund(refund) => {
            let Subject::Movement(id, movement) = subject else {
                return Err(Stop::Fault("a refund without a movement"));
            };
            let Some(refunded) = work.refund(header, refund, (id, *movement), first)? else {
                return Ok(None);
            };
            moved(work, refunded.map_err(Denial::from), &wallets)?
        }
        Operation::Adjust(adjust) => {
            let adjusted = work.adjust(header, adjust, first)?;
            moved(work, adjusted, &wallets)?
        }
        Operation::Debit(debit) => {
            if let Err(reason) = may_pay(work, debit.payer, debit.charge_type, first) {
                return Ok(Some(Judged::denied(reason)));
            }
            match work.debit(header, debit, &wallets)? {
                Ok(debited) => {
                    let remaining = Some(debited.remaining);
                    Judged::posted(work, debited.operation, debited.movements, remaining, None, &wallets)?
                }
                Err(denial) => Judged::denial(denial),
            }
        }
        Operation::Hold(hold) => {
            if let Err(reason) = may_pay(work, hold.payer, hold.charge_type, first) {
                return Ok(Some(Judged::denied(reason)));
            }
            let done = work.hold(header, hold, &wallets)?;
            judged_hold(work, done, &wallets)?
        }
        Operation::ExtendHold(extend) => {
            let done = work.extend_hold(header, extend, at_hand(subject)?)?;
            judged_hold(work, done, &wallets)?
        }
        Operation::Capture(capture) => {
            let done = work.capture(header, capture, at_hand(subject)?)?;
            judged_hold(work, done, &wallets)?
        }
        Operation::Release(release) => {
            let done = work.release(header, release, at_hand(subject)?)?;
            judged_hold(work, done, &wallets)?
        }
    }))
}

fn at_hand(subject: Subject) -> Result<HoldAt, Stop> {
    match subject {
        Subject::Hold(hold) => Ok(*hold),
        _ => Err(Stop::Fault("a command about a hold without one")),
    }
}

fn changed(changed: Result<crate::wallets::WalletChanged, Reason>) -> Judged {
    match changed {
        Ok(changed) => Judged::wallet(changed),
        Err(reason) => Judged::denied(reason),
    }
}

fn moved<S: Store + ?Sized>(
    work: &Workspace<'_, S>,
    done: Result<Moved, Denial>,
    wallets: &[WalletAt],
) -> Result<Judged, Stop> {
    match done {
        Ok(Moved { operation, movements }) => Judged::posted(work, operation, movements, None, None, wallets),
        Err(denial) => Ok(Judged::denial(denial)),
    }
}

fn judged_hold<S: Store + ?Sized>(
    work: &Workspace<'_, S>,
    done: Result<HoldDone, Denial>,
    wallets: &[WalletAt],
) -> Result<Judged, Stop> {
    match done {
        Ok(done) => {
            let remaining = Some(done.remaining);
            Judged::posted(
                work,
                done.operation,
                done.movements,
                remaining,
                Some(Box::new(done.hold)),
                wallets,
            )
        }
        Err(denial) => Ok(Judged::denial(denial)),
    }
}

/// Whether a wallet that is named as the payer may pay; payers that a customer is asked for are chosen
/// so that they may.
fn may_pay<S: Store + ?Sized>(
    work: &Workspace<'_, S>,
    payer: Payer<'_>,
    charge_type: Option<ChargeType>,
    at: WalletAt,
) -> Result<(), Reason> {
    let wallet = work.wallet(at);
    match payer {
        Payer::CustomerIn(_) => Ok(()),
        Payer::Wallet(_) if wallet.frozen => Err(Reason::WalletFrozen),
        Payer::Wallet(_) if !wallet.scope.fits(charge_type) => Err(Reason::NoEligibleTranche),
        Payer::Wallet(_) => Ok(()),
    }
}

/// What a command is about.
struct Touched {
    /// The wallet that it names, the payers in draw order, or those of its hold.
    wallets: Vec<WalletAt>,
    /// What else it is about.
    subject: Subject,
}

/// What a command is about besides wallets.
enum Subject {
    Wallets,
    Hold(Box<HoldAt>),
    Movement(RecordId, Box<Movement>),
}

fn touched<S: Store + ?Sized>(
    work: &mut Workspace<'_, S>,
    command: &Command<'_>,
) -> Result<Result<Touched, Reason>, Stop> {
    let customer = command.header.customer;
    match &command.operation {
        Operation::Debit(Debit { payer: Payer::CustomerIn(asset), charge_type, .. })
        | Operation::Hold(Hold { payer: Payer::CustomerIn(asset), charge_type, .. }) => {
            let wallets = payers(work, customer, *asset, *charge_type)?;
            return Ok(wallets.map(|wallets| Touched { wallets, subject: Subject::Wallets }));
        }
        Operation::ExtendHold(crate::command::ExtendHold { hold, .. })
        | Operation::Capture(crate::command::Capture { hold, .. })
        | Operation::Release(crate::command::Release { hold, .. }) => {
            let found = find_hold(work, customer, *hold)?;
            return Ok(found.map(|hold| {
                let wallets = hold.wallets.clone();
                Touched { wallets, subject: Subject::Hold(Box::new(hold)) }
            }));
        }
        Operation::Refund(refund) => return find_movement(work, customer, refund.movement),
        _ => {}
    }
    let Some(name) = named_wallet(&command.operation) else {
        return Err(Stop::Fault("a command that names no wallet"));
    };
    match work.find_wallet(&keys::wallet(customer, name))? {
        Some(at) if work.wallet(at).quarantined => Ok(Err(Reason::CustomerQuarantined)),
        Some(at) => Ok(Ok(Touched { wallets: vec![at], subject: Subject::Wallets })),
        None if work.customer(&keys::customer(customer))?.is_none() => Ok(Err(Reason::CustomerNotFound)),
        None => Ok(Err(Reason::WalletNotFound)),
    }
}

/// A customer's wallets in an asset that may pay, in draw order.
fn payers<S: Store + ?Sized>(
    work: &mut Workspace<'_, S>,
    customer: Customer<'_>,
    asset: Asset<'_>,
    charge_type: Option<ChargeType>,
) -> Result<Result<Vec<WalletAt>, Reason>, Stop> {
    let Some(row) = work.customer(&keys::customer(customer))? else {
        return Ok(Err(Reason::CustomerNotFound));
    };
    if row.quarantined {
        return Ok(Err(Reason::CustomerQuarantined));
    }
    let in_asset = |entry: &&crate::rows::customer::WalletEntry| {
        entry.asset_code == asset.code && entry.asset_scale == asset.scale
    };
    let mut entries: Vec<_> = row.wallets.iter().filter(in_asset).collect();
    if entries.is_empty() {
        return Ok(Err(Reason::WalletNotFound));
    }
    entries.sort_by_key(|entry| (entry.draw_priority, entry.no));
    let mut unfrozen = Vec::with_capacity(entries.len());
    let mut all_closed = true;
    for entry in entries {
        let at = work.find_wallet(&keys::wallet(customer, &entry.wallet))?;
        let at = at.ok_or(LocalDamage::Missing("a wallet of a customer"))?;
        let wallet = work.wallet(at);
        all_closed &= wallet.closed;
        if !wallet.frozen && !wallet.closed {
            unfrozen.push(at);
        }
    }
    if unfrozen.is_empty() {
        return Ok(Err(if all_closed { Reason::WalletClosed } else { Reason::WalletFrozen }));
    }
    unfrozen.retain(|&at| work.wallet(at).scope.fits(charge_type));
    #[cfg(madsim)]
    if simulation::has(Bug::MapOrderInApply) {
        let map: std::collections::HashMap<usize, WalletAt> = unfrozen.into_iter().enumerate().collect();
        unfrozen = map.into_values().collect();
    }
    Ok(if unfrozen.is_empty() { Err(Reason::NoEligibleTranche) } else { Ok(unfrozen) })
}

/// A movement of a customer, with its wallet.
fn find_movement<S: Store + ?Sized>(
    work: &mut Workspace<'_, S>,
    customer: Customer<'_>,
    id: RecordId,
) -> Result<Result<Touched, Reason>, Stop> {
    let Some(row) = work.customer(&keys::customer(customer))? else {
        return Ok(Err(Reason::CustomerNotFound));
    };
    let record = work.get(&keys::record(id))?;
    let Some(Record::Movement(movement)) = record.map(|row| Record::decode(id, &row)).transpose()? else {
        return Ok(Err(Reason::MovementNotFound));
    };
    let Some(entry) = row.wallets.iter().find(|entry| entry.no == movement.wallet_no) else {
        return Ok(Err(Reason::MovementNotFound));
    };
    if row.quarantined {
        return Ok(Err(Reason::CustomerQuarantined));
    }
    let at = work.find_wallet(&keys::wallet(customer, &entry.wallet))?;
    let at = at.ok_or(LocalDamage::Missing("a wallet of a customer"))?;
    Ok(Ok(Touched { wallets: vec![at], subject: Subject::Movement(id, Box::new(movement)) }))
}

/// A customer's hold, with the wallets that it is about.
fn find_hold<S: Store + ?Sized>(
    work: &mut Workspace<'_, S>,
    customer: Customer<'_>,
    id: HoldId,
) -> Result<Result<HoldAt, Reason>, Stop> {
    let placed = match work.foreseen_hold(id) {
        None => work.placed_hold(id)?,
        foreseen => foreseen,
    };
    let mut parts = Vec::new();
    for part in placed.iter().flat_map(|placed| &placed.parts) {
        match work.wallet_of_part(customer, part)? {
            Some(at) if work.wallet(at).quarantined => return Ok(Err(Reason::CustomerQuarantined)),
            Some(at) => parts.push(at),
            None => break,
        }
    }
    let Some(placed) = placed.filter(|placed| placed.parts.len() == parts.len()) else {
        let known = work.customer(&keys::customer(customer))?.is_some();
        return Ok(Err(if known { Reason::HoldNotFound } else { Reason::CustomerNotFound }));
    };
    let first = parts.first().copied().ok_or(Stop::Fault("a hold without a part"))?;
    let row = work.hold_as_it_is(first, id, placed)?;
    let (mut wallets, payers) = match row.payer_asset() {
        None => {
            let wallet = work.wallet(first);
            // Its scope may have been changed since.
            let payers = match (wallet.frozen, wallet.scope.fits(row.charge_type)) {
                (true, _) => Err(Reason::WalletFrozen),
                (false, false) => Err(Reason::NoEligibleTranche),
                (false, true) => Ok(1),
            };
            (vec![first], payers)
        }
        Some(asset) => match payers(work, customer, asset, row.charge_type)? {
            Ok(wallets) => {
                let count = wallets.len();
                (wallets, Ok(count))
            }
            Err(reason) => (Vec::new(), Err(reason)),
        },
    };
    let mut places = Vec::with_capacity(parts.len());
    for at in parts {
        let place = wallets.iter().position(|own| *own == at);
        places.push(place.unwrap_or(wallets.len()));
        if place.is_none() {
            wallets.push(at);
        }
    }
    Ok(Ok(HoldAt { id, row, wallets, payers, places }))
}

/// The stored verdict, told again from the journal.
fn replay<S: Store + ?Sized>(
    work: &Workspace<'_, S>,
    customer: Customer<'_>,
    outcome: Outcome,
) -> Result<Verdict, Stop> {
    let (operation, records) = match &outcome {
        Outcome::Denied(denial) => return Ok(Verdict::Denied(*denial)),
        Outcome::Applied { operation, records, .. } => (*operation, *records),
    };
    let mut movements = Vec::with_capacity(records as usize);
    for step in 0..records {
        let id = RecordId(operation.0).following(step);
        let row = work.get(&keys::record(id))?.ok_or(LocalDamage::Missing("a record of an answer"))?;
        match Record::decode(id, &row)? {
            Record::Wallet(record) => {
                let effect = Effect::Wallet(record.info);
                return Ok(Verdict::Applied(AppliedVerdict { operation, effect }));
            }
            Record::Movement(movement) => movements.push((id, movement)),
            Record::Hold(_) | Record::Tranche(_) => {}
        }
    }
    let row = work.customer(&keys::customer(customer))?.ok_or(LocalDamage::Missing("a customer"))?;
    Ok(Verdict::Applied(AppliedVerdict { operation, effect: retell(&row, movements, outcome)? }))
}

/// Movements and bystanders as the first answer had them.
fn retell(
    customer: &CustomerRow,
    movements: Vec<(RecordId, Movement)>,
    outcome: Outcome,
) -> Result<Effect, LocalDamage> {
    let Outcome::Applied { remaining, hold, bystanders, .. } = outcome else {
        return Err(LocalDamage::Missing("the effect of a denial"));
    };
    let mut drawn = Vec::new();
    for (_, movement) in &movements {
        if !drawn.contains(&movement.wallet_no) {
            drawn.push(movement.wallet_no);
        }
    }
    let mut places: Vec<Option<WalletBalance>> = vec![None; drawn.len() + bystanders.len()];
    for (place, balance) in bystanders {
        let slot = places.get_mut(place as usize).ok_or(LocalDamage::Missing("the place of a bystander"))?;
        *slot = Some(balance);
    }
    let free: Vec<usize> = match hold.as_ref().filter(|hold| !hold.places.is_empty()) {
        None => (0..places.len()).filter(|&place| places[place].is_none()).collect(),
        Some(hold) => hold.places.iter().map(|&place| place as usize).collect(),
    };
    let mut posted = Vec::with_capacity(movements.len());
    for (id, movement) in movements {
        let nth = drawn.iter().position(|&no| no == movement.wallet_no);
        let place =
            nth.and_then(|nth| free.get(nth).copied()).ok_or(LocalDamage::Missing("a drawn wallet"))?;
        let entry = customer.wallets.iter().find(|entry| entry.no == movement.wallet_no);
        let entry = entry.ok_or(LocalDamage::Missing("a wallet of a customer"))?;
        let slot = places.get_mut(place).ok_or(LocalDamage::Missing("the place of a wallet"))?;
        *slot = Some(WalletBalance {
            wallet: entry.wallet.clone(),
            asset_code: entry.asset_code.clone(),
            asset_scale: entry.asset_scale,
            balance: movement.balance_after,
        });
        posted.push(Posted {
            id,
            kind: movement.kind,
            status: movement.status,
            balance: place,
            amount: movement.amount,
            draws: movement.draws,
        });
    }
    let balances = places.into_iter().flatten().collect();
    let hold = hold.map(|hold| Box::new((hold.id, hold.state)));
    Ok(Effect::Posted { movements: posted, balances, remaining, hold })
}
