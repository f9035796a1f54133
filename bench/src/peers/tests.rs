//! The ledger in PostgreSQL does what Purser's does. Expected values are worked out by hand; where
//! PostgreSQL is not installed the tests say so, and pass.

use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use purser_proto::v1;
use tokio_postgres::{Client, NoTls};

use super::cluster::{Cluster, Programs};
use super::ledger::{Draw, Ledger, Outcome, Pool, Receipt};
use crate::run::target::{Debit, Target};
use crate::workload::{Draws, Spread, Wallets};

/// When most tranches of these tests expire, in seconds since 1970: in 2096.
const FAR: i64 = 4_000_000_000;

/// A server that the tests under way share. It stops with the last of them.
static SHARED: Mutex<Weak<Cluster>> = Mutex::new(Weak::new());

/// Runs a test with a ledger, or says why not.
fn with_ledger(name: &str, test: impl AsyncFnOnce(&Cluster, Ledger)) {
    let programs = match Programs::find() {
        Ok(programs) => programs,
        Err(error) => return println!("{name}: SKIPPED: {error}"),
    };
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let cluster = {
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        shared.upgrade().unwrap_or_else(|| {
            let started = runtime.block_on(Cluster::start(&programs, &std::env::temp_dir(), 0));
            let cluster = Arc::new(started.expect("a server"));
            *shared = Arc::downgrade(&cluster);
            cluster
        })
    };
    runtime.block_on(async {
        let ledger = Ledger::connect(&cluster.config(), pool(8)).await.expect("connections");
        test(&cluster, ledger).await;
        assert_eq!(cluster.faults().await.expect("an audit"), Vec::<String>::new());
    });
}

async fn client(cluster: &Cluster) -> Client {
    let (client, connection) = cluster.config().connect(NoTls).await.expect("a connection");
    tokio::spawn(connection);
    client
}

fn pool(connections: usize) -> Pool {
    Pool { connections, per_wallet: connections, lanes: 2 }
}

/// Ledgers that know nothing of one another, so that their calls meet in PostgreSQL alone.
async fn crowd(cluster: &Cluster) -> Vec<Ledger> {
    let mut crowd = Vec::new();
    for _ in 0..8 {
        crowd.push(Ledger::connect(&cluster.config(), pool(1)).await.expect("a connection"));
    }
    crowd
}

fn tranche(amount: u64, priority: u32, kind: v1::TrancheKind, expires_at: Option<i64>) -> v1::TrancheSpec {
    let expiry = expires_at
        .map(|seconds| v1::tranche_spec::Expiry::ExpiresAt(prost_types::Timestamp { seconds, nanos: 0 }));
    let (amount, priority) = (amount.to_string(), Some(priority));
    v1::TrancheSpec { amount, priority, kind: kind.into(), expiry, ..Default::default() }
}

fn grant(customer: &str, key: &str, tranches: Vec<v1::TrancheSpec>) -> v1::GrantRequest {
    let (customer, idempotency_key) = (customer.to_owned(), key.to_owned());
    v1::GrantRequest { customer, idempotency_key, wallet: "main".to_owned(), tranches, ..Default::default() }
}

fn debit(customer: &str, key: &str, amount: u64) -> Debit {
    Debit { customer: customer.to_owned(), key: key.to_owned(), amount }
}

/// A customer with the four tranches of the load, of 1,000 credits each.
async fn filled(ledger: &Ledger, customer: &str) {
    ledger.create(customer, String::new()).await.expect("a wallet");
    ledger.grant(customer, "first".to_owned(), 1_000).await.expect("credits");
}

fn applied(movement: i64, balance: i64, draws: &[(i32, i64, i64)]) -> Receipt {
    let draw = |&(tranche, amount, left): &(i32, i64, i64)| Draw { tranche, amount, left };
    Receipt {
        outcome: Outcome::Applied,
        replayed: false,
        movement: Some(movement),
        balance: Some(balance),
        draws: draws.iter().map(draw).collect(),
    }
}

fn short(balance: i64) -> Receipt {
    Receipt {
        outcome: Outcome::Short,
        replayed: false,
        movement: None,
        balance: Some(balance),
        draws: Vec::new(),
    }
}

fn refused(outcome: Outcome) -> Receipt {
    Receipt { outcome, replayed: false, movement: None, balance: None, draws: Vec::new() }
}

