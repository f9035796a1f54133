//! From the ledger's ids to the model's numbers.

use std::collections::BTreeMap;

use purser_ledger::amount::Amount;
use purser_ledger::command::{Adjust, Change, Command, Operation};
use purser_ledger::ids::{Customer, HoldId, OperationId, RecordId, TrancheId};
use purser_ledger::query::{HoldView, LedgerEntry};
use purser_ledger::rows::hold::{HoldState, HoldStatus};
use purser_ledger::rows::journal::MovementKind;
use purser_ledger::time::Time;
use purser_ledger::verdict::{self, Answer};
use purser_model::{
    Details, Draw, Effect, Hold, HoldPayer, Movement, Pin, Posted, Reply, Verdict, Wallet, movement_id,
};

use super::core::{Check, SHARD_TAG};
use super::pair::{hold_of, same};

/// Ids that the model does not know stay apart from its numbers.
const UNKNOWN: u64 = 1 << 63;

/// Which of the ledger's ids stands for which of the model's numbers.
#[derive(Default)]
pub struct Names {
    pub tranches: BTreeMap<TrancheId, usize>,
    pub holds: BTreeMap<HoldId, usize>,
    operations: BTreeMap<OperationId, usize>,
    /// A movement is known by the place of its wallet and its number there.
    records: BTreeMap<RecordId, (usize, u64)>,
    /// Likewise, as answers tell them: a command may name a movement before any list was read.
    told: BTreeMap<RecordId, (usize, u64)>,
}

/// A hold as both show it.
#[derive(Debug, PartialEq, Eq)]
pub struct HoldShown {
    no: Option<usize>,
    state: HoldState,
    /// Code and scale, of a hold by customer.
    asset: Option<(String, u8)>,
    details: Details,
    /// For each wallet, what is pinned.
    parts: Vec<(String, Vec<Pin>)>,
}

