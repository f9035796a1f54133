//! Stories of the rows that holds write: each is written, kept and looked up again on every replica, and is
//! nearly all of what a hold costs.

mod story;

use purser_ledger::apply::apply_batch;
use purser_ledger::command::{BatchEncoder, Capture, ExtendHold, Operation, Payer, Release};
use purser_ledger::ids::HoldId;
use purser_ledger::time::{Span, Time};
use purser_ledger::verdict::{Effect, Reply, Verdict};
use story::*;

/// Applies an operation: its effect, and the rows that it writes, by their tables, in order; a row that it
/// deletes behind a minus. The shard's own row is in every batch, and is left out.
fn written(ledger: &mut Ledger, operation: Operation<'_>) -> (Effect, String) {
    ledger.keys += 1;
    let key = format!("own-{}", ledger.keys);
    let mut encoder = BatchEncoder::new();
    encoder.push(&under(&key, ledger.now + 100, operation));
    let applied = apply_batch(&ledger.store, 1, &encoder.finish(Time(ledger.now))).expect("a sound store");
    let mut tables: Vec<String> = Vec::new();
    for (key, row) in applied.changes.iter().filter(|(key, _)| key[0] != b'A') {
        let table = char::from(key[0]);
        tables.push(if row.is_some() { table.to_string() } else { format!("-{table}") });
    }
    tables.sort();
    ledger.store.commit(&applied.changes);
    match applied.answers.into_iter().next().expect("an answer").reply {
        Reply::Verdict { verdict: Verdict::Applied(applied), .. } => (applied.effect, tables.join(" ")),
        other => panic!("not applied: {other:?}"),
    }
}

fn rows_of(ledger: &mut Ledger, operation: Operation<'_>) -> String {
    written(ledger, operation).1
}

/// Places a hold: which, and what it writes.
fn placed(ledger: &mut Ledger, operation: Operation<'_>) -> (HoldId, String) {
    match written(ledger, operation) {
        (Effect::Posted { hold: Some(hold), .. }, rows) => (hold.0, rows),
        (other, _) => panic!("no hold: {other:?}"),
    }
}

fn capture(hold: HoldId, amount: &str, keep_open: bool) -> Operation<'static> {
    let (reason_code, reference, metadata) = ("", "", Vec::new());
    Operation::Capture(Capture {
        hold,
        amount: Some(decimal(amount)),
        keep_open,
        reason_code,
        reference,
        metadata,
    })
}

fn release(hold: HoldId) -> Operation<'static> {
    Operation::Release(Release { hold, reason_code: "", reference: "", metadata: Vec::new() })
}

fn extend(hold: HoldId) -> Operation<'static> {
    Operation::ExtendHold(ExtendHold { hold, ttl: Span::from_secs(3_600), reason_code: "" })
}

/// A wallet with four tranches of 100 in which a hold was placed and released: the first one also tells the
/// sweep when to look.
fn ledger() -> Ledger {
    let mut ledger = Ledger::with_wallets(&["main"]);
    ledger.applied(grant("main", &vec![credit("100"); 4]));
    let (first, rows) = placed(&mut ledger, hold("main", "1"));
    assert!(rows.contains('D'), "{rows}");
    ledger.applied(release(first));
    ledger
}

#[test]
fn a_hold_writes_no_row_more_than_a_debit_and_its_end_one_row_more() {
    let mut ledger = ledger();
    assert_eq!(rows_of(&mut ledger, debit("main", "1")), "I J W");
    let (id, rows) = placed(&mut ledger, hold("main", "60"));
    assert_eq!(rows, "I J W");
    // What it gives back is a movement of its own.
    assert_eq!(rows_of(&mut ledger, capture(id, "40", false)), "H I J J W");
    let (id, _) = placed(&mut ledger, hold("main", "10"));
    assert_eq!(rows_of(&mut ledger, capture(id, "10", false)), "H I J W");
    let (id, _) = placed(&mut ledger, hold("main", "10"));
    assert_eq!(rows_of(&mut ledger, release(id)), "H I J W");
    ledger.assert_audit_is_clean("main");
}

#[test]
fn a_hold_that_changes_gets_a_row_for_its_time_out() {
    let mut ledger = ledger();
    let (id, _) = placed(&mut ledger, hold("main", "60"));
    assert_eq!(rows_of(&mut ledger, capture(id, "20", true)), "H I J W Y");
    assert_eq!(rows_of(&mut ledger, capture(id, "20", true)), "H I J W");
    assert_eq!(rows_of(&mut ledger, capture(id, "20", false)), "-Y H I J W");
    let (id, _) = placed(&mut ledger, hold("main", "60"));
    assert_eq!(rows_of(&mut ledger, extend(id)), "H I J W Y");
    assert_eq!(rows_of(&mut ledger, extend(id)), "I J", "it gets no more time");
    assert_eq!(rows_of(&mut ledger, release(id)), "-Y H I J W");
    ledger.assert_audit_is_clean("main");
}

#[test]
fn the_time_out_of_a_hold_that_stands_in_its_wallets_row_writes_what_became_of_it() {
    let mut ledger = ledger();
    placed(&mut ledger, hold_for("main", "60", 100));
    ledger.now += 100;
    // Beside the time-out the debit writes its own movement.
    assert_eq!(rows_of(&mut ledger, debit("main", "1")), "H I J J W");
    ledger.assert_audit_is_clean("main");
}

#[test]
fn no_tranche_that_a_hold_pins_is_written_while_the_wallet_has_room_to_tell_of_it() {
    let mut ledger = Ledger::with_wallets(&["main"]);
    ledger.applied(grant("main", &vec![credit("10"); 10]));
    let (all, rows) = placed(&mut ledger, hold("main", "95"));
    // Ten tranches, and room for eight.
    assert_eq!(rows.matches('R').count(), 2, "{rows}");
    assert_eq!(rows_of(&mut ledger, capture(all, "75", true)).matches('R').count(), 0);
    // What is left is of the eighth, which stands in the wallet's row, and of the two that do not.
    let rows = rows_of(&mut ledger, release(all));
    assert_eq!(rows.matches('R').count(), 2, "{rows}");
    ledger.assert_audit_is_clean("main");
}

#[test]
fn a_thousand_open_holds_of_a_wallet_make_no_row_more_for_the_next() {
    let mut ledger = Ledger::with_wallets(&["main"]);
    ledger.applied(grant("main", &vec![credit("1000"); 4]));
    for _ in 0..1_000 {
        ledger.applied(hold("main", "1"));
    }
    assert_eq!(rows_of(&mut ledger, debit("main", "1")), "I J W");
    let (id, rows) = placed(&mut ledger, hold("main", "60"));
    assert_eq!(rows, "H I J W Y");
    assert_eq!(rows_of(&mut ledger, extend(id)), "-Y H I J W Y");
    assert_eq!(rows_of(&mut ledger, capture(id, "40", false)), "-Y H I J J W");
    ledger.assert_audit_is_clean("main");
}

#[test]
fn a_hold_over_two_wallets_writes_each_wallets_part() {
    let mut ledger = Ledger::with_wallets(&["first", "second"]);
    ledger.applied(grant("first", &[credit("5")]));
    ledger.applied(grant("second", &[credit("10")]));
    let both = || Operation::Hold(hold_of(Payer::CustomerIn(CREDITS), "8"));
    let (id, _) = placed(&mut ledger, both());
    ledger.applied(release(id));
    let (id, rows) = placed(&mut ledger, both());
    assert_eq!(rows, "H H I J J W W Y Y");
    assert_eq!(rows_of(&mut ledger, capture(id, "8", false)), "-Y -Y H I J J W W");
}
