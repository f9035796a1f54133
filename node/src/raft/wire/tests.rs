//! The messages keep their bytes, and no bytes whatever make a decoder panic.

use std::collections::BTreeSet;

use openraft::EntryPayload;
use openraft::entry::RaftEntry;

use super::super::types::{Command, Vote, log_id};
use super::*;

const ENVELOPE: Envelope =
    Envelope { cluster: *b"sixteen bytes id", group: GroupId(8), from: ReplicaId(1), to: ReplicaId(2) };

fn vote() -> Vote {
    Vote::new_committed(3, ReplicaId(1))
}

fn append() -> AppendEntriesRequest<TypeConfig> {
    let voters = BTreeSet::from([ReplicaId(1)]);
    let voters = openraft::Membership::new_with_defaults(vec![voters.clone()], voters);
    AppendEntriesRequest {
        vote: vote(),
        prev_log_id: Some(log_id(2, 6)),
        entries: vec![
            Entry::new(log_id(2, 7), EntryPayload::Normal(Command(Bytes::from_static(b"xyz")))),
            Entry::new(log_id(3, 8), EntryPayload::Blank),
            Entry::new(log_id(3, 9), EntryPayload::Membership(voters)),
        ],
        leader_commit: None,
    }
}

fn candidate() -> VoteRequest<TypeConfig> {
    VoteRequest::new(Vote::new(4, ReplicaId(2)), Some(log_id(3, 9)))
}

fn applied() -> Applied {
    Applied { last: Some(log_id(3, 9)), digest: 6, ..Applied::default() }
}

fn rows() -> Bytes {
    let mut rows = Vec::new();
    put_row(&mut rows, b"W1", b"one");
    put_row(&mut rows, b"X", b"");
    Bytes::from(rows)
}

/// One of each, with the bytes of its rpc and body.
#[rustfmt::skip]
fn requests() -> Vec<(Rpc, Vec<u8>)> {
    let transfer_vote = VoteRequest { leadership_transfer: true, ..candidate() };
    vec![
        (Rpc::Append(append()), vec![
            1, 3,0,0,0,0,0,0,0, 1,0,0,0,0,0,0,0, 1,
            1, 2,0,0,0,0,0,0,0, 6,0,0,0,0,0,0,0,
            0,
            3,0,0,0,
            2,0,0,0,0,0,0,0, 4,0,0,0, 1, b'x', b'y', b'z',
            3,0,0,0,0,0,0,0, 1,0,0,0, 0,
            3,0,0,0,0,0,0,0, 30,0,0,0, 2, 1, 1,0,0,0, 1,0,0,0, 1,0,0,0,0,0,0,0, 1,0,0,0, 1,0,0,0,0,0,0,0,
        ]),
        (Rpc::Vote(transfer_vote), vec![
            2, 4,0,0,0,0,0,0,0, 2,0,0,0,0,0,0,0, 0, 1, 3,0,0,0,0,0,0,0, 9,0,0,0,0,0,0,0, 1,
        ]),
        (Rpc::PreVote(candidate()), vec![
            3, 4,0,0,0,0,0,0,0, 2,0,0,0,0,0,0,0, 0, 1, 3,0,0,0,0,0,0,0, 9,0,0,0,0,0,0,0, 0,
        ]),
        (Rpc::Transfer(TransferLeaderRequest::new(vote(), ReplicaId(2), None)), vec![
            4, 3,0,0,0,0,0,0,0, 1,0,0,0,0,0,0,0, 1, 2,0,0,0,0,0,0,0, 0,
        ]),
        (Rpc::Snapshot(SessionId(5), Part::Begin { vote: vote(), applied: applied() }), vec![
            5, 5,0,0,0,0,0,0,0, 3,0,0,0,0,0,0,0, 1,0,0,0,0,0,0,0, 1,
            2, 1, 3,0,0,0,0,0,0,0, 9,0,0,0,0,0,0,0, 6,0,0,0,0,0,0,0, 0, 0, 1, 0,0,0,0, 0,0,0,0,
        ]),
        (Rpc::Snapshot(SessionId(5), Part::Chunk { number: 2, rows: rows() }), vec![
            6, 5,0,0,0,0,0,0,0, 2,0,0,0,
            2,0,0,0, 3,0,0,0, b'W', b'1', b'o', b'n', b'e', 1,0,0,0, 0,0,0,0, b'X',
        ]),
        (Rpc::Digest { at_most: 64 }, vec![8, 64,0,0,0,0,0,0,0]),
        (Rpc::Quarantine(Checkpoint { index: 64, digest: 7 }), vec![9, 64,0,0,0,0,0,0,0, 7,0,0,0,0,0,0,0]),
        (Rpc::Snapshot(SessionId(5), Part::End(Total { chunks: 3, rows: 7, crc: 9 })), vec![
            7, 5,0,0,0,0,0,0,0, 3,0,0,0, 7,0,0,0,0,0,0,0, 9,0,0,0,
        ]),
    ]
}

