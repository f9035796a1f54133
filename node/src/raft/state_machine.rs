//! openraft's state machine, over a shard's rows: applies entries, one atomic write each.
//!
//! Invariants:
//! - Rows, and the position that they stand for, change in one write.
//! - Whatever goes wrong in an entry (damage, a failed store, a panic) ends this group before
//!   anything of that entry is written or answered, and before a later entry is looked at.
//! - The snapshot that openraft is told of is on disk.
//! - An install leaves the rows in use alone until the new ones are complete, flushed, and recorded
//!   in the log as the valid generation. A crash at any point finds the old ones or the new.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::{Stream, TryStreamExt};
use openraft::storage::{EntryResponder, RaftStateMachine};
use openraft::{AsyncRuntime, EntryPayload, OptionalSend};
use purser_ledger::store::{Changes, StoreError};

use super::codec::{self, Applied};
use super::digest::{self, Checkpoint, Digests};
use super::log_store::LogStore;
use super::machine::{Machine, Outcome};
use super::snapshot::{SnapshotBuilder, SnapshotData, applied_of};
use super::types::{Command, LogId, Membership, Runtime, SnapshotMeta, TypeConfig};
use crate::log::{GroupId, Op, Slot};
use crate::simulation::{self, Bug};
use crate::storage::{NewGeneration, ShardStore, ShardView, StorageError};

type Snapshot = openraft::type_config::alias::SnapshotOf<TypeConfig, SnapshotData>;

/// Runs what blocks where it may.
pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
    Runtime::spawn_blocking(work).await
}

/// The newest snapshot that is on disk.
#[derive(Clone, Debug)]
pub(super) struct Durable {
    pub meta: SnapshotMeta,
    pub view: Arc<ShardView>,
}

impl Durable {
    /// Takes the place of an older one.
    pub fn keep(self, place: &Mutex<Option<Durable>>) {
        let mut place = place.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if place.as_ref().is_none_or(|kept| kept.meta.last_log_id <= self.meta.last_log_id) {
            *place = Some(self);
        }
    }
}

/// Why the group ended, for whoever asks: the first reason stays.
pub(super) type Failure = Arc<Mutex<Option<String>>>;

/// One shard's state machine.
pub struct StateMachine {
    group: GroupId,
    store: ShardStore,
    log: LogStore,
    machine: Arc<dyn Machine>,
    applied: Applied,
    digests: Digests,
    /// The ledger time of the last entry applied since the start.
    time_us: u64,
    durable: Arc<Mutex<Option<Durable>>>,
    failure: Failure,
}

impl std::fmt::Debug for StateMachine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StateMachine")
            .field("store", &self.store)
            .field("last", &self.applied.last)
            .finish_non_exhaustive()
    }
}

impl StateMachine {
    /// The state machine of a shard. What its rows hold is on disk afterwards, and counts as a
    /// snapshot: after a start that is so already, but a group may also be opened again by the same
    /// process, over rows that were not flushed. No other state machine may use the shard.
    pub fn new(
        group: GroupId,
        store: ShardStore,
        log: LogStore,
        machine: Arc<dyn Machine>,
    ) -> io::Result<StateMachine> {
        let view = Arc::new(store.flush_to(&store.mark()).map_err(io::Error::other)?);
        let applied = applied_of(&view)?;
        let durable = applied.last.map(|_| Durable { meta: applied.meta(), view });
        let digests = Digests::default();
        digests.begin_at(checkpoint(&applied));
        Ok(StateMachine {
            group,
            store,
            log,
            machine,
            applied,
            digests,
            time_us: 0,
            durable: Arc::new(Mutex::new(durable)),
            failure: Failure::default(),
        })
    }

    /// The last entry in the rows.
    pub(super) fn last(&self) -> Option<LogId> {
        self.applied.last
    }

    /// Whether its state was found to be wrong.
    pub(super) fn is_quarantined(&self) -> bool {
        self.applied.quarantined
    }

    pub(super) fn digests(&self) -> Digests {
        self.digests.clone()
    }

    pub(super) fn failure(&self) -> Failure {
        Arc::clone(&self.failure)
    }

