//! The world of a seed, made lighter: fewer faults, callers, customers, nodes, less time. And the search for
//! the lightest one that still breaks the promise.

use std::time::Duration;

use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use purser_node::cluster::ShardMap;
use purser_node::simulation::Bug;

use crate::partition::PartitionWorld;
use crate::sweep::{Child, Outcome, now, run_in_process};
use crate::world::{Blow, World};

/// A sort of fault that may be left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[allow(missing_docs)]
pub enum Fault {
    /// Messages that are lost, doubled or late, and streams that break
    Network,
    /// Disks that are slow, or stall
    SlowDisk,
    /// Clocks that are wrong from the start
    Clocks,
    /// Rows that are flushed by themselves
    Flushes,
    PowerCut,
    PowerCutUnderWrite,
    ProcessKill,
    FailedSync,
    FullDisk,
    Pause,
    ClockJump,
    Partition,
    Flush,
    HandOver,
    BlackOut,
    Rot,
    LostDisk,
    CrashOfSome,
    RollingRestart,
    /// Partitions of other shapes than around one node, and those that flap
    Shapes,
    /// RocksDB itself under the nodes
    RocksDb,
}

impl Fault {
    fn blow(self) -> Option<Blow> {
        Some(match self {
            Fault::Network | Fault::SlowDisk | Fault::Clocks | Fault::Flushes => return None,
            Fault::Shapes | Fault::RocksDb => return None,
            Fault::PowerCut => Blow::PowerCut,
            Fault::PowerCutUnderWrite => Blow::PowerCutUnderWrite,
            Fault::ProcessKill => Blow::ProcessKill,
            Fault::FailedSync => Blow::FailedSync,
            Fault::FullDisk => Blow::FullDisk,
            Fault::Pause => Blow::Pause,
            Fault::ClockJump => Blow::ClockJump,
            Fault::Partition => Blow::Partition,
            Fault::Flush => Blow::Flush,
            Fault::HandOver => Blow::HandOver,
            Fault::BlackOut => Blow::BlackOut,
            Fault::Rot => Blow::Rot,
            Fault::LostDisk => Blow::LostDisk,
            Fault::CrashOfSome => Blow::CrashOfSome,
            Fault::RollingRestart => Blow::RollingRestart,
        })
    }

    fn is_in(self, world: &World) -> bool {
        let network = &world.network;
        match self {
            Fault::Network => network.lost + network.doubled + network.late + network.breaks > 0,
            Fault::SlowDisk => world.disk.stalls > 0 || *world.disk.run_time.end() > CALM_RUN,
            Fault::Clocks => world.clock.skew_max > Duration::ZERO,
            Fault::Flushes => world.disk.flush_after_writes.is_some(),
            Fault::Shapes => world.partitions != PartitionWorld::plain(),
            Fault::RocksDb => world.disk.rocksdb,
            blow => world.blows.iter().any(|(_, own)| Some(*own) == blow.blow()),
        }
    }
}

/// How long a run of the log takes on a disk that is not slow, at most.
const CALM_RUN: Duration = Duration::from_millis(5);
/// How long a lighter world is looked for, but for the run under way: each may take minutes, where what is
/// broken is that it does not end.
const SHRINKING_MAX: Duration = Duration::from_mins(5);
/// No shorter than that is a storm made.
const STORM_S_MIN: u64 = 3;

/// What is less than the seed says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args)]
pub struct Lighter {
    /// Leave a sort of fault out; several may be named
    #[arg(long, value_name = "FAULT", value_enum, value_delimiter = ',')]
    pub without: Vec<Fault>,
    /// So many callers
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1..))]
    pub clients: Option<u64>,
    /// So many customers
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1..))]
    pub customers: Option<u64>,
    /// So many shards, a power of two
    #[arg(long, value_name = "NUMBER", value_parser = shards)]
    pub shards: Option<u16>,
    /// Three nodes, and three replicas of each shard
    #[arg(long)]
    pub three_nodes: bool,
    /// So many seconds of load and faults
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    pub storm_s: Option<u64>,
}

impl Lighter {
    /// Whether it changes nothing.
    pub fn is_nothing(&self) -> bool {
        *self == Lighter::default()
    }

    /// Makes a world lighter.
    pub fn lighten(&self, world: &mut World) {
        for fault in &self.without {
            match fault {
                Fault::Network => {
                    let network = &mut world.network;
                    (network.lost, network.doubled, network.late, network.breaks) = (0, 0, 0, 0);
                }
                Fault::SlowDisk => {
                    world.disk.stalls = 0;
                    world.disk.run_time = Duration::from_millis(1)..=CALM_RUN;
                }
                Fault::Clocks => world.clock.skew_max = Duration::ZERO,
                Fault::Flushes => world.disk.flush_after_writes = None,
                Fault::Shapes => world.partitions = PartitionWorld::plain(),
                Fault::RocksDb => world.disk.rocksdb = false,
                blow => world.blows.retain(|(_, own)| Some(*own) != blow.blow()),
            }
        }
        world.clients = self.clients.unwrap_or(world.clients);
        world.customers = self.customers.unwrap_or(world.customers);
        world.shards = self.shards.unwrap_or(world.shards);
        if self.three_nodes && world.nodes > 3 {
            (world.nodes, world.replicas) = (3, 3);
        }
        world.storm = self.storm_s.map_or(world.storm, Duration::from_secs);
    }

