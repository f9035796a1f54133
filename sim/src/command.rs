//! The program's commands.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use purser_node::simulation::Bug;

use crate::lighter::Lighter;
use crate::meta;
use crate::mutants::{self, Hunt};
use crate::run::{self, Options};
use crate::sweep::{self, Outcome, Sweep};
use crate::timeline;

/// Runs the real node in a simulated world, where everything fails
#[derive(Parser)]
#[command(name = "sim", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run one seed, and say what happened
    Run(RunArgs),
    /// Run many seeds, each in a process of its own
    Sweep(SweepArgs),
    /// Run seeds twice, and as many more as every kind of world takes, and compare the traces
    Meta(SeedArgs),
    /// Look for the lightest world in which a seed still breaks a promise
    Shrink(ShrinkArgs),
    /// Plant bugs one after the other, each until a seed finds it
    Mutants(MutantArgs),
}

#[derive(Args)]
struct RunArgs {
    /// The seed
    #[arg(long)]
    seed: u64,
    /// Write every line of the trace to a file
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
    /// Show the node's own log, such as `info` or `purser_node=debug`
    #[arg(long, value_name = "FILTER")]
    log: Option<String>,
    /// Plant a bug, by its name
    #[arg(long, value_name = "BUG", value_parser = mutants::named)]
    plant: Option<Bug>,
    #[command(flatten)]
    lighter: Lighter,
    /// Do not show what happened, event by event
    #[arg(long, short)]
    quiet: bool,
    /// Say it in JSON, on one line
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct SeedArgs {
    /// How many seeds
    #[arg(long, default_value_t = 100)]
    seeds: u64,
    /// The first of them
    #[arg(long, default_value_t = 1)]
    from: u64,
    /// Processes at once; 0: one for each core
    #[arg(long, default_value_t = 0)]
    jobs: usize,
    /// Seconds of real time after which a seed has failed
    #[arg(long, default_value_t = 120, value_name = "SECONDS")]
    timeout: u64,
}

#[derive(Args)]
struct SweepArgs {
    #[command(flatten)]
    seeds: SeedArgs,
    /// Where failing seeds are kept; they are run first
    #[arg(long, value_name = "FILE", default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/regressions.txt"))]
    regressions: PathBuf,
    /// Where the summary goes; beside the program if it is not named
    #[arg(long, value_name = "FILE")]
    summary: Option<PathBuf>,
}

#[derive(Args)]
struct MutantArgs {
    #[command(flatten)]
    seeds: SeedArgs,
    /// Only this bug; several may be named
    #[arg(long, value_name = "BUG", value_parser = mutants::named)]
    bug: Vec<Bug>,
}

impl SeedArgs {
    fn sweep(&self) -> Sweep {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Sweep {
            seeds: (self.from..self.from.saturating_add(self.seeds)).collect(),
            jobs: if self.jobs == 0 { cores } else { self.jobs },
            seed_time_max: Duration::from_secs(self.timeout),
        }
    }
}

#[derive(Args)]
struct ShrinkArgs {
    /// The seed
    #[arg(long)]
    seed: u64,
    /// Plant a bug, by its name
    #[arg(long, value_name = "BUG", value_parser = mutants::named)]
    plant: Option<Bug>,
    /// Seconds of real time after which a run has failed
    #[arg(long, default_value_t = 120, value_name = "SECONDS")]
    timeout: u64,
}

impl MutantArgs {
    fn hunt(&self) -> Hunt {
        let Sweep { jobs, seed_time_max, .. } = self.seeds.sweep();
        let bugs = if self.bug.is_empty() { Bug::ALL.to_vec() } else { self.bug.clone() };
        Hunt { bugs, seeds: self.seeds.seeds, from: self.seeds.from, jobs, seed_time_max }
    }
}

/// Runs the program.
pub fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Run(args) => run_one(&args),
        Command::Sweep(args) => {
            let summary = args.summary.map_or_else(sweep::summary_beside_program, Ok);
            summary.and_then(|summary| sweep::sweep(args.seeds.sweep(), &args.regressions, &summary))
        }
        Command::Meta(args) => meta::meta(&args.sweep()),
        Command::Shrink(args) => sweep::shrink(args.seed, args.plant, Duration::from_secs(args.timeout)),
        Command::Mutants(args) => mutants::hunt(&args.hunt()),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("sim: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run_one(args: &RunArgs) -> anyhow::Result<bool> {
    if let Some(filter) = &args.log {
        let filter = tracing_subscriber::EnvFilter::try_new(filter)?;
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    }
    let report = run::run(Options {
        seed: args.seed,
        trace: args.trace.clone(),
        bug: args.plant,
        lighter: args.lighter.clone(),
    })?;
    if !args.json && !args.quiet {
        // Whoever has read enough has closed the pipe.
        let told = timeline::table(&report.events, report.world.nodes.into());
        if std::io::stdout().write_all(told.as_bytes()).is_err() {
            return Ok(report.outcome.is_ok());
        }
    }
    let outcome = Outcome::of(args.seed, &report);
    match args.json {
        true => println!("{}", serde_json::to_string(&outcome)?),
        false => outcome.tell(),
    }
    Ok(outcome.broken.is_none())
}
