//! What strikes nodes from outside while the storm lasts: crashes, pauses, partitions, wrong clocks.
//! A node that is struck comes back; at the end everything is mended.

use std::fmt;
use std::io::ErrorKind;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use madsim::runtime::Handle;
use purser_node::cluster::NodeId;

use purser_node::simulation::mark;

use crate::dice::Dice;
use crate::disk::NodeDisk;
use crate::operator;
use crate::partition::{self, People};
use crate::seat::Seat;
use crate::setting::Setting;
use crate::timeline::Tone;
use crate::world::Blow;

type Span = std::ops::RangeInclusive<Duration>;

/// How long a node stays down; one time in four much longer.
const DOWN: Span = Duration::from_millis(1)..=Duration::from_millis(300);
const DOWN_LONG: Span = Duration::from_millis(300)..=Duration::from_secs(6);
/// How long a node is paused.
const PAUSED: Span = Duration::from_millis(10)..=Duration::from_secs(3);
/// How long a disk is full.
const FULL: Span = Duration::from_millis(100)..=Duration::from_secs(10);
/// So many of a thousand nodes that are given up have not lost their disk, and come back.
const COMES_BACK: u64 = 400;
/// A year, in microseconds.
const YEAR_US: i64 = 365 * 24 * 60 * 60 * 1_000_000;
/// Operations of the disk before the one under which the power fails.
const OPERATIONS_MAX: u64 = 60;
/// How long a planned fault is waited for: an idle log touches its disk only now and then.
const PLANNED_MAX: Duration = Duration::from_secs(2);
/// How long a node that is told to stop may take for it; then it is ended.
const ORDERLY_MAX: Duration = Duration::from_secs(10);
/// In which time a node that was restarted serves again, whatever its disk is like,
const SERVES_MAX: Duration = Duration::from_mins(1);
/// but for one whose log has rotted, which may never: a rolling restart goes on without it.
const ROTTEN_MAX: Duration = Duration::from_secs(5);

/// What the blows are called in the counts.
const NAMES: [(Blow, &str); 15] = [
    (Blow::PowerCut, "blow: power cut"),
    (Blow::PowerCutUnderWrite, "blow: power cut under a write"),
    (Blow::ProcessKill, "blow: process killed"),
    (Blow::FailedSync, "blow: failed sync"),
    (Blow::FullDisk, "blow: full disk"),
    (Blow::Pause, "blow: pause"),
    (Blow::ClockJump, "blow: clock jump"),
    (Blow::Partition, "blow: partition"),
    (Blow::Flush, "blow: flush"),
    (Blow::HandOver, "blow: hand-over"),
    (Blow::BlackOut, "blow: black-out"),
    (Blow::Rot, "blow: rot"),
    (Blow::LostDisk, "blow: lost disk"),
    (Blow::CrashOfSome, "blow: crash of some"),
    (Blow::RollingRestart, "blow: rolling restart"),
];

/// One node and what may happen to it.
pub struct Struck {
    /// Its place.
    pub seat: Arc<Seat>,
    /// Its machine.
    pub machine: madsim::task::NodeId,
    /// Something is being done to it.
    busy: AtomicBool,
    /// Nodes that lived there, were given up, and came back on machines of their own.
    again: Mutex<Vec<Arc<Seat>>>,
}

impl Struck {
    /// A node that nothing has struck yet.
    pub fn new(seat: Arc<Seat>, machine: madsim::task::NodeId) -> Struck {
        Struck { seat, machine, busy: AtomicBool::new(false), again: Mutex::default() }
    }

    /// All nodes that live there, or did and came back.
    pub fn seats(&self) -> Vec<Arc<Seat>> {
        let again = self.again.lock().unwrap_or_else(PoisonError::into_inner);
        [&self.seat].into_iter().chain(again.iter()).cloned().collect()
    }
}

/// Strikes.
pub struct Storm {
    setting: Arc<Setting>,
    nodes: Vec<Arc<Struck>>,
    /// Who else is on the network.
    callers: Vec<NodeId>,
    dice: Dice,
}

impl Storm {
    /// A storm over these nodes.
    pub fn new(setting: Arc<Setting>, nodes: Vec<Arc<Struck>>, callers: Vec<NodeId>) -> Storm {
        let dice = Dice::new(setting.world.seed, "storm");
        Storm { setting, nodes, callers, dice }
    }

