//! The ledger, as the stories call it, and what they say to it.

// Each file of stories uses a part.
#![allow(dead_code)]

use purser_ledger::amount::{Amount, Asset, Decimal};
use purser_ledger::apply::apply_batch;
use purser_ledger::audit::audit;
use purser_ledger::command::{
    BatchEncoder, BurnPolicy, ChargeScope, ChargeType, Command, CreateWallet, Debit, Expiry, FreezeWallet,
    Grant, Header, Hold, Operation, Payer, TrancheKind, TrancheSpec,
};
use purser_ledger::ids::{Customer, TrancheId};
use purser_ledger::query;
use purser_ledger::rows::journal::{Movement, MovementKind};
use purser_ledger::store::MemStore;
use purser_ledger::time::{Span, Time};
use purser_ledger::verdict::{Answer, Balance, Denial, Effect, Posted, Reason, Reply, Shortage, Verdict};

pub const ANN: Customer<'static> = Customer { namespace: "default", id: "ann" };
pub const CREDITS: Asset<'static> = Asset { code: "credits", scale: 0 };
/// 38 nines: the most that an amount at scale 0 may be written as.
pub const NINES: &str = "99999999999999999999999999999999999999";

// ---- the ledger, as the stories call it -------------------------------------------------------

/// A ledger with a clock and the tranches granted so far.
pub struct Ledger {
    pub store: MemStore,
    pub now: u64,
    pub tranches: Vec<TrancheId>,
    pub keys: usize,
}

impl Ledger {
    /// A ledger where Ann has these wallets of `credits/0`, all alike.
    pub fn with_wallets(wallets: &[&str]) -> Ledger {
        let mut ledger = Ledger { store: MemStore::new(), now: 1_000, tranches: Vec::new(), keys: 0 };
        for wallet in wallets {
            ledger.applied(create(wallet));
        }
        ledger
    }

    /// Applies one batch of items that `fill` puts in.
    pub fn batch(&mut self, fill: impl FnOnce(&mut BatchEncoder)) -> Vec<Answer> {
        let mut encoder = BatchEncoder::new();
        fill(&mut encoder);
        let entry = encoder.finish(Time(self.now));
        let applied = apply_batch(&self.store, 1, &entry).expect("the store is sound");
        self.store.commit(&applied.changes);
        applied.answers
    }

    /// Sends one command, whole.
    pub fn send(&mut self, command: &Command<'_>) -> Reply {
        let reply = self.batch(|batch| batch.push(command)).remove(0).reply;
        if let (Reply::Verdict { replayed: false, .. }, Operation::Grant(_)) = (&reply, &command.operation) {
            self.learn(&reply);
        }
        reply
    }

    /// Sends an operation of Ann's under a key of its own.
    pub fn tell(&mut self, operation: Operation<'_>) -> Reply {
        self.keys += 1;
        let key = format!("own-{}", self.keys);
        self.send(&under(&key, self.now + 100, operation))
    }

    /// As [`Ledger::tell`], for what takes effect.
    pub fn applied(&mut self, operation: Operation<'_>) -> Effect {
        effect_of(self.tell(operation))
    }

    /// As [`Ledger::tell`], for what is denied.
    pub fn denied(&mut self, operation: Operation<'_>) -> Denial {
        denial_of(self.tell(operation))
    }

    /// As [`Ledger::tell`], for a debit that takes effect: its draws.
    pub fn drawn(&mut self, operation: Operation<'_>) -> Vec<(usize, i128, i128)> {
        let effect = self.applied(operation);
        self.draws(&effect)
    }

    pub fn sweep(&mut self, limit: u32) -> Reply {
        self.batch(|batch| batch.push_sweep(limit)).remove(0).reply
    }

    /// Notes the new tranches, in the order of their ids: that of creation.
    pub fn learn(&mut self, reply: &Reply) {
        let Reply::Verdict { verdict: Verdict::Applied(applied), .. } = reply else { return };
        let granted = movements_of(&applied.effect).iter().flat_map(|movement| &movement.draws);
        let mut new: Vec<TrancheId> = granted.map(|draw| draw.tranche).collect();
        new.sort();
        self.tranches.extend(new);
    }

