//! The segment log: one durable, ordered log for all Raft groups of a node.
//!
//! # The mental model
//!
//! ```text
//!  groups      LogHandle ── submit ──> queue ──> LogDriver ──> SegmentLog ──> Disk
//!  (many)         │                              (one)          one run,       segments
//!                 └── read: view (memory) or index + segments   one sync
//! ```
//!
//! Appends, votes, truncations and purges of every group go through one queue. Whoever turns the
//! driver (a thread in production, a task in the simulation, a test by hand) takes what is there,
//! lays it out as one contiguous *run*, writes it with one call, syncs once, and then answers in
//! the order of submission.
//!
//! Why our own: one sync serves all groups; and over our own `Disk` the simulation can tear, lose
//! and rot every byte.
//!
//! # What it promises
//! - What was answered `Ok` is there after a restart, or its group is reported as damaged.
//! - Nothing is there that was not submitted.
//! - What was submitted and not answered is there up to some point in the order of submission, per
//!   group, or not at all.
//! - A failed write or sync ends it for ever. A full disk does not.
//!
//! # Where to read on
//! `run` the bytes on disk · `recovery` what a restart concludes · `index` what still counts ·
//! `segments` the files · `core` all of these without threads · `view` what is readable ·
//! `handle`, `claims`, `driver`, `writer` the outside (`simulated` in the writer's place) · `disk` the trait,
//! `real_disk`, `sim_disk`.

mod claims;
mod core;
mod disk;
mod driver;
mod error;
mod handle;
mod identity;
mod index;
mod options;
mod real_disk;
mod recovery;
pub mod run;
mod segments;
pub mod sim_disk;
#[cfg(madsim)]
mod simulated;
mod types;
mod view;
mod writer;

pub use self::core::{CoreStats, GroupState, Recovered};
pub use claims::Claim;
pub use disk::{DirLock, Disk, DiskFile};
pub use driver::{FatalHook, LogDriver, Step, abort_process, open};
pub use error::{LogError, OpenError};
pub use handle::{Done, FlushNeed, LogHandle, LogStats, Refused};
pub use options::LogOptions;
pub use real_disk::RealDisk;
pub use sim_disk::SimDisk;
#[cfg(madsim)]
pub use simulated::simulate;
pub use types::{Extent, GroupId, LogEntry, Op, Slot};
pub use writer::{LogWriter, StallHook};
