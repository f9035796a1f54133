//! How one command is written.
//!
//! A command keeps the **body** apart from the rest. The body is the canonical form of what the
//! caller asked (customer, operation and every field but the key, deadline and actor; metadata
//! sorted by name): the fingerprint is a hash of it. What the leader resolved stands behind it.

use super::batch::Item;
use super::{
    Adjust, BurnPolicy, Capture, Change, ChargeScope, ChargeType, CloseWallet, Command, ConfirmGrant, Cost,
    CreateWallet, Debit, EndGrant, Expiry, ExtendHold, FreezeWallet, Grant, GrantEnd, Header, Hold, Metadata,
    Operation, Payer, Refund, Release, TrancheKind, TrancheSpec, UpdateWallet,
};
use crate::amount::{Asset, Decimal};
use crate::codec::{Damage, Reader, put_bytes, put_text, put_u64, put_u128};
use crate::ids::{Customer, HoldId, RecordId, TrancheId};
use crate::time::{Span, Time};

const OP_CREATE_WALLET: u8 = 1;
const OP_FREEZE_WALLET: u8 = 2;
const OP_GRANT: u8 = 3;
const OP_DEBIT: u8 = 4;
const OP_HOLD: u8 = 5;
const OP_EXTEND_HOLD: u8 = 6;
const OP_CAPTURE: u8 = 7;
const OP_RELEASE: u8 = 8;
const OP_UPDATE_WALLET: u8 = 9;
const OP_CLOSE_WALLET: u8 = 10;
const OP_END_GRANT: u8 = 11;
const OP_CONFIRM_GRANT: u8 = 12;
const OP_REFUND: u8 = 13;
const OP_ADJUST: u8 = 14;

const EXPIRY_NEVER: u8 = 0;
const EXPIRY_AT: u8 = 1;
const EXPIRY_AFTER: u8 = 2;

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
    // What the leader resolved stands behind the body: it is not what the caller asked.
    match operation {
        Operation::Grant(grant) => grant.tranches.iter().for_each(|spec| put_resolved(out, spec.expiry)),
        Operation::Adjust(Adjust { change: Change::Up { expiry, .. }, .. }) => put_resolved(out, *expiry),
        Operation::ConfirmGrant(confirm) => {
            confirm.expiry.iter().for_each(|expiry| put_resolved(out, *expiry));
            put_u64(out, confirm.lifetime.map_or(0, |time| time.0));
        }
        _ => {}
    }
}

