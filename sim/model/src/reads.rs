//! What a read shows.

use purser_ledger::amount::Amount;
use purser_ledger::query::TrancheStatus;
use purser_ledger::rows::hold::HoldStatus;
use purser_ledger::time::Time;
use purser_ledger::verdict::{Balance, WalletBalance};

use crate::{Hold, Model, Stage, Tranche, Wallet};

impl Model {
    /// The balance of a wallet at `now`, with everything that is due by then counted as booked.
    pub fn balance_when_all_is_booked(&self, wallet: &Wallet, now: Time) -> Balance {
        balance_of(&self.tranches_when_all_is_booked(wallet, now), |_| true)
    }

    /// The tranches of a wallet at `now`, with everything that is due by then counted as booked: first
    /// the time-outs, then the activations, then the expiries. What a time-out gives back of a tranche
    /// that expires later expires then, so no other order is needed.
    pub fn tranches_when_all_is_booked(&self, wallet: &Wallet, now: Time) -> Vec<Tranche> {
        let mut tranches = wallet.tranches.clone();
        for hold in self.holds.iter().filter(|hold| hold.status_at(now) == HoldStatus::Expired) {
            for pin in hold.parts.iter().flat_map(|part| &part.pins) {
                let Some(tranche) = tranches.iter_mut().find(|tranche| tranche.no == pin.tranche) else {
                    continue;
                };
                tranche.take_back(pin, hold.expires_at);
            }
        }
        for tranche in &mut tranches {
            if tranche.stage == Stage::Scheduled && tranche.effective_at <= now {
                tranche.stage = Stage::Active;
                tranche.available = tranche.amount;
            }
            if tranche.stage == Stage::Active && tranche.expires_at <= now {
                tranche.stage = Stage::Expired;
                tranche.expired += tranche.available;
                tranche.available = 0;
            }
        }
        tranches
    }

    /// The holds that have ever pinned something in a wallet, in order of placement.
    pub fn holds_in(&self, place: usize) -> Vec<&Hold> {
        self.holds.iter().filter(|hold| hold.parts.iter().any(|part| part.wallet == place)).collect()
    }

    /// Of these those that are open at `now`, the first to time out first.
    pub fn open_holds_in(&self, place: usize, now: Time) -> Vec<&Hold> {
        let mut holds = self.holds_in(place);
        holds.retain(|hold| hold.status_at(now) == HoldStatus::Open);
        holds.sort_by_key(|hold| (hold.expires_at, hold.no));
        holds
    }

    /// Wallets as an answer of now tells them.
    pub(crate) fn balances_of(&self, places: &[usize]) -> Vec<WalletBalance> {
        places.iter().map(|&place| self.wallets[place].after(self.now)).collect()
    }
}

impl Hold {
    /// Its status at an instant.
    pub fn status_at(&self, now: Time) -> HoldStatus {
        self.state_at(now).status
    }
}

impl Tranche {
    /// Where a read shows it in its life, if all that is due is counted as booked.
    pub fn status(&self) -> TrancheStatus {
        let nothing_left = self.available == 0 && self.held == 0;
        match self.stage {
            Stage::Pending => TrancheStatus::Pending,
            Stage::Scheduled => TrancheStatus::Scheduled,
            Stage::Failed => TrancheStatus::Failed,
            Stage::Voided => TrancheStatus::Voided,
            Stage::Active if nothing_left => TrancheStatus::Exhausted,
            Stage::Active => TrancheStatus::Active,
            // Of one that was spent before its end nothing has lapsed.
            Stage::Expired if nothing_left && self.expired == 0 => TrancheStatus::Exhausted,
            Stage::Expired => TrancheStatus::Expired,
        }
    }
}

impl Wallet {
    /// The balance as booked, but for expiries that are past: they count though not booked.
    pub(crate) fn balance(&self, now: Time) -> Balance {
        balance_of(&self.tranches, |tranche| tranche.expires_at > now)
    }

    /// The balance as booked.
    pub(crate) fn balance_as_booked(&self) -> Balance {
        balance_of(&self.tranches, |_| true)
    }

    fn after(&self, now: Time) -> WalletBalance {
        WalletBalance {
            wallet: self.info.wallet.clone(),
            asset_code: self.info.asset_code.as_str().into(),
            asset_scale: self.info.asset_scale,
            balance: self.balance(now),
        }
    }
}

/// The figures of some tranches. Of those that do not count only what is held does: it may still be
/// captured.
fn balance_of(tranches: &[Tranche], counts: impl Fn(&Tranche) -> bool) -> Balance {
    let (mut available, mut held, mut pending) = (0, 0, 0);
    for tranche in tranches {
        held += tranche.held;
        match tranche.stage {
            Stage::Pending | Stage::Scheduled => pending += tranche.amount,
            Stage::Active if counts(tranche) => available += tranche.available,
            _ => {}
        }
    }
    let debt = Amount::ZERO;
    Balance { available: Amount(available), held: Amount(held), pending: Amount(pending), debt }
}
