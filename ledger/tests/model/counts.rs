//! What happened in a session: counted, so that the tests can say that it was worth trying.

use std::collections::BTreeMap;

use purser_ledger::amount::Asset;
use purser_ledger::command::{Capture, ChargeType, Debit, GrantEnd, HOLD_TTL_MAX, Hold, Operation, Payer};
use purser_ledger::ids::Customer;
use purser_ledger::rows::hold::{HoldState, HoldStatus};
use purser_ledger::rows::journal::MovementKind;
use purser_ledger::time::Time;
use purser_ledger::verdict::Reason;
use purser_model::{DueWhat, Effect, HoldPayer, Movement, Posted, Reply, Stage, Tranche, Verdict, Wallet};

use super::drafts::Item;
use super::pair::Pair;

/// How often the interesting things happened.
pub type Counts = BTreeMap<String, usize>;

/// The reasons that a session can meet; the limits on draws and wallets are told as stories.
pub const REASONS: [Reason; 19] = [
    Reason::CustomerNotFound,
    Reason::WalletNotFound,
    Reason::AlreadyExists,
    Reason::WalletFrozen,
    Reason::InvalidAmountPrecision,
    Reason::AmountOverflow,
    Reason::NoEligibleTranche,
    Reason::InsufficientCredits,
    Reason::InvalidArgument,
    Reason::HoldNotFound,
    Reason::HoldExpired,
    Reason::HoldClosed,
    Reason::TrancheNotActive,
    Reason::TrancheNotFound,
    Reason::WalletClosed,
    Reason::WalletNotEmpty,
    Reason::VersionConflict,
    Reason::MovementNotFound,
    Reason::RefundExceedsDebit,
];

impl Pair {
    /// Counts what happened once more.
    pub fn count(&mut self, what: impl Into<String>) {
        *self.counts.entry(what.into()).or_default() += 1;
    }

    pub fn count_all<const N: usize>(&mut self, happenings: [(bool, &str); N]) {
        for (_, what) in happenings.into_iter().filter(|(happened, _)| *happened) {
            self.count(what);
        }
    }

    /// Counts a command by its answer, as soon as the model has given it.
    pub fn count_reply(&mut self, item: &Item, reply: &Reply) {
        let Item::Command(command) = item else { return };
        let verb = verb(&command.operation);
        match reply {
            Reply::KeyReused => self.count("key reused"),
            Reply::KeyTooOld => self.count("key too old"),
            Reply::Backlog => {
                self.count_backlog(command.header.customer);
                self.count(format!("backlog to {verb}"));
            }
            Reply::Swept { .. } => {}
            Reply::Verdict { replayed: true, verdict: Verdict::Applied { .. } } => {
                self.count("replay, applied");
                self.count(format!("replay of {verb}, applied"));
            }
            Reply::Verdict { replayed: true, verdict: Verdict::Denied(_) } => {
                self.count("replay, denied");
                self.count(format!("replay of {verb}, denied"));
            }
            Reply::Verdict { verdict: Verdict::Denied(denial), .. } => {
                self.count(denial.reason.name());
                self.count(format!("{} to {verb}", denial.reason.name()));
                if denial.reason == Reason::HoldNotFound {
                    self.count_unknown_hold(&command.operation);
                }
                self.count_denial_of_life(&command.operation, denial.reason);
            }
            Reply::Verdict { verdict: Verdict::Applied { effect, .. }, .. } => {
                self.count_effect(&command.operation, effect)
            }
        }
    }

    /// What is left due in the customer's wallets after a backlog tells what it was of.
    fn count_backlog(&mut self, customer: Customer<'_>) {
        self.count("backlog");
        let wallets = self.model.wallets().iter().enumerate();
        let own = wallets.filter(|(_, wallet)| wallet.customer() == customer);
        let left: Vec<DueWhat> =
            own.flat_map(|(place, _)| self.model.due(place)).map(|due| due.what).collect();
        if left.contains(&DueWhat::TimeOut) && !left.contains(&DueWhat::Activation) {
            self.count("backlog of time-outs");
        }
    }

    fn count_unknown_hold(&mut self, operation: &Operation<'_>) {
        let hold = match operation {
            Operation::ExtendHold(extend) => extend.hold,
            Operation::Capture(capture) => capture.hold,
            Operation::Release(release) => release.hold,
            _ => return,
        };
        self.count(match self.names.holds.contains_key(&hold) {
            true => "hold of another customer",
            false => "hold that is not there",
        });
    }

