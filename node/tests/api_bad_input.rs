//! Malformed requests over gRPC: for each the reason, and the field that `BadRequest` names. After all
//! of them the books are as before.

mod node_support;

use std::collections::{BTreeMap, BTreeSet};

use node_support::{
    DAY, Running, SECOND, T0, Write, adjust_request, asset, at, capture_request, close_request,
    confirm_request, create_request, debit_request, extend_request, fail_request, fields, freeze_request,
    grant_request, hold_request, lasting, of_receipt, reason, refund_request, release_request, tranche,
    unpaid, update_request, void_request,
};
use purser_proto::v1;
use tonic::{Code, Status};
use v1::TrancheKind::Purchased;

const WHO: &str = "acme";
const INVALID: &str = "INVALID_ARGUMENT";
const LIMIT: &str = "LIMIT_EXCEEDED";
const PRECISION: &str = "INVALID_AMOUNT_PRECISION";

/// How a good request is spoilt, the reason, and the fields to be named.
type Case<T> = (fn(&mut T), &'static str, &'static [&'static str]);

fn long(bytes: usize) -> String {
    "x".repeat(bytes)
}

fn pairs(count: usize) -> BTreeMap<String, String> {
    (0..count).map(|number| (format!("name-{number}"), String::new())).collect()
}

/// Spoils a request in each way and has it refused by the fields at fault.
async fn check<T: Clone>(good: &T, cases: &[Case<T>], mut ask: impl AsyncFnMut(T) -> Status) {
    for (place, (spoil, expected, named)) in cases.iter().enumerate() {
        let mut request = good.clone();
        spoil(&mut request);
        let refused = ask(request).await;
        assert_eq!(refused.code(), Code::InvalidArgument, "case {place}: {refused:?}");
        assert_eq!(reason(&refused), *expected, "case {place}: {refused:?}");
        // In any order, and a field may be at fault in two ways.
        let found: BTreeSet<_> = fields(&refused).into_iter().collect();
        let named: BTreeSet<_> = named.iter().map(|field| (*field).to_owned()).collect();
        assert_eq!(found, named, "case {place}: {refused:?}");
    }
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
    (|own| own.customer.clear(), INVALID, &["customer"]),
    (|own| own.customer = long(129), LIMIT, &["customer"]),
    (|own| own.namespace = long(129), LIMIT, &["namespace"]),
    (|own| own.idempotency_key.clear(), INVALID, &["idempotency_key"]),
    (|own| own.idempotency_key = long(256), LIMIT, &["idempotency_key"]),
    (|own| own.payer = None, INVALID, &["payer"]),
    (|own| own.payer = Some(v1::debit_request::Payer::Wallet(String::new())), INVALID, &["wallet"]),
    (|own| own.payer = Some(v1::debit_request::Payer::Wallet(long(129))), LIMIT, &["wallet"]),
    (|own| own.payer = Some(in_asset("", 0)), INVALID, &["asset.code"]),
    (|own| own.payer = Some(in_asset("a/b", 0)), INVALID, &["asset.code"]),
    (|own| own.payer = Some(in_asset(&long(33), 0)), LIMIT, &["asset.code"]),
    (|own| own.payer = Some(in_asset("credits", 19)), INVALID, &["asset.scale"]),
    (|own| own.amount = "-1".to_owned(), INVALID, &["amount"]),
    (|own| own.amount = "+1".to_owned(), INVALID, &["amount"]),
    (|own| own.amount = "1e3".to_owned(), INVALID, &["amount"]),
    (|own| own.amount = String::new(), INVALID, &["amount"]),
    (|own| own.amount = " 1".to_owned(), INVALID, &["amount"]),
    (|own| own.amount = ".".to_owned(), INVALID, &["amount"]),
    (|own| own.amount = ".5".to_owned(), INVALID, &["amount"]),
    (|own| own.amount = "5.".to_owned(), INVALID, &["amount"]),
    (|own| own.amount = "0".to_owned(), INVALID, &["amount"]),
    (|own| own.amount = "0.00".to_owned(), INVALID, &["amount"]),
    // Nineteen places: more than any asset has.
    (|own| own.amount = "0.0000000000000000001".to_owned(), PRECISION, &["amount"]),
    (|own| own.charge_type = 99, INVALID, &["charge_type"]),
    (|own| own.feature = long(129), LIMIT, &["feature"]),
    (|own| own.reference = long(129), LIMIT, &["reference"]),
    (|own| own.reason_code = long(129), LIMIT, &["reason_code"]),
    (|own| own.metadata = pairs(33), LIMIT, &["metadata"]),
    (|own| own.metadata = [("a".to_owned(), long(2_048))].into(), LIMIT, &["metadata"]),
    (|own| own.metadata = [(String::new(), long(1))].into(), INVALID, &["metadata"]),
    (
        |own| own.valid_until = Some(prost_types::Timestamp { seconds: -1, nanos: 0 }),
        INVALID,
        &["valid_until"],
    ),
];

fn in_asset(code: &str, scale: u32) -> v1::debit_request::Payer {
    v1::debit_request::Payer::Asset(v1::Asset { code: code.to_owned(), scale })
}

fn lived(duration: &str, time_zone: &str) -> Option<v1::tranche_spec::Expiry> {
    let (duration, time_zone) = (duration.to_owned(), time_zone.to_owned());
    Some(v1::tranche_spec::Expiry::ExpiresIn(v1::CalendarDuration { duration, time_zone }))
}

fn money(currency: &str, amount: &str) -> Option<v1::Money> {
    Some(v1::Money { currency: currency.to_owned(), amount: amount.to_owned() })
}

const GRANTS: &[Case<v1::GrantRequest>] = &[
    (|own| own.wallet.clear(), INVALID, &["wallet"]),
    (|own| own.tranches.clear(), INVALID, &["tranches"]),
    (|own| own.tranches = vec![tranche("1", Purchased); 101], LIMIT, &["tranches"]),
    (|own| own.tranches.push(tranche("-1", Purchased)), INVALID, &["tranches[1].amount"]),
    (|own| own.tranches[0].kind = 0, INVALID, &["tranches[0].kind"]),
    (|own| own.tranches[0].kind = 99, INVALID, &["tranches[0].kind"]),
    (|own| own.tranches[0].priority = Some(1_001), INVALID, &["tranches[0].priority"]),
    (|own| own.tranches[0].charge_scope = 99, INVALID, &["tranches[0].charge_scope"]),
    (
        |own| own.tranches[0].features = (0..33).map(|n| n.to_string()).collect(),
        LIMIT,
        &["tranches[0].features"],
    ),
    (|own| own.tranches[0].features = vec![String::new()], INVALID, &["tranches[0].features"]),
    (|own| own.tranches[0].label = long(129), LIMIT, &["tranches[0].label"]),
    (|own| own.tranches[0].external_reference = long(129), LIMIT, &["tranches[0].external_reference"]),
    (|own| own.tranches[0].metadata = pairs(33), LIMIT, &["tranches[0].metadata"]),
    (|own| own.tranches[0].expiry = lived("", ""), INVALID, &["tranches[0].expires_in.duration"]),
    (|own| own.tranches[0].expiry = lived("a month", ""), INVALID, &["tranches[0].expires_in.duration"]),
    (|own| own.tranches[0].expiry = lived("P0D", ""), INVALID, &["tranches[0].expires_in.duration"]),
    (|own| own.tranches[0].expiry = lived("-P1D", ""), INVALID, &["tranches[0].expires_in.duration"]),
    (|own| own.tranches[0].expiry = lived("P9999Y", ""), INVALID, &["tranches[0].expires_in.duration"]),
    (
        |own| own.tranches[0].expiry = lived("P1D", "Mars/Olympus"),
        INVALID,
        &["tranches[0].expires_in.time_zone"],
    ),
    (|own| own.tranches[0].cost_basis = money("USD", "-1"), INVALID, &["tranches[0].cost_basis.amount"]),
    (|own| own.tranches[0].cost_basis = money("", "1"), INVALID, &["tranches[0].cost_basis.currency"]),
    (
        |own| {
            own.tranches[0].effective_at = Some(at(T0 + 9));
            own.tranches[0].expiry = Some(v1::tranche_spec::Expiry::ExpiresAt(at(T0 + 9)));
        },
        INVALID,
        &["tranches[0].expires_at"],
    ),
    // Judged by the ledger's time.
    (
        |own| own.tranches[0].expiry = Some(v1::tranche_spec::Expiry::ExpiresAt(at(T0))),
        INVALID,
        &["tranches"],
    ),
];

const WALLETS: &[Case<v1::CreateWalletRequest>] = &[
    (|own| own.wallet.clear(), INVALID, &["wallet"]),
    (|own| own.wallet = long(129), LIMIT, &["wallet"]),
    (|own| own.asset = None, INVALID, &["asset"]),
    (|own| own.asset = Some(v1::Asset { code: "é".to_owned(), scale: 0 }), INVALID, &["asset.code"]),
    (|own| own.asset = Some(asset(19)), INVALID, &["asset.scale"]),
    (|own| own.asset = Some(asset(u32::MAX)), INVALID, &["asset.scale"]),
    (|own| own.draw_priority = Some(1_001), INVALID, &["draw_priority"]),
    (|own| own.burn_policy = 99, INVALID, &["burn_policy"]),
    (|own| own.charge_scope = 99, INVALID, &["charge_scope"]),
];

const LISTS: &[Case<v1::ListMovementsRequest>] = &[
    (|own| own.customer.clear(), INVALID, &["customer"]),
    (|own| own.wallet.clear(), INVALID, &["wallet"]),
    (|own| own.page = Some(v1::PageRequest { size: 1_001, ..Default::default() }), INVALID, &["page.size"]),
    (|own| own.page = Some(v1::PageRequest { order: 99, ..Default::default() }), INVALID, &["page.order"]),
    (
        |own| own.page = Some(v1::PageRequest { cursor: "no cursor".to_owned(), ..Default::default() }),
        INVALID,
        &["page.cursor"],
    ),
    (|own| own.operation_id = "op_".to_owned(), INVALID, &["operation_id"]),
    (
        |own| own.booked_from = Some(prost_types::Timestamp { seconds: 0, nanos: -1 }),
        INVALID,
        &["booked_from"],
    ),
    (|own| own.types = vec![v1::MovementType::Granted.into(), 99], INVALID, &["types"]),
    (|own| own.types = vec![0], INVALID, &["types"]),
    (|own| own.kinds = vec![99], INVALID, &["kinds"]),
    (|own| own.kinds = vec![Purchased.into(), 0], INVALID, &["kinds"]),
];

const BALANCES: &[Case<v1::GetBalanceRequest>] = &[
    (|own| own.customer = long(129), LIMIT, &["customer"]),
    (|own| own.wallet = long(129), LIMIT, &["wallet"]),
    (|own| own.asset = Some(asset(2)), INVALID, &["asset"]),
    (|own| own.expiring_within_days = 3_661, INVALID, &["expiring_within_days"]),
];

fn seconds(seconds: i64, nanos: i32) -> Option<prost_types::Duration> {
    Some(prost_types::Duration { seconds, nanos })
}

const HOLDS: &[Case<v1::HoldRequest>] = &[
    (|own| own.customer.clear(), INVALID, &["customer"]),
    (|own| own.customer = long(129), LIMIT, &["customer"]),
    (|own| own.namespace = long(129), LIMIT, &["namespace"]),
    (|own| own.idempotency_key.clear(), INVALID, &["idempotency_key"]),
    (|own| own.idempotency_key = long(256), LIMIT, &["idempotency_key"]),
    (|own| own.valid_until = Some(at(T0 + DAY)), INVALID, &["valid_until"]),
    (|own| own.payer = None, INVALID, &["payer"]),
    (|own| own.payer = Some(v1::hold_request::Payer::Wallet(String::new())), INVALID, &["wallet"]),
    (|own| own.payer = Some(v1::hold_request::Payer::Wallet(long(129))), LIMIT, &["wallet"]),
    (|own| own.payer = Some(v1::hold_request::Payer::Asset(asset(19))), INVALID, &["asset.scale"]),
    (|own| own.amount.clear(), INVALID, &["amount"]),
    (|own| own.amount = "0".to_owned(), INVALID, &["amount"]),
    (|own| own.amount = "-1".to_owned(), INVALID, &["amount"]),
    (|own| own.ttl = seconds(0, 0), INVALID, &["ttl"]),
    // Less than a microsecond.
    (|own| own.ttl = seconds(0, 999), INVALID, &["ttl"]),
    (|own| own.ttl = seconds(-1, 0), INVALID, &["ttl"]),
    (|own| own.ttl = seconds(0, -1), INVALID, &["ttl"]),
    (|own| own.ttl = seconds(86_400, 1_000), LIMIT, &["ttl"]),
    (|own| own.ttl = seconds(i64::MAX, 0), LIMIT, &["ttl"]),
    (|own| own.charge_type = 99, INVALID, &["charge_type"]),
    (|own| own.feature = long(129), LIMIT, &["feature"]),
    (|own| own.reference = long(129), LIMIT, &["reference"]),
    (|own| own.reason_code = long(129), LIMIT, &["reason_code"]),
    (|own| own.metadata = [("a".to_owned(), long(2_048))].into(), LIMIT, &["metadata"]),
    (
        |own| {
            (own.payer, own.ttl) = (None, seconds(0, 0));
            own.amount.clear();
        },
        INVALID,
        &["payer", "amount", "ttl"],
    ),
];

const EXTENSIONS: &[Case<v1::ExtendHoldRequest>] = &[
    (|own| own.customer.clear(), INVALID, &["customer"]),
    (|own| own.idempotency_key.clear(), INVALID, &["idempotency_key"]),
    (|own| own.hold_id.clear(), INVALID, &["hold_id"]),
    (|own| own.hold_id = "mov_0000000000000".to_owned(), INVALID, &["hold_id"]),
    (|own| own.ttl = None, INVALID, &["ttl"]),
    (|own| own.ttl = seconds(0, 0), INVALID, &["ttl"]),
    (|own| own.ttl = seconds(-60, 0), INVALID, &["ttl"]),
    (|own| own.ttl = seconds(86_401, 0), LIMIT, &["ttl"]),
    (|own| own.ttl = seconds(i64::MAX, 0), LIMIT, &["ttl"]),
    (|own| own.reason_code = long(129), LIMIT, &["reason_code"]),
];

const CAPTURES: &[Case<v1::CaptureRequest>] = &[
    (|own| own.customer.clear(), INVALID, &["customer"]),
    (|own| own.idempotency_key.clear(), INVALID, &["idempotency_key"]),
    (|own| own.hold_id.clear(), INVALID, &["hold_id"]),
    (|own| own.hold_id = "hld_".to_owned(), INVALID, &["hold_id"]),
    (|own| own.hold_id = long(5_000), INVALID, &["hold_id"]),
    (|own| own.amount = "-1".to_owned(), INVALID, &["amount"]),
    (|own| own.amount = "1e3".to_owned(), INVALID, &["amount"]),
    (|own| own.amount = " ".to_owned(), INVALID, &["amount"]),
    (|own| (own.amount, own.keep_open) = ("0".to_owned(), true), INVALID, &["amount"]),
    (|own| (own.amount, own.keep_open) = ("0.00".to_owned(), true), INVALID, &["amount"]),
    (|own| own.reference = long(129), LIMIT, &["reference"]),
    (|own| own.reason_code = long(129), LIMIT, &["reason_code"]),
    (|own| own.metadata = [(String::new(), long(1))].into(), INVALID, &["metadata"]),
];

const RELEASES: &[Case<v1::ReleaseRequest>] = &[
    (|own| own.customer.clear(), INVALID, &["customer"]),
    (|own| own.idempotency_key.clear(), INVALID, &["idempotency_key"]),
    (|own| own.hold_id.clear(), INVALID, &["hold_id"]),
    (|own| own.reference = long(129), LIMIT, &["reference"]),
    (|own| own.reason_code = long(129), LIMIT, &["reason_code"]),
    (|own| own.metadata = [(String::new(), long(1))].into(), INVALID, &["metadata"]),
];

const HOLD_READS: &[Case<v1::GetHoldRequest>] = &[
    (|own| own.hold_id.clear(), INVALID, &["hold_id"]),
    (|own| own.hold_id = "first".to_owned(), INVALID, &["hold_id"]),
    (|own| own.customer.clear(), INVALID, &["customer"]),
    (|own| own.customer = long(129), LIMIT, &["customer"]),
];

const HOLD_LISTS: &[Case<v1::ListHoldsRequest>] = &[
    (|own| own.customer.clear(), INVALID, &["customer"]),
    (|own| own.wallet.clear(), INVALID, &["wallet"]),
    (|own| own.statuses = vec![0], INVALID, &["statuses"]),
    (|own| own.statuses = vec![v1::HoldStatus::Open.into(), 99], INVALID, &["statuses"]),
    (|own| own.page = Some(v1::PageRequest { size: 1_001, ..Default::default() }), INVALID, &["page.size"]),
    (|own| own.page = Some(v1::PageRequest { order: 99, ..Default::default() }), INVALID, &["page.order"]),
    (
        |own| own.page = Some(v1::PageRequest { cursor: "no cursor".to_owned(), ..Default::default() }),
        INVALID,
        &["page.cursor"],
    ),
];

const TRANCHE_LISTS: &[Case<v1::ListTranchesRequest>] = &[
    (|own| own.customer.clear(), INVALID, &["customer"]),
    (|own| own.wallet.clear(), INVALID, &["wallet"]),
    (|own| own.statuses = vec![0], INVALID, &["statuses"]),
    (|own| own.statuses = vec![v1::TrancheStatus::Voided.into(), 99], INVALID, &["statuses"]),
    (|own| own.kinds = vec![99], INVALID, &["kinds"]),
];

fn until(expires_at: Option<prost_types::Timestamp>) -> Option<v1::confirm_grant_request::Expiry> {
    expires_at.map(v1::confirm_grant_request::Expiry::ExpiresAt)
}

fn living(duration: &str, time_zone: &str) -> Option<v1::confirm_grant_request::Expiry> {
    let (duration, time_zone) = (duration.to_owned(), time_zone.to_owned());
    Some(v1::confirm_grant_request::Expiry::ExpiresIn(v1::CalendarDuration { duration, time_zone }))
}

const BEFORE_1970: Option<prost_types::Timestamp> = Some(prost_types::Timestamp { seconds: -1, nanos: 0 });
const NEVER_YET: Option<prost_types::Timestamp> =
    Some(prost_types::Timestamp { seconds: 0, nanos: 1_000_000_000 });

const CONFIRMATIONS: &[Case<v1::ConfirmGrantRequest>] = &[
    (|own| own.customer.clear(), INVALID, &["customer"]),
    (|own| own.customer = long(129), LIMIT, &["customer"]),
    (|own| own.namespace = long(129), LIMIT, &["namespace"]),
    (|own| own.idempotency_key.clear(), INVALID, &["idempotency_key"]),
    (|own| own.idempotency_key = long(256), LIMIT, &["idempotency_key"]),
    (|own| own.valid_until = Some(at(T0 + DAY)), INVALID, &["valid_until"]),
    (|own| own.valid_until = BEFORE_1970, INVALID, &["valid_until"]),
    (|own| own.wallet.clear(), INVALID, &["wallet"]),
    (|own| own.wallet = long(129), LIMIT, &["wallet"]),
    (|own| own.tranche_id.clear(), INVALID, &["tranche_id"]),
    (|own| own.tranche_id = "trn_".to_owned(), INVALID, &["tranche_id"]),
    (|own| own.tranche_id = "mov_0000000000000".to_owned(), INVALID, &["tranche_id"]),
    (|own| own.tranche_id = long(5_000), INVALID, &["tranche_id"]),
    (|own| own.expiry = until(BEFORE_1970), INVALID, &["expires_at"]),
    (|own| own.expiry = until(NEVER_YET), INVALID, &["expires_at"]),
    (|own| own.expiry = living("", ""), INVALID, &["expires_in.duration"]),
    (|own| own.expiry = living("a month", ""), INVALID, &["expires_in.duration"]),
    (|own| own.expiry = living("P0D", ""), INVALID, &["expires_in.duration"]),
    (|own| own.expiry = living("-P1D", ""), INVALID, &["expires_in.duration"]),
    (|own| own.expiry = living("P9999Y", ""), INVALID, &["expires_in.duration"]),
    (|own| own.expiry = living("P1D", "Mars/Olympus"), INVALID, &["expires_in.time_zone"]),
    (|own| own.reference = long(129), LIMIT, &["reference"]),
    (|own| own.reason_code = long(129), LIMIT, &["reason_code"]),
    (|own| own.metadata = pairs(33), LIMIT, &["metadata"]),
    (|own| own.metadata = [("a".to_owned(), long(2_048))].into(), LIMIT, &["metadata"]),
    (|own| own.metadata = [(String::new(), long(1))].into(), INVALID, &["metadata"]),
    (
        |own| {
            (own.expiry, own.wallet) = (living("P0D", ""), String::new());
            own.tranche_id.clear();
        },
        INVALID,
        &["expires_in.duration", "wallet", "tranche_id"],
    ),
];

const FAILURES: &[Case<v1::FailGrantRequest>] = &[
    (|own| own.customer.clear(), INVALID, &["customer"]),
    (|own| own.namespace = long(129), LIMIT, &["namespace"]),
    (|own| own.idempotency_key.clear(), INVALID, &["idempotency_key"]),
    (|own| own.valid_until = Some(at(T0 + DAY)), INVALID, &["valid_until"]),
    (|own| own.wallet.clear(), INVALID, &["wallet"]),
    (|own| own.wallet = long(129), LIMIT, &["wallet"]),
    (|own| own.tranche_id.clear(), INVALID, &["tranche_id"]),
    (|own| own.tranche_id = "trn".to_owned(), INVALID, &["tranche_id"]),
    (|own| own.reference = long(129), LIMIT, &["reference"]),
    (|own| own.reason_code = long(129), LIMIT, &["reason_code"]),
    (|own| own.metadata = pairs(33), LIMIT, &["metadata"]),
    (|own| own.metadata = [(String::new(), long(1))].into(), INVALID, &["metadata"]),
];

const VOIDS: &[Case<v1::VoidGrantRequest>] = &[
    (|own| own.customer.clear(), INVALID, &["customer"]),
    (|own| own.namespace = long(129), LIMIT, &["namespace"]),
    (|own| own.idempotency_key.clear(), INVALID, &["idempotency_key"]),
    (|own| own.valid_until = Some(at(T0 + DAY)), INVALID, &["valid_until"]),
    (|own| own.wallet.clear(), INVALID, &["wallet"]),
    (|own| own.wallet = long(129), LIMIT, &["wallet"]),
    (|own| own.tranche_id.clear(), INVALID, &["tranche_id"]),
    (|own| own.tranche_id = "hld_0000000000000".to_owned(), INVALID, &["tranche_id"]),
    (|own| own.reference = long(129), LIMIT, &["reference"]),
    (|own| own.reason_code = long(129), LIMIT, &["reason_code"]),
    (|own| own.metadata = pairs(33), LIMIT, &["metadata"]),
    (|own| own.metadata = [(String::new(), long(1))].into(), INVALID, &["metadata"]),
];

const REFUNDS: &[Case<v1::RefundRequest>] = &[
    (|own| own.customer.clear(), INVALID, &["customer"]),
    (|own| own.namespace = long(129), LIMIT, &["namespace"]),
    (|own| own.idempotency_key.clear(), INVALID, &["idempotency_key"]),
    (|own| own.valid_until = Some(at(T0 + DAY)), INVALID, &["valid_until"]),
    (|own| own.movement_id.clear(), INVALID, &["movement_id"]),
    (|own| own.movement_id = "mov_".to_owned(), INVALID, &["movement_id"]),
    (|own| own.movement_id = "trn_0000000000000".to_owned(), INVALID, &["movement_id"]),
    (|own| own.amount = "0".to_owned(), INVALID, &["amount"]),
    (|own| own.amount = "0.00".to_owned(), INVALID, &["amount"]),
    (|own| own.amount = "-1".to_owned(), INVALID, &["amount"]),
    (|own| own.amount = "+1".to_owned(), INVALID, &["amount"]),
    (|own| own.amount = "1e3".to_owned(), INVALID, &["amount"]),
    (|own| own.amount = " ".to_owned(), INVALID, &["amount"]),
    (|own| own.amount = "0.0000000000000000001".to_owned(), PRECISION, &["amount"]),
    (|own| own.grace = seconds(0, 0), INVALID, &["grace"]),
    // Less than a microsecond.
    (|own| own.grace = seconds(0, 999), INVALID, &["grace"]),
    (|own| own.grace = seconds(-1, 0), INVALID, &["grace"]),
    (|own| own.grace = seconds(0, -1), INVALID, &["grace"]),
    // A microsecond above 366 days.
    (|own| own.grace = seconds(31_622_400, 1_000), LIMIT, &["grace"]),
    (|own| own.grace = seconds(31_622_401, 0), LIMIT, &["grace"]),
    (|own| own.grace = seconds(i64::MAX, 0), LIMIT, &["grace"]),
    (|own| own.reference = long(129), LIMIT, &["reference"]),
    (|own| own.reason_code = long(129), LIMIT, &["reason_code"]),
    (|own| own.metadata = pairs(33), LIMIT, &["metadata"]),
    (|own| own.metadata = [(String::new(), long(1))].into(), INVALID, &["metadata"]),
    (
        |own| {
            (own.amount, own.grace) = ("x".to_owned(), seconds(0, 0));
            own.movement_id.clear();
        },
        INVALID,
        &["movement_id", "amount", "grace"],
    ),
];

const CORRECTIONS_UP: &[Case<v1::AdjustRequest>] = &[
    (|own| own.customer.clear(), INVALID, &["customer"]),
    (|own| own.namespace = long(129), LIMIT, &["namespace"]),
    (|own| own.idempotency_key.clear(), INVALID, &["idempotency_key"]),
    (|own| own.valid_until = Some(at(T0 + DAY)), INVALID, &["valid_until"]),
    (|own| own.wallet.clear(), INVALID, &["wallet"]),
    (|own| own.wallet = long(129), LIMIT, &["wallet"]),
    (|own| own.amount.clear(), INVALID, &["amount"]),
    (|own| own.amount = "0".to_owned(), INVALID, &["amount"]),
    (|own| own.amount = "+1".to_owned(), INVALID, &["amount"]),
    (|own| own.amount = "1e3".to_owned(), INVALID, &["amount"]),
    (|own| own.amount = " -1".to_owned(), INVALID, &["amount"]),
    (|own| own.amount = "5.".to_owned(), INVALID, &["amount"]),
    (|own| own.amount = "0.0000000000000000001".to_owned(), PRECISION, &["amount"]),
    // Only a correction down names a tranche.
    (|own| own.tranche_id = "trn_0000000000000".to_owned(), INVALID, &["tranche_id"]),
    (|own| own.expires_at = BEFORE_1970, INVALID, &["expires_at"]),
    (|own| own.expires_at = NEVER_YET, INVALID, &["expires_at"]),
    (|own| own.reason_code.clear(), INVALID, &["reason_code"]),
    (|own| own.reason_code = long(129), LIMIT, &["reason_code"]),
    (|own| own.reference = long(129), LIMIT, &["reference"]),
    (|own| own.metadata = pairs(33), LIMIT, &["metadata"]),
    (|own| own.metadata = [(String::new(), long(1))].into(), INVALID, &["metadata"]),
];

const CORRECTIONS_DOWN: &[Case<v1::AdjustRequest>] = &[
    (|own| own.amount = "-".to_owned(), INVALID, &["amount"]),
    (|own| own.amount = "-0".to_owned(), INVALID, &["amount"]),
    (|own| own.amount = "-0.00".to_owned(), INVALID, &["amount"]),
    (|own| own.amount = "--1".to_owned(), INVALID, &["amount"]),
    (|own| own.amount = "-+1".to_owned(), INVALID, &["amount"]),
    (|own| own.amount = "- 1".to_owned(), INVALID, &["amount"]),
    (|own| own.amount = "-.5".to_owned(), INVALID, &["amount"]),
    (|own| own.amount = "-0.0000000000000000001".to_owned(), PRECISION, &["amount"]),
    (|own| own.tranche_id = "trn_".to_owned(), INVALID, &["tranche_id"]),
    (|own| own.tranche_id = "mov_0000000000000".to_owned(), INVALID, &["tranche_id"]),
    // Only a correction up has an end.
    (|own| own.expires_at = Some(at(T0 + DAY)), INVALID, &["expires_at"]),
    (|own| own.wallet.clear(), INVALID, &["wallet"]),
    (|own| own.reason_code.clear(), INVALID, &["reason_code"]),
];

const UPDATES: &[Case<v1::UpdateWalletRequest>] = &[
    (|own| own.customer.clear(), INVALID, &["customer"]),
    (|own| own.namespace = long(129), LIMIT, &["namespace"]),
    (|own| own.idempotency_key.clear(), INVALID, &["idempotency_key"]),
    (|own| own.valid_until = Some(at(T0 + DAY)), INVALID, &["valid_until"]),
    (|own| own.wallet.clear(), INVALID, &["wallet"]),
    (|own| own.wallet = long(129), LIMIT, &["wallet"]),
    (|own| own.draw_priority = Some(1_001), INVALID, &["draw_priority"]),
    (|own| own.draw_priority = Some(u32::MAX), INVALID, &["draw_priority"]),
    // Nothing to change.
    (|own| own.draw_priority = None, INVALID, &["draw_priority"]),
    (|own| (own.draw_priority, own.version) = (None, Some(1)), INVALID, &["draw_priority"]),
    (|own| own.charge_scope = 99, INVALID, &["charge_scope"]),
    (|own| own.charge_scope = -1, INVALID, &["charge_scope"]),
    (|own| own.reason_code = long(129), LIMIT, &["reason_code"]),
];

const FREEZES: &[Case<v1::FreezeWalletRequest>] = &[
    (|own| own.customer.clear(), INVALID, &["customer"]),
    (|own| own.namespace = long(129), LIMIT, &["namespace"]),
    (|own| own.idempotency_key.clear(), INVALID, &["idempotency_key"]),
    (|own| own.valid_until = Some(at(T0 + DAY)), INVALID, &["valid_until"]),
    (|own| own.wallet.clear(), INVALID, &["wallet"]),
    (|own| own.wallet = long(129), LIMIT, &["wallet"]),
    (|own| own.reason_code = long(129), LIMIT, &["reason_code"]),
];

const CLOSINGS: &[Case<v1::CloseWalletRequest>] = &[
    (|own| own.customer.clear(), INVALID, &["customer"]),
    (|own| own.namespace = long(129), LIMIT, &["namespace"]),
    (|own| own.idempotency_key.clear(), INVALID, &["idempotency_key"]),
    (|own| own.valid_until = Some(at(T0 + DAY)), INVALID, &["valid_until"]),
    (|own| own.wallet.clear(), INVALID, &["wallet"]),
    (|own| own.wallet = long(129), LIMIT, &["wallet"]),
    (|own| own.reason_code = long(129), LIMIT, &["reason_code"]),
];

#[tokio::test(flavor = "multi_thread")]
async fn a_malformed_write_is_refused_by_the_field_at_fault_and_changes_nothing() {
    let mut node = node().await;
    let good = debit_request(WHO, "main", "1");
    check(&good, DEBITS, async |request| node.refused(Write::Debit(request)).await).await;
    let good = grant_request(WHO, "main", vec![tranche("1", Purchased)]);
    check(&good, GRANTS, async |request| node.refused(Write::Grant(request)).await).await;
    let good = create_request(WHO, "another", 0);
    check(&good, WALLETS, async |request| node.refused(Write::CreateWallet(request)).await).await;
    unchanged(node).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_malformed_read_is_refused_by_the_field_at_fault() {
    let mut node = node().await;
    let (customer, wallet) = (WHO.to_owned(), "main".to_owned());
    let good =
        v1::ListMovementsRequest { customer: customer.clone(), wallet: wallet.clone(), ..Default::default() };
    check(&good, LISTS, async |request| node.ledger.list_movements(request).await.expect_err("malformed"))
        .await;
    let good =
        v1::ListTranchesRequest { customer: customer.clone(), wallet: wallet.clone(), ..Default::default() };
    check(&good, TRANCHE_LISTS, async |request| {
        node.ledger.list_tranches(request).await.expect_err("malformed")
    })
    .await;
    let good = v1::GetBalanceRequest { customer: customer.clone(), wallet, ..Default::default() };
    check(&good, BALANCES, async |request| node.ledger.get_balance(request).await.expect_err("malformed"))
        .await;
    let movement = v1::GetMovementRequest { customer, movement_id: "first".to_owned(), ..Default::default() };
    let refused = node.ledger.get_movement(movement).await.expect_err("no id");
    assert_eq!((reason(&refused).as_str(), fields(&refused)), (INVALID, vec!["movement_id".to_owned()]));
    let refused = node.ledger.explain(v1::ExplainRequest { debit: None }).await.expect_err("no debit");
    assert_eq!((reason(&refused).as_str(), fields(&refused)), (INVALID, vec!["debit".to_owned()]));
    unchanged(node).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_malformed_request_about_a_pending_grant_is_refused_by_the_field_at_fault_and_changes_nothing() {
    let mut node = Running::start().await;
    node.create(create_request(WHO, "main", 2)).await;
    let granted = node.grant(WHO, "main", vec![unpaid("100", Purchased)]).await;
    let id = granted.tranches[0].tranche_id.as_str();
    let before = node.books(WHO, "main").await;

    let good = confirm_request(WHO, "main", id);
    check(&good, CONFIRMATIONS, async |request| node.refused(Write::Confirm(request)).await).await;
    let good = fail_request(WHO, "main", id);
    check(&good, FAILURES, async |request| node.refused(Write::Fail(request)).await).await;
    let good = void_request(WHO, "main", id);
    check(&good, VOIDS, async |request| node.refused(Write::Void(request)).await).await;

    assert_eq!(node.books(WHO, "main").await, before);
    // Every key is still free.
    node.void(good).await.expect("voided");
    assert_eq!(node.audit(WHO).await.findings, []);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_malformed_refund_or_correction_is_refused_by_the_field_at_fault_and_changes_nothing() {
    let mut node = node().await;
    let debit = node.debit(debit_request(WHO, "main", "10")).await.expect("a debit");
    let spent = &of_receipt(debit.receipt.as_ref()).movement_ids[0];
    let before = node.books(WHO, "main").await;
    let id = before.tranches[0].tranche_id.as_str();

    let refund = v1::RefundRequest { grace: seconds(60, 0), ..refund_request(WHO, spent, "1") };
    check(&refund, REFUNDS, async |request| node.refused(Write::Refund(request)).await).await;
    let up = v1::AdjustRequest { expires_at: Some(at(T0 + DAY)), ..adjust_request(WHO, "main", "1") };
    check(&up, CORRECTIONS_UP, async |request| node.refused(Write::Adjust(request)).await).await;
    let down = v1::AdjustRequest { tranche_id: id.to_owned(), ..adjust_request(WHO, "main", "-1") };
    check(&down, CORRECTIONS_DOWN, async |request| node.refused(Write::Adjust(request)).await).await;

    assert_eq!(node.books(WHO, "main").await, before);
    // As long as it may be, and every key is still free.
    node.refund(v1::RefundRequest { grace: seconds(366 * 86_400, 0), ..refund }).await.expect("a year");
    node.adjust(up).await.expect("a correction");
    node.adjust(down).await.expect("a correction");
    assert_eq!(node.audit(WHO).await.findings, []);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_malformed_change_of_a_wallet_is_refused_by_the_field_at_fault_and_changes_nothing() {
    let mut node = node().await;
    let before = node.books(WHO, "main").await;
    let good = update_request(WHO, "main", 1);
    check(&good, UPDATES, async |request| node.refused(Write::UpdateWallet(request)).await).await;
    let good = freeze_request(WHO, "main", true);
    check(&good, FREEZES, async |request| node.refused(Write::FreezeWallet(request)).await).await;
    let good = close_request(WHO, "main");
    check(&good, CLOSINGS, async |request| node.refused(Write::CloseWallet(request)).await).await;
    assert_eq!(node.books(WHO, "main").await, before);
    unchanged(node).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_malformed_request_about_a_hold_is_refused_by_the_field_at_fault_and_changes_nothing() {
    let mut node = node().await;
    let held = node.hold(hold_request(WHO, "main", "10")).await.expect("a hold");
    let id = held.hold.expect("its state").hold_id;
    let before = node.books(WHO, "main").await;

    let hold = hold_request(WHO, "main", "1");
    check(&hold, HOLDS, async |request| node.refused(Write::Hold(request)).await).await;
    let extend = extend_request(WHO, &id, SECOND);
    check(&extend, EXTENSIONS, async |request| node.refused(Write::Extend(request)).await).await;
    let good = capture_request(WHO, &id, "1");
    check(&good, CAPTURES, async |request| node.refused(Write::Capture(request)).await).await;
    let good = release_request(WHO, &id);
    check(&good, RELEASES, async |request| node.refused(Write::Release(request)).await).await;
    let good = v1::GetHoldRequest { customer: WHO.to_owned(), hold_id: id.clone(), ..Default::default() };
    check(&good, HOLD_READS, async |request| node.ledger.get_hold(request).await.expect_err("malformed"))
        .await;
    let good =
        v1::ListHoldsRequest { customer: WHO.to_owned(), wallet: "main".to_owned(), ..Default::default() };
    check(&good, HOLD_LISTS, async |request| node.ledger.list_holds(request).await.expect_err("malformed"))
        .await;

    assert_eq!(node.books(WHO, "main").await, before);
    // As long as it may be.
    let day = Some(lasting(DAY));
    node.hold(v1::HoldRequest { ttl: day, ..hold }).await.expect("a day");
    node.extend(v1::ExtendHoldRequest { ttl: day, ..extend }).await.expect("a day");
    assert_eq!(node.audit(WHO).await.findings, []);
    node.stop().await;
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
    assert_eq!((wallet.code(), reason(&wallet)), (Code::NotFound, "WALLET_NOT_FOUND".to_owned()));
    let customer = node.debit(debit_request("nobody", "main", "1")).await.expect_err("no customer");
    assert_eq!((customer.code(), reason(&customer)), (Code::NotFound, "CUSTOMER_NOT_FOUND".to_owned()));
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
