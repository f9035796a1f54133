//! Many seeds: each in a process of its own, which is ended when it takes too long.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;
use indicatif::{ProgressBar, ProgressStyle};
use serde::{Deserialize, Serialize};

use purser_node::simulation::Bug;

use crate::lighter::{self, Lighter};
use crate::mutants;
use crate::rows::Scratch;
use crate::run::Report;
use crate::timeline;

/// What a seed does at least, in the mean of a sweep: simulated milliseconds, operations, faults.
const SIMULATED_MS_MIN: u64 = 60_000;
const OPERATIONS_MIN: u64 = 300;
const FAULTS_MIN: u64 = 3;
/// How much of the end of a timeline is shown where a promise was broken.
const LAST_EVENTS: usize = 25;
/// So many seeds are enough for each mark to have been met.
const SEEDS_FOR_MARKS: usize = 100;
/// What a sweep of many seeds has to have met.
const MARKS: [&str; 71] = [
    "a full log took no command",
    "applied",
    "replayed",
    "read",
    "sweep",
    "INSUFFICIENT_CREDITS",
    "NO_ELIGIBLE_TRANCHE",
    "IDEMPOTENCY_KEY_REUSED",
    "KEY_TOO_OLD",
    "WALLET_FROZEN",
    "HOLD_CLOSED",
    "HOLD_EXPIRED",
    "HOLD_NOT_FOUND",
    "MOVEMENT_NOT_FOUND",
    "REFUND_EXCEEDS_DEBIT",
    "TRANCHE_NOT_ACTIVE",
    "TRANCHE_NOT_FOUND",
    "VERSION_CONFLICT",
    "WALLET_CLOSED",
    "WALLET_NOT_EMPTY",
    "adjusted down",
    "adjusted up",
    "grant: confirmed",
    "grant: failed",
    "grant: voided",
    "refund: forfeited",
    "refund: given back",
    "refund: withdrawn",
    "hold: captured beyond it",
    "hold: over several wallets",
    "hold: timed out",
    "all nodes restarted in turn",
    "node stopped in order",
    "partition: around a node",
    "partition: bridge",
    "partition: flaps",
    "partition: from the leader",
    "partition: islands",
    "partition: one way",
    "partition: ring",
    "rows in RocksDB",
    "some nodes down at once, and not all",
    "blow: black-out",
    "blow: clock jump",
    "blow: crash of some",
    "blow: failed sync",
    "blow: flush",
    "blow: full disk",
    "blow: hand-over",
    "blow: lost disk",
    "blow: partition",
    "blow: pause",
    "blow: power cut under a write",
    "blow: rolling restart",
    "call handed on",
    "digests compared",
    "entry stamped ahead refused",
    "gateway: unknown",
    "given-up node came back",
    "lead handed over",
    "log purged",
    "log rot found",
    "lost node replaced",
    "replaced replica stopped",
    "replica replaced",
    "snapshot installed",
    "uncommitted entries truncated",
    "spent at the instant of an expiry",
    "stream: answered",
    "batch: several debits",
    "batch: several sorts",
];

/// Which seeds, and how.
#[derive(Clone, Debug)]
pub struct Sweep {
    /// The seeds, in this order.
    pub seeds: Vec<u64>,
    /// Processes at once.
    pub jobs: usize,
    /// Real time that one seed may take.
    pub seed_time_max: Duration,
}

/// What a process says of its seed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// The seed.
    pub seed: u64,
    /// The promise that was broken, if one was.
    pub broken: Option<String>,
    /// The hash of the trace, in hexadecimal.
    pub trace: String,
    /// Its lines.
    pub lines: u64,
    /// Simulated milliseconds.
    pub simulated_ms: u64,
    /// What happened, and how often.
    pub counts: BTreeMap<String, u64>,
    /// Where a promise was broken: the world in words.
    pub world: String,
    /// Where a promise was broken: the end of the timeline.
    pub last_events: String,
}

impl Outcome {
    /// The outcome of a run.
    pub fn of(seed: u64, report: &Report) -> Outcome {
        let (broken, counts) = match &report.outcome {
            Ok(counts) => (None, counts.clone()),
            Err(broken) => (Some(broken.clone()), BTreeMap::new()),
        };
        let (mut world, mut last_events) = (String::new(), String::new());
        if broken.is_some() {
            let last = &report.events[report.events.len().saturating_sub(LAST_EVENTS)..];
            world = report.world.told();
            last_events = timeline::table(last, report.world.nodes.into());
        }
        Outcome {
            seed,
            world,
            last_events,
            broken,
            trace: format!("{:016x}", report.trace.hash),
            lines: report.trace.lines,
            simulated_ms: report.simulated.as_millis() as u64,
            counts,
        }
    }

    /// A seed whose process did not say anything that counts.
    fn without_report(seed: u64, broken: String) -> Outcome {
        Outcome { seed, broken: Some(broken), ..Outcome::default() }
    }

