//! `purser hold`: flags to requests, answers to text and JSON.

use clap::error::ErrorKind;
use prost_types::Duration;
use purser_proto::v1::hold_request::Payer;
use purser_proto::v1::{
    Asset, Balance, CaptureRequest, CaptureResponse, ChargeType, ExtendHoldRequest, ExtendHoldResponse,
    GetBalanceResponse, GetHoldRequest, GetHoldResponse, Hold, HoldRequest, HoldResponse, HoldState,
    HoldStatus, ListHoldsResponse, PageInfo, Pin, ReadPoint, Receipt, ReleaseRequest, ReleaseResponse,
    SortOrder, TrancheKind, WalletBalance,
};
use serde_json::{Value, json};

use super::super::balance;
use super::answers::{MORNING, at, credits, main_balance, two_draws};
use super::flags::refused;
use super::parrot::{Asked, ask, write};

/// The one hold that the made-up ledger knows: of 15, for five minutes.
fn state(status: HoldStatus, captured: &str, released: &str, left: &str) -> HoldState {
    HoldState {
        hold_id: "hld_1".to_owned(),
        status: status.into(),
        asset: credits(),
        amount: "15".to_owned(),
        captured: captured.to_owned(),
        released: released.to_owned(),
        left: left.to_owned(),
        excess: "0".to_owned(),
        created_at: at(MORNING),
        expires_at: at(MORNING + 300),
    }
}

fn hold(state: HoldState) -> Hold {
    let pin = |tranche: &str, kind: TrancheKind, amount: &str, expires_at| Pin {
        tranche_id: tranche.to_owned(),
        wallet: "main".to_owned(),
        kind: kind.into(),
        amount: amount.to_owned(),
        expires_at,
    };
    let pins = vec![
        pin("trn_1", TrancheKind::Promotional, "3", at(MORNING + 86_400)),
        pin("trn_2", TrancheKind::Purchased, "12", None),
    ];
    Hold {
        state: Some(state),
        customer: "acme".to_owned(),
        wallets: vec!["main".to_owned()],
        pins,
        charge_type: ChargeType::Usage.into(),
        feature: "search".to_owned(),
        reference: "request-7".to_owned(),
        reason_code: "call".to_owned(),
        metadata: [("team".to_owned(), "a".to_owned())].into(),
    }
}

pub fn receipt(available: &str, held: &str) -> Receipt {
    let balance = Balance { available: available.to_owned(), held: held.to_owned(), ..main_balance() };
    Receipt {
        operation_id: "op_9".to_owned(),
        balances: vec![balance],
        ledger_time: at(MORNING),
        ..Receipt::default()
    }
}

pub fn held() -> HoldResponse {
    HoldResponse {
        receipt: Some(Receipt { draws: two_draws(), ..receipt("80", "15") }),
        hold: Some(state(HoldStatus::Open, "0", "0", "15")),
        remaining: "80".to_owned(),
    }
}

pub fn extended() -> ExtendHoldResponse {
    let state = HoldState { expires_at: at(MORNING + 600), ..state(HoldStatus::Open, "0", "0", "15") };
    ExtendHoldResponse { receipt: Some(receipt("80", "15")), hold: Some(state), remaining: "80".to_owned() }
}

pub fn captured() -> CaptureResponse {
    CaptureResponse {
        receipt: Some(Receipt { draws: two_draws(), ..receipt("83", "0") }),
        hold: Some(state(HoldStatus::Captured, "12", "3", "0")),
        remaining: "83".to_owned(),
        amount: "12".to_owned(),
        released: "3".to_owned(),
    }
}

pub fn released() -> ReleaseResponse {
    ReleaseResponse {
        receipt: Some(receipt("95", "0")),
        hold: Some(state(HoldStatus::Released, "0", "15", "0")),
        remaining: "95".to_owned(),
        released: "15".to_owned(),
    }
}

pub fn got() -> GetHoldResponse {
    let point = ReadPoint { ledger_time: at(MORNING), shard: 3, read_index: 76 };
    GetHoldResponse { point: Some(point), hold: Some(hold(state(HoldStatus::Open, "0", "0", "15"))) }
}

pub fn listed() -> ListHoldsResponse {
    let plain = Hold { reference: String::new(), ..hold(state(HoldStatus::Captured, "12", "3", "0")) };
    ListHoldsResponse {
        point: None,
        holds: vec![hold(state(HoldStatus::Open, "0", "0", "15")), plain],
        page: Some(PageInfo { next_cursor: "c2".to_owned(), previous_cursor: String::new() }),
    }
}

