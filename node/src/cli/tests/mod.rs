//! Tests of the client commands: flags to requests, responses to answers, statuses to reports, and
//! whole commands against a server that is made up.

mod answers;
mod batches;
mod commands;
mod corrections;
mod failures;
mod flags;
mod grants;
mod holds;
mod parrot;
mod wallets;

use clap::Parser;

use super::{ClientCommand, Globals};

/// The command line as `main.rs` puts it together, without the server's commands.
#[derive(Debug, Parser)]
#[command(name = "purser", version, propagate_version = true)]
struct CommandLine {
    #[command(flatten)]
    globals: Globals,
    #[command(subcommand)]
    command: ClientCommand,
}

/// Reads a command line; arguments with spaces go in single quotes.
fn read(line: &str) -> Result<CommandLine, clap::Error> {
    let mut arguments = Vec::new();
    for (index, part) in line.split('\'').enumerate() {
        let is_quoted = index % 2 == 1;
        match is_quoted {
            true => arguments.push(part),
            false => arguments.extend(part.split_whitespace()),
        }
    }
    CommandLine::try_parse_from(arguments)
}
