//! Row keys, one function a table.

use sha2::{Digest, Sha256};

use crate::codec::Damage;
use crate::ids::{Customer, HoldId, RecordId, TrancheId, WalletNo};
use crate::rows::open::{Class, OpenTranche};
use crate::time::Time;

/// A row's key.
pub type Key = Vec<u8>;

/// The tables whose rows commands read by ordered scans as well as by key. (Reads scan `H` too: from the
/// store alone.)
pub fn is_ordered(key: &[u8]) -> bool {
    matches!(key.first(), Some(b'T' | b'R' | b'X' | b'Y' | b'P' | b'D' | b'S'))
}

/// The one row of the shard itself.
pub const META: &[u8] = b"A";

fn text(key: &mut Key, text: &str) {
    // Ids are at most 128 bytes, references at most 255: two bytes hold every length.
    key.extend_from_slice(&(text.len() as u16).to_be_bytes());
    key.extend_from_slice(text.as_bytes());
}

fn numbered(table: u8, wallet: WalletNo, more: usize) -> Key {
    let mut key = Vec::with_capacity(9 + more);
    key.push(table);
    key.extend_from_slice(&wallet.0.to_be_bytes());
    key
}

/// `C`: a customer.
pub fn customer(customer: Customer<'_>) -> Key {
    let mut key = Vec::with_capacity(5 + customer.namespace.len() + customer.id.len());
    key.push(b'C');
    text(&mut key, customer.namespace);
    text(&mut key, customer.id);
    key
}

/// `W`: a wallet.
pub fn wallet(customer: Customer<'_>, wallet: &str) -> Key {
    let mut key = Vec::with_capacity(7 + customer.namespace.len() + customer.id.len() + wallet.len());
    key.push(b'W');
    text(&mut key, customer.namespace);
    text(&mut key, customer.id);
    text(&mut key, wallet);
    key
}

/// The names in a `W` key: namespace, customer, wallet.
pub fn wallet_names(key: &[u8]) -> Result<(&str, &str, &str), Damage> {
    const WHAT: Damage = Damage("wallet key");
    fn name(rest: &[u8]) -> Result<(&str, &[u8]), Damage> {
        let (length, rest) = rest.split_first_chunk::<2>().ok_or(WHAT)?;
        let (name, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes(*length))).ok_or(WHAT)?;
        Ok((std::str::from_utf8(name).map_err(|_| WHAT)?, rest))
    }
    let rest = key.strip_prefix(b"W").ok_or(WHAT)?;
    let (namespace, rest) = name(rest)?;
    let (customer, rest) = name(rest)?;
    let (wallet, rest) = name(rest)?;
    if rest.is_empty() { Ok((namespace, customer, wallet)) } else { Err(WHAT) }
}

/// `T`: the beginning of all open-tranche rows of a wallet.
pub fn open_of(wallet: WalletNo) -> Key {
    numbered(b'T', wallet, 0)
}

/// `T`: the beginning of the rows of one class.
pub fn open_class(wallet: WalletNo, class: Class<'_>) -> Key {
    let mut key = numbered(b'T', wallet, 4 + class.feature.map_or(0, str::len));
    key.push(class.scope.code());
    match class.feature {
        None => key.push(0),
        Some(feature) => {
            key.push(1);
            text(&mut key, feature);
        }
    }
    key
}

/// `T`: within a class, the beginning of a priority's rows that expire at or after an instant.
pub fn open_from(class: &[u8], priority: u16, expires_at: Time) -> Key {
    let mut key = Vec::with_capacity(class.len() + 10);
    key.extend_from_slice(class);
    key.extend_from_slice(&priority.to_be_bytes());
    key.extend_from_slice(&expires_at.0.to_be_bytes());
    key
}

/// `T`: an open tranche under one of its classes.
pub fn open(wallet: WalletNo, class: Class<'_>, tranche: &OpenTranche) -> Key {
    open_in(&open_class(wallet, class), tranche)
}

