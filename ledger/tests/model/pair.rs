//! The ledger and the model side by side: every batch goes to both, and all that can be seen of
//! both is compared.
//!
//! What the ledger allocates is mapped to the model's numbers when it is first met in a movement,
//! and held to it from then on; so a comparison of mapped answers is a comparison of everything.

use std::collections::BTreeMap;

use purser_ledger::apply::{apply_batch, apply_batch_cached};
use purser_ledger::audit::{AuditReport, audit};
use purser_ledger::cache::WalletCache;
use purser_ledger::command::{BatchEncoder, Operation};
use purser_ledger::ids::{Customer, OperationId, RecordId, TrancheId, WalletNo};
use purser_ledger::query::{self, LedgerEntry, TrancheStatus, TrancheView};
use purser_ledger::rows::journal::{MovementKind, MovementStatus};
use purser_ledger::store::MemStore;
use purser_ledger::time::Time;
use purser_ledger::verdict::{self, Answer, Balance, Reason};
use purser_model::{Details, Draw, Effect, Model, Movement, Posted, Reply, Stage, Tranche, Verdict, Wallet};

use super::drafts::{Item, Session, show};

/// The tag of the shard: it must stand in every id that is allocated.
const SHARD_TAG: u16 = 7;
/// Movements or tranches read at once.
const PAGE: usize = 1_000;
/// Items that each sweep at the end of a session may book.
const SWEEP_LIMIT: u32 = 20;
/// After so many sweeps at the end of a session nothing is due: it grants far fewer tranches.
const SWEEPS_MAX: usize = 500;
/// How far ahead balances are read, besides now.
const AHEAD: [u64; 3] = [0, 7, 30];

/// What does not agree, in words.
pub type Check<T = ()> = Result<T, String>;

// ---- the ledger, as these tests call it -------------------------------------------------------

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

    fn balance(&self, customer: Customer<'_>, wallet: &str, now: Time) -> Check<Balance> {
        query::balance(&self.store, customer, wallet, now).map_err(|error| format!("balance: {error}"))
    }

    fn movements(&self, customer: Customer<'_>, wallet: &str, from: u64) -> Check<Vec<LedgerEntry>> {
        query::movements(&self.store, customer, wallet, from, PAGE)
            .map_err(|error| format!("movements: {error}"))
    }

    fn tranches(&self, customer: Customer<'_>, wallet: &str, now: Time) -> Check<Vec<TrancheView>> {
        query::tranches(&self.store, customer, wallet, now, None, false, PAGE)
            .map_err(|error| format!("tranches: {error}"))
    }

    fn audit(&self, customer: Customer<'_>, wallet: &str) -> Check<AuditReport> {
        audit(&self.store, customer, wallet).map_err(|error| format!("audit: {error}"))
    }
}

// ---- the two side by side ---------------------------------------------------------------------

/// How often the interesting things happened.
pub type Counts = BTreeMap<&'static str, usize>;

/// The ledger, the model, and what links them.
#[derive(Default)]
pub struct Pair {
    core: Core,
    model: Model,
    names: Names,
    /// The entries of each wallet that have been compared, by the wallet's place in the model.
    compared: Vec<Vec<LedgerEntry>>,
    history: Vec<String>,
    counts: Counts,
}

/// Which of the ledger's ids stands for which of the model's numbers.
#[derive(Default)]
struct Names {
    tranches: BTreeMap<TrancheId, usize>,
    operations: BTreeMap<OperationId, usize>,
    /// A movement is known by the place of its wallet and its number there.
    records: BTreeMap<RecordId, (usize, u64)>,
}

/// Runs a whole session; gives the counts, or what does not agree with the history before it. A
/// sweep is an entry of its own here, so that its movements can be told from those of commands.
pub fn compare(session: &Session) -> Check<Counts> {
    let mut pair = Pair::default();
    for (stamp, items) in session.write() {
        for part in items.chunk_by(|one, next| !is_sweep(one) && !is_sweep(next)) {
            pair.batch(stamp, part)?;
        }
    }
    pair.sweep_until_done()?;
    Ok(pair.counts)
}

fn is_sweep(item: &Item) -> bool {
    matches!(item, Item::Sweep(_))
}

impl Pair {
    /// Gives one batch to both and compares all that can be seen.
    pub fn batch(&mut self, stamp: Time, items: &[Item]) -> Check<Vec<Answer>> {
        let shown: Vec<String> = items.iter().map(|item| format!("\n      {}", show(item))).collect();
        self.history.push(format!("  @{}{}", stamp.0, shown.concat()));
        self.judge(stamp, items).map_err(|difference| {
            format!("{difference}\n\nafter this history:\n{}\n", self.history.join("\n"))
        })
    }

