//! The meta group's state machine: its commands, and the rows that keep the cluster's [`State`].
//!
//! Commands and rows are JSON: there are few of them, and whoever looks into a cluster can read them.
//! A command is sealed with a checksum, and names the version of its meaning.
//!
//! ```text
//!   command      crc32 4, little-endian, over the rest | {"version":1,"command":{…}}
//!   rows         E -> {"cluster_id","epoch","later_replicas"}      N | node 16 -> node
//!                G | group 4, big-endian -> replicas               R | node 16 -> {"node","by"}
//! ```
//! Before the first command the state is the founding's, which every founding node knows. Every command
//! may come twice: the second one changes nothing.

use bytes::Bytes;
use purser_ledger::codec::Damage;
use purser_ledger::store::{Changes, LocalDamage, Store};
use purser_ledger::time::Time;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::sealed::{self, from_json, to_json};
use super::state::{NodePlace, State};
use super::{Founding, NodeId};
use crate::log::GroupId;
use crate::raft::{Machine, Outcome, ReplicaId};
use crate::storage::ShardStore;

/// The version of commands that this build proposes, and the newest that it applies.
const VERSION: u32 = 1;
const EPOCH_ROW: &[u8] = b"E";
const NODE_ROWS: u8 = b'N';
const GROUP_ROWS: u8 = b'G';
const REPLACED_ROWS: u8 = b'R';

