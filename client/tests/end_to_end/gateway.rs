//! The example gateway in front of a small HTTP service, with a real ledger.

// The program's own parts, not copies of them.
#[path = "../../examples/gateway/proxy.rs"]
mod proxy;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::Request;
use axum::http::{HeaderMap, Response, StatusCode};
use futures_util::{StreamExt, stream};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use proxy::{Customers, Gateway, Policy};
use purser_client::PurserClient;
use purser_client::v1::debit_request::Payer;
use serde_json::Value;
use tokio::net::TcpListener;

use crate::node::{Running, available, wallet_with};

/// Serves routes on a free port; the answer is its URL.
async fn serve(routes: Router) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("its address");
    tokio::spawn(async move { axum::serve(listener, routes).await });
    format!("http://{address}")
}

/// The service behind: says what it got, and counts.
#[derive(Clone, Default)]
struct Upstream {
    requests: Arc<AtomicUsize>,
    headers: Arc<Mutex<HeaderMap>>,
}

impl Upstream {
    async fn start(&self) -> String {
        let own = self.clone();
        serve(Router::new().fallback(move |request: Request| own.answer(request))).await
    }

    async fn answer(self, request: Request) -> Response<Body> {
        self.requests.fetch_add(1, Ordering::SeqCst);
        *self.headers.lock().expect("no panic") = request.headers().clone();
        let path = request.uri().path().to_owned();
        let body = to_bytes(request.into_body(), 1 << 20).await.expect("a body");
        // In pieces, as a service that streams would.
        let pieces = [Bytes::from(format!("{path} got ")), body];
        let body = Body::from_stream(stream::iter(pieces.map(Ok::<_, std::io::Error>)));
        Response::builder()
            .header("x-upstream", "yes")
            .header("x-credits-remaining", "a lie")
            .header("connection", "x-private")
            .header("x-private", "of this connection")
            .body(body)
            .expect("a response")
    }

    fn served(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }
}

fn policy(cost: &str) -> Policy {
    Policy {
        customers: Customers::Header,
        payer: Payer::Wallet("main".to_owned()),
        cost: cost.to_owned(),
        fail_open: false,
        upstream_wait: Duration::from_secs(60),
    }
}

async fn gateway(purser: PurserClient, upstream: &str, policy: Policy) -> String {
    let gateway = Gateway::new(purser, upstream.parse().expect("a URL"), policy).expect("a gateway");
    serve(Router::new().fallback(proxy::handle).with_state(Arc::new(gateway))).await
}

