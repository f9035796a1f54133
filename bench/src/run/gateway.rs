//! How the load reaches the servers: the one place that knows of connections, leaders and retries.
//!
//! Each request goes to the leader of its shard where the servers tell the shard map, else to the
//! first server. What may be tried again is, with the same key, so that every outcome becomes known:
//! the books could not be balanced otherwise.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use anyhow::Context;
use purser_ledger::ids::Customer;
use purser_node::cluster::customer_hash;
use purser_proto::v1;
use purser_proto::v1::cluster_client::ClusterClient;
use purser_proto::v1::ledger_client::LedgerClient;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status, Streaming};
use tonic_types::StatusExt;

use super::metrics::Scraper;
use super::target::{Debit, LogCounts, Target, Verdict};
use crate::workload;

/// How long one call may take.
const CALL_MAX: Duration = Duration::from_secs(10);
/// How long a connection may take.
const CONNECT_MAX: Duration = Duration::from_secs(5);
/// How often a request is tried: with the pauses, several seconds.
pub(super) const TRIES_MAX: u32 = 100;
/// The pause before the next try: what servers ask for in `RetryInfo`.
const PAUSE: Duration = Duration::from_millis(50);
/// The longest answer: 8,000 debits with many draws each.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// One client of the servers. Clones of it share connections and what is known of leaders.
#[derive(Clone)]
pub struct Gateway {
    pub(super) shared: Arc<Shared>,
    scraper: Scraper,
    number: usize,
}

pub(super) struct Shared {
    nodes: Vec<Node>,
    /// How much the answers to batches tell.
    detail: v1::ReceiptDetail,
    /// Replicas of a shard.
    replicas: AtomicU64,
    leaders: RwLock<Leaders>,
    pub(super) retries: AtomicU64,
}

struct Node {
    url: String,
    connections: Vec<LedgerClient<Channel>>,
    cluster: ClusterClient<Channel>,
}

/// The hold before a debit, and the capture that is the debit, but for its hold's id.
pub(super) fn hold_requests_of(debit: Debit) -> (v1::HoldRequest, v1::CaptureRequest) {
    let v1::DebitRequest { customer, idempotency_key, amount, payer, .. } = request_of(debit.clone());
    let payer = payer.map(|payer| match payer {
        v1::debit_request::Payer::Wallet(wallet) => v1::hold_request::Payer::Wallet(wallet),
        v1::debit_request::Payer::Asset(asset) => v1::hold_request::Payer::Asset(asset),
    });
    let capture = v1::CaptureRequest {
        customer: customer.clone(),
        idempotency_key: format!("{idempotency_key}-capture"),
        amount,
        ..Default::default()
    };
    let set_aside = debit.amount + debit.amount / 2;
    let hold = v1::HoldRequest {
        customer,
        idempotency_key,
        payer,
        amount: set_aside.to_string(),
        ..Default::default()
    };
    (hold, capture)
}

/// For each shard the place of its leader among the nodes. Empty where servers tell no map.
type Leaders = Arc<[usize]>;

impl Gateway {
    /// Connects to servers, so many connections each. Answers to batches tell as much as `detail` says.
    pub async fn connect(
        urls: &[String],
        connections: usize,
        detail: v1::ReceiptDetail,
    ) -> anyhow::Result<Gateway> {
        let mut nodes = Vec::new();
        for url in urls {
            let endpoint = Endpoint::from_shared(url.clone())?.connect_timeout(CONNECT_MAX).timeout(CALL_MAX);
            let endpoint = endpoint.tcp_nodelay(true);
            let connect =
                async || endpoint.connect().await.with_context(|| format!("no connection to {url}"));
            let mut ledgers = Vec::new();
            for _ in 0..connections.max(1) {
                ledgers.push(LedgerClient::new(connect().await?).max_decoding_message_size(ANSWER_BYTES_MAX));
            }
            let cluster = ClusterClient::new(connect().await?);
            nodes.push(Node { url: url.clone(), connections: ledgers, cluster });
        }
        anyhow::ensure!(!nodes.is_empty(), "no server is named");
        let leaders = RwLock::new(Arc::from([]));
        let (retries, replicas) = (AtomicU64::new(0), AtomicU64::new(1));
        let shared = Shared { nodes, detail, replicas, leaders, retries };
        let scraper = Scraper::new(Vec::new());
        let gateway = Gateway { shared: Arc::new(shared), scraper, number: 0 };
        gateway.learn_leaders().await?;
        Ok(gateway)
    }

