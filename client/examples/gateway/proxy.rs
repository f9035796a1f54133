//! The proxy itself: who pays, the debit before anything is forwarded, the forwarding.
//!
//! ```text
//!   request ── who pays? ──── debit ──── forward ──── response, with what was charged and what is left
//!               └ 401          ├ denied: 402, 403, 404 …, nothing is forwarded
//!                              └ no answer: 503 (or, if told to fail open, forward all the same)
//! ```
//! A caller's `Idempotency-Key` becomes the debit's key: the same request, sent again after a failure,
//! is charged once. It is forwarded again, but a few times only and for a short while: a key must not
//! become a ticket for any number of requests.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use axum::http::uri::{PathAndQuery, Uri};
use axum::http::{Response, StatusCode, Version};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use purser_client::v1::debit_request::Payer;
use purser_client::{Denial, Outcome, PurserClient, v1};
use serde_json::{Map, Value, json};

/// The caller's name for its request.
const IDEMPOTENCY_KEY: &str = "idempotency-key";
/// Names the customer to the upstream, and (without API keys) to this gateway.
const CUSTOMER: &str = "x-customer";
/// The caller's API key.
const API_KEY: &str = "x-api-key";
/// How much the request cost.
const CHARGED: &str = "x-credits-charged";
/// How much the customer has left.
const REMAINING: &str = "x-credits-remaining";

