//! What the property tests try: sessions of batches, drawn (see [`drawing`](super::drawing)) from small
//! spaces so that commands meet.
//!
//! A draft says times relative to the clock, and holds as "the last but one of this customer", so that
//! a session still means something when a part of it is cut away; [`Session::write`] turns it into
//! commands. Which id a hold has only the ledger can say: writing a session runs it, item by item.

use std::fmt;
use std::sync::OnceLock;

use purser_ledger::amount::{Asset, Decimal};
use purser_ledger::command::{
    BurnPolicy, Capture, ChargeScope, ChargeType, Command, CreateWallet, Debit, Expiry, ExtendHold,
    FreezeWallet, Grant, Header, Hold, Metadata, Operation, Payer, Release, TrancheKind, TrancheSpec,
};
use purser_ledger::ids::{Customer, HoldId};
use purser_ledger::time::{Span, Time};
use purser_ledger::verdict::{Answer, Applied, Effect, Reply, Verdict};

use super::core::{Core, entry_of};

/// Where sessions begin.
pub const BEGIN: u64 = 1_000;

/// Whose wallets: the first two have some from the start, the last never has any.
const CUSTOMERS: [(&str, &str); 4] =
    [("default", "ann"), ("default", "bob"), ("sandbox", "ann"), ("default", "zoe")];
/// The wallets and their assets; the last is never created.
const WALLETS: [(&str, Asset<'static>); 5] =
    [("w0", CREDITS), ("w1", CREDITS), ("w2", CREDITS), ("w3", USD), ("w9", CREDITS)];
pub const CREDITS: Asset<'static> = Asset { code: "credits", scale: 0 };
pub const USD: Asset<'static> = Asset { code: "usd", scale: 2 };
/// An asset that differs from one in use by its scale alone: no wallet holds it.
pub const FINE_CREDITS: Asset<'static> = Asset { code: "credits", scale: 2 };
pub const FEATURES: [&str; 3] = ["chat", "image", "voice"];
pub const REFERENCES: [&str; 5] = ["inv-1", "inv-2", "inv-3", "inv-4", "inv-5"];
/// Keys that collide.
pub const KEYS: [&str; 4] = ["k1", "k2", "k3", "k4"];
/// Keys that do not.
const FRESH_KEYS: usize = 4_000;
/// Ids that no hold has; one of them is likely to be a wallet's or a tranche's.
pub const STRANGE_HOLDS: [HoldId; 3] = [HoldId(0), HoldId(0x5_0007), HoldId(u64::MAX)];
/// 38 nines: one fits in an amount at scale 0, two do not, and none fits at scale 2.
const HUGE: i128 = 99_999_999_999_999_999_999_999_999_999_999_999_999;

/// A session: batches in order.
#[derive(Clone)]
pub struct Session(pub Vec<BatchDraft>);

/// Short, since a failure prints the history of commands.
impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let items: usize = self.0.iter().map(|batch| batch.items.len()).sum();
        write!(f, "a session of {} batches with {items} items (see the history)", self.0.len())
    }
}

/// One entry: the leader's clock moves by `step` (backwards too), then the items are judged.
#[derive(Clone, Debug)]
pub struct BatchDraft {
    pub step: i64,
    pub items: Vec<ItemDraft>,
}

#[derive(Clone, Debug)]
pub enum ItemDraft {
    New(CommandDraft),
    /// The command sent so many before, once more; with a new deadline or with its own.
    Again {
        back: usize,
        deadline: Option<i64>,
    },
    Sweep(u32),
}

#[derive(Clone, Debug)]
pub struct CommandDraft {
    pub customer: usize,
    /// One of the keys that collide, or a fresh one.
    pub key: Option<usize>,
    pub deadline: i64,
    pub retention: u64,
    pub operation: OperationDraft,
}

