//! What a run tells: a table for people, JSON for programs.

// Figures for people; nothing is booked from them.
#![allow(clippy::float_arithmetic)]

use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

use super::books::Audit;
use super::load::Counts;
use super::machine::Machine;
use super::usage::Usage;
use crate::workload::Spread;

/// From this share on a core or a thread counts as busy all the time.
const SATURATED: f64 = 0.9;
/// An open loop that answers less than this share of what was asked, and lacks more than one call, has
/// not kept up.
const KEPT_UP: f64 = 0.95;

/// A whole run.
#[derive(Debug, Serialize)]
pub struct Report {
    /// The version of the servers' binary.
    pub version: String,
    /// Where it ran.
    pub machine: Machine,
    /// How many servers.
    pub servers: usize,
    /// Shards of the cluster.
    pub shards: u16,
    /// Wallets, one a customer.
    pub wallets: u64,
    /// The measurements, in the order in which they were made.
    pub measurements: Vec<Measured>,
    /// Requests that were tried again, over the whole run.
    pub retries: u64,
    /// That the wallets hold what they must.
    pub audit: Audit,
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
    /// So many debits a second, whether or not the ones before are answered.
    Open {
        /// How many a second.
        debits_a_second: u64,
    },
}

/// What was measured of one sort of load.
#[derive(Debug, Serialize)]
pub struct Measured {
    /// Debits of a call.
    pub debits_a_call: usize,
    /// How they spread over wallets.
    pub spread: &'static str,
    /// How they were paced.
    pub pace: Pace,
    /// Debits applied within the span.
    pub applied: u64,
    /// Debits denied within it.
    pub denied: u64,
    /// Refills within it.
    pub refills: u64,
    /// Applied debits a second.
    pub debits_a_second: u64,
    /// Latencies of calls.
    pub latency: Latency,
    /// CPU time of each process for one applied debit, denials and refills included.
    pub cpu_us_a_debit: Vec<Share>,
    /// Bytes that each process handed to `write` calls for one applied debit, likewise.
    pub written_bytes_a_debit: Vec<Share>,
    /// Bytes written to the disk, by whomever, for one applied debit.
    pub device_bytes_a_debit: Option<f64>,
    /// What keeps it from being faster.
    pub limit: String,
    /// What was used meanwhile.
    pub usage: Usage,
}

/// Latencies of calls, in microseconds. In an open loop from the intended start.
#[derive(Debug, Serialize)]
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
}

/// One process's part.
#[derive(Debug, Serialize)]
pub struct Share {
    /// Which process.
    pub process: String,
    /// How much.
    pub amount: f64,
}

impl Measured {
    /// Puts together what was counted and what it cost.
    pub fn new(debits_a_call: usize, spread: Spread, pace: Pace, counts: &Counts, usage: Usage) -> Measured {
        let Counts { applied, denied, refills, latency_us } = counts;
        let each = |amount: f64| if *applied == 0 { 0.0 } else { amount / *applied as f64 };
        let shares = |of: &dyn Fn(&super::usage::ProcessUsage) -> f64| -> Vec<Share> {
            let processes = usage.processes.iter();
            processes.map(|own| Share { process: own.name.clone(), amount: rounded(each(of(own))) }).collect()
        };
        Measured {
            debits_a_call,
            spread: spread.name(),
            pace,
            applied: *applied,
            denied: *denied,
            refills: *refills,
            debits_a_second: applied * 1_000 / usage.span_ms.max(1),
            latency: Latency {
                calls: latency_us.len(),
                p50_us: latency_us.value_at_quantile(0.5),
                p99_us: latency_us.value_at_quantile(0.99),
                p999_us: latency_us.value_at_quantile(0.999),
                max_us: latency_us.max(),
            },
            cpu_us_a_debit: shares(&|own| own.cpu_ms as f64 * 1_000.0),
            written_bytes_a_debit: shares(&|own| own.written_bytes as f64),
            device_bytes_a_debit: usage.device_written_bytes.map(|bytes| rounded(each(bytes as f64))),
            limit: limit(pace, applied + denied + debits_a_call as u64, &usage),
            usage,
        }
    }
}

