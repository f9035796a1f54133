//! Reading layers of a write buffer over the engine's rows as if they were one.
//!
//! A walk takes the layers' rows bit by bit, so that no lock is held while a visitor looks at a row or
//! the engine reads from disk.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

use purser_ledger::rows::keys::is_ordered;
use purser_ledger::store::{Store, StoreError};

use super::buffer::WriteNo;
use super::layer::{Layer, Row};

/// Rows taken from each layer at first; twice as many each time that a walk comes back for more.
const ROWS_AT_FIRST: usize = 8;
const ROWS_AT_ONCE_MAX: usize = 512;

/// The row under a key. `layers` are given newest first.
pub(super) fn get(
    layers: &[Arc<Layer>],
    at: WriteNo,
    below: &impl Store,
    key: &[u8],
) -> Result<Option<Vec<u8>>, StoreError> {
    for layer in layers {
        if let Some(row) = layer.read().at(key, at) {
            return Ok(row.map(<[u8]>::to_vec));
        }
    }
    below.get(key)
}

/// The rows under several keys, in their order.
pub(super) fn get_many(
    layers: &[Arc<Layer>],
    at: WriteNo,
    below: &impl Store,
    keys: &[&[u8]],
) -> Result<Vec<Option<Vec<u8>>>, StoreError> {
    let mut found: Vec<Option<Row>> = vec![None; keys.len()];
    for layer in layers {
        let rows = layer.read();
        for (key, found) in keys.iter().zip(&mut found) {
            if found.is_none() {
                *found = rows.at(key, at).map(|row| row.map(<[u8]>::to_vec));
            }
        }
    }
    let missing = keys.iter().zip(&found).filter(|(_, found)| found.is_none());
    let missing: Vec<&[u8]> = missing.map(|(key, _)| *key).collect();
    let mut below = below.get_many(&missing)?.into_iter();
    Ok(found.into_iter().map(|found| found.unwrap_or_else(|| below.next().flatten())).collect())
}

/// Visits the rows with `from <= key < until` in order, until `visit` returns `false`.
pub(super) fn scan(
    layers: &[Arc<Layer>],
    at: WriteNo,
    below: &impl Store,
    from: &[u8],
    until: &[u8],
    visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
) -> Result<(), StoreError> {
    if from >= until {
        return Ok(());
    }
    let walk = Walk::new(layers, at, from, until, false);
    merge(walk, visit, |step| below.scan(from, until, step))
}

/// As [`scan`], from the last key downwards.
pub(super) fn scan_back(
    layers: &[Arc<Layer>],
    at: WriteNo,
    below: &impl Store,
    from: &[u8],
    until: &[u8],
    visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
) -> Result<(), StoreError> {
    if from >= until {
        return Ok(());
    }
    let walk = Walk::new(layers, at, from, until, true);
    merge(walk, visit, |step| below.scan_back(from, until, step))
}

/// Merges a walk over layers into one over the rows below, which it overrules.
fn merge(
    mut walk: Walk<'_>,
    visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    below: impl FnOnce(&mut dyn FnMut(&[u8], &[u8]) -> bool) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let mut goes_on = true;
    below(&mut |key, row| {
        while let Some((own, change)) = walk.next_before(key) {
            goes_on = change.as_ref().is_none_or(|row| visit(&own, row));
            if !goes_on {
                return false;
            }
        }
        goes_on = match walk.next_at(key) {
            Some(Some(own)) => visit(key, &own),
            Some(None) => true,
            None => visit(key, row),
        };
        goes_on
    })?;
    while goes_on && let Some((key, change)) = walk.next() {
        goes_on = change.is_none_or(|row| visit(&key, &row));
    }
    Ok(())
}

/// The rows of layers within bounds, in order or backwards, newest versions only.
struct Walk<'l> {
    layers: &'l [Arc<Layer>],
    at: WriteNo,
    from: Bound<Vec<u8>>,
    until: Bound<Vec<u8>>,
    backwards: bool,
    /// Rows that were taken and not asked for yet.
    taken: VecDeque<(Vec<u8>, Row)>,
    rows_at_once: usize,
    /// Whether the layers may hold more of it.
    more: bool,
}

