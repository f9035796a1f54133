//! The log by its promises, one story each: on a simulated disk that a test can fill, fail and cut, and,
//! where nothing of that is needed, on real files, too.

#[path = "log_support/mod.rs"]
mod support;

use bytes::Bytes;
use purser_node::log::{Disk, GroupId, LogError, LogOptions, Op, OpenError, SimDisk, Slot, Step};
use std::io::ErrorKind;
use std::sync::{Arc, Mutex};
use support::{
    G1, G2, G3, Hand, Place, Ticket, append, bulk, entry, name, names, purge, put, small_options, truncate,
    vote,
};

told_of_both_disks!(
    what_was_submitted_is_readable_before_it_is_durable,
    one_sync_serves_all_groups_and_answers_come_in_the_order_of_submission,
    the_committed_id_rides_along_and_asks_for_no_run,
    the_committed_id_of_an_idle_log_comes_with_the_mark,
    an_idle_log_writes_one_mark_and_then_rests,
    a_truncated_end_is_replaced_by_what_follows,
    a_purge_may_lie_beyond_the_end_and_the_log_goes_on_after_it,
    a_forgotten_group_leaves_nothing_behind,
    a_submission_that_breaks_a_rule_is_refused_whole,
    a_full_queue_gives_the_submission_back,
    entries_that_left_memory_are_read_from_their_segments,
    live_entries_of_an_idle_group_pin_the_oldest_segment_until_it_is_flushed,
    a_group_with_too_much_unpurged_is_named_for_flushing,
    a_closed_log_writes_what_is_queued_and_takes_nothing_more,
    a_directory_in_use_is_refused,
    a_directory_of_another_identity_is_refused_and_not_touched,
    a_directory_of_a_newer_format_is_refused_and_not_touched,
    a_directory_that_is_not_a_log_is_refused_and_not_touched,
    the_segment_length_may_change_between_starts,
    more_groups_than_one_run_may_name_are_written_in_several,
    a_log_that_no_one_turns_any_more_answers_what_was_queued,
);

fn files(disk: &impl Place) -> Vec<(String, Vec<u8>)> {
    let mut names = disk.list().unwrap();
    names.sort();
    names.into_iter().map(|name| (name.clone(), disk.contents(&name).unwrap())).collect()
}

fn what_was_submitted_is_readable_before_it_is_durable<D: Place>() {
    let hand = Hand::small(&D::fresh());
    let ticket = hand.submit(vec![append(G1, 0, 3), vote(G1, "term 1")]);
    assert_eq!(hand.payloads(G1), names(G1, 0, 3));
    assert_eq!(hand.log.slot(G1, Slot::Vote), Ok(Some(Bytes::from("term 1"))));
    assert_eq!(ticket.answer(), None);
}

#[test]
fn what_was_answered_survives_a_power_cut() {
    let mut hand = Hand::small(&SimDisk::new());
    hand.write(vec![append(G1, 0, 3), vote(G1, "term 1")]);
    hand.write(vec![append(G2, 0, 2), put(G2, Slot::Meta, "members")]);
    for seed in 0..20 {
        let after = Hand::small(&hand.disk.crash(seed));
        assert_eq!(after.payloads(G1), names(G1, 0, 3));
        assert_eq!(after.payloads(G2), names(G2, 0, 2));
        assert_eq!(after.log.slot(G2, Slot::Meta), Ok(Some(Bytes::from("members"))));
        let state = &after.recovered.groups[&G1];
        assert_eq!((state.extent.first_index, state.extent.next_index), (0, 3));
        assert_eq!(state.extent.last_term, Some(1));
        assert_eq!(state.slots[&Slot::Vote], "term 1");
    }
}

fn one_sync_serves_all_groups_and_answers_come_in_the_order_of_submission<D: Place>() {
    let mut hand = Hand::small(&D::fresh());
    let before = hand.log.stats().core.syncs;
    let order = Arc::new(Mutex::new(Vec::new()));
    for group in 0..10 {
        let order = Arc::clone(&order);
        let done = Box::new(move |result: Result<(), LogError>| {
            result.unwrap();
            order.lock().unwrap().push(group);
        });
        hand.log.try_submit(vec![append(GroupId(group), 0, 2)], done).unwrap();
    }
    hand.settle();
    assert_eq!(*order.lock().unwrap(), (0..10).collect::<Vec<u32>>());
    assert_eq!(hand.log.stats().core.syncs - before, 1);
}

