//! What a batch or a stream carries: whose it is, the command that it comes to, the result of what came
//! of it.

use prost::Message;
use purser_ledger::command::Command;
use purser_ledger::time::Time;
use purser_proto::v1;
use tonic::Status;
use tonic_types::StatusExt;

use super::commands::{self, Shaped};
use super::methods::AboutCustomer;
use super::{Api, Written};

/// A write that is sent with others, in a batch or on a stream.
pub(super) trait Batched: AboutCustomer + Message + Clone + Sized + 'static {
    /// What came of one.
    type Result: Message + Default + Clone + 'static;
    /// Many of them in one call.
    type Batch: Message;
    /// What came of these.
    type Results: Message + Default;
    /// One of them on a stream.
    type Asked: Send + 'static;
    /// What came of that.
    type Answer: Send + 'static;
    /// The method that takes a batch, among nodes.
    const BATCH: &'static str;
    /// What they are called in a batch.
    const MANY: &'static str;
    /// What one is called on a stream.
    const ONE: &'static str;

    /// The command, if it is well formed.
    fn command(&self, now: Time) -> Shaped<Command<'_>>;
    /// The result where the command was applied.
    fn applied(
        api: &Api,
        command: &Command<'_>,
        written: &Written,
        detail: v1::ReceiptDetail,
    ) -> Result<Self::Result, Status>;
    /// The result where it was not.
    fn refused(refusal: v1::Refusal) -> Self::Result;
    /// Why it was not, if so.
    fn refusal(result: &Self::Result) -> Option<&v1::Refusal>;
    /// Puts a batch together.
    fn batch(writes: Vec<Self>, detail: v1::ReceiptDetail) -> Self::Batch;
    /// Takes its answer apart.
    fn results(results: Self::Results) -> Vec<Self::Result>;
    /// Takes what came on a stream apart: its number, and the write, if there is one in it.
    fn asked(asked: Self::Asked) -> (u64, Option<OnStream<Self>>);
    /// Puts an answer on a stream together.
    fn answer(sequence: u64, result: Self::Result) -> Self::Answer;
}

/// A write that came on a stream.
pub(super) struct OnStream<W> {
    /// The caller's number for it.
    pub sequence: u64,
    pub write: W,
    pub detail: v1::ReceiptDetail,
}

/// What a single call answers with this status, as a result: with the same reason and metadata.
pub(super) fn refused<W: Batched>(status: &Status) -> W::Result {
    let (reason, metadata) = match status.get_details_error_info() {
        Some(info) => (info.reason, info.metadata.into_iter().collect()),
        None => ("INTERNAL".to_owned(), Default::default()),
    };
    W::refused(v1::Refusal { reason, message: status.message().to_owned(), metadata })
}

impl Batched for v1::DebitRequest {
    type Result = v1::DebitResult;
    type Batch = v1::DebitBatchRequest;
    type Results = v1::DebitBatchResponse;
    type Asked = v1::DebitStreamRequest;
    type Answer = v1::DebitStreamResponse;
    const BATCH: &'static str = "debit_batch";
    const MANY: &'static str = "debits";
    const ONE: &'static str = "debit";

    fn command(&self, now: Time) -> Shaped<Command<'_>> {
        commands::debit(self, now)
    }

    fn applied(
        _: &Api,
        _: &Command<'_>,
        written: &Written,
        detail: v1::ReceiptDetail,
    ) -> Result<v1::DebitResult, Status> {
        let outcome = v1::debit_result::Outcome::Applied(written.debited(detail));
        Ok(v1::DebitResult { outcome: Some(outcome) })
    }

    fn refused(refusal: v1::Refusal) -> v1::DebitResult {
        v1::DebitResult { outcome: Some(v1::debit_result::Outcome::Refused(refusal)) }
    }

    fn refusal(result: &v1::DebitResult) -> Option<&v1::Refusal> {
        match &result.outcome {
            Some(v1::debit_result::Outcome::Refused(refusal)) => Some(refusal),
            _ => None,
        }
    }

    fn batch(debits: Vec<v1::DebitRequest>, detail: v1::ReceiptDetail) -> v1::DebitBatchRequest {
        v1::DebitBatchRequest { debits, detail: detail.into() }
    }

    fn results(answer: v1::DebitBatchResponse) -> Vec<v1::DebitResult> {
        answer.results
    }

    fn asked(asked: v1::DebitStreamRequest) -> (u64, Option<OnStream<v1::DebitRequest>>) {
        let (sequence, detail) = (asked.sequence, asked.detail());
        (sequence, asked.debit.map(|write| OnStream { sequence, write, detail }))
    }

    fn answer(sequence: u64, result: v1::DebitResult) -> v1::DebitStreamResponse {
        v1::DebitStreamResponse { sequence, result: Some(result) }
    }
}
