//! The ledger against the naive model: whatever is asked of both, in any order and at any time, the
//! answers, balances, tranches and movements are the same.
//!
//! `PROPTEST_CASES=20000 cargo nextest run -p purser-ledger --test model_agrees` is the long run. A
//! failure prints the shortest history that still fails; it becomes a named test below.

mod model;

use std::collections::BTreeMap;

use model::core::{Core, entry_of};
use model::counts::{Counts, REASONS};
use model::drafts::{Item, Session};
use model::pair::Pair;
use model::{drawing, pair};
use proptest::prelude::*;
use proptest::sample::select;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use purser_ledger::amount::{Asset, Decimal};
use purser_ledger::cache::WalletCache;
use purser_ledger::command::{
    BurnPolicy, Capture, ChargeScope, Command, CreateWallet, Debit, Expiry, FreezeWallet, Grant, Header,
    Hold, Operation, Payer, TrancheKind, TrancheSpec,
};
use purser_ledger::ids::{Customer, HoldId};
use purser_ledger::time::{Span, Time};
use purser_ledger::verdict::{Answer, Applied, Effect, Reason, Reply, Verdict};

/// Sessions of the run whose happenings are counted, of each profile.
const SMALL_SESSIONS: usize = 240;
const CROWDED_SESSIONS: usize = 120;
const HELD_SESSIONS: usize = 80;

/// The usual number of cases, one in so many of them; failures are kept as named tests, not files.
fn one_case_in(share: u32) -> ProptestConfig {
    let usual = ProptestConfig::default();
    ProptestConfig { cases: (usual.cases / share).max(1), failure_persistence: None, ..usual }
}

proptest! {
    #![proptest_config(one_case_in(1))]

    #[test]
    fn the_ledger_agrees_with_the_model_on_a_few_busy_wallets(session in drawing::small()) {
        pair::compare(&session).map_err(TestCaseError::fail)?;
    }
}

proptest! {
    // These sessions are long, and all holds are read after each batch.
    #![proptest_config(one_case_in(8))]

    #[test]
    fn the_ledger_agrees_with_the_model_on_wallets_with_many_holds(session in drawing::held()) {
        pair::compare(&session).map_err(TestCaseError::fail)?;
    }
}

proptest! {
    #![proptest_config(one_case_in(2))]

    #[test]
    fn the_ledger_agrees_with_the_model_on_crowded_wallets(session in drawing::crowded()) {
        pair::compare(&session).map_err(TestCaseError::fail)?;
    }

    #[test]
    fn the_same_entries_give_the_same_rows_and_digests(
        session in drawing::any_profile()
    ) {
        let (one, one_digests) = digests_of(&session)?;
        let (two, two_digests) = digests_of(&session)?;
        prop_assert_eq!(one_digests, two_digests);
        prop_assert_eq!(one.rows(), two.rows());
    }

    #[test]
    fn a_cache_of_any_size_changes_no_answer_and_no_row(
        session in drawing::any_profile(),
        wallets_max in select(&[1usize, 2, 3, 100][..]),
    ) {
        let (mut plain, mut cached) = (Core::default(), Core::default());
        let mut cache = WalletCache::new(wallets_max);
        for (stamp, items) in session.write() {
            let entry = entry_of(stamp, &items);
            let expected = plain.apply(&entry).map_err(TestCaseError::fail)?;
            let given = cached.apply_cached(&mut cache, &entry).map_err(TestCaseError::fail)?;
            prop_assert_eq!(expected, given);
        }
        prop_assert_eq!(plain.rows(), cached.rows());
    }

    #[test]
    fn a_batch_and_its_commands_one_by_one_give_the_same_answers_and_rows(
        session in drawing::any_profile()
    ) {
        let together = session.write();
        let apart: Vec<(Time, Vec<Item>)> = together
            .iter()
            .flat_map(|(stamp, items)| items.iter().map(|item| (*stamp, vec![item.clone()])))
            .collect();
        let (one, answers) = answers_to(&together)?;
        let (other, answers_apart) = answers_to(&apart)?;
        prop_assert_eq!(answers, answers_apart);
        let differing = differing_keys(&one.rows(), &other.rows());
        prop_assert!(differing.len() <= 1, "rows other than the digest differ: {:02x?}", differing);
    }
}