fn the_committed_id_rides_along_and_asks_for_no_run<D: Place>() {
    let mut hand = Hand::small(&D::fresh());
    hand.rest();
    let committed = hand.submit(vec![put(G1, Slot::Committed, "7")]);
    assert_eq!(hand.driver.step(), Step::Waiting { wants_idle: true });
    assert_eq!(committed.answer(), None);
    let next = hand.submit(vec![append(G1, 0, 1)]);
    hand.settle();
    assert!(committed.is_ok() && next.is_ok());
    assert_eq!(hand.restart().log.slot(G1, Slot::Committed), Ok(Some(Bytes::from("7"))));
}

fn the_committed_id_of_an_idle_log_comes_with_the_mark<D: Place>() {
    let mut hand = Hand::small(&D::fresh());
    let committed = hand.submit(vec![put(G1, Slot::Committed, "7")]);
    hand.rest();
    assert!(committed.is_ok());
}

fn an_idle_log_writes_one_mark_and_then_rests<D: Place>() {
    let mut hand = Hand::small(&D::fresh());
    hand.rest();
    hand.write(vec![append(G1, 0, 1)]);
    let before = hand.log.stats().core.runs;
    hand.rest();
    assert_eq!(hand.log.stats().core.runs - before, 1);
    hand.rest();
    assert_eq!(hand.log.stats().core.runs - before, 1);
}

fn a_truncated_end_is_replaced_by_what_follows<D: Place>() {
    let mut hand = Hand::small(&D::fresh());
    hand.write(vec![append(G1, 0, 5)]);
    let new_end = Op::Append { group: G1, entries: vec![entry(3, 2, "new")] };
    hand.write(vec![truncate(G1, 3), new_end]);
    let hand = hand.restart();
    let expected: Vec<String> = names(G1, 0, 3).into_iter().chain(["new".to_owned()]).collect();
    assert_eq!(hand.payloads(G1), expected);
    assert_eq!(hand.log.extent(G1).unwrap().last_term, Some(2));
}

fn a_purge_may_lie_beyond_the_end_and_the_log_goes_on_after_it<D: Place>() {
    let mut hand = Hand::small(&D::fresh());
    hand.write(vec![append(G1, 0, 5)]);
    hand.write(vec![purge(G1, 99)]);
    hand.write(vec![append(G1, 100, 102)]);
    let hand = hand.restart();
    assert_eq!(hand.payloads(G1), names(G1, 100, 102));
    assert_eq!(hand.log.purged(G1), Ok(Some((99, Bytes::from("mark99")))));
    assert_eq!(hand.log.extent(G1).unwrap().first_index, 100);
}

fn a_forgotten_group_leaves_nothing_behind<D: Place>() {
    let mut hand = Hand::small(&D::fresh());
    hand.write(vec![append(G1, 0, 5), vote(G1, "old"), append(G2, 0, 1)]);
    hand.write(vec![Op::Forget { group: G1 }]);
    let mut hand = hand.restart();
    assert!(!hand.recovered.groups.contains_key(&G1));
    assert_eq!(hand.log.slot(G1, Slot::Vote), Ok(None));
    hand.write(vec![append(G1, 0, 1)]);
    assert_eq!(hand.restart().payloads(G1), names(G1, 0, 1));
}

fn a_submission_that_breaks_a_rule_is_refused_whole<D: Place>() {
    let mut hand = Hand::small(&D::fresh());
    hand.write(vec![append(G1, 0, 5)]);
    hand.write(vec![purge(G1, 1)]);
    let wrong = [
        vec![append(G1, 6, 7)],
        vec![append(G1, 4, 6)],
        vec![append(G2, 1, 2)],
        vec![vote(G1, "kept out"), append(G1, 9, 10)],
        vec![truncate(G1, 1)],
        vec![bulk(G1, 5, 13 * 1024)],
        vec![purge(G1, u64::MAX)],
    ];
    for ops in wrong {
        let refused = hand.log.try_submit(ops.clone(), Ticket::default().done()).unwrap_err();
        assert!(matches!(refused.error, LogError::Invalid { .. }), "{ops:?}: {:?}", refused.error);
    }
    assert_eq!(hand.payloads(G1), names(G1, 2, 5));
    assert_eq!(hand.log.slot(G1, Slot::Vote), Ok(None));
}

