//! `purser hold`: credits set aside before a request is forwarded, spent after it.

use clap::{ArgGroup, Args, Subcommand};
use purser_proto::v1::hold_request::Payer;
use purser_proto::v1::{
    Asset, CaptureRequest, CaptureResponse, ChargeType, ExtendHoldRequest, ExtendHoldResponse,
    GetHoldRequest, GetHoldResponse, Hold, HoldRequest, HoldResponse, HoldState, HoldStatus,
    ListHoldsRequest, Receipt, ReleaseRequest, ReleaseResponse, TrancheKind,
};

use super::answer::Answer;
use super::failure::Failure;
use super::page::{self, PageArgs};
use super::session::{About, Session};
use super::table::{self, Column, Lean};
use super::wallet::WalletArgs;
use super::write::{TextArgs, WriteArgs};
use super::{json, parse, receipt, times, words};

/// Shown under `--help`.
pub const EXAMPLES: &str = "\
Examples:
  purser hold place --customer acme --wallet main --amount 30
  purser hold capture --customer acme --hold hld_0000000000abc --amount 12
  purser hold release --customer acme --hold hld_0000000000abc
  purser hold list --customer acme --wallet main --status open";

/// What may be done with holds.
#[derive(Debug, Subcommand)]
pub enum HoldCommand {
    /// Set credits aside for a request in flight
    #[command(after_help = "\
Examples:
  purser hold place --customer acme --wallet main --amount 30 --ttl 2m
  purser hold place --customer acme --asset credits/0 --amount 30 --charge-type usage")]
    Place(Box<PlaceArgs>),
    /// Give a hold more time
    #[command(after_help = "\
Examples:
  purser hold extend --customer acme --hold hld_0000000000abc --ttl 10m")]
    Extend(ExtendArgs),
    /// Spend what a hold has set aside: less, all, or more than that
    #[command(after_help = "\
Examples:
  purser hold capture --customer acme --hold hld_0000000000abc               # all of it
  purser hold capture --customer acme --hold hld_0000000000abc --amount 12   # the rest is released
  purser hold capture --customer acme --hold hld_0000000000abc --amount 4 --keep-open")]
    Capture(CaptureArgs),
    /// Give back what a hold has set aside
    #[command(after_help = "\
Examples:
  purser hold release --customer acme --hold hld_0000000000abc --reason request-failed")]
    Release(ReleaseArgs),
    /// Show one hold
    #[command(after_help = "\
Examples:
  purser hold get --customer acme --hold hld_0000000000abc
  purser hold get --customer acme --hold hld_0000000000abc -o json | jq -r .hold.state.status")]
    Get(HoldArgs),
    /// List the holds in a wallet
    #[command(after_help = "\
Examples:
  purser hold list --customer acme --wallet main
  purser hold list --customer acme --wallet main --status open --newest-first")]
    List(ListArgs),
}

/// Which hold.
#[derive(Debug, Args)]
pub struct HoldArgs {
    /// Whose hold
    #[arg(long, value_name = "ID")]
    customer: String,
    /// Its id
    #[arg(long, value_name = "HOLD")]
    hold: String,
}

/// A hold to be.
#[derive(Debug, Args)]
#[command(group(ArgGroup::new("payer").required(true).args(["wallet", "asset"])))]
pub struct PlaceArgs {
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
    /// How long it lives, at most 24h [default: 5m]
    #[arg(long, value_name = "TIME", value_parser = parse::ttl)]
    ttl: Option<prost_types::Duration>,
    /// What is charged for [default: none, which only credit of any scope may pay]
    #[arg(long, ignore_case = true, value_name = "TYPE",
          value_parser = words::read::<ChargeType>(words::CHARGE_TYPES))]
    charge_type: Option<ChargeType>,
    /// The feature that is paid for
    #[arg(long, default_value = "", hide_default_value = true)]
    feature: String,
    #[command(flatten)]
    texts: TextArgs,
}

