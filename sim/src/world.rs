//! What a seed means: the size of the world, its load, and which faults strike it. Every kind of
//! fault is left out in a share of the seeds, so that each is met alone and with others; in one seed
//! of ten nothing fails at all.

use std::ops::RangeInclusive;
use std::time::Duration;

use purser_node::raft::GroupConfig;
use purser_node::simulation::Bug;

use crate::dice::Dice;
use crate::partition::PartitionWorld;

/// The longest entry: far more than the load needs, and it fits the smallest segment.
pub const ENTRY_BYTES_MAX: usize = 64 * 1024;

/// Callers have what they grant expire, and become active, at multiples of this.
pub const EXPIRY_STEP_US: u64 = 100_000;

/// Each so-manieth seed has RocksDB itself under its nodes: enough to show that it behaves as its stand-in
/// does, and few, for it takes longer.
const ROCKSDB_EVERY: u64 = 20;

/// One simulated world.
#[derive(Clone, Debug)]
pub struct World {
    /// The seed that it was drawn from.
    pub seed: u64,
    /// Nodes of the cluster.
    pub nodes: u16,
    /// Replicas of each shard: on as many nodes.
    pub replicas: u16,
    /// Shards of the cluster.
    pub shards: u16,
    /// Callers.
    pub clients: u64,
    /// So many of a thousand of them use the client library.
    pub gateways: u64,
    /// Customers that they act for.
    pub customers: u64,
    /// How long there is load and faults.
    pub storm: Duration,
    /// A caller's pause between two requests.
    pub think: RangeInclusive<Duration>,
    /// The network.
    pub network: NetworkWorld,
    /// Every node's disk.
    pub disk: DiskWorld,
    /// Every node's clock.
    pub clock: ClockWorld,
    /// Every node's groups.
    pub groups: GroupConfig,
    /// What strikes nodes from outside, and how often one after the other.
    pub blows: Vec<(u64, Blow)>,
    /// What partitions look like.
    pub partitions: PartitionWorld,
    /// The pause between two blows.
    pub between_blows: RangeInclusive<Duration>,
    /// The first node's clock is a year ahead, in a few tests.
    pub clock_a_year_ahead: bool,
    /// What is broken on purpose, to see whether it is found out; no seed draws one.
    pub lie: Option<Lie>,
}

/// A promise broken on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lie {
    /// A power cut takes a disk back to what it was when the process began, synced or not.
    DiskForgets,
    /// Verdicts are not kept under their keys.
    KeysForgotten,
    /// Followers take entries of whatever time.
    ClocksUnbounded,
    /// A bug in the node itself.
    Planted(Bug),
}

/// How the network carries messages. Shares are of a thousand.
#[derive(Clone, Debug)]
pub struct NetworkWorld {
    /// How long a message is on its way.
    pub delay: RangeInclusive<Duration>,
    /// Messages that never arrive.
    pub lost: u64,
    /// Messages that arrive twice.
    pub doubled: u64,
    /// Messages that arrive late, after others that were sent later.
    pub late: u64,
    /// Messages under which the stream to their receiver breaks.
    pub breaks: u64,
}

/// How a disk works.
#[derive(Clone, Debug)]
pub struct DiskWorld {
    /// How long a run of the log takes to become durable.
    pub run_time: RangeInclusive<Duration>,
    /// Runs of a thousand that take a hundred times as long.
    pub stalls: u64,
    /// Families flush by themselves after so many writes.
    pub flush_after_writes: Option<u64>,
    /// How long a segment of the log is.
    pub segment_bytes: u32,
    /// Rows are in RocksDB itself, and not in memory.
    pub rocksdb: bool,
}

/// How a clock is wrong.
#[derive(Clone, Debug)]
pub struct ClockWorld {
    /// How far it is off from the start, at most.
    pub skew_max: Duration,
    /// How far it jumps, at most, when it does.
    pub jump_max: Duration,
    /// In which steps it moves, in microseconds: where they are as long as those in which tranches expire,
    /// much is asked at the very instant.
    pub step_us: u64,
}

/// What strikes a node from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blow {
    /// The power fails, at once.
    PowerCut,
    /// The power fails in the middle of something that the disk does.
    PowerCutUnderWrite,
    /// The process is killed; the machine stays on.
    ProcessKill,
    /// A sync of the log fails, or a write, and the process ends by itself.
    FailedSync,
    /// The disk has no room for another segment of the log for a while.
    FullDisk,
    /// The node does nothing for a while, and does not notice.
    Pause,
    /// The clock jumps, forwards or backwards.
    ClockJump,
    /// Nothing passes between the node and some others, in one direction or in both.
    Partition,
    /// Rows are flushed and the log is purged, or not: under load, at any moment.
    Flush,
    /// The node gives up the lead of all that it leads.
    HandOver,
    /// The power fails everywhere.
    BlackOut,
    /// The power fails, and a byte of the log is another one afterwards, or a sector cannot be read. It
    /// strikes one node of a world at most.
    Rot,
    /// The disk is gone for good, and a new node is put in the place of the lost one.
    LostDisk,
    /// Some nodes, any subset, go down at one instant, by power or by process.
    CrashOfSome,
    /// All nodes are restarted, one after the other.
    RollingRestart,
}

