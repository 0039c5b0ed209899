//! `RenameObject` (<https://docs.aws.amazon.com/AmazonS3/latest/API/API_RenameObject.html>): AWS has it for directory buckets, PALM
//! for all.
//!
//! Two names are two registers, and no update spans them. First the destination is written, sharing the body, then the source is
//! deleted if it still is what was read. In between both names have the object, never none; a peer that dies there leaves both, and
//! the client, which got no answer, renames again. A source that somebody replaced in between stays, as it is another object.

use palm_core::s3::notification::Event;
use s3s::dto::{CopySource, RenameObjectInput, RenameObjectOutput};
use s3s::{S3Error, S3ErrorCode, S3Request, S3Response, S3Result};

use super::condition::{self, ReadConditions, Verdict};
use super::{Frontend, access, error, notification};
use crate::object::{Deleted, Deletion, NewObject, ObjectError, WriteConditions};

/// The key that is renamed: `x-amz-rename-source` is the key or `/bucket/key`, percent-encoded.
pub fn source_key(source: &str, bucket: &str) -> S3Result<String> {
    let invalid = || error::invalid_argument("The x-amz-rename-source header names no object of this bucket");
    // The rest is as in the header of a copy's source.
    let whole = if source.starts_with('/') { source.to_owned() } else { format!("{bucket}/{source}") };
    match CopySource::parse(&whole) {
        Ok(CopySource::Bucket { bucket: of, key, version_id: None }) if *of == *bucket && !key.is_empty() => {
            Ok(key.into())
        }
        _ => Err(invalid()),
    }
}

fn check(verdict: Verdict) -> S3Result<()> {
    match verdict {
        Verdict::Proceed => Ok(()),
        Verdict::NotModified | Verdict::Failed => Err(S3Error::new(S3ErrorCode::PreconditionFailed)),
    }
}

pub async fn rename(
    frontend: &Frontend,
    request: S3Request<RenameObjectInput>,
) -> S3Result<S3Response<RenameObjectOutput>> {
    let mut input = request.input;
    let key = source_key(&input.rename_source, &input.bucket)?;
    super::check_key(&key)?;
    if key == input.key {
        return Err(error::invalid_request("An object cannot be renamed to its own name."));
    }
    let conditions = ReadConditions {
        matches: input.source_if_match.take(),
        none_match: input.source_if_none_match.take(),
        modified_since: input.source_if_modified_since.take().map(condition::seconds),
        unmodified_since: input.source_if_unmodified_since.take().map(condition::seconds),
    };
    let source = access::source(&frontend.store, &request.extensions, (&input.bucket, &key, None)).await?;
    check(conditions.judge(&source.record.etag.to_string(), source.modified_ms()))?;
    let onto = destination(frontend, &mut input).await?;
    let mut subresources = source.record.subresources.clone();
    // No version is made with a retention that is over.
    let now_ms = frontend.store.now_ms();
    subresources.lock.retention = subresources.lock.retention.filter(|retention| retention.until_ms > now_ms);
    let new = NewObject {
        attributes: source.record.attributes.clone(),
        subresources,
        customer_key: source.record.customer_key.clone(),
    };
    let (place, extensions) = ((input.bucket.as_str(), key.as_str()), &request.extensions);
    // AWS has no event for it: it is what it does.
    let made = notification::begin(frontend, extensions, (&input.bucket, &input.key), Event::CreatedCopy).await?;
    let event = notification::of_deletion(access::bucket(extensions)?, false);
    let gone = notification::begin(frontend, extensions, place, event).await?;
    let copied = frontend.store.copy(&source, place, &input.bucket, &input.key, new, onto).await;
    made.end(&copied);
    if let Err(failure) = copied {
        gone.cancelled();
        return Err(error::of(failure));
    }
    let unchanged = WriteConditions { unchanged: Some(source.version.stamp), ..WriteConditions::default() };
    let deletion = Deletion { conditions: unchanged, ..Deletion::default() };
    let deleted = match frontend.store.delete(&input.bucket, &key, deletion).await {
        Err(ObjectError::NoSuchKey | ObjectError::PreconditionFailed) => Ok(Deleted::default()),
        deleted => deleted.map_err(error::of),
    };
    notification::end_deletion(frontend, gone, &deleted);
    deleted?;
    Ok(S3Response::new(RenameObjectOutput::default()))
}

/// The conditions on what has the new name now. Dates are looked at here; that it still is what was looked at is decided in the
/// update.
async fn destination(frontend: &Frontend, input: &mut RenameObjectInput) -> S3Result<WriteConditions> {
    let mut conditions =
        condition::of_write(input.destination_if_match.take(), input.destination_if_none_match.take().as_ref())?;
    let dates = ReadConditions {
        modified_since: input.destination_if_modified_since.take().map(condition::seconds),
        unmodified_since: input.destination_if_unmodified_since.take().map(condition::seconds),
        ..ReadConditions::default()
    };
    if dates.modified_since.is_some() || dates.unmodified_since.is_some() {
        match frontend.store.head(&input.bucket, &input.key, None).await {
            Ok(standing) => {
                check(dates.judge("", standing.modified_ms()))?;
                conditions.unchanged = Some(standing.version.stamp);
            }
            Err(ObjectError::NoSuchKey) => {}
            Err(failure) => return Err(error::of(failure)),
        }
    }
    Ok(conditions)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: sources as clients write them. Danger: another object than the one meant disappears. Expectation: a slash in front
    /// means that a bucket follows, which must be this one; otherwise all of it is the key.
    #[test]
    fn a_source_is_a_key_of_this_bucket() {
        for (source, key) in [("k", "k"), ("/this-one/k", "k"), ("a/b%20c", "a/b c"), ("this-one/k", "this-one/k")] {
            assert_eq!(source_key(source, "this-one").expect(source), key);
        }
        for source in ["/other/k", "/k", "", "k?versionId=null"] {
            assert_eq!(source_key(source, "this-one").expect_err(source).code().as_str(), "InvalidArgument");
        }
    }
}
