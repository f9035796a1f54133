//! Commands: what a leader puts into the log and every replica applies.
//!
//! A command borrows its text from the request (at the leader) or from the log entry (in apply), so
//! that neither copies it. Prices, calendar boundaries and whatever else needs a clock or the meta
//! group are resolved by the leader and travel in the command.
//!
//! A batch is one log entry (all integers are varints unless said otherwise):
//! ```text
//! version u8 = 1 | stamp u64 LE | count | count x ( kind u8 | length | command ) | xxh3-64 of all before, LE
//! ```
//! The version alone selects the behaviour of apply. The hash is checked by every replica before it
//! applies: it spans the way from the leader's encoder through network and disk.
//!
//! A command keeps the **body** apart from the rest. The body is the canonical form of what the
//! caller asked (customer, operation and every field but the key, deadline and actor; metadata
//! sorted by name): the fingerprint is a hash of it. What the leader resolved stands behind it.

use crate::amount::{Asset, Decimal};
use crate::codec::{Damage, Reader, put_bytes, put_text, put_u64, put_u128};
use crate::ids::Customer;
use crate::time::{Span, Time};

/// The version of batches that this code writes, and the newest that it reads.
pub const BATCH_VERSION: u8 = 1;

/// Most commands in one batch: bounds the time of one apply and the size of one log entry.
pub const BATCH_COMMANDS_MAX: usize = 8_192;

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
    /// Adds tranches to one wallet, all or none.
    Grant(Grant<'a>),
    /// Burns an amount in burn order.
    Debit(Debit<'a>),
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

/// Who pays a debit.
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

// ---- encoding ---------------------------------------------------------------------------------

const KIND_COMMAND: u8 = 1;
const KIND_SWEEP: u8 = 2;

const OP_CREATE_WALLET: u8 = 1;
const OP_FREEZE_WALLET: u8 = 2;
const OP_GRANT: u8 = 3;
const OP_DEBIT: u8 = 4;

const EXPIRY_NEVER: u8 = 0;
const EXPIRY_AT: u8 = 1;
const EXPIRY_AFTER: u8 = 2;

/// One item of a batch, decoded.
// Nearly all items are commands: a box would cost each of them an allocation to spare the sweeps.
#[allow(clippy::large_enum_variant)]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item<'a> {
    /// A caller's command, with the bytes that its fingerprint is taken over.
    Command {
        /// The command.
        command: Command<'a>,
        /// Its canonical body.
        body: &'a [u8],
    },
    /// The shard's own: book what is due, wallet by wallet in the order of what is due first in each,
    /// in up to `limit` steps. A step is an item booked, or a look in vain.
    Sweep {
        /// Most steps.
        limit: u32,
    },
}

/// Builds a batch, command by command.
#[derive(Debug, Default)]
pub struct BatchEncoder {
    commands: Vec<u8>,
    count: usize,
    scratch: Vec<u8>,
}

impl BatchEncoder {
    /// An empty batch.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many items are in it.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Bytes so far, without the frame.
    pub fn bytes(&self) -> usize {
        self.commands.len()
    }

    /// Adds a caller's command.
    pub fn push(&mut self, command: &Command<'_>) {
        self.scratch.clear();
        encode_command(&mut self.scratch, command);
        self.commands.push(KIND_COMMAND);
        put_bytes(&mut self.commands, &self.scratch);
        self.count += 1;
    }

    /// Adds a command that [`encode_command`] wrote.
    pub fn push_encoded(&mut self, command: &[u8]) {
        self.commands.push(KIND_COMMAND);
        put_bytes(&mut self.commands, command);
        self.count += 1;
    }

    /// Adds a sweep.
    pub fn push_sweep(&mut self, limit: u32) {
        self.scratch.clear();
        put_u64(&mut self.scratch, u64::from(limit));
        self.commands.push(KIND_SWEEP);
        put_bytes(&mut self.commands, &self.scratch);
        self.count += 1;
    }

    /// The finished batch, stamped with the leader's clock; the encoder is empty again.
    pub fn finish(&mut self, stamp: Time) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.commands.len() + 32);
        out.push(BATCH_VERSION);
        out.extend_from_slice(&stamp.0.to_le_bytes());
        put_u64(&mut out, self.count as u64);
        out.extend_from_slice(&self.commands);
        let hash = xxhash_rust::xxh3::xxh3_64(&out);
        out.extend_from_slice(&hash.to_le_bytes());
        self.commands.clear();
        self.count = 0;
        out
    }
}

