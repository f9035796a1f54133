//! The side of the log that the Raft groups hold: submit, read, ask. Cheap to clone.
//!
//! Submitting checks the operations, makes them readable and queues them; it never touches the
//! disk. Reading takes the newest entries from memory and older ones from the segment files,
//! outside every lock.
//!
//! Locks are taken in this order: the state here, then the index, then the open files.

use crate::simulation::{self, Bug};

use super::claims::{Claim, Claims};
use super::core::CoreStats;
use super::disk::DiskFile;
use super::error::LogError;
use super::index::{EntryRef, Index};
use super::options::LogOptions;
use super::run::{BLOCK_BYTES, RECORD_BYTES, Record, decode_record};
use super::segments::Files;
use super::types::{Extent, GroupId, LogEntry, Op, Slot};
use super::view::View;
use bytes::Bytes;
use std::collections::{BTreeSet, VecDeque};
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, RwLock};

/// Called once with the outcome of a submission, in the order of submission, off the caller's
/// stack. It must not block: the writer waits for it.
pub type Done = Box<dyn FnOnce(Result<(), LogError>) + Send>;

/// Bytes that one read of a segment file asks for at most.
const READ_BYTES_MAX: usize = 1024 * 1024;
/// How often a read is tried again when a segment was freed under it.
const READ_ATTEMPTS: usize = 4;

/// A submission that was not accepted, given back whole.
pub struct Refused {
    /// Why.
    pub error: LogError,
    /// The operations.
    pub ops: Vec<Op>,
    /// The callback, not called.
    pub done: Done,
}

impl fmt::Debug for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Refused").field("error", &self.error).finish_non_exhaustive()
    }
}

/// A group whose entries should be flushed to the state store and purged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlushNeed {
    /// Which group.
    pub group: GroupId,
    /// Its bytes in the log that are not purged.
    pub live_bytes: u64,
    /// True if it keeps the oldest segments from being freed.
    pub pins_oldest: bool,
}

/// Numbers for the metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogStats {
    /// What was written, and what the segments hold.
    pub core: CoreStats,
    /// Submissions in the queue.
    pub queue_depth: u64,
    /// Bytes of those submissions.
    pub queue_bytes: u64,
}

/// A submission in the queue.
pub(crate) struct Submission {
    pub ops: Vec<(Op, u64)>,
    pub bytes: u64,
    pub rides_along: bool,
    pub done: Done,
}

/// What the writer's thread waits for. Waking nobody is a system call too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Awaited {
    /// Nothing: it works.
    Nothing,
    /// A submission that asks for a run.
    Pressing,
    /// Any submission.
    Anything,
}

/// What handles and the driver share.
pub(crate) struct State {
    pub view: View,
    pub queue: VecDeque<Submission>,
    pub queue_bytes: u64,
    /// Submissions in the queue that ask for a run.
    pub pressing: usize,
    pub poisoned: Option<LogError>,
    pub closed: bool,
    pub awaited: Awaited,
    /// Threads that wait for room in the queue.
    pub room_wanted: usize,
    pub core: CoreStats,
    /// Room for appends that are on their way.
    pub claims: Claims,
    pub oldest_segment: u64,
    /// The disk has no room for a segment ahead.
    pub short_of_room: bool,
}

pub(crate) struct Shared {
    pub options: LogOptions,
    pub state: Mutex<State>,
    pub work: Condvar,
    pub room: Condvar,
    pub index: Arc<RwLock<Index>>,
    pub files: Files,
    pub waker: OnceLock<Box<dyn Fn() + Send + Sync>>,
}

impl Shared {
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    pub fn index(&self) -> std::sync::RwLockReadGuard<'_, Index> {
        self.index.read().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// The log, for its users.
#[derive(Clone)]
pub struct LogHandle {
    pub(crate) shared: Arc<Shared>,
}

impl fmt::Debug for LogHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogHandle").finish_non_exhaustive()
    }
}

impl LogHandle {
    /// Queues operations as one submission and makes them readable. Waits while the queue is full.
    /// `done` is called if and only if this returns `Ok`. A submission of nothing but
    /// `Slot::Committed` asks for no run: its `done` comes with the next one, or with the next
    /// mark of an idle log.
    pub fn submit(&self, ops: Vec<Op>, done: Done) -> Result<(), LogError> {
        let bytes = bytes_of(&ops);
        let mut state = self.shared.state();
        while self.is_full(&state, bytes) && state.poisoned.is_none() && !state.closed {
            state.room_wanted += 1;
            state = self.shared.room.wait(state).unwrap_or_else(|poisoned| poisoned.into_inner());
            state.room_wanted -= 1;
        }
        self.admit(&state, &ops)?;
        self.enqueue(state, ops, bytes, done);
        Ok(())
    }

