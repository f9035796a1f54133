//! Every call, and what holds over many of them.

use std::time::Duration;

use futures_util::future::join_all;
use futures_util::{StreamExt, stream};
use purser_client::{Outcome, Unknown, v1};

use crate::node::{Running, available, debit, fresh_customer, wallet_with};

/// A hold on the wallet `main`, under a key of the client's choice.
fn hold(customer: &str, amount: &str) -> v1::HoldRequest {
    v1::HoldRequest {
        customer: customer.to_owned(),
        payer: Some(v1::hold_request::Payer::Wallet("main".to_owned())),
        amount: amount.to_owned(),
        ..Default::default()
    }
}

/// A capture that closes the hold, under a key of the client's choice.
fn capture(customer: &str, hold_id: &str, amount: &str) -> v1::CaptureRequest {
    v1::CaptureRequest {
        customer: customer.to_owned(),
        hold_id: hold_id.to_owned(),
        amount: amount.to_owned(),
        ..Default::default()
    }
}

fn count_applied(outcomes: &[Outcome<v1::DebitRequest>]) -> usize {
    outcomes.iter().filter(|outcome| matches!(outcome, Outcome::Applied(_))).count()
}

/// All others were refused for want of credit.
fn count_denied(outcomes: &[Outcome<v1::DebitRequest>]) -> usize {
    let short = |outcome: &&Outcome<v1::DebitRequest>| matches!(outcome, Outcome::Denied(denial) if denial.reason == v1::Reason::InsufficientCredits);
    outcomes.iter().filter(short).count()
}

#[tokio::test]
async fn every_call_of_the_ledger_is_answered() {
    let node = Running::start().await;
    let client = node.client().await;
    let customer = "acme".to_owned();
    wallet_with(&client, &customer, "100").await;
    let wallet = "main".to_owned();

    let explain = v1::ExplainRequest { debit: Some(debit(&customer, "30")) };
    assert_eq!(client.explain(explain).await.expect("explained").remaining, "70");
    let debited = client.debit(debit(&customer, "30")).await.into_result().expect("applied");
    assert_eq!((debited.amount.as_str(), debited.remaining.as_str()), ("30", "70"));
    assert_eq!(available(&client, &customer).await, "70");

    let get =
        v1::GetWalletRequest { customer: customer.clone(), wallet: wallet.clone(), ..Default::default() };
    assert_eq!(client.get_wallet(get).await.expect("a wallet").wallet.expect("a wallet").wallet, "main");
    let list = v1::ListWalletsRequest { customer: customer.clone(), ..Default::default() };
    assert_eq!(client.list_wallets(list).await.expect("wallets").wallets.len(), 1);
    let list =
        v1::ListTranchesRequest { customer: customer.clone(), wallet: wallet.clone(), ..Default::default() };
    assert_eq!(client.list_tranches(list).await.expect("tranches").tranches[0].consumed, "30");
    let list =
        v1::ListMovementsRequest { customer: customer.clone(), wallet: wallet.clone(), ..Default::default() };
    let movements = client.list_movements(list).await.expect("movements").movements;
    assert_eq!(movements.len(), 2);
    let get = v1::GetMovementRequest {
        customer: customer.clone(),
        movement_id: movements[0].movement_id.clone(),
        ..Default::default()
    };
    assert_eq!(client.get_movement(get).await.expect("a movement").movement.expect("it").amount, "-30");
    let audit = v1::AuditRequest { customer: customer.clone(), ..Default::default() };
    assert!(client.audit(audit).await.expect("an audit").findings.is_empty());

    let freeze =
        v1::FreezeWalletRequest { customer: customer.clone(), wallet, frozen: true, ..Default::default() };
    client.freeze_wallet(freeze).await.into_result().expect("frozen");
    let Outcome::Denied(denial) = client.debit(debit(&customer, "1")).await else { panic!("not denied") };
    assert_eq!((denial.reason, denial.http_status()), (v1::Reason::WalletFrozen, 403));
    let elsewhere = client.with_namespace("staging");
    let balance = elsewhere.get_balance(v1::GetBalanceRequest { customer, ..Default::default() }).await;
    assert_eq!(balance.expect_err("another namespace").reason, v1::Reason::CustomerNotFound);
}

