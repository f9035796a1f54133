//! Holds: credits set aside, and what becomes of them.

use purser_ledger::amount::{Amount, Asset};
use purser_ledger::command::{
    Capture, ExtendHold, HOLD_TTL_DEFAULT, HOLD_TTL_MAX, Header, Hold as HoldCommand, Payer, Release,
};
use purser_ledger::ids::{Customer, HoldId};
use purser_ledger::rows::hold::{HoldState, HoldStatus};
use purser_ledger::rows::journal::{MovementKind, MovementStatus};
use purser_ledger::time::Time;
use purser_ledger::verdict::Reason;

use crate::debits::{Charge, Drawn, details_of};
use crate::judging::{amount_at, denied};
use crate::movements::{Entry, draw_of};
use crate::{Details, Draw, Effect, Hold, HoldPayer, Model, Part, Pin, Posted, Stage, Stop, Tranche};

impl Hold {
    /// Whose it is.
    pub fn customer(&self) -> Customer<'_> {
        Customer { namespace: &self.namespace, id: &self.customer }
    }

    /// As it is at an instant: from its time on an open hold is expired, and all that was left of it
    /// given back, whether or not that is booked.
    pub fn state_at(&self, now: Time) -> HoldState {
        let timed_out = self.status == HoldStatus::Open && self.expires_at <= now;
        HoldState {
            status: if timed_out { HoldStatus::Expired } else { self.status },
            created_at: self.created_at,
            expires_at: self.expires_at,
            amount: Amount(self.amount),
            captured: Amount(self.captured),
            released: Amount(if timed_out { self.amount - self.captured } else { self.released }),
            excess: Amount(self.excess),
        }
    }

    /// Whether something of it is still pinned in the wallet in this place.
    pub fn is_pinned_in(&self, place: usize) -> bool {
        self.parts.iter().any(|part| part.wallet == place && !part.pins.is_empty())
    }

    fn left(&self) -> i128 {
        self.amount - self.captured - self.released
    }

    fn charge(&self) -> Charge<'_> {
        Charge { charge_type: self.charge_type, feature: self.feature.as_deref() }
    }
}

// ---- the commands -----------------------------------------------------------------------------

impl Model {
    pub(crate) fn hold(&mut self, header: &Header<'_>, command: &HoldCommand<'_>) -> Result<Effect, Stop> {
        let charge = Charge { charge_type: command.charge_type, feature: command.feature };
        let payers = self.payers(header.customer, command.payer, charge)?;
        let amount = amount_at(command.amount, self.wallets[payers[0]].info.asset_scale)?;
        let drawn = self.draws_for(&payers, charge, amount, false)?;
        let details = details_of(header, charge, command.reason_code, command.reference, &command.metadata);
        let ttl = command.ttl.unwrap_or(HOLD_TTL_DEFAULT).min(HOLD_TTL_MAX);
        let no = self.holds.len();
        self.holds.push(Hold {
            no,
            namespace: header.customer.namespace.to_owned(),
            customer: header.customer.id.to_owned(),
            payer: match command.payer {
                Payer::Wallet(_) => HoldPayer::Wallet(payers[0]),
                Payer::CustomerIn(asset) => HoldPayer::CustomerIn(asset.code.to_owned(), asset.scale),
            },
            charge_type: command.charge_type,
            feature: command.feature.map(str::to_owned),
            placed_with: details.clone(),
            status: HoldStatus::Open,
            created_at: self.now,
            expires_at: self.now.saturating_add(ttl),
            amount,
            captured: 0,
            released: 0,
            excess: 0,
            parts: self.parts_of(&payers, &drawn),
        });
        let step = Step { hold: no, touched: &payers, details: &details, due_at: None };
        let mut movements = Vec::new();
        for part in self.holds[no].parts.clone() {
            let mut draws = Vec::new();
            for pin in &part.pins {
                let tranche = self.tranche_numbered(part.wallet, pin.tranche);
                tranche.available -= pin.amount;
                tranche.held += pin.amount;
                draws.push(draw_of(tranche, pin.amount));
            }
            movements.extend(self.post_step(&step, part.wallet, MovementKind::Held, draws));
        }
        Ok(self.effect_on(no, &payers, movements))
    }

