//! Writes of several sorts, in lists and on streams.

use std::collections::BTreeSet;

use futures_util::{StreamExt, stream};
use purser_client::{Batching, Outcome, RetryBudget, v1};
use tonic::Code;

use crate::support::{
    Gate, applied, builder, insufficient, map, node, node_without_streams, not_leader, numbered, refusal,
    unavailable, until,
};

/// Writes of one customer, of all sorts in turn; those that have a reference are numbered.
fn writes(customer: &str, count: usize) -> Vec<v1::WriteRequest> {
    let write = |number: usize| -> v1::WriteRequest {
        let (customer, reference) = (customer.to_owned(), number.to_string());
        match number % 7 {
            0 => numbered(&customer, number).into(),
            1 => v1::HoldRequest { customer, reference, ..Default::default() }.into(),
            2 => v1::CaptureRequest { customer, reference, ..Default::default() }.into(),
            3 => v1::ReleaseRequest { customer, reference, ..Default::default() }.into(),
            4 => v1::RefundRequest { customer, reference, ..Default::default() }.into(),
            5 => v1::GrantRequest { customer, ..Default::default() }.into(),
            _ => v1::ExtendHoldRequest { customer, ..Default::default() }.into(),
        }
    };
    (0..count).map(write).collect()
}

/// The key of a write that was applied, and its place among the sorts above.
fn key_of(outcome: &Outcome<v1::WriteRequest>) -> (usize, String) {
    use v1::write_result::Outcome as Told;
    let Outcome::Applied(result) = outcome else { panic!("not applied: {outcome:?}") };
    let (sort, receipt) = match result.outcome.as_ref().expect("an outcome") {
        Told::Debited(own) => return (0, own.asset.clone().expect("an asset").code),
        Told::Held(own) => (1, &own.receipt),
        Told::Captured(own) => (2, &own.receipt),
        Told::Released(own) => (3, &own.receipt),
        Told::Refunded(own) => (4, &own.receipt),
        Told::Granted(own) => (5, &own.receipt),
        Told::Extended(own) => (6, &own.receipt),
        Told::Refused(refusal) => panic!("a refusal for an answer: {refusal:?}"),
    };
    (sort, receipt.clone().expect("a receipt").operation_id)
}

fn applied_all(outcomes: &[Outcome<v1::WriteRequest>]) -> bool {
    outcomes.iter().all(|outcome| matches!(outcome, Outcome::Applied(_)))
}

#[tokio::test]
async fn a_list_of_all_sorts_is_split_by_leader_completed_and_answered_in_its_order() {
    let (a, b) = (node(), node());
    a.tell_map(map(&[&a.address, &b.address], 1, Some(0), Some(1)));
    let client = builder(&[&a]).connect().await.expect("connected").with_namespace("eu");
    let (globex, acme) = (writes("globex", 14), writes("acme", 14));
    let requests = globex.into_iter().zip(acme).flat_map(|(one, other)| [one, other]).collect();

    let outcomes = client.write_batch(requests).await;

    // The namespace is part of what places a customer: nobody knows who leads these shards.
    let calls: Vec<_> = a.seen().into_iter().chain(b.seen()).collect();
    assert!(calls.iter().all(|seen| seen.method == "write_batch"), "{calls:?}");
    let debits: Vec<_> = calls.into_iter().flat_map(|seen| seen.debits).collect();
    assert!(debits.iter().all(|own| own.namespace == "eu" && own.valid_until.is_some()));
    for customer in ["globex", "acme"] {
        let sent = debits.iter().filter(|own| own.customer == customer).map(|own| &own.idempotency_key);
        let skip = usize::from(customer == "acme");
        let told: Vec<_> = outcomes.iter().skip(skip).step_by(2).map(key_of).collect();
        assert!(told.iter().enumerate().all(|(number, (sort, _))| number % 7 == *sort));
        assert!(sent.eq(told.iter().map(|(_, key)| key)), "in their order, each its own answer");
    }
    let keys: BTreeSet<_> = debits.iter().map(|own| &own.idempotency_key).collect();
    assert_eq!(keys.len(), 28, "each has a key of its own");
}

#[tokio::test]
async fn a_list_goes_to_each_leader_in_one_call() {
    let (a, b) = (node(), node());
    a.tell_map(map(&[&a.address, &b.address], 1, Some(0), Some(1)));
    let client = builder(&[&a]).connect().await.expect("connected");
    let requests = [writes("globex", 7), writes("acme", 7)].concat();
    assert!(applied_all(&client.write_batch(requests).await));
    assert_eq!((a.seen().len(), b.seen().len()), (1, 1));
    assert!(a.seen()[0].direct && b.seen()[0].direct);
    assert!(a.debits().iter().all(|own| own.customer == "globex"));
    assert!(b.debits().iter().all(|own| own.customer == "acme"));
}

#[tokio::test]
async fn a_list_follows_a_hint_under_the_same_keys() {
    let (a, b) = (node(), node());
    a.tell_map(map(&[&a.address, &b.address], 1, None, Some(0)));
    a.refuse(not_leader(Some(&b.address), 2, 1));
    let budget = RetryBudget { percent: 0, per_second: 0 };
    let client = builder(&[&a]).retry_budget(budget).connect().await.expect("connected");
    assert!(applied_all(&client.write_batch(writes("acme", 14)).await));
    assert_eq!((a.seen().len(), b.seen().len()), (1, 1));
    assert_eq!(a.debits(), b.debits(), "the same writes, in the same order, with the same keys");
}

