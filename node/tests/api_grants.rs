//! The life of a grant over gRPC, on a test clock: pending, confirmed, failed, voided; in receipts, reads,
//! movements and refusals. The core's own stories are in `ledger/tests/life_stories.rs`.

mod node_support;

use node_support::{
    DAY, Running, SECOND, T0, Write, account, adjust_request, as_at_first, at, capture_request,
    confirm_request, create_request, debit_request, drawn, expiring, fail_request, fields, figures,
    fresh_key, grant_request, hold_request, lasting, moves, of_receipt, pair, reason, refund_request,
    release_request, tranche, unpaid, void_request,
};
use purser_proto::v1;
use v1::MovementStatus::{Pending as Promised, Posted};
use v1::MovementType::{Captured, Consumed, Expired as Lapsed, Granted, Held, Released, Voided as Withdrawn};
use v1::TrancheKind::{Plan, Promotional, Purchased};
use v1::TrancheStatus::{Active, Exhausted, Expired, Failed, Pending, Scheduled, Voided};
use v1::confirm_grant_request::Expiry::{ExpiresAt, ExpiresIn};

const WHO: &str = "acme";
const MAIN: (&str, &str) = (WHO, "main");
const MINUTE: u64 = 60 * SECOND;
const HOUR: u64 = 60 * MINUTE;
/// How long a hold lives that does not say.
const TTL: u64 = 5 * MINUTE;

fn in_all(duration: &str, time_zone: &str) -> v1::CalendarDuration {
    v1::CalendarDuration { duration: duration.to_owned(), time_zone: time_zone.to_owned() }
}

/// A pending tranche that will live so long.
fn unpaid_for(amount: &str, duration: &str) -> v1::TrancheSpec {
    v1::TrancheSpec {
        expiry: Some(v1::tranche_spec::Expiry::ExpiresIn(in_all(duration, "UTC"))),
        ..unpaid(amount, Purchased)
    }
}

/// A pending tranche that will end then.
fn unpaid_until(amount: &str, expires_at: u64) -> v1::TrancheSpec {
    v1::TrancheSpec { pending: true, ..expiring(amount, Purchased, expires_at) }
}

fn from(effective_at: u64, spec: v1::TrancheSpec) -> v1::TrancheSpec {
    v1::TrancheSpec { effective_at: Some(at(effective_at)), ..spec }
}

fn under(external_reference: &str, spec: v1::TrancheSpec) -> v1::TrancheSpec {
    v1::TrancheSpec { external_reference: external_reference.to_owned(), ..spec }
}

fn confirm(tranche_id: &str) -> v1::ConfirmGrantRequest {
    confirm_request(WHO, "main", tranche_id)
}

fn confirm_until(tranche_id: &str, expires_at: u64) -> v1::ConfirmGrantRequest {
    v1::ConfirmGrantRequest { expiry: Some(ExpiresAt(at(expires_at))), ..confirm(tranche_id) }
}

fn fail(tranche_id: &str) -> v1::FailGrantRequest {
    fail_request(WHO, "main", tranche_id)
}

fn void(tranche_id: &str) -> v1::VoidGrantRequest {
    void_request(WHO, "main", tranche_id)
}

/// A node whose wallet `main` of `credits/0` has these tranches, and their ids.
async fn with_tranches(tranches: Vec<v1::TrancheSpec>) -> (Running, Vec<String>) {
    let mut node = Running::start().await;
    node.create(create_request(WHO, "main", 0)).await;
    let ids = more(&mut node, tranches).await;
    (node, ids)
}

/// Grants more of them; their ids.
async fn more(node: &mut Running, tranches: Vec<v1::TrancheSpec>) -> Vec<String> {
    let granted = node.grant(WHO, "main", tranches).await;
    granted.tranches.into_iter().map(|own| own.tranche_id).collect()
}

/// A tranche of `main`.
async fn look(node: &mut Running, tranche_id: &str) -> v1::Tranche {
    let tranches = node.tranches(WHO, "main").await;
    tranches.into_iter().find(|own| own.tranche_id == tranche_id).expect("a tranche")
}

async fn place(node: &mut Running, amount: &str) -> String {
    let held = node.hold(hold_request(WHO, "main", amount)).await.expect("a hold");
    held.hold.expect("its state").hold_id
}

/// Refused as of a life that does not allow it.
async fn not_active(node: &mut Running, write: Write, tranche_id: &str) {
    let pairs = [("customer", WHO), ("wallet", "main"), ("tranche", tranche_id)];
    node.refuses(MAIN, write, "TRANCHE_NOT_ACTIVE", &pairs).await;
}

async fn sound(mut node: Running) {
    assert_eq!(node.audit(WHO).await.findings, []);
    node.stop().await;
}

// ---- pending and confirmed ---------------------------------------------------------------------

