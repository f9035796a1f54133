//! The history, replayed on the naive model: every answer and every balance that was read must be
//! the model's.
//!
//! The model books what is due when a command comes to its wallet, the ledger also in sweeps between.
//! Commands cannot see the difference as long as fewer items are due than one command books, and the
//! callers keep to that.

use purser_ledger::amount::Amount;
use purser_ledger::command::{
    Adjust, Batch, Capture, Change, Command, ConfirmGrant, EndGrant, ExtendHold, Item, Operation, Refund,
    Release,
};
use purser_ledger::ids::{Customer, HoldId, TrancheId};
use purser_ledger::rows::hold::HoldStatus;
use purser_ledger::rows::journal::MovementKind;
use purser_ledger::verdict;
use purser_model::{Effect, Model, Posted, Reply, Stage, Verdict, Wallet, movement_id};

use super::names::Names;
use super::reads;
use super::{Check, Counts, count, same};
use crate::call::Response;
use crate::history::Entries;
use crate::observed::{Answered, Attempt};

/// The model of one shard, and how it calls things.
#[derive(Clone)]
pub struct Replay {
    pub model: Model,
    pub names: Names,
}

/// A read: it saw the entries up to one of these.
struct Look<'a> {
    attempt: &'a Attempt,
    response: &'a Response,
    at_least: u64,
    at_most: u64,
}

impl Replay {
    /// The model of an empty shard.
    pub fn new() -> Replay {
        Replay { model: Model::default(), names: Names::default() }
    }

    /// Replays all entries.
    pub fn run(&mut self, entries: &Entries, attempts: &[&Attempt], counts: &mut Counts) -> Check {
        let mut looks: Vec<Look<'_>> = attempts.iter().filter_map(look).collect();
        for (index, entry) in entries {
            looks.retain(|look| look.at_least >= *index || !self.shows(look));
            missed(&looks, *index)?;
            let batch = Batch::decode(&entry.batch).map_err(|damage| format!("entry {index}: {damage}"))?;
            let now = self.model.begin_batch(batch.stamp);
            for (item, answer) in batch.items.iter().zip(&entry.answers) {
                same(&format!("ledger time of entry {index}"), &now, &answer.now)?;
                self.judge(item, &answer.reply, counts)
                    .map_err(|what| format!("entry {index}: {what}\n   to {item:?}"))?;
            }
        }
        self.count_holds(counts);
        self.count_movements(counts);
        looks.retain(|look| !self.shows(look));
        missed(&looks, u64::MAX)
    }

    fn count_holds(&self, counts: &mut Counts) {
        for hold in self.model.holds() {
            let state = hold.state_at(self.model.now());
            let met = [
                ("hold: timed out", state.status == HoldStatus::Expired),
                ("hold: captured beyond it", state.excess > Amount::ZERO),
                ("hold: over several wallets", hold.parts.len() > 1),
            ];
            met.iter().filter(|(_, met)| *met).for_each(|(what, _)| count(counts, what));
        }
    }

    fn count_movements(&self, counts: &mut Counts) {
        for wallet in self.model.wallets() {
            if wallet.info.closed {
                count(counts, "wallet: closed");
            }
            for tranche in &wallet.tranches {
                match tranche.stage {
                    Stage::Failed => count(counts, "grant: failed"),
                    Stage::Voided => count(counts, "grant: voided"),
                    _ => {}
                }
            }
            for movement in &wallet.movements {
                let spends = matches!(movement.kind, MovementKind::Consumed | MovementKind::Held);
                let at_an_end = || wallet.tranches.iter().any(|own| own.expires_at == movement.booked_at);
                if spends && at_an_end() {
                    count(counts, "spent at the instant of an expiry");
                }
                let follows = movement.corrects.is_some();
                match movement.kind {
                    MovementKind::Adjusted if movement.amount > Amount::ZERO => count(counts, "adjusted up"),
                    MovementKind::Adjusted => count(counts, "adjusted down"),
                    MovementKind::Refunded => count(counts, "refund: given back"),
                    MovementKind::Expired if follows => count(counts, "refund: forfeited"),
                    MovementKind::Voided if follows => count(counts, "refund: withdrawn"),
                    _ => {}
                }
            }
        }
    }

    fn judge(&mut self, item: &Item<'_>, reply: &verdict::Reply, counts: &mut Counts) -> Check {
        let Item::Command { command, .. } = item else {
            let swept = matches!(reply, verdict::Reply::Swept { .. });
            count(counts, "sweep");
            return same("a sweep's answer is one", &true, &swept);
        };
        let confirms = matches!(command.operation, Operation::ConfirmGrant(_));
        let expected = self.model.command(&self.in_numbers(command));
        if confirms && matches!(expected, Reply::Verdict { verdict: Verdict::Applied { .. }, .. }) {
            count(counts, "grant: confirmed");
        }
        match (&expected, reply) {
            (Reply::KeyReused, verdict::Reply::KeyReused) | (Reply::KeyTooOld, verdict::Reply::KeyTooOld) => {
                Ok(())
            }
            (
                Reply::Verdict { replayed, verdict: expected },
                verdict::Reply::Verdict { replayed: given_replayed, verdict: given },
            ) => {
                same("replayed", replayed, given_replayed)?;
                self.same_verdict(command.header.customer, expected, given)
            }
            _ => Err(format!("the model says {expected:?}, the ledger {reply:?}")),
        }
    }

