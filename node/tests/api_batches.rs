//! Stories of many debits in one call and on a stream: each has its own verdict, one customer's are
//! judged in their order, and a bad one keeps none of the others from it.

mod node_support;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::{StreamExt, stream};
use node_support::{
    Running, SECOND, T0, asset, at, create_request, debit_request, expiring, fresh_key, grant_request, pair,
    reason, tranche, unserved,
};
use purser_node::api::batch::WRITES_MAX;
use purser_node::api::forward::Route;
use purser_node::api::stream::WRITES_HELD_MAX;
use purser_node::config::Config;
use purser_node::server;
use purser_node::shard::QUEUE_COMMANDS_MAX;
use purser_proto::v1;
use tokio::sync::mpsc;
use tonic::{Code, Status};
use v1::TrancheKind::{Plan, Promotional, Purchased};
use v1::debit_result::Outcome;

const WHO: &str = "acme";

fn full(debits: Vec<v1::DebitRequest>) -> v1::DebitBatchRequest {
    v1::DebitBatchRequest { debits, detail: v1::ReceiptDetail::Full.into() }
}

async fn batch(node: &mut Running, debits: Vec<v1::DebitRequest>) -> Vec<v1::DebitResult> {
    node.ledger.debit_batch(full(debits)).await.expect("results").into_inner().results
}

fn applied(result: &v1::DebitResult) -> &v1::DebitResponse {
    match result.outcome.as_ref().expect("an outcome") {
        Outcome::Applied(applied) => applied,
        Outcome::Refused(refusal) => panic!("refused: {refusal:?}"),
    }
}

fn all_applied(results: &[v1::DebitResult]) {
    for result in results {
        applied(result);
    }
}

fn refusal(result: &v1::DebitResult) -> &v1::Refusal {
    match result.outcome.as_ref().expect("an outcome") {
        Outcome::Refused(refusal) => refusal,
        Outcome::Applied(applied) => panic!("applied: {applied:?}"),
    }
}

fn receipt(result: &v1::DebitResult) -> &v1::Receipt {
    applied(result).receipt.as_ref().expect("a receipt")
}

/// What a result says, in a word: what is left, or the reason.
fn told(result: &v1::DebitResult) -> &str {
    match result.outcome.as_ref().expect("an outcome") {
        Outcome::Applied(applied) => &applied.remaining,
        Outcome::Refused(refusal) => &refusal.reason,
    }
}

