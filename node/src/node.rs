//! One node, put together from its parts: groups, shards, API, and the chores beside them. And taken
//! apart again, in the order that loses nothing. The same in production and in simulation: the parts
//! differ (disk, state, clock, network), this does not.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, join_all};
use tokio::sync::Semaphore;

use crate::api::Api;
use crate::clock::Clock;
use crate::cluster::meta::{MetaCommand, MetaMachine};
use crate::cluster::{self, Cluster, META, NodeId, NodePlace};
use crate::log::{GroupId, LogHandle, Recovered};
use crate::peer::message::Kind;
use crate::peer::{Inbox, Transport};
use crate::raft::{self, Group, GroupConfig, GroupOptions, LedgerMachine, Machine, Network, ReplicaId};
use crate::room::Room;
use crate::shard::{Shard, ShardId, Sweeping};
use crate::storage::StateStore;

/// How often the log is asked which groups it wants flushed.
const FLUSH_LOOK_EVERY: Duration = Duration::from_secs(1);
/// How often the leaders compare the states of their replicas.
const COMPARE_EVERY: Duration = Duration::from_secs(10);
/// Calls of other nodes that are worked on at once: fewer than a peer's stream has room for, so that
/// they never keep the groups' messages waiting.
const CALLS_MAX: usize = 2_048;
/// How long a node that goes away gives one shard to bring its rows to disk.
const FLUSH_AT_CLOSE_MAX: Duration = Duration::from_secs(10);

/// What a node is made of.
pub struct Parts {
    /// What it knows of its cluster.
    pub cluster: Arc<Cluster>,
    /// Where others find it, and its version.
    pub place: NodePlace,
    /// Its log, and what was found in it.
    pub log: LogHandle,
    /// See `log`.
    pub recovered: Recovered,
    /// Its rows.
    pub state: StateStore,
    /// The way to other nodes.
    pub peers: Arc<dyn Transport>,
    /// Its clock.
    pub clock: Arc<Clock>,
    /// Whether its disk has room.
    pub room: Arc<Room>,
    /// Times and limits of its groups.
    pub groups: GroupConfig,
    /// What applies the commands of a shard.
    pub ledger: Ledgers,
}

/// Makes what applies the commands of a shard.
pub type Ledgers = Box<dyn Fn(ShardId) -> Arc<dyn Machine> + Send>;

/// The ledger, as it is.
pub fn ledger(shard: ShardId) -> Arc<dyn Machine> {
    Arc::new(LedgerMachine::new(shard.0))
}

/// A node that serves its shards.
pub struct Node {
    /// Its API.
    pub api: Api,
    cluster: Arc<Cluster>,
    shards: Arc<BTreeMap<ShardId, Shard>>,
    chores: Vec<tokio::task::JoinHandle<()>>,
}

impl Node {
    /// Opens every replica that this node has. Leaders are found while it is already there; see
    /// [`Node::ready`].
    pub async fn start(parts: Parts) -> anyhow::Result<Node> {
        let Parts { cluster, place, log, recovered, state, peers, clock, room, groups: config, ledger } =
            parts;
        refuse_lost_groups(&cluster, &recovered, &state)?;
        let network = Network::new(*cluster.founding().cluster_id.as_bytes(), peers.clone(), cluster.clone());
        let mut groups = BTreeMap::new();
        for (id, replica) in replicas_here(&cluster) {
            let options = options_of(&cluster, id, replica, &config, &network, &clock, &ledger);
            match Group::open(options, log.clone(), &state).await {
                Ok(group) => drop(groups.insert(id, group)),
                // The others have it too: they serve it, and this node serves the rest.
                Err(error) if cluster.founding().replicas > 1 => {
                    let why = error.to_string();
                    tracing::error!(group = id.0, why, "this replica is not served: replace it");
                    cluster.note_broken(id, why);
                }
                Err(error) => return Err(error).with_context(|| name_of(id)),
            }
        }
        let shards: Arc<BTreeMap<ShardId, Shard>> = Arc::new(
            groups
                .iter()
                .filter_map(|(id, group)| Some((cluster::shard_of(*id)?, group.clone())))
                .map(|(id, group)| {
                    (id, Shard::start(id, group, clock.clone(), room.clone(), Sweeping::default()))
                })
                .collect(),
        );
        cluster.serve(groups);
        cluster.refresh();
        let api = Api::new(shards.clone(), clock, cluster.clone(), peers.clone());
        let chores = vec![
            tokio::spawn(flush_now_and_then(log, cluster.clone())),
            tokio::spawn(compare_now_and_then(cluster.clone())),
            tokio::spawn(cluster::upkeep::keep_up(cluster.clone(), peers.clone(), place)),
            tokio::spawn(cluster::replacing::keep_on(cluster.clone(), peers)),
        ];
        Ok(Node { api, cluster, shards, chores })
    }

