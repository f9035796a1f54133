//! The shape of a request: what can be judged without state. Every field at fault is named, in one
//! answer; nothing is proposed.

use std::collections::BTreeMap;

use prost_types::Timestamp;
use purser_ledger::amount::{ASSET_CODE_BYTES_MAX, ASSET_SCALE_MAX, AmountError, Asset, Decimal};
use purser_ledger::command::{HOLD_TTL_MAX, REFUND_GRACE_MAX};
use purser_ledger::ids::{Customer, HoldId, ID_BYTES_MAX, KEY_BYTES_MAX, RecordId, TrancheId};
use purser_ledger::time::{Span, Time};
use purser_proto::v1;

/// Most pairs of metadata.
pub const METADATA_PAIRS_MAX: usize = 32;
/// Most bytes of metadata, names and values together.
pub const METADATA_BYTES_MAX: usize = 2_048;
/// Most features that one tranche may be limited to.
pub const FEATURES_MAX: usize = 32;
/// The highest priority number.
pub const PRIORITY_MAX: u32 = 1_000;
/// The priority of what does not say.
pub const PRIORITY_DEFAULT: u16 = 100;
/// The namespace of a request that names none.
pub const NAMESPACE_DEFAULT: &str = "default";

/// What sort of fault a field has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Malformed or missing.
    Invalid,
    /// Too long or too many.
    Limit,
    /// More digits than any asset has.
    Precision,
    /// More than the ledger can hold.
    Overflow,
}

/// One field at fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The field, as in the proto, with a place for repeated ones: `tranches[2].amount`.
    pub field: String,
    /// What is wrong and what would be right.
    pub description: String,
    /// What sort of fault.
    pub fault: Fault,
}

/// Gathers the faults of a request.
#[derive(Debug, Default)]
pub struct Shape {
    violations: Vec<Violation>,
}

impl Shape {
    /// No fault found yet.
    pub fn new() -> Shape {
        Shape::default()
    }

    /// The value, if no field is at fault.
    pub fn finish<T>(self, value: T) -> Result<T, Vec<Violation>> {
        if self.violations.is_empty() { Ok(value) } else { Err(self.violations) }
    }

    /// Notes a field at fault.
    pub fn fault(&mut self, field: impl Into<String>, fault: Fault, description: impl Into<String>) {
        self.violations.push(Violation { field: field.into(), description: description.into(), fault });
    }

    /// A field that must be well formed.
    pub fn invalid(&mut self, field: impl Into<String>, description: impl Into<String>) {
        self.fault(field, Fault::Invalid, description);
    }

