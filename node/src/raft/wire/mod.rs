//! The messages that replicas of one group send one another. Fixed, versioned, little-endian; ours,
//! so that a bump of openraft changes nothing on the wire.
//!
//! ```text
//! request      version 1 | cluster 16 | group 4 | from replica 8 | to replica 8 | rpc 1 | body | crc32 4
//! answer       version 1 | answer 1 | body | crc32 4
//!
//! rpcs
//! 1 append     vote | previous (maybe log id) | committed (maybe log id)
//!              | entries 4, each: term 8, length 4, payload (as in the log; indices follow on previous)
//! 2 vote       vote | last (maybe log id) | is a transfer 1
//! 3 pre-vote   the same
//! 4 transfer   leader's vote | to replica 8 | last (maybe log id)
//! 5 begin      session 8 | leader's vote | applied state (as in the rows; all the rest)
//! 6 chunk      session 8 | number 4 | rows (all the rest), each: key length 4, row length 4, key, row
//! 7 end        session 8 | chunks 4 | rows 8 | crc32 4 (over the rows of all chunks)
//! 8 digest     at most after index 8
//! 9 quarantine index 8 | the right digest 8
//!
//! answers
//! 1 appended       last (maybe log id)
//! 2 conflict       log id
//! 3 higher vote    vote
//! 4 voted          vote | granted 1 | last (maybe log id)
//! 5 transferred
//! 6 vote changed   expected vote | actual vote
//! 7 log behind     expected (maybe log id) | actual (maybe log id)
//! 8 again          (not taken in: the log has no room, or too many appends are under way)
//! 9 goes on        (the next part of the snapshot, please)
//! 10 has it        vote (of a replica that needs no more of the snapshot)
//! 11 clock ahead   by how many microseconds 8 (the entries are stamped; nothing was taken in)
//! 12 digest        0, or 1 and index 8, digest 8
//! 13 stops
//! ```
//! A checksum covers each message: what was damaged on the way is refused, and sent again. It does
//! not take the place of an entry's own, which spans the whole way.

use bytes::Bytes;
use openraft::raft::{
    AppendEntriesRequest, StreamAppendError, StreamAppendResult, TransferLeaderError, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};

use purser_ledger::time::Span;

use super::codec::{self, Applied, Undecodable};
use super::digest::Checkpoint;
use super::parts::{Reader, put_log_id, put_maybe_log_id, put_vote};
use super::types::{Entry, ReplicaId, TypeConfig, Vote};
use crate::log::{GroupId, LogEntry};

const VERSION: u8 = 1;
const CRC_BYTES: usize = 4;
/// What goes before an rpc's body.
const ENVELOPE_BYTES: usize = 1 + 16 + 4 + 8 + 8 + 1;

mod rpc {
    pub const APPEND: u8 = 1;
    pub const VOTE: u8 = 2;
    pub const PRE_VOTE: u8 = 3;
    pub const TRANSFER: u8 = 4;
    pub const BEGIN: u8 = 5;
    pub const CHUNK: u8 = 6;
    pub const END: u8 = 7;
    pub const DIGEST: u8 = 8;
    pub const QUARANTINE: u8 = 9;
}

mod answer {
    pub const APPENDED: u8 = 1;
    pub const CONFLICT: u8 = 2;
    pub const HIGHER_VOTE: u8 = 3;
    pub const VOTED: u8 = 4;
    pub const TRANSFERRED: u8 = 5;
    pub const VOTE_CHANGED: u8 = 6;
    pub const LOG_BEHIND: u8 = 7;
    pub const AGAIN: u8 = 8;
    pub const GOES_ON: u8 = 9;
    pub const HAS_IT: u8 = 10;
    pub const CLOCK_AHEAD: u8 = 11;
    pub const DIGEST: u8 = 12;
    pub const STOPS: u8 = 13;
}

/// A cluster: the 16 bytes of its id.
pub type ClusterId = [u8; 16];

