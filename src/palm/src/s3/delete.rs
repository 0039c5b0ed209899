//! Deletions: of one object or version, and of up to a thousand in one request.

use futures::{StreamExt, stream};
use http::{Extensions, HeaderMap};
use palm_core::s3::version::Name;
use s3s::dto::{
    DeleteObjectInput, DeleteObjectOutput, DeleteObjectsInput, DeleteObjectsOutput, DeletedObject, ETagCondition,
    Error as DeleteError, ObjectIdentifier, Timestamp,
};
use s3s::{S3Error, S3ErrorCode, S3Request, S3Response, S3Result};
use time::OffsetDateTime;

use super::access;
use super::object::version_name;
use super::{Frontend, condition, error, notification};
use crate::object::{Deleted, Deletion, ObjectError, WriteConditions};

/// Keys one `DeleteObjects` request names at most (AWS's limit).
const DELETE_MAX_KEYS: usize = 1_000;
/// Deletes of one `DeleteObjects` request in flight at once.
const DELETE_CONCURRENCY: usize = 16;

/// Conditions of a deletion on what is deleted.
#[derive(Debug, Default)]
struct Conditions {
    /// `If-Match`.
    tag: Option<ETagCondition>,
    /// `x-amz-if-match-size`.
    size: Option<i64>,
    /// `x-amz-if-match-last-modified-time`.
    modified: Option<Timestamp>,
}

/// Deletes one object or version. Where nothing is, every condition holds: "if the object doesn't exist, the operation will return
/// a 204 Success (No Content) response" (<https://docs.aws.amazon.com/AmazonS3/latest/API/API_DeleteObject.html>).
async fn delete_one(
    (frontend, extensions): (&Frontend, &Extensions),
    (bucket, key, version): (&str, &str, Option<Name>),
    given: Conditions,
    bypass: bool,
) -> S3Result<Deleted> {
    let mut conditions = condition::of_write(given.tag, None)?;
    if given.size.is_some() || given.modified.is_some() {
        // Looked at here; that it still is what was looked at is decided in the update.
        match frontend.store.head(bucket, key, version).await {
            Ok(object) => {
                let size = given.size.is_none_or(|size| u64::try_from(size) == Ok(object.record.size));
                let seconds = i64::try_from(object.modified_ms() / 1000).unwrap_or(i64::MAX);
                let modified = given.modified.is_none_or(|time| OffsetDateTime::from(time).unix_timestamp() == seconds);
                if !size || !modified {
                    return Err(S3Error::new(S3ErrorCode::PreconditionFailed));
                }
                conditions.unchanged = Some(object.version.stamp);
            }
            Err(ObjectError::NoSuchKey | ObjectError::Marker { .. }) => return Ok(Deleted::default()),
            Err(failure) => return Err(error::of(failure)),
        }
    }
    let conditional = conditions != WriteConditions::default();
    let event = notification::of_deletion(access::bucket(extensions)?, version.is_some());
    let notice = notification::begin(frontend, extensions, (bucket, key), event).await?;
    let deletion = Deletion { version, conditions, bypass, ..Deletion::default() };
    let deleted = match frontend.store.delete(bucket, key, deletion).await {
        Err(ObjectError::NoSuchKey) if conditional => Ok(Deleted::default()),
        deleted => deleted.map_err(error::of),
    };
    notification::end_deletion(frontend, notice, &deleted);
    deleted
}

pub async fn delete(
    frontend: &Frontend,
    request: S3Request<DeleteObjectInput>,
) -> S3Result<S3Response<DeleteObjectOutput>> {
    let input = request.input;
    let bypass = input.bypass_governance_retention == Some(true);
    let version = version_name(input.version_id.as_deref())?;
    let given =
        Conditions { tag: input.if_match, size: input.if_match_size, modified: input.if_match_last_modified_time };
    let place = (input.bucket.as_str(), input.key.as_str(), version);
    let deleted = delete_one((frontend, &request.extensions), place, given, bypass).await?;
    Ok(S3Response::new(DeleteObjectOutput {
        delete_marker: deleted.delete_marker.then_some(true),
        // As it was named, where it was.
        version_id: deleted.version.map(|version| input.version_id.unwrap_or_else(|| version.to_string())),
        request_charged: None,
    }))
}

pub async fn delete_many(
    frontend: &Frontend,
    request: S3Request<DeleteObjectsInput>,
) -> S3Result<S3Response<DeleteObjectsOutput>> {
    let (extensions, headers) = (&request.extensions, request.headers);
    let DeleteObjectsInput { bucket, delete, bypass_governance_retention, .. } = request.input;
    if delete.objects.is_empty() || delete.objects.len() > DELETE_MAX_KEYS {
        return Err(S3Error::new(S3ErrorCode::MalformedXML));
    }
    // The answer must name every key, and XML 1.0 has no way to write these: such a request was no XML either.
    let unwritable = |byte: u8| byte < 0x20 && !matches!(byte, b'\t' | b'\n' | b'\r');
    if delete.objects.iter().any(|object| object.key.bytes().any(unwritable)) {
        return Err(S3Error::new(S3ErrorCode::MalformedXML));
    }
    let bypass = bypass_governance_retention == Some(true);
    let quiet = delete.quiet.unwrap_or(false);
    let outcomes: Vec<(ObjectIdentifier, S3Result<Deleted>)> = stream::iter(delete.objects)
        .map(|object| async {
            let outcome = delete_identified((frontend, extensions, &headers), &bucket, &object, bypass).await;
            (object, outcome)
        })
        .buffered(DELETE_CONCURRENCY)
        .collect()
        .await;
    let (mut deleted, mut errors) = (Vec::new(), Vec::new());
    for (object, outcome) in outcomes {
        let ObjectIdentifier { key, version_id, .. } = object;
        match outcome {
            Ok(_) if quiet => {}
            Ok(done) => deleted.push(entry(key, version_id, done)),
            Err(told) if *told.code() == S3ErrorCode::NoSuchBucket => return Err(told),
            Err(told) => errors.push(DeleteError {
                code: Some(told.code().as_str().to_owned()),
                key: Some(key),
                message: told.message().map(str::to_owned),
                version_id,
            }),
        }
    }
    let output = DeleteObjectsOutput { deleted: Some(deleted), errors: Some(errors), request_charged: None };
    Ok(S3Response::new(output))
}

async fn delete_identified(
    (frontend, extensions, headers): (&Frontend, &Extensions, &HeaderMap),
    bucket: &str,
    object: &ObjectIdentifier,
    bypass: bool,
) -> S3Result<Deleted> {
    // `<VersionId/>` is how some clients write none.
    let version = version_name(object.version_id.as_deref().filter(|version| !version.is_empty()))?;
    super::check_key(&object.key)?;
    access::admitted(extensions)?.may_delete(&frontend.store, headers, &object.key, version).await?;
    let given = Conditions {
        tag: object.e_tag.clone().map(ETagCondition::ETag),
        size: object.size,
        modified: object.last_modified_time.clone(),
    };
    delete_one((frontend, extensions), (bucket, &object.key, version), given, bypass).await
}

/// `VersionId` is the version that was named, `DeleteMarkerVersionId` the marker that was made or deleted.
fn entry(key: String, version_id: Option<String>, done: Deleted) -> DeletedObject {
    let marker = done.version.filter(|_| done.delete_marker).map(|version| version.to_string());
    DeletedObject {
        key: Some(key),
        version_id,
        delete_marker: done.delete_marker.then_some(true),
        delete_marker_version_id: marker,
    }
}