    pub(crate) fn extend_hold(
        &mut self,
        header: &Header<'_>,
        extend: &ExtendHold<'_>,
    ) -> Result<Effect, Stop> {
        let (no, touched) = self.open_hold(header.customer, extend.hold)?;
        let now = self.now;
        let hold = &mut self.holds[no];
        if hold.parts.iter().flat_map(|part| &part.pins).any(|pin| pin.expires_at <= now) {
            return denied(Reason::TrancheNotActive);
        }
        let latest = hold.created_at.saturating_add(HOLD_TTL_MAX);
        let wanted = now.saturating_add(extend.ttl).min(latest);
        hold.expires_at = hold.expires_at.max(wanted);
        Ok(self.effect_on(no, &touched, Vec::new()))
    }

    pub(crate) fn capture(&mut self, header: &Header<'_>, capture: &Capture<'_>) -> Result<Effect, Stop> {
        let (no, touched) = self.open_hold(header.customer, capture.hold)?;
        let hold = self.holds[no].clone();
        let left = hold.left();
        let amount = match capture.amount {
            None => left,
            Some(decimal) => amount_at(decimal, self.wallets[hold.parts[0].wallet].info.asset_scale)?,
        };
        let excess = (amount - left).max(0);
        let Some(excess_in_all) = hold.excess.checked_add(excess) else {
            return denied(Reason::AmountOverflow);
        };
        let excess_payers = if excess > 0 { self.payers_of_excess(&hold)? } else { Vec::new() };
        let excess_drawn = match excess {
            0 => Drawn::new(),
            _ => self.draws_for(&excess_payers, hold.charge(), excess, false)?,
        };
        // Nothing is refused from here on.
        let details =
            details_of(header, hold.charge(), capture.reason_code, capture.reference, &capture.metadata);
        let step = Step { hold: no, touched: &touched, details: &details, due_at: None };
        let mut movements = self.capture_pinned(&step, amount.min(left));
        if !capture.keep_open {
            movements.extend(self.close(&step, HoldStatus::Captured));
        }
        movements.extend(self.take(&excess_payers, &excess_drawn, Some(no), &details));
        self.holds[no].excess = excess_in_all;
        Ok(self.effect_on(no, &touched, movements))
    }

    pub(crate) fn release(&mut self, header: &Header<'_>, release: &Release<'_>) -> Result<Effect, Stop> {
        let (no, touched) = self.open_hold(header.customer, release.hold)?;
        let charge = self.holds[no].charge();
        let details = details_of(header, charge, release.reason_code, release.reference, &release.metadata);
        let step = Step { hold: no, touched: &touched, details: &details, due_at: None };
        let movements = self.close(&step, HoldStatus::Released);
        Ok(self.effect_on(no, &touched, movements))
    }

    /// The part of a hold that is in a wallet times out there.
    pub(crate) fn time_out(&mut self, place: usize, no: usize) {
        let hold = &mut self.holds[no];
        let at = hold.expires_at;
        let details = Details {
            charge_type: hold.charge_type,
            feature: hold.feature.clone().unwrap_or_default(),
            ..Details::default()
        };
        let part = hold.parts.iter().position(|part| part.wallet == place).unwrap();
        let step = Step { hold: no, touched: &[place], details: &details, due_at: Some(at) };
        self.give_back(&step, part);
        let hold = &mut self.holds[no];
        if hold.parts.iter().all(|part| part.closed) {
            hold.status = HoldStatus::Expired;
        }
    }
}

// ---- which hold, and whose credits ------------------------------------------------------------

