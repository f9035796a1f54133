//! Stories over gRPC, on a test clock: what a caller of a running node sees of debits, keys, expiry,
//! scheduling, frozen wallets, balances, movements and the audit.

mod node_support;

use node_support::{
    DAY, Running, SECOND, T0, asset, at, create_request, debit_request, expiring, fields, fresh_key, pair,
    reason, tranche,
};
use purser_proto::v1;
use v1::TrancheKind::{Plan, Promotional, Purchased};

const WHO: &str = "acme";

fn by_asset(amount: &str) -> v1::DebitRequest {
    v1::DebitRequest {
        payer: Some(v1::debit_request::Payer::Asset(asset(0))),
        ..debit_request(WHO, "", amount)
    }
}

fn of_receipt(receipt: Option<&v1::Receipt>) -> &v1::Receipt {
    receipt.expect("a receipt")
}

fn draws(receipt: Option<&v1::Receipt>) -> Vec<(&str, &str, &str)> {
    let own = &of_receipt(receipt).draws;
    own.iter().map(|draw| (draw.wallet.as_str(), draw.amount.as_str(), draw.left.as_str())).collect()
}

fn types_and_amounts(movements: &[v1::Movement]) -> Vec<(v1::MovementType, &str)> {
    movements.iter().map(|own| (own.r#type(), own.amount.as_str())).collect()
}

/// Covers: CreateWallet, Grant, Debit
#[tokio::test(flavor = "multi_thread")]
async fn a_debit_splits_over_three_tranches_and_the_receipt_lists_each_draw() {
    let mut node = Running::start().await;
    let first = v1::TrancheSpec { priority: Some(50), ..tranche("100", Promotional) };
    let tranches = vec![tranche("1000", Purchased), expiring("500", Plan, T0 + 30 * DAY), first];
    node.create(create_request(WHO, "main", 0)).await;
    let granted = node.grant(WHO, "main", tranches).await;

    let debit = node.debit(debit_request(WHO, "main", "900")).await.expect("a debit");

    let own = &granted.tranches;
    let ids: Vec<_> = of_receipt(debit.receipt.as_ref()).draws.iter().map(|draw| &draw.tranche_id).collect();
    assert_eq!(ids, [&own[2].tranche_id, &own[1].tranche_id, &own[0].tranche_id]);
    // Priority first, then what expires first: 100 + 500 + 300 of 1000.
    let expected = [("main", "100", "0"), ("main", "500", "0"), ("main", "300", "700")];
    assert_eq!(draws(debit.receipt.as_ref()), expected);
    assert_eq!((debit.amount.as_str(), debit.remaining.as_str()), ("900", "700"));
    let balance = &of_receipt(debit.receipt.as_ref()).balances[0];
    assert_eq!((balance.settled.as_str(), balance.available.as_str()), ("700", "700"));
    assert_eq!(node.balance(WHO, "main").await, *balance);
    assert_eq!(node.audit(WHO).await.findings, []);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_key_gets_the_first_answer_again_and_another_request_under_it_is_refused() {
    let mut node = Running::start().await;
    node.wallet_with(WHO, "main", vec![tranche("100", Purchased)]).await;
    let request = debit_request(WHO, "main", "10");
    let first = node.debit(request.clone()).await.expect("a debit");
    node.grant(WHO, "main", vec![tranche("50", Purchased)]).await;
    node.set_clock(T0 + SECOND).await;

    let again = node.debit(request.clone()).await.expect("the answer of then");

    let (then, now) = (of_receipt(first.receipt.as_ref()), of_receipt(again.receipt.as_ref()));
    assert_eq!((then.replayed, now.replayed), (false, true));
    assert_eq!(now.movement_ids, then.movement_ids);
    assert_eq!(now.operation_id, then.operation_id);
    assert_eq!(now.draws, then.draws);
    assert_eq!(now.balances, then.balances);
    assert_eq!(now.balances[0].available, "90");
    assert_eq!(again.remaining, "90");
    assert_eq!(node.balance(WHO, "main").await.available, "140");

    let other = v1::DebitRequest { amount: "11".to_owned(), ..request };
    let refused = node.debit(other).await.expect_err("another request");
    assert_eq!(reason(&refused), "IDEMPOTENCY_KEY_REUSED");
    assert_eq!(node.balance(WHO, "main").await.available, "140");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_denial_stays_a_denial_after_a_refill() {
    let mut node = Running::start().await;
    node.wallet_with(WHO, "main", vec![tranche("100", Purchased)]).await;
    let request = debit_request(WHO, "main", "101");
    let denied = node.debit(request.clone()).await.expect_err("too much");
    assert_eq!(reason(&denied), "INSUFFICIENT_CREDITS");
    assert_eq!((pair(&denied, "available"), pair(&denied, "required")), ("100".to_owned(), "101".to_owned()));
    assert_eq!(pair(&denied, "replayed"), "false");
    node.grant(WHO, "main", vec![tranche("500", Purchased)]).await;

    let again = node.debit(request.clone()).await.expect_err("the answer of then");

    assert_eq!(reason(&again), "INSUFFICIENT_CREDITS");
    assert_eq!((pair(&again, "available"), pair(&again, "replayed")), ("100".to_owned(), "true".to_owned()));
    let fresh = v1::DebitRequest { idempotency_key: fresh_key(), ..request };
    assert_eq!(node.debit(fresh).await.expect("a new attempt").remaining, "499");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_microsecond_before_its_expiry_a_tranche_pays_and_at_that_instant_not_one_unit() {
    let mut node = Running::start().await;
    let end = T0 + 3_600 * SECOND;
    node.wallet_with(WHO, "main", vec![expiring("100", Plan, end)]).await;

    node.set_clock(end - 1).await;
    assert_eq!(node.debit(debit_request(WHO, "main", "40")).await.expect("in time").remaining, "60");
    node.set_clock(end).await;
    let late = node.debit(debit_request(WHO, "main", "1")).await.expect_err("expired");

    assert_eq!(
        (reason(&late), pair(&late, "available")),
        ("INSUFFICIENT_CREDITS".to_owned(), "0".to_owned())
    );
    assert_eq!(node.balance(WHO, "main").await.settled, "0");
    node.grant(WHO, "main", vec![tranche("5", Purchased)]).await;
    let movements = node.movements(WHO, "main").await;
    use v1::MovementType::{Consumed, Expired, Granted};
    let expected = [(Granted, "100"), (Consumed, "-40"), (Expired, "-60"), (Granted, "5")];
    assert_eq!(types_and_amounts(&movements), expected);
    assert_eq!(movements[2].effective_at, Some(at(end)));
    assert_eq!(node.audit(WHO).await.findings, []);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scheduled_grant_pays_from_its_instant_on() {
    let mut node = Running::start().await;
    let begin = T0 + DAY;
    let scheduled = v1::TrancheSpec { effective_at: Some(at(begin)), ..tranche("30", Promotional) };
    node.create(create_request(WHO, "main", 0)).await;
    let granted = node.grant(WHO, "main", vec![scheduled]).await;
    assert_eq!(granted.tranches[0].status(), v1::TrancheStatus::Scheduled);
    let balance = node.balance(WHO, "main").await;
    assert_eq!(
        (balance.pending.as_str(), balance.available.as_str(), balance.settled.as_str()),
        ("30", "0", "0")
    );

    node.set_clock(begin - 1).await;
    let early = node.debit(debit_request(WHO, "main", "1")).await.expect_err("too early");
    assert_eq!(reason(&early), "INSUFFICIENT_CREDITS");
    node.set_clock(begin).await;
    assert_eq!(node.debit(debit_request(WHO, "main", "30")).await.expect("in time").remaining, "0");

    let movements = node.movements(WHO, "main").await;
    use v1::MovementType::{Consumed, Granted};
    assert_eq!(types_and_amounts(&movements), [(Granted, "0"), (Granted, "30"), (Consumed, "-30")]);
    let statuses: Vec<_> = movements.iter().map(v1::Movement::status).collect();
    use v1::MovementStatus::{Pending, Posted};
    assert_eq!(statuses, [Pending, Posted, Posted]);
    assert_eq!(node.audit(WHO).await.findings, []);
    node.stop().await;
}

/// Covers: FreezeWallet, Debit
#[tokio::test(flavor = "multi_thread")]
async fn a_debit_by_asset_draws_the_wallets_in_draw_order_and_passes_over_frozen_ones() {
    let mut node = Running::start().await;
    let later = v1::CreateWalletRequest { draw_priority: Some(200), ..create_request(WHO, "later", 0) };
    let sooner = v1::CreateWalletRequest { draw_priority: Some(10), ..create_request(WHO, "sooner", 0) };
    node.create(later).await;
    node.create(sooner).await;
    node.create(create_request(WHO, "cents", 2)).await;
    node.grant(WHO, "later", vec![tranche("50", Purchased)]).await;
    node.grant(WHO, "sooner", vec![tranche("30", Purchased)]).await;
    node.grant(WHO, "cents", vec![tranche("99.5", Purchased)]).await;

    let debit = node.debit(by_asset("40")).await.expect("a debit");
    assert_eq!(draws(debit.receipt.as_ref()), [("sooner", "30", "0"), ("later", "10", "40")]);
    assert_eq!(of_receipt(debit.receipt.as_ref()).movement_ids.len(), 2);
    assert_eq!(debit.remaining, "40");
    assert_eq!(node.balance(WHO, "cents").await.available, "99.50");

    let freeze = |wallet: &str, frozen| v1::FreezeWalletRequest {
        customer: WHO.to_owned(),
        wallet: wallet.to_owned(),
        idempotency_key: fresh_key(),
        frozen,
        ..Default::default()
    };
    node.ledger.freeze_wallet(freeze("later", true)).await.expect("frozen");
    node.grant(WHO, "sooner", vec![tranche("5", Purchased)]).await;
    node.grant(WHO, "later", vec![tranche("1", Purchased)]).await;
    let named = node.debit(debit_request(WHO, "later", "1")).await.expect_err("frozen");
    assert_eq!(reason(&named), "WALLET_FROZEN");
    let passed = node.debit(by_asset("5")).await.expect("from the other");
    assert_eq!(draws(passed.receipt.as_ref()), [("sooner", "5", "0")]);
    node.ledger.freeze_wallet(freeze("later", false)).await.expect("thawed");
    assert_eq!(node.debit(debit_request(WHO, "later", "1")).await.expect("thawed").remaining, "40");
    assert_eq!(node.audit(WHO).await.findings, []);
    node.stop().await;
}

/// Covers: Explain
#[tokio::test(flavor = "multi_thread")]
async fn a_partial_debit_takes_what_there_is_and_explain_changes_nothing() {
    let mut node = Running::start().await;
    node.wallet_with(WHO, "main", vec![tranche("30", Purchased)]).await;
    let partial = || v1::DebitRequest { allow_partial: true, ..debit_request(WHO, "main", "50") };

    let dry = v1::ExplainRequest { debit: Some(partial()) };
    let dry = node.ledger.explain(dry).await.expect("an answer").into_inner();
    assert_eq!((dry.amount.as_str(), dry.remaining.as_str(), dry.refusal), ("30", "0", None));
    assert_eq!(dry.draws.len(), 1);
    let dry = v1::ExplainRequest { debit: Some(debit_request(WHO, "main", "31")) };
    let dry = node.ledger.explain(dry).await.expect("an answer").into_inner();
    assert_eq!(dry.refusal.expect("a refusal").reason, "INSUFFICIENT_CREDITS");
    assert_eq!(node.balance(WHO, "main").await.available, "30");
    assert_eq!(node.movements(WHO, "main").await.len(), 1);

    let taken = node.debit(partial()).await.expect("a part");
    assert_eq!((taken.amount.as_str(), taken.remaining.as_str()), ("30", "0"));
    let nothing = node.debit(partial()).await.expect_err("nothing there");
    assert_eq!(reason(&nothing), "INSUFFICIENT_CREDITS");
    node.stop().await;
}

/// Covers: GetBalance, ListTranches
#[tokio::test(flavor = "multi_thread")]
async fn a_balance_breaks_down_by_kind_by_tranche_and_by_what_expires_soon() {
    let mut node = Running::start().await;
    let scheduled = v1::TrancheSpec { effective_at: Some(at(T0 + 10 * DAY)), ..tranche("7", Promotional) };
    let tranches = vec![
        expiring("100", Promotional, T0 + 7 * DAY - 1),
        // At the bound itself, which is not before it.
        expiring("500", Plan, T0 + 7 * DAY),
        tranche("1000", Purchased),
        scheduled,
    ];
    node.wallet_with(WHO, "main", tranches).await;

    let request = v1::GetBalanceRequest {
        customer: WHO.to_owned(),
        wallet: "main".to_owned(),
        expiring_within_days: 7,
        by_kind: true,
        by_tranche: true,
        ..Default::default()
    };
    let answer = node.ledger.get_balance(request).await.expect("a balance").into_inner();

    let wallet = &answer.wallets[0];
    assert_eq!((wallet.expiring.as_str(), wallet.expiring_before), ("100", Some(at(T0 + 7 * DAY))));
    let kinds: Vec<_> =
        wallet.kinds.iter().map(|own| (own.kind(), own.available.as_str(), own.pending.as_str())).collect();
    assert_eq!(kinds, [(Plan, "500", "0"), (Promotional, "100", "7"), (Purchased, "1000", "0")]);
    let amounts: Vec<_> = wallet.tranches.iter().map(|own| own.amount.as_str()).collect();
    assert_eq!(amounts, ["100", "500", "1000", "7"]);
    let total = &answer.totals[0];
    assert_eq!((total.available.as_str(), total.pending.as_str()), ("1600", "7"));
    node.stop().await;
}

fn list(page: v1::PageRequest) -> v1::ListMovementsRequest {
    v1::ListMovementsRequest {
        customer: WHO.to_owned(),
        wallet: "main".to_owned(),
        page: Some(page),
        ..Default::default()
    }
}

fn page(cursor: &str) -> v1::PageRequest {
    v1::PageRequest { size: 4, cursor: cursor.to_owned(), ..Default::default() }
}

async fn sequences(node: &mut Running, request: v1::ListMovementsRequest) -> (Vec<u64>, v1::PageInfo) {
    let answer = node.ledger.list_movements(request).await.expect("movements").into_inner();
    (answer.movements.iter().map(|own| own.sequence).collect(), answer.page.expect("cursors"))
}

/// A grant (movement 1), then nine debits (2 to 10), each a second after the one before.
async fn ten_movements(node: &mut Running) {
    node.wallet_with(WHO, "main", vec![tranche("100", Purchased)]).await;
    for number in 2..=10 {
        node.set_clock(T0 + number * SECOND).await;
        let reference = format!("request-{number}");
        node.debit(v1::DebitRequest { reference, ..debit_request(WHO, "main", "1") }).await.expect("a debit");
    }
}

/// Covers: ListMovements
#[tokio::test(flavor = "multi_thread")]
async fn movements_are_walked_by_cursor_to_their_end_and_back() {
    let mut node = Running::start().await;
    ten_movements(&mut node).await;

    let (rows, first) = sequences(&mut node, list(page(""))).await;
    assert_eq!((rows.as_slice(), first.previous_cursor.as_str()), ([10, 9, 8, 7].as_slice(), ""));
    let (rows, second) = sequences(&mut node, list(page(&first.next_cursor))).await;
    assert_eq!(rows, [6, 5, 4, 3]);
    let (rows, third) = sequences(&mut node, list(page(&second.next_cursor))).await;
    assert_eq!((rows.as_slice(), third.next_cursor.as_str()), ([2, 1].as_slice(), ""));
    let (rows, _) = sequences(&mut node, list(page(&third.previous_cursor))).await;
    assert_eq!(rows, [6, 5, 4, 3]);

    node.wallet_with(WHO, "other", vec![tranche("1", Purchased)]).await;
    let foreign = v1::ListMovementsRequest { wallet: "other".to_owned(), ..list(page(&first.next_cursor)) };
    let refused = node.ledger.list_movements(foreign).await.expect_err("a foreign cursor");
    assert_eq!(
        (reason(&refused), fields(&refused)),
        ("INVALID_ARGUMENT".to_owned(), vec!["page.cursor".to_owned()])
    );
    // Whoever writes a cursor by hand gets a refusal, not a fault: numbers 0 and 2^64 - 1, both ways.
    for number in ["0000000000000000", "ffffffffffffffff"] {
        for way in ["00", "01", "02", "03"] {
            let forged = format!("01{way}{number}{}", &first.next_cursor[20..]);
            let refused = node.ledger.list_movements(list(page(&forged))).await.expect_err("forged");
            assert_eq!(reason(&refused), "INVALID_ARGUMENT", "{forged}");
        }
    }
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn movements_are_filtered_by_type_kind_time_reference_and_operation() {
    let mut node = Running::start().await;
    ten_movements(&mut node).await;
    let all = node.movements(WHO, "main").await;
    let whole = || list(v1::PageRequest::default());

    let of_type = v1::ListMovementsRequest { types: vec![v1::MovementType::Granted.into()], ..whole() };
    assert_eq!(sequences(&mut node, of_type).await.0, [1]);
    let of_kind = v1::ListMovementsRequest { kinds: vec![Plan.into()], ..whole() };
    assert_eq!(sequences(&mut node, of_kind).await.0, [0u64; 0]);
    let of_time = v1::ListMovementsRequest {
        booked_from: Some(at(T0 + 3 * SECOND)),
        booked_until: Some(at(T0 + 5 * SECOND)),
        ..whole()
    };
    assert_eq!(sequences(&mut node, of_time).await.0, [4, 3]);
    let of_reference = v1::ListMovementsRequest { reference: "request-7".to_owned(), ..whole() };
    assert_eq!(sequences(&mut node, of_reference).await.0, [7]);
    let of_operation = v1::ListMovementsRequest { operation_id: all[4].operation_id.clone(), ..whole() };
    assert_eq!(sequences(&mut node, of_operation).await.0, [5]);

    let one = v1::GetMovementRequest {
        customer: WHO.to_owned(),
        movement_id: all[4].movement_id.clone(),
        ..Default::default()
    };
    let one = node.ledger.get_movement(one).await.expect("a movement").into_inner();
    assert_eq!(one.movement.as_ref(), Some(&all[4]));
    node.stop().await;
}

/// Covers: Audit, GetMovement
#[tokio::test(flavor = "multi_thread")]
async fn each_movement_names_the_hash_of_the_one_before_and_the_audit_ends_at_the_last() {
    let mut node = Running::start().await;
    ten_movements(&mut node).await;

    let all = node.movements(WHO, "main").await;
    let audit = node.audit(WHO).await;

    assert_eq!(all[0].previous_hash, "0".repeat(64));
    for pair in all.windows(2) {
        assert_eq!(pair[1].previous_hash, pair[0].hash);
        assert_eq!(pair[1].balance_before, pair[0].balance_after);
        assert_eq!(pair[1].sequence, pair[0].sequence + 1);
    }
    assert_eq!(audit.findings, []);
    let wallet = &audit.wallets[0];
    assert_eq!((wallet.movements, wallet.settled.as_str(), wallet.tranches), (10, "91", 1));
    assert_eq!(wallet.chain_hash, all[9].hash);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_at_its_deadline_is_too_old_and_a_deadline_too_far_ahead_is_malformed() {
    let mut node = Running::start().await;
    node.wallet_with(WHO, "main", vec![tranche("100", Purchased)]).await;
    let until =
        |micros| v1::DebitRequest { valid_until: Some(at(micros)), ..debit_request(WHO, "main", "1") };
    let quarter = 900 * SECOND;

    for late in [T0 - SECOND, T0] {
        let refused = node.debit(until(late)).await.expect_err("too late");
        assert_eq!(reason(&refused), "KEY_TOO_OLD");
    }
    let far = node.debit(until(T0 + quarter + 1)).await.expect_err("too far ahead");
    assert_eq!((reason(&far), fields(&far)), ("INVALID_ARGUMENT".to_owned(), vec!["valid_until".to_owned()]));
    assert_eq!(node.balance(WHO, "main").await.available, "100");
    node.debit(until(T0 + 1)).await.expect("just in time");
    node.debit(until(T0 + quarter)).await.expect("as far as it may be");
    assert_eq!(node.balance(WHO, "main").await.available, "98");
    node.stop().await;
}
