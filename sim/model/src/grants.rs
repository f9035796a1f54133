//! Granting.

use purser_ledger::amount::Amount;
use purser_ledger::command::{Expiry, Grant, Header, TrancheSpec};
use purser_ledger::rows::journal::{MovementKind, MovementStatus};
use purser_ledger::time::Time;
use purser_ledger::verdict::Reason;

use crate::judging::{amount_at, denied};
use crate::movements::{Entry, draw_of};
use crate::{Details, Effect, Model, Stage, Stop, Tranche, Wallet};

impl Model {
    pub(crate) fn grant(&mut self, header: &Header<'_>, grant: &Grant<'_>) -> Result<Effect, Stop> {
        let now = self.now;
        let place = self.find_open(header.customer, grant.wallet)?;
        let wallet = &self.wallets[place];
        let mut tranches = Vec::new();
        for spec in &grant.tranches {
            let amount = amount_at(spec.amount, wallet.info.asset_scale)?;
            tranches.push(new_tranche(self.tranches + tranches.len(), spec, amount, now));
        }
        if tranches.iter().any(|new| new.expires_at <= new.effective_at || new.expires_at <= now) {
            return denied(Reason::InvalidArgument);
        }
        if references_clash(&wallet.tranches, &tranches) {
            return denied(Reason::AlreadyExists);
        }
        let amounts: Vec<i128> = tranches.iter().map(|new| new.amount).collect();
        wallet.check_room_for(&amounts)?;
        Ok(self.put_in(header, place, tranches))
    }

    fn put_in(&mut self, header: &Header<'_>, place: usize, tranches: Vec<Tranche>) -> Effect {
        self.tranches += tranches.len();
        let details =
            Details { key: header.key.to_owned(), actor: header.actor.to_owned(), ..Details::default() };
        let mut movements = Vec::new();
        for (active, status) in [(true, MovementStatus::Posted), (false, MovementStatus::Pending)] {
            let of_this_sort = |new: &&Tranche| (new.stage == Stage::Active) == active;
            let these: Vec<Tranche> = tranches.iter().filter(of_this_sort).cloned().collect();
            if these.is_empty() {
                continue;
            }
            let entry = Entry {
                kind: MovementKind::Granted,
                status,
                amount: these.iter().map(|new| new.available).sum(),
                draws: these.iter().map(|new| draw_of(new, new.amount)).collect(),
                hold: None,
                corrects: None,
                details: details.clone(),
                due_at: None,
            };
            self.wallets[place].tranches.extend(these);
            movements.push(self.post(place, 0, entry));
        }
        self.wallets[place].tranches.sort_by_key(|tranche| tranche.no);
        Effect::Posted { movements, balances: self.balances_of(&[place]), remaining: None, hold: None }
    }
}

impl Wallet {
    /// What is in a wallet, as booked, and these amounts together must be an amount.
    pub(crate) fn check_room_for(&self, amounts: &[i128]) -> Result<(), Stop> {
        let before = self.balance_as_booked();
        let there = [before.available, before.held, before.pending].map(|Amount(amount)| amount);
        let mut all = there.iter().chain(amounts);
        match all.try_fold(0i128, |sum, amount| sum.checked_add(*amount)) {
            Some(_) => Ok(()),
            None => denied(Reason::AmountOverflow),
        }
    }
}

fn new_tranche(no: usize, spec: &TrancheSpec<'_>, amount: i128, now: Time) -> Tranche {
    let effective_at = spec.effective_at.unwrap_or(now);
    let has_lifetime = spec.pending && matches!(spec.expiry, Expiry::After { .. });
    let stage = match (spec.pending, effective_at > now) {
        (true, _) => Stage::Pending,
        (false, true) => Stage::Scheduled,
        (false, false) => Stage::Active,
    };
    Tranche {
        no,
        kind: spec.kind,
        priority: spec.priority,
        effective_at,
        expires_at: if has_lifetime { Time::NEVER } else { spec.expiry.at() },
        has_lifetime,
        scope: spec.scope,
        features: spec.features.iter().map(|&feature| feature.to_owned()).collect(),
        external_reference: spec.external_reference.to_owned(),
        stage,
        amount,
        available: if stage == Stage::Active { amount } else { 0 },
        held: 0,
        consumed: 0,
        expired: 0,
        voided: 0,
    }
}

/// Whether a reference of a new tranche is in the wallet, or stands twice in the grant.
fn references_clash(there: &[Tranche], new: &[Tranche]) -> bool {
    let mut taken: Vec<&str> = there.iter().map(|tranche| tranche.external_reference.as_str()).collect();
    for tranche in new.iter().filter(|tranche| !tranche.external_reference.is_empty()) {
        if taken.contains(&tranche.external_reference.as_str()) {
            return true;
        }
        taken.push(&tranche.external_reference);
    }
    false
}
