//! Stories of holds, each with values worked out by hand from the specification.

mod story;

use purser_ledger::amount::Amount;
use purser_ledger::command::{
    Capture, ExtendHold, HOLD_TTL_DEFAULT, HOLD_TTL_MAX, Operation, Payer, Release,
};
use purser_ledger::ids::{Customer, HoldId};
use purser_ledger::query;
use purser_ledger::query::TrancheStatus;
use purser_ledger::rows::hold::{HoldState, HoldStatus};
use purser_ledger::rows::journal::MovementKind::{
    self, Captured, Consumed, Expired, Granted, Held, Released,
};
use purser_ledger::time::{Span, Time};
use purser_ledger::verdict::{Effect, Reason, Reply};
use story::*;

/// The default life of a hold.
const TTL: u64 = HOLD_TTL_DEFAULT.0;

fn hold_ann(amount: &str) -> Operation<'static> {
    Operation::Hold(hold_of(Payer::CustomerIn(CREDITS), amount))
}

fn capture_of(hold: HoldId, amount: Option<&str>, keep_open: bool) -> Operation<'static> {
    let amount = amount.map(decimal);
    let (reason_code, reference, metadata) = ("", "", Vec::new());
    Operation::Capture(Capture { hold, amount, keep_open, reason_code, reference, metadata })
}

fn capture(hold: HoldId, amount: &str) -> Operation<'static> {
    capture_of(hold, Some(amount), false)
}

fn capture_and_keep_open(hold: HoldId, amount: &str) -> Operation<'static> {
    capture_of(hold, Some(amount), true)
}

fn release(hold: HoldId) -> Operation<'static> {
    Operation::Release(Release { hold, reason_code: "", reference: "", metadata: Vec::new() })
}

fn extend(hold: HoldId, ttl: u64) -> Operation<'static> {
    Operation::ExtendHold(ExtendHold { hold, ttl: Span(ttl), reason_code: "" })
}

fn hold_in(effect: &Effect) -> (HoldId, HoldState) {
    match effect {
        Effect::Posted { hold: Some(hold), .. } => (**hold).clone(),
        other => panic!("no hold: {other:?}"),
    }
}

/// What a hold is after a command: status, captured, released, left, excess.
fn told(effect: &Effect) -> (HoldStatus, i128, i128, i128, i128) {
    let (_, state) = hold_in(effect);
    (state.status, state.captured.0, state.released.0, state.left().0, state.excess.0)
}

/// Draws as the stories tell them.
type Draws = Vec<(usize, i128, i128)>;

/// Each movement of an answer: its kind, its amount, its draws.
fn moves(ledger: &Ledger, effect: &Effect) -> Vec<(MovementKind, i128, Draws)> {
    let movements = movements_of(effect).iter();
    let draws = |own: &purser_ledger::verdict::Posted| {
        let draws = own.draws.iter();
        draws.map(|draw| (ledger.place(draw.tranche), draw.amount.0, draw.left.0)).collect()
    };
    movements.map(|own| (own.kind, own.amount.0, draws(own))).collect()
}

/// Available, held, settled.
fn figures(ledger: &Ledger, wallet: &str) -> (i128, i128, i128) {
    let balance = ledger.balance(wallet);
    (balance.available.0, balance.held.0, balance.settled().0)
}

fn place(ledger: &mut Ledger, operation: Operation<'_>) -> HoldId {
    hold_in(&ledger.applied(operation)).0
}

/// Of each tranche: its status, and what of it is available, held, consumed, expired.
fn tranches(ledger: &Ledger, wallet: &str) -> Vec<(TrancheStatus, i128, i128, i128, i128)> {
    let views = query::tranches(&ledger.store, ANN, wallet, Time(ledger.now), None, false, 100);
    let line =
        |own: query::TrancheView| (own.status, own.available.0, own.held.0, own.consumed.0, own.expired.0);
    views.expect("a wallet").into_iter().map(line).collect()
}

