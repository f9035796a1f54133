//! The load: clients that call one after the other (closed loop), or calls that begin when the
//! schedule says so (open loop).
//!
//! In a closed loop a slow answer holds back the calls behind it, and with them the latencies that
//! they would have had: it tells throughput. In an open loop each call has an intended start, and its
//! latency counts from there, however late it really began: nothing is left out (no coordinated
//! omission).
//!
//! Only what is answered within the measured span is counted; the warm-up before it, and what is still
//! under way at its end, are in the books alone.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use hdrhistogram::Histogram;
use serde::Serialize;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::books::Books;
use super::target::{Target, Verdict};
use crate::workload::{Draws, Wallets};

/// The longest latency that is told apart, in microseconds.
const LATENCY_US_MAX: u64 = 600_000_000;
/// Digits of a latency that are kept.
const LATENCY_DIGITS: u8 = 3;
/// Calls of an open loop under way at once; over it calls begin late, and their latency shows it.
const CALLS_UNDER_WAY_MAX: usize = 4_096;
/// Starts that the clock may be ahead of the calls.
const STARTS_WAITING_MAX: usize = 65_536;

/// What a call is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Call {
    /// One debit.
    Debit,
    /// So many debits.
    Batch(usize),
    /// One debit, on one of so many streams that clients share.
    Streamed {
        /// How many.
        streams: usize,
    },
    /// A hold, then its capture.
    HoldAndCapture,
    /// So many holds, then their captures.
    HoldBatch(usize),
    /// The question for a balance.
    Balance,
}

impl Call {
    /// Debits of a call.
    pub fn debits(self) -> usize {
        match self {
            Call::Debit | Call::Streamed { .. } | Call::HoldAndCapture => 1,
            Call::Batch(debits) | Call::HoldBatch(debits) => debits,
            Call::Balance => 0,
        }
    }
}

/// What calls are made of.
#[derive(Clone)]
pub struct Work<T> {
    /// Where they go.
    pub target: T,
    /// What the wallets hold.
    pub books: Arc<Books>,
    /// Which wallets they debit.
    pub wallets: Arc<Wallets>,
    /// What a call is.
    pub call: Call,
    /// Where the choice of wallets and amounts begins.
    pub seed: u64,
}

/// When it is measured.
#[derive(Clone, Copy, Debug)]
pub struct Span {
    /// From here.
    pub begin: Instant,
    /// Until here.
    pub end: Instant,
}

impl Span {
    fn contains(&self, at: Instant) -> bool {
        self.begin <= at && at < self.end
    }
}

/// What was counted within the span.
#[derive(Clone, Debug)]
pub struct Counts {
    /// Debits, or holds with their captures, that were applied.
    pub applied: u64,
    /// Balances that were told.
    pub read: u64,
    /// Debits that were denied.
    pub denied: u64,
    /// Grants of four tranches to wallets that were too short.
    pub refills: u64,
    /// Latencies of calls, in microseconds.
    pub latency_us: Histogram<u64>,
}

impl Counts {
    /// Nothing yet.
    pub fn new() -> anyhow::Result<Counts> {
        let latency_us = Histogram::new_with_bounds(1, LATENCY_US_MAX, LATENCY_DIGITS)?;
        Ok(Counts { applied: 0, read: 0, denied: 0, refills: 0, latency_us })
    }
}

/// A wallet and an amount.
type Asked = Vec<(u64, u64)>;

/// Everything that the tasks of one measurement share.
struct Measurement<T> {
    work: Work<T>,
    span: Span,
    counts: Mutex<Counts>,
}

impl<T: Target> Measurement<T> {
    fn new(work: Work<T>, span: Span) -> anyhow::Result<Arc<Measurement<T>>> {
        Ok(Arc::new(Measurement { work, span, counts: Mutex::new(Counts::new()?) }))
    }

    fn ask(&self, draws: &mut Draws) -> Asked {
        let one = |_| (draws.wallet(&self.work.wallets), draws.amount());
        // A question names one wallet too.
        (0..self.work.call.debits().max(1)).map(one).collect()
    }

    /// One call, and the refills that it shows to be needed. Its latency counts from `start`, if that
    /// or its end lies in the span, as `by_start` says.
    async fn call(&self, target: &T, asked: Asked, start: Instant, by_start: bool) -> anyhow::Result<()> {
        let books = &self.work.books;
        let verdicts = self.verdicts(target, &asked).await?;
        let end = Instant::now();
        let mut short = Vec::new();
        for ((wallet, amount), verdict) in asked.iter().zip(&verdicts) {
            match verdict {
                Verdict::Applied => books.debited(*wallet, *amount),
                Verdict::Short => short.push(*wallet),
            }
        }
        let denied = short.len() as u64;
        self.count(|counts| {
            if self.span.contains(end) {
                counts.applied += verdicts.len() as u64 - denied;
                counts.denied += denied;
                counts.read += u64::from(self.work.call == Call::Balance);
            }
            if self.span.contains(if by_start { start } else { end }) {
                let latency_us = end.duration_since(start).as_micros() as u64;
                counts.latency_us.saturating_record(latency_us);
            }
        });
        if denied > 0 {
            let refills = books.refill(target, short).await?;
            let counted = self.span.contains(Instant::now());
            self.count(|counts| counts.refills += if counted { refills } else { 0 });
        }
        Ok(())
    }

