//! The life of a wallet: created, changed, frozen, closed.

use purser_ledger::command::Command;
use purser_proto::v1;
use tonic::Status;

use super::refusal::malformed;
use super::{Api, Full, commands, render};

impl Api {
    /// Creates a wallet.
    pub async fn create_wallet(
        &self,
        request: &v1::CreateWalletRequest,
    ) -> Result<v1::CreateWalletResponse, Status> {
        let command = commands::create_wallet(request, self.clock.now()).map_err(malformed)?;
        let (receipt, wallet) = self.about_wallet(command).await?;
        Ok(v1::CreateWalletResponse { receipt, wallet })
    }

    /// Changes a wallet's attributes.
    pub async fn update_wallet(
        &self,
        request: &v1::UpdateWalletRequest,
    ) -> Result<v1::UpdateWalletResponse, Status> {
        let command = commands::update_wallet(request, self.clock.now()).map_err(malformed)?;
        let (receipt, wallet) = self.about_wallet(command).await?;
        Ok(v1::UpdateWalletResponse { receipt, wallet })
    }

    /// Freezes or thaws a wallet.
    pub async fn freeze_wallet(
        &self,
        request: &v1::FreezeWalletRequest,
    ) -> Result<v1::FreezeWalletResponse, Status> {
        let command = commands::freeze_wallet(request, self.clock.now()).map_err(malformed)?;
        let (receipt, wallet) = self.about_wallet(command).await?;
        Ok(v1::FreezeWalletResponse { receipt, wallet })
    }

    /// Closes a wallet for ever.
    pub async fn close_wallet(
        &self,
        request: &v1::CloseWalletRequest,
    ) -> Result<v1::CloseWalletResponse, Status> {
        let command = commands::close_wallet(request, self.clock.now()).map_err(malformed)?;
        let (receipt, wallet) = self.about_wallet(command).await?;
        Ok(v1::CloseWalletResponse { receipt, wallet })
    }

    async fn about_wallet(
        &self,
        command: Command<'_>,
    ) -> Result<(Option<v1::Receipt>, Option<v1::Wallet>), Status> {
        let customer = command.header.customer.id;
        let written = self.write(command).await?;
        Ok((written.receipt(Full), Some(render::wallet(customer, written.wallet()?))))
    }
}
