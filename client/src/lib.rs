//! The Rust client for gateways: it asks a Purser cluster "may this customer spend N credits?", and
//! brings back one of three answers.
//!
//! ```no_run
//! use purser_client::{HttpStatus, Outcome, PurserClient, v1};
//!
//! # async fn forward() -> Result<(), purser_client::ConnectError> {
//! let purser = PurserClient::connect(["10.0.0.1:7480", "10.0.0.2:7480", "10.0.0.3:7480"]).await?;
//!
//! let debit = v1::DebitRequest {
//!     customer: "acme".to_owned(),
//!     payer: Some(v1::debit_request::Payer::Wallet("main".to_owned())),
//!     amount: "5".to_owned(),
//!     // The gateway's own request id. Left out, the client makes one.
//!     idempotency_key: "request-7f3a".to_owned(),
//!     ..Default::default()
//! };
//! match purser.debit(debit).await {
//!     Outcome::Applied(debit) => println!("forward it; {} left", debit.remaining),
//!     Outcome::Denied(denial) => println!("answer {}: {denial}", denial.http_status()),
//!     Outcome::Unknown(unknown) => {
//!         println!("answer 503: no answer in time for {}", unknown.key());
//!         // Behind the request: what became of it?
//!         tokio::spawn(async move { purser.resolve(unknown.request).await });
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # What it does
//!
//! ```text
//!   call ── key and valid_until ── shard of the customer ── its leader, from the cached map
//!                                                                │
//!     debits: plain while few, gathered into batches as they grow more (lane)
//!                                                                │
//!   NOT_LEADER: follow the hint at once ── no answer: ask another node, which hands it on
//!     else: back-off with full jitter, same key, within deadline and retry budget
//! ```
//! - **Outcomes.** A write is [`Outcome::Applied`], [`Outcome::Denied`] (it certainly took no effect) or
//!   [`Outcome::Unknown`], and [`PurserClient::resolve`] settles an unknown one. [`Denial::http_status`]
//!   says what to answer with.
//! - **Retries** never have a second effect: every attempt carries the same idempotency key and the same
//!   `valid_until`, after which the ledger takes no duplicate any more. They stay within the call's
//!   deadline, and within a [`RetryBudget`], so that an outage is not made worse.
//! - **Batching** clocks itself ([`Batching`]): with few calls under way a debit goes out at once, as a
//!   call of its own; under load those that wait go out together.
//! - **Lists and streams** are split by leader, completed, retried and answered one by one: of debits
//!   ([`PurserClient::debit_batch`], [`PurserClient::debit_stream`]), or of writes of several sorts
//!   ([`PurserClient::write_batch`], [`PurserClient::write_stream`]), each from its request by `into()`.
//! - **Bounds.** Calls under way and queued are bounded ([`Builder::calls_max`]); over the bound a call
//!   is denied at once.
//!
//! Everything sent goes through one [`Carrier`], and time of day and chance can be given
//! ([`Builder::clock`], [`Builder::seed`]): a simulation of the client is the same run each time.

mod batch;
mod budget;
mod call;
mod carrier;
mod chance;
mod client;
mod failure;
#[cfg(not(madsim))]
mod grpc;
mod lane;
mod options;
mod outcome;
mod place;
mod pursue;
mod reason;
mod routes;
mod scout;
mod stream;
mod wire;

pub use budget::RetryBudget;
pub use call::{Call, Method, Read, Write};
pub use carrier::{Carrier, Opening, Route, not_sent};
pub use client::PurserClient;
#[cfg(not(madsim))]
pub use grpc::GrpcCarrier;
pub use lane::Batching;
pub use options::{Builder, ConnectError};
pub use outcome::{Denial, NotApplied, Outcome, Unknown};
pub use purser_proto::v1;
pub use reason::HttpStatus;
