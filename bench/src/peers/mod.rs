//! `purser-bench peers`: the same work on Purser and on PostgreSQL, in turn on this machine.
//!
//! ```text
//!   for each repetition: Purser, PostgreSQL, PostgreSQL with a quorum --> report (medians, ratios)
//!   each of them: start, fill, load after load, audit, stop
//! ```
//! Load, books and measurements are those of `run`; what is here is the peer (`cluster`: its servers,
//! `ledger`: its client) and the comparison. The systems take turns, so that what else the machine does
//! falls on all of them, and ratios are taken within a repetition.

mod cluster;
mod ledger;
mod report;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use clap::ValueEnum;
use purser_proto::v1;
use serde::Serialize;

use cluster::{Cluster, Programs};
use ledger::{Ledger, Pool};
use report::{Comparison, Turn};

use crate::nodes::{Nodes, NodesOptions, purser};
use crate::run::books::{Audit, Books};
use crate::run::gateway::Gateway;
use crate::run::load::Call;
use crate::run::machine::Machine;
use crate::run::measure::{Load, bar, measure};
use crate::run::report::{Measured, Pace};
use crate::run::target::Target;
use crate::run::usage::{Device, Process, Watched};
use crate::run::{interrupted, version};
use crate::workload::{Spread, TRANCHE_CREDITS};

/// Clients with many debits a call.
const BATCH_CLIENTS: usize = 8;
/// Credits of a tranche of the one hot wallet.
const HOT_TRANCHE_CREDITS: u64 = 100_000;
/// Nodes of Purser, and of PostgreSQL with a quorum.
const NODES: u16 = 3;

/// Options of a comparison.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Options {
    /// What is measured
    #[arg(long, value_enum, value_delimiter = ',', default_value = "single,batch,hot")]
    scenario: Vec<Scenario>,
    /// What is compared
    #[arg(long, value_enum, value_delimiter = ',', default_value = "purser,postgres,postgres-quorum")]
    system: Vec<System>,
    /// How often each system has its turn
    #[arg(long, value_name = "NUMBER", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    repetitions: u32,
    /// Seconds of load before each measurement
    #[arg(long, value_name = "SECONDS", default_value_t = 3)]
    warm_up_s: u64,
    /// Seconds of each measurement
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..))]
    measure_s: u64,
    /// Customers, with one wallet each (single, batch)
    #[arg(long, value_name = "NUMBER", default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..))]
    wallets: u64,
    /// Connections to PostgreSQL
    #[arg(long, value_name = "NUMBER", default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..=250))]
    connections: u16,
    /// Calls on one wallet that PostgreSQL gets at once; others wait in the pool
    #[arg(long, value_name = "NUMBER", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..))]
    per_wallet: u16,
    /// Transactions that PostgreSQL gets of one batch, cut by customer
    #[arg(long, value_name = "NUMBER", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..))]
    lanes: u16,
    /// Where the choice of wallets and amounts begins
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    seed: u64,
    /// Shards of Purser's cluster
    #[arg(long, value_name = "NUMBER", default_value_t = 16)]
    shards: u16,
    /// Purser's server [default: purser, beside this one]
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
    /// One debit a call: 64 clients over all wallets alike and over few (zipf), 256 over all alike
    Single,
    /// 100 and 1,000 debits a call, 8 clients
    Batch,
    /// All debits on one wallet: 64 clients with one a call, 8 with 100 a call
    Hot,
}

/// What is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum System {
    /// Three nodes, three replicas of each shard
    Purser,
    /// One server
    Postgres,
    /// A primary and two standbys: a commit waits for one of them
    PostgresQuorum,
}

impl System {
    /// For people.
    pub fn name(self) -> &'static str {
        match self {
            System::Purser => "Purser, 3 nodes",
            System::Postgres => "PostgreSQL, 1 node",
            System::PostgresQuorum => "PostgreSQL, 3 nodes",
        }
    }
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
  purser-bench peers                                  everything three times, in about 17 minutes
  purser-bench peers --scenario hot --repetitions 5   one wallet only, with a better spread
  purser-bench peers --system postgres,postgres-quorum --connections 64 -o json
                                                      PostgreSQL alone, with a wider pool
  purser-bench peers --wallets 500 --repetitions 1 --warm-up-s 0 --measure-s 1
                                                      a look whether it works, in a minute

PostgreSQL is taken from PATH or /usr/lib/postgresql; what is missing is named, nothing is installed.
How it is set up, and why, is in bench/peers/postgres.
Everything started is stopped and removed at the end, also after an error or Ctrl-C.
The exit code is 0 only if every call was answered as it must be and every wallet holds
what it must.";

/// Compares, and prints the report to stdout; progress goes to stderr.
pub fn run(options: &Options) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let comparison = runtime.block_on(async {
        tokio::select! {
            biased;
            ended = interrupted() => Err(ended.err().map_or(anyhow::anyhow!("interrupted"), Into::into)),
            comparison = compare(options) => comparison,
        }
    })?;
    match options.output {
        Output::Table => println!("{}", comparison.table()),
        Output::Json => println!("{}", serde_json::to_string_pretty(&comparison)?),
    }
    Ok(())
}

/// What all turns need.
struct Setting {
    directory: PathBuf,
    /// Purser, where it is compared.
    nodes: Option<NodesOptions>,
    /// PostgreSQL, where it is compared.
    programs: Option<Programs>,
}

