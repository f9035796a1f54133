//! Audit: a wallet's hash chain and every balance, computed again from its movements.
//!
//! The audit trusts nothing but the movements' bytes. It walks them from the first, chains their
//! hashes, keeps each tranche's account, and holds the result against the wallet's row, the tranche
//! rows and the open-tranche rows. What does not add up is a finding.

use std::collections::BTreeMap;

use crate::amount::Amount;
use crate::burn;
use crate::ids::{Customer, RecordId, TrancheId};
use crate::query::{self, ReadError};
use crate::rows::journal::{self, Movement, MovementKind, MovementStatus, RUN_MOVEMENTS};
use crate::rows::keys;
use crate::rows::tranche::{TrancheLife, TrancheRow};
use crate::store::{LocalDamage, Store};
use crate::workspace::{Stop, WalletAt, Workspace};

/// Movements read at once.
const RUN: usize = RUN_MOVEMENTS as usize;

/// What an audit of one wallet found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditReport {
    /// How many movements were read.
    pub movements: u64,
    /// How many tranches were held against them.
    pub tranches: u64,
    /// The settled balance that the movements sum to.
    pub settled: Amount,
    /// The head of the chain that the movements hash to.
    pub chain_head: [u8; 32],
    /// What does not add up, in words; empty where all does.
    pub findings: Vec<String>,
}

#[derive(Clone, Copy, Default)]
struct Account {
    granted: Amount,
    pending: Amount,
    consumed: Amount,
    held: Amount,
    released: Amount,
    refunded: Amount,
    expired: Amount,
    voided: Amount,
    withdrawn: Amount,
}

/// Audits one wallet, as booked.
pub fn audit<S: Store + ?Sized>(
    store: &S,
    customer: Customer<'_>,
    wallet: &str,
) -> Result<AuditReport, ReadError> {
    let mut work = Workspace::open(store, 0)?;
    let at = query::find(&mut work, customer, wallet)?;
    let mut walk = Walk {
        findings: Vec::new(),
        head: [0; 32],
        settled: Amount::ZERO,
        last: RecordId::NONE,
        count: 0,
        accounts: BTreeMap::new(),
    };
    loop {
        let page = query::movements(store, customer, wallet, walk.count + 1, RUN)?;
        if page.is_empty() {
            break;
        }
        for entry in page {
            let row = work.get(&keys::record(entry.id))?.ok_or(LocalDamage::Missing("a movement"))?;
            walk.step(entry.id, &entry.movement, &row);
        }
    }
    let tranches = walk.compare(&work, at)?;
    Ok(AuditReport {
        movements: walk.count,
        tranches,
        settled: walk.settled,
        chain_head: walk.head,
        findings: walk.findings,
    })
}

struct Walk {
    findings: Vec<String>,
    head: [u8; 32],
    settled: Amount,
    last: RecordId,
    count: u64,
    accounts: BTreeMap<TrancheId, Account>,
}

