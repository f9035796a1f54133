//! The pure core of the ledger: commands in, rows and verdicts out.
//!
//! ```text
//!   entry bytes --> command::Batch --> apply::apply_batch --> Applied { changes, answers, digest }
//!                                        |        ^
//!                                        v        | get, scan
//!                                  Workspace ---> store::Store   (RocksDB, or memory)
//! ```
//!
//! `apply` reads only the command and this shard's rows. It has no clock, no randomness, no
//! unordered iteration and no I/O of its own, so every replica that applies the same entries has the
//! same rows, byte for byte.
//!
//! Where to look: what a caller may ask is in [`command`], what it is answered in [`verdict`]; the
//! bytes of each row in [`rows`]; the order of judgement in [`apply`]; what a command is about in
//! `subject`; the burn order in [`rows::open`] and the walk along it in `burn`; holds in `hold`;
//! time-outs, expiry and activation in `due`; reads in [`query`] and [`audit`].

mod adjust;
pub mod amount;
pub mod apply;
pub mod audit;
mod booking;
mod burn;
pub mod cache;
pub mod codec;
pub mod command;
mod debit;
mod due;
mod grant;
mod hold;
pub mod ids;
mod life;
pub mod query;
mod refund;
mod replay;
pub mod rows;
pub mod simulation;
pub mod store;
mod subject;
pub mod time;
pub mod verdict;
mod wallets;
mod workspace;