/// From whom to whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Envelope {
    pub cluster: ClusterId,
    pub group: GroupId,
    pub from: ReplicaId,
    pub to: ReplicaId,
}

/// What is asked of a replica.
#[derive(Clone, Debug)]
pub(super) enum Rpc {
    Append(AppendEntriesRequest<TypeConfig>),
    Vote(VoteRequest<TypeConfig>),
    PreVote(VoteRequest<TypeConfig>),
    Transfer(TransferLeaderRequest<TypeConfig>),
    /// A part of the snapshot that this session sends.
    Snapshot(SessionId, Part),
    /// The newest checkpoint up to an index, please.
    Digest {
        at_most: u64,
    },
    /// The right digest, to a replica that has another one: it is to stop.
    Quarantine(Checkpoint),
}

/// One sending of a snapshot, in the sender's count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SessionId(pub u64);

/// A part of a snapshot, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// What the rows to come stand for.
    Begin { vote: Vote, applied: Applied },
    /// Rows, as `Rows` tells them. Chunks are numbered from 0.
    Chunk { number: u32, rows: Bytes },
    /// What there was in all.
    End(Total),
}

/// All chunks of a snapshot, added up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Total {
    pub chunks: u32,
    pub rows: u64,
    pub crc: u32,
}

/// What it answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Append(StreamAppendResult<TypeConfig>),
    Vote(VoteResponse<TypeConfig>),
    Transfer(TransferLeaderResponse<TypeConfig>),
    /// The request was not taken in; it may be sent again at once.
    Again,
    /// The part of the snapshot was taken in, and the next one is due.
    GoesOn,
    /// The replica needs no more of the snapshot: it has it, or follows a higher vote.
    HasIt(Vote),
    /// No entry was taken in: the first is stamped too far ahead of the replica's clock.
    ClockAhead(Span),
    /// A checkpoint, if it has one.
    Digest(Option<Checkpoint>),
    /// The replica stops.
    Stops,
}

/// Adds a row to a chunk.
pub(super) fn put_row(chunk: &mut Vec<u8>, key: &[u8], row: &[u8]) {
    chunk.extend_from_slice(&(key.len() as u32).to_le_bytes());
    chunk.extend_from_slice(&(row.len() as u32).to_le_bytes());
    chunk.extend_from_slice(key);
    chunk.extend_from_slice(row);
}

/// Visits the rows of a chunk, up to the first error, and counts them.
pub(super) fn read_rows<E: From<Undecodable>>(
    chunk: &[u8],
    mut visit: impl FnMut(&[u8], &[u8]) -> Result<(), E>,
) -> Result<u64, E> {
    let mut reader = Reader::new(chunk, "the rows of a snapshot");
    let mut count = 0;
    while !reader.is_empty() {
        let (key, row) = (reader.u32()? as usize, reader.u32()? as usize);
        visit(reader.bytes(key)?, reader.bytes(row)?)?;
        count += 1;
    }
    Ok(count)
}

/// The group that a request is for, read without looking at the rest. For whoever hands messages to
/// groups; the group itself checks everything.
pub fn group_of(request: &[u8]) -> Option<GroupId> {
    let group = request.get(17..21).filter(|_| request[0] == VERSION)?;
    Some(GroupId(u32::from_le_bytes(group.try_into().ok()?)))
}

fn seal(mut message: Vec<u8>) -> Bytes {
    let crc = crc32fast::hash(&message);
    message.extend_from_slice(&crc.to_le_bytes());
    Bytes::from(message)
}

fn unseal<'m>(message: &'m [u8], what: &'static str) -> Result<&'m [u8], Undecodable> {
    let (content, crc) = message.split_last_chunk::<CRC_BYTES>().ok_or(Undecodable(what))?;
    if crc32fast::hash(content) == u32::from_le_bytes(*crc) { Ok(content) } else { Err(Undecodable(what)) }
}