    /// A text that must be there and not too long.
    pub fn required<'a>(&mut self, field: &str, text: &'a str, bytes_max: usize) -> &'a str {
        if text.is_empty() {
            self.invalid(field, format!("required: 1 to {bytes_max} bytes"));
        }
        self.optional(field, text, bytes_max)
    }

    /// A text that may be empty but not too long.
    pub fn optional<'a>(&mut self, field: &str, text: &'a str, bytes_max: usize) -> &'a str {
        if text.len() > bytes_max {
            let length = text.len();
            self.fault(field, Fault::Limit, format!("at most {bytes_max} bytes, not {length}"));
        }
        text
    }

    /// The namespace and customer of a request.
    pub fn customer<'a>(&mut self, namespace: &'a str, customer: &'a str) -> Customer<'a> {
        let namespace = if namespace.is_empty() { NAMESPACE_DEFAULT } else { namespace };
        Customer {
            namespace: self.optional("namespace", namespace, ID_BYTES_MAX),
            id: self.required("customer", customer, ID_BYTES_MAX),
        }
    }

    /// An idempotency key.
    pub fn key<'a>(&mut self, key: &'a str) -> &'a str {
        self.required("idempotency_key", key, KEY_BYTES_MAX)
    }

    /// An asset that must be there.
    pub fn asset<'a>(&mut self, field: &str, asset: Option<&'a v1::Asset>) -> Asset<'a> {
        let Some(asset) = asset else {
            self.invalid(field, "required: a code and a scale, such as credits/0");
            return Asset { code: "", scale: 0 };
        };
        let code = self.required(&format!("{field}.code"), &asset.code, ASSET_CODE_BYTES_MAX);
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
        if !code.bytes().all(allowed) {
            self.invalid(format!("{field}.code"), "only a-z, A-Z, 0-9, '_', '-' and '.'");
        }
        let scale = u8::try_from(asset.scale).unwrap_or(u8::MAX);
        if scale > ASSET_SCALE_MAX {
            self.invalid(format!("{field}.scale"), format!("0 to {ASSET_SCALE_MAX}, not {}", asset.scale));
        }
        Asset { code, scale }
    }

    /// How much time a hold is given.
    pub fn ttl(&mut self, field: &str, ttl: &prost_types::Duration) -> Span {
        self.span(field, ttl, HOLD_TTL_MAX, "24 hours")
    }

    /// How long what is refunded to an expired tranche may be spent.
    pub fn grace(&mut self, field: &str, grace: &prost_types::Duration) -> Span {
        self.span(field, grace, REFUND_GRACE_MAX, "366 days")
    }

    fn span(&mut self, field: &str, span: &prost_types::Duration, most: Span, told: &str) -> Span {
        match micros_of(span) {
            _ if span.seconds > most.0 as i64 / 1_000_000 => {
                self.fault(field, Fault::Limit, format!("at most {told}"));
                most
            }
            Some(micros) if micros > most.0 => {
                self.fault(field, Fault::Limit, format!("at most {told}"));
                most
            }
            Some(micros) if micros > 0 => Span(micros),
            _ => {
                self.invalid(field, format!("must be above zero, at most {told}"));
                most
            }
        }
    }

    /// The id of a hold.
    pub fn hold(&mut self, field: &str, text: &str) -> HoldId {
        self.id(field, HoldId::parse(text), "not a hold id: hld_ and 13 letters")
    }

    /// The id of a tranche.
    pub fn tranche(&mut self, field: &str, text: &str) -> TrancheId {
        self.id(field, TrancheId::parse(text), "not a tranche id: trn_ and 13 letters")
    }

    /// The id of a movement.
    pub fn movement(&mut self, field: &str, text: &str) -> RecordId {
        self.id(field, RecordId::parse(text), "not a movement id: mov_ and 13 letters")
    }

    fn id<T: Default>(&mut self, field: &str, id: Option<T>, wanted: &str) -> T {
        id.unwrap_or_else(|| {
            self.invalid(field, wanted);
            T::default()
        })
    }

    /// An amount above zero. One that is too big for any asset is left to the ledger, which knows
    /// first whether it is too precise for the wallet's.
    #[inline]
    pub fn amount(&mut self, field: &str, text: &str) -> Decimal {
        match self.amount_or_zero(field, text) {
            Some(amount) if amount.is_zero() => {
                self.invalid(field, "must be above zero");
                amount
            }
            amount => amount.unwrap_or_default(),
        }
    }

    /// An amount, if it is one.
    #[inline(always)] // Every debit has one.
    pub fn amount_or_zero(&mut self, field: &str, text: &str) -> Option<Decimal> {
        match Decimal::parse(text) {
            Ok(amount) => Some(amount),
            Err(error) => {
                let fault = match error {
                    AmountError::Malformed => Fault::Invalid,
                    AmountError::TooPrecise => Fault::Precision,
                    AmountError::Overflow => Fault::Overflow,
                };
                let shown: String = text.chars().take(48).collect();
                self.fault(field, fault, format!("{shown:?} is not an amount: {error}"));
                None
            }
        }
    }

    /// A priority of 0 to 1000, 100 where absent.
    pub fn priority(&mut self, field: &str, priority: Option<u32>) -> u16 {
        match priority {
            None => PRIORITY_DEFAULT,
            Some(value) if value <= PRIORITY_MAX => value as u16,
            Some(value) => {
                self.invalid(field, format!("0 to {PRIORITY_MAX}, not {value}"));
                PRIORITY_DEFAULT
            }
        }
    }

    /// A point in time; finer input than a microsecond is truncated.
    pub fn time(&mut self, field: &str, stamp: &Timestamp) -> Time {
        let micros = u64::try_from(stamp.seconds)
            .ok()
            .zip(u64::try_from(stamp.nanos).ok().filter(|nanos| *nanos < 1_000_000_000))
            .and_then(|(seconds, nanos)| seconds.checked_mul(1_000_000)?.checked_add(nanos / 1_000))
            .filter(|micros| *micros <= Time::LATEST.0);
        match micros {
            Some(micros) => Time(micros),
            None => {
                self.invalid(field, "a time from 1970 to 9999 is needed");
                Time::ZERO
            }
        }
    }

    /// Metadata, sorted by name.
    pub fn metadata<'a>(
        &mut self,
        field: &str,
        metadata: &'a BTreeMap<String, String>,
    ) -> Vec<(&'a str, &'a str)> {
        let pairs: Vec<_> = metadata.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let bytes: usize = pairs.iter().map(|(name, value)| name.len() + value.len()).sum();
        if pairs.len() > METADATA_PAIRS_MAX {
            self.fault(
                field,
                Fault::Limit,
                format!("at most {METADATA_PAIRS_MAX} pairs, not {}", pairs.len()),
            );
        }
        if bytes > METADATA_BYTES_MAX {
            self.fault(
                field,
                Fault::Limit,
                format!("at most {METADATA_BYTES_MAX} bytes in all, not {bytes}"),
            );
        }
        if pairs.first().is_some_and(|(name, _)| name.is_empty()) {
            self.invalid(field, "a name must not be empty");
        }
        pairs
    }
}

/// A length of time in microseconds; `None` for a negative one, or one that is too long.
pub fn micros_of(span: &prost_types::Duration) -> Option<u64> {
    let (seconds, nanos) = u64::try_from(span.seconds).ok().zip(u64::try_from(span.nanos).ok())?;
    seconds.checked_mul(1_000_000)?.checked_add(nanos / 1_000)
}

/// Ledger time as a protobuf timestamp.
pub fn timestamp(time: Time) -> Timestamp {
    // Both parts are in range: a time has at most 20 digits of microseconds.
    Timestamp { seconds: (time.0 / 1_000_000) as i64, nanos: (time.0 % 1_000_000 * 1_000) as i32 }
}

/// Ledger time as RFC 3339 text.
pub fn rfc3339(time: Time) -> String {
    i64::try_from(time.0)
        .ok()
        .and_then(|micros| jiff::Timestamp::from_microsecond(micros).ok())
        .map_or_else(|| format!("{} microseconds since 1970", time.0), |stamp| stamp.to_string())
}
