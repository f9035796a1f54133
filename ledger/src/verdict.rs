//! What a command is answered.
//!
//! A [`Verdict`] is final: it is stored under the command's key in the same atomic step as its
//! effect, and a replay gives it again. The other [`Reply`] variants are not verdicts: nothing is
//! stored, and the same key may be tried again.

use std::sync::Arc;

use crate::amount::Amount;
use crate::command::{BurnPolicy, ChargeScope, TrancheKind};
use crate::ids::{HoldId, OperationId, RecordId, TrancheId};
use crate::rows::hold::HoldState;
use crate::rows::journal::{MovementKind, MovementStatus};
use crate::time::Time;

/// The answer to one item of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The ledger time at which it was judged; on a replay that of now, not of then.
    pub now: Time,
    /// What came of it.
    pub reply: Reply,
}

/// What came of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// A verdict: of now, or the stored one.
    Verdict {
        /// Whether it was stored before, so that nothing was done now.
        replayed: bool,
        /// The verdict.
        verdict: Verdict,
    },
    /// The key stands for another request. Nothing changed.
    KeyReused,
    /// The command came after its `valid_until`. Nothing changed.
    KeyTooOld,
    /// More is due in this wallet than one command may book first. What was booked stays booked;
    /// the command itself did nothing. Try again with the same key.
    Backlog,
    /// An invariant did not hold. The command's effects were discarded and the customer is
    /// quarantined.
    Fault(&'static str),
    /// A sweep was made.
    Swept {
        /// How many items it booked.
        booked: u32,
        /// Whether another sweep should follow at once: items that are due are left, or looks at
        /// wallets that may be in vain.
        more: bool,
    },
}

/// A final answer to a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It took effect.
    Applied(Applied),
    /// It did not, and will not under this key.
    Denied(Denial),
}

/// What an applied command did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// The operation, which joins its movements.
    pub operation: OperationId,
    /// What it did.
    pub effect: Effect,
}

/// The effect of an applied command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// A wallet was created or changed: the wallet as it is after.
    Wallet(WalletInfo),
    /// Credits moved.
    Posted {
        /// One movement a wallet and sort, in the order of booking.
        movements: Vec<Posted>,
        /// Every wallet that the command could have drawn on, in draw order, as it is after.
        balances: Vec<WalletBalance>,
        /// For a debit: what the same debit could still draw from those wallets, all tranches that
        /// fit its charge counted (of scoped tranches beyond a wallet's first eight, the first
        /// 1,000 in burn order). For a hold and what is done with it likewise, by its payer. `None`
        /// for a grant.
        remaining: Option<Amount>,
        /// For a command about a hold: the hold as it is after. In a box: most answers have none.
        hold: Option<Box<(HoldId, HoldState)>>,
    },
}

/// A movement as its command's answer tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Posted {
    /// The movement.
    pub id: RecordId,
    /// What sort.
    pub kind: MovementKind,
    /// Whether it is settled.
    pub status: MovementStatus,
    /// Which of the answer's balances is the wallet's: an index.
    pub balance: usize,
    /// Its effect on what is settled.
    pub amount: Amount,
    /// The tranches it touched, in burn order.
    pub draws: Vec<Draw>,
}

/// What one command took from (or put into) one tranche.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Draw {
    /// The tranche.
    pub tranche: TrancheId,
    /// What sort of credit it is.
    pub kind: TrancheKind,
    /// How much, above zero.
    pub amount: Amount,
    /// What is available of the tranche after the command.
    pub left: Amount,
}

/// A wallet's balance by the reading of the ledger time at which it was taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WalletBalance {
    /// The wallet's id.
    pub wallet: String,
    /// Its asset's code.
    pub asset_code: Arc<str>,
    /// Its asset's scale.
    pub asset_scale: u8,
    /// The figures.
    pub balance: Balance,
}

/// The figures of a balance. What is due and not booked yet is counted as if booked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Balance {
    /// Spendable now, in any scope.
    pub available: Amount,
    /// Set aside by holds.
    pub held: Amount,
    /// Granted, not active yet.
    pub pending: Amount,
    /// How far below zero.
    pub debt: Amount,
}

impl Balance {
    /// `available + held - debt`. The sums that reach here are kept within range by apply.
    pub fn settled(&self) -> Amount {
        Amount(self.available.0.saturating_add(self.held.0).saturating_sub(self.debt.0))
    }
}

