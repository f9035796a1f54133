//! The work that every scenario does: wallets of 4 tranches of 1,000 credits with different
//! priorities and expiries, debits of exponential amounts with mean 390 and at most 2,000, a fresh
//! key on each, and a refill of 4 tranches in one call for a wallet that has denied.
//!
//! It is there twice, as commands of the core (the layout gate) and as requests of the contract (`run`),
//! from the same figures.

use std::time::Duration;

use purser_ledger::amount::{Asset, Decimal};
use purser_ledger::command::{
    BurnPolicy, ChargeScope, Command, CreateWallet, Debit, Expiry, Grant, Header, Operation, Payer,
    TrancheKind, TrancheSpec,
};
use purser_ledger::ids::Customer;
use purser_ledger::time::{Span, Time};
use purser_proto::v1;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// The mean of a debit's amount before it is cut.
const AMOUNT_MEAN: f64 = 390.0;
/// The largest debit.
const AMOUNT_MAX: f64 = 2_000.0;
/// Far beyond the end of any run.
const FAR: u64 = 4_000_000_000_000_000;
/// The exponent of the zipf spread: some customers are far busier than others.
const ZIPF_EXPONENT: f64 = 1.1;

/// The wallet of each customer.
pub(crate) const WALLET: &str = "main";
/// What it holds: whole credits.
const ASSET: &str = "credits";
/// Tranches of a grant.
const TRANCHES: u64 = 4;
/// Credits of a tranche.
pub const TRANCHE_CREDITS: u64 = 1_000;

/// Credits that a refill brings, by those of a tranche.
pub fn refill_credits(tranche_credits: u64) -> u64 {
    TRANCHES * tranche_credits
}

/// Before those of a grant in the order in which credits are used up.
const BESIDES_PRIORITY: u32 = 10;

/// The priority of a tranche by its place in the grant.
fn priority(place: u64) -> u16 {
    50 + place as u16 * 10
}

/// When it expires, in microseconds since 1970; the last one never does.
fn expires_at(place: u64) -> Option<u64> {
    (place + 1 < TRANCHES).then_some(FAR + place)
}

/// How debits spread over wallets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Spread {
    /// All wallets alike
    Uniform,
    /// A few wallets take most of them (exponent 1.1)
    Zipf,
}

impl Spread {
    /// The word on the command line and in reports.
    pub fn name(self) -> &'static str {
        match self {
            Spread::Uniform => "uniform",
            Spread::Zipf => "zipf",
        }
    }
}

/// Wallets to choose from.
pub enum Wallets {
    /// So many, all alike.
    Uniform(u64),
    /// The sums of the weights of the first one, two, three... wallets.
    Weighted(Vec<f64>),
}

impl Wallets {
    /// So many wallets.
    // The load is random by nature, here and below; credits themselves are whole numbers.
    #[allow(clippy::float_arithmetic)]
    pub fn new(spread: Spread, wallets: u64) -> Wallets {
        match spread {
            Spread::Uniform => Wallets::Uniform(wallets),
            Spread::Zipf => {
                let weights = (1..=wallets).map(|rank| (rank as f64).powf(-ZIPF_EXPONENT));
                let sums = weights.scan(0.0, |sum, weight| {
                    *sum += weight;
                    Some(*sum)
                });
                Wallets::Weighted(sums.collect())
            }
        }
    }
}

/// Draws amounts and wallets from a seed.
pub struct Draws {
    random: StdRng,
}

impl Draws {
    /// A sequence of its own for each seed.
    pub fn new(seed: u64) -> Draws {
        Draws { random: StdRng::seed_from_u64(seed) }
    }

    /// The amount of the next debit: exponential, 1 to 2,000.
    #[allow(clippy::float_arithmetic)]
    pub fn amount(&mut self) -> u64 {
        let uniform: f64 = self.random.random();
        (-AMOUNT_MEAN * (1.0 - uniform).ln()).ceil().clamp(1.0, AMOUNT_MAX) as u64
    }

    /// One of the wallets, counted from 0.
    #[allow(clippy::float_arithmetic)]
    pub fn wallet(&mut self, wallets: &Wallets) -> u64 {
        match wallets {
            Wallets::Uniform(count) => self.random.random_range(0..*count),
            Wallets::Weighted(sums) => {
                let uniform: f64 = self.random.random();
                let at = uniform * sums.last().copied().unwrap_or_default();
                sums.partition_point(|sum| *sum <= at).min(sums.len() - 1) as u64
            }
        }
    }
}

/// The header of a command of customer `customer` under `key`.
pub fn header<'a>(customer: &'a str, key: &'a str, now: Time) -> Header<'a> {
    Header {
        customer: Customer { namespace: "default", id: customer },
        key,
        valid_until: now.saturating_add(Span::from_secs(900)),
        retention: Span::from_secs(86_400),
        actor: "",
    }
}

