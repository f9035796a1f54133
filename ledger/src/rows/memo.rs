//! A memo: the verdict given under an idempotency key, for as long as it is remembered.
//!
//! An applied command's answer stands in the journal already; the memo points there, and keeps only
//! what the journal does not tell. A denial is kept whole. The row begins with its version and its
//! expiry in fixed places, so that a store may drop expired memos without knowing the rest.

use crate::amount::Amount;
use crate::codec::{Damage, Reader, put_amount, put_text, put_u64};
use crate::ids::{HoldId, OperationId};
use crate::rows::hold::HoldState;
use crate::time::Time;
use crate::verdict::{Balance, Denial, Reason, Shortage, WalletBalance};

const VERSION: u8 = 1;
const APPLIED: u8 = 1;
const APPLIED_DEBIT: u8 = 2;
const DENIED: u8 = 3;
const APPLIED_HOLD: u8 = 4;

/// A remembered verdict.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Memo {
    /// Forgotten at this ledger time, whether collected or not.
    pub expires_at: Time,
    /// A hash of the request's canonical body.
    pub fingerprint: [u8; 16],
    /// The verdict.
    pub outcome: Outcome,
}

/// What is remembered of a verdict.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Applied: its records in the journal follow one another from the operation's.
    Applied {
        /// The operation.
        operation: OperationId,
        /// How many records it wrote.
        records: u64,
        /// For what spends, what the same debit could still draw.
        remaining: Option<Amount>,
        /// The hold after it, for what is about one; then `remaining` is there too.
        hold: Option<Box<HoldMemo>>,
        /// Wallets that it could have drawn on and did not: place in draw order, balance.
        bystanders: Vec<(u64, WalletBalance)>,
    },
    /// Denied.
    Denied(Denial),
}

/// What is remembered besides of an answer about a hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HoldMemo {
    /// The hold.
    pub id: HoldId,
    /// The hold after the command.
    pub state: HoldState,
    /// The places of the wallets that its movements name, in the order of the movements; empty where that
    /// is the draw order.
    pub places: Vec<u64>,
}

impl Memo {
    /// The row.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(40);
        out.push(VERSION);
        out.extend_from_slice(&self.expires_at.0.to_le_bytes());
        out.extend_from_slice(&self.fingerprint);
        match &self.outcome {
            Outcome::Applied { operation, records, remaining, hold, bystanders } => {
                out.push(match (remaining, hold) {
                    (_, Some(_)) => APPLIED_HOLD,
                    (Some(_), None) => APPLIED_DEBIT,
                    (None, None) => APPLIED,
                });
                put_u64(&mut out, operation.0);
                put_u64(&mut out, *records);
                if remaining.is_some() || hold.is_some() {
                    put_amount(&mut out, remaining.unwrap_or_default());
                }
                if let Some(hold) = hold {
                    put_u64(&mut out, hold.id.0);
                    hold.state.encode(&mut out);
                    put_u64(&mut out, hold.places.len() as u64);
                    hold.places.iter().for_each(|place| put_u64(&mut out, *place));
                }
                put_u64(&mut out, bystanders.len() as u64);
                for (place, own) in bystanders {
                    put_u64(&mut out, *place);
                    put_text(&mut out, &own.wallet);
                    put_text(&mut out, &own.asset_code);
                    out.push(own.asset_scale);
                    put_balance(&mut out, &own.balance);
                }
            }
            Outcome::Denied(denial) => {
                out.push(DENIED);
                out.push(denial.reason as u8);
                match denial.shortage {
                    None => out.push(0),
                    Some(shortage) => {
                        out.push(1);
                        put_amount(&mut out, shortage.available);
                        put_amount(&mut out, shortage.required);
                        out.push(shortage.scale);
                    }
                }
            }
        }
        out
    }

    /// Reads the row.
    pub fn decode(row: &[u8]) -> Result<Memo, Damage> {
        let mut reader = Reader::new(row);
        if reader.byte("memo version")? != VERSION {
            return Err(Damage("memo version"));
        }
        let expires_at = Time(u64::from_le_bytes(reader.array("memo expiry")?));
        let fingerprint = reader.array("fingerprint")?;
        let outcome = match reader.byte("memo outcome")? {
            tag @ (APPLIED | APPLIED_DEBIT | APPLIED_HOLD) => {
                let operation = OperationId(reader.u64("operation")?);
                let records = reader.u64("records")?;
                let remaining = match tag {
                    APPLIED => None,
                    _ => Some(reader.amount("remaining")?),
                };
                let hold = match tag {
                    APPLIED_HOLD => Some(Box::new(hold_memo(&mut reader)?)),
                    _ => None,
                };
                let count: usize = reader.narrow("bystanders")?;
                let mut bystanders = Vec::with_capacity(count.min(64));
                for _ in 0..count {
                    let place = reader.u64("bystander")?;
                    let own = WalletBalance {
                        wallet: reader.text("bystander")?.to_owned(),
                        asset_code: reader.text("bystander")?.into(),
                        asset_scale: reader.byte("bystander")?,
                        balance: balance(&mut reader)?,
                    };
                    bystanders.push((place, own));
                }
                Outcome::Applied { operation, records, remaining, hold, bystanders }
            }
            DENIED => {
                let reason = Reason::from_code(reader.byte("reason")?).ok_or(Damage("reason"))?;
                let shortage = match reader.byte("shortage")? {
                    0 => None,
                    1 => Some(Shortage {
                        available: reader.amount("shortage")?,
                        required: reader.amount("shortage")?,
                        scale: reader.byte("shortage")?,
                    }),
                    _ => return Err(Damage("shortage")),
                };
                Outcome::Denied(Denial { reason, shortage })
            }
            _ => return Err(Damage("memo outcome")),
        };
        reader.finish("memo")?;
        Ok(Memo { expires_at, fingerprint, outcome })
    }
}

fn hold_memo(reader: &mut Reader<'_>) -> Result<HoldMemo, Damage> {
    let id = HoldId(reader.u64("hold")?);
    let state = HoldState::decode(reader)?;
    let count: usize = reader.narrow("places")?;
    let mut places = Vec::with_capacity(count.min(64));
    for _ in 0..count {
        places.push(reader.u64("place")?);
    }
    Ok(HoldMemo { id, state, places })
}

/// Appends the figures of a balance.
pub(crate) fn put_balance(out: &mut Vec<u8>, balance: &Balance) {
    for Amount(figure) in [balance.available, balance.held, balance.pending, balance.debt] {
        crate::codec::put_u128(out, figure as u128);
    }
}

/// Reads the figures of a balance.
pub(crate) fn balance(reader: &mut Reader<'_>) -> Result<Balance, Damage> {
    let mut figure = || i128::try_from(reader.u128("balance")?).map(Amount).map_err(|_| Damage("balance"));
    Ok(Balance { available: figure()?, held: figure()?, pending: figure()?, debt: figure()? })
}
