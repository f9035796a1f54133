//! `purser batch`: writes of several sorts from a file, one a line, many in one call.
//!
//! All lines are read before anything is sent: a line that makes no request sends nothing. Each line
//! without a key gets one that is made of the command's key and the line's number, so that the same
//! command under the same key has the same effect once.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use prost::{Message, Name};
use prost_reflect::Value as Dynamic;
use purser_proto::v1::write_request::Write;
use purser_proto::v1::write_result::Outcome;
use purser_proto::v1::{ReceiptDetail, Refusal, WriteBatchRequest, WriteRequest, WriteResult};
use serde_json::{Map, Value};
use tonic::Status;
use uuid::Uuid;

use super::answer::{Answer, Exit};
use super::call::{KEY_FIELD, fill_text, from_json, name_space};
use super::failure::{Failure, Partial, exit_of_name};
use super::json;
use super::session::{About, OutputFormat, Session};
use super::table::{self, Column, Lean, or_none};
use super::times::{self, NONE};

/// Shown under `--help`.
pub const EXAMPLES: &str = r#"Examples:
  purser batch writes.jsonl
  purser batch writes.jsonl --key import-7      # repeat it: each line has one effect
  purser batch - -o json < writes.jsonl | grep '"refused"'

A line is one write in protobuf's JSON, as purser call takes it, such as
  {"debit": {"customer": "acme", "wallet": "main", "amount": "5"}}
  {"hold": {"customer": "acme", "wallet": "main", "amount": "30", "ttl": "120s"}}
  {"capture": {"customer": "acme", "hold_id": "hld_...", "amount": "20"}}
  {"grant": {"customer": "acme", "wallet": "main",
             "tranches": [{"amount": "100", "kind": "TRANCHE_KIND_PURCHASED"}]}}   (on one line)
and likewise release, extend_hold and refund; purser call describe WriteRequest shows all fields.

Each line has its own verdict, and lines of one customer are judged in their order. A hold's id is known
when its line is answered: a capture of it belongs into a later batch. The exit code is 1 if a line was
refused, and 3 if the outcome of one is unknown: then run the same command with the same --key."#;

/// Lines sent in one call.
const CALL_LINES_MAX: usize = 1_000;
/// Bytes sent in one call; a server takes 4 MiB.
const CALL_BYTES_MAX: usize = 3 << 20;
/// Writes that a server takes in one call; a grant counts as many as it has tranches.
const CALL_WRITES_MAX: usize = 8_000;
/// Largest file: some hundred thousand writes, which are all kept until the end.
const FILE_BYTES_MAX: u64 = 64 << 20;

/// Which writes.
#[derive(Debug, Args)]
pub struct BatchArgs {
    /// A file of JSON Lines, one write a line; `-` reads stdin
    file: PathBuf,
    /// What the keys of lines without one are made of: KEY-1 for the first line, and so on [default: a
    /// new UUID, printed with the answer]
    #[arg(long, value_name = "KEY")]
    key: Option<String>,
}

/// A write, and where it stands.
struct Line {
    number: usize,
    write: WriteRequest,
}

impl BatchArgs {
    /// Runs it.
    pub async fn run(self, session: &Session) -> Result<Answer, Failure> {
        let key = self.key.unwrap_or_else(|| Uuid::now_v7().to_string());
        let lines = lines_of(&read(&self.file)?, &session.namespace(), &key)?;
        if lines.is_empty() {
            return Err(Failure::Usage(format!("{}: no write in it", self.file.display())));
        }
        let bar = bar(&lines);
        let detail = match session.output() {
            OutputFormat::Table => ReceiptDetail::Brief,
            OutputFormat::Json => ReceiptDetail::Full,
        };
        let mut results = Vec::with_capacity(lines.len());
        while results.len() < lines.len() {
            let rest = &lines[results.len()..];
            let call = &rest[..fitting(rest)];
            match send(session, call, detail, &key).await {
                Ok(told) => results.extend(told),
                Err(failure) if results.is_empty() => return Err(failure),
                // What was answered is told, whatever became of the rest.
                Err(failure) => {
                    bar.finish_and_clear();
                    let answer = show(&lines, &results, &key);
                    return Err(Failure::Partial(Box::new(Partial { answer, failure })));
                }
            }
            bar.set_position(results.len() as u64);
        }
        bar.finish_and_clear();
        Ok(show(&lines, &results, &key))
    }
}

fn read(file: &Path) -> Result<String, Failure> {
    let wrong = |error: io::Error| Failure::Usage(format!("{}: {error}", file.display()));
    let mut text = String::new();
    if file == Path::new("-") {
        io::stdin().lock().take(FILE_BYTES_MAX + 1).read_to_string(&mut text).map_err(wrong)?;
    } else {
        File::open(file).map_err(wrong)?.take(FILE_BYTES_MAX + 1).read_to_string(&mut text).map_err(wrong)?;
    }
    if text.len() as u64 > FILE_BYTES_MAX {
        let most = FILE_BYTES_MAX >> 20;
        return Err(Failure::Usage(format!("{}: at most {most} MiB; split it", file.display())));
    }
    Ok(text)
}

