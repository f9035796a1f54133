//! Holds over gRPC, on a test clock: what a caller sees of holds, captures, releases and time-outs, in
//! receipts, reads, movements and refusals. The core's own stories are in `ledger/tests/hold_stories.rs`.

mod node_support;

use node_support::{
    DAY, Running, SECOND, T0, as_at_first, asset, at, capture_request, create_request, debit_request,
    expiring, extend_request, fields, fresh_key, hold_request, lasting, of_receipt, pair, reason,
    release_request, tranche,
};
use purser_proto::v1;
use tonic::{Code, Status};
use v1::HoldStatus::{Captured, Expired, Open, Released};
use v1::MovementType;
use v1::TrancheKind::{Plan, Promotional, Purchased};

const WHO: &str = "acme";
const MINUTE: u64 = 60 * SECOND;
/// How long a hold lives that does not say.
const TTL: u64 = 5 * MINUTE;

/// A hold on `main` for so many microseconds.
fn hold_for(amount: &str, micros: u64) -> v1::HoldRequest {
    v1::HoldRequest { ttl: Some(lasting(micros)), ..hold_request(WHO, "main", amount) }
}

/// A hold on all wallets of `credits/0`.
fn hold_by_asset(amount: &str) -> v1::HoldRequest {
    let payer = Some(v1::hold_request::Payer::Asset(asset(0)));
    v1::HoldRequest { payer, ..hold_request(WHO, "", amount) }
}

fn keeping_open(hold_id: &str, amount: &str) -> v1::CaptureRequest {
    v1::CaptureRequest { keep_open: true, ..capture_request(WHO, hold_id, amount) }
}

/// Places a hold; its id.
async fn place(node: &mut Running, request: v1::HoldRequest) -> String {
    let held = node.hold(request).await.expect("a hold");
    held.hold.expect("its state").hold_id
}

/// Wallet, amount and what is left, of each draw.
fn draws(own: &[v1::Draw]) -> Vec<(&str, &str, &str)> {
    own.iter().map(|draw| (draw.wallet.as_str(), draw.amount.as_str(), draw.left.as_str())).collect()
}

fn drawn(receipt: Option<&v1::Receipt>) -> Vec<(&str, &str, &str)> {
    draws(&of_receipt(receipt).draws)
}

/// Available, held, settled.
fn figures(balance: &v1::Balance) -> (&str, &str, &str) {
    (&balance.available, &balance.held, &balance.settled)
}

/// Status, captured, released, left, excess.
fn told(state: Option<&v1::HoldState>) -> (v1::HoldStatus, &str, &str, &str, &str) {
    let own = state.expect("a state");
    (own.status(), &own.captured, &own.released, &own.left, &own.excess)
}

