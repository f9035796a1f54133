//! `purser-bench run`: debits through real servers on this machine, from the caller's side.
//!
//! ```text
//!   scenario (which loads) --> course (one after the other) --> report (table, JSON), page (HTML), plot
//!                                 |
//!   nodes <-- gateway, streams <-- target <-- load (closed, open loop)    measure (one load)
//!    | |                                      books (what each wallet must hold) --> audit
//!    | +-- usage (/proc): CPU, bytes, memory
//!    +---- metrics: syncs, log entries
//! ```
//! Load, books and measurements know a system as a `target` alone: peers are measured by the same code.
//!
//! Only applied debits count. A wallet that is too short denies, and is refilled by one call: denials
//! and refills cost time and CPU, which is in the figures, and are told beside them. At the end every
//! balance is asked for; a run whose books do not add up fails.

mod batches;
pub mod books;
pub mod course;
mod due;
pub mod gateway;
mod growth;
pub mod load;
pub mod machine;
pub mod measure;
mod metrics;
mod page;
mod plot;
pub mod report;
pub mod scenario;
mod streams;
pub mod target;
pub mod usage;

use std::path::PathBuf;

use anyhow::Context;
use clap::ValueEnum;
use purser_proto::v1;

use course::Course;
use due::DueOptions;
use gateway::Gateway;
use growth::GrowthOptions;
use machine::Machine;
use report::{Ending, Report, Start};
use scenario::{LoadOptions, Scenario};
use streams::Streams;
use tokio::time::Instant;
use usage::{Device, Process, Watched};

use crate::nodes::{Nodes, NodesOptions, purser};

/// Options of a run.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Options {
    /// What is measured
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        default_value = "single,batch,stream,hot,one,read,mission"
    )]
    scenario: Vec<Scenario>,
    #[command(flatten)]
    loads: LoadOptions,
    #[command(flatten)]
    growth: GrowthOptions,
    #[command(flatten)]
    due: DueOptions,
    /// Ask for answers without draws and balances (batch, stream)
    #[arg(long)]
    brief: bool,
    /// Connections to each server
    #[arg(long, value_name = "NUMBER", default_value_t = 8)]
    connections: usize,
    /// Servers that run already, by URL, instead of starting some
    #[arg(long, value_name = "URLS", value_delimiter = ',')]
    servers: Vec<String>,
    /// Nodes to start: 1, or 3 and more for a cluster with three replicas of each shard
    #[arg(long, default_value_t = 3, value_name = "NUMBER")]
    nodes: usize,
    /// Shards of the cluster that is started
    #[arg(long, value_name = "NUMBER", default_value_t = 16)]
    shards: u16,
    /// The server's binary [default: purser, beside this one]
    #[arg(long, value_name = "FILE")]
    purser: Option<PathBuf>,
    /// Where the servers' data is put for the time of the run [default: the system's temporary directory]
    #[arg(long, value_name = "DIRECTORY")]
    directory: Option<PathBuf>,
    /// How the report is written
    #[arg(short, long, value_enum, default_value = "table")]
    output: Output,
    /// Write the report as a page with plots besides
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    /// For people
    Table,
    /// For programs
    Json,
}

const EXAMPLES: &str = "\
Examples:
  purser-bench run                                    everything but growth, in about four minutes
  purser-bench run --html report.html                 with plots, as a page
  purser-bench run --scenario batch --brief -o json   batches only, as JSON
  purser-bench run --scenario single --spread zipf --clients 256 --open none
  purser-bench run --scenario single --clients 64 --spread uniform --rate 5000
                                                      latency at 5,000 debits a second
  purser-bench run --scenario stream --streams 8 --window 512 --open all
  purser-bench run --scenario hold                    holds and their captures
  purser-bench run --scenario due                     a million tranches expire at once beside debits
  purser-bench run --scenario growth                  up to 1,000,000 wallets and 10,000,000 debits, in
                                                      about half an hour; then a server starts again
  purser-bench run --wallets 500 --clients 16 --spread uniform --batch-debits 100 \\
                   --open none --warm-up-s 0 --measure-s 1
                                                      a look whether it works, in half a minute

Everything started is stopped and removed at the end, also after an error or Ctrl-C.
The exit code is 0 only if every call was answered as it must be and every wallet holds
what it must.";

/// Runs, and prints the report to stdout; progress goes to stderr.
pub fn run(options: &Options) -> anyhow::Result<()> {
    options.loads.check()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let report = runtime.block_on(async {
        tokio::select! {
            biased;
            ended = interrupted() => Err(ended.err().map_or(anyhow::anyhow!("interrupted"), Into::into)),
            report = start(options) => report,
        }
    })?;
    if let Some(file) = &options.html {
        std::fs::write(file, page::page(&report)?)
            .with_context(|| format!("cannot write {}", file.display()))?;
    }
    match options.output {
        Output::Table => println!("{}", report.table()),
        Output::Json => println!("{}", report.json()?),
    }
    Ok(())
}

