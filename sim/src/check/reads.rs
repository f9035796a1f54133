//! What was read, held against the model as it is at one moment of its history.

use purser_ledger::amount::{Amount, Asset};
use purser_ledger::command::{Command, Debit, Header, Operation};
use purser_ledger::ids::{Customer, HoldId, RecordId, TrancheId};
use purser_ledger::time::{Span, Time};
use purser_model::{Effect, Hold, Reply, Tranche, Verdict, Wallet};
use purser_node::api::{commands, render};
use purser_proto::v1;

use super::finals;
use super::replay::Replay;
use super::{Check, same};
use crate::call::{Request, Response};
use crate::observed::time;

/// Holds an answer to a read against the model as it is now, with all that is due by the time of the
/// read counted as booked.
pub(super) fn differs(replay: &Replay, request: &Request, response: &Response) -> Check {
    let point = response.point().and_then(|point| point.ledger_time.as_ref());
    let now = point.and_then(time).ok_or("a read without a time")?;
    let read = Read { replay, customer: request.customer(), now };
    match (request, response) {
        (Request::GetBalance(_), Response::GetBalance(given)) => read.balances(given),
        (Request::GetWallet(request), Response::GetWallet(given)) => {
            let wallet = read.wallet(&request.wallet)?.1;
            same("wallet", &Some(render::wallet(&request.customer, &wallet.info)), &given.wallet)
        }
        (Request::ListWallets(request), Response::ListWallets(given)) => {
            let own = read.wallets().map(|(_, own)| render::wallet(&request.customer, &own.info));
            same("wallets", &own.collect(), &given.wallets)
        }
        (Request::ListTranches(request), Response::ListTranches(given)) => {
            read.tranches(&request.wallet, &given.tranches)
        }
        (Request::GetHold(_), Response::GetHold(given)) => read.hold(given.hold.as_ref()),
        (Request::ListHolds(request), Response::ListHolds(given)) => {
            read.holds(&request.wallet, &given.holds)
        }
        (Request::GetMovement(_), Response::GetMovement(given)) => read.movement(given.movement.as_ref()),
        (Request::Explain(request), Response::Explain(given)) => {
            let (customer, debit) = commands::explain(request).map_err(|_| "a malformed dry run")?;
            read.explained(customer, debit, given)
        }
        _ => Ok(()),
    }
}

struct Read<'a> {
    replay: &'a Replay,
    customer: Customer<'a>,
    now: Time,
}

impl<'a> Read<'a> {
    /// The customer's wallets, with their places in the model.
    fn wallets(&self) -> impl Iterator<Item = (usize, &'a Wallet)> {
        let customer = self.customer;
        let all = self.replay.model.wallets().iter().enumerate();
        all.filter(move |(_, own)| own.customer() == customer)
    }

    fn wallet(&self, id: &str) -> Result<(usize, &'a Wallet), String> {
        let mut own = self.wallets().filter(|(_, own)| own.info.wallet == id);
        own.next().ok_or_else(|| format!("the model has no wallet {id}"))
    }

    fn balances(&self, given: &v1::GetBalanceResponse) -> Check {
        let expected: Vec<_> = self
            .wallets()
            .map(|(_, wallet)| {
                let balance = self.replay.model.balance_when_all_is_booked(wallet, self.now);
                let text = |amount: Amount| amount.to_text(wallet.info.asset_scale);
                let figures = [balance.settled(), balance.available, balance.pending, balance.held].map(text);
                let (id, info) = (wallet.info.wallet.clone(), &wallet.info);
                (id, info.frozen, info.closed, figures)
            })
            .collect();
        let given: Vec<_> = given
            .wallets
            .iter()
            .map(|own| {
                let figures = own.balance.clone().unwrap_or_default();
                let amounts = [figures.settled, figures.available, figures.pending, figures.held];
                (figures.wallet, own.frozen, own.closed, amounts)
            })
            .collect();
        same("balances", &expected, &given)
    }

    fn tranches(&self, wallet: &str, given: &[v1::Tranche]) -> Check {
        let wallet = self.wallet(wallet)?.1;
        let tranches = self.replay.model.tranches_when_all_is_booked(wallet, self.now);
        let expected: Vec<_> = tranches.iter().map(|own| tranche_of(wallet, own)).collect();
        let given: Result<Vec<_>, String> = given.iter().map(|own| self.tranche_shown(own)).collect();
        same("tranches", &expected, &given?)
    }

    fn tranche_shown(&self, own: &v1::Tranche) -> Result<TrancheShown, String> {
        let id = TrancheId::parse(&own.tranche_id).ok_or("a tranche id that does not read")?;
        let figures = [&own.available, &own.held, &own.consumed, &own.expired, &own.voided];
        Ok(TrancheShown {
            no: self.replay.names.tranches.number(id),
            status: own.status,
            figures: figures.map(String::clone),
            expires_at: own.expires_at.as_ref().and_then(time),
        })
    }