    /// Like `submit`, but gives the submission back as `Busy` when the queue is full.
    pub fn try_submit(&self, ops: Vec<Op>, done: Done) -> Result<(), Refused> {
        let bytes = bytes_of(&ops);
        let state = self.shared.state();
        let full = self.is_full(&state, bytes).then_some(LogError::Busy).map_or(Ok(()), Err);
        if let Err(error) = self.admit(&state, &ops).and(full) {
            return Err(Refused { error, ops, done });
        }
        self.enqueue(state, ops, bytes, done);
        Ok(())
    }

    /// An empty queue takes a submission of any size: else one over the bound would wait for ever.
    fn is_full(&self, state: &State, bytes: u64) -> bool {
        state.queue_bytes > 0 && state.queue_bytes + bytes > self.shared.options.queue_bytes_max
    }

    fn admit(&self, state: &State, ops: &[Op]) -> Result<(), LogError> {
        if let Some(error) = &state.poisoned {
            return Err(error.clone());
        }
        if state.closed {
            return Err(LogError::Closed);
        }
        state.view.check(ops, &self.shared.options)
    }

    fn enqueue(&self, mut state: MutexGuard<'_, State>, ops: Vec<Op>, bytes: u64, mut done: Done) {
        if simulation::has(Bug::AnsweredWhenQueued) {
            std::mem::replace(&mut done, Box::new(|_| ()))(Ok(()));
        }
        let rides_along = ops.iter().all(Op::rides_along);
        let index = self.shared.index();
        for op in ops.iter().filter(|op| matches!(op, Op::Append { .. })) {
            state.claims.arrive(op.group(), bytes_of(std::slice::from_ref(op)));
        }
        let applied = ops.into_iter().map(|op| {
            let epoch = state.view.apply(&op, &index);
            (op, epoch)
        });
        let ops = applied.collect();
        drop(index);
        state.queue_bytes += bytes;
        state.pressing += usize::from(!rides_along);
        state.queue.push_back(Submission { ops, bytes, rides_along, done });
        let wakes = match state.awaited {
            Awaited::Nothing => false,
            Awaited::Pressing => !rides_along,
            Awaited::Anything => true,
        };
        drop(state);
        if wakes {
            self.shared.work.notify_one();
        }
        if let Some(wake) = self.shared.waker.get() {
            wake();
        }
    }

    /// The entries of a range, from memory or from disk. The whole range must be present.
    pub fn read(&self, group: GroupId, range: Range<u64>) -> Result<Vec<LogEntry>, LogError> {
        let mut fault = None;
        for _ in 0..READ_ATTEMPTS {
            let (on_disk, cached) = self.locate(group, &range)?;
            match self.read_disk(group, range.start, &on_disk) {
                Ok(mut entries) => {
                    entries.extend(cached);
                    return Ok(entries);
                }
                // The segment may have been freed, or the entry truncated, since it was located.
                Err(error) => fault = Some(error),
            }
        }
        Err(fault.unwrap_or_else(|| LogError::Read("no attempt was made".to_owned())))
    }

    fn locate(&self, group: GroupId, range: &Range<u64>) -> Result<(Vec<EntryRef>, Vec<LogEntry>), LogError> {
        let state = self.shared.state();
        let missing = |index, extent: Extent| LogError::Missing {
            group,
            index,
            first: extent.first_index,
            next: extent.next_index,
        };
        let view = state.healthy(group)?;
        let extent = view.map_or_else(Extent::default, |view| view.extent());
        let Some(view) = view.filter(|_| range.start < range.end) else {
            return if range.start < range.end {
                Err(missing(range.start, extent))
            } else {
                Ok((Vec::new(), Vec::new()))
            };
        };
        if range.start < extent.first_index {
            return Err(missing(range.start, extent));
        }
        if range.end > extent.next_index {
            return Err(missing(extent.next_index.max(range.start), extent));
        }
        let index = self.shared.index();
        let mut on_disk = Vec::new();
        for at in range.start..range.end.min(view.tail_start()) {
            let entry = index.group(group).and_then(|found| found.entry(at));
            on_disk.push(entry.ok_or_else(|| missing(at, extent))?);
        }
        Ok((on_disk, view.cached(range.start, range.end).cloned().collect()))
    }

