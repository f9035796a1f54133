//! Stories of sweeps and of reads beside them, each with values worked out by hand from the specification;
//! and that neither walks again over what is booked.

mod story;

use std::cell::Cell;
use std::collections::BTreeSet;

use purser_ledger::amount::Amount;
use purser_ledger::apply::apply_batch;
use purser_ledger::command::BatchEncoder;
use purser_ledger::query::{self, ReadError, TrancheStatus};
use purser_ledger::rows::hold::HoldStatus;
use purser_ledger::store::{MemStore, Store, StoreError};
use purser_ledger::time::Time;
use purser_ledger::verdict::Reply;
use story::*;

#[test]
fn sweeps_of_one_book_every_wallet_in_the_order_of_time() {
    let mut ledger = Ledger::with_wallets(&["one", "two"]);
    ledger.applied(grant("one", &[until(1_300, credit("1")), until(1_500, credit("2"))]));
    ledger.applied(grant("two", &[until(1_200, credit("4")), until(1_400, credit("8"))]));
    ledger.now = 2_000;

    let settled: Vec<i128> = std::iter::repeat_with(|| {
        assert!(matches!(ledger.sweep(1), Reply::Swept { booked: 1, .. }));
        let last = |wallet| ledger.movements(wallet).last().unwrap().settled_after.0;
        last("one") + last("two")
    })
    .take(4)
    .collect();

    // Of 15: without the 4 of 1,200, the 1 of 1,300, the 8 of 1,400, the 2 of 1,500.
    assert_eq!(settled, [11, 10, 2, 0]);
    assert_eq!(ledger.sweep(1), Reply::Swept { booked: 0, more: false });
}

#[test]
fn a_sweep_begins_where_the_last_one_left_nothing_over() {
    let mut ledger = Ledger::with_wallets(&["main"]);
    ledger.applied(grant("main", &[until(1_500, credit("1")), until(2_500, credit("2"))]));
    let due = |ledger: &Ledger| query::something_due(&ledger.store, Time(ledger.now)).expect("a sound store");
    ledger.now = 2_000;
    assert!(due(&ledger));
    ledger.sweep(10);
    assert!(!due(&ledger));
    ledger.applied(grant("main", &[until(2_001, credit("4"))]));

    ledger.now = 2_001;
    assert!(due(&ledger));
    assert_eq!(ledger.sweep(10), Reply::Swept { booked: 1, more: false });
    ledger.now = 2_500;
    assert_eq!(ledger.sweep(10), Reply::Swept { booked: 1, more: false });
    assert!(!due(&ledger));
    assert_eq!(ledger.available("main"), 0);
}

/// A sweep goes from wallet to wallet in the order of what is due first in each; at one instant the
/// older wallet comes first.
#[test]
fn a_sweep_goes_to_the_older_wallet_first_where_two_are_due_at_one_instant() {
    let mut ledger = Ledger::with_wallets(&["one", "two"]);
    ledger.applied(grant("one", &[from(1_500, credit("1"))]));
    ledger.applied(grant("two", &[until(1_500, credit("1"))]));
    ledger.now = 1_500;

    ledger.sweep(1);

    assert_eq!((ledger.movements("one").len(), ledger.movements("two").len()), (2, 1));
}

/// A look at a wallet in which a command has booked meanwhile what was due is a step too.
#[test]
fn a_look_in_vain_is_a_step_of_a_sweep() {
    let mut ledger = Ledger::with_wallets(&["main"]);
    ledger.applied(grant("main", &[until(1_300, from(1_100, credit("1")))]));
    ledger.now = 1_200;
    ledger.applied(freeze("main", true));
    ledger.now = 1_300;

    assert_eq!(ledger.sweep(1), Reply::Swept { booked: 0, more: true });
    assert_eq!(ledger.sweep(1), Reply::Swept { booked: 1, more: false });
    assert_eq!(ledger.sweep(1), Reply::Swept { booked: 0, more: false });
}

// ---- long backlogs in small steps --------------------------------------------------------------

