//! What a replica does with a message of another one: checks that it is meant, and hands it to
//! openraft. Nothing waits here; what is given back does.

use std::future::ready;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use openraft::EntryPayload;
use openraft::async_runtime::WatchReceiver;
use openraft::raft::{AppendEntriesRequest, StreamAppendError};

use tokio::time::Instant;

use crate::log::Claim;
use crate::simulation;

use super::clock_bound::ClockBound;
use super::group::Inner;
use super::types::{LogId, TypeConfig};
use super::wire::{self, Answer, Rpc};

/// A follower applies what is committed so often, and with each heartbeat.
const APPLY_EVERY: Duration = Duration::from_millis(20);
/// Appends of one replica that openraft has at once: several times what a leader has under way.
pub(super) const APPENDS_UNDER_WAY_MAX: usize = 48;
/// What the log takes for an entry besides its command, at most.
pub(super) const ENTRY_OVERHEAD_BYTES: u64 = 64;

/// Why a replica with a full log neither votes nor leads.
const NO_ROOM: &str = "this node's log has no room";

/// An answer on its way, or why there is none: for people, and in the other side's log.
pub(super) type Answering = BoxFuture<'static, Result<Bytes, String>>;

impl Inner {
    pub(super) fn receive(self: &Arc<Inner>, message: &Bytes) -> Result<Answering, String> {
        let (envelope, rpc) = wire::decode_request(message).map_err(|error| error.to_string())?;
        self.link.accepts(&envelope)?;
        let inner = Arc::clone(self);
        let answering = match rpc {
            Rpc::Append(request) => self.append(request),
            Rpc::Vote(_) | Rpc::PreVote(_) if !self.log.has_room_for_vote() => return Err(NO_ROOM.to_owned()),
            Rpc::Vote(request) => async move {
                let response = inner.raft.vote(request).await.map_err(|error| inner.stopped(&error).0)?;
                if response.vote_granted {
                    let (group, replica) = (inner.link.group, inner.link.replica);
                    simulation::voted(group.0, replica.0, response.vote.leader_id.term);
                }
                Ok(Answer::Vote(response))
            }
            .boxed(),
            Rpc::PreVote(request) => async move {
                let response = inner.raft.pre_vote(request).await.map_err(|error| inner.stopped(&error).0)?;
                Ok(Answer::Vote(response))
            }
            .boxed(),
            Rpc::Transfer(_) if self.leaving.load(Ordering::Relaxed) => {
                return Err("this node is going away: it takes no lead".to_owned());
            }
            Rpc::Transfer(_) if !self.link.has_room_to_lead() => return Err(NO_ROOM.to_owned()),
            Rpc::Transfer(request) => async move {
                let response = inner.raft.handle_transfer_leader(request).await;
                Ok(Answer::Transfer(response.map_err(|fatal| inner.stopped(&fatal).0)?))
            }
            .boxed(),
            Rpc::Digest { at_most } => {
                let checkpoint = self.digests.checkpoint(at_most);
                async move { Ok(Answer::Digest(checkpoint)) }.boxed()
            }
            Rpc::Quarantine(right) => {
                let heard = self.hear_of_quarantine(envelope.from, right);
                async move { heard }.boxed()
            }
            Rpc::Snapshot(session, part) => inner.take_part(envelope.from, session, part).boxed(),
        };
        Ok(answering.map(|answer| answer.map(|answer| wire::encode_answer(&answer))).boxed())
    }

    fn append(
        self: &Arc<Inner>,
        mut request: AppendEntriesRequest<TypeConfig>,
    ) -> BoxFuture<'static, Result<Answer, String>> {
        // openraft would say the same, but ends its stream at it: a leader of old must not disturb
        // the appends of the one that leads now.
        let vote = self.raft.metrics().borrow_watched().vote;
        if request.vote < vote {
            let higher = Answer::Append(Err(StreamAppendError::HigherVote(vote)));
            return async { Ok(higher) }.boxed();
        }
        // openraft writes down whom it hears of first.
        if request.vote > vote && !self.log.has_room_for_term() {
            return async { Ok(Answer::Again) }.boxed();
        }
        let tells_commit = self.hear_of_leader(&request);
        let bound = ClockBound { now: self.clock.now(), ahead_max: self.clock_bound };
        if let Err(ahead) = bound.cut(&mut request, self.machine.as_ref(), |id| self.holds(id)) {
            tracing::warn!(
                group = self.link.group.0,
                replica = self.link.replica.0,
                prev = ?request.prev_log_id.map(|id| id.index),
                ahead_ms = ahead.0 / 1_000,
                "entries are stamped too far ahead of this node's clock: they are refused"
            );
            return async move { Ok(Answer::ClockAhead(ahead)) }.boxed();
        }
        let claim = match request.entries.is_empty() {
            true => None,
            false => match self.claim(&mut request) {
                None => return async { Ok(Answer::Again) }.boxed(),
                claimed => claimed,
            },
        };
        if !tells_commit {
            request.leader_commit = None;
        }
        let Ok(place) = Arc::clone(&self.appends).try_acquire_owned() else {
            return async { Ok(Answer::Again) }.boxed();
        };
        let previous = request.prev_log_id;
        let last = request.entries.last().map(|entry| entry.log_id).or(previous);
        let inner = Arc::clone(self);
        let mut answering = async move {
            let _until_answered = (place, claim);
            let appended =
                inner.raft.append_entries(request).await.map_err(|fatal| inner.stopped(&fatal).0)?;
            Ok(Answer::Append(appended.into_stream_result(previous, last)))
        }
        .boxed();
        // Now, and not when the answer is waited for, it goes into openraft's queue: appends arrive there in
        // the order in which they came.
        match answering.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(answer) => ready(answer).boxed(),
            Poll::Pending => answering,
        }
    }

    /// Notes that the leader is there. Whether openraft is to hear from this request what is committed:
    /// nobody waits for a follower's rows, and many entries applied one behind the other, from warm
    /// caches, cost a third of what they cost one by one.
    fn hear_of_leader(&self, request: &AppendEntriesRequest<TypeConfig>) -> bool {
        let now = Instant::now();
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        heard.at = now;
        let tells_commit = request.entries.is_empty() || now.duration_since(heard.commit_at) >= APPLY_EVERY;
        if tells_commit {
            heard.commit_at = now;
        }
        tells_commit
    }

    /// Claims room in the log for these entries, and cuts off those that do not fit. openraft ends a group
    /// whose log refuses one; asked again when there is room, this one goes on.
    fn claim(&self, request: &mut AppendEntriesRequest<TypeConfig>) -> Option<Claim> {
        let bytes = request.entries.iter().map(|entry| match &entry.payload {
            EntryPayload::Normal(command) => command.0.len() as u64 + ENTRY_OVERHEAD_BYTES,
            EntryPayload::Blank | EntryPayload::Membership(_) => ENTRY_OVERHEAD_BYTES,
        });
        let Some((count, claim)) = self.log.claim(self.link.group, bytes) else {
            tracing::warn!(group = self.link.group.0, "the log has no room for a leader's entries");
            return None;
        };
        request.entries.truncate(count);
        Some(claim)
    }

    /// Whether an entry is in the log. Reads it: for rare questions.
    fn holds(&self, id: &LogId) -> bool {
        let read = self.log.read(self.link.group, id.index..id.index.saturating_add(1));
        read.is_ok_and(|read| read.first().is_some_and(|own| own.term == id.leader_id.term))
    }
}