    /// The durable snapshot, in its own words.
    fn durable(&self) -> Option<Durable> {
        self.durable.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).clone()
    }

    async fn apply_one(&mut self, (entry, responder): EntryResponder<TypeConfig>) -> io::Result<()> {
        self.refuse_quarantined()?;
        let at = entry.log_id;
        let outcome = match &entry.payload {
            EntryPayload::Blank => None,
            EntryPayload::Membership(members) => {
                self.applied.membership = Membership::new(Some(at), members.clone());
                None
            }
            EntryPayload::Normal(command) => Some(self.judge(command)?),
        };
        self.applied.last = Some(at);
        let (changes, answers) = match outcome {
            Some(outcome) => {
                self.time_us = self.time_us.max(outcome.time_us);
                (outcome.changes, outcome.answers)
            }
            None => (Changes::new(), Vec::new()),
        };
        self.applied.digest = digest::roll(self.applied.digest, at.index, changes.iter());
        let applied = codec::encode_applied(&self.applied);
        // A full disk holds the entry up: it is written then, and never judged again.
        while let Err(error) = self.store.make_room() {
            wait_for_room(self.store.shard(), error).await?;
        }
        self.store.write(changes.iter(), &applied).map_err(io::Error::other)?;
        self.digests.note(Checkpoint { index: at.index, digest: self.applied.digest });
        if let Some(responder) = responder {
            responder.send(answers);
        }
        Ok(())
    }

    /// Asks the machine. A panic goes no further than here.
    fn judge(&self, command: &Command) -> io::Result<Outcome> {
        let judged = catch_unwind(AssertUnwindSafe(|| self.machine.apply(&self.store, &command.0)));
        match judged {
            Ok(outcome) => outcome.map_err(|damage| io::Error::new(io::ErrorKind::InvalidData, damage)),
            Err(panic) => Err(io::Error::other(format!("applying panicked: {}", what_panicked(&*panic)))),
        }
    }

    fn refuse_quarantined(&self) -> io::Result<()> {
        let sound = !self.applied.quarantined;
        sound.then_some(()).ok_or_else(|| io::Error::other("the state of this replica is wrong"))
    }

    /// Marks the state as wrong, here and on disk: nothing is applied to it any more, and it is not
    /// opened again.
    pub(super) async fn quarantine(&mut self, why: String) {
        self.note_failure(&io::Error::other(why));
        self.applied.quarantined = true;
        let (store, applied) = (self.store.clone(), codec::encode_applied(&self.applied));
        let marked = blocking(move || store.write([], &applied).and_then(|()| store.flush())).await;
        if let Err(error) = marked.and_then(|marked| marked.map_err(io::Error::other)) {
            tracing::error!(group = self.group.0, %error, "the mark of a wrong state is not on disk");
        }
    }

    fn note_failure(&self, error: &io::Error) {
        tracing::error!(group = self.group.0, last = ?self.applied.last, %error, "the group stops on this node");
        let mut failure = self.failure.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        failure.get_or_insert_with(|| error.to_string());
    }

    /// Rows that came, in a new generation, become the valid ones.
    async fn install(&mut self, meta: &SnapshotMeta, snapshot: SnapshotData) -> io::Result<()> {
        self.refuse_quarantined()?;
        if meta.last_log_id.is_none() {
            return Err(io::Error::other("a snapshot of nothing cannot be installed"));
        }
        let applied = match &snapshot {
            SnapshotData::Received(received) => received.applied.clone(),
            SnapshotData::View(view) => applied_of(view)?,
        };
        let bytes = codec::encode_applied(&applied);
        let store = self.store.clone();
        let filled = blocking(move || -> Result<_, InstallError> {
            let (mut filled, places) = match snapshot {
                SnapshotData::Received(received) => (received.filled, Some(received.places)),
                SnapshotData::View(view) => (copy(&view, &store)?, None),
            };
            filled.finish(&bytes)?;
            Ok((filled, places))
        });
        // The places are kept until the new rows are in use: no other snapshot fills them meanwhile.
        let (filled, _places) = filled.await?.map_err(io::Error::other)?;

        let value = codec::encode_generation(filled.generation());
        self.log.write(Op::Put { group: self.group, slot: Slot::Generation, value }).await?;
        self.store.switch_to(filled).map_err(io::Error::other)?;

        self.applied = applied;
        self.digests.begin_at(checkpoint(&self.applied));
        // All of it is on disk: there is nothing to wait for.
        let view = match simulation::has(Bug::SnapshotUsedBeforeFlush) {
            true => self.store.view(),
            false => self.store.flush_to(&self.store.mark()).map_err(io::Error::other)?,
        };
        let durable = Durable { meta: meta.clone(), view: Arc::new(view) };
        durable.keep(&self.durable);
        Ok(())
    }
}

#[derive(Debug, thiserror::Error)]
enum InstallError {
    #[error(transparent)]
    Read(#[from] StoreError),
    #[error(transparent)]
    Write(#[from] StorageError),
}

fn copy(view: &ShardView, store: &ShardStore) -> Result<NewGeneration, InstallError> {
    let mut filled = store.next_generation()?;
    let mut put = Ok(());
    view.rows(&mut |key, row| {
        put = filled.put(key, row);
        put.is_ok()
    })?;
    put?;
    Ok(filled)
}

fn checkpoint(applied: &Applied) -> Option<Checkpoint> {
    applied.last.map(|last| Checkpoint { index: last.index, digest: applied.digest })
}

fn what_panicked(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("for an unknown reason")
}

impl RaftStateMachine<TypeConfig> for StateMachine {
    type SnapshotData = SnapshotData;
    type SnapshotBuilder = SnapshotBuilder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, Membership), io::Error> {
        Ok((self.applied.last, self.applied.membership.clone()))
    }

    async fn apply<Strm>(&mut self, mut entries: Strm) -> Result<(), io::Error>
    where
        Strm: Stream<Item = Result<EntryResponder<TypeConfig>, io::Error>> + Unpin + OptionalSend,
    {
        while let Some(entry) = entries.try_next().await.inspect_err(|error| self.note_failure(error))? {
            self.apply_one(entry).await.inspect_err(|error| self.note_failure(error))?;
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> SnapshotBuilder {
        SnapshotBuilder {
            store: self.store.clone(),
            mark: Arc::new(self.store.mark()),
            time_us: self.time_us,
            durable: Arc::clone(&self.durable),
        }
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        snapshot: SnapshotData,
    ) -> Result<(), io::Error> {
        self.install(meta, snapshot).await.inspect_err(|error| self.note_failure(error))
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot>, io::Error> {
        let durable = self.durable();
        Ok(durable.map(|Durable { meta, view }| Snapshot { meta, snapshot: SnapshotData::View(view) }))
    }
}

/// How long a full disk is left alone before the next attempt.
const ROOM_LOOK_EVERY: Duration = Duration::from_secs(1);

/// A committed entry has to be applied: a full disk holds the group up until there is room, and does
/// not end it. Any other error does.
pub(super) async fn wait_for_room(shard: u16, error: StorageError) -> io::Result<()> {
    if !matches!(error, StorageError::NoSpace { .. }) {
        return Err(io::Error::other(error));
    }
    tracing::error!(shard, %error, "the shard waits for room on the disk");
    tokio::time::sleep(ROOM_LOOK_EVERY).await;
    Ok(())
}