#[test]
fn a_hold_pins_tranches_in_burn_order_and_its_capture_spends_just_those() {
    let mut ledger = Ledger::with_wallets(&["main"]);
    ledger.applied(grant("main", &[credit("10"), until(1 << 40, credit("5"))]));
    let held = ledger.applied(hold("main", "8"));
    assert_eq!(moves(&ledger, &held), [(Held, 0, vec![(1, 5, 0), (0, 3, 7)])]);
    assert_eq!((figures(&ledger, "main"), remaining_of(&held)), ((7, 8, 15), Some(7)));
    let id = hold_in(&held).0;
    // A better tranche that comes later changes nothing for the hold.
    ledger.applied(grant("main", &[purser_ledger::command::TrancheSpec { priority: 1, ..credit("100") }]));

    let captured = ledger.applied(capture_of(id, None, false));

    assert_eq!(moves(&ledger, &captured), [(Captured, -8, vec![(1, 5, 0), (0, 3, 7)])]);
    assert_eq!(told(&captured), (HoldStatus::Captured, 8, 0, 0, 0));
    assert_eq!(figures(&ledger, "main"), (107, 0, 107));
    ledger.assert_audit_is_clean("main");
}

#[test]
fn what_a_final_capture_leaves_is_available_again_from_the_tail_of_the_pins() {
    let mut ledger = Ledger::with_wallets(&["main"]);
    ledger.applied(grant("main", &[credit("5"), credit("10")]));
    let id = place(&mut ledger, hold("main", "12"));

    let captured = ledger.applied(capture(id, "6"));

    // Of 5 and 7 pinned: 5 and 1 spent, 6 of the second given back to the 3 that were left of it.
    let expected = [(Captured, -6, vec![(0, 5, 0), (1, 1, 3)]), (Released, 0, vec![(1, 6, 9)])];
    assert_eq!(moves(&ledger, &captured), expected);
    assert_eq!(told(&captured), (HoldStatus::Captured, 6, 6, 0, 0));
    assert_eq!((figures(&ledger, "main"), remaining_of(&captured)), ((9, 0, 9), Some(9)));
    ledger.assert_audit_is_clean("main");
}

#[test]
fn captures_that_keep_a_hold_open_add_up_and_one_beyond_it_is_debited_too() {
    let mut ledger = Ledger::with_wallets(&["main"]);
    ledger.applied(grant("main", &[credit("20")]));
    let id = place(&mut ledger, hold("main", "10"));
    assert_eq!(told(&ledger.applied(capture_and_keep_open(id, "4"))), (HoldStatus::Open, 4, 0, 6, 0));
    assert_eq!(figures(&ledger, "main"), (10, 6, 16));

    let beyond = ledger.applied(capture_and_keep_open(id, "9"));

    assert_eq!(moves(&ledger, &beyond), [(Captured, -6, vec![(0, 6, 10)]), (Consumed, -3, vec![(0, 3, 7)])]);
    assert_eq!(told(&beyond), (HoldStatus::Open, 10, 0, 0, 3));
    // Nothing is left, and it is still open: more excess may come, until it is closed.
    assert_eq!(told(&ledger.applied(capture_and_keep_open(id, "1"))), (HoldStatus::Open, 10, 0, 0, 4));
    let closed = ledger.applied(capture_of(id, None, false));
    assert_eq!((told(&closed), movements_of(&closed).len()), ((HoldStatus::Captured, 10, 0, 0, 4), 0));
    assert_eq!(ledger.denied(capture(id, "1")), because(Reason::HoldClosed));
    assert_eq!(figures(&ledger, "main"), (6, 0, 6));
    ledger.assert_audit_is_clean("main");
}

#[test]
fn an_excess_that_is_not_there_refuses_the_whole_capture_and_leaves_the_hold_as_it_was() {
    let mut ledger = Ledger::with_wallets(&["main"]);
    ledger.applied(grant("main", &[credit("10")]));
    let id = place(&mut ledger, hold("main", "8"));

    let capture_eleven = under("eleven", 2_000, capture(id, "11"));
    let denied = denial_of(ledger.send(&capture_eleven));

    assert_eq!(denied, short(2, 3));
    assert_eq!(figures(&ledger, "main"), (2, 8, 10));
    ledger.applied(grant("main", &[credit("10")]));
    assert_eq!(denial_of(ledger.send(&capture_eleven)), short(2, 3), "the key keeps its verdict");
    assert_eq!(told(&ledger.applied(capture(id, "11"))), (HoldStatus::Captured, 8, 0, 0, 3));
}