/// Creates the one wallet of a customer.
pub fn create(header: Header<'_>) -> Command<'_> {
    Command {
        header,
        operation: Operation::CreateWallet(CreateWallet {
            wallet: WALLET,
            asset: Asset { code: ASSET, scale: 0 },
            draw_priority: 100,
            scope: ChargeScope::Any,
            burn_policy: BurnPolicy::Standard,
        }),
    }
}

/// Grants 4 tranches of 1,000 in one call.
pub fn refill(header: Header<'_>) -> Command<'_> {
    let tranche = |place: u64| TrancheSpec {
        pending: false,
        amount: Decimal::new(i128::from(TRANCHE_CREDITS), 0).unwrap_or_default(),
        kind: if expires_at(place).is_some() { TrancheKind::Promotional } else { TrancheKind::Purchased },
        priority: priority(place),
        effective_at: None,
        expiry: expires_at(place).map_or(Expiry::Never, |micros| Expiry::At(Time(micros))),
        scope: ChargeScope::Any,
        features: Vec::new(),
        label: "",
        reason_code: "",
        external_reference: "",
        cost: None,
        metadata: Vec::new(),
    };
    Command {
        header,
        operation: Operation::Grant(Grant { wallet: WALLET, tranches: (0..TRANCHES).map(tranche).collect() }),
    }
}

/// Debits an amount.
pub fn debit(header: Header<'_>, amount: u64) -> Command<'_> {
    Command {
        header,
        operation: Operation::Debit(Debit {
            payer: Payer::Wallet(WALLET),
            amount: Decimal::new(i128::from(amount), 0).unwrap_or_default(),
            charge_type: None,
            feature: None,
            allow_partial: false,
            reason_code: "",
            reference: "",
            metadata: Vec::new(),
        }),
    }
}

/// As [`create`], for a server.
pub fn create_request(customer: &str, key: String) -> v1::CreateWalletRequest {
    v1::CreateWalletRequest {
        customer: customer.to_owned(),
        idempotency_key: key,
        wallet: WALLET.to_owned(),
        asset: Some(v1::Asset { code: ASSET.to_owned(), scale: 0 }),
        ..Default::default()
    }
}

/// As [`refill`] with tranches of so many credits, for a server.
pub fn refill_request(customer: &str, key: String, tranche_credits: u64) -> v1::GrantRequest {
    let tranche = |place: u64| {
        let expires_at = expires_at(place);
        let kind = match expires_at {
            Some(_) => v1::TrancheKind::Promotional,
            None => v1::TrancheKind::Purchased,
        };
        v1::TrancheSpec {
            amount: tranche_credits.to_string(),
            kind: kind.into(),
            priority: Some(u32::from(priority(place))),
            expiry: expires_at.map(|micros| v1::tranche_spec::Expiry::ExpiresAt(stamp(micros))),
            ..Default::default()
        }
    };
    v1::GrantRequest {
        customer: customer.to_owned(),
        idempotency_key: key,
        wallet: WALLET.to_owned(),
        tranches: (0..TRANCHES).map(tranche).collect(),
        ..Default::default()
    }
}

/// Tranches that a wallet may hold besides those of its refills.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Besides {
    /// Open to every debit.
    Open,
    /// Expired at a given instant.
    Expired,
    /// For a feature that no debit is for.
    OutOfScope,
}

/// Grants so many tranches besides, for a server. `expires_at`, since 1970, is for those that expire.
pub fn besides_request(
    customer: &str,
    key: String,
    tranches: u64,
    besides: Besides,
    expires_at: Duration,
) -> v1::GrantRequest {
    let mut request = refill_request(customer, key, TRANCHE_CREDITS);
    let mut tranche = v1::TrancheSpec {
        amount: TRANCHE_CREDITS.to_string(),
        kind: v1::TrancheKind::Purchased.into(),
        priority: Some(BESIDES_PRIORITY),
        ..Default::default()
    };
    match besides {
        Besides::Open => {}
        Besides::Expired => {
            let expiry = v1::tranche_spec::Expiry::ExpiresAt(stamp(expires_at.as_micros() as u64));
            tranche.expiry = Some(expiry);
        }
        Besides::OutOfScope => tranche.features = vec!["another".to_owned()],
    }
    request.tranches = (0..tranches).map(|_| tranche.clone()).collect();
    request
}

fn stamp(micros: u64) -> prost_types::Timestamp {
    prost_types::Timestamp {
        seconds: (micros / 1_000_000) as i64,
        nanos: (micros % 1_000_000 * 1_000) as i32,
    }
}

/// As [`debit`], for a server.
pub fn debit_request(customer: &str, key: String, amount: u64) -> v1::DebitRequest {
    v1::DebitRequest {
        customer: customer.to_owned(),
        idempotency_key: key,
        payer: Some(v1::debit_request::Payer::Wallet(WALLET.to_owned())),
        amount: amount.to_string(),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zipf_favours_the_first_wallets_and_reaches_the_last() {
        let (wallets, mut draws) = (Wallets::new(Spread::Zipf, 100), Draws::new(7));
        let mut counts = [0u32; 100];
        for _ in 0..100_000 {
            counts[draws.wallet(&wallets) as usize] += 1;
        }
        // 1 / (1 + 2^-1.1 + ... + 100^-1.1) = 0.2338; half as much, and a bit less, for the second.
        assert!((22_500..24_000).contains(&counts[0]), "{counts:?}");
        assert!((10_400..11_300).contains(&counts[1]), "{counts:?}");
        assert!(counts.iter().all(|count| *count > 0), "{counts:?}");
    }

    #[test]
    fn amounts_are_whole_above_zero_and_at_most_2000() {
        let mut draws = Draws::new(7);
        let amounts: Vec<_> = (0..100_000).map(|_| draws.amount()).collect();
        assert!(amounts.iter().all(|amount| (1..=2_000).contains(amount)));
        let mean = amounts.iter().sum::<u64>() / 100_000;
        // Exponential of mean 390, cut at 2,000: 390 x (1 - e^(-2000/390)) = 387.7, and half a credit
        // for rounding up.
        assert!((384..=392).contains(&mean), "{mean}");
    }
}
