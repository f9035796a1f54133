//! Commands: what a leader puts into the log and every replica applies.
//!
//! A command borrows its text from the request (at the leader) or from the log entry (in apply), so
//! that neither copies it. Prices, calendar boundaries and whatever else needs a clock or the meta
//! group are resolved by the leader and travel in the command.
//!
//! What commands say is here; how they are written is in `wire`, how batches of them in `batch`.

mod batch;
mod wire;

pub use batch::{BATCH_COMMANDS_MAX, BATCH_VERSION, Batch, BatchEncoder, Item};
pub(crate) use wire::{decimal, metadata, put_decimal, put_metadata};
pub use wire::{encode_body, encode_command};

use crate::amount::{Asset, Decimal};
use crate::codec::Damage;
use crate::ids::{Customer, HoldId, RecordId, TrancheId};
use crate::time::{Span, Time};

/// One command of a caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command<'a> {
    /// Whose, under which key, and until when.
    pub header: Header<'a>,
    /// What to do.
    pub operation: Operation<'a>,
}

/// What every command of a caller carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header<'a> {
    /// Whose wallets. With the key, the scope of idempotency.
    pub customer: Customer<'a>,
    /// The idempotency key, 1 to 255 bytes.
    pub key: &'a str,
    /// Refused at or after this ledger time, unless a verdict is already stored under the key.
    pub valid_until: Time,
    /// How long a verdict is remembered, counted from the ledger time at which it is given.
    pub retention: Span,
    /// Who asked (a token's name); empty where unknown. Not part of the fingerprint.
    pub actor: &'a str,
}

