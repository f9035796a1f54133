//! What a comparison tells: a table for people, JSON for programs.
//!
//! Of several repetitions the median stands, with the least and the greatest. A ratio is taken within a
//! repetition, whose turns lay next to one another; its median and spread are those of the ratios, not
//! ratios of medians.

// Figures for people; nothing is booked from them.
#![allow(clippy::float_arithmetic)]

use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;
use serde::ser::{SerializeStruct, Serializer};

use super::System;
use super::ledger::Pool;
use crate::run::books::Audit;
use crate::run::machine::Machine;
use crate::run::report::{Measured, Pace};

/// What Purser is set against.
const PEERS: [System; 2] = [System::Postgres, System::PostgresQuorum];

/// A whole comparison.
#[derive(Debug)]
pub struct Comparison {
    /// What was compared.
    pub versions: Vec<String>,
    /// Where it ran.
    pub machine: Machine,
    /// How PostgreSQL was reached.
    pub pool: Pool,
    /// Every turn, in the order in which they were taken.
    pub turns: Vec<Turn>,
}

/// One system's turn.
#[derive(Debug, Serialize)]
pub struct Turn {
    /// Which system.
    pub system: System,
    /// Which repetition, counted from 1.
    pub repetition: u32,
    /// The measurements: the same loads in the same order in every turn.
    pub measurements: Vec<Measured>,
    /// That the wallets held what they must.
    pub audits: Vec<Audit>,
    /// Requests that were tried again.
    pub retries: u64,
}

/// The median of some figures, and how far they lie apart.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Spread {
    /// The one in the middle, or between the two in the middle.
    pub median: f64,
    /// The least.
    pub min: f64,
    /// The greatest.
    pub max: f64,
}

impl Spread {
    /// `None` of nothing.
    fn of(mut figures: Vec<f64>) -> Option<Spread> {
        figures.sort_unstable_by(f64::total_cmp);
        let (min, max) = (*figures.first()?, *figures.last()?);
        let (below, above) = (figures[(figures.len() - 1) / 2], figures[figures.len() / 2]);
        Some(Spread { median: f64::midpoint(below, above), min, max })
    }

    fn told(self, digits: usize) -> String {
        let Spread { median, min, max } = self;
        format!("{median:.digits$} ({min:.digits$} to {max:.digits$})")
    }
}

/// One system under one load, over all repetitions.
#[derive(Debug, Serialize)]
struct Summary {
    load: String,
    system: System,
    debits_a_second: Spread,
    p50_ms: Spread,
    p99_ms: Spread,
    servers_cpu_us_a_debit: Spread,
    denied_percent: f64,
}

/// Purser's debits a second over a peer's, under one load.
#[derive(Debug, Serialize)]
struct Ratio {
    load: String,
    to: System,
    purser_over_peer: Spread,
}

impl Comparison {
    /// A table for people.
    pub fn table(&self) -> String {
        let Machine { cores, cpu, memory_mib, kernel, disk, load_before } = &self.machine;
        let Pool { connections, per_wallet, lanes } = self.pool;
        let repetitions = self.turns.iter().map(|turn| turn.repetition).max().unwrap_or_default();
        let audits = self.turns.iter().flat_map(|turn| &turn.audits);
        let (wallets, debited) =
            audits.fold((0, 0), |(wallets, debited), own| (wallets + own.wallets, debited + own.debited));
        format!(
            "{}\n{cores} cores of {cpu}, {memory_mib} MiB, Linux {kernel}, {disk}, load before {load_before}\n\
             PostgreSQL: {connections} connections, {per_wallet} calls a wallet at once, batches in {lanes} transactions\n\
             Medians of {repetitions} repetitions (least to greatest)\n\n{}\n\n{}\n\n\
             audit: {wallets} wallets hold what they must, {debited} credits debited; {} requests were tried again",
            self.versions.join(", "),
            self.speed(),
            self.ratios_told(),
            self.turns.iter().map(|turn| turn.retries).sum::<u64>(),
        )
    }

    fn speed(&self) -> String {
        let head = ["load", "system", "debits/s", "p50 ms", "p99 ms", "servers' CPU us a debit", "denied"];
        let rows = self.summaries().into_iter().map(|own| {
            vec![
                own.load,
                own.system.name().to_owned(),
                own.debits_a_second.told(0),
                own.p50_ms.told(1),
                own.p99_ms.told(1),
                own.servers_cpu_us_a_debit.told(0),
                format!("{:.1} %", own.denied_percent),
            ]
        });
        table(&head, rows)
    }

    fn ratios_told(&self) -> String {
        let head = ["load", "Purser over", "ratio of debits/s"];
        let rows = self
            .ratios()
            .into_iter()
            .map(|own| vec![own.load, own.to.name().to_owned(), own.purser_over_peer.told(2)]);
        table(&head, rows)
    }

