//! The Raft groups of a node: one for each shard replica that lives here.
//!
//! ```text
//!   propose ──> Group ──> openraft ──> LogStore ──────> crate::log      (entries, votes: durable)
//!                            │
//!   answers <── Pending <────┴──────> StateMachine ──> crate::storage   (rows, applied state)
//!                                        │
//!                                      Machine (what an entry means: the ledger's apply)
//!
//!   openraft ──> Link, Peer ──> crate::peer ──> another node ──> Group::receive ──> openraft there
//! ```
//!
//! - The log makes an entry durable before it is answered; the state store holds what was applied,
//!   in memory until a flush. After a crash a group comes back to its last flush and applies its log
//!   again.
//! - **A snapshot is a flush.** Its view and its position are taken together while nothing is being
//!   applied; the rows are on disk before it counts; only then may the log be purged up to it.
//! - **One group's trouble is its own.** Damage, a failed store, or a panic while applying stops the
//!   group that met it. The process, and every other group, goes on.
//! - **Nothing is taken for granted.** A message for another cluster, group or replica is refused; one
//!   that is damaged is refused and sent again; a replica that cannot be asked has said no.
//! - A clock that runs ahead does not get into the log of a majority (`clock_bound`), a snapshot
//!   arrives whole or not at all (`incoming`), and replicas whose states drift apart are found and
//!   stopped (`compare`).
//! - Members change by joint consensus, when the new ones have caught up (`members`). A replica that was
//!   replaced is not heard any more.
//! - Reads confirm leadership with a quorum each round (ReadIndex). A lease is never trusted: a
//!   replica that restarts forgets the one that it gave.

mod clock_bound;
mod codec;
mod compare;
mod config;
mod digest;
mod error;
mod group;
mod halt;
mod hand_over;
mod incoming;
mod lead;
mod log_store;
mod machine;
mod members;
mod network;
mod open;
mod outgoing;
mod parts;
mod receive;
#[cfg(madsim)]
mod runtime;
mod snapshot;
mod state_machine;
mod types;
mod wire;

pub use codec::{Applied, Undecodable};
pub use compare::DigestReport;
pub use config::GroupConfig;
pub use error::{OpenError, ProposeError, ReadError, Stopped};
pub use group::{Group, GroupMetrics, Pending, Proposed, flush_what_the_log_needs};
pub use lead::Leading;
pub use log_store::{LogReader, LogStore};
pub use machine::{LedgerMachine, Machine, Outcome};
pub use members::Moved;
pub use network::{Network, Whereabouts};
pub use open::GroupOptions;
pub use snapshot::SnapshotData;
pub use state_machine::StateMachine;
pub use types::{Answers, Command, Entry, LogId, Membership, Payload, ReplicaId, Runtime, TypeConfig, Vote};
pub use wire::{ClusterId, group_of};
