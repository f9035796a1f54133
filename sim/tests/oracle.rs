//! The oracle finds what is wrong: promises broken on purpose, and evidence that was tampered with.
//! What it does not find here it would not find anywhere.
#![cfg(madsim)]

use std::sync::OnceLock;
use std::time::Duration;

use purser_node::raft::GroupConfig;
use purser_node::simulation::Bug;
use purser_sim::call::Response;
use purser_sim::check::{Evidence, check};
use purser_sim::observed::{Answered, Attempt, Told, Verdict};
use purser_sim::partition::PartitionWorld;
use purser_sim::run::gather;
use purser_sim::world::{Blow, ClockWorld, ENTRY_BYTES_MAX, Lie, NetworkWorld, World};

const SEED: u64 = 7;

/// A world of three nodes with load and one kind of blow, in which nothing else is wrong.
fn world(blow: Option<Blow>) -> World {
    let mut world = World::of(SEED);
    world.nodes = 3;
    world.replicas = 3;
    world.shards = 2;
    world.gateways = 300;
    world.clients = 8;
    world.customers = 3;
    world.storm = Duration::from_secs(40);
    world.think = Duration::from_millis(1)..=Duration::from_millis(20);
    world.network = NetworkWorld {
        delay: Duration::from_millis(1)..=Duration::from_millis(5),
        lost: 0,
        doubled: 0,
        late: 0,
        breaks: 0,
    };
    world.clock = ClockWorld { skew_max: Duration::ZERO, jump_max: Duration::ZERO, step_us: 1 };
    world.disk.stalls = 0;
    world.disk.rocksdb = false;
    world.partitions = PartitionWorld::plain();
    world.groups = GroupConfig { command_bytes_max: ENTRY_BYTES_MAX, ..GroupConfig::default() };
    world.blows = blow.into_iter().map(|blow| (1, blow)).collect();
    world.between_blows = Duration::from_secs(2)..=Duration::from_secs(4);
    world
}

/// Runs a world in which something is broken on purpose: the promise that was found broken.
fn found_in(world: World) -> String {
    let lie = world.lie;
    let (_, _, seen) = gather(world, None).expect("a run");
    match seen.and_then(|evidence| check(&evidence)) {
        Err(found) => found,
        Ok(counts) => panic!("{lie:?} went unnoticed: {counts:?}"),
    }
}

/// What an honest run showed: made once, tampered with in copies.
fn honest() -> Evidence {
    static HONEST: OnceLock<Evidence> = OnceLock::new();
    let evidence = HONEST.get_or_init(|| {
        let (_, _, seen) = gather(world(Some(Blow::PowerCut)), None).expect("a run");
        seen.expect("nothing is broken")
    });
    evidence.clone()
}

fn found_out(what: &str, evidence: &Evidence) {
    let found = check(evidence);
    assert!(found.is_err(), "{what} went unnoticed");
}

/// An attempt that was done, the last of its sort.
fn last_done(evidence: &mut Evidence, is_it: impl Fn(&Response) -> bool) -> &mut Attempt {
    let done = |attempt: &&mut Attempt| match &attempt.answer {
        Answered::Done(response) => is_it(response),
        _ => false,
    };
    evidence.attempts.iter_mut().rev().find(done).expect("such an attempt")
}

fn is_debit(response: &Response) -> bool {
    matches!(response, Response::Debit(_))
}

#[test]
fn an_honest_run_is_believed() {
    let counts = check(&honest()).expect("nothing is broken");
    for what in ["applied", "replayed", "read", "INSUFFICIENT_CREDITS", "unknown"] {
        assert!(counts.get(what).copied().unwrap_or(0) >= 10, "{what} hardly happened: {counts:?}");
    }
}

#[test]
fn a_node_that_acknowledges_before_it_has_synced_is_found_out() {
    let lie = Some(Lie::Planted(Bug::AcknowledgedBeforeSync));
    found_in(World { lie, ..world(Some(Blow::BlackOut)) });
}

#[test]
fn a_snapshot_without_the_verdicts_under_their_keys_is_found_out() {
    let lie = Some(Lie::Planted(Bug::SnapshotWithoutKeys));
    let mut world = world(None);
    // Flushes purge the log of those that are up, while others are down: they come back by snapshots.
    world.blows = vec![(1, Blow::Flush), (1, Blow::ProcessKill), (1, Blow::HandOver)];
    world.between_blows = Duration::from_millis(100)..=Duration::from_secs(1);
    world.groups.entries_kept_max = 0;
    let honest = World { lie: None, ..world.clone() };
    let (_, _, seen) = gather(honest, None).expect("a run");
    let counts = seen.and_then(|evidence| check(&evidence)).expect("nothing is broken");
    assert!(counts.contains_key("snapshot installed"), "{counts:?}");
    found_in(World { lie, ..world });
}

#[test]
fn a_leader_whose_clock_is_a_year_ahead_is_found_out_where_followers_take_its_stamps() {
    // Four shards and twenty customers: each node leads somebody.
    let ahead = World { clock_a_year_ahead: true, shards: 4, customers: 20, ..world(None) };
    let (_, _, seen) = gather(ahead.clone(), None).expect("a run");
    let counts = seen.and_then(|evidence| check(&evidence)).expect("its followers refuse its stamps");
    assert!(counts.contains_key("entry stamped ahead refused"), "{counts:?}");
    let found = found_in(World { lie: Some(Lie::ClocksUnbounded), ..ahead });
    assert!(found.contains("ahead of what a majority of the clocks allows"), "{found}");
}