#[test]
fn a_capture_of_zero_releases_all_and_a_release_does_too() {
    let mut ledger = Ledger::with_wallets(&["main"]);
    ledger.applied(grant("main", &[credit("10")]));
    let one = place(&mut ledger, hold("main", "4"));
    let two = place(&mut ledger, hold("main", "6"));
    assert_eq!(tranches(&ledger, "main"), [(TrancheStatus::Active, 0, 10, 0, 0)]);
    let zero = ledger.applied(capture(one, "0"));
    assert_eq!(
        (told(&zero), moves(&ledger, &zero)),
        ((HoldStatus::Captured, 0, 4, 0, 0), vec![(Released, 0, vec![(0, 4, 4)])])
    );

    let released = ledger.applied(release(two));

    assert_eq!(moves(&ledger, &released), [(Released, 0, vec![(0, 6, 10)])]);
    assert_eq!(told(&released), (HoldStatus::Released, 0, 6, 0, 0));
    assert_eq!(ledger.denied(release(two)), because(Reason::HoldClosed));
    assert_eq!(figures(&ledger, "main"), (10, 0, 10));
    ledger.assert_audit_is_clean("main");
}

#[test]
fn a_hold_is_all_or_nothing() {
    let mut ledger = Ledger::with_wallets(&["main"]);
    ledger.applied(grant("main", &[credit("10"), for_feature("search", credit("5"))]));
    assert_eq!(ledger.denied(hold("main", "11")), short(10, 11));
    let id = place(&mut ledger, hold("main", "10"));
    assert_eq!(ledger.denied(hold("main", "1")), because(Reason::NoEligibleTranche));
    assert_eq!(figures(&ledger, "main"), (5, 10, 15));
    assert_eq!(ledger.denied(debit("main", "1")), because(Reason::NoEligibleTranche));
    ledger.applied(release(id));
    assert_eq!(ledger.drawn(debit("main", "1")), [(0, 1, 9)]);
}

#[test]
fn a_hold_that_times_out_releases_itself_at_that_instant() {
    let mut ledger = Ledger::with_wallets(&["main"]);
    ledger.applied(grant("main", &[credit("10")]));
    let id = place(&mut ledger, hold("main", "8"));
    ledger.now = 1_000 + TTL - 1;
    assert_eq!(ledger.denied(debit("main", "3")), short(2, 3));
    ledger.now += 1;

    assert_eq!(ledger.denied(capture(id, "1")), because(Reason::HoldExpired));
    assert_eq!(ledger.drawn(debit("main", "3")), [(0, 3, 7)]);

    ledger.now += 5;
    let at = 1_000 + TTL;
    let lines = ledger.lines("main");
    assert_eq!(lines[1..], [(Held, 0, 1_000, 1_000), (Released, 0, at, at), (Consumed, -3, at, at)]);
    let view = query::hold(&ledger.store, ANN, id, Time(ledger.now)).expect("readable").expect("there");
    assert_eq!((view.hold.state.status, view.hold.state.released), (HoldStatus::Expired, Amount(8)));
    ledger.assert_audit_is_clean("main");
}

#[test]
fn the_sweep_books_time_outs_late_and_dates_them_right() {
    let mut ledger = Ledger::with_wallets(&["main"]);
    ledger.applied(grant("main", &[credit("10")]));
    let ids = [5, 6, 7].map(|ttl| place(&mut ledger, hold_for("main", "3", ttl)));
    ledger.now = 2_000;
    // As if booked, before anything is.
    assert_eq!(figures(&ledger, "main"), (10, 0, 10));
    let open = query::open_holds(&ledger.store, ANN, "main", Time(2_000), 10).expect("readable");
    assert_eq!(open, []);

    assert_eq!(ledger.sweep(2), Reply::Swept { booked: 2, more: true });
    assert_eq!(ledger.sweep(10), Reply::Swept { booked: 1, more: false });

    let lines = ledger.lines("main");
    let expected = [1_005, 1_006, 1_007].map(|at| (Released, 0, at, 2_000));
    assert_eq!(lines[4..], expected);
    let listed = query::holds(&ledger.store, ANN, "main", Time(2_000), None, false, 10).expect("readable");
    let listed: Vec<_> = listed.into_iter().map(|own| (own.id, own.hold.state.status)).collect();
    assert_eq!(listed, ids.map(|id| (id, HoldStatus::Expired)));
    ledger.assert_audit_is_clean("main");
}