    /// Sets every node's clock wrong, then strikes, for ever.
    pub async fn rage(mut self) {
        let skew_us = self.setting.world.clock.skew_max.as_micros() as u64;
        for node in &self.nodes {
            let ahead_us = self.dice.within(0..=2 * skew_us) as i64 - skew_us as i64;
            node.seat.ahead_us.store(ahead_us, Ordering::Relaxed);
        }
        if self.setting.world.clock_a_year_ahead {
            self.nodes[0].seat.ahead_us.store(YEAR_US, Ordering::Relaxed);
        }
        self.setting.clocks.set(ahead_of(&self.nodes));
        let blows = self.setting.world.blows.clone();
        if blows.is_empty() {
            return std::future::pending().await;
        }
        loop {
            let pause = self.dice.span(&self.setting.world.between_blows);
            tokio::time::sleep(pause).await;
            let blow = self.dice.weighted(&blows);
            let node = Arc::clone(self.dice.pick(&self.nodes));
            if node.busy.swap(true, Ordering::Relaxed) {
                continue;
            }
            self.setting.trace.tell(node.seat.column, Tone::Blow, format_args!("{blow:?}"));
            let dice = Dice::new(self.dice.any(), "blow");
            let (setting, callers) = (Arc::clone(&self.setting), self.callers.clone());
            let nodes = self.nodes.clone();
            mark(NAMES.iter().find(|(own, _)| *own == blow).map_or("a blow", |(_, name)| name));
            tokio::spawn(async move {
                Strike { setting, node: Arc::clone(&node), nodes, callers, dice }.fall(blow).await;
                node.busy.store(false, Ordering::Relaxed);
            });
        }
    }
}

/// One blow at one node.
struct Strike {
    setting: Arc<Setting>,
    node: Arc<Struck>,
    nodes: Vec<Arc<Struck>>,
    callers: Vec<NodeId>,
    dice: Dice,
}

impl Strike {
    async fn fall(mut self, blow: Blow) {
        match blow {
            Blow::PowerCut => self.power_cut().await,
            Blow::PowerCutUnderWrite => {
                let operations = self.dice.within(0..=OPERATIONS_MAX);
                self.node.seat.disk().log.cut_power_after(operations);
                self.wait_for_death().await;
                self.power_cut().await;
            }
            Blow::ProcessKill => self.kill().await,
            Blow::Rot => {
                // Not while another node is lost: two may be too many.
                if !self.setting.replaces() && !self.setting.rotten.swap(true, Ordering::Relaxed) {
                    let rots = self.node.seat.rot(&mut self.dice).await;
                    self.setting.rotten.store(rots, Ordering::Relaxed);
                }
                self.power_cut().await;
            }
            Blow::LostDisk => self.lose_disk().await,
            Blow::FailedSync => {
                let after = self.dice.within(0..=20);
                let log = self.node.seat.disk().log;
                match self.dice.chance(700) {
                    true => log.fail_sync(after),
                    false => log.fail_write(after, self.dice.within(0..=8) as usize, ErrorKind::Other),
                }
                self.wait_for_death().await;
                // Whether it struck or not: a process that met it is over.
                self.kill().await;
            }
            Blow::FullDisk => {
                let log = self.node.seat.disk().log;
                log.set_capacity(0);
                tokio::time::sleep(self.dice.span(&FULL)).await;
                log.set_capacity(u64::MAX);
            }
            Blow::Pause => {
                Handle::current().pause(self.node.machine);
                tokio::time::sleep(self.dice.span(&PAUSED)).await;
                Handle::current().resume(self.node.machine);
            }
            Blow::ClockJump => {
                let jump_us = self.setting.world.clock.jump_max.as_micros() as u64;
                let by_us = self.dice.within(0..=2 * jump_us) as i64 - jump_us as i64;
                self.node.seat.ahead_us.fetch_add(by_us, Ordering::Relaxed);
                self.setting.clocks.set(ahead_of(&self.nodes));
            }
            Blow::Partition => self.partition().await,
            Blow::Flush => {
                let all = self.dice.chance(500);
                let Some(node) = self.node.seat.node() else { return };
                for group in node.cluster().groups().values() {
                    // A node that is on its way down flushes nothing.
                    let _ = tokio::time::timeout(PLANNED_MAX, group.flush(all)).await;
                }
            }
            Blow::HandOver => {
                let Some(node) = self.node.seat.node() else { return };
                let _ = tokio::time::timeout(PLANNED_MAX, node.hand_over()).await;
            }
            Blow::BlackOut => {
                // Those that something else is done to come back by that.
                let others = self.nodes.iter().filter(|node| !node.busy.swap(true, Ordering::Relaxed));
                let struck: Vec<_> = others.cloned().chain([Arc::clone(&self.node)]).collect();
                black_out(&self.setting, &struck, self.dice.any()).await;
                let others = struck.iter().filter(|node| !Arc::ptr_eq(node, &self.node));
                others.for_each(|node| node.busy.store(false, Ordering::Relaxed));
            }
            Blow::CrashOfSome => self.crash_of_some().await,
            Blow::RollingRestart => self.rolling_restart().await,
        }
    }

