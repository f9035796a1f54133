//! One layer of a write buffer: rows by key, each with the versions that somebody may still ask for.
//!
//! Keys and rows stand in an arena, one behind the other. Rows of tables that are only asked for by
//! key are found by a hash table; those of tables that are walked through, by a sorted map. Readers
//! hold the layer's lock for a look-up or a few rows, never while they use what they found.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, OnceLock, RwLock, RwLockReadGuard, RwLockWriteGuard};

use hashbrown::HashTable;
use purser_ledger::rows::keys::is_ordered;
use xxhash_rust::xxh3::xxh3_64;

use super::arena::{Arena, Chunks, Span};
use super::buffer::{LiveViews, WriteNo};
use super::engine::Snapshot;

/// A row's value, or `None` for a row that is deleted.
pub(super) type Row = Option<Vec<u8>>;

/// What a row takes beside its key and value: its slot, and its part of the table.
const SLOT_BYTES: usize = 96;
/// Rows that are written again grow by a few bytes: there is room for that.
const ROOM_BYTES: usize = 32;

/// One layer.
pub(super) struct Layer {
    rows: RwLock<Rows>,
    /// The engine's rows just after this layer got to disk.
    pub durable: OnceLock<Arc<Snapshot>>,
}

impl Layer {
    /// An empty one, with room for so many rows.
    pub fn new(chunks: &Arc<Chunks>, rows: usize) -> Arc<Layer> {
        let rows = RwLock::new(Rows::new(Arc::clone(chunks), rows));
        Arc::new(Layer { rows, durable: OnceLock::new() })
    }

    pub fn read(&self) -> RwLockReadGuard<'_, Rows> {
        self.rows.read().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    pub fn write(&self) -> RwLockWriteGuard<'_, Rows> {
        self.rows.write().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// A row, and what it was before. `None` stands for a row that is deleted.
struct Slot {
    key: Span,
    written: WriteNo,
    row: Option<Span>,
    /// How many bytes there is room for where the row stands.
    room: u32,
    /// Oldest first. Empty nearly always.
    before: Vec<(WriteNo, Option<Span>)>,
}

impl Slot {
    /// What a view at a moment sees; `None` where this layer had nothing yet.
    fn at(&self, moment: WriteNo) -> Option<Option<Span>> {
        if self.written <= moment {
            return Some(self.row);
        }
        self.before.iter().rev().find(|(written, _)| *written <= moment).map(|(_, row)| *row)
    }

    /// Drops the versions that stand behind one that even the oldest view sees.
    fn forget(&mut self, views: &LiveViews) {
        let Some(oldest) = views.oldest() else { return self.before.clear() };
        let seen = self.before.iter().rposition(|(written, _)| *written <= oldest);
        self.before.drain(..seen.unwrap_or(0));
    }
}

/// The rows of a layer.
pub(super) struct Rows {
    arena: Arena,
    slots: Vec<Slot>,
    /// By the hash of their keys, the slots of tables that are asked for by key.
    points: HashTable<u32>,
    /// Those of tables that are walked through.
    ordered: BTreeMap<Vec<u8>, u32>,
}

impl Rows {
    fn new(chunks: Arc<Chunks>, rows: usize) -> Rows {
        Rows {
            arena: Arena::new(chunks),
            slots: Vec::with_capacity(rows),
            points: HashTable::with_capacity(rows),
            ordered: BTreeMap::new(),
        }
    }

    /// How many rows it has.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    fn find(&self, key: &[u8]) -> Option<u32> {
        match is_ordered(key) {
            true => self.ordered.get(key).copied(),
            false => {
                let is_it = |slot: &u32| self.arena.bytes(self.slots[*slot as usize].key) == key;
                self.points.find(xxh3_64(key), is_it).copied()
            }
        }
    }

    /// Writes a row.
    pub fn put(&mut self, key: &[u8], row: Option<&[u8]>, written: WriteNo, views: &LiveViews) {
        match self.find(key) {
            Some(slot) => self.replace(slot as usize, row, written, views),
            None => self.insert(key, row, written),
        }
    }

    fn insert(&mut self, key: &[u8], row: Option<&[u8]>, written: WriteNo) {
        let Rows { arena, slots, points, ordered } = self;
        let number = slots.len() as u32;
        // What is written once needs no room to grow: a row gets it where it is written again.
        let span = arena.add(key, key.len());
        let row = row.map(|row| arena.add(row, row.len()));
        let room = row.map_or(0, |row| row.len);
        slots.push(Slot { key: span, written, row, room, before: Vec::new() });
        match is_ordered(key) {
            true => drop(ordered.insert(key.to_vec(), number)),
            false => {
                let hash_of = |slot: &u32| xxh3_64(arena.bytes(slots[*slot as usize].key));
                points.insert_unique(xxh3_64(key), number, hash_of);
            }
        }
    }

