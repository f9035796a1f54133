//! The log without threads and clocks: opens, recovers, writes runs, frees segments, one call at
//! a time. The writer thread drives it in production, a task in the simulation, tests by hand.
//!
//! Invariants:
//! - One run is written and synced before the next is begun, so only the last one can be torn.
//! - The index changes only after the sync that made the change durable.
//! - A segment is freed only when two durable runs in a row have said that it is not needed: if
//!   the newest of them rots, the one before it still describes what is there.
//! - "No room" before a sync leaves the tail where it was: the next run overwrites the attempt. The
//!   log never goes on elsewhere while an attempt may lie at its tail.

use super::disk::{DirLock, Disk, DiskFile};
use super::error::{OpenError, is_no_space};
use super::identity;
use super::index::{EntryRef, Index};
use super::options::LogOptions;
use super::recovery::{Replay, ReplayError, replay};
use super::run::{BLOCK_BYTES, FORMAT_VERSION, Position, RecordParts, RunBuilder, salt_of};
use super::segments::{self, Files, Segments, file_name, segment_of};
use super::types::{Extent, GroupId, Op, Slot};
use crate::simulation::{self, Bug};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, RwLock};

/// What a restart found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// The groups that can be served.
    pub groups: BTreeMap<GroupId, GroupState>,
    /// The groups that lost acknowledged records, and why. They must not be served: `Forget` them
    /// and replace the replicas. The report stays over restarts until then.
    pub damaged: BTreeMap<GroupId, String>,
    /// Records were lost and nothing names their groups. All groups known are in `damaged`; a
    /// group that the caller expects and that is in neither map is lost as well.
    pub unnamed_loss: bool,
    /// What was wrong, in words, oldest first. Empty after a clean stop and after a plain crash.
    pub findings: Vec<String>,
    /// How many runs were read.
    pub runs: u64,
}

/// A group as a restart found it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupState {
    /// The ends of its log.
    pub extent: Extent,
    /// The last purge: up to which index, and its mark.
    pub purged: Option<(u64, Bytes)>,
    /// The latest value of each slot that was ever put.
    pub slots: BTreeMap<Slot, Bytes>,
}

/// What was written since the log was opened, and what it holds now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CoreStats {
    /// Runs written and synced.
    pub runs: u64,
    /// Syncs of segments.
    pub syncs: u64,
    /// Bytes of those runs.
    pub bytes: u64,
    /// Entries in those runs.
    pub entries: u64,
    /// Segments in use, head included.
    pub segments: u64,
    /// Segments freed.
    pub segments_freed: u64,
    /// Bytes that can be written without asking the file system for more.
    pub ready_bytes: u64,
    /// Bytes of the segments in use: what a restart would read.
    pub retained_bytes: u64,
}

#[derive(Debug)]
pub(crate) enum WriteError {
    /// Nothing since the last durable run counts as written.
    NoSpace(String),
    /// A write or sync failed: what is on disk is unknown.
    Fatal(String),
}

impl WriteError {
    fn of(doing: &str, error: &io::Error) -> WriteError {
        let what = format!("{doing}: {error}");
        if is_no_space(error) { WriteError::NoSpace(what) } else { WriteError::Fatal(what) }
    }

    fn fatal(doing: &'static str) -> impl FnOnce(io::Error) -> WriteError {
        move |error| WriteError::Fatal(format!("{doing}: {error}"))
    }
}

/// How far a write came.
#[derive(Debug)]
pub(crate) struct Written {
    /// This many of the operations are durable, from the first on.
    pub ops: usize,
    pub error: Option<WriteError>,
}

/// A record on its way into a run.
struct Item<'a> {
    record: RecordParts<'a>,
    /// The operation that it is of; `None` for a report of damage.
    op: Option<&'a Op>,
    /// Which of the caller's operations it is of, if any.
    given: Option<usize>,
}

/// What to note in the index once the run is durable.
enum Placed<'a> {
    Entry { group: GroupId, index: u64, at: EntryRef },
    Change(&'a Op),
    Report(GroupId),
}

pub(crate) struct SegmentLog {
    salt: u32,
    run_bytes_max: usize,
    groups_per_run_max: usize,
    segments: Segments,
    index: Arc<RwLock<Index>>,
    sequence: u64,
    /// The oldest segment needed, as the last two durable runs say: the one before, the last.
    oldest_claims: (u64, u64),
    /// A run may lie unfinished at the tail: of a failed attempt, or of a former process.
    tail_was_tried: bool,
    /// The last durable run holds something that a mark should prove.
    unmarked: bool,
    buffer: Vec<u8>,
    stats: CoreStats,
    _lock: Box<dyn DirLock>,
}

