//! What falls due in a wallet: time-outs of holds, expiries and activations, at one instant in this order.
//!
//! A command that touches a wallet first books what is due in it, at most [`BOOKED_PER_TOUCH_MAX`]
//! items, in due order. Expiries beyond that count as booked: they pay nothing (the walk along the
//! burn order skips them) and are in no balance (a [`Lapse`] holds their sum). What an activation or a
//! time-out beyond that brings could be drawn only if it were booked: so the command is not judged, and
//! the caller comes again; meanwhile the sweep goes on.
//!
//! Invariants:
//! - A wallet with something due later has a `D` row at or before that time, and `next_due_at` is never
//!   after what is due first in it.
//! - There is no `D` row before the one at which the last sweep ended: what is granted later falls due
//!   later.
//!
//! Rows that are booked go, and a store keeps a mark for each that is gone, until it compacts. So every
//! look begins behind what was booked, never at the beginning: it would walk over all those marks. While
//! more is due than was booked, the wallet and the shard remember up to where.
//!
//! A sweep takes bounded steps. In a wallet with more than that it also adds up what has expired, so that
//! the wallet can be read and spent from long before all of it is booked.

use std::collections::VecDeque;

use crate::amount::Amount;
use crate::burn;
use crate::codec::{Damage, Reader, put_u128};
use crate::ids::{Customer, HoldId, OperationId, RecordId, WalletNo};
use crate::rows::journal::{MovementKind, MovementStatus, NewMovement};
use crate::rows::keys::{self, DueKey, DueRank, Key};
use crate::rows::open::{Charge, is_off_by_one};
use crate::rows::tranche::{TrancheLife, TrancheRow};
use crate::rows::wallet::{DueItem, Lapse, Wallet};
use crate::store::{LocalDamage, Store};
use crate::time::{Span, Time};
use crate::verdict::Draw;
use crate::workspace::{Stop, WalletAt, Workspace};

/// Most items that a command books in one wallet before it is judged: bounds what it pays for
/// others' expiries.
pub const BOOKED_PER_TOUCH_MAX: u32 = 64;

/// Most expired rows that one command adds up in one wallet: 10,000 take a few milliseconds.
const LAPSED_PER_TOUCH_MAX: usize = 10_000;

/// How far a look for the next time-out goes. Holds that were captured leave marks in a store: so many
/// of them at most it walks over.
const TIME_OUTS_AHEAD: Span = Span::from_secs(16);

/// Most rows of what is due that are read at once.
const ROWS_AHEAD_MAX: usize = 64;

/// What is due in a wallet beyond what has been booked: where it begins, and what was read of it.
struct Ahead {
    rows_from: Key,
    rows: VecDeque<(DueKey, Amount)>,
    time_outs_from: Key,
    time_outs: VecDeque<(Time, Next)>,
    /// How many rows to read at once: most wallets have one item that is due, some have very many.
    at_once: usize,
}

impl Ahead {
    fn of(wallet: &Wallet) -> Ahead {
        let no = wallet.no;
        let (rows_from, time_outs_from) = match wallet.booked_to {
            None => (keys::due_since(no, wallet.next_due_at), keys::hold_due_since(no, wallet.next_due_at)),
            Some(DueItem::TimeOut(at, hold)) => {
                (keys::due_since(no, at), keys::after(keys::hold_due(no, at, hold)))
            }
            // Time-outs come first at each instant.
            Some(DueItem::Tranche(due)) => {
                (keys::after(keys::due(no, due)), keys::hold_due_since(no, Time(due.at.0 + 1)))
            }
        };
        Ahead { rows_from, rows: VecDeque::new(), time_outs_from, time_outs: VecDeque::new(), at_once: 1 }
    }

    fn read_at_once(&mut self) -> usize {
        let rows = self.at_once;
        self.at_once = (rows * 2).min(ROWS_AHEAD_MAX);
        rows
    }