#[test]
fn a_disk_that_forgets_what_it_synced_is_found_out() {
    found_in(World { lie: Some(Lie::DiskForgets), ..world(Some(Blow::BlackOut)) });
}

#[test]
fn a_ledger_that_forgets_keys_and_charges_twice_is_found_out() {
    found_in(World { lie: Some(Lie::KeysForgotten), ..world(None) });
}

#[test]
fn a_client_that_calls_applied_what_nobody_applied_is_found_out() {
    let mut evidence = honest();
    let applied = |told: &&mut Told| matches!(told.verdict, Verdict::Applied(_));
    let told = evidence.told.iter_mut().find(applied).expect("a gateway");
    let client = told.client;
    evidence.attempts.iter_mut().filter(|attempt| attempt.client == client).for_each(|attempt| {
        attempt.answer = Answered::Unknown("lost".to_owned());
    });
    found_out("an answer that nobody gave", &evidence);
}

#[test]
fn a_client_that_calls_denied_what_was_applied_is_found_out() {
    let mut evidence = honest();
    let applied = |told: &&Told| matches!(told.verdict, Verdict::Applied(_));
    let told = evidence.told.iter().find(applied).expect("a gateway").clone();
    evidence.told.retain(|other| other.request != told.request);
    evidence.told.push(Told { verdict: Verdict::Denied("no".to_owned()), ..told });
    found_out("a denial of what was applied", &evidence);
}

#[test]
fn an_answer_that_says_another_amount_is_found_out() {
    let mut evidence = honest();
    let attempt = last_done(&mut evidence, is_debit);
    let Answered::Done(response) = &mut attempt.answer else { unreachable!() };
    let Response::Debit(debit) = &mut **response else { unreachable!() };
    debit.remaining = format!("{}0", debit.remaining);
    found_out("another amount", &evidence);
}

#[test]
fn an_answer_that_stands_nowhere_in_the_history_is_found_out() {
    let mut evidence = honest();
    let attempt = last_done(&mut evidence, is_debit);
    let place = attempt.witness().expect("a witness");
    evidence.history.get_mut(&place.shard).expect("the shard").remove(&place.index).expect("the entry");
    found_out("a lost answer", &evidence);
}

#[test]
fn a_command_that_nobody_sent_is_found_out() {
    let mut evidence = honest();
    let place = last_done(&mut evidence, is_debit).witness().expect("a witness");
    let of_place = |attempt: &Attempt| attempt.witness() == Some(place);
    let request = evidence.attempts.iter().find(|attempt| of_place(attempt)).expect("it").request.clone();
    evidence.attempts.retain(|attempt| attempt.request != request);
    found_out("a command from nowhere", &evidence);
}

#[test]
fn a_history_in_another_order_than_time_is_found_out() {
    let mut evidence = honest();
    let attempt = last_done(&mut evidence, is_debit);
    // As if it had been asked, and answered, before everything else.
    let place = attempt.witness().expect("a witness");
    attempt.begun = Duration::ZERO;
    attempt.ended = Duration::from_nanos(1);
    assert!(place.index > 10, "there is something before it");
    found_out("an answer ahead of its time", &evidence);
}

#[test]
fn a_read_of_a_state_that_never_was_is_found_out() {
    let mut evidence = honest();
    let is_read =
        |response: &Response| matches!(response, Response::GetBalance(read) if !read.wallets.is_empty());
    let attempt = last_done(&mut evidence, is_read);
    let Answered::Done(response) = &mut attempt.answer else { unreachable!() };
    let Response::GetBalance(read) = &mut **response else { unreachable!() };
    let balance = read.wallets[0].balance.as_mut().expect("a balance");
    balance.available = format!("{}1", balance.available);
    found_out("a balance that never was", &evidence);
}

#[test]
fn a_movement_that_is_missing_in_the_end_is_found_out() {
    let mut evidence = honest();
    let lists = evidence.last[1].iter_mut().flat_map(|last| &mut last.movements);
    let longest = lists.max_by_key(|listed| listed.movements.len()).expect("a wallet");
    longest.movements.remove(longest.movements.len() / 2);
    found_out("a missing movement", &evidence);
}

#[test]
fn a_receipt_under_another_witness_is_found_out() {
    let mut evidence = honest();
    let other = evidence.attempts.iter().find(|attempt| attempt.witness().is_some()).cloned().expect("one");
    let attempt = last_done(&mut evidence, is_debit);
    let Answered::Done(response) = &mut attempt.answer else { unreachable!() };
    let Response::Debit(debit) = &mut **response else { unreachable!() };
    let place = other.witness().expect("a witness");
    let witness = debit.receipt.as_mut().and_then(|own| own.witness.as_mut()).expect("a witness");
    (witness.log_index, witness.position) = (place.index, place.position);
    assert!(response.receipt().is_some());
    found_out("another's place", &evidence);
}
