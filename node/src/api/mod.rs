//! The API: requests in, judged by their shard, answers out.
//!
//! ```text
//!   request --> commands (shape, what only a leader resolves) --> Shard::submit --> render / refusal
//!           --> reads                                         --> Shard::read   --> render / refusal
//! ```
//! A call about a shard that another node leads is handed on there ([`forward`]).
//!
//! [`Api`] holds plain functions over the messages of the contract; the gRPC services in `service`
//! only unwrap requests and wrap responses, so that the simulation runs the same code.

pub mod batch;
mod batched;
pub mod cluster;
pub mod commands;
mod corrections;
pub mod forward;
mod grants;
mod holds;
pub mod methods;
pub mod page;
pub mod reads;
pub mod refusal;
pub mod render;
pub mod replace;
#[cfg(not(madsim))]
pub mod service;
pub mod shape;
pub mod stream;
mod wallets;

use std::collections::BTreeMap;
use std::sync::Arc;

use purser_ledger::amount::Decimal;
use purser_ledger::command::{
    Adjust, Capture, Change, Command, Debit, ExtendHold, Operation, Payer, Refund, Release,
};
use purser_ledger::ids::{Customer, HoldId, TrancheId};
use purser_ledger::time::{Span, Time};
use purser_ledger::verdict::{Applied, Effect, Reply, Verdict, WalletInfo};
use purser_proto::v1;
use tokio::sync::Semaphore;
use tonic::Status;

use crate::clock::{Clock, ClockError};
use crate::cluster::{Cluster, ShardMap, group_of};
use crate::peer::Transport;
use crate::shard::{Outcome, Placed, ReadPoint, Shard, ShardError, ShardId, Witness};
use crate::storage::ShardView;
use forward::UNDER_WAY_MAX;
use reads::AUDITS_MAX;
use refusal::{Pairs, malformed, refuse};
use stream::Drain;
use v1::ReceiptDetail::Full;

/// The API of one node.
#[derive(Clone)]
pub struct Api {
    shards: Arc<BTreeMap<ShardId, Shard>>,
    map: ShardMap,
    clock: Arc<Clock>,
    cluster: Arc<Cluster>,
    peers: Arc<dyn Transport>,
    handing_on: Arc<Semaphore>,
    audits: Arc<Semaphore>,
    drain: Arc<Drain>,
}

/// A write that took effect, now or before.
struct Written {
    applied: Applied,
    witness: Witness,
    replayed: bool,
}

impl Written {
    fn receipt(&self, detail: v1::ReceiptDetail) -> Option<v1::Receipt> {
        Some(render::receipt_in(detail, &self.applied, &self.witness, self.replayed))
    }

    fn debited(&self, detail: v1::ReceiptDetail) -> v1::DebitResponse {
        render::debit(&self.applied, &self.witness, self.replayed, detail)
    }

    fn wallet(&self) -> Result<&WalletInfo, Status> {
        match &self.applied.effect {
            Effect::Wallet(info) => Ok(info),
            Effect::Posted { .. } => Err(of_another_sort()),
        }
    }
}

impl Api {
    /// An API over the shards that have a replica on a node.
    pub fn new(
        shards: Arc<BTreeMap<ShardId, Shard>>,
        clock: Arc<Clock>,
        cluster: Arc<Cluster>,
        peers: Arc<dyn Transport>,
    ) -> Api {
        let map = cluster.founding().map();
        let handing_on = Arc::new(Semaphore::new(UNDER_WAY_MAX));
        let audits = Arc::new(Semaphore::new(AUDITS_MAX));
        Api { shards, map, clock, cluster, peers, handing_on, audits, drain: Arc::default() }
    }

    /// The node is going away: streams take nothing more in, finish what is under way, and end.
    pub fn drain(&self) {
        self.drain.begin();
    }

    /// The customer's shard, if this node leads it, as far as it knows.
    fn shard_of(&self, customer: Customer<'_>) -> Result<&Shard, Status> {
        self.shard(self.map.shard_of(customer))
    }

    /// A shard, if this node leads it, as far as it knows.
    fn shard(&self, id: ShardId) -> Result<&Shard, Status> {
        let shard = self.shards.get(&id).filter(|shard| shard.group().is_leader());
        shard.ok_or_else(|| self.unserved(id, ShardError::NotLeader))
    }

