//! How a group reaches its other replicas: openraft's network over the node's transport.
//!
//! - Whatever goes wrong is an error in every call, in every direction: nothing is ever taken for
//!   granted on behalf of a replica that was not asked. What cannot be reached, or has stopped, is
//!   `Unreachable`, which openraft asks again only after a while.
//! - Appends are sent as a stream: several are under way at once, in order, and their answers are
//!   yielded in that order. The first that fails ends the stream; openraft begins another one.
//! - Messages may overtake each other where a connection is made anew. An append that arrives before
//!   the one that it follows is said to conflict, at an entry which the other side has when the answer
//!   is read. openraft must not see such an answer: it would look for the replica's last entry below
//!   what it knows the replica to have, and send it the same snapshot for ever.
//! - Every call is bounded in time.

use std::future::{Future, ready};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::{self, BoxStream, Stream};
use futures_util::{FutureExt, StreamExt};
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Timeout, Unreachable};
use openraft::impls::EmptyNode;
use openraft::network::{
    Backoff, NetBackoff, NetSnapshot, NetStreamAppend, NetTransferLeader, NetVote, RPCOption, RPCTypes,
    RaftNetworkFactory,
};
use openraft::raft::{
    AppendEntriesRequest, SnapshotResponse, StreamAppendError, StreamAppendResult, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::{OptionalSend, type_config::alias::SnapshotOf};
use tokio::sync::Semaphore;

use super::clock_bound::Refusals;
use super::incoming::ARRIVING_AT_NODE_MAX;
use super::outgoing::Outgoing;
use super::snapshot::SnapshotData;
use super::types::{LogId, ReplicaId, TypeConfig, Vote};
use super::wire::{self, Answer, ClusterId, Envelope, Part, Rpc, SessionId};
use crate::cluster::NodeId;
use crate::log::{GroupId, LogHandle};
use crate::peer::message::Kind;
use crate::peer::{CallError, Transport};
use crate::simulation;

/// Appends under way to one replica: enough to fill the way there while the disk at its end works.
const APPENDS_UNDER_WAY_MAX: usize = 8;
/// openraft gives every append a heartbeat's time. For one that carries entries that is too short
/// when a disk stalls, and one that is given up is sent again in full: it gets this many times that.
const ENTRIES_PATIENCE: u32 = 5;

/// How long one part of a snapshot may take. An install may take longer: then the snapshot is begun
/// again, and the other replica says that it has it as soon as it does.
const SNAPSHOT_PART_MAX: Duration = Duration::from_secs(10);

type RpcResult<T> = Result<T, RPCError<TypeConfig>>;
type Appended = RpcResult<StreamAppendResult<TypeConfig>>;

/// Knows where replicas live.
pub trait Whereabouts: Send + Sync + 'static {
    /// The node that holds a replica of a group, if it is known.
    fn node_of(&self, group: GroupId, replica: ReplicaId) -> Option<NodeId>;

    /// Whether another replica is known to have taken the place of this one.
    fn is_replaced(&self, group: GroupId, replica: ReplicaId) -> bool;
}

/// A node's side of the network, shared by its groups. Cheap to clone.
#[derive(Clone)]
pub struct Network {
    cluster: ClusterId,
    transport: Arc<dyn Transport>,
    whereabouts: Arc<dyn Whereabouts>,
    /// Snapshots that may arrive here at once.
    pub(super) arriving: Arc<Semaphore>,
    /// Counts the snapshots that were sent from here.
    sessions: Arc<AtomicU64>,
}

impl std::fmt::Debug for Network {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Network").finish_non_exhaustive()
    }
}

impl Network {
    /// The network of a node of this cluster.
    pub fn new(
        cluster: ClusterId,
        transport: Arc<dyn Transport>,
        whereabouts: Arc<dyn Whereabouts>,
    ) -> Network {
        let arriving = Arc::new(Semaphore::new(ARRIVING_AT_NODE_MAX));
        Network { cluster, transport, whereabouts, arriving, sessions: Arc::default() }
    }
}

/// One replica's side of the network.
#[derive(Clone, Debug)]
pub(super) struct Link {
    pub network: Network,
    pub group: GroupId,
    pub replica: ReplicaId,
    pub log: LogHandle,
    pub command_bytes_max: usize,
    pub snapshot_bytes_per_s_max: u64,
    pub refusals: Arc<Refusals>,
}

impl Link {
    /// Checks that a request is for this replica, and from one that counts.
    pub fn accepts(&self, envelope: &Envelope) -> Result<(), String> {
        if envelope.cluster != self.network.cluster {
            return Err("the message belongs to another cluster".to_owned());
        }
        if envelope.group != self.group {
            return Err(format!("the message is for {}, this is {}", envelope.group, self.group));
        }
        if envelope.to != self.replica {
            let (to, here) = (envelope.to, self.replica);
            return Err(format!("the message is for replica {to} of {}, here is replica {here}", self.group));
        }
        if self.network.whereabouts.is_replaced(self.group, envelope.from) {
            return Err(format!("replica {} of {} was replaced", envelope.from, self.group));
        }
        Ok(())
    }

