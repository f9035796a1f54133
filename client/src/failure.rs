//! An attempt that failed, and what that means: whether to try again, and whether the attempt may have
//! taken effect. One table says both.

use std::time::Duration;

use purser_proto::ERROR_DOMAIN;
use purser_proto::v1::{self, Reason};
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::carrier::{root_cause, was_not_sent};
use crate::outcome::Denial;
use crate::reason::code_of;

/// An attempt without the answer that was hoped for.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    /// What was said.
    pub denial: Denial,
    /// By whom.
    pub origin: Origin,
}

/// Who speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// A node, or something before it.
    Answer,
    /// The way to it: no answer came.
    Lost,
    /// The way to it, and nothing was sent.
    NotSent,
    /// This client: nothing was sent, since others for the same node took their time.
    Waited,
    /// This client: there is no room, or no time, to send anything.
    Own,
}

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Tell the caller.
    Tell,
    /// Try again, after a pause.
    Again,
    /// Try again at once, if there is somebody else to ask.
    Elsewhere,
}

/// What the attempt may have done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// None, and neither had any earlier attempt under the key: the ledger looked.
    Settled,
    /// None; of earlier attempts it says nothing.
    None,
    /// Perhaps.
    Possible,
}

impl Failure {
    /// The deadline of the attempt passed, and something was sent.
    pub(crate) fn timed_out() -> Failure {
        let mut denial = Denial::own(Reason::Unspecified, "no answer in time");
        (denial.code, denial.reason_name) = (Code::DeadlineExceeded, String::new());
        Failure { denial, origin: Origin::Lost }
    }

    /// Nothing was sent: the ledger is not to be had.
    pub(crate) fn unsent(origin: Origin, message: &str) -> Failure {
        Failure { denial: Denial::own(Reason::Unavailable, message), origin }
    }

    /// An answer that does not decode: whatever it says, the node has acted.
    pub(crate) fn undecodable() -> Failure {
        let denial = Denial::own(Reason::Internal, "an answer that does not decode");
        Failure { denial, origin: Origin::Answer }
    }

    /// A refusal inside a batch.
    pub(crate) fn from_refusal(refusal: v1::Refusal) -> Failure {
        let reason = Reason::from_str_name(&refusal.reason).unwrap_or(Reason::Unspecified);
        let denial = Denial {
            reason,
            reason_name: refusal.reason,
            code: code_of(reason),
            message: refusal.message,
            metadata: refusal.metadata,
            retry_after: None,
        };
        Failure { denial, origin: Origin::Answer }
    }

    /// A call that ended with a status.
    pub(crate) fn from_status(status: &Status) -> Failure {
        if was_not_sent(status) {
            return Failure::unsent(Origin::NotSent, status.message());
        }
        // Most transport errors have no details: nothing is decoded then.
        let details = (!status.details().is_empty()).then(|| status.get_error_details());
        let info = details.as_ref().and_then(|own| own.error_info()).filter(|own| own.domain == ERROR_DOMAIN);
        let retry = details.as_ref().and_then(|own| own.retry_info());
        let denial = Denial {
            reason: info.and_then(|own| Reason::from_str_name(&own.reason)).unwrap_or(Reason::Unspecified),
            reason_name: info.map_or_else(String::new, |own| own.reason.clone()),
            code: status.code(),
            message: message_of(status),
            metadata: info.map(|own| own.metadata.clone().into_iter().collect()).unwrap_or_default(),
            retry_after: retry.and_then(|own| own.retry_delay),
        };
        let lost = info.is_none() && is_of_the_way(status.code());
        Failure { denial, origin: if lost { Origin::Lost } else { Origin::Answer } }
    }

    /// What this failure means: the table of what is tried again.
    pub(crate) fn judge(&self) -> (Next, Effect) {
        match self.origin {
            Origin::NotSent | Origin::Waited => return (Next::Elsewhere, Effect::None),
            Origin::Own => return (Next::Tell, Effect::None),
            Origin::Lost | Origin::Answer => {}
        }
        let (next, effect) = match self.denial.reason {
            Reason::Unspecified => by_code(self.denial.code),
            known => by_reason(known),
        };
        if next == Next::Tell && self.denial.is_verdict() { (next, Effect::Settled) } else { (next, effect) }
    }

    /// Who leads instead, as far as a node said so.
    pub(crate) fn hint(&self) -> Hint<'_> {
        let told = |name: &str| self.denial.metadata.get(name);
        let number = |name| told(name).and_then(|text| text.parse().ok());
        Hint {
            not_leader: self.denial.reason == Reason::NotLeader,
            leader: told("leader").map(String::as_str).filter(|own| !own.is_empty()),
            shard: number("shard").and_then(|own| usize::try_from(own).ok()),
            term: number("term"),
            epoch: number("epoch"),
        }
    }

    /// The pause that was asked for.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        self.denial.retry_after
    }
}

/// What a refusal says of the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hint<'a> {
    /// The node asked does not lead.
    pub not_leader: bool,
    /// The address of the one that does.
    pub leader: Option<&'a str>,
    /// Which shard.
    pub shard: Option<usize>,
    /// Since which term.
    pub term: Option<u64>,
    /// The epoch of the shard map that the node has.
    pub epoch: Option<u64>,
}

