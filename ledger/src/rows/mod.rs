//! The rows of a shard: what is stored under which key, byte for byte.
//!
//! Each table is one leading byte. Numbers in keys are big-endian, so that they sort; text in keys
//! stands behind its length in two bytes, so that no two ids can alias.
//!
//! | table | key | value |
//! | --- | --- | --- |
//! | `A` | | [`meta`]: the shard's counters, ledger time and digest |
//! | `C` | namespace, customer | [`customer`]: the customer's wallets |
//! | `W` | namespace, customer, wallet | [`wallet`]: totals, chain head, the first open tranches |
//! | `T` | wallet no, class, burn key | [`open`]: an open tranche beyond those in its wallet's row |
//! | `R` | wallet no, tranche | [`tranche`]: what was granted, and what became of it |
//! | `X` | wallet no, due, rank, tranche | what is due in a wallet, beyond its row |
//! | `P` | wallet no, tranche | the pending tranches: they wait for their invoice |
//! | `F` | record | [`refund`]: what was given back of a movement |
//! | `H` | wallet no, hold | [`hold`]: the holds of a wallet, and what became of them since they were placed |
//! | `Y` | wallet no, due, hold | the open holds of a wallet |
//! | `D` | due, wallet no | the wallets in which something is due |
//! | `E` | wallet no, external reference | the tranche that has it |
//! | `J` | record | [`journal`]: movements and life-cycle records, append-only |
//! | `S` | wallet no, movement number / 64 | where a wallet's run of 64 movements begins |
//! | `I` | hash of customer and key | [`memo`]: the verdict given |
//!
//! A plain debit puts three rows (`W`, `J`, `I`) and deletes none.

pub mod customer;
pub mod hold;
pub mod journal;
pub mod keys;
pub mod memo;
pub mod meta;
pub mod open;
pub mod open_holds;
pub mod overflow;
pub mod refund;
pub mod tranche;
pub mod wallet;
