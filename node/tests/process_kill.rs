//! A server that is killed: the binary under a load of concurrent debits, SIGKILL after a seeded
//! number of acknowledgements, and the books after the restart.
//!
//! What must hold, whenever it is killed: each acknowledged debit is in the ledger exactly once, as it
//! was acknowledged; no key is there twice; nothing is there that was not sent; the books add up. A
//! debit without an answer is there once or not at all, and asking again settles it.

mod node_support;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use node_support::{Process, debit_request, movements, reason, tranche};
use purser_proto::v1;
use purser_proto::v1::ledger_client::LedgerClient;
use tonic::transport::Channel;

const CUSTOMER: &str = "loaded";
const WALLET: &str = "main";
const GRANTED: u64 = 1_000_000;
/// Clients at once.
const CLIENTS: u64 = 6;
/// Kills of one story.
const KILLS: u64 = 3;

/// A stream of numbers from a seed (splitmix64, Steele, Lea and Flood 2014).
struct Seeded(u64);

impl Seeded {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }
}

/// A debit that was sent: how much, and the movement that was answered, if an answer came.
#[derive(Clone, Debug)]
struct Sent {
    amount: u64,
    movement: Option<String>,
}

/// What the clients know: every debit sent, by its key.
type Known = BTreeMap<String, Sent>;

fn request(key: &str, amount: u64) -> v1::DebitRequest {
    v1::DebitRequest {
        idempotency_key: key.to_owned(),
        ..debit_request(CUSTOMER, WALLET, &amount.to_string())
    }
}

/// Sends one debit; its movement, or `None` where no answer came.
async fn ask(ledger: &mut LedgerClient<Channel>, key: &str, amount: u64) -> Option<String> {
    match ledger.debit(request(key, amount)).await {
        Ok(answer) => {
            let answer = answer.into_inner();
            assert_eq!(answer.amount, amount.to_string());
            let receipt = answer.receipt.expect("a receipt");
            let [movement] = receipt.movement_ids.as_slice() else {
                panic!("one movement: {receipt:?}");
            };
            Some(movement.clone())
        }
        Err(status) => {
            // No refusal of the ledger is expected; a connection that breaks has no reason.
            let reason = reason(&status);
            assert!(["", "UNAVAILABLE"].contains(&reason.as_str()), "{key}: {status:?}");
            None
        }
    }
}

/// A client: debits under fresh keys, now and then the same key twice at once or an old key again,
/// until no answer comes. `acknowledged` is told of each first answer.
async fn client(
    mut ledger: LedgerClient<Channel>,
    name: String,
    mut dice: Seeded,
    acknowledged: impl Fn(),
) -> Known {
    let mut known = Known::new();
    for number in 0.. {
        let key = format!("{name}-{number}");
        let amount = 1 + dice.below(5);
        known.insert(key.clone(), Sent { amount, movement: None });
        let twice = dice.below(8) == 0;
        let (mut first, mut second) = (ledger.clone(), ledger.clone());
        let (one, two) = tokio::join!(ask(&mut first, &key, amount), async {
            if twice { ask(&mut second, &key, amount).await } else { None }
        });
        if let (Some(one), Some(two)) = (&one, &two) {
            assert_eq!(one, two, "{key} took effect twice");
        }
        let Some(movement) = one.or(two) else { break };
        known.insert(key, Sent { amount, movement: Some(movement) });
        acknowledged();
        if dice.below(6) == 0 {
            let old = usize::try_from(dice.below(known.len() as u64)).expect("small");
            let (key, sent) =
                known.iter().nth(old).map(|(key, sent)| (key.clone(), sent.clone())).expect("one");
            match ask(&mut ledger, &key, sent.amount).await {
                Some(movement) => assert_eq!(Some(movement), sent.movement, "{key} was answered anew"),
                None => break,
            }
        }
    }
    known
}

/// Runs a load against the server until it gives no more answers. With acknowledgement number `at`,
/// `strike` is called.
async fn load(
    server: Process,
    name: &str,
    dice: &mut Seeded,
    at: u64,
    strike: fn(&mut Process),
) -> (Process, Known) {
    let ledger = server.ledger().await;
    let counted = Arc::new(Mutex::new((0u64, server)));
    let mut clients = Vec::new();
    for number in 0..CLIENTS {
        let ledger = ledger.clone();
        let counted = counted.clone();
        let acknowledged = move || {
            let mut counted = counted.lock().expect("whole");
            counted.0 += 1;
            if counted.0 == at {
                strike(&mut counted.1);
            }
        };
        let dice = Seeded(dice.below(u64::MAX));
        clients.push(tokio::spawn(client(ledger, format!("{name}-{number}"), dice, acknowledged)));
    }
    let mut known = Known::new();
    for client in clients {
        known.extend(client.await.expect("a client that ends well"));
    }
    let (acknowledged, server) =
        Arc::into_inner(counted).expect("the clients are gone").into_inner().expect("whole");
    assert!(acknowledged >= at, "the server gave up by itself after {acknowledged}");
    (server, known)
}

