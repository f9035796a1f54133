//! The bytes on disk: runs and the records in them. Pure: bytes in, values out.
//!
//! ```text
//! segment file   <id as 20 digits>.seg, a fixed number of bytes, runs from offset 0 on
//!
//! |<- 4 KiB boundary                                              4 KiB boundary ->|
//! +----------+--------+------+--------+--------+---+--------+---------+-----------+
//! | header   | groups | gap  | record | record | … | zeros  | groups  | trailer   |
//! | 80 bytes | 4 each | zero |        body         | to fit | 4 each  | 80 bytes  |
//! +----------+--------+------+--------+--------+---+--------+---------+-----------+
//!
//! header and trailer hold the same fields, little-endian:
//!    0 magic           8   "PURSRUN1" for the header, "PURSEND1" for the trailer
//!    8 format version  4
//!   12 group count     4   how many groups are named
//!   16 segment         8   the segment's id: a run of the file's former life has another one
//!   24 offset          4   where the run starts in its segment
//!   28 run length      4   a multiple of 4 KiB
//!   32 sequence        8   one more than the run before it, across segments
//!   40 synced segment  8   everything before this position was known to be durable
//!   48 synced offset   4     when this run was written
//!   52 body offset     4   from the start of the run
//!   56 body length     4
//!   60 body crc        4
//!   64 oldest segment  8   the oldest segment that was still needed when this run was written
//!   72 record count    4
//!   76 crc             4   over these fields and the groups
//!
//! record
//!    0 crc             4   over everything after it
//!    4 payload length  4
//!    8 kind            1   entry, truncate, purge, put, forget, damaged
//!    9 slot            1   of a put, else 0
//!   10 reserved        2   0
//!   12 group           4
//!   16 index           8   of the entry, or the bound of a truncate or purge, else 0
//!   24 term            8   of the entry, else 0
//!   32 payload
//! ```
//!
//! Why it is so:
//! - The crc of the body, beside one per record, binds the records to *this* run. A torn run may
//!   hold sectors of an earlier attempt at the same place, with records that are valid by themselves.
//! - Header and trailer each suffice to read the run. So one rotten sector either spares the
//!   records, or leaves the names of the groups that it hit.
//! - All crcs start from a salt made of the log's identity, so that bytes chosen by a client, laid
//!   on a boundary by chance, are not taken for a run.
//!
//! Invariants: decoding never panics and never reads outside its input; a decoded run encodes to
//! the same bytes again.

use super::types::{GroupId, LogEntry, Op, Slot};
use bytes::Bytes;
use crc32fast::Hasher;
use std::collections::BTreeSet;

/// The version of this format, in every run and in the identity file.
pub const FORMAT_VERSION: u32 = 1;
/// Runs start and end on this boundary: the largest sector that a disk writes as one.
pub const BLOCK_BYTES: usize = 4096;
/// The fixed part of a header or trailer.
pub const HEADER_BYTES: usize = 80;
/// The fixed part of a record.
pub const RECORD_BYTES: usize = 32;
/// More groups than a node ever hosts; bounds what a decoder allocates (64 KiB).
pub const GROUPS_PER_RUN_MAX: usize = 16_384;

const HEADER_MAGIC: &[u8; 8] = b"PURSRUN1";
const TRAILER_MAGIC: &[u8; 8] = b"PURSEND1";
const CRC_AT: usize = 76;

/// A place in the log. Later places compare greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Position {
    /// The segment's id.
    pub segment: u64,
    /// Bytes from the segment's start.
    pub offset: u32,
}

/// What a run says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunHeader {
    /// Where it starts.
    pub at: Position,
    /// From its start to its end, padding included.
    pub run_bytes: u32,
    /// One more than the run before it.
    pub sequence: u64,
    /// Everything before this was durable when this run was written.
    pub synced_upto: Position,
    /// The oldest segment needed when this run was written.
    pub oldest_segment: u64,
    /// Where the records start, from the run's start.
    pub body_offset: u32,
    /// How long the records are.
    pub body_bytes: u32,
    /// The crc of the records together.
    pub body_crc: u32,
    /// How many records there are.
    pub record_count: u32,
    /// Whose records are in it.
    pub groups: Vec<GroupId>,
}

