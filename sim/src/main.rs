//! The simulation's program.
//!
//! Determinism rests on: one thread and madsim's scheduler, time and randomness; openraft on our own
//! runtime (`purser_node::raft`, its `runtime`); choices drawn from the seed alone; no iteration over
//! unordered maps where it is seen. `sim meta` holds it to that: the same seed twice, in two
//! processes, must leave the same trace.

#[cfg(not(madsim))]
fn main() -> std::process::ExitCode {
    eprintln!(
        "sim: built without the simulated runtime; run it with `make sim SEED=1` or `make sim SEEDS=100`"
    );
    std::process::ExitCode::FAILURE
}

#[cfg(madsim)]
fn main() -> std::process::ExitCode {
    purser_sim::command::main()
}
