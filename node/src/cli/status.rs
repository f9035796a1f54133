//! `purser cluster status`: how nodes and shards do, and what is wrong.

use std::collections::BTreeSet;

use purser_proto::v1::{GetStatusResponse, GroupStatus, NodeStatus, ReplicaStatus};

use super::answer::{Answer, Exit};
use super::json;
use super::table::{self, Column, Lean, or_none};

/// The status, for people and programs; the exit code says whether anything is wrong.
pub(super) fn show(status: &GetStatusResponse) -> Answer {
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
            state(node).to_owned(),
            or_none(&node.version),
            node.leads.to_string(),
            node.replicas.to_string(),
        ]
    });
    table::table(&COLUMNS, rows)
}

fn state(node: &NodeStatus) -> &'static str {
    match (node.reachable, node.replaced_by.is_empty()) {
        (_, false) => "being replaced",
        (true, true) => "up",
        (false, true) => "unreachable",
    }
}

/// The replicas that count: not those that are to take another one's place.
fn counted(group: &GroupStatus) -> impl Iterator<Item = &ReplicaStatus> + Clone {
    group.replicas.iter().filter(|own| !own.coming)
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
        let working = counted(group).filter(|own| own.reachable && own.stopped.is_empty());
        let applied = working.clone().map(|own| own.applied_index);
        let (most, least) = (applied.clone().max().unwrap_or(0), applied.min().unwrap_or(0));
        vec![
            name(group),
            leader.map_or_else(|| or_none(""), |own| address(&own.node_id)),
            leader.map_or_else(|| or_none(""), |own| own.term.to_string()),
            most.to_string(),
            format!("{} of {}", working.count(), counted(group).count()),
            (most - least).to_string(),
        ]
    });
    table::table(&COLUMNS, rows)
}

/// The replica that leads: of two that say so, the one of the later term.
fn leader(group: &GroupStatus) -> Option<&ReplicaStatus> {
    group.replicas.iter().filter(|own| own.leads).max_by_key(|own| own.term)
}

/// How many groups still have a replica to come.
pub(super) fn to_come(status: &GetStatusResponse) -> usize {
    status.groups.iter().filter(|group| group.replicas.iter().any(|own| own.coming)).count()
}

/// What is wrong.
pub(super) fn troubles(status: &GetStatusResponse) -> Vec<String> {
    let mut troubles = Vec::new();
    if !status.replaced_by.is_empty() {
        troubles.push(format!(
            "node {} was put in the place of the one that answers: stop it, and remove its data directory",
            status.replaced_by
        ));
    }
    for node in status.nodes.iter().filter(|node| !node.replaced_by.is_empty()) {
        let place = node.place.clone().unwrap_or_default();
        troubles.push(format!(
            "node {} is being replaced by {}: {} of {} groups are to come",
            place.node_id,
            node.replaced_by,
            to_come(status),
            status.groups.len()
        ));
    }
    for node in status.nodes.iter().filter(|node| !node.reachable && node.replaced_by.is_empty()) {
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
    use purser_proto::v1::NodePlace;

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
        let answer = show(&status(vec![replica("a", false, "aa"), replica("b", true, "aa")]));
        assert_eq!(answer.exit, Exit::Done);
        assert!(answer.text.contains("b:7480"), "{}", answer.text);
        assert!(answer.text.contains("2 of 2"), "{}", answer.text);
    }

    #[test]
    fn a_node_that_is_being_replaced_is_said_to_be_and_what_comes_does_not_count() {
        let mut under_way = status(vec![replica("a", false, "aa"), replica("b", true, "aa")]);
        under_way.nodes[0].reachable = false;
        under_way.nodes[0].replaced_by = "c".to_owned();
        under_way.groups[0].replicas[0].reachable = false;
        under_way.groups[0].replicas.push(ReplicaStatus { coming: true, ..replica("c", false, "aa") });
        let answer = show(&under_way);
        assert_eq!(answer.exit, Exit::Refused);
        for told in ["being replaced", "node a is being replaced by c: 1 of 1 groups are to come", "1 of 2"] {
            assert!(answer.text.contains(told), "{told} in {}", answer.text);
        }
        assert!(!answer.text.contains("cannot be reached"), "{}", answer.text);
    }

    #[test]
    fn what_is_wrong_is_said_and_shows_in_the_exit_code() {
        let mut sick = status(vec![replica("a", false, "aa"), replica("b", false, "bb")]);
        sick.nodes[1].reachable = false;
        let answer = show(&sick);
        assert_eq!(answer.exit, Exit::Refused);
        for trouble in
            ["node b:7480 cannot be reached", "shard 2 has no leader", "replicas differ at the same index"]
        {
            assert!(answer.text.contains(trouble), "{trouble} in {}", answer.text);
        }
    }
}