#[tokio::test]
async fn a_plain_hold_leaves_to_the_ledger_what_it_does_not_say() {
    let (asked, _) = write("purser hold place --customer acme --wallet main --amount 15").await;
    let expected = HoldRequest {
        namespace: "default".to_owned(),
        customer: "acme".to_owned(),
        idempotency_key: "k-1".to_owned(),
        payer: Some(Payer::Wallet("main".to_owned())),
        amount: "15".to_owned(),
        ..HoldRequest::default()
    };
    assert_eq!(asked, Asked::Hold(expected));
}

#[tokio::test]
async fn every_flag_of_a_hold_reaches_the_request() {
    let line = "purser hold place --customer acme --asset credits/0 --amount 12.50 --ttl 2m \
                --charge-type usage --feature search --reference request-7 --reason call --meta team=a=b \
                --namespace eu";
    let expected = HoldRequest {
        namespace: "eu".to_owned(),
        customer: "acme".to_owned(),
        idempotency_key: "k-1".to_owned(),
        payer: Some(Payer::Asset(Asset { code: "credits".to_owned(), scale: 0 })),
        amount: "12.50".to_owned(),
        ttl: Some(Duration { seconds: 120, nanos: 0 }),
        charge_type: ChargeType::Usage.into(),
        feature: "search".to_owned(),
        reference: "request-7".to_owned(),
        reason_code: "call".to_owned(),
        metadata: [("team".to_owned(), "a=b".to_owned())].into(),
        valid_until: None,
    };
    assert_eq!(write(line).await.0, Asked::Hold(expected));
}

#[test]
fn a_hold_names_a_wallet_or_an_asset_and_how_much() {
    let plain = "purser hold place --customer acme";
    let missing = ErrorKind::MissingRequiredArgument;
    assert_eq!(refused(&format!("{plain} --amount 5")), missing);
    assert_eq!(refused(&format!("{plain} --wallet main")), missing);
    assert_eq!(refused("purser hold place --wallet main --amount 5"), missing);
    assert_eq!(
        refused(&format!("{plain} --wallet main --asset credits/0 --amount 5")),
        ErrorKind::ArgumentConflict
    );
    for wrong in ["--amount=-5", "--amount 1e3", "--amount 5 --ttl 0s", "--amount 5 --ttl 10"] {
        assert_eq!(refused(&format!("{plain} --wallet main {wrong}")), ErrorKind::ValueValidation, "{wrong}");
    }
    let unknown = format!("{plain} --wallet main --amount 5 --charge-type any");
    assert_eq!(refused(&unknown), ErrorKind::InvalidValue);
}

#[tokio::test]
async fn a_capture_takes_all_that_is_left_unless_it_says_how_much() {
    let (asked, _) = write("purser hold capture --customer acme --hold hld_1").await;
    let all = CaptureRequest {
        namespace: "default".to_owned(),
        customer: "acme".to_owned(),
        idempotency_key: "k-1".to_owned(),
        hold_id: "hld_1".to_owned(),
        ..CaptureRequest::default()
    };
    assert_eq!(asked, Asked::Capture(all.clone()));

    let (asked, _) = write("purser hold capture --customer acme --hold hld_1 --amount 0").await;
    assert_eq!(asked, Asked::Capture(CaptureRequest { amount: "0".to_owned(), ..all.clone() }));

    let line = "purser hold capture --customer acme --hold hld_1 --amount 4 --keep-open \
                --reference answer-7 --reason done --meta team=a";
    let part = CaptureRequest {
        amount: "4".to_owned(),
        keep_open: true,
        reference: "answer-7".to_owned(),
        reason_code: "done".to_owned(),
        metadata: [("team".to_owned(), "a".to_owned())].into(),
        ..all
    };
    assert_eq!(write(line).await.0, Asked::Capture(part));
}

#[tokio::test]
async fn an_extension_and_a_release_name_their_hold() {
    let line = "purser hold extend --customer acme --hold hld_1 --ttl 10m --reason slow";
    let expected = ExtendHoldRequest {
        namespace: "default".to_owned(),
        customer: "acme".to_owned(),
        idempotency_key: "k-1".to_owned(),
        hold_id: "hld_1".to_owned(),
        ttl: Some(Duration { seconds: 600, nanos: 0 }),
        reason_code: "slow".to_owned(),
        valid_until: None,
    };
    assert_eq!(write(line).await.0, Asked::ExtendHold(expected));

    let line = "purser hold release --customer acme --hold hld_1 --reference answer-7 --reason failed \
                --meta team=a";
    let expected = ReleaseRequest {
        namespace: "default".to_owned(),
        customer: "acme".to_owned(),
        idempotency_key: "k-1".to_owned(),
        hold_id: "hld_1".to_owned(),
        reference: "answer-7".to_owned(),
        reason_code: "failed".to_owned(),
        metadata: [("team".to_owned(), "a".to_owned())].into(),
        valid_until: None,
    };
    assert_eq!(write(line).await.0, Asked::Release(expected));
}

