//! One node's place in the world: what outlives its process, and the process itself while it runs.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use purser_node::api::replace::joined;
use purser_node::clock::Clock;
use purser_node::cluster::{Cluster, Founding, NodeId, NodePlace, State};
use purser_node::log::{self, Disk, LogHandle, LogOptions, Recovered};
use purser_node::node::{Mailroom, Node, Parts};
use purser_node::raft::{Group, Machine};
use purser_node::room::Room;
use purser_node::shard::ShardId;
use purser_node::simulation::mark;
use purser_proto::v1;
use tokio::sync::Notify;

use crate::dice::Dice;
use crate::disk::NodeDisk;
use crate::front::Front;
use crate::history::Witnessed;
use crate::setting::Setting;
use crate::timeline::{Place, Tone};
use crate::world::{ENTRY_BYTES_MAX, Lie};

/// How often it is looked whether a process serves.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// A log that has nothing to write marks what is durable within much less.
const WRITES_MAX: Duration = Duration::from_secs(2);
/// How much slower a run of the log is that stalls.
const STALL_FACTOR: u32 = 100;
/// A node that comes in the place of a lost one has its id and this.
const NEXT_NODE: u128 = 1_000;

/// Who lives at a place.
#[derive(Clone)]
struct Resident {
    place: NodePlace,
    belongs: Belongs,
}

/// Where a node belongs, as its data directory says.
#[derive(Clone)]
enum Belongs {
    /// It founded the cluster.
    Founder,
    /// To nothing: it waits for a place.
    Nowhere,
    /// It took a lost one's place, when the cluster was like this.
    Joined(Founding, State),
}

/// A node's place.
pub struct Seat {
    /// What it is called.
    pub name: String,
    /// Its column in the timeline.
    pub column: Place,
    /// Which of the places it is.
    number: usize,
    /// The node that lives there, and what it knows of its cluster, as its disk keeps it.
    resident: Mutex<Resident>,
    /// How far its clock is ahead, in microseconds.
    pub ahead_us: Arc<AtomicI64>,
    /// Its process has ended by itself.
    pub died: Notify,
    /// Its log has failed: it is about to end.
    dying: AtomicBool,
    /// Its log has rotted: it may do without some groups, or not start at all.
    rotten: AtomicBool,
    setting: Arc<Setting>,
    disk: Mutex<NodeDisk>,
    /// The node, while its process runs.
    node: Mutex<Option<Arc<Node>>>,
    /// Its log, while its process runs.
    log: Mutex<Option<LogHandle>>,
    dice: Mutex<Dice>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

impl Seat {
    /// A new node with an empty disk.
    pub fn new(place: NodePlace, setting: Arc<Setting>) -> Seat {
        let name = place.api_address.clone();
        let dice = Dice::new(setting.world.seed, &name);
        let number = setting.founding.nodes.iter().position(|node| node.id == place.id);
        let number = number.expect("places are the founding's");
        Seat {
            column: Place::Node(number),
            number,
            resident: Mutex::new(Resident { place, belongs: Belongs::Founder }),
            ahead_us: Arc::default(),
            died: Notify::new(),
            dying: AtomicBool::new(false),
            rotten: AtomicBool::new(false),
            disk: Mutex::new(NodeDisk::new(&setting.world, &setting.scratch)),
            node: Mutex::default(),
            log: Mutex::default(),
            dice: Mutex::new(dice),
            setting,
            name,
        }
    }

    fn tell(&self, tone: Tone, what: fmt::Arguments<'_>) {
        self.setting.trace.tell(self.column, tone, what);
    }

    /// The node that lives here.
    pub fn id(&self) -> NodeId {
        lock(&self.resident).place.id
    }

    /// The same, and where it is found.
    pub fn place(&self) -> NodePlace {
        lock(&self.resident).place.clone()
    }

