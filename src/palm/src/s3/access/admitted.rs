//! What the gate found out about a request, and the decisions on it.

use http::HeaderMap;
use palm_core::record::BucketRecord;
use palm_core::s3::acl::{Acl, Grant, Granted, Grantee, Permission};
use palm_core::s3::policy::operation::{Extras, Needed, On, Operation};
use palm_core::s3::policy::{self, Attached, Context, Decision, Policy, Question, Request};
use palm_core::s3::version::Name;
use parking_lot::Mutex;
use s3s::{S3Error, S3ErrorCode, S3Result};

use super::{Asker, Query, context, error};
use crate::object::{Object, ObjectError, Store};

/// What anybody may say of an upload to a bucket whose list lets anybody write. Nobody locks what is another's.
const WRITTEN_BY_ANYBODY: [&str; 2] = ["s3:PutObjectAcl", "s3:PutObjectTagging"];

/// What a look at an object found.
type Found = Result<Object, ObjectError>;

/// A bucket and all of it that has a say.
pub(super) struct Bucket {
    name: String,
    record: BucketRecord,
    acl: Acl,
    policy: Option<Policy>,
}

impl Bucket {
    /// Reads a bucket; for `reading`, as the pool's settings have it where no majority is in reach.
    pub(super) async fn find(store: &Store, name: &str, reading: bool) -> S3Result<Self> {
        let record = if reading { store.known_bucket(name).await } else { store.bucket(name).await };
        let record = record.map_err(error::of)?;
        let acl = record.config.acl.clone().unwrap_or_else(|| Acl::private(record.owner.clone()));
        let document = record.config.policy.as_ref();
        let policy = document.map(|document| Policy::parse(document.as_bytes(), Attached::Bucket(name))).transpose();
        // It was accepted once. That it is not any more may only be our doing, and it may be the one that denies.
        let policy = policy.map_err(|refusal| S3Error::with_message(S3ErrorCode::InternalError, refusal.message))?;
        Ok(Self { name: name.to_owned(), record, acl, policy })
    }

    /// Canonical id of its owner.
    pub(super) fn owner(&self) -> &str {
        &self.record.owner
    }

    fn part(&self) -> policy::Bucket<'_> {
        let config = &self.record.config;
        policy::Bucket {
            acl: &self.acl,
            policy: self.policy.as_ref(),
            ownership: ownership(&self.record),
            block: config.public_access_block.unwrap_or_default(),
        }
    }
}

/// What a bucket's ownership controls are; without any, ACLs work (see docs/access.md).
pub fn ownership(record: &BucketRecord) -> palm_core::s3::acl::Ownership {
    record.config.ownership.unwrap_or(palm_core::s3::acl::Ownership::ObjectWriter)
}

/// The source of a copy or rename.
pub(super) struct Source {
    pub(super) bucket: Bucket,
    pub(super) key: String,
    pub(super) version: Option<Name>,
    pub(super) found: Mutex<Option<Found>>,
}

/// What the gate found out about a request.
pub struct Admitted {
    /// Who asks.
    pub asker: Asker,
    pub(super) operation: Operation,
    pub(super) extras: Extras,
    pub(super) bucket_name: Option<String>,
    pub(super) bucket: Option<Bucket>,
    pub(super) key: Option<String>,
    pub(super) version: Option<Name>,
    pub(super) context: Context,
    /// What a look at the object found, if there was one and until it is taken.
    pub(super) object: Mutex<Option<Found>>,
    pub(super) source: Option<Source>,
}

impl Admitted {
    /// The bucket's settings.
    pub fn bucket(&self) -> S3Result<&BucketRecord> {
        self.bucket.as_ref().map(|bucket| &bucket.record).ok_or_else(|| S3Error::new(S3ErrorCode::NoSuchBucket))
    }

    /// What the gate's look at the object found, once.
    pub(super) fn take_object(&self, version: Option<Name>) -> Option<Found> {
        if self.version == version { self.object.lock().take() } else { None }
    }

