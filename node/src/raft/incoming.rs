//! Takes a snapshot from another replica in: row by row into a new generation of the shard. The
//! other end is `outgoing`.
//!
//! Invariants:
//! - Nothing is installed unless every chunk came, once, in order, and all add up to what the sender
//!   counted.
//! - One snapshot a group: a new one takes the place of one that is arriving, and is refused while
//!   one is being installed. A generation that is being filled has a number, and two must not share it.
//! - Two a node: filling is work for its disk.
//! - What is given up (by the sender, by silence, by an error) leaves the rows in use as they were.

use std::sync::{Arc, Weak};
use std::time::Duration;

use openraft::async_runtime::WatchReceiver;
use openraft::type_config::alias::SnapshotOf;
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore};

use super::codec::{Applied, Undecodable};
use super::group::Inner;
use super::snapshot::{Received, SnapshotData};
use super::state_machine::blocking;
use super::types::{ReplicaId, TypeConfig, Vote};
use super::wire::{self, Answer, Part, SessionId, Total};
use crate::simulation;
use crate::storage::{NewGeneration, StorageError};

/// Snapshots that arrive at one node at once.
pub(super) const ARRIVING_AT_NODE_MAX: usize = 2;

/// What a snapshot holds from its beginning until it is installed or given up.
#[derive(Debug)]
pub struct Places {
    _in_group: OwnedSemaphorePermit,
    _in_node: OwnedSemaphorePermit,
}

/// What arrives at one group.
pub(super) struct Incoming {
    in_group: Arc<Semaphore>,
    in_node: Arc<Semaphore>,
    idle_max: Duration,
    session: Mutex<Option<Session>>,
}

struct Session {
    from: ReplicaId,
    id: SessionId,
    vote: Vote,
    applied: Applied,
    filled: NewGeneration,
    places: Places,
    crc: crc32fast::Hasher,
    /// What came so far; its crc is worked out at the end.
    so_far: Total,
}

