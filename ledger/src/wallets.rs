//! Creating, changing, freezing and closing wallets.

use crate::amount::Amount;
use crate::codec::Damage;
use crate::command::{CloseWallet, CreateWallet, FreezeWallet, Header, UpdateWallet};
use crate::ids::{OperationId, RecordId, WalletNo};
use crate::rows::customer::{WALLETS_PER_CUSTOMER_MAX, WalletEntry};
use crate::rows::journal::WalletRecord;
use crate::rows::keys;
use crate::rows::wallet::Wallet;
use crate::store::{LocalDamage, Store};
use crate::time::Time;
use crate::verdict::{Reason, WalletInfo};
use crate::workspace::{Stop, WalletAt, Workspace};

/// A wallet's life-cycle change, applied.
#[derive(Debug)]
pub struct WalletChanged {
    /// The operation.
    pub operation: OperationId,
    /// The attributes after.
    pub info: WalletInfo,
}

impl<S: Store + ?Sized> Workspace<'_, S> {
    /// Creates a wallet, and with the first one its customer.
    pub fn create_wallet_of(
        &mut self,
        header: &Header<'_>,
        create: &CreateWallet<'_>,
    ) -> Result<Result<WalletChanged, Reason>, Stop> {
        let key = keys::wallet(header.customer, create.wallet);
        let customer_key = keys::customer(header.customer);
        let mut customer = self.customer(&customer_key)?.unwrap_or_default();
        if customer.quarantined {
            return Ok(Err(Reason::CustomerQuarantined));
        }
        if self.find_wallet(&key)?.is_some() {
            return Ok(Err(Reason::AlreadyExists));
        }
        if customer.wallets.len() >= WALLETS_PER_CUSTOMER_MAX {
            return Ok(Err(Reason::LimitExceeded));
        }
        let no = WalletNo(self.meta.allocate());
        let wallet = Wallet {
            no,
            asset_code: create.asset.code.into(),
            asset_scale: create.asset.scale,
            draw_priority: create.draw_priority,
            scope: create.scope,
            burn_policy: create.burn_policy,
            frozen: false,
            closed: false,
            quarantined: false,
            version: 1,
            created_at: self.now(),
            available: Amount::ZERO,
            pending: Amount::ZERO,
            next_due_at: Time::NEVER,
            due_rows: 0,
            movements: 0,
            last_movement: RecordId::NONE,
            chain_head: [0; 32],
            window: Vec::new(),
            overflow: None,
            lapse: None,
            booked_to: None,
            held: Amount::ZERO,
            holds: crate::rows::open_holds::OpenHolds::default(),
        };
        customer.wallets.push(WalletEntry {
            no,
            wallet: create.wallet.to_owned(),
            asset_code: create.asset.code.to_owned(),
            asset_scale: create.asset.scale,
            draw_priority: create.draw_priority,
            scope: create.scope,
        });
        self.changes.put(customer_key, customer.encode());
        let at = self.create_wallet(key, wallet);
        Ok(Ok(self.record_wallet(header, at, "")?))
    }

    /// Freezes or thaws a wallet at hand.
    pub fn freeze_wallet(
        &mut self,
        header: &Header<'_>,
        freeze: &FreezeWallet<'_>,
        at: WalletAt,
    ) -> Result<WalletChanged, Stop> {
        if self.wallet(at).frozen != freeze.frozen {
            let wallet = self.wallet_mut(at);
            wallet.frozen = freeze.frozen;
            wallet.version += 1;
        }
        Ok(self.record_wallet(header, at, freeze.reason_code)?)
    }

    /// Changes attributes of a wallet at hand.
    pub fn update_wallet(
        &mut self,
        header: &Header<'_>,
        update: &UpdateWallet<'_>,
        at: WalletAt,
    ) -> Result<Result<WalletChanged, Reason>, Stop> {
        if update.version.is_some_and(|version| version != self.wallet(at).version) {
            return Ok(Err(Reason::VersionConflict));
        }
        let wallet = self.wallet(at);
        let draw_priority = update.draw_priority.unwrap_or(wallet.draw_priority);
        let scope = update.scope.unwrap_or(wallet.scope);
        if (draw_priority, scope) != (wallet.draw_priority, wallet.scope) {
            let no = wallet.no;
            let wallet = self.wallet_mut(at);
            (wallet.draw_priority, wallet.scope) = (draw_priority, scope);
            wallet.version += 1;
            let key = keys::customer(header.customer);
            let mut customer = self.customer(&key)?.ok_or(LocalDamage::Missing("a customer"))?;
            let entry = customer.wallets.iter_mut().find(|entry| entry.no == no);
            let entry = entry.ok_or(LocalDamage::Missing("a wallet of a customer"))?;
            (entry.draw_priority, entry.scope) = (draw_priority, scope);
            self.changes.put(key, customer.encode());
        }
        Ok(Ok(self.record_wallet(header, at, update.reason_code)?))
    }

    /// Closes a wallet at hand for ever.
    pub fn close_wallet(
        &mut self,
        header: &Header<'_>,
        close: &CloseWallet<'_>,
        at: WalletAt,
    ) -> Result<Result<WalletChanged, Reason>, Stop> {
        if !self.wallet(at).is_empty(self.now()) {
            return Ok(Err(Reason::WalletNotEmpty));
        }
        let wallet = self.wallet_mut(at);
        wallet.closed = true;
        wallet.version += 1;
        Ok(Ok(self.record_wallet(header, at, close.reason_code)?))
    }

    fn record_wallet(
        &mut self,
        header: &Header<'_>,
        at: WalletAt,
        reason_code: &str,
    ) -> Result<WalletChanged, Damage> {
        let info = self.wallet(at).info(self.wallet_name(at)?);
        let id = RecordId(self.meta.allocate());
        let record = WalletRecord {
            wallet_no: self.wallet(at).no,
            booked_at: self.now(),
            info,
            reason_code: reason_code.to_owned(),
            key: header.key.to_owned(),
            actor: header.actor.to_owned(),
        };
        self.changes.put(keys::record(id), record.encode());
        Ok(WalletChanged { operation: OperationId(id.0), info: record.info })
    }
}