fn told_all(results: &[v1::DebitResult]) -> Vec<&str> {
    results.iter().map(told).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_debits_of_one_customer_are_judged_in_the_order_of_the_batch() {
    let mut node = Running::start().await;
    node.wallet_with(WHO, "main", vec![tranche("100", Purchased)]).await;

    let amounts = ["60", "41", "40", "1"];
    let results = batch(&mut node, amounts.map(|amount| debit_request(WHO, "main", amount)).into()).await;

    let expected = ["40", "INSUFFICIENT_CREDITS", "0", "INSUFFICIENT_CREDITS"];
    assert_eq!(told_all(&results), expected);
    let short = refusal(&results[1]);
    assert_eq!((short.metadata["available"].as_str(), short.metadata["required"].as_str()), ("40", "41"));
    assert_eq!(node.balance(WHO, "main").await.available, "0");
    assert_eq!(node.audit(WHO).await.findings, []);
    node.stop().await;
}

/// Covers: DebitBatch
#[tokio::test(flavor = "multi_thread")]
async fn verdicts_stand_in_the_places_of_their_debits_whatever_their_shards() {
    let mut node = Running::start().await;
    let customers: Vec<_> = (0..20).map(|number| format!("customer-{number}")).collect();
    for (number, customer) in customers.iter().enumerate() {
        node.wallet_with(customer, "main", vec![tranche(&(100 + number).to_string(), Purchased)]).await;
    }

    let mut debits = Vec::new();
    for customer in &customers {
        debits.push(debit_request(customer, "main", "100"));
        debits.push(debit_request(customer, "main", "100"));
        debits.push(debit_request(customer, "other", "1"));
    }
    debits.push(debit_request("nobody", "main", "1"));
    let results = batch(&mut node, debits).await;

    let mut expected = Vec::new();
    for number in 0..20 {
        let left = number.to_string();
        expected.extend([left, "INSUFFICIENT_CREDITS".to_owned(), "WALLET_NOT_FOUND".to_owned()]);
    }
    expected.push("CUSTOMER_NOT_FOUND".to_owned());
    assert_eq!(told_all(&results), expected);
    let shards: std::collections::BTreeSet<_> = (0..20)
        .map(|number| receipt(&results[3 * number]).witness.as_ref().expect("a witness").shard)
        .collect();
    assert_eq!(shards.len(), 2, "the customers live in both shards");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_malformed_debit_is_refused_in_its_place_and_the_others_go_on() {
    let mut node = Running::start().await;
    node.wallet_with(WHO, "main", vec![tranche("10", Purchased)]).await;

    let debits = vec![
        debit_request(WHO, "main", "1"),
        debit_request(WHO, "main", "1e3"),
        v1::DebitRequest { customer: String::new(), ..debit_request(WHO, "main", "1") },
        v1::DebitRequest::default(),
        debit_request(WHO, "main", "2"),
    ];
    let results = batch(&mut node, debits).await;

    let malformed = "INVALID_ARGUMENT";
    assert_eq!(told_all(&results), ["9", malformed, malformed, malformed, "7"]);
    assert!(refusal(&results[1]).message.starts_with("amount: "), "{:?}", results[1]);
    assert!(refusal(&results[2]).message.starts_with("customer: "), "{:?}", results[2]);
    node.stop().await;
}

/// Where a refusal was judged differs from one call to the next; all else must be the same.
fn without_place(mut metadata: BTreeMap<String, String>) -> BTreeMap<String, String> {
    metadata.retain(|name, _| name != "log_index" && name != "position");
    metadata
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_in_a_result_says_what_the_single_call_says() {
    let mut node = Running::start().await;
    let limited =
        v1::TrancheSpec { charge_scope: v1::ChargeScope::Usage.into(), ..tranche("5", Promotional) };
    node.wallet_with(WHO, "main", vec![tranche("10", Purchased)]).await;
    node.wallet_with(WHO, "usage", vec![limited]).await;
    let used = debit_request(WHO, "main", "1");
    node.debit(used.clone()).await.expect("a debit");
    let reused = v1::DebitRequest { amount: "2".to_owned(), ..used };
    let late = v1::DebitRequest { valid_until: Some(at(T0)), ..debit_request(WHO, "main", "1") };
    let no_payer = v1::DebitRequest { payer: None, ..debit_request(WHO, "main", "1") };
    let by_asset = v1::debit_request::Payer::Asset(asset(3));
    let requests = [
        ("INSUFFICIENT_CREDITS", debit_request(WHO, "main", "11")),
        ("NO_ELIGIBLE_TRANCHE", debit_request(WHO, "usage", "1")),
        ("CUSTOMER_NOT_FOUND", debit_request("nobody", "main", "1")),
        ("WALLET_NOT_FOUND", debit_request(WHO, "other", "1")),
        ("WALLET_NOT_FOUND", v1::DebitRequest { payer: Some(by_asset), ..debit_request(WHO, "", "1") }),
        ("INVALID_AMOUNT_PRECISION", debit_request(WHO, "main", "1.5")),
        ("AMOUNT_OVERFLOW", debit_request(WHO, "main", &"9".repeat(39))),
        ("IDEMPOTENCY_KEY_REUSED", reused),
        ("KEY_TOO_OLD", late),
        ("INVALID_ARGUMENT", no_payer),
        ("LIMIT_EXCEEDED", debit_request(&"x".repeat(129), "main", "1")),
    ];
    for (expected, request) in requests {
        let fresh = match expected {
            "IDEMPOTENCY_KEY_REUSED" => request.clone(),
            _ => v1::DebitRequest { idempotency_key: fresh_key(), ..request.clone() },
        };
        let single: Status = node.debit(request).await.expect_err("refused");
        let result = batch(&mut node, vec![fresh]).await.remove(0);
        let own = refusal(&result);
        assert_eq!((reason(&single).as_str(), own.reason.as_str()), (expected, expected));
        assert_eq!(own.message, single.message());
        let names = own.metadata.keys().cloned();
        let of_single: BTreeMap<_, _> = names.map(|name| (name.clone(), pair(&single, &name))).collect();
        assert_eq!(without_place(own.metadata.clone()), without_place(of_single), "{expected}");
    }
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn eight_thousand_debits_go_in_one_call_and_not_one_more_or_none() {
    let mut node = Running::start().await;
    let customers: Vec<_> = (0..40).map(|number| format!("customer-{number}")).collect();
    for customer in &customers {
        node.wallet_with(customer, "main", vec![tranche("1000", Purchased)]).await;
    }
    let debits = |count: usize| -> Vec<_> {
        (0..count).map(|number| debit_request(&customers[number % 40], "main", "1")).collect()
    };

    let results = batch(&mut node, debits(WRITES_MAX)).await;

    assert_eq!(results.len(), WRITES_MAX);
    for (number, result) in results.iter().enumerate() {
        // The n-th debit of each customer leaves 1000 - n.
        assert_eq!(told(result), (999 - number / 40).to_string());
    }
    let refused = node.ledger.debit_batch(full(debits(WRITES_MAX + 1))).await.expect_err("too many");
    assert_eq!(reason(&refused), "LIMIT_EXCEEDED");
    let refused = node.ledger.debit_batch(full(Vec::new())).await.expect_err("none");
    assert_eq!(reason(&refused), "INVALID_ARGUMENT");
    for customer in &customers {
        assert_eq!(node.balance(customer, "main").await.available, "800");
    }
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_comes_twice_in_a_batch_takes_effect_once() {
    let mut node = Running::start().await;
    node.wallet_with(WHO, "main", vec![tranche("100", Purchased)]).await;
    let once = debit_request(WHO, "main", "10");
    let other = v1::DebitRequest { amount: "11".to_owned(), ..once.clone() };

    let debits = vec![once.clone(), debit_request(WHO, "main", "5"), once.clone(), other, once];
    let results = batch(&mut node, debits).await;

    assert_eq!(told_all(&results), ["90", "85", "90", "IDEMPOTENCY_KEY_REUSED", "90"]);
    let replayed: Vec<_> = [0, 1, 2, 4].map(|place| receipt(&results[place]).replayed).into();
    assert_eq!(replayed, [false, false, true, true]);
    assert_eq!(receipt(&results[2]).operation_id, receipt(&results[0]).operation_id);
    assert_eq!(node.balance(WHO, "main").await.available, "85");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_comes_to_the_same_as_its_debits_one_by_one() {
    let mut node = Running::start().await;
    for customer in ["one-by-one", "together"] {
        let tranches = vec![
            tranche("1000", Purchased),
            expiring("300", Plan, T0 + 1_000 * SECOND),
            v1::TrancheSpec { priority: Some(10), ..tranche("50", Promotional) },
        ];
        node.wallet_with(customer, "main", tranches).await;
    }
    let amounts = ["20", "200", "500", "1000", "630", "1"];
    let asked = |customer: &str| amounts.map(|amount| debit_request(customer, "main", amount));
    let mut singles = Vec::new();
    for request in asked("one-by-one") {
        singles.push(node.debit(request).await);
    }

    let results = batch(&mut node, asked("together").into()).await;

    for (single, result) in singles.iter().zip(&results) {
        let single = match single {
            Ok(single) => single,
            Err(status) => {
                assert_eq!(refusal(result).reason, reason(status));
                continue;
            }
        };
        let (own, together) = (single.receipt.as_ref().expect("a receipt"), receipt(result));
        let draws = |receipt: &v1::Receipt| -> Vec<_> {
            let draws = receipt.draws.iter();
            draws.map(|draw| (draw.kind, draw.amount.clone(), draw.left.clone())).collect()
        };
        assert_eq!(draws(together), draws(own));
        assert_eq!(together.balances, own.balances);
        assert_eq!((together.movement_ids.len(), own.movement_ids.len()), (1, 1));
        let figures = |debit: &v1::DebitResponse| (debit.amount.clone(), debit.remaining.clone());
        assert_eq!(figures(applied(result)), figures(single));
    }
    // 1350 - 20 - 200 - 500, 1000 is too much, - 630, nothing left.
    let short = "INSUFFICIENT_CREDITS";
    assert_eq!(told_all(&results), ["1330", "1130", "630", short, "0", short]);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_brief_answer_leaves_out_draws_balances_and_movement_ids() {
    let mut node = Running::start().await;
    node.wallet_with(WHO, "main", vec![tranche("10", Purchased)]).await;
    let detail = v1::ReceiptDetail::Brief.into();
    let request = v1::DebitBatchRequest { debits: vec![debit_request(WHO, "main", "4")], detail };

    let results = node.ledger.debit_batch(request).await.expect("results").into_inner().results;

    let (debit, own) = (applied(&results[0]), receipt(&results[0]));
    assert_eq!((debit.amount.as_str(), debit.remaining.as_str()), ("4", "6"));
    assert_eq!(debit.asset, Some(asset(0)));
    assert!(own.operation_id.starts_with("op_"), "{own:?}");
    assert_eq!(own.ledger_time, Some(at(T0)));
    assert!(own.witness.is_some());
    assert_eq!((own.movement_ids.len(), own.draws.len(), own.balances.len()), (0, 0, 0));
    node.stop().await;
}

fn alone(data: &std::path::Path) -> Config {
    Config { data: data.to_owned(), shards: Some(1), disk_reserve_mib: 0, ..Config::default() }
}

async fn with_credits(node: &server::Running, customer: &str, amount: &str) {
    node.node().api.create_wallet(&create_request(customer, "main", 0)).await.expect("a wallet");
    let credits = vec![tranche(amount, Purchased)];
    node.node().api.grant(&grant_request(customer, "main", credits)).await.expect("credits");
}

/// One thread: both batches are handed over before the batcher takes the first one.
#[tokio::test(flavor = "current_thread")]
async fn of_a_batch_that_does_not_fit_into_the_queue_only_the_end_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let node = unserved(alone(folder.path())).await;
    let customers = ["ada", "bob", "cleo"];
    for customer in customers {
        with_credits(&node, customer, "100000").await;
    }
    let request = |count: usize| {
        full((0..count).map(|number| debit_request(customers[number % 3], "main", "1")).collect())
    };
    let (first, second) = (request(WRITES_MAX), request(5_000));

    let (first, second) = tokio::join!(
        node.node().api.debit_batch(&first, Route::Direct),
        node.node().api.debit_batch(&second, Route::Direct)
    );

    let (first, second) = (first.expect("results").results, second.expect("results").results);
    all_applied(&first);
    let fits = QUEUE_COMMANDS_MAX - WRITES_MAX;
    all_applied(&second[..fits]);
    for result in &second[fits..] {
        assert_eq!(refusal(result).reason, "UNAVAILABLE");
        assert!(refusal(result).message.contains("queue"), "{result:?}");
    }
    // The places came back: a batch as long as any is taken whole.
    let again =
        node.node().api.debit_batch(&request(WRITES_MAX), Route::Direct).await.expect("results").results;
    all_applied(&again);
    node.close().await.expect("closed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_fills_several_entries_is_judged_in_its_order() {
    let folder = tempfile::tempdir().expect("a folder");
    let node = unserved(alone(folder.path())).await;
    with_credits(&node, WHO, "2500").await;
    // 2,500 commands of over a kilobyte each: three entries of a megabyte.
    let note = BTreeMap::from([("note".to_owned(), "x".repeat(1_000))]);
    let debit = || v1::DebitRequest { metadata: note.clone(), ..debit_request(WHO, "main", "1") };
    let request = full((0..2_500).map(|_| debit()).collect());

    let results = node.node().api.debit_batch(&request, Route::Direct).await.expect("results").results;

    let left: Vec<u32> = results.iter().map(|result| told(result).parse().expect("a number")).collect();
    assert_eq!(left, (0..2_500).rev().collect::<Vec<u32>>());
    let witness = |result| receipt(result).witness.expect("a witness");
    let places: Vec<_> = results.iter().map(witness).map(|own| (own.log_index, own.position)).collect();
    assert!(places.is_sorted(), "judged in order");
    let entries: std::collections::BTreeSet<_> = places.iter().map(|(log_index, _)| log_index).collect();
    assert_eq!(entries.len(), 3);
    node.close().await.expect("closed");
}

fn on_stream(sequence: u64, debit: Option<v1::DebitRequest>) -> v1::DebitStreamRequest {
    v1::DebitStreamRequest { sequence, debit, detail: v1::ReceiptDetail::Full.into() }
}

/// Covers: DebitStream
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_answers_each_debit_under_its_number_and_one_customers_in_order() {
    let mut node = Running::start().await;
    let customers: Vec<_> = (0..10).map(|number| format!("customer-{number}")).collect();
    for customer in &customers {
        node.wallet_with(customer, "main", vec![tranche("150", Purchased)]).await;
    }
    // Debit n is of customer n % 10; the hundredth of each is malformed.
    let requests: Vec<_> = (0..2_000u64)
        .map(|number| {
            let amount = if number / 10 == 99 { "-1" } else { "1" };
            on_stream(number, Some(debit_request(&customers[number as usize % 10], "main", amount)))
        })
        .collect();

    let responses = node.ledger.debit_stream(stream::iter(requests)).await.expect("a stream").into_inner();
    let responses: Vec<_> = responses.map(|response| response.expect("a result")).collect().await;

    // The half-close has ended the stream after everything was answered.
    assert_eq!(responses.len(), 2_000);
    for customer in 0..10 {
        let own: Vec<_> = responses.iter().filter(|response| response.sequence % 10 == customer).collect();
        let numbers: Vec<_> = own.iter().map(|response| response.sequence / 10).collect();
        assert_eq!(numbers, (0..200).collect::<Vec<_>>());
        for response in own {
            let expected = match response.sequence / 10 {
                99 => "INVALID_ARGUMENT".to_owned(),
                number @ 0..99 => (149 - number).to_string(),
                number @ 100..=150 => (150 - number).to_string(),
                _ => "INSUFFICIENT_CREDITS".to_owned(),
            };
            assert_eq!(told(response.result.as_ref().expect("a result")), expected);
        }
    }
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_malformed_first_message_is_refused_in_its_result_and_the_stream_goes_on() {
    let mut node = Running::start().await;
    node.wallet_with(WHO, "main", vec![tranche("10", Purchased)]).await;
    let (requests, sent) = mpsc::channel(1);
    let sent = tokio_stream::wrappers::ReceiverStream::new(sent);
    let mut responses = node.ledger.debit_stream(sent).await.expect("a stream").into_inner();

    let messages = [
        (None, "INVALID_ARGUMENT"),
        (Some(debit_request(WHO, "main", "much")), "INVALID_ARGUMENT"),
        (Some(debit_request(WHO, "main", "3")), "7"),
    ];
    for (number, (debit, expected)) in messages.into_iter().enumerate() {
        let sequence = 7_000 + number as u64;
        requests.send(on_stream(sequence, debit)).await.expect("the stream is open");
        let response = responses.next().await.expect("an answer").expect("a result");
        assert_eq!(response.sequence, sequence);
        assert_eq!(told(response.result.as_ref().expect("a result")), expected);
    }
    drop(requests);
    assert!(responses.next().await.is_none(), "the half-close ends it");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn detail_is_chosen_debit_by_debit() {
    let mut node = Running::start().await;
    node.wallet_with(WHO, "main", vec![tranche("10", Purchased)]).await;
    let requests = [v1::ReceiptDetail::Full, v1::ReceiptDetail::Brief, v1::ReceiptDetail::Full];
    let requests = requests.into_iter().enumerate().map(|(number, detail)| v1::DebitStreamRequest {
        detail: detail.into(),
        ..on_stream(number as u64, Some(debit_request(WHO, "main", "1")))
    });
    let requests: Vec<_> = requests.collect();

    let responses = node.ledger.debit_stream(stream::iter(requests)).await.expect("a stream").into_inner();
    let responses: Vec<_> = responses.map(|response| response.expect("a result")).collect().await;

    let draws = responses.iter().map(|response| {
        let result = response.result.as_ref().expect("a result");
        (response.sequence, told(result), receipt(result).draws.len())
    });
    assert_eq!(draws.collect::<Vec<_>>(), [(0, "9", 1), (1, "8", 0), (2, "7", 1)]);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_reads_no_further_ahead_than_its_bound() {
    let folder = tempfile::tempdir().expect("a folder");
    let node = unserved(alone(folder.path())).await;
    with_credits(&node, WHO, "1000000").await;
    let read = Arc::new(AtomicUsize::new(0));
    let count = read.clone();
    // A caller that has no end of debits.
    let requests = stream::repeat_with(move || {
        let number = count.fetch_add(1, Ordering::Relaxed) as u64;
        Ok(on_stream(number, Some(debit_request(WHO, "main", "1"))))
    });
    let mut responses = Box::pin(node.node().api.debit_stream(requests, true));

    let mut furthest = 0;
    for answered in 0..4 * WRITES_HELD_MAX {
        let response = responses.next().await.expect("no end").expect("a result");
        assert_eq!(response.sequence, answered as u64);
        // This answer is out; those read and not answered are held.
        let held = read.load(Ordering::Relaxed) - (answered + 1);
        assert!(held <= WRITES_HELD_MAX, "{held} after {answered}");
        furthest = furthest.max(held);
    }

    assert!(furthest > WRITES_HELD_MAX / 2, "it does read ahead: {furthest}");
    drop(responses);
    node.close().await.expect("closed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_stops_answers_what_a_stream_has_read_and_ends_it_with_a_reason() {
    let mut node = Running::start().await;
    node.wallet_with(WHO, "main", vec![tranche("10", Purchased)]).await;
    let (requests, sent) = mpsc::channel(1);
    let sent = tokio_stream::wrappers::ReceiverStream::new(sent);
    let mut responses = node.ledger.debit_stream(sent).await.expect("a stream").into_inner();
    requests.send(on_stream(1, Some(debit_request(WHO, "main", "4")))).await.expect("the stream is open");
    let first = responses.next().await.expect("an answer").expect("a result");
    assert_eq!(told(first.result.as_ref().expect("a result")), "6");

    // The caller holds its side open: the node must not wait for it.
    let stopping = tokio::spawn(node.stop());

    let end = responses.next().await.expect("a last word").expect_err("not a result");
    assert_eq!((end.code(), reason(&end).as_str()), (Code::Unavailable, "UNAVAILABLE"));
    assert!(end.message().contains("stopping"), "{}", end.message());
    assert!(responses.next().await.is_none());
    stopping.await.expect("a clean end");
    drop(requests);
}
