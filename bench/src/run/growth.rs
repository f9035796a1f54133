//! What a debit costs among more and more wallets, and in wallets with many tranches.
//!
//! First one cluster's wallets grow by powers of ten, with the same loads at each size. Then batches age
//! it, until it has booked many debits, and the same loads follow once more. Then there are a few wallets
//! of each kind, under the same load:
//!
//! - `plain`: four tranches; as large as those of the hot wallet, so that refills stay rare;
//! - `open`: many open tranches of 1,000 credits besides, which debits use up first;
//! - `out of scope`: many tranches besides for a feature that no debit is for;
//! - `expired`: many tranches besides that have all just expired when the load begins. Nobody can put
//!   sweeping off: it goes on beside the load, which therefore has no warm-up.
//!
//! At the end a server is started again over all of that, after a clean stop and after a kill.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Context;
use futures_util::{StreamExt, TryStreamExt, stream};
use indicatif::ProgressBar;
use purser_node::api::commands::TRANCHES_PER_GRANT_MAX;
use tokio::time::Instant;

use super::books::{Books, CALLS_UNDER_WAY};
use super::course::Course;
use super::gateway::Gateway;
use super::load::Call;
use super::measure::{Load, bar};
use super::scenario::{CLIENTS, LoadOptions};
use super::target::Target;
use crate::workload::{Besides, TRANCHE_CREDITS, besides_request};

/// The size at which growth begins.
const WALLETS_FIRST: u64 = 10_000;
/// How much more there is at the next size.
const WALLETS_FACTOR: u64 = 10;
/// The size at which it ends, where nothing else is asked for.
const WALLETS_LAST: u64 = 1_000_000;
/// Debits of a batch.
const BATCH: usize = 1_000;
/// The least time before tranches expire that are granted now.
const EXPIRY_AHEAD_MIN: Duration = Duration::from_secs(5);

/// What growth is made of besides loads.
#[derive(Clone, Debug, clap::Args)]
pub struct GrowthOptions {
    /// Wallets of each kind that has many tranches (growth); 0 leaves them out
    #[arg(long, value_name = "NUMBER", default_value_t = 4)]
    pub deep_wallets: u64,
    /// Debits that the wallets have behind them when they are measured once more (growth); 0 leaves that
    /// out
    #[arg(long, value_name = "NUMBER", default_value_t = 10_000_000)]
    pub debits: u64,
    /// Tranches of such a wallet, where they are open or out of the debits' scope (growth)
    #[arg(long, value_name = "NUMBER", default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub deep_tranches: u64,
    /// Tranches of such a wallet, where they expire all at once (growth)
    #[arg(long, value_name = "NUMBER", default_value_t = 250_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub expired_tranches: u64,
}

/// Measures all of it.
pub async fn growth(
    course: &mut Course<'_>,
    gateway: &Gateway,
    options: &GrowthOptions,
) -> anyhow::Result<()> {
    let last = course.options.wallets.unwrap_or(WALLETS_LAST);
    let books = Arc::new(Books::new(last, TRANCHE_CREDITS, rand::random()));
    for size in sizes(last) {
        let filling = bar(&format!("filling wallets up to {size}"), size - books.wallets());
        books.fill_up_to(size, gateway, &filling).await?;
        filling.finish_and_clear();
        course.measure(gateway, &books, &loads("growth", course.options)).await?;
    }
    if options.debits > 0 {
        age(course, gateway, &books, options.debits).await?;
        course.measure(gateway, &books, &loads("growth, aged", course.options)).await?;
    }
    course.audit(gateway, &books).await?;
    if options.deep_wallets > 0 {
        deep(course, gateway, options).await?;
    }
    Ok(())
}

/// What is measured at each size.
fn loads(scenario: &'static str, options: &LoadOptions) -> [Load; 2] {
    [
        options.closed(scenario, Call::Debit, CLIENTS),
        options.closed(scenario, Call::Batch(BATCH), options.batch_clients),
    ]
}

/// Batches until so many debits were booked since the beginning. The last measurement tells how long that
/// will take; where it takes longer after all, there is another.
async fn age(
    course: &mut Course<'_>,
    gateway: &Gateway,
    books: &Arc<Books>,
    debits: u64,
) -> anyhow::Result<()> {
    while let Some(left) = debits.checked_sub(course.applied()).filter(|left| *left > 0) {
        let [_, batches] = loads("ageing", course.options);
        let measured = Duration::from_secs(1 + left / course.last_debits_a_second().max(1));
        let load = Load { warm_up: Duration::ZERO, measured, ..batches };
        course.measure(gateway, books, &[load]).await?;
    }
    Ok(())
}

