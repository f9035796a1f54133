//! Batches: the commands of one log entry, in one frame.
//!
//! A batch is one log entry (all integers are varints unless said otherwise):
//! ```text
//! version u8 = 1 | stamp u64 LE | count | count x ( kind u8 | length | command ) | xxh3-64 of all before, LE
//! ```
//! The version alone selects the behaviour of apply. The hash is checked by every replica before it
//! applies: it spans the way from the leader's encoder through network and disk.

use super::Command;
use super::wire::{decode_command, encode_command};
use crate::codec::{Damage, Reader, put_bytes, put_u64};
use crate::time::Time;

/// The version of batches that this code writes, and the newest that it reads.
pub const BATCH_VERSION: u8 = 1;

/// Most commands in one batch: bounds the time of one apply and the size of one log entry.
pub const BATCH_COMMANDS_MAX: usize = 8_192;

const KIND_COMMAND: u8 = 1;
const KIND_SWEEP: u8 = 2;

/// One item of a batch, decoded.
// Nearly all items are commands: a box would cost each of them an allocation to spare the sweeps.
#[allow(clippy::large_enum_variant)]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item<'a> {
    /// A caller's command, with the bytes that its fingerprint is taken over.
    Command {
        /// The command.
        command: Command<'a>,
        /// Its canonical body.
        body: &'a [u8],
    },
    /// The shard's own: book what is due, wallet by wallet in the order of what is due first in each,
    /// in up to `limit` steps. A step is an item booked, or a look in vain.
    Sweep {
        /// Most steps.
        limit: u32,
    },
}

/// Builds a batch, command by command.
#[derive(Debug, Default)]
pub struct BatchEncoder {
    commands: Vec<u8>,
    count: usize,
    scratch: Vec<u8>,
}

impl BatchEncoder {
    /// An empty batch.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many items are in it.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Bytes so far, without the frame.
    pub fn bytes(&self) -> usize {
        self.commands.len()
    }

    /// Adds a caller's command.
    pub fn push(&mut self, command: &Command<'_>) {
        self.scratch.clear();
        encode_command(&mut self.scratch, command);
        self.commands.push(KIND_COMMAND);
        put_bytes(&mut self.commands, &self.scratch);
        self.count += 1;
    }

    /// Adds a command that [`encode_command`] wrote.
    pub fn push_encoded(&mut self, command: &[u8]) {
        self.commands.push(KIND_COMMAND);
        put_bytes(&mut self.commands, command);
        self.count += 1;
    }

    /// Adds a sweep.
    pub fn push_sweep(&mut self, limit: u32) {
        self.scratch.clear();
        put_u64(&mut self.scratch, u64::from(limit));
        self.commands.push(KIND_SWEEP);
        put_bytes(&mut self.commands, &self.scratch);
        self.count += 1;
    }

    /// The finished batch, stamped with the leader's clock; the encoder is empty again.
    pub fn finish(&mut self, stamp: Time) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.commands.len() + 32);
        out.push(BATCH_VERSION);
        out.extend_from_slice(&stamp.0.to_le_bytes());
        put_u64(&mut out, self.count as u64);
        out.extend_from_slice(&self.commands);
        let hash = xxhash_rust::xxh3::xxh3_64(&out);
        out.extend_from_slice(&hash.to_le_bytes());
        self.commands.clear();
        self.count = 0;
        out
    }
}

/// A batch, decoded: its stamp and its items.
#[derive(Debug)]
pub struct Batch<'a> {
    /// The leader's clock when it was formed.
    pub stamp: Time,
    /// Its items in order.
    pub items: Vec<Item<'a>>,
}

impl<'a> Batch<'a> {
    /// The stamp of a batch, read from its head alone: nothing is checked but the version.
    pub fn peek_stamp(bytes: &[u8]) -> Option<Time> {
        let (version, rest) = bytes.split_first()?;
        let stamp = rest.first_chunk::<8>().filter(|_| *version == BATCH_VERSION)?;
        Some(Time(u64::from_le_bytes(*stamp)))
    }

    /// Checks the hash and decodes.
    pub fn decode(bytes: &'a [u8]) -> Result<Batch<'a>, Damage> {
        let (content, hash) = bytes.split_last_chunk::<8>().ok_or(Damage("batch"))?;
        if xxhash_rust::xxh3::xxh3_64(content) != u64::from_le_bytes(*hash) {
            return Err(Damage("batch: its hash differs"));
        }
        let mut reader = Reader::new(content);
        if reader.byte("batch version")? != BATCH_VERSION {
            return Err(Damage("batch: a version that this build does not know"));
        }
        let stamp = Time(u64::from_le_bytes(reader.array("batch stamp")?));
        let count: usize = reader.narrow("batch count")?;
        if count > BATCH_COMMANDS_MAX {
            return Err(Damage("batch count"));
        }
        let mut items = Vec::with_capacity(count);
        for _ in 0..count {
            let kind = reader.byte("command kind")?;
            let bytes = reader.bytes("command")?;
            items.push(match kind {
                KIND_COMMAND => decode_command(bytes)?,
                KIND_SWEEP => {
                    let mut inner = Reader::new(bytes);
                    let limit = inner.narrow("sweep limit")?;
                    inner.finish("sweep")?;
                    Item::Sweep { limit }
                }
                _ => return Err(Damage("command kind")),
            });
        }
        reader.finish("batch")?;
        Ok(Batch { stamp, items })
    }
}
