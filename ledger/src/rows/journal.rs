//! The journal: movements and life-cycle records of a shard, in order, never rewritten. It is at
//! once what finance reads, what events are streamed from, and the stored answer of each applied
//! command.
//!
//! Each wallet's movements form a hash chain: `head' = SHA-256(head || record bytes)`, from 32 zero
//! bytes. The head stands in the wallet's row, so the tail is never unprotected; every 64th movement
//! leaves the head before it in a row of its own.

use sha2::{Digest, Sha256};

use crate::amount::{Amount, Asset};
use crate::codec::{Damage, Reader, put_amount, put_text, put_u64, put_u128};
use crate::command::{BurnPolicy, ChargeScope, ChargeType, TrancheKind, put_metadata};
use crate::ids::{HoldId, OperationId, RecordId, SHARD_TAG_BITS, TrancheId, WalletNo};
use crate::rows::hold::HoldState;
use crate::rows::memo::{balance, put_balance};
use crate::rows::open::Charge;
use crate::time::Time;
use crate::verdict::{Balance, Draw, WalletInfo};

const VERSION: u8 = 2;
const TAG_WALLET: u8 = 1;
const TAG_MOVEMENT: u8 = 2;
const TAG_HOLD: u8 = 3;
const TAG_TRANCHE: u8 = 4;

/// The version of the burn order that debits follow; kept on each movement.
pub const BURN_ORDER_VERSION: u8 = 1;

/// Movements between two rows that say where a wallet's run begins.
pub const RUN_MOVEMENTS: u64 = 64;

/// What sort of movement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum MovementKind {
    /// Credits came in by a grant.
    Granted = 1,
    /// Credits were spent.
    Consumed = 2,
    /// What was left of a tranche lapsed: what was available, or what a hold gave back too late.
    Expired = 3,
    /// Credits were set aside; the effect on what is settled is zero.
    Held = 4,
    /// What was set aside became available again; the effect on what is settled is zero.
    Released = 5,
    /// What was set aside was spent.
    Captured = 6,
    /// What was left of a tranche was withdrawn: what was available, pending (then the effect is zero and
    /// the status [`MovementStatus::Pending`]), or what a hold gave back after that.
    Voided = 7,
    /// What was spent came back.
    Refunded = 8,
    /// A correction, up or down.
    Adjusted = 9,
}

impl MovementKind {
    /// The name on every surface.
    pub fn name(self) -> &'static str {
        match self {
            MovementKind::Granted => "GRANTED",
            MovementKind::Consumed => "CONSUMED",
            MovementKind::Expired => "EXPIRED",
            MovementKind::Held => "HELD",
            MovementKind::Released => "RELEASED",
            MovementKind::Captured => "CAPTURED",
            MovementKind::Voided => "VOIDED",
            MovementKind::Refunded => "REFUNDED",
            MovementKind::Adjusted => "ADJUSTED",
        }
    }

    fn from_code(code: u8) -> Result<MovementKind, Damage> {
        match code {
            1 => Ok(MovementKind::Granted),
            2 => Ok(MovementKind::Consumed),
            3 => Ok(MovementKind::Expired),
            4 => Ok(MovementKind::Held),
            5 => Ok(MovementKind::Released),
            6 => Ok(MovementKind::Captured),
            7 => Ok(MovementKind::Voided),
            8 => Ok(MovementKind::Refunded),
            9 => Ok(MovementKind::Adjusted),
            _ => Err(Damage("movement kind")),
        }
    }
}

/// Whether a movement is settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MovementStatus {
    /// It counts.
    Posted,
    /// It counts when its tranche becomes active; its amount is zero.
    Pending,
}

/// One record of the journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// A wallet was created or changed: its attributes after.
    Wallet(WalletRecord),
    /// Credits moved.
    Movement(Movement),
    /// A hold was changed, and no credits moved: the hold after.
    Hold(HoldRecord),
    /// A tranche was changed, and no credits moved.
    Tranche(TrancheRecord),
}

