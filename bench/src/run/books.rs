//! What each wallet must hold: the sum of what was granted less the sum of what was debited, kept
//! apart from the servers and compared with them at the end.

use std::ops::AddAssign;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use futures_util::{StreamExt, TryStreamExt, stream};
use indicatif::ProgressBar;
use serde::Serialize;

use super::target::{Debit, Target};
use crate::workload::refill_credits;

/// Calls under way while wallets are filled, refilled or audited.
pub const CALLS_UNDER_WAY: usize = 128;
/// Wallets that differ and are named in the error.
const SHOWN_MAX: usize = 5;

/// One wallet a customer.
pub struct Books {
    accounts: Vec<Account>,
    filled: AtomicU64,
    /// Credits of each of the four tranches of a grant.
    tranche_credits: u64,
    /// Begins every name and key of these books.
    run: u32,
    next_key: AtomicU64,
}

#[derive(Default)]
struct Account {
    granted: AtomicU64,
    debited: AtomicU64,
    refilling: AtomicBool,
}

/// What the final audit found: figures in credits, over all wallets.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Audit {
    /// Wallets compared.
    pub wallets: u64,
    /// What was granted.
    pub granted: u64,
    /// The sum of the debits that were applied.
    pub debited: u64,
    /// What the servers say is available.
    pub available: u64,
}

impl AddAssign for Audit {
    fn add_assign(&mut self, more: Audit) {
        let Audit { wallets, granted, debited, available } = more;
        self.wallets += wallets;
        self.granted += granted;
        self.debited += debited;
        self.available += available;
    }
}

impl Books {
    /// Books of up to so many wallets, which get four tranches of so many credits at a time. `run` keeps
    /// books on one cluster apart.
    pub fn new(wallets: u64, tranche_credits: u64, run: u32) -> Books {
        let accounts = (0..wallets).map(|_| Account::default()).collect();
        Books { accounts, filled: AtomicU64::new(0), tranche_credits, run, next_key: AtomicU64::new(0) }
    }

    /// How many wallets are filled.
    pub fn wallets(&self) -> u64 {
        self.filled.load(Ordering::Acquire)
    }

    /// Whose wallet it is.
    pub fn customer(&self, wallet: u64) -> String {
        format!("bench-{:08x}-{wallet:07}", self.run)
    }

    /// A key that was not used before: 36 bytes, as long as a UUID.
    pub fn fresh_key(&self) -> String {
        let number = self.next_key.fetch_add(1, Ordering::Relaxed);
        format!("{:08x}-{number:027}", self.run)
    }

    /// A debit under a fresh key.
    pub fn debit(&self, wallet: u64, amount: u64) -> Debit {
        Debit { customer: self.customer(wallet), key: self.fresh_key(), amount }
    }

    /// Notes that a debit was applied.
    pub fn debited(&self, wallet: u64, amount: u64) {
        self.accounts[wallet as usize].debited.fetch_add(amount, Ordering::Relaxed);
    }

    /// Notes that credits were granted.
    pub fn granted(&self, wallet: u64, credits: u64) {
        self.accounts[wallet as usize].granted.fetch_add(credits, Ordering::Relaxed);
    }

    /// Creates all wallets, with four tranches each.
    pub async fn fill<T: Target>(&self, target: &T, bar: &ProgressBar) -> anyhow::Result<()> {
        self.fill_up_to(self.accounts.len() as u64, target, bar).await
    }

    /// Creates wallets until there are so many, with four tranches each.
    pub async fn fill_up_to<T: Target>(
        &self,
        wallets: u64,
        target: &T,
        bar: &ProgressBar,
    ) -> anyhow::Result<()> {
        let fill = |wallet: u64| async move {
            let target = target.client(wallet as usize);
            target.create(&self.customer(wallet), self.fresh_key()).await?;
            self.grant(&target, wallet).await?;
            bar.inc(1);
            anyhow::Ok(())
        };
        let missing = stream::iter(self.wallets()..wallets);
        missing.map(fill).buffer_unordered(CALLS_UNDER_WAY).try_collect::<()>().await?;
        self.filled.store(wallets, Ordering::Release);
        Ok(())
    }

    /// Refills wallets that were too short. One that is being refilled for another client is left to
    /// it. How many this call has refilled.
    pub async fn refill<T: Target>(&self, target: &T, mut wallets: Vec<u64>) -> anyhow::Result<u64> {
        wallets.retain(|wallet| !self.accounts[*wallet as usize].refilling.swap(true, Ordering::AcqRel));
        let refill = |wallet: u64| async move {
            let granted = self.grant(target, wallet).await;
            self.accounts[wallet as usize].refilling.store(false, Ordering::Release);
            granted
        };
        let count = wallets.len() as u64;
        let refills = stream::iter(wallets).map(refill).buffer_unordered(CALLS_UNDER_WAY);
        refills.try_collect::<()>().await?;
        Ok(count)
    }

    async fn grant<T: Target>(&self, target: &T, wallet: u64) -> anyhow::Result<()> {
        target.grant(&self.customer(wallet), self.fresh_key(), self.tranche_credits).await?;
        self.granted(wallet, refill_credits(self.tranche_credits));
        Ok(())
    }

    /// Asks for every balance and compares. An error if one differs.
    pub async fn audit<T: Target>(&self, target: &T, bar: &ProgressBar) -> anyhow::Result<Audit> {
        let ask = |wallet: u64| async move {
            let available = target.client(wallet as usize).available(&self.customer(wallet)).await?;
            bar.inc(1);
            anyhow::Ok((wallet, available))
        };
        let answers = stream::iter(0..self.wallets()).map(ask).buffer_unordered(CALLS_UNDER_WAY);
        let available: Vec<_> = answers.try_collect().await?;
        self.compare(available)
    }

    /// Compares wallets and what is available in them.
    fn compare(&self, available: Vec<(u64, u64)>) -> anyhow::Result<Audit> {
        let mut audit = Audit::default();
        let mut differ = Vec::new();
        for (wallet, available) in available {
            let account = &self.accounts[wallet as usize];
            let granted = account.granted.load(Ordering::Relaxed);
            let debited = account.debited.load(Ordering::Relaxed);
            if available.checked_add(debited) != Some(granted) {
                let customer = self.customer(wallet);
                differ.push(format!("{customer}: granted {granted}, debited {debited}, left {available}"));
            }
            audit += Audit { wallets: 1, granted, debited, available };
        }
        let shown = &differ[..differ.len().min(SHOWN_MAX)];
        anyhow::ensure!(differ.is_empty(), "{} wallets do not add up:\n{}", differ.len(), shown.join("\n"));
        Ok(audit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_credit_too_few_or_too_many_is_found_and_the_wallet_named() {
        let books = Books::new(2, 1_000, 7);
        books.granted(0, 8_000);
        books.granted(1, 8_000);
        books.debited(0, 390);
        books.debited(0, 10);
        books.debited(1, 8_000);

        let audit = books.compare(vec![(0, 7_600), (1, 0)]).expect("they add up");
        assert_eq!(audit, Audit { wallets: 2, granted: 16_000, debited: 8_400, available: 7_600 });
        for wrong in [7_599, 7_601] {
            let error = books.compare(vec![(0, wrong), (1, 0)]).expect_err("they do not add up");
            let told = error.to_string();
            assert!(told.contains("1 wallets do not add up"), "{told}");
            assert!(told.contains("bench-00000007-0000000: granted 8000, debited 400"), "{told}");
        }
    }
}
