//! Drawing sessions. Four profiles: in a [`small`] session much of everything happens in a few
//! wallets; in a [`corrected`] one grants are short-lived, and what was spent is given back; in a [`crowded`] one two wallets of one customer get 30 to 120 tranches, most of which start
//! or lapse within the same few instants; in a [`held`] one they get as many holds, most of which time
//! out within the same few instants.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use purser_ledger::command::{
    BurnPolicy, ChargeScope, ChargeType, GrantEnd, HOLD_TTL_MAX, REFUND_GRACE_MAX, TrancheKind,
};
use purser_ledger::time::Span;

use super::drafts::{
    AmountDraft, BatchDraft, CREDITS, ChangeDraft, ChargeDraft, CommandDraft, ExpiryDraft, FEATURES,
    FINE_CREDITS, HoldPick, ItemDraft, KEYS, MovementPick, OperationDraft, PayerDraft, REFERENCES,
    STRANGE_HOLDS, STRANGE_NUMBERS, Session, TrancheDraft, TranchePick, TrancheSort, USD, VersionDraft,
};

/// What differs between the profiles.
#[derive(Clone, Copy)]
struct Profile {
    customers: &'static [usize],
    wallets: &'static [usize],
    tranches: (usize, usize),
    /// The greatest whole amount of a tranche.
    tranche_max: i128,
    /// The lifetimes drawn from, besides never.
    lifetimes: &'static [i64],
    /// The delays of scheduled tranches.
    delays: &'static [i64],
    /// How far the clock moves between batches.
    steps: &'static [i64],
    /// The greatest whole amount of a debit or a capture.
    debit_max: i128,
    /// The greatest whole amount of a hold.
    hold_max: i128,
    /// How long most holds live.
    ttls: &'static [u64],
    /// How far back most holds that a command is about lie.
    holds_back: usize,
    /// How far back most tranches and movements that a command is about lie.
    others_back: usize,
    batches: (usize, usize),
    items_max: usize,
    /// How many of a hundred keys collide.
    shared_keys: u32,
    /// How many of a hundred amounts are odd: fractions, or huge.
    odd_amounts: u32,
    /// How many of a thousand tranches bear a reference, and how many expire in the past: each may
    /// refuse the whole grant.
    refusable: u32,
    /// How many of a hundred tranches are scheduled.
    scheduled: u32,
    /// How many of a hundred tranches wait for their invoice.
    pending: u32,
    weights: Weights,
}

/// How often each operation is drawn, where creating a wallet is 1; and a sweep, where commands are 80.
#[derive(Clone, Copy)]
struct Weights {
    sweep: u32,
    freeze: u32,
    grant: u32,
    debit: u32,
    hold: u32,
    extend: u32,
    capture: u32,
    release: u32,
    update: u32,
    close: u32,
    confirm: u32,
    end: u32,
    refund: u32,
    adjust: u32,
}

const SMALL: Profile = Profile {
    customers: &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 2, 3],
    wallets: &[0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 2, 2, 2, 3, 3, 3, 4],
    tranches: (1, 4),
    tranche_max: 12,
    lifetimes: &[1, 2, 3, 5, 8, 8, 12, 12, 20, 20, 30, 40],
    delays: &[1, 2, 3, 5, 8, 12, 20],
    steps: &[0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 4, 5, 8, 8, 12, 25, -2, -8],
    debit_max: 20,
    hold_max: 18,
    ttls: &[1, 2, 3, 5, 8, 12, 12, 20, 20, 30],
    holds_back: 3,
    others_back: 3,
    batches: (6, 22),
    items_max: 8,
    shared_keys: 30,
    odd_amounts: 8,
    refusable: 15,
    scheduled: 25,
    pending: 12,
    weights: Weights {
        sweep: 5,
        freeze: 9,
        grant: 16,
        debit: 10,
        hold: 18,
        extend: 5,
        capture: 20,
        release: 4,
        update: 3,
        close: 4,
        confirm: 8,
        end: 8,
        refund: 20,
        adjust: 8,
    },
};

