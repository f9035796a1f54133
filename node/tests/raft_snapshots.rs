//! Stories of a replica that lacks what the others have purged: it comes back through a snapshot,
//! whole, or stays as it was. One that lost everything comes back as another one.

mod raft_support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use purser_node::raft::{GroupConfig, Moved, ReplicaId};
use purser_node::storage::Generation;
use raft_support::commands::{create_wallets, rows, was_replayed};
use raft_support::messages::{Asked, asked, forged};
use raft_support::nodes::{Choices, Cluster, GROUP, agree, config, create_somewhere, node_id};
use raft_support::switchboard::Fate;
use raft_support::{eventually, runtime, within_reason};

/// Enough rows for several chunks.
const WALLETS: usize = 3_000;

/// A cluster of which one follower was stopped before the leader wrote much and purged it.
async fn with_one_far_behind(config: GroupConfig) -> (Cluster, u64, u64) {
    let choices = move |_| Choices { config: config.clone(), ..Choices::default() };
    let mut cluster = Cluster::start_with(3, choices).await;
    let leader = cluster.leader().await;
    let away = cluster.numbers().into_iter().find(|other| *other != leader).expect("a follower");
    assert!(!was_replayed(cluster.group(leader), "before").await);
    agree(&cluster).await;
    let last = cluster.group(away).metrics().last_index.expect("entries");
    cluster.stop(away).await;
    for first in (0..WALLETS).step_by(200) {
        let proposed = cluster.group(leader).propose(create_wallets(first..first + 200)).await;
        assert_eq!(proposed.expect("answers").answers.len(), 200);
    }
    cluster.group(leader).flush(true).await.expect("a flush");
    let log = &cluster.node(leader).disks.log;
    eventually("the leader's log begins behind what the follower has", || {
        (log.extent(GROUP).expect("healthy").first_index > last + 1).then_some(())
    })
    .await;
    (cluster, leader, away)
}

#[test]
fn a_follower_that_lacks_what_was_purged_comes_back_through_a_snapshot() {
    runtime().block_on(async {
        let (mut cluster, leader, away) = with_one_far_behind(config()).await;
        let chunks = Arc::new(AtomicU64::new(0));
        let seen = chunks.clone();
        cluster.board.rule(move |_, _, message| {
            seen.fetch_add(u64::from(asked(message) == Asked::Chunk), Ordering::Relaxed);
            Fate::Delivered
        });
        cluster.open(away).await;
        agree(&cluster).await;
        assert!(chunks.load(Ordering::Relaxed) > 1);
        assert_eq!(cluster.group(away).store().generation(), Generation(2));

        assert!(!was_replayed(cluster.group(leader), "after").await);
        agree(&cluster).await;
        cluster.stop(away).await;
        cluster.open(away).await;
        agree(&cluster).await;
        assert_eq!(cluster.group(away).store().generation(), Generation(2));
        cluster.stop_all().await;
    });
}

#[test]
fn a_lost_replica_is_replaced_step_by_step_whoever_leads_and_the_new_one_counts() {
    runtime().block_on(async {
        let (mut cluster, leader, lost) = with_one_far_behind(config()).await;
        let other = (1..=3).find(|other| ![leader, lost].contains(other)).expect("a third one");
        cluster.open(4).await;
        let meant = [leader, other, 4].map(ReplicaId).into();
        let mut steps = Vec::new();
        within_reason("the members change", async {
            loop {
                let leader = cluster.leader().await;
                match cluster.group(leader).move_to(&meant).await.expect("it works") {
                    Moved::Done => return,
                    Moved::OnTheWay(step) => steps.push(step),
                }
                // Whoever leads next goes on.
                cluster.group(leader).hand_over(None).await.expect("it works");
            }
        })
        .await;
        assert!(steps.iter().any(|step| step == "a step was done"), "{steps:?}");
        agree(&cluster).await;
        for number in cluster.numbers() {
            assert_eq!(cluster.group(number).metrics().voters, meant, "replica {number}");
        }
        // With one of the old ones gone it makes the majority.
        cluster.stop(other).await;
        assert!(!create_somewhere(&cluster, "after").await);
        agree(&cluster).await;
        cluster.stop_all().await;
    });
}

