//! Lifecycle rules: what they may say, what is due, and the headers that announce it
//! (<https://docs.aws.amazon.com/AmazonS3/latest/userguide/intro-lifecycle-rules.html>).
//!
//! A day ends at midnight UTC: "S3 calculates the time by adding the number of days specified in the rule to the object
//! creation time and rounding the resulting time to the next day midnight UTC". A test clock has shorter [`Days`].

use serde::{Deserialize, Serialize};

use super::calendar::{DAY_MS, http_date};

mod validate;
pub use validate::{RULES_MAX, fill_ids};

mod transition;
pub use transition::{NoncurrentTransition, Transition, When};

/// How long a day is. Days begin at its multiples since the epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Days {
    day_ms: u64,
}

impl Default for Days {
    fn default() -> Self {
        Self { day_ms: DAY_MS }
    }
}

impl Days {
    /// Shorter days, for tests; at least a millisecond.
    pub fn of(day_ms: u64) -> Self {
        Self { day_ms: day_ms.max(1) }
    }

    /// The midnight by which something is `days` old.
    fn due(self, since_ms: u64, days: u32) -> u64 {
        since_ms
            .saturating_add(u64::from(days).saturating_mul(self.day_ms))
            .div_ceil(self.day_ms)
            .saturating_mul(self.day_ms)
    }
}

/// Where a rule's XML has its filter: it is given back in the form it came in, which tools compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Form {
    /// `Filter`, with one element at most.
    #[default]
    Filter,
    /// `And` within `Filter`.
    And,
    /// `Prefix` of the rule itself, as in the first version of the API.
    Prefix,
}

/// What a rule is about. Everything named must fit.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Filter {
    /// Keys begin so.
    pub prefix: Option<String>,
    /// Objects have all of these.
    pub tags: Vec<(String, String)>,
    /// Objects have more bytes.
    pub larger_than: Option<u64>,
    /// Objects have fewer bytes.
    pub smaller_than: Option<u64>,
    /// How it was written.
    pub form: Form,
}

/// What happens to current versions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Expiration {
    /// So many days after they were made.
    Days(u32),
    /// From this midnight on, milliseconds since the epoch: also what is made later.
    Date(u64),
    /// Delete markers with no versions under them go at once.
    ExpiredDeleteMarker,
}

/// What happens to versions that are not current any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Noncurrent {
    /// So many days after they were superseded.
    pub days: u32,
    /// But so many of the newest of them stay.
    pub keep_newer: Option<u32>,
}

/// One rule.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Rule {
    /// Unique in the configuration.
    pub id: String,
    /// Disabled rules are kept and do nothing.
    pub enabled: bool,
    /// What it is about.
    pub filter: Filter,
    /// Of current versions.
    pub expiration: Option<Expiration>,
    /// Of noncurrent versions.
    pub noncurrent: Option<Noncurrent>,
    /// Uploads are aborted so many days after they were begun.
    pub abort_days: Option<u32>,
    /// Kept, validated and given back, and never carried out: a class is chosen when an object is written.
    pub transitions: Vec<Transition>,
    /// The same of versions that are not current.
    pub noncurrent_transitions: Vec<NoncurrentTransition>,
}

/// A bucket's rules.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Configuration {
    rules: Vec<Rule>,
    /// `x-amz-transition-default-minimum-object-size` is `varies_by_storage_class`; given back as it came.
    pub minimum_varies_by_class: bool,
}

/// An object or version as the rules see it.
#[derive(Debug, Clone, Copy)]
pub struct Version<'a> {
    /// Key.
    pub key: &'a str,
    /// Bytes.
    pub size: u64,
    /// Object tags.
    pub tags: &'a [(String, String)],
    /// Last modified.
    pub modified_ms: u64,
    /// A delete marker, not an object.
    pub delete_marker: bool,
    /// Where it stands among its key's versions.
    pub standing: Standing,
}

/// Where a version stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Shown to who names no version.
    Current {
        /// The key has no other version.
        only: bool,
    },
    /// Superseded.
    Noncurrent {
        /// When the next newer version was made.
        since_ms: u64,
        /// How many noncurrent versions are newer.
        newer: u32,
    },
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// What `DELETE` without a version does: the object goes, or in a versioned bucket a marker comes. On the condition
    /// that it is still the current version.
    Expire,
    /// This version (or marker) goes for good, unless object lock forbids.
    DeleteVersion,
}

impl Filter {
    fn fits(&self, version: &Version<'_>) -> bool {
        let has = |tag: &(String, String)| version.tags.contains(tag);
        self.fits_key(version.key)
            && self.tags.iter().all(has)
            && self.larger_than.is_none_or(|bytes| version.size > bytes)
            && self.smaller_than.is_none_or(|bytes| version.size < bytes)
    }

