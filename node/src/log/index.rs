//! What the segments hold that still counts: for each group where its live entries lie, and the
//! latest value of each small record with the segment that it lies in. Pure.
//!
//! Why one structure for both: recovery replays records into it, and the writer applies records to
//! it after their sync, by the same code. So what a restart finds is what the log had said.
//!
//! Invariants:
//! - It knows only what is durable (or, during recovery, what was read back).
//! - A group's entries are contiguous and end where its next append must start.
//! - A segment older than `oldest_needed` holds nothing that counts.
//! - A damaged group holds nothing but the report of its damage, until it is forgotten.

use super::run::{RECORD_BYTES, Record};
use super::types::{Extent, GroupId, Op, Slot};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Where an entry lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct EntryRef {
    pub term: u64,
    pub segment: u64,
    /// Of the payload, from the segment's start.
    pub offset: u32,
    pub payload_bytes: u32,
}

/// A small record: its latest value and the segment of its latest copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Latest {
    pub value: Bytes,
    /// `None` while it is not on disk yet: the next run carries it.
    pub segment: Option<u64>,
}

/// One group.
#[derive(Clone, Debug, Default)]
pub(crate) struct GroupIndex {
    first: u64,
    entries: VecDeque<EntryRef>,
    slots: [Option<Latest>; Slot::ALL.len()],
    purged: Option<(u64, Latest)>,
    damaged: Option<Latest>,
    live_bytes: u64,
}

impl GroupIndex {
    pub fn extent(&self) -> Extent {
        Extent {
            first_index: self.first,
            next_index: self.next(),
            last_term: self.entries.back().map(|entry| entry.term),
        }
    }

    fn next(&self) -> u64 {
        self.first + self.entries.len() as u64
    }

    pub fn entry(&self, index: u64) -> Option<EntryRef> {
        let at = usize::try_from(index.checked_sub(self.first)?).ok()?;
        self.entries.get(at).copied()
    }

    pub fn slot(&self, slot: Slot) -> Option<&Bytes> {
        self.slots[slot.position()].as_ref().map(|latest| &latest.value)
    }

    pub fn purged(&self) -> Option<(u64, &Bytes)> {
        self.purged.as_ref().map(|(upto, mark)| (*upto, &mark.value))
    }

    pub fn damage(&self) -> Option<String> {
        let reason = self.damaged.as_ref()?;
        Some(String::from_utf8_lossy(&reason.value).into_owned())
    }

    /// Bytes of the entries that are neither truncated nor purged.
    pub fn live_bytes(&self) -> u64 {
        self.live_bytes
    }

    fn oldest_entry_segment(&self) -> Option<u64> {
        self.entries.front().map(|entry| entry.segment)
    }

    fn small(&self) -> impl Iterator<Item = &Latest> {
        let purged = self.purged.as_ref().map(|(_, mark)| mark);
        self.slots.iter().flatten().chain(purged).chain(&self.damaged)
    }

    fn pop_front(&mut self) {
        if let Some(entry) = self.entries.pop_front() {
            self.live_bytes -= u64::from(entry.payload_bytes) + RECORD_BYTES as u64;
            self.first += 1;
        }
    }

    fn pop_back(&mut self) {
        if let Some(entry) = self.entries.pop_back() {
            self.live_bytes -= u64::from(entry.payload_bytes) + RECORD_BYTES as u64;
        }
    }

    fn clear_entries(&mut self, first: u64) {
        self.entries.clear();
        self.live_bytes = 0;
        self.first = first;
    }

    /// The first index that is not purged.
    fn purged_next(&self) -> u64 {
        self.purged.as_ref().map_or(0, |(upto, _)| upto + 1)
    }
}

/// All groups.
#[derive(Clone, Debug, Default)]
pub(crate) struct Index {
    groups: BTreeMap<GroupId, GroupIndex>,
    /// Set while records that may concern any group are known to be lost: a group that shows up
    /// later without having been forgotten may have lost its beginning.
    newcomers_damaged: Option<String>,
    forgotten: BTreeSet<GroupId>,
}

impl Index {
    pub fn group(&self, group: GroupId) -> Option<&GroupIndex> {
        self.groups.get(&group)
    }

    pub fn groups(&self) -> impl Iterator<Item = (GroupId, &GroupIndex)> {
        self.groups.iter().map(|(group, index)| (*group, index))
    }

    /// The group that a record changes, or `None` if it is damaged and must not change.
    fn healthy(&mut self, group: GroupId) -> Option<&mut GroupIndex> {
        if !self.groups.contains_key(&group)
            && !self.forgotten.contains(&group)
            && let Some(reason) = self.newcomers_damaged.clone()
        {
            self.damage(group, &reason);
        }
        let index = self.groups.entry(group).or_default();
        index.damaged.is_none().then_some(index)
    }

