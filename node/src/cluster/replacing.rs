//! Moves groups from the replicas of a lost node to those that come in their places.
//!
//! The map says which replica comes and which one goes (`state`). The leader of such a group does the rest,
//! a step at a time; whoever leads next goes on from what the group's own members say:
//!
//! ```text
//!   the lead is given up where the leader itself goes -> a learner is added -> it catches up
//!   -> the members change, in two steps (joint) -> the meta group is told, which changes the map
//! ```
//! - Until the change of members is committed the old replica counts, and the new one does not; the map
//!   follows what is committed.
//! - Every step may be done twice.
//! - A replica here that the map knows as replaced is stopped: its node came back after it was given up.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;

use super::meta::MetaCommand;
use super::state::Coming;
use super::{Cluster, ask};
use crate::log::GroupId;
use crate::peer::Transport;
use crate::raft::{Group, Moved, ReplicaId};
use crate::simulation;

/// How often it is looked whether there is something to do.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Groups that one leader moves at once. A node takes two snapshots at once, whoever sends them.
const AT_ONCE_MAX: usize = 2;

/// Does it, for ever.
pub async fn keep_on(cluster: Arc<Cluster>, peers: Arc<dyn Transport>) {
    let mut look = tokio::time::interval(LOOK_EVERY);
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        look.tick().await;
        drop_replaced(&cluster).await;
        let state = cluster.state();
        let groups = cluster.groups();
        let led = groups.iter().filter(|(_, group)| group.is_leader());
        let moving = led.filter_map(|(id, group)| Some((*id, group, state.group(*id)?.coming?)));
        let steps = moving.take(AT_ONCE_MAX).map(async |(id, group, coming)| {
            if let Err(why) = step(&cluster, &*peers, id, group, coming).await {
                tracing::debug!(group = id.0, why, "a replica cannot be replaced just now");
            }
        });
        join_all(steps).await;
    }
}

async fn step(
    cluster: &Cluster,
    peers: &dyn Transport,
    id: GroupId,
    group: &Group,
    coming: Coming,
) -> Result<(), String> {
    if group.replica() == coming.going {
        let handed = group.hand_over(None).await.map_err(|stopped| stopped.to_string())?;
        return if handed { Ok(()) } else { Err("nobody takes the lead".to_owned()) };
    }
    let state = cluster.state();
    let stay = state.replicas(id).iter().map(|own| own.replica).filter(|own| *own != coming.going);
    let meant: BTreeSet<ReplicaId> = stay.chain([coming.place.replica]).collect();
    match group.move_to(&meant).await.map_err(|stopped| stopped.to_string())? {
        Moved::Done => {
            let came = MetaCommand::Came { group: id.0, replica: coming.place.replica };
            ask::propose(cluster, peers, &came).await?;
            simulation::mark("replica replaced");
            tracing::info!(group = id.0, replica = %coming.place.replica, node = %coming.place.node, "a replica stands in a lost one's place");
            Ok(())
        }
        Moved::OnTheWay(why) => Err(why),
    }
}

/// Stops the replicas here that were replaced.
async fn drop_replaced(cluster: &Cluster) {
    let state = cluster.state();
    for (id, group) in cluster.groups().iter() {
        if state.is_replaced(*id, group.replica()) {
            tracing::error!(group = id.0, replica = %group.replica(), "this replica was replaced: it stops");
            if let Err(error) = group.shutdown().await {
                tracing::warn!(group = id.0, %error, "the group had stopped before");
            }
            cluster.drop_group(*id);
        }
    }
}
