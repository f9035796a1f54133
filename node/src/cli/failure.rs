//! What went wrong, told so that the reader knows what to do next: what was refused, the reason, the
//! field at fault, the key, the next step.
//!
//! Two things must never be mixed up: a verdict (the ledger said no, and will say no again under
//! this key) and an unknown outcome (the write may have been applied: only the same key may be tried
//! again). The exit code and the first word of the report tell them apart.

use std::io::{self, Write};

use purser_proto::v1::Reason;
use serde_json::{Map, Value, json};
use tonic::{Code, Status};
use tonic_types::StatusExt;

use super::answer::{Answer, Exit, pretty};
use super::session::{About, OutputFormat};
use super::table;

/// Why a command has no answer.
#[derive(Debug)]
pub enum Failure {
    /// The flags make no request. Nothing was sent.
    Usage(String),
    /// No connection. Nothing was sent.
    Unreachable {
        /// The address tried.
        server: String,
        /// The innermost cause.
        cause: String,
    },
    /// The call ended with a status.
    Call(Box<FailedCall>),
    /// Something was answered before it failed.
    Partial(Box<Partial>),
}

/// What was answered, and how it went on.
#[derive(Debug)]
pub struct Partial {
    /// What was answered.
    pub answer: Answer,
    /// Why there is no more.
    pub failure: Failure,
}

/// A call that ended with a status.
#[derive(Debug)]
pub struct FailedCall {
    /// What it was about.
    pub about: About,
    /// What the server, or the connection, said.
    pub status: Status,
}

/// A failure in words: what is printed.
#[derive(Debug)]
pub struct Report {
    /// The exit code.
    pub exit: Exit,
    /// What was attempted; empty if nothing was sent.
    what: String,
    /// What was said about it.
    message: String,
    /// The ledger's reason; `None` if the failure is not the ledger's.
    reason: Option<String>,
    /// gRPC's name of the status; `None` if nothing was sent.
    code: Option<Code>,
    /// The fields at fault, with what is wrong about them.
    fields: Vec<(String, String)>,
    /// The ledger's further facts, sorted by name.
    facts: Vec<(String, String)>,
    /// When to try again, if the server said so.
    retry_after_ms: Option<u64>,
    /// The key of the write.
    key: Option<String>,
    /// What to do next.
    next: String,
}

impl Failure {
    /// The failure in words.
    pub fn report(&self) -> Report {
        match self {
            Failure::Usage(message) => {
                Report { next: "see --help".to_owned(), ..Report::local(Exit::Usage, message) }
            }
            Failure::Unreachable { server, cause } => Report {
                next: "start a server (purser dev), or name it with --server or PURSER_SERVER; \
                       nothing was sent"
                    .to_owned(),
                ..Report::local(Exit::Unknown, &format!("no connection to {server}: {cause}"))
            },
            Failure::Call(call) => call.report(),
            Failure::Partial(partial) => partial.failure.report(),
        }
    }
}

impl FailedCall {
    fn report(&self) -> Report {
        let details = self.status.get_error_details();
        let info = details.error_info().filter(|info| info.domain == purser_proto::ERROR_DOMAIN);
        let reason = info.map(|info| info.reason.clone());
        let known = reason.as_deref().and_then(Reason::from_str_name);
        let exit = known.map_or_else(|| exit_of_code(self.status.code()), exit_of_reason);

        let mut facts: Vec<_> = info.iter().flat_map(|info| info.metadata.clone()).collect();
        facts.sort();
        let violations = details.bad_request().into_iter().flat_map(|bad| &bad.field_violations);
        let fields = violations.map(|v| (v.field.clone(), v.description.clone())).collect();
        let delay = details.retry_info().and_then(|retry| retry.retry_delay);

        Report {
            exit,
            what: self.about.what.clone(),
            message: self.status.message().to_owned(),
            reason,
            code: Some(self.status.code()),
            fields,
            facts,
            retry_after_ms: delay.and_then(|delay| u64::try_from(delay.as_millis()).ok()),
            key: self.about.key.clone(),
            next: self.next(known, exit),
        }
    }

