//! `purser grant confirm`, `fail` and `void`: what becomes of a tranche after it was granted.

use clap::{Args, Subcommand};
use purser_proto::v1::confirm_grant_request::Expiry;
use purser_proto::v1::{
    CalendarDuration, ConfirmGrantRequest, ConfirmGrantResponse, FailGrantRequest, FailGrantResponse,
    VoidGrantRequest, VoidGrantResponse,
};

use super::answer::Answer;
use super::failure::Failure;
use super::session::{About, Session};
use super::wallet::WalletArgs;
use super::write::TextArgs;
use super::{grant, json, parse, receipt};

/// What may become of a grant.
#[derive(Debug, Subcommand)]
pub enum LifeCommand {
    /// Make a pending tranche spendable: its invoice was paid
    #[command(after_help = "\
Examples:
  purser grant confirm --customer acme --wallet main --tranche trn_0000000000abc
  purser grant confirm --customer acme --wallet main --tranche trn_0000000000abc \\
      --expires-in P1M --time-zone Europe/Berlin --reference invoice-881")]
    Confirm(Box<ConfirmArgs>),
    /// End a pending tranche: its invoice will not be paid
    #[command(after_help = "\
Examples:
  purser grant fail --customer acme --wallet main --tranche trn_0000000000abc --reason card-declined")]
    Fail(EndArgs),
    /// Withdraw what is left of a tranche
    #[command(after_help = "\
Examples:
  purser grant void --customer acme --wallet main --tranche trn_0000000000abc --reason chargeback

What was spent stays spent. What is held may still be captured; what is released of it is withdrawn too.")]
    Void(EndArgs),
}

/// Which tranche.
#[derive(Debug, Args)]
pub struct TrancheArgs {
    #[command(flatten)]
    wallet: WalletArgs,
    /// The tranche's id (purser tranches)
    #[arg(long, value_name = "TRANCHE")]
    tranche: String,
}

/// A pending tranche that is paid for.
#[derive(Debug, Args)]
pub struct ConfirmArgs {
    #[command(flatten)]
    tranche: TrancheArgs,
    /// From when on it may no longer be spent [default: as it was granted]
    #[arg(long, value_name = "TIME", value_parser = parse::instant, conflicts_with = "expires_in")]
    expires_at: Option<prost_types::Timestamp>,
    /// The same as a calendar duration, counted from now, or from its activation if that lies ahead: P1M,
    /// 30d, '1 year'
    #[arg(long, value_name = "DURATION", value_parser = parse::calendar_duration)]
    expires_in: Option<String>,
    /// The IANA time zone of --expires-in [default: UTC]
    #[arg(long, value_name = "ZONE", requires = "expires_in")]
    time_zone: Option<String>,
    #[command(flatten)]
    texts: TextArgs,
}

/// A tranche that comes to an end.
#[derive(Debug, Args)]
pub struct EndArgs {
    #[command(flatten)]
    tranche: TrancheArgs,
    #[command(flatten)]
    texts: TextArgs,
}

impl LifeCommand {
    /// Runs it.
    pub async fn run(self, session: &Session) -> Result<Answer, Failure> {
        match self {
            LifeCommand::Confirm(args) => args.run(session).await,
            LifeCommand::Fail(args) => args.fail(session).await,
            LifeCommand::Void(args) => args.void(session).await,
        }
    }
}

impl std::fmt::Display for TrancheArgs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} in {}", self.tranche, self.wallet)
    }
}

impl ConfirmArgs {
    async fn run(self, session: &Session) -> Result<Answer, Failure> {
        let key = self.texts.write.key();
        let about = About::write(format!("confirm {}", self.tranche), &key);
        let zone = self.time_zone.unwrap_or_default();
        let expiry = match (self.expires_at, self.expires_in) {
            (Some(time), _) => Some(Expiry::ExpiresAt(time)),
            (None, Some(duration)) => Some(Expiry::ExpiresIn(CalendarDuration { duration, time_zone: zone })),
            (None, None) => None,
        };
        let request = session.request(ConfirmGrantRequest {
            namespace: session.namespace(),
            customer: self.tranche.wallet.customer,
            idempotency_key: key.clone(),
            valid_until: None,
            wallet: self.tranche.wallet.wallet,
            tranche_id: self.tranche.tranche,
            expiry,
            reference: self.texts.reference,
            reason_code: self.texts.reason,
            metadata: self.texts.metadata.into_iter().collect(),
        });
        let mut ledger = session.ledger();
        let response = session.wait(about, ledger.confirm_grant(request)).await?;
        Ok(show_confirmed(&response, &key))
    }
}

impl EndArgs {
    async fn fail(self, session: &Session) -> Result<Answer, Failure> {
        let key = self.texts.write.key();
        let about = About::write(format!("fail {}", self.tranche), &key);
        let tranche = self.tranche.tranche;
        let request = session.request(FailGrantRequest {
            namespace: session.namespace(),
            customer: self.tranche.wallet.customer,
            idempotency_key: key.clone(),
            valid_until: None,
            wallet: self.tranche.wallet.wallet,
            tranche_id: tranche.clone(),
            reference: self.texts.reference,
            reason_code: self.texts.reason,
            metadata: self.texts.metadata.into_iter().collect(),
        });
        let mut ledger = session.ledger();
        let response = session.wait(about, ledger.fail_grant(request)).await?;
        Ok(show_failed(&response, &tranche, &key))
    }

    async fn void(self, session: &Session) -> Result<Answer, Failure> {
        let key = self.texts.write.key();
        let about = About::write(format!("void {}", self.tranche), &key);
        let tranche = self.tranche.tranche;
        let request = session.request(VoidGrantRequest {
            namespace: session.namespace(),
            customer: self.tranche.wallet.customer,
            idempotency_key: key.clone(),
            valid_until: None,
            wallet: self.tranche.wallet.wallet,
            tranche_id: tranche.clone(),
            reference: self.texts.reference,
            reason_code: self.texts.reason,
            metadata: self.texts.metadata.into_iter().collect(),
        });
        let mut ledger = session.ledger();
        let response = session.wait(about, ledger.void_grant(request)).await?;
        Ok(show_voided(&response, &tranche, &key))
    }
}

/// Like the answer of the grant: the tranche tells whether it is active or scheduled now.
fn show_confirmed(response: &ConfirmGrantResponse, key: &str) -> Answer {
    let text = grant::written(response.tranche.as_slice(), response.receipt.as_ref(), key);
    Answer::new(text, json::shape_write(response, key))
}

fn show_failed(response: &FailGrantResponse, tranche: &str, key: &str) -> Answer {
    let receipt = response.receipt.as_ref();
    let withdrawn = receipt::sum(&response.amount, receipt::asset_of(receipt));
    let text = receipt::written(&format!("failed {tranche}: {withdrawn} withdrawn"), receipt, key);
    Answer::new(text, json::shape_write(response, key))
}

fn show_voided(response: &VoidGrantResponse, tranche: &str, key: &str) -> Answer {
    let receipt = response.receipt.as_ref();
    let withdrawn = receipt::sum(&response.amount, receipt::asset_of(receipt));
    let text = receipt::written(&format!("voided {tranche}: {withdrawn} withdrawn"), receipt, key);
    Answer::new(text, json::shape_write(response, key))
}