fn by_reason(reason: Reason) -> (Next, Effect) {
    match reason {
        Reason::InsufficientCredits
        | Reason::NoEligibleTranche
        | Reason::WalletFrozen
        | Reason::CustomerNotFound
        | Reason::WalletNotFound
        | Reason::MovementNotFound
        | Reason::HoldNotFound
        | Reason::HoldExpired
        | Reason::HoldClosed
        | Reason::TrancheNotActive
        | Reason::TrancheNotFound
        | Reason::WalletClosed
        | Reason::WalletNotEmpty
        | Reason::VersionConflict
        | Reason::RefundExceedsDebit
        | Reason::AlreadyExists
        | Reason::CustomerQuarantined
        | Reason::IdempotencyKeyReused
        | Reason::KeyTooOld => (Next::Tell, Effect::Settled),
        // The shape is judged before the key is looked at.
        Reason::InvalidArgument
        | Reason::InvalidAmountPrecision
        | Reason::AmountOverflow
        | Reason::LimitExceeded
        | Reason::TestClockOff => (Next::Tell, Effect::None),
        // A command may have been proposed before the lead was lost or the node stopped.
        Reason::Internal | Reason::Unavailable => (Next::Again, Effect::Possible),
        Reason::NotLeader => (Next::Elsewhere, Effect::Possible),
        Reason::Unspecified => (Next::Tell, Effect::Possible),
    }
}

/// Without a reason of the ledger: the network speaks, a proxy, or a newer build.
fn by_code(code: Code) -> (Next, Effect) {
    match code {
        Code::Unavailable
        | Code::DeadlineExceeded
        | Code::Cancelled
        | Code::Unknown
        | Code::Internal
        | Code::Aborted
        | Code::ResourceExhausted => (Next::Again, Effect::Possible),
        Code::InvalidArgument
        | Code::NotFound
        | Code::AlreadyExists
        | Code::PermissionDenied
        | Code::FailedPrecondition
        | Code::Unimplemented
        | Code::Unauthenticated => (Next::Tell, Effect::None),
        // An answer larger than is taken is OUT_OF_RANGE too: it comes after the effect.
        Code::OutOfRange | Code::DataLoss | Code::Ok => (Next::Tell, Effect::Possible),
    }
}

/// Codes that tonic gives to broken connections.
fn is_of_the_way(code: Code) -> bool {
    matches!(
        code,
        Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled | Code::Unknown | Code::Internal
    )
}

fn message_of(status: &Status) -> String {
    match std::error::Error::source(status) {
        Some(source) => format!("{}: {}", status.message(), root_cause(source)),
        None => status.message().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use tonic_types::ErrorDetails;

    use super::*;

    fn refused(reason: Reason, pairs: &[(&str, &str)]) -> Failure {
        let pairs: HashMap<String, String> =
            pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let mut details = ErrorDetails::with_error_info(reason.as_str_name(), ERROR_DOMAIN, pairs);
        details.set_retry_info(Some(Duration::from_millis(50)));
        Failure::from_status(&Status::with_error_details(code_of(reason), "no", details))
    }

    #[test]
    fn a_refusal_is_read_with_its_reason_its_facts_and_its_pause() {
        let failure = refused(Reason::InsufficientCredits, &[("available", "3"), ("required", "5")]);
        assert_eq!(failure.denial.reason, Reason::InsufficientCredits);
        assert_eq!((failure.denial.http_status(), failure.origin), (402, Origin::Answer));
        assert_eq!(failure.denial.metadata["available"], "3");
        assert_eq!(failure.retry_after(), Some(Duration::from_millis(50)));
        assert_eq!(failure.judge(), (Next::Tell, Effect::Settled));
    }

    #[test]
    fn a_malformed_request_says_nothing_of_earlier_attempts_unless_it_is_a_verdict() {
        assert_eq!(refused(Reason::InvalidArgument, &[]).judge(), (Next::Tell, Effect::None));
        let verdict = refused(Reason::InvalidArgument, &[("log_index", "7")]);
        assert_eq!(verdict.judge(), (Next::Tell, Effect::Settled));
    }

    #[test]
    fn a_node_that_does_not_lead_names_the_one_that_does() {
        let pairs = [("leader", "10.0.0.2:7480"), ("shard", "5"), ("term", "9"), ("epoch", "3")];
        let failure = refused(Reason::NotLeader, &pairs);
        let hint = Hint {
            not_leader: true,
            leader: Some("10.0.0.2:7480"),
            shard: Some(5),
            term: Some(9),
            epoch: Some(3),
        };
        assert_eq!(failure.hint(), hint);
        assert_eq!(failure.judge(), (Next::Elsewhere, Effect::Possible));
    }

    #[test]
    fn a_broken_connection_may_have_sent_something_and_a_refused_one_has_not() {
        let lost = Failure::from_status(&Status::unavailable("reset"));
        assert_eq!((lost.origin, lost.judge()), (Origin::Lost, (Next::Again, Effect::Possible)));
        let refused = Failure::from_status(&crate::carrier::not_sent("refused"));
        assert_eq!((refused.origin, refused.judge()), (Origin::NotSent, (Next::Elsewhere, Effect::None)));
        assert_eq!(refused.denial.http_status(), 503);
    }

    #[test]
    fn a_reason_of_a_newer_build_is_judged_by_its_code() {
        let details = ErrorDetails::with_error_info("CAP_EXCEEDED", ERROR_DOMAIN, HashMap::new());
        let status = Status::with_error_details(Code::FailedPrecondition, "over the cap", details);
        let failure = Failure::from_status(&status);
        assert_eq!(
            (failure.denial.reason, failure.denial.reason_name.as_str()),
            (Reason::Unspecified, "CAP_EXCEEDED")
        );
        assert_eq!(failure.judge(), (Next::Tell, Effect::None));
    }

    #[test]
    fn an_answer_too_large_to_take_leaves_the_outcome_open() {
        let failure = Failure::from_status(&Status::out_of_range("decoded message length too large"));
        assert_eq!(failure.judge(), (Next::Tell, Effect::Possible));
    }
}
