//! The bytes of what Raft keeps: entries, votes, log ids, the applied state. Fixed, versioned,
//! little-endian; ours, so that a bump of openraft changes nothing on disk.
//!
//! ```text
//! entry        kind 1 (0 blank, 1 command, 2 membership) | sealed command, or members
//!              (term and index are the log's own fields)
//! vote         version 1 | term 8 | replica 8 | committed 1
//! log id       version 1 | term 8 | index 8
//! members      version 1 | sets 4, each: voters 4, replica 8 … | replicas 4, replica 8 …
//! applied      version 1 | term 8 | index 8 | has membership id 1, term 8, index 8 | members
//! generation   version 1 | generation 8
//! ```

use std::collections::BTreeSet;

use bytes::{Bytes, BytesMut};
use openraft::EntryPayload;
use openraft::entry::RaftEntry;
use openraft::impls::EmptyNode;
use openraft::vote::{RaftLeaderId, RaftVote};

use super::types::{
    Command, Entry, LeaderId, LogId, Membership, Payload, ReplicaId, SnapshotMeta, Vote, log_id,
};
use crate::log::LogEntry;
use crate::storage::Generation;

const VERSION: u8 = 1;
const BLANK: u8 = 0;
const COMMAND: u8 = 1;
const MEMBERSHIP: u8 = 2;

/// Bytes that are not what they should be: this replica is damaged, or newer bytes than this program
/// knows.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot decode {0}")]
pub struct Undecodable(pub &'static str);

/// How far the log is in a shard's rows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// The last entry applied.
    pub last: Option<LogId>,
    /// The last membership applied.
    pub membership: Membership,
}

impl Applied {
    /// What snapshots say of themselves.
    pub(super) fn meta(&self) -> SnapshotMeta {
        SnapshotMeta { last_log_id: self.last, last_membership: self.membership.clone() }
    }

    pub(super) fn of(meta: &SnapshotMeta) -> Applied {
        Applied { last: meta.last_log_id, membership: meta.last_membership.clone() }
    }
}

struct Reader<'b> {
    rest: &'b [u8],
    what: &'static str,
}

impl<'b> Reader<'b> {
    fn versioned(bytes: &'b [u8], what: &'static str) -> Result<Reader<'b>, Undecodable> {
        let mut reader = Reader { rest: bytes, what };
        if reader.byte()? == VERSION { Ok(reader) } else { Err(Undecodable(what)) }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Undecodable> {
        let (array, rest) = self.rest.split_first_chunk::<N>().ok_or(Undecodable(self.what))?;
        self.rest = rest;
        Ok(*array)
    }

    fn byte(&mut self) -> Result<u8, Undecodable> {
        Ok(self.array::<1>()?[0])
    }

    fn bool(&mut self) -> Result<bool, Undecodable> {
        match self.byte()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Undecodable(self.what)),
        }
    }

    fn u64(&mut self) -> Result<u64, Undecodable> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    fn log_id(&mut self) -> Result<LogId, Undecodable> {
        Ok(log_id(self.u64()?, self.u64()?))
    }

    fn replicas(&mut self) -> Result<BTreeSet<ReplicaId>, Undecodable> {
        let count = u32::from_le_bytes(self.array()?);
        (0..count).map(|_| Ok(ReplicaId(self.u64()?))).collect()
    }

    fn finish(self) -> Result<(), Undecodable> {
        if self.rest.is_empty() { Ok(()) } else { Err(Undecodable(self.what)) }
    }
}

fn put_log_id(out: &mut Vec<u8>, id: &LogId) {
    out.extend_from_slice(&id.leader_id.term.to_le_bytes());
    out.extend_from_slice(&id.index.to_le_bytes());
}

type Members = openraft::Membership<ReplicaId, EmptyNode>;

fn put_replicas(out: &mut Vec<u8>, replicas: impl Iterator<Item = ReplicaId>) {
    let at = out.len();
    out.extend_from_slice(&[0; 4]);
    let mut count = 0u32;
    for replica in replicas {
        out.extend_from_slice(&replica.0.to_le_bytes());
        count += 1;
    }
    out[at..at + 4].copy_from_slice(&count.to_le_bytes());
}