fn replayed(first: &Receipt) -> Receipt {
    Receipt { replayed: true, ..first.clone() }
}

#[test]
fn a_debit_splits_over_tranches_in_burn_order() {
    with_ledger("splitting", async |_, ledger| {
        use v1::TrancheKind::{Promotional, Purchased};
        ledger.create("split", String::new()).await.expect("a wallet");
        let tranches = vec![
            tranche(100, 100, Purchased, None),
            tranche(100, 100, Promotional, None),
            tranche(100, 100, Purchased, Some(FAR + 1)),
            tranche(100, 50, Purchased, None),
            tranche(100, 100, Purchased, Some(FAR)),
        ];
        let granted = ledger.granted(&grant("split", "g", tranches)).await.expect("a grant");
        assert_eq!(granted, applied(1, 500, &[]));

        // The 4th for its priority; of the others those that expire first, the 5th before the 3rd; of
        // those that never do the free one, the 2nd; the 1st.
        let first = ledger.debited(&debit("split", "a", 250)).await.expect("an answer");
        assert_eq!(first, applied(2, 250, &[(4, 100, 0), (5, 100, 0), (3, 50, 50)]));
        let second = ledger.debited(&debit("split", "b", 160)).await.expect("an answer");
        assert_eq!(second, applied(3, 90, &[(3, 50, 0), (2, 100, 0), (1, 10, 90)]));
    });
}

#[test]
fn a_denial_leaves_all_as_it_was_and_stays_a_denial_after_a_refill() {
    with_ledger("denial", async |_, ledger| {
        filled(&ledger, "denied").await;
        let first = ledger.debited(&debit("denied", "a", 4_001)).await.expect("an answer");
        assert_eq!(first, short(4_000));
        assert_eq!(ledger.available("denied").await.expect("a balance"), 4_000);

        ledger.grant("denied", "refill".to_owned(), 1_000).await.expect("credits");
        let again = ledger.debited(&debit("denied", "a", 4_001)).await.expect("an answer");
        assert_eq!(again, replayed(&first));
        assert_eq!(ledger.available("denied").await.expect("a balance"), 8_000);
        // Two grants were movements, the denial was none. Tranches 1 and 5 are of the same priority,
        // and expire at the same moment; the older one goes first.
        let other = ledger.debited(&debit("denied", "b", 1_500)).await.expect("an answer");
        assert_eq!(other, applied(3, 6_500, &[(1, 1_000, 0), (5, 500, 500)]));
    });
}

#[test]
fn a_repeated_key_gives_the_same_answer_and_changes_nothing() {
    with_ledger("repeated key", async |_, ledger| {
        filled(&ledger, "repeated").await;
        let first = ledger.debited(&debit("repeated", "a", 1_200)).await.expect("an answer");
        assert_eq!(first, applied(2, 2_800, &[(1, 1_000, 0), (2, 200, 800)]));
        ledger.debited(&debit("repeated", "b", 300)).await.expect("an answer");
        let again = ledger.debited(&debit("repeated", "a", 1_200)).await.expect("an answer");
        assert_eq!(again, replayed(&first));
        let together = ledger.debited_together(&[debit("repeated", "a", 1_200)]).await.expect("answers");
        assert_eq!(together, [replayed(&first)]);
        ledger.grant("repeated", "first".to_owned(), 1_000).await.expect("a replay");
        assert_eq!(ledger.available("repeated").await.expect("a balance"), 2_500);
    });
}

#[test]
fn a_key_that_was_used_for_another_request_is_refused() {
    with_ledger("reused key", async |_, ledger| {
        filled(&ledger, "reused").await;
        filled(&ledger, "another").await;
        ledger.debited(&debit("reused", "a", 100)).await.expect("an answer");
        for other in [debit("reused", "a", 101), debit("reused", "first", 4_000)] {
            let single = ledger.debited(&other).await.expect("an answer");
            assert_eq!(single, refused(Outcome::KeyReused));
            let together = ledger.debited_together(&[other]).await.expect("answers");
            assert_eq!(together, [refused(Outcome::KeyReused)]);
        }
        let less = vec![tranche(4_000, 50, v1::TrancheKind::Promotional, None)];
        let granted = ledger.granted(&grant("reused", "first", less)).await.expect("an answer");
        assert_eq!(granted, refused(Outcome::KeyReused));
        assert_eq!(ledger.available("reused").await.expect("a balance"), 3_900);
        // Keys are each customer's own.
        let others = ledger.debited(&debit("another", "a", 101)).await.expect("an answer");
        assert_eq!(others, applied(2, 3_899, &[(1, 101, 899)]));
    });
}

