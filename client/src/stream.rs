//! Writes as they come, over one gRPC stream to each node: the least work for each.
//!
//! A stream only makes the first attempt of a write. What it leaves open (it breaks, or its node refuses
//! for now) is pursued by single calls under the same key, like any other write. So a stream may break at
//! any time; the next writes open another.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use purser_proto::v1::ReceiptDetail;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tonic::{Code, Status};

use crate::carrier::Carrier;
use crate::client::Inner;
use crate::failure::{Failure, Origin};
use crate::place::Place;
use crate::pursue::Started;
use crate::wire::{self, Sort};

/// Writes of one caller's stream under way at once; as many as a node takes from one stream.
pub(crate) const UNDER_WAY_MAX: usize = 1_024;

/// What the first attempt came to; `None`: it was not made.
pub(crate) type FirstAnswer = Option<Result<Bytes, Failure>>;

/// A write on its way to a stream.
struct Piped {
    write: Bytes,
    answer: oneshot::Sender<FirstAnswer>,
}

/// The streams of one caller, by the addresses of the nodes.
pub(crate) struct Pipes {
    sort: Sort,
    pipes: BTreeMap<Arc<str>, mpsc::Sender<Piped>>,
}

impl Pipes {
    pub(crate) fn new(sort: Sort) -> Pipes {
        Pipes { sort, pipes: BTreeMap::new() }
    }

    /// Puts a write on the stream to its shard's leader, or to any node. Writes for one node go out in
    /// the order of these calls.
    pub(crate) fn start(&mut self, inner: &Inner, write: Bytes, place: Place) -> Started {
        let target = inner.target(place, None);
        let (sender, answer) = oneshot::channel();
        let address = &target.node.address;
        let mut piped = Piped { write, answer: sender };
        if let Some(pipe) = self.pipes.get(address) {
            match pipe.try_send(piped) {
                Ok(()) => return Started { target, answer },
                Err(mpsc::error::TrySendError::Closed(back)) => piped = back,
                // Not for a caller within its bound.
                Err(mpsc::error::TrySendError::Full(back)) => {
                    let _ = back.answer.send(None);
                    return Started { target, answer };
                }
            }
        }
        // There is none, or it broke: a new one.
        let (pipe, writes) = mpsc::channel(UNDER_WAY_MAX);
        let opener = Opener {
            sort: self.sort,
            carrier: inner.carrier.clone(),
            address: address.clone(),
            detail: inner.options.detail,
            wait: inner.options.attempt,
        };
        tokio::spawn(opener.run(writes));
        let _ = pipe.try_send(piped);
        self.pipes.insert(address.clone(), pipe);
        Started { target, answer }
    }
}

/// Opens one stream, and serves it.
struct Opener {
    sort: Sort,
    carrier: Arc<dyn Carrier>,
    address: Arc<str>,
    detail: ReceiptDetail,
    wait: Duration,
}

impl Opener {
    async fn run(self, mut writes: mpsc::Receiver<Piped>) {
        let (requests, outbound) = mpsc::channel(UNDER_WAY_MAX);
        let opening = timeout(self.wait, self.carrier.open(&self.address, self.sort.stream(), outbound));
        let why = match opening.await {
            Ok(Ok(answers)) => {
                let (sort, detail) = (self.sort, self.detail);
                let mut stream = Stream { sort, detail, sequence: 0, waiting: BTreeMap::new() };
                let failure = stream.serve(requests, &mut writes, answers).await;
                tracing::debug!(address = %self.address, failure = %failure.denial, "a stream ended");
                for (_, answer) in stream.waiting {
                    let _ = answer.send(Some(Err(failure.clone())));
                }
                Some(Failure::unsent(Origin::Waited, "the stream ended before"))
            }
            // No streams here: nobody's fault.
            Ok(Err(status)) if status.code() == Code::Unimplemented => None,
            Ok(Err(status)) => Some(Failure::unsent(Origin::NotSent, status.message())),
            Err(_) => Some(Failure::unsent(Origin::NotSent, "the stream was not opened in time")),
        };
        writes.close();
        while let Some(piped) = writes.recv().await {
            let _ = piped.answer.send(why.clone().map(Err));
        }
    }
}

/// A stream that is open.
struct Stream {
    sort: Sort,
    detail: ReceiptDetail,
    sequence: u64,
    waiting: BTreeMap<u64, oneshot::Sender<FirstAnswer>>,
}

impl Stream {
    /// Writes out, results in, until the caller has no more and all is answered, or the stream breaks.
    async fn serve(
        &mut self,
        requests: mpsc::Sender<Bytes>,
        writes: &mut mpsc::Receiver<Piped>,
        mut answers: BoxStream<'static, Result<Bytes, Status>>,
    ) -> Failure {
        let mut requests = Some(requests);
        loop {
            tokio::select! {
                biased;
                answer = answers.next() => match answer {
                    Some(Ok(response)) => match wire::stream_response(response) {
                        Ok((number, result)) => {
                            if let Some(answer) = self.waiting.remove(&number) {
                                let _ = answer.send(Some(self.sort.outcome(result)));
                            }
                        }
                        Err(failure) => return failure,
                    },
                    Some(Err(status)) => return Failure::from_status(&status),
                    None => return Failure::from_status(&Status::unavailable("the stream ended")),
                },
                piped = writes.recv(), if requests.is_some() && self.waiting.len() < UNDER_WAY_MAX => {
                    match (piped, &requests) {
                        (Some(piped), Some(requests)) => {
                            self.sequence += 1;
                            let request = wire::stream_request(self.sequence, &piped.write, self.detail);
                            self.waiting.insert(self.sequence, piped.answer);
                            // There is room for as many as may wait. A stream that is gone says so above.
                            let _ = requests.try_send(request);
                        }
                        // The caller has no more: the node answers what it has, and ends the stream.
                        _ => requests = None,
                    }
                }
            }
        }
    }
}
