//! Copies: `CopyObject` shares the source's body unless it is to be encrypted, summed or coded otherwise (and so is what was summed by its
//! parts' hashes), `UploadPartCopy` streams a range of it into a part.

use http::Extensions;
use palm_core::s3::notification::Event;
use palm_core::s3::version::Name;
use s3s::dto::{
    ChecksumType, CopyObjectInput, CopyObjectOutput, CopyObjectResult, CopyPartResult, CopySource, ETag,
    MetadataDirective, UploadPartCopyInput, UploadPartCopyOutput,
};
use s3s::{S3Error, S3ErrorCode, S3Request, S3Response, S3Result};

use super::asked::take_asked;
use super::attributes::inherited;
use super::checksum::{Declared, set_checksum};
use super::condition::{self, ReadConditions, Verdict};
use super::customer_key::{self, set_encryption, take_key};
use super::object::{etag, version_name, version_text};
use super::{
    Frontend, access, acl, body, checksum, error, lifecycle, multipart, notification, range, tagging, timestamp,
};
use crate::object::{MAX_BODY_BYTES, Object, whole_checksum};

/// Bucket and key a copy reads from.
fn source_of(source: &CopySource) -> S3Result<(&str, &str, Option<Name>)> {
    match source {
        CopySource::Bucket { bucket, key, version_id } => {
            super::check_key(key)?;
            Ok((bucket, key, version_name(version_id.as_deref())?))
        }
        CopySource::AccessPoint { .. } | CopySource::Outpost { .. } => {
            Err(error::not_implemented("Copy sources are named as bucket and key"))
        }
    }
}

/// The source of a copy, once its conditions hold. Every failed condition of a copy is 412.
async fn find(
    (frontend, extensions): (&Frontend, &Extensions),
    place: (&str, &str, Option<Name>),
    conditions: &ReadConditions,
) -> S3Result<Object> {
    let object =
        access::source(&frontend.store, extensions, place).await.map_err(|told| match told.code().as_str() {
            "MethodNotAllowed" => error::invalid_request(
                "The source of a copy request may not specifically refer to a delete marker by version id.",
            ),
            _ => told,
        })?;
    match conditions.judge(&object.record.etag.to_string(), object.modified_ms()) {
        Verdict::Proceed => Ok(object),
        Verdict::NotModified | Verdict::Failed => Err(S3Error::new(S3ErrorCode::PreconditionFailed)),
    }
}

fn replaces_metadata(directive: Option<&MetadataDirective>) -> S3Result<bool> {
    match directive.map(MetadataDirective::as_str) {
        None | Some(MetadataDirective::COPY) => Ok(false),
        Some(MetadataDirective::REPLACE) => Ok(true),
        Some(_) => Err(error::invalid_argument("Unknown metadata directive.")),
    }
}

/// The longest source `CopyObject` takes (AWS's limit); longer ones are copied part by part.
const SOURCE_MAX_BYTES: u64 = 5 << 30;

pub async fn copy(frontend: &Frontend, request: S3Request<CopyObjectInput>) -> S3Result<S3Response<CopyObjectOutput>> {
    let mut input = request.input;
    let source_conditions = condition::of_copy(&mut input);
    let conditions = condition::of_write(input.if_match.take(), input.if_none_match.as_ref())?;
    let replace = replaces_metadata(input.metadata_directive.as_ref())?;
    let mut asked = take_asked!(input);
    let (key, source_key) = (asked.key.clone(), take_key!(input, source)?);
    let wanted = input.checksum_algorithm.as_ref().map(|name| checksum::parse_name(name.as_str())).transpose()?;
    let place = source_of(&input.copy_source)?;
    let bucket = access::bucket(&request.extensions)?;
    let acl = acl::of_new_object(frontend, &request.extensions, &request.headers).await?;
    let mut source = find((frontend, &request.extensions), place, &source_conditions).await?;
    let source_cipher = customer_key::open(source.record.customer_key.as_ref(), source_key.as_ref())?;
    if source.record.size > SOURCE_MAX_BYTES {
        return Err(error::invalid_request(
            "The specified copy source is larger than the maximum allowable size for a copy source: 5368709120",
        ));
    }
    let onto_itself = place == (input.bucket.as_str(), input.key.as_str(), None);
    let changes = replace
        || key.is_some()
        || source_key.is_some()
        || wanted.is_some()
        || input.server_side_encryption.is_some()
        || asked.tags.is_some() && input.tagging_directive.is_some();
    if !replace {
        asked.attributes = inherited(&source.record.attributes, asked.attributes);
    }
    if onto_itself && !changes && asked.attributes == source.record.attributes {
        return Err(error::invalid_request(
            "This copy request is illegal because it is trying to copy an object to itself without changing the \
             object's metadata, storage class, website redirect location or encryption attributes.",
        ));
    }
    let tags = tagging::of_copy(input.tagging_directive.as_ref(), &source.record.subresources.tags, asked.tags.take())?;
    asked.tags = Some(tags);
    let (new, cipher) = asked.object(bucket, acl, frontend.store.now_ms())?;
    let had = source.record.checksum.as_ref().map(|sum| sum.algorithm);
    let alike = cipher.is_none()
        && source_cipher.is_none()
        && (wanted.is_none() || wanted == had)
        && frontend.store.codes_alike(&source.record.attributes, &new.attributes);
    let shared = if alike { whole_checksum(&source.record).ok() } else { None };
    let notice =
        notification::begin(frontend, &request.extensions, (&input.bucket, &input.key), Event::CreatedCopy).await?;
    let copied = if let Some(checksum) = shared {
        source.record.checksum = checksum;
        frontend.store.copy(&source, (place.0, place.1), &input.bucket, &input.key, new, conditions).await
    } else {
        let size = source.record.size;
        let stream = frontend.store.read_with(&source, 0..size, source_cipher).await.map_err(error::of)?;
        let body = body::received(stream, size, Declared::computed(wanted.or(had)), cipher);
        frontend.store.put(&input.bucket, &input.key, new, conditions, body).await
    };
    notice.end(&copied);
    let object = copied.map_err(error::of)?;
    let mut result = CopyObjectResult {
        e_tag: Some(etag(&object)),
        last_modified: Some(timestamp(object.modified_ms())),
        ..CopyObjectResult::default()
    };
    if let Some(sum) = &object.record.checksum {
        set_checksum!(result, sum.algorithm, checksum::encode(sum, usize::from(object.record.etag.parts)));
        result.checksum_type = Some(ChecksumType::from_static(checksum::kind_name(sum.kind)));
    }
    let mut output = CopyObjectOutput {
        copy_object_result: Some(result),
        copy_source_version_id: version_text(&source),
        version_id: version_text(&object),
        expiration: lifecycle::expiration_header(frontend, &input.bucket, &input.key, &object),
        ..CopyObjectOutput::default()
    };
    set_encryption!(output, key.as_ref());
    output.expiration = lifecycle::expiration_header(frontend, &input.bucket, &input.key, &object);
    Ok(S3Response::new(output))
}

