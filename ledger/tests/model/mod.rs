//! The ledger against the naive model (`purser-model`): what is tried, and how the two are compared.

pub mod accounts;
pub mod core;
pub mod counts;
pub mod drafts;
pub mod drawing;
pub mod happened;
pub mod life_counts;
pub mod names;
pub mod pair;
pub mod reads;
pub mod show;
