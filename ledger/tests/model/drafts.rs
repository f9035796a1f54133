//! What the property tests try: sessions of batches, drawn (see [`drawing`](super::drawing)) from small
//! spaces so that commands meet.
//!
//! A draft says times relative to the clock, and holds, tranches and movements as "the last but one", so
//! that a session still means something when a part of it is cut away; [`Session::write`] turns it into
//! commands. Which ids these have only the ledger can say: writing a session runs it, item by item, and
//! [`Happened`] keeps what commands may be about.

use std::fmt;
use std::sync::OnceLock;

use purser_ledger::amount::{Asset, Decimal};
use purser_ledger::command::{
    Adjust, BurnPolicy, Capture, Change, ChargeScope, ChargeType, CloseWallet, Command, ConfirmGrant,
    CreateWallet, Debit, EndGrant, Expiry, ExtendHold, FreezeWallet, Grant, GrantEnd, Header, Hold, Metadata,
    Operation, Payer, Refund, Release, TrancheKind, TrancheSpec, UpdateWallet,
};
use purser_ledger::ids::{Customer, HoldId, RecordId, TrancheId};
use purser_ledger::time::{Span, Time};

use super::core::{Core, entry_of};
use super::happened::{Granted, Happened};

/// Where sessions begin.
pub const BEGIN: u64 = 1_000;

/// Whose wallets: the first two have some from the start, the last never has any.
const CUSTOMERS: [(&str, &str); 4] =
    [("default", "ann"), ("default", "bob"), ("sandbox", "ann"), ("default", "zoe")];
/// The wallets and their assets; the last is never created.
const WALLETS: [(&str, Asset<'static>); 5] =
    [("w0", CREDITS), ("w1", CREDITS), ("w2", CREDITS), ("w3", USD), ("w9", CREDITS)];
pub const CREDITS: Asset<'static> = Asset { code: "credits", scale: 0 };
pub const USD: Asset<'static> = Asset { code: "usd", scale: 2 };
/// An asset that differs from one in use by its scale alone: no wallet holds it.
pub const FINE_CREDITS: Asset<'static> = Asset { code: "credits", scale: 2 };
pub const FEATURES: [&str; 3] = ["chat", "image", "voice"];
pub const REFERENCES: [&str; 5] = ["inv-1", "inv-2", "inv-3", "inv-4", "inv-5"];
/// Keys that collide.
pub const KEYS: [&str; 4] = ["k1", "k2", "k3", "k4"];
/// Keys that do not.
const FRESH_KEYS: usize = 4_000;
/// Ids that no hold has; one of them is likely to be a wallet's or a tranche's.
pub const STRANGE_HOLDS: [HoldId; 3] = [HoldId(0), HoldId(0x5_0007), HoldId(u64::MAX)];
/// Likewise of tranches and of movements, though the second one is there at times.
pub const STRANGE_NUMBERS: [u64; 3] = [0, 0x5_0007, u64::MAX];
/// No drawn lifetime is longer than so many microseconds.
const LIFETIME_MAX: u64 = 64;
/// 38 nines: one fits in an amount at scale 0, two do not, and none fits at scale 2.
const HUGE: i128 = 99_999_999_999_999_999_999_999_999_999_999_999_999;

/// A session: batches in order.
#[derive(Clone)]
pub struct Session(pub Vec<BatchDraft>);

/// Short, since a failure prints the history of commands.
impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let items: usize = self.0.iter().map(|batch| batch.items.len()).sum();
        write!(f, "a session of {} batches with {items} items (see the history)", self.0.len())
    }
}

/// One entry: the leader's clock moves by `step` (backwards too), then the items are judged.
#[derive(Clone, Debug)]
pub struct BatchDraft {
    pub step: i64,
    pub items: Vec<ItemDraft>,
}

#[derive(Clone, Debug)]
pub enum ItemDraft {
    New(CommandDraft),
    /// The command sent so many before, once more; with a new deadline or with its own.
    Again {
        back: usize,
        deadline: Option<i64>,
    },
    Sweep(u32),
}

#[derive(Clone, Debug)]
pub struct CommandDraft {
    pub customer: usize,
    /// One of the keys that collide, or a fresh one.
    pub key: Option<usize>,
    pub deadline: i64,
    pub retention: u64,
    pub operation: OperationDraft,
}