    fn count_effect(&mut self, operation: &Operation<'_>, effect: &Effect) {
        self.count(verb(operation));
        let Effect::Posted { movements, hold, .. } = effect else {
            self.count("wallet changed");
            return self.count_wallet(operation);
        };
        if let Some((no, _)) = hold {
            self.count_draws_of_holds(*no, movements);
        }
        match (operation, hold) {
            (Operation::Debit(debit), _) => self.count_debit(debit, movements),
            (Operation::Hold(hold), Some((_, state))) => self.count_hold(hold, state, movements),
            (Operation::ExtendHold(_), Some((_, state))) => self.count_extension(state),
            (Operation::Capture(capture), Some((no, state))) => {
                self.count_capture(capture, *no, state, movements)
            }
            (Operation::Release(_), _) => self.count_all([
                (movements.is_empty(), "release of nothing"),
                (movements.len() > 1, "release in several movements"),
            ]),
            (Operation::Grant(_), _) => {
                self.count_all([(movements.len() > 1, "grant of immediate and scheduled tranches")]);
            }
            _ => self.count_life(operation, movements),
        }
    }

    fn count_debit(&mut self, debit: &Debit<'_>, movements: &[Posted]) {
        let draws = draws_in(movements);
        let sum = spent_in(movements, MovementKind::Consumed);
        let scale = self.model.wallets().iter().map(|wallet| wallet.info.asset_scale);
        let whole = scale.filter_map(|scale| debit.amount.to_amount(scale).ok()).all(|asked| asked.0 > sum);
        self.count_all([
            (draws > 1, "debit over several tranches"),
            (draws > 8, "debit over more than eight tranches"),
            (draws > 30, "debit over more than thirty tranches"),
            (movements.len() > 1, "debit over several wallets"),
            (whole && debit.allow_partial, "partial debit"),
        ]);
    }

    fn count_hold(&mut self, hold: &Hold<'_>, state: &HoldState, movements: &[Posted]) {
        let draws = draws_in(movements);
        let lives = state.expires_at.0 - state.created_at.0;
        self.count_all([
            (matches!(hold.payer, Payer::CustomerIn(_)), "hold by customer"),
            (draws > 1, "hold over several tranches"),
            (draws > 8, "hold over more than eight tranches"),
            (movements.len() > 1, "hold over several wallets"),
            (hold.ttl.is_none(), "hold with the default time"),
            (hold.ttl.is_some_and(|ttl| ttl > HOLD_TTL_MAX) && lives == HOLD_TTL_MAX.0, "hold cut to 24 h"),
            (hold.charge_type == Some(ChargeType::Usage), "hold for a charge type"),
        ]);
    }

    fn count_extension(&mut self, state: &HoldState) {
        let now = self.model.now();
        let lives = state.expires_at.0 - state.created_at.0;
        let moved = state.expires_at > self.expiry_before;
        self.count_all([
            (moved, "extension that lengthens"),
            (!moved, "extension that changes nothing"),
            (moved && lives == HOLD_TTL_MAX.0 && state.created_at < now, "extension cut to 24 h"),
        ]);
    }

    fn count_capture(&mut self, capture: &Capture<'_>, no: usize, state: &HoldState, movements: &[Posted]) {
        let excess = movements.iter().filter(|own| own.kind == MovementKind::Consumed).count();
        let captured = movements.iter().filter(|own| own.kind == MovementKind::Captured).count();
        let given_back = movements.iter().any(|own| own.kind == MovementKind::Released);
        let wallets = self.model.wallets();
        let frozen =
            self.model.holds()[no].parts.iter().any(|part| wallets[part.wallet].info.frozen && captured > 0);
        let open = state.status == HoldStatus::Open;
        self.count_all([
            (capture.amount.is_none(), "capture of all that is left"),
            (
                capture.amount.is_some_and(|amount| amount.to_amount(0).is_ok_and(|all| all.0 == 0)),
                "capture of zero",
            ),
            (movements.is_empty(), "capture that moves nothing"),
            (captured > 1, "capture over several wallets"),
            (captured > 0 && given_back, "capture with a rest that is given back"),
            (open && state.left().0 > 0, "capture that keeps the hold open"),
            (open && state.left().0 == 0, "capture that keeps the hold open with nothing left"),
            (excess > 0, "capture with an excess"),
            (excess > 0 && captured == 0, "capture with an excess alone"),
            (excess > 1, "excess over several wallets"),
            (excess > 0 && open, "excess of a hold that stays open"),
            (frozen, "capture within a frozen wallet"),
        ]);
    }

