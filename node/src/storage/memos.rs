//! When memos (verdicts kept under idempotency keys) go: expired ones are dropped while the engine
//! compacts anyway.
//!
//! An expired memo reads as absent already, so that dropping it changes no answer. That holds only
//! as long as nobody judges at an earlier ledger time any more, and after a crash the Raft log is
//! applied again from the last flush on, at the times of then. So the *watermark* below which memos
//! go must follow the ledger time of what has been **flushed**, never that of what has been applied:
//! else a memo could be dropped, the crash take the shard back before its expiry, and a late
//! duplicate debit a second time.
//!
//! The margin of an hour below that time is for people who look into a shard, not for safety.

/// The first byte of the key of a memo.
pub const MEMO_TABLE: u8 = b'I';

/// How far the watermark stays behind the flushed ledger time, in microseconds: one hour.
pub(super) const MARGIN_US: u64 = 3_600_000_000;

/// Whether a row is a memo whose expiry lies before the watermark (microseconds of ledger time).
///
/// A memo's row begins with a version byte and the expiry, 8 bytes little-endian. A row that is too
/// short for that is kept: whoever reads it will find the damage.
pub fn is_expired_memo(key: &[u8], row: &[u8], watermark_us: u64) -> bool {
    if key.first() != Some(&MEMO_TABLE) {
        return false;
    }
    let expiry = row.get(1..).and_then(<[u8]>::first_chunk::<8>);
    expiry.is_some_and(|expiry| u64::from_le_bytes(*expiry) < watermark_us)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memo(expires_at_us: u64) -> Vec<u8> {
        let mut row = vec![1];
        row.extend_from_slice(&expires_at_us.to_le_bytes());
        row.extend_from_slice(b"fingerprint");
        row
    }

    #[test]
    fn a_memo_goes_once_its_expiry_lies_before_the_watermark() {
        assert!(is_expired_memo(b"I0123456789abcdef", &memo(999), 1_000));
        assert!(!is_expired_memo(b"I0123456789abcdef", &memo(1_000), 1_000));
    }

    #[test]
    fn rows_of_other_tables_and_broken_rows_stay() {
        assert!(!is_expired_memo(b"W0123456789abcdef", &memo(0), u64::MAX));
        assert!(!is_expired_memo(b"I0123456789abcdef", &[1, 0, 0], u64::MAX));
        assert!(!is_expired_memo(b"", &memo(0), u64::MAX));
    }
}
