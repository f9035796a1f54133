//! Stories of wallets with more open tranches than their row has room for: in which of their rows a debit
//! looks for what it may draw.

mod story;

use std::cell::Cell;

use purser_ledger::apply::apply_batch;
use purser_ledger::command::{BatchEncoder, Operation};
use purser_ledger::store::{MemStore, Store, StoreError};
use purser_ledger::time::Time;
use purser_ledger::verdict::{Effect, Reply, Verdict};
use story::*;

/// A store that counts walks over open-tranche rows.
struct Counting<'s> {
    store: &'s MemStore,
    walks: Cell<u32>,
}

impl Store for Counting<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.store.get(key)
    }

    fn scan(
        &self,
        from: &[u8],
        until: &[u8],
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), StoreError> {
        self.walks.set(self.walks.get() + u32::from(from[0] == b'T'));
        self.store.scan(from, until, visit)
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

/// Applies an operation: its effect, and how many walks over open-tranche rows it began.
fn walked(ledger: &mut Ledger, operation: Operation<'_>) -> (Effect, u32) {
    ledger.keys += 1;
    let key = format!("own-{}", ledger.keys);
    let mut encoder = BatchEncoder::new();
    encoder.push(&under(&key, ledger.now + 100, operation));
    let counting = Counting { store: &ledger.store, walks: Cell::new(0) };
    let applied = apply_batch(&counting, 1, &encoder.finish(Time(ledger.now))).expect("a sound store");
    let walks = counting.walks.get();
    ledger.store.commit(&applied.changes);
    match applied.answers.into_iter().next().expect("an answer").reply {
        Reply::Verdict { verdict: Verdict::Applied(applied), .. } => (applied.effect, walks),
        other => panic!("not applied: {other:?}"),
    }
}

/// Four tranches of 100 for anything, and twenty of 10 for each feature.
fn ledger(features: &[&str]) -> Ledger {
    let mut ledger = Ledger::with_wallets(&["main"]);
    ledger.applied(grant("main", &vec![credit("100"); 4]));
    for feature in features {
        ledger.applied(grant("main", &vec![for_feature(feature, credit("10")); 20]));
    }
    ledger
}

#[test]
fn a_debit_looks_for_no_class_of_tranches_that_its_wallet_has_not() {
    let mut ledger = ledger(&["chat"]);
    let (effect, walks) = walked(&mut ledger, debit("main", "150"));
    assert_eq!((remaining_of(&effect), walks), (Some(250), 0));
    let (effect, walks) = walked(&mut ledger, debit_usage_of("images", "main", "50"));
    assert_eq!((remaining_of(&effect), walks), (Some(200), 0));
    // All of a feature's tranches, which are narrower, burn first: 4 of them stand in the wallet's row.
    let (effect, walks) = walked(&mut ledger, debit_usage_of("chat", "main", "195"));
    assert_eq!(ledger.draws(&effect).len(), 20);
    assert_eq!(remaining_of(&effect), Some(205));
    assert!(walks > 0);
    let (effect, _) = walked(&mut ledger, debit_usage_of("chat", "main", "205"));
    assert_eq!(remaining_of(&effect), Some(0));
    ledger.assert_audit_is_clean("main");
}

#[test]
fn tranches_for_anything_are_found_behind_those_for_a_feature() {
    let mut ledger = Ledger::with_wallets(&["main"]);
    ledger.applied(grant("main", &vec![for_feature("chat", credit("10")); 20]));
    ledger.applied(grant("main", &[credit("100")]));
    let (effect, walks) = walked(&mut ledger, debit("main", "30"));
    assert_eq!((remaining_of(&effect), ledger.draws(&effect).len()), (Some(70), 1));
    assert!(walks > 0);
    // What is left of it stands in the wallet's row now, and nothing for anything in rows.
    let (effect, walks) = walked(&mut ledger, debit("main", "10"));
    assert_eq!((remaining_of(&effect), walks), (Some(60), 0));
    let (effect, _) = walked(&mut ledger, debit_usage_of("chat", "main", "201"));
    assert_eq!(remaining_of(&effect), Some(59));
    ledger.assert_audit_is_clean("main");
}

#[test]
fn what_is_left_beyond_a_row_is_found_when_all_of_a_feature_is_gone() {
    let mut ledger = Ledger::with_wallets(&["main"]);
    ledger.applied(grant("main", &vec![for_feature("chat", until(5_000, credit("10"))); 12]));
    // They burn later than what is for a feature only, though they expire at the same time and came before.
    for effective_at in [900, 800, 700] {
        ledger.applied(grant("main", &[from(effective_at, until(5_000, credit("100")))]));
    }
    let (effect, _) = walked(&mut ledger, debit_usage_of("chat", "main", "120"));
    assert_eq!((ledger.draws(&effect).len(), remaining_of(&effect)), (12, Some(300)));
    let (effect, _) = walked(&mut ledger, debit("main", "300"));
    assert_eq!((ledger.draws(&effect).len(), remaining_of(&effect)), (3, Some(0)));
    ledger.assert_audit_is_clean("main");
}

#[test]
fn a_wallet_with_tranches_of_many_classes_is_looked_through() {
    let mut ledger = ledger(&["one", "two", "three", "four", "five"]);
    let (effect, walks) = walked(&mut ledger, debit("main", "400"));
    assert_eq!(remaining_of(&effect), Some(0));
    assert!(walks > 0, "its row has room for four classes only");
    let (effect, _) = walked(&mut ledger, debit_usage_of("five", "main", "200"));
    assert_eq!(remaining_of(&effect), Some(0));
    ledger.assert_audit_is_clean("main");
}