    /// Applies a record that was read back.
    pub fn replay(&mut self, record: &Record, segment: u64, payload_offset: u32) {
        match record {
            Record::Entry { group, entry } => {
                let at = EntryRef {
                    term: entry.term,
                    segment,
                    offset: payload_offset,
                    payload_bytes: u32::try_from(entry.payload.len()).unwrap_or(u32::MAX),
                };
                self.append(*group, entry.index, at);
            }
            Record::Change(op) => self.change(op, segment),
            Record::Damaged { group, reason } => {
                self.damage(*group, reason);
                self.settle_damage(*group, segment);
            }
        }
    }

    /// Adds one entry.
    pub fn append(&mut self, group: GroupId, index: u64, at: EntryRef) {
        let Some(found) = self.healthy(group) else { return };
        let next = found.next();
        if index < next {
            let reason = format!("entry {index} was written where {next} had to follow");
            return self.damage(group, &reason);
        }
        if index > next {
            // Replay only: what lay between was purged later and its segments are gone. If no
            // purge follows that covers the hole, `finish_replay` finds it.
            found.clear_entries(index);
        }
        found.live_bytes += u64::from(at.payload_bytes) + RECORD_BYTES as u64;
        found.entries.push_back(at);
    }

    /// Applies any other operation; its record lies in `segment`.
    pub fn change(&mut self, op: &Op, segment: u64) {
        let latest = |value: &Bytes| Latest {
            // Copied, so that a small record does not keep a whole run in memory.
            value: Bytes::copy_from_slice(value),
            segment: Some(segment),
        };
        match op {
            Op::Append { .. } => {}
            Op::Forget { group } => {
                self.groups.remove(group);
                if self.newcomers_damaged.is_some() {
                    self.forgotten.insert(*group);
                }
            }
            Op::Put { group, slot, value } => {
                if let Some(found) = self.healthy(*group) {
                    found.slots[slot.position()] = Some(latest(value));
                }
            }
            Op::Truncate { group, from_index } => {
                let Some(found) = self.healthy(*group) else { return };
                if *from_index < found.first {
                    found.clear_entries(*from_index);
                }
                while found.next() > *from_index && !found.entries.is_empty() {
                    found.pop_back();
                }
            }
            Op::Purge { group, upto_index, mark } => {
                let Some(found) = self.healthy(*group) else { return };
                if found.purged.as_ref().is_some_and(|(upto, _)| upto > upto_index) {
                    return;
                }
                found.purged = Some((*upto_index, latest(mark)));
                while found.first <= *upto_index && !found.entries.is_empty() {
                    found.pop_front();
                }
                if found.entries.is_empty() && found.first <= *upto_index {
                    found.first = upto_index + 1;
                }
            }
        }
    }

    /// Takes a group out of service. The report is carried by the next run.
    pub fn damage(&mut self, group: GroupId, reason: &str) {
        let found = self.groups.entry(group).or_default();
        if found.damaged.is_none() {
            let value = Bytes::copy_from_slice(reason.as_bytes());
            let damaged = Some(Latest { value, segment: None });
            *found = GroupIndex { damaged, ..GroupIndex::default() };
        }
    }

    /// Takes every known group out of service, and those that show up later without having been
    /// forgotten: records were lost and nothing says whose.
    pub fn damage_all(&mut self, reason: &str) {
        let known: Vec<GroupId> = self.groups.keys().copied().collect();
        known.into_iter().for_each(|group| self.damage(group, reason));
        self.newcomers_damaged.get_or_insert_with(|| reason.to_owned());
        self.forgotten.clear();
    }

    /// Notes where the report of a group's damage now lies.
    pub fn settle_damage(&mut self, group: GroupId, at_segment: u64) {
        if let Some(damaged) = self.groups.get_mut(&group).and_then(|g| g.damaged.as_mut()) {
            damaged.segment = Some(at_segment);
        }
    }

    /// Ends a replay: a group with a hole between its purge and its first entry is damaged.
    pub fn finish_replay(&mut self) {
        let holes: Vec<(GroupId, String)> = self
            .groups
            .iter()
            .filter(|(_, found)| found.first > found.purged_next())
            .map(|(group, found)| {
                (*group, format!("entries {}..{} are missing", found.purged_next(), found.first))
            })
            .collect();
        holes.into_iter().for_each(|(group, reason)| self.damage(group, &reason));
        self.newcomers_damaged = None;
        self.forgotten.clear();
    }

    /// The oldest segment that something still needs; `head` if none does.
    pub fn oldest_needed(&self, head: u64) -> u64 {
        self.groups
            .values()
            .flat_map(|g| g.small().filter_map(|l| l.segment).chain(g.oldest_entry_segment()))
            .min()
            .map_or(head, |oldest| oldest.min(head))
    }