fn a_full_queue_gives_the_submission_back<D: Place>() {
    let mut hand = Hand::small(&D::fresh());
    let mut index = 0;
    let refused = loop {
        match hand.log.try_submit(vec![bulk(G1, index, 10_000)], Ticket::default().done()) {
            Ok(()) => index += 1,
            Err(refused) => break refused,
        }
    };
    assert_eq!(refused.error, LogError::Busy);
    assert!(index >= 10, "the bound is 128 KiB");
    hand.settle();
    hand.log.try_submit(refused.ops, refused.done).unwrap();
}

fn entries_that_left_memory_are_read_from_their_segments<D: Place>() {
    let mut hand = Hand::small(&D::fresh());
    for index in 0..300 {
        hand.write(vec![append(G1, index, index + 1), append(G2, index, index + 1)]);
    }
    assert!(hand.log.stats().core.segments > 10);
    assert_eq!(hand.payloads(G1), names(G1, 0, 300));
    let some = hand.log.read(G2, 17..250).unwrap();
    assert_eq!(some.first().unwrap().index, 17);
    assert_eq!(some.len(), 233);
    assert_eq!(
        hand.log.read(G1, 299..301),
        Err(LogError::Missing { group: G1, index: 300, first: 0, next: 300 })
    );
}

#[test]
fn rot_that_a_read_meets_is_an_error_and_never_a_wrong_entry() {
    let mut hand = Hand::small(&SimDisk::new());
    hand.write(vec![bulk(G1, 0, 8000)]);
    hand.write(vec![append(G1, 1, 30)]);
    assert!(hand.disk.rot("00000000000000000001.seg", 2 * 4096, 1));
    assert!(matches!(hand.log.read(G1, 0..1), Err(LogError::Damaged { group: G1, .. })));
    assert_eq!(hand.log.read(G1, 1..2).unwrap()[0].payload, name(G1, 1));
}

#[test]
fn a_failed_sync_ends_the_log_for_ever() {
    let mut hand = Hand::small(&SimDisk::new());
    hand.write(vec![append(G1, 0, 1)]);
    hand.rest();
    hand.disk.fail_sync(0);
    let first = hand.submit(vec![append(G1, 1, 2)]);
    assert_eq!(hand.driver.step(), Step::Ended);
    assert!(matches!(first.answer(), Some(Err(LogError::Poisoned(_)))));
    assert_eq!(hand.fatal.lock().unwrap().len(), 1);

    let refused = hand.log.try_submit(vec![vote(G2, "later")], Ticket::default().done()).unwrap_err();
    assert!(matches!(refused.error, LogError::Poisoned(_)));
    assert!(matches!(hand.log.read(G1, 0..1), Err(LogError::Poisoned(_))));
    assert_eq!((hand.driver.step(), hand.driver.idle()), (Step::Ended, Step::Ended));
    assert_eq!(hand.fatal.lock().unwrap().len(), 1, "the hook is called once");
}

#[test]
fn what_reads_back_after_a_failed_sync_is_made_durable_before_it_is_served() {
    let mut hand = Hand::small(&SimDisk::new());
    hand.write(vec![append(G1, 0, 1)]);
    hand.disk.fail_sync(0);
    let unanswered = hand.submit(vec![append(G1, 1, 2)]);
    hand.settle();
    assert!(!unanswered.is_ok());
    // The process dies, the machine stays: its memory still shows the run as written and clean.
    let hand = Hand::small(&hand.disk.duplicate());
    assert_eq!(hand.payloads(G1), names(G1, 0, 2));
    assert_eq!(hand.crash(1).payloads(G1), names(G1, 0, 2));
}

#[test]
fn a_write_that_fails_for_another_reason_than_room_ends_the_log() {
    let mut hand = Hand::small(&SimDisk::new());
    hand.disk.fail_write(0, 1, ErrorKind::Other);
    let ticket = hand.submit(vec![append(G1, 0, 1)]);
    assert_eq!(hand.driver.step(), Step::Ended);
    assert!(matches!(ticket.answer(), Some(Err(LogError::Poisoned(_)))));
}

