//! `purser wallet`: a wallet's life.

use clap::{ArgGroup, Args, Subcommand};
use prost::{Message, Name};
use purser_proto::v1::{
    Asset, BurnPolicy, ChargeScope, CloseWalletRequest, CreateWalletRequest, FreezeWalletRequest,
    GetWalletRequest, ListWalletsRequest, ListWalletsResponse, Receipt, UpdateWalletRequest, Wallet,
    WalletStatus,
};

use super::answer::Answer;
use super::failure::Failure;
use super::page::{self, PageArgs};
use super::session::{About, Session};
use super::table::{self, Column, Lean};
use super::write::WriteArgs;
use super::{json, parse, receipt, times, words};

/// Shown under `--help`.
pub const EXAMPLES: &str = "\
Examples:
  purser wallet create --customer acme --wallet main --asset credits/0
  purser wallet create --customer acme --wallet promo --asset credits/0 --draw-priority 10
  purser wallet list --customer acme
  purser wallet update --customer acme --wallet promo --draw-priority 20
  purser wallet freeze --customer acme --wallet main --reason chargeback
  purser wallet close --customer acme --wallet promo";

/// What may be done with wallets.
#[derive(Debug, Subcommand)]
pub enum WalletCommand {
    /// Create a wallet, and with the first one the customer
    #[command(after_help = "\
Examples:
  purser wallet create --customer acme --wallet main --asset credits/0
  purser wallet create --customer acme --wallet calls --asset usd/6 --scope usage")]
    Create(CreateArgs),
    /// Show one wallet
    #[command(after_help = "\
Examples:
  purser wallet get --customer acme --wallet main
  purser wallet get --customer acme --wallet main -o json | jq -r .wallet.status")]
    Get(WalletArgs),
    /// List a customer's wallets
    #[command(after_help = "\
Examples:
  purser wallet list --customer acme
  purser wallet list --customer acme --asset credits/0 --status active")]
    List(ListArgs),
    /// Change a wallet's place in the draw order, or which charges it may pay
    // It has a --version of its own: the wallet's.
    #[command(
        disable_version_flag = true,
        after_help = "\
Examples:
  purser wallet update --customer acme --wallet promo --draw-priority 20
  purser wallet update --customer acme --wallet promo --version 2 --scope usage --reason new-terms"
    )]
    Update(UpdateArgs),
    /// Stop debits from a wallet; grants go on
    #[command(after_help = "\
Examples:
  purser wallet freeze --customer acme --wallet main --reason chargeback")]
    Freeze(StatusArgs),
    /// Allow debits again
    #[command(after_help = "\
Examples:
  purser wallet unfreeze --customer acme --wallet main")]
    Unfreeze(StatusArgs),
    /// Close an empty wallet for ever; its books stay readable
    #[command(after_help = "\
Examples:
  purser wallet close --customer acme --wallet promo --reason moved-to-main

It must be empty: nothing available, held or pending, and no open hold. Its id stays taken.")]
    Close(StatusArgs),
}

/// Which wallet.
#[derive(Debug, Args)]
pub struct WalletArgs {
    /// Whose wallet
    #[arg(long, value_name = "ID")]
    pub customer: String,
    /// Its id
    #[arg(long, value_name = "ID")]
    pub wallet: String,
}

/// A wallet to be.
#[derive(Debug, Args)]
pub struct CreateArgs {
    #[command(flatten)]
    wallet: WalletArgs,
    /// What it holds, for ever: a code and its decimal places
    #[arg(long, value_name = "CODE/SCALE", value_parser = parse::asset)]
    asset: Asset,
    /// 0 to 1000: when a debit names the customer, lower is drawn first [default: 100]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(0..=1000))]
    draw_priority: Option<u32>,
    /// Which charges it may pay
    #[arg(long, ignore_case = true, default_value = "any",
          value_parser = words::read::<ChargeScope>(words::CHARGE_SCOPES))]
    scope: ChargeScope,
    /// The order in which its tranches burn, for ever
    #[arg(long, ignore_case = true, default_value = "standard",
          value_parser = words::read::<BurnPolicy>(words::BURN_POLICIES))]
    burn_policy: BurnPolicy,
    #[command(flatten)]
    write: WriteArgs,
}

