//! The times and limits of a group.

use openraft::{Config, SnapshotPolicy};

/// What may be chosen; the rest is fixed here, for safety.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupConfig {
    /// How often a leader shows that it lives.
    pub heartbeat_ms: u64,
    /// The shortest time without a leader before a campaign. openraft adds the leader's lease to it.
    pub election_ms_min: u64,
    /// The longest.
    pub election_ms_max: u64,
    /// How many entries stay in the log behind a flush, for followers that lag, as long as the log
    /// has room. 4096: some seconds of batches.
    pub entries_kept_max: u64,
    /// The longest command. 6 MiB: what the log takes in one entry, with some room for what goes
    /// around it. One that the log refuses would end the group.
    pub command_bytes_max: usize,
    /// Proposals that wait for the group's attention; more make `propose` wait.
    pub proposals_queued_max: u64,
    /// How far an entry may be stamped ahead of a follower's clock. 500 ms: well above what clocks
    /// that are kept right differ by, well below what harms anybody.
    pub clock_bound_ms: u64,
    /// How fast a snapshot is sent at most, in bytes a second. 64 MiB: half of a gigabit network.
    pub snapshot_bytes_per_s_max: u64,
    /// A snapshot of which nothing more arrives for so long is given up. 30 s: a sender tries again
    /// long before.
    pub snapshot_idle_ms_max: u64,
}

impl Default for GroupConfig {
    fn default() -> GroupConfig {
        GroupConfig {
            heartbeat_ms: 100,
            election_ms_min: 400,
            election_ms_max: 700,
            entries_kept_max: 4096,
            command_bytes_max: 6 * 1024 * 1024,
            proposals_queued_max: 1024,
            clock_bound_ms: 500,
            snapshot_bytes_per_s_max: 64 * 1024 * 1024,
            snapshot_idle_ms_max: 30_000,
        }
    }
}

impl GroupConfig {
    /// For nodes that are up to 200 ms apart. A message that is not answered within a heartbeat is
    /// given up and sent again, so the default is for nodes whose answers come well within 100 ms.
    pub fn far_apart() -> GroupConfig {
        GroupConfig {
            heartbeat_ms: 500,
            election_ms_min: 2_000,
            election_ms_max: 3_500,
            ..GroupConfig::default()
        }
    }
}

/// One network payload: batches are large already.
const ENTRIES_PER_PAYLOAD_MAX: u64 = 64;
impl GroupConfig {
    /// openraft's configuration of one group.
    pub(super) fn openraft(&self, name: String) -> Result<Config, openraft::ConfigError> {
        let config = Config {
            cluster_name: name,
            heartbeat_interval: self.heartbeat_ms,
            election_timeout_min: self.election_ms_min,
            election_timeout_max: self.election_ms_max,
            max_payload_entries: ENTRIES_PER_PAYLOAD_MAX,
            api_channel_size: Some(self.proposals_queued_max),
            // Flushes are asked for by the log, by bytes, and purges follow them by hand: an entry
            // count knows nothing of either.
            snapshot_policy: SnapshotPolicy::Never,
            max_in_snapshot_log_to_keep: u64::MAX,
            // Turned on when it is settled who campaigns when (see `open`).
            enable_elect: false,
            // A replica that cannot win does not disturb a leader that works.
            enable_pre_vote: Some(true),
            // A leader that restarts campaigns like anybody else: its lease is forgotten.
            enable_leader_restore: Some(false),
            // A follower that lost its log is replaced, never rebuilt in place.
            allow_log_reversion: Some(false),
            // What counts is when a batch is durable, here and there at the same time.
            broadcast_submitted_on_append: Some(true),
            ..Config::default()
        };
        config.validate()
    }
}
