//! The naive model: the ledger as a reader of the specification would write it in an afternoon.
//!
//! Lists and loops. A model holds a list of wallets, each with a list of tranches and a list of
//! movements, a list of holds, and a list of the verdicts given; everything is found by linear search
//! and sorted when it is needed. It is written from PRODUCT.md and SEMANTICS.md alone, by someone who
//! had not read `apply`: where the two disagree, one of them has misread the specification.
//!
//! It borrows from the crate only the types of commands and the plain value types of answers. What
//! the ledger allocates has plain numbers here: the n-th tranche ever granted is tranche `n`, the
//! n-th hold ever placed is hold `n` (and that is how a command must name them), the n-th operation is
//! operation `n`, and a movement is known by its wallet and its number there (a command names it by
//! [`movement_id`]). The comparison maps the ledger's ids to these.
//!
//! The core's property tests hold it against the ledger (`ledger/tests/model_agrees.rs`), and the
//! simulation against what a cluster answered.
//!
//! Where to look: verdicts under their keys in `judging`; the life of wallets in `wallets`; `grants`, and
//! what becomes of them later in `life`; `debits`, `holds`, `refunds`; corrections in `adjusting`; what
//! falls due in `due`; how any of them comes to be a movement in `movements`; what a read shows in
//! `reads`.

// The fields bear the names of the ledger's own answers, and mean the same.
#![allow(missing_docs)]

mod adjusting;
mod debits;
mod due;
mod grants;
mod holds;
mod judging;
mod life;
mod movements;
mod reads;
mod refunds;
mod wallets;

use purser_ledger::amount::{Amount, Asset};
use purser_ledger::command::{ChargeScope, ChargeType, Command, TrancheKind};
use purser_ledger::ids::Customer;
use purser_ledger::rows::hold::{HoldState, HoldStatus};
use purser_ledger::rows::journal::{MovementKind, MovementStatus};
use purser_ledger::time::Time;
use purser_ledger::verdict::{Balance, Denial, WalletBalance, WalletInfo};

pub use due::{Due, DueWhat};
pub use movements::movement_id;

/// Most due items that a command books in one wallet before it is judged.
pub const DUE_BOOKED_MAX: usize = 64;
/// Most draws of one debit.
pub const DRAWS_MAX: usize = 1_000;
/// Most wallets of one customer.
pub const WALLETS_MAX: usize = 1_000;

/// What a command is answered, in the model's numbers.
// Nearly all of them are verdicts: a box would spare nothing.
#[allow(clippy::large_enum_variant)]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// A verdict, of now or the stored one.
    Verdict { replayed: bool, verdict: Verdict },
    /// The key stands for another request.
    KeyReused,
    /// The command came at or after its `valid_until`.
    KeyTooOld,
    /// A time-out or an activation is still due after 64 bookings, or the end of a tranche that a refund
    /// restores.
    Backlog,
    /// A sweep was made.
    Swept { booked: u32, more: bool },
}

/// A final answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It took effect, as this operation.
    Applied { operation: usize, effect: Effect },
    /// It did not.
    Denied(Denial),
}

/// The effect of an applied command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// A wallet as it is after.
    Wallet(WalletInfo),
    /// Credits moved.
    Posted {
        movements: Vec<Posted>,
        balances: Vec<WalletBalance>,
        remaining: Option<Amount>,
        /// Which hold, counted over the whole model from 0, and how it is after.
        hold: Option<(usize, HoldState)>,
    },
}

/// A movement as an answer tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Posted {
    /// The place of its wallet among the balances of the answer.
    pub balance: usize,
    /// Its number in its wallet.
    pub number: u64,
    pub kind: MovementKind,
    pub status: MovementStatus,
    pub amount: Amount,
    pub draws: Vec<Draw>,
}

/// What was taken from, or put into, one tranche.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Draw {
    /// Which tranche, counted over the whole model from 0.
    pub tranche: usize,
    pub kind: TrancheKind,
    pub amount: Amount,
    /// What is available of the tranche after the movement.
    pub left: Amount,
}

/// A movement in a wallet's list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Movement {
    /// Which operation, counted over the whole model from 0.
    pub operation: usize,
    /// From 1, in its wallet.
    pub number: u64,
    pub kind: MovementKind,
    pub status: MovementStatus,
    pub booked_at: Time,
    pub effective_at: Time,
    pub amount: Amount,
    pub settled_after: Amount,
    pub balance_after: Balance,
    pub draws: Vec<Draw>,
    /// Which hold.
    pub hold: Option<usize>,
    /// The number of the movement of the same wallet that is refunded.
    pub corrects: Option<u64>,
    pub details: Details,
}

/// What a movement repeats of the command that made it; the charge is that of its hold, where it has
/// one, and for a refund that of the movement refunded. But for the charge all is empty for what the
/// shard books itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Details {
    pub charge_type: Option<ChargeType>,
    pub feature: String,
    pub key: String,
    pub actor: String,
    pub reason_code: String,
    pub reference: String,
    pub metadata: Vec<(String, String)>,
}

/// How far a tranche has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Its invoice has not been paid.
    Pending,
    /// Its effective time has not been booked.
    Scheduled,
    /// It may be spent, unless its expiry has passed and is not booked yet.
    Active,
    /// Its expiry is booked.
    Expired,
    /// Its invoice will not be paid.
    Failed,
    /// What was left of it was withdrawn.
    Voided,
}

