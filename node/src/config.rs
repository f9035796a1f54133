//! Configuration: defaults < file < environment < flags. An unknown key is an error.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use figment::Figment;
use figment::providers::{Env, Format, Serialized, Toml};
use serde::{Deserialize, Serialize};

use crate::cluster::{FoundingError, ShardMap};

/// What a node is started with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where everything is kept.
    pub data: PathBuf,
    /// Where the gRPC API listens.
    pub listen: SocketAddr,
    /// Where health and metrics are served over HTTP.
    pub admin_listen: SocketAddr,
    /// Where other nodes are listened to.
    pub peer_listen: SocketAddr,
    /// Where clients and other nodes find the API, `host:port`. Not set: where it listens.
    pub advertise: Option<String>,
    /// Where other nodes find this one, `host:port`. Not set: where it listens for them.
    pub peer_advertise: Option<String>,
    /// How many shards a new cluster gets: a power of two. A directory keeps what it was made with.
    pub shards: Option<u16>,
    /// A clock that stands still until it is moved; only for a node without peers.
    pub test_clock: bool,
    /// How log lines look.
    pub log_format: LogFormat,
    /// Which log lines are written: `info`, or a filter such as `info,purser_node=debug`.
    pub log: String,
    /// Memory for cached rows, in MiB.
    pub cache_mib: usize,
    /// Size of one log segment, in MiB.
    pub log_segment_mib: u32,
    /// Writes are refused while less than so many MiB are free on the disk.
    pub disk_reserve_mib: u64,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            data: PathBuf::from("data"),
            listen: SocketAddr::from(([127, 0, 0, 1], 7480)),
            admin_listen: SocketAddr::from(([127, 0, 0, 1], 7481)),
            peer_listen: SocketAddr::from(([127, 0, 0, 1], 7482)),
            advertise: None,
            peer_advertise: None,
            shards: None,
            test_clock: false,
            log_format: LogFormat::Text,
            log: "info,openraft=error".to_owned(),
            cache_mib: 256,
            log_segment_mib: 64,
            // The write buffers of a node, twice.
            disk_reserve_mib: 512,
        }
    }
}

/// What the command line says; what it leaves out comes from environment, file or default.
#[derive(Clone, Debug, Default, Serialize, clap::Args)]
pub struct ConfigFlags {
    /// Where everything is kept [default: data]
    #[arg(long, value_name = "DIRECTORY")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<PathBuf>,
    /// Where the gRPC API listens [default: 127.0.0.1:7480]
    #[arg(long, value_name = "ADDRESS")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listen: Option<SocketAddr>,
    /// Where health and metrics are served [default: 127.0.0.1:7481]
    #[arg(long, value_name = "ADDRESS")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub admin_listen: Option<SocketAddr>,
    /// Shards of a new cluster, a power of two [default: 16]
    #[arg(long, value_name = "NUMBER")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shards: Option<u16>,
    /// A clock that stands still until `purser clock advance` moves it
    #[arg(long)]
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub test_clock: bool,
    /// How log lines look [default: text]
    #[arg(long, value_enum, value_name = "FORMAT")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_format: Option<LogFormat>,
    /// Which log lines are written [default: info,openraft=error]
    #[arg(long, value_name = "FILTER")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log: Option<String>,
}

/// Names in the environment that begin alike and belong to the client side, the build or the tests.
const OTHER_NAMES: &[&str] = &["server", "namespace", "config", "build_cache", "log_seeds"];

/// Two of the longest entries fit a segment, beside the reserve; a file is read whole when a node starts.
const LOG_SEGMENT_MIB: RangeInclusive<u32> = 24..=1024;

impl Config {
    /// Puts together defaults, a TOML file, `PURSER_…` variables and flags.
    pub fn load(file: Option<&Path>, flags: &ConfigFlags) -> anyhow::Result<Config> {
        Config::load_with(file, flags, &ConfigFlags::default())
    }

    /// Like `load`, with further flags.
    pub fn load_with(
        file: Option<&Path>,
        flags: &ConfigFlags,
        more: &impl Serialize,
    ) -> anyhow::Result<Config> {
        let mut figment = Figment::from(Serialized::defaults(Config::default()));
        if let Some(file) = file {
            anyhow::ensure!(file.is_file(), "--config: there is no file {}", file.display());
            figment = figment.merge(Toml::file_exact(file));
        }
        let figment = figment
            .merge(Env::prefixed("PURSER_").ignore(OTHER_NAMES))
            .merge(Serialized::defaults(flags))
            .merge(Serialized::defaults(more));
        let config: Config = figment.extract().map_err(|error| anyhow::anyhow!("configuration: {error}"))?;
        if let Some(shards) = config.shards {
            ShardMap::new(shards).ok_or(FoundingError::Shards(shards.into()))?;
        }
        let mib = config.log_segment_mib;
        anyhow::ensure!(
            LOG_SEGMENT_MIB.contains(&mib),
            "log_segment_mib is {mib}; it must be {} to {}",
            LOG_SEGMENT_MIB.start(),
            LOG_SEGMENT_MIB.end()
        );
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_win_over_the_file_and_the_file_over_defaults() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("purser.toml");
        std::fs::write(&file, "shards = 4\nlisten = \"127.0.0.1:1\"\n").expect("a file");
        let flags = ConfigFlags { listen: Some(SocketAddr::from(([127, 0, 0, 1], 2))), ..Default::default() };
        let config = Config::load(Some(&file), &flags).expect("a configuration");
        assert_eq!(config.shards, Some(4));
        assert_eq!(config.listen.port(), 2);
        assert_eq!(config.data, PathBuf::from("data"));
    }

    #[test]
    fn a_segment_that_is_too_short_or_too_long_is_an_error_that_names_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("purser.toml");
        for (mib, fits) in [(0, false), (23, false), (24, true), (1024, true), (1025, false)] {
            std::fs::write(&file, format!("log_segment_mib = {mib}\n")).expect("a file");
            let loaded = Config::load(Some(&file), &ConfigFlags::default());
            assert_eq!(loaded.is_ok(), fits, "{mib}");
            assert!(fits || loaded.is_err_and(|error| error.to_string().contains("log_segment_mib is")));
        }
    }

    #[test]
    fn an_unknown_key_is_an_error_that_names_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("purser.toml");
        std::fs::write(&file, "shrads = 4\n").expect("a file");
        let error = Config::load(Some(&file), &ConfigFlags::default()).expect_err("refused");
        assert!(error.to_string().contains("shrads"), "{error}");
    }
}
