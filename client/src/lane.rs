//! Debits on their way to one node, gathered.
//!
//! A lane clocks itself. With a turn free a debit goes out at once, as a plain `Debit` in its caller's
//! own task: a few callers have the latency of a plain call. With all turns taken debits queue, and the
//! queue goes out as one `DebitBatch` when a turn is free again: batches grow with the load, and no
//! debit waits for a timer (unless a linger is asked for).
//!
//! ```text
//!   debit() ── a turn is free ───────────> Debit ───────────────────> node
//!           └─ queue ── pump, by turns ──> DebitBatch (or Debit) ──┘
//! ```
//! Invariants: never more than `under_way_max` calls of a lane at once; the queue is bounded, and over
//! the bound the caller gets an error at once; debits leave in the order in which they came; who goes
//! away takes nobody else's debit along; what was not taken from the queue was not sent.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use purser_proto::v1::ReceiptDetail;
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, sleep_until, timeout};

use crate::call::Method;
use crate::carrier::{Carrier, Route};
use crate::failure::{Failure, Origin};
use crate::wire::{self, Sort};

/// Most bytes of writes in one batch: below the 4 MiB that a node takes.
pub(crate) const BATCH_BYTES_MAX: usize = 3 << 20;
/// Most writes that a node takes in one batch.
pub(crate) const BATCH_WRITES_MAX: usize = 8_000;

/// How debits are gathered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Batching {
    /// Most debits, or writes, in one batch, 1 to 8,000.
    pub debits_max: usize,
    /// How long a debit that found every turn taken may wait for company once a turn is free. Zero: not
    /// at all.
    pub linger: Duration,
    /// Calls under way to one node at once, by one route; debits beyond them are gathered. At least 1.
    pub under_way_max: usize,
}

impl Default for Batching {
    /// Up to 1,000 debits, no linger, four calls under way.
    fn default() -> Batching {
        Batching { debits_max: 1_000, linger: Duration::ZERO, under_way_max: 4 }
    }
}

impl Batching {
    /// The same, with every number in range.
    pub(crate) fn in_range(self) -> Batching {
        Batching {
            debits_max: self.debits_max.clamp(1, BATCH_WRITES_MAX),
            under_way_max: self.under_way_max.max(1),
            ..self
        }
    }
}

/// What all lanes of a client share.
pub(crate) struct Terms {
    pub carrier: Arc<dyn Carrier>,
    pub batching: Batching,
    pub detail: ReceiptDetail,
    /// Most debits that queue.
    pub queue_max: usize,
}

/// The way of debits to one node by one route.
pub(crate) struct Lane {
    terms: Arc<Terms>,
    address: Arc<str>,
    route: Route,
    state: Mutex<State>,
    wake: Arc<Notify>,
}

#[derive(Default)]
struct State {
    under_way: usize,
    queue: VecDeque<Waiting>,
    /// Debits that ever queued, and those of them that were taken from the queue: in the same order.
    queued: u64,
    taken: u64,
    pumped: bool,
}

struct Waiting {
    debit: Bytes,
    since: Instant,
    until: Instant,
    answer: oneshot::Sender<Result<Answer, Failure>>,
}

/// An answer as it came: to be taken apart in the caller's task.
enum Answer {
    /// A `DebitResponse`.
    Response(Bytes),
    /// A `DebitResult`.
    Result(Bytes),
}

impl Answer {
    fn response(self) -> Result<Bytes, Failure> {
        match self {
            Answer::Response(response) => Ok(response),
            Answer::Result(result) => Sort::Debits.outcome(result),
        }
    }
}

/// How a debit gets on its way.
enum Start<'a> {
    Now(Turn<'a>),
    Queued { number: u64, answer: oneshot::Receiver<Result<Answer, Failure>> },
    Full,
}

/// What the pump does next.
enum Step {
    Send(Vec<Waiting>),
    Linger(Instant),
    Rest,
}

/// One of the calls that may be under way.
struct Turn<'a>(&'a Lane);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.under_way -= 1;
        if !state.queue.is_empty() {
            self.0.wake.notify_one();
        }
    }
}

