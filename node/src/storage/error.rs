//! What can go wrong with the state store, said so that the reader knows what to do.

use std::io;

/// Why a state directory was not opened. Nothing in it was changed.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it open.
    #[error("the state directory is in use by another process; stop that one first")]
    InUse,
    /// It belongs to another cluster or node.
    #[error(
        "the state directory belongs to another identity ({found}), this node is {expected}; \
         point the node at its own data directory"
    )]
    OtherIdentity {
        /// What the directory says, escaped.
        found: String,
        /// What the caller is, escaped.
        expected: String,
    },
    /// It was written by a newer version.
    #[error(
        "the state directory has format version {found}, this program reads up to {supported}; \
         run the newer program"
    )]
    NewerFormat {
        /// The version found.
        found: u32,
        /// The newest version that this program reads.
        supported: u32,
    },
    /// Its identity file is damaged.
    #[error(
        "the identity of the state directory cannot be trusted ({0}); \
         start with an empty directory as a new node"
    )]
    DamagedIdentity(String),
    /// It has files, but no identity.
    #[error("the directory is not a state directory: it holds {0:?}; use an empty directory")]
    NotAStore(Vec<String>),
    /// The options cannot work.
    #[error("invalid state store options: {0}")]
    Options(&'static str),
    /// RocksDB does not open what is there.
    #[error(
        "the state store does not open: {0}; if its files are damaged, \
         start with an empty data directory as a new node"
    )]
    Damaged(String),
    /// The disk failed.
    #[error("opening the state directory failed while {doing}: {source}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// What the disk said.
        source: io::Error,
    },
}

impl OpenError {
    pub(super) fn io(doing: &'static str) -> impl FnOnce(io::Error) -> OpenError {
        move |source| OpenError::Io { doing, source }
    }
}

/// Why an operation on an open store did not succeed. The shard that meets one stops.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StorageError {
    /// RocksDB failed. After a failed write or flush it takes no more writes.
    #[error("the state store failed while {doing}: {reason}")]
    Failed {
        /// What was being done.
        doing: &'static str,
        /// What RocksDB said.
        reason: String,
    },
    /// The disk is full. RocksDB takes writes again by itself some seconds after there is room.
    #[error("the disk is full while {doing}")]
    NoSpace {
        /// What was being done.
        doing: &'static str,
    },
    /// The generation that should hold the shard's rows is not there: replace this replica.
    #[error("the rows of the shard are gone: there is no column family {0}; replace this replica")]
    Gone(String),
}

impl StorageError {
    pub(super) fn failed(doing: &'static str) -> impl FnOnce(rocksdb::Error) -> StorageError {
        move |error| {
            let reason = error.into_string();
            // RocksDB has one kind for all that a file system refuses; only its words tell this one.
            match reason.contains("No space left on device") {
                true => StorageError::NoSpace { doing },
                false => StorageError::Failed { doing, reason },
            }
        }
    }
}