pub(super) fn encode_request(envelope: &Envelope, rpc: &Rpc) -> Bytes {
    let room = match rpc {
        Rpc::Append(append) => append.entries.iter().map(entry_room).sum(),
        Rpc::Snapshot(_, Part::Chunk { rows, .. }) => rows.len(),
        _ => 64,
    };
    let mut out = Vec::with_capacity(ENVELOPE_BYTES + 64 + room + CRC_BYTES);
    out.push(VERSION);
    out.extend_from_slice(&envelope.cluster);
    out.extend_from_slice(&envelope.group.0.to_le_bytes());
    out.extend_from_slice(&envelope.from.0.to_le_bytes());
    out.extend_from_slice(&envelope.to.0.to_le_bytes());
    match rpc {
        Rpc::Append(append) => put_append(&mut out, append),
        Rpc::Vote(vote) => put_vote_request(&mut out, rpc::VOTE, vote),
        Rpc::PreVote(vote) => put_vote_request(&mut out, rpc::PRE_VOTE, vote),
        Rpc::Transfer(transfer) => {
            out.push(rpc::TRANSFER);
            put_vote(&mut out, transfer.from_leader());
            out.extend_from_slice(&transfer.to_node_id().0.to_le_bytes());
            put_maybe_log_id(&mut out, transfer.last_log_id());
        }
        Rpc::Snapshot(session, part) => put_part(&mut out, *session, part),
        Rpc::Digest { at_most } => {
            out.push(rpc::DIGEST);
            out.extend_from_slice(&at_most.to_le_bytes());
        }
        Rpc::Quarantine(right) => {
            out.push(rpc::QUARANTINE);
            put_checkpoint(&mut out, right);
        }
    }
    seal(out)
}

pub(super) fn decode_request(message: &Bytes) -> Result<(Envelope, Rpc), Undecodable> {
    const WHAT: &str = "a message of another replica";
    let mut reader = Reader::versioned(unseal(message, WHAT)?, VERSION, WHAT)?;
    let envelope = Envelope {
        cluster: reader.array()?,
        group: GroupId(reader.u32()?),
        from: ReplicaId(reader.u64()?),
        to: ReplicaId(reader.u64()?),
    };
    let rpc = match reader.byte()? {
        rpc::APPEND => Rpc::Append(read_append(&mut reader, message)?),
        rpc::VOTE => Rpc::Vote(read_vote_request(&mut reader)?),
        rpc::PRE_VOTE => Rpc::PreVote(read_vote_request(&mut reader)?),
        rpc::TRANSFER => {
            let (vote, to) = (reader.vote()?, ReplicaId(reader.u64()?));
            Rpc::Transfer(TransferLeaderRequest::new(vote, to, reader.maybe_log_id()?))
        }
        rpc::DIGEST => Rpc::Digest { at_most: reader.u64()? },
        rpc::QUARANTINE => Rpc::Quarantine(read_checkpoint(&mut reader)?),
        kind @ (rpc::BEGIN | rpc::CHUNK | rpc::END) => {
            Rpc::Snapshot(SessionId(reader.u64()?), read_part(kind, &mut reader, message)?)
        }
        _ => return Err(reader.undecodable()),
    };
    reader.finish()?;
    Ok((envelope, rpc))
}

