//! What the tests of the log share: small options, the places where a log may be (a simulated disk, real
//! files), a hand-turned log, tickets for answers, and a seeded source of choices.
#![allow(dead_code, missing_docs)]

use bytes::Bytes;
use purser_node::log::{
    DirLock, Disk, DiskFile, GroupId, LogDriver, LogEntry, LogError, LogHandle, LogOptions, Op, OpenError,
    RealDisk, Recovered, SimDisk, Slot, Step, open,
};
use std::io;
use std::sync::{Arc, Mutex};
use tempfile::TempDir;

pub const G1: GroupId = GroupId(1);
pub const G2: GroupId = GroupId(2);
pub const G3: GroupId = GroupId(3);

/// Segments so small that a few dozen entries fill one.
pub fn small_options() -> LogOptions {
    LogOptions {
        segment_bytes: 64 * 1024,
        run_bytes_max: 24 * 1024,
        entry_bytes_max: 12 * 1024,
        reserve_bytes: 12 * 1024,
        queue_bytes_max: 128 * 1024,
        cache_bytes_max: 4 * 1024,
        group_bytes_max: 128 * 1024,
        retained_bytes_max: 256 * 1024,
        ..LogOptions::new("test node")
    }
}

/// Where a log may be. What is told of one must be told of the other: so the simulated disk is shown to be
/// what files are.
pub trait Place: Disk + Clone + 'static {
    /// An empty directory.
    fn fresh() -> Self;
    /// What the next process finds if this one is killed now: the machine stays on.
    fn after_kill(&self) -> Self;
    /// What a file holds now, if it is there.
    fn contents(&self, name: &str) -> Option<Vec<u8>>;
}

impl Place for SimDisk {
    fn fresh() -> SimDisk {
        SimDisk::new()
    }

    fn after_kill(&self) -> SimDisk {
        self.duplicate()
    }

    fn contents(&self, name: &str) -> Option<Vec<u8>> {
        SimDisk::contents(self, name)
    }
}

/// A directory of real files, removed with the last of its clones.
#[derive(Clone)]
pub struct Files {
    disk: Arc<RealDisk>,
    directory: Arc<TempDir>,
}

impl Place for Files {
    fn fresh() -> Files {
        let directory = TempDir::new().expect("a directory");
        let disk = RealDisk::open(directory.path()).expect("opens");
        Files { disk: Arc::new(disk), directory: Arc::new(directory) }
    }

    fn after_kill(&self) -> Files {
        let left = Files::fresh();
        for name in self.list().expect("a list") {
            let place = |files: &Files| files.directory.path().join(&name);
            std::fs::copy(place(self), place(&left)).expect("copied");
        }
        left
    }

    fn contents(&self, name: &str) -> Option<Vec<u8>> {
        std::fs::read(self.directory.path().join(name)).ok()
    }
}

impl Disk for Files {
    fn lock(&self) -> io::Result<Box<dyn DirLock>> {
        self.disk.lock()
    }

    fn list(&self) -> io::Result<Vec<String>> {
        self.disk.list()
    }

    fn create(&self, name: &str, bytes: u64) -> io::Result<Arc<dyn DiskFile>> {
        self.disk.create(name, bytes)
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        self.disk.open(name)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.disk.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.disk.remove(name)
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.disk.sync_dir()
    }

    fn free_bytes(&self) -> io::Result<u64> {
        self.disk.free_bytes()
    }
}

