//! Movements: how what happened is written into a wallet's list.

use purser_ledger::amount::Amount;
use purser_ledger::ids::RecordId;
use purser_ledger::rows::journal::{MovementKind, MovementStatus};
use purser_ledger::time::Time;

use crate::{Details, Draw, Model, Movement, Posted, Tranche};

/// What a movement says, before it has its place in a wallet.
pub(crate) struct Entry {
    pub kind: MovementKind,
    pub status: MovementStatus,
    pub amount: i128,
    pub draws: Vec<Draw>,
    pub hold: Option<usize>,
    pub corrects: Option<u64>,
    pub details: Details,
    /// For what the shard books itself: when it was due.
    pub due_at: Option<Time>,
}

/// How a command names a movement of the model: by the place of its wallet, and its number there.
pub fn movement_id(place: usize, number: u64) -> RecordId {
    RecordId(((place as u64) << 32) + number)
}

impl Model {
    /// Appends a movement of the operation that is under way to the wallet in `place`, which has
    /// changed already; in the answer it is the wallet numbered `balance`.
    pub(crate) fn post(&mut self, place: usize, balance: usize, entry: Entry) -> Posted {
        let (now, operation) = (self.now, self.operations);
        let wallet = &mut self.wallets[place];
        let number = wallet.movements.len() as u64 + 1;
        let Entry { kind, status, amount, draws, hold, corrects, details, due_at } = entry;
        wallet.movements.push(Movement {
            operation,
            number,
            kind,
            status,
            booked_at: now,
            effective_at: due_at.unwrap_or(now),
            amount: Amount(amount),
            settled_after: Amount(wallet.settled() + amount),
            balance_after: match due_at {
                Some(_) => wallet.balance_as_booked(),
                None => wallet.balance(now),
            },
            draws: draws.clone(),
            hold,
            corrects,
            details,
        });
        Posted { balance, number, kind, status, amount: Amount(amount), draws }
    }
}

/// A draw of `amount` on a tranche as the tranche is now.
pub(crate) fn draw_of(tranche: &Tranche, amount: i128) -> Draw {
    Draw { tranche: tranche.no, kind: tranche.kind, amount: Amount(amount), left: Amount(tranche.available) }
}