#[test]
fn what_has_expired_is_not_spent_though_no_sweep_has_booked_it() {
    with_ledger("expiry", async |cluster, ledger| {
        filled(&ledger, "expired").await;
        let aged = "UPDATE tranches SET expires_at = now() WHERE number IN (1, 3) AND wallet = \
             (SELECT w.id FROM wallets w JOIN customers c ON c.id = w.customer WHERE c.name = 'expired')";
        client(cluster).await.batch_execute(aged).await.expect("an update");
        assert_eq!(ledger.available("expired").await.expect("a balance"), 2_000);

        let above = ledger.debited(&debit("expired", "a", 2_001)).await.expect("an answer");
        assert_eq!(above, short(4_000));
        let within = [debit("expired", "b", 2_001), debit("expired", "c", 1_100)];
        let together = ledger.debited_together(&within).await.expect("answers");
        assert_eq!(together, [short(4_000), applied(2, 2_900, &[(2, 1_000, 0), (4, 100, 900)])]);
    });
}

#[test]
fn an_array_gives_the_same_as_one_by_one() {
    with_ledger("array", async |_, ledger| {
        let customers = |set: &str| (0..6).map(|n| format!("{set}-{n}")).collect::<Vec<_>>();
        for set in ["single", "array"] {
            for customer in customers(set) {
                filled(&ledger, &customer).await;
            }
        }
        let (mut draws, wallets) = (Draws::new(11), Wallets::new(Spread::Zipf, 7));
        let mut outcomes = [0; 4];
        for round in 0..20 {
            // The 7th customer has no wallet; every 8th key comes again at once, or in the next round.
            let asked: Vec<_> = (0..60)
                .map(|n| (draws.wallet(&wallets), format!("{}", round * 56 + n - n / 8), draws.amount()))
                .collect();
            let of = |set: &str| -> Vec<Debit> {
                asked.iter().map(|(who, key, amount)| debit(&format!("{set}-{who}"), key, *amount)).collect()
            };
            let mut one_by_one = Vec::new();
            for debit in of("single") {
                one_by_one.push(ledger.debited(&debit).await.expect("an answer"));
            }
            let together = ledger.debited_together(&of("array")).await.expect("answers");
            assert_eq!(together, one_by_one);
            for receipt in together {
                let place = match receipt.outcome {
                    Outcome::Applied => 0,
                    Outcome::Short => 1,
                    Outcome::NoWallet => 2,
                    Outcome::KeyReused => 3,
                };
                outcomes[place] += 1;
            }
            for set in ["single", "array"] {
                for customer in customers(set) {
                    ledger.grant(&customer, format!("refill-{round}"), 1_000).await.expect("credits");
                }
            }
        }
        assert!(outcomes.iter().all(|count| *count > 0), "{outcomes:?}");
    });
}

#[test]
fn keys_that_are_all_new_give_the_same_together_as_one_by_one() {
    with_ledger("array of new keys", async |_, ledger| {
        for customer in ["new-single-0", "new-single-1", "new-array-0", "new-array-1"] {
            filled(&ledger, customer).await;
        }
        // Of the second wallet 4,000 are asked, and 1 more: it goes one by one, the first as a set.
        let asked = [(0, 700), (1, 3_999), (0, 700), (0, 2_600), (1, 2), (1, 1)];
        let of = |set: &str| -> Vec<Debit> {
            let one = |(n, (who, amount)): (usize, &(u32, u64))| {
                debit(&format!("{set}-{who}"), &n.to_string(), *amount)
            };
            asked.iter().enumerate().map(one).collect()
        };
        let together = ledger.debited_together(&of("new-array")).await.expect("answers");
        let expected = [
            applied(2, 3_300, &[(1, 700, 300)]),
            applied(2, 1, &[(1, 1_000, 0), (2, 1_000, 0), (3, 1_000, 0), (4, 999, 1)]),
            applied(3, 2_600, &[(1, 300, 0), (2, 400, 600)]),
            applied(4, 0, &[(2, 600, 0), (3, 1_000, 0), (4, 1_000, 0)]),
            short(1),
            applied(3, 0, &[(4, 1, 0)]),
        ];
        assert_eq!(together, expected);
        for (debit, expected) in of("new-single").iter().zip(expected) {
            assert_eq!(ledger.debited(debit).await.expect("an answer"), expected);
        }
    });
}

