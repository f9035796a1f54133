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
    Adjust, BurnPolicy, Capture, Change, ChargeScope, CloseWallet, Command, CreateWallet, Debit, Expiry,
    FreezeWallet, Grant, Header, Hold, Operation, Payer, Refund, TrancheKind, TrancheSpec, UpdateWallet,
};
use purser_ledger::ids::{Customer, HoldId, RecordId, TrancheId};
use purser_ledger::time::{Span, Time};
use purser_ledger::verdict::{Answer, Applied, Effect, Posted, Reason, Reply, Verdict};

/// Sessions of the run whose happenings are counted, of each profile.
const SMALL_SESSIONS: usize = 240;
const CORRECTED_SESSIONS: usize = 260;
const CROWDED_SESSIONS: usize = 110;
const HELD_SESSIONS: usize = 44;

/// The usual number of cases, one in so many of them; failures are kept as named tests, not files.
fn one_case_in(share: u32) -> ProptestConfig {
    let usual = ProptestConfig::default();
    ProptestConfig { cases: (usual.cases / share).max(1), failure_persistence: None, ..usual }
}

proptest! {
    #![proptest_config(one_case_in(1))]

    /// Covers: CreateWallet, GetWallet, ListWallets, UpdateWallet, FreezeWallet, Grant, ListTranches, Debit
    /// Covers: GetBalance, ListMovements, GetMovement, Audit
    #[test]
    fn the_ledger_agrees_with_the_model_on_a_few_busy_wallets(session in drawing::small()) {
        pair::compare(&session).map_err(TestCaseError::fail)?;
    }

    /// Covers: ConfirmGrant, FailGrant, VoidGrant, Refund, Adjust, CloseWallet
    #[test]
    fn the_ledger_agrees_with_the_model_on_what_is_given_back(session in drawing::corrected()) {
        pair::compare(&session).map_err(TestCaseError::fail)?;
    }
}

proptest! {
    // These sessions are long, and all holds are read after each batch.
    #![proptest_config(one_case_in(8))]

    /// Covers: Hold, ExtendHold, Capture, Release, GetHold, ListHolds
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

    /// Covers: DebitBatch, DebitStream, WriteBatch, WriteStream
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
        counted(drawing::corrected(), CORRECTED_SESSIONS),
        counted(drawing::crowded(), CROWDED_SESSIONS),
        counted(drawing::held(), HELD_SESSIONS),
    ] {
        happened.into_iter().for_each(|(what, often)| *counts.entry(what).or_default() += often);
    }
    let reasons = REASONS.map(|reason| reason.name());
    for (wanted, at_least) in [(&RARE[..], 3), (&OFTEN[..], 40), (&reasons[..], 5)] {
        for what in wanted {
            let happened = counts.get(*what).copied().unwrap_or(0);
            assert!(happened >= at_least, "{what} happened {happened} times only: {counts:#?}");
        }
    }
}

/// What must happen a few times.
const RARE: [&str; 76] = [
    "AMOUNT_OVERFLOW to capture",
    "INSUFFICIENT_CREDITS to capture",
    "INVALID_AMOUNT_PRECISION to capture",
    "INVALID_ARGUMENT to adjust",
    "NO_ELIGIBLE_TRANCHE to capture",
    "TRANCHE_NOT_ACTIVE to extend",
    "TRANCHE_NOT_FOUND to adjust",
    "TRANCHE_NOT_FOUND to fail",
    "WALLET_CLOSED to adjust",
    "WALLET_CLOSED to close",
    "WALLET_CLOSED to confirm",
    "WALLET_CLOSED to debit",
    "WALLET_CLOSED to freeze",
    "WALLET_CLOSED to grant",
    "WALLET_CLOSED to hold",
    "WALLET_CLOSED to refund",
    "WALLET_CLOSED to update",
    "WALLET_CLOSED to void",
    "WALLET_FROZEN to capture",
    "backlog",
    "backlog of time-outs",
    "capture of an expired tranche",
    "capture over several wallets",
    "capture that moves nothing",
    "capture with an excess alone",
    "capture within a frozen wallet",
    "clock went back",
    "close of a frozen wallet",
    "close of a wallet that holds took part in",
    "close of a wallet with a past",
    "confirmation ahead of the effective time",
    "confirmation of a lifetime ahead of the effective time",
    "confirmation that begins a lifetime",
    "correction down in a frozen wallet",
    "correction down of a tranche that is partly held",
    "correction down over more than eight tranches",
    "debit over more than eight tranches",
    "debit over more than thirty tranches",
    "end of a failed tranche",
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
    "refund into a frozen wallet",
    "refund of which a part goes again",
    "refund that restores in a wallet of many tranches",
    "refund that restores once more",
    "refund that restores one tranche of several",
    "refund that restores what is held in part",
    "refund to a restored tranche while it lives",
    "refund to more than eight tranches",
    "release in several movements",
    "release of nothing",
    "replay of capture, denied",
    "replay of extend, applied",
    "replay of release, applied",
    "sweep with more to do",
    "third refund of a movement",
    "time-out after a capture",
    "time-out in a frozen wallet",
    "time-out of what expires before it is booked",
    "time-out with nothing left",
    "update of a charge scope with a hold open",
    "update of a frozen wallet",
    "void of a restored tranche",
    "void of a scheduled tranche",
    "void of a tranche corrected away",
    "void of a tranche that is wholly held",
    "void of an expired tranche that is held",
    "withdrawal of what a command gives back",
];

