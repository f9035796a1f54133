//! A caller that goes through the client library, as a gateway does. What the library sends is kept
//! like what other callers send; what it tells the gateway is kept beside it.

use std::mem::discriminant;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::{self, FuturesUnordered};
use futures_util::{FutureExt, StreamExt};
use prost::Message;
use purser_client::{Carrier, Denial, Method, Opening, Outcome, PurserClient, Route, Write};
use purser_node::api::forward::response_in;
use purser_node::cluster::NodeId;
use purser_node::peer::{CallError, Transport};
use purser_node::simulation::mark;
use purser_proto::v1;
use tokio::sync::mpsc;
use tonic::Status;

use crate::call::{Request, Response, for_each_call};
use crate::front;
use crate::network::Line;
use crate::observed::{Answered, Attempt, Told, Verdict};
use crate::streams::{Piece, Sort};
use crate::timeline::{Place, Tone};
use crate::trace::now;
use crate::workload::Callers;

/// How long a request on a stream waits before the stream counts as broken.
const STREAM_PATIENCE: Duration = Duration::from_secs(5);
/// Answers of a stream that wait for the library.
const UNDER_WAY_MAX: usize = 1_024;

/// A gateway.
pub struct Gateway {
    client: PurserClient,
    number: u64,
    callers: Arc<Callers>,
}

impl Gateway {
    /// A gateway on a line; to be made on the node that it lives on.
    pub fn new(number: u64, seed: u64, callers: Arc<Callers>, line: Arc<Line>) -> Gateway {
        let carrier = Wire { line, number, callers: Arc::clone(&callers) };
        let client = PurserClient::builder(callers.node_names())
            .carrier(Arc::new(carrier))
            .seed(seed)
            .build()
            .expect("there are nodes to ask");
        Gateway { client, number, callers }
    }

    fn read(&self, denied: Option<Denial>) -> Option<Request> {
        // The answers themselves are kept where they come from the wire.
        if let Some(denial) = denied {
            let (caller, trace) = (Place::Caller(self.number), &self.callers.setting.trace);
            trace.tell(caller, Tone::Bad, format_args!("is denied a read: {denial}"));
        }
        None
    }

    fn told<R>(&self, outcome: Outcome<R>, asked: R) -> Option<Request>
    where
        R: Write,
        Request: From<R>,
        Response: From<R::Response>,
    {
        let (request, verdict, unknown) = match outcome {
            Outcome::Applied(response) => (asked.into(), Verdict::Applied(Box::new(response.into())), None),
            Outcome::Denied(denial) => (asked.into(), Verdict::Denied(denial.to_string()), None),
            Outcome::Unknown(unknown) => {
                let sent = Request::from(unknown.request);
                (sent.clone(), Verdict::Unknown, Some(sent))
            }
        };
        self.callers.told(Told { client: self.number, request, verdict });
        unknown
    }
}

macro_rules! asking {
    (
        writes { $($write:ident = $write_name:ident($write_request:ident) -> $write_response:ident;)+ }
        reads { $($read:ident = $read_name:ident($read_request:ident) -> $read_response:ident;)+ }
    ) => {
        impl Gateway {
            /// Asks, and keeps what it is told. Returns a write whose outcome is unknown, as it was sent:
            /// it can be resolved.
            pub async fn ask(&self, request: &Request) -> Option<Request> {
                match request.clone() {
                    $(Request::$write(own) => {
                        self.told(self.client.$write_name(own.clone()).await, own)
                    })+
                    $(Request::$read(own) => self.read(self.client.$read_name(own).await.err()),)+
                }
            }

            /// Asks what became of a write. Returns it if that is still unknown.
            pub async fn resolve(&self, request: &Request) -> Option<Request> {
                match request.clone() {
                    $(Request::$write(own) => self.told(self.client.resolve(own.clone()).await, own),)+
                    $(Request::$read(_) => None,)+
                }
            }
        }
    };
}

for_each_call!(asking);

impl Gateway {
    /// Asks for several writes in one call, and keeps what it is told of each. Returns those whose outcome
    /// is unknown, as they were sent.
    pub async fn ask_together(&self, writes: Vec<v1::WriteRequest>) -> Vec<Request> {
        let outcomes = self.client.write_batch(writes.clone()).await;
        writes.into_iter().zip(outcomes).filter_map(|(own, outcome)| self.told(outcome, own)).collect()
    }