#[tokio::test]
async fn reads_of_holds_ask_for_one_or_for_those_of_a_wallet() {
    let (namespace, customer) = ("default".to_owned(), "acme".to_owned());
    let get = GetHoldRequest { namespace, customer, hold_id: "hld_1".to_owned() };
    assert_eq!(ask("purser hold get --customer acme --hold hld_1").await.0, Asked::GetHold(get));

    let line = "purser hold list --customer acme --wallet main --status open --status EXPIRED \
                --reference request-7 --limit 5 --newest-first";
    let Asked::ListHolds(list) = ask(line).await.0 else { panic!("not a list") };
    assert_eq!((list.customer.as_str(), list.wallet.as_str()), ("acme", "main"));
    assert_eq!(list.statuses().collect::<Vec<_>>(), [HoldStatus::Open, HoldStatus::Expired]);
    assert_eq!(list.reference, "request-7");
    let page = list.page.expect("a page");
    assert_eq!((page.size, page.order()), (5, SortOrder::NewestFirst));
    let Asked::ListHolds(list) = ask("purser hold list --customer acme --wallet main").await.0 else {
        panic!("not a list")
    };
    assert_eq!((list.statuses.len(), list.page.expect("a page").order()), (0, SortOrder::Unspecified));
}

#[test]
fn flags_that_a_command_about_a_hold_lacks_or_does_not_know_are_refused() {
    let missing = ErrorKind::MissingRequiredArgument;
    for line in [
        "purser hold extend --customer acme --hold hld_1",
        "purser hold extend --customer acme --ttl 1m",
        "purser hold capture --customer acme",
        "purser hold release --hold hld_1",
        "purser hold get --customer acme",
        "purser hold list --customer acme",
    ] {
        assert_eq!(refused(line), missing, "{line}");
    }
    for line in [
        "purser hold release --customer acme --hold hld_1 --amount 5",
        "purser hold extend --customer acme --hold hld_1 --ttl 1m --meta a=b",
        "purser hold get --customer acme --hold hld_1 --key k-1",
        "purser hold capture --customer acme --hold hld_1 --ttl 1m",
    ] {
        assert_eq!(refused(line), ErrorKind::UnknownArgument, "{line}");
    }
    let list = "purser hold list --customer acme --wallet main";
    assert_eq!(refused(&format!("{list} --status frozen")), ErrorKind::InvalidValue);
    assert_eq!(refused(&format!("{list} --oldest-first --newest-first")), ErrorKind::ArgumentConflict);
    assert_eq!(refused(&format!("{list} --cursor c2 --newest-first")), ErrorKind::ArgumentConflict);
    assert_eq!(refused("purser hold"), ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand);
}

#[tokio::test]
async fn a_hold_shows_until_when_it_lives_what_it_set_aside_and_the_key() {
    let answer = write("purser hold place --customer acme --wallet main --amount 15").await.1;
    let expected = "\
held 15 credits until 2026-11-21T07:05:00Z: hld_1, 80 remaining

TRANCHE  WALLET  KIND         AMOUNT  LEFT
trn_1    main    PROMOTIONAL       3     0
trn_2    main    PURCHASED        12    88

WALLET  ASSET      AVAILABLE  HELD  PENDING  DEBT  SETTLED
main    credits/0         80    15     1000     0       95

op_9 at 2026-11-21T07:00:00Z, key k-1";
    assert_eq!(answer.text, expected);
    assert_eq!(answer.json["idempotency_key"], "k-1");
    assert_eq!(answer.json["remaining"], "80");
    assert_eq!(answer.json["receipt"]["draws"][1]["amount"], "12");
    assert_eq!(answer.json["hold"], json_of_hold("OPEN", ["0", "0", "15"]));
}

/// Captured, released, left.
fn json_of_hold(status: &str, [captured, released, left]: [&str; 3]) -> Value {
    json!({
        "hold_id": "hld_1", "status": status, "asset": "credits/0", "amount": "15",
        "captured": captured, "released": released, "left": left, "excess": "0",
        "created_at": "2026-11-21T07:00:00Z", "expires_at": "2026-11-21T07:05:00Z",
    })
}

#[tokio::test]
async fn an_extension_shows_until_when_the_hold_lives() {
    let answer = write("purser hold extend --customer acme --hold hld_1 --ttl 10m").await.1;
    let expected = "\
hld_1 lives until 2026-11-21T07:10:00Z, 80 remaining

WALLET  ASSET      AVAILABLE  HELD  PENDING  DEBT  SETTLED
main    credits/0         80    15     1000     0       95

op_9 at 2026-11-21T07:00:00Z, key k-1";
    assert_eq!(answer.text, expected);
    assert_eq!(answer.json["hold"]["expires_at"], "2026-11-21T07:10:00Z");
}