    fn next(&self, reason: Option<Reason>, exit: Exit) -> String {
        match (exit, &self.about.key) {
            (Exit::Unknown, Some(key)) => format!(
                "run the same command with --key {}: if the first attempt was applied you get its \
                 answer, and nothing happens twice",
                shell_quoted(key)
            ),
            (Exit::Unknown, None) => "try again; nothing was to be changed".to_owned(),
            _ => match (reason, self.status.code()) {
                (Some(reason), _) => advice(reason).to_owned(),
                (None, Code::Unimplemented) => {
                    "check that --server is a Purser of this version or newer".to_owned()
                }
                (None, _) => "see the message above".to_owned(),
            },
        }
    }
}

/// The same for a reason by its name; one that this build does not know is a verdict.
pub fn exit_of_name(reason: &str) -> Exit {
    Reason::from_str_name(reason).map_or(Exit::Refused, exit_of_reason)
}

/// A verdict of the ledger ends with 1, a malformed request with 2, an unknown outcome with 3.
fn exit_of_reason(reason: Reason) -> Exit {
    match i32::from(reason) / 100 {
        400 => Exit::Usage,
        500.. => Exit::Unknown,
        _ => Exit::Refused,
    }
}

fn exit_of_code(code: Code) -> Exit {
    match code {
        Code::InvalidArgument | Code::Unimplemented => Exit::Usage,
        Code::NotFound
        | Code::AlreadyExists
        | Code::PermissionDenied
        | Code::ResourceExhausted
        | Code::FailedPrecondition
        | Code::Aborted
        | Code::OutOfRange
        | Code::Unauthenticated => Exit::Refused,
        Code::Ok
        | Code::Cancelled
        | Code::Unknown
        | Code::DeadlineExceeded
        | Code::Internal
        | Code::Unavailable
        | Code::DataLoss => Exit::Unknown,
    }
}

/// What a person at a terminal does about it.
fn advice(reason: Reason) -> &'static str {
    match reason {
        Reason::Unspecified => "see the message above",
        Reason::InvalidArgument => "correct the field and run the command again",
        Reason::InvalidAmountPrecision => "round the amount to the asset's scale, then use a new --key",
        Reason::AmountOverflow => "use a smaller amount and a new --key",
        Reason::LimitExceeded => "split the request or shorten the field; see docs/limits.md",
        Reason::InsufficientCredits => {
            "grant credits (purser grant) or ask for less, then use a new --key: this one keeps its verdict"
        }
        Reason::NoEligibleTranche => {
            "look at what the credits may pay (purser tranches), then use a new --key"
        }
        Reason::WalletFrozen => "unfreeze the wallet (purser wallet unfreeze), then use a new --key",
        Reason::CustomerNotFound => {
            "check --customer and --namespace, or create a wallet (purser wallet create)"
        }
        Reason::WalletNotFound => {
            "list the customer's wallets (purser wallet list), or create one (purser wallet create)"
        }
        Reason::MovementNotFound => "check --customer and the movement's id (purser movements)",
        Reason::HoldNotFound => "check --customer and the hold's id (purser hold list)",
        Reason::HoldExpired => "its credits are back: debit them (purser debit) with a new --key",
        Reason::HoldClosed => "it was captured or released before: look at it (purser hold get)",
        Reason::TrancheNotFound => "check --wallet and the tranche's id (purser tranches)",
        Reason::TrancheNotActive => "look at the tranche (purser tranches): its status does not allow this",
        Reason::WalletClosed => {
            "it is closed for ever: use another wallet (purser wallet list) and a new --key"
        }
        Reason::WalletNotEmpty => {
            "look at what is in it (purser balance --by-tranche --by-hold), empty it, then use a new --key"
        }
        Reason::VersionConflict => {
            "it was changed meanwhile: look at it (purser wallet get), then use a new --key"
        }
        Reason::RefundExceedsDebit => {
            "look at what was spent and given back (purser movements), then use a smaller amount and a new --key"
        }
        Reason::AlreadyExists => "it is there already: look at it, or choose another id",
        Reason::CustomerQuarantined => {
            "call the operator: this customer's books are stopped until someone has looked"
        }
        Reason::TestClockOff => "start the server with purser dev --test-clock",
        Reason::IdempotencyKeyReused => "this --key already stands for another request: use a new one",
        Reason::KeyTooOld => "the attempt came too late and took no effect: use a new --key",
        Reason::Internal | Reason::Unavailable | Reason::NotLeader => "try again with the same --key",
    }
}