    /// A tranche was booked.
    fn pass_tranche(&mut self, no: WalletNo, due: DueKey) {
        self.rows_from = keys::after(keys::due(no, due));
        match due.rank {
            DueRank::Expiry if self.rows.front().is_some_and(|(own, _)| *own == due) => {
                self.rows.pop_front();
            }
            DueRank::Expiry => {}
            // It expires too, perhaps before what was read.
            DueRank::Activation => self.rows.clear(),
        }
    }

    /// A time-out was booked.
    fn pass_time_out(&mut self, no: WalletNo, at: Time, hold: HoldId) {
        self.time_outs_from = keys::after(keys::hold_due(no, at, hold));
        if matches!(self.time_outs.front(), Some((_, Next::TimeOut(own))) if *own == hold) {
            self.time_outs.pop_front();
        }
        // What it gave back expires too, perhaps before what was read.
        self.rows.clear();
    }
}

/// What is due next in a wallet.
#[derive(Clone, Copy)]
enum Next {
    /// A hold times out.
    TimeOut(HoldId),
    /// A tranche expires or becomes active; for one that has a row of what is due, what it holds.
    Tranche(DueKey, Option<Amount>),
    /// Nothing so far: there is to be another look.
    Look,
}

/// What came of booking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Booked {
    /// How many items were booked.
    pub items: u32,
    /// Whether items that are due are left.
    pub more: bool,
}