fn digests_of(session: &Session) -> Result<(Core, Vec<u128>), TestCaseError> {
    let mut core = Core::default();
    let mut digests = Vec::new();
    for (stamp, items) in session.write() {
        digests.push(core.apply(&entry_of(stamp, &items)).map_err(TestCaseError::fail)?.1);
    }
    Ok((core, digests))
}

fn answers_to(batches: &[(Time, Vec<Item>)]) -> Result<(Core, Vec<Answer>), TestCaseError> {
    let mut core = Core::default();
    let mut answers = Vec::new();
    for (stamp, items) in batches {
        answers.extend(core.apply(&entry_of(*stamp, items)).map_err(TestCaseError::fail)?.0);
    }
    Ok((core, answers))
}

/// The keys under which two stores do not hold the same.
fn differing_keys(one: &BTreeMap<Vec<u8>, Vec<u8>>, other: &BTreeMap<Vec<u8>, Vec<u8>>) -> Vec<Vec<u8>> {
    let mut keys: Vec<Vec<u8>> = one.keys().chain(other.keys()).cloned().collect();
    keys.sort();
    keys.dedup();
    keys.retain(|key| one.get(key) != other.get(key));
    keys
}

#[test]
fn the_sessions_tried_contain_what_is_worth_trying() {
    let mut counts = Counts::new();
    for happened in [
        counted(drawing::small(), SMALL_SESSIONS),
        counted(drawing::crowded(), CROWDED_SESSIONS),
        counted(drawing::held(), HELD_SESSIONS),
    ] {
        happened.into_iter().for_each(|(what, often)| *counts.entry(what).or_default() += often);
    }
    let reasons = REASONS.map(|reason| reason.name());
    for (wanted, at_least) in [(&RARE[..], 5), (&OFTEN[..], 50), (&reasons[..], 5)] {
        for what in wanted {
            let happened = counts.get(*what).copied().unwrap_or(0);
            assert!(happened >= at_least, "{what} happened {happened} times only: {counts:#?}");
        }
    }
}

/// What must happen a few times.
const RARE: [&str; 34] = [
    "AMOUNT_OVERFLOW to capture",
    "INSUFFICIENT_CREDITS to capture",
    "INVALID_AMOUNT_PRECISION to capture",
    "NO_ELIGIBLE_TRANCHE to capture",
    "WALLET_FROZEN to capture",
    "backlog",
    "backlog of time-outs",
    "capture of an expired tranche",
    "capture over several wallets",
    "capture that moves nothing",
    "capture within a frozen wallet",
    "capture with an excess alone",
    "clock went back",
    "debit over more than thirty tranches",
    "excess of a hold that stays open",
    "excess over several wallets",
    "extension cut to 24 h",
    "hold cut to 24 h",
    "hold of another customer",
    "hold over more than eight tranches",
    "hold whose time-out is booked in some of its wallets",
    "key too old",
    "lapse of what a command gives back",
    "nobody left to pay for a hold",
    "release in several movements",
    "release of nothing",
    "replay of capture, denied",
    "replay of extend, applied",
    "replay of release, applied",
    "sweep with more to do",
    "time-out after a capture",
    "time-out in a frozen wallet",
    "time-out of what expires before it is booked",
    "time-out with nothing left",
];

