//! A node's front, where callers' messages come in: what gRPC is in production.
//!
//! ```text
//!   message    route 1 (0: direct, 1: any) | wait in milliseconds 4 | call (`api::forward`)
//!              or 2 | piece of a stream (`streams`)
//! ```

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use purser_node::api::Api;
use purser_node::api::forward::{Route, decode_call, encode_answer};
use purser_node::cluster::NodeId;
use purser_node::node::Mailroom;
use purser_node::peer::Inbox;

use crate::streams::{Piece, Streams};
use crate::workload::Client;

/// Begins a piece of a stream.
const STREAMED: u8 = 2;

/// A caller's message. `wait`: how long it will wait, if any node may be asked.
pub fn message(any_for: Option<Duration>, call: &[u8]) -> Bytes {
    let mut message = BytesMut::with_capacity(5 + call.len());
    message.put_u8(u8::from(any_for.is_some()));
    message.put_u32_le(any_for.unwrap_or_default().as_millis() as u32);
    message.put_slice(call);
    message.freeze()
}

/// A caller's message that is a piece of a stream.
pub fn streamed(piece: &Piece) -> Bytes {
    [&[STREAMED][..], &piece.encode()].concat().into()
}

fn parse(message: &Bytes) -> Option<(Route, Bytes)> {
    let wait_ms = u32::from_le_bytes(*message.get(1..)?.first_chunk::<4>()?);
    let route = match message.first()? {
        0 => Route::Direct,
        1 => Route::within(Some(Duration::from_millis(wait_ms.into()))),
        _ => return None,
    };
    Some((route, message.slice(5..)))
}

/// Where all messages for a node come in: other nodes' go to the mailroom, callers' to the API.
pub struct Front {
    mailroom: Arc<Mailroom>,
    api: Mutex<Option<Api>>,
    streams: Streams,
}

impl Front {
    /// A front that is closed for callers.
    pub fn new(mailroom: Arc<Mailroom>) -> Front {
        Front { mailroom, api: Mutex::default(), streams: Streams::default() }
    }

    /// Opens it.
    pub fn open(&self, api: Api) {
        self.mailroom.open(api.clone());
        *self.api.lock().unwrap_or_else(PoisonError::into_inner) = Some(api);
    }
}

impl Inbox for Front {
    fn receive(&self, from: NodeId, message: Bytes) -> BoxFuture<'static, Result<Bytes, String>> {
        if !Client::is_id(from) {
            return self.mailroom.receive(from, message);
        }
        let api = self.api.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if message.first() == Some(&STREAMED) {
            return match (api, Piece::decode(message.slice(1..))) {
                (Some(api), Some(piece)) => self.streams.receive(from, piece, &api),
                (None, _) => std::future::ready(Err("this node is starting".to_owned())).boxed(),
                (_, None) => std::future::ready(Err("a piece that does not decode".to_owned())).boxed(),
            };
        }
        async move {
            let api = api.ok_or("this node is starting")?;
            let (route, call) = parse(&message).ok_or("a message that does not decode")?;
            let (name, request) = decode_call(&call).ok_or("a call that does not decode")?;
            Ok(encode_answer(&api.dispatch(name, request, route).await))
        }
        .boxed()
    }
}
