//! The walk along the burn order of one wallet: planning what a debit takes from which tranche, and
//! carrying it out.
//!
//! Most wallets have all their open tranches in the window, which is kept in burn order: the walk is
//! over a short list. Beyond it, the open-tranche rows of each class that fits (at most four) are in
//! burn order too, and expired ones are skipped by one seek for each priority: the walk is a merge.
//! Its cost depends on the tranches drawn from, not on how many others there are.
//!
//! A tranche that is drawn from in part moves into the window, since the next debit will want it
//! too; where the window is full, the one that burns last moves out.

use std::cmp::Ordering;
use std::collections::VecDeque;

use crate::amount::Amount;
use crate::codec::Reader;
use crate::ids::TrancheId;
use crate::rows::keys::{self, DueKey, DueRank, Key};
use crate::rows::open::{Charge, Class, OpenTranche};
use crate::rows::overflow::{Overflow, PLAIN};
use crate::rows::tranche::TrancheRow;
use crate::rows::wallet::{Lapse, WINDOW_TRANCHES_MAX, Wallet};
use crate::store::{LocalDamage, Store};
use crate::time::Time;
use crate::verdict::Draw;
use crate::workspace::{Stop, WalletAt, Workspace};

/// Most tranches that one debit may draw on.
pub const DRAWS_PER_DEBIT_MAX: usize = 1_000;

/// Open-tranche rows fetched at once: a debit seldom needs more.
const ROWS_AT_ONCE: usize = 8;

/// What a debit takes from one wallet, before it is carried out.
#[derive(Debug, Default)]
pub struct Plan {
    picks: Vec<Pick>,
    /// What the picks sum to.
    pub sum: Amount,
    /// The draw limit was reached, and more could have been drawn.
    pub cut_short: bool,
}

#[derive(Debug)]
enum Pick {
    /// From the window's tranche at a place.
    Window { place: usize, amount: Amount },
    /// From an open-tranche row.
    Overflow { tranche: OpenTranche, amount: Amount },
}

impl Plan {
    fn has(&self, id: TrancheId) -> bool {
        self.picks.iter().any(|pick| matches!(pick, Pick::Overflow { tranche, .. } if tranche.id == id))
    }

    /// How many tranches are drawn on.
    pub fn draws(&self) -> usize {
        self.picks.len()
    }

    /// When the tranches that are drawn on end, in burn order; of the wallet as it was planned on.
    pub fn ends(&self, wallet: &Wallet) -> Vec<Time> {
        let end = |pick: &Pick| match pick {
            Pick::Window { place, .. } => wallet.window.get(*place).map_or(Time::NEVER, |own| own.expires_at),
            Pick::Overflow { tranche, .. } => tranche.expires_at,
        };
        self.picks.iter().map(end).collect()
    }
}

/// Plans to take up to `wanted` from a wallet for a charge, from at most `draws_max` tranches. Without
/// a charge, whatever they may pay for.
pub fn plan<S: Store + ?Sized>(
    work: &Workspace<'_, S>,
    at: WalletAt,
    charge: Option<Charge<'_>>,
    wanted: Amount,
    draws_max: usize,
) -> Result<Plan, Stop> {
    let wallet = work.wallet(at);
    let now = work.now();
    let mut plan = Plan::default();
    let mut rows: Option<OverflowWalk> = None;
    let mut window = wallet.window.iter().enumerate().filter(|(_, own)| own.pays(charge, now)).peekable();
    while plan.sum < wanted {
        let next_in_window = window.peek().map(|(_, own)| *own);
        let floor = wallet.overflow.as_ref().map(|overflow| &overflow.floor);
        let look_beyond = match (next_in_window, floor) {
            (_, None) => false,
            (None, Some(_)) => true,
            (Some(own), Some(floor)) => own.burn_order(floor, wallet.burn_policy) == Ordering::Greater,
        };
        if look_beyond && rows.is_none() {
            rows = Some(OverflowWalk::new(work, wallet, charge, now)?);
        }
        let beyond = match &mut rows {
            Some(walk) if look_beyond => walk.peek(work, wallet.burn_policy, now)?,
            _ => None,
        };
        let take_beyond = match (next_in_window, beyond) {
            (None, None) => break,
            (Some(_), None) => false,
            (None, Some(_)) => true,
            (Some(own), Some(row)) => row.burn_order(own, wallet.burn_policy) == Ordering::Less,
        };
        if plan.picks.len() == draws_max {
            plan.cut_short = true;
            break;
        }
        let missing = wanted.0 - plan.sum.0;
        if take_beyond {
            let Some(tranche) = rows.as_mut().and_then(OverflowWalk::pop) else {
                return Err(Stop::Fault("the walk along the burn order lost a tranche"));
            };
            // One that is limited to several features is met in each of their classes.
            if charge.is_none() && plan.has(tranche.id) {
                continue;
            }
            let amount = Amount(missing.min(tranche.available.0));
            plan.sum.0 += amount.0;
            plan.picks.push(Pick::Overflow { tranche, amount });
        } else if let Some((place, own)) = window.next() {
            let amount = Amount(missing.min(own.available.0));
            plan.sum.0 += amount.0;
            plan.picks.push(Pick::Window { place, amount });
        }
    }
    Ok(plan)
}

