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
use crate::cache::WalletCache;
use crate::command::{Batch, Command, Debit, Item, Operation, Payer};
use crate::ids::{Customer, OperationId, RecordId};
use crate::rows::customer::CustomerRow;
use crate::rows::journal::Record;
use crate::rows::keys::{self, Key};
use crate::rows::memo::{Memo, Outcome};
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
    }
    let asked = memo_keys.iter().filter(|key| !key.is_empty()).chain(&wallet_keys);
    let asked: Vec<&[u8]> = asked.map(Vec::as_slice).collect();
    let mut rows = store.get_many(&asked)?.into_iter();
    let mut memos = Vec::with_capacity(memo_keys.len());
    for key in memo_keys {
        let row = if key.is_empty() { None } else { rows.next().flatten() };
        memos.push(MemoAt { key, row });
    }
    for (key, row) in wallet_keys.into_iter().zip(rows) {
        let Some(row) = row else { continue };
        match work.adopt(key, &row) {
            // An unsound wallet is met again, and contained, when its command is judged.
            Ok(()) | Err(Stop::Fault(_)) => {}
            Err(Stop::Local(damage)) => return Err(damage),
        }
    }
    Ok(memos)
}

fn named_wallet<'a>(operation: &Operation<'a>) -> Option<&'a str> {
    match operation {
        Operation::Debit(Debit { payer: Payer::Wallet(wallet), .. }) => Some(wallet),
        Operation::Debit(_) => None,
        Operation::CreateWallet(create) => Some(create.wallet),
        Operation::FreezeWallet(freeze) => Some(freeze.wallet),
        Operation::Grant(grant) => Some(grant.wallet),
    }
}

fn sweep<S: Store + ?Sized>(work: &mut Workspace<'_, S>, limit: u32) -> Result<Reply, LocalDamage> {
    let swept = work.sweep(limit).and_then(|swept| {
        work.check_touched().map_err(Stop::Fault)?;
        Ok(swept)
    });
    match swept {
        Ok(swept) => Ok(Reply::Swept { booked: swept.items, more: swept.more }),
        Err(Stop::Local(damage)) => Err(damage),
        Err(Stop::Fault(what)) => {
            work.roll_back();
            Ok(Reply::Fault(what))
        }
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
            quarantine(work, command.header.customer)?;
            Ok(Reply::Fault(what))
        }
    }
}

/// Marks a customer and its wallets, so that none of its commands is taken until someone has looked.
fn quarantine<S: Store + ?Sized>(
    work: &mut Workspace<'_, S>,
    customer: Customer<'_>,
) -> Result<(), LocalDamage> {
    let key = keys::customer(customer);
    let mut row = work.customer(&key)?.unwrap_or_default();
    row.quarantined = true;
    for entry in &row.wallets {
        match work.find_wallet(&keys::wallet(customer, &entry.wallet)) {
            Ok(Some(at)) => work.wallet_mut(at).quarantined = true,
            Ok(None) | Err(Stop::Fault(_)) => {}
            Err(Stop::Local(damage)) => return Err(damage),
        }
    }
    work.changes.put(key, row.encode());
    Ok(())
}

