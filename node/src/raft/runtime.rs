//! openraft's runtime in the simulation: madsim's tasks, time and randomness, and primitives that
//! wake their waiters in a fixed order, so that the same seed gives the same run.
//!
//! - Mpsc, Oneshot and Mutex are tokio's: they queue their waiters in order of arrival.
//! - Watch is our own: tokio's picks the order of its wake-ups at random, from outside the seed.
//! - What would block a thread is done in place, between two seeded pauses: a flush takes time, and
//!   its effect may come early or late in it.

use std::collections::BTreeMap;
use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::ops::Deref;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, RwLock, RwLockReadGuard};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use madsim::rand::Rng as _;
use openraft::{AsyncRuntime, OptionalSend, OptionalSync};
use openraft_rt::watch::{self, RecvError, SendError};
use openraft_rt_tokio::{TokioMpsc, TokioMutex, TokioOneshot};
use rand::SeedableRng;

/// The longest pause before and after work that would block a thread.
const PAUSE_US_MAX: u64 = 5_000;

/// The runtime of all groups in the simulation.
pub struct SimRuntime {
    runtime: madsim::runtime::Runtime,
}

impl fmt::Debug for SimRuntime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimRuntime").finish_non_exhaustive()
    }
}

impl AsyncRuntime for SimRuntime {
    type JoinError = madsim::task::JoinError;
    type JoinHandle<T: OptionalSend + 'static> = madsim::task::JoinHandle<T>;
    type Sleep = madsim::time::Sleep;
    type Instant = Instant;
    type TimeoutError = TimedOut;
    type Timeout<R, T: Future<Output = R> + OptionalSend> = Timeout<T>;
    type ThreadLocalRng = rand::rngs::StdRng;
    type Mpsc = TokioMpsc;
    type Watch = SimWatch;
    type Oneshot = TokioOneshot;
    type Mutex<T: OptionalSend + 'static> = TokioMutex<T>;

    fn spawn<T>(future: T) -> Self::JoinHandle<T::Output>
    where
        T: Future + OptionalSend + 'static,
        T::Output: OptionalSend + 'static,
    {
        madsim::task::spawn(future)
    }

    fn sleep(duration: Duration) -> Self::Sleep {
        madsim::time::sleep(duration)
    }

    fn sleep_until(deadline: Instant) -> Self::Sleep {
        madsim::time::sleep_until(deadline)
    }

    fn timeout<R, F: Future<Output = R> + OptionalSend>(duration: Duration, future: F) -> Timeout<F> {
        Timeout { future: Box::pin(future), sleep: madsim::time::sleep(duration) }
    }

    fn timeout_at<R, F: Future<Output = R> + OptionalSend>(deadline: Instant, future: F) -> Timeout<F> {
        Timeout { future: Box::pin(future), sleep: madsim::time::sleep_until(deadline) }
    }

    fn is_panic(join_error: &Self::JoinError) -> bool {
        join_error.is_panic()
    }

    fn thread_rng() -> Self::ThreadLocalRng {
        rand::rngs::StdRng::seed_from_u64(madsim::rand::random())
    }

    fn new(_threads: usize) -> SimRuntime {
        SimRuntime { runtime: madsim::runtime::Runtime::new() }
    }

    fn block_on<F, T>(&mut self, future: F) -> T
    where
        F: Future<Output = T>,
    {
        self.runtime.block_on(future)
    }

    async fn spawn_blocking<F, T>(work: F) -> Result<T, io::Error>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        pause().await;
        let done = work();
        pause().await;
        Ok(done)
    }
}

async fn pause() {
    let us = madsim::rand::thread_rng().gen_range(0..=PAUSE_US_MAX);
    madsim::time::sleep(Duration::from_micros(us)).await;
}

/// A future did not end in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("timed out")]
pub struct TimedOut;

/// A future with a deadline. At the deadline itself the future is asked first.
pub struct Timeout<F> {
    future: Pin<Box<F>>,
    sleep: madsim::time::Sleep,
}

impl<F: Future> Future for Timeout<F> {
    type Output = Result<F::Output, TimedOut>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if let Poll::Ready(output) = self.future.as_mut().poll(context) {
            return Poll::Ready(Ok(output));
        }
        Pin::new(&mut self.sleep).poll(context).map(|()| Err(TimedOut))
    }
}

/// A value that is watched: its receivers are woken in the order in which they subscribed.
pub struct SimWatch;

struct Watched<T> {
    value: RwLock<T>,
    /// One more with each change.
    version: AtomicU64,
    ends: Mutex<Ends>,
}

/// Who holds on to a watched value.
#[derive(Default)]
struct Ends {
    senders: usize,
    receivers: usize,
    next_receiver: u64,
    /// The receivers that wait, in the order in which they subscribed.
    waiting: BTreeMap<u64, Waker>,
}

