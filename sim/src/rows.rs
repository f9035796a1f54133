//! Where a node keeps its rows: an image in memory, or, in a share of the worlds, RocksDB itself over
//! real files.
//!
//! RocksDB has threads and files of its own, which the simulation does not rule. So that a seed is one
//! run all the same:
//! - layers of rows that are full go to disk by a call that waits, never on a thread of their own; they
//!   are small, so that they fill;
//! - it compacts nothing by itself;
//! - a crash is a copy of the directory as it is at that instant, and the next process opens the copy:
//!   whatever the store of the one that was killed still does must change nothing that anybody sees.
//!
//! What it keeps is what was flushed, as with the image: unsynced parts of its files are not lost here.
//! All directories of a process are under one that its number names, so that whoever started it can
//! remove them when it was ended by force.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use purser_node::storage::{MemoryImage, OpenError, StateStore, StoreOptions};

/// A block cache that small worlds outgrow: blocks are read again, as they are in large ones.
const BLOCK_CACHE_BYTES: usize = 1024 * 1024;
/// A layer of rows: some hundred commands fill it.
const BUFFER_BYTES: usize = 64 * 1024;

/// The directories of one run.
#[derive(Debug)]
pub struct Scratch {
    directory: PathBuf,
    made: AtomicU64,
}

impl Scratch {
    /// A place for one run of this process; nothing is made before it is needed.
    pub fn new() -> Arc<Scratch> {
        static RUNS: AtomicU64 = AtomicU64::new(0);
        let run = RUNS.fetch_add(1, Ordering::Relaxed);
        let directory = Scratch::of_process(std::process::id()).join(run.to_string());
        Arc::new(Scratch { directory, made: AtomicU64::new(0) })
    }

    fn of_process(process: u32) -> PathBuf {
        std::env::temp_dir().join(format!("purser-sim-{process}"))
    }

    /// Removes what a process left that could not do so itself.
    pub fn remove_of_process(process: u32) -> io::Result<()> {
        match fs::remove_dir_all(Scratch::of_process(process)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            done => done,
        }
    }

    /// Removes what the run left, once it is over: tasks of killed processes may hold on to their stores
    /// for as long as this process lives.
    pub fn remove(&self) -> io::Result<()> {
        if !self.directory.exists() {
            return Ok(());
        }
        fs::remove_dir_all(&self.directory)?;
        if let Some(of_process) = self.directory.parent() {
            // Another run of this process may still have its own there.
            let _ = fs::remove_dir(of_process);
        }
        Ok(())
    }

    /// A directory that nobody has used.
    fn directory(&self) -> PathBuf {
        let number = self.made.fetch_add(1, Ordering::Relaxed);
        let directory = self.directory.join(number.to_string());
        fs::create_dir_all(&directory).expect("the simulation may make directories for RocksDB");
        directory
    }
}

/// What of a node's rows outlives its process.
#[derive(Clone, Debug)]
pub enum Rows {
    /// Flushed rows, in memory.
    Memory(MemoryImage),
    /// A directory of RocksDB.
    RocksDb(RocksDirectory),
}

impl Rows {
    /// No rows yet; in RocksDB, if there is a place for its files.
    pub fn new(scratch: Option<&Arc<Scratch>>) -> Rows {
        match scratch {
            None => Rows::Memory(MemoryImage::new()),
            Some(scratch) => Rows::RocksDb(RocksDirectory::new(scratch)),
        }
    }

    /// Opens the store, for a process of this node.
    pub fn open(&self, node: &str) -> Result<StateStore, OpenError> {
        match self {
            Rows::Memory(image) => StateStore::memory(image.clone()),
            Rows::RocksDb(directory) => StateStore::open(&directory.path, directory.options(node)),
        }
    }

    /// Has families flush by themselves after so many writes: only those in memory do.
    pub fn flush_after(&self, writes: Option<u64>) {
        if let Rows::Memory(image) = self {
            image.flush_after(writes);
        }
    }

    /// What is there after the process ended, at this instant. What it had in memory is gone.
    pub fn crash(&self) -> Rows {
        match self {
            Rows::Memory(image) => Rows::Memory(image.crash()),
            Rows::RocksDb(directory) => Rows::RocksDb(directory.copy()),
        }
    }

    /// A copy of what is there; whoever has it open goes on.
    pub fn duplicate(&self) -> Rows {
        match self {
            Rows::Memory(image) => Rows::Memory(image.duplicate()),
            Rows::RocksDb(directory) => Rows::RocksDb(directory.copy()),
        }
    }
}

/// A directory with a store in it, or room for one.
#[derive(Clone, Debug)]
pub struct RocksDirectory {
    path: PathBuf,
    scratch: Arc<Scratch>,
}

impl RocksDirectory {
    fn new(scratch: &Arc<Scratch>) -> RocksDirectory {
        RocksDirectory { path: scratch.directory(), scratch: Arc::clone(scratch) }
    }

    fn options(&self, node: &str) -> StoreOptions {
        StoreOptions {
            block_cache_bytes: BLOCK_CACHE_BYTES,
            buffer_bytes_max: BUFFER_BYTES,
            compacts_by_itself: false,
            ..StoreOptions::new(node.to_owned())
        }
    }

    fn copy(&self) -> RocksDirectory {
        let copy = RocksDirectory::new(&self.scratch);
        copy_directory(&self.path, &copy.path).expect("a directory of RocksDB can be copied");
        copy
    }
}

/// Copies what is there. Files of rows never change, so that they are shared; one that goes while it is
/// copied is one that RocksDB needs no more.
fn copy_directory(from: &Path, to: &Path) -> io::Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let place = to.join(entry.file_name());
        let is_rows = place.extension().is_some_and(|extension| extension == "sst");
        let copied = match entry.file_type()?.is_dir() {
            true => fs::create_dir(&place).and_then(|()| copy_directory(&entry.path(), &place)),
            false if is_rows => fs::hard_link(entry.path(), &place),
            false => fs::copy(entry.path(), &place).map(drop),
        };
        match copied {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            done => done?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use purser_ledger::store::Store;
    use purser_node::storage::Generation;

    #[test]
    fn a_crash_of_rocksdb_keeps_what_was_flushed_whatever_its_closing_does() {
        let scratch = Scratch::new();
        let rows = Rows::new(Some(&scratch));
        let store = rows.open("n1").expect("opens").shard(3, Generation::FIRST).expect("opens");
        store.write([(&b"W1"[..], Some(&b"one"[..]))], b"applied 1").expect("written");
        store.flush().expect("flushed");
        store.write([(&b"W1"[..], Some(&b"two"[..]))], b"applied 2").expect("written");
        let crashed = rows.crash();
        drop(store);

        let store = crashed.open("n1").expect("opens").shard(3, Generation::FIRST).expect("opens");
        assert_eq!(store.get(b"W1"), Ok(Some(b"one".to_vec())));
        assert_eq!(store.applied(), Ok(Some(b"applied 1".to_vec())));
        drop(store);
        let directory = scratch.directory.clone();
        assert!(directory.exists());
        scratch.remove().expect("removed");
        assert!(!directory.exists(), "nothing is left of a run");
    }
}
