//! Debits of some customers while very much falls due, in one second, of another one.
//!
//! One wallet gets many tranches that expire at the same instant. The open loop at the mission's rate goes
//! on in other wallets: before that instant, from it on, and once more when everything is booked.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::books::Books;
use super::course::Course;
use super::gateway::Gateway;
use super::growth::{fill, since_1970};
use super::load::Call;
use super::measure::{Load, bar};
use super::report::{Pace, grouped};
use super::scenario::MISSION_A_MINUTE;
use crate::workload::Besides;

/// Tranches granted to find out how long granting takes.
const TRIAL: u64 = 20_000;
/// When those of the trial expire: long after the run.
const NOT_SOON: Duration = Duration::from_secs(86_400);
/// How much longer than in the trial granting may take.
const SLACK: u32 = 2;
/// How often it is looked whether everything is booked.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// What falls due.
#[derive(Clone, Debug, clap::Args)]
pub struct DueOptions {
    /// Tranches of one wallet that expire at the same instant (due)
    #[arg(long, value_name = "NUMBER", default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub due_tranches: u64,
}

/// Measures it; `books` are those of the other wallets.
pub async fn due(
    course: &mut Course<'_>,
    gateway: &Gateway,
    books: &Arc<Books>,
    options: &DueOptions,
) -> anyhow::Result<()> {
    let one = || Books::new(1, course.options.hot_tranche_credits, rand::random());
    let (trial, crowded) = (one(), one());
    let begun = Instant::now();
    fill(gateway, &trial, TRIAL, Some(Besides::Expired), since_1970()? + NOT_SOON).await?;
    let granting = begun.elapsed() * u32::try_from(options.due_tranches.div_ceil(TRIAL))? * SLACK;
    let before = mission(course, "due, before");
    let ahead = granting + before.warm_up + before.measured;
    let (instant, expires_at) = (Instant::now() + ahead, since_1970()? + ahead);
    fill(gateway, &crowded, options.due_tranches, Some(Besides::Expired), expires_at).await?;
    let lead = before.warm_up + before.measured;
    anyhow::ensure!(Instant::now() + lead < instant, "granting took longer than the trial said");
    let customer = crowded.customer(0);
    let booked = gateway.movements(&customer).await? + options.due_tranches;
    tokio::time::sleep_until(instant - lead).await;
    course.measure(gateway, books, &[before]).await?;
    tokio::time::sleep_until(instant).await;
    let sweeping = Load { warm_up: Duration::ZERO, ..mission(course, "due, sweeping") };
    let sweeping = [sweeping];
    let measuring = course.measure(gateway, books, &sweeping);
    let (measured, swept) = tokio::join!(measuring, until_booked(gateway, &customer, booked));
    measured?;
    let (items, took) = (grouped(options.due_tranches), swept?.duration_since(instant).as_secs_f64());
    eprintln!("{items} tranches were booked within {took:.1} s after they had expired");
    let after = mission(course, "due, after");
    course.measure(gateway, books, &[after]).await
}

fn mission(course: &Course<'_>, scenario: &'static str) -> Load {
    let pace = Pace::Open { a_minute: MISSION_A_MINUTE };
    Load { pace, ..course.options.closed(scenario, Call::Debit, 1) }
}

/// When a wallet has so many movements: what expires has one of its own.
async fn until_booked(gateway: &Gateway, customer: &str, movements: u64) -> anyhow::Result<Instant> {
    let booking = bar("booking what is due", movements);
    let mut looks = tokio::time::interval(LOOK_EVERY);
    loop {
        looks.tick().await;
        let there = gateway.movements(customer).await?;
        booking.set_position(there);
        if there >= movements {
            booking.finish_and_clear();
            return Ok(Instant::now());
        }
    }
}