fn put_resolved(out: &mut Vec<u8>, expiry: Expiry<'_>) {
    if let Expiry::After { resolved, .. } = expiry {
        put_u64(out, resolved.0);
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
            put_payer(out, debit.payer);
            put_decimal(out, debit.amount);
            out.push(debit.charge_type.map_or(0, ChargeType::code));
            put_optional_text(out, debit.feature);
            out.push(u8::from(debit.allow_partial));
            put_texts(out, debit.reason_code, debit.reference, &debit.metadata);
        }
        Operation::Hold(hold) => {
            out.push(OP_HOLD);
            put_payer(out, hold.payer);
            put_decimal(out, hold.amount);
            put_u64(out, hold.ttl.map_or(0, |ttl| ttl.0));
            out.push(hold.charge_type.map_or(0, ChargeType::code));
            put_optional_text(out, hold.feature);
            put_texts(out, hold.reason_code, hold.reference, &hold.metadata);
        }
        Operation::ExtendHold(extend) => {
            out.push(OP_EXTEND_HOLD);
            put_u64(out, extend.hold.0);
            put_u64(out, extend.ttl.0);
            put_text(out, extend.reason_code);
        }
        Operation::Capture(capture) => {
            out.push(OP_CAPTURE);
            put_u64(out, capture.hold.0);
            out.push(u8::from(capture.amount.is_some()));
            if let Some(amount) = capture.amount {
                put_decimal(out, amount);
            }
            out.push(u8::from(capture.keep_open));
            put_texts(out, capture.reason_code, capture.reference, &capture.metadata);
        }
        Operation::Release(release) => {
            out.push(OP_RELEASE);
            put_u64(out, release.hold.0);
            put_texts(out, release.reason_code, release.reference, &release.metadata);
        }
        Operation::UpdateWallet(update) => {
            out.push(OP_UPDATE_WALLET);
            put_text(out, update.wallet);
            put_optional_u64(out, update.version);
            put_optional_u64(out, update.draw_priority.map(u64::from));
            put_optional_u64(out, update.scope.map(|scope| u64::from(scope.code())));
            put_text(out, update.reason_code);
        }
        Operation::CloseWallet(close) => {
            out.push(OP_CLOSE_WALLET);
            put_text(out, close.wallet);
            put_text(out, close.reason_code);
        }
        Operation::EndGrant(end) => {
            out.extend_from_slice(&[OP_END_GRANT, end.end as u8]);
            put_text(out, end.wallet);
            put_u64(out, end.tranche.0);
            put_texts(out, end.reason_code, end.reference, &end.metadata);
        }
        Operation::ConfirmGrant(confirm) => {
            out.push(OP_CONFIRM_GRANT);
            put_text(out, confirm.wallet);
            put_u64(out, confirm.tranche.0);
            out.push(u8::from(confirm.expiry.is_some()));
            confirm.expiry.iter().for_each(|expiry| put_expiry(out, *expiry));
            put_texts(out, confirm.reason_code, confirm.reference, &confirm.metadata);
        }
        Operation::Refund(refund) => {
            out.push(OP_REFUND);
            put_u64(out, refund.movement.0);
            out.push(u8::from(refund.amount.is_some()));
            refund.amount.iter().for_each(|amount| put_decimal(out, *amount));
            put_optional_u64(out, refund.grace.map(|grace| grace.0));
            put_texts(out, refund.reason_code, refund.reference, &refund.metadata);
        }
        Operation::Adjust(adjust) => {
            out.push(OP_ADJUST);
            put_text(out, adjust.wallet);
            match adjust.change {
                Change::Up { amount, expiry } => {
                    out.push(1);
                    put_decimal(out, amount);
                    put_expiry(out, expiry);
                }
                Change::Down { amount, tranche } => {
                    out.push(2);
                    put_decimal(out, amount);
                    put_optional_u64(out, tranche.map(|tranche| tranche.0));
                }
            }
            put_texts(out, adjust.reason_code, adjust.reference, &adjust.metadata);
        }
    }
}

