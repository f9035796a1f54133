//! The cluster as one node knows it: who it is, which shards there are, where a customer lives.
//!
//! The descriptor is written once, when a data directory is made, and never changed. A node id is
//! random and belongs to its directory: an empty directory is a new node, even under an old name.
//! Replica ids are never reused: the first ones are counted from 1 here, later ones are indices of
//! the meta group's log, from [`LATER_REPLICA_IDS_FROM`] on.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use purser_ledger::ids::Customer;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::Xxh3;

use crate::shard::ShardId;

/// The format of data directories that this build writes, and the newest that it reads.
pub const FORMAT: u32 = 1;
/// Replica ids from here on are this plus an index of the meta group's log.
pub const LATER_REPLICA_IDS_FROM: u64 = 1 << 32;
/// Shards of a cluster that does not say.
pub const SHARDS_DEFAULT: u16 = 16;
/// Most shards: a shard's number must fit the tag of the ids that it allocates, and the splits to
/// come need room.
pub const SHARDS_MAX: u16 = 4_096;

const FILE: &str = "cluster.json";

/// A node: random, made with its data directory. An empty directory is a new node, even under an old
/// name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct NodeId(pub uuid::Uuid);

impl std::fmt::Display for NodeId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// What a data directory belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Descriptor {
    /// The format of everything in the directory.
    pub format: u32,
    /// The cluster.
    pub cluster_id: uuid::Uuid,
    /// The node, made with its directory.
    pub node_id: NodeId,
    /// How many shards the cluster has: a power of two, fixed for its life.
    pub shards: u16,
    /// Whether the directory was made with a test clock, which runs ahead of the time of day.
    pub test_clock: bool,
}

/// A data directory that cannot be used. Nothing in it was touched.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// The number of shards is not a power of two, or out of range.
    #[error("shards must be a power of two from 1 to {SHARDS_MAX}, not {0}")]
    Shards(u16),
    /// Something else is in it.
    #[error("{0} holds files, but is not a data directory of Purser: name an empty one with --data")]
    Foreign(PathBuf),
    /// A newer build wrote it.
    #[error("{path} has format {found}, this build reads up to {FORMAT}: start a newer build on it")]
    Newer {
        /// The directory.
        path: PathBuf,
        /// Its format.
        found: u32,
    },
    /// It was made for another number of shards.
    #[error(
        "{path} was made with {found} shards, not {asked}: leave --shards out, or name another directory"
    )]
    OtherShards {
        /// The directory.
        path: PathBuf,
        /// What it has.
        found: u16,
        /// What was asked for.
        asked: u16,
    },
    /// It was made with a test clock, or without.
    #[error(
        "{path} was made {} a test clock: start it so, or name another directory",
        if *.found { "with" } else { "without" }
    )]
    OtherClock {
        /// The directory.
        path: PathBuf,
        /// Whether it was made with one.
        found: bool,
    },
    /// Its descriptor does not read.
    #[error("{path} is damaged: {what}; restore it from a copy, or start with an empty directory")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// The file system refused.
    #[error("{path}: {source}")]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// A directory's descriptor, and whether it was made just now.
#[derive(Debug)]
pub struct Opened {
    /// What it says.
    pub descriptor: Descriptor,
    /// Whether the directory is new.
    pub fresh: bool,
}

impl Descriptor {
    /// Reads the descriptor of a data directory, or makes one in an empty or missing directory.
    pub fn open_or_create(
        path: &Path,
        shards: Option<u16>,
        test_clock: bool,
    ) -> Result<Opened, DirectoryError> {
        let file = path.join(FILE);
        if file.try_exists().map_err(|source| DirectoryError::Io { path: file.clone(), source })? {
            let descriptor = Descriptor::read(path)?;
            match shards {
                Some(asked) if asked != descriptor.shards => {
                    let (path, found) = (path.to_owned(), descriptor.shards);
                    return Err(DirectoryError::OtherShards { path, found, asked });
                }
                _ if descriptor.test_clock != test_clock => {
                    let (path, found) = (path.to_owned(), descriptor.test_clock);
                    return Err(DirectoryError::OtherClock { path, found });
                }
                _ => return Ok(Opened { descriptor, fresh: false }),
            }
        }
        let shards = shards.unwrap_or(SHARDS_DEFAULT);
        if !shards.is_power_of_two() || shards > SHARDS_MAX {
            return Err(DirectoryError::Shards(shards));
        }
        let io_error = |source| DirectoryError::Io { path: path.to_owned(), source };
        fs::create_dir_all(path).map_err(io_error)?;
        if fs::read_dir(path).map_err(io_error)?.next().is_some() {
            return Err(DirectoryError::Foreign(path.to_owned()));
        }
        let descriptor = Descriptor {
            format: FORMAT,
            cluster_id: uuid::Uuid::new_v4(),
            node_id: NodeId(uuid::Uuid::new_v4()),
            shards,
            test_clock,
        };
        descriptor.write(path).map_err(io_error)?;
        Ok(Opened { descriptor, fresh: true })
    }