#[derive(Clone, Debug)]
pub enum OperationDraft {
    Create { wallet: usize, draw_priority: u16, scope: ChargeScope, burn_policy: BurnPolicy },
    Freeze { wallet: usize, frozen: bool },
    Grant { wallet: usize, tranches: Vec<TrancheDraft> },
    Debit { charge: ChargeDraft, allow_partial: bool },
    Hold { charge: ChargeDraft, ttl: Option<Span> },
    Extend { hold: HoldPick, ttl: Span },
    Capture { hold: HoldPick, amount: Option<AmountDraft>, keep_open: bool, noted: bool },
    Release { hold: HoldPick, noted: bool },
    Update { wallet: usize, version: VersionDraft, draw_priority: Option<u16>, scope: Option<ChargeScope> },
    Close { wallet: usize },
    Confirm { tranche: TranchePick, expiry: Option<ExpiryDraft>, noted: bool },
    End { tranche: TranchePick, end: GrantEnd, noted: bool },
    Refund { movement: MovementPick, amount: Option<AmountDraft>, grace: Option<Span>, noted: bool },
    Adjust { wallet: usize, change: ChangeDraft, noted: bool },
}

/// Which version of a wallet is changed.
#[derive(Clone, Copy, Debug)]
pub enum VersionDraft {
    Any,
    /// The one that it has.
    Current,
    Number(u64),
}

#[derive(Clone, Debug)]
pub enum ChangeDraft {
    Up {
        amount: AmountDraft,
        expiry: ExpiryDraft,
    },
    Down {
        amount: AmountDraft,
    },
    /// So much more than there is: 0 is all that is there.
    DownOver {
        over: i128,
    },
    DownOf {
        amount: AmountDraft,
        tranche: TranchePick,
    },
}

/// Which tranche: so many before the last one of its sort, and round again where there are not so many.
#[derive(Clone, Copy, Debug)]
pub enum TranchePick {
    /// Asked about by the customer whose it is, in its wallet.
    Own(TrancheSort, usize),
    /// Asked about by the customer that was drawn, in this wallet.
    In(usize, usize),
    /// None at all, in this wallet.
    Strange(usize, usize),
}

#[derive(Clone, Copy, Debug)]
pub enum TrancheSort {
    Any,
    /// Waits for its invoice.
    Waiting,
    /// Failed or was voided.
    Ended,
    /// A hold once pinned it.
    Pinned,
    /// A debit or capture once drew on it.
    Spent,
}

/// Which movement: so many before the last one of its sort, and round again where there are not so many.
#[derive(Clone, Copy, Debug)]
pub enum MovementPick {
    /// A debit's or capture's, asked about by the customer whose it is.
    Spent(usize),
    /// The same, asked about by the customer that was drawn.
    SpentByAny(usize),
    /// One that spends nothing, asked about by the customer whose it is.
    Other(usize),
    /// What is recorded of a command that moved nothing.
    Record(usize),
    /// None at all.
    Strange(usize),
}

/// What a debit and a hold have in common.
#[derive(Clone, Debug)]
pub struct ChargeDraft {
    pub payer: PayerDraft,
    pub amount: AmountDraft,
    pub charge_type: Option<ChargeType>,
    pub feature: Option<usize>,
    pub noted: bool,
}