impl Model {
    /// The number of an open hold of the customer, and the places of the wallets that a command about
    /// it touches, with what is due in them booked.
    fn open_hold(&mut self, customer: Customer<'_>, id: HoldId) -> Result<(usize, Vec<usize>), Stop> {
        if self.wallets_of(customer).is_empty() {
            return denied(Reason::CustomerNotFound);
        }
        let Some(no) = self.holds.iter().position(|own| own.no as u64 == id.0 && own.customer() == customer)
        else {
            return denied(Reason::HoldNotFound);
        };
        let mut touched = self.payers_of(&self.holds[no]);
        for part in &self.holds[no].parts {
            if !touched.contains(&part.wallet) {
                touched.push(part.wallet);
            }
        }
        self.book_before_judging(&touched)?;
        match self.holds[no].state_at(self.now).status {
            HoldStatus::Open => Ok((no, touched)),
            HoldStatus::Expired => denied(Reason::HoldExpired),
            HoldStatus::Captured | HoldStatus::Released => denied(Reason::HoldClosed),
        }
    }

    /// Who would pay for a hold as the wallets are now: by wallet that one, even if it may not; by customer
    /// none, where a debit would be refused.
    fn payers_of(&self, hold: &Hold) -> Vec<usize> {
        match hold.payer {
            HoldPayer::Wallet(place) => vec![place],
            HoldPayer::CustomerIn(..) => self.payers_of_excess(hold).unwrap_or_default(),
        }
    }

    fn payers_of_excess(&self, hold: &Hold) -> Result<Vec<usize>, Stop> {
        match &hold.payer {
            HoldPayer::Wallet(place) => {
                let info = &self.wallets[*place].info;
                if info.closed {
                    return denied(Reason::WalletClosed);
                }
                if info.frozen {
                    return denied(Reason::WalletFrozen);
                }
                if !info.scope.fits(hold.charge_type) {
                    return denied(Reason::NoEligibleTranche);
                }
                Ok(vec![*place])
            }
            HoldPayer::CustomerIn(code, scale) => {
                self.payers_in(hold.customer(), Asset { code, scale: *scale }, hold.charge())
            }
        }
    }

    /// What a debit for the same charge could still draw from the hold's payer.
    fn remaining_of(&self, hold: &Hold) -> i128 {
        match self.payers_of_excess(hold) {
            Ok(payers) => self.drawable(&payers, hold.charge()),
            Err(_) => 0,
        }
    }

    fn effect_on(&self, no: usize, touched: &[usize], movements: Vec<Posted>) -> Effect {
        let hold = &self.holds[no];
        Effect::Posted {
            movements,
            balances: self.balances_of(touched),
            remaining: Some(Amount(self.remaining_of(hold))),
            hold: Some((no, hold.state_at(self.now))),
        }
    }

    pub(crate) fn tranche_numbered(&mut self, place: usize, no: usize) -> &mut Tranche {
        let tranches = &mut self.wallets[place].tranches;
        tranches.iter_mut().find(|tranche| tranche.no == no).unwrap()
    }
}

// ---- pinning, capturing, giving back ----------------------------------------------------------

/// One step about a hold: what its movements have in common.
struct Step<'a> {
    hold: usize,
    /// The places of the wallets of the answer's balances, in their order.
    touched: &'a [usize],
    details: &'a Details,
    /// For a time-out: when it was due.
    due_at: Option<Time>,
}

impl Model {
    fn parts_of(&self, payers: &[usize], drawn: &Drawn) -> Vec<Part> {
        let mut parts = Vec::new();
        for &place in payers {
            let own = drawn.iter().filter(|(source, _)| source.wallet == place);
            let pins: Vec<Pin> = own
                .map(|&(source, amount)| {
                    let tranche = &self.wallets[place].tranches[source.tranche];
                    let (kind, expires_at) = (tranche.kind, tranche.expires_at);
                    Pin { tranche: tranche.no, kind, amount, expires_at }
                })
                .collect();
            if !pins.is_empty() {
                parts.push(Part { wallet: place, closed: false, pins });
            }
        }
        parts
    }