/// What must happen often.
const OFTEN: [&str; 38] = [
    "HOLD_CLOSED to capture",
    "HOLD_CLOSED to extend",
    "HOLD_CLOSED to release",
    "HOLD_EXPIRED to capture",
    "HOLD_EXPIRED to extend",
    "HOLD_EXPIRED to release",
    "activation",
    "capture",
    "capture of all that is left",
    "capture of zero",
    "capture that keeps the hold open",
    "capture that keeps the hold open with nothing left",
    "capture with a rest that is given back",
    "capture with an excess",
    "debit",
    "debit over more than eight tranches",
    "debit over several tranches",
    "debit over several wallets",
    "expiry",
    "extension that changes nothing",
    "extension that lengthens",
    "grant of immediate and scheduled tranches",
    "hold",
    "hold by customer",
    "hold over several tranches",
    "hold over several wallets",
    "hold that is not there",
    "key reused",
    "lapse at a time-out",
    "partial debit",
    "release",
    "replay of capture, applied",
    "replay of hold, applied",
    "replay, denied",
    "time-out at the instant of an expiry",
    "time-out at the instant of another item",
    "time-out booked late",
    "time-out that gives back",
];

/// What happens in sessions drawn from a fixed seed; they are compared too.
fn counted(sessions: impl Strategy<Value = Session>, often: usize) -> Counts {
    let mut runner = TestRunner::deterministic();
    let mut counts = Counts::new();
    for _ in 0..often {
        let session = sessions.new_tree(&mut runner).expect("a session").current();
        let happened = pair::compare(&session).unwrap_or_else(|difference| panic!("{difference}"));
        happened.into_iter().for_each(|(what, often)| *counts.entry(what).or_default() += often);
    }
    counts
}

// ---- histories told by hand -------------------------------------------------------------------

const CREDITS: Asset<'static> = Asset { code: "credits", scale: 0 };

/// A pair that is told one command at a time.
#[derive(Default)]
struct Told {
    pair: Pair,
    now: u64,
    keys: usize,
}

impl Told {
    /// Gives both the command under a new key, and then once more.
    fn tell(&mut self, operation: Operation<'static>) -> Answer {
        self.keys += 1;
        let key = format!("k{}", self.keys).leak();
        let customer = Customer { namespace: "default", id: "ann" };
        let header =
            Header { customer, key, valid_until: Time::LATEST, retention: Span::from_secs(1), actor: "" };
        let item = [Item::Command(Command { header, operation })];
        let told = self.pair.batch(Time(1_000 + self.now), &item);
        let mut answers = told.unwrap_or_else(|difference| panic!("{difference}"));
        self.pair.batch(Time(1_000 + self.now), &item).unwrap_or_else(|difference| panic!("{difference}"));
        answers.remove(0)
    }

    fn wallet(&mut self, wallet: &'static str, draw_priority: u16) {
        let (scope, burn_policy) = (ChargeScope::Any, BurnPolicy::Standard);
        let create = CreateWallet { wallet, asset: CREDITS, draw_priority, scope, burn_policy };
        self.tell(Operation::CreateWallet(create));
    }

    fn freeze(&mut self, wallet: &'static str) {
        self.tell(Operation::FreezeWallet(FreezeWallet { wallet, frozen: true, reason_code: "" }));
    }

    fn grant(&mut self, wallet: &'static str, tranches: usize, amount: i128) {
        let spec = TrancheSpec {
            amount: whole(amount),
            pending: false,
            kind: TrancheKind::Plan,
            priority: 100,
            effective_at: None,
            expiry: Expiry::Never,
            scope: ChargeScope::Any,
            features: Vec::new(),
            label: "",
            reason_code: "",
            external_reference: "",
            cost: None,
            metadata: Vec::new(),
        };
        self.tell(Operation::Grant(Grant { wallet, tranches: vec![spec; tranches] }));
    }

    fn hold(&mut self, payer: Payer<'static>, amount: i128, ttl: Option<Span>) -> Answer {
        let (reason_code, reference, metadata) = ("", "", Vec::new());
        self.tell(Operation::Hold(Hold {
            payer,
            amount: whole(amount),
            ttl,
            charge_type: None,
            feature: None,
            reason_code,
            reference,
            metadata,
        }))
    }