    fn hold(&self, given: Option<&v1::Hold>) -> Check {
        let given = given.ok_or("an answer without a hold")?;
        let number = self.number_of(given)?;
        let hold = self.replay.model.holds().iter().find(|own| Some(own.no) == number);
        self.same_hold(hold.ok_or("the model has no such hold")?, given)
    }

    fn holds(&self, wallet: &str, given: &[v1::Hold]) -> Check {
        let expected = self.replay.model.holds_in(self.wallet(wallet)?.0);
        let numbers: Result<Vec<_>, String> = given.iter().map(|own| self.number_of(own)).collect();
        same("holds", &expected.iter().map(|own| Some(own.no)).collect(), &numbers?)?;
        expected.iter().zip(given).try_for_each(|(hold, given)| self.same_hold(hold, given))
    }

    fn number_of(&self, given: &v1::Hold) -> Result<Option<usize>, String> {
        let id = given.state.as_ref().and_then(|state| HoldId::parse(&state.hold_id));
        Ok(self.replay.names.holds.number(id.ok_or("a hold id that does not read")?))
    }

    fn same_hold(&self, hold: &Hold, given: &v1::Hold) -> Check {
        let given = given.state.as_ref().ok_or("a hold without a state")?;
        let id = HoldId::parse(&given.hold_id).ok_or("a hold id that does not read")?;
        let place = hold.parts.first().ok_or("a hold that pins nothing")?.wallet;
        let info = &self.replay.model.wallets()[place].info;
        let asset = Asset { code: &info.asset_code, scale: info.asset_scale };
        same("hold", &render::hold_state(id, &hold.state_at(self.now), asset), given)
    }

    fn movement(&self, given: Option<&v1::Movement>) -> Check {
        let given = given.ok_or("an answer without a movement")?;
        let id = RecordId::parse(&given.movement_id).ok_or("a movement id that does not read")?;
        let (place, number) = self.replay.names.movements.number(id).ok_or("an unknown movement")?;
        let expected = &self.replay.model.wallets()[place].movements[number as usize - 1];
        // On a copy: what is learned of names here was learned before, or is wrong.
        finals::movement(&mut self.replay.clone(), place, expected, given)
    }

    fn explained(&self, customer: Customer<'_>, debit: Debit<'_>, given: &v1::ExplainResponse) -> Check {
        // No caller has this key.
        let header =
            Header { customer, key: "dry run", valid_until: Time::NEVER, retention: Span(0), actor: "" };
        let mut model = self.replay.model.clone();
        model.begin_batch(self.now);
        let reply = model.command(&Command { header, operation: Operation::Debit(debit) });
        let Reply::Verdict { verdict, .. } = reply else {
            return Err(format!("the model says {reply:?} to a dry run"));
        };
        let refused = given.refusal.as_ref().map(|refusal| refusal.reason.as_str());
        let (movements, balances, remaining) = match verdict {
            Verdict::Denied(denial) => return same("refusal", &Some(denial.reason.name()), &refused),
            Verdict::Applied { effect: Effect::Posted { movements, balances, remaining, .. }, .. } => {
                (movements, balances, remaining)
            }
            Verdict::Applied { effect: Effect::Wallet(_), .. } => return Err("a debit made a wallet".into()),
        };
        same("refusal", &None, &refused)?;
        let scale = balances.first().map_or(0, |own| own.asset_scale);
        let text = |amount: Amount| amount.to_text(scale);
        same("remaining", &remaining.map(text).unwrap_or_default(), &given.remaining)?;
        let draws = movements.iter().flat_map(|own| {
            let wallet = &balances[own.balance].wallet;
            own.draws
                .iter()
                .map(move |draw| (wallet.clone(), draw.tranche, text(draw.amount), text(draw.left)))
        });
        let number = |draw: &v1::Draw| {
            TrancheId::parse(&draw.tranche_id).map(|id| self.replay.names.tranches.number(id))
        };
        let shown = given.draws.iter().map(|draw| {
            let no = number(draw).flatten().unwrap_or(usize::MAX);
            (draw.wallet.clone(), no, draw.amount.clone(), draw.left.clone())
        });
        same("draws", &draws.collect::<Vec<_>>(), &shown.collect())?;
        let after = balances.iter().map(|own| (own.wallet.clone(), text(own.balance.available)));
        let shown = given.balances.iter().map(|own| (own.wallet.clone(), own.available.clone()));
        same("balances", &after.collect::<Vec<_>>(), &shown.collect())
    }
}

/// What a list shows of a tranche.
#[derive(Debug, PartialEq)]
struct TrancheShown {
    no: Option<usize>,
    status: i32,
    figures: [String; 5],
    expires_at: Option<Time>,
}

fn tranche_of(wallet: &Wallet, own: &Tranche) -> TrancheShown {
    let figures = [own.available, own.held, own.consumed, own.expired, own.voided];
    TrancheShown {
        no: Some(own.no),
        status: render::tranche_status(own.status()).into(),
        figures: figures.map(|figure| Amount(figure).to_text(wallet.info.asset_scale)),
        expires_at: Some(own.expires_at).filter(|end| *end != Time::NEVER),
    }
}
