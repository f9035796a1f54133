//! What an operator sees: health and metrics over HTTP, apart from the API's port.
//!
//! `/livez` says that the process runs: it never depends on a quorum, so that nobody restarts a node
//! for its peers' sake. `/readyz` says whether it should be sent requests; a node in whose place another
//! one was put should not.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::routing::get;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

use crate::cluster::Cluster;
use crate::log::LogHandle;
use crate::node::Node;
use crate::shard::{Shard, ShardId};

/// Bounds of the latency histogram, in seconds: from a tenth of a millisecond to ten seconds.
const LATENCY_BOUNDS_S: &[f64] =
    &[0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];

/// Whether the node should be sent requests.
#[derive(Debug, Default)]
pub struct Readiness {
    draining: AtomicBool,
}

impl Readiness {
    /// From now on the node is not ready: it is going away.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Release);
    }

    fn draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }
}

#[derive(Clone)]
struct Observed {
    shards: Arc<BTreeMap<ShardId, Shard>>,
    cluster: Arc<Cluster>,
    readiness: Arc<Readiness>,
    log: LogHandle,
    metrics: PrometheusHandle,
}

/// The process's recorder of metrics: one, however many nodes the process runs one after another.
static RECORDER: Mutex<Option<PrometheusHandle>> = Mutex::new(None);

/// Starts to record metrics, or joins the process's recorder.
pub fn install_metrics() -> anyhow::Result<PrometheusHandle> {
    let mut installed = RECORDER.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(handle) = &*installed {
        return Ok(handle.clone());
    }
    let builder = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Full("purser_request_seconds".to_owned()), LATENCY_BOUNDS_S)?;
    let handle = builder.install_recorder()?;
    metrics::describe_counter!("purser_requests_total", "Requests answered, by method and gRPC code");
    metrics::describe_histogram!("purser_request_seconds", "Seconds from a request's arrival to its answer");
    metrics::describe_gauge!("purser_shard_queue_commands", "Commands that wait for a shard's batcher");
    metrics::describe_gauge!("purser_shard_leader", "1 where this node leads the shard");
    metrics::describe_gauge!("purser_shard_applied_index", "The last log index that the shard applied");
    metrics::describe_counter!("purser_log_syncs_total", "Syncs of log segments");
    metrics::describe_counter!("purser_log_bytes_total", "Bytes written to the log");
    metrics::describe_counter!("purser_log_entries_total", "Entries written to the log");
    metrics::describe_gauge!("purser_log_segments", "Log segments in use");
    metrics::describe_gauge!("purser_log_queue_bytes", "Bytes that wait for the log's writer");
    *installed = Some(handle.clone());
    Ok(handle)
}

/// The admin port's routes while the node waits for its cluster.
pub fn lobby() -> Router {
    let waiting = || async {
        let text = "no cluster yet: purser cluster init, or purser cluster replace\n";
        (StatusCode::SERVICE_UNAVAILABLE, text)
    };
    Router::new().route("/livez", get(|| async { "ok\n" })).route("/readyz", get(waiting))
}

/// The admin port's routes.
pub fn routes(node: &Node, log: LogHandle, readiness: Arc<Readiness>, metrics: PrometheusHandle) -> Router {
    let (shards, cluster) = (node.shards().clone(), node.cluster().clone());
    Router::new()
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(scrape))
        .with_state(Observed { shards, cluster, readiness, log, metrics })
}

#[derive(serde::Deserialize)]
struct Verbose {
    verbose: Option<String>,
}

async fn ready(State(own): State<Observed>, Query(how): Query<Verbose>) -> (StatusCode, String) {
    let mut lines = vec![("draining", !own.readiness.draining())];
    let in_touch = own.shards.values().all(|shard| shard.group().is_in_touch());
    lines.push(("majorities", in_touch));
    let replaced_by = own.cluster.replaced_by();
    lines.push(("member", replaced_by.is_none()));
    let ready = lines.iter().all(|(_, fine)| *fine);
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    if how.verbose.is_none() {
        return (status, if ready { "ok\n" } else { "not ready\n" }.to_owned());
    }
    let mut text = String::new();
    for (what, fine) in lines {
        text.push_str(&format!("[{}] {what}\n", if fine { '+' } else { '-' }));
    }
    if let Some(by) = replaced_by {
        text.push_str(&format!(
            "    node {by} was put in the place of this one: stop it, and remove its data directory\n"
        ));
    }
    for shard in own.shards.values() {
        let now = shard.group().metrics();
        let leader = now.leader.map_or("none".to_owned(), |leader| leader.to_string());
        let applied = now.applied_index.unwrap_or(0);
        let stopped = now.stopped.map(|why| format!(", stopped: {why}")).unwrap_or_default();
        text.push_str(&format!("    shard {}: leader {leader}, applied {applied}{stopped}\n", shard.id()));
    }
    (status, text)
}

async fn scrape(State(own): State<Observed>) -> String {
    for shard in own.shards.values() {
        let id = shard.id().to_string();
        // Prometheus counts in floating point; these are shown, never computed with.
        metrics::gauge!("purser_shard_queue_commands", "shard" => id.clone()).set(shard.queued() as f64);
        let now = shard.group().metrics();
        let leads = f64::from(u8::from(now.leads));
        metrics::gauge!("purser_shard_leader", "shard" => id.clone()).set(leads);
        let applied = now.applied_index.unwrap_or(0) as f64;
        metrics::gauge!("purser_shard_applied_index", "shard" => id).set(applied);
    }
    let log = own.log.stats();
    metrics::counter!("purser_log_syncs_total").absolute(log.core.syncs);
    metrics::counter!("purser_log_bytes_total").absolute(log.core.bytes);
    metrics::counter!("purser_log_entries_total").absolute(log.core.entries);
    metrics::gauge!("purser_log_segments").set(log.core.segments as f64);
    metrics::gauge!("purser_log_queue_bytes").set(log.queue_bytes as f64);
    own.metrics.render()
}