/// Sends a request; status, headers and body of the answer.
async fn send(url: &str, headers: &[(&str, &str)], body: Body) -> (StatusCode, HeaderMap, String) {
    let mut request = Request::builder().method("POST").uri(url);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let http: Client<_, Body> = Client::builder(TokioExecutor::new()).build_http();
    let answer = http.request(request.body(body).expect("a request")).await.expect("an answer");
    let (parts, body) = answer.into_parts();
    let body = to_bytes(Body::new(body), 1 << 20).await.expect("a body");
    (parts.status, parts.headers, String::from_utf8(body.to_vec()).expect("text"))
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

#[tokio::test]
async fn a_request_is_charged_forwarded_and_answered_with_what_is_left_until_the_credit_is_spent() {
    let node = Running::start().await;
    let client = node.client().await;
    wallet_with(&client, "acme", "12").await;
    let upstream = Upstream::default();
    let behind = upstream.start().await;
    let gateway = gateway(client.clone(), &format!("{behind}/v1/"), policy("5")).await;

    let url = format!("{gateway}/images?size=2");
    let pieces = stream::iter(["a ", "body"]).map(Ok::<_, std::io::Error>);
    let headers = [("x-customer", "acme"), ("connection", "x-hop"), ("x-hop", "1"), ("x-end", "2")];
    let (status, answer, body) = send(&url, &headers, Body::from_stream(pieces)).await;
    assert_eq!((status, body.as_str()), (StatusCode::OK, "/v1/images got a body"));
    assert_eq!(
        (header(&answer, "x-credits-charged"), header(&answer, "x-credits-remaining")),
        (Some("5"), Some("7"))
    );
    assert_eq!(header(&answer, "x-upstream"), Some("yes"));
    assert_eq!(header(&answer, "x-private"), None, "what belongs to one connection stays there");
    let got = upstream.headers.lock().expect("no panic").clone();
    assert_eq!((header(&got, "x-hop"), header(&got, "x-end")), (None, Some("2")));
    assert_eq!(header(&got, "x-customer"), Some("acme"));
    assert_eq!(header(&got, "host"), behind.strip_prefix("http://"));

    let (status, answer, _) = send(&url, &[("x-customer", "acme")], Body::empty()).await;
    assert_eq!((status, header(&answer, "x-credits-remaining")), (StatusCode::OK, Some("2")));
    let (status, answer, body) = send(&url, &[("x-customer", "acme")], Body::empty()).await;
    assert_eq!(status, StatusCode::PAYMENT_REQUIRED);
    let facts: Value = serde_json::from_str(&body).expect("JSON");
    assert_eq!(facts["reason"], "INSUFFICIENT_CREDITS");
    assert_eq!((&facts["available"], &facts["required"]), (&Value::from("2"), &Value::from("5")));
    assert!(facts["message"].as_str().is_some_and(|message| !message.is_empty()));
    assert_eq!(header(&answer, "x-credits-charged"), None);
    assert_eq!(upstream.served(), 2, "what is not paid for is not forwarded");
    assert_eq!(available(&client, "acme").await, "2");
}

#[tokio::test]
async fn a_request_of_nobody_or_of_a_stranger_is_not_forwarded() {
    let node = Running::start().await;
    let upstream = Upstream::default();
    let gateway = gateway(node.client().await, &upstream.start().await, policy("5")).await;
    let (status, _, body) = send(&gateway, &[], Body::empty()).await;
    assert_eq!(status, StatusCode::UNAUTHORIZED, "{body}");
    let (status, _, body) = send(&gateway, &[("x-customer", "stranger")], Body::empty()).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    assert!(body.contains("CUSTOMER_NOT_FOUND"), "{body}");
    assert_eq!(upstream.served(), 0);
}

#[tokio::test]
async fn an_api_key_names_its_owner_and_no_header_does() {
    let node = Running::start().await;
    let client = node.client().await;
    wallet_with(&client, "acme", "10").await;
    let upstream = Upstream::default();
    let keys = BTreeMap::from([("secret".to_owned(), "acme".to_owned())]);
    let policy = Policy { customers: Customers::ApiKeys(keys), ..policy("1") };
    let gateway = gateway(client.clone(), &upstream.start().await, policy).await;
    let headers = [("x-api-key", "secret"), ("x-customer", "somebody-else")];
    let (status, _, _) = send(&gateway, &headers, Body::empty()).await;
    assert_eq!(status, StatusCode::OK);
    let got = upstream.headers.lock().expect("no panic").clone();
    assert_eq!((header(&got, "x-customer"), header(&got, "x-api-key")), (Some("acme"), None));
    assert_eq!(available(&client, "acme").await, "9");
    let (status, _, _) = send(&gateway, &[("x-customer", "acme")], Body::empty()).await;
    assert_eq!(status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn a_request_sent_again_under_its_key_is_charged_once_and_is_no_ticket_for_more() {
    let node = Running::start().await;
    let client = node.client().await;
    wallet_with(&client, "acme", "10").await;
    let upstream = Upstream::default();
    let gateway = gateway(client.clone(), &upstream.start().await, policy("4")).await;
    let headers = [("x-customer", "acme"), ("idempotency-key", "order-1")];
    // The first time, and three repetitions.
    for _ in 0..4 {
        let (status, answer, _) = send(&gateway, &headers, Body::empty()).await;
        assert_eq!((status, header(&answer, "x-credits-remaining")), (StatusCode::OK, Some("6")));
    }
    let (status, _, body) = send(&gateway, &headers, Body::empty()).await;
    assert_eq!(status, StatusCode::CONFLICT, "{body}");
    assert_eq!(upstream.served(), 4);
    assert_eq!(available(&client, "acme").await, "6");
}

#[tokio::test]
async fn without_the_ledger_nothing_is_forwarded_unless_the_operator_chose_otherwise() {
    let mut node = Running::start().await;
    node.stop().await;
    let upstream = Upstream::default();
    let behind = upstream.start().await;
    let client = PurserClient::builder([node.address.clone()]).deadline(Duration::from_millis(300));
    let client = client.build().expect("a client");
    let headers = [("x-customer", "acme")];

    let closed = gateway(client.clone(), &behind, policy("4")).await;
    let (status, answer, body) = send(&closed, &headers, Body::empty()).await;
    assert_eq!((status, header(&answer, "retry-after")), (StatusCode::SERVICE_UNAVAILABLE, Some("1")));
    assert!(body.contains("UNAVAILABLE"), "{body}");
    assert_eq!(upstream.served(), 0);

    let open = gateway(client, &behind, Policy { fail_open: true, ..policy("4") }).await;
    let (status, answer, _) = send(&open, &headers, Body::empty()).await;
    assert_eq!((status, header(&answer, "x-credits-charged")), (StatusCode::OK, None));
    assert_eq!(upstream.served(), 1);
}

#[tokio::test]
async fn a_service_behind_that_is_down_is_said_to_be_and_what_was_charged_is_told() {
    let node = Running::start().await;
    let client = node.client().await;
    wallet_with(&client, "acme", "10").await;
    let nobody = TcpListener::bind("127.0.0.1:0").await.expect("a port").local_addr().expect("its address");
    let gateway = gateway(client, &format!("http://{nobody}"), policy("4")).await;
    let (status, answer, body) = send(&gateway, &[("x-customer", "acme")], Body::empty()).await;
    assert_eq!(status, StatusCode::BAD_GATEWAY, "{body}");
    assert_eq!(header(&answer, "x-credits-charged"), Some("4"));
}
