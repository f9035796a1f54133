//! What the encodings on disk (`codec`) and on the wire (`wire`) are put together from. All numbers
//! are little-endian.
//!
//! ```text
//! log id       term 8 | index 8
//! maybe        0, or 1 and the log id
//! vote         term 8 | replica 8 | committed 1
//! replicas     count 4 | replica 8 …
//! ```
//! A reader never panics, whatever the bytes are, and never takes room for more than they hold.

use std::collections::BTreeSet;

use openraft::vote::{RaftLeaderId, RaftVote};

use super::codec::Undecodable;
use super::types::{LeaderId, LogId, ReplicaId, Vote, log_id};

/// Takes bytes apart from the front.
pub(super) struct Reader<'b> {
    rest: &'b [u8],
    what: &'static str,
}

impl<'b> Reader<'b> {
    pub fn new(bytes: &'b [u8], what: &'static str) -> Reader<'b> {
        Reader { rest: bytes, what }
    }

    /// Reads what begins with this version.
    pub fn versioned(bytes: &'b [u8], version: u8, what: &'static str) -> Result<Reader<'b>, Undecodable> {
        let mut reader = Reader::new(bytes, what);
        if reader.byte()? == version { Ok(reader) } else { Err(reader.undecodable()) }
    }

    pub fn undecodable(&self) -> Undecodable {
        Undecodable(self.what)
    }

    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], Undecodable> {
        let (array, rest) = self.rest.split_first_chunk::<N>().ok_or(Undecodable(self.what))?;
        self.rest = rest;
        Ok(*array)
    }

    pub fn byte(&mut self) -> Result<u8, Undecodable> {
        Ok(self.array::<1>()?[0])
    }

    pub fn bool(&mut self) -> Result<bool, Undecodable> {
        match self.byte()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(self.undecodable()),
        }
    }

    pub fn u32(&mut self) -> Result<u32, Undecodable> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub fn u64(&mut self) -> Result<u64, Undecodable> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    pub fn bytes(&mut self, count: usize) -> Result<&'b [u8], Undecodable> {
        let (bytes, rest) = self.rest.split_at_checked(count).ok_or(Undecodable(self.what))?;
        self.rest = rest;
        Ok(bytes)
    }

    /// All that is left.
    pub fn take_rest(&mut self) -> &'b [u8] {
        std::mem::take(&mut self.rest)
    }

    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub fn log_id(&mut self) -> Result<LogId, Undecodable> {
        Ok(log_id(self.u64()?, self.u64()?))
    }

    pub fn maybe_log_id(&mut self) -> Result<Option<LogId>, Undecodable> {
        if self.bool()? { self.log_id().map(Some) } else { Ok(None) }
    }

    pub fn vote(&mut self) -> Result<Vote, Undecodable> {
        let leader = LeaderId::new(self.u64()?, ReplicaId(self.u64()?));
        Ok(Vote::from_leader_id(leader, self.bool()?))
    }

    pub fn replicas(&mut self) -> Result<BTreeSet<ReplicaId>, Undecodable> {
        let count = self.u32()?;
        (0..count).map(|_| Ok(ReplicaId(self.u64()?))).collect()
    }

    pub fn finish(self) -> Result<(), Undecodable> {
        if self.rest.is_empty() { Ok(()) } else { Err(self.undecodable()) }
    }
}

pub(super) fn put_log_id(out: &mut Vec<u8>, id: &LogId) {
    out.extend_from_slice(&id.leader_id.term.to_le_bytes());
    out.extend_from_slice(&id.index.to_le_bytes());
}

pub(super) fn put_maybe_log_id(out: &mut Vec<u8>, id: Option<&LogId>) {
    out.push(u8::from(id.is_some()));
    if let Some(id) = id {
        put_log_id(out, id);
    }
}

pub(super) fn put_vote(out: &mut Vec<u8>, vote: &Vote) {
    out.extend_from_slice(&vote.leader_id.term.to_le_bytes());
    out.extend_from_slice(&vote.leader_id.voted_for.0.to_le_bytes());
    out.push(u8::from(vote.committed));
}

pub(super) fn put_replicas(out: &mut Vec<u8>, replicas: impl Iterator<Item = ReplicaId>) {
    let at = out.len();
    out.extend_from_slice(&[0; 4]);
    let mut count = 0u32;
    for replica in replicas {
        out.extend_from_slice(&replica.0.to_le_bytes());
        count += 1;
    }
    out[at..at + 4].copy_from_slice(&count.to_le_bytes());
}
