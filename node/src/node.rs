//! One node, put together: data directory, log, state store, groups, shards, API. And taken apart
//! again, in the order that loses nothing.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use purser_proto::v1::admin_server::AdminServer;
use purser_proto::v1::ledger_server::LedgerServer;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::api::Api;
use crate::clock::Clock;
use crate::cluster::{Descriptor, ShardMap};
use crate::config::Config;
use crate::log::{self, GroupId, LogHandle, LogOptions, LogWriter, RealDisk, Recovered};
use crate::observe::{self, Readiness};
use crate::raft::{self, Group, GroupConfig, GroupOptions, LedgerMachine, ReplicaId};
use crate::room::Room;
use crate::shard::{Shard, ShardId, Sweeping};
use crate::storage::{StateStore, StoreOptions};

/// Most bytes of one request.
const REQUEST_BYTES_MAX: usize = 4 << 20;
/// How often the log is asked which groups it wants flushed.
const FLUSH_LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long a node that goes away gives one shard to bring its rows to disk.
const FLUSH_AT_CLOSE_MAX: Duration = Duration::from_secs(10);
/// How long a node that goes away waits for requests in flight before it cuts them off.
const DRAIN_MAX: Duration = Duration::from_secs(20);

/// A node that serves its shards.
pub struct Node {
    /// What its data directory belongs to.
    pub descriptor: Descriptor,
    /// Whether the directory was made just now.
    pub fresh: bool,
    /// Its API.
    pub api: Api,
    shards: Arc<[Shard]>,
    readiness: Arc<Readiness>,
    log: LogHandle,
    writer: LogWriter,
    chores: Vec<tokio::task::JoinHandle<()>>,
}

impl Node {
    /// Opens the data directory and starts every shard. It returns when each has a leader.
    pub async fn open(config: &Config) -> anyhow::Result<Node> {
        let opened = Descriptor::open_or_create(&config.data, config.shards, config.test_clock)?;
        let descriptor = opened.descriptor;
        let (log, writer, recovered) = open_log(config, &descriptor)?;
        let mut options = StoreOptions::new(descriptor.identity());
        options.block_cache_bytes = config.cache_mib << 20;
        let store = StateStore::open(config.data.join("state"), options)
            .with_context(|| format!("the state in {}", config.data.display()))?;
        let map = descriptor.map();
        refuse_lost_groups(map, &recovered, &store)?;
        let groups = open_groups(map, &log, &store).await?;
        let clock = Arc::new(clock_of(config, &groups)?);
        let room = Arc::new(Room::new(&config.data, config.disk_reserve_mib << 20));
        let watched = room.clone();
        let watcher = tokio::spawn(async move { watched.watch().await });
        let flusher = tokio::spawn(flush_now_and_then(log.clone(), groups.clone()));
        let chores = vec![watcher, flusher];
        let shards: Arc<[Shard]> = map
            .shards()
            .zip(groups)
            .map(|(id, group)| Shard::start(id, group, clock.clone(), room.clone(), Sweeping::default()))
            .collect();
        let api = Api::new(shards.clone(), map, clock);
        let readiness = Arc::default();
        Ok(Node { descriptor, fresh: opened.fresh, api, shards, readiness, log, writer, chores })
    }

