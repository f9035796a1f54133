//! Debiting, and whatever else walks the burn order.

use purser_ledger::amount::{Amount, Asset};
use purser_ledger::command::{
    BurnPolicy, ChargeScope, ChargeType, Debit, Header, Metadata, Payer, TrancheKind,
};
use purser_ledger::ids::Customer;
use purser_ledger::rows::journal::{MovementKind, MovementStatus};
use purser_ledger::time::Time;
use purser_ledger::verdict::{Denial, Reason, Shortage};

use crate::judging::{amount_at, denied};
use crate::movements::{Entry, draw_of};
use crate::{DRAWS_MAX, Details, Effect, Model, Posted, Stage, Stop, Tranche};

/// What is charged for.
#[derive(Clone, Copy)]
pub(crate) struct Charge<'a> {
    pub charge_type: Option<ChargeType>,
    pub feature: Option<&'a str>,
}

/// A tranche that a debit may draw on: the place of its wallet, and its place in that wallet.
#[derive(Clone, Copy)]
pub(crate) struct Source {
    pub wallet: usize,
    pub tranche: usize,
}

/// How much is taken from which.
pub(crate) type Drawn = Vec<(Source, i128)>;

impl Model {
    pub(crate) fn debit(&mut self, header: &Header<'_>, debit: &Debit<'_>) -> Result<Effect, Stop> {
        let charge = Charge { charge_type: debit.charge_type, feature: debit.feature };
        let payers = self.payers(header.customer, debit.payer, charge)?;
        let scale = self.wallets[payers[0]].info.asset_scale;
        let required = amount_at(debit.amount, scale)?;
        let drawn = self.draws_for(&payers, charge, required, debit.allow_partial)?;
        let details = details_of(header, charge, debit.reason_code, debit.reference, &debit.metadata);
        let movements = self.take(&payers, &drawn, None, &details);
        Ok(Effect::Posted {
            movements,
            balances: self.balances_of(&payers),
            remaining: Some(Amount(self.drawable(&payers, charge))),
            hold: None,
        })
    }

    /// The places of the wallets that pay, in draw order, with what is due in them booked.
    pub(crate) fn payers(
        &mut self,
        customer: Customer<'_>,
        payer: Payer<'_>,
        charge: Charge<'_>,
    ) -> Result<Vec<usize>, Stop> {
        match payer {
            Payer::Wallet(wallet) => {
                let place = self.find_open(customer, wallet)?;
                let info = &self.wallets[place].info;
                if info.frozen {
                    return denied(Reason::WalletFrozen);
                }
                if !info.scope.fits(charge.charge_type) {
                    return denied(Reason::NoEligibleTranche);
                }
                Ok(vec![place])
            }
            Payer::CustomerIn(asset) => {
                let own = self.payers_in(customer, asset, charge)?;
                self.book_before_judging(&own)?;
                Ok(own)
            }
        }
    }

    /// The places of the customer's wallets that may pay in this asset, in draw order.
    pub(crate) fn payers_in(
        &self,
        customer: Customer<'_>,
        asset: Asset<'_>,
        charge: Charge<'_>,
    ) -> Result<Vec<usize>, Stop> {
        let mut own = self.wallets_of(customer);
        if own.is_empty() {
            return denied(Reason::CustomerNotFound);
        }
        own.retain(|&place| self.wallets[place].asset() == asset);
        if own.is_empty() {
            return denied(Reason::WalletNotFound);
        }
        own.retain(|&place| !self.wallets[place].info.closed);
        if own.is_empty() {
            return denied(Reason::WalletClosed);
        }
        own.retain(|&place| !self.wallets[place].info.frozen);
        if own.is_empty() {
            return denied(Reason::WalletFrozen);
        }
        own.retain(|&place| self.wallets[place].info.scope.fits(charge.charge_type));
        if own.is_empty() {
            return denied(Reason::NoEligibleTranche);
        }
        own.sort_by_key(|&place| (self.wallets[place].info.draw_priority, place));
        Ok(own)
    }

    /// What to take from which, for the whole amount; or, `partial`, for as much as there is.
    pub(crate) fn draws_for(
        &self,
        payers: &[usize],
        charge: Charge<'_>,
        required: i128,
        partial: bool,
    ) -> Result<Drawn, Stop> {
        let sources = self.sources(payers, |tranche| fits(tranche, charge));
        let drawable = self.sum_of(&sources);
        let something = payers.iter().any(|&place| self.wallets[place].balance(self.now).available.0 > 0);
        if drawable == 0 && something {
            return denied(Reason::NoEligibleTranche);
        }
        if drawable == 0 && partial {
            return self.too_little(payers[0], drawable, required);
        }
        self.draws_on(&sources, payers[0], required, partial)
    }

    /// The same of tranches that were chosen already; of their wallets one is in this place.
    pub(crate) fn draws_on(
        &self,
        sources: &[Source],
        place: usize,
        required: i128,
        partial: bool,
    ) -> Result<Drawn, Stop> {
        let drawable = self.sum_of(sources);
        let enough = drawable >= required;
        if !(enough || partial || sources.len() > DRAWS_MAX) {
            return self.too_little(place, drawable, required);
        }
        let drawn = self.walk(sources, required);
        let sum: i128 = drawn.iter().map(|(_, amount)| amount).sum();
        if sum < required && !partial {
            return denied(Reason::LimitExceeded);
        }
        Ok(drawn)
    }

    /// What a debit for this charge could draw from these wallets.
    pub(crate) fn drawable(&self, payers: &[usize], charge: Charge<'_>) -> i128 {
        self.sum_of(&self.sources(payers, |tranche| fits(tranche, charge)))
    }