pub(super) fn encode_answer(answer: &Answer) -> Bytes {
    let mut out = Vec::with_capacity(64);
    out.push(VERSION);
    match answer {
        Answer::Append(Ok(last)) => {
            out.push(answer::APPENDED);
            put_maybe_log_id(&mut out, last.as_ref());
        }
        Answer::Append(Err(StreamAppendError::Conflict(at))) => {
            out.push(answer::CONFLICT);
            put_log_id(&mut out, at);
        }
        Answer::Append(Err(StreamAppendError::HigherVote(vote))) => {
            out.push(answer::HIGHER_VOTE);
            put_vote(&mut out, vote);
        }
        Answer::Vote(voted) => {
            out.push(answer::VOTED);
            put_vote(&mut out, &voted.vote);
            out.push(u8::from(voted.vote_granted));
            put_maybe_log_id(&mut out, voted.last_log_id.as_ref());
        }
        Answer::Transfer(Ok(())) => out.push(answer::TRANSFERRED),
        Answer::Transfer(Err(TransferLeaderError::VoteChanged { expected, actual })) => {
            out.push(answer::VOTE_CHANGED);
            put_vote(&mut out, expected);
            put_vote(&mut out, actual);
        }
        Answer::Transfer(Err(TransferLeaderError::LogNotFlushed { expected, actual })) => {
            out.push(answer::LOG_BEHIND);
            put_maybe_log_id(&mut out, expected.as_ref());
            put_maybe_log_id(&mut out, actual.as_ref());
        }
        Answer::Again => out.push(answer::AGAIN),
        Answer::GoesOn => out.push(answer::GOES_ON),
        Answer::HasIt(vote) => {
            out.push(answer::HAS_IT);
            put_vote(&mut out, vote);
        }
        Answer::ClockAhead(ahead) => {
            out.push(answer::CLOCK_AHEAD);
            out.extend_from_slice(&ahead.0.to_le_bytes());
        }
        Answer::Digest(checkpoint) => {
            out.push(answer::DIGEST);
            out.push(u8::from(checkpoint.is_some()));
            checkpoint.iter().for_each(|checkpoint| put_checkpoint(&mut out, checkpoint));
        }
        Answer::Stops => out.push(answer::STOPS),
    }
    seal(out)
}

pub(super) fn decode_answer(message: &[u8]) -> Result<Answer, Undecodable> {
    const WHAT: &str = "an answer of another replica";
    let mut reader = Reader::versioned(unseal(message, WHAT)?, VERSION, WHAT)?;
    let answer = match reader.byte()? {
        answer::APPENDED => Answer::Append(Ok(reader.maybe_log_id()?)),
        answer::CONFLICT => Answer::Append(Err(StreamAppendError::Conflict(reader.log_id()?))),
        answer::HIGHER_VOTE => Answer::Append(Err(StreamAppendError::HigherVote(reader.vote()?))),
        answer::VOTED => {
            let (vote, granted) = (reader.vote()?, reader.bool()?);
            Answer::Vote(VoteResponse::new(vote, reader.maybe_log_id()?, granted))
        }
        answer::TRANSFERRED => Answer::Transfer(Ok(())),
        answer::VOTE_CHANGED => {
            let (expected, actual) = (reader.vote()?, reader.vote()?);
            Answer::Transfer(Err(TransferLeaderError::VoteChanged { expected, actual }))
        }
        answer::LOG_BEHIND => {
            let (expected, actual) = (reader.maybe_log_id()?, reader.maybe_log_id()?);
            Answer::Transfer(Err(TransferLeaderError::LogNotFlushed { expected, actual }))
        }
        answer::AGAIN => Answer::Again,
        answer::GOES_ON => Answer::GoesOn,
        answer::HAS_IT => Answer::HasIt(reader.vote()?),
        answer::CLOCK_AHEAD => Answer::ClockAhead(Span(reader.u64()?)),
        answer::DIGEST if reader.bool()? => Answer::Digest(Some(read_checkpoint(&mut reader)?)),
        answer::DIGEST => Answer::Digest(None),
        answer::STOPS => Answer::Stops,
        _ => return Err(reader.undecodable()),
    };
    reader.finish()?;
    Ok(answer)
}

/// About how many bytes an entry takes: exact where it matters.
fn entry_room(entry: &Entry) -> usize {
    const FRAME_BYTES: usize = 8 + 4 + 1;
    let command = match &entry.payload {
        openraft::EntryPayload::Normal(command) => command.0.len(),
        _ => 64,
    };
    FRAME_BYTES + command
}

fn put_append(out: &mut Vec<u8>, append: &AppendEntriesRequest<TypeConfig>) {
    out.push(rpc::APPEND);
    put_vote(out, &append.vote);
    put_maybe_log_id(out, append.prev_log_id.as_ref());
    put_maybe_log_id(out, append.leader_commit.as_ref());
    out.extend_from_slice(&(append.entries.len() as u32).to_le_bytes());
    for entry in &append.entries {
        out.extend_from_slice(&entry.log_id.leader_id.term.to_le_bytes());
        let at = out.len();
        out.extend_from_slice(&[0; 4]);
        codec::put_payload(out, &entry.payload);
        let length = (out.len() - at - 4) as u32;
        out[at..at + 4].copy_from_slice(&length.to_le_bytes());
    }
}