impl Report {
    fn local(exit: Exit, message: &str) -> Self {
        Self {
            exit,
            what: String::new(),
            message: message.to_owned(),
            reason: None,
            code: None,
            fields: Vec::new(),
            facts: Vec::new(),
            retry_after_ms: None,
            key: None,
            next: String::new(),
        }
    }

    /// Writes the report to stderr.
    pub fn print(&self, output: OutputFormat) {
        let text = match output {
            OutputFormat::Table => self.to_text(),
            OutputFormat::Json => pretty(&self.to_json()),
        };
        // Nobody reads stderr: the exit code still tells.
        let _ = writeln!(io::stderr().lock(), "{text}");
    }

    /// For people.
    pub fn to_text(&self) -> String {
        let mut headline = self.headline().to_owned();
        for part in [&self.what, &self.message] {
            if !part.is_empty() {
                headline.push_str(": ");
                headline.push_str(&table::clean(part));
            }
        }
        let mut facts: Vec<(&str, String)> = Vec::new();
        facts.push(("reason", self.reason_line()));
        facts.extend(self.fields.iter().map(|(field, wrong)| ("field", format!("{field}: {wrong}"))));
        facts.extend(self.facts.iter().map(|(name, value)| (name.as_str(), value.clone())));
        if let Some(delay) = self.retry_after_ms {
            facts.push(("retry after", format!("{delay} ms")));
        }
        facts.push(("key", self.key.clone().unwrap_or_default()));
        let facts = table::facts(facts);
        let facts: String = facts.lines().map(|line| format!("  {line}\n")).collect();
        format!("{headline}\n{facts}next: {}", self.next)
    }

    /// For programs.
    pub fn to_json(&self) -> Value {
        let fields: Vec<_> = self
            .fields
            .iter()
            .map(|(field, description)| json!({ "field": field, "description": description }))
            .collect();
        let facts: Map<_, _> = self.facts.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
        json!({ "error": {
            "outcome": self.headline(),
            "what": self.what,
            "message": self.message,
            "reason": self.reason,
            "code": self.code.map(code_name),
            "http": self.http(),
            "fields": fields,
            "metadata": facts,
            "retry_after_ms": self.retry_after_ms,
            "idempotency_key": self.key,
            "next": self.next,
            "exit_code": self.exit as u8,
        }})
    }

    fn headline(&self) -> &'static str {
        match (self.exit, &self.key) {
            (Exit::Done, _) => "done",
            (Exit::Refused, _) => "refused",
            (Exit::Usage, _) => "invalid",
            (Exit::Unknown, Some(_)) => "outcome unknown",
            (Exit::Unknown, None) => "unavailable",
        }
    }

    /// `INSUFFICIENT_CREDITS (HTTP 402, FAILED_PRECONDITION)`.
    fn reason_line(&self) -> String {
        let code = self.code.map(code_name);
        match (&self.reason, self.http(), code) {
            (Some(reason), Some(http), Some(code)) => format!("{reason} (HTTP {http}, {code})"),
            (Some(reason), None, Some(code)) => format!("{reason} ({code})"),
            (Some(reason), _, None) => reason.clone(),
            (None, _, Some(code)) => code.to_owned(),
            (None, _, None) => String::new(),
        }
    }

    /// The HTTP status that a gateway answers with: the number of a reason starts with it.
    fn http(&self) -> Option<i32> {
        let reason = Reason::from_str_name(self.reason.as_deref()?)?;
        Some(i32::from(reason) / 100)
    }
}

/// gRPC's own spelling.
fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

/// A key as it can be pasted into a POSIX shell.
fn shell_quoted(text: &str) -> String {
    let is_plain =
        |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'/' | b':');
    if !text.is_empty() && text.bytes().all(is_plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}