#[tokio::test]
async fn verdicts_and_what_is_left_open_are_told_each_for_its_write_and_can_be_resolved() {
    let only = node();
    let budget = RetryBudget { percent: 0, per_second: 0 };
    let client = builder(&[&only]).retry_budget(budget).connect().await.expect("connected");
    only.on_debit(|debit| {
        std::future::ready(match debit.reference.as_str() {
            "0" => Ok(applied(&debit)),
            "1" => Err(unavailable()),
            "2" => Err(refusal(Code::FailedPrecondition, "HOLD_CLOSED", &[("log_index", "1")])),
            _ => Err(insufficient()),
        })
    });
    let outcomes = client.write_batch(writes("acme", 4)).await;
    assert_eq!(key_of(&outcomes[0]).0, 0);
    assert!(matches!(&outcomes[2], Outcome::Denied(denial) if denial.http_status() == 409));
    assert!(matches!(&outcomes[3], Outcome::Denied(denial) if denial.http_status() == 402));
    let Outcome::Unknown(unknown) = &outcomes[1] else { panic!("not unknown: {:?}", outcomes[1]) };

    only.on_debit(|debit| std::future::ready(Ok(applied(&debit))));
    let resolved = client.resolve(unknown.request.clone()).await;
    assert_eq!(key_of(&resolved), (1, unknown.key().to_owned()));
    let last = only.seen().pop().expect("a call");
    assert_eq!((last.method, last.debits.len()), ("write_batch", 1), "alone, it is a batch of one");
    assert_eq!(last.debits[0], only.debits()[1], "the same request");
}

#[tokio::test]
async fn a_write_that_says_nothing_is_refused_and_the_others_go_on() {
    let only = node();
    let client = builder(&[&only]).connect().await.expect("connected");
    let nothing = v1::WriteRequest::default();
    let outcome = client.resolve(nothing).await;
    assert!(matches!(&outcome, Outcome::Unknown(unknown) if unknown.key().is_empty()), "{outcome:?}");
    assert!(client.write_batch(Vec::new()).await.is_empty());
    assert!(only.seen().is_empty());
}

#[tokio::test]
async fn calls_hold_what_a_node_takes_of_grants_counted_by_their_tranches() {
    let only = node();
    let batching = Batching { debits_max: 8_000, ..Batching::default() };
    let client = builder(&[&only]).batching(batching).connect().await.expect("connected");
    let tranches = vec![v1::TrancheSpec::default(); 100];
    let grant = v1::GrantRequest { customer: "acme".to_owned(), tranches, ..Default::default() };
    let requests = (0..100).map(|_| grant.clone().into()).collect();
    assert!(applied_all(&client.write_batch(requests).await));
    let calls: Vec<_> = only.seen().iter().map(|seen| seen.debits.len()).collect();
    assert_eq!(calls, [80, 20]);
}

#[tokio::test]
async fn writes_go_over_one_stream_to_their_leader_and_come_back_in_order() {
    let (a, b) = (node(), node());
    a.tell_map(map(&[&a.address, &b.address], 1, None, Some(1)));
    let client = builder(&[&a]).connect().await.expect("connected");
    let outcomes: Vec<_> = client.write_stream(stream::iter(writes("acme", 2_100))).collect().await;
    assert_eq!(a.seen().len(), 0);
    let seen = b.seen();
    assert!(seen.iter().all(|own| own.method == "write_stream"));
    assert_eq!(seen.iter().filter(|own| own.debits.is_empty()).count(), 1, "one stream");
    let told: Vec<_> = outcomes.iter().map(key_of).collect();
    assert!(told.iter().enumerate().all(|(number, (sort, _))| number % 7 == *sort));
    assert!(b.debits().iter().map(|own| &own.idempotency_key).eq(told.iter().map(|(_, key)| key)));
}

#[tokio::test]
async fn what_a_broken_stream_of_writes_leaves_open_is_made_elsewhere_under_the_same_key() {
    let (a, mut b) = (node(), node());
    a.tell_map(map(&[&a.address, &b.address], 1, None, Some(1)));
    let gate = Gate::default();
    let waits = gate.clone();
    b.on_debit(move |debit| {
        let gate = waits.clone();
        async move {
            if debit.reference == "2" {
                gate.pass().await;
            }
            Ok(applied(&debit))
        }
    });
    let client = builder(&[&a]).connect().await.expect("connected");
    let collecting = tokio::spawn(client.write_stream(stream::iter(writes("acme", 5))).collect::<Vec<_>>());
    until(|| gate.came() == 1).await;
    let before = b.debits();
    b.kill();
    assert!(applied_all(&collecting.await.expect("no panic")));
    assert_eq!(before.len(), 3);
    assert!(a.seen().iter().any(|seen| seen.method == "write_batch" && seen.debits == before[2..]));
}

#[tokio::test]
async fn a_node_without_streams_is_asked_write_by_write() {
    let only = node_without_streams();
    let client = builder(&[&only]).connect().await.expect("connected");
    let outcomes: Vec<_> = client.write_stream(stream::iter(writes("acme", 10))).collect().await;
    assert!(applied_all(&outcomes));
    assert!(only.seen().iter().all(|seen| seen.method == "write_batch" && seen.debits.len() == 1));
    assert_eq!(only.debits().len(), 10);
}
