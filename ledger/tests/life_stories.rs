//! Stories of a grant's life, of refunds, corrections and of wallets that change and end, each with
//! values worked out by hand from the specification.

mod story;

use purser_ledger::command::{
    Adjust, Change, ChargeScope, CloseWallet, ConfirmGrant, EndGrant, Expiry, GrantEnd, Hold, Operation,
    Payer, Refund, Release, TrancheSpec, UpdateWallet,
};
use purser_ledger::ids::{HoldId, RecordId, TrancheId};
use purser_ledger::query::{self, TrancheStatus};
use purser_ledger::rows::journal::MovementKind::{
    self, Adjusted, Consumed, Expired, Granted, Held, Refunded, Released, Voided,
};
use purser_ledger::time::{Span, Time};
use purser_ledger::verdict::{Effect, Posted, Reason, Reply};
use story::*;

/// Draws as the stories tell them.
type Draws = Vec<(usize, i128, i128)>;

fn end<'a>(wallet: &'a str, end: GrantEnd, tranche: TrancheId) -> Operation<'a> {
    let (reason_code, reference, metadata) = ("story", "", Vec::new());
    Operation::EndGrant(EndGrant { end, wallet, tranche, reason_code, reference, metadata })
}

fn void(wallet: &str, tranche: TrancheId) -> Operation<'_> {
    end(wallet, GrantEnd::Voided, tranche)
}

fn confirm_with<'a>(
    wallet: &'a str,
    tranche: TrancheId,
    expiry: Option<Expiry<'a>>,
    lifetime: Option<Time>,
) -> Operation<'a> {
    let (reason_code, reference, metadata) = ("", "", Vec::new());
    Operation::ConfirmGrant(ConfirmGrant {
        wallet,
        tranche,
        expiry,
        lifetime,
        reason_code,
        reference,
        metadata,
    })
}

fn confirm(wallet: &str, tranche: TrancheId) -> Operation<'_> {
    confirm_with(wallet, tranche, None, None)
}

fn refund_of(movement: RecordId, amount: Option<&str>, grace: Option<u64>) -> Operation<'static> {
    let (amount, grace) = (amount.map(decimal), grace.map(Span));
    let (reason_code, reference, metadata) = ("", "", Vec::new());
    Operation::Refund(Refund { movement, amount, grace, reason_code, reference, metadata })
}

fn refund(movement: RecordId, amount: &str) -> Operation<'static> {
    refund_of(movement, Some(amount), None)
}

fn adjust<'a>(wallet: &'a str, change: Change<'a>) -> Operation<'a> {
    let (reason_code, reference, metadata) = ("story", "", Vec::new());
    Operation::Adjust(Adjust { wallet, change, reason_code, reference, metadata })
}

fn up<'a>(wallet: &'a str, amount: &str) -> Operation<'a> {
    adjust(wallet, Change::Up { amount: decimal(amount), expiry: Expiry::Never })
}

fn down<'a>(wallet: &'a str, amount: &str, tranche: Option<TrancheId>) -> Operation<'a> {
    adjust(wallet, Change::Down { amount: decimal(amount), tranche })
}

fn close(wallet: &str) -> Operation<'_> {
    Operation::CloseWallet(CloseWallet { wallet, reason_code: "" })
}

fn hold<'a>(wallet: &'a str, amount: &str) -> Operation<'a> {
    Operation::Hold(Hold {
        payer: Payer::Wallet(wallet),
        amount: decimal(amount),
        ttl: None,
        charge_type: None,
        feature: None,
        reason_code: "",
        reference: "",
        metadata: Vec::new(),
    })
}

fn release(hold: HoldId) -> Operation<'static> {
    Operation::Release(Release { hold, reason_code: "", reference: "", metadata: Vec::new() })
}

fn hold_of(effect: &Effect) -> HoldId {
    match effect {
        Effect::Posted { hold: Some(hold), .. } => hold.0,
        other => panic!("no hold: {other:?}"),
    }
}

/// Each movement of an answer: its kind, its amount, its draws.
fn moves(ledger: &Ledger, effect: &Effect) -> Vec<(MovementKind, i128, Draws)> {
    let draws = |own: &Posted| {
        let draws = own.draws.iter();
        draws.map(|draw| (ledger.place(draw.tranche), draw.amount.0, draw.left.0)).collect()
    };
    movements_of(effect).iter().map(|own| (own.kind, own.amount.0, draws(own))).collect()
}

