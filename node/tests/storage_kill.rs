//! A process that writes rows to RocksDB is killed at seeded moments. What it leaves must be what the engine
//! in memory says that a crash leaves, and the simulation takes for granted: each shard as it was at one
//! of its flushes, rows and applied state together; no older than the last flush that was said to be done,
//! and never what was not flushed.
//!
//! The child is this test binary run again, with a directory in its environment.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use purser_ledger::store::Store;
use purser_node::storage::{Generation, MemoryImage, ShardStore, StateStore, StoreOptions};

const DIRECTORY: &str = "PURSER_TEST_STORE_DIRECTORY";
const SHARDS: u16 = 3;
const KILLS: u64 = 25;
/// Each write puts a row of its number, and one that all writes share.
const SHARED: &[u8] = b"W";

fn open(directory: &Path) -> StateStore {
    StateStore::open(directory, StoreOptions::new("cluster-1/node-1")).expect("opens")
}

fn shards(state: &StateStore) -> Vec<ShardStore> {
    (0..SHARDS).map(|shard| state.shard(shard, Generation::FIRST).expect("opens")).collect()
}

fn write(store: &ShardStore, number: u64) {
    let (key, row) = (number_key(number), number.to_be_bytes());
    store.write([(&key[..], Some(&row[..])), (SHARED, Some(&row[..]))], &row).expect("written");
}

fn number_key(number: u64) -> Vec<u8> {
    [b"T", &number.to_be_bytes()[..]].concat()
}

/// The number of the last write that a shard holds, which it must hold with all before it and none after.
fn held(store: &ShardStore) -> u64 {
    let number = |row: Vec<u8>| u64::from_be_bytes(row.try_into().expect("eight bytes"));
    let applied = store.applied().expect("readable").map_or(0, number);
    assert_eq!(store.get(SHARED).expect("readable").map_or(0, number), applied, "rows and applied state");
    let mut next = 1;
    store
        .scan(b"T", b"U", &mut |key, row| {
            assert_eq!((key, row), (&number_key(next)[..], &next.to_be_bytes()[..]), "a row is missing");
            next += 1;
            true
        })
        .expect("readable");
    assert_eq!(next - 1, applied, "rows beyond the applied state, or too few");
    applied
}

fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    out.write_all(format!("\n{line}\n").as_bytes()).and_then(|()| out.flush()).expect("the parent reads");
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
}

/// Writes to every shard in turn, for ever, and flushes one now and then: says that it will, and that it
/// has.
#[test]
fn child() {
    let Some(directory) = std::env::var_os(DIRECTORY) else { return };
    let state = open(Path::new(&directory));
    let shards = shards(&state);
    let mut numbers: Vec<u64> = shards.iter().map(held).collect();
    let mut drawn = Drawn(numbers.iter().sum());
    loop {
        for (shard, store) in shards.iter().enumerate() {
            numbers[shard] += 1;
            write(store, numbers[shard]);
            if drawn.below(6) == 0 {
                say(&format!("flushing {shard} {}", numbers[shard]));
                store.flush().expect("flushed");
                say(&format!("flushed {shard} {}", numbers[shard]));
            }
        }
    }
}

/// What the child said of each shard: the flushes that it began, and the last that it ended.
#[derive(Default)]
struct Heard {
    begun: Vec<Vec<u64>>,
    ended: Vec<u64>,
    flushes: u64,
}

impl Heard {
    fn take(&mut self, line: &str) {
        let words: Vec<&str> = line.split(' ').collect();
        let [what @ ("flushing" | "flushed"), shard, number] = words.as_slice() else { return };
        let (shard, number) = (shard.parse::<usize>().expect("said"), number.parse().expect("said"));
        if *what == "flushing" {
            self.begun[shard].push(number);
        } else {
            self.ended[shard] = number;
            self.flushes += 1;
        }
    }
}

fn run_and_kill(directory: &Path, flushes: u64, heard: &mut Heard) {
    let mut child = Command::new(std::env::current_exe().expect("this binary"))
        .args(["--exact", "child", "--nocapture", "--test-threads=1"])
        .env(DIRECTORY, directory)
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .expect("started");
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    let until = heard.flushes + flushes;
    while heard.flushes < until {
        heard.take(&lines.next().expect("the child goes on").expect("readable"));
    }
    child.kill().expect("killed");
    // What it had said before it died counts as well.
    lines.map_while(Result::ok).for_each(|line| heard.take(&line));
    child.wait().expect("gone");
}

#[test]
fn a_killed_process_leaves_each_shard_of_rocksdb_at_one_of_its_flushes() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut drawn = Drawn(2026);
    let mut found = vec![0; SHARDS.into()];
    let mut lost_unflushed = 0;
    for _ in 0..KILLS {
        let mut heard = Heard { begun: found.iter().map(|at| vec![*at]).collect(), ..Heard::default() };
        heard.ended.clone_from(&found);
        run_and_kill(directory.path(), 1 + drawn.below(30), &mut heard);
        let state = open(directory.path());
        found = shards(&state).iter().map(held).collect();
        for (shard, at) in found.iter().enumerate() {
            assert!(*at >= heard.ended[shard], "shard {shard}: a flush is gone");
            assert!(heard.begun[shard].contains(at), "shard {shard}: {at} was never flushed");
            lost_unflushed += u64::from(heard.begun[shard].last() != Some(at));
        }
    }
    println!("{found:?}, {lost_unflushed} times less than the last flush that was begun");
}

#[test]
fn a_crash_leaves_each_shard_of_the_engine_in_memory_at_its_last_flush() {
    let mut image = MemoryImage::new();
    let mut drawn = Drawn(2026);
    let mut flushed = vec![0; SHARDS.into()];
    for _ in 0..KILLS {
        let state = StateStore::memory(image.clone()).expect("opens");
        let shards = shards(&state);
        let mut numbers: Vec<u64> = shards.iter().map(held).collect();
        assert_eq!(numbers, flushed);
        for _ in 0..drawn.below(100) {
            for (shard, store) in shards.iter().enumerate() {
                numbers[shard] += 1;
                write(store, numbers[shard]);
                if drawn.below(6) == 0 {
                    store.flush().expect("flushed");
                    flushed[shard] = numbers[shard];
                }
            }
        }
        image = image.crash();
    }
    assert!(flushed.iter().all(|at| *at > 100), "{flushed:?}");
}
