//! The bytes of what Raft keeps: entries, votes, log ids, the applied state. Fixed, versioned,
//! little-endian; ours, so that a bump of openraft changes nothing on disk.
//!
//! ```text
//! entry        kind 1 (0 blank, 1 command, 2 membership) | command, or members
//!              (term and index are the log's own fields)
//! vote         version 1 | term 8 | replica 8 | committed 1
//! log id       version 1 | term 8 | index 8
//! members      version 1 | sets 4, each: voters 4, replica 8 … | replicas 4, replica 8 …
//! applied      version 2 | last (maybe log id) | digest 8 | quarantined 1
//!              | membership's id (maybe log id) | members
//! generation   version 1 | generation 8
//! ```

use bytes::Bytes;
use openraft::EntryPayload;
use openraft::entry::RaftEntry;
use openraft::impls::EmptyNode;

use super::parts::{Reader, put_log_id, put_maybe_log_id, put_replicas, put_vote};
use super::types::{Command, Entry, LogId, Membership, Payload, ReplicaId, SnapshotMeta, Vote, log_id};
use crate::log::LogEntry;
use crate::storage::Generation;

const VERSION: u8 = 1;
const APPLIED_VERSION: u8 = 2;
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
    /// The digest of all that was ever written, up to the last entry (see `digest`).
    pub digest: u64,
    /// Whether the state was found to be wrong: it is never served or applied to again.
    pub quarantined: bool,
}

impl Applied {
    /// What `ShardStore::applied` holds.
    pub fn decode(bytes: Option<&[u8]>) -> Result<Applied, Undecodable> {
        decode_applied(bytes)
    }

    /// What snapshots say of themselves.
    pub(super) fn meta(&self) -> SnapshotMeta {
        SnapshotMeta { last_log_id: self.last, last_membership: self.membership.clone() }
    }
}

type Members = openraft::Membership<ReplicaId, EmptyNode>;

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
    let mut reader = Reader::versioned(bytes, VERSION, WHAT)?;
    let count = reader.u32()?;
    let sets = (0..count).map(|_| reader.replicas()).collect::<Result<Vec<_>, _>>()?;
    let replicas = reader.replicas()?;
    reader.finish()?;
    if sets.iter().flatten().any(|voter| !replicas.contains(voter)) {
        return Err(Undecodable(WHAT));
    }
    Ok(Members::new_with_defaults(sets, replicas))
}

/// What an entry carries, as it lies in the log and goes over the wire.
pub(super) fn put_payload(out: &mut Vec<u8>, payload: &Payload) {
    match payload {
        EntryPayload::Blank => out.push(BLANK),
        EntryPayload::Normal(command) => {
            out.reserve(1 + command.0.len());
            out.push(COMMAND);
            out.extend_from_slice(&command.0);
        }
        EntryPayload::Membership(members) => {
            out.push(MEMBERSHIP);
            put_members(out, members);
        }
    }
}

pub(super) fn encode_entry(entry: &Entry) -> LogEntry {
    let mut payload = Vec::new();
    put_payload(&mut payload, &entry.payload);
    LogEntry { index: entry.log_id.index, term: entry.log_id.leader_id.term, payload: Bytes::from(payload) }
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
    put_vote(&mut out, vote);
    Bytes::from(out)
}

pub(super) fn decode_vote(bytes: &[u8]) -> Result<Vote, Undecodable> {
    let mut reader = Reader::versioned(bytes, VERSION, "a vote")?;
    let vote = reader.vote()?;
    reader.finish()?;
    Ok(vote)
}

pub(super) fn encode_log_id(id: &LogId) -> Bytes {
    let mut out = vec![VERSION];
    put_log_id(&mut out, id);
    Bytes::from(out)
}

pub(super) fn decode_log_id(bytes: &[u8]) -> Result<LogId, Undecodable> {
    let mut reader = Reader::versioned(bytes, VERSION, "a log id")?;
    let id = reader.log_id()?;
    reader.finish()?;
    Ok(id)
}

pub(super) fn encode_applied(applied: &Applied) -> Vec<u8> {
    let mut out = Vec::with_capacity(64);
    out.push(APPLIED_VERSION);
    put_maybe_log_id(&mut out, applied.last.as_ref());
    out.extend_from_slice(&applied.digest.to_le_bytes());
    out.push(u8::from(applied.quarantined));
    put_maybe_log_id(&mut out, applied.membership.log_id().as_ref());
    put_members(&mut out, applied.membership.membership());
    out
}

/// The applied state of a shard; nothing written is nothing applied.
pub(super) fn decode_applied(bytes: Option<&[u8]>) -> Result<Applied, Undecodable> {
    let Some(bytes) = bytes else { return Ok(Applied::default()) };
    let mut reader = Reader::versioned(bytes, APPLIED_VERSION, "the applied state")?;
    let last = reader.maybe_log_id()?;
    let (digest, quarantined) = (reader.u64()?, reader.bool()?);
    let id = reader.maybe_log_id()?;
    let membership = Membership::new(id, members(reader.take_rest())?);
    Ok(Applied { last, membership, digest, quarantined })
}

pub(super) fn encode_generation(generation: Generation) -> Bytes {
    let mut out = vec![VERSION];
    out.extend_from_slice(&generation.0.to_le_bytes());
    Bytes::from(out)
}

pub(super) fn decode_generation(bytes: &[u8]) -> Result<Generation, Undecodable> {
    let mut reader = Reader::versioned(bytes, VERSION, "a generation")?;
    let generation = Generation(reader.u64()?);
    reader.finish()?;
    Ok(generation)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

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
    fn the_applied_state_keeps_its_bytes() {
        let members = Members::new_with_defaults(vec![ids(&[1])], ids(&[1]));
        let membership = Membership::new(Some(log_id(1, 0)), members);
        let applied = Applied { last: Some(log_id(2, 5)), membership, digest: 0x0807, quarantined: true };
        let bytes = encode_applied(&applied);
        #[rustfmt::skip]
        assert_eq!(bytes, [
            2, 1, 2,0,0,0,0,0,0,0, 5,0,0,0,0,0,0,0, 7,8,0,0,0,0,0,0, 1,
            1, 1,0,0,0,0,0,0,0, 0,0,0,0,0,0,0,0,
            1, 1,0,0,0, 1,0,0,0, 1,0,0,0,0,0,0,0, 1,0,0,0, 1,0,0,0,0,0,0,0,
        ]);
        assert_eq!(decode_applied(Some(&bytes)), Ok(applied));
        let nothing = Applied::default();
        assert_eq!(decode_applied(Some(&encode_applied(&nothing))), Ok(nothing.clone()));
        assert_eq!(decode_applied(None), Ok(nothing));
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
