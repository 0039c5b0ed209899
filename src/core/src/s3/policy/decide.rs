//! Who is let in: identity policies, the bucket's policy, ACLs, ownership and the public access block together.
//!
//! The order, from <https://docs.aws.amazon.com/AmazonS3/latest/userguide/how-s3-evaluates-access-control.html> and
//! <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_evaluation-logic_policy-eval-denyallow.html>:
//!
//! 1. An explicit deny anywhere ends it. (The owner's root may always read, put and delete the bucket policy, or nobody
//!    could ever take a wrong one away.)
//! 2. `RestrictPublicBuckets` and a public policy: only the bucket owner's account goes on.
//! 3. A session policy must allow what its session does.
//! 4. Within the bucket owner's account an allow is enough, by identity policy, by bucket policy or by ACL.
//! 5. From another account both sides must allow: the requester's identity policies, and the bucket's policy or an ACL.
//!    An anonymous requester has no account, so the bucket's side decides.
//! 6. An object that another account owns is beyond the bucket's policy and the bucket owner's identity policies; its
//!    own account and its ACL decide. But the bucket's owner may always delete it.

use super::operation::acl_permission;
use super::{Identity, Policy, Principal, Request, Verdict};
use crate::s3::Refusal;
use crate::s3::acl::{Acl, Granted, Of, Ownership, PublicAccessBlock};

/// One permission asked for, and all that has a say in it.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    /// Who asks for what.
    pub request: Request<'a>,
    /// Policies of the requester's user or role, and of its groups.
    pub identity: &'a [&'a Policy],
    /// The policy given when the session was made.
    pub session: Option<&'a Policy>,
    /// The bucket; `None` for what is asked of the account (`ListBuckets`, `CreateBucket`).
    pub bucket: Option<Bucket<'a>>,
    /// The object, where it is there.
    pub object: Option<Object<'a>>,
}

/// A bucket's part.
#[derive(Debug, Clone, Copy)]
pub struct Bucket<'a> {
    /// Its own list; names its owner.
    pub acl: &'a Acl,
    /// Its policy.
    pub policy: Option<&'a Policy>,
    /// Whether lists count.
    pub ownership: Ownership,
    /// What is kept from the public.
    pub block: PublicAccessBlock,
}

/// An object's part.
#[derive(Debug, Clone, Copy)]
pub struct Object<'a> {
    /// Its own list; names its owner.
    pub acl: &'a Acl,
}

/// The answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Let in.
    Allow,
    /// Kept out by a statement that says so.
    ExplicitDeny,
    /// Nothing lets it in.
    ImplicitDeny,
}

impl Decision {
    /// `AccessDenied` unless let in.
    pub fn or_refuse(self) -> Result<(), Refusal> {
        if self == Self::Allow { Ok(()) } else { Err(Refusal::access_denied()) }
    }
}

/// What `GET` and `HEAD` answer where there is no object: who may not list must not learn that. `may_list`: what is decided
/// of `s3:ListBucket` with the key as `s3:prefix`
/// (<https://docs.aws.amazon.com/AmazonS3/latest/API/API_GetObject.html>, "Permissions").
pub fn missing_object(may_list: bool) -> Refusal {
    if may_list {
        Refusal::with_status(404, "NoSuchKey", "The specified key does not exist.")
    } else {
        Refusal::access_denied()
    }
}

/// Decides one permission.
pub fn decide(question: &Question<'_>) -> Decision {
    let Question { request, bucket, .. } = question;
    let by_bucket = bucket.and_then(|bucket| bucket.policy).map_or(Verdict::Silent, |policy| policy.evaluate(request));
    let by_session = question.session.map(|policy| policy.evaluate(request));
    let by_identity = by_identity(question);
    let denied = by_bucket.max(by_identity).max(by_session.unwrap_or(Verdict::Silent)) == Verdict::ExplicitDeny;
    if denied {
        let keeps_key = by_identity != Verdict::ExplicitDeny && by_session != Some(Verdict::ExplicitDeny);
        return if keeps_key && is_owners_root(question) { Decision::Allow } else { Decision::ExplicitDeny };
    }
    let session_allows = by_session.is_none_or(|verdict| verdict >= Verdict::AllowAccount);
    let identity_allows = by_identity == Verdict::Allow;
    let allowed = session_allows
        && match bucket {
            None => identity_allows,
            Some(bucket) => on_bucket(question, bucket, identity_allows, by_bucket),
        };
    if allowed { Decision::Allow } else { Decision::ImplicitDeny }
}