    /// The oldest segment that a live entry needs.
    pub fn oldest_entry_segment(&self) -> Option<u64> {
        self.groups.values().filter_map(GroupIndex::oldest_entry_segment).min()
    }

    /// The groups whose live entries need a segment up to this one.
    pub fn entry_pins(&self, segment: u64) -> impl Iterator<Item = GroupId> {
        self.groups
            .iter()
            .filter(move |(_, g)| g.oldest_entry_segment().is_some_and(|s| s <= segment))
            .map(|(group, _)| *group)
    }

    /// The groups of which anything needs a segment up to this one.
    pub fn pins(&self, segment: u64) -> impl Iterator<Item = GroupId> {
        self.groups
            .iter()
            .filter(move |(_, g)| {
                let entry = g.oldest_entry_segment();
                g.small().filter_map(|l| l.segment).chain(entry).any(|s| s <= segment)
            })
            .map(|(group, _)| *group)
    }

    /// The small records that the next run must carry: those not on disk yet, and those that alone
    /// keep segments up to `free_upto` (if given) from being freed. As operations and reports.
    pub fn to_carry(&self, free_upto: Option<u64>) -> (Vec<Op>, Vec<(GroupId, String)>) {
        let due = |latest: &Latest| match (latest.segment, free_upto) {
            (None, _) => true,
            (Some(segment), Some(upto)) => segment <= upto,
            (Some(_), None) => false,
        };
        let mut ops = Vec::new();
        let mut reports = Vec::new();
        for (&group, found) in &self.groups {
            for slot in Slot::ALL {
                if let Some(latest) = found.slots[slot.position()].as_ref().filter(|l| due(l)) {
                    ops.push(Op::Put { group, slot, value: latest.value.clone() });
                }
            }
            if let Some((upto_index, mark)) = found.purged.as_ref().filter(|(_, mark)| due(mark)) {
                ops.push(Op::Purge { group, upto_index: *upto_index, mark: mark.value.clone() });
            }
            if found.damaged.as_ref().is_some_and(due) {
                reports.extend(found.damage().map(|reason| (group, reason)));
            }
        }
        (ops, reports)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GROUP: GroupId = GroupId(1);

    fn at(segment: u64) -> EntryRef {
        EntryRef { term: 1, segment, offset: 0, payload_bytes: 10 }
    }

    fn purge(upto_index: u64) -> Op {
        Op::Purge { group: GROUP, upto_index, mark: Bytes::new() }
    }

    #[test]
    fn a_hole_that_no_purge_covers_is_damage() {
        let mut index = Index::default();
        index.append(GROUP, 5, at(3));
        index.change(&purge(3), 4);
        index.finish_replay();
        let reason = index.group(GROUP).and_then(GroupIndex::damage);
        assert_eq!(reason.as_deref(), Some("entries 4..5 are missing"));
    }

    #[test]
    fn a_replay_may_begin_inside_a_log_whose_beginning_was_freed() {
        let mut index = Index::default();
        index.append(GROUP, 5, at(3));
        index.append(GROUP, 6, at(3));
        // A hole again: 7 and 8 lay in a segment that is gone.
        index.append(GROUP, 9, at(4));
        index.change(&purge(8), 4);
        index.finish_replay();
        let found = index.group(GROUP).expect("it is known");
        assert_eq!(found.damage(), None);
        assert_eq!((found.extent().first_index, found.extent().next_index), (9, 10));
        assert_eq!(found.live_bytes(), 10 + RECORD_BYTES as u64);
    }

    #[test]
    fn an_entry_written_over_another_is_damage() {
        let mut index = Index::default();
        index.append(GROUP, 0, at(1));
        index.append(GROUP, 0, at(1));
        assert!(index.group(GROUP).and_then(GroupIndex::damage).is_some());
    }

    #[test]
    fn a_truncation_and_a_purge_keep_count_of_what_lives() {
        let mut index = Index::default();
        (0..10).for_each(|entry| index.append(GROUP, entry, at(1 + entry / 5)));
        index.change(&Op::Truncate { group: GROUP, from_index: 8 }, 2);
        index.change(&purge(5), 3);
        let found = index.group(GROUP).expect("it is known");
        assert_eq!(found.live_bytes(), 2 * (10 + RECORD_BYTES as u64));
        assert_eq!(index.oldest_entry_segment(), Some(2));
        assert_eq!(index.oldest_needed(9), 2);
        assert_eq!(index.pins(2).collect::<Vec<_>>(), [GROUP]);
        assert_eq!(index.pins(1).count(), 0);
    }
}
