//! Objects: put, get, head and delete.

use futures::{StreamExt, stream};
use palm_core::record::Checksum;
use palm_core::s3::version::Name;
use s3s::dto::{
    ChecksumMode, ChecksumType, DeleteObjectInput, DeleteObjectOutput, DeleteObjectsInput, DeleteObjectsOutput,
    DeletedObject, ETag, ETagCondition, Error as DeleteError, GetObjectInput, GetObjectOutput, HeadObjectInput,
    HeadObjectOutput, ObjectIdentifier, PostObjectInput, PostObjectOutput, PutObjectInput, PutObjectOutput,
    StreamingBlob,
};
use s3s::{S3Error, S3ErrorCode, S3Request, S3Response, S3Result};

use super::attributes::{set_attributes, take_attributes};
use super::checksum::{Declared, explain, set_checksum};
use super::condition::{self, ReadConditions, Verdict};
use super::range::{Selection, select};
use super::{Frontend, answer, body, checksum, error, signed, timestamp};
use crate::object::{Deletion, NewObject, Object, ObjectError, WriteConditions};

/// Keys one `DeleteObjects` request names at most (AWS's limit).
const DELETE_MAX_KEYS: usize = 1_000;
/// Deletes of one `DeleteObjects` request in flight at once.
const DELETE_CONCURRENCY: usize = 16;

pub async fn put(frontend: &Frontend, mut request: S3Request<PutObjectInput>) -> S3Result<S3Response<PutObjectOutput>> {
    let declared = Declared::read(&request.headers, request.trailing_headers.take())?;
    let algorithm = declared.algorithm();
    let mut input = request.input;
    let conditions = condition::of_write(input.if_match.take(), input.if_none_match.as_ref())?;
    let new = NewObject::from(take_attributes!(input)?);
    let body = body::incoming(input.body, input.content_length, declared)?;
    let stored = frontend.store.put(&input.bucket, &input.key, new, conditions, body).await;
    let object = stored.map_err(|failure| explain(failure, algorithm))?;
    let mut output = PutObjectOutput { e_tag: Some(etag(&object)), ..PutObjectOutput::default() };
    if let Some(sum) = &object.record.checksum {
        set_checksum!(output, sum.algorithm, checksum::encode(sum, 0));
        output.checksum_type = Some(ChecksumType::from_static(checksum::kind_name(sum.kind)));
    }
    Ok(S3Response::new(output))
}

/// Browser forms. s3s would hand them to [`put`], but a form asks for things in its fields (ACL, tags, lock)
/// that the gate sees only in headers, so they are refused until they have a gate of their own.
#[expect(clippy::unused_async, reason = "every operation has this shape")]
pub async fn post(_: &Frontend, _: S3Request<PostObjectInput>) -> S3Result<S3Response<PostObjectOutput>> {
    Err(error::not_implemented("POST forms are not implemented"))
}

/// An object's entity tag, as s3s writes it.
pub fn etag(object: &Object) -> ETag {
    ETag::Strong(object.record.etag.to_string())
}

/// The version a request names.
pub fn version_name(version: Option<&str>) -> S3Result<Option<Name>> {
    version.map(|version| version.parse().map_err(|refusal| error::of_refusal(&refusal))).transpose()
}

/// Turns the verdict on a read's conditions into its answer, if that ends the request.
fn obey(verdict: Verdict, object: &Object) -> S3Result<()> {
    match verdict {
        Verdict::Proceed => Ok(()),
        Verdict::Failed => Err(S3Error::new(S3ErrorCode::PreconditionFailed)),
        Verdict::NotModified => Err(not_modified(object)),
    }
}

/// 304 with what RFC 9110, section 15.4.5, wants beside it.
fn not_modified(object: &Object) -> S3Error {
    let mut told = S3Error::new(S3ErrorCode::NotModified);
    let mut headers = http::HeaderMap::new();
    if let Ok(value) = etag(object).to_http_header() {
        headers.insert(http::header::ETAG, value);
    }
    let mut date = Vec::new();
    let modified = timestamp(object.modified_ms());
    if modified.format(s3s::dto::TimestampFormat::HttpDate, &mut date).is_ok()
        && let Ok(value) = http::HeaderValue::from_bytes(&date)
    {
        headers.insert(http::header::LAST_MODIFIED, value);
    }
    told.set_headers(headers);
    told
}

/// What `GetObject` and `HeadObject` have in common: the object and the bytes asked for, once the conditions hold.
async fn find(
    frontend: &Frontend,
    (bucket, key): (&str, &str),
    version: Option<&str>,
    conditions: &ReadConditions,
    range: Option<s3s::dto::Range>,
    part: Option<i32>,
) -> S3Result<(Object, Selection)> {
    let object = frontend.store.head(bucket, key, version_name(version)?).await.map_err(error::of)?;
    obey(conditions.judge(&object.record.etag.to_string(), object.modified_ms()), &object)?;
    let selection = select(&object.record, range, part)?;
    Ok((object, selection))
}