#[tokio::test]
async fn every_call_about_a_hold_is_answered() {
    let node = Running::start().await;
    let client = node.client().await;
    wallet_with(&client, "acme", "100").await;

    let held = client.hold(hold("acme", "30")).await.into_result().expect("a hold");
    assert_eq!((held.remaining.as_str(), available(&client, "acme").await.as_str()), ("70", "70"));
    let state = held.hold.expect("its state");
    let extend = v1::ExtendHoldRequest {
        customer: "acme".to_owned(),
        hold_id: state.hold_id.clone(),
        ttl: Some(prost_types::Duration { seconds: 3_600, nanos: 0 }),
        ..Default::default()
    };
    let extended = client.extend_hold(extend).await.into_result().expect("more time");
    let until = |state: &v1::HoldState| state.expires_at.expect("a time").seconds;
    assert!(until(&extended.hold.expect("its state")) > until(&state));

    let part = v1::CaptureRequest { keep_open: true, ..capture("acme", &state.hold_id, "10") };
    let part = client.capture(part).await.into_result().expect("a part");
    let left = part.hold.expect("its state");
    assert_eq!((part.amount.as_str(), left.status(), left.left.as_str()), ("10", v1::HoldStatus::Open, "20"));
    let rest = client.capture(capture("acme", &state.hold_id, "12")).await.into_result().expect("the rest");
    assert_eq!((rest.amount.as_str(), rest.released.as_str(), rest.remaining.as_str()), ("12", "8", "78"));

    let second = client.hold(hold("acme", "8")).await.into_result().expect("a hold");
    let second = second.hold.expect("its state").hold_id;
    let release =
        v1::ReleaseRequest { customer: "acme".to_owned(), hold_id: second.clone(), ..Default::default() };
    let released = client.release(release.clone()).await.into_result().expect("a release");
    assert_eq!((released.released.as_str(), released.remaining.as_str()), ("8", "78"));
    let get = v1::GetHoldRequest { customer: "acme".to_owned(), hold_id: second, ..Default::default() };
    let got = client.get_hold(get).await.expect("a hold").hold.expect("a hold");
    assert_eq!((got.state, got.wallets), (released.hold, vec!["main".to_owned()]));

    let third = client.hold(hold("acme", "1")).await.into_result().expect("a hold");
    let list = v1::ListHoldsRequest {
        customer: "acme".to_owned(),
        wallet: "main".to_owned(),
        statuses: vec![v1::HoldStatus::Open.into()],
        ..Default::default()
    };
    let listed = client.list_holds(list).await.expect("holds").holds;
    assert_eq!(listed.into_iter().map(|own| own.state).collect::<Vec<_>>(), [third.hold]);
    let balance = v1::GetBalanceRequest { customer: "acme".to_owned(), by_hold: true, ..Default::default() };
    let wallet = client.get_balance(balance).await.expect("a balance").wallets.remove(0);
    assert_eq!((wallet.open_holds, wallet.holds.len()), (1, 1));
}

#[tokio::test]
async fn a_hold_is_captured_once_and_a_denial_about_it_is_a_verdict() {
    let node = Running::start().await;
    let client = node.client().await;
    wallet_with(&client, "acme", "10").await;
    let request = v1::HoldRequest { idempotency_key: "request-1".to_owned(), ..hold("acme", "6") };
    let first = client.hold(request.clone()).await.into_result().expect("a hold");
    let again = client.hold(request).await.into_result().expect("the same hold");
    assert!(again.receipt.expect("a receipt").replayed);
    assert_eq!(again.hold, first.hold);
    let id = first.hold.expect("its state").hold_id;

    let beyond = client.capture(capture("acme", &id, "11")).await;
    let Outcome::Denied(denial) = beyond else { panic!("not denied") };
    assert_eq!((denial.metadata["available"].as_str(), denial.metadata["required"].as_str()), ("4", "5"));
    assert_eq!((denial.reason, denial.http_status()), (v1::Reason::InsufficientCredits, 402));

    let settle = v1::CaptureRequest { idempotency_key: "settle-1".to_owned(), ..capture("acme", &id, "7") };
    let once = client.capture(settle.clone()).await.into_result().expect("6, and 1 more");
    let twice = client.capture(settle).await.into_result().expect("the first answer");
    assert_eq!((twice.hold, twice.amount), (once.hold, once.amount));
    assert_eq!(available(&client, "acme").await, "3");

    let Outcome::Denied(denial) = client.capture(capture("acme", &id, "1")).await else {
        panic!("not denied")
    };
    assert_eq!((denial.reason, denial.http_status()), (v1::Reason::HoldClosed, 409));
    assert!(denial.is_verdict());
    let unknown = client.capture(capture("acme", "hld_0000000000000", "1")).await;
    let Outcome::Denied(denial) = unknown else { panic!("not denied") };
    assert_eq!((denial.reason, denial.http_status()), (v1::Reason::HoldNotFound, 404));
}

