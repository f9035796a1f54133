//! The ledger's answers as messages of the contract.

use purser_ledger::amount::{Amount, Asset, Decimal};
use purser_ledger::command::{BurnPolicy, ChargeScope, ChargeType, TrancheKind};
use purser_ledger::ids::HoldId;
use purser_ledger::query::{HoldView, LedgerEntry, TrancheStatus, TrancheView};
use purser_ledger::rows::hold::{HoldState, HoldStatus, Pin};
use purser_ledger::rows::journal::{MovementKind, MovementStatus};
use purser_ledger::time::Time;
use purser_ledger::verdict::{Applied, Balance, Effect, Posted, WalletBalance, WalletInfo};
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
    let status = match (info.closed, info.frozen) {
        (true, _) => v1::WalletStatus::Closed,
        (false, true) => v1::WalletStatus::Frozen,
        (false, false) => v1::WalletStatus::Active,
    };
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
    let drawn = movements.iter().filter(|own| is_told_by_draws(own.kind));
    let draws = drawn.flat_map(|movement| {
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

/// What came of a write, in so much detail.
pub fn receipt_in(
    detail: v1::ReceiptDetail,
    applied: &Applied,
    witness: &Witness,
    replayed: bool,
) -> v1::Receipt {
    match detail {
        v1::ReceiptDetail::Brief => brief_receipt(applied, witness, replayed),
        v1::ReceiptDetail::Unspecified | v1::ReceiptDetail::Full => receipt(applied, witness, replayed),
    }
}

/// Whether the draws of such a movement stand in the receipt.
fn is_told_by_draws(kind: MovementKind) -> bool {
    match kind {
        MovementKind::Consumed
        | MovementKind::Held
        | MovementKind::Captured
        | MovementKind::Refunded
        | MovementKind::Adjusted => true,
        MovementKind::Granted | MovementKind::Expired | MovementKind::Released | MovementKind::Voided => {
            false
        }
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
    let receipt = receipt_in(detail, applied, witness, replayed);
    let (amount, remaining, asset) = debited(&applied.effect);
    v1::DebitResponse { receipt: Some(receipt), amount, remaining, asset }
}

/// What a debit took, what it could still draw, in which asset; of an applied debit.
pub fn debited(effect: &Effect) -> (String, String, Option<v1::Asset>) {
    let Effect::Posted { movements, balances, remaining, .. } = effect else {
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
        TrancheStatus::Pending => v1::TrancheStatus::Pending,
        TrancheStatus::Voided => v1::TrancheStatus::Voided,
        TrancheStatus::Failed => v1::TrancheStatus::Failed,
    }
}

/// A tranche of a wallet.
pub fn tranche(wallet: &str, scale: u8, view: &TrancheView) -> v1::Tranche {
    let row = &view.tranche;
    let text = |amount: Amount| amount.to_text(scale);
    let waits = matches!(view.status, TrancheStatus::Scheduled | TrancheStatus::Pending);
    let pending = if waits { row.amount } else { Amount::ZERO };
    let lifetime = |(duration, time_zone): &(String, String)| v1::CalendarDuration {
        duration: duration.clone(),
        time_zone: time_zone.clone(),
    };
    v1::Tranche {
        tranche_id: view.id.to_string(),
        wallet: wallet.to_owned(),
        kind: kind(row.kind),
        priority: u32::from(row.priority),
        status: tranche_status(view.status).into(),
        amount: text(row.amount),
        pending: text(pending),
        available: text(view.available),
        held: text(view.held),
        consumed: text(view.consumed),
        expired: text(view.expired),
        voided: text(view.voided),
        lifetime: row.lifetime.as_ref().map(lifetime),
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
    let burned = match own.kind {
        MovementKind::Consumed | MovementKind::Held => true,
        MovementKind::Adjusted => own.amount < Amount::ZERO,
        _ => false,
    };
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
        corrects: own.corrects.map(|corrected| corrected.to_string()).unwrap_or_default(),
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
        charge_type: charge_type(own.charge_type),
        feature: own.feature.clone(),
        hash: hex(&entry.hash),
        previous_hash: hex(&entry.previous_hash),
        hold_id: own.hold.map(|hold| hold.to_string()).unwrap_or_default(),
    }
}

fn charge_type(charge_type: Option<ChargeType>) -> i32 {
    let charge_type = match charge_type {
        None => v1::ChargeType::Unspecified,
        Some(ChargeType::Usage) => v1::ChargeType::Usage,
        Some(ChargeType::Fixed) => v1::ChargeType::Fixed,
    };
    charge_type.into()
}

/// A state of a hold.
pub fn hold_status(status: HoldStatus) -> v1::HoldStatus {
    match status {
        HoldStatus::Open => v1::HoldStatus::Open,
        HoldStatus::Captured => v1::HoldStatus::Captured,
        HoldStatus::Released => v1::HoldStatus::Released,
        HoldStatus::Expired => v1::HoldStatus::Expired,
    }
}

/// What became of a hold.
pub fn hold_state(id: HoldId, state: &HoldState, of: Asset<'_>) -> v1::HoldState {
    let text = |amount: Amount| amount.to_text(of.scale);
    v1::HoldState {
        hold_id: id.to_string(),
        status: hold_status(state.status).into(),
        asset: Some(asset(of.code, of.scale)),
        amount: text(state.amount),
        captured: text(state.captured),
        released: text(state.released),
        left: text(state.left()),
        excess: text(state.excess),
        created_at: Some(timestamp(state.created_at)),
        expires_at: Some(timestamp(state.expires_at)),
    }
}

/// What a command about a hold did, as text in its asset.
pub struct AboutHold {
    /// The hold after it.
    pub hold: Option<v1::HoldState>,
    /// What its payer could still draw for the same.
    pub remaining: String,
    /// What was spent, from the hold and beyond it.
    pub spent: String,
    /// What was given back, or lapsed on the way.
    pub released: String,
}

/// What a command about a hold did; `None` for the effect of another one.
pub fn about_hold(effect: &Effect) -> Option<AboutHold> {
    let Effect::Posted { movements, balances, remaining, hold } = effect else { return None };
    let (id, state) = &**hold.as_ref()?;
    let first = balances.first()?;
    let asset = Asset { code: &first.asset_code, scale: first.asset_scale };
    let sum = |kinds| drawn(movements, kinds).to_text(asset.scale);
    Some(AboutHold {
        hold: Some(hold_state(*id, state, asset)),
        remaining: remaining.unwrap_or_default().to_text(asset.scale),
        spent: sum(&[MovementKind::Captured, MovementKind::Consumed]),
        released: sum(&[MovementKind::Released, MovementKind::Expired, MovementKind::Voided]),
    })
}

/// What movements of some kinds drew, over all of them.
fn drawn(movements: &[Posted], kinds: &[MovementKind]) -> Amount {
    let movements = movements.iter().filter(|own| kinds.contains(&own.kind));
    Amount(movements.flat_map(|own| &own.draws).map(|draw| draw.amount.0).sum())
}

/// How much the movements of some kinds of a command of one wallet told, as text; `None` for the effect
/// of another sort.
pub fn sum_of(effect: &Effect, kinds: &[MovementKind]) -> Option<String> {
    let Effect::Posted { movements, balances, .. } = effect else { return None };
    Some(drawn(movements, kinds).to_text(balances.first()?.asset_scale))
}

/// By how much a command of one wallet changed what is settled, with its sign; `None` for the effect of
/// another sort.
pub fn effect_of(effect: &Effect) -> Option<String> {
    let Effect::Posted { movements, balances, .. } = effect else { return None };
    let sum = movements.iter().map(|movement| movement.amount.0).sum();
    Some(Amount(sum).to_text(balances.first()?.asset_scale))
}

/// A hold of a customer.
pub fn hold(customer: &str, view: &HoldView, of: Asset<'_>) -> v1::Hold {
    let row = &view.hold;
    let pin = |wallet: &str, pin: &Pin| v1::Pin {
        tranche_id: pin.tranche.to_string(),
        wallet: wallet.to_owned(),
        kind: kind(pin.kind),
        amount: pin.amount.to_text(of.scale),
        expires_at: optional_time(pin.expires_at),
    };
    let pins = row.parts.iter().flat_map(|part| part.pins.iter().map(|own| pin(&part.wallet, own)));
    v1::Hold {
        state: Some(hold_state(view.id, &row.state, of)),
        customer: customer.to_owned(),
        wallets: row.parts.iter().map(|part| part.wallet.clone()).collect(),
        pins: pins.collect(),
        charge_type: charge_type(row.charge_type),
        feature: row.feature.clone().unwrap_or_default(),
        reference: row.reference.clone(),
        reason_code: row.reason_code.clone(),
        metadata: row.metadata.iter().cloned().collect(),
    }
}

/// A sort of movement.
pub fn movement_type(kind: MovementKind) -> v1::MovementType {
    match kind {
        MovementKind::Granted => v1::MovementType::Granted,
        MovementKind::Consumed => v1::MovementType::Consumed,
        MovementKind::Expired => v1::MovementType::Expired,
        MovementKind::Held => v1::MovementType::Held,
        MovementKind::Released => v1::MovementType::Released,
        MovementKind::Captured => v1::MovementType::Captured,
        MovementKind::Voided => v1::MovementType::Voided,
        MovementKind::Refunded => v1::MovementType::Refunded,
        MovementKind::Adjusted => v1::MovementType::Adjusted,
    }
}
