//! The meta group's state machine: which nodes and replicas there are, under an epoch that counts
//! their changes.
//!
//! Commands and rows are JSON: there are few of them, and whoever looks into a cluster can read them.
//! A command is sealed with a checksum, and names the version of its meaning.
//!
//! ```text
//!   command      crc32 4, little-endian, over the rest | {"version":1,"command":{…}}
//!   rows         E -> {"cluster_id","epoch"}     N | node 16 -> node     G | group 4, big-endian -> replicas
//! ```
//! Before the first command the state is the founding's, which every founding node knows.

use std::collections::BTreeMap;

use bytes::Bytes;
use purser_ledger::codec::Damage;
use purser_ledger::store::{Changes, LocalDamage, Store};
use purser_ledger::time::Time;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Founding, NodeId};
use crate::log::GroupId;
use crate::raft::{Machine, Outcome, ReplicaId};
use crate::storage::ShardStore;

/// The version of commands that this build proposes, and the newest that it applies.
const VERSION: u32 = 1;
const EPOCH_ROW: &[u8] = b"E";
const NODE_ROWS: u8 = b'N';
const GROUP_ROWS: u8 = b'G';

/// Where a node is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodePlace {
    /// The node.
    pub id: NodeId,
    /// Where it serves the API, `host:port`, as others reach it.
    pub api_address: String,
    /// Where it speaks with other nodes, `host:port`.
    pub peer_address: String,
    /// The version of the program; empty: not known yet.
    pub version: String,
}

/// A replica and its node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReplicaPlace {
    /// The replica.
    pub replica: ReplicaId,
    /// Its node.
    pub node: NodeId,
}

/// The replicas of a group. The first one is meant to lead.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GroupPlace {
    /// In order of preference for leading.
    pub replicas: Vec<ReplicaPlace>,
}

/// The cluster's nodes and replicas at one epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// The cluster.
    pub cluster_id: Uuid,
    /// Counts the changes of what follows.
    pub epoch: u64,
    /// The nodes.
    pub nodes: BTreeMap<NodeId, NodePlace>,
    /// The groups, by number: the meta group, then the shards.
    pub groups: Vec<GroupPlace>,
}

impl State {
    /// A group's replicas; none if there is no such group.
    pub fn replicas(&self, group: GroupId) -> &[ReplicaPlace] {
        let place = usize::try_from(group.0).ok().and_then(|group| self.groups.get(group));
        place.map_or(&[], |place| &place.replicas)
    }

    /// The replica of a group on a node.
    pub fn replica_on(&self, group: GroupId, node: NodeId) -> Option<ReplicaId> {
        self.replicas(group).iter().find(|own| own.node == node).map(|own| own.replica)
    }

    /// Reads the state from the meta group's rows; `None`: nothing was applied yet.
    pub fn read(rows: &dyn Store) -> Result<Option<State>, LocalDamage> {
        let Some(epoch) = row::<EpochRow>(rows, EPOCH_ROW)? else { return Ok(None) };
        let nodes = scan::<NodePlace>(rows, NODE_ROWS)?.into_iter().map(|node| (node.id, node)).collect();
        let groups = scan(rows, GROUP_ROWS)?;
        Ok(Some(State { cluster_id: epoch.cluster_id, epoch: epoch.epoch, nodes, groups }))
    }

    /// The epoch of the rows alone.
    pub fn epoch_of(rows: &dyn Store) -> Result<Option<u64>, LocalDamage> {
        Ok(row::<EpochRow>(rows, EPOCH_ROW)?.map(|own| own.epoch))
    }
}

/// A change of the cluster's state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MetaCommand {
    /// The founding, from the meta group's first leader. Nothing, if there is a state already.
    Found(Founding),
    /// What a node of the cluster says of itself. Nothing, if that is known or the node is not.
    PutNode(NodePlace),
}

#[derive(Serialize, Deserialize)]
struct Versioned {
    version: u32,
    command: MetaCommand,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct EpochRow {
    cluster_id: Uuid,
    epoch: u64,
}

impl MetaCommand {
    /// The bytes of an entry.
    pub fn encode(&self) -> Bytes {
        let json = to_json(&Versioned { version: VERSION, command: self.clone() });
        Bytes::from([&crc32fast::hash(&json).to_le_bytes()[..], &json].concat())
    }

