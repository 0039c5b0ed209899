//! Objects: put, get and head.

use std::ops::RangeInclusive;

use http::Extensions;
use palm_core::record::{Checksum, ChecksumAlgorithm};
use palm_core::s3::notification::Event;
use palm_core::s3::version::{Name, VersionId};
use s3s::dto::{
    ChecksumMode, ChecksumType, ETag, GetObjectInput, GetObjectOutput, HeadObjectInput, HeadObjectOutput,
    PostObjectInput, PostObjectOutput, PutObjectInput, PutObjectOutput, StreamingBlob,
};
use s3s::{S3Error, S3ErrorCode, S3Request, S3Response, S3Result};

use super::asked::take_asked;
use super::attributes::set_attributes;
use super::checksum::{Declared, explain, set_checksum};
use super::condition::{self, ReadConditions, Verdict, may_be_partial};
use super::customer_key::{self, GivenKey, set_encryption, take_key};
use super::lock::set_lock;
use super::notification::OfForm;
use super::range::{Selection, select};
use super::{
    Frontend, access, acl, answer, body, checksum, error, http_date, lifecycle, notification, signed, tagging,
    timestamp,
};
use crate::object::{Cipher, Object};

/// Characters of an id that a store gives its versions: a ULID has 26, AWS's ids 32, a UUID 36.
const FOREIGN_ID: RangeInclusive<usize> = 20..=64;

pub async fn put(frontend: &Frontend, mut request: S3Request<PutObjectInput>) -> S3Result<S3Response<PutObjectOutput>> {
    let declared = Declared::read(&request.headers, request.trailing_headers.take())?;
    let algorithm = declared.algorithm();
    let declared = declared.or_computed(ChecksumAlgorithm::Crc64Nvme);
    let mut input = request.input;
    let conditions = condition::of_write(input.if_match.take(), input.if_none_match.as_ref())?;
    let asked = take_asked!(input);
    let key = asked.key.clone();
    let bucket = access::bucket(&request.extensions)?;
    let acl = acl::of_new_object(frontend, &request.extensions, &request.headers).await?;
    let (new, cipher) = asked.object(bucket, acl, frontend.store.now_ms())?;
    let body = body::incoming(input.body, input.content_length, declared, cipher)?;
    let event = if request.extensions.get::<OfForm>().is_some() { Event::CreatedPost } else { Event::CreatedPut };
    let notice = notification::begin(frontend, &request.extensions, (&input.bucket, &input.key), event).await?;
    let stored = frontend.store.put(&input.bucket, &input.key, new, conditions, body).await;
    notice.end(&stored);
    let object = stored.map_err(|failure| explain(failure, algorithm))?;
    let mut output =
        PutObjectOutput { e_tag: Some(etag(&object)), version_id: version_text(&object), ..PutObjectOutput::default() };
    set_encryption!(output, key.as_ref());
    output.expiration = lifecycle::expiration_header(frontend, &input.bucket, &input.key, &object);
    if let Some(sum) = &object.record.checksum {
        set_checksum!(output, sum.algorithm, checksum::encode(sum, 0));
        output.checksum_type = Some(ChecksumType::from_static(checksum::kind_name(sum.kind)));
    }
    Ok(S3Response::new(output))
}

/// A form that s3s has read by itself, which drops what its fields ask for; `super::form` reads forms before s3s sees
/// them, so this is never reached.
#[expect(clippy::unused_async, reason = "every operation has this shape")]
pub async fn post(_: &Frontend, _: S3Request<PostObjectInput>) -> S3Result<S3Response<PostObjectOutput>> {
    Err(S3Error::new(S3ErrorCode::MethodNotAllowed))
}

/// An object's entity tag, as s3s writes it.
pub fn etag(object: &Object) -> ETag {
    ETag::Strong(object.record.etag.to_string())
}

/// `x-amz-version-id`: nothing in a bucket that never had versions.
pub fn version_text(object: &Object) -> Option<String> {
    object.id.map(|id| id.to_string())
}

