//! What a node does about its cluster, now and then: follows the meta group, or those who do where it has no
//! replica of it, tells it where this node is, and brings leaders back to their places.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;

use super::meta::MetaCommand;
use super::{Cluster, META, NodeId, NodePlace, State, ask};
use crate::peer::Transport;
use crate::peer::message::Kind;

/// How often the meta group's replica here is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// So many looks lie between two attempts to bring leaders to their places.
const LOOKS_PER_PLACING: u32 = 20;
/// So many looks lie between two attempts to make this node known.
const LOOKS_PER_ANNOUNCING: u32 = 4;
/// How long one of them may take.
const ANNOUNCE_WAIT: Duration = Duration::from_millis(500);
/// A replica that lags more than this many entries is not handed the lead.
const LAG_MAX: u64 = 1_000;

/// Does it all, for ever.
pub async fn keep_up(cluster: Arc<Cluster>, peers: Arc<dyn Transport>, own: NodePlace) {
    let mut look = tokio::time::interval(LOOK_EVERY);
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    for looks in 1u32.. {
        look.tick().await;
        if cluster.refresh() {
            tracing::info!(epoch = cluster.state().epoch, "the cluster's map has changed");
        }
        if let Some(command) = unsaid(&cluster, &own) {
            if cluster.leading(META).is_none() && looks % LOOKS_PER_ANNOUNCING == 1 {
                announce(&cluster, &*peers).await;
            }
            if let Err(error) = ask::propose(&cluster, &*peers, &command).await {
                tracing::debug!(error, "the meta group does not take a command now");
            }
        }
        if ask_around(&cluster, &*peers, looks).await {
            tracing::info!(epoch = cluster.state().epoch, "the cluster's map has changed, another node says");
        }
        if looks % LOOKS_PER_PLACING == 0 {
            place_leaders(&cluster).await;
        }
    }
}

/// What the meta group has still to be told by this node.
fn unsaid(cluster: &Cluster, own: &NodePlace) -> Option<MetaCommand> {
    if let Some(meta) = cluster.group(META).filter(|meta| meta.is_leader())
        && State::epoch_of(&meta.view()) == Ok(None)
    {
        return Some(MetaCommand::Found(cluster.founding().clone()));
    }
    let known = cluster.replaced_by().is_some() || cluster.node(own.id).as_ref() == Some(own);
    (!known).then(|| MetaCommand::PutNode(own.clone()))
}

/// Asks another node for the map, each time the next one, where no replica of the meta group here follows
/// it. Returns whether anything is new.
async fn ask_around(cluster: &Cluster, peers: &dyn Transport, turn: u32) -> bool {
    if cluster.group(META).is_some_and(|meta| meta.is_in_touch()) {
        return false;
    }
    let state = cluster.state();
    let others: Vec<&NodeId> = state.nodes.keys().filter(|node| **node != cluster.own()).collect();
    let Some(node) = others.get(turn as usize % others.len().max(1)) else { return false };
    // Who does not answer is asked again when it is its turn.
    ask::learn_from(cluster, peers, **node).await.unwrap_or(false)
}

/// Dials every other node, which tells it where this one is: a leader has to find a node that has moved
/// before that node can learn who leads.
async fn announce(cluster: &Cluster, peers: &dyn Transport) {
    let state = cluster.state();
    let others = state.nodes.keys().filter(|node| **node != cluster.own());
    let hello = Kind::Hello.frame(b"");
    // Nobody's answer is needed.
    join_all(others.map(|node| peers.call(*node, hello.clone(), ANNOUNCE_WAIT))).await;
}

/// Hands the lead of a group to the replica that is meant to have it, one group at a time, so that
/// the load is spread as the founding meant it again after a node was away.
async fn place_leaders(cluster: &Cluster) {
    let groups = cluster.groups();
    for (id, group) in groups.iter().filter(|(_, group)| group.is_leader()) {
        let id = *id;
        let state = cluster.state();
        // While replicas come and go there is enough to do.
        if state.group(id).is_some_and(|group| group.coming.is_some()) {
            continue;
        }
        let Some(meant) = state.replicas(id).first().filter(|meant| meant.node != cluster.own()) else {
            continue;
        };
        let now = group.metrics();
        let reached = now.followers.get(&meant.replica).copied().flatten();
        if reached.zip(now.last_index).is_none_or(|(reached, last)| reached + LAG_MAX < last) {
            continue;
        }
        match group.hand_over(Some(meant.replica)).await {
            Ok(true) => tracing::info!(group = id.0, to = %meant.node, "handed the lead to its place"),
            Ok(false) => tracing::debug!(group = id.0, to = %meant.node, "the lead stays here for now"),
            Err(error) => tracing::warn!(group = id.0, %error, "cannot hand the lead over"),
        }
        return;
    }
}