/// Carries a plan out: the draws, in burn order.
pub fn carry_out<S: Store + ?Sized>(
    work: &mut Workspace<'_, S>,
    at: WalletAt,
    plan: Plan,
) -> Result<Vec<Draw>, Stop> {
    let mut draws = Vec::with_capacity(plan.picks.len());
    let mut rest: Option<OpenTranche> = None;
    let mut drawn_rows: Vec<OpenTranche> = Vec::new();
    let wallet = work.wallet_mut(at);
    wallet.available.0 -= plan.sum.0;
    let mut emptied = false;
    for pick in plan.picks {
        match pick {
            Pick::Window { place, amount } => {
                let own = wallet.window.get_mut(place).ok_or(Stop::Fault("a pick outside the window"))?;
                own.available.0 -= amount.0;
                emptied |= own.available == Amount::ZERO;
                draws.push(Draw { tranche: own.id, kind: own.kind, amount, left: own.available });
            }
            Pick::Overflow { tranche, amount } => {
                let left = Amount(tranche.available.0 - amount.0);
                draws.push(Draw { tranche: tranche.id, kind: tranche.kind, amount, left });
                if left > Amount::ZERO {
                    rest = Some(OpenTranche { available: left, ..tranche.clone() });
                }
                drawn_rows.push(tranche);
            }
        }
    }
    if emptied {
        wallet.window.retain(|own| own.available > Amount::ZERO);
    }
    for tranche in &drawn_rows {
        remove_from_overflow(work, at, tranche)?;
    }
    if let (Some(last), Some(overflow)) = (drawn_rows.pop(), &mut work.wallet_mut(at).overflow)
        && overflow.is_plain()
    {
        // In one class, all that burned before the last one drawn is drawn or expired.
        overflow.floor = last;
    }
    if let Some(tranche) = rest {
        bring_into_window(work, at, tranche);
    }
    Ok(draws)
}

/// Adds a tranche that has become active: to the window where there is room, else to rows.
pub fn open<S: Store + ?Sized>(
    work: &mut Workspace<'_, S>,
    at: WalletAt,
    tranche: OpenTranche,
) -> Result<(), Stop> {
    let wallet = work.wallet_mut(at);
    if wallet.window.len() < WINDOW_TRANCHES_MAX {
        let expires_at = tranche.expires_at;
        wallet.insert_into_window(tranche);
        work.arm_by(at, expires_at);
    } else {
        let expires_at = tranche.expires_at;
        add_to_overflow(work, at, tranche);
        work.arm_by(at, expires_at);
    }
    Ok(())
}

/// Removes an expired tranche from the open ones: what was left of it. `held` is what its due row
/// says, for one that has such a row.
pub fn close_expired<S: Store + ?Sized>(
    work: &mut Workspace<'_, S>,
    at: WalletAt,
    id: TrancheId,
    tranche: &TrancheRow,
    held: Option<Amount>,
) -> Result<Amount, Stop> {
    let Some(available) = held else {
        let window = &mut work.wallet_mut(at).window;
        let place = window.iter().position(|own| own.id == id);
        let place = place.ok_or(Stop::Fault("an expiring tranche is not open"))?;
        return Ok(window.remove(place).available);
    };
    let open = OpenTranche { available, ..tranche.to_open(id) };
    drop_rows(work, at, &open)?;
    Ok(available)
}

