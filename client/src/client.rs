//! The client: typed calls, and what they share.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use prost::Message;
use purser_proto::v1::{self, Reason};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

use crate::batch::Item;
use crate::budget::Bucket;
use crate::call::{Call, Read, Write};
use crate::carrier::Carrier;
use crate::chance::{Chance, since_1970, timestamp};
use crate::failure::{Effect, Failure, Origin};
use crate::lane::{Lane, Terms};
use crate::options::{Builder, ConnectError, Options};
use crate::outcome::{Denial, Outcome, Unknown};
use crate::place::Place;
use crate::pursue::{Errand, GaveUp, Started};
use crate::routes::Routes;
use crate::scout;
use crate::stream::{Pipes, UNDER_WAY_MAX};
use crate::wire::Sort;

/// How long a write stays valid after its deadline, so that an unknown outcome can still be settled, and
/// so that clocks that differ by minutes do no harm.
const VALID_BEYOND: Duration = Duration::from_secs(5 * 60);
/// The longest that a write is valid: the ledger takes 15 minutes, and its clock may be behind.
const VALID_MAX: Duration = Duration::from_secs(10 * 60);
/// After its `valid_until` a verdict is remembered for the rest of 24 hours of ledger time. Later than
/// this, that none is stored proves nothing.
const PROVABLE: Duration = Duration::from_secs(12 * 3_600);
/// How long after its `valid_until` an unknown write is still asked for: the ledger's clock may be
/// behind, and it is the ledger that has to say that the time is over.
const ASKED_BEYOND: Duration = Duration::from_secs(60);

/// A client of a Purser cluster. Cheap to clone; clones share connections, shard map, retry budget and
/// batches.
#[derive(Clone)]
pub struct PurserClient {
    inner: Arc<Inner>,
    namespace: Arc<str>,
    deadline: Duration,
}

/// What all clones share.
pub(crate) struct Inner {
    pub carrier: Arc<dyn Carrier>,
    pub routes: Routes,
    pub chance: Chance,
    pub budget: Bucket,
    pub options: Options,
    /// Somebody wants the shard map fetched.
    pub wanted: Arc<Notify>,
    calls: AtomicUsize,
}

impl Drop for Inner {
    fn drop(&mut self) {
        // Who fetches the map sees that nobody needs it any more.
        self.wanted.notify_one();
    }
}

/// One of the calls under way.
struct Admitted<'a>(&'a AtomicUsize);

impl Drop for Admitted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Inner {
    fn admit(&self) -> Result<Admitted<'_>, Denial> {
        let admitted = Admitted(&self.calls);
        match self.calls.fetch_add(1, Ordering::Relaxed) {
            before if before < self.options.calls_max => Ok(admitted),
            _ => Err(Denial::own(Reason::Unavailable, "too many calls are under way in this client")),
        }
    }
}

/// A request as it goes out, every time.
struct Prepared {
    bytes: Bytes,
    place: Place,
}

impl Prepared {
    fn of(request: &impl Call) -> Prepared {
        let place = Place::of(request.namespace(), request.customer());
        Prepared { bytes: request.encode_to_vec().into(), place }
    }
}

impl PurserClient {
    /// Connects to a cluster through any of its nodes (`host:port`), with the usual options.
    pub async fn connect(
        seeds: impl IntoIterator<Item = impl Into<String>>,
    ) -> Result<PurserClient, ConnectError> {
        PurserClient::builder(seeds).connect().await
    }

    /// A client with other options.
    pub fn builder(seeds: impl IntoIterator<Item = impl Into<String>>) -> Builder {
        Builder::new(seeds.into_iter().map(Into::into).collect())
    }

    pub(crate) fn start(builder: Builder) -> PurserClient {
        let Builder { seeds, namespace, deadline, options, carrier, clock, seed, budget } = builder;
        let carrier = carrier.unwrap_or_else(default_carrier);
        let (chance, now) = (Chance::new(clock, seed), Instant::now());
        let terms = Arc::new(Terms {
            carrier: carrier.clone(),
            batching: options.batching,
            detail: options.detail,
            queue_max: options.calls_max,
        });
        let lane = move |address, route| Lane::new(terms.clone(), address, route);
        let routes = Routes::new(&seeds, chance.below(u64::MAX), now, lane);
        let (budget, wanted) = (Bucket::new(budget, now), Arc::new(Notify::new()));
        let calls = AtomicUsize::new(0);
        let inner = Inner { carrier, routes, chance, budget, options, wanted: wanted.clone(), calls };
        let inner = Arc::new(inner);
        tokio::spawn(scout::run(Arc::downgrade(&inner), wanted));
        PurserClient { inner, namespace: namespace.into(), deadline }
    }

