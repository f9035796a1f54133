//! What a message between nodes is about: its first byte.

use bytes::{BufMut, Bytes, BytesMut};

/// What a message is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Nothing but that the sender is there, and where: the connection told it.
    Hello,
    /// Raft's, for one replica of a group: see `raft::wire`.
    Raft,
    /// A call of the API, handed on to the node that can answer it: see `api::forward`.
    Call,
    /// A command for the meta group, for its leader.
    Meta,
    /// Asks for the cluster's map, if it is newer than an epoch: see `cluster::ask`.
    Map,
}

impl Kind {
    const ALL: [Kind; 5] = [Kind::Hello, Kind::Raft, Kind::Call, Kind::Meta, Kind::Map];

    fn byte(self) -> u8 {
        match self {
            Kind::Hello => 4,
            Kind::Raft => 1,
            Kind::Call => 2,
            Kind::Meta => 3,
            Kind::Map => 5,
        }
    }

    /// Puts the kind before a body.
    pub fn frame(self, body: &[u8]) -> Bytes {
        let mut message = BytesMut::with_capacity(1 + body.len());
        message.put_u8(self.byte());
        message.put_slice(body);
        message.freeze()
    }

    /// Takes a message apart; `None` if this build does not know its kind.
    pub fn parse(message: &Bytes) -> Option<(Kind, Bytes)> {
        let first = *message.first()?;
        let kind = Kind::ALL.into_iter().find(|kind| kind.byte() == first)?;
        Some((kind, message.slice(1..)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_begins_with_its_kind() {
        for kind in Kind::ALL {
            assert_eq!(Kind::parse(&kind.frame(b"body")), Some((kind, Bytes::from_static(b"body"))));
        }
        assert_eq!(Kind::parse(&Bytes::from_static(&[0, 1])), None);
        assert_eq!(Kind::parse(&Bytes::new()), None);
    }
}
