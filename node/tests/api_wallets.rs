//! The life of a wallet over gRPC, on a test clock: changed, frozen, closed; what it refuses then, and who
//! pays instead. The core's own stories are in `ledger/tests/life_stories.rs`.

mod node_support;

use node_support::{
    DAY, Running, SECOND, T0, Write, adjust_request, as_at_first, asset, at, capture_request, close_request,
    confirm_request, create_request, debit_request, expiring, extend_request, fail_request, figures,
    freeze_request, fresh_key, grant_request, hold_request, lasting, of_receipt, pair, reason,
    refund_request, release_request, tranche, unpaid, update_request, void_request,
};
use purser_proto::v1;
use v1::HoldStatus;
use v1::TrancheKind::{Plan, Purchased};
use v1::WalletStatus::{Active, Closed, Frozen};

const WHO: &str = "acme";
const MAIN: (&str, &str) = (WHO, "main");
const MINUTE: u64 = 60 * SECOND;

/// A change of the charge scope alone.
fn scope_request(wallet: &str, scope: v1::ChargeScope) -> v1::UpdateWalletRequest {
    v1::UpdateWalletRequest {
        draw_priority: None,
        charge_scope: scope.into(),
        ..update_request(WHO, wallet, 0)
    }
}

/// A debit of all wallets of `credits/0`.
fn by_asset(amount: &str) -> v1::DebitRequest {
    let payer = Some(v1::debit_request::Payer::Asset(asset(0)));
    v1::DebitRequest { payer, ..debit_request(WHO, "", amount) }
}

/// A hold on all wallets of `credits/0`.
fn hold_by_asset(amount: &str) -> v1::HoldRequest {
    let payer = Some(v1::hold_request::Payer::Asset(asset(0)));
    v1::HoldRequest { payer, ..hold_request(WHO, "", amount) }
}

/// Debits all wallets of `credits/0`; which of them paid how much.
async fn paid(node: &mut Running, amount: &str) -> Vec<(String, String)> {
    let debit = node.debit(by_asset(amount)).await.expect("a debit");
    let draws = debit.receipt.expect("a receipt").draws.into_iter();
    draws.map(|draw| (draw.wallet, draw.amount)).collect()
}

async fn place(node: &mut Running, request: v1::HoldRequest) -> String {
    let held = node.hold(request).await.expect("a hold");
    held.hold.expect("its state").hold_id
}

/// Spends what a wallet has, and closes it.
async fn empty_and_close(node: &mut Running, wallet: &str, amount: &str) {
    node.debit(debit_request(WHO, wallet, amount)).await.expect("a debit");
    node.close(close_request(WHO, wallet)).await.expect("closed");
}

async fn not_empty(node: &mut Running) {
    let write = Write::CloseWallet(close_request(WHO, "main"));
    node.refuses(MAIN, write, "WALLET_NOT_EMPTY", &[("wallet", "main")]).await;
}

/// The ids of the wallets in one of these states, in order of creation.
async fn in_state(node: &mut Running, statuses: &[v1::WalletStatus]) -> Vec<String> {
    let statuses = statuses.iter().map(|own| i32::from(*own)).collect();
    let request = v1::ListWalletsRequest { customer: WHO.to_owned(), statuses, ..Default::default() };
    let rows = node.ledger.list_wallets(request).await.expect("wallets").into_inner().wallets;
    rows.into_iter().map(|own| own.wallet).collect()
}

/// The receipt of a life-cycle call: an operation that moves nothing.
fn moves_nothing(receipt: Option<&v1::Receipt>) {
    let receipt = of_receipt(receipt);
    assert!(receipt.operation_id.starts_with("op_"), "{receipt:?}");
    assert_eq!((receipt.movement_ids.len(), receipt.draws.len(), receipt.balances.len()), (0, 0, 0));
}

async fn sound(mut node: Running) {
    assert_eq!(node.audit(WHO).await.findings, []);
    node.stop().await;
}

