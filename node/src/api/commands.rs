//! Requests into commands: validation and what only the leader resolves (calendar spans).
//!
//! Plain functions: the gRPC handlers call them, and so does the simulation.

use purser_ledger::command::{
    Adjust, BurnPolicy, Capture, Change, ChargeScope, ChargeType, CloseWallet, Command, ConfirmGrant, Cost,
    CreateWallet, Debit, EndGrant, Expiry, ExtendHold, FreezeWallet, Grant, GrantEnd, Header, Hold,
    Operation, Payer, Refund, Release, TrancheKind, TrancheSpec, UpdateWallet,
};
use purser_ledger::ids::{Customer, ID_BYTES_MAX};
use purser_ledger::rows::tranche::TrancheRow;
use purser_ledger::time::{Span, Time};
use purser_proto::v1;

use super::shape::{FEATURES_MAX, Fault, Shape, Violation};

/// The furthest that a deadline may lie ahead, and the deadline of a command that names none.
pub const VALID_FOR_MAX: Span = Span::from_secs(15 * 60);
/// How long a verdict is remembered.
pub const RETENTION: Span = Span::from_secs(24 * 60 * 60);
/// Most tranches of one grant.
pub const TRANCHES_PER_GRANT_MAX: usize = 100;
/// The longest label, reason code, reference, feature.
const WORD_BYTES_MAX: usize = 128;
/// The longest currency code.
const CURRENCY_BYTES_MAX: usize = 32;
/// The longest calendar span or zone name.
const CALENDAR_BYTES_MAX: usize = 64;

/// A request that is well formed, or the fields at fault.
pub type Shaped<T> = Result<T, Vec<Violation>>;

fn header<'a>(
    shape: &mut Shape,
    now: Time,
    customer: Customer<'a>,
    key: &'a str,
    valid_until: Option<&prost_types::Timestamp>,
) -> Header<'a> {
    let latest = now.saturating_add(VALID_FOR_MAX);
    let valid_until = match valid_until {
        None => latest,
        Some(stamp) => {
            let time = shape.time("valid_until", stamp);
            if time > latest {
                shape.invalid("valid_until", "at most 15 minutes ahead of the server's clock");
            }
            time
        }
    };
    Header { customer, key: shape.key(key), valid_until, retention: RETENTION, actor: "" }
}

fn scope(shape: &mut Shape, field: &str, code: i32) -> ChargeScope {
    match v1::ChargeScope::try_from(code) {
        Ok(v1::ChargeScope::Unspecified | v1::ChargeScope::Any) => ChargeScope::Any,
        Ok(v1::ChargeScope::Usage) => ChargeScope::Usage,
        Ok(v1::ChargeScope::Fixed) => ChargeScope::Fixed,
        Err(_) => {
            shape.invalid(field, format!("{code} is not a charge scope"));
            ChargeScope::Any
        }
    }
}

/// `CreateWallet`.
pub fn create_wallet(request: &v1::CreateWalletRequest, now: Time) -> Shaped<Command<'_>> {
    let mut shape = Shape::new();
    let customer = shape.customer(&request.namespace, &request.customer);
    let header = header(&mut shape, now, customer, &request.idempotency_key, request.valid_until.as_ref());
    let burn_policy = match v1::BurnPolicy::try_from(request.burn_policy) {
        Ok(v1::BurnPolicy::Unspecified | v1::BurnPolicy::Standard) => BurnPolicy::Standard,
        Ok(v1::BurnPolicy::SpecificFirst) => BurnPolicy::SpecificFirst,
        Err(_) => {
            shape.invalid("burn_policy", format!("{} is not a burn policy", request.burn_policy));
            BurnPolicy::Standard
        }
    };
    let create = CreateWallet {
        wallet: shape.required("wallet", &request.wallet, ID_BYTES_MAX),
        asset: shape.asset("asset", request.asset.as_ref()),
        draw_priority: shape.priority("draw_priority", request.draw_priority),
        scope: scope(&mut shape, "charge_scope", request.charge_scope),
        burn_policy,
    };
    shape.finish(Command { header, operation: Operation::CreateWallet(create) })
}

