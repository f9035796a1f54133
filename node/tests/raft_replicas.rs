//! Stories of a group of three replicas: what is answered stays, whoever leads; what was not, is
//! known not to be known; and a network that loses, repeats and damages changes nothing.

mod raft_support;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures_util::FutureExt;
use purser_node::peer::message::Kind;
use purser_node::raft::{ProposeError, ReadError, ReplicaId};
use raft_support::commands::{create_wallet, create_wallet_padded, is_replay, name, was_replayed};
use raft_support::messages::forged;
use raft_support::nodes::{Choices, Cluster, REPLACED, agree, create_somewhere, node_id};
use raft_support::switchboard::Fate;
use raft_support::{eventually, runtime, within_reason};

/// Longer than any heartbeat, shorter than a message with an entry that is padded with as much.
const PADDING: usize = 300;

fn contains(message: &[u8], text: &str) -> Option<usize> {
    message.windows(text.len()).position(|window| window == text.as_bytes())
}

#[test]
fn the_replica_that_is_to_lead_does_and_the_others_follow_it() {
    runtime().block_on(async {
        let mut cluster = Cluster::start(3).await;
        assert_eq!(cluster.leader().await, 1);
        assert!(!was_replayed(cluster.group(1), "first").await);
        agree(&cluster).await;
        for number in 1..=3 {
            cluster.group(number).ready().await.expect("a leader is known");
            let metrics = cluster.group(number).metrics();
            assert_eq!(metrics.leader, Some(ReplicaId(1)));
            assert_eq!(metrics.voters, [1, 2, 3].map(ReplicaId).into());
        }
        let last = cluster.group(1).metrics().last_index;
        assert_eq!(
            cluster.group(1).metrics().followers.keys().copied().collect::<Vec<_>>(),
            [2, 3].map(ReplicaId)
        );
        eventually("both followers are known to match", || {
            cluster.group(1).metrics().followers.values().all(|matched| *matched == last).then_some(())
        })
        .await;
        assert!(cluster.group(2).metrics().followers.is_empty());
        let answer = cluster.group(2).propose(create_wallet("astray")).await;
        assert_eq!(answer, Err(ProposeError::NotLeader { leader: Some(ReplicaId(1)) }));
        cluster.stop_all().await;
    });
}

#[test]
fn a_replica_starts_without_its_others_and_serves_when_a_majority_is_there() {
    runtime().block_on(async {
        let mut cluster = Cluster::found(3, |_| Choices::default());
        cluster.open(3).await;
        assert_eq!(cluster.group(3).metrics().leader, None);
        let read = cluster.group(3).read_index().await;
        assert_eq!(read, Err(ReadError::NotLeader { leader: None }));
        cluster.open(2).await;
        assert!(!create_somewhere(&cluster, "first").await);
        cluster.open(1).await;
        agree(&cluster).await;
        cluster.stop_all().await;
    });
}

#[test]
fn a_replica_that_is_not_among_the_founders_waits_to_be_added() {
    runtime().block_on(async {
        let mut cluster = Cluster::start(3).await;
        cluster.open(4).await;
        assert!(!was_replayed(cluster.group(1), "first").await);
        let metrics = cluster.group(4).metrics();
        assert_eq!((metrics.voters.len(), metrics.last_index, metrics.leader), (0, None, None));
        let refused = cluster.group(4).propose(create_wallet("astray")).await;
        assert_eq!(refused, Err(ProposeError::NotLeader { leader: None }));
        cluster.stop_all().await;
    });
}