#[tokio::test]
async fn a_capture_shows_what_was_spent_what_was_released_and_what_is_left() {
    let answer = write("purser hold capture --customer acme --hold hld_1 --amount 12").await.1;
    let expected = "\
captured 12 credits, released 3: hld_1 is CAPTURED, 0 left in it, 83 remaining

TRANCHE  WALLET  KIND         AMOUNT  LEFT
trn_1    main    PROMOTIONAL       3     0
trn_2    main    PURCHASED        12    88

WALLET  ASSET      AVAILABLE  HELD  PENDING  DEBT  SETTLED
main    credits/0         83     0     1000     0       95

op_9 at 2026-11-21T07:00:00Z, key k-1";
    assert_eq!(answer.text, expected);
    assert_eq!((&answer.json["amount"], &answer.json["released"]), (&json!("12"), &json!("3")));
    assert_eq!(answer.json["hold"], json_of_hold("CAPTURED", ["12", "3", "0"]));
}

#[tokio::test]
async fn a_release_shows_how_much_came_back() {
    let answer = write("purser hold release --customer acme --hold hld_1").await.1;
    let expected = "\
released 15 credits: hld_1, 95 remaining

WALLET  ASSET      AVAILABLE  HELD  PENDING  DEBT  SETTLED
main    credits/0         95     0     1000     0       95

op_9 at 2026-11-21T07:00:00Z, key k-1";
    assert_eq!(answer.text, expected);
    assert_eq!(answer.json["released"], "15");
    assert_eq!(answer.json["hold"], json_of_hold("RELEASED", ["0", "15", "0"]));
}

#[tokio::test]
async fn one_hold_is_shown_with_what_it_has_set_aside() {
    let answer = ask("purser hold get --customer acme --hold hld_1").await.1;
    for line in [
        "hold         hld_1",
        "status       OPEN",
        "customer     acme",
        "wallets      main",
        "asset        credits/0",
        "amount       15",
        "left         15",
        "captured     0",
        "released     0",
        "charge type  USAGE",
        "feature      search",
        "reason       call",
        "reference    request-7",
        "placed at    2026-11-21T07:00:00Z",
        "expires at   2026-11-21T07:05:00Z",
        "metadata     team=a",
    ] {
        assert!(answer.text.lines().any(|own| own == line), "{line} is not in {}", answer.text);
    }
    let pins = [
        "TRANCHE  WALLET  KIND         AMOUNT  EXPIRES AT",
        "trn_1    main    PROMOTIONAL       3  2026-11-22T07:00:00Z",
        "trn_2    main    PURCHASED        12  never",
    ];
    let pins = format!("\n\n{}", pins.join("\n"));
    assert!(answer.text.ends_with(&pins), "{}", answer.text);
    let hold = &answer.json["hold"];
    assert_eq!(hold["state"], json_of_hold("OPEN", ["0", "0", "15"]));
    assert_eq!((&hold["charge_type"], &hold["metadata"]["team"]), (&json!("USAGE"), &json!("a")));
    assert_eq!(hold["pins"][0]["kind"], "PROMOTIONAL");
}

const ROWS: &str = "\
HOLD   STATUS    AMOUNT  LEFT  CAPTURED  RELEASED  EXCESS  EXPIRES AT            REFERENCE
hld_1  OPEN          15    15         0         0       0  2026-11-21T07:05:00Z  request-7
hld_1  CAPTURED      15     0        12         3       0  2026-11-21T07:05:00Z  -";

#[tokio::test]
async fn holds_are_listed_a_row_each_with_the_way_to_the_next_page() {
    let answer = ask("purser hold list --customer acme --wallet main").await.1;
    assert_eq!(answer.text, format!("{ROWS}\nnext page: --cursor c2"));
    assert_eq!(answer.json["holds"][1]["state"]["status"], "CAPTURED");
    assert_eq!(answer.json["page"]["next_cursor"], "c2");
}

#[test]
fn a_balance_by_hold_stands_under_the_wallets() {
    let wallet = WalletBalance {
        balance: Some(main_balance()),
        holds: listed().holds,
        open_holds: 3,
        holds_truncated: true,
        ..WalletBalance::default()
    };
    let response = GetBalanceResponse { wallets: vec![wallet], ..GetBalanceResponse::default() };
    let text = balance::show(&response).text;
    let expected = format!("\n\nmain by hold:\n{ROWS}\n… and more: purser hold list --status open\n");
    assert!(text.contains(&expected), "{text}");
    assert_eq!(balance::show(&response).json["wallets"][0]["open_holds"], 3);
}