#[derive(Clone, Debug)]
pub enum OperationDraft {
    Create { wallet: usize, draw_priority: u16, scope: ChargeScope, burn_policy: BurnPolicy },
    Freeze { wallet: usize, frozen: bool },
    Grant { wallet: usize, tranches: Vec<TrancheDraft> },
    Debit { charge: ChargeDraft, allow_partial: bool },
    Hold { charge: ChargeDraft, ttl: Option<Span> },
    Extend { hold: HoldPick, ttl: Span },
    Capture { hold: HoldPick, amount: Option<AmountDraft>, keep_open: bool, noted: bool },
    Release { hold: HoldPick, noted: bool },
}

/// What a debit and a hold have in common.
#[derive(Clone, Debug)]
pub struct ChargeDraft {
    pub payer: PayerDraft,
    pub amount: AmountDraft,
    pub charge_type: Option<ChargeType>,
    pub feature: Option<usize>,
    pub noted: bool,
}

#[derive(Clone, Debug)]
pub enum PayerDraft {
    Wallet(usize),
    Asset(Asset<'static>),
}

/// Which hold: so many before the last one of the session, and round again where there are not so many.
#[derive(Clone, Copy, Debug)]
pub enum HoldPick {
    /// Asked about by the customer whose it is.
    Own(usize),
    /// Asked about by the customer that was drawn.
    Any(usize),
    /// None at all.
    Strange(usize),
}

#[derive(Clone, Debug)]
pub struct TrancheDraft {
    pub amount: AmountDraft,
    pub kind: TrancheKind,
    pub priority: u16,
    pub effective: Option<i64>,
    pub expiry: ExpiryDraft,
    pub scope: ChargeScope,
    pub features: Vec<&'static str>,
    pub reference: Option<usize>,
}

#[derive(Clone, Debug)]
pub enum AmountDraft {
    Whole(i128),
    /// So many hundredths.
    Hundredths(i128),
    /// So many thousandths: too precise for every asset here, unless it reduces.
    Thousandths(i128),
    Huge,
}

#[derive(Clone, Debug)]
pub enum ExpiryDraft {
    Never,
    At(i64),
    After(i64),
}

// ---- from drafts to commands ------------------------------------------------------------------

/// One item of a batch.
// Nearly all items are commands: a box would spare nothing.
#[allow(clippy::large_enum_variant)]
#[derive(Clone, Debug)]
pub enum Item {
    /// A caller's command.
    Command(Command<'static>),
    /// A sweep.
    Sweep(u32),
}

/// What a session has come to while it is written.
#[derive(Default)]
struct Writing {
    clock: u64,
    sent: Vec<Command<'static>>,
    /// The holds placed, and whose they are.
    placed: Vec<(Customer<'static>, HoldId)>,
    core: Core,
}

impl Session {
    /// The stamps and items that the drafts mean.
    pub fn write(&self) -> Vec<(Time, Vec<Item>)> {
        let mut writing = Writing { clock: BEGIN, ..Writing::default() };
        let mut batches = Vec::new();
        for batch in &self.0 {
            writing.clock = moved(writing.clock, batch.step);
            let items = batch.items.iter().map(|item| writing.item(item)).collect();
            batches.push((Time(writing.clock), items));
        }
        batches
    }
}

impl Writing {
    fn item(&mut self, draft: &ItemDraft) -> Item {
        let item = self.written(draft);
        // Where the ledger fails, the comparison will too, and say so.
        let applied = self.core.apply(&entry_of(Time(self.clock), std::slice::from_ref(&item)));
        let Item::Command(command) = &item else { return item };
        self.sent.push(command.clone());
        if let (Operation::Hold(_), Ok((answers, _))) = (&command.operation, applied)
            && let Some(hold) = placed(&answers)
        {
            self.placed.push((command.header.customer, hold));
        }
        item
    }

