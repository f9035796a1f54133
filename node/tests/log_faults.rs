//! Rot, tears and losses laid on by hand: acknowledged data comes back or its group is reported as
//! damaged, nothing is invented, and the groups that were not hit go on.

#[path = "log_support/mod.rs"]
mod support;

use purser_node::log::run::{RunHeader, decode_header, salt_of};
use purser_node::log::{Disk, GroupId, LogError, Op, SimDisk, Slot};
use std::collections::BTreeMap;
use std::io::ErrorKind;
use support::{Choices, G1, G2, G3, Hand, Ticket, append, bulk, names, purge, put, small_options, vote};

const FIRST: &str = "00000000000000000001.seg";
const SECTOR: usize = 512;
const BLOCK: u64 = 4096;

/// What a group holds, as text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Image {
    payloads: Vec<String>,
    slots: Vec<(Slot, String)>,
    purged: Option<(u64, String)>,
}

fn image(hand: &Hand, group: GroupId) -> Image {
    let text = |bytes: bytes::Bytes| String::from_utf8(bytes.to_vec()).unwrap();
    let slot = |slot| Some((slot, text(hand.log.slot(group, slot).unwrap()?)));
    Image {
        payloads: hand.payloads(group),
        slots: Slot::ALL.into_iter().filter_map(slot).collect(),
        purged: hand.log.purged(group).unwrap().map(|(upto, mark)| (upto, text(mark))),
    }
}

fn images(hand: &Hand) -> BTreeMap<GroupId, Image> {
    [G1, G2, G3].into_iter().map(|group| (group, image(hand, group))).collect()
}

/// Each group is as it was or reported as damaged. Returns the damaged ones.
fn whole_or_reported(disk: &SimDisk, before: &BTreeMap<GroupId, Image>, what: &str) -> Vec<GroupId> {
    let hand = Hand::small(disk);
    for (group, expected) in before {
        if let Some(reason) = hand.recovered.damaged.get(group) {
            let refused = hand.log.read(*group, 0..1);
            assert_eq!(
                refused,
                Err(LogError::Damaged { group: *group, reason: reason.clone() }),
                "a damaged group is not served"
            );
            assert!(!hand.recovered.groups.contains_key(group));
        } else {
            assert_eq!(&image(&hand, *group), expected, "{what}: {group}");
        }
    }
    let strangers = hand.recovered.groups.keys().filter(|group| !before.contains_key(group)).count();
    assert_eq!(strangers, 0, "{what}: a group was invented");
    hand.recovered.damaged.keys().copied().collect()
}

/// A small log: runs of one, two and three groups, every kind of record, at rest.
fn small_log() -> Hand {
    let mut hand = Hand::small(&SimDisk::new());
    hand.write(vec![append(G1, 0, 3), vote(G1, "one")]);
    hand.write(vec![append(G2, 0, 4), put(G2, Slot::Meta, "members")]);
    hand.write(vec![purge(G2, 1), append(G3, 0, 1), put(G1, Slot::Committed, "2")]);
    hand.write(vec![Op::Truncate { group: G1, from_index: 2 }, append(G1, 2, 4)]);
    hand.write(vec![bulk(G3, 1, 5000), vote(G3, "three"), vote(G2, "two"), vote(G1, "later")]);
    hand.rest();
    hand
}

#[test]
fn no_flipped_byte_of_what_was_acknowledged_goes_unnoticed() {
    let hand = small_log();
    let before = images(&hand);
    let used = hand.log.stats().core.bytes;
    let mut reported = 0;
    for offset in 0..used {
        for mask in [0x01, 0x80, 0xff] {
            let disk = hand.disk.duplicate();
            assert!(disk.rot(FIRST, offset, mask));
            let damaged = whole_or_reported(&disk, &before, &format!("byte {offset} ^ {mask:#x}"));
            reported += usize::from(!damaged.is_empty());
        }
    }
    assert!(reported > 0, "flips in records are reported");
}

