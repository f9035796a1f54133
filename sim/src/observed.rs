//! What callers saw: each attempt of each request, and what came of it.

use std::time::Duration;

use purser_ledger::time::Time;
use purser_proto::v1;
use tonic::Status;
use tonic_types::StatusExt;

use crate::call::{Request, Response};

/// One attempt.
#[derive(Clone, Debug)]
pub struct Attempt {
    /// Who asked.
    pub client: u64,
    /// What.
    pub request: Request,
    /// When it was sent.
    pub begun: Duration,
    /// When the answer came.
    pub ended: Duration,
    /// What it was.
    pub answer: Answered,
    /// For a read: the last log index that the shard had applied anywhere when the answer came.
    pub applied_by_then: u64,
}

/// What came of an attempt.
#[derive(Clone, Debug)]
pub enum Answered {
    /// It was done, or read.
    Done(Box<Response>),
    /// It was judged, and refused.
    Refused(Refused),
    /// It may have been done or not.
    Unknown(String),
}

/// A refusal that is final.
#[derive(Clone, Debug)]
pub struct Refused {
    /// The reason.
    pub reason: String,
    /// What else it says.
    pub metadata: std::collections::BTreeMap<String, String>,
}

impl Answered {
    /// Sorts a status: refusals that nobody has to try again are final.
    pub fn of(answer: Result<Response, Status>) -> Answered {
        let status = match answer {
            Ok(response) => return Answered::Done(Box::new(response)),
            Err(status) => status,
        };
        let Some(info) = status.get_details_error_info() else {
            return Answered::Unknown(status.to_string());
        };
        match info.reason.as_str() {
            "UNAVAILABLE" | "NOT_LEADER" | "INTERNAL" => Answered::Unknown(status.message().to_owned()),
            _ => Answered::Refused(Refused {
                reason: info.reason,
                metadata: info.metadata.into_iter().collect(),
            }),
        }
    }

    /// Like [`Answered::of`], for one debit of a batch.
    pub fn of_debit(result: v1::DebitResult) -> Answered {
        use v1::debit_result::Outcome;
        match result.outcome {
            Some(Outcome::Applied(response)) => Answered::Done(Box::new(Response::Debit(response))),
            Some(Outcome::Refused(refusal)) => Answered::refused(refusal),
            None => Answered::Unknown("no result".to_owned()),
        }
    }

    /// Like [`Answered::of`], for one write of a batch of several sorts.
    pub fn of_write(result: v1::WriteResult) -> Answered {
        match result.outcome {
            Some(v1::write_result::Outcome::Refused(refusal)) => Answered::refused(refusal),
            Some(_) => Answered::Done(Box::new(result.into())),
            None => Answered::Unknown("no result".to_owned()),
        }
    }

    fn refused(refusal: v1::Refusal) -> Answered {
        match refusal.reason.as_str() {
            "UNAVAILABLE" | "NOT_LEADER" | "INTERNAL" => Answered::Unknown(refusal.message),
            _ => Answered::Refused(Refused {
                reason: refusal.reason,
                metadata: refusal.metadata.into_iter().collect(),
            }),
        }
    }

    /// Whether it has to be tried again to be known.
    pub fn is_unknown(&self) -> bool {
        matches!(self, Answered::Unknown(_))
    }
}

/// Where in its shard's history an answer was given: shard, log index, position.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The shard.
    pub shard: u16,
    /// The log index.
    pub index: u64,
    /// The position in its entry.
    pub position: u64,
}

impl Attempt {
    /// The witness of an answered write.
    pub fn witness(&self) -> Option<Place> {
        match &self.answer {
            Answered::Done(response) => {
                let witness = response.receipt()?.witness?;
                Some(Place {
                    shard: u16::try_from(witness.shard).ok()?,
                    index: witness.log_index,
                    position: witness.position,
                })
            }
            Answered::Refused(refused) => {
                let number = |name| refused.metadata.get(name)?.parse::<u64>().ok();
                let shard = u16::try_from(number("shard")?).ok()?;
                Some(Place { shard, index: number("log_index")?, position: number("position")? })
            }
            Answered::Unknown(_) => None,
        }
    }

    /// The point of an answered read.
    pub fn read_point(&self) -> Option<&v1::ReadPoint> {
        let Answered::Done(response) = &self.answer else { return None };
        response.point()
    }
}

impl Attempt {
    /// The ledger time at which an answer was judged.
    pub fn ledger_time(&self) -> Option<Time> {
        let Answered::Done(response) = &self.answer else { return None };
        let stamp = match response.receipt() {
            Some(receipt) => receipt.ledger_time,
            None => self.read_point()?.ledger_time,
        };
        time(&stamp?)
    }
}

/// A time of the contract.
pub fn time(stamp: &prost_types::Timestamp) -> Option<Time> {
    let seconds = u64::try_from(stamp.seconds).ok()?;
    let micros = u64::try_from(stamp.nanos).ok()? / 1_000;
    Some(Time(seconds.checked_mul(1_000_000)?.checked_add(micros)?))
}

/// What the client library told a gateway of a write.
#[derive(Clone, Debug)]
pub struct Told {
    /// Whom.
    pub client: u64,
    /// The write.
    pub request: Request,
    /// What became of it.
    pub verdict: Verdict,
}

/// What became of a write, as the library says.
#[derive(Clone, Debug)]
pub enum Verdict {
    /// It was applied.
    Applied(Box<Response>),
    /// It certainly was not.
    Denied(String),
    /// It was or was not.
    Unknown,
}
