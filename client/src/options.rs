//! How a client is made.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use purser_proto::v1::ReceiptDetail;

use crate::PurserClient;
use crate::budget::RetryBudget;
use crate::carrier::Carrier;
use crate::chance::{WallClock, system_clock};
use crate::lane::Batching;

/// How long a call may take, all attempts together: an election fits into it.
const DEADLINE: Duration = Duration::from_secs(5);
/// How long one attempt may take, before another node is asked.
const ATTEMPT: Duration = Duration::from_secs(1);
/// How often the shard map is fetched without a reason.
const REFRESH_EVERY: Duration = Duration::from_secs(30);
/// Calls under way at once in one client.
const CALLS_MAX: usize = 10_000;

/// A client cannot be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    /// There is nobody to ask.
    #[error("name at least one node, as host:port")]
    NoSeeds,
    /// This build speaks no TLS.
    #[error("{0} asks for TLS, which this version does not have: use host:port or http://host:port")]
    Tls(String),
    /// No seed answers.
    #[error("no node answers; the last one tried said: {0}")]
    Unreachable(String),
}

/// A client to be made: the nodes to begin with, and options. See [`PurserClient::builder`].
#[derive(Clone)]
pub struct Builder {
    pub(crate) seeds: Vec<String>,
    pub(crate) namespace: String,
    pub(crate) deadline: Duration,
    pub(crate) options: Options,
    pub(crate) carrier: Option<Arc<dyn Carrier>>,
    pub(crate) clock: WallClock,
    pub(crate) seed: Option<u64>,
    pub(crate) budget: RetryBudget,
}

/// What stays the same for the life of a client.
#[derive(Clone)]
pub(crate) struct Options {
    pub attempt: Duration,
    pub refresh_every: Duration,
    pub calls_max: usize,
    /// Whether single debits are gathered.
    pub gather: bool,
    pub batching: Batching,
    pub detail: ReceiptDetail,
}

impl Builder {
    pub(crate) fn new(seeds: Vec<String>) -> Builder {
        let options = Options {
            attempt: ATTEMPT,
            refresh_every: REFRESH_EVERY,
            calls_max: CALLS_MAX,
            gather: true,
            batching: Batching::default(),
            detail: ReceiptDetail::Full,
        };
        Builder {
            seeds,
            namespace: String::new(),
            deadline: DEADLINE,
            options,
            carrier: None,
            clock: system_clock(),
            seed: None,
            budget: RetryBudget::default(),
        }
    }

    /// The namespace of requests that name none. Without it they go to `default`.
    pub fn namespace(mut self, namespace: impl Into<String>) -> Builder {
        self.namespace = namespace.into();
        self
    }

    /// How long a call may take, all attempts together; 5 s.
    pub fn deadline(mut self, deadline: Duration) -> Builder {
        self.deadline = deadline;
        self
    }

    /// How long one attempt may take, before another node is asked; 1 s. A call with a short deadline
    /// gives it half of that.
    pub fn attempt_timeout(mut self, attempt: Duration) -> Builder {
        self.options.attempt = attempt;
        self
    }

    /// How much may be retried; ten in a hundred calls, and ten a second.
    pub fn retry_budget(mut self, budget: RetryBudget) -> Builder {
        self.budget = budget;
        self
    }

    /// How single debits are gathered.
    pub fn batching(mut self, batching: Batching) -> Builder {
        (self.options.gather, self.options.batching) = (true, batching.in_range());
        self
    }

    /// Every debit is a call of its own.
    pub fn without_batching(mut self) -> Builder {
        self.options.gather = false;
        self
    }

    /// How much the receipts of debits in batches and streams tell; everything. A debit that goes out
    /// alone is always answered in full.
    pub fn receipts(mut self, detail: ReceiptDetail) -> Builder {
        self.options.detail = detail;
        self
    }

    /// Calls under way at once, and debits queued for one node; 10,000. Over it a call is denied at once
    /// with `UNAVAILABLE`, and nothing is sent.
    pub fn calls_max(mut self, calls_max: usize) -> Builder {
        self.options.calls_max = calls_max;
        self
    }

    /// How often the shard map is fetched without a reason; about every 30 s.
    pub fn refresh_every(mut self, refresh_every: Duration) -> Builder {
        self.options.refresh_every = refresh_every;
        self
    }

    /// The way to the network, for simulations.
    pub fn carrier(mut self, carrier: Arc<dyn Carrier>) -> Builder {
        self.carrier = Some(carrier);
        self
    }

    /// The time of day, for simulations and servers on a test clock: keys and `valid_until` come from it.
    pub fn clock(mut self, now: impl Fn() -> SystemTime + Send + Sync + 'static) -> Builder {
        self.clock = Arc::new(now);
        self
    }

    /// Where chance begins, for simulations: keys and pauses are the same each time. Without it, the
    /// operating system's choice.
    pub fn seed(mut self, seed: u64) -> Builder {
        self.seed = Some(seed);
        self
    }

    /// Makes the client, and fetches the shard map. Fails if no node answers within the deadline; a node
    /// that answers without a shard map is as good.
    pub async fn connect(self) -> Result<PurserClient, ConnectError> {
        let client = self.build()?;
        client.first_refresh().await?;
        Ok(client)
    }

    /// Makes the client; connections come as they are needed. For a gateway that has to start while the
    /// ledger does not run yet. Call it inside the tokio runtime that the client is used in.
    pub fn build(self) -> Result<PurserClient, ConnectError> {
        if self.seeds.is_empty() {
            return Err(ConnectError::NoSeeds);
        }
        if let Some(seed) = self.seeds.iter().find(|seed| seed.starts_with("https://")) {
            return Err(ConnectError::Tls(seed.clone()));
        }
        Ok(PurserClient::start(self))
    }
}
