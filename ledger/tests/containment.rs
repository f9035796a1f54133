//! What happens when the books are wrong: one customer is stopped, and everybody else goes on.

mod story;

use purser_ledger::amount::Amount;
use purser_ledger::command::{Command, Header, Operation};
use purser_ledger::ids::Customer;
use purser_ledger::rows::keys;
use purser_ledger::rows::wallet::Wallet;
use purser_ledger::store::Store;
use purser_ledger::time::{Span, Time};
use purser_ledger::verdict::{Reason, Reply};
use story::{ANN, Ledger, because, create, credit, debit, denial_of, effect_of, grant, under, until};

const BOB: Customer<'static> = Customer { namespace: "default", id: "bob" };

/// A wallet's row says that a unit more is available than its tranches have.
fn break_wallet(ledger: &mut Ledger, customer: Customer<'_>, wallet: &str) {
    let key = keys::wallet(customer, wallet);
    let row = ledger.store.get(&key).expect("readable").expect("a wallet");
    let mut broken = Wallet::decode(&row).expect("a sound row");
    broken.available = Amount(broken.available.0 + 1);
    ledger.store.put_raw(key, broken.encode());
}

fn of_bob<'a>(key: &'a str, operation: Operation<'a>) -> Command<'a> {
    let header =
        Header { customer: BOB, key, valid_until: Time(1_000_000), retention: Span(1_000), actor: "" };
    Command { header, operation }
}

/// Ann has 10 in `main` and 5 in `other`, Bob 7 in `main`.
fn ann_and_bob() -> Ledger {
    let mut ledger = Ledger::with_wallets(&["main", "other"]);
    ledger.applied(grant("main", &[credit("10")]));
    ledger.applied(grant("other", &[credit("5")]));
    effect_of(ledger.send(&of_bob("create", create("main"))));
    effect_of(ledger.send(&of_bob("grant", grant("main", &[credit("7")]))));
    ledger
}

/// Provokes: CUSTOMER_QUARANTINED
#[test]
fn a_customer_whose_books_are_wrong_is_stopped_and_nothing_of_the_command_is_kept() {
    let mut ledger = ann_and_bob();
    break_wallet(&mut ledger, ANN, "main");
    let before: Vec<_> = ledger.store.rows().map(|(key, row)| (key.to_vec(), row.to_vec())).collect();

    let reply = ledger.send(&under("first", 2_000, debit("main", "3")));

    assert!(matches!(reply, Reply::Fault(_)), "{reply:?}");
    let after: Vec<_> = ledger.store.rows().map(|(key, row)| (key.to_vec(), row.to_vec())).collect();
    let quarantined =
        [keys::customer(ANN), keys::wallet(ANN, "main"), keys::wallet(ANN, "other"), keys::META.to_vec()];
    let changed = after.iter().filter(|row| !before.contains(row)).map(|(key, _)| key.clone());
    for key in changed {
        assert!(quarantined.contains(&key), "{key:?} changed");
    }
    assert_eq!(before.len(), after.len(), "no row more, no row less");

    // The same key again, another one, another wallet, another operation.
    let stopped = because(Reason::CustomerQuarantined);
    assert_eq!(denial_of(ledger.send(&under("first", 2_000, debit("main", "3")))), stopped);
    assert_eq!(ledger.denied(debit("main", "1")), stopped);
    assert_eq!(ledger.denied(debit("other", "1")), stopped);
    assert_eq!(ledger.denied(grant("other", &[credit("1")])), stopped);
    assert_eq!(ledger.denied(create("third")), stopped);
    // Bob pays on.
    effect_of(ledger.send(&of_bob("debit", debit("main", "7"))));
}

#[test]
fn a_broken_wallet_does_not_keep_what_is_due_of_others_from_being_swept() {
    let mut ledger = ann_and_bob();
    ledger.applied(grant("main", &[until(1_500, credit("1"))]));
    effect_of(ledger.send(&of_bob("expiring", grant("main", &[until(1_501, credit("2"))]))));
    break_wallet(&mut ledger, ANN, "main");
    ledger.now = 1_600;

    let replies: Vec<Reply> = (0..3).map(|_| ledger.sweep(100)).collect();

    assert!(matches!(replies[0], Reply::Fault(_)), "it is told: {replies:?}");
    assert_eq!(replies[1..], [1, 0].map(|booked| Reply::Swept { booked, more: false }));
    assert_eq!(ledger.denied(debit("other", "1")), because(Reason::CustomerQuarantined));
    let bobs = purser_ledger::query::movements(&ledger.store, BOB, "main", 1, 100).expect("a wallet");
    assert_eq!(bobs.last().map(|own| own.movement.amount), Some(Amount(-2)));
}
