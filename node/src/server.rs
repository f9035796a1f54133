//! A node in production: its data directory, its ports, and the life between start and stop.
//!
//! ```text
//!   open the directory ── no cluster yet? wait in the lobby until it belongs to one ── start the node
//!   ── serve ── told to stop: not ready, hand leads over, finish what is in flight, flush ── end
//! ```

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use futures_util::FutureExt;
use purser_proto::v1;
use purser_proto::v1::admin_server::AdminServer;
use purser_proto::v1::cluster_server::{Cluster as ClusterService, ClusterServer};
use purser_proto::v1::ledger_server::LedgerServer;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};

use crate::api::refusal::{self, Pairs};
use crate::api::{self, Api};
use crate::clock::Clock;
use crate::cluster::{Cluster, Descriptor, Founding, NodePlace, SHARDS_DEFAULT, State};
use crate::config::Config;
use crate::log::{self, LogHandle, LogOptions, LogWriter, RealDisk, Recovered};
use crate::node::{Mailroom, Node, Parts};
use crate::observe::{self, Readiness};
use crate::peer::AddressBook;
use crate::peer::tcp::{Reception, TcpTransport};
use crate::raft::GroupConfig;
use crate::room::Room;
use crate::storage::{StateStore, StoreOptions};

/// Most bytes of one request.
const REQUEST_BYTES_MAX: usize = 4 << 20;
/// How long a node that goes away waits for requests in flight before it cuts them off.
const DRAIN_MAX: Duration = Duration::from_secs(20);

/// The ports of a node, bound.
///
/// Handles to a port can be shared: who waits in the lobby gives it on without closing it.
pub struct Listeners {
    api: std::net::TcpListener,
    admin: std::net::TcpListener,
    peer: Option<std::net::TcpListener>,
    /// Where the API listens.
    pub api_address: SocketAddr,
    /// Where health and metrics are served.
    pub admin_address: SocketAddr,
    /// Where other nodes are listened to; a node that is alone does not.
    pub peer_address: Option<SocketAddr>,
}

impl Listeners {
    /// Binds the ports of a node that is alone; port 0 takes a free one.
    pub async fn bind(config: &Config) -> anyhow::Result<Listeners> {
        let api = bind(config.listen, "--listen").await?;
        let admin = bind(config.admin_listen, "--admin-listen").await?;
        let (api_address, admin_address) = (api.local_addr()?, admin.local_addr()?);
        Ok(Listeners { api, admin, peer: None, api_address, admin_address, peer_address: None })
    }

    /// Binds the ports of a node with peers.
    pub async fn bind_with_peers(config: &Config) -> anyhow::Result<Listeners> {
        let peer = bind(config.peer_listen, "--peer-listen").await?;
        let peer_address = Some(peer.local_addr()?);
        Ok(Listeners { peer: Some(peer), peer_address, ..Listeners::bind(config).await? })
    }
}

async fn bind(address: SocketAddr, flag: &str) -> anyhow::Result<std::net::TcpListener> {
    let bound = TcpListener::bind(address).await.and_then(TcpListener::into_std);
    bound.with_context(|| {
        format!("cannot listen on {address}: is another server running? Choose another address with {flag}")
    })
}

/// A handle of its own to a port.
fn port(listener: &std::net::TcpListener) -> std::io::Result<TcpListener> {
    TcpListener::from_std(listener.try_clone()?)
}

fn incoming(listener: TcpListener) -> TcpIncoming {
    TcpIncoming::from(listener).with_nodelay(Some(true))
}

/// A node's data directory, opened, and its ports.
pub struct Server {
    config: Config,
    listeners: Listeners,
    /// What the directory belongs to.
    pub descriptor: Descriptor,
    /// Whether the directory was made just now.
    pub fresh: bool,
    readiness: Arc<Readiness>,
}

impl Server {
    /// Opens the data directory, or makes a new one.
    pub fn open(config: Config, listeners: Listeners) -> anyhow::Result<Server> {
        let opened = Descriptor::open_or_create(&config.data, config.test_clock)?;
        if let (Some(asked), Some(founding)) = (config.shards, &opened.descriptor.founding) {
            anyhow::ensure!(
                asked == founding.shards,
                "{} was made with {} shards, not {asked}: leave --shards out, or name another directory",
                config.data.display(),
                founding.shards
            );
        }
        let readiness = Arc::default();
        Ok(Server { descriptor: opened.descriptor, fresh: opened.fresh, config, listeners, readiness })
    }

    /// The API's address.
    pub fn api_address(&self) -> SocketAddr {
        self.listeners.api_address
    }

    /// Where health and metrics are.
    pub fn admin_address(&self) -> SocketAddr {
        self.listeners.admin_address
    }