#[test]
fn rot_in_a_run_damages_the_groups_named_in_it_and_no_other() {
    let hand = small_log();
    let before = images(&hand);
    // Blocks: start of the log, then the five runs of `small_log`.
    let disk = hand.disk.duplicate();
    disk.rot(FIRST, BLOCK + 150, 4);
    assert_eq!(whole_or_reported(&disk, &before, "run 2"), [G1]);
    let disk = hand.disk.duplicate();
    disk.rot(FIRST, 2 * BLOCK + 150, 4);
    assert_eq!(whole_or_reported(&disk, &before, "run 3"), [G2]);
}

#[test]
fn rot_in_the_header_or_the_trailer_alone_costs_nothing() {
    let hand = small_log();
    let before = images(&hand);
    for run in 1..5 {
        for offset in [run * BLOCK + 20, (run + 1) * BLOCK - 50] {
            let disk = hand.disk.duplicate();
            disk.rot(FIRST, offset, 4);
            assert!(whole_or_reported(&disk, &before, "one of two").is_empty());
        }
    }
}

#[test]
fn a_lost_run_that_nothing_names_damages_every_group() {
    let hand = small_log();
    let before = images(&hand);
    let disk = hand.disk.duplicate();
    disk.rot(FIRST, BLOCK + 20, 4);
    disk.rot(FIRST, 2 * BLOCK - 50, 4);
    assert_eq!(whole_or_reported(&disk, &before, "header and trailer"), [G1, G2, G3]);
    assert!(Hand::small(&disk.duplicate()).recovered.findings.len() <= 1);
}

#[test]
fn unreadable_sectors_are_taken_as_rot() {
    let hand = small_log();
    let before = images(&hand);
    let disk = hand.disk.duplicate();
    disk.make_unreadable(FIRST, 2 * BLOCK + 600);
    let damaged = whole_or_reported(&disk, &before, "an unreadable sector");
    assert!(damaged.contains(&G2));
}

#[test]
fn a_report_of_damage_stays_until_the_group_is_forgotten() {
    let hand = small_log();
    hand.disk.rot(FIRST, BLOCK + 150, 4);
    let mut hand = hand.restart().restart();
    assert!(hand.recovered.damaged.contains_key(&G1));
    let refused = hand.log.try_submit(vec![vote(G1, "no")], Ticket::default().done()).unwrap_err();
    assert!(matches!(refused.error, LogError::Damaged { group: G1, .. }));
    // The segment with the rot is freed and reused; the report must not go with it.
    for index in 0..40 {
        hand.write(vec![bulk(GroupId(9), index, 9000)]);
    }
    hand.write(vec![purge(GroupId(9), 39), purge(G2, 3), purge(G3, 1)]);
    hand.rest();
    assert_eq!(hand.log.stats().core.segments, 1);
    let mut hand = hand.restart();
    assert_eq!(hand.recovered.damaged.keys().collect::<Vec<_>>(), [&G1]);

    hand.write(vec![Op::Forget { group: G1 }, append(G1, 0, 2)]);
    let hand = hand.restart();
    assert!(hand.recovered.damaged.is_empty());
    assert_eq!(hand.payloads(G1), names(G1, 0, 2));
}

#[test]
fn rot_that_is_older_than_the_forgetting_of_its_group_does_not_matter() {
    let mut hand = small_log();
    hand.write(vec![Op::Forget { group: G1 }, append(G1, 0, 2)]);
    hand.rest();
    hand.disk.rot(FIRST, BLOCK + 150, 4);
    let hand = hand.restart();
    assert!(hand.recovered.damaged.is_empty(), "{:?}", hand.recovered.damaged);
    assert_eq!(hand.payloads(G1), names(G1, 0, 2));
}

#[test]
fn a_missing_segment_is_noticed_wherever_it_was() {
    let mut hand = Hand::small(&SimDisk::new());
    for index in 0..60 {
        hand.write(vec![bulk(G1, index, 9000), append(G2, index, index + 1)]);
    }
    hand.rest();
    let segments = hand.log.stats().core.segments;
    assert!(segments > 6);
    for lost in 1..segments {
        let disk = hand.disk.duplicate();
        assert!(disk.lose_file(&format!("{lost:020}.seg")));
        let after = Hand::small(&disk);
        let damaged: Vec<GroupId> = after.recovered.damaged.keys().copied().collect();
        assert_eq!(damaged, [G1, G2], "segment {lost}");
        assert!(after.recovered.unnamed_loss);
    }
}

