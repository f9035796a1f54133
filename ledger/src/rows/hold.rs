//! A hold: which units of which tranches it has set aside, and what became of them.
//!
//! A hold has a part for each wallet that it pinned something in. A part is closed when nothing more
//! can come of it: by a final capture, a release, or its time-out, which each wallet books for itself.
//!
//! What a hold is when it is placed is told by the movements that place it ([`Placed`]), one for each
//! part, which never change. Its row has only what became of it since, and is short: captures take the
//! pins in their order, so that how much was captured tells what is left of them. The row is among those
//! of the hold's first wallet; in the others stands one that only says that the hold is theirs too.
//!
//! Invariant, checked after a row is read: what is left of the pins is what was set aside less what was
//! captured and given back.

use crate::amount::{Amount, Asset};
use crate::codec::{Damage, Reader, put_u64, put_u128};
use crate::command::{ChargeType, TrancheKind};
use crate::ids::{HoldId, TrancheId, WalletNo};
use crate::rows::journal::{Movement, Placed};
use crate::rows::keys::{self, Key};
use crate::rows::open::Charge;
use crate::time::Time;
use crate::verdict::Draw;

const VERSION: u8 = 2;

/// In the place of a status: nothing became of it, or it is told elsewhere.
const AS_PLACED: u8 = 0;

/// What became of a hold, as booked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum HoldStatus {
    /// It may be captured until it times out.
    Open = 1,
    /// Its last capture closed it.
    Captured = 2,
    /// It was given back.
    Released = 3,
    /// It timed out.
    Expired = 4,
}

impl HoldStatus {
    fn from_code(code: u8) -> Result<HoldStatus, Damage> {
        match code {
            1 => Ok(HoldStatus::Open),
            2 => Ok(HoldStatus::Captured),
            3 => Ok(HoldStatus::Released),
            4 => Ok(HoldStatus::Expired),
            _ => Err(Damage("hold status")),
        }
    }
}

/// What a hold says besides its pins: also what its commands are answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HoldState {
    /// What became of it.
    pub status: HoldStatus,
    /// When it was placed.
    pub created_at: Time,
    /// When it times out.
    pub expires_at: Time,
    /// How much was set aside.
    pub amount: Amount,
    /// How much of that was captured.
    pub captured: Amount,
    /// How much of that was given back, or lapsed on the way.
    pub released: Amount,
    /// How much was captured beyond it.
    pub excess: Amount,
}

impl HoldState {
    /// What is still set aside.
    pub fn left(&self) -> Amount {
        Amount(self.amount.0 - self.captured.0 - self.released.0)
    }

    /// Its status by the reading of an instant: past its time it is expired, booked or not.
    pub fn status_at(&self, now: Time) -> HoldStatus {
        match self.status {
            HoldStatus::Open if now >= self.expires_at => HoldStatus::Expired,
            status => status,
        }
    }

    /// As it is at an instant: past its time all that was left is given back, booked or not.
    pub fn at(mut self, now: Time) -> HoldState {
        self.status = self.status_at(now);
        if self.status != HoldStatus::Open {
            self.released = Amount(self.amount.0 - self.captured.0);
        }
        self
    }

    /// Appends it to a row.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.push(self.status as u8);
        put_u64(out, self.created_at.0);
        put_u64(out, self.expires_at.0);
        for figure in [self.amount, self.captured, self.released, self.excess] {
            put_u128(out, figure.0 as u128);
        }
    }

    /// Reads one from a row.
    pub fn decode(reader: &mut Reader<'_>) -> Result<HoldState, Damage> {
        Ok(HoldState {
            status: HoldStatus::from_code(reader.byte("hold status")?)?,
            created_at: Time(reader.u64("created_at")?),
            expires_at: Time(reader.u64("expires_at")?),
            amount: figure(reader)?,
            captured: figure(reader)?,
            released: figure(reader)?,
            excess: figure(reader)?,
        })
    }
}

/// Units of one tranche that a hold has set aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pin {
    /// The tranche.
    pub tranche: TrancheId,
    /// What sort of credit.
    pub kind: TrancheKind,
    /// How much is still set aside; above zero.
    pub amount: Amount,
    /// When the tranche expired, as it stood when it was pinned: what is given back of it from then
    /// on is never available again.
    pub expires_at: Time,
}

/// What a hold has pinned in one wallet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HoldPart {
    /// The wallet.
    pub wallet_no: WalletNo,
    /// The wallet's id.
    pub wallet: String,
    /// Nothing more comes of it.
    pub closed: bool,
    /// What is still set aside, in burn order.
    pub pins: Vec<Pin>,
}

impl HoldPart {
    fn close(&mut self) {
        self.closed = true;
        self.pins.clear();
    }

    /// What is still set aside in this wallet. The sum is within what the wallet holds.
    pub fn left(&self) -> Amount {
        Amount(self.pins.iter().map(|pin| pin.amount.0).sum())
    }
}

