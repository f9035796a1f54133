//! Refusals on the wire: a gRPC status with `google.rpc.ErrorInfo`, and where it helps `BadRequest`
//! or `RetryInfo`.

use std::collections::HashMap;
use std::time::Duration;

use purser_ledger::amount::Amount;
use purser_ledger::query::{NotFound, ReadError};
use purser_ledger::verdict::{Denial, Reason};
use purser_proto::{ERROR_DOMAIN, v1};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use super::shape::{Fault, Violation};
use crate::shard::{ShardError, Witness};

/// How long a caller should wait before it tries again.
pub const RETRY_AFTER: Duration = Duration::from_millis(50);

/// The reason of a call that another node has to answer.
pub(super) const NOT_LEADER: &str = "NOT_LEADER";

/// Pairs that explain a refusal to a program.
pub type Pairs = HashMap<String, String>;

/// The gRPC code of a reason.
fn code(reason: &str) -> Code {
    match reason {
        "INVALID_ARGUMENT" | "INVALID_AMOUNT_PRECISION" | "LIMIT_EXCEEDED" => Code::InvalidArgument,
        "AMOUNT_OVERFLOW" => Code::OutOfRange,
        "CUSTOMER_NOT_FOUND" | "WALLET_NOT_FOUND" | "MOVEMENT_NOT_FOUND" | "HOLD_NOT_FOUND"
        | "TRANCHE_NOT_FOUND" => Code::NotFound,
        "ALREADY_EXISTS" => Code::AlreadyExists,
        "INTERNAL" => Code::Internal,
        "UNAVAILABLE" | "NOT_LEADER" => Code::Unavailable,
        _ => Code::FailedPrecondition,
    }
}

/// A refusal by reason.
pub fn refuse(reason: &str, message: impl Into<String>, pairs: Pairs) -> Status {
    let details = ErrorDetails::with_error_info(reason, ERROR_DOMAIN, pairs);
    Status::with_error_details(code(reason), message, details)
}

/// A request whose shape is at fault.
pub fn malformed(violations: Vec<Violation>) -> Status {
    let reason = match violations.first().map(|first| first.fault) {
        Some(Fault::Limit) => "LIMIT_EXCEEDED",
        Some(Fault::Precision) => "INVALID_AMOUNT_PRECISION",
        Some(Fault::Overflow) => "AMOUNT_OVERFLOW",
        Some(Fault::Invalid) | None => "INVALID_ARGUMENT",
    };
    let told: Vec<String> =
        violations.iter().map(|own| format!("{}: {}", own.field, own.description)).collect();
    let mut details = ErrorDetails::with_error_info(reason, ERROR_DOMAIN, Pairs::new());
    for violation in violations {
        details.add_bad_request_violation(violation.field, violation.description);
    }
    Status::with_error_details(code(reason), told.join("; "), details)
}

/// One field at fault.
pub fn malformed_field(field: &str, description: &str) -> Status {
    malformed(vec![Violation {
        field: field.to_owned(),
        description: description.to_owned(),
        fault: Fault::Invalid,
    }])
}

/// The server cannot answer now; the same key may be tried again.
pub fn unavailable(message: impl Into<String>) -> Status {
    let mut details = ErrorDetails::with_error_info("UNAVAILABLE", ERROR_DOMAIN, Pairs::new());
    details.set_retry_info(Some(RETRY_AFTER));
    Status::with_error_details(Code::Unavailable, message, details)
}

/// Another node leads the shard, or none does now; the pairs say which, where it is known.
pub fn not_leader(pairs: Pairs) -> Status {
    let mut details = ErrorDetails::with_error_info(NOT_LEADER, ERROR_DOMAIN, pairs);
    details.set_retry_info(Some(RETRY_AFTER));
    let message = "this node does not lead the shard now; try again with the same key";
    Status::with_error_details(Code::Unavailable, message, details)
}

/// Whether a status says that another node has to be asked.
pub fn is_not_leader(status: &Status) -> bool {
    status.code() == Code::Unavailable
        && status.get_details_error_info().is_some_and(|info| info.reason == NOT_LEADER)
}