const CROWDED: Profile = Profile {
    customers: &[0],
    wallets: &[0, 0, 0, 1],
    tranches: (6, 40),
    tranche_max: 12,
    lifetimes: &[6, 6, 9, 9, 9, 10, 15, 30],
    delays: &[4, 4, 4, 5, 7, 9],
    steps: &[0, 0, 0, 0, 0, 1, 1, 2, 3, 10, -2],
    debit_max: 500,
    hold_max: 120,
    ttls: &[4, 6, 9, 9, 10, 15, 30],
    holds_back: 3,
    others_back: 4,
    batches: (5, 16),
    items_max: 6,
    shared_keys: 30,
    odd_amounts: 0,
    refusable: 1,
    scheduled: 45,
    pending: 8,
    weights: Weights {
        sweep: 5,
        freeze: 2,
        grant: 15,
        debit: 20,
        hold: 16,
        extend: 3,
        capture: 14,
        release: 3,
        update: 2,
        close: 1,
        confirm: 4,
        end: 3,
        refund: 14,
        adjust: 4,
    },
};

const HELD: Profile = Profile {
    customers: &[0],
    wallets: &[0, 0, 0, 0, 0, 0, 0, 0, 1],
    tranches: (1, 6),
    tranche_max: 1_000,
    lifetimes: &[12, 12, 20, 25, 40],
    delays: &[1, 3],
    steps: &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 12, 12, 13, -2],
    debit_max: 20,
    hold_max: 8,
    ttls: &[12, 12, 12, 12, 12, 12, 12, 12, 12, 12, 13, 25],
    holds_back: 60,
    others_back: 20,
    batches: (5, 9),
    items_max: 120,
    shared_keys: 5,
    odd_amounts: 0,
    refusable: 1,
    scheduled: 3,
    pending: 2,
    weights: Weights {
        sweep: 1,
        freeze: 3,
        grant: 25,
        debit: 5,
        hold: 300,
        extend: 12,
        capture: 36,
        release: 9,
        update: 1,
        close: 1,
        confirm: 1,
        end: 7,
        refund: 10,
        adjust: 2,
    },
};

const CORRECTED: Profile = Profile {
    customers: &[0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 2],
    wallets: &[0, 0, 0, 0, 1, 1, 1, 2, 2, 3, 3, 4],
    tranches: (1, 3),
    tranche_max: 8,
    lifetimes: &[1, 2, 2, 3, 3, 5, 8],
    delays: &[1, 2, 3, 5],
    steps: &[0, 0, 0, 0, 1, 1, 1, 2, 2, 3, 5, -2],
    debit_max: 12,
    hold_max: 8,
    ttls: &[1, 1, 2, 2, 3, 5, 8],
    holds_back: 3,
    others_back: 4,
    batches: (8, 24),
    items_max: 6,
    shared_keys: 15,
    odd_amounts: 6,
    refusable: 10,
    scheduled: 12,
    pending: 15,
    weights: Weights {
        sweep: 3,
        freeze: 8,
        grant: 14,
        debit: 24,
        hold: 16,
        extend: 2,
        capture: 16,
        release: 4,
        update: 7,
        close: 14,
        confirm: 9,
        end: 9,
        refund: 55,
        adjust: 12,
    },
};

/// Much of everything in a few wallets.
pub fn small() -> impl Strategy<Value = Session> {
    session(SMALL)
}

/// Wallets with 30 to 120 tranches, of which more than 64 are due at once now and then.
pub fn crowded() -> impl Strategy<Value = Session> {
    session(CROWDED)
}

/// Wallets with dozens of holds, of which more than 64 time out at once now and then.
pub fn held() -> impl Strategy<Value = Session> {
    session(HELD)
}

/// Wallets whose tranches end soon, and what was spent is given back.
pub fn corrected() -> impl Strategy<Value = Session> {
    session(CORRECTED)
}

/// Any of these.
pub fn any_profile() -> impl Strategy<Value = Session> {
    prop_oneof![3 => small(), 3 => corrected(), 2 => crowded(), 1 => held()]
}

fn session(profile: Profile) -> impl Strategy<Value = Session> {
    let (fewest, most) = profile.batches;
    (opening(profile), vec(batch(profile), fewest..=most)).prop_map(|(opening, batches)| {
        let mut all = vec![opening];
        all.extend(batches);
        Session(all)
    })
}

