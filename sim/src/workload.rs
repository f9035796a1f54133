//! The callers: each sends one request after the other, or several at once, and keeps what it saw.
//! Some talk to the nodes by themselves: they ask any node, with or without being handed on, try again
//! under the same key and repeat old requests. Others are gateways, which leave that to the client
//! library. What they ask is drawn in `drafts`.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use futures_util::future::{join, join_all};
use purser_node::cluster::{NodeId, ShardMap};
use purser_node::peer::Transport;
use purser_proto::v1;

use crate::call::Request;
use crate::dice::Dice;
use crate::drafts::Drafts;
use crate::front;
use crate::gateway::Gateway;
use crate::heard::Heard;
use crate::network::{Line, NoInbox};
use crate::observed::{Answered, Attempt, Told};
use crate::setting::Setting;
use crate::timeline::{Place, Tone};
use crate::trace::now;

/// The upper half of a caller's place in the network.
const CALLERS: u128 = 0xca11;
/// Attempts of all callers together: the model takes quadratic time.
const ATTEMPTS_OF_ALL_MAX: usize = 5_000;
/// How often a request is sent before it is left for the end.
const ATTEMPTS_MAX: u64 = 4;
/// How often of a thousand times a gateway sends what it has to send at once in one call.
const TOGETHER: u64 = 500;
/// How many of these in a thousand go on a stream.
const STREAMED: u64 = 500;
/// How long one attempt waits.
const PATIENCE: std::ops::RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(3);
/// How long the end gives one attempt, and how many of them it makes: what then has no answer never
/// will.
const LAST_PATIENCE: Duration = Duration::from_secs(5);
const LAST_ATTEMPTS_MAX: usize = 60;
const LAST_PAUSE: Duration = Duration::from_millis(200);
/// How many attempts the end makes at one node, which has to find whoever leads.
const ONE_NODE_ATTEMPTS_MAX: usize = 12;

/// What all callers share.
pub struct Callers {
    /// The world around them.
    pub setting: Arc<Setting>,
    map: ShardMap,
    /// The storm is over: no new requests.
    over: AtomicBool,
    streams: AtomicU64,
    attempts: Mutex<Vec<Attempt>>,
    told: Mutex<Vec<Told>>,
    /// What is known of each customer.
    heard: Mutex<BTreeMap<String, Heard>>,
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
            streams: AtomicU64::new(0),
            attempts: Mutex::default(),
            told: Mutex::default(),
            heard: Mutex::default(),
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
        let (tone, became) = match &attempt.answer {
            Answered::Done(_) => (Tone::Plain, "done"),
            Answered::Refused(refused) => (Tone::Plain, refused.reason.as_str()),
            Answered::Unknown(why) => (Tone::Bad, why.as_str()),
        };
        let at = attempt.witness().map_or_else(String::new, |at| format!(", {}/{}", at.shard, at.index));
        let (caller, trace) = (Place::Caller(attempt.client), &self.setting.trace);
        let (method, customer) = (attempt.request.method(), attempt.request.customer().id);
        trace.tell(caller, tone, format_args!("{method} {customer}: {became}{at}"));
        self.heard(attempt.request.customer().id, |heard| heard.hear(&attempt));
        lock(&self.attempts).push(attempt);
    }

    /// What is known of a customer, to be read or noted down.
    pub fn heard<T>(&self, customer: &str, look: impl FnOnce(&mut Heard) -> T) -> T {
        look(lock(&self.heard).entry(customer.to_owned()).or_default())
    }

    /// A number that no other stream has.
    pub fn next_stream(&self) -> u64 {
        self.streams.fetch_add(1, Ordering::Relaxed)
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

    /// The node that is called so, now.
    pub fn node_named(&self, name: &str) -> Option<NodeId> {
        let place = self.setting.founding.nodes.iter().position(|node| node.api_address == name);
        place.map(|place| self.setting.residents()[place])
    }
}

