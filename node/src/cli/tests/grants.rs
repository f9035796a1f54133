//! `purser grant --pending`, `confirm`, `fail` and `void`: flags to requests, answers to text and JSON.

use clap::CommandFactory;
use clap::error::ErrorKind;
use purser_proto::v1::confirm_grant_request::Expiry;
use purser_proto::v1::{
    CalendarDuration, ChargeScope, ConfirmGrantRequest, ConfirmGrantResponse, Draw, FailGrantRequest,
    FailGrantResponse, ListTranchesResponse, Receipt, Tranche, TrancheKind, TrancheStatus, VoidGrantRequest,
    VoidGrantResponse,
};

use super::super::{ClientCommand, OutputFormat, tranches};
use super::answers::{MORNING, at};
use super::flags::{grant, refused};
use super::holds::receipt;
use super::parrot::{Asked, write};
use super::{CommandLine, read};

/// The one tranche that the made-up ledger knows: 500 credits, paid for.
fn tranche(status: TrancheStatus) -> Tranche {
    Tranche {
        tranche_id: "trn_1".to_owned(),
        wallet: "main".to_owned(),
        kind: TrancheKind::Purchased.into(),
        priority: 100,
        status: status.into(),
        amount: "500".to_owned(),
        pending: "0".to_owned(),
        available: "0".to_owned(),
        held: "0".to_owned(),
        consumed: "0".to_owned(),
        expired: "0".to_owned(),
        voided: "0".to_owned(),
        effective_at: at(MORNING),
        charge_scope: ChargeScope::Any.into(),
        ..Tranche::default()
    }
}

fn drawn(amount: &str) -> Vec<Draw> {
    vec![Draw {
        tranche_id: "trn_1".to_owned(),
        wallet: "main".to_owned(),
        kind: TrancheKind::Purchased.into(),
        amount: amount.to_owned(),
        left: "0".to_owned(),
    }]
}

pub fn confirmed() -> ConfirmGrantResponse {
    let tranche = Tranche {
        available: "500".to_owned(),
        expires_at: at(MORNING + 86_400),
        ..tranche(TrancheStatus::Active)
    };
    ConfirmGrantResponse { receipt: Some(receipt("595", "0")), tranche: Some(tranche) }
}

pub fn failed() -> FailGrantResponse {
    let receipt = Receipt { draws: drawn("500"), ..receipt("95", "0") };
    FailGrantResponse { receipt: Some(receipt), amount: "500".to_owned() }
}

pub fn voided() -> VoidGrantResponse {
    let receipt = Receipt { draws: drawn("40"), ..receipt("95", "15") };
    VoidGrantResponse { receipt: Some(receipt), amount: "40".to_owned() }
}

const CONFIRM: &str = "purser grant confirm --customer acme --wallet main --tranche trn_1";

#[test]
fn a_pending_grant_says_so() {
    let request = grant("purser grant --customer acme --wallet main --amount 500 --pending --expires-in P1M");
    assert!(request.tranches[0].pending);
}

#[tokio::test]
async fn a_plain_confirmation_leaves_the_end_as_it_was_granted() {
    let expected = ConfirmGrantRequest {
        namespace: "default".to_owned(),
        customer: "acme".to_owned(),
        idempotency_key: "k-1".to_owned(),
        wallet: "main".to_owned(),
        tranche_id: "trn_1".to_owned(),
        ..ConfirmGrantRequest::default()
    };
    assert_eq!(write(CONFIRM).await.0, Asked::ConfirmGrant(expected));
}

#[tokio::test]
async fn every_flag_of_a_confirmation_reaches_the_request() {
    let line = format!(
        "{CONFIRM} --expires-in '1 month' --time-zone Europe/Berlin --reference invoice-881 --reason paid \
         --meta team=a=b --namespace eu"
    );
    let lifetime = CalendarDuration { duration: "P1M".to_owned(), time_zone: "Europe/Berlin".to_owned() };
    let expected = ConfirmGrantRequest {
        namespace: "eu".to_owned(),
        customer: "acme".to_owned(),
        idempotency_key: "k-1".to_owned(),
        valid_until: None,
        wallet: "main".to_owned(),
        tranche_id: "trn_1".to_owned(),
        expiry: Some(Expiry::ExpiresIn(lifetime)),
        reference: "invoice-881".to_owned(),
        reason_code: "paid".to_owned(),
        metadata: [("team".to_owned(), "a=b".to_owned())].into(),
    };
    assert_eq!(write(&line).await.0, Asked::ConfirmGrant(expected.clone()));

    let line = format!("{CONFIRM} --expires-at 2026-11-22T08:00:00+01:00");
    let Asked::ConfirmGrant(asked) = write(&line).await.0 else { panic!("not a confirmation") };
    assert_eq!(asked.expiry, at(MORNING + 86_400).map(Expiry::ExpiresAt));
}

