//! Bytes, one behind the other in chunks, that are let go all at once. Chunks are used again by the
//! next arena: memory that was touched before costs neither a page fault nor a search for room.

use std::sync::{Arc, Mutex, MutexGuard};

/// A chunk. What does not fit into one has its own.
const CHUNK_BYTES: usize = 256 * 1024;

/// Chunks that are used again.
#[derive(Debug)]
pub(super) struct Chunks {
    free: Mutex<Vec<Box<[u8]>>>,
    free_max: usize,
}

impl Chunks {
    /// Keeps at most so many bytes that nobody uses.
    pub fn keeping(bytes_max: usize) -> Arc<Chunks> {
        Arc::new(Chunks { free: Mutex::default(), free_max: bytes_max / CHUNK_BYTES })
    }

    fn free(&self) -> MutexGuard<'_, Vec<Box<[u8]>>> {
        self.free.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn take(&self, bytes: usize) -> Box<[u8]> {
        let used_before = if bytes <= CHUNK_BYTES { self.free().pop() } else { None };
        used_before.unwrap_or_else(|| vec![0; bytes.max(CHUNK_BYTES)].into_boxed_slice())
    }

    fn give_back(&self, chunks: impl Iterator<Item = Box<[u8]>>) {
        let mut free = self.free();
        for chunk in chunks.filter(|chunk| chunk.len() == CHUNK_BYTES) {
            if free.len() >= self.free_max {
                break;
            }
            free.push(chunk);
        }
    }
}

/// Where bytes stand in an arena.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span {
    chunk: u32,
    at: u32,
    /// How many bytes.
    pub len: u32,
}

/// Bytes that are let go all at once.
pub(super) struct Arena {
    pool: Arc<Chunks>,
    chunks: Vec<Box<[u8]>>,
    /// How much of the last chunk is taken.
    taken: usize,
}

impl Arena {
    pub fn new(pool: Arc<Chunks>) -> Arena {
        Arena { pool, chunks: Vec::new(), taken: 0 }
    }

    /// Takes room for some bytes, and room behind them for them to grow to `room` bytes.
    pub fn add(&mut self, bytes: &[u8], room: usize) -> Span {
        let room = room.max(bytes.len());
        if self.chunks.last().is_none_or(|last| last.len() - self.taken < room) {
            self.chunks.push(self.pool.take(room));
            self.taken = 0;
        }
        let span =
            Span { chunk: self.chunks.len() as u32 - 1, at: self.taken as u32, len: bytes.len() as u32 };
        self.taken += room;
        self.write(span, bytes);
        span
    }

    /// Writes other bytes where room for them was taken.
    pub fn replace(&mut self, span: Span, bytes: &[u8]) -> Span {
        let span = Span { len: bytes.len() as u32, ..span };
        self.write(span, bytes);
        span
    }

    fn write(&mut self, span: Span, bytes: &[u8]) {
        let at = span.at as usize;
        self.chunks[span.chunk as usize][at..at + bytes.len()].copy_from_slice(bytes);
    }

    pub fn bytes(&self, span: Span) -> &[u8] {
        let at = span.at as usize;
        &self.chunks[span.chunk as usize][at..at + span.len as usize]
    }

    /// What it takes of memory.
    pub fn size(&self) -> usize {
        self.chunks.iter().map(|chunk| chunk.len()).sum()
    }

    /// What is used of it.
    pub fn used(&self) -> usize {
        self.size() - self.chunks.last().map_or(0, |last| last.len() - self.taken)
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        self.pool.give_back(self.chunks.drain(..));
    }
}