#[test]
fn a_full_disk_takes_nothing_more_keeps_what_was_decided_and_heals_when_room_appears() {
    let options = LogOptions { segment_bytes: 128 * 1024, reserve_bytes: 32 * 1024, ..small_options() };
    let mut hand = Hand::open(&SimDisk::new(), options).unwrap();
    hand.rest();
    hand.disk.set_capacity(0);
    let mut index = 0;
    while hand.log.has_room(10_000) {
        hand.write(vec![bulk(G1, index, 10_000)]);
        index += 1;
    }
    assert!(index > 10, "two segments of 128 KiB hold more than ten such entries");
    // Nobody could refuse what a leader begins its term with.
    hand.write(vec![append(G1, index, index + 1)]);
    index += 1;
    let mut votes = 0;
    while hand.log.has_room_for_vote() {
        hand.write(vec![vote(G1, "still fits")]);
        votes += 1;
    }
    assert!(votes > 3, "half of the reserve is theirs");
    let unasked = hand.submit(vec![bulk(G1, index, 12_000), bulk(G1, index + 1, 12_000)]);
    hand.settle();
    assert!(matches!(unasked.answer(), Some(Err(LogError::NoSpace(_)))));
    assert_eq!(hand.log.extent(G1).unwrap().next_index, index, "what was refused is not readable");
    assert_eq!(hand.log.read(G1, 0..1).unwrap()[0].payload.len(), 10_000, "reads go on");
    let pinning: Vec<GroupId> = hand.log.groups_to_flush().iter().map(|need| need.group).collect();
    assert_eq!(pinning, [G1], "the node is told whom to flush");

    hand.write(vec![purge(G1, index - 1)]);
    hand.rest();
    assert!(hand.log.has_room(10_000));
    hand.write(vec![bulk(G1, index, 10_000)]);
    assert!(hand.fatal.lock().unwrap().is_empty());
    assert_eq!(hand.restart().log.extent(G1).unwrap().next_index, index + 1);
}

#[test]
fn whatever_there_was_room_for_is_written_however_the_segments_end() {
    for (entry_bytes, before) in
        (500..12_000).step_by(250).flat_map(|size| [(size, 0), (size, 5), (size, 11)])
    {
        let mut hand = Hand::small(&SimDisk::new());
        hand.rest();
        hand.disk.set_capacity(0);
        let mut index = 0;
        while index < before {
            hand.write(vec![append(G1, index, index + 1)]);
            index += 1;
        }
        // All that there is room for, in the queue at once.
        let mut tickets = Vec::new();
        while hand.log.has_room(entry_bytes) {
            tickets.push(hand.submit(vec![bulk(G1, index, usize::try_from(entry_bytes).unwrap())]));
            index += 1;
        }
        hand.settle();
        assert!(!tickets.is_empty());
        assert!(tickets.iter().all(Ticket::is_ok), "entries of {entry_bytes} bytes after {before}");
        hand.write(vec![vote(G1, "still fits")]);
    }
}

#[test]
fn room_that_was_claimed_is_not_given_to_others() {
    let mut hand = Hand::small(&SimDisk::new());
    hand.rest();
    hand.disk.set_capacity(0);
    let mut claims = Vec::new();
    while let Some((1, claim)) = hand.log.claim(G1, [10_000]) {
        claims.push(claim);
    }
    assert!(claims.len() > 3);
    assert!(!hand.log.has_room(10_000));
    // What comes to nothing is given back.
    claims.pop();
    assert!(hand.log.has_room(10_000) && !hand.log.has_room(2 * 10_000));
    // Of several, those that fit.
    let (count, claim) = hand.log.claim(G2, [4_000, 5_900, 10_000]).expect("one was given back");
    assert_eq!(count, 2);
    // What comes to the log counts there, and once.
    let tickets: Vec<Ticket> =
        (0..claims.len() as u64).map(|at| hand.submit(vec![bulk(G1, at, 9_900)])).collect();
    assert!(!hand.log.has_room(10_000), "the second group's is claimed still");
    drop(claim);
    assert!(hand.log.has_room(10_000) && !hand.log.has_room(2 * 10_000));
    drop(claims);
    assert!(hand.log.has_room(10_000) && !hand.log.has_room(2 * 10_000), "the queue counts them");
    hand.settle();
    assert!(tickets.iter().all(Ticket::is_ok));
}

