//! A digest of everything that was ever written to a group's rows: two replicas that applied the same
//! entries have the same one, or one of them has gone wrong.
//!
//! ```text
//! digest of entry n = xxh3-64( digest of entry n-1, 8 | index 8 | for each row written, in order:
//!                              key length 4 | row length 4 (ff ff ff ff: deleted) | key | row )
//! ```
//! Little-endian, 0 before the first entry. It stands in the applied state, beside the rows; a replica
//! that is filled from another takes it over. Now and then one is remembered, so that replicas that
//! are not at the same entry can be compared.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};

use xxhash_rust::xxh3::Xxh3;

/// Every so many entries a digest is remembered.
const CHECKPOINT_EVERY: u64 = 64;
/// So many are: a replica may lag by 65,536 entries and still be compared.
const CHECKPOINTS_KEPT_MAX: usize = 1024;

/// The digest after an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Checkpoint {
    pub index: u64,
    pub digest: u64,
}

/// The digest after one more entry.
pub(super) fn roll<'c>(
    digest: u64,
    index: u64,
    changes: impl IntoIterator<Item = (&'c [u8], Option<&'c [u8]>)>,
) -> u64 {
    let mut hash = Xxh3::new();
    hash.update(&digest.to_le_bytes());
    hash.update(&index.to_le_bytes());
    for (key, row) in changes {
        hash.update(&(key.len() as u32).to_le_bytes());
        hash.update(&row.map_or(u32::MAX, |row| row.len() as u32).to_le_bytes());
        hash.update(key);
        hash.update(row.unwrap_or_default());
    }
    hash.digest()
}

#[derive(Debug, Default)]
struct Kept {
    latest: Option<Checkpoint>,
    checkpoints: VecDeque<Checkpoint>,
}

/// The digests of one replica, since it started or was filled. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(super) struct Digests {
    kept: Arc<Mutex<Kept>>,
}

impl Digests {
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// An entry was applied.
    pub fn note(&self, latest: Checkpoint) {
        let mut kept = self.kept();
        kept.latest = Some(latest);
        if latest.index.is_multiple_of(CHECKPOINT_EVERY) {
            if kept.checkpoints.len() == CHECKPOINTS_KEPT_MAX {
                kept.checkpoints.pop_front();
            }
            kept.checkpoints.push_back(latest);
        }
    }

    /// The rows are others now.
    pub fn begin_at(&self, latest: Option<Checkpoint>) {
        *self.kept() = Kept { latest, checkpoints: VecDeque::new() };
    }

    pub fn latest(&self) -> Option<Checkpoint> {
        self.kept().latest
    }

    /// The newest checkpoint up to an index.
    pub fn checkpoint(&self, at_most: u64) -> Option<Checkpoint> {
        let kept = self.kept();
        kept.checkpoints.iter().rev().find(|checkpoint| checkpoint.index <= at_most).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Worked out with the reference implementation of XXH3 (64 bits, no seed).
    #[test]
    fn a_digest_is_part_of_the_format() {
        let changes = [(&b"W1"[..], Some(&b"one"[..])), (&b"T2"[..], None)];
        let first = roll(0, 5, changes);
        assert_eq!(first, 0xf2c3_088a_9f59_851a);
        assert_eq!(roll(first, 6, []), 0xd6d3_807d_b08e_2464);
        let other = [(&b"W1"[..], Some(&b"one"[..])), (&b"T2"[..], Some(&b""[..]))];
        assert_ne!(roll(0, 5, other), first, "an empty row is not a deleted one");
    }

    fn noted(range: std::ops::RangeInclusive<u64>) -> Digests {
        let digests = Digests::default();
        range.for_each(|index| digests.note(Checkpoint { index, digest: index * 10 }));
        digests
    }

    fn index_of(checkpoint: Option<Checkpoint>) -> Option<u64> {
        checkpoint.inspect(|found| assert_eq!(found.digest, found.index * 10)).map(|found| found.index)
    }

    #[test]
    fn the_newest_checkpoint_up_to_an_index_is_found() {
        let digests = noted(1..=200);
        assert_eq!(index_of(digests.latest()), Some(200));
        assert_eq!(index_of(digests.checkpoint(u64::MAX)), Some(192));
        assert_eq!(index_of(digests.checkpoint(128)), Some(128));
        assert_eq!(index_of(digests.checkpoint(127)), Some(64));
        assert_eq!(digests.checkpoint(63), None);
    }

    #[test]
    fn the_oldest_checkpoints_go() {
        let digests = noted(1..=64 * (CHECKPOINTS_KEPT_MAX as u64 + 2));
        assert_eq!(digests.checkpoint(128), None);
        assert_eq!(index_of(digests.checkpoint(192)), Some(192));
        digests.begin_at(None);
        assert_eq!((digests.latest(), digests.checkpoint(u64::MAX)), (None, None));
    }
}