    /// The same, with the URLs of the servers' metrics: their logs are read there.
    pub fn with_metrics(self, urls: Vec<String>) -> Gateway {
        Gateway { scraper: Scraper::new(urls), ..self }
    }

    /// How many servers there are.
    pub fn servers(&self) -> usize {
        self.shared.nodes.len()
    }

    /// How the servers are set up, in a few words.
    pub fn setup(&self) -> String {
        let (shards, replicas) = (self.leaders().len(), self.replicas());
        match shards {
            0 => format!("{} servers", self.servers()),
            _ => format!("{} servers, {shards} shards, {replicas} replicas of each", self.servers()),
        }
    }

    fn replicas(&self) -> u64 {
        self.shared.replicas.load(Ordering::Relaxed)
    }

    /// The place among the servers of the one that leads a customer's shard.
    pub fn leader(&self, customer: &str) -> usize {
        leader_of(&self.leaders(), customer)
    }

    /// How much answers tell.
    pub fn detail(&self) -> v1::ReceiptDetail {
        self.shared.detail
    }

    /// Opens a stream of debits to a server, on one of its connections.
    pub async fn debit_stream(
        &self,
        server: usize,
        connection: usize,
        requests: ReceiverStream<v1::DebitStreamRequest>,
    ) -> anyhow::Result<Streaming<v1::DebitStreamResponse>> {
        let connections = &self.shared.nodes[server].connections;
        let mut ledger = connections[connection % connections.len()].clone();
        Ok(ledger.debit_stream(requests).await?.into_inner())
    }

    /// Debits what was sent before in another way, and has no outcome yet.
    pub async fn debit_again(&self, debit: Debit) -> anyhow::Result<Verdict> {
        self.shared.retries.fetch_add(1, Ordering::Relaxed);
        self.pause().await;
        self.debit(debit).await
    }

    /// Grants what the request says.
    pub async fn grant_as(&self, request: &v1::GrantRequest) -> anyhow::Result<()> {
        self.tried(&request.customer, |mut ledger| {
            let request = request.clone();
            async move { ledger.grant(request).await }
        })
        .await?;
        Ok(())
    }

    /// How many movements a customer's wallet has.
    pub async fn movements(&self, customer: &str) -> anyhow::Result<u64> {
        let page =
            v1::PageRequest { size: 1, order: v1::SortOrder::NewestFirst.into(), ..Default::default() };
        let request = v1::ListMovementsRequest {
            customer: customer.to_owned(),
            wallet: workload::WALLET.to_owned(),
            page: Some(page),
            ..Default::default()
        };
        let ask = |mut ledger: LedgerClient<Channel>| {
            let request = request.clone();
            async move { ledger.list_movements(request).await }
        };
        let newest = self.tried(customer, ask).await?.into_inner();
        Ok(newest.movements.first().map_or(0, |own| own.sequence))
    }

    /// Sends a request until it has an answer that is final.
    async fn tried<T, F>(
        &self,
        customer: &str,
        send: impl Fn(LedgerClient<Channel>) -> F,
    ) -> Result<T, Status>
    where
        F: Future<Output = Result<T, Status>>,
    {
        for _ in 1..TRIES_MAX {
            match send(self.ledger(customer)).await {
                Err(status) if may_be_tried_again(&status) => {
                    self.shared.retries.fetch_add(1, Ordering::Relaxed);
                    self.pause().await;
                }
                answer => return answer,
            }
        }
        send(self.ledger(customer)).await
    }

