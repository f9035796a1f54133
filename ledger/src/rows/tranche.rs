//! A tranche's own row: what was granted, and what became of it. It is written when the tranche is
//! granted and rewritten only when its life changes (activation, expiry, void), never by a plain debit or
//! hold: what is left of an open tranche stands in its wallet's row or in its open-tranche row. An `Open`
//! tranche that has neither is exhausted.

use std::sync::Arc;

use crate::amount::Amount;
use crate::codec::{Damage, Reader, put_text, put_u64, put_u128};
use crate::command::{ChargeScope, Expiry, TrancheKind, TrancheSpec, put_decimal, put_metadata};
use crate::ids::{RecordId, TrancheId};
use crate::rows::open::OpenTranche;
use crate::time::Time;

const VERSION: u8 = 1;

/// The life of a tranche in its byte; the flags beside it say which parts follow.
const LIFE: u8 = 7;
const FLAG_HELD: u8 = 8;
const FLAG_EXPIRED: u8 = 16;
const FLAG_VOIDED: u8 = 32;
const FLAG_LIFETIME: u8 = 64;
const FLAG_RESTORED: u8 = 128;

/// The life of a tranche as its row tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrancheLife {
    /// It becomes active at its effective time.
    Scheduled,
    /// It was activated; exhausted if nothing of it is open.
    Open,
    /// Its expiry was booked.
    Expired,
    /// It waits for its invoice.
    Pending,
    /// What was left of it was withdrawn.
    Voided,
    /// Its invoice was not paid.
    Failed,
}

/// A tranche.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrancheRow {
    /// Where it stands in its life.
    pub life: TrancheLife,
    /// What was granted.
    pub amount: Amount,
    /// What open holds have set aside of it, as far as its wallet's row had no room to tell.
    pub held: Amount,
    /// What lapsed of it.
    pub expired: Amount,
    /// What was withdrawn of it.
    pub voided: Amount,
    /// What sort of credit.
    pub kind: TrancheKind,
    /// Lower burns first.
    pub priority: u16,
    /// Which charges it pays.
    pub scope: ChargeScope,
    /// Since when it may be spent.
    pub effective_at: Time,
    /// Until when. Of a pending one with a lifetime not known yet: [`Time::NEVER`].
    pub expires_at: Time,
    /// The lifetime of a pending one, which counts from its activation: a span and a zone, as granted.
    pub lifetime: Option<(String, String)>,
    /// Its end before a refund restored it for a grace; `None` for one that never was.
    pub first_end: Option<Time>,
    /// When it was granted, in ledger time.
    pub created_at: Time,
    /// The features it is limited to; `None` is any.
    pub features: Option<Arc<[String]>>,
    /// A name for people.
    pub label: String,
    /// Why it was granted.
    pub reason_code: String,
    /// The caller's unique reference; empty is none.
    pub external_reference: String,
    /// What was paid for it: currency and amount.
    pub cost: Option<(String, crate::amount::Decimal)>,
    /// The caller's pairs.
    pub metadata: Vec<(String, String)>,
    /// The movement that granted it.
    pub granted_by: RecordId,
}

impl TrancheRow {
    /// A tranche as its grant wants it.
    pub fn new(spec: &TrancheSpec<'_>, amount: Amount, now: Time) -> TrancheRow {
        let effective_at = spec.effective_at.unwrap_or(now);
        let life = match spec.pending {
            true => TrancheLife::Pending,
            false if effective_at > now => TrancheLife::Scheduled,
            false => TrancheLife::Open,
        };
        let (expires_at, lifetime) = match spec.expiry {
            Expiry::After { span, zone, .. } if spec.pending => {
                (Time::NEVER, Some((span.to_owned(), zone.to_owned())))
            }
            expiry => (expiry.at(), None),
        };
        let features: Vec<String> = spec.features.iter().map(|&feature| feature.to_owned()).collect();
        TrancheRow {
            life,
            amount,
            held: Amount::ZERO,
            expired: Amount::ZERO,
            voided: Amount::ZERO,
            kind: spec.kind,
            priority: spec.priority,
            scope: spec.scope,
            effective_at,
            expires_at,
            lifetime,
            first_end: None,
            created_at: now,
            features: (!features.is_empty()).then(|| features.into()),
            label: spec.label.to_owned(),
            reason_code: spec.reason_code.to_owned(),
            external_reference: spec.external_reference.to_owned(),
            cost: spec.cost.map(|cost| (cost.currency.to_owned(), cost.amount)),
            metadata: spec
                .metadata
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
            granted_by: RecordId::NONE,
        }
    }

    /// Until when it may be spent, as its grant or confirmation said.
    pub fn granted_until(&self) -> Time {
        self.first_end.unwrap_or(self.expires_at)
    }

    /// The tranche as it enters the burn order, with all of it available.
    pub fn to_open(&self, id: TrancheId) -> OpenTranche {
        OpenTranche {
            id,
            available: self.amount,
            priority: self.priority,
            kind: self.kind,
            scope: self.scope,
            effective_at: self.effective_at,
            expires_at: self.expires_at,
            features: self.features.clone(),
        }
    }

