//! `purser tranches`: what the grants put into a wallet, and where it went.

use clap::Args;
use purser_proto::v1::{
    ChargeScope, ListTranchesRequest, ListTranchesResponse, Tranche, TrancheKind, TrancheStatus,
};

use super::answer::Answer;
use super::failure::Failure;
use super::page::{self, PageArgs};
use super::session::{About, Session};
use super::table::{self, Column, Lean};
use super::wallet::WalletArgs;
use super::{json, times, words};

/// Shown under `--help`.
pub const EXAMPLES: &str = "\
Examples:
  purser tranches --customer acme --wallet main
  purser tranches --customer acme --wallet main --status active --status scheduled
  purser tranches --customer acme --wallet main --status pending   # their invoices are not paid yet
  purser tranches --customer acme --wallet main --external-reference invoice-881
  purser tranches --customer acme --wallet main -o json | jq '.tranches[] | {tranche_id, available}'";

/// Which tranches.
#[derive(Debug, Args)]
pub struct TranchesArgs {
    #[command(flatten)]
    wallet: WalletArgs,
    /// Only tranches at this stage; may be repeated
    #[arg(long, ignore_case = true,
          value_parser = words::read::<TrancheStatus>(words::TRANCHE_STATUSES))]
    status: Vec<TrancheStatus>,
    /// Only tranches of this kind; may be repeated
    #[arg(long, ignore_case = true,
          value_parser = words::read::<TrancheKind>(words::TRANCHE_KINDS))]
    kind: Vec<TrancheKind>,
    /// Only the tranche with this reference
    #[arg(long, value_name = "REFERENCE", default_value = "", hide_default_value = true)]
    external_reference: String,
    #[command(flatten)]
    page: PageArgs,
}

impl TranchesArgs {
    /// Runs it.
    pub async fn run(self, session: &Session) -> Result<Answer, Failure> {
        let about = About::read(format!("list the tranches of {}", self.wallet));
        let request = session.request(ListTranchesRequest {
            namespace: session.namespace(),
            customer: self.wallet.customer,
            page: Some(self.page.request()),
            wallet: self.wallet.wallet,
            statuses: self.status.into_iter().map(i32::from).collect(),
            kinds: self.kind.into_iter().map(i32::from).collect(),
            external_reference: self.external_reference,
        });
        let mut ledger = session.ledger();
        let response = session.wait(about, ledger.list_tranches(request)).await?;
        Ok(show(&response))
    }
}

pub(super) fn show(response: &ListTranchesResponse) -> Answer {
    let text = rows(&response.tranches) + &page::hint(response.page.as_ref());
    Answer::new(text, json::shape(response))
}

/// One row for each tranche. Its amount is the sum of the columns from pending to voided.
pub fn rows(tranches: &[Tranche]) -> String {
    const COLUMNS: [Column; 15] = [
        ("TRANCHE", Lean::Left),
        ("KIND", Lean::Left),
        ("STATUS", Lean::Left),
        ("PRIORITY", Lean::Right),
        ("AMOUNT", Lean::Right),
        ("PENDING", Lean::Right),
        ("AVAILABLE", Lean::Right),
        ("HELD", Lean::Right),
        ("CONSUMED", Lean::Right),
        ("EXPIRED", Lean::Right),
        ("VOIDED", Lean::Right),
        ("PAYS", Lean::Left),
        ("EFFECTIVE AT", Lean::Left),
        ("EXPIRES AT", Lean::Left),
        ("LABEL", Lean::Left),
    ];
    let rows = tranches.iter().map(|tranche| {
        vec![
            tranche.tranche_id.clone(),
            words::show::<TrancheKind>(tranche.kind),
            words::show::<TrancheStatus>(tranche.status),
            tranche.priority.to_string(),
            tranche.amount.clone(),
            tranche.pending.clone(),
            tranche.available.clone(),
            tranche.held.clone(),
            tranche.consumed.clone(),
            tranche.expired.clone(),
            tranche.voided.clone(),
            pays(tranche),
            times::or_none(tranche.effective_at.as_ref()),
            expires(tranche),
            table::or_none(&tranche.label),
        ]
    });
    table::table(&COLUMNS, rows)
}

/// `ANY`, `USAGE`, `USAGE: search, chat`.
fn pays(tranche: &Tranche) -> String {
    let scope = match tranche.charge_scope {
        // The same by the contract.
        0 => words::show::<ChargeScope>(ChargeScope::Any.into()),
        scope => words::show::<ChargeScope>(scope),
    };
    if tranche.features.is_empty() {
        return scope;
    }
    format!("{scope}: {}", tranche.features.join(", "))
}

/// A time, `P1M after confirmation`, or `never`.
fn expires(tranche: &Tranche) -> String {
    if let Some(lifetime) = &tranche.lifetime {
        return format!("{} after confirmation", lifetime.duration);
    }
    tranche.expires_at.as_ref().map_or_else(|| "never".to_owned(), times::rfc3339)
}
