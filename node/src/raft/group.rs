//! One Raft group, as the rest of the node sees it: propose, read, receive, flush, stop.
//!
//! Many proposals may be under way: `submit` hands one over, in order, and returns at once; what it
//! gives back waits for the answers. So the next batch forms and is proposed while the last one is
//! being made durable.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::future::Future;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use openraft::async_runtime::WatchReceiver;
use openraft::errors::{ClientWriteError, ForwardToLeader, LinearizableReadError, RaftError};
use openraft::impls::OneshotResponder;
use openraft::raft::ReadPolicy;
use openraft::{Raft, ServerState};
use purser_ledger::time::Span;
use tokio::time::Instant;

use super::codec;
use super::digest::Digests;
use super::error::{ProposeError, ReadError, Stopped};
use super::halt::Halt;
use super::incoming::Incoming;
use super::machine::Machine;
use super::network::Link;
use super::receive::ENTRY_OVERHEAD_BYTES;
use super::state_machine::{Failure, StateMachine};
use super::types::{Answers, Command, LogId, ReplicaId, TypeConfig};
use crate::clock::Clock;
use crate::log::{GroupId, LogHandle};
use crate::simulation::{self, Bug};
use crate::storage::{ShardStore, ShardView};

/// openraft passes over a snapshot that is asked for while it makes an older one: ask again then.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// What became of a proposal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proposed {
    /// The index of its entry.
    pub log_index: u64,
    /// The answers to its items, in order.
    pub answers: Answers,
}

/// Numbers for the metrics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupMetrics {
    /// Whether this replica leads.
    pub leads: bool,
    /// Who leads, as far as this replica knows.
    pub leader: Option<ReplicaId>,
    /// The term.
    pub term: u64,
    /// The last index in the log.
    pub last_index: Option<u64>,
    /// The last index applied.
    pub applied_index: Option<u64>,
    /// The last index that is in rows on disk.
    pub flushed_index: Option<u64>,
    /// The last index purged from the log.
    pub purged_index: Option<u64>,
    /// Who votes.
    pub voters: BTreeSet<ReplicaId>,
    /// For a leader: each follower, and the last index at which its log is known to be the same.
    pub followers: BTreeMap<ReplicaId, Option<u64>>,
    /// Why it does not work, if it does not.
    pub stopped: Option<String>,
}

pub(super) struct Inner {
    pub link: Link,
    pub raft: Raft<TypeConfig, StateMachine>,
    pub incoming: Arc<Incoming>,
    /// Places for appends that are under way.
    pub appends: Arc<tokio::sync::Semaphore>,
    pub log: LogHandle,
    pub store: ShardStore,
    pub failure: Failure,
    pub digests: Digests,
    pub entries_kept_max: u64,
    /// The longest election timeout.
    pub election_max: Duration,
    pub halt: Halt,
    pub machine: Arc<dyn Machine>,
    pub clock: Arc<Clock>,
    /// How far entries may be ahead of the clock.
    pub clock_bound: Span,
    pub flushing: tokio::sync::Mutex<()>,
    pub handing_over: tokio::sync::Mutex<()>,
    /// The node is going away.
    pub leaving: AtomicBool,
    pub heard: Mutex<Heard>,
}

/// What a replica heard of a leader.
#[derive(Clone, Copy, Debug)]
pub(super) struct Heard {
    /// When, last.
    pub at: Instant,
    /// When openraft was told of what is committed, last.
    pub commit_at: Instant,
}

impl Heard {
    pub fn at(now: Instant) -> Heard {
        Heard { at: now, commit_at: now }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.link.refusals.wake();
    }
}

impl Inner {
    /// When the leader was heard of last.
    pub fn last_heard(&self) -> Instant {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).at
    }

    /// The reason, in the words of whoever failed first.
    pub fn stopped(&self, otherwise: &dyn fmt::Display) -> Stopped {
        let failure = self.failure.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        Stopped(failure.clone().unwrap_or_else(|| otherwise.to_string()))
    }
}

/// A handle to a group. Cheap to clone.
#[derive(Clone)]
pub struct Group {
    pub(super) inner: Arc<Inner>,
}

impl fmt::Debug for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Group").field("group", &self.inner.link.group).finish_non_exhaustive()
    }
}

impl Group {
    /// Which group.
    pub fn id(&self) -> GroupId {
        self.inner.link.group
    }

    /// Which replica is here.
    pub fn replica(&self) -> ReplicaId {
        self.inner.link.replica
    }