/// What must happen often.
const OFTEN: [&str; 89] = [
    "HOLD_CLOSED to capture",
    "HOLD_CLOSED to extend",
    "HOLD_CLOSED to release",
    "HOLD_EXPIRED to capture",
    "HOLD_EXPIRED to extend",
    "HOLD_EXPIRED to release",
    "INSUFFICIENT_CREDITS to adjust",
    "INVALID_ARGUMENT to confirm",
    "INVALID_ARGUMENT to refund",
    "TRANCHE_NOT_ACTIVE to adjust",
    "TRANCHE_NOT_ACTIVE to confirm",
    "TRANCHE_NOT_ACTIVE to fail",
    "TRANCHE_NOT_ACTIVE to void",
    "TRANCHE_NOT_FOUND to confirm",
    "TRANCHE_NOT_FOUND to void",
    "a record that is no movement",
    "activation",
    "capture",
    "capture of a voided tranche",
    "capture of all that is left",
    "capture of zero",
    "capture that keeps the hold open",
    "capture that keeps the hold open with nothing left",
    "capture with a rest that is given back",
    "capture with an excess",
    "close",
    "confirm",
    "confirmation before the end",
    "confirmation past the end",
    "confirmation with a new end",
    "confirmation with a new end past the old one",
    "correction down",
    "correction down of a tranche limited to features",
    "correction down of one tranche",
    "correction down over several tranches",
    "correction down that leaves nothing of a tranche",
    "correction up",
    "debit",
    "debit over several tranches",
    "debit over several wallets",
    "end of a pending tranche past its end",
    "end of a voided tranche",
    "expiry",
    "extension that changes nothing",
    "extension that lengthens",
    "fail",
    "grant of immediate and scheduled tranches",
    "hold",
    "hold by customer",
    "hold over several tranches",
    "hold over several wallets",
    "hold that is not there",
    "key reused",
    "lapse at a time-out",
    "movement of another customer",
    "movement that is not there",
    "partial debit",
    "refund",
    "refund of a capture",
    "refund of a movement that was refunded before",
    "refund of a part",
    "refund of all that is left",
    "refund of an excess",
    "refund that is forfeited",
    "refund that restores",
    "refund to a voided tranche",
    "refund to an exhausted tranche",
    "refund to several tranches",
    "refund with a grace for nothing",
    "release",
    "replay of capture, applied",
    "replay of hold, applied",
    "replay of refund, applied",
    "replay of refund, denied",
    "replay of void, applied",
    "replay, denied",
    "time-out at the instant of an expiry",
    "time-out at the instant of another item",
    "time-out booked late",
    "time-out that gives back",
    "update of a charge scope",
    "update of a draw priority",
    "update of a known version",
    "update that changes nothing",
    "void of a pending tranche",
    "void of a tranche that is partly held",
    "void of a tranche that is partly spent",
    "void of an active tranche",
    "withdrawal at a time-out",
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
        self.grant_until(wallet, tranches, amount, Expiry::Never);
    }

    fn grant_until(&mut self, wallet: &'static str, tranches: usize, amount: i128, expiry: Expiry<'static>) {
        let spec = TrancheSpec {
            amount: whole(amount),
            pending: false,
            kind: TrancheKind::Plan,
            priority: 100,
            effective_at: None,
            expiry,
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

    /// Debits the wallet; gives the movement.
    fn spent(&mut self, wallet: &'static str, amount: i128) -> RecordId {
        let answer = self.debit(Payer::Wallet(wallet), amount);
        movements_of(&answer)[0].id
    }

    fn refund(&mut self, movement: RecordId, amount: Option<i128>, grace: Option<Span>) -> Answer {
        let (reason_code, reference, metadata) = ("", "", Vec::new());
        let amount = amount.map(whole);
        self.tell(Operation::Refund(Refund { movement, amount, grace, reason_code, reference, metadata }))
    }

    fn adjust_down(&mut self, wallet: &'static str, amount: Decimal, tranche: Option<TrancheId>) -> Answer {
        let change = Change::Down { amount, tranche };
        let (reason_code, reference, metadata) = ("miscounted", "", Vec::new());
        self.tell(Operation::Adjust(Adjust { wallet, change, reason_code, reference, metadata }))
    }

    fn rescope(&mut self, wallet: &'static str, scope: ChargeScope) {
        let (version, draw_priority, scope, reason_code) = (None, None, Some(scope), "");
        self.tell(Operation::UpdateWallet(UpdateWallet {
            wallet,
            version,
            draw_priority,
            scope,
            reason_code,
        }));
    }

    fn close(&mut self, wallet: &'static str) -> Answer {
        self.tell(Operation::CloseWallet(CloseWallet { wallet, reason_code: "" }))
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

/// An end at so long after the beginning.
fn at(time: u64) -> Expiry<'static> {
    Expiry::At(Time(1_000 + time))
}

fn movements_of(answer: &Answer) -> &[Posted] {
    match &answer.reply {
        Reply::Verdict { verdict: Verdict::Applied(Applied { effect, .. }), .. } => match effect {
            Effect::Posted { movements, .. } => movements,
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    }
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

#[test]
fn what_a_refund_gives_back_fits_in_the_wallet_also_where_it_has_to_go_again() {
    let huge = 10i128.pow(38) - 1;
    let mut told = Told::default();
    told.wallet("w", 100);
    told.grant_until("w", 1, huge, at(10));
    let first = told.spent("w", huge);
    told.grant("w", 1, huge);
    assert_eq!(denied(&told.refund(first, None, None)), Some(Reason::AmountOverflow));
    assert_eq!(denied(&told.refund(first, Some(1), None)), None);
    told.now = 10;
    assert_eq!(denied(&told.refund(first, None, None)), Some(Reason::AmountOverflow), "it would lapse");
    told.spent("w", huge);
    assert_eq!(denied(&told.refund(first, None, None)), None);
}

#[test]
fn a_refund_restores_a_tranche_that_was_spent_before_its_end_whatever_else_is_due() {
    let mut told = Told::default();
    told.wallet("w", 100);
    told.grant_until("w", 1, 8, at(10));
    let spent = told.spent("w", 8);
    for _ in 0..3 {
        told.grant_until("w", 50, 1, at(10));
    }
    told.now = 10;
    // 64 of the 150 others are booked before each of them, and what is not booked pays nothing.
    assert_eq!(denied(&told.refund(spent, Some(1), None)), None);
    assert_eq!(denied(&told.refund(spent, Some(2), Some(Span(5)))), None);
    assert_eq!(denied(&told.debit(Payer::Wallet("w"), 3)), Some(Reason::InsufficientCredits));
    assert_eq!(denied(&told.debit(Payer::Wallet("w"), 2)), None);
}

#[test]
fn what_is_due_of_the_tranche_itself_is_booked_before_a_refund_restores_it() {
    let mut told = Told::default();
    told.wallet("w", 100);
    told.grant_until("w", 1, 8, at(10));
    let spent = told.spent("w", 6);
    for _ in 0..3 {
        told.grant_until("w", 50, 1, at(9));
    }
    told.now = 10;
    // The 150 others are due before it; a command that is asked to come again does so once here.
    assert_eq!(told.refund(spent, Some(2), Some(Span(5))).reply, Reply::Backlog);
    assert_eq!(denied(&told.refund(spent, Some(2), Some(Span(5)))), None);
    assert_eq!(denied(&told.debit(Payer::Wallet("w"), 3)), Some(Reason::InsufficientCredits));
    assert_eq!(denied(&told.debit(Payer::Wallet("w"), 2)), None);
}

#[test]
fn a_refund_that_is_refused_does_not_wait_for_what_is_due() {
    let mut told = Told::default();
    told.wallet("w", 100);
    told.grant_until("w", 1, 8, at(10));
    let spent = told.spent("w", 8);
    for _ in 0..3 {
        told.grant_until("w", 50, 1, at(10));
    }
    told.now = 10;
    let answer = told.refund(spent, Some(9), Some(Span(5)));
    assert_eq!(denied(&answer), Some(Reason::RefundExceedsDebit));
}

#[test]
fn a_wallet_whose_credits_have_all_expired_may_be_closed_though_not_all_of_that_is_booked() {
    let mut told = Told::default();
    told.wallet("w", 100);
    for _ in 0..4 {
        told.grant_until("w", 50, 1, at(10));
    }
    told.now = 10;
    assert_eq!(denied(&told.close("w")), None);
    assert_eq!(denied(&told.debit(Payer::Wallet("w"), 1)), Some(Reason::WalletClosed));
}

#[test]
fn what_a_closed_wallet_once_paid_is_not_refunded_and_its_holds_are_as_they_were() {
    let mut told = Told::default();
    told.wallet("w", 100);
    told.wallet("x", 200);
    told.grant("w", 1, 5);
    told.grant("x", 1, 5);
    let spent = told.spent("w", 1);
    let hold = told.held(Payer::CustomerIn(CREDITS), 7);
    let captured = movements_of(&told.capture(hold, 7, true)).to_vec();
    assert_eq!(denied(&told.close("w")), Some(Reason::WalletNotEmpty), "the hold is open, with nothing left");
    assert_eq!(denied(&told.capture(hold, 0, false)), None);
    assert_eq!(denied(&told.close("w")), None);
    assert_eq!(denied(&told.close("w")), Some(Reason::WalletClosed));
    assert_eq!(denied(&told.capture(hold, 1, false)), Some(Reason::HoldClosed));
    assert_eq!(denied(&told.refund(spent, None, None)), Some(Reason::WalletClosed));
    assert_eq!(denied(&told.refund(captured[0].id, None, None)), Some(Reason::WalletClosed));
    assert_eq!(denied(&told.refund(captured[1].id, None, None)), None, "of the wallet that is open");
    assert_eq!(denied(&told.debit(Payer::CustomerIn(CREDITS), 5)), None, "from what is open");
}

#[test]
fn a_correction_takes_from_a_thousand_tranches_at_most() {
    let mut told = Told::default();
    told.wallet("w", 100);
    for _ in 0..11 {
        told.grant("w", 100, 1);
    }
    assert_eq!(denied(&told.adjust_down("w", whole(1_001), None)), Some(Reason::LimitExceeded));
    assert_eq!(denied(&told.adjust_down("w", whole(1_000), None)), None);
    assert_eq!(denied(&told.adjust_down("w", whole(101), None)), Some(Reason::InsufficientCredits));
    assert_eq!(denied(&told.adjust_down("w", whole(100), None)), None);
    assert_eq!(denied(&told.close("w")), None);
}

#[test]
fn a_tranche_that_is_not_active_is_not_corrected_whatever_the_amount() {
    let mut told = Told::default();
    told.wallet("w", 100);
    told.grant_until("w", 1, 5, at(10));
    let spent = told.debit(Payer::Wallet("w"), 5);
    let tranche = movements_of(&spent)[0].draws[0].tranche;
    let too_precise = Decimal::new(5, 1).expect("an amount");
    assert_eq!(denied(&told.adjust_down("w", too_precise, Some(tranche))), Some(Reason::TrancheNotActive));
}

#[test]
fn a_wallet_does_not_pay_for_its_hold_what_its_scope_no_longer_fits() {
    let mut told = Told::default();
    told.wallet("w", 100);
    told.grant("w", 1, 10);
    let hold = told.held(Payer::Wallet("w"), 2);
    told.rescope("w", ChargeScope::Usage);
    assert_eq!(denied(&told.capture(hold, 3, true)), Some(Reason::NoEligibleTranche));
    assert_eq!(denied(&told.capture(hold, 1, true)), None, "what is held may be captured");
    told.rescope("w", ChargeScope::Any);
    assert_eq!(denied(&told.capture(hold, 3, true)), None);
}

#[test]
fn a_restored_tranche_has_one_end_in_all_reads() {
    let mut told = Told::default();
    told.wallet("w", 100);
    told.grant_until("w", 1, 5, at(10));
    let spent = told.spent("w", 2);
    told.held(Payer::Wallet("w"), 3);
    told.now = 10;
    assert_eq!(denied(&told.refund(spent, None, Some(Span(20)))), None);
    // At the next step what was restored has lapsed again, and the hold still has its part.
    told.now = 40;
    told.wallet("x", 100);
}
