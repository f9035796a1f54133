//! Whole commands over a real connection, against a ledger that knows a few answers by heart.

use std::net::SocketAddr;

use clap::CommandFactory;
use purser_proto::v1;
use purser_proto::v1::ledger_server::{Ledger, LedgerServer};
use purser_proto::v1::{
    Balance, DebitBatchRequest, DebitBatchResponse, DebitRequest, DebitResponse, DebitStreamRequest,
    DebitStreamResponse, ExplainRequest, ExplainResponse, FreezeWalletRequest, FreezeWalletResponse,
    GetBalanceRequest, GetBalanceResponse, GrantRequest, GrantResponse, Receipt, WalletBalance,
};
use serde_json::json;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Code, Request, Response, Status};
use tonic_types::{ErrorDetails, StatusExt};

use super::super::{Answer, Exit, Failure};
use super::holds::{self, Asked};
use super::{CommandLine, read};

/// Debits tell what they were asked; explaining tells the namespace; grants are lost; freezing has no
/// end; acme has 95; of holds there is one, and what is asked about it is passed on; nothing else is
/// known.
#[derive(Debug)]
struct Parrot {
    heard: UnboundedSender<Asked>,
}

impl Parrot {
    fn heard(&self, asked: Asked) {
        // Most tests do not listen.
        let _ = self.heard.send(asked);
    }
}

/// Implements the service: some methods as told, all others not at all.
macro_rules! parrot {
    ({ $($name:ident($request:ident) -> $response:ident),+ $(,)? } $($known:tt)+) => {
        #[tonic::async_trait]
        impl Ledger for Parrot {
            $(async fn $name(&self, _: Request<v1::$request>) -> Result<Response<v1::$response>, Status> {
                Err(unknown())
            })+
            $($known)+
        }
    };
}

parrot! {
    {
        create_wallet(CreateWalletRequest) -> CreateWalletResponse,
        get_wallet(GetWalletRequest) -> GetWalletResponse,
        list_wallets(ListWalletsRequest) -> ListWalletsResponse,
        list_tranches(ListTranchesRequest) -> ListTranchesResponse,
        list_movements(ListMovementsRequest) -> ListMovementsResponse,
        get_movement(GetMovementRequest) -> GetMovementResponse,
        audit(AuditRequest) -> AuditResponse,
    }

    async fn hold(&self, request: Request<v1::HoldRequest>) -> Result<Response<v1::HoldResponse>, Status> {
        self.heard(Asked::Hold(request.into_inner()));
        Ok(Response::new(holds::held()))
    }

    async fn extend_hold(
        &self,
        request: Request<v1::ExtendHoldRequest>,
    ) -> Result<Response<v1::ExtendHoldResponse>, Status> {
        self.heard(Asked::Extend(request.into_inner()));
        Ok(Response::new(holds::extended()))
    }

    async fn capture(
        &self,
        request: Request<v1::CaptureRequest>,
    ) -> Result<Response<v1::CaptureResponse>, Status> {
        self.heard(Asked::Capture(request.into_inner()));
        Ok(Response::new(holds::captured()))
    }

    async fn release(
        &self,
        request: Request<v1::ReleaseRequest>,
    ) -> Result<Response<v1::ReleaseResponse>, Status> {
        self.heard(Asked::Release(request.into_inner()));
        Ok(Response::new(holds::released()))
    }

    async fn get_hold(
        &self,
        request: Request<v1::GetHoldRequest>,
    ) -> Result<Response<v1::GetHoldResponse>, Status> {
        self.heard(Asked::Get(request.into_inner()));
        Ok(Response::new(holds::got()))
    }

    async fn list_holds(
        &self,
        request: Request<v1::ListHoldsRequest>,
    ) -> Result<Response<v1::ListHoldsResponse>, Status> {
        self.heard(Asked::List(request.into_inner()));
        Ok(Response::new(holds::listed()))
    }

    async fn debit(&self, request: Request<DebitRequest>) -> Result<Response<DebitResponse>, Status> {
        let request = request.into_inner();
        if request.amount == "6" {
            let pairs = [("available", "5"), ("required", "6")];
            let details = ErrorDetails::with_error_info(
                "INSUFFICIENT_CREDITS",
                "purser",
                pairs.map(|(name, value)| (name.to_owned(), value.to_owned())),
            );
            let code = Code::FailedPrecondition;
            return Err(Status::with_error_details(code, "not enough", details));
        }
        Ok(Response::new(DebitResponse {
            receipt: Some(Receipt {
                operation_id: format!("op_of_{}_in_{}", request.idempotency_key, request.namespace),
                ..Receipt::default()
            }),
            amount: request.amount,
            ..DebitResponse::default()
        }))
    }

    async fn debit_batch(
        &self,
        _: Request<DebitBatchRequest>,
    ) -> Result<Response<DebitBatchResponse>, Status> {
        Err(unknown())
    }

    type DebitStreamStream = futures_util::stream::Empty<Result<DebitStreamResponse, Status>>;

    async fn debit_stream(
        &self,
        _: Request<tonic::Streaming<DebitStreamRequest>>,
    ) -> Result<Response<Self::DebitStreamStream>, Status> {
        Err(unknown())
    }

    async fn grant(&self, _: Request<GrantRequest>) -> Result<Response<GrantResponse>, Status> {
        Err(Status::unavailable("the leader is gone"))
    }

    async fn get_balance(
        &self,
        request: Request<GetBalanceRequest>,
    ) -> Result<Response<GetBalanceResponse>, Status> {
        let balance = Balance {
            wallet: request.into_inner().customer,
            available: "95".to_owned(),
            ..Balance::default()
        };
        let wallet = WalletBalance { balance: Some(balance), ..WalletBalance::default() };
        let wallets = vec![wallet];
        Ok(Response::new(GetBalanceResponse { wallets, ..GetBalanceResponse::default() }))
    }

    async fn freeze_wallet(
        &self,
        _: Request<FreezeWalletRequest>,
    ) -> Result<Response<FreezeWalletResponse>, Status> {
        std::future::pending().await
    }

    async fn explain(&self, request: Request<ExplainRequest>) -> Result<Response<ExplainResponse>, Status> {
        let debit = request.into_inner().debit.unwrap_or_default();
        let remaining = format!("{} under {:?}", debit.namespace, debit.idempotency_key);
        Ok(Response::new(ExplainResponse { remaining, ..ExplainResponse::default() }))
    }
}

