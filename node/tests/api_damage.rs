//! Rows that are wrong, over gRPC's functions: one customer is stopped, a read says that it cannot tell, and
//! everybody else goes on. The rows are made wrong on the disk of a node, which then starts again.

mod node_support;

use std::path::Path;

use node_support::{create_request, debit_request, grant_request, reason, tranche, unserved};
use purser_ledger::amount::Amount;
use purser_ledger::ids::Customer;
use purser_ledger::rows::keys;
use purser_ledger::rows::wallet::Wallet;
use purser_ledger::store::Store;
use purser_node::config::Config;
use purser_node::server::Running;
use purser_proto::v1;
use tonic::Code;

fn config(data: &Path) -> Config {
    Config { data: data.to_owned(), disk_reserve_mib: 0, ..Config::default() }
}

fn wallet_key() -> Vec<u8> {
    keys::wallet(Customer { namespace: "default", id: "acme" }, "main")
}

fn row(node: &Running) -> Vec<u8> {
    let groups = node.node().cluster().groups();
    let mut rows = groups.values().filter_map(|group| group.store().get(&wallet_key()).expect("readable"));
    rows.next().expect("the wallet's row")
}

/// Two customers with 10 credits each; then the first one's wallet row is changed on the disk.
async fn started_again_with(folder: &Path, damage: impl FnOnce(Vec<u8>) -> Vec<u8>) -> Running {
    let node = unserved(config(folder)).await;
    for customer in ["acme", "globex"] {
        node.node().api.create_wallet(&create_request(customer, "main", 0)).await.expect("a wallet");
        let credits = vec![tranche("10", v1::TrancheKind::Purchased)];
        node.node().api.grant(&grant_request(customer, "main", credits)).await.expect("credits");
    }
    let wrong = damage(row(&node));
    for group in node.node().cluster().groups().values() {
        let store = group.store();
        if store.get(&wallet_key()).expect("readable").is_some() {
            let applied = store.applied().expect("readable").expect("something was applied");
            store.write([(&wallet_key()[..], Some(&wrong[..]))], &applied).expect("written");
            store.flush().expect("flushed");
        }
    }
    node.close().await.expect("closed");
    unserved(config(folder)).await
}

/// Provokes: CUSTOMER_QUARANTINED
#[tokio::test]
async fn a_customer_whose_wallet_does_not_add_up_is_stopped_and_others_go_on() {
    let folder = tempfile::tempdir().expect("a folder");
    let node = started_again_with(folder.path(), |row| {
        let sound = Wallet::decode(&row).expect("a sound row");
        Wallet { available: Amount(sound.available.0 + 1), ..sound }.encode()
    })
    .await;

    for amount in ["1", "2"] {
        let debit = debit_request("acme", "main", amount);
        let status = node.node().api.debit(&debit).await.expect_err("stopped");
        assert_eq!(reason(&status), "CUSTOMER_QUARANTINED", "{status:?}");
        assert_eq!(status.code(), Code::FailedPrecondition);
    }

    let left = Wallet::decode(&row(&node)).expect("a row that decodes");
    assert_eq!((left.quarantined, left.available, left.movements), (true, Amount(11), 1));
    node.node().api.debit(&debit_request("globex", "main", "10")).await.expect("a debit");
    node.close().await.expect("closed");
}

/// Provokes: INTERNAL
#[tokio::test]
async fn a_read_of_a_row_that_does_not_decode_says_so_and_changes_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let node = started_again_with(folder.path(), |mut row| {
        row.truncate(row.len() / 2);
        row
    })
    .await;
    let before = row(&node);

    let read = |customer: &str| v1::GetWalletRequest {
        customer: customer.to_owned(),
        wallet: "main".to_owned(),
        ..Default::default()
    };
    let status = node.node().api.get_wallet(&read("acme")).await.expect_err("unreadable");
    assert_eq!((reason(&status).as_str(), status.code()), ("INTERNAL", Code::Internal), "{status:?}");

    assert_eq!(row(&node), before);
    node.node().api.get_wallet(&read("globex")).await.expect("another one's wallet");
    node.node().api.debit(&debit_request("globex", "main", "10")).await.expect("a debit");
    node.close().await.expect("closed");
}
