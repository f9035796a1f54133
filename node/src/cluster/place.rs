//! Where a customer lives: the hash, and the equal ranges that it is divided into. Part of the format.

use purser_ledger::ids::Customer;
use xxhash_rust::xxh3::Xxh3;

use crate::shard::ShardId;

/// Which customer lives in which shard: equal ranges of a 64-bit hash, so that a later split halves
/// a range and rehashes nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShardMap {
    shards: u16,
}

/// Most shards: a shard's number must fit the tag of the ids that it allocates, and the splits to
/// come need room.
pub const SHARDS_MAX: u16 = 4_096;

impl ShardMap {
    /// A map of so many shards; `None` if that is no power of two from 1 to [`SHARDS_MAX`].
    pub fn new(shards: u16) -> Option<ShardMap> {
        (shards.is_power_of_two() && shards <= SHARDS_MAX).then_some(ShardMap { shards })
    }

    /// The shard of a customer.
    pub fn shard_of(&self, customer: Customer<'_>) -> ShardId {
        let hash = customer_hash(customer);
        match self.shards.trailing_zeros() {
            0 => ShardId(0),
            bits => ShardId((hash >> (64 - bits)) as u16),
        }
    }

    /// All shards.
    pub fn shards(&self) -> impl Iterator<Item = ShardId> {
        (0..self.shards).map(ShardId)
    }
}

/// The hash that places a customer: xxh3 of the namespace's length, the namespace and the id. Part of
/// the format: it never changes.
pub fn customer_hash(customer: Customer<'_>) -> u64 {
    let mut hash = Xxh3::new();
    hash.update(&(customer.namespace.len() as u16).to_be_bytes());
    hash.update(customer.namespace.as_bytes());
    hash.update(customer.id.as_bytes());
    hash.digest()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn customer(id: &str) -> Customer<'_> {
        Customer { namespace: "default", id }
    }

    #[test]
    fn a_customers_place_is_part_of_the_format() {
        let hashes: Vec<u64> = ["acme", "globex", "é"].iter().map(|id| customer_hash(customer(id))).collect();
        assert_eq!(hashes, GOLDEN_HASHES);
        let moved = customer_hash(Customer { namespace: "defaulta", id: "cme" });
        assert_ne!(moved, hashes[0], "namespace and id do not run into one another");
    }

    /// Worked out with the reference implementation of XXH3 (64 bits, no seed) over
    /// `00 07 "default"` and the id.
    const GOLDEN_HASHES: [u64; 3] = [0xc448_7ed1_0eb2_6f74, 0xaffc_7785_e88a_1e1b, 0xf533_cb12_3a31_ec4b];

    #[test]
    fn shards_are_equal_ranges_so_that_a_split_halves_a_range() {
        let (few, many) = (ShardMap { shards: 8 }, ShardMap { shards: 16 });
        let mut counts = [0u32; 16];
        for n in 0..16_000 {
            let id = format!("customer-{n}");
            let (coarse, fine) = (few.shard_of(customer(&id)), many.shard_of(customer(&id)));
            assert_eq!(coarse.0, fine.0 / 2);
            counts[usize::from(fine.0)] += 1;
        }
        assert!(counts.iter().all(|count| (800..1_200).contains(count)), "{counts:?}");
        assert_eq!(ShardMap { shards: 1 }.shard_of(customer("acme")), ShardId(0));
    }
}