    fn replace(&mut self, slot: usize, row: Option<&[u8]>, written: WriteNo, views: &LiveViews) {
        let Rows { arena, slots, .. } = self;
        let slot = &mut slots[slot];
        let is_kept = views.may_ask_for(slot.written);
        if is_kept {
            slot.before.push((slot.written, slot.row));
        }
        slot.row = match (row, slot.row) {
            (Some(row), Some(place)) if !is_kept && row.len() <= slot.room as usize => {
                Some(arena.replace(place, row))
            }
            (Some(row), _) => {
                let room = row.len() + ROOM_BYTES;
                slot.room = room as u32;
                Some(arena.add(row, room))
            }
            (None, _) => None,
        };
        slot.written = written;
        if !slot.before.is_empty() {
            slot.forget(views);
        }
    }

    /// About what it takes of memory.
    pub fn bytes(&self) -> usize {
        self.arena.used() + self.slots.len() * SLOT_BYTES
    }

    fn value(&self, row: Option<Span>) -> Option<&[u8]> {
        row.map(|row| self.arena.bytes(row))
    }

    /// What a view at a moment sees under a key; `None` where this layer has nothing to say.
    pub fn at(&self, key: &[u8], moment: WriteNo) -> Option<Option<&[u8]>> {
        let slot = self.find(key)?;
        Some(self.value(self.slots[slot as usize].at(moment)?))
    }

    fn seen(&self, slot: u32, moment: WriteNo) -> Option<(Vec<u8>, Row)> {
        let slot = &self.slots[slot as usize];
        let row = self.value(slot.at(moment)?);
        Some((self.arena.bytes(slot.key).to_vec(), row.map(<[u8]>::to_vec)))
    }

    /// The first `limit` rows, in order or backwards, that a view at a moment sees within bounds.
    pub fn range(
        &self,
        bounds: (Bound<&[u8]>, Bound<&[u8]>),
        backwards: bool,
        limit: usize,
        moment: WriteNo,
    ) -> Vec<(Vec<u8>, Row)> {
        let ordered = self.ordered.range::<[u8], _>(bounds);
        let seen = |(_, slot): (_, &u32)| self.seen(*slot, moment);
        match backwards {
            false => ordered.filter_map(seen).take(limit).collect(),
            true => ordered.rev().filter_map(seen).take(limit).collect(),
        }
    }

    /// The rows of tables that are not kept in order which a view at a moment sees within bounds, in no
    /// order. For walks over everything: they look at each row of the layer.
    pub fn points_within(&self, from: &[u8], until: &[u8], moment: WriteNo) -> Vec<(Vec<u8>, Row)> {
        let within = self.points.iter().filter(|slot| {
            let key = self.arena.bytes(self.slots[**slot as usize].key);
            from <= key && key < until
        });
        within.filter_map(|slot| self.seen(*slot, moment)).collect()
    }

    /// Shows the newest version of every row in the order of keys.
    pub fn in_order<'r, T>(
        &'r self,
        show: impl FnOnce(&mut dyn Iterator<Item = (&'r [u8], Option<&'r [u8]>)>) -> T,
    ) -> T {
        let key_of = |slot: u32| self.arena.bytes(self.slots[slot as usize].key);
        // The first bytes of a key decide nearly always, and comparing them misses no cache.
        let mut sorted: Vec<(u128, u32)> =
            (0..self.slots.len() as u32).map(|slot| (first_bytes(key_of(slot)), slot)).collect();
        sorted.sort_unstable_by(|a, b| a.0.cmp(&b.0).then_with(|| key_of(a.1).cmp(key_of(b.1))));
        let mut rows = sorted.into_iter().map(|(_, slot)| {
            let slot = &self.slots[slot as usize];
            (self.arena.bytes(slot.key), self.value(slot.row))
        });
        show(&mut rows)
    }
}

/// The first sixteen bytes as a number that sorts as they do.
fn first_bytes(key: &[u8]) -> u128 {
    let mut bytes = [0; 16];
    let taken = key.len().min(16);
    bytes[..taken].copy_from_slice(&key[..taken]);
    u128::from_be_bytes(bytes)
}
