//! The data directory's own file: who this node is, and the cluster that it belongs to.
//!
//! The node's part is written when the directory is made, the cluster's once, when it is founded, or when
//! the node takes a lost one's place; neither changes afterwards. What changes (addresses, replicas) is the
//! meta group's.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{Founding, NodeId, State};

/// The format of data directories that this build writes, and the newest that it reads.
pub const FORMAT: u32 = 1;

const FILE: &str = "cluster.json";

/// What a data directory belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Descriptor {
    /// The format of everything in the directory.
    pub format: u32,
    /// The node, made with its directory.
    pub node_id: NodeId,
    /// Whether the directory was made with a test clock, which runs ahead of the time of day.
    pub test_clock: bool,
    /// The cluster, once the node belongs to one.
    pub founding: Option<Founding>,
    /// For a node that took a lost one's place: the cluster as it was then. All replicas that it ever has
    /// are in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub joined: Option<State>,
    /// Whether the node has served its replicas: from then on there is a log.
    #[serde(default)]
    pub begun: bool,
}

/// A data directory that cannot be used. Nothing in it was touched.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
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
    /// It belongs to another cluster than the one to be founded.
    #[error("{path} belongs to cluster {found}: name an empty directory with --data")]
    OtherCluster {
        /// The directory.
        path: PathBuf,
        /// Its cluster.
        found: uuid::Uuid,
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
    /// Reads the descriptor of a data directory, or makes a new node in an empty or missing one.
    pub fn open_or_create(path: &Path, test_clock: bool) -> Result<Opened, DirectoryError> {
        let file = path.join(FILE);
        if file.try_exists().map_err(|source| DirectoryError::Io { path: file.clone(), source })? {
            let descriptor = Descriptor::read(path)?;
            if descriptor.test_clock != test_clock {
                let (path, found) = (path.to_owned(), descriptor.test_clock);
                return Err(DirectoryError::OtherClock { path, found });
            }
            return Ok(Opened { descriptor, fresh: false });
        }
        let io_error = |source| DirectoryError::Io { path: path.to_owned(), source };
        fs::create_dir_all(path).map_err(io_error)?;
        if fs::read_dir(path).map_err(io_error)?.next().is_some() {
            return Err(DirectoryError::Foreign(path.to_owned()));
        }
        let node_id = NodeId(uuid::Uuid::new_v4());
        let descriptor =
            Descriptor { format: FORMAT, node_id, test_clock, founding: None, joined: None, begun: false };
        descriptor.write(path).map_err(io_error)?;
        Ok(Opened { descriptor, fresh: true })
    }

    /// Writes down the cluster that the node is to found. The same one again is fine.
    pub fn found(&mut self, path: &Path, founding: Founding) -> Result<(), DirectoryError> {
        self.belong(path, founding, None)
    }

    /// Writes down the cluster in which the node takes a lost one's place. The same one again is fine.
    pub fn join(&mut self, path: &Path, founding: Founding, state: State) -> Result<(), DirectoryError> {
        self.belong(path, founding, Some(state))
    }

    fn belong(
        &mut self,
        path: &Path,
        founding: Founding,
        joined: Option<State>,
    ) -> Result<(), DirectoryError> {
        match &self.founding {
            Some(own) if *own == founding => return Ok(()),
            Some(own) => {
                let found = own.cluster_id;
                return Err(DirectoryError::OtherCluster { path: path.to_owned(), found });
            }
            None => {}
        }
        let founded = Descriptor { founding: Some(founding), joined, ..self.clone() };
        founded.write(path).map_err(|source| DirectoryError::Io { path: path.to_owned(), source })?;
        *self = founded;
        Ok(())
    }

    /// Writes down that there is a log: see `begun`.
    pub fn begin(&mut self, path: &Path) -> Result<(), DirectoryError> {
        if !self.begun {
            let begun = Descriptor { begun: true, ..self.clone() };
            begun.write(path).map_err(|source| DirectoryError::Io { path: path.to_owned(), source })?;
            *self = begun;
        }
        Ok(())
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
        if let Some(founding) = &descriptor.founding {
            founding.check().map_err(|error| damaged(error.to_string()))?;
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
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::NodePlace;

    fn founding(node: NodeId, shards: u16) -> Founding {
        let place = NodePlace {
            id: node,
            api_address: String::new(),
            peer_address: String::new(),
            version: String::new(),
        };
        Founding::alone(shards, place).expect("a founding")
    }

    #[test]
    fn a_directory_keeps_what_it_was_made_with_and_refuses_what_differs() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("data");
        let mut made = Descriptor::open_or_create(&path, false).expect("made");
        assert!(made.fresh);
        let own = founding(made.descriptor.node_id, 4);
        made.descriptor.found(&path, own.clone()).expect("founded");
        made.descriptor.found(&path, own.clone()).expect("the same again");
        let again = Descriptor::open_or_create(&path, false).expect("opened");
        assert!(!again.fresh);
        assert_eq!(made.descriptor, again.descriptor);
        let other = made.descriptor.found(&path, founding(made.descriptor.node_id, 4));
        assert!(matches!(other, Err(DirectoryError::OtherCluster { found, .. }) if found == own.cluster_id));
        let clock = Descriptor::open_or_create(&path, true);
        assert!(matches!(clock, Err(DirectoryError::OtherClock { found: false, .. })));
    }

    #[test]
    fn a_node_that_joins_keeps_the_map_of_that_moment() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path();
        let mut made = Descriptor::open_or_create(path, false).expect("made").descriptor;
        let own = founding(NodeId(uuid::Uuid::new_v4()), 4);
        made.join(path, own.clone(), own.state()).expect("joined");
        let again = Descriptor::open_or_create(path, false).expect("opened").descriptor;
        assert_eq!((again.joined, again.begun), (Some(own.state()), false));
        let other = made.join(path, founding(made.node_id, 4), own.state());
        assert!(matches!(other, Err(DirectoryError::OtherCluster { .. })));
    }

    #[test]
    fn a_foreign_newer_or_damaged_directory_is_refused_and_not_touched() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path();
        fs::write(path.join("notes.txt"), "mine").expect("a file");
        assert!(matches!(Descriptor::open_or_create(path, false), Err(DirectoryError::Foreign(_))));
        assert_eq!(fs::read_dir(path).expect("a folder").count(), 1);
        fs::write(path.join(FILE), r#"{"format": 2, "from": "the future"}"#).expect("a file");
        let newer = Descriptor::open_or_create(path, false);
        assert!(matches!(newer, Err(DirectoryError::Newer { found: 2, .. })));
        fs::write(path.join(FILE), r#"{"format": 1, "node"#).expect("a file");
        let damaged = Descriptor::open_or_create(path, false);
        assert!(matches!(damaged, Err(DirectoryError::Damaged { .. })));
    }
}
