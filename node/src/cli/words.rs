//! The ledger's enumerated words: as flags in lower case (`specific-first`), in answers as the
//! contract names them without the enumeration's prefix (`SPECIFIC_FIRST`).

use clap::builder::{PossibleValuesParser, TypedValueParser};
use purser_proto::v1::{
    BurnPolicy, ChargeScope, ChargeType, HoldStatus, MovementStatus, MovementType, TrancheKind,
    TrancheStatus, WalletStatus,
};

/// The words that a flag takes.
pub type Words = &'static [&'static str];

/// Kinds of credit.
pub const TRANCHE_KINDS: Words = &["plan", "promotional", "rollover", "correction", "committed", "purchased"];
/// What a wallet or tranche may pay.
pub const CHARGE_SCOPES: Words = &["any", "usage", "fixed"];
/// What a debit charges for.
pub const CHARGE_TYPES: Words = &["usage", "fixed"];
/// Burn orders.
pub const BURN_POLICIES: Words = &["standard", "specific-first"];
/// Stages of a tranche's life.
pub const TRANCHE_STATUSES: Words =
    &["pending", "scheduled", "active", "exhausted", "expired", "voided", "failed"];
/// States of a wallet.
pub const WALLET_STATUSES: Words = &["active", "frozen", "closed"];
/// Types of movements.
pub const MOVEMENT_TYPES: Words =
    &["granted", "consumed", "expired", "held", "released", "captured", "voided", "refunded", "adjusted"];
/// States of a hold.
pub const HOLD_STATUSES: Words = &["open", "captured", "released", "expired"];

/// An enumeration of the contract: `from_str_name` and `as_str_name` with a common prefix.
pub trait Word: Copy + Default + Send + Sync + TryFrom<i32> + 'static {
    /// What the names in the contract start with.
    const PREFIX: &'static str;
    /// The name in the contract.
    fn name(self) -> &'static str;
    /// The inverse of [`Self::name`].
    fn from_name(name: &str) -> Option<Self>;
}

macro_rules! words {
    ($($type:ident $prefix:literal),+ $(,)?) => {$(
        impl Word for $type {
            const PREFIX: &'static str = $prefix;
            fn name(self) -> &'static str {
                self.as_str_name()
            }
            fn from_name(name: &str) -> Option<Self> {
                Self::from_str_name(name)
            }
        }
    )+};
}

words! {
    BurnPolicy "BURN_POLICY_",
    ChargeScope "CHARGE_SCOPE_",
    ChargeType "CHARGE_TYPE_",
    HoldStatus "HOLD_STATUS_",
    MovementStatus "MOVEMENT_STATUS_",
    MovementType "MOVEMENT_TYPE_",
    TrancheKind "TRANCHE_KIND_",
    TrancheStatus "TRANCHE_STATUS_",
    WalletStatus "WALLET_STATUS_",
}

/// Reads a flag that is one of `words`.
pub fn read<W: Word>(words: Words) -> impl TypedValueParser<Value = W> {
    // Words that the contract does not have would read as unspecified: `words_of_flags_are_words`.
    PossibleValuesParser::new(words).map(|word| from_flag(&word).unwrap_or_default())
}

/// A flag's word, in the contract.
pub fn from_flag<W: Word>(word: &str) -> Option<W> {
    W::from_name(&format!("{}{}", W::PREFIX, word.to_uppercase().replace('-', "_")))
}

/// Names a value that the server sent; a newer server's value by its number.
pub fn show<W: Word>(value: i32) -> String {
    match W::try_from(value) {
        Ok(known) => known.name().strip_prefix(W::PREFIX).unwrap_or(known.name()).to_owned(),
        Err(_) => value.to_string(),
    }
}
