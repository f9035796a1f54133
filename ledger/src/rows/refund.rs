//! What was given back of a movement, draw by draw: no draw gives back more than it took.

use crate::amount::Amount;
use crate::codec::{Damage, Reader, put_u64, put_u128};

const VERSION: u8 = 1;

/// What was given back of each draw of a movement, in the order of its draws.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RefundRow(pub Vec<Amount>);

impl RefundRow {
    /// The row.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        put_u64(&mut out, self.0.len() as u64);
        self.0.iter().for_each(|amount| put_u128(&mut out, amount.0 as u128));
        out
    }

    /// Reads the row.
    pub fn decode(row: &[u8]) -> Result<RefundRow, Damage> {
        let mut reader = Reader::new(row);
        if reader.byte("refund version")? != VERSION {
            return Err(Damage("refund version"));
        }
        let count: usize = reader.narrow("refunded draws")?;
        let mut amounts = Vec::with_capacity(count.min(1_024));
        for _ in 0..count {
            let amount = i128::try_from(reader.u128("refunded")?).map_err(|_| Damage("refunded"))?;
            amounts.push(Amount(amount));
        }
        reader.finish("refund")?;
        Ok(RefundRow(amounts))
    }
}
