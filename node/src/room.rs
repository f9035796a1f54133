//! Room on the disk of this node: writes are refused early, while flushes and votes still fit.
//!
//! What is applied and not flushed yet has to reach the disk some time, whatever else fills it. So
//! new commands are refused while less than the reserve is free; reads, and what is under way, go
//! on. When there is room again, writes are taken again.

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// How often the file system is asked.
const LOOK_EVERY: Duration = Duration::from_millis(250);

type FreeBytes = Box<dyn Fn() -> io::Result<u64> + Send + Sync>;

/// Whether there is room for new commands.
pub struct Room {
    free_bytes: FreeBytes,
    reserve_bytes: u64,
    there: AtomicBool,
}

impl fmt::Debug for Room {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Room").field("there", &self.there).finish_non_exhaustive()
    }
}

impl Room {
    /// Looks at the file system of a directory; at least `reserve_bytes` are to stay free.
    pub fn new(directory: &Path, reserve_bytes: u64) -> Room {
        let directory = directory.to_owned();
        Room::over(move || free_bytes(&directory), reserve_bytes)
    }

    /// Looks at any disk, by asking how many bytes of it are free.
    pub fn over(
        free_bytes: impl Fn() -> io::Result<u64> + Send + Sync + 'static,
        reserve_bytes: u64,
    ) -> Room {
        let room = Room { free_bytes: Box::new(free_bytes), reserve_bytes, there: AtomicBool::new(true) };
        room.look();
        room
    }

    /// Whether new commands are taken.
    pub fn is_there(&self) -> bool {
        self.there.load(Ordering::Relaxed)
    }

    /// Looks now and then, for ever.
    pub async fn watch(&self) {
        let mut tick = tokio::time::interval(LOOK_EVERY);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            self.look();
        }
    }

    fn look(&self) {
        let free_bytes = match (self.free_bytes)() {
            Ok(free_bytes) => free_bytes,
            Err(error) => {
                tracing::error!(%error, "cannot tell how much room there is on the disk");
                return;
            }
        };
        let there = free_bytes >= self.reserve_bytes;
        if self.there.swap(there, Ordering::Relaxed) != there {
            let (free_mib, reserve_mib) = (free_bytes >> 20, self.reserve_bytes >> 20);
            match there {
                true => tracing::info!(free_mib, "there is room on the disk again: writes are taken"),
                false => {
                    tracing::error!(free_mib, reserve_mib, "the disk is nearly full: writes are refused")
                }
            }
        }
    }
}

fn free_bytes(directory: &Path) -> io::Result<u64> {
    let state = rustix::fs::statvfs(directory)?;
    Ok(state.f_bavail.saturating_mul(state.f_frsize))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::AtomicU64;

    #[test]
    fn there_is_room_as_long_as_the_reserve_is_free() {
        let folder = tempfile::tempdir().expect("a folder");
        assert!(Room::new(folder.path(), 0).is_there());
        assert!(!Room::new(folder.path(), u64::MAX).is_there());
    }

    #[test]
    fn room_that_was_made_is_found_at_the_next_look() {
        let free = Arc::new(AtomicU64::new(9));
        let seen = Arc::clone(&free);
        let room = Room::over(move || Ok(seen.load(Ordering::Relaxed)), 10);
        assert!(!room.is_there());
        free.store(10, Ordering::Relaxed);
        room.look();
        assert!(room.is_there());
    }
}
