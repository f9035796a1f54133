//! The batcher of one shard: gathers commands into one Raft entry, keeps a small number of entries
//! under way, hands answers out, and has what is due swept.

use std::sync::Weak;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use purser_ledger::command::{BATCH_COMMANDS_MAX, BatchEncoder};
use purser_ledger::rows::keys;
use purser_ledger::store::Store;
use purser_ledger::verdict::{Answer, Reply};
use tokio::sync::{mpsc, oneshot};

use super::{Inner, Pending, Placed, ShardError, Witness};
use crate::raft::{ProposeError, Proposed};

/// Most commands that wait for one shard: at 100,000 a second a tenth of a second's work.
pub const QUEUE_COMMANDS_MAX: usize = 10_000;
/// Entries under way at once: one being made durable, one being formed behind it.
const ENTRIES_UNDER_WAY_MAX: usize = 2;
/// Most bytes of one entry: a few milliseconds of network and disk.
const ENTRY_BYTES_MAX: usize = 1 << 20;
/// Most items booked by one sweep, so that a backlog never holds debits up for long.
const SWEEP_ITEMS_MAX: u32 = 1_000;

/// How often a shard looks for what is due.
#[derive(Clone, Copy, Debug)]
pub struct Sweeping {
    /// The time between two looks, where nothing is left over.
    pub every: Duration,
}

impl Default for Sweeping {
    fn default() -> Self {
        Sweeping { every: Duration::from_secs(1) }
    }
}

/// Who waits for the items of an entry: a sweep stands first, if there is one.
struct UnderWay {
    swept: bool,
    waiting: Vec<oneshot::Sender<Result<Placed, ShardError>>>,
}

enum Event {
    Done(UnderWay, Result<Proposed, ProposeError>),
    Command(Pending),
    Closed,
    LookForDue,
}

pub(super) async fn run(inner: Weak<Inner>, mut queue: mpsc::Receiver<Pending>, sweeping: Sweeping) {
    let mut under_way = FuturesUnordered::new();
    let mut look = tokio::time::interval(sweeping.every);
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut encoder = BatchEncoder::new();
    let mut open = true;
    while open || !under_way.is_empty() {
        let room = under_way.len() < ENTRIES_UNDER_WAY_MAX;
        let event = tokio::select! {
            biased;
            Some((entry, result)) = under_way.next(), if !under_way.is_empty() => Event::Done(entry, result),
            // Before the queue: a shard that is never idle is swept all the same.
            _ = look.tick(), if open && room => Event::LookForDue,
            command = queue.recv(), if open && room => command.map_or(Event::Closed, Event::Command),
        };
        // Handles gone and queue drained: the shard is no longer served.
        let Some(shard) = inner.upgrade() else {
            open = false;
            if let Event::Done(entry, result) = event {
                answer(0, entry, result);
            }
            continue;
        };
        let mut entry = UnderWay { swept: false, waiting: Vec::new() };
        match event {
            Event::Done(entry, result) => {
                let more = answer(shard.id.0, entry, result);
                if more {
                    look.reset_immediately();
                }
                continue;
            }
            Event::Closed => {
                open = false;
                continue;
            }
            Event::LookForDue => {
                if !something_due(&shard) {
                    continue;
                }
                encoder.push_sweep(SWEEP_ITEMS_MAX);
                entry.swept = true;
            }
            Event::Command(first) => {
                encoder.push_encoded(&first.command);
                entry.waiting.push(first.answer);
            }
        }
        while encoder.len() < BATCH_COMMANDS_MAX && encoder.bytes() < ENTRY_BYTES_MAX {
            let Ok(next) = queue.try_recv() else { break };
            encoder.push_encoded(&next.command);
            entry.waiting.push(next.answer);
        }
        let bytes = Bytes::from(encoder.finish(shard.stamp()));
        // Handed over in order, here; waited for together.
        match shard.group.submit(bytes).await {
            Ok(pending) => under_way.push(async move { (entry, pending.await) }),
            Err(error) => {
                answer(shard.id.0, entry, Err(error));
            }
        }
    }
}

/// Whether anything is due on the leader's clock. Followers look too, and find they do not lead.
fn something_due(shard: &Inner) -> bool {
    if !shard.group.is_leader() {
        return false;
    }
    let until = keys::due_wallet(shard.stamp(), purser_ledger::ids::WalletNo(u64::MAX));
    let mut due = false;
    let looked = shard.group.view().scan(b"D", &until, &mut |_, _| {
        due = true;
        false
    });
    if let Err(error) = looked {
        tracing::error!(shard = shard.id.0, %error, "cannot look for what is due");
    }
    due
}

/// Hands the answers of an entry out; whether the sweep left something over.
fn answer(shard: u16, entry: UnderWay, result: Result<Proposed, ProposeError>) -> bool {
    let proposed = match result {
        Ok(proposed) => proposed,
        Err(error) => {
            let error = ShardError::from(error);
            for waiting in entry.waiting {
                // A caller that has gone away does not wait for its answer.
                let _ = waiting.send(Err(error.clone()));
            }
            return false;
        }
    };
    let skip = usize::from(entry.swept);
    let mut more = false;
    if let Some(Answer { reply, .. }) = proposed.answers.first().filter(|_| entry.swept) {
        match reply {
            Reply::Swept { more: left, .. } => more = *left,
            reply => tracing::error!(shard, ?reply, "a sweep failed"),
        }
    }
    let answers = proposed.answers.iter().enumerate().skip(skip);
    for ((position, answer), waiting) in answers.zip(entry.waiting) {
        if let Reply::Fault(what) = &answer.reply {
            tracing::error!(
                shard,
                log_index = proposed.log_index,
                position,
                what,
                "an invariant failed; the customer is quarantined"
            );
        }
        more |= matches!(answer.reply, Reply::Backlog);
        let witness = Witness {
            shard: super::ShardId(shard),
            log_index: proposed.log_index,
            position: position as u64,
            now: answer.now,
        };
        let _ = waiting.send(Ok(Placed { witness, reply: answer.reply.clone() }));
    }
    more
}
