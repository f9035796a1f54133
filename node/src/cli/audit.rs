//! `purser audit`: do the books add up?

use clap::Args;
use purser_proto::v1::{AuditRequest, AuditResponse};

use super::answer::{Answer, Exit};
use super::failure::Failure;
use super::session::{About, Session};
use super::table::{self, Column, Lean};
use super::{json, receipt, times};

/// Shown under `--help`.
pub const EXAMPLES: &str = "\
Examples:
  purser audit --customer acme
  purser audit --customer acme --wallet main
  purser audit --customer acme -o json | jq '.wallets[] | {wallet, movements, chain_hash}'

The exit code is 1 if something does not add up. Keep the chain hashes elsewhere: a history that was
rewritten later does not lead to them.";

/// What to audit.
#[derive(Debug, Args)]
pub struct AuditArgs {
    /// Whose books
    #[arg(long, value_name = "ID")]
    customer: String,
    /// Only this wallet
    #[arg(long, value_name = "ID")]
    wallet: Option<String>,
}

impl AuditArgs {
    /// Runs it.
    pub async fn run(self, session: &Session) -> Result<Answer, Failure> {
        let about = About::read(format!("audit {}", self.customer));
        let request = session.request(AuditRequest {
            namespace: session.namespace(),
            customer: self.customer,
            wallet: self.wallet.unwrap_or_default(),
        });
        let mut ledger = session.ledger();
        let response = session.wait(about, ledger.audit(request)).await?;
        Ok(show(&response))
    }
}

pub(super) fn show(response: &AuditResponse) -> Answer {
    let at = response.point.as_ref().and_then(|point| point.ledger_time.as_ref());
    let verdict = match response.findings.len() {
        0 => "the books add up".to_owned(),
        1 => "1 finding: the books do NOT add up".to_owned(),
        count => format!("{count} findings: the books do NOT add up"),
    };
    let mut text = format!("{verdict} (at {})\n\n{}", times::or_none(at), wallets(response));
    if response.findings.is_empty() {
        return Answer::new(text, json::shape(response));
    }
    text.push_str(&format!("\n\n{}", findings(response)));
    Answer::new(text, json::shape(response)).with_exit(Exit::Refused)
}

fn wallets(response: &AuditResponse) -> String {
    const COLUMNS: [Column; 6] = [
        ("WALLET", Lean::Left),
        ("ASSET", Lean::Left),
        ("SETTLED", Lean::Right),
        ("MOVEMENTS", Lean::Right),
        ("TRANCHES", Lean::Right),
        ("CHAIN HASH", Lean::Left),
    ];
    let rows = response.wallets.iter().map(|wallet| {
        vec![
            wallet.wallet.clone(),
            receipt::asset(wallet.asset.as_ref()),
            wallet.settled.clone(),
            wallet.movements.to_string(),
            wallet.tranches.to_string(),
            wallet.chain_hash.clone(),
        ]
    });
    table::table(&COLUMNS, rows)
}

fn findings(response: &AuditResponse) -> String {
    const COLUMNS: [Column; 2] = [("WALLET", Lean::Left), ("FINDING", Lean::Left)];
    let findings = response.findings.iter();
    table::table(&COLUMNS, findings.map(|finding| vec![finding.wallet.clone(), finding.message.clone()]))
}
