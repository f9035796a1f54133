//! A process that writes the log is killed at seeded moments. What it had printed as acknowledged
//! must be there, and nothing that it had not announced.
//!
//! The child is this test binary run again, with a directory in its environment.

#[path = "log_support/mod.rs"]
mod support;

use purser_node::log::{GroupId, LogHandle, LogWriter, RealDisk, open};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use support::{Choices, append, name, purge, small_options, vote};

const DIRECTORY: &str = "PURSER_TEST_LOG_DIRECTORY";
const GROUPS: u32 = 3;
const KILLS: u64 = 50;

fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    out.write_all(format!("\n{line}\n").as_bytes()).and_then(|()| out.flush()).expect("the parent reads");
}

/// Appends to every group in turn, for ever: says what it is about to submit, and what is answered.
#[test]
fn child() {
    let Some(directory) = std::env::var_os(DIRECTORY) else { return };
    let disk = Arc::new(RealDisk::open(directory).unwrap());
    let (log, driver, _) = open(disk, small_options()).unwrap();
    let writer = LogWriter::spawn(log.clone(), driver).unwrap();
    for turn in 0..u64::MAX {
        for id in 0..GROUPS {
            let group = GroupId(id);
            let from = log.extent(group).unwrap().next_index;
            let upto = from + 1 + turn % 4;
            let mut ops = vec![append(group, from, upto), vote(group, &upto.to_string())];
            if turn % 10 == 9 && from > 40 {
                ops.push(purge(group, from - 40));
            }
            say(&format!("submitted {id} {upto}"));
            log.submit(ops, Box::new(move |result| say(&format!("{result:?} {id} {upto}")))).unwrap();
        }
    }
    writer.stop();
}

/// Per group: one past the last index answered and announced.
#[derive(Default)]
struct Heard {
    answered: [u64; GROUPS as usize],
    announced: [u64; GROUPS as usize],
    answers: u64,
}

impl Heard {
    fn take(&mut self, line: &str) {
        let mut words = line.split(' ');
        let (what, id, upto) = (words.next(), words.next(), words.next());
        let number = |word: Option<&str>| word.and_then(|word| word.parse::<u64>().ok());
        let (Some(id), Some(upto)) = (number(id), number(upto)) else { return };
        let id = usize::try_from(id).unwrap();
        match what {
            Some("submitted") => self.announced[id] = upto,
            Some("Ok(())") => {
                self.answered[id] = upto;
                self.answers += 1;
            }
            _ => panic!("the child said {line}"),
        }
    }
}

fn run_and_kill(directory: &Path, answers: u64, heard: &mut Heard) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--nocapture", "--test-threads=1"])
        .env(DIRECTORY, directory)
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let until = heard.answers + answers;
    while heard.answers < until {
        heard.take(&lines.next().expect("the child goes on").unwrap());
    }
    child.kill().unwrap();
    // What it had said before it died counts as well.
    lines.map_while(Result::ok).for_each(|line| heard.take(&line));
    child.wait().unwrap();
}

fn check(log: &LogHandle, heard: &Heard) {
    for id in 0..GROUPS {
        let (group, at) = (GroupId(id), id as usize);
        let extent = log.extent(group).unwrap();
        assert!(extent.next_index >= heard.answered[at], "{group}: an answered entry is gone");
        assert!(extent.next_index <= heard.announced[at], "{group}: an entry was invented");
        let entries = log.read(group, extent.first_index..extent.next_index).unwrap();
        for entry in entries {
            assert_eq!(entry.payload, name(group, entry.index));
        }
    }
}

#[test]
fn a_killed_writer_loses_nothing_that_it_answered_and_invents_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let mut choices = Choices(2026);
    let mut heard = Heard::default();
    for _ in 0..KILLS {
        run_and_kill(directory.path(), 1 + choices.below(120), &mut heard);
        let disk = Arc::new(RealDisk::open(directory.path()).unwrap());
        let (log, _driver, recovered) = open(disk, small_options()).unwrap();
        assert!(recovered.damaged.is_empty() && recovered.findings.is_empty(), "{recovered:?}");
        check(&log, &heard);
        // The child goes on from what is there now.
        for id in 0..GROUPS {
            let next = log.extent(GroupId(id)).unwrap().next_index;
            heard.announced[id as usize] = next;
            heard.answered[id as usize] = next;
        }
    }
}
