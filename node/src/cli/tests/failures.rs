//! Statuses become reports: the reason, the field, the key, the next step, and the exit code.

use std::collections::HashMap;
use std::time::Duration;

use purser_proto::v1::Reason;
use serde_json::json;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use super::super::failure::{FailedCall, Report};
use super::super::session::About;
use super::super::{Exit, Failure};

fn pairs(pairs: &[(&str, &str)]) -> HashMap<String, String> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn of_ledger(reason: &str, metadata: &[(&str, &str)]) -> ErrorDetails {
    ErrorDetails::with_error_info(reason, "purser", pairs(metadata))
}

fn report(about: About, code: Code, message: &str, details: ErrorDetails) -> Report {
    let status = Status::with_error_details(code, message, details);
    Failure::Call(Box::new(FailedCall { about, status })).report()
}

fn a_debit() -> About {
    About::write("debit 5 from acme", "k-1")
}

#[test]
fn a_refusal_shows_the_reason_the_facts_and_the_next_step() {
    let details = of_ledger("INSUFFICIENT_CREDITS", &[("required", "5"), ("available", "3")]);
    let report = report(a_debit(), Code::FailedPrecondition, "not enough credits", details);
    let expected = "\
refused: debit 5 from acme: not enough credits
  reason     INSUFFICIENT_CREDITS (HTTP 402, FAILED_PRECONDITION)
  available  3
  required   5
  key        k-1
next: grant credits (purser grant) or ask for less, then use a new --key: this one keeps its verdict";
    assert_eq!(report.to_text(), expected);
    assert_eq!(report.exit, Exit::Refused);
}

#[test]
fn a_refusal_as_json_is_one_object() {
    let details = of_ledger("INSUFFICIENT_CREDITS", &[("required", "5"), ("available", "3")]);
    let report = report(a_debit(), Code::FailedPrecondition, "not enough credits", details);
    let expected = json!({ "error": {
        "outcome": "refused",
        "what": "debit 5 from acme",
        "message": "not enough credits",
        "reason": "INSUFFICIENT_CREDITS",
        "code": "FAILED_PRECONDITION",
        "http": 402,
        "fields": [],
        "metadata": { "available": "3", "required": "5" },
        "retry_after_ms": null,
        "idempotency_key": "k-1",
        "next": "grant credits (purser grant) or ask for less, then use a new --key: this one \
                 keeps its verdict",
        "exit_code": 1,
    }});
    assert_eq!(report.to_json(), expected);
}

#[test]
fn a_malformed_request_names_the_field() {
    let mut details = of_ledger("INVALID_ARGUMENT", &[]);
    details.add_bad_request_violation("amount", "must be above zero");
    let report = report(a_debit(), Code::InvalidArgument, "malformed", details);
    let expected = "\
invalid: debit 5 from acme: malformed
  reason  INVALID_ARGUMENT (HTTP 400, INVALID_ARGUMENT)
  field   amount: must be above zero
  key     k-1
next: correct the field and run the command again";
    assert_eq!(report.to_text(), expected);
    assert_eq!(report.exit, Exit::Usage);
}

#[test]
fn an_unknown_outcome_of_a_write_gives_the_key_to_retry_with() {
    let mut details = of_ledger("UNAVAILABLE", &[]);
    details.set_retry_info(Some(Duration::from_millis(250)));
    let report = report(a_debit(), Code::Unavailable, "no quorum", details);
    let expected = "\
outcome unknown: debit 5 from acme: no quorum
  reason       UNAVAILABLE (HTTP 503, UNAVAILABLE)
  retry after  250 ms
  key          k-1
next: run the same command with --key k-1: if the first attempt was applied you get its answer, \
and nothing happens twice";
    assert_eq!(report.to_text(), expected);
    assert_eq!(report.exit, Exit::Unknown);
}

#[test]
fn a_time_out_of_a_write_is_an_unknown_outcome_though_no_ledger_spoke() {
    let status = Status::deadline_exceeded("no answer within 10s");
    let report = Failure::Call(Box::new(FailedCall { about: a_debit(), status })).report();
    assert_eq!(report.exit, Exit::Unknown);
    assert!(report.to_text().contains("--key k-1"));
}

#[test]
fn a_read_that_fails_has_no_key_and_no_unknown_outcome() {
    let status = Status::unavailable("connection lost");
    let about = About::read("show the balance of acme");
    let report = Failure::Call(Box::new(FailedCall { about, status })).report();
    let expected = "\
unavailable: show the balance of acme: connection lost
  reason  UNAVAILABLE
next: try again; nothing was to be changed";
    assert_eq!(report.to_text(), expected);
    assert_eq!(report.exit, Exit::Unknown);
}