fn unknown() -> Status {
    Status::unimplemented("not known by heart")
}

/// Starts a parrot and returns where it listens; it ends with the test's runtime.
fn parrot() -> SocketAddr {
    parrot_that_tells().0
}

/// As [`parrot`], with what it is asked about holds.
pub(super) fn parrot_that_tells() -> (SocketAddr, UnboundedReceiver<Asked>) {
    let (heard, told) = unbounded_channel();
    let any_port = SocketAddr::from(([127, 0, 0, 1], 0));
    let incoming = TcpIncoming::bind(any_port).expect("a free port").with_nodelay(Some(true));
    let address = incoming.local_addr().expect("its address");
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(purser_proto::FILE_DESCRIPTOR_SET)
        .build_v1()
        .expect("the contract describes itself");
    let server = Server::builder()
        .add_service(LedgerServer::new(Parrot { heard }))
        .add_service(reflection)
        .serve_with_incoming(incoming);
    tokio::spawn(server);
    (address, told)
}

pub(super) async fn run(address: SocketAddr, line: &str) -> Result<Answer, Failure> {
    let line = read(&format!("{line} --server {address}")).expect("a command line");
    line.command.answer(&line.globals, CommandLine::command()).await
}

#[tokio::test]
async fn a_debit_goes_out_under_its_key_and_namespace() {
    let command = "purser debit --customer acme --wallet main --amount 5 --key k-1 --namespace eu";
    let answer = run(parrot(), command).await.expect("an answer");
    assert_eq!(answer.exit, Exit::Done);
    assert_eq!(answer.json["receipt"]["operation_id"], "op_of_k-1_in_eu");
    assert_eq!(answer.json["idempotency_key"], "k-1");
    assert_eq!(answer.json["amount"], "5");
}

#[tokio::test]
async fn a_verdict_against_a_debit_ends_with_1() {
    let command = "purser debit --customer acme --wallet main --amount 6 --key k-1";
    let report = run(parrot(), command).await.expect_err("a refusal").report();
    assert_eq!(report.exit, Exit::Refused);
    assert!(report.to_text().contains("INSUFFICIENT_CREDITS (HTTP 402, FAILED_PRECONDITION)"));
}

#[tokio::test]
async fn a_lost_grant_ends_with_3_and_tells_the_key_that_was_made_up() {
    let command = "purser grant --customer acme --wallet main --amount 6";
    let report = run(parrot(), command).await.expect_err("a loss").report();
    assert_eq!(report.exit, Exit::Unknown);
    let json = report.to_json();
    let key = json["error"]["idempotency_key"].as_str().expect("a key");
    assert!(report.to_text().contains(&format!("--key {key}:")));
}

#[tokio::test]
async fn a_write_without_an_answer_in_time_ends_with_3_and_tells_the_key() {
    let command = "purser wallet freeze --customer acme --wallet main --key k-1 --timeout 50ms";
    let report = run(parrot(), command).await.expect_err("no answer").report();
    assert_eq!(report.exit, Exit::Unknown);
    assert!(report.to_text().starts_with("outcome unknown: freeze wallet main of acme: "));
    assert!(report.to_text().contains("--key k-1:"));
}

#[tokio::test]
async fn a_dry_run_goes_out_without_a_key() {
    let command = "purser debit --customer acme --asset credits/0 --amount 5 --explain";
    let answer = run(parrot(), command).await.expect("an answer");
    assert_eq!(answer.json["remaining"], "default under \"\"");
}