    /// As the command line takes it.
    pub fn args(&self) -> Vec<String> {
        let mut args = Vec::new();
        for fault in &self.without {
            let name = fault.to_possible_value().map_or_else(String::new, |name| name.get_name().to_owned());
            args.extend(["--without".to_owned(), name]);
        }
        let mut number = |name: &str, number: Option<u64>| {
            args.extend(number.into_iter().flat_map(|number| [format!("--{name}"), number.to_string()]));
        };
        number("clients", self.clients);
        number("customers", self.customers);
        number("shards", self.shards.map(u64::from));
        number("storm-s", self.storm_s);
        args.extend(self.three_nodes.then(|| "--three-nodes".to_owned()));
        args
    }
}

fn shards(text: &str) -> Result<u16, String> {
    let shards: u16 = text.parse().map_err(|error| format!("{error}"))?;
    ShardMap::new(shards).map(|_| shards).ok_or_else(|| "a power of two that a cluster may have".to_owned())
}

/// Looks for the lightest world of a seed that still breaks a promise; `None` where the seed itself
/// breaks none. Each step is a run in a process of its own. After some minutes it is content with what it
/// has.
pub fn shrink(seed: u64, bug: Option<Bug>, time_max: Duration) -> anyhow::Result<Option<(Lighter, Outcome)>> {
    let program = std::env::current_exe()?;
    let bar =
        ProgressBar::new_spinner().with_style(ProgressStyle::with_template("{pos} runs, {elapsed}  {msg}")?);
    let broken = |lighter: &Lighter| {
        let child = Child { seed, bug, lighter: lighter.clone(), time_max };
        let outcome = run_in_process(&program, &child);
        bar.inc(1);
        outcome.broken.is_some().then_some(outcome)
    };
    let Some(mut last) = broken(&Lighter::default()) else { return Ok(None) };
    let mut best = Lighter::default();
    let whole = World::of(seed);
    let end = now() + SHRINKING_MAX;
    loop {
        let before = best.clone();
        for step in steps(&whole, &best) {
            if now() < end
                && let Some(outcome) = broken(&step)
            {
                bar.set_message(step.args().join(" "));
                (best, last) = (step, outcome);
            }
        }
        if best == before {
            bar.finish_and_clear();
            return Ok(Some((best, last)));
        }
    }
}

/// What may be tried next: each a step lighter than the best one so far.
fn steps(whole: &World, best: &Lighter) -> Vec<Lighter> {
    let mut world = whole.clone();
    best.lighten(&mut world);
    let mut steps = Vec::new();
    let storm_s = world.storm.as_secs();
    if storm_s / 2 >= STORM_S_MIN {
        steps.push(Lighter { storm_s: Some(storm_s / 2), ..best.clone() });
    }
    if world.nodes > 3 {
        steps.push(Lighter { three_nodes: true, ..best.clone() });
    }
    if world.shards > 1 {
        steps.push(Lighter { shards: Some(1), ..best.clone() });
    }
    for fault in Fault::value_variants().iter().filter(|fault| fault.is_in(&world)) {
        let without = best.without.iter().chain([fault]).copied().collect();
        steps.push(Lighter { without, ..best.clone() });
    }
    if world.clients > 1 {
        steps.push(Lighter { clients: Some(world.clients / 2), ..best.clone() });
    }
    if world.customers > 1 {
        steps.push(Lighter { customers: Some(world.customers / 2), ..best.clone() });
    }
    steps
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_step_is_lighter_until_nothing_is_left_to_leave_out() {
        let mut whole = World::of(1);
        (whole.nodes, whole.replicas, whole.shards) = (5, 5, 4);
        whole.blows = vec![(1, Blow::Pause), (1, Blow::Rot)];
        whole.network.lost = 3;
        let mut best = Lighter::default();
        while let Some(step) = steps(&whole, &best).into_iter().next() {
            assert_ne!(step, best);
            best = step;
        }
        let mut world = whole;
        best.lighten(&mut world);
        assert!(world.blows.is_empty() && world.network.lost == 0, "{world:?}");
        assert_eq!((world.nodes, world.shards, world.clients, world.customers), (3, 1, 1, 1));
    }

    #[test]
    fn what_is_lighter_is_said_as_the_command_line_takes_it() {
        let without = vec![Fault::Network, Fault::PowerCutUnderWrite];
        let lighter = Lighter { without, clients: Some(2), three_nodes: true, ..Lighter::default() };
        let said = ["--without", "network", "--without", "power-cut-under-write", "--clients", "2"];
        assert_eq!(lighter.args(), said.iter().chain(&["--three-nodes"]).copied().collect::<Vec<_>>());
    }
}
