//! Where a customer lives: the hash, and the equal ranges that it is divided into. Part of the format,
//! and the same as the node's.

use xxhash_rust::xxh3::Xxh3;

/// The namespace of a request that names none.
const NAMESPACE_DEFAULT: &str = "default";
/// Most shards of a cluster.
const SHARDS_MAX: usize = 4_096;

/// The hash that places a customer: xxh3 of the namespace's length, the namespace and the id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place(u64);

impl Place {
    /// Of a customer, as a request names it: an empty namespace is the default one.
    pub(crate) fn of(namespace: &str, customer: &str) -> Place {
        let namespace = if namespace.is_empty() { NAMESPACE_DEFAULT } else { namespace };
        let mut hash = Xxh3::new();
        // A longer namespace than fits is refused by the ledger, wherever it is sent.
        hash.update(&(namespace.len() as u16).to_be_bytes());
        hash.update(namespace.as_bytes());
        hash.update(customer.as_bytes());
        Place(hash.digest())
    }
}

/// Into how many equal ranges the hash is divided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ShardCount {
    bits: u32,
}

impl ShardCount {
    /// So many shards; `None` if that is no power of two from 1 to 4,096.
    pub(crate) fn new(shards: usize) -> Option<ShardCount> {
        let fits = shards.is_power_of_two() && shards <= SHARDS_MAX;
        fits.then(|| ShardCount { bits: shards.trailing_zeros() })
    }

    /// The number of a customer's shard.
    pub(crate) fn shard_of(self, place: Place) -> usize {
        match self.bits {
            0 => 0,
            bits => (place.0 >> (u64::BITS - bits)) as usize,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The node's own golden values: worked out with the reference implementation of XXH3 (64 bits, no
    /// seed) over `00 07 "default"` and the id.
    const GOLDEN_HASHES: [(&str, u64); 3] =
        [("acme", 0xc448_7ed1_0eb2_6f74), ("globex", 0xaffc_7785_e88a_1e1b), ("é", 0xf533_cb12_3a31_ec4b)];

    #[test]
    fn a_customers_place_is_the_one_that_the_node_computes() {
        for (customer, hash) in GOLDEN_HASHES {
            assert_eq!(Place::of("default", customer), Place(hash));
            assert_eq!(Place::of("", customer), Place(hash), "no namespace is the default one");
        }
        assert_ne!(Place::of("defaulta", "cme"), Place::of("default", "acme"));
    }

    #[test]
    fn shards_are_the_top_bits_of_the_hash() {
        let shard = |shards, hash| ShardCount::new(shards).expect("a power of two").shard_of(Place(hash));
        assert_eq!(shard(1, u64::MAX), 0);
        assert_eq!(shard(2, 0x7fff_ffff_ffff_ffff), 0);
        assert_eq!(shard(2, 0x8000_0000_0000_0000), 1);
        assert_eq!(shard(16, 0xc448_7ed1_0eb2_6f74), 0xc);
        assert_eq!(shard(4_096, 0xaffc_7785_e88a_1e1b), 0xaff);
        for wrong in [0, 3, 8_192] {
            assert_eq!(ShardCount::new(wrong), None);
        }
    }
}
