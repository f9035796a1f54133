//! What of a node outlives its process: the directory of its log, and what of its rows is flushed.

use std::sync::Arc;

use purser_node::log::SimDisk;

use crate::rows::{Rows, Scratch};
use crate::world::{Lie, World};

/// The disk of one node, as one process finds and uses it.
#[derive(Clone, Debug)]
pub struct NodeDisk {
    /// Where the log is.
    pub log: SimDisk,
    /// What of the rows is flushed.
    pub rows: Rows,
    /// Both as the process found them, if the disk will forget what came after.
    found: Option<(SimDisk, Rows)>,
}

impl NodeDisk {
    /// An empty disk. RocksDB, where the world has it, keeps its files in the scratch.
    pub fn new(world: &World, scratch: &Arc<Scratch>) -> NodeDisk {
        let rows = Rows::new(world.disk.rocksdb.then_some(scratch));
        NodeDisk::of(SimDisk::new(), rows, world)
    }

    fn of(log: SimDisk, rows: Rows, world: &World) -> NodeDisk {
        rows.flush_after(world.disk.flush_after_writes);
        let forgets = world.lie == Some(Lie::DiskForgets);
        let found = forgets.then(|| (log.duplicate(), rows.duplicate()));
        NodeDisk { log, rows, found }
    }

    /// What is there after the power failed, and came back.
    pub fn after_power_cut(&self, world: &World, seed: u64) -> NodeDisk {
        let (log, rows) = (self.log.crash(seed), self.rows.crash());
        match &self.found {
            None => NodeDisk::of(log, rows, world),
            Some((log, rows)) => NodeDisk::of(log.duplicate(), rows.duplicate(), world),
        }
    }

    /// What is there after the process ended, and the machine stayed on: what it wrote reads back,
    /// synced or not. Rows that it held in memory are gone all the same.
    pub fn after_kill(&self, world: &World) -> NodeDisk {
        NodeDisk::of(self.log.duplicate(), self.rows.crash(), world)
    }
}
