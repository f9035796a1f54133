//! Nodes that hold one replica each of one group, and a cluster of them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use purser_node::clock::Clock;
use purser_node::cluster::NodeId;
use purser_node::log::{self, GroupId, LogHandle, LogOptions, LogWriter, RealDisk};
use purser_node::peer::Inbox;
use purser_node::peer::message::Kind;
use purser_node::raft::{
    self, Group, GroupConfig, GroupOptions, LedgerMachine, Machine, Network, OpenError, ReplicaId,
    Whereabouts,
};
use purser_node::storage::{OpenError as StateOpenError, StateStore, StoreOptions};
use tempfile::TempDir;

use super::commands::{create_wallet_padded, is_replay, rows};
use super::disk::FillingDisk;
use super::switchboard::Switchboard;
use super::{eventually, within_reason};

pub const CLUSTER: [u8; 16] = *b"a cluster's name";
/// The one group that all nodes here hold, and its shard.
pub const GROUP: GroupId = GroupId(8);
pub const SHARD: u16 = 7;

/// Node n holds replica n.
pub fn node_id(number: u64) -> NodeId {
    NodeId(uuid::Uuid::from_u128(u128::from(number)))
}

/// A replica that was replaced, as all nodes here know.
pub const REPLACED: ReplicaId = ReplicaId(9);

struct SameNumber;

impl Whereabouts for SameNumber {
    fn node_of(&self, _group: GroupId, replica: ReplicaId) -> Option<NodeId> {
        Some(node_id(replica.0))
    }

    fn is_replaced(&self, _group: GroupId, replica: ReplicaId) -> bool {
        replica == REPLACED
    }
}

/// Hands messages to the one group.
struct Post(Group);

impl Inbox for Post {
    fn receive(&self, _from: NodeId, message: Bytes) -> BoxFuture<'static, Result<Bytes, String>> {
        match Kind::parse(&message) {
            Some((Kind::Raft, body)) if raft::group_of(&body) == Some(self.0.id()) => self.0.receive(body),
            _ => async { Err("it is for nobody here".to_owned()) }.boxed(),
        }
    }
}

/// The way to other nodes, for a node that has a group on a board.
pub fn network(board: &Switchboard, node: u64) -> Network {
    Network::new(CLUSTER, board.transport(node_id(node)), Arc::new(SameNumber))
}

/// Small commands, for a small log.
pub fn config() -> GroupConfig {
    GroupConfig { command_bytes_max: 60 * 1024, ..GroupConfig::default() }
}

/// The disk of a node: its log and its rows.
pub struct Disks {
    pub state: StateStore,
    pub log: LogHandle,
    /// Whether there is no room for another segment of the log.
    pub full: Arc<AtomicBool>,
    writer: LogWriter,
}

impl Disks {
    /// Opens a node's directory. One that the same process has just let go may still be in use for a
    /// moment: that is waited for.
    pub async fn open(directory: &Path, identity: &str) -> Disks {
        let state = eventually("the state directory is free", || {
            match StateStore::open(directory.join("state"), StoreOptions::new(identity.to_owned())) {
                Err(StateOpenError::InUse) => None,
                opened => Some(opened.expect("the state opens")),
            }
        });
        let state = state.await;
        let at = directory.join("log");
        std::fs::create_dir_all(&at).expect("a log directory");
        let disk = RealDisk::open(&at).expect("a disk");
        let mut options = LogOptions::new(identity.to_owned());
        options.segment_bytes = 1024 * 1024;
        options.entry_bytes_max = 64 * 1024;
        options.reserve_bytes = 256 * 1024;
        options.group_bytes_max = 64 * 1024;
        let full = Arc::new(AtomicBool::new(false));
        let disk = FillingDisk { disk, full: full.clone() };
        let (log, driver, recovered) = log::open(Arc::new(disk), options).expect("the log opens");
        assert!(recovered.damaged.is_empty(), "{recovered:?}");
        let writer = LogWriter::spawn(log.clone(), driver).expect("a writer");
        Disks { state, log, full, writer }
    }

    /// Writes what is queued, and lets the directory go.
    pub fn close(self) {
        self.writer.stop();
    }
}

/// What may differ from node to node.
pub struct Choices {
    pub config: GroupConfig,
    pub clock: Arc<Clock>,
    pub machine: Arc<dyn Machine>,
}

impl Default for Choices {
    fn default() -> Choices {
        let machine = Arc::new(LedgerMachine::new(SHARD));
        Choices { config: config(), clock: Arc::new(Clock::System), machine }
    }
}

/// A node that runs.
pub struct Node {
    pub group: Group,
    pub disks: Disks,
}

/// Nodes 1 to n, each with a replica of the one group. Node 1's campaigns at once.
pub struct Cluster {
    pub board: Switchboard,
    directory: TempDir,
    founders: BTreeSet<ReplicaId>,
    choices: Box<dyn Fn(u64) -> Choices>,
    nodes: BTreeMap<u64, Node>,
}

impl Cluster {
    /// Starts a new cluster, and waits until it has a leader.
    pub async fn start(count: u64) -> Cluster {
        Cluster::start_with(count, |_| Choices::default()).await
    }