fn put_members(out: &mut Vec<u8>, members: &Members) {
    out.push(VERSION);
    let sets = members.get_joint_config();
    out.extend_from_slice(&(sets.len() as u32).to_le_bytes());
    for set in sets {
        put_replicas(out, set.iter().copied());
    }
    put_replicas(out, members.nodes().map(|(replica, _)| *replica));
}

fn members(bytes: &[u8]) -> Result<Members, Undecodable> {
    const WHAT: &str = "a membership";
    let mut reader = Reader::versioned(bytes, WHAT)?;
    let count = u32::from_le_bytes(reader.array()?);
    let sets = (0..count).map(|_| reader.replicas()).collect::<Result<Vec<_>, _>>()?;
    let replicas = reader.replicas()?;
    reader.finish()?;
    if sets.iter().flatten().any(|voter| !replicas.contains(voter)) {
        return Err(Undecodable(WHAT));
    }
    Ok(Members::new_with_defaults(sets, replicas))
}

pub(super) fn encode_entry(entry: &Entry) -> LogEntry {
    let payload = match &entry.payload {
        EntryPayload::Blank => Bytes::from_static(&[BLANK]),
        EntryPayload::Normal(command) => {
            let mut out = BytesMut::with_capacity(1 + command.0.len());
            out.extend_from_slice(&[COMMAND]);
            out.extend_from_slice(&command.0);
            out.freeze()
        }
        EntryPayload::Membership(members) => {
            let mut out = vec![MEMBERSHIP];
            put_members(&mut out, members);
            Bytes::from(out)
        }
    };
    LogEntry { index: entry.log_id.index, term: entry.log_id.leader_id.term, payload }
}

pub(super) fn decode_entry(entry: LogEntry) -> Result<Entry, Undecodable> {
    let payload: Payload = match entry.payload.first() {
        Some(&BLANK) if entry.payload.len() == 1 => EntryPayload::Blank,
        Some(&COMMAND) => EntryPayload::Normal(Command(entry.payload.slice(1..))),
        Some(&MEMBERSHIP) => EntryPayload::Membership(members(&entry.payload[1..])?),
        _ => return Err(Undecodable("an entry")),
    };
    Ok(Entry::new(log_id(entry.term, entry.index), payload))
}

pub(super) fn encode_vote(vote: &Vote) -> Bytes {
    let mut out = Vec::with_capacity(18);
    out.push(VERSION);
    out.extend_from_slice(&vote.leader_id.term.to_le_bytes());
    out.extend_from_slice(&vote.leader_id.voted_for.0.to_le_bytes());
    out.push(u8::from(vote.committed));
    Bytes::from(out)
}

pub(super) fn decode_vote(bytes: &[u8]) -> Result<Vote, Undecodable> {
    let mut reader = Reader::versioned(bytes, "a vote")?;
    let leader = LeaderId::new(reader.u64()?, ReplicaId(reader.u64()?));
    let committed = reader.bool()?;
    reader.finish()?;
    Ok(Vote::from_leader_id(leader, committed))
}

pub(super) fn encode_log_id(id: &LogId) -> Bytes {
    let mut out = vec![VERSION];
    put_log_id(&mut out, id);
    Bytes::from(out)
}

pub(super) fn decode_log_id(bytes: &[u8]) -> Result<LogId, Undecodable> {
    let mut reader = Reader::versioned(bytes, "a log id")?;
    let id = reader.log_id()?;
    reader.finish()?;
    Ok(id)
}

pub(super) fn encode_applied(last: &LogId, membership: &Membership) -> Vec<u8> {
    let mut out = Vec::with_capacity(64);
    out.push(VERSION);
    put_log_id(&mut out, last);
    match membership.log_id() {
        Some(id) => {
            out.push(1);
            put_log_id(&mut out, id);
        }
        None => out.extend_from_slice(&[0; 17]),
    }
    put_members(&mut out, membership.membership());
    out
}

