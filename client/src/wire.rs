//! Batches and streams, put together from parts that are encoded already, and taken apart without
//! decoding them: each caller encodes its write and decodes its result in its own task, and what gathers
//! them only copies bytes.
//!
//! Batches of debits and those of several sorts have the same field numbers: only results differ.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use prost::Message;
use prost::encoding::{
    DecodeContext, WireType, decode_key, decode_varint, encode_key, encode_varint, skip_field,
};
use purser_proto::v1::{self, ReceiptDetail};

use crate::call::Method;
use crate::failure::Failure;

/// Field numbers of the contract's `batch.proto`.
mod tag {
    pub const BATCH_WRITES: u32 = 1;
    pub const BATCH_DETAIL: u32 = 2;
    pub const BATCH_RESULTS: u32 = 1;
    pub const RESULT_APPLIED: u32 = 1;
    pub const RESULT_REFUSED: u32 = 2;
    /// Of a `WriteResult`: the answers that are no debit's.
    pub const RESULT_SORTS: std::ops::RangeInclusive<u32> = 3..=8;
    pub const STREAM_SEQUENCE: u32 = 1;
    pub const STREAM_WRITE: u32 = 2;
    pub const STREAM_RESULT: u32 = 2;
    pub const STREAM_DETAIL: u32 = 3;
}

/// Bytes that a field's tag and length take at most.
const FIELD_HEAD_BYTES_MAX: usize = 12;

/// What is sent together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sort {
    /// Debits alone: each a `DebitRequest`, answered by a `DebitResponse`.
    Debits,
    /// Writes of several sorts: each a `WriteRequest`, answered by a `WriteResult`.
    Mixed,
}

impl Sort {
    /// The method that takes a batch.
    pub(crate) fn batch(self) -> Method {
        match self {
            Sort::Debits => Method::DebitBatch,
            Sort::Mixed => Method::WriteBatch,
        }
    }

    /// The method that takes a stream.
    pub(crate) fn stream(self) -> Method {
        match self {
            Sort::Debits => Method::DebitStream,
            Sort::Mixed => Method::WriteStream,
        }
    }

    /// What a result says: an encoded answer, or why there is none.
    pub(crate) fn outcome(self, result: Bytes) -> Result<Bytes, Failure> {
        let (mut rest, mut outcome) = (result.clone(), Err(Failure::undecodable()));
        while let Some(field) = next_field(&mut rest)? {
            match (self, field) {
                (_, Field::Bytes(tag::RESULT_REFUSED, refusal)) => {
                    let refusal = v1::Refusal::decode(refusal).map_err(|_| Failure::undecodable())?;
                    outcome = Err(Failure::from_refusal(refusal));
                }
                (Sort::Debits, Field::Bytes(tag::RESULT_APPLIED, response)) => outcome = Ok(response),
                (Sort::Mixed, Field::Bytes(number, _))
                    if number == tag::RESULT_APPLIED || tag::RESULT_SORTS.contains(&number) =>
                {
                    outcome = Ok(result.clone());
                }
                _ => {}
            }
        }
        outcome
    }
}

/// A `DebitBatchRequest` or `WriteBatchRequest` of these.
pub(crate) fn batch(writes: &[Bytes], detail: ReceiptDetail) -> Bytes {
    let bytes: usize = writes.iter().map(|write| write.len() + FIELD_HEAD_BYTES_MAX).sum();
    let mut request = BytesMut::with_capacity(bytes + FIELD_HEAD_BYTES_MAX);
    for write in writes {
        put_bytes(&mut request, tag::BATCH_WRITES, write);
    }
    put_number(&mut request, tag::BATCH_DETAIL, detail as u64);
    request.freeze()
}

/// The results of a batch, each an encoded `DebitResult` or `WriteResult`.
pub(crate) fn results(mut response: Bytes) -> Result<Vec<Bytes>, Failure> {
    let mut results = Vec::new();
    while let Some(field) = next_field(&mut response)? {
        if let Field::Bytes(tag::BATCH_RESULTS, result) = field {
            results.push(result);
        }
    }
    Ok(results)
}

