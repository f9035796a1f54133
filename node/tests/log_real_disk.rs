//! The same log over real files, with its real threads.

#[path = "log_support/mod.rs"]
mod support;

use bytes::Bytes;
use purser_node::log::{
    Disk, GroupId, LogError, LogHandle, LogOptions, LogWriter, Op, OpenError, RealDisk, Recovered, SimDisk,
    Slot, open,
};
use std::path::Path;
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use support::{G1, G2, append, bulk, entry, names, purge, put, small_options, vote};

fn start(directory: &Path) -> (LogHandle, LogWriter, Recovered) {
    let disk = Arc::new(RealDisk::open(directory).unwrap());
    let (log, driver, recovered) = open(disk, small_options()).unwrap();
    let writer = LogWriter::spawn(log.clone(), driver).unwrap();
    (log, writer, recovered)
}

/// Submits and waits for the answer.
fn write(log: &LogHandle, ops: Vec<Op>) -> Result<(), LogError> {
    let (tell, told) = mpsc::channel();
    log.submit(ops, Box::new(move |result| tell.send(result).unwrap()))?;
    told.recv().unwrap()
}

fn payloads(log: &LogHandle, group: GroupId) -> Vec<String> {
    let extent = log.extent(group).unwrap();
    let entries = log.read(group, extent.first_index..extent.next_index).unwrap();
    entries.iter().map(|e| String::from_utf8(e.payload.to_vec()).unwrap()).collect()
}

#[test]
fn a_log_on_files_comes_back_as_it_was() {
    let directory = tempfile::tempdir().unwrap();
    let nested = directory.path().join("node").join("log");
    let (log, writer, recovered) = start(&nested);
    assert_eq!(recovered, Recovered::default());
    write(&log, vec![append(G1, 0, 5), vote(G1, "term 1")]).unwrap();
    write(&log, vec![append(G2, 0, 2), purge(G1, 1)]).unwrap();
    writer.stop();
    drop(log);

    let (log, writer, recovered) = start(&nested);
    assert!(recovered.damaged.is_empty() && recovered.findings.is_empty());
    assert_eq!(payloads(&log, G1), names(G1, 2, 5));
    assert_eq!(payloads(&log, G2), names(G2, 0, 2));
    assert_eq!(log.slot(G1, Slot::Vote), Ok(Some(Bytes::from("term 1"))));
    assert_eq!(log.purged(G1), Ok(Some((1, Bytes::from("mark1")))));
    drop(writer);
    assert_eq!(write(&log, vec![vote(G1, "late")]), Err(LogError::Closed));
}

#[test]
fn a_log_in_use_is_refused_until_it_is_let_go() {
    let directory = tempfile::tempdir().unwrap();
    let (log, writer, _) = start(directory.path());
    let disk = Arc::new(RealDisk::open(directory.path()).unwrap());
    assert!(matches!(open(disk.clone(), small_options()), Err(OpenError::InUse)));
    writer.stop();
    drop(log);
    open(disk, small_options()).unwrap();
}

#[test]
fn a_log_of_another_node_is_refused_and_not_touched() {
    let directory = tempfile::tempdir().unwrap();
    let (log, writer, _) = start(directory.path());
    write(&log, vec![append(G1, 0, 1)]).unwrap();
    writer.stop();
    let contents = || {
        let mut files: Vec<_> = std::fs::read_dir(directory.path())
            .unwrap()
            .map(|file| file.unwrap().path())
            .map(|path| (path.clone(), std::fs::read(path).unwrap()))
            .collect();
        files.sort();
        files
    };
    let before = contents();
    let disk = Arc::new(RealDisk::open(directory.path()).unwrap());
    let other = LogOptions { identity: "someone else".into(), ..small_options() };
    assert!(matches!(open(disk, other), Err(OpenError::OtherIdentity { .. })));
    assert_eq!(contents(), before);
}

#[test]
fn segments_on_files_are_freed_and_reused() {
    let directory = tempfile::tempdir().unwrap();
    for round in 0..5_u64 {
        let (log, writer, recovered) = start(directory.path());
        assert!(recovered.findings.is_empty(), "{:?}", recovered.findings);
        for index in round * 40..(round + 1) * 40 {
            write(&log, vec![bulk(G1, index, 7000), vote(G2, &index.to_string())]).unwrap();
            if index > 10 {
                write(&log, vec![purge(G1, index - 10)]).unwrap();
            }
        }
        assert!(log.stats().core.segments < 6, "{:?}", log.stats());
        let extent = log.extent(G1).unwrap();
        assert_eq!(log.read(G1, extent.first_index..extent.next_index).unwrap().len(), 10);
        writer.stop();
    }
    assert!(std::fs::read_dir(directory.path()).unwrap().count() < 10);
}

