//! Stories of a group that has one replica: it leads at once, answers, survives being killed, and
//! keeps its troubles to itself.

mod raft_support;

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Lines};
use std::path::Path;
use std::process::{Child, ChildStdout, Command as Process, Stdio};
use std::sync::Arc;

use bytes::Bytes;
use purser_ledger::store::{LocalDamage, Store};
use purser_ledger::time::Time;
use purser_node::clock::Clock;
use purser_node::log::GroupId;
use purser_node::raft::{
    Group, GroupOptions, LedgerMachine, Machine, OpenError, Outcome, ProposeError, ReplicaId,
    flush_what_the_log_needs,
};
use purser_node::storage::{self, ShardStore, StateStore, StoreOptions};
use raft_support::commands::{create_wallet, name, was_replayed};
use raft_support::nodes::{Disks, config, network};
use raft_support::runtime;
use raft_support::switchboard::Switchboard;
use tempfile::TempDir;

const NODE: &str = "cluster-1/node-1";
/// Set in a child process: the directory that it works in.
const CHILD_DIRECTORY: &str = "PURSER_TEST_CHILD_DIRECTORY";

/// A node without anything above its groups, and without others.
struct Node {
    disks: Disks,
}

/// What a group of one is made of.
fn options(shard: u16, machine: impl Machine) -> GroupOptions {
    let replica = ReplicaId(u64::from(shard));
    GroupOptions {
        group: GroupId(u32::from(shard)),
        shard,
        founders: BTreeSet::from([replica]),
        replica,
        campaign_at_once: false,
        config: config(),
        machine: Arc::new(machine),
        network: network(&Switchboard::new(), 1),
        clock: Arc::new(Clock::System),
    }
}

impl Node {
    async fn start(directory: &Path) -> Node {
        Node { disks: Disks::open(directory, NODE).await }
    }

    async fn open(&self, shard: u16, machine: impl Machine) -> Result<Group, OpenError> {
        self.open_with(options(shard, machine)).await
    }

    async fn open_with(&self, options: GroupOptions) -> Result<Group, OpenError> {
        Group::open(options, self.disks.log.clone(), &self.disks.state).await
    }

    async fn ledger(&self, shard: u16) -> Group {
        let group = self.open(shard, LedgerMachine::new(shard)).await.expect("the group opens");
        group.ready().await.expect("the group leads");
        group
    }

    async fn stop(self, group: Group) {
        group.shutdown().await.expect("the group ends");
        drop(group);
        self.disks.close();
    }
}

#[test]
fn a_proposal_is_answered_and_its_rows_are_in_the_next_view() {
    let directory = TempDir::new().expect("a directory");
    runtime().block_on(async {
        let node = Node::start(directory.path()).await;
        let group = node.ledger(1).await;

        assert!(!was_replayed(&group, "first").await);
        assert!(was_replayed(&group, "first").await);

        let read_index = group.read_index().await.expect("it leads");
        let mut wallets = 0;
        let count = &mut |_: &[u8], _: &[u8]| {
            wallets += 1;
            true
        };
        group.view().scan(b"W", b"X", count).expect("readable");
        assert_eq!(wallets, 1);
        assert_eq!(group.metrics().applied_index, Some(read_index));
        assert!(group.is_leader());
        node.stop(group).await;
    });
}

#[test]
fn proposals_under_way_at_once_are_applied_in_the_order_of_submission() {
    let directory = TempDir::new().expect("a directory");
    runtime().block_on(async {
        let node = Node::start(directory.path()).await;
        let group = node.ledger(1).await;
        let mut under_way = Vec::new();
        for number in 0..100 {
            under_way.push(group.submit(create_wallet(&name(number))).await.expect("room"));
        }
        let mut indices = Vec::new();
        for pending in under_way {
            indices.push(pending.await.expect("answers").log_index);
        }
        assert!(indices.is_sorted_by(|earlier, later| earlier < later), "{indices:?}");
        node.stop(group).await;
    });
}

#[test]
fn a_clean_stop_without_a_flush_loses_nothing() {
    let directory = TempDir::new().expect("a directory");
    for start in 0..3 {
        runtime().block_on(async {
            let node = Node::start(directory.path()).await;
            let group = node.ledger(1).await;
            for number in 0..start {
                assert!(was_replayed(&group, &name(number)).await, "{number} after start {start}");
            }
            assert!(!was_replayed(&group, &name(start)).await);
            node.stop(group).await;
        });
    }
}

#[test]
fn after_a_flush_the_log_is_purged_and_the_group_comes_back_without_it() {
    let directory = TempDir::new().expect("a directory");
    runtime().block_on(async {
        let node = Node::start(directory.path()).await;
        let group = node.ledger(1).await;
        for number in 0..20 {
            assert!(!was_replayed(&group, &name(number)).await);
        }
        let applied = group.metrics().applied_index;
        assert_eq!(group.flush(true).await.expect("a flush"), applied);
        // Purges are queued behind: one more entry, and the log says where it begins.
        assert!(!was_replayed(&group, &name(20)).await);
        let extent = node.disks.log.extent(GroupId(1)).expect("healthy");
        assert_eq!(Some(extent.first_index), applied.map(|applied| applied + 1));
        assert_eq!(group.store().stats().flushes, 1);
        node.stop(group).await;
    });
    runtime().block_on(async {
        let node = Node::start(directory.path()).await;
        let group = node.ledger(1).await;
        for number in 0..=20 {
            assert!(was_replayed(&group, &name(number)).await, "{number}");
        }
        node.stop(group).await;
    });
}