    pub(super) async fn pause(&self) {
        tokio::time::sleep(PAUSE).await;
        // With the old map the next try fails again, and comes back here.
        let _ = self.learn_leaders().await;
    }

    /// A connection to the leader of a customer's shard.
    pub(super) fn ledger(&self, customer: &str) -> LedgerClient<Channel> {
        let node = &self.shared.nodes[leader_of(&self.leaders(), customer)];
        node.connections[self.number % node.connections.len()].clone()
    }

    pub(super) fn leaders(&self) -> Leaders {
        self.shared.leaders.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Asks one server after the other for the shard map, until one tells it.
    async fn learn_leaders(&self) -> anyhow::Result<()> {
        let mut last = None;
        for node in &self.shared.nodes {
            match node.cluster.clone().get_shard_map(v1::GetShardMapRequest {}).await {
                Ok(map) => {
                    let map = map.into_inner();
                    let urls: Vec<_> = self.shared.nodes.iter().map(|node| node.url.as_str()).collect();
                    let leaders = leaders_of(&map, &urls);
                    let replicas = map.shards.first().map_or(1, |shard| shard.node_ids.len().max(1));
                    self.shared.replicas.store(replicas as u64, Ordering::Relaxed);
                    *self.shared.leaders.write().unwrap_or_else(PoisonError::into_inner) = leaders;
                    return Ok(());
                }
                // A server without a cluster leads everything.
                Err(status) if status.code() == Code::Unimplemented => return Ok(()),
                Err(status) => last = Some(status),
            }
        }
        last.map_or(Ok(()), |status| Err(status.into()))
    }
}

impl Target for Gateway {
    fn client(&self, number: usize) -> Gateway {
        Gateway { number, ..self.clone() }
    }

    async fn create(&self, customer: &str, key: String) -> anyhow::Result<()> {
        let request = workload::create_request(customer, key);
        self.tried(customer, |mut ledger| {
            let request = request.clone();
            async move { ledger.create_wallet(request).await }
        })
        .await?;
        Ok(())
    }

    async fn grant(&self, customer: &str, key: String, tranche_credits: u64) -> anyhow::Result<()> {
        self.grant_as(&workload::refill_request(customer, key, tranche_credits)).await
    }

    async fn debit(&self, debit: Debit) -> anyhow::Result<Verdict> {
        let request = request_of(debit);
        let send = |mut ledger: LedgerClient<Channel>| {
            let request = request.clone();
            async move { ledger.debit(request).await }
        };
        match self.tried(&request.customer, send).await {
            Ok(_) => Ok(Verdict::Applied),
            Err(status) if is_short(&reason(&status)) => Ok(Verdict::Short),
            Err(status) => Err(status.into()),
        }
    }

    async fn hold_and_capture(&self, debit: Debit) -> anyhow::Result<Verdict> {
        let (hold, capture) = hold_requests_of(debit);
        let place = |mut ledger: LedgerClient<Channel>| {
            let request = hold.clone();
            async move { ledger.hold(request).await }
        };
        let held = match self.tried(&hold.customer, place).await {
            Ok(held) => held.into_inner().hold.context("a hold has a state")?,
            Err(status) if is_short(&reason(&status)) => return Ok(Verdict::Short),
            Err(status) => return Err(status.into()),
        };
        let capture = v1::CaptureRequest { hold_id: held.hold_id, ..capture };
        let spend = |mut ledger: LedgerClient<Channel>| {
            let request = capture.clone();
            async move { ledger.capture(request).await }
        };
        self.tried(&hold.customer, spend).await?;
        Ok(Verdict::Applied)
    }

    async fn debit_batch(&self, debits: Vec<Debit>) -> anyhow::Result<Vec<Verdict>> {
        self.batch(debits.into_iter().map(request_of).collect()).await
    }