/// How much longer.
#[derive(Debug, Args)]
pub struct ExtendArgs {
    #[command(flatten)]
    hold: HoldArgs,
    /// How long from now; never less than it had, at most 24h in all
    #[arg(long, value_name = "TIME", value_parser = parse::ttl)]
    ttl: prost_types::Duration,
    /// Why
    #[arg(long, value_name = "CODE", default_value = "", hide_default_value = true)]
    reason: String,
    #[command(flatten)]
    write: WriteArgs,
}

/// How much to spend.
#[derive(Debug, Args)]
pub struct CaptureArgs {
    #[command(flatten)]
    hold: HoldArgs,
    /// How much, in whole units of the asset [default: all that is left]
    #[arg(long, value_parser = parse::amount)]
    amount: Option<String>,
    /// More will be captured: what is left stays set aside
    #[arg(long)]
    keep_open: bool,
    #[command(flatten)]
    texts: TextArgs,
}

/// What to give back.
#[derive(Debug, Args)]
pub struct ReleaseArgs {
    #[command(flatten)]
    hold: HoldArgs,
    #[command(flatten)]
    texts: TextArgs,
}

/// Which holds.
#[derive(Debug, Args)]
pub struct ListArgs {
    #[command(flatten)]
    wallet: WalletArgs,
    /// Only holds in this state; may be repeated
    #[arg(long, ignore_case = true,
          value_parser = words::read::<HoldStatus>(words::HOLD_STATUSES))]
    status: Vec<HoldStatus>,
    /// Only holds with this reference
    #[arg(long, default_value = "", hide_default_value = true)]
    reference: String,
    #[command(flatten)]
    page: PageArgs,
}

impl HoldCommand {
    /// Runs it.
    pub async fn run(self, session: &Session) -> Result<Answer, Failure> {
        match self {
            HoldCommand::Place(args) => args.run(session).await,
            HoldCommand::Extend(args) => args.run(session).await,
            HoldCommand::Capture(args) => args.run(session).await,
            HoldCommand::Release(args) => args.run(session).await,
            HoldCommand::Get(args) => args.run(session).await,
            HoldCommand::List(args) => args.run(session).await,
        }
    }
}

impl PlaceArgs {
    async fn run(self, session: &Session) -> Result<Answer, Failure> {
        let key = self.texts.write.key();
        let about = About::write(format!("hold {} of {}", self.amount, self.customer), &key);
        let payer = match (self.wallet, self.asset) {
            (Some(wallet), _) => Some(Payer::Wallet(wallet)),
            (None, asset) => asset.map(Payer::Asset),
        };
        let request = session.request(HoldRequest {
            namespace: session.namespace(),
            customer: self.customer,
            idempotency_key: key.clone(),
            valid_until: None,
            payer,
            amount: self.amount,
            ttl: self.ttl,
            charge_type: self.charge_type.unwrap_or_default().into(),
            feature: self.feature,
            reference: self.texts.reference,
            reason_code: self.texts.reason,
            metadata: self.texts.metadata.into_iter().collect(),
        });
        let mut ledger = session.ledger();
        let response = session.wait(about, ledger.hold(request)).await?;
        Ok(show_held(&response, &key))
    }
}

impl ExtendArgs {
    async fn run(self, session: &Session) -> Result<Answer, Failure> {
        let key = self.write.key();
        let about = About::write(format!("extend {}", self.hold.hold), &key);
        let request = session.request(ExtendHoldRequest {
            namespace: session.namespace(),
            customer: self.hold.customer,
            idempotency_key: key.clone(),
            valid_until: None,
            hold_id: self.hold.hold,
            ttl: Some(self.ttl),
            reason_code: self.reason,
        });
        let mut ledger = session.ledger();
        let response = session.wait(about, ledger.extend_hold(request)).await?;
        Ok(show_extended(&response, &key))
    }
}

