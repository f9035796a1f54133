//! `purser balance`: what a customer has now.

use clap::Args;
use purser_proto::v1::{Asset, Balance, GetBalanceRequest, GetBalanceResponse, TrancheKind, WalletBalance};

use super::answer::Answer;
use super::failure::Failure;
use super::session::{About, Session};
use super::table::{self, Column, Lean};
use super::{hold, json, parse, receipt, times, tranches, words};

/// Shown under `--help`.
pub const EXAMPLES: &str = "\
Examples:
  purser balance --customer acme
  purser balance --customer acme --wallet main --by-kind --by-tranche --by-hold
  purser balance --customer acme --asset credits/0 --expiring-within 7
  purser balance --customer acme -o json | jq -r '.wallets[].balance.available'";

/// Days that `--expiring-within` may look ahead: ten years.
const EXPIRING_DAYS_MAX: i64 = 3_660;

/// What to look at.
#[derive(Debug, Args)]
pub struct BalanceArgs {
    /// Whose balance
    #[arg(long, value_name = "ID")]
    customer: String,
    /// Only this wallet
    #[arg(long, value_name = "ID", conflicts_with = "asset")]
    wallet: Option<String>,
    /// Only wallets in this asset
    #[arg(long, value_name = "CODE/SCALE", value_parser = parse::asset)]
    asset: Option<Asset>,
    /// Also show what expires within so many days; 0 to leave it out
    #[arg(long, value_name = "DAYS", default_value_t = 30,
          value_parser = clap::value_parser!(u32).range(0..=EXPIRING_DAYS_MAX))]
    expiring_within: u32,
    /// Break it down by kind
    #[arg(long)]
    by_kind: bool,
    /// List the open tranches
    #[arg(long)]
    by_tranche: bool,
    /// List the open holds
    #[arg(long)]
    by_hold: bool,
}

impl BalanceArgs {
    /// Runs it.
    pub async fn run(self, session: &Session) -> Result<Answer, Failure> {
        let about = About::read(format!("show the balance of {}", self.customer));
        let request = session.request(GetBalanceRequest {
            namespace: session.namespace(),
            customer: self.customer,
            wallet: self.wallet.unwrap_or_default(),
            asset: self.asset,
            expiring_within_days: self.expiring_within,
            by_kind: self.by_kind,
            by_tranche: self.by_tranche,
            by_hold: self.by_hold,
        });
        let mut ledger = session.ledger();
        let response = session.wait(about, ledger.get_balance(request)).await?;
        Ok(show(&response))
    }
}

pub(super) fn show(response: &GetBalanceResponse) -> Answer {
    const COLUMNS: [Column; 9] = [
        ("WALLET", Lean::Left),
        ("ASSET", Lean::Left),
        ("AVAILABLE", Lean::Right),
        ("HELD", Lean::Right),
        ("PENDING", Lean::Right),
        ("DEBT", Lean::Right),
        ("SETTLED", Lean::Right),
        ("EXPIRING", Lean::Right),
        ("STATUS", Lean::Left),
    ];
    let wallets = response.wallets.iter().filter_map(wallet_row);
    // One wallet is its own total.
    let totals = response.totals.iter().filter(|_| response.wallets.len() > 1).map(total_row);
    let mut text = table::table(&COLUMNS, wallets.chain(totals));
    for wallet in &response.wallets {
        text.push_str(&kinds(wallet));
        text.push_str(&open_tranches(wallet));
        text.push_str(&open_holds(wallet));
    }
    text.push_str(&footer(response));
    Answer::new(text, json::shape(response))
}

fn wallet_row(wallet: &WalletBalance) -> Option<Vec<String>> {
    let mut row = receipt::balance_row(wallet.balance.as_ref()?);
    row.push(table::or_none(&wallet.expiring));
    let status = match (wallet.closed, wallet.frozen) {
        (true, _) => "CLOSED",
        (false, true) => "FROZEN",
        (false, false) => "ACTIVE",
    };
    row.push(status.to_owned());
    Some(row)
}

fn total_row(total: &Balance) -> Vec<String> {
    let mut row = receipt::balance_row(total);
    row[0] = "(total)".to_owned();
    row.extend([String::new(), String::new()]);
    row
}

fn kinds(wallet: &WalletBalance) -> String {
    const COLUMNS: [Column; 4] =
        [("KIND", Lean::Left), ("AVAILABLE", Lean::Right), ("HELD", Lean::Right), ("PENDING", Lean::Right)];
    if wallet.kinds.is_empty() {
        return String::new();
    }
    let rows = wallet.kinds.iter().map(|kind| {
        vec![
            words::show::<TrancheKind>(kind.kind),
            kind.available.clone(),
            kind.held.clone(),
            kind.pending.clone(),
        ]
    });
    format!("\n\n{} by kind:\n{}", name(wallet), table::table(&COLUMNS, rows))
}

fn open_tranches(wallet: &WalletBalance) -> String {
    if wallet.tranches.is_empty() {
        return String::new();
    }
    let more = if wallet.tranches_truncated { "\n… and more: purser tranches" } else { "" };
    format!("\n\n{} by tranche:\n{}{more}", name(wallet), tranches::rows(&wallet.tranches))
}

fn open_holds(wallet: &WalletBalance) -> String {
    if wallet.holds.is_empty() {
        return String::new();
    }
    let more = if wallet.holds_truncated { "\n… and more: purser hold list --status open" } else { "" };
    format!("\n\n{} by hold:\n{}{more}", name(wallet), hold::rows(&wallet.holds))
}

fn name(wallet: &WalletBalance) -> String {
    table::clean(wallet.balance.as_ref().map_or("", |balance| balance.wallet.as_str()))
}

fn footer(response: &GetBalanceResponse) -> String {
    let at = response.point.as_ref().and_then(|point| point.ledger_time.as_ref());
    let before = response.wallets.iter().find_map(|wallet| wallet.expiring_before.as_ref());
    let expiring =
        before.map_or_else(String::new, |before| format!("; expiring before {}", times::rfc3339(before)));
    format!("\n\nat {}{expiring}", times::or_none(at))
}