    fn summaries(&self) -> Vec<Summary> {
        let mut summaries = Vec::new();
        for (place, load) in self.loads().into_iter().enumerate() {
            let mut systems: Vec<System> = Vec::new();
            for turn in &self.turns {
                if !systems.contains(&turn.system) {
                    systems.push(turn.system);
                }
            }
            summaries.extend(systems.into_iter().filter_map(|system| self.summary(place, &load, system)));
        }
        summaries
    }

    fn summary(&self, place: usize, load: &str, system: System) -> Option<Summary> {
        let turns = self.turns.iter().filter(|turn| turn.system == system);
        let measured: Vec<_> = turns.filter_map(|turn| turn.measurements.get(place)).collect();
        let spread =
            |figure: &dyn Fn(&Measured) -> f64| Spread::of(measured.iter().map(|own| figure(own)).collect());
        let servers = |own: &Measured| {
            own.cpu_us_a_debit.iter().filter(|share| share.process != "load").map(|share| share.amount).sum()
        };
        let denied = |own: &Measured| own.denied as f64 * 100.0 / (own.applied + own.denied).max(1) as f64;
        Some(Summary {
            load: load.to_owned(),
            system,
            debits_a_second: spread(&|own| own.debits_a_second as f64)?,
            p50_ms: spread(&|own| own.latency.p50_us as f64 / 1_000.0)?,
            p99_ms: spread(&|own| own.latency.p99_us as f64 / 1_000.0)?,
            servers_cpu_us_a_debit: spread(&servers)?,
            denied_percent: spread(&denied)?.median,
        })
    }

    fn ratios(&self) -> Vec<Ratio> {
        let mut ratios = Vec::new();
        for (place, load) in self.loads().into_iter().enumerate() {
            ratios.extend(PEERS.into_iter().filter_map(|to| {
                let load = load.clone();
                Some(Ratio { load, to, purser_over_peer: Spread::of(self.paired(place, to))? })
            }));
        }
        ratios
    }

    /// Purser's debits a second over a peer's, one for each repetition that has both.
    fn paired(&self, place: usize, peer: System) -> Vec<f64> {
        let speed = |turn: &Turn| turn.measurements.get(place).map(|own| own.debits_a_second as f64);
        let own = self.turns.iter().filter(|turn| turn.system == System::Purser);
        let ratio = |own: &Turn| {
            let peer = |turn: &&Turn| turn.system == peer && turn.repetition == own.repetition;
            let peer = speed(self.turns.iter().find(peer)?)?;
            speed(own).filter(|_| peer > 0.0).map(|own| own / peer)
        };
        own.filter_map(ratio).collect()
    }

    /// What each load is called.
    fn loads(&self) -> Vec<String> {
        let told = |own: &Measured| {
            let clients = match own.pace {
                Pace::Closed { clients } => format!("{clients} clients"),
                Pace::Open { .. } => "open".to_owned(),
            };
            let wallets = if own.wallets == 1 { "one wallet" } else { own.spread };
            format!("{clients}, {wallets}, {} a call", own.debits_a_call)
        };
        self.turns.first().map(|turn| turn.measurements.iter().map(told).collect()).unwrap_or_default()
    }
}

impl Serialize for Comparison {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = serializer.serialize_struct("Comparison", 6)?;
        fields.serialize_field("versions", &self.versions)?;
        fields.serialize_field("machine", &self.machine)?;
        fields.serialize_field("pool", &self.pool)?;
        fields.serialize_field("summaries", &self.summaries())?;
        fields.serialize_field("ratios", &self.ratios())?;
        fields.serialize_field("turns", &self.turns)?;
        fields.end()
    }
}

/// Rows under a head; the first two columns lean to the left, figures to the right.
fn table(head: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(head);
    table.add_rows(rows);
    for (place, column) in table.column_iter_mut().enumerate() {
        column.set_cell_alignment(if place < 2 { CellAlignment::Left } else { CellAlignment::Right });
        column.set_padding((0, 2));
    }
    let lines: Vec<_> = table.lines().map(|line| line.trim_end().to_owned()).collect();
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_lies_in_the_middle_whatever_the_order() {
        let odd = Spread::of(vec![30.0, 10.0, 20.0]).expect("some");
        assert_eq!(odd, Spread { median: 20.0, min: 10.0, max: 30.0 });
        let even = Spread::of(vec![4.0, 1.0, 2.0, 3.0]).expect("some");
        assert_eq!(even, Spread { median: 2.5, min: 1.0, max: 4.0 });
        assert_eq!(Spread::of(Vec::new()), None);
    }
}
