//! Responses become tables and JSON. The expected texts are written by hand.

use prost_types::Timestamp;
use purser_proto::v1::{
    Asset, AuditFinding, AuditResponse, AuditedWallet, Balance, BurnPolicy, ChargeScope, DebitResponse, Draw,
    ExplainResponse, GetBalanceResponse, GetClockResponse, KindBalance, ListMovementsResponse,
    ListTranchesResponse, ListWalletsResponse, Movement, MovementStatus, MovementType, PageInfo, ReadPoint,
    Receipt, Refusal, Tranche, TrancheKind, TrancheStatus, Wallet, WalletBalance, WalletStatus, Witness,
};
use serde_json::json;

use super::super::{Exit, audit, balance, clock, debit, movements, table, tranches, wallet, words};

/// 2026-11-21T07:00:00Z.
pub(super) const MORNING: i64 = 1_795_244_400;

pub(super) fn at(seconds: i64) -> Option<Timestamp> {
    Some(Timestamp { seconds, nanos: 0 })
}

pub(super) fn credits() -> Option<Asset> {
    Some(Asset { code: "credits".to_owned(), scale: 0 })
}

pub(super) fn main_balance() -> Balance {
    Balance {
        wallet: "main".to_owned(),
        asset: credits(),
        settled: "95".to_owned(),
        held: "0".to_owned(),
        available: "95".to_owned(),
        pending: "1000".to_owned(),
        debt: "0".to_owned(),
    }
}

pub(super) fn two_draws() -> Vec<Draw> {
    let draw = |tranche: &str, kind: TrancheKind, amount: &str, left: &str| Draw {
        tranche_id: tranche.to_owned(),
        wallet: "main".to_owned(),
        kind: kind.into(),
        amount: amount.to_owned(),
        left: left.to_owned(),
    };
    vec![draw("trn_1", TrancheKind::Promotional, "3", "0"), draw("trn_2", TrancheKind::Purchased, "12", "88")]
}

fn debited() -> DebitResponse {
    DebitResponse {
        receipt: Some(Receipt {
            operation_id: "op_9".to_owned(),
            movement_ids: vec!["mov_4".to_owned()],
            draws: two_draws(),
            balances: vec![main_balance()],
            ledger_time: at(MORNING),
            witness: Some(Witness { shard: 3, log_index: 77, position: 1 }),
            replayed: false,
        }),
        amount: "15".to_owned(),
        remaining: "95".to_owned(),
        asset: credits(),
    }
}

#[test]
fn a_debit_shows_its_draws_the_balance_and_the_key() {
    let answer = debit::show_debited(&debited(), "k-1");
    let expected = "\
debited 15 credits, 95 remaining

TRANCHE  WALLET  KIND         AMOUNT  LEFT
trn_1    main    PROMOTIONAL       3     0
trn_2    main    PURCHASED        12    88

WALLET  ASSET      AVAILABLE  HELD  PENDING  DEBT  SETTLED
main    credits/0         95     0     1000     0       95

op_9 at 2026-11-21T07:00:00Z, key k-1";
    assert_eq!(answer.text, expected);
    assert_eq!(answer.exit, Exit::Done);
}

#[test]
fn the_json_of_a_debit_keeps_amounts_as_strings_and_names_as_in_the_contract() {
    let expected = json!({
        "idempotency_key": "k-1",
        "receipt": {
            "operation_id": "op_9",
            "movement_ids": ["mov_4"],
            "draws": [
                { "tranche_id": "trn_1", "wallet": "main", "kind": "PROMOTIONAL", "amount": "3",
                  "left": "0" },
                { "tranche_id": "trn_2", "wallet": "main", "kind": "PURCHASED", "amount": "12",
                  "left": "88" },
            ],
            "balances": [{
                "wallet": "main", "asset": "credits/0", "settled": "95", "held": "0",
                "available": "95", "pending": "1000", "debt": "0",
            }],
            "ledger_time": "2026-11-21T07:00:00Z",
            "witness": { "shard": 3, "log_index": 77, "position": 1 },
            "replayed": false,
        },
        "amount": "15",
        "remaining": "95",
        "asset": "credits/0",
    });
    assert_eq!(debit::show_debited(&debited(), "k-1").json, expected);
}

#[test]
fn a_replay_says_so() {
    let mut response = debited();
    if let Some(receipt) = &mut response.receipt {
        receipt.replayed = true;
    }
    let answer = debit::show_debited(&response, "k-1");
    assert!(answer.text.ends_with("key k-1, replayed: this is the first answer"));
}

#[test]
fn an_explained_debit_says_that_nothing_changed() {
    let answer = debit::show_explained(&ExplainResponse {
        point: Some(ReadPoint { ledger_time: at(MORNING), shard: 3, read_index: 76 }),
        refusal: None,
        amount: "15".to_owned(),
        remaining: "95".to_owned(),
        asset: credits(),
        draws: two_draws(),
        balances: vec![main_balance()],
    });
    assert!(answer.text.starts_with("would debit 15 credits, 95 remaining\n"));
    assert!(answer.text.ends_with("nothing was changed; judged at 2026-11-21T07:00:00Z"));
    assert_eq!(answer.exit, Exit::Done);
}

