//! `purser batch`: lines to writes, results to rows and lines.

use std::io::Write as _;

use purser_proto::v1::write_request::Write;
use purser_proto::v1::write_result::Outcome;
use purser_proto::v1::{
    DebitResponse, GrantResponse, Receipt, ReceiptDetail, RefundResponse, Refusal, Tranche,
    WriteBatchRequest, WriteResult,
};
use serde_json::{Value, json};
use tempfile::NamedTempFile;
use tonic::Status;

use super::super::{Answer, Exit, Failure};
use super::holds;
use super::parrot::{parrot, run};

/// The results of a batch: a debit tells its key, namespace and how many were sent with it; one of 6 is
/// refused, one of 7 has no known outcome, one of 8 was applied before; the others have one answer each.
pub fn results(request: WriteBatchRequest) -> Result<Vec<WriteResult>, Status> {
    let count = request.writes.len();
    let brief = request.detail() == ReceiptDetail::Brief;
    let refused = |reason: &str| {
        let message = format!("{reason} for a reason");
        Outcome::Refused(Refusal { reason: reason.to_owned(), message, ..Refusal::default() })
    };
    let result = |write| {
        let outcome = match write {
            Write::Debit(own) if own.customer == "lost" => return Err(Status::unavailable("gone")),
            Write::Debit(own) if own.amount == "6" => refused("INSUFFICIENT_CREDITS"),
            Write::Debit(own) if own.amount == "7" => refused("UNAVAILABLE"),
            Write::Debit(own) => {
                let operation_id = format!("{} in {} of {count}", own.idempotency_key, own.namespace);
                let movement_ids = if brief { Vec::new() } else { vec!["mov_1".to_owned()] };
                let replayed = own.amount == "8";
                let receipt = Some(Receipt { operation_id, movement_ids, replayed, ..Receipt::default() });
                let remaining = "80".to_owned();
                Outcome::Debited(DebitResponse { receipt, amount: own.amount, remaining, asset: None })
            }
            Write::Hold(_) => Outcome::Held(holds::held()),
            Write::ExtendHold(_) => Outcome::Extended(holds::extended()),
            Write::Capture(_) => Outcome::Captured(holds::captured()),
            Write::Release(_) => Outcome::Released(holds::released()),
            Write::Grant(own) => {
                let tranche = |(number, own): (usize, &purser_proto::v1::TrancheSpec)| Tranche {
                    tranche_id: format!("trn_{number}"),
                    amount: own.amount.clone(),
                    ..Tranche::default()
                };
                let tranches = (1..).zip(&own.tranches).map(tranche).collect();
                Outcome::Granted(GrantResponse { receipt: Some(Receipt::default()), tranches })
            }
            Write::Refund(own) => {
                let receipt = Some(Receipt::default());
                Outcome::Refunded(RefundResponse { receipt, amount: own.amount, ..Default::default() })
            }
        };
        Ok(WriteResult { outcome: Some(outcome) })
    };
    request.writes.into_iter().map(|own| result(own.write.expect("a write"))).collect()
}

fn debit(customer: &str, amount: &str) -> String {
    json!({"debit": {"customer": customer, "wallet": "main", "amount": amount}}).to_string()
}

/// Sends these lines.
async fn batch(lines: &[String], flags: &str) -> Result<Answer, Failure> {
    let mut file = NamedTempFile::new().expect("a file");
    file.write_all(lines.join("\n").as_bytes()).expect("written");
    run(parrot(), &format!("purser batch {} {flags}", file.path().display())).await
}

fn rows(answer: &Answer) -> Vec<Vec<&str>> {
    let table = answer.text.split("\n\n").next().expect("a table");
    table.lines().skip(1).map(|line| line.split_whitespace().collect()).collect()
}

