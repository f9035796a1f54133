//! `purser-bench run` from end to end, as its users start it: its counts add up, and whatever happens it
//! leaves nothing behind.

use std::ffi::OsString;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

/// What a refill brings: 4 tranches of 1,000.
const REFILL_CREDITS: u64 = 4_000;

/// The server's binary: tests of the whole workspace build it; where it is not there, it is built here.
fn purser() -> PathBuf {
    let beside = Path::new(env!("CARGO_BIN_EXE_purser-bench")).with_file_name("purser");
    if beside.exists() {
        return beside;
    }
    let folder = beside.parent().and_then(Path::file_name).expect("a target folder");
    let profile = if folder == "debug" { OsString::from("dev") } else { folder.to_owned() };
    let built = Command::new(env!("CARGO"))
        .args(["build", "--locked", "--quiet", "-p", "purser-node", "--bin", "purser", "--profile"])
        .arg(profile)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .status();
    assert!(built.expect("cargo").success());
    beside
}

/// A short run with its data in `directory`.
fn bench(directory: &Path, more: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_purser-bench"));
    command
        .args([
            "run",
            "--shards",
            "2",
            "--wallets",
            "100",
            "--clients",
            "8",
            "--warm-up-s",
            "0",
            "-o",
            "json",
        ])
        .args(["--batch-clients", "2", "--batch-debits", "50", "--directory"])
        .arg(directory)
        .args(more);
    command
}

/// No files, and no process that was told of the directory.
fn assert_nothing_is_left(directory: &Path) {
    assert_eq!(std::fs::read_dir(directory).expect("a folder").count(), 0);
    let name = directory.to_str().expect("text");
    for process in std::fs::read_dir("/proc").expect("processes") {
        let told = std::fs::read(process.expect("a process").path().join("cmdline")).unwrap_or_default();
        let told = String::from_utf8_lossy(&told).replace('\0', " ");
        assert!(!told.contains(name), "still there: {told}");
    }
}

fn number(of: &Value, place: &str) -> u64 {
    of.pointer(place).and_then(Value::as_u64).unwrap_or_else(|| panic!("{place} in {of}"))
}

#[test]
fn every_scenario_runs_its_counts_add_up_and_nothing_is_left_behind() {
    let folder = tempfile::tempdir().expect("a folder");
    let purser = purser();
    let elsewhere = tempfile::tempdir().expect("another folder");
    let page = elsewhere.path().join("report.html");
    let measured = ["--measure-s", "1", "--percent", "50", "--purser", purser.to_str().expect("text")];
    let page_to = ["--html", page.to_str().expect("text")];
    let output = bench(folder.path(), &[&measured[..], &page_to].concat()).output().expect("it ran");

    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told}");
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let measurements = report["measurements"].as_array().expect("measurements");
    let scenarios: Vec<_> = measurements.iter().filter_map(|own| own["scenario"].as_str()).collect();
    // One debit a call over both spreads, the first in an open loop too.
    let single = ["single", "single", "single"];
    let others = ["batch", "stream", "hot", "hot", "one", "read", "mission"];
    assert_eq!(scenarios, [&single[..], &others].concat());
    let page = std::fs::read_to_string(page).expect("a page");
    let (mut applied, mut refills) = (0, 0);
    for own in measurements {
        let reads = own["scenario"] == "read";
        assert!(page.contains(own["told"].as_str().expect("text")), "{own}");
        assert_eq!(number(own, "/read") > 0, reads, "{own}");
        let log = &own["log"];
        // What was written before may still be synced while reads are measured.
        assert!(reads || log["syncs_a_second"].as_f64() > Some(0.0), "{own}");
        assert_eq!(log["debits_an_entry"].as_f64() > Some(0.0), !reads, "{own}");
        applied += number(own, "/applied");
        refills += number(own, "/refills");
        if own.pointer("/pace/closed").is_some() && !reads {
            let debits = number(own, "/latency/calls") * number(own, "/debits_a_call");
            assert_eq!(debits, number(own, "/applied") + number(own, "/denied"), "{own}");
        }
        let processes = own["usage"]["processes"].as_array().expect("processes");
        let names: Vec<_> = processes.iter().map(|process| process["name"].as_str()).collect();
        assert_eq!(names, [Some("node 1"), Some("node 2"), Some("node 3"), Some("load")]);
        assert!(processes.iter().all(|process| number(process, "/resident_bytes") > 0), "{own}");
    }
    assert!(applied > 0);
    let audit = |place: &str| number(&report["audit"], place);
    // And the hot one.
    assert_eq!(audit("/wallets"), 101);
    assert_eq!(audit("/granted"), audit("/debited") + audit("/available"));
    // Each applied debit took at least one credit; each refill counted was granted.
    assert!(audit("/debited") >= applied, "{report}");
    assert!(audit("/granted") >= (101 + refills) * REFILL_CREDITS, "{report}");
    assert_eq!(audit("/granted") % REFILL_CREDITS, 0);
    assert_nothing_is_left(folder.path());
}