#[test]
fn what_expires_while_it_is_held_may_be_captured_and_is_gone_when_it_is_released() {
    let mut ledger = Ledger::with_wallets(&["main"]);
    ledger.applied(grant("main", &[until(1_500, credit("10")), credit("4")]));
    let id = place(&mut ledger, hold("main", "12"));
    ledger.now = 1_500;
    // Nothing of the first is available: no expiry is booked, for none of it was.
    assert_eq!(figures(&ledger, "main"), (2, 12, 14));

    let captured = ledger.applied(capture(id, "7"));

    let expected =
        [(Captured, -7, vec![(0, 7, 0)]), (Released, 0, vec![(1, 2, 4)]), (Expired, -3, vec![(0, 3, 0)])];
    assert_eq!(moves(&ledger, &captured), expected);
    assert_eq!(told(&captured), (HoldStatus::Captured, 7, 5, 0, 0));
    assert_eq!(figures(&ledger, "main"), (4, 0, 4));
    let lines = [(TrancheStatus::Expired, 0, 0, 7, 3), (TrancheStatus::Active, 4, 0, 0, 0)];
    // Wholly held, it was never due as an open tranche: its row says so as soon as it is looked at.
    assert_eq!(tranches(&ledger, "main"), lines);
    ledger.assert_audit_is_clean("main");
}

#[test]
fn at_one_instant_a_hold_times_out_before_its_tranche_expires_and_the_units_are_gone() {
    let mut ledger = Ledger::with_wallets(&["main"]);
    ledger.applied(grant("main", &[until(1_500, credit("10"))]));
    place(&mut ledger, hold_for("main", "6", 500));
    ledger.now = 1_600;
    assert_eq!(ledger.denied(debit("main", "1")), short(0, 1));
    let booked = [(Expired, -6, 1_500, 1_600), (Expired, -4, 1_500, 1_600)];
    assert_eq!(ledger.lines("main")[2..], booked);
    assert_eq!(tranches(&ledger, "main"), [(TrancheStatus::Expired, 0, 0, 0, 10)]);
    ledger.assert_audit_is_clean("main");
}

#[test]
fn a_hold_may_be_given_more_time_never_less_and_a_day_at_most() {
    let mut ledger = Ledger::with_wallets(&["main"]);
    ledger.applied(grant("main", &[credit("10")]));
    let id = place(&mut ledger, hold_for("main", "6", 100));
    ledger.now = 1_050;
    let until = |effect: &Effect| hold_in(effect).1.expires_at.0;
    assert_eq!(until(&ledger.applied(extend(id, 10))), 1_100);
    assert_eq!(until(&ledger.applied(extend(id, 200))), 1_250);
    ledger.now = 1_249;
    assert_eq!(until(&ledger.applied(extend(id, HOLD_TTL_MAX.0))), 1_000 + HOLD_TTL_MAX.0);
    assert_eq!(figures(&ledger, "main"), (4, 6, 10));
    ledger.now = 1_000 + HOLD_TTL_MAX.0;
    assert_eq!(ledger.denied(extend(id, 10)), because(Reason::HoldExpired));
    assert_eq!(figures(&ledger, "main"), (10, 0, 10));
    ledger.assert_audit_is_clean("main");
}

#[test]
fn a_hold_with_an_expired_tranche_gets_no_more_time() {
    let mut ledger = Ledger::with_wallets(&["main"]);
    ledger.applied(grant("main", &[until(1_500, credit("5")), credit("5")]));
    let id = place(&mut ledger, hold("main", "7"));
    ledger.now = 1_499;
    ledger.applied(extend(id, TTL));
    ledger.now = 1_500;
    assert_eq!(ledger.denied(extend(id, TTL)), because(Reason::TrancheNotActive));
    // Once the expired part is captured, nothing stands in the way.
    ledger.applied(capture_and_keep_open(id, "5"));
    ledger.applied(extend(id, TTL));
}

