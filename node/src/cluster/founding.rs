//! A new cluster: its nodes, its shards, and where their first replicas are. Worked out alike on every
//! founding node, so that nobody has to be asked.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::state::{GroupPlace, NodePlace, ReplicaPlace, State};
use super::{NodeId, ShardMap};
use crate::raft::ReplicaId;

/// Most replicas of a shard.
pub const REPLICAS_MAX: u16 = 7;

/// What a cluster is founded with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Founding {
    /// The cluster.
    pub cluster_id: Uuid,
    /// How many shards it has, for its life: a power of two.
    pub shards: u16,
    /// How many replicas each group has: odd.
    pub replicas: u16,
    /// The founding nodes, in order.
    pub nodes: Vec<NodePlace>,
}

/// A founding that makes no cluster.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FoundingError {
    /// The number of shards.
    #[error("shards: a power of two from 1 to {max}, not {0}", max = super::SHARDS_MAX)]
    Shards(u32),
    /// The number of replicas.
    #[error("replicas: an odd number from 1 to {REPLICAS_MAX}, not {0}")]
    Replicas(u32),
    /// Too few nodes for the replicas.
    #[error("nodes: {replicas} replicas need as many nodes, not {nodes}")]
    TooFew {
        /// Replicas asked for.
        replicas: u16,
        /// Nodes named.
        nodes: usize,
    },
    /// A node is named twice, or two have one address.
    #[error("nodes: {0} is there twice")]
    Twice(String),
}

impl Founding {
    /// A cluster of one node.
    pub fn alone(shards: u16, node: NodePlace) -> Result<Founding, FoundingError> {
        let founding = Founding { cluster_id: Uuid::new_v4(), shards, replicas: 1, nodes: vec![node] };
        founding.check()?;
        Ok(founding)
    }

    /// Whether it makes a cluster.
    pub fn check(&self) -> Result<(), FoundingError> {
        ShardMap::new(self.shards).ok_or(FoundingError::Shards(self.shards.into()))?;
        if self.replicas.is_multiple_of(2) || self.replicas > REPLICAS_MAX {
            return Err(FoundingError::Replicas(self.replicas.into()));
        }
        if self.nodes.len() < usize::from(self.replicas) {
            return Err(FoundingError::TooFew { replicas: self.replicas, nodes: self.nodes.len() });
        }
        let mut ids = BTreeSet::new();
        if let Some(node) = self.nodes.iter().find(|node| !ids.insert(node.id)) {
            return Err(FoundingError::Twice(node.id.to_string()));
        }
        let mut addresses = BTreeSet::new();
        let all = self.nodes.iter().flat_map(|node| [&node.api_address, &node.peer_address]);
        match all.filter(|address| !address.is_empty()).find(|address| !addresses.insert(*address)) {
            Some(address) => Err(FoundingError::Twice(address.clone())),
            None => Ok(()),
        }
    }

    /// The map of its shards.
    ///
    /// # Panics
    /// If it was not checked.
    pub fn map(&self) -> ShardMap {
        ShardMap::new(self.shards).expect("a checked founding")
    }

    /// The state that it begins with. Replicas go round the nodes, each group beginning one node
    /// further than the one before, so that every node leads its share.
    pub fn state(&self) -> State {
        let replicas = usize::from(self.replicas);
        let place = |group: usize| GroupPlace {
            replicas: (0..replicas)
                .map(|turn| ReplicaPlace {
                    replica: ReplicaId((group * replicas + turn) as u64 + 1),
                    node: self.nodes[(group + turn) % self.nodes.len()].id,
                })
                .collect(),
            coming: None,
        };
        State {
            cluster_id: self.cluster_id,
            epoch: 1,
            later_replicas: 0,
            nodes: self.nodes.iter().map(|node| (node.id, node.clone())).collect::<BTreeMap<_, _>>(),
            groups: (0..=usize::from(self.shards)).map(place).collect(),
            replaced: BTreeMap::new(),
        }
    }

    /// Whether the node is a founder.
    pub fn names(&self, node: NodeId) -> bool {
        self.nodes.iter().any(|own| own.id == node)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(n: u8) -> NodePlace {
        NodePlace {
            id: NodeId(Uuid::from_bytes([n; 16])),
            api_address: format!("127.0.0.1:{n}"),
            peer_address: format!("127.0.0.1:1{n}"),
            version: String::new(),
        }
    }

    fn founding(shards: u16, replicas: u16, nodes: &[u8]) -> Founding {
        let nodes = nodes.iter().copied().map(node).collect();
        Founding { cluster_id: Uuid::nil(), shards, replicas, nodes }
    }

    #[test]
    fn replicas_go_round_the_nodes_and_no_id_is_given_twice() {
        let state = founding(4, 3, &[1, 2, 3, 4]).state();
        let nodes = |group: usize| -> Vec<u8> {
            state.groups[group].replicas.iter().map(|own| own.node.0.as_bytes()[0]).collect()
        };
        assert_eq!(nodes(0), [1, 2, 3]);
        assert_eq!(nodes(1), [2, 3, 4]);
        assert_eq!(nodes(4), [1, 2, 3]);
        let ids: Vec<u64> =
            state.groups.iter().flat_map(|own| &own.replicas).map(|own| own.replica.0).collect();
        assert_eq!(ids, (1..=15).collect::<Vec<u64>>());
    }

    #[test]
    fn a_founding_that_makes_no_cluster_says_which_field_is_at_fault() {
        assert_eq!(founding(3, 1, &[1]).check(), Err(FoundingError::Shards(3)));
        assert_eq!(founding(4, 2, &[1, 2]).check(), Err(FoundingError::Replicas(2)));
        assert_eq!(founding(4, 3, &[1, 2]).check(), Err(FoundingError::TooFew { replicas: 3, nodes: 2 }));
        assert!(matches!(founding(4, 3, &[1, 2, 2]).check(), Err(FoundingError::Twice(_))));
        let mut same = founding(4, 1, &[1, 2]);
        same.nodes[1].peer_address = same.nodes[0].peer_address.clone();
        assert_eq!(same.check(), Err(FoundingError::Twice("127.0.0.1:11".to_owned())));
        assert_eq!(founding(4, 3, &[1, 2, 3]).check(), Ok(()));
    }
}
