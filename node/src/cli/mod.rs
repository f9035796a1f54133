//! The client side of the one binary `purser`: commands that speak to a server over gRPC.
//!
//! Each command is three plain steps: flags become a request (`parse`, `words`), the request is sent
//! (`session`), the response becomes an [`Answer`] for people and for programs (`table`, `json`).
//! What goes wrong becomes a [`failure::Failure`], which says what was refused, why, and what to do
//! next.
//!
//! Invariants:
//! - stdout carries the answer and nothing else; stderr carries failures;
//! - the exit code alone says what came of it ([`answer::Exit`]);
//! - a write always has an idempotency key, and whoever sees its outcome unknown is told the key;
//! - amounts are never computed with, only shown: they stay the strings that the server sent.

mod adjust;
mod answer;
mod audit;
mod balance;
mod batch;
mod call;
mod clock;
mod cluster;
mod debit;
mod describe;
mod failure;
mod grant;
mod grant_life;
mod hold;
mod json;
mod movements;
mod page;
mod parse;
mod receipt;
mod reflection;
mod refund;
mod replace;
mod session;
mod status;
mod table;
mod times;
mod tranches;
mod wallet;
mod words;
mod write;

#[cfg(test)]
mod tests;

use std::process::ExitCode;

use clap::Subcommand;

pub use answer::{Answer, Exit};
pub use failure::Failure;
pub use session::{DEFAULT_SERVER, Globals, OutputFormat, Session};

/// What a client may ask of a server. The server's own commands stand beside it in `main.rs`.
#[derive(Debug, Subcommand)]
pub enum ClientCommand {
    /// Create, show, list, change, freeze and close wallets
    #[command(subcommand, after_help = wallet::EXAMPLES)]
    Wallet(wallet::WalletCommand),

    /// Put credits into a wallet, now or later, for ever or for a while; confirm, fail or void a grant
    #[command(after_help = grant::EXAMPLES)]
    Grant(Box<grant::GrantArgs>),

    /// Burn credits, or see what a debit would do (--explain)
    #[command(after_help = debit::EXAMPLES)]
    Debit(Box<debit::DebitArgs>),

    /// Send many writes of several sorts from a file, one a line
    #[command(after_help = batch::EXAMPLES)]
    Batch(batch::BatchArgs),

    /// Set credits aside for a request in flight, then spend or release them
    #[command(subcommand, after_help = hold::EXAMPLES)]
    Hold(hold::HoldCommand),

    /// Give back what a debit or capture spent
    #[command(after_help = refund::EXAMPLES)]
    Refund(Box<refund::RefundArgs>),

    /// Correct a wallet's credits, up or down
    #[command(after_help = adjust::EXAMPLES)]
    Adjust(Box<adjust::AdjustArgs>),

    /// Show what a customer has
    #[command(after_help = balance::EXAMPLES)]
    Balance(balance::BalanceArgs),

    /// List what the grants put into a wallet and what is left of each
    #[command(after_help = tranches::EXAMPLES)]
    Tranches(tranches::TranchesArgs),

    /// List the ledger entries of a wallet
    #[command(alias = "ledger", after_help = movements::EXAMPLES)]
    Movements(Box<movements::MovementsArgs>),

    /// Re-compute balances and hash chains: do the books add up?
    #[command(after_help = audit::EXAMPLES)]
    Audit(audit::AuditArgs),

    /// Read the server's clock, or advance a test clock
    #[command(subcommand, after_help = clock::EXAMPLES)]
    Clock(clock::ClockCommand),

    /// Found a cluster, see how it does, and replace a lost node
    #[command(subcommand, after_help = cluster::EXAMPLES)]
    Cluster(cluster::ClusterCommand),

    /// Call any method with JSON, by server reflection
    #[command(after_help = call::EXAMPLES)]
    Call(call::CallArgs),

    /// Print a completion script for a shell
    #[command(after_help = COMPLETIONS_EXAMPLES)]
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
}

const COMPLETIONS_EXAMPLES: &str = "\
Examples:
  purser completions bash > /etc/bash_completion.d/purser
  purser completions zsh > ~/.zfunc/_purser";

impl ClientCommand {
    /// Runs the command and prints what came of it. `binary` is the whole command line's definition,
    /// which completions are made from.
    pub async fn run(self, globals: &Globals, binary: clap::Command) -> ExitCode {
        let exit = match self.answer(globals, binary).await {
            Ok(answer) => {
                answer::print(&answer, globals.output);
                answer.exit
            }
            Err(failure) => {
                if let Failure::Partial(partial) = &failure {
                    answer::print(&partial.answer, globals.output);
                }
                let report = failure.report();
                report.print(globals.output);
                report.exit
            }
        };
        exit.into()
    }

    async fn answer(self, globals: &Globals, binary: clap::Command) -> Result<Answer, Failure> {
        if let ClientCommand::Completions { shell } = self {
            return Ok(completions(shell, binary));
        }
        if let ClientCommand::Cluster(cluster::ClusterCommand::Init(init)) = self {
            return init.run(globals).await;
        }
        if let ClientCommand::Cluster(cluster::ClusterCommand::Replace(replace)) = self {
            return replace.run(globals).await;
        }
        let session = Session::connect(globals).await?;
        match self {
            ClientCommand::Wallet(command) => command.run(&session).await,
            ClientCommand::Grant(args) => args.run(&session).await,
            ClientCommand::Debit(args) => args.run(&session).await,
            ClientCommand::Batch(args) => args.run(&session).await,
            ClientCommand::Hold(command) => command.run(&session).await,
            ClientCommand::Refund(args) => args.run(&session).await,
            ClientCommand::Adjust(args) => args.run(&session).await,
            ClientCommand::Balance(args) => args.run(&session).await,
            ClientCommand::Tranches(args) => args.run(&session).await,
            ClientCommand::Movements(args) => args.run(&session).await,
            ClientCommand::Audit(args) => args.run(&session).await,
            ClientCommand::Clock(command) => command.run(&session).await,
            ClientCommand::Cluster(command) => command.run(&session).await,
            ClientCommand::Call(args) => args.run(&session).await,
            ClientCommand::Completions { shell } => Ok(completions(shell, binary)),
        }
    }
}

fn completions(shell: clap_complete::Shell, mut binary: clap::Command) -> Answer {
    let name = binary.get_name().to_owned();
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut binary, name, &mut script);
    let script = String::from_utf8_lossy(&script).into_owned();
    Answer::new(script.clone(), serde_json::Value::String(script))
}