#[test]
fn a_frozen_wallet_takes_no_hold_and_no_excess_but_captures_releases_and_extends() {
    let mut ledger = Ledger::with_wallets(&["main"]);
    ledger.applied(grant("main", &[credit("10")]));
    let id = place(&mut ledger, hold("main", "4"));
    let other = place(&mut ledger, hold("main", "4"));
    ledger.applied(freeze("main", true));
    assert_eq!(ledger.denied(hold("main", "1")), because(Reason::WalletFrozen));
    assert_eq!(ledger.denied(capture(id, "5")), because(Reason::WalletFrozen));
    ledger.applied(extend(id, 2 * TTL));
    assert_eq!(told(&ledger.applied(capture(id, "3"))), (HoldStatus::Captured, 3, 1, 0, 0));
    assert_eq!(remaining_of(&ledger.applied(release(other))), Some(0));
    assert_eq!(figures(&ledger, "main"), (7, 0, 7));
}

#[test]
fn a_hold_of_a_customer_pins_over_wallets_and_each_wallet_books_its_own_part() {
    let mut ledger = Ledger::with_wallets(&["first", "second"]);
    ledger.applied(grant("first", &[credit("5")]));
    ledger.applied(grant("second", &[credit("10")]));
    let held = ledger.applied(hold_ann("8"));
    assert_eq!(moves(&ledger, &held), [(Held, 0, vec![(0, 5, 0)]), (Held, 0, vec![(1, 3, 7)])]);
    assert_eq!(balances_of(&held), [("first", 0), ("second", 7)]);
    let id = hold_in(&held).0;

    let captured = ledger.applied(capture(id, "6"));

    let expected =
        [(Captured, -5, vec![(0, 5, 0)]), (Captured, -1, vec![(1, 1, 7)]), (Released, 0, vec![(1, 2, 9)])];
    assert_eq!(moves(&ledger, &captured), expected);
    let late = place(&mut ledger, hold_ann("9"));
    ledger.applied(grant("first", &[credit("1")]));
    ledger.now += TTL;
    // Only the second wallet has pins of it; the first is asked for nothing.
    assert_eq!((figures(&ledger, "first"), figures(&ledger, "second")), ((1, 0, 1), (9, 0, 9)));
    assert_eq!(ledger.denied(release(late)), because(Reason::HoldExpired));
    ["first", "second"].iter().for_each(|wallet| ledger.assert_audit_is_clean(wallet));
}

#[test]
fn another_customers_hold_is_not_there() {
    let mut ledger = Ledger::with_wallets(&["main"]);
    ledger.applied(grant("main", &[credit("10")]));
    let id = place(&mut ledger, hold("main", "4"));
    let bob = Customer { namespace: "default", id: "bob" };
    let by_bob = |operation: Operation<'static>| {
        let mut command = under("bobs", 2_000, operation);
        command.header.customer = bob;
        command
    };
    assert_eq!(denial_of(ledger.send(&by_bob(release(id)))), because(Reason::CustomerNotFound));
    let mut create_bobs = under("create", 2_000, create("main"));
    create_bobs.header.customer = bob;
    effect_of(ledger.send(&create_bobs));
    let mut again = by_bob(release(id));
    again.header.key = "again";
    assert_eq!(denial_of(ledger.send(&again)), because(Reason::HoldNotFound));
    assert_eq!(ledger.denied(release(HoldId(77))), because(Reason::HoldNotFound));
    assert_eq!(query::hold(&ledger.store, bob, id, Time(1_000)), Ok(None));
    assert_eq!(figures(&ledger, "main"), (6, 4, 10));
}

