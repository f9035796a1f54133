//! Refunds and corrections.

use purser_ledger::rows::journal::MovementKind;
use purser_proto::v1;
use tonic::Status;

use super::refusal::malformed;
use super::{Api, Full, Written, commands, of_another_sort, render};

impl Api {
    /// Gives back what a debit or capture spent.
    pub async fn refund(&self, request: &v1::RefundRequest) -> Result<v1::RefundResponse, Status> {
        let command = commands::refund(request, self.clock.now()).map_err(malformed)?;
        self.write(command).await?.refunded(Full)
    }

    /// Corrects a wallet's credits, up or down.
    pub async fn adjust(&self, request: &v1::AdjustRequest) -> Result<v1::AdjustResponse, Status> {
        let command = commands::adjust(request, self.clock.now()).map_err(malformed)?;
        let written = self.write(command).await?;
        let amount = render::effect_of(&written.applied.effect).ok_or_else(of_another_sort)?;
        Ok(v1::AdjustResponse { receipt: written.receipt(Full), amount })
    }
}

impl Written {
    /// The answer to a refund.
    pub(super) fn refunded(&self, detail: v1::ReceiptDetail) -> Result<v1::RefundResponse, Status> {
        let sum = |kind| render::sum_of(&self.applied.effect, &[kind]).ok_or_else(of_another_sort);
        Ok(v1::RefundResponse {
            receipt: self.receipt(detail),
            amount: sum(MovementKind::Refunded)?,
            forfeited: sum(MovementKind::Expired)?,
            voided: sum(MovementKind::Voided)?,
        })
    }
}