#[test]
fn a_log_of_which_nothing_is_readable_says_so() {
    let hand = small_log();
    for offset in 0..64 * 1024 {
        hand.disk.rot(FIRST, offset, 0x5a);
    }
    let mut hand = hand.restart();
    assert!(hand.recovered.unnamed_loss);
    assert!(hand.recovered.groups.is_empty());
    hand.write(vec![append(G1, 0, 1)]);
    assert_eq!(hand.restart().payloads(G1), names(G1, 0, 1));
}

/// The disk before and after the last run of a log, and where that run lies.
struct LastRun {
    before: SimDisk,
    sectors: Vec<(usize, Vec<u8>)>,
    old: BTreeMap<GroupId, Image>,
    new: BTreeMap<GroupId, Image>,
}

/// A last run of `bytes` of payload, over the leftovers of a former life if `reused`.
fn last_run(bytes: usize, reused: bool) -> LastRun {
    let mut hand = small_log();
    if reused {
        for index in 0..40 {
            hand.write(vec![bulk(GroupId(9), index, 9000)]);
            hand.write(vec![purge(GroupId(9), index)]);
        }
        hand.write(vec![Op::Forget { group: GroupId(9) }]);
    }
    let old = images(&hand);
    let before = hand.disk.duplicate();
    hand.write(vec![bulk(G3, 2, bytes), vote(G2, "newest"), append(G1, 4, 5)]);
    let new = images(&hand);
    let mut sectors = Vec::new();
    for name in before.list().unwrap() {
        let (Some(was), Some(is)) = (before.contents(&name), hand.disk.contents(&name)) else { continue };
        let differs = |at: &usize| was[at * SECTOR..][..SECTOR] != is[at * SECTOR..][..SECTOR];
        if was.len() == 64 * 1024 && (0..was.len() / SECTOR).any(|at| differs(&at)) {
            assert!(sectors.is_empty(), "the last run lies in one segment");
            let changed = (0..was.len() / SECTOR).filter(differs);
            sectors = changed.map(|at| (at, is[at * SECTOR..][..SECTOR].to_vec())).collect();
            sectors.insert(0, (usize::MAX, name.into_bytes()));
        }
    }
    LastRun { before, sectors, old, new }
}

impl LastRun {
    fn len(&self) -> usize {
        self.sectors.len() - 1
    }

    /// The disk with those sectors of the last run for which `kept` says so.
    fn torn(&self, kept: impl Fn(usize) -> bool) -> SimDisk {
        let disk = self.before.duplicate();
        let name = String::from_utf8(self.sectors[0].1.clone()).unwrap();
        let file = disk.open(&name).unwrap();
        for (position, (at, bytes)) in self.sectors[1..].iter().enumerate() {
            if kept(position) {
                file.write_at(bytes, (at * SECTOR) as u64).unwrap();
            }
        }
        file.sync_data().unwrap();
        disk
    }

    /// All of the last run is there, or nothing of it.
    fn check(&self, kept: impl Fn(usize) -> bool, what: &str) -> bool {
        let hand = Hand::small(&self.torn(kept));
        assert!(hand.recovered.damaged.is_empty(), "{what}: {:?}", hand.recovered.findings);
        let found = images(&hand);
        assert!(found == self.old || found == self.new, "{what}: half a run came back");
        found == self.new
    }
}

#[test]
fn every_prefix_of_the_last_run_is_dropped_or_whole() {
    for reused in [false, true] {
        for bytes in [100, 3000, 9000] {
            let run = last_run(bytes, reused);
            for length in 0..=run.len() {
                let whole = run.check(|at| at < length, &format!("prefix {length}"));
                assert!(!whole || length == run.len());
            }
            assert!(run.check(|_| true, "all of it"));
        }
    }
}