impl CaptureArgs {
    async fn run(self, session: &Session) -> Result<Answer, Failure> {
        let key = self.texts.write.key();
        let about = About::write(format!("capture {}", self.hold.hold), &key);
        let request = session.request(CaptureRequest {
            namespace: session.namespace(),
            customer: self.hold.customer,
            idempotency_key: key.clone(),
            valid_until: None,
            hold_id: self.hold.hold,
            amount: self.amount.unwrap_or_default(),
            keep_open: self.keep_open,
            reference: self.texts.reference,
            reason_code: self.texts.reason,
            metadata: self.texts.metadata.into_iter().collect(),
        });
        let mut ledger = session.ledger();
        let response = session.wait(about, ledger.capture(request)).await?;
        Ok(show_captured(&response, &key))
    }
}

impl ReleaseArgs {
    async fn run(self, session: &Session) -> Result<Answer, Failure> {
        let key = self.texts.write.key();
        let about = About::write(format!("release {}", self.hold.hold), &key);
        let request = session.request(ReleaseRequest {
            namespace: session.namespace(),
            customer: self.hold.customer,
            idempotency_key: key.clone(),
            valid_until: None,
            hold_id: self.hold.hold,
            reference: self.texts.reference,
            reason_code: self.texts.reason,
            metadata: self.texts.metadata.into_iter().collect(),
        });
        let mut ledger = session.ledger();
        let response = session.wait(about, ledger.release(request)).await?;
        Ok(show_released(&response, &key))
    }
}

impl HoldArgs {
    async fn run(self, session: &Session) -> Result<Answer, Failure> {
        let about = About::read(format!("show {} of {}", self.hold, self.customer));
        let request = session.request(GetHoldRequest {
            namespace: session.namespace(),
            customer: self.customer,
            hold_id: self.hold,
        });
        let mut ledger = session.ledger();
        let response = session.wait(about, ledger.get_hold(request)).await?;
        Ok(show_one(&response))
    }
}

impl ListArgs {
    async fn run(self, session: &Session) -> Result<Answer, Failure> {
        let about = About::read(format!("list the holds in {}", self.wallet));
        let request = session.request(ListHoldsRequest {
            namespace: session.namespace(),
            customer: self.wallet.customer,
            page: Some(self.page.request()),
            wallet: self.wallet.wallet,
            statuses: self.status.into_iter().map(i32::from).collect(),
            reference: self.reference,
        });
        let mut ledger = session.ledger();
        let response = session.wait(about, ledger.list_holds(request)).await?;
        let text = rows(&response.holds) + &page::hint(response.page.as_ref());
        Ok(Answer::new(text, json::shape(&response)))
    }
}

fn show_held(response: &HoldResponse, key: &str) -> Answer {
    let headline = |state: &HoldState| {
        let until = times::or_none(state.expires_at.as_ref());
        format!("held {} until {until}: {}", receipt::sum(&state.amount, state.asset.as_ref()), state.hold_id)
    };
    let text =
        written(response.hold.as_ref().map(headline), &response.remaining, response.receipt.as_ref(), key);
    Answer::new(text, json::shape_write(response, key))
}

fn show_extended(response: &ExtendHoldResponse, key: &str) -> Answer {
    let headline = |state: &HoldState| {
        format!("{} lives until {}", state.hold_id, times::or_none(state.expires_at.as_ref()))
    };
    let text =
        written(response.hold.as_ref().map(headline), &response.remaining, response.receipt.as_ref(), key);
    Answer::new(text, json::shape_write(response, key))
}

fn show_captured(response: &CaptureResponse, key: &str) -> Answer {
    let headline = |state: &HoldState| {
        let spent = receipt::sum(&response.amount, state.asset.as_ref());
        let status = words::show::<HoldStatus>(state.status);
        format!(
            "captured {spent}, released {}: {} is {status}, {} left in it",
            response.released, state.hold_id, state.left
        )
    };
    let text =
        written(response.hold.as_ref().map(headline), &response.remaining, response.receipt.as_ref(), key);
    Answer::new(text, json::shape_write(response, key))
}