/// `T`: an open tranche in a class.
pub fn open_in(class: &[u8], tranche: &OpenTranche) -> Key {
    let mut key = Vec::with_capacity(class.len() + 27);
    key.extend_from_slice(class);
    key.extend_from_slice(&tranche.priority.to_be_bytes());
    key.extend_from_slice(&tranche.expires_at.0.to_be_bytes());
    key.push(tranche.kind.code());
    key.extend_from_slice(&tranche.effective_at.0.to_be_bytes());
    key.extend_from_slice(&tranche.id.0.to_be_bytes());
    key
}

/// `R`: the beginning of a wallet's tranches, in order of creation.
pub fn tranches_of(wallet: WalletNo) -> Key {
    numbered(b'R', wallet, 0)
}

/// `R`: a tranche.
pub fn tranche(wallet: WalletNo, tranche: TrancheId) -> Key {
    let mut key = numbered(b'R', wallet, 8);
    key.extend_from_slice(&tranche.0.to_be_bytes());
    key
}

/// What is due, at one instant, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum DueRank {
    /// A tranche expires.
    Expiry = 1,
    /// A scheduled tranche becomes active.
    Activation = 2,
}

/// A place in the due order of one wallet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DueKey {
    /// When.
    pub at: Time,
    /// What.
    pub rank: DueRank,
    /// Of which tranche.
    pub tranche: TrancheId,
}

/// `X`: the beginning of what is due in a wallet.
pub fn due_of(wallet: WalletNo) -> Key {
    numbered(b'X', wallet, 0)
}

/// `X`: the beginning of what is due in a wallet at an instant or later.
pub fn due_since(wallet: WalletNo, at: Time) -> Key {
    let mut key = numbered(b'X', wallet, 8);
    key.extend_from_slice(&at.0.to_be_bytes());
    key
}

/// The first key behind a key.
pub fn after(mut key: Key) -> Key {
    key.push(0);
    key
}

/// `X`: one item that is due in a wallet.
pub fn due(wallet: WalletNo, due: DueKey) -> Key {
    let mut key = numbered(b'X', wallet, 17);
    key.extend_from_slice(&due.at.0.to_be_bytes());
    key.push(due.rank as u8);
    key.extend_from_slice(&due.tranche.0.to_be_bytes());
    key
}

/// The place that an `X` key stands for.
pub fn parse_due(key: &[u8]) -> Result<DueKey, Damage> {
    const WHAT: Damage = Damage("due key");
    let rest = key.get(9..).ok_or(WHAT)?;
    let (at, rest) = rest.split_first_chunk::<8>().ok_or(WHAT)?;
    let (rank, rest) = rest.split_first().ok_or(WHAT)?;
    let rank = match rank {
        1 => DueRank::Expiry,
        2 => DueRank::Activation,
        _ => return Err(WHAT),
    };
    let tranche = rest.try_into().map_err(|_| WHAT)?;
    Ok(DueKey { at: Time(u64::from_be_bytes(*at)), rank, tranche: TrancheId(u64::from_be_bytes(tranche)) })
}

/// `P`: the beginning of the pending tranches of a wallet.
pub fn pending_of(wallet: WalletNo) -> Key {
    numbered(b'P', wallet, 0)
}

/// `P`: a pending tranche of a wallet.
pub fn pending(wallet: WalletNo, tranche: TrancheId) -> Key {
    let mut key = numbered(b'P', wallet, 8);
    key.extend_from_slice(&tranche.0.to_be_bytes());
    key
}

/// `F`: what was given back of a movement.
pub fn refund(movement: RecordId) -> Key {
    let mut key = Vec::with_capacity(9);
    key.push(b'F');
    key.extend_from_slice(&movement.0.to_be_bytes());
    key
}

/// The class that the key of a `T` row stands in: the key's beginning, up to the priority.
pub fn class_of_open(key: &[u8]) -> Result<&[u8], Damage> {
    const WHAT: Damage = Damage("open tranche key");
    let feature = match key.get(10).ok_or(WHAT)? {
        0 => 0,
        _ => {
            let length = key.get(11..).and_then(|rest| rest.first_chunk::<2>()).ok_or(WHAT)?;
            2 + usize::from(u16::from_be_bytes(*length))
        }
    };
    key.get(..11 + feature).ok_or(WHAT)
}

