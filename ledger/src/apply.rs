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

use crate::amount::Amount;
use crate::booking::Moved;
use crate::cache::WalletCache;
use crate::command::{Batch, Command, Debit, Item, Operation};
use crate::hold::{HoldAt, HoldDone};
use crate::ids::{Customer, HoldId, OperationId};
use crate::replay::replay;
use crate::rows::hold::HoldState;
use crate::rows::keys::{self, Key};
use crate::rows::memo::{HoldMemo, Memo, Outcome};
use crate::simulation::{self, Bug};
use crate::store::{Changes, LocalDamage, Store};
use crate::subject::{Subject, Touched, may_pay, named_hold, named_wallet, touched};
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
        asset_code: wallet.asset_code.clone(),
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