#[derive(Clone, Debug)]
pub enum PayerDraft {
    Wallet(usize),
    Asset(Asset<'static>),
}

/// Which hold: so many before the last one of the session, and round again where there are not so many.
#[derive(Clone, Copy, Debug)]
pub enum HoldPick {
    /// Asked about by the customer whose it is.
    Own(usize),
    /// Asked about by the customer that was drawn.
    Any(usize),
    /// None at all.
    Strange(usize),
}

#[derive(Clone, Debug)]
pub struct TrancheDraft {
    pub amount: AmountDraft,
    pub pending: bool,
    pub kind: TrancheKind,
    pub priority: u16,
    pub effective: Option<i64>,
    pub expiry: ExpiryDraft,
    pub scope: ChargeScope,
    pub features: Vec<&'static str>,
    pub reference: Option<usize>,
}

#[derive(Clone, Debug)]
pub enum AmountDraft {
    Whole(i128),
    /// So many hundredths.
    Hundredths(i128),
    /// So many thousandths: too precise for every asset here, unless it reduces.
    Thousandths(i128),
    Huge,
}

#[derive(Clone, Debug)]
pub enum ExpiryDraft {
    Never,
    /// So long after the clock.
    At(i64),
    /// A lifetime of so many microseconds, which the span names as days.
    After(u64),
}

// ---- from drafts to commands ------------------------------------------------------------------

/// One item of a batch.
// Nearly all items are commands: a box would spare nothing.
#[allow(clippy::large_enum_variant)]
#[derive(Clone, Debug)]
pub enum Item {
    /// A caller's command.
    Command(Command<'static>),
    /// A sweep.
    Sweep(u32),
}

/// What a session has come to while it is written.
#[derive(Default)]
struct Writing {
    clock: u64,
    /// The time that the ledger has reached.
    reached: u64,
    sent: Vec<Command<'static>>,
    happened: Happened,
    core: Core,
}

impl Session {
    /// The stamps and items that the drafts mean.
    pub fn write(&self) -> Vec<(Time, Vec<Item>)> {
        let mut writing = Writing { clock: BEGIN, ..Writing::default() };
        let mut batches = Vec::new();
        for batch in &self.0 {
            writing.clock = moved(writing.clock, batch.step);
            writing.reached = writing.reached.max(writing.clock);
            let items = batch.items.iter().map(|item| writing.item(item)).collect();
            batches.push((Time(writing.clock), items));
        }
        batches
    }
}

impl Writing {
    fn item(&mut self, draft: &ItemDraft) -> Item {
        let item = self.written(draft);
        // Where the ledger fails, the comparison will too, and say so.
        let applied = self.core.apply(&entry_of(Time(self.clock), std::slice::from_ref(&item)));
        let Item::Command(command) = &item else { return item };
        self.sent.push(command.clone());
        if let Ok((answers, _)) = applied {
            self.happened.learn(command, &answers[0]);
        }
        item
    }

    fn written(&self, draft: &ItemDraft) -> Item {
        match draft {
            ItemDraft::Sweep(limit) => Item::Sweep(*limit),
            ItemDraft::Again { back, .. } if *back >= self.sent.len() => Item::Sweep(1),
            ItemDraft::Again { back, deadline } => {
                let mut command = self.sent[self.sent.len() - 1 - back].clone();
                if let Some(deadline) = deadline {
                    command.header.valid_until = Time(moved(self.clock, *deadline));
                }
                self.resolve(&mut command);
                Item::Command(command)
            }
            ItemDraft::New(draft) => Item::Command(self.command(draft)),
        }
    }

    /// A leader resolves a calendar span by its own clock: what it comes to makes no other request.
    fn resolve(&self, command: &mut Command<'static>) {
        match &mut command.operation {
            Operation::Grant(grant) => {
                for spec in &mut grant.tranches {
                    let from = self.clock.max(spec.effective_at.map_or(0, |time| time.0));
                    spec.expiry = resolved_from(spec.expiry, from);
                }
            }
            Operation::ConfirmGrant(confirm) => {
                let granted = self.happened.granted(confirm.tranche);
                confirm.lifetime = self.lifetime_of(granted);
                confirm.expiry = confirm.expiry.map(|expiry| resolved_from(expiry, self.begin_of(granted)));
            }
            _ => {}
        }
    }

    /// What a lifetime that a tranche was granted with comes to if it is confirmed now.
    fn lifetime_of(&self, granted: Option<&Granted>) -> Option<Time> {
        let lifetime = granted?.lifetime?;
        Some(Time(self.begin_of(granted) + lifetime))
    }

    /// From when on a tranche may be spent if it is confirmed now.
    fn begin_of(&self, granted: Option<&Granted>) -> u64 {
        self.reached.max(granted.map_or(0, |granted| granted.effective_at.0))
    }

