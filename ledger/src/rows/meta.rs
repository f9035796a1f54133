//! The shard's own row: counters, ledger time, digest.

use crate::codec::{Damage, Reader, put_u64};
use crate::ids::{SHARD_TAG_BITS, WalletNo};
use crate::time::Time;

const VERSION: u8 = 3;

/// What a shard keeps of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Meta {
    /// Marks the ids that this shard allocates.
    pub shard_tag: u16,
    /// How many ids were allocated; the next one is this plus one.
    pub allocated: u64,
    /// The ledger time reached: no command is judged before it.
    pub last_time: Time,
    /// No wallet has anything due before this time that is not booked, but for quarantined ones.
    pub swept_until: Time,
    /// At that time, no wallet before this one has.
    pub swept_wallet: WalletNo,
    /// A rolling hash of every batch's changes: equal at equal index on every replica.
    pub digest: u128,
}

impl Meta {
    /// A shard in which nothing has happened.
    pub fn new(shard_tag: u16) -> Meta {
        Meta {
            shard_tag,
            allocated: 0,
            last_time: Time::ZERO,
            swept_until: Time::ZERO,
            swept_wallet: WalletNo(0),
            digest: 0,
        }
    }

    /// The next id.
    pub fn allocate(&mut self) -> u64 {
        self.allocated += 1;
        self.allocated << SHARD_TAG_BITS | u64::from(self.shard_tag)
    }

    /// The id that is allocated next.
    pub fn next(&self) -> u64 {
        (self.allocated + 1) << SHARD_TAG_BITS | u64::from(self.shard_tag)
    }

    /// The row.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        out.extend_from_slice(&self.shard_tag.to_le_bytes());
        put_u64(&mut out, self.allocated);
        put_u64(&mut out, self.last_time.0);
        put_u64(&mut out, self.swept_until.0);
        put_u64(&mut out, self.swept_wallet.0);
        out.extend_from_slice(&self.digest.to_le_bytes());
        out
    }

    /// Reads the row.
    pub fn decode(row: &[u8]) -> Result<Meta, Damage> {
        let mut reader = Reader::new(row);
        if reader.byte("meta version")? != VERSION {
            return Err(Damage("meta version"));
        }
        let meta = Meta {
            shard_tag: u16::from_le_bytes(reader.array("shard tag")?),
            allocated: reader.u64("allocated")?,
            last_time: Time(reader.u64("last_time")?),
            swept_until: Time(reader.u64("swept_until")?),
            swept_wallet: WalletNo(reader.u64("swept_wallet")?),
            digest: u128::from_le_bytes(reader.array("digest")?),
        };
        reader.finish("meta")?;
        Ok(meta)
    }
}
