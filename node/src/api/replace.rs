//! A new node in the place of a lost one: what a member does about it, and what the new one is told.
//!
//! ```text
//!   Replace to a member ── the meta group changes the map ── Join to the new node, which then starts
//! ```
//! Each may be done again: what is so already stays so.

use std::time::Duration;

use purser_proto::v1;
use tokio::time::Instant;
use tonic::Status;

use super::Api;
use super::cluster::{founding, founding_of, node_id, place_of};
use super::forward::Attempts;
use super::refusal::{Pairs, malformed_field, refuse, unavailable};
use crate::cluster::meta::MetaCommand;
use crate::cluster::{Founding, NodeId, NodePlace, NotReplaced, State, ask};

/// How long the meta group may take to decide: an election, and some room.
const DECIDED_WAIT: Duration = Duration::from_secs(5);

impl Api {
    /// Puts a new node in the place of a lost one.
    pub async fn replace(&self, request: &v1::ReplaceRequest) -> Result<v1::ReplaceResponse, Status> {
        let lost = node_id(&request.lost_node_id, "lost_node_id")?;
        let with = request.with.as_ref().ok_or_else(|| malformed_field("with", "required"))?;
        let with = place_of(with, "with")?;
        for (field, address) in
            [("with.api_address", &with.api_address), ("with.peer_address", &with.peer_address)]
        {
            if address.is_empty() {
                return Err(malformed_field(field, "required"));
            }
        }
        let mut attempts = Attempts::until(Instant::now() + DECIDED_WAIT);
        loop {
            match self.decide(lost, &with).await {
                Ok(decided) => return decided.map_err(|why| refused(&why)),
                Err(why) if attempts.left().is_none() => return Err(unavailable(why)),
                Err(_) => attempts.pause().await,
            }
        }
    }

    /// Asks the meta group once. An error: it has not decided, and why not.
    async fn decide(
        &self,
        lost: NodeId,
        with: &NodePlace,
    ) -> Result<Result<v1::ReplaceResponse, NotReplaced>, String> {
        let command = MetaCommand::Replace { lost, with: with.clone() };
        let leader = ask::propose(&self.cluster, &*self.peers, &command).await;
        let leader = leader.map_err(|why| format!("the meta group does not take it: {why}"))?;
        // Whether anything came of it is in the map.
        let learned = ask::learn_from(&self.cluster, &*self.peers, leader).await;
        learned.map_err(|why| format!("what came of it is not known: {why}"))?;
        let state = self.cluster.state();
        match state.replace(lost, with) {
            Ok(None) => {
                let founding = Some(founding(self.cluster.founding()));
                let join = v1::JoinRequest { founding, map: state.encode().to_vec() };
                Ok(Ok(v1::ReplaceResponse { join: Some(join) }))
            }
            Ok(Some(_)) => Err("the meta group has just begun: ask again".to_owned()),
            Err(why) => Ok(Err(why)),
        }
    }

    /// A place that is told of too late: fine if it is in this cluster.
    pub fn join_again(&self, request: &v1::JoinRequest) -> Result<v1::JoinResponse, Status> {
        let founding = request.founding.as_ref().ok_or_else(|| malformed_field("founding", "required"))?;
        self.is_of(&founding.cluster_id).map(|()| v1::JoinResponse {})
    }
}

fn refused(why: &NotReplaced) -> Status {
    let told = why.to_string();
    match why {
        NotReplaced::Unknown(_) | NotReplaced::Alone(_) => malformed_field("lost_node_id", &told),
        NotReplaced::Member(_) => malformed_field("with.node_id", &told),
        NotReplaced::By { by, .. } => {
            refuse("ALREADY_EXISTS", told, Pairs::from([("by".to_owned(), by.to_string())]))
        }
        NotReplaced::Busy { .. } => unavailable(told),
    }
}

/// The cluster in which a new node was put in a lost one's place.
pub fn joined(request: &v1::JoinRequest, own: NodeId) -> Result<(Founding, State), Status> {
    let told = request.founding.as_ref().ok_or_else(|| malformed_field("founding", "required"))?;
    let founding = founding_of(told)?;
    let state = State::decode(&request.map).map_err(|damage| malformed_field("map", &damage.to_string()))?;
    if state.cluster_id != founding.cluster_id {
        return Err(malformed_field("map", "it is another cluster's than the founding"));
    }
    if !state.nodes.contains_key(&own) || founding.names(own) {
        return Err(malformed_field("map", &format!("this node, {own}, was not put in a lost one's place")));
    }
    Ok((founding, state))
}