/// The writes of a text, completed; empty lines are passed over.
fn lines_of(text: &str, namespace: &str, key: &str) -> Result<Vec<Line>, Failure> {
    let numbered = (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty());
    let line = |(number, text)| {
        let write = write_of(text, namespace, &format!("{key}-{number}"));
        let write =
            write.map_err(|wrong| Failure::Usage(format!("line {number}: {wrong}; nothing was sent")))?;
        Ok(Line { number, write })
    };
    numbered.map(line).collect()
}

/// One write; namespace and key are filled in where they are missing.
fn write_of(text: &str, namespace: &str, key: &str) -> Result<WriteRequest, String> {
    let descriptor = json::message_of(&WriteRequest::full_name()).ok_or("the contract cannot be read")?;
    let mut message = from_json(descriptor, text).map_err(|failure| match failure {
        Failure::Usage(what) => what,
        other => format!("{other:?}"),
    })?;
    name_space(&mut message, namespace);
    let own = message.fields_mut().filter_map(|(_, value)| match value {
        Dynamic::Message(own) => Some(own),
        _ => None,
    });
    own.for_each(|own| drop(fill_text(own, KEY_FIELD, || key.to_owned())));
    let write: WriteRequest = message.transcode_to().map_err(|error| error.to_string())?;
    match write.write {
        Some(_) => Ok(write),
        None => Err("names no write: debit, hold, extend_hold, capture, release, grant or refund".to_owned()),
    }
}

/// How many of these lines go in one call; at least one.
fn fitting(lines: &[Line]) -> usize {
    let (mut bytes, mut writes) = (0, 0);
    let fit = lines.iter().take(CALL_LINES_MAX).take_while(|line| {
        bytes += line.write.encoded_len();
        writes += match &line.write.write {
            Some(Write::Grant(grant)) => grant.tranches.len().max(1),
            _ => 1,
        };
        bytes <= CALL_BYTES_MAX && writes <= CALL_WRITES_MAX
    });
    fit.count().max(1)
}

async fn send(
    session: &Session,
    lines: &[Line],
    detail: ReceiptDetail,
    key: &str,
) -> Result<Vec<WriteResult>, Failure> {
    let (first, last) =
        (lines.first().map_or(0, |line| line.number), lines.last().map_or(0, |line| line.number));
    let about = About::write(format!("send lines {first} to {last}"), key);
    let writes = lines.iter().map(|line| line.write.clone()).collect();
    let request = session.request(WriteBatchRequest { writes, detail: detail.into() });
    let mut ledger = session.ledger();
    let exchange = async {
        let response = ledger.write_batch(request).await?;
        match response.get_ref().results.len() == lines.len() {
            true => Ok(response),
            false => Err(Status::internal("there are not as many results as lines")),
        }
    };
    Ok(session.wait(about, exchange).await?.results)
}

