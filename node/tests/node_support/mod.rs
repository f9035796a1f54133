//! What tests of a running node share: a node in this process, the binary as a child process,
//! requests, and what a refusal says.
//!
//! A node in this process runs on a test clock that stands at [`T0`], so that every expected time is a
//! number in the test. The child process runs on the real clock unless it is told otherwise.

#![allow(dead_code)] // each test program uses a part of it

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};

use prost_types::Timestamp;
use purser_node::config::Config;
use purser_node::server::{self, Listeners, Server};
use purser_proto::v1;
use purser_proto::v1::admin_client::AdminClient;
use purser_proto::v1::ledger_client::LedgerClient;
use tokio::sync::watch;
use tonic::Status;
use tonic::transport::Channel;
use tonic_types::StatusExt;

/// Where the test clock stands at first: 2040-01-01T00:00:00Z, in microseconds since 1970.
pub const T0: u64 = 2_208_988_800 * SECOND;
/// A second in microseconds.
pub const SECOND: u64 = 1_000_000;
/// A day in microseconds.
pub const DAY: u64 = 86_400 * SECOND;

/// Most rows of a page.
const ROWS_MAX: u32 = 1_000;

/// A node in this process, and a client of it.
pub struct Running {
    pub ledger: LedgerClient<Channel>,
    pub admin: AdminClient<Channel>,
    stop: watch::Sender<bool>,
    served: tokio::task::JoinHandle<anyhow::Result<()>>,
    data: tempfile::TempDir,
}

/// A node of one shard on a directory, on free ports, that is not served.
pub async fn unserved(config: Config) -> server::Running {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let config = Config { listen: any, admin_listen: any, shards: Some(1), ..config };
    let listeners = Listeners::bind(&config).await.expect("ports");
    alone(config, listeners).await
}

/// A cluster of one node, that leads every shard.
async fn alone(config: Config, listeners: Listeners) -> server::Running {
    let mut server = Server::open(config, listeners).expect("a data directory");
    server.found_alone().expect("a cluster of one");
    let running = server.start().await.expect("a node");
    running.node().ready().await.expect("leaders");
    running
}

impl Running {
    /// Starts a node of two shards on a new directory; its clock stands at [`T0`].
    pub async fn start() -> Running {
        let data = tempfile::tempdir().expect("a folder");
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let config = Config {
            data: data.path().join("data"),
            listen: any,
            admin_listen: any,
            shards: Some(2),
            test_clock: true,
            cache_mib: 8,
            ..Config::default()
        };
        let listeners = Listeners::bind(&config).await.expect("ports");
        let url = format!("http://{}", listeners.api_address);
        let running = alone(config, listeners).await;
        let (stop, stopped) = watch::channel(false);
        let served = tokio::spawn(running.serve(stopped));
        let ledger = LedgerClient::connect(url.clone()).await.expect("a connection");
        let admin = AdminClient::connect(url).await.expect("a connection");
        let mut running = Running { ledger, admin, stop, served, data };
        running.set_clock(T0).await;
        running
    }

    /// Stops it; it must end without an error.
    pub async fn stop(self) {
        let Running { ledger, admin, stop, served, data } = self;
        drop((ledger, admin));
        stop.send(true).expect("the node still serves");
        served.await.expect("no panic").expect("a clean end");
        drop(data);
    }

    pub async fn set_clock(&mut self, micros: u64) {
        let to = Some(v1::advance_clock_request::To::Set(at(micros)));
        self.admin.advance_clock(v1::AdvanceClockRequest { to }).await.expect("the clock moves");
    }

    pub async fn create(&mut self, request: v1::CreateWalletRequest) -> v1::CreateWalletResponse {
        self.ledger.create_wallet(request).await.expect("a wallet").into_inner()
    }

    /// A wallet of `credits/0` with these tranches.
    pub async fn wallet_with(&mut self, customer: &str, wallet: &str, tranches: Vec<v1::TrancheSpec>) {
        self.create(create_request(customer, wallet, 0)).await;
        self.grant(customer, wallet, tranches).await;
    }

    pub async fn grant(
        &mut self,
        customer: &str,
        wallet: &str,
        tranches: Vec<v1::TrancheSpec>,
    ) -> v1::GrantResponse {
        self.ledger.grant(grant_request(customer, wallet, tranches)).await.expect("a grant").into_inner()
    }

    pub async fn debit(&mut self, request: v1::DebitRequest) -> Result<v1::DebitResponse, Status> {
        self.ledger.debit(request).await.map(tonic::Response::into_inner)
    }

    pub async fn hold(&mut self, request: v1::HoldRequest) -> Result<v1::HoldResponse, Status> {
        self.ledger.hold(request).await.map(tonic::Response::into_inner)
    }

    pub async fn extend(&mut self, request: v1::ExtendHoldRequest) -> Result<v1::ExtendHoldResponse, Status> {
        self.ledger.extend_hold(request).await.map(tonic::Response::into_inner)
    }