    /// Reads entries that follow each other, with one call for those that lie side by side.
    fn read_disk(&self, group: GroupId, first: u64, refs: &[EntryRef]) -> Result<Vec<LogEntry>, LogError> {
        let mut entries = Vec::with_capacity(refs.len());
        let mut rest = refs;
        while let Some(count) = side_by_side(rest) {
            let (now, later) = rest.split_at(count);
            let start = now[0].offset as usize - RECORD_BYTES;
            let end = now[count - 1].offset as usize + now[count - 1].payload_bytes as usize;
            let bytes = self.read_file(now[0].segment, start, end - start)?;
            for wanted in now {
                let record = bytes.slice(wanted.offset as usize - RECORD_BYTES - start..);
                let index = first + entries.len() as u64;
                entries.push(expect_entry(&record, group, index, wanted)?);
            }
            rest = later;
        }
        Ok(entries)
    }

    fn read_file(&self, segment: u64, at: usize, count: usize) -> Result<Bytes, LogError> {
        let files = self.shared.files.read().unwrap_or_else(|poisoned| poisoned.into_inner());
        let file: Option<Arc<dyn DiskFile>> = files.get(&segment).cloned();
        drop(files);
        let file = file.ok_or_else(|| LogError::Read(format!("segment {segment} is gone")))?;
        let mut bytes = vec![0; count];
        file.read_at(&mut bytes, at as u64).map_err(|e| LogError::Read(e.to_string()))?;
        Ok(Bytes::from(bytes))
    }

    /// The ends of a group's log. A group that the log does not know is empty.
    pub fn extent(&self, group: GroupId) -> Result<Extent, LogError> {
        let state = self.shared.state();
        Ok(state.healthy(group)?.map_or_else(Extent::default, |view| view.extent()))
    }

    /// The latest value of a slot, durable or not.
    pub fn slot(&self, group: GroupId, slot: Slot) -> Result<Option<Bytes>, LogError> {
        let state = self.shared.state();
        Ok(state.healthy(group)?.and_then(|view| view.slot(slot).cloned()))
    }

    /// The last purge: up to which index, and its mark.
    pub fn purged(&self, group: GroupId) -> Result<Option<(u64, Bytes)>, LogError> {
        let state = self.shared.state();
        Ok(state.healthy(group)?.and_then(|view| view.purged().cloned()))
    }

    /// The groups of which something lies in the oldest segment, and so keeps it from being freed.
    /// Small records move on by themselves; entries need a flush and a purge.
    pub fn pins_oldest(&self) -> Vec<GroupId> {
        let oldest = self.shared.state().oldest_segment;
        self.shared.index().pins(oldest).collect()
    }

    /// The groups to flush and purge: those with too much unpurged, and, while the log is longer
    /// than it should be or the disk is full, those whose entries keep old segments. Ask now and
    /// then, after purges or before refusing a write.
    pub fn groups_to_flush(&self) -> Vec<FlushNeed> {
        let options = &self.shared.options;
        let (oldest, retained_bytes, short_of_room) = {
            let state = self.shared.state();
            (state.oldest_segment, state.core.retained_bytes, state.short_of_room)
        };
        let excess_bytes = retained_bytes.saturating_sub(options.retained_bytes_max);
        let excess = excess_bytes.div_ceil(u64::from(options.segment_bytes));
        let excess = excess.max(u64::from(short_of_room));
        let index = self.shared.index();
        let pinning: BTreeSet<GroupId> = match excess {
            0 => BTreeSet::new(),
            excess => index.entry_pins(oldest + excess - 1).collect(),
        };
        index
            .groups()
            .map(|(group, found)| FlushNeed {
                group,
                live_bytes: found.live_bytes(),
                pins_oldest: pinning.contains(&group),
            })
            .filter(|need| need.pins_oldest || need.live_bytes > options.group_bytes_max)
            .collect()
    }

    /// Claims room for appends of a group of these many bytes, which come to the log by and by: for as
    /// many as fit, with what is queued and claimed, and leave the reserve free. How many that are, from
    /// the first on; `None` where the first does not fit. Refuse it then: an append that Raft has decided
    /// on cannot be taken back.
    pub fn claim(&self, group: GroupId, appends: impl IntoIterator<Item = u64>) -> Option<(usize, Claim)> {
        let mut state = self.shared.state();
        let room = self.room_bytes(&state)?;
        let (mut count, mut bytes) = (0, 0);
        for append in appends {
            if bytes + append > room {
                break;
            }
            (count, bytes) = (count + 1, bytes + append);
        }
        if count == 0 {
            return None;
        }
        let number = state.claims.add(group, bytes);
        drop(state);
        Some((count, Claim::new(Arc::clone(&self.shared), group, number)))
    }

