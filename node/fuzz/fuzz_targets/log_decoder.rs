//! Any bytes as a segment, a run, a header, a trailer, a record: decoding must not panic, must not
//! read outside, and what it accepts must be what an encoder writes.
//!
//! With probability one half (the first bit of the input) the crcs are made right before decoding,
//! so that the fuzzer gets behind them.
#![no_main]
#![allow(dead_code)]

// By path: the log's sources without the crate around them.
#[path = "../../src/log/index.rs"]
mod index;
#[path = "../../src/log/recovery.rs"]
mod recovery;
#[path = "../../src/log/run.rs"]
mod run;
#[path = "../../src/log/types.rs"]
mod types;

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use run::{BLOCK_BYTES, HEADER_BYTES, Record, RecordParts, RunBuilder, RunHeader};

const SALT: u32 = 0x5EED;

fuzz_target!(|input: &[u8]| {
    let Some((switch, input)) = input.split_first() else { return };
    let mut input = input.to_vec();
    if switch & 1 == 1 {
        repair(&mut input);
    }
    let bytes = Bytes::from(input);
    for header in [run::decode_header(SALT, &bytes), run::decode_trailer(SALT, &bytes)].into_iter().flatten()
    {
        if let Ok(records) = run::decode_records(&header, &bytes) {
            let records: Vec<Record> = records.into_iter().map(|(_, record)| record).collect();
            check_again(&header, &records);
        }
    }
    if let Ok((_, length)) = run::decode_record(&bytes) {
        assert!(length <= bytes.len());
    }
    let mut segment = bytes.to_vec();
    segment.resize(segment.len().next_multiple_of(BLOCK_BYTES), 0);
    let segment = Bytes::from(segment);
    let _ = recovery::replay(SALT, &[1, 2], &mut |_| Ok(segment.clone()));
});

/// Encodes the records anew and decodes them: the same records come out.
fn check_again(header: &RunHeader, records: &[Record]) {
    let mut builder = RunBuilder::start(Vec::new(), header.groups.len() + records.len());
    for record in records {
        match record {
            Record::Entry { group, entry } => {
                builder.push(RecordParts::entry(*group, entry));
            }
            Record::Change(op) => RecordParts::of(op).for_each(|parts| {
                builder.push(parts);
            }),
            // Its text may have been mended on reading.
            Record::Damaged { .. } => return,
        }
    }
    let (sealed, bytes) =
        builder.seal(SALT, header.at, header.sequence, header.synced_upto, header.oldest_segment);
    let again = run::decode_header(SALT, &bytes).expect("a fresh run has a good header");
    assert_eq!(again, sealed);
    assert_eq!(run::decode_trailer(SALT, &bytes).as_ref(), Ok(&sealed));
    let decoded = run::decode_records(&again, &Bytes::from(bytes)).expect("and good records");
    assert!(decoded.iter().map(|(_, record)| record).eq(records));
}

/// Makes the crcs of the first run right, as far as its lengths allow.
fn repair(bytes: &mut [u8]) {
    if bytes.len() < HEADER_BYTES {
        return;
    }
    bytes[..8].copy_from_slice(b"PURSRUN1");
    bytes[8..12].copy_from_slice(&1_u32.to_le_bytes());
    let word = |bytes: &[u8], at: usize| {
        u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]) as usize
    };
    let (start, length) = (word(bytes, 52), word(bytes, 56));
    if let Some(end) = start.checked_add(length).filter(|end| *end <= bytes.len()) {
        let mut at = start;
        while let Some(payload) = (at + 8 <= end).then(|| word(bytes, at + 4)) {
            let Some(next) = at.checked_add(32 + payload).filter(|next| *next <= end) else { break };
            let crc = crc32fast::hash(&bytes[at + 4..next]);
            bytes[at..at + 4].copy_from_slice(&crc.to_le_bytes());
            at = next;
        }
        let crc = crc32fast::hash(&bytes[start..end]);
        bytes[60..64].copy_from_slice(&crc.to_le_bytes());
    }
    let Some(groups) = word(bytes, 12).checked_mul(4).and_then(|n| bytes.get(80..80 + n)) else { return };
    let mut crc = crc32fast::Hasher::new_with_initial(SALT);
    crc.update(&bytes[..76]);
    crc.update(groups);
    let crc = crc.finalize();
    bytes[76..80].copy_from_slice(&crc.to_le_bytes());
}