#[test]
fn a_replica_that_is_cut_off_from_the_others_is_not_in_touch_until_they_are_back() {
    runtime().block_on(async {
        let mut cluster = Cluster::start(3).await;
        let leader = cluster.leader().await;
        let numbers = cluster.numbers();
        for number in &numbers {
            eventually("in touch", || cluster.group(*number).is_in_touch().then_some(())).await;
        }
        let others: Vec<u64> = numbers.into_iter().filter(|other| *other != leader).collect();
        for other in &others {
            cluster.stop(*other).await;
        }
        eventually("out of touch", || (!cluster.group(leader).is_in_touch()).then_some(())).await;
        cluster.open(others[0]).await;
        eventually("in touch again", || cluster.group(others[0]).is_in_touch().then_some(())).await;
        eventually("in touch again", || cluster.group(leader).is_in_touch().then_some(())).await;
        cluster.stop_all().await;
    });
}

#[test]
fn a_write_is_answered_when_a_majority_holds_it_and_not_before() {
    runtime().block_on(async {
        let mut cluster = Cluster::start(3).await;
        let leader = cluster.leader().await;
        let followers: Vec<u64> = cluster.numbers().into_iter().filter(|other| *other != leader).collect();
        let heartbeats = Arc::new(AtomicU64::new(0));
        let seen = heartbeats.clone();
        cluster.board.rule(move |from, _, message| {
            if from == node_id(leader) && message.len() > PADDING {
                return Fate::Dropped;
            }
            seen.fetch_add(1, Ordering::Relaxed);
            Fate::Delivered
        });
        let command = create_wallet_padded("wallet", PADDING);
        let mut pending = cluster.group(leader).submit(command).await.expect("handed over");
        let before = heartbeats.load(Ordering::Relaxed);
        eventually("the leader was heard ten times since", || {
            (heartbeats.load(Ordering::Relaxed) > before + 20).then_some(())
        })
        .await;
        assert_eq!((&mut pending).now_or_never(), None, "it is on one disk of three");

        let still_deaf = node_id(followers[1]);
        cluster.board.rule(move |_, to, message| {
            if to == still_deaf && message.len() > PADDING { Fate::Dropped } else { Fate::Delivered }
        });
        let proposed = within_reason("an answer", pending).await.expect("a majority holds it");
        assert!(!is_replay(&proposed.answers));
        cluster.applied(followers[0], proposed.log_index).await;
        assert!(cluster.group(followers[1]).metrics().last_index < Some(proposed.log_index));

        cluster.board.no_rule();
        agree(&cluster).await;
        cluster.stop_all().await;
    });
}

#[test]
fn a_leader_that_is_cut_off_is_replaced_and_what_it_could_not_confirm_is_never_applied_twice() {
    runtime().block_on(async {
        let mut cluster = Cluster::start(3).await;
        let old = cluster.leader().await;
        let others: Vec<u64> = cluster.numbers().into_iter().filter(|other| *other != old).collect();
        assert!(!was_replayed(cluster.group(old), "before").await);

        cluster.isolate(old);
        let unconfirmed = cluster.group(old).submit(create_wallet("unconfirmed")).await.expect("handed over");
        let new = cluster.leader_among(&others).await;
        assert!(!was_replayed(cluster.group(new), "after").await);
        assert!(was_replayed(cluster.group(new), "before").await);

        let read = cluster.group(old).read_index().await;
        assert!(matches!(read, Err(ReadError::NoQuorum(_) | ReadError::NotLeader { .. })), "{read:?}");
        let late = within_reason("a refusal", cluster.group(old).propose(create_wallet("late"))).await;
        assert!(matches!(late, Err(ProposeError::NotLeader { .. })), "{late:?}");

        cluster.board.heal();
        let outcome = within_reason("the old leader hears of it", unconfirmed).await;
        assert!(matches!(outcome, Err(ProposeError::Overtaken { .. })), "{outcome:?}");
        assert!(!create_somewhere(&cluster, "unconfirmed").await, "it was applied before");
        assert!(create_somewhere(&cluster, "unconfirmed").await);
        agree(&cluster).await;
        cluster.stop_all().await;
    });
}