    /// Every tranche that may be spent now and fits, in burn order.
    pub(crate) fn sources(&self, payers: &[usize], fits: impl Fn(&Tranche) -> bool) -> Vec<Source> {
        let mut sources = Vec::new();
        for &place in payers {
            let wallet = &self.wallets[place];
            let mut own: Vec<usize> = (0..wallet.tranches.len())
                .filter(|&tranche| is_spendable(&wallet.tranches[tranche], self.now))
                .filter(|&tranche| fits(&wallet.tranches[tranche]))
                .collect();
            own.sort_by_key(|&tranche| burn_key(&wallet.tranches[tranche], wallet.info.burn_policy));
            sources.extend(own.into_iter().map(|tranche| Source { wallet: place, tranche }));
        }
        sources
    }

    fn tranche(&self, source: Source) -> &Tranche {
        &self.wallets[source.wallet].tranches[source.tranche]
    }

    /// What may be spent of these. Over several wallets it may be more than an amount holds; then
    /// the greatest amount stands for it.
    fn sum_of(&self, sources: &[Source]) -> i128 {
        sources.iter().fold(0i128, |sum, &source| sum.saturating_add(self.tranche(source).available))
    }

    /// How much to take from which, at most [`DRAWS_MAX`] of them.
    fn walk(&self, sources: &[Source], required: i128) -> Drawn {
        let mut drawn = Vec::new();
        let mut missing = required;
        for &source in sources.iter().take(DRAWS_MAX) {
            if missing == 0 {
                break;
            }
            let amount = missing.min(self.tranche(source).available);
            drawn.push((source, amount));
            missing -= amount;
        }
        drawn
    }

    fn too_little<T>(&self, place: usize, drawable: i128, required: i128) -> Result<T, Stop> {
        let scale = self.wallets[place].info.asset_scale;
        let shortage = Shortage { available: Amount(drawable), required: Amount(required), scale };
        Err(Stop::Denied(Denial { reason: Reason::InsufficientCredits, shortage: Some(shortage) }))
    }

    /// Spends the draws and writes one movement for each wallet that was drawn on. The payers are the
    /// first of the answer's balances.
    pub(crate) fn take(
        &mut self,
        payers: &[usize],
        drawn: &Drawn,
        hold: Option<usize>,
        details: &Details,
    ) -> Vec<Posted> {
        let mut movements = Vec::new();
        for (at, &place) in payers.iter().enumerate() {
            let mut draws = Vec::new();
            let mut sum = 0;
            for &(source, amount) in drawn.iter().filter(|(source, _)| source.wallet == place) {
                let tranche = &mut self.wallets[place].tranches[source.tranche];
                tranche.available -= amount;
                tranche.consumed += amount;
                sum += amount;
                draws.push(draw_of(tranche, amount));
            }
            if draws.is_empty() {
                continue;
            }
            let entry = Entry {
                kind: MovementKind::Consumed,
                status: MovementStatus::Posted,
                amount: -sum,
                draws,
                hold,
                corrects: None,
                details: details.clone(),
                due_at: None,
            };
            movements.push(self.post(place, at, entry));
        }
        movements
    }
}

fn is_spendable(tranche: &Tranche, now: Time) -> bool {
    tranche.stage == Stage::Active
        && tranche.effective_at <= now
        && now < tranche.expires_at
        && tranche.available > 0
}

fn fits(tranche: &Tranche, charge: Charge<'_>) -> bool {
    let feature_fits = match charge.feature {
        None => tranche.features.is_empty(),
        Some(feature) => tranche.features.is_empty() || tranche.features.iter().any(|own| own == feature),
    };
    tranche.scope.fits(charge.charge_type) && feature_fits
}

/// What the tranches of a wallet are sorted by, the lowest first. The order is 2, 3, 4, 5, 6, 7 of
/// PRODUCT.md §2; `SPECIFIC_FIRST` is 2, 5, 3, 4, 6, 7. A `Vec` of numbers compares as it reads.
fn burn_key(tranche: &Tranche, policy: BurnPolicy) -> Vec<u64> {
    let priority = u64::from(tranche.priority);
    let expiry = tranche.expires_at.0;
    let kind = match tranche.kind {
        TrancheKind::Plan => 1,
        TrancheKind::Promotional => 2,
        TrancheKind::Rollover => 3,
        TrancheKind::Correction => 4,
        TrancheKind::Committed => 5,
        TrancheKind::Purchased => 6,
    };
    let narrow = match (tranche.features.is_empty(), tranche.scope) {
        (false, _) => 0,
        (true, ChargeScope::Usage | ChargeScope::Fixed) => 1,
        (true, ChargeScope::Any) => 2,
    };
    let (effective, created) = (tranche.effective_at.0, tranche.no as u64);
    match policy {
        BurnPolicy::Standard => vec![priority, expiry, kind, narrow, effective, created],
        BurnPolicy::SpecificFirst => vec![priority, narrow, expiry, kind, effective, created],
    }
}

/// What the movements of a command repeat of it.
pub(crate) fn details_of(
    header: &Header<'_>,
    charge: Charge<'_>,
    reason_code: &str,
    reference: &str,
    metadata: &Metadata<'_>,
) -> Details {
    Details {
        charge_type: charge.charge_type,
        feature: charge.feature.unwrap_or_default().to_owned(),
        key: header.key.to_owned(),
        actor: header.actor.to_owned(),
        reason_code: reason_code.to_owned(),
        reference: reference.to_owned(),
        metadata: metadata.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect(),
    }
}
