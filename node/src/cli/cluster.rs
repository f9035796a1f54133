//! `purser cluster`: found one. How it does is `status`, replacing a lost node is `replace`.

use std::collections::BTreeSet;
use std::time::Duration;

use clap::{Args, Subcommand};
use purser_proto::v1::{FoundRequest, GetNodeRequest, GetNodeResponse, GetStatusRequest, NodePlace};
use serde_json::json;

use super::answer::{Answer, Exit};
use super::failure::Failure;
use super::replace::ReplaceArgs;
use super::session::{About, Globals, Session};
use super::{json, status};

/// Shown under `--help`.
pub const EXAMPLES: &str = "\
Examples:
  purser cluster init --nodes 127.0.0.1:7480,127.0.0.1:7580,127.0.0.1:7680
  purser cluster status
  purser cluster replace --lost 0f3c… --with 127.0.0.1:7780 --nodes 127.0.0.1:7480
  purser cluster status -o json | jq '.nodes[] | {node: .place.api_address, reachable}'";

/// Replicas of a cluster of three nodes or more that does not say.
const REPLICAS_DEFAULT: u32 = 3;
/// Shards of a cluster that does not say.
const SHARDS_DEFAULT: u32 = 16;

/// How long `cluster init` waits until the new cluster serves, and how often it looks.
const READY_WAIT: Duration = Duration::from_secs(20);
const READY_LOOK_EVERY: Duration = Duration::from_millis(100);

/// What may be done with a cluster.
#[derive(Debug, Subcommand)]
pub enum ClusterCommand {
    /// Found a cluster of nodes that were started and wait for it
    #[command(after_help = "\
The nodes are asked who they are, and then told of the cluster that they make. Run again after a failure
it goes on where it stopped: a cluster is never founded twice. It ends when every shard has a leader, and
with exit code 1 if that takes more than 20 seconds.

Examples:
  purser cluster init --nodes 127.0.0.1:7480,127.0.0.1:7580,127.0.0.1:7680
  purser cluster init --nodes n1:7480,n2:7480,n3:7480 --shards 64")]
    Init(InitArgs),
    /// Put a new node in the place of one that is lost, with its disk or for good
    #[command(after_help = super::replace::AFTER_HELP)]
    Replace(ReplaceArgs),
    /// Show its nodes, and who leads and follows in each shard
    #[command(after_help = "\
The exit code is 1 if a node cannot be reached, a shard has no leader, or a replica does not work.

Examples:
  purser cluster status
  purser cluster status --server http://127.0.0.1:7580 -o json")]
    Status,
}

/// The cluster to found.
#[derive(Debug, Args)]
pub struct InitArgs {
    /// The API addresses of its nodes
    #[arg(long, value_name = "HOST:PORT", value_delimiter = ',', required = true)]
    nodes: Vec<String>,
    /// How many shards, for its life: a power of two
    #[arg(long, value_name = "NUMBER", default_value_t = SHARDS_DEFAULT)]
    shards: u32,
    /// Replicas of each shard: 1, 3, 5 or 7 [default: 3, or 1 where there are fewer nodes]
    #[arg(long, value_name = "NUMBER")]
    replicas: Option<u32>,
}

impl ClusterCommand {
    /// Runs what needs one server.
    pub async fn run(self, session: &Session) -> Result<Answer, Failure> {
        match self {
            ClusterCommand::Init(_) | ClusterCommand::Replace(_) => {
                Err(Failure::Usage("it speaks to its --nodes".to_owned()))
            }
            ClusterCommand::Status => {
                let request = session.request(GetStatusRequest {});
                let mut cluster = session.cluster();
                let about = About::read("show the cluster");
                let status = session.wait(about, cluster.get_status(request)).await?;
                Ok(status::show(&status))
            }
        }
    }
}

/// A node that was asked who it is.
pub(super) struct Asked {
    pub session: Session,
    pub told: GetNodeResponse,
}