#[tokio::test(flavor = "multi_thread")]
async fn a_pending_grant_is_told_everywhere_and_pays_nothing() {
    let mut node = Running::start().await;
    node.create(create_request(WHO, "main", 0)).await;
    let unpaid = under("invoice-1", unpaid("10", Purchased));
    let granted = node.grant(WHO, "main", vec![unpaid, tranche("5", Promotional)]).await;

    let [waits, pays] = granted.tranches.as_slice() else { panic!("two tranches: {granted:?}") };
    assert_eq!(account(waits), (Pending, ["10", "0", "0", "0", "0", "0"]));
    assert_eq!(account(pays), (Active, ["0", "5", "0", "0", "0", "0"]));
    assert_eq!(waits.external_reference, "invoice-1");
    let receipt = of_receipt(granted.receipt.as_ref());
    assert_eq!(figures(&receipt.balances[0]), ["5", "0", "10", "5"]);
    assert_eq!(node.balance(WHO, "main").await, receipt.balances[0]);
    assert_eq!(node.tranches(WHO, "main").await, granted.tranches);

    // Two movements of one operation: what is there, and what is promised.
    let movements = node.movements(WHO, "main").await;
    assert_eq!(receipt.movement_ids.len(), 2);
    assert!(movements.iter().all(|own| own.operation_id == receipt.operation_id), "{movements:?}");
    let promise = movements.iter().find(|own| own.status() == Promised).expect("a promise");
    assert_eq!((promise.r#type(), promise.amount.as_str()), (Granted, "0"));
    assert_eq!(drawn(&promise.draws), [(waits.tranche_id.as_str(), "10", "0")]);
    assert_eq!(waits.granted_by, promise.movement_id);
    let booked = movements.iter().find(|own| own.status() == Posted).expect("a booking");
    assert_eq!((booked.r#type(), booked.amount.as_str()), (Granted, "5"));
    assert_eq!(pays.granted_by, booked.movement_id);

    let request = v1::GetBalanceRequest {
        customer: WHO.to_owned(),
        wallet: "main".to_owned(),
        by_kind: true,
        by_tranche: true,
        ..Default::default()
    };
    let answer = node.ledger.get_balance(request).await.expect("a balance").into_inner();
    let kinds = answer.wallets[0].kinds.iter();
    let kinds: Vec<_> = kinds.map(|own| (own.kind(), own.available.as_str(), own.pending.as_str())).collect();
    assert_eq!(kinds, [(Promotional, "5", "0"), (Purchased, "0", "10")]);
    assert_eq!(answer.wallets[0].tranches, granted.tranches);
    assert_eq!(figures(&answer.totals[0]), ["5", "0", "10", "5"]);

    let short = [("available", "5"), ("required", "6"), ("wallet", "main")];
    let debit = Write::Debit(debit_request(WHO, "main", "6"));
    node.refuses(MAIN, debit, "INSUFFICIENT_CREDITS", &short).await;
    sound(node).await;
}

/// Covers: ConfirmGrant
#[tokio::test(flavor = "multi_thread")]
async fn a_confirmed_grant_pays_from_then_on() {
    let (mut node, ids) = with_tranches(vec![unpaid("10", Purchased)]).await;
    let id = ids[0].as_str();
    let granted = look(&mut node, id).await;
    node.set_clock(T0 + HOUR).await;
    let request = v1::ConfirmGrantRequest {
        reference: "payment-1".to_owned(),
        reason_code: "paid".to_owned(),
        metadata: [("bank".to_owned(), "a".to_owned())].into(),
        ..confirm(id)
    };

    let confirmed = node.confirm(request.clone()).await.expect("confirmed");

    let tranche = confirmed.tranche.expect("the tranche");
    assert_eq!(account(&tranche), (Active, ["0", "10", "0", "0", "0", "0"]));
    // It keeps its effective time, which is when it was granted.
    assert_eq!((&tranche.effective_at, &tranche.expires_at), (&Some(at(T0)), &None));
    assert_eq!((&tranche.created_at, &tranche.lifetime), (&granted.created_at, &None));
    assert_eq!(look(&mut node, id).await, tranche);
    let receipt = of_receipt(confirmed.receipt.as_ref());
    assert_eq!(figures(&receipt.balances[0]), ["10", "0", "0", "10"]);
    assert_eq!(node.balance(WHO, "main").await, receipt.balances[0]);
    let movements = node.movements(WHO, "main").await;
    assert_eq!(moves(&movements), [(Granted, Promised, "0"), (Granted, Posted, "10")]);
    let booked = &movements[1];
    assert_eq!(receipt.movement_ids, [booked.movement_id.as_str()]);
    assert_eq!(booked.operation_id, receipt.operation_id);
    assert_eq!(drawn(&booked.draws), [(id, "10", "10")]);
    assert_eq!((booked.reference.as_str(), booked.reason_code.as_str()), ("payment-1", "paid"));
    assert_eq!(booked.metadata.get("bank").map(String::as_str), Some("a"));
    assert_eq!(
        (&booked.idempotency_key, &booked.booked_at),
        (&request.idempotency_key, &Some(at(T0 + HOUR)))
    );

    let debit = node.debit(debit_request(WHO, "main", "4")).await.expect("a debit");
    assert_eq!(drawn(&of_receipt(debit.receipt.as_ref()).draws), [(id, "4", "6")]);
    for write in [Write::Confirm(confirm(id)), Write::Fail(fail(id))] {
        not_active(&mut node, write, id).await;
    }
    sound(node).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_confirmation_may_set_the_end_by_an_instant_or_by_the_calendar_of_a_zone() {
    let specs =
        [unpaid("1", Purchased), unpaid("2", Purchased), unpaid("4", Purchased), unpaid_for("8", "P1D")];
    let (mut node, ids) = with_tranches(specs.to_vec()).await;
    // 11 March 2040. Summer time begins in Berlin on the 25th: the month there ends an hour earlier.
    let now = T0 + 70 * DAY;
    let april = T0 + 101 * DAY;
    node.set_clock(now).await;
    let zoned = v1::ConfirmGrantRequest {
        expiry: Some(ExpiresIn(in_all("P1M", "Europe/Berlin"))),
        ..confirm(&ids[1])
    };
    let in_utc = v1::ConfirmGrantRequest { expiry: Some(ExpiresIn(in_all("P1M", ""))), ..confirm(&ids[2]) };
    let instead =
        v1::ConfirmGrantRequest { expiry: Some(ExpiresIn(in_all("PT12H", ""))), ..confirm(&ids[3]) };

    for (request, end) in [
        (confirm_until(&ids[0], now + 1), now + 1),
        (zoned, april - HOUR),
        (in_utc, april),
        (instead, now + 12 * HOUR),
    ] {
        let id = request.tranche_id.clone();
        let confirmed = node.confirm(request).await.expect("confirmed").tranche.expect("the tranche");
        assert_eq!(
            (confirmed.status(), &confirmed.expires_at, &confirmed.lifetime),
            (Active, &Some(at(end)), &None)
        );
        assert_eq!(look(&mut node, &id).await, confirmed);
    }

    for (time, available) in [
        (now, "15"),
        (now + 1, "14"),
        (now + 12 * HOUR, "6"),
        (april - HOUR - 1, "6"),
        (april - HOUR, "4"),
        (april - 1, "4"),
        (april, "0"),
    ] {
        node.set_clock(time).await;
        assert_eq!(node.balance(WHO, "main").await.available, available, "at {time}");
    }
    sound(node).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lifetime_granted_as_a_duration_counts_from_the_confirmation() {
    let (mut node, ids) =
        with_tranches(vec![unpaid_for("10", "P1M"), from(T0 + DAY, unpaid_for("5", "P1M"))]).await;
    let waits = look(&mut node, &ids[0]).await;
    assert_eq!(
        (waits.status(), waits.expires_at, waits.lifetime),
        (Pending, None, Some(in_all("P1M", "UTC")))
    );
    // Longer than it will live.
    node.set_clock(T0 + 30 * DAY).await;
    assert_eq!(figures(&node.balance(WHO, "main").await), ["0", "0", "15", "0"]);

    // On 31 January: the month ends with February, which has 29 days.
    for id in &ids {
        let confirmed = node.confirm(confirm(id)).await.expect("confirmed").tranche.expect("the tranche");
        assert_eq!((confirmed.status(), &confirmed.lifetime), (Active, &None));
        assert_eq!(confirmed.expires_at, Some(at(T0 + 59 * DAY)));
    }

    node.set_clock(T0 + 59 * DAY - 1).await;
    assert_eq!(figures(&node.balance(WHO, "main").await), ["15", "0", "0", "15"]);
    node.set_clock(T0 + 59 * DAY).await;
    assert_eq!(figures(&node.balance(WHO, "main").await), ["0", "0", "0", "0"]);
    assert_eq!(account(&look(&mut node, &ids[0]).await), (Expired, ["0", "0", "0", "0", "10", "0"]));
    sound(node).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_confirmed_grant_whose_time_lies_ahead_is_scheduled_and_lives_from_that_time_on() {
    let begin = T0 + 10 * DAY;
    let (mut node, ids) =
        with_tranches(vec![from(begin, unpaid_for("10", "P30D")), from(begin, unpaid("3", Plan))]).await;
    let (span, plain) = (ids[0].as_str(), ids[1].as_str());
    node.set_clock(T0 + DAY).await;
    // An end at its very beginning.
    let refused =
        node.refuses(MAIN, Write::Confirm(confirm_until(plain, begin)), "INVALID_ARGUMENT", &[]).await;
    assert_eq!(fields(&refused), ["expires_at"]);

    let confirmed = node.confirm(confirm(span)).await.expect("confirmed");

    let tranche = confirmed.tranche.expect("the tranche");
    assert_eq!(account(&tranche), (Scheduled, ["10", "0", "0", "0", "0", "0"]));
    assert_eq!((&tranche.effective_at, &tranche.expires_at), (&Some(at(begin)), &Some(at(begin + 30 * DAY))));
    assert_eq!(look(&mut node, span).await, tranche);
    let receipt = of_receipt(confirmed.receipt.as_ref());
    assert_eq!((receipt.movement_ids.len(), receipt.draws.len()), (0, 0));
    assert!(receipt.operation_id.starts_with("op_"), "{receipt:?}");
    assert_eq!(figures(&node.balance(WHO, "main").await), ["0", "0", "13", "0"]);
    let day = v1::ConfirmGrantRequest { expiry: Some(ExpiresIn(in_all("P1D", ""))), ..confirm(plain) };
    let day = node.confirm(day).await.expect("confirmed").tranche.expect("the tranche");
    assert_eq!((day.status(), &day.expires_at), (Scheduled, &Some(at(begin + DAY))));
    assert_eq!(moves(&node.movements(WHO, "main").await), [(Granted, Promised, "0")]);
    for write in [Write::Confirm(confirm(span)), Write::Fail(fail(span))] {
        not_active(&mut node, write, span).await;
    }

    node.set_clock(begin - 1).await;
    assert_eq!(figures(&node.balance(WHO, "main").await), ["0", "0", "13", "0"]);
    node.set_clock(begin).await;
    assert_eq!(figures(&node.balance(WHO, "main").await), ["13", "0", "0", "13"]);
    assert_eq!(node.debit(debit_request(WHO, "main", "13")).await.expect("all of it").remaining, "0");
    let movements = node.movements(WHO, "main").await;
    let expected = [
        (Granted, Promised, "0"),
        (Granted, Posted, "10"),
        (Granted, Posted, "3"),
        (Consumed, Posted, "-13"),
    ];
    assert_eq!(moves(&movements), expected);
    assert_eq!((&movements[1].effective_at, movements[1].idempotency_key.as_str()), (&Some(at(begin)), ""));
    sound(node).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_confirmation_that_comes_too_late_leaves_it_pending_and_a_new_end_helps() {
    let end = T0 + HOUR;
    let (mut node, ids) = with_tranches(vec![unpaid_until("10", end), unpaid_until("5", end)]).await;
    let (late, timely) = (ids[0].as_str(), ids[1].as_str());
    node.set_clock(end - 1).await;
    let confirmed = node.confirm(confirm(timely)).await.expect("in time").tranche.expect("the tranche");
    assert_eq!((confirmed.status(), confirmed.expires_at), (Active, Some(at(end))));
    node.set_clock(end).await;
    // Books that the one has expired.
    more(&mut node, vec![tranche("1", Purchased)]).await;

    let too_late = confirm(late);
    not_active(&mut node, Write::Confirm(too_late.clone()), late).await;
    let pairs = [("customer", WHO), ("wallet", "main"), ("tranche", late)];
    for past in [end, end - 1, T0] {
        let past = Write::Confirm(confirm_until(late, past));
        let refused = node.refuses(MAIN, past, "INVALID_ARGUMENT", &pairs).await;
        assert_eq!(fields(&refused), ["expires_at"]);
    }
    assert_eq!(account(&look(&mut node, late).await), (Pending, ["10", "0", "0", "0", "0", "0"]));
    assert_eq!(figures(&node.balance(WHO, "main").await), ["1", "0", "10", "1"]);

    let confirmed = node.confirm(confirm_until(late, end + HOUR)).await.expect("confirmed");
    let tranche = confirmed.tranche.expect("the tranche");
    assert_eq!((tranche.status(), tranche.expires_at), (Active, Some(at(end + HOUR))));
    // The verdict of then stands under its key.
    let again = node.confirm(too_late).await.expect_err("too late");
    assert_eq!((reason(&again).as_str(), pair(&again, "replayed").as_str()), ("TRANCHE_NOT_ACTIVE", "true"));

    node.set_clock(end + HOUR).await;
    assert_eq!(figures(&node.balance(WHO, "main").await), ["1", "0", "0", "1"]);
    node.debit(debit_request(WHO, "main", "1")).await.expect("a debit");
    let movements = node.movements(WHO, "main").await;
    let expected = [
        (Granted, Promised, "0"),
        (Granted, Posted, "5"),
        (Lapsed, Posted, "-5"),
        (Granted, Posted, "1"),
        (Granted, Posted, "10"),
        (Lapsed, Posted, "-10"),
        (Consumed, Posted, "-1"),
    ];
    assert_eq!(moves(&movements), expected);
    assert_eq!(movements[5].effective_at, Some(at(end + HOUR)));
    sound(node).await;
}

// ---- failed ------------------------------------------------------------------------------------

/// Covers: FailGrant
#[tokio::test(flavor = "multi_thread")]
async fn a_failed_grant_is_gone_for_good_and_its_reference_stays_taken() {
    let specs = vec![
        under("invoice-1", unpaid_until("10", T0 + HOUR)),
        tranche("5", Purchased),
        from(T0 + DAY, tranche("3", Plan)),
    ];
    let (mut node, ids) = with_tranches(specs).await;
    let id = ids[0].as_str();
    // Past the end that it would have had: it waits on.
    node.set_clock(T0 + 2 * HOUR).await;
    let request = v1::FailGrantRequest {
        reference: "payment-1".to_owned(),
        reason_code: "bounced".to_owned(),
        metadata: [("bank".to_owned(), "a".to_owned())].into(),
        ..fail(id)
    };

    let failed = node.fail(request).await.expect("failed");

    assert_eq!(failed.amount, "10");
    let receipt = of_receipt(failed.receipt.as_ref());
    assert_eq!(figures(&receipt.balances[0]), ["5", "0", "3", "5"]);
    assert_eq!(node.balance(WHO, "main").await, receipt.balances[0]);
    let movements = node.movements(WHO, "main").await;
    assert_eq!(moves(&movements)[2..], [(Withdrawn, Promised, "0")]);
    let gone = &movements[2];
    assert_eq!(receipt.movement_ids, [gone.movement_id.as_str()]);
    assert_eq!(drawn(&gone.draws), [(id, "10", "0")]);
    assert_eq!((gone.reference.as_str(), gone.reason_code.as_str()), ("payment-1", "bounced"));
    assert_eq!(gone.metadata.get("bank").map(String::as_str), Some("a"));
    assert_eq!(account(&look(&mut node, id).await), (Failed, ["0", "0", "0", "0", "0", "10"]));

    for write in [
        Write::Confirm(confirm(id)),
        Write::Confirm(confirm_until(id, T0 + DAY)),
        Write::Fail(fail(id)),
        Write::Void(void(id)),
    ] {
        not_active(&mut node, write, id).await;
    }
    // Only what is pending fails: neither what is active nor what is scheduled.
    for other in &ids[1..] {
        not_active(&mut node, Write::Fail(fail(other)), other).await;
    }
    let taken = Write::Grant(grant_request(WHO, "main", vec![under("invoice-1", tranche("1", Purchased))]));
    node.refuses(MAIN, taken, "ALREADY_EXISTS", &[("wallet", "main")]).await;
    sound(node).await;
}

// ---- voided ------------------------------------------------------------------------------------

/// Covers: VoidGrant
#[tokio::test(flavor = "multi_thread")]
async fn a_void_withdraws_what_is_pending_scheduled_or_left() {
    let specs = vec![
        tranche("10", Purchased),
        from(T0 + DAY, tranche("5", Plan)),
        unpaid("7", Promotional),
        expiring("3", Purchased, T0 + DAY),
    ];
    let (mut node, ids) = with_tranches(specs).await;
    let [active, scheduled, pending, other] = [0, 1, 2, 3].map(|place| ids[place].as_str());
    // 3 of what expires first, then 4.
    node.debit(debit_request(WHO, "main", "7")).await.expect("a debit");
    assert_eq!(figures(&node.balance(WHO, "main").await), ["6", "0", "12", "6"]);
    let request = v1::VoidGrantRequest {
        reference: "ticket-1".to_owned(),
        reason_code: "fraud".to_owned(),
        metadata: [("by".to_owned(), "a".to_owned())].into(),
        ..void(active)
    };

    for (request, amount, left) in [
        (request, "6", ["0", "0", "12", "0"]),
        (void(scheduled), "5", ["0", "0", "7", "0"]),
        (void(pending), "7", ["0", "0", "0", "0"]),
    ] {
        let voided = node.void(request).await.expect("voided");
        assert_eq!(voided.amount, amount);
        let receipt = of_receipt(voided.receipt.as_ref());
        assert_eq!((figures(&receipt.balances[0]), receipt.movement_ids.len()), (left, 1));
        assert_eq!(node.balance(WHO, "main").await, receipt.balances[0]);
    }

    let movements = node.movements(WHO, "main").await;
    // Granted in two movements, then the debit.
    let expected = [(Withdrawn, Posted, "-6"), (Withdrawn, Promised, "0"), (Withdrawn, Promised, "0")];
    assert_eq!(moves(&movements)[3..], expected);
    for (movement, id, amount) in
        [(&movements[3], active, "6"), (&movements[4], scheduled, "5"), (&movements[5], pending, "7")]
    {
        assert_eq!(drawn(&movement.draws), [(id, amount, "0")]);
    }
    assert_eq!((movements[3].reference.as_str(), movements[3].reason_code.as_str()), ("ticket-1", "fraud"));
    assert_eq!(movements[3].metadata.get("by").map(String::as_str), Some("a"));
    let accounts = [
        (active, ["0", "0", "0", "4", "0", "6"]),
        (scheduled, ["0", "0", "0", "0", "0", "5"]),
        (pending, ["0", "0", "0", "0", "0", "7"]),
    ];
    // When it would have begun, nothing begins.
    node.set_clock(T0 + DAY).await;
    for (id, parts) in accounts {
        assert_eq!(account(&look(&mut node, id).await), (Voided, parts));
        for write in [Write::Void(void(id)), Write::Confirm(confirm(id)), Write::Fail(fail(id))] {
            not_active(&mut node, write, id).await;
        }
    }
    assert_eq!(account(&look(&mut node, other).await), (Exhausted, ["0", "0", "0", "3", "0", "0"]));
    sound(node).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_spent_or_has_expired_cannot_be_voided_booked_or_not() {
    let specs =
        vec![tranche("5", Purchased), expiring("2", Plan, T0 + HOUR), expiring("3", Plan, T0 + 2 * HOUR)];
    let (mut node, ids) = with_tranches(specs).await;
    let [spent, exhausted, expired] = [0, 1, 2].map(|place| ids[place].as_str());
    node.debit(debit_request(WHO, "main", "2")).await.expect("a debit");
    not_active(&mut node, Write::Void(void(exhausted)), exhausted).await;
    // Exhausted, and at its end.
    node.set_clock(T0 + HOUR).await;
    not_active(&mut node, Write::Void(void(exhausted)), exhausted).await;
    node.set_clock(T0 + 2 * HOUR - 1).await;
    assert_eq!(figures(&node.balance(WHO, "main").await), ["8", "0", "0", "8"]);

    node.set_clock(T0 + 2 * HOUR).await;
    // The first attempt books the expiry, those after it find it booked.
    let first = node.refused(Write::Void(void(expired))).await;
    assert_eq!(reason(&first), "TRANCHE_NOT_ACTIVE");
    assert_eq!(moves(&node.movements(WHO, "main").await)[2..], [(Lapsed, Posted, "-3")]);
    not_active(&mut node, Write::Void(void(expired)), expired).await;
    node.debit(debit_request(WHO, "main", "5")).await.expect("a debit");
    not_active(&mut node, Write::Void(void(spent)), spent).await;

    assert_eq!(account(&look(&mut node, spent).await), (Exhausted, ["0", "0", "0", "5", "0", "0"]));
    assert_eq!(account(&look(&mut node, exhausted).await), (Exhausted, ["0", "0", "0", "2", "0", "0"]));
    assert_eq!(account(&look(&mut node, expired).await), (Expired, ["0", "0", "0", "0", "3", "0"]));
    sound(node).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_held_of_a_voided_grant_may_be_captured_and_is_withdrawn_when_it_is_given_back() {
    let (mut node, ids) = with_tranches(vec![tranche("10", Purchased)]).await;
    let id = ids[0].as_str();
    let hold = place(&mut node, "6").await;

    let voided = node.void(void(id)).await.expect("voided");

    assert_eq!(voided.amount, "4");
    assert_eq!(figures(&of_receipt(voided.receipt.as_ref()).balances[0]), ["0", "6", "0", "6"]);
    assert_eq!(account(&look(&mut node, id).await), (Voided, ["0", "0", "6", "0", "0", "4"]));
    not_active(&mut node, Write::Void(void(id)), id).await;
    let part = v1::CaptureRequest { keep_open: true, ..capture_request(WHO, &hold, "2") };
    node.capture(part).await.expect("2 of it");
    let released = node.release(release_request(WHO, &hold)).await.expect("a release");

    assert_eq!(released.released, "4");
    let state = released.hold.expect("its state");
    assert_eq!((state.captured.as_str(), state.released.as_str(), state.left.as_str()), ("2", "4", "0"));
    assert_eq!(figures(&of_receipt(released.receipt.as_ref()).balances[0]), ["0", "0", "0", "0"]);
    assert_eq!(account(&look(&mut node, id).await), (Voided, ["0", "0", "0", "2", "0", "8"]));
    let movements = node.movements(WHO, "main").await;
    let expected = [
        (Granted, Posted, "10"),
        (Held, Posted, "0"),
        (Withdrawn, Posted, "-4"),
        (Captured, Posted, "-2"),
        (Withdrawn, Posted, "-4"),
    ];
    assert_eq!(moves(&movements), expected);
    assert_eq!((movements[2].hold_id.as_str(), &movements[4].hold_id), ("", &hold));
    assert_eq!(drawn(&movements[4].draws), [(id, "4", "0")]);
    sound(node).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wholly_held_grant_is_voided_by_a_movement_of_nothing_and_the_time_out_withdraws_it() {
    let (mut node, ids) = with_tranches(vec![tranche("10", Purchased)]).await;
    let id = ids[0].as_str();
    let hold = place(&mut node, "10").await;

    let voided = node.void(void(id)).await.expect("voided");

    assert_eq!(voided.amount, "0");
    assert_eq!(of_receipt(voided.receipt.as_ref()).movement_ids.len(), 1);
    assert_eq!(account(&look(&mut node, id).await), (Voided, ["0", "0", "10", "0", "0", "0"]));
    node.set_clock(T0 + TTL).await;
    // As if it were booked, before it is.
    assert_eq!(figures(&node.balance(WHO, "main").await), ["0", "0", "0", "0"]);
    assert_eq!(account(&look(&mut node, id).await), (Voided, ["0", "0", "0", "0", "0", "10"]));
    let timed_out = node.get_hold(WHO, &hold).await.state.expect("its state");
    assert_eq!((timed_out.status(), timed_out.released.as_str()), (v1::HoldStatus::Expired, "10"));
    more(&mut node, vec![tranche("1", Purchased)]).await;

    let movements = node.movements(WHO, "main").await;
    let expected = [
        (Granted, Posted, "10"),
        (Held, Posted, "0"),
        (Withdrawn, Posted, "0"),
        (Withdrawn, Posted, "-10"),
        (Granted, Posted, "1"),
    ];
    assert_eq!(moves(&movements), expected);
    assert_eq!(drawn(&movements[2].draws), [(id, "0", "0")]);
    let gone = &movements[3];
    assert_eq!((gone.hold_id.as_str(), gone.idempotency_key.as_str()), (hold.as_str(), ""));
    assert_eq!((drawn(&gone.draws), &gone.effective_at), (vec![(id, "10", "0")], &Some(at(T0 + TTL))));
    assert_eq!(account(&look(&mut node, id).await), (Voided, ["0", "0", "0", "0", "0", "10"]));
    sound(node).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_hold_gives_back_goes_where_each_tranche_lets_it() {
    let first = v1::TrancheSpec { priority: Some(1), ..tranche("4", Promotional) };
    let specs = vec![first, expiring("3", Plan, T0 + MINUTE), tranche("10", Purchased)];
    let (mut node, ids) = with_tranches(specs).await;
    let [voided, expired, active] = [0, 1, 2].map(|place| ids[place].as_str());
    // 4, 3 and 2 of 10.
    let hold = place(&mut node, "9").await;
    node.void(void(voided)).await.expect("voided");
    node.set_clock(T0 + MINUTE).await;
    let before = node.movements(WHO, "main").await.len();

    let captured = node.capture(capture_request(WHO, &hold, "1")).await.expect("1, and 8 given back");

    assert_eq!((captured.amount.as_str(), captured.released.as_str()), ("1", "8"));
    assert_eq!(drawn(&of_receipt(captured.receipt.as_ref()).draws), [(voided, "1", "0")]);
    let movements = node.movements(WHO, "main").await.split_off(before);
    let [spent, .., withdrawn, lapsed] = movements.as_slice() else { panic!("too few: {movements:?}") };
    assert_eq!((movements.len(), spent.r#type(), spent.amount.as_str()), (4, Captured, "-1"));
    let back = movements.iter().find(|own| own.r#type() == Released).expect("a release");
    assert_eq!((back.amount.as_str(), drawn(&back.draws)), ("0", vec![(active, "2", "10")]));
    // What was voided stands before what has expired.
    assert_eq!((withdrawn.r#type(), withdrawn.amount.as_str()), (Withdrawn, "-3"));
    assert_eq!(drawn(&withdrawn.draws), [(voided, "3", "0")]);
    assert_eq!((lapsed.r#type(), lapsed.amount.as_str()), (Lapsed, "-3"));
    assert_eq!(drawn(&lapsed.draws), [(expired, "3", "0")]);
    assert!(movements.iter().all(|own| own.hold_id == hold), "{movements:?}");
    assert_eq!(figures(&node.balance(WHO, "main").await), ["10", "0", "0", "10"]);
    assert_eq!(account(&look(&mut node, voided).await), (Voided, ["0", "0", "0", "1", "0", "3"]));
    assert_eq!(account(&look(&mut node, expired).await), (Expired, ["0", "0", "0", "0", "3", "0"]));
    sound(node).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_external_reference_stays_taken_whatever_becomes_of_its_tranche() {
    let specs = vec![
        under("failed", unpaid("1", Purchased)),
        under("voided", tranche("1", Purchased)),
        under("waits", unpaid("1", Purchased)),
        under("expired", expiring("1", Purchased, T0 + HOUR)),
    ];
    let (mut node, ids) = with_tranches(specs).await;
    node.fail(fail(&ids[0])).await.expect("failed");
    node.void(void(&ids[1])).await.expect("voided");
    node.set_clock(T0 + HOUR).await;
    more(&mut node, vec![tranche("1", Purchased)]).await;

    for taken in ["failed", "voided", "waits", "expired"] {
        for spec in [under(taken, tranche("1", Plan)), under(taken, unpaid("1", Plan))] {
            let both = vec![under("free", unpaid("1", Plan)), spec];
            let write = Write::Grant(grant_request(WHO, "main", both));
            node.refuses(MAIN, write, "ALREADY_EXISTS", &[("wallet", "main")]).await;
        }
        let request = v1::ListTranchesRequest {
            customer: WHO.to_owned(),
            wallet: "main".to_owned(),
            external_reference: taken.to_owned(),
            ..Default::default()
        };
        let found = node.ledger.list_tranches(request).await.expect("tranches").into_inner().tranches;
        assert_eq!(found.len(), 1, "{taken}");
    }
    // A refused grant leaves its own free.
    more(&mut node, vec![under("free", unpaid("1", Plan))]).await;
    sound(node).await;
}

// ---- refusals and filters ----------------------------------------------------------------------

#[tokio::test(flavor = "multi_thread")]
async fn a_tranche_that_is_not_there_is_not_found_and_only_its_own_wallet_knows_it() {
    let (mut node, ids) = with_tranches(vec![unpaid("10", Purchased)]).await;
    let id = ids[0].as_str();
    node.create(create_request(WHO, "other", 0)).await;
    node.create(create_request("bob", "main", 0)).await;
    for (customer, wallet, tranche_id, expected) in [
        (WHO, "main", "trn_0000000000000", "TRANCHE_NOT_FOUND"),
        (WHO, "other", id, "TRANCHE_NOT_FOUND"),
        ("bob", "main", id, "TRANCHE_NOT_FOUND"),
        (WHO, "none", id, "WALLET_NOT_FOUND"),
        ("nobody", "main", id, "CUSTOMER_NOT_FOUND"),
    ] {
        let pairs: &[_] = match expected {
            "TRANCHE_NOT_FOUND" => &[("customer", customer), ("wallet", wallet), ("tranche", tranche_id)],
            "WALLET_NOT_FOUND" => &[("customer", customer), ("wallet", wallet)],
            _ => &[("customer", customer)],
        };
        let lifetime = Some(ExpiresIn(in_all("P1D", "Europe/Berlin")));
        let confirm = confirm_request(customer, wallet, tranche_id);
        for write in [
            Write::Confirm(v1::ConfirmGrantRequest { expiry: lifetime, ..confirm.clone() }),
            Write::Confirm(v1::ConfirmGrantRequest { idempotency_key: fresh_key(), ..confirm }),
            Write::Fail(fail_request(customer, wallet, tranche_id)),
            Write::Void(void_request(customer, wallet, tranche_id)),
        ] {
            node.refuses(MAIN, write, expected, pairs).await;
        }
    }
    let elsewhere = v1::VoidGrantRequest { namespace: "staging".to_owned(), ..void(id) };
    node.refuses(MAIN, Write::Void(elsewhere), "CUSTOMER_NOT_FOUND", &[("customer", WHO)]).await;
    sound(node).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tranches_and_movements_are_found_by_what_became_of_grants() {
    let specs = vec![
        unpaid("1", Purchased),
        unpaid("2", Purchased),
        unpaid("4", Plan),
        tranche("8", Purchased),
        from(T0 + DAY, unpaid("16", Plan)),
        tranche("32", Promotional),
    ];
    let (mut node, ids) = with_tranches(specs).await;
    node.fail(fail(&ids[1])).await.expect("failed");
    node.void(void(&ids[2])).await.expect("voided");
    node.void(void(&ids[3])).await.expect("voided");
    node.confirm(confirm(&ids[4])).await.expect("confirmed");
    let list = |statuses: &[v1::TrancheStatus], kinds: &[v1::TrancheKind]| v1::ListTranchesRequest {
        customer: WHO.to_owned(),
        wallet: "main".to_owned(),
        statuses: statuses.iter().map(|own| i32::from(*own)).collect(),
        kinds: kinds.iter().map(|own| i32::from(*own)).collect(),
        ..Default::default()
    };
    for (statuses, kinds, expected) in [
        (vec![Pending], vec![], vec!["1"]),
        (vec![Failed], vec![], vec!["2"]),
        (vec![Voided], vec![], vec!["4", "8"]),
        (vec![Voided], vec![Plan], vec!["4"]),
        (vec![Scheduled], vec![], vec!["16"]),
        (vec![Active], vec![], vec!["32"]),
        (vec![Pending, Failed, Voided], vec![], vec!["1", "2", "4", "8"]),
        (vec![Exhausted, Expired], vec![], vec![]),
        (vec![], vec![], vec!["1", "2", "4", "8", "16", "32"]),
    ] {
        let rows = node.ledger.list_tranches(list(&statuses, &kinds)).await.expect("tranches");
        let rows = rows.into_inner().tranches;
        let amounts: Vec<_> = rows.iter().map(|own| own.amount.as_str()).collect();
        assert_eq!(amounts, expected, "{statuses:?} {kinds:?}");
    }

    // Granted are 1 and 2; newest first.
    for (types, expected) in
        [(vec![Withdrawn], vec![5, 4, 3]), (vec![Granted], vec![2, 1]), (vec![Lapsed], vec![])]
    {
        let request = v1::ListMovementsRequest {
            customer: WHO.to_owned(),
            wallet: "main".to_owned(),
            types: types.iter().map(|own| i32::from(*own)).collect(),
            ..Default::default()
        };
        let rows = node.ledger.list_movements(request).await.expect("movements").into_inner().movements;
        let rows: Vec<_> = rows.iter().map(|own| own.sequence).collect();
        assert_eq!(rows, expected, "{types:?}");
    }
    sound(node).await;
}

// ---- the same key again ------------------------------------------------------------------------

#[tokio::test(flavor = "multi_thread")]
async fn the_same_key_gets_the_first_answer_though_the_grant_has_lived_on() {
    let mut node = Running::start().await;
    node.create(create_request(WHO, "main", 0)).await;
    let grant = grant_request(
        WHO,
        "main",
        vec![
            unpaid_for("10", "PT1H"),
            from(T0 + 2 * HOUR, unpaid("5", Plan)),
            unpaid("7", Promotional),
            tranche("3", Purchased),
            from(T0 + MINUTE, tranche("2", Plan)),
            expiring("20", Plan, T0 + HOUR),
            unpaid_until("6", T0 + HOUR),
        ],
    );
    let granted = node.ledger.grant(grant.clone()).await.expect("a grant").into_inner();
    let id = |place: usize| granted.tranches[place].tranche_id.as_str();
    node.set_clock(T0 + MINUTE).await;
    let confirm_active = confirm(id(0));
    let active = node.confirm(confirm_active.clone()).await.expect("confirmed");
    let confirm_scheduled =
        v1::ConfirmGrantRequest { expiry: Some(ExpiresIn(in_all("P1M", "Europe/Berlin"))), ..confirm(id(1)) };
    let scheduled = node.confirm(confirm_scheduled.clone()).await.expect("confirmed");
    let confirm_anew = confirm_until(id(6), T0 + 5 * HOUR);
    let anew = node.confirm(confirm_anew.clone()).await.expect("confirmed");
    let fail_one = fail(id(2));
    let failed = node.fail(fail_one.clone()).await.expect("failed");
    let void_one = void(id(3));
    let voided = node.void(void_one.clone()).await.expect("voided");
    // What expires first: 20 of the plan, then 4 of what was confirmed.
    let debit = node.debit(debit_request(WHO, "main", "24")).await.expect("a debit");
    let spent = of_receipt(debit.receipt.as_ref()).movement_ids[0].clone();
    let expected = [(id(5), "20", "0"), (id(0), "4", "6")];
    assert_eq!(drawn(&of_receipt(debit.receipt.as_ref()).draws), expected);
    // Both have expired when they get units back, to be spent until T0 + 6 h.
    node.set_clock(T0 + 3 * HOUR).await;
    let refund = v1::RefundRequest { grace: Some(lasting(3 * HOUR)), ..refund_request(WHO, &spent, "") };
    node.refund(refund).await.expect("a refund");
    let restored = look(&mut node, id(0)).await;
    assert_eq!((restored.status(), &restored.expires_at), (Active, &Some(at(T0 + 6 * HOUR))));
    node.adjust(adjust_request(WHO, "main", "-1")).await.expect("a correction");
    node.void(void(id(6))).await.expect("voided");
    let before = node.books(WHO, "main").await;

    let mut again = node.ledger.grant(grant.clone()).await.expect("the answer of then").into_inner();
    as_at_first(&mut again.receipt, &granted.receipt);
    assert_eq!(again, granted);
    let mut again = node.confirm(confirm_active.clone()).await.expect("the answer of then");
    as_at_first(&mut again.receipt, &active.receipt);
    assert_eq!(again, active);
    let mut again = node.confirm(confirm_scheduled.clone()).await.expect("the answer of then");
    as_at_first(&mut again.receipt, &scheduled.receipt);
    assert_eq!(again, scheduled);
    let mut again = node.confirm(confirm_anew).await.expect("the answer of then");
    as_at_first(&mut again.receipt, &anew.receipt);
    assert_eq!(again, anew);
    let mut again = node.fail(fail_one.clone()).await.expect("the answer of then");
    as_at_first(&mut again.receipt, &failed.receipt);
    assert_eq!(again, failed);
    let mut again = node.void(void_one.clone()).await.expect("the answer of then");
    as_at_first(&mut again.receipt, &voided.receipt);
    assert_eq!(again, voided);

    let mut paid = grant;
    paid.tranches[0].pending = false;
    let key = fail_one.idempotency_key.clone();
    let reused = [
        Write::Grant(paid),
        Write::Confirm(v1::ConfirmGrantRequest {
            expiry: Some(ExpiresIn(in_all("PT1H", ""))),
            ..confirm_active.clone()
        }),
        Write::Confirm(v1::ConfirmGrantRequest { tranche_id: id(1).to_owned(), ..confirm_active }),
        // The same instant, said in another way.
        Write::Confirm(v1::ConfirmGrantRequest {
            expiry: Some(ExpiresIn(in_all("P1M", "Europe/Paris"))),
            ..confirm_scheduled
        }),
        Write::Fail(v1::FailGrantRequest { reference: "other".to_owned(), ..fail_one }),
        // Another operation.
        Write::Void(v1::VoidGrantRequest { idempotency_key: key, ..void(id(2)) }),
        Write::Void(v1::VoidGrantRequest { reason_code: "other".to_owned(), ..void_one }),
    ];
    for write in reused {
        let refused = node.refused(write).await;
        let expected = (tonic::Code::FailedPrecondition, "IDEMPOTENCY_KEY_REUSED".to_owned());
        assert_eq!((refused.code(), reason(&refused)), expected);
    }
    assert_eq!(node.books(WHO, "main").await, before);
    sound(node).await;
}