/// What a command does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation<'a> {
    /// Creates a wallet.
    CreateWallet(CreateWallet<'a>),
    /// Freezes a wallet, or thaws it.
    FreezeWallet(FreezeWallet<'a>),
    /// Changes a wallet's attributes.
    UpdateWallet(UpdateWallet<'a>),
    /// Closes an empty wallet for ever.
    CloseWallet(CloseWallet<'a>),
    /// Adds tranches to one wallet, all or none.
    Grant(Grant<'a>),
    /// Ends the life of a pending tranche, or what is left of one.
    EndGrant(EndGrant<'a>),
    /// Makes a pending tranche spendable: its invoice was paid.
    ConfirmGrant(ConfirmGrant<'a>),
    /// Burns an amount in burn order.
    Debit(Debit<'a>),
    /// Sets an amount aside, in burn order.
    Hold(Hold<'a>),
    /// Gives a hold more time.
    ExtendHold(ExtendHold<'a>),
    /// Burns what a hold set aside, less or more than that.
    Capture(Capture<'a>),
    /// Gives back what a hold set aside.
    Release(Release<'a>),
    /// Gives back what a debit or capture spent, to the very tranches that it drew from.
    Refund(Refund<'a>),
    /// Corrects a wallet's credits, up or down.
    Adjust(Adjust<'a>),
}

/// Creates a wallet of a customer; the customer comes into being with its first wallet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CreateWallet<'a> {
    /// The wallet's id, chosen by the caller, 1 to 128 bytes.
    pub wallet: &'a str,
    /// What it holds.
    pub asset: Asset<'a>,
    /// 0 to 1000; a debit by customer draws on lower ones first.
    pub draw_priority: u16,
    /// Which charges it pays.
    pub scope: ChargeScope,
    /// The order in which its tranches burn, fixed for its life.
    pub burn_policy: BurnPolicy,
}

/// Freezes or thaws a wallet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FreezeWallet<'a> {
    /// Which wallet.
    pub wallet: &'a str,
    /// `true` freezes, `false` thaws. Setting what is already set is applied and changes nothing.
    pub frozen: bool,
    /// Why, for the record; may be empty.
    pub reason_code: &'a str,
}

/// Changes a wallet's attributes: those that are given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UpdateWallet<'a> {
    /// Which wallet.
    pub wallet: &'a str,
    /// Only if it still has this version; `None` is whatever it has.
    pub version: Option<u64>,
    /// As [`CreateWallet::draw_priority`].
    pub draw_priority: Option<u16>,
    /// As [`CreateWallet::scope`].
    pub scope: Option<ChargeScope>,
    /// Why, for the record; may be empty.
    pub reason_code: &'a str,
}

/// Closes a wallet. It must be empty: nothing available, held or pending, and no open hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CloseWallet<'a> {
    /// Which wallet.
    pub wallet: &'a str,
    /// Why, for the record; may be empty.
    pub reason_code: &'a str,
}

/// How a tranche ends before its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum GrantEnd {
    /// Its invoice will not be paid: of a pending tranche, all of it goes.
    Failed = 1,
    /// What is left of it is withdrawn, pending, scheduled or active; what was spent stays spent, what is
    /// held stays held.
    Voided = 2,
}

/// Ends a tranche before its time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndGrant<'a> {
    /// How.
    pub end: GrantEnd,
    /// Its wallet.
    pub wallet: &'a str,
    /// Which tranche.
    pub tranche: TrancheId,
    /// Why; may be empty.
    pub reason_code: &'a str,
    /// The caller's own reference; may be empty, need not be unique.
    pub reference: &'a str,
    /// The caller's own pairs, sorted by name, without repeats.
    pub metadata: Metadata<'a>,
}

/// Makes a pending tranche spendable, now or from its effective time on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfirmGrant<'a> {
    /// Its wallet.
    pub wallet: &'a str,
    /// Which tranche.
    pub tranche: TrancheId,
    /// Until when it may be spent; `None`: as it was granted.
    pub expiry: Option<Expiry<'a>>,
    /// What the leader made of a lifetime that it was granted with. Not part of the fingerprint.
    pub lifetime: Option<Time>,
    /// Why; may be empty.
    pub reason_code: &'a str,
    /// The caller's own reference; may be empty, need not be unique.
    pub reference: &'a str,
    /// The caller's own pairs, sorted by name, without repeats.
    pub metadata: Metadata<'a>,
}

/// Gives back what a movement spent: to its tranches, the last one drawn first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refund<'a> {
    /// The debit's or capture's movement.
    pub movement: RecordId,
    /// How much, above zero; `None` is all that was not given back yet.
    pub amount: Option<Decimal>,
    /// What goes to a tranche that has expired since is spendable again for so long; `None`: it is
    /// forfeited.
    pub grace: Option<Span>,
    /// Why; may be empty.
    pub reason_code: &'a str,
    /// The caller's own reference; may be empty, need not be unique.
    pub reference: &'a str,
    /// The caller's own pairs, sorted by name, without repeats.
    pub metadata: Metadata<'a>,
}

/// The longest grace of a refund: 366 days.
pub const REFUND_GRACE_MAX: Span = Span::from_secs(366 * 24 * 3_600);

/// Corrects a wallet's credits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Adjust<'a> {
    /// Which wallet.
    pub wallet: &'a str,
    /// Up or down, and by how much.
    pub change: Change<'a>,
    /// Why; must be there.
    pub reason_code: &'a str,
    /// The caller's own reference; may be empty, need not be unique.
    pub reference: &'a str,
    /// The caller's own pairs, sorted by name, without repeats.
    pub metadata: Metadata<'a>,
}

/// Which way a correction goes. Amounts are above zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change<'a> {
    /// A new tranche of kind [`TrancheKind::Correction`] that pays for anything.
    Up {
        /// How much.
        amount: Decimal,
        /// Until when it may be spent.
        expiry: Expiry<'a>,
    },
    /// What is available goes: in burn order whatever its scope, or of one tranche.
    Down {
        /// How much.
        amount: Decimal,
        /// The tranche; `None`: in burn order.
        tranche: Option<TrancheId>,
    },
}

/// Adds tranches to a wallet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant<'a> {
    /// Which wallet.
    pub wallet: &'a str,
    /// The tranches, at least one, in order of creation.
    pub tranches: Vec<TrancheSpec<'a>>,
}

/// What a grant says of one tranche.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrancheSpec<'a> {
    /// How much; above zero.
    pub amount: Decimal,
    /// It waits until its invoice is paid ([`ConfirmGrant`]), and does not expire meanwhile.
    pub pending: bool,
    /// What sort of credit.
    pub kind: TrancheKind,
    /// 0 to 1000, lower burns first.
    pub priority: u16,
    /// From when it may be spent; `None` is now. In the past: used for ordering, booked now.
    pub effective_at: Option<Time>,
    /// Until when it may be spent.
    pub expiry: Expiry<'a>,
    /// Which charges it pays.
    pub scope: ChargeScope,
    /// Features that it may pay for, sorted, without repeats; empty is any.
    pub features: Vec<&'a str>,
    /// A name for people; may be empty.
    pub label: &'a str,
    /// Why it was granted; may be empty.
    pub reason_code: &'a str,
    /// The caller's own reference, unique per wallet for ever; empty is none.
    pub external_reference: &'a str,
    /// What was paid for it.
    pub cost: Option<Cost<'a>>,
    /// The caller's own pairs, sorted by name, without repeats.
    pub metadata: Metadata<'a>,
}

/// When a tranche expires.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expiry<'a> {
    /// It does not.
    Never,
    /// At an instant.
    At(Time),
    /// After a calendar span in a time zone, counted from its activation.
    After {
        /// An ISO 8601 duration, as the caller wrote it.
        span: &'a str,
        /// An IANA time zone, as the caller wrote it.
        zone: &'a str,
        /// What the leader made of it. Not part of the fingerprint.
        resolved: Time,
    },
}

