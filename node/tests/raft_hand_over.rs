//! Stories of leadership that moves on purpose: a hand-over loses nothing that was answered, comes to
//! an end either way, and a leader whose clock is wrong steps aside.

mod raft_support;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures_util::FutureExt;
use purser_ledger::time::{Span, Time};
use purser_node::clock::Clock;
use purser_node::raft::{Group, GroupConfig, LedgerMachine, ProposeError, ReplicaId};
use raft_support::commands::{
    create_wallet, create_wallet_at, create_wallet_padded, is_replay, name, was_replayed,
};
use raft_support::messages::{Asked, asked};
use raft_support::nodes::{
    Choices, Cluster, SHARD, agree, config, create_padded_somewhere, create_somewhere,
};
use raft_support::switchboard::Fate;
use raft_support::{eventually, runtime, within_reason};

const SECOND: u64 = 1_000_000;

fn others(cluster: &Cluster, leader: u64) -> Vec<u64> {
    cluster.numbers().into_iter().filter(|other| *other != leader).collect()
}

#[test]
fn leadership_goes_to_the_one_that_is_named_and_whoever_is_left_out_follows() {
    runtime().block_on(async {
        let mut cluster = Cluster::start(3).await;
        assert!(!was_replayed(cluster.group(1), "before").await);
        for to in [2, 3, 1] {
            let from = cluster.leader().await;
            let handed_over =
                within_reason("a hand-over", cluster.group(from).hand_over(Some(ReplicaId(to))));
            assert_eq!(handed_over.await, Ok(true));
            assert_eq!(cluster.leader().await, to);
            assert!(was_replayed(cluster.group(to), "before").await);
        }
        // Who does not lead has nothing to hand over.
        assert_eq!(cluster.group(2).hand_over(Some(ReplicaId(2))).await, Ok(true));
        assert_eq!(cluster.leader().await, 1);
        agree(&cluster).await;
        cluster.stop_all().await;
    });
}

#[test]
fn what_is_proposed_during_a_hand_over_is_answered_or_refused_and_never_applied_twice() {
    runtime().block_on(async {
        let mut cluster = Cluster::start(3).await;
        let old = cluster.leader().await;
        let group = cluster.group(old).clone();
        // It may be that nothing of what follows is taken.
        assert!(!was_replayed(&group, "before").await);
        let mut under_way = Vec::new();
        for number in 0..50 {
            under_way.push(group.submit(create_wallet(&name(number))).await.expect("room"));
        }
        let handed_over = tokio::spawn({
            let group = group.clone();
            async move { group.hand_over(None).await }
        });
        let mut answered = Vec::new();
        for (number, pending) in under_way.into_iter().enumerate() {
            match within_reason("an outcome", pending).await {
                Ok(proposed) => {
                    assert!(!is_replay(&proposed.answers));
                    answered.push(number);
                }
                Err(ProposeError::NotLeader { .. } | ProposeError::Overtaken { .. }) => {}
                Err(other) => panic!("{other:?}"),
            }
        }
        assert_eq!(handed_over.await.expect("no panic"), Ok(true));
        assert_ne!(cluster.leader().await, old);
        for number in answered {
            assert!(create_somewhere(&cluster, &name(number)).await, "{number} was answered, and lost");
        }
        agree(&cluster).await;
        cluster.stop_all().await;
    });
}

#[test]
fn a_leader_that_finds_no_successor_leads_on() {
    runtime().block_on(async {
        let mut cluster = Cluster::start(3).await;
        let leader = cluster.leader().await;
        let [dead, alive] = others(&cluster, leader)[..] else { panic!("two others") };
        cluster.stop(dead).await;
        let handed_over = within_reason("an end", cluster.group(leader).hand_over(Some(ReplicaId(dead))));
        assert_eq!(handed_over.await, Ok(false));
        assert_eq!(cluster.group(leader).hand_over(Some(ReplicaId(99))).await, Ok(false));
        assert!(!was_replayed(cluster.group(leader), "after").await);
        // Not named, the one that lives is found.
        assert_eq!(within_reason("an end", cluster.group(leader).hand_over(None)).await, Ok(true));
        assert_eq!(cluster.leader().await, alive);
        cluster.stop_all().await;
    });
}

#[test]
fn a_replica_whose_log_is_full_neither_leads_nor_stops_and_catches_up_when_there_is_room() {
    runtime().block_on(async {
        let mut cluster = Cluster::start(3).await;
        let leader = cluster.leader().await;
        let [full, other] = others(&cluster, leader)[..] else { panic!("two others") };
        cluster.node(full).disks.full.store(true, Ordering::Relaxed);
        let can_lead = |cluster: &Cluster| cluster.node(full).disks.log.has_room(60 * 1024);
        let mut number = 0;
        while can_lead(&cluster) {
            let command = create_wallet_padded(&name(number), 30_000);
            let taken = cluster.group(leader).propose(command).await.expect("three have room");
            cluster.applied(full, taken.log_index).await;
            number += 1;
        }
        // It has every entry, and room for small ones. But whoever leads is asked for more.
        let to_full = cluster.group(leader).hand_over(Some(ReplicaId(full)));
        assert_eq!(within_reason("an end", to_full).await, Ok(false));
        assert_eq!(within_reason("an end", cluster.group(leader).hand_over(None)).await, Ok(true));
        assert_eq!(cluster.leader().await, other);
        // It votes. Whether it takes what the new leader begins with depends on how long all this took.
        cluster.stop(other).await;
        eventually("the one with room leads", || cluster.group(leader).is_leader().then_some(())).await;
        assert!(!can_lead(&cluster));

        // More than it takes: the others are a majority, and it lags until there is room.
        cluster.open(other).await;
        for number in number..number + 10 {
            create_padded_somewhere(&cluster, &name(number), 30_000).await;
        }
        assert!(!can_lead(&cluster));
        cluster.node(full).disks.full.store(false, Ordering::Relaxed);
        agree(&cluster).await;
        eventually("it has room", || can_lead(&cluster).then_some(())).await;
        cluster.stop_all().await;
    });
}

