//! openraft's log, over one group of the node's log.
//!
//! Invariants:
//! - Appended entries are readable when `append` returns; the callback comes when they are durable,
//!   in order, from the log's own hand.
//! - A vote is durable before `save_vote` returns. Votes and entries are one stream.
//! - Now and then the committed id rides along with the next write: it is never newer than what is
//!   durable.
//! - What does not decode is damage, never skipped.

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, Range, RangeBounds};

use futures_util::{Stream, TryStreamExt, stream};
use openraft::OptionalSend;
use openraft::storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage};
use tokio::sync::oneshot;

use super::codec;
use super::types::{Entry, LogId, Runtime, TypeConfig, Vote, log_id};
use crate::log::{Done, GroupId, LogError, LogHandle, Op, Slot};
use crate::simulation::{self, Bug};

/// One read for a follower or for apply takes no more than this, but at least one entry; the rest
/// comes with the next.
const READ_ENTRIES_MAX: u64 = 256;
/// As many bytes as are sent in one message, unless one entry alone is longer.
const READ_BYTES_MAX: usize = 1024 * 1024;
/// Of so many committed ids one is saved.
const COMMITTED_EVERY: u64 = 64;
/// Entries that are looked at together, before it is known how long they are.
const READ_STEP: u64 = 16;

/// Reads the log of one group.
#[derive(Clone, Debug)]
pub struct LogReader {
    log: LogHandle,
    group: GroupId,
}

/// The log of one group.
#[derive(Clone, Debug)]
pub struct LogStore {
    reader: LogReader,
    /// The committed index that was saved last.
    saved: u64,
}

impl LogStore {
    /// The log of this group.
    pub fn new(log: LogHandle, group: GroupId) -> LogStore {
        LogStore { reader: LogReader { log, group }, saved: 0 }
    }

    /// The last purged entry, as the log knows it.
    pub(super) fn purged(&self) -> io::Result<Option<LogId>> {
        let purged = self.reader.log.purged(self.reader.group).map_err(failed)?;
        purged.map(|(_, mark)| codec::decode_log_id(&mark).map_err(damaged)).transpose()
    }

    fn group(&self) -> GroupId {
        self.reader.group
    }

    /// Queues operations; waits on a thread of its own while the log's queue is full.
    async fn submit(&self, ops: Vec<Op>, done: Done) -> io::Result<()> {
        let refused = match self.reader.log.try_submit(ops, done) {
            Ok(()) => return Ok(()),
            Err(refused) if refused.error == LogError::Busy => refused,
            Err(refused) => return Err(failed(refused.error)),
        };
        let log = self.reader.log.clone();
        let submitted = <Runtime as openraft::AsyncRuntime>::spawn_blocking(move || {
            log.submit(refused.ops, refused.done)
        });
        submitted.await?.map_err(failed)
    }

    /// Queues an operation and waits until it is durable.
    pub(super) async fn write(&self, op: Op) -> io::Result<()> {
        let (done, durable) = oneshot::channel();
        let done = move |outcome| drop(done.send(outcome));
        self.submit(vec![op], Box::new(done)).await?;
        let outcome = durable.await.map_err(|_| failed(LogError::Closed))?;
        outcome.map_err(failed)
    }
}

impl LogReader {
    /// The part of a range that the log holds: what was purged or is not there yet is left out.
    fn present(&self, range: impl RangeBounds<u64>) -> io::Result<Range<u64>> {
        let extent = self.log.extent(self.group).map_err(failed)?;
        let start = match range.start_bound() {
            Bound::Included(start) => *start,
            Bound::Excluded(before) => before.saturating_add(1),
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(last) => last.saturating_add(1),
            Bound::Excluded(end) => *end,
            Bound::Unbounded => u64::MAX,
        };
        let start = start.max(extent.first_index);
        Ok(start..end.min(extent.next_index).max(start))
    }

    fn read(&self, range: Range<u64>) -> io::Result<Vec<Entry>> {
        if range.is_empty() {
            return Ok(Vec::new());
        }
        let entries = self.log.read(self.group, range).map_err(failed)?;
        entries.into_iter().map(|entry| codec::decode_entry(entry).map_err(damaged)).collect()
    }