/// Type, amount and hold of each movement, from the second on: the first is the grant.
fn after_the_grant(movements: &[v1::Movement]) -> Vec<(MovementType, &str, &str)> {
    assert_eq!(movements[0].r#type(), MovementType::Granted);
    let rest = movements[1..].iter();
    rest.map(|own| (own.r#type(), own.amount.as_str(), own.hold_id.as_str())).collect()
}

async fn sound(mut node: Running) {
    assert_eq!(node.audit(WHO).await.findings, []);
    node.stop().await;
}

/// Covers: Hold, Capture, GetHold
#[tokio::test(flavor = "multi_thread")]
async fn a_capture_spends_a_part_of_what_was_set_aside_and_releases_the_tail() {
    let mut node = Running::start().await;
    node.wallet_with(WHO, "main", vec![expiring("50", Plan, T0 + 30 * DAY), tranche("100", Purchased)]).await;

    let held = node.hold(hold_request(WHO, "main", "70")).await.expect("a hold");

    // What expires first: all of 50; then 20 of 100.
    assert_eq!(drawn(held.receipt.as_ref()), [("main", "50", "0"), ("main", "20", "80")]);
    let balance = &of_receipt(held.receipt.as_ref()).balances[0];
    assert_eq!((figures(balance), held.remaining.as_str()), (("80", "70", "150"), "80"));
    assert_eq!(node.balance(WHO, "main").await, *balance);
    let state = held.hold.as_ref().expect("its state");
    assert_eq!((state.amount.as_str(), &state.asset), ("70", &Some(asset(0))));
    assert_eq!(told(held.hold.as_ref()), (Open, "0", "0", "70", "0"));
    assert_eq!((&state.created_at, &state.expires_at), (&Some(at(T0)), &Some(at(T0 + TTL))));
    let id = state.hold_id.as_str();
    assert!(id.starts_with("hld_"), "{id}");

    let captured = node.capture(capture_request(WHO, id, "60")).await.expect("a capture");

    let receipt = of_receipt(captured.receipt.as_ref());
    assert_eq!(draws(&receipt.draws), [("main", "50", "0"), ("main", "10", "80")]);
    assert_eq!((captured.amount.as_str(), captured.released.as_str()), ("60", "10"));
    assert_eq!((figures(&receipt.balances[0]), captured.remaining.as_str()), (("90", "0", "90"), "90"));
    assert_eq!(told(captured.hold.as_ref()), (Captured, "60", "10", "0", "0"));
    assert_eq!(node.get_hold(WHO, id).await.state, captured.hold);

    let movements = node.movements(WHO, "main").await;
    let expected = [
        (MovementType::Held, "0", id),
        (MovementType::Captured, "-60", id),
        (MovementType::Released, "0", id),
    ];
    assert_eq!((after_the_grant(&movements), movements[0].hold_id.as_str()), (expected.to_vec(), ""));
    assert_eq!(draws(&movements[3].draws), [("main", "10", "90")]);
    let ids: Vec<_> = movements[2..].iter().map(|own| own.movement_id.clone()).collect();
    assert_eq!(receipt.movement_ids, ids);
    assert_eq!(movements[3].operation_id, receipt.operation_id);
    sound(node).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn captures_that_keep_a_hold_open_add_up_and_what_exceeds_it_is_debited_in_the_same_step() {
    let mut node = Running::start().await;
    node.wallet_with(WHO, "main", vec![tranche("100", Purchased)]).await;
    let id = place(&mut node, hold_request(WHO, "main", "30")).await;
    for (captured, left, settled) in [("10", "20", "90"), ("20", "10", "80")] {
        let part = node.capture(keeping_open(&id, "10")).await.expect("a part");
        assert_eq!(told(part.hold.as_ref()), (Open, captured, "0", left, "0"));
        assert_eq!((part.amount.as_str(), part.released.as_str()), ("10", "0"));
        assert_eq!(figures(&of_receipt(part.receipt.as_ref()).balances[0]), ("70", left, settled));
    }

    let beyond = node.capture(keeping_open(&id, "25")).await.expect("10 of the hold, and 15 more");

    assert_eq!(drawn(beyond.receipt.as_ref()), [("main", "10", "70"), ("main", "15", "55")]);
    assert_eq!(told(beyond.hold.as_ref()), (Open, "30", "0", "0", "15"));
    assert_eq!((beyond.amount.as_str(), beyond.remaining.as_str()), ("25", "55"));
    // Nothing is left, and it is open until it is closed. That moves no credits.
    let closed = node.capture(capture_request(WHO, &id, "")).await.expect("closed");
    let receipt = of_receipt(closed.receipt.as_ref());
    assert_eq!(told(closed.hold.as_ref()), (Captured, "30", "0", "0", "15"));
    assert_eq!((closed.amount.as_str(), closed.released.as_str()), ("0", "0"));
    assert_eq!((receipt.movement_ids.len(), receipt.draws.len()), (0, 0));
    assert!(receipt.operation_id.starts_with("op_"), "{receipt:?}");
    assert_eq!(figures(&receipt.balances[0]), ("55", "0", "55"));

    let movements = node.movements(WHO, "main").await;
    let id = id.as_str();
    let part = (MovementType::Captured, "-10", id);
    let excess = (MovementType::Consumed, "-15", id);
    let expected = [(MovementType::Held, "0", id), part, part, part, excess];
    assert_eq!(after_the_grant(&movements), expected);
    sound(node).await;
}

/// Covers: Release, Capture
#[tokio::test(flavor = "multi_thread")]
async fn all_that_is_left_may_be_captured_or_given_back() {
    let mut node = Running::start().await;
    node.wallet_with(WHO, "main", vec![tranche("100", Purchased)]).await;

    let all = place(&mut node, hold_request(WHO, "main", "30")).await;
    let whole = node.capture(keeping_open(&all, "")).await.expect("all of it");
    assert_eq!((told(whole.hold.as_ref()), whole.amount.as_str()), ((Open, "30", "0", "0", "0"), "30"));
    let none = place(&mut node, hold_request(WHO, "main", "20")).await;
    let zero = node.capture(capture_request(WHO, &none, "0")).await.expect("nothing of it");
    assert_eq!((zero.amount.as_str(), zero.released.as_str()), ("0", "20"));
    assert_eq!(told(zero.hold.as_ref()), (Captured, "0", "20", "0", "0"));
    let back = place(&mut node, hold_request(WHO, "main", "10")).await;
    let released = node.release(release_request(WHO, &back)).await.expect("a release");
    assert_eq!((released.released.as_str(), released.remaining.as_str()), ("10", "70"));
    assert_eq!(told(released.hold.as_ref()), (Released, "0", "10", "0", "0"));
    let receipt = of_receipt(released.receipt.as_ref());
    assert_eq!((receipt.draws.len(), receipt.movement_ids.len()), (0, 1));
    assert_eq!(figures(&receipt.balances[0]), ("70", "0", "70"));
    assert_eq!(node.balance(WHO, "main").await, receipt.balances[0]);
    sound(node).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn at_the_very_instant_of_its_time_out_a_hold_has_released_itself() {
    let mut node = Running::start().await;
    node.wallet_with(WHO, "main", vec![tranche("100", Purchased)]).await;
    let id = place(&mut node, hold_for("30", MINUTE)).await;

    node.set_clock(T0 + MINUTE - 1).await;
    assert_eq!(told(node.get_hold(WHO, &id).await.state.as_ref()), (Open, "0", "0", "30", "0"));
    assert_eq!(figures(&node.balance(WHO, "main").await), ("70", "30", "100"));
    node.capture(keeping_open(&id, "1")).await.expect("in time");
    node.set_clock(T0 + MINUTE).await;

    assert_eq!(figures(&node.balance(WHO, "main").await), ("99", "0", "99"));
    let hold = node.get_hold(WHO, &id).await;
    assert_eq!((told(hold.state.as_ref()), hold.pins.len()), ((Expired, "1", "29", "0", "0"), 0));
    let late = node.capture(capture_request(WHO, &id, "1")).await.expect_err("too late");
    assert_eq!((late.code(), reason(&late)), (Code::FailedPrecondition, "HOLD_EXPIRED".to_owned()));
    assert_eq!((pair(&late, "customer"), pair(&late, "hold")), (WHO.to_owned(), id.clone()));
    let late = node.extend(extend_request(WHO, &id, MINUTE)).await.expect_err("too late");
    assert_eq!(reason(&late), "HOLD_EXPIRED");
    let late = node.release(release_request(WHO, &id)).await.expect_err("too late");
    assert_eq!(reason(&late), "HOLD_EXPIRED");
    assert_eq!(node.debit(debit_request(WHO, "main", "99")).await.expect("all of it").remaining, "0");

    let movements = node.movements(WHO, "main").await;
    let id = id.as_str();
    let expected = [
        (MovementType::Held, "0", id),
        (MovementType::Captured, "-1", id),
        (MovementType::Released, "0", id),
        (MovementType::Consumed, "-99", ""),
    ];
    assert_eq!(after_the_grant(&movements), expected);
    let released = &movements[3];
    assert_eq!((&released.effective_at, released.idempotency_key.as_str()), (&Some(at(T0 + MINUTE)), ""));
    sound(node).await;
}

/// Covers: ExtendHold
#[tokio::test(flavor = "multi_thread")]
async fn a_hold_gets_more_time_never_less_and_a_day_at_most() {
    let mut node = Running::start().await;
    node.wallet_with(WHO, "main", vec![tranche("100", Purchased)]).await;
    let id = place(&mut node, hold_for("30", MINUTE)).await;
    node.set_clock(T0 + 30 * SECOND).await;

    for (ttl, until) in [(10 * SECOND, MINUTE), (MINUTE, 90 * SECOND), (DAY, DAY)] {
        let extended = node.extend(extend_request(WHO, &id, ttl)).await.expect("more time");
        let state = extended.hold.as_ref().expect("its state");
        assert_eq!(state.expires_at, Some(at(T0 + until)));
        let receipt = of_receipt(extended.receipt.as_ref());
        assert_eq!((receipt.movement_ids.len(), receipt.draws.len()), (0, 0));
        assert!(receipt.operation_id.starts_with("op_"), "{receipt:?}");
        assert_eq!((figures(&receipt.balances[0]), extended.remaining.as_str()), (("70", "30", "100"), "70"));
    }
    node.set_clock(T0 + 90 * SECOND).await;
    assert_eq!(told(node.get_hold(WHO, &id).await.state.as_ref()), (Open, "0", "0", "30", "0"));
    node.set_clock(T0 + DAY).await;
    assert_eq!(told(node.get_hold(WHO, &id).await.state.as_ref()), (Expired, "0", "30", "0", "0"));
    sound(node).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_key_gets_the_first_answer_about_a_hold_again_and_another_request_is_refused() {
    let mut node = Running::start().await;
    node.wallet_with(WHO, "main", vec![tranche("100", Purchased)]).await;
    let hold = hold_request(WHO, "main", "30");
    let held = node.hold(hold.clone()).await.expect("a hold");
    let id = held.hold.as_ref().expect("its state").hold_id.clone();
    let extend = extend_request(WHO, &id, 10 * MINUTE);
    let extended = node.extend(extend.clone()).await.expect("more time");
    let capture = capture_request(WHO, &id, "12");
    let captured = node.capture(capture.clone()).await.expect("a capture");
    let other = place(&mut node, hold_request(WHO, "main", "5")).await;
    let release = release_request(WHO, &other);
    let released = node.release(release.clone()).await.expect("a release");
    node.grant(WHO, "main", vec![tranche("50", Purchased)]).await;
    node.set_clock(T0 + SECOND).await;
    let before = books(&mut node).await;

    let mut again = node.hold(hold.clone()).await.expect("the answer of then");
    as_at_first(&mut again.receipt, &held.receipt);
    assert_eq!(again, held);
    let mut again = node.extend(extend.clone()).await.expect("the answer of then");
    as_at_first(&mut again.receipt, &extended.receipt);
    assert_eq!(again, extended);
    let mut again = node.capture(capture.clone()).await.expect("the answer of then");
    as_at_first(&mut again.receipt, &captured.receipt);
    assert_eq!(again, captured);
    let mut again = node.release(release.clone()).await.expect("the answer of then");
    as_at_first(&mut again.receipt, &released.receipt);
    assert_eq!(again, released);

    let hold_key = hold.idempotency_key.clone();
    let reused = [
        Ask::Hold(v1::HoldRequest { amount: "31".to_owned(), ..hold.clone() }),
        // The default written out is another request than none.
        Ask::Hold(v1::HoldRequest { ttl: Some(lasting(TTL)), ..hold }),
        Ask::Extend(v1::ExtendHoldRequest { ttl: Some(lasting(MINUTE)), ..extend }),
        Ask::Capture(v1::CaptureRequest { keep_open: true, ..capture.clone() }),
        Ask::Capture(v1::CaptureRequest { amount: String::new(), ..capture }),
        Ask::Release(v1::ReleaseRequest { hold_id: id, ..release.clone() }),
        Ask::Release(v1::ReleaseRequest { idempotency_key: hold_key, ..release }),
    ];
    for ask in reused {
        let refused = refused(&mut node, ask).await;
        let expected = (Code::FailedPrecondition, "IDEMPOTENCY_KEY_REUSED".to_owned());
        assert_eq!((refused.code(), reason(&refused)), expected);
    }
    assert_eq!(books(&mut node).await, before);
    sound(node).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_denied_capture_stays_denied_after_a_refill_and_leaves_the_hold_open() {
    let mut node = Running::start().await;
    node.wallet_with(WHO, "main", vec![tranche("10", Purchased)]).await;
    let id = place(&mut node, hold_request(WHO, "main", "8")).await;
    let capture = capture_request(WHO, &id, "11");
    for replayed in ["false", "true"] {
        let short = node.capture(capture.clone()).await.expect_err("1 too much");
        // The excess: 3 of 2.
        let pairs = ["available", "required", "replayed"].map(|name| pair(&short, name));
        assert_eq!(
            (reason(&short), pairs.each_ref().map(String::as_str)),
            ("INSUFFICIENT_CREDITS".to_owned(), ["2", "3", replayed])
        );
        node.grant(WHO, "main", vec![tranche("10", Purchased)]).await;
    }
    let fresh = v1::CaptureRequest { idempotency_key: fresh_key(), ..capture };
    let captured = node.capture(fresh).await.expect("a new attempt");
    assert_eq!(told(captured.hold.as_ref()), (Captured, "8", "0", "0", "3"));
    sound(node).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hold_by_asset_pins_over_wallets_in_draw_order_and_its_excess_asks_all_of_them() {
    let mut node = Running::start().await;
    let later = v1::CreateWalletRequest { draw_priority: Some(200), ..create_request(WHO, "later", 0) };
    let sooner = v1::CreateWalletRequest { draw_priority: Some(10), ..create_request(WHO, "sooner", 0) };
    node.create(later).await;
    node.create(sooner).await;
    node.grant(WHO, "later", vec![tranche("50", Purchased)]).await;
    node.grant(WHO, "sooner", vec![tranche("30", Purchased)]).await;

    let held = node.hold(hold_by_asset("40")).await.expect("a hold");

    assert_eq!(drawn(held.receipt.as_ref()), [("sooner", "30", "0"), ("later", "10", "40")]);
    let balances = &of_receipt(held.receipt.as_ref()).balances;
    let each: Vec<_> = balances.iter().map(|own| (own.wallet.as_str(), figures(own))).collect();
    assert_eq!(each, [("sooner", ("0", "30", "30")), ("later", ("40", "10", "50"))]);
    assert_eq!(held.remaining, "40");
    let id = held.hold.expect("its state").hold_id;
    let hold = node.get_hold(WHO, &id).await;
    assert_eq!(hold.wallets, ["sooner", "later"]);
    let pins: Vec<_> = hold.pins.iter().map(|own| (own.wallet.as_str(), own.amount.as_str())).collect();
    assert_eq!(pins, [("sooner", "30"), ("later", "10")]);
    for wallet in ["sooner", "later"] {
        assert_eq!(listed(&mut node, list_in(wallet)).await.0, [id.as_str()]);
    }

    let captured = node.capture(capture_request(WHO, &id, "35")).await.expect("a capture");
    assert_eq!(drawn(captured.receipt.as_ref()), [("sooner", "30", "0"), ("later", "5", "40")]);
    assert_eq!((captured.released.as_str(), captured.remaining.as_str()), ("5", "45"));

    let id = place(&mut node, hold_by_asset("10")).await;
    node.grant(WHO, "sooner", vec![tranche("5", Purchased)]).await;
    let beyond = node.capture(capture_request(WHO, &id, "12")).await.expect("2 more");
    assert_eq!(drawn(beyond.receipt.as_ref()), [("later", "10", "35"), ("sooner", "2", "3")]);
    assert_eq!(beyond.remaining, "38");

    // Each wallet books the time-out of its own part: 3 in the one, 7 in the other.
    let id = place(&mut node, hold_by_asset("10")).await;
    node.set_clock(T0 + TTL).await;
    let payer = Some(v1::debit_request::Payer::Asset(asset(0)));
    let debit = v1::DebitRequest { payer, ..debit_request(WHO, "", "38") };
    assert_eq!(node.debit(debit).await.expect("all of it").remaining, "0");
    for (wallet, amount, left) in [("sooner", "3", "3"), ("later", "7", "35")] {
        let movements = node.movements(WHO, wallet).await;
        let [.., released, _] = movements.as_slice() else { panic!("too few: {movements:?}") };
        assert_eq!((released.r#type(), &released.hold_id), (MovementType::Released, &id));
        assert_eq!(released.effective_at, Some(at(T0 + TTL)));
        assert_eq!(draws(&released.draws), [(wallet, amount, left)]);
    }
    assert_eq!(told(node.get_hold(WHO, &id).await.state.as_ref()), (Expired, "0", "10", "0", "0"));
    sound(node).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_expires_while_it_is_held_may_be_captured_and_is_gone_when_it_is_released() {
    let mut node = Running::start().await;
    node.wallet_with(WHO, "main", vec![expiring("10", Plan, T0 + MINUTE), tranche("4", Purchased)]).await;
    let id = place(&mut node, hold_request(WHO, "main", "12")).await;
    node.set_clock(T0 + MINUTE).await;
    assert_eq!(figures(&node.balance(WHO, "main").await), ("2", "12", "14"));
    let counted = broken_down(&mut node).await;
    let tranches: Vec<_> = counted.tranches.iter().map(|own| (own.status(), own.held.as_str())).collect();
    assert_eq!(tranches, [(v1::TrancheStatus::Expired, "10"), (v1::TrancheStatus::Active, "2")]);
    assert_eq!(kinds(&counted), [(Plan, "0", "10"), (Purchased, "2", "2")]);

    let before = books(&mut node).await;
    let refused =
        node.extend(extend_request(WHO, &id, 10 * MINUTE)).await.expect_err("too late for the plan");
    let expected = (Code::FailedPrecondition, "TRANCHE_NOT_ACTIVE".to_owned());
    assert_eq!((refused.code(), reason(&refused)), expected);
    assert_eq!((pair(&refused, "customer"), pair(&refused, "hold")), (WHO.to_owned(), id.clone()));
    assert_eq!(books(&mut node).await, before);

    let captured = node.capture(capture_request(WHO, &id, "7")).await.expect("a capture");

    assert_eq!(drawn(captured.receipt.as_ref()), [("main", "7", "0")]);
    assert_eq!((captured.amount.as_str(), captured.released.as_str()), ("7", "5"));
    assert_eq!(told(captured.hold.as_ref()), (Captured, "7", "5", "0", "0"));
    assert_eq!(figures(&of_receipt(captured.receipt.as_ref()).balances[0]), ("4", "0", "4"));
    let movements = node.movements(WHO, "main").await;
    let id = id.as_str();
    let expected = [
        (MovementType::Held, "0", id),
        (MovementType::Captured, "-7", id),
        (MovementType::Released, "0", id),
        (MovementType::Expired, "-3", id),
    ];
    assert_eq!(after_the_grant(&movements), expected);
    assert_eq!(
        (draws(&movements[3].draws), draws(&movements[4].draws)),
        (vec![("main", "2", "4")], vec![("main", "3", "0")])
    );
    let list =
        v1::ListTranchesRequest { customer: WHO.to_owned(), wallet: "main".to_owned(), ..Default::default() };
    let rows = node.ledger.list_tranches(list).await.expect("tranches").into_inner().tranches;
    let plan = (rows[0].status(), rows[0].consumed.as_str(), rows[0].expired.as_str(), rows[0].held.as_str());
    assert_eq!(plan, (v1::TrancheStatus::Expired, "7", "3", "0"));
    sound(node).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_wallet_takes_no_hold_and_no_excess_but_captures_releases_and_extends() {
    let mut node = Running::start().await;
    node.wallet_with(WHO, "main", vec![tranche("100", Purchased)]).await;
    let one = place(&mut node, hold_request(WHO, "main", "10")).await;
    let two = place(&mut node, hold_by_asset("10")).await;
    node.freeze(WHO, "main", true).await;

    let before = books(&mut node).await;
    for ask in [
        Ask::Hold(hold_request(WHO, "main", "1")),
        Ask::Hold(hold_by_asset("1")),
        Ask::Capture(capture_request(WHO, &one, "11")),
        Ask::Capture(capture_request(WHO, &two, "11")),
    ] {
        let refused = refused(&mut node, ask).await;
        let expected = (Code::FailedPrecondition, "WALLET_FROZEN".to_owned());
        assert_eq!((refused.code(), reason(&refused)), expected);
        assert_eq!(books(&mut node).await, before);
    }

    node.extend(extend_request(WHO, &one, 10 * MINUTE)).await.expect("more time");
    let captured = node.capture(capture_request(WHO, &one, "4")).await.expect("within the hold");
    assert_eq!(told(captured.hold.as_ref()), (Captured, "4", "6", "0", "0"));
    let released = node.release(release_request(WHO, &two)).await.expect("a release");
    assert_eq!((released.released.as_str(), released.remaining.as_str()), ("10", "0"));
    assert_eq!(figures(&node.balance(WHO, "main").await), ("96", "0", "96"));
    sound(node).await;
}

/// A write about a hold that is to be refused.
enum Ask {
    Hold(v1::HoldRequest),
    Extend(v1::ExtendHoldRequest),
    Capture(v1::CaptureRequest),
    Release(v1::ReleaseRequest),
}

async fn refused(node: &mut Running, ask: Ask) -> Status {
    let refused = match ask {
        Ask::Hold(request) => node.hold(request).await.err(),
        Ask::Extend(request) => node.extend(request).await.err(),
        Ask::Capture(request) => node.capture(request).await.err(),
        Ask::Release(request) => node.release(request).await.err(),
    };
    refused.expect("a refusal")
}

/// What a refusal must leave as it is.
async fn books(node: &mut Running) -> (v1::Balance, Vec<v1::Movement>) {
    (node.balance(WHO, "main").await, node.movements(WHO, "main").await)
}

#[tokio::test(flavor = "multi_thread")]
async fn each_refusal_says_why_and_about_what_and_changes_nothing() {
    let mut node = Running::start().await;
    let for_search = v1::TrancheSpec { features: vec!["search".to_owned()], ..tranche("5", Promotional) };
    node.create(create_request(WHO, "main", 2)).await;
    node.grant(WHO, "main", vec![tranche("10", Purchased), for_search]).await;
    node.wallet_with("bob", "main", vec![tranche("10", Purchased)]).await;
    let closed = place(&mut node, hold_request(WHO, "main", "1")).await;
    node.release(release_request(WHO, &closed)).await.expect("a release");
    let over = place(&mut node, hold_for("1", SECOND)).await;
    let open = place(&mut node, hold_request(WHO, "main", "8")).await;
    node.set_clock(T0 + SECOND).await;
    // Books what is due.
    node.grant(WHO, "main", vec![tranche("1", Purchased)]).await;
    let nowhere = "hld_0000000000000".to_owned();
    let of_hold = |id: &str| vec![("customer", WHO.to_owned()), ("hold", id.to_owned())];
    let of_bob = |id: &str| vec![("customer", "bob".to_owned()), ("hold", id.to_owned())];
    let short = |required: &str| vec![("available", "3.00".to_owned()), ("required", required.to_owned())];
    let (conflict, missing) = (Code::FailedPrecondition, Code::NotFound);
    let before = books(&mut node).await;
    assert_eq!(figures(&before.0), ("8.00", "8.00", "16.00"));

    let cases = [
        (Ask::Extend(extend_request(WHO, &nowhere, SECOND)), missing, "HOLD_NOT_FOUND", of_hold(&nowhere)),
        (Ask::Capture(capture_request(WHO, &nowhere, "1")), missing, "HOLD_NOT_FOUND", of_hold(&nowhere)),
        (Ask::Release(release_request(WHO, &nowhere)), missing, "HOLD_NOT_FOUND", of_hold(&nowhere)),
        (Ask::Extend(extend_request("bob", &open, SECOND)), missing, "HOLD_NOT_FOUND", of_bob(&open)),
        (Ask::Capture(capture_request("bob", &open, "1")), missing, "HOLD_NOT_FOUND", of_bob(&open)),
        (Ask::Release(release_request("bob", &open)), missing, "HOLD_NOT_FOUND", of_bob(&open)),
        (Ask::Release(release_request("nobody", &open)), missing, "CUSTOMER_NOT_FOUND", vec![]),
        (Ask::Hold(hold_request("nobody", "main", "1")), missing, "CUSTOMER_NOT_FOUND", vec![]),
        (
            Ask::Hold(hold_request(WHO, "none", "1")),
            missing,
            "WALLET_NOT_FOUND",
            vec![("wallet", "none".to_owned())],
        ),
        (Ask::Hold(hold_by_asset("1")), missing, "WALLET_NOT_FOUND", vec![("asset", "credits/0".to_owned())]),
        (Ask::Extend(extend_request(WHO, &closed, SECOND)), conflict, "HOLD_CLOSED", of_hold(&closed)),
        (Ask::Capture(capture_request(WHO, &closed, "1")), conflict, "HOLD_CLOSED", of_hold(&closed)),
        (Ask::Release(release_request(WHO, &closed)), conflict, "HOLD_CLOSED", of_hold(&closed)),
        (Ask::Extend(extend_request(WHO, &over, SECOND)), conflict, "HOLD_EXPIRED", of_hold(&over)),
        (Ask::Capture(capture_request(WHO, &over, "1")), conflict, "HOLD_EXPIRED", of_hold(&over)),
        (Ask::Release(release_request(WHO, &over)), conflict, "HOLD_EXPIRED", of_hold(&over)),
        (Ask::Hold(hold_request(WHO, "main", "3.01")), conflict, "INSUFFICIENT_CREDITS", short("3.01")),
        (Ask::Capture(capture_request(WHO, &open, "11.5")), conflict, "INSUFFICIENT_CREDITS", short("3.50")),
        (Ask::Capture(keeping_open(&open, "11.5")), conflict, "INSUFFICIENT_CREDITS", of_hold(&open)),
        (
            Ask::Hold(hold_request(WHO, "main", "0.001")),
            Code::InvalidArgument,
            "INVALID_AMOUNT_PRECISION",
            vec![],
        ),
        (
            Ask::Capture(capture_request(WHO, &open, "0.001")),
            Code::InvalidArgument,
            "INVALID_AMOUNT_PRECISION",
            vec![],
        ),
        (
            Ask::Capture(capture_request(WHO, &open, &"9".repeat(39))),
            Code::OutOfRange,
            "AMOUNT_OVERFLOW",
            vec![],
        ),
    ];
    for (place, (ask, code, name, pairs)) in cases.into_iter().enumerate() {
        let refused = refused(&mut node, ask).await;
        assert_eq!((refused.code(), reason(&refused).as_str()), (code, name), "case {place}: {refused:?}");
        for (name, value) in pairs {
            assert_eq!(pair(&refused, name), value, "case {place}: {name}");
        }
        assert_eq!(books(&mut node).await, before, "case {place}");
    }

    // What fits is set aside too; what is left is for searches only.
    let rest = place(&mut node, hold_request(WHO, "main", "3")).await;
    let before = books(&mut node).await;
    let scoped =
        |amount: &str| v1::HoldRequest { feature: "chat".to_owned(), ..hold_request(WHO, "main", amount) };
    for ask in [Ask::Hold(scoped("1")), Ask::Capture(capture_request(WHO, &rest, "4"))] {
        let refused = refused(&mut node, ask).await;
        assert_eq!((refused.code(), reason(&refused).as_str()), (conflict, "NO_ELIGIBLE_TRANCHE"));
        assert_eq!(books(&mut node).await, before);
    }
    assert_eq!(told(node.get_hold(WHO, &open).await.state.as_ref()).3, "8.00");
    sound(node).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hold_pays_for_its_feature_and_charge_type_and_so_does_its_excess() {
    let mut node = Running::start().await;
    let for_search = v1::TrancheSpec {
        features: vec!["search".to_owned()],
        charge_scope: v1::ChargeScope::Usage.into(),
        ..tranche("10", Promotional)
    };
    node.wallet_with(WHO, "main", vec![for_search, tranche("1", Purchased)]).await;
    let request = v1::HoldRequest {
        feature: "search".to_owned(),
        charge_type: v1::ChargeType::Usage.into(),
        reference: "request-7".to_owned(),
        reason_code: "call".to_owned(),
        metadata: [("team".to_owned(), "a".to_owned())].into(),
        ..hold_request(WHO, "main", "8")
    };
    let id = place(&mut node, request).await;

    let hold = node.get_hold(WHO, &id).await;
    assert_eq!(
        (hold.customer.as_str(), hold.feature.as_str(), hold.charge_type()),
        (WHO, "search", v1::ChargeType::Usage)
    );
    assert_eq!((hold.reference.as_str(), hold.reason_code.as_str()), ("request-7", "call"));
    assert_eq!(hold.metadata.get("team").map(String::as_str), Some("a"));
    let capture = v1::CaptureRequest { reference: "answer-7".to_owned(), ..capture_request(WHO, &id, "10") };
    let captured = node.capture(capture).await.expect("8, and 2 more of the same");

    assert_eq!(drawn(captured.receipt.as_ref()), [("main", "8", "2"), ("main", "2", "0")]);
    assert_eq!(captured.remaining, "1");
    let movements = node.movements(WHO, "main").await;
    let lines: Vec<_> = movements[1..]
        .iter()
        .map(|own| (own.r#type(), own.reference.as_str(), own.feature.as_str(), own.charge_type()))
        .collect();
    let usage = v1::ChargeType::Usage;
    let expected = [
        (MovementType::Held, "request-7", "search", usage),
        (MovementType::Captured, "answer-7", "search", usage),
        (MovementType::Consumed, "answer-7", "search", usage),
    ];
    assert_eq!(lines, expected);
    sound(node).await;
}

fn list_in(wallet: &str) -> v1::ListHoldsRequest {
    v1::ListHoldsRequest { customer: WHO.to_owned(), wallet: wallet.to_owned(), ..Default::default() }
}

/// The ids of a page of holds, and the cursors around it.
async fn listed(node: &mut Running, request: v1::ListHoldsRequest) -> (Vec<String>, v1::PageInfo) {
    let answer = node.ledger.list_holds(request).await.expect("holds").into_inner();
    let id = |own: v1::Hold| own.state.expect("a state").hold_id;
    (answer.holds.into_iter().map(id).collect(), answer.page.expect("cursors"))
}

/// Ten holds of 1 under `request-0` to `request-9`. Of them 0 is captured, 1 released, 2 timed out.
async fn ten_holds(node: &mut Running) -> Vec<String> {
    node.wallet_with(WHO, "main", vec![tranche("100", Purchased)]).await;
    let mut ids = Vec::new();
    for number in 0..10 {
        let ttl = if number == 2 { SECOND } else { MINUTE };
        let reference = format!("request-{number}");
        ids.push(place(node, v1::HoldRequest { reference, ..hold_for("1", ttl) }).await);
    }
    node.capture(capture_request(WHO, &ids[0], "")).await.expect("a capture");
    node.release(release_request(WHO, &ids[1])).await.expect("a release");
    node.set_clock(T0 + SECOND).await;
    ids
}

/// Covers: ListHolds
#[tokio::test(flavor = "multi_thread")]
async fn holds_are_walked_by_cursor_to_their_end_and_back() {
    let mut node = Running::start().await;
    let ids = ten_holds(&mut node).await;
    let page = |cursor: &str| {
        let page = v1::PageRequest { size: 4, cursor: cursor.to_owned(), ..Default::default() };
        v1::ListHoldsRequest { page: Some(page), ..list_in("main") }
    };

    let (rows, first) = listed(&mut node, page("")).await;
    assert_eq!((rows.as_slice(), first.previous_cursor.as_str()), (&ids[..4], ""));
    let (rows, second) = listed(&mut node, page(&first.next_cursor)).await;
    assert_eq!(rows, ids[4..8]);
    let (rows, third) = listed(&mut node, page(&second.next_cursor)).await;
    assert_eq!((rows.as_slice(), third.next_cursor.as_str()), (&ids[8..], ""));
    let (rows, _) = listed(&mut node, page(&third.previous_cursor)).await;
    assert_eq!(rows, ids[4..8]);

    let newest = v1::PageRequest { size: 3, order: v1::SortOrder::NewestFirst.into(), ..Default::default() };
    let newest = v1::ListHoldsRequest { page: Some(newest), ..list_in("main") };
    let (rows, down) = listed(&mut node, newest).await;
    assert_eq!(rows, [ids[9].as_str(), &ids[8], &ids[7]]);
    assert_eq!(
        listed(&mut node, page(&down.next_cursor)).await.0,
        [ids[6].as_str(), &ids[5], &ids[4], &ids[3]]
    );

    let foreign = v1::ListHoldsRequest { reference: "request-1".to_owned(), ..page(&first.next_cursor) };
    let refused = node.ledger.list_holds(foreign).await.expect_err("another question");
    assert_eq!(
        (reason(&refused).as_str(), fields(&refused)),
        ("INVALID_ARGUMENT", vec!["page.cursor".to_owned()])
    );
    for number in ["0000000000000000", "ffffffffffffffff"] {
        for way in ["00", "01", "02", "03"] {
            let forged = format!("01{way}{number}{}", &first.next_cursor[20..]);
            let refused = node.ledger.list_holds(page(&forged)).await.expect_err("forged");
            assert_eq!(reason(&refused), "INVALID_ARGUMENT", "{forged}");
        }
    }
    sound(node).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn holds_are_filtered_by_status_and_reference_as_they_are_when_they_are_read() {
    let mut node = Running::start().await;
    let ids = ten_holds(&mut node).await;
    let of = |statuses: &[v1::HoldStatus]| v1::ListHoldsRequest {
        statuses: statuses.iter().map(|own| i32::from(*own)).collect(),
        ..list_in("main")
    };
    for (statuses, expected) in [
        (vec![], &ids[..]),
        (vec![Captured], &ids[..1]),
        (vec![Released], &ids[1..2]),
        (vec![Expired], &ids[2..3]),
        (vec![Expired, Captured, Released], &ids[..3]),
        (vec![Open], &ids[3..]),
    ] {
        assert_eq!(listed(&mut node, of(&statuses)).await.0, expected, "{statuses:?}");
    }
    let by_reference = v1::ListHoldsRequest { reference: "request-4".to_owned(), ..list_in("main") };
    assert_eq!(listed(&mut node, by_reference).await.0, ids[4..5]);
    let neither = v1::ListHoldsRequest { reference: "request-0".to_owned(), ..of(&[Open]) };
    assert_eq!(listed(&mut node, neither).await.0, [""; 0]);
    node.set_clock(T0 + MINUTE).await;
    assert_eq!(listed(&mut node, of(&[Open])).await.0, [""; 0]);
    assert_eq!(listed(&mut node, of(&[Expired])).await.0, ids[2..]);
    sound(node).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hold_is_read_by_its_customer_only() {
    let mut node = Running::start().await;
    node.wallet_with(WHO, "main", vec![tranche("10", Purchased)]).await;
    node.create(create_request("bob", "main", 0)).await;
    let id = place(&mut node, hold_request(WHO, "main", "4")).await;
    for (customer, hold, expected) in [
        ("bob", id.as_str(), "HOLD_NOT_FOUND"),
        (WHO, "hld_0000000000000", "HOLD_NOT_FOUND"),
        ("nobody", id.as_str(), "CUSTOMER_NOT_FOUND"),
    ] {
        let request = v1::GetHoldRequest {
            customer: customer.to_owned(),
            hold_id: hold.to_owned(),
            ..Default::default()
        };
        let refused = node.ledger.get_hold(request).await.expect_err(expected);
        assert_eq!((refused.code(), reason(&refused).as_str()), (Code::NotFound, expected));
        assert_eq!(pair(&refused, "customer"), customer);
    }
    let elsewhere =
        v1::GetHoldRequest { namespace: "staging".to_owned(), customer: WHO.to_owned(), hold_id: id };
    let refused = node.ledger.get_hold(elsewhere).await.expect_err("another namespace");
    assert_eq!(reason(&refused), "CUSTOMER_NOT_FOUND");
    let of_bob = v1::ListHoldsRequest { customer: "bob".to_owned(), ..list_in("main") };
    assert_eq!(listed(&mut node, of_bob).await.0, [""; 0]);
    let refused = node.ledger.list_holds(list_in("none")).await.expect_err("no wallet");
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::NotFound, "WALLET_NOT_FOUND"));
    sound(node).await;
}

/// The balance of `main`, by kind, by tranche, by hold.
async fn broken_down(node: &mut Running) -> v1::WalletBalance {
    let request = v1::GetBalanceRequest {
        customer: WHO.to_owned(),
        wallet: "main".to_owned(),
        by_kind: true,
        by_tranche: true,
        by_hold: true,
        ..Default::default()
    };
    let mut answer = node.ledger.get_balance(request).await.expect("a balance").into_inner();
    answer.wallets.remove(0)
}

/// Kind, available, held.
fn kinds(balance: &v1::WalletBalance) -> Vec<(v1::TrancheKind, &str, &str)> {
    let kinds = balance.kinds.iter();
    kinds.map(|own| (own.kind(), own.available.as_str(), own.held.as_str())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_balance_breaks_down_what_is_held_by_kind_by_tranche_and_by_hold() {
    let mut node = Running::start().await;
    node.wallet_with(WHO, "main", vec![tranche("50", Plan), tranche("100", Purchased)]).await;
    let long = place(&mut node, hold_for("30", 2 * MINUTE)).await;
    let short = place(&mut node, hold_for("40", MINUTE)).await;
    let closed = place(&mut node, hold_request(WHO, "main", "5")).await;
    node.release(release_request(WHO, &closed)).await.expect("a release");

    let balance = broken_down(&mut node).await;

    // 30 and 20 of the plan, 20 of what was bought.
    assert_eq!(figures(balance.balance.as_ref().expect("totals")), ("80", "70", "150"));
    assert_eq!(kinds(&balance), [(Plan, "0", "50"), (Purchased, "80", "20")]);
    let tranches: Vec<_> = balance
        .tranches
        .iter()
        .map(|own| (own.available.as_str(), own.held.as_str(), own.status()))
        .collect();
    let active = v1::TrancheStatus::Active;
    assert_eq!(tranches, [("0", "50", active), ("80", "20", active)]);
    // The first to time out first.
    let holds: Vec<_> =
        balance.holds.iter().map(|own| own.state.as_ref().expect("a state").hold_id.as_str()).collect();
    assert_eq!((holds, balance.open_holds, balance.holds_truncated), (vec![short.as_str(), &long], 2, false));
    let pins: Vec<_> = balance.holds[0].pins.iter().map(|own| (own.kind(), own.amount.as_str())).collect();
    assert_eq!(pins, [(Plan, "20"), (Purchased, "20")]);
    assert_eq!(node.get_hold(WHO, &short).await, balance.holds[0]);
    let all = v1::GetBalanceRequest { customer: WHO.to_owned(), ..Default::default() };
    let all = node.ledger.get_balance(all).await.expect("a balance").into_inner();
    assert_eq!(
        (figures(&all.totals[0]), all.wallets[0].holds.len(), all.wallets[0].open_holds),
        (("80", "70", "150"), 0, 2)
    );

    node.set_clock(T0 + MINUTE).await;
    let balance = broken_down(&mut node).await;
    assert_eq!((balance.open_holds, balance.holds.len()), (1, 1));
    assert_eq!(kinds(&balance), [(Plan, "20", "30"), (Purchased, "100", "0")]);
    sound(node).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn movements_are_filtered_by_what_holds_do() {
    let mut node = Running::start().await;
    node.wallet_with(WHO, "main", vec![tranche("100", Purchased)]).await;
    let one = place(&mut node, hold_request(WHO, "main", "10")).await;
    let two = place(&mut node, hold_request(WHO, "main", "20")).await;
    node.capture(capture_request(WHO, &one, "4")).await.expect("a capture");
    node.release(release_request(WHO, &two)).await.expect("a release");

    let (one, two) = (one.as_str(), two.as_str());
    // Granted is 1; newest first.
    for (types, expected) in [
        (vec![MovementType::Held], vec![(3, two), (2, one)]),
        (vec![MovementType::Captured], vec![(4, one)]),
        (vec![MovementType::Released], vec![(6, two), (5, one)]),
        (vec![MovementType::Captured, MovementType::Released], vec![(6, two), (5, one), (4, one)]),
        (vec![MovementType::Consumed], vec![]),
    ] {
        let request = v1::ListMovementsRequest {
            customer: WHO.to_owned(),
            wallet: "main".to_owned(),
            types: types.iter().map(|own| i32::from(*own)).collect(),
            ..Default::default()
        };
        let rows = node.ledger.list_movements(request).await.expect("movements").into_inner().movements;
        let rows: Vec<_> = rows.iter().map(|own| (own.sequence, own.hold_id.as_str())).collect();
        assert_eq!(rows, expected, "{types:?}");
    }
    let all = node.movements(WHO, "main").await;
    for pair in all.windows(2) {
        assert_eq!(
            (&pair[1].previous_hash, &pair[1].balance_before),
            (&pair[0].hash, &pair[0].balance_after)
        );
    }
    sound(node).await;
}