/// A first batch that creates most wallets of the first two customers and puts something into most of them.
fn opening(profile: Profile) -> impl Strategy<Value = BatchDraft> {
    let wallets: Vec<_> =
        [0, 1].into_iter().flat_map(|customer| (0..4).map(move |wallet| (customer, wallet))).collect();
    let each: Vec<_> = wallets
        .into_iter()
        .map(|(customer, wallet)| {
            let tranches = vec(tranche(profile), 2..=4);
            let grant = tranches.prop_map(move |tranches| OperationDraft::Grant { wallet, tranches });
            // The last two stay empty at times, so that they may be closed.
            let filled = if wallet < 2 { select(&[true][..]) } else { select(&[true, true, false][..]) };
            (create(wallet), filled, grant).prop_map(move |(create, filled, grant)| {
                let operations = [create].into_iter().chain(filled.then_some(grant));
                let items = operations.map(|operation| {
                    let (key, deadline, retention) = (None, 10, 20);
                    ItemDraft::New(CommandDraft { customer, key, deadline, retention, operation })
                });
                items.collect::<Vec<_>>()
            })
        })
        .collect();
    each.prop_map(|items| BatchDraft { step: 0, items: items.into_iter().flatten().collect() })
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
    (select(profile.steps), vec(item(profile), 1..=profile.items_max))
        .prop_map(|(step, items)| BatchDraft { step, items })
}

fn item(profile: Profile) -> impl Strategy<Value = ItemDraft> {
    let again = (0usize..6, proptest::option::of(1i64..30))
        .prop_map(|(back, deadline)| ItemDraft::Again { back, deadline });
    prop_oneof![
        80 => command(profile).prop_map(ItemDraft::New),
        15 => again,
        profile.weights.sweep => prop_oneof![0u32..12, Just(100)].prop_map(ItemDraft::Sweep),
    ]
}

fn command(profile: Profile) -> impl Strategy<Value = CommandDraft> {
    let key = prop_oneof![
        100 - profile.shared_keys => Just(None),
        profile.shared_keys => (0..KEYS.len()).prop_map(Some),
    ];
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
    let weights = profile.weights;
    prop_oneof![
        1 => (0..4usize).prop_flat_map(create),
        weights.freeze => (select(&[0usize, 1, 2, 3, 3, 3, 4][..]), any::<bool>())
            .prop_map(|(wallet, frozen)| OperationDraft::Freeze { wallet, frozen }),
        weights.grant => (wallet(), vec(tranche(profile), fewest..=most))
            .prop_map(|(wallet, tranches)| OperationDraft::Grant { wallet, tranches }),
        weights.debit => (charge(profile, profile.debit_max), any::<bool>())
            .prop_map(|(charge, allow_partial)| OperationDraft::Debit { charge, allow_partial }),
        weights.hold => (charge(profile, profile.hold_max), ttl(profile))
            .prop_map(|(charge, ttl)| OperationDraft::Hold { charge, ttl }),
        weights.extend => (hold(profile), ttl(profile)).prop_map(|(hold, ttl)| {
            OperationDraft::Extend { hold, ttl: ttl.unwrap_or(HOLD_TTL_MAX) }
        }),
        weights.capture => capture(profile),
        weights.release => (hold(profile), any::<bool>())
            .prop_map(|(hold, noted)| OperationDraft::Release { hold, noted }),
        weights.update => update(profile),
        weights.close => (0..5usize).prop_map(|wallet| OperationDraft::Close { wallet }),
        weights.confirm => confirm(profile),
        weights.end => end(profile),
        weights.refund => refund(profile),
        weights.adjust => adjust(profile),
    ]
}

fn update(profile: Profile) -> impl Strategy<Value = OperationDraft> {
    let version = prop_oneof![
        4 => Just(VersionDraft::Any),
        3 => Just(VersionDraft::Current),
        2 => (1u64..5).prop_map(VersionDraft::Number),
    ];
    let draw_priority = proptest::option::of(select(&[100u16, 50, 200][..]));
    (select(profile.wallets), version, draw_priority, proptest::option::of(scope(3))).prop_map(
        |(wallet, version, draw_priority, scope)| OperationDraft::Update {
            wallet,
            version,
            draw_priority,
            scope,
        },
    )
}

fn confirm(profile: Profile) -> impl Strategy<Value = OperationDraft> {
    let expiry = prop_oneof![
        6 => Just(None),
        1 => Just(Some(ExpiryDraft::Never)),
        4 => select(profile.lifetimes).prop_map(|step| Some(ExpiryDraft::At(step))),
        2 => select(profile.lifetimes).prop_map(|lifetime| Some(ExpiryDraft::After(lifetime as u64))),
        1 => (-3i64..1).prop_map(|step| Some(ExpiryDraft::At(step))),
    ];
    (tranche_pick(profile, &[(12, TrancheSort::Waiting), (1, TrancheSort::Any)]), expiry, any::<bool>())
        .prop_map(|(tranche, expiry, noted)| OperationDraft::Confirm { tranche, expiry, noted })
}

