//! Conservation, from the ledger's own movements: no model is asked.

use std::collections::BTreeMap;

use purser_ledger::ids::{HoldId, TrancheId};
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
}

impl Account {
    /// Books a draw; gives its effect on what is settled.
    fn book(&mut self, movement: &Movement, draw: &Draw) -> i128 {
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
                let out_of = if movement.hold.is_some() { &mut self.held } else { &mut self.available };
                *out_of -= amount;
                self.expired += amount;
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
}

/// Recomputes every tranche and the running balance from the movements alone, and holds what reads
/// show of the tranches against it. What a hold takes out of a tranche is what it had put aside of it.
pub fn adds_up(entries: &[LedgerEntry], views: &[TrancheView]) -> Check {
    let mut accounts: BTreeMap<TrancheId, Account> = BTreeMap::new();
    let mut pinned: BTreeMap<(HoldId, TrancheId), i128> = BTreeMap::new();
    let mut settled = 0;
    for (place, entry) in entries.iter().enumerate() {
        let movement = &entry.movement;
        same("number", &(place as u64 + 1), &movement.number)?;
        let mut sum = 0;
        for draw in &movement.draws {
            let account = accounts.entry(draw.tranche).or_default();
            sum += account.book(movement, draw);
            if draw.amount.0 <= 0 || account.available < 0 || account.held < 0 {
                return Err(format!("movement {} draws {draw:?} on {account:?}", movement.number));
            }
            same("left", &account.available, &draw.left.0)?;
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

fn view_adds_up(account: &Account, view: &TrancheView) -> Check {
    let amount = if account.granted > 0 { account.granted } else { account.announced };
    let pending = if view.status == TrancheStatus::Scheduled { amount } else { 0 };
    let shown = pending + view.available.0 + view.held.0 + view.consumed.0 + view.expired.0;
    same(&format!("amount of {:?}", view.id), &amount, &shown)?;
    same(&format!("consumed of {:?}", view.id), &account.consumed, &view.consumed.0)
}
