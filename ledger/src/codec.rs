//! The bytes of rows and commands: little-endian fixed fields, varints, length-prefixed text.
//!
//! A varint is LEB128 over up to 128 bits. Reading never trusts a length: every failure is a
//! [`Damage`], which says what was being read. Formats carry a version in their first byte and have
//! golden-bytes tests beside them.

use crate::amount::Amount;

/// Bytes that do not decode: local damage of a row, or a command that no leader of ours encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("damaged bytes: cannot read {0}")]
pub struct Damage(pub &'static str);

/// Appends an unsigned varint.
pub fn put_u64(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends an unsigned varint of up to 128 bits.
pub fn put_u128(out: &mut Vec<u8>, mut value: u128) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends a signed amount, zigzag-coded so that small magnitudes are short.
pub fn put_amount(out: &mut Vec<u8>, amount: Amount) {
    let value = amount.0;
    put_u128(out, ((value << 1) ^ (value >> 127)) as u128);
}

/// Appends bytes behind their length.
pub fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_u64(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Appends text behind its length in bytes.
pub fn put_text(out: &mut Vec<u8>, text: &str) {
    put_bytes(out, text.as_bytes());
}

/// Reads what the `put_` functions wrote, from the front.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Begins at the front of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        Reader { rest: bytes }
    }

    /// What is not read yet.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Whether all was read; a row or command with bytes left over is damaged.
    pub fn finish(self, what: &'static str) -> Result<(), Damage> {
        if self.rest.is_empty() { Ok(()) } else { Err(Damage(what)) }
    }

    /// The next `count` bytes.
    pub fn take(&mut self, count: usize, what: &'static str) -> Result<&'a [u8], Damage> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or(Damage(what))?;
        self.rest = rest;
        Ok(taken)
    }

    /// The next `N` bytes as an array.
    pub fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], Damage> {
        let (taken, rest) = self.rest.split_first_chunk::<N>().ok_or(Damage(what))?;
        self.rest = rest;
        Ok(*taken)
    }

    /// One byte.
    pub fn byte(&mut self, what: &'static str) -> Result<u8, Damage> {
        let (&byte, rest) = self.rest.split_first().ok_or(Damage(what))?;
        self.rest = rest;
        Ok(byte)
    }

    /// A varint of up to 64 bits.
    pub fn u64(&mut self, what: &'static str) -> Result<u64, Damage> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte(what)?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return Err(Damage(what));
            }
            value |= bits << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(Damage(what))
    }

    /// A varint that must fit the narrower type asked for.
    pub fn narrow<T: TryFrom<u64>>(&mut self, what: &'static str) -> Result<T, Damage> {
        T::try_from(self.u64(what)?).map_err(|_| Damage(what))
    }

    /// A varint of up to 128 bits.
    pub fn u128(&mut self, what: &'static str) -> Result<u128, Damage> {
        let mut value = 0u128;
        for shift in (0..128).step_by(7) {
            let byte = self.byte(what)?;
            let bits = u128::from(byte & 0x7f);
            if shift == 126 && bits > 3 {
                return Err(Damage(what));
            }
            value |= bits << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(Damage(what))
    }

    /// A zigzag-coded amount.
    pub fn amount(&mut self, what: &'static str) -> Result<Amount, Damage> {
        let value = self.u128(what)?;
        Ok(Amount((value >> 1) as i128 ^ -((value & 1) as i128)))
    }

    /// Bytes behind their length.
    pub fn bytes(&mut self, what: &'static str) -> Result<&'a [u8], Damage> {
        let count = self.narrow(what)?;
        self.take(count, what)
    }

    /// UTF-8 text behind its length.
    pub fn text(&mut self, what: &'static str) -> Result<&'a str, Damage> {
        std::str::from_utf8(self.bytes(what)?).map_err(|_| Damage(what))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_number_reads_back_as_written(a: u64, b: u128, c: i128, text in ".{0,40}") {
            let mut bytes = Vec::new();
            put_u64(&mut bytes, a);
            put_u128(&mut bytes, b);
            put_amount(&mut bytes, Amount(c));
            put_text(&mut bytes, &text);
            let mut reader = Reader::new(&bytes);
            prop_assert_eq!(reader.u64("a"), Ok(a));
            prop_assert_eq!(reader.u128("b"), Ok(b));
            prop_assert_eq!(reader.amount("c"), Ok(Amount(c)));
            prop_assert_eq!(reader.text("text"), Ok(text.as_str()));
            prop_assert_eq!(reader.finish("end"), Ok(()));
        }

        #[test]
        fn reading_any_bytes_ends_in_a_value_or_a_damage(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            let mut reader = Reader::new(&bytes);
            while reader.u64("n").is_ok() && reader.amount("m").is_ok() && reader.text("t").is_ok() {}
        }
    }

    #[test]
    fn a_varint_longer_than_its_type_is_damage_not_a_wrong_number() {
        let mut eleven = vec![0xff; 10];
        eleven.push(0x01);
        assert_eq!(Reader::new(&eleven).u64("n"), Err(Damage("n")));
        let mut ten = vec![0xff; 9];
        ten.push(0x02);
        assert_eq!(Reader::new(&ten).u64("n"), Err(Damage("n")));
    }
}
