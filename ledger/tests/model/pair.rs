//! The ledger and the model side by side: every batch goes to both, and all that can be seen of
//! both is compared.
//!
//! What the ledger allocates is mapped to the model's numbers when it is first met (see
//! [`names`](super::names)), and held to it from then on; so a comparison of mapped answers is a
//! comparison of everything.

use std::collections::BTreeSet;

use purser_ledger::amount::Amount;
use purser_ledger::command::{HOLD_TTL_MAX, Operation};
use purser_ledger::ids::{Customer, RecordId, WalletNo};
use purser_ledger::query::LedgerEntry;
use purser_ledger::rows::journal::{HoldRecord, Record, TrancheRecord, WalletRecord};
use purser_ledger::time::{Span, Time};
use purser_ledger::verdict::{self, Answer, WalletInfo};
use purser_model::{DueWhat, Effect, Model, Reply, Tranche, Verdict};

use super::core::{Check, Core, entry_of};
use super::counts::Counts;
use super::drafts::{Item, Session};
use super::names::Names;
use super::show::show;

/// Items that each sweep at the end of a session may book, and at the times after it.
const SWEEP_LIMIT: u32 = 20;
const LATER_SWEEP_LIMIT: u32 = 200;
/// What is looked at after a session: when most is due, and when the last hold has timed out.
const LATER: [Span; 3] = [Span(9), Span(60), Span(HOLD_TTL_MAX.0 + 60)];
/// After so many sweeps at the end of a session nothing is due: it grants far fewer tranches.
const SWEEPS_MAX: usize = 500;