#[test]
fn many_groups_share_the_writer_and_each_gets_its_answers_in_order() {
    const SUBMISSIONS: u64 = 400;
    let directory = tempfile::tempdir().unwrap();
    let (log, writer, _) = start(directory.path());
    std::thread::scope(|scope| {
        for id in 0..8 {
            let log = log.clone();
            scope.spawn(move || {
                let group = GroupId(id);
                let order = Arc::new(Mutex::new(Vec::new()));
                let (tell, told) = mpsc::channel();
                for index in 0..SUBMISSIONS {
                    let (order, tell) = (Arc::clone(&order), tell.clone());
                    let done = Box::new(move |result: Result<(), LogError>| {
                        result.unwrap();
                        order.lock().unwrap().push(index);
                        tell.send(()).unwrap();
                    });
                    let ops = vec![append(group, index, index + 1), put(group, Slot::Committed, "c")];
                    log.submit(ops, done).unwrap();
                    let back = index.saturating_sub(20);
                    let seen = log.read(group, back..index + 1).unwrap();
                    assert_eq!(seen.len() as u64, index + 1 - back);
                }
                (0..SUBMISSIONS).for_each(|_| told.recv().unwrap());
                assert_eq!(*order.lock().unwrap(), (0..SUBMISSIONS).collect::<Vec<_>>());
            });
        }
    });
    let stats = log.stats();
    assert_eq!(stats.core.entries, 8 * SUBMISSIONS);
    assert_eq!((stats.queue_depth, stats.queue_bytes), (0, 0));
    writer.stop();
    drop(log);
    let (log, _writer, _) = start(directory.path());
    for id in 0..8 {
        assert_eq!(payloads(&log, GroupId(id)), names(GroupId(id), 0, SUBMISSIONS));
    }
}

#[test]
fn a_reader_beside_truncations_and_purges_sees_whole_entries_or_an_error() {
    let directory = tempfile::tempdir().unwrap();
    let (log, writer, _) = start(directory.path());
    std::thread::scope(|scope| {
        let reader = log.clone();
        let (stop, stopped) = mpsc::channel::<()>();
        scope.spawn(move || {
            while stopped.try_recv() == Err(mpsc::TryRecvError::Empty) {
                let extent = reader.extent(G1).unwrap();
                match reader.read(G1, extent.first_index..extent.next_index) {
                    Ok(entries) => {
                        for entry in entries {
                            assert_eq!(entry.payload.len(), 3000);
                            assert!(entry.payload.iter().all(|byte| u64::from(*byte) == entry.term % 251));
                        }
                    }
                    Err(LogError::Missing { .. }) => {}
                    Err(other) => panic!("{other}"),
                }
            }
        });
        for term in 0..400_u64 {
            let extent = log.extent(G1).unwrap();
            let from = extent.next_index.saturating_sub(2).max(extent.first_index);
            let payload = vec![u8::try_from(term % 251).unwrap(); 3000];
            let entries = (from..from + 5).map(|index| entry(index, term, payload.clone())).collect();
            let cut = Op::Truncate { group: G1, from_index: from };
            write(&log, vec![cut, Op::Append { group: G1, entries }]).unwrap();
            if from > 12 {
                write(&log, vec![purge(G1, from - 12)]).unwrap();
            }
        }
        stop.send(()).unwrap();
    });
    writer.stop();
}

#[test]
fn free_space_is_known() {
    let directory = tempfile::tempdir().unwrap();
    let disk = RealDisk::open(directory.path()).unwrap();
    assert!(disk.free_bytes().unwrap() > 0);
}

#[test]
fn a_write_that_hangs_is_noticed() {
    let disk = SimDisk::new();
    let options = LogOptions { stall_max: Duration::from_millis(5), ..small_options() };
    let (log, driver, _) = open(Arc::new(disk.clone()), options).unwrap();
    let (noticed, released) = mpsc::channel();
    let (tell, told) = mpsc::channel();
    let on_stall = Box::new(move |error: &LogError| {
        tell.send(error.clone()).unwrap();
        noticed.send(()).unwrap();
    });
    let writer = LogWriter::spawn_with(log.clone(), driver, on_stall).unwrap();
    // The disk hangs until the stall has been noticed, however long that takes.
    let released = Mutex::new(released);
    disk.on_operation(move |_| {
        let _ = released.lock().unwrap().recv();
    });
    let done = Box::new(|_: Result<(), LogError>| {});
    log.submit(vec![vote(G1, "hangs")], done).unwrap();
    assert!(matches!(told.recv().unwrap(), LogError::Poisoned(_)));
    writer.stop();
}

#[test]
fn a_callback_that_panics_ends_the_log() {
    let (log, mut driver, _) = open(Arc::new(SimDisk::new()), small_options()).unwrap();
    let (tell, told) = mpsc::channel();
    driver.on_fatal(Box::new(move |error| tell.send(error.clone()).unwrap()));
    let writer = LogWriter::spawn(log.clone(), driver).unwrap();
    log.submit(vec![vote(G1, "a")], Box::new(|_| panic!("as the test wants"))).unwrap();
    assert!(matches!(told.recv().unwrap(), LogError::Poisoned(_)));
    assert!(matches!(log.extent(G1), Err(LogError::Poisoned(_))));
    writer.stop();
}
