//! What a command is about: the wallets that it names or that may pay it, its hold, its movement; or why
//! one of them is not there.

use crate::amount::Asset;
use crate::command::{Capture, ChargeType, Command, Debit, ExtendHold, Hold, Operation, Payer, Release};
use crate::hold::HoldAt;
use crate::ids::{Customer, HoldId, RecordId};
use crate::rows::journal::{Movement, Record};
use crate::rows::keys;
#[cfg(madsim)]
use crate::simulation::{self, Bug};
use crate::store::{LocalDamage, Store};
use crate::verdict::Reason;
use crate::workspace::{Stop, WalletAt, Workspace};

/// The hold that a command names, and the movement that placed it if there is such a hold.
pub fn named_hold(operation: &Operation<'_>) -> Option<(HoldId, RecordId)> {
    let hold = match operation {
        Operation::ExtendHold(extend) => extend.hold,
        Operation::Capture(capture) => capture.hold,
        Operation::Release(release) => release.hold,
        _ => return None,
    };
    Some((hold, hold.placed_by(0)?))
}

/// The wallet that a command names.
pub fn named_wallet<'a>(operation: &Operation<'a>) -> Option<&'a str> {
    match operation {
        Operation::Debit(Debit { payer: Payer::Wallet(wallet), .. })
        | Operation::Hold(Hold { payer: Payer::Wallet(wallet), .. }) => Some(wallet),
        Operation::Debit(_) | Operation::Hold(_) => None,
        Operation::ExtendHold(_) | Operation::Capture(_) | Operation::Release(_) => None,
        Operation::Refund(_) => None,
        Operation::UpdateWallet(update) => Some(update.wallet),
        Operation::CloseWallet(close) => Some(close.wallet),
        Operation::EndGrant(end) => Some(end.wallet),
        Operation::ConfirmGrant(confirm) => Some(confirm.wallet),
        Operation::Adjust(adjust) => Some(adjust.wallet),
        Operation::CreateWallet(create) => Some(create.wallet),
        Operation::FreezeWallet(freeze) => Some(freeze.wallet),
        Operation::Grant(grant) => Some(grant.wallet),
    }
}

/// Whether a wallet that is named as the payer may pay; payers that a customer is asked for are chosen
/// so that they may.
pub fn may_pay<S: Store + ?Sized>(
    work: &Workspace<'_, S>,
    payer: Payer<'_>,
    charge_type: Option<ChargeType>,
    at: WalletAt,
) -> Result<(), Reason> {
    let wallet = work.wallet(at);
    match payer {
        Payer::CustomerIn(_) => Ok(()),
        Payer::Wallet(_) if wallet.frozen => Err(Reason::WalletFrozen),
        Payer::Wallet(_) if !wallet.scope.fits(charge_type) => Err(Reason::NoEligibleTranche),
        Payer::Wallet(_) => Ok(()),
    }
}

/// What a command is about.
pub struct Touched {
    /// The wallet that it names, the payers in draw order, or those of its hold.
    pub wallets: Vec<WalletAt>,
    /// What else it is about.
    pub subject: Subject,
}

/// What a command is about besides wallets.
pub enum Subject {
    /// Nothing.
    Wallets,
    /// A hold.
    Hold(Box<HoldAt>),
    /// A movement.
    Movement(RecordId, Box<Movement>),
}

/// What a command is about, if all of it is there.
pub fn touched<S: Store + ?Sized>(
    work: &mut Workspace<'_, S>,
    command: &Command<'_>,
) -> Result<Result<Touched, Reason>, Stop> {
    let customer = command.header.customer;
    match &command.operation {
        Operation::Debit(Debit { payer: Payer::CustomerIn(asset), charge_type, .. })
        | Operation::Hold(Hold { payer: Payer::CustomerIn(asset), charge_type, .. }) => {
            let wallets = payers(work, customer, *asset, *charge_type)?;
            return Ok(wallets.map(|wallets| Touched { wallets, subject: Subject::Wallets }));
        }
        Operation::ExtendHold(ExtendHold { hold, .. })
        | Operation::Capture(Capture { hold, .. })
        | Operation::Release(Release { hold, .. }) => {
            let found = find_hold(work, customer, *hold)?;
            return Ok(found.map(|hold| {
                let wallets = hold.wallets.clone();
                Touched { wallets, subject: Subject::Hold(Box::new(hold)) }
            }));
        }
        Operation::Refund(refund) => return find_movement(work, customer, refund.movement),
        _ => {}
    }
    let Some(name) = named_wallet(&command.operation) else {
        return Err(Stop::Fault("a command that names no wallet"));
    };
    match work.find_wallet(&keys::wallet(customer, name))? {
        Some(at) if work.wallet(at).quarantined => Ok(Err(Reason::CustomerQuarantined)),
        Some(at) => Ok(Ok(Touched { wallets: vec![at], subject: Subject::Wallets })),
        None if work.customer(&keys::customer(customer))?.is_none() => Ok(Err(Reason::CustomerNotFound)),
        None => Ok(Err(Reason::WalletNotFound)),
    }
}