    fn written(&self, draft: &ItemDraft) -> Item {
        match draft {
            ItemDraft::Sweep(limit) => Item::Sweep(*limit),
            ItemDraft::Again { back, .. } if *back >= self.sent.len() => Item::Sweep(1),
            ItemDraft::Again { back, deadline } => {
                let mut command = self.sent[self.sent.len() - 1 - back].clone();
                if let Some(deadline) = deadline {
                    command.header.valid_until = Time(moved(self.clock, *deadline));
                    resolve_again(&mut command, self.clock);
                }
                Item::Command(command)
            }
            ItemDraft::New(draft) => Item::Command(self.command(draft)),
        }
    }

    fn command(&self, draft: &CommandDraft) -> Command<'static> {
        let (namespace, id) = CUSTOMERS[draft.customer];
        let sent = self.sent.len();
        let operation = self.operation(&draft.operation);
        let header = Header {
            customer: self.owner(&draft.operation).unwrap_or(Customer { namespace, id }),
            key: draft.key.map_or_else(|| fresh_key(sent), |key| KEYS[key]),
            valid_until: Time(moved(self.clock, draft.deadline)),
            retention: Span(draft.retention),
            actor: if sent.is_multiple_of(3) { "" } else { "gateway" },
        };
        Command { header, operation }
    }

    fn operation(&self, draft: &OperationDraft) -> Operation<'static> {
        match *draft {
            OperationDraft::Create { wallet, draw_priority, scope, burn_policy } => {
                let (wallet, asset) = WALLETS[wallet];
                Operation::CreateWallet(CreateWallet { wallet, asset, draw_priority, scope, burn_policy })
            }
            OperationDraft::Freeze { wallet, frozen } => {
                Operation::FreezeWallet(FreezeWallet { wallet: WALLETS[wallet].0, frozen, reason_code: "" })
            }
            OperationDraft::Grant { wallet, ref tranches } => Operation::Grant(Grant {
                wallet: WALLETS[wallet].0,
                tranches: tranches.iter().map(|tranche| tranche.write(self.clock)).collect(),
            }),
            OperationDraft::Debit { ref charge, allow_partial } => {
                Operation::Debit(charge.debit(allow_partial))
            }
            OperationDraft::Hold { ref charge, ttl } => Operation::Hold(charge.hold(ttl)),
            OperationDraft::Extend { hold, ttl } => Operation::ExtendHold(ExtendHold {
                hold: self.picked(hold),
                ttl,
                reason_code: if ttl.0 % 2 == 0 { "slow" } else { "" },
            }),
            OperationDraft::Capture { hold, ref amount, keep_open, noted } => {
                let (reason_code, reference, metadata) = notes(noted);
                Operation::Capture(Capture {
                    hold: self.picked(hold),
                    amount: amount.as_ref().map(AmountDraft::write),
                    keep_open,
                    reason_code,
                    reference,
                    metadata,
                })
            }
            OperationDraft::Release { hold, noted } => {
                let (reason_code, reference, metadata) = notes(noted);
                let hold = self.picked(hold);
                Operation::Release(Release { hold, reason_code, reference, metadata })
            }
        }
    }

    fn picked(&self, pick: HoldPick) -> HoldId {
        match pick {
            HoldPick::Own(back) | HoldPick::Any(back) => {
                self.newest_but(back).map_or(STRANGE_HOLDS[0], |(_, hold)| hold)
            }
            HoldPick::Strange(which) => STRANGE_HOLDS[which],
        }
    }

    /// Whose command it is, for one about a hold of the customer's own.
    fn owner(&self, draft: &OperationDraft) -> Option<Customer<'static>> {
        match draft {
            OperationDraft::Extend { hold: HoldPick::Own(back), .. }
            | OperationDraft::Capture { hold: HoldPick::Own(back), .. }
            | OperationDraft::Release { hold: HoldPick::Own(back), .. } => {
                self.newest_but(*back).map(|(customer, _)| customer)
            }
            _ => None,
        }
    }

    fn newest_but(&self, back: usize) -> Option<(Customer<'static>, HoldId)> {
        let holds = self.placed.len();
        (holds > 0).then(|| self.placed[holds - 1 - back % holds])
    }
}

