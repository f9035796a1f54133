//! `purser debit`: burns credits, or says what a debit would do.

use clap::{ArgGroup, Args};
use purser_proto::v1::debit_request::Payer;
use purser_proto::v1::{
    Asset, ChargeType, DebitRequest, DebitResponse, ExplainRequest, ExplainResponse, Refusal,
};

use super::answer::{Answer, Exit};
use super::failure::Failure;
use super::session::{About, Session};
use super::write::WriteArgs;
use super::{json, parse, receipt, table, times, words};

/// Shown under `--help`.
pub const EXAMPLES: &str = "\
Examples:
  purser debit --customer acme --wallet main --amount 5
  purser debit --customer acme --asset credits/0 --amount 5 --charge-type usage --feature search
  purser debit --customer acme --wallet main --amount 5 --key request-77   # repeat it: one effect
  purser debit --customer acme --wallet main --amount 5 --explain

With --explain nothing changes and no key is used; the exit code is 1 if the debit would be refused.
If the outcome is unknown (exit code 3), run the same command with the key that was printed.";

/// What to debit.
#[derive(Debug, Args)]
#[command(group(ArgGroup::new("payer").required(true).args(["wallet", "asset"])))]
pub struct DebitArgs {
    /// Who pays
    #[arg(long, value_name = "ID")]
    customer: String,
    /// The one wallet that pays
    #[arg(long, value_name = "ID")]
    wallet: Option<String>,
    /// All of the customer's wallets in this asset pay, in draw order
    #[arg(long, value_name = "CODE/SCALE", value_parser = parse::asset)]
    asset: Option<Asset>,
    /// How much, in whole units of the asset
    #[arg(long, value_parser = parse::amount)]
    amount: String,
    /// What is charged for [default: none, which only credit of any scope may pay]
    #[arg(long, ignore_case = true, value_name = "TYPE",
          value_parser = words::read::<ChargeType>(words::CHARGE_TYPES))]
    charge_type: Option<ChargeType>,
    /// The feature that is paid for
    #[arg(long, default_value = "", hide_default_value = true)]
    feature: String,
    /// Take what there is, if it is less
    #[arg(long)]
    partial: bool,
    /// Your own reference, such as a request id
    #[arg(long, default_value = "", hide_default_value = true)]
    reference: String,
    /// Why
    #[arg(long, value_name = "CODE", default_value = "", hide_default_value = true)]
    reason: String,
    /// A pair of your own; may be repeated
    #[arg(long = "meta", value_name = "NAME=VALUE", value_parser = parse::pair)]
    metadata: Vec<(String, String)>,
    /// Only say what the debit would do
    #[arg(long, conflicts_with = "key")]
    explain: bool,
    #[command(flatten)]
    write: WriteArgs,
}

impl DebitArgs {
    /// Runs it.
    pub async fn run(self, session: &Session) -> Result<Answer, Failure> {
        let what = format!("debit {} from {}", self.amount, self.customer);
        if self.explain {
            let debit = self.request(session.namespace(), "");
            let request = session.request(ExplainRequest { debit: Some(debit) });
            let about = About::read(format!("explain: {what}"));
            let mut ledger = session.ledger();
            let response = session.wait(about, ledger.explain(request)).await?;
            return Ok(show_explained(&response));
        }
        let key = self.write.key();
        let about = About::write(what, &key);
        let request = session.request(self.request(session.namespace(), &key));
        let mut ledger = session.ledger();
        let response = session.wait(about, ledger.debit(request)).await?;
        Ok(show_debited(&response, &key))
    }

    pub(super) fn request(self, namespace: String, key: &str) -> DebitRequest {
        let payer = match (self.wallet, self.asset) {
            (Some(wallet), _) => Some(Payer::Wallet(wallet)),
            (None, asset) => asset.map(Payer::Asset),
        };
        DebitRequest {
            namespace,
            customer: self.customer,
            idempotency_key: key.to_owned(),
            valid_until: None,
            amount: self.amount,
            charge_type: self.charge_type.unwrap_or_default().into(),
            feature: self.feature,
            allow_partial: self.partial,
            reference: self.reference,
            reason_code: self.reason,
            metadata: self.metadata.into_iter().collect(),
            payer,
        }
    }
}

pub(super) fn show_debited(response: &DebitResponse, key: &str) -> Answer {
    let asset = response.asset.as_ref();
    let (draws, balances) = match &response.receipt {
        Some(receipt) => (receipt.draws.as_slice(), receipt.balances.as_slice()),
        None => Default::default(),
    };
    let text = format!(
        "debited {}, {} remaining\n\n{}\n\n{}\n\n{}",
        receipt::sum(&response.amount, asset),
        response.remaining,
        receipt::draws(draws),
        receipt::balances(balances),
        receipt::footer(response.receipt.as_ref(), key),
    );
    Answer::new(text, json::shape_write(response, key))
}

pub(super) fn show_explained(response: &ExplainResponse) -> Answer {
    let shaped = json::shape(response);
    if let Some(refusal) = &response.refusal {
        return Answer::new(show_refusal(refusal), shaped).with_exit(Exit::Refused);
    }
    let ledger_time = response.point.as_ref().and_then(|point| point.ledger_time.as_ref());
    let text = format!(
        "would debit {}, {} remaining\n\n{}\n\n{}\n\nnothing was changed; judged at {}",
        receipt::sum(&response.amount, response.asset.as_ref()),
        response.remaining,
        receipt::draws(&response.draws),
        receipt::balances(&response.balances),
        times::or_none(ledger_time),
    );
    Answer::new(text, shaped)
}

fn show_refusal(refusal: &Refusal) -> String {
    let mut facts = vec![("reason", refusal.reason.clone())];
    facts.extend(refusal.metadata.iter().map(|(name, value)| (name.as_str(), value.clone())));
    let message = table::clean(&refusal.message);
    format!("would be refused: {message}\n{}", table::facts(facts))
}
