//! Every answer stands in the history where its witness says, to the request that was sent; and
//! nothing stands there that nobody sent.

use std::collections::{BTreeMap, BTreeSet};

use purser_ledger::command::{Batch, Item, encode_body};
use purser_ledger::rows::journal::MovementKind;
use purser_ledger::verdict::{Answer, Applied, Effect, Reply, Verdict};
use purser_node::api::render::{self, AboutHold};
use purser_node::shard::{ShardId, Witness};
use purser_proto::v1;

use super::{Check, Counts, count, same};
use crate::call::{Request, Response};
use crate::history::Entries;
use crate::observed::{Answered, Attempt, Refused};

/// A command as it stands in the history.
struct Recorded {
    key: String,
    body: Vec<u8>,
    answer: Answer,
}

type Log = BTreeMap<(u64, u64), Recorded>;

pub(super) fn check(shard: ShardId, entries: &Entries, attempts: &[&Attempt], counts: &mut Counts) -> Check {
    let log = recorded(entries)?;
    let sent: BTreeSet<(String, Vec<u8>)> =
        attempts.iter().filter_map(|attempt| key_and_body(&attempt.request)).collect();
    let was_sent = |recorded: &Recorded| sent.contains(&(recorded.key.clone(), recorded.body.clone()));
    if let Some((at, _)) = log.iter().find(|(_, recorded)| !was_sent(recorded)) {
        return Err(format!("the command at {at:?} of shard {shard} was sent by nobody"));
    }
    let first_wallets = first_wallets(attempts);
    for attempt in attempts {
        let found = match &attempt.answer {
            Answered::Unknown(_) => {
                count(counts, "unknown");
                Ok(())
            }
            _ if !attempt.request.is_write() => read(attempt, &first_wallets, counts),
            Answered::Done(response) => done(shard, &log, attempt, response, counts),
            Answered::Refused(refused) => refused_as_recorded(shard, &log, attempt, refused, counts),
        };
        found.map_err(|what| format!("{what}\n   in {attempt:?}"))?;
    }
    Ok(())
}

fn recorded(entries: &Entries) -> Check<Log> {
    let mut log = Log::new();
    for (index, entry) in entries {
        let batch = Batch::decode(&entry.batch).map_err(|damage| format!("entry {index}: {damage}"))?;
        same(&format!("answers of entry {index}"), &batch.items.len(), &entry.answers.len())?;
        for ((item, answer), position) in batch.items.iter().zip(&entry.answers).zip(0..) {
            if let Item::Command { command, body } = item {
                let (key, body) = (command.header.key.to_owned(), body.to_vec());
                log.insert((*index, position), Recorded { key, body, answer: answer.clone() });
            }
        }
    }
    Ok(log)
}

fn key_and_body(request: &Request) -> Option<(String, Vec<u8>)> {
    let command = request.command()?;
    let mut body = Vec::new();
    encode_body(&mut body, &command);
    Some((command.header.key.to_owned(), body))
}

/// The command that an attempt's witness points to: the one that was sent.
fn witnessed<'l>(shard: ShardId, log: &'l Log, attempt: &Attempt) -> Check<(Witness, &'l Recorded)> {
    let place = attempt.witness().ok_or("an answer without a witness")?;
    same("the shard of the witness", &shard.0, &place.shard)?;
    let recorded = log.get(&(place.index, place.position));
    let recorded = recorded.ok_or_else(|| format!("{place:?} is not in the history: an answer was lost"))?;
    let there = Some((recorded.key.clone(), recorded.body.clone()));
    same("the command at the witness", &key_and_body(&attempt.request), &there)?;
    let (log_index, position) = (place.index, place.position);
    Ok((Witness { shard, log_index, position, now: recorded.answer.now }, recorded))
}

