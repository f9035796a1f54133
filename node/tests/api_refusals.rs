//! Every refusal that a caller can provoke on a healthy node, one story each: the reason, the gRPC code
//! and HTTP status that the contract states for it, and that not one thing in the books changed.
//!
//! `Provokes:` above a story is what `docs/coverage.md` is made of. The reasons of a full queue, of a node
//! that does not lead, and of broken rows have their stories elsewhere, marked likewise.

mod node_support;

use node_support::{
    DAY, Running, T0, asset, at, capture_request, create_request, debit_request, expiring, fresh_key,
    grant_request, hold_request, reason, tranche, unserved,
};
use prost::Message;
use purser_node::config::Config;
use purser_proto::v1;
use tonic::{Code, Status};
use v1::Reason;
use v1::TrancheKind::{Promotional, Purchased};

const WHO: &str = "acme";
/// An hour in microseconds.
const HOUR: u64 = DAY / 24;

/// A customer with something of everything.
struct Books {
    node: Running,
    /// A debit's movement of 5 from `main`.
    spent: String,
    /// Waits for its invoice.
    pending: String,
    /// Of `main`, all of it spent.
    exhausted: String,
    /// Open, 10 of `main`.
    hold: String,
    /// Captured.
    captured: String,
}

/// `main` with 95 credits for anything, 10 of them held, a pending 7; `calls` with 50 for usage alone;
/// `frozen` with 5; `closed`.
async fn books() -> Books {
    let mut node = Running::start().await;
    node.wallet_with(WHO, "main", vec![tranche("5", Promotional)]).await;
    let debit = node.debit(debit_request(WHO, "main", "5")).await.expect("a debit");
    let receipt = debit.receipt.expect("a receipt");
    let more = vec![
        tranche("95", Purchased),
        v1::TrancheSpec {
            pending: true,
            external_reference: "invoice-1".to_owned(),
            ..tranche("7", Purchased)
        },
    ];
    let granted = node.grant(WHO, "main", more).await;
    let for_usage =
        v1::TrancheSpec { charge_scope: v1::ChargeScope::Usage.into(), ..tranche("50", Purchased) };
    node.wallet_with(WHO, "calls", vec![for_usage]).await;
    node.wallet_with(WHO, "frozen", vec![tranche("5", Purchased)]).await;
    node.freeze(WHO, "frozen", true).await;
    node.create(create_request(WHO, "closed", 0)).await;
    let close = v1::CloseWalletRequest {
        customer: WHO.to_owned(),
        wallet: "closed".to_owned(),
        idempotency_key: fresh_key(),
        ..Default::default()
    };
    node.ledger.close_wallet(close).await.expect("closed");
    let mut place = async |amount| {
        let held = node.hold(hold_request(WHO, "main", amount)).await.expect("a hold");
        held.hold.expect("its state").hold_id
    };
    let (hold, captured) = (place("10").await, place("1").await);
    node.capture(capture_request(WHO, &captured, "0")).await.expect("a capture of nothing");
    Books {
        node,
        spent: receipt.movement_ids[0].clone(),
        exhausted: receipt.draws[0].tranche_id.clone(),
        pending: granted.tranches[1].tranche_id.clone(),
        hold,
        captured,
    }
}

/// All that can be read of a customer, but for the points of the reads.
async fn shown(node: &mut Running) -> Vec<Vec<u8>> {
    let customer = WHO.to_owned();
    let page = Some(v1::PageRequest { size: 1_000, ..Default::default() });
    let wallets = v1::ListWalletsRequest { customer: customer.clone(), ..Default::default() };
    let wallets = node.ledger.list_wallets(wallets).await.expect("wallets").into_inner().wallets;
    let balance = v1::GetBalanceRequest { customer: customer.clone(), ..Default::default() };
    let balances = node.ledger.get_balance(balance).await.expect("balances").into_inner().wallets;
    let mut all: Vec<Vec<u8>> = balances.iter().map(Message::encode_to_vec).collect();
    for wallet in &wallets {
        all.push(wallet.encode_to_vec());
        let (customer, wallet) = (customer.clone(), wallet.wallet.clone());
        let tranches = v1::ListTranchesRequest {
            customer: customer.clone(),
            wallet: wallet.clone(),
            page: page.clone(),
            ..Default::default()
        };
        let tranches = node.ledger.list_tranches(tranches).await.expect("tranches").into_inner().tranches;
        all.extend(tranches.iter().map(Message::encode_to_vec));
        let holds = v1::ListHoldsRequest {
            customer: customer.clone(),
            wallet: wallet.clone(),
            page: page.clone(),
            ..Default::default()
        };
        let holds = node.ledger.list_holds(holds).await.expect("holds").into_inner().holds;
        all.extend(holds.iter().map(Message::encode_to_vec));
        let movements = node.movements(&customer, &wallet).await;
        all.extend(movements.iter().map(Message::encode_to_vec));
    }
    all
}