/// A hold, as the movements that placed it and its row tell together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredHold {
    /// Its status, times and figures.
    pub state: HoldState,
    /// The asset, where the customer's wallets in it pay an excess; `None`: the first part's wallet.
    pub asset: Option<(String, u8)>,
    /// What is charged for.
    pub charge_type: Option<ChargeType>,
    /// The feature charged for.
    pub feature: Option<String>,
    /// Why it was placed; may be empty.
    pub reason_code: String,
    /// The caller's reference; may be empty.
    pub reference: String,
    /// The caller's pairs.
    pub metadata: Vec<(String, String)>,
    /// In draw order, at least one.
    pub parts: Vec<HoldPart>,
}

impl StoredHold {
    /// What it is for.
    pub fn charge(&self) -> Charge<'_> {
        Charge { charge_type: self.charge_type, feature: self.feature.as_deref() }
    }

    /// The asset whose wallets pay an excess, where the hold is of a customer.
    pub fn payer_asset(&self) -> Option<Asset<'_>> {
        self.asset.as_ref().map(|(code, scale)| Asset { code, scale: *scale })
    }

    /// The key of its row.
    pub fn key(&self, id: HoldId) -> Key {
        keys::hold(self.parts[0].wallet_no, id)
    }

    /// A hold as it was placed, by the movement that placed its first part.
    pub fn placed(movement: Movement, placed: Placed) -> StoredHold {
        let mut hold = StoredHold {
            state: HoldState {
                status: HoldStatus::Open,
                created_at: movement.booked_at,
                expires_at: placed.expires_at,
                amount: Amount::ZERO,
                captured: Amount::ZERO,
                released: Amount::ZERO,
                excess: Amount::ZERO,
            },
            asset: None,
            charge_type: movement.charge_type,
            feature: None,
            reason_code: String::new(),
            reference: String::new(),
            metadata: Vec::new(),
            parts: Vec::with_capacity(1),
        };
        hold.add_part(&movement, &placed);
        hold.asset = placed.asset;
        hold.feature = (!movement.feature.is_empty()).then_some(movement.feature);
        hold.reason_code = movement.reason_code;
        hold.reference = movement.reference;
        hold.metadata = movement.metadata;
        hold
    }

    /// Adds a further part, by the movement that placed it.
    pub fn add_part(&mut self, movement: &Movement, placed: &Placed) {
        let pin = |(draw, end): (&Draw, &Time)| {
            let (tranche, kind, amount) = (draw.tranche, draw.kind, draw.amount);
            Pin { tranche, kind, amount, expires_at: *end }
        };
        let part = HoldPart {
            wallet_no: movement.wallet_no,
            wallet: placed.wallet.clone(),
            closed: false,
            pins: movement.draws.iter().zip(&placed.ends).map(pin).collect(),
        };
        self.state.amount.0 += part.left().0;
        self.parts.push(part);
    }

    /// The row of a hold as it was placed, and of one whose row stands among another wallet's.
    pub fn as_placed() -> Vec<u8> {
        vec![VERSION, AS_PLACED]
    }

    /// The row.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(24);
        out.extend_from_slice(&[VERSION, self.state.status as u8]);
        put_u64(&mut out, self.state.expires_at.0);
        for figure in [self.state.captured, self.state.released, self.state.excess] {
            put_u128(&mut out, figure.0 as u128);
        }
        if self.state.status == HoldStatus::Open {
            let closed = || self.parts.iter().enumerate().filter(|(_, part)| part.closed);
            put_u64(&mut out, closed().count() as u64);
            closed().for_each(|(place, _)| put_u64(&mut out, place as u64));
        }
        out
    }

    /// A hold, as it was placed, after what its row tells.
    pub fn after(mut self, row: &[u8]) -> Result<StoredHold, Damage> {
        let mut reader = Reader::new(row);
        if reader.byte("hold version")? != VERSION {
            return Err(Damage("hold version"));
        }
        let status = reader.byte("hold status")?;
        if status == AS_PLACED {
            reader.finish("hold")?;
            return Ok(self);
        }
        self.state.status = HoldStatus::from_code(status)?;
        self.state.expires_at = Time(reader.u64("expires_at")?);
        self.state.captured = figure(&mut reader)?;
        self.state.released = figure(&mut reader)?;
        self.state.excess = figure(&mut reader)?;
        self.take_captured();
        match self.state.status {
            HoldStatus::Open => {
                let count = reader.u64("closed parts")?;
                for _ in 0..count {
                    let place: usize = reader.narrow("closed part")?;
                    self.parts.get_mut(place).ok_or(Damage("closed part"))?.close();
                }
            }
            _ => self.parts.iter_mut().for_each(HoldPart::close),
        }
        reader.finish("hold")?;
        let left: i128 = self.parts.iter().map(|part| part.left().0).sum();
        match left == self.state.left().0 {
            true => Ok(self),
            false => Err(Damage("pins of a hold")),
        }
    }

    /// Takes what was captured out of the pins, in their order.
    fn take_captured(&mut self) {
        let mut captured = self.state.captured.0;
        for part in &mut self.parts {
            for pin in &mut part.pins {
                let taken = captured.min(pin.amount.0);
                pin.amount.0 -= taken;
                captured -= taken;
            }
            part.pins.retain(|pin| pin.amount > Amount::ZERO);
        }
    }
}

fn figure(reader: &mut Reader<'_>) -> Result<Amount, Damage> {
    i128::try_from(reader.u128("hold figure")?).map(Amount).map_err(|_| Damage("hold figure"))
}
