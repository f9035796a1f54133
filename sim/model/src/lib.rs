//! The naive model: the ledger as a reader of the specification would write it in an afternoon.
//!
//! Lists and loops. A model holds a list of wallets, each with a list of tranches and a list of
//! movements, and a list of the verdicts given; everything is found by linear search and sorted
//! when it is needed. It is written from PRODUCT.md and SEMANTICS.md alone, by someone who had not
//! read `apply`: where the two disagree, one of them has misread the specification.
//!
//! It borrows from the crate only the types of commands and the plain value types of answers. What
//! the ledger allocates has plain numbers here: the n-th tranche ever granted is tranche `n`, the
//! n-th operation is operation `n`, and a movement is known by its wallet and its number there. The
//! comparison maps the ledger's ids to these.
//!
//! The core's property tests hold it against the ledger (`ledger/tests/model_agrees.rs`), and the
//! simulation against what a cluster answered.

// The fields bear the names of the ledger's own answers, and mean the same.
#![allow(missing_docs)]

use purser_ledger::amount::{Amount, AmountError, Asset, Decimal};
use purser_ledger::command::{
    BurnPolicy, ChargeScope, ChargeType, Command, CreateWallet, Debit, Expiry, FreezeWallet, Grant, Header,
    Operation, Payer, TrancheKind, TrancheSpec,
};
use purser_ledger::ids::Customer;
use purser_ledger::rows::journal::{MovementKind, MovementStatus};
use purser_ledger::time::Time;
use purser_ledger::verdict::{Balance, Denial, Reason, Shortage, WalletBalance, WalletInfo};

/// Most due items that a command books in one wallet before it is judged.
pub const DUE_BOOKED_MAX: usize = 64;
/// Most draws of one debit.
pub const DRAWS_MAX: usize = 1_000;
/// Most wallets of one customer.
pub const WALLETS_MAX: usize = 1_000;

/// What a command is answered, in the model's numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// A verdict, of now or the stored one.
    Verdict { replayed: bool, verdict: Verdict },
    /// The key stands for another request.
    KeyReused,
    /// The command came at or after its `valid_until`.
    KeyTooOld,
    /// An activation is still due after 64 bookings.
    Backlog,
    /// A sweep was made.
    Swept { booked: u32, more: bool },
}

/// A final answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It took effect, as this operation.
    Applied { operation: usize, effect: Effect },
    /// It did not.
    Denied(Denial),
}

/// The effect of an applied command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// A wallet as it is after.
    Wallet(WalletInfo),
    /// Credits moved.
    Posted { movements: Vec<Posted>, balances: Vec<WalletBalance>, remaining: Option<Amount> },
}

/// A movement as an answer tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Posted {
    /// The place of its wallet among the balances of the answer.
    pub balance: usize,
    /// Its number in its wallet.
    pub number: u64,
    pub kind: MovementKind,
    pub status: MovementStatus,
    pub amount: Amount,
    pub draws: Vec<Draw>,
}

/// What was taken from, or put into, one tranche.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Draw {
    /// Which tranche, counted over the whole model from 0.
    pub tranche: usize,
    pub kind: TrancheKind,
    pub amount: Amount,
    pub left: Amount,
}

/// A movement in a wallet's list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Movement {
    /// Which operation, counted over the whole model from 0.
    pub operation: usize,
    /// From 1, in its wallet.
    pub number: u64,
    pub kind: MovementKind,
    pub status: MovementStatus,
    pub booked_at: Time,
    pub effective_at: Time,
    pub amount: Amount,
    pub settled_after: Amount,
    pub balance_after: Balance,
    pub draws: Vec<Draw>,
    pub details: Details,
}

/// What a movement repeats of the command that made it; all empty for what the shard books itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Details {
    pub charge_type: Option<ChargeType>,
    pub feature: String,
    pub key: String,
    pub actor: String,
    pub reason_code: String,
    pub reference: String,
    pub metadata: Vec<(String, String)>,
}