    fn command(&self, draft: &CommandDraft) -> Command<'static> {
        let (namespace, id) = CUSTOMERS[draft.customer];
        let sent = self.sent.len();
        let customer = self.owner(&draft.operation).unwrap_or(Customer { namespace, id });
        let operation = self.operation(customer, &draft.operation);
        let header = Header {
            customer,
            key: draft.key.map_or_else(|| fresh_key(sent), |key| KEYS[key]),
            valid_until: Time(moved(self.clock, draft.deadline)),
            retention: Span(draft.retention),
            actor: if sent.is_multiple_of(3) { "" } else { "gateway" },
        };
        let mut command = Command { header, operation };
        self.resolve(&mut command);
        command
    }

    fn operation(&self, customer: Customer<'static>, draft: &OperationDraft) -> Operation<'static> {
        match *draft {
            OperationDraft::Create { wallet, draw_priority, scope, burn_policy } => {
                let (wallet, asset) = WALLETS[wallet];
                Operation::CreateWallet(CreateWallet { wallet, asset, draw_priority, scope, burn_policy })
            }
            OperationDraft::Freeze { wallet, frozen } => {
                Operation::FreezeWallet(FreezeWallet { wallet: WALLETS[wallet].0, frozen, reason_code: "" })
            }
            OperationDraft::Grant { wallet, ref tranches } => Operation::Grant(Grant {
                wallet: WALLETS[wallet].0,
                tranches: tranches.iter().map(|tranche| tranche.write(self.clock)).collect(),
            }),
            OperationDraft::Debit { ref charge, allow_partial } => {
                Operation::Debit(charge.debit(allow_partial))
            }
            OperationDraft::Hold { ref charge, ttl } => Operation::Hold(charge.hold(ttl)),
            OperationDraft::Extend { hold, ttl } => Operation::ExtendHold(ExtendHold {
                hold: self.picked(hold),
                ttl,
                reason_code: if ttl.0 % 2 == 0 { "slow" } else { "" },
            }),
            OperationDraft::Capture { hold, ref amount, keep_open, noted } => {
                let (reason_code, reference, metadata) = notes(noted);
                Operation::Capture(Capture {
                    hold: self.picked(hold),
                    amount: amount.as_ref().map(AmountDraft::write),
                    keep_open,
                    reason_code,
                    reference,
                    metadata,
                })
            }
            OperationDraft::Release { hold, noted } => {
                let (reason_code, reference, metadata) = notes(noted);
                let hold = self.picked(hold);
                Operation::Release(Release { hold, reason_code, reference, metadata })
            }
            OperationDraft::Update { wallet, version, draw_priority, scope } => {
                let wallet = WALLETS[wallet].0;
                let version = match version {
                    VersionDraft::Any => None,
                    VersionDraft::Number(version) => Some(version),
                    VersionDraft::Current => Some(self.version_of(customer, wallet)),
                };
                let reason_code = if draw_priority.is_some() { "reordered" } else { "" };
                Operation::UpdateWallet(UpdateWallet { wallet, version, draw_priority, scope, reason_code })
            }
            OperationDraft::Close { wallet } => {
                Operation::CloseWallet(CloseWallet { wallet: WALLETS[wallet].0, reason_code: "left" })
            }
            OperationDraft::Confirm { tranche, ref expiry, noted } => {
                let (wallet, tranche) = self.tranche(tranche);
                let (reason_code, reference, metadata) = notes(noted);
                let expiry = expiry.as_ref().map(|expiry| expiry.write(self.clock));
                Operation::ConfirmGrant(ConfirmGrant {
                    wallet,
                    tranche,
                    expiry,
                    lifetime: None,
                    reason_code,
                    reference,
                    metadata,
                })
            }
            OperationDraft::End { tranche, end, noted } => {
                let (wallet, tranche) = self.tranche(tranche);
                let (reason_code, reference, metadata) = notes(noted);
                Operation::EndGrant(EndGrant { end, wallet, tranche, reason_code, reference, metadata })
            }
            OperationDraft::Refund { movement, ref amount, grace, noted } => {
                let (reason_code, reference, metadata) = notes(noted);
                let (movement, amount) = (self.movement(movement), amount.as_ref().map(AmountDraft::write));
                Operation::Refund(Refund { movement, amount, grace, reason_code, reference, metadata })
            }
            OperationDraft::Adjust { wallet, ref change, noted } => {
                let (_, reference, metadata) = notes(noted);
                let (wallet, change) = self.change(customer, wallet, change);
                let reason_code = "goodwill";
                Operation::Adjust(Adjust { wallet, change, reason_code, reference, metadata })
            }
        }
    }

    /// A wallet, and by how much it is corrected.
    fn change(
        &self,
        customer: Customer<'static>,
        wallet: usize,
        draft: &ChangeDraft,
    ) -> (&'static str, Change<'static>) {
        let (name, asset) = WALLETS[wallet];
        match draft {
            ChangeDraft::Up { amount, expiry } => {
                (name, Change::Up { amount: amount.write(), expiry: expiry.write(self.clock) })
            }
            ChangeDraft::Down { amount } => (name, Change::Down { amount: amount.write(), tranche: None }),
            ChangeDraft::DownOver { over } => {
                let there = self.core.balance(customer, name, Time(self.reached));
                let there = there.map_or(0, |balance| balance.available.0);
                // Nothing more than nothing would be malformed.
                let amount = Decimal::new(there.saturating_add(*over).max(1), asset.scale);
                (name, Change::Down { amount: amount.expect("drafts are well-formed"), tranche: None })
            }
            ChangeDraft::DownOf { amount, tranche } => {
                let (name, tranche) = self.tranche(*tranche);
                (name, Change::Down { amount: amount.write(), tranche: Some(tranche) })
            }
        }
    }

    fn version_of(&self, customer: Customer<'static>, wallet: &str) -> u64 {
        self.core.wallet(customer, wallet, Time(self.reached)).map_or(1, |view| view.info.version)
    }

    /// A wallet, and the tranche that was picked.
    fn tranche(&self, pick: TranchePick) -> (&'static str, TrancheId) {
        let none = TrancheId(STRANGE_NUMBERS[0]);
        match pick {
            TranchePick::Own(sort, back) => {
                let granted = self.happened.tranche(sort, back);
                granted.map_or((WALLETS[0].0, none), |granted| (granted.wallet, granted.id))
            }
            TranchePick::In(wallet, back) => {
                let granted = self.happened.tranche(TrancheSort::Any, back);
                (WALLETS[wallet].0, granted.map_or(none, |granted| granted.id))
            }
            TranchePick::Strange(wallet, which) => (WALLETS[wallet].0, TrancheId(STRANGE_NUMBERS[which])),
        }
    }

    fn movement(&self, pick: MovementPick) -> RecordId {
        match pick {
            MovementPick::Strange(which) => RecordId(STRANGE_NUMBERS[which]),
            _ => self.happened.movement(pick).map_or(RecordId(STRANGE_NUMBERS[0]), |(_, id)| id),
        }
    }

    fn picked(&self, pick: HoldPick) -> HoldId {
        match pick {
            HoldPick::Own(back) | HoldPick::Any(back) => {
                self.happened.hold(back).map_or(STRANGE_HOLDS[0], |(_, hold)| hold)
            }
            HoldPick::Strange(which) => STRANGE_HOLDS[which],
        }
    }

    /// Whose command it is, for one about something of the customer's own.
    fn owner(&self, draft: &OperationDraft) -> Option<Customer<'static>> {
        match draft {
            OperationDraft::Extend { hold: HoldPick::Own(back), .. }
            | OperationDraft::Capture { hold: HoldPick::Own(back), .. }
            | OperationDraft::Release { hold: HoldPick::Own(back), .. } => {
                self.happened.hold(*back).map(|(customer, _)| customer)
            }
            OperationDraft::Confirm { tranche: TranchePick::Own(sort, back), .. }
            | OperationDraft::End { tranche: TranchePick::Own(sort, back), .. }
            | OperationDraft::Adjust {
                change: ChangeDraft::DownOf { tranche: TranchePick::Own(sort, back), .. },
                ..
            } => self.happened.tranche(*sort, *back).map(|granted| granted.customer),
            OperationDraft::Refund { movement: MovementPick::SpentByAny(_), .. } => None,
            OperationDraft::Refund { movement, .. } => {
                self.happened.movement(*movement).map(|(customer, _)| customer)
            }
            _ => None,
        }
    }
}

/// The same end, with a lifetime counted from this time on.
fn resolved_from(expiry: Expiry<'static>, from: u64) -> Expiry<'static> {
    match (expiry, lifetime_in(expiry)) {
        (Expiry::After { span, zone, .. }, Some(lifetime)) => {
            Expiry::After { span, zone, resolved: Time(from + lifetime) }
        }
        _ => expiry,
    }
}

/// The lifetime that a drawn span names.
pub fn lifetime_in(expiry: Expiry<'_>) -> Option<u64> {
    let Expiry::After { span, .. } = expiry else { return None };
    span.strip_prefix('P')?.strip_suffix('D')?.parse().ok()
}

impl ChargeDraft {
    fn debit(&self, allow_partial: bool) -> Debit<'static> {
        let (reason_code, reference, metadata) = notes(self.noted);
        Debit {
            payer: self.payer.write(),
            amount: self.amount.write(),
            charge_type: self.charge_type,
            feature: self.feature.map(|feature| FEATURES[feature]),
            allow_partial,
            reason_code,
            reference,
            metadata,
        }
    }

    fn hold(&self, ttl: Option<Span>) -> Hold<'static> {
        let (reason_code, reference, metadata) = notes(self.noted);
        Hold {
            payer: self.payer.write(),
            amount: self.amount.write(),
            ttl,
            charge_type: self.charge_type,
            feature: self.feature.map(|feature| FEATURES[feature]),
            reason_code,
            reference,
            metadata,
        }
    }
}