    /// Tells people.
    pub fn tell(&self) {
        match &self.broken {
            None => println!("seed {}: every promise was kept", self.seed),
            Some(broken) => {
                println!("seed {}: {broken}\n   in {}", self.seed, self.world);
                println!("   run it again: make sim SEED={}", self.seed);
            }
        }
        let happened: Vec<String> =
            self.counts.iter().map(|(what, often)| format!("{what} {often}")).collect();
        if !happened.is_empty() {
            println!("   {}", happened.join(", "));
        }
        println!("   trace {} ({} lines), {} ms simulated", self.trace, self.lines, self.simulated_ms);
    }
}

/// What a sweep came to.
#[derive(Debug, Serialize)]
struct Summary {
    seeds: usize,
    failed: Vec<Outcome>,
    real_seconds: f64,
    simulated_seconds: f64,
    seeds_per_second: f64,
    simulated_per_real: f64,
    counts: BTreeMap<String, u64>,
    /// What the sweep did too little of.
    missed: Vec<String>,
}

/// Where the summary goes if nobody says.
pub fn summary_beside_program() -> anyhow::Result<PathBuf> {
    Ok(std::env::current_exe()?.with_file_name("sim-summary.json"))
}

/// Looks for the lightest world in which a seed still breaks a promise, and says how to run it. False where
/// it breaks none.
pub fn shrink(seed: u64, bug: Option<Bug>, time_max: Duration) -> anyhow::Result<bool> {
    let Some((lighter, outcome)) = lighter::shrink(seed, bug, time_max)? else {
        println!("seed {seed}: every promise was kept");
        return Ok(false);
    };
    let broken = outcome.broken.as_deref().unwrap_or_default();
    println!("seed {seed}, lighter: {broken}\n   in {}\n{}", outcome.world, outcome.last_events);
    let child = Child { seed, bug, lighter, time_max };
    println!("   run it again: scripts/sim run {}", child.args().join(" "));
    Ok(true)
}

/// Runs the seeds that failed before, and then the others. True if every promise was kept.
pub fn sweep(mut sweep: Sweep, regressions: &Path, summary: &Path) -> anyhow::Result<bool> {
    let known = read_regressions(regressions)?;
    sweep.seeds.retain(|seed| !known.contains(seed));
    sweep.seeds = known.iter().copied().chain(sweep.seeds).collect();
    let begun = now();
    let failed_so_far = Mutex::new(0);
    let outcomes = each(&sweep, |bar, outcome| {
        if let Some(broken) = &outcome.broken {
            let mut failed = failed_so_far.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            *failed += 1;
            bar.set_message(format!("{failed} failed"));
            bar.suspend(|| {
                eprintln!("seed {}: {broken}\n   in {}", outcome.seed, outcome.world);
                eprintln!("{}   run it again: make sim SEED={}", outcome.last_events, outcome.seed);
            });
        }
    })?;
    let real = begun.elapsed();
    let failed: Vec<Outcome> = outcomes.iter().filter(|outcome| outcome.broken.is_some()).cloned().collect();
    for outcome in failed.iter().filter(|outcome| !known.contains(&outcome.seed)) {
        keep_regression(regressions, outcome)?;
    }
    if let Some(first) = failed.first() {
        shrink(first.seed, None, sweep.seed_time_max)?;
    }
    let told = summarize(&outcomes, failed, real);
    fs::write(summary, serde_json::to_vec_pretty(&told)?).with_context(|| summary.display().to_string())?;
    println!(
        "{} seeds, {} failed; {:.1} s, {:.2} seeds/s, {:.0} s simulated, {:.0} times as fast as the clock; {}",
        told.seeds,
        told.failed.len(),
        told.real_seconds,
        told.seeds_per_second,
        told.simulated_seconds,
        told.simulated_per_real,
        summary.display()
    );
    for missed in &told.missed {
        eprintln!("the sweep did too little: {missed}");
    }
    Ok(told.failed.is_empty() && told.missed.is_empty())
}

// Figures for people.
#[allow(clippy::float_arithmetic)]
fn summarize(outcomes: &[Outcome], failed: Vec<Outcome>, real: Duration) -> Summary {
    let mut counts = BTreeMap::new();
    for (what, often) in outcomes.iter().flat_map(|outcome| &outcome.counts) {
        *counts.entry(what.clone()).or_default() += often;
    }
    let simulated_ms: u64 = outcomes.iter().map(|outcome| outcome.simulated_ms).sum();
    let real_seconds = real.as_secs_f64();
    let simulated_seconds = simulated_ms as f64 / 1_000.0;
    let missed = missed(outcomes.len(), simulated_ms, &counts);
    Summary {
        missed,
        seeds: outcomes.len(),
        failed,
        real_seconds,
        simulated_seconds,
        seeds_per_second: outcomes.len() as f64 / real_seconds,
        simulated_per_real: simulated_seconds / real_seconds,
        counts,
    }
}

