//! Which of the ledger's ids stands for which of the model's numbers: learned when two first meet, and
//! held to from then on, in both directions.

use std::collections::BTreeMap;
use std::fmt::Debug;

use purser_ledger::ids::{HoldId, OperationId, RecordId, TrancheId};

use super::Check;

/// The pairs of one kind of id.
#[derive(Clone)]
pub struct Pairs<Id, Number> {
    numbers: BTreeMap<Id, Number>,
    ids: BTreeMap<Number, Id>,
}

impl<Id, Number> Default for Pairs<Id, Number> {
    fn default() -> Self {
        Pairs { numbers: BTreeMap::new(), ids: BTreeMap::new() }
    }
}

impl<Id: Copy + Ord + Debug, Number: Copy + Ord + Debug> Pairs<Id, Number> {
    /// The number that an id stands for, once they have met.
    pub fn number(&self, id: Id) -> Option<Number> {
        self.numbers.get(&id).copied()
    }

    /// Holds an id to a number.
    pub fn pair(&mut self, id: Id, number: Number) -> Check {
        let known_number = *self.numbers.entry(id).or_insert(number);
        let known_id = *self.ids.entry(number).or_insert(id);
        match known_number == number && known_id == id {
            true => Ok(()),
            false => Err(format!(
                "{id:?} should be the model's {known_number:?}, and {number:?} the ledger's {known_id:?}; \
                 they were met together"
            )),
        }
    }
}

/// All pairs.
#[derive(Clone, Default)]
pub struct Names {
    /// Tranches, as the model counts them.
    pub tranches: Pairs<TrancheId, usize>,
    /// Holds, as the model counts them.
    pub holds: Pairs<HoldId, usize>,
    /// Operations, as the model counts them.
    pub operations: Pairs<OperationId, usize>,
    /// Movements: the place of their wallet in the model, and their number there.
    pub movements: Pairs<RecordId, (usize, u64)>,
}