    /// Where other nodes find this one.
    pub fn place(&self) -> anyhow::Result<NodePlace> {
        let own = &self.listeners;
        let api = advertised(&self.config.advertise, Some(own.api_address), "--advertise")?;
        let peer = advertised(&self.config.peer_advertise, own.peer_address, "--peer-advertise")?;
        Ok(NodePlace {
            id: self.descriptor.node_id,
            api_address: api,
            peer_address: peer,
            version: env!("CARGO_PKG_VERSION").to_owned(),
        })
    }

    /// Founds a cluster of this node alone, if it has none.
    pub fn found_alone(&mut self) -> anyhow::Result<()> {
        if self.descriptor.founding.is_none() {
            let shards = self.config.shards.unwrap_or(SHARDS_DEFAULT);
            let founding = Founding::alone(shards, self.place()?)?;
            self.descriptor.found(&self.config.data, founding)?;
        }
        Ok(())
    }

    /// Waits in the lobby until a cluster is founded with this node; `false` if it was told to stop
    /// before.
    pub async fn wait_for_founding(&mut self, mut stop: watch::Receiver<bool>) -> anyhow::Result<bool> {
        if self.descriptor.founding.is_some() {
            return Ok(true);
        }
        let place = self.place()?;
        let admin = tokio::spawn(axum::serve(port(&self.listeners.admin)?, observe::lobby()).into_future());
        let (founded, mut seen) = watch::channel(false);
        let lobby = Arc::new(Lobby {
            place,
            data: self.config.data.clone(),
            shards: self.config.shards,
            descriptor: Mutex::new(self.descriptor.clone()),
            founded,
        });
        let end = async move {
            tokio::select! {
                biased;
                _ = seen.wait_for(|founded| *founded) => {}
                _ = stop.wait_for(|stop| *stop) => {}
            }
        };
        tonic::transport::Server::builder()
            .add_service(ClusterServer::from_arc(lobby.clone()))
            .serve_with_incoming_shutdown(incoming(port(&self.listeners.api)?), end)
            .await?;
        admin.abort();
        self.descriptor = lobby.descriptor.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Ok(self.descriptor.founding.is_some())
    }

    /// Starts the node of a founded cluster.
    pub async fn start(self) -> anyhow::Result<Running> {
        let place = self.place()?;
        let Server { config, listeners, mut descriptor, readiness, .. } = self;
        let cluster = Cluster::of(&descriptor).context("no cluster was founded with this node yet")?;
        let cluster = Arc::new(cluster);
        cluster.moved(place.id, place.peer_address.clone());
        let identity = identity(&cluster);
        let (log, writer, recovered) = open_log(&config, identity.clone())?;
        let nothing = recovered.groups.is_empty() && recovered.damaged.is_empty();
        anyhow::ensure!(
            !(descriptor.begun && nothing),
            "{} has lost its log, and with it votes and what others count on it to have: it must not go on \
             under the same id. {}",
            config.data.display(),
            if cluster.founding().replicas > 1 {
                "Mount the disk that holds it, or replace this node: purser cluster replace"
            } else {
                "Mount the disk that holds it, or restore the whole directory from a copy"
            }
        );
        let mut options = StoreOptions::new(identity);
        options.block_cache_bytes = config.cache_mib << 20;
        let state = StateStore::open(config.data.join("state"), options)
            .with_context(|| format!("the state in {}", config.data.display()))?;
        let room = Arc::new(Room::new(&config.data, config.disk_reserve_mib << 20));
        let peers = TcpTransport::new(cluster.founding().cluster_id, cluster.own(), cluster.clone());
        let mailroom = Mailroom::new(cluster.clone());
        let (silence, silenced) = watch::channel(false);
        let peer_server = match &listeners.peer {
            Some(listener) => {
                let (id, own) = (cluster.founding().cluster_id, cluster.own());
                let reception = Reception::new(id, own, cluster.clone(), mailroom.clone(), silenced);
                Some(tokio::spawn(reception.serve(port(listener)?)))
            }
            None => None,
        };
        let clock = Arc::new(match config.test_clock {
            true => Clock::test(purser_ledger::time::Time::ZERO),
            false => Clock::System,
        });
        let parts = Parts {
            cluster,
            place,
            log: log.clone(),
            recovered,
            state,
            peers,
            clock: clock.clone(),
            room: room.clone(),
            groups: GroupConfig::default(),
            ledger: Box::new(crate::node::ledger),
        };
        let node = Node::start(parts).await?;
        // A node may have no replica yet, and then nothing is in its log.
        if !node.cluster().groups().is_empty() {
            descriptor.begin(&config.data)?;
        }
        if clock.is_test() {
            clock.set(last_time(&node)?.max(clock.now()))?;
        }
        mailroom.open(node.api.clone());
        let watcher = tokio::spawn(async move { room.watch().await });
        Ok(Running {
            held: Held { node, mailroom, silence, peer_server, watcher, writer },
            api: port(&listeners.api)?,
            admin: port(&listeners.admin)?,
            readiness,
            log,
        })
    }
}

