//! The gRPC services: unwrap the request, call [`Api`], wrap the response.

use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use purser_proto::v1;
use purser_proto::v1::admin_server::Admin;
use purser_proto::v1::ledger_server::Ledger;
use tokio::time::Instant;
use tonic::{Code, Request, Response, Status, Streaming};

use super::Api;
use super::refusal::malformed_field;

/// Debits of one stream under way at once; the rest waits on the wire.
const STREAM_UNDER_WAY_MAX: usize = 1_024;

macro_rules! unary {
    ($($name:ident($request:ident) -> $response:ident),+ $(,)?) => {
        #[tonic::async_trait]
        impl Ledger for Api {
            $(async fn $name(&self, request: Request<v1::$request>) -> Result<Response<v1::$response>, Status> {
                let started = Instant::now();
                let answer = Api::$name(self, request.get_ref()).await;
                observe(stringify!($name), started, &answer);
                answer.map(Response::new)
            })+

            async fn debit_batch(
                &self,
                request: Request<v1::DebitBatchRequest>,
            ) -> Result<Response<v1::DebitBatchResponse>, Status> {
                let started = Instant::now();
                let answer = Api::debit_batch(self, request.get_ref()).await;
                observe("debit_batch", started, &answer);
                answer.map(Response::new)
            }

            type DebitStreamStream = BoxStream<'static, Result<v1::DebitStreamResponse, Status>>;

            async fn debit_stream(
                &self,
                request: Request<Streaming<v1::DebitStreamRequest>>,
            ) -> Result<Response<Self::DebitStreamStream>, Status> {
                let api = self.clone();
                let answers = request.into_inner().map(move |request| {
                    let api = api.clone();
                    async move {
                        let request = request?;
                        let debit = request.debit.as_ref().ok_or_else(|| malformed_field("debit", "required"))?;
                        let result = Some(api.debit_result(debit, request.detail()).await);
                        Ok(v1::DebitStreamResponse { sequence: request.sequence, result })
                    }
                });
                Ok(Response::new(answers.buffered(STREAM_UNDER_WAY_MAX).boxed()))
            }
        }
    };
}

unary! {
    create_wallet(CreateWalletRequest) -> CreateWalletResponse,
    get_wallet(GetWalletRequest) -> GetWalletResponse,
    list_wallets(ListWalletsRequest) -> ListWalletsResponse,
    freeze_wallet(FreezeWalletRequest) -> FreezeWalletResponse,
    grant(GrantRequest) -> GrantResponse,
    list_tranches(ListTranchesRequest) -> ListTranchesResponse,
    debit(DebitRequest) -> DebitResponse,
    explain(ExplainRequest) -> ExplainResponse,
    get_balance(GetBalanceRequest) -> GetBalanceResponse,
    list_movements(ListMovementsRequest) -> ListMovementsResponse,
    get_movement(GetMovementRequest) -> GetMovementResponse,
    audit(AuditRequest) -> AuditResponse,
}

/// Counts a request and its latency.
fn observe<T>(method: &'static str, started: Instant, answer: &Result<T, Status>) {
    let code = match answer {
        Ok(_) => "ok",
        Err(status) => code_name(status.code()),
    };
    metrics::counter!("purser_requests_total", "method" => method, "code" => code).increment(1);
    metrics::histogram!("purser_request_seconds", "method" => method).record(started.elapsed().as_secs_f64());
}

fn code_name(code: Code) -> &'static str {
    match code {
        Code::InvalidArgument => "invalid_argument",
        Code::OutOfRange => "out_of_range",
        Code::NotFound => "not_found",
        Code::AlreadyExists => "already_exists",
        Code::FailedPrecondition => "failed_precondition",
        Code::Unavailable => "unavailable",
        Code::Internal => "internal",
        _ => "other",
    }
}

#[tonic::async_trait]
impl Admin for Api {
    async fn get_clock(
        &self,
        _request: Request<v1::GetClockRequest>,
    ) -> Result<Response<v1::GetClockResponse>, Status> {
        Ok(Response::new(self.clock()))
    }

    async fn advance_clock(
        &self,
        request: Request<v1::AdvanceClockRequest>,
    ) -> Result<Response<v1::AdvanceClockResponse>, Status> {
        Api::advance_clock(self, request.get_ref()).map(Response::new)
    }
}
