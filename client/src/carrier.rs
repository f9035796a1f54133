//! The way to the network: everything that the client sends goes through one [`Carrier`].
//!
//! In production that is [`GrpcCarrier`](crate::GrpcCarrier); a simulation brings its own.

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use tokio::sync::mpsc;
use tonic::Status;

use crate::call::Method;

/// What a node may do with a call that another node has to answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Route {
    /// Say who leads, and leave it at that: the client routes by itself. On the wire: the request's
    /// metadata says `purser-route: direct`.
    Direct,
    /// Hand it on.
    Any,
}

/// Carries calls to nodes.
pub trait Carrier: Send + Sync + 'static {
    /// Makes one call. `address` is as the client got it: a seed, or what a node says of another.
    ///
    /// The future ends within `deadline`, which the server is told too. A call that certainly never
    /// left this process ends with [`not_sent`]; with any other status the client takes it that the
    /// server may have acted on it, unless the status says that it did not.
    fn call(
        &self,
        address: &str,
        method: Method,
        route: Route,
        request: Bytes,
        deadline: Duration,
    ) -> BoxFuture<'static, Result<Bytes, Status>>;

    /// Opens a stream in both directions. Optional: without it the client makes unary calls instead.
    ///
    /// The stream of answers ends when the sender of `requests` is dropped and all is answered, or with
    /// the first error.
    fn open(&self, address: &str, method: Method, requests: mpsc::Receiver<Bytes>) -> Opening {
        let _ = (address, requests);
        let status = Status::unimplemented(format!("this carrier has no streams: {}", method.name()));
        std::future::ready(Err(status)).boxed()
    }
}

/// A stream on its way to be opened.
pub type Opening = BoxFuture<'static, Result<BoxStream<'static, Result<Bytes, Status>>, Status>>;

/// The call never left this process.
#[derive(Debug)]
struct NotSent;

impl fmt::Display for NotSent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the call was not sent")
    }
}

impl Error for NotSent {}

/// The status of a call that certainly never left this process: UNAVAILABLE, and marked.
pub fn not_sent(message: impl Into<String>) -> Status {
    let mut status = Status::unavailable(message);
    status.set_source(Arc::new(NotSent));
    status
}

/// Whether a status was made by [`not_sent`].
pub(crate) fn was_not_sent(status: &Status) -> bool {
    status.source().is_some_and(|source| source.is::<NotSent>())
}

/// What an error comes down to: "Connection refused" says more than "transport error".
pub(crate) fn root_cause<'a>(error: &'a (dyn Error + 'static)) -> &'a (dyn Error + 'static) {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_status_that_is_marked_was_not_sent() {
        assert!(was_not_sent(&not_sent("refused")));
        assert!(!was_not_sent(&Status::unavailable("reset")));
    }
}