/// Available, held, pending, settled.
fn figures(ledger: &Ledger, wallet: &str) -> (i128, i128, i128, i128) {
    let balance = ledger.balance(wallet);
    (balance.available.0, balance.held.0, balance.pending.0, balance.settled().0)
}

/// Of each tranche: its status, and what of it is available, held, consumed, expired, voided.
fn tranches(ledger: &Ledger, wallet: &str) -> Vec<(TrancheStatus, [i128; 5])> {
    let views = query::tranches(&ledger.store, ANN, wallet, Time(ledger.now), None, false, 100);
    let line = |own: query::TrancheView| {
        let parts = [own.available, own.held, own.consumed, own.expired, own.voided];
        (own.status, parts.map(|part| part.0))
    };
    views.expect("a wallet").into_iter().map(line).collect()
}

fn movement_of(effect: &Effect) -> RecordId {
    movements_of(effect).last().expect("a movement").id
}

fn spent(ledger: &mut Ledger, operation: Operation<'_>) -> RecordId {
    movement_of(&ledger.applied(operation))
}

// ---- pending grants ---------------------------------------------------------------------------

#[test]
fn a_pending_grant_pays_nothing_until_it_is_confirmed() {
    let mut ledger = Ledger::with_wallets(&["main"]);
    ledger.applied(grant("main", &[pending(credit("10"))]));
    let id = ledger.tranches[0];
    assert_eq!(figures(&ledger, "main"), (0, 0, 10, 0));
    assert_eq!(ledger.denied(debit("main", "1")), short(0, 1));
    let open = query::open_tranches(&ledger.store, ANN, "main", Time(1_000)).expect("readable");
    assert_eq!(open.iter().map(|own| (own.id, own.pending.0)).collect::<Vec<_>>(), [(id, 10)]);

    let confirmed = ledger.applied(confirm("main", id));

    assert_eq!(moves(&ledger, &confirmed), [(Granted, 10, vec![(0, 10, 10)])]);
    assert_eq!(figures(&ledger, "main"), (10, 0, 0, 10));
    assert_eq!(ledger.denied(confirm("main", id)), because(Reason::TrancheNotActive));
    assert_eq!(ledger.denied(confirm("main", TrancheId(7))), because(Reason::TrancheNotFound));
    ledger.assert_audit_is_clean("main");
}

#[test]
fn a_pending_grant_does_not_expire_but_is_confirmed_too_late_without_a_new_expiry() {
    let mut ledger = Ledger::with_wallets(&["main"]);
    ledger.applied(grant("main", &[pending(until(1_500, credit("10")))]));
    let id = ledger.tranches[0];
    ledger.now = 1_500;
    assert_eq!(ledger.sweep(10), Reply::Swept { booked: 0, more: false });
    assert_eq!(ledger.denied(confirm("main", id)), because(Reason::TrancheNotActive));
    let past = Some(Expiry::At(Time(1_500)));
    assert_eq!(ledger.denied(confirm_with("main", id, past, None)), because(Reason::InvalidArgument));
    assert_eq!(figures(&ledger, "main"), (0, 0, 10, 0));

    ledger.applied(confirm_with("main", id, Some(Expiry::At(Time(1_600))), None));

    assert_eq!(ledger.available("main"), 10);
    ledger.now = 1_600;
    assert_eq!(tranches(&ledger, "main"), [(TrancheStatus::Expired, [0, 0, 0, 10, 0])]);
    assert_eq!(figures(&ledger, "main"), (0, 0, 0, 0));
}

#[test]
fn a_lifetime_counts_from_the_confirmation() {
    let mut ledger = Ledger::with_wallets(&["main"]);
    let span = Expiry::After { span: "P1D", zone: "UTC", resolved: Time(1_200) };
    ledger.applied(grant("main", &[TrancheSpec { expiry: span, ..pending(credit("10")) }]));
    let id = ledger.tranches[0];
    let row = query::tranche(&ledger.store, ANN, "main", Time(1_000), id).expect("readable").expect("there");
    assert_eq!(row.tranche.lifetime, Some(("P1D".to_owned(), "UTC".to_owned())));
    ledger.now = 5_000;
    let unresolved = ledger.send(&under("confirm", 6_000, confirm_with("main", id, None, None)));
    assert_eq!(unresolved, Reply::Backlog, "a leader that did not know of it when it took the command");
    // The leader resolves it from then.
    ledger.applied(confirm_with("main", id, None, Some(Time(5_200))));
    ledger.now = 5_199;
    assert_eq!(ledger.available("main"), 10);
    ledger.now = 5_200;
    assert_eq!(ledger.available("main"), 0);
}

