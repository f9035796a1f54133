//! The report as one page of HTML: plots and figures, without anything from elsewhere.

// Figures for people; nothing is booked from them.
#![allow(clippy::float_arithmetic)]

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::plot::{self, Axis, Bar, Line};
use super::report::{Measured, Report, Share, Sheet, grouped};

/// The smallest latency that a plot shows, in microseconds.
const LATENCY_US_MIN: u64 = 10;

/// How the page looks.
const STYLE: &str = "
body { font: 15px/1.5 sans-serif; color: #222; background: #fff; margin: 2em auto; max-width: 1100px; padding: 0 1em }
h1 { font-size: 1.5em } h2 { font-size: 1.2em; margin-top: 2em }
.wide { overflow-x: auto }
table { border-collapse: collapse; font-size: 13px }
th, td { padding: 3px 9px; text-align: right; border-bottom: 1px solid #ddd; white-space: nowrap }
th { background: #f4f4f4 } .text { text-align: left }
svg { max-width: 100%; height: auto; display: block; margin: 1em 0 }
";

/// The page.
pub fn page(report: &Report) -> anyhow::Result<String> {
    let latencies = latencies(&report.measurements)?;
    let growth = growth(&report.measurements)?;
    let [speed, costs, machinery] = report.sheets();
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { "Debits: " (report.system) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                h1 { (report.system) ": " (report.setup) }
                p { (report.machine.told()) }
                p {
                    "Only applied debits count. A wallet that is too short denies, and is refilled by one call: "
                    "denials and refills are in every cost, and stand beside. Latencies are those of calls; in "
                    "an open loop they count from the intended start."
                }
                h2 { "Throughput" }
                (PreEscaped(throughput(&report.measurements)?))
                (table(&speed))
                h2 { "Cost" }
                (PreEscaped(cost(&report.measurements)?))
                (table(&costs))
                (table(&machinery))
                @if let Some(growth) = growth {
                    h2 { "Growth" }
                    (PreEscaped(growth))
                }
                h2 { "Latency" }
                @for plot in latencies { (PreEscaped(plot)) }
                @if !report.starts.is_empty() {
                    h2 { "Started again" }
                    @for start in &report.starts { p { (start.told()) } }
                }
                h2 { "Audit" }
                p { (report.audited()) }
            }
        }
    };
    Ok(page.into_string())
}

/// A figure of an axis: whole where it is large.
fn figure(value: f64) -> String {
    if value >= 10.0 { grouped(value.round() as u64) } else { format!("{}", (value * 100.0).round() / 100.0) }
}

fn throughput(measurements: &[Measured]) -> anyhow::Result<String> {
    let bars: Vec<_> = measurements
        .iter()
        .map(|own| Bar { name: own.told.clone(), parts: vec![(String::new(), own.done_a_second() as f64)] })
        .collect();
    plot::bars(
        "Applied debits (or balances told) a second",
        &Axis { name: "a second", figure: &figure },
        &bars,
    )
}

fn cost(measurements: &[Measured]) -> anyhow::Result<String> {
    let part = |share: &Share| (share.process.clone(), share.amount);
    let bars: Vec<_> = measurements
        .iter()
        .map(|own| Bar { name: own.told.clone(), parts: own.cpu_us_a_debit.iter().map(part).collect() })
        .collect();
    plot::bars("CPU time for one debit, by process", &Axis { name: "microseconds", figure: &figure }, &bars)
}

/// One plot a scenario: what the slowest calls took.
fn latencies(measurements: &[Measured]) -> anyhow::Result<Vec<String>> {
    let of_scenario = |own: &[Measured]| {
        let line = |own: &Measured| Line { name: own.told.clone(), points: points(own) };
        let lines: Vec<_> = own.iter().map(line).filter(|line| line.points.len() > 1).collect();
        let caption = own.first().map_or(String::new(), |own| format!("Latency of calls: {}", family(own)));
        // One of `of` calls is slower.
        let percent = |of: f64| format!("{} %", (1e4 * (100.0 - 100.0 / of)).round() / 1e4);
        let axes = [
            &Axis { name: "of the calls took at most", figure: &percent },
            &Axis { name: "milliseconds", figure: &figure },
        ];
        plot::lines(&caption, axes, &lines)
    };
    measurements.chunk_by(|one, next| family(one) == family(next)).map(of_scenario).collect()
}

/// The scenarios that are told together.
fn family(own: &Measured) -> &str {
    own.scenario.split(',').next().unwrap_or_default()
}

/// The distribution: of how many calls one is slower, and milliseconds.
fn points(own: &Measured) -> Vec<(f64, f64)> {
    let below_all = own.latency.curve.iter().filter(|(percent, _)| *percent < 100.0);
    let point =
        |(percent, us): &(f64, u64)| (100.0 / (100.0 - percent), (*us).max(LATENCY_US_MIN) as f64 / 1_000.0);
    below_all.map(point).collect()
}

/// What a debit costs by how many wallets there are; `None` where all measurements have the same.
fn growth(measurements: &[Measured]) -> anyhow::Result<Option<String>> {
    let mut lines: Vec<Line> = Vec::new();
    for own in measurements.iter().filter(|own| own.scenario == "growth") {
        let point = (own.wallets as f64, own.cpu_us_a_debit.iter().map(|share| share.amount).sum::<f64>());
        let name = own.told.clone();
        match lines.iter_mut().find(|line| line.name == name) {
            Some(line) => line.points.push(point),
            None => lines.push(Line { name, points: vec![point] }),
        }
    }
    lines.retain(|line| line.points.len() > 1 && line.points.iter().all(|(_, cost)| *cost > 0.0));
    if lines.is_empty() {
        return Ok(None);
    }
    let axes = [
        &Axis { name: "wallets", figure: &figure },
        &Axis { name: "microseconds of CPU a debit, all processes", figure: &figure },
    ];
    plot::lines("What a debit costs among so many wallets", axes, &lines).map(Some)
}

fn table(sheet: &Sheet) -> Markup {
    let class = |column: usize| sheet.text.contains(&column).then_some("text");
    html! {
        h3 { (sheet.caption) }
        div.wide { table {
            thead { tr { @for (column, name) in sheet.head.iter().enumerate() {
                th class=[class(column)] { (name) }
            } } }
            tbody { @for row in &sheet.rows { tr { @for (column, cell) in row.iter().enumerate() {
                td class=[class(column)] { (cell) }
            } } } }
        } }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::books::Audit;
    use super::super::load::{Call, Counts};
    use super::super::machine::Machine;
    use super::super::measure::Load;
    use super::super::report::{Ending, Pace, Start};
    use super::super::target::LogCounts;
    use super::super::usage::{ProcessUsage, Usage};
    use super::*;
    use crate::workload::Spread;

    fn measured(scenario: &'static str, wallets: u64, latencies_us: &[u64]) -> Measured {
        let load = Load {
            scenario,
            call: Call::Debit,
            spread: Spread::Uniform,
            pace: Pace::Closed { clients: 64 },
            warm_up: Duration::ZERO,
            measured: Duration::from_secs(1),
            seed: 1,
        };
        let mut counts = Counts::new().expect("nothing");
        counts.applied = latencies_us.len() as u64;
        for latency_us in latencies_us {
            counts.latency_us.record(*latency_us).expect("in bounds");
        }
        let node = ProcessUsage {
            name: "node <1>".to_owned(),
            cpu_ms: 500,
            written_bytes: 1_000,
            resident_bytes: 100 << 20,
            busiest_thread: "log".to_owned(),
            busiest_thread_cpu_ms: 100,
        };
        let usage = Usage {
            span_ms: 1_000,
            cores: 2,
            machine_cpu_ms: 600,
            device_written_bytes: Some(4_096),
            processes: vec![node],
        };
        let log = LogCounts { syncs: 10, entries: 2, bytes: 800 };
        Measured::new(&load, wallets, &counts, usage, Some(log))
    }

    fn report(measurements: Vec<Measured>) -> Report {
        Report {
            system: "Purser 1".to_owned(),
            machine: Machine::look(std::path::Path::new("/")),
            setup: "3 servers".to_owned(),
            measurements,
            starts: vec![Start {
                process: "node 1".to_owned(),
                after: Ending::Killed,
                ready_ms: 1_234,
                resident_mib: 56,
            }],
            retries: 0,
            audit: Audit { wallets: 10, granted: 4_000, debited: 1_000, available: 3_000 },
        }
    }

    #[test]
    fn the_page_holds_every_measurement_and_nothing_from_elsewhere() {
        let measurements = ["single", "batch", "growth", "tranches, many open"]
            .map(|scenario| measured(scenario, 10_000, &[1_000, 2_000, 3_000, 90_000]));
        let page = page(&report(measurements.to_vec())).expect("a page");

        for own in &measurements {
            // In both plots of bars, in that of its latencies and in the sheet.
            assert!(page.matches(&own.told).count() >= 4, "{}", own.told);
        }
        assert!(
            page.contains("node 1, killed with -9 and started again, was ready after 1,234 ms, with 56 MiB")
        );
        assert!(page.contains("4,000 granted - 1,000 debited = 3,000"), "{page}");
        assert!(page.contains("node &lt;1&gt;") && !page.contains("node <1>"));
        for elsewhere in ["<script", "<link", "src=", "url(", "@import"] {
            assert!(!page.contains(elsewhere), "{elsewhere}");
        }
    }

    #[test]
    fn growth_is_a_line_over_wallets_where_it_was_measured_at_two_sizes() {
        let at = |wallets| measured("growth", wallets, &[1_000, 2_000]);
        assert!(growth(&[at(10_000)]).expect("no plot").is_none());
        let plot = growth(&[at(10_000), at(1_000_000)]).expect("a plot").expect("a plot");
        assert!(plot.contains("What a debit costs among so many wallets"), "{plot}");
    }

    #[test]
    fn a_measurement_without_a_single_call_is_told_all_the_same() {
        let page = page(&report(vec![measured("one", 10, &[])])).expect("a page");
        assert!(page.contains("one: 64 clients, uniform"));
    }

    #[test]
    fn of_four_calls_one_is_slower_than_three_quarters() {
        let points = points(&measured("single", 10, &[1_000, 2_000, 3_000, 90_000]));
        assert!(points.iter().all(|(of, ms)| *of >= 1.0 && *ms < 91.0), "{points:?}");
        // Those below the slowest.
        assert!(points.iter().any(|(of, ms)| *of >= 4.0 && (2.9..3.1).contains(ms)), "{points:?}");
    }
}