    /// Takes a message of another replica in, without waiting: what it returns waits for the answer.
    /// Messages of one sender are to be handed over in the order in which they came. An error says
    /// why the message is refused, or that the group does not work here any more.
    pub fn receive(&self, message: Bytes) -> BoxFuture<'static, Result<Bytes, String>> {
        match self.inner.receive(&message) {
            Ok(answering) => answering,
            Err(why) => async { Err(why) }.boxed(),
        }
    }

    /// Waits until a leader is known, and, if it is this replica, until it has applied all that was
    /// committed before.
    pub async fn ready(&self) -> Result<(), Stopped> {
        let raft = &self.inner.raft;
        loop {
            let led = raft.wait(None).metrics(|now| now.current_leader.is_some(), "a leader is known").await;
            if led.map_err(|error| self.stopped(&error))?.current_leader != Some(self.replica()) {
                return Ok(());
            }
            match self.read_index().await {
                Ok(_) => return Ok(()),
                Err(ReadError::Stopped(stopped)) => return Err(stopped),
                // It was overthrown, or the others do not hear it yet.
                Err(_) => tokio::time::sleep(ASK_AGAIN).await,
            }
        }
    }

    /// Hands a command over. Commands submitted one after the other are proposed in that order.
    /// Waits only while too many are under way.
    pub async fn submit(&self, command: Bytes) -> Result<Pending, ProposeError> {
        let (bytes, bytes_max) = (command.len(), self.inner.link.command_bytes_max);
        if bytes > bytes_max {
            return Err(ProposeError::TooLarge { bytes, bytes_max });
        }
        let log_bytes = command.len() as u64 + ENTRY_OVERHEAD_BYTES;
        let Some((_, claim)) = self.inner.log.claim(self.id(), [log_bytes]) else {
            simulation::mark("a full log took no command");
            return Err(ProposeError::NoSpace);
        };
        self.inner.halt.check(|| self.inner.raft.metrics().borrow_watched().current_term)?;
        let (responder, answer) = OneshotResponder::new_pair();
        let submitted = self.inner.raft.client_write_ff(Command(command), Some(responder)).await;
        submitted.map_err(|fatal| ProposeError::Stopped(self.stopped(&fatal).0))?;
        let group = self.clone();
        let answer = async move {
            let answer = answer.await;
            drop(claim);
            match answer {
                Ok(Ok(written)) => Ok(Proposed { log_index: written.log_id.index, answers: written.data }),
                Ok(Err(ClientWriteError::ForwardToLeader(to))) => {
                    Err(ProposeError::NotLeader { leader: leader(to) })
                }
                Ok(Err(ClientWriteError::LogEntryDiscarded(to))) => {
                    Err(ProposeError::Overtaken { leader: leader(to) })
                }
                Ok(Err(other)) => Err(ProposeError::Stopped(other.to_string())),
                Err(_) => Err(ProposeError::Stopped(group.stopped(&"it ended").0)),
            }
        };
        Ok(Pending { answer: answer.boxed() })
    }

    /// Hands a command over and waits for its answers.
    pub async fn propose(&self, command: Bytes) -> Result<Proposed, ProposeError> {
        self.submit(command).await?.await
    }

    /// Confirms with a quorum that this replica leads, and waits until everything that was committed
    /// when it was asked is applied. A view taken afterwards is linearizable. Returns the index.
    pub async fn read_index(&self) -> Result<u64, ReadError> {
        if simulation::has(Bug::ReadWithoutQuorum) && self.is_leader() {
            let applied = self.inner.raft.metrics().borrow_watched().last_applied;
            return Ok(applied.map_or(0, |last| last.index));
        }
        match self.inner.raft.ensure_linearizable(ReadPolicy::ReadIndex).await {
            Ok(confirmed) => Ok(confirmed.index()),
            Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(to))) => {
                Err(ReadError::NotLeader { leader: leader(to) })
            }
            Err(RaftError::APIError(LinearizableReadError::QuorumNotEnough(why))) => {
                Err(ReadError::NoQuorum(why.to_string()))
            }
            Err(RaftError::Fatal(fatal)) => Err(self.stopped(&fatal).into()),
        }
    }

    /// A view of the rows at this instant. Linearizable only after `read_index`.
    pub fn view(&self) -> ShardView {
        self.inner.store.view()
    }

    /// The rows.
    pub fn store(&self) -> &ShardStore {
        &self.inner.store
    }

    /// Whether this replica leads, as far as it knows.
    pub fn is_leader(&self) -> bool {
        self.inner.raft.is_leader()
    }

    /// The last index in the rows: everything that was answered is in it. openraft's own number
    /// comes a little later.
    fn applied_index(&self) -> Result<Option<u64>, Stopped> {
        let applied = self.inner.store.applied().map_err(|error| self.stopped(&error))?;
        let applied = codec::decode_applied(applied.as_deref()).map_err(|error| self.stopped(&error))?;
        Ok(applied.last.map(|last| last.index))
    }

    fn followers<'m>(
        &self,
        replication: impl Iterator<Item = (&'m ReplicaId, &'m Option<LogId>)>,
    ) -> BTreeMap<ReplicaId, Option<u64>> {
        let others = replication.filter(|(replica, _)| **replica != self.replica());
        others.map(|(replica, matched)| (*replica, matched.map(|id| id.index))).collect()
    }

    /// Numbers for the metrics.
    pub fn metrics(&self) -> GroupMetrics {
        let metrics = self.inner.raft.metrics();
        let metrics = metrics.borrow_watched();
        GroupMetrics {
            leads: metrics.state == ServerState::Leader,
            leader: metrics.current_leader,
            term: metrics.current_term,
            last_index: metrics.last_log_index,
            applied_index: self.applied_index().ok().flatten(),
            flushed_index: metrics.snapshot.map(|id| id.index),
            purged_index: metrics.purged.map(|id| id.index),
            voters: metrics.membership_config.voter_ids().collect(),
            followers: self.followers(metrics.replication.iter().flatten()),
            stopped: metrics.running_state.as_ref().err().map(|fatal| self.stopped(fatal).0),
        }
    }

    /// Waits until the group does not work any more, and says why.
    pub async fn ended(&self) -> Stopped {
        let mut metrics = self.inner.raft.metrics();
        loop {
            if let Err(fatal) = &metrics.borrow_watched().running_state {
                return self.stopped(fatal);
            }
            if metrics.changed().await.is_err() {
                return self.stopped(&"it ended");
            }
        }
    }

    /// Brings what is applied to disk, and then purges the log up to there, but for the entries that
    /// are kept for followers; `all` keeps none. Everything that was answered before the call is on
    /// disk afterwards; the index up to which is returned. The purge itself may come a little later.
    pub async fn flush(&self, all: bool) -> Result<Option<u64>, Stopped> {
        let _one_at_a_time = self.inner.flushing.lock().await;
        let raft = &self.inner.raft;
        let Some(applied) = self.applied_index()? else { return Ok(None) };
        let mut metrics = raft.metrics();
        let mut asked = false;
        let flushed = loop {
            {
                let now = metrics.borrow_watched();
                if let Err(fatal) = &now.running_state {
                    return Err(self.stopped(fatal));
                }
                if let Some(flushed) = now.snapshot.filter(|flushed| flushed.index >= applied) {
                    break flushed.index;
                }
            }
            if !asked {
                raft.trigger().snapshot().await.map_err(|fatal| self.stopped(&fatal))?;
                asked = true;
            }
            match tokio::time::timeout(ASK_AGAIN, metrics.changed()).await {
                Ok(changed) => changed.map_err(|_| self.stopped(&"it ended"))?,
                Err(_) => asked = false,
            }
        };
        let kept = if all { 0 } else { self.inner.entries_kept_max };
        if let Some(upto) = flushed.checked_sub(kept) {
            raft.trigger().purge_log(upto).await.map_err(|fatal| self.stopped(&fatal))?;
        }
        Ok(Some(flushed))
    }

    /// Ends the group: proposals under way get no answer. Nothing is flushed; the log has it all.
    pub async fn shutdown(&self) -> Result<(), Stopped> {
        self.inner.raft.shutdown().await.map_err(|error| Stopped(error.to_string()))
    }

    fn stopped(&self, otherwise: &dyn fmt::Display) -> Stopped {
        self.inner.stopped(otherwise)
    }
}

fn leader(to: ForwardToLeader<TypeConfig>) -> Option<ReplicaId> {
    to.leader_id
}

/// A proposal under way. Dropping it does not take it back.
pub struct Pending {
    answer: BoxFuture<'static, Result<Proposed, ProposeError>>,
}

impl fmt::Debug for Pending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pending")
    }
}

impl Future for Pending {
    type Output = Result<Proposed, ProposeError>;

    fn poll(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Self::Output> {
        self.answer.poll_unpin(context)
    }
}

/// Flushes and purges the groups that the log names: those that hold too much of it, and those that
/// keep its oldest segments. To be called now and then; returns how many were flushed. One group's
/// failure does not keep the others from it.
pub async fn flush_what_the_log_needs(log: &LogHandle, group_of: impl Fn(GroupId) -> Option<Group>) -> usize {
    let mut flushed = 0;
    for need in log.groups_to_flush() {
        let Some(group) = group_of(need.group) else { continue };
        match group.flush(need.pins_oldest).await {
            Ok(_) => flushed += 1,
            Err(error) => tracing::error!(group = need.group.0, %error, "a flush failed"),
        }
    }
    flushed
}
