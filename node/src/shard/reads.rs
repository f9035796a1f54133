//! The reads of one shard: all that wait share one round in which a quorum confirms the leader, and
//! those that come meanwhile share the next one.

use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use crate::raft::{Group, ReadError};

/// Most reads that wait for one shard.
pub(super) const QUEUE_READS_MAX: usize = 10_000;
/// One round: longer than an election takes, so that a leader that works always makes it.
const ROUND_MAX: Duration = Duration::from_secs(2);

/// Who waits to be told the read index.
pub(super) type Reader = oneshot::Sender<Result<u64, ReadError>>;

pub(super) async fn run(group: Group, mut queue: mpsc::Receiver<Reader>) {
    let mut waiting = Vec::new();
    while queue.recv_many(&mut waiting, QUEUE_READS_MAX).await > 0 {
        let confirmed = match tokio::time::timeout(ROUND_MAX, group.read_index()).await {
            Ok(confirmed) => confirmed,
            Err(_) => Err(ReadError::NoQuorum(format!("no majority answered in {} s", ROUND_MAX.as_secs()))),
        };
        for reader in waiting.drain(..) {
            // Who has gone away does not wait.
            let _ = reader.send(confirmed.clone());
        }
    }
}
