//! What a caller is told, and that it is true.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, UNIX_EPOCH};

use purser_client::{NotApplied, Outcome, PurserClient, RetryBudget, Unknown, v1};
use tonic::{Code, Status};

use crate::support::{Gate, Node, builder, debit, insufficient, node, refusal, unavailable, until};

/// 2023-11-14, in seconds since 1970.
const NOW: u64 = 1_700_000_000;

async fn impatient(nodes: &[&Node]) -> PurserClient {
    let budget = RetryBudget { percent: 0, per_second: 0 };
    builder(nodes).retry_budget(budget).connect().await.expect("connected")
}

fn unknown(outcome: Outcome<v1::DebitRequest>) -> Unknown<v1::DebitRequest> {
    match outcome {
        Outcome::Unknown(unknown) => unknown,
        other => panic!("not unknown: {other:?}"),
    }
}

#[tokio::test]
async fn a_denial_says_why_how_much_is_there_and_what_to_answer() {
    let only = node();
    only.refuse(insufficient());
    let client = impatient(&[&only]).await;
    let Outcome::Denied(denial) = client.debit(debit("acme")).await else { panic!("not denied") };
    assert_eq!((denial.reason, denial.http_status()), (v1::Reason::InsufficientCredits, 402));
    assert_eq!((denial.metadata["available"].as_str(), denial.metadata["required"].as_str()), ("3", "5"));
    assert!(denial.is_verdict());
    assert_eq!(denial.to_string(), "INSUFFICIENT_CREDITS: no");
}

#[tokio::test]
async fn when_nothing_can_have_been_sent_the_write_is_denied_and_not_unknown() {
    let mut down = node();
    down.kill();
    let client = builder(&[&down]).deadline(Duration::from_millis(200)).build().expect("a client");
    let Outcome::Denied(denial) = client.debit(debit("acme")).await else { panic!("not denied") };
    assert_eq!((denial.reason, denial.http_status()), (v1::Reason::Unavailable, 503));
    let spent = client.with_deadline(Duration::ZERO).debit(debit("acme")).await;
    assert!(matches!(spent, Outcome::Denied(denial) if denial.http_status() == 503));
}

#[tokio::test]
async fn a_deadline_that_passes_with_the_request_sent_leaves_the_outcome_unknown() {
    let only = node();
    only.on_debit(|_| std::future::pending());
    let client = impatient(&[&only]).await.with_deadline(Duration::from_millis(50));
    let outcome = client.debit(debit("acme")).await;
    assert_eq!(outcome.http_status(), 503);
    let unknown = unknown(outcome);
    assert_eq!(unknown.key(), only.debits()[0].idempotency_key);
    assert_eq!(unknown.request, only.debits()[0], "what was sent can be sent again");
}

#[tokio::test]
async fn a_verdict_settles_what_an_earlier_attempt_left_open() {
    let only = node();
    only.answer_in_turn([unavailable(), insufficient()]);
    let client = builder(&[&only]).connect().await.expect("connected");
    assert!(matches!(client.debit(debit("acme")).await, Outcome::Denied(_)));
}

#[tokio::test]
async fn a_refusal_that_did_not_look_settles_nothing_that_an_earlier_attempt_left_open() {
    let only = node();
    let client = builder(&[&only]).connect().await.expect("connected");
    let refusals = [
        refusal(Code::InvalidArgument, "INVALID_ARGUMENT", &[]),
        Status::permission_denied("the token was revoked"),
    ];
    for refusal in refusals {
        only.answer_in_turn([refusal.clone()]);
        assert!(matches!(client.debit(debit("acme")).await, Outcome::Denied(_)), "alone it is a denial");
        only.answer_in_turn([unavailable(), refusal]);
        assert!(matches!(client.debit(debit("acme")).await, Outcome::Unknown(_)));
    }
}

