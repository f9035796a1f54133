//! A call, pursued until it is settled or its time is over: whom to ask, whom to ask next, when.
//!
//! A hint that names another leader is followed at once, a node that cannot be reached is passed over at
//! once; everything else waits its turn: exponential back-off with full jitter, never shorter than the
//! server asked for, within the caller's deadline and the client's retry budget. The request's bytes,
//! and with them key and `valid_until`, are the same each time.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, timeout};
use tonic::Code;

use crate::call::Method;
use crate::carrier::Route;
use crate::client::Inner;
use crate::failure::{Effect, Failure, Next, Origin};
use crate::lane::{call, left};
use crate::outcome::Denial;
use crate::place::Place;
use crate::routes::{Node, Target};
use crate::stream::FirstAnswer;
use crate::wire::Sort;

/// The longest first pause; it doubles with each retry,
const PAUSE_MIN: Duration = Duration::from_millis(20);
/// up to this.
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// What a call with a short deadline gives an attempt at least: less says nothing about a node.
const ATTEMPT_MIN: Duration = Duration::from_millis(200);
/// Most times that one call goes elsewhere at once. An election under way can send it in a circle.
const AT_ONCE_MAX: u32 = 3;

/// A call to be made.
pub(crate) struct Errand {
    /// Of a write that is one of several sorts: a batch of this one.
    pub method: Method,
    pub request: Bytes,
    pub place: Place,
    pub until: Instant,
    /// Debits may be gathered.
    pub gathered: bool,
    /// Whether something may have been sent before.
    pub possible: bool,
    /// Whether retries are taken from the budget.
    pub budgeted: bool,
}

/// A first attempt that is under way already.
pub(crate) struct Started {
    pub target: Target,
    pub answer: oneshot::Receiver<FirstAnswer>,
}

/// A call without the answer that was hoped for.
#[derive(Debug)]
pub(crate) struct GaveUp {
    pub denial: Denial,
    /// Over all attempts.
    pub effect: Effect,
}

/// What has happened to a call so far.
#[derive(Default)]
pub(crate) struct Course {
    retries: u32,
    at_once: u32,
}

impl Course {
    /// Whether one more attempt may be made at once.
    pub(crate) fn at_once(&mut self) -> bool {
        self.at_once += 1;
        self.at_once <= AT_ONCE_MAX
    }
}

impl GaveUp {
    /// The last attempt failed so. `possible`: an earlier one may have taken effect.
    pub(crate) fn with(failure: Failure, possible: bool) -> GaveUp {
        let (_, effect) = failure.judge();
        let effect = if effect == Effect::None && possible { Effect::Possible } else { effect };
        GaveUp { denial: failure.denial, effect }
    }
}

impl Inner {
    /// Makes a call until it is settled. The answer is the encoded response.
    pub(crate) async fn pursue(
        &self,
        errand: &Errand,
        mut started: Option<Started>,
    ) -> Result<Bytes, GaveUp> {
        self.budget.earn();
        let attempt = self.attempt_of(errand.until);
        let (mut course, mut possible, mut avoid) = (Course::default(), errand.possible, None);
        loop {
            let begun = Instant::now();
            let until = errand.until.min(begun + attempt);
            let first = match started.take() {
                Some(Started { target, answer }) => {
                    first_answer(answer, until).await.map(|answer| (target, answer))
                }
                None => None,
            };
            let (target, answer) = match first {
                Some(answered) => answered,
                None => {
                    let target = self.target(errand.place, avoid.take().as_ref());
                    let answer = self.attempt(&target, errand, until).await;
                    (target, answer)
                }
            };
            let failure = match answer {
                Ok(response) => {
                    self.routes.answered(&target, errand.place);
                    return Ok(response);
                }
                Err(failure) => failure,
            };
            let (next, effect) = failure.judge();
            tracing::debug!(
                method = errand.method.name(),
                address = %target.node.address,
                route = ?target.route,
                failure = %failure.denial,
                ?next,
                "an attempt failed"
            );
            if next == Next::Tell {
                return Err(GaveUp::with(failure, possible));
            }
            possible |= effect == Effect::Possible;
            let whole = until.saturating_duration_since(begun) >= attempt;
            let elsewhere = self.learn(&target, &failure, errand.place, whole);
            if failure.origin != Origin::Answer {
                avoid = Some(target.node);
            }
            if next == Next::Elsewhere && elsewhere && course.at_once() && !left(errand.until).is_zero() {
                continue;
            }
            match self.pause(&mut course, &failure, errand.until, errand.budgeted) {
                Some(pause) => sleep(pause).await,
                None => return Err(GaveUp::with(failure, possible)),
            }
        }
    }

