//! Malformed requests over gRPC: for each the reason, and the field that `BadRequest` names. After all
//! of them the books are as before.

mod node_support;

use node_support::{
    Running, T0, asset, at, create_request, debit_request, fields, grant_request, reason, tranche,
};
use purser_proto::v1;
use tonic::Status;
use v1::TrancheKind::Purchased;

const WHO: &str = "acme";
const INVALID: &str = "INVALID_ARGUMENT";
const LIMIT: &str = "LIMIT_EXCEEDED";
const PRECISION: &str = "INVALID_AMOUNT_PRECISION";

/// How a good request is spoilt, the reason, and the field to be named.
type Case<T> = (fn(&mut T), &'static str, &'static str);

fn long(bytes: usize) -> String {
    "x".repeat(bytes)
}

fn pairs(count: usize) -> std::collections::BTreeMap<String, String> {
    (0..count).map(|number| (format!("name-{number}"), String::new())).collect()
}

fn check(place: usize, refused: &Status, expected: (&str, &str)) {
    let found = (reason(refused), fields(refused).first().cloned().unwrap_or_default());
    assert_eq!((found.0.as_str(), found.1.as_str()), expected, "case {place}: {refused:?}");
}

/// A node with a wallet `main` of `credits/2` that holds 100.
async fn node() -> Running {
    let mut node = Running::start().await;
    node.create(create_request(WHO, "main", 2)).await;
    node.grant(WHO, "main", vec![tranche("100", Purchased)]).await;
    node
}

async fn unchanged(mut node: Running) {
    assert_eq!(node.movements(WHO, "main").await.len(), 1);
    assert_eq!(node.balance(WHO, "main").await.settled, "100.00");
    assert_eq!(node.audit(WHO).await.findings, []);
    node.stop().await;
}

const DEBITS: &[Case<v1::DebitRequest>] = &[
    (|own| own.customer.clear(), INVALID, "customer"),
    (|own| own.customer = long(129), LIMIT, "customer"),
    (|own| own.namespace = long(129), LIMIT, "namespace"),
    (|own| own.idempotency_key.clear(), INVALID, "idempotency_key"),
    (|own| own.idempotency_key = long(256), LIMIT, "idempotency_key"),
    (|own| own.payer = None, INVALID, "payer"),
    (|own| own.payer = Some(v1::debit_request::Payer::Wallet(String::new())), INVALID, "wallet"),
    (|own| own.payer = Some(v1::debit_request::Payer::Wallet(long(129))), LIMIT, "wallet"),
    (|own| own.payer = Some(in_asset("", 0)), INVALID, "asset.code"),
    (|own| own.payer = Some(in_asset("a/b", 0)), INVALID, "asset.code"),
    (|own| own.payer = Some(in_asset(&long(33), 0)), LIMIT, "asset.code"),
    (|own| own.payer = Some(in_asset("credits", 19)), INVALID, "asset.scale"),
    (|own| own.amount = "-1".to_owned(), INVALID, "amount"),
    (|own| own.amount = "+1".to_owned(), INVALID, "amount"),
    (|own| own.amount = "1e3".to_owned(), INVALID, "amount"),
    (|own| own.amount = String::new(), INVALID, "amount"),
    (|own| own.amount = " 1".to_owned(), INVALID, "amount"),
    (|own| own.amount = ".".to_owned(), INVALID, "amount"),
    (|own| own.amount = ".5".to_owned(), INVALID, "amount"),
    (|own| own.amount = "5.".to_owned(), INVALID, "amount"),
    (|own| own.amount = "0".to_owned(), INVALID, "amount"),
    (|own| own.amount = "0.00".to_owned(), INVALID, "amount"),
    // Nineteen places: more than any asset has.
    (|own| own.amount = "0.0000000000000000001".to_owned(), PRECISION, "amount"),
    (|own| own.charge_type = 99, INVALID, "charge_type"),
    (|own| own.feature = long(129), LIMIT, "feature"),
    (|own| own.reference = long(129), LIMIT, "reference"),
    (|own| own.reason_code = long(129), LIMIT, "reason_code"),
    (|own| own.metadata = pairs(33), LIMIT, "metadata"),
    (|own| own.metadata = [("a".to_owned(), long(2_048))].into(), LIMIT, "metadata"),
    (|own| own.metadata = [(String::new(), long(1))].into(), INVALID, "metadata"),
    (|own| own.valid_until = Some(prost_types::Timestamp { seconds: -1, nanos: 0 }), INVALID, "valid_until"),
];