#[test]
fn nothing_appears_or_vanishes_in_many_random_debits() {
    with_ledger("conservation", async |_, ledger| {
        let (mut granted, mut debited, mut draws) = ([4_000u64; 5], [0u64; 5], Draws::new(7));
        for who in 0..5 {
            filled(&ledger, &format!("random-{who}")).await;
        }
        let wallets = Wallets::new(Spread::Zipf, 5);
        for round in 0..40 {
            let asked: Vec<_> = (0..10).map(|_| (draws.wallet(&wallets) as usize, draws.amount())).collect();
            let one = |(n, (who, amount)): (usize, &(usize, u64))| {
                debit(&format!("random-{who}"), &format!("{round}-{n}"), *amount)
            };
            let debits: Vec<_> = asked.iter().enumerate().map(one).collect();
            let mut receipts = ledger.debited_together(&debits[..5]).await.expect("answers");
            for debit in &debits[5..] {
                receipts.push(ledger.debited(debit).await.expect("an answer"));
            }
            for ((who, amount), receipt) in asked.iter().zip(&receipts) {
                if receipt.outcome == Outcome::Applied {
                    debited[*who] += amount;
                    assert_eq!(receipt.draws.iter().map(|draw| draw.amount as u64).sum::<u64>(), *amount);
                }
            }
            let refilled = draws.wallet(&wallets) as usize;
            let customer = format!("random-{refilled}");
            ledger.grant(&customer, format!("refill-{round}"), 1_000).await.expect("credits");
            granted[refilled] += 4_000;
        }
        for who in 0..5 {
            let available = ledger.available(&format!("random-{who}")).await.expect("a balance");
            assert_eq!(available, granted[who] - debited[who]);
        }
        // Tranches, movements and verdicts are compared with one another after every test.
    });
}

#[test]
fn concurrent_debits_of_one_wallet_never_overspend() {
    with_ledger("concurrency", async |cluster, ledger| {
        filled(&ledger, "crowded").await;
        let crowd = crowd(cluster).await;
        let calls = (0..16u32).map(|caller| {
            let ledger = crowd[caller as usize % crowd.len()].clone();
            tokio::spawn(async move {
                let debits: Vec<_> =
                    (0..5).map(|n| debit("crowded", &format!("{caller}-{n}"), 100)).collect();
                if caller % 2 == 0 {
                    return ledger.debited_together(&debits).await.expect("answers");
                }
                let mut receipts = Vec::new();
                for debit in &debits {
                    receipts.push(ledger.debited(debit).await.expect("an answer"));
                }
                receipts
            })
        });
        let mut applied = 0;
        for call in calls.collect::<Vec<_>>() {
            let receipts = call.await.expect("it ended");
            applied += receipts.iter().filter(|own| own.outcome == Outcome::Applied).count();
        }
        // 80 debits of 100 ask for 8,000; there are 4,000.
        assert_eq!(applied, 40);
        assert_eq!(ledger.available("crowded").await.expect("a balance"), 0);
    });
}

#[test]
fn one_key_at_the_same_moment_takes_one_effect_and_gives_one_answer() {
    with_ledger("one key at once", async |cluster, ledger| {
        filled(&ledger, "twins").await;
        let crowd = crowd(cluster).await;
        for round in 0..10 {
            let calls: Vec<_> = crowd
                .iter()
                .map(|ledger| {
                    let (ledger, debit) = (ledger.clone(), debit("twins", &format!("{round}"), 100));
                    tokio::spawn(async move { ledger.debited(&debit).await.expect("an answer") })
                })
                .collect();
            let mut receipts = Vec::new();
            for call in calls {
                receipts.push(call.await.expect("it ended"));
            }
            receipts.sort_by_key(|receipt| receipt.replayed);
            let again = replayed(&receipts[0]);
            assert!(!receipts[0].replayed);
            assert!(receipts[1..].iter().all(|receipt| *receipt == again), "{receipts:?}");
        }
        assert_eq!(ledger.available("twins").await.expect("a balance"), 3_000);
    });
}

