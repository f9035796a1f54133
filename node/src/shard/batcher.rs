//! The batcher of one shard: gathers commands into Raft entries, keeps a small number of entries
//! under way, hands answers out, and has what is due swept.
//!
//! Entries are answered in the order in which they were proposed, and callers wait in the order of
//! their commands: so an answer finds its caller by counting.

use std::collections::VecDeque;
use std::future::{Ready, ready};
use std::sync::Weak;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::future::Either;
use futures_util::stream::FuturesOrdered;
use purser_ledger::command::{BATCH_COMMANDS_MAX, BatchEncoder};
use purser_ledger::query;
use purser_ledger::verdict::{Answer, Reply};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, Interval, MissedTickBehavior};

use super::queue::{CommandList, Outcome, Pending};
use super::{Inner, Placed, ShardError, ShardId, Witness};
use crate::raft::{ProposeError, Proposed};
use crate::simulation::{self, Bug};

/// Entries under way at once. A list that fills more than one is proposed at once all the same.
const ENTRIES_UNDER_WAY_MAX: usize = 2;
/// An entry costs three nodes messages, wake-ups and a sync, whatever it carries: while one is under way
/// the next one waits for it, unless it has gathered so many commands that they are worth one.
const WORTH_AN_ENTRY: usize = 64;
/// An entry that took so long shows that the machine or the disk has more to do than it can: then those
/// who were just answered are given a moment to come back, so that their commands share an entry with
/// those that wait. Where entries are faster, nothing ever waits for this.
const SLOW: Duration = Duration::from_millis(2);
/// The moment: half of the time that the entry took, and no more than this. One that took seconds, for
/// the disk hung or the others were gone, says nothing of when callers come back.
const MOMENT_MAX: Duration = Duration::from_millis(5);
/// Most bytes of one entry: a few milliseconds of network and disk.
const ENTRY_BYTES_MAX: usize = 1 << 20;
/// Most items booked by one sweep: a few milliseconds, which a debit may have to wait. After a sweep that left
/// something over, the shard rests for as long as the sweep took: at most half of its time, and of its
/// core's, goes into a backlog.
const SWEEP_ITEMS_MAX: u32 = 200;

/// How often a shard looks for what is due.
#[derive(Clone, Copy, Debug)]
pub struct Sweeping {
    /// The time between two looks, where nothing is left over.
    pub every: Duration,
}

impl Sweeping {
    /// A tick after a rest, and then one after each span.
    fn looks_after(&self, rest: Duration) -> Interval {
        let mut looks = tokio::time::interval_at(Instant::now() + rest, self.every);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        looks
    }
}

impl Default for Sweeping {
    fn default() -> Self {
        Sweeping { every: Duration::from_secs(1) }
    }
}

/// Who waits for the answers of commands under way.
enum Caller {
    One(oneshot::Sender<Outcome>),
    Many { left: usize, outcomes: Vec<Outcome>, answer: oneshot::Sender<Vec<Outcome>> },
}

/// What an entry under way carries: a sweep stands first, if there is one.
#[derive(Clone, Copy, Debug, Default)]
struct Entry {
    swept: bool,
    commands: usize,
}

/// An entry that is not proposed before it has so many commands, or before a time.
#[derive(Clone, Copy, Debug)]
struct Gathering {
    commands: usize,
    until: Instant,
}

impl Entry {
    fn items(self) -> usize {
        usize::from(self.swept) + self.commands
    }
}

type Answered = Result<Proposed, ProposeError>;

enum Event {
    Answered(Answered),
    Taken(Pending),
    Closed,
    LookForDue,
    Gathered,
}

pub(super) async fn run(
    id: ShardId,
    inner: Weak<Inner>,
    mut queue: mpsc::Receiver<Pending>,
    sweeping: Sweeping,
) {
    let mut look = sweeping.looks_after(Duration::ZERO);
    let mut batcher = Batcher::new(id);
    let mut open = true;
    while open || batcher.is_busy() {
        let (room, gathering) = (batcher.has_room(), batcher.gathering);
        let event = tokio::select! {
            biased;
            Some(answered) = batcher.under_way.next(), if batcher.is_busy() => Event::Answered(answered),
            // Before the queue: a shard that is never idle is swept all the same.
            _ = look.tick(), if open && room => Event::LookForDue,
            () = passed(gathering), if gathering.is_some() => Event::Gathered,
            taken = queue.recv(), if open && room => taken.map_or(Event::Closed, Event::Taken),
        };
        match (event, inner.upgrade()) {
            (Event::Answered(answered), shard) => {
                let waiting = shard.as_ref().map_or(0, |shard| shard.places.taken());
                if let Some(rest) = batcher.hand_out(answered, waiting) {
                    look = sweeping.looks_after(rest.min(sweeping.every));
                }
                if let Some(shard) = shard {
                    batcher.fill(&shard, &mut queue).await;
                }
            }
            // Handles gone and queue drained: the shard is no longer served.
            (Event::Closed, _) | (_, None) => open = false,
            (Event::LookForDue, Some(shard)) => {
                if something_due(&shard) {
                    batcher.sweep(&shard).await;
                    batcher.fill(&shard, &mut queue).await;
                }
            }
            (Event::Gathered, Some(shard)) => {
                batcher.gathering = None;
                batcher.fill(&shard, &mut queue).await;
            }
            (Event::Taken(pending), Some(shard)) => {
                batcher.add(&shard, pending).await;
                batcher.fill(&shard, &mut queue).await;
            }
        }
    }
}

