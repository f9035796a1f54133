//! One measurement: a load put on a target for a while, and what it came to.
//!
//! Whatever the target is, it is measured here, so that figures of different systems mean the same.

use std::io::IsTerminal;
use std::sync::Arc;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use tokio::time::Instant;

use super::books::Books;
use super::load::{self, Call, Span, Work};
use super::report::{Measured, Pace, grouped};
use super::target::{LogCounts, Target};
use super::usage::{Snapshot, Watched};
use crate::workload::{Spread, Wallets};

/// How often the bar of a measurement moves.
const BAR_EVERY: Duration = Duration::from_millis(200);

/// One sort of load, and for how long.
#[derive(Clone, Debug)]
pub struct Load {
    /// What it is for: a word.
    pub scenario: &'static str,
    /// What a call is.
    pub call: Call,
    /// How calls spread over the wallets.
    pub spread: Spread,
    /// Whether calls wait for one another.
    pub pace: Pace,
    /// How long there is load before anything is counted.
    pub warm_up: Duration,
    /// How long it is counted.
    pub measured: Duration,
    /// Where the choice of wallets and amounts begins.
    pub seed: u64,
}

impl Load {
    /// In a few words.
    pub fn told(&self) -> String {
        let Load { scenario, pace, .. } = self;
        let spread = self.spread.name();
        match self.call {
            Call::Debit => format!("{scenario}: {pace}, {spread}"),
            Call::Batch(debits) => format!("{scenario}: {pace}, {spread}, {} a call", grouped(debits as u64)),
            Call::Streamed { streams } => format!("{scenario}: {pace} on {streams} streams, {spread}"),
            Call::HoldBatch(pairs) => {
                format!("{scenario}: {pace}, {spread}, with their captures, {} a call", grouped(pairs as u64))
            }
            Call::HoldAndCapture => format!("{scenario}: {pace}, {spread}, with their captures"),
            Call::Balance => format!("{scenario}: {pace}, {spread}, balances"),
        }
    }
}

/// Warms up and measures.
pub async fn measure<T: Target>(
    target: &T,
    books: &Arc<Books>,
    load: &Load,
    watched: &Watched,
) -> anyhow::Result<Measured> {
    let work = Work {
        target: target.clone(),
        books: books.clone(),
        wallets: Arc::new(Wallets::new(load.spread, books.wallets())),
        call: load.call,
        seed: load.seed,
    };
    let begin = Instant::now() + load.warm_up;
    let span = Span { begin, end: begin + load.measured };
    let steps = (load.warm_up + load.measured).as_millis() / BAR_EVERY.as_millis();
    let watching = bar(&load.told(), steps as u64);
    let counting = async {
        match load.pace {
            Pace::Closed { clients } => load::closed_loop(work, span, clients).await,
            Pace::Open { a_minute } => load::open_loop(work, span, a_minute).await,
        }
    };
    let looking = async {
        tokio::time::sleep_until(span.begin).await;
        let (before, log_before) = (Snapshot::take(watched)?, target.log().await?);
        tokio::time::sleep_until(span.end).await;
        let (after, log_after) = (Snapshot::take(watched)?, target.log().await?);
        let log = log_after.zip(log_before).map(|(after, before)| LogCounts::since(after, before));
        Ok((after.since(&before), log))
    };
    let moved = watching.clone();
    let moving = tokio::spawn(async move {
        let mut tick = tokio::time::interval(BAR_EVERY);
        loop {
            tick.tick().await;
            moved.inc(1);
        }
    });
    let measured = tokio::try_join!(counting, looking);
    moving.abort();
    let (counts, (usage, log)) = measured?;
    watching.finish_and_clear();
    Ok(Measured::new(load, books.wallets(), &counts, usage, log))
}

/// A bar on a terminal; a line elsewhere.
pub fn bar(what: &str, length: u64) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        eprintln!("{what}");
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{msg:48} {bar:40} {percent:>3} %");
    // The template is a constant; where it were wrong, the default looks a little different.
    let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(length).with_style(style).with_message(what.to_owned())
}