impl Walk {
    fn step(&mut self, id: RecordId, movement: &Movement, row: &[u8]) {
        self.count += 1;
        self.head = journal::chain(&self.head, row);
        let mut expect = |holds: bool, what: String| {
            if !holds {
                self.findings.push(what);
            }
        };
        expect(
            movement.number == self.count,
            format!("{id}: its number is {}, not {}", movement.number, self.count),
        );
        expect(movement.previous == self.last, format!("{id}: it does not follow {}", self.last));
        let settled = self.settled.checked_add(movement.amount);
        expect(
            settled == Some(movement.settled_after),
            format!("{id}: the balance after does not follow from the one before"),
        );
        self.settled = movement.settled_after;
        self.last = id;
        let sum = movement.draws.iter().try_fold(Amount::ZERO, |sum, draw| sum.checked_add(draw.amount));
        let effect = match (movement.kind, movement.status) {
            (_, MovementStatus::Pending) => Some(Amount::ZERO),
            (MovementKind::Granted | MovementKind::Refunded, _) => sum,
            (MovementKind::Adjusted, _) if movement.amount > Amount::ZERO => sum,
            (MovementKind::Held | MovementKind::Released, _) => sum.map(|_| Amount::ZERO),
            (_, MovementStatus::Posted) => sum.map(|sum| Amount(-sum.0)),
        };
        expect(effect == Some(movement.amount), format!("{id}: its draws do not sum to its amount"));
        let (from_hold, adds) = (movement.hold.is_some(), movement.amount > Amount::ZERO);
        for draw in &movement.draws {
            let account = self.accounts.entry(draw.tranche).or_default();
            let (gains, loses) = match (movement.kind, movement.status) {
                (MovementKind::Granted, MovementStatus::Pending) => (&mut account.pending, None),
                (MovementKind::Granted, MovementStatus::Posted) => (&mut account.granted, None),
                (MovementKind::Consumed, _) => (&mut account.consumed, None),
                (MovementKind::Expired, _) if from_hold => (&mut account.expired, Some(&mut account.held)),
                (MovementKind::Expired, _) => (&mut account.expired, None),
                (MovementKind::Held, _) => (&mut account.held, None),
                (MovementKind::Released, _) => (&mut account.released, Some(&mut account.held)),
                (MovementKind::Captured, _) => (&mut account.consumed, Some(&mut account.held)),
                (MovementKind::Voided, MovementStatus::Pending) => (&mut account.withdrawn, None),
                (MovementKind::Voided, _) if from_hold => (&mut account.voided, Some(&mut account.held)),
                (MovementKind::Voided, _) => (&mut account.voided, None),
                (MovementKind::Refunded, _) => (&mut account.refunded, Some(&mut account.consumed)),
                (MovementKind::Adjusted, _) if adds => (&mut account.granted, None),
                (MovementKind::Adjusted, _) => (&mut account.voided, None),
            };
            *gains = gains.checked_add(draw.amount).unwrap_or(Amount(i128::MAX));
            if let Some(loses) = loses {
                loses.0 -= draw.amount.0;
            }
            let gone = account.consumed.0 + account.expired.0 + account.voided.0;
            let left = account.granted.0 - account.held.0 - gone;
            let told = if movement.status == MovementStatus::Pending { 0 } else { left };
            if draw.left.0 != told
                || left < 0
                || account.held < Amount::ZERO
                || account.consumed < Amount::ZERO
            {
                self.findings
                    .push(format!("{id}: what is left of {} does not follow from its draws", draw.tranche));
            }
        }
    }

    /// Holds the accounts against the rows; how many tranches there are.
    fn compare<S: Store + ?Sized>(&mut self, work: &Workspace<'_, S>, at: WalletAt) -> Result<u64, Stop> {
        let wallet = work.wallet(at);
        let mut findings = Vec::new();
        if wallet.movements != self.count || wallet.last_movement != self.last {
            findings.push("the wallet's row names another last movement".to_owned());
        }
        if wallet.chain_head != self.head {
            findings.push("the movements do not hash to the wallet's chain head".to_owned());
        }
        if wallet.available.checked_add(wallet.held) != Some(self.settled) {
            findings.push("the wallet's total differs from the sum of its movements".to_owned());
        }
        let (mut pending, mut held) = (0i128, 0i128);
        let mut tranches = 0;
        let prefix = keys::tranches_of(wallet.no);
        let mut from = prefix.clone();
        loop {
            let rows = work.scan(&from, &keys::end_of(&prefix), query::PAGE_ROWS_MAX)?;
            let Some((last, _)) = rows.last() else { break };
            from = keys::after(last.clone());
            for (key, row) in &rows {
                tranches += 1;
                let id = key.last_chunk::<8>().ok_or(LocalDamage::Missing("a tranche id"))?;
                let id = TrancheId(u64::from_be_bytes(*id));
                let tranche = TrancheRow::decode(row)?;
                let account = self.accounts.remove(&id).unwrap_or_default();
                let open = match tranche.life {
                    TrancheLife::Open => burn::open_part(work, at, id, &tranche)?,
                    _ => Amount::ZERO,
                };
                let scheduled = match tranche.life {
                    TrancheLife::Scheduled | TrancheLife::Pending => tranche.amount,
                    _ => Amount::ZERO,
                };
                pending += scheduled.0;
                held += account.held.0;
                let voided = Amount(account.voided.0 + account.withdrawn.0);
                let parts = [scheduled, open, account.held, account.consumed, account.expired, voided];
                let conserved = tranche.amount.0 == parts.iter().map(|part| part.0).sum::<i128>();
                let told = account.granted.0 + scheduled.0 + account.withdrawn.0 == tranche.amount.0
                    && tranche.voided == voided
                    && account.expired == tranche.expired
                    && account.held == work.held_of(at, id, &tranche);
                if !conserved || !told {
                    findings.push(format!("{id}: its parts do not sum to what was granted"));
                }
            }
        }
        if wallet.pending.0 != pending {
            findings.push("the wallet's pending total differs from its scheduled tranches".to_owned());
        }
        if wallet.held.0 != held {
            findings.push("the wallet's held total differs from its held tranches".to_owned());
        }
        findings.extend(self.accounts.keys().map(|id| format!("{id}: movements name it, but it has no row")));
        self.findings.append(&mut findings);
        Ok(tranches)
    }
}
