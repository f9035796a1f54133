//! What a run tells: a table for people, JSON for programs.

// Figures for people; nothing is booked from them.
#![allow(clippy::float_arithmetic)]

use std::fmt;

use comfy_table::{CellAlignment, Table, presets};
use hdrhistogram::Histogram;
use serde::Serialize;

use super::books::Audit;
use super::load::{Call, Counts};
use super::machine::Machine;
use super::measure::Load;
use super::target::LogCounts;
use super::usage::{ProcessUsage, Usage};

/// From this share on a core or a thread counts as busy all the time.
const SATURATED: f64 = 0.9;
/// An open loop that answers less than this share of what was asked, and lacks more than one call, has
/// not kept up.
const KEPT_UP: f64 = 0.95;
/// Points of a latency's distribution for each halving of the calls that are left.
const CURVE_STEPS: u32 = 4;

/// A whole run.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// What was measured, and its version.
    pub system: String,
    /// Where it ran.
    pub machine: Machine,
    /// How it was set up: servers, replicas, what is synced when.
    pub setup: String,
    /// The measurements, in the order in which they were made.
    pub measurements: Vec<Measured>,
    /// How long servers took to start again at the end, where that was asked for.
    pub starts: Vec<Start>,
    /// Requests that were tried again, over the whole run.
    pub retries: u64,
    /// That the wallets hold what they must.
    pub audit: Audit,
}

/// A server that was started again over what it held.
#[derive(Clone, Debug, Serialize)]
pub struct Start {
    /// Which.
    pub process: String,
    /// How it had ended.
    pub after: Ending,
    /// From the start of its process until it said that it was ready, in milliseconds.
    pub ready_ms: u64,
    /// Its memory then (resident set), in MiB.
    pub resident_mib: u64,
}

/// How a server ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Ending {
    /// It was asked to.
    Stopped,
    /// By SIGKILL.
    Killed,
}

impl Start {
    /// In a sentence.
    pub fn told(&self) -> String {
        let Start { process, after, ready_ms, resident_mib } = self;
        let after = match after {
            Ending::Stopped => "stopped",
            Ending::Killed => "killed with -9",
        };
        format!(
            "{process}, {after} and started again, was ready after {} ms, with {resident_mib} MiB",
            grouped(*ready_ms)
        )
    }
}

/// Whether calls wait for one another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Pace {
    /// So many clients, each calling again when it is answered.
    Closed {
        /// How many.
        clients: usize,
    },
    /// So many debits (or balances asked for) a minute, whether or not those before are answered.
    Open {
        /// How many.
        a_minute: u64,
    },
}

impl fmt::Display for Pace {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Pace::Closed { clients: 1 } => write!(out, "1 client"),
            Pace::Closed { clients } => write!(out, "{} clients", grouped(*clients as u64)),
            Pace::Open { a_minute } => write!(out, "open, {}/min", grouped(*a_minute)),
        }
    }
}

/// What was measured of one sort of load.
#[derive(Clone, Debug, Serialize)]
pub struct Measured {
    /// What it was for.
    pub scenario: &'static str,
    /// It in a few words.
    pub told: String,
    /// What a call was.
    pub call: Call,
    /// Debits of a call; none where calls ask for balances.
    pub debits_a_call: usize,
    /// How calls spread over wallets.
    pub spread: &'static str,
    /// How many wallets there were.
    pub wallets: u64,
    /// How they were paced.
    pub pace: Pace,
    /// Debits applied within the span.
    pub applied: u64,
    /// Balances told within it.
    pub read: u64,
    /// Debits denied within it.
    pub denied: u64,
    /// Refills within it.
    pub refills: u64,
    /// Applied debits a second.
    pub debits_a_second: u64,
    /// Applied debits a minute.
    pub debits_a_minute: u64,
    /// Balances told a second.
    pub reads_a_second: u64,
    /// Latencies of calls.
    pub latency: Latency,
    /// CPU time of each process for one applied debit (or one balance told), denials and refills
    /// included.
    pub cpu_us_a_debit: Vec<Share>,
    /// Each process's part of all the machine's CPU time, in percent.
    pub cpu_percent: Vec<Share>,
    /// Bytes that each process handed to `write` calls for one applied debit, likewise.
    pub written_bytes_a_debit: Vec<Share>,
    /// Bytes written to the disk, by whomever, for one applied debit.
    pub device_bytes_a_debit: Option<f64>,
    /// Each process's memory at the end (resident set), in MiB.
    pub resident_mib: Vec<Share>,
    /// What was written to the log, where the system tells.
    pub log: Option<LogRates>,
    /// What keeps it from being faster.
    pub limit: String,
    /// What was used meanwhile.
    pub usage: Usage,
}

