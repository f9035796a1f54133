//! Corrections, up and down.

use purser_ledger::amount::Decimal;
use purser_ledger::command::{Adjust, Change, ChargeScope, Expiry, Header, TrancheKind};
use purser_ledger::ids::TrancheId;
use purser_ledger::rows::journal::{MovementKind, MovementStatus};
use purser_ledger::verdict::Reason;

use crate::debits::Source;
use crate::judging::{amount_at, denied};
use crate::life::plain_details;
use crate::movements::draw_of;
use crate::{Draw, Effect, Model, Stage, Stop, Tranche};

impl Model {
    pub(crate) fn adjust(&mut self, header: &Header<'_>, adjust: &Adjust<'_>) -> Result<Effect, Stop> {
        let place = self.find_open(header.customer, adjust.wallet)?;
        let draws = match adjust.change {
            Change::Up { amount, expiry } => self.adjust_up(place, amount, expiry)?,
            Change::Down { amount, tranche } => self.adjust_down(place, amount, tranche)?,
        };
        let sum: i128 = draws.iter().map(|draw| draw.amount.0).sum();
        let signed = match adjust.change {
            Change::Up { .. } => sum,
            Change::Down { .. } => -sum,
        };
        let details = plain_details(header, adjust.reason_code, adjust.reference, &adjust.metadata);
        let adjusted = (MovementKind::Adjusted, MovementStatus::Posted);
        let movement = self.post_plain(place, adjusted, signed, draws, details);
        Ok(self.effect_in(place, vec![movement]))
    }

    fn adjust_up(&mut self, place: usize, amount: Decimal, expiry: Expiry<'_>) -> Result<Vec<Draw>, Stop> {
        let wallet = &mut self.wallets[place];
        let amount = amount_at(amount, wallet.info.asset_scale)?;
        if expiry.at() <= self.now {
            return denied(Reason::InvalidArgument);
        }
        wallet.check_room_for(&[amount])?;
        let tranche = Tranche {
            no: self.tranches,
            kind: TrancheKind::Correction,
            priority: 100,
            effective_at: self.now,
            expires_at: expiry.at(),
            has_lifetime: false,
            scope: ChargeScope::Any,
            features: Vec::new(),
            external_reference: String::new(),
            stage: Stage::Active,
            amount,
            available: amount,
            held: 0,
            consumed: 0,
            expired: 0,
            voided: 0,
        };
        let draw = draw_of(&tranche, amount);
        self.tranches += 1;
        wallet.tranches.push(tranche);
        Ok(vec![draw])
    }

    fn adjust_down(
        &mut self,
        place: usize,
        amount: Decimal,
        named: Option<TrancheId>,
    ) -> Result<Vec<Draw>, Stop> {
        let mut sources: Vec<Source> = self.sources(&[place], |_| true);
        if let Some(id) = named {
            let no = self.find_tranche(place, id)?;
            let tranches = &self.wallets[place].tranches;
            if !tranches.iter().any(|tranche| tranche.no == no && tranche.is_active(self.now)) {
                return denied(Reason::TrancheNotActive);
            }
            sources.retain(|source| tranches[source.tranche].no == no);
        }
        let required = amount_at(amount, self.wallets[place].info.asset_scale)?;
        let drawn = self.draws_on(&sources, place, required, false)?;
        let mut draws = Vec::new();
        for (source, amount) in drawn {
            let tranche = &mut self.wallets[place].tranches[source.tranche];
            tranche.available -= amount;
            tranche.voided += amount;
            draws.push(draw_of(tranche, amount));
        }
        Ok(draws)
    }
}
