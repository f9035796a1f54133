//! Many debits in one call: each with its own key and verdict, those of one customer in their order.

use futures_util::future::join_all;
use purser_proto::v1;
use tonic::Status;
use tonic_types::StatusExt;

use super::Api;
use super::refusal::malformed_field;

/// Most debits of a batch.
pub const DEBITS_MAX: usize = 8_000;

impl Api {
    /// Debits, many in one call.
    pub async fn debit_batch(
        &self,
        request: &v1::DebitBatchRequest,
    ) -> Result<v1::DebitBatchResponse, Status> {
        let count = request.debits.len();
        if !(1..=DEBITS_MAX).contains(&count) {
            return Err(malformed_field("debits", &format!("1 to {DEBITS_MAX}, not {count}")));
        }
        let results =
            join_all(request.debits.iter().map(|debit| self.debit_result(debit, request.detail()))).await;
        Ok(v1::DebitBatchResponse { results })
    }

    /// One debit, its refusal inside the result.
    pub async fn debit_result(&self, debit: &v1::DebitRequest, detail: v1::ReceiptDetail) -> v1::DebitResult {
        use v1::debit_result::Outcome;
        let outcome = match self.debit(debit).await {
            Ok(mut applied) => {
                if let (v1::ReceiptDetail::Brief, Some(receipt)) = (detail, &mut applied.receipt) {
                    receipt.movement_ids.clear();
                    receipt.draws.clear();
                    receipt.balances.clear();
                }
                Outcome::Applied(applied)
            }
            Err(status) => Outcome::Refused(refusal_of(&status)),
        };
        v1::DebitResult { outcome: Some(outcome) }
    }
}

/// A status as a refusal inside a response.
fn refusal_of(status: &Status) -> v1::Refusal {
    let (reason, metadata) = match status.get_details_error_info() {
        Some(info) => (info.reason, info.metadata.into_iter().collect()),
        None => ("INTERNAL".to_owned(), Default::default()),
    };
    v1::Refusal { reason, message: status.message().to_owned(), metadata }
}