impl Lane {
    pub(crate) fn new(terms: Arc<Terms>, address: Arc<str>, route: Route) -> Arc<Lane> {
        let (state, wake) = (Mutex::default(), Arc::new(Notify::new()));
        Arc::new(Lane { terms, address, route, state, wake })
    }

    /// Sends one encoded `DebitRequest`; the answer is an encoded `DebitResponse`.
    pub(crate) async fn debit(self: &Arc<Lane>, debit: Bytes, until: Instant) -> Result<Bytes, Failure> {
        match self.start(&debit, until) {
            Start::Now(turn) => {
                let answer = self.call(Method::Debit, debit, until).await;
                drop(turn);
                answer
            }
            Start::Queued { number, mut answer } => match timeout(left(until), &mut answer).await {
                Ok(Ok(answer)) => answer?.response(),
                // The pump is gone: the runtime that it ran on ends.
                Ok(Err(_)) => Err(Failure::timed_out()),
                Err(_) => {
                    // Closed first: from now on it is not taken.
                    answer.close();
                    let was_taken = number < self.state().taken;
                    Err(if was_taken {
                        Failure::timed_out()
                    } else {
                        Failure::unsent(Origin::Waited, WAITED_IN_VAIN)
                    })
                }
            },
            Start::Full => Err(Failure::unsent(Origin::Own, "too many debits wait in this client")),
        }
    }

    fn start(self: &Arc<Lane>, debit: &Bytes, until: Instant) -> Start<'_> {
        let mut state = self.state();
        if state.queue.is_empty() && state.under_way < self.terms.batching.under_way_max {
            state.under_way += 1;
            return Start::Now(Turn(self));
        }
        if state.queue.len() >= self.terms.queue_max {
            state.drop_the_abandoned();
            if state.queue.len() >= self.terms.queue_max {
                return Start::Full;
            }
        }
        let number = state.queued;
        let (sender, answer) = oneshot::channel();
        state.queue.push_back(Waiting { debit: debit.clone(), since: Instant::now(), until, answer: sender });
        state.queued += 1;
        if !state.pumped {
            state.pumped = true;
            tokio::spawn(pump(Arc::downgrade(self), self.wake.clone()));
        }
        // With all turns taken the next one that ends sees to the queue.
        if state.under_way < self.terms.batching.under_way_max {
            self.wake.notify_one();
        }
        Start::Queued { number, answer }
    }

    /// The next batch, if there is a turn for it.
    fn next(&self) -> Step {
        let batching = self.terms.batching;
        let mut state = self.state();
        if state.under_way >= batching.under_way_max {
            return Step::Rest;
        }
        let Some(first) = state.queue.front() else { return Step::Rest };
        let lingers_until = first.since + batching.linger;
        if !batching.linger.is_zero()
            && state.queue.len() < batching.debits_max
            && Instant::now() < lingers_until
        {
            return Step::Linger(lingers_until);
        }
        let (mut batch, mut bytes) = (Vec::new(), 0);
        while let Some(first) = state.queue.front() {
            bytes += first.debit.len();
            if batch.len() == batching.debits_max || (bytes > BATCH_BYTES_MAX && !batch.is_empty()) {
                break;
            }
            let Some(waiting) = state.queue.pop_front() else { break };
            state.taken += 1;
            // Who has gone away does not want it sent.
            if !waiting.answer.is_closed() {
                batch.push(waiting);
            }
        }
        if batch.is_empty() {
            return Step::Rest;
        }
        state.under_way += 1;
        Step::Send(batch)
    }

    /// Sends a batch and hands out its results. The turn is taken already.
    async fn send(self: Arc<Lane>, mut batch: Vec<Waiting>) {
        let _turn = Turn(&self);
        let Some(until) = batch.iter().map(|waiting| waiting.until).max() else { return };
        if batch.len() == 1 {
            let Some(Waiting { debit, answer, .. }) = batch.pop() else { return };
            let response = self.call(Method::Debit, debit, until).await;
            let _ = answer.send(response.map(Answer::Response));
            return;
        }
        let debits: Vec<Bytes> = batch.iter().map(|waiting| waiting.debit.clone()).collect();
        let results = self.batch(Sort::Debits, &debits, until).await;
        match results {
            Ok(results) => batch.into_iter().zip(results).for_each(|(waiting, result)| {
                let _ = waiting.answer.send(Ok(Answer::Result(result)));
            }),
            Err(failure) => batch.into_iter().for_each(|waiting| {
                let _ = waiting.answer.send(Err(failure.clone()));
            }),
        }
    }

    /// One batch, now, whatever else is under way. The results are encoded `DebitResult`s, or
    /// `WriteResult`s, one for each write.
    pub(crate) async fn batch(
        &self,
        sort: Sort,
        writes: &[Bytes],
        until: Instant,
    ) -> Result<Vec<Bytes>, Failure> {
        let request = wire::batch(writes, self.terms.detail);
        tracing::trace!(address = %self.address, writes = writes.len(), "a batch goes out");
        let results = wire::results(self.call(sort.batch(), request, until).await?)?;
        if results.len() == writes.len() { Ok(results) } else { Err(Failure::undecodable()) }
    }

    async fn call(&self, method: Method, request: Bytes, until: Instant) -> Result<Bytes, Failure> {
        call(&*self.terms.carrier, &self.address, method, self.route, request, until).await
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Debits that nobody waits for any more leave the queue.
    fn drop_the_abandoned(&mut self) {
        while self.queue.front().is_some_and(|waiting| waiting.answer.is_closed()) {
            self.queue.pop_front();
            self.taken += 1;
        }
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        // The pump sees that the lane is gone, and ends.
        self.wake.notify_one();
    }
}

