//! What all nodes of a world share, and what of it is lost for now or for good.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use purser_node::cluster::{Founding, NodeId, NodePlace};
use purser_node::simulation::mark;

use crate::clocks::Clocks;
use crate::history::History;
use crate::network::Network;
use crate::referee::Referee;
use crate::rows::Scratch;
use crate::trace::Trace;
use crate::world::World;

/// The founding of a world's cluster: nodes `n1`, `n2` and so on, which are found under their names.
pub fn founding(world: &World) -> Founding {
    let place = |number: u16| NodePlace {
        id: NodeId(uuid::Uuid::from_u128(number.into())),
        api_address: format!("n{number}"),
        peer_address: format!("p{number}"),
        version: String::new(),
    };
    Founding {
        cluster_id: uuid::Uuid::from_u128(0xc1),
        shards: world.shards,
        replicas: world.replicas,
        nodes: (1..=world.nodes).map(place).collect(),
    }
}

/// How long writes may take to go on once the clocks let them.
const AFTER_CLOCKS: Duration = Duration::from_secs(30);

/// What all nodes share.
pub struct Setting {
    /// The world.
    pub world: World,
    /// Its cluster.
    pub founding: Founding,
    /// The network.
    pub network: Network,
    /// Its clocks.
    pub clocks: Clocks,
    /// A node's log has rotted.
    pub rotten: AtomicBool,
    /// A replica was lost for good, by that or with its whole disk.
    pub lost: AtomicBool,
    /// The place where disks were lost, and how many of those nodes are not replaced yet.
    pub losses: Mutex<Option<(usize, u32)>>,
    /// Who lives at each place now.
    pub residents: Mutex<Vec<NodeId>>,
    /// Where entries are told of.
    pub history: Arc<History>,
    /// Who hears of broken promises.
    pub referee: Arc<Referee>,
    /// What happens.
    pub trace: Arc<Trace>,
    /// Where RocksDB keeps its files.
    pub scratch: Arc<Scratch>,
}

impl Setting {
    /// For each shard the places, among the nodes, of those that have its replicas.
    pub fn homes(&self) -> Vec<Vec<usize>> {
        let place = |id: NodeId| self.founding.nodes.iter().position(|node| node.id == id);
        // The first group is the meta group.
        let shards = self.founding.state().groups.into_iter().skip(1);
        shards.map(|group| group.replicas.iter().filter_map(|own| place(own.node)).collect()).collect()
    }

    /// A disk at this place is about to be lost. False where that would be too much: while another place
    /// has lost one. The node that comes in a lost one's place may be lost in turn.
    pub fn lose_at(&self, place: usize) -> bool {
        let mut losses = lock(&self.losses);
        let open = match *losses {
            Some((other, _)) if other != place => return false,
            Some((_, open)) => open,
            None => 0,
        };
        if open > 0 {
            mark("lost again before it was replaced");
        }
        *losses = Some((place, open + 1));
        self.lost.store(true, Ordering::Relaxed);
        true
    }

    /// A lost node is replaced, with all its replicas.
    pub fn is_replaced(&self) {
        let mut losses = lock(&self.losses);
        *losses =
            losses.and_then(|(place, open)| Some((place, open.checked_sub(1).filter(|open| *open > 0)?)));
    }

    /// Whether a lost node is not replaced yet.
    pub fn replaces(&self) -> bool {
        lock(&self.losses).is_some()
    }

    /// Who lives at each place now.
    pub fn residents(&self) -> Vec<NodeId> {
        lock(&self.residents).clone()
    }

    /// Until when a write may be left without an answer though nothing fails any more. One node in three
    /// may fail; where one is lost for good and the clock of a second one ran ahead, what that one
    /// proposed has to wait until its time has come.
    pub fn patience_ends(&self) -> Duration {
        if self.lost.load(Ordering::Relaxed) {
            self.clocks.highest_shown() + AFTER_CLOCKS
        } else {
            Duration::ZERO
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}
