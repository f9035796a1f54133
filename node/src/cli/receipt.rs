//! The parts that the answers of writes and reads share: assets, draws, balances, the last line.

use purser_proto::v1::{Asset, Balance, Draw, Receipt, TrancheKind};

use super::table::{self, Column, Lean};
use super::times::{self, NONE};
use super::words;

/// `credits/0`.
pub fn asset(asset: Option<&Asset>) -> String {
    asset.map_or_else(|| NONE.to_owned(), |asset| format!("{}/{}", asset.code, asset.scale))
}

/// `5 credits`.
pub fn sum(amount: &str, asset: Option<&Asset>) -> String {
    match asset {
        Some(asset) => format!("{amount} {}", table::clean(&asset.code)),
        None => amount.to_owned(),
    }
}

/// One row for each draw, in burn order.
pub fn draws(draws: &[Draw]) -> String {
    const COLUMNS: [Column; 5] = [
        ("TRANCHE", Lean::Left),
        ("WALLET", Lean::Left),
        ("KIND", Lean::Left),
        ("AMOUNT", Lean::Right),
        ("LEFT", Lean::Right),
    ];
    let rows = draws.iter().map(|draw| {
        vec![
            draw.tranche_id.clone(),
            draw.wallet.clone(),
            words::show::<TrancheKind>(draw.kind),
            draw.amount.clone(),
            draw.left.clone(),
        ]
    });
    table::table(&COLUMNS, rows)
}

/// One row for each wallet.
pub fn balances(balances: &[Balance]) -> String {
    const COLUMNS: [Column; 7] = [
        ("WALLET", Lean::Left),
        ("ASSET", Lean::Left),
        ("AVAILABLE", Lean::Right),
        ("HELD", Lean::Right),
        ("PENDING", Lean::Right),
        ("DEBT", Lean::Right),
        ("SETTLED", Lean::Right),
    ];
    table::table(&COLUMNS, balances.iter().map(balance_row))
}

/// A balance's cells, in the order of [`balances`].
pub fn balance_row(balance: &Balance) -> Vec<String> {
    vec![
        balance.wallet.clone(),
        asset(balance.asset.as_ref()),
        balance.available.clone(),
        balance.held.clone(),
        balance.pending.clone(),
        balance.debt.clone(),
        balance.settled.clone(),
    ]
}

/// The asset that a write was about; `None` if it touched no wallet.
pub fn asset_of(receipt: Option<&Receipt>) -> Option<&Asset> {
    receipt?.balances.first()?.asset.as_ref()
}

/// A write in full: a line that says what came of it, the draws if there are any, the balances, the last
/// line.
pub fn written(headline: &str, receipt: Option<&Receipt>, key: &str) -> String {
    let (own_draws, own_balances) = match receipt {
        Some(receipt) => (receipt.draws.as_slice(), receipt.balances.as_slice()),
        None => Default::default(),
    };
    let mut parts = vec![table::clean(headline)];
    if !own_draws.is_empty() {
        parts.push(draws(own_draws));
    }
    parts.push(balances(own_balances));
    parts.push(footer(receipt, key));
    parts.join("\n\n")
}

/// The last line of every write: what to look for later, and what to retry with.
pub fn footer(receipt: Option<&Receipt>, key: &str) -> String {
    let Some(receipt) = receipt else { return format!("key {}", table::clean(key)) };
    let replayed = if receipt.replayed { ", replayed: this is the first answer" } else { "" };
    format!(
        "{} at {}, key {}{replayed}",
        table::clean(&receipt.operation_id),
        times::or_none(receipt.ledger_time.as_ref()),
        table::clean(key),
    )
}
