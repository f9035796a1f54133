//! gRPC's streams, made of calls: each request of a stream is one, and its answer is the response that
//! comes under the request's number. A node takes the requests of a stream in their order, whatever the
//! network does; a call that fails breaks the stream, as a connection that fails would.
//!
//! ```text
//!   piece      stream 8 | place 8 | sort 1 (0: debits, 1: writes of several sorts) | request
//! ```
//! A piece without a request is the end of the stream.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use futures_util::future::BoxFuture;
use futures_util::stream::{BoxStream, poll_fn};
use futures_util::{FutureExt, StreamExt};
use prost::Message;
use purser_node::api::Api;
use purser_node::api::stream::WRITES_HELD_MAX;
use purser_node::cluster::NodeId;
use purser_proto::v1;
use tokio::sync::{mpsc, oneshot};
use tonic::Status;

/// Bytes before a piece's request.
const HEAD_BYTES: usize = 17;

/// What a stream carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sort {
    /// Debits alone.
    Debits,
    /// Writes of several sorts.
    Mixed,
}

/// A request on its way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Which stream of its caller.
    pub stream: u64,
    /// The how manieth of the stream, from 0.
    pub place: u64,
    /// What the stream carries.
    pub sort: Sort,
    /// The request; empty: there are no more.
    pub request: Bytes,
}

impl Piece {
    /// As it crosses the network.
    pub fn encode(&self) -> Bytes {
        let mut bytes = BytesMut::with_capacity(HEAD_BYTES + self.request.len());
        bytes.put_u64(self.stream);
        bytes.put_u64(self.place);
        bytes.put_u8(u8::from(self.sort == Sort::Mixed));
        bytes.put_slice(&self.request);
        bytes.freeze()
    }

    /// Reads it.
    pub fn decode(mut bytes: Bytes) -> Option<Piece> {
        if bytes.len() < HEAD_BYTES {
            return None;
        }
        let (stream, place) = (bytes.get_u64(), bytes.get_u64());
        let sort = if bytes.get_u8() == 0 { Sort::Debits } else { Sort::Mixed };
        Some(Piece { stream, place, sort, request: bytes })
    }
}

/// What a node has open.
#[derive(Clone, Default)]
pub struct Streams(Arc<Mutex<BTreeMap<(NodeId, u64), Open>>>);

/// One stream.
struct Open {
    /// The place of the request that is taken next.
    next: u64,
    /// Requests that came before others that they stand behind.
    early: BTreeMap<u64, Bytes>,
    /// To the API; none after the end.
    requests: Option<mpsc::Sender<Bytes>>,
    /// Who waits for the response to which number.
    waiting: BTreeMap<u64, oneshot::Sender<Bytes>>,
}

impl Streams {
    fn all(&self) -> MutexGuard<'_, BTreeMap<(NodeId, u64), Open>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a piece in, on a task of the node.
    pub fn receive(
        &self,
        from: NodeId,
        piece: Piece,
        api: &Api,
    ) -> BoxFuture<'static, Result<Bytes, String>> {
        let key = (from, piece.stream);
        let (answer, answered) = oneshot::channel();
        let is_end = piece.request.is_empty();
        {
            let mut all = self.all();
            let open = all.entry(key).or_insert_with(|| self.open(key, piece.sort, api.clone()));
            if !is_end {
                let Some(sequence) = sequence_of(piece.sort, &piece.request) else {
                    return std::future::ready(Err("a request that does not decode".to_owned())).boxed();
                };
                open.waiting.insert(sequence, answer);
            }
            open.early.insert(piece.place, piece.request);
            while let Some(request) = open.early.remove(&open.next) {
                open.next += 1;
                match &open.requests {
                    // More than the API holds were never sent by one caller.
                    Some(requests) if !request.is_empty() => drop(requests.try_send(request)),
                    _ => open.requests = None,
                }
            }
        }
        async move {
            match is_end {
                true => Ok(Bytes::new()),
                false => answered.await.map_err(|_| "the stream ended".to_owned()),
            }
        }
        .boxed()
    }

    fn open(&self, key: (NodeId, u64), sort: Sort, api: Api) -> Open {
        let (requests, mut taken) = mpsc::channel(WRITES_HELD_MAX);
        let taken = poll_fn(move |context| taken.poll_recv(context));
        let mut responses = match sort {
            Sort::Debits => {
                responses::<v1::DebitStreamRequest, _, _>(taken, |own| api.debit_stream(own, true))
            }
            Sort::Mixed => {
                responses::<v1::WriteStreamRequest, _, _>(taken, |own| api.write_stream(own, true))
            }
        };
        let streams = self.clone();
        tokio::spawn(async move {
            while let Some(Ok(response)) = responses.next().await {
                let waiting = sequence_of_response(sort, &response);
                let waiting = waiting.and_then(|own| streams.all().get_mut(&key)?.waiting.remove(&own));
                if let Some(waiting) = waiting {
                    // Who has hung up does not wait.
                    let _ = waiting.send(response);
                }
            }
            streams.all().remove(&key);
        });
        Open { next: 0, early: BTreeMap::new(), requests: Some(requests), waiting: BTreeMap::new() }
    }
}

/// The API's stream, over bytes on both sides.
fn responses<Q, R, S>(
    requests: impl futures_util::Stream<Item = Bytes> + Unpin + Send + 'static,
    open: impl FnOnce(BoxStream<'static, Result<Q, Status>>) -> S,
) -> BoxStream<'static, Result<Bytes, Status>>
where
    Q: Message + Default + 'static,
    R: Message,
    S: futures_util::Stream<Item = Result<R, Status>> + Send + 'static,
{
    let decoded = requests.map(|bytes| Q::decode(bytes).map_err(|error| Status::internal(error.to_string())));
    open(decoded.boxed()).map(|answer| answer.map(|own| own.encode_to_vec().into())).boxed()
}

fn sequence_of(sort: Sort, request: &Bytes) -> Option<u64> {
    match sort {
        Sort::Debits => v1::DebitStreamRequest::decode(request.clone()).ok().map(|own| own.sequence),
        Sort::Mixed => v1::WriteStreamRequest::decode(request.clone()).ok().map(|own| own.sequence),
    }
}

fn sequence_of_response(sort: Sort, response: &Bytes) -> Option<u64> {
    match sort {
        Sort::Debits => v1::DebitStreamResponse::decode(response.clone()).ok().map(|own| own.sequence),
        Sort::Mixed => v1::WriteStreamResponse::decode(response.clone()).ok().map(|own| own.sequence),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_piece_that_was_encoded_decodes_to_itself_and_a_short_one_does_not() {
        let piece =
            Piece { stream: 7, place: 1 << 40, sort: Sort::Mixed, request: Bytes::from_static(b"abc") };
        assert_eq!(Piece::decode(piece.encode()), Some(piece.clone()));
        let end = Piece { request: Bytes::new(), sort: Sort::Debits, ..piece };
        assert_eq!(Piece::decode(end.encode()), Some(end));
        assert_eq!(Piece::decode(Bytes::from_static(&[0; HEAD_BYTES - 1])), None);
    }
}