    fn fits_key(&self, key: &str) -> bool {
        self.prefix.as_ref().is_none_or(|prefix| key.starts_with(prefix))
    }
}

impl Configuration {
    /// The rules as they were put.
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    fn enabled(&self) -> impl Iterator<Item = &Rule> {
        self.rules.iter().filter(|rule| rule.enabled)
    }

    /// The same rules without tags in their filters: what they leave alone, the rules themselves do too. `None` when no rule
    /// in force asks for tags. Who walks a listing, which has no tags, asks these first and reads only what they name.
    pub fn without_tags(&self) -> Option<Self> {
        if self.enabled().all(|rule| rule.filter.tags.is_empty()) {
            return None;
        }
        let mut wider = self.clone();
        wider.rules.iter_mut().for_each(|rule| rule.filter.tags.clear());
        Some(wider)
    }

    /// Whether any rule in force may have something to do with objects and versions.
    pub fn expires(&self) -> bool {
        self.enabled().any(|rule| rule.expiration.is_some() || rule.noncurrent.is_some())
    }

    /// Whether any rule in force aborts uploads.
    pub fn aborts_any(&self) -> bool {
        self.enabled().any(|rule| rule.abort_days.is_some())
    }

    /// What is to be done with a version now. When rules differ, the one that comes first in time has come first; what
    /// several want now is one thing, as it depends on the version alone.
    pub fn decide(&self, version: &Version<'_>, now_ms: u64, days: Days) -> Option<Action> {
        let due = |rule: &Rule| rule.due(version, days).is_some_and(|due| due <= now_ms);
        let action = match version.standing {
            Standing::Current { .. } if !version.delete_marker => Action::Expire,
            _ => Action::DeleteVersion,
        };
        self.enabled().any(due).then_some(action)
    }

    /// Whether an upload is to be aborted now.
    pub fn aborts(&self, key: &str, begun_ms: u64, now_ms: u64, days: Days) -> bool {
        self.abort_date(key, begun_ms, days).is_some_and(|(due, _)| due <= now_ms)
    }

    /// The value of `x-amz-expiration` for a current object: when it expires first, and by which rule
    /// (<https://docs.aws.amazon.com/AmazonS3/latest/API/API_HeadObject.html>).
    pub fn expiration_header(&self, object: &Version<'_>, days: Days) -> Option<String> {
        if object.delete_marker || !matches!(object.standing, Standing::Current { .. }) {
            return None;
        }
        let dues = self.enabled().filter_map(|rule| Some((rule.due(object, days)?, rule)));
        let (due, rule) = dues.min_by_key(|(due, _)| *due)?;
        Some(format!("expiry-date=\"{}\", rule-id=\"{}\"", http_date(due), encode(&rule.id)))
    }

    /// When an upload is aborted first, and by which rule: `x-amz-abort-date` and `x-amz-abort-rule-id`
    /// (<https://docs.aws.amazon.com/AmazonS3/latest/API/API_CreateMultipartUpload.html>).
    pub fn abort_date(&self, key: &str, begun_ms: u64, days: Days) -> Option<(u64, &Rule)> {
        let rules = self.enabled().filter(|rule| rule.filter.fits_key(key));
        rules.filter_map(|rule| Some((days.due(begun_ms, rule.abort_days?), rule))).min_by_key(|(due, _)| *due)
    }
}

impl Rule {
    /// When it is done with a version; `None` when it leaves it alone.
    fn due(&self, version: &Version<'_>, days: Days) -> Option<u64> {
        if !self.filter.fits(version) {
            return None;
        }
        match (version.standing, version.delete_marker) {
            (Standing::Noncurrent { since_ms, newer }, _) => {
                let Noncurrent { days: after, keep_newer } = self.noncurrent?;
                (newer >= keep_newer.unwrap_or(0)).then(|| days.due(since_ms, after))
            }
            (Standing::Current { .. }, false) => match self.expiration? {
                Expiration::Days(after) => Some(days.due(version.modified_ms, after)),
                Expiration::Date(date) => Some(date),
                Expiration::ExpiredDeleteMarker => None,
            },
            // "If the current version is the only version and also a delete marker, S3 removes the expired marker."
            (Standing::Current { only: true }, true) => match self.expiration? {
                Expiration::Days(after) => Some(days.due(version.modified_ms, after)),
                Expiration::Date(date) => Some(date),
                Expiration::ExpiredDeleteMarker => Some(version.modified_ms),
            },
            (Standing::Current { only: false }, true) => None,
        }
    }
}

/// Percent-encodes a rule id: "the value of rule-id is URL-encoded".
fn encode(id: &str) -> String {
    let encoded = id.bytes().map(|byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            char::from(byte).to_string()
        } else {
            format!("%{byte:02X}")
        }
    });
    encoded.collect()
}

#[cfg(test)]
mod tests;