    /// Whether its disk may be lost now, and is about to be. Not while another one's is lost or has rotted:
    /// a majority has to have everything.
    pub fn may_lose_disk(&self) -> bool {
        let another_rots = self.setting.rotten.load(Ordering::Relaxed) && !self.is_rotten();
        !another_rots && self.setting.lose_at(self.number)
    }

    /// The node that lives here, with its disk as it is, for a machine of its own: people give it up, but it
    /// comes back. It has the clock of this place.
    pub fn given_up(&self) -> Arc<Seat> {
        let resident = lock(&self.resident).clone();
        let name = format!("{} again", self.name);
        Arc::new(Seat {
            column: self.column,
            number: self.number,
            resident: Mutex::new(resident),
            ahead_us: Arc::clone(&self.ahead_us),
            died: Notify::new(),
            dying: AtomicBool::new(false),
            rotten: AtomicBool::new(self.is_rotten()),
            disk: Mutex::new(self.disk().after_kill(&self.setting.world)),
            node: Mutex::default(),
            log: Mutex::default(),
            dice: Mutex::new(Dice::new(self.setting.world.seed, &name)),
            setting: Arc::clone(&self.setting),
            name,
        })
    }

    /// From now on another node lives here, under the same name and address, and belongs to no cluster yet.
    /// Returns the one that was lost.
    pub fn take_new_node(&self) -> NodeId {
        let mut resident = lock(&self.resident);
        let lost = resident.place.id;
        resident.place.id = NodeId(uuid::Uuid::from_u128(lost.0.as_u128() + NEXT_NODE));
        resident.belongs = Belongs::Nowhere;
        lock(&self.setting.residents)[self.number] = resident.place.id;
        self.rotten.store(false, Ordering::Relaxed);
        lost
    }

    /// The node that lives here is told whose place it has.
    pub fn join(&self, told: &v1::JoinRequest) {
        match joined(told, self.id()) {
            Ok((founding, state)) => lock(&self.resident).belongs = Belongs::Joined(founding, state),
            Err(status) => self.setting.referee.fail(format!("{} cannot join: {status}", self.name)),
        }
    }

    /// What the node here knows of its cluster when it starts; waits until it belongs to one.
    async fn cluster(&self) -> Cluster {
        loop {
            let belongs = lock(&self.resident).belongs.clone();
            match belongs {
                Belongs::Founder => return Cluster::new(self.id(), self.setting.founding.clone()),
                Belongs::Joined(founding, state) => return Cluster::joined(self.id(), founding, state),
                Belongs::Nowhere => tokio::time::sleep(LOOK_EVERY).await,
            }
        }
    }

    /// Its disk, as it is now.
    pub fn disk(&self) -> NodeDisk {
        lock(&self.disk).clone()
    }

    /// Changes a byte of its log, or makes its sector unreadable, somewhere in what was ever written: not in
    /// the zeros between runs and in segments that wait to be used, which nobody would miss. Nor in the
    /// newest run, which a log that starts again could not tell from one that the power cut short
    /// (`log::recovery`): it waits until another run is behind. Returns whether it came to that.
    pub async fn rot(&self, dice: &mut Dice) -> bool {
        let log = self.disk().log;
        let mut names = log.list().unwrap_or_default();
        names.sort();
        let written = |name: &String| -> Vec<u64> {
            let bytes = log.contents(name).unwrap_or_default();
            (0..).zip(bytes).filter(|(_, byte)| *byte != 0).map(|(offset, _)| offset).collect()
        };
        names.retain(|name| !written(name).is_empty());
        if names.is_empty() {
            return false;
        }
        let name = dice.pick(&names).clone();
        let (offset, mask) = (*dice.pick(&written(&name)), dice.within(1..=255) as u8);
        if !self.writes_more().await {
            return false;
        }
        if dice.chance(300) {
            mark("sector unreadable");
            let struck = log.make_unreadable(&name, offset);
            self.tell(Tone::Blow, format_args!("{name} cannot be read at {offset}: {struck}"));
        } else {
            let struck = log.rot(&name, offset, mask);
            self.tell(Tone::Blow, format_args!("rots {name} at {offset}: {struck}"));
        }
        self.rotten.store(true, Ordering::Relaxed);
        true
    }

