//! What a batch or a stream carries: whose it is, the command that it comes to, the result of what came
//! of it.

use prost::Message;
use purser_ledger::command::{Command, Operation};
use purser_ledger::time::Time;
use purser_proto::v1;
use purser_proto::v1::write_request::Write;
use tonic::Status;
use tonic_types::StatusExt;

use super::commands::{self, Shaped};
use super::methods::AboutCustomer;
use super::shape::{Fault, Violation};
use super::{Api, Written, of_another_sort};

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

    /// As how many it counts in a batch.
    fn weight(&self) -> usize {
        1
    }
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

impl Batched for v1::WriteRequest {
    type Result = v1::WriteResult;
    type Batch = v1::WriteBatchRequest;
    type Results = v1::WriteBatchResponse;
    type Asked = v1::WriteStreamRequest;
    type Answer = v1::WriteStreamResponse;
    const BATCH: &'static str = "write_batch";
    const MANY: &'static str = "writes";
    const ONE: &'static str = "write";

    /// A grant is answered with its tranches: without a bound on those an answer would have none.
    fn weight(&self) -> usize {
        match &self.write {
            Some(Write::Grant(grant)) => grant.tranches.len().max(1),
            _ => 1,
        }
    }

    fn command(&self, now: Time) -> Shaped<Command<'_>> {
        match &self.write {
            Some(Write::Debit(debit)) => commands::debit(debit, now),
            Some(Write::Hold(hold)) => commands::hold(hold, now),
            Some(Write::ExtendHold(extend)) => commands::extend_hold(extend, now),
            Some(Write::Capture(capture)) => commands::capture(capture, now),
            Some(Write::Release(release)) => commands::release(release, now),
            Some(Write::Grant(grant)) => commands::grant(grant, now),
            Some(Write::Refund(refund)) => commands::refund(refund, now),
            None => Err(unnamed()),
        }
    }

    fn applied(
        api: &Api,
        command: &Command<'_>,
        written: &Written,
        detail: v1::ReceiptDetail,
    ) -> Result<v1::WriteResult, Status> {
        use v1::write_result::Outcome;
        let outcome = match &command.operation {
            Operation::Debit(_) => Outcome::Debited(written.debited(detail)),
            Operation::Hold(_) => Outcome::Held(written.held(detail)?),
            Operation::ExtendHold(_) => Outcome::Extended(written.extended(detail)?),
            Operation::Capture(_) => Outcome::Captured(written.captured(detail)?),
            Operation::Release(_) => Outcome::Released(written.released(detail)?),
            Operation::Grant(grant) => {
                Outcome::Granted(api.granted(command.header.customer, grant, written, detail)?)
            }
            Operation::Refund(_) => Outcome::Refunded(written.refunded(detail)?),
            _ => return Err(of_another_sort()),
        };
        Ok(v1::WriteResult { outcome: Some(outcome) })
    }

    fn refused(refusal: v1::Refusal) -> v1::WriteResult {
        v1::WriteResult { outcome: Some(v1::write_result::Outcome::Refused(refusal)) }
    }

    fn refusal(result: &v1::WriteResult) -> Option<&v1::Refusal> {
        match &result.outcome {
            Some(v1::write_result::Outcome::Refused(refusal)) => Some(refusal),
            _ => None,
        }
    }

    fn batch(writes: Vec<v1::WriteRequest>, detail: v1::ReceiptDetail) -> v1::WriteBatchRequest {
        v1::WriteBatchRequest { writes, detail: detail.into() }
    }

    fn results(answer: v1::WriteBatchResponse) -> Vec<v1::WriteResult> {
        answer.results
    }

    fn asked(asked: v1::WriteStreamRequest) -> (u64, Option<OnStream<v1::WriteRequest>>) {
        let (sequence, detail) = (asked.sequence, asked.detail());
        (sequence, asked.write.map(|write| OnStream { sequence, write, detail }))
    }

    fn answer(sequence: u64, result: v1::WriteResult) -> v1::WriteStreamResponse {
        v1::WriteStreamResponse { sequence, result: Some(result) }
    }
}

/// What is wrong with a write that says nothing, or what only a newer node understands.
fn unnamed() -> Vec<Violation> {
    let description = "required: one of debit, hold, extend_hold, capture, release, grant, refund";
    vec![Violation { field: "write".to_owned(), description: description.to_owned(), fault: Fault::Invalid }]
}
