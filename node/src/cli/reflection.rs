//! What a server says about itself: its services and their messages, by the gRPC reflection service
//! (`grpc.reflection.v1`).
//!
//! A server sends one file at a time, and files import files: they are asked for until none is
//! missing. What comes from the network is bounded ([`FILES_MAX`]).

use std::collections::BTreeMap;

use prost::Message;
use prost_reflect::{DescriptorPool, MethodDescriptor, ServiceDescriptor};
use prost_types::FileDescriptorProto;
use tonic::Status;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest as Question;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse as Reply;
use tonic_reflection::pb::v1::{FileDescriptorResponse, ServerReflectionRequest};

use super::failure::Failure;
use super::session::{About, Session};

/// Most files that one server may describe itself with. Purser has about a dozen.
const FILES_MAX: usize = 1_000;

/// What a server offers.
#[derive(Debug)]
pub struct Offer {
    pool: DescriptorPool,
    /// Full names, in order.
    services: Vec<String>,
}

impl Offer {
    /// Asks a server.
    pub async fn read(session: &Session) -> Result<Offer, Failure> {
        let Reply::ListServicesResponse(list) = ask(session, Question::ListServices(String::new())).await?
        else {
            return Err(unexpected());
        };
        let mut services: Vec<_> = list.service.into_iter().map(|service| service.name).collect();
        services.sort();

        let mut files = BTreeMap::new();
        for service in &services {
            let symbol = Question::FileContainingSymbol(service.clone());
            keep(&mut files, ask_files(session, symbol).await?)?;
        }
        while let Some(name) = missing_import(&files) {
            keep(&mut files, ask_files(session, Question::FileByFilename(name.clone())).await?)?;
            if !files.contains_key(&name) {
                return Err(Failure::Usage(format!("the server does not describe {name}")));
            }
        }
        Offer::from_files(services, files.into_values())
    }

    /// Builds the offer from what was read.
    pub fn from_files(
        services: Vec<String>,
        files: impl IntoIterator<Item = FileDescriptorProto>,
    ) -> Result<Offer, Failure> {
        let mut pool = DescriptorPool::new();
        pool.add_file_descriptor_protos(files)
            .map_err(|error| Failure::Usage(format!("the server describes itself oddly: {error}")))?;
        Ok(Offer { pool, services })
    }

    /// All that is described.
    pub fn pool(&self) -> &DescriptorPool {
        &self.pool
    }

    /// The services, in order of their names.
    pub fn services(&self) -> impl Iterator<Item = ServiceDescriptor> + '_ {
        self.services.iter().filter_map(|name| self.pool.get_service_by_name(name))
    }

    /// Finds a method by `Debit`, `Ledger/Debit`, `purser.v1.Ledger/Debit` or with dots throughout.
    pub fn method(&self, name: &str) -> Result<MethodDescriptor, Failure> {
        let wanted = name.trim_start_matches('/').replace('/', ".");
        let matches: Vec<_> = self
            .services()
            .flat_map(|service| service.methods().collect::<Vec<_>>())
            .filter(|method| is_suffix_of_name(&wanted, method.full_name()))
            .collect();
        match matches.as_slice() {
            [method] => Ok(method.clone()),
            [] => Err(Failure::Usage(format!("the server has no method {name}; purser call list shows all"))),
            several => {
                let names: Vec<_> = several.iter().map(MethodDescriptor::full_name).collect();
                Err(Failure::Usage(format!("{name} may be {}", names.join(" or "))))
            }
        }
    }
}

/// `Ledger.Debit` names `purser.v1.Ledger.Debit`; `er.Debit` does not.
pub fn is_suffix_of_name(wanted: &str, full_name: &str) -> bool {
    match full_name.strip_suffix(wanted) {
        Some(rest) => rest.is_empty() || (rest.ends_with('.') && !wanted.is_empty()),
        None => false,
    }
}

async fn ask(session: &Session, question: Question) -> Result<Reply, Failure> {
    let about = About::read("ask the server what it offers");
    let request = ServerReflectionRequest { host: String::new(), message_request: Some(question) };
    let mut client = ServerReflectionClient::new(session.channel());
    let request = session.request(tokio_stream::iter([request]));
    let exchange = async {
        let mut replies = client.server_reflection_info(request).await?.into_inner();
        let reply = replies.message().await?;
        let reply = reply.and_then(|reply| reply.message_response);
        match reply {
            Some(Reply::ErrorResponse(error)) => {
                Err(Status::new(tonic::Code::from_i32(error.error_code), error.error_message))
            }
            Some(reply) => Ok(tonic::Response::new(reply)),
            None => Err(Status::internal("the reflection service ended without an answer")),
        }
    };
    session.wait(about, exchange).await
}

async fn ask_files(session: &Session, question: Question) -> Result<FileDescriptorResponse, Failure> {
    match ask(session, question).await? {
        Reply::FileDescriptorResponse(files) => Ok(files),
        _ => Err(unexpected()),
    }
}

fn keep(
    files: &mut BTreeMap<String, FileDescriptorProto>,
    response: FileDescriptorResponse,
) -> Result<(), Failure> {
    for bytes in response.file_descriptor_proto {
        let file = FileDescriptorProto::decode(bytes.as_slice())
            .map_err(|error| Failure::Usage(format!("the server describes itself oddly: {error}")))?;
        files.insert(file.name().to_owned(), file);
    }
    if files.len() > FILES_MAX {
        return Err(Failure::Usage(format!("the server describes more than {FILES_MAX} files")));
    }
    Ok(())
}

fn missing_import(files: &BTreeMap<String, FileDescriptorProto>) -> Option<String> {
    let mut imports = files.values().flat_map(|file| &file.dependency);
    imports.find(|name| !files.contains_key(*name)).cloned()
}

fn unexpected() -> Failure {
    Failure::Usage("the reflection service answered another question".to_owned())
}