/// A life-cycle record of a tranche: it was confirmed, and becomes active later.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrancheRecord {
    /// Its wallet.
    pub wallet_no: WalletNo,
    /// The tranche.
    pub tranche: TrancheId,
    /// When it was booked.
    pub booked_at: Time,
    /// From when on it may be spent.
    pub effective_at: Time,
    /// Until when.
    pub expires_at: Time,
    /// The wallet's balance then.
    pub balance: Balance,
    /// Why; may be empty.
    pub reason_code: String,
    /// The key of the command.
    pub key: String,
    /// Who asked; may be empty.
    pub actor: String,
}

/// A life-cycle record of a hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HoldRecord {
    /// The hold.
    pub hold: HoldId,
    /// When it was booked.
    pub booked_at: Time,
    /// The hold after.
    pub state: HoldState,
    /// Why; may be empty.
    pub reason_code: String,
    /// The key of the command.
    pub key: String,
    /// Who asked; may be empty.
    pub actor: String,
}

/// A life-cycle record of a wallet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WalletRecord {
    /// The wallet.
    pub wallet_no: WalletNo,
    /// When it was booked.
    pub booked_at: Time,
    /// The attributes after.
    pub info: WalletInfo,
    /// Why; may be empty.
    pub reason_code: String,
    /// The key of the command.
    pub key: String,
    /// Who asked; may be empty.
    pub actor: String,
}

/// A movement: one immutable entry of a wallet's ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Movement {
    /// The operation, which joins movements over several wallets.
    pub operation: OperationId,
    /// The wallet.
    pub wallet_no: WalletNo,
    /// Its number in the wallet, from 1, without gaps.
    pub number: u64,
    /// The wallet's movement before it; [`RecordId::NONE`] for the first.
    pub previous: RecordId,
    /// What sort.
    pub kind: MovementKind,
    /// Whether it is settled.
    pub status: MovementStatus,
    /// When it was booked, in ledger time.
    pub booked_at: Time,
    /// When it took effect, in ledger time: not after it was booked.
    pub effective_at: Time,
    /// Its effect on what is settled.
    pub amount: Amount,
    /// The wallet's settled balance after, as booked.
    pub settled_after: Amount,
    /// The wallet's balance after. For a caller's command, what has expired and is not booked is
    /// left out; for what the shard books itself (an empty key: expiries, activations) it is the
    /// running balance as booked, in which later items of the same backlog still count.
    pub balance_after: Balance,
    /// What it took from, or put into, each tranche.
    pub draws: Vec<Draw>,
    /// The hold whose credits they are; for a debit, the hold that it exceeds.
    pub hold: Option<HoldId>,
    /// For what places a hold: what it says of the hold besides. In a box: few movements have it.
    pub placed: Option<Box<Placed>>,
    /// The movement that it gives back of.
    pub corrects: Option<RecordId>,
    /// What was charged for, for a debit that says so.
    pub charge_type: Option<ChargeType>,
    /// The feature charged for; empty is none.
    pub feature: String,
    /// The key of the command; empty for what the shard books itself.
    pub key: String,
    /// Who asked; may be empty.
    pub actor: String,
    /// Why; may be empty.
    pub reason_code: String,
    /// The caller's reference; may be empty.
    pub reference: String,
    /// The caller's pairs.
    pub metadata: Vec<(String, String)>,
}

/// A movement as it is being written: texts borrowed from the command.
#[derive(Clone, Debug)]
pub struct NewMovement<'a> {
    /// As [`Movement::kind`].
    pub kind: MovementKind,
    /// As [`Movement::status`].
    pub status: MovementStatus,
    /// As [`Movement::effective_at`].
    pub effective_at: Time,
    /// As [`Movement::amount`].
    pub amount: Amount,
    /// As [`Movement::draws`].
    pub draws: &'a [Draw],
    /// As [`Movement::hold`] and [`Movement::placed`].
    pub hold: Option<OfHold<'a>>,
    /// As [`Movement::corrects`].
    pub corrects: Option<RecordId>,
    /// What was charged for.
    pub charge: Charge<'a>,
    /// As [`Movement::key`].
    pub key: &'a str,
    /// As [`Movement::actor`].
    pub actor: &'a str,
    /// As [`Movement::reason_code`].
    pub reason_code: &'a str,
    /// As [`Movement::reference`].
    pub reference: &'a str,
    /// As [`Movement::metadata`].
    pub metadata: &'a [(&'a str, &'a str)],
}

