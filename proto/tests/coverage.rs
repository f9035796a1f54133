//! `docs/coverage.md` is made from the contract, and from what the sources of tests, command line and
//! simulation say of it. An empty cell fails, and so does a page that is not the one that is made now:
//! `make coverage` writes it.
//!
//! Tests name what they cover in a comment above them:
//!
//! ```text
//! /// Covers: Hold, Capture           methods of the contract
//! /// Provokes: HOLD_CLOSED           a reason of the contract
//! ```

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use prost::Message;
use prost_types::FileDescriptorSet;

/// How the command line reaches each method of the ledger.
const COMMANDS: [(&str, &str); 26] = [
    ("CreateWallet", "wallet create"),
    ("GetWallet", "wallet get"),
    ("ListWallets", "wallet list"),
    ("UpdateWallet", "wallet update"),
    ("FreezeWallet", "wallet freeze"),
    ("CloseWallet", "wallet close"),
    ("Grant", "grant"),
    ("ConfirmGrant", "grant confirm"),
    ("FailGrant", "grant fail"),
    ("VoidGrant", "grant void"),
    ("ListTranches", "tranches"),
    ("Debit", "debit"),
    ("Explain", "debit --explain"),
    ("WriteBatch", "batch"),
    ("Hold", "hold place"),
    ("ExtendHold", "hold extend"),
    ("Capture", "hold capture"),
    ("Release", "hold release"),
    ("GetHold", "hold get"),
    ("ListHolds", "hold list"),
    ("Refund", "refund"),
    ("Adjust", "adjust"),
    ("GetBalance", "balance"),
    ("ListMovements", "movements"),
    ("GetMovement", "movements"),
    ("Audit", "audit"),
];

/// What in `sim/src/check` watches a method in the simulation.
const ORACLES: [(&str, &str); 29] = [
    ("CreateWallet", "replay"),
    ("GetWallet", "reads"),
    ("ListWallets", "reads"),
    ("UpdateWallet", "replay"),
    ("FreezeWallet", "replay"),
    ("CloseWallet", "replay"),
    ("Grant", "replay"),
    ("ConfirmGrant", "replay"),
    ("FailGrant", "replay"),
    ("VoidGrant", "replay"),
    ("ListTranches", "reads"),
    ("Debit", "replay"),
    ("DebitBatch", "replay"),
    ("DebitStream", "replay"),
    ("WriteBatch", "replay"),
    ("WriteStream", "replay"),
    ("Explain", "reads"),
    ("Hold", "replay"),
    ("ExtendHold", "replay"),
    ("Capture", "replay"),
    ("Release", "replay"),
    ("GetHold", "reads"),
    ("ListHolds", "reads"),
    ("Refund", "replay"),
    ("Adjust", "replay"),
    ("GetBalance", "reads"),
    ("ListMovements", "finals"),
    ("GetMovement", "reads"),
    ("Audit", "finals"),
];

/// What is for programs: the client library has it.
const OF_THE_LIBRARY: [(&str, &str); 3] =
    [("DebitBatch", "debit_batch"), ("DebitStream", "debit_stream"), ("WriteStream", "write_stream")];

/// Tests shown in a cell.
const SHOWN_MAX: usize = 3;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn rust_files(folder: &Path, found: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.map(|entry| entry.expect("readable").path()) {
        if entry.is_dir() {
            rust_files(&entry, found);
        } else if entry.extension().is_some_and(|own| own == "rs") {
            found.push(entry);
        }
    }
    found.sort();
}

/// The sources below a folder, with their names.
fn sources(folder: &str) -> Vec<(String, String)> {
    let mut files = Vec::new();
    rust_files(&root().join(folder), &mut files);
    let read = |file: &PathBuf| {
        let name = file.file_stem().expect("a name").to_string_lossy().into_owned();
        (name, fs::read_to_string(file).expect("readable"))
    };
    files.iter().map(read).collect()
}

/// Tests below a folder by what they say of themselves after a word: `file::test`.
fn marked(folder: &str, word: &str) -> BTreeMap<String, Vec<String>> {
    let mut marked = BTreeMap::<String, Vec<String>>::new();
    for (file, text) in sources(folder) {
        let mut lines = text.lines().map(str::trim);
        while let Some(line) = lines.next() {
            let Some(named) = line.trim_start_matches('/').trim().strip_prefix(word) else { continue };
            let is_test = |line: &&str| line.contains("fn ");
            let test = lines.clone().take(6).find(is_test).and_then(|line| {
                let name = line.split("fn ").nth(1)?;
                Some(name.split(['(', '<']).next()?.to_owned())
            });
            let test = test.unwrap_or_else(|| panic!("no test follows {line:?} in {file}.rs"));
            for name in named.split(',') {
                marked.entry(name.trim().to_owned()).or_default().push(format!("{file}::{test}"));
            }
        }
    }
    marked
}