    /// The row.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(64);
        out.push(VERSION);
        let life = match self.life {
            TrancheLife::Scheduled => 1,
            TrancheLife::Open => 2,
            TrancheLife::Expired => 3,
            TrancheLife::Pending => 4,
            TrancheLife::Voided => 5,
            TrancheLife::Failed => 6,
        };
        let life = life | if self.lifetime.is_some() { FLAG_LIFETIME } else { 0 };
        let life = life | if self.first_end.is_some() { FLAG_RESTORED } else { 0 };
        let parts = [(self.held, FLAG_HELD), (self.expired, FLAG_EXPIRED), (self.voided, FLAG_VOIDED)];
        let there = parts.iter().filter(|(part, _)| *part != Amount::ZERO);
        out.push(there.clone().fold(life, |packed, (_, flag)| packed | flag));
        there.for_each(|(part, _)| put_u128(&mut out, part.0 as u128));
        put_u128(&mut out, self.amount.0 as u128);
        out.push(self.kind.code());
        put_u64(&mut out, u64::from(self.priority));
        out.push(self.scope.code());
        put_u64(&mut out, self.effective_at.0);
        put_u64(&mut out, self.expires_at.0.wrapping_add(1));
        if let Some((span, zone)) = &self.lifetime {
            put_text(&mut out, span);
            put_text(&mut out, zone);
        }
        if let Some(end) = self.first_end {
            put_u64(&mut out, end.0);
        }
        put_u64(&mut out, self.created_at.0);
        let features = self.features.as_deref().unwrap_or_default();
        put_u64(&mut out, features.len() as u64);
        features.iter().for_each(|feature| put_text(&mut out, feature));
        put_text(&mut out, &self.label);
        put_text(&mut out, &self.reason_code);
        put_text(&mut out, &self.external_reference);
        match &self.cost {
            None => out.push(0),
            Some((currency, amount)) => {
                out.push(1);
                put_text(&mut out, currency);
                put_decimal(&mut out, *amount);
            }
        }
        let pairs: Vec<_> =
            self.metadata.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        put_metadata(&mut out, &pairs);
        put_u64(&mut out, self.granted_by.0);
        out
    }

    /// Reads the row.
    pub fn decode(row: &[u8]) -> Result<TrancheRow, Damage> {
        let mut reader = Reader::new(row);
        if reader.byte("tranche version")? != VERSION {
            return Err(Damage("tranche version"));
        }
        let amount = |reader: &mut Reader<'_>| {
            i128::try_from(reader.u128("tranche amount")?).map(Amount).map_err(|_| Damage("tranche amount"))
        };
        let packed = reader.byte("tranche life")?;
        let life = match packed & LIFE {
            1 => TrancheLife::Scheduled,
            2 => TrancheLife::Open,
            3 => TrancheLife::Expired,
            4 => TrancheLife::Pending,
            5 => TrancheLife::Voided,
            6 => TrancheLife::Failed,
            _ => return Err(Damage("tranche life")),
        };
        let mut part = |flag| if packed & flag != 0 { amount(&mut reader) } else { Ok(Amount::ZERO) };
        let (held, expired, voided) = (part(FLAG_HELD)?, part(FLAG_EXPIRED)?, part(FLAG_VOIDED)?);
        let amount = amount(&mut reader)?;
        let kind = TrancheKind::from_code(reader.byte("kind")?)?;
        let priority = reader.narrow("priority")?;
        let scope = ChargeScope::from_code(reader.byte("scope")?)?;
        let effective_at = Time(reader.u64("effective_at")?);
        let expires_at = Time(reader.u64("expires_at")?.wrapping_sub(1));
        let lifetime = match packed & FLAG_LIFETIME {
            0 => None,
            _ => Some((reader.text("lifetime")?.to_owned(), reader.text("lifetime")?.to_owned())),
        };
        let first_end = match packed & FLAG_RESTORED {
            0 => None,
            _ => Some(Time(reader.u64("first end")?)),
        };
        let created_at = Time(reader.u64("created_at")?);
        let count: usize = reader.narrow("feature count")?;
        let mut features = Vec::with_capacity(count.min(64));
        for _ in 0..count {
            features.push(reader.text("feature")?.to_owned());
        }
        let tranche = TrancheRow {
            life,
            amount,
            held,
            expired,
            voided,
            kind,
            priority,
            scope,
            effective_at,
            expires_at,
            lifetime,
            first_end,
            created_at,
            features: (!features.is_empty()).then(|| features.into()),
            label: reader.text("label")?.to_owned(),
            reason_code: reader.text("reason_code")?.to_owned(),
            external_reference: reader.text("external_reference")?.to_owned(),
            cost: match reader.byte("cost")? {
                0 => None,
                1 => Some((reader.text("currency")?.to_owned(), crate::command::decimal(&mut reader)?)),
                _ => return Err(Damage("cost")),
            },
            metadata: crate::command::metadata(&mut reader)?
                .into_iter()
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect(),
            granted_by: RecordId(reader.u64("granted_by")?),
        };
        reader.finish("tranche")?;
        Ok(tranche)
    }
}