/// Shows how far it is, on a terminal, where more than one call is needed.
fn bar(lines: &[Line]) -> ProgressBar {
    if fitting(lines) == lines.len() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(lines.len() as u64);
    match ProgressStyle::with_template("{bar:40} {human_pos}/{human_len} lines, {eta} left") {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

/// How it went with all lines that have a result.
#[derive(Default)]
struct Counts {
    applied: usize,
    replayed: usize,
    refused: usize,
    unknown: usize,
}

impl Counts {
    fn count(&mut self, shown: &Shown<'_>) {
        match shown.outcome.exit() {
            Exit::Done => {
                self.applied += 1;
                self.replayed += usize::from(matches!(shown.outcome, Told::Applied { replayed: true }));
            }
            Exit::Refused | Exit::Usage => self.refused += 1,
            Exit::Unknown => self.unknown += 1,
        }
    }

    fn exit(&self) -> Exit {
        match (self.unknown, self.refused) {
            (0, 0) => Exit::Done,
            (0, _) => Exit::Refused,
            _ => Exit::Unknown,
        }
    }

    fn to_text(&self, sent: usize, key: &str) -> String {
        let Counts { applied, replayed, refused, unknown } = self;
        let mut text = format!("{sent} lines: {applied} applied");
        if *replayed > 0 {
            text += &format!(" ({replayed} before)");
        }
        text += &format!(", {refused} refused");
        let key = table::clean(key);
        if *unknown > 0 {
            text += &format!(", {unknown} unknown: run the same command with --key {key}");
        }
        format!("{text}\nkey {key}")
    }
}

fn show(lines: &[Line], results: &[WriteResult], key: &str) -> Answer {
    const COLUMNS: [Column; 7] = [
        ("LINE", Lean::Right),
        ("WRITE", Lean::Left),
        ("CUSTOMER", Lean::Left),
        ("OUTCOME", Lean::Left),
        ("AMOUNT", Lean::Right),
        ("REMAINING", Lean::Right),
        ("ABOUT", Lean::Left),
    ];
    let (mut counts, mut rows, mut shaped) = (Counts::default(), Vec::new(), Vec::new());
    for (line, result) in lines.iter().zip(results) {
        let (sort, customer, own_key) = names(&line.write);
        let shown = Shown::of(result);
        counts.count(&shown);
        rows.push(vec![
            line.number.to_string(),
            sort.to_owned(),
            customer.to_owned(),
            shown.outcome.to_text(),
            or_none(shown.amount),
            or_none(shown.remaining),
            shown.about,
        ]);
        let mut object = Map::new();
        object.insert("line".to_owned(), line.number.into());
        object.insert("idempotency_key".to_owned(), own_key.into());
        if let Value::Object(fields) = json::shape(result) {
            // The one outcome that it has.
            object.extend(fields.into_iter().filter(|(_, value)| !value.is_null()));
        }
        shaped.push(Value::Object(object).to_string());
    }
    let text = format!("{}\n\n{}", table::table(&COLUMNS, rows), counts.to_text(results.len(), key));
    Answer::new(text, Value::String(shaped.join("\n"))).with_exit(counts.exit())
}

/// A write's sort, customer and key.
fn names(write: &WriteRequest) -> (&'static str, &str, &str) {
    match &write.write {
        Some(Write::Debit(own)) => ("debit", &own.customer, &own.idempotency_key),
        Some(Write::Hold(own)) => ("hold", &own.customer, &own.idempotency_key),
        Some(Write::ExtendHold(own)) => ("extend_hold", &own.customer, &own.idempotency_key),
        Some(Write::Capture(own)) => ("capture", &own.customer, &own.idempotency_key),
        Some(Write::Release(own)) => ("release", &own.customer, &own.idempotency_key),
        Some(Write::Grant(own)) => ("grant", &own.customer, &own.idempotency_key),
        Some(Write::Refund(own)) => ("refund", &own.customer, &own.idempotency_key),
        None => (NONE, "", ""),
    }
}

/// What became of a line.
enum Told<'a> {
    Applied { replayed: bool },
    Refused(&'a Refusal),
    Nothing,
}

impl Told<'_> {
    fn exit(&self) -> Exit {
        match self {
            Told::Applied { .. } => Exit::Done,
            Told::Refused(refusal) => exit_of_name(&refusal.reason),
            Told::Nothing => Exit::Unknown,
        }
    }

    fn to_text(&self) -> String {
        match self {
            Told::Applied { replayed: false } => "applied".to_owned(),
            Told::Applied { replayed: true } => "replayed".to_owned(),
            Told::Refused(refusal) => refusal.reason.clone(),
            Told::Nothing => NONE.to_owned(),
        }
    }
}

/// A result as a row shows it.
struct Shown<'a> {
    outcome: Told<'a>,
    amount: &'a str,
    remaining: &'a str,
    about: String,
}

impl Shown<'_> {
    fn of(result: &WriteResult) -> Shown<'_> {
        let id = |hold: &Option<purser_proto::v1::HoldState>| {
            hold.as_ref().map_or(String::new(), |hold| hold.hold_id.clone())
        };
        let (receipt, amount, remaining, about): (_, &str, &str, _) = match &result.outcome {
            Some(Outcome::Debited(own)) => (&own.receipt, &own.amount, &own.remaining, String::new()),
            Some(Outcome::Held(own)) => {
                let amount = own.hold.as_ref().map_or("", |hold| &hold.amount);
                (&own.receipt, amount, &own.remaining, id(&own.hold))
            }
            Some(Outcome::Extended(own)) => {
                let until = own.hold.as_ref().and_then(|hold| hold.expires_at.as_ref());
                let about = format!("{} until {}", id(&own.hold), times::or_none(until));
                (&own.receipt, "", &own.remaining, about)
            }
            Some(Outcome::Captured(own)) => (&own.receipt, &own.amount, &own.remaining, id(&own.hold)),
            Some(Outcome::Released(own)) => (&own.receipt, &own.released, &own.remaining, id(&own.hold)),
            Some(Outcome::Granted(own)) => {
                let put = own.tranches.iter().map(|own| format!("{} {}", own.tranche_id, own.amount));
                (&own.receipt, "", "", put.collect::<Vec<_>>().join(", "))
            }
            Some(Outcome::Refunded(own)) => (&own.receipt, &own.amount, "", String::new()),
            Some(Outcome::Refused(refusal)) => {
                let about = refusal.message.clone();
                return Shown { outcome: Told::Refused(refusal), amount: "", remaining: "", about };
            }
            None => return Shown { outcome: Told::Nothing, amount: "", remaining: "", about: String::new() },
        };
        let replayed = receipt.as_ref().is_some_and(|receipt| receipt.replayed);
        Shown { outcome: Told::Applied { replayed }, amount, remaining, about }
    }
}
