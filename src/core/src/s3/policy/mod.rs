//! Access policies: the documents, what they say of a request, and who is let in.
//!
//! - [`document`](Policy::parse): JSON in, a validated [`Policy`] or AWS's `MalformedPolicy` out.
//! - [`condition`]: all operators of the `Condition` element, and policy variables.
//! - [`Policy::evaluate`]: what one policy says of one [`Request`].
//! - [`operation`]: which permissions each S3 operation needs.
//! - [`decide()`]: everything together, with ACLs, ownership and public access block.
//! - [`Policy::is_public`]: what `GetBucketPolicyStatus` answers and `BlockPublicPolicy` refuses.
//!
//! The language: <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_elements.html>.

use std::collections::BTreeMap;

use super::pattern::{Token, matches};

pub mod action;
pub mod condition;
mod decide;
mod document;
mod json;
pub mod operation;
mod public;
#[cfg(test)]
mod tests;
pub mod variable;

pub use decide::{Bucket, Decision, Object, Question, decide, missing_object};
pub use document::{Attached, POLICY_MAX_BYTES};

use condition::Condition;
use variable::Template;

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Principal {
    /// Nobody signed the request.
    Anonymous,
    /// An access key did.
    Identified(Identity),
}

/// The holder of an access key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The account: 12 digits.
    pub account: String,
    /// The account's canonical id, by which ACLs know it.
    pub canonical_id: String,
    /// `arn:aws:iam::ACCOUNT:root`, `…:user/NAME` or `arn:aws:sts::ACCOUNT:assumed-role/ROLE/SESSION`.
    pub arn: String,
    /// For a session of a role: `arn:aws:iam::ACCOUNT:role/ROLE`, by which policies name it too.
    pub role_arn: Option<String>,
    /// The account itself: may do everything in it.
    pub root: bool,
}

/// What the condition keys of a request are: names in lower case (keys are compared so), each with its values.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Context(BTreeMap<String, Vec<String>>);

impl Context {
    /// Adds a value to a key.
    pub fn add(&mut self, key: &str, value: impl Into<String>) {
        self.0.entry(key.to_ascii_lowercase()).or_default().push(value.into());
    }

    /// The values of a key given in lower case; none and no values are the same.
    fn values(&self, key: &str) -> &[String] {
        self.0.get(key).map_or(&[], Vec::as_slice)
    }
}

/// One permission asked for.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// Who asks.
    pub principal: &'a Principal,
    /// `s3:GetObject`.
    pub action: &'a str,
    /// `arn:aws:s3:::bucket/key`; `*` for actions that have no resource.
    pub resource: &'a str,
    /// Condition keys.
    pub context: &'a Context,
}

/// What a policy says of a request. The greater of two verdicts holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// Nothing.
    Silent,
    /// The account of the requester is allowed; for which of its users is for their identity policies to say
    /// (<https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_elements_principal.html>).
    AllowAccount,
    /// The requester is allowed.
    Allow,
    /// Denied, whatever else allows it.
    ExplicitDeny,
}

/// A validated policy document.
#[derive(Debug, Clone, PartialEq)]
pub struct Policy {
    statements: Vec<Statement>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Effect {
    Allow,
    Deny,
}

#[derive(Debug, Clone, PartialEq)]
struct Statement {
    effect: Effect,
    /// `None` in identity policies: whoever it is attached to.
    principals: Option<Either<Named>>,
    actions: Either<Vec<Token>>,
    resources: Either<Template>,
    conditions: Vec<Condition>,
}

/// An element that stands either as itself or as its `Not…`.
#[derive(Debug, Clone, PartialEq)]
struct Either<T> {
    negated: bool,
    items: Vec<T>,
}

impl<T> Either<T> {
    fn holds(&self, item: impl FnMut(&T) -> bool) -> bool {
        self.items.iter().any(item) != self.negated
    }
}

/// A principal as a bucket policy names it.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Named {
    /// `*`: also who is anonymous.
    Everyone,
    /// An account, by number or as its root.
    Account(String),
    /// A user, role or session.
    Arn(String),
    /// An account, by canonical id.
    CanonicalId(String),
    /// A service or an identity provider; nobody here is one.
    Other(String),
}

impl Named {
    /// What an `Allow` for this principal says of the requester.
    fn names(&self, principal: &Principal) -> Verdict {
        let Principal::Identified(identity) = principal else {
            return if *self == Self::Everyone { Verdict::Allow } else { Verdict::Silent };
        };
        let of_account = if identity.root { Verdict::Allow } else { Verdict::AllowAccount };
        match self {
            Self::Everyone => Verdict::Allow,
            Self::Account(account) if *account == identity.account => of_account,
            Self::CanonicalId(id) if *id == identity.canonical_id => of_account,
            Self::Arn(arn) if *arn == identity.arn || Some(arn) == identity.role_arn.as_ref() => Verdict::Allow,
            _ => Verdict::Silent,
        }
    }
}

impl Policy {
    /// What this policy says of a request: an explicit deny wins over any allow
    /// (<https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_evaluation-logic.html>).
    pub fn evaluate(&self, request: &Request<'_>) -> Verdict {
        // Actions are compared without regard to case.
        let action = request.action.to_ascii_lowercase();
        let said = self.statements.iter().map(|statement| statement.evaluate(request, &action));
        said.max().unwrap_or(Verdict::Silent)
    }

    /// The principals a bucket policy names (account numbers, ARNs, canonical ids), for who must check that they
    /// exist: AWS answers `Invalid principal in policy` for those that do not.
    pub fn principals(&self) -> impl Iterator<Item = &str> {
        let named = self.statements.iter().filter_map(|statement| statement.principals.as_ref());
        named.flat_map(|principals| &principals.items).filter_map(|named| match named {
            Named::Account(name) | Named::Arn(name) | Named::CanonicalId(name) => Some(name.as_str()),
            Named::Everyone | Named::Other(_) => None,
        })
    }
}

impl Statement {
    fn evaluate(&self, request: &Request<'_>, action: &str) -> Verdict {
        let named = match &self.principals {
            None => Verdict::Allow,
            Some(Either { negated: false, items }) => {
                items.iter().map(|named| named.names(request.principal)).max().unwrap_or(Verdict::Silent)
            }
            Some(Either { negated: true, items }) => {
                let spared = items.iter().any(|named| named.names(request.principal) > Verdict::Silent);
                if spared { Verdict::Silent } else { Verdict::Allow }
            }
        };
        let applies = named > Verdict::Silent
            && self.actions.holds(|pattern| matches(pattern, action))
            && self.names_resource(request)
            && self.conditions.iter().all(|condition| condition.holds(request.context));
        match (applies, self.effect) {
            (false, _) => Verdict::Silent,
            (true, Effect::Allow) => named,
            (true, Effect::Deny) => Verdict::ExplicitDeny,
        }
    }

    /// A resource whose policy variable has no value matches nothing; as a `NotResource` it excepts nothing.
    fn names_resource(&self, request: &Request<'_>) -> bool {
        self.resources.holds(|template| {
            template.expand(request.context).is_some_and(|pattern| matches(&pattern, request.resource))
        })
    }
}
