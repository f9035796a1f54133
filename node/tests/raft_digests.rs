//! Stories of replicas whose states drift apart: it is found, the one that is wrong stops for good,
//! and where nobody can tell who is wrong, nothing more is written.

mod raft_support;

use std::sync::Arc;

use purser_ledger::store::LocalDamage;
use purser_ledger::time::Time;
use purser_node::clock::Clock;
use purser_node::raft::{DigestReport, LedgerMachine, Machine, OpenError, Outcome, ProposeError, ReplicaId};
use purser_node::storage::ShardStore;
use raft_support::commands::{create_wallet, create_wallets, name, was_replayed};
use raft_support::nodes::{Choices, Cluster, SHARD, agree, config, create_somewhere};
use raft_support::{runtime, within_reason};

/// The ledger, but for one row of its own where it was told to go wrong.
struct Drifting {
    ledger: LedgerMachine,
    row: Option<Vec<u8>>,
}

impl Machine for Drifting {
    fn apply(&self, rows: &ShardStore, entry: &[u8]) -> Result<Outcome, LocalDamage> {
        let mut outcome = self.ledger.apply(rows, entry)?;
        if let Some(row) = self.row.as_ref().filter(|_| entry.windows(5).any(|window| window == b"drift")) {
            outcome.changes.put(b"Zrot".to_vec(), row.clone());
        }
        Ok(outcome)
    }

    fn stamp(&self, entry: &[u8]) -> Option<Time> {
        self.ledger.stamp(entry)
    }
}

/// Three replicas, of which these go wrong, each in its own way, at the wallet `drift`; which is
/// created, and enough behind it.
async fn where_these_drift(drifting: &'static [u64]) -> Cluster {
    let choices = move |number| {
        let row = drifting.contains(&number).then(|| vec![number as u8]);
        let machine = Drifting { ledger: LedgerMachine::new(SHARD), row };
        Choices { config: config(), clock: Arc::new(Clock::System), machine: Arc::new(machine) }
    };
    let cluster = Cluster::start_with(3, choices).await;
    write(&cluster, 0).await;
    assert!(!create_somewhere(&cluster, "drift").await);
    write(&cluster, 1).await;
    cluster
}

/// So many entries that there is a checkpoint among them; all have applied them.
async fn write(cluster: &Cluster, round: usize) {
    let leader = cluster.leader().await;
    let mut last = 0;
    for number in 100 * round..100 * round + 70 {
        let proposed = cluster.group(leader).propose(create_wallets(number..number + 1)).await;
        last = proposed.expect("answers").log_index;
    }
    cluster.all_applied(last).await;
}

async fn compared(cluster: &Cluster) -> DigestReport {
    let leader = cluster.leader().await;
    let report = within_reason("a comparison", cluster.group(leader).compare_digests()).await;
    report.expect("it works").expect("there is something to compare")
}

#[test]
fn replicas_that_applied_the_same_have_the_same_digest_whatever_happened_to_them() {
    runtime().block_on(async {
        let mut cluster = Cluster::start(3).await;
        write(&cluster, 0).await;
        // One comes back from its rows and its log, one through a snapshot.
        cluster.group(2).flush(true).await.expect("a flush");
        cluster.stop(2).await;
        cluster.open(2).await;
        cluster.stop(3).await;
        write(&cluster, 1).await;
        let leader = cluster.leader().await;
        cluster.group(leader).flush(true).await.expect("a flush");
        cluster.open(3).await;
        agree(&cluster).await;
        write(&cluster, 2).await;
        agree(&cluster).await;
        let report = compared(&cluster).await;
        assert_eq!((report.digests.len(), report.minority.len()), (3, 0));
        assert_eq!(report.index % 64, 0);
        assert!(report.right.is_some() && !report.is_undecided());
        // Who does not lead has nobody to compare.
        let leader = cluster.leader().await;
        let follower = cluster.numbers().into_iter().find(|other| *other != leader).expect("a follower");
        assert_eq!(cluster.group(follower).compare_digests().await, Ok(None));
        cluster.stop_all().await;
    });
}

#[test]
fn a_replica_that_went_wrong_is_found_and_stops_for_good() {
    runtime().block_on(async {
        let mut cluster = where_these_drift(&[3]).await;
        let report = compared(&cluster).await;
        assert_eq!(report.minority, [ReplicaId(3)].into());
        assert_eq!(report.digests.len(), 3);
        let stopped = within_reason("it stops", cluster.group(3).ended()).await;
        assert!(stopped.0.contains("differs from the majority's"), "{stopped}");
        cluster.stop(3).await;

        let leader = cluster.leader().await;
        assert!(!was_replayed(cluster.group(leader), "after").await);
        let again = cluster.try_open(3).await;
        assert!(matches!(again, Err(OpenError::Quarantined)), "{again:?}");
        write(&cluster, 2).await;
        assert_eq!(compared(&cluster).await.minority, [].into());
        agree(&cluster).await;
        cluster.stop_all().await;
    });
}

#[test]
fn a_leader_that_went_wrong_stops_itself_and_the_others_go_on() {
    runtime().block_on(async {
        let mut cluster = where_these_drift(&[1]).await;
        assert_eq!(cluster.leader().await, 1);
        assert_eq!(compared(&cluster).await.minority, [ReplicaId(1)].into());
        let stopped = within_reason("it stops", cluster.group(1).ended()).await;
        assert!(stopped.0.contains("differs from the majority's"), "{stopped}");
        let refused = cluster.group(1).propose(create_wallet("late")).await;
        assert!(matches!(refused, Err(ProposeError::Stopped(_))), "{refused:?}");
        cluster.stop(1).await;
        assert!(create_somewhere(&cluster, "drift").await);
        agree(&cluster).await;
        cluster.stop_all().await;
    });
}

#[test]
fn where_no_state_has_a_majority_nothing_more_is_proposed() {
    runtime().block_on(async {
        let mut cluster = where_these_drift(&[2, 3]).await;
        let leader = cluster.leader().await;
        let before = cluster.group(leader).metrics().last_index;
        let report = compared(&cluster).await;
        assert!(report.is_undecided() && report.minority.is_empty(), "{report:?}");
        let refused = cluster.group(leader).propose(create_wallet(&name(999))).await;
        assert_eq!(refused, Err(ProposeError::Diverged { index: report.index }));
        assert_eq!(cluster.group(leader).metrics().last_index, before);
        for number in cluster.numbers() {
            assert_eq!(cluster.group(number).metrics().stopped, None, "nobody knows who is wrong");
        }
        cluster.stop_all().await;
    });
}
