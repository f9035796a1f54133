//! Three nodes as one cluster, in this process, over real ports: founding, any node answers, leaders
//! and their hand-over, nodes that go away and come back at other addresses.

mod node_support;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use node_support::{
    create_request, debit_request, grant_request, hold_request, pair, purser, reason, tranche,
};
use purser_node::config::Config;
use purser_node::server::{Listeners, Server};
use purser_proto::v1;
use purser_proto::v1::cluster_client::ClusterClient;
use purser_proto::v1::ledger_client::LedgerClient;
use tokio::sync::watch;
use tonic::transport::Channel;
use tonic::{Code, Request};

/// How often a condition is looked at, and how often at most.
const LOOK_EVERY: Duration = Duration::from_millis(50);
const LOOKS_MAX: usize = 1_200;

/// A node of a cluster, from its start to its end.
struct Member {
    api: SocketAddr,
    stop: watch::Sender<bool>,
    served: tokio::task::JoinHandle<anyhow::Result<()>>,
}

impl Member {
    /// Starts a node on a directory; it waits until its cluster is founded.
    async fn start(data: &Path) -> Member {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let config = Config {
            data: data.to_owned(),
            listen: any,
            admin_listen: any,
            peer_listen: any,
            cache_mib: 8,
            disk_reserve_mib: 0,
            ..Config::default()
        };
        let listeners = Listeners::bind_with_peers(&config).await.expect("ports");
        let api = listeners.api_address;
        let mut server = Server::open(config, listeners).expect("a data directory");
        let (stop, stopped) = watch::channel(false);
        let served = tokio::spawn(async move {
            if !server.wait_for_founding(stopped.clone()).await? {
                return Ok(());
            }
            // Whoever waits for the node in vain sees why.
            let started = server.start().await.inspect_err(|error| eprintln!("it did not start: {error:#}"));
            started?.serve(stopped).await
        });
        Member { api, stop, served }
    }

    async fn stop(self) {
        self.stop.send_replace(true);
        self.served.await.expect("no panic").expect("a clean end");
    }

    fn url(&self) -> String {
        format!("http://{}", self.api)
    }

    async fn ledger(&self) -> LedgerClient<Channel> {
        LedgerClient::connect(self.url()).await.expect("a connection")
    }

    async fn cluster(&self) -> ClusterClient<Channel> {
        ClusterClient::connect(self.url()).await.expect("a connection")
    }

    async fn status(&self) -> Option<v1::GetStatusResponse> {
        let mut cluster = ClusterClient::connect(self.url()).await.ok()?;
        cluster.get_status(v1::GetStatusRequest {}).await.ok().map(tonic::Response::into_inner)
    }

    async fn map(&self) -> Option<v1::GetShardMapResponse> {
        let mut cluster = ClusterClient::connect(self.url()).await.ok()?;
        cluster.get_shard_map(v1::GetShardMapRequest {}).await.ok().map(tonic::Response::into_inner)
    }
}

