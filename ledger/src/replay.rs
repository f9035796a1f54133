//! A verdict told again under the same key: from its memo, and from the journal, which has the movements.

use crate::ids::{Customer, RecordId};
use crate::rows::customer::CustomerRow;
use crate::rows::journal::{Movement, Record};
use crate::rows::keys;
use crate::rows::memo::Outcome;
use crate::store::{LocalDamage, Store};
use crate::verdict::{Applied, Effect, Posted, Verdict, WalletBalance};
use crate::workspace::{Stop, Workspace};

/// The stored verdict, told again from the journal.
pub fn replay<S: Store + ?Sized>(
    work: &Workspace<'_, S>,
    customer: Customer<'_>,
    outcome: Outcome,
) -> Result<Verdict, Stop> {
    let (operation, records) = match &outcome {
        Outcome::Denied(denial) => return Ok(Verdict::Denied(*denial)),
        Outcome::Applied { operation, records, .. } => (*operation, *records),
    };
    let mut movements = Vec::with_capacity(records as usize);
    for step in 0..records {
        let id = RecordId(operation.0).following(step);
        let row = work.get(&keys::record(id))?.ok_or(LocalDamage::Missing("a record of an answer"))?;
        match Record::decode(id, &row)? {
            Record::Wallet(record) => {
                let effect = Effect::Wallet(record.info);
                return Ok(Verdict::Applied(Applied { operation, effect }));
            }
            Record::Movement(movement) => movements.push((id, movement)),
            Record::Hold(_) | Record::Tranche(_) => {}
        }
    }
    let row = work.customer(&keys::customer(customer))?.ok_or(LocalDamage::Missing("a customer"))?;
    Ok(Verdict::Applied(Applied { operation, effect: retell(&row, movements, outcome)? }))
}

/// Movements and bystanders as the first answer had them.
fn retell(
    customer: &CustomerRow,
    movements: Vec<(RecordId, Movement)>,
    outcome: Outcome,
) -> Result<Effect, LocalDamage> {
    let Outcome::Applied { remaining, hold, bystanders, .. } = outcome else {
        return Err(LocalDamage::Missing("the effect of a denial"));
    };
    let mut drawn = Vec::new();
    for (_, movement) in &movements {
        if !drawn.contains(&movement.wallet_no) {
            drawn.push(movement.wallet_no);
        }
    }
    let mut places: Vec<Option<WalletBalance>> = vec![None; drawn.len() + bystanders.len()];
    for (place, balance) in bystanders {
        let slot = places.get_mut(place as usize).ok_or(LocalDamage::Missing("the place of a bystander"))?;
        *slot = Some(balance);
    }
    let free: Vec<usize> = match hold.as_ref().filter(|hold| !hold.places.is_empty()) {
        None => (0..places.len()).filter(|&place| places[place].is_none()).collect(),
        Some(hold) => hold.places.iter().map(|&place| place as usize).collect(),
    };
    let mut posted = Vec::with_capacity(movements.len());
    for (id, movement) in movements {
        let nth = drawn.iter().position(|&no| no == movement.wallet_no);
        let place =
            nth.and_then(|nth| free.get(nth).copied()).ok_or(LocalDamage::Missing("a drawn wallet"))?;
        let entry = customer.wallets.iter().find(|entry| entry.no == movement.wallet_no);
        let entry = entry.ok_or(LocalDamage::Missing("a wallet of a customer"))?;
        let slot = places.get_mut(place).ok_or(LocalDamage::Missing("the place of a wallet"))?;
        *slot = Some(WalletBalance {
            wallet: entry.wallet.clone(),
            asset_code: entry.asset_code.as_str().into(),
            asset_scale: entry.asset_scale,
            balance: movement.balance_after,
        });
        posted.push(Posted {
            id,
            kind: movement.kind,
            status: movement.status,
            balance: place,
            amount: movement.amount,
            draws: movement.draws,
        });
    }
    let balances = places.into_iter().flatten().collect();
    let hold = hold.map(|hold| Box::new((hold.id, hold.state)));
    Ok(Effect::Posted { movements: posted, balances, remaining, hold })
}