/// The entries share the message's memory.
fn read_append(
    reader: &mut Reader<'_>,
    message: &Bytes,
) -> Result<AppendEntriesRequest<TypeConfig>, Undecodable> {
    let vote = reader.vote()?;
    let (prev_log_id, leader_commit) = (reader.maybe_log_id()?, reader.maybe_log_id()?);
    let mut next_index = prev_log_id.map_or(Some(0), |previous| previous.index.checked_add(1));
    let entries = (0..reader.u32()?).map(|_| {
        let index = next_index.ok_or(reader.undecodable())?;
        next_index = index.checked_add(1);
        let (term, length) = (reader.u64()?, reader.u32()?);
        let payload = message.slice_ref(reader.bytes(length as usize)?);
        codec::decode_entry(LogEntry { index, term, payload })
    });
    let entries = entries.collect::<Result<Vec<Entry>, _>>()?;
    Ok(AppendEntriesRequest { vote, prev_log_id, entries, leader_commit })
}

fn put_vote_request(out: &mut Vec<u8>, rpc: u8, request: &VoteRequest<TypeConfig>) {
    out.push(rpc);
    put_vote(out, &request.vote);
    put_maybe_log_id(out, request.last_log_id.as_ref());
    out.push(u8::from(request.leadership_transfer));
}

fn read_vote_request(reader: &mut Reader<'_>) -> Result<VoteRequest<TypeConfig>, Undecodable> {
    let vote = reader.vote()?;
    let mut request = VoteRequest::new(vote, reader.maybe_log_id()?);
    request.leadership_transfer = reader.bool()?;
    Ok(request)
}

fn put_checkpoint(out: &mut Vec<u8>, checkpoint: &Checkpoint) {
    out.extend_from_slice(&checkpoint.index.to_le_bytes());
    out.extend_from_slice(&checkpoint.digest.to_le_bytes());
}

fn read_checkpoint(reader: &mut Reader<'_>) -> Result<Checkpoint, Undecodable> {
    Ok(Checkpoint { index: reader.u64()?, digest: reader.u64()? })
}

fn put_part(out: &mut Vec<u8>, session: SessionId, part: &Part) {
    out.push(match part {
        Part::Begin { .. } => rpc::BEGIN,
        Part::Chunk { .. } => rpc::CHUNK,
        Part::End(_) => rpc::END,
    });
    out.extend_from_slice(&session.0.to_le_bytes());
    match part {
        Part::Begin { vote, applied } => {
            put_vote(out, vote);
            out.extend_from_slice(&codec::encode_applied(applied));
        }
        Part::Chunk { number, rows } => {
            out.extend_from_slice(&number.to_le_bytes());
            out.extend_from_slice(rows);
        }
        Part::End(total) => {
            out.extend_from_slice(&total.chunks.to_le_bytes());
            out.extend_from_slice(&total.rows.to_le_bytes());
            out.extend_from_slice(&total.crc.to_le_bytes());
        }
    }
}

fn read_part(kind: u8, reader: &mut Reader<'_>, message: &Bytes) -> Result<Part, Undecodable> {
    match kind {
        rpc::BEGIN => {
            let vote = reader.vote()?;
            Ok(Part::Begin { vote, applied: codec::decode_applied(Some(reader.take_rest()))? })
        }
        rpc::CHUNK => {
            let number = reader.u32()?;
            Ok(Part::Chunk { number, rows: message.slice_ref(reader.take_rest()) })
        }
        _ => Ok(Part::End(Total { chunks: reader.u32()?, rows: reader.u64()?, crc: reader.u32()? })),
    }
}

#[cfg(test)]
mod tests;
