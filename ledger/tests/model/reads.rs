//! What reads show of a wallet: balances, tranches, holds and the audit of both sides compared.

use purser_ledger::ids::Customer;
use purser_ledger::query::TrancheStatus;
use purser_ledger::time::Time;
use purser_model::{Hold, Stage, Tranche};

use super::accounts::adds_up;
use super::core::Check;
use super::names::{HoldShown, hold_expected};
use super::pair::{Pair, same};

/// How far ahead balances are read, besides now.
const AHEAD: [u64; 3] = [0, 7, 30];
/// More than a wallet has of anything.
const ALL: usize = 1_000;
/// Holds read at once where they are read page by page.
const PAGE: usize = 16;
/// As many of the newest holds of a wallet are read one by one after each batch.
const NEWEST: usize = 6;

impl Pair {
    /// Compares balances, tranches, holds and the audit of one wallet, and recomputes its sums.
    pub fn wallet_agrees(&mut self, place: usize) -> Check {
        let wallet = &self.model.wallets()[place];
        let (customer, id) = (wallet.customer(), wallet.info.wallet.as_str());
        let name = format!("{}/{id}", wallet.customer);
        for ahead in AHEAD {
            let at = Time(self.model.now().0 + ahead);
            let of = |what: &str| format!("{what} of {name} at {}", at.0);
            let expected = self.model.balance_when_all_is_booked(wallet, at);
            same(&of("balance"), &expected, &self.core.balance(customer, id, at)?)?;
            let view = self.core.wallet(customer, id, at)?;
            same(&of("attributes"), &wallet.info, &view.info)?;
            same(&of("balance with the wallet"), &expected, &view.balance)?;
            let open_holds = self.model.open_holds_in(place, at).len() as u64;
            same(&of("open holds"), &open_holds, &view.open_holds)?;
            same(&of("number of movements"), &(wallet.movements.len() as u64), &view.movements)?;
            let tranches = self.model.tranches_when_all_is_booked(wallet, at);
            let views = self.core.tranches(customer, id, at)?;
            let expected: Vec<_> = tranches.iter().map(view_of).collect();
            let given: Vec<_> = views
                .iter()
                .map(|view| {
                    let no = self.names.tranches.get(&view.id).copied();
                    (
                        no,
                        view.status,
                        view.tranche.expires_at,
                        [view.available, view.held, view.consumed, view.expired, view.voided]
                            .map(|sum| sum.0),
                    )
                })
                .collect();
            same(&of("tranches"), &expected, &given)?;
            let expected: Vec<_> = tranches.iter().filter_map(open_view_of).collect();
            let views_of_open = self.core.open_tranches(customer, id, at)?;
            let given: Vec<_> = views_of_open
                .iter()
                .map(|view| {
                    let no = self.names.tranches.get(&view.id).copied();
                    (no, view.expires_at, [view.available, view.held, view.pending].map(|sum| sum.0))
                })
                .collect();
            same(&of("open tranches"), &expected, &given)?;
            adds_up(&self.compared[place], &views).map_err(|what| format!("{}: {what}", of("movements")))?;
            self.holds_agree(place, customer, id, at).map_err(|what| of(&what))?;
        }
        let own = self.model.wallets().iter().filter(|own| own.customer() == customer);
        let infos: Vec<_> = own.map(|own| own.info.clone()).collect();
        same(&format!("wallets of {}", wallet.customer), &infos, &self.core.wallets(customer)?)?;
        let report = self.core.audit(customer, id)?;
        same(&format!("findings of the audit of {name}"), &Vec::new(), &report.findings)?;
        same(&format!("settled by the audit of {name}"), &wallet.settled(), &report.settled.0)
    }

    fn holds_agree(&self, place: usize, customer: Customer<'_>, wallet: &str, at: Time) -> Check {
        let expected = |holds: &[&Hold]| -> Vec<HoldShown> {
            holds.iter().map(|hold| hold_expected(self.model.wallets(), hold, at)).collect()
        };
        let all = self.model.holds_in(place);
        let shown = |backwards, page| -> Check<Vec<HoldShown>> {
            let views = self.core.holds(customer, wallet, at, backwards, page)?;
            Ok(views.iter().map(|view| self.names.hold_shown(view)).collect())
        };
        same("holds", &expected(&all), &shown(false, ALL)?)?;
        if at == self.model.now() {
            same("holds page by page", &expected(&all), &shown(false, PAGE)?)?;
            let backwards: Vec<&Hold> = all.iter().rev().copied().collect();
            same("holds backwards", &expected(&backwards), &shown(true, PAGE)?)?;
        }
        let open = self.model.open_holds_in(place, at);
        for limit in [ALL, 2] {
            let views = self.core.open_holds(customer, wallet, at, limit)?;
            let given: Vec<HoldShown> = views.iter().map(|view| self.names.hold_shown(view)).collect();
            same("open holds", &expected(&open[..limit.min(open.len())]), &given)?;
        }
        for hold in all.iter().rev().take(NEWEST) {
            let id = self.names.holds.iter().find(|(_, no)| **no == hold.no);
            let (id, _) = id.ok_or_else(|| format!("hold {} has no id", hold.no))?;
            let view = self.core.hold(customer, *id, at)?.map(|view| self.names.hold_shown(&view));
            same("hold", &Some(hold_expected(self.model.wallets(), hold, at)), &view)?;
            let others = self.model.wallets().iter().map(|wallet| wallet.customer());
            for other in others.filter(|other| *other != customer) {
                same("a hold, to another customer", &None, &self.core.hold(other, *id, at)?)?;
            }
        }
        Ok(())
    }
}

/// What a read shows of a tranche: the tranche with all that is due counted as booked.
fn view_of(tranche: &Tranche) -> (Option<usize>, TrancheStatus, Time, [i128; 5]) {
    let figures = [tranche.available, tranche.held, tranche.consumed, tranche.expired, tranche.voided];
    (Some(tranche.no), tranche.status(), tranche.expires_at, figures)
}

/// What a read shows of a tranche that counts in a balance.
fn open_view_of(tranche: &Tranche) -> Option<(Option<usize>, Time, [i128; 3])> {
    let waits = matches!(tranche.stage, Stage::Pending | Stage::Scheduled);
    let pending = if waits { tranche.amount } else { 0 };
    let figures = [tranche.available, tranche.held, pending];
    (figures != [0; 3]).then_some((Some(tranche.no), tranche.expires_at, figures))
}
