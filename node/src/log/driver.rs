//! The hand that moves the log: takes what is queued, writes it, answers. One step at a time, so
//! that a thread, a simulated task or a test can turn the crank.
//!
//! Invariants:
//! - Callbacks are called in the order of submission, after the sync, outside every lock.
//! - After a failed write or sync nothing is written ever again, and every callback gets the error.
//! - If a submission finds no room, every later one in the queue that shares a group with it fails
//!   as well: their groups go back to what is durable.

use super::claims::Claims;
use super::core::{Recovered, SegmentLog, WriteError};
use super::disk::Disk;
use super::error::{LogError, OpenError};
use super::handle::{Awaited, LogHandle, Shared, State, Submission};
use super::options::LogOptions;
use super::run::{BLOCK_BYTES, run_overhead_bytes};
use super::types::{GroupId, Op};
use super::view::View;
use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::sync::{Arc, Condvar, Mutex, OnceLock};

/// Called once, when a write or sync has failed, before anyone else hears of it.
pub type FatalHook = Box<dyn Fn(&LogError) + Send>;

/// Opens the log of a directory: the handle for its users, the driver for whoever turns it, and
/// what was found. A refused directory is left as it was.
pub fn open(
    disk: Arc<dyn Disk>,
    options: LogOptions,
) -> Result<(LogHandle, LogDriver, Recovered), OpenError> {
    let (mut core, recovered) = SegmentLog::open(disk, &options)?;
    core.maintain().map_err(|error| match error {
        WriteError::NoSpace(what) | WriteError::Fatal(what) => {
            OpenError::io("preparing segments")(io::Error::other(what))
        }
    })?;
    let state = State {
        view: View::of(&core.index().read().unwrap_or_else(|poisoned| poisoned.into_inner())),
        queue: VecDeque::new(),
        queue_bytes: 0,
        pressing: 0,
        poisoned: None,
        closed: false,
        awaited: Awaited::Nothing,
        room_wanted: 0,
        core: core.stats(),
        claims: Claims::default(),
        oldest_segment: core.oldest_segment(),
        short_of_room: false,
    };
    let shared = Arc::new(Shared {
        options,
        state: Mutex::new(state),
        work: Condvar::new(),
        room: Condvar::new(),
        index: core.index(),
        files: core.files(),
        waker: OnceLock::new(),
    });
    let handle = LogHandle { shared: Arc::clone(&shared) };
    let driver = LogDriver { core, shared, on_fatal: Box::new(abort_process) };
    Ok((handle, driver, recovered))
}

/// What the node does when its log fails: stop at once, before a wrong answer leaves.
pub fn abort_process(error: &LogError) {
    tracing::error!(%error, "the log failed, the process stops");
    eprintln!("purser: {error}");
    std::process::abort();
}

/// What a step did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// It wrote or answered something; there may be more.
    Worked,
    /// Nothing asks for a run. `wants_idle` says whether `idle` should be called after the idle
    /// time if nothing comes.
    Waiting {
        /// There is something to mark, to free, to prepare or to carry along.
        wants_idle: bool,
    },
    /// The log failed, or is closed with nothing left to write.
    Ended,
}

/// Turns the log.
pub struct LogDriver {
    core: SegmentLog,
    pub(crate) shared: Arc<Shared>,
    on_fatal: FatalHook,
}

impl std::fmt::Debug for LogDriver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LogDriver").finish_non_exhaustive()
    }
}

/// Nobody turns the log any more: what is queued will not be written, and no one may wait for it.
impl Drop for LogDriver {
    fn drop(&mut self) {
        let pending = {
            let mut state = self.shared.state();
            state.closed = true;
            state.queue_bytes = 0;
            state.pressing = 0;
            std::mem::take(&mut state.queue)
        };
        self.shared.room.notify_all();
        pending.into_iter().for_each(|submission| (submission.done)(Err(LogError::Closed)));
    }
}

impl LogDriver {
    /// Replaces what is done when the log fails; the default is `abort_process`.
    pub fn on_fatal(&mut self, hook: FatalHook) {
        self.on_fatal = hook;
    }