/// The hold that a movement is about.
#[derive(Clone, Copy, Debug)]
pub struct OfHold<'a> {
    /// Which.
    pub id: HoldId,
    /// For [`MovementKind::Held`], and only then: as [`Movement::placed`].
    pub placement: Option<&'a Placement<'a>>,
}

/// What a `HELD` movement says of its hold as it is being written: as [`Placed`].
#[derive(Clone, Copy, Debug)]
pub struct Placement<'a> {
    /// As [`Placed::part`].
    pub part: u64,
    /// As [`Placed::parts`].
    pub parts: u64,
    /// As [`Placed::expires_at`].
    pub expires_at: Time,
    /// As [`Placed::wallet`].
    pub wallet: &'a str,
    /// As [`Placed::asset`].
    pub asset: Option<Asset<'a>>,
    /// As [`Placed::ends`].
    pub ends: &'a [Time],
}

/// What a `HELD` movement says of its hold besides what every movement says: together that is all that
/// is to be known of a hold until something becomes of it. So a hold that is placed needs no row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placed {
    /// Which part of the hold the movement places, from 0.
    pub part: u64,
    /// How many parts the hold has: one for each wallet that it pinned something in.
    pub parts: u64,
    /// When the hold times out, as it was placed.
    pub expires_at: Time,
    /// The wallet's id.
    pub wallet: String,
    /// The asset, where the customer's wallets in it pay an excess.
    pub asset: Option<(String, u8)>,
    /// For each draw, when its tranche ended as it stood then.
    pub ends: Vec<Time>,
}

impl Placement<'_> {
    fn encode(&self, out: &mut Vec<u8>) {
        put_u64(out, self.part);
        put_u64(out, self.parts);
        put_u64(out, self.expires_at.0);
        put_text(out, self.wallet);
        match self.asset {
            None => out.push(0),
            Some(asset) => {
                out.push(1);
                put_text(out, asset.code);
                out.push(asset.scale);
            }
        }
        // As many as there are draws. Never is the commonest: zero stands for it.
        self.ends.iter().for_each(|end| put_u64(out, end.0.wrapping_add(1)));
    }
}

impl Placed {
    fn decode(reader: &mut Reader<'_>, draws: usize) -> Result<Placed, Damage> {
        let (part, parts) = (reader.u64("part of a hold")?, reader.u64("parts of a hold")?);
        let expires_at = Time(reader.u64("expires_at")?);
        let wallet = reader.text("wallet of a hold")?.to_owned();
        let asset = match reader.byte("asset of a hold")? {
            0 => None,
            1 => Some((reader.text("asset code")?.to_owned(), reader.byte("asset scale")?)),
            _ => return Err(Damage("asset of a hold")),
        };
        let ends = (0..draws).map(|_| Ok(Time(reader.u64("end of a pin")?.wrapping_sub(1))));
        let ends = ends.collect::<Result<_, Damage>>()?;
        Ok(Placed { part, parts, expires_at, wallet, asset, ends })
    }
}

/// Where a movement stands: what the wallet, not the command, says of it.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// The record's id.
    pub id: RecordId,
    /// As [`Movement::operation`].
    pub operation: OperationId,
    /// As [`Movement::wallet_no`].
    pub wallet_no: WalletNo,
    /// As [`Movement::number`].
    pub number: u64,
    /// As [`Movement::previous`].
    pub previous: RecordId,
    /// As [`Movement::booked_at`].
    pub booked_at: Time,
    /// As [`Movement::settled_after`].
    pub settled_after: Amount,
    /// As [`Movement::balance_after`].
    pub balance_after: Balance,
}

