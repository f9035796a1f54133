//! Debits over the `DebitStream` RPC: so many bidirectional streams, on each of which many debits are
//! under way.
//!
//! ```text
//!   client 0..window ─┐            ┌─ requests ──> node
//!                     ├─ stream 0 ─┤
//!   client ..  ───────┘            └─ results <── by their number ── waiting clients
//! ```
//! Each stream goes to one node. A debit goes out on a stream to the leader of its shard, as a caller
//! that knows the shard map sends it. What a stream leaves open (it breaks, or the node refuses for now)
//! is asked again by single calls under the same key.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context;
use purser_proto::v1;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;

use super::batches::verdict;
use super::gateway::{Gateway, request_of};
use super::target::{Debit, LogCounts, Target, Verdict};

/// Debits on their way into one stream; over it clients wait.
const REQUESTS_WAITING_MAX: usize = 1_024;

/// Streams to the servers; all but debits goes by plain calls.
#[derive(Clone)]
pub struct Streams {
    gateway: Gateway,
    /// For each server its streams.
    pipes: Arc<[Vec<Pipe>]>,
    number: usize,
}

struct Pipe {
    requests: mpsc::Sender<v1::DebitStreamRequest>,
    waiting: Waiting,
    next: AtomicU64,
}

/// Who waits for the result of which number; `None` once the stream has ended.
type Waiting = Arc<Mutex<Option<HashMap<u64, oneshot::Sender<v1::DebitResult>>>>>;

impl Streams {
    /// Opens so many streams, spread over the servers.
    pub async fn open(gateway: &Gateway, streams: usize) -> anyhow::Result<Streams> {
        let mut pipes: Vec<Vec<Pipe>> = (0..gateway.servers()).map(|_| Vec::new()).collect();
        for (number, server) in (0..gateway.servers()).cycle().take(streams).enumerate() {
            pipes[server].push(Pipe::open(gateway, server, number).await?);
        }
        Ok(Streams { gateway: gateway.clone(), pipes: pipes.into(), number: 0 })
    }

    /// A stream to the leader of a customer's shard; where there is none, any, and its node hands the
    /// debit on.
    fn pipe(&self, customer: &str) -> anyhow::Result<&Pipe> {
        let own = &self.pipes[self.gateway.leader(customer)];
        let mut others = self.pipes.iter().filter(|pipes| !pipes.is_empty());
        let pipes = if own.is_empty() { others.next().context("no stream is open")? } else { own };
        Ok(&pipes[self.number % pipes.len()])
    }
}

impl Pipe {
    async fn open(gateway: &Gateway, server: usize, number: usize) -> anyhow::Result<Pipe> {
        let (requests, outbound) = mpsc::channel(REQUESTS_WAITING_MAX);
        let mut results = gateway.debit_stream(server, number, ReceiverStream::new(outbound)).await?;
        let waiting: Waiting = Arc::new(Mutex::new(Some(HashMap::new())));
        let told = waiting.clone();
        tokio::spawn(async move {
            while let Ok(Some(v1::DebitStreamResponse { sequence, result })) = results.message().await {
                let mut waiting = told.lock().unwrap_or_else(PoisonError::into_inner);
                let asked = waiting.as_mut().and_then(|waiting| waiting.remove(&sequence));
                if let Some((asked, result)) = asked.zip(result) {
                    // Nobody waits any more after an error.
                    let _ = asked.send(result);
                }
            }
            // Whoever waits learns that there will be no result.
            *told.lock().unwrap_or_else(PoisonError::into_inner) = None;
        });
        Ok(Pipe { requests, waiting, next: AtomicU64::new(0) })
    }

    /// The result of a debit; `None` if the stream ends before.
    async fn debit(&self, debit: v1::DebitRequest, detail: v1::ReceiptDetail) -> Option<v1::DebitResult> {
        let sequence = self.next.fetch_add(1, Ordering::Relaxed);
        let (asked, result) = oneshot::channel();
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).as_mut()?.insert(sequence, asked);
        let request = v1::DebitStreamRequest { sequence, debit: Some(debit), detail: detail.into() };
        self.requests.send(request).await.ok()?;
        result.await.ok()
    }
}

impl Target for Streams {
    fn client(&self, number: usize) -> Streams {
        Streams { gateway: self.gateway.client(number), pipes: self.pipes.clone(), number }
    }

    async fn create(&self, customer: &str, key: String) -> anyhow::Result<()> {
        self.gateway.create(customer, key).await
    }

    async fn grant(&self, customer: &str, key: String, tranche_credits: u64) -> anyhow::Result<()> {
        self.gateway.grant(customer, key, tranche_credits).await
    }

    async fn debit(&self, debit: Debit) -> anyhow::Result<Verdict> {
        let request = request_of(debit.clone());
        let result = self.pipe(&debit.customer)?.debit(request, self.gateway.detail()).await;
        match result.map(verdict).transpose()?.flatten() {
            Some(verdict) => Ok(verdict),
            None => self.gateway.debit_again(debit).await,
        }
    }

    async fn debit_batch(&self, debits: Vec<Debit>) -> anyhow::Result<Vec<Verdict>> {
        self.gateway.debit_batch(debits).await
    }

    async fn available(&self, customer: &str) -> anyhow::Result<u64> {
        self.gateway.available(customer).await
    }

    fn retries(&self) -> u64 {
        self.gateway.retries()
    }

    async fn log(&self) -> anyhow::Result<Option<LogCounts>> {
        self.gateway.log().await
    }
}