    /// What the gate's look at the source found, once.
    pub(super) fn take_source(&self, bucket: &str, key: &str, version: Option<Name>) -> Option<Found> {
        let source = self.source.as_ref()?;
        // The same place, or the client has another one in mind than was judged.
        let same = source.bucket.name == bucket && source.key == key && source.version == version;
        if same { source.found.lock().take() } else { None }
    }

    /// Whether the asker is the root of the account that owns the bucket: nothing but a policy can stop it.
    pub(super) fn is_owners_root(&self) -> bool {
        self.bucket.as_ref().is_some_and(|bucket| self.asker.is_root_of(&bucket.record.owner))
    }

    /// Whether any policy has a say: only then does anybody ask for the context.
    pub(super) fn has_policies(&self) -> bool {
        let buckets = self.bucket.iter().chain(self.source.as_ref().map(|source| &source.bucket));
        let asker = &self.asker;
        !asker.policies().is_empty() || asker.session_policy().is_some() || buckets.flat_map(|b| &b.policy).count() > 0
    }

    /// Decides all that the request needs.
    pub(super) fn decide(&self) -> S3Result<()> {
        self.decide_in(&self.context)
    }

    /// The same with what the body said.
    pub(super) fn decide_in(&self, context: &Context) -> S3Result<()> {
        let object = self.object.lock();
        let source = self.source.as_ref().map(|source| source.found.lock());
        let object = known(object.as_ref())?;
        let source = known(source.as_ref().and_then(|found| found.as_ref()))?;
        let mut extras = self.extras;
        if let (Operation::CopyObject, Look::There(source)) = (self.operation, &source) {
            extras.source_tagging = extras.source_tagging && !source.record.subresources.tags.is_empty();
            extras.tagging |= extras.source_tagging;
        }
        for needed in self.operation.needs(extras) {
            match (needed.on, &self.source) {
                (On::Source, Some(from)) => self.decide_one(needed, &from.key, &source, context)?,
                _ => self.decide_one(needed, self.key.as_deref().unwrap_or_default(), &object, context)?,
            }
        }
        Ok(())
    }

    /// Decides the deletion of one key, for `DeleteObjects`: `headers` are the request's.
    pub async fn may_delete(
        &self,
        store: &Store,
        headers: &HeaderMap,
        key: &str,
        version: Option<Name>,
    ) -> S3Result<()> {
        let bucket = self.bucket.as_ref().ok_or_else(|| S3Error::new(S3ErrorCode::NoSuchBucket))?;
        let found = if self.is_owners_root() { None } else { Some(store.head(&bucket.name, key, version).await) };
        let mut context = self.context.clone();
        if let Some(version) = version {
            context.add("s3:VersionId", version.to_string());
        }
        let extras = Extras { version: version.is_some(), ..context::extras(headers, &Query::default()) };
        let look = known(found.as_ref())?;
        let needs = Operation::DeleteObject.needs(extras);
        needs.into_iter().try_for_each(|needed| self.decide_one(needed, key, &look, &context))
    }

    fn decide_one(&self, needed: Needed, key: &str, at: &Look<'_>, context: &Context) -> S3Result<()> {
        let decision = match at {
            Look::There(object) => {
                let context = context::with_existing_tags(context, &object.record.subresources.tags);
                self.question(needed, key, Some(object), &context)
            }
            Look::Missing | Look::None => self.question(needed, key, None, context),
        };
        // Who deletes learns nothing from there being nothing.
        let hides = matches!(at, Look::Missing) && self.operation != Operation::DeleteObject;
        if !hides || decision == Decision::ExplicitDeny {
            return decision.or_refuse().map_err(|refusal| error::of_refusal(&refusal));
        }
        let listing =
            Needed { action: "s3:ListBucket", on: if needed.on == On::Source { On::Source } else { On::Bucket } };
        let may_list = self.question(listing, "", None, &context::of_listing(context, key)) == Decision::Allow;
        // Where nothing else is in the way the operation itself says that there is nothing: it knows why.
        if decision == Decision::Allow && may_list {
            return Ok(());
        }
        Err(error::of_refusal(&policy::missing_object(may_list)))
    }