    pub fn draws(&self, effect: &Effect) -> Vec<(usize, i128, i128)> {
        let draws = movements_of(effect).iter().flat_map(|movement| &movement.draws);
        draws.map(|draw| (self.place(draw.tranche), draw.amount.0, draw.left.0)).collect()
    }

    pub fn place(&self, id: TrancheId) -> usize {
        self.tranches.iter().position(|&own| own == id).expect("a tranche that the story granted")
    }

    pub fn balance(&self, wallet: &str) -> Balance {
        query::balance(&self.store, ANN, wallet, Time(self.now)).expect("a wallet")
    }

    pub fn available(&self, wallet: &str) -> i128 {
        self.balance(wallet).available.0
    }

    pub fn movements(&self, wallet: &str) -> Vec<Movement> {
        let entries = query::movements(&self.store, ANN, wallet, 1, 1_000).expect("a wallet");
        entries.into_iter().map(|entry| entry.movement).collect()
    }

    /// Each movement's kind, amount, and when it took effect and was booked.
    pub fn lines(&self, wallet: &str) -> Vec<(MovementKind, i128, u64, u64)> {
        let movements = self.movements(wallet);
        let line = |own: &Movement| (own.kind, own.amount.0, own.effective_at.0, own.booked_at.0);
        movements.iter().map(line).collect()
    }

    pub fn assert_audit_is_clean(&self, wallet: &str) {
        let report = audit(&self.store, ANN, wallet).expect("a wallet");
        assert_eq!(report.findings, Vec::<String>::new());
    }
}

/// A command of Ann's.
pub fn under<'a>(key: &'a str, valid_until: u64, operation: Operation<'a>) -> Command<'a> {
    let (valid_until, retention) = (Time(valid_until), Span(1_000));
    Command { header: Header { customer: ANN, key, valid_until, retention, actor: "" }, operation }
}

pub fn effect_of(reply: Reply) -> Effect {
    match reply {
        Reply::Verdict { verdict: Verdict::Applied(applied), .. } => applied.effect,
        other => panic!("not applied: {other:?}"),
    }
}

pub fn denial_of(reply: Reply) -> Denial {
    match reply {
        Reply::Verdict { verdict: Verdict::Denied(denial), .. } => denial,
        other => panic!("not denied: {other:?}"),
    }
}

pub fn movements_of(effect: &Effect) -> &[Posted] {
    match effect {
        Effect::Posted { movements, .. } => movements,
        Effect::Wallet(info) => panic!("no movements: {info:?}"),
    }
}

/// Each balance of an answer: the wallet and what is available.
pub fn balances_of(effect: &Effect) -> Vec<(&str, i128)> {
    match effect {
        Effect::Posted { balances, .. } => {
            balances.iter().map(|own| (own.wallet.as_str(), own.balance.available.0)).collect()
        }
        Effect::Wallet(info) => panic!("no balances: {info:?}"),
    }
}

pub fn remaining_of(effect: &Effect) -> Option<i128> {
    match effect {
        Effect::Posted { remaining, .. } => remaining.map(|amount| amount.0),
        Effect::Wallet(info) => panic!("nothing remains: {info:?}"),
    }
}

pub fn because(reason: Reason) -> Denial {
    Denial { reason, shortage: None }
}

pub fn short(available: i128, required: i128) -> Denial {
    let (available, required) = (Amount(available), Amount(required));
    Denial { reason: Reason::InsufficientCredits, shortage: Some(Shortage { available, required, scale: 0 }) }
}

// ---- what the stories say ---------------------------------------------------------------------

pub fn create_with(
    wallet: &str,
    draw_priority: u16,
    scope: ChargeScope,
    burn_policy: BurnPolicy,
) -> Operation<'_> {
    Operation::CreateWallet(CreateWallet { wallet, asset: CREDITS, draw_priority, scope, burn_policy })
}

