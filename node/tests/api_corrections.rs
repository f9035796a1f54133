//! Refunds and corrections over gRPC, on a test clock: what comes back, what is gone again at once, and
//! what is refused. The core's own stories are in `ledger/tests/life_stories.rs`.

mod node_support;

use node_support::{
    Running, SECOND, T0, Write, account, adjust_request, as_at_first, asset, at, capture_request,
    create_request, debit_request, drawn, expiring, fields, figures, grant_request, hold_request, lasting,
    moves, of_receipt, pair, reason, refund_request, release_request, tranche, unpaid, void_request,
};
use purser_proto::v1;
use v1::MovementStatus::Posted;
use v1::MovementType::{
    Adjusted, Captured, Consumed, Expired as Lapsed, Granted, Refunded, Voided as Withdrawn,
};
use v1::TrancheKind::{Correction, Plan, Promotional, Purchased};
use v1::TrancheStatus::{Active, Exhausted, Expired, Voided};

const WHO: &str = "acme";
const MAIN: (&str, &str) = (WHO, "main");
const MINUTE: u64 = 60 * SECOND;
const HOUR: u64 = 60 * MINUTE;

/// A node whose wallet `main` of `credits/0` has these tranches, and their ids.
async fn with_tranches(tranches: Vec<v1::TrancheSpec>) -> (Running, Vec<String>) {
    let mut node = Running::start().await;
    node.create(create_request(WHO, "main", 0)).await;
    let granted = node.grant(WHO, "main", tranches).await;
    (node, granted.tranches.into_iter().map(|own| own.tranche_id).collect())
}

/// Debits `main`; the movement's id.
async fn spend(node: &mut Running, amount: &str) -> String {
    let debit = node.debit(debit_request(WHO, "main", amount)).await.expect("a debit");
    let [id] = of_receipt(debit.receipt.as_ref()).movement_ids.as_slice() else { panic!("{debit:?}") };
    id.clone()
}

async fn place(node: &mut Running, amount: &str) -> String {
    let held = node.hold(hold_request(WHO, "main", amount)).await.expect("a hold");
    held.hold.expect("its state").hold_id
}

/// A refund; an empty amount is all that is left.
fn back(movement_id: &str, amount: &str) -> v1::RefundRequest {
    refund_request(WHO, movement_id, amount)
}

/// A refund that restores what has expired for so long.
fn back_for(movement_id: &str, amount: &str, grace: u64) -> v1::RefundRequest {
    v1::RefundRequest { grace: Some(lasting(grace)), ..back(movement_id, amount) }
}

fn correction(amount: &str) -> v1::AdjustRequest {
    adjust_request(WHO, "main", amount)
}

/// A correction down of one tranche.
fn correction_of(tranche_id: &str, amount: &str) -> v1::AdjustRequest {
    v1::AdjustRequest { tranche_id: tranche_id.to_owned(), ..correction(amount) }
}

/// What came back, what of it was forfeited, what of it was voided.
fn came_back(own: &v1::RefundResponse) -> [&str; 3] {
    [&own.amount, &own.forfeited, &own.voided]
}

async fn look(node: &mut Running, tranche_id: &str) -> v1::Tranche {
    let tranches = node.tranches(WHO, "main").await;
    tranches.into_iter().find(|own| own.tranche_id == tranche_id).expect("a tranche")
}

async fn exceeds(node: &mut Running, refund: v1::RefundRequest) {
    let movement = refund.movement_id.clone();
    let pairs = [("customer", WHO), ("movement", movement.as_str())];
    node.refuses(MAIN, Write::Refund(refund), "REFUND_EXCEEDS_DEBIT", &pairs).await;
}

async fn sound(mut node: Running) {
    assert_eq!(node.audit(WHO).await.findings, []);
    node.stop().await;
}

// ---- refunds -----------------------------------------------------------------------------------