    /// Serves until `stop` turns true; then drains, stops, and leaves everything durable.
    pub async fn serve(self, listeners: Listeners, mut stop: watch::Receiver<bool>) -> anyhow::Result<()> {
        let metrics = observe::install_metrics()?;
        let routes = observe::routes(self.shards.clone(), self.log.clone(), self.readiness.clone(), metrics);
        let mut admin_stop = stop.clone();
        let admin = axum::serve(listeners.admin, routes).with_graceful_shutdown(async move {
            let _ = admin_stop.wait_for(|stop| *stop).await;
        });
        let admin = tokio::spawn(admin.into_future());

        let (health, health_service) = tonic_health::server::health_reporter();
        health.set_serving::<LedgerServer<Api>>().await;
        let reflection = tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(purser_proto::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            .build_v1()?;
        let ledger = LedgerServer::new(self.api.clone()).max_decoding_message_size(REQUEST_BYTES_MAX);
        let (readiness, mut api_stop) = (self.readiness.clone(), stop.clone());
        let server = tonic::transport::Server::builder()
            .add_service(ledger)
            .add_service(AdminServer::new(self.api.clone()))
            .add_service(health_service)
            .add_service(reflection)
            .serve_with_incoming_shutdown(listeners.api, async move {
                let _ = api_stop.wait_for(|stop| *stop).await;
                readiness.drain();
                health.set_not_serving::<LedgerServer<Api>>().await;
                tracing::info!("stopping: no new requests are taken, those in flight are finished");
            });
        let mut server = tokio::spawn(server);
        tokio::select! {
            biased;
            served = &mut server => served??,
            // The value seen is let go before anything is waited for: it holds a lock.
            () = async { drop(stop.wait_for(|stop| *stop).await) } => match tokio::time::timeout(DRAIN_MAX, &mut server).await {
                Ok(served) => served??,
                Err(_) => {
                    tracing::warn!("requests in flight did not end in {} s: cut off", DRAIN_MAX.as_secs());
                    server.abort();
                }
            },
        }
        admin.abort();
        self.close().await
    }

    /// Stops every shard and leaves everything durable.
    pub async fn close(self) -> anyhow::Result<()> {
        self.chores.iter().for_each(|chore| chore.abort());
        for shard in self.shards.iter() {
            // Only so that the next start has less to replay: the log has everything.
            match tokio::time::timeout(FLUSH_AT_CLOSE_MAX, shard.group().flush(false)).await {
                Ok(Ok(_)) => {}
                Ok(Err(error)) => tracing::warn!(shard = shard.id().0, %error, "not flushed"),
                Err(_) => tracing::warn!(shard = shard.id().0, "not flushed: it took too long"),
            }
            if let Err(error) = shard.group().shutdown().await {
                tracing::warn!(shard = shard.id().0, %error, "the group had stopped before");
            }
        }
        // The log writes what is queued, and ends; it may block, so not on a thread of the runtime.
        tokio::task::spawn_blocking(move || self.writer.stop()).await?;
        tracing::info!("stopped");
        Ok(())
    }
}

fn open_log(config: &Config, descriptor: &Descriptor) -> anyhow::Result<(LogHandle, LogWriter, Recovered)> {
    let place = || format!("the log in {}", config.data.display());
    let disk = RealDisk::open(config.data.join("log")).with_context(place)?;
    let mut options = LogOptions::new(descriptor.identity());
    options.segment_bytes = config.log_segment_mib << 20;
    let (handle, driver, recovered) = log::open(Arc::new(disk), options).with_context(place)?;
    for (group, why) in &recovered.damaged {
        tracing::error!(group = group.0, why, "the log of this group is damaged: it is not served");
    }
    let writer = LogWriter::spawn(handle.clone(), driver).with_context(place)?;
    Ok((handle, writer, recovered))
}

/// A shard that has rows, or that some loss in the log may have hidden, and that the log does not
/// know, has lost acknowledged commands: it is refused, never begun anew.
fn refuse_lost_groups(map: ShardMap, recovered: &Recovered, store: &StateStore) -> anyhow::Result<()> {
    for shard in map.shards() {
        let known = recovered.groups.contains_key(&group_of(shard));
        if known || recovered.damaged.contains_key(&group_of(shard)) {
            continue;
        }
        let mut rows = false;
        for generation in store.generations(shard.0) {
            rows |= store.shard(shard.0, generation)?.applied()?.is_some();
        }
        anyhow::ensure!(
            !rows && !recovered.unnamed_loss,
            "the log knows nothing of shard {shard}, which {}: the log is damaged or not this store's. \
             Restore both from one copy, or start with an empty directory",
            if rows { "has rows" } else { "may have been lost from it" }
        );
    }
    Ok(())
}

/// The group of a shard: 0 is kept for the meta group.
fn group_of(shard: ShardId) -> GroupId {
    GroupId(u32::from(shard.0) + 1)
}

async fn open_groups(map: ShardMap, log: &LogHandle, store: &StateStore) -> anyhow::Result<Vec<Group>> {
    let mut groups = Vec::new();
    for shard in map.shards() {
        let group = group_of(shard);
        let options = GroupOptions {
            group,
            shard: shard.0,
            // The first replica ids are counted like the groups (cluster::LATER_REPLICA_IDS_FROM).
            replica: ReplicaId(u64::from(group.0)),
            config: GroupConfig::default(),
            machine: Arc::new(LedgerMachine::new(shard.0)),
        };
        let group = Group::open(options, log.clone(), store).await;
        groups.push(group.with_context(|| format!("shard {shard}"))?);
    }
    for group in &groups {
        group.ready().await?;
    }
    Ok(groups)
}

/// Has groups flushed and purged as the log asks for it, so that it stays short.
async fn flush_now_and_then(log: LogHandle, groups: Vec<Group>) {
    let mut look = tokio::time::interval(FLUSH_LOOK_EVERY);
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        look.tick().await;
        raft::flush_what_the_log_needs(&log, |id| groups.iter().find(|group| group.id() == id).cloned())
            .await;
    }
}

fn clock_of(config: &Config, groups: &[Group]) -> anyhow::Result<Clock> {
    if !config.test_clock {
        return Ok(Clock::System);
    }
    let mut reached = purser_ledger::time::Time::ZERO;
    for group in groups {
        reached = reached.max(purser_ledger::query::last_time(&group.view())?);
    }
    Ok(Clock::test(reached))
}

/// The ports of a node, bound.
pub struct Listeners {
    api: tonic::transport::server::TcpIncoming,
    admin: TcpListener,
    /// Where the API listens.
    pub api_address: SocketAddr,
    /// Where health and metrics are served.
    pub admin_address: SocketAddr,
}

impl Listeners {
    /// Binds both ports; port 0 takes a free one.
    pub async fn bind(config: &Config) -> anyhow::Result<Listeners> {
        let hint = "is another server running? Choose another address with --listen or --admin-listen";
        let api = TcpListener::bind(config.listen).await;
        let api = api.with_context(|| format!("cannot listen on {}: {hint}", config.listen))?;
        let admin = TcpListener::bind(config.admin_listen).await;
        let admin = admin.with_context(|| format!("cannot listen on {}: {hint}", config.admin_listen))?;
        Ok(Listeners {
            api_address: api.local_addr()?,
            admin_address: admin.local_addr()?,
            api: tonic::transport::server::TcpIncoming::from(api).with_nodelay(Some(true)),
            admin,
        })
    }
}
