//! What a wallet's row says of its open holds: some of them with their time-outs, how many others time
//! out when, and how much of which tranche they have set aside.
//!
//! Most wallets have a request or two in flight. Up to [`HOLDS_STATED_MAX`] holds of a wallet stand in
//! its row, and have no row of their own until something becomes of them: neither for their time-out nor
//! among the wallet's holds. A hold that stands here is as it was placed.
//!
//! A hold and its capture change what is held of a tranche. It stands here, so that neither reads nor
//! writes the tranche's own row. A hold may pin a thousand tranches and a wallet's row has to stay small:
//! so only [`HELD_TRANCHES_MAX`] tranches stand here, and what is held of others stands in their rows. A
//! tranche may have some of it here and some there: what is held of it is the sum.
//!
//! Debits that come between find nothing to do here: they share it with the copy that a roll-back needs.
//!
//! Invariants ([`OpenHolds::check`]): the holds that stand here are in the order of their time-outs; no
//! tranche stands here twice or with nothing held; nothing is held
//! where no hold is open; no count of a span is zero, and spans stand in order.

use std::sync::Arc;

use crate::amount::Amount;
use crate::codec::{Damage, Reader, put_u64, put_u128};
use crate::ids::{HoldId, TrancheId};
use crate::time::Time;

/// Tranches whose held part stands in the wallet's own row: as many as its window has places. What many
/// holds of one wallet pin is nearly always of the few tranches that burn first.
pub const HELD_TRANCHES_MAX: usize = 8;

/// Open holds that stand in their wallet's own row. Each is 16 bytes more that a debit beside it writes.
pub const HOLDS_STATED_MAX: usize = 4;

/// How long the spans are in which open holds are counted by their time-outs: 268 seconds. A hold lives
/// at most a day: there are 323 spans at most.
const HOLD_SPAN_BITS: u32 = 28;

/// What a wallet's row says of its open holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OpenHolds(Option<Arc<Stated>>);

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Stated {
    /// The holds that have no row of their own, in the order of their time-outs.
    holds: Vec<(Time, HoldId)>,
    /// How many of the others time out in each span of time that has any.
    ///
    /// Of holds that were captured or released, a store keeps marks until it compacts. A look for the
    /// next time-out begins at the first span in which there is one, and never walks over the marks of
    /// all the others.
    spans: Vec<(u64, u32)>,
    /// How much of these tranches is held, in no order that matters.
    tranches: Vec<(TrancheId, Amount)>,
}

impl OpenHolds {
    fn stated(&mut self) -> &mut Stated {
        Arc::make_mut(self.0.get_or_insert_default())
    }

    fn drop_if_empty(&mut self) {
        let empty = |own: &Arc<Stated>| own.is_open_for_none() && own.tranches.is_empty();
        if self.0.as_ref().is_some_and(empty) {
            self.0 = None;
        }
    }

    /// Whether there is none, and nothing is held.
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// How many there are.
    pub fn total(&self) -> u64 {
        let others = self.0.iter().flat_map(|own| &own.spans).map(|(_, count)| u64::from(*count));
        self.stated_holds().len() as u64 + others.sum::<u64>()
    }

    /// The holds that have no row of their own, in the order of their time-outs.
    pub fn stated_holds(&self) -> &[(Time, HoldId)] {
        self.0.as_ref().map_or(&[], |own| &own.holds)
    }

    /// Whether a hold stands here: then it is as it was placed.
    pub fn states(&self, id: HoldId) -> bool {
        self.stated_holds().iter().any(|(_, own)| *own == id)
    }

    /// Adds a hold as it was placed. `false`: there is no room for it here.
    pub fn state(&mut self, time_out: Time, id: HoldId) -> bool {
        if self.stated_holds().len() >= HOLDS_STATED_MAX {
            return false;
        }
        let holds = &mut self.stated().holds;
        let place = holds.partition_point(|own| *own < (time_out, id));
        holds.insert(place, (time_out, id));
        true
    }

    /// Takes a hold out again. `false`: it does not stand here.
    pub fn unstate(&mut self, id: HoldId) -> bool {
        let Some(place) = self.stated_holds().iter().position(|(_, own)| *own == id) else { return false };
        self.stated().holds.remove(place);
        self.drop_if_empty();
        true
    }