    /// The same on a stream: of debits, where there are no others.
    pub async fn ask_on_a_stream(&self, writes: Vec<v1::WriteRequest>) -> Vec<Request> {
        let debit = |own: &v1::WriteRequest| match &own.write {
            Some(v1::write_request::Write::Debit(debit)) => Some(debit.clone()),
            _ => None,
        };
        let debits: Option<Vec<v1::DebitRequest>> = writes.iter().map(debit).collect();
        let Some(debits) = debits else {
            let outcomes: Vec<_> = self.client.write_stream(stream::iter(writes.clone())).collect().await;
            return writes
                .into_iter()
                .zip(outcomes)
                .filter_map(|(own, outcome)| self.told(outcome, own))
                .collect();
        };
        let outcomes: Vec<_> = self.client.debit_stream(stream::iter(debits.clone())).collect().await;
        debits.into_iter().zip(outcomes).filter_map(|(own, outcome)| self.told(outcome, own)).collect()
    }
}

/// The library's way to the network. Keeps every attempt, each write of a batch by itself.
struct Wire {
    line: Arc<Line>,
    number: u64,
    callers: Arc<Callers>,
}

impl Carrier for Wire {
    fn call(
        &self,
        address: &str,
        method: Method,
        route: Route,
        request: Bytes,
        deadline: Duration,
    ) -> BoxFuture<'static, Result<Bytes, Status>> {
        let Some(node) = self.callers.node_named(address) else {
            let status = purser_client::not_sent(format!("there is no {address}"));
            return std::future::ready(Err(status)).boxed();
        };
        let mut kept = Kept {
            callers: Arc::clone(&self.callers),
            client: self.number,
            begun: now(),
            requests: requests_in(method, &request),
        };
        let name = method.name();
        let call = [&[name.len() as u8], name.as_bytes(), &request].concat();
        let any_for = (route == Route::Any).then_some(deadline);
        let answer = self.line.call(node, front::message(any_for, &call), deadline);
        async move {
            let answer = match answer.await {
                Ok(bytes) => response_in(&bytes),
                Err(CallError::TimedOut(_)) => Err(Status::deadline_exceeded("no answer in time")),
                Err(error) => Err(Status::unavailable(error.to_string())),
            };
            kept.note(method, &answer);
            answer
        }
        .boxed()
    }

    fn open(&self, address: &str, method: Method, requests: mpsc::Receiver<Bytes>) -> Opening {
        let Some(node) = self.callers.node_named(address) else {
            let status = purser_client::not_sent(format!("there is no {address}"));
            return std::future::ready(Err(status)).boxed();
        };
        let (answers, mut told) = mpsc::channel(UNDER_WAY_MAX);
        let sort = if method == Method::DebitStream { Sort::Debits } else { Sort::Mixed };
        let streaming = Streaming {
            line: Arc::clone(&self.line),
            callers: Arc::clone(&self.callers),
            client: self.number,
            node,
            method,
            next: Piece { stream: self.callers.next_stream(), place: 0, sort, request: Bytes::new() },
        };
        tokio::spawn(streaming.run(requests, answers));
        let answers = stream::poll_fn(move |context| told.poll_recv(context)).boxed();
        std::future::ready(Ok(answers)).boxed()
    }
}

/// A stream that the library has open. Keeps every attempt.
struct Streaming {
    line: Arc<Line>,
    callers: Arc<Callers>,
    client: u64,
    node: NodeId,
    method: Method,
    /// The next piece, but for its request.
    next: Piece,
}

impl Streaming {
    /// Requests out, answers in, until there are no more and all are answered, or one call fails.
    async fn run(
        mut self,
        mut requests: mpsc::Receiver<Bytes>,
        answers: mpsc::Sender<Result<Bytes, Status>>,
    ) {
        let mut calls = FuturesUnordered::new();
        let mut open = true;
        while open || !calls.is_empty() {
            tokio::select! {
                biased;
                Some(answer) = calls.next(), if !calls.is_empty() => {
                    let broken = Result::is_err(&answer);
                    if answers.send(answer).await.is_err() || broken {
                        return;
                    }
                }
                request = requests.recv(), if open => {
                    open = request.is_some();
                    let call = self.send(request.unwrap_or_default());
                    match open {
                        true => calls.push(call),
                        // The end has no answer.
                        false => drop(tokio::spawn(call)),
                    }
                }
            }
        }
    }

