//! `purser start`: one node of a cluster.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::Serialize;

use crate::config::{Config, ConfigFlags};
use crate::process;
use crate::server::{Listeners, Server};

/// Runs one node of a cluster.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct StartArgs {
    /// A TOML file with any of the settings below
    #[arg(long, value_name = "FILE", env = "PURSER_CONFIG")]
    config: Option<PathBuf>,
    #[command(flatten)]
    flags: ConfigFlags,
    #[command(flatten)]
    peers: PeerFlags,
}

/// What only a node with peers needs to be told.
#[derive(Clone, Debug, Default, Serialize, clap::Args)]
struct PeerFlags {
    /// Where other nodes are listened to [default: 127.0.0.1:7482]
    #[arg(long, value_name = "ADDRESS")]
    #[serde(skip_serializing_if = "Option::is_none")]
    peer_listen: Option<SocketAddr>,
    /// Where clients and other nodes find the API [default: where it listens]
    #[arg(long, value_name = "HOST:PORT")]
    #[serde(skip_serializing_if = "Option::is_none")]
    advertise: Option<String>,
    /// Where other nodes find this one [default: where it listens for them]
    #[arg(long, value_name = "HOST:PORT")]
    #[serde(skip_serializing_if = "Option::is_none")]
    peer_advertise: Option<String>,
}

const EXAMPLES: &str = "\
Examples: three nodes on one machine
  purser start --data d1 --listen 127.0.0.1:7480 --admin-listen 127.0.0.1:7481 --peer-listen 127.0.0.1:7482
  purser start --data d2 --listen 127.0.0.1:7580 --admin-listen 127.0.0.1:7581 --peer-listen 127.0.0.1:7582
  purser start --data d3 --listen 127.0.0.1:7680 --admin-listen 127.0.0.1:7681 --peer-listen 127.0.0.1:7682
  purser cluster init --nodes 127.0.0.1:7480,127.0.0.1:7580,127.0.0.1:7680

A new node waits until a cluster is founded with it, or it is put in a lost node's place. Its addresses may change between starts; its data
directory is what makes it the same node.
Settings come from defaults, the --config file, PURSER_... variables and flags; later ones win.
Ctrl-C or SIGTERM stops it: it hands its leads over, finishes what is in flight, and leaves everything
on disk.";

impl StartArgs {
    /// Runs until it is told to stop.
    pub async fn run(self) -> anyhow::Result<()> {
        let config = Config::load_with(self.config.as_deref(), &self.flags, &self.peers)?;
        anyhow::ensure!(!config.test_clock, "--test-clock: only for a node without peers: purser dev");
        process::init_log(&config)?;
        let stop = process::stop_signal()?;
        let listeners = Listeners::bind_with_peers(&config).await?;
        let data = config.data.clone();
        let mut server = Server::open(config, listeners)?;
        let place = server.place()?;
        println!(
            "Node {}: API on {}, peers on {}, health and metrics on http://{}, data in {}",
            place.id,
            place.api_address,
            place.peer_address,
            server.admin_address(),
            data.display()
        );
        if server.descriptor.founding.is_none() {
            let own = place.api_address;
            println!("  it belongs to no cluster yet: purser cluster init --nodes {own},…");
            println!("  or, in a lost node's place: purser cluster replace --lost ID --with {own} --nodes …");
        }
        if !server.wait_for_founding(stop.clone()).await? {
            return Ok(());
        }
        if let Some(founding) = &server.descriptor.founding {
            println!("  cluster {}, {} shards", founding.cluster_id, founding.shards);
        }
        let running = server.start().await?;
        running.serve(stop).await
    }
}
