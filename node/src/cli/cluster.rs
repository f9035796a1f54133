//! `purser cluster`: found one, and see how it does.

use std::collections::BTreeSet;
use std::time::Duration;

use clap::{Args, Subcommand};
use purser_proto::v1::{
    FoundRequest, GetNodeRequest, GetNodeResponse, GetStatusRequest, GetStatusResponse, GroupStatus,
    NodePlace,
};
use serde_json::json;

use super::answer::{Answer, Exit};
use super::failure::Failure;
use super::session::{About, Globals, Session};
use super::table::{self, Column, Lean};
use super::{json, table::or_none};

/// Shown under `--help`.
pub const EXAMPLES: &str = "\
Examples:
  purser cluster init --nodes 127.0.0.1:7480,127.0.0.1:7580,127.0.0.1:7680
  purser cluster status
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
            ClusterCommand::Init(_) => Err(Failure::Usage("init speaks to its --nodes".to_owned())),
            ClusterCommand::Status => {
                let request = session.request(GetStatusRequest {});
                let mut cluster = session.cluster();
                let about = About::read("show the cluster");
                let status = session.wait(about, cluster.get_status(request)).await?;
                Ok(show_status(&status))
            }
        }
    }
}

/// A node that was asked who it is.
struct Asked {
    session: Session,
    told: GetNodeResponse,
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

async fn ask(globals: &Globals, address: &str) -> Result<Asked, Failure> {
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
            Ok(status) => troubles(status.get_ref()),
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

fn show_status(status: &GetStatusResponse) -> Answer {
    let troubles = troubles(status);
    let mut text = format!("cluster {}, epoch {}\n\n{}", status.cluster_id, status.epoch, nodes(status));
    text.push_str(&format!("\n\n{}", groups(status)));
    for trouble in &troubles {
        text.push_str(&format!("\n! {trouble}"));
    }
    let exit = if troubles.is_empty() { Exit::Done } else { Exit::Refused };
    Answer::new(text, json::shape(status)).with_exit(exit)
}

fn nodes(status: &GetStatusResponse) -> String {
    const COLUMNS: [Column; 7] = [
        ("NODE", Lean::Left),
        ("API", Lean::Left),
        ("PEERS", Lean::Left),
        ("STATE", Lean::Left),
        ("VERSION", Lean::Left),
        ("LEADS", Lean::Right),
        ("REPLICAS", Lean::Right),
    ];
    let rows = status.nodes.iter().map(|node| {
        let place = node.place.clone().unwrap_or_default();
        vec![
            place.node_id,
            place.api_address,
            or_none(&place.peer_address),
            if node.reachable { "up" } else { "unreachable" }.to_owned(),
            or_none(&node.version),
            node.leads.to_string(),
            node.replicas.to_string(),
        ]
    });
    table::table(&COLUMNS, rows)
}

fn name(group: &GroupStatus) -> String {
    group.group.checked_sub(1).map_or("meta".to_owned(), |shard| shard.to_string())
}

fn groups(status: &GetStatusResponse) -> String {
    const COLUMNS: [Column; 6] = [
        ("SHARD", Lean::Left),
        ("LEADER", Lean::Left),
        ("TERM", Lean::Right),
        ("APPLIED", Lean::Right),
        ("REPLICAS", Lean::Left),
        ("LAG", Lean::Right),
    ];
    let address = |node_id: &str| {
        let places = status.nodes.iter().filter_map(|node| node.place.as_ref());
        let place = places.into_iter().find(|place| place.node_id == node_id);
        place.map_or_else(|| node_id.to_owned(), |place| place.api_address.clone())
    };
    let rows = status.groups.iter().map(|group| {
        let leader = leader(group);
        let working = group.replicas.iter().filter(|own| own.reachable && own.stopped.is_empty());
        let applied = working.clone().map(|own| own.applied_index);
        let (most, least) = (applied.clone().max().unwrap_or(0), applied.min().unwrap_or(0));
        vec![
            name(group),
            leader.map_or_else(|| or_none(""), |own| address(&own.node_id)),
            leader.map_or_else(|| or_none(""), |own| own.term.to_string()),
            most.to_string(),
            format!("{} of {}", working.count(), group.replicas.len()),
            (most - least).to_string(),
        ]
    });
    table::table(&COLUMNS, rows)
}

/// The replica that leads: of two that say so, the one of the later term.
fn leader(group: &GroupStatus) -> Option<&purser_proto::v1::ReplicaStatus> {
    group.replicas.iter().filter(|own| own.leads).max_by_key(|own| own.term)
}

fn troubles(status: &GetStatusResponse) -> Vec<String> {
    let mut troubles = Vec::new();
    for node in status.nodes.iter().filter(|node| !node.reachable) {
        let place = node.place.clone().unwrap_or_default();
        troubles.push(format!("node {} cannot be reached", or_none(&place.api_address)));
    }
    for group in &status.groups {
        let what = match name(group).as_str() {
            "meta" => "the meta group".to_owned(),
            shard => format!("shard {shard}"),
        };
        if leader(group).is_none() {
            troubles.push(format!("{what} has no leader"));
        }
        for replica in group.replicas.iter().filter(|own| !own.stopped.is_empty()) {
            troubles
                .push(format!("{what}: replica {} does not work: {}", replica.replica_id, replica.stopped));
        }
        let digests: BTreeSet<(u64, &str)> = group
            .replicas
            .iter()
            .filter(|own| !own.digest.is_empty())
            .map(|own| (own.digest_index, own.digest.as_str()))
            .collect();
        let indices: BTreeSet<u64> = digests.iter().map(|(index, _)| *index).collect();
        if indices.len() < digests.len() {
            troubles.push(format!("{what}: replicas differ at the same index; see the servers' logs"));
        }
    }
    troubles
}

#[cfg(test)]
mod tests {
    use purser_proto::v1::{NodeStatus, ReplicaStatus};

    use super::*;

    fn replica(node: &str, leads: bool, digest: &str) -> ReplicaStatus {
        ReplicaStatus {
            node_id: node.to_owned(),
            reachable: true,
            leads,
            term: 2,
            applied_index: 7,
            digest: digest.to_owned(),
            digest_index: 7,
            ..ReplicaStatus::default()
        }
    }

    fn status(replicas: Vec<ReplicaStatus>) -> GetStatusResponse {
        let nodes = ["a", "b"].map(|id| NodeStatus {
            place: Some(NodePlace {
                node_id: id.to_owned(),
                api_address: format!("{id}:7480"),
                ..NodePlace::default()
            }),
            reachable: true,
            ..NodeStatus::default()
        });
        GetStatusResponse {
            nodes: nodes.to_vec(),
            groups: vec![GroupStatus { group: 3, replicas }],
            ..GetStatusResponse::default()
        }
    }

    #[test]
    fn a_healthy_cluster_shows_its_leaders_and_ends_with_success() {
        let answer = show_status(&status(vec![replica("a", false, "aa"), replica("b", true, "aa")]));
        assert_eq!(answer.exit, Exit::Done);
        assert!(answer.text.contains("b:7480"), "{}", answer.text);
        assert!(answer.text.contains("2 of 2"), "{}", answer.text);
    }

    #[test]
    fn what_is_wrong_is_said_and_shows_in_the_exit_code() {
        let mut sick = status(vec![replica("a", false, "aa"), replica("b", false, "bb")]);
        sick.nodes[1].reachable = false;
        let answer = show_status(&sick);
        assert_eq!(answer.exit, Exit::Refused);
        for trouble in
            ["node b:7480 cannot be reached", "shard 2 has no leader", "replicas differ at the same index"]
        {
            assert!(answer.text.contains(trouble), "{trouble} in {}", answer.text);
        }
    }
}