/// Which wallets to list.
#[derive(Debug, Args)]
pub struct ListArgs {
    /// Whose wallets
    #[arg(long, value_name = "ID")]
    customer: String,
    /// Only wallets in this asset
    #[arg(long, value_name = "CODE/SCALE", value_parser = parse::asset)]
    asset: Option<Asset>,
    /// Only wallets in this state; may be repeated
    #[arg(long, ignore_case = true,
          value_parser = words::read::<WalletStatus>(words::WALLET_STATUSES))]
    status: Vec<WalletStatus>,
    #[command(flatten)]
    page: PageArgs,
}

/// What to change of a wallet.
#[derive(Debug, Args)]
#[command(group(ArgGroup::new("change").required(true).multiple(true).args(["draw_priority", "scope"])))]
pub struct UpdateArgs {
    #[command(flatten)]
    wallet: WalletArgs,
    /// Only if it still has this version (purser wallet get) [default: whatever it has]
    #[arg(long, value_name = "N")]
    version: Option<u64>,
    /// 0 to 1000: when a debit names the customer, lower is drawn first [default: as it is]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(0..=1000))]
    draw_priority: Option<u32>,
    /// Which charges it may pay [default: as it is]
    #[arg(long, ignore_case = true,
          value_parser = words::read::<ChargeScope>(words::CHARGE_SCOPES))]
    scope: Option<ChargeScope>,
    /// Why, for the record
    #[arg(long, value_name = "CODE", default_value = "", hide_default_value = true)]
    reason: String,
    #[command(flatten)]
    write: WriteArgs,
}

/// Which wallet to freeze, unfreeze or close, and why.
#[derive(Debug, Args)]
pub struct StatusArgs {
    #[command(flatten)]
    wallet: WalletArgs,
    /// Why, for the record
    #[arg(long, value_name = "CODE", default_value = "", hide_default_value = true)]
    reason: String,
    #[command(flatten)]
    write: WriteArgs,
}

impl WalletCommand {
    /// Runs it.
    pub async fn run(self, session: &Session) -> Result<Answer, Failure> {
        match self {
            WalletCommand::Create(args) => args.run(session).await,
            WalletCommand::Get(args) => args.run(session).await,
            WalletCommand::List(args) => args.run(session).await,
            WalletCommand::Update(args) => args.run(session).await,
            WalletCommand::Freeze(args) => args.freeze(session, true).await,
            WalletCommand::Unfreeze(args) => args.freeze(session, false).await,
            WalletCommand::Close(args) => args.close(session).await,
        }
    }
}

impl WalletArgs {
    async fn run(self, session: &Session) -> Result<Answer, Failure> {
        let about = About::read(format!("show {self}"));
        let request = session.request(GetWalletRequest {
            namespace: session.namespace(),
            customer: self.customer,
            wallet: self.wallet,
        });
        let mut ledger = session.ledger();
        let response = session.wait(about, ledger.get_wallet(request)).await?;
        let text = response.wallet.as_ref().map(show).unwrap_or_default();
        Ok(Answer::new(text, json::shape(&response)))
    }
}

impl std::fmt::Display for WalletArgs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "wallet {} of {}", self.wallet, self.customer)
    }
}

impl CreateArgs {
    async fn run(self, session: &Session) -> Result<Answer, Failure> {
        let key = self.write.key();
        let about = About::write(format!("create {}", self.wallet), &key);
        let request = session.request(self.request(session.namespace(), &key));
        let mut ledger = session.ledger();
        let response = session.wait(about, ledger.create_wallet(request)).await?;
        Ok(show_written(&response, response.wallet.as_ref(), response.receipt.as_ref(), &key))
    }

    fn request(self, namespace: String, key: &str) -> CreateWalletRequest {
        CreateWalletRequest {
            namespace,
            customer: self.wallet.customer,
            idempotency_key: key.to_owned(),
            valid_until: None,
            wallet: self.wallet.wallet,
            asset: Some(self.asset),
            draw_priority: self.draw_priority,
            charge_scope: self.scope.into(),
            burn_policy: self.burn_policy.into(),
        }
    }
}

impl ListArgs {
    async fn run(self, session: &Session) -> Result<Answer, Failure> {
        let about = About::read(format!("list the wallets of {}", self.customer));
        let request = session.request(ListWalletsRequest {
            namespace: session.namespace(),
            customer: self.customer,
            page: Some(self.page.request()),
            asset: self.asset,
            statuses: self.status.into_iter().map(i32::from).collect(),
        });
        let mut ledger = session.ledger();
        let response = session.wait(about, ledger.list_wallets(request)).await?;
        Ok(show_list(&response))
    }
}

