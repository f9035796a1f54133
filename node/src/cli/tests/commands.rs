//! Whole commands over a real connection.

use std::net::SocketAddr;

use clap::CommandFactory;
use serde_json::json;

use super::super::Exit;
use super::CommandLine;
use super::parrot::{parrot, run};

#[tokio::test]
async fn a_debit_goes_out_under_its_key_and_namespace() {
    let command = "purser debit --customer acme --wallet main --amount 5 --key k-1 --namespace eu";
    let answer = run(parrot(), command).await.expect("an answer");
    assert_eq!(answer.exit, Exit::Done);
    assert_eq!(answer.json["receipt"]["operation_id"], "op_of_k-1_in_eu");
    assert_eq!(answer.json["idempotency_key"], "k-1");
    assert_eq!(answer.json["amount"], "5");
}

#[tokio::test]
async fn a_verdict_against_a_debit_ends_with_1() {
    let command = "purser debit --customer acme --wallet main --amount 6 --key k-1";
    let report = run(parrot(), command).await.expect_err("a refusal").report();
    assert_eq!(report.exit, Exit::Refused);
    assert!(report.to_text().contains("INSUFFICIENT_CREDITS (HTTP 402, FAILED_PRECONDITION)"));
}

#[tokio::test]
async fn a_lost_grant_ends_with_3_and_tells_the_key_that_was_made_up() {
    let command = "purser grant --customer acme --wallet main --amount 6";
    let report = run(parrot(), command).await.expect_err("a loss").report();
    assert_eq!(report.exit, Exit::Unknown);
    let json = report.to_json();
    let key = json["error"]["idempotency_key"].as_str().expect("a key");
    assert!(report.to_text().contains(&format!("--key {key}:")));
}

#[tokio::test]
async fn a_write_without_an_answer_in_time_ends_with_3_and_tells_the_key() {
    let command = "purser wallet freeze --customer acme --wallet main --key k-1 --timeout 50ms";
    let report = run(parrot(), command).await.expect_err("no answer").report();
    assert_eq!(report.exit, Exit::Unknown);
    assert!(report.to_text().starts_with("outcome unknown: freeze wallet main of acme: "));
    assert!(report.to_text().contains("--key k-1:"));
}

#[tokio::test]
async fn a_dry_run_goes_out_without_a_key() {
    let command = "purser debit --customer acme --asset credits/0 --amount 5 --explain";
    let answer = run(parrot(), command).await.expect("an answer");
    assert_eq!(answer.json["remaining"], "default under \"\"");
}

#[tokio::test]
async fn the_namespace_reaches_a_request_within_a_request() {
    let command = r#"purser call Explain '{"debit":{"customer":"acme"}}' --namespace eu"#;
    let answer = run(parrot(), command).await.expect("an answer");
    assert_eq!(answer.json["remaining"], "eu under \"\"");
}

#[tokio::test]
async fn a_server_that_lacks_a_method_ends_with_2() {
    let command = "purser audit --customer acme";
    let report = run(parrot(), command).await.expect_err("no such method").report();
    assert_eq!(report.exit, Exit::Usage);
}

#[tokio::test]
async fn a_server_that_is_not_there_ends_with_3() {
    // Bound and dropped: nobody listens there now.
    let any_port = SocketAddr::from(([127, 0, 0, 1], 0));
    let address = std::net::TcpListener::bind(any_port).and_then(|socket| socket.local_addr());
    let address = address.expect("a free port");
    let report = run(address, "purser clock get").await.expect_err("nobody").report();
    assert_eq!(report.exit, Exit::Unknown);
    assert!(report.to_text().contains("nothing was sent"));
}

#[tokio::test]
async fn methods_are_listed_by_reflection() {
    let answer = run(parrot(), "purser call list").await.expect("a list");
    let row = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let rows: Vec<_> = answer.text.lines().map(row).collect();
    let debit = ["purser.v1.Ledger/Debit", "DebitRequest", "DebitResponse"];
    assert_eq!(rows[0], ["METHOD", "TAKES", "GIVES"]);
    assert!(rows.iter().any(|row| *row == debit), "{}", answer.text);
}

#[tokio::test]
async fn a_method_is_called_with_json_and_a_key_of_its_own() {
    let command = r#"purser call Debit '{"customer":"acme","wallet":"main","amount":"5"}'"#;
    let answer = run(parrot(), command).await.expect("an answer");
    assert_eq!(answer.json["amount"], "5");
    let operation = answer.json["receipt"]["operation_id"].as_str().expect("an operation");
    assert!(operation.starts_with("op_of_0"), "a UUID of version 7: {operation}");
    assert!(operation.ends_with("_in_default"), "{operation}");
}

#[tokio::test]
async fn a_name_may_be_short_or_full() {
    let server = parrot();
    for name in [
        "GetBalance",
        "Ledger/GetBalance",
        "purser.v1.Ledger/GetBalance",
        "/purser.v1.Ledger/GetBalance",
        "purser.v1.Ledger.GetBalance",
    ] {
        let command = format!(r#"purser call {name} '{{"customer":"acme"}}'"#);
        let answer = run(server, &command).await.expect("an answer");
        assert_eq!(answer.json["wallets"][0]["balance"]["available"], json!("95"), "{name}");
    }
    let report = run(server, "purser call Balance").await.expect_err("no method").report();
    assert_eq!(report.exit, Exit::Usage);
}

#[tokio::test]
async fn a_field_that_the_request_does_not_have_is_a_usage_error() {
    let command = r#"purser call Debit '{"custommer":"acme"}'"#;
    let report = run(parrot(), command).await.expect_err("no such field").report();
    assert_eq!(report.exit, Exit::Usage);
    assert!(report.to_text().contains("custommer"), "{}", report.to_text());
}

#[tokio::test]
async fn a_verdict_by_reflection_reads_like_any_other() {
    let command = r#"purser call Debit '{"amount":"6","idempotency_key":"k-9"}'"#;
    let report = run(parrot(), command).await.expect_err("a refusal").report();
    assert_eq!(report.exit, Exit::Refused);
    assert_eq!(report.to_json()["error"]["idempotency_key"], "k-9");
}

#[tokio::test]
async fn a_description_shows_the_contract_with_its_comments() {
    let server = parrot();
    let answer = run(server, "purser call describe Debit").await.expect("a description");
    for part in [
        "// Burns credits.\nrpc Debit(DebitRequest) returns (DebitResponse);",
        "message purser.v1.DebitRequest {",
        "  // How much. Required, above zero.\n  string amount = 7;",
        "  string wallet = 5; // one of payer",
        "  map<string, string> metadata = 13;",
    ] {
        assert!(answer.text.contains(part), "{part} is not in {}", answer.text);
    }
    let answer = run(server, "purser call describe TrancheSpec").await.expect("a description");
    assert!(answer.text.contains("  optional uint32 priority = 3;"), "{}", answer.text);
    assert!(answer.text.contains("  repeated string features = 8;"), "{}", answer.text);
    let answer = run(server, "purser call describe TrancheKind").await.expect("a description");
    assert!(answer.text.contains("  TRANCHE_KIND_PLAN = 1;"), "{}", answer.text);
}

#[test]
fn completions_name_the_commands() {
    let answer = super::super::completions(clap_complete::Shell::Bash, CommandLine::command());
    assert!(answer.text.contains("_purser()"));
    assert!(answer.text.contains("movements"));
}
