//! What the log says to its readers: everything submitted, durable or not. Pure.
//!
//! Why apart from the index: Raft reads back what it has just appended, before it is durable. So a
//! submission changes the view at once and the index after its sync. If it fails for lack of room,
//! the view of its groups is made anew from the index.
//!
//! Invariants:
//! - `tail` holds the newest entries of a group without a gap, up to its end.
//! - An entry that is not in `tail` is durable and in the index under the same term.
//! - So only entries below `durable_next` may leave `tail` to save memory.

use super::error::LogError;
use super::index::{GroupIndex, Index};
use super::options::LogOptions;
use super::types::{Extent, GroupId, LogEntry, Op, Slot};
use bytes::Bytes;
use std::collections::{BTreeMap, VecDeque};

#[derive(Clone, Debug, Default)]
pub(crate) struct GroupView {
    first: u64,
    next: u64,
    last_term: Option<u64>,
    tail: VecDeque<LogEntry>,
    /// Everything below is durable and in the index.
    durable_next: u64,
    /// Changes with each truncation, so that the completion of an append that was cut since is
    /// told from one that still stands.
    epoch: u64,
    slots: [Option<Bytes>; Slot::ALL.len()],
    purged: Option<(u64, Bytes)>,
    damaged: Option<String>,
}

impl GroupView {
    fn of(index: &GroupIndex) -> GroupView {
        let extent = index.extent();
        GroupView {
            first: extent.first_index,
            next: extent.next_index,
            last_term: extent.last_term,
            durable_next: extent.next_index,
            slots: Slot::ALL.map(|slot| index.slot(slot).cloned()),
            purged: index.purged().map(|(upto, mark)| (upto, mark.clone())),
            damaged: index.damage(),
            ..GroupView::default()
        }
    }

    pub fn extent(&self) -> Extent {
        Extent { first_index: self.first, next_index: self.next, last_term: self.last_term }
    }

    pub fn slot(&self, slot: Slot) -> Option<&Bytes> {
        self.slots[slot.position()].as_ref()
    }

    pub fn purged(&self) -> Option<&(u64, Bytes)> {
        self.purged.as_ref()
    }

    pub fn damage(&self) -> Option<&str> {
        self.damaged.as_deref()
    }

    /// The first index that is in memory.
    pub fn tail_start(&self) -> u64 {
        self.next - self.tail.len() as u64
    }

    /// The entries from `from` on that are in memory, up to `upto`.
    pub fn cached(&self, from: u64, upto: u64) -> impl Iterator<Item = &LogEntry> {
        let start = self.tail_start();
        let skip = usize::try_from(from.saturating_sub(start)).unwrap_or(usize::MAX);
        self.tail.iter().skip(skip).take_while(move |entry| entry.index < upto)
    }
}

/// The extent of a group as a submission would leave it; for checking it as a whole.
#[derive(Clone, Copy, Default)]
struct Sketch {
    first: u64,
    next: u64,
    damaged: bool,
}

/// All groups.
#[derive(Debug, Default)]
pub(crate) struct View {
    groups: BTreeMap<GroupId, GroupView>,
    epochs: u64,
    cached_bytes: u64,
    /// Durable appends in the order in which they leave memory: group, one past the last index.
    leaving: VecDeque<(GroupId, u64)>,
}

impl View {
    pub fn of(index: &Index) -> View {
        let groups = index.groups().map(|(group, found)| (group, GroupView::of(found))).collect();
        View { groups, ..View::default() }
    }

    pub fn group(&self, group: GroupId) -> Option<&GroupView> {
        self.groups.get(&group)
    }

    /// Checks a submission as a whole, without changing anything.
    pub fn check(&self, ops: &[Op], options: &LogOptions) -> Result<(), LogError> {
        let mut sketches: BTreeMap<GroupId, Sketch> = BTreeMap::new();
        for op in ops {
            let group = op.group();
            let found = self.groups.get(&group);
            let sketch = sketches.entry(group).or_insert_with(|| {
                found.map_or_else(Sketch::default, |view| Sketch {
                    first: view.first,
                    next: view.next,
                    damaged: view.damaged.is_some(),
                })
            });
            if sketch.damaged && !matches!(op, Op::Forget { .. }) {
                let reason = found.and_then(|view| view.damaged.clone()).unwrap_or_default();
                return Err(LogError::Damaged { group, reason });
            }
            admit(sketch, op, options).map_err(|reason| LogError::Invalid { group, reason })?;
        }
        Ok(())
    }