/// `FreezeWallet`.
pub fn freeze_wallet(request: &v1::FreezeWalletRequest, now: Time) -> Shaped<Command<'_>> {
    let mut shape = Shape::new();
    let customer = shape.customer(&request.namespace, &request.customer);
    let header = header(&mut shape, now, customer, &request.idempotency_key, request.valid_until.as_ref());
    let freeze = FreezeWallet {
        wallet: shape.required("wallet", &request.wallet, ID_BYTES_MAX),
        frozen: request.frozen,
        reason_code: shape.optional("reason_code", &request.reason_code, WORD_BYTES_MAX),
    };
    shape.finish(Command { header, operation: Operation::FreezeWallet(freeze) })
}

/// `UpdateWallet`.
pub fn update_wallet(request: &v1::UpdateWalletRequest, now: Time) -> Shaped<Command<'_>> {
    let mut shape = Shape::new();
    let customer = shape.customer(&request.namespace, &request.customer);
    let header = header(&mut shape, now, customer, &request.idempotency_key, request.valid_until.as_ref());
    let scoped = request.charge_scope != i32::from(v1::ChargeScope::Unspecified);
    if request.draw_priority.is_none() && !scoped {
        shape.invalid("draw_priority", "required: this or charge_scope, or there is nothing to change");
    }
    let draw_priority = request.draw_priority.map(|value| shape.priority("draw_priority", Some(value)));
    let update = UpdateWallet {
        wallet: shape.required("wallet", &request.wallet, ID_BYTES_MAX),
        version: request.version,
        draw_priority,
        scope: scoped.then(|| scope(&mut shape, "charge_scope", request.charge_scope)),
        reason_code: shape.optional("reason_code", &request.reason_code, WORD_BYTES_MAX),
    };
    shape.finish(Command { header, operation: Operation::UpdateWallet(update) })
}

/// `CloseWallet`.
pub fn close_wallet(request: &v1::CloseWalletRequest, now: Time) -> Shaped<Command<'_>> {
    let mut shape = Shape::new();
    let customer = shape.customer(&request.namespace, &request.customer);
    let header = header(&mut shape, now, customer, &request.idempotency_key, request.valid_until.as_ref());
    let close = CloseWallet {
        wallet: shape.required("wallet", &request.wallet, ID_BYTES_MAX),
        reason_code: shape.optional("reason_code", &request.reason_code, WORD_BYTES_MAX),
    };
    shape.finish(Command { header, operation: Operation::CloseWallet(close) })
}

/// `Grant`. Calendar spans are counted from the later of now and the effective time.
pub fn grant(request: &v1::GrantRequest, now: Time) -> Shaped<Command<'_>> {
    let mut shape = Shape::new();
    let customer = shape.customer(&request.namespace, &request.customer);
    let header = header(&mut shape, now, customer, &request.idempotency_key, request.valid_until.as_ref());
    let wallet = shape.required("wallet", &request.wallet, ID_BYTES_MAX);
    if request.tranches.is_empty() {
        shape.invalid("tranches", format!("required: 1 to {TRANCHES_PER_GRANT_MAX} tranches"));
    }
    if request.tranches.len() > TRANCHES_PER_GRANT_MAX {
        let count = request.tranches.len();
        shape.fault("tranches", Fault::Limit, format!("at most {TRANCHES_PER_GRANT_MAX}, not {count}"));
    }
    let tranches = request.tranches.iter().take(TRANCHES_PER_GRANT_MAX).enumerate();
    let tranches = tranches.map(|(place, spec)| tranche(&mut shape, now, place, spec)).collect();
    shape.finish(Command { header, operation: Operation::Grant(Grant { wallet, tranches }) })
}