    /// True if appends of this many bytes could be claimed now.
    pub fn has_room(&self, bytes: u64) -> bool {
        self.room_bytes(&self.shared.state()).is_some_and(|room| bytes <= room)
    }

    /// True if a vote that can still be refused may be written: half of the reserve stays free, for
    /// purges, which make room, and for what Raft has decided on.
    pub fn has_room_for_vote(&self) -> bool {
        self.leaves(self.shared.options.reserve_bytes / 2)
    }

    /// True if it may be written down that another replica leads: a quarter of the reserve stays free.
    pub fn has_room_for_term(&self) -> bool {
        self.leaves(self.shared.options.reserve_bytes / 4)
    }

    fn leaves(&self, bytes: u32) -> bool {
        let state = self.shared.state();
        let wanted = u64::from(bytes) + state.queue_bytes + state.claims.bytes();
        state.poisoned.is_none() && wanted <= state.core.ready_bytes
    }

    /// What appends may take; `None` where not even the reserve is free.
    fn room_bytes(&self, state: &State) -> Option<u64> {
        let options = &self.shared.options;
        let ready_bytes = if state.poisoned.is_none() { state.core.ready_bytes } else { 0 };
        // The end of a segment stays empty where it is too short for the next entry.
        let ends_bytes = ready_bytes / u64::from(options.segment_bytes) * options.first_of_run_bytes_max();
        let kept = u64::from(options.reserve_bytes) + ends_bytes + 2 * BLOCK_BYTES as u64;
        ready_bytes.checked_sub(kept + state.queue_bytes + state.claims.bytes())
    }

    /// Numbers for the metrics.
    pub fn stats(&self) -> LogStats {
        let state = self.shared.state();
        LogStats { core: state.core, queue_depth: state.queue.len() as u64, queue_bytes: state.queue_bytes }
    }

    /// Takes no more submissions; what is queued is still written.
    pub fn close(&self) {
        self.shared.state().closed = true;
        self.shared.work.notify_all();
        self.shared.room.notify_all();
        if let Some(wake) = self.shared.waker.get() {
            wake();
        }
    }
}

impl State {
    /// The view of a group that may be served, `None` if the log does not know it.
    fn healthy(&self, group: GroupId) -> Result<Option<&super::view::GroupView>, LogError> {
        if let Some(error) = &self.poisoned {
            return Err(error.clone());
        }
        let view = self.view.group(group);
        match view.and_then(|view| view.damage()) {
            Some(reason) => Err(LogError::Damaged { group, reason: reason.to_owned() }),
            None => Ok(view),
        }
    }
}

/// How many of the first entries one read can take; `None` when there are none.
fn side_by_side(refs: &[EntryRef]) -> Option<usize> {
    let first = refs.first()?;
    let mut end = first.offset as usize + first.payload_bytes as usize;
    let start = first.offset as usize;
    let mut count = 1;
    for next in &refs[1..] {
        let follows = next.segment == first.segment
            && next.offset as usize == end + RECORD_BYTES
            && next.offset as usize + next.payload_bytes as usize - start <= READ_BYTES_MAX;
        if !follows {
            break;
        }
        end = next.offset as usize + next.payload_bytes as usize;
        count += 1;
    }
    Some(count)
}

fn expect_entry(bytes: &Bytes, group: GroupId, index: u64, wanted: &EntryRef) -> Result<LogEntry, LogError> {
    match decode_record(bytes) {
        Ok((Record::Entry { group: found, entry }, _))
            if found == group && entry.index == index && entry.term == wanted.term =>
        {
            Ok(entry)
        }
        Ok(_) => Err(damaged(group, index, "another record is in its place")),
        Err(error) => Err(damaged(group, index, &error.to_string())),
    }
}

fn damaged(group: GroupId, index: u64, what: &str) -> LogError {
    LogError::Damaged { group, reason: format!("entry {index}: {what}") }
}

fn bytes_of(ops: &[Op]) -> u64 {
    let payload = |op: &Op| match op {
        Op::Append { entries, .. } => entries.iter().map(|entry| entry.payload.len() + RECORD_BYTES).sum(),
        Op::Purge { mark: bytes, .. } | Op::Put { value: bytes, .. } => bytes.len() + RECORD_BYTES,
        Op::Truncate { .. } | Op::Forget { .. } => RECORD_BYTES,
    };
    ops.iter().map(payload).sum::<usize>() as u64
}