/// Covers: Refund
#[tokio::test(flavor = "multi_thread")]
async fn refunds_go_back_to_the_very_tranches_last_drawn_first_until_nothing_is_left() {
    let (mut node, ids) = with_tranches(vec![expiring("5", Plan, T0 + HOUR), tranche("10", Purchased)]).await;
    let [plan, bought] = [0, 1].map(|place| ids[place].as_str());
    // 5 of the plan and 7 of what was bought.
    let spent = spend(&mut node, "12").await;
    let request = v1::RefundRequest {
        reference: "ticket-1".to_owned(),
        reason_code: "outage".to_owned(),
        metadata: [("by".to_owned(), "a".to_owned())].into(),
        ..back(&spent, "9")
    };

    let refunded = node.refund(request).await.expect("a refund");

    assert_eq!(came_back(&refunded), ["9", "0", "0"]);
    let receipt = of_receipt(refunded.receipt.as_ref());
    assert_eq!(drawn(&receipt.draws), [(bought, "7", "10"), (plan, "2", "2")]);
    assert_eq!(figures(&receipt.balances[0]), ["12", "0", "0", "12"]);
    assert_eq!(node.balance(WHO, "main").await, receipt.balances[0]);
    assert_eq!(account(&look(&mut node, plan).await), (Active, ["0", "2", "0", "3", "0", "0"]));
    assert_eq!(account(&look(&mut node, bought).await), (Active, ["0", "10", "0", "0", "0", "0"]));
    let movements = node.movements(WHO, "main").await;
    assert_eq!(
        moves(&movements),
        [(Granted, Posted, "15"), (Consumed, Posted, "-12"), (Refunded, Posted, "9")]
    );
    let movement = &movements[2];
    assert_eq!((&movement.corrects, movements[1].corrects.as_str()), (&spent, ""));
    assert_eq!(receipt.movement_ids, [movement.movement_id.as_str()]);
    assert_eq!(movement.draws, receipt.draws);
    assert_eq!((movement.reference.as_str(), movement.reason_code.as_str()), ("ticket-1", "outage"));
    assert_eq!(movement.metadata.get("by").map(String::as_str), Some("a"));

    exceeds(&mut node, back(&spent, "4")).await;
    let part = node.refund(back(&spent, "1")).await.expect("a refund");
    assert_eq!(drawn(&of_receipt(part.receipt.as_ref()).draws), [(plan, "1", "3")]);
    exceeds(&mut node, back(&spent, "3")).await;
    let rest = node.refund(back(&spent, "")).await.expect("all that is left");
    assert_eq!(came_back(&rest), ["2", "0", "0"]);
    assert_eq!(drawn(&of_receipt(rest.receipt.as_ref()).draws), [(plan, "2", "5")]);
    for amount in ["", "1", "1000"] {
        exceeds(&mut node, back(&spent, amount)).await;
    }
    assert_eq!(figures(&node.balance(WHO, "main").await), ["15", "0", "0", "15"]);
    // What came back may be spent, and refunded, like any other.
    let again = spend(&mut node, "15").await;
    node.refund(back(&again, "15")).await.expect("a refund");
    exceeds(&mut node, back(&spent, "1")).await;
    sound(node).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_debit_by_asset_is_refunded_wallet_by_wallet() {
    let mut node = Running::start().await;
    let sooner = v1::CreateWalletRequest { draw_priority: Some(1), ..create_request(WHO, "sooner", 0) };
    node.create(create_request(WHO, "main", 0)).await;
    node.create(sooner).await;
    node.grant(WHO, "main", vec![tranche("5", Purchased)]).await;
    node.grant(WHO, "sooner", vec![tranche("5", Purchased)]).await;
    let payer = Some(v1::debit_request::Payer::Asset(asset(0)));
    let debit = v1::DebitRequest { payer, ..debit_request(WHO, "", "8") };
    let debit = node.debit(debit).await.expect("a debit");
    let [first, second] = of_receipt(debit.receipt.as_ref()).movement_ids.as_slice() else {
        panic!("two movements: {debit:?}")
    };

    let refunded = node.refund(back(second, "")).await.expect("a refund");

    assert_eq!(came_back(&refunded), ["3", "0", "0"]);
    let receipt = of_receipt(refunded.receipt.as_ref());
    let wallets: Vec<_> = receipt.balances.iter().map(|own| own.wallet.as_str()).collect();
    assert_eq!((wallets, receipt.draws[0].wallet.as_str()), (vec!["main"], "main"));
    assert_eq!(node.balance(WHO, "main").await.available, "5");
    assert_eq!(node.balance(WHO, "sooner").await.available, "0");
    for (movement, amount) in [(first, "6"), (second, "1")] {
        exceeds(&mut node, back(movement, amount)).await;
    }
    node.refund(back(first, "5")).await.expect("a refund");
    assert_eq!(node.balance(WHO, "sooner").await.available, "5");
    let movements = node.movements(WHO, "sooner").await;
    let last = movements.last().expect("a movement");
    assert_eq!((last.r#type(), &last.corrects), (Refunded, first));
    sound(node).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_capture_and_what_exceeds_its_hold_are_refunded_each_by_its_movement() {
    let (mut node, ids) = with_tranches(vec![tranche("10", Purchased), tranche("5", Purchased)]).await;
    let [first, second] = [0, 1].map(|place| ids[place].as_str());
    let hold = place(&mut node, "8").await;
    let captured = node.capture(capture_request(WHO, &hold, "12")).await.expect("4 more than was held");
    // 8 of the first by the hold; 2 of it and 2 of the second beyond.
    let [capture, excess] = of_receipt(captured.receipt.as_ref()).movement_ids.as_slice() else {
        panic!("two movements: {captured:?}")
    };

    let refunded = node.refund(back(capture, "3")).await.expect("a refund");
    assert_eq!(drawn(&of_receipt(refunded.receipt.as_ref()).draws), [(first, "3", "3")]);
    exceeds(&mut node, back(capture, "6")).await;
    let refunded = node.refund(back(excess, "")).await.expect("a refund");
    assert_eq!(drawn(&of_receipt(refunded.receipt.as_ref()).draws), [(second, "2", "5"), (first, "2", "5")]);
    node.refund(back(capture, "")).await.expect("the rest");

    assert_eq!(figures(&node.balance(WHO, "main").await), ["15", "0", "0", "15"]);
    let movements = node.movements(WHO, "main").await;
    let told: Vec<_> =
        movements[2..].iter().map(|own| (own.r#type(), own.amount.as_str(), own.corrects.as_str())).collect();
    let expected = [
        (Captured, "-8", ""),
        (Consumed, "-4", ""),
        (Refunded, "3", capture.as_str()),
        (Refunded, "4", excess.as_str()),
        (Refunded, "5", capture.as_str()),
    ];
    assert_eq!(told, expected);
    // The hold is over, and tells what it did.
    let state = node.get_hold(WHO, &hold).await.state.expect("its state");
    assert_eq!((state.captured.as_str(), state.excess.as_str()), ("8", "4"));
    sound(node).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_goes_back_to_an_expired_tranche_without_a_grace_is_forfeited() {
    let (mut node, ids) = with_tranches(vec![expiring("5", Plan, T0 + HOUR), tranche("10", Purchased)]).await;
    let [plan, bought] = [0, 1].map(|place| ids[place].as_str());
    let spent = spend(&mut node, "8").await;
    node.set_clock(T0 + HOUR).await;
    assert_eq!(account(&look(&mut node, plan).await), (Exhausted, ["0", "0", "0", "5", "0", "0"]));

    let refunded = node.refund(back(&spent, "")).await.expect("a refund");

    assert_eq!(came_back(&refunded), ["8", "5", "0"]);
    let receipt = of_receipt(refunded.receipt.as_ref());
    assert_eq!(drawn(&receipt.draws), [(bought, "3", "10"), (plan, "5", "5")]);
    assert_eq!(figures(&receipt.balances[0]), ["10", "0", "0", "10"]);
    assert_eq!(node.balance(WHO, "main").await, receipt.balances[0]);
    assert_eq!(account(&look(&mut node, plan).await), (Expired, ["0", "0", "0", "0", "5", "0"]));
    let movements = node.movements(WHO, "main").await;
    assert_eq!(moves(&movements)[2..], [(Refunded, Posted, "8"), (Lapsed, Posted, "-5")]);
    let ids: Vec<_> = movements[2..].iter().map(|own| own.movement_id.as_str()).collect();
    assert_eq!(receipt.movement_ids, ids);
    assert_eq!(drawn(&movements[3].draws), [(plan, "5", "0")]);
    assert!(movements[2..].iter().all(|own| own.corrects == spent), "{movements:?}");
    // What was forfeited was given back all the same.
    exceeds(&mut node, back(&spent, "")).await;
    exceeds(&mut node, back_for(&spent, "1", HOUR)).await;
    sound(node).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grace_restores_what_came_back_for_so_long_and_no_more() {
    let (mut node, ids) = with_tranches(vec![expiring("10", Plan, T0 + HOUR)]).await;
    let id = ids[0].as_str();
    let one = spend(&mut node, "4").await;
    let two = spend(&mut node, "3").await;
    node.set_clock(T0 + 2 * HOUR).await;

    let restored = node.refund(back_for(&one, "", HOUR)).await.expect("a refund");

    assert_eq!(came_back(&restored), ["4", "0", "0"]);
    let receipt = of_receipt(restored.receipt.as_ref());
    assert_eq!((drawn(&receipt.draws), receipt.movement_ids.len()), (vec![(id, "4", "4")], 1));
    assert_eq!(figures(&receipt.balances[0]), ["4", "0", "0", "4"]);
    let tranche = look(&mut node, id).await;
    assert_eq!(account(&tranche), (Active, ["0", "4", "0", "3", "3", "0"]));
    assert_eq!(tranche.expires_at, Some(at(T0 + 3 * HOUR)));
    // The next refund adds to it, and gives it no more time.
    node.set_clock(T0 + 2 * HOUR + MINUTE).await;
    let more = node.refund(back_for(&two, "2", 24 * HOUR)).await.expect("a refund");
    assert_eq!(drawn(&of_receipt(more.receipt.as_ref()).draws), [(id, "2", "6")]);
    assert_eq!(look(&mut node, id).await.expires_at, Some(at(T0 + 3 * HOUR)));
    node.set_clock(T0 + 3 * HOUR - 1).await;
    let last = spend(&mut node, "1").await;
    node.set_clock(T0 + 3 * HOUR).await;
    assert_eq!(figures(&node.balance(WHO, "main").await), ["0", "0", "0", "0"]);
    assert_eq!(account(&look(&mut node, id).await), (Expired, ["0", "0", "0", "2", "8", "0"]));

    // Over again: it may be restored once more. Without a grace it is gone.
    let gone = node.refund(back(&two, "")).await.expect("a refund");
    assert_eq!(came_back(&gone), ["1", "1", "0"]);
    node.refund(back_for(&last, "", MINUTE)).await.expect("a refund");
    let tranche = look(&mut node, id).await;
    assert_eq!(account(&tranche), (Active, ["0", "1", "0", "0", "9", "0"]));
    assert_eq!(tranche.expires_at, Some(at(T0 + 3 * HOUR + MINUTE)));
    let movements = node.movements(WHO, "main").await;
    let expected = [
        (Granted, Posted, "10"),
        (Consumed, Posted, "-4"),
        (Consumed, Posted, "-3"),
        (Lapsed, Posted, "-3"),
        (Refunded, Posted, "4"),
        (Refunded, Posted, "2"),
        (Consumed, Posted, "-1"),
        (Lapsed, Posted, "-5"),
        (Refunded, Posted, "1"),
        (Lapsed, Posted, "-1"),
        (Refunded, Posted, "1"),
    ];
    assert_eq!(moves(&movements), expected);
    let dates = [3, 7].map(|place| movements[place].effective_at);
    assert_eq!(dates, [Some(at(T0 + HOUR)), Some(at(T0 + 3 * HOUR))]);
    assert_eq!([3, 7].map(|place| movements[place].corrects.as_str()), ["", ""]);
    sound(node).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grace_gives_no_more_time_to_what_has_not_expired() {
    let (mut node, ids) = with_tranches(vec![expiring("5", Plan, T0 + HOUR), tranche("10", Purchased)]).await;
    let spent = spend(&mut node, "8").await;
    node.set_clock(T0 + HOUR - 1).await;

    let refunded = node.refund(back_for(&spent, "", 24 * HOUR)).await.expect("a refund");

    assert_eq!(came_back(&refunded), ["8", "0", "0"]);
    assert_eq!(look(&mut node, &ids[0]).await.expires_at, Some(at(T0 + HOUR)));
    assert_eq!(look(&mut node, &ids[1]).await.expires_at, None);
    node.set_clock(T0 + HOUR).await;
    assert_eq!(figures(&node.balance(WHO, "main").await), ["10", "0", "0", "10"]);
    sound(node).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_held_before_its_end_lapses_though_its_tranche_was_restored() {
    let (mut node, ids) = with_tranches(vec![expiring("10", Plan, T0 + MINUTE)]).await;
    let id = ids[0].as_str();
    let spent = spend(&mut node, "4").await;
    let hold = place(&mut node, "5").await;
    node.set_clock(T0 + MINUTE).await;
    node.refund(back_for(&spent, "", HOUR)).await.expect("a refund");
    assert_eq!(figures(&node.balance(WHO, "main").await), ["4", "5", "0", "9"]);
    assert_eq!(account(&look(&mut node, id).await), (Active, ["0", "4", "5", "0", "1", "0"]));
    assert_eq!(node.get_hold(WHO, &hold).await.pins[0].expires_at, Some(at(T0 + MINUTE)));

    let released = node.release(release_request(WHO, &hold)).await.expect("a release");

    assert_eq!(released.released, "5");
    assert_eq!(account(&look(&mut node, id).await), (Active, ["0", "4", "0", "0", "6", "0"]));
    let movements = node.movements(WHO, "main").await;
    let last = movements.last().expect("a movement");
    assert_eq!((last.r#type(), last.amount.as_str(), &last.hold_id), (Lapsed, "-5", &hold));
    assert_eq!(drawn(&last.draws), [(id, "5", "4")]);
    sound(node).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn to_a_voided_tranche_nothing_comes_back_whatever_the_grace() {
    let (mut node, ids) = with_tranches(vec![tranche("10", Purchased)]).await;
    let id = ids[0].as_str();
    let spent = spend(&mut node, "4").await;
    node.void(void_request(WHO, "main", id)).await.expect("voided");

    let refunded = node.refund(back_for(&spent, "", HOUR)).await.expect("a refund");

    assert_eq!(came_back(&refunded), ["4", "0", "4"]);
    let receipt = of_receipt(refunded.receipt.as_ref());
    assert_eq!(drawn(&receipt.draws), [(id, "4", "4")]);
    assert_eq!(figures(&receipt.balances[0]), ["0", "0", "0", "0"]);
    let movements = node.movements(WHO, "main").await;
    assert_eq!(moves(&movements)[3..], [(Refunded, Posted, "4"), (Withdrawn, Posted, "-4")]);
    assert_eq!(drawn(&movements[4].draws), [(id, "4", "0")]);
    assert!(movements[3..].iter().all(|own| own.corrects == spent), "{movements:?}");
    assert_eq!(account(&look(&mut node, id).await), (Voided, ["0", "0", "0", "0", "0", "10"]));
    exceeds(&mut node, back(&spent, "")).await;
    sound(node).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_refund_may_restore_withdraw_and_forfeit() {
    let first = v1::TrancheSpec { priority: Some(1), ..tranche("5", Promotional) };
    let specs = vec![first, expiring("4", Plan, T0 + MINUTE), tranche("5", Purchased)];
    let (mut node, ids) = with_tranches(specs).await;
    let [voided, expired, active] = [0, 1, 2].map(|place| ids[place].as_str());
    // 1 of the first stays held, so that it can be voided when all the rest of it is spent.
    place(&mut node, "1").await;
    // 4, 4 and 2.
    let spent = spend(&mut node, "10").await;
    node.void(void_request(WHO, "main", voided)).await.expect("voided");
    node.set_clock(T0 + MINUTE).await;
    let before = node.movements(WHO, "main").await.len();

    let refunded = node.refund(back(&spent, "")).await.expect("a refund");

    assert_eq!(came_back(&refunded), ["10", "4", "4"]);
    let receipt = of_receipt(refunded.receipt.as_ref());
    assert_eq!(drawn(&receipt.draws), [(active, "2", "5"), (expired, "4", "4"), (voided, "4", "4")]);
    assert_eq!(figures(&receipt.balances[0]), ["5", "1", "0", "6"]);
    let movements = node.movements(WHO, "main").await.split_off(before);
    let expected = [(Refunded, Posted, "10"), (Withdrawn, Posted, "-4"), (Lapsed, Posted, "-4")];
    assert_eq!(moves(&movements), expected);
    assert_eq!(drawn(&movements[1].draws), [(voided, "4", "0")]);
    assert_eq!(drawn(&movements[2].draws), [(expired, "4", "0")]);
    assert_eq!(account(&look(&mut node, voided).await), (Voided, ["0", "0", "1", "0", "0", "4"]));
    assert_eq!(account(&look(&mut node, expired).await), (Expired, ["0", "0", "0", "0", "4", "0"]));
    assert_eq!(account(&look(&mut node, active).await), (Active, ["0", "5", "0", "0", "0", "0"]));
    sound(node).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_was_spent_is_refunded_and_only_to_the_customer_who_spent_it() {
    let (mut node, ids) = with_tranches(vec![tranche("20", Purchased), tranche("1", Purchased)]).await;
    node.wallet_with("bob", "main", vec![tranche("10", Purchased)]).await;
    let spent = spend(&mut node, "4").await;
    node.refund(back(&spent, "1")).await.expect("a refund");
    let hold = place(&mut node, "2").await;
    node.release(release_request(WHO, &hold)).await.expect("a release");
    node.adjust(correction("1")).await.expect("a correction");
    node.void(void_request(WHO, "main", &ids[1])).await.expect("voided");
    let expiring = expiring("1", Plan, T0 + MINUTE);
    node.grant(WHO, "main", vec![expiring]).await;
    node.set_clock(T0 + MINUTE).await;
    node.adjust(correction("1")).await.expect("a correction");

    let movements = node.movements(WHO, "main").await;
    let mut refused: Vec<_> = movements.iter().filter(|own| own.r#type() != Consumed).collect();
    assert_eq!(refused.len(), movements.len() - 1);
    refused.sort_by_key(|own| i32::from(own.r#type()));
    refused.dedup_by_key(|own| own.r#type());
    // Granted, expired, held, released, voided, refunded, adjusted.
    assert_eq!(refused.len(), 7, "{refused:?}");
    for movement in refused {
        let id = movement.movement_id.as_str();
        let pairs = [("customer", WHO), ("movement", id)];
        for amount in ["1", ""] {
            let write = Write::Refund(back(id, amount));
            let status = node.refuses(MAIN, write, "INVALID_ARGUMENT", &pairs).await;
            assert_eq!(fields(&status), ["movement_id"]);
        }
    }

    let spent = spent.as_str();
    let nowhere = "mov_0000000000000";
    for (customer, movement, expected) in [
        ("bob", spent, "MOVEMENT_NOT_FOUND"),
        (WHO, nowhere, "MOVEMENT_NOT_FOUND"),
        ("nobody", spent, "CUSTOMER_NOT_FOUND"),
    ] {
        let pairs: &[_] = match expected {
            "MOVEMENT_NOT_FOUND" => &[("customer", customer), ("movement", movement)],
            _ => &[("customer", customer)],
        };
        let write = Write::Refund(refund_request(customer, movement, "1"));
        node.refuses(MAIN, write, expected, pairs).await;
    }
    assert_eq!(node.movements("bob", "main").await.len(), 1);
    let elsewhere = v1::RefundRequest { namespace: "staging".to_owned(), ..back(spent, "1") };
    node.refuses(MAIN, Write::Refund(elsewhere), "CUSTOMER_NOT_FOUND", &[("customer", WHO)]).await;
    let write = Write::Refund(back(spent, "0.5"));
    node.refuses(MAIN, write, "INVALID_AMOUNT_PRECISION", &[("amount", "0.5")]).await;
    sound(node).await;
}

// ---- corrections -------------------------------------------------------------------------------

/// Covers: Adjust
#[tokio::test(flavor = "multi_thread")]
async fn a_correction_up_is_a_tranche_that_pays_for_anything_until_its_end() {
    let (mut node, ids) = with_tranches(vec![tranche("5", Purchased)]).await;
    let request = v1::AdjustRequest {
        reference: "ticket-1".to_owned(),
        reason_code: "goodwill".to_owned(),
        metadata: [("by".to_owned(), "a".to_owned())].into(),
        ..correction("7")
    };

    let corrected = node.adjust(request).await.expect("a correction");

    assert_eq!(corrected.amount, "7");
    let receipt = of_receipt(corrected.receipt.as_ref());
    let [draw] = receipt.draws.as_slice() else { panic!("one tranche: {receipt:?}") };
    let id = draw.tranche_id.as_str();
    assert_eq!((draw.kind(), draw.amount.as_str(), draw.left.as_str()), (Correction, "7", "7"));
    assert_eq!(figures(&receipt.balances[0]), ["12", "0", "0", "12"]);
    let movements = node.movements(WHO, "main").await;
    assert_eq!(moves(&movements)[1..], [(Adjusted, Posted, "7")]);
    assert_eq!(receipt.movement_ids, [movements[1].movement_id.as_str()]);
    assert_eq!(
        (movements[1].reference.as_str(), movements[1].reason_code.as_str()),
        ("ticket-1", "goodwill")
    );
    assert_eq!(movements[1].metadata.get("by").map(String::as_str), Some("a"));
    assert_eq!(movements[1].draws, receipt.draws);
    let tranche = look(&mut node, id).await;
    assert_eq!(account(&tranche), (Active, ["0", "7", "0", "0", "0", "0"]));
    assert_eq!(
        (tranche.kind(), tranche.priority, tranche.charge_scope()),
        (Correction, 100, v1::ChargeScope::Any)
    );
    assert_eq!((tranche.features.len(), &tranche.cost_basis, &tranche.expires_at), (0, &None, &None));
    assert_eq!((&tranche.granted_by, &tranche.effective_at), (&movements[1].movement_id, &Some(at(T0))));

    // For whatever is charged, and before what was bought.
    let scoped = v1::DebitRequest {
        charge_type: v1::ChargeType::Fixed.into(),
        feature: "search".to_owned(),
        ..debit_request(WHO, "main", "8")
    };
    let debit = node.debit(scoped).await.expect("a debit");
    assert_eq!(
        drawn(&of_receipt(debit.receipt.as_ref()).draws),
        [(id, "7", "0"), (ids[0].as_str(), "1", "4")]
    );

    let until = |end: u64| v1::AdjustRequest { expires_at: Some(at(end)), ..correction("2") };
    for past in [T0, T0 - 1] {
        let pairs = [("customer", WHO), ("wallet", "main")];
        let refused = node.refuses(MAIN, Write::Adjust(until(past)), "INVALID_ARGUMENT", &pairs).await;
        assert_eq!(fields(&refused), ["expires_at"]);
    }
    node.adjust(until(T0 + HOUR)).await.expect("a correction");
    node.set_clock(T0 + HOUR - 1).await;
    assert_eq!(figures(&node.balance(WHO, "main").await), ["6", "0", "0", "6"]);
    node.set_clock(T0 + HOUR).await;
    assert_eq!(figures(&node.balance(WHO, "main").await), ["4", "0", "0", "4"]);
    sound(node).await;
}

/// Covers: Adjust
#[tokio::test(flavor = "multi_thread")]
async fn a_correction_down_takes_what_is_available_in_burn_order_whatever_it_may_pay_for() {
    let for_search = v1::TrancheSpec { features: vec!["search".to_owned()], ..tranche("3", Purchased) };
    let for_usage =
        v1::TrancheSpec { charge_scope: v1::ChargeScope::Usage.into(), ..tranche("2", Purchased) };
    let specs = vec![
        tranche("4", Purchased),
        for_usage,
        for_search,
        expiring("1", Purchased, T0 + HOUR),
        unpaid("9", Plan),
    ];
    let (mut node, ids) = with_tranches(specs).await;
    let [plain, usage, search, soon] = [0, 1, 2, 3].map(|place| ids[place].as_str());

    let corrected = node.adjust(correction("-7")).await.expect("a correction");

    // What expires first, then narrower before broader: features, a charge type, neither.
    let expected = [(soon, "1", "0"), (search, "3", "0"), (usage, "2", "0"), (plain, "1", "3")];
    let receipt = of_receipt(corrected.receipt.as_ref());
    assert_eq!((corrected.amount.as_str(), drawn(&receipt.draws)), ("-7", expected.to_vec()));
    assert_eq!(figures(&receipt.balances[0]), ["3", "0", "9", "3"]);
    let movements = node.movements(WHO, "main").await;
    let last = movements.last().expect("a movement");
    assert_eq!((last.r#type(), last.amount.as_str(), &last.draws), (Adjusted, "-7", &receipt.draws));
    assert_eq!((last.reason_code.as_str(), last.corrects.as_str()), ("miscounted", ""));
    assert_eq!(receipt.movement_ids, [last.movement_id.as_str()]);
    assert_eq!(account(&look(&mut node, plain).await), (Active, ["0", "3", "0", "0", "0", "1"]));
    assert_eq!(account(&look(&mut node, search).await).1, ["0", "0", "0", "0", "0", "3"]);

    // What is held is not there to be taken.
    let hold = place(&mut node, "2").await;
    let short = [("available", "1"), ("required", "2"), ("wallet", "main")];
    node.refuses(MAIN, Write::Adjust(correction("-2")), "INSUFFICIENT_CREDITS", &short).await;
    node.release(release_request(WHO, &hold)).await.expect("a release");
    node.adjust(correction("-3")).await.expect("all of it");
    let short = [("available", "0"), ("required", "1"), ("wallet", "main")];
    node.refuses(MAIN, Write::Adjust(correction("-1")), "INSUFFICIENT_CREDITS", &short).await;
    assert_eq!(figures(&node.balance(WHO, "main").await), ["0", "0", "9", "0"]);
    sound(node).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_correction_down_of_one_tranche_takes_of_it_alone_and_it_must_be_active() {
    let specs = vec![
        tranche("5", Purchased),
        tranche("6", Purchased),
        tranche("7", Purchased),
        unpaid("8", Purchased),
        v1::TrancheSpec { effective_at: Some(at(T0 + HOUR)), ..tranche("9", Purchased) },
        expiring("10", Plan, T0 + MINUTE),
    ];
    let (mut node, ids) = with_tranches(specs).await;
    let [first, second, voided, pending, scheduled, expired] =
        [0, 1, 2, 3, 4, 5].map(|place| ids[place].as_str());

    let corrected = node.adjust(correction_of(second, "-2")).await.expect("a correction");

    assert_eq!(corrected.amount, "-2");
    assert_eq!(drawn(&of_receipt(corrected.receipt.as_ref()).draws), [(second, "2", "4")]);
    assert_eq!(account(&look(&mut node, second).await), (Active, ["0", "4", "0", "0", "0", "2"]));
    assert_eq!(node.balance(WHO, "main").await.available, "26");
    let of = |tranche_id| [("customer", WHO), ("wallet", "main"), ("tranche", tranche_id)];
    let short = [("available", "4"), ("required", "5"), ("wallet", "main")];
    let write = Write::Adjust(correction_of(second, "-5"));
    node.refuses(MAIN, write, "INSUFFICIENT_CREDITS", &short).await;

    node.void(void_request(WHO, "main", voided)).await.expect("voided");
    node.set_clock(T0 + MINUTE).await;
    // Books the expiry.
    node.adjust(correction_of(second, "-1")).await.expect("a correction");
    for id in [voided, pending, scheduled, expired] {
        let write = Write::Adjust(correction_of(id, "-1"));
        node.refuses(MAIN, write, "TRANCHE_NOT_ACTIVE", &of(id)).await;
    }
    let nowhere = "trn_0000000000000";
    let write = Write::Adjust(correction_of(nowhere, "-1"));
    node.refuses(MAIN, write, "TRANCHE_NOT_FOUND", &of(nowhere)).await;

    // Wholly held it is active, but nothing of it is there.
    let hold = place(&mut node, "5").await;
    assert_eq!(account(&look(&mut node, first).await), (Active, ["0", "0", "5", "0", "0", "0"]));
    let short = [("available", "0"), ("required", "1"), ("wallet", "main")];
    let write = Write::Adjust(correction_of(first, "-1"));
    node.refuses(MAIN, write, "INSUFFICIENT_CREDITS", &short).await;
    node.release(release_request(WHO, &hold)).await.expect("a release");
    node.adjust(correction_of(first, "-5")).await.expect("all of it");
    assert_eq!(account(&look(&mut node, first).await).1, ["0", "0", "0", "0", "0", "5"]);
    sound(node).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tranche_with_nothing_available_and_nothing_held_is_not_active_for_a_correction() {
    let (mut node, ids) = with_tranches(vec![tranche("5", Purchased), tranche("6", Purchased)]).await;
    spend(&mut node, "5").await;
    assert_eq!(account(&look(&mut node, &ids[0]).await), (Exhausted, ["0", "0", "0", "5", "0", "0"]));
    let pairs = [("customer", WHO), ("wallet", "main"), ("tranche", ids[0].as_str())];
    let write = Write::Adjust(correction_of(&ids[0], "-1"));
    node.refuses(MAIN, write, "TRANCHE_NOT_ACTIVE", &pairs).await;
    sound(node).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn corrections_are_told_in_the_scale_of_the_asset_and_stay_within_range() {
    let mut node = Running::start().await;
    node.create(create_request(WHO, "main", 2)).await;
    node.grant(WHO, "main", vec![tranche("10", Purchased)]).await;
    let corrected = node.adjust(correction("-2.5")).await.expect("a correction");
    assert_eq!(corrected.amount, "-2.50");
    assert_eq!(drawn(&of_receipt(corrected.receipt.as_ref()).draws)[0].1, "2.50");
    assert_eq!(node.adjust(correction("0.05")).await.expect("a correction").amount, "0.05");
    assert_eq!(node.balance(WHO, "main").await.available, "7.55");
    let spent = spend(&mut node, "1").await;
    assert_eq!(
        came_back(&node.refund(back(&spent, "0.5")).await.expect("a refund")),
        ["0.50", "0.00", "0.00"]
    );
    assert_eq!(node.balance(WHO, "main").await.available, "7.05");

    for amount in ["0.001", "-0.001"] {
        let write = Write::Adjust(correction(amount));
        node.refuses(MAIN, write, "INVALID_AMOUNT_PRECISION", &[("amount", amount)]).await;
    }
    // 39 digits are more than an amount may have.
    for huge in ["9", "-9"].map(|digit| digit.to_owned() + &"9".repeat(38)) {
        node.refuses(MAIN, Write::Adjust(correction(&huge)), "AMOUNT_OVERFLOW", &[]).await;
    }
    // 38 are not, once: a wallet holds 2^127 - 1 units, which is 1.7 times as much.
    let nines = "999999999999999999999999999999999999.99";
    node.grant(WHO, "main", vec![tranche(nines, Purchased)]).await;
    node.refuses(MAIN, Write::Adjust(correction(nines)), "AMOUNT_OVERFLOW", &[("amount", nines)]).await;
    // Full but for 0.49: what is left of the debit has no room.
    node.adjust(correction("701411834604692317316873037158841049.74")).await.expect("a correction");
    let write = Write::Refund(back(&spent, "0.5"));
    node.refuses(MAIN, write, "AMOUNT_OVERFLOW", &[("amount", "0.5")]).await;
    node.refund(back(&spent, "0.49")).await.expect("to the brim");
    sound(node).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_correction_of_what_is_not_there_is_refused_by_name() {
    let (mut node, ids) = with_tranches(vec![tranche("5", Purchased)]).await;
    node.create(create_request(WHO, "other", 0)).await;
    node.create(create_request("bob", "main", 0)).await;
    for (customer, wallet, expected) in
        [(WHO, "none", "WALLET_NOT_FOUND"), ("nobody", "main", "CUSTOMER_NOT_FOUND")]
    {
        let pairs: &[_] = match expected {
            "WALLET_NOT_FOUND" => &[("customer", customer), ("wallet", wallet)],
            _ => &[("customer", customer)],
        };
        for amount in ["1", "-1"] {
            let write = Write::Adjust(adjust_request(customer, wallet, amount));
            node.refuses(MAIN, write, expected, pairs).await;
        }
    }
    for (customer, wallet) in [(WHO, "other"), ("bob", "main")] {
        let tranche_id = ids[0].clone();
        let pairs = [("customer", customer), ("wallet", wallet), ("tranche", ids[0].as_str())];
        let foreign = v1::AdjustRequest { tranche_id, ..adjust_request(customer, wallet, "-1") };
        node.refuses(MAIN, Write::Adjust(foreign), "TRANCHE_NOT_FOUND", &pairs).await;
    }
    sound(node).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shortage_says_what_is_there_and_what_was_asked_for() {
    let (mut node, _) = with_tranches(vec![tranche("5", Purchased)]).await;
    let pairs = [("available", "5"), ("required", "6"), ("wallet", "main")];
    for write in [
        Write::Adjust(correction("-6")),
        Write::Debit(debit_request(WHO, "main", "6")),
        Write::Hold(hold_request(WHO, "main", "6")),
    ] {
        node.refuses(MAIN, write, "INSUFFICIENT_CREDITS", &pairs).await;
    }
    sound(node).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_wallet_takes_refunds_and_corrections() {
    let (mut node, ids) = with_tranches(vec![tranche("10", Purchased)]).await;
    let spent = spend(&mut node, "4").await;
    node.freeze(WHO, "main", true).await;

    assert_eq!(came_back(&node.refund(back(&spent, "3")).await.expect("a refund")), ["3", "0", "0"]);
    node.adjust(correction("2")).await.expect("a correction");
    node.adjust(correction("-1")).await.expect("a correction");
    node.adjust(correction_of(&ids[0], "-1")).await.expect("a correction");

    assert_eq!(figures(&node.balance(WHO, "main").await), ["9", "0", "0", "9"]);
    let write = Write::Debit(debit_request(WHO, "main", "1"));
    node.refuses(MAIN, write, "WALLET_FROZEN", &[("wallet", "main")]).await;
    sound(node).await;
}

// ---- lists and keys ----------------------------------------------------------------------------

#[tokio::test(flavor = "multi_thread")]
async fn movements_are_found_by_what_was_put_right() {
    let (mut node, _) = with_tranches(vec![tranche("10", Purchased)]).await;
    let spent = spend(&mut node, "4").await;
    let refund = v1::RefundRequest { reference: "ticket-1".to_owned(), ..back(&spent, "1") };
    node.refund(refund).await.expect("a refund");
    node.adjust(correction("3")).await.expect("a correction");
    let adjust = v1::AdjustRequest { reference: "ticket-1".to_owned(), ..correction("-2") };
    let adjusted = node.adjust(adjust).await.expect("a correction");
    let operation_id = of_receipt(adjusted.receipt.as_ref()).operation_id.clone();

    let list = v1::ListMovementsRequest {
        customer: WHO.to_owned(),
        wallet: "main".to_owned(),
        ..Default::default()
    };
    let of = |types: &[v1::MovementType]| v1::ListMovementsRequest {
        types: types.iter().map(|own| i32::from(*own)).collect(),
        ..list.clone()
    };
    let corrections = v1::ListMovementsRequest { kinds: vec![Correction.into()], ..list.clone() };
    // Granted is 1, the debit 2; newest first. The correction down took of the correction up.
    for (request, expected) in [
        (of(&[Refunded]), vec![3]),
        (of(&[Adjusted]), vec![5, 4]),
        (of(&[Adjusted, Refunded, Consumed]), vec![5, 4, 3, 2]),
        (of(&[Withdrawn, Lapsed]), vec![]),
        (corrections, vec![5, 4]),
        (v1::ListMovementsRequest { reference: "ticket-1".to_owned(), ..list.clone() }, vec![5, 3]),
        (v1::ListMovementsRequest { operation_id, ..list.clone() }, vec![5]),
    ] {
        let told = format!("{request:?}");
        let rows = node.ledger.list_movements(request).await.expect("movements").into_inner().movements;
        let rows: Vec<_> = rows.iter().map(|own| own.sequence).collect();
        assert_eq!(rows, expected, "{told}");
    }
    let movements = node.movements(WHO, "main").await;
    for pair in movements.windows(2) {
        assert_eq!(
            (&pair[1].previous_hash, &pair[1].balance_before),
            (&pair[0].hash, &pair[0].balance_after)
        );
    }
    sound(node).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_key_gets_the_first_answer_though_more_was_put_right_since() {
    let (mut node, ids) = with_tranches(vec![expiring("5", Plan, T0 + HOUR), tranche("10", Purchased)]).await;
    let spent = spend(&mut node, "12").await;
    let refund = back(&spent, "1");
    let refunded = node.refund(refund.clone()).await.expect("a refund");
    node.set_clock(T0 + HOUR).await;
    let forfeit = back(&spent, "9");
    let forfeited = node.refund(forfeit.clone()).await.expect("a refund");
    assert_eq!(came_back(&forfeited), ["9", "3", "0"]);
    let restore = back_for(&spent, "", HOUR);
    let restored = node.refund(restore.clone()).await.expect("a refund");
    let up = v1::AdjustRequest { expires_at: Some(at(T0 + 2 * HOUR)), ..correction("6") };
    let upped = node.adjust(up.clone()).await.expect("a correction");
    let down = correction("-3");
    let downed = node.adjust(down.clone()).await.expect("a correction");
    let one = correction_of(&ids[1], "-2");
    let only = node.adjust(one.clone()).await.expect("a correction");
    // A refusal stays one, though there is more by now.
    let beyond = correction("-100");
    let denied = node.refused(Write::Adjust(beyond.clone())).await;
    assert_eq!(
        (reason(&denied), pair(&denied, "replayed")),
        ("INSUFFICIENT_CREDITS".to_owned(), "false".to_owned())
    );
    node.grant(WHO, "main", vec![tranche("1000", Purchased)]).await;
    node.void(void_request(WHO, "main", &ids[1])).await.expect("voided");
    node.set_clock(T0 + 3 * HOUR).await;
    // Books what is due.
    node.grant(WHO, "main", vec![tranche("1", Purchased)]).await;
    let before = node.books(WHO, "main").await;

    for (request, first) in [(&refund, &refunded), (&forfeit, &forfeited), (&restore, &restored)] {
        let mut again = node.refund(request.clone()).await.expect("the answer of then");
        as_at_first(&mut again.receipt, &first.receipt);
        assert_eq!(again, *first);
    }
    for (request, first) in [(&up, &upped), (&down, &downed), (&one, &only)] {
        let mut again = node.adjust(request.clone()).await.expect("the answer of then");
        as_at_first(&mut again.receipt, &first.receipt);
        assert_eq!(again, *first);
    }
    let again = node.refused(Write::Adjust(beyond)).await;
    assert_eq!(
        (reason(&again), pair(&again, "replayed")),
        ("INSUFFICIENT_CREDITS".to_owned(), "true".to_owned())
    );
    assert_eq!(pair(&again, "available"), pair(&denied, "available"));

    let key = refund.idempotency_key.clone();
    let reused = [
        Write::Refund(v1::RefundRequest { amount: String::new(), ..refund.clone() }),
        Write::Refund(v1::RefundRequest { grace: Some(lasting(HOUR)), ..refund.clone() }),
        Write::Refund(v1::RefundRequest { grace: Some(lasting(MINUTE)), ..restore }),
        Write::Refund(v1::RefundRequest { reference: "other".to_owned(), ..refund }),
        Write::Adjust(v1::AdjustRequest { amount: "3".to_owned(), ..down.clone() }),
        Write::Adjust(v1::AdjustRequest { tranche_id: ids[1].clone(), ..down.clone() }),
        Write::Adjust(v1::AdjustRequest { reason_code: "other".to_owned(), ..down }),
        Write::Adjust(v1::AdjustRequest { expires_at: None, ..up }),
        // Another operation.
        Write::Grant(v1::GrantRequest {
            idempotency_key: key,
            ..grant_request(WHO, "main", vec![tranche("1", Purchased)])
        }),
    ];
    for write in reused {
        let refused = node.refused(write).await;
        let expected = (tonic::Code::FailedPrecondition, "IDEMPOTENCY_KEY_REUSED".to_owned());
        assert_eq!((refused.code(), reason(&refused)), expected);
    }
    assert_eq!(node.books(WHO, "main").await, before);
    sound(node).await;
}