fn in_asset(code: &str, scale: u32) -> v1::debit_request::Payer {
    v1::debit_request::Payer::Asset(v1::Asset { code: code.to_owned(), scale })
}

fn lasting(duration: &str, time_zone: &str) -> Option<v1::tranche_spec::Expiry> {
    let (duration, time_zone) = (duration.to_owned(), time_zone.to_owned());
    Some(v1::tranche_spec::Expiry::ExpiresIn(v1::CalendarDuration { duration, time_zone }))
}

fn money(currency: &str, amount: &str) -> Option<v1::Money> {
    Some(v1::Money { currency: currency.to_owned(), amount: amount.to_owned() })
}

const GRANTS: &[Case<v1::GrantRequest>] = &[
    (|own| own.wallet.clear(), INVALID, "wallet"),
    (|own| own.tranches.clear(), INVALID, "tranches"),
    (|own| own.tranches = vec![tranche("1", Purchased); 101], LIMIT, "tranches"),
    (|own| own.tranches.push(tranche("-1", Purchased)), INVALID, "tranches[1].amount"),
    (|own| own.tranches[0].kind = 0, INVALID, "tranches[0].kind"),
    (|own| own.tranches[0].kind = 99, INVALID, "tranches[0].kind"),
    (|own| own.tranches[0].priority = Some(1_001), INVALID, "tranches[0].priority"),
    (|own| own.tranches[0].charge_scope = 99, INVALID, "tranches[0].charge_scope"),
    (
        |own| own.tranches[0].features = (0..33).map(|n| n.to_string()).collect(),
        LIMIT,
        "tranches[0].features",
    ),
    (|own| own.tranches[0].features = vec![String::new()], INVALID, "tranches[0].features"),
    (|own| own.tranches[0].label = long(129), LIMIT, "tranches[0].label"),
    (|own| own.tranches[0].external_reference = long(129), LIMIT, "tranches[0].external_reference"),
    (|own| own.tranches[0].metadata = pairs(33), LIMIT, "tranches[0].metadata"),
    (|own| own.tranches[0].expiry = lasting("", ""), INVALID, "tranches[0].expires_in.duration"),
    (|own| own.tranches[0].expiry = lasting("a month", ""), INVALID, "tranches[0].expires_in.duration"),
    (|own| own.tranches[0].expiry = lasting("P0D", ""), INVALID, "tranches[0].expires_in.duration"),
    (|own| own.tranches[0].expiry = lasting("-P1D", ""), INVALID, "tranches[0].expires_in.duration"),
    (|own| own.tranches[0].expiry = lasting("P9999Y", ""), INVALID, "tranches[0].expires_in.duration"),
    (
        |own| own.tranches[0].expiry = lasting("P1D", "Mars/Olympus"),
        INVALID,
        "tranches[0].expires_in.time_zone",
    ),
    (|own| own.tranches[0].cost_basis = money("USD", "-1"), INVALID, "tranches[0].cost_basis.amount"),
    (|own| own.tranches[0].cost_basis = money("", "1"), INVALID, "tranches[0].cost_basis.currency"),
    (
        |own| {
            own.tranches[0].effective_at = Some(at(T0 + 9));
            own.tranches[0].expiry = Some(v1::tranche_spec::Expiry::ExpiresAt(at(T0 + 9)));
        },
        INVALID,
        "tranches[0].expires_at",
    ),
    // Judged by the ledger's time.
    (|own| own.tranches[0].expiry = Some(v1::tranche_spec::Expiry::ExpiresAt(at(T0))), INVALID, "tranches"),
];

