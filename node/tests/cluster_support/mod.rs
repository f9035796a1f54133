//! Nodes of a cluster, in this process, over real ports.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use purser_node::config::Config;
use purser_node::server::{Listeners, Server};
use purser_proto::v1;
use purser_proto::v1::cluster_client::ClusterClient;
use purser_proto::v1::ledger_client::LedgerClient;
use tokio::sync::watch;
use tonic::transport::Channel;

use super::node_support::{create_request, grant_request, purser, tranche};

/// How often a condition is looked at, and how often at most.
const LOOK_EVERY: Duration = Duration::from_millis(50);
const LOOKS_MAX: usize = 1_200;

/// A node of a cluster, from its start to its end.
pub struct Member {
    pub api: SocketAddr,
    pub admin: SocketAddr,
    stop: watch::Sender<bool>,
    served: tokio::task::JoinHandle<anyhow::Result<()>>,
}

impl Member {
    /// Starts a node on a directory; it waits until its cluster is founded.
    pub async fn start(data: &Path) -> Member {
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
        let (api, admin) = (listeners.api_address, listeners.admin_address);
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
        Member { api, admin, stop, served }
    }

    pub async fn stop(self) {
        self.stop.send_replace(true);
        self.served.await.expect("no panic").expect("a clean end");
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.api)
    }

    pub async fn ledger(&self) -> LedgerClient<Channel> {
        LedgerClient::connect(self.url()).await.expect("a connection")
    }

    pub async fn cluster(&self) -> ClusterClient<Channel> {
        ClusterClient::connect(self.url()).await.expect("a connection")
    }

    /// Who it is, and where.
    pub async fn place(&self) -> v1::NodePlace {
        let told = self.cluster().await.get_node(v1::GetNodeRequest {}).await.expect("told").into_inner();
        let (node_id, api_address, peer_address) = (told.node_id, told.api_address, told.peer_address);
        v1::NodePlace { node_id, api_address, peer_address }
    }

    pub async fn id(&self) -> String {
        self.place().await.node_id
    }

    /// What `/readyz?verbose` says.
    pub fn ready(&self) -> String {
        tokio::task::block_in_place(|| {
            let mut stream = TcpStream::connect(self.admin).expect("a connection");
            write!(stream, "GET /readyz?verbose HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n")
                .expect("sent");
            let mut answer = String::new();
            stream.read_to_string(&mut answer).expect("an answer");
            answer
        })
    }

    pub async fn status(&self) -> Option<v1::GetStatusResponse> {
        let mut cluster = ClusterClient::connect(self.url()).await.ok()?;
        cluster.get_status(v1::GetStatusRequest {}).await.ok().map(tonic::Response::into_inner)
    }

    pub async fn map(&self) -> Option<v1::GetShardMapResponse> {
        let mut cluster = ClusterClient::connect(self.url()).await.ok()?;
        cluster.get_shard_map(v1::GetShardMapRequest {}).await.ok().map(tonic::Response::into_inner)
    }
}

/// Waits until something holds.
pub async fn until(what: &str, holds: impl AsyncFn() -> bool) {
    for _ in 0..LOOKS_MAX {
        if holds().await {
            return;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    panic!("it never came about: {what}");
}

pub fn every_group_is_led(status: &v1::GetStatusResponse) -> bool {
    status.groups.len() > 1 && status.groups.iter().all(|group| group.replicas.iter().any(|own| own.leads))
}

/// Tells each node of the cluster that they make, as `purser cluster init` does.
pub fn init(members: &[&Member], shards: u32) -> std::process::Output {
    let nodes: Vec<String> = members.iter().map(|member| member.api.to_string()).collect();
    let shards = shards.to_string();
    run(&["cluster", "init", "--nodes", &nodes.join(","), "--shards", &shards])
}

/// Puts a new node in a lost one's place, and waits until it has it.
pub fn replace(lost: &str, with: &Member, member: &Member) -> std::process::Output {
    let (with, nodes) = (with.api.to_string(), member.api.to_string());
    run(&["cluster", "replace", "--lost", lost, "--with", &with, "--nodes", &nodes])
}

fn run(args: &[&str]) -> std::process::Output {
    // The nodes go on meanwhile.
    tokio::task::block_in_place(|| purser().args(args).output().expect("it ran"))
}

/// Three nodes that make a cluster, every shard led.
pub async fn three(folder: &Path) -> [Member; 3] {
    let [one, two, three] = ["1", "2", "3"].map(|name| folder.join(name));
    let members = [Member::start(&one).await, Member::start(&two).await, Member::start(&three).await];
    let [a, b, c] = &members;
    let command: [&Member; 3] = [a, b, c];
    let output = init(&command, 4);
    assert!(output.status.success(), "{output:?}");
    all_led(&members).await;
    members
}

pub async fn all_led(members: &[Member]) {
    for member in members {
        until("every group is led", async || {
            member.status().await.is_some_and(|status| {
                every_group_is_led(&status) && status.nodes.iter().all(|node| node.reachable)
            })
        })
        .await;
    }
}

pub async fn with_credits(ledger: &mut LedgerClient<Channel>, customer: &str, amount: &str) {
    ledger.create_wallet(create_request(customer, "main", 0)).await.expect("a wallet");
    let credits = vec![tranche(amount, v1::TrancheKind::Purchased)];
    ledger.grant(grant_request(customer, "main", credits)).await.expect("credits");
}

pub async fn available(ledger: &mut LedgerClient<Channel>, customer: &str) -> String {
    let request = v1::GetBalanceRequest {
        customer: customer.to_owned(),
        wallet: "main".to_owned(),
        ..Default::default()
    };
    let balance = ledger.get_balance(request).await.expect("a balance").into_inner();
    balance.wallets[0].balance.as_ref().expect("figures").available.clone()
}