    /// The command of an entry, if it arrived as it was sent and this build knows it.
    pub fn decode(entry: &[u8]) -> Result<MetaCommand, Damage> {
        let (crc, json) = entry.split_first_chunk::<4>().ok_or(Damage("a command of the meta group"))?;
        if crc32fast::hash(json) != u32::from_le_bytes(*crc) {
            return Err(Damage("a command of the meta group: its checksum differs"));
        }
        let versioned: Versioned = from_json(json, "a command of the meta group")?;
        match versioned.version {
            VERSION => Ok(versioned.command),
            _ => Err(Damage("a command of the meta group: a version that this build does not know")),
        }
    }
}

/// What the meta group's entries mean.
#[derive(Clone, Copy, Debug, Default)]
pub struct MetaMachine;

impl Machine for MetaMachine {
    fn apply(&self, rows: &ShardStore, entry: &[u8]) -> Result<Outcome, LocalDamage> {
        let mut changes = Changes::new();
        match (MetaCommand::decode(entry)?, State::read(rows)?) {
            (MetaCommand::Found(founding), None) => put_state(&mut changes, &founding.state()),
            (MetaCommand::PutNode(node), Some(state))
                if state.nodes.get(&node.id).is_some_and(|known| *known != node) =>
            {
                put(&mut changes, node_key(node.id), &node);
                let (cluster_id, epoch) = (state.cluster_id, state.epoch + 1);
                put(&mut changes, EPOCH_ROW.to_vec(), &EpochRow { cluster_id, epoch });
            }
            (MetaCommand::Found(_), Some(_)) | (MetaCommand::PutNode(_), _) => {}
        }
        Ok(Outcome { changes, answers: Vec::new(), time_us: 0 })
    }

    fn stamp(&self, _entry: &[u8]) -> Option<Time> {
        None
    }
}

fn put_state(changes: &mut Changes, state: &State) {
    let epoch = EpochRow { cluster_id: state.cluster_id, epoch: state.epoch };
    put(changes, EPOCH_ROW.to_vec(), &epoch);
    for (number, group) in (0u32..).zip(&state.groups) {
        put(changes, [&[GROUP_ROWS][..], &number.to_be_bytes()].concat(), group);
    }
    for node in state.nodes.values() {
        put(changes, node_key(node.id), node);
    }
}

fn node_key(node: NodeId) -> Vec<u8> {
    [&[NODE_ROWS][..], node.0.as_bytes()].concat()
}

fn put(changes: &mut Changes, key: Vec<u8>, row: &impl Serialize) {
    changes.put(key, to_json(row));
}

fn row<T: DeserializeOwned>(rows: &dyn Store, key: &[u8]) -> Result<Option<T>, LocalDamage> {
    Ok(rows.get(key)?.map(|row| from_json(&row, "a row of the meta group")).transpose()?)
}

fn scan<T: DeserializeOwned>(rows: &dyn Store, table: u8) -> Result<Vec<T>, LocalDamage> {
    let mut found = Vec::new();
    rows.scan(&[table], &[table + 1], &mut |_, row| {
        found.push(from_json(row, "a row of the meta group"));
        true
    })?;
    Ok(found.into_iter().collect::<Result<_, Damage>>()?)
}

fn to_json(what: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(what).expect("structs of numbers, strings and lists are JSON")
}

fn from_json<T: DeserializeOwned>(json: &[u8], what: &'static str) -> Result<T, Damage> {
    serde_json::from_slice(json).map_err(|error| {
        tracing::error!(what, %error, "cannot be read");
        Damage(what)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn founding() -> Founding {
        let id = NodeId(Uuid::from_bytes([7; 16]));
        let place = NodePlace {
            id,
            api_address: "a:1".to_owned(),
            peer_address: "a:2".to_owned(),
            version: "1".to_owned(),
        };
        Founding { cluster_id: Uuid::nil(), shards: 1, replicas: 1, nodes: vec![place] }
    }

    #[test]
    fn a_command_comes_back_as_it_was_sent_or_not_at_all() {
        let command = MetaCommand::Found(founding());
        let mut entry = command.encode().to_vec();
        assert_eq!(MetaCommand::decode(&entry), Ok(command));
        entry[30] ^= 1;
        assert!(MetaCommand::decode(&entry).is_err());
        assert!(MetaCommand::decode(b"abc").is_err());
    }

    #[test]
    fn commands_keep_their_bytes() {
        let place = founding().nodes.remove(0);
        let entry = MetaCommand::PutNode(place).encode();
        let text = std::str::from_utf8(&entry[4..]).expect("JSON");
        assert_eq!(
            text,
            r#"{"version":1,"command":{"PutNode":{"id":"07070707-0707-0707-0707-070707070707","api_address":"a:1","peer_address":"a:2","version":"1"}}}"#
        );
    }

    #[test]
    fn what_is_written_is_what_is_read() {
        let state = founding().state();
        let mut changes = Changes::new();
        put_state(&mut changes, &state);
        let mut rows = purser_ledger::store::MemStore::new();
        assert_eq!(State::read(&rows), Ok(None));
        rows.commit(&changes);
        assert_eq!(State::read(&rows), Ok(Some(state)));
        assert_eq!(State::epoch_of(&rows), Ok(Some(1)));
    }
}
