//! Refunds: what a debit or capture spent goes back to the tranches that it came from.

use purser_ledger::amount::Amount;
use purser_ledger::command::{Header, Refund};
use purser_ledger::ids::{Customer, RecordId};
use purser_ledger::rows::journal::{MovementKind, MovementStatus};
use purser_ledger::time::Time;
use purser_ledger::verdict::Reason;

use crate::judging::{amount_at, denied};
use crate::life::plain_details;
use crate::movements::{Entry, draw_of, movement_id};
use crate::{Details, Draw, Due, DueWhat, Effect, Model, Movement, Stage, Stop, Tranche, Wallet};

/// What becomes of what goes back to a tranche.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Return {
    /// It may be spent again.
    Stays,
    /// It may be spent again until then: the tranche had reached its end.
    Restored(Time),
    /// It is withdrawn again: the tranche is voided.
    Withdrawn,
    /// It lapses again: the tranche has reached its end.
    Forfeited,
}

/// What a refund gives back to one tranche.
struct Portion {
    /// The number of the tranche.
    tranche: usize,
    amount: i128,
    becomes: Return,
}

impl Model {
    pub(crate) fn refund(&mut self, header: &Header<'_>, refund: &Refund<'_>) -> Result<Effect, Stop> {
        let (place, number) = self.find_movement(header.customer, refund.movement)?;
        self.book_before_judging(&[place])?;
        let wallet = &self.wallets[place];
        if wallet.info.closed {
            return denied(Reason::WalletClosed);
        }
        let spent = wallet.movements[number as usize - 1].clone();
        if !matches!(spent.kind, MovementKind::Consumed | MovementKind::Captured) {
            return denied(Reason::InvalidArgument);
        }
        let left: i128 = spent.draws.iter().map(|draw| wallet.left_to_refund(&spent, draw)).sum();
        let amount = match refund.amount {
            None => left,
            Some(decimal) => amount_at(decimal, wallet.info.asset_scale)?,
        };
        if amount > left || amount == 0 {
            return denied(Reason::RefundExceedsDebit);
        }
        let until = refund.grace.map(|grace| self.now.saturating_add(grace));
        let portions = self.portions(place, &spent, amount, until);
        for portion in portions.iter().filter(|portion| matches!(portion.becomes, Return::Restored(_))) {
            let its_end = |due: &Due| due.what == DueWhat::Expiry && due.of == portion.tranche;
            if self.due(place).iter().any(its_end) {
                return Err(Stop::Backlog);
            }
        }
        self.wallets[place].check_room_for(&[amount])?;
        Ok(self.give_back_spent(header, refund, place, number, &portions))
    }

    /// The place of the wallet of a customer's movement, and its number there.
    fn find_movement(&self, customer: Customer<'_>, id: RecordId) -> Result<(usize, u64), Stop> {
        let own = self.wallets_of(customer);
        if own.is_empty() {
            return denied(Reason::CustomerNotFound);
        }
        for place in own {
            for movement in &self.wallets[place].movements {
                if movement_id(place, movement.number) == id {
                    return Ok((place, movement.number));
                }
            }
        }
        denied(Reason::MovementNotFound)
    }

    /// How much goes back to which tranche, the last one drawn first.
    fn portions(&self, place: usize, spent: &Movement, amount: i128, until: Option<Time>) -> Vec<Portion> {
        let wallet = &self.wallets[place];
        let mut portions = Vec::new();
        let mut missing = amount;
        for draw in spent.draws.iter().rev() {
            let amount = missing.min(wallet.left_to_refund(spent, draw));
            if amount == 0 {
                continue;
            }
            missing -= amount;
            let tranche = wallet.tranches.iter().find(|tranche| tranche.no == draw.tranche).unwrap();
            let becomes = match (tranche.stage, until) {
                (Stage::Voided, _) => Return::Withdrawn,
                _ if self.now < tranche.expires_at => Return::Stays,
                (_, Some(until)) => Return::Restored(until),
                (_, None) => Return::Forfeited,
            };
            portions.push(Portion { tranche: draw.tranche, amount, becomes });
        }
        portions
    }

    /// Books the portions: what comes back in one movement, what has to go again in one or two more.
    fn give_back_spent(
        &mut self,
        header: &Header<'_>,
        refund: &Refund<'_>,
        place: usize,
        number: u64,
        portions: &[Portion],
    ) -> Effect {
        let mut came_back = Vec::new();
        let mut withdrawn = Vec::new();
        let mut forfeited = Vec::new();
        for portion in portions {
            let tranche = self.tranche_numbered(place, portion.tranche);
            tranche.consumed -= portion.amount;
            match portion.becomes {
                Return::Stays => tranche.available += portion.amount,
                Return::Restored(until) => {
                    tranche.stage = Stage::Active;
                    tranche.expires_at = until;
                    tranche.available = portion.amount;
                }
                Return::Withdrawn => {
                    tranche.voided += portion.amount;
                    withdrawn.push(draw_with(tranche, portion.amount, 0));
                }
                Return::Forfeited => {
                    tranche.expired += portion.amount;
                    forfeited.push(draw_with(tranche, portion.amount, 0));
                }
            }
            came_back.push(match portion.becomes {
                Return::Stays | Return::Restored(_) => draw_of(tranche, portion.amount),
                Return::Withdrawn | Return::Forfeited => draw_with(tranche, portion.amount, portion.amount),
            });
        }
        let spent = &self.wallets[place].movements[number as usize - 1].details;
        let details = Details {
            charge_type: spent.charge_type,
            feature: spent.feature.clone(),
            ..plain_details(header, refund.reason_code, refund.reference, &refund.metadata)
        };
        let mut movements = Vec::new();
        let mut to_go: i128 = sum_of(&withdrawn) + sum_of(&forfeited);
        for (kind, draws) in [
            (MovementKind::Refunded, came_back),
            (MovementKind::Voided, withdrawn),
            (MovementKind::Expired, forfeited),
        ] {
            if draws.is_empty() {
                continue;
            }
            let sum = sum_of(&draws);
            let amount = match kind {
                MovementKind::Refunded => sum,
                _ => -sum,
            };
            let entry = Entry {
                kind,
                status: MovementStatus::Posted,
                amount,
                draws,
                hold: None,
                corrects: Some(number),
                details: details.clone(),
                due_at: None,
            };
            movements.push(self.post(place, 0, entry));
            if kind != MovementKind::Refunded {
                to_go -= sum;
            }
            // What has yet to go counts as available until it has gone.
            let written = self.wallets[place].movements.last_mut().unwrap();
            written.balance_after.available.0 += to_go;
        }
        self.effect_in(place, movements)
    }
}

impl Wallet {
    /// How much of a draw of a movement no refund has given back yet. A movement draws on a tranche once.
    fn left_to_refund(&self, spent: &Movement, draw: &Draw) -> i128 {
        let refunds = self.movements.iter().filter(|movement| {
            movement.kind == MovementKind::Refunded && movement.corrects == Some(spent.number)
        });
        let given_back =
            refunds.flat_map(|movement| &movement.draws).filter(|own| own.tranche == draw.tranche);
        draw.amount.0 - given_back.map(|own| own.amount.0).sum::<i128>()
    }
}

fn draw_with(tranche: &Tranche, amount: i128, left: i128) -> Draw {
    Draw { left: Amount(left), ..draw_of(tranche, amount) }
}

fn sum_of(draws: &[Draw]) -> i128 {
    draws.iter().map(|draw| draw.amount.0).sum()
}
