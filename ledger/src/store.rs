//! What the core asks of a store: a consistent view of one shard's rows, and nothing else.
//!
//! Apply never writes to a store. It returns its [`Changes`], which the caller commits in one atomic
//! write together with the index that was applied.

use std::collections::BTreeMap;

use indexmap::IndexMap;
use xxhash_rust::xxh3::{Xxh3, Xxh3Builder};

use crate::codec::Damage;
use crate::rows::keys::{self, Key};

/// A consistent view of one shard's rows.
pub trait Store {
    /// The row under a key.
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError>;

    /// The rows under several keys, in their order. A store that can do better than one by one
    /// should.
    fn get_many(&self, keys: &[&[u8]]) -> Result<Vec<Option<Vec<u8>>>, StoreError> {
        keys.iter().map(|key| self.get(key)).collect()
    }

    /// Visits the rows with `from <= key < until` in order, until `visit` returns `false`.
    fn scan(
        &self,
        from: &[u8],
        until: &[u8],
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), StoreError>;

    /// As [`Store::scan`], from the last key downwards.
    fn scan_back(
        &self,
        from: &[u8],
        until: &[u8],
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), StoreError>;
}

/// The store could not be read. The replica that meets one stops and is replaced.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the state store cannot be read: {0}")]
pub struct StoreError(pub String);

/// Local damage: this replica's rows, or the entry that it was given, cannot be trusted. It stops
/// and is replaced; other replicas are not touched by it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LocalDamage {
    /// A row or an entry does not decode.
    #[error(transparent)]
    Damage(#[from] Damage),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A row that another row points to is not there.
    #[error("a row is missing: {0}")]
    Missing(&'static str),
}

/// A row's new value, or `None` for a row that is deleted.
pub type Change = Option<Vec<u8>>;

/// How one write is taken back.
#[derive(Debug)]
enum Undo {
    /// A point row that the batch had not touched: it is the last one.
    NewPoint,
    /// A point row, by its place, and what the batch had made of it.
    Point(usize, Change),
    /// An ordered row, and what the batch had made of it.
    Ordered(Key, Option<Change>),
}

/// The changes of a batch, in an order that is the same on every replica.
#[derive(Debug, Default)]
pub struct Changes {
    points: IndexMap<Key, Change, Xxh3Builder>,
    ordered: BTreeMap<Key, Change>,
    undo: Vec<Undo>,
}

impl Changes {
    /// No changes yet.
    pub fn new() -> Changes {
        Changes::default()
    }

    /// What the batch has made of a row; `None` where it has not touched it.
    pub fn get(&self, key: &[u8]) -> Option<&Change> {
        if keys::is_ordered(key) { self.ordered.get(key) } else { self.points.get(key) }
    }

    /// The touched rows with `from <= key < until`, of the ordered tables.
    pub fn range<'c>(
        &'c self,
        from: &[u8],
        until: &[u8],
    ) -> impl DoubleEndedIterator<Item = (&'c Key, &'c Change)> {
        self.ordered.range::<[u8], _>((std::ops::Bound::Included(from), std::ops::Bound::Excluded(until)))
    }

    /// Writes or deletes a row.
    pub fn set(&mut self, key: Key, change: Change) {
        let undo = if keys::is_ordered(&key) {
            let before = self.ordered.insert(key.clone(), change);
            Undo::Ordered(key, before)
        } else {
            match self.points.insert_full(key, change) {
                (_, None) => Undo::NewPoint,
                (place, Some(before)) => Undo::Point(place, before),
            }
        };
        self.undo.push(undo);
    }

    /// Writes a row.
    pub fn put(&mut self, key: Key, row: Vec<u8>) {
        self.set(key, Some(row));
    }

    /// Deletes a row.
    pub fn delete(&mut self, key: Key) {
        self.set(key, None);
    }

    /// From here on, [`Changes::roll_back`] comes back to this moment.
    pub fn begin(&mut self) {
        self.undo.clear();
    }

    /// Takes back all since [`Changes::begin`].
    pub fn roll_back(&mut self) {
        while let Some(undo) = self.undo.pop() {
            match undo {
                Undo::NewPoint => drop(self.points.pop()),
                Undo::Point(place, before) => self.points[place] = before,
                Undo::Ordered(key, Some(before)) => drop(self.ordered.insert(key, before)),
                Undo::Ordered(key, None) => drop(self.ordered.remove(&key)),
            }
        }
    }

    /// All changes, in an order that is the same on every replica.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], Option<&[u8]>)> {
        let point = self.points.iter().map(|(key, change)| (key.as_slice(), change.as_deref()));
        let ordered = self.ordered.iter().map(|(key, change)| (key.as_slice(), change.as_deref()));
        point.chain(ordered)
    }

    /// Ends the batch: from here on the point rows are in the order of their keys too, which a
    /// store inserts faster.
    pub fn sort(&mut self) {
        self.undo.clear();
        self.points.sort_unstable_keys();
    }

    /// How many rows are changed.
    pub fn len(&self) -> usize {
        self.points.len() + self.ordered.len()
    }

    /// Whether nothing is changed.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A hash of all changes, rolled on from `digest`.
    pub fn digest(&self, digest: u128) -> u128 {
        let mut hash = Xxh3::new();
        hash.update(&digest.to_le_bytes());
        for (key, change) in self.iter() {
            let row_bytes = change.map_or(u32::MAX, |row| row.len() as u32);
            let lengths = u64::from(key.len() as u32) << 32 | u64::from(row_bytes);
            hash.update(&lengths.to_le_bytes());
            hash.update(key);
            hash.update(change.unwrap_or_default());
        }
        hash.digest128()
    }
}

/// A store in memory: for tests and the simulation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemStore {
    rows: BTreeMap<Key, Vec<u8>>,
}

impl MemStore {
    /// An empty store.
    pub fn new() -> MemStore {
        MemStore::default()
    }

    /// Writes the changes of a batch.
    pub fn commit(&mut self, changes: &Changes) {
        for (key, change) in changes.iter() {
            match change {
                Some(row) => drop(self.rows.insert(key.to_vec(), row.to_vec())),
                None => drop(self.rows.remove(key)),
            }
        }
    }

    /// All rows, in order of their keys.
    pub fn rows(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.rows.iter().map(|(key, row)| (key.as_slice(), row.as_slice()))
    }

    /// Puts one row as it is: for tests that damage a store.
    pub fn put_raw(&mut self, key: Key, row: Vec<u8>) {
        self.rows.insert(key, row);
    }
}

impl Store for MemStore {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.rows.get(key).cloned())
    }

    fn scan(
        &self,
        from: &[u8],
        until: &[u8],
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), StoreError> {
        let range = (std::ops::Bound::Included(from), std::ops::Bound::Excluded(until));
        let _ = self.rows.range::<[u8], _>(range).all(|(key, row)| visit(key, row));
        Ok(())
    }

    fn scan_back(
        &self,
        from: &[u8],
        until: &[u8],
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), StoreError> {
        let range = (std::ops::Bound::Included(from), std::ops::Bound::Excluded(until));
        let _ = self.rows.range::<[u8], _>(range).rev().all(|(key, row)| visit(key, row));
        Ok(())
    }
}
