//! `make demo`: the promise, shown. Three nodes, a load of debits through the client, kill -9 of the
//! node that leads most, kill -9 of all three; then every acknowledged debit has to be there, once.
//!
//! The audit trusts nothing that the load saw but its acknowledgements: it reads the movements of every
//! wallet, and asks the ledger about the keys whose outcome nobody knew.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, ensure};
use purser_client::{Outcome, PurserClient};
use purser_proto::v1;
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::nodes::{Nodes, NodesOptions, purser};
use crate::workload::{Draws, Spread, TRANCHE_CREDITS, Wallets, create_request, refill_request};

/// `purser-bench demo`.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Customers, one wallet each
    #[arg(long, default_value_t = 200)]
    customers: u64,
    /// Gateways that debit at the same time
    #[arg(long, default_value_t = 32)]
    gateways: u64,
    /// Seconds of load around each kill
    #[arg(long, default_value_t = 4)]
    seconds: u64,
    /// Of customers and amounts
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// Credits of one refill: 4 tranches.
const REFILL: i128 = 4_000;
/// How long one debit may take, its retries included, before its outcome counts as unknown.
const DEADLINE: Duration = Duration::from_secs(3);
/// Shards of the demo's cluster.
const SHARDS: u16 = 16;

/// What the load was told.
#[derive(Default)]
struct Told {
    /// Acknowledged debits: key, customer and amount.
    acknowledged: Vec<(String, String, i128)>,
    /// Keys of debits denied for good.
    denied: BTreeSet<String>,
    /// Debits without an answer in time.
    unknown: Vec<(v1::DebitRequest, i128)>,
    /// Credits granted by acknowledged grants, by customer; first grants included.
    granted: BTreeMap<String, i128>,
    /// Grants without an answer in time.
    unknown_grants: Vec<v1::GrantRequest>,
    /// When debits were acknowledged, since the beginning.
    moments: Vec<Duration>,
}

fn customer(number: u64) -> String {
    format!("customer-{number}")
}

/// Runs the demo.
pub async fn run(options: &Options) -> anyhow::Result<()> {
    println!(
        "The demo takes about {} seconds. It starts three nodes here, debits through the client, kills",
        4 * options.seconds + 15
    );
    println!(
        "the node that leads most with -9, then all three, and audits what is left. It cleans up after itself.\n"
    );
    step("starting three nodes and founding a cluster of 16 shards with 3 replicas each");
    let (binary, directory) = (purser()?, std::env::temp_dir());
    let mut nodes = Nodes::start(NodesOptions { binary, directory, count: 3, shards: SHARDS }).await?;
    for node in &nodes.nodes {
        println!("   node {} (process {})", node.api, node.pid().unwrap_or(0));
    }
    let client = PurserClient::builder(nodes.urls()).deadline(DEADLINE).connect().await?;

    step(&format!(
        "making {} customers with a wallet and 4 tranches of 1,000 credits each",
        options.customers
    ));
    let told = Arc::new(Mutex::new(Told::default()));
    for number in 0..options.customers {
        fill(&client, &customer(number), &told).await?;
    }

    step(&format!("{} gateways debit", options.gateways));
    let begun = Instant::now();
    let stop = Arc::new(AtomicBool::new(false));
    let applied = Arc::new(AtomicU64::new(0));
    let mut gateways = Vec::new();
    for gateway in 0..options.gateways {
        let (client, told) = (client.clone(), Arc::clone(&told));
        let (stop, applied) = (Arc::clone(&stop), Arc::clone(&applied));
        let (seed, customers) = (options.seed.wrapping_mul(1_000).wrapping_add(gateway), options.customers);
        gateways.push(tokio::spawn(async move {
            let draws = Draws::new(seed);
            load(client, gateway, draws, customers, begun, &stop, &applied, &told).await;
        }));
    }
    let wait = Duration::from_secs(options.seconds);
    tokio::time::sleep(wait).await;
    report(&applied, begun);

    let victim = busiest(&nodes).await?;
    step(&format!("kill -9 of {}, which leads most shards", nodes.nodes[victim].api));
    let killed_at = begun.elapsed();
    nodes.nodes[victim].kill()?;
    tokio::time::sleep(wait).await;
    report(&applied, begun);
    let gap = longest_gap(&told, killed_at, begun.elapsed()).await;
    println!("   longest time without an acknowledged debit, over all shards: {} ms", gap.as_millis());

    step("starting it again");
    nodes.start_again(victim)?;
    nodes.wait_until_led().await?;
    tokio::time::sleep(wait).await;
    report(&applied, begun);

    step("kill -9 of all three");
    let killed_at = begun.elapsed();
    for node in &mut nodes.nodes {
        node.kill()?;
    }
    for node in 0..nodes.nodes.len() {
        nodes.start_again(node)?;
    }
    nodes.wait_until_led().await?;
    println!(
        "   they are back, every shard has a leader after {} ms",
        (begun.elapsed() - killed_at).as_millis()
    );
    tokio::time::sleep(wait).await;
    report(&applied, begun);

    step("stopping the load, and asking about the debits whose outcome nobody knew");
    stop.store(true, Ordering::Relaxed);
    for gateway in gateways {
        gateway.await?;
    }
    let told = Arc::into_inner(told).context("the load has ended")?.into_inner();
    audit(&nodes, &client, options, told).await
}