/// One of each, with the bytes of its kind and body.
#[rustfmt::skip]
fn answers() -> Vec<(Answer, Vec<u8>)> {
    let (expected, actual) = (Some(log_id(3, 9)), None);
    vec![
        (Answer::Append(Ok(None)), vec![1, 0]),
        (Answer::Append(Ok(Some(log_id(3, 9)))), vec![1, 1, 3,0,0,0,0,0,0,0, 9,0,0,0,0,0,0,0]),
        (Answer::Append(Err(StreamAppendError::Conflict(log_id(2, 6)))), vec![
            2, 2,0,0,0,0,0,0,0, 6,0,0,0,0,0,0,0,
        ]),
        (Answer::Append(Err(StreamAppendError::HigherVote(vote()))), vec![
            3, 3,0,0,0,0,0,0,0, 1,0,0,0,0,0,0,0, 1,
        ]),
        (Answer::Vote(VoteResponse::new(vote(), None, true)), vec![
            4, 3,0,0,0,0,0,0,0, 1,0,0,0,0,0,0,0, 1, 1, 0,
        ]),
        (Answer::Transfer(Ok(())), vec![5]),
        (Answer::Transfer(Err(TransferLeaderError::VoteChanged { expected: vote(), actual: vote() })), vec![
            6, 3,0,0,0,0,0,0,0, 1,0,0,0,0,0,0,0, 1, 3,0,0,0,0,0,0,0, 1,0,0,0,0,0,0,0, 1,
        ]),
        (Answer::Transfer(Err(TransferLeaderError::LogNotFlushed { expected, actual })), vec![
            7, 1, 3,0,0,0,0,0,0,0, 9,0,0,0,0,0,0,0, 0,
        ]),
        (Answer::Again, vec![8]),
        (Answer::GoesOn, vec![9]),
        (Answer::ClockAhead(Span(0x0201)), vec![11, 1,2,0,0,0,0,0,0]),
        (Answer::Digest(None), vec![12, 0]),
        (Answer::Digest(Some(Checkpoint { index: 64, digest: 7 })), vec![12, 1, 64,0,0,0,0,0,0,0, 7,0,0,0,0,0,0,0]),
        (Answer::Stops, vec![13]),
        (Answer::HasIt(vote()), vec![10, 3,0,0,0,0,0,0,0, 1,0,0,0,0,0,0,0, 1]),
    ]
}

fn with_crc(message: &[u8]) -> Bytes {
    seal(message.to_vec())
}

#[test]
fn requests_keep_their_bytes() {
    let mut head = vec![1];
    head.extend_from_slice(b"sixteen bytes id");
    head.extend_from_slice(&[8, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0]);
    for (rpc, body) in requests() {
        let bytes = encode_request(&ENVELOPE, &rpc);
        assert_eq!(bytes, with_crc(&[&head[..], &body].concat()), "{rpc:?}");
        let (envelope, decoded) = decode_request(&bytes).expect("decodes");
        assert_eq!((envelope, format!("{decoded:?}")), (ENVELOPE, format!("{rpc:?}")));
        assert_eq!(group_of(&bytes), Some(GroupId(8)));
    }
}