const WALLETS: &[Case<v1::CreateWalletRequest>] = &[
    (|own| own.wallet.clear(), INVALID, "wallet"),
    (|own| own.wallet = long(129), LIMIT, "wallet"),
    (|own| own.asset = None, INVALID, "asset"),
    (|own| own.asset = Some(v1::Asset { code: "é".to_owned(), scale: 0 }), INVALID, "asset.code"),
    (|own| own.asset = Some(asset(19)), INVALID, "asset.scale"),
    (|own| own.asset = Some(asset(u32::MAX)), INVALID, "asset.scale"),
    (|own| own.draw_priority = Some(1_001), INVALID, "draw_priority"),
    (|own| own.burn_policy = 99, INVALID, "burn_policy"),
    (|own| own.charge_scope = 99, INVALID, "charge_scope"),
];

const LISTS: &[Case<v1::ListMovementsRequest>] = &[
    (|own| own.customer.clear(), INVALID, "customer"),
    (|own| own.wallet.clear(), INVALID, "wallet"),
    (|own| own.page = Some(v1::PageRequest { size: 1_001, ..Default::default() }), INVALID, "page.size"),
    (|own| own.page = Some(v1::PageRequest { order: 99, ..Default::default() }), INVALID, "page.order"),
    (
        |own| own.page = Some(v1::PageRequest { cursor: "no cursor".to_owned(), ..Default::default() }),
        INVALID,
        "page.cursor",
    ),
    (|own| own.operation_id = "op_".to_owned(), INVALID, "operation_id"),
    (|own| own.booked_from = Some(prost_types::Timestamp { seconds: 0, nanos: -1 }), INVALID, "booked_from"),
    (|own| own.types = vec![v1::MovementType::Granted.into(), 99], INVALID, "types"),
    (|own| own.types = vec![0], INVALID, "types"),
    (|own| own.kinds = vec![99], INVALID, "kinds"),
    (|own| own.kinds = vec![Purchased.into(), 0], INVALID, "kinds"),
];

const BALANCES: &[Case<v1::GetBalanceRequest>] = &[
    (|own| own.customer = long(129), LIMIT, "customer"),
    (|own| own.wallet = long(129), LIMIT, "wallet"),
    (|own| own.asset = Some(asset(2)), INVALID, "asset"),
    (|own| own.expiring_within_days = 3_661, INVALID, "expiring_within_days"),
];