impl<T> Watched<T> {
    fn ends(&self) -> MutexGuard<'_, Ends> {
        self.ends.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn borrow(&self) -> WatchRef<'_, T> {
        WatchRef(self.value.read().unwrap_or_else(|poisoned| poisoned.into_inner()))
    }

    fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    fn change(&self, change: impl FnOnce(&mut T) -> bool) -> bool {
        let changed = change(&mut self.value.write().unwrap_or_else(|poisoned| poisoned.into_inner()));
        if changed {
            self.version.fetch_add(1, Ordering::AcqRel);
            self.wake_all();
        }
        changed
    }

    fn wake_all(&self) {
        let waiting = std::mem::take(&mut self.ends().waiting);
        waiting.into_values().for_each(Waker::wake);
    }

    fn subscribe(self: &Arc<Self>, seen: u64) -> SimWatchReceiver<T> {
        let mut ends = self.ends();
        ends.receivers += 1;
        ends.next_receiver += 1;
        SimWatchReceiver { watched: Arc::clone(self), number: ends.next_receiver, seen }
    }
}

/// A look at a watched value. It must be let go before the value is changed.
pub struct WatchRef<'a, T>(RwLockReadGuard<'a, T>);

impl<T> Deref for WatchRef<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

/// Changes a watched value.
pub struct SimWatchSender<T> {
    watched: Arc<Watched<T>>,
}

impl<T> Clone for SimWatchSender<T> {
    fn clone(&self) -> Self {
        self.watched.ends().senders += 1;
        SimWatchSender { watched: Arc::clone(&self.watched) }
    }
}

impl<T> Drop for SimWatchSender<T> {
    fn drop(&mut self) {
        let mut ends = self.watched.ends();
        ends.senders -= 1;
        let last = ends.senders == 0;
        drop(ends);
        if last {
            self.watched.wake_all();
        }
    }
}

/// Sees each change of a watched value, or the last of several.
pub struct SimWatchReceiver<T> {
    watched: Arc<Watched<T>>,
    number: u64,
    /// The version that was seen last.
    seen: u64,
}

impl<T> Clone for SimWatchReceiver<T> {
    fn clone(&self) -> Self {
        self.watched.subscribe(self.seen)
    }
}

impl<T> Drop for SimWatchReceiver<T> {
    fn drop(&mut self) {
        let mut ends = self.watched.ends();
        ends.receivers -= 1;
        ends.waiting.remove(&self.number);
    }
}

impl<T> SimWatchReceiver<T> {
    fn poll_changed(&mut self, context: &Context<'_>) -> Poll<Result<(), RecvError>> {
        let version = self.watched.version();
        if version != self.seen {
            self.seen = version;
            return Poll::Ready(Ok(()));
        }
        let mut ends = self.watched.ends();
        if ends.senders == 0 {
            return Poll::Ready(Err(RecvError(())));
        }
        ends.waiting.insert(self.number, context.waker().clone());
        Poll::Pending
    }
}

impl watch::Watch for SimWatch {
    type Sender<T: OptionalSend + OptionalSync> = SimWatchSender<T>;
    type Receiver<T: OptionalSend + OptionalSync> = SimWatchReceiver<T>;
    type Ref<'a, T: OptionalSend + 'a> = WatchRef<'a, T>;

    fn channel<T: OptionalSend + OptionalSync>(init: T) -> (SimWatchSender<T>, SimWatchReceiver<T>) {
        let ends = Mutex::new(Ends { senders: 1, ..Ends::default() });
        let watched = Arc::new(Watched { value: RwLock::new(init), version: AtomicU64::new(0), ends });
        let receiver = watched.subscribe(0);
        (SimWatchSender { watched }, receiver)
    }
}

impl<T: OptionalSend + OptionalSync> watch::WatchSender<SimWatch, T> for SimWatchSender<T> {
    fn send(&self, value: T) -> Result<(), SendError<T>> {
        if self.watched.ends().receivers == 0 {
            return Err(SendError(value));
        }
        self.watched.change(|watched| {
            *watched = value;
            true
        });
        Ok(())
    }

    fn send_if_modified<F>(&self, modify: F) -> bool
    where
        F: FnOnce(&mut T) -> bool,
    {
        self.watched.change(modify)
    }

    fn borrow_watched(&self) -> WatchRef<'_, T> {
        self.watched.borrow()
    }

    fn subscribe(&self) -> SimWatchReceiver<T> {
        self.watched.subscribe(self.watched.version())
    }
}

impl<T: OptionalSend + OptionalSync> watch::WatchReceiver<SimWatch, T> for SimWatchReceiver<T> {
    async fn changed(&mut self) -> Result<(), RecvError> {
        poll_fn(|context| self.poll_changed(context)).await
    }

    fn borrow_watched(&self) -> WatchRef<'_, T> {
        self.watched.borrow()
    }

    fn borrow_and_update(&mut self) -> WatchRef<'_, T> {
        self.seen = self.watched.version();
        self.watched.borrow()
    }
}