#[test]
fn all_replicas_may_stop_and_come_back_with_everything_that_was_answered() {
    runtime().block_on(async {
        let mut cluster = Cluster::start(3).await;
        for round in 0..3 {
            for number in 0..10 {
                assert!(!create_somewhere(&cluster, &name(10 * round + number)).await);
            }
            cluster.stop_all().await;
            for number in [3, 1, 2] {
                cluster.open(number).await;
            }
            for number in 0..10 * (round + 1) {
                assert!(create_somewhere(&cluster, &name(number)).await, "{number} after round {round}");
            }
        }
        agree(&cluster).await;
        cluster.stop_all().await;
    });
}

#[test]
fn a_follower_that_was_away_catches_up() {
    runtime().block_on(async {
        let mut cluster = Cluster::start(3).await;
        let leader = cluster.leader().await;
        let away = cluster.numbers().into_iter().find(|other| *other != leader).expect("a follower");
        cluster.stop(away).await;
        for number in 0..200 {
            assert!(!was_replayed(cluster.group(leader), &name(number)).await);
        }
        cluster.open(away).await;
        agree(&cluster).await;
        cluster.stop_all().await;
    });
}

#[test]
fn a_follower_catches_up_on_more_than_one_message_takes_and_replays_it_after_a_restart() {
    const ENTRY: usize = 50 * 1024;
    const ENTRIES: usize = 60;
    runtime().block_on(async {
        let mut cluster = Cluster::start(3).await;
        let leader = cluster.leader().await;
        let away = cluster.numbers().into_iter().find(|other| *other != leader).expect("a follower");
        cluster.stop(away).await;
        for number in 0..ENTRIES {
            let command = create_wallet_padded(&name(number), ENTRY);
            let proposed = cluster.group(leader).propose(command).await.expect("answers");
            assert!(!is_replay(&proposed.answers));
        }
        let longest = Arc::new(AtomicU64::new(0));
        let seen = longest.clone();
        cluster.board.rule(move |_, _, message| {
            seen.fetch_max(message.len() as u64, Ordering::Relaxed);
            Fate::Delivered
        });
        cluster.open(away).await;
        agree(&cluster).await;
        let longest = longest.load(Ordering::Relaxed) as usize;
        assert!((2 * ENTRY..1024 * 1024 + ENTRY).contains(&longest), "{longest}");
        cluster.stop(away).await;
        cluster.open(away).await;
        agree(&cluster).await;
        cluster.stop_all().await;
    });
}

#[test]
fn a_replica_that_is_cut_off_and_comes_back_does_not_unseat_the_leader() {
    runtime().block_on(async {
        let mut cluster = Cluster::start(3).await;
        let leader = cluster.leader().await;
        let term = cluster.group(leader).metrics().term;
        let away = cluster.numbers().into_iter().find(|other| *other != leader).expect("a follower");
        let asked = Arc::new(AtomicU64::new(0));
        let counted = asked.clone();
        cluster.board.rule(move |from, to, _| {
            if from == node_id(away) {
                counted.fetch_add(1, Ordering::Relaxed);
            }
            if from == node_id(away) || to == node_id(away) { Fate::Dropped } else { Fate::Delivered }
        });
        eventually("it asked both others for their votes three times", || {
            (asked.load(Ordering::Relaxed) >= 6).then_some(())
        })
        .await;
        assert_eq!(cluster.group(away).metrics().term, term);

        cluster.board.no_rule();
        assert!(!was_replayed(cluster.group(leader), "after").await);
        agree(&cluster).await;
        assert_eq!((cluster.leader().await, cluster.group(leader).metrics().term), (leader, term));
        cluster.stop_all().await;
    });
}

