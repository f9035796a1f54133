//! The bytes on disk: pinned, and safe to read whatever they are.

#[path = "log_support/mod.rs"]
mod support;

use bytes::Bytes;
use purser_node::log::run::{
    DecodeError, decode_header, decode_record, decode_records, decode_trailer, salt_of,
};
use purser_node::log::{Disk, GroupId, Op, SimDisk, Slot};
use support::{Choices, Hand, append, bulk, entry, purge, put, small_options, truncate, vote};

const FIRST: &str = "00000000000000000001.seg";
const BLOCK: usize = 4096;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Worked out from the drawing in `run.rs` by an encoder in another language.
const HEADER_AND_BODY: &str = "\
    5055525352554e31010000000400000001000000000000000010000000100000\
    020000000000000001000000000000000010000060000000c8000000a6b0bb30\
    010000000000000006000000082ed4c301000000020000000300000002010000\
    5bf789dc05000000010000000100000000000000000000000700000000000000\
    68656c6c6faca3bf190000000001000000010000000100000000000000080000\
    0000000000311144920000000002000000010000000100000000000000000000\
    0000000000aae6694f0100000004010000020000000000000000000000000000\
    0000000000764cda4d4c02000000030000000201000009000000000000000000\
    0000000000006d395bc1fac70000000005000000030000000000000000000000\
    0000000000000000";
const TRAILER: &str = "\
    0100000002000000030000000201000050555253454e44310100000004000000\
    0100000000000000001000000010000002000000000000000100000000000000\
    0010000060000000c8000000a6b0bb3001000000000000000600000066f4d7be";
const IDENTITY: &str = "505552534c4f4731010000000900000074657374206e6f64658b813c04";

#[test]
fn a_run_and_the_identity_have_these_bytes() {
    let mut hand = Hand::small(&SimDisk::new());
    hand.write(vec![
        Op::Append { group: GroupId(1), entries: vec![entry(0, 7, "hello"), entry(1, 8, "")] },
        truncate(GroupId(1), 1),
        put(GroupId(2), Slot::Vote, "v"),
        Op::Purge { group: GroupId(258), upto_index: 9, mark: Bytes::from("m9") },
        Op::Forget { group: GroupId(3) },
    ]);
    let segment = hand.disk.contents(FIRST).unwrap();
    let run = &segment[BLOCK..2 * BLOCK];
    let (head, rest) = run.split_at(HEADER_AND_BODY.len() / 2);
    let (padding, tail) = rest.split_at(rest.len() - TRAILER.len() / 2);
    assert_eq!(hex(head), HEADER_AND_BODY);
    assert!(padding.iter().all(|byte| *byte == 0));
    assert_eq!(hex(tail), TRAILER);
    assert_eq!(hex(&hand.disk.contents("log.id").unwrap()), IDENTITY);
    // The fixed sizes of the drawing.
    assert_eq!((HEADER_AND_BODY.len() / 2, TRAILER.len() / 2), (96 + 200, 96));
}

#[test]
fn a_run_of_another_version_is_told_from_damage() {
    let hand = Hand::small(&SimDisk::new());
    let mut run = hand.disk.contents(FIRST).unwrap();
    run[8] = 2;
    let salt = salt_of(b"test node");
    let mut crc = crc32fast::Hasher::new_with_initial(salt);
    crc.update(&run[..76]);
    run[76..80].copy_from_slice(&crc.finalize().to_le_bytes());
    assert_eq!(decode_header(salt, &run), Err(DecodeError::NewerFormat(2)));
    assert!(matches!(decode_header(salt + 1, &run), Err(DecodeError::Damaged(_))), "another log's run");
}

/// Everything that reads bytes from disk, over any bytes.
fn decode_all(salt: u32, input: &[u8]) {
    let bytes = Bytes::copy_from_slice(input);
    for header in [decode_header(salt, input), decode_trailer(salt, input)].into_iter().flatten() {
        if let Ok(records) = decode_records(&header, &bytes) {
            assert_eq!(records.len(), header.record_count as usize);
        }
    }
    if let Ok((_, length)) = decode_record(&bytes) {
        assert!(length <= input.len());
    }
}