/// The numbers of wallets at which it is measured.
fn sizes(last: u64) -> Vec<u64> {
    let powers = std::iter::successors(Some(WALLETS_FIRST), |size| size.checked_mul(WALLETS_FACTOR));
    powers.take_while(|size| *size < last).chain([last]).collect()
}

/// The kinds of wallets, one after the other.
async fn deep(course: &mut Course<'_>, gateway: &Gateway, options: &GrowthOptions) -> anyhow::Result<()> {
    let mut granting_one = Duration::ZERO;
    // What is swept goes on after its measurement: it comes last.
    for besides in [None, Some(Besides::Open), Some(Besides::OutOfScope), Some(Besides::Expired)] {
        let tranches = match besides {
            Some(Besides::Expired) => options.expired_tranches,
            _ => options.deep_tranches,
        };
        // A grant takes as long as those before, and perhaps half as much again.
        let grants = u32::try_from(tranches).context("--expired-tranches: too many")?;
        let ahead = EXPIRY_AHEAD_MIN + granting_one * grants * 3 / 2;
        let begun = Instant::now();
        let books = Books::new(options.deep_wallets, course.options.hot_tranche_credits, rand::random());
        let books = Arc::new(books);
        fill(gateway, &books, tranches, besides, since_1970()? + ahead).await?;
        if besides.is_some() {
            granting_one = granting_one.max(begun.elapsed() / grants);
        }
        let mut load = course.options.closed(scenario(besides), Call::Debit, CLIENTS);
        if besides == Some(Besides::Expired) {
            load.warm_up = Duration::ZERO;
            tokio::time::sleep_until(begun + ahead).await;
        }
        course.measure(gateway, &books, &[load]).await?;
        course.audit(gateway, &books).await?;
    }
    Ok(())
}

/// What stands in reports.
fn scenario(besides: Option<Besides>) -> &'static str {
    match besides {
        None => "tranches, plain",
        Some(Besides::Open) => "tranches, many open",
        Some(Besides::Expired) => "tranches, many expired",
        Some(Besides::OutOfScope) => "tranches, many out of scope",
    }
}

// Expiry is an instant of the calendar: the load generator and the nodes share a machine and its clock.
#[allow(clippy::disallowed_methods)]
pub(super) fn since_1970() -> anyhow::Result<Duration> {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).context("the clock is before 1970")
}

/// Fills wallets with four tranches, and with many of a kind besides.
pub(super) async fn fill(
    gateway: &Gateway,
    books: &Books,
    tranches: u64,
    besides: Option<Besides>,
    expires_at: Duration,
) -> anyhow::Result<()> {
    books.fill(gateway, &ProgressBar::hidden()).await?;
    let Some(besides) = besides else { return Ok(()) };
    let wallets = books.wallets();
    let filling = bar(scenario(Some(besides)), wallets * tranches);
    let grants = (0..tranches).step_by(TRANCHES_PER_GRANT_MAX).flat_map(|done| {
        let count = (tranches - done).min(TRANCHES_PER_GRANT_MAX as u64);
        (0..wallets).map(move |wallet| (wallet, count))
    });
    let bar = &filling;
    let grant = |(wallet, count): (u64, u64)| async move {
        let (customer, key) = (books.customer(wallet), books.fresh_key());
        let request = besides_request(&customer, key, count, besides, expires_at);
        gateway.client(wallet as usize).grant_as(&request).await?;
        if besides != Besides::Expired {
            books.granted(wallet, count * TRANCHE_CREDITS);
        }
        bar.inc(count);
        anyhow::Ok(())
    };
    stream::iter(grants).map(grant).buffer_unordered(CALLS_UNDER_WAY).try_collect::<()>().await?;
    filling.finish_and_clear();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_grow_by_powers_of_ten_up_to_the_last() {
        assert_eq!(sizes(1_000_000), [10_000, 100_000, 1_000_000]);
        assert_eq!(sizes(25_000), [10_000, 25_000]);
        assert_eq!(sizes(10_000), [10_000]);
        assert_eq!(sizes(500), [500]);
    }
}