fn show_released(response: &ReleaseResponse, key: &str) -> Answer {
    let headline = |state: &HoldState| {
        format!("released {}: {}", receipt::sum(&response.released, state.asset.as_ref()), state.hold_id)
    };
    let text =
        written(response.hold.as_ref().map(headline), &response.remaining, response.receipt.as_ref(), key);
    Answer::new(text, json::shape_write(response, key))
}

/// The text of every write about a hold.
fn written(headline: Option<String>, remaining: &str, receipt: Option<&Receipt>, key: &str) -> String {
    receipt::written(&format!("{}, {remaining} remaining", headline.unwrap_or_default()), receipt, key)
}

/// One row for each hold.
pub fn rows(holds: &[Hold]) -> String {
    const COLUMNS: [Column; 9] = [
        ("HOLD", Lean::Left),
        ("STATUS", Lean::Left),
        ("AMOUNT", Lean::Right),
        ("LEFT", Lean::Right),
        ("CAPTURED", Lean::Right),
        ("RELEASED", Lean::Right),
        ("EXCESS", Lean::Right),
        ("EXPIRES AT", Lean::Left),
        ("REFERENCE", Lean::Left),
    ];
    let rows = holds.iter().filter_map(|hold| {
        let state = hold.state.as_ref()?;
        Some(vec![
            state.hold_id.clone(),
            words::show::<HoldStatus>(state.status),
            state.amount.clone(),
            state.left.clone(),
            state.captured.clone(),
            state.released.clone(),
            state.excess.clone(),
            times::or_none(state.expires_at.as_ref()),
            table::or_none(&hold.reference),
        ])
    });
    table::table(&COLUMNS, rows)
}

/// Empty for a hold without one.
fn charge_type(code: i32) -> String {
    match code == i32::from(ChargeType::Unspecified) {
        true => String::new(),
        false => words::show::<ChargeType>(code),
    }
}

fn show_one(response: &GetHoldResponse) -> Answer {
    const PINS: [Column; 5] = [
        ("TRANCHE", Lean::Left),
        ("WALLET", Lean::Left),
        ("KIND", Lean::Left),
        ("AMOUNT", Lean::Right),
        ("EXPIRES AT", Lean::Left),
    ];
    let Some(hold) = &response.hold else { return Answer::new(String::new(), json::shape(response)) };
    let state = hold.state.clone().unwrap_or_default();
    let metadata: Vec<_> = hold.metadata.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let facts = table::facts([
        ("hold", state.hold_id),
        ("status", words::show::<HoldStatus>(state.status)),
        ("customer", hold.customer.clone()),
        ("wallets", hold.wallets.join(" ")),
        ("asset", receipt::asset(state.asset.as_ref())),
        ("amount", state.amount),
        ("left", state.left),
        ("captured", state.captured),
        ("released", state.released),
        ("excess", state.excess),
        ("charge type", charge_type(hold.charge_type)),
        ("feature", hold.feature.clone()),
        ("reason", hold.reason_code.clone()),
        ("reference", hold.reference.clone()),
        ("placed at", times::or_none(state.created_at.as_ref())),
        ("expires at", times::or_none(state.expires_at.as_ref())),
        ("metadata", metadata.join(" ")),
    ]);
    let pins = hold.pins.iter().map(|pin| {
        vec![
            pin.tranche_id.clone(),
            pin.wallet.clone(),
            words::show::<TrancheKind>(pin.kind),
            pin.amount.clone(),
            pin.expires_at.as_ref().map_or_else(|| "never".to_owned(), times::rfc3339),
        ]
    });
    Answer::new(format!("{facts}\n\n{}", table::table(&PINS, pins)), json::shape(response))
}