#[test]
fn parts_of_a_snapshot_that_arrive_twice_are_taken_once() {
    runtime().block_on(async {
        let (mut cluster, _, away) = with_one_far_behind(config()).await;
        cluster.board.rule(|_, _, message| match asked(message) {
            Asked::Begin | Asked::Chunk | Asked::End => Fate::Repeated,
            _ => Fate::Delivered,
        });
        cluster.open(away).await;
        agree(&cluster).await;
        assert_eq!(cluster.group(away).store().generation(), Generation(2));
        cluster.stop_all().await;
    });
}

#[test]
fn a_snapshot_that_a_new_leader_cuts_short_leaves_the_rows_as_they_were() {
    runtime().block_on(async {
        // A second or more between two chunks.
        let slow = GroupConfig { snapshot_bytes_per_s_max: 200 * 1024, ..config() };
        let (mut cluster, leader, away) = with_one_far_behind(slow).await;
        let chunks = Arc::new(AtomicU64::new(0));
        let seen = chunks.clone();
        cluster.board.rule(move |_, _, message| {
            seen.fetch_add(u64::from(asked(message) == Asked::Chunk), Ordering::Relaxed);
            Fate::Delivered
        });
        cluster.open(away).await;
        eventually("the first chunk was sent", || (chunks.load(Ordering::Relaxed) > 0).then_some(())).await;
        // The new leader has not purged anything.
        assert_eq!(cluster.group(leader).hand_over(None).await, Ok(true));
        agree(&cluster).await;
        assert_eq!(cluster.group(away).store().generation(), Generation::FIRST);
        cluster.stop(away).await;
        cluster.open(away).await;
        agree(&cluster).await;
        cluster.stop_all().await;
    });
}

/// While the second chunk is changed on its way, under a checksum that is right, nothing is
/// installed, and the replica keeps what it had; afterwards it comes back.
fn installs_nothing_while(change: fn(&mut Vec<u8>), refused: Asked) {
    runtime().block_on(async {
        let (mut cluster, _, away) = with_one_far_behind(config()).await;
        let (changing, refusals) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicU64::new(0)));
        let (change_now, count) = (changing.clone(), refusals.clone());
        cluster.board.rule(move |_, to, message| {
            let what = asked(message);
            if to != node_id(away) || !change_now.load(Ordering::Relaxed) {
                return Fate::Delivered;
            }
            // Kind 1, envelope 37, rpc 1, session 8, number 4.
            let second = what == Asked::Chunk && message[47..51] == 1_u32.to_le_bytes();
            // A try that was refused is followed by another one.
            count.fetch_add(
                u64::from(if refused == Asked::End { what == refused } else { second }),
                Ordering::Relaxed,
            );
            if second { Fate::Changed(forged(message, change)) } else { Fate::Delivered }
        });
        cluster.open(away).await;
        let before = rows(&cluster.group(away).view());
        eventually("the snapshot was refused twice, and sent once more", || {
            (refusals.load(Ordering::Relaxed) > 2).then_some(())
        })
        .await;
        assert_eq!(cluster.group(away).store().generation(), Generation::FIRST);
        assert_eq!(rows(&cluster.group(away).view()), before);

        changing.store(false, Ordering::Relaxed);
        agree(&cluster).await;
        assert_eq!(cluster.group(away).store().generation(), Generation(2));
        cluster.stop_all().await;
    });
}

#[test]
fn a_snapshot_with_a_changed_row_is_not_installed() {
    installs_nothing_while(|body| *body.last_mut().expect("a row") ^= 1, Asked::End);
}

#[test]
fn a_snapshot_that_lacks_a_chunk_is_not_installed() {
    // Session 38..46, number 46..50 of the body: the third comes where the second is due.
    installs_nothing_while(|body| body[46] = 2, Asked::Chunk);
}

#[test]
fn a_snapshot_that_lacks_its_last_rows_is_not_installed() {
    // The second chunk is cut to nothing: the end does not add up.
    installs_nothing_while(|body| body.truncate(50), Asked::End);
}