    /// Sets what is called after each submission, to wake whoever turns the driver. The first one
    /// set stays.
    pub fn on_submit(&self, wake: Box<dyn Fn() + Send + Sync>) {
        let _ = self.shared.waker.set(wake);
    }

    /// Writes what is queued, up to one run's worth, and answers it.
    pub fn step(&mut self) -> Step {
        self.turn(false)
    }

    /// To be called when nothing has come for the idle time: writes what rides along, moves the
    /// mark of what is durable, brings old segments nearer to being freed.
    pub fn idle(&mut self) -> Step {
        let step = self.turn(true);
        if matches!(step, Step::Waiting { .. }) && self.core.wants_idle_run() {
            let written = self.core.write_mark();
            return self.after_idle(written);
        }
        step
    }

    fn after_idle(&mut self, written: Result<(), WriteError>) -> Step {
        let written = written.and_then(|()| self.core.maintain());
        self.publish();
        match written {
            Err(WriteError::Fatal(what)) => self.fail(what, Vec::new()),
            Err(WriteError::NoSpace(_)) | Ok(()) => self.waiting(),
        }
    }

    fn waiting(&self) -> Step {
        let riders = !self.shared.state().queue.is_empty();
        let wants_idle = riders || self.core.wants_idle_run() || self.core.wants_spare();
        Step::Waiting { wants_idle }
    }

    fn turn(&mut self, even_riders: bool) -> Step {
        let taken = {
            let mut state = self.shared.state();
            if state.poisoned.is_some() {
                return Step::Ended;
            }
            if state.closed && state.queue.is_empty() {
                drop(state);
                return self.finish();
            }
            let due = state.pressing > 0 || even_riders || state.closed;
            let run_bytes_max = u64::from(self.shared.options.run_bytes_max);
            if due { take(&mut state, run_bytes_max) } else { Vec::new() }
        };
        if !taken.is_empty() {
            return self.write_what_fits(taken);
        }
        if even_riders && self.core.wants_spare() && !self.core.wants_idle_run() {
            return self.after_idle(Ok(()));
        }
        self.waiting()
    }

    /// Marks the last run as durable before a clean end.
    fn finish(&mut self) -> Step {
        let marked = if self.core.wants_mark() { self.core.write_mark() } else { Ok(()) };
        self.publish();
        match marked {
            Err(WriteError::Fatal(what)) => self.fail(what, Vec::new()),
            Err(WriteError::NoSpace(_)) | Ok(()) => Step::Ended,
        }
    }

    /// Writes the submissions for which there is room; if there is none for the first, refuses it.
    fn write_what_fits(&mut self, mut taken: Vec<Submission>) -> Step {
        let mut fits = 0;
        let mut bytes = 0;
        let mut obstacle = None;
        for submission in &taken {
            bytes += submission.bytes + run_overhead_bytes(submission.ops.len()) as u64;
            let run_bytes = bytes.next_multiple_of(BLOCK_BYTES as u64) + BLOCK_BYTES as u64;
            if let Err(error) = self.core.ensure_room(run_bytes) {
                obstacle = Some(error);
                break;
            }
            fits += 1;
        }
        match obstacle {
            Some(WriteError::Fatal(what)) => return self.fail(what, taken),
            Some(WriteError::NoSpace(what)) if fits == 0 => {
                let later = taken.split_off(1);
                self.put_back(later);
                self.refuse(taken, &what);
                return Step::Worked;
            }
            _ => {}
        }
        let later = taken.split_off(fits);
        self.put_back(later);
        self.write(taken)
    }

    fn put_back(&self, later: Vec<Submission>) {
        let mut state = self.shared.state();
        for submission in later.into_iter().rev() {
            state.pressing += usize::from(!submission.rides_along);
            state.queue.push_front(submission);
        }
    }

    fn write(&mut self, mut batch: Vec<Submission>) -> Step {
        let ops: Vec<&Op> = batch.iter().flat_map(|s| s.ops.iter().map(|(op, _)| op)).collect();
        let written = self.core.write(&ops);
        let mut durable_ops = written.ops;
        let durable = batch
            .iter()
            .take_while(|submission| {
                let whole = submission.ops.len() <= durable_ops;
                durable_ops = durable_ops.saturating_sub(submission.ops.len());
                whole
            })
            .count();
        match written.error {
            None => self.complete(batch),
            Some(WriteError::Fatal(what)) => return self.fail(what, batch),
            Some(WriteError::NoSpace(what)) => {
                let failed = batch.split_off(durable);
                self.complete(batch);
                self.refuse(failed, &what);
            }
        }
        match self.core.maintain() {
            Err(WriteError::Fatal(what)) => return self.fail(what, Vec::new()),
            Err(WriteError::NoSpace(_)) | Ok(()) => self.publish(),
        }
        Step::Worked
    }

