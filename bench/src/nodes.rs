//! Nodes as child processes of this one, on free ports of this machine, with their data in a temporary
//! directory: started, founded, killed, started again.
//!
//! Whatever happens, they are killed and their data is removed when [`Nodes`] goes away; [`Nodes::stop`]
//! asks them to stop, and complains of one that does not end well.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use purser_proto::v1;
use purser_proto::v1::cluster_client::ClusterClient;

/// How often a cluster is asked whether it has come about what is waited for, and for how long.
const LOOK_EVERY: Duration = Duration::from_millis(100);
const WAIT_MAX: Duration = Duration::from_secs(60);

/// One node: a directory, addresses that it keeps, and its process while it runs.
pub struct NodeProcess {
    data: PathBuf,
    /// Where the API listens.
    pub api: String,
    peer: String,
    admin: String,
    running: Option<Running>,
}

struct Running {
    child: Child,
    // Kept, so that the child may go on writing.
    _stdout: BufReader<ChildStdout>,
}

impl NodeProcess {
    /// Starts a node on a new directory and free ports.
    fn new(purser: &Path, data: PathBuf) -> anyhow::Result<NodeProcess> {
        let any = "127.0.0.1:0".to_owned();
        let (api, peer, admin) = (any.clone(), any.clone(), any);
        let mut node = NodeProcess { data, api, peer, admin, running: None };
        node.start(purser)?;
        Ok(node)
    }

