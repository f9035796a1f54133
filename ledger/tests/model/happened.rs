//! What has happened in a session while it is written: the holds, tranches and movements that its
//! commands may be about, the newest last.

use purser_ledger::command::{Change, Command, Operation};
use purser_ledger::ids::{Customer, HoldId, RecordId, TrancheId};
use purser_ledger::rows::journal::MovementKind;
use purser_ledger::time::Time;
use purser_ledger::verdict::{Answer, Effect, Posted, Reply, Verdict};

use super::drafts::{MovementPick, TrancheSort, lifetime_in};

/// A tranche, and what of it a leader resolves its lifetime from.
#[derive(Clone, Copy, Debug)]
pub struct Granted {
    pub customer: Customer<'static>,
    pub wallet: &'static str,
    pub id: TrancheId,
    /// That it was granted pending with.
    pub lifetime: Option<u64>,
    pub effective_at: Time,
}

#[derive(Default)]
pub struct Happened {
    /// The holds placed, and whose they are.
    holds: Vec<(Customer<'static>, HoldId)>,
    tranches: Vec<Granted>,
    /// Of these: those that wait for their invoice.
    waiting: Vec<TrancheId>,
    /// Those that failed or were voided.
    ended: Vec<TrancheId>,
    /// Those that a hold has pinned.
    pinned: Vec<TrancheId>,
    /// Those that a debit or capture has drawn on.
    spent: Vec<TrancheId>,
    /// The movements of debits and captures.
    spending: Vec<(Customer<'static>, RecordId)>,
    /// The other movements.
    others: Vec<(Customer<'static>, RecordId)>,
    /// The operations without movements, which left another record.
    records: Vec<(Customer<'static>, RecordId)>,
}

impl Happened {
    /// Keeps what came of a command.
    pub fn learn(&mut self, command: &Command<'static>, answer: &Answer) {
        let customer = command.header.customer;
        let Reply::Verdict { replayed: false, verdict: Verdict::Applied(applied) } = &answer.reply else {
            return;
        };
        let record = (customer, RecordId(applied.operation.0));
        let Effect::Posted { movements, hold, .. } = &applied.effect else {
            return self.records.push(record);
        };
        if movements.is_empty() {
            self.records.push(record);
        }
        self.learn_tranches(command, answer.now, movements);
        for movement in movements {
            let drawn = movement.draws.iter().map(|draw| draw.tranche);
            let list = match movement.kind {
                MovementKind::Consumed | MovementKind::Captured => {
                    self.spent.extend(drawn);
                    &mut self.spending
                }
                MovementKind::Held => {
                    self.pinned.extend(drawn);
                    &mut self.others
                }
                _ => &mut self.others,
            };
            list.push((customer, movement.id));
        }
        if let (Operation::Hold(_), Some(hold)) = (&command.operation, hold) {
            self.holds.push((customer, hold.0));
        }
    }

    fn learn_tranches(&mut self, command: &Command<'static>, now: Time, movements: &[Posted]) {
        let customer = command.header.customer;
        let mut ids: Vec<TrancheId> =
            movements.iter().flat_map(|movement| &movement.draws).map(|draw| draw.tranche).collect();
        // They sort as they stood in the request.
        ids.sort();
        match &command.operation {
            Operation::Grant(grant) => {
                for (spec, id) in grant.tranches.iter().zip(ids) {
                    let lifetime = if spec.pending { lifetime_in(spec.expiry) } else { None };
                    let effective_at = spec.effective_at.unwrap_or(now);
                    let wallet = grant.wallet;
                    self.tranches.push(Granted { customer, wallet, id, lifetime, effective_at });
                    if spec.pending {
                        self.waiting.push(id);
                    }
                }
            }
            Operation::Adjust(adjust) if matches!(adjust.change, Change::Up { .. }) => {
                let (wallet, lifetime, effective_at) = (adjust.wallet, None, now);
                let made = |id| Granted { customer, wallet, id, lifetime, effective_at };
                self.tranches.extend(ids.into_iter().map(made));
            }
            Operation::ConfirmGrant(confirm) => self.waiting.retain(|id| *id != confirm.tranche),
            Operation::EndGrant(end) => {
                self.waiting.retain(|id| *id != end.tranche);
                self.ended.push(end.tranche);
            }
            _ => {}
        }
    }

    /// The hold so many before the last.
    pub fn hold(&self, back: usize) -> Option<(Customer<'static>, HoldId)> {
        newest_but(&self.holds, back)
    }

    /// The tranche of this sort so many before the last.
    pub fn tranche(&self, sort: TrancheSort, back: usize) -> Option<&Granted> {
        let list = match sort {
            TrancheSort::Any => &Vec::new(),
            TrancheSort::Waiting => &self.waiting,
            TrancheSort::Ended => &self.ended,
            TrancheSort::Pinned => &self.pinned,
            TrancheSort::Spent => &self.spent,
        };
        // Where there is none of the sort, any is better than none.
        match newest_but(list, back) {
            Some(id) => self.granted(id),
            None => self.granted(newest_but(&self.tranches, back)?.id),
        }
    }

    /// The movement so many before the last of its sort, and whose it is.
    pub fn movement(&self, pick: MovementPick) -> Option<(Customer<'static>, RecordId)> {
        match pick {
            MovementPick::Spent(back) | MovementPick::SpentByAny(back) => newest_but(&self.spending, back),
            MovementPick::Other(back) => newest_but(&self.others, back),
            MovementPick::Record(back) => newest_but(&self.records, back),
            MovementPick::Strange(_) => None,
        }
    }

    pub fn granted(&self, id: TrancheId) -> Option<&Granted> {
        self.tranches.iter().find(|granted| granted.id == id)
    }
}

fn newest_but<T: Copy>(list: &[T], back: usize) -> Option<T> {
    (!list.is_empty()).then(|| list[list.len() - 1 - back % list.len()])
}