/// How far a tranche has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Its effective time has not been booked.
    Scheduled,
    /// It may be spent, unless its expiry has passed and is not booked yet.
    Active,
    /// Its expiry is booked.
    Expired,
}

/// What one grant put into a wallet.
#[derive(Clone, Debug)]
pub struct Tranche {
    /// Counted over the whole model from 0, in order of creation.
    pub no: usize,
    pub kind: TrancheKind,
    pub priority: u16,
    pub effective_at: Time,
    pub expires_at: Time,
    pub scope: ChargeScope,
    pub features: Vec<String>,
    pub external_reference: String,
    pub stage: Stage,
    pub amount: i128,
    pub available: i128,
    pub consumed: i128,
    pub expired: i128,
}

/// A wallet of a customer.
#[derive(Clone, Debug)]
pub struct Wallet {
    pub namespace: String,
    pub customer: String,
    pub info: WalletInfo,
    pub tranches: Vec<Tranche>,
    pub movements: Vec<Movement>,
}

/// A verdict under its key.
#[derive(Clone, Debug)]
struct Remembered {
    namespace: String,
    customer: String,
    key: String,
    request: String,
    verdict: Verdict,
    until: Time,
}

/// The whole shard.
#[derive(Clone, Debug, Default)]
pub struct Model {
    now: Time,
    wallets: Vec<Wallet>,
    verdicts: Vec<Remembered>,
    tranches: usize,
    operations: usize,
}

/// Why a command takes no effect.
enum Stop {
    Denied(Denial),
    Backlog,
}

/// Something that is due in a wallet: sorts in due order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Due {
    at: Time,
    what: DueWhat,
    tranche: usize,
}

/// At one instant expiries come before activations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum DueWhat {
    Expiry,
    Activation,
}

// ---- what is asked of the model ---------------------------------------------------------------

impl Model {
    /// Ledger time moves to the stamp, or stays where the stamp is earlier.
    pub fn begin_batch(&mut self, stamp: Time) -> Time {
        self.now = self.now.max(stamp);
        self.now
    }

    /// Judges one command of a caller.
    pub fn command(&mut self, command: &Command<'_>) -> Reply {
        if let Some(reply) = self.recall(command) {
            return reply;
        }
        if self.now >= command.header.valid_until {
            return Reply::KeyTooOld;
        }
        let verdict = match self.judge(command) {
            Ok(effect) => Verdict::Applied { operation: self.next_operation(), effect },
            Err(Stop::Denied(denial)) => Verdict::Denied(denial),
            Err(Stop::Backlog) => return Reply::Backlog,
        };
        self.remember(command, verdict.clone());
        Reply::Verdict { replayed: false, verdict }
    }

    /// A sweep that booked the next due item of each of these wallets, one after the other (a wallet
    /// stands there as often as items were booked in it). Which wallets a sweep visits is the
    /// ledger's affair, since wallets do not see each other; within a wallet the order is fixed.
    pub fn sweep(&mut self, places: &[usize]) -> Reply {
        let mut booked = 0;
        for &place in places {
            let Some(due) = self.wallets[place].due(self.now).first().copied() else { continue };
            self.book(place, due);
            booked += 1;
        }
        Reply::Swept { booked, more: self.wallets.iter().any(|wallet| !wallet.due(self.now).is_empty()) }
    }

    /// All wallets, in order of creation.
    pub fn wallets(&self) -> &[Wallet] {
        &self.wallets
    }

    /// The ledger time that was reached.
    pub fn now(&self) -> Time {
        self.now
    }
}