/// The gRPC code that the contract states for a reason of this number.
fn code_of(reason: Reason) -> Code {
    match (reason, i32::from(reason) / 100) {
        (Reason::AmountOverflow, _) => Code::OutOfRange,
        (Reason::AlreadyExists, _) => Code::AlreadyExists,
        (_, 400) => Code::InvalidArgument,
        (_, 404) => Code::NotFound,
        (_, 402 | 403 | 409 | 422) => Code::FailedPrecondition,
        (other, _) => panic!("{other:?} is not provoked here"),
    }
}

/// Asks for what is refused: with this reason, and nothing is changed by it.
async fn refused<T: std::fmt::Debug>(
    mut books: Books,
    expected: Reason,
    ask: impl AsyncFnOnce(&mut Books) -> Result<T, Status>,
) {
    let before = shown(&mut books.node).await;
    let status = ask(&mut books).await.expect_err("a refusal");
    assert_eq!(reason(&status), expected.as_str_name(), "{status:?}");
    assert_eq!(status.code(), code_of(expected), "{status:?}");
    assert_eq!(shown(&mut books.node).await, before);
    assert_eq!(books.node.audit(WHO).await.findings, []);
    books.node.stop().await;
}

fn refund_request(movement: &str, amount: &str) -> v1::RefundRequest {
    v1::RefundRequest {
        customer: WHO.to_owned(),
        idempotency_key: fresh_key(),
        movement_id: movement.to_owned(),
        amount: amount.to_owned(),
        ..Default::default()
    }
}

fn void_request(tranche: &str) -> v1::VoidGrantRequest {
    v1::VoidGrantRequest {
        customer: WHO.to_owned(),
        wallet: "main".to_owned(),
        idempotency_key: fresh_key(),
        tranche_id: tranche.to_owned(),
        ..Default::default()
    }
}

/// Provokes: INVALID_ARGUMENT
#[tokio::test(flavor = "multi_thread")]
async fn a_refund_of_what_was_not_spent() {
    let books = books().await;
    refused(books, Reason::InvalidArgument, async |books: &mut Books| {
        let grant = books.node.movements(WHO, "main").await[0].movement_id.clone();
        books.node.ledger.refund(refund_request(&grant, "1")).await
    })
    .await;
}

/// Provokes: INVALID_AMOUNT_PRECISION
#[tokio::test(flavor = "multi_thread")]
async fn half_a_credit_of_an_asset_without_fractions() {
    refused(books().await, Reason::InvalidAmountPrecision, async |books: &mut Books| {
        books.node.debit(debit_request(WHO, "main", "0.5")).await
    })
    .await;
}

/// Provokes: AMOUNT_OVERFLOW
#[tokio::test(flavor = "multi_thread")]
async fn more_than_a_wallet_can_hold() {
    // 10^38 - 1 fits into a signed 128-bit number once, and not twice.
    let most = "9".repeat(38);
    refused(books().await, Reason::AmountOverflow, async |books: &mut Books| {
        books.node.ledger.grant(grant_request(WHO, "main", vec![tranche(&most, Purchased); 2])).await
    })
    .await;
}

/// Provokes: LIMIT_EXCEEDED
#[tokio::test(flavor = "multi_thread")]
async fn more_tranches_than_one_grant_takes() {
    refused(books().await, Reason::LimitExceeded, async |books: &mut Books| {
        books.node.ledger.grant(grant_request(WHO, "main", vec![tranche("1", Purchased); 101])).await
    })
    .await;
}