    /// Whether the log would take what a leader is asked to propose. What it begins its term with cannot
    /// be refused.
    pub fn has_room_to_lead(&self) -> bool {
        self.log.has_room(self.command_bytes_max as u64)
    }

    pub fn peer(&self, replica: ReplicaId) -> Peer {
        Peer { link: self.clone(), replica }
    }
}

impl RaftNetworkFactory<TypeConfig> for Link {
    type Network = Peer;

    async fn new_client(&mut self, target: ReplicaId, _node: &EmptyNode) -> Peer {
        self.peer(target)
    }
}

/// Another replica of the group.
#[derive(Clone, Debug)]
pub(super) struct Peer {
    link: Link,
    replica: ReplicaId,
}

impl Peer {
    /// Sends a request now, and gives back its answer.
    pub fn call(&self, rpc: &Rpc, within: Duration) -> BoxFuture<'static, Result<Answer, CallError>> {
        let Link { network, group, replica, .. } = &self.link;
        let Some(node) = network.whereabouts.node_of(*group, self.replica) else {
            let why = format!("no node is known to hold replica {} of {group}", self.replica);
            return async { Err(CallError::Unreachable(why)) }.boxed();
        };
        let envelope = Envelope { cluster: network.cluster, group: *group, from: *replica, to: self.replica };
        let message = Kind::Raft.frame(&wire::encode_request(&envelope, rpc));
        let answer = network.transport.call(node, message, within);
        async move { decoded(answer.await?) }.boxed()
    }

    async fn ask<T>(
        &self,
        action: RPCTypes,
        rpc: Rpc,
        within: Duration,
        of: fn(Answer) -> Option<T>,
    ) -> RpcResult<T> {
        let answer = self.call(&rpc, within).await.map_err(|error| self.failed(action, error))?;
        match answer {
            Answer::Again => Err(NetworkError::from_string("not taken in").into()),
            answer => of(answer).ok_or_else(|| self.confused().into()),
        }
    }

    /// Sends a part of a snapshot.
    pub async fn snapshot_part(&self, session: SessionId, part: Part) -> RpcResult<Answer> {
        self.ask(RPCTypes::InstallSnapshot, Rpc::Snapshot(session, part), SNAPSHOT_PART_MAX, Some).await
    }

    /// It answered what was not asked.
    pub fn confused(&self) -> Unreachable<TypeConfig> {
        Unreachable::from_string(format!("replica {} answers something else", self.replica))
    }

    fn failed(&self, action: RPCTypes, error: CallError) -> RPCError<TypeConfig> {
        let (id, target) = (self.link.replica, self.replica);
        match error {
            CallError::TimedOut(timeout) => Timeout { action, id, target, timeout }.into(),
            error => Unreachable::from_string(format!("replica {target}: {error}")).into(),
        }
    }

    /// Sends an append now. What it gives back tells the answer, and whether the stream goes on: not
    /// after an error, nor when the other side took only some of the entries.
    fn append(
        &self,
        request: AppendEntriesRequest<TypeConfig>,
        ttl: Duration,
    ) -> BoxFuture<'static, (Appended, bool)> {
        let within = if request.entries.is_empty() { ttl } else { ttl * ENTRIES_PATIENCE };
        let (term, has_entries) = (request.vote.leader_id.term, !request.entries.is_empty());
        let last: Option<LogId> = request.entries.last().map(|entry| entry.log_id).or(request.prev_log_id);
        let answer = self.call(&Rpc::Append(request), within);
        let peer = self.clone();
        async move {
            let appended = match answer.await {
                Ok(Answer::Append(appended)) => {
                    if has_entries && appended.is_ok() {
                        peer.link.refusals.accepted(peer.replica);
                    }
                    Ok(appended)
                }
                Ok(Answer::ClockAhead(ahead)) => {
                    peer.link.refusals.refused(peer.replica, term, ahead);
                    Err(Unreachable::from_string("it finds the entries' stamps too far ahead").into())
                }
                Ok(Answer::Again) => Err(NetworkError::from_string("not taken in").into()),
                Ok(_) => Err(peer.confused().into()),
                Err(error) => Err(peer.failed(RPCTypes::AppendEntries, error)),
            };
            let whole = matches!(&appended, Ok(Ok(upto)) if *upto == last);
            (appended, whole)
        }
        .boxed()
    }
}

/// What a stream has sent so far.
#[derive(Debug, Default)]
struct Sent {
    last: Option<Option<LogId>>,
}

impl Sent {
    /// Not what tells a replica only that what it was sent is committed: it learns that from the next
    /// entries, or the next heartbeat, and nobody waits for it. openraft counts a stream's answers by
    /// what they acknowledge, not by their number, and takes nothing from one that it does not get.
    fn is_worth_sending(&mut self, request: &AppendEntriesRequest<TypeConfig>) -> bool {
        let only_commits = request.entries.is_empty() && self.last == Some(request.prev_log_id);
        self.last = Some(request.entries.last().map(|entry| entry.log_id).or(request.prev_log_id));
        !only_commits
    }
}

