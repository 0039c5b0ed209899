//! What s3s calls before each operation.

use std::sync::Arc;

use http::{Extensions, HeaderMap};
use palm_core::s3::account::Account;
use palm_core::s3::policy::Context;
use palm_core::s3::policy::operation::Operation;
use palm_core::s3::version::Name;
use parking_lot::Mutex;
use s3s::access::{S3Access, S3AccessContext};
use s3s::dto::{
    CopySource, CreateBucketInput, ObjectLockRetentionMode, PutObjectLegalHoldInput, PutObjectRetentionInput,
    PutObjectTaggingInput,
};
use s3s::{S3Error, S3ErrorCode, S3Request, S3Result};

use super::admitted::{Admitted, Bucket, Source};
use super::context::{self, header};
use super::principal::session_token;
use super::unsupported::refuse_unsupported;
use super::{Asker, Origin, Query, Signer, error, table};
use crate::object::Store;
use crate::s3::access_log::Requester;
use crate::s3::measure::Asking;
use crate::s3::object::version_name;
use crate::s3::rename::source_key;
use crate::s3::senseless::Admission;
use crate::s3::server::Connection;

/// Names the owner a client expects a bucket to have.
const EXPECTED_OWNER: &str = "x-amz-expected-bucket-owner";
/// The same for the bucket a copy reads from.
const EXPECTED_SOURCE_OWNER: &str = "x-amz-source-expected-bucket-owner";

/// Lets requests in that are allowed what they ask, if PALM has it.
pub struct Gate {
    pub store: Store,
}

#[async_trait::async_trait]
impl S3Access for Gate {
    async fn check(&self, context: &mut S3AccessContext<'_>) -> S3Result<()> {
        let asking = context.extensions_mut().get::<Asking>().cloned();
        let name = context.s3_op().name();
        if let Some(asking) = asking {
            asking.is(name);
        }
        let Some(operation) = table::operation(name) else {
            return Err(unknown(context.credentials().is_none()));
        };
        if let Some(key) = context.s3_path().get_object_key() {
            crate::s3::check_key(key)?;
        }
        refuse_unsupported(context.headers())?;
        let extensions = context.extensions_mut();
        let origin = extensions.get::<Connection>().map(Origin::from);
        let (signer, admission) = (extensions.get::<Signer>().cloned(), extensions.get::<Admission>().cloned());
        let requester = extensions.get::<Requester>().cloned();
        let admitted = self.look(operation, origin, signer.as_ref(), context).await?;
        if let (Some(requester), Some(named)) = (requester, admitted.asker.log_name()) {
            requester.is(named);
        }
        // Nobody owns no buckets, which is what they are told (as other servers do).
        let of_nobody = operation == Operation::ListBuckets && admitted.asker.signer().is_none();
        if !of_nobody && !waits_for_body(context.s3_op().name()) {
            admitted.decide()?;
        }
        if let Some(admission) = admission {
            admission.grant(context.credentials());
        }
        context.extensions_mut().insert(Arc::new(admitted));
        Ok(())
    }

    async fn create_bucket(&self, request: &mut S3Request<CreateBucketInput>) -> S3Result<()> {
        let configuration = request.input.create_bucket_configuration.as_ref();
        let location = configuration.and_then(|configuration| configuration.location_constraint.as_ref());
        with_body(&request.extensions, |context| {
            if let Some(location) = location {
                context.add("s3:LocationConstraint", location.as_str());
            }
        })
    }

    async fn put_object_tagging(&self, request: &mut S3Request<PutObjectTaggingInput>) -> S3Result<()> {
        let tags = request.input.tagging.tag_set.iter();
        let tags = tags.map(|tag| (tag.key.as_deref().unwrap_or_default(), tag.value.as_deref().unwrap_or_default()));
        with_body(&request.extensions, |context| context::of_tags(context, tags))
    }