const FLAG_PENDING: u64 = 1;
const FLAG_EFFECTIVE: u64 = 2;
const FLAG_ACTOR: u64 = 4;
const FLAG_REASON: u64 = 8;
const FLAG_REFERENCE: u64 = 16;
const FLAG_METADATA: u64 = 32;
const FLAG_FEATURE: u64 = 64;
// The flags are a varint: from here on they take a second byte.
const FLAG_HOLD: u64 = 128;
const FLAG_CORRECTS: u64 = 256;
const FLAGS_KNOWN: u64 = 511;

/// The row of a movement.
pub fn encode_movement(place: &Place, movement: &NewMovement<'_>) -> Vec<u8> {
    let mut flags = 0;
    for (set, flag) in [
        (movement.status == MovementStatus::Pending, FLAG_PENDING),
        (movement.effective_at != place.booked_at, FLAG_EFFECTIVE),
        (!movement.actor.is_empty(), FLAG_ACTOR),
        (!movement.reason_code.is_empty(), FLAG_REASON),
        (!movement.reference.is_empty(), FLAG_REFERENCE),
        (!movement.metadata.is_empty(), FLAG_METADATA),
        (movement.charge.feature.is_some(), FLAG_FEATURE),
        (movement.hold.is_some(), FLAG_HOLD),
        (movement.corrects.is_some(), FLAG_CORRECTS),
    ] {
        flags |= if set { flag } else { 0 };
    }
    let mut out = Vec::with_capacity(96 + movement.key.len() + 12 * movement.draws.len());
    let charge_type = movement.charge.charge_type.map_or(0, ChargeType::code);
    let packed = BURN_ORDER_VERSION | charge_type << 4;
    out.extend_from_slice(&[VERSION, TAG_MOVEMENT, movement.kind as u8]);
    put_u64(&mut out, flags);
    out.push(packed);
    put_u64(&mut out, place.wallet_no.0);
    put_u64(&mut out, place.number);
    // The distances are small; whole ids would not be.
    put_u64(&mut out, place.id.0 - place.operation.0);
    put_u64(&mut out, place.id.0.wrapping_sub(place.previous.0) >> SHARD_TAG_BITS);
    put_u64(&mut out, place.booked_at.0);
    if flags & FLAG_EFFECTIVE != 0 {
        put_u64(&mut out, movement.effective_at.0);
    }
    put_amount(&mut out, movement.amount);
    put_amount(&mut out, place.settled_after);
    put_balance(&mut out, &place.balance_after);
    put_u64(&mut out, movement.draws.len() as u64);
    for draw in movement.draws {
        put_u64(&mut out, draw.tranche.0);
        out.push(draw.kind.code());
        put_u128(&mut out, draw.amount.0 as u128);
        put_u128(&mut out, draw.left.0 as u128);
    }
    put_text(&mut out, movement.key);
    if let Some(hold) = movement.hold {
        put_u64(&mut out, hold.id.0);
        if let Some(placement) = hold.placement {
            placement.encode(&mut out);
        }
    }
    if let Some(corrects) = movement.corrects {
        put_u64(&mut out, corrects.0);
    }
    for (flag, text) in [
        (FLAG_FEATURE, movement.charge.feature.unwrap_or_default()),
        (FLAG_ACTOR, movement.actor),
        (FLAG_REASON, movement.reason_code),
        (FLAG_REFERENCE, movement.reference),
    ] {
        if flags & flag != 0 {
            put_text(&mut out, text);
        }
    }
    if flags & FLAG_METADATA != 0 {
        put_metadata(&mut out, movement.metadata);
    }
    out
}

/// The head of a wallet's chain after one more movement.
pub fn chain(head: &[u8; 32], record: &[u8]) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(head);
    hash.update(record);
    hash.finalize().into()
}