    /// The first entries of a range that is present.
    fn read_some(&self, range: Range<u64>) -> io::Result<Vec<Entry>> {
        let end = range.end.min(range.start.saturating_add(READ_ENTRIES_MAX));
        let (mut entries, mut bytes) = (Vec::new(), 0);
        let mut next = range.start;
        while next < end {
            for entry in self.log.read(self.group, next..end.min(next + READ_STEP)).map_err(failed)? {
                bytes += entry.payload.len();
                if bytes > READ_BYTES_MAX && !entries.is_empty() {
                    return Ok(entries);
                }
                next = entry.index + 1;
                entries.push(codec::decode_entry(entry).map_err(damaged)?);
            }
        }
        Ok(entries)
    }

    /// The entries of a range that is present, read as they are asked for.
    fn bit_by_bit(self, range: Range<u64>) -> impl Stream<Item = io::Result<Entry>> + Send {
        let parts = stream::try_unfold((self, range), |(reader, range)| async move {
            if range.is_empty() {
                return Ok::<_, io::Error>(None);
            }
            let part = reader.read_some(range.clone())?;
            let rest = range.start + part.len() as u64..range.end;
            Ok(Some((stream::iter(part.into_iter().map(Ok)), (reader, rest))))
        });
        parts.try_flatten()
    }
}

impl RaftLogReader<TypeConfig> for LogReader {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, io::Error> {
        let present = self.present(range)?;
        self.read(present)
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<Entry>, io::Error> {
        self.read_some(start..end)
    }

    // openraft's default reads all of it at once: after a restart, or on a follower that lagged, the
    // whole log.
    async fn entries_stream<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> impl Stream<Item = io::Result<Entry>> + OptionalSend {
        let (reader, range) = (self.clone(), self.present(range));
        stream::once(async move { range }).map_ok(move |range| reader.clone().bit_by_bit(range)).try_flatten()
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        let vote = self.log.slot(self.group, Slot::Vote).map_err(failed)?;
        vote.map(|bytes| codec::decode_vote(&bytes).map_err(damaged)).transpose()
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = LogReader;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, io::Error> {
        let last_purged_log_id = self.purged()?;
        let extent = self.reader.log.extent(self.group()).map_err(failed)?;
        let last = extent.last_index().zip(extent.last_term).map(|(index, term)| log_id(term, index));
        Ok(LogState { last_purged_log_id, last_log_id: last.or(last_purged_log_id) })
    }

    async fn get_log_reader(&mut self) -> LogReader {
        self.reader.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        let put = Op::Put { group: self.group(), slot: Slot::Vote, value: codec::encode_vote(vote) };
        if simulation::has(Bug::VoteAcknowledgedBeforeSync) {
            return self.submit(vec![put], Box::new(|_| ())).await;
        }
        self.write(put).await
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), io::Error> {
        // It is an aid: a restart without it applies the same entries a little later.
        let Some(committed) = committed.filter(|id| id.index >= self.saved + COMMITTED_EVERY) else {
            return Ok(());
        };
        self.saved = committed.index;
        let value = codec::encode_log_id(&committed);
        let put = Op::Put { group: self.group(), slot: Slot::Committed, value };
        match self.reader.log.try_submit(vec![put], Box::new(|_| ())) {
            Err(refused) if refused.error != LogError::Busy => Err(failed(refused.error)),
            _ => Ok(()),
        }
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, io::Error> {
        let committed = self.reader.log.slot(self.group(), Slot::Committed).map_err(failed)?;
        committed.map(|bytes| codec::decode_log_id(&bytes).map_err(damaged)).transpose()
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<TypeConfig>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<_> = entries.into_iter().map(|entry| codec::encode_entry(&entry)).collect();
        let append = Op::Append { group: self.group(), entries };
        let done = move |outcome: Result<(), LogError>| callback.io_completed(outcome.map_err(failed));
        self.submit(vec![append], Box::new(done)).await
    }

    async fn truncate_after(&mut self, last_log_id: Option<LogId>) -> Result<(), io::Error> {
        simulation::mark("uncommitted entries truncated");
        let from_index = last_log_id.map_or(0, |last| last.index.saturating_add(1));
        self.write(Op::Truncate { group: self.group(), from_index }).await
    }

    async fn purge(&mut self, upto: LogId) -> Result<(), io::Error> {
        simulation::mark("log purged");
        let mark = codec::encode_log_id(&upto);
        self.write(Op::Purge { group: self.group(), upto_index: upto.index, mark }).await
    }
}

pub(super) fn failed(error: LogError) -> io::Error {
    io::Error::other(error)
}

pub(super) fn damaged(error: codec::Undecodable) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}