/// Provokes: INSUFFICIENT_CREDITS
#[tokio::test(flavor = "multi_thread")]
async fn a_debit_of_what_is_held() {
    // 95 less the 10 that the open hold has set aside.
    refused(books().await, Reason::InsufficientCredits, async |books: &mut Books| {
        books.node.debit(debit_request(WHO, "main", "86")).await
    })
    .await;
}

/// Provokes: NO_ELIGIBLE_TRANCHE
#[tokio::test(flavor = "multi_thread")]
async fn a_debit_that_no_tranche_may_pay() {
    refused(books().await, Reason::NoEligibleTranche, async |books: &mut Books| {
        let charge_type = v1::ChargeType::Fixed.into();
        books.node.debit(v1::DebitRequest { charge_type, ..debit_request(WHO, "calls", "1") }).await
    })
    .await;
}

/// Provokes: WALLET_FROZEN
#[tokio::test(flavor = "multi_thread")]
async fn a_debit_from_a_frozen_wallet() {
    refused(books().await, Reason::WalletFrozen, async |books: &mut Books| {
        books.node.debit(debit_request(WHO, "frozen", "1")).await
    })
    .await;
}

/// Provokes: CUSTOMER_NOT_FOUND
#[tokio::test(flavor = "multi_thread")]
async fn a_debit_of_a_customer_without_wallets() {
    refused(books().await, Reason::CustomerNotFound, async |books: &mut Books| {
        books.node.debit(debit_request("nobody", "main", "1")).await
    })
    .await;
}

/// Provokes: WALLET_NOT_FOUND
#[tokio::test(flavor = "multi_thread")]
async fn a_debit_in_an_asset_that_the_customer_has_not() {
    refused(books().await, Reason::WalletNotFound, async |books: &mut Books| {
        let payer = Some(v1::debit_request::Payer::Asset(asset(6)));
        books.node.debit(v1::DebitRequest { payer, ..debit_request(WHO, "", "1") }).await
    })
    .await;
}

/// Provokes: MOVEMENT_NOT_FOUND
#[tokio::test(flavor = "multi_thread")]
async fn a_refund_of_another_customers_movement() {
    let mut books = books().await;
    books.node.wallet_with("other", "main", vec![tranche("1", Purchased)]).await;
    refused(books, Reason::MovementNotFound, async |books: &mut Books| {
        let refund = v1::RefundRequest { customer: "other".to_owned(), ..refund_request(&books.spent, "1") };
        books.node.ledger.refund(refund).await
    })
    .await;
}

/// Provokes: HOLD_NOT_FOUND
#[tokio::test(flavor = "multi_thread")]
async fn a_capture_of_another_customers_hold() {
    let mut books = books().await;
    books.node.wallet_with("other", "main", vec![tranche("1", Purchased)]).await;
    refused(books, Reason::HoldNotFound, async |books: &mut Books| {
        let capture = capture_request("other", &books.hold, "1");
        books.node.capture(capture).await
    })
    .await;
}

/// Provokes: TRANCHE_NOT_FOUND
#[tokio::test(flavor = "multi_thread")]
async fn a_void_of_another_wallets_tranche() {
    refused(books().await, Reason::TrancheNotFound, async |books: &mut Books| {
        let void = v1::VoidGrantRequest { wallet: "calls".to_owned(), ..void_request(&books.pending) };
        books.node.ledger.void_grant(void).await
    })
    .await;
}

/// Provokes: ALREADY_EXISTS
#[tokio::test(flavor = "multi_thread")]
async fn an_external_reference_that_is_taken() {
    refused(books().await, Reason::AlreadyExists, async |books: &mut Books| {
        let again = v1::TrancheSpec { external_reference: "invoice-1".to_owned(), ..tranche("1", Purchased) };
        books.node.ledger.grant(grant_request(WHO, "main", vec![again])).await
    })
    .await;
}

/// Provokes: HOLD_EXPIRED
#[tokio::test(flavor = "multi_thread")]
async fn a_capture_after_the_time_of_the_hold() {
    let mut books = books().await;
    // What the time-out gives back is booked before the books are looked at.
    books.node.set_clock(T0 + HOUR).await;
    books.node.grant(WHO, "main", vec![expiring("1", Promotional, T0 + 2 * HOUR)]).await;
    refused(books, Reason::HoldExpired, async |books: &mut Books| {
        books.node.capture(capture_request(WHO, &books.hold, "1")).await
    })
    .await;
}