impl World {
    /// The world of a seed.
    pub fn of(seed: u64) -> World {
        let dice = &mut Dice::new(seed, "world");
        let ms = Duration::from_millis;
        let calm = dice.chance(100);
        let mut on = |often: u64| !calm && dice.chance(often);
        let [lossy, wide, slow_disk, wrong_clocks, flushing] = [500, 300, 300, 600, 500].map(&mut on);
        let struck: Vec<(u64, Blow)> = [
            (3, Blow::PowerCut),
            (4, Blow::PowerCutUnderWrite),
            (3, Blow::ProcessKill),
            (1, Blow::FailedSync),
            (2, Blow::Pause),
            (2, Blow::ClockJump),
            (3, Blow::Partition),
            (2, Blow::Flush),
            (2, Blow::HandOver),
            (1, Blow::BlackOut),
        ]
        .into_iter()
        .filter(|(_, blow)| on(700) && (*blow != Blow::ClockJump || wrong_clocks))
        .collect();
        let mut world = World {
            seed,
            nodes: *dice.pick(&[1, 3, 3, 3, 3]),
            replicas: 0,
            shards: *dice.pick(&[1, 2, 4]),
            clients: dice.within(2..=12),
            gateways: *dice.pick(&[0, 400, 400, 1_000]),
            customers: dice.within(1..=6),
            storm: Duration::from_secs(dice.within(45..=75)),
            think: ms(1)..=ms(*dice.pick(&[5, 20, 100])),
            network: NetworkWorld {
                delay: ms(1)..=ms(if wide { dice.within(50..=200) } else { dice.within(2..=10) }),
                lost: if lossy { dice.within(0..=50) } else { 0 },
                doubled: if lossy { dice.within(0..=100) } else { 0 },
                late: if lossy { dice.within(0..=50) } else { 0 },
                breaks: if lossy { dice.within(0..=10) } else { 0 },
            },
            disk: DiskWorld {
                run_time: ms(1)..=ms(if slow_disk { dice.within(10..=60) } else { dice.within(1..=5) }),
                stalls: if slow_disk { dice.within(0..=20) } else { 0 },
                flush_after_writes: flushing.then(|| dice.within(1..=200)),
                segment_bytes: *dice.pick(&[256 * 1024, 1024 * 1024]),
                rocksdb: false,
            },
            clock: ClockWorld {
                skew_max: ms(if wrong_clocks { *dice.pick(&[10, 400, 5_000]) } else { 0 }),
                jump_max: Duration::from_secs(*dice.pick(&[1, 60, 3_600])),
                step_us: 1,
            },
            groups: GroupConfig {
                entries_kept_max: *dice.pick(&[0, 20, 4_096]),
                command_bytes_max: ENTRY_BYTES_MAX,
                ..if wide { GroupConfig::far_apart() } else { GroupConfig::default() }
            },
            blows: struck,
            partitions: PartitionWorld::plain(),
            between_blows: ms(100)..=ms(dice.within(1_000..=15_000)),
            clock_a_year_ahead: false,
            lie: None,
        };
        // Drawn last: what was drawn before stays as it was.
        if world.nodes > 1 && !world.blows.is_empty() && dice.chance(200) {
            world.blows.push((3, Blow::Rot));
        }
        if world.nodes > 1 && dice.chance(300) {
            world.nodes = *dice.pick(&[4, 5, 5, 6, 7]);
        }
        if dice.chance(150) {
            world.shards = *dice.pick(&[8, 16]);
        }
        if !world.blows.is_empty() && dice.chance(300) {
            world.blows.push((3, Blow::FullDisk));
        }
        if dice.chance(300) {
            world.clock.step_us = EXPIRY_STEP_US;
        }
        world.replicas = match world.nodes {
            1 => 1,
            5.. if dice.chance(400) => 5,
            _ => 3,
        };
        if !world.blows.is_empty() && dice.chance(300) {
            world.blows.push((2, Blow::CrashOfSome));
        }
        if !world.blows.is_empty() && dice.chance(300) {
            world.blows.push((1, Blow::RollingRestart));
        }
        if dice.chance(600) {
            world.partitions = PartitionWorld::drawn(dice);
        }
        if world.replicas > 1 && !world.blows.is_empty() && dice.chance(300) {
            world.blows.push((2, Blow::LostDisk));
        }
        if seed.is_multiple_of(ROCKSDB_EVERY) {
            world.put_on_rocksdb();
        }
        world
    }

    /// Rows are in RocksDB from now on. It does not flush after so many writes: where that was so, flushes
    /// are blows.
    pub fn put_on_rocksdb(&mut self) {
        self.disk.rocksdb = true;
        let flushes = self.disk.flush_after_writes.take().is_some();
        if flushes && !self.blows.is_empty() && self.blows.iter().all(|(_, blow)| *blow != Blow::Flush) {
            self.blows.push((2, Blow::Flush));
        }
    }

    /// The world in a few words.
    pub fn told(&self) -> String {
        let blows: Vec<String> = self.blows.iter().map(|(_, blow)| format!("{blow:?}")).collect();
        let NetworkWorld { delay, lost, doubled, late, breaks } = &self.network;
        let DiskWorld { run_time, stalls, flush_after_writes, rocksdb, .. } = &self.disk;
        format!(
            "a world of {} nodes, {} shards with {} replicas; {} callers, {} of a thousand gateways, {} \
             customers; {} s of storm; messages take {delay:?}, of a thousand {lost} lost, {doubled} \
             doubled, {late} late, {breaks} break their stream; runs of the log take {run_time:?}, \
             {stalls} of a thousand stall; rows in {}, flushed by themselves: {flush_after_writes:?}; clocks \
             off by {:?}, jumping by {:?}, in steps of {} µs; every {:?}: {}; partitions {:?}, {} of a \
             thousand flap",
            self.nodes,
            self.shards,
            self.replicas,
            self.clients,
            self.gateways,
            self.customers,
            self.storm.as_secs(),
            if *rocksdb { "RocksDB" } else { "memory" },
            self.clock.skew_max,
            self.clock.jump_max,
            self.clock.step_us,
            self.between_blows,
            if blows.is_empty() { "nothing strikes".to_owned() } else { blows.join(", ") },
            self.partitions.shapes,
            self.partitions.flapping,
        )
    }
}
