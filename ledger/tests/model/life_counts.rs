//! What happened to wallets, grants and corrections: counted as [`counts`](super::counts) counts the rest.

use purser_ledger::command::{Adjust, Change, ConfirmGrant, EndGrant, GrantEnd, Operation, Refund};
use purser_ledger::ids::{RecordId, TrancheId};
use purser_ledger::rows::journal::MovementKind;
use purser_ledger::time::Time;
use purser_ledger::verdict::Reason;
use purser_model::{Movement, Posted, Stage, Tranche, Wallet};

use super::counts::draws_in;
use super::pair::Pair;

/// The core keeps so many open tranches in the wallet's own row.
const IN_THE_ROW: usize = 8;

impl Pair {
    /// Counts what a change of a wallet did, by the wallets before it.
    pub fn count_wallet(&mut self, operation: &Operation<'_>) {
        let ((before, _), wallets) = (std::mem::take(&mut self.before), self.model.wallets());
        // One place at most differs: a command changes one wallet.
        let place = before.iter().zip(wallets).position(|(before, after)| *before != after.info);
        match (operation, place) {
            (Operation::UpdateWallet(_), None) => self.count("update that changes nothing"),
            (Operation::UpdateWallet(update), Some(place)) => {
                let (before, after) = (&before[place], &wallets[place].info);
                let holds = !self.model.open_holds_in(place, self.model.now()).is_empty();
                let (reordered, rescoped) =
                    (before.draw_priority != after.draw_priority, before.scope != after.scope);
                self.count_all([
                    (reordered, "update of a draw priority"),
                    (rescoped, "update of a charge scope"),
                    (rescoped && holds, "update of a charge scope with a hold open"),
                    (after.frozen, "update of a frozen wallet"),
                    (update.version.is_some(), "update of a known version"),
                ]);
            }
            (Operation::CloseWallet(_), Some(place)) => {
                let wallet = &wallets[place];
                let once_held = !self.model.holds_in(place).is_empty();
                self.count_all([
                    (wallet.info.frozen, "close of a frozen wallet"),
                    (!wallet.movements.is_empty(), "close of a wallet with a past"),
                    (once_held, "close of a wallet that holds took part in"),
                ]);
            }
            _ => {}
        }
    }

    /// Counts what became of grants, and refunds and corrections.
    pub fn count_life(&mut self, operation: &Operation<'_>, movements: &[Posted]) {
        match operation {
            Operation::ConfirmGrant(confirm) => self.count_confirmation(confirm, movements),
            Operation::EndGrant(end) => self.count_end(end),
            Operation::Refund(refund) => self.count_refund(refund, movements),
            Operation::Adjust(adjust) => self.count_adjustment(adjust, movements),
            _ => {}
        }
    }

    fn count_confirmation(&mut self, confirm: &ConfirmGrant<'_>, movements: &[Posted]) {
        let now = self.model.now();
        let Some((before, after)) = self.before_and_after(self.number_of(confirm.tranche)) else { return };
        let anew = confirm.expiry.is_some();
        self.count_all([
            (movements.is_empty(), "confirmation ahead of the effective time"),
            (anew, "confirmation with a new end"),
            (anew && before.expires_at <= now, "confirmation with a new end past the old one"),
            (!anew && before.has_lifetime, "confirmation that begins a lifetime"),
            (
                !anew && before.has_lifetime && after.effective_at > now,
                "confirmation of a lifetime ahead of the effective time",
            ),
            (!anew && after.expires_at < Time::NEVER && !before.has_lifetime, "confirmation before the end"),
        ]);
    }

