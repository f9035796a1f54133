//! The callers: each sends one request after the other, or several at once, and keeps what it saw.
//! Some talk to the nodes by themselves: they ask any node, with or without being handed on, try again
//! under the same key and repeat old requests. Others are gateways, which leave that to the client
//! library. Requests come from small spaces, so that they meet.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use futures_util::future::join_all;
use purser_ledger::time::Time;
use purser_node::api::shape::timestamp;
use purser_node::clock::Clock;
use purser_node::cluster::{NodeId, ShardMap};
use purser_node::peer::Transport;
use purser_proto::v1;

use crate::call::{Request, Response};
use crate::dice::Dice;
use crate::front;
use crate::gateway::Gateway;
use crate::network::{Line, NoInbox};
use crate::observed::{Answered, Attempt, Told};
use crate::seat::Setting;
use crate::trace::now;

/// Most tranches that are asked for in one wallet: fewer than one command books when they are due,
/// so that no command ever meets a backlog.
const TRANCHES_PER_WALLET_MAX: u64 = 36;
/// Most holds that are asked for of one customer, for the same reason.
const HOLDS_PER_CUSTOMER_MAX: usize = 24;
/// The holds of a customer that callers reach for: the last ones, so that they meet.
const HOLDS_AT_HAND: usize = 5;
/// Attempts of all callers together: the model takes quadratic time.
const ATTEMPTS_OF_ALL_MAX: usize = 5_000;
/// How often a request is sent before it is left for the end.
const ATTEMPTS_MAX: u64 = 4;
/// How long one attempt waits.
const PATIENCE: std::ops::RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(3);
/// How long the end gives one attempt, and how many of them it makes: what then has no answer never
/// will.
const LAST_PATIENCE: Duration = Duration::from_secs(5);
const LAST_ATTEMPTS_MAX: usize = 60;
const LAST_PAUSE: Duration = Duration::from_millis(200);