#[tokio::test]
async fn an_unknown_outcome_is_resolved_by_the_same_request_however_long_it_takes() {
    let only = node();
    only.refuse(unavailable());
    let client = impatient(&[&only]).await;
    let unknown = unknown(client.debit(debit("acme")).await);
    only.answer_in_turn((0..4).map(|_| unavailable()));
    let resolved = client.resolve(unknown.request.clone()).await.applied().expect("applied");
    assert_eq!(resolved.asset.expect("an asset").code, unknown.key());
    assert_eq!(only.seen().len(), 6, "one that left it open, four that did, and the answer");
    assert!(only.debits().iter().all(|debit| *debit == unknown.request));
}

#[tokio::test]
async fn a_write_that_is_too_old_is_proved_never_to_have_been_applied_unless_a_verdict_may_be_forgotten() {
    let only = node();
    let now = Arc::new(AtomicU64::new(NOW));
    let clock = now.clone();
    let client = builder(&[&only])
        .retry_budget(RetryBudget { percent: 0, per_second: 0 })
        .clock(move || UNIX_EPOCH + Duration::from_secs(clock.load(Ordering::SeqCst)))
        .connect()
        .await
        .expect("connected");
    only.refuse(unavailable());
    let unknown = unknown(client.debit(debit("acme")).await);
    only.refuse(refusal(Code::FailedPrecondition, "KEY_TOO_OLD", &[]));
    now.fetch_add(3_600, Ordering::SeqCst);
    let soon = client.resolve(unknown.request.clone()).await;
    assert!(matches!(soon, Outcome::Denied(denial) if denial.reason == v1::Reason::KeyTooOld));
    now.fetch_add(24 * 3_600, Ordering::SeqCst);
    let late = client.resolve(unknown.request).await;
    assert!(matches!(late, Outcome::Unknown(_)), "a verdict would have been forgotten by now");
}

#[tokio::test]
async fn a_request_without_what_it_was_sent_with_stays_unknown() {
    let only = node();
    let client = impatient(&[&only]).await;
    let keyless = client.resolve(debit("acme")).await;
    assert!(matches!(keyless, Outcome::Unknown(own) if own.cause.reason == v1::Reason::InvalidArgument));
    let request = v1::DebitRequest { idempotency_key: "mine".to_owned(), ..debit("acme") };
    assert!(matches!(client.resolve(request).await, Outcome::Unknown(_)), "the client put in a valid_until");
    assert_eq!(only.seen().len(), 0);
}

#[tokio::test]
async fn over_the_bound_a_call_is_denied_at_once_and_nothing_is_sent() {
    let only = node();
    let gate = Gate::default();
    let waits = gate.clone();
    only.on_debit(move |debit| {
        let gate = waits.clone();
        async move {
            gate.pass().await;
            Ok(crate::support::applied(&debit))
        }
    });
    let client = builder(&[&only]).calls_max(2).connect().await.expect("connected");
    let debiting = [0, 1].map(|_| {
        let client = client.clone();
        tokio::spawn(async move { client.debit(debit("acme")).await })
    });
    until(|| gate.came() == 2).await;
    let Outcome::Denied(denial) = client.debit(debit("acme")).await else { panic!("not denied") };
    assert_eq!((denial.reason, denial.http_status()), (v1::Reason::Unavailable, 503));
    gate.open();
    for own in debiting {
        assert!(matches!(own.await.expect("no panic"), Outcome::Applied(_)));
    }
    assert!(matches!(client.debit(debit("acme")).await, Outcome::Applied(_)), "there is room again");
    assert_eq!(only.seen().len(), 3);
}

#[tokio::test]
async fn an_outcome_becomes_a_result_that_keeps_what_is_certain_apart_from_what_is_not() {
    let only = node();
    let client = impatient(&[&only]).await;
    only.answer_in_turn([insufficient(), unavailable()]);
    let denied = client.debit(debit("acme")).await.into_result();
    assert!(matches!(denied, Err(NotApplied::Denied(_))));
    let open = client.debit(debit("acme")).await.into_result();
    let sent = only.debits()[1].idempotency_key.clone();
    assert!(matches!(open, Err(NotApplied::Unknown { key, .. }) if key == sent));
    client.debit(debit("acme")).await.into_result().expect("applied");
}