#[test]
fn the_same_key_gets_the_first_answer_about_a_hold_again() {
    let mut ledger = Ledger::with_wallets(&["main"]);
    ledger.applied(grant("main", &[credit("10")]));
    let held = under("hold", 2_000, hold("main", "6"));
    let first = effect_of(ledger.send(&held));
    let id = hold_in(&first).0;
    let extended = under("extend", 2_000, extend(id, 2 * TTL));
    let then = effect_of(ledger.send(&extended));
    let captured = under("capture", 2_000, capture(id, "2"));
    let spent = effect_of(ledger.send(&captured));
    ledger.applied(grant("main", &[credit("90")]));

    for (command, answer) in [(&held, &first), (&extended, &then), (&captured, &spent)] {
        match ledger.send(command) {
            Reply::Verdict { replayed: true, verdict: purser_ledger::verdict::Verdict::Applied(again) } => {
                assert_eq!(again.effect, *answer);
            }
            other => panic!("not the stored answer: {other:?}"),
        }
    }
    assert_eq!(figures(&ledger, "main"), (98, 0, 98));
}

#[test]
fn more_time_outs_than_sixty_four_ask_for_the_same_key_again() {
    let mut ledger = Ledger::with_wallets(&["main"]);
    ledger.applied(grant("main", &[credit("100")]));
    for _ in 0..70 {
        place(&mut ledger, hold_for("main", "1", 50));
    }
    ledger.now = 1_050;
    assert_eq!(ledger.tell(debit("main", "100")), Reply::Backlog);
    assert_eq!(ledger.drawn(debit("main", "100")), [(0, 100, 0)]);
    ledger.assert_audit_is_clean("main");
}

#[test]
fn a_look_for_the_next_time_out_skips_spans_in_which_every_hold_was_closed() {
    const MINUTE: u64 = 60 * 1_000_000;
    let mut ledger = Ledger::with_wallets(&["main"]);
    ledger.applied(grant("main", &[credit("100")]));
    let mut closed = Vec::new();
    for minutes in 1..=30 {
        closed.push(place(&mut ledger, hold_for("main", "1", minutes * MINUTE)));
    }
    let last = place(&mut ledger, hold_for("main", "1", 60 * MINUTE));
    for id in closed {
        ledger.applied(release(id));
    }
    // Armed for the first of them, it finds nothing due, and looks again in time for the last.
    for minutes in [1, 5, 29, 59] {
        ledger.now = 1_000 + minutes * MINUTE;
        assert_eq!(ledger.sweep(100), Reply::Swept { booked: 0, more: false });
        assert_eq!(figures(&ledger, "main"), (99, 1, 100));
    }
    ledger.now = 1_000 + 60 * MINUTE;
    assert_eq!(ledger.sweep(100), Reply::Swept { booked: 1, more: false });
    assert_eq!(ledger.denied(release(last)), because(Reason::HoldExpired));
    assert_eq!(figures(&ledger, "main"), (100, 0, 100));
}

#[test]
fn a_wallet_with_ten_thousand_tranches_pins_and_gives_back_in_order() {
    let mut ledger = Ledger::with_wallets(&["main"]);
    for _ in 0..100 {
        ledger.applied(grant("main", &vec![credit("1"); 100]));
    }
    let id = place(&mut ledger, hold("main", "1000"));
    assert_eq!(figures(&ledger, "main"), (9_000, 1_000, 10_000));
    assert_eq!(ledger.denied(hold("main", "1001")), because(Reason::LimitExceeded));
    assert_eq!(ledger.drawn(debit("main", "1")), [(1_000, 1, 0)]);

    ledger.applied(capture(id, "500"));

    // The tail came back, and is before all others in the order again.
    assert_eq!(ledger.drawn(debit("main", "2")), [(500, 1, 0), (501, 1, 0)]);
    assert_eq!(figures(&ledger, "main"), (9_497, 0, 9_497));
    ledger.assert_audit_is_clean("main");
}

#[test]
fn granted_credits_and_held_ones_never_overflow_together() {
    let mut ledger = Ledger::with_wallets(&["main"]);
    ledger.applied(grant("main", &[credit(NINES)]));
    ledger.applied(hold("main", NINES));
    ledger.applied(grant("main", &[credit("70000000000000000000000000000000000000")]));
    assert_eq!(
        ledger.denied(grant("main", &[credit("2000000000000000000000000000000000000")])),
        because(Reason::AmountOverflow)
    );
    assert_eq!(ledger.lines("main")[0].0, Granted);
}