#[tokio::test(flavor = "multi_thread")]
async fn a_malformed_write_is_refused_by_the_field_at_fault_and_changes_nothing() {
    let mut node = node().await;
    for (place, (spoil, reason, field)) in DEBITS.iter().enumerate() {
        let mut request = debit_request(WHO, "main", "1");
        spoil(&mut request);
        check(place, &node.ledger.debit(request).await.expect_err(field), (reason, field));
    }
    for (place, (spoil, reason, field)) in GRANTS.iter().enumerate() {
        let mut request = grant_request(WHO, "main", vec![tranche("1", Purchased)]);
        spoil(&mut request);
        check(place, &node.ledger.grant(request).await.expect_err(field), (reason, field));
    }
    for (place, (spoil, reason, field)) in WALLETS.iter().enumerate() {
        let mut request = create_request(WHO, "another", 0);
        spoil(&mut request);
        check(place, &node.ledger.create_wallet(request).await.expect_err(field), (reason, field));
    }
    unchanged(node).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_malformed_read_is_refused_by_the_field_at_fault() {
    let mut node = node().await;
    let (customer, wallet) = (WHO.to_owned(), "main".to_owned());
    let list =
        v1::ListMovementsRequest { customer: customer.clone(), wallet: wallet.clone(), ..Default::default() };
    for (place, (spoil, reason, field)) in LISTS.iter().enumerate() {
        let mut request = list.clone();
        spoil(&mut request);
        check(place, &node.ledger.list_movements(request).await.expect_err(field), (reason, field));
    }
    let balance = v1::GetBalanceRequest { customer: customer.clone(), wallet, ..Default::default() };
    for (place, (spoil, reason, field)) in BALANCES.iter().enumerate() {
        let mut request = balance.clone();
        spoil(&mut request);
        check(place, &node.ledger.get_balance(request).await.expect_err(field), (reason, field));
    }
    let movement = v1::GetMovementRequest { customer, movement_id: "first".to_owned(), ..Default::default() };
    let refused = node.ledger.get_movement(movement).await.expect_err("no id");
    check(0, &refused, (INVALID, "movement_id"));
    let refused = node.ledger.explain(v1::ExplainRequest { debit: None }).await.expect_err("no debit");
    check(0, &refused, (INVALID, "debit"));
    unchanged(node).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn amounts_that_do_not_fit_the_wallet_are_refused_and_every_fault_of_a_request_is_named() {
    let mut node = node().await;
    let precise = node.debit(debit_request(WHO, "main", "0.001")).await.expect_err("three places");
    assert_eq!(reason(&precise), PRECISION);
    let huge = node.debit(debit_request(WHO, "main", &"9".repeat(39))).await.expect_err("39 digits");
    assert_eq!(reason(&huge), "AMOUNT_OVERFLOW");
    // Too precise and too big: precision is reported.
    let both = format!("{}.001", "9".repeat(39));
    let both = node.debit(debit_request(WHO, "main", &both)).await.expect_err("both");
    assert_eq!(reason(&both), PRECISION);
    // i128 ends at 1.7e38 units: 1.7e36 of a scale of 2, and 100 are there already.
    let most = "1701411834604692317316873037158841057.27";
    let full = node.ledger.grant(grant_request(WHO, "main", vec![tranche(most, Purchased)])).await;
    assert_eq!(reason(&full.expect_err("the wallet's total does not fit")), "AMOUNT_OVERFLOW");
    let three = v1::DebitRequest { customer: String::new(), payer: None, ..debit_request(WHO, "", "x") };
    let refused = node.debit(three).await.expect_err("three faults");
    assert_eq!(fields(&refused), ["customer", "payer", "amount"]);
    unchanged(node).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_exist_is_not_found_by_name() {
    let mut node = node().await;
    let wallet = node.debit(debit_request(WHO, "none", "1")).await.expect_err("no wallet");
    assert_eq!((wallet.code(), reason(&wallet)), (tonic::Code::NotFound, "WALLET_NOT_FOUND".to_owned()));
    let customer = node.debit(debit_request("nobody", "main", "1")).await.expect_err("no customer");
    assert_eq!(
        (customer.code(), reason(&customer)),
        (tonic::Code::NotFound, "CUSTOMER_NOT_FOUND".to_owned())
    );
    let elsewhere = v1::DebitRequest { namespace: "staging".to_owned(), ..debit_request(WHO, "main", "1") };
    let elsewhere = node.debit(elsewhere).await.expect_err("another namespace");
    assert_eq!(reason(&elsewhere), "CUSTOMER_NOT_FOUND");
    let asset = v1::DebitRequest { payer: Some(in_asset("credits", 0)), ..debit_request(WHO, "", "1") };
    assert_eq!(reason(&node.debit(asset).await.expect_err("no such asset")), "WALLET_NOT_FOUND");
    let read = |customer: &str, wallet: &str| v1::GetBalanceRequest {
        customer: customer.to_owned(),
        wallet: wallet.to_owned(),
        ..Default::default()
    };
    let refused = node.ledger.get_balance(read(WHO, "none")).await.expect_err("no wallet");
    assert_eq!(reason(&refused), "WALLET_NOT_FOUND");
    let refused = node.ledger.get_balance(read("nobody", "")).await.expect_err("no customer");
    assert_eq!(reason(&refused), "CUSTOMER_NOT_FOUND");
    let movement = v1::GetMovementRequest {
        customer: WHO.to_owned(),
        movement_id: "mov_0000000000000".to_owned(),
        ..Default::default()
    };
    let refused = node.ledger.get_movement(movement).await.expect_err("no movement");
    assert_eq!(reason(&refused), "MOVEMENT_NOT_FOUND");
    unchanged(node).await;
}