    fn read(path: &Path) -> Result<Descriptor, DirectoryError> {
        let file = path.join(FILE);
        let text =
            fs::read_to_string(&file).map_err(|source| DirectoryError::Io { path: file.clone(), source })?;
        let damaged = |what: String| DirectoryError::Damaged { path: file.clone(), what };
        // The format first: a newer descriptor may have fields that this build does not know.
        #[derive(Deserialize)]
        struct Format {
            format: u32,
        }
        let format: Format = serde_json::from_str(&text).map_err(|error| damaged(error.to_string()))?;
        if format.format > FORMAT {
            return Err(DirectoryError::Newer { path: path.to_owned(), found: format.format });
        }
        let descriptor: Descriptor =
            serde_json::from_str(&text).map_err(|error| damaged(error.to_string()))?;
        if !descriptor.shards.is_power_of_two() || descriptor.shards > SHARDS_MAX {
            return Err(damaged(format!("{} shards", descriptor.shards)));
        }
        Ok(descriptor)
    }

    /// Whole or not at all: written beside its place, synced, renamed, and the directory synced.
    fn write(&self, path: &Path) -> io::Result<()> {
        let beside = path.join("cluster.json.new");
        let mut file = fs::File::create(&beside)?;
        file.write_all(&serde_json::to_vec_pretty(self)?)?;
        file.write_all(b"\n")?;
        file.sync_all()?;
        fs::rename(&beside, path.join(FILE))?;
        fs::File::open(path)?.sync_all()
    }

    /// The bytes that log and state store keep to know their own: cluster and node.
    pub fn identity(&self) -> Vec<u8> {
        [*self.cluster_id.as_bytes(), *self.node_id.0.as_bytes()].concat()
    }

    /// The map of this cluster.
    pub fn map(&self) -> ShardMap {
        ShardMap { shards: self.shards }
    }
}

/// Which customer lives in which shard: equal ranges of a 64-bit hash, so that a later split halves
/// a range and rehashes nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShardMap {
    shards: u16,
}

impl ShardMap {
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

    #[test]
    fn a_directory_keeps_what_it_was_made_with_and_refuses_what_differs() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("data");
        let made = Descriptor::open_or_create(&path, Some(4), false).expect("made");
        assert!(made.fresh);
        let again = Descriptor::open_or_create(&path, None, false).expect("opened");
        assert!(!again.fresh);
        assert_eq!(made.descriptor, again.descriptor);
        let other = Descriptor::open_or_create(&path, Some(8), false);
        assert!(matches!(other, Err(DirectoryError::OtherShards { found: 4, asked: 8, .. })));
        let clock = Descriptor::open_or_create(&path, None, true);
        assert!(matches!(clock, Err(DirectoryError::OtherClock { found: false, .. })));
    }

    #[test]
    fn a_foreign_newer_or_damaged_directory_is_refused_and_not_touched() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path();
        fs::write(path.join("notes.txt"), "mine").expect("a file");
        assert!(matches!(Descriptor::open_or_create(path, None, false), Err(DirectoryError::Foreign(_))));
        assert_eq!(fs::read_dir(path).expect("a folder").count(), 1);
        fs::write(path.join(FILE), r#"{"format": 2, "from": "the future"}"#).expect("a file");
        let newer = Descriptor::open_or_create(path, None, false);
        assert!(matches!(newer, Err(DirectoryError::Newer { found: 2, .. })));
        fs::write(path.join(FILE), r#"{"format": 1, "clust"#).expect("a file");
        let damaged = Descriptor::open_or_create(path, None, false);
        assert!(matches!(damaged, Err(DirectoryError::Damaged { .. })));
    }
}
