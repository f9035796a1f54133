//! What a command has to say, once for people and once for programs, and the exit codes.

use std::io::{self, Write};
use std::process::ExitCode;

use serde_json::Value;

use super::session::OutputFormat;

/// The exit codes: what came of a command, for scripts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Done.
    Done = 0,
    /// The ledger said no: a verdict. Or an audit found something.
    Refused = 1,
    /// The command line or the request is wrong; nothing was done.
    Usage = 2,
    /// The server could not be reached, or the outcome is unknown. Retry with the same key.
    Unknown = 3,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(exit as u8)
    }
}

/// The same facts as text and as JSON.
#[derive(Debug)]
pub struct Answer {
    /// For people: lines, the last one without a line break.
    pub text: String,
    /// For programs.
    pub json: Value,
    /// What the process ends with.
    pub exit: Exit,
}

impl Answer {
    /// An answer that is no refusal.
    pub fn new(text: String, json: Value) -> Self {
        Self { text, json, exit: Exit::Done }
    }

    /// The same answer with another exit code.
    pub fn with_exit(self, exit: Exit) -> Self {
        Self { exit, ..self }
    }
}

/// Writes the answer to stdout.
pub fn print(answer: &Answer, output: OutputFormat) {
    let text = match (output, &answer.json) {
        (OutputFormat::Table, _) => answer.text.trim_end().to_owned(),
        // A script or a piece of the contract: there is no object to make of it.
        (OutputFormat::Json, Value::String(text)) => text.trim_end().to_owned(),
        (OutputFormat::Json, json) => pretty(json),
    };
    // A reader that went away (`purser … | head`) is no failure of the command.
    let _ = writeln!(io::stdout().lock(), "{text}");
}

/// JSON as it is printed.
pub fn pretty(value: &Value) -> String {
    serde_json::to_string_pretty(value).unwrap_or_else(|_| value.to_string())
}