fn done(shard: ShardId, log: &Log, attempt: &Attempt, response: &Response, counts: &mut Counts) -> Check {
    let (witness, recorded) = witnessed(shard, log, attempt)?;
    let Reply::Verdict { replayed, verdict: Verdict::Applied(applied) } = &recorded.answer.reply else {
        return Err(format!("applied, but the history says {:?}", recorded.answer));
    };
    count(counts, if *replayed { "replayed" } else { "applied" });
    let receipt = Some(render::receipt(applied, &witness, *replayed));
    let expected = match (&attempt.request, response) {
        (Request::CreateWallet(request), _) => Response::CreateWallet(v1::CreateWalletResponse {
            receipt,
            wallet: wallet(&request.customer, applied),
        }),
        (Request::UpdateWallet(request), _) => Response::UpdateWallet(v1::UpdateWalletResponse {
            receipt,
            wallet: wallet(&request.customer, applied),
        }),
        (Request::CloseWallet(request), _) => Response::CloseWallet(v1::CloseWalletResponse {
            receipt,
            wallet: wallet(&request.customer, applied),
        }),
        (Request::FreezeWallet(request), _) => Response::FreezeWallet(v1::FreezeWalletResponse {
            receipt,
            wallet: wallet(&request.customer, applied),
        }),
        (Request::Grant(request), Response::Grant(given)) => {
            let asked: Vec<&str> = request.tranches.iter().map(|spec| spec.amount.as_str()).collect();
            let granted: Vec<&str> = given.tranches.iter().map(|own| own.amount.as_str()).collect();
            same("amounts granted", &asked, &granted)?;
            Response::Grant(v1::GrantResponse { receipt, tranches: given.tranches.clone() })
        }
        (Request::ConfirmGrant(request), Response::ConfirmGrant(given)) => {
            let told = given.tranche.as_ref().map(|own| own.tranche_id.as_str());
            same("the tranche confirmed", &Some(request.tranche_id.as_str()), &told)?;
            Response::ConfirmGrant(v1::ConfirmGrantResponse { receipt, tranche: given.tranche.clone() })
        }
        (Request::FailGrant(_), _) => {
            let amount = sum(applied, MovementKind::Voided)?;
            Response::FailGrant(v1::FailGrantResponse { receipt, amount })
        }
        (Request::VoidGrant(_), _) => {
            let amount = sum(applied, MovementKind::Voided)?;
            Response::VoidGrant(v1::VoidGrantResponse { receipt, amount })
        }
        (Request::Refund(_), _) => Response::Refund(v1::RefundResponse {
            receipt,
            amount: sum(applied, MovementKind::Refunded)?,
            forfeited: sum(applied, MovementKind::Expired)?,
            voided: sum(applied, MovementKind::Voided)?,
        }),
        (Request::Adjust(_), _) => {
            let amount = render::effect_of(&applied.effect).ok_or("a correction of no wallet")?;
            Response::Adjust(v1::AdjustResponse { receipt, amount })
        }
        (Request::Debit(_), _) => {
            let (amount, remaining, asset) = render::debited(&applied.effect);
            Response::Debit(v1::DebitResponse { receipt, amount, remaining, asset })
        }
        (Request::Hold(_), _) => {
            let AboutHold { hold, remaining, .. } = about_hold(applied)?;
            Response::Hold(v1::HoldResponse { receipt, hold, remaining })
        }
        (Request::ExtendHold(_), _) => {
            let AboutHold { hold, remaining, .. } = about_hold(applied)?;
            Response::ExtendHold(v1::ExtendHoldResponse { receipt, hold, remaining })
        }
        (Request::Capture(_), _) => {
            let AboutHold { hold, remaining, spent: amount, released } = about_hold(applied)?;
            Response::Capture(v1::CaptureResponse { receipt, hold, remaining, amount, released })
        }
        (Request::Release(_), _) => {
            let AboutHold { hold, remaining, released, .. } = about_hold(applied)?;
            Response::Release(v1::ReleaseResponse { receipt, hold, remaining, released })
        }
        (request, response) => return Err(format!("{response:?} in answer to {request:?}")),
    };
    same("the answer", &expected, response)
}

