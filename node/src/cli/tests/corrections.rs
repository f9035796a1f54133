//! `purser refund` and `purser adjust`: flags to requests, answers to text and JSON.

use clap::error::ErrorKind;
use prost_types::Duration;
use purser_proto::v1::{
    AdjustRequest, AdjustResponse, Draw, Receipt, RefundRequest, RefundResponse, TrancheKind,
};
use serde_json::json;

use super::answers::{MORNING, at, two_draws};
use super::flags::refused;
use super::holds::receipt;
use super::parrot::{Asked, write};
use super::read;

pub fn refunded() -> RefundResponse {
    let receipt = Receipt { draws: two_draws(), ..receipt("107", "0") };
    RefundResponse {
        receipt: Some(receipt),
        amount: "15".to_owned(),
        forfeited: "3".to_owned(),
        voided: "0".to_owned(),
    }
}

/// Down by 2.5.
pub fn adjusted() -> AdjustResponse {
    let draw = Draw {
        tranche_id: "trn_1".to_owned(),
        wallet: "main".to_owned(),
        kind: TrancheKind::Promotional.into(),
        amount: "2.5".to_owned(),
        left: "0.5".to_owned(),
    };
    let receipt = Receipt { draws: vec![draw], ..receipt("92.5", "0") };
    AdjustResponse { receipt: Some(receipt), amount: "-2.5".to_owned() }
}

const REFUND: &str = "purser refund --customer acme --movement mov_4";
const ADJUST: &str = "purser adjust --customer acme --wallet main";

#[tokio::test]
async fn a_plain_refund_is_of_all_that_was_not_given_back() {
    let expected = RefundRequest {
        namespace: "default".to_owned(),
        customer: "acme".to_owned(),
        idempotency_key: "k-1".to_owned(),
        movement_id: "mov_4".to_owned(),
        ..RefundRequest::default()
    };
    assert_eq!(write(REFUND).await.0, Asked::Refund(expected));
}

#[tokio::test]
async fn every_flag_of_a_refund_reaches_the_request() {
    let line = format!(
        "{REFUND} --amount 12.50 --grace 7d --reference case-7 --reason bad-answer --meta team=a=b \
         --namespace eu"
    );
    let expected = RefundRequest {
        namespace: "eu".to_owned(),
        customer: "acme".to_owned(),
        idempotency_key: "k-1".to_owned(),
        valid_until: None,
        movement_id: "mov_4".to_owned(),
        amount: "12.50".to_owned(),
        grace: Some(Duration { seconds: 604_800, nanos: 0 }),
        reference: "case-7".to_owned(),
        reason_code: "bad-answer".to_owned(),
        metadata: [("team".to_owned(), "a=b".to_owned())].into(),
    };
    assert_eq!(write(&line).await.0, Asked::Refund(expected));
}

#[test]
fn a_refund_names_a_movement_and_nothing_below_zero() {
    assert_eq!(refused("purser refund --customer acme"), ErrorKind::MissingRequiredArgument);
    assert_eq!(refused("purser refund --movement mov_4"), ErrorKind::MissingRequiredArgument);
    for wrong in ["--amount=-5", "--amount 1e3", "--grace 0d", "--grace 7", "--grace P1M", "--meta team"] {
        assert_eq!(refused(&format!("{REFUND} {wrong}")), ErrorKind::ValueValidation, "{wrong}");
    }
    for wrong in ["--wallet main", "--expires-at 2027-01-01"] {
        assert_eq!(refused(&format!("{REFUND} {wrong}")), ErrorKind::UnknownArgument, "{wrong}");
    }
}