pub fn create(wallet: &str) -> Operation<'_> {
    create_with(wallet, 100, ChargeScope::Any, BurnPolicy::Standard)
}

pub fn freeze(wallet: &str, frozen: bool) -> Operation<'_> {
    Operation::FreezeWallet(FreezeWallet { wallet, frozen, reason_code: "story" })
}

pub fn grant<'a>(wallet: &'a str, tranches: &[TrancheSpec<'a>]) -> Operation<'a> {
    Operation::Grant(Grant { wallet, tranches: tranches.to_vec() })
}

pub fn decimal(text: &str) -> Decimal {
    Decimal::parse(text).expect("a decimal")
}

/// A purchased tranche that pays for anything, from now on and for ever.
pub fn credit(amount: &str) -> TrancheSpec<'static> {
    TrancheSpec {
        amount: decimal(amount),
        pending: false,
        kind: TrancheKind::Purchased,
        priority: 100,
        effective_at: None,
        expiry: Expiry::Never,
        scope: ChargeScope::Any,
        features: Vec::new(),
        label: "",
        reason_code: "",
        external_reference: "",
        cost: None,
        metadata: Vec::new(),
    }
}

pub fn until(time: u64, spec: TrancheSpec<'_>) -> TrancheSpec<'_> {
    TrancheSpec { expiry: Expiry::At(Time(time)), ..spec }
}

pub fn from(time: u64, spec: TrancheSpec<'_>) -> TrancheSpec<'_> {
    TrancheSpec { effective_at: Some(Time(time)), ..spec }
}

pub fn pending(spec: TrancheSpec<'_>) -> TrancheSpec<'_> {
    TrancheSpec { pending: true, ..spec }
}

pub fn for_feature<'a>(feature: &'a str, spec: TrancheSpec<'a>) -> TrancheSpec<'a> {
    TrancheSpec { features: vec![feature], ..spec }
}

pub fn debit_of<'a>(payer: Payer<'a>, amount: &str) -> Debit<'a> {
    Debit {
        payer,
        amount: decimal(amount),
        charge_type: None,
        feature: None,
        allow_partial: false,
        reason_code: "",
        reference: "",
        metadata: Vec::new(),
    }
}

pub fn debit<'a>(wallet: &'a str, amount: &str) -> Operation<'a> {
    Operation::Debit(debit_of(Payer::Wallet(wallet), amount))
}

pub fn debit_partly<'a>(wallet: &'a str, amount: &str) -> Operation<'a> {
    Operation::Debit(Debit { allow_partial: true, ..debit_of(Payer::Wallet(wallet), amount) })
}

pub fn debit_usage_of<'a>(feature: &'a str, wallet: &'a str, amount: &str) -> Operation<'a> {
    let (charge_type, feature) = (Some(ChargeType::Usage), Some(feature));
    Operation::Debit(Debit { charge_type, feature, ..debit_of(Payer::Wallet(wallet), amount) })
}

pub fn debit_ann(amount: &str) -> Operation<'static> {
    Operation::Debit(debit_of(Payer::CustomerIn(CREDITS), amount))
}

pub fn hold_of<'a>(payer: Payer<'a>, amount: &str) -> Hold<'a> {
    Hold {
        payer,
        amount: decimal(amount),
        ttl: None,
        charge_type: None,
        feature: None,
        reason_code: "",
        reference: "",
        metadata: Vec::new(),
    }
}

pub fn hold<'a>(wallet: &'a str, amount: &str) -> Operation<'a> {
    Operation::Hold(hold_of(Payer::Wallet(wallet), amount))
}

pub fn hold_for<'a>(wallet: &'a str, amount: &str, ttl: u64) -> Operation<'a> {
    Operation::Hold(Hold { ttl: Some(Span(ttl)), ..hold_of(Payer::Wallet(wallet), amount) })
}