    /// Starts it, on the addresses that it had before, if it had any.
    pub fn start(&mut self, purser: &Path) -> anyhow::Result<()> {
        let log = std::fs::File::options().create(true).append(true).open(self.data.with_extension("log"))?;
        let mut command = Command::new(purser);
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("PURSER_")) {
            command.env_remove(name);
        }
        command.arg("start").arg("--data").arg(&self.data);
        command.args(["--listen", &self.api, "--peer-listen", &self.peer, "--admin-listen", &self.admin]);
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .with_context(|| format!("cannot start {}", purser.display()))?;
        let mut stdout = BufReader::new(child.stdout.take().context("the node's stdout")?);
        let mut line = String::new();
        stdout.read_line(&mut line)?;
        self.running = Some(Running { child, _stdout: stdout });
        let between = |from: &str, to: &str| {
            line.split_once(from).and_then(|(_, rest)| rest.split_once(to)).map(|(found, _)| found.to_owned())
        };
        let told = between("API on ", ",").zip(between("peers on ", ",")).zip(between("http://", ","));
        let ((api, peer), admin) = told.with_context(|| self.log_tail("it did not start"))?;
        (self.api, self.peer, self.admin) = (api, peer, admin);
        Ok(())
    }

    /// SIGKILL, and gone.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        let mut running = self.running.take().context("it does not run")?;
        running.child.kill()?;
        running.child.wait()?;
        Ok(())
    }

    /// Asks it to stop.
    fn terminate(&self) -> anyhow::Result<()> {
        let pid = self.pid().context("it does not run")?;
        let status = Command::new("kill").args(["-TERM", &pid.to_string()]).status()?;
        ensure!(status.success(), "{} ended before it was asked to", self.api);
        Ok(())
    }

    /// Asks it to stop, and waits until it has.
    pub async fn stop(&mut self) -> anyhow::Result<()> {
        self.terminate()?;
        self.wait_until_stopped().await
    }

    async fn wait_until_stopped(&mut self) -> anyhow::Result<()> {
        let until = tokio::time::Instant::now() + WAIT_MAX;
        while tokio::time::Instant::now() < until {
            let running = self.running.as_mut().context("it does not run")?;
            if let Some(status) = running.child.try_wait()? {
                ensure!(
                    status.success(),
                    "{}",
                    self.log_tail(&format!("{} ended badly ({status})", self.api))
                );
                self.running = None;
                return Ok(());
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        bail!("{}", self.log_tail(&format!("{} does not stop", self.api)))
    }

    /// Whether it runs, as far as this process ended it or not.
    pub fn runs(&self) -> bool {
        self.running.is_some()
    }

    /// The id of its process.
    pub fn pid(&self) -> Option<u32> {
        self.running.as_ref().map(|running| running.child.id())
    }

    /// The last lines of its log, for a report.
    fn log_tail(&self, what: &str) -> String {
        let log = std::fs::read_to_string(self.data.with_extension("log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        format!("{what}; its log ends with:\n{}", lines[lines.len().saturating_sub(10)..].join("\n"))
    }
}

impl Drop for NodeProcess {
    fn drop(&mut self) {
        if let Some(mut running) = self.running.take() {
            // Already gone is fine.
            let _ = running.child.kill();
            let _ = running.child.wait();
        }
    }
}

/// What to start.
#[derive(Clone, Debug)]
pub struct NodesOptions {
    /// The `purser` binary.
    pub binary: PathBuf,
    /// Where the directory with all data is made.
    pub directory: PathBuf,
    /// How many nodes.
    pub count: usize,
    /// Shards of the cluster.
    pub shards: u16,
}

/// A cluster of such nodes, in a directory that goes with it.
pub struct Nodes {
    purser: PathBuf,
    /// The nodes, in the order of their founding.
    pub nodes: Vec<NodeProcess>,
    // Dropped after the nodes.
    _folder: tempfile::TempDir,
}

impl Nodes {
    /// Starts nodes and founds a cluster of them; returns when every shard has a leader.
    pub async fn start(options: NodesOptions) -> anyhow::Result<Nodes> {
        let NodesOptions { binary, directory, count, shards } = options;
        let folder = tempfile::Builder::new()
            .prefix("purser-nodes-")
            .tempdir_in(&directory)
            .with_context(|| format!("a directory in {}", directory.display()))?;
        let mut nodes = Vec::new();
        for n in 1..=count {
            nodes.push(NodeProcess::new(&binary, folder.path().join(format!("node-{n}")))?);
        }
        let cluster = Nodes { purser: binary, nodes, _folder: folder };
        let list = cluster.addresses().join(",");
        let init = Command::new(&cluster.purser)
            .args(["cluster", "init", "--nodes", &list, "--shards", &shards.to_string()])
            .output()?;
        ensure!(init.status.success(), "cluster init failed: {}", String::from_utf8_lossy(&init.stderr));
        cluster.wait_until_led().await?;
        Ok(cluster)
    }

    /// The nodes' names and process ids.
    pub fn processes(&self) -> Vec<(String, u32)> {
        let named =
            self.nodes.iter().zip(1..).filter_map(|(node, n)| Some((format!("node {n}"), node.pid()?)));
        named.collect()
    }

    /// The last lines that the nodes logged.
    pub fn log_tail(&self) -> String {
        let tails: Vec<String> = self.nodes.iter().map(|node| node.log_tail(&node.api)).collect();
        tails.join("\n")
    }

    /// Asks the nodes to stop, and waits until they have.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        for node in &self.nodes {
            node.terminate()?;
        }
        for node in &mut self.nodes {
            node.wait_until_stopped().await?;
        }
        Ok(())
    }

    /// The nodes' API addresses.
    pub fn addresses(&self) -> Vec<String> {
        self.nodes.iter().map(|node| node.api.clone()).collect()
    }

    /// The nodes' API addresses as URLs.
    pub fn urls(&self) -> Vec<String> {
        self.nodes.iter().map(|node| format!("http://{}", node.api)).collect()
    }

    /// Where the nodes tell their metrics.
    pub fn metrics_urls(&self) -> Vec<String> {
        self.nodes.iter().map(|node| format!("http://{}/metrics", node.admin)).collect()
    }

    /// Where a node says whether it is ready.
    pub fn ready_url(&self, node: usize) -> String {
        format!("http://{}/readyz", self.nodes[node].admin)
    }

    /// Starts a node again.
    pub fn start_again(&mut self, node: usize) -> anyhow::Result<()> {
        let purser = self.purser.clone();
        self.nodes[node].start(&purser)
    }

    /// The state of the cluster, told by any node that runs.
    pub async fn status(&self) -> Option<v1::GetStatusResponse> {
        for node in self.nodes.iter().filter(|node| node.runs()) {
            let Ok(mut cluster) = ClusterClient::connect(format!("http://{}", node.api)).await else {
                continue;
            };
            if let Ok(told) = cluster.get_status(v1::GetStatusRequest {}).await {
                return Some(told.into_inner());
            }
        }
        None
    }

    /// Waits until every group has a leader, and all nodes that run are reachable.
    pub async fn wait_until_led(&self) -> anyhow::Result<()> {
        let running = self.nodes.iter().filter(|node| node.runs()).count();
        self.wait("every shard has a leader", |status| {
            let up = status.nodes.iter().filter(|node| node.reachable).count();
            up >= running && status.groups.iter().all(|group| group.replicas.iter().any(|own| own.leads))
        })
        .await?;
        Ok(())
    }

    /// Waits until the replicas of every group have applied the same entries, and says whether their
    /// digests agree.
    pub async fn digests_agree(&self) -> anyhow::Result<bool> {
        let same_index = |group: &v1::GroupStatus| {
            let first = group.replicas.first().map(|own| own.digest_index);
            group.replicas.iter().all(|own| own.reachable && Some(own.digest_index) == first)
        };
        let status = self
            .wait("all replicas have applied the same", |status| status.groups.iter().all(same_index))
            .await?;
        Ok(status.groups.iter().all(|group| {
            let first = group.replicas.first().map(|own| own.digest.as_str()).unwrap_or_default();
            !first.is_empty() && group.replicas.iter().all(|own| own.digest == first)
        }))
    }

    /// The first state of the cluster of which something holds.
    async fn wait(
        &self,
        what: &str,
        holds: impl Fn(&v1::GetStatusResponse) -> bool,
    ) -> anyhow::Result<v1::GetStatusResponse> {
        let until = tokio::time::Instant::now() + WAIT_MAX;
        while tokio::time::Instant::now() < until {
            let told = self.status().await;
            if let Some(status) = told.filter(|status| !status.groups.is_empty() && holds(status)) {
                return Ok(status);
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        bail!("waited {} s in vain until {what}\n{}", WAIT_MAX.as_secs(), self.log_tail())
    }
}

/// The `purser` binary of the same build.
pub fn purser() -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe()?;
    let beside = own.with_file_name("purser");
    ensure!(
        beside.is_file(),
        "there is no {}: build it (cargo build -p purser-node), or name it with --purser",
        beside.display()
    );
    Ok(beside)
}