/// How long those who were just answered are waited for, after an entry that took so long.
fn moment(took: Duration) -> Option<Duration> {
    (took >= SLOW).then(|| (took / 2).min(MOMENT_MAX))
}

/// Until the time to gather is over.
async fn passed(gathering: Option<Gathering>) {
    if let Some(gathering) = gathering {
        tokio::time::sleep_until(gathering.until).await;
    }
}

/// Entries and callers of one shard.
struct Batcher {
    shard: ShardId,
    /// The entry that is being formed.
    encoder: BatchEncoder,
    forming: Entry,
    gathering: Option<Gathering>,
    /// The entries under way, and their answers, in the same order.
    entries: VecDeque<(Entry, Instant)>,
    under_way: FuturesOrdered<Either<crate::raft::Pending, Ready<Answered>>>,
    /// Who waits: for the commands of the entries under way, then for those of the one being formed.
    callers: VecDeque<Caller>,
}

impl Batcher {
    fn new(shard: ShardId) -> Batcher {
        Batcher {
            shard,
            encoder: BatchEncoder::new(),
            forming: Entry::default(),
            gathering: None,
            entries: VecDeque::new(),
            under_way: FuturesOrdered::new(),
            callers: VecDeque::new(),
        }
    }

    fn is_busy(&self) -> bool {
        !self.under_way.is_empty()
    }

    /// Whether commands may go into the entry that is being formed.
    fn has_room(&self) -> bool {
        self.under_way.len() < ENTRIES_UNDER_WAY_MAX && !self.entry_is_full()
    }

    /// Whether the entry that is being formed is to be proposed now.
    fn is_due(&self) -> bool {
        let gathered = self.gathering.is_none_or(|gathering| self.forming.commands >= gathering.commands);
        self.forming.swept || self.is_worth_an_entry() || (self.under_way.is_empty() && gathered)
    }

    fn is_worth_an_entry(&self) -> bool {
        self.forming.commands >= WORTH_AN_ENTRY || self.entry_is_full()
    }

    fn entry_is_full(&self) -> bool {
        self.encoder.len() >= BATCH_COMMANDS_MAX || self.encoder.bytes() >= ENTRY_BYTES_MAX
    }

    /// Begins an entry with a sweep.
    async fn sweep(&mut self, shard: &Inner) {
        // A failure is told to those who wait for the entry.
        let _ = self.propose(shard).await;
        self.encoder.push_sweep(SWEEP_ITEMS_MAX);
        self.forming.swept = true;
    }

    async fn add(&mut self, shard: &Inner, pending: Pending) {
        match pending {
            Pending::One(command, answer) => {
                self.callers.push_back(Caller::One(answer));
                self.add_command(&command);
                shard.places.give_back(1);
            }
            Pending::Many(commands, answer) => {
                let left = commands.len();
                let outcomes = Vec::with_capacity(left);
                self.callers.push_back(Caller::Many { left, outcomes, answer });
                self.add_list(shard, &commands).await;
                shard.places.give_back(left);
            }
        }
    }

    fn add_command(&mut self, command: &[u8]) {
        self.encoder.push_encoded(command);
        self.forming.commands += 1;
    }

    /// Adds a list, over as many entries as it takes. Where one is refused, so is the rest of the
    /// list: nothing of it overtakes what was before it.
    async fn add_list(&mut self, shard: &Inner, commands: &CommandList) {
        for (place, command) in commands.iter().enumerate() {
            if self.entry_is_full()
                && let Err(error) = self.propose(shard).await
            {
                let rest = Entry { swept: false, commands: commands.len() - place };
                self.keep(rest, Either::Right(ready(Err(error))));
                return;
            }
            self.add_command(command);
        }
    }

    /// Adds what waits in the queue, as far as it fits, and proposes if it is time.
    async fn fill(&mut self, shard: &Inner, queue: &mut mpsc::Receiver<Pending>) {
        while self.has_room() {
            let Ok(pending) = queue.try_recv() else { break };
            self.add(shard, pending).await;
        }
        if self.is_due() {
            // A failure is told to those who wait for the entry.
            let _ = self.propose(shard).await;
        }
    }