async fn compare(options: &Options) -> anyhow::Result<Comparison> {
    let directory = options.directory.clone().unwrap_or_else(std::env::temp_dir);
    let machine = Machine::look(&directory);
    let own = options.system.contains(&System::Purser);
    let peer = options.system.iter().any(|system| *system != System::Purser);
    let nodes = if own { Some(nodes(options, &directory)?) } else { None };
    let programs = if peer { Some(Programs::find()?) } else { None };
    let mut versions = Vec::new();
    if let Some(nodes) = &nodes {
        versions.push(format!("Purser {}", version(nodes)?));
    }
    versions.extend(programs.iter().map(|programs| programs.version.clone()));

    let setting = Setting { directory, nodes, programs };
    let mut turns = Vec::new();
    for repetition in 1..=options.repetitions {
        for &system in &options.system {
            eprintln!("{}: {repetition} of {}", system.name(), options.repetitions);
            let (measurements, audits, retries) = turn(options, &setting, system).await?;
            turns.push(Turn { system, repetition, measurements, audits, retries });
        }
    }
    Ok(Comparison { versions, machine, pool: pool(options), turns })
}

fn pool(options: &Options) -> Pool {
    Pool {
        connections: options.connections.into(),
        per_wallet: options.per_wallet.into(),
        lanes: options.lanes.into(),
    }
}

fn nodes(options: &Options, directory: &Path) -> anyhow::Result<NodesOptions> {
    let binary = match &options.purser {
        Some(binary) => binary.clone(),
        None => purser()?,
    };
    let directory = directory.to_owned();
    Ok(NodesOptions { binary, directory, count: NODES.into(), shards: options.shards })
}

type Measurements = (Vec<Measured>, Vec<Audit>, u64);

/// Starts a system, puts all loads on it, and stops it.
async fn turn(options: &Options, setting: &Setting, system: System) -> anyhow::Result<Measurements> {
    let Setting { directory, nodes, programs } = setting;
    if system == System::Purser {
        let nodes = Nodes::start(nodes.clone().context("Purser's binary")?).await?;
        let detail = v1::ReceiptDetail::Full;
        let watched = watched(nodes.processes(), directory);
        let driven = async {
            let gateway = Gateway::connect(&nodes.urls(), CONNECTIONS_A_NODE, detail).await?;
            drive(options, &gateway, &watched, async || Ok(())).await
        };
        return match driven.await {
            Ok(measurements) => {
                nodes.stop().await?;
                Ok(measurements)
            }
            Err(error) => Err(error.context(format!("the servers' last words:\n{}", nodes.log_tail()))),
        };
    }
    let standbys = if system == System::PostgresQuorum { NODES - 1 } else { 0 };
    let programs = programs.as_ref().context("PostgreSQL's programs")?;
    let cluster = Cluster::start(programs, directory, standbys).await?;
    let watched = watched(cluster.processes(), directory);
    let driven = async {
        let ledger = Ledger::connect(&cluster.config(), pool(options)).await?;
        let measurements = drive(options, &ledger, &watched, || cluster.settle()).await?;
        let faults = cluster.faults().await?;
        anyhow::ensure!(faults.is_empty(), "PostgreSQL's books do not add up:\n{}", faults.join("\n"));
        Ok(measurements)
    };
    driven.await.map_err(|error: anyhow::Error| {
        error.context(format!("the servers' last words:\n{}", cluster.log_tail()))
    })
}

/// Connections to each of Purser's nodes.
const CONNECTIONS_A_NODE: usize = 8;

fn watched(processes: Vec<(String, u32)>, directory: &Path) -> Watched {
    let server = |(name, pid)| Process { name, pid, with_descendants: true };
    let own = Process { name: "load".to_owned(), pid: std::process::id(), with_descendants: false };
    Watched {
        processes: processes.into_iter().map(server).chain([own]).collect(),
        device: Device::of(directory),
    }
}

/// Puts all loads on a system. Books are audited at the end of all loads on them.
async fn drive<T: Target>(
    options: &Options,
    target: &T,
    watched: &Watched,
    settle: impl AsyncFn() -> anyhow::Result<()>,
) -> anyhow::Result<Measurements> {
    let (mut measurements, mut audits) = (Vec::new(), Vec::new());
    let (hot, spread): (Vec<_>, Vec<_>) = loads(options).into_iter().partition(|load| load.scenario == HOT);
    for (loads, wallets, credits) in
        [(spread, options.wallets, TRANCHE_CREDITS), (hot, 1, HOT_TRANCHE_CREDITS)]
    {
        if loads.is_empty() {
            continue;
        }
        let books = Arc::new(Books::new(wallets, credits, rand::random()));
        let filling = bar("filling wallets", wallets);
        books.fill(target, &filling).await?;
        filling.finish_and_clear();
        settle().await?;
        for load in &loads {
            measurements.push(measure(target, &books, load, watched).await?);
        }
        let auditing = bar("auditing wallets", wallets);
        audits.push(books.audit(target, &auditing).await?);
        auditing.finish_and_clear();
    }
    Ok((measurements, audits, target.retries()))
}

/// The scenario of one wallet.
const HOT: &str = "hot";

/// All loads, in the order in which they are measured.
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
        for (spread, clients) in [(Spread::Uniform, 64), (Spread::Zipf, 64), (Spread::Uniform, 256)] {
            loads.push(load("single", Call::Debit, spread, clients));
        }
    }
    if options.scenario.contains(&Scenario::Batch) {
        let batch = |debits| load("batch", Call::Batch(debits), Spread::Uniform, BATCH_CLIENTS);
        loads.extend([100, 1_000].map(batch));
    }
    if options.scenario.contains(&Scenario::Hot) {
        loads.push(load(HOT, Call::Debit, Spread::Uniform, 64));
        loads.push(load(HOT, Call::Batch(100), Spread::Uniform, BATCH_CLIENTS));
    }
    // Each load has a stretch of its own.
    for (load, number) in loads.iter_mut().zip(0..) {
        load.seed = load.seed.wrapping_add(1_000_000 * number);
    }
    loads
}
