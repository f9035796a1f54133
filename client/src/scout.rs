//! The shard map, fetched: now and then, and when something shows that the one known is old.
//!
//! One task does it, so that at most one fetch is under way however many calls ask for one; between two
//! of them there is a pause, which grows while they fail.

use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use prost::Message;
use purser_proto::v1;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};

use crate::call::Method;
use crate::carrier::Route;
use crate::client::Inner;
use crate::failure::{Failure, Origin};
use crate::lane::call;

/// The pause between two fetches that are asked for; it doubles while they fail,
const PAUSE_MIN: Duration = Duration::from_millis(50);
/// up to the time after which one comes anyway, or this.
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// How long a node has for its answer at least: nobody waits for it but who connects.
const ANSWER_MIN: Duration = Duration::from_secs(1);

impl Inner {
    /// Has the map fetched. Asked for often, it is fetched once.
    pub(crate) fn refresh_soon(&self) {
        self.wanted.notify_one();
    }

    /// Asks one node after the other for the map, until one has it. An error tells what the last one said
    /// that answered, or that none did.
    pub(crate) async fn refresh(&self) -> Result<(), Failure> {
        let mut last = Failure::unsent(Origin::Own, "there is no node to ask");
        for node in self.routes.sources(Instant::now()) {
            let until = Instant::now() + self.options.attempt.max(ANSWER_MIN);
            let answer =
                call(&*self.carrier, &node.address, Method::GetShardMap, Route::Any, Bytes::new(), until);
            let failure = match answer.await {
                Ok(response) => match v1::GetShardMapResponse::decode(response) {
                    Ok(map) => match self.routes.take(&map) {
                        Ok(()) => {
                            tracing::debug!(address = %node.address, epoch = map.epoch, "took a shard map");
                            return Ok(());
                        }
                        Err(error) => {
                            tracing::debug!(address = %node.address, %error, "a shard map was not taken");
                            Failure::undecodable()
                        }
                    },
                    Err(_) => Failure::undecodable(),
                },
                Err(failure) => failure,
            };
            tracing::debug!(address = %node.address, failure = %failure.denial, "no shard map");
            if failure.origin != Origin::Answer {
                self.routes.ill(&node, Instant::now());
            }
            // A node that answers speaks for itself; one that does not says less.
            if failure.origin == Origin::Answer || last.origin != Origin::Answer {
                last = failure;
            }
        }
        Err(last)
    }
}

/// Fetches the map until the client is gone.
pub(crate) async fn run(inner: Weak<Inner>, wanted: Arc<Notify>) {
    let mut failures = 0u32;
    loop {
        let Some((anyway, pause)) = inner.upgrade().map(|own| own.waits(failures)) else { return };
        tokio::select! {
            biased;
            () = wanted.notified() => {}
            () = sleep(anyway) => {}
        }
        match inner.upgrade() {
            Some(inner) => match inner.refresh().await {
                Ok(()) => failures = 0,
                Err(_) => failures += 1,
            },
            None => return,
        }
        sleep(pause).await;
    }
}

impl Inner {
    /// After how long a fetch comes unasked, and how long none comes after it. Both drawn, so that
    /// clients do not ask all at once.
    fn waits(&self, failures: u32) -> (Duration, Duration) {
        let every = self.options.refresh_every;
        let pause = PAUSE_MIN.saturating_mul(1 << failures.min(16)).min(PAUSE_MAX).min(every);
        let drawn = |span: Duration| span / 2 + self.chance.up_to(span);
        (drawn(if failures == 0 { every } else { pause }), drawn(pause))
    }
}