#[test]
fn every_torn_subset_of_the_last_run_is_dropped_or_whole() {
    for reused in [false, true] {
        let run = last_run(100, reused);
        assert!(run.len() <= 12);
        for subset in 0..1_u32 << run.len() {
            run.check(|at| subset & (1 << at) != 0, &format!("subset {subset:b}"));
        }
        let run = last_run(9000, reused);
        let mut choices = Choices(7);
        for _ in 0..500 {
            let subset = choices.next() | choices.next() & choices.next();
            run.check(|at| subset & (1 << (at % 64)) != 0, &format!("subset {subset:b}"));
        }
    }
}

#[test]
fn a_torn_run_is_replaced_by_the_next_one_and_its_leftovers_stay_dead() {
    let run = last_run(9000, false);
    let mut choices = Choices(11);
    for _ in 0..100 {
        let subset = choices.next();
        let mut hand = Hand::small(&run.torn(|at| subset & (1 << (at % 64)) != 0 && at > 0));
        assert_eq!(images(&hand), run.old);
        hand.write(vec![vote(G1, "short")]);
        let expected = images(&hand);
        let hand = hand.crash(subset);
        assert!(hand.recovered.damaged.is_empty(), "{:?}", hand.recovered.findings);
        assert_eq!(images(&hand), expected);
    }
}

#[test]
fn a_power_cut_at_any_operation_of_making_a_log_leaves_one_that_opens() {
    for operations in 0..40 {
        for seed in 0..10 {
            let disk = SimDisk::new();
            disk.cut_power_after(operations);
            let opened = Hand::open(&disk, small_options()).is_ok();
            let mut hand = Hand::small(&disk.crash(seed));
            assert!(!hand.recovered.unnamed_loss, "{operations} {seed}");
            hand.write(vec![append(G1, 0, 1)]);
            assert_eq!(hand.restart().payloads(G1), names(G1, 0, 1));
            if opened {
                assert!(operations > 8, "making a log takes more operations than {operations}");
            }
        }
    }
}

#[test]
fn a_power_cut_at_any_operation_around_freeing_and_reusing_segments_loses_nothing() {
    let build = |disk: &SimDisk| {
        let mut hand = Hand::small(disk);
        for index in 0..14 {
            hand.write(vec![bulk(G1, index, 9000), append(G2, index, index + 1)]);
        }
        hand
    };
    for operations in 0..60 {
        for seed in 0..6 {
            let mut hand = build(&SimDisk::new());
            hand.disk.cut_power_after(operations);
            let purged = hand.submit(vec![purge(G1, 13), purge(G2, 11)]);
            hand.settle();
            let mut next = 14;
            let mut last = purged.clone();
            for _ in 0..12 {
                let ticket = Ticket::default();
                let op = append(G2, next, next + 1);
                if hand.log.try_submit(vec![op, vote(G3, "v")], ticket.done()).is_err() {
                    break;
                }
                hand.settle();
                if !ticket.is_ok() {
                    break;
                }
                last = ticket;
                next += 1;
                hand.driver.idle();
            }
            let after = Hand::small(&hand.disk.crash(seed));
            assert!(after.recovered.damaged.is_empty(), "{operations}: {:?}", after.recovered.findings);
            let extent = after.log.extent(G2).unwrap();
            if last.is_ok() {
                assert_eq!(extent.first_index, 12);
                assert!(extent.next_index >= next);
                assert_eq!(after.payloads(G2), names(G2, 12, extent.next_index));
            } else {
                assert!(extent.next_index == 14);
            }
        }
    }
}

/// The newest run on a disk: its file, its header.
fn newest_run(disk: &SimDisk) -> (String, RunHeader) {
    let salt = salt_of(b"test node");
    let mut runs = Vec::new();
    for name in disk.list().unwrap() {
        let bytes = disk.contents(&name).unwrap();
        for block in bytes.chunks_exact(4096) {
            // A file that was renamed for reuse still holds the runs of its former life.
            let header = decode_header(salt, block);
            let of_this_life = |header: &RunHeader| name == format!("{:020}.seg", header.at.segment);
            runs.extend(header.ok().filter(of_this_life).map(|header| (name.clone(), header)));
        }
    }
    runs.into_iter().max_by_key(|(_, header)| header.sequence).unwrap()
}

