//! What the benchmarks of this crate work on: a request of 100 plain debits of 100 wallets, and what
//! becomes of it on its way.
// Each benchmark uses a part of it.
#![allow(dead_code)]

use prost::Message;
use purser_ledger::amount::{Asset, Decimal};
use purser_ledger::apply::{Applied, apply_batch_cached};
use purser_ledger::cache::WalletCache;
use purser_ledger::command::{
    BatchEncoder, BurnPolicy, ChargeScope, Command, CreateWallet, Expiry, Grant, Header, Operation,
    TrancheKind, TrancheSpec,
};
use purser_ledger::ids::Customer;
use purser_ledger::store::Store;
use purser_ledger::time::{Span, Time};
use purser_ledger::verdict::{Answer, Reply, Verdict};
use purser_node::api::{commands, render};
use purser_node::shard::{CommandList, ShardId, Witness};
use purser_proto::v1;

/// Debits of a request, and wallets.
pub const DEBITS: usize = 100;
/// The ledger time at which all of it happens.
pub const NOW: Time = Time(1_800_000_000_000_000);
/// What each of a wallet's four tranches holds: no number of rounds makes it short.
const TRANCHE_CREDITS: i128 = 1_000_000_000_000;

/// Customers with one wallet each.
pub fn customers() -> Vec<String> {
    (0..DEBITS).map(|number| format!("customer-{number:07}")).collect()
}

/// A request of one debit for each wallet, as it comes over the wire. Keys are those of the round.
pub fn request(round: u64) -> Vec<u8> {
    let debit = |(place, customer): (usize, String)| v1::DebitRequest {
        customer,
        idempotency_key: format!("{:036}", round * DEBITS as u64 + place as u64),
        amount: "390".to_owned(),
        payer: Some(v1::debit_request::Payer::Wallet("main".to_owned())),
        ..v1::DebitRequest::default()
    };
    let debits = customers().into_iter().enumerate().map(debit).collect();
    v1::DebitBatchRequest { debits, ..v1::DebitBatchRequest::default() }.encode_to_vec()
}

/// Takes a request apart.
pub fn decoded(request: &[u8]) -> v1::DebitBatchRequest {
    v1::DebitBatchRequest::decode(request).expect("it decodes")
}

/// Checks its debits and puts them into a list, as a shard's queue takes them.
pub fn list(request: &v1::DebitBatchRequest) -> CommandList {
    let mut list = CommandList::with_capacity(request.debits.len());
    for debit in &request.debits {
        list.push(&commands::debit(debit, NOW).expect("well formed"));
    }
    list
}

/// The entry that the batcher makes of a request.
pub fn entry(request: &v1::DebitBatchRequest) -> Vec<u8> {
    let mut encoder = BatchEncoder::new();
    for debit in &request.debits {
        encoder.push(&commands::debit(debit, NOW).expect("well formed"));
    }
    encoder.finish(NOW)
}

/// The entry that makes the wallets and fills them.
pub fn filling() -> Vec<u8> {
    let mut encoder = BatchEncoder::new();
    for customer in &customers() {
        encoder.push(&create(customer));
        encoder.push(&grant(customer));
    }
    encoder.finish(NOW)
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

fn create(customer: &str) -> Command<'_> {
    let create = CreateWallet {
        wallet: "main",
        asset: Asset { code: "credits", scale: 0 },
        draw_priority: 100,
        scope: ChargeScope::Any,
        burn_policy: BurnPolicy::Standard,
    };
    Command { header: header(customer, "create"), operation: Operation::CreateWallet(create) }
}

fn grant(customer: &str) -> Command<'_> {
    let tranche = |priority| TrancheSpec {
        amount: Decimal::new(TRANCHE_CREDITS, 0).expect("an amount"),
        kind: TrancheKind::Purchased,
        priority,
        pending: false,
        effective_at: None,
        expiry: Expiry::Never,
        scope: ChargeScope::Any,
        features: Vec::new(),
        label: "",
        reason_code: "",
        external_reference: "",
        cost: None,
        metadata: Vec::new(),
    };
    let grant = Grant { wallet: "main", tranches: (50..54).map(tranche).collect() };
    Command { header: header(customer, "grant"), operation: Operation::Grant(grant) }
}

/// Judges an entry.
pub fn judged<S: Store>(store: &S, cache: &mut WalletCache, entry: &[u8]) -> Applied {
    let applied = apply_batch_cached(store, cache, 1, entry).expect("it is judged");
    let fine = |reply: &Reply| matches!(reply, Reply::Verdict { verdict: Verdict::Applied(_), .. });
    assert!(applied.answers.iter().all(|answer| fine(&answer.reply)), "all are applied");
    applied
}

/// The answer to a request, as it goes over the wire.
pub fn response(answers: &[Answer]) -> Vec<u8> {
    let result = |(place, answer): (usize, &Answer)| {
        let witness = Witness { shard: ShardId(1), log_index: 7, position: place as u64, now: answer.now };
        let Reply::Verdict { verdict: Verdict::Applied(applied), replayed } = &answer.reply else {
            panic!("not applied: {:?}", answer.reply)
        };
        let debited = render::debit(applied, &witness, *replayed, v1::ReceiptDetail::Full);
        v1::DebitResult { outcome: Some(v1::debit_result::Outcome::Applied(debited)) }
    };
    let results = answers.iter().enumerate().map(result).collect();
    v1::DebitBatchResponse { results }.encode_to_vec()
}