#[tokio::test]
async fn a_failure_and_a_void_name_their_tranche() {
    let line = "purser grant fail --customer acme --wallet main --tranche trn_1 --reference invoice-881 \
                --reason declined --meta team=a";
    let expected = FailGrantRequest {
        namespace: "default".to_owned(),
        customer: "acme".to_owned(),
        idempotency_key: "k-1".to_owned(),
        valid_until: None,
        wallet: "main".to_owned(),
        tranche_id: "trn_1".to_owned(),
        reference: "invoice-881".to_owned(),
        reason_code: "declined".to_owned(),
        metadata: [("team".to_owned(), "a".to_owned())].into(),
    };
    assert_eq!(write(line).await.0, Asked::FailGrant(expected));

    let line = "purser grant void --customer acme --wallet main --tranche trn_1 --reference case-7 \
                --reason chargeback --meta team=a";
    let expected = VoidGrantRequest {
        namespace: "default".to_owned(),
        customer: "acme".to_owned(),
        idempotency_key: "k-1".to_owned(),
        valid_until: None,
        wallet: "main".to_owned(),
        tranche_id: "trn_1".to_owned(),
        reference: "case-7".to_owned(),
        reason_code: "chargeback".to_owned(),
        metadata: [("team".to_owned(), "a".to_owned())].into(),
    };
    assert_eq!(write(line).await.0, Asked::VoidGrant(expected));
}

#[test]
fn a_grant_is_a_new_one_or_one_that_was_made() {
    // A new one still has to say into which wallet, and how much.
    let missing = ErrorKind::MissingRequiredArgument;
    for line in [
        "purser grant",
        "purser grant --pending",
        "purser grant --customer acme --wallet main",
        "purser grant --customer acme --amount 5",
        "purser grant --wallet main --amount 5",
        "purser grant confirm --customer acme --wallet main",
        "purser grant fail --customer acme --tranche trn_1",
        "purser grant void --wallet main --tranche trn_1",
    ] {
        assert_eq!(refused(line), missing, "{line}");
    }
    for line in [
        "purser grant --amount 5 confirm --customer acme --wallet main --tranche trn_1",
        "purser grant --pending void --customer acme --wallet main --tranche trn_1",
    ] {
        assert_eq!(refused(line), ErrorKind::ArgumentConflict, "{line}");
    }
}

#[test]
fn flags_that_a_command_about_a_grant_does_not_know_are_refused() {
    let end = "--customer acme --wallet main --tranche trn_1";
    for line in [
        format!("{CONFIRM} --amount 5"),
        format!("{CONFIRM} --pending"),
        format!("purser grant fail {end} --expires-in P1M"),
        format!("purser grant void {end} --amount 5"),
    ] {
        assert_eq!(refused(&line), ErrorKind::UnknownArgument, "{line}");
    }
    let two_ends = format!("{CONFIRM} --expires-at 2027-01-01 --expires-in 30d");
    assert_eq!(refused(&two_ends), ErrorKind::ArgumentConflict);
    let bare_zone = format!("{CONFIRM} --time-zone Europe/Berlin");
    assert_eq!(refused(&bare_zone), ErrorKind::MissingRequiredArgument);
    assert_eq!(refused(&format!("{CONFIRM} --expires-in 0d")), ErrorKind::ValueValidation);
}

#[test]
fn global_flags_stand_before_the_grant_or_after_what_becomes_of_it() {
    for line in [format!("purser -o json {}", &CONFIRM["purser ".len()..]), format!("{CONFIRM} -o json")] {
        let line = read(&line).expect("a confirmation");
        assert_eq!(line.globals.output, OutputFormat::Json);
        let ClientCommand::Grant(args) = line.command else { panic!("not a grant") };
        assert!(args.grant.is_none());
    }
}

