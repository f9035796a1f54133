//! Batches and streams of debits, put together from parts that are encoded already, and taken apart
//! without decoding them: each caller encodes its debit and decodes its result in its own task, and what
//! gathers them only copies bytes.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use prost::Message;
use prost::encoding::{
    DecodeContext, WireType, decode_key, decode_varint, encode_key, encode_varint, skip_field,
};
use purser_proto::v1::{self, ReceiptDetail};

use crate::failure::Failure;

/// Field numbers of the contract's `batch.proto`.
mod tag {
    pub const BATCH_DEBITS: u32 = 1;
    pub const BATCH_DETAIL: u32 = 2;
    pub const BATCH_RESULTS: u32 = 1;
    pub const RESULT_APPLIED: u32 = 1;
    pub const RESULT_REFUSED: u32 = 2;
    pub const STREAM_SEQUENCE: u32 = 1;
    pub const STREAM_DEBIT: u32 = 2;
    pub const STREAM_RESULT: u32 = 2;
    pub const STREAM_DETAIL: u32 = 3;
}

/// Bytes that a field's tag and length take at most.
const FIELD_HEAD_BYTES_MAX: usize = 12;

/// A `DebitBatchRequest` of these debits.
pub(crate) fn batch(debits: &[Bytes], detail: ReceiptDetail) -> Bytes {
    let bytes: usize = debits.iter().map(|debit| debit.len() + FIELD_HEAD_BYTES_MAX).sum();
    let mut request = BytesMut::with_capacity(bytes + FIELD_HEAD_BYTES_MAX);
    for debit in debits {
        put_bytes(&mut request, tag::BATCH_DEBITS, debit);
    }
    put_number(&mut request, tag::BATCH_DETAIL, detail as u64);
    request.freeze()
}

/// The results of a `DebitBatchResponse`, each an encoded `DebitResult`.
pub(crate) fn results(mut response: Bytes) -> Result<Vec<Bytes>, Failure> {
    let mut results = Vec::new();
    while let Some(field) = next_field(&mut response)? {
        if let Field::Bytes(tag::BATCH_RESULTS, result) = field {
            results.push(result);
        }
    }
    Ok(results)
}

/// What a `DebitResult` says: an encoded `DebitResponse`, or why there is none.
pub(crate) fn outcome(mut result: Bytes) -> Result<Bytes, Failure> {
    let mut outcome = Err(Failure::undecodable());
    while let Some(field) = next_field(&mut result)? {
        match field {
            Field::Bytes(tag::RESULT_APPLIED, response) => outcome = Ok(response),
            Field::Bytes(tag::RESULT_REFUSED, refusal) => {
                let refusal = v1::Refusal::decode(refusal).map_err(|_| Failure::undecodable())?;
                outcome = Err(Failure::from_refusal(refusal));
            }
            _ => {}
        }
    }
    outcome
}

/// A `DebitStreamRequest` of this debit.
pub(crate) fn stream_request(sequence: u64, debit: &Bytes, detail: ReceiptDetail) -> Bytes {
    let mut request = BytesMut::with_capacity(debit.len() + 3 * FIELD_HEAD_BYTES_MAX);
    put_number(&mut request, tag::STREAM_SEQUENCE, sequence);
    put_bytes(&mut request, tag::STREAM_DEBIT, debit);
    put_number(&mut request, tag::STREAM_DETAIL, detail as u64);
    request.freeze()
}

/// The number and the encoded `DebitResult` of a `DebitStreamResponse`.
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
        let told: Vec<_> = parts.into_iter().map(outcome).collect();
        let amount = |part: &Result<Bytes, Failure>| {
            v1::DebitResponse::decode(part.clone().expect("applied")).expect("a response").amount
        };
        assert_eq!((amount(&told[0]), amount(&told[2])), ("5".to_owned(), "7".to_owned()));
        assert_eq!(told[1].as_ref().expect_err("refused").denial.reason, v1::Reason::WalletFrozen);
        assert_eq!(told.len(), 3);
    }

    #[test]
    fn a_result_that_says_nothing_or_is_cut_off_is_not_taken_for_an_answer() {
        assert!(outcome(Bytes::new()).is_err());
        let whole = encoded(&applied("5"));
        assert!(outcome(whole.slice(..whole.len() - 1)).is_err());
        let response = encoded(&v1::DebitBatchResponse { results: vec![applied("5")] });
        assert!(results(response.slice(..response.len() - 1)).is_err());
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
        assert_eq!((sequence, outcome(result).is_ok()), (9, true));
    }
}