    fn count_end(&mut self, end: &EndGrant<'_>) {
        let now = self.model.now();
        let Some((before, after)) = self.before_and_after(self.number_of(end.tranche)) else { return };
        let voided = end.end == GrantEnd::Voided;
        // What was due has been booked since.
        let was_active = !matches!(before.stage, Stage::Pending | Stage::Scheduled);
        let partly_spent = after.consumed > 0 && was_active;
        self.count_all([
            (voided && before.stage == Stage::Pending, "void of a pending tranche"),
            (
                voided && before.stage == Stage::Scheduled && after.effective_at > now,
                "void of a scheduled tranche",
            ),
            (
                before.stage == Stage::Pending && before.expires_at <= now,
                "end of a pending tranche past its end",
            ),
            (voided && was_active, "void of an active tranche"),
            (voided && partly_spent, "void of a tranche that is partly spent"),
            (voided && after.held > 0 && after.voided > 0, "void of a tranche that is partly held"),
            (voided && after.held > 0 && after.voided == 0, "void of a tranche that is wholly held"),
            (voided && self.restored.contains(&after.no), "void of a restored tranche"),
        ]);
    }

    fn count_refund(&mut self, refund: &Refund<'_>, movements: &[Posted]) {
        let now = self.model.now();
        let Some((place, number)) = self.names.place_of(refund.movement) else { return };
        let wallet = &self.model.wallets()[place];
        let spent = &wallet.movements[number as usize - 1];
        let before: Vec<(Tranche, Tranche)> =
            movements[0].draws.iter().filter_map(|draw| self.before_and_after(draw.tranche)).collect();
        let restored = |(before, after): &&(Tranche, Tranche)| before.expires_at < after.expires_at;
        let restores = before.iter().filter(restored).count();
        let goes = |kind| movements.iter().any(|posted| posted.kind == kind);
        let (withdrawn, forfeited) = (goes(MovementKind::Voided), goes(MovementKind::Expired));
        let stays = before.len() > restores && !withdrawn && !forfeited;
        let refunds = refunds_of(wallet, number).count();
        let again = before.iter().filter(restored).any(|(before, _)| self.restored.contains(&before.no));
        let lives = |(before, after): &(Tranche, Tranche)| {
            before.expires_at == after.expires_at && after.stage == Stage::Active && after.expires_at > now
        };
        let restored_lives = before.iter().any(|pair| lives(pair) && self.restored.contains(&pair.0.no));
        let exhausted = before.iter().any(|pair| lives(pair) && pair.0.available == 0 && pair.0.held == 0);
        let open = wallet.tranches.iter().filter(|tranche| tranche.available > 0 || tranche.held > 0).count();
        let held = before.iter().filter(restored).any(|(_, after)| after.held > 0);
        let frozen = wallet.info.frozen;
        let restored: Vec<usize> = before.iter().filter(restored).map(|(before, _)| before.no).collect();
        self.restored.extend(restored);
        self.count_all([
            (refund.amount.is_none(), "refund of all that is left"),
            (refund.amount.is_some(), "refund of a part"),
            (refunds > 1, "refund of a movement that was refunded before"),
            (refunds > 2, "third refund of a movement"),
            (before.len() > 1, "refund to several tranches"),
            (before.len() > IN_THE_ROW, "refund to more than eight tranches"),
            (spent.kind == MovementKind::Captured, "refund of a capture"),
            (spent.kind == MovementKind::Consumed && spent.hold.is_some(), "refund of an excess"),
            (forfeited, "refund that is forfeited"),
            (withdrawn, "refund to a voided tranche"),
            (withdrawn && forfeited, "refund that is withdrawn and forfeited"),
            (
                movements.len() > 1 && before.len() > movements[1..].iter().map(|own| own.draws.len()).sum(),
                "refund of which a part goes again",
            ),
            (restores > 0, "refund that restores"),
            (restores > 0 && restores < before.len(), "refund that restores one tranche of several"),
            (restores > 0 && open > IN_THE_ROW, "refund that restores in a wallet of many tranches"),
            (held, "refund that restores what is held in part"),
            (again, "refund that restores once more"),
            (restored_lives, "refund to a restored tranche while it lives"),
            (exhausted, "refund to an exhausted tranche"),
            (refund.grace.is_some() && stays && restores == 0, "refund with a grace for nothing"),
            (frozen, "refund into a frozen wallet"),
        ]);
    }