#[test]
fn an_explained_refusal_ends_like_a_refusal() {
    let metadata = [("available", "3"), ("required", "5")];
    let answer = debit::show_explained(&ExplainResponse {
        refusal: Some(Refusal {
            reason: "INSUFFICIENT_CREDITS".to_owned(),
            message: "not enough credits".to_owned(),
            metadata: metadata.map(|(k, v)| (k.to_owned(), v.to_owned())).into(),
        }),
        ..ExplainResponse::default()
    });
    let expected = "\
would be refused: not enough credits
reason     INSUFFICIENT_CREDITS
available  3
required   5";
    assert_eq!(answer.text, expected);
    assert_eq!(answer.exit, Exit::Refused);
}

#[test]
fn several_wallets_have_a_total_and_one_wallet_is_its_own() {
    let promo = Balance {
        wallet: "promo".to_owned(),
        available: "5".to_owned(),
        settled: "5".to_owned(),
        pending: "0".to_owned(),
        ..main_balance()
    };
    let total = Balance {
        wallet: String::new(),
        available: "100".to_owned(),
        settled: "100".to_owned(),
        ..main_balance()
    };
    let wallet = |balance, expiring: &str, frozen| WalletBalance {
        balance: Some(balance),
        expiring: expiring.to_owned(),
        expiring_before: at(MORNING + 30 * 86_400),
        frozen,
        ..WalletBalance::default()
    };
    let mut response = GetBalanceResponse {
        point: Some(ReadPoint { ledger_time: at(MORNING), shard: 3, read_index: 76 }),
        wallets: vec![wallet(main_balance(), "20", false), wallet(promo, "0", true)],
        totals: vec![total],
    };
    let expected = "\
WALLET   ASSET      AVAILABLE  HELD  PENDING  DEBT  SETTLED  EXPIRING  STATUS
main     credits/0         95     0     1000     0       95        20  ACTIVE
promo    credits/0          5     0        0     0        5         0  FROZEN
(total)  credits/0        100     0     1000     0      100

at 2026-11-21T07:00:00Z; expiring before 2026-12-21T07:00:00Z";
    assert_eq!(balance::show(&response).text, expected);

    response.wallets.truncate(1);
    assert!(!balance::show(&response).text.contains("(total)"));
}

#[test]
fn a_balance_by_kind_stands_under_the_wallets() {
    let kinds = vec![KindBalance {
        kind: TrancheKind::Plan.into(),
        available: "95".to_owned(),
        held: "0".to_owned(),
        pending: "1000".to_owned(),
    }];
    let wallet = WalletBalance { balance: Some(main_balance()), kinds, ..WalletBalance::default() };
    let response = GetBalanceResponse { wallets: vec![wallet], ..GetBalanceResponse::default() };
    let expected = "\
WALLET  ASSET      AVAILABLE  HELD  PENDING  DEBT  SETTLED  EXPIRING  STATUS
main    credits/0         95     0     1000     0       95         -  ACTIVE

main by kind:
KIND  AVAILABLE  HELD  PENDING
PLAN         95     0     1000

at -";
    assert_eq!(balance::show(&response).text, expected);
}

#[test]
fn tranches_show_what_they_pay_and_when_they_end() {
    let tranche = |id: &str| Tranche {
        tranche_id: id.to_owned(),
        kind: TrancheKind::Plan.into(),
        priority: 100,
        status: TrancheStatus::Active.into(),
        amount: "10".to_owned(),
        pending: "0".to_owned(),
        available: "4".to_owned(),
        held: "0".to_owned(),
        consumed: "6".to_owned(),
        expired: "0".to_owned(),
        voided: "0".to_owned(),
        charge_scope: ChargeScope::Any.into(),
        effective_at: at(MORNING),
        ..Tranche::default()
    };
    let limited = Tranche {
        charge_scope: ChargeScope::Usage.into(),
        features: vec!["search".to_owned(), "chat".to_owned()],
        expires_at: at(MORNING + 86_400),
        label: "Winter".to_owned(),
        ..tranche("trn_2")
    };
    let response = ListTranchesResponse {
        tranches: vec![tranche("trn_1"), limited],
        page: Some(PageInfo { next_cursor: "c2".to_owned(), previous_cursor: String::new() }),
        ..ListTranchesResponse::default()
    };
    let expected = "\
TRANCHE  KIND  STATUS  PRIORITY  AMOUNT  PENDING  AVAILABLE  HELD  CONSUMED  EXPIRED  VOIDED  PAYS                 \
EFFECTIVE AT          EXPIRES AT            LABEL
trn_1    PLAN  ACTIVE       100      10        0          4     0         6        0       0  ANY                  \
2026-11-21T07:00:00Z  never                 -
trn_2    PLAN  ACTIVE       100      10        0          4     0         6        0       0  USAGE: search, chat  \
2026-11-21T07:00:00Z  2026-11-22T07:00:00Z  Winter
next page: --cursor c2";
    assert_eq!(tranches::show(&response).text, expected);
}

