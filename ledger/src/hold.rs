//! Holds: credits set aside for a request in flight, then captured, given back, or timed out.
//!
//! A hold pins units of tranches in burn order. They leave what is available and stay in what is
//! settled, until they are captured (spent), given back (available again), or lapse: what is given back
//! of a tranche that has expired since is never available again. Each wallet books the time-out of what
//! is pinned in it by itself, in its own due order; a hold that is past its time is expired for every
//! caller, booked or not.

use crate::amount::Amount;
use crate::booking::{Booking, sum_of};
use crate::burn::{self, Plan};
use crate::codec::Damage;
use crate::command::{Capture, ExtendHold, HOLD_TTL_DEFAULT, HOLD_TTL_MAX, Header, Hold, Payer, Release};
use crate::grant::amount_reason;
use crate::ids::{HoldId, OperationId, RecordId, TrancheId};
use crate::rows::hold::{HoldPart, HoldState, HoldStatus, Pin, StoredHold};
use crate::rows::journal::{
    HoldRecord, Movement, MovementKind, MovementStatus, OfHold, Placed, Placement, Record,
};
use crate::rows::keys;
use crate::rows::open::Charge;
use crate::rows::tranche::{TrancheLife, TrancheRow};
use crate::simulation::{self, Bug};
use crate::store::{LocalDamage, Store};
use crate::time::Time;
use crate::verdict::{Denial, Draw, Posted, Reason};
use crate::workspace::{Stop, WalletAt, Workspace};

/// A command about a hold, applied.
#[derive(Debug)]
pub struct HoldDone {
    /// The operation.
    pub operation: OperationId,
    /// In the order of booking; none where no credits moved.
    pub movements: Vec<Posted>,
    /// What the hold's payer could still draw for the same.
    pub remaining: Amount,
    /// The hold after.
    pub hold: (HoldId, HoldState),
}

/// A hold at hand, with the wallets that it is about.
#[derive(Debug)]
pub struct HoldAt {
    /// Which.
    pub id: HoldId,
    /// As it is before the command.
    pub row: StoredHold,
    /// Its payers in draw order, then wallets that it has pinned in and that pay no more.
    pub wallets: Vec<WalletAt>,
    /// How many of the wallets pay an excess, or why none does.
    pub payers: Result<usize, Reason>,
    /// For each part, the place of its wallet.
    pub places: Vec<usize>,
}

