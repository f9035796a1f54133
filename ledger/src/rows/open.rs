//! Open tranches: active, with something available. They live in their wallet's row (the first
//! eight, which is where a plain debit finds them) or in rows of their own, ordered to burn.
//!
//! A tranche that is limited to features has a row under each of them, so that a debit looks only
//! at the classes that fit it: at most four, whatever else the wallet holds.

use std::cmp::Ordering;
use std::sync::Arc;

use crate::amount::Amount;
use crate::codec::{Damage, Reader, put_text, put_u64, put_u128};
use crate::command::{BurnPolicy, ChargeScope, ChargeType, TrancheKind};
use crate::ids::TrancheId;
use crate::simulation::{self, Bug};
use crate::time::Time;

/// An open tranche: what the burn order and a draw need.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenTranche {
    /// The tranche.
    pub id: TrancheId,
    /// What may still be spent of it.
    pub available: Amount,
    /// Lower burns first.
    pub priority: u16,
    /// What sort of credit.
    pub kind: TrancheKind,
    /// Which charges it pays.
    pub scope: ChargeScope,
    /// Since when it may be spent.
    pub effective_at: Time,
    /// Until when, [`Time::NEVER`] for ever.
    pub expires_at: Time,
    /// The features it is limited to, sorted; `None` is any.
    pub features: Option<Arc<[String]>>,
}

/// A group of open tranches that fit the same debits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Class<'a> {
    /// Which charges they pay.
    pub scope: ChargeScope,
    /// The feature they pay for; `None` is any.
    pub feature: Option<&'a str>,
}

/// What a debit is for: what a tranche's limits are held against.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Charge<'a> {
    /// Usage, fixed, or untyped.
    pub charge_type: Option<ChargeType>,
    /// The feature, if one is named.
    pub feature: Option<&'a str>,
}

impl<'a> Charge<'a> {
    /// The classes of tranches that may pay it.
    pub fn classes(self) -> impl Iterator<Item = Class<'a>> {
        let scopes = ChargeScope::ALL.iter().copied().filter(move |scope| scope.fits(self.charge_type));
        scopes.flat_map(move |scope| {
            let any = Class { scope, feature: None };
            let named = self.feature.map(|feature| Class { scope, feature: Some(feature) });
            [Some(any), named].into_iter().flatten()
        })
    }
}

/// Whether a bug that is planted takes what has expired for what has not.
pub(crate) fn is_off_by_one(now: Time, expires_at: Time) -> bool {
    simulation::has(Bug::ExpiryOffByOne) && now == expires_at
}

impl OpenTranche {
    /// Whether it may pay a charge at an instant: active, unexpired, in scope, not used up. Without a
    /// charge its scope does not matter.
    pub fn pays(&self, charge: Option<Charge<'_>>, now: Time) -> bool {
        self.available > Amount::ZERO
            && self.effective_at <= now
            && (now < self.expires_at || is_off_by_one(now, self.expires_at))
            && charge.is_none_or(|charge| self.fits(charge))
    }

    fn fits(&self, charge: Charge<'_>) -> bool {
        self.scope.fits(charge.charge_type)
            && match (&self.features, charge.feature) {
                (None, _) => true,
                (Some(_), None) => false,
                (Some(features), Some(feature)) => features.iter().any(|known| known == feature),
            }
    }

    /// 0 for a feature list, 1 for a charge type, 2 for neither.
    pub fn breadth(&self) -> u8 {
        match (&self.features, self.scope) {
            (Some(_), _) => 0,
            (None, ChargeScope::Usage | ChargeScope::Fixed) => 1,
            (None, ChargeScope::Any) => 2,
        }
    }

    /// Its place in the burn order, version 1, among the tranches of one wallet.
    pub fn burn_order(&self, other: &OpenTranche, policy: BurnPolicy) -> Ordering {
        let narrowness = |own: &OpenTranche| match policy {
            BurnPolicy::Standard => (0, own.breadth()),
            BurnPolicy::SpecificFirst => (own.breadth(), 0),
        };
        let key = |own: &OpenTranche| {
            let (before, behind) = narrowness(own);
            (own.priority, before, own.expires_at, own.kind, behind, own.effective_at, own.id)
        };
        key(self).cmp(&key(other))
    }

    /// The classes it has rows under when it lives outside its wallet's row.
    pub fn classes(&self) -> impl Iterator<Item = Class<'_>> {
        let any = self.features.is_none().then_some(Class { scope: self.scope, feature: None });
        let named = self.features.iter().flat_map(|features| features.iter());
        any.into_iter().chain(named.map(|feature| Class { scope: self.scope, feature: Some(feature) }))
    }

    /// Appends it to a row.
    pub fn encode(&self, out: &mut Vec<u8>) {
        put_u64(out, self.id.0);
        put_u128(out, self.available.0 as u128);
        put_u64(out, u64::from(self.priority));
        let limited = u8::from(self.features.is_some());
        out.push(self.kind.code() | self.scope.code() << 3 | limited << 5);
        put_u64(out, self.effective_at.0);
        // Never is the commonest expiry: zero stands for it, and a varint of zero is one byte.
        put_u64(out, self.expires_at.0.wrapping_add(1));
        if let Some(features) = &self.features {
            put_u64(out, features.len() as u64);
            features.iter().for_each(|feature| put_text(out, feature));
        }
    }

    /// Reads one from a row.
    pub fn decode(reader: &mut Reader<'_>) -> Result<OpenTranche, Damage> {
        let id = TrancheId(reader.u64("tranche")?);
        let available = i128::try_from(reader.u128("available")?).map_err(|_| Damage("available"))?;
        let priority = reader.narrow("priority")?;
        let packed = reader.byte("tranche kind and scope")?;
        let mut tranche = OpenTranche {
            id,
            available: Amount(available),
            priority,
            kind: TrancheKind::from_code(packed & 7)?,
            scope: ChargeScope::from_code(packed >> 3 & 3)?,
            effective_at: Time(reader.u64("effective_at")?),
            expires_at: Time(reader.u64("expires_at")?.wrapping_sub(1)),
            features: None,
        };
        if packed >> 5 == 1 {
            let count: usize = reader.narrow("feature count")?;
            let mut features = Vec::with_capacity(count.min(64));
            for _ in 0..count {
                features.push(reader.text("feature")?.to_owned());
            }
            tranche.features = Some(features.into());
        } else if packed >> 5 != 0 {
            return Err(Damage("tranche kind and scope"));
        }
        Ok(tranche)
    }
}
