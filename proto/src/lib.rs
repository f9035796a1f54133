//! The `purser.v1` contract: the `.proto` files and the code generated from them, nothing else.
//!
//! What a field means, its unit and its limits are said in the `.proto` files and show up here as
//! documentation. Nothing in this crate decides anything; conversions to the core's types live
//! where both sides are known, at the API's edge.
//!
//! Under `--cfg madsim` the same names speak over the simulated network.

/// Package `purser.v1`: messages, clients and servers.
pub mod v1 {
    #![allow(missing_docs, unused_qualifications, clippy::all)]
    tonic::include_proto!("purser.v1");
}

/// Package `purser.peer.v1`: what nodes speak among themselves.
pub mod peer_v1 {
    #![allow(missing_docs, unused_qualifications, clippy::all)]
    tonic::include_proto!("purser.peer.v1");
}

/// The encoded `google.protobuf.FileDescriptorSet` of the package and all that it imports, with
/// comments: what server reflection serves.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/purser.v1.bin"));

/// What `google.rpc.ErrorInfo.domain` says in every refusal of Purser.
pub const ERROR_DOMAIN: &str = "purser";

/// Writes go into batches and streams of several sorts.
macro_rules! writes {
    ($($sort:ident($request:ident)),+ $(,)?) => {
        $(impl From<v1::$request> for v1::WriteRequest {
            fn from(request: v1::$request) -> v1::WriteRequest {
                v1::WriteRequest { write: Some(v1::write_request::Write::$sort(request)) }
            }
        })+
    };
}

writes! {
    Debit(DebitRequest), Hold(HoldRequest), ExtendHold(ExtendHoldRequest), Capture(CaptureRequest),
    Release(ReleaseRequest), Grant(GrantRequest), Refund(RefundRequest),
}
