//! Debits gathered, and lists of them.

use std::collections::BTreeSet;

use purser_client::{Batching, Outcome, RetryBudget, v1};

use crate::support::{
    Gate, applied, builder, insufficient, lock, map, node, not_leader, numbered, refusal, unavailable, until,
};
use tonic::Code;

fn applied_all(outcomes: &[Outcome<v1::DebitRequest>]) -> bool {
    outcomes.iter().all(|outcome| matches!(outcome, Outcome::Applied(_)))
}

fn references(debits: &[v1::DebitRequest]) -> Vec<&str> {
    debits.iter().map(|debit| debit.reference.as_str()).collect()
}

#[tokio::test]
async fn a_few_callers_send_plain_debits_and_many_share_batches() {
    let only = node();
    let gate = Gate::default();
    let waits = gate.clone();
    only.on_debit(move |debit| {
        let gate = waits.clone();
        async move {
            gate.pass().await;
            if debit.customer == "poor" { Err(insufficient()) } else { Ok(applied(&debit)) }
        }
    });
    let batching = Batching { under_way_max: 2, ..Batching::default() };
    let client = builder(&[&only]).batching(batching).connect().await.expect("connected");
    let spawn = |request: v1::DebitRequest| {
        let client = client.clone();
        tokio::spawn(async move { client.debit(request).await })
    };
    let plain: Vec<_> = (0..2).map(|number| spawn(numbered("acme", number))).collect();
    until(|| gate.came() == 2).await;
    assert!(only.seen().iter().all(|seen| seen.method == "debit"), "two callers, two calls");
    let waiting: Vec<_> = (0..20)
        .map(|number| spawn(numbered(if number % 5 == 0 { "poor" } else { "acme" }, number)))
        .collect();
    // They have nothing to wait for but their turn.
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    gate.open();
    for own in plain {
        assert!(matches!(own.await.expect("no panic"), Outcome::Applied(_)));
    }
    for (number, own) in waiting.into_iter().enumerate() {
        let outcome = own.await.expect("no panic");
        let poor = number % 5 == 0;
        assert_eq!(matches!(outcome, Outcome::Denied(_)), poor, "each its own verdict");
        assert_eq!(matches!(outcome, Outcome::Applied(_)), !poor);
    }
    assert_eq!(only.debits().len(), 22);
    assert!(only.seen().len() < 22 / 2, "{} calls for 22 debits", only.seen().len());
    assert!(only.seen().iter().any(|seen| seen.method == "debit_batch"));
}

#[tokio::test]
async fn a_shard_that_gives_no_answer_does_not_hold_up_the_debits_of_others() {
    let only = node();
    only.tell_map(map(&[&only.address], 1, Some(0), Some(0)));
    // One call at a time: a debit that is gathered waits for the one before.
    let batching = Batching { under_way_max: 1, ..Batching::default() };
    let budget = RetryBudget { percent: 0, per_second: 0 };
    let client =
        builder(&[&only]).batching(batching).retry_budget(budget).connect().await.expect("connected");
    only.answer_in_turn([tonic::Status::deadline_exceeded("no answer in time")]);
    assert!(matches!(client.debit(numbered("acme", 0)).await, Outcome::Unknown(_)));
    let gate = Gate::default();
    let waits = gate.clone();
    only.on_debit(move |debit| {
        let gate = waits.clone();
        async move {
            if debit.customer == "acme" {
                gate.pass().await;
            }
            Ok(applied(&debit))
        }
    });
    let stuck = tokio::spawn({
        let client = client.clone();
        async move { client.debit(numbered("acme", 1)).await }
    });
    until(|| gate.came() == 1).await;
    assert!(matches!(client.debit(numbered("globex", 2)).await, Outcome::Applied(_)));
    assert!(!stuck.is_finished());
    gate.open();
    assert!(matches!(stuck.await.expect("no panic"), Outcome::Applied(_)));
}

#[tokio::test]
async fn without_batching_every_debit_is_a_call() {
    let only = node();
    let client = builder(&[&only]).without_batching().connect().await.expect("connected");
    let debiting: Vec<_> = (0..20)
        .map(|number| {
            let client = client.clone();
            tokio::spawn(async move { client.debit(numbered("acme", number)).await })
        })
        .collect();
    for own in debiting {
        assert!(matches!(own.await.expect("no panic"), Outcome::Applied(_)));
    }
    assert_eq!(only.seen().iter().filter(|seen| seen.method == "debit").count(), 20);
}