fn tranche<'a>(shape: &mut Shape, now: Time, place: usize, spec: &'a v1::TrancheSpec) -> TrancheSpec<'a> {
    let field = |name: &str| format!("tranches[{place}].{name}");
    let kind = match v1::TrancheKind::try_from(spec.kind) {
        Ok(v1::TrancheKind::Plan) => TrancheKind::Plan,
        Ok(v1::TrancheKind::Promotional) => TrancheKind::Promotional,
        Ok(v1::TrancheKind::Rollover) => TrancheKind::Rollover,
        Ok(v1::TrancheKind::Correction) => TrancheKind::Correction,
        Ok(v1::TrancheKind::Committed) => TrancheKind::Committed,
        Ok(v1::TrancheKind::Purchased) => TrancheKind::Purchased,
        Ok(v1::TrancheKind::Unspecified) | Err(_) => {
            shape.invalid(field("kind"), "required: where the credit comes from, such as PURCHASED");
            TrancheKind::Purchased
        }
    };
    let effective_at = spec.effective_at.as_ref().map(|stamp| shape.time(&field("effective_at"), stamp));
    let expiry = match &spec.expiry {
        None => Expiry::Never,
        Some(v1::tranche_spec::Expiry::ExpiresAt(stamp)) => {
            Expiry::At(shape.time(&field("expires_at"), stamp))
        }
        Some(v1::tranche_spec::Expiry::ExpiresIn(span)) => {
            let from = effective_at.unwrap_or(now).max(now);
            calendar(shape, &field("expires_in"), span, from)
        }
    };
    if let (Expiry::At(expires_at), Some(effective_at)) = (expiry, effective_at)
        && expires_at <= effective_at
    {
        shape.invalid(field("expires_at"), "must be later than effective_at");
    }
    let mut features: Vec<&str> = spec.features.iter().map(String::as_str).collect();
    features.sort_unstable();
    features.dedup();
    if features.len() > FEATURES_MAX {
        shape.fault(
            field("features"),
            Fault::Limit,
            format!("at most {FEATURES_MAX}, not {}", features.len()),
        );
    }
    for feature in &features {
        shape.required(&field("features"), feature, WORD_BYTES_MAX);
    }
    let cost = spec.cost_basis.as_ref().map(|money| cost(shape, &field("cost_basis"), money));
    TrancheSpec {
        amount: shape.amount(&field("amount"), &spec.amount),
        pending: spec.pending,
        kind,
        priority: shape.priority(&field("priority"), spec.priority),
        effective_at,
        expiry,
        scope: scope(shape, &field("charge_scope"), spec.charge_scope),
        features,
        label: shape.optional(&field("label"), &spec.label, WORD_BYTES_MAX),
        reason_code: shape.optional(&field("reason_code"), &spec.reason_code, WORD_BYTES_MAX),
        external_reference: shape.optional(
            &field("external_reference"),
            &spec.external_reference,
            WORD_BYTES_MAX,
        ),
        cost,
        metadata: shape.metadata(&field("metadata"), &spec.metadata),
    }
}

fn cost<'a>(shape: &mut Shape, field: &str, money: &'a v1::Money) -> Cost<'a> {
    let amount = match purser_ledger::amount::Decimal::parse(&money.amount) {
        Ok(amount) => amount,
        Err(error) => {
            shape.invalid(format!("{field}.amount"), error.to_string());
            purser_ledger::amount::Decimal::default()
        }
    };
    Cost {
        currency: shape.required(&format!("{field}.currency"), &money.currency, CURRENCY_BYTES_MAX),
        amount,
    }
}

/// Counts a calendar span from an instant on the wall clock of a zone.
fn calendar<'a>(shape: &mut Shape, field: &str, span: &'a v1::CalendarDuration, from: Time) -> Expiry<'a> {
    let text = shape.required(&format!("{field}.duration"), &span.duration, CALENDAR_BYTES_MAX);
    let zone = if span.time_zone.is_empty() { "UTC" } else { span.time_zone.as_str() };
    let zone = shape.optional(&format!("{field}.time_zone"), zone, CALENDAR_BYTES_MAX);
    let resolved = match resolve(text, zone, from) {
        Ok(resolved) => resolved,
        Err(CalendarError::Zone) => {
            shape.invalid(format!("{field}.time_zone"), "not an IANA time zone, such as Europe/Berlin");
            Time::ZERO
        }
        Err(CalendarError::Span) => {
            let wanted = "an ISO 8601 duration above zero that ends before the year 10000, such as P1M";
            shape.invalid(format!("{field}.duration"), wanted);
            Time::ZERO
        }
    };
    Expiry::After { span: text, zone, resolved }
}

enum CalendarError {
    Zone,
    Span,
}

fn resolve(span: &str, zone: &str, from: Time) -> Result<Time, CalendarError> {
    let zone = jiff::tz::TimeZone::get(zone).map_err(|_| CalendarError::Zone)?;
    let span: jiff::Span = span.parse().map_err(|_| CalendarError::Span)?;
    let micros = i64::try_from(from.0).map_err(|_| CalendarError::Span)?;
    let start = jiff::Timestamp::from_microsecond(micros).map_err(|_| CalendarError::Span)?;
    let end = start.to_zoned(zone).checked_add(span).map_err(|_| CalendarError::Span)?;
    let end = u64::try_from(end.timestamp().as_microsecond()).map_err(|_| CalendarError::Span)?;
    let later = end > from.0 && end <= Time::LATEST.0;
    if later { Ok(Time(end)) } else { Err(CalendarError::Span) }
}

