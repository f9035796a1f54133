//! The cluster's nodes and replicas at one epoch, and how they change. Pure: the meta group applies
//! these changes, everybody else only reads.
//!
//! A node that is lost is replaced as a whole: every replica on it goes, and for each a new one comes on
//! the node that takes its place.
//!
//! ```text
//!   replace(lost, with)    for each group with a replica on the lost node: one comes, under a new id
//!   came(group, replica)   the group has changed its members: the new replica stands in the old one's place
//! ```
//! - A replica id is given out once. Who had an id has its entries and its votes; a replica that lost them
//!   comes back under another one, or it would be counted where it must not be.
//! - One node is replaced at a time, so that in a group one replica at most comes, and one at most goes.
//! - What was replaced is known for ever: its messages are not taken.

use std::collections::BTreeMap;

use bytes::Bytes;
use purser_ledger::codec::Damage;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{LATER_REPLICA_IDS_FROM, NodeId, sealed};
use crate::log::GroupId;
use crate::raft::ReplicaId;
use crate::simulation::{self, Bug};

/// The version of a state's bytes that this build writes, and the newest that it reads.
const VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
struct Told<T> {
    version: u32,
    state: T,
}

/// Where a node is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodePlace {
    /// The node.
    pub id: NodeId,
    /// Where it serves the API, `host:port`, as others reach it.
    pub api_address: String,
    /// Where it speaks with other nodes, `host:port`.
    pub peer_address: String,
    /// The version of the program; empty: not known yet.
    pub version: String,
}

/// A replica and its node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReplicaPlace {
    /// The replica.
    pub replica: ReplicaId,
    /// Its node.
    pub node: NodeId,
}

/// A replica that is to stand in another one's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Coming {
    /// It, and its node.
    pub place: ReplicaPlace,
    /// The replica that goes.
    pub going: ReplicaId,
}

/// The replicas of a group. The first one is meant to lead.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GroupPlace {
    /// In order of preference for leading.
    pub replicas: Vec<ReplicaPlace>,
    /// The one that takes the place of one of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub coming: Option<Coming>,
}

impl GroupPlace {
    /// All of them, the coming one as well.
    pub fn all(&self) -> impl Iterator<Item = &ReplicaPlace> {
        self.replicas.iter().chain(self.coming.as_ref().map(|coming| &coming.place))
    }
}

/// The cluster's nodes and replicas at one epoch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    /// The cluster.
    pub cluster_id: Uuid,
    /// Counts the changes of what follows.
    pub epoch: u64,
    /// How many replica ids were given out after the founding's.
    pub later_replicas: u64,
    /// The nodes; one that is replaced is among them until none of its replicas is left.
    pub nodes: BTreeMap<NodeId, NodePlace>,
    /// The groups, by number: the meta group, then the shards.
    pub groups: Vec<GroupPlace>,
    /// The nodes that others took the place of, and which.
    pub replaced: BTreeMap<NodeId, NodeId>,
}

/// Why a node cannot take another one's place.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotReplaced {
    /// The lost one is not of the cluster.
    #[error("{0} is no node of this cluster: see purser cluster status")]
    Unknown(NodeId),
    /// The new one is of the cluster already, or was once.
    #[error("{0} belongs to the cluster already, or did: start a node with an empty directory for it")]
    Member(NodeId),
    /// Another one takes its place.
    #[error("{by} takes the place of {lost} already; if that one is lost, too: replace it instead")]
    By {
        /// The lost one.
        lost: NodeId,
        /// The one that takes its place.
        by: NodeId,
    },
    /// One at a time.
    #[error("{by} takes another node's place just now: wait until that is done")]
    Busy {
        /// The node that takes the other one's place.
        by: NodeId,
    },
    /// There is nobody to copy from.
    #[error("{0} holds the only replica of a shard: what was in it is lost with it")]
    Alone(NodeId),
}

impl State {
    /// A group's replicas; none if there is no such group.
    pub fn replicas(&self, group: GroupId) -> &[ReplicaPlace] {
        self.group(group).map_or(&[], |place| &place.replicas)
    }

    /// A group.
    pub fn group(&self, group: GroupId) -> Option<&GroupPlace> {
        usize::try_from(group.0).ok().and_then(|group| self.groups.get(group))
    }

    /// The replica of a group on a node, or the one that comes there.
    pub fn replica_on(&self, group: GroupId, node: NodeId) -> Option<ReplicaId> {
        self.group(group)?.all().find(|own| own.node == node).map(|own| own.replica)
    }

    /// The node that holds a replica of a group.
    pub fn node_of(&self, group: GroupId, replica: ReplicaId) -> Option<NodeId> {
        self.group(group)?.all().find(|own| own.replica == replica).map(|own| own.node)
    }