#[test]
fn the_help_of_a_grant_lists_what_may_become_of_it() {
    let mut line = CommandLine::command();
    line.build();
    let grant = line.find_subcommand_mut("grant").expect("a grant");
    let help = grant.render_long_help().to_string();
    for part in ["confirm", "fail", "void", "--pending", "--amount <AMOUNT>"] {
        assert!(help.contains(part), "{part} is not in {help}");
    }
}

#[tokio::test]
async fn a_confirmation_shows_the_tranche_as_a_grant_does() {
    let answer = write(CONFIRM).await.1;
    let expected = "\
TRANCHE  KIND       STATUS  PRIORITY  AMOUNT  PENDING  AVAILABLE  HELD  CONSUMED  EXPIRED  VOIDED  PAYS  \
EFFECTIVE AT          EXPIRES AT            LABEL
trn_1    PURCHASED  ACTIVE       100     500        0        500     0         0        0       0  ANY   \
2026-11-21T07:00:00Z  2026-11-22T07:00:00Z  -

WALLET  ASSET      AVAILABLE  HELD  PENDING  DEBT  SETTLED
main    credits/0        595     0     1000     0       95

op_9 at 2026-11-21T07:00:00Z, key k-1";
    assert_eq!(answer.text, expected);
    assert_eq!(answer.json["idempotency_key"], "k-1");
    assert_eq!(answer.json["tranche"]["status"], "ACTIVE");
}

#[tokio::test]
async fn a_failure_shows_how_much_was_withdrawn() {
    let answer = write("purser grant fail --customer acme --wallet main --tranche trn_1").await.1;
    let expected = "\
failed trn_1: 500 credits withdrawn

TRANCHE  WALLET  KIND       AMOUNT  LEFT
trn_1    main    PURCHASED     500     0

WALLET  ASSET      AVAILABLE  HELD  PENDING  DEBT  SETTLED
main    credits/0         95     0     1000     0       95

op_9 at 2026-11-21T07:00:00Z, key k-1";
    assert_eq!(answer.text, expected);
    assert_eq!(answer.json["amount"], "500");
}

#[tokio::test]
async fn a_void_shows_how_much_was_withdrawn_now() {
    let answer = write("purser grant void --customer acme --wallet main --tranche trn_1").await.1;
    let expected = "\
voided trn_1: 40 credits withdrawn

TRANCHE  WALLET  KIND       AMOUNT  LEFT
trn_1    main    PURCHASED      40     0

WALLET  ASSET      AVAILABLE  HELD  PENDING  DEBT  SETTLED
main    credits/0         95    15     1000     0       95

op_9 at 2026-11-21T07:00:00Z, key k-1";
    assert_eq!(answer.text, expected);
    assert_eq!(answer.json["amount"], "40");
    assert_eq!(answer.json["receipt"]["draws"][0]["amount"], "40");
}

#[test]
fn tranches_show_what_waits_for_its_invoice_and_what_was_withdrawn() {
    let lifetime = CalendarDuration { duration: "P1M".to_owned(), time_zone: String::new() };
    let waits =
        Tranche { pending: "500".to_owned(), lifetime: Some(lifetime), ..tranche(TrancheStatus::Pending) };
    let gone =
        Tranche { consumed: "460".to_owned(), voided: "40".to_owned(), ..tranche(TrancheStatus::Voided) };
    let unpaid = Tranche { voided: "500".to_owned(), ..tranche(TrancheStatus::Failed) };
    let response =
        ListTranchesResponse { tranches: vec![waits, gone, unpaid], ..ListTranchesResponse::default() };
    let expected = "\
TRANCHE  KIND       STATUS   PRIORITY  AMOUNT  PENDING  AVAILABLE  HELD  CONSUMED  EXPIRED  VOIDED  PAYS  \
EFFECTIVE AT          EXPIRES AT              LABEL
trn_1    PURCHASED  PENDING       100     500      500          0     0         0        0       0  ANY   \
2026-11-21T07:00:00Z  P1M after confirmation  -
trn_1    PURCHASED  VOIDED        100     500        0          0     0       460        0      40  ANY   \
2026-11-21T07:00:00Z  never                   -
trn_1    PURCHASED  FAILED        100     500        0          0     0         0        0     500  ANY   \
2026-11-21T07:00:00Z  never                   -";
    let answer = tranches::show(&response);
    assert_eq!(answer.text, expected);
    assert_eq!(answer.json["tranches"][0]["lifetime"]["duration"], "P1M");

    let line =
        "purser tranches --customer acme --wallet main --status pending --status voided --status FAILED";
    read(line).expect("a list");
}