    /// Waits until its log has synced two more runs: one may have been under way. False if it does not, or
    /// its process ends before.
    async fn writes_more(&self) -> bool {
        let runs = || lock(&self.log).as_ref().map_or(0, |log| log.stats().core.runs);
        let before = runs();
        let more = async {
            while (before..before + 2).contains(&runs()) {
                tokio::time::sleep(LOOK_EVERY).await;
            }
        };
        tokio::time::timeout(WRITES_MAX, more).await.is_ok() && runs() > before + 1
    }

    /// From now on its disk is this one: the next process finds it.
    pub fn set_disk(&self, disk: NodeDisk) {
        *lock(&self.disk) = disk;
        *lock(&self.node) = None;
        *lock(&self.log) = None;
        self.dying.store(false, Ordering::Relaxed);
    }

    /// The node, while its process runs and serves.
    pub fn node(&self) -> Option<Arc<Node>> {
        lock(&self.node).clone()
    }

    /// Waits until its process serves.
    pub async fn serves(&self) {
        while self.node().is_none() {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Whether its log has rotted, so that it may do without some groups, or not start at all.
    pub fn is_rotten(&self) -> bool {
        self.rotten.load(Ordering::Relaxed)
    }

    /// Who leads its groups, as far as it knows and but for itself.
    pub fn leaders(&self) -> Vec<NodeId> {
        let Some(node) = self.node() else { return Vec::new() };
        let cluster = node.cluster();
        let leading = cluster.groups().keys().filter_map(|group| cluster.leading(*group)).collect::<Vec<_>>();
        let own = self.id();
        let others = leading.into_iter().map(|leading| leading.node).filter(|leader| *leader != own);
        others.collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// It is told to stop, as a process is: it hands its leads over, flushes, and ends its groups.
    pub async fn stop(&self) {
        let Some(node) = self.node() else { return };
        // From now on its groups end because they are told to.
        self.dying.store(true, Ordering::Relaxed);
        node.leave().await;
        for group in node.cluster().groups().values() {
            // Only so that the next start has less to replay.
            let _ = group.flush(false).await;
            let _ = group.shutdown().await;
        }
    }

    /// Its process: runs until it is killed.
    pub async fn run(self: Arc<Self>) {
        let disk = self.disk();
        self.tell(Tone::Plain, format_args!("starts"));
        if self.setting.world.disk.rocksdb {
            mark("rows in RocksDB");
        }
        match self.start(&disk).await {
            Ok(()) => self.tell(Tone::Good, format_args!("serves")),
            Err(why) if self.may_fail(&disk) => {
                if self.rotten.load(Ordering::Relaxed) && !disk.log.is_off() {
                    self.setting.lost.store(true, Ordering::Relaxed);
                }
                self.tell(Tone::Bad, format_args!("did not start: {why}"));
            }
            Err(why) => self.setting.referee.fail(format!("{} does not start: {why}", self.name)),
        }
        std::future::pending().await
    }

    async fn start(self: &Arc<Self>, disk: &NodeDisk) -> Result<(), String> {
        let setting = &self.setting;
        let cluster = Arc::new(self.cluster().await);
        let (log, recovered) = self.open_log(disk)?;
        let front = Arc::new(Front::new(Mailroom::new(cluster.clone())));
        let line = setting.network.plug(self.id(), &self.name, front.clone());
        let mut groups = setting.world.groups.clone();
        if setting.world.lie == Some(Lie::ClocksUnbounded) {
            groups.clock_bound_ms = u64::MAX / 1_000_000;
        }
        *lock(&self.log) = Some(log.clone());
        let parts = Parts {
            cluster,
            place: self.place(),
            log,
            recovered,
            state: disk.rows.open(&self.id().to_string()).map_err(|error| error.to_string())?,
            peers: line,
            clock: Arc::new(Clock::Skewed(Arc::clone(&self.ahead_us), setting.world.clock.step_us)),
            room: Arc::new(Room::over(|| Ok(u64::MAX), 1)),
            groups,
            ledger: self.ledger(),
        };
        let node = Arc::new(Node::start(parts).await.map_err(|error| format!("{error:#}"))?);
        front.open(node.api.clone());
        for group in node.cluster().groups().values() {
            tokio::spawn(Arc::clone(self).watch(group.clone(), disk.clone()));
        }
        *lock(&self.node) = Some(node);
        Ok(())
    }

    fn ledger(&self) -> Box<dyn Fn(ShardId) -> Arc<dyn Machine> + Send> {
        let forgets_keys = self.setting.world.lie == Some(Lie::KeysForgotten);
        let (name, history) = (self.name.clone(), Arc::clone(&self.setting.history));
        Box::new(move |shard| Arc::new(Witnessed::new(shard.0, &name, forgets_keys, Arc::clone(&history))))
    }

    fn open_log(self: &Arc<Self>, disk: &NodeDisk) -> Result<(LogHandle, Recovered), String> {
        let mut options = LogOptions::new(self.id().to_string());
        options.segment_bytes = self.setting.world.disk.segment_bytes;
        options.entry_bytes_max = ENTRY_BYTES_MAX as u32 + 1024;
        options.run_bytes_max = ENTRY_BYTES_MAX as u32;
        options.reserve_bytes = ENTRY_BYTES_MAX as u32;
        options.retained_bytes_max = 4 * u64::from(options.segment_bytes);
        options.group_bytes_max = u64::from(options.segment_bytes);
        options.cache_bytes_max = u64::from(options.segment_bytes);
        let opened = log::open(Arc::new(disk.log.clone()), options).map_err(|error| error.to_string())?;
        let (log, mut driver, recovered) = opened;
        let lost = !recovered.damaged.is_empty() || recovered.unnamed_loss || !recovered.findings.is_empty();
        if lost && self.rotten.load(Ordering::Relaxed) {
            mark("log rot found");
            self.setting.lost.store(true, Ordering::Relaxed);
            self.tell(Tone::Bad, format_args!("has lost something: {recovered:?}"));
        } else if lost {
            return Err(format!("its log has lost something: {recovered:?}"));
        }
        let seat = Arc::clone(self);
        driver.on_fatal(Box::new(move |error| {
            seat.tell(Tone::Bad, format_args!("ends itself: {error}"));
            seat.dying.store(true, Ordering::Relaxed);
            seat.died.notify_one();
        }));
        let seat = Arc::clone(self);
        tokio::spawn(log::simulate(driver, move || seat.run_time()));
        Ok((log, recovered))
    }

    /// How long the next run of the log takes.
    fn run_time(&self) -> Duration {
        let mut dice = lock(&self.dice);
        let disk = &self.setting.world.disk;
        let time = dice.span(&disk.run_time);
        if dice.chance(disk.stalls) { time * STALL_FACTOR } else { time }
    }

    /// Whether anything on it may fail now.
    fn may_fail(&self, disk: &NodeDisk) -> bool {
        disk.log.is_off() || self.dying.load(Ordering::Relaxed) || self.rotten.load(Ordering::Relaxed)
    }

    /// A group ends only with its log, or where another node has its node's place.
    async fn watch(self: Arc<Self>, group: Group, disk: NodeDisk) {
        let stopped = group.ended().await;
        if self.node().is_some_and(|node| node.cluster().replaced_by().is_some()) {
            mark("replaced replica stopped");
            return;
        }
        if !self.may_fail(&disk) {
            self.setting.referee.fail(format!("{} stopped group {}: {stopped}", self.name, group.id().0));
        }
    }
}