impl InitArgs {
    /// Runs it.
    pub async fn run(self, globals: &Globals) -> Result<Answer, Failure> {
        let mut asked = Vec::new();
        for address in &self.nodes {
            asked.push(ask(globals, address).await?);
        }
        let founding = self.founding(&asked)?;
        let mut founded = Vec::new();
        for Asked { session, told } in &asked {
            if told.cluster_id != founding.cluster_id {
                let mut cluster = session.cluster();
                let about = About::read(format!("found the cluster with {}", told.api_address));
                session.wait(about, cluster.found(session.request(founding.clone()))).await?;
                founded.push(told.api_address.clone());
            }
        }
        let troubles = match asked.first() {
            Some(first) => ready(&first.session).await,
            None => Vec::new(),
        };
        Ok(show_founded(&founding, &founded, &troubles))
    }

    /// The cluster to found: the one that a node already knows, or a new one.
    fn founding(&self, asked: &[Asked]) -> Result<FoundRequest, Failure> {
        let known: BTreeSet<&str> =
            asked.iter().map(|own| own.told.cluster_id.as_str()).filter(|id| !id.is_empty()).collect();
        if known.len() > 1 {
            let known: Vec<&str> = known.into_iter().collect();
            return Err(Failure::Usage(format!(
                "these nodes belong to different clusters already: {}",
                known.join(", ")
            )));
        }
        let begun = asked.iter().find_map(|own| own.told.founding.clone());
        if let Some(begun) = begun {
            let stranger = asked
                .iter()
                .find(|own| !begun.nodes.iter().any(|founder| founder.node_id == own.told.node_id));
            return match stranger {
                Some(own) => Err(Failure::Usage(format!(
                    "cluster {} was founded without {}: take it out of --nodes",
                    begun.cluster_id, own.told.api_address
                ))),
                None => Ok(begun),
            };
        }
        let nodes = asked.iter().map(|own| NodePlace {
            node_id: own.told.node_id.clone(),
            api_address: own.told.api_address.clone(),
            peer_address: own.told.peer_address.clone(),
        });
        let enough = asked.len() >= REPLICAS_DEFAULT as usize;
        Ok(FoundRequest {
            cluster_id: uuid::Uuid::new_v4().to_string(),
            shards: self.shards,
            nodes: nodes.collect(),
            replicas: self.replicas.unwrap_or(if enough { REPLICAS_DEFAULT } else { 1 }),
        })
    }
}

pub(super) async fn ask(globals: &Globals, address: &str) -> Result<Asked, Failure> {
    let server = match address.contains("://") {
        true => address.to_owned(),
        false => format!("http://{address}"),
    };
    let session = Session::connect(&Globals { server, ..globals.clone() }).await?;
    let mut cluster = session.cluster();
    let about = About::read(format!("ask {address} who it is"));
    let told = session.wait(about, cluster.get_node(session.request(GetNodeRequest {}))).await?;
    Ok(Asked { session, told })
}

/// Waits until the cluster serves; what is wrong if it does not in time.
async fn ready(session: &Session) -> Vec<String> {
    eprintln!("waiting until every shard has a leader");
    let until = tokio::time::Instant::now() + READY_WAIT;
    loop {
        let status = session.cluster().get_status(session.request(GetStatusRequest {})).await;
        let wrong = match status {
            Ok(status) => status::troubles(status.get_ref()),
            // The node goes from waiting to serving.
            Err(status) => vec![status.message().to_owned()],
        };
        if wrong.is_empty() || tokio::time::Instant::now() >= until {
            return wrong;
        }
        tokio::time::sleep(READY_LOOK_EVERY).await;
    }
}

fn show_founded(founding: &FoundRequest, told: &[String], troubles: &[String]) -> Answer {
    let mut text = match told.len() {
        0 => format!("cluster {} was founded before: nothing to do", founding.cluster_id),
        _ => format!("cluster {} is founded", founding.cluster_id),
    };
    text.push_str(&format!(
        "\n{} nodes, {} shards, {} replicas of each\n\nTry:",
        founding.nodes.len(),
        founding.shards,
        founding.replicas
    ));
    if let Some(first) = founding.nodes.first() {
        text.push_str(&format!("\n  purser --server http://{} cluster status", first.api_address));
    }
    for trouble in troubles {
        text.push_str(&format!("\n! {trouble}"));
    }
    let json = json!({ "founding": json::shape(founding), "told": told, "troubles": troubles });
    let exit = if troubles.is_empty() { Exit::Done } else { Exit::Refused };
    Answer::new(text, json).with_exit(exit)
}
