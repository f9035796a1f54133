//! What came of a call.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use purser_proto::v1::Reason;
use tonic::Code;

use crate::call::Write;
use crate::reason::HttpStatus;

/// What came of a write. There is no fourth case: the effect is there, is certainly not there, or is
/// not known and can be asked for.
#[derive(Clone, Debug, PartialEq)]
#[must_use = "a write may have been denied, or its outcome may be unknown"]
pub enum Outcome<R: Write> {
    /// It was applied: now, or before if the receipt says `replayed`.
    Applied(R::Response),
    /// It certainly took no effect.
    Denied(Denial),
    /// It may have been applied, or may be yet, until its `valid_until`.
    Unknown(Unknown<R>),
}

/// A write whose outcome is not known: something may have been sent, and there was no answer in time
/// that settles it.
#[derive(Clone, Debug, PartialEq)]
pub struct Unknown<R> {
    /// The request as it was sent, with its key and `valid_until`: what
    /// [`resolve`](crate::PurserClient::resolve) takes.
    pub request: R,
    /// What was heard last.
    pub cause: Denial,
}

impl<R: Write> Unknown<R> {
    /// The key of the write.
    pub fn key(&self) -> &str {
        self.request.idempotency_key()
    }
}

impl<R: Write> Outcome<R> {
    /// The answer, if it was applied.
    pub fn applied(self) -> Option<R::Response> {
        match self {
            Outcome::Applied(response) => Some(response),
            Outcome::Denied(_) | Outcome::Unknown(_) => None,
        }
    }

    /// The answer, or why there is none: for `?`.
    pub fn into_result(self) -> Result<R::Response, NotApplied> {
        match self {
            Outcome::Applied(response) => Ok(response),
            Outcome::Denied(denial) => Err(NotApplied::Denied(denial)),
            Outcome::Unknown(unknown) => {
                let key = unknown.key().to_owned();
                Err(NotApplied::Unknown { key, cause: unknown.cause })
            }
        }
    }

    /// What a gateway answers with: 200, the status of the denial, or 503 for an unknown outcome.
    pub fn http_status(&self) -> u16 {
        match self {
            Outcome::Applied(_) => 200,
            Outcome::Denied(denial) => denial.http_status(),
            Outcome::Unknown(_) => Code::Unavailable.http_status(),
        }
    }
}

/// A write that is not known to be applied, as an error.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum NotApplied {
    /// It certainly took no effect.
    #[error("denied: {0}")]
    Denied(Denial),
    /// It may have been applied.
    #[error("the outcome under key {key} is unknown: {cause}")]
    Unknown {
        /// The key of the write.
        key: String,
        /// What was heard last.
        cause: Denial,
    },
}

/// A call that was refused, or could not be made.
#[derive(Clone, Debug, PartialEq)]
pub struct Denial {
    /// Why. `Unspecified`: none was told that this build knows; see `reason_name` and `code`.
    pub reason: Reason,
    /// The name of the reason as it was told; empty: none was.
    pub reason_name: String,
    /// The gRPC code.
    pub code: Code,
    /// One sentence for a person.
    pub message: String,
    /// Facts for a program: `available` and `required` of `INSUFFICIENT_CREDITS`; of a verdict, when and
    /// where it was judged. See the contract's `errors.proto`.
    pub metadata: BTreeMap<String, String>,
    /// How long to wait before the next attempt, if the server said so.
    pub retry_after: Option<Duration>,
}

impl Denial {
    /// The HTTP status that a gateway answers with.
    pub fn http_status(&self) -> u16 {
        match self.reason {
            Reason::Unspecified => self.code.http_status(),
            known => known.http_status(),
        }
    }

    /// Whether the ledger's state was looked at: the refusal is stored under the key, and says when and
    /// where it was judged.
    pub fn is_verdict(&self) -> bool {
        self.metadata.contains_key("log_index")
    }

    /// A refusal that this client makes by itself.
    pub(crate) fn own(reason: Reason, message: impl Into<String>) -> Denial {
        Denial {
            reason,
            reason_name: reason.as_str_name().to_owned(),
            code: crate::reason::code_of(reason),
            message: message.into(),
            metadata: BTreeMap::new(),
            retry_after: None,
        }
    }
}

impl fmt::Display for Denial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.reason_name.as_str() {
            "" => write!(f, "{:?}: {}", self.code, self.message),
            name => write!(f, "{name}: {}", self.message),
        }
    }
}

impl std::error::Error for Denial {}
