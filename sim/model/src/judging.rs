//! Verdicts under their keys, and which wallet a command means.

use purser_ledger::amount::{AmountError, Decimal};
use purser_ledger::command::{Adjust, Change, Command, Expiry, Header, Operation};
use purser_ledger::ids::Customer;
use purser_ledger::verdict::{Denial, Reason};

use crate::{Effect, Model, Remembered, Reply, Stop, Time, Verdict};

/// Everything that makes a request the same request: all but key, deadline, retention, actor, and
/// what the leader resolved.
fn request_of(command: &Command<'_>) -> String {
    let mut operation = command.operation.clone();
    match &mut operation {
        Operation::Grant(grant) => {
            grant.tranches.iter_mut().for_each(|spec| forget_resolved(&mut spec.expiry))
        }
        Operation::ConfirmGrant(confirm) => {
            confirm.lifetime = None;
            confirm.expiry.iter_mut().for_each(forget_resolved);
        }
        Operation::Adjust(Adjust { change: Change::Up { expiry, .. }, .. }) => forget_resolved(expiry),
        _ => {}
    }
    format!("{operation:?}")
}

fn forget_resolved(expiry: &mut Expiry<'_>) {
    if let Expiry::After { resolved, .. } = expiry {
        *resolved = Time::ZERO;
    }
}

impl Model {
    pub(crate) fn recall(&self, command: &Command<'_>) -> Option<Reply> {
        let Header { customer, key, .. } = command.header;
        let stored = self.verdicts.iter().find(|stored| {
            stored.namespace == customer.namespace
                && stored.customer == customer.id
                && stored.key == key
                && self.now < stored.until
        })?;
        Some(match stored.request == request_of(command) {
            true => Reply::Verdict { replayed: true, verdict: stored.verdict.clone() },
            false => Reply::KeyReused,
        })
    }

    pub(crate) fn remember(&mut self, command: &Command<'_>, verdict: Verdict) {
        let header = command.header;
        self.verdicts.push(Remembered {
            namespace: header.customer.namespace.to_owned(),
            customer: header.customer.id.to_owned(),
            key: header.key.to_owned(),
            request: request_of(command),
            verdict,
            until: self.now.saturating_add(header.retention).max(header.valid_until),
        });
    }

    pub(crate) fn next_operation(&mut self) -> usize {
        self.operations += 1;
        self.operations - 1
    }
}

pub(crate) fn denied<T>(reason: Reason) -> Result<T, Stop> {
    Err(Stop::Denied(Denial { reason, shortage: None }))
}

pub(crate) fn amount_at(decimal: Decimal, scale: u8) -> Result<i128, Stop> {
    match decimal.to_amount(scale) {
        Ok(amount) => Ok(amount.0),
        Err(AmountError::TooPrecise) => denied(Reason::InvalidAmountPrecision),
        Err(AmountError::Overflow) => denied(Reason::AmountOverflow),
        Err(AmountError::Malformed) => panic!("a decimal that was read is not malformed"),
    }
}

impl Model {
    pub(crate) fn judge(&mut self, command: &Command<'_>) -> Result<Effect, Stop> {
        let header = &command.header;
        match &command.operation {
            Operation::CreateWallet(create) => self.create_wallet(header.customer, create),
            Operation::FreezeWallet(freeze) => self.freeze_wallet(header.customer, freeze),
            Operation::UpdateWallet(update) => self.update_wallet(header.customer, update),
            Operation::CloseWallet(close) => self.close_wallet(header.customer, close),
            Operation::Grant(grant) => self.grant(header, grant),
            Operation::ConfirmGrant(confirm) => self.confirm_grant(header, confirm),
            Operation::EndGrant(end) => self.end_grant(header, end),
            Operation::Debit(debit) => self.debit(header, debit),
            Operation::Hold(hold) => self.hold(header, hold),
            Operation::ExtendHold(extend) => self.extend_hold(header, extend),
            Operation::Capture(capture) => self.capture(header, capture),
            Operation::Release(release) => self.release(header, release),
            Operation::Refund(refund) => self.refund(header, refund),
            Operation::Adjust(adjust) => self.adjust(header, adjust),
        }
    }

    /// The places of a customer's wallets, in order of creation.
    pub(crate) fn wallets_of(&self, customer: Customer<'_>) -> Vec<usize> {
        (0..self.wallets.len()).filter(|&place| self.wallets[place].customer() == customer).collect()
    }

    /// The place of a wallet, with what is due in it booked.
    pub(crate) fn find(&mut self, customer: Customer<'_>, wallet: &str) -> Result<usize, Stop> {
        let own = self.wallets_of(customer);
        if own.is_empty() {
            return denied(Reason::CustomerNotFound);
        }
        let Some(place) = own.into_iter().find(|&place| self.wallets[place].info.wallet == wallet) else {
            return denied(Reason::WalletNotFound);
        };
        self.book_before_judging(&[place])?;
        Ok(place)
    }
    /// The same, of a wallet that is not closed.
    pub(crate) fn find_open(&mut self, customer: Customer<'_>, wallet: &str) -> Result<usize, Stop> {
        let place = self.find(customer, wallet)?;
        match self.wallets[place].info.closed {
            true => denied(Reason::WalletClosed),
            false => Ok(place),
        }
    }
}
