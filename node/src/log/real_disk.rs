//! The `Disk` of production: one directory of a Linux file system.
//!
//! Why zeros are written and not only reserved: a reserved block that was never written costs the
//! file system a journal commit at its first sync, which doubles the time of a small append. So
//! `create` reserves the space (a full disk shows here and not later), and the segment set writes
//! the zeros in steps.
//!
//! Why writes go past the page cache: what the log writes it hardly ever reads again, and a page of the
//! cache is dearer than the write itself (it has to be found, cleared, filled, marked, written back).
//! Whole blocks are written with `O_DIRECT | O_DSYNC`, durable when the call returns. Where a file system
//! does not take that, they go through the cache, and `sync_data` brings them to the disk.

use super::disk::{DirLock, Disk, DiskFile};
use super::run::BLOCK_BYTES;
use rustix::fs::{FallocateFlags, OFlags, RenameFlags, fallocate, renameat_with, statvfs};
use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// A directory on a real file system.
#[derive(Debug)]
pub struct RealDisk {
    directory: PathBuf,
    handle: File,
    aligned: Aligned,
}

/// Where what is written is put first, for all files: at an address that is a multiple of the block.
type Aligned = Arc<Mutex<Vec<u8>>>;

impl RealDisk {
    /// Opens the directory, making it (and its parents) if it is not there yet.
    pub fn open(directory: impl AsRef<Path>) -> io::Result<RealDisk> {
        let directory = directory.as_ref().to_path_buf();
        if !directory.is_dir() {
            std::fs::create_dir_all(&directory)?;
            if let Some(parent) = directory.parent().filter(|p| !p.as_os_str().is_empty()) {
                File::open(parent)?.sync_all()?;
            }
        }
        let handle = File::open(&directory)?;
        Ok(RealDisk { directory, handle, aligned: Aligned::default() })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }
}

struct RealLock(File);

impl DirLock for RealLock {}

impl Drop for RealLock {
    fn drop(&mut self) {
        // Closing the handle unlocks as well; an error here has no one to go to.
        let _ = self.0.unlock();
    }
}

impl Disk for RealDisk {
    fn lock(&self) -> io::Result<Box<dyn DirLock>> {
        // The lock sits on the directory itself, so that a refused open leaves no file behind.
        let handle = File::open(&self.directory)?;
        match handle.try_lock() {
            Ok(()) => Ok(Box::new(RealLock(handle))),
            Err(TryLockError::WouldBlock) => Err(io::ErrorKind::WouldBlock.into()),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    fn list(&self) -> io::Result<Vec<String>> {
        std::fs::read_dir(&self.directory)?
            .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
            .collect()
    }

    fn create(&self, name: &str, bytes: u64) -> io::Result<Arc<dyn DiskFile>> {
        let path = self.path(name);
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path)?;
        let reserved = match fallocate(&file, FallocateFlags::empty(), 0, bytes) {
            // A file system that cannot reserve still gives the length; a full disk then shows at
            // the write, which the log survives as well.
            Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => file.set_len(bytes),
            other => other.map_err(io::Error::from),
        };
        if let Err(error) = reserved.and_then(|()| file.sync_all()) {
            let _ = std::fs::remove_file(&path);
            return Err(error);
        }
        Ok(Arc::new(RealFile::new(file, &path, &self.aligned)))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let path = self.path(name);
        let file = OpenOptions::new().read(true).write(true).open(&path)?;
        Ok(Arc::new(RealFile::new(file, &path, &self.aligned)))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        match renameat_with(&self.handle, from, &self.handle, to, RenameFlags::NOREPLACE) {
            // A file system that cannot refuse by itself: nobody else is in the directory.
            Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => {
                if self.path(to).try_exists()? {
                    return Err(io::ErrorKind::AlreadyExists.into());
                }
                std::fs::rename(self.path(from), self.path(to))
            }
            done => done.map_err(io::Error::from),
        }
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        std::fs::remove_file(self.path(name))
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.handle.sync_all()
    }

    fn free_bytes(&self) -> io::Result<u64> {
        let stat = statvfs(&self.directory)?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }
}

struct RealFile {
    file: File,
    /// The same file, past the page cache.
    direct: Option<Direct>,
    /// Whether anything was written through the cache since the last sync.
    unsynced: AtomicBool,
}

struct Direct {
    file: File,
    aligned: Aligned,
}

impl RealFile {
    fn new(file: File, path: &Path, aligned: &Aligned) -> RealFile {
        let flags = (OFlags::DIRECT | OFlags::DSYNC).bits() as i32;
        let direct = OpenOptions::new().write(true).custom_flags(flags).open(path).ok();
        let direct = direct.map(|file| Direct { file, aligned: Arc::clone(aligned) });
        // What an earlier process wrote through the cache may still be there.
        RealFile { file, direct, unsynced: AtomicBool::new(true) }
    }
}

impl Direct {
    /// Writes whole blocks; `false` if the file system does not take them this way.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<bool> {
        let block = BLOCK_BYTES as u64;
        if !offset.is_multiple_of(block) || !(bytes.len() as u64).is_multiple_of(block) {
            return Ok(false);
        }
        let mut aligned = self.aligned.lock().unwrap_or_else(PoisonError::into_inner);
        let size = bytes.len() + BLOCK_BYTES;
        if aligned.len() < size {
            aligned.resize(size, 0);
        }
        let begin = aligned.as_ptr().align_offset(BLOCK_BYTES);
        let Some(place) = aligned.get_mut(begin..begin + bytes.len()) else { return Ok(false) };
        place.copy_from_slice(bytes);
        match self.file.write_all_at(place, offset) {
            Ok(()) => Ok(true),
            // Blocks of this file system are larger, or its files are never written this way.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(false),
            Err(error) => Err(error),
        }
    }
}

impl DiskFile for RealFile {
    fn length_bytes(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_exact_at(buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        if let Some(direct) = &self.direct
            && direct.write_at(bytes, offset)?
        {
            return Ok(());
        }
        self.unsynced.store(true, Ordering::Release);
        self.file.write_all_at(bytes, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        // Before the sync: what is written while it runs needs another one.
        if self.unsynced.swap(false, Ordering::AcqRel) {
            self.file.sync_data().inspect_err(|_| self.unsynced.store(true, Ordering::Release))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_blocks_and_parts_of_them_are_read_back_whichever_way_they_were_written() {
        let directory = tempfile::tempdir().expect("a directory");
        let disk = RealDisk::open(directory.path()).expect("opens");
        let file = disk.create("file", 4 * BLOCK_BYTES as u64).expect("made");
        file.write_at(&[1; 2 * BLOCK_BYTES], 0).expect("written");
        file.write_at(&[2; 3], 5).expect("written");
        file.sync_data().expect("durable");
        file.write_at(&[3; BLOCK_BYTES], BLOCK_BYTES as u64).expect("written");
        file.sync_data().expect("durable");
        let mut read = vec![9; 3 * BLOCK_BYTES];
        disk.open("file").expect("opens").read_at(&mut read, 0).expect("read");
        let mut expected = [vec![1; BLOCK_BYTES], vec![3; BLOCK_BYTES], vec![0; BLOCK_BYTES]].concat();
        expected[5..8].fill(2);
        assert!(read == expected);
    }
}
