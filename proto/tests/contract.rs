//! The contract keeps its own rules: what the head of `common.proto` promises is checked here over
//! the compiled descriptors, so that a new call cannot forget them.

use prost::Message;
use prost_types::field_descriptor_proto::Type;
use prost_types::{DescriptorProto, FileDescriptorProto, FileDescriptorSet};
use purser_proto::v1::Reason;

const PACKAGE: &str = "purser.v1";

/// Descriptor paths, `descriptor.proto`: the field numbers that lead to an element.
const PATH_FILE_MESSAGE: i32 = 4;
const PATH_FILE_ENUM: i32 = 5;
const PATH_FILE_SERVICE: i32 = 6;
const PATH_MESSAGE_FIELD: i32 = 2;
const PATH_ENUM_VALUE: i32 = 2;
const PATH_SERVICE_METHOD: i32 = 2;

/// Responses that are about a server or the cluster and not about a shard, and those that carry many
/// answers, each with its own receipt.
const WITHOUT_STAMP: [&str; 12] = [
    "GetClockResponse",
    "AdvanceClockResponse",
    "GetNodeResponse",
    "FoundResponse",
    "ReplaceResponse",
    "JoinResponse",
    "GetShardMapResponse",
    "GetStatusResponse",
    "DebitBatchResponse",
    "DebitStreamResponse",
    "WriteBatchResponse",
    "WriteStreamResponse",
];

fn own_files() -> Vec<FileDescriptorProto> {
    let set = FileDescriptorSet::decode(purser_proto::FILE_DESCRIPTOR_SET)
        .expect("the embedded descriptor set decodes");
    set.file.into_iter().filter(|file| file.package() == PACKAGE).collect()
}

fn messages() -> Vec<DescriptorProto> {
    own_files().into_iter().flat_map(|file| file.message_type).collect()
}

fn is_commented(file: &FileDescriptorProto, path: &[i32]) -> bool {
    let locations = file.source_code_info.iter().flat_map(|info| &info.location);
    locations
        .filter(|location| location.path == path)
        .any(|location| !location.leading_comments().trim().is_empty())
}

/// Paths of everything in the file that a reader may ask about, with a name for the message.
fn elements(file: &FileDescriptorProto) -> Vec<(Vec<i32>, String)> {
    let mut elements = Vec::new();
    for (m, message) in (0..).zip(&file.message_type) {
        elements.push((vec![PATH_FILE_MESSAGE, m], message.name().to_owned()));
        for (f, field) in (0..).zip(&message.field) {
            let path = vec![PATH_FILE_MESSAGE, m, PATH_MESSAGE_FIELD, f];
            elements.push((path, format!("{}.{}", message.name(), field.name())));
        }
    }
    for (e, enumeration) in (0..).zip(&file.enum_type) {
        elements.push((vec![PATH_FILE_ENUM, e], enumeration.name().to_owned()));
        for (v, value) in (0..).zip(&enumeration.value) {
            let path = vec![PATH_FILE_ENUM, e, PATH_ENUM_VALUE, v];
            elements.push((path, format!("{}.{}", enumeration.name(), value.name())));
        }
    }
    for (s, service) in (0..).zip(&file.service) {
        elements.push((vec![PATH_FILE_SERVICE, s], service.name().to_owned()));
        for (m, method) in (0..).zip(&service.method) {
            let path = vec![PATH_FILE_SERVICE, s, PATH_SERVICE_METHOD, m];
            elements.push((path, format!("{}/{}", service.name(), method.name())));
        }
    }
    elements
}

#[test]
fn everything_in_the_contract_says_what_it_means() {
    let mut bare = Vec::new();
    for file in own_files() {
        for (path, name) in elements(&file) {
            if !is_commented(&file, &path) {
                bare.push(format!("{}: {name}", file.name()));
            }
        }
    }
    assert!(bare.is_empty(), "without a comment: {bare:#?}");
}

#[test]
fn every_write_starts_with_the_same_four_fields() {
    let head = ["namespace", "customer", "idempotency_key", "valid_until"];
    let writes: Vec<_> = messages()
        .into_iter()
        .filter(|message| message.field.iter().any(|field| field.name() == "idempotency_key"))
        .filter(|message| message.name().ends_with("Request"))
        .collect();
    assert!(writes.len() >= 4, "CreateWallet, FreezeWallet, Grant, Debit");

    for write in writes {
        for (number, expected) in (1..).zip(head) {
            let field = write.field.iter().find(|field| field.number() == number);
            let name = field.map(|field| field.name());
            assert_eq!(name, Some(expected), "field {number} of {}", write.name());
        }
    }
}

#[test]
fn every_answer_starts_with_a_receipt_or_a_read_point() {
    for response in messages() {
        let name = response.name();
        if !name.ends_with("Response") || WITHOUT_STAMP.contains(&name) {
            continue;
        }
        let first = response.field.iter().find(|field| field.number() == 1);
        let stamp = first.map(|field| (field.name(), field.type_name()));
        assert!(
            stamp == Some(("receipt", ".purser.v1.Receipt"))
                || stamp == Some(("point", ".purser.v1.ReadPoint")),
            "{name} starts with {stamp:?}"
        );
    }
}

#[test]
fn nothing_in_the_contract_is_a_floating_point_number() {
    for message in messages() {
        for field in &message.field {
            let is_float = matches!(field.r#type(), Type::Double | Type::Float);
            assert!(!is_float, "{}.{}", message.name(), field.name());
        }
    }
}

#[test]
fn the_number_of_a_reason_starts_with_its_http_status() {
    let files = own_files();
    let reasons = files.iter().flat_map(|file| &file.enum_type).find(|e| e.name() == "Reason");
    for value in &reasons.expect("errors.proto has Reason").value {
        if value.number() == 0 {
            continue;
        }
        let http = value.number() / 100;
        assert!((400..600).contains(&http), "{} has {http}", value.name());
        assert!(value.number() % 100 > 0, "{} counts from 1", value.name());
    }
}

#[test]
fn every_reason_has_its_row_in_the_documents() {
    const ERRORS: &str = include_str!("../../docs/errors.md");
    let files = own_files();
    let reasons = files.iter().flat_map(|file| &file.enum_type).find(|e| e.name() == "Reason");
    for value in &reasons.expect("errors.proto has Reason").value {
        if value.number() == 0 {
            continue;
        }
        let cells = |line: &str| line.split('|').map(|cell| cell.trim().to_owned()).collect::<Vec<_>>();
        let name = format!("`{}`", value.name());
        let row = ERRORS.lines().map(cells).find(|cells| cells.get(1) == Some(&name));
        let http = row.as_ref().and_then(|cells| cells.get(3));
        assert_eq!(http, Some(&(value.number() / 100).to_string()), "{name} in docs/errors.md");
    }
}

#[test]
fn a_reason_is_sent_by_the_name_it_has_in_the_contract() {
    assert_eq!(Reason::InsufficientCredits.as_str_name(), "INSUFFICIENT_CREDITS");
    assert_eq!(Reason::from_str_name("KEY_TOO_OLD"), Some(Reason::KeyTooOld));
}
