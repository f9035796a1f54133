//! What is tried again, how often, and when not.

use std::collections::HashMap;
use std::time::{Duration, UNIX_EPOCH};

use purser_client::{Outcome, RetryBudget, v1};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use crate::support::{
    Gate, builder, debit, insufficient, map, node, not_leader, refusal, unavailable, until,
};

#[tokio::test]
async fn every_attempt_carries_the_same_key_and_the_same_valid_until() {
    let only = node();
    only.answer_in_turn([unavailable(), Status::unavailable("reset"), not_leader(None, 2, 1)]);
    let client = builder(&[&only])
        .deadline(Duration::from_secs(60))
        .clock(|| UNIX_EPOCH + Duration::from_micros(1_700_000_000_123_456))
        .connect()
        .await
        .expect("connected");
    let applied = client.debit(debit("acme")).await.applied().expect("applied");
    let attempts = only.debits();
    assert_eq!(attempts.len(), 4);
    assert!(attempts.iter().all(|attempt| *attempt == attempts[0]));
    let key = uuid::Uuid::parse_str(&attempts[0].idempotency_key).expect("a UUID");
    assert_eq!(key.get_version_num(), 7);
    assert_eq!(applied.asset.expect("an asset").code, attempts[0].idempotency_key);
    // 60 s of deadline and five minutes.
    let valid_until = attempts[0].valid_until.expect("a time");
    assert_eq!((valid_until.seconds, valid_until.nanos), (1_700_000_360, 123_456_000));
}

#[tokio::test]
async fn a_key_and_a_valid_until_of_the_callers_own_are_left_alone() {
    let only = node();
    let client = builder(&[&only]).connect().await.expect("connected");
    let request = v1::DebitRequest {
        idempotency_key: "mine".to_owned(),
        valid_until: Some(prost_types::Timestamp { seconds: 7, nanos: 0 }),
        ..debit("acme")
    };
    assert!(matches!(client.debit(request.clone()).await, Outcome::Applied(_)));
    assert_eq!(only.debits(), [request]);
}

#[tokio::test]
async fn a_verdict_is_not_tried_again() {
    let only = node();
    only.refuse(insufficient());
    let client = builder(&[&only]).connect().await.expect("connected");
    assert!(matches!(client.debit(debit("acme")).await, Outcome::Denied(_)));
    assert_eq!(only.seen().len(), 1);
}

#[tokio::test]
async fn in_an_outage_a_hundred_calls_are_retried_ten_times() {
    let only = node();
    only.refuse(unavailable());
    let client = builder(&[&only])
        .retry_budget(RetryBudget { percent: 10, per_second: 0 })
        .connect()
        .await
        .expect("connected");
    for _ in 0..100 {
        assert!(matches!(client.debit(debit("acme")).await, Outcome::Unknown(_)));
    }
    assert_eq!(only.seen().len(), 110);
}

#[tokio::test]
async fn a_pause_that_the_server_asks_for_beyond_the_deadline_is_not_begun() {
    let only = node();
    let mut details = ErrorDetails::with_error_info("UNAVAILABLE", "purser", HashMap::new());
    details.set_retry_info(Some(Duration::from_secs(3_600)));
    only.refuse(Status::with_error_details(Code::Unavailable, "in an hour", details));
    let client = builder(&[&only]).connect().await.expect("connected");
    let Outcome::Unknown(unknown) = client.debit(debit("acme")).await else { panic!("nobody applied it") };
    assert_eq!(only.seen().len(), 1);
    assert_eq!(unknown.cause.retry_after, Some(Duration::from_secs(3_600)), "the caller is told");
}

#[tokio::test]
async fn a_node_that_does_not_answer_is_left_for_another_one() {
    let (a, b) = (node(), node());
    a.tell_map(map(&[&a.address, &b.address], 1, None, Some(1)));
    b.on_debit(|_| std::future::pending());
    let client =
        builder(&[&a]).attempt_timeout(Duration::from_millis(500)).connect().await.expect("connected");
    assert!(matches!(client.debit(debit("acme")).await, Outcome::Applied(_)));
    assert_eq!(a.debits(), b.debits(), "the same request");
    assert!(!a.seen()[0].direct && b.seen()[0].direct);
}

#[tokio::test]
async fn a_call_with_a_short_deadline_still_has_time_to_ask_another_node() {
    let (a, b) = (node(), node());
    a.tell_map(map(&[&a.address, &b.address], 1, None, Some(1)));
    b.on_debit(|_| std::future::pending());
    // The attempt alone would take longer than there is.
    let client = builder(&[&a]).connect().await.expect("connected").with_deadline(Duration::from_secs(2));
    assert!(matches!(client.debit(debit("acme")).await, Outcome::Applied(_)));
    assert_eq!((a.seen().len(), b.seen().len()), (1, 1));
}

#[tokio::test]
async fn a_caller_in_a_hurry_does_not_bring_a_node_into_disrepute() {
    let (a, b) = (node(), node());
    a.tell_map(map(&[&a.address, &b.address], 1, None, Some(1)));
    b.on_debit(|_| std::future::pending());
    let client = builder(&[&a]).connect().await.expect("connected");
    let hasty = client.with_deadline(Duration::from_millis(10));
    assert!(matches!(hasty.debit(debit("acme")).await, Outcome::Unknown(_)));
    b.answer_in_turn([]);
    assert!(matches!(client.debit(debit("acme")).await, Outcome::Applied(_)));
    assert!(b.seen().len() == 2 && a.seen().is_empty(), "the leader is still asked first");
}

#[tokio::test]
async fn a_connection_that_breaks_under_a_call_is_no_end_of_the_call() {
    let (a, mut b) = (node(), node());
    a.tell_map(map(&[&a.address, &b.address], 1, None, Some(1)));
    let gate = Gate::default();
    let waits = gate.clone();
    b.on_debit(move |_| {
        let gate = waits.clone();
        async move {
            gate.pass().await;
            std::future::pending().await
        }
    });
    let client = builder(&[&a]).connect().await.expect("connected");
    let debiting = tokio::spawn({
        let client = client.clone();
        async move { client.debit(debit("acme")).await }
    });
    until(|| gate.came() == 1).await;
    b.kill();
    assert!(matches!(debiting.await.expect("no panic"), Outcome::Applied(_)));
    assert_eq!(a.debits().len(), 1);
}

#[tokio::test]
async fn a_read_is_tried_again_too() {
    let only = node();
    only.answer_in_turn([unavailable(), unavailable()]);
    let client = builder(&[&only]).connect().await.expect("connected");
    let request = v1::GetBalanceRequest { customer: "acme".to_owned(), ..Default::default() };
    client.get_balance(request).await.expect("a balance");
    assert_eq!(only.seen().len(), 3);
}

#[tokio::test]
async fn a_read_that_is_refused_says_why() {
    let only = node();
    let client = builder(&[&only]).connect().await.expect("connected");
    let request = v1::GetBalanceRequest { customer: "acme".to_owned(), ..Default::default() };
    only.refuse(refusal(Code::NotFound, "CUSTOMER_NOT_FOUND", &[("customer", "acme")]));
    let denial = client.get_balance(request.clone()).await.expect_err("refused");
    assert_eq!((denial.reason, denial.http_status()), (v1::Reason::CustomerNotFound, 404));
    only.on_debit(|_| std::future::pending());
    let hasty = client.with_deadline(Duration::from_millis(20));
    let denial = hasty.get_balance(request).await.expect_err("no answer");
    assert_eq!((denial.code, denial.http_status()), (Code::DeadlineExceeded, 503));
}
