//! Who hears of a broken promise first, and ends the run.

use std::sync::{Mutex, MutexGuard};

use tokio::sync::Notify;

/// The referee of a run.
#[derive(Debug, Default)]
pub struct Referee {
    broken: Mutex<Option<String>>,
    whistle: Notify,
}

impl Referee {
    fn first(&self) -> MutexGuard<'_, Option<String>> {
        self.broken.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// A promise was broken. The first one counts.
    pub fn fail(&self, what: impl Into<String>) {
        self.first().get_or_insert_with(|| what.into());
        self.whistle.notify_one();
    }

    /// Waits until a promise is broken, and says which.
    pub async fn broken(&self) -> String {
        loop {
            if let Some(what) = self.first().clone() {
                return what;
            }
            self.whistle.notified().await;
        }
    }
}