const WAITED_IN_VAIN: &str = "the deadline passed in the client's own queue";

/// Makes one call, within its time.
pub(crate) async fn call(
    carrier: &dyn Carrier,
    address: &str,
    method: Method,
    route: Route,
    request: Bytes,
    until: Instant,
) -> Result<Bytes, Failure> {
    let left = left(until);
    if left.is_zero() {
        return Err(Failure::unsent(Origin::Own, "the deadline had passed before anything was sent"));
    }
    // The carrier keeps the deadline itself; this is for one that does not.
    match timeout(left, carrier.call(address, method, route, request, left)).await {
        Ok(Ok(response)) => Ok(response),
        Ok(Err(status)) => Err(Failure::from_status(&status)),
        Err(_) => Err(Failure::timed_out()),
    }
}

pub(crate) fn left(until: Instant) -> Duration {
    until.saturating_duration_since(Instant::now())
}

/// Sends batches as turns come free, until the lane is gone.
async fn pump(lane: Weak<Lane>, wake: Arc<Notify>) {
    let mut under_way = FuturesUnordered::new();
    loop {
        let mut lingers_until = None;
        // Only while it works does it keep the lane: a client that is dropped takes its lanes along.
        let Some(working) = lane.upgrade() else { return };
        loop {
            match working.next() {
                Step::Send(batch) => under_way.push(working.clone().send(batch)),
                Step::Linger(until) => break lingers_until = Some(until),
                Step::Rest => break,
            }
        }
        drop(working);
        tokio::select! {
            biased;
            Some(()) = under_way.next(), if !under_way.is_empty() => {}
            () = wake.notified() => {}
            () = sleep_until(lingers_until.unwrap_or_else(Instant::now)), if lingers_until.is_some() => {}
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures_util::FutureExt;
    use futures_util::future::BoxFuture;
    use prost::Message;
    use purser_proto::v1;
    use tokio::sync::mpsc;
    use tonic::Status;

    use super::*;
    use crate::failure::Next;

    /// A call that reached the carrier, and waits to be answered.
    struct Sent {
        method: Method,
        customers: Vec<String>,
        answer: oneshot::Sender<Result<Bytes, Status>>,
    }

    impl Sent {
        /// Applies every debit; the amount of the response names the customer.
        fn apply(self) {
            let response =
                |customer: &String| v1::DebitResponse { amount: customer.clone(), ..Default::default() };
            let result = |customer| v1::DebitResult {
                outcome: Some(v1::debit_result::Outcome::Applied(response(customer))),
            };
            let bytes = match self.method {
                Method::Debit => response(&self.customers[0]).encode_to_vec(),
                _ => v1::DebitBatchResponse { results: self.customers.iter().map(result).collect() }
                    .encode_to_vec(),
            };
            let _ = self.answer.send(Ok(bytes.into()));
        }
    }

    struct Scripted {
        sent: mpsc::UnboundedSender<Sent>,
    }

    impl Carrier for Scripted {
        fn call(
            &self,
            _address: &str,
            method: Method,
            _route: Route,
            request: Bytes,
            _deadline: Duration,
        ) -> BoxFuture<'static, Result<Bytes, Status>> {
            let debits = match method {
                Method::Debit => vec![v1::DebitRequest::decode(request).expect("a debit")],
                _ => v1::DebitBatchRequest::decode(request).expect("a batch").debits,
            };
            let customers = debits.into_iter().map(|debit| debit.customer).collect();
            let (answer, answered) = oneshot::channel();
            self.sent.send(Sent { method, customers, answer }).expect("the test goes on");
            async move { answered.await.unwrap_or_else(|_| Err(Status::unavailable("cut off"))) }.boxed()
        }
    }

    fn terms(carrier: Arc<dyn Carrier>, batching: Batching, queue_max: usize) -> Arc<Terms> {
        Arc::new(Terms { carrier, batching, detail: ReceiptDetail::Full, queue_max })
    }

    /// A lane that is never used.
    pub(crate) fn unused(address: Arc<str>, route: Route) -> Arc<Lane> {
        let (sent, _) = mpsc::unbounded_channel();
        Lane::new(terms(Arc::new(Scripted { sent }), Batching::default(), 1), address, route)
    }

    fn lane(
        under_way_max: usize,
        debits_max: usize,
        queue_max: usize,
    ) -> (Arc<Lane>, mpsc::UnboundedReceiver<Sent>) {
        let (sent, seen) = mpsc::unbounded_channel();
        let batching = Batching { under_way_max, debits_max, ..Batching::default() };
        let terms = terms(Arc::new(Scripted { sent }), batching, queue_max);
        (Lane::new(terms, "a:1".into(), Route::Direct), seen)
    }

    fn encoded(customer: &str) -> Bytes {
        v1::DebitRequest { customer: customer.to_owned(), ..Default::default() }.encode_to_vec().into()
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(60)
    }

    /// A debit of a caller of its own; what it gets is the customer that was charged.
    fn caller(lane: &Arc<Lane>, customer: &str) -> tokio::task::JoinHandle<Result<String, Failure>> {
        let (lane, debit) = (lane.clone(), encoded(customer));
        tokio::spawn(async move {
            let response = lane.debit(debit, soon()).await?;
            Ok(v1::DebitResponse::decode(response).expect("a response").amount)
        })
    }

    /// Lets the other tasks run until something is so.
    async fn until(what: impl Fn() -> bool) {
        for _ in 0..1_000_000 {
            if what() {
                return;
            }
            tokio::task::yield_now().await;
        }
        panic!("it does not come true");
    }

    /// Waits until so many debits queue.
    async fn until_queued(lane: &Lane, count: usize) {
        until(|| lane.state().queue.len() == count).await;
    }

    #[tokio::test]
    async fn a_debit_that_finds_a_turn_free_goes_out_plain_and_at_once() {
        let (lane, mut seen) = lane(2, 10, 10);
        let (first, second) = (caller(&lane, "a"), caller(&lane, "b"));
        for _ in 0..2 {
            let sent = seen.recv().await.expect("a call");
            assert_eq!(sent.method, Method::Debit);
            sent.apply();
        }
        assert_eq!(first.await.expect("no panic").expect("applied"), "a");
        assert_eq!(second.await.expect("no panic").expect("applied"), "b");
        assert!(!lane.state().pumped, "no task was needed");
    }

    #[tokio::test]
    async fn while_one_call_is_under_way_the_next_batch_forms() {
        let (lane, mut seen) = lane(1, 3, 10);
        let mut callers = vec![caller(&lane, "first")];
        let first = seen.recv().await.expect("a call");
        for (queued, customer) in ["a", "b", "c", "d"].iter().enumerate() {
            callers.push(caller(&lane, customer));
            until_queued(&lane, queued + 1).await;
        }
        assert!(seen.try_recv().is_err(), "nothing goes out before the turn ends");
        first.apply();
        let batch = seen.recv().await.expect("a batch");
        assert_eq!(
            (batch.method, batch.customers.as_slice()),
            (Method::DebitBatch, ["a", "b", "c"].map(String::from).as_slice())
        );
        batch.apply();
        let last = seen.recv().await.expect("a call");
        assert_eq!((last.method, last.customers.as_slice()), (Method::Debit, ["d".to_owned()].as_slice()));
        last.apply();
        let mut charged = Vec::new();
        for caller in callers {
            charged.push(caller.await.expect("no panic").expect("applied"));
        }
        assert_eq!(charged, ["first", "a", "b", "c", "d"], "each caller got its own result");
    }

    #[tokio::test]
    async fn a_caller_that_goes_away_takes_nobody_elses_debit_along() {
        let (lane, mut seen) = lane(1, 10, 10);
        let first = caller(&lane, "first");
        let under_way = seen.recv().await.expect("a call");
        let (stays, goes) = (caller(&lane, "stays"), caller(&lane, "goes"));
        until_queued(&lane, 2).await;
        let also = caller(&lane, "also");
        until_queued(&lane, 3).await;
        goes.abort();
        assert!(goes.await.expect_err("aborted").is_cancelled());
        under_way.apply();
        let batch = seen.recv().await.expect("a batch");
        assert_eq!(batch.customers, ["stays", "also"], "what nobody waits for is not sent");
        batch.apply();
        for (caller, customer) in [(first, "first"), (stays, "stays"), (also, "also")] {
            assert_eq!(caller.await.expect("no panic").expect("applied"), customer);
        }
    }

    #[tokio::test]
    async fn a_caller_that_goes_away_with_its_call_under_way_gives_its_turn_back() {
        let (lane, mut seen) = lane(1, 10, 10);
        let goes = caller(&lane, "goes");
        let under_way = seen.recv().await.expect("a call");
        let next = caller(&lane, "next");
        until_queued(&lane, 1).await;
        goes.abort();
        seen.recv().await.expect("the next call").apply();
        assert_eq!(next.await.expect("no panic").expect("applied"), "next");
        drop(under_way);
    }

    #[tokio::test]
    async fn over_the_bound_of_the_queue_a_caller_gets_an_error_at_once() {
        let (lane, mut seen) = lane(1, 10, 1);
        let first = caller(&lane, "first");
        let under_way = seen.recv().await.expect("a call");
        let queued = caller(&lane, "queued");
        until_queued(&lane, 1).await;
        let failure = lane.debit(encoded("refused"), soon()).await.expect_err("full");
        assert_eq!((failure.origin, failure.judge().0), (Origin::Own, Next::Tell));
        queued.abort();
        let _ = queued.await;
        let fits = caller(&lane, "fits");
        until(|| lane.state().queued == 2).await;
        under_way.apply();
        seen.recv().await.expect("a call").apply();
        assert_eq!(first.await.expect("no panic").expect("applied"), "first");
        assert_eq!(fits.await.expect("no panic").expect("applied"), "fits", "who is gone takes no room");
    }

    #[tokio::test]
    async fn a_deadline_that_passes_in_the_queue_is_known_to_have_sent_nothing() {
        let (lane, mut seen) = lane(1, 10, 10);
        let first = caller(&lane, "first");
        let under_way = seen.recv().await.expect("a call");
        let failure = lane.debit(encoded("late"), Instant::now()).await.expect_err("too late");
        assert_eq!(failure.origin, Origin::Waited);
        under_way.apply();
        assert_eq!(first.await.expect("no panic").expect("applied"), "first");
        let after = caller(&lane, "after");
        let sent = seen.recv().await.expect("a call");
        assert_eq!(sent.customers, ["after"]);
        sent.apply();
        after.await.expect("no panic").expect("applied");
    }

    #[tokio::test]
    async fn a_batch_that_fails_fails_for_all_of_its_callers() {
        let (lane, mut seen) = lane(1, 10, 10);
        let _first = caller(&lane, "first");
        let under_way = seen.recv().await.expect("a call");
        let callers = [caller(&lane, "a"), caller(&lane, "b")];
        until_queued(&lane, 2).await;
        under_way.apply();
        let batch = seen.recv().await.expect("a batch");
        let _ = batch.answer.send(Err(Status::unavailable("reset")));
        for caller in callers {
            assert_eq!(caller.await.expect("no panic").expect_err("failed").origin, Origin::Lost);
        }
    }

    #[tokio::test]
    async fn a_batch_stays_below_the_bytes_that_a_node_takes() {
        let (lane, mut seen) = lane(1, 10, 10);
        let _first = caller(&lane, "first");
        let under_way = seen.recv().await.expect("a call");
        let large = "x".repeat(BATCH_BYTES_MAX / 2);
        let callers: Vec<_> = (0..3).map(|_| caller(&lane, &large)).collect();
        until_queued(&lane, 3).await;
        under_way.apply();
        for _ in &callers {
            let sent = seen.recv().await.expect("a call");
            assert_eq!(sent.method, Method::Debit, "two of them are too large for one batch");
            sent.apply();
        }
        for caller in callers {
            caller.await.expect("no panic").expect("applied");
        }
    }

    #[tokio::test]
    async fn a_dropped_lane_ends_its_pump() {
        struct Counted(Arc<AtomicUsize>, Scripted);
        impl Drop for Counted {
            fn drop(&mut self) {
                self.0.fetch_add(1, Ordering::SeqCst);
            }
        }
        impl Carrier for Counted {
            fn call(
                &self,
                address: &str,
                method: Method,
                route: Route,
                request: Bytes,
                deadline: Duration,
            ) -> BoxFuture<'static, Result<Bytes, Status>> {
                self.1.call(address, method, route, request, deadline)
            }
        }
        let dropped = Arc::new(AtomicUsize::new(0));
        let (sent, mut seen) = mpsc::unbounded_channel();
        let carrier = Arc::new(Counted(dropped.clone(), Scripted { sent }));
        let batching = Batching { under_way_max: 1, ..Batching::default() };
        let lane = Lane::new(terms(carrier, batching, 10), "a:1".into(), Route::Any);
        let first = caller(&lane, "first");
        let under_way = seen.recv().await.expect("a call");
        let second = caller(&lane, "second");
        until_queued(&lane, 1).await;
        drop(lane);
        under_way.apply();
        seen.recv().await.expect("a call").apply();
        first.await.expect("no panic").expect("applied");
        second.await.expect("no panic").expect("applied");
        until(|| dropped.load(Ordering::SeqCst) == 1).await;
    }

    #[tokio::test]
    async fn with_a_linger_a_queue_waits_for_company_but_not_when_the_batch_is_full() {
        let (sent, mut seen) = mpsc::unbounded_channel();
        let linger = Duration::from_secs(3_600);
        let batching = Batching { under_way_max: 1, debits_max: 2, linger };
        let lane = Lane::new(terms(Arc::new(Scripted { sent }), batching, 10), "a:1".into(), Route::Any);
        let first = caller(&lane, "first");
        let under_way = seen.recv().await.expect("a call");
        let second = caller(&lane, "second");
        until_queued(&lane, 1).await;
        under_way.apply();
        first.await.expect("no panic").expect("applied");
        assert!(matches!(lane.next(), Step::Linger(_)));
        let third = caller(&lane, "third");
        let batch = seen.recv().await.expect("a batch");
        assert_eq!(batch.customers, ["second", "third"]);
        batch.apply();
        second.await.expect("no panic").expect("applied");
        third.await.expect("no panic").expect("applied");
    }
}