/// A store that keeps a mark for each row that is gone, as one on disk does until it compacts, and
/// counts the rows and marks that scans pass.
struct Marked {
    store: MemStore,
    gone: BTreeSet<Vec<u8>>,
    passed: Cell<usize>,
}

impl Marked {
    /// A ledger's rows, and no marks.
    fn of(ledger: &Ledger) -> Marked {
        Marked { store: ledger.store.clone(), gone: BTreeSet::new(), passed: Cell::new(0) }
    }

    /// Sweeps in steps of so many items until nothing is left: how many were booked.
    fn sweep_all(&mut self, now: u64, limit: u32) -> u32 {
        let mut all = 0;
        loop {
            let mut sweep = BatchEncoder::new();
            sweep.push_sweep(limit);
            let applied = apply_batch(self, 1, &sweep.finish(Time(now))).expect("the store is sound");
            for (key, change) in applied.changes.iter() {
                match change {
                    Some(_) => self.gone.remove(key),
                    None => self.gone.insert(key.to_vec()),
                };
            }
            self.store.commit(&applied.changes);
            let Reply::Swept { booked, more } = applied.answers[0].reply else { panic!("a sweep") };
            assert!(booked <= limit);
            all += booked;
            if !more {
                return all;
            }
        }
    }
}

impl Store for Marked {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.store.get(key)
    }

    fn scan(
        &self,
        from: &[u8],
        until: &[u8],
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), StoreError> {
        let mut end = until.to_vec();
        let mut passed = 0;
        self.store.scan(from, until, &mut |key, row| {
            passed += 1;
            let more = visit(key, row);
            if !more {
                end = key.to_vec();
            }
            more
        })?;
        let marks = self.gone.range(from.to_vec()..end).count();
        self.passed.set(self.passed.get() + passed + marks);
        Ok(())
    }

    fn scan_back(
        &self,
        from: &[u8],
        until: &[u8],
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), StoreError> {
        self.store.scan_back(from, until, visit)
    }
}

#[test]
fn a_sweep_passes_what_expires_in_a_wallet_at_one_instant_only_a_few_times() {
    let mut ledger = Ledger::with_wallets(&["main"]);
    for _ in 0..20 {
        ledger.applied(grant("main", &vec![until(1_500, credit("1")); 100]));
    }
    let mut marked = Marked::of(&ledger);

    assert_eq!(marked.sweep_all(2_000, 50), 2_000);
    // Once to add them up, once to book them, and at most 64 read in vain in each of the 40 steps: from the
    // first one on each time, it would be 40,000 in the steps and more in each of their looks.
    assert!(marked.passed.get() <= 2 * 2_000 + 40 * 64 + 100, "{}", marked.passed.get());
}

#[test]
fn a_sweep_passes_holds_that_time_out_at_one_instant_only_a_few_times() {
    let mut ledger = Ledger::with_wallets(&["main"]);
    ledger.applied(grant("main", &[credit("1000")]));
    for _ in 0..1_000 {
        ledger.applied(hold_for("main", "1", 500));
    }
    let mut marked = Marked::of(&ledger);

    assert_eq!(marked.sweep_all(2_000, 50), 1_000);
    assert!(marked.passed.get() <= 1_000 + 20 * 2 * 64 + 100, "{}", marked.passed.get());
}

#[test]
fn a_sweep_passes_wallets_that_are_due_at_one_instant_only_a_few_times() {
    let mut ledger = Ledger::with_wallets(&[]);
    for nth in 0..1_000 {
        let id = format!("customer-{nth}");
        for (key, operation) in
            [("create", create("main")), ("grant", grant("main", &[until(1_500, credit("1"))]))]
        {
            let mut command = under(key, 1_100, operation);
            command.header.customer.id = &id;
            effect_of(ledger.send(&command));
        }
    }
    let mut marked = Marked::of(&ledger);

    assert_eq!(marked.sweep_all(2_000, 50), 1_000);
    assert!(marked.passed.get() <= 1_000 + 20 * 64 + 100, "{}", marked.passed.get());
}