    /// Spends so much of what is pinned, in the order in which it was pinned.
    fn capture_pinned(&mut self, step: &Step<'_>, amount: i128) -> Vec<Posted> {
        let mut movements = Vec::new();
        let mut missing = amount;
        for part in 0..self.holds[step.hold].parts.len() {
            let place = self.holds[step.hold].parts[part].wallet;
            let mut draws = Vec::new();
            for pin in 0..self.holds[step.hold].parts[part].pins.len() {
                let pin = &mut self.holds[step.hold].parts[part].pins[pin];
                let captured = missing.min(pin.amount);
                if captured == 0 {
                    break;
                }
                missing -= captured;
                pin.amount -= captured;
                let number = pin.tranche;
                let tranche = self.tranche_numbered(place, number);
                tranche.held -= captured;
                tranche.consumed += captured;
                draws.push(draw_of(tranche, captured));
            }
            self.holds[step.hold].parts[part].pins.retain(|pin| pin.amount > 0);
            movements.extend(self.post_step(step, place, MovementKind::Captured, draws));
        }
        self.holds[step.hold].captured += amount;
        movements
    }

    /// Ends a hold: what is left of it is given back.
    fn close(&mut self, step: &Step<'_>, status: HoldStatus) -> Vec<Posted> {
        self.holds[step.hold].status = status;
        let parts = 0..self.holds[step.hold].parts.len();
        parts.flat_map(|part| self.give_back(step, part)).collect()
    }

    /// Gives back all that a hold has pinned in one wallet, now or as of when it was due: what is of a
    /// voided tranche is withdrawn, what has expired by then lapses, the rest is available again.
    fn give_back(&mut self, step: &Step<'_>, part: usize) -> Vec<Posted> {
        let instant = step.due_at.unwrap_or(self.now);
        let hold = &mut self.holds[step.hold];
        let place = hold.parts[part].wallet;
        let pins = std::mem::take(&mut hold.parts[part].pins);
        hold.parts[part].closed = true;
        hold.released += pins.iter().map(|pin| pin.amount).sum::<i128>();
        let mut movements = Vec::new();
        for kind in [MovementKind::Released, MovementKind::Voided, MovementKind::Expired] {
            let mut draws = Vec::new();
            for pin in &pins {
                let tranche = self.tranche_numbered(place, pin.tranche);
                if end_of(pin, tranche, instant) == kind {
                    tranche.take_back(pin, instant);
                    draws.push(draw_of(tranche, pin.amount));
                }
            }
            movements.extend(self.post_step(step, place, kind, draws));
        }
        movements
    }

    /// Writes a movement of a hold, if it has draws.
    fn post_step(
        &mut self,
        step: &Step<'_>,
        place: usize,
        kind: MovementKind,
        draws: Vec<Draw>,
    ) -> Option<Posted> {
        if draws.is_empty() {
            return None;
        }
        let sum: i128 = draws.iter().map(|draw| draw.amount.0).sum();
        let spent = matches!(kind, MovementKind::Captured | MovementKind::Voided | MovementKind::Expired);
        let entry = Entry {
            kind,
            status: MovementStatus::Posted,
            amount: if spent { -sum } else { 0 },
            draws,
            hold: Some(step.hold),
            corrects: None,
            details: step.details.clone(),
            due_at: step.due_at,
        };
        let balance = step.touched.iter().position(|&own| own == place).unwrap();
        Some(self.post(place, balance, entry))
    }
}

/// What becomes of a pin that is given back at this instant, as the movement that tells it.
fn end_of(pin: &Pin, tranche: &Tranche, instant: Time) -> MovementKind {
    match tranche.stage {
        Stage::Voided => MovementKind::Voided,
        _ if pin.expires_at <= instant => MovementKind::Expired,
        _ => MovementKind::Released,
    }
}

impl Tranche {
    /// Takes back a pin at this instant.
    pub(crate) fn take_back(&mut self, pin: &Pin, instant: Time) {
        self.held -= pin.amount;
        match end_of(pin, self, instant) {
            MovementKind::Voided => self.voided += pin.amount,
            MovementKind::Expired => self.expired += pin.amount,
            _ => self.available += pin.amount,
        }
    }
}
