//! Refunds: what a debit or capture spent goes back to the very tranches that it drew from, the last
//! one drawn first, and never more of a draw than it took.
//!
//! What goes back to a tranche that has expired meanwhile is forfeited (`REFUNDED`, then `EXPIRED`), or
//! spendable again for a stated grace; what goes back to a voided one is withdrawn (`REFUNDED`, then
//! `VOIDED`).

use crate::amount::Amount;
use crate::booking::{Booking, Moved, sum_of};
use crate::burn;
use crate::command::{Header, Refund};
use crate::grant::amount_reason;
use crate::ids::{RecordId, TrancheId};
use crate::rows::journal::{Movement, MovementKind, MovementStatus};
use crate::rows::keys;
use crate::rows::open::Charge;
use crate::rows::refund::RefundRow;
use crate::rows::tranche::{TrancheLife, TrancheRow};
use crate::simulation::{self, Bug};
use crate::store::{LocalDamage, Store};
use crate::verdict::{Draw, Reason};
use crate::workspace::{Stop, WalletAt, Workspace};

impl<S: Store + ?Sized> Workspace<'_, S> {
    /// Gives back what a movement of a wallet at hand spent. `None`: what is due has to be booked first.
    pub fn refund(
        &mut self,
        header: &Header<'_>,
        refund: &Refund<'_>,
        (id, movement): (RecordId, Movement),
        at: WalletAt,
    ) -> Result<Option<Result<Moved, Reason>>, Stop> {
        if !matches!(movement.kind, MovementKind::Consumed | MovementKind::Captured) {
            return Ok(Some(Err(Reason::InvalidArgument)));
        }
        let mut given = match self.get(&keys::refund(id))? {
            Some(row) => RefundRow::decode(&row)?,
            None => RefundRow(vec![Amount::ZERO; movement.draws.len()]),
        };
        if simulation::has(Bug::RefundMints) {
            given.0.fill(Amount::ZERO);
        }
        if given.0.len() != movement.draws.len() {
            return Err(LocalDamage::Missing("the refunded draws of a movement").into());
        }
        let given_before: i128 = given.0.iter().map(|amount| amount.0).sum();
        let left = Amount(sum_of(&movement.draws).0 - given_before);
        let wanted = match refund.amount {
            None => left,
            Some(amount) => match amount.to_amount(self.wallet(at).asset_scale) {
                Ok(amount) => amount,
                Err(error) => return Ok(Some(Err(amount_reason(error)))),
            },
        };
        if wanted == Amount::ZERO || wanted > left {
            return Ok(Some(Err(Reason::RefundExceedsDebit)));
        }
        let portions = portions(&movement.draws, &given, wanted);
        if refund.grace.is_some() && self.lapses_unbooked(at, &portions)? {
            return Ok(None);
        }
        if !self.has_room_for(at, wanted) {
            return Ok(Some(Err(Reason::AmountOverflow)));
        }
        let booking = Booking {
            corrects: Some(id),
            charge: Charge {
                charge_type: movement.charge_type,
                feature: (!movement.feature.is_empty()).then_some(movement.feature.as_str()),
            },
            ..Booking::of_command(header, self.now(), refund.reason_code, refund.reference, &refund.metadata)
        };
        let (mut back, mut voided, mut lapsed) = (Vec::new(), Vec::new(), Vec::new());
        for (place, draw) in portions {
            let amount = draw.amount;
            given.0[place].0 += amount.0;
            let told = |left| Draw { tranche: draw.tranche, kind: draw.kind, amount, left };
            match self.return_to(at, draw.tranche, amount, refund)? {
                Home::Available(left) => back.push(told(left)),
                Home::Voided => {
                    back.push(told(amount));
                    voided.push(told(Amount::ZERO));
                }
                Home::Lapsed => {
                    back.push(told(amount));
                    lapsed.push(told(Amount::ZERO));
                }
            }
        }
        self.changes.put(keys::refund(id), given.encode());
        // What goes again was there for the moment between two movements.
        let (voided_sum, lapsed_sum) = (sum_of(&voided), sum_of(&lapsed));
        let mut movements = Vec::with_capacity(1);
        let posted = MovementStatus::Posted;
        self.wallet_mut(at).available.0 += voided_sum.0 + lapsed_sum.0;
        self.book_movement(&booking, &mut movements, 0, at, MovementKind::Refunded, posted, wanted, back);
        self.wallet_mut(at).available.0 -= voided_sum.0;
        let gone = Amount(-voided_sum.0);
        self.book_movement(&booking, &mut movements, 0, at, MovementKind::Voided, posted, gone, voided);
        self.wallet_mut(at).available.0 -= lapsed_sum.0;
        let gone = Amount(-lapsed_sum.0);
        self.book_movement(&booking, &mut movements, 0, at, MovementKind::Expired, posted, gone, lapsed);
        Moved::by(movements).map(|moved| Some(Ok(moved)))
    }

    /// Whether a tranche that a refund would restore has expired and is not booked so: where more is due than
    /// one command books.
    fn lapses_unbooked(&self, at: WalletAt, portions: &[(usize, Draw)]) -> Result<bool, Stop> {
        for (_, draw) in portions {
            let row = self.tranche_row(at, draw.tranche)?;
            let lapsed = row.life == TrancheLife::Open && row.expires_at <= self.now();
            if lapsed && burn::open_part(self, at, draw.tranche, &row)? > Amount::ZERO {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Puts units back into a tranche, as its life lets them.
    fn return_to(
        &mut self,
        at: WalletAt,
        id: TrancheId,
        amount: Amount,
        refund: &Refund<'_>,
    ) -> Result<Home, Stop> {
        let now = self.now();
        let mut row = self.tranche_row(at, id)?;
        let home = match (row.life, refund.grace) {
            (TrancheLife::Voided, _) => {
                row.voided.0 += amount.0;
                Home::Voided
            }
            (TrancheLife::Open, _) if row.expires_at > now => {
                return Ok(Home::Available(burn::give_back(self, at, id, &row, amount)?));
            }
            (TrancheLife::Open | TrancheLife::Expired, Some(grace)) => {
                row.life = TrancheLife::Open;
                row.first_end.get_or_insert(row.expires_at);
                row.expires_at = now.saturating_add(grace);
                self.wallet_mut(at).available.0 += amount.0;
                burn::open(self, at, restored(&row, id, amount))?;
                Home::Available(amount)
            }
            (TrancheLife::Open | TrancheLife::Expired, None) => {
                row.expired.0 += amount.0;
                Home::Lapsed
            }
            (TrancheLife::Scheduled | TrancheLife::Pending | TrancheLife::Failed, _) => {
                return Err(Stop::Fault("a tranche was drawn from that never was active"));
            }
        };
        self.changes.put(keys::tranche(self.wallet(at).no, id), row.encode());
        Ok(home)
    }
}

/// What a refund gives back of each draw, by its place among them: the last one drawn first.
fn portions(draws: &[Draw], given: &RefundRow, wanted: Amount) -> Vec<(usize, Draw)> {
    let mut missing = wanted;
    let mut portions = Vec::with_capacity(1);
    for (place, (draw, given)) in draws.iter().zip(&given.0).enumerate().rev() {
        let amount = Amount(missing.0.min(draw.amount.0 - given.0));
        if amount > Amount::ZERO {
            missing.0 -= amount.0;
            portions.push((place, Draw { amount, ..*draw }));
        }
    }
    portions
}

/// Where refunded units went.
enum Home {
    /// Into their tranche, of which so much is available now.
    Available(Amount),
    /// Their tranche was voided: they are withdrawn.
    Voided,
    /// Their tranche has expired: they are forfeited.
    Lapsed,
}

fn restored(row: &TrancheRow, id: TrancheId, amount: Amount) -> crate::rows::open::OpenTranche {
    crate::rows::open::OpenTranche { available: amount, ..row.to_open(id) }
}