    async fn put_object_retention(&self, request: &mut S3Request<PutObjectRetentionInput>) -> S3Result<()> {
        let retention = request.input.retention.as_ref();
        let mode = retention.and_then(|retention| retention.mode.as_ref()).map(ObjectLockRetentionMode::as_str);
        let until = retention.and_then(|retention| retention.retain_until_date.as_ref()).and_then(iso);
        let now_ms = self.store.now_ms();
        with_body(&request.extensions, |context| context::of_retention(context, (mode, until.as_deref()), now_ms))
    }

    async fn put_object_legal_hold(&self, request: &mut S3Request<PutObjectLegalHoldInput>) -> S3Result<()> {
        let status = request.input.legal_hold.as_ref().and_then(|hold| hold.status.as_ref());
        with_body(&request.extensions, |context| {
            if let Some(status) = status {
                context.add("s3:object-lock-legal-hold", status.as_str());
            }
        })
    }
}

/// Operations whose decision depends on what the body says, or is made for each key there (`DeleteObjects`): the methods above
/// and [`Admitted::may_delete`] see to it.
fn waits_for_body(name: &str) -> bool {
    const WAIT: [&str; 5] =
        ["CreateBucket", "DeleteObjects", "PutObjectLegalHold", "PutObjectRetention", "PutObjectTagging"];
    WAIT.contains(&name)
}

/// What PALM does not serve it lets nobody do: who signed is told so.
fn unknown(is_anonymous: bool) -> S3Error {
    if is_anonymous {
        return S3Error::new(S3ErrorCode::AccessDenied);
    }
    error::not_implemented("A header or operation you provided implies functionality that is not implemented")
}

fn with_body(extensions: &Extensions, add: impl FnOnce(&mut Context)) -> S3Result<()> {
    let admitted = super::admitted(extensions)?;
    let mut context = admitted.context.clone();
    add(&mut context);
    admitted.decide_in(&context)
}

impl Gate {
    /// Finds out who asks, and reads what has a say, all at once.
    async fn look(
        &self,
        operation: Operation,
        origin: Option<Origin>,
        signer: Option<&Signer>,
        request: &S3AccessContext<'_>,
    ) -> S3Result<Admitted> {
        let store = &self.store;
        let name = request.s3_op().name();
        let headers = request.headers();
        let query = Query::parse(request.uri().query().unwrap_or_default());
        let bucket_name = request.s3_path().get_bucket_name();
        let key = request.s3_path().get_object_key();
        let version = version_name(query.get("versionId"))?;
        let credentials = request.credentials().or(signer.map(|signer| &signer.credentials));
        let asker = Asker::find(store, credentials, session_token(headers, &query), origin);
        let bucket = async {
            match bucket_name.filter(|_| operation != Operation::CreateBucket) {
                Some(bucket) => Bucket::find(store, bucket, table::is_read(name)).await.map(Some),
                None => Ok(None),
            }
        };
        let object = async {
            match (bucket_name, key) {
                (Some(bucket), Some(key)) if table::is_of_object(operation) => {
                    Some(store.head(bucket, key, version).await)
                }
                _ => None,
            }
        };
        let (asker, bucket, object, source) =
            futures::join!(asker, bucket, object, self.source(operation, bucket_name, headers));
        let mut admitted = Admitted {
            asker: asker?,
            operation,
            extras: context::extras(headers, &query),
            bucket_name: bucket_name.map(str::to_owned),
            bucket: bucket?,
            key: key.map(str::to_owned),
            version,
            context: Context::default(),
            object: Mutex::new(object),
            source: source?,
        };
        let owner = admitted.bucket().ok().map(|bucket| bucket.owner.clone());
        self.expect_owner(owner.as_deref(), headers, EXPECTED_OWNER).await?;
        if let Some(source) = &admitted.source {
            admitted.extras.source_version = source.version.is_some();
            admitted.extras.source_tagging = header(headers, "x-amz-tagging-directive") != Some("REPLACE");
            self.expect_owner(Some(source.bucket.owner()), headers, EXPECTED_SOURCE_OWNER).await?;
        }
        if let (Operation::DeleteObject, Some(bucket), Some(key), false) =
            (operation, bucket_name, key, admitted.is_owners_root())
        {
            *admitted.object.get_mut() = Some(store.head(bucket, key, version).await);
        }
        // Most requests are made by an account's own key, and no policy has a say.
        if admitted.has_policies() || waits_for_body(name) {
            admitted.context = context::of_request(&admitted.asker, store.now_ms(), &query, headers);
            if let Some(signer) = signer {
                admitted.context.add("s3:authType", signer.by);
                admitted.context.add("s3:signatureversion", signer.version);
            }
            if let Some(owner) = owner.and_then(|owner| store.account_of(&owner)) {
                context::of_owner(&mut admitted.context, &owner);
            }
        }
        Ok(admitted)
    }