/// What the requester's own policies say. An account's root is allowed everything its policies, if any, do not deny.
fn by_identity(question: &Question<'_>) -> Verdict {
    let Principal::Identified(identity) = question.request.principal else { return Verdict::Silent };
    let said = question.identity.iter().map(|policy| policy.evaluate(&question.request)).max();
    said.unwrap_or(Verdict::Silent).max(if identity.root { Verdict::Allow } else { Verdict::Silent })
}

/// "Even if the policy explicitly denies the root user the ability to perform these actions": see `PutBucketPolicy`.
fn is_owners_root(question: &Question<'_>) -> bool {
    let of_policy = ["s3:GetBucketPolicy", "s3:PutBucketPolicy", "s3:DeleteBucketPolicy"];
    let owner = question.bucket.map(|bucket| &bucket.acl.owner);
    of_policy.contains(&question.request.action)
        && matches!(question.request.principal, Principal::Identified(Identity { root: true, canonical_id, .. })
            if Some(canonical_id) == owner)
}

fn on_bucket(question: &Question<'_>, bucket: &Bucket<'_>, identity_allows: bool, by_bucket: Verdict) -> bool {
    let account = match question.request.principal {
        Principal::Anonymous => None,
        Principal::Identified(identity) => Some(identity.canonical_id.as_str()),
    };
    let of_owner = account == Some(bucket.acl.owner.as_str());
    let restricted = bucket.block.restrict_public_buckets && bucket.policy.is_some_and(Policy::is_public);
    if restricted && !of_owner {
        return false;
    }
    let granted = by_acl(question, bucket);
    let acl_allows = granted == Granted::ToGroup || granted == Granted::ToAccount && identity_allows;
    if let Some(owner) = foreign_owner(question, bucket) {
        let may_delete = of_owner && ["s3:DeleteObject", "s3:DeleteObjectVersion"].contains(&question.request.action);
        return (account == Some(owner) || may_delete) && identity_allows || acl_allows;
    }
    let bucket_allows = by_bucket == Verdict::Allow || by_bucket == Verdict::AllowAccount && identity_allows;
    match account {
        None => bucket_allows || acl_allows,
        Some(_) if of_owner => identity_allows || bucket_allows || acl_allows,
        Some(_) => identity_allows && (bucket_allows || acl_allows),
    }
}

/// The owner of an object that exists and is not the bucket owner's, where that makes a difference: to write over it is
/// to make a new one.
fn foreign_owner<'a>(question: &Question<'a>, bucket: &Bucket<'_>) -> Option<&'a str> {
    let owner = question.object?.acl.owner.as_str();
    let counts = bucket.ownership != Ownership::BucketOwnerEnforced && question.request.action != "s3:PutObject";
    (counts && owner != bucket.acl.owner).then_some(owner)
}

fn by_acl(question: &Question<'_>, bucket: &Bucket<'_>) -> Granted {
    let Some((of, permission)) = acl_permission(question.request.action) else { return Granted::Nothing };
    if bucket.ownership == Ownership::BucketOwnerEnforced {
        return Granted::Nothing;
    }
    let acl = match of {
        Of::Bucket => Some(bucket.acl),
        Of::Object => question.object.map(|object| object.acl),
    };
    // "For the bucket and object owners of existing objects, also allows deletions and overwrites": who may write to
    // the bucket may not delete another's object.
    let deletes = question.request.action == "s3:DeleteObject";
    let own =
        |owner: &str| matches!(question.request.principal, Principal::Identified(who) if who.canonical_id == owner);
    if deletes && question.object.is_some_and(|object| !own(&object.acl.owner)) && !own(&bucket.acl.owner) {
        return Granted::Nothing;
    }
    let Some(acl) = acl else { return Granted::Nothing };
    if bucket.block.ignore_public_acls {
        acl.without_public().grants(question.request.principal, permission)
    } else {
        acl.grants(question.request.principal, permission)
    }
}
