//! A hold: which units of which tranches it has set aside, and what became of them.
//!
//! A hold has a part for each wallet that it pinned something in. A part is closed when nothing more
//! can come of it: by a final capture, a release, or its time-out, which each wallet books for itself.

use crate::amount::{Amount, Asset};
use crate::codec::{Damage, Reader, put_text, put_u64, put_u128};
use crate::command::{ChargeType, TrancheKind};
use crate::ids::{TrancheId, WalletNo};
use crate::rows::open::Charge;
use crate::time::Time;

const VERSION: u8 = 1;

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
    /// What is still set aside in this wallet. The sum is within what the wallet holds.
    pub fn left(&self) -> Amount {
        Amount(self.pins.iter().map(|pin| pin.amount.0).sum())
    }
}

/// A hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HoldRow {
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

impl HoldRow {
    /// What it is for.
    pub fn charge(&self) -> Charge<'_> {
        Charge { charge_type: self.charge_type, feature: self.feature.as_deref() }
    }

    /// The asset whose wallets pay an excess, where the hold is of a customer.
    pub fn payer_asset(&self) -> Option<Asset<'_>> {
        self.asset.as_ref().map(|(code, scale)| Asset { code, scale: *scale })
    }

    /// The row.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(96);
        out.push(VERSION);
        self.state.encode(&mut out);
        match &self.asset {
            None => out.push(0),
            Some((code, scale)) => {
                out.push(1);
                put_text(&mut out, code);
                out.push(*scale);
            }
        }
        out.push(self.charge_type.map_or(0, ChargeType::code));
        match &self.feature {
            None => out.push(0),
            Some(feature) => {
                out.push(1);
                put_text(&mut out, feature);
            }
        }
        put_text(&mut out, &self.reason_code);
        put_text(&mut out, &self.reference);
        let pairs: Vec<_> =
            self.metadata.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        crate::command::put_metadata(&mut out, &pairs);
        put_u64(&mut out, self.parts.len() as u64);
        for part in &self.parts {
            put_u64(&mut out, part.wallet_no.0);
            put_text(&mut out, &part.wallet);
            out.push(u8::from(part.closed));
            put_u64(&mut out, part.pins.len() as u64);
            for pin in &part.pins {
                put_u64(&mut out, pin.tranche.0);
                out.push(pin.kind.code());
                put_u128(&mut out, pin.amount.0 as u128);
                put_u64(&mut out, pin.expires_at.0.wrapping_add(1));
            }
        }
        out
    }

    /// Reads the row.
    pub fn decode(row: &[u8]) -> Result<HoldRow, Damage> {
        let mut reader = Reader::new(row);
        if reader.byte("hold version")? != VERSION {
            return Err(Damage("hold version"));
        }
        let state = HoldState::decode(&mut reader)?;
        let asset = match reader.byte("hold asset")? {
            0 => None,
            1 => Some((reader.text("asset code")?.to_owned(), reader.byte("asset scale")?)),
            _ => return Err(Damage("hold asset")),
        };
        let charge_type = match reader.byte("charge_type")? {
            0 => None,
            code => Some(ChargeType::from_code(code)?),
        };
        let feature = match reader.byte("feature")? {
            0 => None,
            1 => Some(reader.text("feature")?.to_owned()),
            _ => return Err(Damage("feature")),
        };
        let reason_code = reader.text("reason_code")?.to_owned();
        let reference = reader.text("reference")?.to_owned();
        let metadata = crate::command::metadata(&mut reader)?
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        let count: usize = reader.narrow("hold parts")?;
        let mut parts = Vec::with_capacity(count.min(64));
        for _ in 0..count {
            let wallet_no = WalletNo(reader.u64("wallet no")?);
            let wallet = reader.text("wallet")?.to_owned();
            let closed = reader.byte("hold part")? != 0;
            let count: usize = reader.narrow("pins")?;
            let mut pins = Vec::with_capacity(count.min(64));
            for _ in 0..count {
                pins.push(Pin {
                    tranche: TrancheId(reader.u64("pin")?),
                    kind: TrancheKind::from_code(reader.byte("pin")?)?,
                    amount: figure(&mut reader)?,
                    expires_at: Time(reader.u64("pin")?.wrapping_sub(1)),
                });
            }
            parts.push(HoldPart { wallet_no, wallet, closed, pins });
        }
        reader.finish("hold")?;
        Ok(HoldRow { state, asset, charge_type, feature, reason_code, reference, metadata, parts })
    }
}

fn figure(reader: &mut Reader<'_>) -> Result<Amount, Damage> {
    i128::try_from(reader.u128("hold figure")?).map(Amount).map_err(|_| Damage("hold figure"))
}
