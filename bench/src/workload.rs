//! The work that every scenario does: wallets of 4 tranches of 1,000 credits with different
//! priorities and expiries, debits of exponential amounts with mean 390 and at most 2,000, a fresh
//! key on each, and a refill of 4 tranches in one call for a wallet that has denied.

use purser_ledger::amount::{Asset, Decimal};
use purser_ledger::command::{
    BurnPolicy, ChargeScope, Command, CreateWallet, Debit, Expiry, Grant, Header, Operation, Payer,
    TrancheKind, TrancheSpec,
};
use purser_ledger::ids::Customer;
use purser_ledger::time::{Span, Time};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// The mean of a debit's amount before it is cut.
const AMOUNT_MEAN: f64 = 390.0;
/// The largest debit.
const AMOUNT_MAX: f64 = 2_000.0;
/// Far beyond the end of any run.
const FAR: u64 = 4_000_000_000_000_000;

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
    // The load is random by nature; credits themselves are whole numbers from here on.
    #[allow(clippy::float_arithmetic)]
    pub fn amount(&mut self) -> i128 {
        let uniform: f64 = self.random.random();
        (-AMOUNT_MEAN * (1.0 - uniform).ln()).ceil().clamp(1.0, AMOUNT_MAX) as i128
    }

    /// One of `wallets`, all equally likely.
    pub fn wallet(&mut self, wallets: u64) -> u64 {
        self.random.random_range(0..wallets)
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
            wallet: "main",
            asset: Asset { code: "credits", scale: 0 },
            draw_priority: 100,
            scope: ChargeScope::Any,
            burn_policy: BurnPolicy::Standard,
        }),
    }
}

/// Grants 4 tranches of 1,000 in one call.
pub fn refill(header: Header<'_>) -> Command<'_> {
    let tranche = |place: u64| TrancheSpec {
        amount: Decimal::new(1_000, 0).unwrap_or_default(),
        kind: if place == 3 { TrancheKind::Purchased } else { TrancheKind::Promotional },
        priority: 50 + place as u16 * 10,
        effective_at: None,
        expiry: if place == 3 { Expiry::Never } else { Expiry::At(Time(FAR + place)) },
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
        operation: Operation::Grant(Grant { wallet: "main", tranches: (0..4).map(tranche).collect() }),
    }
}

/// Debits an amount.
pub fn debit(header: Header<'_>, amount: i128) -> Command<'_> {
    Command {
        header,
        operation: Operation::Debit(Debit {
            payer: Payer::Wallet("main"),
            amount: Decimal::new(amount, 0).unwrap_or_default(),
            charge_type: None,
            feature: None,
            allow_partial: false,
            reason_code: "",
            reference: "",
            metadata: Vec::new(),
        }),
    }
}
