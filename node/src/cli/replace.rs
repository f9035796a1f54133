//! `purser cluster replace`: a new node in the place of a lost one.

use std::time::Duration;

use clap::Args;
use purser_proto::v1::{GetStatusRequest, GetStatusResponse, NodePlace, ReplaceRequest};
use serde_json::json;

use super::answer::{Answer, Exit};
use super::cluster::{Asked, ask};
use super::failure::Failure;
use super::session::{About, Globals, Session};
use super::status::to_come;

/// Shown under `--help`.
pub const AFTER_HELP: &str = "\
Start a node with an empty data directory first; it may have the address of the lost one. Its replicas are
copied from the others while the cluster serves, under new ids. What the lost node had is given up for
good: do not start it again.

Run again after a failure, or where it did not end in time, it goes on where it stopped. One node is
replaced at a time. If the new one is lost as well, replace that one by a third. The exit code is 1 if
copying takes longer than --wait; it goes on all the same.

Examples:
  purser start --data d4 --listen 127.0.0.1:7780 --admin-listen 127.0.0.1:7781 --peer-listen 127.0.0.1:7782
  purser cluster replace --lost 0f3c1c53-5a3c-4d0e-9a83-2d6a3d6f1c55 --with 127.0.0.1:7780 --nodes 127.0.0.1:7480
  purser cluster status";

/// How often it is looked how far the copying is.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Which node, and what for.
#[derive(Debug, Args)]
pub struct ReplaceArgs {
    /// The id of the lost node, as purser cluster status shows it
    #[arg(long, value_name = "NODE")]
    lost: uuid::Uuid,
    /// The API address of the new node
    #[arg(long, value_name = "HOST:PORT")]
    with: String,
    /// The API addresses of nodes of the cluster: the first that answers is asked
    #[arg(long, value_name = "HOST:PORT", value_delimiter = ',', required = true)]
    nodes: Vec<String>,
    /// How long to wait until all is copied
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = super::parse::timeout)]
    wait: Duration,
}

impl ReplaceArgs {
    /// Runs it.
    pub async fn run(self, globals: &Globals) -> Result<Answer, Failure> {
        let new = ask(globals, &self.with).await?;
        let member = self.member(globals).await?;
        let (own, cluster_id) = (&new.told.cluster_id, &member.told.cluster_id);
        if cluster_id.is_empty() {
            let address = &member.told.api_address;
            return Err(Failure::Usage(format!("--nodes: {address} belongs to no cluster")));
        }
        if !own.is_empty() && own != cluster_id {
            return Err(Failure::Usage(format!("--with: {} belongs to cluster {own}", self.with)));
        }
        let with = NodePlace {
            node_id: new.told.node_id.clone(),
            api_address: new.told.api_address.clone(),
            peer_address: new.told.peer_address.clone(),
        };
        let request = ReplaceRequest { lost_node_id: self.lost.to_string(), with: Some(with) };
        let about = About::read(format!("replace node {} by {}", self.lost, new.told.node_id));
        let mut cluster = member.session.cluster();
        let given = member.session.wait(about, cluster.replace(member.session.request(request))).await?;
        let mut cluster = new.session.cluster();
        let about = About::read(format!("tell {} its place", self.with));
        new.session.wait(about, cluster.join(new.session.request(given.join.unwrap_or_default()))).await?;
        let left = self.copied(&member.session).await;
        Ok(self.show(&new.told.node_id, left))
    }

    /// The first member that answers.
    async fn member(&self, globals: &Globals) -> Result<Asked, Failure> {
        let mut refused = Failure::Usage("--nodes: name one".to_owned());
        for address in &self.nodes {
            match ask(globals, address).await {
                Ok(asked) => return Ok(asked),
                Err(failure) => refused = failure,
            }
        }
        Err(refused)
    }

    /// Waits until all is copied; how many groups are still to come if it is not in time.
    async fn copied(&self, session: &Session) -> usize {
        let until = tokio::time::Instant::now() + self.wait;
        let mut told = None;
        loop {
            let status = session.cluster().get_status(session.request(GetStatusRequest {})).await;
            let left = status.ok().map(|status| self.left(status.get_ref()));
            if left == Some(0) || tokio::time::Instant::now() >= until {
                return left.or(told).unwrap_or(1);
            }
            if left.is_some() && left != told {
                eprintln!("replicas of {} groups are to come", left.unwrap_or_default());
                told = left;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// The lost node is a node of the cluster until its last replica is replaced.
    fn left(&self, status: &GetStatusResponse) -> usize {
        let lost = self.lost.to_string();
        let mut places = status.nodes.iter().filter_map(|node| node.place.as_ref());
        if places.any(|place| place.node_id == lost) { to_come(status).max(1) } else { 0 }
    }

    fn show(&self, new: &str, left: usize) -> Answer {
        let lost = self.lost;
        let text = match left {
            0 => format!("node {new} has taken the place of {lost}, which must not be started again"),
            _ => format!(
                "node {new} takes the place of {lost}; replicas of {left} groups are still to come\n\nTry:\n  \
                 purser cluster status"
            ),
        };
        let json = json!({ "lost": lost.to_string(), "by": new, "groups_to_come": left });
        Answer::new(text, json).with_exit(if left == 0 { Exit::Done } else { Exit::Refused })
    }
}