impl Expiry<'_> {
    /// The instant, [`Time::NEVER`] for one that does not expire.
    pub fn at(self) -> Time {
        match self {
            Expiry::Never => Time::NEVER,
            Expiry::At(time) | Expiry::After { resolved: time, .. } => time,
        }
    }
}

/// Money paid for a tranche.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cost<'a> {
    /// The currency's code, such as `USD`.
    pub currency: &'a str,
    /// How much of it.
    pub amount: Decimal,
}

/// Pairs of the caller's own, sorted by name.
pub type Metadata<'a> = Vec<(&'a str, &'a str)>;

/// Burns an amount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Debit<'a> {
    /// One wallet, or all that fit.
    pub payer: Payer<'a>,
    /// How much; above zero.
    pub amount: Decimal,
    /// What is charged for; `None` fits only scope [`ChargeScope::Any`].
    pub charge_type: Option<ChargeType>,
    /// Which feature is charged for; `None` never draws a feature-limited tranche.
    pub feature: Option<&'a str>,
    /// Take what there is where the whole amount is not there.
    pub allow_partial: bool,
    /// Why; may be empty.
    pub reason_code: &'a str,
    /// The caller's own reference; may be empty, need not be unique.
    pub reference: &'a str,
    /// The caller's own pairs, sorted by name, without repeats.
    pub metadata: Metadata<'a>,
}

/// How long a hold lives that does not say.
pub const HOLD_TTL_DEFAULT: Span = Span::from_secs(300);
/// How long a hold may live in all, however often it is extended.
pub const HOLD_TTL_MAX: Span = Span::from_secs(24 * 3_600);

/// Sets an amount aside: its tranches are pinned in burn order, all of it or nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hold<'a> {
    /// One wallet, or all that fit. An excess is debited from the same.
    pub payer: Payer<'a>,
    /// How much; above zero.
    pub amount: Decimal,
    /// How long it lives, at most [`HOLD_TTL_MAX`]; `None` is [`HOLD_TTL_DEFAULT`]. Then it releases
    /// itself.
    pub ttl: Option<Span>,
    /// As [`Debit::charge_type`].
    pub charge_type: Option<ChargeType>,
    /// As [`Debit::feature`].
    pub feature: Option<&'a str>,
    /// Why; may be empty.
    pub reason_code: &'a str,
    /// The caller's own reference; may be empty, need not be unique.
    pub reference: &'a str,
    /// The caller's own pairs, sorted by name, without repeats.
    pub metadata: Metadata<'a>,
}

