//! A wallet: its attributes, totals, chain head, and the first open tranches, in one row.
//!
//! Invariants, checked before a row is written and after it is read ([`Wallet::check`]):
//! the window is sorted in burn order and holds at most [`WINDOW_TRANCHES_MAX`] tranches, each with
//! something available; `available` is what the window and the overflow rows hold together; nothing
//! is negative; an overflow has a floor; credits are held only by open holds.

use std::sync::Arc;

use crate::amount::{Amount, Asset};
use crate::codec::{Damage, Reader, put_text, put_u64, put_u128};
use crate::command::{BurnPolicy, ChargeScope};
use crate::ids::{HoldId, RecordId, TrancheId, WalletNo};
use crate::rows::keys::{DueKey, DueRank};
use crate::rows::open::OpenTranche;
use crate::rows::open_holds::OpenHolds;
use crate::rows::overflow::Overflow;
use crate::time::Time;
use crate::verdict::{Balance, WalletInfo};

const VERSION: u8 = 3;

/// Open tranches kept in the wallet's own row. Eight make a row of about 230 bytes, and cover the
/// wallets of nearly every customer; a plain debit then touches no other tranche row.
pub const WINDOW_TRANCHES_MAX: usize = 8;

const FLAG_FROZEN: u8 = 1;
const FLAG_QUARANTINED: u8 = 2;
const FLAG_OVERFLOW: u8 = 4;
const FLAG_LAPSE: u8 = 8;
const FLAG_HOLDS: u8 = 16;
const FLAG_CLOSED: u8 = 32;
const FLAG_BOOKED_TO: u8 = 64;
const FLAGS_KNOWN: u8 = 127;

/// A wallet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wallet {
    /// Its number, which keys its other rows.
    pub no: WalletNo,
    /// Its asset's code.
    pub asset_code: Arc<str>,
    /// Its asset's scale.
    pub asset_scale: u8,
    /// Order among the customer's wallets.
    pub draw_priority: u16,
    /// Which charges it pays.
    pub scope: ChargeScope,
    /// In which order its tranches burn.
    pub burn_policy: BurnPolicy,
    /// Takes grants but no debits.
    pub frozen: bool,
    /// Takes nothing any more, for ever.
    pub closed: bool,
    /// Its customer is quarantined.
    pub quarantined: bool,
    /// Rises with each change of an attribute, from 1.
    pub version: u64,
    /// When it was created.
    pub created_at: Time,
    /// What is available, as booked.
    pub available: Amount,
    /// What is granted and not active yet, as booked.
    pub pending: Amount,
    /// Not later than the first item that is due; [`Time::NEVER`] where none is.
    pub next_due_at: Time,
    /// How many rows of what is due there are beyond the window.
    pub due_rows: u64,
    /// How many movements it has.
    pub movements: u64,
    /// Its last movement.
    pub last_movement: RecordId,
    /// The hash that its movements chain up to.
    pub chain_head: [u8; 32],
    /// The first open tranches met, in burn order.
    pub window: Vec<OpenTranche>,
    /// Open tranches in rows of their own.
    pub overflow: Option<Overflow>,
    /// What has expired and could not be booked yet.
    pub lapse: Option<Lapse>,
    /// Up to where what is due has been booked, while more is due.
    pub booked_to: Option<DueItem>,
    /// What its open holds have set aside.
    pub held: Amount,
    /// Its open holds, as far as its row tells of them.
    pub holds: OpenHolds,
}

/// The expired part of the overflow, when more is due at once than a command may book.
///
/// Each due row is added here once, when the wallet is first touched after its instant, and taken
/// out when it is booked: so a balance is exact, and its cost does not grow with the backlog.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lapse {
    /// Due rows up to and with this one are counted.
    pub through: DueKey,
    /// What they held, and hold no more by the reading of now.
    pub amount: Amount,
}

/// An item that was due in a wallet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DueItem {
    /// A hold timed out.
    TimeOut(Time, HoldId),
    /// A tranche expired, or became active.
    Tranche(DueKey),
}

impl DueItem {
    /// In the place of a [`DueRank`]: time-outs come first.
    const TIME_OUT: u8 = 0;

    fn encode(self, out: &mut Vec<u8>) {
        let (at, rank, id) = match self {
            DueItem::TimeOut(at, hold) => (at, DueItem::TIME_OUT, hold.0),
            DueItem::Tranche(due) => (due.at, due.rank as u8, due.tranche.0),
        };
        put_u64(out, at.0);
        out.push(rank);
        put_u64(out, id);
    }

