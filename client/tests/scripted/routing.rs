//! Whom the client asks.

use std::time::Duration;

use purser_client::{ConnectError, Outcome, PurserClient};

use crate::support::{Gate, builder, debit, map, node, not_leader, until};

#[tokio::test]
async fn a_call_goes_straight_to_the_leader_of_its_customers_shard() {
    let (a, b) = (node(), node());
    a.tell_map(map(&[&a.address, &b.address], 1, Some(0), Some(1)));
    let client = builder(&[&a]).connect().await.expect("connected");
    assert!(matches!(client.debit(debit("acme")).await, Outcome::Applied(_)));
    assert!(matches!(client.debit(debit("globex")).await, Outcome::Applied(_)));
    assert_eq!(b.seen()[0].customers(), ["acme"], "shard 12 of 16 is led by b");
    assert_eq!(a.seen()[0].customers(), ["globex"], "shard 10 of 16 is led by a");
    assert!(a.seen().iter().chain(&b.seen()).all(|seen| seen.direct));
}

#[tokio::test]
async fn without_a_shard_map_any_node_is_asked_to_hand_the_call_on() {
    let only = node();
    let client = builder(&[&only]).connect().await.expect("a node without a map is a node");
    assert!(matches!(client.debit(debit("acme")).await, Outcome::Applied(_)));
    assert_eq!(only.seen().len(), 1);
    assert!(!only.seen()[0].direct);
}

#[tokio::test]
async fn a_hint_is_followed_at_once_and_remembered() {
    let (a, b) = (node(), node());
    a.tell_map(map(&[&a.address, &b.address], 1, None, Some(0)));
    a.refuse(not_leader(Some(&b.address), 2, 1));
    // No retry is allowed: following a hint is none.
    let budget = purser_client::RetryBudget { percent: 0, per_second: 0 };
    let client = builder(&[&a]).retry_budget(budget).connect().await.expect("connected");
    for _ in 0..2 {
        assert!(matches!(client.debit(debit("acme")).await, Outcome::Applied(_)));
    }
    assert_eq!((a.seen().len(), b.seen().len()), (1, 2), "the second call goes to b at first");
    assert!(b.seen().iter().all(|seen| seen.direct));
    assert_eq!(a.debits()[0], b.debits()[0], "it is the same request, with the same key");
}

#[tokio::test]
async fn two_nodes_that_name_each_other_do_not_keep_a_call_in_a_circle() {
    let (a, b) = (node(), node());
    a.tell_map(map(&[&a.address, &b.address], 1, None, Some(0)));
    a.refuse(not_leader(Some(&b.address), 2, 1));
    b.refuse(not_leader(Some(&a.address), 2, 1));
    let budget = purser_client::RetryBudget { percent: 0, per_second: 0 };
    let client = builder(&[&a]).retry_budget(budget).connect().await.expect("connected");
    assert!(matches!(client.debit(debit("acme")).await, Outcome::Unknown(_)));
    assert_eq!(a.seen().len() + b.seen().len(), 4, "the first attempt, and three hints followed");
}

#[tokio::test]
async fn a_hint_of_a_newer_epoch_has_the_map_fetched() {
    let (a, b) = (node(), node());
    a.tell_map(map(&[&a.address, &b.address], 1, None, Some(0)));
    a.refuse(not_leader(Some(&b.address), 2, 5));
    let client = builder(&[&a]).connect().await.expect("connected");
    assert_eq!(a.maps_asked(), 1);
    // The new map says that b leads globex's shard too.
    let mut newer = map(&[&a.address, &b.address], 5, Some(1), Some(1));
    newer.shards.iter_mut().for_each(|shard| shard.term = 2);
    a.tell_map(newer.clone());
    b.tell_map(newer);
    assert!(matches!(client.debit(debit("acme")).await, Outcome::Applied(_)));
    until(|| a.maps_asked() + b.maps_asked() == 2).await;
    // It is taken a moment after it was asked for: then globex's debits go straight to b.
    let straight = || b.seen().iter().any(|seen| seen.direct && seen.customers() == ["globex"]);
    let debiting = async {
        while !straight() {
            assert!(matches!(client.debit(debit("globex")).await, Outcome::Applied(_)));
        }
    };
    tokio::time::timeout(Duration::from_secs(60), debiting).await.expect("the new map is used");
}