#[test]
fn messages_that_are_lost_repeated_or_damaged_on_the_way_change_nothing() {
    runtime().block_on(async {
        let mut cluster = Cluster::start(3).await;
        let mut dice = 0x9e37_79b9_7f4a_7c15_u64;
        cluster.board.rule(move |_, _, message| {
            // xorshift64: any spread will do.
            dice ^= dice << 13;
            dice ^= dice >> 7;
            dice ^= dice << 17;
            match dice % 20 {
                0 => Fate::Dropped,
                1 => Fate::Repeated,
                2 => {
                    let mut damaged = message.to_vec();
                    let at = 1 + dice as usize / 20 % (damaged.len() - 1);
                    damaged[at] ^= 1 << (dice % 8);
                    Fate::Changed(Bytes::from(damaged))
                }
                _ => Fate::Delivered,
            }
        });
        for number in 0..150 {
            create_somewhere(&cluster, &name(number)).await;
        }
        cluster.board.no_rule();
        agree(&cluster).await;
        for number in 0..150 {
            assert!(create_somewhere(&cluster, &name(number)).await, "{number} was lost");
        }
        for number in cluster.numbers() {
            assert_eq!(cluster.group(number).metrics().stopped, None, "node {number}");
        }
        cluster.stop_all().await;
    });
}

#[test]
fn an_entry_that_arrives_changed_stops_the_replica_that_would_apply_it_and_no_other() {
    runtime().block_on(async {
        let mut cluster = Cluster::start(3).await;
        let leader = cluster.leader().await;
        let victim = cluster.numbers().into_iter().find(|other| *other != leader).expect("a follower");
        cluster.board.rule(move |_, to, message| match contains(message, "wallet-a") {
            Some(at) if to == node_id(victim) => {
                // One byte goes before the body.
                Fate::Changed(forged(message, |body| body[at - 1 + 7] ^= 2))
            }
            _ => Fate::Delivered,
        });
        assert!(!was_replayed(cluster.group(leader), "wallet-a").await);
        let stopped = within_reason("the victim stops", cluster.group(victim).ended()).await;
        assert!(stopped.0.contains("hash"), "{stopped}");
        let refused = cluster.group(victim).receive(Bytes::from_static(b"anything")).await;
        assert!(refused.is_err());
        for number in 0..20 {
            assert!(!was_replayed(cluster.group(leader), &name(number)).await);
        }
        cluster.stop(victim).await;
        agree(&cluster).await;
        cluster.stop_all().await;
    });
}

#[test]
fn a_message_for_another_cluster_group_or_replica_is_refused_and_says_so() {
    runtime().block_on(async {
        let mut cluster = Cluster::start(3).await;
        let leader = cluster.leader().await;
        let to = cluster.numbers().into_iter().find(|other| *other != leader).expect("a follower");
        let caught = Arc::new(Mutex::new(None));
        let keep = caught.clone();
        cluster.board.rule(move |_, receiver, message| {
            if receiver == node_id(to) {
                *keep.lock().unwrap() = Some(message.clone());
            }
            Fate::Delivered
        });
        let message = eventually("a heartbeat", || caught.lock().unwrap().clone()).await;
        let receive = async |change: &dyn Fn(&mut Vec<u8>)| {
            let (_, body) = Kind::parse(&forged(&message, change)).expect("a message");
            cluster.group(to).receive(body).await
        };
        assert!(receive(&|_| ()).await.is_ok());
        // version 1 | cluster 16 | group 4 | from 8 | to 8
        let refused = receive(&|body| body[1] ^= 1).await.expect_err("another cluster");
        assert!(refused.contains("another cluster"), "{refused}");
        let refused = receive(&|body| body[17] ^= 1).await.expect_err("another group");
        assert_eq!(refused, "the message is for group 9, this is group 8");
        let refused = receive(&|body| body[29] ^= 8).await.expect_err("another replica");
        let (other, here) = (to ^ 8, to);
        assert_eq!(refused, format!("the message is for replica {other} of group 8, here is replica {here}"));
        let refused = receive(&|body| body[21] = REPLACED.0 as u8).await.expect_err("one that was replaced");
        assert_eq!(refused, "replica 9 of group 8 was replaced");
        let refused = receive(&|body| body[0] = 9).await.expect_err("another version");
        assert_eq!(refused, "cannot decode a message of another replica");
        cluster.stop_all().await;
    });
}