impl Wallet {
    /// Whose it is.
    pub fn customer(&self) -> Customer<'_> {
        Customer { namespace: &self.namespace, id: &self.customer }
    }

    /// What it holds.
    pub fn asset(&self) -> Asset<'_> {
        Asset { code: &self.info.asset_code, scale: self.info.asset_scale }
    }

    /// The balance at `now`, with everything that is due by then counted as booked.
    pub fn balance_when_all_is_booked(&self, now: Time) -> Balance {
        let mut available = 0;
        let mut pending = 0;
        for tranche in &self.tranches {
            match tranche.stage {
                Stage::Expired => {}
                _ if tranche.expires_at <= now => {}
                Stage::Scheduled if tranche.effective_at > now => pending += tranche.amount,
                Stage::Scheduled => available += tranche.amount,
                Stage::Active => available += tranche.available,
            }
        }
        balance_of(available, pending)
    }

    /// The balance as booked, but for expiries that are past: they count though not booked.
    fn balance(&self, now: Time) -> Balance {
        balance_of(self.sum_available(|tranche| tranche.expires_at > now), self.sum_pending())
    }

    /// The balance as booked.
    fn balance_as_booked(&self) -> Balance {
        balance_of(self.sum_available(|_| true), self.sum_pending())
    }

    fn sum_available(&self, counts: impl Fn(&Tranche) -> bool) -> i128 {
        let active = self.tranches.iter().filter(|tranche| tranche.stage == Stage::Active && counts(tranche));
        active.map(|tranche| tranche.available).sum()
    }

    fn sum_pending(&self) -> i128 {
        let scheduled = self.tranches.iter().filter(|tranche| tranche.stage == Stage::Scheduled);
        scheduled.map(|tranche| tranche.amount).sum()
    }

    /// The sum of its movements: what is settled, as booked.
    pub fn settled(&self) -> i128 {
        self.movements.iter().map(|movement| movement.amount.0).sum()
    }

    fn is_of(&self, customer: Customer<'_>) -> bool {
        self.customer() == customer
    }

    fn after(&self, now: Time) -> WalletBalance {
        WalletBalance {
            wallet: self.info.wallet.clone(),
            asset_code: self.info.asset_code.clone(),
            asset_scale: self.info.asset_scale,
            balance: self.balance(now),
        }
    }
}

fn balance_of(available: i128, pending: i128) -> Balance {
    Balance { available: Amount(available), held: Amount(0), pending: Amount(pending), debt: Amount(0) }
}

// ---- idempotency ------------------------------------------------------------------------------

/// Everything that makes a request the same request: all but key, deadline, retention, actor, and
/// what the leader resolved.
fn request_of(command: &Command<'_>) -> String {
    let mut operation = command.operation.clone();
    if let Operation::Grant(grant) = &mut operation {
        for spec in &mut grant.tranches {
            if let Expiry::After { resolved, .. } = &mut spec.expiry {
                *resolved = Time::ZERO;
            }
        }
    }
    format!("{operation:?}")
}

impl Model {
    fn recall(&self, command: &Command<'_>) -> Option<Reply> {
        let Header { customer, key, .. } = command.header;
        let stored = self.verdicts.iter().find(|stored| {
            stored.namespace == customer.namespace
                && stored.customer == customer.id
                && stored.key == key
                && self.now < stored.until
        })?;
        Some(match stored.request == request_of(command) {
            true => Reply::Verdict { replayed: true, verdict: stored.verdict.clone() },
            false => Reply::KeyReused,
        })
    }

    fn remember(&mut self, command: &Command<'_>, verdict: Verdict) {
        let header = command.header;
        self.verdicts.push(Remembered {
            namespace: header.customer.namespace.to_owned(),
            customer: header.customer.id.to_owned(),
            key: header.key.to_owned(),
            request: request_of(command),
            verdict,
            until: self.now.saturating_add(header.retention).max(header.valid_until),
        });
    }

    fn next_operation(&mut self) -> usize {
        self.operations += 1;
        self.operations - 1
    }
}

// ---- judging ----------------------------------------------------------------------------------

fn denied<T>(reason: Reason) -> Result<T, Stop> {
    Err(Stop::Denied(Denial { reason, shortage: None }))
}

fn amount_at(decimal: Decimal, scale: u8) -> Result<i128, Stop> {
    match decimal.to_amount(scale) {
        Ok(amount) => Ok(amount.0),
        Err(AmountError::TooPrecise) => denied(Reason::InvalidAmountPrecision),
        Err(AmountError::Overflow) => denied(Reason::AmountOverflow),
        Err(AmountError::Malformed) => panic!("a decimal that was read is not malformed"),
    }
}