#[test]
fn a_confirmed_grant_with_a_future_beginning_is_scheduled() {
    let mut ledger = Ledger::with_wallets(&["main"]);
    ledger.applied(grant("main", &[pending(from(2_000, credit("10")))]));
    let id = ledger.tranches[0];
    let command = under("confirm", 1_100, confirm("main", id));
    let confirmed = effect_of(ledger.send(&command));
    assert_eq!(moves(&ledger, &confirmed), []);
    assert_eq!(figures(&ledger, "main"), (0, 0, 10, 0));
    assert_eq!(tranches(&ledger, "main"), [(TrancheStatus::Scheduled, [0; 5])]);
    assert_eq!(effect_of(ledger.send(&command)), confirmed, "the first answer again");
    ledger.now = 2_000;
    assert_eq!(ledger.available("main"), 10);
    assert_eq!(ledger.drawn(debit("main", "4")), [(0, 4, 6)]);
    ledger.assert_audit_is_clean("main");
}

#[test]
fn a_failed_grant_is_gone_and_its_reference_stays_taken() {
    let mut ledger = Ledger::with_wallets(&["main"]);
    let invoice = TrancheSpec { external_reference: "invoice-1", ..pending(credit("10")) };
    ledger.applied(grant("main", std::slice::from_ref(&invoice)));
    let id = ledger.tranches[0];

    let failed = ledger.applied(end("main", GrantEnd::Failed, id));

    assert_eq!(moves(&ledger, &failed), [(Voided, 0, vec![(0, 10, 0)])]);
    assert_eq!(figures(&ledger, "main"), (0, 0, 0, 0));
    assert_eq!(tranches(&ledger, "main"), [(TrancheStatus::Failed, [0, 0, 0, 0, 10])]);
    assert_eq!(ledger.denied(grant("main", &[invoice])), because(Reason::AlreadyExists));
    assert_eq!(ledger.denied(confirm("main", id)), because(Reason::TrancheNotActive));
    ledger.applied(grant("main", &[credit("1")]));
    let active = ledger.tranches[1];
    assert_eq!(ledger.denied(end("main", GrantEnd::Failed, active)), because(Reason::TrancheNotActive));
    ledger.assert_audit_is_clean("main");
}

// ---- voids ------------------------------------------------------------------------------------

#[test]
fn a_void_withdraws_what_is_left_and_leaves_what_was_spent() {
    let mut ledger = Ledger::with_wallets(&["main"]);
    ledger.applied(grant("main", &[credit("10"), from(2_000, credit("5")), pending(credit("7"))]));
    ledger.applied(debit("main", "4"));
    let [first, second, third] = [0, 1, 2].map(|place| ledger.tranches[place]);

    let voided = ledger.applied(void("main", first));

    assert_eq!(moves(&ledger, &voided), [(Voided, -6, vec![(0, 6, 0)])]);
    assert_eq!(figures(&ledger, "main"), (0, 0, 12, 0));
    let voided = ledger.applied(void("main", second));
    assert_eq!(moves(&ledger, &voided), [(Voided, 0, vec![(1, 5, 0)])]);
    ledger.applied(void("main", third));
    assert_eq!(figures(&ledger, "main"), (0, 0, 0, 0));
    ledger.now = 2_000;
    let ended = TrancheStatus::Voided;
    let expected = [(ended, [0, 0, 4, 0, 6]), (ended, [0, 0, 0, 0, 5]), (ended, [0, 0, 0, 0, 7])];
    assert_eq!(tranches(&ledger, "main"), expected);
    assert_eq!(ledger.denied(void("main", first)), because(Reason::TrancheNotActive));
    ledger.assert_audit_is_clean("main");
}

#[test]
fn an_exhausted_or_expired_tranche_cannot_be_voided() {
    let mut ledger = Ledger::with_wallets(&["main"]);
    ledger.applied(grant("main", &[until(1_500, credit("10")), credit("5")]));
    ledger.applied(debit("main", "15"));
    assert_eq!(ledger.denied(void("main", ledger.tranches[1])), because(Reason::TrancheNotActive));
    ledger.applied(grant("main", &[until(1_500, credit("1"))]));
    ledger.now = 1_500;
    assert_eq!(ledger.denied(void("main", ledger.tranches[2])), because(Reason::TrancheNotActive));
}

