//! How nodes speak to one another: messages of bytes, each with an answer.
//!
//! ```text
//!   raft, cluster, api ──> Transport::call ── one ordered way to a peer ──> Inbox::receive ──> the same there
//! ```
//! A [`Transport`] carries; what a message means is known to its two ends ([`message`]). It may lose
//! a message or its answer, deliver it twice or late, or break: then the caller gets an error, at the
//! latest when the time it gave is over, and knows nothing about the other side. While a connection lasts,
//! messages of one sender are handed to the inbox in the order in which they were sent.
//!
//! In production it is a TCP connection, in simulation a network that loses, duplicates
//! and reorders.

#[cfg(not(madsim))]
mod connection;
#[cfg(not(madsim))]
mod frame;
pub mod message;
#[cfg(not(madsim))]
pub mod tcp;

use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;

use crate::cluster::NodeId;

/// An answer on its way.
pub type Answer = BoxFuture<'static, Result<Bytes, CallError>>;

/// Carries messages to other nodes. Cheap to share.
pub trait Transport: Send + Sync + 'static {
    /// Sends a message, in the order of the calls to this node, and gives back its answer, or an error
    /// when `within` is over. Dropping the answer does not take the message back.
    fn call(&self, to: NodeId, message: Bytes, within: Duration) -> Answer;
}

/// Takes messages from other nodes.
pub trait Inbox: Send + Sync + 'static {
    /// Takes one message in, in order, without waiting; what it returns waits for the answer. An error
    /// is told to the caller as [`CallError::Refused`].
    fn receive(&self, from: NodeId, message: Bytes) -> BoxFuture<'static, Result<Bytes, String>>;
}

/// Where nodes are.
pub trait AddressBook: Send + Sync + 'static {
    /// The address at which a node speaks with other nodes, as `host:port`.
    fn peer_address(&self, node: NodeId) -> Option<String>;

    /// Takes note of where a node says that it is, which may be news: it says so when it dials.
    fn moved(&self, node: NodeId, address: String);
}

/// Why a message has no answer. Except for `Refused`, it may have been taken in all the same.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// No address, no connection, or it broke.
    #[error("the node cannot be reached: {0}")]
    Unreachable(String),
    /// No answer in time.
    #[error("no answer in {} ms", .0.as_millis())]
    TimedOut(Duration),
    /// The other node does not take it: another cluster, an unknown replica, a message that does not
    /// decode. Nothing was done.
    #[error("refused: {0}")]
    Refused(String),
}