#[tokio::test]
async fn holds_of_many_callers_at_once_never_set_aside_more_than_there_is() {
    let node = Running::start().await;
    let client = node.client().await;
    wallet_with(&client, "acme", "60").await;

    let outcomes = join_all((0..100).map(|_| client.hold(hold("acme", "1")))).await;

    let held: Vec<_> = outcomes.into_iter().filter_map(|outcome| outcome.into_result().ok()).collect();
    assert_eq!((held.len(), available(&client, "acme").await.as_str()), (60, "0"));
    let ids = held.into_iter().map(|own| own.hold.expect("its state").hold_id);
    let captured = join_all(ids.map(|id| client.capture(capture("acme", &id, "")))).await;
    assert!(captured.into_iter().all(|outcome| outcome.into_result().is_ok()));
    let audit = v1::AuditRequest { customer: "acme".to_owned(), ..Default::default() };
    let audit = client.audit(audit).await.expect("an audit");
    assert_eq!((audit.findings.len(), audit.wallets[0].settled.as_str()), (0, "0"));
}

#[tokio::test]
async fn a_key_is_charged_once_and_a_denial_says_how_much_there_is() {
    let node = Running::start().await;
    let client = node.client().await;
    wallet_with(&client, "acme", "8").await;
    let request = v1::DebitRequest { idempotency_key: "request-1".to_owned(), ..debit("acme", "5") };
    let first = client.debit(request.clone()).await.into_result().expect("applied");
    let again = client.debit(request).await.into_result().expect("applied");
    assert!(!first.receipt.expect("a receipt").replayed);
    assert!(again.receipt.expect("a receipt").replayed);
    let Outcome::Denied(denial) = client.debit(debit("acme", "5")).await else { panic!("not denied") };
    assert_eq!((denial.metadata["available"].as_str(), denial.metadata["required"].as_str()), ("3", "5"));
    assert!(denial.is_verdict());
    assert_eq!(available(&client, "acme").await, "3");
}

#[tokio::test]
async fn a_list_a_stream_and_many_callers_never_spend_more_than_there_is() {
    let node = Running::start().await;
    let client = node.client().await;

    let customer = fresh_customer();
    wallet_with(&client, &customer, "600").await;
    let outcomes = client.debit_batch((0..1_000).map(|_| debit(&customer, "1")).collect()).await;
    assert_eq!((count_applied(&outcomes), count_denied(&outcomes)), (600, 400));
    assert!(outcomes[..600].iter().all(|own| matches!(own, Outcome::Applied(_))), "in their order");
    assert_eq!(available(&client, &customer).await, "0");

    let customer = fresh_customer();
    wallet_with(&client, &customer, "600").await;
    let requests = stream::iter((0..1_000).map(|_| debit(&customer, "1")));
    let outcomes: Vec<_> = client.debit_stream(requests).collect().await;
    assert_eq!((count_applied(&outcomes), count_denied(&outcomes)), (600, 400));
    assert_eq!(available(&client, &customer).await, "0");

    let customer = fresh_customer();
    wallet_with(&client, &customer, "600").await;
    let outcomes = join_all((0..1_000).map(|_| client.debit(debit(&customer, "1")))).await;
    assert_eq!((count_applied(&outcomes), count_denied(&outcomes)), (600, 400));
    assert_eq!(available(&client, &customer).await, "0");
}

#[tokio::test]
async fn debits_of_many_customers_in_one_list_reach_each_of_their_wallets() {
    let node = Running::start().await;
    let client = node.client().await;
    let customers: Vec<String> = (0..20).map(|_| fresh_customer()).collect();
    for customer in &customers {
        wallet_with(&client, customer, "10").await;
    }
    let requests =
        customers.iter().flat_map(|customer| [debit(customer, "1"), debit(customer, "2")]).collect();
    assert_eq!(count_applied(&client.debit_batch(requests).await), 40);
    for customer in &customers {
        assert_eq!(available(&client, customer).await, "7");
    }
}

