//! Batches as the load sends them: split by the leaders of their shards, tried again until each write has an
//! outcome.

use std::sync::atomic::Ordering;

use anyhow::Context;
use purser_proto::v1;
use purser_proto::v1::ledger_client::LedgerClient;
use purser_proto::v1::write_request::Write;
use purser_proto::v1::write_result::Outcome;
use tonic::Status;
use tonic::transport::Channel;

use super::gateway::{Gateway, TRIES_MAX, hold_requests_of, is_short, leader_of, may_be_tried_again};
use super::target::{Debit, Verdict};

/// A write that goes in batches.
pub trait Batched: Clone {
    /// What may come of it.
    type Verdict: Clone;

    /// Whose wallet it is for.
    fn customer(&self) -> &str;

    /// Sends some in one call; for each what came of it, or nothing where it may be tried again.
    fn send(
        ledger: LedgerClient<Channel>,
        writes: Vec<Self>,
        detail: v1::ReceiptDetail,
    ) -> impl Future<Output = Result<Verdicts<Self::Verdict>, Status>>;
}

/// One for each write, in their order.
type Verdicts<V> = Vec<anyhow::Result<Option<V>>>;

impl Batched for v1::DebitRequest {
    type Verdict = Verdict;

    fn customer(&self) -> &str {
        &self.customer
    }

    async fn send(
        mut ledger: LedgerClient<Channel>,
        debits: Vec<Self>,
        detail: v1::ReceiptDetail,
    ) -> Result<Verdicts<Verdict>, Status> {
        let request = v1::DebitBatchRequest { debits, detail: detail.into() };
        let results = ledger.debit_batch(request).await?.into_inner().results;
        Ok(results.into_iter().map(verdict).collect())
    }
}

/// What came of a hold or a capture.
#[derive(Clone)]
pub enum Written {
    /// A hold was placed: its id.
    Held(String),
    /// A hold was captured.
    Captured,
    /// There was too little.
    Short,
}

impl Batched for v1::WriteRequest {
    type Verdict = Written;

    fn customer(&self) -> &str {
        match &self.write {
            Some(Write::Hold(hold)) => &hold.customer,
            Some(Write::Capture(capture)) => &capture.customer,
            _ => "",
        }
    }

    async fn send(
        mut ledger: LedgerClient<Channel>,
        writes: Vec<Self>,
        detail: v1::ReceiptDetail,
    ) -> Result<Verdicts<Written>, Status> {
        let request = v1::WriteBatchRequest { writes, detail: detail.into() };
        let results = ledger.write_batch(request).await?.into_inner().results;
        Ok(results.into_iter().map(written).collect())
    }
}

impl Gateway {
    /// Sends writes until each has an outcome: one call to each leader, and again what may be tried again.
    pub async fn batch<W: Batched>(&self, writes: Vec<W>) -> anyhow::Result<Vec<W::Verdict>> {
        let mut verdicts = vec![None; writes.len()];
        let mut open: Vec<usize> = (0..writes.len()).collect();
        for _ in 0..TRIES_MAX {
            let calls = self.by_node(&open, &writes).into_iter().map(|places| self.part(places, &writes));
            for part in futures_util::future::join_all(calls).await {
                for (place, verdict) in part? {
                    verdicts[place] = verdict;
                }
            }
            open.retain(|place| verdicts[*place].is_none());
            if open.is_empty() {
                return Ok(verdicts.into_iter().flatten().collect());
            }
            self.shared.retries.fetch_add(open.len() as u64, Ordering::Relaxed);
            self.pause().await;
        }
        anyhow::bail!("{} writes of a batch have no outcome after {TRIES_MAX} tries", open.len())
    }

    /// The holds of all in one batch, then their captures in another one.
    pub async fn hold_and_capture_all(&self, debits: Vec<Debit>) -> anyhow::Result<Vec<Verdict>> {
        let write = |write| v1::WriteRequest { write: Some(write) };
        let (holds, captures): (Vec<_>, Vec<_>) = debits.into_iter().map(hold_requests_of).unzip();
        let held = self.batch(holds.into_iter().map(Write::Hold).map(write).collect()).await?;
        let mut verdicts = Vec::with_capacity(held.len());
        let mut placed = Vec::with_capacity(held.len());
        for (capture, held) in captures.into_iter().zip(held) {
            match held {
                Written::Held(hold_id) => {
                    placed.push(write(Write::Capture(v1::CaptureRequest { hold_id, ..capture })));
                    verdicts.push(Verdict::Applied);
                }
                Written::Short => verdicts.push(Verdict::Short),
                Written::Captured => anyhow::bail!("a hold is answered as a capture"),
            }
        }
        if !placed.is_empty() {
            let captured = self.batch(placed).await?;
            anyhow::ensure!(
                captured.iter().all(|own| matches!(own, Written::Captured)),
                "a hold was not captured"
            );
        }
        Ok(verdicts)
    }

    /// The places of open writes, one list for each node that leads some.
    fn by_node<W: Batched>(&self, open: &[usize], writes: &[W]) -> Vec<Vec<usize>> {
        let leaders = self.leaders();
        let mut parts = vec![Vec::new(); self.servers()];
        for &place in open {
            parts[leader_of(&leaders, writes[place].customer())].push(place);
        }
        parts.retain(|part| !part.is_empty());
        parts
    }

    /// Sends the writes of one node; those without a final verdict have none yet.
    async fn part<W: Batched>(
        &self,
        places: Vec<usize>,
        writes: &[W],
    ) -> anyhow::Result<Vec<(usize, Option<W::Verdict>)>> {
        let Some(first) = places.first() else { return Ok(Vec::new()) };
        let part = places.iter().map(|place| writes[*place].clone()).collect();
        let verdicts = match W::send(self.ledger(writes[*first].customer()), part, self.detail()).await {
            Ok(verdicts) => verdicts,
            Err(status) if may_be_tried_again(&status) => {
                return Ok(places.into_iter().map(|place| (place, None)).collect());
            }
            Err(status) => return Err(status.into()),
        };
        anyhow::ensure!(verdicts.len() == places.len(), "as many results as writes");
        places.into_iter().zip(verdicts).map(|(place, verdict)| Ok((place, verdict?))).collect()
    }
}

/// The verdict of a debit's result; `None` where it may be tried again.
pub fn verdict(result: v1::DebitResult) -> anyhow::Result<Option<Verdict>> {
    match result.outcome.context("a result has an outcome")? {
        v1::debit_result::Outcome::Applied(_) => Ok(Some(Verdict::Applied)),
        v1::debit_result::Outcome::Refused(refusal) => refused(&refusal, Verdict::Short),
    }
}

fn written(result: v1::WriteResult) -> anyhow::Result<Option<Written>> {
    match result.outcome.context("a result has an outcome")? {
        Outcome::Held(held) => Ok(Some(Written::Held(held.hold.context("a hold has a state")?.hold_id))),
        Outcome::Captured(_) => Ok(Some(Written::Captured)),
        Outcome::Refused(refusal) => refused(&refusal, Written::Short),
        other => anyhow::bail!("a hold or a capture is answered with {other:?}"),
    }
}

fn refused<V>(refusal: &v1::Refusal, short: V) -> anyhow::Result<Option<V>> {
    match refusal.reason.as_str() {
        reason if is_short(reason) => Ok(Some(short)),
        "UNAVAILABLE" | "NOT_LEADER" => Ok(None),
        reason => anyhow::bail!("a write was refused: {reason}: {}", refusal.message),
    }
}
