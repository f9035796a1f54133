//! A cache of decoded wallets between batches. It is never a second truth: it holds exactly what the
//! last applied batch left in the rows, and a replica that fails to commit a batch stops, cache and
//! all. What is in it changes nothing but speed.
//!
//! Wallets are moved between the cache and each batch: so they are boxed.
//!
//! Two generations bound it: when the young one is full it becomes the old one, and what was in the
//! old one and not asked for since is gone.

use std::collections::HashMap;

use xxhash_rust::xxh3::Xxh3Builder;

use crate::rows::keys::Key;
use crate::rows::wallet::Wallet;

/// Decoded wallets by `W` key.
#[derive(Debug)]
pub struct WalletCache {
    young: HashMap<Key, Box<Wallet>, Xxh3Builder>,
    old: HashMap<Key, Box<Wallet>, Xxh3Builder>,
    generation_wallets_max: usize,
}

impl WalletCache {
    /// A cache of at most `wallets_max` wallets, at about a kilobyte each.
    pub fn new(wallets_max: usize) -> WalletCache {
        WalletCache {
            young: HashMap::default(),
            old: HashMap::default(),
            generation_wallets_max: wallets_max / 2,
        }
    }

    /// Takes a wallet out, to work on it.
    pub(crate) fn take(&mut self, key: &[u8]) -> Option<(Key, Box<Wallet>)> {
        self.young.remove_entry(key).or_else(|| self.old.remove_entry(key))
    }

    /// Puts a wallet in as it is committed.
    pub(crate) fn put(&mut self, key: Key, wallet: Box<Wallet>) {
        if self.young.len() >= self.generation_wallets_max {
            self.old = std::mem::take(&mut self.young);
        }
        if self.generation_wallets_max > 0 {
            self.young.insert(key, wallet);
        }
    }
}