/// Provokes: HOLD_CLOSED
#[tokio::test(flavor = "multi_thread")]
async fn a_second_capture_of_a_hold() {
    refused(books().await, Reason::HoldClosed, async |books: &mut Books| {
        books.node.capture(capture_request(WHO, &books.captured, "1")).await
    })
    .await;
}

/// Provokes: TRANCHE_NOT_ACTIVE
#[tokio::test(flavor = "multi_thread")]
async fn a_void_of_what_is_spent() {
    refused(books().await, Reason::TrancheNotActive, async |books: &mut Books| {
        books.node.ledger.void_grant(void_request(&books.exhausted)).await
    })
    .await;
}

/// Provokes: WALLET_CLOSED
#[tokio::test(flavor = "multi_thread")]
async fn a_grant_to_a_closed_wallet() {
    refused(books().await, Reason::WalletClosed, async |books: &mut Books| {
        books.node.ledger.grant(grant_request(WHO, "closed", vec![tranche("1", Purchased)])).await
    })
    .await;
}

/// Provokes: WALLET_NOT_EMPTY
#[tokio::test(flavor = "multi_thread")]
async fn a_close_of_a_wallet_with_credits() {
    refused(books().await, Reason::WalletNotEmpty, async |books: &mut Books| {
        let close = v1::CloseWalletRequest {
            customer: WHO.to_owned(),
            wallet: "calls".to_owned(),
            idempotency_key: fresh_key(),
            ..Default::default()
        };
        books.node.ledger.close_wallet(close).await
    })
    .await;
}

/// Provokes: VERSION_CONFLICT
#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_a_wallet_that_was_changed_before() {
    refused(books().await, Reason::VersionConflict, async |books: &mut Books| {
        let update = v1::UpdateWalletRequest {
            customer: WHO.to_owned(),
            wallet: "main".to_owned(),
            idempotency_key: fresh_key(),
            version: Some(99),
            draw_priority: Some(1),
            ..Default::default()
        };
        books.node.ledger.update_wallet(update).await
    })
    .await;
}

/// Provokes: REFUND_EXCEEDS_DEBIT
#[tokio::test(flavor = "multi_thread")]
async fn a_refund_of_more_than_was_spent() {
    refused(books().await, Reason::RefundExceedsDebit, async |books: &mut Books| {
        let refund = refund_request(&books.spent, "6");
        books.node.ledger.refund(refund).await
    })
    .await;
}

/// Provokes: IDEMPOTENCY_KEY_REUSED
#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_stands_for_another_request() {
    let mut books = books().await;
    let first = debit_request(WHO, "main", "1");
    books.node.debit(first.clone()).await.expect("a debit");
    refused(books, Reason::IdempotencyKeyReused, async |books: &mut Books| {
        books.node.debit(v1::DebitRequest { amount: "2".to_owned(), ..first }).await
    })
    .await;
}

/// Provokes: KEY_TOO_OLD
#[tokio::test(flavor = "multi_thread")]
async fn a_debit_past_its_deadline() {
    refused(books().await, Reason::KeyTooOld, async |books: &mut Books| {
        let valid_until = Some(at(T0));
        books.node.debit(v1::DebitRequest { valid_until, ..debit_request(WHO, "main", "1") }).await
    })
    .await;
}

/// Provokes: TEST_CLOCK_OFF
#[tokio::test]
async fn a_clock_that_is_set_where_time_is_real() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = Config { data: folder.path().to_owned(), disk_reserve_mib: 0, ..Config::default() };
    let node = unserved(config).await;
    let to = Some(v1::advance_clock_request::To::Set(at(T0)));
    let status = node.node().api.advance_clock(&v1::AdvanceClockRequest { to }).expect_err("a refusal");
    assert_eq!(reason(&status), "TEST_CLOCK_OFF");
    assert_eq!(status.code(), code_of(Reason::TestClockOff));
    let now = node.node().api.clock();
    assert!(!now.test_clock && now.now.is_some_and(|now| now.seconds < at(T0).seconds), "{now:?}");
    node.close().await.expect("closed");
}
