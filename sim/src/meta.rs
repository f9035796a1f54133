//! One seed is one run: each seed twice, in two processes, must leave the same trace, line for line.

use std::collections::BTreeMap;

use crate::swarm;
use crate::sweep::{Outcome, Sweep, each};

/// Runs each seed twice, in two processes, and as many more seeds as it takes for every kind of world. True
/// if the traces are the same.
pub fn meta(sweep: &Sweep) -> anyhow::Result<bool> {
    let seeds = swarm::covering(&sweep.seeds);
    let twice = Sweep { seeds: seeds.iter().flat_map(|seed| [*seed, *seed]).collect(), ..sweep.clone() };
    let outcomes = each(&twice, |_, _| {})?;
    let mut firsts: BTreeMap<u64, Outcome> = BTreeMap::new();
    let mut differing = 0;
    for outcome in outcomes {
        match firsts.get(&outcome.seed) {
            None => drop(firsts.insert(outcome.seed, outcome)),
            Some(first) if *first == outcome && !outcome.trace.is_empty() => {}
            Some(first) => {
                differing += 1;
                eprintln!("seed {}: two runs, two traces\n   {first:?}\n   {outcome:?}", outcome.seed);
            }
        }
    }
    let kinds: Vec<String> =
        swarm::counted(&seeds).into_iter().map(|(kind, seeds)| format!("{kind} {seeds}")).collect();
    println!(
        "{} seeds run twice, {differing} with two traces; of every kind of world ({}): {}",
        seeds.len(),
        kinds.len(),
        kinds.join(", ")
    );
    Ok(differing == 0)
}
