//! Debits: an amount burned over the tranches of one wallet, or of all that fit, all or nothing
//! unless the caller takes what there is.

use crate::amount::Amount;
use crate::burn::{self, DRAWS_PER_DEBIT_MAX, Plan};
use crate::command::{Debit, Header};
use crate::grant::amount_reason;
use crate::ids::{OperationId, RecordId};
use crate::rows::journal::{MovementKind, MovementStatus, NewMovement};
use crate::rows::open::Charge;
use crate::store::Store;
use crate::verdict::{Denial, Posted, Reason, Shortage};
use crate::workspace::{Stop, WalletAt, Workspace};

/// A debit, applied.
#[derive(Debug)]
pub struct Debited {
    /// The operation.
    pub operation: OperationId,
    /// One movement a wallet drawn on, in draw order; `balance` is its place among the payers.
    pub movements: Vec<Posted>,
    /// What the same debit could still draw.
    pub remaining: Amount,
}

impl<S: Store + ?Sized> Workspace<'_, S> {
    /// Burns an amount over payers in draw order. They are settled, not frozen, of one asset, and
    /// their scope fits.
    pub fn debit(
        &mut self,
        header: &Header<'_>,
        debit: &Debit<'_>,
        payers: &[WalletAt],
    ) -> Result<Result<Debited, Denial>, Stop> {
        let Some(&first) = payers.first() else { return Err(Stop::Fault("a debit without a payer")) };
        let scale = self.wallet(first).asset_scale;
        let wanted = match debit.amount.to_amount(scale) {
            Ok(amount) => amount,
            Err(error) => return Ok(Err(Denial { reason: amount_reason(error), shortage: None })),
        };
        let charge = Charge { charge_type: debit.charge_type, feature: debit.feature };
        let plans = match self.plan_over(payers, charge, wanted, debit.allow_partial)? {
            Ok(plans) => plans,
            Err(denial) => return Ok(Err(denial)),
        };
        let mut movements = Vec::with_capacity(plans.len());
        let operation = RecordId(self.meta.allocate());
        for (place, plan) in plans {
            let at = payers[place];
            let amount = Amount(-plan.sum.0);
            let draws = burn::carry_out(self, at, plan)?;
            let id = if movements.is_empty() { operation } else { RecordId(self.meta.allocate()) };
            let movement = NewMovement {
                kind: MovementKind::Consumed,
                status: MovementStatus::Posted,
                effective_at: self.now(),
                amount,
                draws: &draws,
                hold: None,
                corrects: None,
                charge,
                key: header.key,
                actor: header.actor,
                reason_code: debit.reason_code,
                reference: debit.reference,
                metadata: &debit.metadata,
            };
            self.post(at, id, OperationId(operation.0), &movement, false);
            movements.push(Posted {
                id,
                kind: MovementKind::Consumed,
                status: MovementStatus::Posted,
                balance: place,
                amount,
                draws,
            });
        }
        let remaining = self.remaining_over(payers, charge)?;
        Ok(Ok(Debited { operation: OperationId(operation.0), movements, remaining }))
    }

    /// Plans to take an amount from payers in draw order: the place of each one that is drawn on, and
    /// what it gives.
    pub fn plan_over(
        &self,
        payers: &[WalletAt],
        charge: Charge<'_>,
        wanted: Amount,
        allow_partial: bool,
    ) -> Result<Result<Vec<(usize, Plan)>, Denial>, Stop> {
        let mut sum = Amount::ZERO;
        let mut draws = 0;
        let mut cut_short = false;
        let mut plans: Vec<(usize, Plan)> = Vec::with_capacity(1);
        for (place, &at) in payers.iter().enumerate() {
            let missing = Amount(wanted.0 - sum.0);
            let plan = burn::plan(self, at, Some(charge), missing, DRAWS_PER_DEBIT_MAX - draws)?;
            sum.0 += plan.sum.0;
            draws += plan.draws();
            cut_short = plan.cut_short;
            if plan.draws() > 0 {
                plans.push((place, plan));
            }
            if sum == wanted || cut_short {
                break;
            }
        }
        match sum == wanted || (allow_partial && sum > Amount::ZERO) {
            true => Ok(Ok(plans)),
            false => Ok(Err(self.shortage(payers, sum, wanted, cut_short))),
        }
    }

    /// What a charge could still draw from payers.
    pub fn remaining_over(&self, payers: &[WalletAt], charge: Charge<'_>) -> Result<Amount, Stop> {
        let mut remaining = Amount::ZERO;
        for &at in payers {
            remaining = Amount(remaining.0.saturating_add(burn::remaining(self, at, charge)?.0));
        }
        Ok(remaining)
    }

    /// Why what the payers have does not do.
    fn shortage(&self, payers: &[WalletAt], there: Amount, wanted: Amount, cut_short: bool) -> Denial {
        let now = self.now();
        let scale = payers.first().map_or(0, |&at| self.wallet(at).asset_scale);
        let out_of_scope = || payers.iter().any(|&at| self.wallet(at).balance(now).available > Amount::ZERO);
        if cut_short {
            Denial { reason: Reason::LimitExceeded, shortage: None }
        } else if there == Amount::ZERO && out_of_scope() {
            Denial { reason: Reason::NoEligibleTranche, shortage: None }
        } else {
            let shortage = Shortage { available: there, required: wanted, scale };
            Denial { reason: Reason::InsufficientCredits, shortage: Some(shortage) }
        }
    }
}
