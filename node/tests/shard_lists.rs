//! Stories of commands in a shard's batcher, below the API.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use purser_ledger::amount::{Asset, Decimal};
use purser_ledger::command::{
    BurnPolicy, ChargeScope, Command, CreateWallet, Debit, Expiry, Grant, Header, Operation, Payer,
    TrancheKind, TrancheSpec, encode_command,
};
use purser_ledger::ids::Customer;
use purser_ledger::store::LocalDamage;
use purser_ledger::time::{Span, Time};
use purser_ledger::verdict::{Reply, Verdict};
use purser_node::clock::Clock;
use purser_node::cluster::NodeId;
use purser_node::log::{self, GroupId, LogOptions, LogWriter, RealDisk};
use purser_node::peer::{Answer, CallError, Transport};
use purser_node::raft::{
    Group, GroupConfig, GroupOptions, LedgerMachine, Machine, Network, Outcome as Judged, ReplicaId,
    Whereabouts,
};
use purser_node::room::Room;
use purser_node::shard::{CommandList, Outcome, Shard, ShardError, ShardId, Sweeping};
use purser_node::storage::{ShardStore, StateStore, StoreOptions};

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

    fn is_replaced(&self, _group: GroupId, _replica: ReplicaId) -> bool {
        false
    }
}

/// A shard whose group takes no entry above 64 KiB, though the batcher makes entries of a megabyte.
async fn start(directory: &Path, machine: Arc<dyn Machine>) -> (Shard, LogWriter, StateStore) {
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
        machine,
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
        pending: false,
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
    let (shard, writer, state) = start(folder.path(), Arc::new(LedgerMachine::new(0))).await;
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

/// The ledger, which judges nothing while its gate is shut.
struct Gated {
    ledger: LedgerMachine,
    gate: Arc<Gate>,
}

#[derive(Default)]
struct Gate {
    shut: Mutex<bool>,
    opened: Condvar,
}

impl Gate {
    fn set(&self, shut: bool) {
        *self.shut.lock().expect("the gate") = shut;
        self.opened.notify_all();
    }
}

impl Machine for Gated {
    fn apply(&self, rows: &ShardStore, entry: &[u8]) -> Result<Judged, LocalDamage> {
        let shut = self.gate.shut.lock().expect("the gate");
        drop(self.gate.opened.wait_while(shut, |shut| *shut));
        self.ledger.apply(rows, entry)
    }

    fn stamp(&self, entry: &[u8]) -> Option<Time> {
        self.ledger.stamp(entry)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn commands_that_come_while_an_entry_is_under_way_share_the_next_one() {
    let folder = tempfile::tempdir().expect("a folder");
    let gate = Arc::new(Gate::default());
    let gated = Gated { ledger: LedgerMachine::new(0), gate: Arc::clone(&gate) };
    let (shard, writer, state) = start(folder.path(), Arc::new(gated)).await;
    wallet_with_credits(&shard).await;
    let submit = |key: &str| {
        let (shard, key) = (shard.clone(), key.to_owned());
        let mut answer = Box::pin(async move { shard.submit(&debit(&key, "")).await });
        assert!(answer.as_mut().now_or_never().is_none(), "it waits in the queue");
        answer
    };
    let last_index = || shard.group().metrics().last_index;

    gate.set(true);
    let before = last_index();
    let mut answers = vec![submit("first")];
    while last_index() == before {
        tokio::task::yield_now().await;
    }
    for key in keys("later", 3) {
        answers.push(submit(&key));
        // Time for the batcher to take it out of the queue before the next one comes.
        (0..1_000).for_each(|_| std::thread::yield_now());
    }
    gate.set(false);
    let places: Vec<_> = futures_util::future::join_all(answers).await.iter().map(applied).collect();

    let (first, _) = places[0];
    assert_eq!(places, [(first, 0), (first + 1, 0), (first + 1, 1), (first + 1, 2)]);
    shard.group().shutdown().await.expect("the group ends");
    drop((shard, state));
    writer.stop();
}