impl<S: Store + ?Sized> Workspace<'_, S> {
    /// Sets an amount aside over payers in draw order. They are settled, not frozen, of one asset, and
    /// their scope fits.
    pub fn hold(
        &mut self,
        header: &Header<'_>,
        hold: &Hold<'_>,
        payers: &[WalletAt],
    ) -> Result<Result<HoldDone, Denial>, Stop> {
        let Some(&first) = payers.first() else { return Err(Stop::Fault("a hold without a payer")) };
        let amount = match hold.amount.to_amount(self.wallet(first).asset_scale) {
            Ok(amount) => amount,
            Err(error) => return Ok(Err(amount_reason(error).into())),
        };
        let charge = Charge { charge_type: hold.charge_type, feature: hold.feature };
        let plans = match self.plan_over(payers, charge, amount, false)? {
            Ok(plans) => plans,
            Err(denial) => return Ok(Err(denial)),
        };
        let id = HoldId(self.meta.allocate());
        let created_at = self.now();
        let ttl = hold.ttl.unwrap_or(HOLD_TTL_DEFAULT).min(HOLD_TTL_MAX);
        let state = HoldState {
            status: HoldStatus::Open,
            created_at,
            expires_at: created_at.saturating_add(ttl),
            amount,
            captured: Amount::ZERO,
            released: Amount::ZERO,
            excess: Amount::ZERO,
        };
        let booking = Booking {
            charge,
            ..Booking::of_command(header, created_at, hold.reason_code, hold.reference, &hold.metadata)
        };
        let asset = match hold.payer {
            Payer::Wallet(_) => None,
            Payer::CustomerIn(asset) => Some(asset),
        };
        let parts = plans.len() as u64;
        let mut movements = Vec::with_capacity(plans.len());
        for (part, (place, plan)) in (0..).zip(plans) {
            let at = payers[place];
            let ends = plan.ends(self.wallet(at));
            let draws = burn::carry_out(self, at, plan)?;
            self.pin(at, &draws)?;
            let stated = parts == 1 && self.wallet_mut(at).holds.state(state.expires_at, id);
            if !stated {
                self.put_time_out(at, state.expires_at, id)?;
                self.changes.put(keys::hold(self.wallet(at).no, id), StoredHold::as_placed());
            }
            self.arm_by(at, state.expires_at);
            let named;
            let wallet = match hold.payer {
                Payer::Wallet(wallet) => wallet,
                Payer::CustomerIn(_) => {
                    named = self.wallet_name(at)?.to_owned();
                    named.as_str()
                }
            };
            let placement =
                Placement { part, parts, expires_at: state.expires_at, wallet, asset, ends: &ends };
            let hold = Some(OfHold { id, placement: Some(&placement) });
            let booking = Booking { hold, ..booking };
            self.post_of_hold(&booking, &mut movements, place, at, MovementKind::Held, draws);
        }
        let remaining = self.remaining_over(payers, charge)?;
        let operation = movements.first().ok_or(Stop::Fault("a hold that pins nothing"))?.id;
        Ok(Ok(HoldDone { operation: OperationId(operation.0), movements, remaining, hold: (id, state) }))
    }

    /// Gives a hold more time.
    pub fn extend_hold(
        &mut self,
        header: &Header<'_>,
        extend: &ExtendHold<'_>,
        mut at: HoldAt,
    ) -> Result<Result<HoldDone, Denial>, Stop> {
        let now = self.now();
        if let Err(reason) = usable(&at.row, now) {
            return Ok(Err(reason.into()));
        }
        let pins = at.row.parts.iter().flat_map(|part| &part.pins);
        if pins.clone().any(|pin| pin.expires_at <= now) {
            return Ok(Err(Reason::TrancheNotActive.into()));
        }
        let state = &mut at.row.state;
        let longest = state.created_at.saturating_add(HOLD_TTL_MAX);
        let before = state.expires_at;
        let after = now.saturating_add(extend.ttl).min(longest).max(before);
        if after > before {
            state.expires_at = after;
            for (_, place) in at.row.parts.iter().zip(&at.places).filter(|(part, _)| !part.closed) {
                self.delete_time_out(at.wallets[*place], before, at.id)?;
                self.put_time_out(at.wallets[*place], after, at.id)?;
                self.arm_by(at.wallets[*place], after);
            }
            self.changes.put(at.row.key(at.id), at.row.encode());
        }
        self.hold_done(header, extend.reason_code, Vec::new(), at)
    }

    /// Burns what a hold has set aside, and what the command asks beyond that.
    pub fn capture(
        &mut self,
        header: &Header<'_>,
        capture: &Capture<'_>,
        mut at: HoldAt,
    ) -> Result<Result<HoldDone, Denial>, Stop> {
        if let Err(reason) = usable(&at.row, self.now()) {
            return Ok(Err(reason.into()));
        }
        let (Some(&first), Some(&first_part)) = (at.wallets.first(), at.places.first()) else {
            return Err(Stop::Fault("a hold without a wallet"));
        };
        let first_part = at.wallets[first_part];
        let left = at.row.state.left();
        let wanted = match capture.amount {
            None => left,
            Some(amount) => match amount.to_amount(self.wallet(first).asset_scale) {
                Ok(amount) => amount,
                Err(error) => return Ok(Err(amount_reason(error).into())),
            },
        };
        let from_pins = Amount(wanted.0.min(left.0));
        let excess = Amount(wanted.0 - from_pins.0);
        let Some(excess_in_all) = at.row.state.excess.checked_add(excess) else {
            return Ok(Err(Reason::AmountOverflow.into()));
        };
        let plans = match self.plan_excess(&at, excess)? {
            Ok(plans) => plans,
            Err(denial) => return Ok(Err(denial)),
        };
        let feature = at.row.feature.clone();
        let (reason_code, reference, metadata) = (capture.reason_code, capture.reference, &capture.metadata);
        let booking = Booking {
            hold: Some(OfHold { id: at.id, placement: None }),
            charge: Charge { charge_type: at.row.charge_type, feature: feature.as_deref() },
            ..Booking::of_command(header, self.now(), reason_code, reference, metadata)
        };
        let mut movements = Vec::new();
        let mut missing = from_pins;
        for nth in 0..at.row.parts.len() {
            let place = at.places[nth];
            let draws = self.take_pins(at.wallets[place], &mut at.row.parts[nth].pins, &mut missing)?;
            self.post_of_hold(
                &booking,
                &mut movements,
                place,
                at.wallets[place],
                MovementKind::Captured,
                draws,
            );
        }
        at.row.state.captured.0 += from_pins.0;
        if capture.keep_open {
            self.unstate(first_part, at.row.state.expires_at, at.id)?;
        } else {
            at.row.state.status = HoldStatus::Captured;
            self.give_up(&mut at, &booking, &mut movements)?;
        }
        for (place, plan) in plans {
            let draws = burn::carry_out(self, at.wallets[place], plan)?;
            self.post_of_hold(
                &booking,
                &mut movements,
                place,
                at.wallets[place],
                MovementKind::Consumed,
                draws,
            );
        }
        at.row.state.excess = excess_in_all;
        self.changes.put(at.row.key(at.id), at.row.encode());
        self.hold_done(header, capture.reason_code, movements, at)
    }

    /// Gives back what a hold has set aside.
    pub fn release(
        &mut self,
        header: &Header<'_>,
        release: &Release<'_>,
        mut at: HoldAt,
    ) -> Result<Result<HoldDone, Denial>, Stop> {
        if let Err(reason) = usable(&at.row, self.now()) {
            return Ok(Err(reason.into()));
        }
        let feature = at.row.feature.clone();
        let (reason_code, reference, metadata) = (release.reason_code, release.reference, &release.metadata);
        let booking = Booking {
            hold: Some(OfHold { id: at.id, placement: None }),
            charge: Charge { charge_type: at.row.charge_type, feature: feature.as_deref() },
            ..Booking::of_command(header, self.now(), reason_code, reference, metadata)
        };
        let mut movements = Vec::new();
        at.row.state.status = HoldStatus::Released;
        self.give_up(&mut at, &booking, &mut movements)?;
        let row = match simulation::has(Bug::HoldReleasedTwice) {
            true => StoredHold::as_placed(),
            false => at.row.encode(),
        };
        self.changes.put(at.row.key(at.id), row);
        self.hold_done(header, release.reason_code, movements, at)
    }

    /// Books that a hold has timed out in one wallet.
    pub fn time_out(&mut self, at: WalletAt, due: Time, id: HoldId) -> Result<(), Stop> {
        let placed = self.placed_hold(id)?.ok_or(LocalDamage::Missing("a hold that is due"))?;
        let mut row = self.hold_as_it_is(at, id, placed)?;
        let no = self.wallet(at).no;
        let part = row.parts.iter().position(|part| part.wallet_no == no && !part.closed);
        let part = part.ok_or(Stop::Fault("a hold times out in a wallet that it has no part in"))?;
        let feature = row.feature.clone();
        let booking = Booking {
            hold: Some(OfHold { id, placement: None }),
            charge: Charge { charge_type: row.charge_type, feature: feature.as_deref() },
            ..Booking::of_due(due)
        };
        let released = self.close_part(&booking, &mut Vec::new(), 0, at, &mut row.parts[part], (id, due))?;
        row.state.released.0 += released.0;
        if row.parts.iter().all(|part| part.closed) {
            row.state.status = HoldStatus::Expired;
        }
        self.changes.put(row.key(id), row.encode());
        Ok(())
    }

    /// Closes every part of a hold that is still open.
    fn give_up(
        &mut self,
        at: &mut HoldAt,
        booking: &Booking<'_>,
        movements: &mut Vec<Posted>,
    ) -> Result<(), Stop> {
        let due = at.row.state.expires_at;
        for (part, &place) in at.row.parts.iter_mut().zip(&at.places).filter(|(part, _)| !part.closed) {
            let released =
                self.close_part(booking, movements, place, at.wallets[place], part, (at.id, due))?;
            at.row.state.released.0 += released.0;
        }
        Ok(())
    }

    /// Gives back what one part of a hold has still pinned, and takes its time-out away. What of it was
    /// voided, or lapses, is booked too. How much it was in all.
    fn close_part(
        &mut self,
        booking: &Booking<'_>,
        movements: &mut Vec<Posted>,
        place: usize,
        at: WalletAt,
        part: &mut HoldPart,
        (hold, due): (HoldId, Time),
    ) -> Result<Amount, Stop> {
        let left = part.left();
        part.closed = true;
        self.delete_time_out(at, due, hold)?;
        let (mut back, mut voided, mut lapsed) = (Vec::new(), Vec::new(), Vec::new());
        for pin in part.pins.drain(..) {
            let expired = pin.expires_at <= booking.effective_at;
            // What is voided is not in the window, and its row is as it was.
            let in_window = self.wallet(at).window.iter().any(|own| own.id == pin.tranche);
            let which = match in_window && !expired {
                true => &mut back,
                false if self.tranche_row(at, pin.tranche)?.life == TrancheLife::Voided => &mut voided,
                false if expired => &mut lapsed,
                false => &mut back,
            };
            which.push(pin);
        }
        let draw = |pin: Pin, left| Draw { tranche: pin.tranche, kind: pin.kind, amount: pin.amount, left };
        let mut draws = Vec::with_capacity(back.len());
        for pin in back {
            self.unpin(at, &pin, pin.amount)?;
            let left = match burn::give_back_in_window(self, at, pin.tranche, pin.amount) {
                Some(left) => left,
                None => {
                    let row = self.tranche_row(at, pin.tranche)?;
                    burn::give_back(self, at, pin.tranche, &row, pin.amount)?
                }
            };
            draws.push(draw(pin, left));
        }
        self.post_of_hold(booking, movements, place, at, MovementKind::Released, draws);
        let mut draws = Vec::with_capacity(voided.len());
        for pin in voided {
            self.unpin(at, &pin, pin.amount)?;
            self.change_tranche(at, pin.tranche, |row| row.voided.0 += pin.amount.0)?;
            draws.push(draw(pin, Amount::ZERO));
        }
        self.post_of_hold(booking, movements, place, at, MovementKind::Voided, draws);
        let mut draws = Vec::with_capacity(lapsed.len());
        for pin in lapsed {
            self.unpin(at, &pin, pin.amount)?;
            let row = self.change_tranche(at, pin.tranche, |row| row.expired.0 += pin.amount.0)?;
            draws.push(draw(pin, burn::open_part(self, at, pin.tranche, &row)?));
        }
        self.post_of_hold(booking, movements, place, at, MovementKind::Expired, draws);
        Ok(left)
    }

    /// Takes up to `missing` from pins, in burn order.
    fn take_pins(
        &mut self,
        at: WalletAt,
        pins: &mut Vec<Pin>,
        missing: &mut Amount,
    ) -> Result<Vec<Draw>, Stop> {
        let mut draws = Vec::new();
        for pin in pins.iter_mut() {
            let amount = Amount(missing.0.min(pin.amount.0));
            if amount == Amount::ZERO {
                break;
            }
            self.unpin(at, pin, amount)?;
            let available = burn::open_part_of(self, at, pin.tranche)?;
            draws.push(Draw { tranche: pin.tranche, kind: pin.kind, amount, left: available });
            pin.amount.0 -= amount.0;
            missing.0 -= amount.0;
        }
        pins.retain(|pin| pin.amount > Amount::ZERO);
        Ok(draws)
    }

    /// Keeps what was drawn in what is settled: as held of its tranches.
    fn pin(&mut self, at: WalletAt, draws: &[Draw]) -> Result<(), Stop> {
        for draw in draws {
            let wallet = self.wallet_mut(at);
            wallet.held.0 += draw.amount.0;
            if !wallet.holds.pin(draw.tranche, draw.amount) {
                self.change_tranche(at, draw.tranche, |row| row.held.0 += draw.amount.0)?;
            }
        }
        Ok(())
    }

    /// Takes units of a pin out of what is held.
    fn unpin(&mut self, at: WalletAt, pin: &Pin, amount: Amount) -> Result<(), Stop> {
        let wallet = self.wallet_mut(at);
        wallet.held.0 -= amount.0;
        let rest = wallet.holds.unpin(pin.tranche, amount);
        if rest == Amount::ZERO {
            return Ok(());
        }
        let row = self.change_tranche(at, pin.tranche, |row| row.held.0 -= rest.0)?;
        match row.held < Amount::ZERO {
            true => Err(Stop::Fault("more of a tranche was held than its row says")),
            false => Ok(()),
        }
    }

    /// Changes a tranche's row. The row after.
    fn change_tranche(
        &mut self,
        at: WalletAt,
        id: TrancheId,
        change: impl FnOnce(&mut TrancheRow),
    ) -> Result<TrancheRow, Stop> {
        let mut row = self.tranche_row(at, id)?;
        change(&mut row);
        self.changes.put(keys::tranche(self.wallet(at).no, id), row.encode());
        Ok(row)
    }

    /// What open holds have set aside of a tranche: as far as its wallet's row says, and its own.
    pub fn held_of(&self, at: WalletAt, id: TrancheId, row: &TrancheRow) -> Amount {
        Amount(self.wallet(at).holds.held_of(id).0 + row.held.0)
    }

    /// Plans the draws of an excess, over the hold's payers.
    fn plan_excess(&self, at: &HoldAt, excess: Amount) -> Result<Result<Vec<(usize, Plan)>, Denial>, Stop> {
        if excess == Amount::ZERO {
            return Ok(Ok(Vec::new()));
        }
        match at.payers {
            Ok(payers) => self.plan_over(&at.wallets[..payers], at.row.charge(), excess, false),
            Err(reason) => Ok(Err(reason.into())),
        }
    }

    /// Books a movement of a hold; none where there is nothing to tell.
    fn post_of_hold(
        &mut self,
        booking: &Booking<'_>,
        movements: &mut Vec<Posted>,
        place: usize,
        at: WalletAt,
        kind: MovementKind,
        draws: Vec<Draw>,
    ) {
        let amount = match kind {
            MovementKind::Held | MovementKind::Released => Amount::ZERO,
            _ => Amount(-sum_of(&draws).0),
        };
        self.book_movement(booking, movements, place, at, kind, MovementStatus::Posted, amount, draws);
    }

    /// Ends a command about a hold: where no credits moved, a record tells of it.
    fn hold_done(
        &mut self,
        header: &Header<'_>,
        reason_code: &str,
        movements: Vec<Posted>,
        at: HoldAt,
    ) -> Result<Result<HoldDone, Denial>, Stop> {
        let HoldAt { id, row, wallets, payers, .. } = at;
        let operation = match movements.first() {
            Some(first) => first.id,
            None => {
                let record = HoldRecord {
                    hold: id,
                    booked_at: self.now(),
                    state: row.state.clone(),
                    reason_code: reason_code.to_owned(),
                    key: header.key.to_owned(),
                    actor: header.actor.to_owned(),
                };
                let id = RecordId(self.meta.allocate());
                self.changes.put(keys::record(id), record.encode());
                id
            }
        };
        let remaining = match payers {
            Ok(payers) => self.remaining_over(&wallets[..payers], row.charge())?,
            Err(_) => Amount::ZERO,
        };
        Ok(Ok(HoldDone { operation: OperationId(operation.0), movements, remaining, hold: (id, row.state) }))
    }

    fn put_time_out(&mut self, at: WalletAt, due: Time, id: HoldId) -> Result<(), Stop> {
        let wallet = self.wallet_mut(at);
        wallet.holds.add(due).ok_or(Stop::Fault("more open holds than can be counted"))?;
        let no = wallet.no;
        self.changes.put(keys::hold_due(no, due, id), Vec::new());
        Ok(())
    }

    /// Gives a hold that stands in its wallet's row rows of its own, for it is not as it was placed any more.
    fn unstate(&mut self, at: WalletAt, due: Time, id: HoldId) -> Result<(), Stop> {
        match self.wallet_mut(at).holds.unstate(id) {
            true => self.put_time_out(at, due, id),
            false => Ok(()),
        }
    }

    fn delete_time_out(&mut self, at: WalletAt, due: Time, id: HoldId) -> Result<(), Stop> {
        let wallet = self.wallet_mut(at);
        if wallet.holds.unstate(id) {
            return Ok(());
        }
        wallet.holds.remove(due).ok_or(Stop::Fault("a hold too many was closed"))?;
        let no = wallet.no;
        self.changes.delete(keys::hold_due(no, due, id));
        Ok(())
    }

    /// The wallet of a part of a hold, if it is one of this customer.
    pub fn wallet_of_part(
        &mut self,
        customer: crate::ids::Customer<'_>,
        part: &HoldPart,
    ) -> Result<Option<WalletAt>, Stop> {
        let at = self.find_wallet(&keys::wallet(customer, &part.wallet))?;
        Ok(at.filter(|&at| self.wallet(at).no == part.wallet_no))
    }

    /// A hold as it was placed, if there is one.
    pub fn placed_hold(&self, id: HoldId) -> Result<Option<StoredHold>, LocalDamage> {
        let Some((movement, placed)) = self.placed_part(id, 0)? else { return Ok(None) };
        let parts = placed.parts;
        let mut hold = StoredHold::placed(movement, placed);
        for part in 1..parts {
            let there = self.placed_part(id, part)?.ok_or(LocalDamage::Missing("a part of a hold"))?;
            hold.add_part(&there.0, &there.1);
        }
        Ok(Some(hold))
    }

    /// The movement that placed a part of a hold.
    fn placed_part(&self, id: HoldId, part: u64) -> Result<Option<(Movement, Placed)>, LocalDamage> {
        let Some(record) = id.placed_by(part) else { return Ok(None) };
        let Some(row) = self.get(&keys::record(record))? else { return Ok(None) };
        Ok(Self::part_placed_in(id, part, &row)?)
    }

    /// The part of a hold that is placed in the row where that would stand.
    pub fn part_placed_in(id: HoldId, part: u64, row: &[u8]) -> Result<Option<(Movement, Placed)>, Damage> {
        let Some(record) = id.placed_by(part) else { return Ok(None) };
        match Record::decode(record, row)? {
            Record::Movement(mut movement) if movement.hold == Some(id) => {
                let placed = movement.placed.take().filter(|placed| placed.part == part);
                Ok(placed.map(|placed| (movement, *placed)))
            }
            // What some caller's number stands for.
            _ => Ok(None),
        }
    }

    /// A hold as it is, from one as it was placed and one of its wallets.
    pub fn hold_as_it_is(
        &self,
        at: WalletAt,
        id: HoldId,
        placed: StoredHold,
    ) -> Result<StoredHold, LocalDamage> {
        if self.wallet(at).holds.states(id) {
            return Ok(placed);
        }
        let row = self.get(&placed.key(id))?.ok_or(LocalDamage::Missing("a hold"))?;
        Ok(placed.after(&row)?)
    }
}

/// Whether a hold may still be captured, released or extended.
fn usable(row: &StoredHold, now: Time) -> Result<(), Reason> {
    match row.state.status_at(now) {
        HoldStatus::Open => Ok(()),
        HoldStatus::Expired => Err(Reason::HoldExpired),
        HoldStatus::Captured | HoldStatus::Released => Err(Reason::HoldClosed),
    }
}