/// Makes units of a tranche of the window available again. What is available of it then; `None` where
/// the window does not have it.
pub fn give_back_in_window<S: Store + ?Sized>(
    work: &mut Workspace<'_, S>,
    at: WalletAt,
    id: TrancheId,
    amount: Amount,
) -> Option<Amount> {
    let place = work.wallet(at).window.iter().position(|own| own.id == id)?;
    let wallet = work.wallet_mut(at);
    wallet.available.0 += amount.0;
    let own = &mut wallet.window[place];
    own.available.0 += amount.0;
    Some(own.available)
}

/// Makes units of a tranche available again, that is neither due nor gone. What is available of it then.
pub fn give_back<S: Store + ?Sized>(
    work: &mut Workspace<'_, S>,
    at: WalletAt,
    id: TrancheId,
    tranche: &TrancheRow,
    amount: Amount,
) -> Result<Amount, Stop> {
    if let Some(available) = give_back_in_window(work, at, id, amount) {
        return Ok(available);
    }
    work.wallet_mut(at).available.0 += amount.0;
    let beyond = open_part(work, at, id, tranche)?;
    let shape = tranche.to_open(id);
    if beyond > Amount::ZERO {
        remove_from_overflow(work, at, &OpenTranche { available: beyond, ..shape.clone() })?;
    }
    let available = Amount(beyond.0 + amount.0);
    open(work, at, OpenTranche { available, ..shape })?;
    Ok(available)
}

/// Takes all that is open of a tranche out of its wallet. How much it was.
pub fn withdraw<S: Store + ?Sized>(
    work: &mut Workspace<'_, S>,
    at: WalletAt,
    id: TrancheId,
    tranche: &TrancheRow,
) -> Result<Amount, Stop> {
    let open = open_part(work, at, id, tranche)?;
    if open == Amount::ZERO {
        return Ok(open);
    }
    let wallet = work.wallet_mut(at);
    wallet.available.0 -= open.0;
    match wallet.window.iter().position(|own| own.id == id) {
        Some(place) => drop(wallet.window.remove(place)),
        None => {
            let shape = OpenTranche { available: open, ..tranche.to_open(id) };
            remove_from_overflow(work, at, &shape)?;
        }
    }
    Ok(open)
}

/// As [`open_part`], where the tranche's row is not at hand: nearly always there is no need of it.
pub fn open_part_of<S: Store + ?Sized>(
    work: &Workspace<'_, S>,
    at: WalletAt,
    id: TrancheId,
) -> Result<Amount, Stop> {
    let wallet = work.wallet(at);
    match wallet.window.iter().find(|own| own.id == id) {
        Some(own) => Ok(own.available),
        None if wallet.overflow.is_none() => Ok(Amount::ZERO),
        None => open_part(work, at, id, &work.tranche_row(at, id)?),
    }
}

/// What is open of a tranche, wherever it lives.
pub fn open_part<S: Store + ?Sized>(
    work: &Workspace<'_, S>,
    at: WalletAt,
    id: TrancheId,
    tranche: &TrancheRow,
) -> Result<Amount, Stop> {
    let wallet = work.wallet(at);
    if let Some(own) = wallet.window.iter().find(|own| own.id == id) {
        return Ok(own.available);
    }
    if wallet.overflow.is_none() {
        return Ok(Amount::ZERO);
    }
    let shape = tranche.to_open(id);
    let Some(class) = shape.classes().next() else { return Ok(Amount::ZERO) };
    match work.get(&keys::open(wallet.no, class, &shape))? {
        Some(row) => Ok(decode_open(&row)?.available),
        None => Ok(Amount::ZERO),
    }
}