impl RunHeader {
    /// Where the next run may start.
    pub fn end(&self) -> Position {
        Position { segment: self.at.segment, offset: self.at.offset + self.run_bytes }
    }
}

/// One record as read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// One entry of an append.
    Entry {
        /// Whose.
        group: GroupId,
        /// The entry.
        entry: LogEntry,
    },
    /// An operation other than an append.
    Change(Op),
    /// The group was found damaged, and stays so until it is forgotten.
    Damaged {
        /// Which one.
        group: GroupId,
        /// What was found.
        reason: String,
    },
}

/// Why bytes are not what they should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// No such structure starts here.
    #[error("not a run")]
    NotARun,
    /// It is one, of a version that this program does not know.
    #[error("a run of format version {0}")]
    NewerFormat(u32),
    /// A crc does not match or a field is impossible.
    #[error("damaged: {0}")]
    Damaged(&'static str),
}

/// The parts of a record, borrowed, as they are written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RecordParts<'a> {
    kind: u8,
    slot: u8,
    pub(crate) group: GroupId,
    pub(crate) index: u64,
    pub(crate) term: u64,
    pub(crate) payload: &'a [u8],
}

const ENTRY: u8 = 1;
const TRUNCATE: u8 = 2;
const PURGE: u8 = 3;
const PUT: u8 = 4;
const FORGET: u8 = 5;
const DAMAGED: u8 = 6;