/// Waits until something holds.
async fn until(what: &str, holds: impl AsyncFn() -> bool) {
    for _ in 0..LOOKS_MAX {
        if holds().await {
            return;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    panic!("it never came about: {what}");
}

fn every_group_is_led(status: &v1::GetStatusResponse) -> bool {
    status.groups.len() > 1 && status.groups.iter().all(|group| group.replicas.iter().any(|own| own.leads))
}

/// Tells each node of the cluster that they make, as `purser cluster init` does.
fn init(members: &[&Member], shards: u32) -> std::process::Output {
    let nodes: Vec<String> = members.iter().map(|member| member.api.to_string()).collect();
    let shards = shards.to_string();
    purser()
        .args(["cluster", "init", "--nodes", &nodes.join(","), "--shards", &shards])
        .output()
        .expect("it ran")
}

/// Three nodes that make a cluster, every shard led.
async fn three(folder: &Path) -> [Member; 3] {
    let [one, two, three] = ["1", "2", "3"].map(|name| folder.join(name));
    let members = [Member::start(&one).await, Member::start(&two).await, Member::start(&three).await];
    let [a, b, c] = &members;
    let command: [&Member; 3] = [a, b, c];
    let output = tokio::task::block_in_place(|| init(&command, 4));
    assert!(output.status.success(), "{output:?}");
    all_led(&members).await;
    members
}

async fn all_led(members: &[Member]) {
    for member in members {
        until("every group is led", async || {
            member.status().await.is_some_and(|status| {
                every_group_is_led(&status) && status.nodes.iter().all(|node| node.reachable)
            })
        })
        .await;
    }
}

async fn with_credits(ledger: &mut LedgerClient<Channel>, customer: &str, amount: &str) {
    ledger.create_wallet(create_request(customer, "main", 0)).await.expect("a wallet");
    let credits = vec![tranche(amount, v1::TrancheKind::Purchased)];
    ledger.grant(grant_request(customer, "main", credits)).await.expect("credits");
}

async fn available(ledger: &mut LedgerClient<Channel>, customer: &str) -> String {
    let request = v1::GetBalanceRequest {
        customer: customer.to_owned(),
        wallet: "main".to_owned(),
        ..Default::default()
    };
    let balance = ledger.get_balance(request).await.expect("a balance").into_inner();
    balance.wallets[0].balance.as_ref().expect("figures").available.clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn any_node_answers_for_every_customer() {
    let folder = tempfile::tempdir().expect("a folder");
    let members = three(folder.path()).await;
    for n in 0..12 {
        let customer = format!("customer-{n}");
        with_credits(&mut members[n % 3].ledger().await, &customer, "100").await;
        let mut other = members[(n + 1) % 3].ledger().await;
        let debit = other.debit(debit_request(&customer, "main", "30")).await.expect("applied").into_inner();
        assert_eq!(debit.remaining, "70");
        assert_eq!(available(&mut members[(n + 2) % 3].ledger().await, &customer).await, "70");
        let refused = other.debit(debit_request(&customer, "main", "71")).await.expect_err("too much");
        assert_eq!(reason(&refused), "INSUFFICIENT_CREDITS");
        assert_eq!(pair(&refused, "available"), "70");
        for member in &members {
            let half = debit_request(&customer, "main", "0.5");
            let refused = member.ledger().await.debit(half).await.expect_err("whole credits only");
            assert_eq!(reason(&refused), "INVALID_AMOUNT_PRECISION");
        }
    }
    for member in members {
        member.stop().await;
    }
}

/// Provokes: NOT_LEADER
#[tokio::test(flavor = "multi_thread")]
async fn any_node_takes_writes_of_several_sorts_for_all_shards_and_hands_them_on() {
    let folder = tempfile::tempdir().expect("a folder");
    let members = three(folder.path()).await;
    let customers: Vec<_> = (0..12).map(|n| format!("customer-{n}")).collect();
    for customer in &customers {
        with_credits(&mut members[0].ledger().await, customer, "100").await;
    }
    for (member, left) in members.iter().zip(["66", "32", "INSUFFICIENT_CREDITS"]) {
        let writes = |customer: &String| -> [v1::WriteRequest; 2] {
            [hold_request(customer, "main", "4").into(), debit_request(customer, "main", "30").into()]
        };
        let request = v1::WriteBatchRequest {
            writes: customers.iter().flat_map(writes).collect(),
            ..Default::default()
        };
        let results = member.ledger().await.write_batch(request).await.expect("results").into_inner().results;
        assert_eq!(results.len(), 24);
        for pair in results.chunks(2) {
            use v1::write_result::Outcome;
            assert!(matches!(pair[0].outcome, Some(Outcome::Held(_))), "{:?}", pair[0]);
            let told = match pair[1].outcome.as_ref().expect("an outcome") {
                Outcome::Debited(debited) => &debited.remaining,
                Outcome::Refused(refusal) => &refusal.reason,
                other => panic!("of another sort: {other:?}"),
            };
            assert_eq!(told, left);
        }
    }
    for member in members {
        member.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_routes_by_itself_is_told_who_leads() {
    let folder = tempfile::tempdir().expect("a folder");
    let members = three(folder.path()).await;
    with_credits(&mut members[0].ledger().await, "acme", "100").await;
    // One answers, two name it. A group that has just been founded may still hand its lead over, and
    // for that moment they do not agree: the same debit, by its key, is asked for again.
    let debit = debit_request("acme", "main", "1");
    until("one node answers and the others name it", async || {
        let mut named = BTreeSet::new();
        let mut answered = 0;
        for member in &members {
            let mut request = Request::new(debit.clone());
            request.metadata_mut().insert("purser-route", "direct".parse().expect("ASCII"));
            match member.ledger().await.debit(request).await {
                Ok(_) => {
                    answered += 1;
                    named.insert(member.api.to_string());
                }
                Err(status) => {
                    assert_eq!((status.code(), reason(&status).as_str()), (Code::Unavailable, "NOT_LEADER"));
                    let leader = pair(&status, "leader");
                    let term = pair(&status, "term").parse::<u64>();
                    assert_eq!(leader.is_empty(), term.is_err(), "{status:?}");
                    named.insert(leader);
                }
            }
        }
        answered == 1 && named.len() == 1
    })
    .await;
    assert_eq!(available(&mut members[1].ledger().await, "acme").await, "99");
    for member in members {
        member.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_founding_that_was_cut_off_is_completed_by_the_same_command() {
    let folder = tempfile::tempdir().expect("a folder");
    let [one, two, three] = ["1", "2", "3"].map(|name| folder.path().join(name));
    let members = [Member::start(&one).await, Member::start(&two).await, Member::start(&three).await];
    let mut nodes = Vec::new();
    for member in &members {
        let told = member.cluster().await.get_node(v1::GetNodeRequest {}).await.expect("told").into_inner();
        assert_eq!(told.cluster_id, "");
        let (node_id, api_address, peer_address) = (told.node_id, told.api_address, told.peer_address);
        nodes.push(v1::NodePlace { node_id, api_address, peer_address });
    }
    let cluster_id = "6f0c1f53-5a3c-4d0e-9a83-2d6a3d6f1c55".to_owned();
    let founding = v1::FoundRequest { cluster_id, shards: 2, nodes, replicas: 3 };
    // The one who founded it got no further than the first node.
    members[0].cluster().await.found(founding.clone()).await.expect("founded");
    until("the first node knows its cluster", async || {
        let Ok(mut cluster) = ClusterClient::connect(members[0].url()).await else { return false };
        let told = cluster.get_node(v1::GetNodeRequest {}).await;
        told.is_ok_and(|told| told.into_inner().cluster_id == founding.cluster_id)
    })
    .await;

    let output = tokio::task::block_in_place(|| init(&members.iter().collect::<Vec<_>>(), 64));

    assert!(output.status.success(), "{output:?}");
    all_led(&members).await;
    for member in &members {
        let map = member.map().await.expect("a map");
        assert_eq!((map.cluster_id.as_str(), map.shards.len()), (founding.cluster_id.as_str(), 2));
    }
    let again = tokio::task::block_in_place(|| init(&members.iter().collect::<Vec<_>>(), 2));
    assert!(String::from_utf8_lossy(&again.stdout).contains("was founded before"), "{again:?}");
    for member in members {
        member.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_stops_hands_its_leads_over_and_comes_back_at_another_address() {
    let folder = tempfile::tempdir().expect("a folder");
    let [first, second, third] = three(folder.path()).await;
    for n in 0..8 {
        with_credits(&mut first.ledger().await, &format!("customer-{n}"), "100").await;
    }
    let gone =
        first.cluster().await.get_node(v1::GetNodeRequest {}).await.expect("told").into_inner().node_id;
    let old = first.api;
    first.stop().await;

    for n in 0..8 {
        let mut ledger = second.ledger().await;
        ledger.debit(debit_request(&format!("customer-{n}"), "main", "1")).await.expect("applied without it");
    }
    let back = Member::start(&folder.path().join("1")).await;
    assert_ne!(back.api, old);
    for member in [&second, &third, &back] {
        until("everybody knows the new address", async || {
            member.map().await.is_some_and(|map| {
                let place = map.nodes.iter().find(|node| node.node_id == gone);
                place.is_some_and(|place| place.api_address == back.api.to_string())
            })
        })
        .await;
    }
    for n in 0..8 {
        assert_eq!(available(&mut back.ledger().await, &format!("customer-{n}")).await, "99");
    }
    until("it leads its share again", async || {
        let status = back.status().await.unwrap_or_default();
        let own = status.nodes.iter().find(|node| node.place.as_ref().is_some_and(|own| own.node_id == gone));
        own.is_some_and(|own| own.leads > 0)
    })
    .await;
    for member in [second, third, back] {
        member.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_majority_nothing_is_applied_and_with_one_again_the_same_key_is() {
    let folder = tempfile::tempdir().expect("a folder");
    let [first, second, third] = three(folder.path()).await;
    with_credits(&mut first.ledger().await, "acme", "100").await;
    second.stop().await;
    third.stop().await;
    let debit = debit_request("acme", "main", "40");
    let mut request = Request::new(debit.clone());
    request.set_timeout(Duration::from_secs(2));
    let refused = first.ledger().await.debit(request).await.expect_err("no majority");
    assert!(
        matches!(refused.code(), Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled),
        "{refused:?}"
    );

    let second = Member::start(&folder.path().join("2")).await;
    let mut ledger = second.ledger().await;
    until("two of three answer", async || {
        let mut ledger = ledger.clone();
        ledger.debit(debit.clone()).await.is_ok()
    })
    .await;
    assert_eq!(available(&mut ledger, "acme").await, "60");
    for member in [first, second] {
        member.stop().await;
    }
}
