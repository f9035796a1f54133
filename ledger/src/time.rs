//! Ledger time: microseconds since the Unix epoch.
//!
//! The core never reads a clock. A leader stamps each batch, `apply` makes the stamp monotonic per
//! shard, and every interval is half-open: `[from, until)`.

/// An instant of ledger time, in microseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(pub u64);

impl Time {
    /// The beginning of time: before every stamp.
    pub const ZERO: Time = Time(0);
    /// Never: later than every stamp. A tranche that does not expire has this as its expiry.
    pub const NEVER: Time = Time(u64::MAX);
    /// The latest instant that a caller may name: the end of year 9999. Keeps arithmetic far from
    /// [`Time::NEVER`] and every time printable as RFC 3339.
    pub const LATEST: Time = Time(253_402_300_799_999_999);

    /// This instant plus a span, stopping short of [`Time::NEVER`].
    pub fn saturating_add(self, span: Span) -> Time {
        Time(self.0.saturating_add(span.0).min(u64::MAX - 1))
    }
}

/// A length of time in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span(pub u64);

impl Span {
    /// A span of whole seconds.
    pub const fn from_secs(seconds: u64) -> Span {
        Span(seconds * 1_000_000)
    }
}
