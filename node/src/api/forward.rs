//! Any node takes any call: what it does not lead it hands on to the node that does.
//!
//! A call is tried here first. Where this node does not lead the customer's shard it goes to the one
//! that does, as far as is known, and again, until there is an answer or the caller's time is over:
//! the key makes a write safe to repeat. A call that was handed on is not handed on again: the node
//! that gets it answers or says who leads.
//!
//! ```text
//!   call       name length 1 | name | request          (after peer::message::Kind::Call)
//!   answer     0 | response      or      1 | code 4 | message length 4 | message | details
//! ```

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use prost::Message;
use purser_ledger::ids::Customer;
use purser_proto::v1;
use tokio::time::Instant;
use tonic::{Code, Status};
use tonic_types::StatusExt;

use super::methods::{AboutCustomer, for_each_method};
use super::{Api, refusal};
use crate::cluster::state::GroupPlace;
use crate::cluster::{NodeId, group_of};
use crate::peer::message::Kind;
use crate::shard::ShardId;
use crate::simulation;

/// How long a call may take if its caller does not say.
const DEADLINE_DEFAULT: Duration = Duration::from_secs(5);
/// The longest that it may take, whatever its caller says.
const DEADLINE_MAX: Duration = Duration::from_secs(30);
/// One attempt at another node.
const ATTEMPT_MAX: Duration = Duration::from_secs(5);
/// The wait before the second attempt; it doubles up to the longest.
const PAUSE_MIN: Duration = Duration::from_millis(10);
const PAUSE_MAX: Duration = Duration::from_millis(160);
/// Calls handed on at once; more are refused.
pub(super) const UNDER_WAY_MAX: usize = 10_000;

/// What may be done with a call that another node has to answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// Hand it on, until this moment.
    Any(Instant),
    /// Say who leads: the caller routes by itself, or the call was handed on already.
    Direct,
}

impl Route {
    /// The route of a call whose caller waits so long.
    pub fn within(wait: Option<Duration>) -> Route {
        Route::Any(Instant::now() + wait.unwrap_or(DEADLINE_DEFAULT).min(DEADLINE_MAX))
    }
}

/// Attempts at a call, until its time is over.
pub(super) struct Attempts {
    until: Instant,
    made: usize,
    pause: Duration,
}

impl Attempts {
    pub fn until(until: Instant) -> Attempts {
        Attempts { until, made: 0, pause: PAUSE_MIN }
    }

    /// How many were made.
    pub fn made(&self) -> usize {
        self.made
    }

    /// The time that is left; none if it is over.
    pub fn left(&self) -> Option<Duration> {
        let left = self.until.saturating_duration_since(Instant::now());
        (!left.is_zero()).then_some(left)
    }

    /// Waits before the next one, each time longer.
    pub async fn pause(&mut self) {
        tokio::time::sleep(self.pause.min(self.left().unwrap_or_default())).await;
        self.made += 1;
        self.pause = (self.pause * 2).min(PAUSE_MAX);
    }
}

impl Api {
    /// Answers a call, here or at the node that leads.
    pub(super) async fn routed<Q, R>(
        &self,
        name: &'static str,
        request: &Q,
        route: Route,
        here: impl AsyncFn(&Api, &Q) -> Result<R, Status>,
    ) -> Result<R, Status>
    where
        Q: Message + AboutCustomer,
        R: Message + Default,
    {
        let first = here(self, request).await;
        let (until, mut refused) = match (first, route) {
            (Err(status), Route::Any(until)) if refusal::is_not_leader(&status) => (until, status),
            (answer, _) => return answer,
        };
        let Ok(_permit) = self.handing_on.try_acquire() else {
            return Err(refusal::unavailable(
                "too many calls wait for other nodes; try again with the same key",
            ));
        };
        simulation::mark("call handed on");
        let (namespace, customer) = request.customer();
        let shard = self.place(namespace, customer);
        let mut attempts = Attempts::until(until);
        while let Some(left) = attempts.left() {
            if let Some(node) = self.candidate(shard, attempts.made()) {
                match self.ask(node, name, request, left).await {
                    Some(Err(status)) if refusal::is_not_leader(&status) => {}
                    Some(answer) => return settled(answer),
                    None => {}
                }
            }
            attempts.pause().await;
            // Leadership may have come here meanwhile.
            match here(self, request).await {
                Err(status) if refusal::is_not_leader(&status) => refused = status,
                answer => return settled(answer),
            }
        }
        Err(refused)
    }

