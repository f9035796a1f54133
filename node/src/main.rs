//! The one binary, `purser`: a server, and the commands that speak to one.

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};
use purser_node::{cli, dev, start};

/// The allocator: a debit makes some dozens of small allocations, which this one makes cheaper.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A prepaid-credit ledger that API gateways ask before they forward a request
#[derive(Parser)]
#[command(name = "purser", version, about, propagate_version = true)]
struct Cli {
    #[command(flatten)]
    globals: cli::Globals,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run a ledger here: one process, data in a directory, a demo customer
    Dev(Box<dev::DevArgs>),
    /// Run one node of a cluster
    Start(Box<start::StartArgs>),
    #[command(flatten)]
    Client(cli::ClientCommand),
}

#[tokio::main]
async fn main() -> ExitCode {
    let Cli { globals, command } = Cli::parse();
    match command {
        Command::Client(client) => client.run(&globals, Cli::command()).await,
        Command::Dev(dev) => exit(dev.run().await),
        Command::Start(start) => exit(start.run().await),
    }
}

fn exit(ended: anyhow::Result<()>) -> ExitCode {
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("purser: {error:#}");
            ExitCode::FAILURE
        }
    }
}