fn encode_spec(out: &mut Vec<u8>, spec: &TrancheSpec<'_>) {
    put_decimal(out, spec.amount);
    out.push(spec.kind.code() | u8::from(spec.pending) << 4);
    put_u64(out, u64::from(spec.priority));
    match spec.effective_at {
        None => out.push(0),
        Some(time) => {
            out.push(1);
            put_u64(out, time.0);
        }
    }
    put_expiry(out, spec.expiry);
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

#[inline(always)] // Every debit has one.
fn put_payer(out: &mut Vec<u8>, payer: Payer<'_>) {
    match payer {
        Payer::Wallet(wallet) => {
            out.push(0);
            put_text(out, wallet);
        }
        Payer::CustomerIn(asset) => {
            out.push(1);
            put_asset(out, asset);
        }
    }
}

fn put_expiry(out: &mut Vec<u8>, expiry: Expiry<'_>) {
    match expiry {
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
}

fn put_optional_u64(out: &mut Vec<u8>, value: Option<u64>) {
    out.push(u8::from(value.is_some()));
    value.iter().for_each(|value| put_u64(out, *value));
}

/// What the caller says of a movement: why, its own reference, its own pairs.
#[inline(always)] // Every debit has them.
fn put_texts(out: &mut Vec<u8>, reason_code: &str, reference: &str, metadata: &[(&str, &str)]) {
    put_text(out, reason_code);
    put_text(out, reference);
    put_metadata(out, metadata);
}

/// Appends an asset.
fn put_asset(out: &mut Vec<u8>, asset: Asset<'_>) {
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

/// Reads what [`encode_command`] wrote.
pub(super) fn decode_command<'a>(bytes: &'a [u8]) -> Result<Item<'a>, Damage> {
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
    match &mut operation {
        Operation::Grant(grant) => {
            grant.tranches.iter_mut().try_for_each(|spec| resolve(&mut reader, &mut spec.expiry))?;
        }
        Operation::Adjust(Adjust { change: Change::Up { expiry, .. }, .. }) => resolve(&mut reader, expiry)?,
        Operation::ConfirmGrant(confirm) => {
            confirm.expiry.iter_mut().try_for_each(|expiry| resolve(&mut reader, expiry))?;
            confirm.lifetime = match reader.u64("resolved lifetime")? {
                0 => None,
                time => Some(Time(time)),
            };
        }
        _ => {}
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
        OP_DEBIT => Operation::Debit(Debit {
            payer: payer(&mut reader)?,
            amount: decimal(&mut reader)?,
            charge_type: charge_type(&mut reader)?,
            feature: optional_text(&mut reader, "feature")?,
            allow_partial: flag(&mut reader, "allow_partial")?,
            reason_code: reader.text("reason_code")?,
            reference: reader.text("reference")?,
            metadata: metadata(&mut reader)?,
        }),
        OP_HOLD => Operation::Hold(Hold {
            payer: payer(&mut reader)?,
            amount: decimal(&mut reader)?,
            ttl: match reader.u64("ttl")? {
                0 => None,
                ttl => Some(Span(ttl)),
            },
            charge_type: charge_type(&mut reader)?,
            feature: optional_text(&mut reader, "feature")?,
            reason_code: reader.text("reason_code")?,
            reference: reader.text("reference")?,
            metadata: metadata(&mut reader)?,
        }),
        OP_EXTEND_HOLD => Operation::ExtendHold(ExtendHold {
            hold: HoldId(reader.u64("hold")?),
            ttl: Span(reader.u64("ttl")?),
            reason_code: reader.text("reason_code")?,
        }),
        OP_CAPTURE => Operation::Capture(Capture {
            hold: HoldId(reader.u64("hold")?),
            amount: match flag(&mut reader, "amount")? {
                false => None,
                true => Some(decimal(&mut reader)?),
            },
            keep_open: flag(&mut reader, "keep_open")?,
            reason_code: reader.text("reason_code")?,
            reference: reader.text("reference")?,
            metadata: metadata(&mut reader)?,
        }),
        OP_RELEASE => Operation::Release(Release {
            hold: HoldId(reader.u64("hold")?),
            reason_code: reader.text("reason_code")?,
            reference: reader.text("reference")?,
            metadata: metadata(&mut reader)?,
        }),
        OP_UPDATE_WALLET => Operation::UpdateWallet(UpdateWallet {
            wallet: reader.text("wallet")?,
            version: optional_u64(&mut reader, "version")?,
            draw_priority: match flag(&mut reader, "draw_priority")? {
                false => None,
                true => Some(reader.narrow("draw_priority")?),
            },
            scope: match flag(&mut reader, "scope")? {
                false => None,
                true => Some(ChargeScope::from_code(reader.byte("scope")?)?),
            },
            reason_code: reader.text("reason_code")?,
        }),
        OP_CLOSE_WALLET => Operation::CloseWallet(CloseWallet {
            wallet: reader.text("wallet")?,
            reason_code: reader.text("reason_code")?,
        }),
        OP_END_GRANT => Operation::EndGrant(EndGrant {
            end: match reader.byte("grant end")? {
                1 => GrantEnd::Failed,
                2 => GrantEnd::Voided,
                _ => return Err(Damage("grant end")),
            },
            wallet: reader.text("wallet")?,
            tranche: TrancheId(reader.u64("tranche")?),
            reason_code: reader.text("reason_code")?,
            reference: reader.text("reference")?,
            metadata: metadata(&mut reader)?,
        }),
        OP_CONFIRM_GRANT => Operation::ConfirmGrant(ConfirmGrant {
            wallet: reader.text("wallet")?,
            tranche: TrancheId(reader.u64("tranche")?),
            expiry: match flag(&mut reader, "expiry")? {
                false => None,
                true => Some(expiry(&mut reader)?),
            },
            lifetime: None,
            reason_code: reader.text("reason_code")?,
            reference: reader.text("reference")?,
            metadata: metadata(&mut reader)?,
        }),
        OP_REFUND => Operation::Refund(Refund {
            movement: RecordId(reader.u64("movement")?),
            amount: match flag(&mut reader, "amount")? {
                false => None,
                true => Some(decimal(&mut reader)?),
            },
            grace: optional_u64(&mut reader, "grace")?.map(Span),
            reason_code: reader.text("reason_code")?,
            reference: reader.text("reference")?,
            metadata: metadata(&mut reader)?,
        }),
        OP_ADJUST => Operation::Adjust(Adjust {
            wallet: reader.text("wallet")?,
            change: match reader.byte("change")? {
                1 => Change::Up { amount: decimal(&mut reader)?, expiry: expiry(&mut reader)? },
                2 => Change::Down {
                    amount: decimal(&mut reader)?,
                    tranche: optional_u64(&mut reader, "tranche")?.map(TrancheId),
                },
                _ => return Err(Damage("change")),
            },
            reason_code: reader.text("reason_code")?,
            reference: reader.text("reference")?,
            metadata: metadata(&mut reader)?,
        }),
        _ => return Err(Damage("operation")),
    };
    reader.finish("command body")?;
    Ok((customer, operation))
}

fn decode_spec<'a>(reader: &mut Reader<'a>) -> Result<TrancheSpec<'a>, Damage> {
    let amount = decimal(reader)?;
    let packed = reader.byte("kind")?;
    let kind = TrancheKind::from_code(packed & 15)?;
    let pending = match packed >> 4 {
        0 => false,
        1 => true,
        _ => return Err(Damage("kind")),
    };
    let priority = reader.narrow("priority")?;
    let effective_at = match flag(reader, "effective_at")? {
        false => None,
        true => Some(Time(reader.u64("effective_at")?)),
    };
    let expiry = expiry(reader)?;
    let scope = ChargeScope::from_code(reader.byte("scope")?)?;
    let count: usize = reader.narrow("feature count")?;
    let mut features = Vec::with_capacity(count.min(64));
    for _ in 0..count {
        features.push(reader.text("feature")?);
    }
    Ok(TrancheSpec {
        amount,
        pending,
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

fn expiry<'a>(reader: &mut Reader<'a>) -> Result<Expiry<'a>, Damage> {
    Ok(match reader.byte("expiry")? {
        EXPIRY_NEVER => Expiry::Never,
        EXPIRY_AT => Expiry::At(Time(reader.u64("expires_at")?)),
        EXPIRY_AFTER => Expiry::After {
            span: reader.text("expires_in")?,
            zone: reader.text("time zone")?,
            resolved: Time::ZERO,
        },
        _ => return Err(Damage("expiry")),
    })
}

/// Puts in what the leader resolved.
fn resolve(reader: &mut Reader<'_>, expiry: &mut Expiry<'_>) -> Result<(), Damage> {
    if let Expiry::After { resolved, .. } = expiry {
        *resolved = Time(reader.u64("resolved expiry")?);
    }
    Ok(())
}

fn optional_u64(reader: &mut Reader<'_>, what: &'static str) -> Result<Option<u64>, Damage> {
    Ok(if flag(reader, what)? { Some(reader.u64(what)?) } else { None })
}

fn payer<'a>(reader: &mut Reader<'a>) -> Result<Payer<'a>, Damage> {
    match reader.byte("payer")? {
        0 => Ok(Payer::Wallet(reader.text("wallet")?)),
        1 => Ok(Payer::CustomerIn(asset(reader)?)),
        _ => Err(Damage("payer")),
    }
}

fn charge_type(reader: &mut Reader<'_>) -> Result<Option<ChargeType>, Damage> {
    match reader.byte("charge_type")? {
        0 => Ok(None),
        code => ChargeType::from_code(code).map(Some),
    }
}

/// Reads an asset.
fn asset<'a>(reader: &mut Reader<'a>) -> Result<Asset<'a>, Damage> {
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