    async fn wait_for_death(&self) {
        let _ = tokio::time::timeout(PLANNED_MAX, self.node.seat.died.notified()).await;
    }

    async fn power_cut(&mut self) {
        let seed = self.dice.any();
        let left = self.node.seat.disk().after_power_cut(&self.setting.world, seed);
        end(&self.node, left);
        self.come_back().await;
    }

    async fn kill(&mut self) {
        let left = self.node.seat.disk().after_kill(&self.setting.world);
        end(&self.node, left);
        self.come_back().await;
    }

    async fn come_back(&mut self) {
        tokio::time::sleep(down_time(&mut self.dice)).await;
        Handle::current().restart(self.node.machine);
    }

    /// The disk is gone. A new node comes up in the same place, is put there by the operator, and copies what
    /// the others have, while it may be struck like any other, by this as well.
    async fn lose_disk(&mut self) {
        let setting = Arc::clone(&self.setting);
        if !self.node.seat.may_lose_disk() {
            return;
        }
        // One that is given up too soon has its disk, and comes back: it must not be heard any more.
        let comes_back = !self.node.seat.is_rotten() && self.dice.chance(COMES_BACK);
        let given_up = comes_back.then(|| self.node.seat.given_up());
        end(&self.node, NodeDisk::new(&setting.world, &setting.scratch));
        let lost = self.node.seat.take_new_node();
        self.come_back().await;
        operator::replace(&setting, &self.nodes, &self.node.seat, lost, &mut self.dice).await;
        let (nodes, new) = (self.nodes.clone(), Arc::clone(&self.node));
        tokio::spawn(operator::watch(setting, nodes, new, lost));
        if let Some(old) = given_up {
            let (away, place) = (down_time(&mut self.dice), Arc::clone(&self.node));
            tokio::spawn(async move {
                tokio::time::sleep(away).await;
                mark("given-up node came back");
                place.again.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(&old));
                machine_of(old);
            });
        }
    }

    async fn partition(&mut self) {
        let world = &self.setting.world.partitions;
        let shape = world.shape(&mut self.dice);
        let nodes = self.setting.residents();
        let everybody: Vec<NodeId> = nodes.iter().chain(&self.callers).copied().collect();
        let (struck, leaders) = (self.node.seat.id(), self.node.seat.leaders());
        let people = People { nodes: &nodes, everybody: &everybody, struck, leaders: &leaders };
        let cut = partition::links(shape, &people, &mut self.dice);
        if cut.is_empty() {
            return;
        }
        let spells = world.spells(&mut self.dice);
        mark(shape.name());
        if spells.len() > 1 {
            mark("partition: flaps");
        }
        let (links, times, column) = (cut.len(), spells.len(), self.node.seat.column);
        let tell = |told: fmt::Arguments<'_>| self.setting.trace.tell(column, Tone::Blow, told);
        tell(format_args!("{shape:?}, {links} links, {times} times"));
        for (apart, mended) in spells {
            cut.iter().for_each(|(from, to)| self.setting.network.cut(*from, *to));
            tokio::time::sleep(apart).await;
            cut.iter().for_each(|(from, to)| self.setting.network.mend(*from, *to));
            tokio::time::sleep(mended).await;
        }
    }

    /// Any subset of the nodes goes down at one instant: of each the power fails, or the process is killed.
    /// Each comes back by itself.
    async fn crash_of_some(&mut self) {
        let mut struck = vec![Arc::clone(&self.node)];
        for node in &self.nodes {
            if self.dice.chance(500) && !node.busy.swap(true, Ordering::Relaxed) {
                struck.push(Arc::clone(node));
            }
        }
        if struck.len() > 1 && struck.len() < self.nodes.len() {
            mark("some nodes down at once, and not all");
        }
        let world = &self.setting.world;
        for node in &struck {
            let disk = node.seat.disk();
            let left = match self.dice.chance(700) {
                true => disk.after_power_cut(world, self.dice.any()),
                false => disk.after_kill(world),
            };
            end(node, left);
        }
        let mut back: Vec<(Duration, &Arc<Struck>)> =
            struck.iter().map(|node| (down_time(&mut self.dice), node)).collect();
        back.sort_by_key(|(after, _)| *after);
        let mut waited = Duration::ZERO;
        for (after, node) in back {
            tokio::time::sleep(after - waited).await;
            waited = after;
            Handle::current().restart(node.machine);
            if !Arc::ptr_eq(node, &self.node) {
                node.busy.store(false, Ordering::Relaxed);
            }
        }
    }

    /// All nodes, one after the other: each is told to stop, or killed, and serves again before the next.
    async fn rolling_restart(&mut self) {
        let nodes = self.nodes.clone();
        for node in nodes {
            let own = Arc::ptr_eq(&node, &self.node);
            if !own && node.busy.swap(true, Ordering::Relaxed) {
                continue;
            }
            if self.dice.chance(700) {
                let stopped = tokio::time::timeout(ORDERLY_MAX, node.seat.stop()).await;
                mark(if stopped.is_ok() { "node stopped in order" } else { "node did not stop in time" });
            }
            self.setting.trace.tell(node.seat.column, Tone::Blow, format_args!("restarts in turn"));
            end(&node, node.seat.disk().after_kill(&self.setting.world));
            tokio::time::sleep(down_time(&mut self.dice)).await;
            Handle::current().restart(node.machine);
            let rotten = node.seat.is_rotten();
            let serves_max = if rotten { ROTTEN_MAX } else { SERVES_MAX };
            let serves = tokio::time::timeout(serves_max, node.seat.serves()).await;
            if serves.is_err() && !rotten {
                let what = format!("{} does not serve {serves_max:?} after its restart", node.seat.name);
                self.setting.referee.fail(what);
            }
            if !own {
                node.busy.store(false, Ordering::Relaxed);
            }
        }
        mark("all nodes restarted in turn");
    }
}

