//! `purser adjust`: corrects a wallet's credits.

use clap::Args;
use purser_proto::v1::{AdjustRequest, AdjustResponse};

use super::answer::Answer;
use super::failure::Failure;
use super::session::{About, Session};
use super::wallet::WalletArgs;
use super::write::WriteArgs;
use super::{json, parse, receipt};

/// Shown under `--help`.
pub const EXAMPLES: &str = "\
Examples:
  purser adjust --customer acme --wallet main --amount 100 --reason goodwill --expires-at 2027-01-01
  purser adjust --customer acme --wallet main --amount -2.5 --reason counted-twice
  purser adjust --customer acme --wallet main --amount -40 --tranche trn_0000000000abc --reason typo

Up makes a tranche of kind CORRECTION that may pay for anything. Down takes from what is available, in
burn order whatever its scope. To give back what a debit spent, use purser refund.";

/// What to correct.
#[derive(Debug, Args)]
pub struct AdjustArgs {
    #[command(flatten)]
    wallet: WalletArgs,
    /// By how much, in whole units of the asset, with a leading - for down
    #[arg(long, allow_hyphen_values = true, value_parser = parse::signed_amount)]
    amount: String,
    /// Why; a correction always says
    #[arg(long, value_name = "CODE")]
    reason: String,
    /// Take only from this tranche; only with an amount below zero
    #[arg(long, value_name = "TRANCHE", default_value = "", hide_default_value = true)]
    tranche: String,
    /// From when on it may no longer be spent; only with an amount above zero [default: never]
    #[arg(long, value_name = "TIME", value_parser = parse::instant)]
    expires_at: Option<prost_types::Timestamp>,
    /// Your own reference, such as a ticket's number
    #[arg(long, default_value = "", hide_default_value = true)]
    reference: String,
    /// A pair of your own; may be repeated
    #[arg(long = "meta", value_name = "NAME=VALUE", value_parser = parse::pair)]
    metadata: Vec<(String, String)>,
    #[command(flatten)]
    write: WriteArgs,
}

impl AdjustArgs {
    /// Runs it.
    pub async fn run(self, session: &Session) -> Result<Answer, Failure> {
        let key = self.write.key();
        let about = About::write(format!("adjust {} by {}", self.wallet, self.amount), &key);
        let adjusted = self.wallet.to_string();
        let request = session.request(AdjustRequest {
            namespace: session.namespace(),
            customer: self.wallet.customer,
            idempotency_key: key.clone(),
            valid_until: None,
            wallet: self.wallet.wallet,
            amount: self.amount,
            tranche_id: self.tranche,
            expires_at: self.expires_at,
            reference: self.reference,
            reason_code: self.reason,
            metadata: self.metadata.into_iter().collect(),
        });
        let mut ledger = session.ledger();
        let response = session.wait(about, ledger.adjust(request)).await?;
        Ok(show(&response, &adjusted, &key))
    }
}

fn show(response: &AdjustResponse, adjusted: &str, key: &str) -> Answer {
    let receipt = response.receipt.as_ref();
    let by = receipt::sum(&response.amount, receipt::asset_of(receipt));
    let text = receipt::written(&format!("adjusted {adjusted} by {by}"), receipt, key);
    Answer::new(text, json::shape_write(response, key))
}
