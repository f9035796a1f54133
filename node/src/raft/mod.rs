//! The Raft groups of a node: one for each shard replica that lives here.
//!
//! ```text
//!   propose ──> Group ──> openraft ──> LogStore ──────> crate::log      (entries, votes: durable)
//!                            │
//!   answers <── Pending <────┴──────> StateMachine ──> crate::storage   (rows, applied state)
//!                                        │
//!                                      Machine (what an entry means: the ledger's apply)
//! ```
//!
//! - The log makes an entry durable before it is answered; the state store holds what was applied,
//!   in memory until a flush. After a crash a group comes back to its last flush and applies its log
//!   again.
//! - **A snapshot is a flush.** Its view and its position are taken together while nothing is being
//!   applied; the rows are on disk before it counts; only then may the log be purged up to it.
//! - **One group's trouble is its own.** Damage, a failed store, or a panic while applying stops the
//!   group that met it. The process, and every other group, goes on.
//! - Reads confirm leadership with a quorum each round (ReadIndex). A lease is never trusted: a
//!   replica that restarts forgets the one that it gave.

mod codec;
mod config;
mod error;
mod group;
mod log_store;
mod machine;
mod network;
mod seal;
mod snapshot;
mod state_machine;
mod types;

pub use codec::{Applied, Undecodable};
pub use config::GroupConfig;
pub use error::{OpenError, ProposeError, ReadError, Stopped};
pub use group::{Group, GroupMetrics, GroupOptions, Pending, Proposed, flush_what_the_log_needs};
pub use log_store::{LogReader, LogStore};
pub use machine::{LedgerMachine, Machine, Outcome};
pub use network::Alone;
pub use snapshot::SnapshotData;
pub use state_machine::StateMachine;
pub use types::{Answers, Command, Entry, LogId, Membership, Payload, ReplicaId, Runtime, TypeConfig, Vote};