    /// Counts what a command about a hold does to what was held, and who could pay for it.
    fn count_draws_of_holds(&mut self, no: usize, movements: &[Posted]) {
        let (hold, wallets) = (&self.model.holds()[no], self.model.wallets());
        let in_asset = |wallet: &&Wallet| match &hold.payer {
            HoldPayer::Wallet(_) => false,
            HoldPayer::CustomerIn(code, scale) => {
                wallet.customer() == hold.customer() && wallet.asset() == Asset { code, scale: *scale }
            }
        };
        let mut own = wallets.iter().filter(in_asset).peekable();
        let nobody = own.peek().is_some() && own.all(|wallet| wallet.info.frozen || wallet.info.closed);
        self.count_all([(nobody, "nobody left to pay for a hold")]);
        let now = self.model.now();
        for posted in movements {
            let stage = |no: usize| self.tranche(no).map(|tranche| tranche.stage);
            let captures_voided = posted.kind == MovementKind::Captured
                && posted.draws.iter().any(|draw| stage(draw.tranche) == Some(Stage::Voided));
            let expired = posted.draws.iter().any(|draw| self.expiry_of(draw.tranche) <= now);
            self.count_all([
                (posted.kind == MovementKind::Expired, "lapse of what a command gives back"),
                (posted.kind == MovementKind::Captured && expired, "capture of an expired tranche"),
                (posted.kind == MovementKind::Voided, "withdrawal of what a command gives back"),
                (captures_voided, "capture of a voided tranche"),
            ]);
        }
    }

    pub fn tranche(&self, no: usize) -> Option<&Tranche> {
        self.model.wallets().iter().flat_map(|wallet| &wallet.tranches).find(|tranche| tranche.no == no)
    }

    pub fn expiry_of(&self, no: usize) -> Time {
        self.tranche(no).map_or(Time::NEVER, |tranche| tranche.expires_at)
    }

    /// Counts what the shard has booked itself, and what a batch has left behind.
    pub fn count_due(&mut self, place: usize, from: usize) {
        let wallet = self.model.wallets()[place].clone();
        let new = &wallet.movements[from..];
        for movement in new.iter().filter(|movement| movement.details.key.is_empty()) {
            match (movement.kind, movement.hold) {
                (MovementKind::Expired, None) => self.count("expiry"),
                (MovementKind::Granted, _) => self.count("activation"),
                (MovementKind::Released, _) => self.count("time-out that gives back"),
                (MovementKind::Expired, Some(_)) => self.count("lapse at a time-out"),
                (MovementKind::Voided, Some(_)) => self.count("withdrawal at a time-out"),
                _ => {}
            }
            if movement.hold.is_some() {
                self.count_time_out(&wallet, new, movement);
            }
        }
        let holds = self.model.holds();
        let half_booked = holds.iter().filter(|hold| {
            let closed = hold.parts.iter().filter(|part| part.closed).count();
            hold.status == HoldStatus::Open && closed > 0
        });
        if half_booked.count() > 0 {
            self.count("hold whose time-out is booked in some of its wallets");
        }
    }

    fn count_time_out(&mut self, wallet: &Wallet, new: &[Movement], movement: &Movement) {
        let at = movement.effective_at;
        let mut others = new.iter().filter(|own| own.effective_at == at && own.hold != movement.hold);
        let expires_then = wallet.tranches.iter().any(|tranche| tranche.expires_at == at);
        let expires_later = movement.kind == MovementKind::Released
            && movement.draws.iter().any(|draw| self.expiry_of(draw.tranche) <= self.model.now());
        self.count_all([
            (others.any(|own| own.details.key.is_empty()), "time-out at the instant of another item"),
            (expires_then, "time-out at the instant of an expiry"),
            (expires_later, "time-out of what expires before it is booked"),
            (movement.booked_at > at, "time-out booked late"),
            (wallet.info.frozen, "time-out in a frozen wallet"),
        ]);
    }

    /// Counts, at the end, what became of the holds.
    pub fn count_holds(&mut self) {
        let ends: Vec<_> = self.model.holds().iter().map(|hold| hold.state_at(self.model.now())).collect();
        for end in ends {
            let expired = end.status == HoldStatus::Expired;
            self.count_all([
                (expired && end.captured == end.amount, "time-out with nothing left"),
                (expired && end.captured.0 > 0 && end.released.0 > 0, "time-out after a capture"),
            ]);
        }
    }
}

pub fn draws_in(movements: &[Posted]) -> usize {
    movements.iter().map(|movement| movement.draws.len()).sum()
}

fn spent_in(movements: &[Posted], kind: MovementKind) -> i128 {
    movements.iter().filter(|own| own.kind == kind).map(|own| -own.amount.0).sum()
}

fn verb(operation: &Operation<'_>) -> &'static str {
    match operation {
        Operation::CreateWallet(_) => "create",
        Operation::FreezeWallet(_) => "freeze",
        Operation::Grant(_) => "grant",
        Operation::Debit(_) => "debit",
        Operation::Hold(_) => "hold",
        Operation::ExtendHold(_) => "extend",
        Operation::Capture(_) => "capture",
        Operation::Release(_) => "release",
        Operation::UpdateWallet(_) => "update",
        Operation::CloseWallet(_) => "close",
        Operation::ConfirmGrant(_) => "confirm",
        Operation::EndGrant(end) if end.end == GrantEnd::Failed => "fail",
        Operation::EndGrant(_) => "void",
        Operation::Refund(_) => "refund",
        Operation::Adjust(_) => "adjust",
    }
}