impl<'l> Walk<'l> {
    fn new(layers: &'l [Arc<Layer>], at: WriteNo, from: &[u8], until: &[u8], backwards: bool) -> Walk<'l> {
        let mut walk = Walk {
            layers,
            at,
            from: Bound::Included(from.to_vec()),
            until: Bound::Excluded(until.to_vec()),
            backwards,
            taken: VecDeque::new(),
            rows_at_once: ROWS_AT_FIRST,
            more: !layers.is_empty(),
        };
        if walk.more && !is_within_ordered(from, until) {
            walk.take_all(from, until);
        }
        walk
    }

    /// Takes all rows at once: of tables that are not kept in order.
    fn take_all(&mut self, from: &[u8], until: &[u8]) {
        let mut rows = BTreeMap::new();
        for layer in self.layers.iter().rev() {
            let own = layer.read();
            rows.extend(own.points_within(from, until, self.at));
            rows.extend(own.range(self.bounds(), false, usize::MAX, self.at));
        }
        self.keep(rows);
        self.more = false;
    }

    fn bounds(&self) -> (Bound<&[u8]>, Bound<&[u8]>) {
        (self.from.as_ref().map(Vec::as_slice), self.until.as_ref().map(Vec::as_slice))
    }

    fn keep(&mut self, rows: BTreeMap<Vec<u8>, Row>) {
        match self.backwards {
            false => self.taken.extend(rows),
            true => self.taken.extend(rows.into_iter().rev()),
        }
    }

    /// Takes the next rows.
    fn take_more(&mut self) {
        let limit = self.rows_at_once;
        self.rows_at_once = (2 * limit).min(ROWS_AT_ONCE_MAX);
        let mut rows = BTreeMap::new();
        // Where a layer has more, nothing behind what was taken of it is known yet.
        let mut known_to: Option<Vec<u8>> = None;
        for layer in self.layers.iter().rev() {
            let own = layer.read().range(self.bounds(), self.backwards, limit, self.at);
            if own.len() == limit
                && let Some((last, _)) = own.last()
                && known_to.as_ref().is_none_or(|known| (last < known) != self.backwards)
            {
                known_to = Some(last.clone());
            }
            rows.extend(own);
        }
        self.more = known_to.is_some();
        if let Some(known) = known_to {
            match self.backwards {
                false => {
                    rows.retain(|key, _| *key <= known);
                    self.from = Bound::Excluded(known);
                }
                true => {
                    rows.retain(|key, _| *key >= known);
                    self.until = Bound::Excluded(known);
                }
            }
            self.more = !is_empty(self.bounds());
        }
        self.keep(rows);
    }

    fn peek(&mut self) -> Option<&(Vec<u8>, Row)> {
        while self.taken.is_empty() && self.more {
            self.take_more();
        }
        self.taken.front()
    }

    fn next(&mut self) -> Option<(Vec<u8>, Row)> {
        self.peek()?;
        self.taken.pop_front()
    }

    /// The next row, if it stands before a key.
    fn next_before(&mut self, key: &[u8]) -> Option<(Vec<u8>, Row)> {
        let backwards = self.backwards;
        let own = self.peek()?.0.as_slice();
        let stands_before = if backwards { own > key } else { own < key };
        if stands_before { self.taken.pop_front() } else { None }
    }

    /// The next row, if it is the one under a key.
    fn next_at(&mut self, key: &[u8]) -> Option<Row> {
        if self.peek()?.0 != key {
            return None;
        }
        self.taken.pop_front().map(|(_, row)| row)
    }
}

/// Whether a range lies within one table that layers keep in order.
fn is_within_ordered(from: &[u8], until: &[u8]) -> bool {
    let Some(&table) = from.first() else { return false };
    is_ordered(from) && (until.first() == Some(&table) || until == [table + 1])
}

/// Bounds that a sorted map would panic at, or between which there is nothing.
fn is_empty(bounds: (Bound<&[u8]>, Bound<&[u8]>)) -> bool {
    match bounds {
        (Bound::Included(from), Bound::Excluded(until)) => from >= until,
        (Bound::Excluded(from), Bound::Excluded(until)) => from >= until,
        _ => false,
    }
}