fn end(profile: Profile) -> impl Strategy<Value = OperationDraft> {
    let failed =
        tranche_pick(profile, &[(6, TrancheSort::Waiting), (3, TrancheSort::Any), (1, TrancheSort::Ended)]);
    let voided = tranche_pick(
        profile,
        &[
            (1, TrancheSort::Waiting),
            (4, TrancheSort::Any),
            (1, TrancheSort::Ended),
            (5, TrancheSort::Pinned),
            (5, TrancheSort::Spent),
        ],
    );
    prop_oneof![
        1 => (failed, any::<bool>()).prop_map(|(tranche, noted)| {
            OperationDraft::End { tranche, end: GrantEnd::Failed, noted }
        }),
        4 => (voided, any::<bool>()).prop_map(|(tranche, noted)| {
            OperationDraft::End { tranche, end: GrantEnd::Voided, noted }
        }),
    ]
}

/// Mostly a tranche of one of these sorts, as often as they say.
fn tranche_pick(
    profile: Profile,
    sorts: &[(u32, TrancheSort)],
) -> impl Strategy<Value = TranchePick> + use<> {
    let own: Vec<TrancheSort> = sorts.iter().flat_map(|(often, sort)| (0..*often).map(|_| *sort)).collect();
    prop_oneof![
        30 => (select(own), 0..=profile.others_back).prop_map(|(sort, back)| TranchePick::Own(sort, back)),
        4 => (select(profile.wallets), 0..=profile.others_back)
            .prop_map(|(wallet, back)| TranchePick::In(wallet, back)),
        1 => (select(profile.wallets), 0..STRANGE_NUMBERS.len())
            .prop_map(|(wallet, which)| TranchePick::Strange(wallet, which)),
    ]
}

fn refund(profile: Profile) -> impl Strategy<Value = OperationDraft> {
    let back = || 0..=profile.others_back;
    let movement = prop_oneof![
        40 => back().prop_map(MovementPick::Spent),
        4 => back().prop_map(MovementPick::SpentByAny),
        2 => back().prop_map(MovementPick::Other),
        1 => back().prop_map(MovementPick::Record),
        1 => (0..STRANGE_NUMBERS.len()).prop_map(MovementPick::Strange),
    ];
    let amount = prop_oneof![
        5 => Just(None),
        8 => amount(profile.debit_max / 4, profile.odd_amounts).prop_map(Some),
        3 => amount(profile.debit_max, profile.odd_amounts).prop_map(Some),
    ];
    let grace = prop_oneof![
        4 => Just(None),
        8 => select(profile.ttls).prop_map(|grace| Some(Span(grace))),
        1 => Just(Some(REFUND_GRACE_MAX)),
    ];
    (movement, amount, grace, any::<bool>()).prop_map(|(movement, amount, grace, noted)| {
        OperationDraft::Refund { movement, amount, grace, noted }
    })
}

fn adjust(profile: Profile) -> impl Strategy<Value = OperationDraft> {
    let expiry = prop_oneof![
        3 => Just(ExpiryDraft::Never),
        4 => select(profile.lifetimes).prop_map(ExpiryDraft::At),
        1 => (-3i64..1).prop_map(ExpiryDraft::At),
    ];
    let whole_max = profile.tranche_max;
    let odd = profile.odd_amounts;
    let tranche = tranche_pick(profile, &[(1, TrancheSort::Any), (1, TrancheSort::Pinned)]);
    let change = prop_oneof![
        3 => (amount(whole_max, odd), expiry).prop_map(|(amount, expiry)| ChangeDraft::Up { amount, expiry }),
        3 => amount(profile.debit_max, odd).prop_map(|amount| ChangeDraft::Down { amount }),
        2 => (0i128..2).prop_map(|over| ChangeDraft::DownOver { over }),
        3 => (amount(whole_max, odd), tranche)
            .prop_map(|(amount, tranche)| ChangeDraft::DownOf { amount, tranche }),
    ];
    (select(profile.wallets), change, any::<bool>())
        .prop_map(|(wallet, change, noted)| OperationDraft::Adjust { wallet, change, noted })
}

