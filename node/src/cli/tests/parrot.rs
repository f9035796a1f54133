//! A ledger that knows a few answers by heart, and tells what it was asked.

use std::net::SocketAddr;

use clap::CommandFactory;
use purser_proto::v1;
use purser_proto::v1::ledger_server::{Ledger, LedgerServer};
use purser_proto::v1::{
    Balance, DebitBatchRequest, DebitBatchResponse, DebitRequest, DebitResponse, DebitStreamRequest,
    DebitStreamResponse, ExplainRequest, ExplainResponse, FreezeWalletRequest, FreezeWalletResponse,
    GetBalanceRequest, GetBalanceResponse, GrantRequest, GrantResponse, Receipt, WalletBalance,
};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Code, Request, Response, Status};
use tonic_types::{ErrorDetails, StatusExt};

use super::super::{Answer, Exit, Failure};
use super::{CommandLine, batches, corrections, grants, holds, read, wallets};

/// Debits tell what they were asked; explaining tells the namespace; grants are lost; freezing has no
/// end; acme has 95; of the commands of [`Asked`] each has one answer, and the question is passed on;
/// nothing else is known.
#[derive(Debug)]
struct Parrot {
    heard: UnboundedSender<Asked>,
}

/// Implements the service: some methods pass on what they are asked and give the one answer that there
/// is, some do as told, all others nothing at all.
macro_rules! parrot {
    (
        unknown { $($unknown:ident($unknown_request:ident) -> $unknown_response:ident),+ $(,)? }
        heard { $($heard:ident($request:ident) -> $response:ident: $asked:ident, $answer:path),+ $(,)? }
        $($known:tt)+
    ) => {
        /// What a ledger was asked.
        #[derive(Clone, Debug, PartialEq)]
        pub enum Asked {
            $($asked(v1::$request)),+
        }

        #[tonic::async_trait]
        impl Ledger for Parrot {
            $(async fn $unknown(
                &self,
                _: Request<v1::$unknown_request>,
            ) -> Result<Response<v1::$unknown_response>, Status> {
                Err(unknown())
            })+
            $(async fn $heard(
                &self,
                request: Request<v1::$request>,
            ) -> Result<Response<v1::$response>, Status> {
                // Most tests do not listen.
                let _ = self.heard.send(Asked::$asked(request.into_inner()));
                Ok(Response::new($answer()))
            })+
            $($known)+
        }
    };
}

parrot! {
    unknown {
        create_wallet(CreateWalletRequest) -> CreateWalletResponse,
        get_wallet(GetWalletRequest) -> GetWalletResponse,
        list_wallets(ListWalletsRequest) -> ListWalletsResponse,
        list_tranches(ListTranchesRequest) -> ListTranchesResponse,
        list_movements(ListMovementsRequest) -> ListMovementsResponse,
        get_movement(GetMovementRequest) -> GetMovementResponse,
        audit(AuditRequest) -> AuditResponse,
    }
    heard {
        update_wallet(UpdateWalletRequest) -> UpdateWalletResponse: UpdateWallet, wallets::updated,
        close_wallet(CloseWalletRequest) -> CloseWalletResponse: CloseWallet, wallets::closed,
        confirm_grant(ConfirmGrantRequest) -> ConfirmGrantResponse: ConfirmGrant, grants::confirmed,
        fail_grant(FailGrantRequest) -> FailGrantResponse: FailGrant, grants::failed,
        void_grant(VoidGrantRequest) -> VoidGrantResponse: VoidGrant, grants::voided,
        refund(RefundRequest) -> RefundResponse: Refund, corrections::refunded,
        adjust(AdjustRequest) -> AdjustResponse: Adjust, corrections::adjusted,
        hold(HoldRequest) -> HoldResponse: Hold, holds::held,
        extend_hold(ExtendHoldRequest) -> ExtendHoldResponse: ExtendHold, holds::extended,
        capture(CaptureRequest) -> CaptureResponse: Capture, holds::captured,
        release(ReleaseRequest) -> ReleaseResponse: Release, holds::released,
        get_hold(GetHoldRequest) -> GetHoldResponse: GetHold, holds::got,
        list_holds(ListHoldsRequest) -> ListHoldsResponse: ListHolds, holds::listed,
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

    /// A result for each write; of the customer `lost` none, nor of those sent with it.
    async fn write_batch(
        &self,
        request: Request<v1::WriteBatchRequest>,
    ) -> Result<Response<v1::WriteBatchResponse>, Status> {
        let request = request.into_inner();
        batches::results(request).map(|results| Response::new(v1::WriteBatchResponse { results }))
    }

    type WriteStreamStream = futures_util::stream::Empty<Result<v1::WriteStreamResponse, Status>>;

    async fn write_stream(
        &self,
        _: Request<tonic::Streaming<v1::WriteStreamRequest>>,
    ) -> Result<Response<Self::WriteStreamStream>, Status> {
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
pub(super) fn parrot() -> SocketAddr {
    parrot_that_tells().0
}

/// As [`parrot`], with what it is asked.
fn parrot_that_tells() -> (SocketAddr, UnboundedReceiver<Asked>) {
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

/// Runs a command against the ledger that listens there.
pub(super) async fn run(address: SocketAddr, line: &str) -> Result<Answer, Failure> {
    let line = read(&format!("{line} --server {address}")).expect("a command line");
    line.command.answer(&line.globals, CommandLine::command()).await
}

/// Runs a command of [`Asked`]: what a ledger was asked, and the answer.
pub(super) async fn ask(line: &str) -> (Asked, Answer) {
    let (address, mut told) = parrot_that_tells();
    let answer = run(address, line).await.expect("an answer");
    assert_eq!(answer.exit, Exit::Done);
    (told.recv().await.expect("a question"), answer)
}

/// The same for a write, under the key `k-1`.
pub(super) async fn write(line: &str) -> (Asked, Answer) {
    ask(&format!("{line} --key k-1")).await
}
