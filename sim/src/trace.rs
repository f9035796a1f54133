//! What happened in a run, line by line. Two runs of a seed are the same if their traces are; only a
//! hash is kept, and the lines themselves where somebody wants to read them.

use std::fmt;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::mem::take;
use std::path::Path;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use xxhash_rust::xxh3::Xxh3;

use crate::timeline::{Event, Place, Tone};

/// The trace of a run.
pub struct Trace {
    inner: Mutex<Inner>,
}

struct Inner {
    hash: Xxh3,
    lines: u64,
    file: Option<BufWriter<File>>,
    events: Vec<Event>,
}

/// What is left of a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Digest {
    /// The hash of all lines.
    pub hash: u64,
    /// How many there were.
    pub lines: u64,
}

/// The time since the run began.
pub fn now() -> Duration {
    madsim::time::TimeHandle::try_current().map_or(Duration::ZERO, |time| time.elapsed())
}

impl Trace {
    /// A new trace; its lines go to a file too, if one is named.
    pub fn new(file: Option<&Path>) -> io::Result<Trace> {
        let file = file.map(File::create).transpose()?.map(BufWriter::new);
        Ok(Trace { inner: Mutex::new(Inner { hash: Xxh3::new(), lines: 0, file, events: Vec::new() }) })
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Adds a line, under the simulated time.
    pub fn note(&self, what: fmt::Arguments<'_>) {
        let line = format!("{:>13} {what}\n", now().as_nanos() / 1_000);
        let mut inner = self.inner();
        inner.hash.update(line.as_bytes());
        inner.lines += 1;
        if let Some(file) = &mut inner.file {
            file.write_all(line.as_bytes()).expect("the trace's file takes its lines");
        }
    }

    /// Adds a line that is an event of the timeline, too.
    pub fn tell(&self, place: Place, tone: Tone, what: fmt::Arguments<'_>) {
        match place {
            Place::Node(node) => self.note(format_args!("n{} {what}", node + 1)),
            Place::Caller(number) => self.note(format_args!("c{number} {what}")),
            Place::World => self.note(what),
        }
        self.inner().events.push(Event { at: now(), place, tone, what: what.to_string() });
    }

    /// Ends the trace; gives the events out.
    pub fn finish(&self) -> (Digest, Vec<Event>) {
        let mut inner = self.inner();
        if let Some(file) = &mut inner.file {
            file.flush().expect("the trace's file takes its lines");
        }
        (Digest { hash: inner.hash.digest(), lines: inner.lines }, take(&mut inner.events))
    }
}