impl Model {
    fn judge(&mut self, command: &Command<'_>) -> Result<Effect, Stop> {
        match &command.operation {
            Operation::CreateWallet(create) => self.create_wallet(command.header.customer, create),
            Operation::FreezeWallet(freeze) => self.freeze_wallet(command.header.customer, freeze),
            Operation::Grant(grant) => self.grant(&command.header, grant),
            Operation::Debit(debit) => self.debit(&command.header, debit),
        }
    }

    /// The places of a customer's wallets, in order of creation.
    fn wallets_of(&self, customer: Customer<'_>) -> Vec<usize> {
        (0..self.wallets.len()).filter(|&place| self.wallets[place].is_of(customer)).collect()
    }

    /// The place of a wallet, with what is due in it booked.
    fn find(&mut self, customer: Customer<'_>, wallet: &str) -> Result<usize, Stop> {
        let own = self.wallets_of(customer);
        if own.is_empty() {
            return denied(Reason::CustomerNotFound);
        }
        let Some(place) = own.into_iter().find(|&place| self.wallets[place].info.wallet == wallet) else {
            return denied(Reason::WalletNotFound);
        };
        self.book_before_judging(&[place])?;
        Ok(place)
    }

    fn create_wallet(&mut self, customer: Customer<'_>, create: &CreateWallet<'_>) -> Result<Effect, Stop> {
        let own = self.wallets_of(customer);
        if own.iter().any(|&place| self.wallets[place].info.wallet == create.wallet) {
            return denied(Reason::AlreadyExists);
        }
        if own.len() >= WALLETS_MAX {
            return denied(Reason::LimitExceeded);
        }
        let info = WalletInfo {
            wallet: create.wallet.to_owned(),
            asset_code: create.asset.code.to_owned(),
            asset_scale: create.asset.scale,
            draw_priority: create.draw_priority,
            scope: create.scope,
            burn_policy: create.burn_policy,
            frozen: false,
            version: 1,
            created_at: self.now,
        };
        self.wallets.push(Wallet {
            namespace: customer.namespace.to_owned(),
            customer: customer.id.to_owned(),
            info: info.clone(),
            tranches: Vec::new(),
            movements: Vec::new(),
        });
        Ok(Effect::Wallet(info))
    }

    fn freeze_wallet(&mut self, customer: Customer<'_>, freeze: &FreezeWallet<'_>) -> Result<Effect, Stop> {
        let place = self.find(customer, freeze.wallet)?;
        let info = &mut self.wallets[place].info;
        if info.frozen != freeze.frozen {
            info.frozen = freeze.frozen;
            info.version += 1;
        }
        Ok(Effect::Wallet(info.clone()))
    }
}

// ---- granting ---------------------------------------------------------------------------------