/// An answer, unless it is of an append that overtook another one of the same stream. `acknowledged`: the
/// last entry that the stream's answers told of so far.
fn unless_overtaken(appended: Appended, acknowledged: &mut Option<LogId>) -> Appended {
    match &appended {
        Ok(Ok(upto)) => *acknowledged = (*acknowledged).max(*upto),
        Ok(Err(StreamAppendError::Conflict(at))) if acknowledged.is_some_and(|id| at.index <= id.index) => {
            simulation::mark("append overtook another");
            return Err(NetworkError::from_string("the append arrived before the one that it follows").into());
        }
        _ => {}
    }
    appended
}

fn decoded(answer: Bytes) -> Result<Answer, CallError> {
    wire::decode_answer(&answer).map_err(|error| CallError::Unreachable(error.to_string()))
}

impl NetStreamAppend<TypeConfig> for Peer {
    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        option: RPCOption,
    ) -> BoxFuture<'s, RpcResult<BoxStream<'s, Appended>>>
    where
        S: Stream<Item = AppendEntriesRequest<TypeConfig>> + OptionalSend + Unpin + 'static,
    {
        let ttl = option.hard_ttl();
        let mut sent = Sent::default();
        let worth_sending = input.filter(move |request| ready(sent.is_worth_sending(request)));
        let answers =
            worth_sending.map(move |request| self.append(request, ttl)).buffered(APPENDS_UNDER_WAY_MAX);
        let answers = stream::unfold(Some((Box::pin(answers), None)), |state| async move {
            let (mut answers, mut acknowledged) = state?;
            let (appended, goes_on) = answers.next().await?;
            let appended = unless_overtaken(appended, &mut acknowledged);
            Some((appended, goes_on.then_some((answers, acknowledged))))
        });
        async move { Ok(answers.boxed()) }.boxed()
    }
}

impl NetVote<TypeConfig> for Peer {
    async fn vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> RpcResult<VoteResponse<TypeConfig>> {
        self.ask(RPCTypes::Vote, Rpc::Vote(request), option.hard_ttl(), voted).await
    }

    // openraft's default would count a replica that does not answer as one that grants.
    async fn pre_vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> RpcResult<VoteResponse<TypeConfig>> {
        if !self.link.has_room_to_lead() {
            simulation::mark("a full log kept a replica from campaigning");
            let why = NetworkError::from_string("this node's log has no room: it does not campaign");
            return Err(why.into());
        }
        self.ask(RPCTypes::Vote, Rpc::PreVote(request), option.hard_ttl(), voted).await
    }
}

fn voted(answer: Answer) -> Option<VoteResponse<TypeConfig>> {
    match answer {
        Answer::Vote(response) => Some(response),
        _ => None,
    }
}

impl NetTransferLeader<TypeConfig> for Peer {
    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> RpcResult<TransferLeaderResponse<TypeConfig>> {
        let response = |answer| match answer {
            Answer::Transfer(response) => Some(response),
            _ => None,
        };
        self.ask(RPCTypes::TransferLeader, Rpc::Transfer(request), option.hard_ttl(), response).await
    }
}

impl NetSnapshot<TypeConfig> for Peer {
    type SnapshotData = SnapshotData;

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: SnapshotOf<TypeConfig, SnapshotData>,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let SnapshotData::View(view) = snapshot.snapshot else {
            return Err(Unreachable::from_string("a snapshot that is still arriving is not sent on").into());
        };
        let session = SessionId(self.link.network.sessions.fetch_add(1, Ordering::Relaxed));
        let bytes_per_s_max = self.link.snapshot_bytes_per_s_max;
        let outgoing = Outgoing { peer: self.clone(), session, vote, view, bytes_per_s_max };
        tokio::select! {
            biased;
            closed = cancel => Err(closed.into()),
            sent = outgoing.send() => sent,
        }
    }
}

impl NetBackoff<TypeConfig> for Peer {
    /// openraft's own.
    fn backoff(&self) -> Option<Backoff> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::super::types::log_id;
    use super::*;

    /// What openraft sees of a stream's answers.
    fn seen(answers: Vec<StreamAppendResult<TypeConfig>>) -> Vec<Appended> {
        let mut acknowledged = None;
        answers.into_iter().map(|answer| unless_overtaken(Ok(answer), &mut acknowledged)).collect()
    }

    #[test]
    fn a_conflict_at_an_entry_that_the_stream_has_brought_is_a_failure_of_the_network() {
        let conflict = |index| Err(StreamAppendError::Conflict(log_id(3, index)));
        let brought = |index| Ok(Some(log_id(3, index)));
        let seen = seen(vec![conflict(9), brought(7), brought(8), conflict(8), conflict(9)]);
        assert_eq!(seen[0], Ok(conflict(9)), "nothing was brought yet");
        assert_eq!(seen[1..3], [Ok(brought(7)), Ok(brought(8))]);
        assert!(matches!(seen[3], Err(RPCError::Network(_))), "{:?}", seen[3]);
        assert_eq!(seen[4], Ok(conflict(9)), "beyond what was brought");
    }
}