/// The address that others are told: what was configured, or where the node listens, if that means
/// anything to others.
fn advertised(told: &Option<String>, bound: Option<SocketAddr>, flag: &str) -> anyhow::Result<String> {
    match (told, bound) {
        (Some(told), _) => {
            let port = told.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse::<u16>().ok()?)));
            anyhow::ensure!(
                port.is_some_and(|(host, _)| !host.is_empty()),
                "{flag} {told}: must be host:port"
            );
            Ok(told.clone())
        }
        (None, Some(bound)) => {
            anyhow::ensure!(
                !bound.ip().is_unspecified(),
                "{bound} means every address of this machine: say with {flag} host:port where others find it"
            );
            Ok(bound.to_string())
        }
        (None, None) => Ok(String::new()),
    }
}

/// The bytes that log and state store keep to know their own: cluster and node.
fn identity(cluster: &Cluster) -> Vec<u8> {
    [*cluster.founding().cluster_id.as_bytes(), *cluster.own().0.as_bytes()].concat()
}

fn open_log(config: &Config, identity: Vec<u8>) -> anyhow::Result<(LogHandle, LogWriter, Recovered)> {
    let place = || format!("the log in {}", config.data.display());
    let disk = RealDisk::open(config.data.join("log")).with_context(place)?;
    let mut options = LogOptions::new(identity);
    options.segment_bytes = config.log_segment_mib << 20;
    let (handle, driver, recovered) = log::open(Arc::new(disk), options).with_context(place)?;
    for (group, why) in &recovered.damaged {
        tracing::error!(group = group.0, why, "the log of this group is damaged: it is not served");
    }
    let writer = LogWriter::spawn(handle.clone(), driver).with_context(place)?;
    Ok((handle, writer, recovered))
}

/// The latest time that any shard here has reached.
fn last_time(node: &Node) -> anyhow::Result<purser_ledger::time::Time> {
    let mut reached = purser_ledger::time::Time::ZERO;
    for shard in node.shards().values() {
        reached = reached.max(purser_ledger::query::last_time(&shard.group().view())?);
    }
    Ok(reached)
}

/// Before there is a cluster: tells who the node is, and takes the founding in, or a lost node's place.
struct Lobby {
    place: NodePlace,
    data: PathBuf,
    shards: Option<u16>,
    descriptor: Mutex<Descriptor>,
    founded: watch::Sender<bool>,
}

impl Lobby {
    fn found(&self, request: &v1::FoundRequest) -> Result<(), Status> {
        let founding = api::cluster::founding_of(request)?;
        if !founding.names(self.place.id) {
            let told = format!("this node, {}, is not among them", self.place.id);
            return Err(refusal::malformed_field("nodes", &told));
        }
        self.belong(founding, None)
    }

    fn join(&self, request: &v1::JoinRequest) -> Result<(), Status> {
        let (founding, state) = api::replace::joined(request, self.place.id)?;
        self.belong(founding, Some(state))
    }

    fn belong(&self, founding: Founding, joined: Option<State>) -> Result<(), Status> {
        if self.shards.is_some_and(|own| own != founding.shards) {
            return Err(refusal::malformed_field("shards", "this node is configured for another number"));
        }
        let mut descriptor = self.descriptor.lock().unwrap_or_else(PoisonError::into_inner);
        let written = match joined {
            None => descriptor.found(&self.data, founding),
            Some(state) => descriptor.join(&self.data, founding, state),
        };
        written.map_err(|error| refusal::refuse("ALREADY_EXISTS", error.to_string(), Pairs::new()))?;
        // The answer still goes out: the lobby closes when what it has begun is done.
        self.founded.send_replace(true);
        Ok(())
    }
}

#[tonic::async_trait]
impl ClusterService for Lobby {
    async fn get_node(
        &self,
        _request: Request<v1::GetNodeRequest>,
    ) -> Result<Response<v1::GetNodeResponse>, Status> {
        let descriptor = self.descriptor.lock().unwrap_or_else(PoisonError::into_inner);
        let cluster = descriptor.founding.as_ref().map(|own| own.cluster_id.to_string());
        Ok(Response::new(v1::GetNodeResponse {
            node_id: self.place.id.to_string(),
            api_address: self.place.api_address.clone(),
            peer_address: self.place.peer_address.clone(),
            version: self.place.version.clone(),
            cluster_id: cluster.unwrap_or_default(),
            founding: descriptor.founding.as_ref().map(api::cluster::founding),
        }))
    }

