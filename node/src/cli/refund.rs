//! `purser refund`: gives back what a debit or capture spent.

use clap::Args;
use purser_proto::v1::{RefundRequest, RefundResponse};

use super::answer::Answer;
use super::failure::Failure;
use super::session::{About, Session};
use super::write::TextArgs;
use super::{json, parse, receipt};

/// Shown under `--help`.
pub const EXAMPLES: &str = "\
Examples:
  purser refund --customer acme --movement mov_0000000000abc                 # all that it spent
  purser refund --customer acme --movement mov_0000000000abc --amount 2 --reason bad-answer
  purser refund --customer acme --movement mov_0000000000abc --grace 7d

It goes back to the very tranches that it came from, the last one drawn first. The movement is that of
the debit or capture (purser movements --type consumed --type captured); a debit by asset has one for
each wallet.";

/// What to give back.
#[derive(Debug, Args)]
pub struct RefundArgs {
    /// Whose movement
    #[arg(long, value_name = "ID")]
    customer: String,
    /// The movement that spent it
    #[arg(long, value_name = "MOVEMENT")]
    movement: String,
    /// How much, in whole units of the asset [default: all that was not given back yet]
    #[arg(long, value_parser = parse::amount)]
    amount: Option<String>,
    /// How long that is spendable whose tranche has expired since, at most 366d [default: it is forfeited]
    #[arg(long, value_name = "TIME", value_parser = parse::grace)]
    grace: Option<prost_types::Duration>,
    #[command(flatten)]
    texts: TextArgs,
}

impl RefundArgs {
    /// Runs it.
    pub async fn run(self, session: &Session) -> Result<Answer, Failure> {
        let key = self.texts.write.key();
        let about = About::write(format!("refund {} of {}", self.movement, self.customer), &key);
        let movement = self.movement;
        let request = session.request(RefundRequest {
            namespace: session.namespace(),
            customer: self.customer,
            idempotency_key: key.clone(),
            valid_until: None,
            movement_id: movement.clone(),
            amount: self.amount.unwrap_or_default(),
            grace: self.grace,
            reference: self.texts.reference,
            reason_code: self.texts.reason,
            metadata: self.texts.metadata.into_iter().collect(),
        });
        let mut ledger = session.ledger();
        let response = session.wait(about, ledger.refund(request)).await?;
        Ok(show(&response, &movement, &key))
    }
}

fn show(response: &RefundResponse, movement: &str, key: &str) -> Answer {
    let receipt = response.receipt.as_ref();
    let headline = format!(
        "refunded {} of {movement}, forfeited {}, voided {}",
        receipt::sum(&response.amount, receipt::asset_of(receipt)),
        response.forfeited,
        response.voided,
    );
    Answer::new(receipt::written(&headline, receipt, key), json::shape_write(response, key))
}