    /// Why a shard gave no answer; where another node leads, which.
    fn unserved(&self, shard: ShardId, error: ShardError) -> Status {
        if error != ShardError::NotLeader {
            return refusal::from_shard(error);
        }
        let state = self.cluster.state();
        let mut pairs = Pairs::from([
            ("shard".to_owned(), shard.to_string()),
            ("epoch".to_owned(), state.epoch.to_string()),
        ]);
        let leading = self.cluster.leading(group_of(shard)).filter(|own| own.node != self.cluster.own());
        if let Some((leading, node)) = leading.and_then(|own| Some((own, state.nodes.get(&own.node)?))) {
            pairs.insert("leader".to_owned(), node.api_address.clone());
            pairs.insert("term".to_owned(), leading.term.to_string());
        }
        refusal::not_leader(pairs)
    }

    /// A linearizable look at a customer's shard.
    async fn read(&self, customer: Customer<'_>) -> Result<(ReadPoint, ShardView), Status> {
        let shard = self.shard_of(customer)?;
        shard.read().await.map_err(|error| self.unserved(shard.id(), error))
    }

    async fn write(&self, command: Command<'_>) -> Result<Written, Status> {
        let shard = self.shard_of(command.header.customer)?;
        let placed = shard.submit(&command).await;
        self.written(shard.id(), placed, &command)
    }

    /// What came of a command, as its caller is told it.
    fn written(&self, shard: ShardId, outcome: Outcome, command: &Command<'_>) -> Result<Written, Status> {
        let Placed { witness, reply } = outcome.map_err(|error| self.unserved(shard, error))?;
        match reply {
            Reply::Verdict { replayed, verdict: Verdict::Applied(applied) } => {
                Ok(Written { applied, witness, replayed })
            }
            Reply::Verdict { replayed, verdict: Verdict::Denied(denial) } => {
                Err(refusal::denied(&denial, &pairs_of(command), &witness, replayed))
            }
            Reply::KeyReused => Err(refuse(
                "IDEMPOTENCY_KEY_REUSED",
                "this key was used for another request; nothing changed",
                Pairs::new(),
            )),
            Reply::KeyTooOld => {
                let valid_until = shape::rfc3339(command.header.valid_until);
                Err(refuse(
                    "KEY_TOO_OLD",
                    format!("the command came after its valid_until ({valid_until}); it took no effect"),
                    Pairs::from([("valid_until".to_owned(), valid_until)]),
                ))
            }
            Reply::Backlog => Err(refusal::unavailable(
                "more is due in this wallet than one command books; it is being booked: \
                 try again with the same key",
            )),
            Reply::Fault(what) => Err(refuse(
                "CUSTOMER_QUARANTINED",
                format!("an invariant failed ({what}); nothing of the command was kept"),
                Pairs::from([("customer".to_owned(), command.header.customer.id.to_owned())]),
            )),
            Reply::Swept { .. } => Err(refuse("INTERNAL", "a sweep's answer came to a caller", Pairs::new())),
        }
    }

    /// Debits.
    pub async fn debit(&self, request: &v1::DebitRequest) -> Result<v1::DebitResponse, Status> {
        let command = commands::debit(request, self.clock.now()).map_err(malformed)?;
        let written = self.write(command).await?;
        Ok(written.debited(Full))
    }

    /// The clock's state.
    pub fn clock(&self) -> v1::GetClockResponse {
        let now = Some(shape::timestamp(self.clock.now()));
        v1::GetClockResponse { now, test_clock: self.clock.is_test() }
    }

    /// Moves the test clock.
    pub fn advance_clock(
        &self,
        request: &v1::AdvanceClockRequest,
    ) -> Result<v1::AdvanceClockResponse, Status> {
        use v1::advance_clock_request::To;
        let moved = match &request.to {
            None => return Err(refusal::malformed_field("to", "required: set or advance")),
            Some(To::Set(stamp)) => {
                let mut shape = shape::Shape::new();
                let time = shape.time("set", stamp);
                self.clock.set(shape.finish(time).map_err(malformed)?)
            }
            Some(To::Advance(span)) => self.clock.advance(span_of(span)?),
        };
        match moved {
            Ok(now) => Ok(v1::AdvanceClockResponse { now: Some(shape::timestamp(now)) }),
            Err(error @ ClockError::NotATestClock) => {
                Err(refuse("TEST_CLOCK_OFF", error.to_string(), Pairs::new()))
            }
            Err(error) => Err(refusal::malformed_field("to", &error.to_string())),
        }
    }
}

/// A command of one kind is remembered with an effect of that kind.
fn of_another_sort() -> Status {
    refuse("INTERNAL", "the stored answer is of another sort", Pairs::new())
}