    /// Whether a replica was one of the group and is not any more. One that this state does not know
    /// yet, since its id was given out later, is not.
    pub fn is_replaced(&self, group: GroupId, replica: ReplicaId) -> bool {
        replica.0 < LATER_REPLICA_IDS_FROM + self.later_replicas && self.node_of(group, replica).is_none()
    }

    /// The state in which a node takes the place of a lost one; `None`: it does already.
    pub fn replace(&self, lost: NodeId, with: &NodePlace) -> Result<Option<State>, NotReplaced> {
        match self.replaced.get(&lost) {
            Some(by) if *by == with.id => return Ok(None),
            Some(by) => return Err(NotReplaced::By { lost, by: *by }),
            None => {}
        }
        if !self.nodes.contains_key(&lost) {
            return Err(NotReplaced::Unknown(lost));
        }
        if self.nodes.contains_key(&with.id) || self.replaced.contains_key(&with.id) {
            return Err(NotReplaced::Member(with.id));
        }
        // One that was to take another one's place, and is lost itself, may be replaced meanwhile.
        let mut coming = self.groups.iter().filter_map(|group| group.coming.as_ref());
        if let Some(other) = coming.find(|coming| coming.place.node != lost) {
            return Err(NotReplaced::Busy { by: other.place.node });
        }
        if self.groups.iter().any(|group| group.replicas.len() == 1 && group.replicas[0].node == lost) {
            return Err(NotReplaced::Alone(lost));
        }
        let mut after = State { epoch: self.epoch + 1, ..self.clone() };
        for group in &mut after.groups {
            let on_lost = group.replicas.iter().find(|own| own.node == lost).map(|own| own.replica);
            let Some(going) = group.coming.map(|coming| coming.going).or(on_lost) else { continue };
            let mut replica = ReplicaId(LATER_REPLICA_IDS_FROM + after.later_replicas);
            after.later_replicas += 1;
            if simulation::has(Bug::ReplicaIdReused) {
                replica = going;
            }
            group.coming = Some(Coming { place: ReplicaPlace { replica, node: with.id }, going });
        }
        after.nodes.insert(with.id, with.clone());
        after.replaced.insert(lost, with.id);
        after.forget_the_gone();
        Ok(Some(after))
    }

    /// The state in which a replica that came stands in the place of the one that went; `None`: it does
    /// already, or is not to.
    pub fn came(&self, group: GroupId, replica: ReplicaId) -> Option<State> {
        let mut after = State { epoch: self.epoch + 1, ..self.clone() };
        let place = after.groups.get_mut(usize::try_from(group.0).ok()?)?;
        let coming = place.coming.take_if(|coming| coming.place.replica == replica)?;
        *place.replicas.iter_mut().find(|own| own.replica == coming.going)? = coming.place;
        after.forget_the_gone();
        Some(after)
    }

    /// Replaced nodes without replicas are no nodes of the cluster any more.
    fn forget_the_gone(&mut self) {
        let State { nodes, groups, replaced, .. } = self;
        nodes.retain(|node, _| {
            !replaced.contains_key(node)
                || groups.iter().flat_map(GroupPlace::all).any(|own| own.node == *node)
        });
    }

    /// Its bytes, for other nodes.
    pub fn encode(&self) -> Bytes {
        sealed::seal(&Told { version: VERSION, state: self })
    }

