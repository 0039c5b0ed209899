//! Which configurations `PutBucketLifecycleConfiguration` takes
//! (<https://docs.aws.amazon.com/AmazonS3/latest/API/API_LifecycleRule.html>).

use std::collections::BTreeSet;

use super::{Configuration, Expiration, Filter, Rule, transition};
use crate::s3::Refusal;
use crate::s3::calendar::DAY_MS;

/// The most rules of one configuration.
pub const RULES_MAX: usize = 1000;

/// Longest rule id, in characters.
const ID_MAX: usize = 255;

/// Most newer versions that a rule can keep.
const KEEP_NEWER_MAX: u32 = 100;

/// Names rules that have no id, as AWS does, with `name(rule's place)`; at random, say.
pub fn fill_ids(rules: &mut [Rule], mut name: impl FnMut(usize) -> String) {
    for (place, rule) in rules.iter_mut().enumerate().filter(|(_, rule)| rule.id.is_empty()) {
        rule.id = name(place);
    }
}

impl Configuration {
    /// Validates rules; each has an id ([`fill_ids`]).
    pub fn new(rules: Vec<Rule>) -> Result<Self, Refusal> {
        if rules.is_empty() || rules.len() > RULES_MAX {
            return Err(Refusal::malformed_xml());
        }
        rules.iter().try_for_each(check)?;
        let ids: BTreeSet<&str> = rules.iter().map(|rule| rule.id.as_str()).collect();
        if ids.len() < rules.len() {
            let message = "Rule ID must be unique. Found same ID for one or more rules.";
            return Err(Refusal::invalid_argument(message));
        }
        Ok(Self { rules, minimum_varies_by_class: false })
    }
}

fn check(rule: &Rule) -> Result<(), Refusal> {
    let Rule { id, filter, expiration, noncurrent, abort_days, .. } = rule;
    if id.chars().count() > ID_MAX {
        return Err(Refusal::invalid_argument("ID length should not exceed allowed limit of 255"));
    }
    let moves = !rule.transitions.is_empty() || !rule.noncurrent_transitions.is_empty();
    if expiration.is_none() && noncurrent.is_none() && abort_days.is_none() && !moves {
        return Err(Refusal::invalid_request("At least one action needs to be specified in a rule."));
    }
    let names: BTreeSet<&str> = filter.tags.iter().map(|(name, _)| name.as_str()).collect();
    if names.len() < filter.tags.len() {
        return Err(Refusal::invalid_request("Duplicate Tag Keys are not allowed."));
    }
    // Nothing has a size between two neighbours.
    if let (Some(larger), Some(smaller)) = (filter.larger_than, filter.smaller_than)
        && smaller <= larger.saturating_add(1)
    {
        let message = "'ObjectSizeGreaterThan' has to be a value less than 'ObjectSizeLessThan'.";
        return Err(Refusal::invalid_request(message));
    }
    let positive = |value: Option<u32>, what: &str| match value {
        Some(0) => Err(Refusal::invalid_argument(format!("{what} action must be a positive integer"))),
        _ => Ok(()),
    };
    match expiration {
        Some(Expiration::Days(days)) => positive(Some(*days), "'Days' for Expiration")?,
        Some(Expiration::Date(date)) if date % DAY_MS != 0 => {
            return Err(Refusal::invalid_argument("'Date' must be at midnight GMT"));
        }
        // A marker has neither tags nor a size.
        Some(Expiration::ExpiredDeleteMarker) => check_keys_only("ExpiredObjectDeleteMarker", filter)?,
        _ => {}
    }
    if let Some(noncurrent) = noncurrent {
        let days = "'NoncurrentDays' for NoncurrentVersionExpiration";
        positive(Some(noncurrent.days), days)?;
        positive(noncurrent.keep_newer, "'NewerNoncurrentVersions' for NoncurrentVersionExpiration")?;
        if noncurrent.keep_newer.is_some_and(|keep| keep > KEEP_NEWER_MAX) {
            let message = format!("'NewerNoncurrentVersions' must be at most {KEEP_NEWER_MAX}");
            return Err(Refusal::invalid_argument(message));
        }
    }
    transition::check(rule)?;
    positive(*abort_days, "'DaysAfterInitiation' for AbortIncompleteMultipartUpload")?;
    // Nor has an upload.
    if abort_days.is_some() { check_keys_only("AbortIncompleteMultipartUpload", filter) } else { Ok(()) }
}

/// Whether a filter only names keys.
fn check_keys_only(action: &str, filter: &Filter) -> Result<(), Refusal> {
    let what = match filter {
        Filter { tags, .. } if !tags.is_empty() => "Tags",
        Filter { larger_than: None, smaller_than: None, .. } => return Ok(()),
        _ => "Object Size",
    };
    Err(Refusal::invalid_request(format!("{action} cannot be specified with {what}.")))
}
