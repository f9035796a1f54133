//! Stories of writes of several sorts in one call and on a stream: each is judged as its own call judges
//! it, in its place, and one customer's see what those before them have done.

mod node_support;

use std::collections::BTreeSet;

use futures_util::{StreamExt, stream};
use node_support::{
    Running, SECOND, capture_request, debit_request, extend_request, fresh_key, grant_request, hold_request,
    reason, refund_request, release_request, tranche,
};
use purser_node::api::batch::WRITES_MAX;
use purser_proto::v1;
use v1::TrancheKind::{Promotional, Purchased};
use v1::WriteRequest;
use v1::write_result::Outcome;

const WHO: &str = "acme";

async fn batch(node: &mut Running, writes: Vec<WriteRequest>) -> Vec<v1::WriteResult> {
    in_detail(node, writes, v1::ReceiptDetail::Full).await
}

async fn in_detail(
    node: &mut Running,
    writes: Vec<WriteRequest>,
    detail: v1::ReceiptDetail,
) -> Vec<v1::WriteResult> {
    let request = v1::WriteBatchRequest { writes, detail: detail.into() };
    node.ledger.write_batch(request).await.expect("results").into_inner().results
}

fn debit(amount: &str) -> WriteRequest {
    debit_request(WHO, "main", amount).into()
}

fn hold(amount: &str) -> WriteRequest {
    hold_request(WHO, "main", amount).into()
}

fn grant(amount: &str) -> WriteRequest {
    grant_request(WHO, "main", vec![tranche(amount, Promotional)]).into()
}

fn outcome(result: &v1::WriteResult) -> &Outcome {
    result.outcome.as_ref().expect("an outcome")
}

fn refusal(result: &v1::WriteResult) -> &v1::Refusal {
    match outcome(result) {
        Outcome::Refused(refusal) => refusal,
        applied => panic!("applied: {applied:?}"),
    }
}

fn receipt(result: &v1::WriteResult) -> &v1::Receipt {
    let receipt = match outcome(result) {
        Outcome::Debited(own) => &own.receipt,
        Outcome::Held(own) => &own.receipt,
        Outcome::Extended(own) => &own.receipt,
        Outcome::Captured(own) => &own.receipt,
        Outcome::Released(own) => &own.receipt,
        Outcome::Granted(own) => &own.receipt,
        Outcome::Refunded(own) => &own.receipt,
        Outcome::Refused(refusal) => panic!("refused: {refusal:?}"),
    };
    receipt.as_ref().expect("a receipt")
}

/// The hold that a result is about.
fn hold_id(result: &v1::WriteResult) -> String {
    let Outcome::Held(held) = outcome(result) else { panic!("not held: {result:?}") };
    held.hold.as_ref().expect("its state").hold_id.clone()
}

/// What a result says, in a few words: what was done, and what is left; or the reason.
fn told(result: &v1::WriteResult) -> String {
    match outcome(result) {
        Outcome::Debited(own) => format!("debited {}, {} left", own.amount, own.remaining),
        Outcome::Held(own) => format!("held, {} left", own.remaining),
        Outcome::Extended(own) => format!("extended, {} left", own.remaining),
        Outcome::Captured(own) => {
            format!("captured {}, released {}, {} left", own.amount, own.released, own.remaining)
        }
        Outcome::Released(own) => format!("released {}, {} left", own.released, own.remaining),
        Outcome::Granted(own) => {
            let available: Vec<_> = own.tranches.iter().map(|own| own.available.as_str()).collect();
            format!("granted {}", available.join(" and "))
        }
        Outcome::Refunded(own) => format!("refunded {}", own.amount),
        Outcome::Refused(refusal) => refusal.reason.clone(),
    }
}