/// Tells each story of a simulated disk and of real files.
#[macro_export]
macro_rules! told_of_both_disks {
    ($($story:ident),+ $(,)?) => {
        mod on_a_simulated_disk {
            $(#[test] fn $story() { super::$story::<purser_node::log::SimDisk>(); })+
        }
        mod on_files {
            $(#[test] fn $story() { super::$story::<super::support::Files>(); })+
        }
    };
}

/// The answer to one submission, once it is there.
#[derive(Clone, Default)]
pub struct Ticket(Arc<Mutex<Option<Result<(), LogError>>>>);

impl Ticket {
    pub fn answer(&self) -> Option<Result<(), LogError>> {
        self.0.lock().unwrap().clone()
    }

    pub fn is_ok(&self) -> bool {
        self.answer() == Some(Ok(()))
    }

    pub fn done(&self) -> Box<dyn FnOnce(Result<(), LogError>) + Send> {
        let slot = Arc::clone(&self.0);
        Box::new(move |result| {
            let before = slot.lock().unwrap().replace(result);
            assert!(before.is_none(), "answered twice");
        })
    }
}

/// A log whose driver is turned by the test.
pub struct Hand<D = SimDisk> {
    pub disk: D,
    pub log: LogHandle,
    pub driver: LogDriver,
    pub recovered: Recovered,
    pub fatal: Arc<Mutex<Vec<LogError>>>,
}

impl<D: Place> Hand<D> {
    pub fn open(disk: &D, options: LogOptions) -> Result<Hand<D>, OpenError> {
        let (log, mut driver, recovered) = open(Arc::new(disk.clone()), options)?;
        let fatal = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&fatal);
        driver.on_fatal(Box::new(move |error| heard.lock().unwrap().push(error.clone())));
        Ok(Hand { disk: disk.clone(), log, driver, recovered, fatal })
    }

    pub fn small(disk: &D) -> Hand<D> {
        Hand::open(disk, small_options()).expect("the log opens")
    }

    pub fn submit(&self, ops: Vec<Op>) -> Ticket {
        let ticket = Ticket::default();
        self.log.try_submit(ops, ticket.done()).expect("accepted");
        ticket
    }

    /// Turns the driver until nothing asks for a run.
    pub fn settle(&mut self) {
        while self.driver.step() == Step::Worked {}
    }

    /// Lets the idle time pass as often as the log wants, or until it waits for room.
    pub fn rest(&mut self) {
        self.settle();
        for _ in 0..100 {
            let before = self.log.stats();
            let wants_idle = self.driver.idle() != (Step::Waiting { wants_idle: false });
            let is_full = self.disk.free_bytes().expect("free bytes") < small_options().segment_bytes.into();
            if !wants_idle || (is_full && self.log.stats() == before) {
                return;
            }
        }
        panic!("an idle log finds no rest");
    }

    /// Submits and makes durable.
    pub fn write(&mut self, ops: Vec<Op>) {
        let ticket = self.submit(ops);
        self.settle();
        assert_eq!(ticket.answer(), Some(Ok(())));
    }

    /// Stops without a word and starts again on the same disk.
    pub fn restart(self) -> Hand<D> {
        let disk = self.disk.clone();
        drop(self);
        Hand::small(&disk)
    }

    pub fn payloads(&self, group: GroupId) -> Vec<String> {
        let extent = self.log.extent(group).expect("the group is served");
        let entries = self.log.read(group, extent.first_index..extent.next_index).expect("readable");
        entries.iter().map(|e| String::from_utf8_lossy(&e.payload).into_owned()).collect()
    }
}

impl Hand {
    /// Cuts the power and starts again on what is left.
    pub fn crash(self, seed: u64) -> Hand {
        Hand::small(&self.disk.crash(seed))
    }
}

pub fn entry(index: u64, term: u64, payload: impl Into<Bytes>) -> LogEntry {
    LogEntry { index, term, payload: payload.into() }
}

/// Entries `from..upto` in term 1 whose payloads name group and index.
pub fn append(group: GroupId, from: u64, upto: u64) -> Op {
    let entries = (from..upto).map(|index| entry(index, 1, name(group, index))).collect();
    Op::Append { group, entries }
}

/// An append of one entry of so many bytes.
pub fn bulk(group: GroupId, index: u64, bytes: usize) -> Op {
    Op::Append { group, entries: vec![entry(index, 1, vec![b'x'; bytes])] }
}

pub fn name(group: GroupId, index: u64) -> String {
    format!("g{}e{index}", group.0)
}

pub fn names(group: GroupId, from: u64, upto: u64) -> Vec<String> {
    (from..upto).map(|index| name(group, index)).collect()
}

pub fn put(group: GroupId, slot: Slot, value: &str) -> Op {
    Op::Put { group, slot, value: Bytes::copy_from_slice(value.as_bytes()) }
}

pub fn vote(group: GroupId, value: &str) -> Op {
    put(group, Slot::Vote, value)
}

pub fn purge(group: GroupId, upto_index: u64) -> Op {
    Op::Purge { group, upto_index, mark: Bytes::from(format!("mark{upto_index}")) }
}

pub fn truncate(group: GroupId, from_index: u64) -> Op {
    Op::Truncate { group, from_index }
}

/// SplitMix64: the same choices for the same seed.
pub struct Choices(pub u64);

impl Choices {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    pub fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}
