//! How worlds differ, and which seeds show all of it.
//!
//! What is shown of a few seeds, as that two runs of one leave the same trace, is shown of their worlds
//! alone: of these many nodes, these faults, this engine under the rows. So seeds are added to them until
//! every kind of world is among them that the first thousand seeds have.

use std::collections::{BTreeMap, BTreeSet};

use crate::partition::PartitionWorld;
use crate::world::{Blow, World};

/// Seeds among which every kind is looked for.
const LOOKED_AT: u64 = 1_000;

/// What a world is like, each kind in a few words.
pub fn kinds(world: &World) -> BTreeSet<String> {
    let World { nodes, shards, replicas, .. } = world;
    let mut kinds = BTreeSet::from([
        format!("{nodes} nodes"),
        format!("{shards} shards"),
        format!("{replicas} replicas"),
        if world.disk.rocksdb { "rows in RocksDB" } else { "rows in memory" }.to_owned(),
    ]);
    let network = &world.network;
    let is_struck = |blow: Blow| world.blows.iter().any(|(_, own)| *own == blow);
    let kinds_of_faults = [
        ("nothing strikes", world.blows.is_empty()),
        ("messages lost", network.lost > 0),
        ("messages doubled", network.doubled > 0),
        ("messages late", network.late > 0),
        ("streams break", network.breaks > 0),
        ("disks stall", world.disk.stalls > 0),
        ("rows flushed by themselves", world.disk.flush_after_writes.is_some()),
        ("clocks off", !world.clock.skew_max.is_zero()),
        ("clocks move in steps", world.clock.step_us > 1),
        ("gateways", world.gateways > 0),
        ("callers without the library", world.gateways < 1_000),
    ];
    kinds.extend(kinds_of_faults.into_iter().filter(|(_, is)| *is).map(|(kind, _)| kind.to_owned()));
    kinds.extend(world.blows.iter().map(|(_, blow)| format!("{blow:?}")));
    if is_struck(Blow::Partition) {
        let PartitionWorld { shapes, flapping } = &world.partitions;
        kinds.extend(shapes.iter().map(|shape| shape.name().to_owned()));
        kinds.extend((*flapping > 0).then(|| "partition: flaps".to_owned()));
    }
    kinds
}

/// These seeds, and as many more as it takes for every kind of world.
pub fn covering(seeds: &[u64]) -> Vec<u64> {
    let all: BTreeMap<u64, BTreeSet<String>> =
        (1..=LOOKED_AT).map(|seed| (seed, kinds(&World::of(seed)))).collect();
    let mut missing: BTreeSet<&String> = all.values().flatten().collect();
    let mut covering = seeds.to_vec();
    for seed in seeds {
        let own = kinds(&World::of(*seed));
        missing.retain(|kind| !own.contains(*kind));
    }
    while !missing.is_empty() {
        let adds = |kinds: &BTreeSet<String>| kinds.iter().filter(|kind| missing.contains(kind)).count();
        // Of those that add as much, the first.
        let best = all.iter().max_by_key(|(seed, kinds)| (adds(kinds), u64::MAX - **seed));
        let (seed, kinds) = best.expect("there are seeds");
        missing.retain(|kind| !kinds.contains(*kind));
        covering.push(*seed);
    }
    covering
}

/// How many of these seeds have each kind of world.
pub fn counted(seeds: &[u64]) -> BTreeMap<String, usize> {
    let mut counted = BTreeMap::new();
    for kind in seeds.iter().flat_map(|seed| kinds(&World::of(*seed))) {
        *counted.entry(kind).or_default() += 1;
    }
    counted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_are_added_until_every_kind_of_world_is_there() {
        let covering = covering(&[3]);
        assert_eq!(covering[0], 3);
        assert!(covering.len() > 3 && covering.len() < 20, "{covering:?}");
        let there = counted(&covering);
        for kind in (1..=LOOKED_AT).flat_map(|seed| kinds(&World::of(seed))) {
            assert!(there.contains_key(&kind), "{kind} is not among {there:?}");
        }
        for kind in
            ["7 nodes", "16 shards", "5 replicas", "rows in RocksDB", "Rot", "LostDisk", "partition: bridge"]
        {
            assert!(there.contains_key(kind), "{kind} is not among {there:?}");
        }
    }

    #[test]
    fn every_twentieth_seed_has_rocksdb_under_it() {
        let on_rocksdb = (1..=200).filter(|seed| World::of(*seed).disk.rocksdb).count();
        assert_eq!(on_rocksdb, 10);
    }
}
