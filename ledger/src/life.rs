//! The life of a grant after it was made: confirmed, failed, voided.

use crate::amount::Amount;
use crate::booking::{Booking, Moved};
use crate::burn;
use crate::command::{ConfirmGrant, EndGrant, Expiry, GrantEnd, Header};
use crate::ids::{OperationId, RecordId, TrancheId};
use crate::rows::journal::{MovementKind, MovementStatus, TrancheRecord};
use crate::rows::keys::{self, DueKey, DueRank};
use crate::rows::tranche::TrancheLife;
use crate::store::Store;
use crate::time::Time;
use crate::verdict::{Draw, Reason};
use crate::workspace::{Stop, WalletAt, Workspace};

impl<S: Store + ?Sized> Workspace<'_, S> {
    /// Makes a pending tranche of a wallet at hand spendable, now or from its effective time on. `None`:
    /// it has a lifetime that the leader did not know of when it took the command, and could not resolve.
    pub fn confirm_grant(
        &mut self,
        header: &Header<'_>,
        confirm: &ConfirmGrant<'_>,
        at: WalletAt,
    ) -> Result<Option<Result<Moved, Reason>>, Stop> {
        let now = self.now();
        let id = confirm.tranche;
        let Some(mut row) = self.find_tranche(at, id)? else {
            return Ok(refused(Reason::TrancheNotFound));
        };
        if row.life != TrancheLife::Pending {
            return Ok(refused(Reason::TrancheNotActive));
        }
        let expires_at = match (confirm.expiry.map(Expiry::at), &row.lifetime, confirm.lifetime) {
            (Some(given), _, _) if given <= now || given <= row.effective_at => {
                return Ok(refused(Reason::InvalidArgument));
            }
            (Some(given), _, _) => given,
            (None, Some(_), Some(resolved)) => resolved,
            (None, Some(_), None) => return Ok(None),
            (None, None, _) => row.expires_at,
        };
        if expires_at <= now || expires_at <= row.effective_at {
            return Ok(refused(Reason::TrancheNotActive));
        }
        row.expires_at = expires_at;
        row.lifetime = None;
        let no = self.wallet(at).no;
        self.changes.delete(keys::pending(no, id));
        let (reason_code, reference, metadata) = (confirm.reason_code, confirm.reference, &confirm.metadata);
        if row.effective_at > now {
            row.life = TrancheLife::Scheduled;
            self.schedule(at, id, row.effective_at);
            self.changes.put(keys::tranche(no, id), row.encode());
            let record = RecordId(self.meta.allocate());
            let told = TrancheRecord {
                wallet_no: no,
                tranche: id,
                booked_at: now,
                effective_at: row.effective_at,
                expires_at,
                balance: self.wallet(at).balance(now),
                reason_code: reason_code.to_owned(),
                key: header.key.to_owned(),
                actor: header.actor.to_owned(),
            };
            self.changes.put(keys::record(record), told.encode());
            return Ok(Some(Ok(Moved { operation: OperationId(record.0), movements: Vec::new() })));
        }
        row.life = TrancheLife::Open;
        self.changes.put(keys::tranche(no, id), row.encode());
        let wallet = self.wallet_mut(at);
        wallet.pending.0 -= row.amount.0;
        wallet.available.0 += row.amount.0;
        burn::open(self, at, row.to_open(id))?;
        let draw = Draw { tranche: id, kind: row.kind, amount: row.amount, left: row.amount };
        let booking = Booking::of_command(header, now, reason_code, reference, metadata);
        let (kind, status) = (MovementKind::Granted, MovementStatus::Posted);
        Ok(Some(Ok(self.moved_by(&booking, at, kind, status, row.amount, draw)?)))
    }

    /// Ends a tranche of a wallet at hand before its time.
    pub fn end_grant(
        &mut self,
        header: &Header<'_>,
        end: &EndGrant<'_>,
        at: WalletAt,
    ) -> Result<Result<Moved, Reason>, Stop> {
        let now = self.now();
        let id = end.tranche;
        let Some(mut row) = self.find_tranche(at, id)? else { return Ok(Err(Reason::TrancheNotFound)) };
        let no = self.wallet(at).no;
        let (status, gone) = match (row.life, end.end) {
            (TrancheLife::Pending, _) => {
                self.changes.delete(keys::pending(no, id));
                self.wallet_mut(at).pending.0 -= row.amount.0;
                (MovementStatus::Pending, row.amount)
            }
            (TrancheLife::Scheduled, GrantEnd::Voided) => {
                let due = DueKey { at: row.effective_at, rank: DueRank::Activation, tranche: id };
                self.delete_due(at, due)?;
                self.wallet_mut(at).pending.0 -= row.amount.0;
                (MovementStatus::Pending, row.amount)
            }
            (TrancheLife::Open, GrantEnd::Voided) if row.expires_at > now => {
                let open = burn::withdraw(self, at, id, &row)?;
                if open == Amount::ZERO && self.held_of(at, id, &row) == Amount::ZERO {
                    return Ok(Err(Reason::TrancheNotActive));
                }
                (MovementStatus::Posted, open)
            }
            _ => return Ok(Err(Reason::TrancheNotActive)),
        };
        row.life = match end.end {
            GrantEnd::Failed => TrancheLife::Failed,
            GrantEnd::Voided => TrancheLife::Voided,
        };
        row.voided.0 += gone.0;
        self.changes.put(keys::tranche(no, id), row.encode());
        let booking = Booking::of_command(header, now, end.reason_code, end.reference, &end.metadata);
        let draw = Draw { tranche: id, kind: row.kind, amount: gone, left: Amount::ZERO };
        let effect = match status {
            MovementStatus::Pending => Amount::ZERO,
            MovementStatus::Posted => Amount(-gone.0),
        };
        self.moved_by(&booking, at, MovementKind::Voided, status, effect, draw).map(Ok)
    }

    /// Has a tranche become active at an instant that lies ahead.
    pub fn schedule(&mut self, at: WalletAt, id: TrancheId, effective_at: Time) {
        let due = DueKey { at: effective_at, rank: DueRank::Activation, tranche: id };
        self.put_due(at, due, Amount::ZERO);
        self.arm_by(at, effective_at);
    }

    fn moved_by(
        &mut self,
        booking: &Booking<'_>,
        at: WalletAt,
        kind: MovementKind,
        status: MovementStatus,
        amount: Amount,
        draw: Draw,
    ) -> Result<Moved, Stop> {
        let mut movements = Vec::with_capacity(1);
        self.book_movement(booking, &mut movements, 0, at, kind, status, amount, vec![draw]);
        Moved::by(movements)
    }
}

fn refused(reason: Reason) -> Option<Result<Moved, Reason>> {
    Some(Err(reason))
}