/// `ConfirmGrant`, of a tranche as it stands now: its own lifetime, and a span that is given, are counted
/// from the later of now and its effective time.
pub fn confirm_grant<'a>(
    request: &'a v1::ConfirmGrantRequest,
    now: Time,
    tranche: Option<&TrancheRow>,
) -> Shaped<Command<'a>> {
    let mut shape = Shape::new();
    let customer = shape.customer(&request.namespace, &request.customer);
    let header = header(&mut shape, now, customer, &request.idempotency_key, request.valid_until.as_ref());
    let from = tranche.map_or(now, |row| row.effective_at.max(now));
    let expiry = request.expiry.as_ref().map(|expiry| match expiry {
        v1::confirm_grant_request::Expiry::ExpiresAt(stamp) => Expiry::At(shape.time("expires_at", stamp)),
        v1::confirm_grant_request::Expiry::ExpiresIn(span) => calendar(&mut shape, "expires_in", span, from),
    });
    let lifetime = tranche.and_then(|row| row.lifetime.as_ref());
    let confirm = ConfirmGrant {
        wallet: shape.required("wallet", &request.wallet, ID_BYTES_MAX),
        tranche: shape.tranche("tranche_id", &request.tranche_id),
        expiry,
        lifetime: lifetime.map(|(span, zone)| resolve(span, zone, from).unwrap_or(Time::LATEST)),
        reason_code: shape.optional("reason_code", &request.reason_code, WORD_BYTES_MAX),
        reference: shape.optional("reference", &request.reference, WORD_BYTES_MAX),
        metadata: shape.metadata("metadata", &request.metadata),
    };
    shape.finish(Command { header, operation: Operation::ConfirmGrant(confirm) })
}

/// `FailGrant`.
pub fn fail_grant(request: &v1::FailGrantRequest, now: Time) -> Shaped<Command<'_>> {
    let mut shape = Shape::new();
    let customer = shape.customer(&request.namespace, &request.customer);
    let header = header(&mut shape, now, customer, &request.idempotency_key, request.valid_until.as_ref());
    let end = EndGrant {
        end: GrantEnd::Failed,
        wallet: shape.required("wallet", &request.wallet, ID_BYTES_MAX),
        tranche: shape.tranche("tranche_id", &request.tranche_id),
        reason_code: shape.optional("reason_code", &request.reason_code, WORD_BYTES_MAX),
        reference: shape.optional("reference", &request.reference, WORD_BYTES_MAX),
        metadata: shape.metadata("metadata", &request.metadata),
    };
    shape.finish(Command { header, operation: Operation::EndGrant(end) })
}

/// `VoidGrant`.
pub fn void_grant(request: &v1::VoidGrantRequest, now: Time) -> Shaped<Command<'_>> {
    let mut shape = Shape::new();
    let customer = shape.customer(&request.namespace, &request.customer);
    let header = header(&mut shape, now, customer, &request.idempotency_key, request.valid_until.as_ref());
    let end = EndGrant {
        end: GrantEnd::Voided,
        wallet: shape.required("wallet", &request.wallet, ID_BYTES_MAX),
        tranche: shape.tranche("tranche_id", &request.tranche_id),
        reason_code: shape.optional("reason_code", &request.reason_code, WORD_BYTES_MAX),
        reference: shape.optional("reference", &request.reference, WORD_BYTES_MAX),
        metadata: shape.metadata("metadata", &request.metadata),
    };
    shape.finish(Command { header, operation: Operation::EndGrant(end) })
}

/// `Refund`.
pub fn refund(request: &v1::RefundRequest, now: Time) -> Shaped<Command<'_>> {
    let mut shape = Shape::new();
    let customer = shape.customer(&request.namespace, &request.customer);
    let header = header(&mut shape, now, customer, &request.idempotency_key, request.valid_until.as_ref());
    let refund = Refund {
        movement: shape.movement("movement_id", &request.movement_id),
        amount: match request.amount.as_str() {
            "" => None,
            text => Some(shape.amount("amount", text)),
        },
        grace: request.grace.as_ref().map(|grace| shape.grace("grace", grace)),
        reason_code: shape.optional("reason_code", &request.reason_code, WORD_BYTES_MAX),
        reference: shape.optional("reference", &request.reference, WORD_BYTES_MAX),
        metadata: shape.metadata("metadata", &request.metadata),
    };
    shape.finish(Command { header, operation: Operation::Refund(refund) })
}

