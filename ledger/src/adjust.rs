//! Corrections of a wallet's credits, up or down.

use crate::amount::Amount;
use crate::booking::{Booking, Moved};
use crate::burn::{self, DRAWS_PER_DEBIT_MAX};
use crate::command::{Adjust, Change, ChargeScope, Header, TrancheKind, TrancheSpec};
use crate::grant::amount_reason;
use crate::ids::TrancheId;
use crate::rows::journal::{MovementKind, MovementStatus};
use crate::rows::keys;
use crate::rows::tranche::{TrancheLife, TrancheRow};
use crate::store::Store;
use crate::verdict::{Denial, Draw, Reason, Shortage};
use crate::workspace::{Stop, WalletAt, Workspace};

/// The priority of what does not say.
const PRIORITY: u16 = 100;

impl<S: Store + ?Sized> Workspace<'_, S> {
    /// Corrects the credits of a wallet at hand.
    pub fn adjust(
        &mut self,
        header: &Header<'_>,
        adjust: &Adjust<'_>,
        at: WalletAt,
    ) -> Result<Result<Moved, Denial>, Stop> {
        let (wanted, down) = match adjust.change {
            Change::Up { amount, .. } => (amount, false),
            Change::Down { amount, .. } => (amount, true),
        };
        let named = match adjust.change {
            Change::Down { tranche: Some(id), .. } => match self.tranche_to_correct(at, id)? {
                Ok(row) => Some((id, row)),
                Err(reason) => return Ok(Err(reason.into())),
            },
            _ => None,
        };
        let amount = match wanted.to_amount(self.wallet(at).asset_scale) {
            Ok(amount) => amount,
            Err(error) => return Ok(Err(amount_reason(error).into())),
        };
        let (now, (reason_code, reference)) = (self.now(), (adjust.reason_code, adjust.reference));
        let booking = Booking::of_command(header, now, reason_code, reference, &adjust.metadata);
        let draws = match adjust.change {
            Change::Up { amount: text, expiry } => {
                let spec = TrancheSpec {
                    amount: text,
                    pending: false,
                    kind: TrancheKind::Correction,
                    priority: PRIORITY,
                    effective_at: None,
                    expiry,
                    scope: ChargeScope::Any,
                    features: Vec::new(),
                    label: "",
                    reason_code: adjust.reason_code,
                    external_reference: "",
                    cost: None,
                    metadata: adjust.metadata.clone(),
                };
                let row = TrancheRow::new(&spec, amount, self.now());
                match self.correct_up(at, row)? {
                    Ok(draw) => vec![draw],
                    Err(reason) => return Ok(Err(reason.into())),
                }
            }
            Change::Down { .. } => {
                let taken = match named {
                    Some((id, row)) => self.correct_tranche(at, id, row, amount)?.map(|draw| vec![draw]),
                    None => self.correct_down(at, amount)?,
                };
                match taken {
                    Ok(draws) => draws,
                    Err(denial) => return Ok(Err(denial)),
                }
            }
        };
        let effect = Amount(if down { -amount.0 } else { amount.0 });
        let mut movements = Vec::with_capacity(1);
        let (kind, status) = (MovementKind::Adjusted, MovementStatus::Posted);
        self.book_movement(&booking, &mut movements, 0, at, kind, status, effect, draws);
        Moved::by(movements).map(Ok)
    }

    fn correct_up(&mut self, at: WalletAt, row: TrancheRow) -> Result<Result<Draw, Reason>, Stop> {
        if row.expires_at <= self.now() {
            return Ok(Err(Reason::InvalidArgument));
        }
        if !self.has_room_for(at, row.amount) {
            return Ok(Err(Reason::AmountOverflow));
        }
        let id = TrancheId(self.meta.allocate());
        let (kind, amount) = (row.kind, row.amount);
        self.put_corrected(at, id, row)?;
        Ok(Ok(Draw { tranche: id, kind, amount, left: amount }))
    }

    /// Takes from what is available, in burn order, whatever it may pay for.
    fn correct_down(&mut self, at: WalletAt, amount: Amount) -> Result<Result<Vec<Draw>, Denial>, Stop> {
        let plan = burn::plan(self, at, None, amount, DRAWS_PER_DEBIT_MAX)?;
        if plan.sum < amount {
            return Ok(Err(match plan.cut_short {
                true => Reason::LimitExceeded.into(),
                false => self.short(at, plan.sum, amount),
            }));
        }
        let draws = burn::carry_out(self, at, plan)?;
        for draw in &draws {
            let mut row = self.tranche_row(at, draw.tranche)?;
            row.voided.0 += draw.amount.0;
            self.changes.put(keys::tranche(self.wallet(at).no, draw.tranche), row.encode());
        }
        Ok(Ok(draws))
    }

    /// A tranche of which something may be taken.
    fn tranche_to_correct(&self, at: WalletAt, id: TrancheId) -> Result<Result<TrancheRow, Reason>, Stop> {
        let Some(row) = self.find_tranche(at, id)? else { return Ok(Err(Reason::TrancheNotFound)) };
        let active = row.life == TrancheLife::Open && row.expires_at > self.now();
        let spent = || {
            let held = self.held_of(at, id, &row);
            Ok::<_, Stop>(held == Amount::ZERO && burn::open_part(self, at, id, &row)? == Amount::ZERO)
        };
        if !active || spent()? {
            return Ok(Err(Reason::TrancheNotActive));
        }
        Ok(Ok(row))
    }

    /// Takes from one tranche.
    fn correct_tranche(
        &mut self,
        at: WalletAt,
        id: TrancheId,
        mut row: TrancheRow,
        amount: Amount,
    ) -> Result<Result<Draw, Denial>, Stop> {
        let there = burn::open_part(self, at, id, &row)?;
        if there < amount {
            return Ok(Err(self.short(at, there, amount)));
        }
        burn::withdraw(self, at, id, &row)?;
        let left = Amount(there.0 - amount.0);
        if left > Amount::ZERO {
            burn::give_back(self, at, id, &row, left)?;
        }
        row.voided.0 += amount.0;
        self.changes.put(keys::tranche(self.wallet(at).no, id), row.encode());
        Ok(Ok(Draw { tranche: id, kind: row.kind, amount, left }))
    }

    fn short(&self, at: WalletAt, available: Amount, required: Amount) -> Denial {
        let scale = self.wallet(at).asset_scale;
        let shortage = Some(Shortage { available, required, scale });
        Denial { reason: Reason::InsufficientCredits, shortage }
    }
}