impl Names {
    /// The command in the model's numbers.
    pub fn translated(&self, command: &Command<'static>) -> Command<'static> {
        let mut command = command.clone();
        match &mut command.operation {
            Operation::ExtendHold(extend) => extend.hold = self.hold_there(extend.hold),
            Operation::Capture(capture) => capture.hold = self.hold_there(capture.hold),
            Operation::Release(release) => release.hold = self.hold_there(release.hold),
            Operation::ConfirmGrant(confirm) => confirm.tranche = self.tranche_there(confirm.tranche),
            Operation::EndGrant(end) => end.tranche = self.tranche_there(end.tranche),
            Operation::Adjust(Adjust { change: Change::Down { tranche: Some(tranche), .. }, .. }) => {
                *tranche = self.tranche_there(*tranche);
            }
            Operation::Refund(refund) => refund.movement = self.movement_there(refund.movement),
            _ => {}
        }
        command
    }

    fn hold_there(&self, id: HoldId) -> HoldId {
        HoldId(self.holds.get(&id).map_or(id.0 | UNKNOWN, |no| *no as u64))
    }

    fn tranche_there(&self, id: TrancheId) -> TrancheId {
        TrancheId(self.tranches.get(&id).map_or(id.0 | UNKNOWN, |no| *no as u64))
    }

    fn movement_there(&self, id: RecordId) -> RecordId {
        match self.place_of(id) {
            Some((place, number)) => movement_id(place, number),
            None => RecordId(id.0 | UNKNOWN),
        }
    }

    /// The place of a movement's wallet, and its number there.
    pub fn place_of(&self, id: RecordId) -> Option<(usize, u64)> {
        self.records.get(&id).or_else(|| self.told.get(&id)).copied()
    }

    /// Learns the ids that the answer to a command tells.
    pub fn learn(&mut self, customer: Customer<'_>, wallets: &[Wallet], expected: &Reply, answer: &Answer) {
        let verdict::Reply::Verdict { verdict: verdict::Verdict::Applied(applied), .. } = &answer.reply
        else {
            return;
        };
        let verdict::Effect::Posted { movements: given, hold, .. } = &applied.effect else { return };
        if let (Some(no), Some(hold)) = (hold_of(expected), hold) {
            self.holds.entry(hold.0).or_insert(no);
        }
        let Reply::Verdict { verdict: Verdict::Applied { effect, .. }, .. } = expected else { return };
        let Effect::Posted { movements, balances, .. } = effect else { return };
        for (given, expected) in given.iter().zip(movements) {
            let named = &balances[expected.balance].wallet;
            let place =
                wallets.iter().position(|own| own.customer() == customer && own.info.wallet == *named);
            if let Some(place) = place {
                self.told.entry(given.id).or_insert((place, expected.number));
            }
            if makes_tranches(given.kind, given.amount) {
                self.learn_tranches(&given.draws, &expected.draws);
            }
        }
    }

    fn learn_tranches(&mut self, given: &[verdict::Draw], expected: &[Draw]) {
        for (draw, expected) in given.iter().zip(expected) {
            self.tranches.entry(draw.tranche).or_insert(expected.tranche);
        }
    }

    /// Learns the ids of a movement from the one expected in its place, and maps it.
    pub fn movement(
        &mut self,
        place: usize,
        before: Option<&LedgerEntry>,
        entry: &LedgerEntry,
        expected: &Movement,
    ) -> Check<Movement> {
        let own = &entry.movement;
        if entry.id.0 & 0xffff != u64::from(SHARD_TAG) {
            return Err(format!("{:?} does not bear the shard's tag", entry.id));
        }
        self.records.insert(entry.id, (place, own.number));
        if makes_tranches(own.kind, own.amount) {
            self.learn_tranches(&own.draws, &expected.draws);
        }
        let operation = self.operation(own.operation, expected.operation);
        // What the shard books itself is an operation of its own; a time-out may write three movements.
        let continues = before.is_some_and(|before| before.movement.operation == own.operation);
        if own.key.is_empty() && !(continues && own.hold.is_some()) {
            same("the operation of what the shard books", &entry.id.0, &own.operation.0)?;
        }
        Ok(Movement {
            operation,
            number: own.number,
            kind: own.kind,
            status: own.status,
            booked_at: own.booked_at,
            effective_at: own.effective_at,
            amount: own.amount,
            settled_after: own.settled_after,
            balance_after: own.balance_after,
            draws: self.draws(&own.draws),
            hold: own.hold.map(|id| self.holds.get(&id).copied().unwrap_or(usize::MAX)),
            corrects: own.corrects.map(|id| match self.records.get(&id) {
                Some((of, number)) if *of == place => *number,
                _ => u64::MAX,
            }),
            details: Details {
                charge_type: own.charge_type,
                feature: own.feature.clone(),
                key: own.key.clone(),
                actor: own.actor.clone(),
                reason_code: own.reason_code.clone(),
                reference: own.reference.clone(),
                metadata: own.metadata.clone(),
            },
        })
    }

    fn operation(&mut self, id: OperationId, expected: usize) -> usize {
        *self.operations.entry(id).or_insert(expected)
    }

    /// An unknown tranche maps to a number that no tranche has.
    fn tranche(&self, id: TrancheId) -> usize {
        self.tranches.get(&id).copied().unwrap_or(usize::MAX)
    }

    fn draws(&self, draws: &[verdict::Draw]) -> Vec<Draw> {
        draws
            .iter()
            .map(|draw| Draw {
                tranche: self.tranche(draw.tranche),
                kind: draw.kind,
                amount: draw.amount,
                left: draw.left,
            })
            .collect()
    }

    /// An answer, mapped; ids that are new in it are learned from the one expected.
    pub fn reply(&mut self, wallets: &[Wallet], answer: &Answer, expected: &Reply) -> Check<Reply> {
        Ok(match &answer.reply {
            verdict::Reply::KeyReused => Reply::KeyReused,
            verdict::Reply::KeyTooOld => Reply::KeyTooOld,
            verdict::Reply::Backlog => Reply::Backlog,
            verdict::Reply::Swept { booked, more } => Reply::Swept { booked: *booked, more: *more },
            verdict::Reply::Fault(what) => return Err(format!("fault: {what}; the model: {expected:?}")),
            verdict::Reply::Verdict { replayed, verdict } => {
                let verdict = match verdict {
                    verdict::Verdict::Denied(denial) => Verdict::Denied(*denial),
                    verdict::Verdict::Applied(applied) => self.applied(wallets, applied, expected)?,
                };
                Reply::Verdict { replayed: *replayed, verdict }
            }
        })
    }

    fn applied(
        &mut self,
        wallets: &[Wallet],
        applied: &verdict::Applied,
        expected: &Reply,
    ) -> Check<Verdict> {
        let Reply::Verdict { verdict: Verdict::Applied { operation, .. }, .. } = expected else {
            return Err(format!("the ledger applied {applied:?}; the model: {expected:?}"));
        };
        let operation = self.operation(applied.operation, *operation);
        let effect = match &applied.effect {
            verdict::Effect::Wallet(info) => Effect::Wallet(info.clone()),
            verdict::Effect::Posted { movements, balances, remaining, hold } => {
                if let Some(first) = movements.first() {
                    same("operation, by its first movement", &first.id.0, &applied.operation.0)?;
                }
                let movements = movements.iter().map(|posted| {
                    let named = &balances[posted.balance].wallet;
                    self.posted(wallets, posted, named)
                });
                let movements = movements.collect::<Check<Vec<Posted>>>()?;
                let number = |id| self.holds.get(id).copied().unwrap_or(usize::MAX);
                let hold = hold.as_ref().map(|hold| (number(&hold.0), hold.1.clone()));
                Effect::Posted { movements, balances: balances.clone(), remaining: *remaining, hold }
            }
        };
        Ok(Verdict::Applied { operation, effect })
    }

    fn posted(&self, wallets: &[Wallet], posted: &verdict::Posted, wallet: &str) -> Check<Posted> {
        let Some(&(place, number)) = self.records.get(&posted.id) else {
            return Err(format!("{:?} of an answer stands in no wallet", posted.id));
        };
        same("wallet of a movement", &wallets[place].info.wallet.as_str(), &wallet)?;
        Ok(Posted {
            balance: posted.balance,
            number,
            kind: posted.kind,
            status: posted.status,
            amount: posted.amount,
            draws: self.draws(&posted.draws),
        })
    }

    /// A hold as a read shows it, mapped.
    pub fn hold_shown(&self, view: &HoldView) -> HoldShown {
        let row = &view.hold;
        let pins = |pins: &[purser_ledger::rows::hold::Pin]| {
            let pins = pins.iter().map(|pin| Pin {
                tranche: self.tranche(pin.tranche),
                kind: pin.kind,
                amount: pin.amount.0,
                expires_at: pin.expires_at,
            });
            pins.collect()
        };
        HoldShown {
            no: self.holds.get(&view.id).copied(),
            state: row.state.clone(),
            asset: row.asset.clone(),
            details: Details {
                charge_type: row.charge_type,
                feature: row.feature.clone().unwrap_or_default(),
                reason_code: row.reason_code.clone(),
                reference: row.reference.clone(),
                metadata: row.metadata.clone(),
                ..Details::default()
            },
            parts: row.parts.iter().map(|part| (part.wallet.clone(), pins(&part.pins))).collect(),
        }
    }

    /// Ids sort by creation, and no two of them stand for the same thing.
    pub fn in_order(&self) -> Check {
        rising("tranches", &self.tranches)?;
        rising("holds", &self.holds)?;
        rising("operations", &self.operations)
    }
}

/// A hold as a read at `at` must show it: once it has timed out nothing is pinned.
pub fn hold_expected(wallets: &[Wallet], hold: &Hold, at: Time) -> HoldShown {
    let state = hold.state_at(at);
    let open = state.status == HoldStatus::Open;
    let parts = hold.parts.iter().map(|part| {
        let pins = if open { part.pins.clone() } else { Vec::new() };
        (wallets[part.wallet].info.wallet.clone(), pins)
    });
    let placed_with = hold.placed_with.clone();
    HoldShown {
        no: Some(hold.no),
        state,
        asset: match &hold.payer {
            HoldPayer::Wallet(_) => None,
            HoldPayer::CustomerIn(code, scale) => Some((code.clone(), *scale)),
        },
        details: Details { key: String::new(), actor: String::new(), ..placed_with },
        parts: parts.collect(),
    }
}

/// Whether what such a movement draws on is new.
fn makes_tranches(kind: MovementKind, amount: Amount) -> bool {
    kind == MovementKind::Granted || (kind == MovementKind::Adjusted && amount > Amount::ZERO)
}

fn rising<Id: std::fmt::Debug>(what: &str, numbers: &BTreeMap<Id, usize>) -> Check {
    match numbers.values().is_sorted_by(|before, after| before < after) {
        true => Ok(()),
        false => Err(format!("ids of {what} do not sort by creation: {numbers:?}")),
    }
}