/// A cluster on clocks that can be set; each node's is at hand.
async fn clocked(count: u64) -> (Cluster, Vec<Arc<Clock>>) {
    let start = Clock::System.now();
    let clocks: Vec<Arc<Clock>> = (0..count).map(|_| Arc::new(Clock::test(start))).collect();
    let own = clocks.clone();
    let cluster = Cluster::start_with(count, move |number| Choices {
        clock: own[number as usize - 1].clone(),
        ..Choices::default()
    });
    (cluster.await, clocks)
}

/// Proposes until the leader says that its clock is ahead, and by how much.
async fn clock_refusal(group: &Group, stamp: Time) -> u64 {
    eventually("the leader proposes nothing more", || {
        match group.submit(create_wallet_at("more", stamp)).now_or_never()? {
            Err(ProposeError::ClockAhead { ahead_ms }) => Some(ahead_ms),
            _ => None,
        }
    })
    .await
}

fn advance(clock: &Clock, seconds: u64) -> Time {
    clock.advance(Span(seconds * SECOND)).expect("it is a test clock")
}

#[test]
fn a_leader_whose_clock_most_replicas_refuse_proposes_nothing_more_and_is_replaced() {
    runtime().block_on(async {
        let (mut cluster, clocks) = clocked(3).await;
        let old = cluster.leader().await;
        let now = advance(&clocks[old as usize - 1], 10);
        // Nobody can be told to take over yet.
        cluster.board.rule(|_, _, message| match asked(message) {
            Asked::Transfer => Fate::Dropped,
            _ => Fate::Delivered,
        });
        let command = create_wallet_at("from the future", now);
        let ahead = cluster.group(old).submit(command.clone()).await.expect("handed over");
        let ahead_ms = clock_refusal(cluster.group(old), now).await;
        assert!((9_000..=10_000).contains(&ahead_ms), "{ahead_ms}");
        for other in others(&cluster, old) {
            assert!(cluster.group(other).metrics().last_index < cluster.group(old).metrics().last_index);
        }

        cluster.board.no_rule();
        let new = cluster.leader_among(&others(&cluster, old)).await;
        let outcome = within_reason("the old leader hears of it", ahead).await;
        assert!(matches!(outcome, Err(ProposeError::Overtaken { .. })), "{outcome:?}");
        assert!(!was_replayed(cluster.group(new), "now").await);
        agree(&cluster).await;
        cluster.stop_all().await;
    });
}

#[test]
fn a_replica_whose_clock_is_slow_follows_a_little_behind() {
    runtime().block_on(async {
        let (mut cluster, clocks) = clocked(3).await;
        let leader = cluster.leader().await;
        let slow = others(&cluster, leader)[0];
        for clock in clocks.iter().zip(1..).filter(|(_, number)| *number != slow).map(|(clock, _)| clock) {
            advance(clock, 10);
        }
        let now = clocks[leader as usize - 1].now();
        for number in 0..20 {
            let proposed = cluster.group(leader).propose(create_wallet_at(&name(number), now)).await;
            assert!(!is_replay(&proposed.expect("the others take it").answers));
        }
        agree(&cluster).await;
        assert_eq!(cluster.leader().await, leader);
        cluster.stop_all().await;
    });
}

#[test]
fn a_leader_goes_on_when_its_entries_are_taken_again() {
    runtime().block_on(async {
        let (mut cluster, clocks) = clocked(3).await;
        let leader = cluster.leader().await;
        let now = advance(&clocks[leader as usize - 1], 10);
        cluster.board.rule(|_, _, message| match asked(message) {
            Asked::Transfer => Fate::Dropped,
            _ => Fate::Delivered,
        });
        let ahead = cluster.group(leader).submit(create_wallet_at("early", now)).await.expect("handed over");
        clock_refusal(cluster.group(leader), now).await;
        for other in others(&cluster, leader) {
            advance(&clocks[other as usize - 1], 10);
        }
        let proposed = within_reason("an answer", ahead).await.expect("it is taken");
        assert!(!is_replay(&proposed.answers));
        within_reason("the leader proposes again", async {
            while let Err(error) = cluster.group(leader).propose(create_wallet_at("late", now)).await {
                assert!(
                    matches!(error, ProposeError::ClockAhead { .. } | ProposeError::NotLeader { .. }),
                    "{error:?}"
                );
                tokio::task::yield_now().await;
            }
        })
        .await;
        agree(&cluster).await;
        cluster.stop_all().await;
    });
}

#[test]
fn old_entries_are_taken_whatever_the_bound() {
    runtime().block_on(async {
        let choices = |_| {
            let config = GroupConfig { clock_bound_ms: 0, ..config() };
            Choices { config, clock: Arc::new(Clock::System), machine: Arc::new(LedgerMachine::new(SHARD)) }
        };
        let mut cluster = Cluster::start_with(3, choices).await;
        let leader = cluster.leader().await;
        let away = others(&cluster, leader)[0];
        cluster.stop(away).await;
        for number in 0..20 {
            assert!(!was_replayed(cluster.group(leader), &name(number)).await);
        }
        cluster.open(away).await;
        agree(&cluster).await;
        cluster.stop_all().await;
    });
}