    fn complete(&mut self, batch: Vec<Submission>) {
        {
            let mut state = self.shared.state();
            for submission in &batch {
                state.queue_bytes -= submission.bytes;
                for (op, epoch) in &submission.ops {
                    state.view.complete(op, *epoch);
                }
            }
            state.view.shrink(self.shared.options.cache_bytes_max);
            state.core = self.core.stats();
            if state.room_wanted > 0 {
                self.shared.room.notify_all();
            }
        }
        batch.into_iter().for_each(|submission| (submission.done)(Ok(())));
    }

    /// Answers "no room" to these submissions, and to those in the queue that build on them.
    fn refuse(&mut self, mut failed: Vec<Submission>, what: &str) {
        {
            let mut state = self.shared.state();
            let groups = |submission: &Submission| -> Vec<GroupId> {
                submission.ops.iter().map(|(op, _)| op.group()).collect()
            };
            let mut tainted: BTreeSet<GroupId> = failed.iter().flat_map(groups).collect();
            let (mut kept, queue) = (VecDeque::new(), std::mem::take(&mut state.queue));
            for submission in queue {
                if groups(&submission).iter().any(|group| tainted.contains(group)) {
                    tainted.extend(groups(&submission));
                    state.pressing -= usize::from(!submission.rides_along);
                    failed.push(submission);
                } else {
                    kept.push_back(submission);
                }
            }
            state.queue = kept;
            state.queue_bytes -= failed.iter().map(|submission| submission.bytes).sum::<u64>();
            let index = self.shared.index();
            tainted.iter().for_each(|group| state.view.restore(*group, &index));
            // A submission before the one that tainted its group still stands.
            let State { view, queue, .. } = &mut *state;
            for (op, epoch) in queue.iter_mut().flat_map(|submission| &mut submission.ops) {
                if tainted.contains(&op.group()) {
                    *epoch = view.apply(op, &index);
                }
            }
            self.shared.room.notify_all();
        }
        let error = LogError::NoSpace(what.to_owned());
        failed.into_iter().for_each(|submission| (submission.done)(Err(error.clone())));
    }

    /// Ends the log after a panic in a step or a callback.
    pub(crate) fn panicked(&mut self) -> Step {
        self.fail("the writer panicked".to_owned(), Vec::new())
    }

    /// Ends the log for ever.
    fn fail(&mut self, what: String, mut pending: Vec<Submission>) -> Step {
        let error = LogError::Poisoned(what);
        {
            let mut state = self.shared.state();
            state.poisoned = Some(error.clone());
            pending.extend(std::mem::take(&mut state.queue));
            state.queue_bytes = 0;
            state.pressing = 0;
            self.shared.room.notify_all();
        }
        (self.on_fatal)(&error);
        pending.into_iter().for_each(|submission| (submission.done)(Err(error.clone())));
        Step::Ended
    }

    fn publish(&self) {
        let mut state = self.shared.state();
        state.core = self.core.stats();
        state.oldest_segment = self.core.oldest_segment();
        // There is always a segment ready ahead, unless the disk has no room for one.
        state.short_of_room = state.core.ready_bytes < u64::from(self.shared.options.segment_bytes);
    }
}

/// Takes submissions from the front of the queue: one, and more while they fit a run.
fn take(state: &mut State, run_bytes_max: u64) -> Vec<Submission> {
    let mut taken: Vec<Submission> = Vec::new();
    let mut bytes = 0;
    while let Some(next) = state.queue.front() {
        bytes += next.bytes;
        if !taken.is_empty() && bytes > run_bytes_max {
            break;
        }
        state.pressing -= usize::from(!next.rides_along);
        taken.extend(state.queue.pop_front());
    }
    taken
}