fn step(what: &str) {
    println!("-> {what}");
}

fn report(applied: &AtomicU64, begun: Instant) {
    let (count, seconds) = (applied.load(Ordering::Relaxed), begun.elapsed().as_secs().max(1));
    println!("   {count} debits acknowledged, {} a second on average", count / seconds);
}

/// A customer's wallet and first credits.
async fn fill(client: &PurserClient, customer: &str, told: &Mutex<Told>) -> anyhow::Result<()> {
    let create = create_request(customer, format!("wallet-{customer}"));
    client.create_wallet(create).await.into_result()?;
    client
        .grant(refill_request(customer, format!("first-{customer}"), TRANCHE_CREDITS))
        .await
        .into_result()?;
    told.lock().await.granted.insert(customer.to_owned(), REFILL);
    Ok(())
}

#[allow(clippy::too_many_arguments)]
async fn load(
    client: PurserClient,
    gateway: u64,
    mut draws: Draws,
    customers: u64,
    begun: Instant,
    stop: &AtomicBool,
    applied: &AtomicU64,
    told: &Mutex<Told>,
) {
    let wallets = Wallets::new(Spread::Uniform, customers);
    for n in 0u64.. {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let (customer, amount) = (customer(draws.wallet(&wallets)), i128::from(draws.amount()));
        let request = v1::DebitRequest {
            customer: customer.clone(),
            idempotency_key: format!("debit-{gateway}-{n}"),
            payer: Some(v1::debit_request::Payer::Wallet("main".to_owned())),
            amount: amount.to_string(),
            ..Default::default()
        };
        let key = request.idempotency_key.clone();
        let outcome = client.debit(request).await;
        let short =
            matches!(&outcome, Outcome::Denied(denial) if denial.reason == v1::Reason::InsufficientCredits);
        {
            let mut told = told.lock().await;
            match outcome {
                Outcome::Applied(_) => {
                    applied.fetch_add(1, Ordering::Relaxed);
                    told.acknowledged.push((key, customer.clone(), amount));
                    told.moments.push(begun.elapsed());
                }
                Outcome::Denied(_) => drop(told.denied.insert(key)),
                Outcome::Unknown(unknown) => told.unknown.push((unknown.request, amount)),
            }
        }
        if short {
            let refill = refill_request(&customer, format!("refill-{gateway}-{n}"), TRANCHE_CREDITS);
            match client.grant(refill).await {
                Outcome::Applied(_) => {
                    *told.lock().await.granted.entry(customer).or_default() += REFILL;
                }
                Outcome::Denied(_) => {}
                Outcome::Unknown(unknown) => told.lock().await.unknown_grants.push(unknown.request),
            }
        }
    }
}

/// The node that leads most shards.
async fn busiest(nodes: &Nodes) -> anyhow::Result<usize> {
    let status = nodes.status().await.context("no node tells the cluster's state")?;
    let leads = |api: &str| {
        let of = |node: &&v1::NodeStatus| node.place.as_ref().is_some_and(|place| place.api_address == api);
        status.nodes.iter().find(of).map_or(0, |node| node.leads)
    };
    let most = (0..nodes.nodes.len()).max_by_key(|node| leads(&nodes.nodes[*node].api));
    most.context("there are nodes")
}

/// The longest time between two acknowledgements within a span.
async fn longest_gap(told: &Mutex<Told>, from: Duration, until: Duration) -> Duration {
    let mut moments: Vec<Duration> =
        told.lock().await.moments.iter().copied().filter(|at| (from..until).contains(at)).collect();
    moments.push(from);
    moments.push(until);
    moments.sort_unstable();
    moments.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or_default()
}

/// One debit as a wallet's books have it.
struct Booked {
    amount: i128,
    times: u32,
}