#[test]
fn answers_keep_their_bytes() {
    for (answer, body) in answers() {
        let bytes = encode_answer(&answer);
        assert_eq!(bytes, with_crc(&[&[1], &body[..]].concat()), "{answer:?}");
        assert_eq!(decode_answer(&bytes), Ok(answer));
    }
}

/// The checksum is crc32 (IEEE), as `123456789` tells.
#[test]
fn the_checksum_is_the_one_that_it_is_said_to_be() {
    assert_eq!(with_crc(b"123456789")[9..], 0xcbf4_3926_u32.to_le_bytes());
}

#[test]
fn whatever_is_damaged_or_cut_is_refused() {
    let requests = requests().into_iter().map(|(rpc, _)| encode_request(&ENVELOPE, &rpc));
    let answers = answers().into_iter().map(|(answer, _)| encode_answer(&answer));
    for message in requests.chain(answers) {
        for at in 0..message.len() {
            assert!(decode_request(&message.slice(..at)).is_err());
            assert!(decode_answer(&message[..at]).is_err());
            let mut damaged = message.to_vec();
            damaged[at] ^= 1 << (at % 8);
            assert!(decode_request(&Bytes::from(damaged.clone())).is_err());
            assert!(decode_answer(&damaged).is_err());
        }
    }
    assert_eq!((group_of(&[]), group_of(&[9; 21]), group_of(&[1; 20])), (None, None, None));
}

#[test]
fn nothing_that_carries_a_right_checksum_makes_a_decoder_panic() {
    let requests = requests().into_iter().map(|(rpc, _)| encode_request(&ENVELOPE, &rpc));
    let answers = answers().into_iter().map(|(answer, _)| encode_answer(&answer));
    for message in requests.chain(answers) {
        let content = &message[..message.len() - CRC_BYTES];
        for at in 0..content.len() {
            let _ = (decode_request(&with_crc(&content[..at])), decode_answer(&with_crc(&content[..at])));
            for value in [0, 1, 2, 0x7f, 0xff] {
                let mut changed = content.to_vec();
                changed[at] = value;
                let _ = (decode_request(&with_crc(&changed)), decode_answer(&with_crc(&changed)));
            }
        }
        let longer = with_crc(&[content, &[0]].concat());
        let of_a_chunk = matches!(decode_request(&longer), Ok((_, Rpc::Snapshot(_, Part::Chunk { .. }))));
        assert!((of_a_chunk || decode_request(&longer).is_err()) && decode_answer(&longer).is_err());
    }
    // More entries than there are bytes, and an index past the last one.
    let last = AppendEntriesRequest { prev_log_id: Some(log_id(2, u64::MAX)), ..append() };
    assert!(decode_request(&encode_request(&ENVELOPE, &Rpc::Append(last))).is_err());
}

#[test]
fn rows_come_out_of_a_chunk_as_they_went_in_or_not_at_all() {
    let read = |chunk: &[u8]| {
        let mut rows = Vec::new();
        let count = read_rows::<Undecodable>(chunk, |key, row| {
            rows.push((key.to_vec(), row.to_vec()));
            Ok(())
        });
        count.map(|count| (count, rows))
    };
    let expected = vec![(b"W1".to_vec(), b"one".to_vec()), (b"X".to_vec(), Vec::new())];
    assert_eq!(read(&rows()), Ok((2, expected)));
    assert_eq!(read(&[]), Ok((0, Vec::new())));
    // What ends in the middle of a row, or says that it is longer than it is.
    assert!(read(&rows()[..12]).is_err());
    assert!(read(&[0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0]).is_err());
}
