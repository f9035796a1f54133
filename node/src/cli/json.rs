//! Answers for programs: any message of the contract as well-shaped JSON.
//!
//! The shape follows from the contract's descriptors, so a new field shows up by itself:
//! - names as in the contract (`snake_case`); every field is there, `null` where it is absent;
//! - amounts stay strings; whole numbers are numbers;
//! - enumerated words without their prefix (`"PROMOTIONAL"`), times as RFC 3339 in UTC, assets as
//!   `"credits/0"`.

use std::sync::LazyLock;

use prost::{Message, Name};
use prost_reflect::{
    DescriptorPool, DynamicMessage, EnumDescriptor, FieldDescriptor, Kind, MapKey, MessageDescriptor,
    ReflectMessage, Value as Dynamic,
};
use serde_json::{Map, Number, Value};

use super::times;

const TIMESTAMP: &str = "google.protobuf.Timestamp";
const ASSET: &str = "purser.v1.Asset";

/// The contract that this binary was built with. `None` cannot be: `the_contract_can_be_read`.
static CONTRACT: LazyLock<Option<DescriptorPool>> =
    LazyLock::new(|| DescriptorPool::decode(purser_proto::FILE_DESCRIPTOR_SET).ok());

/// The JSON of a message of the contract.
pub fn shape<M: Message + Name>(message: &M) -> Value {
    let Some(descriptor) = message_of(&M::full_name()) else { return Value::Null };
    let mut dynamic = DynamicMessage::new(descriptor);
    match dynamic.transcode_from(message) {
        Ok(()) => message_value(&dynamic),
        Err(_) => Value::Null,
    }
}

/// The same, with the idempotency key of the write in front.
pub fn shape_write<M: Message + Name>(message: &M, key: &str) -> Value {
    let mut object = Map::new();
    object.insert("idempotency_key".to_owned(), key.into());
    if let Value::Object(fields) = shape(message) {
        object.extend(fields);
    }
    Value::Object(object)
}

/// What the contract says of a message.
pub fn message_of(name: &str) -> Option<MessageDescriptor> {
    CONTRACT.as_ref()?.get_message_by_name(name)
}

fn message_value(message: &DynamicMessage) -> Value {
    let descriptor = message.descriptor();
    match descriptor.full_name() {
        TIMESTAMP => return timestamp_value(message),
        ASSET => return asset_value(message),
        _ => {}
    }
    let mut object = Map::new();
    for field in descriptor.fields() {
        let value = match field.supports_presence() && !message.has_field(&field) {
            true => Value::Null,
            false => field_value(&message.get_field(&field), &field),
        };
        object.insert(field.name().to_owned(), value);
    }
    Value::Object(object)
}

fn field_value(value: &Dynamic, field: &FieldDescriptor) -> Value {
    match value {
        Dynamic::List(items) => items.iter().map(|item| single_value(item, &field.kind())).collect(),
        Dynamic::Map(pairs) => {
            let kind = match field.kind() {
                Kind::Message(entry) => entry.map_entry_value_field().kind(),
                other => other,
            };
            let mut pairs: Vec<_> = pairs.iter().collect();
            pairs.sort_by_key(|(key, _)| (*key).clone());
            let shaped = pairs.into_iter();
            shaped.map(|(key, value)| (key_text(key), single_value(value, &kind))).collect()
        }
        single => single_value(single, &field.kind()),
    }
}

fn single_value(value: &Dynamic, kind: &Kind) -> Value {
    match value {
        Dynamic::Bool(value) => Value::Bool(*value),
        Dynamic::I32(value) => Value::Number(Number::from(*value)),
        Dynamic::I64(value) => Value::Number(Number::from(*value)),
        Dynamic::U32(value) => Value::Number(Number::from(*value)),
        Dynamic::U64(value) => Value::Number(Number::from(*value)),
        Dynamic::String(value) => Value::String(value.clone()),
        Dynamic::EnumNumber(number) => enum_value(*number, kind),
        Dynamic::Message(message) => message_value(message),
        // The contract has none of these: bytes, floats, nested collections.
        other => Value::String(format!("{other:?}")),
    }
}

fn enum_value(number: i32, kind: &Kind) -> Value {
    let Kind::Enum(descriptor) = kind else { return Value::Number(Number::from(number)) };
    match descriptor.get_value(number) {
        Some(value) => {
            let prefix = enum_prefix(descriptor);
            Value::String(value.name().strip_prefix(&prefix).unwrap_or(value.name()).to_owned())
        }
        None => Value::Number(Number::from(number)),
    }
}

/// `TRANCHE_KIND_` for `TrancheKind`.
fn enum_prefix(descriptor: &EnumDescriptor) -> String {
    let mut prefix = String::new();
    for character in descriptor.name().chars() {
        if character.is_uppercase() && !prefix.is_empty() {
            prefix.push('_');
        }
        prefix.push(character.to_ascii_uppercase());
    }
    prefix.push('_');
    prefix
}

fn timestamp_value(message: &DynamicMessage) -> Value {
    match message.transcode_to::<prost_types::Timestamp>() {
        Ok(timestamp) => Value::String(times::rfc3339(&timestamp)),
        Err(_) => Value::Null,
    }
}

fn asset_value(message: &DynamicMessage) -> Value {
    match message.transcode_to::<purser_proto::v1::Asset>() {
        Ok(asset) => Value::String(format!("{}/{}", asset.code, asset.scale)),
        Err(_) => Value::Null,
    }
}

fn key_text(key: &MapKey) -> String {
    match key {
        MapKey::String(text) => text.clone(),
        other => format!("{other:?}"),
    }
}