/// What a charge could draw from a wallet now.
pub fn remaining<S: Store + ?Sized>(
    work: &Workspace<'_, S>,
    at: WalletAt,
    charge: Charge<'_>,
) -> Result<Amount, Stop> {
    let wallet = work.wallet(at);
    let now = work.now();
    let paying = wallet.window.iter().filter(|own| own.pays(Some(charge), now));
    let in_window: i128 = paying.map(|own| own.available.0).sum();
    let beyond = match &wallet.overflow {
        None => 0,
        Some(overflow) if overflow.is_plain() => {
            overflow.available.0 - wallet.lapse.map_or(0, |lapse| lapse.amount.0)
        }
        Some(_) => {
            let mut walk = OverflowWalk::new(work, wallet, Some(charge), now)?;
            let mut sum = 0;
            for _ in 0..DRAWS_PER_DEBIT_MAX {
                let Some(tranche) = walk.peek(work, wallet.burn_policy, now)? else { break };
                sum += tranche.available.0;
                walk.pop();
            }
            sum
        }
    };
    Ok(Amount(in_window + beyond))
}

fn bring_into_window<S: Store + ?Sized>(work: &mut Workspace<'_, S>, at: WalletAt, tranche: OpenTranche) {
    let wallet = work.wallet_mut(at);
    let moved_out = match wallet.window.len() >= WINDOW_TRANCHES_MAX {
        true => wallet.window.pop(),
        false => None,
    };
    wallet.insert_into_window(tranche);
    let Some(last) = moved_out else { return };
    let due = DueKey { at: last.expires_at, rank: DueRank::Expiry, tranche: last.id };
    let lapsed = (due.at <= work.now()).then_some(last.available);
    add_to_overflow(work, at, last);
    if let Some(available) = lapsed {
        // Expired and not booked: rows that are due were added up before this one was among them.
        let lapse = &mut work.wallet_mut(at).lapse;
        let through = lapse.map_or(due, |lapse| lapse.through.max(due));
        let amount = Amount(lapse.map_or(0, |lapse| lapse.amount.0) + available.0);
        *lapse = Some(Lapse { through, amount });
    }
}

fn add_to_overflow<S: Store + ?Sized>(work: &mut Workspace<'_, S>, at: WalletAt, tranche: OpenTranche) {
    let wallet = work.wallet_mut(at);
    let no = wallet.no;
    match &mut wallet.overflow {
        None => wallet.overflow = Some(Overflow::of(&tranche)),
        Some(overflow) => overflow.add(&tranche, wallet.burn_policy),
    }
    let mut row = Vec::with_capacity(40);
    tranche.encode(&mut row);
    for class in tranche.classes() {
        work.changes.put(keys::open(no, class, &tranche), row.clone());
    }
    if tranche.expires_at != Time::NEVER {
        let due = DueKey { at: tranche.expires_at, rank: DueRank::Expiry, tranche: tranche.id };
        work.put_due(at, due, tranche.available);
    }
}

fn remove_from_overflow<S: Store + ?Sized>(
    work: &mut Workspace<'_, S>,
    at: WalletAt,
    tranche: &OpenTranche,
) -> Result<(), Stop> {
    drop_rows(work, at, tranche)?;
    if tranche.expires_at != Time::NEVER {
        let due = DueKey { at: tranche.expires_at, rank: DueRank::Expiry, tranche: tranche.id };
        work.delete_due(at, due)?;
    }
    Ok(())
}

fn drop_rows<S: Store + ?Sized>(
    work: &mut Workspace<'_, S>,
    at: WalletAt,
    tranche: &OpenTranche,
) -> Result<(), Stop> {
    let wallet = work.wallet_mut(at);
    let no = wallet.no;
    let overflow = wallet.overflow.as_mut().ok_or(Stop::Fault("an open-tranche row without an overflow"))?;
    overflow.remove(tranche).ok_or(Stop::Fault("an open-tranche row of a class that has none"))?;
    if overflow.tranches == 0 {
        wallet.overflow = None;
    }
    for class in tranche.classes() {
        work.changes.delete(keys::open(no, class, tranche));
    }
    Ok(())
}

fn decode_open(row: &[u8]) -> Result<OpenTranche, LocalDamage> {
    let mut reader = Reader::new(row);
    let tranche = OpenTranche::decode(&mut reader)?;
    reader.finish("open tranche")?;
    Ok(tranche)
}

