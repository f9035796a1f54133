//! The state store by itself: what a flush keeps, what a view shows, when memos go.

use std::path::Path;

use purser_ledger::store::Store;
use purser_node::storage::{Generation, ShardStore, StateStore, StorageError, StoreOptions};
use tempfile::TempDir;

const HOUR_US: u64 = 3_600_000_000;

fn open(directory: &Path) -> StateStore {
    StateStore::open(directory, StoreOptions::new("cluster-1/node-1")).expect("the state opens")
}

fn shard(directory: &Path) -> ShardStore {
    open(directory).shard(7, Generation::FIRST).expect("the shard opens")
}

fn put(store: &ShardStore, key: &[u8], row: &[u8], applied: &[u8]) {
    store.write([(key, Some(row))], applied).expect("written");
}

fn memo(expires_at_us: u64) -> Vec<u8> {
    let mut row = vec![1];
    row.extend_from_slice(&expires_at_us.to_le_bytes());
    row
}

fn keys(store: &impl Store, from: &[u8], until: &[u8]) -> Vec<Vec<u8>> {
    let mut keys = Vec::new();
    let mut keep = |key: &[u8], _: &[u8]| {
        keys.push(key.to_vec());
        true
    };
    store.scan(from, until, &mut keep).expect("readable");
    keys
}

#[test]
fn rows_and_applied_state_come_back_together_after_a_flush() {
    let directory = TempDir::new().expect("a directory");
    let store = shard(directory.path());
    put(&store, b"W1", b"one", b"applied 1");
    store.flush().expect("flushed");
    drop(store);

    let store = shard(directory.path());
    assert_eq!(store.get(b"W1"), Ok(Some(b"one".to_vec())));
    assert_eq!(store.applied(), Ok(Some(b"applied 1".to_vec())));
}

#[test]
fn a_view_shows_rows_and_applied_state_of_one_instant() {
    let directory = TempDir::new().expect("a directory");
    let store = shard(directory.path());
    put(&store, b"W1", b"one", b"applied 1");
    let view = store.view();
    put(&store, b"W1", b"two", b"applied 2");
    put(&store, b"W2", b"two", b"applied 3");
    store.write([(&b"W1"[..], None)], b"applied 4").expect("written");

    assert_eq!(view.get(b"W1"), Ok(Some(b"one".to_vec())));
    assert_eq!(view.get_many(&[b"W2", b"W1"]), Ok(vec![None, Some(b"one".to_vec())]));
    assert_eq!(view.applied(), Ok(Some(b"applied 1".to_vec())));
    assert_eq!(store.get_many(&[b"W2", b"W1"]), Ok(vec![Some(b"two".to_vec()), None]));
}

#[test]
fn scans_go_both_ways_within_their_bounds_until_told_to_stop() {
    let directory = TempDir::new().expect("a directory");
    let store = shard(directory.path());
    for key in [b"S1", b"T1", b"T2", b"T3", b"U1"] {
        put(&store, key, b"", b"applied");
    }
    assert_eq!(keys(&store, b"T", b"U"), [b"T1", b"T2", b"T3"]);
    assert_eq!(keys(&store.view(), b"T2", b"T3"), [b"T2"]);
    let mut seen = Vec::new();
    let mut two = |key: &[u8], _: &[u8]| {
        seen.push(key.to_vec());
        seen.len() < 2
    };
    store.scan_back(b"T", b"U", &mut two).expect("readable");
    assert_eq!(seen, [b"T3", b"T2"]);
}

#[test]
fn shards_do_not_see_each_other() {
    let directory = TempDir::new().expect("a directory");
    let state = open(directory.path());
    let one = state.shard(1, Generation::FIRST).expect("opens");
    let two = state.shard(2, Generation::FIRST).expect("opens");
    put(&one, b"W1", b"one", b"applied");
    assert_eq!(two.get(b"W1"), Ok(None));
    assert_eq!(two.applied(), Ok(None));
}

#[test]
fn memos_go_with_a_compaction_an_hour_after_what_was_flushed_has_passed_their_expiry() {
    let directory = TempDir::new().expect("a directory");
    let store = shard(directory.path());
    put(&store, b"Iold", &memo(5 * HOUR_US), b"applied");
    put(&store, b"Iyoung", &memo(6 * HOUR_US), b"applied");
    put(&store, b"Wold", &memo(0), b"applied");
    store.flush().expect("flushed");

    store.compact();
    assert_eq!(keys(&store, b"A", b"Z"), [&b"Iold"[..], b"Iyoung", b"Wold"], "nothing was settled yet");

    store.settle_memos(6 * HOUR_US + 1);
    store.compact();
    assert_eq!(keys(&store, b"A", b"Z"), [&b"Iyoung"[..], b"Wold"]);
}

#[test]
fn a_shard_that_was_opened_again_still_drops_its_memos() {
    let directory = TempDir::new().expect("a directory");
    let store = shard(directory.path());
    put(&store, b"Iold", &memo(0), b"applied");
    store.flush().expect("flushed");
    drop(store);
    let store = shard(directory.path());
    store.settle_memos(2 * HOUR_US);
    store.compact();
    assert!(keys(&store, b"A", b"Z").is_empty());
}

#[test]
fn a_new_generation_takes_over_only_when_it_is_switched_to() {
    let directory = TempDir::new().expect("a directory");
    let state = open(directory.path());
    let store = state.shard(7, Generation::FIRST).expect("opens");
    put(&store, b"W1", b"old", b"applied 1");
    let before = store.view();

    let mut filled = store.next_generation().expect("begun");
    filled.put(b"W1", b"new").expect("put");
    filled.finish(b"applied 9").expect("finished");
    assert_eq!(store.get(b"W1"), Ok(Some(b"old".to_vec())));

    let generation = filled.generation();
    store.switch_to(filled).expect("switched");
    assert_eq!(store.get(b"W1"), Ok(Some(b"new".to_vec())));
    assert_eq!(store.applied(), Ok(Some(b"applied 9".to_vec())));
    assert_eq!(state.generations(7), [generation]);
    assert_eq!(before.get(b"W1"), Ok(Some(b"old".to_vec())), "a view of the old one still stands");
}

#[test]
fn a_restart_in_the_middle_of_an_install_finds_the_generation_that_was_recorded() {
    let directory = TempDir::new().expect("a directory");
    let store = shard(directory.path());
    put(&store, b"W1", b"old", b"applied 1");
    store.flush().expect("flushed");
    let mut filled = store.next_generation().expect("begun");
    filled.put(b"W1", b"new").expect("put");
    filled.finish(b"applied 9").expect("finished");
    let next = filled.generation();
    drop((store, filled));

    // Not recorded: the old one, and the unfinished one goes.
    let state = open(directory.path());
    let store = state.shard(7, Generation::FIRST).expect("opens");
    assert_eq!(store.get(b"W1"), Ok(Some(b"old".to_vec())));
    assert_eq!(state.generations(7), [Generation::FIRST]);
    // A record of what is not there is a loss, and said to be one.
    let gone = state.shard(7, next);
    assert!(matches!(gone, Err(StorageError::Gone(_))), "{gone:?}");
}