#[test]
fn rot_in_the_newest_mark_after_segments_were_freed_is_no_loss() {
    let mut hand = Hand::small(&SimDisk::new());
    hand.write(vec![vote(G2, "idle")]);
    for index in 0..40 {
        hand.write(vec![bulk(G1, index, 7000)]);
    }
    hand.write(vec![purge(G1, 35)]);
    let mut marks = 0;
    for _ in 0..6 {
        hand.driver.idle();
        let (name, newest) = newest_run(&hand.disk);
        if newest.record_count > 0 {
            continue;
        }
        marks += 1;
        let disk = hand.disk.duplicate();
        for offset in newest.at.offset..newest.at.offset + newest.run_bytes {
            assert!(disk.rot(&name, u64::from(offset), 0x33));
        }
        let after = Hand::small(&disk);
        assert!(!after.recovered.unnamed_loss, "{:?}", after.recovered.findings);
        assert!(after.recovered.damaged.is_empty(), "{:?}", after.recovered.findings);
        let extent = after.log.extent(G1).unwrap();
        assert_eq!((extent.first_index, extent.next_index), (36, 40));
        assert_eq!(after.recovered.groups[&G2].slots[&Slot::Vote], "idle");
    }
    assert!(marks > 1 && hand.log.stats().core.segments_freed > 0);
}

#[test]
fn a_lost_block_anywhere_is_noticed() {
    let mut hand = Hand::small(&SimDisk::new());
    hand.write(vec![vote(G2, "idle")]);
    for index in 0..40 {
        hand.write(vec![bulk(G1, index, 7000)]);
    }
    hand.write(vec![purge(G1, 25)]);
    hand.rest();
    for name in hand.disk.list().unwrap().iter().filter(|name| name.ends_with(".seg")) {
        for block in 0..16 {
            let disk = hand.disk.duplicate();
            for offset in 0..BLOCK {
                disk.rot(name, block * BLOCK + offset, 0x33);
            }
            let after = Hand::small(&disk);
            let extent = after.log.extent(G1);
            let whole = extent.is_ok_and(|extent| (extent.first_index, extent.next_index) == (26, 40));
            assert!(whole || after.recovered.damaged.contains_key(&G1), "{name} {block}");
            let state = after.recovered.groups.get(&G2);
            let vote_whole = state.is_some_and(|state| state.slots[&Slot::Vote] == "idle");
            // Its only record may be gone together with its name: the caller who expects it is
            // told that something unnamed was lost.
            let missed = after.recovered.unnamed_loss && state.is_none();
            assert!(vote_whole || missed, "{name} {block}");
        }
    }
}

#[test]
fn sectors_of_an_earlier_attempt_at_the_same_place_are_never_mixed_in() {
    // Records of one sector's length that differ at their start only: whatever sectors survive of
    // two attempts, each record is valid by itself.
    let attempt = |letter: u8| {
        let payload = |_| {
            let mut payload = vec![b'.'; 480];
            payload[0] = letter;
            payload
        };
        let entries = (4..20).map(|index| support::entry(index, 1, payload(index))).collect();
        Op::Append { group: G1, entries }
    };
    let hand = small_log();
    let before = images(&hand);
    let base = hand.disk.contents(FIRST).unwrap();
    let written = |letter: u8| {
        let mut hand = Hand::small(&hand.disk.duplicate());
        let opened = hand.disk.contents(FIRST).unwrap();
        hand.write(vec![attempt(letter)]);
        (opened, hand.disk.contents(FIRST).unwrap())
    };
    let (opened, first) = written(b'A');
    let (_, second) = written(b'B');
    assert_ne!(base, opened, "opening writes a mark");
    let changed: Vec<usize> = (0..opened.len() / SECTOR)
        .filter(|at| opened[at * SECTOR..][..SECTOR] != second[at * SECTOR..][..SECTOR])
        .collect();
    assert!(changed.len() > 16);
    let mut choices = Choices(5);
    let mut whole = 0;
    for round in 0..300 {
        let mut image = opened.clone();
        for at in &changed {
            let edge = at == changed.first().unwrap() || at == changed.last().unwrap();
            let from = if edge || round == 0 || choices.one_in(2) { &second } else { &first };
            image[at * SECTOR..][..SECTOR].copy_from_slice(&from[at * SECTOR..][..SECTOR]);
        }
        let disk = hand.disk.duplicate();
        disk.open(FIRST).unwrap().write_at(&image, 0).unwrap();
        disk.open(FIRST).unwrap().sync_data().unwrap();
        let after = Hand::small(&disk);
        let payloads = after.payloads(G1);
        if payloads == before[&G1].payloads {
            continue;
        }
        whole += 1;
        assert!(payloads[4..].iter().all(|payload| payload.starts_with('B')), "round {round}: {payloads:?}");
        assert_eq!(payloads.len(), 20);
    }
    assert!(whole > 0, "the second attempt by itself is whole");
}