    pub async fn capture(&mut self, request: v1::CaptureRequest) -> Result<v1::CaptureResponse, Status> {
        self.ledger.capture(request).await.map(tonic::Response::into_inner)
    }

    pub async fn release(&mut self, request: v1::ReleaseRequest) -> Result<v1::ReleaseResponse, Status> {
        self.ledger.release(request).await.map(tonic::Response::into_inner)
    }

    /// A hold that is there.
    pub async fn get_hold(&mut self, customer: &str, hold_id: &str) -> v1::Hold {
        let (customer, hold_id) = (customer.to_owned(), hold_id.to_owned());
        let request = v1::GetHoldRequest { customer, hold_id, ..Default::default() };
        let answer = self.ledger.get_hold(request).await.expect("a hold").into_inner();
        answer.hold.expect("a hold")
    }

    pub async fn freeze(&mut self, customer: &str, wallet: &str, frozen: bool) {
        let request = v1::FreezeWalletRequest {
            customer: customer.to_owned(),
            wallet: wallet.to_owned(),
            idempotency_key: fresh_key(),
            frozen,
            ..Default::default()
        };
        self.ledger.freeze_wallet(request).await.expect("frozen or thawed");
    }

    /// The balance of one wallet.
    pub async fn balance(&mut self, customer: &str, wallet: &str) -> v1::Balance {
        let request = v1::GetBalanceRequest {
            customer: customer.to_owned(),
            wallet: wallet.to_owned(),
            ..Default::default()
        };
        let mut answer = self.ledger.get_balance(request).await.expect("a balance").into_inner();
        assert_eq!(answer.wallets.len(), 1);
        answer.wallets.remove(0).balance.expect("a balance")
    }

    pub async fn movements(&mut self, customer: &str, wallet: &str) -> Vec<v1::Movement> {
        movements(&mut self.ledger, customer, wallet).await
    }

    pub async fn audit(&mut self, customer: &str) -> v1::AuditResponse {
        let request = v1::AuditRequest { customer: customer.to_owned(), ..Default::default() };
        self.ledger.audit(request).await.expect("an audit").into_inner()
    }
}

/// All movements of a wallet, oldest first.
pub async fn movements(
    ledger: &mut LedgerClient<Channel>,
    customer: &str,
    wallet: &str,
) -> Vec<v1::Movement> {
    let mut all = Vec::new();
    let mut cursor = String::new();
    loop {
        let order = v1::SortOrder::OldestFirst.into();
        let page = v1::PageRequest { size: ROWS_MAX, cursor, order };
        let request = v1::ListMovementsRequest {
            customer: customer.to_owned(),
            wallet: wallet.to_owned(),
            page: Some(page),
            ..Default::default()
        };
        let answer = ledger.list_movements(request).await.expect("movements").into_inner();
        all.extend(answer.movements);
        cursor = answer.page.expect("cursors").next_cursor;
        if cursor.is_empty() {
            return all;
        }
    }
}

/// Microseconds since 1970 as a timestamp.
pub fn at(micros: u64) -> Timestamp {
    Timestamp {
        seconds: i64::try_from(micros / SECOND).expect("in range"),
        nanos: i32::try_from(micros % SECOND * 1_000).expect("in range"),
    }
}

/// So many microseconds as a duration.
pub fn lasting(micros: u64) -> prost_types::Duration {
    let Timestamp { seconds, nanos } = at(micros);
    prost_types::Duration { seconds, nanos }
}