fn answer<S: Store + ?Sized>(
    work: &mut Workspace<'_, S>,
    command: &Command<'_>,
    body: &[u8],
    memo: MemoAt,
) -> Result<Reply, Stop> {
    let now = work.now();
    let fingerprint = fingerprint(body);
    let row = match work.changes.get(&memo.key) {
        Some(change) => change.clone(),
        None => memo.row,
    };
    if let Some(stored) = row.map(|row| Memo::decode(&row)).transpose()?
        && now < stored.expires_at
    {
        if stored.fingerprint != fingerprint {
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
    work.changes.put(memo.key, memo_row.encode());
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
        Judged::denial(Denial { reason, shortage: None })
    }

    fn denial(denial: Denial) -> Judged {
        Judged { verdict: Verdict::Denied(denial), outcome: Outcome::Denied(denial) }
    }

    fn wallet(changed: crate::wallets::WalletChanged) -> Judged {
        let operation = changed.operation;
        let effect = Effect::Wallet(changed.info);
        Judged {
            verdict: Verdict::Applied(AppliedVerdict { operation, effect }),
            outcome: Outcome::Applied { operation, records: 1, remaining: None, bystanders: Vec::new() },
        }
    }

    /// Movements over wallets at hand; those that none of them touched are bystanders.
    fn posted<S: Store + ?Sized>(
        work: &Workspace<'_, S>,
        operation: OperationId,
        movements: Vec<Posted>,
        remaining: Option<Amount>,
        wallets: &[WalletAt],
    ) -> Result<Judged, Stop> {
        let balances: Result<Vec<_>, Stop> = wallets.iter().map(|&at| balance_of(work, at)).collect();
        let balances = balances?;
        let bystanders = match wallets.len() {
            1 => Vec::new(),
            _ => balances
                .iter()
                .enumerate()
                .filter(|(place, _)| movements.iter().all(|own| own.balance != *place))
                .map(|(place, balance)| (place as u64, balance.clone()))
                .collect(),
        };
        let records = movements.len() as u64;
        let effect = Effect::Posted { movements, balances, remaining };
        Ok(Judged {
            verdict: Verdict::Applied(AppliedVerdict { operation, effect }),
            outcome: Outcome::Applied { operation, records, remaining, bystanders },
        })
    }
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
    let wallets = match touched(work, command)? {
        Ok(wallets) => wallets,
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
    Ok(Some(match &command.operation {
        Operation::CreateWallet(_) => return Err(Stop::Fault("a wallet is created once")),
        Operation::FreezeWallet(freeze) => Judged::wallet(work.freeze_wallet(header, freeze, first)?),
        Operation::Grant(grant) => match work.grant(header, grant, first)? {
            Ok(granted) => Judged::posted(work, granted.operation, granted.movements, None, &wallets)?,
            Err(reason) => Judged::denied(reason),
        },
        Operation::Debit(debit) => {
            if let Payer::Wallet(_) = debit.payer {
                let wallet = work.wallet(first);
                if wallet.frozen {
                    return Ok(Some(Judged::denied(Reason::WalletFrozen)));
                }
                if !wallet.scope.fits(debit.charge_type) {
                    return Ok(Some(Judged::denied(Reason::NoEligibleTranche)));
                }
            }
            match work.debit(header, debit, &wallets)? {
                Ok(debited) => {
                    let remaining = Some(debited.remaining);
                    Judged::posted(work, debited.operation, debited.movements, remaining, &wallets)?
                }
                Err(denial) => Judged::denial(denial),
            }
        }
    }))
}

/// The wallets that a command touches: the one that it names, or the payers in draw order.
fn touched<S: Store + ?Sized>(
    work: &mut Workspace<'_, S>,
    command: &Command<'_>,
) -> Result<Result<Vec<WalletAt>, Reason>, Stop> {
    let customer = command.header.customer;
    if let Operation::Debit(Debit { payer: Payer::CustomerIn(asset), charge_type, .. }) = &command.operation {
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
        for entry in entries {
            let at = work.find_wallet(&keys::wallet(customer, &entry.wallet))?;
            let at = at.ok_or(LocalDamage::Missing("a wallet of a customer"))?;
            if !work.wallet(at).frozen {
                unfrozen.push(at);
            }
        }
        if unfrozen.is_empty() {
            return Ok(Err(Reason::WalletFrozen));
        }
        unfrozen.retain(|&at| work.wallet(at).scope.fits(*charge_type));
        return Ok(if unfrozen.is_empty() { Err(Reason::NoEligibleTranche) } else { Ok(unfrozen) });
    }
    let Some(name) = named_wallet(&command.operation) else {
        return Err(Stop::Fault("a command that names no wallet"));
    };
    match work.find_wallet(&keys::wallet(customer, name))? {
        Some(at) if work.wallet(at).quarantined => Ok(Err(Reason::CustomerQuarantined)),
        Some(at) => Ok(Ok(vec![at])),
        None if work.customer(&keys::customer(customer))?.is_none() => Ok(Err(Reason::CustomerNotFound)),
        None => Ok(Err(Reason::WalletNotFound)),
    }
}

/// The stored verdict, told again from the journal.
fn replay<S: Store + ?Sized>(
    work: &Workspace<'_, S>,
    customer: Customer<'_>,
    outcome: Outcome,
) -> Result<Verdict, Stop> {
    let (operation, records, remaining, bystanders) = match outcome {
        Outcome::Denied(denial) => return Ok(Verdict::Denied(denial)),
        Outcome::Applied { operation, records, remaining, bystanders } => {
            (operation, records, remaining, bystanders)
        }
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
        }
    }
    let row = work.customer(&keys::customer(customer))?.ok_or(LocalDamage::Missing("a customer"))?;
    Ok(Verdict::Applied(AppliedVerdict {
        operation,
        effect: retell(&row, movements, remaining, bystanders)?,
    }))
}

/// Movements and bystanders as the first answer had them.
fn retell(
    customer: &CustomerRow,
    movements: Vec<(RecordId, crate::rows::journal::Movement)>,
    remaining: Option<Amount>,
    bystanders: Vec<(u64, WalletBalance)>,
) -> Result<Effect, LocalDamage> {
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
    let free: Vec<usize> = (0..places.len()).filter(|&place| places[place].is_none()).collect();
    let mut posted = Vec::with_capacity(movements.len());
    for (id, movement) in movements {
        let nth = drawn.iter().position(|&no| no == movement.wallet_no);
        let place =
            nth.and_then(|nth| free.get(nth).copied()).ok_or(LocalDamage::Missing("a drawn wallet"))?;
        let entry = customer.wallets.iter().find(|entry| entry.no == movement.wallet_no);
        let entry = entry.ok_or(LocalDamage::Missing("a wallet of a customer"))?;
        places[place] = Some(WalletBalance {
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
    Ok(Effect::Posted { movements: posted, balances: places.into_iter().flatten().collect(), remaining })
}