/// The checksum that belongs to an answer, as text: of the whole object or of one whole part, never of some
/// range.
fn checksum_of<'a>(object: &'a Object, selection: &'a Selection) -> Option<(&'a Checksum, String)> {
    let record = &object.record;
    let sum = match &selection.part {
        Some(part) => part.checksum.as_ref(),
        None if selection.is_whole(record.size) => record.checksum.as_ref(),
        None => None,
    }?;
    Some((sum, checksum::encode(sum, usize::from(record.etag.parts))))
}

/// Sets what the answers to `GetObject` and `HeadObject` have in common.
macro_rules! describe {
    ($output:expr, $object:expr, $selection:expr, $mode:expr, $part:expr) => {{
        let (object, selection) = ($object, $selection);
        $output.accept_ranges = Some("bytes".to_owned());
        $output.content_length = Some(signed(selection.len()));
        $output.content_range.clone_from(&selection.content_range);
        $output.e_tag = Some(etag(object));
        $output.last_modified = Some(timestamp(object.modified_ms()));
        if $part.is_some() && object.record.etag.parts > 0 {
            $output.parts_count = Some(i32::from(object.record.etag.parts));
        }
        let wanted = $mode.is_some_and(|mode| mode.as_str() == ChecksumMode::ENABLED);
        if let Some((sum, text)) = checksum_of(object, selection).filter(|_| wanted) {
            set_checksum!($output, sum.algorithm, text);
            $output.checksum_type = Some(ChecksumType::from_static(checksum::kind_name(sum.kind)));
        }
    }};
}

pub async fn get(frontend: &Frontend, request: S3Request<GetObjectInput>) -> S3Result<S3Response<GetObjectOutput>> {
    let mut input = request.input;
    let conditions = condition::of_get(&mut input);
    let (range, part) = (input.range, input.part_number);
    let place = (input.bucket.as_str(), input.key.as_str());
    let (object, selection) = find(frontend, place, input.version_id.as_deref(), &conditions, range, part).await?;
    let mut output = GetObjectOutput::default();
    describe!(output, &object, &selection, input.checksum_mode.as_ref(), part);
    let length = selection.len();
    output.body = Some(if length == 0 {
        StreamingBlob::from_bytes(bytes::Bytes::new())
    } else {
        let stream = frontend.store.read(&object, selection.bytes).await.map_err(error::of)?;
        body::outgoing(stream, length)
    });
    // The response-* overrides are s3s's: it lays them over these.
    set_attributes!(output, object.record.attributes);
    Ok(answer(output, object.stale))
}

pub async fn head(frontend: &Frontend, request: S3Request<HeadObjectInput>) -> S3Result<S3Response<HeadObjectOutput>> {
    let mut input = request.input;
    let conditions = condition::of_head(&mut input);
    let (range, part) = (input.range, input.part_number);
    let place = (input.bucket.as_str(), input.key.as_str());
    let (object, selection) = find(frontend, place, input.version_id.as_deref(), &conditions, range, part).await?;
    let mut output = HeadObjectOutput::default();
    describe!(output, &object, &selection, input.checksum_mode.as_ref(), part);
    set_attributes!(output, object.record.attributes);
    // s3s lays the response-* overrides over GetObject's answers only.
    output.content_type = input.response_content_type.or(output.content_type);
    output.content_encoding = input.response_content_encoding.or(output.content_encoding);
    output.content_language = input.response_content_language.or(output.content_language);
    output.content_disposition = input.response_content_disposition.or(output.content_disposition);
    output.cache_control = input.response_cache_control.or(output.cache_control);
    Ok(answer(output, object.stale))
}

pub async fn delete(
    frontend: &Frontend,
    request: S3Request<DeleteObjectInput>,
) -> S3Result<S3Response<DeleteObjectOutput>> {
    let input = request.input;
    if input.if_match_last_modified_time.is_some() || input.if_match_size.is_some() {
        return Err(error::not_implemented("Conditions on time or size belong to directory buckets"));
    }
    let version = version_name(input.version_id.as_deref())?;
    let conditions = condition::of_write(input.if_match, None)?;
    let deletion = Deletion { version, conditions, ..Deletion::default() };
    // Deleting what is not there succeeds too.
    frontend.store.delete(&input.bucket, &input.key, deletion).await.map_err(error::of)?;
    Ok(S3Response::new(DeleteObjectOutput::default()))
}

