//! `purser call list` and `purser call describe`: the contract as the server tells it, with its
//! comments.

use prost_reflect::{
    EnumDescriptor, FieldDescriptor, FileDescriptor, Kind, MessageDescriptor, MethodDescriptor,
    ServiceDescriptor,
};
use serde_json::{Value, json};

use super::answer::Answer;
use super::failure::Failure;
use super::reflection::{Offer, is_suffix_of_name};
use super::table::{self, Column, Lean};

/// Every method of every service.
pub fn list(offer: &Offer) -> Answer {
    const COLUMNS: [Column; 3] = [("METHOD", Lean::Left), ("TAKES", Lean::Left), ("GIVES", Lean::Left)];
    let methods: Vec<_> = offer.services().flat_map(|s| s.methods().collect::<Vec<_>>()).collect();
    let rows = methods.iter().map(|method| {
        vec![path(method), method.input().name().to_owned(), method.output().name().to_owned()]
    });
    let text = table::table(&COLUMNS, rows);
    let json: Vec<_> = methods
        .iter()
        .map(|method| {
            json!({
                "method": path(method),
                "request": method.input().full_name(),
                "response": method.output().full_name(),
            })
        })
        .collect();
    Answer::new(text, json!({ "methods": json }))
}

/// One method with its request and response, one message, enumeration or service.
pub fn describe(offer: &Offer, name: &str) -> Result<Answer, Failure> {
    let wanted = name.trim_start_matches('/').replace('/', ".");
    let pool = offer.pool();
    let text = if let Some(found) = pool.all_messages().find(|m| matches(&wanted, m.full_name())) {
        message(&found)
    } else if let Some(found) = pool.all_enums().find(|e| matches(&wanted, e.full_name())) {
        enumeration(&found)
    } else if let Some(found) = pool.services().find(|s| matches(&wanted, s.full_name())) {
        service(&found)
    } else {
        let found = offer.method(name)?;
        [method(&found), message(&found.input()), message(&found.output())].join("\n\n")
    };
    Ok(Answer::new(text.clone(), Value::String(text)))
}

fn matches(wanted: &str, full_name: &str) -> bool {
    is_suffix_of_name(wanted, full_name)
}

/// `purser.v1.Ledger/Debit`.
fn path(method: &MethodDescriptor) -> String {
    format!("{}/{}", method.parent_service().full_name(), method.name())
}

fn service(service: &ServiceDescriptor) -> String {
    let mut text = comment(&service.parent_file(), service.path(), "");
    text.push_str(&format!("service {} {{\n", service.full_name()));
    for method in service.methods() {
        text.push_str(&comment(&service.parent_file(), method.path(), "  "));
        text.push_str(&format!("  {}\n", signature(&method)));
    }
    text + "}"
}

fn method(method: &MethodDescriptor) -> String {
    let file = method.parent_service().parent_file();
    comment(&file, method.path(), "") + &signature(method)
}

fn signature(method: &MethodDescriptor) -> String {
    let stream = |streams| if streams { "stream " } else { "" };
    format!(
        "rpc {}({}{}) returns ({}{});",
        method.name(),
        stream(method.is_client_streaming()),
        method.input().name(),
        stream(method.is_server_streaming()),
        method.output().name(),
    )
}

fn message(message: &MessageDescriptor) -> String {
    let file = message.parent_file();
    let mut text = comment(&file, message.path(), "");
    text.push_str(&format!("message {} {{\n", message.full_name()));
    for field in message.fields() {
        text.push_str(&comment(&file, field.path(), "  "));
        text.push_str(&format!("  {} {} = {};", type_name(&field), field.name(), field.number()));
        let choice = field.containing_oneof().filter(|oneof| !oneof.is_synthetic());
        if let Some(choice) = choice {
            text.push_str(&format!(" // one of {}", choice.name()));
        }
        text.push('\n');
    }
    text + "}"
}

fn enumeration(enumeration: &EnumDescriptor) -> String {
    let file = enumeration.parent_file();
    let mut text = comment(&file, enumeration.path(), "");
    text.push_str(&format!("enum {} {{\n", enumeration.full_name()));
    for value in enumeration.values() {
        text.push_str(&comment(&file, value.path(), "  "));
        text.push_str(&format!("  {} = {};\n", value.name(), value.number()));
    }
    text + "}"
}

fn type_name(field: &FieldDescriptor) -> String {
    if let Kind::Message(entry) = field.kind()
        && entry.is_map_entry()
    {
        let key = entry.map_entry_key_field().kind();
        let value = entry.map_entry_value_field().kind();
        return format!("map<{}, {}>", kind_name(&key), kind_name(&value));
    }
    let name = kind_name(&field.kind());
    let is_optional = field.containing_oneof().is_some_and(|oneof| oneof.is_synthetic());
    match (field.is_list(), is_optional) {
        (true, _) => format!("repeated {name}"),
        (_, true) => format!("optional {name}"),
        _ => name,
    }
}

fn kind_name(kind: &Kind) -> String {
    match kind {
        Kind::Message(message) => message.full_name().to_owned(),
        Kind::Enum(enumeration) => enumeration.full_name().to_owned(),
        scalar => format!("{scalar:?}").to_lowercase(),
    }
}

/// The comment over an element of the contract, as comment lines; empty if there is none.
fn comment(file: &FileDescriptor, path: &[i32], indent: &str) -> String {
    let file = file.file_descriptor_proto();
    let mut locations = file.source_code_info.iter().flat_map(|info| &info.location);
    let Some(location) = locations.find(|location| location.path == path) else {
        return String::new();
    };
    let lines = location.leading_comments().trim_end().lines();
    lines.map(|line| format!("{indent}//{}\n", table::clean(line))).collect()
}
