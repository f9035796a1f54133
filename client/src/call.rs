//! The calls of the contract, listed once: what a call is named, what it asks and answers, whose
//! customer it is about.

use prost::Message;
use prost_types::Timestamp;
use purser_proto::v1;

mod sealed {
    pub trait Sealed {}
}

macro_rules! methods {
    ($($service:literal { $($method:ident = $name:literal),+ $(,)? })+) => {
        /// A method of the contract.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Method {
            $($(
                #[doc = concat!("`", $service, ".", stringify!($method), "`.")]
                $method,
            )+)+
        }

        impl Method {
            /// Its name in snake case: `create_wallet`.
            pub fn name(self) -> &'static str {
                match self {
                    $($(Method::$method => $name,)+)+
                }
            }

            /// Its path on the wire: `/purser.v1.Ledger/CreateWallet`.
            pub fn path(self) -> &'static str {
                match self {
                    $($(Method::$method => concat!("/purser.v1.", $service, "/", stringify!($method)),)+)+
                }
            }
        }
    };
}

methods! {
    "Ledger" {
        CreateWallet = "create_wallet",
        GetWallet = "get_wallet",
        ListWallets = "list_wallets",
        UpdateWallet = "update_wallet",
        FreezeWallet = "freeze_wallet",
        CloseWallet = "close_wallet",
        Grant = "grant",
        ConfirmGrant = "confirm_grant",
        FailGrant = "fail_grant",
        VoidGrant = "void_grant",
        ListTranches = "list_tranches",
        Debit = "debit",
        DebitBatch = "debit_batch",
        DebitStream = "debit_stream",
        WriteBatch = "write_batch",
        WriteStream = "write_stream",
        Explain = "explain",
        Hold = "hold",
        ExtendHold = "extend_hold",
        Capture = "capture",
        Release = "release",
        Refund = "refund",
        Adjust = "adjust",
        GetHold = "get_hold",
        ListHolds = "list_holds",
        GetBalance = "get_balance",
        ListMovements = "list_movements",
        GetMovement = "get_movement",
        Audit = "audit",
    }
    "Cluster" {
        GetShardMap = "get_shard_map",
    }
}

/// A request about one customer.
pub trait Call: Message + sealed::Sealed + 'static {
    /// What is answered.
    type Response: Message + Default + Clone + PartialEq;
    /// Its method.
    const METHOD: Method;

    /// The namespace, as the request names it: empty is the default one.
    fn namespace(&self) -> &str;
    /// The customer.
    fn customer(&self) -> &str;
    #[doc(hidden)]
    fn set_namespace(&mut self, namespace: &str);
}

/// A request that changes nothing.
pub trait Read: Call {}

/// A request that changes something, once for each idempotency key.
pub trait Write: Call {
    /// Its key; empty: none yet.
    fn idempotency_key(&self) -> &str;
    /// From when on the ledger refuses it.
    fn valid_until(&self) -> Option<&Timestamp>;
    #[doc(hidden)]
    fn set_idempotency_key(&mut self, key: String);
    #[doc(hidden)]
    fn set_valid_until(&mut self, valid_until: Timestamp);
    /// As how many it counts in a batch.
    #[doc(hidden)]
    fn weight(&self) -> usize {
        1
    }
}

macro_rules! about_a_customer {
    ($($method:ident: $request:ident -> $response:ident),+ $(,)?) => {
        $(
            impl sealed::Sealed for v1::$request {}

            impl Call for v1::$request {
                type Response = v1::$response;
                const METHOD: Method = Method::$method;

                fn namespace(&self) -> &str {
                    &self.namespace
                }

                fn customer(&self) -> &str {
                    &self.customer
                }

                fn set_namespace(&mut self, namespace: &str) {
                    namespace.clone_into(&mut self.namespace);
                }
            }
        )+
    };
}

about_a_customer! {
    CreateWallet: CreateWalletRequest -> CreateWalletResponse,
    GetWallet: GetWalletRequest -> GetWalletResponse,
    ListWallets: ListWalletsRequest -> ListWalletsResponse,
    UpdateWallet: UpdateWalletRequest -> UpdateWalletResponse,
    FreezeWallet: FreezeWalletRequest -> FreezeWalletResponse,
    CloseWallet: CloseWalletRequest -> CloseWalletResponse,
    Grant: GrantRequest -> GrantResponse,
    ConfirmGrant: ConfirmGrantRequest -> ConfirmGrantResponse,
    FailGrant: FailGrantRequest -> FailGrantResponse,
    VoidGrant: VoidGrantRequest -> VoidGrantResponse,
    ListTranches: ListTranchesRequest -> ListTranchesResponse,
    Debit: DebitRequest -> DebitResponse,
    Hold: HoldRequest -> HoldResponse,
    ExtendHold: ExtendHoldRequest -> ExtendHoldResponse,
    Capture: CaptureRequest -> CaptureResponse,
    Release: ReleaseRequest -> ReleaseResponse,
    Refund: RefundRequest -> RefundResponse,
    Adjust: AdjustRequest -> AdjustResponse,
    GetHold: GetHoldRequest -> GetHoldResponse,
    ListHolds: ListHoldsRequest -> ListHoldsResponse,
    GetBalance: GetBalanceRequest -> GetBalanceResponse,
    ListMovements: ListMovementsRequest -> ListMovementsResponse,
    GetMovement: GetMovementRequest -> GetMovementResponse,
    Audit: AuditRequest -> AuditResponse,
}

impl sealed::Sealed for v1::ExplainRequest {}

/// An explained debit names the customer.
impl Call for v1::ExplainRequest {
    type Response = v1::ExplainResponse;
    const METHOD: Method = Method::Explain;

