//! Debits on a stream.

use futures_util::{StreamExt, stream};
use purser_client::{Outcome, RetryBudget, v1};

use crate::support::{
    Gate, applied, builder, insufficient, map, node, node_without_streams, not_leader, numbered, until,
};

fn requests(count: usize) -> impl stream::Stream<Item = v1::DebitRequest> {
    stream::iter((0..count).map(|number| numbered("acme", number)))
}

fn key_of(outcome: &Outcome<v1::DebitRequest>) -> String {
    match outcome {
        Outcome::Applied(response) => response.asset.clone().expect("an asset").code,
        other => panic!("not applied: {other:?}"),
    }
}

#[tokio::test]
async fn debits_go_over_one_stream_to_their_leader_and_come_back_in_order() {
    let (a, b) = (node(), node());
    a.tell_map(map(&[&a.address, &b.address], 1, None, Some(1)));
    let client = builder(&[&a]).connect().await.expect("connected");
    let outcomes: Vec<_> = client.debit_stream(requests(3_000)).collect().await;
    assert_eq!(a.seen().len(), 0);
    let seen = b.seen();
    assert!(seen.iter().all(|own| own.method == "debit_stream"));
    assert_eq!(seen.iter().filter(|own| own.debits.is_empty()).count(), 1, "one stream");
    let (debits, keys) = (b.debits(), outcomes.iter().map(key_of).collect::<Vec<_>>());
    let references: Vec<usize> = debits.iter().map(|own| own.reference.parse().expect("a number")).collect();
    assert_eq!(references, (0..3_000).collect::<Vec<_>>(), "in the order in which they came");
    assert_eq!(keys, debits.iter().map(|own| own.idempotency_key.clone()).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_verdict_on_a_stream_is_told_for_its_debit_alone() {
    let only = node();
    only.on_debit(|debit| {
        std::future::ready(if debit.reference == "1" { Err(insufficient()) } else { Ok(applied(&debit)) })
    });
    let client = builder(&[&only]).connect().await.expect("connected");
    let outcomes: Vec<_> = client.debit_stream(requests(3)).collect().await;
    assert!(matches!(outcomes[0], Outcome::Applied(_)));
    assert!(matches!(&outcomes[1], Outcome::Denied(denial) if denial.http_status() == 402));
    assert!(matches!(outcomes[2], Outcome::Applied(_)));
}

#[tokio::test]
async fn what_a_broken_stream_leaves_open_is_made_elsewhere_under_the_same_key() {
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
    let collecting = tokio::spawn(client.debit_stream(requests(5)).collect::<Vec<_>>());
    until(|| gate.came() == 1).await;
    let before = b.debits();
    b.kill();
    let outcomes = collecting.await.expect("no panic");
    assert!(outcomes.iter().all(|outcome| matches!(outcome, Outcome::Applied(_))));
    assert_eq!(before.len(), 3);
    let after = a.debits();
    assert!(after.contains(&before[2]), "the one under way was sent again, and is the same request");
    assert!(after.len() >= 3, "as were those that came after it");
}

#[tokio::test]
async fn a_debit_that_a_stream_leaves_open_follows_the_hint() {
    let (a, b) = (node(), node());
    a.tell_map(map(&[&a.address, &b.address], 1, None, Some(0)));
    a.refuse(not_leader(Some(&b.address), 2, 1));
    let budget = RetryBudget { percent: 0, per_second: 0 };
    let client = builder(&[&a]).retry_budget(budget).connect().await.expect("connected");
    let outcomes: Vec<_> = client.debit_stream(requests(2)).collect().await;
    assert!(outcomes.iter().all(|outcome| matches!(outcome, Outcome::Applied(_))));
    assert_eq!(b.debits().len(), 2);
}

#[tokio::test]
async fn a_node_without_streams_is_asked_by_single_calls() {
    let only = node_without_streams();
    let client = builder(&[&only]).connect().await.expect("connected");
    let outcomes: Vec<_> = client.debit_stream(requests(10)).collect().await;
    assert!(outcomes.iter().all(|outcome| matches!(outcome, Outcome::Applied(_))));
    assert_eq!(only.debits().len(), 10);
}