fn about_hold(applied: &Applied) -> Check<AboutHold> {
    render::about_hold(&applied.effect).ok_or_else(|| "an answer without a hold".to_owned())
}

fn sum(applied: &Applied, kind: MovementKind) -> Check<String> {
    render::sum_of(&applied.effect, &[kind]).ok_or_else(|| "an answer without a wallet".to_owned())
}

fn wallet(customer: &str, applied: &Applied) -> Option<v1::Wallet> {
    match &applied.effect {
        Effect::Wallet(info) => Some(render::wallet(customer, info)),
        Effect::Posted { .. } => None,
    }
}

fn refused_as_recorded(
    shard: ShardId,
    log: &Log,
    attempt: &Attempt,
    refused: &Refused,
    counts: &mut Counts,
) -> Check {
    count(counts, &refused.reason);
    let not_a_verdict = match refused.reason.as_str() {
        "IDEMPOTENCY_KEY_REUSED" => Some(Reply::KeyReused),
        "KEY_TOO_OLD" => Some(Reply::KeyTooOld),
        _ => None,
    };
    if refused.reason == "INVALID_ARGUMENT"
        && attempt.witness().is_none()
        && attempt.request.valid_until().is_some()
    {
        // By the clock of a node that is far behind, the deadline lies too far ahead.
        return Ok(());
    }
    if let Some(reply) = not_a_verdict {
        let sent = key_and_body(&attempt.request).ok_or("a read is refused like a write")?;
        let is_it = |recorded: &Recorded| {
            (&recorded.key, &recorded.body) == (&sent.0, &sent.1) && recorded.answer.reply == reply
        };
        return match log.values().any(is_it) {
            true => Ok(()),
            false => Err(format!("refused with {reply:?}, which the history does not know")),
        };
    }
    let (_, recorded) = witnessed(shard, log, attempt)?;
    let Reply::Verdict { replayed, verdict: Verdict::Denied(denial) } = &recorded.answer.reply else {
        return Err(format!("refused, but the history says {:?}", recorded.answer));
    };
    same("the reason", &denial.reason.name(), &refused.reason.as_str())?;
    let told = |name: &str| refused.metadata.get(name).cloned();
    same("replayed", &Some(replayed.to_string()), &told("replayed"))?;
    let shortage =
        denial.shortage.map(|own| [own.available, own.required].map(|amount| amount.to_text(own.scale)));
    let given = told("available").zip(told("required")).map(|(available, required)| [available, required]);
    same("what is there, and what was asked", &shortage, &given)
}

/// When a customer's first wallet was known to be there.
fn first_wallets<'a>(attempts: &[&'a Attempt]) -> BTreeMap<&'a str, std::time::Duration> {
    let mut first = BTreeMap::new();
    for attempt in attempts {
        if let (Request::CreateWallet(request), Answered::Done(_)) = (&attempt.request, &attempt.answer) {
            let known = first.entry(request.customer.as_str()).or_insert(attempt.ended);
            *known = attempt.ended.min(*known);
        }
    }
    first
}

/// A read names its point, or says that the customer has no wallet while nobody knows of one.
fn read(
    attempt: &Attempt,
    first_wallets: &BTreeMap<&str, std::time::Duration>,
    counts: &mut Counts,
) -> Check {
    count(counts, "read");
    match &attempt.answer {
        Answered::Refused(refused) if refused.reason == "CUSTOMER_NOT_FOUND" => {
            match first_wallets.get(attempt.request.customer().id).is_some_and(|known| *known < attempt.begun)
            {
                true => Err("a read does not see a wallet that was created before".to_owned()),
                false => Ok(()),
            }
        }
        Answered::Refused(refused) => Err(format!("a read was refused: {refused:?}")),
        _ => attempt.read_point().map(|_| ()).ok_or_else(|| "a read without a point".to_owned()),
    }
}