#[tokio::test]
async fn a_list_is_split_by_leader_and_comes_back_in_its_order() {
    let (a, b) = (node(), node());
    a.tell_map(map(&[&a.address, &b.address], 1, Some(0), Some(1)));
    a.on_debit(|debit| {
        std::future::ready(if debit.reference == "2" { Err(insufficient()) } else { Ok(applied(&debit)) })
    });
    let client = builder(&[&a]).connect().await.expect("connected");
    let customers = ["acme", "globex", "globex", "acme", "globex"];
    let requests: Vec<_> = customers.iter().enumerate().map(|(number, own)| numbered(own, number)).collect();
    let outcomes = client.debit_batch(requests).await;
    assert_eq!(outcomes.len(), 5);
    for (number, outcome) in outcomes.iter().enumerate() {
        assert_eq!(matches!(outcome, Outcome::Denied(_)), number == 2, "{outcome:?}");
    }
    assert_eq!((a.seen().len(), b.seen().len()), (1, 1), "one call to each");
    assert!(a.seen()[0].direct && b.seen()[0].direct);
    assert_eq!(references(&a.seen()[0].debits), ["1", "2", "4"]);
    assert_eq!(references(&b.seen()[0].debits), ["0", "3"]);
    let keys: BTreeSet<_> = a.debits().into_iter().chain(b.debits()).map(|own| own.idempotency_key).collect();
    assert_eq!(keys.len(), 5, "each has a key of its own");
}

#[tokio::test]
async fn a_list_follows_a_hint_in_its_order() {
    let (a, b) = (node(), node());
    a.tell_map(map(&[&a.address, &b.address], 1, None, Some(0)));
    a.refuse(not_leader(Some(&b.address), 2, 1));
    let budget = RetryBudget { percent: 0, per_second: 0 };
    let client = builder(&[&a]).retry_budget(budget).connect().await.expect("connected");
    let requests: Vec<_> = (0..10).map(|number| numbered("acme", number)).collect();
    assert!(applied_all(&client.debit_batch(requests).await));
    assert_eq!((a.seen().len(), b.seen().len()), (1, 1));
    assert_eq!(a.debits(), b.debits(), "the same debits, in the same order, with the same keys");
}

#[tokio::test]
async fn a_list_in_several_calls_is_not_overtaken_by_its_own_later_calls() {
    let only = node();
    let budget = RetryBudget { percent: 0, per_second: 1 };
    let batching = Batching { debits_max: 3, ..Batching::default() };
    let client =
        builder(&[&only]).batching(batching).retry_budget(budget).connect().await.expect("connected");
    // The second debit is refused once, for now.
    let refused_once = std::sync::Mutex::new(false);
    only.on_debit(move |debit| {
        let first =
            debit.reference == "1" && !std::mem::replace(&mut *lock(&refused_once), debit.reference == "1");
        std::future::ready(if first { Err(unavailable()) } else { Ok(applied(&debit)) })
    });
    let requests: Vec<_> = (0..7).map(|number| numbered("acme", number)).collect();
    assert!(applied_all(&client.debit_batch(requests).await));
    let calls: Vec<_> = only.seen().iter().map(|seen| references(&seen.debits).join(" ")).collect();
    assert_eq!(calls, ["0 1 2", "1 3 4", "5 6"]);
}

#[tokio::test]
async fn what_is_left_of_a_list_when_time_is_over_is_unknown_and_the_rest_is_told() {
    let only = node();
    let budget = RetryBudget { percent: 0, per_second: 0 };
    let client = builder(&[&only]).retry_budget(budget).connect().await.expect("connected");
    only.on_debit(|debit| {
        std::future::ready(match debit.reference.as_str() {
            "0" => Ok(applied(&debit)),
            "1" => Err(unavailable()),
            _ => Err(refusal(Code::NotFound, "WALLET_NOT_FOUND", &[("log_index", "1")])),
        })
    });
    let requests: Vec<_> = (0..3).map(|number| numbered("acme", number)).collect();
    let outcomes = client.debit_batch(requests).await;
    assert!(matches!(outcomes[0], Outcome::Applied(_)));
    assert!(matches!(&outcomes[1], Outcome::Unknown(unknown) if unknown.request.reference == "1"));
    assert!(matches!(&outcomes[2], Outcome::Denied(denial) if denial.http_status() == 404));
}

#[tokio::test]
async fn a_list_for_a_node_that_is_gone_goes_by_way_of_another() {
    let (a, mut b) = (node(), node());
    a.tell_map(map(&[&a.address, &b.address], 1, None, Some(1)));
    let client = builder(&[&a]).connect().await.expect("connected");
    b.kill();
    let requests: Vec<_> = (0..3).map(|number| numbered("acme", number)).collect();
    assert!(applied_all(&client.debit_batch(requests).await));
    assert_eq!(a.seen().len(), 1);
    assert!(!a.seen()[0].direct);
}

#[tokio::test]
async fn an_empty_list_needs_no_call() {
    let only = node();
    let client = builder(&[&only]).connect().await.expect("connected");
    assert!(client.debit_batch(Vec::new()).await.is_empty());
    assert!(only.seen().is_empty());
}
