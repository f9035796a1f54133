//! `purser-bench run`: debits through real servers on this machine, from the caller's side.
//!
//! ```text
//!   cluster (child processes) <-- gateway (connections, leaders, retries) <-- load (closed, open loop)
//!                                                books (what each wallet must hold) --> audit
//!   usage (/proc) and counts --> report
//! ```
//! Only applied debits count. A wallet that is too short denies, and is refilled by one call: denials
//! and refills cost time and CPU, which is in the figures, and are told beside them. At the end every
//! balance is asked for; a run whose books do not add up fails.

pub mod books;
pub mod gateway;
pub mod load;
pub mod machine;
pub mod measure;
pub mod report;
pub mod target;
pub mod usage;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use clap::ValueEnum;
use purser_proto::v1;

use books::Books;
use gateway::Gateway;
use load::Call;
use machine::Machine;
use measure::{Load, bar, measure};
use report::{Pace, Report};
use target::Target;
use usage::{Device, Process, Watched};

use crate::nodes::{Nodes, NodesOptions, purser};
use crate::workload::{Spread, TRANCHE_CREDITS};

/// Options of a run.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Options {
    /// What is measured
    #[arg(long, value_enum, value_delimiter = ',', default_value = "single,batch")]
    scenario: Vec<Scenario>,
    /// Customers, with one wallet each
    #[arg(long, value_name = "NUMBER", default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..))]
    wallets: u64,
    /// How debits spread over wallets (single; batches are uniform)
    #[arg(long, value_enum, value_delimiter = ',', default_value = "uniform,zipf")]
    spread: Vec<Spread>,
    /// Clients with one debit a call
    #[arg(long, value_name = "NUMBERS", value_delimiter = ',', default_value = "64,256")]
    clients: Vec<usize>,
    /// Clients with many debits a call
    #[arg(long, value_name = "NUMBER", default_value_t = 8)]
    batch_clients: usize,
    /// Debits a call, up to 8,000
    #[arg(long, value_name = "NUMBERS", value_delimiter = ',', default_value = "100,1000,8000")]
    batch_debits: Vec<usize>,
    /// Ask for answers without draws and balances (batch)
    #[arg(long)]
    brief: bool,
    /// Seconds of load before each measurement
    #[arg(long, value_name = "SECONDS", default_value_t = 3)]
    warm_up_s: u64,
    /// Seconds of each measurement
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..))]
    measure_s: u64,
    /// Debits a second in the open loop [default: half of what the closed loop reached]
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1..))]
    rate: Option<u64>,
    /// Leave the open loop out
    #[arg(long, conflicts_with = "rate")]
    closed_only: bool,
    /// Connections to each server
    #[arg(long, value_name = "NUMBER", default_value_t = 8)]
    connections: usize,
    /// Where the choice of wallets and amounts begins
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    seed: u64,
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
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Scenario {
    /// One debit a call
    Single,
    /// Many debits a call
    Batch,
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
  purser-bench run                                    everything, in about three and a half minutes
  purser-bench run --scenario batch --brief -o json   batches only, as JSON
  purser-bench run --scenario single --spread zipf --clients 256 --closed-only
  purser-bench run --scenario single --clients 64 --spread uniform --rate 5000
                                                      latency at 5,000 debits a second
  purser-bench run --wallets 500 --clients 16 --spread uniform --batch-debits 100 \\
                   --warm-up-s 0 --measure-s 1        a look whether it works, in five seconds

Everything started is stopped and removed at the end, also after an error or Ctrl-C.
The exit code is 0 only if every call was answered as it must be and every wallet holds
what it must.";

/// Runs, and prints the report to stdout; progress goes to stderr.
pub fn run(options: &Options) -> anyhow::Result<()> {
    check(options)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let report = runtime.block_on(async {
        tokio::select! {
            biased;
            ended = interrupted() => Err(ended.err().map_or(anyhow::anyhow!("interrupted"), Into::into)),
            report = start(options) => report,
        }
    })?;
    match options.output {
        Output::Table => println!("{}", report.table()),
        Output::Json => println!("{}", report.json()?),
    }
    Ok(())
}

fn check(options: &Options) -> anyhow::Result<()> {
    let debits_max = purser_node::api::batch::DEBITS_MAX;
    let batch = options.batch_debits.iter();
    anyhow::ensure!(
        batch.clone().all(|debits| (2..=debits_max).contains(debits)),
        "--batch-debits: 2 to {debits_max} debits a call"
    );
    let clients = options.clients.iter().chain([&options.batch_clients]);
    anyhow::ensure!(clients.clone().all(|clients| *clients > 0), "at least one client is needed");
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
        return drive(options, machine, "Purser".to_owned(), &options.servers, watched).await;
    }
    let device = Device::of(&directory);
    let binary = match &options.purser {
        Some(binary) => binary.clone(),
        None => purser()?,
    };
    let (count, shards) = (options.nodes, options.shards);
    let nodes = NodesOptions { binary, directory, count, shards };
    let system = format!("Purser {}", version(&nodes)?);
    let cluster = Nodes::start(nodes).await?;
    let node = |(name, pid)| Process { name, pid, with_descendants: false };
    let processes = cluster.processes().into_iter().map(node).chain([own]).collect();
    let watched = Watched { processes, device };
    match drive(options, machine, system, &cluster.urls(), watched).await {
        Ok(report) => {
            cluster.stop().await?;
            Ok(report)
        }
        Err(error) => Err(error.context(format!("the servers' last words:\n{}", cluster.log_tail()))),
    }
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

/// All loads in a closed loop, in the order in which they are measured.
fn loads(options: &Options) -> Vec<Load> {
    let load = |scenario, call, spread, clients| Load {
        scenario,
        call,
        spread,
        pace: Pace::Closed { clients },
        warm_up: Duration::from_secs(options.warm_up_s),
        measured: Duration::from_secs(options.measure_s),
        seed: options.seed,
    };
    let mut loads = Vec::new();
    if options.scenario.contains(&Scenario::Single) {
        for &spread in &options.spread {
            let clients = options.clients.iter();
            loads.extend(clients.map(|&clients| load("single", Call::Debit, spread, clients)));
        }
    }
    if options.scenario.contains(&Scenario::Batch) {
        let batches = options.batch_debits.iter();
        let batch = |&debits| load("batch", Call::Batch(debits), Spread::Uniform, options.batch_clients);
        loads.extend(batches.map(batch));
    }
    // Each load has a stretch of its own.
    for (load, number) in loads.iter_mut().zip(0..) {
        load.seed = load.seed.wrapping_add(1_000_000 * number);
    }
    loads
}

async fn drive(
    options: &Options,
    machine: Machine,
    system: String,
    urls: &[String],
    watched: Watched,
) -> anyhow::Result<Report> {
    let detail = if options.brief { v1::ReceiptDetail::Brief } else { v1::ReceiptDetail::Full };
    let gateway = Gateway::connect(urls, options.connections, detail).await?;
    let books = Arc::new(Books::new(options.wallets, TRANCHE_CREDITS, rand::random()));
    let filling = bar("filling wallets", options.wallets);
    books.fill(&gateway, &filling).await?;
    filling.finish_and_clear();

    let mut measurements = Vec::new();
    for load in loads(options) {
        let closed = measure(&gateway, &books, &load, &watched).await?;
        let half = options.rate.map_or(closed.debits_a_minute / 2, |rate| rate * 60);
        let half = half.max(load.call.debits() as u64);
        measurements.push(closed);
        if !options.closed_only {
            let open = Load { pace: Pace::Open { a_minute: half }, ..load };
            measurements.push(measure(&gateway, &books, &open, &watched).await?);
        }
    }

    let auditing = bar("auditing wallets", options.wallets);
    let audit = books.audit(&gateway, &auditing).await?;
    auditing.finish_and_clear();
    let setup = format!("{} servers, {} shards", urls.len(), options.shards);
    Ok(Report { system, machine, setup, measurements, retries: gateway.retries(), audit })
}