#[tokio::test]
async fn however_many_calls_want_the_map_it_is_fetched_once() {
    let a = node();
    // Nobody is known to lead acme's shard: each call wants a better map.
    let blind = map(&[&a.address], 1, None, None);
    a.tell_map(blind.clone());
    let client = builder(&[&a]).connect().await.expect("connected");
    let gate = Gate::default();
    let waits = gate.clone();
    a.on_map(move || {
        let (gate, map) = (waits.clone(), blind.clone());
        async move {
            gate.pass().await;
            Ok(map)
        }
    });
    for _ in 0..50 {
        assert!(matches!(client.debit(debit("acme")).await, Outcome::Applied(_)));
    }
    until(|| gate.came() == 1).await;
    for _ in 0..50 {
        assert!(matches!(client.debit(debit("acme")).await, Outcome::Applied(_)));
    }
    assert_eq!(gate.came(), 1, "one fetch is under way, and no call waits for it");
    assert!(a.seen().iter().all(|seen| !seen.direct), "meanwhile any node hands the call on");
    gate.open();
}

#[tokio::test]
async fn a_leader_that_cannot_be_reached_is_passed_over_by_way_of_another_node() {
    let (a, mut b) = (node(), node());
    a.tell_map(map(&[&a.address, &b.address], 1, None, Some(1)));
    let budget = purser_client::RetryBudget { percent: 0, per_second: 0 };
    let client = builder(&[&a]).retry_budget(budget).connect().await.expect("connected");
    b.kill();
    assert!(matches!(client.debit(debit("acme")).await, Outcome::Applied(_)));
    assert!(!a.seen()[0].direct, "a is asked to hand it on");
}

#[tokio::test]
async fn a_seed_that_is_down_does_not_keep_a_client_from_connecting() {
    let (mut down, up) = (node(), node());
    down.kill();
    let seeds = [&down, &up];
    // Whichever comes first.
    for seed in 0..4 {
        let client = builder(&seeds).seed(seed).connect().await.expect("connected");
        assert!(matches!(client.debit(debit("acme")).await, Outcome::Applied(_)));
    }
    assert_eq!(up.seen().len(), 4);
}

#[tokio::test]
async fn a_client_says_why_it_cannot_connect() {
    let mut down = node();
    down.kill();
    let error = builder(&[&down]).deadline(Duration::from_secs(10)).connect().await.err().expect("an error");
    assert!(matches!(&error, ConnectError::Unreachable(why) if why.contains("refused")), "{error}");
    let none: [&str; 0] = [];
    assert_eq!(PurserClient::connect(none).await.err(), Some(ConnectError::NoSeeds));
    let tls = PurserClient::connect(["https://ledger.example:7480"]).await.err();
    assert!(matches!(tls, Some(ConnectError::Tls(_))));
}

#[tokio::test]
async fn the_namespace_of_the_client_goes_into_requests_that_name_none() {
    let only = node();
    let client = builder(&[&only]).namespace("staging").connect().await.expect("connected");
    let named = purser_client::v1::DebitRequest { namespace: "own".to_owned(), ..debit("acme") };
    for request in [debit("acme"), named] {
        assert!(matches!(client.debit(request).await, Outcome::Applied(_)));
    }
    assert!(matches!(client.with_namespace("other").debit(debit("acme")).await, Outcome::Applied(_)));
    let namespaces: Vec<String> = only.debits().into_iter().map(|debit| debit.namespace).collect();
    assert_eq!(namespaces, ["staging", "own", "other"]);
}
