//! The ledger in PostgreSQL as a target of the load: a pool of connections with prepared statements.
//!
//! A call takes the connection that has been free for the shortest time, and waits where none is. Of many
//! calls on one wallet a few go to PostgreSQL, the others wait here, before they take a connection:
//! transactions that wait for a row's lock are dear, and hold connections that others could use. A batch
//! is cut by customer into lanes, each a transaction of its own, for the same reason: parts of different
//! lanes never name the same wallet.

use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use anyhow::Context;
use futures_util::future::try_join_all;
use purser_proto::v1;
use serde::Serialize;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio_postgres::error::SqlState;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Config, NoTls, Row, Statement};

use super::cluster::told;
use crate::run::target::{Debit, Target, Verdict};
use crate::workload;

/// How often a transaction is tried that another one was in the way of. The second try finds what the
/// other has done.
const TRIES_MAX: u32 = 10;
/// Gates that calls on one wallet pass. Two wallets share one now and then.
const GATES: usize = 4_096;
/// Parts of batches that are through a lane's gate at once: while one commits, the next waits where it
/// can go on at once.
const THROUGH_A_LANE_MAX: usize = 3;
/// A receipt, in columns.
const RECEIPT: &str = "outcome, replayed, movement, balance, tranches, drawn, left_over";
/// The name of every wallet.
const WALLET: &str = "main";

/// What PostgreSQL has to say of a debit or a grant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// What came of it.
    pub outcome: Outcome,
    /// Whether this is the answer of an earlier call.
    pub replayed: bool,
    /// The number of the movement in its wallet.
    pub movement: Option<i64>,
    /// What is in the wallet.
    pub balance: Option<i64>,
    /// What was drawn, in burn order.
    pub draws: Vec<Draw>,
}

/// What came of a debit or a grant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was done.
    Applied,
    /// There was too little.
    Short,
    /// There is no such wallet.
    NoWallet,
    /// The key was used for another request.
    KeyReused,
}

/// A part of a debit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Draw {
    /// Of which tranche: the first of a wallet is 1.
    pub tranche: i32,
    /// How much.
    pub amount: i64,
    /// What is left of it.
    pub left: i64,
}

impl Receipt {
    fn of(row: &Row) -> anyhow::Result<Receipt> {
        let outcome = match row.try_get::<_, i8>(0)? as u8 {
            b'A' => Outcome::Applied,
            b'I' => Outcome::Short,
            b'N' => Outcome::NoWallet,
            b'R' => Outcome::KeyReused,
            other => anyhow::bail!("PostgreSQL answers {}", char::from(other)),
        };
        let tranches: Vec<i32> = row.try_get::<_, Option<_>>(4)?.unwrap_or_default();
        let drawn: Vec<i64> = row.try_get::<_, Option<_>>(5)?.unwrap_or_default();
        let left: Vec<i64> = row.try_get::<_, Option<_>>(6)?.unwrap_or_default();
        anyhow::ensure!(tranches.len() == drawn.len() && drawn.len() == left.len(), "draws of three lengths");
        let draws = tranches.into_iter().zip(drawn).zip(left);
        Ok(Receipt {
            outcome,
            replayed: row.try_get::<_, Option<bool>>(1)?.unwrap_or_default(),
            movement: row.try_get(2)?,
            balance: row.try_get(3)?,
            draws: draws.map(|((tranche, amount), left)| Draw { tranche, amount, left }).collect(),
        })
    }

    fn verdict(&self) -> anyhow::Result<Verdict> {
        match self.outcome {
            Outcome::Applied => Ok(Verdict::Applied),
            Outcome::Short => Ok(Verdict::Short),
            other => anyhow::bail!("a debit was refused: {other:?}"),
        }
    }
}

/// How PostgreSQL is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Pool {
    /// Connections.
    pub connections: usize,
    /// Calls on one wallet that are let in at once.
    pub per_wallet: usize,
    /// Transactions of one batch.
    pub lanes: usize,
}

/// One connection, with everything prepared.
struct Connection {
    client: Client,
    create: Statement,
    grant: Statement,
    debit: Statement,
    debit_batch: Statement,
    available: Statement,
}