#[test]
fn what_is_held_of_a_voided_tranche_may_be_captured_and_is_withdrawn_when_released() {
    let mut ledger = Ledger::with_wallets(&["main"]);
    ledger.applied(grant("main", &[credit("10")]));
    let held = ledger.applied(hold("main", "6"));
    let hold = hold_of(&held);
    ledger.applied(void("main", ledger.tranches[0]));
    assert_eq!(figures(&ledger, "main"), (0, 6, 0, 6));

    let released = ledger.applied(release(hold));

    assert_eq!(moves(&ledger, &released), [(Voided, -6, vec![(0, 6, 0)])]);
    assert_eq!(figures(&ledger, "main"), (0, 0, 0, 0));
    assert_eq!(tranches(&ledger, "main"), [(TrancheStatus::Voided, [0, 0, 0, 0, 10])]);
    let kinds: Vec<_> = ledger.lines("main").into_iter().map(|(kind, amount, ..)| (kind, amount)).collect();
    assert_eq!(kinds, [(Granted, 10), (Held, 0), (Voided, -4), (Voided, -6)]);
    ledger.assert_audit_is_clean("main");
}

#[test]
fn a_tranche_beyond_the_first_eight_is_voided_too() {
    let mut ledger = Ledger::with_wallets(&["main"]);
    ledger.applied(grant("main", &vec![until(9_000, credit("1")); 12]));
    ledger.applied(void("main", ledger.tranches[10]));
    ledger.applied(void("main", ledger.tranches[2]));
    assert_eq!(figures(&ledger, "main"), (10, 0, 0, 10));
    assert_eq!(ledger.drawn(debit("main", "10")).len(), 10);
    ledger.now = 9_000;
    assert_eq!(ledger.sweep(100), Reply::Swept { booked: 0, more: false });
    ledger.assert_audit_is_clean("main");
}

// ---- refunds ----------------------------------------------------------------------------------

#[test]
fn a_refund_goes_back_to_the_very_tranches_last_drawn_first() {
    let mut ledger = Ledger::with_wallets(&["main"]);
    ledger.applied(grant("main", &[credit("5"), credit("10")]));
    let debited = spent(&mut ledger, debit("main", "12"));

    let refunded = ledger.applied(refund(debited, "9"));

    // 5 of the first and 7 of the second were drawn: 7 go to the second, 2 to the first.
    assert_eq!(moves(&ledger, &refunded), [(Refunded, 9, vec![(1, 7, 10), (0, 2, 2)])]);
    assert_eq!(figures(&ledger, "main"), (12, 0, 0, 12));
    assert_eq!(ledger.denied(refund(debited, "4")), because(Reason::RefundExceedsDebit));
    let rest = ledger.applied(refund_of(debited, None, None));
    assert_eq!(moves(&ledger, &rest), [(Refunded, 3, vec![(0, 3, 5)])]);
    assert_eq!(ledger.denied(refund_of(debited, None, None)), because(Reason::RefundExceedsDebit));
    assert_eq!(ledger.movements("main").last().expect("a movement").corrects, Some(debited));
    assert_eq!(figures(&ledger, "main"), (15, 0, 0, 15));
    ledger.assert_audit_is_clean("main");
}

#[test]
fn what_goes_back_to_an_expired_tranche_is_forfeited() {
    let mut ledger = Ledger::with_wallets(&["main"]);
    ledger.applied(grant("main", &[until(1_500, credit("5")), credit("10")]));
    let debited = spent(&mut ledger, debit("main", "8"));
    ledger.now = 1_500;

    let refunded = ledger.applied(refund_of(debited, None, None));

    let expected = [(Refunded, 8, vec![(1, 3, 10), (0, 5, 5)]), (Expired, -5, vec![(0, 5, 0)])];
    assert_eq!(moves(&ledger, &refunded), expected);
    assert_eq!(figures(&ledger, "main"), (10, 0, 0, 10));
    let expected = [(TrancheStatus::Expired, [0, 0, 0, 5, 0]), (TrancheStatus::Active, [10, 0, 0, 0, 0])];
    assert_eq!(tranches(&ledger, "main"), expected);
    assert_eq!(ledger.denied(refund_of(debited, None, None)), because(Reason::RefundExceedsDebit));
    ledger.assert_audit_is_clean("main");
}

