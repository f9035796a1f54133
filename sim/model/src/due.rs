//! What falls due: time-outs of holds, expiries, activations.

use purser_ledger::rows::journal::{MovementKind, MovementStatus};
use purser_ledger::time::Time;

use crate::movements::{Entry, draw_of};
use crate::{DUE_BOOKED_MAX, Details, Draw, Model, Stage, Stop};

/// Something that is due in a wallet: sorts in due order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Due {
    pub at: Time,
    pub what: DueWhat,
    /// The number of the hold or tranche.
    pub of: usize,
}

/// At one instant time-outs come first, then expiries, then activations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DueWhat {
    /// A hold times out: the part of it that is in this wallet.
    TimeOut,
    Expiry,
    Activation,
}

impl Model {
    /// Everything that is due in a wallet, in due order.
    pub fn due(&self, place: usize) -> Vec<Due> {
        let mut due = Vec::new();
        for hold in &self.holds {
            if hold.parts.iter().any(|part| part.wallet == place && !part.closed) {
                due.push(Due { at: hold.expires_at, what: DueWhat::TimeOut, of: hold.no });
            }
        }
        for tranche in &self.wallets[place].tranches {
            if tranche.stage == Stage::Scheduled {
                due.push(Due { at: tranche.effective_at, what: DueWhat::Activation, of: tranche.no });
            }
            let lapses = match tranche.stage {
                Stage::Scheduled => true,
                Stage::Active => tranche.available > 0,
                Stage::Pending | Stage::Expired | Stage::Failed | Stage::Voided => false,
            };
            if lapses {
                due.push(Due { at: tranche.expires_at, what: DueWhat::Expiry, of: tranche.no });
            }
        }
        due.retain(|due| due.at <= self.now);
        due.sort();
        due
    }

    /// Books at most 64 items in each wallet, the next one again and again, since a time-out may make
    /// available what expires later. Stops the command where a time-out or an activation is left.
    pub(crate) fn book_before_judging(&mut self, places: &[usize]) -> Result<(), Stop> {
        for &place in places {
            for _ in 0..DUE_BOOKED_MAX {
                let Some(next) = self.due(place).first().copied() else { break };
                self.book(place, next);
            }
        }
        let left = places.iter().flat_map(|&place| self.due(place));
        match left.into_iter().any(|due| due.what != DueWhat::Expiry) {
            true => Err(Stop::Backlog),
            false => Ok(()),
        }
    }

    /// Books an item, as an operation of its own if it writes movements.
    pub(crate) fn book(&mut self, place: usize, due: Due) {
        let before = self.wallets[place].movements.len();
        match due.what {
            DueWhat::TimeOut => self.time_out(place, due.of),
            DueWhat::Expiry => self.expire(place, due),
            DueWhat::Activation => self.activate(place, due),
        }
        if self.wallets[place].movements.len() > before {
            self.next_operation();
        }
    }

    fn expire(&mut self, place: usize, due: Due) {
        let tranche = self.tranche_numbered(place, due.of);
        let lost = tranche.available;
        tranche.stage = Stage::Expired;
        tranche.available = 0;
        tranche.expired += lost;
        let draw = draw_of(tranche, lost);
        self.post_due(place, due.at, MovementKind::Expired, -lost, draw);
    }

    fn activate(&mut self, place: usize, due: Due) {
        let tranche = self.tranche_numbered(place, due.of);
        tranche.stage = Stage::Active;
        tranche.available = tranche.amount;
        let (amount, draw) = (tranche.amount, draw_of(tranche, tranche.amount));
        self.post_due(place, due.at, MovementKind::Granted, amount, draw);
    }

    /// Writes the movement of a tranche that was due, under no key.
    fn post_due(&mut self, place: usize, due_at: Time, kind: MovementKind, amount: i128, draw: Draw) {
        let entry = Entry {
            kind,
            status: MovementStatus::Posted,
            amount,
            draws: vec![draw],
            hold: None,
            corrects: None,
            details: Details::default(),
            due_at: Some(due_at),
        };
        self.post(place, 0, entry);
    }
}
