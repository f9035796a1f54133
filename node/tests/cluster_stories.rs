//! Three nodes as one cluster, in this process, over real ports: founding, any node answers, leaders
//! and their hand-over, nodes that go away and come back at other addresses, and nodes that are lost and
//! replaced.

mod cluster_support;
mod node_support;

use std::collections::BTreeSet;
use std::time::Duration;

use cluster_support::{Member, all_led, available, init, replace, three, until, with_credits};
use node_support::{debit_request, hold_request, pair, reason};
use purser_proto::v1;
use purser_proto::v1::cluster_client::ClusterClient;
use tonic::{Code, Request};

#[tokio::test(flavor = "multi_thread")]
async fn any_node_answers_for_every_customer() {
    let folder = tempfile::tempdir().expect("a folder");
    let members = three(folder.path()).await;
    for n in 0..12 {
        let customer = format!("customer-{n}");
        with_credits(&mut members[n % 3].ledger().await, &customer, "100").await;
        let mut other = members[(n + 1) % 3].ledger().await;
        let debit = other.debit(debit_request(&customer, "main", "30")).await.expect("applied").into_inner();
        assert_eq!(debit.remaining, "70");
        assert_eq!(available(&mut members[(n + 2) % 3].ledger().await, &customer).await, "70");
        let refused = other.debit(debit_request(&customer, "main", "71")).await.expect_err("too much");
        assert_eq!(reason(&refused), "INSUFFICIENT_CREDITS");
        assert_eq!(pair(&refused, "available"), "70");
        for member in &members {
            let half = debit_request(&customer, "main", "0.5");
            let refused = member.ledger().await.debit(half).await.expect_err("whole credits only");
            assert_eq!(reason(&refused), "INVALID_AMOUNT_PRECISION");
        }
    }
    for member in members {
        member.stop().await;
    }
}

