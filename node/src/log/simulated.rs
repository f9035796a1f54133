//! The hand that turns the log in the simulation: one task in the place of the writer's threads,
//! with simulated time for each run to become durable.
//!
//! A run is written and synced at the end of that time, at one instant. What a crash in between
//! would leave half done is the disk's to show: see `SimDisk::cut_power_after`.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

use super::driver::{LogDriver, Step};

/// Turns a driver until its log is closed or has failed; to be spawned. `run_time` says, for each
/// run, how long it takes to become durable.
pub async fn simulate(mut driver: LogDriver, mut run_time: impl FnMut() -> Duration + Send) {
    let shared = Arc::clone(&driver.shared);
    let submitted = Arc::new(Notify::new());
    let wake = Arc::clone(&submitted);
    driver.on_submit(Box::new(move || wake.notify_one()));
    let presses = || {
        let state = shared.state();
        state.pressing > 0 || state.closed
    };
    let mut idle = false;
    loop {
        if presses() {
            sleep(run_time()).await;
        }
        let step = if idle { driver.idle() } else { driver.step() };
        let wait = async {
            while !presses() {
                submitted.notified().await;
            }
        };
        idle = match step {
            Step::Worked => false,
            Step::Waiting { wants_idle: true } => timeout(shared.options.idle_mark, wait).await.is_err(),
            Step::Waiting { wants_idle: false } => {
                // Even what only rides along ends this wait: it starts the idle time.
                submitted.notified().await;
                false
            }
            Step::Ended => return,
        };
    }
}