impl State {
    /// Reads the state from the meta group's rows; `None`: nothing was applied yet.
    pub fn read(rows: &dyn Store) -> Result<Option<State>, LocalDamage> {
        let Some(epoch) = row::<EpochRow>(rows, EPOCH_ROW)? else { return Ok(None) };
        let nodes = scan::<NodePlace>(rows, NODE_ROWS)?.into_iter().map(|node| (node.id, node)).collect();
        let groups = scan(rows, GROUP_ROWS)?;
        let replaced = scan::<ReplacedRow>(rows, REPLACED_ROWS)?;
        let replaced = replaced.into_iter().map(|own| (own.node, own.by)).collect();
        let EpochRow { cluster_id, epoch, later_replicas } = epoch;
        Ok(Some(State { cluster_id, epoch, later_replicas, nodes, groups, replaced }))
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
    /// A node takes the place of a lost one: see [`State::replace`].
    Replace {
        /// The lost one.
        lost: NodeId,
        /// The one that takes its place.
        with: NodePlace,
    },
    /// A group has changed its members: see [`State::came`].
    Came {
        /// The group's number.
        group: u32,
        /// The replica that stands in another one's place now.
        replica: ReplicaId,
    },
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
    #[serde(default, skip_serializing_if = "is_none")]
    later_replicas: u64,
}

fn is_none(number: &u64) -> bool {
    *number == 0
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ReplacedRow {
    node: NodeId,
    by: NodeId,
}

impl MetaCommand {
    /// The bytes of an entry.
    pub fn encode(&self) -> Bytes {
        sealed::seal(&Versioned { version: VERSION, command: self.clone() })
    }

    /// The command of an entry, if it arrived as it was sent and this build knows it.
    pub fn decode(entry: &[u8]) -> Result<MetaCommand, Damage> {
        let versioned: Versioned = sealed::open(entry, "a command of the meta group")?;
        match versioned.version {
            VERSION => Ok(versioned.command),
            _ => Err(Damage("a command of the meta group: a version that this build does not know")),
        }
    }

    /// The state after it; `None`: nothing changes.
    fn change(self, state: Option<&State>) -> Option<State> {
        match (self, state) {
            (MetaCommand::Found(founding), None) => Some(founding.state()),
            (MetaCommand::Found(_), Some(_)) | (_, None) => None,
            (MetaCommand::PutNode(node), Some(state)) => {
                let mut after = State { epoch: state.epoch + 1, ..state.clone() };
                let known = after.nodes.get_mut(&node.id).filter(|known| **known != node)?;
                *known = node;
                Some(after)
            }
            // Whoever asked for it looks why nothing has changed.
            (MetaCommand::Replace { lost, with }, Some(state)) => state.replace(lost, &with).ok().flatten(),
            (MetaCommand::Came { group, replica }, Some(state)) => state.came(GroupId(group), replica),
        }
    }
}

/// What the meta group's entries mean.
#[derive(Clone, Copy, Debug, Default)]
pub struct MetaMachine;

impl Machine for MetaMachine {
    fn apply(&self, rows: &ShardStore, entry: &[u8]) -> Result<Outcome, LocalDamage> {
        let before = State::read(rows)?;
        let mut changes = Changes::new();
        if let Some(after) = MetaCommand::decode(entry)?.change(before.as_ref()) {
            put_changes(&mut changes, before.as_ref(), &after);
        }
        Ok(Outcome { changes, answers: Vec::new(), time_us: 0 })
    }

    fn stamp(&self, _entry: &[u8]) -> Option<Time> {
        None
    }
}

/// Writes what differs between two states.
fn put_changes(changes: &mut Changes, before: Option<&State>, after: &State) {
    let State { cluster_id, epoch, later_replicas, .. } = *after;
    put(changes, EPOCH_ROW.to_vec(), &EpochRow { cluster_id, epoch, later_replicas });
    for (number, group) in (0u32..).zip(&after.groups) {
        if before.and_then(|before| before.group(GroupId(number))) != Some(group) {
            put(changes, [&[GROUP_ROWS][..], &number.to_be_bytes()].concat(), group);
        }
    }
    for (id, node) in &after.nodes {
        if before.and_then(|before| before.nodes.get(id)) != Some(node) {
            put(changes, node_key(NODE_ROWS, *id), node);
        }
    }
    let gone = before.into_iter().flat_map(|before| before.nodes.keys());
    gone.filter(|id| !after.nodes.contains_key(id)).for_each(|id| changes.delete(node_key(NODE_ROWS, *id)));
    for (node, by) in &after.replaced {
        if before.and_then(|before| before.replaced.get(node)) != Some(by) {
            put(changes, node_key(REPLACED_ROWS, *node), &ReplacedRow { node: *node, by: *by });
        }
    }
}

fn node_key(table: u8, node: NodeId) -> Vec<u8> {
    [&[table][..], node.0.as_bytes()].concat()
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
        let came = MetaCommand::Came { group: 3, replica: ReplicaId(9) }.encode();
        let text = std::str::from_utf8(&came[4..]).expect("JSON");
        assert_eq!(text, r#"{"version":1,"command":{"Came":{"group":3,"replica":9}}}"#);
    }

    #[test]
    fn what_is_written_is_what_is_read() {
        let mut rows = purser_ledger::store::MemStore::new();
        assert_eq!(State::read(&rows), Ok(None));
        let mut nodes: Vec<NodePlace> = (1..=4)
            .map(|n| NodePlace { id: NodeId(Uuid::from_bytes([n; 16])), ..founding().nodes.remove(0) })
            .collect();
        let (lost, with) = (nodes[0].id, nodes.remove(3));
        let founding = Founding { replicas: 3, nodes, ..founding() };
        let mut state: Option<State> = None;
        let later = |number| ReplicaId(super::super::LATER_REPLICA_IDS_FROM + number);
        for (command, epoch) in [
            (MetaCommand::Found(founding), 1),
            (MetaCommand::PutNode(NodePlace { version: "2".to_owned(), ..with.clone() }), 1),
            (MetaCommand::Replace { lost, with: with.clone() }, 2),
            (MetaCommand::Replace { lost, with: with.clone() }, 2),
            (MetaCommand::PutNode(NodePlace { version: "2".to_owned(), ..with }), 3),
            (MetaCommand::Came { group: 0, replica: later(1) }, 3),
            (MetaCommand::Came { group: 0, replica: later(0) }, 4),
            (MetaCommand::Came { group: 1, replica: later(1) }, 5),
        ] {
            if let Some(after) = command.change(state.as_ref()) {
                let mut changes = Changes::new();
                put_changes(&mut changes, state.as_ref(), &after);
                rows.commit(&changes);
                state = Some(after);
            }
            assert_eq!(State::read(&rows), Ok(state.clone()));
            assert_eq!(State::epoch_of(&rows), Ok(Some(epoch)));
        }
        let state = state.expect("a state");
        assert_eq!((state.nodes.len(), state.nodes.contains_key(&lost)), (3, false));
    }

    #[test]
    fn rows_without_later_replicas_keep_their_bytes() {
        let mut changes = Changes::new();
        put_changes(&mut changes, None, &founding().state());
        let mut rows = purser_ledger::store::MemStore::new();
        rows.commit(&changes);
        let text = |key: &[u8]| {
            let row = rows.get(key).expect("readable").expect("a row");
            String::from_utf8(row).expect("JSON")
        };
        assert_eq!(text(b"E"), r#"{"cluster_id":"00000000-0000-0000-0000-000000000000","epoch":1}"#);
        let replicas = r#"{"replicas":[{"replica":1,"node":"07070707-0707-0707-0707-070707070707"}]}"#;
        assert_eq!(text(b"G\0\0\0\0"), replicas);
    }
}