impl Model {
    fn grant(&mut self, header: &Header<'_>, grant: &Grant<'_>) -> Result<Effect, Stop> {
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
        let balance = wallet.balance(now);
        let before = balance.available.0.checked_add(balance.pending.0);
        let after = tranches.iter().try_fold(before.unwrap(), |sum, new| sum.checked_add(new.amount));
        if after.is_none() {
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
            let these: Vec<&Tranche> = tranches.iter().filter(|new| new.stage == stage).collect();
            if these.is_empty() {
                continue;
            }
            let draws = these.iter().map(|new| draw_of(new, new.amount)).collect();
            let amount = these.iter().map(|new| new.available).sum();
            let these: Vec<Tranche> = these.into_iter().cloned().collect();
            self.wallets[place].tranches.extend(these);
            movements.push(self.post(
                place,
                MovementKind::Granted,
                status,
                amount,
                draws,
                details.clone(),
                0,
            ));
        }
        self.wallets[place].tranches.sort_by_key(|tranche| tranche.no);
        let balances = vec![self.wallets[place].after(self.now)];
        Effect::Posted { movements, balances, remaining: None }
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

/// A draw of `amount` on a tranche as the tranche is now.
fn draw_of(tranche: &Tranche, amount: i128) -> Draw {
    Draw { tranche: tranche.no, kind: tranche.kind, amount: Amount(amount), left: Amount(tranche.available) }
}

// ---- debiting ---------------------------------------------------------------------------------

/// A tranche that a debit may draw on: the place of its wallet among the payers' wallets, and its
/// place in that wallet.
#[derive(Clone, Copy)]
struct Source {
    wallet: usize,
    tranche: usize,
}

impl Model {
    fn debit(&mut self, header: &Header<'_>, debit: &Debit<'_>) -> Result<Effect, Stop> {
        let payers = match debit.payer {
            Payer::Wallet(wallet) => self.payer_named(header.customer, wallet, debit)?,
            Payer::CustomerIn(asset) => self.payers_in(header.customer, asset, debit)?,
        };
        let scale = self.wallets[payers[0]].info.asset_scale;
        let required = amount_at(debit.amount, scale)?;
        let sources = self.sources(&payers, debit);
        let drawable = self.sum_of(&sources);
        let enough = drawable >= required;
        if drawable == 0 || !(enough || debit.allow_partial || sources.len() > DRAWS_MAX) {
            return self.too_little(&payers, drawable, required, scale);
        }
        let drawn = self.walk(&sources, required);
        let sum: i128 = drawn.iter().map(|(_, amount)| amount).sum();
        if sum < required && !debit.allow_partial {
            return denied(Reason::LimitExceeded);
        }
        let movements = self.take(header, debit, &payers, &drawn);
        let balances = payers.iter().map(|&place| self.wallets[place].after(self.now)).collect();
        let remaining = Some(Amount(self.sum_of(&self.sources(&payers, debit))));
        Ok(Effect::Posted { movements, balances, remaining })
    }

    fn payer_named(
        &mut self,
        customer: Customer<'_>,
        wallet: &str,
        debit: &Debit<'_>,
    ) -> Result<Vec<usize>, Stop> {
        let place = self.find(customer, wallet)?;
        let info = &self.wallets[place].info;
        if info.frozen {
            return denied(Reason::WalletFrozen);
        }
        if !info.scope.fits(debit.charge_type) {
            return denied(Reason::NoEligibleTranche);
        }
        Ok(vec![place])
    }

    fn payers_in(
        &mut self,
        customer: Customer<'_>,
        asset: Asset<'_>,
        debit: &Debit<'_>,
    ) -> Result<Vec<usize>, Stop> {
        let mut own = self.wallets_of(customer);
        if own.is_empty() {
            return denied(Reason::CustomerNotFound);
        }
        own.retain(|&place| self.wallets[place].asset() == asset);
        if own.is_empty() {
            return denied(Reason::WalletNotFound);
        }
        own.retain(|&place| !self.wallets[place].info.frozen);
        if own.is_empty() {
            return denied(Reason::WalletFrozen);
        }
        own.retain(|&place| self.wallets[place].info.scope.fits(debit.charge_type));
        if own.is_empty() {
            return denied(Reason::NoEligibleTranche);
        }
        own.sort_by_key(|&place| (self.wallets[place].info.draw_priority, place));
        self.book_before_judging(&own)?;
        Ok(own)
    }

    /// Every tranche that the debit may draw on, in burn order.
    fn sources(&self, payers: &[usize], debit: &Debit<'_>) -> Vec<Source> {
        let mut sources = Vec::new();
        for &place in payers {
            let wallet = &self.wallets[place];
            let mut own: Vec<usize> = (0..wallet.tranches.len())
                .filter(|&tranche| is_eligible(&wallet.tranches[tranche], debit, self.now))
                .collect();
            own.sort_by_key(|&tranche| burn_key(&wallet.tranches[tranche], wallet.info.burn_policy));
            sources.extend(own.into_iter().map(|tranche| Source { wallet: place, tranche }));
        }
        sources
    }

    fn tranche(&self, source: Source) -> &Tranche {
        &self.wallets[source.wallet].tranches[source.tranche]
    }

    /// What may be spent of these. Over several wallets it may be more than an amount holds; then
    /// the greatest amount stands for it.
    fn sum_of(&self, sources: &[Source]) -> i128 {
        sources.iter().fold(0i128, |sum, &source| sum.saturating_add(self.tranche(source).available))
    }

    /// How much to take from which, at most [`DRAWS_MAX`] of them.
    fn walk(&self, sources: &[Source], required: i128) -> Vec<(Source, i128)> {
        let mut drawn = Vec::new();
        let mut missing = required;
        for &source in sources.iter().take(DRAWS_MAX) {
            if missing == 0 {
                break;
            }
            let amount = missing.min(self.tranche(source).available);
            drawn.push((source, amount));
            missing -= amount;
        }
        drawn
    }

    fn too_little(
        &self,
        payers: &[usize],
        drawable: i128,
        required: i128,
        scale: u8,
    ) -> Result<Effect, Stop> {
        let something = payers.iter().any(|&place| self.wallets[place].balance(self.now).available.0 > 0);
        if drawable == 0 && something {
            return denied(Reason::NoEligibleTranche);
        }
        let shortage = Shortage { available: Amount(drawable), required: Amount(required), scale };
        Err(Stop::Denied(Denial { reason: Reason::InsufficientCredits, shortage: Some(shortage) }))
    }

    /// Takes the draws and writes one movement for each wallet that was drawn on.
    fn take(
        &mut self,
        header: &Header<'_>,
        debit: &Debit<'_>,
        payers: &[usize],
        drawn: &[(Source, i128)],
    ) -> Vec<Posted> {
        let mut movements = Vec::new();
        for (at, &place) in payers.iter().enumerate() {
            let mut draws = Vec::new();
            let mut sum = 0;
            for &(source, amount) in drawn.iter().filter(|(source, _)| source.wallet == place) {
                let tranche = &mut self.wallets[place].tranches[source.tranche];
                tranche.available -= amount;
                tranche.consumed += amount;
                sum += amount;
                draws.push(draw_of(tranche, amount));
            }
            if draws.is_empty() {
                continue;
            }
            let details = details_of(header, debit);
            let (kind, status) = (MovementKind::Consumed, MovementStatus::Posted);
            movements.push(self.post(place, kind, status, -sum, draws, details, at));
        }
        movements
    }
}

fn is_eligible(tranche: &Tranche, debit: &Debit<'_>, now: Time) -> bool {
    let feature_fits = match debit.feature {
        None => tranche.features.is_empty(),
        Some(feature) => tranche.features.is_empty() || tranche.features.iter().any(|own| own == feature),
    };
    tranche.stage == Stage::Active
        && tranche.effective_at <= now
        && now < tranche.expires_at
        && tranche.available > 0
        && tranche.scope.fits(debit.charge_type)
        && feature_fits
}

/// What the tranches of a wallet are sorted by, the lowest first. The order is 2, 3, 4, 5, 6, 7 of
/// PRODUCT.md §2; `SPECIFIC_FIRST` is 2, 5, 3, 4, 6, 7. A `Vec` of numbers compares as it reads.
fn burn_key(tranche: &Tranche, policy: BurnPolicy) -> Vec<u64> {
    let priority = u64::from(tranche.priority);
    let expiry = tranche.expires_at.0;
    let kind = match tranche.kind {
        TrancheKind::Plan => 1,
        TrancheKind::Promotional => 2,
        TrancheKind::Rollover => 3,
        TrancheKind::Correction => 4,
        TrancheKind::Committed => 5,
        TrancheKind::Purchased => 6,
    };
    let narrow = match (tranche.features.is_empty(), tranche.scope) {
        (false, _) => 0,
        (true, ChargeScope::Usage | ChargeScope::Fixed) => 1,
        (true, ChargeScope::Any) => 2,
    };
    let (effective, created) = (tranche.effective_at.0, tranche.no as u64);
    match policy {
        BurnPolicy::Standard => vec![priority, expiry, kind, narrow, effective, created],
        BurnPolicy::SpecificFirst => vec![priority, narrow, expiry, kind, effective, created],
    }
}

fn details_of(header: &Header<'_>, debit: &Debit<'_>) -> Details {
    Details {
        charge_type: debit.charge_type,
        feature: debit.feature.unwrap_or_default().to_owned(),
        key: header.key.to_owned(),
        actor: header.actor.to_owned(),
        reason_code: debit.reason_code.to_owned(),
        reference: debit.reference.to_owned(),
        metadata: debit.metadata.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect(),
    }
}

// ---- what is due ------------------------------------------------------------------------------

impl Wallet {
    /// Everything that is due, in due order.
    fn due(&self, now: Time) -> Vec<Due> {
        let mut due = Vec::new();
        for tranche in &self.tranches {
            let no = tranche.no;
            if tranche.stage == Stage::Scheduled {
                due.push(Due { at: tranche.effective_at, what: DueWhat::Activation, tranche: no });
            }
            let lapses = tranche.stage == Stage::Scheduled || tranche.available > 0;
            if tranche.stage != Stage::Expired && lapses {
                due.push(Due { at: tranche.expires_at, what: DueWhat::Expiry, tranche: no });
            }
        }
        due.retain(|due| due.at <= now);
        due.sort();
        due
    }
}

impl Model {
    /// Books at most 64 items in each wallet; stops the command where an activation is left.
    fn book_before_judging(&mut self, places: &[usize]) -> Result<(), Stop> {
        for &place in places {
            for due in self.wallets[place].due(self.now).into_iter().take(DUE_BOOKED_MAX) {
                self.book(place, due);
            }
        }
        let left = places.iter().flat_map(|&place| self.wallets[place].due(self.now));
        match left.into_iter().any(|due| due.what == DueWhat::Activation) {
            true => Err(Stop::Backlog),
            false => Ok(()),
        }
    }

    fn book(&mut self, place: usize, due: Due) {
        let tranches = &mut self.wallets[place].tranches;
        let tranche = tranches.iter_mut().find(|tranche| tranche.no == due.tranche).unwrap();
        match due.what {
            DueWhat::Expiry => {
                let lost = tranche.available;
                tranche.stage = Stage::Expired;
                tranche.available = 0;
                tranche.expired = lost;
                let draw = draw_of(tranche, lost);
                self.post_due(place, due.at, MovementKind::Expired, -lost, draw);
            }
            DueWhat::Activation => {
                tranche.stage = Stage::Active;
                tranche.available = tranche.amount;
                let (amount, draw) = (tranche.amount, draw_of(tranche, tranche.amount));
                self.post_due(place, due.at, MovementKind::Granted, amount, draw);
            }
        }
    }

    /// Writes the movement of something that was due: an operation of its own, under no key.
    fn post_due(&mut self, place: usize, effective_at: Time, kind: MovementKind, amount: i128, draw: Draw) {
        self.post(place, kind, MovementStatus::Posted, amount, vec![draw], Details::default(), 0);
        self.next_operation();
        let wallet = &mut self.wallets[place];
        let balance_after = wallet.balance_as_booked();
        let movement = wallet.movements.last_mut().unwrap();
        movement.effective_at = effective_at;
        movement.balance_after = balance_after;
    }

    /// Appends a movement of the operation that is under way, effective now.
    #[allow(clippy::too_many_arguments)]
    fn post(
        &mut self,
        place: usize,
        kind: MovementKind,
        status: MovementStatus,
        amount: i128,
        draws: Vec<Draw>,
        details: Details,
        balance: usize,
    ) -> Posted {
        let (now, operation) = (self.now, self.operations);
        let wallet = &mut self.wallets[place];
        let number = wallet.movements.len() as u64 + 1;
        wallet.movements.push(Movement {
            operation,
            number,
            kind,
            status,
            booked_at: now,
            effective_at: now,
            amount: Amount(amount),
            settled_after: Amount(wallet.settled() + amount),
            balance_after: wallet.balance(now),
            draws: draws.clone(),
            details,
        });
        Posted { balance, number, kind, status, amount: Amount(amount), draws }
    }
}