    /// Applies an operation of a checked submission. Returns the epoch that it belongs to.
    pub fn apply(&mut self, op: &Op, index: &Index) -> u64 {
        let group = op.group();
        if matches!(op, Op::Forget { .. }) {
            if let Some(gone) = self.groups.remove(&group) {
                self.cached_bytes -= bytes_of(&gone.tail);
            }
            return 0;
        }
        let epochs = &mut self.epochs;
        let view = self.groups.entry(group).or_insert_with(|| {
            *epochs += 1;
            GroupView { epoch: *epochs, ..GroupView::default() }
        });
        match op {
            Op::Append { entries, .. } => {
                view.next += entries.len() as u64;
                view.last_term = entries.last().map_or(view.last_term, |entry| Some(entry.term));
                self.cached_bytes += entries.iter().map(entry_bytes).sum::<u64>();
                view.tail.extend(entries.iter().cloned());
            }
            Op::Truncate { from_index, .. } if *from_index < view.next => {
                self.epochs += 1;
                view.epoch = self.epochs;
                view.durable_next = view.durable_next.min(*from_index);
                while view.next > *from_index {
                    view.next -= 1;
                    if let Some(entry) = view.tail.pop_back() {
                        self.cached_bytes -= entry_bytes(&entry);
                    } else {
                        view.next = *from_index;
                    }
                }
                view.last_term = match view.tail.back() {
                    Some(entry) => Some(entry.term),
                    None if view.next > view.first => {
                        index.group(group).and_then(|g| g.entry(view.next - 1)).map(|e| e.term)
                    }
                    None => None,
                };
            }
            Op::Purge { upto_index, mark, .. } => {
                if view.purged.as_ref().is_some_and(|(upto, _)| upto > upto_index) {
                    return view.epoch;
                }
                view.purged = Some((*upto_index, mark.clone()));
                while view.tail.front().is_some_and(|entry| entry.index <= *upto_index) {
                    let gone = view.tail.pop_front();
                    self.cached_bytes -= gone.as_ref().map_or(0, entry_bytes);
                }
                view.first = view.first.max(upto_index + 1);
                if view.next <= view.first {
                    view.next = view.first;
                    view.durable_next = view.first;
                    view.last_term = None;
                }
            }
            Op::Put { slot, value, .. } => view.slots[slot.position()] = Some(value.clone()),
            Op::Truncate { .. } | Op::Forget { .. } => {}
        }
        view.epoch
    }

    /// Notes that an operation is durable and in the index.
    pub fn complete(&mut self, op: &Op, epoch: u64) {
        let durable_next = match op {
            Op::Append { entries, .. } => entries.last().map(|entry| entry.index + 1),
            Op::Truncate { from_index, .. } => Some(*from_index),
            _ => None,
        };
        let group = op.group();
        let view = self.groups.get_mut(&group).filter(|view| view.epoch == epoch);
        if let (Some(view), Some(durable_next)) = (view, durable_next) {
            view.durable_next = view.durable_next.max(durable_next.min(view.next));
            self.leaving.push_back((group, durable_next));
        }
    }

    /// Lets durable entries leave memory, oldest first, until it holds at most this many bytes.
    pub fn shrink(&mut self, bytes_max: u64) {
        while self.cached_bytes > bytes_max {
            let Some((group, upto)) = self.leaving.pop_front() else { return };
            let Some(view) = self.groups.get_mut(&group) else { continue };
            let upto = upto.min(view.durable_next);
            while view.tail.front().is_some_and(|entry| entry.index < upto) {
                let gone = view.tail.pop_front();
                self.cached_bytes -= gone.as_ref().map_or(0, entry_bytes);
            }
        }
    }

    /// Makes a group anew from what is durable, after a submission of it failed.
    pub fn restore(&mut self, group: GroupId, index: &Index) {
        if let Some(gone) = self.groups.remove(&group) {
            self.cached_bytes -= bytes_of(&gone.tail);
        }
        if let Some(found) = index.group(group) {
            self.epochs += 1;
            let view = GroupView { epoch: self.epochs, ..GroupView::of(found) };
            self.groups.insert(group, view);
        }
    }
}

fn admit(sketch: &mut Sketch, op: &Op, options: &LogOptions) -> Result<(), String> {
    let short = |bytes: usize, bytes_max: usize| {
        if bytes > bytes_max {
            return Err(format!("{bytes} bytes where {bytes_max} are allowed"));
        }
        Ok(())
    };
    match op {
        Op::Append { entries, .. } => {
            for entry in entries {
                if entry.index != sketch.next || entry.index == u64::MAX - 1 {
                    return Err(format!("entry {} where {} follows", entry.index, sketch.next));
                }
                short(entry.payload.len(), options.entry_bytes_max as usize)?;
                sketch.next += 1;
            }
        }
        Op::Truncate { from_index, .. } => {
            if *from_index < sketch.first {
                return Err(format!("truncation at {from_index}, purged to {}", sketch.first));
            }
            sketch.next = sketch.next.min(*from_index);
        }
        Op::Purge { upto_index, mark, .. } => {
            if *upto_index >= u64::MAX - 1 {
                return Err("purge of every index there is".to_owned());
            }
            short(mark.len(), options.small_bytes_max())?;
            sketch.first = sketch.first.max(upto_index + 1);
            sketch.next = sketch.next.max(sketch.first);
        }
        Op::Put { value, .. } => short(value.len(), options.small_bytes_max())?,
        Op::Forget { .. } => *sketch = Sketch::default(),
    }
    Ok(())
}

fn entry_bytes(entry: &LogEntry) -> u64 {
    (entry.payload.len() + size_of::<LogEntry>()) as u64
}

fn bytes_of(entries: &VecDeque<LogEntry>) -> u64 {
    entries.iter().map(entry_bytes).sum()
}