    /// The state of such bytes.
    pub fn decode(bytes: &[u8]) -> Result<State, Damage> {
        let told: Told<State> = sealed::open(bytes, "a map of the cluster")?;
        match told.version {
            VERSION => Ok(told.state),
            _ => Err(Damage("a map of the cluster: a version that this build does not know")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Founding, META};
    use super::*;

    fn node(number: u8) -> NodeId {
        NodeId(Uuid::from_bytes([number; 16]))
    }

    fn place(number: u8) -> NodePlace {
        let address = |port: u16| format!("n{number}:{port}");
        NodePlace {
            id: node(number),
            api_address: address(1),
            peer_address: address(2),
            version: String::new(),
        }
    }

    /// A state of these nodes, two shards, three replicas of each group. Groups begin at nodes 1, 2 and 3.
    fn state(nodes: &[u8]) -> State {
        let nodes = nodes.iter().copied().map(place).collect();
        Founding { cluster_id: Uuid::nil(), shards: 2, replicas: 3, nodes }.state()
    }

    fn ids(state: &State, group: u32) -> Vec<u64> {
        state.replicas(GroupId(group)).iter().map(|own| own.replica.0).collect()
    }

    /// The state in which a node has taken a lost one's place in every group.
    fn all_came(mut state: State) -> State {
        for group in 0..3 {
            let coming = state.group(GroupId(group)).and_then(|group| group.coming);
            if let Some(coming) = coming {
                state = state.came(GroupId(group), coming.place.replica).expect("it comes");
            }
        }
        state
    }

    #[test]
    fn a_lost_node_is_replaced_group_by_group_under_ids_that_nobody_had() {
        let before = state(&[1, 2, 3, 4]);
        // Node 2 has the second replica of the meta group, the first of shard 0, none of shard 1.
        assert_eq!([ids(&before, 0), ids(&before, 1), ids(&before, 2)], [[1, 2, 3], [4, 5, 6], [7, 8, 9]]);
        let under_way = before.replace(node(2), &place(5)).expect("it may").expect("a change");
        assert_eq!(under_way.replica_on(META, node(5)), Some(ReplicaId(LATER_REPLICA_IDS_FROM)));
        assert_eq!(under_way.replica_on(GroupId(1), node(5)), Some(ReplicaId(LATER_REPLICA_IDS_FROM + 1)));
        assert_eq!(under_way.group(GroupId(2)).and_then(|group| group.coming), None);
        assert_eq!(ids(&under_way, 0), [1, 2, 3], "the lost one counts until the members have changed");
        assert!(under_way.nodes.contains_key(&node(2)));

        let first = under_way.came(META, ReplicaId(LATER_REPLICA_IDS_FROM)).expect("it came");
        assert_eq!(ids(&first, 0), [1, LATER_REPLICA_IDS_FROM, 3], "in the very place");
        assert!(first.is_replaced(META, ReplicaId(2)) && !first.is_replaced(GroupId(1), ReplicaId(4)));
        assert_eq!(first.came(META, ReplicaId(LATER_REPLICA_IDS_FROM)), None, "once");

        let done = all_came(first);
        assert!(!done.nodes.contains_key(&node(2)) && done.nodes.contains_key(&node(5)));
        assert_eq!(done.replace(node(2), &place(5)), Ok(None), "the same again changes nothing");
        assert_eq!(done.epoch, before.epoch + 3);
    }

    #[test]
    fn a_node_that_is_lost_while_it_takes_anothers_place_is_replaced_in_turn() {
        let under_way = state(&[1, 2, 3]).replace(node(1), &place(4)).expect("it may").expect("a change");
        let half = under_way.came(META, ReplicaId(LATER_REPLICA_IDS_FROM)).expect("it came");
        let again = half.replace(node(4), &place(5)).expect("it may").expect("a change");
        // The meta group's replica of node 4 goes; in the shards those of node 1, which are still there.
        let going = [0, 1, 2].map(|group| {
            let coming = again.group(GroupId(group)).and_then(|group| group.coming).expect("one comes");
            (coming.place.node, coming.going.0, coming.place.replica.0 - LATER_REPLICA_IDS_FROM)
        });
        assert_eq!(going, [(node(5), LATER_REPLICA_IDS_FROM, 3), (node(5), 6, 4), (node(5), 8, 5)]);
        assert!(again.is_replaced(GroupId(1), ReplicaId(LATER_REPLICA_IDS_FROM + 1)), "it never came");
        let done = all_came(again);
        assert_eq!(done.nodes.keys().copied().collect::<Vec<_>>(), [node(2), node(3), node(5)]);
    }

    #[test]
    fn what_cannot_be_replaced_is_refused_in_words() {
        let before = state(&[1, 2, 3, 4]);
        assert_eq!(before.replace(node(9), &place(5)), Err(NotReplaced::Unknown(node(9))));
        assert_eq!(before.replace(node(1), &place(2)), Err(NotReplaced::Member(node(2))));
        assert_eq!(before.replace(node(1), &place(1)), Err(NotReplaced::Member(node(1))));
        let under_way = before.replace(node(1), &place(5)).expect("it may").expect("a change");
        let by = NotReplaced::By { lost: node(1), by: node(5) };
        assert_eq!(under_way.replace(node(1), &place(6)), Err(by.clone()));
        assert_eq!(under_way.replace(node(2), &place(6)), Err(NotReplaced::Busy { by: node(5) }));
        let done = all_came(under_way);
        assert_eq!(done.replace(node(1), &place(6)), Err(by));
        assert_eq!(done.replace(node(2), &place(1)), Err(NotReplaced::Member(node(1))), "its ids are gone");
        let alone = Founding::alone(2, place(1)).expect("a founding").state();
        assert_eq!(alone.replace(node(1), &place(2)), Err(NotReplaced::Alone(node(1))));
    }

    #[test]
    fn a_replica_of_which_this_state_has_not_heard_yet_is_not_taken_for_replaced() {
        let old = state(&[1, 2, 3]);
        assert!(!old.is_replaced(META, ReplicaId(LATER_REPLICA_IDS_FROM)));
        assert!(old.is_replaced(META, ReplicaId(4)), "it is another group's");
    }

    #[test]
    fn a_state_comes_back_from_its_bytes_or_not_at_all() {
        let state = state(&[1, 2, 3]).replace(node(1), &place(4)).expect("it may").expect("a change");
        let mut bytes = state.encode().to_vec();
        assert_eq!(State::decode(&bytes), Ok(state));
        bytes[40] ^= 1;
        assert!(State::decode(&bytes).is_err());
    }
}
