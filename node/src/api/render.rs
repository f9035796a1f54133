//! The ledger's answers as messages of the contract.

use purser_ledger::amount::{Amount, Asset, Decimal};
use purser_ledger::command::{BurnPolicy, ChargeScope, ChargeType, TrancheKind};
use purser_ledger::query::{LedgerEntry, TrancheStatus, TrancheView};
use purser_ledger::rows::journal::{MovementKind, MovementStatus};
use purser_ledger::time::Time;
use purser_ledger::verdict::{Applied, Balance, Effect, WalletBalance, WalletInfo};
use purser_proto::v1;

use super::shape::timestamp;
use crate::shard::{ReadPoint, Witness};

/// An asset.
pub fn asset(code: &str, scale: u8) -> v1::Asset {
    v1::Asset { code: code.to_owned(), scale: u32::from(scale) }
}

/// A kind of tranche.
pub fn kind(kind: TrancheKind) -> i32 {
    let kind = match kind {
        TrancheKind::Plan => v1::TrancheKind::Plan,
        TrancheKind::Promotional => v1::TrancheKind::Promotional,
        TrancheKind::Rollover => v1::TrancheKind::Rollover,
        TrancheKind::Correction => v1::TrancheKind::Correction,
        TrancheKind::Committed => v1::TrancheKind::Committed,
        TrancheKind::Purchased => v1::TrancheKind::Purchased,
    };
    kind.into()
}

/// A charge scope.
pub fn scope(scope: ChargeScope) -> i32 {
    let scope = match scope {
        ChargeScope::Any => v1::ChargeScope::Any,
        ChargeScope::Usage => v1::ChargeScope::Usage,
        ChargeScope::Fixed => v1::ChargeScope::Fixed,
    };
    scope.into()
}

/// Where a read was judged.
pub fn read_point(point: &ReadPoint) -> v1::ReadPoint {
    v1::ReadPoint {
        ledger_time: Some(timestamp(point.now)),
        shard: u32::from(point.shard.0),
        read_index: point.read_index,
    }
}

/// A wallet of a customer.
pub fn wallet(customer: &str, info: &WalletInfo) -> v1::Wallet {
    let status = if info.frozen { v1::WalletStatus::Frozen } else { v1::WalletStatus::Active };
    let burn_policy = match info.burn_policy {
        BurnPolicy::Standard => v1::BurnPolicy::Standard,
        BurnPolicy::SpecificFirst => v1::BurnPolicy::SpecificFirst,
    };
    v1::Wallet {
        customer: customer.to_owned(),
        wallet: info.wallet.clone(),
        asset: Some(asset(&info.asset_code, info.asset_scale)),
        status: status.into(),
        draw_priority: u32::from(info.draw_priority),
        charge_scope: scope(info.scope),
        burn_policy: burn_policy.into(),
        version: info.version,
        created_at: Some(timestamp(info.created_at)),
    }
}

/// The figures of a wallet.
pub fn balance(wallet: &str, of: Asset<'_>, figures: &Balance) -> v1::Balance {
    v1::Balance {
        wallet: wallet.to_owned(),
        asset: Some(asset(of.code, of.scale)),
        settled: figures.settled().to_text(of.scale),
        held: figures.held.to_text(of.scale),
        available: figures.available.to_text(of.scale),
        pending: figures.pending.to_text(of.scale),
        debt: figures.debt.to_text(of.scale),
    }
}

fn balance_of(own: &WalletBalance) -> v1::Balance {
    balance(&own.wallet, Asset { code: &own.asset_code, scale: own.asset_scale }, &own.balance)
}