/// A `DebitStreamRequest` or `WriteStreamRequest` of this.
pub(crate) fn stream_request(sequence: u64, write: &Bytes, detail: ReceiptDetail) -> Bytes {
    let mut request = BytesMut::with_capacity(write.len() + 3 * FIELD_HEAD_BYTES_MAX);
    put_number(&mut request, tag::STREAM_SEQUENCE, sequence);
    put_bytes(&mut request, tag::STREAM_WRITE, write);
    put_number(&mut request, tag::STREAM_DETAIL, detail as u64);
    request.freeze()
}

/// The number and the encoded result of a `DebitStreamResponse` or `WriteStreamResponse`.
pub(crate) fn stream_response(mut response: Bytes) -> Result<(u64, Bytes), Failure> {
    let (mut sequence, mut result) = (0, Bytes::new());
    while let Some(field) = next_field(&mut response)? {
        match field {
            Field::Number(tag::STREAM_SEQUENCE, number) => sequence = number,
            Field::Bytes(tag::STREAM_RESULT, bytes) => result = bytes,
            _ => {}
        }
    }
    Ok((sequence, result))
}

fn put_bytes(buffer: &mut BytesMut, tag: u32, value: &[u8]) {
    encode_key(tag, WireType::LengthDelimited, buffer);
    encode_varint(value.len() as u64, buffer);
    buffer.put_slice(value);
}

fn put_number(buffer: &mut BytesMut, tag: u32, value: u64) {
    encode_key(tag, WireType::Varint, buffer);
    encode_varint(value, buffer);
}

enum Field {
    Bytes(u32, Bytes),
    Number(u32, u64),
    Other,
}

fn next_field(message: &mut Bytes) -> Result<Option<Field>, Failure> {
    if message.is_empty() {
        return Ok(None);
    }
    let malformed = |_| Failure::undecodable();
    let (tag, wire_type) = decode_key(message).map_err(malformed)?;
    let field = match wire_type {
        WireType::LengthDelimited => {
            let length = usize::try_from(decode_varint(message).map_err(malformed)?).unwrap_or(usize::MAX);
            if length > message.remaining() {
                return Err(Failure::undecodable());
            }
            Field::Bytes(tag, message.split_to(length))
        }
        WireType::Varint => Field::Number(tag, decode_varint(message).map_err(malformed)?),
        other => {
            skip_field(other, tag, message, DecodeContext::default()).map_err(malformed)?;
            Field::Other
        }
    };
    Ok(Some(field))
}

#[cfg(test)]
mod tests {
    use purser_proto::v1::debit_result::Outcome;

    use super::*;

    fn debit(customer: &str) -> v1::DebitRequest {
        v1::DebitRequest { customer: customer.to_owned(), amount: "5".to_owned(), ..Default::default() }
    }

    fn encoded(message: &impl Message) -> Bytes {
        message.encode_to_vec().into()
    }

    fn applied(amount: &str) -> v1::DebitResult {
        let response = v1::DebitResponse { amount: amount.to_owned(), ..Default::default() };
        v1::DebitResult { outcome: Some(Outcome::Applied(response)) }
    }

    fn refused(reason: &str) -> v1::DebitResult {
        let refusal =
            v1::Refusal { reason: reason.to_owned(), message: "no".to_owned(), ..Default::default() };
        v1::DebitResult { outcome: Some(Outcome::Refused(refusal)) }
    }

    #[test]
    fn a_batch_is_what_prost_would_have_encoded() {
        let debits = vec![debit("acme"), debit(&"long ".repeat(100)), v1::DebitRequest::default()];
        let parts: Vec<Bytes> = debits.iter().map(encoded).collect();
        let request = v1::DebitBatchRequest { debits, detail: ReceiptDetail::Brief.into() };
        assert_eq!(v1::DebitBatchRequest::decode(batch(&parts, ReceiptDetail::Brief)), Ok(request));
    }