#[test]
fn no_connection_says_that_nothing_was_sent() {
    let failure = Failure::Unreachable {
        server: "http://127.0.0.1:1".to_owned(),
        cause: "Connection refused".to_owned(),
    };
    let report = failure.report();
    assert!(report.to_text().starts_with("unavailable: no connection to http://127.0.0.1:1: "));
    assert!(report.to_text().ends_with("nothing was sent"));
    assert_eq!(report.exit, Exit::Unknown);
}

#[test]
fn a_key_can_be_pasted_into_a_shell() {
    let about = About::write("debit 5 from acme", "it's mine; rm");
    let report = report(about, Code::Unavailable, "gone", of_ledger("UNAVAILABLE", &[]));
    assert!(report.to_text().contains(r"--key 'it'\''s mine; rm':"));
}

#[test]
fn every_reason_has_an_exit_code_that_follows_from_its_http_status() {
    let exits = [
        (Reason::InvalidArgument, Exit::Usage),
        (Reason::LimitExceeded, Exit::Usage),
        (Reason::NoEligibleTranche, Exit::Refused),
        (Reason::WalletFrozen, Exit::Refused),
        (Reason::CustomerNotFound, Exit::Refused),
        (Reason::HoldNotFound, Exit::Refused),
        (Reason::HoldExpired, Exit::Refused),
        (Reason::HoldClosed, Exit::Refused),
        (Reason::TrancheNotActive, Exit::Refused),
        (Reason::TrancheNotFound, Exit::Refused),
        (Reason::WalletClosed, Exit::Refused),
        (Reason::WalletNotEmpty, Exit::Refused),
        (Reason::VersionConflict, Exit::Refused),
        (Reason::RefundExceedsDebit, Exit::Refused),
        (Reason::AlreadyExists, Exit::Refused),
        (Reason::IdempotencyKeyReused, Exit::Refused),
        (Reason::KeyTooOld, Exit::Refused),
        (Reason::Internal, Exit::Unknown),
        (Reason::NotLeader, Exit::Unknown),
    ];
    for (reason, exit) in exits {
        let details = of_ledger(reason.as_str_name(), &[]);
        let report = report(a_debit(), Code::Unknown, "", details);
        assert_eq!(report.exit, exit, "{}", reason.as_str_name());
    }
}

#[test]
fn a_refusal_of_a_correction_or_a_change_says_where_to_look() {
    let next = |reason: Reason| {
        let details = of_ledger(reason.as_str_name(), &[]);
        let text = report(a_debit(), Code::FailedPrecondition, "", details).to_text();
        text.lines().last().expect("a next step").to_owned()
    };
    for (reason, command) in [
        (Reason::TrancheNotFound, "(purser tranches)"),
        (Reason::TrancheNotActive, "(purser tranches)"),
        (Reason::WalletClosed, "(purser wallet list)"),
        (Reason::WalletNotEmpty, "(purser balance --by-tranche --by-hold)"),
        (Reason::VersionConflict, "(purser wallet get)"),
        (Reason::RefundExceedsDebit, "(purser movements)"),
    ] {
        assert!(next(reason).contains(command), "{}", next(reason));
    }
}

#[test]
fn a_reason_of_a_newer_server_is_shown_and_judged_by_its_code() {
    let details = of_ledger("CAP_EXCEEDED", &[]);
    let report = report(a_debit(), Code::ResourceExhausted, "over the cap", details);
    assert!(report.to_text().contains("reason  CAP_EXCEEDED (RESOURCE_EXHAUSTED)"));
    assert_eq!(report.exit, Exit::Refused);
}

#[test]
fn a_reason_of_another_system_is_not_taken_for_the_ledgers() {
    let details = ErrorDetails::with_error_info("INSUFFICIENT_CREDITS", "proxy", HashMap::new());
    let report = report(a_debit(), Code::Unavailable, "a proxy", details);
    assert_eq!(report.exit, Exit::Unknown);
    assert!(report.to_text().contains("reason  UNAVAILABLE\n"));
}

#[test]
fn a_message_cannot_drive_the_terminal() {
    let report = report(a_debit(), Code::NotFound, "\u{1b}[2Jgone", ErrorDetails::new());
    assert!(report.to_text().contains("\\u{1b}[2Jgone"));
}