/// A machine on which a node's process runs.
pub fn machine_of(seat: Arc<Seat>) -> madsim::task::NodeId {
    let name = seat.name.clone();
    Handle::current().create_node().name(name).init(move || Arc::clone(&seat).run()).build().id()
}

/// How long a node stays down.
fn down_time(dice: &mut Dice) -> Duration {
    let down = if dice.chance(250) { DOWN_LONG } else { DOWN };
    dice.span(&down)
}

/// Ends a node's process: the next one finds what is left. Whoever calls this has looked at what is left
/// before: what a process that was killed still closes comes too late.
fn end(node: &Struck, left: NodeDisk) {
    Handle::current().kill(node.machine);
    node.seat.set_disk(left);
}

/// Waits until nothing is being done to any node, and mends what is broken.
pub async fn mend(setting: &Setting, nodes: &[Arc<Struck>]) {
    while nodes.iter().any(|node| node.busy.load(Ordering::Relaxed)) {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    setting.network.calm();
    for node in nodes {
        node.seat.ahead_us.store(0, Ordering::Relaxed);
    }
    setting.clocks.set(ahead_of(nodes));
}

fn ahead_of(nodes: &[Arc<Struck>]) -> Vec<i64> {
    nodes.iter().map(|node| node.seat.ahead_us.load(Ordering::Relaxed)).collect()
}

/// Cuts the power of nodes at once, and lets them come back.
pub async fn black_out(setting: &Setting, nodes: &[Arc<Struck>], seed: u64) {
    for (node, number) in nodes.iter().zip(0..) {
        end(node, node.seat.disk().after_power_cut(&setting.world, seed.wrapping_add(number)));
    }
    tokio::time::sleep(*DOWN.start()).await;
    nodes.iter().for_each(|node| Handle::current().restart(node.machine));
}