/// Found by `the_ledger_agrees_with_the_model_on_wallets_with_many_holds`: more is due before the end of the
/// tranche than one command books, and a refund that is refused all the same asked to be sent again.
#[test]
fn a_refund_that_is_refused_does_not_wait_for_what_is_due() {
    for (of_the_grant, amount, refused) in
        [(true, None, Reason::InvalidArgument), (false, Some("2"), Reason::RefundExceedsDebit)]
    {
        let mut ledger = Ledger::with_wallets(&["main"]);
        let granted = spent(&mut ledger, grant("main", &[until(1_500, credit("10"))]));
        let debited = spent(&mut ledger, debit("main", "1"));
        ledger.applied(grant("main", &vec![until(1_400, credit("1")); 100]));
        ledger.now = 2_000;

        let movement = if of_the_grant { granted } else { debited };
        assert_eq!(ledger.denied(refund_of(movement, amount, Some(100))), because(refused));
    }
}

#[test]
fn a_grace_restores_the_refunded_units_alone_and_only_once() {
    let mut ledger = Ledger::with_wallets(&["main"]);
    ledger.applied(grant("main", &[until(1_500, credit("10"))]));
    let one = spent(&mut ledger, debit("main", "4"));
    let two = spent(&mut ledger, debit("main", "3"));
    ledger.now = 1_600;

    let restored = ledger.applied(refund_of(one, None, Some(100)));

    assert_eq!(moves(&ledger, &restored), [(Refunded, 4, vec![(0, 4, 4)])]);
    assert_eq!(tranches(&ledger, "main"), [(TrancheStatus::Active, [4, 0, 3, 3, 0])]);
    ledger.now = 1_650;
    // The second refund adds to it, and gives it no more time.
    ledger.applied(refund_of(two, None, Some(10_000)));
    assert_eq!(ledger.available("main"), 7);
    ledger.now = 1_699;
    assert_eq!(ledger.drawn(debit("main", "1")), [(0, 1, 6)]);
    ledger.now = 1_700;
    assert_eq!(ledger.available("main"), 0);
    assert_eq!(tranches(&ledger, "main"), [(TrancheStatus::Expired, [0, 0, 1, 9, 0])]);
    ledger.sweep(10);
    ledger.assert_audit_is_clean("main");
}

#[test]
fn what_goes_back_to_a_voided_tranche_is_withdrawn() {
    let mut ledger = Ledger::with_wallets(&["main"]);
    ledger.applied(grant("main", &[credit("10")]));
    let debited = spent(&mut ledger, debit("main", "4"));
    ledger.applied(void("main", ledger.tranches[0]));

    let refunded = ledger.applied(refund_of(debited, None, Some(100)));

    assert_eq!(moves(&ledger, &refunded), [(Refunded, 4, vec![(0, 4, 4)]), (Voided, -4, vec![(0, 4, 0)])]);
    assert_eq!(tranches(&ledger, "main"), [(TrancheStatus::Voided, [0, 0, 0, 0, 10])]);
    ledger.assert_audit_is_clean("main");
}

#[test]
fn a_pin_from_before_the_expiry_lapses_on_release_though_its_tranche_was_restored() {
    let mut ledger = Ledger::with_wallets(&["main"]);
    ledger.applied(grant("main", &[until(1_500, credit("10"))]));
    let debited = spent(&mut ledger, debit("main", "4"));
    let held = ledger.applied(hold("main", "5"));
    let hold = hold_of(&held);
    ledger.now = 1_500;
    ledger.applied(refund_of(debited, None, Some(1_000)));
    assert_eq!(figures(&ledger, "main"), (4, 5, 0, 9));

    let released = ledger.applied(release(hold));

    assert_eq!(moves(&ledger, &released), [(Expired, -5, vec![(0, 5, 4)])]);
    assert_eq!(tranches(&ledger, "main"), [(TrancheStatus::Active, [4, 0, 0, 6, 0])]);
    ledger.assert_audit_is_clean("main");
}

