//! What every shard applied, in the order of its log: the truth that answers are held against.
//!
//! Each replica tells of each entry that it applies, also when it applies it again after a crash.
//! All of them must tell the same, for ever: same entry, same answers, same rows.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use purser_ledger::store::LocalDamage;
use purser_ledger::time::Time;
use purser_ledger::verdict::Answer;
use purser_node::raft::{Applied, LedgerMachine, Machine, Outcome};
use purser_node::storage::{MEMO_TABLE, ShardStore};
use xxhash_rust::xxh3::xxh3_64;

use crate::referee::Referee;
use crate::trace::Trace;

/// One applied entry.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The batch, encoded.
    pub batch: Bytes,
    /// The answers to its items.
    pub answers: Vec<Answer>,
    /// A hash of the rows that it changed.
    digest: u128,
    /// Who told of it first.
    first: String,
}

/// The entries of one shard, by log index. Entries without commands are not among them.
pub type Entries = BTreeMap<u64, Entry>;

/// The history of all shards.
pub struct History {
    shards: Mutex<BTreeMap<u16, Entries>>,
    referee: Arc<Referee>,
    trace: Arc<Trace>,
}

impl History {
    /// An empty history.
    pub fn new(referee: Arc<Referee>, trace: Arc<Trace>) -> History {
        History { shards: Mutex::default(), referee, trace }
    }

    fn shards(&self) -> MutexGuard<'_, BTreeMap<u16, Entries>> {
        self.shards.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Everything told so far.
    pub fn all(&self) -> BTreeMap<u16, Entries> {
        self.shards().clone()
    }

    /// The last index of a shard told so far.
    pub fn last_index(&self, shard: u16) -> u64 {
        self.shards().get(&shard).and_then(|entries| entries.keys().next_back().copied()).unwrap_or(0)
    }

    fn told(&self, who: &str, shard: u16, index: u64, batch: &[u8], outcome: &Outcome) {
        let digest = outcome.changes.digest(0);
        self.trace.note(format_args!("{who} applies {shard}/{index} {:016x} {digest:032x}", xxh3_64(batch)));
        let mut shards = self.shards();
        let entries = shards.entry(shard).or_default();
        match entries.get(&index) {
            None => {
                let (batch, answers) = (Bytes::copy_from_slice(batch), outcome.answers.clone());
                entries.insert(index, Entry { batch, answers, digest, first: who.to_owned() });
            }
            Some(known) => {
                let same = known.batch == batch && known.answers == outcome.answers && known.digest == digest;
                if !same {
                    let first = &known.first;
                    self.referee.fail(format!("{who} and {first} differ in entry {index} of shard {shard}"));
                }
            }
        }
    }
}

/// The ledger of one replica, telling of what it applies.
pub struct Witnessed {
    ledger: LedgerMachine,
    shard: u16,
    who: String,
    forgets_keys: bool,
    history: Arc<History>,
}

impl fmt::Debug for Witnessed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Witnessed").field("who", &self.who).finish_non_exhaustive()
    }
}

impl Witnessed {
    /// A shard's ledger on a node; on purpose one that keeps no verdicts under their keys.
    pub fn new(shard: u16, who: &str, forgets_keys: bool, history: Arc<History>) -> Witnessed {
        Witnessed { ledger: LedgerMachine::new(shard), shard, who: who.to_owned(), forgets_keys, history }
    }
}

impl Machine for Witnessed {
    fn stamp(&self, entry: &[u8]) -> Option<Time> {
        self.ledger.stamp(entry)
    }

    fn apply(&self, rows: &ShardStore, entry: &[u8]) -> Result<Outcome, LocalDamage> {
        let index = next_index(rows)?;
        let mut outcome = self.ledger.apply(rows, entry)?;
        if self.forgets_keys {
            let keys = outcome.changes.iter().map(|(key, _)| key.to_vec());
            let memos: Vec<Vec<u8>> = keys.filter(|key| key.first() == Some(&MEMO_TABLE)).collect();
            memos.into_iter().for_each(|key| outcome.changes.delete(key));
        }
        self.history.told(&self.who, self.shard, index, entry, &outcome);
        Ok(outcome)
    }
}

/// The index of the entry after those in the rows. Every entry moves it by one.
fn next_index(rows: &ShardStore) -> Result<u64, LocalDamage> {
    let applied = rows.applied().map_err(|_| LocalDamage::Missing("the applied state"))?;
    let applied =
        Applied::decode(applied.as_deref()).map_err(|_| LocalDamage::Missing("the applied state"))?;
    Ok(applied.last.map_or(0, |last| last.index + 1))
}