type WalletOf = (&'static str, u32, v1::ChargeScope, v1::BurnPolicy);

/// The wallets of each customer, all of one asset: name, priority, scope, burn policy.
const WALLETS: [WalletOf; 3] = [
    ("main", 100, v1::ChargeScope::Any, v1::BurnPolicy::Standard),
    ("bonus", 50, v1::ChargeScope::Any, v1::BurnPolicy::SpecificFirst),
    ("usage", 100, v1::ChargeScope::Usage, v1::BurnPolicy::Standard),
];
const FEATURES: [&str; 2] = ["chat", "image"];
const KINDS: [v1::TrancheKind; 4] = [
    v1::TrancheKind::Plan,
    v1::TrancheKind::Promotional,
    v1::TrancheKind::Committed,
    v1::TrancheKind::Purchased,
];
const SCOPES: [v1::ChargeScope; 4] =
    [v1::ChargeScope::Any, v1::ChargeScope::Any, v1::ChargeScope::Usage, v1::ChargeScope::Fixed];

/// What all callers share.
pub struct Callers {
    /// The world around them.
    pub setting: Arc<Setting>,
    map: ShardMap,
    /// The storm is over: no new requests.
    over: AtomicBool,
    attempts: Mutex<Vec<Attempt>>,
    told: Mutex<Vec<Told>>,
    tranches: Mutex<BTreeMap<(String, String), u64>>,
    /// The holds of each customer: how many were asked for, and those that callers heard of.
    holds: Mutex<BTreeMap<String, (usize, Vec<String>)>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

impl Callers {
    /// Callers of all nodes.
    pub fn new(setting: Arc<Setting>) -> Callers {
        let map = ShardMap::new(setting.world.shards).expect("worlds have shards");
        Callers {
            setting,
            map,
            over: AtomicBool::new(false),
            attempts: Mutex::default(),
            told: Mutex::default(),
            tranches: Mutex::default(),
            holds: Mutex::default(),
        }
    }

    /// Ends the storm.
    pub fn end(&self) {
        self.over.store(true, Ordering::Relaxed);
    }

    fn have_enough(&self) -> bool {
        self.over.load(Ordering::Relaxed) || lock(&self.attempts).len() >= ATTEMPTS_OF_ALL_MAX
    }

    /// All attempts, in the order in which they ended.
    pub fn attempts(&self) -> Vec<Attempt> {
        lock(&self.attempts).clone()
    }

    /// What gateways were told, in order.
    pub fn all_told(&self) -> Vec<Told> {
        lock(&self.told).clone()
    }

    /// Keeps an attempt.
    pub fn note(&self, attempt: Attempt) {
        self.hear_of_hold(&attempt);
        lock(&self.attempts).push(attempt);
    }

    fn hear_of_hold(&self, attempt: &Attempt) {
        let Answered::Done(response) = &attempt.answer else { return };
        let Response::Hold(v1::HoldResponse { hold: Some(hold), .. }) = &**response else { return };
        let mut holds = lock(&self.holds);
        let (_, known) = holds.entry(attempt.request.customer().id.to_owned()).or_default();
        if !known.contains(&hold.hold_id) {
            known.push(hold.hold_id.clone());
        }
    }

    /// Keeps what a gateway was told.
    pub fn told(&self, told: Told) {
        lock(&self.told).push(told);
    }

    /// The last log index that a request's shard has applied anywhere by now.
    pub fn applied_by_now(&self, request: &Request) -> u64 {
        self.setting.history.last_index(self.map.shard_of(request.customer()).0)
    }

    /// What the nodes are called.
    pub fn node_names(&self) -> Vec<String> {
        self.setting.founding.nodes.iter().map(|node| node.api_address.clone()).collect()
    }

    /// The node that is called so.
    pub fn node_named(&self, name: &str) -> Option<NodeId> {
        self.setting.founding.nodes.iter().find(|node| node.api_address == name).map(|node| node.id)
    }
}

/// One caller.
pub struct Client {
    number: u64,
    callers: Arc<Callers>,
    line: Arc<Line>,
    nodes: Vec<NodeId>,
    /// The client library, for those who use it.
    gateway: Option<Gateway>,
    dice: Dice,
    keys: u64,
    /// What it sent, to be repeated.
    sent: Vec<Request>,
    /// What has no answer yet.
    unknown: Vec<Request>,
}

impl Client {
    /// A caller; to be made on the node that it lives on.
    pub fn new(number: u64, callers: Arc<Callers>) -> Client {
        let name = format!("c{number}");
        let line = callers.setting.network.plug(Client::id(number), &name, Arc::new(NoInbox));
        let mut dice = Dice::new(callers.setting.world.seed, &name);
        let nodes = callers.setting.founding.nodes.iter().map(|node| node.id).collect();
        let gateway = dice.chance(callers.setting.world.gateways);
        if gateway {
            callers.setting.network.never_double(Client::id(number));
        }
        let gateway =
            gateway.then(|| Gateway::new(number, dice.any(), Arc::clone(&callers), Arc::clone(&line)));
        Client { number, callers, line, nodes, gateway, dice, keys: 0, sent: Vec::new(), unknown: Vec::new() }
    }

    /// A caller's place in the network.
    pub fn id(number: u64) -> NodeId {
        NodeId(uuid::Uuid::from_u128(0xca11 << 64 | u128::from(number)))
    }

    /// Sends requests while the storm lasts, then gets an answer to each that has none. Gives itself
    /// back.
    pub async fn run(mut self) -> Client {
        let provision = self.provision();
        self.ask(provision).await;
        while !self.callers.have_enough() {
            let requests = self.next_requests();
            self.ask(requests).await;
            let think = self.callers.setting.world.think.clone();
            tokio::time::sleep(self.dice.span(&think)).await;
        }
        self
    }

    /// Gets an answer to each write that has none.
    pub async fn settle(&mut self) {
        for mut request in std::mem::take(&mut self.unknown) {
            let Some(gateway) = &self.gateway else {
                self.answer_to(&request).await;
                continue;
            };
            let mut turns = 0;
            while let Some(still) = gateway.resolve(&request).await {
                request = still;
                turns += 1;
                if turns >= LAST_ATTEMPTS_MAX {
                    self.give_up(&request).await;
                }
                tokio::time::sleep(LAST_PAUSE).await;
            }
        }
    }

    /// Ends the run, unless there is a reason to wait on.
    async fn give_up(&self, request: &Request) {
        if now() < self.callers.setting.patience_ends() {
            return;
        }
        let what = format!("nothing fails any more, and there is no answer to {request:?}");
        self.callers.setting.referee.fail(what);
        std::future::pending().await
    }

    /// Asks until there is an answer: to be called when nothing fails any more.
    pub async fn answer_to(&self, request: &Request) -> Answered {
        let mut turns = 0;
        loop {
            let node = self.nodes[turns % self.nodes.len()];
            let answer = self.attempt(node, true, request, LAST_PATIENCE).await;
            if !answer.is_unknown() {
                return answer;
            }
            turns += 1;
            if turns >= LAST_ATTEMPTS_MAX {
                self.give_up(request).await;
            }
            tokio::time::sleep(LAST_PAUSE).await;
        }
    }

    /// Sends requests at once, and each again under its key until it has an answer or its turns are
    /// over.
    async fn ask(&mut self, requests: Vec<Request>) {
        if let Some(gateway) = &self.gateway {
            let answers = join_all(requests.iter().map(|request| gateway.ask(request))).await;
            self.unknown.extend(answers.into_iter().flatten());
            return;
        }
        let mut open = requests;
        for _ in 0..self.dice.within(1..=ATTEMPTS_MAX) {
            let attempts = open.into_iter().map(|request| {
                let node = *self.dice.pick(&self.nodes);
                let patience = self.dice.span(&PATIENCE);
                (node, self.dice.chance(700), patience, request)
            });
            let attempts: Vec<_> = attempts.collect();
            let client = &*self;
            let answers = attempts.into_iter().map(async |(node, any, patience, request)| {
                let answer = client.attempt(node, any, &request, patience).await;
                answer.is_unknown().then_some(request)
            });
            open = join_all(answers).await.into_iter().flatten().collect();
            if open.is_empty() {
                return;
            }
            let pause = Duration::from_millis(self.dice.within(1..=300));
            tokio::time::sleep(pause).await;
        }
        self.unknown.extend(open.into_iter().filter(Request::is_write));
    }

    /// Sends a request once; `any`: the node may hand it on.
    async fn attempt(&self, node: NodeId, any: bool, request: &Request, patience: Duration) -> Answered {
        let begun = now();
        let message = front::message(any.then_some(patience), &request.encode());
        let answer = self.line.call(node, message, patience).await;
        let answer = match answer {
            Ok(bytes) => Answered::of(request.decode_answer(&bytes)),
            Err(error) => Answered::Unknown(error.to_string()),
        };
        let applied_by_then = self.callers.applied_by_now(request);
        let (client, request) = (self.number, request.clone());
        let attempt =
            Attempt { client, request, begun, ended: now(), answer: answer.clone(), applied_by_then };
        self.callers.note(attempt);
        answer
    }

    /// Wallets with credits, so that there is something to spend from the start. Several callers may do
    /// this for one customer.
    fn provision(&mut self) -> Vec<Request> {
        let customer = format!("customer-{}", self.number % self.callers.setting.world.customers);
        let mut requests: Vec<Request> =
            WALLETS.iter().map(|wallet| self.create_wallet(customer.clone(), *wallet)).collect();
        requests.extend((0..4).map(|_| self.grant(customer.clone())));
        self.sent.extend(requests.iter().cloned());
        requests
    }

    /// One request, or several that are sent at once.
    fn next_requests(&mut self) -> Vec<Request> {
        match self.dice.within(0..=99) {
            0..=4 if !self.sent.is_empty() => {
                let again = self.dice.pick(&self.sent).clone();
                vec![again]
            }
            // The same one twice at once.
            5..=8 => {
                let request = self.write();
                vec![request.clone(), request]
            }
            9..=14 => (0..self.dice.within(2..=20)).map(|_| self.write()).collect(),
            15..=29 => vec![self.balance()],
            _ => vec![self.write()],
        }
    }

    fn write(&mut self) -> Request {
        let customer = format!("customer-{}", self.dice.within(0..=self.callers.setting.world.customers - 1));
        let request = match self.dice.within(0..=99) {
            0..=2 => {
                let wallet = *self.dice.pick(&WALLETS);
                self.create_wallet(customer, wallet)
            }
            3..=4 => self.freeze_wallet(customer),
            5..=20 => self.grant(customer),
            21..=34 => self.hold(customer),
            35..=54 => self.about_hold(customer),
            _ => self.debit(customer),
        };
        self.sent.push(request.clone());
        request
    }

    /// A new key, or now and then one that stands for another request.
    fn key(&mut self) -> String {
        self.keys += 1;
        let number = if self.dice.chance(20) { self.dice.within(1..=self.keys) } else { self.keys };
        format!("c{}-{number}", self.number)
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

    fn wallet(&mut self) -> String {
        self.dice.pick(&WALLETS).0.to_owned()
    }

    fn grant(&mut self, customer: String) -> Request {
        let wallet = self.wallet();
        let count = self.dice.within(1..=3);
        {
            let mut tranches = lock(&self.callers.tranches);
            let asked = tranches.entry((customer.clone(), wallet.clone())).or_default();
            if *asked + count > TRANCHES_PER_WALLET_MAX {
                drop(tranches);
                return self.debit(customer);
            }
            *asked += count;
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

    fn hold(&mut self, customer: String) -> Request {
        {
            let mut holds = lock(&self.callers.holds);
            let (asked, _) = holds.entry(customer.clone()).or_default();
            if *asked >= HOLDS_PER_CUSTOMER_MAX {
                drop(holds);
                return self.debit(customer);
            }
            *asked += 1;
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
            feature: if self.dice.chance(300) {
                self.dice.pick(&FEATURES).to_string()
            } else {
                String::new()
            },
            ..Default::default()
        })
    }

    /// Something about a hold of a customer: now and then about another customer's, or about one that
    /// never was.
    fn about_hold(&mut self, customer: String) -> Request {
        let known = match self.dice.chance(950) {
            true => lock(&self.callers.holds).get(&customer).map(|(_, known)| known.clone()),
            false => lock(&self.callers.holds).values().next().map(|(_, known)| known.clone()),
        };
        let known = known.unwrap_or_default();
        let at_hand = &known[known.len().saturating_sub(HOLDS_AT_HAND)..];
        let hold_id = match at_hand.is_empty() || self.dice.chance(10) {
            true => purser_ledger::ids::HoldId(u64::MAX).to_string(),
            false => self.dice.pick(at_hand).clone(),
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

    fn tranche(&mut self) -> v1::TrancheSpec {
        use v1::tranche_spec::Expiry;
        let dice = &mut self.dice;
        let soon = |seconds| Some(timestamp(Time(wall_us() + seconds * 1_000_000)));
        let effective_at = if dice.chance(150) { soon(dice.within(1..=20)) } else { None };
        let expiry = match dice.within(0..=3) {
            0 => soon(dice.within(21..=60)).map(Expiry::ExpiresAt),
            1 => soon(dice.within(1..=20)).map(Expiry::ExpiresAt).filter(|_| effective_at.is_none()),
            2 => {
                let duration = dice.pick(&["PT30S", "P1D", "P1M"]).to_string();
                Some(Expiry::ExpiresIn(v1::CalendarDuration { duration, ..Default::default() }))
            }
            _ => None,
        };
        let feature = if dice.chance(200) { vec![dice.pick(&FEATURES).to_string()] } else { Vec::new() };
        let external_reference =
            if dice.chance(100) { format!("invoice-{}", dice.within(1..=9)) } else { String::new() };
        v1::TrancheSpec {
            amount: dice.within(1..=60).to_string(),
            kind: (*dice.pick(&KINDS)).into(),
            priority: dice.chance(300).then(|| *dice.pick(&[10, 50, 100, 200])),
            effective_at,
            expiry,
            charge_scope: (*dice.pick(&SCOPES)).into(),
            features: feature,
            external_reference,
            ..Default::default()
        }
    }

    fn debit(&mut self, customer: String) -> Request {
        use v1::debit_request::Payer;
        let dice = &mut self.dice;
        let payer = match dice.chance(500) {
            true => Payer::Asset(credits()),
            false => Payer::Wallet(dice.pick(&WALLETS).0.to_owned()),
        };
        let charge_type = *dice.pick(&[
            v1::ChargeType::Usage,
            v1::ChargeType::Usage,
            v1::ChargeType::Fixed,
            v1::ChargeType::Unspecified,
        ]);
        let feature = if dice.chance(300) { dice.pick(&FEATURES).to_string() } else { String::new() };
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

    fn balance(&mut self) -> Request {
        let customer = format!("customer-{}", self.dice.within(0..=self.callers.setting.world.customers - 1));
        Request::GetBalance(v1::GetBalanceRequest { customer, ..Default::default() })
    }
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