    /// Asks the one place that decides; `object`: where it is there.
    fn question(&self, needed: Needed, key: &str, object: Option<&Object>, context: &Context) -> Decision {
        let (bucket, name) = match (needed.on, &self.source) {
            (On::Source, Some(source)) => (Some(&source.bucket), Some(&source.bucket.name)),
            (On::Account | On::Source, _) => (None, None),
            (On::Bucket | On::Object, _) => (self.bucket.as_ref(), self.bucket_name.as_ref()),
        };
        let of_bucket = needed.on == On::Bucket || needed.action == "s3:ListBucket";
        let resource = match name {
            None => "*".to_owned(),
            Some(name) if of_bucket => format!("arn:aws:s3:::{name}"),
            Some(name) => format!("arn:aws:s3:::{name}/{key}"),
        };
        let own = object.and_then(|object| object.record.subresources.acl.as_ref());
        let implied = match (object, bucket) {
            (Some(_), Some(bucket)) => Some(Acl::private(&bucket.record.owner)),
            (None, Some(bucket)) => self.of_object_to_come(needed, bucket),
            _ => None,
        };
        let acl = own.or(implied.as_ref());
        let request = Request { principal: &self.asker.principal, action: needed.action, resource: &resource, context };
        let decision = policy::decide(&Question {
            request,
            identity: &self.asker.policies(),
            session: self.asker.session_policy(),
            bucket: bucket.map(Bucket::part),
            object: acl.map(|acl| policy::Object { acl }),
        });
        let says_how = self.operation.brings_object() && WRITTEN_BY_ANYBODY.contains(&needed.action);
        if decision != Decision::ImplicitDeny || !says_how || self.asker.signer().is_some() {
            return decision;
        }
        // A bucket whose list lets anybody write lets them say how, as in a browser's form.
        let by_list = bucket.map(|bucket| policy::Bucket { policy: None, ..bucket.part() });
        let request = Request { action: "s3:PutObject", ..request };
        policy::decide(&Question { request, identity: &[], session: None, bucket: by_list, object: None })
    }

    /// What an upload brings beside its bytes (ACL, tags, lock) is asked about an object that is not there yet. Where it will
    /// be its writer's own and not the bucket owner's, the writer's account has the say about that, as it has right after.
    fn of_object_to_come(&self, needed: Needed, bucket: &Bucket) -> Option<Acl> {
        const BROUGHT: [&str; 4] =
            ["s3:PutObjectAcl", "s3:PutObjectTagging", "s3:PutObjectRetention", "s3:PutObjectLegalHold"];
        let brings = self.operation.brings_object() && BROUGHT.contains(&needed.action);
        let Some(signer) = self.asker.signer() else {
            // What nobody signed is the bucket owner's, who by its list has left everything about uploads to everybody.
            let open = bucket.acl.grants(&self.asker.principal, Permission::Write) == Granted::ToGroup;
            let everybody = Grant { grantee: Grantee::AllUsers, permission: Permission::WriteAcp };
            return (brings && open).then(|| Acl { owner: bucket.record.owner.clone(), grants: vec![everybody] });
        };
        let writer = signer.canonical_id.as_str();
        let owner = ownership(&bucket.record).owner_of_upload(Some(writer), &bucket.record.owner, false);
        (brings && owner != bucket.record.owner).then(|| Acl::private(owner))
    }
}

/// What is known of an object.
enum Look<'a> {
    /// It was not looked at.
    None,
    /// There is none, or a marker stands for it.
    Missing,
    /// It is there.
    There(&'a Object),
}

fn known(found: Option<&Found>) -> S3Result<Look<'_>> {
    Ok(match found {
        None => Look::None,
        Some(Ok(object)) => Look::There(object),
        Some(Err(ObjectError::Unavailable(what))) => {
            return Err(S3Error::with_message(S3ErrorCode::ServiceUnavailable, what.clone()));
        }
        Some(Err(ObjectError::Overloaded)) => return Err(S3Error::new(S3ErrorCode::SlowDown)),
        Some(Err(ObjectError::Internal(_))) => return Err(S3Error::new(S3ErrorCode::InternalError)),
        Some(Err(_)) => Look::Missing,
    })
}
