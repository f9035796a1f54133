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
use tonic::transport::Channel;
use tonic::{Code, Status};
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

    pub async fn confirm(
        &mut self,
        request: v1::ConfirmGrantRequest,
    ) -> Result<v1::ConfirmGrantResponse, Status> {
        self.ledger.confirm_grant(request).await.map(tonic::Response::into_inner)
    }

    pub async fn fail(&mut self, request: v1::FailGrantRequest) -> Result<v1::FailGrantResponse, Status> {
        self.ledger.fail_grant(request).await.map(tonic::Response::into_inner)
    }

    pub async fn void(&mut self, request: v1::VoidGrantRequest) -> Result<v1::VoidGrantResponse, Status> {
        self.ledger.void_grant(request).await.map(tonic::Response::into_inner)
    }

    pub async fn refund(&mut self, request: v1::RefundRequest) -> Result<v1::RefundResponse, Status> {
        self.ledger.refund(request).await.map(tonic::Response::into_inner)
    }

    pub async fn adjust(&mut self, request: v1::AdjustRequest) -> Result<v1::AdjustResponse, Status> {
        self.ledger.adjust(request).await.map(tonic::Response::into_inner)
    }

    pub async fn freeze(&mut self, customer: &str, wallet: &str, frozen: bool) {
        let request = freeze_request(customer, wallet, frozen);
        self.ledger.freeze_wallet(request).await.expect("frozen or thawed");
    }

    pub async fn update(
        &mut self,
        request: v1::UpdateWalletRequest,
    ) -> Result<v1::UpdateWalletResponse, Status> {
        self.ledger.update_wallet(request).await.map(tonic::Response::into_inner)
    }

    pub async fn close(
        &mut self,
        request: v1::CloseWalletRequest,
    ) -> Result<v1::CloseWalletResponse, Status> {
        self.ledger.close_wallet(request).await.map(tonic::Response::into_inner)
    }

    /// A wallet that is there.
    pub async fn get_wallet(&mut self, customer: &str, wallet: &str) -> v1::Wallet {
        let (customer, wallet) = (customer.to_owned(), wallet.to_owned());
        let request = v1::GetWalletRequest { customer, wallet, ..Default::default() };
        let answer = self.ledger.get_wallet(request).await.expect("a wallet").into_inner();
        answer.wallet.expect("a wallet")
    }

    /// The tranches of a wallet, oldest first; at most a page.
    pub async fn tranches(&mut self, customer: &str, wallet: &str) -> Vec<v1::Tranche> {
        let request = v1::ListTranchesRequest {
            customer: customer.to_owned(),
            wallet: wallet.to_owned(),
            page: Some(v1::PageRequest { size: ROWS_MAX, ..Default::default() }),
            ..Default::default()
        };
        self.ledger.list_tranches(request).await.expect("tranches").into_inner().tranches
    }

    /// All that a refusal must leave as it is.
    pub async fn books(&mut self, customer: &str, wallet: &str) -> Books {
        Books {
            wallet: self.get_wallet(customer, wallet).await,
            balance: self.balance(customer, wallet).await,
            tranches: self.tranches(customer, wallet).await,
            movements: self.movements(customer, wallet).await,
        }
    }

    /// Has a write refused: for this reason, about these things, and once more when it is sent again. The
    /// books of a wallet stay as they are.
    pub async fn refuses(
        &mut self,
        (customer, wallet): (&str, &str),
        write: Write,
        expected: &str,
        pairs: &[(&str, &str)],
    ) -> Status {
        let before = self.books(customer, wallet).await;
        let first = self.refused(write.clone()).await;
        let again = self.refused(write.clone()).await;
        for (status, replayed) in [(&first, "false"), (&again, "true")] {
            let found = (status.code(), reason(status));
            assert_eq!(found, (code_of(expected), expected.to_owned()), "{write:?}: {status:?}");
            assert_eq!(pair(status, "replayed"), replayed, "{write:?}");
            for (name, value) in pairs {
                assert_eq!(pair(status, name), *value, "{name} of {write:?}");
            }
        }
        assert_eq!(self.books(customer, wallet).await, before, "{write:?}");
        first
    }

    /// What a write is refused with.
    pub async fn refused(&mut self, write: Write) -> Status {
        let told = format!("{write:?}");
        let refused = match write {
            Write::CreateWallet(request) => self.ledger.create_wallet(request).await.err(),
            Write::UpdateWallet(request) => self.update(request).await.err(),
            Write::FreezeWallet(request) => self.ledger.freeze_wallet(request).await.err(),
            Write::CloseWallet(request) => self.close(request).await.err(),
            Write::Grant(request) => self.ledger.grant(request).await.err(),
            Write::Confirm(request) => self.confirm(request).await.err(),
            Write::Fail(request) => self.fail(request).await.err(),
            Write::Void(request) => self.void(request).await.err(),
            Write::Debit(request) => self.debit(request).await.err(),
            Write::Hold(request) => self.hold(request).await.err(),
            Write::Extend(request) => self.extend(request).await.err(),
            Write::Capture(request) => self.capture(request).await.err(),
            Write::Release(request) => self.release(request).await.err(),
            Write::Refund(request) => self.refund(request).await.err(),
            Write::Adjust(request) => self.adjust(request).await.err(),
        };
        refused.unwrap_or_else(|| panic!("not refused: {told}"))
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

/// A write that is to be refused.
#[derive(Clone, Debug)]
pub enum Write {
    CreateWallet(v1::CreateWalletRequest),
    UpdateWallet(v1::UpdateWalletRequest),
    FreezeWallet(v1::FreezeWalletRequest),
    CloseWallet(v1::CloseWalletRequest),
    Grant(v1::GrantRequest),
    Confirm(v1::ConfirmGrantRequest),
    Fail(v1::FailGrantRequest),
    Void(v1::VoidGrantRequest),
    Debit(v1::DebitRequest),
    Hold(v1::HoldRequest),
    Extend(v1::ExtendHoldRequest),
    Capture(v1::CaptureRequest),
    Release(v1::ReleaseRequest),
    Refund(v1::RefundRequest),
    Adjust(v1::AdjustRequest),
}

/// A wallet with all that is in it and was written about it.
#[derive(Debug, PartialEq)]
pub struct Books {
    pub wallet: v1::Wallet,
    pub balance: v1::Balance,
    pub tranches: Vec<v1::Tranche>,
    pub movements: Vec<v1::Movement>,
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

/// A tranche that waits for its invoice.
pub fn unpaid(amount: &str, kind: v1::TrancheKind) -> v1::TrancheSpec {
    v1::TrancheSpec { pending: true, ..tranche(amount, kind) }
}

pub fn confirm_request(customer: &str, wallet: &str, tranche_id: &str) -> v1::ConfirmGrantRequest {
    v1::ConfirmGrantRequest {
        customer: customer.to_owned(),
        idempotency_key: fresh_key(),
        wallet: wallet.to_owned(),
        tranche_id: tranche_id.to_owned(),
        ..Default::default()
    }
}

pub fn fail_request(customer: &str, wallet: &str, tranche_id: &str) -> v1::FailGrantRequest {
    v1::FailGrantRequest {
        customer: customer.to_owned(),
        idempotency_key: fresh_key(),
        wallet: wallet.to_owned(),
        tranche_id: tranche_id.to_owned(),
        ..Default::default()
    }
}

pub fn void_request(customer: &str, wallet: &str, tranche_id: &str) -> v1::VoidGrantRequest {
    v1::VoidGrantRequest {
        customer: customer.to_owned(),
        idempotency_key: fresh_key(),
        wallet: wallet.to_owned(),
        tranche_id: tranche_id.to_owned(),
        ..Default::default()
    }
}

/// A refund without a grace; an empty amount is all that was not given back yet.
pub fn refund_request(customer: &str, movement_id: &str, amount: &str) -> v1::RefundRequest {
    v1::RefundRequest {
        customer: customer.to_owned(),
        idempotency_key: fresh_key(),
        movement_id: movement_id.to_owned(),
        amount: amount.to_owned(),
        ..Default::default()
    }
}

/// A correction, down with a leading `-`.
pub fn adjust_request(customer: &str, wallet: &str, amount: &str) -> v1::AdjustRequest {
    v1::AdjustRequest {
        customer: customer.to_owned(),
        idempotency_key: fresh_key(),
        wallet: wallet.to_owned(),
        amount: amount.to_owned(),
        reason_code: "miscounted".to_owned(),
        ..Default::default()
    }
}

pub fn freeze_request(customer: &str, wallet: &str, frozen: bool) -> v1::FreezeWalletRequest {
    v1::FreezeWalletRequest {
        customer: customer.to_owned(),
        idempotency_key: fresh_key(),
        wallet: wallet.to_owned(),
        frozen,
        ..Default::default()
    }
}

/// A new draw priority, whatever version the wallet has.
pub fn update_request(customer: &str, wallet: &str, draw_priority: u32) -> v1::UpdateWalletRequest {
    v1::UpdateWalletRequest {
        customer: customer.to_owned(),
        idempotency_key: fresh_key(),
        wallet: wallet.to_owned(),
        draw_priority: Some(draw_priority),
        ..Default::default()
    }
}

pub fn close_request(customer: &str, wallet: &str) -> v1::CloseWalletRequest {
    v1::CloseWalletRequest {
        customer: customer.to_owned(),
        idempotency_key: fresh_key(),
        wallet: wallet.to_owned(),
        ..Default::default()
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

pub fn of_receipt(receipt: Option<&v1::Receipt>) -> &v1::Receipt {
    receipt.expect("a receipt")
}

/// Takes out of a replay what is its own: its mark, and where and when it was told again.
pub fn as_at_first(again: &mut Option<v1::Receipt>, first: &Option<v1::Receipt>) {
    let (own, then) = (again.as_mut().expect("a receipt"), of_receipt(first.as_ref()));
    assert_eq!((then.replayed, own.replayed), (false, true));
    own.replayed = false;
    (own.witness, own.ledger_time) = (then.witness, then.ledger_time);
}

/// Tranche, amount and what is left, of each draw.
pub fn drawn(own: &[v1::Draw]) -> Vec<(&str, &str, &str)> {
    own.iter().map(|draw| (draw.tranche_id.as_str(), draw.amount.as_str(), draw.left.as_str())).collect()
}

/// Available, held, pending, settled.
pub fn figures(balance: &v1::Balance) -> [&str; 4] {
    [&balance.available, &balance.held, &balance.pending, &balance.settled]
}

/// Type, status and amount of each movement.
pub fn moves(movements: &[v1::Movement]) -> Vec<(v1::MovementType, v1::MovementStatus, &str)> {
    movements.iter().map(|own| (own.r#type(), own.status(), own.amount.as_str())).collect()
}

/// Where a tranche is in its life, and of its amount what is pending, available, held, consumed, expired
/// and voided; that is all of it.
pub fn account(own: &v1::Tranche) -> (v1::TrancheStatus, [&str; 6]) {
    let parts = [&own.pending, &own.available, &own.held, &own.consumed, &own.expired, &own.voided];
    let units = |text: &str| text.replace('.', "").parse::<i128>().expect("an amount");
    let sum: i128 = parts.iter().map(|part| units(part)).sum();
    assert_eq!(sum, units(&own.amount), "{own:?}");
    (own.status(), parts.map(String::as_str))
}

/// The gRPC code of a reason, as the table of `docs/errors.md` has it.
fn code_of(reason: &str) -> Code {
    match reason {
        "INVALID_ARGUMENT" | "INVALID_AMOUNT_PRECISION" | "LIMIT_EXCEEDED" => Code::InvalidArgument,
        "AMOUNT_OVERFLOW" => Code::OutOfRange,
        "ALREADY_EXISTS" => Code::AlreadyExists,
        reason if reason.ends_with("_NOT_FOUND") => Code::NotFound,
        _ => Code::FailedPrecondition,
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