/// What came of a write.
pub fn receipt(applied: &Applied, witness: &Witness, replayed: bool) -> v1::Receipt {
    let (movements, balances) = match &applied.effect {
        Effect::Wallet(_) => (&[][..], &[][..]),
        Effect::Posted { movements, balances, .. } => (&movements[..], &balances[..]),
    };
    let consumed = movements.iter().filter(|own| own.kind == MovementKind::Consumed);
    let draws = consumed.flat_map(|movement| {
        let own = balances.get(movement.balance);
        let (wallet, scale) = own.map_or(("", 0), |own| (own.wallet.as_str(), own.asset_scale));
        movement.draws.iter().map(move |own| draw(own, wallet, scale))
    });
    v1::Receipt {
        movement_ids: movements.iter().map(|movement| movement.id.to_string()).collect(),
        draws: draws.collect(),
        balances: balances.iter().map(balance_of).collect(),
        ..brief_receipt(applied, witness, replayed)
    }
}

/// The same without movement ids, draws and balances.
pub fn brief_receipt(applied: &Applied, witness: &Witness, replayed: bool) -> v1::Receipt {
    v1::Receipt {
        operation_id: applied.operation.to_string(),
        ledger_time: Some(timestamp(witness.now)),
        witness: Some(v1::Witness {
            shard: u32::from(witness.shard.0),
            log_index: witness.log_index,
            position: witness.position,
        }),
        replayed,
        ..v1::Receipt::default()
    }
}

fn draw(own: &purser_ledger::verdict::Draw, wallet: &str, scale: u8) -> v1::Draw {
    v1::Draw {
        tranche_id: own.tranche.to_string(),
        wallet: wallet.to_owned(),
        kind: kind(own.kind),
        amount: own.amount.to_text(scale),
        left: own.left.to_text(scale),
    }
}

/// The answer to a debit.
pub fn debit(
    applied: &Applied,
    witness: &Witness,
    replayed: bool,
    detail: v1::ReceiptDetail,
) -> v1::DebitResponse {
    let receipt = match detail {
        v1::ReceiptDetail::Brief => brief_receipt(applied, witness, replayed),
        v1::ReceiptDetail::Unspecified | v1::ReceiptDetail::Full => receipt(applied, witness, replayed),
    };
    let (amount, remaining, asset) = debited(&applied.effect);
    v1::DebitResponse { receipt: Some(receipt), amount, remaining, asset }
}

/// What a debit took, what it could still draw, in which asset; of an applied debit.
pub fn debited(effect: &Effect) -> (String, String, Option<v1::Asset>) {
    let Effect::Posted { movements, balances, remaining } = effect else {
        return (String::new(), String::new(), None);
    };
    let Some(first) = balances.first() else { return (String::new(), String::new(), None) };
    let taken: i128 = movements.iter().map(|movement| -movement.amount.0).sum();
    let text = |amount: Amount| amount.to_text(first.asset_scale);
    let asset = asset(&first.asset_code, first.asset_scale);
    (text(Amount(taken)), remaining.map(text).unwrap_or_default(), Some(asset))
}

/// A dry run's draws and balances.
pub fn explained(applied: &Applied, point: &ReadPoint) -> v1::ExplainResponse {
    let witness = Witness { shard: point.shard, log_index: point.read_index, position: 0, now: point.now };
    let receipt = receipt(applied, &witness, false);
    let (amount, remaining, asset) = debited(&applied.effect);
    v1::ExplainResponse {
        point: Some(read_point(point)),
        refusal: None,
        amount,
        remaining,
        asset,
        draws: receipt.draws,
        balances: receipt.balances,
    }
}

fn optional_time(time: Time) -> Option<prost_types::Timestamp> {
    (time != Time::NEVER).then(|| timestamp(time))
}

fn money(currency: &str, amount: Decimal) -> v1::Money {
    v1::Money { currency: currency.to_owned(), amount: amount.to_string() }
}

/// A state of a tranche.
pub fn tranche_status(status: TrancheStatus) -> v1::TrancheStatus {
    match status {
        TrancheStatus::Scheduled => v1::TrancheStatus::Scheduled,
        TrancheStatus::Active => v1::TrancheStatus::Active,
        TrancheStatus::Exhausted => v1::TrancheStatus::Exhausted,
        TrancheStatus::Expired => v1::TrancheStatus::Expired,
    }
}