/// Returns with Ctrl-C or SIGTERM.
pub async fn interrupted() -> std::io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::select! {
        biased;
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

async fn start(options: &Options) -> anyhow::Result<Report> {
    let directory = options.directory.clone().unwrap_or_else(std::env::temp_dir);
    let machine = Machine::look(&directory);
    let own = Process { name: "load".to_owned(), pid: std::process::id(), with_descendants: false };
    if !options.servers.is_empty() {
        let watched = Watched { processes: vec![own], device: None };
        let addresses = [options.servers.clone(), Vec::new()];
        return drive(options, machine, "Purser".to_owned(), addresses, &watched).await;
    }
    let device = Device::of(&directory);
    let binary = match &options.purser {
        Some(binary) => binary.clone(),
        None => purser()?,
    };
    let (count, shards) = (options.nodes, options.shards);
    let nodes = NodesOptions { binary, directory, count, shards };
    let system = format!("Purser {}", version(&nodes)?);
    let mut cluster = Nodes::start(nodes).await?;
    let node = |(name, pid)| Process { name, pid, with_descendants: false };
    let processes = cluster.processes().into_iter().map(node).chain([own]).collect();
    let watched = Watched { processes, device };
    let addresses = [cluster.urls(), cluster.metrics_urls()];
    match drive(options, machine, system, addresses, &watched).await {
        Ok(mut report) => {
            if options.scenario.contains(&Scenario::Growth) {
                for after in [Ending::Stopped, Ending::Killed] {
                    report.starts.push(start_again(&mut cluster, after).await?);
                }
            }
            cluster.stop().await?;
            Ok(report)
        }
        Err(error) => Err(error.context(format!("the servers' last words:\n{}", cluster.log_tail()))),
    }
}

/// Ends the first server, starts it again, and waits until it is ready.
async fn start_again(cluster: &mut Nodes, after: Ending) -> anyhow::Result<Start> {
    match after {
        Ending::Stopped => cluster.nodes[0].stop().await?,
        Ending::Killed => cluster.nodes[0].kill()?,
    }
    let begun = Instant::now();
    cluster.start_again(0)?;
    metrics::wait_until_ready(&cluster.ready_url(0)).await?;
    let ready_ms = begun.elapsed().as_millis() as u64;
    let (process, pid) = cluster.processes().swap_remove(0);
    let resident_mib = usage::memory_of(pid) >> 20;
    cluster.wait_until_led().await?;
    Ok(Start { process, after, ready_ms, resident_mib })
}

/// What the server's binary says of itself.
pub fn version(nodes: &NodesOptions) -> anyhow::Result<String> {
    let binary = &nodes.binary;
    let told = std::process::Command::new(binary).arg("--version").output().with_context(|| {
        format!(
            "cannot run {}: build it (cargo build -p purser-node), or name it with --purser",
            binary.display()
        )
    })?;
    let told = String::from_utf8_lossy(&told.stdout);
    Ok(told.trim().trim_start_matches("purser ").to_owned())
}

async fn drive(
    options: &Options,
    machine: Machine,
    system: String,
    [urls, metrics]: [Vec<String>; 2],
    watched: &Watched,
) -> anyhow::Result<Report> {
    let detail = if options.brief { v1::ReceiptDetail::Brief } else { v1::ReceiptDetail::Full };
    let gateway = Gateway::connect(&urls, options.connections, detail).await?.with_metrics(metrics);
    let mut course = Course::new(&options.loads, watched);
    let (growth, shared): (Vec<_>, Vec<_>) =
        options.scenario.iter().partition(|scenario| **scenario == Scenario::Growth);
    if !shared.is_empty() {
        let books = course.wallets(&gateway).await?;
        for &scenario in shared {
            if scenario == Scenario::Due {
                due::due(&mut course, &gateway, &books, &options.due).await?;
            } else if scenario == Scenario::Stream {
                let streams = Streams::open(&gateway, options.loads.streams).await?;
                course.scenario(scenario, &streams, &books).await?;
            } else {
                course.scenario(scenario, &gateway, &books).await?;
            }
        }
        course.audit(&gateway, &books).await?;
    }
    if !growth.is_empty() {
        growth::growth(&mut course, &gateway, &options.growth).await?;
    }
    Ok(course.report(system, gateway.setup(), machine, &gateway))
}
