//! The life of wallets.

use purser_ledger::amount::Amount;
use purser_ledger::command::{CloseWallet, CreateWallet, FreezeWallet, UpdateWallet};
use purser_ledger::ids::Customer;
use purser_ledger::verdict::{Reason, WalletInfo};

use crate::judging::denied;
use crate::{Effect, Model, Stop, WALLETS_MAX, Wallet};

impl Model {
    pub(crate) fn create_wallet(
        &mut self,
        customer: Customer<'_>,
        create: &CreateWallet<'_>,
    ) -> Result<Effect, Stop> {
        let own = self.wallets_of(customer);
        if own.iter().any(|&place| self.wallets[place].info.wallet == create.wallet) {
            return denied(Reason::AlreadyExists);
        }
        if own.len() >= WALLETS_MAX {
            return denied(Reason::LimitExceeded);
        }
        let info = WalletInfo {
            wallet: create.wallet.to_owned(),
            asset_code: create.asset.code.to_owned(),
            asset_scale: create.asset.scale,
            draw_priority: create.draw_priority,
            scope: create.scope,
            burn_policy: create.burn_policy,
            frozen: false,
            closed: false,
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

    pub(crate) fn freeze_wallet(
        &mut self,
        customer: Customer<'_>,
        freeze: &FreezeWallet<'_>,
    ) -> Result<Effect, Stop> {
        let place = self.find_open(customer, freeze.wallet)?;
        let info = &mut self.wallets[place].info;
        if info.frozen != freeze.frozen {
            info.frozen = freeze.frozen;
            info.version += 1;
        }
        Ok(Effect::Wallet(info.clone()))
    }
    pub(crate) fn update_wallet(
        &mut self,
        customer: Customer<'_>,
        update: &UpdateWallet<'_>,
    ) -> Result<Effect, Stop> {
        let place = self.find_open(customer, update.wallet)?;
        let info = &mut self.wallets[place].info;
        if update.version.is_some_and(|version| version != info.version) {
            return denied(Reason::VersionConflict);
        }
        let before = info.clone();
        info.draw_priority = update.draw_priority.unwrap_or(info.draw_priority);
        info.scope = update.scope.unwrap_or(info.scope);
        if *info != before {
            info.version += 1;
        }
        Ok(Effect::Wallet(info.clone()))
    }

    pub(crate) fn close_wallet(
        &mut self,
        customer: Customer<'_>,
        close: &CloseWallet<'_>,
    ) -> Result<Effect, Stop> {
        let place = self.find_open(customer, close.wallet)?;
        let balance = self.wallets[place].balance(self.now);
        let nothing_there =
            [balance.available, balance.held, balance.pending, balance.debt] == [Amount::ZERO; 4];
        if !nothing_there || !self.open_holds_in(place, self.now).is_empty() {
            return denied(Reason::WalletNotEmpty);
        }
        let info = &mut self.wallets[place].info;
        info.closed = true;
        info.version += 1;
        Ok(Effect::Wallet(info.clone()))
    }
}