    /// Proposes the entry that is being formed, if anything is in it. Entries are handed over in
    /// order, here; waited for together.
    async fn propose(&mut self, shard: &Inner) -> Result<(), ProposeError> {
        if self.encoder.is_empty() {
            return Ok(());
        }
        let entry = std::mem::take(&mut self.forming);
        self.gathering = None;
        let bytes = Bytes::from(self.encoder.finish(shard.stamp()));
        match shard.group.submit(bytes).await {
            Ok(pending) => {
                self.keep(entry, Either::Left(pending));
                Ok(())
            }
            Err(error) => {
                self.keep(entry, Either::Right(ready(Err(error.clone()))));
                Err(error)
            }
        }
    }

    fn keep(&mut self, entry: Entry, answer: Either<crate::raft::Pending, Ready<Answered>>) {
        self.entries.push_back((entry, Instant::now()));
        self.under_way.push_back(answer);
    }

    /// Hands the answers of the oldest entry out; after which rest a sweep should follow, if something is left
    /// over. `waiting`: commands in the queue.
    fn hand_out(&mut self, answered: Answered, waiting: usize) -> Option<Duration> {
        let (entry, proposed) = self.entries.pop_front()?;
        let now = Instant::now();
        let took = now.duration_since(proposed);
        let commands = self.forming.commands + waiting + entry.commands;
        // A sweep takes long on any machine.
        let moment = moment(took).filter(|_| !entry.swept);
        self.gathering = moment.map(|moment| Gathering { commands, until: now + moment });
        let proposed = answered.map_err(ShardError::from).and_then(|proposed| match proposed.answers.len() {
            items if items == entry.items() => Ok(proposed),
            items => Err(ShardError::Failed(format!("{} items have {items} answers", entry.items()))),
        });
        let Proposed { log_index, mut answers } = match proposed {
            Ok(proposed) => proposed,
            Err(error) => {
                (0..entry.commands).for_each(|_| self.answer_next(Err(error.clone())));
                return None;
            }
        };
        if simulation::has(Bug::AnswersSwapped) && answers.len() > 1 && !entry.swept {
            answers.swap(0, 1);
        }
        let mut more = false;
        for (position, Answer { now, reply }) in answers.into_iter().enumerate() {
            if entry.swept && position == 0 {
                more |= left_over(&reply);
                continue;
            }
            if let Reply::Fault(what) = &reply {
                tracing::error!(
                    shard = self.shard.0,
                    log_index,
                    position,
                    what,
                    "an invariant failed; the customer is quarantined"
                );
            }
            more |= matches!(reply, Reply::Backlog);
            let witness = Witness { shard: self.shard, log_index, position: position as u64, now };
            self.answer_next(Ok(Placed { witness, reply }));
        }
        more.then_some(took)
    }

    /// Answers the next command of the oldest caller. One that has gone away does not wait for it.
    fn answer_next(&mut self, outcome: Outcome) {
        if let Some(Caller::Many { left, outcomes, .. }) = self.callers.front_mut()
            && *left > 1
        {
            *left -= 1;
            outcomes.push(outcome);
            return;
        }
        match self.callers.pop_front() {
            Some(Caller::One(answer)) => _ = answer.send(outcome),
            Some(Caller::Many { mut outcomes, answer, .. }) => {
                outcomes.push(outcome);
                _ = answer.send(outcomes);
            }
            None => tracing::error!(shard = self.shard.0, "an answer without a caller"),
        }
    }
}

/// Whether a sweep left something over.
fn left_over(reply: &Reply) -> bool {
    match reply {
        Reply::Swept { more, .. } => *more,
        reply => {
            tracing::error!(?reply, "a sweep failed");
            false
        }
    }
}

/// Whether anything is due on the leader's clock. Followers look too, and find they do not lead.
fn something_due(shard: &Inner) -> bool {
    if !shard.group.is_leader() {
        return false;
    }
    let looked = query::something_due(&shard.group.view(), shard.stamp());
    looked.unwrap_or_else(|error| {
        tracing::error!(shard = shard.id.0, %error, "cannot look for what is due");
        false
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn callers_are_waited_for_only_where_entries_are_slow_and_never_for_long() {
        let waited = |took_us| moment(Duration::from_micros(took_us)).map(|moment| moment.as_micros());
        assert_eq!([waited(0), waited(1_999)], [None, None]);
        assert_eq!([waited(2_000), waited(6_000)], [Some(1_000), Some(3_000)]);
        // A disk that hung for a minute does not hold the next command up for half of one.
        assert_eq!([waited(10_000), waited(60_000_000)], [Some(5_000), Some(5_000)]);
    }
}