/// The hold that was placed just now.
fn placed(answers: &[Answer]) -> Option<HoldId> {
    match &answers.first()?.reply {
        Reply::Verdict { replayed: false, verdict: Verdict::Applied(Applied { effect, .. }) } => match effect
        {
            Effect::Posted { hold, .. } => hold.as_ref().map(|hold| hold.0),
            Effect::Wallet(_) => None,
        },
        _ => None,
    }
}

/// A leader resolves a calendar span by its own clock: what it comes to makes no other request.
fn resolve_again(command: &mut Command<'static>, clock: u64) {
    let Operation::Grant(grant) = &mut command.operation else { return };
    for spec in &mut grant.tranches {
        if let Expiry::After { resolved, .. } = &mut spec.expiry {
            *resolved = Time(clock + 9);
        }
    }
}

impl ChargeDraft {
    fn debit(&self, allow_partial: bool) -> Debit<'static> {
        let (reason_code, reference, metadata) = notes(self.noted);
        Debit {
            payer: self.payer.write(),
            amount: self.amount.write(),
            charge_type: self.charge_type,
            feature: self.feature.map(|feature| FEATURES[feature]),
            allow_partial,
            reason_code,
            reference,
            metadata,
        }
    }

    fn hold(&self, ttl: Option<Span>) -> Hold<'static> {
        let (reason_code, reference, metadata) = notes(self.noted);
        Hold {
            payer: self.payer.write(),
            amount: self.amount.write(),
            ttl,
            charge_type: self.charge_type,
            feature: self.feature.map(|feature| FEATURES[feature]),
            reason_code,
            reference,
            metadata,
        }
    }
}

/// Reason code, reference and metadata.
fn notes(noted: bool) -> (&'static str, &'static str, Metadata<'static>) {
    match noted {
        true => ("request", "req-7", vec![("model", "large"), ("region", "eu")]),
        false => ("", "", Vec::new()),
    }
}

impl PayerDraft {
    fn write(&self) -> Payer<'static> {
        match *self {
            PayerDraft::Wallet(wallet) => Payer::Wallet(WALLETS[wallet].0),
            PayerDraft::Asset(asset) => Payer::CustomerIn(asset),
        }
    }
}

impl TrancheDraft {
    fn write(&self, clock: u64) -> TrancheSpec<'static> {
        TrancheSpec {
            amount: self.amount.write(),
            pending: false,
            kind: self.kind,
            priority: self.priority,
            effective_at: self.effective.map(|step| Time(moved(clock, step))),
            expiry: match self.expiry {
                ExpiryDraft::Never => Expiry::Never,
                ExpiryDraft::At(step) => Expiry::At(Time(moved(clock, step))),
                ExpiryDraft::After(step) => {
                    Expiry::After { span: "P1D", zone: "Europe/Berlin", resolved: Time(moved(clock, step)) }
                }
            },
            scope: self.scope,
            features: self.features.clone(),
            label: "",
            reason_code: "",
            external_reference: self.reference.map_or("", |reference| REFERENCES[reference]),
            cost: None,
            metadata: Vec::new(),
        }
    }
}

impl AmountDraft {
    fn write(&self) -> Decimal {
        let (units, scale) = match *self {
            AmountDraft::Whole(units) => (units, 0),
            AmountDraft::Hundredths(units) => (units, 2),
            AmountDraft::Thousandths(units) => (units, 3),
            AmountDraft::Huge => (HUGE, 0),
        };
        Decimal::new(units, scale).expect("drafts are well-formed")
    }
}

fn moved(clock: u64, step: i64) -> u64 {
    clock.saturating_add_signed(step)
}

fn fresh_key(place: usize) -> &'static str {
    static NAMES: OnceLock<Vec<String>> = OnceLock::new();
    let names = NAMES.get_or_init(|| (0..FRESH_KEYS).map(|number| format!("f{number}")).collect());
    &names[place]
}
