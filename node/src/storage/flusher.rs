//! Who brings full layers to disk, and how much memory each shard may fill.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Weak};

use super::arena::Chunks;
use super::buffer::{Buffer, FROZEN_MAX};

/// Requests that wait for the thread. More than there are shards on a node: each has one or two.
const REQUESTS_MAX: usize = 1024;

/// Of the memory of write buffers, at most one part in so many is kept without being used.
const UNUSED_PART: usize = 4;

/// The memory of a node's write buffers, shared out among its shards.
#[derive(Debug)]
pub(super) struct Share {
    node_bytes_max: usize,
    shard_bytes_max: usize,
    shards: AtomicUsize,
    chunks: Arc<Chunks>,
}

impl Share {
    pub fn new(node_bytes_max: usize, shard_bytes_max: usize) -> Share {
        let chunks = Chunks::keeping(node_bytes_max / UNUSED_PART);
        Share { node_bytes_max, shard_bytes_max, shards: AtomicUsize::new(0), chunks }
    }

    /// What layers are made of.
    pub fn chunks(&self) -> &Arc<Chunks> {
        &self.chunks
    }

    pub fn joined(&self) {
        self.shards.fetch_add(1, Ordering::Relaxed);
    }

    pub fn left(&self) {
        self.shards.fetch_sub(1, Ordering::Relaxed);
    }

    /// A layer with so many bytes is full.
    pub fn bytes(&self) -> usize {
        let shards = self.shards.load(Ordering::Relaxed).max(1);
        (self.node_bytes_max / (shards * (1 + FROZEN_MAX))).min(self.shard_bytes_max)
    }
}

/// Brings full layers to disk.
#[derive(Clone)]
pub(super) enum Flusher {
    /// At once, on the thread of whoever filled it: where everything has to happen in one order.
    Inline,
    /// On a thread of its own.
    Thread(SyncSender<Weak<Buffer>>),
}

impl Flusher {
    /// A thread that ends when nobody can ask it for anything any more.
    pub fn thread() -> std::io::Result<Flusher> {
        let (ask, asked) = sync_channel::<Weak<Buffer>>(REQUESTS_MAX);
        let work = move || {
            while let Ok(buffer) = asked.recv() {
                if let Some(buffer) = buffer.upgrade() {
                    flush(&buffer);
                }
            }
        };
        std::thread::Builder::new().name("purser-flush".to_owned()).spawn(work)?;
        Ok(Flusher::Thread(ask))
    }

    /// Has a buffer's frozen layers brought to disk.
    pub fn flush_soon(&self, buffer: &Arc<Buffer>) {
        match self {
            Flusher::Inline => flush(buffer),
            // Where that fails, the next write that finds no room brings the layer to disk.
            Flusher::Thread(ask) => _ = ask.try_send(Arc::downgrade(buffer)),
        }
    }
}

/// A failure is met again, and told, by whoever finds no room or waits for a flush.
fn flush(buffer: &Buffer) {
    if let Err(error) = buffer.flush_frozen() {
        tracing::warn!(%error, "rows are not on disk yet");
    }
}