    /// Reads the source of a copy or rename, with its own bucket.
    async fn source(
        &self,
        operation: Operation,
        bucket_name: Option<&str>,
        headers: &HeaderMap,
    ) -> S3Result<Option<Source>> {
        let place = match operation {
            Operation::CopyObject | Operation::UploadPartCopy => copy_source(headers)?,
            Operation::RenameObject => rename_source(bucket_name, headers)?,
            _ => return Ok(None),
        };
        let (bucket, key, version) = place;
        crate::s3::check_key(&key)?;
        let (found_bucket, found) =
            futures::join!(Bucket::find(&self.store, &bucket, true), self.store.head(&bucket, &key, version));
        Ok(Some(Source { bucket: found_bucket?, key, version, found: Mutex::new(Some(found)) }))
    }

    /// Refuses a request whose client expects another owner: a safety catch must hold or be refused, never be ignored. An
    /// owner is named by account number (as AWS has it) or canonical id.
    async fn expect_owner(&self, owner: Option<&str>, headers: &HeaderMap, name: &str) -> S3Result<()> {
        let (Some(expected), Some(owner)) = (headers.get(name), owner) else { return Ok(()) };
        let account = self.store.find_account(owner).await.map_err(error::of)?;
        let number = account.as_ref().map(Account::number).unwrap_or_default();
        if [owner, &number].iter().any(|known| known.as_bytes() == expected.as_bytes()) {
            return Ok(());
        }
        Err(S3Error::new(S3ErrorCode::AccessDenied))
    }
}

type Place = (String, String, Option<Name>);

fn copy_source(headers: &HeaderMap) -> S3Result<Place> {
    let invalid =
        || error::invalid_argument("Copy Source must mention the source bucket and key: sourcebucket/sourcekey");
    match CopySource::parse(header(headers, "x-amz-copy-source").unwrap_or_default()) {
        Ok(CopySource::Bucket { bucket, key, version_id }) => {
            Ok((bucket.into(), key.into(), version_name(version_id.as_deref())?))
        }
        Ok(_) => Err(error::not_implemented("Copy sources are named as bucket and key")),
        Err(_) => Err(invalid()),
    }
}

/// The source of a rename is in the same bucket
/// (<https://docs.aws.amazon.com/AmazonS3/latest/API/API_RenameObject.html>).
fn rename_source(bucket: Option<&str>, headers: &HeaderMap) -> S3Result<Place> {
    let given = header(headers, "x-amz-rename-source").unwrap_or_default();
    let bucket = bucket.ok_or_else(|| error::invalid_argument("A key is renamed within a bucket"))?;
    Ok((bucket.to_owned(), source_key(given, bucket)?, None))
}

fn iso(date: &s3s::dto::Timestamp) -> Option<String> {
    let mut text = Vec::new();
    date.format(s3s::dto::TimestampFormat::DateTime, &mut text).ok()?;
    String::from_utf8(text).ok()
}