#[test]
fn growth_measures_at_its_sizes_aged_and_on_wallets_of_many_tranches_and_starts_a_server_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let purser = purser();
    let growth = ["--scenario", "growth", "--debits", "40000", "--deep-wallets", "2"];
    let tranches = ["--deep-tranches", "250", "--expired-tranches", "250"];
    let measured = ["--measure-s", "1", "--purser", purser.to_str().expect("text")];
    let output =
        bench(folder.path(), &[&growth[..], &tranches, &measured].concat()).output().expect("it ran");

    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told}");
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let measurements = report["measurements"].as_array().expect("measurements");
    let seen = |own: &Value| (own["told"].as_str().unwrap_or_default().to_owned(), number(own, "/wallets"));
    // How long it takes to age depends on how busy the machine is.
    let (ageing, measured): (Vec<_>, Vec<_>) =
        measurements.iter().partition(|own| own["scenario"] == "ageing");
    let seen: Vec<_> = measured.into_iter().map(seen).collect();
    let expected = [
        ("growth: 64 clients, uniform", 100),
        ("growth: 2 clients, uniform, 1,000 a call", 100),
        ("growth, aged: 64 clients, uniform", 100),
        ("growth, aged: 2 clients, uniform, 1,000 a call", 100),
        ("tranches, plain: 64 clients, uniform", 2),
        ("tranches, many open: 64 clients, uniform", 2),
        ("tranches, many out of scope: 64 clients, uniform", 2),
        ("tranches, many expired: 64 clients, uniform", 2),
    ];
    assert_eq!(seen, expected.map(|(told, wallets)| (told.to_owned(), wallets)));
    let before_aged = measurements[..2].iter().chain(ageing);
    assert!(before_aged.map(|own| number(own, "/applied")).sum::<u64>() >= 40_000);
    let starts = report["starts"].as_array().expect("starts").iter();
    let ended: Vec<_> = starts.map(|start| (start["process"].as_str(), start["after"].as_str())).collect();
    assert_eq!(ended, [(Some("node 1"), Some("stopped")), (Some("node 1"), Some("killed"))]);
    assert_eq!(number(&report, "/audit/wallets"), 100 + 4 * 2);
    // Those that are open or out of scope are in the books; those that have expired are not.
    assert!(number(&report, "/audit/granted") > 2 * 2 * 250 * 1_000);
    assert_nothing_is_left(folder.path());
}

#[test]
fn an_interrupted_run_fails_and_leaves_nothing_behind() {
    let folder = tempfile::tempdir().expect("a folder");
    let purser = purser();
    let endless = ["--measure-s", "3600", "--purser", purser.to_str().expect("text")];
    let mut run = bench(folder.path(), &endless).stderr(Stdio::piped()).spawn().expect("it runs");
    let mut lines = BufReader::new(run.stderr.take().expect("its stderr")).lines();
    let measuring = lines.find(|line| line.as_ref().expect("a line").contains("8 clients"));
    assert!(measuring.is_some(), "it measures");

    let sent = Command::new("kill").args(["-TERM", &run.id().to_string()]).status().expect("kill");
    assert!(sent.success());

    let told: Vec<_> = lines.map(|line| line.expect("a line")).collect();
    assert!(!run.wait().expect("it ends").success());
    assert!(told.iter().any(|line| line.contains("interrupted")), "{told:?}");
    assert_nothing_is_left(folder.path());
}

#[test]
fn a_node_that_does_not_start_fails_the_run_and_leaves_nothing_behind() {
    let folder = tempfile::tempdir().expect("a folder");
    let output = bench(folder.path(), &["--purser", "/bin/false"]).output().expect("it ran");
    assert_eq!(output.status.code(), Some(1));
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(told.contains("it did not start"), "{told}");
    assert_nothing_is_left(folder.path());
}
