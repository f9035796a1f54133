//! Requests of callers and their answers, as they cross the network.

use bytes::Bytes;
use prost::Message;
use purser_ledger::command::Command;
use purser_ledger::ids::Customer;
use purser_ledger::time::Time;
use purser_node::api::forward::{decode_answer, encode_call};
use purser_node::api::methods::AboutCustomer;
use purser_proto::v1;
use tonic::Status;

/// Calls a macro with all that callers ask: writes, then reads.
macro_rules! for_each_call {
    ($callback:ident) => {
        $callback! {
            writes {
                CreateWallet = create_wallet(CreateWalletRequest) -> CreateWalletResponse;
                UpdateWallet = update_wallet(UpdateWalletRequest) -> UpdateWalletResponse;
                FreezeWallet = freeze_wallet(FreezeWalletRequest) -> FreezeWalletResponse;
                CloseWallet = close_wallet(CloseWalletRequest) -> CloseWalletResponse;
                Grant = grant(GrantRequest) -> GrantResponse;
                ConfirmGrant = confirm_grant(ConfirmGrantRequest) -> ConfirmGrantResponse;
                FailGrant = fail_grant(FailGrantRequest) -> FailGrantResponse;
                VoidGrant = void_grant(VoidGrantRequest) -> VoidGrantResponse;
                Debit = debit(DebitRequest) -> DebitResponse;
                Hold = hold(HoldRequest) -> HoldResponse;
                ExtendHold = extend_hold(ExtendHoldRequest) -> ExtendHoldResponse;
                Capture = capture(CaptureRequest) -> CaptureResponse;
                Release = release(ReleaseRequest) -> ReleaseResponse;
                Refund = refund(RefundRequest) -> RefundResponse;
                Adjust = adjust(AdjustRequest) -> AdjustResponse;
            }
            reads {
                GetWallet = get_wallet(GetWalletRequest) -> GetWalletResponse;
                ListWallets = list_wallets(ListWalletsRequest) -> ListWalletsResponse;
                ListTranches = list_tranches(ListTranchesRequest) -> ListTranchesResponse;
                Explain = explain(ExplainRequest) -> ExplainResponse;
                GetHold = get_hold(GetHoldRequest) -> GetHoldResponse;
                ListHolds = list_holds(ListHoldsRequest) -> ListHoldsResponse;
                GetMovement = get_movement(GetMovementRequest) -> GetMovementResponse;
                GetBalance = get_balance(GetBalanceRequest) -> GetBalanceResponse;
                ListMovements = list_movements(ListMovementsRequest) -> ListMovementsResponse;
                Audit = audit(AuditRequest) -> AuditResponse;
            }
        }
    };
}
pub(crate) use for_each_call;

/// Requests into commands.
mod shaped {
    use purser_ledger::command::Command;
    use purser_ledger::time::Time;
    use purser_node::api::commands;
    pub use purser_node::api::commands::*;
    use purser_proto::v1;

    /// Of a tranche that nobody looks at: what only a leader resolves is not part of a request.
    pub fn confirm_grant(request: &v1::ConfirmGrantRequest, now: Time) -> Shaped<Command<'_>> {
        commands::confirm_grant(request, now, None)
    }
}