#[test]
fn room_that_appears_is_found_though_nothing_is_written_any_more() {
    let mut hand = Hand::small(&SimDisk::new());
    hand.rest();
    hand.disk.set_capacity(0);
    let mut index = 0;
    while hand.log.has_room(10_000) {
        hand.write(vec![bulk(G1, index, 10_000)]);
        index += 1;
    }
    hand.rest();
    assert_eq!(hand.driver.step(), Step::Waiting { wants_idle: true });
    assert!(!hand.log.has_room(10_000));
    hand.disk.set_capacity(u64::MAX);
    hand.rest();
    assert!(hand.log.has_room(10_000));
}

#[test]
fn a_run_that_found_the_disk_full_never_comes_back() {
    // The run has 24 sectors.
    for kept_sectors in 0..24 {
        let mut hand = Hand::small(&SimDisk::new());
        hand.write(vec![append(G1, 0, 1)]);
        hand.disk.fail_write(0, kept_sectors, ErrorKind::StorageFull);
        let refused = hand.submit(vec![bulk(G1, 1, 9000)]);
        let depends = hand.submit(vec![append(G1, 2, 3)]);
        hand.settle();
        assert!(matches!(refused.answer(), Some(Err(LogError::NoSpace(_)))));
        assert!(matches!(depends.answer(), Some(Err(LogError::NoSpace(_)))));
        assert_eq!(hand.payloads(G1), names(G1, 0, 1));

        for seed in 0..8 {
            let after = Hand::small(&hand.disk.duplicate().crash(seed));
            assert_eq!(after.payloads(G1), names(G1, 0, 1), "{kept_sectors} {seed}");
            assert!(after.recovered.damaged.is_empty());
        }
        hand.write(vec![append(G1, 1, 2)]);
        for seed in 0..8 {
            let after = Hand::small(&hand.disk.duplicate().crash(seed));
            assert_eq!(after.payloads(G1), names(G1, 0, 2), "{kept_sectors} {seed}");
        }
    }
}

#[test]
fn a_group_untouched_by_the_refused_submission_goes_on() {
    let mut hand = Hand::small(&SimDisk::new());
    hand.rest();
    let ready = hand.log.stats().core.ready_bytes;
    hand.disk.set_capacity(0);
    let mut index = 0;
    while hand.log.has_room(10_000) {
        hand.write(vec![bulk(G1, index, 10_000)]);
        index += 1;
    }
    assert!(ready > 0 && index > 0);
    // Three blocks are left: too few for the entry, enough for the vote.
    while hand.log.stats().core.ready_bytes > 3 * 4096 {
        hand.write(vec![append(G1, index, index + 1)]);
        index += 1;
    }
    let first = hand.submit(vec![bulk(G1, index, 12_000)]);
    let second = hand.submit(vec![append(G1, index + 1, index + 2)]);
    let votes = hand.submit(vec![vote(G2, "other group")]);
    hand.settle();
    assert!(votes.is_ok());
    assert!(!first.is_ok() && !second.is_ok());
}

#[test]
fn segments_are_reused_and_runs_of_a_former_life_are_never_believed() {
    let mut hand = Hand::small(&SimDisk::new());
    let mut first = 0;
    for round in 0..60_u64 {
        let from = round * 5;
        for index in from..from + 5 {
            hand.write(vec![bulk(G1, index, 7000)]);
        }
        if round >= 2 {
            first = from - 5;
            hand.write(vec![purge(G1, first - 1)]);
        }
        if round % 3 == 0 {
            hand = hand.crash(round);
        } else if round % 7 == 0 {
            hand.rest();
        }
        assert!(hand.recovered.findings.is_empty(), "{:?}", hand.recovered.findings);
        let extent = hand.log.extent(G1).unwrap();
        assert_eq!((extent.first_index, extent.next_index), (first, from + 5));
        assert!(hand.disk.list().unwrap().len() < 8, "{:?}", hand.disk.list());
    }
    let names = hand.disk.list().unwrap();
    assert!(names.iter().all(|name| name != "00000000000000000001.seg"), "{names:?}");
}