#[test]
fn a_group_that_the_same_process_opens_again_counts_only_what_is_on_disk_as_flushed() {
    let directory = TempDir::new().expect("a directory");
    runtime().block_on(async {
        let node = Node::start(directory.path()).await;
        let group = node.ledger(1).await;
        assert!(!was_replayed(&group, "first").await);
        let applied = group.metrics().applied_index;
        assert_eq!((group.metrics().flushed_index, group.store().stats().flushes), (None, 0));
        group.shutdown().await.expect("the group ends");
        drop(group);

        let group = node.ledger(1).await;
        assert_eq!((group.metrics().flushed_index, group.store().stats().flushes), (applied, 1));
        assert!(was_replayed(&group, "first").await);
        node.stop(group).await;
    });
}

#[test]
fn the_log_says_which_group_holds_too_much_and_a_flush_mends_it() {
    let directory = TempDir::new().expect("a directory");
    runtime().block_on(async {
        let node = Node::start(directory.path()).await;
        let mut options = options(1, LedgerMachine::new(1));
        options.config.entries_kept_max = 0;
        let group = node.open_with(options).await.expect("the group opens");
        group.ready().await.expect("it leads");
        let mut number = 0;
        while node.disks.log.groups_to_flush().is_empty() {
            was_replayed(&group, &name(number)).await;
            number += 1;
        }
        let flushed =
            flush_what_the_log_needs(&node.disks.log, |id| (id == group.id()).then(|| group.clone())).await;
        assert_eq!(flushed, 1);
        was_replayed(&group, &name(number)).await;
        assert!(node.disks.log.groups_to_flush().is_empty());
        node.stop(group).await;
    });
}

#[test]
fn a_command_that_is_too_long_for_the_log_is_refused_and_the_group_goes_on() {
    let directory = TempDir::new().expect("a directory");
    runtime().block_on(async {
        let node = Node::start(directory.path()).await;
        let group = node.ledger(1).await;
        let answer = group.propose(Bytes::from(vec![0; 63 * 1024])).await;
        assert!(matches!(answer, Err(ProposeError::TooLarge { .. })), "{answer:?}");
        assert!(!was_replayed(&group, "next").await);
        node.stop(group).await;
    });
}

/// Runs in a child process only: proposes and says what was acknowledged, until it is killed.
#[test]
#[ignore = "a part of the tests that kill it"]
fn child_that_proposes_until_it_is_killed() {
    let Ok(directory) = std::env::var(CHILD_DIRECTORY) else { return };
    runtime().block_on(async {
        let node = Node::start(Path::new(&directory)).await;
        let group = node.ledger(1).await;
        for number in 0.. {
            was_replayed(&group, &name(number)).await;
            if number % 100 == 50 {
                group.flush(true).await.expect("a flush");
            }
            println!("acknowledged {number}");
        }
    });
}

fn child(directory: &Path) -> Child {
    Process::new(std::env::current_exe().expect("this program"))
        .args(["--exact", "child_that_proposes_until_it_is_killed", "--ignored", "--nocapture"])
        .env(CHILD_DIRECTORY, directory)
        .stdout(Stdio::piped())
        .spawn()
        .expect("a child")
}

/// A number that the child acknowledged, the first one that is high enough. Its output is kept open:
/// a child that cannot write would end by itself before it is killed.
fn acknowledged(child: &mut Child, at_least: usize) -> (usize, Lines<BufReader<ChildStdout>>) {
    let mut output = BufReader::new(child.stdout.take().expect("its output")).lines();
    let number = |line: &str| line.strip_prefix("acknowledged ").and_then(|number| number.parse().ok());
    let reached = output
        .by_ref()
        .map_while(Result::ok)
        .filter_map(|line| number(&line))
        .find(|number: &usize| *number >= at_least);
    (reached.expect("the child got that far"), output)
}

#[test]
fn a_killed_process_comes_back_with_every_entry_that_it_acknowledged() {
    let directory = TempDir::new().expect("a directory");
    for at_least in [20, 137, 260] {
        let mut child = child(directory.path());
        let (reached, _output) = acknowledged(&mut child, at_least);
        child.kill().expect("killed");
        child.wait().expect("gone");
        runtime().block_on(async {
            let node = Node::start(directory.path()).await;
            let group = node.ledger(1).await;
            for number in 0..=reached {
                assert!(was_replayed(&group, &name(number)).await, "{number} of {reached} was lost");
            }
            node.stop(group).await;
        });
    }
}