    fn namespace(&self) -> &str {
        self.debit.as_ref().map_or("", Call::namespace)
    }

    fn customer(&self) -> &str {
        self.debit.as_ref().map_or("", Call::customer)
    }

    fn set_namespace(&mut self, namespace: &str) {
        if let Some(debit) = &mut self.debit {
            debit.set_namespace(namespace);
        }
    }
}

/// Does something with the write that is within one of several sorts.
macro_rules! with_own {
    ($write:expr, $own:ident => $then:expr, $otherwise:expr) => {{
        use v1::write_request::Write as Sort;
        match $write {
            Some(Sort::Debit($own)) => $then,
            Some(Sort::Hold($own)) => $then,
            Some(Sort::ExtendHold($own)) => $then,
            Some(Sort::Capture($own)) => $then,
            Some(Sort::Release($own)) => $then,
            Some(Sort::Grant($own)) => $then,
            Some(Sort::Refund($own)) => $then,
            None => $otherwise,
        }
    }};
}

impl sealed::Sealed for v1::WriteRequest {}

/// A write of one of several sorts: alone, it is a batch of one. Its answer is a result that is never
/// `refused`. One that says nothing is about nobody, and is refused by the ledger.
impl Call for v1::WriteRequest {
    type Response = v1::WriteResult;
    const METHOD: Method = Method::WriteBatch;

    fn namespace(&self) -> &str {
        with_own!(&self.write, own => own.namespace(), "")
    }

    fn customer(&self) -> &str {
        with_own!(&self.write, own => own.customer(), "")
    }

    fn set_namespace(&mut self, namespace: &str) {
        with_own!(&mut self.write, own => own.set_namespace(namespace), {});
    }
}

impl Write for v1::WriteRequest {
    fn idempotency_key(&self) -> &str {
        with_own!(&self.write, own => own.idempotency_key(), "")
    }

    fn valid_until(&self) -> Option<&Timestamp> {
        with_own!(&self.write, own => own.valid_until(), None)
    }

    fn set_idempotency_key(&mut self, key: String) {
        with_own!(&mut self.write, own => own.set_idempotency_key(key), {});
    }

    fn set_valid_until(&mut self, valid_until: Timestamp) {
        with_own!(&mut self.write, own => own.set_valid_until(valid_until), {});
    }

    fn weight(&self) -> usize {
        match &self.write {
            Some(v1::write_request::Write::Grant(grant)) => grant.tranches.len().max(1),
            _ => 1,
        }
    }
}

macro_rules! reads {
    ($($request:ident),+ $(,)?) => {
        $(impl Read for v1::$request {})+
    };
}

reads! {
    GetWalletRequest, ListWalletsRequest, ListTranchesRequest, ExplainRequest, GetBalanceRequest,
    ListMovementsRequest, GetMovementRequest, AuditRequest, GetHoldRequest, ListHoldsRequest,
}

macro_rules! writes {
    ($($request:ident),+ $(,)?) => {
        $(impl Write for v1::$request {
            fn idempotency_key(&self) -> &str {
                &self.idempotency_key
            }

            fn valid_until(&self) -> Option<&Timestamp> {
                self.valid_until.as_ref()
            }

            fn set_idempotency_key(&mut self, key: String) {
                self.idempotency_key = key;
            }

            fn set_valid_until(&mut self, valid_until: Timestamp) {
                self.valid_until = Some(valid_until);
            }
        })+
    };
}

writes! {
    CreateWalletRequest, FreezeWalletRequest, GrantRequest, DebitRequest, HoldRequest, ExtendHoldRequest,
    CaptureRequest, ReleaseRequest, UpdateWalletRequest, CloseWalletRequest, ConfirmGrantRequest,
    FailGrantRequest, VoidGrantRequest, RefundRequest, AdjustRequest,
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_method_of_the_ledger_has_its_path_and_none_is_missing() {
        use Method::*;
        let listed = [
            CreateWallet,
            GetWallet,
            ListWallets,
            UpdateWallet,
            FreezeWallet,
            CloseWallet,
            Grant,
            ConfirmGrant,
            FailGrant,
            VoidGrant,
            ListTranches,
            Debit,
            DebitBatch,
            DebitStream,
            WriteBatch,
            WriteStream,
            Explain,
            Hold,
            ExtendHold,
            Capture,
            Release,
            Refund,
            Adjust,
            GetHold,
            ListHolds,
            GetBalance,
            ListMovements,
            GetMovement,
            Audit,
        ];
        let files =
            prost_types::FileDescriptorSet::decode(purser_proto::FILE_DESCRIPTOR_SET).expect("descriptors");
        let services = files.file.iter().flat_map(|file| &file.service);
        let ledger = services.clone().find(|service| service.name() == "Ledger").expect("the service");
        let of_contract: BTreeSet<String> =
            ledger.method.iter().map(|method| format!("/purser.v1.Ledger/{}", method.name())).collect();
        assert_eq!(listed.iter().map(|own| own.path().to_owned()).collect::<BTreeSet<_>>(), of_contract);
        let cluster = services.clone().find(|service| service.name() == "Cluster").expect("the service");
        assert!(cluster.method.iter().any(|method| method.name() == "GetShardMap"));
        assert_eq!(GetShardMap.path(), "/purser.v1.Cluster/GetShardMap");
    }

    #[test]
    fn an_explained_debit_is_about_the_customer_of_the_debit() {
        let debit = v1::DebitRequest { customer: "acme".to_owned(), ..Default::default() };
        let mut explain = v1::ExplainRequest { debit: Some(debit) };
        explain.set_namespace("test");
        assert_eq!((explain.namespace(), explain.customer()), ("test", "acme"));
        assert_eq!(v1::ExplainRequest::default().customer(), "");
    }
}
