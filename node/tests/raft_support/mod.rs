//! Several replicas of one group in one process: real logs and real rows, in directories of their
//! own, over a switchboard that stands in for the network.

#![allow(dead_code)]

pub mod commands;
pub mod disk;
pub mod messages;
pub mod nodes;
pub mod switchboard;

use std::future::Future;
use std::time::Duration;

/// Longer than anything here takes on a slow machine.
const WAIT_MAX: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(5);

pub fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime")
}

/// Waits until there is something to give back.
pub async fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    within_reason(what, async move {
        loop {
            match look() {
                Some(found) => return found,
                None => tokio::time::sleep(LOOK_EVERY).await,
            }
        }
    })
    .await
}

/// Waits for something that must not take for ever.
pub async fn within_reason<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(WAIT_MAX, future).await {
        Ok(done) => done,
        Err(_) => panic!("it took too long: {what}"),
    }
}