/// Latencies of calls, in microseconds. In an open loop from the intended start.
#[derive(Clone, Debug, Serialize)]
pub struct Latency {
    /// How many calls.
    pub calls: u64,
    /// Half of them were faster.
    pub p50_us: u64,
    /// 99 of 100 were faster.
    pub p99_us: u64,
    /// 999 of 1,000 were faster.
    pub p999_us: u64,
    /// The slowest.
    pub max_us: u64,
    /// Percent of the calls, and what they took at most: the distribution, finer towards its end.
    pub curve: Vec<(f64, u64)>,
}

impl Latency {
    fn of(latency_us: &Histogram<u64>) -> Latency {
        let steps = latency_us.iter_quantiles(CURVE_STEPS);
        let mut curve: Vec<_> =
            steps.map(|step| (step.quantile() * 100.0, step.value_iterated_to())).collect();
        // Where few calls are left, steps come to the same.
        curve.dedup();
        Latency {
            calls: latency_us.len(),
            p50_us: latency_us.value_at_quantile(0.5),
            p99_us: latency_us.value_at_quantile(0.99),
            p999_us: latency_us.value_at_quantile(0.999),
            max_us: latency_us.max(),
            curve,
        }
    }
}

/// What was written to the log, over all servers.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct LogRates {
    /// Syncs a second.
    pub syncs_a_second: f64,
    /// Entries a second, each counted once, however many replicas hold it.
    pub entries_a_second: f64,
    /// Applied debits for each entry: how well they share one.
    pub debits_an_entry: f64,
    /// Bytes for one applied debit.
    pub bytes_a_debit: f64,
}

impl LogRates {
    fn of(log: LogCounts, applied: u64, span_ms: u64) -> LogRates {
        let a_second = |count: u64| ratio(count * 1_000, span_ms);
        LogRates {
            syncs_a_second: a_second(log.syncs),
            entries_a_second: a_second(log.entries),
            debits_an_entry: ratio(applied, log.entries),
            bytes_a_debit: ratio(log.bytes, applied),
        }
    }
}

/// One process's part.
#[derive(Clone, Debug, Serialize)]
pub struct Share {
    /// Which process.
    pub process: String,
    /// How much.
    pub amount: f64,
}

impl Measured {
    /// Puts together what was counted and what it cost.
    pub fn new(load: &Load, wallets: u64, counts: &Counts, usage: Usage, log: Option<LogCounts>) -> Measured {
        let Counts { applied, read, denied, refills, ref latency_us } = *counts;
        let (done, debits_a_call) = (applied + read, load.call.debits());
        let shares = |of: &dyn Fn(&ProcessUsage) -> f64| -> Vec<Share> {
            let processes = usage.processes.iter();
            processes.map(|own| Share { process: own.name.clone(), amount: of(own) }).collect()
        };
        let span_ms = usage.span_ms.max(1);
        Measured {
            scenario: load.scenario,
            told: load.told(),
            call: load.call,
            debits_a_call,
            spread: load.spread.name(),
            wallets,
            pace: load.pace,
            applied,
            read,
            denied,
            refills,
            debits_a_second: applied * 1_000 / span_ms,
            debits_a_minute: applied * 60_000 / span_ms,
            reads_a_second: read * 1_000 / span_ms,
            latency: Latency::of(latency_us),
            cpu_us_a_debit: shares(&|own| ratio(own.cpu_ms * 1_000, done)),
            cpu_percent: shares(&|own| ratio(own.cpu_ms * 100, span_ms * usage.cores)),
            written_bytes_a_debit: shares(&|own| ratio(own.written_bytes, done)),
            device_bytes_a_debit: usage.device_written_bytes.map(|bytes| ratio(bytes, done)),
            resident_mib: shares(&|own| ratio(own.resident_bytes, 1 << 20)),
            log: log.map(|log| LogRates::of(log, applied, span_ms)),
            limit: limit(load.pace, done + denied + debits_a_call.max(1) as u64, &usage),
            usage,
        }
    }

    /// Debits applied, or balances told, a second.
    pub fn done_a_second(&self) -> u64 {
        self.debits_a_second + self.reads_a_second
    }
}

/// What keeps a load from being faster, as far as it shows. `answered` may be one call too high: where
/// few calls fall into the span, it is chance on which side of its end the last one lies.
fn limit(pace: Pace, answered: u64, usage: &Usage) -> String {
    let of_span = |cpu_ms: u64| cpu_ms as f64 / usage.span_ms.max(1) as f64;
    if let Pace::Open { a_minute } = pace {
        let share = of_span(answered * 60_000) / a_minute as f64;
        let told = if share < KEPT_UP { "NOT kept up with" } else { "kept up with" };
        return format!("the rate, {told}; {}", busy(usage));
    }
    let cores = usage.cores as f64;
    if of_span(usage.machine_cpu_ms) >= SATURATED * cores {
        return format!("CPU: {}", busy(usage));
    }
    let busiest = usage.processes.iter().max_by_key(|own| own.busiest_thread_cpu_ms);
    match busiest {
        Some(own) if of_span(own.busiest_thread_cpu_ms) >= SATURATED => {
            format!("one thread, {} of {}; {}", own.busiest_thread, own.name, busy(usage))
        }
        _ => format!("waiting (clients, disk); {}", busy(usage)),
    }
}

