//! What this node knows of the cluster now: the state of the meta group, as far as it came here, and
//! who leads what, as far as the replicas here know.
//!
//! Before the meta group's first entry it is the founding's state, or for a node that took a lost one's place
//! what it was told then. It only gets newer, whoever tells it. Looking something up never waits.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use super::state::{NodePlace, State};
use super::{Descriptor, Founding, META, NodeId};
use crate::log::GroupId;
use crate::peer::AddressBook;
use crate::raft::{Group, ReplicaId, Whereabouts};

/// The groups with a replica on this node.
pub type Groups = BTreeMap<GroupId, Group>;

/// The node that leads a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeadingNode {
    /// The node.
    pub node: NodeId,
    /// Its term.
    pub term: u64,
}

/// The cluster, seen from one node.
pub struct Cluster {
    own: NodeId,
    founding: Founding,
    state: RwLock<Arc<State>>,
    /// Where nodes said that they are, when they dialled: newer than what the meta group knows.
    moved: Mutex<BTreeMap<NodeId, String>>,
    groups: RwLock<Arc<Groups>>,
    /// The replicas here that cannot be served, and why.
    broken: Mutex<BTreeMap<GroupId, String>>,
    /// Who led before, and who leads: for a bug that the simulation plants.
    #[cfg(madsim)]
    leaders_seen: Mutex<BTreeMap<GroupId, (NodeId, NodeId)>>,
}

impl Cluster {
    /// What a founder knows when it starts: the founding.
    pub fn new(own: NodeId, founding: Founding) -> Cluster {
        let state = founding.state();
        Cluster::joined(own, founding, state)
    }

    /// What a node that took a lost one's place knows when it starts: what it was told then.
    pub fn joined(own: NodeId, founding: Founding, state: State) -> Cluster {
        let state = RwLock::new(Arc::new(state));
        Cluster {
            own,
            founding,
            state,
            moved: Mutex::default(),
            groups: RwLock::default(),
            broken: Mutex::default(),
            #[cfg(madsim)]
            leaders_seen: Mutex::default(),
        }
    }

    /// What a node of a cluster knows when it starts; `None` before that.
    pub fn of(descriptor: &Descriptor) -> Option<Cluster> {
        let founding = descriptor.founding.clone()?;
        Some(match descriptor.joined.clone() {
            Some(state) => Cluster::joined(descriptor.node_id, founding, state),
            None => Cluster::new(descriptor.node_id, founding),
        })
    }

    /// This node.
    pub fn own(&self) -> NodeId {
        self.own
    }

    /// What the cluster was founded with.
    pub fn founding(&self) -> &Founding {
        &self.founding
    }

    /// Nodes and replicas, as far as this node knows.
    pub fn state(&self) -> Arc<State> {
        Arc::clone(&self.state.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The node that took this one's place, if one did.
    pub fn replaced_by(&self) -> Option<NodeId> {
        self.state().replaced.get(&self.own).copied()
    }

    /// A node's places.
    pub fn node(&self, node: NodeId) -> Option<NodePlace> {
        self.state().nodes.get(&node).cloned()
    }

    /// Makes the groups here known, once they are open.
    pub fn serve(&self, groups: Groups) {
        *self.groups.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(groups);
    }

    /// Lets the groups here go: they hold on to the cluster, and it to them.
    pub fn leave(&self) {
        self.serve(Groups::new());
    }

    /// The groups here; none until they are open.
    pub fn groups(&self) -> Arc<Groups> {
        Arc::clone(&self.groups.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// A replica here was replaced: it is not served any more.
    pub fn drop_group(&self, group: GroupId) {
        let mut groups = self.groups.write().unwrap_or_else(PoisonError::into_inner);
        let mut left = Groups::clone(&groups);
        left.remove(&group);
        *groups = Arc::new(left);
    }

    /// A replica here cannot be served.
    pub fn note_broken(&self, group: GroupId, why: String) {
        self.broken.lock().unwrap_or_else(PoisonError::into_inner).insert(group, why);
    }

    /// The replicas here that cannot be served, and why.
    pub fn broken(&self) -> BTreeMap<GroupId, String> {
        self.broken.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A group, if it has a replica here.
    pub fn group(&self, group: GroupId) -> Option<Group> {
        self.groups.read().unwrap_or_else(PoisonError::into_inner).get(&group).cloned()
    }

    /// Who leads a group, as far as the replica here knows.
    pub fn leading(&self, group: GroupId) -> Option<LeadingNode> {
        let leading = self.group(group)?.leading()?;
        let node = self.node_of(group, leading.replica)?;
        #[cfg(madsim)]
        let node = self.or_the_one_before(group, node);
        Some(LeadingNode { node, term: leading.term })
    }

    /// The leader, or the one before where that bug is planted.
    #[cfg(madsim)]
    fn or_the_one_before(&self, group: GroupId, node: NodeId) -> NodeId {
        use crate::simulation::{self, Bug};
        let mut seen = self.leaders_seen.lock().unwrap_or_else(PoisonError::into_inner);
        let (before, last) = seen.entry(group).or_insert((node, node));
        if *last != node {
            (*before, *last) = (*last, node);
        }
        if simulation::has(Bug::StaleShardMap) { *before } else { node }
    }

    /// Takes over what the meta group's replica here has applied since the last time. Returns whether
    /// anything is new.
    pub fn refresh(&self) -> bool {
        let Some(meta) = self.group(META) else { return false };
        let rows = meta.view();
        let known = self.state().epoch;
        let read = State::epoch_of(&rows).and_then(|epoch| match epoch {
            Some(epoch) if epoch > known => State::read(&rows),
            _ => Ok(None),
        });
        match read {
            Ok(state) => state.is_some_and(|state| self.learn(state)),
            Err(damage) => {
                tracing::error!(%damage, "the meta group's rows here cannot be read");
                false
            }
        }
    }

    /// Takes over a state that somebody told of, if it is newer: every one was the meta group's at its
    /// epoch. Returns whether it was.
    pub fn learn(&self, told: State) -> bool {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        let newer = told.cluster_id == state.cluster_id && told.epoch > state.epoch;
        if newer {
            *state = Arc::new(told);
        }
        newer
    }
}

impl AddressBook for Cluster {
    fn peer_address(&self, node: NodeId) -> Option<String> {
        let moved = self.moved.lock().unwrap_or_else(PoisonError::into_inner);
        let known = || self.state().nodes.get(&node).map(|own| own.peer_address.clone());
        moved.get(&node).cloned().or_else(known)
    }

    fn moved(&self, node: NodeId, address: String) {
        if self.state().nodes.contains_key(&node) {
            self.moved.lock().unwrap_or_else(PoisonError::into_inner).insert(node, address);
        }
    }
}

impl Whereabouts for Cluster {
    fn node_of(&self, group: GroupId, replica: ReplicaId) -> Option<NodeId> {
        self.state().node_of(group, replica)
    }

    fn is_replaced(&self, group: GroupId, replica: ReplicaId) -> bool {
        // Asked for each message.
        self.state.read().unwrap_or_else(PoisonError::into_inner).is_replaced(group, replica)
    }
}