macro_rules! calls {
    (
        writes { $($write:ident = $write_name:ident($write_request:ident) -> $write_response:ident;)+ }
        reads { $($read:ident = $read_name:ident($read_request:ident) -> $read_response:ident;)+ }
    ) => {
        /// What a caller asks.
        #[derive(Clone, Debug, PartialEq)]
        #[allow(missing_docs)]
        pub enum Request { $($write(v1::$write_request),)+ $($read(v1::$read_request)),+ }

        /// What it is answered.
        #[derive(Clone, Debug, PartialEq)]
        #[allow(missing_docs)]
        pub enum Response { $($write(v1::$write_response),)+ $($read(v1::$read_response)),+ }

        calls! { @codec
            $($write = $write_name($write_request) -> $write_response;)+
            $($read = $read_name($read_request) -> $read_response;)+
        }

        impl Request {
            /// Its method.
            pub fn method(&self) -> &'static str {
                match self {
                    $(Request::$write(_) => stringify!($write),)+
                    $(Request::$read(_) => stringify!($read),)+
                }
            }

            /// Whether it may change something.
            pub fn is_write(&self) -> bool {
                matches!(self, $(Request::$write(_))|+)
            }

            /// The command that it comes to, for a write, but for its times: those are the server's to
            /// say.
            pub fn command(&self) -> Option<Command<'_>> {
                // So late that no deadline lies too far ahead of it.
                let now = Time(Time::LATEST.0 / 2);
                let command = match self {
                    $(Request::$write(request) => shaped::$write_name(request, now),)+
                    $(Request::$read(_) => return None,)+
                };
                Some(command.expect("callers send what is well formed"))
            }

            /// Until when a write may be applied, if it says so itself.
            pub fn valid_until(&self) -> Option<prost_types::Timestamp> {
                match self {
                    $(Request::$write(request) => request.valid_until,)+
                    $(Request::$read(_) => None,)+
                }
            }
        }

        impl Response {
            /// The receipt of a write.
            pub fn receipt(&self) -> Option<&v1::Receipt> {
                match self {
                    $(Response::$write(done) => done.receipt.as_ref(),)+
                    $(Response::$read(_) => None,)+
                }
            }

            /// The point of a read.
            pub fn point(&self) -> Option<&v1::ReadPoint> {
                match self {
                    $(Response::$write(_) => None,)+
                    $(Response::$read(read) => read.point.as_ref(),)+
                }
            }
        }
    };
    (@codec $($variant:ident = $name:ident($request:ident) -> $response:ident;)+) => {
        impl Request {
            /// The call that asks this.
            pub fn encode(&self) -> Vec<u8> {
                match self {
                    $(Request::$variant(request) => encode_call(stringify!($name), request),)+
                }
            }

            /// The request of a method, if callers ask that.
            pub fn decode(name: &str, bytes: &Bytes) -> Option<Request> {
                match name {
                    $(stringify!($name) => {
                        v1::$request::decode(bytes.clone()).ok().map(Request::$variant)
                    })+
                    _ => None,
                }
            }

            /// What an answer (`api::forward`) says to this.
            pub fn decode_answer(&self, answer: &Bytes) -> Result<Response, Status> {
                match self {
                    $(Request::$variant(_) => decode_answer(answer).map(Response::$variant),)+
                }
            }

            /// What a response says to this.
            pub fn decode_response(&self, response: &Bytes) -> Result<Response, Status> {
                match self {
                    $(Request::$variant(_) => v1::$response::decode(response.clone())
                        .map(Response::$variant)
                        .map_err(|error| Status::internal(error.to_string())),)+
                }
            }

            /// Whose it is.
            pub fn customer(&self) -> Customer<'_> {
                let (_, id) = match self {
                    $(Request::$variant(request) => AboutCustomer::customer(request),)+
                };
                // The callers name no namespace.
                Customer { namespace: "default", id }
            }
        }

        $(
            impl From<v1::$request> for Request {
                fn from(request: v1::$request) -> Request {
                    Request::$variant(request)
                }
            }

            impl From<v1::$response> for Response {
                fn from(response: v1::$response) -> Response {
                    Response::$variant(response)
                }
            }
        )+
    };
}

for_each_call!(calls);

/// Writes that may be sent together, and what they are answered.
macro_rules! together {
    ($($sort:ident: $done:ident),+ $(,)?) => {
        impl Request {
            /// The same as a write of a batch, if it may be sent in one.
            pub fn together(&self) -> Option<v1::WriteRequest> {
                match self {
                    $(Request::$sort(own) => Some(own.clone().into()),)+
                    _ => None,
                }
            }
        }

        impl From<v1::WriteRequest> for Request {
            fn from(request: v1::WriteRequest) -> Request {
                match request.write.expect("callers send what is well formed") {
                    $(v1::write_request::Write::$sort(own) => Request::$sort(own),)+
                }
            }
        }

        impl From<v1::WriteResult> for Response {
            fn from(result: v1::WriteResult) -> Response {
                match result.outcome.expect("an answer") {
                    $(v1::write_result::Outcome::$done(own) => Response::$sort(own),)+
                    v1::write_result::Outcome::Refused(refusal) => panic!("not an answer: {refusal:?}"),
                }
            }
        }
    };
}

together! {
    Debit: Debited, Hold: Held, ExtendHold: Extended, Capture: Captured, Release: Released, Grant: Granted,
    Refund: Refunded,
}