    fn judge(&mut self, stamp: Time, items: &[Item]) -> Check<Vec<Answer>> {
        let (answers, _) = self.core.apply(&entry_of(stamp, items))?;
        if stamp < self.model.now() {
            self.count("clock went back");
        }
        let now = self.model.begin_batch(stamp);
        same("number of answers", &items.len(), &answers.len())?;
        let expected = match (items, &answers[..]) {
            ([Item::Sweep(limit)], [answer]) => vec![self.model_sweep(*limit, answer)?],
            _ => items.iter().map(|item| self.model_reply(item)).collect(),
        };
        let movements = self.movements_agree();
        for (place, (expected, answer)) in expected.iter().zip(&answers).enumerate() {
            same("now", &now, &answer.now)?;
            let given = self.names.reply(self.model.wallets(), answer, expected)?;
            let what = format!("answer {place}, to {}", show(&items[place]));
            same(&what, expected, &given)?;
            self.count_reply(&items[place], expected);
        }
        movements?;
        self.names.in_order()?;
        for place in 0..self.model.wallets().len() {
            self.wallet_agrees(place)?;
        }
        Ok(answers)
    }

    fn model_reply(&mut self, item: &Item) -> Reply {
        match item {
            Item::Command(command) => self.model.command(command),
            Item::Sweep(_) => panic!("a sweep is a batch of its own"),
        }
    }

    /// Lets the model book what the ledger's sweep booked. A sweep may say that there is more where
    /// there is not, and may book less than it might; but not more than its limit, and where it says
    /// that nothing is left, nothing is.
    fn model_sweep(&mut self, limit: u32, answer: &Answer) -> Check<Reply> {
        let mut new = Vec::new();
        for (place, wallet) in self.model.wallets().iter().enumerate() {
            let from = wallet.movements.len() as u64 + 1;
            let entries = self.core.movements(wallet.customer(), &wallet.info.wallet, from)?;
            new.extend(entries.into_iter().map(|entry| (entry.id, place)));
        }
        new.sort();
        let places: Vec<usize> = new.into_iter().map(|(_, place)| place).collect();
        let expected = self.model.sweep(&places);
        match (&expected, &answer.reply) {
            (Reply::Swept { booked, more: false }, verdict::Reply::Swept { more: true, .. }) => {
                if *booked < limit {
                    self.count("sweep that stopped short of its limit");
                }
                Ok(Reply::Swept { booked: *booked, more: true })
            }
            (Reply::Swept { booked, .. }, _) if *booked > limit => Err(format!("{answer:?} exceeds {limit}")),
            _ => Ok(expected),
        }
    }

    /// Sweeps come to an end, and then all that is due is booked.
    fn sweep_until_done(&mut self) -> Check {
        for _ in 0..SWEEPS_MAX {
            let answers = self.batch(self.model.now(), &[Item::Sweep(SWEEP_LIMIT)])?;
            if let verdict::Reply::Swept { more: false, .. } = answers[0].reply {
                return Ok(());
            }
        }
        Err(format!("{SWEEPS_MAX} sweeps of {SWEEP_LIMIT} are not enough"))
    }

    /// Compares what each wallet's list has grown by, and learns the ids in it.
    fn movements_agree(&mut self) -> Check {
        for (place, wallet) in self.model.wallets().iter().enumerate() {
            if self.compared.len() == place {
                self.compared.push(Vec::new());
            }
            let seen = &mut self.compared[place];
            let name = format!("{}/{}", wallet.customer, wallet.info.wallet);
            let before = seen.len();
            let new = self.core.movements(wallet.customer(), &wallet.info.wallet, before as u64 + 1)?;
            for (entry, expected) in new.iter().zip(&wallet.movements[before..]) {
                check_link(seen.last(), entry).map_err(|what| format!("{name}: {what}"))?;
                let given = self.names.movement(place, entry, expected)?;
                same(&format!("movement {} of {name}", expected.number), expected, &given)?;
                seen.push(entry.clone());
            }
            let kinds: Vec<_> = wallet.movements[before..].iter().map(|own| (own.kind, own.amount)).collect();
            let given: Vec<_> = new.iter().map(|own| (own.movement.kind, own.movement.amount)).collect();
            same(&format!("new movements of {name}"), &kinds, &given)?;
            for movement in &wallet.movements[before..] {
                let booked_late = movement.details.key.is_empty();
                let name = match (movement.kind, booked_late) {
                    (MovementKind::Expired, _) => "expiry",
                    (MovementKind::Granted, true) => "activation",
                    _ => continue,
                };
                *self.counts.entry(name).or_default() += 1;
            }
        }
        Ok(())
    }