fn cell(tests: Option<&Vec<String>>) -> String {
    let Some(tests) = tests else { return String::new() };
    let shown: Vec<_> = tests.iter().take(SHOWN_MAX).map(|test| format!("`{test}`")).collect();
    match tests.len() - shown.len() {
        0 => shown.join(", "),
        more => format!("{}, and {more} more", shown.join(", ")),
    }
}

fn known<'a>(table: &[(&str, &'a str)], method: &str) -> Option<&'a str> {
    table.iter().find(|(name, _)| *name == method).map(|(_, known)| *known)
}

/// The command, if an example of the command line shows it; of what is for programs, the library's method.
fn command(method: &str, examples: &str, library: &str) -> String {
    if let Some(own) = known(&OF_THE_LIBRARY, method).filter(|own| {
        library.contains(&format!("pub fn {own}")) || library.contains(&format!("pub async fn {own}"))
    }) {
        return format!("for programs: `{own}` of the client");
    }
    let shows = |command: &&str| {
        let mut lines = examples.lines().filter(|line| line.contains("purser "));
        lines.any(|line| command.split(' ').all(|word| line.split_whitespace().any(|own| own == word)))
    };
    known(&COMMANDS, method).filter(shows).map(|own| format!("`purser {own}`")).unwrap_or_default()
}

/// The oracle, if callers of the simulation ask the method.
fn oracle(method: &str, callers: &str) -> String {
    let asked = callers.contains(&format!(" {method} = ")) || callers.contains(&format!("Method::{method}"));
    let oracle = known(&ORACLES, method).filter(|_| asked);
    let oracle = oracle.filter(|own| root().join(format!("sim/src/check/{own}.rs")).is_file());
    oracle.map(|own| format!("`{own}`")).unwrap_or_default()
}

/// Names and numbers of the contract's reasons, in their order.
fn reasons(contract: &FileDescriptorSet) -> Vec<(String, i32)> {
    let mut enums = contract.file.iter().flat_map(|file| &file.enum_type);
    let reasons = enums.find(|own| own.name() == "Reason").expect("the reasons");
    let told = reasons.value.iter().map(|value| (value.name().to_owned(), value.number()));
    told.filter(|(_, number)| *number != 0).collect()
}

fn page() -> (String, Vec<String>) {
    let contract = FileDescriptorSet::decode(purser_proto::FILE_DESCRIPTOR_SET).expect("descriptors");
    let services = contract.file.iter().flat_map(|file| &file.service);
    let ledger = services.clone().find(|own| own.name() == "Ledger").expect("the service");
    let text = |folder| sources(folder).into_iter().map(|(_, text)| text).collect::<String>();
    let (core, grpc) = (marked("ledger/tests", "Covers:"), marked("node/tests", "Covers:"));
    let (examples, callers, library) = (text("node/src/cli"), text("sim/src"), text("client/src"));
    let mut page = String::from(
        "# Coverage\n\nMade by `make coverage` from the contract and from what tests say of themselves; \
         `make verify` fails where a cell is empty.\n\n## Methods\n\n\
         | method | property of the core | over gRPC | command line | oracle in the simulation |\n\
         | --- | --- | --- | --- | --- |\n",
    );
    let mut empty = Vec::new();
    for method in &ledger.method {
        let name = method.name();
        let cells = [
            cell(core.get(name)),
            cell(grpc.get(name)),
            command(name, &examples, &library),
            oracle(name, &callers),
        ];
        let columns = ["core", "gRPC", "command line", "simulation"].iter().zip(&cells);
        empty.extend(
            columns.filter(|(_, cell)| cell.is_empty()).map(|(column, _)| format!("{name}: {column}")),
        );
        writeln!(page, "| {name} | {} |", cells.join(" | ")).expect("a string");
    }
    let mut provoked = marked("node/tests", "Provokes:");
    for folder in ["ledger/tests", "client/tests"] {
        for (reason, tests) in marked(folder, "Provokes:") {
            provoked.entry(reason).or_default().extend(tests);
        }
    }
    page += "\n## Reasons\n\nEach test provokes its reason, looks at the reason, its gRPC code and HTTP status, and \
             that nothing in the books has changed.\n\n| reason | HTTP | provoked by |\n| --- | --- | --- |\n";
    for (reason, number) in reasons(&contract) {
        let tests = cell(provoked.get(&reason));
        if tests.is_empty() {
            empty.push(format!("{reason}: a test"));
        }
        writeln!(page, "| `{reason}` | {} | {tests} |", number / 100).expect("a string");
    }
    (page, empty)
}

#[test]
fn every_method_and_every_reason_is_covered_and_the_page_says_how() {
    let (page, empty) = page();
    assert!(empty.is_empty(), "not covered: {empty:#?}");
    let file = root().join("docs/coverage.md");
    if std::env::var_os("PURSER_WRITE_COVERAGE").is_some() {
        fs::write(&file, &page).expect("writable");
    }
    let there = fs::read_to_string(&file).unwrap_or_default();
    assert!(there == page, "docs/coverage.md is not what is made now: make coverage");
}