#[test]
fn only_what_was_spent_can_be_refunded_and_only_to_its_customer() {
    let mut ledger = Ledger::with_wallets(&["main"]);
    let granted = movement_of(&ledger.applied(grant("main", &[credit("10")])));
    assert_eq!(ledger.denied(refund(granted, "1")), because(Reason::InvalidArgument));
    assert_eq!(ledger.denied(refund(RecordId(7), "1")), because(Reason::MovementNotFound));
    let debited = spent(&mut ledger, debit("main", "4"));
    let bob = purser_ledger::ids::Customer { namespace: "default", id: "bob" };
    let mut command = under("bobs", 2_000, refund(debited, "1"));
    command.header.customer = bob;
    assert_eq!(denial_of(ledger.send(&command)), because(Reason::CustomerNotFound));
    // A frozen wallet takes refunds.
    ledger.applied(freeze("main", true));
    ledger.applied(refund(debited, "4"));
    assert_eq!(ledger.available("main"), 10);
}

#[test]
fn a_refund_of_a_debit_by_customer_is_made_wallet_by_wallet() {
    let mut ledger = Ledger::with_wallets(&["first", "second"]);
    ledger.applied(grant("first", &[credit("5")]));
    ledger.applied(grant("second", &[credit("5")]));
    let debited = ledger.applied(debit_ann("8"));
    let ids: Vec<_> = movements_of(&debited).iter().map(|own| own.id).collect();
    ledger.applied(refund_of(ids[1], None, None));
    assert_eq!((ledger.available("first"), ledger.available("second")), (0, 5));
    assert_eq!(ledger.denied(refund(ids[0], "6")), because(Reason::RefundExceedsDebit));
}

// ---- corrections ------------------------------------------------------------------------------

#[test]
fn a_correction_up_is_a_tranche_that_pays_for_anything() {
    let mut ledger = Ledger::with_wallets(&["main"]);
    ledger.applied(grant("main", &[credit("5")]));
    let corrected = ledger.applied(up("main", "7"));
    let Effect::Posted { movements, .. } = &corrected else { panic!("no movement") };
    assert_eq!((movements[0].kind, movements[0].amount.0), (Adjusted, 7));
    assert_eq!(movements[0].draws[0].kind, purser_ledger::command::TrancheKind::Correction);
    assert_eq!(figures(&ledger, "main"), (12, 0, 0, 12));
    // A correction burns before what was bought.
    ledger.tranches.push(movements[0].draws[0].tranche);
    assert_eq!(ledger.drawn(debit("main", "8")), [(1, 7, 0), (0, 1, 4)]);
    let past = adjust("main", Change::Up { amount: decimal("1"), expiry: Expiry::At(Time(1_000)) });
    assert_eq!(ledger.denied(past), because(Reason::InvalidArgument));
    ledger.assert_audit_is_clean("main");
}

#[test]
fn a_correction_down_takes_in_burn_order_whatever_the_scope() {
    let mut ledger = Ledger::with_wallets(&["main"]);
    let both = TrancheSpec { features: vec!["a", "b"], ..credit("3") };
    let usage = TrancheSpec { scope: ChargeScope::Usage, ..credit("2") };
    ledger.applied(grant("main", &vec![until(9_000, credit("1")); 8]));
    ledger.applied(grant("main", &[both, usage, credit("4")]));

    let corrected = ledger.applied(down("main", "14", None));

    // Eight that expire first, then narrower before broader: 3 of a and b, 2 for usage, 1 of the last.
    let mut expected: Draws = (0..8).map(|place| (place, 1, 0)).collect();
    expected.extend([(8, 3, 0), (9, 2, 0), (10, 1, 3)]);
    assert_eq!(moves(&ledger, &corrected), [(Adjusted, -14, expected)]);
    assert_eq!(ledger.denied(down("main", "4", None)), short(3, 4));
    assert_eq!(figures(&ledger, "main"), (3, 0, 0, 3));
    assert_eq!(tranches(&ledger, "main")[10], (TrancheStatus::Active, [3, 0, 0, 0, 1]));
    ledger.assert_audit_is_clean("main");
}