/// Reason code, reference and metadata.
fn notes(noted: bool) -> (&'static str, &'static str, Metadata<'static>) {
    match noted {
        true => ("request", "req-7", vec![("model", "large"), ("region", "eu")]),
        false => ("", "", Vec::new()),
    }
}

impl PayerDraft {
    fn write(&self) -> Payer<'static> {
        match *self {
            PayerDraft::Wallet(wallet) => Payer::Wallet(WALLETS[wallet].0),
            PayerDraft::Asset(asset) => Payer::CustomerIn(asset),
        }
    }
}

impl TrancheDraft {
    fn write(&self, clock: u64) -> TrancheSpec<'static> {
        TrancheSpec {
            amount: self.amount.write(),
            pending: self.pending,
            kind: self.kind,
            priority: self.priority,
            effective_at: self.effective.map(|step| Time(moved(clock, step))),
            expiry: self.expiry.write(clock),
            scope: self.scope,
            features: self.features.clone(),
            label: "",
            reason_code: "",
            external_reference: self.reference.map_or("", |reference| REFERENCES[reference]),
            cost: None,
            metadata: Vec::new(),
        }
    }
}

impl ExpiryDraft {
    /// A lifetime is resolved later, when the command is there (see [`Writing::resolve`]).
    fn write(&self, clock: u64) -> Expiry<'static> {
        match *self {
            ExpiryDraft::Never => Expiry::Never,
            ExpiryDraft::At(step) => Expiry::At(Time(moved(clock, step))),
            ExpiryDraft::After(lifetime) => {
                Expiry::After { span: span_of(lifetime), zone: "Europe/Berlin", resolved: Time::ZERO }
            }
        }
    }
}

impl AmountDraft {
    fn write(&self) -> Decimal {
        let (units, scale) = match *self {
            AmountDraft::Whole(units) => (units, 0),
            AmountDraft::Hundredths(units) => (units, 2),
            AmountDraft::Thousandths(units) => (units, 3),
            AmountDraft::Huge => (HUGE, 0),
        };
        Decimal::new(units, scale).expect("drafts are well-formed")
    }
}

fn moved(clock: u64, step: i64) -> u64 {
    clock.saturating_add_signed(step)
}

fn span_of(lifetime: u64) -> &'static str {
    static SPANS: OnceLock<Vec<String>> = OnceLock::new();
    let spans = SPANS.get_or_init(|| (0..=LIFETIME_MAX).map(|days| format!("P{days}D")).collect());
    &spans[lifetime as usize]
}

fn fresh_key(place: usize) -> &'static str {
    static NAMES: OnceLock<Vec<String>> = OnceLock::new();
    let names = NAMES.get_or_init(|| (0..FRESH_KEYS).map(|number| format!("f{number}")).collect());
    &names[place]
}