/// A merge of the classes that fit a charge, in burn order.
struct OverflowWalk {
    classes: Vec<ClassWalk>,
    next: Option<usize>,
}

/// The classes in which a wallet has rows of open tranches.
fn classes_there<S: Store + ?Sized>(work: &Workspace<'_, S>, wallet: &Wallet) -> Result<Vec<Key>, Stop> {
    let all = keys::open_of(wallet.no);
    let (mut from, until) = (all.clone(), keys::end_of(&all));
    let mut classes = Vec::new();
    while let Some((key, _)) = work.scan(&from, &until, 1)?.first() {
        let class = keys::class_of_open(key)?.to_vec();
        from = keys::end_of(&class);
        classes.push(class);
    }
    Ok(classes)
}

struct ClassWalk {
    prefix: Key,
    from: Key,
    fetched: VecDeque<OpenTranche>,
    done: bool,
}

impl OverflowWalk {
    fn new<S: Store + ?Sized>(
        work: &Workspace<'_, S>,
        wallet: &Wallet,
        charge: Option<Charge<'_>>,
        now: Time,
    ) -> Result<OverflowWalk, Stop> {
        let overflow = wallet.overflow.as_ref();
        let plain = overflow.filter(|overflow| overflow.is_plain());
        let prefixes = match (plain, charge) {
            (Some(_), _) => vec![keys::open_class(wallet.no, PLAIN)],
            (None, Some(charge)) => {
                let may_have = |class: &Class<'_>| overflow.is_none_or(|own| own.classes.may_have(*class));
                charge.classes().filter(may_have).map(|class| keys::open_class(wallet.no, class)).collect()
            }
            (None, None) => classes_there(work, wallet)?,
        };
        let class_walk = |prefix: Key| {
            let unexpired = keys::open_from(&prefix, 0, Time(now.0 + 1));
            // Where there is one class only, nothing is before a floor of that class but what a store
            // keeps of rows that are gone.
            let floor = plain.map(|overflow| &overflow.floor).filter(|floor| floor.breadth() == 2);
            let from = match floor {
                Some(floor) => keys::open_in(&prefix, floor).max(unexpired),
                None => unexpired,
            };
            ClassWalk { from, prefix, fetched: VecDeque::new(), done: false }
        };
        Ok(OverflowWalk { classes: prefixes.into_iter().map(class_walk).collect(), next: None })
    }

    /// The next tranche in burn order that may be drawn.
    fn peek<S: Store + ?Sized>(
        &mut self,
        work: &Workspace<'_, S>,
        policy: crate::command::BurnPolicy,
        now: Time,
    ) -> Result<Option<&OpenTranche>, Stop> {
        self.next = None;
        for place in 0..self.classes.len() {
            self.classes[place].fetch(work, now)?;
            let Some(own) = self.classes[place].fetched.front() else { continue };
            let best = self.next.and_then(|best| self.classes[best].fetched.front());
            if best.is_none_or(|best| own.burn_order(best, policy) == Ordering::Less) {
                self.next = Some(place);
            }
        }
        Ok(self.next.and_then(|place| self.classes[place].fetched.front()))
    }

    fn pop(&mut self) -> Option<OpenTranche> {
        self.next.take().and_then(|place| self.classes[place].fetched.pop_front())
    }
}

impl ClassWalk {
    /// Sees to it that the next tranche is at hand, if there is one.
    fn fetch<S: Store + ?Sized>(&mut self, work: &Workspace<'_, S>, now: Time) -> Result<(), Stop> {
        while self.fetched.is_empty() && !self.done {
            let rows = work.scan(&self.from, &keys::end_of(&self.prefix), ROWS_AT_ONCE)?;
            self.done = rows.len() < ROWS_AT_ONCE;
            for (key, row) in rows {
                let tranche = decode_open(&row)?;
                if tranche.expires_at <= now {
                    // A further priority begins with expired ones: past them in one seek.
                    self.from = keys::open_from(&self.prefix, tranche.priority, Time(now.0 + 1));
                    self.done = false;
                    break;
                }
                self.fetched.push_back(tranche);
                self.from = keys::after(key);
            }
        }
        Ok(())
    }
}
