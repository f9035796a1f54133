//! Sends a snapshot to another replica: what it stands for, its rows in numbered chunks, and what
//! there was in all. The other end is `incoming`.
//!
//! One chunk is under way at a time, and each is followed by a pause, so that rows of hours do not
//! push aside what is written meanwhile. Whatever goes wrong ends the sending; openraft begins anew.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use openraft::StorageError;
use openraft::errors::StreamingError;
use openraft::raft::SnapshotResponse;
use openraft::type_config::TypeConfigExt;
use purser_ledger::store::{Store, StoreError};

use super::codec;
use super::network::Peer;
use super::state_machine::blocking;
use super::types::{TypeConfig, Vote};
use super::wire::{self, Answer, Part, SessionId, Total};
use crate::simulation::{self, Bug};
use crate::storage::{MEMO_TABLE, ShardView};

/// Rows of one chunk take about this much: some milliseconds of network and disk.
const CHUNK_BYTES: usize = 256 * 1024;

type Sent<T> = Result<T, StreamingError<TypeConfig>>;

/// One snapshot on its way to one replica.
pub(super) struct Outgoing {
    pub peer: Peer,
    pub session: SessionId,
    pub vote: Vote,
    pub view: Arc<ShardView>,
    pub bytes_per_s_max: u64,
}

impl Outgoing {
    /// Sends all of it, and waits until the other replica works with it, or says that it needs no
    /// more of it.
    pub async fn send(self) -> Sent<SnapshotResponse<TypeConfig>> {
        let applied = self.view.applied().map_err(unreadable)?;
        let mut applied = codec::decode_applied(applied.as_deref()).map_err(unreadable)?;
        if simulation::has(Bug::SnapshotAheadOfRows) {
            applied.last.iter_mut().for_each(|last| last.index += 1);
        }
        if let Some(vote) = self.part(Part::Begin { vote: self.vote, applied }).await? {
            return Ok(SnapshotResponse { vote });
        }
        let (mut total, mut crc) = (Total::default(), crc32fast::Hasher::new());
        let mut from = FIRST_KEY.to_vec();
        while let Some(chunk) = self.read(from).await? {
            crc.update(&chunk.rows);
            let number = total.chunks;
            total.chunks += 1;
            total.rows += chunk.count;
            from = chunk.next_key;
            let pause =
                Duration::from_micros(chunk.rows.len() as u64 * 1_000_000 / self.bytes_per_s_max.max(1));
            if let Some(vote) = self.part(Part::Chunk { number, rows: chunk.rows }).await? {
                return Ok(SnapshotResponse { vote });
            }
            tokio::time::sleep(pause).await;
        }
        total.crc = crc.finalize();
        match self.part(Part::End(total)).await? {
            Some(vote) => Ok(SnapshotResponse { vote }),
            None => Err(self.peer.confused().into()),
        }
    }

    /// Sends one part. `None`: the next one, please.
    async fn part(&self, part: Part) -> Sent<Option<Vote>> {
        match self.peer.snapshot_part(self.session, part).await? {
            Answer::GoesOn => Ok(None),
            Answer::HasIt(vote) => Ok(Some(vote)),
            _ => Err(self.peer.confused().into()),
        }
    }

    async fn read(&self, from: Vec<u8>) -> Sent<Option<Chunk>> {
        let view = Arc::clone(&self.view);
        let chunk = blocking(move || Chunk::read(&view, from)).await.map_err(unreadable)?;
        chunk.map_err(unreadable)
    }
}

/// The rows here cannot be read: this replica stops.
fn unreadable(error: impl ToString) -> StreamingError<TypeConfig> {
    StorageError::read_snapshot(None, TypeConfig::err_from_string(error)).into()
}

/// No row has a key before it.
const FIRST_KEY: &[u8] = &[1];

struct Chunk {
    rows: Bytes,
    count: u64,
    next_key: Vec<u8>,
}

impl Chunk {
    /// The rows from a key on, as many as go into one chunk. Blocks.
    fn read(view: &ShardView, from: Vec<u8>) -> Result<Option<Chunk>, StoreError> {
        let mut rows = Vec::with_capacity(CHUNK_BYTES + CHUNK_BYTES / 8);
        let (mut count, mut next_key) = (0, Vec::new());
        view.scan(&from, &[u8::MAX], &mut |key, row| {
            if simulation::has(Bug::SnapshotWithoutKeys) && key.first() == Some(&MEMO_TABLE) {
                return true;
            }
            wire::put_row(&mut rows, key, row);
            count += 1;
            let full = rows.len() >= CHUNK_BYTES;
            if full {
                next_key = [key, &[0]].concat();
            }
            !full
        })?;
        if count == 0 {
            return Ok(None);
        }
        if next_key.is_empty() {
            // All rows are in it.
            next_key = vec![u8::MAX];
        }
        Ok(Some(Chunk { rows: Bytes::from(rows), count, next_key }))
    }
}