/// `Adjust`.
pub fn adjust(request: &v1::AdjustRequest, now: Time) -> Shaped<Command<'_>> {
    let mut shape = Shape::new();
    let customer = shape.customer(&request.namespace, &request.customer);
    let header = header(&mut shape, now, customer, &request.idempotency_key, request.valid_until.as_ref());
    let expires_at = request.expires_at.as_ref().map(|stamp| shape.time("expires_at", stamp));
    let tranche = match request.tranche_id.as_str() {
        "" => None,
        text => Some(shape.tranche("tranche_id", text)),
    };
    let change = match request.amount.strip_prefix('-') {
        Some(amount) => {
            if expires_at.is_some() {
                shape.invalid("expires_at", "only for a correction up");
            }
            Change::Down { amount: shape.amount("amount", amount), tranche }
        }
        None => {
            if tranche.is_some() {
                shape.invalid("tranche_id", "only for a correction down: an amount with a leading '-'");
            }
            let expiry = expires_at.map_or(Expiry::Never, Expiry::At);
            Change::Up { amount: shape.amount("amount", &request.amount), expiry }
        }
    };
    let adjust = Adjust {
        wallet: shape.required("wallet", &request.wallet, ID_BYTES_MAX),
        change,
        reason_code: shape.required("reason_code", &request.reason_code, WORD_BYTES_MAX),
        reference: shape.optional("reference", &request.reference, WORD_BYTES_MAX),
        metadata: shape.metadata("metadata", &request.metadata),
    };
    shape.finish(Command { header, operation: Operation::Adjust(adjust) })
}

/// `Debit`.
pub fn debit(request: &v1::DebitRequest, now: Time) -> Shaped<Command<'_>> {
    let mut shape = Shape::new();
    let customer = shape.customer(&request.namespace, &request.customer);
    let header = header(&mut shape, now, customer, &request.idempotency_key, request.valid_until.as_ref());
    let debit = debit_of(&mut shape, request);
    shape.finish(Command { header, operation: Operation::Debit(debit) })
}

/// The debit of an `Explain`, and whose it is: key and deadline are not looked at.
pub fn explain(request: &v1::ExplainRequest) -> Shaped<(Customer<'_>, Debit<'_>)> {
    let mut shape = Shape::new();
    let Some(request) = &request.debit else {
        shape.invalid("debit", "required");
        return shape.finish(()).and(Err(Vec::new()));
    };
    let customer = shape.customer(&request.namespace, &request.customer);
    let debit = debit_of(&mut shape, request);
    shape.finish((customer, debit))
}

fn debit_of<'a>(shape: &mut Shape, request: &'a v1::DebitRequest) -> Debit<'a> {
    let payer = match &request.payer {
        Some(v1::debit_request::Payer::Wallet(wallet)) => {
            Payer::Wallet(shape.required("wallet", wallet, ID_BYTES_MAX))
        }
        Some(v1::debit_request::Payer::Asset(asset)) => Payer::CustomerIn(shape.asset("asset", Some(asset))),
        None => no_payer(shape),
    };
    let charge_type = charge_type(shape, request.charge_type);
    let feature = shape.optional("feature", &request.feature, WORD_BYTES_MAX);
    Debit {
        payer,
        amount: shape.amount("amount", &request.amount),
        charge_type,
        feature: (!feature.is_empty()).then_some(feature),
        allow_partial: request.allow_partial,
        reason_code: shape.optional("reason_code", &request.reason_code, WORD_BYTES_MAX),
        reference: shape.optional("reference", &request.reference, WORD_BYTES_MAX),
        metadata: shape.metadata("metadata", &request.metadata),
    }
}

fn no_payer(shape: &mut Shape) -> Payer<'static> {
    shape.invalid("payer", "required: name a wallet, or an asset for all wallets of the customer");
    Payer::Wallet("")
}