impl WalletRecord {
    /// The row.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(96);
        out.extend_from_slice(&[VERSION, TAG_WALLET]);
        put_u64(&mut out, self.wallet_no.0);
        put_u64(&mut out, self.booked_at.0);
        put_text(&mut out, &self.info.wallet);
        put_text(&mut out, &self.info.asset_code);
        out.push(self.info.asset_scale);
        put_u64(&mut out, u64::from(self.info.draw_priority));
        out.push(self.info.scope.code());
        out.push(self.info.burn_policy.code());
        out.push(u8::from(self.info.frozen) | u8::from(self.info.closed) << 1);
        put_u64(&mut out, self.info.version);
        put_u64(&mut out, self.info.created_at.0);
        put_text(&mut out, &self.reason_code);
        put_text(&mut out, &self.key);
        put_text(&mut out, &self.actor);
        out
    }
}

impl HoldRecord {
    /// The row.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(64);
        out.extend_from_slice(&[VERSION, TAG_HOLD]);
        put_u64(&mut out, self.hold.0);
        put_u64(&mut out, self.booked_at.0);
        self.state.encode(&mut out);
        put_text(&mut out, &self.reason_code);
        put_text(&mut out, &self.key);
        put_text(&mut out, &self.actor);
        out
    }
}

impl TrancheRecord {
    /// The row.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(64);
        out.extend_from_slice(&[VERSION, TAG_TRANCHE]);
        put_u64(&mut out, self.wallet_no.0);
        put_u64(&mut out, self.tranche.0);
        put_u64(&mut out, self.booked_at.0);
        put_u64(&mut out, self.effective_at.0);
        put_u64(&mut out, self.expires_at.0.wrapping_add(1));
        put_balance(&mut out, &self.balance);
        put_text(&mut out, &self.reason_code);
        put_text(&mut out, &self.key);
        put_text(&mut out, &self.actor);
        out
    }
}

fn wallet_info(reader: &mut Reader<'_>) -> Result<WalletInfo, Damage> {
    let wallet = reader.text("wallet")?.to_owned();
    let asset_code = reader.text("asset code")?.to_owned();
    let asset_scale = reader.byte("asset scale")?;
    let draw_priority = reader.narrow("draw_priority")?;
    let scope = ChargeScope::from_code(reader.byte("scope")?)?;
    let burn_policy = BurnPolicy::from_code(reader.byte("burn_policy")?)?;
    let state = reader.byte("wallet state")?;
    if state > 3 {
        return Err(Damage("wallet state"));
    }
    Ok(WalletInfo {
        wallet,
        asset_code,
        asset_scale,
        draw_priority,
        scope,
        burn_policy,
        frozen: state & 1 != 0,
        closed: state & 2 != 0,
        version: reader.u64("version")?,
        created_at: Time(reader.u64("created_at")?),
    })
}

impl Record {
    /// Reads the row of the record `id`.
    pub fn decode(id: RecordId, row: &[u8]) -> Result<Record, Damage> {
        let mut reader = Reader::new(row);
        if reader.byte("record version")? != VERSION {
            return Err(Damage("record version"));
        }
        let record = match reader.byte("record tag")? {
            TAG_WALLET => Record::Wallet(WalletRecord {
                wallet_no: WalletNo(reader.u64("wallet no")?),
                booked_at: Time(reader.u64("booked_at")?),
                info: wallet_info(&mut reader)?,
                reason_code: reader.text("reason_code")?.to_owned(),
                key: reader.text("key")?.to_owned(),
                actor: reader.text("actor")?.to_owned(),
            }),
            TAG_MOVEMENT => Record::Movement(decode_movement(id, &mut reader)?),
            TAG_TRANCHE => Record::Tranche(TrancheRecord {
                wallet_no: WalletNo(reader.u64("wallet no")?),
                tranche: TrancheId(reader.u64("tranche")?),
                booked_at: Time(reader.u64("booked_at")?),
                effective_at: Time(reader.u64("effective_at")?),
                expires_at: Time(reader.u64("expires_at")?.wrapping_sub(1)),
                balance: balance(&mut reader)?,
                reason_code: reader.text("reason_code")?.to_owned(),
                key: reader.text("key")?.to_owned(),
                actor: reader.text("actor")?.to_owned(),
            }),
            TAG_HOLD => Record::Hold(HoldRecord {
                hold: HoldId(reader.u64("hold")?),
                booked_at: Time(reader.u64("booked_at")?),
                state: HoldState::decode(&mut reader)?,
                reason_code: reader.text("reason_code")?.to_owned(),
                key: reader.text("key")?.to_owned(),
                actor: reader.text("actor")?.to_owned(),
            }),
            _ => return Err(Damage("record tag")),
        };
        reader.finish("record")?;
        Ok(record)
    }
}

