//! Starting a replica: its rows and log are brought together, a new group is founded, and it is
//! settled who campaigns when.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use openraft::entry::RaftEntry;
use openraft::storage::{RaftLogReader, RaftLogStorage};
use openraft::{EntryPayload, Raft};
use purser_ledger::time::Span;

use tokio::time::Instant;

use super::clock_bound;
use super::codec;
use super::config::GroupConfig;
use super::error::{OpenError, Stopped};
use super::group::{Group, Heard, Inner};
use super::halt::Halt;
use super::incoming::Incoming;
use super::log_store::LogStore;
use super::machine::Machine;
use super::network::{Link, Network};
use super::receive::APPENDS_UNDER_WAY_MAX;
use super::state_machine::StateMachine;
use super::types::{Entry, ReplicaId, Runtime, TypeConfig, log_id};
use crate::clock::Clock;
use crate::log::{GroupId, LogHandle, Op, Slot};
use crate::simulation;
use crate::storage::{Generation, StateStore};

/// How often a replica that is to lead asks for it when it starts: some seconds' worth. After that
/// it campaigns like any other.
const CAMPAIGNS_MAX: u32 = 50;

/// What a group is made of.
pub struct GroupOptions {
    /// Its number, in the log and on the wire.
    pub group: GroupId,
    /// Names its column family.
    pub shard: u16,
    /// The voters that it is founded with. Each of them founds it with the same ones, where its log
    /// is empty; a replica that is not among them waits to be added.
    pub founders: BTreeSet<ReplicaId>,
    /// The replica here.
    pub replica: ReplicaId,
    /// Whether it campaigns as soon as it starts, where others do only after an election timeout: so
    /// that one of several replicas, the preferred one, leads. A group of one always does.
    pub campaign_at_once: bool,
    /// Times and limits.
    pub config: GroupConfig,
    /// What its entries mean.
    pub machine: Arc<dyn Machine>,
    /// The way to its other replicas.
    pub network: Network,
    /// The node's clock.
    pub clock: Arc<Clock>,
}

impl fmt::Debug for GroupOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GroupOptions")
            .field("group", &self.group)
            .field("replica", &self.replica)
            .finish_non_exhaustive()
    }
}

impl Group {
    /// Starts a replica. It does not wait for a leader. Entries that are in the log and known as
    /// committed are applied before this returns.
    pub async fn open(options: GroupOptions, log: LogHandle, state: &StateStore) -> Result<Group, OpenError> {
        let GroupOptions { group, shard, founders, replica, campaign_at_once, .. } = options;
        let GroupOptions { config, machine, network, clock, .. } = options;
        let written = log.slot(group, Slot::Generation)?;
        let generation = match &written {
            Some(bytes) => {
                codec::decode_generation(bytes).map_err(|error| OpenError::Damaged(error.to_string()))?
            }
            None => Generation::FIRST,
        };
        let store = state.shard(shard, generation)?;
        let mut log_store = LogStore::new(log.clone(), group);
        let damaged = |error: std::io::Error| OpenError::Damaged(error.to_string());
        let vote = log_store.get_log_reader().await.read_vote().await.map_err(damaged)?;
        simulation::remembers_vote(group.0, replica.0, vote.map_or(0, |vote| vote.leader_id.term));
        let meaning = machine.clone();
        let machine = StateMachine::new(group, store.clone(), log_store.clone(), machine).map_err(damaged)?;
        let purged = log_store.purged().map_err(damaged)?;
        if let Some(purged) = purged.filter(|purged| machine.last() < Some(*purged)) {
            let applied = machine.last().map(|last| last.index);
            return Err(OpenError::Gap { applied, purged: purged.index });
        }
        if founders.contains(&replica) && machine.last().is_none() {
            found(&log_store, &log, group, &founders).await?;
        }
        if !founders.contains(&replica) && written.is_none() {
            settle(&log_store, group, generation).await?;
        }
        if machine.is_quarantined() {
            return Err(OpenError::Quarantined);
        }
        let (failure, digests) = (machine.failure(), machine.digests());
        let GroupConfig { entries_kept_max, command_bytes_max, snapshot_bytes_per_s_max, .. } = config;
        let clock_bound = Span(config.clock_bound_ms * 1_000);
        let election_max = Duration::from_millis(config.election_ms_max);
        let idle_max = Duration::from_millis(config.snapshot_idle_ms_max);
        let incoming = Arc::new(Incoming::new(network.arriving.clone(), idle_max));
        let config = config
            .openraft(format!("shard-{shard:04}"))
            .map_err(|error| OpenError::Config(error.to_string()))?;
        let config = Arc::new(config);
        let refusals = Arc::default();
        let link = Link {
            network,
            group,
            replica,
            log: log.clone(),
            command_bytes_max,
            snapshot_bytes_per_s_max,
            refusals,
        };
        let raft = Raft::new(replica, config.clone(), link.clone(), log_store, machine).await;
        let raft = raft.map_err(|fatal| Stopped(fatal.to_string()))?;
        settle_campaigns(&raft, replica, campaign_at_once, &config).await?;
        let inner = Inner {
            link,
            raft,
            incoming,
            appends: Arc::new(tokio::sync::Semaphore::new(APPENDS_UNDER_WAY_MAX)),
            log,
            store,
            failure,
            digests,
            entries_kept_max,
            election_max,
            halt: Halt::default(),
            machine: meaning,
            clock,
            clock_bound,
            flushing: tokio::sync::Mutex::default(),
            handing_over: tokio::sync::Mutex::default(),
            leaving: Default::default(),
            heard: Mutex::new(Heard::at(Instant::now())),
        };
        let inner = Arc::new(inner);
        tokio::spawn(clock_bound::look_after(Arc::downgrade(&inner), inner.link.refusals.clone()));
        Ok(Group { inner })
    }
}