/// Headers that are about one connection, not about the message.
const HOP_BY_HOP: [&str; 9] = [
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Longest idempotency key that the ledger takes.
const KEY_BYTES_MAX: usize = 255;
/// How often a request that is charged already is forwarded again under its key,
const REPLAYS_MAX: u32 = 3;
/// and for how long after it was charged.
const REPLAY_WINDOW: Duration = Duration::from_secs(60);
/// Keys whose replays are counted; beyond them the oldest is forgotten.
const REPLAYED_KEYS_MAX: usize = 100_000;

/// Who pays for a request.
pub enum Customers {
    /// Whom the header `X-Customer` names: for a gateway behind something that authenticates.
    Header,
    /// The owner of the API key in the header `X-Api-Key`.
    ApiKeys(BTreeMap<String, String>),
}

/// What a request costs, and who pays how.
pub struct Policy {
    /// Who pays.
    pub customers: Customers,
    /// From which of their wallets.
    pub payer: Payer,
    /// How much.
    pub cost: String,
    /// Forward without a charge while the ledger gives no answer.
    pub fail_open: bool,
    /// How long the upstream may take to begin its answer.
    pub upstream_wait: Duration,
}

/// A gateway in front of one upstream.
pub struct Gateway {
    purser: PurserClient,
    upstream: Uri,
    http: Client<HttpConnector, Body>,
    policy: Policy,
    replays: Replays,
}

/// What a request was charged.
struct Charge {
    charged: String,
    remaining: String,
}

impl Gateway {
    /// A gateway to an `http` upstream.
    pub fn new(purser: PurserClient, upstream: Uri, policy: Policy) -> Result<Gateway, String> {
        if upstream.scheme_str() != Some("http") || upstream.authority().is_none() {
            return Err(format!("{upstream} is not an http:// URL"));
        }
        let http = Client::builder(TokioExecutor::new()).build_http();
        Ok(Gateway { purser, upstream, http, policy, replays: Replays::default() })
    }

    /// Charges for a request, and forwards it.
    pub async fn handle(&self, request: Request) -> Response<Body> {
        match self.charge(request.headers()).await {
            Ok((customer, charge)) => {
                let mut response = self.forward(request, &customer).await.unwrap_or_else(Refused::response);
                if let Some(Charge { charged, remaining }) = charge {
                    set(response.headers_mut(), CHARGED, &charged);
                    set(response.headers_mut(), REMAINING, &remaining);
                }
                response
            }
            Err(refused) => refused.response(),
        }
    }

    /// Who pays, and what was charged; nothing if the gateway fails open.
    async fn charge(&self, headers: &HeaderMap) -> Result<(String, Option<Charge>), Refused> {
        let customer = self.customer(headers)?;
        let own_key = own_key(headers)?;
        let debit = v1::DebitRequest {
            customer: customer.clone(),
            idempotency_key: own_key.clone().unwrap_or_default(),
            payer: Some(self.policy.payer.clone()),
            amount: self.policy.cost.clone(),
            charge_type: v1::ChargeType::Usage.into(),
            ..Default::default()
        };
        match self.purser.debit(debit).await {
            Outcome::Applied(debit) => {
                if let Some(key) = own_key {
                    self.replays.allow(&customer, &key, &debit)?;
                }
                let charge = Charge { charged: debit.amount, remaining: debit.remaining };
                Ok((customer, Some(charge)))
            }
            Outcome::Denied(denial) if denial.http_status() == 503 => {
                self.without_answer(&denial)?;
                Ok((customer, None))
            }
            Outcome::Denied(denial) => Err(Refused::by_ledger(&denial)),
            Outcome::Unknown(unknown) => {
                self.without_answer(&unknown.cause)?;
                // It is forwarded, so it shall be paid for, as soon as the ledger answers again.
                let purser = self.purser.clone();
                tokio::spawn(async move {
                    let key = unknown.key().to_owned();
                    let outcome = purser.resolve(unknown.request).await;
                    tracing::info!(key, status = outcome.http_status(), "an unknown debit was settled");
                });
                Ok((customer, None))
            }
        }
    }

    fn customer(&self, headers: &HeaderMap) -> Result<String, Refused> {
        let told =
            |name| headers.get(name).and_then(|value| value.to_str().ok()).filter(|text| !text.is_empty());
        let found = match &self.policy.customers {
            Customers::Header => told(CUSTOMER).map(str::to_owned),
            Customers::ApiKeys(keys) => told(API_KEY).and_then(|key| keys.get(key)).cloned(),
        };
        found.ok_or_else(|| {
            let message = match self.policy.customers {
                Customers::Header => "the header X-Customer names who pays",
                Customers::ApiKeys(_) => "the header X-Api-Key needs a key that is known here",
            };
            Refused::new(StatusCode::UNAUTHORIZED, "UNAUTHENTICATED", message)
        })
    }

    /// The ledger gives no answer: fail closed, or say so and go on.
    fn without_answer(&self, cause: &Denial) -> Result<(), Refused> {
        if self.policy.fail_open {
            tracing::warn!(%cause, "no answer from the ledger: forwarding without a charge");
            return Ok(());
        }
        tracing::warn!(%cause, "no answer from the ledger: refusing");
        let message = "whether you may spend is not known now; try again with the same Idempotency-Key";
        Err(Refused::new(StatusCode::SERVICE_UNAVAILABLE, "UNAVAILABLE", message))
    }

    /// Sends the request on; bodies stream in both directions.
    async fn forward(&self, request: Request, customer: &str) -> Result<Response<Body>, Refused> {
        let (mut parts, body) = request.into_parts();
        parts.uri = self
            .upstream_uri(parts.uri.path_and_query())
            .map_err(|error| Refused::new(StatusCode::BAD_REQUEST, "INVALID_ARGUMENT", &error.to_string()))?;
        parts.version = Version::HTTP_11;
        drop_hop_by_hop(&mut parts.headers);
        // The upstream's own; and what this gateway has found out, not what a caller says.
        parts.headers.remove(header::HOST);
        parts.headers.remove(API_KEY);
        set(&mut parts.headers, CUSTOMER, customer);
        let sending = self.http.request(Request::from_parts(parts, body));
        match tokio::time::timeout(self.policy.upstream_wait, sending).await {
            Ok(Ok(response)) => {
                let (mut parts, body) = response.into_parts();
                // The version, too, is about one connection.
                parts.version = Version::HTTP_11;
                drop_hop_by_hop(&mut parts.headers);
                // Only this gateway says what was charged.
                parts.headers.remove(CHARGED);
                parts.headers.remove(REMAINING);
                Ok(Response::from_parts(parts, Body::new(body)))
            }
            Ok(Err(error)) => {
                tracing::warn!(%error, "the upstream did not answer");
                let message = "the service behind did not answer";
                Err(Refused::new(StatusCode::BAD_GATEWAY, "UPSTREAM_UNREACHABLE", message))
            }
            Err(_) => {
                let message = "the service behind took too long";
                Err(Refused::new(StatusCode::GATEWAY_TIMEOUT, "UPSTREAM_TOO_SLOW", message))
            }
        }
    }

    fn upstream_uri(&self, asked: Option<&PathAndQuery>) -> Result<Uri, axum::http::Error> {
        let prefix = self.upstream.path().trim_end_matches('/');
        let asked = asked.map_or("/", PathAndQuery::as_str);
        let authority = self.upstream.authority().map_or("", |own| own.as_str());
        Uri::builder().scheme("http").authority(authority).path_and_query(format!("{prefix}{asked}")).build()
    }
}

/// For `axum`: every method and path.
pub async fn handle(State(gateway): State<std::sync::Arc<Gateway>>, request: Request) -> Response<Body> {
    gateway.handle(request).await
}

/// The caller's own key, if it gives one.
fn own_key(headers: &HeaderMap) -> Result<Option<String>, Refused> {
    let Some(value) = headers.get(IDEMPOTENCY_KEY) else { return Ok(None) };
    match value.to_str() {
        Ok(key) if (1..=KEY_BYTES_MAX).contains(&key.len()) => Ok(Some(key.to_owned())),
        _ => {
            let message = format!("Idempotency-Key: 1 to {KEY_BYTES_MAX} visible ASCII characters");
            Err(Refused::new(StatusCode::BAD_REQUEST, "INVALID_ARGUMENT", &message))
        }
    }
}

/// How often requests that are charged already were forwarded again.
#[derive(Default)]
struct Replays {
    counted: Mutex<Counted>,
}

#[derive(Default)]
struct Counted {
    forwarded: BTreeMap<(String, String), u32>,
    oldest_first: VecDeque<(String, String)>,
}

impl Replays {
    /// Whether a request may be forwarded under the caller's own key.
    fn allow(&self, customer: &str, key: &str, debit: &v1::DebitResponse) -> Result<(), Refused> {
        let Some(receipt) = debit.receipt.as_ref().filter(|receipt| receipt.replayed) else { return Ok(()) };
        let charged_at = receipt.ledger_time.as_ref().map_or(0, |time| time.seconds);
        let recent = charged_at.saturating_add(REPLAY_WINDOW.as_secs() as i64) >= now_s();
        if recent && self.count(customer, key) <= REPLAYS_MAX {
            return Ok(());
        }
        let message = "this Idempotency-Key was used for a request that was charged before; use a new one";
        Err(Refused::new(StatusCode::CONFLICT, "ALREADY_CHARGED", message))
    }

    fn count(&self, customer: &str, key: &str) -> u32 {
        let mut counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        let own = (customer.to_owned(), key.to_owned());
        if let Some(forwarded) = counted.forwarded.get_mut(&own) {
            *forwarded += 1;
            return *forwarded;
        }
        if counted.oldest_first.len() >= REPLAYED_KEYS_MAX
            && let Some(oldest) = counted.oldest_first.pop_front()
        {
            counted.forwarded.remove(&oldest);
        }
        counted.oldest_first.push_back(own.clone());
        counted.forwarded.insert(own, 1);
        1
    }
}

fn now_s() -> i64 {
    #[expect(clippy::disallowed_methods, reason = "the edge of a program: the time of day")]
    let now = SystemTime::now();
    now.duration_since(UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(i64::MAX))
}

/// Why a request has no answer of the upstream's.
struct Refused {
    status: StatusCode,
    facts: Map<String, Value>,
}

impl Refused {
    /// This gateway says no.
    fn new(status: StatusCode, reason: &str, message: &str) -> Refused {
        let facts = [("reason", reason), ("message", message)];
        let facts = facts.into_iter().map(|(name, value)| (name.to_owned(), json!(value)));
        Refused { status, facts: facts.collect() }
    }

    /// The ledger says no.
    fn by_ledger(denial: &Denial) -> Refused {
        let status = StatusCode::from_u16(denial.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut refused = Refused::new(status, &denial.reason_name, &denial.message);
        for name in ["available", "required"] {
            if let Some(value) = denial.metadata.get(name) {
                refused.facts.insert(name.to_owned(), json!(value));
            }
        }
        refused
    }

    fn response(self) -> Response<Body> {
        let mut response = Response::new(Body::from(Value::Object(self.facts).to_string()));
        *response.status_mut() = self.status;
        set(response.headers_mut(), header::CONTENT_TYPE.as_str(), "application/json");
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            set(response.headers_mut(), header::RETRY_AFTER.as_str(), "1");
        }
        response
    }
}

/// Sets a header, if its value can stand in one.
fn set(headers: &mut HeaderMap, name: &'static str, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(HeaderName::from_static(name), value);
    }
}

/// Drops what is about the connection, also what the header `Connection` names.
fn drop_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<String> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|name| name.trim().to_owned())
        .collect();
    for name in HOP_BY_HOP.into_iter().map(str::to_owned).chain(named) {
        headers.remove(name.as_str());
    }
}