#[test]
fn a_correction_down_of_one_tranche_takes_what_is_available_of_it() {
    let mut ledger = Ledger::with_wallets(&["main"]);
    ledger.applied(grant("main", &[credit("5"), credit("5")]));
    let second = ledger.tranches[1];
    assert_eq!(ledger.denied(down("main", "6", Some(second))), short(5, 6));
    let corrected = ledger.applied(down("main", "2", Some(second)));
    assert_eq!(moves(&ledger, &corrected), [(Adjusted, -2, vec![(1, 2, 3)])]);
    ledger.applied(down("main", "3", Some(second)));
    assert_eq!(tranches(&ledger, "main")[1], (TrancheStatus::Exhausted, [0, 0, 0, 0, 5]));
    let nothing_left = ledger.denied(down("main", "1", Some(second)));
    assert_eq!(nothing_left, because(Reason::TrancheNotActive));
    assert_eq!(ledger.denied(down("main", "1", Some(TrancheId(7)))), because(Reason::TrancheNotFound));
    ledger.applied(freeze("main", true));
    ledger.applied(down("main", "1", None));
    assert_eq!(figures(&ledger, "main"), (4, 0, 0, 4));
    ledger.assert_audit_is_clean("main");
}

// ---- wallets ----------------------------------------------------------------------------------

fn update(wallet: &str, version: Option<u64>, draw_priority: Option<u16>) -> Operation<'_> {
    Operation::UpdateWallet(UpdateWallet { wallet, version, draw_priority, scope: None, reason_code: "" })
}

#[test]
fn a_wallet_is_changed_only_from_the_version_that_the_caller_knows() {
    let mut ledger = Ledger::with_wallets(&["first", "second"]);
    ledger.applied(grant("first", &[credit("5")]));
    ledger.applied(grant("second", &[credit("5")]));
    let Effect::Wallet(info) = ledger.applied(update("second", Some(1), Some(50))) else {
        panic!("no wallet")
    };
    assert_eq!((info.version, info.draw_priority), (2, 50));
    assert_eq!(ledger.denied(update("second", Some(1), Some(60))), because(Reason::VersionConflict));
    assert_eq!(ledger.drawn(debit_ann("6")), [(1, 5, 0), (0, 1, 4)]);
    let Effect::Wallet(info) = ledger.applied(update("second", None, Some(50))) else { panic!("no wallet") };
    assert_eq!(info.version, 2, "nothing changed");
    let usage = UpdateWallet {
        wallet: "first",
        version: None,
        draw_priority: None,
        scope: Some(ChargeScope::Usage),
        reason_code: "",
    };
    ledger.applied(Operation::UpdateWallet(usage));
    assert_eq!(ledger.denied(debit("first", "1")), because(Reason::NoEligibleTranche));
}

#[test]
fn a_wallet_closes_only_when_nothing_is_in_it_and_takes_nothing_then() {
    let mut ledger = Ledger::with_wallets(&["main", "other"]);
    ledger.applied(grant("main", &[credit("5"), pending(credit("1"))]));
    let debited = spent(&mut ledger, debit("main", "5"));
    assert_eq!(ledger.denied(close("main")), because(Reason::WalletNotEmpty));
    ledger.applied(void("main", ledger.tranches[1]));
    let Effect::Wallet(info) = ledger.applied(close("main")) else { panic!("no wallet") };
    assert!(info.closed);
    let closed = because(Reason::WalletClosed);
    for operation in [
        debit("main", "1"),
        grant("main", &[credit("1")]),
        hold("main", "1"),
        refund(debited, "1"),
        up("main", "1"),
        freeze("main", true),
        update("main", None, Some(1)),
        close("main"),
        void("main", ledger.tranches[0]),
    ] {
        assert_eq!(ledger.denied(operation.clone()), closed, "{operation:?}");
    }
    assert_eq!(ledger.denied(create("main")), because(Reason::AlreadyExists));
    // By customer it is passed over, until no other is left.
    ledger.applied(grant("other", &[credit("2")]));
    ledger.applied(debit_ann("2"));
    ledger.applied(close("other"));
    assert_eq!(ledger.denied(debit_ann("1")), closed);
    ledger.assert_audit_is_clean("main");
}

#[test]
fn a_wallet_with_an_open_hold_does_not_close() {
    let mut ledger = Ledger::with_wallets(&["main"]);
    ledger.applied(grant("main", &[credit("5")]));
    let held = ledger.applied(hold("main", "5"));
    let hold = hold_of(&held);
    assert_eq!(ledger.denied(close("main")), because(Reason::WalletNotEmpty));
    let back = ledger.applied(release(hold));
    assert_eq!(moves(&ledger, &back), [(Released, 0, vec![(0, 5, 5)])]);
    ledger.applied(debit("main", "5"));
    ledger.applied(close("main"));
    assert_eq!(ledger.lines("main").last().expect("a movement").0, Consumed);
}