/// A batch, decoded: its stamp and its items.
#[derive(Debug)]
pub struct Batch<'a> {
    /// The leader's clock when it was formed.
    pub stamp: Time,
    /// Its items in order.
    pub items: Vec<Item<'a>>,
}

impl<'a> Batch<'a> {
    /// The stamp of a batch, read from its head alone: nothing is checked but the version.
    pub fn peek_stamp(bytes: &[u8]) -> Option<Time> {
        let (version, rest) = bytes.split_first()?;
        let stamp = rest.first_chunk::<8>().filter(|_| *version == BATCH_VERSION)?;
        Some(Time(u64::from_le_bytes(*stamp)))
    }

    /// Checks the hash and decodes.
    pub fn decode(bytes: &'a [u8]) -> Result<Batch<'a>, Damage> {
        let (content, hash) = bytes.split_last_chunk::<8>().ok_or(Damage("batch"))?;
        if xxhash_rust::xxh3::xxh3_64(content) != u64::from_le_bytes(*hash) {
            return Err(Damage("batch: its hash differs"));
        }
        let mut reader = Reader::new(content);
        if reader.byte("batch version")? != BATCH_VERSION {
            return Err(Damage("batch: a version that this build does not know"));
        }
        let stamp = Time(u64::from_le_bytes(reader.array("batch stamp")?));
        let count: usize = reader.narrow("batch count")?;
        if count > BATCH_COMMANDS_MAX {
            return Err(Damage("batch count"));
        }
        let mut items = Vec::with_capacity(count);
        for _ in 0..count {
            let kind = reader.byte("command kind")?;
            let bytes = reader.bytes("command")?;
            items.push(match kind {
                KIND_COMMAND => decode_command(bytes)?,
                KIND_SWEEP => {
                    let mut inner = Reader::new(bytes);
                    let limit = inner.narrow("sweep limit")?;
                    inner.finish("sweep")?;
                    Item::Sweep { limit }
                }
                _ => return Err(Damage("command kind")),
            });
        }
        reader.finish("batch")?;
        Ok(Batch { stamp, items })
    }
}

/// Appends a command: `body length | body | key | valid_until | retention | actor | resolved times`.
pub fn encode_command(out: &mut Vec<u8>, command: &Command<'_>) {
    let Command { header, operation } = command;
    let mut body = Vec::with_capacity(96);
    encode_body(&mut body, command);
    put_bytes(out, &body);
    put_text(out, header.key);
    put_u64(out, header.valid_until.0);
    put_u64(out, header.retention.0);
    put_text(out, header.actor);
    if let Operation::Grant(grant) = operation {
        for spec in &grant.tranches {
            if let Expiry::After { resolved, .. } = spec.expiry {
                put_u64(out, resolved.0);
            }
        }
    }
}

/// Appends the canonical body, which the fingerprint is taken over.
pub fn encode_body(out: &mut Vec<u8>, command: &Command<'_>) {
    put_text(out, command.header.customer.namespace);
    put_text(out, command.header.customer.id);
    match &command.operation {
        Operation::CreateWallet(create) => {
            out.push(OP_CREATE_WALLET);
            put_text(out, create.wallet);
            put_asset(out, create.asset);
            put_u64(out, u64::from(create.draw_priority));
            out.push(create.scope.code());
            out.push(create.burn_policy.code());
        }
        Operation::FreezeWallet(freeze) => {
            out.push(OP_FREEZE_WALLET);
            put_text(out, freeze.wallet);
            out.push(u8::from(freeze.frozen));
            put_text(out, freeze.reason_code);
        }
        Operation::Grant(grant) => {
            out.push(OP_GRANT);
            put_text(out, grant.wallet);
            put_u64(out, grant.tranches.len() as u64);
            grant.tranches.iter().for_each(|spec| encode_spec(out, spec));
        }
        Operation::Debit(debit) => {
            out.push(OP_DEBIT);
            match debit.payer {
                Payer::Wallet(wallet) => {
                    out.push(0);
                    put_text(out, wallet);
                }
                Payer::CustomerIn(asset) => {
                    out.push(1);
                    put_asset(out, asset);
                }
            }
            put_decimal(out, debit.amount);
            out.push(debit.charge_type.map_or(0, ChargeType::code));
            put_optional_text(out, debit.feature);
            out.push(u8::from(debit.allow_partial));
            put_text(out, debit.reason_code);
            put_text(out, debit.reference);
            put_metadata(out, &debit.metadata);
        }
    }
}

fn encode_spec(out: &mut Vec<u8>, spec: &TrancheSpec<'_>) {
    put_decimal(out, spec.amount);
    out.push(spec.kind.code());
    put_u64(out, u64::from(spec.priority));
    match spec.effective_at {
        None => out.push(0),
        Some(time) => {
            out.push(1);
            put_u64(out, time.0);
        }
    }
    match spec.expiry {
        Expiry::Never => out.push(EXPIRY_NEVER),
        Expiry::At(time) => {
            out.push(EXPIRY_AT);
            put_u64(out, time.0);
        }
        Expiry::After { span, zone, .. } => {
            out.push(EXPIRY_AFTER);
            put_text(out, span);
            put_text(out, zone);
        }
    }
    out.push(spec.scope.code());
    put_u64(out, spec.features.len() as u64);
    spec.features.iter().for_each(|feature| put_text(out, feature));
    put_text(out, spec.label);
    put_text(out, spec.reason_code);
    put_text(out, spec.external_reference);
    match spec.cost {
        None => out.push(0),
        Some(cost) => {
            out.push(1);
            put_text(out, cost.currency);
            put_decimal(out, cost.amount);
        }
    }
    put_metadata(out, &spec.metadata);
}

/// Appends an asset.
pub(crate) fn put_asset(out: &mut Vec<u8>, asset: Asset<'_>) {
    put_text(out, asset.code);
    out.push(asset.scale);
}

/// Appends a decimal.
pub(crate) fn put_decimal(out: &mut Vec<u8>, decimal: Decimal) {
    let (units, scale) = decimal.parts();
    out.push(scale);
    put_u128(out, (units + 1) as u128);
}

fn put_optional_text(out: &mut Vec<u8>, text: Option<&str>) {
    match text {
        None => out.push(0),
        Some(text) => {
            out.push(1);
            put_text(out, text);
        }
    }
}

/// Appends metadata.
pub(crate) fn put_metadata(out: &mut Vec<u8>, metadata: &[(&str, &str)]) {
    put_u64(out, metadata.len() as u64);
    for (name, value) in metadata {
        put_text(out, name);
        put_text(out, value);
    }
}

fn decode_command<'a>(bytes: &'a [u8]) -> Result<Item<'a>, Damage> {
    let mut reader = Reader::new(bytes);
    let body = reader.bytes("command body")?;
    let (customer, mut operation) = decode_body(body)?;
    let header = Header {
        customer,
        key: reader.text("idempotency key")?,
        valid_until: Time(reader.u64("valid_until")?),
        retention: Span(reader.u64("retention")?),
        actor: reader.text("actor")?,
    };
    if let Operation::Grant(grant) = &mut operation {
        for spec in &mut grant.tranches {
            if let Expiry::After { resolved, .. } = &mut spec.expiry {
                *resolved = Time(reader.u64("resolved expiry")?);
            }
        }
    }
    reader.finish("command")?;
    Ok(Item::Command { command: Command { header, operation }, body })
}

