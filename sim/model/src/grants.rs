//! Granting.

use purser_ledger::amount::Amount;
use purser_ledger::command::{Grant, Header, TrancheSpec};
use purser_ledger::rows::journal::{MovementKind, MovementStatus};
use purser_ledger::time::Time;
use purser_ledger::verdict::Reason;

use crate::judging::{amount_at, denied};
use crate::movements::{Entry, draw_of};
use crate::{Details, Effect, Model, Stage, Stop, Tranche};

impl Model {
    pub(crate) fn grant(&mut self, header: &Header<'_>, grant: &Grant<'_>) -> Result<Effect, Stop> {
        let now = self.now;
        let place = self.find(header.customer, grant.wallet)?;
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
        let before = wallet.balance_as_booked();
        let there = [before.available, before.held, before.pending].map(|Amount(amount)| amount);
        let mut amounts = there.into_iter().chain(tranches.iter().map(|new| new.amount));
        if amounts.try_fold(0i128, |sum, amount| sum.checked_add(amount)).is_none() {
            return denied(Reason::AmountOverflow);
        }
        Ok(self.put_in(header, place, tranches))
    }

    fn put_in(&mut self, header: &Header<'_>, place: usize, tranches: Vec<Tranche>) -> Effect {
        self.tranches += tranches.len();
        let details =
            Details { key: header.key.to_owned(), actor: header.actor.to_owned(), ..Details::default() };
        let mut movements = Vec::new();
        for (stage, status) in
            [(Stage::Active, MovementStatus::Posted), (Stage::Scheduled, MovementStatus::Pending)]
        {
            let these: Vec<Tranche> = tranches.iter().filter(|new| new.stage == stage).cloned().collect();
            if these.is_empty() {
                continue;
            }
            let entry = Entry {
                kind: MovementKind::Granted,
                status,
                amount: these.iter().map(|new| new.available).sum(),
                draws: these.iter().map(|new| draw_of(new, new.amount)).collect(),
                hold: None,
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

fn new_tranche(no: usize, spec: &TrancheSpec<'_>, amount: i128, now: Time) -> Tranche {
    let effective_at = spec.effective_at.unwrap_or(now);
    let scheduled = effective_at > now;
    Tranche {
        no,
        kind: spec.kind,
        priority: spec.priority,
        effective_at,
        expires_at: spec.expiry.at(),
        scope: spec.scope,
        features: spec.features.iter().map(|&feature| feature.to_owned()).collect(),
        external_reference: spec.external_reference.to_owned(),
        stage: if scheduled { Stage::Scheduled } else { Stage::Active },
        amount,
        available: if scheduled { 0 } else { amount },
        held: 0,
        consumed: 0,
        expired: 0,
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
