//! What a restart makes of the segments: which runs count, where the log goes on, whose records
//! are damaged. Pure but for the loading of segments, which the caller brings along.
//!
//! The rule, and why:
//! - The writer syncs each run before it writes the next one. So a bad run can be unfinished only
//!   if nothing readable proves that it had been synced: no later sound run, and no later header
//!   or trailer whose `synced_upto` lies past it. An unfinished run was never acknowledged; it is
//!   dropped and the log goes on in its place.
//!   As long as nothing proves it, a run needs header and trailer: a write that the disk cut short,
//!   and that was answered as such, has no trailer. Once proven, one of them will do.
//! - Any other bad run was acknowledged and has rotted. The groups that it names are damaged.
//! - Sequence numbers are contiguous across segments. A gap means that runs are gone without a
//!   name. Any group may have lost a vote in them, so every group is damaged, and so is one that
//!   shows up only later: better a replaced replica than a second vote in one term.
//! - Segments older than what the last run still needed are dead and not even read.
//!
//! What this cannot tell: the newest run rotting within the idle time before the next run or mark
//! is written looks like an unfinished one.

use super::index::Index;
use super::run::{
    BLOCK_BYTES, DecodeError, Position, RunHeader, decode_header, decode_records, decode_trailer,
};
use bytes::Bytes;
use std::io;

/// A run, or what is left of one, in a segment.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    /// What its header or trailer says.
    pub header: RunHeader,
    /// Why its records cannot be trusted, if so.
    pub fault: Option<&'static str>,
    /// Header and trailer are both there.
    pub whole: bool,
}

/// Why a replay gave up.
#[derive(Debug)]
pub(crate) enum ReplayError {
    NewerFormat(u32),
    Io { segment: u64, source: io::Error },
}

/// What a replay found.
#[derive(Debug, Default)]
pub(crate) struct Replay {
    pub index: Index,
    /// Where the next run goes.
    pub tail: Position,
    /// The sequence of the next run.
    pub sequence: u64,
    /// The last run that counts: where, and how long.
    pub last: Option<(Position, u32)>,
    /// The oldest segment that was still needed.
    pub oldest: u64,
    /// How many runs were replayed.
    pub runs: u64,
    /// What was wrong, in words, oldest first.
    pub findings: Vec<String>,
    /// Records were lost and nothing names their groups.
    pub unnamed_loss: bool,
}

/// Finds the runs of a segment. Regions that neither a header nor a trailer explains are skipped:
/// the sequence numbers tell whether something was in them.
pub(crate) fn scan(salt: u32, segment: u64, bytes: &Bytes) -> Result<Vec<Found>, u32> {
    let mut found = Vec::new();
    let mut at = 0;
    while at + BLOCK_BYTES <= bytes.len() {
        match find_run(salt, segment, bytes, at)? {
            Some((header, whole)) => {
                at += header.run_bytes as usize;
                let start = header.at.offset as usize;
                let fault = match decode_records(&header, &bytes.slice(start..at)) {
                    Ok(_) => None,
                    Err(DecodeError::Damaged(reason)) => Some(reason),
                    Err(_) => Some("not readable"),
                };
                found.push(Found { header, fault, whole });
            }
            None => at = next_header(salt, segment, bytes, at)?,
        }
    }
    Ok(found)
}

/// The run that starts at `at`, by its header or else by its trailer; and whether it has both.
fn find_run(salt: u32, segment: u64, bytes: &Bytes, at: usize) -> Result<Option<(RunHeader, bool)>, u32> {
    let fits = |header: &RunHeader| {
        header.at.segment == segment
            && header.at.offset as usize == at
            && at + header.run_bytes as usize <= bytes.len()
    };
    if let Some(header) = known(decode_header(salt, &bytes[at..]))?.filter(fits) {
        let end = at + header.run_bytes as usize;
        let whole = known(decode_trailer(salt, &bytes[at..end]))?.as_ref() == Some(&header);
        return Ok(Some((header, whole)));
    }
    let mut end = at + BLOCK_BYTES;
    while end <= bytes.len() {
        if let Some(header) = known(decode_trailer(salt, &bytes[at..end]))?.filter(fits) {
            return Ok((header.run_bytes as usize == end - at).then_some((header, false)));
        }
        if header_at(salt, segment, bytes, end)? {
            break;
        }
        end += BLOCK_BYTES;
    }
    Ok(None)
}

/// The next place after `at` where a run starts, or the segment's end.
fn next_header(salt: u32, segment: u64, bytes: &Bytes, at: usize) -> Result<usize, u32> {
    let mut next = at + BLOCK_BYTES;
    while next < bytes.len() && find_start(salt, segment, bytes, next)?.is_none() {
        next += BLOCK_BYTES;
    }
    Ok(next)
}

/// A header, or a trailer of a one-block run, at `at`: enough to go on from there.
fn find_start(salt: u32, segment: u64, bytes: &Bytes, at: usize) -> Result<Option<()>, u32> {
    if header_at(salt, segment, bytes, at)? {
        return Ok(Some(()));
    }
    // A run whose header is unreadable too shows by its trailer, which names its start.
    let Some(block) = bytes.get(at..at + BLOCK_BYTES) else { return Ok(None) };
    let here = |header: &RunHeader| header.at.segment == segment && header.at.offset as usize == at;
    Ok(known(decode_trailer(salt, block))?.filter(here).map(|_| ()))
}

