//! Writes on a stream: results come as they are known, those of one customer in their order.
//!
//! ```text
//!   requests --> lane of the shard --> [one part of a lane under way] --> results
//! ```
//! The stream clocks itself as the batcher does: while a part of a lane is under way, what comes for
//! that shard waits in the lane and makes the next part. So one customer's writes are judged and
//! answered in their order, and parts grow with the load.
//!
//! Bounds: what was read and has no answer handed out yet is at most [`WRITES_HELD_MAX`] writes. A caller
//! that does not read its results is not read from.
//!
//! Ends: after a half-close, when everything is answered. When the node drains, what was read is
//! answered, and a last status tells the caller that the rest was not taken.

use std::collections::{BTreeMap, VecDeque};
use std::mem::take;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, ReadyChunks, unfold};
use futures_util::{FutureExt, Stream, StreamExt};
use purser_proto::v1;
use tokio::sync::Notify;
use tonic::Status;

use super::Api;
use super::batch::WRITES_MAX;
use super::batched::{Batched, OnStream, refused};
use super::forward::Route;
use super::refusal::{malformed_field, unavailable};
use crate::shard::ShardId;

/// Most writes of one stream that were read and not answered: a few times what is under way at 100,000
/// a second and a few milliseconds each.
pub const WRITES_HELD_MAX: usize = 1_024;
/// Most requests read in one go.
const READ_AT_ONCE_MAX: usize = 128;

/// Tells streams that the node is going away.
#[derive(Debug, Default)]
pub(super) struct Drain {
    begun: AtomicBool,
    told: Notify,
}

impl Drain {
    pub fn begin(&self) {
        self.begun.store(true, Ordering::Release);
        self.told.notify_waiters();
    }

    /// Returns when it begins, or has begun.
    async fn begun(&self) {
        let mut told = std::pin::pin!(self.told.notified());
        // From here on a notice is not missed.
        told.as_mut().enable();
        if !self.begun.load(Ordering::Acquire) {
            told.await;
        }
    }
}

impl Api {
    /// Debits, one after the other on a stream; of a caller that routes by itself (`direct`) none is
    /// handed on. It ends with an error only where requests cannot be
    /// read, or when the node drains; what a debit comes to is in its result.
    pub fn debit_stream<R>(
        &self,
        requests: R,
        direct: bool,
    ) -> impl Stream<Item = Result<v1::DebitStreamResponse, Status>> + Send + 'static
    where
        R: Stream<Item = Result<v1::DebitStreamRequest, Status>> + Unpin + Send + 'static,
    {
        self.stream::<v1::DebitRequest, R>(requests, direct)
    }

    /// Like [`Api::debit_stream`], writes of several sorts.
    pub fn write_stream<R>(
        &self,
        requests: R,
        direct: bool,
    ) -> impl Stream<Item = Result<v1::WriteStreamResponse, Status>> + Send + 'static
    where
        R: Stream<Item = Result<v1::WriteStreamRequest, Status>> + Unpin + Send + 'static,
    {
        self.stream::<v1::WriteRequest, R>(requests, direct)
    }

    fn stream<W, R>(
        &self,
        requests: R,
        direct: bool,
    ) -> impl Stream<Item = Result<W::Answer, Status>> + Send + 'static
    where
        W: Batched,
        R: Stream<Item = Result<W::Asked, Status>> + Unpin + Send + 'static,
    {
        let drain = self.drain.clone();
        let stream = Box::new(WriteStream::<W, R> {
            api: self.clone(),
            direct,
            requests: requests.ready_chunks(READ_AT_ONCE_MAX),
            drain: async move { drain.begun().await }.boxed(),
            open: true,
            end: None,
            held: 0,
            lanes: BTreeMap::new(),
            under_way: FuturesUnordered::new(),
            ready: VecDeque::new(),
        });
        unfold(stream, |mut stream| async move { Some((stream.next().await?, stream)) })
    }
}

/// What waits for a part of its shard's lane that is under way.
type Lane<W> = VecDeque<OnStream<W>>;

/// The answers to a part of a shard's lane.
type Part<W> = (ShardId, Vec<<W as Batched>::Answer>);

struct WriteStream<W: Batched, R: Stream> {
    api: Api,
    /// Whether the caller routes by itself.
    direct: bool,
    requests: ReadyChunks<R>,
    drain: BoxFuture<'static, ()>,
    /// Whether more is read.
    open: bool,
    /// What the stream ends with, after the last result.
    end: Option<Status>,
    /// Read, and not answered.
    held: usize,
    /// Each shard with a part under way.
    lanes: BTreeMap<ShardId, Lane<W>>,
    under_way: FuturesUnordered<BoxFuture<'static, Part<W>>>,
    ready: VecDeque<W::Answer>,
}

enum Event<W: Batched> {
    Done(Part<W>),
    Read(Vec<Result<W::Asked, Status>>),
    HalfClosed,
    Drained,
}

