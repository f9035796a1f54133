//! What callers have asked for and heard of: the ids that later requests name.

use std::collections::BTreeMap;

use purser_proto::v1;

use crate::call::Response;
use crate::observed::{Answered, Attempt};

/// How many of the latest ids of a customer callers reach for, so that they meet.
const AT_HAND: usize = 6;

/// What is known of one customer.
#[derive(Clone, Debug, Default)]
pub struct Heard {
    /// Tranches that were asked for, by wallet.
    pub tranches_asked: BTreeMap<String, u64>,
    /// Holds that were asked for.
    pub holds_asked: usize,
    /// Holds.
    pub holds: Vec<String>,
    /// Tranches, with their wallets.
    pub tranches: Vec<(String, String)>,
    /// Of these, those that waited for their invoices when they were granted.
    pub pending: Vec<(String, String)>,
    /// Movements of all types.
    pub movements: Vec<String>,
    /// Movements of debits and captures.
    pub spent: Vec<String>,
    /// Versions of wallets.
    pub versions: Vec<(String, u64)>,
}

impl Heard {
    /// Keeps what an answer names.
    pub fn hear(&mut self, attempt: &Attempt) {
        let Answered::Done(response) = &attempt.answer else { return };
        match &**response {
            Response::Hold(v1::HoldResponse { hold: Some(hold), .. }) => {
                keep(&mut self.holds, hold.hold_id.clone());
            }
            Response::Grant(done) => {
                for own in &done.tranches {
                    let known = (own.wallet.clone(), own.tranche_id.clone());
                    if own.status() == v1::TrancheStatus::Pending {
                        keep(&mut self.pending, known.clone());
                    }
                    keep(&mut self.tranches, known);
                }
            }
            Response::CreateWallet(v1::CreateWalletResponse { wallet: Some(wallet), .. })
            | Response::UpdateWallet(v1::UpdateWalletResponse { wallet: Some(wallet), .. }) => {
                keep(&mut self.versions, (wallet.wallet.clone(), wallet.version));
            }
            _ => {}
        }
        let ids = response.receipt().map(|receipt| receipt.movement_ids.as_slice()).unwrap_or_default();
        for id in ids {
            keep(&mut self.movements, id.clone());
            if matches!(&**response, Response::Debit(_) | Response::Capture(_)) {
                keep(&mut self.spent, id.clone());
            }
        }
    }
}

fn keep<T: PartialEq>(known: &mut Vec<T>, one: T) {
    if !known.contains(&one) {
        known.push(one);
    }
}

/// The latest of what is known.
pub fn at_hand<T>(known: &[T]) -> &[T] {
    &known[known.len().saturating_sub(AT_HAND)..]
}
