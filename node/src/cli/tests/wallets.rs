//! `purser wallet update` and `close`: flags to requests, answers to text and JSON.

use clap::error::ErrorKind;
use purser_proto::v1::{
    BurnPolicy, ChargeScope, CloseWalletRequest, CloseWalletResponse, Receipt, UpdateWalletRequest,
    UpdateWalletResponse, Wallet, WalletStatus,
};

use super::super::words;
use super::answers::{MORNING, at, credits};
use super::flags::refused;
use super::parrot::{Asked, write};
use super::read;

fn promo(status: WalletStatus, version: u64) -> Wallet {
    Wallet {
        customer: "acme".to_owned(),
        wallet: "promo".to_owned(),
        asset: credits(),
        status: status.into(),
        draw_priority: 20,
        charge_scope: ChargeScope::Usage.into(),
        burn_policy: BurnPolicy::Standard.into(),
        version,
        created_at: at(MORNING - 3_600),
    }
}

fn receipt() -> Receipt {
    Receipt { operation_id: "op_9".to_owned(), ledger_time: at(MORNING), ..Receipt::default() }
}

pub fn updated() -> UpdateWalletResponse {
    UpdateWalletResponse { receipt: Some(receipt()), wallet: Some(promo(WalletStatus::Active, 3)) }
}

pub fn closed() -> CloseWalletResponse {
    CloseWalletResponse { receipt: Some(receipt()), wallet: Some(promo(WalletStatus::Closed, 4)) }
}

#[tokio::test]
async fn an_update_names_only_what_it_changes() {
    let (asked, _) = write("purser wallet update --customer acme --wallet promo --draw-priority 0").await;
    let priority = UpdateWalletRequest {
        namespace: "default".to_owned(),
        customer: "acme".to_owned(),
        idempotency_key: "k-1".to_owned(),
        wallet: "promo".to_owned(),
        draw_priority: Some(0),
        ..UpdateWalletRequest::default()
    };
    assert_eq!(asked, Asked::UpdateWallet(priority.clone()));

    let (asked, _) = write("purser wallet update --customer acme --wallet promo --scope ANY").await;
    let scope = UpdateWalletRequest {
        draw_priority: None,
        charge_scope: ChargeScope::Any.into(),
        ..priority.clone()
    };
    assert_eq!(asked, Asked::UpdateWallet(scope));

    let line = "purser wallet update --customer acme --wallet promo --version 2 --draw-priority 20 \
                --scope usage --reason new-terms --namespace eu";
    let all = UpdateWalletRequest {
        namespace: "eu".to_owned(),
        version: Some(2),
        draw_priority: Some(20),
        charge_scope: ChargeScope::Usage.into(),
        reason_code: "new-terms".to_owned(),
        ..priority
    };
    assert_eq!(write(line).await.0, Asked::UpdateWallet(all));
}

#[tokio::test]
async fn a_close_names_its_wallet_and_why() {
    let line = "purser wallet close --customer acme --wallet promo --reason moved";
    let expected = CloseWalletRequest {
        namespace: "default".to_owned(),
        customer: "acme".to_owned(),
        idempotency_key: "k-1".to_owned(),
        wallet: "promo".to_owned(),
        reason_code: "moved".to_owned(),
        valid_until: None,
    };
    assert_eq!(write(line).await.0, Asked::CloseWallet(expected));
}

#[test]
fn an_update_changes_something_within_its_bounds() {
    let plain = "purser wallet update --customer acme --wallet promo";
    let missing = ErrorKind::MissingRequiredArgument;
    assert_eq!(refused(plain), missing);
    assert_eq!(refused(&format!("{plain} --version 2 --reason new-terms")), missing);
    assert_eq!(refused("purser wallet update --wallet promo --scope any"), missing);
    assert_eq!(refused("purser wallet close --customer acme"), missing);
    for wrong in ["--draw-priority 1001", "--draw-priority=-1", "--scope any --version x"] {
        assert_eq!(refused(&format!("{plain} {wrong}")), ErrorKind::ValueValidation, "{wrong}");
    }
    assert_eq!(refused(&format!("{plain} --scope all")), ErrorKind::InvalidValue);
    assert_eq!(refused(&format!("{plain} --scope any --asset credits/0")), ErrorKind::UnknownArgument);
    let close = "purser wallet close --customer acme --wallet promo --draw-priority 5";
    assert_eq!(refused(close), ErrorKind::UnknownArgument);
}

#[tokio::test]
async fn an_update_shows_the_wallet_with_its_version_and_the_key() {
    let answer = write("purser wallet update --customer acme --wallet promo --draw-priority 20").await.1;
    let expected = "\
wallet         promo
customer       acme
asset          credits/0
status         ACTIVE
draw priority  20
scope          USAGE
burn policy    STANDARD
version        3
created at     2026-11-21T06:00:00Z

op_9 at 2026-11-21T07:00:00Z, key k-1";
    assert_eq!(answer.text, expected);
    assert_eq!(answer.json["idempotency_key"], "k-1");
    assert_eq!(answer.json["wallet"]["version"], 3);
    assert_eq!(answer.json["receipt"]["operation_id"], "op_9");
}

#[tokio::test]
async fn a_close_shows_a_closed_wallet() {
    let answer = write("purser wallet close --customer acme --wallet promo").await.1;
    assert!(answer.text.contains("\nstatus         CLOSED\n"), "{}", answer.text);
    assert_eq!(answer.json["wallet"]["status"], "CLOSED");
}

#[test]
fn closed_wallets_can_be_listed() {
    read("purser wallet list --customer acme --status closed --status frozen").expect("a list");
    assert_eq!(words::from_flag::<WalletStatus>("closed"), Some(WalletStatus::Closed));
}