    /// Fetches the map for the first time; a node that answers anything is a node.
    pub(crate) async fn first_refresh(&self) -> Result<(), ConnectError> {
        let failure = match timeout(self.deadline, self.inner.refresh()).await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(failure)) => failure,
            Err(_) => Failure::timed_out(),
        };
        match failure.origin {
            Origin::Answer => Ok(()),
            _ => Err(ConnectError::Unreachable(failure.denial.to_string())),
        }
    }

    /// The same client with another deadline for each call, all attempts together.
    pub fn with_deadline(&self, deadline: Duration) -> PurserClient {
        PurserClient { deadline, ..self.clone() }
    }

    /// The same client with another namespace for requests that name none.
    pub fn with_namespace(&self, namespace: &str) -> PurserClient {
        PurserClient { namespace: namespace.into(), ..self.clone() }
    }

    /// Sends a read until it is answered, within the deadline.
    pub async fn read<R: Read>(&self, mut request: R) -> Result<R::Response, Denial> {
        let _admitted = self.inner.admit()?;
        self.name_namespace(&mut request);
        let errand = Errand { possible: false, ..self.errand(&request, self.until()) };
        let response = self.inner.pursue(&errand, None).await.map_err(|gave_up| gave_up.denial)?;
        R::Response::decode(response).map_err(|_| Failure::undecodable().denial)
    }

    /// Sends a write until it is settled, within the deadline. A key and a `valid_until` are put in where
    /// there are none, and stay the same over all attempts.
    pub async fn write<R: Write>(&self, request: R) -> Outcome<R> {
        self.write_by(request, false).await
    }

    async fn write_by<R: Write>(&self, mut request: R, gathered: bool) -> Outcome<R> {
        let _admitted = match self.inner.admit() {
            Ok(admitted) => admitted,
            Err(denial) => return Outcome::Denied(denial),
        };
        self.complete(&mut request);
        let errand = Errand { gathered, ..self.errand(&request, self.until()) };
        let answer = self.inner.pursue(&errand, None).await;
        self.outcome(request, answer)
    }

    /// Finds out what became of a write whose outcome is unknown: sends the same request, with the same
    /// key and `valid_until`, until the ledger has settled it. If the first attempt never arrived and the
    /// time is not over yet, this one is applied.
    ///
    /// It takes as long as it takes, without regard to the client's deadline, and outside its retry
    /// budget: until the ledger answers, or `valid_until` has passed by a minute. From `valid_until` on
    /// the ledger applies the write no more, and `KEY_TOO_OLD` proves that it never did. Still
    /// [`Outcome::Unknown`] if there was no answer in all that time, or the write is older than half a
    /// day: then a verdict may have been forgotten. It can be called again.
    ///
    /// Takes [`Unknown::request`], or the same request from where a caller has kept it. Without the key and
    /// the `valid_until` that it was sent with nothing can be found out: it stays unknown.
    pub async fn resolve<R: Write>(&self, request: R) -> Outcome<R> {
        let (false, Some(valid_until)) = (request.idempotency_key().is_empty(), request.valid_until()) else {
            let why = "only a request with the key and the valid_until that it was sent with can be resolved";
            return Outcome::Unknown(Unknown { request, cause: Denial::own(Reason::InvalidArgument, why) });
        };
        let left = since_1970(valid_until).saturating_sub(self.inner.chance.now());
        let _admitted = match self.inner.admit() {
            Ok(admitted) => admitted,
            Err(cause) => return Outcome::Unknown(Unknown { request, cause }),
        };
        // A clock that was set back must not make it wait for ever.
        let until = Instant::now() + (left + ASKED_BEYOND).min(VALID_MAX * 2).max(self.deadline);
        let errand = Errand { possible: true, budgeted: false, ..self.errand(&request, until) };
        let answer = self.inner.pursue(&errand, None).await;
        self.outcome(request, answer)
    }

    /// Burns credits, once.
    ///
    /// Debits of one customer that are under way at the same time are judged in any order; one that was
    /// answered comes before one that is made then.
    pub async fn debit(&self, request: v1::DebitRequest) -> Outcome<v1::DebitRequest> {
        self.write_by(request, self.inner.options.gather).await
    }

    /// Many debits, each with its own key and outcome, in the order of the list. Split by the leaders of
    /// their shards, sent side by side; debits of one customer are sent in their order.
    pub async fn debit_batch(&self, requests: Vec<v1::DebitRequest>) -> Vec<Outcome<v1::DebitRequest>> {
        self.batch(Sort::Debits, requests).await
    }

    /// Many writes of several sorts, like [`debit_batch`](PurserClient::debit_batch): debits, holds,
    /// extensions, captures, releases, grants, refunds, each from its request by `into()`.
    ///
    /// An answer is a [`WriteResult`](v1::WriteResult) that is never `refused`: a refusal is
    /// [`Outcome::Denied`].
    pub async fn write_batch(&self, requests: Vec<v1::WriteRequest>) -> Vec<Outcome<v1::WriteRequest>> {
        self.batch(Sort::Mixed, requests).await
    }

    async fn batch<R: Write>(&self, sort: Sort, mut requests: Vec<R>) -> Vec<Outcome<R>> {
        let admitted = self.inner.admit();
        let _admitted = match admitted {
            Ok(admitted) => admitted,
            Err(denial) => return requests.iter().map(|_| Outcome::Denied(denial.clone())).collect(),
        };
        let until = self.until();
        requests.iter_mut().for_each(|request| self.complete(request));
        let item = |request: &R| {
            let Prepared { bytes, place } = Prepared::of(request);
            Item::new(bytes, place, request.weight())
        };
        let mut items: Vec<Item> = requests.iter().map(item).collect();
        self.inner.pursue_all(sort, &mut items, until).await;
        let answers = items.into_iter().map(Item::into_answer);
        requests.into_iter().zip(answers).map(|(request, answer)| self.outcome(request, answer)).collect()
    }

    /// Debits as they come; outcomes in the order of the requests. Up to 1,024 are under way at once:
    /// the stream of requests is read on only as fast as there are answers.
    ///
    /// Debits of one customer are judged in their order, as long as nothing fails.
    pub fn debit_stream<S>(&self, requests: S) -> impl Stream<Item = Outcome<v1::DebitRequest>> + use<S>
    where
        S: Stream<Item = v1::DebitRequest>,
    {
        self.stream(Sort::Debits, requests)
    }

    /// Writes of several sorts as they come, like [`debit_stream`](PurserClient::debit_stream); answers
    /// as those of [`write_batch`](PurserClient::write_batch).
    pub fn write_stream<S>(&self, requests: S) -> impl Stream<Item = Outcome<v1::WriteRequest>> + use<S>
    where
        S: Stream<Item = v1::WriteRequest>,
    {
        self.stream(Sort::Mixed, requests)
    }

    fn stream<R, S>(&self, sort: Sort, requests: S) -> impl Stream<Item = Outcome<R>> + use<R, S>
    where
        R: Write,
        S: Stream<Item = R>,
    {
        let (client, mut pipes) = (self.clone(), Pipes::new(sort));
        let gathered = sort == Sort::Debits && self.inner.options.gather;
        requests
            .map(move |mut request| {
                let client = client.clone();
                client.complete(&mut request);
                let errand = Errand { gathered, ..client.errand(&request, client.until()) };
                // Here, not in the future: writes go out in the order in which they came.
                let started = pipes.start(&client.inner, errand.request.clone(), errand.place);
                async move { client.finish(request, errand, started).await }
            })
            .buffered(UNDER_WAY_MAX)
    }

    async fn finish<R: Write>(&self, request: R, errand: Errand, started: Started) -> Outcome<R> {
        let answer = self.inner.pursue(&errand, Some(started)).await;
        self.outcome(request, answer)
    }

    fn until(&self) -> Instant {
        Instant::now() + self.deadline
    }

    fn errand<R: Call>(&self, request: &R, until: Instant) -> Errand {
        let Prepared { bytes, place } = Prepared::of(request);
        Errand {
            method: R::METHOD,
            request: bytes,
            place,
            until,
            gathered: false,
            possible: false,
            budgeted: true,
        }
    }

    fn name_namespace(&self, request: &mut impl Call) {
        if request.namespace().is_empty() && !self.namespace.is_empty() {
            request.set_namespace(&self.namespace);
        }
    }

    /// Puts in what the caller left out. Once: a retry is the same request.
    fn complete(&self, request: &mut impl Write) {
        self.name_namespace(request);
        if request.idempotency_key().is_empty() {
            request.set_idempotency_key(self.inner.chance.key());
        }
        if request.valid_until().is_none() {
            let valid_for = (self.deadline + VALID_BEYOND).min(VALID_MAX);
            request.set_valid_until(timestamp(self.inner.chance.now() + valid_for));
        }
    }

    fn outcome<R: Write>(&self, request: R, answer: Result<Bytes, GaveUp>) -> Outcome<R> {
        let gave_up = match answer.map(R::Response::decode) {
            Ok(Ok(response)) => return Outcome::Applied(response),
            Ok(Err(_)) => GaveUp::with(Failure::undecodable(), true),
            Err(gave_up) => gave_up,
        };
        let GaveUp { denial, effect } = gave_up;
        if effect == Effect::Possible || self.proves_nothing(&request, &denial) {
            return Outcome::Unknown(Unknown { request, cause: denial });
        }
        Outcome::Denied(denial)
    }

    /// No verdict is stored: so long after, one may have been, and forgotten.
    fn proves_nothing(&self, request: &impl Write, denial: &Denial) -> bool {
        let over = |valid_until| since_1970(valid_until) + PROVABLE < self.inner.chance.now();
        denial.reason == Reason::KeyTooOld && request.valid_until().is_some_and(over)
    }
}