fn decode_body<'a>(body: &'a [u8]) -> Result<(Customer<'a>, Operation<'a>), Damage> {
    let mut reader = Reader::new(body);
    let customer = Customer { namespace: reader.text("namespace")?, id: reader.text("customer")? };
    let operation = match reader.byte("operation")? {
        OP_CREATE_WALLET => Operation::CreateWallet(CreateWallet {
            wallet: reader.text("wallet")?,
            asset: asset(&mut reader)?,
            draw_priority: reader.narrow("draw_priority")?,
            scope: ChargeScope::from_code(reader.byte("scope")?)?,
            burn_policy: BurnPolicy::from_code(reader.byte("burn_policy")?)?,
        }),
        OP_FREEZE_WALLET => Operation::FreezeWallet(FreezeWallet {
            wallet: reader.text("wallet")?,
            frozen: flag(&mut reader, "frozen")?,
            reason_code: reader.text("reason_code")?,
        }),
        OP_GRANT => {
            let wallet = reader.text("wallet")?;
            let count: usize = reader.narrow("tranche count")?;
            let mut tranches = Vec::with_capacity(count.min(128));
            for _ in 0..count {
                tranches.push(decode_spec(&mut reader)?);
            }
            Operation::Grant(Grant { wallet, tranches })
        }
        OP_DEBIT => {
            let payer = match reader.byte("payer")? {
                0 => Payer::Wallet(reader.text("wallet")?),
                1 => Payer::CustomerIn(asset(&mut reader)?),
                _ => return Err(Damage("payer")),
            };
            Operation::Debit(Debit {
                payer,
                amount: decimal(&mut reader)?,
                charge_type: match reader.byte("charge_type")? {
                    0 => None,
                    code => Some(ChargeType::from_code(code)?),
                },
                feature: optional_text(&mut reader, "feature")?,
                allow_partial: flag(&mut reader, "allow_partial")?,
                reason_code: reader.text("reason_code")?,
                reference: reader.text("reference")?,
                metadata: metadata(&mut reader)?,
            })
        }
        _ => return Err(Damage("operation")),
    };
    reader.finish("command body")?;
    Ok((customer, operation))
}