    /// How long one attempt of a call may take, so that another one fits into its deadline.
    pub(crate) fn attempt_of(&self, until: Instant) -> Duration {
        self.options.attempt.min((left(until) / 2).max(ATTEMPT_MIN))
    }

    /// Whom to ask now. Where nobody knows who leads, the map is fetched meanwhile.
    pub(crate) fn target(&self, place: Place, avoid: Option<&Arc<Node>>) -> Target {
        let target = self.routes.target(place, avoid, Instant::now());
        if target.blind {
            self.refresh_soon();
        }
        target
    }

    async fn attempt(&self, target: &Target, errand: &Errand, until: Instant) -> Result<Bytes, Failure> {
        if errand.gathered && !target.alone {
            return target.node.lane(target.route).debit(errand.request.clone(), until).await;
        }
        if errand.method == Method::WriteBatch {
            let (lane, alone) = (target.node.lane(target.route), [errand.request.clone()]);
            let results = lane.batch(Sort::Mixed, &alone, until).await?;
            return results
                .into_iter()
                .next()
                .map_or(Err(Failure::undecodable()), |own| Sort::Mixed.outcome(own));
        }
        let (node, request) = (&target.node, errand.request.clone());
        call(&*self.carrier, &node.address, errand.method, target.route, request, until).await
    }

    /// Learns from a failure; says whether there is somebody else to ask at once. `whole`: the attempt
    /// had all the time that an attempt has.
    pub(crate) fn learn(&self, target: &Target, failure: &Failure, place: Place, whole: bool) -> bool {
        match failure.origin {
            // A caller in a hurry says nothing about the node.
            Origin::Lost if !whole && failure.denial.code == Code::DeadlineExceeded => false,
            Origin::Lost | Origin::NotSent => {
                if failure.denial.code == Code::DeadlineExceeded {
                    self.routes.timed_out(place);
                }
                if target.route == Route::Direct {
                    self.refresh_soon();
                }
                self.routes.ill(&target.node, Instant::now())
            }
            Origin::Answer => {
                let learned = self.routes.learn(target, failure.hint(), place, Instant::now());
                if learned.stale {
                    self.refresh_soon();
                }
                learned.follow
            }
            Origin::Waited => true,
            Origin::Own => false,
        }
    }

    /// How long to wait before the next attempt; `None` if there is to be none.
    pub(crate) fn pause(
        &self,
        course: &mut Course,
        failure: &Failure,
        until: Instant,
        budgeted: bool,
    ) -> Option<Duration> {
        let longest = PAUSE_MIN.saturating_mul(1 << course.retries.min(16)).min(PAUSE_MAX);
        let pause = failure.retry_after().unwrap_or_default() + self.chance.up_to(longest);
        if pause >= left(until) {
            return None;
        }
        // What was never sent made nobody's load worse.
        let free = !budgeted || matches!(failure.origin, Origin::NotSent | Origin::Waited);
        if !free && !self.budget.spend(Instant::now()) {
            tracing::debug!("the retry budget is spent");
            return None;
        }
        course.retries += 1;
        Some(pause)
    }
}

/// The answer to an attempt that was started elsewhere; `None`: it was not made.
async fn first_answer(answer: oneshot::Receiver<FirstAnswer>, until: Instant) -> FirstAnswer {
    match timeout(left(until), answer).await {
        Ok(Ok(answer)) => answer,
        // Whoever had it in hand is gone, or takes too long: it may have been sent.
        Ok(Err(_)) | Err(_) => Some(Err(Failure::timed_out())),
    }
}