    /// A command as the model reads it: what it names is named by its number. What never was has none.
    fn in_numbers<'a>(&self, command: &Command<'a>) -> Command<'a> {
        let mut command = command.clone();
        if let Operation::ExtendHold(ExtendHold { hold, .. })
        | Operation::Capture(Capture { hold, .. })
        | Operation::Release(Release { hold, .. }) = &mut command.operation
        {
            *hold = self.names.holds.number(*hold).map_or(*hold, |number| HoldId(number as u64));
        }
        if let Operation::ConfirmGrant(ConfirmGrant { tranche, .. })
        | Operation::EndGrant(EndGrant { tranche, .. })
        | Operation::Adjust(Adjust { change: Change::Down { tranche: Some(tranche), .. }, .. }) =
            &mut command.operation
        {
            *tranche = self.names.tranches.number(*tranche).map_or(*tranche, |no| TrancheId(no as u64));
        }
        if let Operation::Refund(Refund { movement, .. }) = &mut command.operation {
            let known = self.names.movements.number(*movement);
            *movement = known.map_or(*movement, |(place, number)| movement_id(place, number));
        }
        command
    }

    fn same_verdict(
        &mut self,
        customer: Customer<'_>,
        expected: &Verdict,
        given: &verdict::Verdict,
    ) -> Check {
        match (expected, given) {
            (Verdict::Denied(expected), verdict::Verdict::Denied(given)) => same("denial", expected, given),
            (Verdict::Applied { operation, effect }, verdict::Verdict::Applied(applied)) => {
                self.names.operations.pair(applied.operation, *operation)?;
                self.same_effect(customer, effect, &applied.effect)
            }
            _ => Err(format!("the model says {expected:?}, the ledger {given:?}")),
        }
    }

    fn same_effect(&mut self, customer: Customer<'_>, expected: &Effect, given: &verdict::Effect) -> Check {
        match (expected, given) {
            (Effect::Wallet(expected), verdict::Effect::Wallet(given)) => same("wallet", expected, given),
            (
                Effect::Posted { movements, balances, remaining, hold },
                verdict::Effect::Posted {
                    movements: given,
                    balances: given_balances,
                    remaining: given_remaining,
                    hold: given_hold,
                },
            ) => {
                same("balances", balances, given_balances)?;
                same("remaining", remaining, given_remaining)?;
                match (hold, given_hold) {
                    (Some((number, state)), Some(given)) => {
                        self.names.holds.pair(given.0, *number)?;
                        same("hold", state, &given.1)?;
                    }
                    _ => same("whether it is about a hold", &hold.is_some(), &given_hold.is_some())?,
                }
                same("number of movements", &movements.len(), &given.len())?;
                movements.iter().zip(given).try_for_each(|(expected, given)| {
                    let wallet = balances[expected.balance].wallet.as_str();
                    self.same_posted(customer, wallet, expected, given)
                })
            }
            _ => Err(format!("the model says {expected:?}, the ledger {given:?}")),
        }
    }

    fn same_posted(
        &mut self,
        customer: Customer<'_>,
        wallet: &str,
        expected: &Posted,
        given: &verdict::Posted,
    ) -> Check {
        let place = self.place(customer, wallet).ok_or("a movement of a wallet that is not there")?;
        self.names.movements.pair(given.id, (place, expected.number))?;
        let told = |kind, status, balance, amount| (kind, status, balance, amount);
        same(
            "movement",
            &told(expected.kind, expected.status, expected.balance, expected.amount),
            &told(given.kind, given.status, given.balance, given.amount),
        )?;
        same("number of draws", &expected.draws.len(), &given.draws.len())?;
        expected.draws.iter().zip(&given.draws).try_for_each(|(expected, given)| {
            self.names.tranches.pair(given.tranche, expected.tranche)?;
            same(
                "draw",
                &(expected.kind, expected.amount, expected.left),
                &(given.kind, given.amount, given.left),
            )
        })
    }

    /// The place of a wallet in the model.
    pub fn place(&self, customer: Customer<'_>, wallet: &str) -> Option<usize> {
        let is_it = |own: &Wallet| own.customer() == customer && own.info.wallet == wallet;
        self.model.wallets().iter().position(is_it)
    }

    /// Whether a read shows the model as it is now.
    fn shows(&self, look: &Look<'_>) -> bool {
        reads::differs(self, &look.attempt.request, look.response).is_ok()
    }
}

fn look<'a>(attempt: &&'a Attempt) -> Option<Look<'a>> {
    let attempt: &'a Attempt = attempt;
    let Answered::Done(response) = &attempt.answer else { return None };
    let at_least = response.point()?.read_index;
    Some(Look { attempt, response, at_least, at_most: attempt.applied_by_then })
}

/// A read that can have seen only entries before this one, and shows none of them.
fn missed(looks: &[Look<'_>], next_index: u64) -> Check {
    match looks.iter().find(|look| look.at_most < next_index && look.at_least < next_index) {
        None => Ok(()),
        Some(look) => Err(format!(
            "a read shows no state of entries {} to {}: {:?}",
            look.at_least, look.at_most, look.attempt
        )),
    }
}