impl SegmentLog {
    pub fn open(disk: Arc<dyn Disk>, options: &LogOptions) -> Result<(SegmentLog, Recovered), OpenError> {
        options.check()?;
        let lock = disk.lock().map_err(|source| match source.kind() {
            io::ErrorKind::WouldBlock => OpenError::InUse,
            _ => OpenError::Io { doing: "locking the directory".to_owned(), source },
        })?;
        let contents = Contents::read(disk.as_ref())?;
        if contents.has_identity {
            identity::check(disk.as_ref(), &options.identity)?;
            SegmentLog::reopen(disk, options, lock, &contents)
        } else {
            contents.check_half_made(disk.as_ref())?;
            let log = SegmentLog::create(disk, options, lock, &contents)?;
            Ok((log, Recovered::default()))
        }
    }

    /// Makes a new log. A crash on the way leaves no identity, and the next open starts over.
    fn create(
        disk: Arc<dyn Disk>,
        options: &LogOptions,
        lock: Box<dyn DirLock>,
        contents: &Contents,
    ) -> Result<SegmentLog, OpenError> {
        contents.remove_leftovers(disk.as_ref())?;
        for segment in contents.segments.iter().rev() {
            disk.remove(&file_name(*segment)).map_err(OpenError::io("removing a half-made log"))?;
        }
        let segments = Segments::adopt(Arc::clone(&disk), options.segment_bytes, BTreeMap::new(), 0, 0)
            .map_err(OpenError::io("preparing segments"))?;
        let replay = Replay { sequence: 1, oldest: 1, ..Replay::default() };
        let mut log = SegmentLog::assemble(options, segments, replay, lock);
        log.segments.make_first().map_err(OpenError::io("making the first segment"))?;
        log.first_run().map_err(OpenError::io("writing the first run"))?;
        identity::establish(disk.as_ref(), &options.identity)?;
        Ok(log)
    }

    fn first_run(&mut self) -> io::Result<()> {
        match self.write_runs(&[], true).error {
            None => Ok(()),
            Some(WriteError::NoSpace(_)) => Err(io::ErrorKind::StorageFull.into()),
            Some(WriteError::Fatal(what)) => Err(io::Error::other(what)),
        }
    }

    fn reopen(
        disk: Arc<dyn Disk>,
        options: &LogOptions,
        lock: Box<dyn DirLock>,
        contents: &Contents,
    ) -> Result<(SegmentLog, Recovered), OpenError> {
        let mut files: BTreeMap<u64, Arc<dyn DiskFile>> = BTreeMap::new();
        for &segment in &contents.segments {
            let name = file_name(segment);
            let file = disk.open(&name).map_err(OpenError::io(format!("opening {name}")))?;
            files.insert(segment, file);
        }
        let salt = salt_of(&options.identity);
        let mut load = |segment: u64| match files.get(&segment) {
            Some(file) => read_all(file.as_ref()),
            None => Err(io::ErrorKind::NotFound.into()),
        };
        let replay = replay(salt, &contents.segments, &mut load).map_err(|error| match error {
            ReplayError::NewerFormat(found) => OpenError::NewerFormat { found, supported: FORMAT_VERSION },
            ReplayError::Io { segment, source } => {
                OpenError::Io { doing: format!("reading {}", file_name(segment)), source }
            }
        })?;
        // From here on the directory is changed.
        contents.remove_leftovers(disk.as_ref())?;
        if let Some((at, bytes)) = replay.last {
            settle_last_run(&files, at, bytes).map_err(OpenError::io("settling the last run"))?;
        }
        disk.sync_dir().map_err(OpenError::io("syncing the directory"))?;
        let recovered = report(&replay);
        let tail = replay.tail;
        let segments = Segments::adopt(disk, options.segment_bytes, files, tail.segment, tail.offset)
            .map_err(OpenError::io("adopting segments"))?;
        let mut log = SegmentLog::assemble(options, segments, replay, lock);
        // Marks what was recovered as durable and writes down what was found damaged.
        match log.write_runs(&[], true).error {
            None | Some(WriteError::NoSpace(_)) => Ok((log, recovered)),
            Some(WriteError::Fatal(what)) => {
                Err(OpenError::io("writing the first run")(io::Error::other(what)))
            }
        }
    }

