//! Requests of callers and their answers, as they cross the network.

use bytes::Bytes;
use prost::Message;
use purser_ledger::command::Command;
use purser_ledger::ids::Customer;
use purser_ledger::time::Time;
use purser_node::api::commands;
use purser_node::api::forward::{decode_answer, encode_call};
use purser_proto::v1;
use tonic::Status;

macro_rules! calls {
    ($($(#[$doc:meta])* $variant:ident = $name:ident($request:ident) -> $response:ident;)+) => {
        /// What a caller asks.
        #[derive(Clone, Debug, PartialEq)]
        pub enum Request { $($(#[$doc])* $variant(v1::$request)),+ }

        /// What it is answered.
        #[derive(Clone, Debug, PartialEq)]
        pub enum Response { $($(#[$doc])* $variant(v1::$response)),+ }

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
        }
    };
}

calls! {
    /// Creates a wallet.
    CreateWallet = create_wallet(CreateWalletRequest) -> CreateWalletResponse;
    /// Freezes or thaws one.
    FreezeWallet = freeze_wallet(FreezeWalletRequest) -> FreezeWalletResponse;
    /// Grants.
    Grant = grant(GrantRequest) -> GrantResponse;
    /// Debits.
    Debit = debit(DebitRequest) -> DebitResponse;
    /// Sets credits aside.
    Hold = hold(HoldRequest) -> HoldResponse;
    /// Gives a hold more time.
    ExtendHold = extend_hold(ExtendHoldRequest) -> ExtendHoldResponse;
    /// Spends what a hold has set aside.
    Capture = capture(CaptureRequest) -> CaptureResponse;
    /// Gives back what a hold has set aside.
    Release = release(ReleaseRequest) -> ReleaseResponse;
    /// Reads balances.
    GetBalance = get_balance(GetBalanceRequest) -> GetBalanceResponse;
    /// Reads movements.
    ListMovements = list_movements(ListMovementsRequest) -> ListMovementsResponse;
    /// Audits.
    Audit = audit(AuditRequest) -> AuditResponse;
}

impl Request {
    /// Whether it may change something.
    pub fn is_write(&self) -> bool {
        !matches!(self, Request::GetBalance(_) | Request::ListMovements(_) | Request::Audit(_))
    }

    /// Whose it is.
    pub fn customer(&self) -> Customer<'_> {
        let id = match self {
            Request::CreateWallet(request) => &request.customer,
            Request::FreezeWallet(request) => &request.customer,
            Request::Grant(request) => &request.customer,
            Request::Debit(request) => &request.customer,
            Request::Hold(request) => &request.customer,
            Request::ExtendHold(request) => &request.customer,
            Request::Capture(request) => &request.customer,
            Request::Release(request) => &request.customer,
            Request::GetBalance(request) => &request.customer,
            Request::ListMovements(request) => &request.customer,
            Request::Audit(request) => &request.customer,
        };
        // The callers name no namespace.
        Customer { namespace: "default", id }
    }

    /// The command that it comes to, for a write, but for its times: those are the server's to say.
    pub fn command(&self) -> Option<Command<'_>> {
        // So late that no deadline lies too far ahead of it.
        let now = Time(Time::LATEST.0 / 2);
        let command = match self {
            Request::CreateWallet(request) => commands::create_wallet(request, now),
            Request::FreezeWallet(request) => commands::freeze_wallet(request, now),
            Request::Grant(request) => commands::grant(request, now),
            Request::Debit(request) => commands::debit(request, now),
            Request::Hold(request) => commands::hold(request, now),
            Request::ExtendHold(request) => commands::extend_hold(request, now),
            Request::Capture(request) => commands::capture(request, now),
            Request::Release(request) => commands::release(request, now),
            Request::GetBalance(_) | Request::ListMovements(_) | Request::Audit(_) => return None,
        };
        Some(command.expect("callers send what is well formed"))
    }
}