fn sample() -> Hand {
    let mut hand = Hand::small(&SimDisk::new());
    let group = GroupId(7);
    hand.write(vec![append(group, 0, 9), vote(group, "v")]);
    hand.write(vec![bulk(group, 9, 6000), purge(group, 3), truncate(group, 8)]);
    hand.write(vec![append(GroupId(8), 0, 3), Op::Forget { group }]);
    hand.rest();
    hand
}

/// Changes some bytes, or the length, or copies a piece elsewhere.
fn mutate(bytes: &mut Vec<u8>, choices: &mut Choices) {
    for _ in 0..1 + choices.below(4) {
        let length = bytes.len() as u64;
        if length == 0 {
            return;
        }
        let at = usize::try_from(choices.below(length)).unwrap();
        match choices.below(5) {
            0 => bytes[at] ^= 1 << choices.below(8),
            1 => bytes[at] = [0, 1, 0x7f, 0xff][usize::try_from(choices.below(4)).unwrap()],
            2 => bytes.truncate(at),
            3 => {
                let count = usize::try_from(choices.below(64)).unwrap().min(bytes.len() - at);
                let to = usize::try_from(choices.below(length)).unwrap().min(bytes.len() - count);
                bytes.copy_within(at..at + count, to);
            }
            _ => {
                let to = (at + 4).min(bytes.len());
                bytes[at..to].fill(0xff);
            }
        }
    }
}

/// Makes the crcs right again, so that what lies behind them is reached.
fn repair(salt: u32, run: &mut [u8]) {
    if run.len() < 80 {
        return;
    }
    let word = |run: &[u8], at: usize| u32::from_le_bytes([run[at], run[at + 1], run[at + 2], run[at + 3]]);
    let (start, count) = (word(run, 52) as usize, word(run, 56) as usize);
    if let Some(body) = start.checked_add(count).and_then(|end| run.get(start..end)) {
        let crc = crc32fast::hash(body);
        run[60..64].copy_from_slice(&crc.to_le_bytes());
    }
    let groups = (word(run, 12) as usize).saturating_mul(4);
    if let Some(end) = groups.checked_add(80).filter(|end| *end <= run.len()) {
        let mut crc = crc32fast::Hasher::new_with_initial(salt);
        crc.update(&run[..76]);
        crc.update(&run[80..end]);
        run[76..80].copy_from_slice(&crc.finalize().to_le_bytes());
    }
}

#[test]
fn no_bytes_make_the_decoder_panic() {
    let salt = salt_of(b"test node");
    let segment = sample().disk.contents(FIRST).unwrap();
    let mut choices = Choices(1);
    for round in 0..60_000_u64 {
        let from = usize::try_from(choices.below(6)).unwrap() * BLOCK;
        let mut input = segment[from..from + 2 * BLOCK].to_vec();
        mutate(&mut input, &mut choices);
        if round % 2 == 0 {
            repair(salt, &mut input);
        }
        decode_all(salt, &input);
        // And from inside: records begin anywhere.
        let at = usize::try_from(choices.below(300)).unwrap().min(input.len());
        decode_all(salt, &input[at..]);
    }
}

#[test]
fn no_bytes_in_a_segment_make_a_restart_panic() {
    let hand = sample();
    let segment = hand.disk.contents(FIRST).unwrap();
    let salt = salt_of(b"test node");
    let mut choices = Choices(2);
    for round in 0..4_000_u64 {
        let disk = hand.disk.duplicate();
        let block = usize::try_from(choices.below(6)).unwrap() * BLOCK;
        let mut bytes = segment[block..].to_vec();
        mutate(&mut bytes, &mut choices);
        bytes.resize(segment.len() - block, 0);
        if round % 2 == 0 {
            repair(salt, &mut bytes);
        }
        let file = disk.open(FIRST).unwrap();
        file.write_at(&bytes, block as u64).unwrap();
        file.sync_data().unwrap();
        let Ok(mut hand) = Hand::open(&disk, small_options()) else { continue };
        hand.log.submit(vec![vote(GroupId(99), "still works")], Box::new(|_| {})).unwrap();
        hand.settle();
    }
}