#[test]
fn the_small_records_of_an_idle_group_move_on_by_themselves() {
    let mut hand = Hand::small(&SimDisk::new());
    hand.write(vec![vote(G2, "idle"), put(G2, Slot::Meta, "members"), append(G2, 0, 2)]);
    hand.write(vec![purge(G2, 1), put(G3, Slot::Generation, "7")]);
    for index in 0..40 {
        hand.write(vec![bulk(G1, index, 7000)]);
    }
    hand.write(vec![purge(G1, 39)]);
    hand.rest();
    assert_eq!(hand.log.stats().core.segments, 1, "only the head is left");
    let hand = hand.crash(3);
    assert_eq!(hand.log.slot(G2, Slot::Vote), Ok(Some(Bytes::from("idle"))));
    assert_eq!(hand.log.slot(G2, Slot::Meta), Ok(Some(Bytes::from("members"))));
    assert_eq!(hand.log.purged(G2), Ok(Some((1, Bytes::from("mark1")))));
    assert_eq!(hand.log.slot(G3, Slot::Generation), Ok(Some(Bytes::from("7"))));
    assert_eq!(hand.log.extent(G2).unwrap().first_index, 2);
}

fn live_entries_of_an_idle_group_pin_the_oldest_segment_until_it_is_flushed<D: Place>() {
    let mut hand = Hand::small(&D::fresh());
    hand.write(vec![append(G2, 0, 2)]);
    for index in 0..60 {
        hand.write(vec![bulk(G1, index, 7000)]);
    }
    hand.write(vec![purge(G1, 59)]);
    hand.rest();
    assert!(hand.log.stats().core.segments > 5);
    assert_eq!(hand.log.pins_oldest(), [G2]);
    let needs = hand.log.groups_to_flush();
    assert_eq!(needs.len(), 1);
    assert!(needs[0].group == G2 && needs[0].pins_oldest);

    hand.write(vec![purge(G2, 1)]);
    hand.rest();
    assert_eq!(hand.log.stats().core.segments, 1);
    assert!(hand.log.groups_to_flush().is_empty());
}

fn a_group_with_too_much_unpurged_is_named_for_flushing<D: Place>() {
    let mut hand = Hand::small(&D::fresh());
    for index in 0..20 {
        hand.write(vec![bulk(G1, index, 7000), append(G2, index, index + 1)]);
    }
    let needs = hand.log.groups_to_flush();
    assert_eq!(needs.iter().map(|need| need.group).collect::<Vec<_>>(), [G1]);
    assert!(needs[0].live_bytes > 128 * 1024);
}

fn a_closed_log_writes_what_is_queued_and_takes_nothing_more<D: Place>() {
    let mut hand = Hand::small(&D::fresh());
    let last = hand.submit(vec![append(G1, 0, 1)]);
    let rider = hand.submit(vec![put(G1, Slot::Committed, "0")]);
    hand.log.close();
    let refused = hand.log.try_submit(vec![vote(G1, "late")], Ticket::default().done()).unwrap_err();
    assert_eq!(refused.error, LogError::Closed);
    while hand.driver.step() != Step::Ended {}
    assert!(last.is_ok() && rider.is_ok());
}

fn a_directory_in_use_is_refused<D: Place>() {
    let disk = D::fresh();
    let first = Hand::small(&disk);
    let before = files(&disk);
    assert!(matches!(Hand::open(&disk, small_options()), Err(OpenError::InUse)));
    assert_eq!(files(&disk), before);
    drop(first);
    Hand::small(&disk);
}

fn a_directory_of_another_identity_is_refused_and_not_touched<D: Place>() {
    let disk = D::fresh();
    Hand::small(&disk).write(vec![append(G1, 0, 1)]);
    let before = files(&disk);
    let other = LogOptions { identity: "another node".into(), ..small_options() };
    let error = Hand::open(&disk, other).map(|_| ()).unwrap_err();
    assert!(matches!(&error, OpenError::OtherIdentity { found, .. } if found == "test node"), "{error}");
    assert_eq!(files(&disk), before);
}

fn a_directory_of_a_newer_format_is_refused_and_not_touched<D: Place>() {
    let disk = D::fresh();
    drop(Hand::small(&disk));
    let mut bytes = disk.contents("log.id").unwrap();
    bytes[8] = 2;
    let covered = bytes.len() - 4;
    let crc = crc32fast::hash(&bytes[..covered]);
    bytes[covered..].copy_from_slice(&crc.to_le_bytes());
    disk.open("log.id").unwrap().write_at(&bytes, 0).unwrap();
    let before = files(&disk);
    let error = Hand::open(&disk, small_options()).map(|_| ()).unwrap_err();
    assert!(matches!(error, OpenError::NewerFormat { found: 2, supported: 1 }), "{error}");
    assert_eq!(files(&disk), before);
}

