//! The gRPC services: unwrap the request, call [`Api`], wrap the response.

use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use purser_proto::v1;
use purser_proto::v1::admin_server::Admin;
use purser_proto::v1::cluster_server::Cluster;
use purser_proto::v1::ledger_server::Ledger;
use tokio::time::Instant;
use tonic::{Code, Request, Response, Status, Streaming};

use super::Api;
use super::forward::Route;
use super::methods::for_each_method;

macro_rules! unary {
    ($($name:ident($request:ident) -> $response:ident),+ $(,)?) => {
        #[tonic::async_trait]
        impl Ledger for Api {
            $(async fn $name(&self, request: Request<v1::$request>) -> Result<Response<v1::$response>, Status> {
                let started = Instant::now();
                let answer =
                    self.routed(stringify!($name), request.get_ref(), route(&request), Api::$name).await;
                observe(stringify!($name), started, &answer);
                answer.map(Response::new)
            })+

            async fn debit_batch(
                &self,
                request: Request<v1::DebitBatchRequest>,
            ) -> Result<Response<v1::DebitBatchResponse>, Status> {
                let started = Instant::now();
                let answer = self.debit_batch(request.get_ref(), route(&request)).await;
                observe("debit_batch", started, &answer);
                answer.map(Response::new)
            }

            type DebitStreamStream = BoxStream<'static, Result<v1::DebitStreamResponse, Status>>;

            async fn debit_stream(
                &self,
                request: Request<Streaming<v1::DebitStreamRequest>>,
            ) -> Result<Response<Self::DebitStreamStream>, Status> {
                let direct = route(&request) == Route::Direct;
                Ok(Response::new(Api::debit_stream(self, request.into_inner(), direct).boxed()))
            }

            async fn write_batch(
                &self,
                request: Request<v1::WriteBatchRequest>,
            ) -> Result<Response<v1::WriteBatchResponse>, Status> {
                let started = Instant::now();
                let answer = self.write_batch(request.get_ref(), route(&request)).await;
                observe("write_batch", started, &answer);
                answer.map(Response::new)
            }

            type WriteStreamStream = BoxStream<'static, Result<v1::WriteStreamResponse, Status>>;

            async fn write_stream(
                &self,
                request: Request<Streaming<v1::WriteStreamRequest>>,
            ) -> Result<Response<Self::WriteStreamStream>, Status> {
                let direct = route(&request) == Route::Direct;
                Ok(Response::new(Api::write_stream(self, request.into_inner(), direct).boxed()))
            }
        }
    };
}

for_each_method!(unary);

/// A caller that routes by itself says so in the request's metadata: `purser-route: direct`.
const ROUTE: &str = "purser-route";
const DIRECT: &str = "direct";
/// How long the caller waits, as gRPC tells it.
const TIMEOUT: &str = "grpc-timeout";

fn route<T>(request: &Request<T>) -> Route {
    let told = |name| request.metadata().get(name).and_then(|value| value.to_str().ok());
    match told(ROUTE) {
        Some(DIRECT) => Route::Direct,
        _ => Route::within(told(TIMEOUT).and_then(timeout)),
    }
}

/// gRPC's notation of a time-out: up to eight digits and a unit.
fn timeout(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let number: u64 = digits.parse().ok()?;
    match unit {
        "H" => number.checked_mul(3_600).map(Duration::from_secs),
        "M" => number.checked_mul(60).map(Duration::from_secs),
        "S" => Some(Duration::from_secs(number)),
        "m" => Some(Duration::from_millis(number)),
        "u" => Some(Duration::from_micros(number)),
        "n" => Some(Duration::from_nanos(number)),
        _ => None,
    }
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

#[tonic::async_trait]
impl Cluster for Api {
    async fn get_node(
        &self,
        _request: Request<v1::GetNodeRequest>,
    ) -> Result<Response<v1::GetNodeResponse>, Status> {
        Ok(Response::new(self.node()))
    }

    async fn found(&self, request: Request<v1::FoundRequest>) -> Result<Response<v1::FoundResponse>, Status> {
        self.found_again(request.get_ref()).map(Response::new)
    }

    async fn replace(
        &self,
        request: Request<v1::ReplaceRequest>,
    ) -> Result<Response<v1::ReplaceResponse>, Status> {
        Api::replace(self, request.get_ref()).await.map(Response::new)
    }

    async fn join(&self, request: Request<v1::JoinRequest>) -> Result<Response<v1::JoinResponse>, Status> {
        self.join_again(request.get_ref()).map(Response::new)
    }

    async fn get_shard_map(
        &self,
        _request: Request<v1::GetShardMapRequest>,
    ) -> Result<Response<v1::GetShardMapResponse>, Status> {
        Ok(Response::new(self.shard_map()))
    }

    async fn get_status(
        &self,
        _request: Request<v1::GetStatusRequest>,
    ) -> Result<Response<v1::GetStatusResponse>, Status> {
        Ok(Response::new(self.status().await))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_callers_time_out_is_read_as_grpc_writes_it() {
        assert_eq!(timeout("250m"), Some(Duration::from_millis(250)));
        assert_eq!(timeout("5S"), Some(Duration::from_secs(5)));
        assert_eq!(timeout("1H"), Some(Duration::from_secs(3_600)));
        assert_eq!([timeout(""), timeout("5"), timeout("xS")], [None; 3]);
    }
}