    fn assemble(
        options: &LogOptions,
        segments: Segments,
        replay: Replay,
        lock: Box<dyn DirLock>,
    ) -> SegmentLog {
        SegmentLog {
            salt: salt_of(&options.identity),
            run_bytes_max: options.run_bytes_max as usize,
            groups_per_run_max: options.groups_per_run_max(),
            oldest_claims: (segments.oldest(), replay.oldest),
            segments,
            index: Arc::new(RwLock::new(replay.index)),
            sequence: replay.sequence,
            tail_was_tried: true,
            unmarked: true,
            buffer: Vec::new(),
            stats: CoreStats::default(),
            _lock: lock,
        }
    }

    pub fn index(&self) -> Arc<RwLock<Index>> {
        Arc::clone(&self.index)
    }

    pub fn files(&self) -> Files {
        self.segments.files()
    }

    pub fn oldest_segment(&self) -> u64 {
        self.segments.oldest()
    }

    pub fn stats(&self) -> CoreStats {
        CoreStats {
            segments: self.segments.head() - self.segments.oldest() + 1,
            ready_bytes: self.segments.ready_bytes(),
            retained_bytes: self.segments.used_bytes(),
            ..self.stats
        }
    }

    /// Writes the operations, which must fit the index in order, as one or more synced runs.
    pub fn write(&mut self, ops: &[&Op]) -> Written {
        self.write_runs(ops, false)
    }

    /// True if a run should be written though nobody asks for one: to mark what is durable, or to
    /// bring a segment nearer to being freed.
    pub fn wants_idle_run(&self) -> bool {
        let oldest = self.read_index().oldest_needed(self.segments.head());
        let (before, last) = self.oldest_claims;
        self.unmarked || before < last || last < oldest || self.free_upto().is_some()
    }

    /// True if the last run holds something that no later run proves yet.
    pub fn wants_mark(&self) -> bool {
        self.unmarked
    }

    /// Writes a run for which nobody asks.
    pub fn write_mark(&mut self) -> Result<(), WriteError> {
        self.write_runs(&[], true).error.map_or(Ok(()), Err)
    }

    /// Frees what is not needed and prepares what will be. Called when no one waits.
    pub fn maintain(&mut self) -> Result<(), WriteError> {
        let freed =
            self.segments.free_below(self.oldest_claims.0).map_err(WriteError::fatal("freeing a segment"))?;
        self.stats.segments_freed += freed as u64;
        self.segments.prepare().map_err(WriteError::fatal("preparing a segment"))
    }

    /// Makes sure that this many bytes of runs can be written, if the disk has the room.
    pub fn ensure_room(&mut self, bytes: u64) -> Result<(), WriteError> {
        self.segments.ensure(bytes).map_err(|e| WriteError::of("making the next segment", &e))
    }

    /// True if the next segment is not ready yet: it is being prepared, or the disk has no room.
    pub fn wants_spare(&self) -> bool {
        self.segments.wants_spare()
    }

    fn read_index(&self) -> std::sync::RwLockReadGuard<'_, Index> {
        self.index.read().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// The segments up to this one could be freed by moving small records alone.
    fn free_upto(&self) -> Option<u64> {
        let index = self.read_index();
        let head = self.segments.head();
        let pinned = index.oldest_entry_segment().map_or(head, |segment| segment.min(head));
        (index.oldest_needed(head) < pinned).then(|| pinned - 1)
    }

    fn write_runs(&mut self, ops: &[&Op], even_if_empty: bool) -> Written {
        let free_upto = self.free_upto();
        let (carried, reports) = self.read_index().to_carry(free_upto);
        let groups_max = {
            let given = ops.iter().map(|op| op.group());
            let moved = carried.iter().map(Op::group).chain(reports.iter().map(|(group, _)| *group));
            given.chain(moved).collect::<BTreeSet<_>>().len().min(self.groups_per_run_max)
        };
        // What is carried goes first: an older value must not come after a newer one.
        let reports = reports.iter().map(|(group, reason)| Item {
            record: RecordParts::damaged(*group, reason),
            op: None,
            given: None,
        });
        let carried = carried
            .iter()
            .flat_map(|op| RecordParts::of(op).map(move |record| Item { record, op: Some(op), given: None }));
        let given = ops.iter().enumerate().flat_map(|(at, op)| {
            RecordParts::of(op).map(move |record| Item { record, op: Some(op), given: Some(at) })
        });
        let mut items = reports.chain(carried).chain(given).peekable();
        let mut wanted = even_if_empty;
        loop {
            // The first operation with a record that is not durable yet.
            let next = items.peek().map_or(ops.len(), |item| item.given.unwrap_or(0));
            if items.peek().is_none() && !wanted {
                return Written { ops: ops.len(), error: None };
            }
            if let Err(error) = self.write_run(&mut items, groups_max) {
                return Written { ops: next, error: Some(error) };
            }
            wanted = false;
        }
    }

