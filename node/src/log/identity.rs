//! Whose log a directory is: one small file, written last when a log is made.
//!
//! ```text
//! log.id     magic 8 "PURSLOG1" | format version 4 | length 4 | identity bytes | crc 4 over all
//! ```
//!
//! It is written last, by rename, after the first run is durable. So a directory with an identity
//! has had a run, and one without is either fresh, or half made, or not a log.

use super::disk::Disk;
use super::error::OpenError;
use super::run::FORMAT_VERSION;

/// The file's name.
pub(crate) const NAME: &str = "log.id";
/// Its name until it is whole.
pub(crate) const UNFINISHED: &str = "log.id.tmp";
/// Longer than any cluster and node id together.
pub(crate) const IDENTITY_BYTES_MAX: usize = 1024;

const MAGIC: &[u8; 8] = b"PURSLOG1";
const FIXED_BYTES: usize = 16;

pub(crate) fn encode(identity: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(FIXED_BYTES + identity.len() + 4);
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
    let length = u32::try_from(identity.len()).expect("checked by the options");
    bytes.extend_from_slice(&length.to_le_bytes());
    bytes.extend_from_slice(identity);
    let crc = crc32fast::hash(&bytes);
    bytes.extend_from_slice(&crc.to_le_bytes());
    bytes
}

pub(crate) fn decode(bytes: &[u8]) -> Result<Vec<u8>, OpenError> {
    let damaged = |why: &str| OpenError::DamagedIdentity(format!("{NAME} {why}"));
    let Some((covered, crc)) = bytes.split_last_chunk::<4>() else {
        return Err(damaged("is too short"));
    };
    if crc32fast::hash(covered) != u32::from_le_bytes(*crc) {
        return Err(damaged("has a wrong crc"));
    }
    let Some((fixed, identity)) = covered.split_first_chunk::<FIXED_BYTES>() else {
        return Err(damaged("is too short"));
    };
    let word = |at: usize| u32::from_le_bytes([fixed[at], fixed[at + 1], fixed[at + 2], fixed[at + 3]]);
    if &fixed[..8] != MAGIC {
        return Err(damaged("is of another kind"));
    }
    if word(8) > FORMAT_VERSION {
        return Err(OpenError::NewerFormat { found: word(8), supported: FORMAT_VERSION });
    }
    if word(12) as usize != identity.len() {
        return Err(damaged("has a wrong length"));
    }
    Ok(identity.to_vec())
}

/// Compares the directory's identity with the caller's.
pub(crate) fn check(disk: &dyn Disk, expected: &[u8]) -> Result<(), OpenError> {
    let doing = OpenError::io;
    let file = disk.open(NAME).map_err(doing("opening the identity file"))?;
    let length = file.length_bytes().map_err(doing("reading the identity file"))?;
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    if length > IDENTITY_BYTES_MAX + FIXED_BYTES + 4 {
        return Err(OpenError::DamagedIdentity(format!("{NAME} is too long")));
    }
    let mut bytes = vec![0; length];
    file.read_at(&mut bytes, 0).map_err(doing("reading the identity file"))?;
    let found = decode(&bytes)?;
    if found != expected {
        return Err(OpenError::OtherIdentity {
            found: found.escape_ascii().to_string(),
            expected: expected.escape_ascii().to_string(),
        });
    }
    Ok(())
}

/// Gives the directory its identity, durably.
pub(crate) fn establish(disk: &dyn Disk, identity: &[u8]) -> Result<(), OpenError> {
    let bytes = encode(identity);
    let write = || {
        let file = disk.create(UNFINISHED, bytes.len() as u64)?;
        file.write_at(&bytes, 0)?;
        file.sync_data()?;
        disk.rename(UNFINISHED, NAME)?;
        disk.sync_dir()
    };
    write().map_err(OpenError::io("writing the identity file"))
}
