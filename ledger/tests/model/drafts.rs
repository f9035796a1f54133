//! What the property tests try: sessions of batches, drawn from small spaces so that commands meet.
//!
//! A draft says times relative to the clock, so that a session still means something when a part of
//! it is cut away; [`Session::write`] turns it into commands. Two profiles: in a [`small`] session
//! much of everything happens in a few wallets; in a [`crowded`] one two wallets of one customer get
//! 30 to 120 tranches, most of which start or lapse within the same few instants.

use std::fmt;
use std::sync::OnceLock;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use purser_ledger::amount::{Asset, Decimal};
use purser_ledger::command::{
    BurnPolicy, ChargeScope, ChargeType, Command, CreateWallet, Debit, Expiry, FreezeWallet, Grant, Header,
    Operation, Payer, TrancheKind, TrancheSpec,
};
use purser_ledger::ids::Customer;
use purser_ledger::time::{Span, Time};

/// Where sessions begin.
pub const BEGIN: u64 = 1_000;

/// Whose wallets: the first two have some from the start, the last never has any.
const CUSTOMERS: [(&str, &str); 4] =
    [("default", "ann"), ("default", "bob"), ("sandbox", "ann"), ("default", "zoe")];
/// The wallets and their assets; the last is never created.
const WALLETS: [(&str, Asset<'static>); 5] =
    [("w0", CREDITS), ("w1", CREDITS), ("w2", CREDITS), ("w3", USD), ("w9", CREDITS)];
const CREDITS: Asset<'static> = Asset { code: "credits", scale: 0 };
const USD: Asset<'static> = Asset { code: "usd", scale: 2 };
/// An asset that differs from one in use by its scale alone: no wallet holds it.
const FINE_CREDITS: Asset<'static> = Asset { code: "credits", scale: 2 };
const FEATURES: [&str; 3] = ["chat", "image", "voice"];
const REFERENCES: [&str; 5] = ["inv-1", "inv-2", "inv-3", "inv-4", "inv-5"];
/// Keys that collide.
const KEYS: [&str; 4] = ["k1", "k2", "k3", "k4"];
/// Keys that do not.
const FRESH_KEYS: usize = 4_000;
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
    step: i64,
    items: Vec<ItemDraft>,
}

#[derive(Clone, Debug)]
enum ItemDraft {
    New(CommandDraft),
    /// The command sent so many before, once more; with a new deadline or with its own.
    Again {
        back: usize,
        deadline: Option<i64>,
    },
    Sweep(u32),
}

#[derive(Clone, Debug)]
struct CommandDraft {
    customer: usize,
    /// One of the keys that collide, or a fresh one.
    key: Option<usize>,
    deadline: i64,
    retention: u64,
    operation: OperationDraft,
}

#[derive(Clone, Debug)]
enum OperationDraft {
    Create { wallet: usize, draw_priority: u16, scope: ChargeScope, burn_policy: BurnPolicy },
    Freeze { wallet: usize, frozen: bool },
    Grant { wallet: usize, tranches: Vec<TrancheDraft> },
    Debit(DebitDraft),
}

#[derive(Clone, Debug)]
struct DebitDraft {
    payer: PayerDraft,
    amount: AmountDraft,
    charge_type: Option<ChargeType>,
    feature: Option<usize>,
    allow_partial: bool,
    noted: bool,
}

#[derive(Clone, Debug)]
enum PayerDraft {
    Wallet(usize),
    Asset(Asset<'static>),
}

#[derive(Clone, Debug)]
struct TrancheDraft {
    amount: AmountDraft,
    kind: TrancheKind,
    priority: u16,
    effective: Option<i64>,
    expiry: ExpiryDraft,
    scope: ChargeScope,
    features: Vec<&'static str>,
    reference: Option<usize>,
}

#[derive(Clone, Debug)]
enum AmountDraft {
    Whole(i128),
    /// So many hundredths.
    Hundredths(i128),
    /// So many thousandths: too precise for every asset here, unless it reduces.
    Thousandths(i128),
    Huge,
}

#[derive(Clone, Debug)]
enum ExpiryDraft {
    Never,
    At(i64),
    After(i64),
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

impl Session {
    /// The stamps and items that the drafts mean.
    pub fn write(&self) -> Vec<(Time, Vec<Item>)> {
        let mut clock = BEGIN;
        let mut sent: Vec<Command<'static>> = Vec::new();
        let mut batches = Vec::new();
        for batch in &self.0 {
            clock = moved(clock, batch.step);
            let items = batch.items.iter().map(|item| item.write(clock, &mut sent)).collect();
            batches.push((Time(clock), items));
        }
        batches
    }
}

impl ItemDraft {
    fn write(&self, clock: u64, sent: &mut Vec<Command<'static>>) -> Item {
        let command = match self {
            ItemDraft::Sweep(limit) => return Item::Sweep(*limit),
            ItemDraft::Again { back, .. } if *back >= sent.len() => return Item::Sweep(1),
            ItemDraft::Again { back, deadline } => {
                let mut command = sent[sent.len() - 1 - back].clone();
                if let Some(deadline) = deadline {
                    command.header.valid_until = Time(moved(clock, *deadline));
                    resolve_again(&mut command, clock);
                }
                command
            }
            ItemDraft::New(draft) => draft.write(clock, sent.len()),
        };
        sent.push(command.clone());
        Item::Command(command)
    }
}

/// A leader resolves a calendar span by its own clock: what it comes to makes no other request.
fn resolve_again(command: &mut Command<'static>, clock: u64) {
    let Operation::Grant(grant) = &mut command.operation else { return };
    for spec in &mut grant.tranches {
        if let Expiry::After { resolved, .. } = &mut spec.expiry {
            *resolved = Time(clock + 9);
        }
    }
}

impl CommandDraft {
    fn write(&self, clock: u64, sent: usize) -> Command<'static> {
        let (namespace, id) = CUSTOMERS[self.customer];
        let header = Header {
            customer: Customer { namespace, id },
            key: self.key.map_or_else(|| fresh_key(sent), |key| KEYS[key]),
            valid_until: Time(moved(clock, self.deadline)),
            retention: Span(self.retention),
            actor: if sent.is_multiple_of(3) { "" } else { "gateway" },
        };
        Command { header, operation: self.operation.write(clock) }
    }
}

impl OperationDraft {
    fn write(&self, clock: u64) -> Operation<'static> {
        match *self {
            OperationDraft::Create { wallet, draw_priority, scope, burn_policy } => {
                let (wallet, asset) = WALLETS[wallet];
                Operation::CreateWallet(CreateWallet { wallet, asset, draw_priority, scope, burn_policy })
            }
            OperationDraft::Freeze { wallet, frozen } => {
                Operation::FreezeWallet(FreezeWallet { wallet: WALLETS[wallet].0, frozen, reason_code: "" })
            }
            OperationDraft::Grant { wallet, ref tranches } => Operation::Grant(Grant {
                wallet: WALLETS[wallet].0,
                tranches: tranches.iter().map(|tranche| tranche.write(clock)).collect(),
            }),
            OperationDraft::Debit(ref debit) => Operation::Debit(debit.write()),
        }
    }
}

impl DebitDraft {
    fn write(&self) -> Debit<'static> {
        Debit {
            payer: match self.payer {
                PayerDraft::Wallet(wallet) => Payer::Wallet(WALLETS[wallet].0),
                PayerDraft::Asset(asset) => Payer::CustomerIn(asset),
            },
            amount: self.amount.write(),
            charge_type: self.charge_type,
            feature: self.feature.map(|feature| FEATURES[feature]),
            allow_partial: self.allow_partial,
            reason_code: if self.noted { "request" } else { "" },
            reference: if self.noted { "req-7" } else { "" },
            metadata: if self.noted { vec![("model", "large"), ("region", "eu")] } else { Vec::new() },
        }
    }
}