#[tokio::test]
async fn the_namespace_reaches_a_request_within_a_request() {
    let command = r#"purser call Explain '{"debit":{"customer":"acme"}}' --namespace eu"#;
    let answer = run(parrot(), command).await.expect("an answer");
    assert_eq!(answer.json["remaining"], "eu under \"\"");
}

#[tokio::test]
async fn a_server_that_lacks_a_method_ends_with_2() {
    let command = "purser audit --customer acme";
    let report = run(parrot(), command).await.expect_err("no such method").report();
    assert_eq!(report.exit, Exit::Usage);
}

#[tokio::test]
async fn a_server_that_is_not_there_ends_with_3() {
    // Bound and dropped: nobody listens there now.
    let any_port = SocketAddr::from(([127, 0, 0, 1], 0));
    let address = std::net::TcpListener::bind(any_port).and_then(|socket| socket.local_addr());
    let address = address.expect("a free port");
    let report = run(address, "purser clock get").await.expect_err("nobody").report();
    assert_eq!(report.exit, Exit::Unknown);
    assert!(report.to_text().contains("nothing was sent"));
}

#[tokio::test]
async fn methods_are_listed_by_reflection() {
    let answer = run(parrot(), "purser call list").await.expect("a list");
    let row = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let rows: Vec<_> = answer.text.lines().map(row).collect();
    let debit = ["purser.v1.Ledger/Debit", "DebitRequest", "DebitResponse"];
    assert_eq!(rows[0], ["METHOD", "TAKES", "GIVES"]);
    assert!(rows.iter().any(|row| *row == debit), "{}", answer.text);
}

#[tokio::test]
async fn a_method_is_called_with_json_and_a_key_of_its_own() {
    let command = r#"purser call Debit '{"customer":"acme","wallet":"main","amount":"5"}'"#;
    let answer = run(parrot(), command).await.expect("an answer");
    assert_eq!(answer.json["amount"], "5");
    let operation = answer.json["receipt"]["operation_id"].as_str().expect("an operation");
    assert!(operation.starts_with("op_of_0"), "a UUID of version 7: {operation}");
    assert!(operation.ends_with("_in_default"), "{operation}");
}

#[tokio::test]
async fn a_name_may_be_short_or_full() {
    let server = parrot();
    for name in [
        "GetBalance",
        "Ledger/GetBalance",
        "purser.v1.Ledger/GetBalance",
        "/purser.v1.Ledger/GetBalance",
        "purser.v1.Ledger.GetBalance",
    ] {
        let command = format!(r#"purser call {name} '{{"customer":"acme"}}'"#);
        let answer = run(server, &command).await.expect("an answer");
        assert_eq!(answer.json["wallets"][0]["balance"]["available"], json!("95"), "{name}");
    }
    let report = run(server, "purser call Balance").await.expect_err("no method").report();
    assert_eq!(report.exit, Exit::Usage);
}

#[tokio::test]
async fn a_field_that_the_request_does_not_have_is_a_usage_error() {
    let command = r#"purser call Debit '{"custommer":"acme"}'"#;
    let report = run(parrot(), command).await.expect_err("no such field").report();
    assert_eq!(report.exit, Exit::Usage);
    assert!(report.to_text().contains("custommer"), "{}", report.to_text());
}

#[tokio::test]
async fn a_verdict_by_reflection_reads_like_any_other() {
    let command = r#"purser call Debit '{"amount":"6","idempotency_key":"k-9"}'"#;
    let report = run(parrot(), command).await.expect_err("a refusal").report();
    assert_eq!(report.exit, Exit::Refused);
    assert_eq!(report.to_json()["error"]["idempotency_key"], "k-9");
}

#[tokio::test]
async fn a_description_shows_the_contract_with_its_comments() {
    let server = parrot();
    let answer = run(server, "purser call describe Debit").await.expect("a description");
    for part in [
        "// Burns credits.\nrpc Debit(DebitRequest) returns (DebitResponse);",
        "message purser.v1.DebitRequest {",
        "  // How much. Required, above zero.\n  string amount = 7;",
        "  string wallet = 5; // one of payer",
        "  map<string, string> metadata = 13;",
    ] {
        assert!(answer.text.contains(part), "{part} is not in {}", answer.text);
    }
    let answer = run(server, "purser call describe TrancheSpec").await.expect("a description");
    assert!(answer.text.contains("  optional uint32 priority = 3;"), "{}", answer.text);
    assert!(answer.text.contains("  repeated string features = 8;"), "{}", answer.text);
    let answer = run(server, "purser call describe TrancheKind").await.expect("a description");
    assert!(answer.text.contains("  TRANCHE_KIND_PLAN = 1;"), "{}", answer.text);
}

#[test]
fn completions_name_the_commands() {
    let answer = super::super::completions(clap_complete::Shell::Bash, CommandLine::command());
    assert!(answer.text.contains("_purser()"));
    assert!(answer.text.contains("movements"));
}
