//! Ledger times: microseconds since the epoch on the wire, RFC 3339 in UTC for people and programs.

use jiff::Timestamp;
use prost_types::Timestamp as ProtoTimestamp;

/// What is printed where a time is absent.
pub const NONE: &str = "-";

/// For a request.
pub fn to_proto(timestamp: Timestamp) -> ProtoTimestamp {
    // A protobuf timestamp counts its nanoseconds upwards, also before the epoch; jiff counts both
    // parts with one sign.
    let mut seconds = timestamp.as_second();
    let mut nanos = timestamp.subsec_nanosecond();
    if nanos < 0 {
        seconds -= 1;
        nanos += 1_000_000_000;
    }
    ProtoTimestamp { seconds, nanos }
}

/// From a response; `None` if it is no time that exists.
pub fn from_proto(timestamp: &ProtoTimestamp) -> Option<Timestamp> {
    Timestamp::new(timestamp.seconds, timestamp.nanos).ok()
}

/// RFC 3339 in UTC, with as many digits of the second as it needs.
pub fn rfc3339(timestamp: &ProtoTimestamp) -> String {
    match from_proto(timestamp) {
        Some(time) => time.to_string(),
        None => format!("({} s {} ns)", timestamp.seconds, timestamp.nanos),
    }
}

/// The same, or a dash.
pub fn or_none(timestamp: Option<&ProtoTimestamp>) -> String {
    timestamp.map_or_else(|| NONE.to_owned(), rfc3339)
}
