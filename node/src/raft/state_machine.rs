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
use purser_ledger::store::StoreError;

use super::codec::{self, Applied};
use super::log_store::{LogStore, damaged};
use super::machine::{Machine, Outcome};
use super::seal::unseal;
use super::snapshot::{SnapshotBuilder, SnapshotData, meta_of};
use super::types::{Command, LogId, Membership, Runtime, SnapshotMeta, TypeConfig};
use crate::log::{GroupId, Op, Slot};
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
    membership: Membership,
    last: Option<LogId>,
    /// The ledger time of the last entry applied since the start.
    time_us: u64,
    durable: Arc<Mutex<Option<Durable>>>,
    failure: Failure,
}

impl std::fmt::Debug for StateMachine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StateMachine")
            .field("store", &self.store)
            .field("last", &self.last)
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
        let view = Arc::new(store.view());
        let meta = meta_of(&view)?;
        if meta.last_log_id.is_some() {
            store.flush().map_err(io::Error::other)?;
        }
        let Applied { last, membership } = Applied::of(&meta);
        let durable = last.map(|_| Durable { meta, view });
        Ok(StateMachine {
            group,
            store,
            log,
            machine,
            membership,
            last,
            time_us: 0,
            durable: Arc::new(Mutex::new(durable)),
            failure: Failure::default(),
        })
    }

    /// The last entry in the rows.
    pub(super) fn last(&self) -> Option<LogId> {
        self.last
    }

    pub(super) fn failure(&self) -> Failure {
        Arc::clone(&self.failure)
    }

    /// The durable snapshot, in its own words.
    fn durable(&self) -> Option<Durable> {
        self.durable.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).clone()
    }

    async fn apply_one(&mut self, (entry, responder): EntryResponder<TypeConfig>) -> io::Result<()> {
        let at = entry.log_id;
        let outcome = match &entry.payload {
            EntryPayload::Blank => None,
            EntryPayload::Membership(members) => {
                self.membership = Membership::new(Some(at), members.clone());
                None
            }
            EntryPayload::Normal(command) => Some(self.judge(command)?),
        };
        let applied = codec::encode_applied(&at, &self.membership);
        // The rows of an entry are written again and again while the disk is full, never judged again.
        while let Err(error) = match &outcome {
            Some(outcome) => self.store.write(outcome.changes.iter(), &applied),
            None => self.store.write([], &applied),
        } {
            wait_for_room(self.store.shard(), error).await?;
        }
        self.last = Some(at);
        let answers = match outcome {
            Some(outcome) => {
                self.time_us = self.time_us.max(outcome.time_us);
                outcome.answers
            }
            None => Vec::new(),
        };
        if let Some(responder) = responder {
            responder.send(answers);
        }
        Ok(())
    }

    /// Asks the machine. A panic goes no further than here.
    fn judge(&self, command: &Command) -> io::Result<Outcome> {
        let entry = unseal(command).map_err(damaged)?;
        let judged = catch_unwind(AssertUnwindSafe(|| self.machine.apply(&self.store, entry)));
        match judged {
            Ok(outcome) => outcome.map_err(|damage| io::Error::new(io::ErrorKind::InvalidData, damage)),
            Err(panic) => Err(io::Error::other(format!("applying panicked: {}", what_panicked(&*panic)))),
        }
    }

    fn note_failure(&self, error: &io::Error) {
        tracing::error!(group = self.group.0, last = ?self.last, %error, "the group stops on this node");
        let mut failure = self.failure.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        failure.get_or_insert_with(|| error.to_string());
    }

    /// Rows that came, in a new generation, become the valid ones.
    async fn install(&mut self, meta: &SnapshotMeta, snapshot: SnapshotData) -> io::Result<()> {
        let applied = Applied::of(meta);
        let last =
            applied.last.ok_or_else(|| io::Error::other("a snapshot of nothing cannot be installed"))?;
        let bytes = codec::encode_applied(&last, &applied.membership);
        let store = self.store.clone();
        let filled = blocking(move || -> Result<NewGeneration, InstallError> {
            let mut filled = match snapshot {
                SnapshotData::Received(filled) => filled,
                SnapshotData::View(view) => copy(&view, &store)?,
            };
            filled.finish(&bytes)?;
            Ok(filled)
        });
        let filled = filled.await?.map_err(io::Error::other)?;

        let value = codec::encode_generation(filled.generation());
        self.log.write(Op::Put { group: self.group, slot: Slot::Generation, value }).await?;
        self.store.switch_to(filled).map_err(io::Error::other)?;

        self.last = Some(last);
        self.membership = applied.membership;
        let durable = Durable { meta: meta.clone(), view: Arc::new(self.store.view()) };
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

fn what_panicked(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("for an unknown reason")
}

impl RaftStateMachine<TypeConfig> for StateMachine {
    type SnapshotData = SnapshotData;
    type SnapshotBuilder = SnapshotBuilder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, Membership), io::Error> {
        Ok((self.last, self.membership.clone()))
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
            view: Arc::new(self.store.view()),
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
