//! What the client library told its gateways holds: what it calls applied was answered so, and what
//! it calls denied stands nowhere.

use std::collections::{BTreeMap, BTreeSet};

use purser_ledger::command::{Batch, Item, encode_body};
use purser_ledger::verdict::{Reply, Verdict as Judged};

use super::{Check, Counts, Evidence, count};
use crate::call::Request;
use crate::observed::{Answered, Verdict};

type Write = (String, Vec<u8>);

pub(super) fn check(evidence: &Evidence, counts: &mut Counts) -> Check {
    let applied = applied(evidence)?;
    // None: it was applied, as far as anybody knows. In the end nothing is unknown any more.
    let mut denied: BTreeMap<Write, Option<String>> = BTreeMap::new();
    for told in &evidence.told {
        let Some(write) = write(&told.request) else { continue };
        match &told.verdict {
            Verdict::Applied(response) => {
                count(counts, "gateway: applied");
                denied.insert(write, None);
                let is_it = |attempt: &crate::observed::Attempt| {
                    attempt.client == told.client
                        && matches!(&attempt.answer, Answered::Done(answer) if answer == response)
                };
                if !evidence.attempts.iter().any(is_it) {
                    return Err(format!("the client says applied, and no node did: {told:?}"));
                }
            }
            Verdict::Denied(why) => {
                count(counts, "gateway: denied");
                denied.entry(write).or_insert_with(|| Some(why.clone()));
            }
            Verdict::Unknown => {
                // It is resolved later, and told again.
                count(counts, "gateway: unknown");
            }
        }
    }
    let broken = denied.iter().find(|(write, why)| why.is_some() && applied.contains(*write));
    match broken {
        None => Ok(()),
        Some(((key, _), why)) => {
            Err(format!("the client says that {key} was denied ({why:?}); it was applied"))
        }
    }
}

fn write(request: &Request) -> Option<Write> {
    let command = request.command()?;
    let mut body = Vec::new();
    encode_body(&mut body, &command);
    Some((command.header.key.to_owned(), body))
}

/// All writes that were applied.
fn applied(evidence: &Evidence) -> Check<BTreeSet<Write>> {
    let mut applied = BTreeSet::new();
    for (index, entry) in evidence.history.values().flatten() {
        let batch = Batch::decode(&entry.batch).map_err(|damage| format!("entry {index}: {damage}"))?;
        for (item, answer) in batch.items.iter().zip(&entry.answers) {
            if let (Item::Command { command, body }, Reply::Verdict { verdict: Judged::Applied(_), .. }) =
                (item, &answer.reply)
            {
                applied.insert((command.header.key.to_owned(), body.to_vec()));
            }
        }
    }
    Ok(applied)
}
