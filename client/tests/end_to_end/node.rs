//! A real node. The only file here that knows how one is started.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use purser_client::{PurserClient, v1};
use purser_node::config::Config;
use purser_node::server::{Listeners, Server};
use tokio::sync::watch;

/// A node that serves, on the real clock.
pub struct Running {
    pub address: String,
    config: Config,
    serving: Option<Serving>,
    // Removed when the test is over.
    _data: tempfile::TempDir,
}

struct Serving {
    stop: watch::Sender<bool>,
    served: tokio::task::JoinHandle<anyhow::Result<()>>,
}

impl Running {
    /// Starts one on a new directory.
    pub async fn start() -> Running {
        let data = tempfile::tempdir().expect("a folder");
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut config = Config {
            data: data.path().join("data"),
            listen: any,
            admin_listen: any,
            shards: Some(4),
            cache_mib: 8,
            ..Config::default()
        };
        let listeners = Listeners::bind(&config).await.expect("ports");
        // Started again it is found where it was.
        config.listen = listeners.api_address;
        let serving = Some(serve(&config, listeners).await);
        Running { address: config.listen.to_string(), config, serving, _data: data }
    }

    /// Stops it; it must end without an error.
    pub async fn stop(&mut self) {
        let Serving { stop, served } = self.serving.take().expect("it serves");
        stop.send(true).expect("it serves");
        served.await.expect("no panic").expect("a clean end");
    }

    /// Starts it again, on the same directory and port.
    pub async fn start_again(&mut self) {
        let listeners = Listeners::bind(&self.config).await.expect("the same port");
        self.serving = Some(serve(&self.config, listeners).await);
    }

    /// A client of it that waits long enough for a busy machine.
    pub async fn client(&self) -> PurserClient {
        let builder = PurserClient::builder([self.address.clone()]);
        let patient = builder.deadline(Duration::from_secs(60)).attempt_timeout(Duration::from_secs(20));
        patient.connect().await.expect("connected")
    }
}

async fn serve(config: &Config, listeners: Listeners) -> Serving {
    let mut server = Server::open(config.clone(), listeners).expect("a data directory");
    server.found_alone().expect("a cluster of one");
    let running = server.start().await.expect("a node");
    running.node().ready().await.expect("leaders");
    let (stop, stopped) = watch::channel(false);
    Serving { stop, served: tokio::spawn(running.serve(stopped)) }
}

/// A wallet `main` of `credits/0` with so much in it.
pub async fn wallet_with(client: &PurserClient, customer: &str, amount: &str) {
    let create = v1::CreateWalletRequest {
        customer: customer.to_owned(),
        wallet: "main".to_owned(),
        asset: Some(v1::Asset { code: "credits".to_owned(), scale: 0 }),
        ..Default::default()
    };
    client.create_wallet(create).await.into_result().expect("a wallet");
    let tranche = v1::TrancheSpec {
        amount: amount.to_owned(),
        kind: v1::TrancheKind::Purchased.into(),
        ..Default::default()
    };
    let grant = v1::GrantRequest {
        customer: customer.to_owned(),
        wallet: "main".to_owned(),
        tranches: vec![tranche],
        ..Default::default()
    };
    client.grant(grant).await.into_result().expect("a grant");
}

/// A debit of the wallet `main`, under a key of the client's choice.
pub fn debit(customer: &str, amount: &str) -> v1::DebitRequest {
    v1::DebitRequest {
        customer: customer.to_owned(),
        payer: Some(v1::debit_request::Payer::Wallet("main".to_owned())),
        amount: amount.to_owned(),
        ..Default::default()
    }
}

/// What is available in the wallet `main`.
pub async fn available(client: &PurserClient, customer: &str) -> String {
    let request = v1::GetBalanceRequest {
        customer: customer.to_owned(),
        wallet: "main".to_owned(),
        ..Default::default()
    };
    let mut balance = client.get_balance(request).await.expect("a balance");
    balance.wallets.remove(0).balance.expect("a balance").available
}

/// A customer that no other test of this process has.
pub fn fresh_customer() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    format!("customer-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}