#[tokio::test]
async fn a_list_and_a_stream_of_several_sorts_are_judged_in_their_order() {
    use v1::write_result::Outcome as Told;
    let node = Running::start().await;
    let client = node.client().await;
    wallet_with(&client, "acme", "100").await;
    let grant = |amount: &str| v1::GrantRequest {
        customer: "acme".to_owned(),
        wallet: "main".to_owned(),
        tranches: vec![v1::TrancheSpec {
            amount: amount.to_owned(),
            kind: v1::TrancheKind::Purchased.into(),
            ..Default::default()
        }],
        ..Default::default()
    };

    // 100 - 60 leaves 40; with 5 more 45 are enough, and then nothing is left.
    let requests: Vec<v1::WriteRequest> = vec![
        hold("acme", "60").into(),
        debit("acme", "45").into(),
        grant("5").into(),
        debit("acme", "45").into(),
        hold("acme", "1").into(),
    ];
    let outcomes = client.write_batch(requests).await;
    assert_eq!(outcomes.iter().map(Outcome::http_status).collect::<Vec<_>>(), [200, 402, 200, 200, 402]);
    let Outcome::Applied(v1::WriteResult { outcome: Some(Told::Held(held)) }) = &outcomes[0] else {
        panic!("not held: {:?}", outcomes[0])
    };
    let Outcome::Applied(v1::WriteResult { outcome: Some(Told::Debited(spent)) }) = &outcomes[3] else {
        panic!("not debited: {:?}", outcomes[3])
    };
    assert_eq!((held.remaining.as_str(), spent.remaining.as_str()), ("40", "0"));

    let id = &held.hold.as_ref().expect("its state").hold_id;
    let part = v1::CaptureRequest { keep_open: true, ..capture("acme", id, "10") };
    let release =
        v1::ReleaseRequest { customer: "acme".to_owned(), hold_id: id.clone(), ..Default::default() };
    let movement_id = spent.receipt.as_ref().expect("a receipt").movement_ids[0].clone();
    let refund = v1::RefundRequest {
        customer: "acme".to_owned(),
        movement_id,
        amount: "20".to_owned(),
        ..Default::default()
    };
    // 50 released and 20 refunded.
    let requests: Vec<v1::WriteRequest> =
        vec![part.into(), release.clone().into(), refund.into(), debit("acme", "70").into(), release.into()];
    let outcomes: Vec<_> = client.write_stream(stream::iter(requests)).collect().await;
    assert_eq!(outcomes.iter().map(Outcome::http_status).collect::<Vec<_>>(), [200, 200, 200, 200, 409]);
    assert_eq!(available(&client, "acme").await, "0");
}

#[tokio::test]
async fn debits_over_a_restart_are_each_applied_once_and_the_unknown_ones_are_resolved() {
    let mut node = Running::start().await;
    let client = node.client().await;
    wallet_with(&client, "acme", "1000").await;
    // In a hurry, so that some of them may be left open.
    let hasty = client.with_deadline(Duration::from_millis(300));
    let debits = || join_all((0..100).map(|_| hasty.debit(debit("acme", "1"))));

    let (mut outcomes, ()) = tokio::join!(debits(), node.stop());
    let down = debits().await;
    assert_eq!(count_applied(&down), 0, "nobody is there");
    outcomes.extend(down);
    let (meanwhile, ()) = tokio::join!(debits(), node.start_again());
    outcomes.extend(meanwhile);

    let (mut applied, mut open) = (0, Vec::new());
    for outcome in outcomes {
        match outcome {
            Outcome::Applied(_) => applied += 1,
            Outcome::Denied(denial) => assert_eq!(denial.http_status(), 503, "{denial}"),
            Outcome::Unknown(Unknown { request, .. }) => open.push(request),
        }
    }
    for request in open {
        client.resolve(request).await.into_result().expect("it is valid for minutes yet");
        applied += 1;
    }
    assert_eq!(available(&client, "acme").await, (1_000 - applied).to_string());
}

#[tokio::test]
async fn a_client_that_starts_before_its_node_finds_it_later() {
    let mut node = Running::start().await;
    wallet_with(&node.client().await, "acme", "10").await;
    node.stop().await;
    let client = purser_client::PurserClient::builder([node.address.clone()])
        .deadline(Duration::from_secs(60))
        .build()
        .expect("a client");
    let debiting = tokio::spawn(async move { client.debit(debit("acme", "1")).await });
    node.start_again().await;
    debiting.await.expect("no panic").into_result().expect("applied");
}