/// How many cores are busy, and with what.
fn busy(usage: &Usage) -> String {
    let cores_of = |cpu_ms: u64| cpu_ms as f64 / usage.span_ms.max(1) as f64;
    let own: u64 = usage.processes.iter().map(|own| own.cpu_ms).sum();
    let parts = usage.processes.iter().map(|own| format!("{} {:.2}", own.name, cores_of(own.cpu_ms)));
    let others = format!("others {:.2}", cores_of(usage.machine_cpu_ms.saturating_sub(own)));
    let parts: Vec<_> = parts.chain([others]).collect();
    let whole = cores_of(usage.machine_cpu_ms);
    format!("{whole:.2} of {} cores busy ({})", usage.cores, parts.join(", "))
}

/// To two digits; 0 of nothing.
fn ratio(amount: u64, of: u64) -> f64 {
    if of == 0 { 0.0 } else { (amount as f64 * 100.0 / of as f64).round() / 100.0 }
}

/// Figures in rows under a head.
pub struct Sheet {
    /// What they are.
    pub caption: &'static str,
    /// What stands in each column.
    pub head: Vec<&'static str>,
    /// The columns that hold text; the others hold figures.
    pub text: &'static [usize],
    /// One of each measurement, in their order.
    pub rows: Vec<Vec<String>>,
}

impl Report {
    /// For people.
    pub fn table(&self) -> String {
        let mut text = format!("{} on {}\n{}", self.system, self.machine.told(), self.setup);
        for sheet in self.sheets() {
            text.push_str(&format!("\n\n{}\n{}", sheet.caption, sheet.table()));
        }
        for start in &self.starts {
            text.push_str(&format!("\n\n{}", start.told()));
        }
        text.push_str(&format!("\n\naudit: {}", self.audited()));
        text
    }

    /// What the audit found, in a sentence.
    pub fn audited(&self) -> String {
        let Audit { wallets, granted, debited, available } = &self.audit;
        format!(
            "{} wallets hold what they must: {} granted - {} debited = {}; {} requests were tried again",
            grouped(*wallets),
            grouped(*granted),
            grouped(*debited),
            grouped(*available),
            grouped(self.retries),
        )
    }

    /// All figures.
    pub fn sheets(&self) -> [Sheet; 3] {
        [speed(&self.measurements), costs(&self.measurements), machinery(&self.measurements)]
    }

    /// For programs.
    pub fn json(&self) -> anyhow::Result<String> {
        Ok(serde_json::to_string_pretty(self)?)
    }
}

fn speed(measurements: &[Measured]) -> Sheet {
    let row = |own: &Measured| {
        let ms = |us: u64| format!("{:.2}", us as f64 / 1_000.0);
        let asked = (own.applied + own.denied).max(1);
        let unless_none = |number: u64| if number == 0 { String::new() } else { grouped(number) };
        vec![
            own.told.clone(),
            grouped(own.wallets),
            unless_none(own.debits_a_call as u64),
            unless_none(own.debits_a_second),
            unless_none(own.debits_a_minute),
            unless_none(own.reads_a_second),
            ms(own.latency.p50_us),
            ms(own.latency.p99_us),
            ms(own.latency.p999_us),
            ms(own.latency.max_us),
            format!("{:.1} %", own.denied as f64 * 100.0 / asked as f64),
            grouped(own.refills),
        ]
    };
    let head = [
        "load",
        "wallets",
        "a call",
        "debits/s",
        "debits/min",
        "reads/s",
        "p50 ms",
        "p99 ms",
        "p99.9 ms",
        "max ms",
        "denied",
        "refills",
    ];
    Sheet::new("Speed", &head, &[1], measurements.iter().map(row))
}

fn costs(measurements: &[Measured]) -> Sheet {
    let row = |own: &Measured| {
        vec![
            shares(&own.cpu_us_a_debit, 1),
            shares(&own.written_bytes_a_debit, 0),
            own.device_bytes_a_debit.map_or("?".to_owned(), |bytes| format!("{bytes:.0}")),
            own.limit.clone(),
        ]
    };
    let caption = "What an applied debit costs, denials and refills included, and what limits it";
    let head = ["CPU µs", "bytes written", "bytes to disk", "limited by"];
    Sheet::new(caption, &head, &[1, 2, 4], measurements.iter().map(row))
}

