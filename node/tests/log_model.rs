//! Thousands of random steps against a model made of plain lists, with restarts, power cuts at any
//! operation, failed syncs and full disks; and, with kills alone, on real files as well.
//!
//! The rule that is checked after each restart: what is there equals the model after some prefix
//! of what was submitted, record by record, and that prefix holds everything that was answered.

#[path = "log_support/mod.rs"]
mod support;

use purser_node::log::{GroupId, LogEntry, LogError, Op, SimDisk, Slot, Step};
use std::collections::{BTreeMap, VecDeque};
use std::io::ErrorKind;
use support::{Choices, Hand, Place, Ticket, entry, small_options};

/// One group, as lists.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Group {
    first: u64,
    entries: Vec<LogEntry>,
    slots: BTreeMap<Slot, Vec<u8>>,
    purged: Option<(u64, Vec<u8>)>,
}

type Model = BTreeMap<u32, Group>;

impl Group {
    fn next(&self) -> u64 {
        self.first + self.entries.len() as u64
    }
}

/// The records of an operation: what a power cut may part.
fn records(op: &Op) -> Vec<Op> {
    match op {
        Op::Append { group, entries } => {
            let one = |entry: &LogEntry| Op::Append { group: *group, entries: vec![entry.clone()] };
            entries.iter().map(one).collect()
        }
        other => vec![other.clone()],
    }
}

fn apply(model: &mut Model, op: &Op) {
    let group = model.entry(op.group().0).or_default();
    match op {
        Op::Append { entries, .. } => group.entries.extend(entries.iter().cloned()),
        Op::Truncate { from_index, .. } => group.entries.retain(|e| e.index < *from_index),
        Op::Purge { upto_index, mark, .. } => {
            if group.purged.as_ref().is_none_or(|(upto, _)| upto <= upto_index) {
                group.entries.retain(|e| e.index > *upto_index);
                group.first = group.first.max(upto_index + 1);
                group.purged = Some((*upto_index, mark.to_vec()));
            }
        }
        Op::Put { slot, value, .. } => {
            group.slots.insert(*slot, value.to_vec());
        }
        Op::Forget { .. } => {
            model.remove(&op.group().0);
        }
    }
    model.retain(|_, group| *group != Group::default());
}

/// What the log itself says, read entry by entry.
fn observed(hand: &Hand<impl Place>, groups: u32) -> Model {
    let mut model = Model::new();
    for id in 0..groups {
        let group = GroupId(id);
        let extent = hand.log.extent(group).expect("not damaged");
        let entries =
            hand.log.read(group, extent.first_index..extent.next_index).expect("entries are readable");
        let slot = |slot| Some((slot, hand.log.slot(group, slot).expect("served")?.to_vec()));
        assert_eq!(extent.last_term, entries.last().map(|e| e.term));
        let found = Group {
            first: extent.first_index,
            entries,
            slots: Slot::ALL.into_iter().filter_map(slot).collect(),
            purged: hand.log.purged(group).expect("served").map(|(upto, mark)| (upto, mark.to_vec())),
        };
        model.insert(id, found);
    }
    model.retain(|_, group| *group != Group::default());
    model
}

struct Pending {
    ops: Vec<Op>,
    ticket: Ticket,
}

struct World<D = SimDisk> {
    choices: Choices,
    groups: u32,
    hand: Hand<D>,
    /// What was answered.
    durable: Model,
    /// What was submitted.
    submitted: Model,
    pending: VecDeque<Pending>,
    serial: u64,
    seen: Seen,
}

/// What came up, to prove that a run of seeds reached the corners.
#[derive(Debug, Default)]
struct Seen {
    runs: u64,
    segments_freed: u64,
    refused_for_room: u64,
    restarts_with_unanswered_kept: u64,
    restarts_with_unanswered_lost: u64,
}

impl Seen {
    fn add(&mut self, other: &Seen) {
        self.runs += other.runs;
        self.segments_freed += other.segments_freed;
        self.refused_for_room += other.refused_for_room;
        self.restarts_with_unanswered_kept += other.restarts_with_unanswered_kept;
        self.restarts_with_unanswered_lost += other.restarts_with_unanswered_lost;
    }
}