/// The version a request names. There is none by an id of the form that another store gives its versions: they are asked for after a
/// move from there, and by suites.
pub fn version_name(version: Option<&str>) -> S3Result<Option<Name>> {
    let Some(text) = version else { return Ok(None) };
    if text.is_empty() {
        return Err(error::invalid_argument("Version id cannot be the empty string"));
    }
    let is_of_a_store = FOREIGN_ID.contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'));
    match text.parse() {
        Ok(name) => Ok(Some(name)),
        Err(_) if is_of_a_store => Ok(Some(Name::Id(VersionId::NOBODYS))),
        Err(refusal) => Err(error::of_refusal(&refusal)),
    }
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
    headers.extend(http_date(object.modified_ms()).map(|date| (http::header::LAST_MODIFIED, date)));
    told.set_headers(headers);
    told
}

/// What `GetObject` and `HeadObject` have in common: the object, what decrypts it, and the bytes asked for, once the conditions
/// hold.
async fn find(
    (frontend, extensions, headers): (&Frontend, &Extensions, &http::HeaderMap),
    (bucket, key, version): (&str, &str, Option<&str>),
    given: Option<&GivenKey>,
    conditions: &ReadConditions,
    range: Option<s3s::dto::Range>,
    part: Option<i32>,
) -> S3Result<(Object, Option<Cipher>, Selection)> {
    let object = access::head(&frontend.store, extensions, (bucket, key, version_name(version)?)).await?;
    let cipher = customer_key::open(object.record.customer_key.as_ref(), given)?;
    obey(conditions.judge(&object.record.etag.to_string(), object.modified_ms()), &object)?;
    let range = range.filter(|_| may_be_partial(headers, &object.record.etag.to_string(), object.modified_ms()));
    let selection = select(&object.record, range, part)?;
    Ok((object, cipher, selection))
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
    ($output:expr, $object:expr, $key:expr, $selection:expr, $mode:expr, $part:expr) => {{
        let (object, selection) = ($object, $selection);
        $output.accept_ranges = Some("bytes".to_owned());
        $output.content_length = Some(signed(selection.len()));
        $output.content_range.clone_from(&selection.content_range);
        $output.e_tag = Some(etag(object));
        $output.last_modified = Some(timestamp(object.modified_ms()));
        $output.version_id = version_text(object);
        $output.tag_count = tagging::count(object);
        set_lock!($output, &object.record.subresources.lock);
        set_encryption!($output, $key);
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
    let given = take_key!(input)?;
    let place = (input.bucket.as_str(), input.key.as_str(), input.version_id.as_deref());
    let (object, cipher, selection) =
        find((frontend, &request.extensions, &request.headers), place, given.as_ref(), &conditions, range, part)
            .await?;
    let mut output = GetObjectOutput::default();
    describe!(output, &object, given.as_ref(), &selection, input.checksum_mode.as_ref(), part);
    if input.version_id.is_none() {
        output.expiration = lifecycle::expiration_header(frontend, &input.bucket, &input.key, &object);
    }
    let length = selection.len();
    output.body = Some(if length == 0 {
        StreamingBlob::from_bytes(bytes::Bytes::new())
    } else {
        let stream = frontend.store.read_with(&object, selection.bytes, cipher).await.map_err(error::of)?;
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
    let given = take_key!(input)?;
    let place = (input.bucket.as_str(), input.key.as_str(), input.version_id.as_deref());
    let (object, _, selection) =
        find((frontend, &request.extensions, &request.headers), place, given.as_ref(), &conditions, range, part)
            .await?;
    let mut output = HeadObjectOutput::default();
    describe!(output, &object, given.as_ref(), &selection, input.checksum_mode.as_ref(), part);
    if input.version_id.is_none() {
        output.expiration = lifecycle::expiration_header(frontend, &input.bucket, &input.key, &object);
    }
    set_attributes!(output, object.record.attributes);
    // s3s lays the response-* overrides over GetObject's answers only.
    output.content_type = input.response_content_type.or(output.content_type);
    output.content_encoding = input.response_content_encoding.or(output.content_encoding);
    output.content_language = input.response_content_language.or(output.content_language);
    output.content_disposition = input.response_content_disposition.or(output.content_disposition);
    output.cache_control = input.response_cache_control.or(output.cache_control);
    Ok(answer(output, object.stale))
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
        assert_eq!(version_name(Some("")).expect_err("empty").code().as_str(), "InvalidArgument");
        assert_eq!(version_name(Some("3HL4k")).expect_err("no id").code().as_str(), "InvalidArgument");
    }
}