/// The ledger, the model, and what links them.
#[derive(Default)]
pub struct Pair {
    pub core: Core,
    pub model: Model,
    pub names: Names,
    /// The entries of each wallet that have been compared, by the wallet's place in the model.
    pub compared: Vec<Vec<LedgerEntry>>,
    pub counts: Counts,
    /// When the hold that the last command is about timed out before it.
    pub expiry_before: Time,
    /// What was there before a command that changes what was granted, spent, or a wallet.
    pub before: (Vec<WalletInfo>, Vec<Tranche>),
    /// The tranches that a refund has restored.
    pub restored: BTreeSet<usize>,
    history: Vec<String>,
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
    pair.come_to_an_end()?;
    pair.count_holds();
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
        let mut expected = Vec::new();
        for (item, answer) in items.iter().zip(&answers) {
            expected.push(match item {
                Item::Command(_) => self.model_reply(item, answer),
                Item::Sweep(limit) => self.model_sweep(*limit, answer)?,
            });
        }
        let movements = self.movements_agree();
        for (place, (expected, answer)) in expected.iter().zip(&answers).enumerate() {
            same("now", &now, &answer.now)?;
            let given = self.names.reply(self.model.wallets(), answer, expected);
            // A list that differs tells more than an id that was not learned for it.
            let given = given.map_err(|what| movements.as_ref().err().cloned().unwrap_or(what))?;
            let what = format!("answer {place}, to {}", show(&items[place]));
            same(&what, expected, &given)?;
            self.record_agrees(&items[place], answer)
                .map_err(|difference| format!("{what}: {difference}"))?;
        }
        let before = movements?;
        self.names.in_order()?;
        for (place, before) in before.into_iter().enumerate() {
            self.count_due(place, before);
        }
        let places = 0..self.model.wallets().len();
        if places.clone().any(|place| !self.model.due(place).is_empty()) && !self.core.something_due(now)? {
            return Err("the ledger does not know that something is due".to_owned());
        }
        places.into_iter().try_for_each(|place| self.wallet_agrees(place))?;
        Ok(answers)
    }

    /// What the model says, to the command in its own numbers; the ids that the answer tells are learned.
    fn model_reply(&mut self, item: &Item, answer: &Answer) -> Reply {
        let Item::Command(command) = item else { panic!("a sweep is not judged by the model alone") };
        let command_there = self.names.translated(command);
        self.expiry_before = self.expiry_named(&command_there.operation);
        self.before = self.before(&command_there.operation);
        let expected = self.model.command(&command_there);
        self.names.learn(command.header.customer, self.model.wallets(), &expected, answer);
        self.count_reply(item, &expected);
        expected
    }

    /// Kept only where it is counted: it is a copy of nearly everything.
    fn before(&self, operation: &Operation<'_>) -> (Vec<WalletInfo>, Vec<Tranche>) {
        match operation {
            Operation::UpdateWallet(_)
            | Operation::CloseWallet(_)
            | Operation::EndGrant(_)
            | Operation::ConfirmGrant(_)
            | Operation::Refund(_) => {
                let wallets = self.model.wallets().iter();
                let infos = wallets.clone().map(|wallet| wallet.info.clone()).collect();
                (infos, wallets.flat_map(|wallet| &wallet.tranches).cloned().collect())
            }
            _ => Default::default(),
        }
    }

    fn expiry_named(&self, operation: &Operation<'_>) -> Time {
        let Operation::ExtendHold(extend) = operation else { return Time::NEVER };
        self.model.holds().get(extend.hold.0 as usize).map_or(Time::NEVER, |hold| hold.expires_at)
    }

    /// Lets the model book what the ledger's sweep booked: in each wallet until it has as many
    /// movements, then what is due but writes none (the time-out of a hold of which nothing is left)
    /// until as many items are booked. A sweep may say that there is more where there is not, and may
    /// book less than it might; but not more than its limit, and where it says that nothing is left,
    /// nothing is.
    fn model_sweep(&mut self, limit: u32, answer: &Answer) -> Check<Reply> {
        let verdict::Reply::Swept { booked: wanted, more } = answer.reply else {
            return Err(format!("{answer:?} to a sweep"));
        };
        let mut new = Vec::new();
        for (place, wallet) in self.model.wallets().iter().enumerate() {
            let from = wallet.movements.len() as u64 + 1;
            let entries = self.core.movements(wallet.customer(), &wallet.info.wallet, from)?;
            new.extend(entries.into_iter().map(|entry| (entry.id, entry.movement.number, place)));
        }
        new.sort();
        let mut booked = 0;
        for (_, number, place) in new {
            while (self.model.wallets()[place].movements.len() as u64) < number && self.booked_one(place) {
                booked += 1;
            }
        }
        while booked < wanted {
            let Some(place) = self.next_without_movement() else { break };
            self.booked_one(place);
            booked += 1;
        }
        if booked > limit {
            return Err(format!("{answer:?} exceeds {limit}"));
        }
        let Reply::Swept { more: some_left, .. } = self.model.sweep(&[]) else { panic!("a sweep is swept") };
        let in_vain = more && !some_left;
        let expected = Reply::Swept { booked, more: some_left || in_vain };
        match (in_vain && booked < limit, &expected) {
            (true, _) => self.count("sweep that stopped short of its limit"),
            (_, Reply::Swept { more: true, .. }) => self.count("sweep with more to do"),
            _ => self.count("sweep"),
        }
        Ok(expected)
    }

    fn booked_one(&mut self, place: usize) -> bool {
        matches!(self.model.sweep(&[place]), Reply::Swept { booked: 1, .. })
    }

    /// The wallet whose next item writes no movement, and of several the one that is due first.
    fn next_without_movement(&self) -> Option<usize> {
        let next = (0..self.model.wallets().len()).filter_map(|place| {
            let next = *self.model.due(place).first()?;
            let writes = next.what != DueWhat::TimeOut || self.model.holds()[next.of].is_pinned_in(place);
            (!writes).then_some((next, place))
        });
        next.min().map(|(_, place)| place)
    }

    /// Sweeps book all that is due, now and later, until nothing is held any more.
    fn come_to_an_end(&mut self) -> Check {
        let end = self.model.now();
        self.sweep_until_done(end, SWEEP_LIMIT)?;
        for later in LATER {
            self.sweep_until_done(end.saturating_add(later), LATER_SWEEP_LIMIT)?;
        }
        for wallet in self.model.wallets() {
            let (customer, id) = (wallet.customer(), wallet.info.wallet.as_str());
            let held = self.core.balance(customer, id, self.model.now())?.held;
            same(&format!("held in {id} at the end of all holds"), &Amount::ZERO, &held)?;
        }
        Ok(())
    }

    fn sweep_until_done(&mut self, now: Time, limit: u32) -> Check {
        for _ in 0..SWEEPS_MAX {
            let answers = self.batch(now, &[Item::Sweep(limit)])?;
            if let verdict::Reply::Swept { more: false, .. } = answers[0].reply {
                return Ok(());
            }
        }
        Err(format!("{SWEEPS_MAX} sweeps of {limit} are not enough"))
    }

    /// Compares what each wallet's list has grown by, and learns the ids in it; gives how many
    /// movements each had before.
    fn movements_agree(&mut self) -> Check<Vec<usize>> {
        let mut befores = Vec::new();
        for (place, wallet) in self.model.wallets().iter().enumerate() {
            if self.compared.len() == place {
                self.compared.push(Vec::new());
            }
            let seen = &mut self.compared[place];
            let name = format!("{}/{}", wallet.customer, wallet.info.wallet);
            let before = seen.len();
            befores.push(before);
            let new = self.core.movements(wallet.customer(), &wallet.info.wallet, before as u64 + 1)?;
            for (entry, expected) in new.iter().zip(&wallet.movements[before..]) {
                check_link(seen.last(), entry).map_err(|what| format!("{name}: {what}"))?;
                let given = self.names.movement(place, seen.last(), entry, expected)?;
                same(&format!("movement {} of {name}", expected.number), expected, &given)?;
                seen.push(entry.clone());
            }
            let kinds: Vec<_> = wallet.movements[before..].iter().map(|own| (own.kind, own.amount)).collect();
            let given: Vec<_> = new.iter().map(|own| (own.movement.kind, own.movement.amount)).collect();
            same(&format!("new movements of {name}"), &kinds, &given)?;
        }
        Ok(befores)
    }

    /// A command that moved no credits left one record in the journal: of the hold, the tranche or the
    /// wallet that it is about.
    fn record_agrees(&self, item: &Item, answer: &Answer) -> Check {
        let (Item::Command(command), Some(applied)) = (item, applied_now(answer)) else { return Ok(()) };
        let customer = command.header.customer;
        let (key, actor) = (command.header.key.to_owned(), command.header.actor.to_owned());
        let reason_code = reason_code_of(&command.operation).to_owned();
        let booked_at = answer.now;
        let expected = match &applied.effect {
            verdict::Effect::Posted { movements, .. } if !movements.is_empty() => return Ok(()),
            verdict::Effect::Posted { hold: Some(told), .. } => {
                let (hold, state) = (told.0, told.1.clone());
                Record::Hold(HoldRecord { hold, booked_at, state, reason_code, key, actor })
            }
            verdict::Effect::Posted { balances, .. } => {
                let Operation::ConfirmGrant(confirm) = &command.operation else {
                    return Err(format!("{:?} moved nothing", command.operation));
                };
                let (tranche, balance) = (confirm.tranche, balances[0].balance);
                let there = self.names.tranches.get(&tranche).copied();
                let tranches = self.model.wallets().iter().flat_map(|wallet| &wallet.tranches);
                let Some(there) = tranches.clone().find(|own| Some(own.no) == there) else {
                    return Err(format!("{tranche:?} is not known"));
                };
                // It may have been ended since, in the same batch; its times are as they were.
                let (effective_at, expires_at) = (there.effective_at, there.expires_at);
                let wallet_no = self.wallet_no(customer, confirm.wallet)?;
                Record::Tranche(TrancheRecord {
                    wallet_no,
                    tranche,
                    booked_at,
                    effective_at,
                    expires_at,
                    balance,
                    reason_code,
                    key,
                    actor,
                })
            }
            verdict::Effect::Wallet(info) => {
                let given = self.core.record(RecordId(applied.operation.0))?;
                let Record::Wallet(WalletRecord { wallet_no, .. }) = given else {
                    return Err(format!("{given:?} of a wallet's life"));
                };
                // The number of a wallet without movements is seen nowhere else.
                same("wallet_no", &self.wallet_no(customer, &info.wallet).unwrap_or(wallet_no), &wallet_no)?;
                let info = info.clone();
                Record::Wallet(WalletRecord { wallet_no, booked_at, info, reason_code, key, actor })
            }
        };
        same("record", &expected, &self.core.record(RecordId(applied.operation.0))?)
    }

    /// The number of a wallet, by its movements.
    fn wallet_no(&self, customer: Customer<'_>, wallet: &str) -> Check<WalletNo> {
        let mut wallets = self.model.wallets().iter();
        let place = wallets.position(|own| own.customer() == customer && own.info.wallet == wallet);
        let first = place.and_then(|place| self.compared.get(place)?.first());
        first.map(|entry| entry.movement.wallet_no).ok_or_else(|| format!("{wallet} has no movements"))
    }
}