    /// Has another node answer a call; `None` if it did not.
    pub(super) async fn ask<R: Message + Default>(
        &self,
        node: NodeId,
        name: &'static str,
        request: &impl Message,
        left: Duration,
    ) -> Option<Result<R, Status>> {
        let message = question(name, request);
        // An audit reads all that there is of a customer: begun again it would take as long again.
        let within = if name == "audit" { left } else { left.min(ATTEMPT_MAX) };
        match self.peers.call(node, message, within).await {
            Ok(bytes) => Some(decode_answer(&bytes)),
            Err(error) => {
                tracing::debug!(%node, %error, name, "a call handed on has no answer");
                None
            }
        }
    }

    /// The shard of a customer as a request names it.
    pub(super) fn place(&self, namespace: &str, customer: &str) -> ShardId {
        let namespace = if namespace.is_empty() { super::shape::NAMESPACE_DEFAULT } else { namespace };
        self.map.shard_of(Customer { namespace, id: customer })
    }

    /// Whom to ask: the leader, if it is known and is not this node; else the shard's other nodes in
    /// turn.
    pub(super) fn candidate(&self, shard: ShardId, attempt: usize) -> Option<NodeId> {
        let group = group_of(shard);
        let own = self.cluster.own();
        match self.cluster.leading(group) {
            Some(leading) if leading.node != own => Some(leading.node),
            _ => {
                let state = self.cluster.state();
                let places = state.group(group).into_iter().flat_map(GroupPlace::all);
                let others: Vec<NodeId> =
                    places.map(|place| place.node).filter(|node| *node != own).collect();
                // With a replica here that works, whoever is elected will be known here.
                let blind = self.cluster.group(group).is_none_or(|group| group.has_stopped());
                others.get(attempt % others.len().max(1)).copied().filter(|_| blind)
            }
        }
    }

    /// Takes a call in from another node.
    pub fn receive(&self, body: Bytes) -> BoxFuture<'static, Result<Bytes, String>> {
        let api = self.clone();
        // A task of its own: rendering answers is work, and the peer's stream has more to do.
        let answered = tokio::spawn(async move {
            let (name, request) = decode_call(&body).ok_or("a call that does not decode")?;
            let answer = tokio::time::timeout(DEADLINE_MAX, api.dispatch(name, request, Route::Direct)).await;
            Ok(encode_answer(&answer.map_err(|_| "no answer in time")?))
        });
        async move { answered.await.map_err(|_| "the call was given up".to_owned())? }.boxed()
    }

    /// Answers a call by its name, in bytes.
    pub async fn dispatch(&self, name: &str, request: Bytes, route: Route) -> Result<Bytes, Status> {
        macro_rules! by_name {
            ($($name:ident($request:ident) -> $response:ident),+ $(,)?) => {
                match name {
                    $(stringify!($name) => {
                        let request = decode::<v1::$request>(request)?;
                        let answer = self.routed(stringify!($name), &request, route, Api::$name).await?;
                        Ok(Bytes::from(answer.encode_to_vec()))
                    })+
                    "debit_batch" => {
                        let request = decode::<v1::DebitBatchRequest>(request)?;
                        Ok(Bytes::from(self.debit_batch(&request, route).await?.encode_to_vec()))
                    }
                    "write_batch" => {
                        let request = decode::<v1::WriteBatchRequest>(request)?;
                        Ok(Bytes::from(self.write_batch(&request, route).await?.encode_to_vec()))
                    }
                    "get_shard_map" => Ok(Bytes::from(self.shard_map().encode_to_vec())),
                    "node_status" => Ok(Bytes::from(self.node_status().encode_to_vec())),
                    _ => Err(Status::unimplemented(format!("this build knows no method {name}"))),
                }
            };
        }
        for_each_method!(by_name)
    }
}

/// The answer to an attempt that was not the first. An earlier one may have had its effect without
/// saying so: what is refused now as malformed, by another clock or in another version, may have been
/// taken then, and its outcome is not known.
fn settled<R>(answer: Result<R, Status>) -> Result<R, Status> {
    match answer {
        Err(status) if is_unsettled(&status) => Err(refusal::unavailable(unsettled(status.message()))),
        answer => answer,
    }
}

fn is_unsettled(status: &Status) -> bool {
    status.get_details_error_info().is_some_and(|info| is_of_the_shape(&info.reason, &info.metadata))
}

/// Whether a refusal is about a request's shape by the clock of the node that refused it. A verdict, which
/// says where it stands, is not: it was looked up under the key.
pub(super) fn is_of_the_shape<'m, M>(reason: &str, metadata: M) -> bool
where
    M: IntoIterator<Item = (&'m String, &'m String)>,
{
    reason == "INVALID_ARGUMENT" && metadata.into_iter().all(|(name, _)| name != "log_index")
}

/// What is said where an attempt after the first was refused as malformed.
pub(super) fn unsettled(told: &str) -> String {
    format!("an attempt at another node may have had its effect; then: {told}")
}