async fn audit(nodes: &Nodes, client: &PurserClient, options: &Options, told: Told) -> anyhow::Result<()> {
    let Told { acknowledged, denied, unknown, mut granted, unknown_grants, .. } = told;
    let mut expected: BTreeMap<String, (String, i128)> = BTreeMap::new();
    for (key, customer, amount) in &acknowledged {
        expected.insert(key.clone(), (customer.clone(), *amount));
    }
    let mut settled = [0u64; 2];
    for (request, amount) in unknown {
        let (key, customer) = (request.idempotency_key.clone(), request.customer.clone());
        match client.resolve(request).await {
            Outcome::Applied(_) => {
                expected.insert(key, (customer, amount));
                settled[0] += 1;
            }
            Outcome::Denied(_) => settled[1] += 1,
            Outcome::Unknown(unknown) => {
                anyhow::bail!("the outcome of {} is still unknown: {:?}", unknown.key(), unknown.cause)
            }
        }
    }
    println!(
        "   of {} unknown outcomes {} were applied, {} were not",
        settled[0] + settled[1],
        settled[0],
        settled[1]
    );
    for request in unknown_grants {
        let customer = request.customer.clone();
        if let Outcome::Applied(_) = client.resolve(request).await {
            *granted.entry(customer).or_default() += REFILL;
        }
    }

    step("auditing every wallet against the acknowledgements");
    let mut booked_in_all = 0u64;
    let mut faults = Vec::new();
    for number in 0..options.customers {
        let customer = customer(number);
        let books = books(client, &customer).await?;
        for (key, booked) in &books {
            booked_in_all += 1;
            match expected.remove(key) {
                Some((whose, amount))
                    if whose == customer && amount == booked.amount && booked.times == 1 => {}
                Some(_) => {
                    faults.push(format!("{key} of {customer}: {} times, {}", booked.times, booked.amount))
                }
                None if denied.contains(key) => {
                    faults.push(format!("{key} of {customer} was denied, and booked all the same"));
                }
                None => faults.push(format!("{key} of {customer} was booked, and nobody was told")),
            }
        }
        let spent: i128 = books.values().map(|booked| booked.amount * i128::from(booked.times)).sum();
        let available = available(client, &customer).await?;
        let credits = granted.get(&customer).copied().unwrap_or(0);
        if credits - spent != available {
            faults.push(format!("{customer}: {credits} granted, {spent} spent, {available} left"));
        }
        let audit =
            client.audit(v1::AuditRequest { customer: customer.clone(), ..Default::default() }).await?;
        faults.extend(audit.findings.iter().map(|finding| format!("{customer}: {finding:?}")));
    }
    faults.extend(expected.keys().map(|key| format!("{key} was acknowledged and is lost")));
    ensure!(faults.is_empty(), "THE BOOKS DO NOT ADD UP:\n{}", faults.join("\n"));
    println!("   {booked_in_all} debits booked: each acknowledged one is there once, and no other");
    println!(
        "   granted - spent = available in all {} wallets; hash chains and sums verify",
        options.customers
    );

    step("comparing the replicas' digests");
    ensure!(nodes.digests_agree().await?, "the replicas of a shard differ: see `purser cluster status`");
    println!(
        "   the three replicas of all {SHARDS} shards agree\n\nNothing was lost, nothing was spent twice."
    );
    Ok(())
}

/// The debits in a wallet's books, by key.
async fn books(client: &PurserClient, customer: &str) -> anyhow::Result<BTreeMap<String, Booked>> {
    let mut books: BTreeMap<String, Booked> = BTreeMap::new();
    let mut cursor = String::new();
    loop {
        let page = v1::PageRequest { size: 1_000, cursor, order: v1::SortOrder::OldestFirst.into() };
        let request = v1::ListMovementsRequest {
            customer: customer.to_owned(),
            wallet: "main".to_owned(),
            page: Some(page),
            ..Default::default()
        };
        let answer = client.list_movements(request).await?;
        for movement in answer.movements {
            if movement.r#type() == v1::MovementType::Consumed {
                let amount: i128 = movement.amount.parse().context("a whole amount")?;
                let entry =
                    books.entry(movement.idempotency_key).or_insert(Booked { amount: -amount, times: 0 });
                entry.times += 1;
            }
        }
        cursor = answer.page.map(|page| page.next_cursor).unwrap_or_default();
        if cursor.is_empty() {
            return Ok(books);
        }
    }
}

async fn available(client: &PurserClient, customer: &str) -> anyhow::Result<i128> {
    let request = v1::GetBalanceRequest {
        customer: customer.to_owned(),
        wallet: "main".to_owned(),
        ..Default::default()
    };
    let answer = client.get_balance(request).await?;
    let balance = answer.wallets.first().and_then(|wallet| wallet.balance.as_ref());
    balance.context("a balance")?.available.parse().context("a whole amount")
}