impl<'a> RecordParts<'a> {
    fn bare(kind: u8, group: GroupId) -> RecordParts<'a> {
        RecordParts { kind, slot: 0, group, index: 0, term: 0, payload: &[] }
    }

    pub(crate) fn entry(group: GroupId, entry: &'a LogEntry) -> RecordParts<'a> {
        RecordParts {
            index: entry.index,
            term: entry.term,
            payload: &entry.payload,
            ..RecordParts::bare(ENTRY, group)
        }
    }

    pub(crate) fn damaged(group: GroupId, reason: &'a str) -> RecordParts<'a> {
        RecordParts { payload: reason.as_bytes(), ..RecordParts::bare(DAMAGED, group) }
    }

    /// The records of one operation, in order.
    pub(crate) fn of(op: &'a Op) -> impl Iterator<Item = RecordParts<'a>> {
        let (one, many): (Option<RecordParts<'a>>, &'a [LogEntry]) = match op {
            Op::Append { entries, .. } => (None, entries),
            Op::Truncate { group, from_index } => {
                (Some(RecordParts { index: *from_index, ..RecordParts::bare(TRUNCATE, *group) }), &[])
            }
            Op::Purge { group, upto_index, mark } => {
                let bare = RecordParts::bare(PURGE, *group);
                (Some(RecordParts { index: *upto_index, payload: mark, ..bare }), &[])
            }
            Op::Put { group, slot, value } => {
                let bare = RecordParts::bare(PUT, *group);
                (Some(RecordParts { slot: slot.code(), payload: value, ..bare }), &[])
            }
            Op::Forget { group } => (Some(RecordParts::bare(FORGET, *group)), &[]),
        };
        let group = op.group();
        one.into_iter().chain(many.iter().map(move |entry| RecordParts::entry(group, entry)))
    }

    /// Its length on disk.
    pub(crate) fn bytes(&self) -> usize {
        RECORD_BYTES + self.payload.len()
    }
}

/// Collects records into the one buffer that is written with one call.
#[derive(Debug)]
pub(crate) struct RunBuilder {
    buffer: Vec<u8>,
    groups: BTreeSet<GroupId>,
    groups_max: usize,
    record_count: u32,
    entry_count: u64,
}

impl RunBuilder {
    /// Starts a run that will name at most `groups_max` groups, reusing the buffer's memory.
    pub(crate) fn start(mut buffer: Vec<u8>, groups_max: usize) -> RunBuilder {
        buffer.clear();
        buffer.resize(body_offset(groups_max), 0);
        RunBuilder { buffer, groups: BTreeSet::new(), groups_max, record_count: 0, entry_count: 0 }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.record_count == 0
    }

    pub(crate) fn entry_count(&self) -> u64 {
        self.entry_count
    }

    /// True if the run names this group or can name one more.
    pub(crate) fn can_name(&self, group: GroupId) -> bool {
        self.groups.len() < self.groups_max || self.groups.contains(&group)
    }

    /// The length of the run if this many more bytes of records were added.
    pub(crate) fn run_bytes_with(&self, record_bytes: usize) -> usize {
        let trailer = HEADER_BYTES + 4 * self.groups_max;
        (self.buffer.len() + record_bytes + trailer).next_multiple_of(BLOCK_BYTES)
    }

    /// Adds a record and says where its payload starts, from the run's start.
    pub(crate) fn push(&mut self, record: RecordParts<'_>) -> usize {
        if self.groups.insert(record.group) {
            assert!(self.groups.len() <= self.groups_max, "a run names more groups than planned");
        }
        let start = self.buffer.len();
        let mut fixed = [0_u8; RECORD_BYTES];
        let payload_bytes = u32::try_from(record.payload.len()).expect("entries are bounded");
        fixed[4..8].copy_from_slice(&payload_bytes.to_le_bytes());
        fixed[8] = record.kind;
        fixed[9] = record.slot;
        fixed[12..16].copy_from_slice(&record.group.0.to_le_bytes());
        fixed[16..24].copy_from_slice(&record.index.to_le_bytes());
        fixed[24..32].copy_from_slice(&record.term.to_le_bytes());
        let mut crc = Hasher::new();
        crc.update(&fixed[4..]);
        crc.update(record.payload);
        fixed[..4].copy_from_slice(&crc.finalize().to_le_bytes());
        self.buffer.extend_from_slice(&fixed);
        self.buffer.extend_from_slice(record.payload);
        self.record_count += 1;
        self.entry_count += u64::from(record.kind == ENTRY);
        start + RECORD_BYTES
    }

    /// Closes the run: fills in header, padding and trailer. Returns the bytes to write at `at`.
    pub(crate) fn seal(
        mut self,
        salt: u32,
        at: Position,
        sequence: u64,
        synced_upto: Position,
        oldest_segment: u64,
    ) -> (RunHeader, Vec<u8>) {
        let run_bytes = self.run_bytes_with(0);
        let body_at = body_offset(self.groups_max);
        let body = &self.buffer[body_at..];
        let small = |n: usize| u32::try_from(n).expect("runs are shorter than 4 GiB");
        let header = RunHeader {
            at,
            run_bytes: small(run_bytes),
            sequence,
            synced_upto,
            oldest_segment,
            body_offset: small(body_at),
            body_bytes: small(body.len()),
            body_crc: crc32fast::hash(body),
            record_count: self.record_count,
            groups: self.groups.into_iter().collect(),
        };
        let (fixed, groups) = encode_header(&header, HEADER_MAGIC, salt);
        self.buffer[..HEADER_BYTES].copy_from_slice(&fixed);
        self.buffer[HEADER_BYTES..HEADER_BYTES + groups.len()].copy_from_slice(&groups);
        let (fixed, groups) = encode_header(&header, TRAILER_MAGIC, salt);
        self.buffer.resize(run_bytes - HEADER_BYTES - groups.len(), 0);
        self.buffer.extend_from_slice(&groups);
        self.buffer.extend_from_slice(&fixed);
        (header, self.buffer)
    }
}

/// Where the body starts: records begin 8-aligned after the longest list of groups.
fn body_offset(groups_max: usize) -> usize {
    (HEADER_BYTES + 4 * groups_max).next_multiple_of(8)
}

/// The space that a run of these records takes, before rounding to blocks.
pub(crate) fn run_overhead_bytes(groups: usize) -> usize {
    body_offset(groups) + HEADER_BYTES + 4 * groups
}

fn encode_header(header: &RunHeader, magic: &[u8; 8], salt: u32) -> ([u8; HEADER_BYTES], Vec<u8>) {
    let mut fixed = [0_u8; HEADER_BYTES];
    let group_count = u32::try_from(header.groups.len()).expect("groups are bounded");
    fixed[..8].copy_from_slice(magic);
    fixed[8..12].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
    fixed[12..16].copy_from_slice(&group_count.to_le_bytes());
    fixed[16..24].copy_from_slice(&header.at.segment.to_le_bytes());
    fixed[24..28].copy_from_slice(&header.at.offset.to_le_bytes());
    fixed[28..32].copy_from_slice(&header.run_bytes.to_le_bytes());
    fixed[32..40].copy_from_slice(&header.sequence.to_le_bytes());
    fixed[40..48].copy_from_slice(&header.synced_upto.segment.to_le_bytes());
    fixed[48..52].copy_from_slice(&header.synced_upto.offset.to_le_bytes());
    fixed[52..56].copy_from_slice(&header.body_offset.to_le_bytes());
    fixed[56..60].copy_from_slice(&header.body_bytes.to_le_bytes());
    fixed[60..64].copy_from_slice(&header.body_crc.to_le_bytes());
    fixed[64..72].copy_from_slice(&header.oldest_segment.to_le_bytes());
    fixed[72..76].copy_from_slice(&header.record_count.to_le_bytes());
    let groups: Vec<u8> = header.groups.iter().flat_map(|group| group.0.to_le_bytes()).collect();
    let crc = header_crc(salt, &fixed, &groups);
    fixed[CRC_AT..].copy_from_slice(&crc.to_le_bytes());
    (fixed, groups)
}

fn header_crc(salt: u32, fixed: &[u8], groups: &[u8]) -> u32 {
    let mut crc = Hasher::new_with_initial(salt);
    crc.update(&fixed[..CRC_AT]);
    crc.update(groups);
    crc.finalize()
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut word = [0; 4];
    word.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(word)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(word)
}

/// Reads the header of a run that starts with `bytes`.
pub fn decode_header(salt: u32, bytes: &[u8]) -> Result<RunHeader, DecodeError> {
    let fixed = bytes.get(..HEADER_BYTES).ok_or(DecodeError::NotARun)?;
    let groups_bytes = begin(fixed, HEADER_MAGIC)?;
    let groups = bytes
        .get(HEADER_BYTES..HEADER_BYTES + groups_bytes)
        .ok_or(DecodeError::Damaged("the header's groups reach past the end"))?;
    finish(salt, fixed, groups)
}

/// Reads the trailer of a run that ends with `bytes`.
pub fn decode_trailer(salt: u32, bytes: &[u8]) -> Result<RunHeader, DecodeError> {
    let fixed_at = bytes.len().checked_sub(HEADER_BYTES).ok_or(DecodeError::NotARun)?;
    let fixed = &bytes[fixed_at..];
    let groups_bytes = begin(fixed, TRAILER_MAGIC)?;
    let groups_at = fixed_at
        .checked_sub(groups_bytes)
        .ok_or(DecodeError::Damaged("the trailer's groups reach past the start"))?;
    finish(salt, fixed, &bytes[groups_at..fixed_at])
}

/// Checks the magic and says how many bytes of groups belong to it.
fn begin(fixed: &[u8], magic: &[u8; 8]) -> Result<usize, DecodeError> {
    if &fixed[..8] != magic {
        return Err(DecodeError::NotARun);
    }
    let groups = u32_at(fixed, 12) as usize;
    if groups > GROUPS_PER_RUN_MAX {
        return Err(DecodeError::Damaged("too many groups"));
    }
    Ok(groups * 4)
}

fn finish(salt: u32, fixed: &[u8], groups: &[u8]) -> Result<RunHeader, DecodeError> {
    if header_crc(salt, fixed, groups) != u32_at(fixed, CRC_AT) {
        return Err(DecodeError::Damaged("the crc of the header does not match"));
    }
    let version = u32_at(fixed, 8);
    if version != FORMAT_VERSION {
        return Err(DecodeError::NewerFormat(version));
    }
    let header = RunHeader {
        at: Position { segment: u64_at(fixed, 16), offset: u32_at(fixed, 24) },
        run_bytes: u32_at(fixed, 28),
        sequence: u64_at(fixed, 32),
        synced_upto: Position { segment: u64_at(fixed, 40), offset: u32_at(fixed, 48) },
        oldest_segment: u64_at(fixed, 64),
        body_offset: u32_at(fixed, 52),
        body_bytes: u32_at(fixed, 56),
        body_crc: u32_at(fixed, 60),
        record_count: u32_at(fixed, 72),
        groups: groups.chunks_exact(4).map(|word| GroupId(u32_at(word, 0))).collect(),
    };
    let edge = HEADER_BYTES as u64 + groups.len() as u64;
    let body_end = u64::from(header.body_offset) + u64::from(header.body_bytes);
    let possible = u64::from(header.body_offset) >= edge
        && body_end + edge <= u64::from(header.run_bytes)
        && (header.run_bytes as usize).is_multiple_of(BLOCK_BYTES)
        && (header.at.offset as usize).is_multiple_of(BLOCK_BYTES)
        && header.at.offset.checked_add(header.run_bytes).is_some();
    possible.then_some(header).ok_or(DecodeError::Damaged("impossible lengths in the header"))
}

/// Reads all records of a run whose header or trailer is known. `run` are the bytes of the whole
/// run. Each record comes with the place of its payload, from the run's start.
pub fn decode_records(header: &RunHeader, run: &Bytes) -> Result<Vec<(u32, Record)>, DecodeError> {
    let start = header.body_offset as usize;
    let end = start
        .checked_add(header.body_bytes as usize)
        .filter(|end| *end <= run.len())
        .ok_or(DecodeError::Damaged("the run is longer than what is there"))?;
    if crc32fast::hash(&run[start..end]) != header.body_crc {
        return Err(DecodeError::Damaged("the crc of the records does not match"));
    }
    let mut at = start;
    let mut records = Vec::new();
    while at < end {
        let (record, bytes) = decode_record(&run.slice(at..end))?;
        records.push((u32::try_from(at + RECORD_BYTES).unwrap_or(u32::MAX), record));
        at += bytes;
    }
    if records.len() != header.record_count as usize {
        return Err(DecodeError::Damaged("the count of records does not match"));
    }
    Ok(records)
}

/// Reads the record that `bytes` start with, and says how long it is.
pub fn decode_record(bytes: &Bytes) -> Result<(Record, usize), DecodeError> {
    let fixed = bytes.get(..RECORD_BYTES).ok_or(DecodeError::Damaged("a record is cut"))?;
    let end = RECORD_BYTES + u32_at(fixed, 4) as usize;
    let covered = bytes.get(4..end).ok_or(DecodeError::Damaged("a payload is cut"))?;
    if crc32fast::hash(covered) != u32_at(fixed, 0) {
        return Err(DecodeError::Damaged("the crc of a record does not match"));
    }
    let (kind, slot, reserved) = (fixed[8], fixed[9], &fixed[10..12]);
    let group = GroupId(u32_at(fixed, 12));
    let (index, term) = (u64_at(fixed, 16), u64_at(fixed, 24));
    let payload = bytes.slice(RECORD_BYTES..end);
    let canonical = reserved == [0, 0]
        && (kind == PUT || slot == 0)
        && (kind == ENTRY || term == 0)
        && (matches!(kind, ENTRY | TRUNCATE | PURGE) || index == 0)
        && (!matches!(kind, TRUNCATE | FORGET) || payload.is_empty())
        && index < u64::MAX;
    if !canonical {
        return Err(DecodeError::Damaged("a field that must be zero is not"));
    }
    let record = match kind {
        ENTRY => Record::Entry { group, entry: LogEntry { index, term, payload } },
        TRUNCATE => Record::Change(Op::Truncate { group, from_index: index }),
        PURGE => Record::Change(Op::Purge { group, upto_index: index, mark: payload }),
        PUT => {
            let slot = Slot::from_code(slot).ok_or(DecodeError::Damaged("an unknown slot"))?;
            Record::Change(Op::Put { group, slot, value: payload })
        }
        FORGET => Record::Change(Op::Forget { group }),
        DAMAGED => Record::Damaged { group, reason: String::from_utf8_lossy(&payload).into_owned() },
        _ => return Err(DecodeError::Damaged("an unknown kind of record")),
    };
    Ok((record, end))
}

/// The salt that a log's crcs start from.
pub fn salt_of(identity: &[u8]) -> u32 {
    crc32fast::hash(identity)
}