    fn count_adjustment(&mut self, adjust: &Adjust<'_>, movements: &[Posted]) {
        let Some(first) = movements[0].draws.first() else { return };
        let holds_it = |wallet: &&Wallet| wallet.tranches.iter().any(|tranche| tranche.no == first.tranche);
        let frozen = self.model.wallets().iter().find(holds_it).is_some_and(|wallet| wallet.info.frozen);
        let draws = draws_in(movements);
        let drawn = movements[0].draws.iter().filter_map(|draw| self.tranche(draw.tranche));
        let limited = drawn.clone().any(|tranche| !tranche.features.is_empty());
        let emptied = movements[0].draws.iter().any(|draw| draw.left.0 == 0);
        let held = drawn.clone().any(|tranche| tranche.held > 0);
        match adjust.change {
            Change::Up { .. } => self.count("correction up"),
            Change::Down { tranche, .. } => self.count_all([
                (true, "correction down"),
                (tranche.is_some(), "correction down of one tranche"),
                (tranche.is_some() && held, "correction down of a tranche that is partly held"),
                (draws > 1, "correction down over several tranches"),
                (draws > IN_THE_ROW, "correction down over more than eight tranches"),
                (limited, "correction down of a tranche limited to features"),
                (emptied, "correction down that leaves nothing of a tranche"),
                (frozen, "correction down in a frozen wallet"),
            ]),
        }
    }

    /// Counts what a refusal was about.
    pub fn count_denial_of_life(&mut self, operation: &Operation<'_>, reason: Reason) {
        match (operation, reason) {
            (Operation::Refund(refund), Reason::MovementNotFound) => {
                let what = self.unknown_movement(refund.movement);
                self.count(what);
            }
            (Operation::EndGrant(_), Reason::TrancheNotActive)
            | (Operation::ConfirmGrant(_), Reason::TrancheNotActive) => {
                self.count_not_active(operation);
            }
            _ => {}
        }
    }

    fn unknown_movement(&self, id: RecordId) -> &'static str {
        match (self.names.place_of(id), self.core.record(id)) {
            (Some(_), _) => "movement of another customer",
            (None, Ok(_)) => "a record that is no movement",
            (None, Err(_)) => "movement that is not there",
        }
    }

    fn count_not_active(&mut self, operation: &Operation<'_>) {
        let now = self.model.now();
        let id = match operation {
            Operation::EndGrant(end) => end.tranche,
            Operation::ConfirmGrant(confirm) => confirm.tranche,
            _ => return,
        };
        let Some(after) = self.tranche(self.number_of(id)).cloned() else { return };
        let confirm = matches!(operation, Operation::ConfirmGrant(_));
        let past = after.expires_at <= now;
        self.count_all([
            (confirm && after.stage == Stage::Pending && past, "confirmation past the end"),
            (after.stage == Stage::Voided, "end of a voided tranche"),
            (after.stage == Stage::Failed, "end of a failed tranche"),
            (!confirm && past && after.held > 0, "void of an expired tranche that is held"),
            (
                !confirm && !past && after.stage == Stage::Active && after.voided > 0,
                "void of a tranche corrected away",
            ),
        ]);
    }

    fn number_of(&self, id: TrancheId) -> usize {
        self.names.tranches.get(&id).copied().unwrap_or(usize::MAX)
    }

    fn before_and_after(&self, no: usize) -> Option<(Tranche, Tranche)> {
        let before = self.before.1.iter().find(|tranche| tranche.no == no)?;
        Some((before.clone(), self.tranche(no)?.clone()))
    }
}

fn refunds_of(wallet: &Wallet, number: u64) -> impl Iterator<Item = &Movement> {
    wallet
        .movements
        .iter()
        .filter(move |movement| movement.kind == MovementKind::Refunded && movement.corrects == Some(number))
}