impl Connection {
    async fn open(config: &Config) -> anyhow::Result<Connection> {
        let (client, connection) = config.connect(NoTls).await?;
        tokio::spawn(connection);
        let prepare = async |query: String| client.prepare(&query).await.map_err(told);
        Ok(Connection {
            create: prepare("SELECT create_wallet($1, $2)".to_owned()).await?,
            grant: prepare(format!("SELECT {RECEIPT} FROM grant_tranches($1, $2, $3, $4, $5, $6, $7)"))
                .await?,
            debit: prepare(format!("SELECT {RECEIPT} FROM debit($1, $2, $3, $4)")).await?,
            debit_batch: prepare(format!("SELECT {RECEIPT} FROM debit_batch($1, $2, $3, $4)")).await?,
            available: prepare("SELECT available_to($1)".to_owned()).await?,
            client,
        })
    }
}

/// The ledger in PostgreSQL. Clones share connections.
#[derive(Clone)]
pub struct Ledger {
    shared: Arc<Shared>,
}

struct Shared {
    free: Mutex<Vec<Connection>>,
    /// As many places as there are free connections.
    places: Semaphore,
    gates: Vec<Gate>,
    lanes: Vec<Gate>,
    retries: AtomicU64,
}

/// Lets a few calls through at a time.
type Gate = Semaphore;

impl Ledger {
    /// Opens connections.
    pub async fn connect(config: &Config, pool: Pool) -> anyhow::Result<Ledger> {
        let mut free = Vec::new();
        for _ in 0..pool.connections {
            free.push(Connection::open(config).await?);
        }
        let gates = |count, through_max| (0..count).map(|_| Gate::new(through_max)).collect();
        let shared = Shared {
            free: Mutex::new(free),
            places: Semaphore::new(pool.connections),
            gates: gates(GATES, pool.per_wallet.max(1)),
            lanes: gates(pool.lanes.max(1), THROUGH_A_LANE_MAX),
            retries: AtomicU64::new(0),
        };
        Ok(Ledger { shared: Arc::new(shared) })
    }

    async fn connection(&self) -> anyhow::Result<Lent<'_>> {
        let place = self.shared.places.acquire().await?;
        let mut free = self.shared.free.lock().unwrap_or_else(PoisonError::into_inner);
        let connection = free.pop().context("a place without a connection")?;
        Ok(Lent { connection: Some(connection), shared: &self.shared, _place: place })
    }

    /// Runs one of the prepared statements until no other transaction was in the way.
    async fn run(
        &self,
        gate: &Gate,
        statement: impl Fn(&Connection) -> &Statement,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> anyhow::Result<Vec<Row>> {
        let _through = gate.acquire().await?;
        let lent = self.connection().await?;
        let connection = lent.connection.as_ref().context("a connection that was given back")?;
        let mut tries = 1;
        loop {
            match connection.client.query(statement(connection), parameters).await {
                Err(error) if tries < TRIES_MAX && may_be_tried_again(&error) => {
                    self.shared.retries.fetch_add(1, Ordering::Relaxed);
                    tries += 1;
                }
                answer => return answer.map_err(told),
            }
        }
    }

    /// Debits, with all that there is to say of it.
    pub async fn debited(&self, debit: &Debit) -> anyhow::Result<Receipt> {
        let amount = i64::try_from(debit.amount)?;
        let rows = self
            .run(
                self.gate(&debit.customer),
                |own| &own.debit,
                &[&debit.customer, &WALLET, &debit.key, &amount],
            )
            .await?;
        Receipt::of(rows.first().context("a receipt")?)
    }

    /// Debits in one transaction, in this order, with all that there is to say of each.
    #[cfg(test)]
    pub async fn debited_together(&self, debits: &[Debit]) -> anyhow::Result<Vec<Receipt>> {
        self.debited_in(&Gate::new(1), debits).await
    }

    async fn debited_in(&self, gate: &Gate, debits: &[Debit]) -> anyhow::Result<Vec<Receipt>> {
        let customers: Vec<_> = debits.iter().map(|debit| debit.customer.as_str()).collect();
        let keys: Vec<_> = debits.iter().map(|debit| debit.key.as_str()).collect();
        let amounts = debits.iter().map(|debit| i64::try_from(debit.amount));
        let amounts: Vec<_> = amounts.collect::<Result<_, _>>()?;
        let wallets = vec![WALLET; debits.len()];
        let rows = self.run(gate, |own| &own.debit_batch, &[&customers, &wallets, &keys, &amounts]).await?;
        anyhow::ensure!(rows.len() == debits.len(), "as many receipts as debits");
        rows.iter().map(Receipt::of).collect()
    }

    /// Grants the tranches of a request.
    pub async fn granted(&self, request: &v1::GrantRequest) -> anyhow::Result<Receipt> {
        let (mut amounts, mut priorities) = (Vec::<i64>::new(), Vec::<i16>::new());
        let (mut kinds, mut expiries) = (Vec::<i16>::new(), Vec::new());
        for tranche in &request.tranches {
            amounts.push(tranche.amount.parse()?);
            priorities.push(tranche.priority.context("a priority")?.try_into()?);
            // The contract numbers kinds in burn order.
            kinds.push(tranche.kind.try_into()?);
            expiries.push(expiry(tranche)?);
        }
        let (customer, key) = (&request.customer, &request.idempotency_key);
        let rows = self
            .run(
                self.gate(customer),
                |own| &own.grant,
                &[customer, &WALLET, key, &amounts, &priorities, &kinds, &expiries],
            )
            .await?;
        Receipt::of(rows.first().context("a receipt")?)
    }

    fn gate(&self, customer: &str) -> &Gate {
        &self.shared.gates[place_of(customer, GATES)]
    }
}