fn charge(profile: Profile, whole_max: i128) -> impl Strategy<Value = ChargeDraft> {
    let payer = prop_oneof![
        10 => select(profile.wallets).prop_map(PayerDraft::Wallet),
        15 => Just(PayerDraft::Asset(CREDITS)),
        8 => Just(PayerDraft::Asset(USD)),
        1 => Just(PayerDraft::Asset(FINE_CREDITS)),
    ];
    let charge_type =
        prop_oneof![3 => Just(None), 3 => Just(Some(ChargeType::Usage)), 2 => Just(Some(ChargeType::Fixed))];
    let feature = proptest::option::of(0..FEATURES.len());
    let amount = amount(whole_max, profile.odd_amounts);
    (payer, amount, charge_type, feature, any::<bool>()).prop_map(
        |(payer, amount, charge_type, feature, noted)| ChargeDraft {
            payer,
            amount,
            charge_type,
            feature,
            noted,
        },
    )
}

/// Mostly within the session's reach; or by default, up to the limit, and beyond it.
fn ttl(profile: Profile) -> impl Strategy<Value = Option<Span>> {
    prop_oneof![
        40 => select(profile.ttls).prop_map(|ttl| Some(Span(ttl))),
        4 => Just(None),
        2 => Just(Some(HOLD_TTL_MAX)),
        1 => Just(Some(Span(HOLD_TTL_MAX.0 + 5))),
        1 => Just(Some(Span(u64::MAX))),
    ]
}

fn hold(profile: Profile) -> impl Strategy<Value = HoldPick> {
    prop_oneof![
        40 => (0..=profile.holds_back).prop_map(HoldPick::Own),
        6 => (0..=profile.holds_back).prop_map(HoldPick::Any),
        1 => (0..STRANGE_HOLDS.len()).prop_map(HoldPick::Strange),
    ]
}

fn capture(profile: Profile) -> impl Strategy<Value = OperationDraft> {
    let amount = prop_oneof![
        5 => Just(None),
        2 => Just(Some(AmountDraft::Whole(0))),
        6 => amount(profile.hold_max / 3, profile.odd_amounts).prop_map(Some),
        6 => amount(profile.debit_max, profile.odd_amounts).prop_map(Some),
        profile.odd_amounts => Just(Some(AmountDraft::Huge)),
    ];
    (hold(profile), amount, any::<bool>(), any::<bool>()).prop_map(|(hold, amount, keep_open, noted)| {
        // To capture nothing and keep the hold open is malformed.
        let keep_open = keep_open && !matches!(amount, Some(AmountDraft::Whole(0)));
        OperationDraft::Capture { hold, amount, keep_open, noted }
    })
}

fn tranche(profile: Profile) -> impl Strategy<Value = TrancheDraft> {
    let effective = prop_oneof![
        90 - profile.scheduled => Just(None),
        profile.scheduled => select(profile.delays).prop_map(Some),
        10 => (-20i64..1).prop_map(Some),
    ];
    let expiry = prop_oneof![
        300 => Just(ExpiryDraft::Never),
        560 => select(profile.lifetimes).prop_map(ExpiryDraft::At),
        140 => select(profile.lifetimes).prop_map(|lifetime| ExpiryDraft::After(lifetime as u64)),
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
    let amount = amount(profile.tranche_max, profile.odd_amounts);
    let pending = prop_oneof![
        100 - profile.pending => Just(false),
        profile.pending => Just(true),
    ];
    (amount, pending, attributes, effective, expiry, features, reference).prop_map(
        |(amount, pending, (kind, priority, scope), effective, expiry, features, reference)| TrancheDraft {
            amount,
            pending,
            kind,
            priority,
            effective,
            expiry: not_before(expiry, effective),
            scope,
            features,
            reference,
        },
    )
}

/// Counts the lifetime of a scheduled tranche from its activation, so that few are refused.
fn not_before(expiry: ExpiryDraft, effective: Option<i64>) -> ExpiryDraft {
    let delay = effective.unwrap_or(0).max(0);
    match expiry {
        ExpiryDraft::Never => ExpiryDraft::Never,
        ExpiryDraft::At(step) => ExpiryDraft::At(step + delay),
        ExpiryDraft::After(lifetime) => ExpiryDraft::After(lifetime),
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
