//! The course of a run: wallets are filled, loads measured one after the other, books audited.

use std::sync::Arc;

use super::books::{Audit, Books};
use super::machine::Machine;
use super::measure::{Load, bar, measure};
use super::report::{Measured, Pace, Report};
use super::scenario::{LoadOptions, Open, Scenario};
use super::target::Target;
use super::usage::Watched;
use crate::workload::TRANCHE_CREDITS;

/// Wallets where nothing else is asked for.
const WALLETS: u64 = 10_000;
/// Seeds of a measurement: its clients take one each.
const SEEDS_EACH: u64 = 1_000_000;

/// A run, as far as it has come.
pub struct Course<'a> {
    /// What loads are made of.
    pub options: &'a LoadOptions,
    watched: &'a Watched,
    measurements: Vec<Measured>,
    audit: Audit,
    opened: bool,
}

impl<'a> Course<'a> {
    /// At its beginning.
    pub fn new(options: &'a LoadOptions, watched: &'a Watched) -> Course<'a> {
        let (measurements, audit) = (Vec::new(), Audit::default());
        Course { options, watched, measurements, audit, opened: false }
    }

    /// Filled wallets for the scenarios that share them.
    pub async fn wallets<T: Target>(&self, target: &T) -> anyhow::Result<Arc<Books>> {
        let wallets = self.options.wallets.unwrap_or(WALLETS);
        let books = Arc::new(Books::new(wallets, TRANCHE_CREDITS, rand::random()));
        let filling = bar("filling wallets", wallets);
        books.fill(target, &filling).await?;
        filling.finish_and_clear();
        Ok(books)
    }

    /// Measures the loads of a scenario that every target can take.
    pub async fn scenario<T: Target>(
        &mut self,
        scenario: Scenario,
        target: &T,
        books: &Arc<Books>,
    ) -> anyhow::Result<()> {
        let loads = self.options.loads(scenario);
        if scenario != Scenario::Hot {
            return self.measure(target, books, &loads).await;
        }
        let hot = Arc::new(Books::new(1, self.options.hot_tranche_credits, rand::random()));
        hot.fill(target, &bar("filling the hot wallet", 1)).await?;
        self.measure(target, &hot, &loads).await?;
        self.audit(target, &hot).await
    }

    /// Measures loads, and the open loops that are to follow them.
    pub async fn measure<T: Target>(
        &mut self,
        target: &T,
        books: &Arc<Books>,
        loads: &[Load],
    ) -> anyhow::Result<()> {
        for load in loads {
            let reached_a_minute = self.measure_one(target, books, load).await?;
            let follow = match self.options.open {
                Open::None => false,
                Open::First => load.scenario == "single" && !self.opened,
                Open::All => ["single", "batch", "stream"].contains(&load.scenario),
            };
            if follow && matches!(load.pace, Pace::Closed { .. }) {
                self.opened = true;
                for open in self.options.open_loops(load, reached_a_minute) {
                    self.measure_one(target, books, &open).await?;
                }
            }
        }
        Ok(())
    }

    /// How many debits a minute it reached.
    async fn measure_one<T: Target>(
        &mut self,
        target: &T,
        books: &Arc<Books>,
        load: &Load,
    ) -> anyhow::Result<u64> {
        // Each has a stretch of its own.
        let seed = load.seed.wrapping_add(SEEDS_EACH * self.measurements.len() as u64);
        let load = Load { seed, ..load.clone() };
        let measured = measure(target, books, &load, self.watched).await?;
        let reached = measured.debits_a_minute;
        self.measurements.push(measured);
        Ok(reached)
    }

    /// Debits that were applied in all measurements so far.
    pub fn applied(&self) -> u64 {
        self.measurements.iter().map(|measured| measured.applied).sum()
    }

    /// Debits a second of the last measurement.
    pub fn last_debits_a_second(&self) -> u64 {
        self.measurements.last().map_or(0, |measured| measured.debits_a_second)
    }

    /// Compares every wallet of some books with what the target says. An error if one differs.
    pub async fn audit<T: Target>(&mut self, target: &T, books: &Books) -> anyhow::Result<()> {
        let auditing = bar("auditing wallets", books.wallets());
        self.audit += books.audit(target, &auditing).await?;
        auditing.finish_and_clear();
        Ok(())
    }

    /// What came of it.
    pub fn report<T: Target>(self, system: String, setup: String, machine: Machine, target: &T) -> Report {
        let Course { measurements, audit, .. } = self;
        let (retries, starts) = (target.retries(), Vec::new());
        Report { system, machine, setup, measurements, starts, retries, audit }
    }
}
