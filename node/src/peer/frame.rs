//! What goes over a connection between two nodes: frames, one behind the other. Fixed, little-endian.
//!
//! ```text
//! begin   "purser" | version 2       once, from each side
//! frame   length of the body 4 | crc32 4 (over all that follows) | call 8 | what 1 | body
//!
//! what
//! 1 hello     purser.peer.v1.Hello: the first frame of each side
//! 2 request
//! 3 answer    to the request with the same number
//! 4 refused   the same, in words; instead of a hello: why there is none
//! ```

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// What each side says before its first frame: what else arrives here is somebody who is lost.
pub(super) const BEGIN: &[u8; 8] = b"purser\x02\x00";
const HEADER_BYTES: usize = 4 + 4 + 8 + 1;
/// What the checksum does not cover: the length, and itself.
const UNCOVERED_BYTES: usize = 8;

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    Hello,
    Request,
    Answer,
    Refused,
}

impl What {
    const ALL: [What; 4] = [What::Hello, What::Request, What::Answer, What::Refused];

    fn byte(self) -> u8 {
        match self {
            What::Hello => 1,
            What::Request => 2,
            What::Answer => 3,
            What::Refused => 4,
        }
    }
}

/// One message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    /// The caller's number for a request, given back with its answer.
    pub call: u64,
    pub what: What,
    pub body: Bytes,
}

/// Bytes that are no frame: whoever sent them is not heard any more.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Damaged {
    #[error("a frame of {bytes} bytes, the most is {bytes_max}")]
    TooLong { bytes: usize, bytes_max: usize },
    #[error("a frame whose checksum is wrong")]
    Checksum,
    #[error("a frame of kind {0}, which this build does not know")]
    Unknown(u8),
}

/// Puts a frame at the end.
pub(super) fn put(out: &mut BytesMut, call: u64, what: What, body: &[u8]) {
    out.reserve(HEADER_BYTES + body.len());
    // Bodies are bounded far below it.
    out.put_u32_le(body.len() as u32);
    let at = out.len();
    out.put_u32_le(0);
    out.put_u64_le(call);
    out.put_u8(what.byte());
    out.put_slice(body);
    let crc = crc32fast::hash(&out[at + 4..]);
    out[at..at + 4].copy_from_slice(&crc.to_le_bytes());
}

/// Takes the first frame, if it is there whole. Its body is a copy: it does not keep what came with it.
pub(super) fn take(from: &mut BytesMut, body_bytes_max: usize) -> Result<Option<Frame>, Damaged> {
    let Some(mut header) = from.get(..HEADER_BYTES) else { return Ok(None) };
    let (bytes, crc) = (header.get_u32_le() as usize, header.get_u32_le());
    if bytes > body_bytes_max {
        return Err(Damaged::TooLong { bytes, bytes_max: body_bytes_max });
    }
    let (call, what) = (header.get_u64_le(), header.get_u8());
    let end = HEADER_BYTES + bytes;
    let Some(covered) = from.get(UNCOVERED_BYTES..end) else {
        from.reserve(end - from.len());
        return Ok(None);
    };
    if crc32fast::hash(covered) != crc {
        return Err(Damaged::Checksum);
    }
    let known = What::ALL.into_iter().find(|known| known.byte() == what);
    let what = known.ok_or(Damaged::Unknown(what))?;
    let body = Bytes::copy_from_slice(&from[HEADER_BYTES..end]);
    from.advance(end);
    Ok(Some(Frame { call, what, body }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn framed(frames: &[(u64, What, &[u8])]) -> BytesMut {
        let mut bytes = BytesMut::new();
        frames.iter().for_each(|(call, what, body)| put(&mut bytes, *call, *what, body));
        bytes
    }

    #[test]
    fn frames_come_out_as_they_were_put_in_however_they_are_cut() {
        let frames: [(u64, What, &[u8]); 4] = [
            (0, What::Hello, b"here I am"),
            (1, What::Request, b""),
            (u64::MAX, What::Answer, &[7; 300]),
            (2, What::Refused, b"no"),
        ];
        let whole = framed(&frames);
        for piece in [1, 2, 16, 17, 100, whole.len()] {
            let (mut arrived, mut taken) = (BytesMut::new(), Vec::new());
            for part in whole.chunks(piece) {
                arrived.put_slice(part);
                while let Some(frame) = take(&mut arrived, 300).expect("sound") {
                    taken.push((frame.call, frame.what, frame.body));
                }
            }
            let put: Vec<_> =
                frames.map(|(call, what, body)| (call, what, Bytes::copy_from_slice(body))).into();
            assert_eq!(taken, put, "in pieces of {piece}");
            assert!(arrived.is_empty());
        }
    }

    #[test]
    fn a_frame_is_laid_out_as_the_head_of_this_file_says() {
        let bytes = framed(&[(0x0102, What::Request, b"ab")]);
        let covered = [2, 1, 0, 0, 0, 0, 0, 0, 2, b'a', b'b'];
        let crc = crc32fast::hash(&covered).to_le_bytes();
        assert_eq!(bytes[..], [&[2, 0, 0, 0][..], &crc, &covered].concat());
    }

    #[test]
    fn any_bit_that_is_changed_is_found_out() {
        let whole = framed(&[(5, What::Answer, b"paid")]);
        for bit in 0..whole.len() * 8 {
            let mut bytes = whole.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            // One that became longer waits for its rest, until the other side is given up.
            assert!(!matches!(take(&mut bytes, 1 << 20), Ok(Some(_))), "bit {bit}");
        }
    }

    #[test]
    fn a_frame_that_is_too_long_is_refused_before_it_has_arrived() {
        let mut bytes = framed(&[(5, What::Request, &[0; 101])]);
        bytes.truncate(HEADER_BYTES);
        assert_eq!(take(&mut bytes, 100), Err(Damaged::TooLong { bytes: 101, bytes_max: 100 }));
    }

    #[test]
    fn a_kind_of_frame_of_a_later_build_is_named() {
        let mut bytes = framed(&[(5, What::Request, b"")]);
        bytes[HEADER_BYTES - 1] = 9;
        let crc = crc32fast::hash(&bytes[UNCOVERED_BYTES..]);
        bytes[4..8].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(take(&mut bytes, 100), Err(Damaged::Unknown(9)));
    }
}
