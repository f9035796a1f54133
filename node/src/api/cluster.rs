//! The cluster's service: who this node is, where the shards are, how all of it does.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use purser_proto::v1;
use tonic::Status;

use super::forward::{decode_answer, question};
use super::{Api, refusal};
use crate::cluster::{Founding, NodeId, NodePlace, group_of};

/// How long another node may take to tell its state.
const STATUS_WAIT: Duration = Duration::from_secs(2);

/// A founding as it is asked for.
pub(crate) fn founding(founding: &Founding) -> v1::FoundRequest {
    v1::FoundRequest {
        cluster_id: founding.cluster_id.to_string(),
        shards: founding.shards.into(),
        nodes: founding.nodes.iter().map(place).collect(),
        replicas: founding.replicas.into(),
    }
}

fn place(node: &NodePlace) -> v1::NodePlace {
    v1::NodePlace {
        node_id: node.id.to_string(),
        api_address: node.api_address.clone(),
        peer_address: node.peer_address.clone(),
    }
}

/// The founding that is asked for.
pub fn founding_of(request: &v1::FoundRequest) -> Result<Founding, Status> {
    let malformed = refusal::malformed_field;
    let id = |text: &str| text.parse::<uuid::Uuid>().ok();
    let cluster_id = id(&request.cluster_id).ok_or_else(|| malformed("cluster_id", "must be a UUID"))?;
    let number = |field: &str, told: u32| {
        u16::try_from(told).map_err(|_| malformed(field, &format!("{told} is too many")))
    };
    let places = request.nodes.iter().map(|node| place_of(node, "nodes"));
    let nodes = places.collect::<Result<Vec<_>, _>>()?;
    let shards = number("shards", request.shards)?;
    let replicas = number("replicas", request.replicas)?;
    let founding = Founding { cluster_id, shards, replicas, nodes };
    founding.check().map_err(|error| malformed("founding", &error.to_string()))?;
    Ok(founding)
}

/// The place of a node that a request names in a field.
pub(super) fn place_of(node: &v1::NodePlace, field: &str) -> Result<NodePlace, Status> {
    Ok(NodePlace {
        id: node_id(&node.node_id, &format!("{field}.node_id"))?,
        api_address: node.api_address.clone(),
        peer_address: node.peer_address.clone(),
        version: String::new(),
    })
}

pub(super) fn node_id(text: &str, field: &str) -> Result<NodeId, Status> {
    text.parse().map(NodeId).map_err(|_| refusal::malformed_field(field, "must be a UUID"))
}

