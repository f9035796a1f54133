//! The disk that the log stands on, as a trait, so that the simulation can tear and lose writes.
//!
//! All calls block. A `Disk` is bound to one directory and knows file names only, no paths.
//!
//! What an implementation must keep:
//! - what `write_at` wrote is read back at once, and is durable only after `sync_data` returned;
//! - a file's length is durable once `create` returned; its directory entry is not;
//! - directory changes (`create`, `rename`, `remove`) are durable only after `sync_dir` returned;
//! - `rename` replaces nothing half: after a crash the old name or the new one is there.

use std::io;
use std::sync::Arc;

/// Held while the directory is ours; dropping it lets go.
pub trait DirLock: Send + Sync {}

/// One directory of files.
pub trait Disk: Send + Sync {
    /// Takes the directory for this process, or fails with `WouldBlock`.
    fn lock(&self) -> io::Result<Box<dyn DirLock>>;
    /// The names of all files, in no particular order.
    fn list(&self) -> io::Result<Vec<String>>;
    /// Creates a file of `bytes` zeros with all its space reserved. It must not exist.
    fn create(&self, name: &str, bytes: u64) -> io::Result<Arc<dyn DiskFile>>;
    /// Opens an existing file for reading and writing.
    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>>;
    /// Gives a file another name. The new name must not exist.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a name. Handles that are open go on working.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Makes the directory's own changes durable.
    fn sync_dir(&self) -> io::Result<()>;
    /// Bytes that could still be allocated.
    fn free_bytes(&self) -> io::Result<u64>;
}

/// One open file.
pub trait DiskFile: Send + Sync {
    /// Its length in bytes.
    fn length_bytes(&self) -> io::Result<u64>;
    /// Fills `buffer` from `offset`, or fails.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;
    /// Writes all of `bytes` at `offset`, or fails after any part of it.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Makes everything written durable.
    fn sync_data(&self) -> io::Result<()>;
}
