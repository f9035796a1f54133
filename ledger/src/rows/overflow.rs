//! The open tranches that a wallet's row has no room for, as far as the row tells of them: how many, what
//! they hold, where they begin, and in which classes there are rows.

use std::cmp::Ordering;

use crate::amount::Amount;
use crate::codec::{Damage, Reader, put_text, put_u64, put_u128};
use crate::command::{BurnPolicy, ChargeScope};
use crate::rows::open::{Class, OpenTranche};

/// Classes that a row names. A charge is looked for in at most four.
const CLASSES_MAX: usize = 4;
/// The class of tranches that pay for anything.
pub const PLAIN: Class<'static> = Class { scope: ChargeScope::Any, feature: None };

/// The open tranches that the window did not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overflow {
    /// How many.
    pub tranches: u64,
    /// What they hold.
    pub available: Amount,
    /// The classes that have rows.
    pub classes: Classes,
    /// None of them burns before this one would. A draw that ends before it need not look at them.
    pub floor: OpenTranche,
}

/// The classes that have rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Classes {
    /// These, from one to four.
    Among(Vec<OwnClass>),
    /// More than a row tells, or were so since there was an overflow.
    Many,
}

/// A class of tranches beyond a wallet's row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnClass {
    /// Which charges they pay.
    pub scope: ChargeScope,
    /// The feature they pay for; `None` is any.
    pub feature: Option<String>,
    /// How many rows it has.
    pub tranches: u64,
}

impl OwnClass {
    fn is(&self, class: Class<'_>) -> bool {
        self.scope == class.scope && self.feature.as_deref() == class.feature
    }
}

impl Classes {
    /// Counts a tranche that came.
    fn add(&mut self, tranche: &OpenTranche) {
        let Classes::Among(among) = self else { return };
        for class in tranche.classes() {
            match among.iter_mut().find(|own| own.is(class)) {
                Some(own) => own.tranches += 1,
                None => {
                    let feature = class.feature.map(str::to_owned);
                    among.push(OwnClass { scope: class.scope, feature, tranches: 1 });
                }
            }
        }
        if among.len() > CLASSES_MAX {
            *self = Classes::Many;
        }
    }

    /// Counts a tranche that went; `None` if it was not counted.
    fn remove(&mut self, tranche: &OpenTranche) -> Option<()> {
        let Classes::Among(among) = self else { return Some(()) };
        for class in tranche.classes() {
            let place = among.iter().position(|own| own.is(class))?;
            among[place].tranches -= 1;
            if among[place].tranches == 0 {
                among.remove(place);
            }
        }
        Some(())
    }

    /// Whether a class has rows, as far as that is told.
    pub fn may_have(&self, class: Class<'_>) -> bool {
        match self {
            Classes::Among(among) => among.iter().any(|own| own.is(class)),
            Classes::Many => true,
        }
    }

    /// How many classes, 0 for more than that; then of each its scope and whether it is of a feature, the
    /// feature, and the number of rows.
    fn encode(&self, out: &mut Vec<u8>) {
        let among = match self {
            Classes::Among(among) => among.as_slice(),
            Classes::Many => &[],
        };
        out.push(among.len() as u8);
        for own in among {
            out.push(own.scope.code() | u8::from(own.feature.is_some()) << 2);
            own.feature.iter().for_each(|feature| put_text(out, feature));
            put_u64(out, own.tranches);
        }
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Classes, Damage> {
        const WHAT: &str = "overflow classes";
        let count = usize::from(reader.byte(WHAT)?);
        if count > CLASSES_MAX {
            return Err(Damage(WHAT));
        }
        let mut among = Vec::with_capacity(count);
        for _ in 0..count {
            let packed = reader.byte(WHAT)?;
            let scope = ChargeScope::from_code(packed & 3)?;
            let feature = match packed >> 2 {
                0 => None,
                1 => Some(reader.text(WHAT)?.to_owned()),
                _ => return Err(Damage(WHAT)),
            };
            among.push(OwnClass { scope, feature, tranches: reader.u64(WHAT)? });
        }
        Ok(if among.is_empty() { Classes::Many } else { Classes::Among(among) })
    }
}

impl Overflow {
    /// Of its first tranche.
    pub fn of(tranche: &OpenTranche) -> Overflow {
        let mut classes = Classes::Among(Vec::with_capacity(1));
        classes.add(tranche);
        Overflow { tranches: 1, available: tranche.available, classes, floor: tranche.clone() }
    }

    /// With one more tranche.
    pub fn add(&mut self, tranche: &OpenTranche, policy: BurnPolicy) {
        self.tranches += 1;
        self.available.0 += tranche.available.0;
        self.classes.add(tranche);
        if tranche.burn_order(&self.floor, policy) == Ordering::Less {
            self.floor = tranche.clone();
        }
    }

    /// Without one of its tranches; `None` if it was not one of them.
    pub fn remove(&mut self, tranche: &OpenTranche) -> Option<()> {
        self.tranches -= 1;
        self.available.0 -= tranche.available.0;
        self.classes.remove(tranche)
    }

    /// Whether all of it pays for anything: one class of rows.
    pub fn is_plain(&self) -> bool {
        match &self.classes {
            Classes::Among(among) => matches!(among.as_slice(), [own] if own.is(PLAIN)),
            Classes::Many => false,
        }
    }

    /// Appends it to a row.
    pub fn encode(&self, out: &mut Vec<u8>) {
        put_u64(out, self.tranches);
        put_u128(out, self.available.0 as u128);
        self.classes.encode(out);
        self.floor.encode(out);
    }

    /// Reads it from a row.
    pub fn decode(reader: &mut Reader<'_>) -> Result<Overflow, Damage> {
        let tranches = reader.u64("overflow tranches")?;
        let available =
            i128::try_from(reader.u128("overflow total")?).map_err(|_| Damage("overflow total"))?;
        let classes = Classes::decode(reader)?;
        let floor = OpenTranche::decode(reader)?;
        Ok(Overflow { tranches, available: Amount(available), classes, floor })
    }
}
