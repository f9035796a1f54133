//! A shard's rows against a model that is a sorted map and copies of it: whatever is written, frozen,
//! flushed and looked at, in whatever order, a view shows the map as it was when it was taken. Told of
//! both engines.

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use purser_ledger::store::Store;
use purser_node::storage::{
    Generation, MemoryImage, ShardMark, ShardStore, ShardView, StateStore, StoreOptions,
};

/// Rows by key, as a sorted map has them.
type Rows = BTreeMap<Vec<u8>, Vec<u8>>;

#[derive(Clone, Debug)]
enum Step {
    /// Writes rows of these numbers; `None` deletes one.
    Write(Vec<(u8, Option<u16>)>),
    Flush,
    /// Takes a view, to be looked at later.
    Look,
    /// Looks at the view taken first, and lets it go.
    LetGo,
    /// Marks a moment, to be flushed to later.
    Mark,
    FlushToMark,
    Compact,
}

fn step() -> impl Strategy<Value = Step> {
    let row = (any::<u8>(), prop::option::weighted(0.8, 0..3_000u16));
    prop_oneof![
        8 => prop::collection::vec(row, 1..40).prop_map(Step::Write),
        1 => Just(Step::Flush),
        2 => Just(Step::Look),
        2 => Just(Step::LetGo),
        1 => Just(Step::Mark),
        1 => Just(Step::FlushToMark),
        1 => Just(Step::Compact),
    ]
}

/// Keys of a table that is walked through and of two that are asked by key, each as likely as another.
fn key(number: u8) -> Vec<u8> {
    match number % 4 {
        0 | 1 => vec![b'T', number / 16, number],
        2 => vec![b'W', number],
        _ => vec![b'J', 0, number],
    }
}

/// A value that tells when it was written.
fn row(write: usize, bytes: u16) -> Vec<u8> {
    let mut row = write.to_be_bytes().to_vec();
    row.resize(8 + usize::from(bytes), b'.');
    row
}

fn walk(store: &impl Store, from: &[u8], until: &[u8], backwards: bool, limit: usize) -> Vec<Vec<u8>> {
    let mut seen = Vec::new();
    let mut visit = |key: &[u8], row: &[u8]| {
        seen.push([key, row].concat());
        seen.len() < limit
    };
    match backwards {
        false => store.scan(from, until, &mut visit).expect("readable"),
        true => store.scan_back(from, until, &mut visit).expect("readable"),
    }
    seen
}

/// Looks up every key, and walks through tables and over their borders, in both directions.
fn compare(store: &impl Store, rows: &Rows) {
    let keys: Vec<Vec<u8>> = (0..=u8::MAX).map(key).collect();
    for key in &keys {
        assert_eq!(store.get(key).expect("readable").as_ref(), rows.get(key), "{key:?}");
    }
    let asked: Vec<&[u8]> = keys.iter().map(Vec::as_slice).collect();
    let found = store.get_many(&asked).expect("readable");
    assert!(found.iter().zip(&keys).all(|(found, key)| found.as_ref() == rows.get(key)));
    let bounds: [(&[u8], &[u8]); 6] = [
        (b"T", b"U"),
        (&[b'T', 3], &[b'T', 12, 200]),
        (&[b'T', 9, 1], &[b'T', 9, 1]),
        (b"J", b"X"),
        (b"\x01", b"\xff"),
        (b"W", b"J"),
    ];
    for (from, until) in bounds {
        let within: Vec<Vec<u8>> = rows
            .iter()
            .filter(|(key, _)| from <= key.as_slice() && key.as_slice() < until)
            .map(|(key, row)| [key.as_slice(), row].concat())
            .collect();
        for limit in [1, 9, usize::MAX] {
            let there: Vec<_> = within.iter().take(limit).cloned().collect();
            assert_eq!(walk(store, from, until, false, limit), there, "{from:?} to {until:?}");
            let there: Vec<_> = within.iter().rev().take(limit).cloned().collect();
            assert_eq!(walk(store, from, until, true, limit), there, "{until:?} back to {from:?}");
        }
    }
}

fn go_through(store: &ShardStore, steps: Vec<Step>) {
    let mut rows = Rows::new();
    let mut views: Vec<(ShardView, Rows)> = Vec::new();
    let mut marks: Vec<(ShardMark, Rows)> = Vec::new();
    for (write, step) in steps.into_iter().enumerate() {
        match step {
            Step::Write(changes) => {
                let changes: BTreeMap<Vec<u8>, Option<Vec<u8>>> = changes
                    .into_iter()
                    .map(|(number, bytes)| (key(number), bytes.map(|bytes| row(write, bytes))))
                    .collect();
                let borrowed = changes.iter().map(|(key, row)| (key.as_slice(), row.as_deref()));
                store.write(borrowed, &write.to_be_bytes()).expect("written");
                for (key, change) in changes {
                    match change {
                        Some(row) => drop(rows.insert(key, row)),
                        None => drop(rows.remove(&key)),
                    }
                }
            }
            Step::Flush => store.flush().expect("flushed"),
            Step::Look => views.push((store.view(), rows.clone())),
            Step::LetGo if !views.is_empty() => {
                let (view, then) = views.remove(0);
                compare(&view, &then);
            }
            Step::Mark => marks.push((store.mark(), rows.clone())),
            Step::FlushToMark if !marks.is_empty() => {
                let (mark, then) = marks.remove(0);
                compare(&store.flush_to(&mark).expect("flushed"), &then);
            }
            Step::Compact => store.compact(),
            Step::LetGo | Step::FlushToMark => {}
        }
    }
    compare(store, &rows);
    for (view, then) in &views {
        compare(view, then);
    }
}

fn runs(cases: u32, run: impl Fn(Vec<Step>)) {
    let steps = prop::collection::vec(step(), 1..60);
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    let ran = TestRunner::new(config).run(&steps, |steps| {
        run(steps);
        Ok(())
    });
    ran.unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn over_rocksdb_a_view_shows_what_a_copied_map_shows() {
    runs(12, |steps| {
        let directory = tempfile::tempdir().expect("a directory");
        // Small enough that layers fill.
        let options = StoreOptions { buffer_bytes_max: 64 * 1024, ..StoreOptions::new("model") };
        let state = StateStore::open(directory.path(), options).expect("opens");
        go_through(&state.shard(3, Generation::FIRST).expect("a shard"), steps);
    });
}

#[test]
fn in_memory_a_view_shows_what_a_copied_map_shows() {
    runs(96, |steps| {
        let image = MemoryImage::new();
        image.flush_after(Some(3));
        let state = StateStore::memory(image).expect("opens");
        go_through(&state.shard(3, Generation::FIRST).expect("a shard"), steps);
    });
}