    pub async fn start_with(count: u64, choices: impl Fn(u64) -> Choices + 'static) -> Cluster {
        let mut cluster = Cluster::found(count, choices);
        for number in 1..=count {
            cluster.open(number).await;
        }
        cluster.leader().await;
        cluster
    }

    /// A cluster of which no node runs yet.
    pub fn found(count: u64, choices: impl Fn(u64) -> Choices + 'static) -> Cluster {
        Cluster {
            board: Switchboard::new(),
            directory: TempDir::new().expect("a directory"),
            founders: (1..=count).map(ReplicaId).collect(),
            choices: Box::new(choices),
            nodes: BTreeMap::new(),
        }
    }

    pub fn directory(&self, number: u64) -> PathBuf {
        self.directory.path().join(format!("node-{number}"))
    }

    /// Starts a node.
    pub async fn open(&mut self, number: u64) {
        self.try_open(number).await.expect("the group opens");
    }

    pub async fn try_open(&mut self, number: u64) -> Result<(), OpenError> {
        let disks = Disks::open(&self.directory(number), &format!("cluster/node-{number}")).await;
        let Choices { config, clock, machine } = (self.choices)(number);
        let options = GroupOptions {
            group: GROUP,
            shard: SHARD,
            founders: self.founders.clone(),
            replica: ReplicaId(number),
            campaign_at_once: number == 1,
            config,
            machine,
            network: network(&self.board, number),
            clock,
        };
        let group = match Group::open(options, disks.log.clone(), &disks.state).await {
            Ok(group) => group,
            Err(error) => {
                disks.close();
                return Err(error);
            }
        };
        self.board.connect(node_id(number), Arc::new(Post(group.clone())));
        self.nodes.insert(number, Node { group, disks });
        Ok(())
    }

    /// Stops a node. Nothing is flushed.
    pub async fn stop(&mut self, number: u64) {
        let Node { group, disks } = self.nodes.remove(&number).expect("it runs");
        self.board.disconnect(node_id(number));
        within_reason("a group ends", group.shutdown()).await.expect("it ends");
        drop(group);
        disks.close();
    }

    pub async fn stop_all(&mut self) {
        for number in self.numbers() {
            self.stop(number).await;
        }
    }

    pub fn numbers(&self) -> Vec<u64> {
        self.nodes.keys().copied().collect()
    }

    pub fn node(&self, number: u64) -> &Node {
        &self.nodes[&number]
    }

    pub fn group(&self, number: u64) -> &Group {
        &self.nodes[&number].group
    }

    /// Cuts a node off from all others, both ways.
    pub fn isolate(&self, number: u64) {
        let others = (1..=self.founders.len() as u64).filter(|other| *other != number);
        self.board.isolate(node_id(number), others.map(node_id));
    }

    /// The node that leads and can show it, as soon as there is one.
    pub async fn leader(&self) -> u64 {
        self.leader_among(&self.numbers()).await
    }

    pub async fn leader_among(&self, numbers: &[u64]) -> u64 {
        within_reason(&format!("a leader among {numbers:?}"), async {
            loop {
                for number in numbers {
                    let group = self.group(*number);
                    if group.is_leader() && group.read_index().await.is_ok() {
                        return *number;
                    }
                }
                tokio::time::sleep(super::LOOK_EVERY).await;
            }
        })
        .await
    }

    /// Waits until a node has applied an entry.
    pub async fn applied(&self, number: u64, index: u64) {
        let group = self.group(number);
        let what = format!("node {number} has applied entry {index}");
        eventually(&what, || group.metrics().applied_index.filter(|applied| *applied >= index)).await;
    }

    /// Waits until all nodes that run have applied an entry.
    pub async fn all_applied(&self, index: u64) {
        for number in self.numbers() {
            self.applied(number, index).await;
        }
    }
}

/// Creates a wallet at whoever leads, again and again until there is an answer.
pub async fn create_somewhere(cluster: &Cluster, wallet: &str) -> bool {
    create_padded_somewhere(cluster, wallet, 0).await
}

/// The same, with so many bytes more.
pub async fn create_padded_somewhere(cluster: &Cluster, wallet: &str, padding: usize) -> bool {
    within_reason("an answer from some leader", async {
        loop {
            let leader = cluster.leader().await;
            let command = create_wallet_padded(wallet, padding);
            if let Ok(proposed) = cluster.group(leader).propose(command).await {
                return is_replay(&proposed.answers);
            }
        }
    })
    .await
}

/// All nodes that run have applied what the leader has, and hold the same rows under the same digest.
pub async fn agree(cluster: &Cluster) {
    let leader = cluster.leader().await;
    let index = cluster.group(leader).read_index().await.expect("it leads");
    cluster.all_applied(index).await;
    let expected = rows(&cluster.group(leader).view());
    assert!(!expected.is_empty());
    for number in cluster.numbers() {
        assert_eq!(rows(&cluster.group(number).view()), expected, "node {number}");
        // It is told a moment after the rows.
        let same = || (cluster.group(number).digests() == cluster.group(leader).digests()).then_some(());
        eventually(&format!("node {number} has the leader's digest"), same).await;
    }
}
