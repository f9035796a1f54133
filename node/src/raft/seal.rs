//! The end-to-end checksum of a command: made where it is proposed, checked where it is applied, on
//! every replica. What damages it on the way (memory, wire, disk) is found before it takes effect.
//!
//! ```text
//! sealed     crc32 4, little-endian, over the rest | the layer above's bytes
//! ```

use bytes::Bytes;

use super::codec::Undecodable;
use super::types::Command;

const CRC_BYTES: usize = 4;

/// Seals the bytes of a command.
pub(super) fn seal(command: &[u8]) -> Command {
    let mut sealed = Vec::with_capacity(CRC_BYTES + command.len());
    sealed.extend_from_slice(&crc32fast::hash(command).to_le_bytes());
    sealed.extend_from_slice(command);
    Command(Bytes::from(sealed))
}

/// The bytes of a command, if they are what was sealed.
pub(super) fn unseal(command: &Command) -> Result<&[u8], Undecodable> {
    let (crc, bytes) = command.0.split_first_chunk::<CRC_BYTES>().ok_or(Undecodable("a command's seal"))?;
    if crc32fast::hash(bytes) == u32::from_le_bytes(*crc) {
        Ok(bytes)
    } else {
        Err(Undecodable("a command: its checksum differs from the proposer's"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_that_changed_on_the_way_is_not_opened() {
        let sealed = seal(b"debit 5");
        assert_eq!(unseal(&sealed), Ok(&b"debit 5"[..]));
        let mut bytes = sealed.0.to_vec();
        bytes[9] ^= 1;
        assert!(unseal(&Command(bytes.into())).is_err());
        assert!(unseal(&Command(Bytes::from_static(b"abc"))).is_err());
    }
}