/// Provokes: NOT_LEADER
#[tokio::test(flavor = "multi_thread")]
async fn any_node_takes_writes_of_several_sorts_for_all_shards_and_hands_them_on() {
    let folder = tempfile::tempdir().expect("a folder");
    let members = three(folder.path()).await;
    let customers: Vec<_> = (0..12).map(|n| format!("customer-{n}")).collect();
    for customer in &customers {
        with_credits(&mut members[0].ledger().await, customer, "100").await;
    }
    for (member, left) in members.iter().zip(["66", "32", "INSUFFICIENT_CREDITS"]) {
        let writes = |customer: &String| -> [v1::WriteRequest; 2] {
            [hold_request(customer, "main", "4").into(), debit_request(customer, "main", "30").into()]
        };
        let request = v1::WriteBatchRequest {
            writes: customers.iter().flat_map(writes).collect(),
            ..Default::default()
        };
        let results = member.ledger().await.write_batch(request).await.expect("results").into_inner().results;
        assert_eq!(results.len(), 24);
        for pair in results.chunks(2) {
            use v1::write_result::Outcome;
            assert!(matches!(pair[0].outcome, Some(Outcome::Held(_))), "{:?}", pair[0]);
            let told = match pair[1].outcome.as_ref().expect("an outcome") {
                Outcome::Debited(debited) => &debited.remaining,
                Outcome::Refused(refusal) => &refusal.reason,
                other => panic!("of another sort: {other:?}"),
            };
            assert_eq!(told, left);
        }
    }
    for member in members {
        member.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_routes_by_itself_is_told_who_leads() {
    let folder = tempfile::tempdir().expect("a folder");
    let members = three(folder.path()).await;
    with_credits(&mut members[0].ledger().await, "acme", "100").await;
    // One answers, two name it. A group that has just been founded may still hand its lead over, and
    // for that moment they do not agree: the same debit, by its key, is asked for again.
    let debit = debit_request("acme", "main", "1");
    until("one node answers and the others name it", async || {
        let mut named = BTreeSet::new();
        let mut answered = 0;
        for member in &members {
            let mut request = Request::new(debit.clone());
            request.metadata_mut().insert("purser-route", "direct".parse().expect("ASCII"));
            match member.ledger().await.debit(request).await {
                Ok(_) => {
                    answered += 1;
                    named.insert(member.api.to_string());
                }
                Err(status) => {
                    assert_eq!((status.code(), reason(&status).as_str()), (Code::Unavailable, "NOT_LEADER"));
                    let leader = pair(&status, "leader");
                    let term = pair(&status, "term").parse::<u64>();
                    assert_eq!(leader.is_empty(), term.is_err(), "{status:?}");
                    named.insert(leader);
                }
            }
        }
        answered == 1 && named.len() == 1
    })
    .await;
    assert_eq!(available(&mut members[1].ledger().await, "acme").await, "99");
    for member in members {
        member.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_founding_that_was_cut_off_is_completed_by_the_same_command() {
    let folder = tempfile::tempdir().expect("a folder");
    let [one, two, three] = ["1", "2", "3"].map(|name| folder.path().join(name));
    let members = [Member::start(&one).await, Member::start(&two).await, Member::start(&three).await];
    let mut nodes = Vec::new();
    for member in &members {
        let told = member.cluster().await.get_node(v1::GetNodeRequest {}).await.expect("told").into_inner();
        assert_eq!(told.cluster_id, "");
        let (node_id, api_address, peer_address) = (told.node_id, told.api_address, told.peer_address);
        nodes.push(v1::NodePlace { node_id, api_address, peer_address });
    }
    let cluster_id = "6f0c1f53-5a3c-4d0e-9a83-2d6a3d6f1c55".to_owned();
    let founding = v1::FoundRequest { cluster_id, shards: 2, nodes, replicas: 3 };
    // The one who founded it got no further than the first node.
    members[0].cluster().await.found(founding.clone()).await.expect("founded");
    until("the first node knows its cluster", async || {
        let Ok(mut cluster) = ClusterClient::connect(members[0].url()).await else { return false };
        let told = cluster.get_node(v1::GetNodeRequest {}).await;
        told.is_ok_and(|told| told.into_inner().cluster_id == founding.cluster_id)
    })
    .await;

    let output = init(&members.iter().collect::<Vec<_>>(), 64);

    assert!(output.status.success(), "{output:?}");
    all_led(&members).await;
    for member in &members {
        let map = member.map().await.expect("a map");
        assert_eq!((map.cluster_id.as_str(), map.shards.len()), (founding.cluster_id.as_str(), 2));
    }
    let again = init(&members.iter().collect::<Vec<_>>(), 2);
    assert!(String::from_utf8_lossy(&again.stdout).contains("was founded before"), "{again:?}");
    for member in members {
        member.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_stops_hands_its_leads_over_and_comes_back_at_another_address() {
    let folder = tempfile::tempdir().expect("a folder");
    let [first, second, third] = three(folder.path()).await;
    for n in 0..8 {
        with_credits(&mut first.ledger().await, &format!("customer-{n}"), "100").await;
    }
    let gone =
        first.cluster().await.get_node(v1::GetNodeRequest {}).await.expect("told").into_inner().node_id;
    let old = first.api;
    first.stop().await;

    for n in 0..8 {
        let mut ledger = second.ledger().await;
        ledger.debit(debit_request(&format!("customer-{n}"), "main", "1")).await.expect("applied without it");
    }
    let back = Member::start(&folder.path().join("1")).await;
    assert_ne!(back.api, old);
    for member in [&second, &third, &back] {
        until("everybody knows the new address", async || {
            member.map().await.is_some_and(|map| {
                let place = map.nodes.iter().find(|node| node.node_id == gone);
                place.is_some_and(|place| place.api_address == back.api.to_string())
            })
        })
        .await;
    }
    for n in 0..8 {
        assert_eq!(available(&mut back.ledger().await, &format!("customer-{n}")).await, "99");
    }
    until("it leads its share again", async || {
        let status = back.status().await.unwrap_or_default();
        let own = status.nodes.iter().find(|node| node.place.as_ref().is_some_and(|own| own.node_id == gone));
        own.is_some_and(|own| own.leads > 0)
    })
    .await;
    for member in [second, third, back] {
        member.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_majority_nothing_is_applied_and_with_one_again_the_same_key_is() {
    let folder = tempfile::tempdir().expect("a folder");
    let [first, second, third] = three(folder.path()).await;
    with_credits(&mut first.ledger().await, "acme", "100").await;
    second.stop().await;
    third.stop().await;
    let debit = debit_request("acme", "main", "40");
    let mut request = Request::new(debit.clone());
    request.set_timeout(Duration::from_secs(2));
    let refused = first.ledger().await.debit(request).await.expect_err("no majority");
    assert!(
        matches!(refused.code(), Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled),
        "{refused:?}"
    );

    let second = Member::start(&folder.path().join("2")).await;
    let mut ledger = second.ledger().await;
    until("two of three answer", async || {
        let mut ledger = ledger.clone();
        ledger.debit(debit.clone()).await.is_ok()
    })
    .await;
    assert_eq!(available(&mut ledger, "acme").await, "60");
    for member in [first, second] {
        member.stop().await;
    }
}

/// The cluster is well, with these nodes and no others, each with a replica of every group.
async fn is_well_with(member: &Member, nodes: &[&str]) -> bool {
    let Some(status) = member.status().await else { return false };
    let names: BTreeSet<String> =
        status.nodes.iter().filter_map(|node| Some(node.place.as_ref()?.node_id.clone())).collect();
    let working = |group: &v1::GroupStatus| {
        group.replicas.len() == nodes.len()
            && group.replicas.iter().all(|own| own.reachable && own.stopped.is_empty() && !own.coming)
    };
    names == nodes.iter().map(|id| (*id).to_owned()).collect()
        && status.groups.iter().all(|group| working(group) && group.replicas.iter().any(|own| own.leads))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_lost_its_disk_is_replaced_and_the_new_one_counts() {
    let folder = tempfile::tempdir().expect("a folder");
    let [first, second, third] = three(folder.path()).await;
    for n in 0..8 {
        with_credits(&mut first.ledger().await, &format!("customer-{n}"), "100").await;
    }
    let [a, b, lost] = [first.id().await, second.id().await, third.id().await];
    third.stop().await;
    // Whoever still writes there is not in the way of that.
    std::fs::rename(folder.path().join("3"), folder.path().join("lost")).expect("the disk is lost");

    let new = Member::start(&folder.path().join("4")).await;
    let output = replace(&lost, &new, &first);

    assert!(output.status.success(), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stdout).contains("has taken the place of"), "{output:?}");
    let own = new.id().await;
    for member in [&first, &second, &new] {
        until("all are well without the lost one", async || is_well_with(member, &[&a, &b, &own]).await)
            .await;
    }
    let again = replace(&lost, &new, &second);
    assert!(again.status.success(), "the same again changes nothing: {again:?}");
    // It has everything, and its vote counts: with another one gone it makes a majority, also after a restart.
    new.stop().await;
    second.stop().await;
    let new = Member::start(&folder.path().join("4")).await;
    for n in 0..8 {
        let debit = debit_request(&format!("customer-{n}"), "main", "1");
        until("the new one and one of the old are enough", async || {
            new.ledger().await.debit(debit.clone()).await.is_ok()
        })
        .await;
        assert_eq!(available(&mut first.ledger().await, &format!("customer-{n}")).await, "99");
    }
    for member in [first, new] {
        member.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_was_replaced_and_comes_back_says_so_and_disturbs_nobody() {
    let folder = tempfile::tempdir().expect("a folder");
    let [first, second, third] = three(folder.path()).await;
    with_credits(&mut first.ledger().await, "acme", "100").await;
    let [a, b, lost] = [first.id().await, second.id().await, third.id().await];
    third.stop().await;
    let new = Member::start(&folder.path().join("4")).await;
    let output = replace(&lost, &new, &first);
    assert!(output.status.success(), "{output:?}");
    let own = new.id().await;

    let back = Member::start(&folder.path().join("3")).await;

    until("it knows that it was replaced", async || {
        back.status().await.is_some_and(|status| status.replaced_by == own)
    })
    .await;
    let ready = back.ready();
    assert!(ready.contains("503") && ready.contains("[-] member") && ready.contains("stop it"), "{ready}");
    until("it has no replica any more", async || {
        back.ready().lines().all(|line| !line.contains("shard") || line.contains("stopped"))
    })
    .await;
    // What it is asked it hands on.
    assert_eq!(available(&mut back.ledger().await, "acme").await, "100");
    first.ledger().await.debit(debit_request("acme", "main", "30")).await.expect("applied");
    assert_eq!(available(&mut back.ledger().await, "acme").await, "70");
    for member in [&first, &second, &new] {
        until("all are well without it", async || is_well_with(member, &[&a, &b, &own]).await).await;
    }
    for member in [first, second, new, back] {
        member.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_replaced_is_refused_by_name() {
    let folder = tempfile::tempdir().expect("a folder");
    let members = three(folder.path()).await;
    let waiting = Member::start(&folder.path().join("4")).await;
    let [lost, other] = [members[0].id().await, members[1].id().await];
    let new = waiting.place().await;
    let refused = async |lost: &str, with: Option<v1::NodePlace>| {
        let request = v1::ReplaceRequest { lost_node_id: lost.to_owned(), with };
        let refused = members[1].cluster().await.replace(request).await.expect_err("refused");
        (reason(&refused), refused.message().to_owned())
    };
    let named = |(reason, told): (String, String), field: &str| {
        assert_eq!(reason, "INVALID_ARGUMENT", "{told}");
        assert!(told.starts_with(field), "{told}");
    };

    named(refused("n1", Some(new.clone())).await, "lost_node_id: must be a UUID");
    let stranger = "6f0c1f53-5a3c-4d0e-9a83-2d6a3d6f1c55";
    named(refused(stranger, Some(new.clone())).await, "lost_node_id: ");
    named(refused(&lost, None).await, "with: required");
    let silent = v1::NodePlace { peer_address: String::new(), ..new.clone() };
    named(refused(&lost, Some(silent)).await, "with.peer_address: required");
    let member = v1::NodePlace { node_id: other.clone(), ..new.clone() };
    named(refused(&lost, Some(member)).await, "with.node_id: ");
    let joined = v1::JoinRequest { founding: None, map: Vec::new() };
    let told = waiting.cluster().await.join(joined).await.expect_err("nothing to join");
    named((reason(&told), told.message().to_owned()), "founding: required");

    // The new node is not told of its place: it waits, and the others go on without the lost one.
    let request = v1::ReplaceRequest { lost_node_id: lost.clone(), with: Some(new.clone()) };
    members[1].cluster().await.replace(request.clone()).await.expect("taken");
    members[2].cluster().await.replace(request).await.expect("taken again");
    let third = v1::NodePlace { node_id: stranger.to_owned(), ..new.clone() };
    let (reason, told) = refused(&lost, Some(third.clone())).await;
    assert_eq!(reason, "ALREADY_EXISTS", "{told}");
    let (reason, told) = refused(&other, Some(third)).await;
    assert_eq!(reason, "UNAVAILABLE", "{told}");
    assert!(told.contains(&new.node_id), "{told}");
    for member in members.into_iter().chain([waiting]) {
        member.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_without_a_replica_of_the_meta_group_follows_the_map_and_is_followed() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut members = Vec::new();
    for name in ["1", "2", "3", "4"] {
        members.push(Member::start(&folder.path().join(name)).await);
    }
    let output = init(&members.iter().collect::<Vec<_>>(), 4);
    assert!(output.status.success(), "{output:?}");
    all_led(&members).await;
    // The meta group is on the first three.
    let (first, fourth) = (members.remove(0), members.remove(2));
    let [one, four] = [first.id().await, fourth.id().await];
    first.stop().await;
    fourth.stop().await;
    let first = Member::start(&folder.path().join("1")).await;
    let fourth = Member::start(&folder.path().join("4")).await;

    for member in members.iter().chain([&first, &fourth]) {
        until("everybody knows both new addresses", async || {
            let map = member.map().await.unwrap_or_default();
            let is_at = |id: &str, at: &Member| {
                map.nodes.iter().any(|node| node.node_id == id && node.api_address == at.api.to_string())
            };
            is_at(&one, &first) && is_at(&four, &fourth)
        })
        .await;
    }
    for member in members.into_iter().chain([first, fourth]) {
        member.stop().await;
    }
}