fn span_of(span: &prost_types::Duration) -> Result<Span, Status> {
    let micros = shape::micros_of(span).filter(|micros| (1..=Time::LATEST.0).contains(micros));
    micros.map(Span).ok_or_else(|| refusal::malformed_field("advance", "must be above zero"))
}

fn pairs_of_wallet(customer: Customer<'_>, wallet: &str) -> Pairs {
    Pairs::from([("customer".to_owned(), customer.id.to_owned()), ("wallet".to_owned(), wallet.to_owned())])
}

/// What a refusal of a command names for a program.
fn pairs_of(command: &Command<'_>) -> Pairs {
    let customer = command.header.customer;
    match &command.operation {
        Operation::CreateWallet(create) => pairs_of_wallet(customer, create.wallet),
        Operation::FreezeWallet(freeze) => pairs_of_wallet(customer, freeze.wallet),
        Operation::UpdateWallet(update) => pairs_of_wallet(customer, update.wallet),
        Operation::CloseWallet(close) => pairs_of_wallet(customer, close.wallet),
        Operation::Grant(grant) => pairs_of_wallet(customer, grant.wallet),
        Operation::ConfirmGrant(confirm) => pairs_of_tranche(customer, confirm.wallet, confirm.tranche),
        Operation::EndGrant(end) => pairs_of_tranche(customer, end.wallet, end.tranche),
        Operation::Refund(refund) => pairs_of_refund(customer, refund),
        Operation::Adjust(adjust) => pairs_of_correction(customer, adjust),
        Operation::Debit(debit) => pairs_of_payer(customer, debit.payer, debit.amount),
        Operation::Hold(hold) => pairs_of_payer(customer, hold.payer, hold.amount),
        Operation::ExtendHold(ExtendHold { hold, .. })
        | Operation::Release(Release { hold, .. })
        | Operation::Capture(Capture { hold, amount: None, .. }) => pairs_of_hold(customer, *hold),
        Operation::Capture(Capture { hold, amount: Some(amount), .. }) => {
            let mut pairs = pairs_of_hold(customer, *hold);
            pairs.insert("amount".to_owned(), amount.to_string());
            pairs
        }
    }
}

fn pairs_of_hold(customer: Customer<'_>, hold: HoldId) -> Pairs {
    Pairs::from([("customer".to_owned(), customer.id.to_owned()), ("hold".to_owned(), hold.to_string())])
}

fn pairs_of_tranche(customer: Customer<'_>, wallet: &str, tranche: TrancheId) -> Pairs {
    let mut pairs = pairs_of_wallet(customer, wallet);
    pairs.insert("tranche".to_owned(), tranche.to_string());
    pairs
}

fn pairs_of_refund(customer: Customer<'_>, refund: &Refund<'_>) -> Pairs {
    let mut pairs = Pairs::from([
        ("customer".to_owned(), customer.id.to_owned()),
        ("movement".to_owned(), refund.movement.to_string()),
    ]);
    pairs.extend(refund.amount.map(|amount| ("amount".to_owned(), amount.to_string())));
    pairs
}

fn pairs_of_correction(customer: Customer<'_>, adjust: &Adjust<'_>) -> Pairs {
    let (mut pairs, amount) = match adjust.change {
        Change::Up { amount, .. } => (pairs_of_wallet(customer, adjust.wallet), amount.to_string()),
        Change::Down { amount, tranche: None } => {
            (pairs_of_wallet(customer, adjust.wallet), format!("-{amount}"))
        }
        Change::Down { amount, tranche: Some(tranche) } => {
            (pairs_of_tranche(customer, adjust.wallet, tranche), format!("-{amount}"))
        }
    };
    pairs.insert("amount".to_owned(), amount);
    pairs
}

fn pairs_of_debit(customer: Customer<'_>, debit: &Debit<'_>) -> Pairs {
    pairs_of_payer(customer, debit.payer, debit.amount)
}

fn pairs_of_payer(customer: Customer<'_>, payer: Payer<'_>, amount: Decimal) -> Pairs {
    let mut pairs = match payer {
        Payer::Wallet(wallet) => pairs_of_wallet(customer, wallet),
        Payer::CustomerIn(asset) => Pairs::from([
            ("customer".to_owned(), customer.id.to_owned()),
            ("asset".to_owned(), asset.to_string()),
        ]),
    };
    pairs.insert("amount".to_owned(), amount.to_string());
    pairs
}
