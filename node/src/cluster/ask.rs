//! What a node asks of other nodes about their cluster: to take a command for the meta group, and to tell
//! the map.
//!
//! The meta group's replica here knows both its leader and the map. A node without one, or whose replica
//! hears of no leader, asks those that may know more.

use std::time::Duration;

use bytes::Bytes;

use super::meta::MetaCommand;
use super::state::GroupPlace;
use super::{Cluster, META, NodeId, State};
use crate::peer::Transport;
use crate::peer::message::Kind;

/// How long the meta group may take for a command.
const COMMAND_WAIT: Duration = Duration::from_secs(2);
/// How long a node may take to tell its map.
const MAP_WAIT: Duration = Duration::from_millis(500);

/// Has the meta group take a command. Returns the node that led it: it has applied the command.
pub async fn propose(
    cluster: &Cluster,
    peers: &dyn Transport,
    command: &MetaCommand,
) -> Result<NodeId, String> {
    let asked: Vec<NodeId> = match cluster.leading(META) {
        Some(leading) => vec![leading.node],
        // Whoever leads is among them.
        None => {
            cluster.state().group(META).into_iter().flat_map(GroupPlace::all).map(|own| own.node).collect()
        }
    };
    let mut refused = "no leader of the meta group is known".to_owned();
    for node in asked {
        match propose_at(cluster, peers, node, command).await {
            Ok(()) => return Ok(node),
            Err(why) => refused = why,
        }
    }
    Err(refused)
}

async fn propose_at(
    cluster: &Cluster,
    peers: &dyn Transport,
    node: NodeId,
    command: &MetaCommand,
) -> Result<(), String> {
    let entry = command.encode();
    match cluster.group(META).filter(|_| node == cluster.own()) {
        Some(meta) => {
            let proposed = tokio::time::timeout(COMMAND_WAIT, meta.propose(entry)).await;
            proposed.map_err(|_| "no answer in time")?.map_err(|error| error.to_string())?;
        }
        None => {
            let sent = peers.call(node, Kind::Meta.frame(&entry), COMMAND_WAIT).await;
            sent.map_err(|error| error.to_string())?;
        }
    }
    Ok(())
}

/// Learns the map that a node knows, if it is newer than the one known here. Returns whether it was.
pub async fn learn_from(cluster: &Cluster, peers: &dyn Transport, node: NodeId) -> Result<bool, String> {
    if node == cluster.own() {
        return Ok(cluster.refresh());
    }
    let question = Kind::Map.frame(&cluster.state().epoch.to_le_bytes());
    let answer = peers.call(node, question, MAP_WAIT).await.map_err(|error| error.to_string())?;
    if answer.is_empty() {
        return Ok(false);
    }
    let told = State::decode(&answer).map_err(|damage| damage.to_string())?;
    Ok(cluster.learn(told))
}

/// What a node that knows this much is told: the map, if it is newer here, or nothing.
pub fn tell(cluster: &Cluster, known: &[u8]) -> Result<Bytes, String> {
    let known = known.try_into().map(u64::from_le_bytes).map_err(|_| "a question that does not decode")?;
    cluster.refresh();
    let state = cluster.state();
    Ok(if state.epoch > known { state.encode() } else { Bytes::new() })
}