/// Compares the ledger with what the clients know.
async fn check(server: &Process, known: &Known) {
    let mut ledger = server.ledger().await;
    let all = movements(&mut ledger, CUSTOMER, WALLET).await;
    let mut booked: BTreeMap<String, (u64, String)> = BTreeMap::new();
    for movement in &all[1..] {
        assert_eq!(movement.r#type(), v1::MovementType::Consumed);
        let amount = movement.amount.strip_prefix('-').expect("a debit").parse().expect("a number");
        let key = movement.idempotency_key.clone();
        let before = booked.insert(key, (amount, movement.movement_id.clone()));
        assert_eq!(before, None, "{} is booked twice", movement.idempotency_key);
    }
    for (key, sent) in known {
        if let Some(movement) = &sent.movement {
            assert_eq!(booked.get(key), Some(&(sent.amount, movement.clone())), "{key} was acknowledged");
        }
    }
    for (key, (amount, _)) in &booked {
        assert_eq!(known.get(key).map(|sent| sent.amount), Some(*amount), "{key} was not sent so");
    }
    let spent: u64 = booked.values().map(|(amount, _)| amount).sum();
    let audit = v1::AuditRequest { customer: CUSTOMER.to_owned(), ..Default::default() };
    let audit = ledger.audit(audit).await.expect("an audit").into_inner();
    assert_eq!(audit.findings, []);
    assert_eq!(audit.wallets[0].movements, all.len() as u64);
    assert_eq!(audit.wallets[0].settled, (GRANTED - spent).to_string());
    let balance = v1::GetBalanceRequest { customer: CUSTOMER.to_owned(), ..Default::default() };
    let balance = ledger.get_balance(balance).await.expect("a balance").into_inner();
    let balance = balance.wallets[0].balance.clone().expect("a balance");
    assert_eq!(balance.available, (GRANTED - spent).to_string());
}

/// Asks again for each debit without an answer; now each has one.
async fn settle(server: &Process, known: &mut Known) {
    let mut ledger = server.ledger().await;
    for (key, sent) in known.iter_mut().filter(|(_, sent)| sent.movement.is_none()) {
        let movement = ask(&mut ledger, key, sent.amount).await;
        assert!(movement.is_some(), "{key} has an answer at last");
        sent.movement = movement;
    }
}

async fn begin(server: &Process) {
    let mut ledger = server.ledger().await;
    ledger.create_wallet(node_support::create_request(CUSTOMER, WALLET, 0)).await.expect("a wallet");
    let tranches = vec![tranche(&GRANTED.to_string(), v1::TrancheKind::Purchased)];
    ledger.grant(node_support::grant_request(CUSTOMER, WALLET, tranches)).await.expect("a grant");
}

async fn killed_and_killed_again(seed: u64) {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data");
    let mut dice = Seeded(seed);
    let mut server = Process::start(&data, &["--shards", "2"]);
    begin(&server).await;
    let mut known = Known::new();
    for kill in 0..KILLS {
        let at = 20 + dice.below(400);
        let (gone, sent) = load(server, &format!("{seed}-{kill}"), &mut dice, at, Process::kill).await;
        drop(gone);
        known.extend(sent);
        server = Process::start(&data, &[]);
        check(&server, &known).await;
        settle(&server, &mut known).await;
        check(&server, &known).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_any_moment_it_comes_back_with_every_acknowledged_debit_once_seed_1() {
    killed_and_killed_again(1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_any_moment_it_comes_back_with_every_acknowledged_debit_once_seed_2() {
    killed_and_killed_again(2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_any_moment_it_comes_back_with_every_acknowledged_debit_once_seed_3() {
    killed_and_killed_again(3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn told_to_stop_under_load_it_ends_well_and_keeps_every_acknowledged_debit() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data");
    let server = Process::start(&data, &["--shards", "2"]);
    begin(&server).await;

    let (mut server, mut known) =
        load(server, "stop", &mut Seeded(4), 200, |server| server.terminate()).await;
    assert_eq!(server.wait(), Some(0));

    let server = Process::start(&data, &[]);
    check(&server, &known).await;
    settle(&server, &mut known).await;
    check(&server, &known).await;
}