fn header_at(salt: u32, segment: u64, bytes: &Bytes, at: usize) -> Result<bool, u32> {
    let Some(rest) = bytes.get(at..) else { return Ok(false) };
    let here = |header: RunHeader| header.at.segment == segment && header.at.offset as usize == at;
    Ok(known(decode_header(salt, rest))?.is_some_and(here))
}

/// Damage is an absence here; a newer format is not.
fn known(decoded: Result<RunHeader, DecodeError>) -> Result<Option<RunHeader>, u32> {
    match decoded {
        Ok(header) => Ok(Some(header)),
        Err(DecodeError::NewerFormat(version)) => Err(version),
        Err(_) => Ok(None),
    }
}

/// The end of the log: what counts, and what is cut off.
struct End {
    last: RunHeader,
    last_is_sound: bool,
    /// The first run that does not count, if its header or trailer could be read.
    cut: Option<RunHeader>,
}

type Load<'a> = dyn FnMut(u64) -> io::Result<Bytes> + 'a;

fn load_scan(salt: u32, segment: u64, load: &mut Load<'_>) -> Result<(Bytes, Vec<Found>), ReplayError> {
    let bytes = load(segment).map_err(|source| ReplayError::Io { segment, source })?;
    let found = scan(salt, segment, &bytes).map_err(ReplayError::NewerFormat)?;
    Ok((bytes, found))
}

/// Looks for the last run that counts, from the newest segment down.
fn find_end(salt: u32, ids: &[u64], load: &mut Load<'_>) -> Result<Option<End>, ReplayError> {
    let mut cut = None;
    let mut proven = Position::default();
    for &segment in ids.iter().rev() {
        let (_, found) = load_scan(salt, segment, load)?;
        for run in found.into_iter().rev() {
            let last_is_sound = run.fault.is_none() && run.whole;
            if last_is_sound || run.header.at < proven {
                return Ok(Some(End { last: run.header, last_is_sound, cut }));
            }
            proven = proven.max(run.header.synced_upto);
            cut = Some(run.header);
        }
    }
    Ok(None)
}

/// Reads the log. `ids` are the segments present, ascending; `load` reads one of them.
pub(crate) fn replay(salt: u32, ids: &[u64], load: &mut Load<'_>) -> Result<Replay, ReplayError> {
    let mut replay = Replay::default();
    let Some(end) = find_end(salt, ids, load)? else {
        // The first run is durable before the directory has an identity: this was not empty.
        replay.lose("no run of the log is readable".to_owned());
        let fresh = ids.last().map_or(1, |id| id + 1);
        replay.tail = Position { segment: fresh, offset: 0 };
        replay.oldest = fresh;
        replay.sequence = 1;
        return Ok(replay);
    };
    let oldest = end.last.oldest_segment.min(end.last.at.segment);
    let mut expected: Option<u64> = None;
    for segment in oldest..=end.last.at.segment {
        if !ids.contains(&segment) {
            // Its runs show as a gap; if it was the first one, nothing else would show it.
            replay.findings.push(format!("segment {segment} is missing"));
            continue;
        }
        let (bytes, found) = load_scan(salt, segment, load)?;
        for run in found.iter().filter(|run| run.header.at <= end.last.at) {
            if expected.is_some_and(|expected| run.header.sequence < expected) {
                continue;
            }
            let begins = Position { segment: oldest, offset: 0 };
            let contiguous = match expected {
                Some(expected) => run.header.sequence == expected,
                None => run.header.at == begins,
            };
            if !contiguous {
                replay.lose(format!("runs before {} are not readable", run.header.sequence));
            }
            expected = Some(run.header.sequence + 1);
            replay.apply(run, &bytes);
        }
    }
    let next = expected.unwrap_or(end.last.sequence + 1);
    if let Some(cut) = end.cut.as_ref().filter(|cut| cut.sequence > next) {
        replay.lose(format!("runs before {} are not readable", cut.sequence));
    }
    replay.index.finish_replay();
    replay.sequence = end.cut.as_ref().map_or(next, |cut| cut.sequence.max(next));
    replay.tail = end.cut.as_ref().map_or(end.last.end(), |cut| cut.at);
    replay.last = end.last_is_sound.then_some((end.last.at, end.last.run_bytes));
    replay.oldest = oldest;
    Ok(replay)
}

impl Replay {
    fn lose(&mut self, finding: String) {
        self.index.damage_all(&finding);
        self.findings.push(finding);
        self.unnamed_loss = true;
    }

    fn apply(&mut self, run: &Found, bytes: &Bytes) {
        let header = &run.header;
        let start = header.at.offset as usize;
        let run_bytes = bytes.slice(start..start + header.run_bytes as usize);
        self.runs += 1;
        match (run.fault, decode_records(header, &run_bytes)) {
            (None, Ok(records)) => {
                for (offset, record) in &records {
                    self.index.replay(record, header.at.segment, header.at.offset + offset);
                }
            }
            (fault, _) => {
                let fault = fault.unwrap_or("not readable");
                let finding = format!(
                    "run {} at {} of segment {} is bad: {fault}",
                    header.sequence, header.at.offset, header.at.segment
                );
                header.groups.iter().for_each(|group| self.index.damage(*group, &finding));
                self.findings.push(finding);
            }
        }
    }
}