/// One caller.
pub struct Client {
    number: u64,
    callers: Arc<Callers>,
    line: Arc<Line>,
    /// The client library, for those who use it.
    gateway: Option<Gateway>,
    dice: Dice,
    drafts: Drafts,
    /// What has no answer yet.
    unknown: Vec<Request>,
}

impl Client {
    /// A caller; to be made on the node that it lives on.
    pub fn new(number: u64, callers: Arc<Callers>) -> Client {
        let name = format!("c{number}");
        let line = callers.setting.network.plug(Client::id(number), &name, Arc::new(NoInbox));
        let mut dice = Dice::new(callers.setting.world.seed, &name);
        let gateway = dice.chance(callers.setting.world.gateways);
        if gateway {
            callers.setting.network.never_double(Client::id(number));
        }
        let gateway =
            gateway.then(|| Gateway::new(number, dice.any(), Arc::clone(&callers), Arc::clone(&line)));
        let drafts = Drafts::new(number, Arc::clone(&callers));
        Client { number, callers, line, gateway, dice, drafts, unknown: Vec::new() }
    }

    /// A caller's place in the network.
    pub fn id(number: u64) -> NodeId {
        NodeId(uuid::Uuid::from_u128(CALLERS << 64 | u128::from(number)))
    }

    /// Whether a caller has this place.
    pub fn is_id(id: NodeId) -> bool {
        id.0.as_u128() >> 64 == CALLERS
    }

    /// Sends requests while the storm lasts, then gets an answer to each that has none. Gives itself
    /// back.
    pub async fn run(mut self) -> Client {
        let provision = self.drafts.provision();
        self.ask(provision).await;
        while !self.callers.have_enough() {
            let requests = self.drafts.draw();
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
            let nodes = self.callers.setting.residents();
            let node = nodes[turns % nodes.len()];
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

    /// Has each of these nodes answer about each customer, whoever leads: to be called when nothing fails any
    /// more.
    pub async fn ask_each_of(&self, nodes: &[(NodeId, String)]) {
        for (node, name) in nodes {
            for customer in 0..self.callers.setting.world.customers {
                let customer = format!("customer-{customer}");
                let request = v1::GetBalanceRequest { customer, ..Default::default() };
                self.ask_one(*node, name, &Request::GetBalance(request)).await;
            }
        }
    }

    async fn ask_one(&self, node: NodeId, name: &str, request: &Request) {
        let mut turns = 0;
        while self.attempt(node, true, request, LAST_PATIENCE).await.is_unknown() {
            turns += 1;
            if turns >= ONE_NODE_ATTEMPTS_MAX && now() >= self.callers.setting.patience_ends() {
                let what = format!("nothing fails any more, and {name} has no answer to {request:?}");
                self.callers.setting.referee.fail(what);
                std::future::pending::<()>().await;
            }
            tokio::time::sleep(LAST_PAUSE).await;
        }
    }

    /// Sends requests at once, and each again under its key until it has an answer or its turns are
    /// over.
    async fn ask(&mut self, requests: Vec<Request>) {
        if let Some(gateway) = &self.gateway {
            // Several at once go in one call or on one stream, as far as they may, or each by itself.
            let together = requests.len() > 1 && self.dice.chance(TOGETHER);
            let streamed = together && self.dice.chance(STREAMED);
            let (mut writes, mut alone) = (Vec::new(), Vec::new());
            for request in &requests {
                match request.together().filter(|_| together) {
                    Some(write) => writes.push(write),
                    None => alone.push(request),
                }
            }
            let (unknown, answers) = join(
                async {
                    match streamed {
                        true => gateway.ask_on_a_stream(writes).await,
                        false => gateway.ask_together(writes).await,
                    }
                },
                join_all(alone.into_iter().map(|request| gateway.ask(request))),
            )
            .await;
            self.unknown.extend(unknown);
            self.unknown.extend(answers.into_iter().flatten());
            return;
        }
        let mut open = requests;
        for _ in 0..self.dice.within(1..=ATTEMPTS_MAX) {
            let nodes = self.callers.setting.residents();
            let attempts = open.into_iter().map(|request| {
                let node = *self.dice.pick(&nodes);
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
}
