//! The state store: the rows of every shard of this node, in one RocksDB.
//!
//! ```text
//!   StateStore                        ShardStore                       ShardView
//!     identity file, lock       -->     write buffer: layers     -->     rows and applied state
//!     block cache, flusher              of rows in memory                at one instant
//!                                         | flush
//!                                       one family "shard-0007.g1"
//!
//!   engine, for families: rocks (production) or memory (simulation, tests), under the same rules
//! ```
//!
//! - Each shard has a column family of its own, one for each *generation*: an installed snapshot
//!   fills a new generation, and the old one goes when the new one is the valid one.
//! - There is no write-ahead log here: the Raft log is it. A crash takes a shard back to its last
//!   flush, and the Raft log is applied again from there.
//! - Rows and the *applied state* (how far the Raft log is in them) are written in one batch, so a
//!   view always shows rows together with the position that they stand for.
//! - What the applied state means is known to the layer above; here it is bytes.
//!
//! A flush takes a layer in as one sorted file, which is atomic by itself, so no two families need to
//! agree.

mod arena;
mod buffer;
mod engine;
mod error;
mod flusher;
mod layer;
mod memory;
mod memos;
mod merged;
mod options;
mod rocks;
mod shard;
mod state;
mod view;

pub use error::{OpenError, StorageError};
pub use memory::MemoryImage;
pub use memos::{MEMO_TABLE, is_expired_memo};
pub use options::StoreOptions;
pub use shard::{Generation, NewGeneration, ShardMark, ShardStats, ShardStore};
pub use state::{StateStore, StoreStats};
pub use view::ShardView;
