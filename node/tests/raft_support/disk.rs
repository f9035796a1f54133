//! A disk of real files that is full when it is told to be.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use purser_node::log::{DirLock, Disk, DiskFile, RealDisk};

/// Real files. While it is full no file is made; what was made before is written all the same.
pub struct FillingDisk {
    pub disk: RealDisk,
    pub full: Arc<AtomicBool>,
}

impl FillingDisk {
    fn is_full(&self) -> bool {
        self.full.load(Ordering::Relaxed)
    }
}

impl Disk for FillingDisk {
    fn lock(&self) -> io::Result<Box<dyn DirLock>> {
        self.disk.lock()
    }

    fn list(&self) -> io::Result<Vec<String>> {
        self.disk.list()
    }

    fn create(&self, name: &str, bytes: u64) -> io::Result<Arc<dyn DiskFile>> {
        match self.is_full() {
            true => Err(io::ErrorKind::StorageFull.into()),
            false => self.disk.create(name, bytes),
        }
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        self.disk.open(name)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.disk.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.disk.remove(name)
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.disk.sync_dir()
    }

    fn free_bytes(&self) -> io::Result<u64> {
        if self.is_full() { Ok(0) } else { self.disk.free_bytes() }
    }
}