fn machinery(measurements: &[Measured]) -> Sheet {
    let row = |own: &Measured| {
        let rate = |of: &dyn Fn(LogRates) -> String| own.log.map_or("?".to_owned(), of);
        vec![
            rate(&|log| format!("{:.0}", log.syncs_a_second)),
            rate(&|log| format!("{:.0}", log.entries_a_second)),
            rate(&|log| format!("{:.1}", log.debits_an_entry)),
            rate(&|log| format!("{:.0}", log.bytes_a_debit)),
            shares(&own.resident_mib, 0),
            shares(&own.cpu_percent, 1),
        ]
    };
    let head = [
        "syncs/s",
        "log entries/s",
        "debits an entry",
        "log bytes a debit",
        "MiB of memory",
        "% of the machine's CPU",
    ];
    let caption = "The log over all servers, and memory and CPU of each process";
    Sheet::new(caption, &head, &[5, 6], measurements.iter().map(row))
}

impl Sheet {
    /// With the number of its measurement before each row.
    fn new(
        caption: &'static str,
        head: &[&'static str],
        text: &'static [usize],
        rows: impl Iterator<Item = Vec<String>>,
    ) -> Sheet {
        let head = [""].iter().chain(head).copied().collect();
        let numbered = |(number, row): (usize, Vec<String>)| [number.to_string()].into_iter().chain(row);
        let rows = (1..).zip(rows).map(|row| numbered(row).collect()).collect();
        Sheet { caption, head, text, rows }
    }

    /// For a terminal: text leans to the left, figures to the right.
    fn table(&self) -> String {
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        table.set_header(&self.head);
        table.add_rows(&self.rows);
        for (place, column) in table.column_iter_mut().enumerate() {
            let lean = if self.text.contains(&place) { CellAlignment::Left } else { CellAlignment::Right };
            column.set_cell_alignment(lean);
            column.set_padding((0, 2));
        }
        let lines: Vec<_> = table.lines().map(|line| line.trim_end().to_owned()).collect();
        lines.join("\n")
    }
}

/// Each process's part, by name.
fn shares(shares: &[Share], digits: usize) -> String {
    let parts = shares.iter().filter(|share| share.amount > 0.0);
    let parts: Vec<_> = parts.map(|share| format!("{} {:.digits$}", share.process, share.amount)).collect();
    parts.join(" + ")
}

/// A number with a comma for each thousand.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::usage::ProcessUsage;
    use super::*;

    fn usage(machine_cpu_ms: u64, busiest_thread_cpu_ms: u64) -> Usage {
        let server = ProcessUsage {
            name: "server".to_owned(),
            cpu_ms: 1_000,
            written_bytes: 0,
            resident_bytes: 0,
            busiest_thread: "log".to_owned(),
            busiest_thread_cpu_ms,
        };
        Usage {
            span_ms: 1_000,
            cores: 2,
            machine_cpu_ms,
            device_written_bytes: None,
            processes: vec![server],
        }
    }

    #[test]
    fn rates_of_the_log_are_by_second_and_by_applied_debit() {
        let rates = LogRates::of(LogCounts { syncs: 300, entries: 150, bytes: 90_000 }, 600, 2_000);
        let expected = LogRates {
            syncs_a_second: 150.0,
            entries_a_second: 75.0,
            debits_an_entry: 4.0,
            bytes_a_debit: 150.0,
        };
        assert_eq!(rates, expected);
        // Reads write nothing.
        let nothing = LogRates::of(LogCounts::default(), 0, 2_000);
        assert_eq!((nothing.debits_an_entry, nothing.bytes_a_debit), (0.0, 0.0));
    }

    #[test]
    fn what_limits_is_the_machine_one_thread_the_rate_or_nothing_that_shows() {
        let closed = Pace::Closed { clients: 8 };
        let busy = "1.90 of 2 cores busy (server 1.00, others 0.90)";
        assert_eq!(limit(closed, 1, &usage(1_900, 100)), format!("CPU: {busy}"));
        assert!(limit(closed, 1, &usage(1_500, 950)).starts_with("one thread, log of server; 1.50 of 2"));
        assert!(limit(closed, 1, &usage(1_500, 500)).starts_with("waiting"));
        let open = Pace::Open { a_minute: 6_000 };
        assert!(limit(open, 96, &usage(500, 0)).starts_with("the rate, kept up with"));
        assert!(limit(open, 94, &usage(500, 0)).starts_with("the rate, NOT kept up with"));
    }

    #[test]
    fn thousands_are_told_apart() {
        let numbers = [0, 999, 1_000, 1_234_567].map(grouped);
        assert_eq!(numbers, ["0", "999", "1,000", "1,234,567"]);
    }
}