/// The same one of so many places for the same customer.
fn place_of(customer: &str, places: usize) -> usize {
    let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(customer);
    (hash % places as u64) as usize
}

/// A connection that goes back where it came from, also when the call is given up.
struct Lent<'a> {
    connection: Option<Connection>,
    shared: &'a Shared,
    // Given up after the connection is back.
    _place: SemaphorePermit<'a>,
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        let mut free = self.shared.free.lock().unwrap_or_else(PoisonError::into_inner);
        free.extend(self.connection.take());
    }
}

/// When a tranche expires, as PostgreSQL takes it.
fn expiry(tranche: &v1::TrancheSpec) -> anyhow::Result<Expiry> {
    match &tranche.expiry {
        None => Ok(Expiry::PosInfinity),
        Some(v1::tranche_spec::Expiry::ExpiresAt(at)) => {
            let since = Duration::new(at.seconds.try_into()?, at.nanos.try_into()?);
            Ok(Expiry::Value(SystemTime::UNIX_EPOCH + since))
        }
        Some(other) => anyhow::bail!("no such expiry here: {other:?}"),
    }
}

type Expiry = tokio_postgres::types::Timestamp<SystemTime>;

/// Two calls under one key at the same moment, or a circle of locks: it took no effect.
fn may_be_tried_again(error: &tokio_postgres::Error) -> bool {
    let again =
        [SqlState::UNIQUE_VIOLATION, SqlState::T_R_DEADLOCK_DETECTED, SqlState::T_R_SERIALIZATION_FAILURE];
    error.code().is_some_and(|code| again.contains(code))
}

impl Target for Ledger {
    fn client(&self, _number: usize) -> Ledger {
        self.clone()
    }

    async fn create(&self, customer: &str, _key: String) -> anyhow::Result<()> {
        self.run(self.gate(customer), |own| &own.create, &[&customer, &WALLET]).await?;
        Ok(())
    }

    async fn grant(&self, customer: &str, key: String, tranche_credits: u64) -> anyhow::Result<()> {
        let receipt = self.granted(&workload::refill_request(customer, key, tranche_credits)).await?;
        anyhow::ensure!(receipt.outcome == Outcome::Applied, "a grant was refused: {receipt:?}");
        Ok(())
    }

    async fn debit(&self, debit: Debit) -> anyhow::Result<Verdict> {
        self.debited(&debit).await?.verdict()
    }

    async fn debit_batch(&self, debits: Vec<Debit>) -> anyhow::Result<Vec<Verdict>> {
        let mut lanes: Vec<_> = self.shared.lanes.iter().map(|gate| (gate, Vec::new(), Vec::new())).collect();
        let lane_count = lanes.len();
        let count = debits.len();
        for (place, debit) in debits.into_iter().enumerate() {
            let (_, places, part) = &mut lanes[place_of(&debit.customer, lane_count)];
            places.push(place);
            part.push(debit);
        }
        lanes.retain(|(_, places, _)| !places.is_empty());
        let parts = try_join_all(lanes.iter().map(|(gate, _, part)| self.debited_in(gate, part))).await?;
        let mut verdicts = vec![None; count];
        for ((_, places, _), receipts) in lanes.iter().zip(parts) {
            for (place, receipt) in places.iter().zip(receipts) {
                verdicts[*place] = Some(receipt.verdict()?);
            }
        }
        verdicts.into_iter().collect::<Option<_>>().context("a verdict for each debit")
    }

    async fn available(&self, customer: &str) -> anyhow::Result<u64> {
        let rows = self.run(&Gate::new(1), |own| &own.available, &[&customer]).await?;
        let available: i64 = rows.first().context("a balance")?.try_get(0)?;
        Ok(available.try_into()?)
    }

    fn retries(&self) -> u64 {
        self.shared.retries.load(Ordering::Relaxed)
    }
}
