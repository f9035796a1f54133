//! Room in the log that was given to appends on their way to it. Once they are in its queue, the queue
//! counts them.

use super::handle::Shared;
use super::types::GroupId;
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::Arc;

/// The claims of all groups that are not used up.
#[derive(Debug, Default)]
pub(crate) struct Claims {
    /// Of each group the oldest first: number, and what is left.
    by_group: BTreeMap<GroupId, VecDeque<(u64, u64)>>,
    bytes: u64,
    last: u64,
}

impl Claims {
    /// What is left of all of them.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    pub fn add(&mut self, group: GroupId, bytes: u64) -> u64 {
        self.last += 1;
        self.bytes += bytes;
        self.by_group.entry(group).or_default().push_back((self.last, bytes));
        self.last
    }

    /// So much of a group has come to the queue, in the order in which it was claimed.
    pub fn arrive(&mut self, group: GroupId, mut bytes: u64) {
        let Some(claims) = self.by_group.get_mut(&group) else { return };
        for (_, left) in claims.iter_mut() {
            let used = bytes.min(*left);
            (*left, bytes, self.bytes) = (*left - used, bytes - used, self.bytes - used);
        }
    }

    /// Ends a claim, with what is left of it.
    fn end(&mut self, group: GroupId, number: u64) {
        let Some(claims) = self.by_group.get_mut(&group) else { return };
        let place = claims.iter().position(|(other, _)| *other == number);
        self.bytes -= place.and_then(|place| claims.remove(place)).map_or(0, |(_, left)| left);
        if claims.is_empty() {
            self.by_group.remove(&group);
        }
    }
}

/// Room for appends of one group, until they have come to the log. To be kept until they are answered:
/// what has not come by then comes no more.
#[must_use]
pub struct Claim {
    shared: Arc<Shared>,
    group: GroupId,
    number: u64,
}

impl Claim {
    pub(super) fn new(shared: Arc<Shared>, group: GroupId, number: u64) -> Claim {
        Claim { shared, group, number }
    }
}

impl fmt::Debug for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Claim").field("group", &self.group).finish_non_exhaustive()
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.shared.state().claims.end(self.group, self.number);
    }
}