/// A disk whose last answered run (of group 2) is followed by one that the power cut, of which the
/// header and a little more are left. Also: what was answered, where that run lies.
fn cut_after_an_answer() -> (SimDisk, BTreeMap<GroupId, Image>, String, RunHeader) {
    let mut hand = small_log();
    hand.write(vec![append(G2, 4, 6)]);
    let before = images(&hand);
    let (name, answered) = newest_run(&hand.disk);
    let disk = hand.disk.duplicate();
    hand.write(vec![bulk(G1, 4, 9000)]);
    let (_, cut) = newest_run(&hand.disk);
    let from = u64::from(cut.at.offset);
    let mut bytes = vec![0; 9 * SECTOR];
    hand.disk.open(&name).unwrap().read_at(&mut bytes, from).unwrap();
    let file = disk.open(&name).unwrap();
    file.write_at(&bytes, from).unwrap();
    file.sync_data().unwrap();
    (disk, before, name, answered)
}

#[test]
fn rot_under_an_unfinished_run_is_not_taken_for_its_unfinished_part() {
    let (disk, before, name, answered) = cut_after_an_answer();
    assert!(whole_or_reported(&disk.duplicate(), &before, "cut, no rot").is_empty());
    assert!(disk.rot(&name, u64::from(answered.at.offset) + 100, 1));
    assert_eq!(whole_or_reported(&disk, &before, "cut and rot"), [G2]);
}

#[test]
fn a_report_of_damage_survives_power_cuts_while_it_is_written_down() {
    let (rotten, before, name, answered) = cut_after_an_answer();
    for offset in answered.at.offset..answered.at.offset + answered.run_bytes {
        assert!(rotten.rot(&name, u64::from(offset), 0x33));
    }
    for operations in 0..16 {
        for seed in 0..16 {
            let disk = rotten.duplicate();
            disk.cut_power_after(operations);
            drop(Hand::open(&disk, small_options()));
            let disk = disk.crash(seed);
            let damaged = whole_or_reported(&disk, &before, "rot, then power cuts");
            assert_eq!(damaged, [G1, G2, G3], "{operations} {seed}");
        }
    }
}

#[test]
fn an_attempt_left_at_the_end_of_a_segment_is_not_taken_for_a_rotten_run() {
    for kept_sectors in 0..8 {
        let mut hand = Hand::small(&SimDisk::new());
        // One block is the start of the log, one is left at its end.
        for index in 0..14 {
            hand.write(vec![append(G2, index, index + 1)]);
        }
        assert_eq!(newest_run(&hand.disk).1.end().offset, 15 * 4096);
        hand.disk.fail_write(0, kept_sectors, ErrorKind::StorageFull);
        let refused = hand.submit(vec![vote(G1, "refused")]);
        hand.settle();
        assert!(matches!(refused.answer(), Some(Err(LogError::NoSpace(_)))));
        // This one does not fit there and goes to the next segment.
        hand.write(vec![bulk(G3, 0, 6000), vote(G2, "answered")]);
        let hand = hand.crash(kept_sectors as u64);
        assert!(hand.recovered.damaged.is_empty(), "{:?}", hand.recovered.findings);
        assert_eq!(hand.payloads(G2), names(G2, 0, 14));
        assert_eq!(hand.recovered.groups[&G2].slots[&Slot::Vote], "answered");
        assert_eq!(hand.log.extent(G3).unwrap().next_index, 1);
        assert_eq!(hand.log.slot(G1, Slot::Vote), Ok(None));
    }
}