impl<S: Store + ?Sized> Workspace<'_, S> {
    /// Books what is due in a wallet that a command touches. `false`: there is a backlog that the
    /// command cannot be judged over.
    pub fn settle(&mut self, at: WalletAt) -> Result<bool, Stop> {
        let due = self.wallet(at).next_due_at;
        if self.now() < due || is_off_by_one(self.now(), due) {
            return Ok(true);
        }
        let booked = self.book_due(at, BOOKED_PER_TOUCH_MAX)?;
        if !booked.more {
            return Ok(true);
        }
        self.count_lapsed(at)
    }

    /// Books up to `limit` due items of a wallet, in due order.
    pub fn book_due(&mut self, at: WalletAt, limit: u32) -> Result<Booked, Stop> {
        let now = self.now();
        let mut items = 0;
        let wallet = self.wallet(at);
        let (no, mut booked_to) = (wallet.no, wallet.booked_to);
        let mut ahead = Ahead::of(wallet);
        loop {
            let next = self.next_due(at, &mut ahead)?;
            let next_at = next.map_or(Time::NEVER, |(at, _)| at);
            let more = next_at <= now;
            // Items are booked in their order, and what booking them adds is due after them.
            match next {
                Some((_, Next::Tranche(due, held))) if more && items < limit => {
                    self.book(at, due, held)?;
                    ahead.pass_tranche(no, due);
                    booked_to = Some(DueItem::Tranche(due));
                }
                Some((_, Next::TimeOut(hold))) if more && items < limit => {
                    self.time_out(at, next_at, hold)?;
                    ahead.pass_time_out(no, next_at, hold);
                    booked_to = Some(DueItem::TimeOut(next_at, hold));
                }
                _ => {
                    self.arm(at, next_at);
                    self.leave(at, booked_to.filter(|_| more));
                    return Ok(Booked { items, more });
                }
            }
            items += 1;
        }
    }

    /// Remembers up to where a wallet was booked while more is due. `None`: nothing is.
    fn leave(&mut self, at: WalletAt, booked_to: Option<DueItem>) {
        let wallet = self.wallet(at);
        if wallet.booked_to != booked_to {
            self.wallet_mut(at).booked_to = booked_to;
        }
        if booked_to.is_none() && self.wallet(at).lapse.is_some() {
            self.wallet_mut(at).lapse = None;
        }
    }

    /// Sets when something is due next in a wallet, and has the sweep look then.
    pub fn arm(&mut self, at: WalletAt, next: Time) {
        let wallet = self.wallet(at);
        if wallet.next_due_at == next {
            return;
        }
        let no = wallet.no;
        self.wallet_mut(at).next_due_at = next;
        if next != Time::NEVER
            && let Ok(key) = self.wallet_key(at)
        {
            self.changes.put(keys::due_wallet(next, no), key);
        }
    }

    /// As [`Workspace::arm`], for one more item: never later than what is armed.
    pub fn arm_by(&mut self, at: WalletAt, due: Time) {
        if due < self.wallet(at).next_due_at {
            self.arm(at, due);
        }
    }

    /// Adds a row of what is due in a wallet, with what it is about.
    pub fn put_due(&mut self, at: WalletAt, due: DueKey, available: Amount) {
        let mut row = Vec::new();
        put_u128(&mut row, available.0 as u128);
        let wallet = self.wallet_mut(at);
        wallet.due_rows += 1;
        let no = wallet.no;
        self.changes.put(keys::due(no, due), row);
    }

    /// Takes a row of what is due out again.
    pub fn delete_due(&mut self, at: WalletAt, due: DueKey) -> Result<(), Stop> {
        let wallet = self.wallet_mut(at);
        wallet.due_rows =
            wallet.due_rows.checked_sub(1).ok_or(Stop::Fault("a due row too many was deleted"))?;
        let no = wallet.no;
        self.changes.delete(keys::due(no, due));
        Ok(())
    }

    /// What is due next, and when.
    fn next_due(&self, at: WalletAt, ahead: &mut Ahead) -> Result<Option<(Time, Next)>, Stop> {
        let tranche = self.next_tranche(at, ahead)?;
        let tranche = tranche.map(|(due, held)| (due.at, Next::Tranche(due, held)));
        let time_out = self.next_time_out(at, ahead)?;
        Ok(match (time_out, tranche) {
            (Some(time_out), Some(tranche)) if tranche.0 < time_out.0 => Some(tranche),
            (None, tranche) => tranche,
            (time_out, _) => time_out,
        })
    }

    /// Which hold times out next: of those that stand in the wallet's row, and of the others.
    fn next_time_out(&self, at: WalletAt, ahead: &mut Ahead) -> Result<Option<(Time, Next)>, Stop> {
        let in_row = self.wallet(at).holds.stated_holds().first().copied();
        let among_rows = self.next_time_out_among_rows(at, ahead)?;
        Ok(match (in_row, among_rows) {
            (None, among_rows) => among_rows,
            (Some((due, id)), Some((other_due, Next::TimeOut(other)))) if (other_due, other) < (due, id) => {
                among_rows
            }
            // Where there is to be another look, nothing among them is due before that.
            (Some((due, _)), Some((look, Next::Look))) if look < due => among_rows,
            (Some((due, id)), _) => Some((due, Next::TimeOut(id))),
        })
    }

    fn next_time_out_among_rows(
        &self,
        at: WalletAt,
        ahead: &mut Ahead,
    ) -> Result<Option<(Time, Next)>, Stop> {
        let wallet = self.wallet(at);
        let now = self.now();
        let Some((begin, end)) = wallet.holds.spans().next() else { return Ok(None) };
        if begin > now {
            return Ok(Some((begin, Next::Look)));
        }
        if ahead.time_outs.is_empty() {
            let end = end.min(now.saturating_add(TIME_OUTS_AHEAD));
            let begin = keys::hold_due_since(wallet.no, begin);
            let from = begin.max(ahead.time_outs_from.clone());
            let until = keys::hold_due_since(wallet.no, end);
            for (key, _) in self.scan(&from, &until, ahead.read_at_once())? {
                let (due, hold) = keys::parse_hold_due(&key)?;
                ahead.time_outs.push_back((due, Next::TimeOut(hold)));
            }
            if ahead.time_outs.is_empty() && end <= now {
                return Err(LocalDamage::Missing("an open hold of a wallet").into());
            }
            if ahead.time_outs.is_empty() {
                ahead.time_outs.push_back((end, Next::Look));
            }
        }
        Ok(ahead.time_outs.front().copied())
    }

    /// Which tranche is due next, in the window or in a row, and for a row what it holds.
    fn next_tranche(
        &self,
        at: WalletAt,
        ahead: &mut Ahead,
    ) -> Result<Option<(DueKey, Option<Amount>)>, Stop> {
        let wallet = self.wallet(at);
        let expiring = wallet.window.iter().filter(|own| own.expires_at != Time::NEVER);
        let window = expiring
            .map(|own| DueKey { at: own.expires_at, rank: DueRank::Expiry, tranche: own.id })
            .min()
            .map(|due| (due, None));
        if wallet.due_rows == 0 {
            return Ok(window);
        }
        if ahead.rows.is_empty() {
            let until = keys::end_of(&keys::due_of(wallet.no));
            let at_once = ahead.read_at_once();
            for (key, row) in self.scan(&ahead.rows_from, &until, at_once)? {
                ahead.rows.push_back((keys::parse_due(&key)?, due_amount(&row)?));
            }
        }
        let (due, available) =
            ahead.rows.front().copied().ok_or(LocalDamage::Missing("what is due in a wallet"))?;
        let first = (due, Some(available));
        Ok(Some(window.map_or(first, |window| window.min(first))))
    }

    fn book(&mut self, at: WalletAt, due: DueKey, held: Option<Amount>) -> Result<(), Stop> {
        let row_key = keys::tranche(self.wallet(at).no, due.tranche);
        let row = self.get(&row_key)?.ok_or(LocalDamage::Missing("a tranche that is due"))?;
        let mut tranche = TrancheRow::decode(&row)?;
        if let Some(available) = held {
            self.delete_due(at, due)?;
            if let Some(lapse) = &mut self.wallet_mut(at).lapse
                && due.rank == DueRank::Expiry
                && due <= lapse.through
            {
                lapse.amount.0 -= available.0;
            }
        }
        let (kind, amount, draw) = match due.rank {
            DueRank::Activation => {
                tranche.life = TrancheLife::Open;
                let wallet = self.wallet_mut(at);
                wallet.pending.0 -= tranche.amount.0;
                wallet.available.0 += tranche.amount.0;
                burn::open(self, at, tranche.to_open(due.tranche))?;
                let draw = Draw {
                    tranche: due.tranche,
                    kind: tranche.kind,
                    amount: tranche.amount,
                    left: tranche.amount,
                };
                (MovementKind::Granted, tranche.amount, draw)
            }
            DueRank::Expiry => {
                let lost = burn::close_expired(self, at, due.tranche, &tranche, held)?;
                tranche.life = TrancheLife::Expired;
                tranche.expired.0 += lost.0;
                self.wallet_mut(at).available.0 -= lost.0;
                let draw =
                    Draw { tranche: due.tranche, kind: tranche.kind, amount: lost, left: Amount::ZERO };
                (MovementKind::Expired, Amount(-lost.0), draw)
            }
        };
        self.changes.put(row_key, tranche.encode());
        let id = RecordId(self.meta.allocate());
        let movement = NewMovement {
            kind,
            status: MovementStatus::Posted,
            effective_at: due.at,
            amount,
            draws: &[draw],
            hold: None,
            corrects: None,
            charge: Charge::default(),
            key: "",
            actor: "",
            reason_code: "",
            reference: "",
            metadata: &[],
        };
        self.post(at, id, OperationId(id.0), &movement, true);
        Ok(())
    }

    /// Adds up what has expired and is not booked. `false` where that would take too long, or where
    /// an activation or a time-out is among it.
    fn count_lapsed(&mut self, at: WalletAt) -> Result<bool, Stop> {
        let wallet = self.wallet(at);
        let now = self.now();
        let mut ahead = Ahead::of(wallet);
        let time_out = self.next_time_out(at, &mut ahead)?;
        if time_out.is_some_and(|(due, _)| due <= now) {
            return Ok(false);
        }
        let from = match &wallet.lapse {
            Some(lapse) => keys::after(keys::due(wallet.no, lapse.through)),
            None => ahead.rows_from,
        };
        let until = keys::due_since(wallet.no, Time(now.0 + 1));
        let rows = self.scan(&from, &until, LAPSED_PER_TOUCH_MAX)?;
        let whole = rows.len() < LAPSED_PER_TOUCH_MAX;
        for (key, row) in rows {
            let due = keys::parse_due(&key)?;
            if due.rank == DueRank::Activation {
                return Ok(false);
            }
            let available = due_amount(&row)?;
            let lapse = &mut self.wallet_mut(at).lapse;
            let sum = lapse.map_or(0, |lapse| lapse.amount.0) + available.0;
            *lapse = Some(Lapse { through: due, amount: Amount(sum) });
        }
        Ok(whole)
    }

    /// Books what is due over all wallets, in the order of their due times, in up to `limit` steps:
    /// a step is an item booked, or a look at a wallet in which nothing was due after all.
    pub fn sweep(&mut self, limit: u32) -> Result<Booked, Stop> {
        let end = Time(self.now().0 + 1);
        let mut from = keys::due_wallet(self.meta.swept_until, self.meta.swept_wallet);
        let until = keys::due_wallet(end, WalletNo(0));
        let (mut steps, mut items, mut at_once) = (0, 0, 1);
        loop {
            // What a wallet that was swept has due later is swept with it: no rows come between these.
            let rows = self.scan(&from, &until, at_once)?;
            at_once = (at_once * 2).min(ROWS_AHEAD_MAX);
            if rows.is_empty() {
                self.meta.swept_until = end;
                self.meta.swept_wallet = WalletNo(0);
                return Ok(Booked { items, more: false });
            }
            for (due_key, wallet_key) in rows {
                if steps >= limit {
                    return Ok(Booked { items, more: true });
                }
                let booked = match self.sweep_wallet(&due_key, &wallet_key, limit - steps) {
                    Ok(booked) => booked,
                    Err(Stop::Fault(what)) => {
                        self.roll_back();
                        let (namespace, id, _) = keys::wallet_names(&wallet_key)?;
                        self.quarantine(Customer { namespace, id })?;
                        self.changes.delete(due_key);
                        self.checkpoint();
                        return Err(Stop::Fault(what));
                    }
                    Err(damage) => return Err(damage),
                };
                (self.meta.swept_until, self.meta.swept_wallet) = keys::parse_due_wallet(&due_key)?;
                self.checkpoint();
                items += booked.items;
                steps += booked.items.max(1);
                if booked.more {
                    return Ok(Booked { items, more: true });
                }
                from = keys::after(due_key);
            }
        }
    }

    /// Books what is due in a wallet under a `D` row.
    fn sweep_wallet(&mut self, due_key: &Key, wallet_key: &Key, limit: u32) -> Result<Booked, Stop> {
        let (due_at, _) = keys::parse_due_wallet(due_key)?;
        let at = self.find_wallet(wallet_key)?.ok_or(LocalDamage::Missing("a wallet that is due"))?;
        let wallet = self.wallet(at);
        let mut booked = Booked { items: 0, more: false };
        if wallet.next_due_at == due_at && !wallet.quarantined {
            booked = self.book_due(at, limit)?;
            if booked.more {
                self.count_lapsed(at)?;
            }
            self.check_touched().map_err(Stop::Fault)?;
        }
        if !booked.more || self.wallet(at).next_due_at != due_at {
            self.changes.delete(due_key.clone());
        }
        Ok(booked)
    }
}

fn due_amount(row: &[u8]) -> Result<Amount, Damage> {
    let mut reader = Reader::new(row);
    let amount = i128::try_from(reader.u128("due amount")?).map_err(|_| Damage("due amount"))?;
    reader.finish("due amount")?;
    Ok(Amount(amount))
}