/// What keeps a load from being faster, as far as it shows. `answered` may be one call too high: where
/// few calls fall into the span, it is chance on which side of its end the last one lies.
fn limit(pace: Pace, answered: u64, usage: &Usage) -> String {
    let of_span = |cpu_ms: u64| cpu_ms as f64 / usage.span_ms.max(1) as f64;
    if let Pace::Open { debits_a_second } = pace {
        let share = of_span(answered * 1_000) / debits_a_second as f64;
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

fn rounded(amount: f64) -> f64 {
    (amount * 100.0).round() / 100.0
}

impl Report {
    /// For people.
    pub fn table(&self) -> String {
        let machine = &self.machine;
        let mut text = format!(
            "Purser {} on {} cores ({}), {} MiB, Linux {}, data on {}, load average before {}\n\
             {} server(s), {} shards, {} wallets\n\n",
            self.version,
            machine.cores,
            machine.cpu,
            machine.memory_mib,
            machine.kernel,
            machine.disk,
            machine.load_before,
            self.servers,
            self.shards,
            grouped(self.wallets),
        );
        text.push_str(&self.speed());
        text.push_str("\n\nWhat an applied debit costs, denials and refills included, and what limits it\n");
        text.push_str(&self.costs());
        let Audit { wallets, granted, debited, available } = &self.audit;
        text.push_str(&format!(
            "\n\naudit: {} wallets hold what they must: {} granted - {} debited = {}\n{} requests were tried again",
            grouped(*wallets),
            grouped(*granted),
            grouped(*debited),
            grouped(*available),
            grouped(self.retries),
        ));
        text
    }

    fn speed(&self) -> String {
        let head = [
            "",
            "load",
            "wallets",
            "a call",
            "debits/s",
            "debits/min",
            "p50 ms",
            "p99 ms",
            "p99.9 ms",
            "max ms",
            "denied",
            "refills",
        ];
        let rows = self.measurements.iter().enumerate().map(|(number, own)| {
            let pace = match own.pace {
                Pace::Closed { clients } => format!("{clients} clients"),
                Pace::Open { debits_a_second } => format!("{}/s, open", grouped(debits_a_second)),
            };
            let ms = |us: u64| format!("{:.2}", us as f64 / 1_000.0);
            let asked = (own.applied + own.denied).max(1);
            vec![
                (number + 1).to_string(),
                pace,
                own.spread.to_owned(),
                grouped(own.debits_a_call as u64),
                grouped(own.debits_a_second),
                grouped(own.debits_a_second * 60),
                ms(own.latency.p50_us),
                ms(own.latency.p99_us),
                ms(own.latency.p999_us),
                ms(own.latency.max_us),
                format!("{:.1} %", own.denied as f64 * 100.0 / asked as f64),
                grouped(own.refills),
            ]
        });
        table(&head, &[1, 2], rows)
    }

    fn costs(&self) -> String {
        let head = ["", "CPU us", "bytes written", "bytes to disk", "limited by"];
        let rows = self.measurements.iter().enumerate().map(|(number, own)| {
            vec![
                (number + 1).to_string(),
                shares(&own.cpu_us_a_debit, 1),
                shares(&own.written_bytes_a_debit, 0),
                own.device_bytes_a_debit.map_or("?".to_owned(), |bytes| format!("{bytes:.0}")),
                own.limit.clone(),
            ]
        });
        table(&head, &[1, 2, 4], rows)
    }

    /// For programs.
    pub fn json(&self) -> anyhow::Result<String> {
        Ok(serde_json::to_string_pretty(self)?)
    }
}

/// Rows under a head; text leans to the left, figures to the right.
fn table(head: &[&str], text: &[usize], rows: impl Iterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(head);
    table.add_rows(rows);
    for (place, column) in table.column_iter_mut().enumerate() {
        let lean = if text.contains(&place) { CellAlignment::Left } else { CellAlignment::Right };
        column.set_cell_alignment(lean);
        column.set_padding((0, 2));
    }
    let lines: Vec<_> = table.lines().map(|line| line.trim_end().to_owned()).collect();
    lines.join("\n")
}

/// Each process's part, by name.
fn shares(shares: &[Share], digits: usize) -> String {
    let parts = shares.iter().filter(|share| share.amount > 0.0);
    let parts: Vec<_> = parts.map(|share| format!("{} {:.digits$}", share.process, share.amount)).collect();
    parts.join(" + ")
}

/// A number with a comma for each thousand.
fn grouped(number: u64) -> String {
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
    fn what_limits_is_the_machine_one_thread_the_rate_or_nothing_that_shows() {
        let closed = Pace::Closed { clients: 8 };
        let busy = "1.90 of 2 cores busy (server 1.00, others 0.90)";
        assert_eq!(limit(closed, 1, &usage(1_900, 100)), format!("CPU: {busy}"));
        assert!(limit(closed, 1, &usage(1_500, 950)).starts_with("one thread, log of server; 1.50 of 2"));
        assert!(limit(closed, 1, &usage(1_500, 500)).starts_with("waiting"));
        let open = Pace::Open { debits_a_second: 100 };
        assert!(limit(open, 96, &usage(500, 0)).starts_with("the rate, kept up with"));
        assert!(limit(open, 94, &usage(500, 0)).starts_with("the rate, NOT kept up with"));
    }

    #[test]
    fn thousands_are_told_apart() {
        let numbers = [0, 999, 1_000, 1_234_567].map(grouped);
        assert_eq!(numbers, ["0", "999", "1,000", "1,234,567"]);
    }
}
