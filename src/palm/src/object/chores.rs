//! What happens without a client waiting for it, and who sees to it.
//!
//! Nobody hands out the work and nobody keeps it: whatever a bucket needs done (its lifecycle rules, the count of its usage)
//! is seen to by one living member, the first in an order that depends on the bucket alone. When that one goes, the next takes
//! over at its next round. Two peers that see different members living may both be at it for a while; so each step is
//! carried out under a condition that lets it be done once.

use std::time::Duration;

use palm_core::id::SegmentId;
use palm_core::record::{BucketRecord, Stored, key};
use palm_core::repair::owner_of_id;

use super::{NotifyTarget, Store};

/// How chores are done.
#[derive(Debug, Clone)]
pub struct ChoreSettings {
    /// How long a day of lifecycle rules is: shorter in tests.
    pub day: Duration,
    /// How often access logs are delivered.
    pub log_every: Duration,
    /// Who can be told of events.
    pub targets: Vec<NotifyTarget>,
    /// What events call the region.
    pub region: String,
}

impl Default for ChoreSettings {
    fn default() -> Self {
        Self {
            day: Duration::from_hours(24),
            log_every: Duration::from_mins(5),
            targets: Vec::new(),
            region: String::new(),
        }
    }
}

impl Store {
    /// Whether this peer sees to something of this name now: the living members take turns by a hash of it.
    pub(super) fn sees_to(&self, name: &[u8]) -> bool {
        let members = self.view.members().into_iter();
        let live: Vec<_> = members.filter(|member| member.live).map(|member| member.peer).collect();
        let mut id = [0; SegmentId::LEN];
        id.copy_from_slice(&blake3::hash(name).as_bytes()[..SegmentId::LEN]);
        owner_of_id(SegmentId::from_bytes(id), &live) == Some(self.me)
    }

    /// The buckets that this peer sees to now, of those that `fits` picks, by its own copy of them. None while it is out
    /// of touch with the pool, or has not caught up with it.
    pub(super) fn buckets_to_see_to(&self, fits: impl Fn(&BucketRecord) -> bool) -> Vec<String> {
        if !self.view.in_touch() || self.ledger.catch_up().borrow().is_some() {
            return Vec::new();
        }
        let known = self.ledger.local_scan(&key::buckets()).unwrap_or_else(|error| {
            tracing::error!(%error, "buckets cannot be read");
            Vec::new()
        });
        let names = known.into_iter().filter_map(|(register, current)| {
            let name = std::str::from_utf8(register.get(1..)?).ok()?;
            let record = BucketRecord::decode(&current.value).ok()?;
            (fits(&record) && self.sees_to(name.as_bytes())).then(|| name.to_owned())
        });
        names.collect()
    }
}
