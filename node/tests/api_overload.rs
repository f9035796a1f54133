//! Over the bounds: a full queue and a full disk are answered at once, with a wait before the next
//! try, and lose nothing.

mod node_support;

use futures_util::future::join_all;
use node_support::{create_request, debit_request, grant_request, reason, tranche, unserved};
use purser_node::config::Config;
use purser_node::server::Running;
use purser_node::shard::QUEUE_COMMANDS_MAX;
use purser_proto::v1;
use tonic_types::StatusExt;

fn config(data: &std::path::Path) -> Config {
    Config { data: data.to_owned(), disk_reserve_mib: 0, ..Config::default() }
}

async fn with_credits(node: &Running) {
    node.node().api.create_wallet(&create_request("acme", "main", 0)).await.expect("a wallet");
    let credits = vec![tranche("1000000", v1::TrancheKind::Purchased)];
    node.node().api.grant(&grant_request("acme", "main", credits)).await.expect("credits");
}

async fn available(node: &Running) -> String {
    let request = v1::GetBalanceRequest {
        customer: "acme".to_owned(),
        wallet: "main".to_owned(),
        ..Default::default()
    };
    let balance = node.node().api.get_balance(&request).await.expect("a balance");
    balance.wallets[0].balance.as_ref().expect("figures").available.clone()
}

/// One thread: all requests are handed over before the batcher takes the first one.
/// Provokes: UNAVAILABLE
#[tokio::test(flavor = "current_thread")]
async fn more_commands_than_the_queue_holds_are_refused_at_once_and_the_others_are_applied() {
    let folder = tempfile::tempdir().expect("a folder");
    let node = unserved(config(folder.path())).await;
    with_credits(&node).await;
    let requests: Vec<_> =
        (0..QUEUE_COMMANDS_MAX + 500).map(|_| debit_request("acme", "main", "1")).collect();
    let answers = join_all(requests.iter().map(|request| node.node().api.debit(request))).await;
    let refused: Vec<_> = answers.iter().filter_map(|answer| answer.as_ref().err()).collect();
    assert_eq!(refused.len(), 500);
    for status in &refused {
        assert_eq!(status.code(), tonic::Code::Unavailable);
        assert_eq!(reason(status), "UNAVAILABLE");
        let details = status.get_error_details();
        assert!(details.retry_info().is_some_and(|retry| retry.retry_delay.is_some()));
    }
    assert_eq!(available(&node).await, (1_000_000 - QUEUE_COMMANDS_MAX).to_string());
    node.close().await.expect("closed");
}

#[tokio::test]
async fn a_nearly_full_disk_refuses_writes_with_the_reason_serves_reads_and_recovers() {
    let folder = tempfile::tempdir().expect("a folder");
    let node = unserved(config(folder.path())).await;
    with_credits(&node).await;
    node.close().await.expect("closed");
    // A reserve that no disk has stands for a disk without room.
    let full = Config { disk_reserve_mib: 1 << 40, ..config(folder.path()) };
    let node = unserved(full).await;
    let request = debit_request("acme", "main", "1");
    let refused = node.node().api.debit(&request).await.expect_err("refused");
    assert_eq!(reason(&refused), "UNAVAILABLE");
    assert!(refused.message().contains("disk"), "{}", refused.message());
    assert_eq!(available(&node).await, "1000000");
    node.close().await.expect("closed");
    let node = unserved(config(folder.path())).await;
    node.node().api.debit(&request).await.expect("there is room again");
    assert_eq!(available(&node).await, "999999");
    node.close().await.expect("closed");
}
