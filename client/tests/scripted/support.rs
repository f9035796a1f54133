//! A node that does what a test tells it to: the services `Ledger` and `Cluster` on loopback, with a
//! script instead of a ledger. What it was asked is written down.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use futures_util::{FutureExt, StreamExt};
use purser_client::{Builder, PurserClient, v1};
use purser_proto::ERROR_DOMAIN;
use purser_proto::v1::cluster_server::{Cluster, ClusterServer};
use purser_proto::v1::ledger_server::{Ledger, LedgerServer};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tonic::transport::server::TcpIncoming;
use tonic::{Code, Request, Response, Status, Streaming};
use tonic_types::{ErrorDetails, StatusExt};

/// One call as it came in.
#[derive(Clone, Debug, PartialEq)]
pub struct Seen {
    /// `debit`, `debit_batch`, `debit_stream`, `write_batch`, `write_stream`, `get_balance`.
    pub method: &'static str,
    /// Whether the caller routes by itself.
    pub direct: bool,
    /// The debits in it; of what is no debit, what a debit shares with it.
    pub debits: Vec<v1::DebitRequest>,
}

impl Seen {
    /// The customers, in order.
    pub fn customers(&self) -> Vec<&str> {
        self.debits.iter().map(|debit| debit.customer.as_str()).collect()
    }
}

type Answer<T> = BoxFuture<'static, Result<T, Status>>;
type OnDebit = dyn Fn(v1::DebitRequest) -> Answer<v1::DebitResponse> + Send + Sync;
type OnMap = dyn Fn() -> Answer<v1::GetShardMapResponse> + Send + Sync;

/// What a node does; shared with the test.
pub struct Script {
    seen: Mutex<Vec<Seen>>,
    maps_asked: AtomicUsize,
    on_debit: Mutex<Arc<OnDebit>>,
    on_map: Mutex<Arc<OnMap>>,
    streams: bool,
}

/// A scripted node on a runtime of its own: dropped or killed, its connections break.
pub struct Node {
    pub address: String,
    script: Arc<Script>,
    runtime: Option<Runtime>,
}

/// A node that applies every debit, and has no shard map.
pub fn node() -> Node {
    start(true)
}

/// The same, without debit streams.
pub fn node_without_streams() -> Node {
    start(false)
}

fn start(streams: bool) -> Node {
    let script = Arc::new(Script {
        seen: Mutex::default(),
        maps_asked: AtomicUsize::new(0),
        on_debit: Mutex::new(Arc::new(|debit| std::future::ready(Ok(applied(&debit))).boxed())),
        on_map: Mutex::new(Arc::new(|| {
            std::future::ready(Err(Status::unimplemented("no shard map here"))).boxed()
        })),
        streams,
    });
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let runtime = runtime.expect("a runtime");
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("its address").to_string();
    listener.set_nonblocking(true).expect("a listener");
    let service = Service(script.clone());
    runtime.spawn(async move {
        let incoming = TcpIncoming::from(TcpListener::from_std(listener).expect("a listener"));
        let server = tonic::transport::Server::builder()
            .add_service(LedgerServer::new(service.clone()))
            .add_service(ClusterServer::new(service));
        server.serve_with_incoming(incoming.with_nodelay(Some(true))).await.expect("it serves");
    });
    Node { address, script, runtime: Some(runtime) }
}

