//! The state store by itself: what a flush keeps, what a view shows, when memos go. Every story is
//! told of both engines: RocksDB, and the one in memory that the simulation runs on. And random steps on
//! one must come to the same as on the other. What a process that is killed leaves of RocksDB:
//! `storage_kill.rs`.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use purser_ledger::store::Store;
use purser_node::storage::{
    Generation, MemoryImage, ShardStore, ShardView, StateStore, StorageError, StoreOptions, is_expired_memo,
};
use tempfile::TempDir;

const HOUR_US: u64 = 3_600_000_000;

/// Where a store keeps what it flushed.
enum Place {
    RocksDb(TempDir),
    Memory(MemoryImage),
}

impl Place {
    fn rocksdb() -> Place {
        Place::RocksDb(TempDir::new().expect("a directory"))
    }

    fn memory() -> Place {
        Place::Memory(MemoryImage::new())
    }

    fn open(&self) -> StateStore {
        let state = match self {
            Place::RocksDb(directory) => {
                StateStore::open(directory.path(), StoreOptions::new("cluster-1/node-1"))
            }
            Place::Memory(image) => StateStore::memory(image.clone()),
        };
        state.expect("the state opens")
    }

    fn shard(&self) -> ShardStore {
        self.open().shard(7, Generation::FIRST).expect("the shard opens")
    }

    /// What is there after the power failed now; a store that is open flushes nothing more to it.
    fn crash(&self) -> Place {
        match self {
            Place::RocksDb(directory) => {
                let copy = TempDir::new().expect("a directory");
                copy_files(directory.path(), copy.path());
                Place::RocksDb(copy)
            }
            Place::Memory(image) => Place::Memory(image.crash()),
        }
    }
}

fn copy_files(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).expect("a directory") {
        let entry = entry.expect("an entry");
        let place = to.join(entry.file_name());
        if entry.file_type().expect("a type").is_dir() {
            fs::create_dir(&place).expect("made");
            copy_files(&entry.path(), &place);
        } else {
            fs::copy(entry.path(), &place).expect("copied");
        }
    }
}