    /// The shards with a replica here.
    pub fn shards(&self) -> &Arc<BTreeMap<ShardId, Shard>> {
        &self.shards
    }

    /// What it knows of its cluster.
    pub fn cluster(&self) -> &Arc<Cluster> {
        &self.cluster
    }

    /// Waits until every group here has a leader.
    pub async fn ready(&self) -> Result<(), raft::Stopped> {
        for group in self.cluster.groups().values() {
            group.ready().await?;
        }
        Ok(())
    }

    /// Gives up the lead of every group, and takes none that is handed to it from now on: the node is
    /// going away.
    pub async fn leave(&self) {
        self.cluster.groups().values().for_each(Group::leave);
        self.hand_over().await;
    }

    /// Gives up the lead of every group, as far as another replica can take it.
    pub async fn hand_over(&self) {
        let groups = self.cluster.groups();
        let handed =
            groups.iter().filter(|(_, group)| group.is_leader()).map(async |(id, group)| {
                match group.hand_over(None).await {
                    Ok(true) => true,
                    Ok(false) => false,
                    Err(error) => {
                        tracing::warn!(group = id.0, %error, "the lead was not handed over");
                        false
                    }
                }
            });
        let handed = join_all(handed).await;
        if !handed.is_empty() {
            let over = handed.iter().filter(|over| **over).count();
            tracing::info!(led = handed.len(), handed_over = over, "gave up the lead");
        }
    }

    /// Stops every group and leaves its rows flushed, as far as there is time: the log has everything.
    pub async fn close(self) {
        self.chores.iter().for_each(|chore| chore.abort());
        for (id, group) in self.cluster.groups().iter() {
            // Only so that the next start has less to replay.
            match tokio::time::timeout(FLUSH_AT_CLOSE_MAX, group.flush(false)).await {
                Ok(Ok(_)) => {}
                Ok(Err(error)) => tracing::warn!(group = id.0, %error, "not flushed"),
                Err(_) => tracing::warn!(group = id.0, "not flushed: it took too long"),
            }
            if let Err(error) = group.shutdown().await {
                tracing::warn!(group = id.0, %error, "the group had stopped before");
            }
        }
        self.cluster.leave();
    }
}

/// What a node does with messages from others. There before the groups are, so that nobody takes the
/// node for dead while it opens them.
pub struct Mailroom {
    cluster: Arc<Cluster>,
    api: RwLock<Option<Api>>,
    calls: Arc<Semaphore>,
}

impl Mailroom {
    /// Hands messages to the groups of a cluster, and to an API that comes later.
    pub fn new(cluster: Arc<Cluster>) -> Arc<Mailroom> {
        Arc::new(Mailroom { cluster, api: RwLock::default(), calls: Arc::new(Semaphore::new(CALLS_MAX)) })
    }

    /// From now on calls are answered.
    pub fn open(&self, api: Api) {
        *self.api.write().unwrap_or_else(PoisonError::into_inner) = Some(api);
    }