    /// What must hold of it where so much is held in all; the text names what does not.
    pub fn check(&self, held: Amount) -> Result<(), &'static str> {
        let Some(own) = &self.0 else {
            return match held {
                Amount::ZERO => Ok(()),
                _ => Err("a wallet's held amount belongs to no open hold"),
            };
        };
        if own.is_open_for_none() {
            return Err("a wallet's held amount belongs to no open hold");
        }
        if !own.holds.is_sorted_by(|a, b| a < b) {
            return Err("the holds in a wallet's row are not in the order of their time-outs");
        }
        if own.spans.iter().any(|(_, count)| *count == 0) || !own.spans.is_sorted_by(|a, b| a.0 < b.0) {
            return Err("a wallet's open holds are not counted in order");
        }
        let mut rest = Some(held);
        for (place, (id, amount)) in own.tranches.iter().enumerate() {
            if *amount <= Amount::ZERO || own.tranches[..place].iter().any(|(other, _)| other == id) {
                return Err("a wallet's row tells of a tranche twice that it is held, or of nothing held");
            }
            rest = rest.and_then(|rest| rest.checked_sub(*amount));
        }
        match rest {
            Some(rest) if rest >= Amount::ZERO => Ok(()),
            _ => Err("a wallet's held amount is less than what is held of its tranches"),
        }
    }

    /// Counts one more of the others, or `None` where there are too many to count.
    pub fn add(&mut self, time_out: Time) -> Option<()> {
        let span = span_of(time_out);
        let spans = &mut self.stated().spans;
        match spans.binary_search_by_key(&span, |(own, _)| *own) {
            Ok(place) => spans[place].1 = spans[place].1.checked_add(1)?,
            Err(place) => spans.insert(place, (span, 1)),
        }
        Some(())
    }

    /// Counts one less of the others, or `None` where none was counted.
    pub fn remove(&mut self, time_out: Time) -> Option<()> {
        let span = span_of(time_out);
        let spans = &mut Arc::make_mut(self.0.as_mut()?).spans;
        let place = spans.binary_search_by_key(&span, |(own, _)| *own).ok()?;
        spans[place].1 -= 1;
        if spans[place].1 == 0 {
            spans.remove(place);
        }
        self.drop_if_empty();
        Some(())
    }

    /// The spans in which the others time out, in order: from and until when.
    pub fn spans(&self) -> impl Iterator<Item = (Time, Time)> {
        let spans = self.0.iter().flat_map(|own| &own.spans);
        spans.map(|(span, _)| (Time(span << HOLD_SPAN_BITS), Time((span + 1) << HOLD_SPAN_BITS)))
    }

    /// How much of which tranches is held, as far as it stands here.
    pub fn tranches(&self) -> &[(TrancheId, Amount)] {
        self.0.as_ref().map_or(&[], |own| &own.tranches)
    }

    /// How much of a tranche is held, as far as it stands here.
    pub fn held_of(&self, id: TrancheId) -> Amount {
        self.tranches().iter().find(|(own, _)| *own == id).map_or(Amount::ZERO, |(_, amount)| *amount)
    }

    /// Adds to what is held of a tranche. `false`: there is no room for it here.
    pub fn pin(&mut self, id: TrancheId, amount: Amount) -> bool {
        let there = self.tranches().iter().position(|(own, _)| *own == id);
        if there.is_none() && self.tranches().len() >= HELD_TRANCHES_MAX {
            return false;
        }
        let tranches = &mut self.stated().tranches;
        match there {
            Some(place) => tranches[place].1.0 += amount.0,
            None => tranches.push((id, amount)),
        }
        true
    }

    /// Takes from what is held of a tranche. What is left to take from its own row.
    pub fn unpin(&mut self, id: TrancheId, amount: Amount) -> Amount {
        let Some(place) = self.tranches().iter().position(|(own, _)| *own == id) else { return amount };
        let tranches = &mut self.stated().tranches;
        let taken = tranches[place].1.0.min(amount.0);
        tranches[place].1.0 -= taken;
        if tranches[place].1 == Amount::ZERO {
            tranches.swap_remove(place);
        }
        self.drop_if_empty();
        Amount(amount.0 - taken)
    }

    /// Appends it to a row.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let Some(own) = &self.0 else { return };
        out.push(own.holds.len() as u8);
        // In whole bytes: debits beside open holds write them too, and these are written at once.
        for (time_out, id) in &own.holds {
            out.extend_from_slice(&time_out.0.to_le_bytes());
            out.extend_from_slice(&id.0.to_le_bytes());
        }
        out.push(own.tranches.len() as u8);
        for (id, amount) in &own.tranches {
            out.extend_from_slice(&id.0.to_le_bytes());
            put_u128(out, amount.0 as u128);
        }
        put_u64(out, own.spans.len() as u64);
        let mut before = 0;
        for (span, count) in &own.spans {
            put_u64(out, span - before);
            put_u64(out, u64::from(*count));
            before = *span;
        }
    }

    /// Reads it from a row that has it.
    pub(super) fn decode(reader: &mut Reader<'_>) -> Result<OpenHolds, Damage> {
        const WHAT: Damage = Damage("wallet holds");
        let mut own = Stated::default();
        let count = usize::from(reader.byte("wallet holds")?);
        if count > HOLDS_STATED_MAX {
            return Err(WHAT);
        }
        for _ in 0..count {
            let time_out = Time(u64::from_le_bytes(reader.array("wallet holds")?));
            own.holds.push((time_out, HoldId(u64::from_le_bytes(reader.array("wallet holds")?))));
        }
        let count = usize::from(reader.byte("wallet holds")?);
        if count > HELD_TRANCHES_MAX {
            return Err(WHAT);
        }
        for _ in 0..count {
            let id = TrancheId(u64::from_le_bytes(reader.array("wallet holds")?));
            let amount = i128::try_from(reader.u128("wallet holds")?).map_err(|_| WHAT)?;
            own.tranches.push((id, Amount(amount)));
        }
        let count: usize = reader.narrow("wallet holds")?;
        let mut span = 0u64;
        for _ in 0..count {
            span = span.checked_add(reader.u64("wallet holds")?).ok_or(WHAT)?;
            own.spans.push((span, reader.narrow("wallet holds")?));
        }
        Ok(OpenHolds(Some(Arc::new(own))))
    }
}

impl Stated {
    fn is_open_for_none(&self) -> bool {
        self.holds.is_empty() && self.spans.is_empty()
    }
}

fn span_of(at: Time) -> u64 {
    at.0 >> HOLD_SPAN_BITS
}