/// A tranche of a wallet.
pub fn tranche(wallet: &str, scale: u8, view: &TrancheView) -> v1::Tranche {
    let row = &view.tranche;
    let text = |amount: Amount| amount.to_text(scale);
    let pending = if view.status == TrancheStatus::Scheduled { row.amount } else { Amount::ZERO };
    v1::Tranche {
        tranche_id: view.id.to_string(),
        wallet: wallet.to_owned(),
        kind: kind(row.kind),
        priority: u32::from(row.priority),
        status: tranche_status(view.status).into(),
        amount: text(row.amount),
        pending: text(pending),
        available: text(view.available),
        held: text(Amount::ZERO),
        consumed: text(view.consumed),
        expired: text(view.expired),
        effective_at: Some(timestamp(row.effective_at)),
        expires_at: optional_time(row.expires_at),
        granted_by: row.granted_by.to_string(),
        charge_scope: scope(row.scope),
        features: row.features.as_deref().unwrap_or_default().to_vec(),
        label: row.label.clone(),
        reason_code: row.reason_code.clone(),
        external_reference: row.external_reference.clone(),
        cost_basis: row.cost.as_ref().map(|(currency, amount)| money(currency, *amount)),
        metadata: row.metadata.iter().cloned().collect(),
        created_at: Some(timestamp(row.created_at)),
    }
}

/// Lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// A movement of a customer's wallet.
pub fn movement(customer: &str, info: &WalletInfo, entry: &LedgerEntry) -> v1::Movement {
    let own = &entry.movement;
    let text = |amount: Amount| amount.to_text(info.asset_scale);
    let status = match own.status {
        MovementStatus::Posted => v1::MovementStatus::Posted,
        MovementStatus::Pending => v1::MovementStatus::Pending,
    };
    let charge_type = match own.charge_type {
        None => v1::ChargeType::Unspecified,
        Some(ChargeType::Usage) => v1::ChargeType::Usage,
        Some(ChargeType::Fixed) => v1::ChargeType::Fixed,
    };
    let burned = own.kind == MovementKind::Consumed;
    v1::Movement {
        movement_id: entry.id.to_string(),
        operation_id: own.operation.to_string(),
        customer: customer.to_owned(),
        wallet: info.wallet.clone(),
        asset: Some(asset(&info.asset_code, info.asset_scale)),
        sequence: own.number,
        r#type: movement_type(own.kind).into(),
        status: status.into(),
        amount: text(own.amount),
        balance_before: text(Amount(own.settled_after.0 - own.amount.0)),
        balance_after: text(own.settled_after),
        draws: own.draws.iter().map(|draw_of| draw(draw_of, &info.wallet, info.asset_scale)).collect(),
        reason_code: own.reason_code.clone(),
        reference: own.reference.clone(),
        corrects: String::new(),
        actor: own.actor.clone(),
        idempotency_key: own.key.clone(),
        booked_at: Some(timestamp(own.booked_at)),
        effective_at: Some(timestamp(own.effective_at)),
        metadata: own.metadata.iter().cloned().collect(),
        burn_order_version: if burned {
            u32::from(purser_ledger::rows::journal::BURN_ORDER_VERSION)
        } else {
            0
        },
        charge_type: charge_type.into(),
        feature: own.feature.clone(),
        hash: hex(&entry.hash),
        previous_hash: hex(&entry.previous_hash),
    }
}

/// A sort of movement.
pub fn movement_type(kind: MovementKind) -> v1::MovementType {
    match kind {
        MovementKind::Granted => v1::MovementType::Granted,
        MovementKind::Consumed => v1::MovementType::Consumed,
        MovementKind::Expired => v1::MovementType::Expired,
    }
}