    #[test]
    fn results_come_apart_in_order_and_say_what_they_said() {
        let response =
            v1::DebitBatchResponse { results: vec![applied("5"), refused("WALLET_FROZEN"), applied("7")] };
        let parts = results(encoded(&response)).expect("results");
        let told: Vec<_> = parts.into_iter().map(|part| Sort::Debits.outcome(part)).collect();
        let amount = |part: &Result<Bytes, Failure>| {
            v1::DebitResponse::decode(part.clone().expect("applied")).expect("a response").amount
        };
        assert_eq!((amount(&told[0]), amount(&told[2])), ("5".to_owned(), "7".to_owned()));
        assert_eq!(told[1].as_ref().expect_err("refused").denial.reason, v1::Reason::WalletFrozen);
        assert_eq!(told.len(), 3);
    }

    #[test]
    fn a_result_that_says_nothing_or_is_cut_off_is_not_taken_for_an_answer() {
        assert!(Sort::Debits.outcome(Bytes::new()).is_err());
        let whole = encoded(&applied("5"));
        assert!(Sort::Debits.outcome(whole.slice(..whole.len() - 1)).is_err());
        let response = encoded(&v1::DebitBatchResponse { results: vec![applied("5")] });
        assert!(results(response.slice(..response.len() - 1)).is_err());
    }

    #[test]
    fn writes_of_several_sorts_go_the_same_way_and_their_results_come_apart_whole() {
        use v1::write_result::Outcome;
        let hold = v1::HoldRequest { customer: "acme".to_owned(), ..Default::default() };
        let writes: Vec<v1::WriteRequest> = vec![debit("acme").into(), hold.into()];
        let parts: Vec<Bytes> = writes.iter().map(encoded).collect();
        let request = v1::WriteBatchRequest { writes: writes.clone(), detail: ReceiptDetail::Brief.into() };
        assert_eq!(v1::WriteBatchRequest::decode(batch(&parts, ReceiptDetail::Brief)), Ok(request));
        let whole = v1::WriteStreamRequest {
            sequence: 7,
            write: Some(writes[1].clone()),
            detail: ReceiptDetail::Full.into(),
        };
        assert_eq!(
            v1::WriteStreamRequest::decode(stream_request(7, &parts[1], ReceiptDetail::Full)),
            Ok(whole)
        );

        let outcomes = [
            Outcome::Debited(v1::DebitResponse { amount: "5".to_owned(), ..Default::default() }),
            Outcome::Held(v1::HoldResponse::default()),
            Outcome::Extended(v1::ExtendHoldResponse::default()),
            Outcome::Captured(v1::CaptureResponse::default()),
            Outcome::Released(v1::ReleaseResponse::default()),
            Outcome::Granted(v1::GrantResponse::default()),
            Outcome::Refunded(v1::RefundResponse::default()),
        ];
        let results = outcomes.map(|outcome| v1::WriteResult { outcome: Some(outcome) });
        for result in &results {
            let told = Sort::Mixed.outcome(encoded(result)).expect("applied");
            assert_eq!(v1::WriteResult::decode(told).as_ref(), Ok(result));
        }
        let no = v1::Refusal { reason: "HOLD_CLOSED".to_owned(), ..Default::default() };
        let no = encoded(&v1::WriteResult { outcome: Some(Outcome::Refused(no)) });
        let failure = Sort::Mixed.outcome(no).expect_err("refused");
        assert_eq!(failure.denial.reason, v1::Reason::HoldClosed);
        assert!(Sort::Mixed.outcome(Bytes::new()).is_err());
        // A sort of answer that this build does not know.
        assert!(Sort::Mixed.outcome(Bytes::from_static(&[0x7a, 0])).is_err());
    }

    #[test]
    fn a_stream_keeps_the_numbers_of_its_debits() {
        let request = stream_request(7, &encoded(&debit("acme")), ReceiptDetail::Full);
        let whole = v1::DebitStreamRequest {
            sequence: 7,
            debit: Some(debit("acme")),
            detail: ReceiptDetail::Full.into(),
        };
        assert_eq!(v1::DebitStreamRequest::decode(request), Ok(whole));
        let response = v1::DebitStreamResponse { sequence: 9, result: Some(applied("5")) };
        let (sequence, result) = stream_response(encoded(&response)).expect("a response");
        assert_eq!((sequence, Sort::Debits.outcome(result).is_ok()), (9, true));
    }
}