macro_rules! writes {
    ($($(#[$doc:meta])+ $name:ident($request:ident);)+) => {
        /// Writes: each takes effect once, whatever is sent how often.
        impl PurserClient {
            $($(#[$doc])+
            pub async fn $name(&self, request: v1::$request) -> Outcome<v1::$request> {
                self.write(request).await
            })+
        }
    };
}

writes! {
    /// Creates a wallet, and with its first wallet the customer.
    create_wallet(CreateWalletRequest);
    /// Changes a wallet's attributes.
    update_wallet(UpdateWalletRequest);
    /// Stops debits from a wallet, or allows them again.
    freeze_wallet(FreezeWalletRequest);
    /// Closes an empty wallet for ever.
    close_wallet(CloseWalletRequest);
    /// Puts 1 to 100 tranches into one wallet, all or none.
    grant(GrantRequest);
    /// Makes a pending tranche spendable.
    confirm_grant(ConfirmGrantRequest);
    /// Ends a pending tranche.
    fail_grant(FailGrantRequest);
    /// Withdraws what is left of a tranche.
    void_grant(VoidGrantRequest);
    /// Sets credits aside for a request in flight.
    hold(HoldRequest);
    /// Gives a hold more time.
    extend_hold(ExtendHoldRequest);
    /// Spends what a hold has set aside.
    capture(CaptureRequest);
    /// Gives back what a hold has set aside.
    release(ReleaseRequest);
    /// Gives back what a debit or capture spent, to the very tranches that it drew from.
    refund(RefundRequest);
    /// Corrects a wallet's credits, up or down.
    adjust(AdjustRequest);
}

macro_rules! reads {
    ($($(#[$doc:meta])+ $name:ident($request:ident) -> $response:ident;)+) => {
        /// Reads: linearizable. The error says why there is no answer; with HTTP status 503 it was not
        /// the ledger that refused.
        impl PurserClient {
            $($(#[$doc])+
            pub async fn $name(&self, request: v1::$request) -> Result<v1::$response, Denial> {
                self.read(request).await
            })+
        }
    };
}

reads! {
    /// One wallet.
    get_wallet(GetWalletRequest) -> GetWalletResponse;
    /// A customer's wallets, oldest first.
    list_wallets(ListWalletsRequest) -> ListWalletsResponse;
    /// A wallet's tranches, oldest first.
    list_tranches(ListTranchesRequest) -> ListTranchesResponse;
    /// What a debit would do now, changing nothing.
    explain(ExplainRequest) -> ExplainResponse;
    /// One hold.
    get_hold(GetHoldRequest) -> GetHoldResponse;
    /// The holds in a wallet, oldest first.
    list_holds(ListHoldsRequest) -> ListHoldsResponse;
    /// What is there now.
    get_balance(GetBalanceRequest) -> GetBalanceResponse;
    /// A wallet's movements, newest first.
    list_movements(ListMovementsRequest) -> ListMovementsResponse;
    /// One movement.
    get_movement(GetMovementRequest) -> GetMovementResponse;
    /// Whether the books add up.
    audit(AuditRequest) -> AuditResponse;
}

#[cfg(not(madsim))]
fn default_carrier() -> Arc<dyn Carrier> {
    Arc::new(crate::GrpcCarrier::new())
}

/// The simulated network has no gRPC of ours: a simulation brings its own carrier.
#[cfg(madsim)]
fn default_carrier() -> Arc<dyn Carrier> {
    panic!("in a simulation the client needs a carrier: Builder::carrier")
}