#[test]
fn movements_show_the_signed_amount_and_the_balance_after() {
    let movement = |sequence, kind: MovementType, amount: &str, after: &str| Movement {
        movement_id: format!("mov_{sequence}"),
        sequence,
        r#type: kind.into(),
        status: MovementStatus::Posted.into(),
        amount: amount.to_owned(),
        balance_after: after.to_owned(),
        booked_at: at(MORNING),
        ..Movement::default()
    };
    let response = ListMovementsResponse {
        movements: vec![
            Movement { corrects: "mov_2".to_owned(), ..movement(3, MovementType::Refunded, "2", "97") },
            movement(2, MovementType::Consumed, "-5", "95"),
            movement(1, MovementType::Granted, "100", "100"),
        ],
        ..ListMovementsResponse::default()
    };
    let expected = "\
SEQ  MOVEMENT  BOOKED AT             TYPE      STATUS  AMOUNT  BALANCE  CORRECTS  REFERENCE
  3  mov_3     2026-11-21T07:00:00Z  REFUNDED  POSTED       2       97  mov_2     -
  2  mov_2     2026-11-21T07:00:00Z  CONSUMED  POSTED      -5       95  -         -
  1  mov_1     2026-11-21T07:00:00Z  GRANTED   POSTED     100      100  -         -";
    assert_eq!(movements::show_list(&response).text, expected);
}

#[test]
fn a_list_without_rows_says_so() {
    let text = movements::show_list(&ListMovementsResponse::default()).text;
    assert!(text.ends_with("\n(none)"), "{text}");
}

#[test]
fn wallets_show_their_order_and_scope() {
    let response = ListWalletsResponse {
        wallets: vec![Wallet {
            customer: "acme".to_owned(),
            wallet: "main".to_owned(),
            asset: credits(),
            status: WalletStatus::Frozen.into(),
            draw_priority: 100,
            charge_scope: ChargeScope::Any.into(),
            burn_policy: BurnPolicy::SpecificFirst.into(),
            version: 2,
            created_at: at(MORNING),
        }],
        ..ListWalletsResponse::default()
    };
    let expected = "\
WALLET  ASSET      STATUS  DRAW PRIORITY  SCOPE  BURN POLICY     CREATED AT
main    credits/0  FROZEN            100  ANY    SPECIFIC_FIRST  2026-11-21T07:00:00Z";
    assert_eq!(wallet::show_list(&response).text, expected);
}

#[test]
fn an_audit_without_findings_is_done_and_with_findings_refused() {
    let mut response = AuditResponse {
        point: Some(ReadPoint { ledger_time: at(MORNING), shard: 0, read_index: 5 }),
        findings: Vec::new(),
        wallets: vec![AuditedWallet {
            wallet: "main".to_owned(),
            asset: credits(),
            settled: "95".to_owned(),
            movements: 2,
            chain_hash: "ab12".to_owned(),
            tranches: 1,
        }],
    };
    let sound = audit::show(&response);
    let expected = "\
the books add up (at 2026-11-21T07:00:00Z)

WALLET  ASSET      SETTLED  MOVEMENTS  TRANCHES  CHAIN HASH
main    credits/0       95          2         1  ab12";
    assert_eq!(sound.text, expected);
    assert_eq!(sound.exit, Exit::Done);

    let message = "the wallet's total differs from the sum of its movements".to_owned();
    response.findings.push(AuditFinding { wallet: "main".to_owned(), message });
    let broken = audit::show(&response);
    let told = "\
WALLET  FINDING
main    the wallet's total differs from the sum of its movements";
    assert!(broken.text.starts_with("1 finding: the books do NOT add up"));
    assert!(broken.text.ends_with(told), "{}", broken.text);
    assert_eq!(broken.exit, Exit::Refused);
}

#[test]
fn a_clock_says_which_clock_it_is() {
    let response = GetClockResponse { now: at(MORNING), test_clock: true };
    assert_eq!(clock::show(&response).text, "2026-11-21T07:00:00Z (test clock)");
    assert_eq!(clock::show(&response).json, json!({ "now": "2026-11-21T07:00:00Z", "test_clock": true }));
}

#[test]
fn what_is_absent_is_null_in_json() {
    let json = debit::show_explained(&ExplainResponse::default()).json;
    assert_eq!(json["refusal"], json!(null));
    assert_eq!(json["asset"], json!(null));
    assert_eq!(json["draws"], json!([]));
}

#[test]
fn a_word_of_a_newer_server_is_shown_as_its_number() {
    assert_eq!(words::show::<TrancheKind>(99), "99");
}

#[test]
fn no_label_can_drive_the_terminal() {
    assert_eq!(table::clean("a\u{1b}[31mb\nc"), "a\\u{1b}[31mb\\u{a}c");
    assert_eq!(table::clean("a\u{202e}b"), "a\\u{202e}b");
    assert_eq!(table::clean("Größe 日本"), "Größe 日本");
}