    fn held(&mut self, payer: Payer<'static>, amount: i128) -> HoldId {
        match self.hold(payer, amount, None).reply {
            Reply::Verdict { verdict: Verdict::Applied(Applied { effect, .. }), .. } => match effect {
                Effect::Posted { hold: Some(hold), .. } => hold.0,
                other => panic!("{other:?}"),
            },
            other => panic!("{other:?}"),
        }
    }

    fn debit(&mut self, payer: Payer<'static>, amount: i128) -> Answer {
        let (reason_code, reference, metadata) = ("", "", Vec::new());
        self.tell(Operation::Debit(Debit {
            payer,
            amount: whole(amount),
            charge_type: None,
            feature: None,
            allow_partial: false,
            reason_code,
            reference,
            metadata,
        }))
    }

    fn capture(&mut self, hold: HoldId, amount: i128, keep_open: bool) -> Answer {
        let amount = Some(whole(amount));
        let (reason_code, reference, metadata) = ("", "", Vec::new());
        self.tell(Operation::Capture(Capture { hold, amount, keep_open, reason_code, reference, metadata }))
    }
}

fn whole(amount: i128) -> Decimal {
    Decimal::new(amount, 0).expect("a whole amount")
}

fn denied(answer: &Answer) -> Option<Reason> {
    match &answer.reply {
        Reply::Verdict { verdict: Verdict::Denied(denial), .. } => Some(denial.reason),
        _ => None,
    }
}

#[test]
fn a_replayed_excess_tells_its_wallets_in_the_order_of_the_first_answer() {
    let mut told = Told::default();
    told.wallet("paid", 100);
    told.wallet("free", 50);
    told.grant("free", 1, 1);
    told.grant("paid", 1, 20);
    let hold = told.held(Payer::CustomerIn(CREDITS), 1);
    // From now on the debits of the customer pass over the wallet that has the hold's credits.
    told.freeze("free");
    told.capture(hold, 13, false);
}

#[test]
fn what_a_hold_is_exceeded_by_in_all_fits_an_amount() {
    let huge = 10i128.pow(38) - 1;
    let mut told = Told::default();
    told.wallet("w", 100);
    told.grant("w", 1, huge);
    let hold = told.held(Payer::Wallet("w"), 1);
    told.grant("w", 1, 2);
    assert_eq!(denied(&told.capture(hold, huge, true)), None, "the excess is one less");
    told.grant("w", 1, huge);
    // The credits are there, but the sum of the two excesses is no amount.
    assert_eq!(denied(&told.capture(hold, huge, true)), Some(Reason::AmountOverflow));
    assert_eq!(denied(&told.capture(hold, 1, true)), None, "the hold is open as before");
}

#[test]
fn a_command_behind_more_time_outs_than_it_may_book_is_asked_to_come_again() {
    let mut told = Told::default();
    told.wallet("w", 100);
    told.grant("w", 1, 100);
    for _ in 0..100 {
        assert_eq!(denied(&told.hold(Payer::Wallet("w"), 1, Some(Span(10)))), None);
    }
    told.now += 10;
    // Everything is held until it is booked; `tell` comes again under the same key.
    let answer = told.debit(Payer::Wallet("w"), 100);
    assert_eq!(answer.reply, Reply::Backlog);
    assert_eq!(denied(&told.debit(Payer::Wallet("w"), 1)), Some(Reason::InsufficientCredits));
}

#[test]
fn a_hold_pins_at_most_a_thousand_tranches_and_its_excess_draws_on_as_many() {
    let mut told = Told::default();
    told.wallet("w", 100);
    for _ in 0..21 {
        told.grant("w", 100, 1);
    }
    assert_eq!(denied(&told.hold(Payer::Wallet("w"), 1_001, None)), Some(Reason::LimitExceeded));
    let hold = told.held(Payer::Wallet("w"), 1_000);
    assert_eq!(denied(&told.capture(hold, 2_001, false)), Some(Reason::LimitExceeded));
    assert_eq!(denied(&told.capture(hold, 2_000, false)), None);
}