#[derive(Debug, thiserror::Error)]
enum FillError {
    #[error(transparent)]
    Rows(#[from] Undecodable),
    #[error(transparent)]
    Store(#[from] StorageError),
}

impl Session {
    fn is(&self, from: ReplicaId, id: SessionId) -> bool {
        self.from == from && self.id == id
    }

    /// Blocks.
    fn fill(mut self, rows: &[u8]) -> Result<Session, FillError> {
        let filled = &mut self.filled;
        let count = wire::read_rows(rows, |key, row| filled.put(key, row).map_err(FillError::from))?;
        self.crc.update(rows);
        self.so_far.chunks += 1;
        self.so_far.rows += count;
        Ok(self)
    }
}

impl Incoming {
    /// `in_node` is shared by the groups of a node.
    pub fn new(in_node: Arc<Semaphore>, idle_max: Duration) -> Incoming {
        Incoming { in_group: Arc::new(Semaphore::new(1)), in_node, idle_max, session: Mutex::default() }
    }

    fn places(&self) -> Result<Places, String> {
        let in_group = Arc::clone(&self.in_group).try_acquire_owned();
        let in_group = in_group.map_err(|_| "a snapshot of this group is being installed here".to_owned())?;
        let in_node = Arc::clone(&self.in_node).try_acquire_owned();
        let in_node =
            in_node.map_err(|_| "too many snapshots are arriving at this node already".to_owned())?;
        Ok(Places { _in_group: in_group, _in_node: in_node })
    }

    /// Gives a session up that stands still.
    async fn watch(this: Weak<Incoming>, idle_max: Duration, from: ReplicaId, id: SessionId) {
        let mut seen = 0;
        loop {
            tokio::time::sleep(idle_max).await;
            let Some(incoming) = this.upgrade() else { return };
            let mut session = incoming.session.lock().await;
            match session.as_ref().filter(|session| session.is(from, id)).map(|session| session.so_far.chunks)
            {
                None => return,
                Some(chunks) if chunks == seen => {
                    tracing::warn!(from = from.0, chunks, "no more of a snapshot arrived: it is given up");
                    *session = None;
                    return;
                }
                Some(chunks) => seen = chunks,
            }
        }
    }
}

impl Inner {
    /// Takes a part of a snapshot in. An error says why it is refused; the sender begins anew.
    pub(super) async fn take_part(
        self: Arc<Inner>,
        from: ReplicaId,
        id: SessionId,
        part: Part,
    ) -> Result<Answer, String> {
        match part {
            Part::Begin { vote, applied } => self.begin_snapshot(from, id, vote, applied).await,
            Part::Chunk { number, rows } => {
                let mut session = self.incoming.session.lock().await;
                let Some(current) = session.take_if(|session| session.is(from, id)) else {
                    return Err("no such snapshot is arriving".to_owned());
                };
                let due = current.so_far.chunks;
                if number != due {
                    *session = Some(current);
                    // The last one may come twice.
                    let again = number.checked_add(1) == Some(due);
                    return if again {
                        Ok(Answer::GoesOn)
                    } else {
                        Err(format!("chunk {number} came, {due} is due"))
                    };
                }
                let filled =
                    blocking(move || current.fill(&rows)).await.map_err(|error| error.to_string())?;
                *session = Some(filled.map_err(|error| error.to_string())?);
                Ok(Answer::GoesOn)
            }
            Part::End(total) => {
                let current = self.incoming.session.lock().await.take_if(|session| session.is(from, id));
                let current = current.ok_or("no such snapshot is arriving")?;
                self.install_snapshot(current, total).await
            }
        }
    }

    async fn begin_snapshot(
        self: &Arc<Inner>,
        from: ReplicaId,
        id: SessionId,
        vote: Vote,
        applied: Applied,
    ) -> Result<Answer, String> {
        let position = applied.last.ok_or("a snapshot of nothing")?;
        if position.leader_id.term > vote.leader_id.term {
            return Err("a snapshot from beyond its leader's term".to_owned());
        }
        if applied.quarantined {
            return Err("a snapshot of a state that is known to be wrong".to_owned());
        }
        {
            let metrics = self.raft.metrics();
            let now = metrics.borrow_watched();
            if vote < now.vote || now.snapshot >= Some(position) {
                return Ok(Answer::HasIt(now.vote));
            }
        }
        let mut session = self.incoming.session.lock().await;
        if session.as_ref().is_some_and(|session| session.is(from, id)) {
            return Ok(Answer::GoesOn);
        }
        *session = None;
        let places = self.incoming.places()?;
        let store = self.store.clone();
        let filled = blocking(move || store.next_generation()).await.map_err(|error| error.to_string())?;
        let filled = filled.map_err(|error| error.to_string())?;
        tracing::info!(
            group = self.link.group.0,
            from = from.0,
            index = position.index,
            "a snapshot arrives"
        );
        let (crc, so_far) = (crc32fast::Hasher::new(), Total::default());
        *session = Some(Session { from, id, vote, applied, filled, places, crc, so_far });
        let idle_max = self.incoming.idle_max;
        tokio::spawn(Incoming::watch(Arc::downgrade(&self.incoming), idle_max, from, id));
        Ok(Answer::GoesOn)
    }

    /// Has openraft install what came, if it is all there.
    async fn install_snapshot(&self, session: Session, total: Total) -> Result<Answer, String> {
        let came = Total { crc: session.crc.finalize(), ..session.so_far };
        if came != total {
            return Err(format!("the snapshot is not whole: {came:?} came of {total:?}"));
        }
        let meta = session.applied.meta();
        let received = Received { applied: session.applied, filled: session.filled, places: session.places };
        let snapshot: SnapshotOf<TypeConfig, SnapshotData> =
            openraft::Snapshot { meta, snapshot: SnapshotData::Received(Box::new(received)) };
        let response = self.raft.install_full_snapshot(session.vote, snapshot).await;
        simulation::mark("snapshot installed");
        Ok(Answer::HasIt(response.map_err(|fatal| self.stopped(&fatal).0)?.vote))
    }
}

#[cfg(test)]
mod tests {
    use super::super::types::log_id;
    use super::*;
    use crate::storage::{Generation, StateStore, StoreOptions};

    fn incoming(in_node: &Arc<Semaphore>) -> Incoming {
        Incoming::new(in_node.clone(), Duration::from_millis(1))
    }

    #[test]
    fn one_snapshot_arrives_at_a_group_and_two_at_a_node() {
        let in_node = Arc::new(Semaphore::new(ARRIVING_AT_NODE_MAX));
        let (one, two, three) = (incoming(&in_node), incoming(&in_node), incoming(&in_node));
        let first = one.places().expect("a place");
        assert!(one.places().expect_err("taken").contains("this group"));
        let _second = two.places().expect("a place");
        assert!(three.places().expect_err("taken").contains("this node"));
        drop(first);
        three.places().expect("a place");
    }

    #[test]
    fn a_snapshot_that_stands_still_is_given_up() {
        let directory = tempfile::tempdir().expect("a directory");
        let state = StateStore::open(directory.path(), StoreOptions::new("node")).expect("opens");
        let store = state.shard(1, Generation::FIRST).expect("opens");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
        runtime.block_on(async {
            let incoming = Arc::new(incoming(&Arc::new(Semaphore::new(1))));
            let (from, id) = (ReplicaId(1), SessionId(0));
            let session = Session {
                from,
                id,
                vote: Vote::new_committed(1, from),
                applied: Applied { last: Some(log_id(1, 1)), ..Applied::default() },
                filled: store.next_generation().expect("begun"),
                places: incoming.places().expect("a place"),
                crc: crc32fast::Hasher::new(),
                so_far: Total::default(),
            };
            *incoming.session.lock().await = Some(session);
            Incoming::watch(Arc::downgrade(&incoming), incoming.idle_max, from, id).await;
            assert!(incoming.session.lock().await.is_none());
            incoming.places().expect("a place");
        });
    }
}
