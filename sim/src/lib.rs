//! Deterministic fault injection: the real node, its API, groups, log and store, over a simulated
//! network, disks and clocks, with callers, faults and an oracle. One seed is one run, the same each
//! time.
//!
//! ```text
//!   world    what the seed means        workload ── requests ──> network ──> seat: a node's process
//!   blows    crashes, partitions …       gateway (client library)  │ front      │        │ over disk
//!   trace    what happened, hashed      observed: what was answered         history: what was applied
//!                                            └────────────> check <────────────┘
//! ```
//! It runs under `--cfg madsim` only: `make sim`.

#![cfg(madsim)]

pub mod blows;
pub mod call;
pub mod check;
pub mod clocks;
pub mod command;
pub mod dice;
pub mod disk;
pub mod drafts;
pub mod front;
pub mod gateway;
pub mod heard;
pub mod history;
pub mod leads;
pub mod lighter;
pub mod meta;
pub mod mutants;
pub mod network;
pub mod observed;
pub mod operator;
pub mod partition;
pub mod referee;
pub mod rows;
pub mod run;
pub mod seat;
pub mod setting;
pub mod streams;
pub mod swarm;
pub mod sweep;
pub mod timeline;
pub mod trace;
pub mod workload;
pub mod world;