/// How many seeds to run: more for a soak, by `PURSER_LOG_SEEDS`.
fn seeds(usual: u64) -> u64 {
    std::env::var("PURSER_LOG_SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(usual)
}

const GROUPS: u32 = 4;

impl<D: Place> World<D> {
    fn new(seed: u64) -> World<D> {
        World {
            choices: Choices(seed),
            groups: GROUPS,
            hand: Hand::small(&D::fresh()),
            durable: Model::new(),
            submitted: Model::new(),
            pending: VecDeque::new(),
            serial: 0,
            seen: Seen::default(),
        }
    }

    fn random_op(&mut self, model: &Model) -> Op {
        let id = u32::try_from(self.choices.below(u64::from(self.groups))).unwrap();
        let group = GroupId(id);
        let found = model.get(&id).cloned().unwrap_or_default();
        self.serial += 1;
        let serial = self.serial;
        match self.choices.below(20) {
            0..=9 => {
                let count = 1 + self.choices.below(6);
                let long = self.choices.one_in(12);
                let make = |at| {
                    let bytes = if long { 9000 } else { self.choices.below(500) };
                    let mut payload = format!("{serial}.{at}.").into_bytes();
                    payload.resize(payload.len() + usize::try_from(bytes).unwrap(), b'.');
                    entry(found.next() + at, serial / 10, payload)
                };
                Op::Append { group, entries: (0..count).map(make).collect() }
            }
            10..=11 => {
                let back = self.choices.below(found.entries.len() as u64 + 1);
                Op::Truncate { group, from_index: found.next() - back }
            }
            12..=14 => {
                let beyond = if self.choices.one_in(6) { 5 } else { 0 };
                let live = found.entries.len() as u64;
                let upto_index = (found.first + self.choices.below(live + 1) + beyond).max(1) - 1;
                Op::Purge { group, upto_index, mark: format!("{serial}").into() }
            }
            15 if self.choices.one_in(4) => Op::Forget { group },
            n => {
                let slot = Slot::ALL[usize::try_from(n % 4).unwrap()];
                Op::Put { group, slot, value: format!("{serial}").into() }
            }
        }
    }

    fn submit(&mut self) {
        let mut after = self.submitted.clone();
        let mut ops = Vec::new();
        for _ in 0..1 + self.choices.below(3) {
            let op = self.random_op(&after);
            apply(&mut after, &op);
            ops.push(op);
        }
        let ticket = Ticket::default();
        match self.hand.log.try_submit(ops.clone(), ticket.done()) {
            Ok(()) => {
                self.submitted = after;
                self.pending.push_back(Pending { ops, ticket });
            }
            Err(refused) => {
                assert!(
                    matches!(refused.error, LogError::Busy | LogError::Poisoned(_)),
                    "{:?}",
                    refused.error
                );
                assert_eq!(refused.ops, ops, "a refused submission comes back whole");
            }
        }
    }

    /// Books the answers that came. Answers come in order, but for refusals.
    fn collect(&mut self) {
        let mut refused = Vec::new();
        let mut still = VecDeque::new();
        for pending in std::mem::take(&mut self.pending) {
            match pending.ticket.answer() {
                None => still.push_back(pending),
                Some(Ok(())) => {
                    assert!(still.is_empty(), "answers come in the order of submission");
                    pending.ops.iter().for_each(|op| apply(&mut self.durable, op));
                }
                Some(Err(LogError::NoSpace(_))) => {
                    refused.extend(pending.ops.iter().flat_map(records));
                    self.seen.refused_for_room += 1;
                }
                Some(Err(other)) => panic!("unexpected answer {other:?}"),
            }
        }
        self.pending = still;
        if !refused.is_empty() {
            self.book_refusals(&refused);
        }
    }

    /// A refused submission leaves nothing, or (if the disk filled up between two runs of it) its
    /// first records. What was submitted otherwise stands.
    fn book_refusals(&mut self, refused: &[Op]) {
        let found = observed(&self.hand, self.groups);
        for kept in 0..=refused.len() {
            let mut durable = self.durable.clone();
            refused[..kept].iter().for_each(|record| apply(&mut durable, record));
            let mut submitted = durable.clone();
            let ops = self.pending.iter().flat_map(|pending| &pending.ops);
            ops.for_each(|op| apply(&mut submitted, op));
            if submitted == found {
                (self.durable, self.submitted) = (durable, submitted);
                return;
            }
        }
        panic!("what is left of refused submissions is no prefix of them: {found:#?}");
    }

    /// Goes on with what a disk holds.
    fn reopen(&mut self, disk: &D) {
        let stats = self.hand.log.stats().core;
        self.seen.runs += stats.runs;
        self.seen.segments_freed += stats.segments_freed;
        self.hand = Hand::small(disk);
    }

    /// What is there after a restart must be the model after a prefix of the pending records.
    fn check_restart(&mut self, what: &str) {
        let recovered = &self.hand.recovered;
        assert_eq!(recovered.damaged, BTreeMap::new(), "{what}: {:?}", recovered.findings);
        assert!(recovered.findings.is_empty() && !recovered.unnamed_loss, "{what}: {recovered:?}");
        let found = observed(&self.hand, self.groups);
        let mut candidate = self.durable.clone();
        let mut fits = candidate == found;
        for record in self.pending.iter().flat_map(|pending| pending.ops.iter().flat_map(records)) {
            apply(&mut candidate, &record);
            fits |= candidate == found;
        }
        self.seen.restarts_with_unanswered_lost += u64::from(candidate != found);
        self.seen.restarts_with_unanswered_kept += u64::from(self.durable != found);
        assert!(fits, "{what}: found {found:#?}\nanswered {:#?}", self.durable);
        self.durable = found.clone();
        self.submitted = found;
        self.pending.clear();
    }

    fn turn(&mut self) {
        let step = if self.choices.one_in(3) { self.hand.driver.idle() } else { self.hand.driver.step() };
        assert_ne!(step, Step::Ended);
        self.collect();
    }

    /// The process is killed: what was written reads back, answered or not.
    fn killed(&mut self) {
        let disk = self.hand.disk.after_kill();
        self.reopen(&disk);
        self.check_restart("killed");
    }

    /// A step that any disk can take.
    fn plain_step(&mut self) {
        match self.choices.below(100) {
            0..=54 => self.submit(),
            55..=89 => self.turn(),
            90..=93 => {
                assert_eq!(observed(&self.hand, self.groups), self.submitted, "what is readable");
            }
            94..=97 => self.killed(),
            _ => self.hand.rest(),
        }
    }

    /// The node's part: flushes and purges the groups that the log names.
    fn flush_what_the_log_names(&mut self) {
        for need in self.hand.log.groups_to_flush() {
            let next = self.submitted.get(&need.group.0).map_or(0, Group::next);
            if next > 0 {
                let op = Op::Purge { group: need.group, upto_index: next - 1, mark: "flushed".into() };
                let ticket = Ticket::default();
                if self.hand.log.try_submit(vec![op.clone()], ticket.done()).is_ok() {
                    apply(&mut self.submitted, &op);
                    self.pending.push_back(Pending { ops: vec![op], ticket });
                }
            }
        }
    }
}

impl World {
    /// Power is cut at some operation of what follows.
    fn power_cut(&mut self) {
        let disk = self.hand.disk.clone();
        disk.cut_power_after(self.choices.below(12));
        for _ in 0..4 {
            self.submit();
            if self.hand.driver.step() == Step::Ended || self.hand.driver.idle() == Step::Ended {
                break;
            }
            self.collect();
        }
        self.collect_before_end();
        // Power may fail again while the log is being opened.
        let mut disk = disk.crash(self.choices.next());
        while self.choices.one_in(3) {
            disk.cut_power_after(self.choices.below(12));
            drop(Hand::open(&disk, small_options()));
            disk = disk.crash(self.choices.next());
        }
        self.reopen(&disk);
        self.check_restart("power cut");
    }

    /// Books what was answered before the log failed; what failed stays pending.
    fn collect_before_end(&mut self) {
        while self.pending.front().is_some_and(|pending| pending.ticket.is_ok()) {
            let answered = self.pending.pop_front().unwrap();
            answered.ops.iter().for_each(|op| apply(&mut self.durable, op));
        }
        assert!(self.pending.iter().all(|pending| !pending.ticket.is_ok()));
    }

    fn failed_sync(&mut self) {
        let disk = self.hand.disk.clone();
        disk.fail_sync(self.choices.below(4));
        for _ in 0..6 {
            self.submit();
            if self.hand.driver.step() == Step::Ended {
                break;
            }
            self.collect();
        }
        self.collect_before_end();
        let power_fails_too = self.choices.one_in(2);
        let disk = if power_fails_too { disk.crash(self.choices.next()) } else { disk.duplicate() };
        disk.fail_sync(u64::MAX);
        self.reopen(&disk);
        self.check_restart("failed sync");
        if !power_fails_too {
            // What was read back after the failed sync must now survive a power cut.
            let disk = disk.crash(self.choices.next());
            self.reopen(&disk);
            self.check_restart("power cut after a failed sync");
        }
    }

    fn step(&mut self) {
        match self.choices.below(100) {
            0..=54 => self.submit(),
            55..=89 => self.turn(),
            90..=93 => {
                assert_eq!(observed(&self.hand, self.groups), self.submitted, "what is readable");
            }
            94 => self.killed(),
            95 => self.hand.rest(),
            96 => self.failed_sync(),
            _ => self.power_cut(),
        }
        if self.choices.one_in(20) {
            self.collect();
        }
    }
}

fn run(seed: u64, steps: u64) -> Seen {
    let mut world: World = World::new(seed);
    for _ in 0..steps {
        world.step();
        world.collect();
        world.flush_what_the_log_names();
    }
    world.seen
}

#[test]
fn random_steps_with_power_cuts_and_failed_syncs_agree_with_the_model() {
    let mut seen = Seen::default();
    for seed in 0..seeds(100) {
        println!("seed {seed}");
        seen.add(&run(seed, 600));
    }
    println!("{seen:?}");
    assert!(seen.runs > 1000 && seen.segments_freed > 50, "{seen:?}");
    assert!(seen.restarts_with_unanswered_kept > 50, "{seen:?}");
    assert!(seen.restarts_with_unanswered_lost > 50, "{seen:?}");
}

told_of_both_disks!(random_steps_with_kills_agree_with_the_model);

fn random_steps_with_kills_agree_with_the_model<D: Place>() {
    let mut seen = Seen::default();
    for seed in 0..seeds(12) {
        println!("seed {seed}");
        let mut world = World::<D>::new(2000 + seed);
        for _ in 0..500 {
            world.plain_step();
            world.collect();
            world.flush_what_the_log_names();
        }
        seen.add(&world.seen);
    }
    println!("{seen:?}");
    assert!(seen.runs > 500 && seen.segments_freed > 20, "{seen:?}");
    assert!(seen.restarts_with_unanswered_lost > 50, "{seen:?}");
}

#[test]
fn random_steps_on_a_disk_that_fills_up_agree_with_the_model() {
    let mut seen = Seen::default();
    for seed in 0..seeds(60) {
        println!("seed {seed}");
        let mut world: World = World::new(1000 + seed);
        for step in 0..800 {
            if step % 100 == 50 {
                world.hand.disk.set_capacity(5 * 64 * 1024);
            }
            if step % 100 == 90 {
                world.hand.disk.set_capacity(u64::MAX);
            }
            if step % 40 == 0 {
                let after = world.choices.below(4);
                let kept_sectors = usize::try_from(world.choices.below(30)).unwrap();
                world.hand.disk.fail_write(after, kept_sectors, ErrorKind::StorageFull);
            }
            match world.choices.below(12) {
                0..=5 => world.submit(),
                6..=9 => world.turn(),
                10 => {
                    assert_eq!(observed(&world.hand, GROUPS), world.submitted, "what is readable");
                }
                _ => {
                    let disk = world.hand.disk.crash(world.choices.next());
                    world.reopen(&disk);
                    world.check_restart("power cut on a full disk");
                }
            }
        }
        seen.add(&world.seen);
    }
    println!("{seen:?}");
    assert!(seen.refused_for_room > 50, "{seen:?}");
}
