//! What can go wrong, said so that the caller knows what to do about it.

use super::types::GroupId;
use std::io;

/// Why an operation on an open log did not succeed.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum LogError {
    /// A write or sync failed. The log is closed for ever and what was pending may or may not come
    /// back after a restart. Stop the process; never retry.
    #[error("the log is closed after a failed write or sync: {0}; restart the process")]
    Poisoned(String),
    /// There is no room. Nothing of the submission counts as written; reads go on. Free space, or
    /// flush and purge the groups of `groups_to_flush`, then submit again.
    #[error("no room in the log ({0}); free disk space or purge, then try again")]
    NoSpace(String),
    /// The bounded queue is full. Wait and submit again.
    #[error("the log's queue is full; wait and try again")]
    Busy,
    /// The submission breaks a rule of the log (gap in the indexes, oversize entry, …): a bug of
    /// the caller. Nothing of it was accepted.
    #[error("invalid submission for {group}: {reason}")]
    Invalid {
        /// Whose operation.
        group: GroupId,
        /// Which rule.
        reason: String,
    },
    /// The group's records are damaged on this disk. Do not serve it: `Forget` it and replace the
    /// replica.
    #[error("{group} is damaged: {reason}; forget it and replace this replica")]
    Damaged {
        /// Which group.
        group: GroupId,
        /// What was found.
        reason: String,
    },
    /// The range asked for is not (or no longer) in the log.
    #[error("{group} has no entry {index}; it holds {first}..{next}")]
    Missing {
        /// Which group.
        group: GroupId,
        /// The first index that is missing.
        index: u64,
        /// The first index present.
        first: u64,
        /// One past the last index present.
        next: u64,
    },
    /// A read failed. Try again once; if it stays, treat the group as damaged.
    #[error("reading the log failed: {0}")]
    Read(String),
    /// The log is shutting down. As a refusal: nothing was accepted. As an answer: it was not
    /// written.
    #[error("the log is closed")]
    Closed,
}

/// Why a log directory could not be opened. Nothing in it was changed.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it open.
    #[error("the log directory is in use by another process; stop that one first")]
    InUse,
    /// It belongs to another cluster or node.
    #[error(
        "the log directory belongs to another identity ({found}), this node is {expected}; \
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
        "the log directory has format version {found}, this program reads up to {supported}; \
         run the newer program"
    )]
    NewerFormat {
        /// The version found.
        found: u32,
        /// The newest version that this program reads.
        supported: u32,
    },
    /// Its identity file is damaged or missing while other files of a log are there.
    #[error(
        "the identity of the log directory cannot be trusted ({0}); restore the file from a copy, \
         or start with an empty directory as a new node"
    )]
    DamagedIdentity(String),
    /// It holds files that are not of a log.
    #[error("the directory is not a log: it holds {0:?}; use an empty directory")]
    NotALog(Vec<String>),
    /// The options cannot work.
    #[error("invalid log options: {0}")]
    Options(String),
    /// The disk failed.
    #[error("opening the log failed while {doing}: {source}")]
    Io {
        /// What was being done.
        doing: String,
        /// What the disk said.
        source: io::Error,
    },
}

impl OpenError {
    /// Adds what was being done to an error of the disk.
    pub(crate) fn io(doing: impl Into<String>) -> impl FnOnce(io::Error) -> OpenError {
        let doing = doing.into();
        move |source| OpenError::Io { doing, source }
    }
}

/// True if the error means "no room", which is survivable.
pub(crate) fn is_no_space(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