    /// Compares balances, tranches and the audit of one wallet, and recomputes its sums.
    fn wallet_agrees(&self, place: usize) -> Check {
        let wallet = &self.model.wallets()[place];
        let (customer, id) = (wallet.customer(), wallet.info.wallet.as_str());
        let name = format!("{}/{id}", wallet.customer);
        for ahead in AHEAD {
            let at = Time(self.model.now().0 + ahead);
            let expected = wallet.balance_when_all_is_booked(at);
            same(
                &format!("balance of {name} at {}", at.0),
                &expected,
                &self.core.balance(customer, id, at)?,
            )?;
            let views = self.core.tranches(customer, id, at)?;
            let expected: Vec<_> = wallet.tranches.iter().map(|tranche| view_of(tranche, at)).collect();
            let given: Vec<_> = views
                .iter()
                .map(|view| {
                    let no = self.names.tranches.get(&view.id).copied();
                    (no, view.status, view.available.0, view.consumed.0, view.expired.0)
                })
                .collect();
            same(&format!("tranches of {name} at {}", at.0), &expected, &given)?;
            adds_up(&self.compared[place], &views).map_err(|what| format!("{name} at {}: {what}", at.0))?;
        }
        let report = self.core.audit(customer, id)?;
        same(&format!("findings of the audit of {name}"), &Vec::new(), &report.findings)?;
        same(&format!("settled by the audit of {name}"), &wallet.settled(), &report.settled.0)
    }
}

fn same<T: PartialEq + std::fmt::Debug>(what: &str, expected: &T, given: &T) -> Check {
    match expected == given {
        true => Ok(()),
        false => Err(format!("{what}:\n   model  {expected:?}\n   ledger {given:?}")),
    }
}

/// Whether an entry continues the list and its chain.
fn check_link(before: Option<&LedgerEntry>, entry: &LedgerEntry) -> Check {
    same("previous", &before.map_or(RecordId::NONE, |before| before.id), &entry.movement.previous)?;
    same("chain", &before.map_or([0; 32], |before| before.hash), &entry.previous_hash)?;
    let first = WalletNo(entry.movement.wallet_no.0);
    same("wallet_no", &before.map_or(first, |before| before.movement.wallet_no), &first)?;
    match before.is_none_or(|before| before.id < entry.id) {
        true => Ok(()),
        false => Err(format!("{:?} does not follow", entry.id)),
    }
}

/// What a read shows of a tranche at a time, all that is due by then counted as booked.
fn view_of(tranche: &Tranche, at: Time) -> (Option<usize>, TrancheStatus, i128, i128, i128) {
    let left = tranche.amount - tranche.consumed;
    let (status, available, expired) = match tranche.stage {
        _ if left == 0 => (TrancheStatus::Exhausted, 0, 0),
        Stage::Expired => (TrancheStatus::Expired, 0, left),
        _ if tranche.expires_at <= at => (TrancheStatus::Expired, 0, left),
        Stage::Scheduled if tranche.effective_at > at => (TrancheStatus::Scheduled, 0, 0),
        _ => (TrancheStatus::Active, left, 0),
    };
    (Some(tranche.no), status, available, tranche.consumed, expired)
}

// ---- conservation, from the ledger's own movements --------------------------------------------

/// What the movements of a wallet say of one tranche.
#[derive(Clone, Copy, Debug, Default)]
struct Account {
    announced: i128,
    granted: i128,
    consumed: i128,
    expired: i128,
}

impl Account {
    fn left(&self) -> i128 {
        self.granted - self.consumed - self.expired
    }
}

/// Recomputes every tranche and the running balance from the movements alone, and holds what reads
/// show of the tranches against it.
fn adds_up(entries: &[LedgerEntry], views: &[TrancheView]) -> Check {
    let mut accounts: BTreeMap<TrancheId, Account> = BTreeMap::new();
    let mut settled = 0;
    for (place, entry) in entries.iter().enumerate() {
        let movement = &entry.movement;
        same("number", &(place as u64 + 1), &movement.number)?;
        let mut sum = 0;
        for draw in &movement.draws {
            let account = accounts.entry(draw.tranche).or_default();
            let amount = draw.amount.0;
            sum += match (movement.kind, movement.status) {
                (MovementKind::Granted, MovementStatus::Pending) => {
                    account.announced += amount;
                    0
                }
                (MovementKind::Granted, MovementStatus::Posted) => {
                    account.granted += amount;
                    amount
                }
                (MovementKind::Consumed, _) => {
                    account.consumed += amount;
                    -amount
                }
                (MovementKind::Expired, _) => {
                    account.expired += amount;
                    -amount
                }
            };
            if amount <= 0 || account.left() < 0 {
                return Err(format!("movement {} draws {draw:?} on {account:?}", movement.number));
            }
            same("left", &account.left(), &draw.left.0)?;
        }
        settled += movement.amount.0;
        same("sum of the draws", &sum, &movement.amount.0)?;
        same("settled_after", &settled, &movement.settled_after.0)?;
    }
    same("sum of what is left", &settled, &accounts.values().map(Account::left).sum())?;
    same("number of tranches", &accounts.len(), &views.len())?;
    views.iter().try_for_each(|view| view_adds_up(&accounts[&view.id], view))
}

