//! The documents' examples, typed as they stand there: each `sh` block of a document runs against
//! `purser dev --test-clock`, one after the other in one shell.
//!
//! A line that ends in `# refused: REASON` must be refused for that reason. Every other line must end
//! with 0.

mod node_support;

use std::path::Path;
use std::process::Command;

use node_support::{Process, purser};

const REFUSED: &str = "# refused: ";

/// The lines of a document's `sh` blocks; one that ends in a backslash goes on in the next.
fn lines(document: &str) -> Vec<String> {
    let mut lines = Vec::new();
    for block in document.split("```sh\n").skip(1) {
        let (block, _) = block.split_once("```").expect("its end");
        lines.extend(block.replace("\\\n", " ").lines().map(str::to_owned));
    }
    lines.retain(|line| !line.trim().is_empty());
    lines
}

/// A script that runs lines and ends at the first one that does not come out as it should, with the
/// line and what came on stderr.
fn script(lines: &[String]) -> String {
    let mut script = "set -u\nfail() { echo \"$1\"; cat errors; exit 1; }\n".to_owned();
    for line in lines {
        let shown = line.replace('\'', r"'\''");
        let (command, reason) = match line.split_once(REFUSED) {
            Some((command, reason)) => (command, Some(reason.trim())),
            None => (line.as_str(), None),
        };
        // In this shell, not in one of its own: a variable that a line sets is there for the next.
        script += &format!("{{ {command}\n}} 2>errors; code=$?\n");
        script += &match reason {
            None => format!("[ $code = 0 ] || fail '{shown}'\n"),
            Some(reason) => {
                format!("[ $code = 1 ] && grep -q 'reason *{reason} ' errors || fail '{shown}'\n")
            }
        };
    }
    script
}

/// Runs a document's lines in a shell; how many there were.
fn run(document: &str) -> usize {
    let folder = tempfile::tempdir().expect("a folder");
    let server = Process::start(&folder.path().join("data"), &["--shards", "2", "--test-clock"]);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(document);
    let lines = lines(&std::fs::read_to_string(path).expect("the document"));
    let binaries = Path::new(purser().get_program()).parent().expect("a folder").to_owned();
    let path = format!("{}:{}", binaries.display(), std::env::var("PATH").expect("a path"));
    let mut shell = Command::new("sh");
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("PURSER_")) {
        shell.env_remove(name);
    }
    let output = shell
        .args(["-c", &script(&lines)])
        .current_dir(folder.path())
        .env("PATH", path)
        .env("PURSER_SERVER", server.url())
        .output()
        .expect("a shell");
    assert!(output.status.success(), "{document}: {}", String::from_utf8_lossy(&output.stdout));
    lines.len()
}

#[test]
fn the_examples_about_holds_work_as_they_stand() {
    let count = run("docs/holds.md");
    assert!(count >= 20, "{count} lines");
}

#[test]
fn an_example_that_fails_or_is_not_refused_as_it_says_is_found_out() {
    let status = |line: &str| {
        let folder = tempfile::tempdir().expect("a folder");
        let script = script(&[line.to_owned()]);
        let mut shell = Command::new("sh");
        shell.args(["-c", &script]).current_dir(folder.path()).status().expect("a shell").success()
    };
    assert!(status("true"));
    assert!(!status("false"));
    assert!(!status("HOLD=$(true | grep hld_)"));
    let refused = "{ echo 'reason  HOLD_CLOSED (HTTP 409)' >&2; exit 1; }";
    assert!(status(&format!("( {refused} )   # refused: HOLD_CLOSED")));
    assert!(!status(&format!("( {refused} )   # refused: HOLD_EXPIRED")));
    assert!(!status(&format!("( {refused} )")));
    assert!(!status("true   # refused: HOLD_CLOSED"));
}

#[test]
fn lines_are_taken_from_every_block_and_joined_at_a_backslash() {
    let document =
        "# A\n```sh\npurser a\n\npurser b \\\n  --c\n```\ntext\n```\nnot this\n```\n```sh\nd\n```\n";
    assert_eq!(lines(document), ["purser a", "purser b    --c", "d"]);
}