    /// From now on none is: connections of other nodes may outlive the node.
    pub fn close(&self) {
        *self.api.write().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

impl Inbox for Mailroom {
    fn receive(&self, _from: NodeId, message: Bytes) -> BoxFuture<'static, Result<Bytes, String>> {
        let refused = |why: &str| futures_util::future::ready(Err(why.to_owned())).boxed();
        let Some((kind, body)) = Kind::parse(&message) else {
            return refused("a kind of message that this build does not know");
        };
        match kind {
            Kind::Hello => futures_util::future::ready(Ok(Bytes::new())).boxed(),
            Kind::Raft => match raft::group_of(&body).and_then(|group| self.cluster.group(group)) {
                Some(group) => group.receive(body),
                None => refused("no such group here, or not yet"),
            },
            Kind::Call => match &*self.api.read().unwrap_or_else(PoisonError::into_inner) {
                Some(api) => match Arc::clone(&self.calls).try_acquire_owned() {
                    Ok(permit) => {
                        let answer = api.receive(body);
                        async move {
                            let _permit = permit;
                            answer.await
                        }
                        .boxed()
                    }
                    Err(_) => refused("too many calls of other nodes wait here"),
                },
                None => refused("this node is starting"),
            },
            Kind::Meta => match self.cluster.group(META) {
                Some(meta) => async move {
                    // What is in the log has to be applied by every replica: nothing else gets there.
                    MetaCommand::decode(&body).map_err(|damage| format!("not a command: {damage}"))?;
                    let proposed = meta.propose(body).await.map_err(|error| error.to_string())?;
                    Ok(Bytes::copy_from_slice(&proposed.log_index.to_le_bytes()))
                }
                .boxed(),
                None => refused("the meta group has no replica here"),
            },
            Kind::Map => {
                let told = cluster::ask::tell(&self.cluster, &body);
                futures_util::future::ready(told).boxed()
            }
        }
    }
}

/// The replicas that belong on this node.
fn replicas_here(cluster: &Cluster) -> Vec<(GroupId, ReplicaId)> {
    let state = cluster.state();
    let numbers = (0u32..).take(state.groups.len()).map(GroupId);
    numbers.filter_map(|id| Some((id, state.replica_on(id, cluster.own())?))).collect()
}

fn options_of(
    cluster: &Cluster,
    id: GroupId,
    replica: ReplicaId,
    config: &GroupConfig,
    network: &Network,
    clock: &Arc<Clock>,
    ledger: &Ledgers,
) -> GroupOptions {
    let founding = cluster.founding().state();
    let founders: BTreeSet<ReplicaId> = founding.replicas(id).iter().map(|own| own.replica).collect();
    let meant_to_lead = founding.replicas(id).first().is_some_and(|own| own.replica == replica);
    let machine: Arc<dyn Machine> = match cluster::shard_of(id) {
        Some(shard) => ledger(shard),
        None => Arc::new(MetaMachine),
    };
    GroupOptions {
        group: id,
        shard: family_of(id),
        founders,
        replica,
        campaign_at_once: meant_to_lead,
        config: config.clone(),
        machine,
        network: network.clone(),
        clock: clock.clone(),
    }
}

/// The number that names a group's rows in the state store.
fn family_of(group: GroupId) -> u16 {
    u16::try_from(group.0).expect("there are at most SHARDS_MAX groups and the meta group")
}

/// A group as people know it.
fn name_of(group: GroupId) -> String {
    cluster::shard_of(group).map_or("the meta group".to_owned(), |shard| format!("shard {shard}"))
}

/// A group that has rows, or that some loss in the log may have hidden, and that the log does not
/// know, has lost acknowledged commands: it is refused, never begun anew.
fn refuse_lost_groups(cluster: &Cluster, recovered: &Recovered, store: &StateStore) -> anyhow::Result<()> {
    for (group, _) in replicas_here(cluster) {
        if recovered.groups.contains_key(&group) || recovered.damaged.contains_key(&group) {
            continue;
        }
        let mut rows = false;
        for generation in store.generations(family_of(group)) {
            rows |= store.shard(family_of(group), generation)?.applied()?.is_some();
        }
        anyhow::ensure!(
            !rows && !recovered.unnamed_loss,
            "the log knows nothing of {}, which {}: the log is damaged or not this store's. \
             {}",
            name_of(group),
            if rows { "has rows" } else { "may have been lost from it" },
            if cluster.founding().replicas > 1 {
                "Replace this node: an older copy of its log must never vote again"
            } else {
                "Restore both from one copy, or start with an empty directory"
            }
        );
    }
    Ok(())
}

/// Has groups flushed and purged as the log asks for it, so that it stays short.
async fn flush_now_and_then(log: LogHandle, cluster: Arc<Cluster>) {
    let mut look = tokio::time::interval(FLUSH_LOOK_EVERY);
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        look.tick().await;
        raft::flush_what_the_log_needs(&log, |id| cluster.group(id)).await;
    }
}

/// Has the groups that lead here compare the states of their replicas. A replica that went wrong is
/// stopped, and said so in its log; see [`Group::compare_digests`].
async fn compare_now_and_then(cluster: Arc<Cluster>) {
    let mut look = tokio::time::interval(COMPARE_EVERY);
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        look.tick().await;
        for group in cluster.groups().values().filter(|group| group.is_leader()) {
            // A group that has stopped has said so itself.
            let _ = group.compare_digests().await;
        }
    }
}