impl<W, R> WriteStream<W, R>
where
    W: Batched,
    R: Stream<Item = Result<W::Asked, Status>> + Unpin + Send + 'static,
{
    async fn next(&mut self) -> Option<Result<W::Answer, Status>> {
        loop {
            if let Some(response) = self.ready.pop_front() {
                self.held -= 1;
                return Some(Ok(response));
            }
            if !self.open && self.under_way.is_empty() {
                return self.end.take().map(Err);
            }
            let room = self.held + READ_AT_ONCE_MAX <= WRITES_HELD_MAX;
            let event: Event<W> = tokio::select! {
                biased;
                Some(part) = self.under_way.next(), if !self.under_way.is_empty() => Event::Done(part),
                () = &mut self.drain, if self.open => Event::Drained,
                read = self.requests.next(), if self.open && room => {
                    read.map_or(Event::HalfClosed, Event::Read)
                }
            };
            match event {
                Event::Done((shard, responses)) => {
                    self.ready.extend(responses);
                    self.go_on(shard);
                }
                Event::Read(requests) => self.take_in(requests),
                Event::HalfClosed => self.open = false,
                Event::Drained => {
                    let why = "the node is stopping; send what has no result again with the same key";
                    self.close(unavailable(why));
                }
            }
        }
    }

    /// Reads no more; ends with a status when everything that was read is answered.
    fn close(&mut self, end: Status) {
        self.open = false;
        self.end = Some(end);
    }

    fn take_in(&mut self, requests: Vec<Result<W::Asked, Status>>) {
        let mut idle = BTreeMap::<ShardId, Lane<W>>::new();
        for request in requests {
            let (sequence, request) = match request {
                Ok(request) => W::asked(request),
                Err(status) => {
                    self.close(status);
                    break;
                }
            };
            self.held += 1;
            let Some(request) = request else {
                let result = refused::<W>(&malformed_field(W::ONE, "required"));
                self.ready.push_back(W::answer(sequence, result));
                continue;
            };
            let (namespace, customer) = request.write.customer();
            let shard = self.api.place(namespace, customer);
            self.lanes.get_mut(&shard).unwrap_or_else(|| idle.entry(shard).or_default()).push_back(request);
        }
        for (shard, lane) in idle {
            self.lanes.insert(shard, lane);
            self.go_on(shard);
        }
    }

    /// Sends the next part of a lane. An empty lane goes.
    fn go_on(&mut self, shard: ShardId) {
        let Some(lane) = self.lanes.get_mut(&shard) else { return };
        let Some(first) = lane.front() else {
            self.lanes.remove(&shard);
            return;
        };
        let detail = first.detail;
        let count = part_of(lane, detail);
        let part: Vec<_> =
            if count == lane.len() { take(lane).into() } else { lane.drain(..count).collect() };
        let route = if self.direct { Route::Direct } else { Route::within(None) };
        self.under_way.push(answer(self.api.clone(), shard, part, detail, route).boxed());
    }
}

/// How many writes the next part takes: those that want the same detail, and no more than fit into the
/// batch that another node would get; at least one.
fn part_of<W: Batched>(lane: &Lane<W>, detail: v1::ReceiptDetail) -> usize {
    let mut weight = 0;
    let fit = lane.iter().take_while(|request| {
        weight += request.write.weight();
        request.detail == detail && weight <= WRITES_MAX
    });
    fit.count().max(1)
}

async fn answer<W: Batched>(
    api: Api,
    shard: ShardId,
    part: Vec<OnStream<W>>,
    detail: v1::ReceiptDetail,
    route: Route,
) -> Part<W> {
    let writes: Vec<_> = part.iter().map(|request| &request.write).collect();
    let results = api.writes_of_shard(shard, &writes, detail, route).await;
    let answers = part.iter().zip(results).map(|(request, result)| W::answer(request.sequence, result));
    (shard, answers.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const FULL: v1::ReceiptDetail = v1::ReceiptDetail::Full;

    fn lane(tranches: &[usize]) -> Lane<v1::WriteRequest> {
        let grant = |&count: &usize| v1::GrantRequest {
            tranches: vec![v1::TrancheSpec::default(); count],
            ..Default::default()
        };
        let piece = |own| OnStream { sequence: 0, write: v1::WriteRequest::from(grant(own)), detail: FULL };
        tranches.iter().map(piece).collect()
    }

    #[test]
    fn a_part_of_a_lane_is_no_more_than_a_batch_takes_and_at_least_one_write() {
        assert_eq!(part_of(&lane(&[1; 1_024]), FULL), 1_024);
        // 80 grants of 100 tranches are 8,000.
        assert_eq!(part_of(&lane(&[100; 1_024]), FULL), 80);
        assert_eq!(part_of(&lane(&[9_000, 1]), FULL), 1);
        assert_eq!(part_of(&lane(&[1, 9_000]), FULL), 1);
    }

    #[test]
    fn a_part_of_a_lane_wants_one_detail() {
        let mut lane = lane(&[1, 1, 1]);
        lane[2].detail = v1::ReceiptDetail::Brief;
        assert_eq!(part_of(&lane, FULL), 2);
    }
}