impl Node {
    /// From now on debits are answered so.
    pub fn on_debit<F>(&self, script: impl Fn(v1::DebitRequest) -> F + Send + Sync + 'static)
    where
        F: Future<Output = Result<v1::DebitResponse, Status>> + Send + 'static,
    {
        *lock(&self.script.on_debit) = Arc::new(move |debit| script(debit).boxed());
    }

    /// From now on debits are refused so.
    pub fn refuse(&self, status: Status) {
        self.on_debit(move |_| std::future::ready(Err(status.clone())));
    }

    /// The answers of the first debits, one after the other; those after them are applied.
    pub fn answer_in_turn(&self, statuses: impl IntoIterator<Item = Status>) {
        let statuses = Mutex::new(statuses.into_iter().collect::<std::collections::VecDeque<_>>());
        self.on_debit(move |debit| {
            let next = lock(&statuses).pop_front();
            std::future::ready(next.map_or_else(|| Ok(applied(&debit)), Err))
        });
    }

    /// From now on the shard map is this.
    pub fn on_map<F>(&self, script: impl Fn() -> F + Send + Sync + 'static)
    where
        F: Future<Output = Result<v1::GetShardMapResponse, Status>> + Send + 'static,
    {
        *lock(&self.script.on_map) = Arc::new(move || script().boxed());
    }

    pub fn tell_map(&self, map: v1::GetShardMapResponse) {
        self.on_map(move || std::future::ready(Ok(map.clone())));
    }

    /// The calls that came in, in order; without those for the shard map.
    pub fn seen(&self) -> Vec<Seen> {
        lock(&self.script.seen).clone()
    }

    /// The debits that came in, in order, however they came.
    pub fn debits(&self) -> Vec<v1::DebitRequest> {
        self.seen().into_iter().flat_map(|seen| seen.debits).collect()
    }

    /// How often the shard map was asked for.
    pub fn maps_asked(&self) -> usize {
        self.script.maps_asked.load(Ordering::SeqCst)
    }

    /// Breaks its connections, and is gone.
    pub fn kill(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // Not from within a runtime: it waits until everything is closed.
            let gone = std::thread::spawn(move || runtime.shutdown_timeout(Duration::from_secs(10)));
            gone.join().expect("it stops");
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Lets a script wait for the test, which sees who waits.
#[derive(Clone, Default)]
pub struct Gate(Arc<GateState>);

#[derive(Default)]
struct GateState {
    waiting: AtomicUsize,
    open: Mutex<bool>,
    opened: tokio::sync::Notify,
}

impl Gate {
    /// Waits until it is open.
    pub async fn pass(self) {
        let opened = self.0.opened.notified();
        let mut opened = std::pin::pin!(opened);
        opened.as_mut().enable();
        let open = *lock(&self.0.open);
        self.0.waiting.fetch_add(1, Ordering::SeqCst);
        if !open {
            opened.await;
        }
    }

    /// How many have come to it.
    pub fn came(&self) -> usize {
        self.0.waiting.load(Ordering::SeqCst)
    }

    pub fn open(&self) {
        *lock(&self.0.open) = true;
        self.0.opened.notify_waiters();
    }
}

/// Waits until something is so; a test that waits in vain fails.
pub async fn until(what: impl Fn() -> bool) {
    let waiting = async {
        while !what() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), waiting).await.expect("it comes true");
}

/// A client of these nodes that leaves the clock alone: long deadlines, so that only what a test scripts
/// decides.
pub fn builder(nodes: &[&Node]) -> Builder {
    PurserClient::builder(nodes.iter().map(|node| node.address.clone()))
        .deadline(Duration::from_secs(60))
        .attempt_timeout(Duration::from_secs(30))
        .seed(1)
}

/// A map of 16 shards over nodes `n0`, `n1`, …: shard 10 (customer `globex`) is led by the first number,
/// shard 12 (customer `acme`) by the second; of the others no leader is known.
pub fn map(
    nodes: &[&str],
    epoch: u64,
    globex: Option<usize>,
    acme: Option<usize>,
) -> v1::GetShardMapResponse {
    let shard = |number| {
        let leader = match number {
            10 => globex,
            12 => acme,
            _ => None,
        };
        let leader_node_id = leader.map(|own| format!("n{own}")).unwrap_or_default();
        v1::ShardPlace { node_ids: Vec::new(), leader_node_id, term: 1 }
    };
    let place = |(number, address): (usize, &&str)| v1::NodePlace {
        node_id: format!("n{number}"),
        api_address: (*address).to_owned(),
        peer_address: String::new(),
    };
    v1::GetShardMapResponse {
        cluster_id: "test".to_owned(),
        epoch,
        nodes: nodes.iter().enumerate().map(place).collect(),
        shards: (0..16).map(shard).collect(),
    }
}

pub fn debit(customer: &str) -> v1::DebitRequest {
    v1::DebitRequest {
        customer: customer.to_owned(),
        payer: Some(v1::debit_request::Payer::Wallet("main".to_owned())),
        amount: "5".to_owned(),
        ..Default::default()
    }
}

/// A debit with a reference, to tell those of one customer apart.
pub fn numbered(customer: &str, number: usize) -> v1::DebitRequest {
    v1::DebitRequest { reference: number.to_string(), ..debit(customer) }
}

/// The answer to a debit: the asset's code names its key.
pub fn applied(debit: &v1::DebitRequest) -> v1::DebitResponse {
    let asset = v1::Asset { code: debit.idempotency_key.clone(), scale: 0 };
    v1::DebitResponse { amount: debit.amount.clone(), asset: Some(asset), ..Default::default() }
}

/// A refusal of the ledger.
pub fn refusal(code: Code, reason: &str, pairs: &[(&str, &str)]) -> Status {
    let pairs = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    let pairs: HashMap<String, String> = pairs.collect();
    Status::with_error_details(code, "no", ErrorDetails::with_error_info(reason, ERROR_DOMAIN, pairs))
}

pub fn unavailable() -> Status {
    refusal(Code::Unavailable, "UNAVAILABLE", &[])
}

/// The node does not lead; `leader` does, since `term`.
pub fn not_leader(leader: Option<&str>, term: u64, epoch: u64) -> Status {
    let (term, epoch) = (term.to_string(), epoch.to_string());
    let mut pairs = vec![("shard", "12"), ("term", &term), ("epoch", &epoch)];
    pairs.extend(leader.map(|leader| ("leader", leader)));
    refusal(Code::Unavailable, "NOT_LEADER", &pairs)
}

/// A verdict: the ledger has looked.
pub fn insufficient() -> Status {
    let pairs = [("available", "3"), ("required", "5"), ("log_index", "7"), ("replayed", "false")];
    refusal(Code::FailedPrecondition, "INSUFFICIENT_CREDITS", &pairs)
}

pub fn lock<T: ?Sized>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn as_refusal(status: &Status) -> v1::Refusal {
    let details = status.get_error_details();
    let info = details.error_info().expect("scripts refuse with a reason");
    let metadata: BTreeMap<_, _> = info.metadata.clone().into_iter().collect();
    v1::Refusal { reason: info.reason.clone(), message: status.message().to_owned(), metadata }
}

#[derive(Clone)]
struct Service(Arc<Script>);

impl Service {
    fn note<T>(&self, method: &'static str, request: &Request<T>, debits: Vec<v1::DebitRequest>) {
        let direct = request.metadata().get("purser-route").is_some_and(|value| value == "direct");
        lock(&self.0.seen).push(Seen { method, direct, debits });
    }

    async fn judge(&self, debit: v1::DebitRequest) -> Result<v1::DebitResponse, Status> {
        let script = lock(&self.0.on_debit).clone();
        script(debit).await
    }

    async fn result(&self, debit: v1::DebitRequest) -> v1::DebitResult {
        use v1::debit_result::Outcome;
        let outcome = match self.judge(debit).await {
            Ok(response) => Outcome::Applied(response),
            Err(status) => Outcome::Refused(as_refusal(&status)),
        };
        v1::DebitResult { outcome: Some(outcome) }
    }

    /// What is applied tells its key: a debit by its asset, the others by their operation.
    async fn write_result(&self, write: v1::WriteRequest) -> v1::WriteResult {
        use v1::write_request::Write;
        use v1::write_result::Outcome;
        let debit = as_debit(&write);
        let operation_id = debit.idempotency_key.clone();
        let receipt = Some(v1::Receipt { operation_id, ..Default::default() });
        let outcome = match (self.judge(debit).await, write.write.expect("a write")) {
            (Err(status), _) => Outcome::Refused(as_refusal(&status)),
            (Ok(response), Write::Debit(_)) => Outcome::Debited(response),
            (_, Write::Hold(_)) => Outcome::Held(v1::HoldResponse { receipt, ..Default::default() }),
            (_, Write::ExtendHold(_)) => {
                Outcome::Extended(v1::ExtendHoldResponse { receipt, ..Default::default() })
            }
            (_, Write::Capture(_)) => {
                Outcome::Captured(v1::CaptureResponse { receipt, ..Default::default() })
            }
            (_, Write::Release(_)) => {
                Outcome::Released(v1::ReleaseResponse { receipt, ..Default::default() })
            }
            (_, Write::Grant(_)) => Outcome::Granted(v1::GrantResponse { receipt, ..Default::default() }),
            (_, Write::Refund(_)) => Outcome::Refunded(v1::RefundResponse { receipt, ..Default::default() }),
        };
        v1::WriteResult { outcome: Some(outcome) }
    }
}

/// What a write has in common with a debit: the script judges it as one.
pub fn as_debit(write: &v1::WriteRequest) -> v1::DebitRequest {
    use v1::write_request::Write;
    macro_rules! shared {
        ($own:expr) => {
            v1::DebitRequest {
                namespace: $own.namespace.clone(),
                customer: $own.customer.clone(),
                idempotency_key: $own.idempotency_key.clone(),
                valid_until: $own.valid_until,
                ..Default::default()
            }
        };
        ($own:expr, reference) => {
            v1::DebitRequest { reference: $own.reference.clone(), ..shared!($own) }
        };
    }
    match write.write.as_ref().expect("a write") {
        Write::Debit(own) => own.clone(),
        Write::Hold(own) => shared!(own, reference),
        Write::ExtendHold(own) => shared!(own),
        Write::Capture(own) => shared!(own, reference),
        Write::Release(own) => shared!(own, reference),
        Write::Grant(own) => shared!(own),
        Write::Refund(own) => shared!(own, reference),
    }
}

/// Implements a service: some methods by the script, all others not at all.
macro_rules! service {
    ($trait:ident { $($name:ident($request:ident) -> $response:ident),+ $(,)? } $($scripted:tt)+) => {
        #[tonic::async_trait]
        impl $trait for Service {
            $(async fn $name(&self, _: Request<v1::$request>) -> Result<Response<v1::$response>, Status> {
                Err(Status::unimplemented("not in the script"))
            })+
            $($scripted)+
        }
    };
}

service! {
    Ledger {
        create_wallet(CreateWalletRequest) -> CreateWalletResponse,
        get_wallet(GetWalletRequest) -> GetWalletResponse,
        update_wallet(UpdateWalletRequest) -> UpdateWalletResponse,
        close_wallet(CloseWalletRequest) -> CloseWalletResponse,
        confirm_grant(ConfirmGrantRequest) -> ConfirmGrantResponse,
        fail_grant(FailGrantRequest) -> FailGrantResponse,
        void_grant(VoidGrantRequest) -> VoidGrantResponse,
        refund(RefundRequest) -> RefundResponse,
        adjust(AdjustRequest) -> AdjustResponse,
        list_wallets(ListWalletsRequest) -> ListWalletsResponse,
        freeze_wallet(FreezeWalletRequest) -> FreezeWalletResponse,
        grant(GrantRequest) -> GrantResponse,
        list_tranches(ListTranchesRequest) -> ListTranchesResponse,
        explain(ExplainRequest) -> ExplainResponse,
        hold(HoldRequest) -> HoldResponse,
        extend_hold(ExtendHoldRequest) -> ExtendHoldResponse,
        capture(CaptureRequest) -> CaptureResponse,
        release(ReleaseRequest) -> ReleaseResponse,
        get_hold(GetHoldRequest) -> GetHoldResponse,
        list_holds(ListHoldsRequest) -> ListHoldsResponse,
        list_movements(ListMovementsRequest) -> ListMovementsResponse,
        get_movement(GetMovementRequest) -> GetMovementResponse,
        audit(AuditRequest) -> AuditResponse,
    }

    async fn debit(&self, request: Request<v1::DebitRequest>) -> Result<Response<v1::DebitResponse>, Status> {
        self.note("debit", &request, vec![request.get_ref().clone()]);
        self.judge(request.into_inner()).await.map(Response::new)
    }

    async fn debit_batch(
        &self,
        request: Request<v1::DebitBatchRequest>,
    ) -> Result<Response<v1::DebitBatchResponse>, Status> {
        self.note("debit_batch", &request, request.get_ref().debits.clone());
        let mut results = Vec::new();
        for debit in request.into_inner().debits {
            results.push(self.result(debit).await);
        }
        Ok(Response::new(v1::DebitBatchResponse { results }))
    }

    type DebitStreamStream = BoxStream<'static, Result<v1::DebitStreamResponse, Status>>;

    async fn debit_stream(
        &self,
        request: Request<Streaming<v1::DebitStreamRequest>>,
    ) -> Result<Response<Self::DebitStreamStream>, Status> {
        if !self.0.streams {
            return Err(Status::unimplemented("no streams here"));
        }
        self.note("debit_stream", &request, Vec::new());
        let service = self.clone();
        let answers = request.into_inner().then(move |request| {
            let service = service.clone();
            async move {
                let request = request?;
                let debit = request.debit.expect("a debit");
                service.note("debit_stream", &Request::new(()), vec![debit.clone()]);
                let result = Some(service.result(debit).await);
                Ok(v1::DebitStreamResponse { sequence: request.sequence, result })
            }
        });
        Ok(Response::new(answers.boxed()))
    }

    async fn write_batch(
        &self,
        request: Request<v1::WriteBatchRequest>,
    ) -> Result<Response<v1::WriteBatchResponse>, Status> {
        let writes = &request.get_ref().writes;
        self.note("write_batch", &request, writes.iter().map(as_debit).collect());
        let mut results = Vec::new();
        for write in request.into_inner().writes {
            results.push(self.write_result(write).await);
        }
        Ok(Response::new(v1::WriteBatchResponse { results }))
    }

    type WriteStreamStream = BoxStream<'static, Result<v1::WriteStreamResponse, Status>>;

    async fn write_stream(
        &self,
        request: Request<Streaming<v1::WriteStreamRequest>>,
    ) -> Result<Response<Self::WriteStreamStream>, Status> {
        if !self.0.streams {
            return Err(Status::unimplemented("no streams here"));
        }
        self.note("write_stream", &request, Vec::new());
        let service = self.clone();
        let answers = request.into_inner().then(move |request| {
            let service = service.clone();
            async move {
                let request = request?;
                let write = request.write.expect("a write");
                service.note("write_stream", &Request::new(()), vec![as_debit(&write)]);
                let result = Some(service.write_result(write).await);
                Ok(v1::WriteStreamResponse { sequence: request.sequence, result })
            }
        });
        Ok(Response::new(answers.boxed()))
    }

    /// A balance is read by the script for debits: of its customer.
    async fn get_balance(
        &self,
        request: Request<v1::GetBalanceRequest>,
    ) -> Result<Response<v1::GetBalanceResponse>, Status> {
        self.note("get_balance", &request, Vec::new());
        self.judge(debit(&request.into_inner().customer)).await?;
        Ok(Response::new(v1::GetBalanceResponse::default()))
    }
}

service! {
    Cluster {
        get_node(GetNodeRequest) -> GetNodeResponse,
        found(FoundRequest) -> FoundResponse,
        replace(ReplaceRequest) -> ReplaceResponse,
        join(JoinRequest) -> JoinResponse,
        get_status(GetStatusRequest) -> GetStatusResponse,
    }

    async fn get_shard_map(
        &self,
        _: Request<v1::GetShardMapRequest>,
    ) -> Result<Response<v1::GetShardMapResponse>, Status> {
        self.0.maps_asked.fetch_add(1, Ordering::SeqCst);
        let script = lock(&self.0.on_map).clone();
        script().await.map(Response::new)
    }
}
