//! `purser call`: any unary method of the server, JSON in, JSON out.
//!
//! The server says by reflection what its methods take; this binary need not know them. JSON is
//! protobuf's own mapping, with the contract's field names.

use std::io::Read;

use clap::Args;
use prost::Message;
use prost_reflect::{
    DeserializeOptions, DynamicMessage, MessageDescriptor, MethodDescriptor, ReflectMessage,
    SerializeOptions, Value as Dynamic,
};
use serde_json::Value;
use tonic::Status;
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::http::uri::PathAndQuery;
use uuid::Uuid;

use super::answer::{Answer, pretty};
use super::describe;
use super::failure::Failure;
use super::reflection::Offer;
use super::session::{About, Session};

/// Shown under `--help`.
pub const EXAMPLES: &str = "\
Examples:
  purser call list
  purser call describe Debit
  purser call Debit '{\"customer\":\"acme\",\"wallet\":\"main\",\"amount\":\"5\"}'
  purser call purser.v1.Ledger/GetBalance '{\"customer\":\"acme\"}'
  purser call Grant - < grant.json

Names may be shortened as long as they are unique. A namespace that is left out is --namespace; an
idempotency_key that is left out is a new UUID, told if the outcome is unknown.";

pub(super) const KEY_FIELD: &str = "idempotency_key";
const NAMESPACE_FIELD: &str = "namespace";

/// Largest request read from stdin: what a server takes.
const REQUEST_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// Which method, with what.
#[derive(Debug, Args)]
pub struct CallArgs {
    /// A method; or `list`; or `describe`, followed by a method, message, enumeration or service
    method: String,
    /// The request as JSON; `-` reads it from stdin [default: {}]
    #[arg(value_name = "JSON")]
    argument: Option<String>,
}

impl CallArgs {
    /// Runs it.
    pub async fn run(self, session: &Session) -> Result<Answer, Failure> {
        let offer = Offer::read(session).await?;
        match (self.method.as_str(), self.argument) {
            ("list", None) => Ok(describe::list(&offer)),
            ("list", Some(_)) => Err(Failure::Usage("list takes nothing more".to_owned())),
            ("describe", Some(name)) => describe::describe(&offer, &name),
            ("describe", None) => Err(Failure::Usage("describe what? purser call list".to_owned())),
            (method, argument) => call(session, &offer.method(method)?, argument).await,
        }
    }
}

async fn call(
    session: &Session,
    method: &MethodDescriptor,
    argument: Option<String>,
) -> Result<Answer, Failure> {
    if method.is_client_streaming() || method.is_server_streaming() {
        return Err(Failure::Usage(format!("{} streams: call cannot", method.full_name())));
    }
    let text = match argument.as_deref() {
        None => "{}".to_owned(),
        Some("-") => read_stdin()?,
        Some(text) => text.to_owned(),
    };
    let mut message = from_json(method.input(), &text)?;
    let key = complete(&mut message, &session.namespace());

    let path = format!("/{}/{}", method.parent_service().full_name(), method.name());
    let path = PathAndQuery::from_maybe_shared(path)
        .map_err(|error| Failure::Usage(format!("{}: {error}", method.full_name())))?;
    let codec = DynamicCodec { output: method.output() };
    let request = session.request(message);
    let about = About { what: format!("call {}", method.name()), key };
    let mut grpc = Grpc::new(session.channel());
    let exchange = async {
        grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
        grpc.unary(request, path, codec).await
    };
    let response = session.wait(about, exchange).await?;
    let json = to_json(&response)?;
    Ok(Answer::new(pretty(&json), json))
}

fn read_stdin() -> Result<String, Failure> {
    let mut text = String::new();
    let mut stdin = std::io::stdin().lock().take(REQUEST_BYTES_MAX + 1);
    stdin.read_to_string(&mut text).map_err(|error| Failure::Usage(format!("stdin: {error}")))?;
    if text.len() as u64 > REQUEST_BYTES_MAX {
        return Err(Failure::Usage(format!("a request is at most {REQUEST_BYTES_MAX} bytes")));
    }
    Ok(text)
}

/// Reads a message from JSON; a field that it does not have is an error.
pub(super) fn from_json(descriptor: MessageDescriptor, text: &str) -> Result<DynamicMessage, Failure> {
    let name = descriptor.name().to_owned();
    let wrong = |error: serde_json::Error| Failure::Usage(format!("not a {name}: {error}"));
    let options = DeserializeOptions::new().deny_unknown_fields(true);
    let mut json = serde_json::Deserializer::from_str(text);
    let message = DynamicMessage::deserialize_with_options(descriptor, &mut json, &options).map_err(wrong)?;
    json.end().map_err(wrong)?;
    Ok(message)
}

/// Writes a message as JSON.
fn to_json(message: &DynamicMessage) -> Result<Value, Failure> {
    let options = SerializeOptions::new()
        .use_proto_field_name(true)
        .skip_default_fields(false)
        .stringify_64_bit_integers(false);
    message
        .serialize_with_options(serde_json::value::Serializer, &options)
        .map_err(|error| Failure::Usage(format!("the answer makes no JSON: {error}")))
}

/// Fills in the namespace and the key where they are missing; returns the key of a write.
fn complete(message: &mut DynamicMessage, namespace: &str) -> Option<String> {
    name_space(message, namespace);
    fill_text(message, KEY_FIELD, || Uuid::now_v7().to_string())
}

/// Fills in the namespace, also of a request within the request (Explain's debit).
pub(super) fn name_space(message: &mut DynamicMessage, namespace: &str) {
    fill_text(message, NAMESPACE_FIELD, || namespace.to_owned());
    for (_, value) in message.fields_mut() {
        if let Dynamic::Message(inner) = value {
            name_space(inner, namespace);
        }
    }
}

/// Sets a text field if the message has it and it is empty; returns what is in it then.
pub(super) fn fill_text(
    message: &mut DynamicMessage,
    name: &str,
    value: impl FnOnce() -> String,
) -> Option<String> {
    let field = message.descriptor().get_field_by_name(name)?;
    let present = message.get_field(&field).as_str()?.to_owned();
    if !present.is_empty() {
        return Some(present);
    }
    let value = value();
    message.set_field(&field, Dynamic::String(value.clone()));
    Some(value)
}

/// Messages that only their descriptors are known of.
#[derive(Clone, Debug)]
struct DynamicCodec {
    output: MessageDescriptor,
}

#[derive(Debug)]
struct DynamicEncoder;

#[derive(Debug)]
struct DynamicDecoder(MessageDescriptor);

impl Codec for DynamicCodec {
    type Encode = DynamicMessage;
    type Decode = DynamicMessage;
    type Encoder = DynamicEncoder;
    type Decoder = DynamicDecoder;

    fn encoder(&mut self) -> Self::Encoder {
        DynamicEncoder
    }

    fn decoder(&mut self) -> Self::Decoder {
        DynamicDecoder(self.output.clone())
    }
}

impl Encoder for DynamicEncoder {
    type Item = DynamicMessage;
    type Error = Status;

    fn encode(&mut self, item: Self::Item, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        item.encode(buffer).map_err(|error| Status::internal(error.to_string()))
    }
}

impl Decoder for DynamicDecoder {
    type Item = DynamicMessage;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Self::Item>, Status> {
        let message = DynamicMessage::decode(self.0.clone(), buffer)
            .map_err(|error| Status::internal(error.to_string()))?;
        Ok(Some(message))
    }
}
