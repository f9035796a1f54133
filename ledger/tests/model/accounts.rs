//! Conservation, from the ledger's own movements: no model is asked.

use std::collections::{BTreeMap, BTreeSet};

use purser_ledger::ids::{HoldId, OperationId, RecordId, TrancheId};
use purser_ledger::query::{LedgerEntry, TrancheStatus, TrancheView};
use purser_ledger::rows::journal::{Movement, MovementKind, MovementStatus};
use purser_ledger::verdict::Draw;

use super::core::Check;
use super::pair::same;

/// What the movements of a wallet say of one tranche.
#[derive(Clone, Copy, Debug, Default)]
struct Account {
    announced: i128,
    granted: i128,
    available: i128,
    held: i128,
    consumed: i128,
    expired: i128,
    voided: i128,
    /// Came back by a refund, and goes again by the same.
    passing: i128,
}

impl Account {
    /// Books a draw; gives its effect on what is settled.
    fn book(&mut self, movement: &Movement, draw: &Draw, goes_again: bool) -> i128 {
        let amount = draw.amount.0;
        match (movement.kind, movement.status) {
            (MovementKind::Granted, MovementStatus::Pending) => {
                self.announced += amount;
                0
            }
            (MovementKind::Granted, MovementStatus::Posted) => {
                self.granted += amount;
                self.available += amount;
                amount
            }
            (MovementKind::Consumed, _) => {
                self.available -= amount;
                self.consumed += amount;
                -amount
            }
            (MovementKind::Expired, _) => {
                *self.source_of(movement) -= amount;
                self.expired += amount;
                -amount
            }
            (MovementKind::Voided, MovementStatus::Pending) => {
                self.voided += amount;
                0
            }
            (MovementKind::Voided, MovementStatus::Posted) => {
                *self.source_of(movement) -= amount;
                self.voided += amount;
                -amount
            }
            (MovementKind::Refunded, _) => {
                self.consumed -= amount;
                *(if goes_again { &mut self.passing } else { &mut self.available }) += amount;
                amount
            }
            (MovementKind::Adjusted, _) if movement.amount.0 > 0 => {
                self.granted += amount;
                self.available += amount;
                amount
            }
            (MovementKind::Adjusted, _) => {
                self.available -= amount;
                self.voided += amount;
                -amount
            }
            (MovementKind::Held, _) => {
                self.available -= amount;
                self.held += amount;
                0
            }
            (MovementKind::Released, _) => {
                self.held -= amount;
                self.available += amount;
                0
            }
            (MovementKind::Captured, _) => {
                self.held -= amount;
                self.consumed += amount;
                -amount
            }
        }
    }

    /// Where what lapses or is withdrawn was.
    fn source_of(&mut self, movement: &Movement) -> &mut i128 {
        match (movement.hold, movement.corrects) {
            (Some(_), _) => &mut self.held,
            (None, Some(_)) => &mut self.passing,
            (None, None) => &mut self.available,
        }
    }
}

/// What each refund gives back to tranches that cannot keep it.
fn going_again(entries: &[LedgerEntry]) -> BTreeSet<(OperationId, TrancheId)> {
    let movements = entries.iter().map(|entry| &entry.movement);
    let going = movements.filter(|movement| {
        movement.corrects.is_some() && matches!(movement.kind, MovementKind::Voided | MovementKind::Expired)
    });
    going.flat_map(|movement| movement.draws.iter().map(|draw| (movement.operation, draw.tranche))).collect()
}

/// Recomputes every tranche and the running balance from the movements alone, and holds what reads
/// show of the tranches against it. What a hold takes out of a tranche is what it had put aside of it, and
/// what refunds give back of a movement to a tranche is no more than the movement took.
pub fn adds_up(entries: &[LedgerEntry], views: &[TrancheView]) -> Check {
    let mut accounts: BTreeMap<TrancheId, Account> = BTreeMap::new();
    let mut pinned: BTreeMap<(HoldId, TrancheId), i128> = BTreeMap::new();
    let mut refundable: BTreeMap<(RecordId, TrancheId), i128> = BTreeMap::new();
    let going_again = going_again(entries);
    let mut settled = 0;
    for (place, entry) in entries.iter().enumerate() {
        let movement = &entry.movement;
        same("number", &(place as u64 + 1), &movement.number)?;
        let mut sum = 0;
        for draw in &movement.draws {
            let account = accounts.entry(draw.tranche).or_default();
            let goes_again = going_again.contains(&(movement.operation, draw.tranche));
            sum += account.book(movement, draw, goes_again);
            let is_empty = draw.amount.0 == 0 && !voids_what_is_held(movement, account);
            let Account { available, held, consumed, passing, .. } = *account;
            if is_empty
                || draw.amount.0 < 0
                || [available, held, consumed, passing].into_iter().min() < Some(0)
            {
                return Err(format!("movement {} draws {draw:?} on {account:?}", movement.number));
            }
            let left = if goes_again { account.passing } else { account.available };
            same("left", &left, &draw.left.0)?;
            match (movement.kind, movement.corrects) {
                (MovementKind::Consumed | MovementKind::Captured, None) => {
                    *refundable.entry((entry.id, draw.tranche)).or_default() += draw.amount.0;
                }
                (MovementKind::Refunded, Some(spent)) => {
                    let left = refundable.entry((spent, draw.tranche)).or_default();
                    *left -= draw.amount.0;
                    if *left < 0 {
                        return Err(format!("movement {} gives back too much: {draw:?}", movement.number));
                    }
                }
                (MovementKind::Voided | MovementKind::Expired, _) | (_, None) => {}
                (kind, Some(_)) => return Err(format!("a movement {kind:?} corrects another")),
            }
            if let Some(hold) = movement.hold
                && movement.kind != MovementKind::Consumed
            {
                let own = pinned.entry((hold, draw.tranche)).or_default();
                *own += if movement.kind == MovementKind::Held { draw.amount.0 } else { -draw.amount.0 };
                if *own < 0 {
                    return Err(format!("movement {} draws {draw:?}, more than was held", movement.number));
                }
            }
        }
        settled += movement.amount.0;
        same("sum of the draws", &sum, &movement.amount.0)?;
        same("settled_after", &settled, &movement.settled_after.0)?;
    }
    let left = |account: &Account| account.available + account.held;
    same("sum of what is left", &settled, &accounts.values().map(left).sum())?;
    same("number of tranches", &accounts.len(), &views.len())?;
    views.iter().try_for_each(|view| view_adds_up(&accounts[&view.id], view))
}

/// The void of a tranche of which all is held moves nothing.
fn voids_what_is_held(movement: &Movement, account: &Account) -> bool {
    movement.kind == MovementKind::Voided
        && movement.status == MovementStatus::Posted
        && movement.hold.is_none()
        && movement.corrects.is_none()
        && account.held > 0
}

fn view_adds_up(account: &Account, view: &TrancheView) -> Check {
    let amount = if account.granted > 0 { account.granted } else { account.announced };
    let waits = matches!(view.status, TrancheStatus::Pending | TrancheStatus::Scheduled);
    let pending = if waits { amount } else { 0 };
    let spent = view.consumed.0 + view.expired.0 + view.voided.0;
    let shown = pending + view.available.0 + view.held.0 + spent;
    same(&format!("amount of {:?}", view.id), &amount, &shown)?;
    same(&format!("consumed of {:?}", view.id), &account.consumed, &view.consumed.0)
}