fn decode<Q: Message + Default>(request: Bytes) -> Result<Q, Status> {
    Q::decode(request).map_err(|error| Status::internal(format!("a request that does not decode: {error}")))
}

/// The message that asks another node.
pub(super) fn question(name: &str, request: &impl Message) -> Bytes {
    Kind::Call.frame(&encode_call(name, request))
}

/// A call of a method, in bytes.
pub fn encode_call(name: &str, request: &impl Message) -> Vec<u8> {
    let mut call = Vec::with_capacity(1 + name.len() + request.encoded_len());
    call.push(name.len() as u8);
    call.extend_from_slice(name.as_bytes());
    request.encode_raw(&mut call);
    call
}

/// The method of a call, and its request.
pub fn decode_call(body: &Bytes) -> Option<(&str, Bytes)> {
    let length = usize::from(*body.first()?);
    let name = std::str::from_utf8(body.get(1..1 + length)?).ok()?;
    Some((name, body.slice(1 + length..)))
}

/// The answer to a call, in bytes.
pub fn encode_answer(answer: &Result<Bytes, Status>) -> Bytes {
    let mut bytes = BytesMut::new();
    match answer {
        Ok(response) => {
            bytes.put_u8(0);
            bytes.put_slice(response);
        }
        Err(status) => {
            bytes.put_u8(1);
            bytes.put_i32_le(status.code() as i32);
            bytes.put_u32_le(status.message().len() as u32);
            bytes.put_slice(status.message().as_bytes());
            bytes.put_slice(status.details());
        }
    }
    bytes.freeze()
}

/// The response that an answer brings, or the refusal.
pub fn decode_answer<R: Message + Default>(bytes: &Bytes) -> Result<R, Status> {
    R::decode(response_in(bytes)?).map_err(|_| undecodable())
}

/// Like [`decode_answer`]; the response stays as it is.
pub fn response_in(bytes: &Bytes) -> Result<Bytes, Status> {
    match bytes.first() {
        Some(0) => Ok(bytes.slice(1..)),
        Some(1) => Err(decode_status(bytes).unwrap_or_else(undecodable)),
        _ => Err(undecodable()),
    }
}

fn undecodable() -> Status {
    Status::internal("an answer that does not decode")
}

fn decode_status(bytes: &Bytes) -> Option<Status> {
    let code = i32::from_le_bytes(*bytes.get(1..)?.first_chunk::<4>()?);
    let length = u32::from_le_bytes(*bytes.get(5..)?.first_chunk::<4>()?) as usize;
    let message = std::str::from_utf8(bytes.get(9..)?.get(..length)?).ok()?;
    Some(Status::with_details(Code::from_i32(code), message, bytes.slice(9 + length..)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_comes_back_from_another_node_as_it_was() {
        let told = refusal::malformed_field("amount", "must be above zero");
        let status = decode_answer::<v1::DebitResponse>(&encode_answer(&Err(told.clone())));
        let status = status.expect_err("a refusal");
        assert_eq!((status.code(), status.message()), (told.code(), told.message()));
        assert_eq!(status.details(), told.details());
    }

    #[test]
    fn what_is_refused_as_malformed_after_another_attempt_is_not_settled() {
        let refused: Result<(), _> = Err(refusal::malformed_field("valid_until", "too far ahead"));
        let status = settled(refused).expect_err("a refusal");
        assert_eq!(status.code(), Code::Unavailable);
        assert!(status.message().contains("too far ahead"), "{status}");
        assert!(settled(Ok(())).is_ok());
    }

    #[test]
    fn a_verdict_and_a_limit_stay_what_they_are_after_another_attempt() {
        let judged = refusal::Pairs::from([("log_index".to_owned(), "7".to_owned())]);
        for (reason, pairs) in [
            ("INVALID_AMOUNT_PRECISION", judged.clone()),
            ("INVALID_ARGUMENT", judged),
            ("LIMIT_EXCEEDED", refusal::Pairs::new()),
        ] {
            let answer: Result<(), _> = settled(Err(refusal::refuse(reason, "no", pairs)));
            assert_eq!(answer.map_err(|status| status.code()), Err(Code::InvalidArgument), "{reason}");
        }
    }

    #[test]
    fn a_call_names_its_method() {
        let request = v1::DebitRequest { customer: "acme".to_owned(), ..Default::default() };
        let body = Bytes::from(encode_call("debit", &request));
        let (name, rest) = decode_call(&body).expect("a call");
        assert_eq!((name, v1::DebitRequest::decode(rest)), ("debit", Ok(request)));
        assert_eq!(decode_call(&Bytes::from_static(&[9, b'x'])), None);
    }
}
