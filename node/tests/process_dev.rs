//! The binary as people meet it: `purser dev` on directories that it must refuse, flags and files that
//! are wrong, its HTTP port, and the README's first steps, typed as they stand there.

mod node_support;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Output;

use node_support::{Process, dev_command, purser};

fn refused(data: &Path, more: &[&str]) -> (Option<i32>, String) {
    let output = dev_command(data, more).output().expect("it ran");
    (output.status.code(), String::from_utf8(output.stderr).expect("text"))
}

/// Runs a client command against a server.
fn client(server: &Process, words: &[&str]) -> Output {
    purser().args(words).args(["--server", &server.url()]).output().expect("it ran")
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("text")
}

/// Status line and body of a GET.
fn get(address: &str, path: &str) -> (String, String) {
    let mut stream = TcpStream::connect(address).expect("a connection");
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
    (head.lines().next().unwrap_or_default().to_owned(), body.to_owned())
}

#[test]
fn a_second_server_on_the_same_directory_is_refused_and_the_first_goes_on() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data");
    let first = Process::start(&data, &["--shards", "2"]);

    let (code, told) = refused(&data, &[]);

    assert_eq!(code, Some(1));
    assert!(told.contains("is in use by another process"), "{told}");
    let debit = client(&first, &["debit", "--customer", "acme", "--wallet", "main", "--amount", "1"]);
    assert_eq!(debit.status.code(), Some(0), "{debit:?}");
}

#[test]
fn a_directory_with_other_files_is_refused_and_left_as_it_was() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("thesis.txt"), "chapter 1").expect("a file");

    let (code, told) = refused(folder.path(), &[]);

    assert_eq!(code, Some(1));
    assert!(told.contains("is not a data directory of Purser"), "{told}");
    let names: Vec<_> = std::fs::read_dir(folder.path())
        .expect("a folder")
        .map(|entry| entry.expect("an entry").file_name())
        .collect();
    assert_eq!(names, ["thesis.txt"]);
    let kept = std::fs::read_to_string(folder.path().join("thesis.txt")).expect("the file");
    assert_eq!(kept, "chapter 1");
}

#[test]
fn wrong_settings_are_refused_with_what_would_be_right() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data");
    let (code, told) = refused(&data, &["--shards", "3"]);
    assert_eq!(code, Some(1));
    assert!(told.contains("shards: a power of two from 1 to 4096, not 3"), "{told}");

    let (code, told) = refused(&data, &["--shrads", "2"]);
    assert_eq!(code, Some(2));
    assert!(told.contains("--shrads"), "{told}");

    let file = folder.path().join("purser.toml");
    std::fs::write(&file, "shrads = 2\n").expect("a file");
    let (code, told) = refused(&data, &["--config", file.to_str().expect("text")]);
    assert_eq!(code, Some(1));
    assert!(told.contains("shrads"), "{told}");
    assert!(!data.exists(), "nothing was made");
}

#[test]
fn a_directory_made_without_a_test_clock_is_not_started_with_one() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data");
    let mut server = Process::start(&data, &["--shards", "2"]);
    server.terminate();
    assert_eq!(server.wait(), Some(0));

    let (code, told) = refused(&data, &["--test-clock"]);

    assert_eq!(code, Some(1));
    assert!(told.contains("was made without a test clock"), "{told}");
    let (code, told) = refused(&data, &["--shards", "4"]);
    assert_eq!(code, Some(1));
    assert!(told.contains("was made with 2 shards, not 4"), "{told}");
}

#[test]
fn health_and_metrics_are_served_over_http() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = Process::start(&folder.path().join("data"), &["--shards", "2"]);
    let debit = client(&server, &["debit", "--customer", "acme", "--wallet", "main", "--amount", "1"]);
    assert_eq!(debit.status.code(), Some(0), "{debit:?}");

    let fine = "HTTP/1.1 200 OK".to_owned();
    assert_eq!(get(&server.admin, "/livez"), (fine.clone(), "ok\n".to_owned()));
    assert_eq!(get(&server.admin, "/readyz"), (fine.clone(), "ok\n".to_owned()));
    let (status, verbose) = get(&server.admin, "/readyz?verbose");
    assert_eq!(status, fine);
    assert!(verbose.contains("[+] majorities"), "{verbose}");
    let (status, metrics) = get(&server.admin, "/metrics");
    assert_eq!(status, fine);
    for name in ["purser_requests_total", "purser_log_syncs_total", "purser_shard_leader{shard=\"1\"} 1"] {
        assert!(metrics.contains(name), "{name} is not in {metrics}");
    }
}

#[test]
fn the_first_steps_of_the_readme_work_as_they_stand() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = Process::start(&folder.path().join("data"), &["--shards", "2"]);
    let readme = concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md");
    let readme = std::fs::read_to_string(readme).expect("the README");
    let (_, steps) = readme.split_once("\n## First steps\n").expect("first steps");
    let (_, block) = steps.split_once("```sh\n").expect("a block");
    let (block, _) = block.split_once("```").expect("its end");

    let mut lines = 0;
    for line in block.lines() {
        let words: Vec<_> = line.split_whitespace().collect();
        let ["purser", words @ ..] = words.as_slice() else { panic!("not a command of purser: {line}") };
        let output = client(&server, words);
        assert_eq!(output.status.code(), Some(0), "{line}\n{}", text(&output.stderr));
        assert!(!output.stdout.is_empty(), "{line}");
        lines += 1;
    }
    assert!(lines >= 5, "{block}");
}

#[test]
fn answers_in_json_parse_and_refusals_have_exit_codes_by_their_sort() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = Process::start(&folder.path().join("data"), &["--shards", "2"]);
    let balance = client(&server, &["balance", "--customer", "acme", "-o", "json"]);
    assert_eq!(balance.status.code(), Some(0), "{balance:?}");
    serde_json::from_slice::<serde_json::Value>(&balance.stdout).expect("JSON");

    let debit = ["debit", "--customer", "acme", "--wallet", "main", "-o", "json", "--amount"];
    let too_much = client(&server, &[debit.as_slice(), &["1000000"]].concat());
    assert_eq!(too_much.status.code(), Some(1), "{too_much:?}");
    let report: serde_json::Value = serde_json::from_slice(&too_much.stderr).expect("JSON");
    assert!(report.to_string().contains("INSUFFICIENT_CREDITS"), "{report}");
    let malformed = client(&server, &[debit.as_slice(), &["1e3"]].concat());
    assert_eq!(malformed.status.code(), Some(2), "{malformed:?}");

    let completions = purser().args(["completions", "bash"]).output().expect("it ran");
    assert_eq!(completions.status.code(), Some(0));
    assert!(text(&completions.stdout).contains("_purser"));
}