/// What a denial says to a person, and to a program.
pub fn explain_denial(denial: &Denial, request: &Pairs) -> v1::Refusal {
    let mut metadata = request.clone();
    let message = match denial.reason {
        Reason::CustomerNotFound => "this customer has no wallet; create one first".to_owned(),
        Reason::WalletNotFound => "the customer has no such wallet, or none in the asset".to_owned(),
        Reason::AlreadyExists => {
            "the wallet id, or the external reference in this wallet, is taken".to_owned()
        }
        Reason::CustomerQuarantined => {
            "the customer is quarantined: an invariant failed; an operator has to look".to_owned()
        }
        Reason::WalletFrozen => "the wallet is frozen; unfreeze it, then use a new key".to_owned(),
        Reason::InvalidAmountPrecision => {
            "the amount has more decimal places than the wallet's asset; round it first".to_owned()
        }
        Reason::AmountOverflow => {
            "the amount, or the balance with it, is more than the ledger can hold".to_owned()
        }
        Reason::LimitExceeded => {
            "more than 1,000 tranches in one debit, or 1,000 wallets of a customer".to_owned()
        }
        Reason::NoEligibleTranche => {
            "there is credit, but none that may pay for this charge type and feature".to_owned()
        }
        Reason::InsufficientCredits => "there is not enough credit; grant more and use a new key".to_owned(),
        Reason::HoldNotFound => "the customer has no such hold".to_owned(),
        Reason::HoldExpired => {
            "the hold's time ran out, and what it had set aside was given back; debit instead, with a new key"
                .to_owned()
        }
        Reason::HoldClosed => "the hold was captured or released before".to_owned(),
        Reason::TrancheNotActive => match request.contains_key("hold") {
            true => "a tranche that the hold has set aside has expired".to_owned(),
            false => "the tranche is at a point of its life at which this cannot be done".to_owned(),
        },
        Reason::TrancheNotFound => "the wallet has no such tranche".to_owned(),
        Reason::WalletClosed => "the wallet is closed for ever; use another one".to_owned(),
        Reason::WalletNotEmpty => {
            "something is available, held or pending in the wallet, or a hold is open; empty it, then use a \
             new key"
                .to_owned()
        }
        Reason::VersionConflict => {
            "the wallet was changed since that version; read it again, then use a new key".to_owned()
        }
        Reason::MovementNotFound => "the customer has no such movement".to_owned(),
        Reason::RefundExceedsDebit => "not so much of the movement is left to give back".to_owned(),
        Reason::InvalidArgument => match request.contains_key("movement") {
            true => "only what was spent can be refunded: a movement CONSUMED or CAPTURED".to_owned(),
            false => "a tranche would expire before it could be spent".to_owned(),
        },
    };
    if let Some(shortage) = denial.shortage {
        let text = |amount: Amount| amount.to_text(shortage.scale);
        metadata.insert("available".to_owned(), text(shortage.available));
        metadata.insert("required".to_owned(), text(shortage.required));
    }
    let metadata = metadata.into_iter().collect();
    v1::Refusal { reason: denial.reason.name().to_owned(), message, metadata }
}

/// A denial as a status, with where and when it was judged.
pub fn denied(denial: &Denial, request: &Pairs, witness: &Witness, replayed: bool) -> Status {
    let mut refusal = explain_denial(denial, request);
    let pairs = [
        ("ledger_time", super::shape::rfc3339(witness.now)),
        ("shard", witness.shard.to_string()),
        ("log_index", witness.log_index.to_string()),
        ("position", witness.position.to_string()),
        ("replayed", replayed.to_string()),
    ];
    refusal.metadata.extend(pairs.map(|(name, value)| (name.to_owned(), value)));
    let metadata: Pairs = refusal.metadata.into_iter().collect();
    let message = match denial.shortage {
        Some(shortage) => format!(
            "{} (available {}, required {})",
            refusal.message,
            shortage.available.to_text(shortage.scale),
            shortage.required.to_text(shortage.scale)
        ),
        None => refusal.message,
    };
    if denial.reason == Reason::InvalidArgument {
        let mut details = ErrorDetails::with_error_info(refusal.reason.clone(), ERROR_DOMAIN, metadata);
        let (field, wanted) = match request {
            request if request.contains_key("movement") => ("movement_id", "a movement CONSUMED or CAPTURED"),
            request if request.contains_key("tranche") || request.contains_key("amount") => {
                ("expires_at", "must be later than now and than effective_at")
            }
            _ => ("tranches", "expires_at must be later than now and than effective_at"),
        };
        details.add_bad_request_violation(field, wanted);
        return Status::with_error_details(code(&refusal.reason), message, details);
    }
    refuse(&refusal.reason, message, metadata)
}

/// A read without a result.
pub fn unread(error: ReadError, request: &Pairs) -> Status {
    match error {
        ReadError::NotFound(NotFound::Customer) => {
            refuse("CUSTOMER_NOT_FOUND", "this customer has no wallet", request.clone())
        }
        ReadError::NotFound(NotFound::Wallet) => {
            refuse("WALLET_NOT_FOUND", "the customer has no such wallet", request.clone())
        }
        ReadError::Damage(damage) => {
            tracing::error!(%damage, "a read met rows that cannot be trusted");
            refuse(
                "INTERNAL",
                "the rows of this replica cannot be trusted; see the server's log",
                Pairs::new(),
            )
        }
        ReadError::Backlog => {
            unavailable("more is due in this wallet than a read goes through; it is being booked: try again")
        }
        ReadError::Fault(what) => {
            tracing::error!(what, "a read met an invariant that does not hold");
            refuse("INTERNAL", format!("an invariant does not hold: {what}"), Pairs::new())
        }
    }
}

/// A shard that did not answer.
pub fn from_shard(error: ShardError) -> Status {
    match error {
        ShardError::Busy => unavailable("the shard's queue is full; try again with the same key"),
        ShardError::NoSpace => {
            unavailable("the disk of this node is full: writes are refused until there is room")
        }
        ShardError::NotLeader => not_leader(Pairs::new()),
        ShardError::Stopping => unavailable("the node is stopping; try again with the same key"),
        ShardError::Failed(what) => {
            refuse("INTERNAL", format!("the shard is not served: {what}"), Pairs::new())
        }
    }
}