impl UpdateArgs {
    async fn run(self, session: &Session) -> Result<Answer, Failure> {
        let key = self.write.key();
        let about = About::write(format!("update {}", self.wallet), &key);
        let request = session.request(UpdateWalletRequest {
            namespace: session.namespace(),
            customer: self.wallet.customer,
            idempotency_key: key.clone(),
            valid_until: None,
            wallet: self.wallet.wallet,
            version: self.version,
            draw_priority: self.draw_priority,
            charge_scope: self.scope.unwrap_or_default().into(),
            reason_code: self.reason,
        });
        let mut ledger = session.ledger();
        let response = session.wait(about, ledger.update_wallet(request)).await?;
        Ok(show_written(&response, response.wallet.as_ref(), response.receipt.as_ref(), &key))
    }
}

impl StatusArgs {
    async fn freeze(self, session: &Session, frozen: bool) -> Result<Answer, Failure> {
        let key = self.write.key();
        let verb = if frozen { "freeze" } else { "unfreeze" };
        let about = About::write(format!("{verb} {}", self.wallet), &key);
        let request = session.request(FreezeWalletRequest {
            namespace: session.namespace(),
            customer: self.wallet.customer,
            idempotency_key: key.clone(),
            valid_until: None,
            wallet: self.wallet.wallet,
            frozen,
            reason_code: self.reason,
        });
        let mut ledger = session.ledger();
        let response = session.wait(about, ledger.freeze_wallet(request)).await?;
        Ok(show_written(&response, response.wallet.as_ref(), response.receipt.as_ref(), &key))
    }

    async fn close(self, session: &Session) -> Result<Answer, Failure> {
        let key = self.write.key();
        let about = About::write(format!("close {}", self.wallet), &key);
        let request = session.request(CloseWalletRequest {
            namespace: session.namespace(),
            customer: self.wallet.customer,
            idempotency_key: key.clone(),
            valid_until: None,
            wallet: self.wallet.wallet,
            reason_code: self.reason,
        });
        let mut ledger = session.ledger();
        let response = session.wait(about, ledger.close_wallet(request)).await?;
        Ok(show_written(&response, response.wallet.as_ref(), response.receipt.as_ref(), &key))
    }
}

/// The answer of every write about a wallet: the wallet after it.
fn show_written<M: Message + Name>(
    response: &M,
    wallet: Option<&Wallet>,
    receipt: Option<&Receipt>,
    key: &str,
) -> Answer {
    let wallet = wallet.map(show).unwrap_or_default();
    let footer = receipt::footer(receipt, key);
    Answer::new(format!("{wallet}\n\n{footer}"), json::shape_write(response, key))
}

pub(super) fn show_list(response: &ListWalletsResponse) -> Answer {
    const COLUMNS: [Column; 7] = [
        ("WALLET", Lean::Left),
        ("ASSET", Lean::Left),
        ("STATUS", Lean::Left),
        ("DRAW PRIORITY", Lean::Right),
        ("SCOPE", Lean::Left),
        ("BURN POLICY", Lean::Left),
        ("CREATED AT", Lean::Left),
    ];
    let rows = response.wallets.iter().map(|wallet| {
        vec![
            wallet.wallet.clone(),
            receipt::asset(wallet.asset.as_ref()),
            words::show::<WalletStatus>(wallet.status),
            wallet.draw_priority.to_string(),
            words::show::<ChargeScope>(wallet.charge_scope),
            words::show::<BurnPolicy>(wallet.burn_policy),
            times::or_none(wallet.created_at.as_ref()),
        ]
    });
    let text = table::table(&COLUMNS, rows) + &page::hint(response.page.as_ref());
    Answer::new(text, json::shape(response))
}

fn show(wallet: &Wallet) -> String {
    table::facts([
        ("wallet", wallet.wallet.clone()),
        ("customer", wallet.customer.clone()),
        ("asset", receipt::asset(wallet.asset.as_ref())),
        ("status", words::show::<WalletStatus>(wallet.status)),
        ("draw priority", wallet.draw_priority.to_string()),
        ("scope", words::show::<ChargeScope>(wallet.charge_scope)),
        ("burn policy", words::show::<BurnPolicy>(wallet.burn_policy)),
        ("version", wallet.version.to_string()),
        ("created at", times::or_none(wallet.created_at.as_ref())),
    ])
}