/// A customer's wallets in an asset that may pay, in draw order.
fn payers<S: Store + ?Sized>(
    work: &mut Workspace<'_, S>,
    customer: Customer<'_>,
    asset: Asset<'_>,
    charge_type: Option<ChargeType>,
) -> Result<Result<Vec<WalletAt>, Reason>, Stop> {
    let Some(row) = work.customer(&keys::customer(customer))? else {
        return Ok(Err(Reason::CustomerNotFound));
    };
    if row.quarantined {
        return Ok(Err(Reason::CustomerQuarantined));
    }
    let in_asset = |entry: &&crate::rows::customer::WalletEntry| {
        entry.asset_code == asset.code && entry.asset_scale == asset.scale
    };
    let mut entries: Vec<_> = row.wallets.iter().filter(in_asset).collect();
    if entries.is_empty() {
        return Ok(Err(Reason::WalletNotFound));
    }
    entries.sort_by_key(|entry| (entry.draw_priority, entry.no));
    let mut unfrozen = Vec::with_capacity(entries.len());
    let mut all_closed = true;
    for entry in entries {
        let at = work.find_wallet(&keys::wallet(customer, &entry.wallet))?;
        let at = at.ok_or(LocalDamage::Missing("a wallet of a customer"))?;
        let wallet = work.wallet(at);
        all_closed &= wallet.closed;
        if !wallet.frozen && !wallet.closed {
            unfrozen.push(at);
        }
    }
    if unfrozen.is_empty() {
        return Ok(Err(if all_closed { Reason::WalletClosed } else { Reason::WalletFrozen }));
    }
    unfrozen.retain(|&at| work.wallet(at).scope.fits(charge_type));
    #[cfg(madsim)]
    if simulation::has(Bug::MapOrderInApply) {
        let map: std::collections::HashMap<usize, WalletAt> = unfrozen.into_iter().enumerate().collect();
        unfrozen = map.into_values().collect();
    }
    Ok(if unfrozen.is_empty() { Err(Reason::NoEligibleTranche) } else { Ok(unfrozen) })
}

/// A movement of a customer, with its wallet.
fn find_movement<S: Store + ?Sized>(
    work: &mut Workspace<'_, S>,
    customer: Customer<'_>,
    id: RecordId,
) -> Result<Result<Touched, Reason>, Stop> {
    let Some(row) = work.customer(&keys::customer(customer))? else {
        return Ok(Err(Reason::CustomerNotFound));
    };
    let record = work.get(&keys::record(id))?;
    let Some(Record::Movement(movement)) = record.map(|row| Record::decode(id, &row)).transpose()? else {
        return Ok(Err(Reason::MovementNotFound));
    };
    let Some(entry) = row.wallets.iter().find(|entry| entry.no == movement.wallet_no) else {
        return Ok(Err(Reason::MovementNotFound));
    };
    if row.quarantined {
        return Ok(Err(Reason::CustomerQuarantined));
    }
    let at = work.find_wallet(&keys::wallet(customer, &entry.wallet))?;
    let at = at.ok_or(LocalDamage::Missing("a wallet of a customer"))?;
    Ok(Ok(Touched { wallets: vec![at], subject: Subject::Movement(id, Box::new(movement)) }))
}

/// A customer's hold, with the wallets that it is about.
fn find_hold<S: Store + ?Sized>(
    work: &mut Workspace<'_, S>,
    customer: Customer<'_>,
    id: HoldId,
) -> Result<Result<HoldAt, Reason>, Stop> {
    let placed = match work.foreseen_hold(id) {
        None => work.placed_hold(id)?,
        foreseen => foreseen,
    };
    let mut parts = Vec::new();
    for part in placed.iter().flat_map(|placed| &placed.parts) {
        match work.wallet_of_part(customer, part)? {
            Some(at) if work.wallet(at).quarantined => return Ok(Err(Reason::CustomerQuarantined)),
            Some(at) => parts.push(at),
            None => break,
        }
    }
    let Some(placed) = placed.filter(|placed| placed.parts.len() == parts.len()) else {
        let known = work.customer(&keys::customer(customer))?.is_some();
        return Ok(Err(if known { Reason::HoldNotFound } else { Reason::CustomerNotFound }));
    };
    let first = parts.first().copied().ok_or(Stop::Fault("a hold without a part"))?;
    let row = work.hold_as_it_is(first, id, placed)?;
    let (mut wallets, payers) = match row.payer_asset() {
        None => {
            let wallet = work.wallet(first);
            // Its scope may have been changed since.
            let payers = match (wallet.frozen, wallet.scope.fits(row.charge_type)) {
                (true, _) => Err(Reason::WalletFrozen),
                (false, false) => Err(Reason::NoEligibleTranche),
                (false, true) => Ok(1),
            };
            (vec![first], payers)
        }
        Some(asset) => match payers(work, customer, asset, row.charge_type)? {
            Ok(wallets) => {
                let count = wallets.len();
                (wallets, Ok(count))
            }
            Err(reason) => (Vec::new(), Err(reason)),
        },
    };
    let mut places = Vec::with_capacity(parts.len());
    for at in parts {
        let place = wallets.iter().position(|own| *own == at);
        places.push(place.unwrap_or(wallets.len()));
        if place.is_none() {
            wallets.push(at);
        }
    }
    Ok(Ok(HoldAt { id, row, wallets, payers, places }))
}