impl Api {
    /// Who this node is.
    pub fn node(&self) -> v1::GetNodeResponse {
        let own = self.cluster.own();
        let known = self.cluster.node(own);
        v1::GetNodeResponse {
            node_id: own.to_string(),
            api_address: known.as_ref().map(|own| own.api_address.clone()).unwrap_or_default(),
            peer_address: known.map(|own| own.peer_address).unwrap_or_default(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            cluster_id: self.cluster.founding().cluster_id.to_string(),
            founding: Some(founding(self.cluster.founding())),
        }
    }

    /// A founding that comes too late: fine if it is the one that was.
    pub fn found_again(&self, request: &v1::FoundRequest) -> Result<v1::FoundResponse, Status> {
        self.is_of(&request.cluster_id).map(|()| v1::FoundResponse {})
    }

    /// Refuses another cluster's.
    pub(super) fn is_of(&self, cluster_id: &str) -> Result<(), Status> {
        let own = self.cluster.founding().cluster_id.to_string();
        if cluster_id == own {
            return Ok(());
        }
        let pairs = refusal::Pairs::from([("cluster".to_owned(), own.clone())]);
        Err(refusal::refuse("ALREADY_EXISTS", format!("this node belongs to cluster {own}"), pairs))
    }

    /// Where the shards are.
    pub fn shard_map(&self) -> v1::GetShardMapResponse {
        let state = self.cluster.state();
        let shard = |shard| {
            let leading = self.cluster.leading(group_of(shard));
            v1::ShardPlace {
                node_ids: state.replicas(group_of(shard)).iter().map(|own| own.node.to_string()).collect(),
                leader_node_id: leading.map(|own| own.node.to_string()).unwrap_or_default(),
                term: leading.map_or(0, |own| own.term),
            }
        };
        v1::GetShardMapResponse {
            cluster_id: state.cluster_id.to_string(),
            epoch: state.epoch,
            nodes: state.nodes.values().map(place).collect(),
            shards: self.map.shards().map(shard).collect(),
        }
    }

    /// The state of this node and its replicas.
    pub(super) fn node_status(&self) -> v1::GetStatusResponse {
        let state = self.cluster.state();
        let own = self.cluster.own();
        let mut leads = 0;
        let mut groups = Vec::new();
        for (id, group) in self.cluster.groups().iter() {
            let now = group.metrics();
            let (digest_index, digest) = group.digests();
            leads += u32::from(now.leads);
            let replica = v1::ReplicaStatus {
                replica_id: state.replica_on(*id, own).map_or(0, |own| own.0),
                node_id: own.to_string(),
                reachable: true,
                leads: now.leads,
                term: now.term,
                last_index: now.last_index.unwrap_or(0),
                applied_index: now.applied_index.unwrap_or(0),
                stopped: now.stopped.unwrap_or_default(),
                digest: digest_index.map(|_| format!("{digest:016x}")).unwrap_or_default(),
                digest_index: digest_index.unwrap_or(0),
                coming: false,
            };
            groups.push(v1::GroupStatus { group: id.0, replicas: vec![replica] });
        }
        for (id, why) in self.cluster.broken() {
            let replica = v1::ReplicaStatus {
                replica_id: state.replica_on(id, own).map_or(0, |own| own.0),
                node_id: own.to_string(),
                reachable: true,
                stopped: why,
                ..Default::default()
            };
            groups.push(v1::GroupStatus { group: id.0, replicas: vec![replica] });
        }
        let node = v1::NodeStatus {
            place: state.nodes.get(&own).map(place),
            reachable: true,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            leads,
            replicas: groups.len() as u32,
            replaced_by: String::new(),
        };
        v1::GetStatusResponse {
            cluster_id: state.cluster_id.to_string(),
            epoch: state.epoch,
            nodes: vec![node],
            groups,
            replaced_by: self.replaced_by(),
        }
    }

    /// The state of all nodes and shards: every node is asked for its own.
    pub async fn status(&self) -> v1::GetStatusResponse {
        let state = self.cluster.state();
        let own = self.cluster.own();
        let question = question("node_status", &v1::GetStatusRequest {});
        let asked = state.nodes.keys().map(|node| {
            let question: Bytes = question.clone();
            async move {
                if *node == own {
                    return (*node, Some(self.node_status()));
                }
                let told = self.peers.call(*node, question, STATUS_WAIT).await.ok();
                (*node, told.and_then(|bytes| decode_answer::<v1::GetStatusResponse>(&bytes).ok()))
            }
        });
        let told: BTreeMap<NodeId, Option<v1::GetStatusResponse>> =
            join_all(asked).await.into_iter().collect();
        let nodes = state.nodes.values().map(|node| {
            let told = told.get(&node.id).and_then(Option::as_ref).and_then(|told| told.nodes.first());
            let told = told.cloned();
            let told =
                told.unwrap_or_else(|| v1::NodeStatus { place: Some(place(node)), ..Default::default() });
            let by = state.replaced.get(&node.id).map(NodeId::to_string);
            v1::NodeStatus { replaced_by: by.unwrap_or_default(), ..told }
        });
        let groups = (0u32..).zip(&state.groups).map(|(group, places)| {
            let replicas = places.all().map(|own| {
                let node = told.get(&own.node).and_then(Option::as_ref);
                let of_group = node.and_then(|node| node.groups.iter().find(|told| told.group == group));
                let replica = of_group.and_then(|told| told.replicas.first());
                let told = replica.cloned().unwrap_or_else(|| v1::ReplicaStatus {
                    replica_id: own.replica.0,
                    node_id: own.node.to_string(),
                    ..Default::default()
                });
                let coming = places.coming.is_some_and(|coming| coming.place == *own);
                v1::ReplicaStatus { coming, ..told }
            });
            v1::GroupStatus { group, replicas: replicas.collect() }
        });
        v1::GetStatusResponse {
            cluster_id: state.cluster_id.to_string(),
            epoch: state.epoch,
            nodes: nodes.collect(),
            groups: groups.collect(),
            replaced_by: self.replaced_by(),
        }
    }

    fn replaced_by(&self) -> String {
        self.cluster.replaced_by().map(|by| by.to_string()).unwrap_or_default()
    }
}
