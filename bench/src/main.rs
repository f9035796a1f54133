//! Benchmarks of Purser. Each scenario is a file.

use clap::{Parser, Subcommand};

mod demo;
mod layout;
mod nodes;
mod peers;
mod run;
mod workload;

/// The allocator of the `purser` binary, so that figures are those of the binary.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Parser)]
#[command(name = "purser-bench", version, about = "Benchmarks of Purser")]
struct Options {
    #[command(subcommand)]
    scenario: Scenario,
}

#[derive(Subcommand)]
enum Scenario {
    /// Three nodes, a load, kill -9, and an audit of every acknowledged debit
    Demo(demo::Options),
    /// The layout gate: apply on RocksDB, one replica, one thread, through the real row codec
    Layout(layout::Options),
    /// The same work on Purser and on PostgreSQL, in turn: medians and ratios
    Peers(Box<peers::Options>),
    /// Debits through servers started for it: throughput, latency, CPU and bytes a debit
    Run(Box<run::Options>),
}

fn main() -> anyhow::Result<()> {
    purser_node::allocator::keep_memory();
    match Options::parse().scenario {
        Scenario::Demo(options) => tokio::runtime::Runtime::new()?.block_on(demo::run(&options)),
        Scenario::Layout(options) => layout::run(&options),
        Scenario::Peers(options) => peers::run(&options),
        Scenario::Run(options) => run::run(&options),
    }
}