/// Gives a hold more time, counted from now: never less than it had, never past [`HOLD_TTL_MAX`] from
/// its placement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExtendHold<'a> {
    /// Which hold.
    pub hold: HoldId,
    /// How long from now.
    pub ttl: Span,
    /// Why; may be empty.
    pub reason_code: &'a str,
}

/// Burns what a hold set aside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capture<'a> {
    /// Which hold.
    pub hold: HoldId,
    /// How much; `None` is all that is left. What it exceeds the hold by is debited from the hold's
    /// payer in the same step, or nothing happens. Zero only where `keep_open` is not set.
    pub amount: Option<Decimal>,
    /// More will be captured: what is left stays set aside. Otherwise it is released.
    pub keep_open: bool,
    /// Why; may be empty.
    pub reason_code: &'a str,
    /// The caller's own reference; may be empty, need not be unique.
    pub reference: &'a str,
    /// The caller's own pairs, sorted by name, without repeats.
    pub metadata: Metadata<'a>,
}

/// Gives back all that is left of a hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Release<'a> {
    /// Which hold.
    pub hold: HoldId,
    /// Why; may be empty.
    pub reason_code: &'a str,
    /// The caller's own reference; may be empty, need not be unique.
    pub reference: &'a str,
    /// The caller's own pairs, sorted by name, without repeats.
    pub metadata: Metadata<'a>,
}

/// Who pays a debit or hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Payer<'a> {
    /// This wallet alone.
    Wallet(&'a str),
    /// The customer's wallets in this asset, in draw order.
    CustomerIn(Asset<'a>),
}

macro_rules! coded {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $code:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum $name { $($(#[$vdoc])* $variant = $code),+ }

        impl $name {
            /// All of them, in the order of their codes.
            pub const ALL: &'static [$name] = &[$($name::$variant),+];

            /// The code that stands for it in rows and commands.
            pub fn code(self) -> u8 {
                self as u8
            }

            /// The inverse of [`Self::code`].
            pub fn from_code(code: u8) -> Result<Self, Damage> {
                match code {
                    $($code => Ok($name::$variant),)+
                    _ => Err(Damage(stringify!($name))),
                }
            }
        }
    };
}

coded! {
    /// What sort of credit a tranche is. The order is the burn order of kinds: free before paid.
    TrancheKind {
        /// Comes with a plan.
        Plan = 1,
        /// Given away.
        Promotional = 2,
        /// Left over from a period.
        Rollover = 3,
        /// Puts something right.
        Correction = 4,
        /// Part of a contract with a minimum spend.
        Committed = 5,
        /// Bought.
        Purchased = 6,
    }
}

coded! {
    /// Which charges a wallet or tranche pays.
    ChargeScope {
        /// Every charge.
        Any = 0,
        /// Usage charges only.
        Usage = 1,
        /// Fixed charges only.
        Fixed = 2,
    }
}

coded! {
    /// What a debit charges for.
    ChargeType {
        /// Metered usage.
        Usage = 1,
        /// A fixed fee.
        Fixed = 2,
    }
}

coded! {
    /// In which order the tranches of a wallet burn.
    BurnPolicy {
        /// Priority, expiry, kind, narrowness, effective time, creation.
        Standard = 0,
        /// Priority, narrowness, expiry, kind, effective time, creation.
        SpecificFirst = 1,
    }
}

impl ChargeScope {
    /// Whether a charge of this type (or of none) may be paid.
    pub fn fits(self, charge_type: Option<ChargeType>) -> bool {
        match self {
            ChargeScope::Any => true,
            ChargeScope::Usage => charge_type == Some(ChargeType::Usage),
            ChargeScope::Fixed => charge_type == Some(ChargeType::Fixed),
        }
    }
}
