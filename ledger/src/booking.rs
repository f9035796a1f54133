//! Movements of one command, booked one after another under one operation.

use crate::amount::Amount;
use crate::command::Header;
use crate::ids::{OperationId, RecordId};
use crate::rows::journal::{MovementKind, MovementStatus, NewMovement, OfHold};
use crate::rows::open::Charge;
use crate::store::Store;
use crate::time::Time;
use crate::verdict::{Draw, Posted};
use crate::workspace::{Stop, WalletAt, Workspace};

/// What a command came to that moved credits, or changed what may become of them.
#[derive(Debug)]
pub struct Moved {
    /// The operation.
    pub operation: OperationId,
    /// Its movements, in booking order; none where a record tells of it.
    pub movements: Vec<Posted>,
}

impl Moved {
    /// An operation, named after its first movement.
    pub fn by(movements: Vec<Posted>) -> Result<Moved, Stop> {
        let first = movements.first().ok_or(Stop::Fault("an operation that moves nothing"))?;
        Ok(Moved { operation: OperationId(first.id.0), movements })
    }
}

/// What a command says of all movements that it books.
#[derive(Clone, Copy, Debug)]
pub struct Booking<'a> {
    /// The hold whose credits move, and how it was placed where that is what they move for.
    pub hold: Option<OfHold<'a>>,
    /// The movement that is corrected.
    pub corrects: Option<RecordId>,
    /// What is charged for.
    pub charge: Charge<'a>,
    /// When it takes effect.
    pub effective_at: Time,
    /// The command's key; empty for what the shard books itself.
    pub key: &'a str,
    /// Who asked.
    pub actor: &'a str,
    /// Why.
    pub reason_code: &'a str,
    /// The caller's reference.
    pub reference: &'a str,
    /// The caller's pairs.
    pub metadata: &'a [(&'a str, &'a str)],
    /// Booked by the shard itself.
    pub own: bool,
}

impl<'a> Booking<'a> {
    /// What a caller's command says, now.
    pub fn of_command(
        header: &Header<'a>,
        now: Time,
        reason_code: &'a str,
        reference: &'a str,
        metadata: &'a [(&'a str, &'a str)],
    ) -> Booking<'a> {
        Booking {
            hold: None,
            corrects: None,
            charge: Charge::default(),
            effective_at: now,
            key: header.key,
            actor: header.actor,
            reason_code,
            reference,
            metadata,
            own: false,
        }
    }

    /// What the shard says of what falls due by itself.
    pub fn of_due(due: Time) -> Booking<'a> {
        Booking {
            hold: None,
            corrects: None,
            charge: Charge::default(),
            effective_at: due,
            key: "",
            actor: "",
            reason_code: "",
            reference: "",
            metadata: &[],
            own: true,
        }
    }
}

/// The sum of what was drawn. It is within what one wallet holds.
pub fn sum_of(draws: &[Draw]) -> Amount {
    Amount(draws.iter().map(|draw| draw.amount.0).sum())
}

impl<S: Store + ?Sized> Workspace<'_, S> {
    /// Books a movement of a wallet whose totals are already those after it; none where there is nothing
    /// to tell. The first one names the operation.
    #[allow(clippy::too_many_arguments)]
    pub fn book_movement(
        &mut self,
        booking: &Booking<'_>,
        movements: &mut Vec<Posted>,
        place: usize,
        at: WalletAt,
        kind: MovementKind,
        status: MovementStatus,
        amount: Amount,
        draws: Vec<Draw>,
    ) {
        if draws.is_empty() {
            return;
        }
        let id = RecordId(self.meta.allocate());
        let operation = movements.first().map_or(id, |first| first.id);
        let movement = NewMovement {
            kind,
            status,
            effective_at: booking.effective_at,
            amount,
            draws: &draws,
            hold: booking.hold,
            corrects: booking.corrects,
            charge: booking.charge,
            key: booking.key,
            actor: booking.actor,
            reason_code: booking.reason_code,
            reference: booking.reference,
            metadata: booking.metadata,
        };
        self.post(at, id, OperationId(operation.0), &movement, booking.own);
        movements.push(Posted { id, kind, status, balance: place, amount, draws });
    }
}
