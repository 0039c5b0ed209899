//! Storage classes as policies (<https://docs.aws.amazon.com/AmazonS3/latest/userguide/storage-class-intro.html>): at AWS a class
//! buys durability, speed and price, in a pool how many fragments of how many peers an object takes.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::place::Policy;

/// The class objects have when none is named; stored as no class at all. Its policy is the pool's.
pub const STANDARD: &str = "STANDARD";

/// Classes taken and given back. The archive classes are missing on purpose: tools refuse to read an object that seems to be in an
/// archive.
pub const CLASSES: [&str; 6] =
    [STANDARD, "REDUCED_REDUNDANCY", "STANDARD_IA", "ONEZONE_IA", "INTELLIGENT_TIERING", "GLACIER_IR"];

/// A class that has a policy of its own. Written `STANDARD_IA=3-of-5`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClassPolicy {
    /// One of [`CLASSES`] but [`STANDARD`].
    pub class: String,
    /// How its objects are coded where enough peers are there, and as `auto` where they are not.
    pub policy: Policy,
}

impl FromStr for ClassPolicy {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (class, policy) = text
            .split_once('=')
            .ok_or_else(|| format!("expected CLASS=k-of-n such as STANDARD_IA=3-of-5, got {text:?}"))?;
        let class = class.trim();
        if class == STANDARD {
            return Err("the policy of STANDARD is the pool's".to_owned());
        }
        if !CLASSES.contains(&class) {
            return Err(format!("no such storage class: {class:?}; there are {}", CLASSES[1..].join(", ")));
        }
        let policy = policy.trim().parse().map_err(|error| format!("{class}: {error}"))?;
        Ok(Self { class: class.to_owned(), policy })
    }
}

impl fmt::Display for ClassPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.class, self.policy)
    }
}

/// The policy of a class among those that have one of their own.
pub fn policy_of(classes: &[ClassPolicy], class: Option<&str>) -> Option<Policy> {
    classes.iter().find(|known| Some(known.class.as_str()) == class).map(|known| known.policy)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_have_policies_of_their_own() {
        let written = "REDUCED_REDUNDANCY=1-of-2";
        let classes: Vec<ClassPolicy> = vec![written.parse().expect("valid")];
        assert_eq!(classes[0].to_string(), written);
        assert_eq!(policy_of(&classes, Some("REDUCED_REDUNDANCY")), Some(Policy { k: 1, n: 2 }));
        assert_eq!(policy_of(&classes, Some("STANDARD_IA")), None);
        assert_eq!(policy_of(&classes, None), None);
        for wrong in ["STANDARD_IA", "STANDARD=1-of-2", "GLACIER=1-of-2", "STANDARD_IA=3-of-2", "=1-of-2"] {
            assert!(wrong.parse::<ClassPolicy>().is_err(), "{wrong}");
        }
    }
}