impl TrancheDraft {
    fn write(&self, clock: u64) -> TrancheSpec<'static> {
        TrancheSpec {
            amount: self.amount.write(),
            kind: self.kind,
            priority: self.priority,
            effective_at: self.effective.map(|step| Time(moved(clock, step))),
            expiry: match self.expiry {
                ExpiryDraft::Never => Expiry::Never,
                ExpiryDraft::At(step) => Expiry::At(Time(moved(clock, step))),
                ExpiryDraft::After(step) => {
                    Expiry::After { span: "P1D", zone: "Europe/Berlin", resolved: Time(moved(clock, step)) }
                }
            },
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

fn fresh_key(place: usize) -> &'static str {
    static NAMES: OnceLock<Vec<String>> = OnceLock::new();
    let names = NAMES.get_or_init(|| (0..FRESH_KEYS).map(|number| format!("f{number}")).collect());
    &names[place]
}

// ---- drawing drafts ---------------------------------------------------------------------------

/// What differs between the profiles.
#[derive(Clone, Copy)]
struct Profile {
    customers: &'static [usize],
    wallets: &'static [usize],
    tranches: (usize, usize),
    /// The lifetimes drawn from, besides never.
    lifetimes: &'static [i64],
    /// The delays of scheduled tranches.
    delays: &'static [i64],
    /// How far the clock moves between batches.
    steps: &'static [i64],
    /// The greatest whole amount of a debit.
    debit_max: i128,
    batches: (usize, usize),
    /// How many of a hundred amounts are odd: fractions, or huge.
    odd_amounts: u32,
    /// How many of a thousand tranches bear a reference, and how many expire in the past: each may
    /// refuse the whole grant.
    refusable: u32,
    /// How many of a hundred tranches are scheduled.
    scheduled: u32,
}

const SMALL: Profile = Profile {
    customers: &[0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 2, 3],
    wallets: &[0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 2, 2, 2, 3, 3, 3, 4],
    tranches: (1, 4),
    lifetimes: &[1, 2, 3, 5, 8, 8, 12, 12, 20, 20, 30, 40],
    delays: &[1, 2, 3, 5, 8, 12, 20],
    steps: &[0, 0, 0, 0, 0, 1, 1, 2, 2, 3, 4, 5, 8, 12, 25, -3, -15],
    debit_max: 30,
    batches: (6, 22),
    odd_amounts: 6,
    refusable: 15,
    scheduled: 25,
};

const CROWDED: Profile = Profile {
    customers: &[0],
    wallets: &[0, 0, 0, 1],
    tranches: (6, 40),
    lifetimes: &[6, 6, 9, 9, 9, 10, 15, 30],
    delays: &[4, 4, 4, 5, 7, 9],
    steps: &[0, 0, 0, 0, 0, 1, 1, 2, 3, 10, -2],
    debit_max: 500,
    batches: (5, 16),
    odd_amounts: 0,
    refusable: 1,
    scheduled: 45,
};

/// Much of everything in a few wallets.
pub fn small() -> impl Strategy<Value = Session> {
    session(SMALL)
}

/// Wallets with 30 to 120 tranches, of which more than 64 are due at once now and then.
pub fn crowded() -> impl Strategy<Value = Session> {
    session(CROWDED)
}

fn session(profile: Profile) -> impl Strategy<Value = Session> {
    let (fewest, most) = profile.batches;
    (opening(), vec(batch(profile), fewest..=most)).prop_map(|(opening, batches)| {
        let mut all = vec![opening];
        all.extend(batches);
        Session(all)
    })
}

/// A first batch that creates most wallets of the first two customers.
fn opening() -> impl Strategy<Value = BatchDraft> {
    let wallets: Vec<_> =
        [0, 1].into_iter().flat_map(|customer| (0..4).map(move |wallet| (customer, wallet))).collect();
    let each: Vec<_> = wallets
        .into_iter()
        .map(|(customer, wallet)| {
            create(wallet).prop_map(move |operation| {
                ItemDraft::New(CommandDraft { customer, key: None, deadline: 10, retention: 20, operation })
            })
        })
        .collect();
    each.prop_map(|items| BatchDraft { step: 0, items })
}

fn create(wallet: usize) -> impl Strategy<Value = OperationDraft> {
    let policy = prop_oneof![3 => Just(BurnPolicy::Standard), 2 => Just(BurnPolicy::SpecificFirst)];
    (select(&[100u16, 100, 100, 50, 200][..]), scope(6), policy).prop_map(
        move |(draw_priority, scope, burn_policy)| OperationDraft::Create {
            wallet,
            draw_priority,
            scope,
            burn_policy,
        },
    )
}

fn batch(profile: Profile) -> impl Strategy<Value = BatchDraft> {
    (select(profile.steps), vec(item(profile), 1..=6)).prop_map(|(step, items)| BatchDraft { step, items })
}

fn item(profile: Profile) -> impl Strategy<Value = ItemDraft> {
    let again = (0usize..6, proptest::option::of(1i64..30))
        .prop_map(|(back, deadline)| ItemDraft::Again { back, deadline });
    prop_oneof![
        80 => command(profile).prop_map(ItemDraft::New),
        15 => again,
        5 => prop_oneof![0u32..12, Just(100)].prop_map(ItemDraft::Sweep),
    ]
}

fn command(profile: Profile) -> impl Strategy<Value = CommandDraft> {
    let key = prop_oneof![7 => Just(None), 3 => (0..KEYS.len()).prop_map(Some)];
    let deadline = prop_oneof![30 => 1i64..16, 3 => 40i64..60, 1 => -2i64..1];
    let retention = select(&[0u64, 3, 20, 20, 20, 20, 50][..]);
    (select(profile.customers), key, deadline, retention, operation(profile)).prop_map(
        |(customer, key, deadline, retention, operation)| CommandDraft {
            customer,
            key,
            deadline,
            retention,
            operation,
        },
    )
}

fn operation(profile: Profile) -> impl Strategy<Value = OperationDraft> {
    let (fewest, most) = profile.tranches;
    let wallet = || select(profile.wallets);
    prop_oneof![
        1 => (0..4usize).prop_flat_map(create),
        2 => (wallet(), prop_oneof![1 => Just(true), 2 => Just(false)])
            .prop_map(|(wallet, frozen)| OperationDraft::Freeze { wallet, frozen }),
        15 => (wallet(), vec(tranche(profile), fewest..=most))
            .prop_map(|(wallet, tranches)| OperationDraft::Grant { wallet, tranches }),
        25 => debit(profile).prop_map(OperationDraft::Debit),
    ]
}

fn debit(profile: Profile) -> impl Strategy<Value = DebitDraft> {
    let payer = prop_oneof![
        10 => select(profile.wallets).prop_map(PayerDraft::Wallet),
        15 => Just(PayerDraft::Asset(CREDITS)),
        2 => Just(PayerDraft::Asset(USD)),
        1 => Just(PayerDraft::Asset(FINE_CREDITS)),
    ];
    let charge_type =
        prop_oneof![3 => Just(None), 3 => Just(Some(ChargeType::Usage)), 2 => Just(Some(ChargeType::Fixed))];
    let feature = proptest::option::of(0..FEATURES.len());
    let amount = amount(profile.debit_max, profile.odd_amounts);
    (payer, amount, charge_type, feature, any::<bool>(), any::<bool>()).prop_map(
        |(payer, amount, charge_type, feature, allow_partial, noted)| DebitDraft {
            payer,
            amount,
            charge_type,
            feature,
            allow_partial,
            noted,
        },
    )
}

fn tranche(profile: Profile) -> impl Strategy<Value = TrancheDraft> {
    let effective = prop_oneof![
        90 - profile.scheduled => Just(None),
        profile.scheduled => select(profile.delays).prop_map(Some),
        10 => (-20i64..1).prop_map(Some),
    ];
    let expiry = prop_oneof![
        300 => Just(ExpiryDraft::Never),
        640 => select(profile.lifetimes).prop_map(ExpiryDraft::At),
        60 => select(profile.lifetimes).prop_map(ExpiryDraft::After),
        profile.refusable => (-3i64..1).prop_map(ExpiryDraft::At),
    ];
    let features = prop_oneof![
        3 => Just(Vec::new()),
        1 => subsequence(FEATURES.to_vec(), 1..=2),
    ];
    let reference = prop_oneof![
        1_000 - profile.refusable => Just(None),
        profile.refusable => (0..REFERENCES.len()).prop_map(Some),
    ];
    let attributes = (select(TrancheKind::ALL), select(&[100u16, 100, 100, 10, 500][..]), scope(5));
    (amount(12, profile.odd_amounts), attributes, effective, expiry, features, reference).prop_map(
        |(amount, (kind, priority, scope), effective, expiry, features, reference)| TrancheDraft {
            amount,
            kind,
            priority,
            effective,
            expiry: expiry.not_before(effective),
            scope,
            features,
            reference,
        },
    )
}

impl ExpiryDraft {
    /// Counts the lifetime of a scheduled tranche from its activation, so that few are refused.
    fn not_before(self, effective: Option<i64>) -> ExpiryDraft {
        let delay = effective.unwrap_or(0).max(0);
        match self {
            ExpiryDraft::Never => ExpiryDraft::Never,
            ExpiryDraft::At(step) => ExpiryDraft::At(step + delay),
            ExpiryDraft::After(step) => ExpiryDraft::After(step + delay),
        }
    }
}

fn amount(whole_max: i128, odd: u32) -> impl Strategy<Value = AmountDraft> {
    let strange = prop_oneof![
        6 => (1..=whole_max * 100).prop_map(AmountDraft::Hundredths),
        2 => (1..=whole_max * 1_000).prop_map(AmountDraft::Thousandths),
        3 => Just(AmountDraft::Huge),
    ];
    prop_oneof![
        100 - odd => (1..=whole_max).prop_map(AmountDraft::Whole),
        odd => strange,
    ]
}

fn scope(any: u32) -> impl Strategy<Value = ChargeScope> {
    prop_oneof![
        any => Just(ChargeScope::Any),
        1 => Just(ChargeScope::Usage),
        1 => Just(ChargeScope::Fixed),
    ]
}

// ---- showing commands -------------------------------------------------------------------------

/// A command on one line.
pub fn show(item: &Item) -> String {
    let command = match item {
        Item::Sweep(limit) => return format!("sweep {limit}"),
        Item::Command(command) => command,
    };
    let Header { customer, key, valid_until, retention, .. } = command.header;
    let operation = match &command.operation {
        Operation::CreateWallet(create) => format!(
            "create {} {} draw {} {:?} {:?}",
            create.wallet, create.asset, create.draw_priority, create.scope, create.burn_policy
        ),
        Operation::FreezeWallet(freeze) => format!("freeze {} {}", freeze.wallet, freeze.frozen),
        Operation::Grant(grant) => {
            let tranches: Vec<String> = grant.tranches.iter().map(show_spec).collect();
            format!("grant {} [{}]", grant.wallet, tranches.join(" | "))
        }
        Operation::Debit(debit) => show_debit(debit),
    };
    format!("{}/{} {key} <{} +{}: {operation}", customer.namespace, customer.id, valid_until.0, retention.0)
}

fn show_debit(debit: &Debit<'_>) -> String {
    let mut text = match debit.payer {
        Payer::Wallet(wallet) => format!("debit {wallet} {}", debit.amount),
        Payer::CustomerIn(asset) => format!("debit in {asset} {}", debit.amount),
    };
    if let Some(charge_type) = debit.charge_type {
        text += &format!(" {charge_type:?}");
    }
    if let Some(feature) = debit.feature {
        text += &format!(" {feature}");
    }
    text + if debit.allow_partial { " partial" } else { "" }
}

fn show_spec(spec: &TrancheSpec<'_>) -> String {
    let mut text = format!("{} {:?}", spec.amount, spec.kind);
    if spec.priority != 100 {
        text += &format!(" p{}", spec.priority);
    }
    if let Some(time) = spec.effective_at {
        text += &format!(" from {}", time.0);
    }
    if spec.expiry != Expiry::Never {
        text += &format!(" to {}", spec.expiry.at().0);
    }
    if spec.scope != ChargeScope::Any {
        text += &format!(" {:?}", spec.scope);
    }
    if !spec.features.is_empty() {
        text += &format!(" {}", spec.features.join("+"));
    }
    if !spec.external_reference.is_empty() {
        text += &format!(" ref {}", spec.external_reference);
    }
    text
}