/// Tells each story of both engines.
macro_rules! told_of_both {
    ($($story:ident),+ $(,)?) => {
        mod on_rocksdb {
            $(#[test] fn $story() { super::$story(super::Place::rocksdb()); })+
        }
        mod in_memory {
            $(#[test] fn $story() { super::$story(super::Place::memory()); })+
        }
    };
}

told_of_both!(
    rows_and_applied_state_come_back_together_after_a_flush,
    a_crash_takes_a_shard_back_to_its_last_flush,
    a_view_shows_rows_and_applied_state_of_one_instant,
    a_view_of_the_first_rows_keeps_one_that_is_deleted_and_compacted_away,
    scans_go_both_ways_within_their_bounds_until_told_to_stop,
    shards_do_not_see_each_other,
    memos_go_with_a_compaction_an_hour_after_what_was_flushed_has_passed_their_expiry,
    a_shard_that_was_opened_again_still_drops_its_memos,
    a_new_generation_takes_over_only_when_it_is_switched_to,
    a_restart_in_the_middle_of_an_install_finds_the_generation_that_was_recorded,
    a_crash_after_an_install_finds_the_new_generation_whole,
    a_shard_that_is_forgotten_begins_anew,
    two_processes_do_not_share_a_store,
);

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

fn rows_and_applied_state_come_back_together_after_a_flush(place: Place) {
    let store = place.shard();
    put(&store, b"W1", b"one", b"applied 1");
    store.flush().expect("flushed");
    drop(store);

    let store = place.shard();
    assert_eq!(store.get(b"W1"), Ok(Some(b"one".to_vec())));
    assert_eq!(store.applied(), Ok(Some(b"applied 1".to_vec())));
}

fn a_crash_takes_a_shard_back_to_its_last_flush(place: Place) {
    let store = place.shard();
    put(&store, b"W1", b"one", b"applied 1");
    put(&store, b"W2", b"two", b"applied 2");
    store.flush().expect("flushed");
    put(&store, b"W1", b"later", b"applied 3");
    store.write([(&b"W2"[..], None)], b"applied 4").expect("written");

    let crashed = place.crash();
    let store_after = crashed.shard();
    assert_eq!(store_after.get(b"W1"), Ok(Some(b"one".to_vec())));
    assert_eq!(store_after.get(b"W2"), Ok(Some(b"two".to_vec())));
    assert_eq!(store_after.applied(), Ok(Some(b"applied 2".to_vec())));
}

fn a_view_shows_rows_and_applied_state_of_one_instant(place: Place) {
    let store = place.shard();
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

fn a_view_of_the_first_rows_keeps_one_that_is_deleted_and_compacted_away(place: Place) {
    let store = place.shard();
    put(&store, b"Ca", b"first", b"1");
    store.flush().expect("flushed");
    let view = store.view();
    store.write([(b"Ca".as_slice(), None)], b"2").expect("written");
    store.compact();
    assert_eq!(view.get(b"Ca").expect("readable").as_deref(), Some(b"first".as_slice()));
    assert_eq!(store.get(b"Ca").expect("readable"), None);
}

fn scans_go_both_ways_within_their_bounds_until_told_to_stop(place: Place) {
    let store = place.shard();
    for key in [b"S1", b"T1", b"T2", b"T3", b"U1"] {
        put(&store, key, b"", b"applied");
    }
    assert_eq!(keys(&store, b"T", b"U"), [b"T1", b"T2", b"T3"]);
    assert_eq!(keys(&store.view(), b"T2", b"T3"), [b"T2"]);
    assert!(keys(&store, b"T2", b"T2").is_empty());
    assert!(keys(&store.view(), b"U", b"T").is_empty());
    let mut seen = Vec::new();
    let mut two = |key: &[u8], _: &[u8]| {
        seen.push(key.to_vec());
        seen.len() < 2
    };
    store.scan_back(b"T", b"U", &mut two).expect("readable");
    assert_eq!(seen, [b"T3", b"T2"]);
}

fn shards_do_not_see_each_other(place: Place) {
    let state = place.open();
    let one = state.shard(1, Generation::FIRST).expect("opens");
    let two = state.shard(2, Generation::FIRST).expect("opens");
    put(&one, b"W1", b"one", b"applied");
    assert_eq!(two.get(b"W1"), Ok(None));
    assert_eq!(two.applied(), Ok(None));
}

fn memos_go_with_a_compaction_an_hour_after_what_was_flushed_has_passed_their_expiry(place: Place) {
    let store = place.shard();
    put(&store, b"Iold", &memo(5 * HOUR_US), b"applied");
    put(&store, b"Iyoung", &memo(6 * HOUR_US), b"applied");
    put(&store, b"Wold", &memo(0), b"applied");
    store.flush().expect("flushed");

    store.compact();
    assert_eq!(keys(&store, b"A", b"Z"), [&b"Iold"[..], b"Iyoung", b"Wold"], "nothing was settled yet");

    store.settle_memos(6 * HOUR_US + 1);
    store.compact();
    assert_eq!(keys(&store, b"A", b"Z"), [&b"Iyoung"[..], b"Wold"]);
    let crashed = place.crash().shard();
    assert_eq!(keys(&crashed, b"A", b"Z"), [&b"Iyoung"[..], b"Wold"], "they are gone from the disk");
}

fn a_shard_that_was_opened_again_still_drops_its_memos(place: Place) {
    let store = place.shard();
    put(&store, b"Iold", &memo(0), b"applied");
    store.flush().expect("flushed");
    drop(store);
    let store = place.shard();
    store.settle_memos(2 * HOUR_US);
    store.compact();
    assert!(keys(&store, b"A", b"Z").is_empty());
}

fn a_new_generation_takes_over_only_when_it_is_switched_to(place: Place) {
    let state = place.open();
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

fn a_restart_in_the_middle_of_an_install_finds_the_generation_that_was_recorded(place: Place) {
    let store = place.shard();
    put(&store, b"W1", b"old", b"applied 1");
    store.flush().expect("flushed");
    let mut filled = store.next_generation().expect("begun");
    filled.put(b"W1", b"new").expect("put");
    filled.finish(b"applied 9").expect("finished");
    let next = filled.generation();
    drop((store, filled));

    // Not recorded: the old one, and the unfinished one goes.
    let state = place.open();
    let store = state.shard(7, Generation::FIRST).expect("opens");
    assert_eq!(store.get(b"W1"), Ok(Some(b"old".to_vec())));
    assert_eq!(state.generations(7), [Generation::FIRST]);
    // A record of what is not there is a loss, and said to be one.
    let gone = state.shard(7, next);
    assert!(matches!(gone, Err(StorageError::Gone(_))), "{gone:?}");
}

fn a_crash_after_an_install_finds_the_new_generation_whole(place: Place) {
    let store = place.shard();
    put(&store, b"W1", b"old", b"applied 1");
    let mut filled = store.next_generation().expect("begun");
    filled.put(b"W1", b"new").expect("put");
    filled.finish(b"applied 9").expect("finished");
    let next = filled.generation();
    store.switch_to(filled).expect("switched");
    put(&store, b"W1", b"newer", b"applied 10");

    let crashed = place.crash();
    let state = crashed.open();
    assert_eq!(state.generations(7), [next]);
    let store = state.shard(7, next).expect("opens");
    assert_eq!(store.get(b"W1"), Ok(Some(b"new".to_vec())));
    assert_eq!(store.applied(), Ok(Some(b"applied 9".to_vec())));
}

fn a_shard_that_is_forgotten_begins_anew(place: Place) {
    let state = place.open();
    let store = state.shard(7, Generation::FIRST).expect("opens");
    put(&store, b"W1", b"one", b"applied 1");
    drop(store);
    state.forget(7).expect("forgotten");
    let store = state.shard(7, Generation::FIRST).expect("opens");
    assert_eq!(store.applied(), Ok(None));
}

fn two_processes_do_not_share_a_store(place: Place) {
    let state = place.open();
    let second = match &place {
        Place::RocksDb(directory) => {
            StateStore::open(directory.path(), StoreOptions::new("cluster-1/node-1"))
        }
        Place::Memory(image) => StateStore::memory(image.clone()),
    };
    assert!(matches!(second, Err(purser_node::storage::OpenError::InUse)), "{second:?}");
    drop(state);
    place.open();
}

#[test]
fn an_image_that_crashed_is_off_for_ever() {
    let image = MemoryImage::new();
    let state = StateStore::memory(image.clone()).expect("opens");
    let store = state.shard(7, Generation::FIRST).expect("opens");
    put(&store, b"W1", b"one", b"applied 1");
    let left = image.crash();
    assert!(store.flush().is_err());
    assert!(StateStore::memory(image).is_err());
    StateStore::memory(left).expect("what is left opens at once");
}

#[test]
fn families_in_memory_flush_by_themselves_when_told_to() {
    let image = MemoryImage::new();
    image.flush_after(Some(2));
    let store = StateStore::memory(image.clone()).expect("opens").shard(7, Generation::FIRST).expect("opens");
    for applied in [b"applied 1", b"applied 2", b"applied 3"] {
        put(&store, b"W1", b"one", applied);
    }
    let state = StateStore::memory(image.crash()).expect("opens");
    let store = state.shard(7, Generation::FIRST).expect("opens");
    assert_eq!(store.applied(), Ok(Some(b"applied 2".to_vec())));
}

#[test]
fn a_full_disk_in_memory_refuses_flushes_and_then_writes_until_there_is_room() {
    let image = MemoryImage::new();
    image.flush_after(Some(1));
    let store = StateStore::memory(image.clone()).expect("opens").shard(7, Generation::FIRST).expect("opens");
    image.set_full(true);
    // Each write fills a layer. One may wait for the disk while the next one is filled; then there is no room.
    put(&store, b"W1", b"one", b"applied 1");
    put(&store, b"W1", b"two", b"applied 2");
    let full = store.write([(&b"W1"[..], Some(&b"three"[..]))], b"applied 3");
    assert!(matches!(full, Err(StorageError::NoSpace { .. })), "{full:?}");
    assert!(matches!(store.make_room(), Err(StorageError::NoSpace { .. })));
    assert!(matches!(store.flush(), Err(StorageError::NoSpace { .. })));
    assert_eq!(store.applied(), Ok(Some(b"applied 2".to_vec())));
    assert_eq!(store.get(b"W1"), Ok(Some(b"two".to_vec())));
    image.set_full(false);
    put(&store, b"W1", b"three", b"applied 3");
    store.flush().expect("flushed");
    let crashed = StateStore::memory(image.crash()).expect("opens");
    let store = crashed.shard(7, Generation::FIRST).expect("opens");
    assert_eq!(store.get(b"W1"), Ok(Some(b"three".to_vec())));
}

#[test]
fn a_shard_that_is_opened_again_by_the_same_process_finds_what_is_not_on_disk() {
    let state = StateStore::memory(MemoryImage::new()).expect("opens");
    let store = state.shard(7, Generation::FIRST).expect("opens");
    put(&store, b"W1", b"one", b"applied 1");
    drop(store);
    let store = state.shard(7, Generation::FIRST).expect("opens");
    assert_eq!(store.get(b"W1"), Ok(Some(b"one".to_vec())));
}

#[test]
fn a_mark_shows_what_was_written_before_it_though_more_is_on_disk_by_then() {
    let place = Place::rocksdb();
    let store = place.shard();
    put(&store, b"W1", b"one", b"applied 1");
    let mark = store.mark();
    put(&store, b"W1", b"two", b"applied 2");
    store.flush().expect("flushed");
    let view = store.flush_to(&mark).expect("flushed");
    assert_eq!(view.get(b"W1"), Ok(Some(b"one".to_vec())));
    assert_eq!(view.applied(), Ok(Some(b"applied 1".to_vec())));
}

#[test]
fn a_store_that_is_closed_in_peace_leaves_nothing_to_be_applied_again() {
    let place = Place::rocksdb();
    let store = place.shard();
    put(&store, b"W1", b"one", b"applied 1");
    drop(store);
    let store = place.shard();
    assert_eq!(store.get(b"W1"), Ok(Some(b"one".to_vec())));
    assert_eq!(store.applied(), Ok(Some(b"applied 1".to_vec())));
}

#[test]
fn nothing_of_a_write_that_panicked_gets_to_disk() {
    let place = Place::rocksdb();
    let store = place.shard();
    put(&store, b"W1", b"one", b"applied 1");
    store.flush().expect("flushed");
    // The second key begins with no table.
    let changes = [(&b"W1"[..], Some(&b"two"[..])), (&b"\0"[..], Some(&b"two"[..]))];
    let written =
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| store.write(changes, b"applied 2")));
    assert!(written.is_err());
    assert!(store.flush().is_err());
    assert!(store.write([(&b"W1"[..], Some(&b"three"[..]))], b"applied 3").is_err());
    drop(store);
    let store = place.shard();
    assert_eq!(store.get(b"W1"), Ok(Some(b"one".to_vec())));
    assert_eq!(store.applied(), Ok(Some(b"applied 1".to_vec())));
}

#[test]
fn rows_wait_for_their_files_to_be_merged_where_there_are_too_many() {
    let directory = TempDir::new().expect("a directory");
    let options = StoreOptions { compacts_by_itself: false, ..StoreOptions::new("cluster-1/node-1") };
    let state = StateStore::open(directory.path(), options).expect("opens");
    let store = state.shard(7, Generation::FIRST).expect("opens");
    let mut runs = Vec::new();
    for number in 0..34u8 {
        put(&store, &[b'W', number], b"a row", &[number]);
        store.flush().expect("flushed");
        runs.push(store.stats().runs);
    }
    // 32 runs are there when the 33rd comes: they are merged into one before it.
    assert_eq!((runs[0], runs[31], runs[32], runs[33]), (1, 32, 2, 3));
    assert_eq!(keys(&store, b"W", b"X").len(), 34);
}

#[test]
fn files_that_were_not_taken_in_before_the_end_are_gone_after_a_start() {
    let place = Place::rocksdb();
    let store = place.shard();
    put(&store, b"W1", b"one", b"applied 1");
    store.flush().expect("flushed");
    drop(store);
    let Place::RocksDb(directory) = &place else { return };
    let left = directory.path().join("rocksdb").join("incoming-0.sst");
    fs::write(&left, b"half a file").expect("written");
    let store = place.shard();
    assert!(!left.exists());
    put(&store, b"W2", b"two", b"applied 2");
    store.flush().expect("flushed");
    assert_eq!(store.get_many(&[b"W1", b"W2"]), Ok(vec![Some(b"one".to_vec()), Some(b"two".to_vec())]));
}

/// One engine on its way through random steps.
struct Side {
    // Dropped in this order: the directory last.
    views: Vec<ShardView>,
    shards: Vec<ShardStore>,
    state: StateStore,
    place: Place,
}

/// What can be seen of a shard or a view.
type Seen = (Option<Vec<u8>>, Rows);

/// Keys and rows, in the order in which they were shown.
type Rows = Vec<(Vec<u8>, Vec<u8>)>;

const SHARDS: u16 = 2;

impl Side {
    fn open(place: Place, generations: &[Generation]) -> Side {
        let state = place.open();
        let shards = (0..SHARDS).zip(generations);
        let shards = shards.map(|(shard, generation)| state.shard(shard, *generation).expect("opens"));
        Side { shards: shards.collect(), state, place, views: Vec::new() }
    }

    /// The power fails, and comes back.
    fn crash(self) -> Side {
        let generations: Vec<Generation> = self.shards.iter().map(ShardStore::generation).collect();
        let left = self.place.crash();
        drop(self);
        Side::open(left, &generations)
    }

    /// All that can be seen. Memos that were dropped are not looked for in views: RocksDB drops them from
    /// older views as well, where the engine in memory leaves a view as it was. Nobody reads a memo after
    /// its time.
    fn seen(&self, settled_us: u64) -> (Vec<Seen>, Vec<Vec<Generation>>) {
        let views = self.views.iter().map(|view| {
            let (applied, mut rows) = seen(view, view.applied());
            rows.retain(|(key, row)| !is_expired_memo(key, row, settled_us));
            (applied, rows)
        });
        let shards = self.shards.iter().map(|shard| seen(shard, shard.applied()));
        let generations = (0..SHARDS).map(|shard| self.state.generations(shard)).collect();
        (shards.chain(views).collect(), generations)
    }
}

fn seen(store: &impl Store, applied: Result<Option<Vec<u8>>, StorageError>) -> Seen {
    let mut rows = Vec::new();
    store
        .scan(b"A", b"Z", &mut |key, row| {
            rows.push((key.to_vec(), row.to_vec()));
            true
        })
        .expect("readable");
    (applied.expect("readable"), rows)
}

/// A step, drawn once and taken by both.
#[derive(Clone, Debug)]
enum Step {
    Write(usize, Vec<(Vec<u8>, Option<Vec<u8>>)>, Vec<u8>),
    Flush(usize),
    View(usize),
    DropView,
    ScanBack(usize, Vec<u8>, Vec<u8>),
    GetMany(usize, Vec<Vec<u8>>),
    Install(usize, Vec<(Vec<u8>, Vec<u8>)>, Vec<u8>),
    DropMemos(u64),
    Crash,
}

/// A stream of numbers from a seed (splitmix64, Steele, Lea and Flood 2014).
struct Drawn(u64);

impl Drawn {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }

    fn shard(&mut self) -> usize {
        self.below(SHARDS.into()) as usize
    }

    /// Few keys, so that they meet; a tenth are of memos.
    fn key(&mut self) -> Vec<u8> {
        let table = [b'I', b'M', b'M', b'T', b'T', b'T', b'W', b'W', b'W', b'W'][self.below(10) as usize];
        vec![table, b'0' + self.below(10) as u8]
    }

    /// Memos expire after all that were dropped so far.
    fn row(&mut self, key: &[u8], settled_us: u64) -> Vec<u8> {
        match key[0] {
            b'I' => memo(settled_us + self.below(3 * HOUR_US)),
            _ => vec![b'x'; self.below(200) as usize],
        }
    }

    fn step(&mut self, number: u64, settled_us: &mut u64) -> Step {
        let applied = format!("applied {number}").into_bytes();
        let shard = self.shard();
        match self.below(100) {
            0..=54 => {
                let changes = (0..1 + self.below(4)).map(|_| {
                    let key = self.key();
                    let row = (self.below(4) > 0).then(|| self.row(&key, *settled_us));
                    (key, row)
                });
                Step::Write(shard, changes.collect(), applied)
            }
            55..=64 => Step::Flush(shard),
            65..=71 => Step::View(shard),
            72..=76 => Step::DropView,
            77..=82 => Step::ScanBack(shard, self.key(), self.key()),
            83..=88 => Step::GetMany(shard, (0..self.below(5)).map(|_| self.key()).collect()),
            89..=91 => {
                let rows = (0..self.below(6)).map(|_| {
                    let key = self.key();
                    let row = self.row(&key, *settled_us);
                    (key, row)
                });
                Step::Install(shard, rows.collect::<BTreeMap<_, _>>().into_iter().collect(), applied)
            }
            92..=94 => {
                *settled_us += self.below(4 * HOUR_US);
                Step::DropMemos(*settled_us)
            }
            _ => Step::Crash,
        }
    }
}

/// Takes a step; what it shows.
fn take(side: Side, step: &Step) -> (Side, Rows) {
    let mut side = side;
    let mut shown = Vec::new();
    match step {
        Step::Write(shard, changes, applied) => {
            let changes = changes.iter().map(|(key, row)| (key.as_slice(), row.as_deref()));
            side.shards[*shard].write(changes, applied).expect("written");
        }
        Step::Flush(shard) => side.shards[*shard].flush().expect("flushed"),
        Step::View(shard) => side.views.push(side.shards[*shard].view()),
        Step::DropView => drop(side.views.pop()),
        Step::ScanBack(shard, from, until) => {
            let mut visit = |key: &[u8], row: &[u8]| {
                shown.push((key.to_vec(), row.to_vec()));
                shown.len() < 4
            };
            side.shards[*shard].scan_back(from, until, &mut visit).expect("readable");
        }
        Step::GetMany(shard, keys) => {
            let keys: Vec<&[u8]> = keys.iter().map(Vec::as_slice).collect();
            let rows = side.shards[*shard].get_many(&keys).expect("readable");
            shown.extend(keys.iter().zip(rows).map(|(key, row)| (key.to_vec(), row.unwrap_or_default())));
        }
        Step::Install(shard, rows, applied) => {
            let store = &side.shards[*shard];
            let mut filled = store.next_generation().expect("begun");
            for (key, row) in rows {
                filled.put(key, row).expect("put");
            }
            filled.finish(applied).expect("finished");
            store.switch_to(filled).expect("switched");
        }
        Step::DropMemos(settled_us) => {
            for shard in &side.shards {
                shard.settle_memos(*settled_us);
                shard.compact();
            }
        }
        Step::Crash => side = side.crash(),
    }
    (side, shown)
}

#[test]
fn random_steps_come_to_the_same_on_both_engines() {
    let (mut crashes, mut installs, mut rows) = (0, 0, 0);
    for seed in 0..20 {
        println!("seed {seed}");
        let mut drawn = Drawn(seed);
        let first = [Generation::FIRST; SHARDS as usize];
        let mut rocksdb = Side::open(Place::rocksdb(), &first);
        let mut memory = Side::open(Place::memory(), &first);
        let mut settled_us = 0;
        for number in 0..150 {
            let step = drawn.step(number, &mut settled_us);
            let (on_rocksdb, in_memory) = (take(rocksdb, &step), take(memory, &step));
            assert_eq!(on_rocksdb.1, in_memory.1, "{step:?}");
            (rocksdb, memory) = (on_rocksdb.0, in_memory.0);
            let seen = rocksdb.seen(settled_us);
            assert_eq!(seen, memory.seen(settled_us), "after {step:?}");
            crashes += u64::from(matches!(step, Step::Crash));
            installs += u64::from(matches!(step, Step::Install(..)));
            rows += seen.0.iter().map(|(_, rows)| rows.len()).sum::<usize>();
        }
    }
    assert!(crashes > 50 && installs > 50 && rows > 10_000, "{crashes} {installs} {rows}");
}