    /// Writes and syncs one run with as many of the records as fit.
    fn write_run<'a>(
        &mut self,
        items: &mut std::iter::Peekable<impl Iterator<Item = Item<'a>>>,
        groups_max: usize,
    ) -> Result<(), WriteError> {
        let mut builder = RunBuilder::start(std::mem::take(&mut self.buffer), groups_max);
        let first_bytes = items.peek().map_or(0, |item| item.record.bytes());
        if builder.run_bytes_with(first_bytes) > self.segments.left_bytes() as usize {
            self.roll()?;
        }
        let left_bytes = self.segments.left_bytes() as usize;
        let at = self.tail();
        let mut placed = Vec::new();
        let mut proof_wanted = false;
        while let Some(item) = items.peek() {
            let limit = if builder.is_empty() { left_bytes } else { left_bytes.min(self.run_bytes_max) };
            if builder.run_bytes_with(item.record.bytes()) > limit || !builder.can_name(item.record.group) {
                break;
            }
            let payload_at = at.offset + to_u32(builder.push(item.record));
            placed.push(match item.op {
                Some(Op::Append { group, .. }) => Placed::Entry {
                    group: *group,
                    index: item.record.index,
                    at: EntryRef {
                        term: item.record.term,
                        segment: at.segment,
                        offset: payload_at,
                        payload_bytes: to_u32(item.record.payload.len()),
                    },
                },
                Some(op) => Placed::Change(op),
                None => Placed::Report(item.record.group),
            });
            proof_wanted |= !item.op.is_some_and(|op| op.rides_along());
            items.next();
        }
        if placed.is_empty() && first_bytes > 0 {
            return Err(WriteError::Fatal("a record longer than a segment".to_owned()));
        }
        self.put(builder)?;
        self.unmarked = proof_wanted;
        self.note(placed, at.segment);
        Ok(())
    }

    fn tail(&self) -> Position {
        Position { segment: self.segments.head(), offset: self.segments.tail() }
    }

    /// Goes on in the next segment. If an attempt may have left something at the tail, an empty run
    /// takes its place first: else it would look like a run that was there and has rotted.
    fn roll(&mut self) -> Result<(), WriteError> {
        if self.tail_was_tried && self.segments.left_bytes() as usize >= BLOCK_BYTES {
            self.put(RunBuilder::start(Vec::new(), 0))?;
            self.unmarked = false;
        }
        self.segments.roll().map_err(|error| WriteError::of("making the next segment", &error))
    }

    /// Writes and syncs a run at the tail.
    fn put(&mut self, builder: RunBuilder) -> Result<(), WriteError> {
        let at = self.tail();
        let entries = builder.entry_count();
        let oldest = self.read_index().oldest_needed(at.segment);
        let (header, bytes) = builder.seal(self.salt, at, self.sequence, at, oldest);
        self.tail_was_tried = true;
        let written = self.write_and_sync(&bytes);
        self.buffer = bytes;
        written?;
        self.tail_was_tried = false;
        self.segments.advance(header.run_bytes);
        self.sequence = header.sequence + 1;
        self.oldest_claims = (self.oldest_claims.1, oldest);
        self.stats.runs += 1;
        self.stats.syncs += 1;
        self.stats.bytes += u64::from(header.run_bytes);
        self.stats.entries += entries;
        Ok(())
    }

    fn write_and_sync(&mut self, bytes: &[u8]) -> Result<(), WriteError> {
        // If the disk was full, a part of it may be there, without the trailer: recovery drops it,
        // and the next run takes its place.
        self.segments.write_at_tail(bytes).map_err(|error| WriteError::of("writing a run", &error))?;
        if simulation::has(Bug::AcknowledgedBeforeSync) {
            return Ok(());
        }
        // Whatever the reason, pages of a failed sync are lost though they still read back. Even a
        // full disk is fatal here.
        self.segments.sync_head().map_err(WriteError::fatal("syncing a run"))
    }

    fn note(&mut self, placed: Vec<Placed<'_>>, segment: u64) {
        let mut index = self.index.write().unwrap_or_else(|poisoned| poisoned.into_inner());
        for placed in placed {
            match placed {
                Placed::Entry { group, index: entry, at } => index.append(group, entry, at),
                Placed::Change(op) => index.change(op, segment),
                Placed::Report(group) => index.settle_damage(group, segment),
            }
        }
    }
}

