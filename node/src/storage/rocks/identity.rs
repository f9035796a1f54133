//! Whose state a directory is, and the lock that keeps two processes off it.
//!
//! ```text
//! store.id     magic 8 "PURSROW1" | format version 4 | length 4 | identity bytes | crc 4 over all
//! store.lock   empty; locked while a process has the directory
//! rocksdb/     the rows
//! ```
//!
//! The identity is written before there is a row, by rename, and synced. So rows without an
//! identity are not ours to adopt, and an identity without rows is a store that has none yet.
//! Everything is checked before anything is changed.

use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::path::Path;

use crate::storage::error::OpenError;

/// The newest layout of the directory that this program reads.
pub(super) const FORMAT_VERSION: u32 = 1;
/// Where the rows are.
pub(super) const ROWS: &str = "rocksdb";

const MAGIC: &[u8; 8] = b"PURSROW1";
const IDENTITY: &str = "store.id";
const UNFINISHED: &str = "store.id.tmp";
const LOCK: &str = "store.lock";
const FIXED_BYTES: usize = 16;
/// Longer than any cluster and node id together.
const IDENTITY_BYTES_MAX: usize = 1024;

/// Checks a directory, or makes it, and takes it for this process until the file is dropped.
pub(super) fn claim(directory: &Path, identity: &[u8]) -> Result<File, OpenError> {
    if identity.is_empty() || identity.len() > IDENTITY_BYTES_MAX {
        return Err(OpenError::Options("the identity must have 1 to 1024 bytes"));
    }
    let is_new = check(directory, identity)?;
    fs::create_dir_all(directory).map_err(OpenError::io("creating the directory"))?;
    let lock = lock(directory)?;
    if is_new {
        // Between the check and the lock another process may have been here.
        if check(directory, identity)? {
            write(directory, identity).map_err(OpenError::io("writing the identity"))?;
        }
    }
    Ok(lock)
}

/// True if the directory is new: absent, empty, or left by a process that stopped before it had an
/// identity.
fn check(directory: &Path, identity: &[u8]) -> Result<bool, OpenError> {
    let names = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
        Err(error) => return Err(OpenError::io("listing the directory")(error)),
        Ok(entries) => entries
            .map(|entry| entry.map(|entry| entry.file_name().to_string_lossy().into_owned()))
            .collect::<io::Result<Vec<String>>>()
            .map_err(OpenError::io("listing the directory"))?,
    };
    if !names.iter().any(|name| name == IDENTITY) {
        let foreign: Vec<String> =
            names.into_iter().filter(|name| name != UNFINISHED && name != LOCK).collect();
        return if foreign.is_empty() { Ok(true) } else { Err(OpenError::NotAStore(foreign)) };
    }
    let bytes = fs::read(directory.join(IDENTITY)).map_err(OpenError::io("reading the identity"))?;
    let found = decode(&bytes)?;
    if found != identity {
        return Err(OpenError::OtherIdentity {
            found: found.escape_ascii().to_string(),
            expected: identity.escape_ascii().to_string(),
        });
    }
    Ok(false)
}

fn lock(directory: &Path) -> Result<File, OpenError> {
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(directory.join(LOCK))
        .map_err(OpenError::io("opening the lock"))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(OpenError::InUse),
        Err(TryLockError::Error(error)) => Err(OpenError::io("locking the directory")(error)),
    }
}

fn write(directory: &Path, identity: &[u8]) -> io::Result<()> {
    let unfinished = directory.join(UNFINISHED);
    let mut file = File::create(&unfinished)?;
    file.write_all(&encode(identity))?;
    file.sync_all()?;
    fs::rename(unfinished, directory.join(IDENTITY))?;
    File::open(directory)?.sync_all()?;
    match directory.canonicalize()?.parent() {
        Some(parent) => File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}

fn encode(identity: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(FIXED_BYTES + identity.len() + 4);
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
    bytes.extend_from_slice(&(identity.len() as u32).to_le_bytes());
    bytes.extend_from_slice(identity);
    bytes.extend_from_slice(&crc32fast::hash(&bytes).to_le_bytes());
    bytes
}

fn decode(bytes: &[u8]) -> Result<&[u8], OpenError> {
    let damaged = |why: &str| OpenError::DamagedIdentity(format!("{IDENTITY} {why}"));
    let Some((covered, crc)) = bytes.split_last_chunk::<4>() else {
        return Err(damaged("is too short"));
    };
    if crc32fast::hash(covered) != u32::from_le_bytes(*crc) {
        return Err(damaged("has a wrong crc"));
    }
    let Some((fixed, identity)) = covered.split_first_chunk::<FIXED_BYTES>() else {
        return Err(damaged("is too short"));
    };
    if !fixed.starts_with(MAGIC) {
        return Err(damaged("is of another kind"));
    }
    let word = |at: usize| u32::from_le_bytes([fixed[at], fixed[at + 1], fixed[at + 2], fixed[at + 3]]);
    if word(8) > FORMAT_VERSION {
        return Err(OpenError::NewerFormat { found: word(8), supported: FORMAT_VERSION });
    }
    if word(12) as usize != identity.len() {
        return Err(damaged("has a wrong length"));
    }
    Ok(identity)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_identity_file_keeps_its_bytes() {
        let golden = b"PURSROW1\x01\0\0\0\x03\0\0\0c/n";
        let bytes = encode(b"c/n");
        assert_eq!(bytes.split_last_chunk::<4>().map(|(covered, _)| covered), Some(&golden[..]));
        assert_eq!(decode(&bytes).ok(), Some(&b"c/n"[..]));
    }

    #[test]
    fn a_flipped_bit_in_the_identity_is_noticed() {
        let mut bytes = encode(b"c/n");
        bytes[17] ^= 1;
        assert!(matches!(decode(&bytes), Err(OpenError::DamagedIdentity(_))));
    }
}
