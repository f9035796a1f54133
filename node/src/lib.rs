//! A Purser node: log, state store, Raft groups, shard pipeline, API, configuration, CLI.
//!
//! ```text
//!   api -> shard -> { raft, ledger } -> storage, log        cluster beside shard
//! ```
//! Arrows point one way: nothing below knows what is above it. The client side of the binary is
//! `cli`, which speaks to a server over gRPC alone.

#[cfg(not(madsim))]
pub mod allocator;
pub mod api;
#[cfg(not(madsim))]
pub mod cli;
pub mod clock;
pub mod cluster;
#[cfg(not(madsim))]
pub mod config;
#[cfg(not(madsim))]
pub mod dev;
pub mod log;
pub mod node;
#[cfg(not(madsim))]
pub mod observe;
pub mod peer;
#[cfg(not(madsim))]
pub mod process;
pub mod raft;
pub mod room;
#[cfg(not(madsim))]
pub mod server;
pub mod shard;
pub use purser_ledger::simulation;
#[cfg(not(madsim))]
pub mod start;
pub mod storage;
