//! Benchmarks of Purser. Each scenario is a file.

use clap::{Parser, Subcommand};

mod layout;
mod workload;

/// The allocator of the `purser` binary, so that figures are those of the binary.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Parser)]
#[command(name = "purser-bench", about = "Benchmarks of Purser")]
struct Options {
    #[command(subcommand)]
    scenario: Scenario,
}

#[derive(Subcommand)]
enum Scenario {
    /// The layout gate: apply on RocksDB, one replica, one thread, through the real row codec.
    Layout(layout::Options),
}

fn main() -> anyhow::Result<()> {
    match Options::parse().scenario {
        Scenario::Layout(options) => layout::run(&options),
    }
}
