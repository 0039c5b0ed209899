//! Transitions to other storage classes
//! (<https://docs.aws.amazon.com/AmazonS3/latest/userguide/lifecycle-transition-general-considerations.html>).

use serde::{Deserialize, Serialize};

use super::{Expiration, Rule};
use crate::s3::Refusal;
use crate::s3::calendar::DAY_MS;

/// Classes that something can be moved to.
const CLASSES: &[&str] = &["STANDARD_IA", "ONEZONE_IA", "INTELLIGENT_TIERING", "GLACIER_IR", "GLACIER", "DEEP_ARCHIVE"];

/// When a transition is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum When {
    /// So many days after the object was made.
    Days(u32),
    /// From this midnight on, milliseconds since the epoch.
    Date(u64),
}

/// Of current versions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transition {
    /// When.
    pub when: When,
    /// Where to.
    pub class: String,
}

/// Of versions that are not current any more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NoncurrentTransition {
    /// So many days after they were superseded.
    pub days: u32,
    /// But so many of the newest of them stay.
    pub keep_newer: Option<u32>,
    /// Where to.
    pub class: String,
}

/// Validates the transitions of a rule.
pub(super) fn check(rule: &Rule) -> Result<(), Refusal> {
    let Rule { transitions, noncurrent_transitions, expiration, noncurrent, .. } = rule;
    let classes = transitions.iter().map(|to| &to.class).chain(noncurrent_transitions.iter().map(|to| &to.class));
    if classes.into_iter().any(|class| !CLASSES.contains(&class.as_str())) {
        return Err(Refusal::malformed_xml());
    }
    for Transition { when, .. } in transitions {
        match (when, expiration) {
            (When::Date(date), _) if date % DAY_MS != 0 => {
                return Err(Refusal::invalid_argument("'Date' must be at midnight GMT"));
            }
            (When::Days(days), Some(Expiration::Days(expire))) if expire <= days => {
                return Err(not_after("Transition"));
            }
            (When::Days(_), Some(Expiration::Date(_))) | (When::Date(_), Some(Expiration::Days(_))) => {
                let message = "Found mixed 'Date' and 'Days' based Expiration and Transition actions in lifecycle rule";
                return Err(Refusal::invalid_request(message));
            }
            _ => {}
        }
    }
    if let Some(expire) = noncurrent
        && noncurrent_transitions.iter().any(|to| expire.days <= to.days)
    {
        return Err(not_after("NoncurrentVersionTransition"));
    }
    Ok(())
}

fn not_after(what: &str) -> Refusal {
    let message = format!("The number of days of an expiration must be greater than that of the {what} action");
    Refusal::invalid_argument(message)
}
