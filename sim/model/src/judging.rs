//! Verdicts under their keys, and the life of wallets.

use purser_ledger::amount::{AmountError, Decimal};
use purser_ledger::command::{Command, CreateWallet, Expiry, FreezeWallet, Header, Operation};
use purser_ledger::ids::Customer;
use purser_ledger::verdict::{Denial, Reason, WalletInfo};

use crate::{Effect, Model, Remembered, Reply, Stop, Time, Verdict, WALLETS_MAX, Wallet};

/// Everything that makes a request the same request: all but key, deadline, retention, actor, and
/// what the leader resolved.
fn request_of(command: &Command<'_>) -> String {
    let mut operation = command.operation.clone();
    if let Operation::Grant(grant) = &mut operation {
        for spec in &mut grant.tranches {
            if let Expiry::After { resolved, .. } = &mut spec.expiry {
                *resolved = Time::ZERO;
            }
        }
    }
    format!("{operation:?}")
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
            Operation::UpdateWallet(_) | Operation::CloseWallet(_) | Operation::EndGrant(_) | Operation::ConfirmGrant(_) | Operation::Refund(_) | Operation::Adjust(_) => unimplemented!(),
            Operation::CreateWallet(create) => self.create_wallet(header.customer, create),
            Operation::FreezeWallet(freeze) => self.freeze_wallet(header.customer, freeze),
            Operation::Grant(grant) => self.grant(header, grant),
            Operation::Debit(debit) => self.debit(header, debit),
            Operation::Hold(hold) => self.hold(header, hold),
            Operation::ExtendHold(extend) => self.extend_hold(header, extend),
            Operation::Capture(capture) => self.capture(header, capture),
            Operation::Release(release) => self.release(header, release),
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

    fn create_wallet(&mut self, customer: Customer<'_>, create: &CreateWallet<'_>) -> Result<Effect, Stop> {
        let own = self.wallets_of(customer);
        if own.iter().any(|&place| self.wallets[place].info.wallet == create.wallet) {
            return denied(Reason::AlreadyExists);
        }
        if own.len() >= WALLETS_MAX {
            return denied(Reason::LimitExceeded);
        }
        let info = WalletInfo {
            closed: false,
            wallet: create.wallet.to_owned(),
            asset_code: create.asset.code.to_owned(),
            asset_scale: create.asset.scale,
            draw_priority: create.draw_priority,
            scope: create.scope,
            burn_policy: create.burn_policy,
            frozen: false,
            version: 1,
            created_at: self.now,
        };
        self.wallets.push(Wallet {
            namespace: customer.namespace.to_owned(),
            customer: customer.id.to_owned(),
            info: info.clone(),
            tranches: Vec::new(),
            movements: Vec::new(),
        });
        Ok(Effect::Wallet(info))
    }

    fn freeze_wallet(&mut self, customer: Customer<'_>, freeze: &FreezeWallet<'_>) -> Result<Effect, Stop> {
        let place = self.find(customer, freeze.wallet)?;
        let info = &mut self.wallets[place].info;
        if info.frozen != freeze.frozen {
            info.frozen = freeze.frozen;
            info.version += 1;
        }
        Ok(Effect::Wallet(info.clone()))
    }
}