/// A wallet's attributes, without its balance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WalletInfo {
    /// The wallet's id.
    pub wallet: String,
    /// Its asset's code.
    pub asset_code: String,
    /// Its asset's scale.
    pub asset_scale: u8,
    /// Order among the customer's wallets.
    pub draw_priority: u16,
    /// Which charges it pays.
    pub scope: ChargeScope,
    /// In which order its tranches burn.
    pub burn_policy: BurnPolicy,
    /// Whether it is frozen.
    pub frozen: bool,
    /// Whether it is closed.
    pub closed: bool,
    /// Rises by one with each change of an attribute, from 1.
    pub version: u64,
    /// When it was created, in ledger time.
    pub created_at: Time,
}

/// Why a command was denied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Denial {
    /// The stable reason.
    pub reason: Reason,
    /// For a lack of credits: how much there is for this debit, and how much it asks.
    pub shortage: Option<Shortage>,
}

impl From<Reason> for Denial {
    fn from(reason: Reason) -> Denial {
        Denial { reason, shortage: None }
    }
}

/// How much is there and how much was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shortage {
    /// What the debit could have drawn.
    pub available: Amount,
    /// What it asks.
    pub required: Amount,
    /// The asset's scale, to write both.
    pub scale: u8,
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $variant:ident = $code:literal, $text:literal;)+) => {
        /// The stable reason of a denial.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum Reason { $($(#[$doc])* $variant = $code),+ }

        impl Reason {
            /// All of them.
            pub const ALL: &'static [Reason] = &[$(Reason::$variant),+];

            /// The name on every surface.
            pub fn name(self) -> &'static str {
                match self { $(Reason::$variant => $text),+ }
            }

            /// The inverse of `self as u8`.
            pub fn from_code(code: u8) -> Option<Reason> {
                match code { $($code => Some(Reason::$variant),)+ _ => None }
            }
        }
    };
}

reasons! {
    /// The customer has no wallet.
    CustomerNotFound = 1, "CUSTOMER_NOT_FOUND";
    /// The customer has no such wallet, or none in the asset.
    WalletNotFound = 2, "WALLET_NOT_FOUND";
    /// A wallet of that id, or a tranche of that external reference, is there.
    AlreadyExists = 3, "ALREADY_EXISTS";
    /// An operator has to look at this customer first.
    CustomerQuarantined = 4, "CUSTOMER_QUARANTINED";
    /// The wallet is frozen.
    WalletFrozen = 5, "WALLET_FROZEN";
    /// The amount has more decimal places than the asset.
    InvalidAmountPrecision = 6, "INVALID_AMOUNT_PRECISION";
    /// The amount, or a balance with it, is more than the ledger can hold.
    AmountOverflow = 7, "AMOUNT_OVERFLOW";
    /// One debit may draw on 1,000 tranches, a customer may have 1,000 wallets.
    LimitExceeded = 8, "LIMIT_EXCEEDED";
    /// There is credit, but none that may pay this charge.
    NoEligibleTranche = 9, "NO_ELIGIBLE_TRANCHE";
    /// There is not enough.
    InsufficientCredits = 10, "INSUFFICIENT_CREDITS";
    /// An expiry is not after its effective time, or is past.
    InvalidArgument = 11, "INVALID_ARGUMENT";
    /// The customer has no such hold.
    HoldNotFound = 12, "HOLD_NOT_FOUND";
    /// The hold has timed out.
    HoldExpired = 13, "HOLD_EXPIRED";
    /// The hold was captured or released before.
    HoldClosed = 14, "HOLD_CLOSED";
    /// The tranche, or one that the hold has pinned, is not active any more.
    TrancheNotActive = 15, "TRANCHE_NOT_ACTIVE";
    /// The wallet has no such tranche.
    TrancheNotFound = 16, "TRANCHE_NOT_FOUND";
    /// The wallet is closed.
    WalletClosed = 17, "WALLET_CLOSED";
    /// Something is in the wallet, or held, or pending: it cannot be closed.
    WalletNotEmpty = 18, "WALLET_NOT_EMPTY";
    /// The wallet was changed since.
    VersionConflict = 19, "VERSION_CONFLICT";
    /// The customer has no such movement.
    MovementNotFound = 20, "MOVEMENT_NOT_FOUND";
    /// Not so much of the movement is left to give back.
    RefundExceedsDebit = 21, "REFUND_EXCEEDS_DEBIT";
}