fn to_u32(n: usize) -> u32 {
    u32::try_from(n).expect("runs are shorter than a segment")
}

/// The names in the directory, sorted by what they are.
#[derive(Default)]
struct Contents {
    has_identity: bool,
    leftovers: Vec<&'static str>,
    segments: Vec<u64>,
}

impl Contents {
    fn read(disk: &dyn Disk) -> Result<Contents, OpenError> {
        let mut contents = Contents::default();
        let mut foreign = Vec::new();
        for name in disk.list().map_err(OpenError::io("listing the directory"))? {
            match (name.as_str(), segment_of(&name)) {
                (identity::NAME, _) => contents.has_identity = true,
                (identity::UNFINISHED, _) => contents.leftovers.push(identity::UNFINISHED),
                (segments::UNFINISHED, _) => contents.leftovers.push(segments::UNFINISHED),
                (_, Some(segment)) => contents.segments.push(segment),
                // What a file system puts at the root of a volume.
                ("lost+found", _) => {}
                _ => foreign.push(name),
            }
        }
        if !foreign.is_empty() {
            foreign.sort();
            return Err(OpenError::NotALog(foreign));
        }
        contents.segments.sort_unstable();
        Ok(contents)
    }

    /// Without an identity, only a log whose making was cut short may be started over.
    fn check_half_made(&self, disk: &dyn Disk) -> Result<(), OpenError> {
        for &segment in &self.segments {
            let name = file_name(segment);
            let bytes = disk
                .open(&name)
                .and_then(|file| read_all(file.as_ref()))
                .map_err(OpenError::io(format!("reading {name}")))?;
            let untouched = bytes.iter().skip(BLOCK_BYTES).all(|byte| *byte == 0);
            if segment != 1 || !untouched {
                let why = format!("{} is missing, but {name} holds records", identity::NAME);
                return Err(OpenError::DamagedIdentity(why));
            }
        }
        Ok(())
    }

    fn remove_leftovers(&self, disk: &dyn Disk) -> Result<(), OpenError> {
        for name in &self.leftovers {
            disk.remove(name).map_err(OpenError::io(format!("removing {name}")))?;
        }
        Ok(())
    }
}

/// Reads a whole file; blocks that the disk cannot read become zeros, which no crc accepts.
fn read_all(file: &dyn DiskFile) -> io::Result<Bytes> {
    let length = usize::try_from(file.length_bytes()?).map_err(io::Error::other)?;
    let mut bytes = vec![0; length];
    if file.read_at(&mut bytes, 0).is_err() {
        for (at, block) in bytes.chunks_mut(BLOCK_BYTES).enumerate() {
            if file.read_at(block, (at * BLOCK_BYTES) as u64).is_err() {
                block.fill(0);
            }
        }
    }
    Ok(Bytes::from(bytes))
}

/// Writes the last run once more, as it was read, and syncs it. What a process reads back after
/// another one died may be in memory only, even marked as clean after a sync that failed; now it
/// is durable before anyone hears of it. The same bytes over themselves cannot tear.
fn settle_last_run(files: &BTreeMap<u64, Arc<dyn DiskFile>>, at: Position, run_bytes: u32) -> io::Result<()> {
    let Some(file) = files.get(&at.segment) else { return Ok(()) };
    let mut bytes = vec![0; run_bytes as usize];
    file.read_at(&mut bytes, u64::from(at.offset))?;
    file.write_at(&bytes, u64::from(at.offset))?;
    file.sync_data()
}

fn report(replay: &Replay) -> Recovered {
    let mut recovered = Recovered {
        unnamed_loss: replay.unnamed_loss,
        findings: replay.findings.clone(),
        runs: replay.runs,
        ..Recovered::default()
    };
    for (group, found) in replay.index.groups() {
        if let Some(reason) = found.damage() {
            recovered.damaged.insert(group, reason);
            continue;
        }
        let slots = Slot::ALL.into_iter().filter_map(|s| Some((s, found.slot(s)?.clone())));
        let state = GroupState {
            extent: found.extent(),
            purged: found.purged().map(|(upto, mark)| (upto, mark.clone())),
            slots: slots.collect(),
        };
        recovered.groups.insert(group, state);
    }
    recovered
}