fn decode_spec<'a>(reader: &mut Reader<'a>) -> Result<TrancheSpec<'a>, Damage> {
    let amount = decimal(reader)?;
    let kind = TrancheKind::from_code(reader.byte("kind")?)?;
    let priority = reader.narrow("priority")?;
    let effective_at = match flag(reader, "effective_at")? {
        false => None,
        true => Some(Time(reader.u64("effective_at")?)),
    };
    let expiry = match reader.byte("expiry")? {
        EXPIRY_NEVER => Expiry::Never,
        EXPIRY_AT => Expiry::At(Time(reader.u64("expires_at")?)),
        EXPIRY_AFTER => Expiry::After {
            span: reader.text("expires_in")?,
            zone: reader.text("time zone")?,
            resolved: Time::ZERO,
        },
        _ => return Err(Damage("expiry")),
    };
    let scope = ChargeScope::from_code(reader.byte("scope")?)?;
    let count: usize = reader.narrow("feature count")?;
    let mut features = Vec::with_capacity(count.min(64));
    for _ in 0..count {
        features.push(reader.text("feature")?);
    }
    Ok(TrancheSpec {
        amount,
        kind,
        priority,
        effective_at,
        expiry,
        scope,
        features,
        label: reader.text("label")?,
        reason_code: reader.text("reason_code")?,
        external_reference: reader.text("external_reference")?,
        cost: match flag(reader, "cost")? {
            false => None,
            true => Some(Cost { currency: reader.text("currency")?, amount: decimal(reader)? }),
        },
        metadata: metadata(reader)?,
    })
}

/// Reads an asset.
pub(crate) fn asset<'a>(reader: &mut Reader<'a>) -> Result<Asset<'a>, Damage> {
    Ok(Asset { code: reader.text("asset code")?, scale: reader.byte("asset scale")? })
}

/// Reads a decimal.
pub(crate) fn decimal(reader: &mut Reader<'_>) -> Result<Decimal, Damage> {
    let scale = reader.byte("decimal scale")?;
    let raised = i128::try_from(reader.u128("decimal")?).map_err(|_| Damage("decimal"))?;
    Decimal::from_parts(raised - 1, scale).ok_or(Damage("decimal"))
}

fn flag(reader: &mut Reader<'_>, what: &'static str) -> Result<bool, Damage> {
    match reader.byte(what)? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(Damage(what)),
    }
}

fn optional_text<'a>(reader: &mut Reader<'a>, what: &'static str) -> Result<Option<&'a str>, Damage> {
    Ok(if flag(reader, what)? { Some(reader.text(what)?) } else { None })
}

/// Reads metadata.
pub(crate) fn metadata<'a>(reader: &mut Reader<'a>) -> Result<Metadata<'a>, Damage> {
    let count: usize = reader.narrow("metadata count")?;
    let mut pairs = Vec::with_capacity(count.min(32));
    for _ in 0..count {
        pairs.push((reader.text("metadata name")?, reader.text("metadata value")?));
    }
    Ok(pairs)
}
