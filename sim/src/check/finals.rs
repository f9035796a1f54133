//! What is read when nothing fails any more: it must be the model's, to the last movement.

use purser_ledger::amount::Amount;
use purser_ledger::command::ChargeType;
use purser_ledger::ids::{Customer, HoldId, OperationId, RecordId, TrancheId};
use purser_ledger::rows::journal::MovementStatus;
use purser_ledger::time::{Span, Time};
use purser_model::{Draw, Movement};
use purser_node::api::render;
use purser_proto::v1;

use super::replay::Replay;
use super::{Check, reads, same};
use crate::call::{Request, Response};
use crate::observed::time;

/// How long the shard's own sweep may leave something unbooked.
const SWEEP_LAG_MAX: Span = Span::from_secs(10);

/// What was read of one customer, in this order.
#[derive(Clone, Debug)]
pub struct Last {
    /// Whose.
    pub customer: String,
    /// The movements of each wallet.
    pub movements: Vec<Listed>,
    /// All wallets; none if the customer has none.
    pub balance: Option<v1::GetBalanceResponse>,
    /// The audit of all wallets.
    pub audit: Option<v1::AuditResponse>,
}

/// The movements of a wallet.
#[derive(Clone, Debug)]
pub struct Listed {
    /// Which wallet.
    pub wallet: String,
    /// Its movements, oldest first.
    pub movements: Vec<v1::Movement>,
    /// The ledger time at which the last of them were read.
    pub read_at: Option<Time>,
}

impl Last {
    /// Whose.
    pub fn customer(&self) -> Customer<'_> {
        Customer { namespace: "default", id: &self.customer }
    }
}

pub(super) fn check(replay: &Replay, last: &Last) -> Check {
    // The model goes on from here for this read alone: others may have been judged earlier.
    let replay = &mut replay.clone();
    let of = |what: String| format!("the last read of {}: {what}", last.customer);
    let places: Vec<usize> = last
        .movements
        .iter()
        .map(|Listed { wallet, .. }| {
            replay.place(last.customer(), wallet).ok_or_else(|| of(format!("{wallet} is unknown")))
        })
        .collect::<Check<_>>()?;
    let owned = replay.model.wallets().iter().filter(|wallet| wallet.customer() == last.customer()).count();
    same("number of wallets", &owned, &places.len()).map_err(of)?;
    let Some(balance) = &last.balance else { return Ok(()) };
    let point = balance.point.as_ref().and_then(|point| time(point.ledger_time.as_ref()?));
    let now = point.ok_or_else(|| of("no time".to_owned()))?;
    let request =
        Request::GetBalance(v1::GetBalanceRequest { customer: last.customer.clone(), ..Default::default() });
    reads::differs(replay, &request, &Response::GetBalance(balance.clone())).map_err(of)?;
    // Everything that is due by now is booked in the model; the ledger may be behind by a sweep.
    replay.model.begin_batch(now);
    for &place in &places {
        replay.model.sweep(&[place; 2 * purser_model::DUE_BOOKED_MAX]);
    }
    for (Listed { wallet, movements: given, read_at }, &place) in last.movements.iter().zip(&places) {
        let expected = replay.model.wallets()[place].movements.clone();
        let of = |what: String| format!("the last read of {}/{wallet}: {what}", last.customer);
        for (expected, given) in expected.iter().zip(given) {
            movement(replay, place, expected, given).map_err(of)?;
        }
        let missing =
            expected.get(given.len()..).ok_or_else(|| of("more movements than the model has".to_owned()))?;
        let may_lag = |own: &Movement| {
            own.details.key.is_empty()
                && own.effective_at.saturating_add(SWEEP_LAG_MAX) >= read_at.unwrap_or(now)
        };
        if let Some(lost) = missing.iter().find(|own| !may_lag(own)) {
            return Err(of(format!("this movement is missing: {lost:?}")));
        }
    }
    let audit = last.audit.as_ref().ok_or_else(|| of("no audit".to_owned()))?;
    same("findings of the audit", &Vec::new(), &audit.findings).map_err(of)
}

/// Holds one movement against the model's.
pub(super) fn movement(
    replay: &mut Replay,
    place: usize,
    expected: &Movement,
    given: &v1::Movement,
) -> Check {
    let names = &mut replay.names;
    let unread = || format!("{given:?} has an id that does not read");
    let id = RecordId::parse(&given.movement_id).ok_or_else(unread)?;
    names.movements.pair(id, (place, expected.number))?;
    let operation = OperationId::parse(&given.operation_id).ok_or_else(unread)?;
    names.operations.pair(operation, expected.operation)?;
    match (expected.hold, HoldId::parse(&given.hold_id)) {
        (Some(number), Some(hold)) => names.holds.pair(hold, number)?,
        (number, _) => same("whether it is of a hold", &number.is_some(), &!given.hold_id.is_empty())?,
    }
    match (expected.corrects, RecordId::parse(&given.corrects)) {
        (Some(number), Some(corrected)) => names.movements.pair(corrected, (place, number))?,
        (number, _) => same("whether it corrects", &number.is_some(), &!given.corrects.is_empty())?,
    }
    let scale = given.asset.as_ref().map_or(0, |asset| asset.scale as u8);
    same("number of draws", &expected.draws.len(), &given.draws.len())?;
    for (expected, given) in expected.draws.iter().zip(&given.draws) {
        let tranche = TrancheId::parse(&given.tranche_id).ok_or_else(unread)?;
        names.tranches.pair(tranche, expected.tranche)?;
        draw(scale, expected, given)?;
    }
    let status = match expected.status {
        MovementStatus::Posted => v1::MovementStatus::Posted,
        MovementStatus::Pending => v1::MovementStatus::Pending,
    };
    let charge_type = match expected.details.charge_type {
        None => v1::ChargeType::Unspecified,
        Some(ChargeType::Usage) => v1::ChargeType::Usage,
        Some(ChargeType::Fixed) => v1::ChargeType::Fixed,
    };
    let details = &expected.details;
    same(
        "movement",
        &(
            expected.number,
            i32::from(render::movement_type(expected.kind)),
            i32::from(status),
            expected.amount.to_text(scale),
            expected.settled_after.to_text(scale),
            i32::from(charge_type),
            (details.feature.as_str(), details.key.as_str(), details.reference.as_str()),
            Some(expected.effective_at),
        ),
        &(
            given.sequence,
            given.r#type,
            given.status,
            given.amount.clone(),
            given.balance_after.clone(),
            given.charge_type,
            (given.feature.as_str(), given.idempotency_key.as_str(), given.reference.as_str()),
            given.effective_at.as_ref().and_then(time),
        ),
    )?;
    // What is due may be booked by a sweep, earlier than the model does.
    match details.key.is_empty() {
        true => Ok(()),
        false => same("booked_at", &Some(expected.booked_at), &given.booked_at.as_ref().and_then(time)),
    }
}

fn draw(scale: u8, expected: &Draw, given: &v1::Draw) -> Check {
    let text = |amount: Amount| amount.to_text(scale);
    same(
        "draw",
        &(render::kind(expected.kind), text(expected.amount), text(expected.left)),
        &(given.kind, given.amount.clone(), given.left.clone()),
    )
}