/// A key that no other call of this process uses.
pub fn fresh_key() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    format!("key-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

pub fn asset(scale: u32) -> v1::Asset {
    v1::Asset { code: "credits".to_owned(), scale }
}

pub fn create_request(customer: &str, wallet: &str, scale: u32) -> v1::CreateWalletRequest {
    v1::CreateWalletRequest {
        customer: customer.to_owned(),
        wallet: wallet.to_owned(),
        idempotency_key: fresh_key(),
        asset: Some(asset(scale)),
        ..Default::default()
    }
}

pub fn grant_request(customer: &str, wallet: &str, tranches: Vec<v1::TrancheSpec>) -> v1::GrantRequest {
    v1::GrantRequest {
        customer: customer.to_owned(),
        wallet: wallet.to_owned(),
        idempotency_key: fresh_key(),
        tranches,
        ..Default::default()
    }
}

pub fn tranche(amount: &str, kind: v1::TrancheKind) -> v1::TrancheSpec {
    v1::TrancheSpec { amount: amount.to_owned(), kind: kind.into(), ..Default::default() }
}

pub fn expiring(amount: &str, kind: v1::TrancheKind, expires_at: u64) -> v1::TrancheSpec {
    v1::TrancheSpec {
        expiry: Some(v1::tranche_spec::Expiry::ExpiresAt(at(expires_at))),
        ..tranche(amount, kind)
    }
}

/// A debit of one wallet under a fresh key.
pub fn debit_request(customer: &str, wallet: &str, amount: &str) -> v1::DebitRequest {
    v1::DebitRequest {
        customer: customer.to_owned(),
        idempotency_key: fresh_key(),
        payer: Some(v1::debit_request::Payer::Wallet(wallet.to_owned())),
        amount: amount.to_owned(),
        ..Default::default()
    }
}

/// A hold on one wallet under a fresh key, for as long as a hold lives that does not say.
pub fn hold_request(customer: &str, wallet: &str, amount: &str) -> v1::HoldRequest {
    v1::HoldRequest {
        customer: customer.to_owned(),
        idempotency_key: fresh_key(),
        payer: Some(v1::hold_request::Payer::Wallet(wallet.to_owned())),
        amount: amount.to_owned(),
        ..Default::default()
    }
}

pub fn extend_request(customer: &str, hold_id: &str, micros: u64) -> v1::ExtendHoldRequest {
    v1::ExtendHoldRequest {
        customer: customer.to_owned(),
        idempotency_key: fresh_key(),
        hold_id: hold_id.to_owned(),
        ttl: Some(lasting(micros)),
        ..Default::default()
    }
}

/// A capture that closes the hold; an empty amount is all that is left.
pub fn capture_request(customer: &str, hold_id: &str, amount: &str) -> v1::CaptureRequest {
    v1::CaptureRequest {
        customer: customer.to_owned(),
        idempotency_key: fresh_key(),
        hold_id: hold_id.to_owned(),
        amount: amount.to_owned(),
        ..Default::default()
    }
}

pub fn release_request(customer: &str, hold_id: &str) -> v1::ReleaseRequest {
    v1::ReleaseRequest {
        customer: customer.to_owned(),
        idempotency_key: fresh_key(),
        hold_id: hold_id.to_owned(),
        ..Default::default()
    }
}

/// What `google.rpc.ErrorInfo.reason` says; empty without one.
pub fn reason(status: &Status) -> String {
    let details = status.get_error_details();
    let Some(info) = details.error_info() else { return String::new() };
    assert_eq!(info.domain, purser_proto::ERROR_DOMAIN);
    info.reason.clone()
}

/// One pair of `google.rpc.ErrorInfo.metadata`.
pub fn pair(status: &Status, name: &str) -> String {
    let details = status.get_error_details();
    details.error_info().and_then(|info| info.metadata.get(name).cloned()).unwrap_or_default()
}

/// The fields that `google.rpc.BadRequest` names.
pub fn fields(status: &Status) -> Vec<String> {
    let details = status.get_error_details();
    let violations = details.bad_request().map(|bad| bad.field_violations.clone()).unwrap_or_default();
    violations.into_iter().map(|violation| violation.field).collect()
}

/// `purser dev` as a child process. Dropped, it is killed.
pub struct Process {
    child: Child,
    /// Where the API listens.
    pub api: String,
    /// Where health and metrics are served.
    pub admin: String,
    // Kept, so that the child may go on writing.
    _stdout: BufReader<ChildStdout>,
}

impl Process {
    /// Starts it on free ports and waits for the line that says that it is ready.
    pub fn start(data: &Path, more: &[&str]) -> Process {
        let mut child = dev_command(data, more).stdout(Stdio::piped()).spawn().expect("a process");
        let mut stdout = BufReader::new(child.stdout.take().expect("its stdout"));
        loop {
            let mut line = String::new();
            let bytes = stdout.read_line(&mut line).expect("a line");
            assert!(bytes > 0, "the server ended before it was ready; its stderr says why");
            let Some(rest) = line.strip_prefix("Purser is ready: API on ") else { continue };
            let (api, rest) = rest.split_once(", health and metrics on http://").expect("two addresses");
            let (admin, _) = rest.split_once(", data in ").expect("a directory");
            return Process { child, api: api.to_owned(), admin: admin.to_owned(), _stdout: stdout };
        }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.api)
    }

    pub async fn ledger(&self) -> LedgerClient<Channel> {
        LedgerClient::connect(self.url()).await.expect("a connection")
    }

    /// SIGKILL, and gone.
    pub fn kill(&mut self) {
        self.child.kill().expect("it still runs");
        self.child.wait().expect("it ends");
    }

    /// Asks it to stop.
    pub fn terminate(&self) {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args(["-TERM", &pid]).status().expect("kill");
        assert!(sent.success());
    }

    /// Its exit code, when it has ended.
    pub fn wait(&mut self) -> Option<i32> {
        self.child.wait().expect("it ends").code()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Already gone is fine.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The binary.
pub fn purser() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_purser"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("PURSER_")) {
        command.env_remove(name);
    }
    command
}

/// `purser dev` on a directory and on free ports.
pub fn dev_command(data: &Path, more: &[&str]) -> Command {
    let mut command = purser();
    command.args(["dev", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--data"]);
    command.arg(data).args(more);
    command
}
