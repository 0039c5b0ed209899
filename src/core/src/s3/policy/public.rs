//! Whether a bucket policy is public
//! (<https://docs.aws.amazon.com/AmazonS3/latest/userguide/access-control-block-public-access.html>, "The meaning of
//! public"): it is assumed to be, unless every `Allow` goes to fixed principals or is limited to fixed values of certain
//! keys. What it denies does not count.

use super::condition::{Condition, Network};
use super::{Effect, Either, Named, Policy, Statement};

/// Keys whose fixed values limit who is meant.
const LIMITING_KEYS: &[&str] = &[
    "aws:principalaccount",
    "aws:principalarn",
    "aws:principalorgid",
    "aws:principalorgpaths",
    "aws:sourceaccount",
    "aws:sourcearn",
    "aws:sourceorgid",
    "aws:sourceowner",
    "aws:sourcevpc",
    "aws:sourcevpce",
    "aws:userid",
    "s3:dataaccesspointaccount",
    "s3:dataaccesspointarn",
    "s3:x-amz-server-side-encryption-aws-kms-key-id",
];

/// Broader networks than these are the public: "/8 for IPv4, /32 for IPv6", unless private.
const SHORTEST_PREFIX: (u32, u32) = (8, 32);

impl Policy {
    /// What `GetBucketPolicyStatus` answers.
    pub fn is_public(&self) -> bool {
        self.statements.iter().any(Statement::is_public)
    }
}

impl Statement {
    fn is_public(&self) -> bool {
        // No `Allow` has a `NotPrincipal`.
        let to_fixed = matches!(&self.principals, Some(Either { items, .. })
            if items.iter().all(|named| *named != Named::Everyone));
        self.effect == Effect::Allow && !to_fixed && !self.conditions.iter().any(limits)
    }
}

/// Whether a condition keeps the public out.
fn limits(condition: &Condition) -> bool {
    if condition.key() == "aws:sourceip" {
        return condition.networks().is_some_and(|networks| networks.into_iter().all(is_narrow));
    }
    let fixed = || condition.fixed_values().is_some_and(|values| values.iter().all(|value| value != "*"));
    LIMITING_KEYS.contains(&condition.key()) && fixed()
}

fn is_narrow(network: Network) -> bool {
    let (v4, v6) = SHORTEST_PREFIX;
    network.is_private() || network.prefix_len() >= if network.v4 { v4 } else { v6 }
}
