//! The ledger against the naive model (`purser-model`): what is tried, and how the two are compared.

pub mod drafts;
pub mod pair;
