//! A customer: the directory of its wallets, and whether it is quarantined.

use crate::codec::{Damage, Reader, put_text, put_u64};
use crate::command::ChargeScope;
use crate::ids::WalletNo;

const VERSION: u8 = 1;

/// Most wallets of one customer: bounds the work of a debit by customer.
pub const WALLETS_PER_CUSTOMER_MAX: usize = 1_000;

/// A customer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CustomerRow {
    /// An invariant failed in one of its commands: no further command is taken.
    pub quarantined: bool,
    /// Its wallets in order of creation.
    pub wallets: Vec<WalletEntry>,
}

/// What a customer's row says of a wallet: enough to pass over those that do not fit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WalletEntry {
    /// The wallet's number.
    pub no: WalletNo,
    /// The wallet's id.
    pub wallet: String,
    /// Its asset's code.
    pub asset_code: String,
    /// Its asset's scale.
    pub asset_scale: u8,
    /// Lower is drawn on first.
    pub draw_priority: u16,
    /// Which charges it pays.
    pub scope: ChargeScope,
}

impl CustomerRow {
    /// The row.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION, u8::from(self.quarantined)];
        put_u64(&mut out, self.wallets.len() as u64);
        for entry in &self.wallets {
            put_u64(&mut out, entry.no.0);
            put_text(&mut out, &entry.wallet);
            put_text(&mut out, &entry.asset_code);
            out.push(entry.asset_scale);
            put_u64(&mut out, u64::from(entry.draw_priority));
            out.push(entry.scope.code());
        }
        out
    }

    /// Reads the row.
    pub fn decode(row: &[u8]) -> Result<CustomerRow, Damage> {
        let mut reader = Reader::new(row);
        if reader.byte("customer version")? != VERSION {
            return Err(Damage("customer version"));
        }
        let quarantined = reader.byte("quarantined")? != 0;
        let count: usize = reader.narrow("wallet count")?;
        if count > WALLETS_PER_CUSTOMER_MAX {
            return Err(Damage("wallet count"));
        }
        let mut wallets = Vec::with_capacity(count);
        for _ in 0..count {
            wallets.push(WalletEntry {
                no: WalletNo(reader.u64("wallet no")?),
                wallet: reader.text("wallet")?.to_owned(),
                asset_code: reader.text("asset code")?.to_owned(),
                asset_scale: reader.byte("asset scale")?,
                draw_priority: reader.narrow("draw_priority")?,
                scope: ChargeScope::from_code(reader.byte("scope")?)?,
            });
        }
        reader.finish("customer")?;
        Ok(CustomerRow { quarantined, wallets })
    }
}
