//! What the meta group says, in bytes: JSON, which whoever looks into a cluster can read, under a
//! checksum.
//!
//! ```text
//!   crc32 4, little-endian, over the rest | {"version":1, …}
//! ```

use bytes::Bytes;
use purser_ledger::codec::Damage;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The bytes of something.
pub(super) fn seal(what: &impl Serialize) -> Bytes {
    let json = to_json(what);
    Bytes::from([&crc32fast::hash(&json).to_le_bytes()[..], &json].concat())
}

/// What such bytes hold, if they arrived as they were sent and this build can read it.
pub(super) fn open<T: DeserializeOwned>(bytes: &[u8], what: &'static str) -> Result<T, Damage> {
    let (crc, json) = bytes.split_first_chunk::<4>().ok_or(Damage(what))?;
    if crc32fast::hash(json) != u32::from_le_bytes(*crc) {
        tracing::error!(what, "its checksum differs");
        return Err(Damage(what));
    }
    from_json(json, what)
}

pub(super) fn to_json(what: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(what).expect("structs of numbers, strings and lists are JSON")
}

pub(super) fn from_json<T: DeserializeOwned>(json: &[u8], what: &'static str) -> Result<T, Damage> {
    serde_json::from_slice(json).map_err(|error| {
        tracing::error!(what, %error, "cannot be read");
        Damage(what)
    })
}