/// What one grant put into a wallet.
#[derive(Clone, Debug)]
pub struct Tranche {
    /// Counted over the whole model from 0, in order of creation.
    pub no: usize,
    pub kind: TrancheKind,
    pub priority: u16,
    pub effective_at: Time,
    pub expires_at: Time,
    /// It was granted pending, with a lifetime that counts from its confirmation: until then it has no
    /// end.
    pub has_lifetime: bool,
    pub scope: ChargeScope,
    pub features: Vec<String>,
    pub external_reference: String,
    pub stage: Stage,
    pub amount: i128,
    pub available: i128,
    pub held: i128,
    pub consumed: i128,
    pub expired: i128,
    pub voided: i128,
}

/// A wallet of a customer.
#[derive(Clone, Debug)]
pub struct Wallet {
    pub namespace: String,
    pub customer: String,
    pub info: WalletInfo,
    pub tranches: Vec<Tranche>,
    pub movements: Vec<Movement>,
}

/// Credits set aside.
#[derive(Clone, Debug)]
pub struct Hold {
    /// Counted over the whole model from 0, in order of placement.
    pub no: usize,
    pub namespace: String,
    pub customer: String,
    pub payer: HoldPayer,
    pub charge_type: Option<ChargeType>,
    pub feature: Option<String>,
    pub placed_with: Details,
    /// As booked.
    pub status: HoldStatus,
    pub created_at: Time,
    pub expires_at: Time,
    pub amount: i128,
    pub captured: i128,
    pub released: i128,
    pub excess: i128,
    /// One for each wallet that something was pinned in, in draw order.
    pub parts: Vec<Part>,
}

/// Who pays what a hold is exceeded by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HoldPayer {
    /// The wallet in this place.
    Wallet(usize),
    /// The customer's wallets in the asset of this code and scale.
    CustomerIn(String, u8),
}

/// What a hold has pinned in one wallet.
#[derive(Clone, Debug)]
pub struct Part {
    /// The place of the wallet.
    pub wallet: usize,
    /// Its time-out is booked, or its hold captured or released.
    pub closed: bool,
    /// What is still pinned, in burn order.
    pub pins: Vec<Pin>,
}

/// Units of a tranche that a hold has set aside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pin {
    pub tranche: usize,
    pub kind: TrancheKind,
    pub amount: i128,
    /// The tranche's expiry, as it stood when it was pinned.
    pub expires_at: Time,
}

/// A verdict under its key.
#[derive(Clone, Debug)]
struct Remembered {
    namespace: String,
    customer: String,
    key: String,
    request: String,
    verdict: Verdict,
    until: Time,
}

/// The whole shard.
#[derive(Clone, Debug, Default)]
pub struct Model {
    now: Time,
    wallets: Vec<Wallet>,
    holds: Vec<Hold>,
    verdicts: Vec<Remembered>,
    tranches: usize,
    operations: usize,
}

/// Why a command takes no effect.
enum Stop {
    Denied(Denial),
    Backlog,
}

impl Model {
    /// Ledger time moves to the stamp, or stays where the stamp is earlier.
    pub fn begin_batch(&mut self, stamp: Time) -> Time {
        self.now = self.now.max(stamp);
        self.now
    }

    /// Judges one command of a caller. What it says of a hold is a number of the model's.
    pub fn command(&mut self, command: &Command<'_>) -> Reply {
        if let Some(reply) = self.recall(command) {
            return reply;
        }
        if self.now >= command.header.valid_until {
            return Reply::KeyTooOld;
        }
        let verdict = match self.judge(command) {
            Ok(effect) => Verdict::Applied { operation: self.next_operation(), effect },
            Err(Stop::Denied(denial)) => Verdict::Denied(denial),
            Err(Stop::Backlog) => return Reply::Backlog,
        };
        self.remember(command, verdict.clone());
        Reply::Verdict { replayed: false, verdict }
    }

    /// A sweep that booked the next due item of each of these wallets, one after the other (a wallet
    /// stands there as often as items were booked in it). Which wallets a sweep visits is the
    /// ledger's affair, since wallets do not see each other; within a wallet the order is fixed.
    pub fn sweep(&mut self, places: &[usize]) -> Reply {
        let mut booked = 0;
        for &place in places {
            let Some(due) = self.due(place).first().copied() else { continue };
            self.book(place, due);
            booked += 1;
        }
        let more = (0..self.wallets.len()).any(|place| !self.due(place).is_empty());
        Reply::Swept { booked, more }
    }

    /// All wallets, in order of creation.
    pub fn wallets(&self) -> &[Wallet] {
        &self.wallets
    }

    /// All holds, in order of placement.
    pub fn holds(&self) -> &[Hold] {
        &self.holds
    }

    /// The ledger time that was reached.
    pub fn now(&self) -> Time {
        self.now
    }
}

impl Wallet {
    /// Whose it is.
    pub fn customer(&self) -> Customer<'_> {
        Customer { namespace: &self.namespace, id: &self.customer }
    }

    /// What it holds.
    pub fn asset(&self) -> Asset<'_> {
        Asset { code: &self.info.asset_code, scale: self.info.asset_scale }
    }

    /// The sum of its movements: what is settled, as booked.
    pub fn settled(&self) -> i128 {
        self.movements.iter().map(|movement| movement.amount.0).sum()
    }
}
