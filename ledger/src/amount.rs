//! Amounts, assets and the decimal text between them.
//!
//! Inside, an [`Amount`] is a whole number of the asset's smallest unit; on every surface it is a
//! decimal string in whole units. A [`Decimal`] is what a caller wrote, before the asset's scale is
//! known: the scale belongs to the wallet, which only `apply` reads. There is no floating point.

use std::fmt;

/// The largest number of decimal places that an asset may have.
pub const ASSET_SCALE_MAX: u8 = 18;
/// The longest asset code, in bytes.
pub const ASSET_CODE_BYTES_MAX: usize = 32;
/// The most significant digits in an amount: every number of so many digits fits in an `i128`.
const DIGITS_MAX: usize = 38;
/// Stands in for the units of a number that no `i128` holds: it is never an amount of any asset.
const TOO_BIG: i128 = -1;

/// A count of an asset's smallest unit. Negative only where a signed effect is meant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Amount(pub i128);

impl Amount {
    /// Nothing.
    pub const ZERO: Amount = Amount(0);

    /// Sum, or `None` on overflow.
    pub fn checked_add(self, other: Amount) -> Option<Amount> {
        self.0.checked_add(other.0).map(Amount)
    }

    /// Difference, or `None` on overflow.
    pub fn checked_sub(self, other: Amount) -> Option<Amount> {
        self.0.checked_sub(other.0).map(Amount)
    }

    /// The amount as decimal text with exactly `scale` decimal places.
    pub fn to_text(self, scale: u8) -> String {
        if scale == 0 {
            // Hardly any number needs more than 64 bits, and 128 are slow to write.
            return i64::try_from(self.0).map_or_else(|_| self.0.to_string(), |units| units.to_string());
        }
        let sign = if self.0 < 0 { "-" } else { "" };
        let digits = self.0.unsigned_abs().to_string();
        let scale = usize::from(scale);
        let padded = format!("{digits:0>width$}", width = scale + 1);
        let (whole, fraction) = padded.split_at(padded.len() - scale);
        format!("{sign}{whole}.{fraction}")
    }
}

/// An asset: a code and the number of decimal places. `credits/0` and `credits/2` are two assets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Asset<'a> {
    /// 1 to 32 bytes of `a-z A-Z 0-9 _ . -`.
    pub code: &'a str,
    /// Decimal places, 0 to 18.
    pub scale: u8,
}

impl fmt::Display for Asset<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.code, self.scale)
    }
}

/// Why a text or a decimal is not an amount of an asset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AmountError {
    /// Not digits with an optional fraction.
    #[error("write digits with an optional fraction, such as 12 or 12.5")]
    Malformed,
    /// More decimal places than the asset (or any asset) has.
    #[error("more decimal places than the asset has")]
    TooPrecise,
    /// Larger than the ledger can hold.
    #[error("larger than the ledger can hold")]
    Overflow,
}

/// A non-negative decimal number as a caller wrote it, in lowest terms: `units / 10^scale`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Decimal {
    units: i128,
    scale: u8,
}

impl Decimal {
    /// A decimal of `units / 10^scale`, reduced to lowest terms. `units` must not be negative.
    pub fn new(mut units: i128, mut scale: u8) -> Result<Decimal, AmountError> {
        if units < 0 {
            return Err(AmountError::Malformed);
        }
        while scale > 0 && units % 10 == 0 {
            units /= 10;
            scale -= 1;
        }
        if scale > ASSET_SCALE_MAX {
            return Err(AmountError::TooPrecise);
        }
        Ok(Decimal { units, scale })
    }

    /// Reads digits with an optional fraction: no sign, exponent, space or bare point. Trailing
    /// zeros of the fraction do not count. A number too big for any asset is read as such, and
    /// refused by [`Decimal::to_amount`], which can say first whether it is too precise.
    pub fn parse(text: &str) -> Result<Decimal, AmountError> {
        let (whole, fraction) = match text.split_once('.') {
            Some((_, "")) => return Err(AmountError::Malformed),
            Some((whole, fraction)) => (whole, fraction),
            None => (text, ""),
        };
        let all_digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
        if whole.is_empty() || !all_digits(whole) || !all_digits(fraction) {
            return Err(AmountError::Malformed);
        }
        let fraction = fraction.trim_end_matches('0');
        if fraction.len() > usize::from(ASSET_SCALE_MAX) {
            return Err(AmountError::TooPrecise);
        }
        let whole = whole.trim_start_matches('0');
        let scale = fraction.len() as u8;
        if whole.len() + fraction.len() > DIGITS_MAX {
            return Ok(Decimal { units: TOO_BIG, scale });
        }
        let units = whole
            .bytes()
            .chain(fraction.bytes())
            .fold(0i128, |units, digit| units * 10 + i128::from(digit - b'0'));
        Ok(Decimal { units, scale })
    }

