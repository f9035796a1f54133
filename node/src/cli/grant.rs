//! `purser grant`: one tranche into one wallet. Several at once go through `purser call Grant`. What
//! becomes of a tranche later stands beside it: `purser grant confirm`, `fail`, `void` ([`LifeCommand`]).

use clap::Args;
use purser_proto::v1::tranche_spec::Expiry;
use purser_proto::v1::{
    CalendarDuration, ChargeScope, GrantRequest, GrantResponse, Money, Receipt, Tranche, TrancheKind,
    TrancheSpec,
};

use super::answer::Answer;
use super::failure::Failure;
use super::grant_life::LifeCommand;
use super::session::{About, Session};
use super::tranches;
use super::wallet::WalletArgs;
use super::write::WriteArgs;
use super::{json, parse, receipt, words};

/// Shown under `--help`.
pub const EXAMPLES: &str = "\
Examples:
  purser grant --customer acme --wallet main --amount 100
  purser grant --customer acme --wallet main --amount 500 --kind purchased \\
      --cost-basis '49.00 USD' --external-reference invoice-881
  purser grant --customer acme --wallet main --amount 20 --expires-in 30d
  purser grant --customer acme --wallet main --amount 1000 --kind plan \\
      --effective-at 2026-12-01T00:00:00+01:00 --expires-in P1M --time-zone Europe/Berlin
  purser grant --customer acme --wallet main --amount 50 --scope usage --feature search

A grant whose invoice is not paid yet waits, and is then confirmed, failed or voided:
  purser grant --customer acme --wallet main --amount 500 --kind purchased --pending
  purser grant confirm --customer acme --wallet main --tranche trn_0000000000abc

Several tranches at once, all or none, go through the method itself:
  purser call Grant '{\"customer\":\"acme\",\"wallet\":\"main\",\"tranches\":[
      {\"amount\":\"100\",\"kind\":\"TRANCHE_KIND_PLAN\"},
      {\"amount\":\"20\",\"kind\":\"TRANCHE_KIND_PROMOTIONAL\"}]}'";

/// A grant to be, or what becomes of one that was made.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct GrantArgs {
    #[command(subcommand)]
    life: Option<LifeCommand>,
    #[command(flatten)]
    pub(super) grant: Option<NewGrantArgs>,
}

/// What to grant.
#[derive(Debug, Args)]
// Whether there is one: clap leaves the group of a struct with flattened parts empty, and then never sees it.
#[group(arg = "amount")]
pub struct NewGrantArgs {
    #[command(flatten)]
    wallet: WalletArgs,
    /// How much, in whole units of the wallet's asset
    #[arg(long, value_parser = parse::amount)]
    amount: String,
    /// Where the credit comes from: free kinds burn before paid ones
    #[arg(long, ignore_case = true, default_value = "promotional",
          value_parser = words::read::<TrancheKind>(words::TRANCHE_KINDS))]
    kind: TrancheKind,
    /// 0 to 1000, lower burns first [default: 100]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(0..=1000))]
    priority: Option<u32>,
    /// It waits until its invoice is paid (purser grant confirm), and does not expire meanwhile
    #[arg(long)]
    pending: bool,
    /// From when on it may be spent [default: now]
    #[arg(long, value_name = "TIME", value_parser = parse::instant)]
    effective_at: Option<prost_types::Timestamp>,
    /// From when on it may no longer be spent [default: never]
    #[arg(long, value_name = "TIME", value_parser = parse::instant, conflicts_with = "expires_in")]
    expires_at: Option<prost_types::Timestamp>,
    /// The same as a calendar duration, counted from activation, with --pending from the confirmation:
    /// P1M, 30d, '1 year'
    #[arg(long, value_name = "DURATION", value_parser = parse::calendar_duration)]
    expires_in: Option<String>,
    /// The IANA time zone of --expires-in [default: UTC]
    #[arg(long, value_name = "ZONE", requires = "expires_in")]
    time_zone: Option<String>,
    /// Which charges it may pay
    #[arg(long, ignore_case = true, default_value = "any",
          value_parser = words::read::<ChargeScope>(words::CHARGE_SCOPES))]
    scope: ChargeScope,
    /// A feature that it may pay for; may be repeated [default: all]
    #[arg(long = "feature", value_name = "FEATURE")]
    features: Vec<String>,
    /// A name for people
    #[arg(long, default_value = "", hide_default_value = true)]
    label: String,
    /// Why it is granted
    #[arg(long, value_name = "CODE", default_value = "", hide_default_value = true)]
    reason: String,
    /// Your own reference, unique in the wallet for ever
    #[arg(long, value_name = "REFERENCE", default_value = "", hide_default_value = true)]
    external_reference: String,
    /// The money paid for it: '49.00 USD'
    #[arg(long, value_name = "MONEY", value_parser = parse::money)]
    cost_basis: Option<Money>,
    /// A pair of your own; may be repeated
    #[arg(long = "meta", value_name = "NAME=VALUE", value_parser = parse::pair)]
    metadata: Vec<(String, String)>,
    #[command(flatten)]
    write: WriteArgs,
}

impl GrantArgs {
    /// Runs it.
    pub async fn run(self, session: &Session) -> Result<Answer, Failure> {
        match (self.life, self.grant) {
            (Some(life), _) => life.run(session).await,
            (None, Some(grant)) => grant.run(session).await,
            // clap has asked for --customer, --wallet and --amount.
            (None, None) => {
                Err(Failure::Usage("a grant names a customer, a wallet and an amount".to_owned()))
            }
        }
    }
}

impl NewGrantArgs {
    async fn run(self, session: &Session) -> Result<Answer, Failure> {
        let key = self.write.key();
        let about = About::write(format!("grant {} to {}", self.amount, self.wallet), &key);
        let request = session.request(self.request(session.namespace(), &key));
        let mut ledger = session.ledger();
        let response = session.wait(about, ledger.grant(request)).await?;
        Ok(show(&response, &key))
    }

    pub(super) fn request(self, namespace: String, key: &str) -> GrantRequest {
        let zone = self.time_zone.unwrap_or_default();
        let expiry = match (self.expires_at, self.expires_in) {
            (Some(time), _) => Some(Expiry::ExpiresAt(time)),
            (None, Some(duration)) => Some(Expiry::ExpiresIn(CalendarDuration { duration, time_zone: zone })),
            (None, None) => None,
        };
        let tranche = TrancheSpec {
            amount: self.amount,
            kind: self.kind.into(),
            priority: self.priority,
            effective_at: self.effective_at,
            charge_scope: self.scope.into(),
            features: self.features,
            label: self.label,
            reason_code: self.reason,
            external_reference: self.external_reference,
            cost_basis: self.cost_basis,
            metadata: self.metadata.into_iter().collect(),
            pending: self.pending,
            expiry,
        };
        GrantRequest {
            namespace,
            customer: self.wallet.customer,
            idempotency_key: key.to_owned(),
            valid_until: None,
            wallet: self.wallet.wallet,
            tranches: vec![tranche],
        }
    }
}

pub(super) fn show(response: &GrantResponse, key: &str) -> Answer {
    let text = written(&response.tranches, response.receipt.as_ref(), key);
    Answer::new(text, json::shape_write(response, key))
}

/// The text of a write that makes something of tranches.
pub(super) fn written(tranches: &[Tranche], receipt: Option<&Receipt>, key: &str) -> String {
    let balances = receipt.map(|receipt| receipt.balances.as_slice()).unwrap_or_default();
    format!(
        "{}\n\n{}\n\n{}",
        tranches::rows(tranches),
        receipt::balances(balances),
        receipt::footer(receipt, key),
    )
}