fn json_lines(answer: &Answer) -> Vec<Value> {
    let Value::String(text) = &answer.json else { panic!("not lines: {:?}", answer.json) };
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

#[tokio::test]
async fn every_sort_has_its_row() {
    let hold = json!({"customer": "acme", "hold_id": "hld_1", "amount": "12"});
    let lines = [
        debit("acme", "5"),
        json!({"hold": {"customer": "acme", "wallet": "main", "amount": "15", "ttl": "120s"}}).to_string(),
        json!({"extendHold": {"customer": "acme", "holdId": "hld_1", "ttl": "600s"}}).to_string(),
        json!({"capture": hold}).to_string(),
        json!({"release": {"customer": "acme", "hold_id": "hld_1"}}).to_string(),
        json!({"grant": {"customer": "globex", "wallet": "main", "tranches": [
            {"amount": "100", "kind": "TRANCHE_KIND_PURCHASED"}, {"amount": "20"}]}})
        .to_string(),
        json!({"refund": {"customer": "acme", "movement_id": "mov_1", "amount": "2"}}).to_string(),
    ];
    let answer = batch(&lines, "--key k").await.expect("an answer");
    assert_eq!(answer.exit, Exit::Done);
    let rows = rows(&answer);
    assert_eq!(rows[0], ["1", "debit", "acme", "applied", "5", "80"]);
    assert_eq!(rows[1], ["2", "hold", "acme", "applied", "15", "80", "hld_1"]);
    assert_eq!(rows[2][..7], ["3", "extend_hold", "acme", "applied", "-", "80", "hld_1"]);
    assert_eq!(rows[3][..5], ["4", "capture", "acme", "applied", "12"]);
    assert_eq!(rows[4][..4], ["5", "release", "acme", "applied"]);
    assert_eq!(rows[5], ["6", "grant", "globex", "applied", "-", "-", "trn_1", "100,", "trn_2", "20"]);
    assert_eq!(rows[6], ["7", "refund", "acme", "applied", "2", "-"]);
    assert!(answer.text.ends_with("7 lines: 7 applied, 0 refused\nkey k"), "{}", answer.text);
}

#[tokio::test]
async fn keys_are_made_of_the_key_and_the_number_of_the_line_where_there_is_none() {
    let own = json!({"debit": {"customer": "acme", "amount": "1", "idempotency_key": "mine"}}).to_string();
    let elsewhere = json!({"debit": {"customer": "acme", "amount": "1", "namespace": "us"}}).to_string();
    let lines = [debit("acme", "1"), String::new(), own, "  ".to_owned(), elsewhere];
    let answer = batch(&lines, "--key k --namespace eu -o json").await.expect("an answer");
    let told = json_lines(&answer);
    let keys: Vec<_> = told.iter().map(|own| (&own["line"], &own["idempotency_key"])).collect();
    assert_eq!(keys, [(&json!(1), &json!("k-1")), (&json!(3), &json!("mine")), (&json!(5), &json!("k-5"))]);
    let operation = |own: &Value| own["debited"]["receipt"]["operation_id"].clone();
    let operations: Vec<_> = told.iter().map(operation).collect();
    assert_eq!(operations, ["k-1 in eu of 3", "mine in eu of 3", "k-5 in us of 3"]);
}

#[tokio::test]
async fn a_refused_line_ends_with_1_and_is_told_in_its_place() {
    let lines = [debit("acme", "5"), debit("acme", "6"), debit("acme", "8")];
    let answer = batch(&lines, "").await.expect("an answer");
    assert_eq!(answer.exit, Exit::Refused);
    assert_eq!(rows(&answer)[1][..4], ["2", "debit", "acme", "INSUFFICIENT_CREDITS"]);
    assert_eq!(rows(&answer)[2][3], "replayed");
    assert!(answer.text.contains("3 lines: 2 applied (1 before), 1 refused\nkey 0"), "{}", answer.text);

    let answer = batch(&lines, "-o json").await.expect("an answer");
    let told = json_lines(&answer);
    assert_eq!(told[1]["refused"]["reason"], "INSUFFICIENT_CREDITS");
    let debited = &told[0]["debited"];
    assert_eq!((&debited["amount"], &debited["receipt"]["movement_ids"]), (&json!("5"), &json!(["mov_1"])));
    assert_eq!(told[0].get("refused"), None, "only the outcome that it has");
}

#[tokio::test]
async fn an_unknown_outcome_ends_with_3_and_says_how_to_find_out() {
    let lines = [debit("acme", "5"), debit("acme", "7"), debit("acme", "6")];
    let answer = batch(&lines, "--key k").await.expect("an answer");
    assert_eq!(answer.exit, Exit::Unknown);
    let end = "3 lines: 1 applied, 1 refused, 1 unknown: run the same command with --key k\nkey k";
    assert!(answer.text.ends_with(end), "{}", answer.text);
}

#[tokio::test]
async fn a_long_file_goes_in_several_calls_and_what_was_answered_is_told_if_one_is_lost() {
    let mut lines = vec![debit("acme", "1"); 2_500];
    let answer = batch(&lines, "--key k -o json").await.expect("an answer");
    let told = json_lines(&answer);
    assert_eq!(told.len(), 2_500);
    let operation = |place: usize| told[place]["debited"]["receipt"]["operation_id"].clone();
    assert_eq!(operation(999), "k-1000 in default of 1000");
    assert_eq!(operation(2_000), "k-2001 in default of 500");

    lines[1_500] = debit("lost", "1");
    let failure = batch(&lines, "--key k").await.expect_err("a loss");
    let Failure::Partial(partial) = &failure else { panic!("not in part: {failure:?}") };
    assert!(partial.answer.text.contains("\n\n1000 lines: 1000 applied, 0 refused\n"));
    let report = failure.report();
    assert_eq!(report.exit, Exit::Unknown);
    let text = report.to_text();
    assert!(
        text.starts_with("outcome unknown: send lines 1001 to 2000: ") && text.contains("--key k:"),
        "{text}"
    );
}

#[tokio::test]
async fn a_line_that_is_no_write_sends_nothing() {
    let cases = [
        ("{}", "names no write"),
        (r#"{"debit": {"custommer": "acme"}}"#, "custommer"),
        (r#"{"debit": {}} {}"#, "trailing"),
        (r#"{"adjust": {}}"#, "adjust"),
        ("debit", "not a WriteRequest"),
    ];
    for (line, wrong) in cases {
        let report = batch(&[debit("acme", "1"), line.to_owned()], "").await.expect_err(line).report();
        assert_eq!(report.exit, Exit::Usage);
        let text = report.to_text();
        assert!(
            text.contains("line 2: ") && text.contains(wrong) && text.contains("nothing was sent"),
            "{text}"
        );
    }
    let report = batch(&[], "").await.expect_err("nothing to send").report();
    assert!(report.to_text().contains("no write in it"));
    let report = run(parrot(), "purser batch /nowhere/to/be/found").await.expect_err("no file").report();
    assert_eq!(report.exit, Exit::Usage);
}
