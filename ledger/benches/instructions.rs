//! What plain debits, holds and captures cost the core, in instructions: the same on each run, whatever else
//! the machine does. A change that makes one dearer by more than 3 % fails. `make instructions`.
//!
//! Each measures 100 commands on 100 wallets with 4 tranches of 1,000 credits, one draw each unless it says
//! otherwise, in one batch; the wallets' decoded rows are cached, as those of a busy shard are.
// What the benchmark's macros write.
#![allow(missing_docs, unused_qualifications)]

use std::hint::black_box;

use gungraun::prelude::*;
use gungraun::{Callgrind, EventKind};
use purser_ledger::amount::{Asset, Decimal};
use purser_ledger::apply::{Applied, apply_batch_cached};
use purser_ledger::cache::WalletCache;
use purser_ledger::command::{
    BatchEncoder, BurnPolicy, Capture, ChargeScope, Command, CreateWallet, Debit, Expiry, Grant, Header,
    Hold, Operation, Payer, TrancheKind, TrancheSpec,
};
use purser_ledger::ids::{Customer, HoldId};
use purser_ledger::store::MemStore;
use purser_ledger::time::{Span, Time};
use purser_ledger::verdict::{Effect, Reply, Verdict};

const WALLETS: usize = 100;
const NOW: Time = Time(1_800_000_000_000_000);
const FAR: u64 = 4_000_000_000_000_000;
const WALLET: &str = "main";

/// Instructions of each measurement when it was last changed on purpose, plus 3 %.
const APPLY_MAX: u64 = 3_837_000;
const APPLY_THREE_DRAWS_MAX: u64 = 4_166_500;
const APPLY_REPLAYS_MAX: u64 = 2_680_000;
/// With 100 open holds in each wallet: no more than without.
const APPLY_BESIDE_HOLDS_MAX: u64 = APPLY_MAX;
const APPLY_HOLDS_MAX: u64 = 4_641_500;
const APPLY_CAPTURES_MAX: u64 = 6_517_500;
const ENCODE_MAX: u64 = 129_200;
/// Open holds in each wallet, where there are some.
const HOLDS_EACH: usize = 100;

/// A shard's state, and what it is to judge next.
struct Prepared {
    store: MemStore,
    cache: WalletCache,
    entry: Vec<u8>,
}

fn header<'a>(customer: &'a str, key: &'a str) -> Header<'a> {
    Header {
        customer: Customer { namespace: "default", id: customer },
        key,
        valid_until: Time(NOW.0 + 300_000_000),
        retention: Span::from_secs(86_400),
        actor: "",
    }
}

