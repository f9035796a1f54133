//! The one binary, `purser`: a server, and the commands that speak to one.

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};
use purser_node::{allocator, cli, dev, start};

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

fn main() -> ExitCode {
    allocator::keep_memory();
    let cli = Cli::parse();
    match runtime() {
        Ok(runtime) => runtime.block_on(run(cli)),
        Err(error) => exit(Err(error.into())),
    }
}

/// A thread a core.
///
/// A task that is woken waits for its turn: what its connection has to send, or its batch to carry, comes
/// together meanwhile (docs/adr/0011-the-order-of-tasks.md). The runtime's default is to run it at once,
/// before all others.
fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    #[cfg(tokio_unstable)]
    runtime.disable_lifo_slot();
    runtime.enable_all().build()
}

async fn run(Cli { globals, command }: Cli) -> ExitCode {
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