    async fn hold_and_capture_batch(&self, debits: Vec<Debit>) -> anyhow::Result<Vec<Verdict>> {
        self.hold_and_capture_all(debits).await
    }

    async fn available(&self, customer: &str) -> anyhow::Result<u64> {
        let request = v1::GetBalanceRequest { customer: customer.to_owned(), ..Default::default() };
        let ask = |mut ledger: LedgerClient<Channel>| {
            let request = request.clone();
            async move { ledger.get_balance(request).await }
        };
        let balance = self.tried(customer, ask).await?.into_inner();
        let totals = balance.totals.iter().map(|total| total.available.parse::<u64>());
        Ok(totals.sum::<Result<u64, _>>()?)
    }

    fn retries(&self) -> u64 {
        self.shared.retries.load(Ordering::Relaxed)
    }

    async fn log(&self) -> anyhow::Result<Option<LogCounts>> {
        let written = self.scraper.log().await?;
        Ok(written.map(|log| LogCounts { entries: log.entries / self.replicas(), ..log }))
    }
}

/// The request of a debit.
pub fn request_of(debit: Debit) -> v1::DebitRequest {
    workload::debit_request(&debit.customer, debit.key, debit.amount)
}

/// For each shard the place of its leader among the servers' URLs; the first where it is not known.
fn leaders_of(map: &v1::GetShardMapResponse, urls: &[&str]) -> Leaders {
    let address_of =
        |id: &str| map.nodes.iter().find(|node| node.node_id == id).map(|node| &node.api_address);
    let place_of = |address: &String| urls.iter().position(|url| url.ends_with(address.as_str()));
    let leader = |shard: &v1::ShardPlace| address_of(&shard.leader_node_id).and_then(place_of).unwrap_or(0);
    map.shards.iter().map(leader).collect()
}

/// The place of the node that leads a customer's shard: shards are equal ranges of the hash.
pub(super) fn leader_of(leaders: &[usize], customer: &str) -> usize {
    let hash = customer_hash(Customer { namespace: "default", id: customer });
    match leaders.len().trailing_zeros() {
        _ if leaders.is_empty() => 0,
        0 => leaders[0],
        bits => leaders[(hash >> (64 - bits)) as usize],
    }
}

/// Nothing that a debit may draw on is nothing where there are tranches that it may not.
pub(super) fn is_short(reason: &str) -> bool {
    ["INSUFFICIENT_CREDITS", "NO_ELIGIBLE_TRANCHE"].contains(&reason)
}

pub(super) fn may_be_tried_again(status: &Status) -> bool {
    matches!(status.code(), Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled)
}

fn reason(status: &Status) -> String {
    status.get_details_error_info().map(|info| info.reason).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_customer_goes_to_the_leader_of_its_range() {
        let node = |id: &str, port: u16| v1::NodePlace {
            node_id: id.to_owned(),
            api_address: format!("127.0.0.1:{port}"),
            ..Default::default()
        };
        let shard = |leader: &str| v1::ShardPlace { leader_node_id: leader.to_owned(), ..Default::default() };
        let map = v1::GetShardMapResponse {
            nodes: vec![node("a", 7001), node("b", 7002)],
            shards: vec![shard("b"), shard("a"), shard(""), shard("b")],
            ..Default::default()
        };
        let leaders = leaders_of(&map, &["http://127.0.0.1:7001", "http://127.0.0.1:7002"]);
        assert_eq!(*leaders, [1, 0, 0, 1]);
        // acme's hash begins with c4, the last quarter; é's with cb.
        assert_eq!((leader_of(&leaders, "acme"), leader_of(&leaders, "é")), (1, 1));
        // globex's begins with af, the third quarter, whose leader is not known.
        assert_eq!(leader_of(&leaders, "globex"), 0);
        assert_eq!((leader_of(&[], "acme"), leader_of(&[1], "acme")), (0, 1));
    }
}
