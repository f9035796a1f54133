//! Grants: tranches put into one wallet, all or none.

use crate::amount::{Amount, AmountError};
use crate::booking::Moved;
use crate::burn;
use crate::command::{Grant, Header};
use crate::ids::{OperationId, RecordId, TrancheId};
use crate::rows::journal::{MovementKind, MovementStatus, NewMovement};
use crate::rows::keys;
use crate::rows::open::Charge;
use crate::rows::tranche::{TrancheLife, TrancheRow};
use crate::store::Store;
use crate::verdict::{Draw, Posted, Reason};
use crate::workspace::{Stop, WalletAt, Workspace};

/// The reason that stands for an amount that does not fit.
pub fn amount_reason(error: AmountError) -> Reason {
    match error {
        AmountError::TooPrecise => Reason::InvalidAmountPrecision,
        AmountError::Overflow => Reason::AmountOverflow,
        AmountError::Malformed => Reason::InvalidArgument,
    }
}

impl<S: Store + ?Sized> Workspace<'_, S> {
    /// Grants tranches to a wallet at hand.
    pub fn grant(
        &mut self,
        header: &Header<'_>,
        grant: &Grant<'_>,
        at: WalletAt,
    ) -> Result<Result<Moved, Reason>, Stop> {
        let tranches = match self.judge_grant(grant, at)? {
            Ok(tranches) => tranches,
            Err(reason) => return Ok(Err(reason)),
        };
        let no = self.wallet(at).no;
        let ids: Vec<TrancheId> = tranches.iter().map(|_| TrancheId(self.meta.allocate())).collect();
        let groups = [MovementStatus::Posted, MovementStatus::Pending].map(|status| {
            let due_now = status == MovementStatus::Posted;
            let draws = tranches
                .iter()
                .zip(&ids)
                .filter(|(tranche, _)| due_now == (tranche.life == TrancheLife::Open));
            let draws: Vec<Draw> = draws
                .map(|(tranche, &id)| {
                    let left = if due_now { tranche.amount } else { Amount::ZERO };
                    Draw { tranche: id, kind: tranche.kind, amount: tranche.amount, left }
                })
                .collect();
            (status, draws)
        });
        let first = RecordId(self.meta.allocate());
        let mut movements: Vec<Posted> = Vec::with_capacity(2);
        for (status, draws) in groups {
            if draws.is_empty() {
                continue;
            }
            let id = if movements.is_empty() { first } else { RecordId(self.meta.allocate()) };
            let sum = Amount(draws.iter().map(|draw| draw.amount.0).sum());
            for (tranche, &tranche_id) in tranches.iter().zip(&ids) {
                if draws.iter().any(|draw| draw.tranche == tranche_id) {
                    self.put_tranche(at, tranche_id, tranche, id)?;
                    if !tranche.external_reference.is_empty() {
                        let key = keys::external_reference(no, &tranche.external_reference);
                        self.changes.put(key, tranche_id.0.to_be_bytes().to_vec());
                    }
                }
            }
            let amount = match status {
                MovementStatus::Posted => sum,
                MovementStatus::Pending => Amount::ZERO,
            };
            let movement = NewMovement {
                kind: MovementKind::Granted,
                status,
                effective_at: self.now(),
                amount,
                draws: &draws,
                hold: None,
                corrects: None,
                charge: Charge::default(),
                key: header.key,
                actor: header.actor,
                reason_code: "",
                reference: "",
                metadata: &[],
            };
            self.post(at, id, OperationId(first.0), &movement, false);
            movements.push(Posted { id, kind: MovementKind::Granted, status, balance: 0, amount, draws });
        }
        Ok(Ok(Moved { operation: OperationId(first.0), movements }))
    }

    /// What a grant makes, or why it is refused; changes nothing.
    fn judge_grant(&self, grant: &Grant<'_>, at: WalletAt) -> Result<Result<Vec<TrancheRow>, Reason>, Stop> {
        let wallet = self.wallet(at);
        let now = self.now();
        let mut tranches = Vec::with_capacity(grant.tranches.len());
        for spec in &grant.tranches {
            match spec.amount.to_amount(wallet.asset_scale) {
                Ok(amount) => tranches.push(TrancheRow::new(spec, amount, now)),
                Err(error) => return Ok(Err(amount_reason(error))),
            }
        }
        if tranches.iter().any(|own| own.expires_at <= own.effective_at || own.expires_at <= now) {
            return Ok(Err(Reason::InvalidArgument));
        }
        for (place, tranche) in tranches.iter().enumerate() {
            let reference = tranche.external_reference.as_str();
            if reference.is_empty() {
                continue;
            }
            let twice = tranches[..place].iter().any(|other| other.external_reference == reference);
            if twice || self.get(&keys::external_reference(wallet.no, reference))?.is_some() {
                return Ok(Err(Reason::AlreadyExists));
            }
        }
        let more = tranches.iter().try_fold(Amount::ZERO, |sum, own| sum.checked_add(own.amount));
        match more.is_some_and(|more| self.has_room_for(at, more)) {
            true => Ok(Ok(tranches)),
            false => Ok(Err(Reason::AmountOverflow)),
        }
    }

    /// Whether a wallet's totals stay within range with so much more.
    pub fn has_room_for(&self, at: WalletAt, more: Amount) -> bool {
        let wallet = self.wallet(at);
        let parts = [wallet.pending, wallet.held, more];
        parts.iter().try_fold(wallet.available, |sum, part| sum.checked_add(*part)).is_some()
    }

    /// Puts a correction's tranche into a wallet at hand.
    pub fn put_corrected(&mut self, at: WalletAt, id: TrancheId, tranche: TrancheRow) -> Result<(), Stop> {
        self.put_tranche(at, id, &tranche, RecordId(self.meta.next()))
    }

    fn put_tranche(
        &mut self,
        at: WalletAt,
        id: TrancheId,
        tranche: &TrancheRow,
        granted_by: RecordId,
    ) -> Result<(), Stop> {
        let row = TrancheRow { granted_by, ..tranche.clone() };
        self.changes.put(keys::tranche(self.wallet(at).no, id), row.encode());
        let wallet = self.wallet_mut(at);
        match tranche.life {
            TrancheLife::Pending => {
                wallet.pending.0 += tranche.amount.0;
                let key = keys::pending(wallet.no, id);
                self.changes.put(key, Vec::new());
                Ok(())
            }
            TrancheLife::Scheduled => {
                wallet.pending.0 += tranche.amount.0;
                self.schedule(at, id, tranche.effective_at);
                Ok(())
            }
            _ => {
                wallet.available.0 += tranche.amount.0;
                burn::open(self, at, tranche.to_open(id))
            }
        }
    }
}