fn view_adds_up(account: &Account, view: &TrancheView) -> Check {
    let amount = if account.granted > 0 { account.granted } else { account.announced };
    let pending = if view.status == TrancheStatus::Scheduled { amount } else { 0 };
    let shown = pending + view.available.0 + view.consumed.0 + view.expired.0;
    same(&format!("amount of {:?}", view.id), &amount, &shown)?;
    same(&format!("consumed of {:?}", view.id), &account.consumed, &view.consumed.0)
}

// ---- from the ledger's ids to the model's numbers ---------------------------------------------

impl Names {
    /// Learns the ids of a movement from the one expected in its place, and maps it.
    fn movement(&mut self, place: usize, entry: &LedgerEntry, expected: &Movement) -> Check<Movement> {
        let own = &entry.movement;
        if entry.id.0 & 0xffff != u64::from(SHARD_TAG) {
            return Err(format!("{:?} does not bear the shard's tag", entry.id));
        }
        self.records.insert(entry.id, (place, own.number));
        if own.kind == MovementKind::Granted {
            for (draw, expected) in own.draws.iter().zip(&expected.draws) {
                self.tranches.entry(draw.tranche).or_insert(expected.tranche);
            }
        }
        let operation = self.operation(own.operation, expected.operation);
        if own.key.is_empty() {
            same("the operation of what the shard books", &entry.id.0, &own.operation.0)?;
        }
        Ok(Movement {
            operation,
            number: own.number,
            kind: own.kind,
            status: own.status,
            booked_at: own.booked_at,
            effective_at: own.effective_at,
            amount: own.amount,
            settled_after: own.settled_after,
            balance_after: own.balance_after,
            draws: self.draws(&own.draws),
            details: Details {
                charge_type: own.charge_type,
                feature: own.feature.clone(),
                key: own.key.clone(),
                actor: own.actor.clone(),
                reason_code: own.reason_code.clone(),
                reference: own.reference.clone(),
                metadata: own.metadata.clone(),
            },
        })
    }

    fn operation(&mut self, id: OperationId, expected: usize) -> usize {
        *self.operations.entry(id).or_insert(expected)
    }

    /// An unknown tranche maps to a number that no tranche has.
    fn draws(&self, draws: &[verdict::Draw]) -> Vec<Draw> {
        let number = |id| self.tranches.get(&id).copied().unwrap_or(usize::MAX);
        draws
            .iter()
            .map(|draw| Draw {
                tranche: number(draw.tranche),
                kind: draw.kind,
                amount: draw.amount,
                left: draw.left,
            })
            .collect()
    }

    fn reply(&mut self, wallets: &[Wallet], answer: &Answer, expected: &Reply) -> Check<Reply> {
        Ok(match &answer.reply {
            verdict::Reply::KeyReused => Reply::KeyReused,
            verdict::Reply::KeyTooOld => Reply::KeyTooOld,
            verdict::Reply::Backlog => Reply::Backlog,
            verdict::Reply::Swept { booked, more } => Reply::Swept { booked: *booked, more: *more },
            verdict::Reply::Fault(what) => return Err(format!("fault: {what}; the model: {expected:?}")),
            verdict::Reply::Verdict { replayed, verdict } => {
                let verdict = match verdict {
                    verdict::Verdict::Denied(denial) => Verdict::Denied(*denial),
                    verdict::Verdict::Applied(applied) => self.applied(wallets, applied, expected)?,
                };
                Reply::Verdict { replayed: *replayed, verdict }
            }
        })
    }