/// The applied state of a shard; nothing written is nothing applied.
pub(super) fn decode_applied(bytes: Option<&[u8]>) -> Result<Applied, Undecodable> {
    let Some(bytes) = bytes else { return Ok(Applied::default()) };
    let mut reader = Reader::versioned(bytes, "the applied state")?;
    let last = Some(reader.log_id()?);
    let has_id = reader.bool()?;
    let id = reader.log_id()?;
    let membership = Membership::new(has_id.then_some(id), members(reader.rest)?);
    Ok(Applied { last, membership })
}

pub(super) fn encode_generation(generation: Generation) -> Bytes {
    let mut out = vec![VERSION];
    out.extend_from_slice(&generation.0.to_le_bytes());
    Bytes::from(out)
}

pub(super) fn decode_generation(bytes: &[u8]) -> Result<Generation, Undecodable> {
    let mut reader = Reader::versioned(bytes, "a generation")?;
    let generation = Generation(reader.u64()?);
    reader.finish()?;
    Ok(generation)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(ids: &[u64]) -> BTreeSet<ReplicaId> {
        ids.iter().copied().map(ReplicaId).collect()
    }

    #[test]
    fn entries_keep_their_bytes() {
        let command = Entry::new(log_id(3, 7), EntryPayload::Normal(Command(Bytes::from_static(b"xyz"))));
        let joint = Members::new_with_defaults(vec![ids(&[1]), ids(&[1, 2])], ids(&[1, 2, 9]));
        let joint = Entry::new(log_id(4, 8), EntryPayload::Membership(joint));
        let blank = Entry::new(log_id(5, 9), EntryPayload::Blank);

        assert_eq!(encode_entry(&command).payload, &b"\x01xyz"[..]);
        assert_eq!(encode_entry(&blank).payload, &b"\0"[..]);
        #[rustfmt::skip]
        assert_eq!(encode_entry(&joint).payload, &[
            2, 1, 2,0,0,0,
            1,0,0,0, 1,0,0,0,0,0,0,0,
            2,0,0,0, 1,0,0,0,0,0,0,0, 2,0,0,0,0,0,0,0,
            3,0,0,0, 1,0,0,0,0,0,0,0, 2,0,0,0,0,0,0,0, 9,0,0,0,0,0,0,0,
        ][..]);
        for entry in [command, joint, blank] {
            assert_eq!(decode_entry(encode_entry(&entry)), Ok(entry));
        }
    }

    #[test]
    fn votes_and_positions_keep_their_bytes() {
        let vote = Vote::new_committed(3, ReplicaId(7));
        assert_eq!(encode_vote(&vote), &[1, 3, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 1][..]);
        assert_eq!(decode_vote(&encode_vote(&vote)), Ok(vote));
        assert_eq!(encode_log_id(&log_id(2, 5)), &[1, 2, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0][..]);
        assert_eq!(decode_log_id(&encode_log_id(&log_id(2, 5))), Ok(log_id(2, 5)));
        assert_eq!(decode_generation(&encode_generation(Generation(4))), Ok(Generation(4)));
    }

    #[test]
    fn the_applied_state_comes_back_as_it_was() {
        let members = Members::new_with_defaults(vec![ids(&[1])], ids(&[1]));
        for id in [None, Some(log_id(1, 0))] {
            let membership = Membership::new(id, members.clone());
            let bytes = encode_applied(&log_id(2, 5), &membership);
            assert_eq!(decode_applied(Some(&bytes)), Ok(Applied { last: Some(log_id(2, 5)), membership }));
        }
        assert_eq!(decode_applied(None), Ok(Applied::default()));
    }

    #[test]
    fn what_is_cut_or_unknown_is_refused() {
        assert!(decode_vote(&[1, 2, 3]).is_err());
        assert!(decode_vote(&[2; 18]).is_err());
        assert!(decode_applied(Some(&[])).is_err());
        let unknown = LogEntry { index: 0, term: 0, payload: Bytes::from_static(b"\x09") };
        assert!(decode_entry(unknown).is_err());
        let voter_unknown = [&[2, 1, 1, 0, 0, 0, 1, 0, 0, 0][..], &[5; 8], &[0; 4]].concat();
        assert!(decode_entry(LogEntry { index: 0, term: 0, payload: voter_unknown.into() }).is_err());
    }
}
