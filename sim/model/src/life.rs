//! What becomes of a grant: its invoice is paid or not, or what is left of it is withdrawn.

use purser_ledger::command::{ConfirmGrant, EndGrant, GrantEnd, Header, Metadata};
use purser_ledger::ids::TrancheId;
use purser_ledger::rows::journal::{MovementKind, MovementStatus};
use purser_ledger::time::Time;
use purser_ledger::verdict::Reason;

use crate::debits::{Charge, details_of};
use crate::judging::denied;
use crate::movements::{Entry, draw_of};
use crate::{Details, Draw, Effect, Model, Posted, Stage, Stop, Tranche};

/// What is not about a debit charges for nothing.
const NO_CHARGE: Charge<'static> = Charge { charge_type: None, feature: None };

impl Model {
    pub(crate) fn confirm_grant(
        &mut self,
        header: &Header<'_>,
        confirm: &ConfirmGrant<'_>,
    ) -> Result<Effect, Stop> {
        let now = self.now;
        let place = self.find_open(header.customer, confirm.wallet)?;
        let no = self.find_tranche(place, confirm.tranche)?;
        let tranche = self.tranche_numbered(place, no);
        if tranche.stage != Stage::Pending {
            return denied(Reason::TrancheNotActive);
        }
        let expires_at = match (confirm.expiry, tranche.has_lifetime) {
            (Some(expiry), _) => expiry.at(),
            (None, true) => confirm.lifetime.unwrap_or(Time::NEVER),
            (None, false) => tranche.expires_at,
        };
        if confirm.expiry.is_some() && (expires_at <= now || expires_at <= tranche.effective_at) {
            return denied(Reason::InvalidArgument);
        }
        if expires_at <= now {
            return denied(Reason::TrancheNotActive);
        }
        tranche.expires_at = expires_at;
        tranche.has_lifetime = false;
        if tranche.effective_at > now {
            tranche.stage = Stage::Scheduled;
            return Ok(self.effect_in(place, Vec::new()));
        }
        tranche.stage = Stage::Active;
        tranche.available = tranche.amount;
        let (amount, draw) = (tranche.amount, draw_of(tranche, tranche.amount));
        let details = plain_details(header, confirm.reason_code, confirm.reference, &confirm.metadata);
        let granted = (MovementKind::Granted, MovementStatus::Posted);
        let movement = self.post_plain(place, granted, amount, vec![draw], details);
        Ok(self.effect_in(place, vec![movement]))
    }

    pub(crate) fn end_grant(&mut self, header: &Header<'_>, end: &EndGrant<'_>) -> Result<Effect, Stop> {
        let now = self.now;
        let place = self.find_open(header.customer, end.wallet)?;
        let no = self.find_tranche(place, end.tranche)?;
        let tranche = self.tranche_numbered(place, no);
        let may_end = match (end.end, tranche.stage) {
            (_, Stage::Pending) => true,
            (GrantEnd::Voided, Stage::Scheduled) => true,
            (GrantEnd::Voided, Stage::Active) => tranche.is_active(now),
            _ => false,
        };
        if !may_end {
            return denied(Reason::TrancheNotActive);
        }
        let was_active = tranche.stage == Stage::Active;
        let gone = if was_active { tranche.available } else { tranche.amount };
        tranche.stage = match end.end {
            GrantEnd::Failed => Stage::Failed,
            GrantEnd::Voided => Stage::Voided,
        };
        tranche.available = 0;
        tranche.voided += gone;
        let draw = draw_of(tranche, gone);
        let details = plain_details(header, end.reason_code, end.reference, &end.metadata);
        let (status, amount) = match was_active {
            true => (MovementStatus::Posted, -gone),
            false => (MovementStatus::Pending, 0),
        };
        let movement = self.post_plain(place, (MovementKind::Voided, status), amount, vec![draw], details);
        Ok(self.effect_in(place, vec![movement]))
    }

    /// The number of a tranche that must be in the wallet.
    pub(crate) fn find_tranche(&self, place: usize, id: TrancheId) -> Result<usize, Stop> {
        match self.wallets[place].tranches.iter().find(|tranche| tranche.no as u64 == id.0) {
            Some(tranche) => Ok(tranche.no),
            None => denied(Reason::TrancheNotFound),
        }
    }

    /// Writes a movement that is about no hold and corrects no other.
    pub(crate) fn post_plain(
        &mut self,
        place: usize,
        (kind, status): (MovementKind, MovementStatus),
        amount: i128,
        draws: Vec<Draw>,
        details: Details,
    ) -> Posted {
        self.post(
            place,
            0,
            Entry { kind, status, amount, draws, hold: None, corrects: None, details, due_at: None },
        )
    }

    /// What a command did to one wallet.
    pub(crate) fn effect_in(&self, place: usize, movements: Vec<Posted>) -> Effect {
        Effect::Posted { movements, balances: self.balances_of(&[place]), remaining: None, hold: None }
    }
}

impl Tranche {
    /// Whether it is in the middle of its life: begun, not at its end, and something is left of it.
    pub(crate) fn is_active(&self, now: Time) -> bool {
        self.stage == Stage::Active && now < self.expires_at && (self.available > 0 || self.held > 0)
    }
}

/// What the movements of a command repeat of it that charges for nothing.
pub(crate) fn plain_details(
    header: &Header<'_>,
    reason_code: &str,
    reference: &str,
    metadata: &Metadata<'_>,
) -> Details {
    details_of(header, NO_CHARGE, reason_code, reference, metadata)
}
