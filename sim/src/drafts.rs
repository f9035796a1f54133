//! What callers ask: drawn from small spaces, so that requests meet; about what they have heard of
//! before, and now and then about what never was.

use std::sync::Arc;

use purser_ledger::ids::{HoldId, RecordId, TrancheId};
use purser_ledger::time::Time;
use purser_node::api::shape::timestamp;
use purser_node::clock::Clock;
use purser_proto::v1;

use crate::call::Request;
use crate::dice::Dice;
use crate::heard::{Heard, at_hand};
use crate::workload::Callers;
use crate::world::EXPIRY_STEP_US;

/// Most tranches that are asked for in one wallet: fewer than one command books when they are due,
/// so that no command ever meets a backlog.
const TRANCHES_PER_WALLET_MAX: u64 = 36;
/// Most holds that are asked for of one customer, for the same reason.
const HOLDS_PER_CUSTOMER_MAX: usize = 24;

type WalletOf = (&'static str, u32, v1::ChargeScope, v1::BurnPolicy);

/// The wallets of each customer, all of one asset: name, priority, scope, burn policy.
const WALLETS: [WalletOf; 4] = [
    ("main", 100, v1::ChargeScope::Any, v1::BurnPolicy::Standard),
    ("bonus", 50, v1::ChargeScope::Any, v1::BurnPolicy::SpecificFirst),
    ("usage", 100, v1::ChargeScope::Usage, v1::BurnPolicy::Standard),
    SPARE,
];
/// The one that is seldom granted to and often closed.
const SPARE: WalletOf = ("spare", 20, v1::ChargeScope::Any, v1::BurnPolicy::Standard);
const FEATURES: [&str; 2] = ["chat", "image"];
const KINDS: [v1::TrancheKind; 4] = [
    v1::TrancheKind::Plan,
    v1::TrancheKind::Promotional,
    v1::TrancheKind::Committed,
    v1::TrancheKind::Purchased,
];
const SCOPES: [v1::ChargeScope; 4] =
    [v1::ChargeScope::Any, v1::ChargeScope::Any, v1::ChargeScope::Usage, v1::ChargeScope::Fixed];
const LIFETIMES: [&str; 3] = ["PT30S", "P1D", "P1M"];

/// What one caller asks.
pub struct Drafts {
    caller: u64,
    callers: Arc<Callers>,
    dice: Dice,
    keys: u64,
    /// What was asked, to be repeated.
    asked: Vec<Request>,
}

impl Drafts {
    /// The requests of a caller.
    pub fn new(caller: u64, callers: Arc<Callers>) -> Drafts {
        let dice = Dice::new(callers.setting.world.seed, &format!("drafts of c{caller}"));
        Drafts { caller, callers, dice, keys: 0, asked: Vec::new() }
    }

    /// Wallets with credits, so that there is something to spend from the start. Several callers may do
    /// this for one customer.
    pub fn provision(&mut self) -> Vec<Request> {
        let customer = format!("customer-{}", self.caller % self.callers.setting.world.customers);
        let mut requests: Vec<Request> =
            WALLETS.iter().map(|wallet| self.create_wallet(customer.clone(), *wallet)).collect();
        requests.extend((0..4).map(|_| self.grant(customer.clone())));
        self.asked.extend(requests.iter().cloned());
        requests
    }

    /// One request, or several that are to be sent at once.
    pub fn draw(&mut self) -> Vec<Request> {
        match self.dice.within(0..=99) {
            0..=4 if !self.asked.is_empty() => {
                let again = self.dice.pick(&self.asked).clone();
                vec![again]
            }
            // The same one twice at once.
            5..=8 => {
                let request = self.write();
                vec![request.clone(), request]
            }
            9..=14 => (0..self.dice.within(2..=20)).map(|_| self.write()).collect(),
            15..=29 => vec![self.read()],
            _ => vec![self.write()],
        }
    }

    fn write(&mut self) -> Request {
        let customer = self.customer();
        let request = match self.dice.within(0..=99) {
            0..=1 => {
                let wallet = *self.dice.pick(&WALLETS);
                self.create_wallet(customer, wallet)
            }
            2..=3 => self.freeze_wallet(customer),
            4..=5 => self.update_wallet(customer),
            6 => self.close_wallet(customer),
            7..=20 => self.grant(customer),
            21..=28 => self.about_tranche(customer),
            29..=39 => self.hold(customer),
            40..=56 => self.about_hold(customer),
            57..=64 => self.refund(customer),
            65..=67 => self.adjust(customer),
            _ => self.debit(customer),
        };
        self.asked.push(request.clone());
        request
    }

    fn customer(&mut self) -> String {
        format!("customer-{}", self.dice.within(0..=self.callers.setting.world.customers - 1))
    }

    /// Now and then another customer.
    fn or_another(&mut self, customer: &str) -> String {
        if self.dice.chance(950) { customer.to_owned() } else { self.customer() }
    }

    fn heard<T>(&self, customer: &str, look: impl FnOnce(&mut Heard) -> T) -> T {
        self.callers.heard(customer, look)
    }

    /// A new key, or now and then one that stands for another request.
    fn key(&mut self) -> String {
        self.keys += 1;
        let number = if self.dice.chance(20) { self.dice.within(1..=self.keys) } else { self.keys };
        format!("c{}-{number}", self.caller)
    }

    fn create_wallet(&mut self, customer: String, wallet: WalletOf) -> Request {
        let (wallet, priority, scope, policy) = wallet;
        Request::CreateWallet(v1::CreateWalletRequest {
            customer,
            idempotency_key: self.key(),
            wallet: wallet.to_owned(),
            asset: Some(credits()),
            draw_priority: Some(priority),
            charge_scope: scope.into(),
            burn_policy: policy.into(),
            ..Default::default()
        })
    }

    fn freeze_wallet(&mut self, customer: String) -> Request {
        Request::FreezeWallet(v1::FreezeWalletRequest {
            customer,
            idempotency_key: self.key(),
            wallet: self.wallet(),
            frozen: self.dice.chance(250),
            ..Default::default()
        })
    }

    fn update_wallet(&mut self, customer: String) -> Request {
        let versions = self.heard(&customer, |heard| at_hand(&heard.versions).to_vec());
        let known = (!versions.is_empty()).then(|| self.dice.pick(&versions).clone());
        let (wallet, version) = match known {
            Some((wallet, version)) if self.dice.chance(700) => (wallet, Some(version)),
            _ => (self.wallet(), None),
        };
        let charge_scope = match self.dice.chance(300) {
            true => (*self.dice.pick(&SCOPES)).into(),
            false => v1::ChargeScope::Unspecified.into(),
        };
        Request::UpdateWallet(v1::UpdateWalletRequest {
            customer,
            idempotency_key: self.key(),
            wallet,
            version,
            draw_priority: Some(*self.dice.pick(&[10, 50, 100, 200])),
            charge_scope,
            ..Default::default()
        })
    }

    fn close_wallet(&mut self, customer: String) -> Request {
        let wallet = if self.dice.chance(700) { SPARE.0.to_owned() } else { self.wallet() };
        Request::CloseWallet(v1::CloseWalletRequest {
            customer,
            idempotency_key: self.key(),
            wallet,
            ..Default::default()
        })
    }

    fn wallet(&mut self) -> String {
        let places = if self.dice.chance(60) { WALLETS.len() } else { WALLETS.len() - 1 };
        self.dice.pick(&WALLETS[..places]).0.to_owned()
    }

    /// Room for so many more tranches in a wallet, if there is.
    fn take_room(&self, customer: &str, wallet: &str, count: u64) -> bool {
        self.heard(customer, |heard| {
            let asked = heard.tranches_asked.entry(wallet.to_owned()).or_default();
            let fits = *asked + count <= TRANCHES_PER_WALLET_MAX;
            *asked += if fits { count } else { 0 };
            fits
        })
    }

    fn grant(&mut self, customer: String) -> Request {
        let wallet = self.wallet();
        let count = self.dice.within(1..=3);
        if !self.take_room(&customer, &wallet, count) {
            return self.debit(customer);
        }
        let tranches = (0..count).map(|_| self.tranche()).collect();
        Request::Grant(v1::GrantRequest {
            customer,
            idempotency_key: self.key(),
            wallet,
            tranches,
            ..Default::default()
        })
    }

    /// A grant is confirmed, fails, or is voided.
    fn about_tranche(&mut self, customer: String) -> Request {
        let of = self.or_another(&customer);
        let pending = self.dice.chance(600);
        let known = self.heard(&of, |heard| {
            let known = if pending { &heard.pending } else { &heard.tranches };
            at_hand(known).to_vec()
        });
        let (wallet, tranche_id) = match known.is_empty() || self.dice.chance(20) {
            true => (self.wallet(), TrancheId(u64::MAX).to_string()),
            false => self.dice.pick(&known).clone(),
        };
        let idempotency_key = self.key();
        match self.dice.within(0..=9) {
            0..=5 if pending => {
                use v1::confirm_grant_request::Expiry;
                let expiry = match self.dice.within(0..=3) {
                    0 => Some(Expiry::ExpiresAt(self.soon(1..=40))),
                    1 => Some(Expiry::ExpiresIn(self.lifetime())),
                    _ => None,
                };
                Request::ConfirmGrant(v1::ConfirmGrantRequest {
                    customer,
                    idempotency_key,
                    wallet,
                    tranche_id,
                    expiry,
                    ..Default::default()
                })
            }
            6..=7 => Request::FailGrant(v1::FailGrantRequest {
                customer,
                idempotency_key,
                wallet,
                tranche_id,
                ..Default::default()
            }),
            _ => Request::VoidGrant(v1::VoidGrantRequest {
                customer,
                idempotency_key,
                wallet,
                tranche_id,
                ..Default::default()
            }),
        }
    }

    fn hold(&mut self, customer: String) -> Request {
        let fits = self.heard(&customer, |heard| {
            heard.holds_asked += 1;
            heard.holds_asked <= HOLDS_PER_CUSTOMER_MAX
        });
        if !fits {
            return self.debit(customer);
        }
        let payer = match self.dice.chance(300) {
            true => v1::hold_request::Payer::Asset(credits()),
            false => v1::hold_request::Payer::Wallet(self.wallet()),
        };
        let usage = self.dice.chance(400);
        Request::Hold(v1::HoldRequest {
            customer,
            idempotency_key: self.key(),
            payer: Some(payer),
            amount: self.dice.within(1..=60).to_string(),
            ttl: Some(seconds(self.dice.within(1..=20))),
            charge_type: if usage { v1::ChargeType::Usage.into() } else { 0 },
            feature: self.feature(),
            ..Default::default()
        })
    }

    /// Something about a hold of a customer: now and then about another customer's, or about one that
    /// never was.
    fn about_hold(&mut self, customer: String) -> Request {
        let of = self.or_another(&customer);
        let known = self.heard(&of, |heard| at_hand(&heard.holds).to_vec());
        let hold_id = match known.is_empty() || self.dice.chance(10) {
            true => HoldId(u64::MAX).to_string(),
            false => self.dice.pick(&known).clone(),
        };
        let idempotency_key = self.key();
        match self.dice.within(0..=9) {
            0..=1 => Request::ExtendHold(v1::ExtendHoldRequest {
                customer,
                idempotency_key,
                hold_id,
                ttl: Some(seconds(self.dice.within(1..=30))),
                ..Default::default()
            }),
            2..=3 => Request::Release(v1::ReleaseRequest {
                customer,
                idempotency_key,
                hold_id,
                ..Default::default()
            }),
            _ => {
                let keep_open = self.dice.chance(500);
                let amount = match self.dice.within(0..=4) {
                    0 => String::new(),
                    1 if !keep_open => "0".to_owned(),
                    _ => self.dice.within(1..=40).to_string(),
                };
                Request::Capture(v1::CaptureRequest {
                    customer,
                    idempotency_key,
                    hold_id,
                    amount,
                    keep_open,
                    ..Default::default()
                })
            }
        }
    }

    /// Mostly of what was spent; now and then of another movement.
    fn refund(&mut self, customer: String) -> Request {
        let of = self.or_another(&customer);
        let spent = self.dice.chance(950);
        let known =
            self.heard(&of, |heard| at_hand(if spent { &heard.spent } else { &heard.movements }).to_vec());
        let movement_id = match known.is_empty() || self.dice.chance(10) {
            true => RecordId(u64::MAX).to_string(),
            false => self.dice.pick(&known).clone(),
        };
        let amount = match self.dice.chance(300) {
            true => String::new(),
            false => self.dice.within(1..=25).to_string(),
        };
        Request::Refund(v1::RefundRequest {
            customer,
            idempotency_key: self.key(),
            movement_id,
            amount,
            grace: self.dice.chance(400).then(|| seconds(self.dice.within(1..=30))),
            ..Default::default()
        })
    }

    fn adjust(&mut self, customer: String) -> Request {
        let wallet = self.wallet();
        let (amount, tranche_id, expires_at) = match self.dice.chance(400) {
            true if self.take_room(&customer, &wallet, 1) => {
                let expires_at = self.dice.chance(500).then(|| self.soon(1..=40));
                (self.dice.within(1..=60).to_string(), String::new(), expires_at)
            }
            _ => {
                let known = self.heard(&customer, |heard| heard.tranches.clone());
                let known: Vec<_> = known.into_iter().filter(|(own, _)| *own == wallet).collect();
                let tranche_id = match known.is_empty() || self.dice.chance(500) {
                    true => String::new(),
                    false => self.dice.pick(&known).1.clone(),
                };
                (format!("-{}", self.dice.within(1..=30)), tranche_id, None)
            }
        };
        Request::Adjust(v1::AdjustRequest {
            customer,
            idempotency_key: self.key(),
            wallet,
            amount,
            tranche_id,
            expires_at,
            reason_code: "correction".to_owned(),
            ..Default::default()
        })
    }

    fn soon(&mut self, in_seconds: std::ops::RangeInclusive<u64>) -> prost_types::Timestamp {
        let then = wall_us() + self.dice.within(in_seconds) * 1_000_000;
        timestamp(Time(then.next_multiple_of(EXPIRY_STEP_US)))
    }

    fn lifetime(&mut self) -> v1::CalendarDuration {
        let duration = self.dice.pick(&LIFETIMES).to_string();
        v1::CalendarDuration { duration, ..Default::default() }
    }

    fn feature(&mut self) -> String {
        if self.dice.chance(300) { self.dice.pick(&FEATURES).to_string() } else { String::new() }
    }

    fn tranche(&mut self) -> v1::TrancheSpec {
        use v1::tranche_spec::Expiry;
        let effective_at = if self.dice.chance(150) { Some(self.soon(1..=20)) } else { None };
        let expiry = match self.dice.within(0..=3) {
            0 => Some(Expiry::ExpiresAt(self.soon(21..=60))),
            1 if effective_at.is_none() => Some(Expiry::ExpiresAt(self.soon(1..=20))),
            2 => Some(Expiry::ExpiresIn(self.lifetime())),
            _ => None,
        };
        let dice = &mut self.dice;
        let features = if dice.chance(200) { vec![dice.pick(&FEATURES).to_string()] } else { Vec::new() };
        let external_reference =
            if dice.chance(100) { format!("invoice-{}", dice.within(1..=9)) } else { String::new() };
        v1::TrancheSpec {
            amount: dice.within(1..=60).to_string(),
            kind: (*dice.pick(&KINDS)).into(),
            priority: dice.chance(300).then(|| *dice.pick(&[10, 50, 100, 200])),
            effective_at,
            expiry,
            charge_scope: (*dice.pick(&SCOPES)).into(),
            features,
            external_reference,
            pending: dice.chance(200),
            ..Default::default()
        }
    }

    fn debit(&mut self, customer: String) -> Request {
        use v1::debit_request::Payer;
        let payer = match self.dice.chance(500) {
            true => Payer::Asset(credits()),
            false => Payer::Wallet(self.wallet()),
        };
        let charge_type = *self.dice.pick(&[
            v1::ChargeType::Usage,
            v1::ChargeType::Usage,
            v1::ChargeType::Fixed,
            v1::ChargeType::Unspecified,
        ]);
        let feature = self.feature();
        let dice = &mut self.dice;
        let (amount, allow_partial) = (dice.within(1..=40).to_string(), dice.chance(150));
        let valid_until = dice.chance(50).then(|| timestamp(Time(wall_us() + dice.within(0..=3_000_000))));
        Request::Debit(v1::DebitRequest {
            customer,
            idempotency_key: self.key(),
            payer: Some(payer),
            valid_until,
            amount,
            charge_type: charge_type.into(),
            feature,
            allow_partial,
            ..Default::default()
        })
    }

    /// Balances, mostly; else whatever of it is known to be there.
    fn read(&mut self) -> Request {
        let customer = self.customer();
        let known = self.heard(&customer, |heard| heard.clone());
        let wallets = at_hand(&known.versions);
        let wallet = (!wallets.is_empty()).then(|| self.dice.pick(wallets).0.clone());
        let read = match (self.dice.within(0..=13), wallet) {
            (0, Some(wallet)) => Some(self.get_wallet(&customer, wallet)),
            (1, Some(_)) => {
                let customer = customer.clone();
                Some(Request::ListWallets(v1::ListWalletsRequest { customer, ..Default::default() }))
            }
            (2..=3, Some(wallet)) => Some(self.list_tranches(&customer, wallet)),
            (4, Some(wallet)) => Some(self.list_holds(&customer, wallet)),
            (5, _) => self.get_hold(&customer, at_hand(&known.holds)),
            (6, _) => self.get_movement(&customer, at_hand(&known.movements)),
            (7..=8, Some(_)) => self.explain(&customer),
            _ => None,
        };
        read.unwrap_or_else(|| Request::GetBalance(v1::GetBalanceRequest { customer, ..Default::default() }))
    }

    fn get_wallet(&self, customer: &str, wallet: String) -> Request {
        let customer = customer.to_owned();
        Request::GetWallet(v1::GetWalletRequest { customer, wallet, ..Default::default() })
    }

    fn list_tranches(&self, customer: &str, wallet: String) -> Request {
        let (customer, page) = (customer.to_owned(), Some(whole()));
        Request::ListTranches(v1::ListTranchesRequest { customer, wallet, page, ..Default::default() })
    }

    fn list_holds(&self, customer: &str, wallet: String) -> Request {
        let (customer, page) = (customer.to_owned(), Some(whole()));
        Request::ListHolds(v1::ListHoldsRequest { customer, wallet, page, ..Default::default() })
    }

    fn get_hold(&mut self, customer: &str, holds: &[String]) -> Option<Request> {
        let customer = customer.to_owned();
        let hold_id = (!holds.is_empty()).then(|| self.dice.pick(holds).clone())?;
        Some(Request::GetHold(v1::GetHoldRequest { customer, hold_id, ..Default::default() }))
    }

    fn get_movement(&mut self, customer: &str, movements: &[String]) -> Option<Request> {
        let customer = customer.to_owned();
        let movement_id = (!movements.is_empty()).then(|| self.dice.pick(movements).clone())?;
        Some(Request::GetMovement(v1::GetMovementRequest { customer, movement_id, ..Default::default() }))
    }

    fn explain(&mut self, customer: &str) -> Option<Request> {
        let Request::Debit(debit) = self.debit(customer.to_owned()) else { return None };
        Some(Request::Explain(v1::ExplainRequest { debit: Some(debit) }))
    }
}

/// All rows of a list, oldest first.
fn whole() -> v1::PageRequest {
    v1::PageRequest { size: 1_000, order: v1::SortOrder::OldestFirst.into(), ..Default::default() }
}

fn credits() -> v1::Asset {
    v1::Asset { code: "credits".to_owned(), scale: 0 }
}

/// The true time of day.
fn wall_us() -> u64 {
    Clock::System.now().0
}

fn seconds(seconds: u64) -> prost_types::Duration {
    prost_types::Duration { seconds: seconds as i64, nanos: 0 }
}