    /// Whether this is zero.
    pub fn is_zero(self) -> bool {
        self.units == 0
    }

    /// The numerator and the number of decimal places, in lowest terms; for the encoder.
    pub(crate) fn parts(self) -> (i128, u8) {
        (self.units, self.scale)
    }

    /// The inverse of [`Decimal::parts`]; for the decoder.
    pub(crate) fn from_parts(units: i128, scale: u8) -> Option<Decimal> {
        let reduced = units == TOO_BIG || scale == 0 || units % 10 != 0;
        (units >= TOO_BIG && scale <= ASSET_SCALE_MAX && reduced).then_some(Decimal { units, scale })
    }

    /// This number in units of an asset with `scale` decimal places.
    pub fn to_amount(self, scale: u8) -> Result<Amount, AmountError> {
        let Some(shift) = scale.checked_sub(self.scale) else {
            return Err(AmountError::TooPrecise);
        };
        if self.units == TOO_BIG {
            return Err(AmountError::Overflow);
        }
        let factor = 10i128.pow(u32::from(shift));
        self.units.checked_mul(factor).map(Amount).ok_or(AmountError::Overflow)
    }
}

impl fmt::Display for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.units {
            TOO_BIG => f.write_str("a number too big for the ledger"),
            units => f.write_str(&Amount(units).to_text(self.scale)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_written_with_exactly_the_scale_of_their_asset() {
        assert_eq!(Amount(12_500_000).to_text(6), "12.500000");
        assert_eq!(Amount(-5).to_text(2), "-0.05");
        assert_eq!(Amount(7).to_text(0), "7");
        assert_eq!(Amount(-7).to_text(0), "-7");
        assert_eq!(Amount(i128::from(i64::MAX) + 1).to_text(0), "9223372036854775808");
        assert_eq!(Amount(i128::MIN).to_text(0), "-170141183460469231731687303715884105728");
    }

    #[test]
    fn what_a_caller_writes_is_read_exactly_or_refused_with_the_reason() {
        let at = |text: &str, scale| Decimal::parse(text).and_then(|d| d.to_amount(scale));
        assert_eq!(at("12.5", 6), Ok(Amount(12_500_000)));
        assert_eq!(at("12.500000000000000000000", 1), Ok(Amount(125)));
        assert_eq!(at("007", 0), Ok(Amount(7)));
        assert_eq!(at("0.000000000001", 12), Ok(Amount(1)));
        for malformed in ["", ".", "1.", ".5", "-1", "+1", "1e3", " 1", "1_000", "١", "1.2.3"] {
            assert_eq!(at(malformed, 2), Err(AmountError::Malformed), "{malformed:?}");
        }
        assert_eq!(at("0.005", 2), Err(AmountError::TooPrecise));
        assert_eq!(at("0.0000000000000000001", 18), Err(AmountError::TooPrecise));
        assert_eq!(at("170141183460469231731687303715884105728", 0), Err(AmountError::Overflow));
        assert_eq!(at("99999999999999999999999999999999999999", 0).map(|a| a.0 > 0), Ok(true));
        assert_eq!(at("99999999999999999999999999999999999999", 2), Err(AmountError::Overflow));
        let both = format!("{}.001", "9".repeat(60));
        assert_eq!(at(&both, 2), Err(AmountError::TooPrecise));
        assert_eq!(at(&both, 3), Err(AmountError::Overflow));
        let beyond_every_scale = format!("{}.0000000000000000001", "9".repeat(60));
        assert_eq!(at(&beyond_every_scale, 2), Err(AmountError::TooPrecise));
    }
}