#[test]
fn a_directory_with_a_damaged_or_missing_identity_is_refused_and_not_touched() {
    let disk = SimDisk::new();
    Hand::small(&disk).write(vec![append(G1, 0, 1)]);
    let length = disk.contents("log.id").unwrap().len() as u64;
    for offset in 0..length {
        let rotten = disk.duplicate();
        assert!(rotten.rot("log.id", offset, 0x40));
        let before = files(&rotten);
        let error = Hand::open(&rotten, small_options()).map(|_| ()).unwrap_err();
        assert!(matches!(error, OpenError::DamagedIdentity(_)), "{offset}: {error}");
        assert_eq!(files(&rotten), before);
    }
    assert!(disk.lose_file("log.id"));
    let before = files(&disk);
    let error = Hand::open(&disk, small_options()).map(|_| ()).unwrap_err();
    assert!(matches!(error, OpenError::DamagedIdentity(_)), "{error}");
    assert_eq!(files(&disk), before);
}

fn a_directory_that_is_not_a_log_is_refused_and_not_touched<D: Place>() {
    let disk = D::fresh();
    disk.create("holiday.jpg", 10).unwrap();
    let error = Hand::open(&disk, small_options()).map(|_| ()).unwrap_err();
    assert!(matches!(&error, OpenError::NotALog(names) if names == &["holiday.jpg"]), "{error}");
    assert_eq!(files(&disk).len(), 1);
}

#[test]
fn options_that_cannot_work_are_refused() {
    let wrong = [
        LogOptions { segment_bytes: 5000, ..small_options() },
        LogOptions { entry_bytes_max: 64 * 1024, ..small_options() },
        LogOptions { reserve_bytes: 60 * 1024, ..small_options() },
        LogOptions { identity: Bytes::new(), ..small_options() },
    ];
    for options in wrong {
        let error = Hand::open(&SimDisk::new(), options).map(|_| ()).unwrap_err();
        assert!(matches!(error, OpenError::Options(_)), "{error}");
    }
}

fn the_segment_length_may_change_between_starts<D: Place>() {
    let disk = D::fresh();
    let mut hand = Hand::small(&disk);
    for index in 0..20 {
        hand.write(vec![bulk(G1, index, 7000)]);
    }
    drop(hand);
    let larger = LogOptions { segment_bytes: 128 * 1024, ..small_options() };
    let mut hand = Hand::open(&disk, larger).unwrap();
    for index in 20..60 {
        hand.write(vec![bulk(G1, index, 7000)]);
    }
    hand.write(vec![purge(G1, 50)]);
    hand.rest();
    let hand = hand.restart();
    let extent = hand.log.extent(G1).unwrap();
    assert_eq!((extent.first_index, extent.next_index), (51, 60));
    assert_eq!(hand.log.read(G1, 51..60).unwrap().len(), 9);
}

fn more_groups_than_one_run_may_name_are_written_in_several<D: Place>() {
    // A segment of 64 KiB lets a run name 1,024 groups.
    let mut hand = Hand::small(&D::fresh());
    let groups = 0..3000_u32;
    for some in groups.clone().collect::<Vec<_>>().chunks(500) {
        hand.write(some.iter().map(|group| vote(GroupId(*group), "v")).collect());
    }
    hand.write(groups.clone().map(|group| vote(GroupId(group), "w")).collect());
    let hand = hand.restart();
    assert_eq!(hand.recovered.groups.len(), 3000);
    assert!(groups.clone().all(|group| hand.recovered.groups[&GroupId(group)].slots[&Slot::Vote] == "w"));
}

fn a_log_that_no_one_turns_any_more_answers_what_was_queued<D: Place>() {
    let Hand { log, driver, .. } = Hand::small(&D::fresh());
    let ticket = Ticket::default();
    log.try_submit(vec![vote(G1, "too late")], ticket.done()).unwrap();
    drop(driver);
    assert_eq!(ticket.answer(), Some(Err(LogError::Closed)));
}