/// Writes what a new group begins with: its voters, as the first entry. openraft's `initialize` does
/// the same, and then campaigns at once, on every founder.
async fn found(
    log_store: &LogStore,
    log: &LogHandle,
    group: GroupId,
    founders: &BTreeSet<ReplicaId>,
) -> Result<(), OpenError> {
    let is_new = log.extent(group)?.next_index == 0 && log.slot(group, Slot::Vote)?.is_none();
    if !is_new {
        return Ok(());
    }
    let voters = openraft::Membership::new_with_defaults(vec![founders.clone()], founders.clone());
    let first = Entry::new(log_id(0, 0), EntryPayload::Membership(voters));
    let append = Op::Append { group, entries: vec![codec::encode_entry(&first)] };
    let written = log_store.write(append).await;
    written.map_err(|error| OpenError::Stopped(Stopped(format!("the group was not founded: {error}"))))
}

/// Writes down that a replica that is to be added is here: nothing that counts, but from now on a log that
/// does not know the group has lost it.
async fn settle(log_store: &LogStore, group: GroupId, generation: Generation) -> Result<(), OpenError> {
    let put = Op::Put { group, slot: Slot::Generation, value: codec::encode_generation(generation) };
    let written = log_store.write(put).await;
    written.map_err(|error| OpenError::Stopped(Stopped(format!("the replica was not begun: {error}"))))
}

/// A replica that just started knows of no leader, and openraft would have it campaign at once.
/// Unless it is to, it first gives the one that may be there an election timeout to be heard. One
/// that is to asks again and again, for the others may start a little later. It asks for pre-votes:
/// a leader that works is not disturbed.
async fn settle_campaigns(
    raft: &Raft<TypeConfig, StateMachine>,
    replica: ReplicaId,
    at_once: bool,
    config: &openraft::Config,
) -> Result<(), Stopped> {
    let stopped = |fatal: openraft::errors::Fatal<TypeConfig>| Stopped(fatal.to_string());
    let voters = raft.with_raft_state(|state| {
        state.membership_state.effective().voter_ids().collect::<BTreeSet<ReplicaId>>()
    });
    if voters.await.map_err(stopped)? == BTreeSet::from([replica]) {
        raft.runtime_config().elect(true);
        // Nobody else can lead: there is nothing to ask first.
        return raft.trigger().elect(false).await.map_err(stopped);
    }
    let (raft, patience) =
        (raft.clone(), Duration::from_millis(config.new_rand_election_timeout::<Runtime>()));
    let ask_every = Duration::from_millis(config.heartbeat_interval);
    tokio::spawn(async move {
        if at_once {
            campaign(&raft, ask_every).await;
        } else {
            tokio::time::sleep(patience).await;
        }
        raft.runtime_config().elect(true);
    });
    Ok(())
}

/// Campaigns until somebody leads, within bounds.
async fn campaign(raft: &Raft<TypeConfig, StateMachine>, ask_every: Duration) {
    for _ in 0..CAMPAIGNS_MAX {
        let led = raft.current_leader().await.is_some();
        if led || raft.trigger().elect(true).await.is_err() {
            return;
        }
        tokio::time::sleep(ask_every).await;
    }
}