/// What many seeds did too little of, in words.
fn missed(seeds: usize, simulated_ms: u64, counts: &BTreeMap<String, u64>) -> Vec<String> {
    let count = |what: &str| counts.get(what).copied().unwrap_or(0);
    let faults = counts.iter().filter(|(what, _)| what.starts_with("blow:")).map(|(_, often)| often).sum();
    let done = [
        ("simulated milliseconds", simulated_ms, SIMULATED_MS_MIN),
        ("applied writes and reads", count("applied") + count("read"), OPERATIONS_MIN),
        ("faults", faults, FAULTS_MIN),
    ];
    let too_little = done
        .iter()
        .filter(|(_, done, min)| *done < min * seeds as u64)
        .map(|(what, done, min)| format!("{what}: {} a seed, and not {min}", done / (seeds as u64).max(1)));
    let unmet = MARKS.iter().filter(|mark| seeds >= SEEDS_FOR_MARKS && count(mark) == 0);
    too_little.chain(unmet.map(|mark| format!("never met: {mark}"))).collect()
}

/// Runs all seeds, several at once; gives the outcomes in the order of the seeds.
pub fn each(sweep: &Sweep, seen: impl Fn(&ProgressBar, &Outcome) + Sync) -> anyhow::Result<Vec<Outcome>> {
    let program = std::env::current_exe()?;
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} seeds, {per_sec}, {eta} left  {msg}")?;
    let bar = ProgressBar::new(sweep.seeds.len() as u64).with_style(style);
    let next = Mutex::new(0..sweep.seeds.len());
    let outcomes: Mutex<BTreeMap<usize, Outcome>> = Mutex::default();
    thread::scope(|scope| {
        for _ in 0..sweep.jobs {
            scope.spawn(|| {
                loop {
                    let place = next.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).next();
                    let Some(place) = place else { return };
                    let (seed, time_max) = (sweep.seeds[place], sweep.seed_time_max);
                    let child = Child { seed, bug: None, lighter: Lighter::default(), time_max };
                    let outcome = run_in_process(&program, &child);
                    seen(&bar, &outcome);
                    bar.inc(1);
                    outcomes.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).insert(place, outcome);
                }
            });
        }
    });
    bar.finish_and_clear();
    Ok(outcomes.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner()).into_values().collect())
}

/// A seed in a process of its own.
#[derive(Clone, Debug)]
pub struct Child {
    /// The seed.
    pub seed: u64,
    /// A bug to plant.
    pub bug: Option<Bug>,
    /// What is less than the seed says.
    pub lighter: Lighter,
    /// Real time that it may take.
    pub time_max: Duration,
}

impl Child {
    /// As the command line takes it.
    pub fn args(&self) -> Vec<String> {
        let plant = self.bug.into_iter().flat_map(|bug| ["--plant".to_owned(), mutants::name(bug)]);
        let seed = ["--seed".to_owned(), self.seed.to_string()];
        seed.into_iter().chain(plant).chain(self.lighter.args()).collect()
    }
}

/// Runs a seed.
pub fn run_in_process(program: &Path, child: &Child) -> Outcome {
    run_child(program, child)
        .unwrap_or_else(|error| Outcome::without_report(child.seed, format!("its process failed: {error}")))
}

fn run_child(program: &Path, what: &Child) -> io::Result<Outcome> {
    let (seed, time_max) = (what.seed, what.time_max);
    let mut child = Command::new(program)
        .args(["run", "--json"])
        .args(what.args())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let mut output = child.stdout.take().ok_or_else(|| io::Error::other("no output"))?;
    let (said, heard) = mpsc::channel();
    let reader = thread::spawn(move || {
        let mut text = String::new();
        let read = output.read_to_string(&mut text).map(|_| text);
        // Nobody hears it where the time was over.
        let _ = said.send(read);
    });
    let text = match heard.recv_timeout(time_max) {
        Ok(text) => Some(text?),
        Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
            child.kill()?;
            None
        }
    };
    let status = child.wait()?;
    let _ = reader.join();
    // One that was ended by force could not do so itself.
    Scratch::remove_of_process(child.id())?;
    let Some(text) = text else {
        return Ok(Outcome::without_report(seed, format!("no end in {} s", time_max.as_secs())));
    };
    serde_json::from_str(text.trim())
        .map_err(|error| io::Error::other(format!("it ended with {status} and said {text:?}: {error}")))
}

/// The seeds of a file: one a line, `#` begins a comment.
fn read_regressions(path: &Path) -> anyhow::Result<Vec<u64>> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).with_context(|| path.display().to_string()),
    };
    let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default().trim());
    let seeds = lines.filter(|line| !line.is_empty()).map(str::parse::<u64>);
    seeds.collect::<Result<_, _>>().with_context(|| format!("{}: not a seed", path.display()))
}

fn keep_regression(path: &Path, outcome: &Outcome) -> anyhow::Result<()> {
    let why = outcome.broken.as_deref().and_then(|broken| broken.lines().next()).unwrap_or_default();
    let mut file = OpenOptions::new().create(true).append(true).open(path)?;
    writeln!(file, "{} # {why}", outcome.seed).with_context(|| path.display().to_string())
}

/// The real clock: the one place where the simulation's program reads it.
#[allow(clippy::disallowed_methods)]
pub fn now() -> Instant {
    Instant::now()
}
