//! Identities: those that callers choose are text, those that the ledger allocates are numbers.
//!
//! Everything that a shard allocates (wallets, tranches, holds, movements, operations) takes the next
//! number of one counter, shifted left by 16 bits, with the allocating shard's tag below. So an id
//! is unique over the cluster, sorts by creation within its shard, and keeps its meaning should the
//! shard be split later. Shown to callers it is 13 letters of base 32 behind a prefix, of fixed
//! width, so that the text sorts as the number does.

use std::fmt;

/// The longest id that a caller may choose, in bytes.
pub const ID_BYTES_MAX: usize = 128;
/// The longest idempotency key, in bytes.
pub const KEY_BYTES_MAX: usize = 255;

/// Bits of an allocated id that hold the tag of the allocating shard.
pub const SHARD_TAG_BITS: u32 = 16;

/// Crockford's alphabet in lower case: digits sort before letters, no letter looks like a digit.
const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
/// Letters that a 64-bit number takes in base 32.
const LETTERS: usize = 13;

fn encode(prefix: &str, number: u64, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let mut text = [0u8; LETTERS];
    for (place, letter) in text.iter_mut().rev().enumerate() {
        *letter = ALPHABET[(number >> (5 * place)) as usize & 31];
    }
    f.write_str(prefix)?;
    // The alphabet is ASCII.
    f.write_str(std::str::from_utf8(&text).map_err(|_| fmt::Error)?)
}

fn decode(prefix: &str, text: &str) -> Option<u64> {
    let letters = text.strip_prefix(prefix)?.as_bytes();
    if letters.len() != LETTERS {
        return None;
    }
    letters.iter().try_fold(0u64, |number, letter| {
        let digit = ALPHABET.iter().position(|known| known == letter)? as u64;
        number.checked_mul(32).map(|shifted| shifted | digit)
    })
}

macro_rules! allocated_id {
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub u64);

        impl $name {
            /// Reads the text form; `None` where it is not one.
            pub fn parse(text: &str) -> Option<Self> {
                decode($prefix, text).map(Self)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                encode($prefix, self.0, f)
            }
        }
    };
}

allocated_id!(
    /// A wallet's number: what its rows are keyed by. Its name is the caller's, this is ours.
    WalletNo,
    "wal_"
);
allocated_id!(
    /// A tranche.
    TrancheId,
    "trn_"
);
allocated_id!(
    /// A hold.
    HoldId,
    "hld_"
);
allocated_id!(
    /// A record of the shard's journal: a movement or a life-cycle record.
    RecordId,
    "mov_"
);
allocated_id!(
    /// One applied command: the id of the first record that it wrote.
    OperationId,
    "op_"
);

impl RecordId {
    /// No record: what the first movement of a wallet points back to.
    pub const NONE: RecordId = RecordId(0);

    /// The record that the same shard wrote `steps` after this one, within one command.
    pub fn following(self, steps: u64) -> RecordId {
        RecordId(self.0 + (steps << SHARD_TAG_BITS))
    }
}

impl HoldId {
    /// The movement that placed the hold's part `part`, counted from 0: those of its parts are the records
    /// that were allocated right behind the hold. `None` for what cannot be a hold's id.
    pub fn placed_by(self, part: u64) -> Option<RecordId> {
        let steps = part.checked_add(1)?.checked_mul(1 << SHARD_TAG_BITS)?;
        self.0.checked_add(steps).map(RecordId)
    }
}

/// Whose wallets: a customer of a namespace. What is hashed to a shard, and the scope of an
/// idempotency key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Customer<'a> {
    /// The namespace, 1 to 128 bytes.
    pub namespace: &'a str,
    /// The customer's id, chosen by the caller, 1 to 128 bytes, opaque and exact.
    pub id: &'a str,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_of_an_id_sorts_as_its_number_and_reads_back() {
        let numbers = [0, 1, 31, 32, 65_535, 1 << 40, u64::MAX];
        let texts: Vec<String> = numbers.iter().map(|&n| TrancheId(n).to_string()).collect();
        assert_eq!(texts[2], "trn_000000000000z");
        assert_eq!(texts[6], "trn_fzzzzzzzzzzzz");
        assert!(texts.is_sorted());
        for (number, text) in numbers.iter().zip(&texts) {
            assert_eq!(TrancheId::parse(text), Some(TrancheId(*number)));
        }
    }

    #[test]
    fn a_text_that_is_not_an_id_of_that_kind_is_refused() {
        for text in
            ["", "trn_", "trn_00000000000", "mov_0000000000000", "trn_gzzzzzzzzzzzz", "trn_000000000000Z"]
        {
            assert_eq!(TrancheId::parse(text), None, "{text:?}");
        }
    }
}
