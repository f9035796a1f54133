//! What every write has: an idempotency key.

use clap::Args;
use uuid::Uuid;

/// The flag of every write.
#[derive(Clone, Debug, Args)]
pub struct WriteArgs {
    /// The idempotency key: repeat a command with the same key and it takes effect once [default: a
    /// new UUID, printed with the answer]
    #[arg(long, value_name = "KEY")]
    pub key: Option<String>,
}

impl WriteArgs {
    /// The key, made up if none was given. Call it once a command.
    pub fn key(&self) -> String {
        // Version 7 sorts by time, which helps whoever looks for one in a log.
        self.key.clone().unwrap_or_else(|| Uuid::now_v7().to_string())
    }
}