    /// Makes the call; a verdict for each debit.
    async fn verdicts(&self, target: &T, asked: &Asked) -> anyhow::Result<Vec<Verdict>> {
        let books = &self.work.books;
        let debits = asked.iter().map(|(wallet, amount)| books.debit(*wallet, *amount));
        let mut verdicts = Vec::new();
        match self.work.call {
            Call::Batch(_) => verdicts = target.debit_batch(debits.collect()).await?,
            Call::HoldBatch(_) => verdicts = target.hold_and_capture_batch(debits.collect()).await?,
            Call::Debit | Call::Streamed { .. } => {
                for debit in debits {
                    verdicts.push(target.debit(debit).await?);
                }
            }
            Call::HoldAndCapture => {
                for debit in debits {
                    verdicts.push(target.hold_and_capture(debit).await?);
                }
            }
            Call::Balance => {
                for (wallet, _) in asked {
                    target.available(&books.customer(*wallet)).await?;
                }
            }
        }
        Ok(verdicts)
    }

    fn count(&self, note: impl FnOnce(&mut Counts)) {
        note(&mut self.counts.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn counts(&self) -> Counts {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// So many clients, each calling again as soon as it is answered, until the span is over.
pub async fn closed_loop<T: Target>(work: Work<T>, span: Span, clients: usize) -> anyhow::Result<Counts> {
    let measurement = Measurement::new(work, span)?;
    let mut tasks = JoinSet::new();
    for number in 0..clients {
        let measurement = measurement.clone();
        tasks.spawn(async move {
            let target = measurement.work.target.client(number);
            let mut draws = Draws::new(measurement.work.seed.wrapping_add(number as u64));
            loop {
                let start = Instant::now();
                if start >= span.end {
                    return Ok(());
                }
                let asked = measurement.ask(&mut draws);
                measurement.call(&target, asked, start, false).await?;
            }
        });
    }
    finish(tasks).await?;
    Ok(measurement.counts())
}

/// Calls that begin at even distances, so that they make so many debits (or questions) a minute, from now until the
/// span is over.
pub async fn open_loop<T: Target>(work: Work<T>, span: Span, a_minute: u64) -> anyhow::Result<Counts> {
    let begin = Instant::now();
    let distance_ns = 60_000_000_000 * work.call.debits().max(1) as u64 / a_minute.max(1);
    let calls = span.end.duration_since(begin).as_nanos() as u64 / distance_ns.max(1);
    let measurement = Measurement::new(work, span)?;
    let (starts, mut started) = mpsc::channel(STARTS_WAITING_MAX);
    let schedule = move |call: u64| begin + Duration::from_nanos(call * distance_ns);
    let clock = std::thread::Builder::new().name("schedule".to_owned());
    let clock = clock.spawn(move || keep_time(calls, schedule, &starts))?;

    let mut draws = Draws::new(measurement.work.seed);
    let places = Arc::new(Semaphore::new(CALLS_UNDER_WAY_MAX));
    let mut tasks = JoinSet::new();
    while let Some(call) = started.recv().await {
        let place = places.clone().acquire_owned().await?;
        let target = measurement.work.target.client(call as usize);
        let (asked, measurement) = (measurement.ask(&mut draws), measurement.clone());
        tasks.spawn(async move {
            let called = measurement.call(&target, asked, schedule(call), true).await;
            drop(place);
            called
        });
        while let Some(ended) = tasks.try_join_next() {
            ended??;
        }
    }
    finish(tasks).await?;
    clock.join().ok().context("the schedule's thread panicked")?;
    Ok(measurement.counts())
}

async fn finish(mut tasks: JoinSet<anyhow::Result<()>>) -> anyhow::Result<()> {
    while let Some(ended) = tasks.join_next().await {
        ended??;
    }
    Ok(())
}

/// Names each call when it is its time. A thread of its own: the runtime's timers are a millisecond
/// coarse, a thread that sleeps some fifty microseconds.
// The load generator keeps real time, that is what it is for.
#[allow(clippy::disallowed_methods)]
fn keep_time(calls: u64, schedule: impl Fn(u64) -> Instant, starts: &mpsc::Sender<u64>) {
    for call in 0..calls {
        let wait = schedule(call).saturating_duration_since(Instant::now());
        if !wait.is_zero() {
            std::thread::sleep(wait);
        }
        // Nobody listens any more after an error.
        if starts.blocking_send(call).is_err() {
            return;
        }
    }
}