#[test]
fn a_second_process_is_refused_while_the_first_one_works() {
    let directory = TempDir::new().expect("a directory");
    let mut child = child(directory.path());
    let (_, _output) = acknowledged(&mut child, 1);
    let refused = StateStore::open(directory.path().join("state"), StoreOptions::new(NODE));
    assert!(matches!(refused, Err(storage::OpenError::InUse)), "{refused:?}");
    child.kill().expect("killed");
    child.wait().expect("gone");
    StateStore::open(directory.path().join("state"), StoreOptions::new(NODE)).expect("it is free now");
}

#[test]
fn the_directory_of_another_node_is_refused_and_left_as_it_was() {
    let directory = TempDir::new().expect("a directory");
    drop(StateStore::open(directory.path(), StoreOptions::new(NODE)).expect("a new store"));
    let names = || {
        let entries = std::fs::read_dir(directory.path().join("rocksdb")).expect("a directory");
        let mut names: Vec<_> = entries.map(|entry| entry.expect("an entry").file_name()).collect();
        names.sort();
        names
    };
    let before = names();
    let refused = StateStore::open(directory.path(), StoreOptions::new("cluster-2/node-1"));
    assert!(matches!(refused, Err(storage::OpenError::OtherIdentity { .. })), "{refused:?}");
    assert_eq!(names(), before);
}

#[test]
fn a_directory_with_other_files_is_not_taken_for_a_new_one() {
    let directory = TempDir::new().expect("a directory");
    std::fs::write(directory.path().join("holiday.jpg"), b"...").expect("a file");
    let refused = StateStore::open(directory.path(), StoreOptions::new(NODE));
    assert!(matches!(refused, Err(storage::OpenError::NotAStore(_))), "{refused:?}");
    assert_eq!(std::fs::read_dir(directory.path()).expect("a directory").count(), 1);
}

#[test]
fn rows_that_lack_what_the_log_has_purged_are_not_served() {
    let directory = TempDir::new().expect("a directory");
    runtime().block_on(async {
        let node = Node::start(directory.path()).await;
        let group = node.ledger(1).await;
        assert!(!was_replayed(&group, "one").await);
        group.flush(true).await.expect("a flush");
        assert!(!was_replayed(&group, "two").await);
        node.stop(group).await;
    });
    std::fs::remove_dir_all(directory.path().join("state")).expect("removed");
    runtime().block_on(async {
        let node = Node::start(directory.path()).await;
        let opened = node.open(1, LedgerMachine::new(1)).await;
        assert!(matches!(opened, Err(OpenError::Gap { applied: None, .. })), "{opened:?}");
    });
}

/// Panics when it is told to.
struct Fragile;

impl Machine for Fragile {
    fn apply(&self, rows: &ShardStore, entry: &[u8]) -> Result<Outcome, LocalDamage> {
        assert!(entry != b"panic", "told to");
        LedgerMachine::new(1).apply(rows, entry)
    }

    fn stamp(&self, entry: &[u8]) -> Option<Time> {
        LedgerMachine::new(1).stamp(entry)
    }
}

#[test]
fn a_panic_while_applying_stops_that_group_and_no_other() {
    let directory = TempDir::new().expect("a directory");
    runtime().block_on(async {
        let node = Node::start(directory.path()).await;
        let fragile = node.open(1, Fragile).await.expect("the group opens");
        fragile.ready().await.expect("it leads");
        let sound = node.ledger(2).await;

        let answer = fragile.propose(Bytes::from_static(b"panic")).await;
        assert!(matches!(answer, Err(ProposeError::Stopped(_))), "{answer:?}");
        let stopped = fragile.ended().await;
        assert!(stopped.0.contains("told to"), "{stopped}");
        assert!(fragile.metrics().stopped.is_some());
        let again = fragile.propose(create_wallet("late")).await;
        assert!(matches!(again, Err(ProposeError::Stopped(_))), "{again:?}");

        assert!(!was_replayed(&sound, "alive").await);
        node.stop(sound).await;
    });
}

/// Proposes an entry that cannot be trusted: the group stops, and nothing of it is in the rows.
fn stops_the_group(entry: Bytes) {
    let directory = TempDir::new().expect("a directory");
    runtime().block_on(async {
        let node = Node::start(directory.path()).await;
        let group = node.ledger(1).await;
        assert!(!was_replayed(&group, "before").await);
        let applied = group.view().applied().expect("readable");
        let answer = group.propose(entry).await;
        assert!(matches!(answer, Err(ProposeError::Stopped(_))), "{answer:?}");
        group.ended().await;
        assert_eq!(group.view().applied().expect("readable"), applied);
    });
}

#[test]
fn an_entry_that_does_not_decode_stops_the_group_before_anything_of_it_is_written() {
    stops_the_group(Bytes::from_static(b"nonsense"));
}

#[test]
fn an_entry_of_which_one_bit_changed_on_the_way_stops_the_group_before_anything_of_it_is_written() {
    let mut entry = create_wallet("wallet-a").to_vec();
    // Its name is text either way: nothing but the checksum can tell.
    let at = entry.windows(8).position(|window| window == b"wallet-a").expect("its name") + 7;
    entry[at] ^= 2;
    stops_the_group(Bytes::from(entry));
}
