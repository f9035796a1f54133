//! The threads of production: one that turns the driver, one that watches that it does not hang.
//! The only place of the log that knows threads and waits for time to pass; the simulation turns the driver itself.

use super::driver::{LogDriver, Step, abort_process};
use super::error::LogError;
use super::handle::{Awaited, LogHandle, Shared, State};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// Called when a write or sync hangs; the default is `abort_process`.
pub type StallHook = Box<dyn Fn(&LogError) + Send>;

/// The running writer. Dropping it writes what is queued and ends the threads.
#[derive(Debug)]
pub struct LogWriter {
    handle: LogHandle,
    writer: Option<JoinHandle<()>>,
    watchdog: Option<JoinHandle<()>>,
    watch: Arc<Watch>,
}

/// The step under way, and whether the watch is over.
#[derive(Debug, Default)]
struct Watch {
    /// The number of the step that is being done; 0 between steps.
    step: AtomicU64,
    over: Mutex<bool>,
    wake: Condvar,
}

impl Watch {
    fn end(&self) {
        *self.over.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = true;
        self.wake.notify_all();
    }
}

impl LogWriter {
    /// Starts the threads over a driver.
    pub fn spawn(handle: LogHandle, driver: LogDriver) -> io::Result<LogWriter> {
        LogWriter::spawn_with(handle, driver, Box::new(abort_process))
    }

    /// Like `spawn`, with another reaction to a write or sync that hangs.
    pub fn spawn_with(handle: LogHandle, driver: LogDriver, on_stall: StallHook) -> io::Result<LogWriter> {
        let watch = Arc::new(Watch::default());
        let stall_max = handle.shared.options.stall_max;
        let of_writer = Arc::clone(&watch);
        let writer = thread::Builder::new()
            .name("log-writer".to_owned())
            .spawn(move || write_until_ended(driver, &of_writer))?;
        let of_watchdog = Arc::clone(&watch);
        let watchdog = thread::Builder::new()
            .name("log-watchdog".to_owned())
            .spawn(move || watch_until_over(&of_watchdog, stall_max, &on_stall))?;
        Ok(LogWriter { handle, writer: Some(writer), watchdog: Some(watchdog), watch })
    }

    /// Writes what is queued, ends the threads and waits for them. Submissions from then on get
    /// `Closed`.
    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        self.handle.close();
        if let Some(writer) = self.writer.take() {
            // A panic of the writer has been reported by its thread; there is nothing to add.
            let _ = writer.join();
        }
        self.watch.end();
        if let Some(watchdog) = self.watchdog.take() {
            let _ = watchdog.join();
        }
    }
}

impl Drop for LogWriter {
    fn drop(&mut self) {
        self.end();
    }
}

fn write_until_ended(mut driver: LogDriver, watch: &Watch) {
    let shared = Arc::clone(&driver.shared);
    let mut idle = false;
    for number in 1.. {
        watch.step.store(number, Ordering::Relaxed);
        let turn = || if idle { driver.idle() } else { driver.step() };
        // A panic here may have left a run half accounted for; no one may go on as if it had not.
        let step = catch_unwind(AssertUnwindSafe(turn)).unwrap_or_else(|_| driver.panicked());
        watch.step.store(0, Ordering::Relaxed);
        idle = match step {
            Step::Worked => false,
            Step::Waiting { wants_idle } => wait_for_work(&shared, wants_idle),
            Step::Ended => return,
        };
    }
}

/// Waits for a submission that asks for a run. True if the idle time passed first.
fn wait_for_work(shared: &Shared, wants_idle: bool) -> bool {
    let mut state = shared.state();
    if wants_idle {
        state.awaited = Awaited::Pressing;
        let quiet = |state: &mut State| state.pressing == 0 && !state.closed;
        let waited = shared.work.wait_timeout_while(state, shared.options.idle_mark, quiet);
        let (mut state, outcome) = waited.unwrap_or_else(|poisoned| poisoned.into_inner());
        state.awaited = Awaited::Nothing;
        return outcome.timed_out();
    }
    // Nothing is queued. Even what only rides along ends this wait: it starts the idle time.
    let quiet = |state: &mut State| state.queue.is_empty() && !state.closed;
    state.awaited = Awaited::Anything;
    let mut state = shared.work.wait_while(state, quiet).unwrap_or_else(|poisoned| poisoned.into_inner());
    state.awaited = Awaited::Nothing;
    false
}

/// Looks several times within the longest time that a step may take: the same step seen each time
/// has taken too long.
fn watch_until_over(watch: &Watch, stall_max: Duration, on_stall: &StallHook) {
    const LOOKS: u32 = 8;
    let mut seen = (0, 0);
    let mut over = watch.over.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    loop {
        let waited = watch.wake.wait_timeout_while(over, stall_max / LOOKS, |over| !*over);
        over = waited.unwrap_or_else(|poisoned| poisoned.into_inner()).0;
        if *over {
            return;
        }
        let step = watch.step.load(Ordering::Relaxed);
        let same = step > 0 && step == seen.0;
        seen = if same { (step, seen.1 + 1) } else { (step, 0) };
        if seen.1 == LOOKS {
            on_stall(&LogError::Poisoned(format!("a write has hung for {stall_max:?}")));
            return;
        }
    }
}
