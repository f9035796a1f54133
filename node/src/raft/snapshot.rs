//! Snapshots: a flush for this replica's own log, and what another replica is filled from.
//!
//! A snapshot is a view of the rows at a mark, set while nothing is being applied, so that rows and
//! position belong together. `build_snapshot` returns only when these rows are on disk: from then on
//! the log may be purged up to its position.
//!
//! What arrives from another replica (`incoming`, sent by `outgoing`) is put row by row into a new
//! generation of the shard, next to the rows in use, which stay untouched until it is complete.

use std::io;
use std::sync::{Arc, Mutex};

use openraft::storage::RaftSnapshotBuilder;

use super::codec::{self, Applied};
use super::incoming::Places;
use super::log_store::damaged;
use super::state_machine::{Durable, blocking, wait_for_room};
use super::types::TypeConfig;
use crate::simulation::{self, Bug};
use crate::storage::{NewGeneration, ShardMark, ShardStore, ShardView};

type Snapshot = openraft::type_config::alias::SnapshotOf<TypeConfig, SnapshotData>;

/// The rows of a snapshot.
#[derive(Debug)]
pub enum SnapshotData {
    /// A view of the rows here: to be sent, or copied.
    View(Arc<ShardView>),
    /// Rows that came from another replica.
    Received(Box<Received>),
}

/// Rows that came from another replica, in a generation of their own.
#[derive(Debug)]
pub struct Received {
    pub(super) applied: Applied,
    pub(super) filled: NewGeneration,
    pub(super) places: Places,
}

/// What the rows of a view stand for.
pub(super) fn applied_of(view: &ShardView) -> io::Result<Applied> {
    let applied = view.applied().map_err(io::Error::other)?;
    codec::decode_applied(applied.as_deref()).map_err(damaged)
}

/// Makes one snapshot: of the moment at which it was asked for.
#[derive(Debug)]
pub struct SnapshotBuilder {
    pub(super) store: ShardStore,
    pub(super) mark: Arc<ShardMark>,
    /// The ledger time of the mark.
    pub(super) time_us: u64,
    pub(super) durable: Arc<Mutex<Option<Durable>>>,
}

impl RaftSnapshotBuilder<TypeConfig> for SnapshotBuilder {
    type SnapshotData = SnapshotData;

    async fn build_snapshot(&mut self) -> Result<Snapshot, io::Error> {
        let view = Arc::new(self.flushed().await?);
        let meta = applied_of(&view)?.meta();
        self.store.settle_memos(self.time_us);
        let durable = Durable { meta: meta.clone(), view: Arc::clone(&view) };
        durable.keep(&self.durable);
        Ok(Snapshot { meta, snapshot: SnapshotData::View(view) })
    }
}

impl SnapshotBuilder {
    /// The rows at the mark, once they are on disk. While the disk is full, it waits.
    async fn flushed(&self) -> io::Result<ShardView> {
        if simulation::has(Bug::PurgedPastDurable) {
            return Ok(self.store.view());
        }
        loop {
            let (store, mark) = (self.store.clone(), Arc::clone(&self.mark));
            match blocking(move || store.flush_to(&mark)).await? {
                Ok(view) => return Ok(view),
                Err(error) => wait_for_room(self.store.shard(), error).await?,
            }
        }
    }
}
