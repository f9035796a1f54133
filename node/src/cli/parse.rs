//! Flags to values. Each function is a clap value parser: the error is a sentence for a person, and
//! clap puts the flag's name before it. What only the server can judge is left to the server.

use std::time::Duration;

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Span, SpanRelativeTo, Timestamp};
use purser_proto::v1::{Asset, Money};

const ASSET_SCALE_MAX: u32 = 18;

/// `credits/0`: a code and a scale.
pub fn asset(text: &str) -> Result<Asset, String> {
    let hint = "an asset is code/scale, such as credits/0 or usd/6";
    let (code, scale) = text.split_once('/').ok_or(hint)?;
    let scale: u32 = scale.parse().map_err(|_| hint)?;
    if code.is_empty() {
        return Err(hint.to_owned());
    }
    if scale > ASSET_SCALE_MAX {
        return Err(format!("the scale is at most {ASSET_SCALE_MAX}"));
    }
    Ok(Asset { code: code.to_owned(), scale })
}

/// `12.5`: digits with an optional fraction. Kept as it was typed.
pub fn amount(text: &str) -> Result<String, String> {
    let (whole, fraction) = match text.split_once('.') {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (text, None),
    };
    let are_digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    if are_digits(whole) && fraction.is_none_or(are_digits) {
        return Ok(text.to_owned());
    }
    Err("an amount is digits with an optional fraction, such as 5 or 12.5".to_owned())
}

/// `100`, `-2.5`: an amount, with a `-` in front of it for down. Kept as it was typed.
pub fn signed_amount(text: &str) -> Result<String, String> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let hint =
        "a correction is digits with an optional fraction, and a leading - for down, such as 100 or -2.5";
    amount(digits).map_err(|_| hint)?;
    Ok(text.to_owned())
}

/// `49.00 USD`: what was paid, and in which currency.
pub fn money(text: &str) -> Result<Money, String> {
    let hint = "a cost is an amount and a currency, such as '49.00 USD'";
    let (paid, currency) = text.trim().split_once(' ').ok_or(hint)?;
    let currency = currency.trim();
    if currency.is_empty() || currency.contains(' ') {
        return Err(hint.to_owned());
    }
    Ok(Money { currency: currency.to_owned(), amount: amount(paid)? })
}

/// `team=search`: a pair of metadata. The value may hold further equals signs, and may be empty.
pub fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("a pair is name=value".to_owned()),
    }
}

/// `2026-12-01T00:00:00Z`, with any offset; or a date, which is midnight UTC.
pub fn instant(text: &str) -> Result<prost_types::Timestamp, String> {
    let timestamp = match text.parse::<Timestamp>() {
        Ok(timestamp) => timestamp,
        Err(_) => midnight_utc(text)?,
    };
    Ok(super::times::to_proto(timestamp))
}

fn midnight_utc(text: &str) -> Result<Timestamp, String> {
    let hint = "a time is RFC 3339, such as 2026-12-01T09:30:00+01:00, or a date (midnight UTC)";
    // `Date` also reads the date out of a date-time; a time without an offset is ambiguous, not a date.
    let is_bare_date = !text.contains(['T', 't', ' ', ':']);
    let date: Date = text.parse().ok().filter(|_| is_bare_date).ok_or(hint)?;
    let zoned = date.to_zoned(TimeZone::UTC).map_err(|_| hint)?;
    Ok(zoned.timestamp())
}

/// `P1M`, `30d`, `1 month 2 days`: a length of calendar time above zero.
pub fn calendar_span(text: &str) -> Result<Span, String> {
    let span: Span = text
        .parse()
        .map_err(|_| "a duration is ISO 8601 (P1M) or in words (30d, '1 month', 12h)".to_owned())?;
    if span.is_positive() { Ok(span) } else { Err("a duration is above zero".to_owned()) }
}

/// The same, in ISO 8601: what the server takes.
pub fn calendar_duration(text: &str) -> Result<String, String> {
    calendar_span(text).map(|span| span.to_string())
}

/// `10s`, `500ms`: how long to wait.
pub fn timeout(text: &str) -> Result<Duration, String> {
    let hint = "a time-out is above zero, such as 10s, 500ms or 1m";
    let duration: SignedDuration = text.parse().map_err(|_| hint)?;
    let duration = Duration::try_from(duration).map_err(|_| hint)?;
    if duration.is_zero() { Err(hint.to_owned()) } else { Ok(duration) }
}

/// `90s`, `5m`, `24h`: how long a hold lives.
pub fn ttl(text: &str) -> Result<prost_types::Duration, String> {
    let hint = "a time is above zero, such as 90s, 5m or 24h";
    let duration: SignedDuration = text.parse().map_err(|_| hint)?;
    positive(duration).ok_or_else(|| hint.to_owned())
}

/// `12h`, `7d`, `2w`: how long refunded credits live again. A day is 24 hours; months and years, which
/// have no fixed length, are refused.
pub fn grace(text: &str) -> Result<prost_types::Duration, String> {
    let hint = "a grace is above zero, such as 12h, 7d or 2w; a day is 24 hours";
    let span: Span = text.parse().map_err(|_| hint)?;
    let duration = span.to_duration(SpanRelativeTo::days_are_24_hours()).map_err(|_| hint)?;
    positive(duration).ok_or_else(|| hint.to_owned())
}

fn positive(duration: SignedDuration) -> Option<prost_types::Duration> {
    let (seconds, nanos) = (duration.as_secs(), duration.subsec_nanos());
    duration.is_positive().then_some(prost_types::Duration { seconds, nanos })
}

/// A server's address; `http://` may be left out.
pub fn server_url(text: &str) -> Result<String, String> {
    match text.split_once("://") {
        None => Ok(format!("http://{text}")),
        Some(("http", _)) => Ok(text.to_owned()),
        Some((scheme, _)) => Err(format!("--server {text}: this build speaks http:// only, not {scheme}://")),
    }
}