fn create(header: Header<'_>) -> Command<'_> {
    Command {
        header,
        operation: Operation::CreateWallet(CreateWallet {
            wallet: WALLET,
            asset: Asset { code: "credits", scale: 0 },
            draw_priority: 100,
            scope: ChargeScope::Any,
            burn_policy: BurnPolicy::Standard,
        }),
    }
}

fn grant(header: Header<'_>) -> Command<'_> {
    let tranche = |place: u64| TrancheSpec {
        pending: false,
        amount: Decimal::new(1_000, 0).expect("an amount"),
        kind: if place < 3 { TrancheKind::Promotional } else { TrancheKind::Purchased },
        priority: 50 + place as u16 * 10,
        effective_at: None,
        expiry: if place < 3 { Expiry::At(Time(FAR + place)) } else { Expiry::Never },
        scope: ChargeScope::Any,
        features: Vec::new(),
        label: "",
        reason_code: "",
        external_reference: "",
        cost: None,
        metadata: Vec::new(),
    };
    Command {
        header,
        operation: Operation::Grant(Grant { wallet: WALLET, tranches: (0..4).map(tranche).collect() }),
    }
}

fn debit(header: Header<'_>, amount: i128) -> Command<'_> {
    Command {
        header,
        operation: Operation::Debit(Debit {
            payer: Payer::Wallet(WALLET),
            amount: Decimal::new(amount, 0).expect("an amount"),
            charge_type: None,
            feature: None,
            allow_partial: false,
            reason_code: "",
            reference: "",
            metadata: Vec::new(),
        }),
    }
}

fn hold(header: Header<'_>, amount: i128) -> Command<'_> {
    Command {
        header,
        operation: Operation::Hold(Hold {
            payer: Payer::Wallet(WALLET),
            amount: Decimal::new(amount, 0).expect("an amount"),
            ttl: None,
            charge_type: None,
            feature: None,
            reason_code: "",
            reference: "",
            metadata: Vec::new(),
        }),
    }
}

fn capture(header: Header<'_>, hold: HoldId, amount: i128) -> Command<'_> {
    Command {
        header,
        operation: Operation::Capture(Capture {
            hold,
            amount: Some(Decimal::new(amount, 0).expect("an amount")),
            keep_open: false,
            reason_code: "",
            reference: "",
            metadata: Vec::new(),
        }),
    }
}

fn customers() -> Vec<String> {
    (0..WALLETS).map(|number| format!("customer-{number:07}")).collect()
}

fn debits(round: usize, amount: i128) -> Vec<u8> {
    let mut encoder = BatchEncoder::new();
    for (place, customer) in customers().iter().enumerate() {
        encoder.push(&debit(header(customer, &format!("{:036}", round * WALLETS + place)), amount));
    }
    encoder.finish(NOW)
}

fn holds(round: usize, amount: i128) -> Vec<u8> {
    let mut encoder = BatchEncoder::new();
    for (place, customer) in customers().iter().enumerate() {
        encoder.push(&hold(header(customer, &format!("{:036}", round * WALLETS + place)), amount));
    }
    encoder.finish(NOW)
}

fn judge(prepared: &mut Prepared) -> Applied {
    apply_batch_cached(&prepared.store, &mut prepared.cache, 1, &prepared.entry).expect("it is judged")
}

fn judge_and_write(prepared: &mut Prepared, entry: Vec<u8>) {
    prepared.entry = entry;
    let applied = judge(prepared);
    prepared.store.commit(&applied.changes);
}

/// Wallets with credits, and debits of so much each to be judged.
fn fresh(amount: i128) -> Prepared {
    let mut prepared =
        Prepared { store: MemStore::new(), cache: WalletCache::new(WALLETS), entry: Vec::new() };
    let mut encoder = BatchEncoder::new();
    for customer in &customers() {
        encoder.push(&create(header(customer, "create")));
        encoder.push(&grant(header(customer, "grant")));
    }
    judge_and_write(&mut prepared, encoder.finish(NOW));
    judge_and_write(&mut prepared, debits(0, 1));
    prepared.entry = debits(1, amount);
    prepared
}

/// Debits that were judged before.
fn judged(amount: i128) -> Prepared {
    let mut prepared = fresh(amount);
    let applied = judge(&mut prepared);
    let is_applied = |reply: &Reply| matches!(reply, Reply::Verdict { verdict: Verdict::Applied(_), .. });
    assert!(applied.answers.iter().all(|answer| is_applied(&answer.reply)), "all are applied");
    prepared.store.commit(&applied.changes);
    prepared
}

/// Wallets with credits, and holds to be placed.
fn unheld() -> Prepared {
    let mut prepared = fresh(0);
    judge_and_write(&mut prepared, holds(1, 1));
    prepared.entry = holds(2, 585);
    prepared
}

/// Holds, and captures of two thirds of each.
fn held() -> Prepared {
    let mut prepared = unheld();
    let applied = judge(&mut prepared);
    prepared.store.commit(&applied.changes);
    let mut encoder = BatchEncoder::new();
    for (place, (customer, answer)) in customers().iter().zip(&applied.answers).enumerate() {
        let Reply::Verdict { verdict: Verdict::Applied(done), .. } = &answer.reply else {
            panic!("a hold is placed")
        };
        let Effect::Posted { hold: Some(hold), .. } = &done.effect else { panic!("it tells of its hold") };
        encoder.push(&capture(header(customer, &format!("{:036}", 3 * WALLETS + place)), hold.0, 390));
    }
    prepared.entry = encoder.finish(NOW);
    prepared
}

/// Debits of wallets that have many open holds.
fn beside_holds(amount: i128) -> Prepared {
    let mut prepared = fresh(amount);
    for round in 1..=HOLDS_EACH {
        judge_and_write(&mut prepared, holds(round, 1));
    }
    prepared.entry = debits(HOLDS_EACH + 1, amount);
    prepared
}

fn commands() -> (Vec<String>, Vec<String>) {
    (customers(), (0..WALLETS).map(|number| format!("{number:036}")).collect())
}

#[library_benchmark(config = LibraryBenchmarkConfig::default().tool(Callgrind::default().hard_limits([(EventKind::Ir, APPLY_MAX)])))]
#[bench::hundred(fresh(390))]
fn apply(mut prepared: Prepared) -> (Prepared, Applied) {
    let applied = judge(black_box(&mut prepared));
    (prepared, applied)
}

#[library_benchmark(config = LibraryBenchmarkConfig::default().tool(Callgrind::default().hard_limits([(EventKind::Ir, APPLY_THREE_DRAWS_MAX)])))]
#[bench::hundred(fresh(2_500))]
fn apply_three_draws(mut prepared: Prepared) -> (Prepared, Applied) {
    let applied = judge(black_box(&mut prepared));
    (prepared, applied)
}

#[library_benchmark(config = LibraryBenchmarkConfig::default().tool(Callgrind::default().hard_limits([(EventKind::Ir, APPLY_REPLAYS_MAX)])))]
#[bench::hundred(judged(390))]
fn apply_replays(mut prepared: Prepared) -> (Prepared, Applied) {
    let applied = judge(black_box(&mut prepared));
    (prepared, applied)
}

#[library_benchmark(config = LibraryBenchmarkConfig::default().tool(Callgrind::default().hard_limits([(EventKind::Ir, APPLY_BESIDE_HOLDS_MAX)])))]
#[bench::hundred(beside_holds(390))]
fn apply_beside_holds(mut prepared: Prepared) -> (Prepared, Applied) {
    let applied = judge(black_box(&mut prepared));
    (prepared, applied)
}

#[library_benchmark(config = LibraryBenchmarkConfig::default().tool(Callgrind::default().hard_limits([(EventKind::Ir, APPLY_HOLDS_MAX)])))]
#[bench::hundred(unheld())]
fn apply_holds(mut prepared: Prepared) -> (Prepared, Applied) {
    let applied = judge(black_box(&mut prepared));
    (prepared, applied)
}

#[library_benchmark(config = LibraryBenchmarkConfig::default().tool(Callgrind::default().hard_limits([(EventKind::Ir, APPLY_CAPTURES_MAX)])))]
#[bench::hundred(held())]
fn apply_captures(mut prepared: Prepared) -> (Prepared, Applied) {
    let applied = judge(black_box(&mut prepared));
    (prepared, applied)
}

#[library_benchmark(config = LibraryBenchmarkConfig::default().tool(Callgrind::default().hard_limits([(EventKind::Ir, ENCODE_MAX)])))]
#[bench::hundred(commands())]
fn encode((customers, keys): (Vec<String>, Vec<String>)) -> (Vec<u8>, Vec<String>, Vec<String>) {
    let mut encoder = BatchEncoder::new();
    for (customer, key) in customers.iter().zip(&keys) {
        encoder.push(black_box(&debit(header(customer, key), 390)));
    }
    (encoder.finish(NOW), customers, keys)
}

library_benchmark_group!(
    name = the_core,
    benchmarks =
        [apply, apply_three_draws, apply_replays, apply_beside_holds, apply_holds, apply_captures, encode]
);
main!(library_benchmark_groups = the_core);