    async fn found(&self, request: Request<v1::FoundRequest>) -> Result<Response<v1::FoundResponse>, Status> {
        Lobby::found(self, request.get_ref())?;
        Ok(Response::new(v1::FoundResponse {}))
    }

    async fn replace(
        &self,
        _request: Request<v1::ReplaceRequest>,
    ) -> Result<Response<v1::ReplaceResponse>, Status> {
        Err(no_cluster_yet())
    }

    async fn join(&self, request: Request<v1::JoinRequest>) -> Result<Response<v1::JoinResponse>, Status> {
        Lobby::join(self, request.get_ref())?;
        Ok(Response::new(v1::JoinResponse {}))
    }

    async fn get_shard_map(
        &self,
        _request: Request<v1::GetShardMapRequest>,
    ) -> Result<Response<v1::GetShardMapResponse>, Status> {
        Err(no_cluster_yet())
    }

    async fn get_status(
        &self,
        _request: Request<v1::GetStatusRequest>,
    ) -> Result<Response<v1::GetStatusResponse>, Status> {
        Err(no_cluster_yet())
    }
}

fn no_cluster_yet() -> Status {
    refusal::unavailable(
        "this node belongs to no cluster yet: found one with `purser cluster init`, or put it in a lost \
         node's place with `purser cluster replace`",
    )
}

/// A node that was started.
pub struct Running {
    held: Held,
    api: TcpListener,
    admin: TcpListener,
    readiness: Arc<Readiness>,
    log: LogHandle,
}

impl Running {
    /// The node.
    pub fn node(&self) -> &Node {
        &self.held.node
    }

    /// Serves until `stop` turns true; then drains, stops, and leaves everything durable.
    pub async fn serve(self, stop: watch::Receiver<bool>) -> anyhow::Result<()> {
        let Running { held, api, admin, readiness, log } = self;
        let node = &held.node;
        let metrics = observe::install_metrics()?;
        let routes = observe::routes(node, log, readiness.clone(), metrics);
        let admin = tokio::spawn(axum::serve(admin, routes).into_future());

        let (health, health_service) = tonic_health::server::health_reporter();
        health.set_serving::<LedgerServer<Api>>().await;
        let reflection = tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(purser_proto::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            .build_v1()?;
        let (drained, mut drain) = watch::channel(false);
        let server = tonic::transport::Server::builder()
            .add_service(LedgerServer::new(node.api.clone()).max_decoding_message_size(REQUEST_BYTES_MAX))
            .add_service(AdminServer::new(node.api.clone()))
            .add_service(ClusterServer::new(node.api.clone()))
            .add_service(health_service)
            .add_service(reflection)
            .serve_with_incoming_shutdown(incoming(api), async move {
                let _ = drain.wait_for(|drain| *drain).await;
            });
        let mut server = tokio::spawn(server);
        let mut stop = stop;
        let told = async move { drop(stop.wait_for(|stop| *stop).await) }.boxed();
        tokio::select! {
            biased;
            served = &mut server => served??,
            () = told => {
                readiness.drain();
                health.set_not_serving::<LedgerServer<Api>>().await;
                // Still serving: what comes meanwhile is handed on to the new leaders.
                node.leave().await;
                node.api.drain();
                tracing::info!("stopping: no new requests are taken, those in flight are finished");
                drained.send_replace(true);
                match tokio::time::timeout(DRAIN_MAX, &mut server).await {
                    Ok(served) => served??,
                    Err(_) => {
                        tracing::warn!("requests in flight did not end in {} s: cut off", DRAIN_MAX.as_secs());
                        server.abort();
                    }
                }
            }
        }
        admin.abort();
        held.close().await
    }

    /// Stops every group and leaves everything durable.
    pub async fn close(self) -> anyhow::Result<()> {
        self.held.close().await
    }
}

/// What is let go at the end, in this order.
struct Held {
    node: Node,
    mailroom: Arc<Mailroom>,
    /// Ends the connections of other nodes.
    silence: watch::Sender<bool>,
    peer_server: Option<tokio::task::JoinHandle<()>>,
    watcher: tokio::task::JoinHandle<()>,
    writer: LogWriter,
}

impl Held {
    async fn close(self) -> anyhow::Result<()> {
        self.mailroom.close();
        self.node.close().await;
        self.silence.send_replace(true);
        if let Some(peer_server) = self.peer_server {
            peer_server.abort();
        }
        self.watcher.abort();
        // The log writes what is queued, and ends; it may block, so not on a thread of the runtime.
        tokio::task::spawn_blocking(move || self.writer.stop()).await?;
        tracing::info!("stopped");
        Ok(())
    }
}