fn decode_movement(id: RecordId, reader: &mut Reader<'_>) -> Result<Movement, Damage> {
    let kind = MovementKind::from_code(reader.byte("movement kind")?)?;
    let flags = reader.u64("movement flags")?;
    if flags & !FLAGS_KNOWN != 0 {
        return Err(Damage("movement flags"));
    }
    let packed = reader.byte("burn order version")?;
    if packed & 15 != BURN_ORDER_VERSION {
        return Err(Damage("burn order version"));
    }
    let charge_type = match packed >> 4 {
        0 => None,
        code => Some(ChargeType::from_code(code)?),
    };
    let wallet_no = WalletNo(reader.u64("wallet no")?);
    let number = reader.u64("movement number")?;
    let operation = OperationId(id.0.wrapping_sub(reader.u64("operation")?));
    let back = reader.u64("previous")?;
    let previous = match number {
        1 => RecordId::NONE,
        _ => RecordId(id.0.wrapping_sub(back << SHARD_TAG_BITS)),
    };
    let booked_at = Time(reader.u64("booked_at")?);
    let effective_at =
        if flags & FLAG_EFFECTIVE != 0 { Time(reader.u64("effective_at")?) } else { booked_at };
    let amount = reader.amount("amount")?;
    let settled_after = reader.amount("settled_after")?;
    let balance_after = balance(reader)?;
    let count: usize = reader.narrow("draw count")?;
    let mut draws = Vec::with_capacity(count.min(1_024));
    let figure = |reader: &mut Reader<'_>| {
        i128::try_from(reader.u128("draw")?).map(Amount).map_err(|_| Damage("draw"))
    };
    for _ in 0..count {
        let tranche = TrancheId(reader.u64("draw")?);
        let kind = TrancheKind::from_code(reader.byte("draw")?)?;
        draws.push(Draw { tranche, kind, amount: figure(reader)?, left: figure(reader)? });
    }
    let key = reader.text("key")?.to_owned();
    let hold = match flags & FLAG_HOLD {
        0 => None,
        _ => Some(HoldId(reader.u64("movement hold")?)),
    };
    let placed = match kind {
        MovementKind::Held => Some(Box::new(Placed::decode(reader, draws.len())?)),
        _ => None,
    };
    let corrects = match flags & FLAG_CORRECTS {
        0 => None,
        _ => Some(RecordId(reader.u64("corrected movement")?)),
    };
    let mut text = |flag| match flags & flag {
        0 => Ok(String::new()),
        _ => reader.text("movement text").map(str::to_owned),
    };
    let feature = text(FLAG_FEATURE)?;
    let (actor, reason_code, reference) = (text(FLAG_ACTOR)?, text(FLAG_REASON)?, text(FLAG_REFERENCE)?);
    let metadata = match flags & FLAG_METADATA {
        0 => Vec::new(),
        _ => crate::command::metadata(reader)?
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect(),
    };
    let status = if flags & FLAG_PENDING != 0 { MovementStatus::Pending } else { MovementStatus::Posted };
    Ok(Movement {
        operation,
        wallet_no,
        number,
        previous,
        kind,
        status,
        booked_at,
        effective_at,
        amount,
        settled_after,
        balance_after,
        draws,
        hold,
        placed,
        corrects,
        charge_type,
        feature,
        key,
        actor,
        reason_code,
        reference,
        metadata,
    })
}
