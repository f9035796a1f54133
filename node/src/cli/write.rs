//! What writes have in common: an idempotency key, and what they say of themselves.

use clap::Args;
use uuid::Uuid;

use super::parse;

/// The flag of every write.
#[derive(Clone, Debug, Args)]
pub struct WriteArgs {
    /// The idempotency key: repeat a command with the same key and it takes effect once [default: a
    /// new UUID, printed with the answer]
    #[arg(long, value_name = "KEY")]
    pub key: Option<String>,
}

/// What a write may say of itself.
#[derive(Debug, Args)]
pub struct TextArgs {
    /// Your own reference, such as a request id
    #[arg(long, default_value = "", hide_default_value = true)]
    pub reference: String,
    /// Why
    #[arg(long, value_name = "CODE", default_value = "", hide_default_value = true)]
    pub reason: String,
    /// A pair of your own; may be repeated
    #[arg(long = "meta", value_name = "NAME=VALUE", value_parser = parse::pair)]
    pub metadata: Vec<(String, String)>,
    #[command(flatten)]
    pub write: WriteArgs,
}

impl WriteArgs {
    /// The key, made up if none was given. Call it once a command.
    pub fn key(&self) -> String {
        // Version 7 sorts by time, which helps whoever looks for one in a log.
        self.key.clone().unwrap_or_else(|| Uuid::now_v7().to_string())
    }
}