fn told_all(results: &[v1::WriteResult]) -> Vec<String> {
    results.iter().map(told).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn writes_of_one_customer_see_what_those_before_them_have_done() {
    let mut node = Running::start().await;
    node.wallet_with(WHO, "main", vec![tranche("100", Purchased)]).await;

    // 100 - 30 - 10 - 50 leaves 10; with 15 more, of which the gift goes first, 21 leave 4.
    let writes = [hold("30"), hold("10"), debit("50"), debit("21"), grant("15"), debit("21"), hold("5")];
    let placed = batch(&mut node, writes.into()).await;

    let short = "INSUFFICIENT_CREDITS";
    let expected = [
        "held, 70 left",
        "held, 60 left",
        "debited 50, 10 left",
        short,
        // What the debit after it took does not show.
        "granted 15",
        "debited 21, 4 left",
        short,
    ];
    assert_eq!(told_all(&placed), expected);
    let draws = receipt(&placed[5]).draws.iter().map(|own| (own.kind(), own.amount.as_str()));
    assert_eq!(draws.collect::<Vec<_>>(), [(Promotional, "15"), (Purchased, "6")]);

    let (first, second) = (hold_id(&placed[0]), hold_id(&placed[1]));
    let spent = receipt(&placed[2]).movement_ids[0].clone();
    // 4 + 18 released + 10 released + 20 refunded is 52.
    let writes: [WriteRequest; 7] = [
        extend_request(WHO, &second, 3_600 * SECOND).into(),
        capture_request(WHO, &first, "12").into(),
        release_request(WHO, &second).into(),
        refund_request(WHO, &spent, "20").into(),
        debit("52"),
        capture_request(WHO, &first, "1").into(),
        refund_request(WHO, &spent, "31").into(),
    ];
    let settled = batch(&mut node, writes.into()).await;

    let expected = [
        "extended, 4 left",
        "captured 12, released 18, 22 left",
        "released 10, 32 left",
        "refunded 20",
        "debited 52, 0 left",
        "HOLD_CLOSED",
        "REFUND_EXCEEDS_DEBIT",
    ];
    assert_eq!(told_all(&settled), expected);
    // 115 granted; 50 + 21 + 12 + 52 spent, 20 of it back.
    assert_eq!(node_support::figures(&node.balance(WHO, "main").await)[..3], ["0", "0", "0"]);
    assert_eq!(node.audit(WHO).await.findings, []);
    node.stop().await;
}

/// What differs from one customer to the next: ids and places.
fn without_ids(mut result: v1::WriteResult) -> v1::WriteResult {
    let receipt = |own: &mut Option<v1::Receipt>| {
        let own = own.as_mut().expect("a receipt");
        (own.operation_id, own.witness) = (String::new(), None);
        own.movement_ids.iter_mut().for_each(String::clear);
        own.draws.iter_mut().for_each(|draw| draw.tranche_id.clear());
    };
    let hold = |own: &mut Option<v1::HoldState>| own.as_mut().expect("its state").hold_id.clear();
    match result.outcome.as_mut().expect("an outcome") {
        Outcome::Debited(own) => receipt(&mut own.receipt),
        Outcome::Held(own) => (receipt(&mut own.receipt), hold(&mut own.hold)).0,
        Outcome::Extended(own) => (receipt(&mut own.receipt), hold(&mut own.hold)).0,
        Outcome::Captured(own) => (receipt(&mut own.receipt), hold(&mut own.hold)).0,
        Outcome::Released(own) => (receipt(&mut own.receipt), hold(&mut own.hold)).0,
        Outcome::Refunded(own) => receipt(&mut own.receipt),
        Outcome::Granted(own) => {
            receipt(&mut own.receipt);
            for tranche in &mut own.tranches {
                tranche.tranche_id.clear();
                tranche.granted_by.clear();
            }
        }
        Outcome::Refused(refusal) => panic!("refused: {refusal:?}"),
    }
    result
}

/// What a single call answers, as a result.
async fn single(node: &mut Running, write: WriteRequest) -> v1::WriteResult {
    use v1::write_request::Write;
    let outcome = match write.write.expect("a write") {
        Write::Debit(own) => Outcome::Debited(node.debit(own).await.expect("applied")),
        Write::Hold(own) => Outcome::Held(node.hold(own).await.expect("applied")),
        Write::ExtendHold(own) => Outcome::Extended(node.extend(own).await.expect("applied")),
        Write::Capture(own) => Outcome::Captured(node.capture(own).await.expect("applied")),
        Write::Release(own) => Outcome::Released(node.release(own).await.expect("applied")),
        Write::Grant(own) => Outcome::Granted(node.ledger.grant(own).await.expect("applied").into_inner()),
        Write::Refund(own) => Outcome::Refunded(node.refund(own).await.expect("applied")),
    };
    v1::WriteResult { outcome: Some(outcome) }
}

/// Covers: WriteBatch
#[tokio::test(flavor = "multi_thread")]
async fn a_result_is_what_the_single_call_of_its_sort_answers() {
    let mut node = Running::start().await;
    let customers = ["one-by-one", "together"];
    for customer in customers {
        node.wallet_with(customer, "main", vec![tranche("3", Promotional), tranche("97", Purchased)]).await;
    }
    let first = |who: &str| -> Vec<WriteRequest> {
        let gifts = vec![tranche("1", Promotional), tranche("2", Purchased)];
        vec![
            hold_request(who, "main", "10").into(),
            hold_request(who, "main", "20").into(),
            debit_request(who, "main", "5").into(),
            grant_request(who, "main", gifts).into(),
        ]
    };
    let then = |who: &str, placed: &[v1::WriteResult]| -> Vec<WriteRequest> {
        vec![
            extend_request(who, &hold_id(&placed[0]), 600 * SECOND).into(),
            capture_request(who, &hold_id(&placed[0]), "4").into(),
            release_request(who, &hold_id(&placed[1])).into(),
            refund_request(who, &receipt(&placed[2]).movement_ids[0], "2").into(),
        ]
    };

    let mut singles = Vec::new();
    for write in first(customers[0]) {
        singles.push(single(&mut node, write).await);
    }
    for write in then(customers[0], &singles.clone()) {
        singles.push(single(&mut node, write).await);
    }
    let mut results = batch(&mut node, first(customers[1])).await;
    let rest = then(customers[1], &results);
    results.extend(batch(&mut node, rest).await);

    let sorts: BTreeSet<_> = results
        .iter()
        .map(|own| std::mem::discriminant(outcome(own)))
        .map(|own| format!("{own:?}"))
        .collect();
    assert_eq!(sorts.len(), 7, "each sort is among them");
    for (together, alone) in results.into_iter().zip(singles) {
        assert_eq!(without_ids(together), without_ids(alone));
    }
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_malformed_write_is_refused_in_its_place_and_the_others_go_on() {
    let mut node = Running::start().await;
    node.wallet_with(WHO, "main", vec![tranche("10", Purchased)]).await;

    let writes = vec![
        debit("1"),
        WriteRequest::default(),
        hold("1e3"),
        capture_request(WHO, "", "1").into(),
        release_request(WHO, "not an id").into(),
        extend_request(WHO, "hld_0000000000000", 0).into(),
        grant_request(WHO, "main", Vec::new()).into(),
        refund_request("", "", "1").into(),
        v1::HoldRequest { idempotency_key: String::new(), ..hold_request(WHO, "main", "1") }.into(),
        hold("2"),
    ];
    let results = batch(&mut node, writes).await;

    let malformed = "INVALID_ARGUMENT";
    let mut expected = vec!["debited 1, 9 left"];
    expected.extend([malformed; 8]);
    expected.push("held, 7 left");
    assert_eq!(told_all(&results), expected);
    let fields = ["write", "amount", "hold_id", "hold_id", "ttl", "tranches", "customer", "idempotency_key"];
    for (result, field) in results[1..].iter().zip(fields) {
        assert!(refusal(result).message.starts_with(&format!("{field}: ")), "{field}: {result:?}");
    }
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_is_sent_again_is_answered_as_the_first_time() {
    let mut node = Running::start().await;
    node.wallet_with(WHO, "main", vec![tranche("100", Purchased)]).await;
    let held = hold_request(WHO, "main", "40");
    let writes = vec![held.clone().into(), debit("70"), grant("15"), debit("5")];
    let first = batch(&mut node, writes.clone()).await;
    let again = batch(&mut node, writes).await;

    let expected = ["held, 60 left", "INSUFFICIENT_CREDITS", "granted 15", "debited 5, 70 left"];
    assert_eq!((told_all(&first), told_all(&again)), (expected.map(String::from).into(), told_all(&first)));
    for place in [0, 2, 3] {
        let (own, replay) = (receipt(&first[place]), receipt(&again[place]));
        assert_eq!((own.replayed, replay.replayed), (false, true));
        assert_eq!((&own.operation_id, &own.movement_ids), (&replay.operation_id, &replay.movement_ids));
    }
    assert_eq!(refusal(&again[1]).metadata["replayed"], "true");

    // A key is one customer's, whatever the call: alone it is replayed, for another sort it is reused.
    let alone = node.hold(held.clone()).await.expect("the first answer");
    assert!(alone.receipt.expect("a receipt").replayed);
    let key = held.idempotency_key;
    let reused = v1::DebitRequest { idempotency_key: key, ..debit_request(WHO, "main", "40") };
    let twice = debit_request(WHO, "main", "1");
    let results = batch(&mut node, vec![reused.into(), twice.clone().into(), twice.into()]).await;
    let expected = ["IDEMPOTENCY_KEY_REUSED", "debited 1, 69 left", "debited 1, 69 left"];
    assert_eq!(told_all(&results), expected);
    assert_eq!(node.balance(WHO, "main").await.available, "69");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_wallet_refuses_in_a_batch_what_it_refuses_alone() {
    let mut node = Running::start().await;
    node.wallet_with(WHO, "main", vec![tranche("100", Purchased)]).await;
    let placed = batch(&mut node, vec![hold("10"), hold("20"), debit("30")]).await;
    let spent = &receipt(&placed[2]).movement_ids[0];
    let (first, second) = (hold_id(&placed[0]), hold_id(&placed[1]));
    node.freeze(WHO, "main", true).await;

    let writes: [WriteRequest; 8] = [
        debit("1"),
        hold("1"),
        capture_request(WHO, &first, "11").into(),
        grant("5"),
        extend_request(WHO, &second, 600 * SECOND).into(),
        capture_request(WHO, &first, "10").into(),
        release_request(WHO, &second).into(),
        refund_request(WHO, spent, "30").into(),
    ];
    let results = batch(&mut node, writes.into()).await;

    let frozen = "WALLET_FROZEN";
    // No payer may pay, so nothing remains to it.
    let expected = [
        frozen,
        frozen,
        frozen,
        "granted 5",
        "extended, 0 left",
        "captured 10, released 0, 0 left",
        "released 20, 0 left",
        "refunded 30",
    ];
    assert_eq!(told_all(&results), expected);
    // 100 + 5 - 10 captured.
    assert_eq!(node.balance(WHO, "main").await.available, "95");
    assert_eq!(node.audit(WHO).await.findings, []);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_brief_answer_leaves_out_draws_balances_and_movement_ids_of_every_sort() {
    let mut node = Running::start().await;
    node.wallet_with(WHO, "main", vec![tranche("100", Purchased)]).await;
    let brief = v1::ReceiptDetail::Brief;
    let spent = node.debit(debit_request(WHO, "main", "10")).await.expect("applied");
    let spent = spent.receipt.expect("a receipt").movement_ids.remove(0);

    let placed = in_detail(&mut node, vec![hold("20"), hold("30"), debit("5"), grant("7")], brief).await;
    let (first, second) = (hold_id(&placed[0]), hold_id(&placed[1]));
    let writes: [WriteRequest; 4] = [
        extend_request(WHO, &second, 600 * SECOND).into(),
        capture_request(WHO, &first, "8").into(),
        release_request(WHO, &second).into(),
        refund_request(WHO, &spent, "").into(),
    ];
    let settled = in_detail(&mut node, writes.into(), brief).await;

    let expected = ["held, 70 left", "held, 40 left", "debited 5, 35 left", "granted 7"];
    assert_eq!(told_all(&placed), expected);
    let expected =
        ["extended, 42 left", "captured 8, released 12, 54 left", "released 30, 84 left", "refunded 10"];
    assert_eq!(told_all(&settled), expected);
    for own in placed.iter().chain(&settled).map(receipt) {
        assert!(own.operation_id.starts_with("op_") && own.witness.is_some(), "{own:?}");
        assert_eq!((own.movement_ids.len(), own.draws.len(), own.balances.len()), (0, 0, 0));
    }
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_is_one_to_eight_thousand_and_a_grant_counts_by_its_tranches() {
    let mut node = Running::start().await;
    node.wallet_with(WHO, "main", vec![tranche("10", Purchased)]).await;
    let tranches = |count| vec![tranche("1", Purchased); count];
    let granting = |grants| -> Vec<WriteRequest> {
        (0..grants).map(|_| grant_request(WHO, "main", tranches(100)).into()).collect()
    };
    let refused = async |node: &mut Running, writes| {
        let request = v1::WriteBatchRequest { writes, ..Default::default() };
        reason(&node.ledger.write_batch(request).await.expect_err("refused"))
    };

    assert_eq!(refused(&mut node, Vec::new()).await, "INVALID_ARGUMENT");
    assert_eq!(refused(&mut node, vec![debit("1"); WRITES_MAX + 1]).await, "LIMIT_EXCEEDED");
    assert_eq!(refused(&mut node, granting(WRITES_MAX / 100 + 1)).await, "LIMIT_EXCEEDED");
    let results = batch(&mut node, granting(5)).await;
    assert!(
        results.iter().all(|own| matches!(outcome(own), Outcome::Granted(own) if own.tranches.len() == 100))
    );
    assert_eq!(node.balance(WHO, "main").await.available, "510");
    node.stop().await;
}

/// Covers: WriteStream
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_of_several_sorts_answers_under_their_numbers_and_one_customers_in_order() {
    let mut node = Running::start().await;
    let customers: Vec<_> = (0..10).map(|number| format!("customer-{number}")).collect();
    for customer in &customers {
        node.wallet_with(customer, "main", vec![tranche("100", Purchased)]).await;
    }
    // Of each customer in turn: a grant of 2, a debit of 1, a hold of 1, and what is malformed.
    let request = |number: u64| {
        let who = &customers[number as usize % 10];
        let write: Option<WriteRequest> = match number / 10 % 4 {
            0 => Some(grant_request(who, "main", vec![tranche("2", Purchased)]).into()),
            1 => Some(debit_request(who, "main", "1").into()),
            2 => Some(hold_request(who, "main", "1").into()),
            _ => Some(
                v1::DebitRequest { idempotency_key: fresh_key(), ..debit_request(who, "main", "-1") }.into(),
            ),
        };
        let detail =
            if number.is_multiple_of(3) { v1::ReceiptDetail::Brief } else { v1::ReceiptDetail::Full };
        v1::WriteStreamRequest { sequence: number, write, detail: detail.into() }
    };
    let mut requests: Vec<_> = (0..1_200).map(request).collect();
    requests.push(v1::WriteStreamRequest { sequence: 7_000, ..Default::default() });
    requests.push(v1::WriteStreamRequest {
        sequence: 7_001,
        write: Some(WriteRequest::default()),
        detail: 0,
    });

    let responses = node.ledger.write_stream(stream::iter(requests)).await.expect("a stream").into_inner();
    let responses: Vec<_> = responses.map(|response| response.expect("a result")).collect().await;

    let result = |own: &v1::WriteStreamResponse| own.result.clone().expect("a result");
    assert_eq!(responses.len(), 1_202);
    for nothing in responses.iter().filter(|own| own.sequence >= 7_000) {
        assert!(refusal(&result(nothing)).message.starts_with("write: required"), "{nothing:?}");
    }
    for customer in 0..10 {
        let own: Vec<_> =
            responses.iter().filter(|own| own.sequence < 7_000 && own.sequence % 10 == customer).collect();
        let numbers: Vec<_> = own.iter().map(|response| response.sequence / 10).collect();
        assert_eq!(numbers, (0..120).collect::<Vec<_>>());
        for response in own {
            let expected = match response.sequence / 10 % 4 {
                0 => "granted 2",
                1 => "debited 1, 101 left",
                2 => "held, 100 left",
                _ => "INVALID_ARGUMENT",
            };
            let result = result(response);
            assert_eq!(told(&result), expected);
            if response.sequence / 10 % 4 != 3 {
                let brief = response.sequence.is_multiple_of(3);
                assert_eq!(receipt(&result).movement_ids.is_empty(), brief, "{result:?}");
            }
        }
    }
    node.stop().await;
}