pub async fn delete_many(
    frontend: &Frontend,
    request: S3Request<DeleteObjectsInput>,
) -> S3Result<S3Response<DeleteObjectsOutput>> {
    let DeleteObjectsInput { bucket, delete, .. } = request.input;
    if delete.objects.is_empty() || delete.objects.len() > DELETE_MAX_KEYS {
        return Err(S3Error::new(S3ErrorCode::MalformedXML));
    }
    // The answer must name every key, and XML 1.0 has no way to write these: such a request was no XML either.
    let unwritable = |byte: u8| byte < 0x20 && !matches!(byte, b'\t' | b'\n' | b'\r');
    if delete.objects.iter().any(|object| object.key.bytes().any(unwritable)) {
        return Err(S3Error::new(S3ErrorCode::MalformedXML));
    }
    let quiet = delete.quiet.unwrap_or(false);
    let outcomes: Vec<(ObjectIdentifier, S3Result<()>)> = stream::iter(delete.objects)
        .map(|object| async {
            let outcome = delete_one(frontend, &bucket, &object).await;
            (object, outcome)
        })
        .buffered(DELETE_CONCURRENCY)
        .collect()
        .await;
    let (mut deleted, mut errors) = (Vec::new(), Vec::new());
    for (object, outcome) in outcomes {
        let ObjectIdentifier { key, version_id, .. } = object;
        match outcome {
            Ok(()) if quiet => {}
            Ok(()) => deleted.push(DeletedObject { key: Some(key), version_id, ..DeletedObject::default() }),
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

async fn delete_one(frontend: &Frontend, bucket: &str, object: &ObjectIdentifier) -> S3Result<()> {
    if object.size.is_some() || object.last_modified_time.is_some() {
        return Err(error::not_implemented("Conditions on time or size belong to directory buckets"));
    }
    let version = version_name(object.version_id.as_deref())?;
    super::check_key(&object.key)?;
    let conditions = match &object.e_tag {
        None => WriteConditions::default(),
        Some(tag) => condition::of_write(Some(ETagCondition::ETag(tag.clone())), None)?,
    };
    match frontend.store.delete(bucket, &object.key, Deletion { version, conditions, ..Deletion::default() }).await {
        Ok(_) => Ok(()),
        // Deleting what is not there succeeds, whatever the object layer calls it.
        Err(ObjectError::NoSuchKey) if object.e_tag.is_none() => Ok(()),
        Err(failure) => Err(error::of(failure)),
    }
}

#[cfg(test)]
mod tests {
    use palm_core::hlc::{Ballot, Stamp};
    use palm_core::id::{BodyId, KeyId};
    use palm_core::record::{Attributes, ChecksumAlgorithm, ChecksumKind, Content, Etag, ObjectRecord, Subresources};

    use super::*;

    fn object() -> Object {
        let sum = Checksum {
            algorithm: ChecksumAlgorithm::Crc32,
            kind: ChecksumKind::FullObject,
            value: vec![0xcb, 0xf4, 0x39, 0x26],
        };
        let record = ObjectRecord {
            size: 9,
            etag: Etag { md5: [0xab; 16], parts: 0 },
            attributes: Attributes::default(),
            checksum: Some(sum),
            data_key: KeyId::from_bytes([0; 16]),
            body: BodyId::from_bytes([0; 16]),
            content: Content::Segments(Vec::new()),
            subresources: Subresources::default(),
            customer_key: None,
        };
        Object {
            version: Ballot { stamp: Stamp::from_millis(784_111_777_500), peer: 0, nonce: 0 },
            id: None,
            record,
            stale: false,
        }
    }

    /// Scenario: a cache revalidates. Danger: a 304 without its tag and date leaves the cache with nothing
    /// to ask with next time. Expectation: both are there.
    #[test]
    fn a_304_carries_tag_and_date() {
        let told = obey(Verdict::NotModified, &object()).expect_err("ends the request");
        assert_eq!(told.status_code(), Some(http::StatusCode::NOT_MODIFIED));
        let headers = told.headers().expect("headers");
        assert_eq!(headers[http::header::ETAG], "\"abababababababababababababababab\"");
        assert_eq!(headers[http::header::LAST_MODIFIED], "Sun, 06 Nov 1994 08:49:37 GMT");
        let failed = obey(Verdict::Failed, &object()).expect_err("ends the request");
        assert_eq!(failed.status_code(), Some(http::StatusCode::PRECONDITION_FAILED));
    }

    /// Scenario: checksum mode on whole objects and ranges. Danger: a client checks a range against the whole
    /// object's checksum and reports corruption. Expectation: only whole answers carry it.
    #[test]
    fn a_range_carries_no_checksum() {
        let object = object();
        let whole = select(&object.record, None, None).expect("whole");
        assert_eq!(checksum_of(&object, &whole).map(|(_, text)| text).as_deref(), Some("y/Q5Jg=="));
        let range = s3s::dto::Range::parse("bytes=1-2").expect("range");
        let part = select(&object.record, Some(range), None).expect("range");
        assert!(checksum_of(&object, &part).is_none());
    }

    #[test]
    fn versions_are_named_by_null_or_id() {
        assert_eq!(version_name(None).expect("none"), None);
        assert_eq!(version_name(Some("null")).expect("null"), Some(Name::Null));
        assert_eq!(version_name(Some("3HL4k")).expect_err("no id").code().as_str(), "InvalidArgument");
    }
}
