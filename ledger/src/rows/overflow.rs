//! The open tranches that a wallet's row has no room for, as far as the row tells of them: how many, what
//! they hold, where they begin, and in which classes there are rows.

use crate::amount::Amount;
use crate::codec::{Damage, Reader, put_text, put_u64, put_u128};
use crate::command::ChargeScope;
use crate::rows::open::{Class, OpenTranche};

/// Classes that a row names. A charge is looked for in at most four.
const CLASSES_MAX: usize = 4;

const MANY: u8 = 0;
const PLAIN: u8 = 1;
const AMONG: u8 = 2;

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

/// The classes that may have rows: all that had some since there was an overflow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Classes {
    /// One: that of tranches that pay for anything.
    Plain,
    /// These, at most [`CLASSES_MAX`].
    Among(Vec<(ChargeScope, Option<String>)>),
    /// More than a row tells.
    Many,
}

impl Classes {
    /// Those of one tranche.
    pub fn of(tranche: &OpenTranche) -> Classes {
        match tranche.breadth() {
            2 => Classes::Plain,
            _ => Classes::Among(Vec::new()).with(tranche),
        }
    }

    /// These, and those of one more tranche.
    pub fn with(self, tranche: &OpenTranche) -> Classes {
        let mut among = match self {
            Classes::Plain if tranche.breadth() == 2 => return Classes::Plain,
            Classes::Plain => vec![(ChargeScope::Any, None)],
            Classes::Among(among) => among,
            Classes::Many => return Classes::Many,
        };
        for class in tranche.classes() {
            if !among.iter().any(|known| is(known, class)) {
                among.push((class.scope, class.feature.map(str::to_owned)));
            }
        }
        if among.len() > CLASSES_MAX { Classes::Many } else { Classes::Among(among) }
    }

    /// Whether a class may have rows.
    pub fn may_have(&self, class: Class<'_>) -> bool {
        match self {
            Classes::Plain => class == Class { scope: ChargeScope::Any, feature: None },
            Classes::Among(among) => among.iter().any(|known| is(known, class)),
            Classes::Many => true,
        }
    }

    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Classes::Many => out.push(MANY),
            Classes::Plain => out.push(PLAIN),
            Classes::Among(among) => {
                out.extend_from_slice(&[AMONG, among.len() as u8]);
                for (scope, feature) in among {
                    out.push(scope.code() | u8::from(feature.is_some()) << 2);
                    feature.iter().for_each(|feature| put_text(out, feature));
                }
            }
        }
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Classes, Damage> {
        const WHAT: &str = "overflow classes";
        match reader.byte(WHAT)? {
            MANY => Ok(Classes::Many),
            PLAIN => Ok(Classes::Plain),
            AMONG => {
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
                    among.push((scope, feature));
                }
                Ok(Classes::Among(among))
            }
            _ => Err(Damage(WHAT)),
        }
    }
}

fn is((scope, feature): &(ChargeScope, Option<String>), class: Class<'_>) -> bool {
    *scope == class.scope && feature.as_deref() == class.feature
}

impl Overflow {
    /// Of its first tranche.
    pub fn of(tranche: &OpenTranche) -> Overflow {
        let classes = Classes::of(tranche);
        Overflow { tranches: 1, available: tranche.available, classes, floor: tranche.clone() }
    }

    /// Whether all of it pays for anything: one class of rows.
    pub fn is_plain(&self) -> bool {
        self.classes == Classes::Plain
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