#[test]
fn batches_that_name_the_same_wallets_in_opposite_order_do_not_stop_one_another() {
    with_ledger("deadlock", async |_, ledger| {
        let customers: Vec<_> = (0..20).map(|n| format!("crossed-{n}")).collect();
        for customer in &customers {
            filled(&ledger, customer).await;
        }
        let calls: Vec<_> = (0..8)
            .map(|caller| {
                let (ledger, mut customers) = (ledger.clone(), customers.clone());
                if caller % 2 == 0 {
                    customers.reverse();
                }
                tokio::spawn(async move {
                    for round in 0..10 {
                        let key = format!("{caller}-{round}");
                        let debits: Vec<_> = customers.iter().map(|own| debit(own, &key, 10)).collect();
                        ledger.debited_together(&debits).await.expect("answers");
                    }
                })
            })
            .collect();
        for call in calls {
            call.await.expect("it ended");
        }
        assert_eq!(ledger.retries(), 0);
        for customer in &customers {
            assert_eq!(ledger.available(customer).await.expect("a balance"), 4_000 - 8 * 10 * 10);
        }
    });
}

#[test]
fn an_amount_of_zero_or_less_is_no_request() {
    with_ledger("amounts", async |_, ledger| {
        filled(&ledger, "zero").await;
        let none = debit("zero", "a", 0);
        let told = ledger.debited(&none).await.expect_err("an error").to_string();
        assert!(told.contains("an amount is above zero"), "{told}");
        let some = debit("zero", "b", 1);
        ledger.debited_together(&[some.clone(), none]).await.expect_err("an error");
        assert_eq!(ledger.debited(&some).await.expect("an answer"), applied(2, 3_999, &[(1, 1, 999)]));
    });
}

#[test]
fn the_audit_finds_one_credit_too_many_wherever_it_is_put() {
    with_ledger("audit", async |cluster, ledger| {
        filled(&ledger, "audited").await;
        ledger.debited(&debit("audited", "a", 1_500)).await.expect("an answer");
        let mut client = client(cluster).await;
        let wallet =
            "(SELECT w.id FROM wallets w JOIN customers c ON c.id = w.customer WHERE c.name = 'audited')";
        for wrong in [
            format!("UPDATE wallets SET balance = balance + 1 WHERE id = {wallet}"),
            format!("UPDATE wallets SET movements = movements + 1 WHERE id = {wallet}"),
            format!("UPDATE tranches SET available = available + 1 WHERE number = 2 AND wallet = {wallet}"),
            format!("UPDATE movements SET drawn[1] = drawn[1] - 1 WHERE number = 2 AND wallet = {wallet}"),
            format!("DELETE FROM movements WHERE number = 2 AND wallet = {wallet}"),
            format!("DELETE FROM verdicts WHERE key = 'a' AND wallet = {wallet}"),
            format!("UPDATE verdicts SET amount = amount + 1 WHERE key = 'a' AND wallet = {wallet}"),
        ] {
            let change = client.transaction().await.expect("a transaction");
            change.batch_execute(&wrong).await.expect("a change");
            let faults = change.query("SELECT faults()", &[]).await.expect("an audit");
            assert!(!faults.is_empty(), "not found: {wrong}");
            change.rollback().await.expect("a rollback");
        }
    });
}

#[test]
fn a_commit_waits_for_any_one_of_two_standbys() {
    let programs = match Programs::find() {
        Ok(programs) => programs,
        Err(error) => return println!("quorum: SKIPPED: {error}"),
    };
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let mut cluster = Cluster::start(&programs, &std::env::temp_dir(), 2).await.expect("servers");
        let ledger = Ledger::connect(&cluster.config(), pool(1)).await.expect("a connection");
        filled(&ledger, "replicated").await;
        cluster.stop_standby(1);
        let first = ledger.debited(&debit("replicated", "a", 100)).await.expect("an answer");
        assert_eq!(first, applied(2, 3_900, &[(1, 100, 900)]));

        cluster.stop_standby(2);
        let second = debit("replicated", "b", 100);
        let alone = tokio::time::timeout(Duration::from_millis(200), ledger.debited(&second)).await;
        assert!(alone.is_err(), "it was acknowledged by the primary alone");
    });
}