#[inline(always)] // A debit pays for every call that it makes.
fn charge_type(shape: &mut Shape, code: i32) -> Option<ChargeType> {
    match v1::ChargeType::try_from(code) {
        Ok(v1::ChargeType::Unspecified) => None,
        Ok(v1::ChargeType::Usage) => Some(ChargeType::Usage),
        Ok(v1::ChargeType::Fixed) => Some(ChargeType::Fixed),
        Err(_) => {
            shape.invalid("charge_type", format!("{code} is not a charge type"));
            None
        }
    }
}

/// `Hold`.
pub fn hold(request: &v1::HoldRequest, now: Time) -> Shaped<Command<'_>> {
    let mut shape = Shape::new();
    let customer = shape.customer(&request.namespace, &request.customer);
    let header = header(&mut shape, now, customer, &request.idempotency_key, request.valid_until.as_ref());
    let payer = match &request.payer {
        Some(v1::hold_request::Payer::Wallet(wallet)) => {
            Payer::Wallet(shape.required("wallet", wallet, ID_BYTES_MAX))
        }
        Some(v1::hold_request::Payer::Asset(asset)) => Payer::CustomerIn(shape.asset("asset", Some(asset))),
        None => no_payer(&mut shape),
    };
    let feature = shape.optional("feature", &request.feature, WORD_BYTES_MAX);
    let hold = Hold {
        payer,
        amount: shape.amount("amount", &request.amount),
        ttl: request.ttl.as_ref().map(|ttl| shape.ttl("ttl", ttl)),
        charge_type: charge_type(&mut shape, request.charge_type),
        feature: (!feature.is_empty()).then_some(feature),
        reason_code: shape.optional("reason_code", &request.reason_code, WORD_BYTES_MAX),
        reference: shape.optional("reference", &request.reference, WORD_BYTES_MAX),
        metadata: shape.metadata("metadata", &request.metadata),
    };
    shape.finish(Command { header, operation: Operation::Hold(hold) })
}

/// `ExtendHold`.
pub fn extend_hold(request: &v1::ExtendHoldRequest, now: Time) -> Shaped<Command<'_>> {
    let mut shape = Shape::new();
    let customer = shape.customer(&request.namespace, &request.customer);
    let header = header(&mut shape, now, customer, &request.idempotency_key, request.valid_until.as_ref());
    let extend = ExtendHold {
        hold: shape.hold("hold_id", &request.hold_id),
        ttl: shape.ttl("ttl", &request.ttl.unwrap_or_default()),
        reason_code: shape.optional("reason_code", &request.reason_code, WORD_BYTES_MAX),
    };
    shape.finish(Command { header, operation: Operation::ExtendHold(extend) })
}

/// `Capture`.
pub fn capture(request: &v1::CaptureRequest, now: Time) -> Shaped<Command<'_>> {
    let mut shape = Shape::new();
    let customer = shape.customer(&request.namespace, &request.customer);
    let header = header(&mut shape, now, customer, &request.idempotency_key, request.valid_until.as_ref());
    let amount = match request.amount.as_str() {
        "" => None,
        text if request.keep_open => Some(shape.amount("amount", text)),
        text => shape.amount_or_zero("amount", text),
    };
    let capture = Capture {
        hold: shape.hold("hold_id", &request.hold_id),
        amount,
        keep_open: request.keep_open,
        reason_code: shape.optional("reason_code", &request.reason_code, WORD_BYTES_MAX),
        reference: shape.optional("reference", &request.reference, WORD_BYTES_MAX),
        metadata: shape.metadata("metadata", &request.metadata),
    };
    shape.finish(Command { header, operation: Operation::Capture(capture) })
}

/// `Release`.
pub fn release(request: &v1::ReleaseRequest, now: Time) -> Shaped<Command<'_>> {
    let mut shape = Shape::new();
    let customer = shape.customer(&request.namespace, &request.customer);
    let header = header(&mut shape, now, customer, &request.idempotency_key, request.valid_until.as_ref());
    let release = Release {
        hold: shape.hold("hold_id", &request.hold_id),
        reason_code: shape.optional("reason_code", &request.reason_code, WORD_BYTES_MAX),
        reference: shape.optional("reference", &request.reference, WORD_BYTES_MAX),
        metadata: shape.metadata("metadata", &request.metadata),
    };
    shape.finish(Command { header, operation: Operation::Release(release) })
}
