//! What a reason means to HTTP: the one table.

use purser_proto::v1::Reason;
use tonic::Code;

/// The HTTP status that a gateway answers with.
pub trait HttpStatus {
    /// 402 for a customer without credit, 503 for a ledger that does not answer.
    fn http_status(self) -> u16;
}

impl HttpStatus for Reason {
    fn http_status(self) -> u16 {
        match self {
            Reason::InvalidArgument
            | Reason::InvalidAmountPrecision
            | Reason::AmountOverflow
            | Reason::LimitExceeded => 400,
            Reason::InsufficientCredits | Reason::NoEligibleTranche => 402,
            Reason::WalletFrozen => 403,
            Reason::CustomerNotFound
            | Reason::WalletNotFound
            | Reason::MovementNotFound
            | Reason::HoldNotFound
            | Reason::TrancheNotFound => 404,
            Reason::AlreadyExists
            | Reason::WalletClosed
            | Reason::WalletNotEmpty
            | Reason::VersionConflict
            | Reason::CustomerQuarantined
            | Reason::TestClockOff
            | Reason::HoldExpired
            | Reason::HoldClosed
            | Reason::TrancheNotActive => 409,
            Reason::IdempotencyKeyReused | Reason::KeyTooOld | Reason::RefundExceedsDebit => 422,
            // Never sent by the ledger: as little known as an internal error.
            Reason::Unspecified | Reason::Internal => 500,
            Reason::Unavailable | Reason::NotLeader => 503,
        }
    }
}

/// For a refusal without a reason that this build knows: gRPC's own mapping.
impl HttpStatus for Code {
    fn http_status(self) -> u16 {
        match self {
            Code::Ok => 200,
            Code::InvalidArgument | Code::FailedPrecondition | Code::OutOfRange => 400,
            Code::Unauthenticated => 401,
            Code::PermissionDenied => 403,
            Code::NotFound => 404,
            Code::AlreadyExists | Code::Aborted => 409,
            Code::ResourceExhausted => 429,
            Code::Unknown | Code::Internal | Code::DataLoss => 500,
            Code::Unimplemented => 501,
            Code::Cancelled | Code::Unavailable | Code::DeadlineExceeded => 503,
        }
    }
}

/// The gRPC code that comes with a reason: for refusals that come without one, inside a batch.
pub(crate) fn code_of(reason: Reason) -> Code {
    match reason {
        Reason::InvalidArgument | Reason::InvalidAmountPrecision | Reason::LimitExceeded => {
            Code::InvalidArgument
        }
        Reason::AmountOverflow => Code::OutOfRange,
        Reason::CustomerNotFound
        | Reason::WalletNotFound
        | Reason::MovementNotFound
        | Reason::HoldNotFound
        | Reason::TrancheNotFound => Code::NotFound,
        Reason::AlreadyExists => Code::AlreadyExists,
        Reason::InsufficientCredits
        | Reason::NoEligibleTranche
        | Reason::WalletFrozen
        | Reason::CustomerQuarantined
        | Reason::TestClockOff
        | Reason::HoldExpired
        | Reason::HoldClosed
        | Reason::TrancheNotActive
        | Reason::WalletClosed
        | Reason::WalletNotEmpty
        | Reason::VersionConflict
        | Reason::RefundExceedsDebit
        | Reason::IdempotencyKeyReused
        | Reason::KeyTooOld => Code::FailedPrecondition,
        Reason::Internal => Code::Internal,
        Reason::Unavailable | Reason::NotLeader => Code::Unavailable,
        Reason::Unspecified => Code::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;

    /// The reasons of the contract: name, number, and what is said about them.
    fn reasons() -> Vec<(String, i32, String)> {
        let files =
            prost_types::FileDescriptorSet::decode(purser_proto::FILE_DESCRIPTOR_SET).expect("descriptors");
        let file = files.file.iter().find(|file| file.name() == "purser/v1/errors.proto").expect("the file");
        let place = file.enum_type.iter().position(|own| own.name() == "Reason").expect("the enum");
        let comments = &file.source_code_info.as_ref().expect("comments").location;
        let values = file.enum_type[place].value.iter().enumerate();
        values
            .map(|(number, value)| {
                // Path of an enum's value: 5 is enum_type, 2 is value.
                let path = [5, place as i32, 2, number as i32];
                let comment = comments.iter().find(|own| own.path == path).expect("a comment");
                (value.name().to_owned(), value.number(), comment.leading_comments().to_owned())
            })
            .collect()
    }

    #[test]
    fn the_http_status_of_every_reason_is_its_number_divided_by_100() {
        let reasons = reasons();
        assert!(reasons.len() > 15, "{} reasons", reasons.len());
        for (name, number, _) in reasons.iter().filter(|(_, number, _)| *number != 0) {
            let reason = Reason::try_from(*number).expect("a reason");
            assert_eq!(i32::from(reason.http_status()), number / 100, "{name}");
        }
    }

    #[test]
    fn the_grpc_code_of_every_reason_is_the_one_that_the_contract_states() {
        for (name, number, comment) in reasons().iter().filter(|(_, number, _)| *number != 0) {
            let stated = comment.trim().split(',').next().expect("a code").to_owned();
            let code = code_of(Reason::try_from(*number).expect("a reason"));
            let told: String = format!("{code:?}")
                .chars()
                .flat_map(|own| own.is_uppercase().then_some('_').into_iter().chain([own]))
                .collect();
            assert_eq!(told.trim_start_matches('_').to_uppercase(), stated, "{name}");
        }
    }
}