/// What a command did, if it did it now.
fn applied_now(answer: &Answer) -> Option<&verdict::Applied> {
    match &answer.reply {
        verdict::Reply::Verdict { replayed: false, verdict: verdict::Verdict::Applied(applied) } => {
            Some(applied)
        }
        _ => None,
    }
}

fn reason_code_of<'a>(operation: &Operation<'a>) -> &'a str {
    match operation {
        Operation::CreateWallet(_) | Operation::Grant(_) => "",
        Operation::FreezeWallet(freeze) => freeze.reason_code,
        Operation::UpdateWallet(update) => update.reason_code,
        Operation::CloseWallet(close) => close.reason_code,
        Operation::EndGrant(end) => end.reason_code,
        Operation::ConfirmGrant(confirm) => confirm.reason_code,
        Operation::Debit(debit) => debit.reason_code,
        Operation::Hold(hold) => hold.reason_code,
        Operation::ExtendHold(extend) => extend.reason_code,
        Operation::Capture(capture) => capture.reason_code,
        Operation::Release(release) => release.reason_code,
        Operation::Refund(refund) => refund.reason_code,
        Operation::Adjust(adjust) => adjust.reason_code,
    }
}

/// Compares, and tells both.
pub fn same<T: PartialEq + std::fmt::Debug>(what: &str, expected: &T, given: &T) -> Check {
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

/// The hold of a model's answer.
pub fn hold_of(reply: &Reply) -> Option<usize> {
    match reply {
        Reply::Verdict { verdict: Verdict::Applied { effect: Effect::Posted { hold, .. }, .. }, .. } => {
            hold.as_ref().map(|(no, _)| *no)
        }
        _ => None,
    }
}
