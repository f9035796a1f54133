//! One seed, from the empty world to the verdict.
//!
//! A storm of requests and faults; then everything is mended, and each request that has no answer gets
//! one; then all is read; then the power fails everywhere at once, and all is read again. What was
//! seen is checked at the end, and while it happens where it can be.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use madsim::runtime::{Handle, Runtime};
use purser_node::cluster::{NodePlace, ShardMap};
use purser_node::raft::GroupConfig;
use purser_node::simulation::{self, Bug};
use purser_proto::v1;

use crate::blows::{self, Storm, Struck};
use crate::call::{Request, Response};
use crate::check::{self, Counts, Evidence, Last, Listed};
use crate::clocks::Clocks;
use crate::history::History;
use crate::leads;
use crate::lighter::Lighter;
use crate::network::Network;
use crate::observed::{Answered, time};
use crate::operator;
use crate::referee::Referee;
use crate::rows::Scratch;
use crate::seat::Seat;
use crate::setting::{self, Setting};
use crate::timeline::{Event, Place, Tone};
use crate::trace::{Digest, Trace, now};
use crate::workload::{Callers, Client};
use crate::world::{Lie, World};

/// Simulated time after which a run that has not ended never will. Few take more than some minutes, but
/// clocks may be hours ahead.
const SIMULATED_MAX: Duration = Duration::from_hours(6);
/// How often the trace takes a draw of madsim's own randomness: two runs that differ anywhere differ
/// there soon.
const PULSE: Duration = Duration::from_millis(250);
/// How long shards are given to book what is due, before all is read: a clock that was mended may have
/// made much due at once.
const SWEEPS: Duration = Duration::from_secs(5);
/// Movements read at once.
const PAGE: u32 = 1_000;

/// What to run.
#[derive(Clone, Debug)]
pub struct Options {
    /// The seed.
    pub seed: u64,
    /// Where the lines of the trace go, if anybody wants them.
    pub trace: Option<PathBuf>,
    /// A bug to plant.
    pub bug: Option<Bug>,
    /// What is less than the seed says.
    pub lighter: Lighter,
}

/// How it went.
#[derive(Clone, Debug)]
pub struct Report {
    /// The trace of the run.
    pub trace: Digest,
    /// How much time passed in it.
    pub simulated: Duration,
    /// What happened, in order.
    pub events: Vec<Event>,
    /// The world.
    pub world: World,
    /// What happened, and how often; or the promise that was broken.
    pub outcome: Result<Counts, String>,
}

/// Runs a seed and checks what was seen.
pub fn run(options: Options) -> anyhow::Result<Report> {
    let mut world = World { lie: options.bug.map(Lie::Planted), ..World::of(options.seed) };
    options.lighter.lighten(&mut world);
    let (told, simulated, evidence) = gather(world.clone(), options.trace.as_deref())?;
    let outcome = evidence.and_then(|evidence| check::check(&evidence));
    Ok(Report { trace: told.0, simulated, events: told.1, world, outcome })
}

/// What was seen, or the promise that was broken while it was looked at.
pub type Seen = Result<Evidence, String>;

/// Runs a world, on a thread of its own: what other threads did must not matter.
pub fn gather(world: World, trace: Option<&Path>) -> anyhow::Result<((Digest, Vec<Event>), Duration, Seen)> {
    let trace = Arc::new(Trace::new(trace)?);
    let on_thread = Arc::clone(&trace);
    let scratch = Scratch::new();
    let in_run = Arc::clone(&scratch);
    let simulation = std::thread::Builder::new().name(format!("seed-{}", world.seed)).spawn(move || {
        let mut runtime = Runtime::with_seed_and_config(world.seed, madsim::Config::default());
        runtime.set_time_limit(SIMULATED_MAX);
        runtime.block_on(async {
            let seen = simulate(world, on_thread, in_run).await;
            (now(), seen)
        })
    })?;
    let (simulated, seen) = simulation.join().unwrap_or_else(|panic| {
        let what = panic.downcast_ref::<String>().map(String::as_str);
        let what = what.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("for an unknown reason");
        (Duration::ZERO, Err(format!("it panicked: {what}")))
    });
    scratch.remove()?;
    Ok((trace.finish(), simulated, seen))
}

async fn simulate(world: World, trace: Arc<Trace>, scratch: Arc<Scratch>) -> Seen {
    trace.note(format_args!("{world:?}"));
    let referee = Arc::new(Referee::default());
    let network = Network::new(world.seed, world.network.clone(), Arc::clone(&trace));
    tokio::spawn(network.clone().carry());
    tokio::spawn(pulse(Arc::clone(&trace)));
    let history = Arc::new(History::new(Arc::clone(&referee), Arc::clone(&trace)));
    let founding = setting::founding(&world);
    founding.check().expect("worlds make clusters");
    let clocks = Clocks::new(world.nodes);
    let residents = Mutex::new(founding.nodes.iter().map(|node| node.id).collect());
    let bug = match world.lie {
        Some(Lie::Planted(bug)) => Some(bug),
        _ => None,
    };
    simulation::plant(bug);
    let setting = Arc::new(Setting {
        world,
        founding,
        network,
        clocks,
        rotten: AtomicBool::new(false),
        lost: AtomicBool::new(false),
        losses: Mutex::default(),
        residents,
        history,
        referee: Arc::clone(&referee),
        trace,
        scratch,
    });
    tokio::select! {
        biased;
        broken = referee.broken() => Err(broken),
        evidence = tell(setting) => Ok(evidence),
    }
}

