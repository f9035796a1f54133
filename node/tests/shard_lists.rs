//! Stories of lists of commands in a shard's batcher, below the API.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use purser_ledger::amount::{Asset, Decimal};
use purser_ledger::command::{
    BurnPolicy, ChargeScope, Command, CreateWallet, Debit, Expiry, Grant, Header, Operation, Payer,
    TrancheKind, TrancheSpec, encode_command,
};
use purser_ledger::ids::Customer;
use purser_ledger::time::{Span, Time};
use purser_ledger::verdict::{Reply, Verdict};
use purser_node::clock::Clock;
use purser_node::cluster::NodeId;
use purser_node::log::{self, GroupId, LogOptions, LogWriter, RealDisk};
use purser_node::peer::{Answer, CallError, Transport};
use purser_node::raft::{Group, GroupConfig, GroupOptions, LedgerMachine, Network, ReplicaId, Whereabouts};
use purser_node::room::Room;
use purser_node::shard::{CommandList, Outcome, Shard, ShardError, ShardId, Sweeping};
use purser_node::storage::{StateStore, StoreOptions};

/// What a batch puts around a command of a kilobyte: its kind and its length.
const ITEM_BYTES: usize = 3;

/// The network of a replica that is its group's only one.
struct Nobody;

impl Transport for Nobody {
    fn call(&self, to: NodeId, _message: Bytes, _within: Duration) -> Answer {
        async move { Err(CallError::Unreachable(format!("there is no node {to}"))) }.boxed()
    }
}

impl Whereabouts for Nobody {
    fn node_of(&self, _group: GroupId, _replica: ReplicaId) -> Option<NodeId> {
        None
    }
}

/// A shard whose group takes no entry above 64 KiB, though the batcher makes entries of a megabyte.
async fn start(directory: &Path) -> (Shard, LogWriter, StateStore) {
    std::fs::create_dir_all(directory.join("log")).expect("a log directory");
    let disk = RealDisk::open(directory.join("log")).expect("a disk");
    let (log, driver, _) = log::open(Arc::new(disk), LogOptions::new("node")).expect("the log opens");
    let writer = LogWriter::spawn(log.clone(), driver).expect("a writer");
    let state = StateStore::open(directory.join("state"), StoreOptions::new("node")).expect("the state");
    let options = GroupOptions {
        group: GroupId(1),
        shard: 0,
        founders: BTreeSet::from([ReplicaId(1)]),
        replica: ReplicaId(1),
        campaign_at_once: true,
        network: Network::new([0; 16], Arc::new(Nobody), Arc::new(Nobody)),
        clock: Arc::new(Clock::System),
        config: GroupConfig { command_bytes_max: 64 << 10, ..GroupConfig::default() },
        machine: Arc::new(LedgerMachine::new(0)),
    };
    let group = Group::open(options, log, &state).await.expect("the group opens");
    group.ready().await.expect("the group leads");
    let clock = Arc::new(Clock::test(Time::ZERO));
    let room = Arc::new(Room::new(directory, 0));
    (Shard::start(ShardId(0), group, clock, room, Sweeping::default()), writer, state)
}

fn command<'a>(key: &'a str, operation: Operation<'a>) -> Command<'a> {
    let header = Header {
        customer: Customer { namespace: "default", id: "ada" },
        key,
        valid_until: Time::LATEST,
        retention: Span::from_secs(86_400),
        actor: "",
    };
    Command { header, operation }
}

fn debit<'a>(key: &'a str, note: &'a str) -> Command<'a> {
    let debit = Debit {
        payer: Payer::Wallet("main"),
        amount: Decimal::new(1, 0).expect("an amount"),
        charge_type: None,
        feature: None,
        allow_partial: false,
        reason_code: "",
        reference: "",
        metadata: vec![("note", note)],
    };
    command(key, Operation::Debit(debit))
}

async fn wallet_with_credits(shard: &Shard) {
    let asset = Asset { code: "credits", scale: 0 };
    let create = CreateWallet {
        wallet: "main",
        asset,
        draw_priority: 0,
        scope: ChargeScope::Any,
        burn_policy: BurnPolicy::Standard,
    };
    let spec = TrancheSpec {
        amount: Decimal::new(1_000_000, 0).expect("an amount"),
        kind: TrancheKind::Purchased,
        priority: 100,
        effective_at: None,
        expiry: Expiry::Never,
        scope: ChargeScope::Any,
        features: Vec::new(),
        label: "",
        reason_code: "",
        external_reference: "",
        cost: None,
        metadata: Vec::new(),
    };
    let grant = Grant { wallet: "main", tranches: vec![spec] };
    applied(&shard.submit(&command("create", Operation::CreateWallet(create))).await);
    applied(&shard.submit(&command("grant", Operation::Grant(grant))).await);
}

/// The place at which a command was applied.
fn applied(outcome: &Outcome) -> (u64, u64) {
    let placed = outcome.as_ref().expect("an answer");
    let Reply::Verdict { verdict: Verdict::Applied(_), .. } = placed.reply else {
        panic!("not applied: {:?}", placed.reply)
    };
    (placed.witness.log_index, placed.witness.position)
}

fn list<'a>(keys: &'a [String], note: &'a str) -> CommandList {
    let mut list = CommandList::default();
    keys.iter().for_each(|key| list.push(&debit(key, note)));
    list
}

fn keys(prefix: &str, count: usize) -> Vec<String> {
    (0..count).map(|number| format!("{prefix}-{number:05}")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn where_an_entry_of_a_list_is_refused_so_is_what_follows_it_and_nothing_before_or_after() {
    let folder = tempfile::tempdir().expect("a folder");
    let (shard, writer, state) = start(folder.path()).await;
    wallet_with_credits(&shard).await;
    // A megabyte, which the group refuses, and ten commands more, which it would take.
    let note = "x".repeat(1_000);
    let mut one = Vec::new();
    encode_command(&mut one, &debit("long-00000", &note));
    let fill_an_entry = (1 << 20) / (one.len() + ITEM_BYTES) + 1;
    let long = keys("long", fill_an_entry + 10);
    let after = keys("after", 10);
    let before = shard.submit_many(list(&keys("before", 10), &note)).await;

    let (long, after) =
        tokio::join!(shard.submit_many(list(&long, &note)), shard.submit_many(list(&after, &note)));

    assert!(long.iter().all(|outcome| matches!(outcome, Err(ShardError::Failed(_)))), "{:?}", long.last());
    let places: Vec<_> = before.iter().chain(&after).map(applied).collect();
    assert_eq!(places.len(), 20);
    assert!(places.is_sorted());
    shard.group().shutdown().await.expect("the group ends");
    drop((shard, state));
    writer.stop();
}
