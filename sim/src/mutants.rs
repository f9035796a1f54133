//! Teeth: each bug that can be planted is planted by itself, in ordinary worlds, until a seed finds it.
//! One that no seed finds within its budget shows a hole: in what happens, or in what is checked.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use comfy_table::presets::NOTHING;
use comfy_table::{CellAlignment, Table};
use indicatif::{ProgressBar, ProgressStyle};
use purser_node::simulation::Bug;

use crate::lighter::Lighter;
use crate::sweep::{Child, Outcome, now, run_in_process};

/// Which bugs, and how many seeds each may take.
#[derive(Clone, Debug)]
pub struct Hunt {
    /// The bugs, in this order.
    pub bugs: Vec<Bug>,
    /// Seeds for each, from the first on.
    pub seeds: u64,
    /// The first seed.
    pub from: u64,
    /// Processes at once.
    pub jobs: usize,
    /// Real time that one seed may take.
    pub seed_time_max: Duration,
}

/// What became of one bug.
struct Found {
    bug: Bug,
    /// The first seed that found it, in the order of the seeds, and what it said.
    by: Option<Outcome>,
    seeds: u64,
    real: Duration,
}

/// A bug's name on the command line: its words with hyphens.
pub fn name(bug: Bug) -> String {
    let mut name = String::new();
    for (place, letter) in format!("{bug:?}").char_indices() {
        if place > 0 && letter.is_uppercase() {
            name.push('-');
        }
        name.extend(letter.to_lowercase());
    }
    name
}

/// The bug of a name.
pub fn named(text: &str) -> Result<Bug, String> {
    let names = || Bug::ALL.iter().map(|bug| name(*bug)).collect::<Vec<_>>().join(", ");
    let bug = Bug::ALL.iter().copied().find(|bug| name(*bug) == text);
    bug.ok_or_else(|| format!("no such bug; there are: {}", names()))
}

/// Plants one bug after the other until each is found. True if all were.
pub fn hunt(hunt: &Hunt) -> anyhow::Result<bool> {
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} bugs, {elapsed}  {msg}")?;
    let bar = ProgressBar::new(hunt.bugs.len() as u64).with_style(style);
    let mut all = Vec::with_capacity(hunt.bugs.len());
    for &bug in &hunt.bugs {
        bar.set_message(name(bug));
        all.push(hunt_one(hunt, bug)?);
        bar.inc(1);
    }
    bar.finish_and_clear();
    println!("{}", table(&all));
    let survived: Vec<String> = all.iter().filter(|own| own.by.is_none()).map(|own| name(own.bug)).collect();
    if !survived.is_empty() {
        eprintln!("not found within {} seeds: {}", hunt.seeds, survived.join(", "));
    }
    Ok(survived.is_empty())
}

/// Runs seeds with a bug in their order, several at once, until one finds it.
fn hunt_one(hunt: &Hunt, bug: Bug) -> anyhow::Result<Found> {
    let program = std::env::current_exe()?;
    let begun = now();
    let (next, end) = (AtomicU64::new(hunt.from), hunt.from.saturating_add(hunt.seeds));
    let found: Mutex<Option<Outcome>> = Mutex::new(None);
    let first = || found.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    thread::scope(|scope| {
        for _ in 0..hunt.jobs {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end || first().is_some() {
                        return;
                    }
                    let (bug, time_max) = (Some(bug), hunt.seed_time_max);
                    let child = Child { seed, bug, lighter: Lighter::default(), time_max };
                    let outcome = run_in_process(&program, &child);
                    if outcome.broken.is_some() {
                        let mut first = first();
                        // One that began earlier may end later: the least seed counts, whoever is faster.
                        if first.as_ref().is_none_or(|first| seed < first.seed) {
                            *first = Some(outcome);
                        }
                    }
                }
            });
        }
    });
    let by = found.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner());
    let seeds = by.as_ref().map_or(hunt.seeds, |by| by.seed - hunt.from + 1);
    Ok(Found { bug, by, seeds, real: begun.elapsed() })
}

fn table(all: &[Found]) -> Table {
    let mut table = Table::new();
    table.load_style(NOTHING);
    table.set_header(["BUG", "SEEDS", "LINES", "SECONDS", "FOUND BY"]);
    for own in all {
        let (lines, what) = match &own.by {
            Some(by) => (by.lines.to_string(), first_line(by)),
            None => ("-".to_owned(), "nothing: it survived".to_owned()),
        };
        let seconds = format!("{}.{}", own.real.as_secs(), own.real.subsec_millis() / 100);
        table.add_row([name(own.bug), own.seeds.to_string(), lines, seconds, what]);
    }
    for column in 1..=3 {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

/// What was found, in so many characters.
fn first_line(outcome: &Outcome) -> String {
    const CHARACTERS_MAX: usize = 100;
    let line = outcome.broken.as_deref().and_then(|broken| broken.lines().next()).unwrap_or_default();
    match line.char_indices().nth(CHARACTERS_MAX) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bug_is_found_under_its_name() {
        assert_eq!(name(Bug::SnapshotWithoutKeys), "snapshot-without-keys");
        for bug in Bug::ALL {
            assert_eq!(named(&name(*bug)), Ok(*bug));
        }
        let unknown = named("nonsense").expect_err("no such bug");
        assert!(unknown.contains("acknowledged-before-sync, "), "{unknown}");
    }
}