/// `H`: the beginning of the holds of a wallet, in order of placement.
pub fn holds_of(wallet: WalletNo) -> Key {
    numbered(b'H', wallet, 0)
}

/// `H`: a hold among those of a wallet.
pub fn hold(wallet: WalletNo, hold: HoldId) -> Key {
    let mut key = numbered(b'H', wallet, 8);
    key.extend_from_slice(&hold.0.to_be_bytes());
    key
}

/// `Y`: the beginning of the open holds of a wallet that time out at an instant or later.
pub fn hold_due_since(wallet: WalletNo, at: Time) -> Key {
    let mut key = numbered(b'Y', wallet, 16);
    key.extend_from_slice(&at.0.to_be_bytes());
    key
}

/// `Y`: when an open hold of a wallet times out.
pub fn hold_due(wallet: WalletNo, at: Time, hold: HoldId) -> Key {
    let mut key = hold_due_since(wallet, at);
    key.extend_from_slice(&hold.0.to_be_bytes());
    key
}

/// The instant and the hold in a `Y` key.
pub fn parse_hold_due(key: &[u8]) -> Result<(Time, HoldId), Damage> {
    const WHAT: Damage = Damage("hold due key");
    let (at, rest) = key.get(9..).and_then(|rest| rest.split_first_chunk::<8>()).ok_or(WHAT)?;
    let hold = rest.try_into().map_err(|_| WHAT)?;
    Ok((Time(u64::from_be_bytes(*at)), HoldId(u64::from_be_bytes(hold))))
}

/// `D`: a wallet in which something is due at an instant.
pub fn due_wallet(at: Time, wallet: WalletNo) -> Key {
    let mut key = Vec::with_capacity(17);
    key.push(b'D');
    key.extend_from_slice(&at.0.to_be_bytes());
    key.extend_from_slice(&wallet.0.to_be_bytes());
    key
}

/// The instant and the wallet in a `D` key.
pub fn parse_due_wallet(key: &[u8]) -> Result<(Time, WalletNo), Damage> {
    const WHAT: Damage = Damage("due wallet key");
    let (at, rest) = key.get(1..).and_then(|rest| rest.split_first_chunk::<8>()).ok_or(WHAT)?;
    let wallet = rest.try_into().map_err(|_| WHAT)?;
    Ok((Time(u64::from_be_bytes(*at)), WalletNo(u64::from_be_bytes(wallet))))
}

/// `E`: an external reference of a wallet.
pub fn external_reference(wallet: WalletNo, reference: &str) -> Key {
    let mut key = numbered(b'E', wallet, reference.len());
    key.extend_from_slice(reference.as_bytes());
    key
}

/// `J`: a record of the journal.
pub fn record(id: RecordId) -> Key {
    let mut key = Vec::with_capacity(9);
    key.push(b'J');
    key.extend_from_slice(&id.0.to_be_bytes());
    key
}

/// `S`: the beginning of a wallet's run of 64 movements.
pub fn run(wallet: WalletNo, run: u64) -> Key {
    let mut key = numbered(b'S', wallet, 8);
    key.extend_from_slice(&run.to_be_bytes());
    key
}

/// `I`: the verdict under a customer's key. A hash that no caller can make collide, so that one
/// customer's keys cannot reach another's: SHA-256, its first 128 bits.
pub fn memo(customer: Customer<'_>, key: &str) -> Key {
    let mut hash = Sha256::new();
    hash.update((customer.namespace.len() as u16).to_be_bytes());
    hash.update(customer.namespace);
    hash.update((customer.id.len() as u16).to_be_bytes());
    hash.update(customer.id);
    hash.update(key);
    let digest = hash.finalize();
    let mut row = Vec::with_capacity(17);
    row.push(b'I');
    row.extend_from_slice(&digest[..16]);
    row
}

/// The first key after every key that begins with `prefix`.
pub fn end_of(prefix: &[u8]) -> Key {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return end;
        }
    }
    vec![u8::MAX; 1]
}
