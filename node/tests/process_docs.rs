//! The documents' examples, typed as they stand there: each `sh` block of a page runs against
//! `purser dev --test-clock`, one after the other in one shell, each page on a server of its own.
//!
//! A line that ends in `# refused: REASON` must be refused for that reason. Every other line must end
//! with 0, and print the text that a `# prints: TEXT` at its end names: whole words of one line, with any
//! run of blanks as one.

mod node_support;

use std::path::Path;
use std::process::Command;

use node_support::{Process, purser};

const REFUSED: &str = "# refused: ";
const PRINTS: &str = "# prints: ";

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

/// A word that a shell takes as it stands.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// A script that runs lines and ends at the first one that does not come out as it should, with the
/// line and what it printed.
fn script(lines: &[String]) -> String {
    let mut script = "set -u\nfail() { printf '%s\\n' \"$1\"; cat output errors; exit 1; }\n".to_owned();
    for line in lines {
        let expected = if let Some((_, reason)) = line.split_once(REFUSED) {
            // On stdout where it is the answer, as for a debit that is only explained.
            let told = format!("cat output errors | grep -Eq '^ *reason +{}( |$)'", reason.trim());
            format!("{{ [ $code = 1 ] || [ $code = 2 ]; }} && {told}")
        } else if let Some((_, text)) = line.split_once(PRINTS) {
            format!("[ $code = 0 ] && tr -s ' ' <output | grep -qFw -e {}", quoted(text.trim()))
        } else {
            "[ $code = 0 ]".to_owned()
        };
        // In this shell, not in one of its own: a variable that a line sets is there for the next.
        script += &format!("{{ {line}\n}} >output 2>errors; code=$?\n{expected} || fail {}\n", quoted(line));
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
fn the_examples_about_wallets_work_as_they_stand() {
    let count = run("docs/wallets.md");
    assert!(count >= 30, "{count} lines");
}

#[test]
fn the_examples_about_grants_work_as_they_stand() {
    let count = run("docs/grants.md");
    assert!(count >= 30, "{count} lines");
}

#[test]
fn the_examples_about_debits_work_as_they_stand() {
    let count = run("docs/debits.md");
    assert!(count >= 18, "{count} lines");
}

#[test]
fn the_examples_about_holds_work_as_they_stand() {
    let count = run("docs/holds.md");
    assert!(count >= 20, "{count} lines");
}

#[test]
fn the_examples_about_batches_and_streams_work_as_they_stand() {
    let count = run("docs/batches.md");
    assert!(count >= 11, "{count} lines");
}

#[test]
fn the_examples_about_refunds_and_corrections_work_as_they_stand() {
    let count = run("docs/refunds.md");
    assert!(count >= 25, "{count} lines");
}

#[test]
fn the_examples_about_keys_and_retries_work_as_they_stand() {
    let count = run("docs/idempotency.md");
    assert!(count >= 13, "{count} lines");
}

#[test]
fn the_examples_about_movements_balances_and_audit_work_as_they_stand() {
    let count = run("docs/movements.md");
    assert!(count >= 14, "{count} lines");
}

#[test]
fn no_page_has_examples_that_nobody_runs() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs");
    let mut with_examples = Vec::new();
    for entry in std::fs::read_dir(folder).expect("the documents") {
        let path = entry.expect("an entry").path();
        if path.extension().is_some_and(|end| end == "md")
            && !lines(&std::fs::read_to_string(&path).expect("a document")).is_empty()
        {
            with_examples.push(path.file_stem().expect("a name").to_string_lossy().into_owned());
        }
    }
    with_examples.sort();
    let run_above =
        ["batches", "debits", "grants", "holds", "idempotency", "movements", "refunds", "wallets"];
    assert_eq!(with_examples, run_above);
}

#[test]
fn an_example_that_does_not_come_out_as_it_says_is_found_out() {
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
    assert!(status("( echo 'reason  HOLD_CLOSED'; exit 1 )   # refused: HOLD_CLOSED"));
    assert!(status("( echo '  reason  HOLD_CLOSED' >&2; exit 2 )   # refused: HOLD_CLOSED"));
    assert!(!status("( echo 'reason  HOLD_CLOSED' >&2; exit 3 )   # refused: HOLD_CLOSED"));
    assert!(!status("echo 'reason  HOLD_CLOSED'   # refused: HOLD_CLOSED"));

    assert!(status("echo 'took  5   credits, -2 left'   # prints: 5 credits, -2 left"));
    assert!(status("echo '\"say\": \"it'\\''s\"'   # prints: \"it's\""));
    assert!(!status("echo '15 credits'   # prints: 5 credits"));
    assert!(!status("echo '5 credits'   # prints: 5 credit"));
    assert!(!status("echo 5; echo credits   # prints: 5 credits"));
    assert!(!status("echo '5 credits' >&2   # prints: 5 credits"));
    assert!(!status("( echo '5 credits'; exit 1 )   # prints: 5 credits"));
}

#[test]
fn lines_are_taken_from_every_block_and_joined_at_a_backslash() {
    let document =
        "# A\n```sh\npurser a\n\npurser b \\\n  --c\n```\ntext\n```\nnot this\n```\n```sh\nd\n```\n";
    assert_eq!(lines(document), ["purser a", "purser b    --c", "d"]);
}
