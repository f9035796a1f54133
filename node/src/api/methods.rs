//! The unary methods of the ledger, listed once: for the gRPC service, and for nodes that hand calls
//! on to one another.

use purser_proto::v1;

/// Calls a macro with `name(Request) -> Response` for each method that is about one customer.
macro_rules! for_each_method {
    ($callback:ident) => {
        $callback! {
            create_wallet(CreateWalletRequest) -> CreateWalletResponse,
            get_wallet(GetWalletRequest) -> GetWalletResponse,
            list_wallets(ListWalletsRequest) -> ListWalletsResponse,
            update_wallet(UpdateWalletRequest) -> UpdateWalletResponse,
            freeze_wallet(FreezeWalletRequest) -> FreezeWalletResponse,
            close_wallet(CloseWalletRequest) -> CloseWalletResponse,
            grant(GrantRequest) -> GrantResponse,
            confirm_grant(ConfirmGrantRequest) -> ConfirmGrantResponse,
            fail_grant(FailGrantRequest) -> FailGrantResponse,
            void_grant(VoidGrantRequest) -> VoidGrantResponse,
            list_tranches(ListTranchesRequest) -> ListTranchesResponse,
            debit(DebitRequest) -> DebitResponse,
            explain(ExplainRequest) -> ExplainResponse,
            hold(HoldRequest) -> HoldResponse,
            extend_hold(ExtendHoldRequest) -> ExtendHoldResponse,
            capture(CaptureRequest) -> CaptureResponse,
            release(ReleaseRequest) -> ReleaseResponse,
            refund(RefundRequest) -> RefundResponse,
            adjust(AdjustRequest) -> AdjustResponse,
            get_hold(GetHoldRequest) -> GetHoldResponse,
            list_holds(ListHoldsRequest) -> ListHoldsResponse,
            get_balance(GetBalanceRequest) -> GetBalanceResponse,
            list_movements(ListMovementsRequest) -> ListMovementsResponse,
            get_movement(GetMovementRequest) -> GetMovementResponse,
            audit(AuditRequest) -> AuditResponse,
        }
    };
}
pub(super) use for_each_method;

/// A request about one customer.
pub trait AboutCustomer {
    /// Namespace and customer, as the request names them: not checked yet.
    fn customer(&self) -> (&str, &str);
}

macro_rules! about_customer {
    ($($request:ident),+ $(,)?) => {
        $(impl AboutCustomer for v1::$request {
            fn customer(&self) -> (&str, &str) {
                (&self.namespace, &self.customer)
            }
        })+
    };
}

about_customer! {
    CreateWalletRequest, GetWalletRequest, ListWalletsRequest, FreezeWalletRequest, GrantRequest,
    ListTranchesRequest, DebitRequest, GetBalanceRequest, ListMovementsRequest, GetMovementRequest,
    AuditRequest, HoldRequest, ExtendHoldRequest, CaptureRequest, ReleaseRequest, GetHoldRequest,
    ListHoldsRequest, UpdateWalletRequest, CloseWalletRequest, ConfirmGrantRequest, FailGrantRequest,
    VoidGrantRequest, RefundRequest, AdjustRequest,
}

/// A write that says nothing is about nobody.
impl AboutCustomer for v1::WriteRequest {
    fn customer(&self) -> (&str, &str) {
        use v1::write_request::Write;
        match &self.write {
            Some(Write::Debit(own)) => own.customer(),
            Some(Write::Hold(own)) => own.customer(),
            Some(Write::ExtendHold(own)) => own.customer(),
            Some(Write::Capture(own)) => own.customer(),
            Some(Write::Release(own)) => own.customer(),
            Some(Write::Grant(own)) => own.customer(),
            Some(Write::Refund(own)) => own.customer(),
            None => ("", ""),
        }
    }
}

impl AboutCustomer for v1::ExplainRequest {
    fn customer(&self) -> (&str, &str) {
        self.debit.as_ref().map_or(("", ""), |debit| debit.customer())
    }
}