#[tokio::test]
async fn a_correction_goes_up_or_with_a_minus_down() {
    let line = format!("{ADJUST} --amount 100 --reason goodwill --expires-at 2026-11-22T07:00:00Z");
    let up = AdjustRequest {
        namespace: "default".to_owned(),
        customer: "acme".to_owned(),
        idempotency_key: "k-1".to_owned(),
        wallet: "main".to_owned(),
        amount: "100".to_owned(),
        expires_at: at(MORNING + 86_400),
        reason_code: "goodwill".to_owned(),
        ..AdjustRequest::default()
    };
    assert_eq!(write(&line).await.0, Asked::Adjust(up.clone()));

    let line = "--tranche trn_1 --reason counted-twice --reference case-7 --meta team=a";
    let down = AdjustRequest {
        amount: "-2.5".to_owned(),
        tranche_id: "trn_1".to_owned(),
        expires_at: None,
        reason_code: "counted-twice".to_owned(),
        reference: "case-7".to_owned(),
        metadata: [("team".to_owned(), "a".to_owned())].into(),
        ..up
    };
    for amount in ["--amount -2.5", "--amount=-2.5"] {
        let (asked, _) = write(&format!("{ADJUST} {amount} {line}")).await;
        assert_eq!(asked, Asked::Adjust(down.clone()), "{amount}");
    }
}

#[test]
fn a_correction_says_how_much_and_why() {
    let missing = ErrorKind::MissingRequiredArgument;
    assert_eq!(refused(&format!("{ADJUST} --amount 5")), missing);
    assert_eq!(refused(&format!("{ADJUST} --reason typo")), missing);
    assert_eq!(refused("purser adjust --customer acme --amount 5 --reason typo"), missing);
    for wrong in ["--amount +5", "--amount --5", "--amount -", "--amount -1,5", "--amount --tranche"] {
        assert_eq!(
            refused(&format!("{ADJUST} --reason typo {wrong}")),
            ErrorKind::ValueValidation,
            "{wrong}"
        );
    }
    let told = read(&format!("{ADJUST} --reason typo --amount -1,5")).expect_err("a comma").to_string();
    assert!(told.contains("a correction is digits with an optional fraction"), "{told}");
    for wrong in ["--expires-in P1M", "--kind plan", "--movement mov_4"] {
        let line = format!("{ADJUST} --amount 5 --reason typo {wrong}");
        assert_eq!(refused(&line), ErrorKind::UnknownArgument, "{wrong}");
    }
}

#[tokio::test]
async fn a_refund_shows_what_came_back_and_what_is_gone_again() {
    let answer = write(REFUND).await.1;
    let expected = "\
refunded 15 credits of mov_4, forfeited 3, voided 0

TRANCHE  WALLET  KIND         AMOUNT  LEFT
trn_1    main    PROMOTIONAL       3     0
trn_2    main    PURCHASED        12    88

WALLET  ASSET      AVAILABLE  HELD  PENDING  DEBT  SETTLED
main    credits/0        107     0     1000     0       95

op_9 at 2026-11-21T07:00:00Z, key k-1";
    assert_eq!(answer.text, expected);
    assert_eq!(answer.json["idempotency_key"], "k-1");
    assert_eq!(
        (&answer.json["amount"], &answer.json["forfeited"], &answer.json["voided"]),
        (&json!("15"), &json!("3"), &json!("0"))
    );
    assert_eq!(answer.json["receipt"]["draws"][1]["amount"], "12");
}

#[tokio::test]
async fn a_correction_shows_by_how_much_and_where() {
    let answer = write(&format!("{ADJUST} --amount -2.5 --reason counted-twice")).await.1;
    let expected = "\
adjusted wallet main of acme by -2.5 credits

TRANCHE  WALLET  KIND         AMOUNT  LEFT
trn_1    main    PROMOTIONAL     2.5   0.5

WALLET  ASSET      AVAILABLE  HELD  PENDING  DEBT  SETTLED
main    credits/0       92.5     0     1000     0       95

op_9 at 2026-11-21T07:00:00Z, key k-1";
    assert_eq!(answer.text, expected);
    assert_eq!(answer.json["amount"], "-2.5");
}

#[test]
fn movements_of_corrections_can_be_listed() {
    let line = "purser movements --customer acme --wallet main --type voided --type refunded --type ADJUSTED";
    read(line).expect("a list");
}