pub async fn copy_part(
    frontend: &Frontend,
    request: S3Request<UploadPartCopyInput>,
) -> S3Result<S3Response<UploadPartCopyOutput>> {
    let mut input = request.input;
    let conditions = condition::of_part_copy(&mut input);
    let (key, source_key) = (take_key!(input)?, take_key!(input, source)?);
    let number = multipart::part_number(input.part_number)?;
    let id = multipart::upload_id(&input.upload_id)?;
    let upload = frontend.store.upload(&input.bucket, &input.key, id).await.map_err(error::of)?;
    let cipher = customer_key::open_upload(upload.customer_key.as_ref(), key.as_ref())?;
    let place = source_of(&input.copy_source)?;
    let source = find((frontend, &request.extensions), place, &conditions).await?;
    let source_cipher = customer_key::open(source.record.customer_key.as_ref(), source_key.as_ref())?;
    let size = source.record.size;
    let bytes = match &input.copy_source_range {
        Some(text) => range::select_source(text, size)?,
        None => 0..size,
    };
    let length = bytes.end - bytes.start;
    if length > MAX_BODY_BYTES {
        return Err(S3Error::new(S3ErrorCode::EntityTooLarge));
    }
    let stream = frontend.store.read_with(&source, bytes, source_cipher).await.map_err(error::of)?;
    let declared = Declared::computed(upload.checksum.map(|(algorithm, _)| algorithm));
    let body = body::received(stream, length, declared, cipher);
    let part = frontend.store.put_part(&input.bucket, &input.key, id, number, body).await.map_err(error::of)?;
    let mut result = CopyPartResult {
        e_tag: Some(ETag::Strong(multipart::part_etag(&part.md5))),
        last_modified: Some(timestamp(part.modified_ms)),
        ..CopyPartResult::default()
    };
    if let Some(sum) = &part.checksum {
        set_checksum!(result, sum.algorithm, checksum::encode(sum, 0));
    }
    let mut output = UploadPartCopyOutput {
        copy_part_result: Some(result),
        copy_source_version_id: version_text(&source),
        ..UploadPartCopyOutput::default()
    };
    set_encryption!(output, key.as_ref());
    Ok(S3Response::new(output))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(header: &str) -> CopySource {
        CopySource::parse(header).expect("parses")
    }

    /// Scenario: sources as clients write them: with and without a leading slash, percent-encoded, with odd
    /// keys. Danger: decoding twice or not at all copies another object. Expectation: decoded once.
    #[test]
    fn sources_are_decoded_once() {
        let table = [
            ("bucket/key", ("bucket", "key")),
            ("/bucket/a%20b%2Fc", ("bucket", "a b/c")),
            ("bucket/%252e", ("bucket", "%2e")),
            ("bucket/../..//x", ("bucket", "../..//x")),
            ("bucket/k%C3%A4?versionId=null", ("bucket", "kä")),
            ("bucket/a+b", ("bucket", "a+b")),
        ];
        for (header, place) in table {
            let source = parse(header);
            let (bucket, key, _) = source_of(&source).expect("bucket and key");
            assert_eq!((bucket, key), place, "{header}");
        }
        let version = parse("bucket/kä?versionId=null");
        assert_eq!(source_of(&version).expect("a version").2, Some(Name::Null));
        assert!(source_of(&parse("bucket/nul%00key")).is_err());
        let arn = parse("arn:aws:s3:us-west-2:123456789012:accesspoint/point/object/key");
        assert_eq!(source_of(&arn).expect_err("access point").code().as_str(), "NotImplemented");
    }

    #[test]
    fn directives_are_known_or_refused() {
        let of = |text: &str| replaces_metadata(Some(&MetadataDirective::from(text.to_owned())));
        assert!(!replaces_metadata(None).expect("default"));
        assert!(!of("COPY").expect("copy") && of("REPLACE").expect("replace"));
        assert!(of("MERGE").is_err());
    }
}