async fn pulse(trace: Arc<Trace>) {
    loop {
        tokio::time::sleep(PULSE).await;
        trace.note(format_args!("pulse {:016x}", madsim::rand::random::<u64>()));
    }
}

async fn tell(setting: Arc<Setting>) -> Evidence {
    let map = ShardMap::new(setting.world.shards).expect("worlds have shards");
    let places = setting.founding.nodes.clone();
    let nodes: Vec<Arc<Struck>> = places.into_iter().map(|place| start_node(place, &setting)).collect();
    let callers = Arc::new(Callers::new(Arc::clone(&setting)));

    let machine = Handle::current().create_node().name("callers").build();
    let clients: Vec<_> = (0..setting.world.clients)
        .map(|number| {
            let callers = Arc::clone(&callers);
            machine.spawn(async move { Client::new(number, callers).run().await })
        })
        .collect();
    let callers_ids = (0..setting.world.clients).map(Client::id).collect();
    tokio::spawn(leads::watch(Arc::clone(&setting), nodes.clone()));
    let storm = Storm::new(Arc::clone(&setting), nodes.clone(), callers_ids);
    let storm = tokio::spawn(storm.rage());

    tokio::time::sleep(setting.world.storm).await;
    setting.trace.tell(Place::World, Tone::Good, format_args!("the storm is over"));
    storm.abort();
    callers.end();
    blows::mend(&setting, &nodes).await;
    operator::wait_until_done(&setting).await;
    let mut settled = Vec::new();
    for client in clients {
        let mut client = client.await.expect("a caller's task is not cancelled");
        client.settle().await;
        settled.push(client);
    }
    let reader = &settled[0];
    let serving = nodes.iter().filter(|node| node.seat.node().is_some());
    let serving: Vec<_> = serving.map(|node| (node.seat.id(), node.seat.name.clone())).collect();
    reader.ask_each_of(&serving).await;
    let_sweeps_come(reader, &setting).await;
    let mut last = vec![read_all(reader, &setting).await];
    setting.trace.tell(Place::World, Tone::Blow, format_args!("the power fails everywhere"));
    blows::black_out(&setting, &nodes, setting.world.seed).await;
    let_sweeps_come(reader, &setting).await;
    last.push(read_all(reader, &setting).await);
    let (began_us, clocks) = setting.clocks.told();
    Evidence {
        attempts: callers.attempts(),
        told: callers.all_told(),
        history: setting.history.all(),
        last,
        map,
        began_us,
        clocks,
        homes: setting.homes(),
        clock_bound: Duration::from_millis(GroupConfig::default().clock_bound_ms),
        happened: simulation::happened(),
    }
}

fn start_node(place: NodePlace, setting: &Arc<Setting>) -> Arc<Struck> {
    let seat = Arc::new(Seat::new(place, Arc::clone(setting)));
    let machine = blows::machine_of(Arc::clone(&seat));
    Arc::new(Struck::new(seat, machine))
}

/// Waits until every shard of a customer answers, which a leader does, and then until it has swept.
async fn let_sweeps_come(reader: &Client, setting: &Setting) {
    for number in 0..setting.world.customers {
        let customer = format!("customer-{number}");
        let request = v1::GetBalanceRequest { customer, ..Default::default() };
        response(reader, Request::GetBalance(request)).await;
    }
    tokio::time::sleep(SWEEPS).await;
}

/// Reads everything of every customer.
async fn read_all(reader: &Client, setting: &Setting) -> Vec<Last> {
    let mut all = Vec::new();
    for number in 0..setting.world.customers {
        all.push(read_customer(reader, format!("customer-{number}")).await);
    }
    all
}

async fn read_customer(reader: &Client, customer: String) -> Last {
    let request = v1::AuditRequest { customer: customer.clone(), ..Default::default() };
    let audit = match response(reader, Request::Audit(request)).await {
        Some(Response::Audit(audit)) => audit,
        _ => return Last { customer, movements: Vec::new(), balance: None, audit: None },
    };
    let mut movements = Vec::new();
    for wallet in &audit.wallets {
        movements.push(read_movements(reader, &customer, &wallet.wallet).await);
    }
    let request = v1::GetBalanceRequest { customer: customer.clone(), ..Default::default() };
    let balance = match response(reader, Request::GetBalance(request)).await {
        Some(Response::GetBalance(balance)) => Some(balance),
        _ => None,
    };
    Last { customer, movements, balance, audit: Some(audit) }
}

async fn read_movements(reader: &Client, customer: &str, wallet: &str) -> Listed {
    let mut listed = Listed { wallet: wallet.to_owned(), movements: Vec::new(), read_at: None };
    let mut cursor = String::new();
    loop {
        let request = v1::ListMovementsRequest {
            customer: customer.to_owned(),
            wallet: wallet.to_owned(),
            page: Some(v1::PageRequest { size: PAGE, cursor, order: v1::SortOrder::OldestFirst.into() }),
            ..Default::default()
        };
        let Some(Response::ListMovements(page)) = response(reader, Request::ListMovements(request)).await
        else {
            return listed;
        };
        listed.movements.extend(page.movements);
        listed.read_at = page.point.and_then(|point| time(&point.ledger_time?));
        cursor = page.page.unwrap_or_default().next_cursor;
        if cursor.is_empty() {
            return listed;
        }
    }
}

/// The response to a read; none if it was refused.
async fn response(reader: &Client, request: Request) -> Option<Response> {
    match reader.answer_to(&request).await {
        Answered::Done(response) => Some(*response),
        Answered::Refused(_) | Answered::Unknown(_) => None,
    }
}
