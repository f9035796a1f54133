//! Messages between replicas, as a rule of the switchboard meets them: looked into, and forged.

use bytes::Bytes;
use purser_node::peer::message::Kind;

/// What is asked, as its byte on the wire tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    Append,
    Transfer,
    Begin,
    Chunk,
    End,
    Other(u8),
}

/// What a message asks for.
pub fn asked(message: &Bytes) -> Asked {
    // The kind of message 1, version 1, cluster 16, group 4, from 8, to 8.
    match message[38] {
        1 => Asked::Append,
        4 => Asked::Transfer,
        5 => Asked::Begin,
        6 => Asked::Chunk,
        7 => Asked::End,
        other => Asked::Other(other),
    }
}

/// A message with something of its body changed, under a checksum that is right: as if the sender
/// had meant it.
pub fn forged(message: &Bytes, change: impl FnOnce(&mut Vec<u8>)) -> Bytes {
    let (_, body) = Kind::parse(message).expect("a message");
    let mut body = body.to_vec();
    body.truncate(body.len() - 4);
    change(&mut body);
    let crc = crc32fast::hash(&body);
    body.extend_from_slice(&crc.to_le_bytes());
    Kind::Raft.frame(&body)
}