// ---- changed -----------------------------------------------------------------------------------

/// Covers: UpdateWallet, GetWallet
#[tokio::test(flavor = "multi_thread")]
async fn a_wallet_is_changed_from_the_version_that_the_caller_knows() {
    let mut node = Running::start().await;
    node.wallet_with(WHO, "main", vec![tranche("5", Purchased)]).await;
    let created = node.get_wallet(WHO, "main").await;
    assert_eq!(
        (created.version, created.draw_priority, created.charge_scope()),
        (1, 100, v1::ChargeScope::Any)
    );
    let from = |version, request| v1::UpdateWalletRequest { version: Some(version), ..request };

    let updated = node.update(from(1, update_request(WHO, "main", 50))).await.expect("changed");

    moves_nothing(updated.receipt.as_ref());
    let wallet = updated.wallet.expect("the wallet");
    assert_eq!(wallet, v1::Wallet { version: 2, draw_priority: 50, ..created });
    assert_eq!(node.get_wallet(WHO, "main").await, wallet);
    for stale in [1, 3, 0, u64::MAX] {
        // Also where there is nothing to change.
        for priority in [60, 50] {
            let write = Write::UpdateWallet(from(stale, update_request(WHO, "main", priority)));
            node.refuses(MAIN, write, "VERSION_CONFLICT", &[("wallet", "main")]).await;
        }
    }

    // Nothing to change is applied, and keeps the version.
    let same = node.update(from(2, update_request(WHO, "main", 50))).await.expect("as it is");
    moves_nothing(same.receipt.as_ref());
    assert_eq!(same.wallet.expect("the wallet"), wallet);
    let same = node.update(scope_request("main", v1::ChargeScope::Any)).await.expect("as it is");
    assert_eq!(same.wallet.expect("the wallet"), wallet);
    // Whatever version it has: both at once are one change.
    let both = v1::UpdateWalletRequest {
        charge_scope: v1::ChargeScope::Fixed.into(),
        reason_code: "plan change".to_owned(),
        ..update_request(WHO, "main", 0)
    };
    let both = node.update(both).await.expect("changed").wallet.expect("the wallet");
    let fixed = v1::ChargeScope::Fixed.into();
    assert_eq!(both, v1::Wallet { version: 3, draw_priority: 0, charge_scope: fixed, ..wallet });
    let one = node.update(update_request(WHO, "main", 1_000)).await.expect("changed").wallet;
    assert_eq!(one, Some(v1::Wallet { version: 4, draw_priority: 1_000, ..both }));
    assert_eq!(node.movements(WHO, "main").await.len(), 1);
    assert_eq!(figures(&node.balance(WHO, "main").await), ["5", "0", "0", "5"]);
    sound(node).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_draw_priority_changes_who_pays_first() {
    let mut node = Running::start().await;
    for wallet in ["first", "second"] {
        node.wallet_with(WHO, wallet, vec![tranche("10", Purchased)]).await;
    }
    let by = |wallet: &str, amount: &str| (wallet.to_owned(), amount.to_owned());
    // Both have the same: by creation.
    assert_eq!(paid(&mut node, "4").await, [by("first", "4")]);
    node.update(update_request(WHO, "second", 99)).await.expect("changed");
    assert_eq!(paid(&mut node, "4").await, [by("second", "4")]);
    node.update(update_request(WHO, "first", 99)).await.expect("changed");
    assert_eq!(paid(&mut node, "1").await, [by("first", "1")]);
    node.update(update_request(WHO, "first", 1_000)).await.expect("changed");
    assert_eq!(paid(&mut node, "7").await, [by("second", "6"), by("first", "1")]);
    // A hold pins in the same order.
    node.grant(WHO, "second", vec![tranche("3", Purchased)]).await;
    let id = place(&mut node, hold_by_asset("5")).await;
    assert_eq!(node.get_hold(WHO, &id).await.wallets, ["second", "first"]);
    node.update(update_request(WHO, "first", 0)).await.expect("changed");
    // What was pinned is captured as it was pinned.
    let captured = node.capture(capture_request(WHO, &id, "4")).await.expect("a capture");
    let draws = captured.receipt.expect("a receipt").draws;
    let draws: Vec<_> = draws.into_iter().map(|own| (own.wallet, own.amount)).collect();
    assert_eq!(draws, [by("second", "3"), by("first", "1")]);
    // The list stays in order of creation.
    assert_eq!(in_state(&mut node, &[]).await, ["first", "second"]);
    sound(node).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_scope_decides_what_is_paid_from_then_on_and_leaves_what_is_held() {
    let mut node = Running::start().await;
    node.wallet_with(WHO, "main", vec![tranche("10", Purchased)]).await;
    node.wallet_with(WHO, "other", vec![tranche("10", Purchased)]).await;
    let hold = place(&mut node, hold_request(WHO, "main", "3")).await;
    let usage = |request| v1::DebitRequest { charge_type: v1::ChargeType::Usage.into(), ..request };
    let fixed = |request| v1::DebitRequest { charge_type: v1::ChargeType::Fixed.into(), ..request };

    node.update(scope_request("main", v1::ChargeScope::Usage)).await.expect("changed");

    let named = [("customer", WHO), ("wallet", "main")];
    for request in [debit_request(WHO, "main", "1"), fixed(debit_request(WHO, "main", "1"))] {
        node.refuses(MAIN, Write::Debit(request), "NO_ELIGIBLE_TRANCHE", &named).await;
    }
    let write = Write::Hold(hold_request(WHO, "main", "1"));
    node.refuses(MAIN, write, "NO_ELIGIBLE_TRANCHE", &named).await;
    node.debit(usage(debit_request(WHO, "main", "1"))).await.expect("a debit");
    // By asset it is passed over where it does not fit.
    assert_eq!(paid(&mut node, "1").await, [("other".to_owned(), "1".to_owned())]);
    let debit = node.debit(usage(by_asset("1"))).await.expect("a debit");
    assert_eq!(of_receipt(debit.receipt.as_ref()).draws[0].wallet, "main");
    // The hold charges for nothing stated: no excess, but what it has set aside.
    let write = Write::Capture(capture_request(WHO, &hold, "4"));
    node.refuses(MAIN, write, "NO_ELIGIBLE_TRANCHE", &[]).await;
    let captured = node.capture(capture_request(WHO, &hold, "2")).await.expect("a capture");
    assert_eq!((captured.amount.as_str(), captured.released.as_str()), ("2", "1"));

    node.update(scope_request("main", v1::ChargeScope::Any)).await.expect("changed");
    node.debit(debit_request(WHO, "main", "1")).await.expect("a debit");
    assert_eq!(figures(&node.balance(WHO, "main").await), ["5", "0", "0", "5"]);
    assert_eq!(node.get_wallet(WHO, "main").await.version, 3);
    sound(node).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wallet_whose_scope_does_not_fit_says_that_nothing_is_there_for_the_charge() {
    let mut node = Running::start().await;
    node.wallet_with(WHO, "main", vec![tranche("10", Purchased)]).await;
    node.update(scope_request("main", v1::ChargeScope::Usage)).await.expect("changed");
    let write = Write::Debit(debit_request(WHO, "main", "1"));
    node.refuses(MAIN, write, "NO_ELIGIBLE_TRANCHE", &[("wallet", "main")]).await;
    sound(node).await;
}

// ---- frozen ------------------------------------------------------------------------------------

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_wallet_lets_grants_live_on_and_books_what_is_due() {
    let mut node = Running::start().await;
    node.create(create_request(WHO, "main", 0)).await;
    let specs = vec![
        unpaid("1", Purchased),
        unpaid("2", Purchased),
        tranche("4", Purchased),
        expiring("8", Plan, T0 + MINUTE),
        v1::TrancheSpec { effective_at: Some(at(T0 + MINUTE)), ..tranche("16", Purchased) },
    ];
    let granted = node.grant(WHO, "main", specs).await;
    let id = |place: usize| granted.tranches[place].tranche_id.as_str();
    let frozen =
        node.ledger.freeze_wallet(freeze_request(WHO, "main", true)).await.expect("frozen").into_inner();
    moves_nothing(frozen.receipt.as_ref());
    let wallet = frozen.wallet.expect("the wallet");
    assert_eq!(wallet.status(), Frozen);
    assert_eq!(node.get_wallet(WHO, "main").await, wallet);
    // Frozen again it stays as it is.
    let again =
        node.ledger.freeze_wallet(freeze_request(WHO, "main", true)).await.expect("frozen").into_inner();
    assert_eq!(again.wallet.expect("the wallet"), wallet);

    node.confirm(confirm_request(WHO, "main", id(0))).await.expect("confirmed");
    node.fail(fail_request(WHO, "main", id(1))).await.expect("failed");
    node.void(void_request(WHO, "main", id(2))).await.expect("voided");
    node.grant(WHO, "main", vec![tranche("32", Purchased)]).await;
    node.update(update_request(WHO, "main", 7)).await.expect("changed");
    assert_eq!(figures(&node.balance(WHO, "main").await), ["41", "0", "16", "41"]);
    node.set_clock(T0 + MINUTE).await;
    assert_eq!(figures(&node.balance(WHO, "main").await), ["49", "0", "0", "49"]);
    // Books what is due: the expiry, then the activation.
    node.grant(WHO, "main", vec![tranche("64", Purchased)]).await;
    let amounts: Vec<_> = node.movements(WHO, "main").await.into_iter().map(|own| own.amount).collect();
    assert_eq!(amounts[amounts.len() - 3..], ["-8", "16", "64"]);
    for write in [Write::Debit(debit_request(WHO, "main", "1")), Write::Hold(hold_request(WHO, "main", "1"))]
    {
        node.refuses(MAIN, write, "WALLET_FROZEN", &[("wallet", "main")]).await;
    }

    let thaw = || freeze_request(WHO, "main", false);
    let thawed = node.ledger.freeze_wallet(thaw()).await.expect("thawed").into_inner();
    let wallet = thawed.wallet.expect("the wallet");
    assert_eq!((wallet.status(), wallet.draw_priority), (Active, 7));
    let again = node.ledger.freeze_wallet(thaw()).await.expect("thawed").into_inner();
    assert_eq!(again.wallet.expect("the wallet"), wallet);
    assert_eq!(node.debit(debit_request(WHO, "main", "113")).await.expect("all of it").remaining, "0");
    sound(node).await;
}

// ---- closed ------------------------------------------------------------------------------------

#[tokio::test(flavor = "multi_thread")]
async fn a_wallet_does_not_close_while_anything_is_in_it() {
    let mut node = Running::start().await;
    node.wallet_with(WHO, "main", vec![tranche("10", Purchased)]).await;
    // Available.
    let denied = close_request(WHO, "main");
    let refused = node.refused(Write::CloseWallet(denied.clone())).await;
    assert_eq!(reason(&refused), "WALLET_NOT_EMPTY");
    not_empty(&mut node).await;
    // Held.
    let hold = place(&mut node, hold_request(WHO, "main", "10")).await;
    not_empty(&mut node).await;
    // Open, with nothing left.
    let all = v1::CaptureRequest { keep_open: true, ..capture_request(WHO, &hold, "") };
    node.capture(all).await.expect("all of it");
    assert_eq!(figures(&node.balance(WHO, "main").await), ["0", "0", "0", "0"]);
    not_empty(&mut node).await;
    node.release(release_request(WHO, &hold)).await.expect("a release");
    // Waiting for its invoice.
    let granted = node.grant(WHO, "main", vec![unpaid("1", Purchased)]).await;
    not_empty(&mut node).await;
    node.fail(fail_request(WHO, "main", &granted.tranches[0].tranche_id)).await.expect("failed");
    // Waiting for its time.
    let ahead = v1::TrancheSpec { effective_at: Some(at(T0 + DAY)), ..tranche("1", Purchased) };
    let granted = node.grant(WHO, "main", vec![ahead]).await;
    not_empty(&mut node).await;
    node.void(void_request(WHO, "main", &granted.tranches[0].tranche_id)).await.expect("voided");
    // A hold that has timed out, and credits that have expired, are no more: booked or not.
    node.grant(WHO, "main", vec![expiring("3", Plan, T0 + MINUTE)]).await;
    let short = v1::HoldRequest { ttl: Some(lasting(MINUTE)), ..hold_request(WHO, "main", "2") };
    place(&mut node, short).await;
    not_empty(&mut node).await;
    node.set_clock(T0 + MINUTE).await;
    let before = node.get_wallet(WHO, "main").await;

    let closed = node.close(close_request(WHO, "main")).await.expect("closed");

    moves_nothing(closed.receipt.as_ref());
    let wallet = closed.wallet.expect("the wallet");
    assert_eq!(wallet.status(), Closed);
    assert_eq!(v1::Wallet { status: before.status, version: before.version, ..wallet.clone() }, before);
    assert_eq!(node.get_wallet(WHO, "main").await, wallet);
    assert_eq!(figures(&node.balance(WHO, "main").await), ["0", "0", "0", "0"]);
    // The verdict of then stands under its key.
    let again = node.refused(Write::CloseWallet(denied)).await;
    assert_eq!((reason(&again).as_str(), pair(&again, "replayed").as_str()), ("WALLET_NOT_EMPTY", "true"));
    sound(node).await;
}

/// Covers: CloseWallet, ListWallets
#[tokio::test(flavor = "multi_thread")]
async fn a_closed_wallet_refuses_everything_and_its_books_stay_readable() {
    let mut node = Running::start().await;
    node.wallet_with(WHO, "main", vec![tranche("10", Purchased)]).await;
    let granted = node.grant(WHO, "main", vec![unpaid("5", Plan)]).await;
    let unpaid_one = granted.tranches[0].tranche_id.clone();
    node.fail(fail_request(WHO, "main", &unpaid_one)).await.expect("failed");
    let hold = place(&mut node, hold_request(WHO, "main", "4")).await;
    let captured = node.capture(capture_request(WHO, &hold, "4")).await.expect("a capture");
    let capture = of_receipt(captured.receipt.as_ref()).movement_ids[0].clone();
    let debit = node.debit(debit_request(WHO, "main", "6")).await.expect("a debit");
    let spent = of_receipt(debit.receipt.as_ref()).movement_ids[0].clone();
    // A frozen one may be closed.
    node.freeze(WHO, "main", true).await;
    let movements = node.movements(WHO, "main").await;
    let tranches = node.tranches(WHO, "main").await;

    node.close(close_request(WHO, "main")).await.expect("closed");

    let nowhere = "trn_0000000000000";
    for write in [
        Write::Debit(debit_request(WHO, "main", "1")),
        Write::Hold(hold_request(WHO, "main", "1")),
        Write::Grant(grant_request(WHO, "main", vec![tranche("1", Purchased)])),
        Write::Grant(grant_request(WHO, "main", vec![unpaid("1", Purchased)])),
        Write::Confirm(confirm_request(WHO, "main", &unpaid_one)),
        Write::Fail(fail_request(WHO, "main", &unpaid_one)),
        Write::Void(void_request(WHO, "main", &tranches[0].tranche_id)),
        // Closed comes before what is judged of a tranche, of a version, of an amount.
        Write::Void(void_request(WHO, "main", nowhere)),
        Write::Adjust(v1::AdjustRequest {
            tranche_id: nowhere.to_owned(),
            ..adjust_request(WHO, "main", "-1")
        }),
        Write::UpdateWallet(v1::UpdateWalletRequest { version: Some(77), ..update_request(WHO, "main", 1) }),
        Write::Debit(debit_request(WHO, "main", "0.001")),
        Write::Adjust(adjust_request(WHO, "main", "1")),
        Write::Adjust(adjust_request(WHO, "main", "-1")),
        Write::UpdateWallet(update_request(WHO, "main", 1)),
        Write::FreezeWallet(freeze_request(WHO, "main", true)),
        Write::FreezeWallet(freeze_request(WHO, "main", false)),
        Write::CloseWallet(close_request(WHO, "main")),
    ] {
        node.refuses(MAIN, write, "WALLET_CLOSED", &[("wallet", "main")]).await;
    }
    for movement in [&spent, &capture] {
        let pairs = [("customer", WHO), ("movement", movement.as_str())];
        let write = Write::Refund(refund_request(WHO, movement, "1"));
        node.refuses(MAIN, write, "WALLET_CLOSED", &pairs).await;
    }
    let explain = v1::ExplainRequest { debit: Some(debit_request(WHO, "main", "1")) };
    let explained = node.ledger.explain(explain).await.expect("an answer").into_inner();
    assert_eq!(explained.refusal.expect("a refusal").reason, "WALLET_CLOSED");
    // A hold that it took part in is judged as the hold is.
    for write in [
        Write::Capture(capture_request(WHO, &hold, "1")),
        Write::Release(release_request(WHO, &hold)),
        Write::Extend(extend_request(WHO, &hold, MINUTE)),
    ] {
        node.refuses(MAIN, write, "HOLD_CLOSED", &[("customer", WHO), ("hold", &hold)]).await;
    }
    // Its id stays taken.
    for scale in [0, 2] {
        let write = Write::CreateWallet(create_request(WHO, "main", scale));
        node.refuses(MAIN, write, "ALREADY_EXISTS", &[("wallet", "main")]).await;
    }

    assert_eq!(node.movements(WHO, "main").await, movements);
    assert_eq!(node.tranches(WHO, "main").await, tranches);
    assert_eq!(node.get_wallet(WHO, "main").await.status(), Closed);
    assert_eq!(node.get_hold(WHO, &hold).await.state.expect("its state").status(), HoldStatus::Captured);
    let all = v1::GetBalanceRequest { customer: WHO.to_owned(), ..Default::default() };
    let all = node.ledger.get_balance(all).await.expect("balances").into_inner();
    assert_eq!((all.wallets.len(), figures(&all.totals[0])), (1, ["0", "0", "0", "0"]));
    sound(node).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refund_refused_for_a_closed_wallet_names_its_movement() {
    let mut node = Running::start().await;
    node.wallet_with(WHO, "main", vec![tranche("6", Purchased)]).await;
    let debit = node.debit(debit_request(WHO, "main", "6")).await.expect("a debit");
    let spent = of_receipt(debit.receipt.as_ref()).movement_ids[0].clone();
    node.close(close_request(WHO, "main")).await.expect("closed");
    let write = Write::Refund(refund_request(WHO, &spent, ""));
    node.refuses(MAIN, write, "WALLET_CLOSED", &[("movement", &spent)]).await;
    sound(node).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn by_asset_a_closed_wallet_is_passed_over_until_no_other_is_left() {
    let mut node = Running::start().await;
    for wallet in ["first", "main", "third"] {
        node.wallet_with(WHO, wallet, vec![tranche("10", Purchased)]).await;
    }
    node.create(create_request(WHO, "cents", 2)).await;
    node.grant(WHO, "cents", vec![tranche("1", Purchased)]).await;
    empty_and_close(&mut node, "first", "10").await;

    let debit = node.debit(by_asset("12")).await.expect("a debit");

    let receipt = of_receipt(debit.receipt.as_ref());
    let draws: Vec<_> = receipt.draws.iter().map(|own| (own.wallet.as_str(), own.amount.as_str())).collect();
    assert_eq!((draws, debit.remaining.as_str()), (vec![("main", "10"), ("third", "2")], "8"));
    let balances: Vec<_> = receipt.balances.iter().map(|own| own.wallet.as_str()).collect();
    assert_eq!(balances, ["main", "third"]);
    let hold = place(&mut node, hold_by_asset("1")).await;
    assert_eq!(node.get_hold(WHO, &hold).await.wallets, ["third"]);
    // It took no part in the hold: it may be closed, and no excess is asked of it.
    node.close(close_request(WHO, "main")).await.expect("closed");
    let beyond = node.capture(capture_request(WHO, &hold, "3")).await.expect("1, and 2 more");
    let wallets: Vec<_> =
        of_receipt(beyond.receipt.as_ref()).draws.iter().map(|own| own.wallet.as_str()).collect();
    assert_eq!((wallets, beyond.remaining.as_str()), (vec!["third", "third"], "5"));

    assert_eq!(in_state(&mut node, &[Closed]).await, ["first", "main"]);
    assert_eq!(in_state(&mut node, &[Active]).await, ["third", "cents"]);
    node.freeze(WHO, "third", true).await;
    assert_eq!(in_state(&mut node, &[Closed, Frozen]).await, ["first", "main", "third"]);
    let asked = [("customer", WHO), ("asset", "credits/0")];
    for write in [Write::Debit(by_asset("1")), Write::Hold(hold_by_asset("1"))] {
        node.refuses((WHO, "third"), write, "WALLET_FROZEN", &asked).await;
    }
    node.freeze(WHO, "third", false).await;
    assert_eq!(paid(&mut node, "5").await, [("third".to_owned(), "5".to_owned())]);
    node.close(close_request(WHO, "third")).await.expect("closed");
    for write in [Write::Debit(by_asset("1")), Write::Hold(hold_by_asset("1"))] {
        node.refuses((WHO, "third"), write, "WALLET_CLOSED", &asked).await;
    }
    // A new one pays again, and another asset never knew.
    node.wallet_with(WHO, "fourth", vec![tranche("3", Purchased)]).await;
    assert_eq!(paid(&mut node, "3").await, [("fourth".to_owned(), "3".to_owned())]);
    node.debit(debit_request(WHO, "cents", "1")).await.expect("a debit");
    sound(node).await;
}

// ---- refusals and keys -------------------------------------------------------------------------

#[tokio::test(flavor = "multi_thread")]
async fn a_wallet_that_is_not_there_is_neither_changed_nor_closed() {
    let mut node = Running::start().await;
    node.wallet_with(WHO, "main", vec![tranche("1", Purchased)]).await;
    node.create(create_request("bob", "bobs", 0)).await;
    for (customer, wallet, expected) in [
        (WHO, "none", "WALLET_NOT_FOUND"),
        (WHO, "bobs", "WALLET_NOT_FOUND"),
        ("nobody", "main", "CUSTOMER_NOT_FOUND"),
    ] {
        let pairs: &[_] = match expected {
            "WALLET_NOT_FOUND" => &[("customer", customer), ("wallet", wallet)],
            _ => &[("customer", customer)],
        };
        for write in [
            Write::UpdateWallet(update_request(customer, wallet, 1)),
            Write::UpdateWallet(v1::UpdateWalletRequest {
                version: Some(77),
                ..update_request(customer, wallet, 1)
            }),
            Write::FreezeWallet(freeze_request(customer, wallet, true)),
            Write::CloseWallet(close_request(customer, wallet)),
        ] {
            node.refuses(MAIN, write, expected, pairs).await;
        }
    }
    assert_eq!(node.get_wallet("bob", "bobs").await.status(), Active);
    sound(node).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_key_gets_the_wallet_as_it_was_then() {
    let mut node = Running::start().await;
    node.create(create_request(WHO, "main", 0)).await;
    let update = v1::UpdateWalletRequest { version: Some(1), ..update_request(WHO, "main", 5) };
    let updated = node.update(update.clone()).await.expect("changed");
    let freeze = freeze_request(WHO, "main", true);
    let frozen = node.ledger.freeze_wallet(freeze.clone()).await.expect("frozen").into_inner();
    let second = scope_request("main", v1::ChargeScope::Usage);
    let narrowed = node.update(second.clone()).await.expect("changed");
    let close = close_request(WHO, "main");
    let closed = node.close(close.clone()).await.expect("closed");
    node.set_clock(T0 + MINUTE).await;
    let before = node.books(WHO, "main").await;

    for (request, first) in [(&update, &updated), (&second, &narrowed)] {
        let mut again = node.update(request.clone()).await.expect("the answer of then");
        as_at_first(&mut again.receipt, &first.receipt);
        assert_eq!(again, *first);
    }
    assert_eq!(updated.wallet.expect("the wallet").status(), Active);
    let mut again = node.ledger.freeze_wallet(freeze.clone()).await.expect("the answer of then").into_inner();
    as_at_first(&mut again.receipt, &frozen.receipt);
    assert_eq!(again, frozen);
    let mut again = node.close(close.clone()).await.expect("the answer of then");
    as_at_first(&mut again.receipt, &closed.receipt);
    assert_eq!(again, closed);

    let key = close.idempotency_key.clone();
    let reused = [
        Write::UpdateWallet(v1::UpdateWalletRequest { version: None, ..update.clone() }),
        Write::UpdateWallet(v1::UpdateWalletRequest { version: Some(2), ..update.clone() }),
        Write::UpdateWallet(v1::UpdateWalletRequest { draw_priority: Some(6), ..update.clone() }),
        Write::UpdateWallet(v1::UpdateWalletRequest {
            charge_scope: v1::ChargeScope::Any.into(),
            ..update.clone()
        }),
        Write::UpdateWallet(v1::UpdateWalletRequest { reason_code: "other".to_owned(), ..update }),
        Write::FreezeWallet(v1::FreezeWalletRequest { frozen: false, ..freeze }),
        Write::CloseWallet(v1::CloseWalletRequest { wallet: "other".to_owned(), ..close.clone() }),
        Write::CloseWallet(v1::CloseWalletRequest { reason_code: "other".to_owned(), ..close }),
        // Another operation.
        Write::FreezeWallet(v1::FreezeWalletRequest {
            idempotency_key: key,
            ..freeze_request(WHO, "main", false)
        }),
    ];
    for write in reused {
        let refused = node.refused(write).await;
        let expected = (tonic::Code::FailedPrecondition, "IDEMPOTENCY_KEY_REUSED".to_owned());
        assert_eq!((refused.code(), reason(&refused)), expected);
    }
    assert_eq!(node.books(WHO, "main").await, before);
    sound(node).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stale_version_stays_a_conflict_under_its_key() {
    let mut node = Running::start().await;
    node.create(create_request(WHO, "main", 0)).await;
    let stale = v1::UpdateWalletRequest { version: Some(2), ..update_request(WHO, "main", 5) };
    let refused = node.refused(Write::UpdateWallet(stale.clone())).await;
    assert_eq!(
        (reason(&refused).as_str(), pair(&refused, "replayed").as_str()),
        ("VERSION_CONFLICT", "false")
    );
    // By now it would fit.
    node.update(update_request(WHO, "main", 6)).await.expect("changed");
    let again = node.refused(Write::UpdateWallet(stale.clone())).await;
    assert_eq!((reason(&again).as_str(), pair(&again, "replayed").as_str()), ("VERSION_CONFLICT", "true"));
    let fresh = v1::UpdateWalletRequest { idempotency_key: fresh_key(), ..stale };
    let wallet = node.update(fresh).await.expect("a new attempt").wallet.expect("the wallet");
    assert_eq!((wallet.version, wallet.draw_priority), (3, 5));
    sound(node).await;
}