    fn decode(reader: &mut Reader<'_>) -> Result<DueItem, Damage> {
        let at = Time(reader.u64("due item")?);
        let rank = reader.byte("due item")?;
        let id = reader.u64("due item")?;
        let tranche = |rank| DueItem::Tranche(DueKey { at, rank, tranche: TrancheId(id) });
        match rank {
            DueItem::TIME_OUT => Ok(DueItem::TimeOut(at, HoldId(id))),
            1 => Ok(tranche(DueRank::Expiry)),
            2 => Ok(tranche(DueRank::Activation)),
            _ => Err(Damage("due item")),
        }
    }
}

impl Wallet {
    /// Its asset.
    pub fn asset(&self) -> Asset<'_> {
        Asset { code: &self.asset_code, scale: self.asset_scale }
    }

    /// Its attributes, under its name.
    pub fn info(&self, name: &str) -> WalletInfo {
        WalletInfo {
            wallet: name.to_owned(),
            asset_code: self.asset_code.to_string(),
            asset_scale: self.asset_scale,
            draw_priority: self.draw_priority,
            scope: self.scope,
            burn_policy: self.burn_policy,
            frozen: self.frozen,
            closed: self.closed,
            version: self.version,
            created_at: self.created_at,
        }
    }

    /// Its balance, with what has expired and is not booked left out.
    pub fn balance(&self, now: Time) -> Balance {
        let unbooked: i128 =
            self.window.iter().filter(|own| own.expires_at <= now).map(|own| own.available.0).sum();
        let lapsed = unbooked + self.lapse.map_or(0, |lapse| lapse.amount.0);
        Balance {
            available: Amount(self.available.0 - lapsed),
            held: self.held,
            pending: self.pending,
            debt: Amount::ZERO,
        }
    }

    /// Whether nothing is in it, and nothing will come back to it. What has expired counts as gone, booked
    /// or not.
    pub fn is_empty(&self, now: Time) -> bool {
        let balance = self.balance(now);
        let there = [balance.available, balance.held, balance.pending];
        there.iter().all(|part| *part == Amount::ZERO) && self.holds.is_empty()
    }

    /// Puts a tranche into the window at its place in burn order.
    pub fn insert_into_window(&mut self, tranche: OpenTranche) {
        let policy = self.burn_policy;
        let place = self.window.partition_point(|own| own.burn_order(&tranche, policy).is_lt());
        self.window.insert(place, tranche);
    }

    /// What must hold of every wallet row; the text names what does not.
    pub fn check(&self) -> Result<(), &'static str> {
        if self.window.len() > WINDOW_TRANCHES_MAX {
            return Err("a wallet's window holds too many tranches");
        }
        let mut open = self.overflow.as_ref().map_or(Some(0), |own| Some(own.available.0));
        for tranche in &self.window {
            if tranche.available <= Amount::ZERO {
                return Err("an open tranche has nothing available");
            }
            open = open.and_then(|sum| sum.checked_add(tranche.available.0));
        }
        if open != Some(self.available.0) {
            return Err("a wallet's available amount differs from the sum of its open tranches");
        }
        let policy = self.burn_policy;
        if !self.window.is_sorted_by(|a, b| a.burn_order(b, policy).is_lt()) {
            return Err("a wallet's window is not in burn order");
        }
        if self.available < Amount::ZERO || self.pending < Amount::ZERO {
            return Err("a wallet's total is negative");
        }
        if self.overflow.as_ref().is_some_and(|own| own.tranches == 0 || own.available <= Amount::ZERO) {
            return Err("a wallet's overflow is empty");
        }
        self.holds.check(self.held)
    }

    /// The row.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(104 + 32 * self.window.len());
        let mut flags = 0;
        for (set, flag) in [
            (self.frozen, FLAG_FROZEN),
            (self.quarantined, FLAG_QUARANTINED),
            (self.overflow.is_some(), FLAG_OVERFLOW),
            (self.lapse.is_some(), FLAG_LAPSE),
            (!self.holds.is_empty(), FLAG_HOLDS),
            (self.closed, FLAG_CLOSED),
            (self.booked_to.is_some(), FLAG_BOOKED_TO),
        ] {
            flags |= if set { flag } else { 0 };
        }
        out.extend_from_slice(&[VERSION, flags]);
        put_u64(&mut out, self.no.0);
        put_text(&mut out, &self.asset_code);
        out.push(self.asset_scale);
        put_u64(&mut out, u64::from(self.draw_priority));
        out.push(self.scope.code() | self.burn_policy.code() << 4);
        put_u64(&mut out, self.version);
        put_u64(&mut out, self.created_at.0);
        put_u128(&mut out, self.available.0 as u128);
        put_u128(&mut out, self.pending.0 as u128);
        put_u64(&mut out, self.next_due_at.0.wrapping_add(1));
        put_u64(&mut out, self.due_rows);
        put_u64(&mut out, self.movements);
        put_u64(&mut out, self.last_movement.0);
        out.extend_from_slice(&self.chain_head);
        out.push(self.window.len() as u8);
        self.window.iter().for_each(|tranche| tranche.encode(&mut out));
        if let Some(overflow) = &self.overflow {
            overflow.encode(&mut out);
        }
        if let Some(lapse) = &self.lapse {
            DueItem::Tranche(lapse.through).encode(&mut out);
            put_u128(&mut out, lapse.amount.0 as u128);
        }
        if let Some(item) = self.booked_to {
            item.encode(&mut out);
        }
        if !self.holds.is_empty() {
            put_u128(&mut out, self.held.0 as u128);
            self.holds.encode(&mut out);
        }
        out
    }

    /// Reads the row.
    pub fn decode(row: &[u8]) -> Result<Wallet, Damage> {
        let mut reader = Reader::new(row);
        if reader.byte("wallet version")? != VERSION {
            return Err(Damage("wallet version"));
        }
        let flags = reader.byte("wallet flags")?;
        if flags & !FLAGS_KNOWN != 0 {
            return Err(Damage("wallet flags"));
        }
        let total = |reader: &mut Reader<'_>| {
            i128::try_from(reader.u128("wallet total")?).map(Amount).map_err(|_| Damage("wallet total"))
        };
        let no = WalletNo(reader.u64("wallet no")?);
        let asset_code = reader.text("asset code")?.into();
        let asset_scale = reader.byte("asset scale")?;
        let draw_priority = reader.narrow("draw_priority")?;
        let packed = reader.byte("wallet scope")?;
        let mut wallet = Wallet {
            no,
            asset_code,
            asset_scale,
            draw_priority,
            scope: ChargeScope::from_code(packed & 15)?,
            burn_policy: BurnPolicy::from_code(packed >> 4)?,
            frozen: flags & FLAG_FROZEN != 0,
            closed: flags & FLAG_CLOSED != 0,
            quarantined: flags & FLAG_QUARANTINED != 0,
            version: reader.u64("wallet version number")?,
            created_at: Time(reader.u64("created_at")?),
            available: total(&mut reader)?,
            pending: total(&mut reader)?,
            next_due_at: Time(reader.u64("next_due_at")?.wrapping_sub(1)),
            due_rows: reader.u64("due rows")?,
            movements: reader.u64("movements")?,
            last_movement: RecordId(reader.u64("last movement")?),
            chain_head: reader.array("chain head")?,
            window: Vec::new(),
            overflow: None,
            lapse: None,
            booked_to: None,
            held: Amount::ZERO,
            holds: OpenHolds::default(),
        };
        let count = usize::from(reader.byte("window")?);
        if count > WINDOW_TRANCHES_MAX {
            return Err(Damage("window"));
        }
        wallet.window.reserve_exact(WINDOW_TRANCHES_MAX);
        for _ in 0..count {
            wallet.window.push(OpenTranche::decode(&mut reader)?);
        }
        if flags & FLAG_OVERFLOW != 0 {
            wallet.overflow = Some(Overflow::decode(&mut reader)?);
        }
        if flags & FLAG_LAPSE != 0 {
            let DueItem::Tranche(through) = DueItem::decode(&mut reader)? else {
                return Err(Damage("lapse"));
            };
            wallet.lapse = Some(Lapse { through, amount: total(&mut reader)? });
        }
        if flags & FLAG_BOOKED_TO != 0 {
            wallet.booked_to = Some(DueItem::decode(&mut reader)?);
        }
        if flags & FLAG_HOLDS != 0 {
            wallet.held = total(&mut reader)?;
            wallet.holds = OpenHolds::decode(&mut reader)?;
        }
        reader.finish("wallet")?;
        Ok(wallet)
    }
}