#[test]
fn a_read_beside_a_long_backlog_of_expiries_counts_all_of_it_as_booked() {
    let mut ledger = Ledger::with_wallets(&["main"]);
    ledger.applied(grant("main", &[credit("7")]));
    for _ in 0..15 {
        ledger.applied(grant("main", &vec![until(1_500, credit("2")); 100]));
    }
    ledger.now = 2_000;

    assert_eq!(ledger.available("main"), 7);
    let open = query::open_tranches(&ledger.store, ANN, "main", Time(2_000)).expect("a wallet");
    assert_eq!(open.iter().map(|own| own.available).collect::<Vec<_>>(), [Amount(7)]);
    let page = query::tranches(&ledger.store, ANN, "main", Time(2_000), None, true, 1_000).expect("a wallet");
    assert_eq!(page.len(), 1_000);
    for own in page {
        let parts = (own.available, own.held, own.consumed, own.expired);
        assert_eq!(
            (own.status, parts),
            (TrancheStatus::Expired, (Amount(0), Amount(0), Amount(0), Amount(2)))
        );
    }
    // As it was.
    assert_eq!(ledger.movements("main").len(), 16);
}

#[test]
fn a_read_goes_through_a_thousand_activations_and_of_more_it_tells() {
    let mut ledger = Ledger::with_wallets(&["main"]);
    for _ in 0..11 {
        ledger.applied(grant("main", &vec![from(1_500, credit("2")); 100]));
    }
    ledger.now = 2_000;
    let balance = |ledger: &Ledger| query::balance(&ledger.store, ANN, "main", Time(2_000));

    assert_eq!(balance(&ledger), Err(ReadError::Backlog));
    // Of 1,100 there are 1,000 left, and with the 64 of a command no more than 1,064 are gone through.
    ledger.sweep(100);
    assert_eq!(balance(&ledger).expect("a wallet").available, Amount(2_200));
}

#[test]
fn what_does_not_depend_on_what_is_due_is_read_beside_any_backlog() {
    let mut ledger = Ledger::with_wallets(&["main"]);
    ledger.applied(grant("main", &[credit("9")]));
    ledger.applied(hold_for("main", "9", 500));
    for _ in 0..11 {
        ledger.applied(grant("main", &vec![from(1_500, credit("2")); 100]));
    }
    ledger.now = 2_000;
    let store = &ledger.store;
    assert_eq!(query::balance(store, ANN, "main", Time(2_000)), Err(ReadError::Backlog));

    // A grant, a hold, eleven grants; the hold has timed out though nothing of that is booked.
    let booked = query::booked_wallet(store, ANN, "main").expect("a wallet");
    assert_eq!((booked.info.wallet.as_str(), booked.movements), ("main", 13));
    assert_eq!(query::movements(store, ANN, "main", 1, 100).expect("a wallet").len(), 13);
    let holds = query::holds(store, ANN, "main", Time(2_000), None, false, 10).expect("a wallet");
    let state = &holds[0].hold.state;
    assert_eq!((holds.len(), state.status, state.released), (1, HoldStatus::Expired, Amount(9)));
}

/// What a sweep has added up of a wallet's backlog is spent from at once, by commands and by reads.
#[test]
fn after_one_step_of_a_sweep_a_wallet_with_a_long_backlog_serves_again() {
    let mut ledger = Ledger::with_wallets(&["main"]);
    for _ in 0..5 {
        ledger.applied(grant("main", &vec![until(1_500, credit("2")); 100]));
    }
    ledger.applied(grant("main", &[credit("7")]));
    ledger.now = 2_000;
    assert_eq!(ledger.sweep(1), Reply::Swept { booked: 1, more: true });

    assert_eq!(ledger.available("main"), 7);
    assert_eq!(ledger.drawn(debit("main", "3")), [(500, 3, 4)]);
    while let Reply::Swept { more: true, .. } = ledger.sweep(100) {}
    assert_eq!(ledger.balance("main").available, Amount(4));
    ledger.assert_audit_is_clean("main");
}
