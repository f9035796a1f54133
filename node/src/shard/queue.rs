//! What waits for a shard's batcher. Bounded by commands, whether they come one by one or in lists:
//! a list takes as many places as it has commands, and gives them back as they go into an entry.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use purser_ledger::command::{Command, encode_command};
use tokio::sync::oneshot;

use super::{Placed, ShardError};

/// Most commands that wait for one shard: at 100,000 a second a tenth of a second's work.
pub const QUEUE_COMMANDS_MAX: usize = 10_000;

/// What came of one command.
pub type Outcome = Result<Placed, ShardError>;

/// Bytes of a plain debit, encoded: a first guess at what a list needs.
const COMMAND_BYTES_GUESS: usize = 160;

/// Commands of one shard, encoded, in the order in which they are to be judged.
#[derive(Debug, Default)]
pub struct CommandList {
    /// All of them, one behind the other.
    bytes: Vec<u8>,
    /// Where each ends.
    ends: Vec<usize>,
}

impl CommandList {
    /// An empty list with room for so many.
    pub fn with_capacity(commands: usize) -> CommandList {
        let bytes = Vec::with_capacity(commands * COMMAND_BYTES_GUESS);
        CommandList { bytes, ends: Vec::with_capacity(commands) }
    }

    /// Adds a command behind the others.
    pub fn push(&mut self, command: &Command<'_>) {
        encode_command(&mut self.bytes, command);
        self.ends.push(self.bytes.len());
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Keeps the first `commands` of them.
    pub(super) fn truncate(&mut self, commands: usize) {
        self.ends.truncate(commands);
    }

    pub(super) fn iter(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        self.ends.iter().enumerate().map(|(place, end)| {
            let begin = place.checked_sub(1).map_or(0, |before| self.ends[before]);
            &self.bytes[begin..*end]
        })
    }
}

/// Commands on their way to the batcher, and who waits for what comes of them.
pub(super) enum Pending {
    /// One, encoded.
    One(Vec<u8>, oneshot::Sender<Outcome>),
    /// Many, answered together: an outcome for each, in order.
    Many(CommandList, oneshot::Sender<Vec<Outcome>>),
}

/// The free places of a queue.
#[derive(Clone, Debug)]
pub(super) struct Places {
    free: Arc<AtomicUsize>,
}

impl Places {
    pub fn new() -> Places {
        Places { free: Arc::new(AtomicUsize::new(QUEUE_COMMANDS_MAX)) }
    }

    /// Takes up to `wanted` places; returns how many it got.
    pub fn take_up_to(&self, wanted: usize) -> usize {
        let less = |free: usize| Some(free.saturating_sub(wanted));
        let free = self.free.fetch_update(Ordering::AcqRel, Ordering::Acquire, less);
        free.map_or(0, |free| free.min(wanted))
    }

    pub fn give_back(&self, places: usize) {
        self.free.fetch_add(places, Ordering::AcqRel);
    }

    pub fn taken(&self) -> usize {
        QUEUE_COMMANDS_MAX - self.free.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_given_out_until_there_are_none_and_again_when_they_come_back() {
        let places = Places::new();
        assert_eq!(places.take_up_to(QUEUE_COMMANDS_MAX - 3), QUEUE_COMMANDS_MAX - 3);
        assert_eq!(places.take_up_to(1), 1);
        assert_eq!(places.take_up_to(5), 2);
        assert_eq!((places.take_up_to(1), places.taken()), (0, QUEUE_COMMANDS_MAX));
        places.give_back(4);
        assert_eq!((places.take_up_to(5), places.taken()), (4, QUEUE_COMMANDS_MAX));
    }
}