    fn send(&mut self, request: Bytes) -> BoxFuture<'static, Result<Bytes, Status>> {
        let piece = Piece { request: request.clone(), ..self.next.clone() };
        self.next.place += 1;
        let (method, begun) = (self.method, now());
        let requests = requests_in(method, &request);
        let mut kept = Kept { callers: Arc::clone(&self.callers), client: self.client, begun, requests };
        let answer = self.line.call(self.node, front::streamed(&piece), STREAM_PATIENCE);
        async move {
            let answer = answer.await.map_err(|error| Status::unavailable(error.to_string()));
            if answer.is_ok() && !kept.requests.is_empty() {
                mark("stream: answered");
            }
            kept.note(method, &answer);
            answer
        }
        .boxed()
    }
}

fn requests_in(method: Method, request: &Bytes) -> Vec<Request> {
    match method {
        Method::DebitBatch => {
            let batch = v1::DebitBatchRequest::decode(request.clone()).expect("the library's own bytes");
            if batch.debits.len() > 1 {
                mark("batch: several debits");
            }
            batch.debits.into_iter().map(Request::Debit).collect()
        }
        Method::WriteBatch => {
            let batch = v1::WriteBatchRequest::decode(request.clone()).expect("the library's own bytes");
            let requests: Vec<Request> = batch.writes.into_iter().map(Request::from).collect();
            if requests.windows(2).any(|two| discriminant(&two[0]) != discriminant(&two[1])) {
                mark("batch: several sorts");
            }
            requests
        }
        Method::DebitStream => {
            let piece = v1::DebitStreamRequest::decode(request.clone()).expect("the library's own bytes");
            piece.debit.into_iter().map(Request::Debit).collect()
        }
        Method::WriteStream => {
            let piece = v1::WriteStreamRequest::decode(request.clone()).expect("the library's own bytes");
            piece.write.into_iter().map(Request::from).collect()
        }
        _ => Request::decode(method.name(), request).into_iter().collect(),
    }
}

/// The results of a batch, each in its place, or the one of a request on a stream.
fn results_in(method: Method, answer: &Bytes) -> Option<std::vec::IntoIter<Answered>> {
    let results: Vec<Answered> = match method {
        Method::DebitBatch => {
            let batch = v1::DebitBatchResponse::decode(answer.clone()).expect("the node's own bytes");
            batch.results.into_iter().map(Answered::of_debit).collect()
        }
        Method::WriteBatch => {
            let batch = v1::WriteBatchResponse::decode(answer.clone()).expect("the node's own bytes");
            batch.results.into_iter().map(Answered::of_write).collect()
        }
        Method::DebitStream => {
            let piece = v1::DebitStreamResponse::decode(answer.clone()).expect("the node's own bytes");
            piece.result.into_iter().map(Answered::of_debit).collect()
        }
        Method::WriteStream => {
            let piece = v1::WriteStreamResponse::decode(answer.clone()).expect("the node's own bytes");
            piece.result.into_iter().map(Answered::of_write).collect()
        }
        _ => return None,
    };
    Some(results.into_iter())
}

/// Requests under way. Those that the library gives up stay unknown.
struct Kept {
    callers: Arc<Callers>,
    client: u64,
    begun: Duration,
    requests: Vec<Request>,
}

impl Kept {
    fn note(&mut self, method: Method, answer: &Result<Bytes, Status>) {
        let requests = std::mem::take(&mut self.requests);
        let mut results = answer.as_ref().ok().and_then(|bytes| results_in(method, bytes));
        for request in requests {
            let answer = match (&mut results, answer) {
                (Some(results), _) => {
                    results.next().unwrap_or_else(|| Answered::Unknown("no result".to_owned()))
                }
                (None, Ok(bytes)) => Answered::of(request.decode_response(bytes)),
                (None, Err(status)) => Answered::of(Err(status.clone())),
            };
            self.keep(request, answer);
        }
    }

    fn keep(&self, request: Request, answer: Answered) {
        let applied_by_then = self.callers.applied_by_now(&request);
        let attempt = Attempt {
            client: self.client,
            request,
            begun: self.begun,
            ended: now(),
            answer,
            applied_by_then,
        };
        self.callers.note(attempt);
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        for request in std::mem::take(&mut self.requests) {
            self.keep(request, Answered::Unknown("given up".to_owned()));
        }
    }
}