    fn applied(
        &mut self,
        wallets: &[Wallet],
        applied: &verdict::Applied,
        expected: &Reply,
    ) -> Check<Verdict> {
        let Reply::Verdict { verdict: Verdict::Applied { operation, .. }, .. } = expected else {
            return Err(format!("the ledger applied {applied:?}; the model: {expected:?}"));
        };
        let operation = self.operation(applied.operation, *operation);
        let effect = match &applied.effect {
            verdict::Effect::Wallet(info) => Effect::Wallet(info.clone()),
            verdict::Effect::Posted { movements, balances, remaining } => {
                let first = movements.first().map(|movement| movement.id.0);
                same("operation, by its first movement", &first, &Some(applied.operation.0))?;
                let movements = movements.iter().map(|posted| {
                    let named = &balances[posted.balance].wallet;
                    self.posted(wallets, posted, named)
                });
                let movements = movements.collect::<Check<Vec<Posted>>>()?;
                Effect::Posted { movements, balances: balances.clone(), remaining: *remaining }
            }
        };
        Ok(Verdict::Applied { operation, effect })
    }

    fn posted(&self, wallets: &[Wallet], posted: &verdict::Posted, wallet: &str) -> Check<Posted> {
        let Some(&(place, number)) = self.records.get(&posted.id) else {
            return Err(format!("{:?} of an answer stands in no wallet", posted.id));
        };
        same("wallet of a movement", &wallets[place].info.wallet.as_str(), &wallet)?;
        Ok(Posted {
            balance: posted.balance,
            number,
            kind: posted.kind,
            status: posted.status,
            amount: posted.amount,
            draws: self.draws(&posted.draws),
        })
    }

    /// Ids sort by creation, and no two of them stand for the same thing.
    fn in_order(&self) -> Check {
        rising("tranches", &self.tranches)?;
        rising("operations", &self.operations)
    }
}

fn rising<Id: std::fmt::Debug>(what: &str, numbers: &BTreeMap<Id, usize>) -> Check {
    match numbers.values().is_sorted_by(|before, after| before < after) {
        true => Ok(()),
        false => Err(format!("ids of {what} do not sort by creation: {numbers:?}")),
    }
}

// ---- counting ---------------------------------------------------------------------------------

impl Pair {
    fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    fn count_reply(&mut self, item: &Item, reply: &Reply) {
        match reply {
            Reply::KeyReused => self.count("key reused"),
            Reply::KeyTooOld => self.count("key too old"),
            Reply::Backlog => self.count("backlog"),
            Reply::Swept { more: true, .. } => self.count("sweep with more to do"),
            Reply::Swept { .. } => self.count("sweep"),
            Reply::Verdict { replayed: true, verdict: Verdict::Applied { .. } } => {
                self.count("replay, applied")
            }
            Reply::Verdict { replayed: true, verdict: Verdict::Denied(_) } => self.count("replay, denied"),
            Reply::Verdict { verdict: Verdict::Denied(denial), .. } => self.count(denial.reason.name()),
            Reply::Verdict { verdict: Verdict::Applied { effect, .. }, .. } => {
                self.count_effect(item, effect)
            }
        }
    }

    fn count_effect(&mut self, item: &Item, effect: &Effect) {
        let (Effect::Posted { movements, .. }, Item::Command(command)) = (effect, item) else {
            return self.count("wallet changed");
        };
        match &command.operation {
            Operation::Debit(debit) => {
                self.count("debit");
                let draws: usize = movements.iter().map(|movement| movement.draws.len()).sum();
                let sum: i128 = movements.iter().map(|movement| -movement.amount.0).sum();
                let scale = self.model.wallets().iter().map(|wallet| wallet.info.asset_scale);
                let whole =
                    scale.filter_map(|scale| debit.amount.to_amount(scale).ok()).all(|asked| asked.0 > sum);
                for (happened, what) in [
                    (draws > 1, "debit over several tranches"),
                    (draws > 8, "debit over more than eight tranches"),
                    (draws > 30, "debit over more than thirty tranches"),
                    (movements.len() > 1, "debit over several wallets"),
                    (whole && debit.allow_partial, "partial debit"),
                ] {
                    if happened {
                        self.count(what);
                    }
                }
            }
            _ if movements.len() > 1 => self.count("grant of immediate and scheduled tranches"),
            _ => self.count("grant"),
        }
    }
}

/// The reasons that a session can meet; the limits on draws and wallets are told as stories.
pub const REASONS: [Reason; 9] = [
    Reason::CustomerNotFound,
    Reason::WalletNotFound,
    Reason::AlreadyExists,
    Reason::WalletFrozen,
    Reason::InvalidAmountPrecision,
    Reason::AmountOverflow,
    Reason::NoEligibleTranche,
    Reason::InsufficientCredits,
    Reason::InvalidArgument,
];
