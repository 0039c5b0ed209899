//! Multipart uploads.

use data_encoding::HEXLOWER;
use palm_core::id::BodyId;
use palm_core::record::{Checksum, ChecksumKind, UploadRecord};
use palm_core::s3::notification::Event;
use s3s::dto::{
    AbortMultipartUploadInput, AbortMultipartUploadOutput, ChecksumAlgorithm, ChecksumType, CommonPrefix,
    CompleteMultipartUploadInput, CompleteMultipartUploadOutput, CompletedPart as GivenPart,
    CreateMultipartUploadInput, CreateMultipartUploadOutput, ETag, Initiator, ListMultipartUploadsInput,
    ListMultipartUploadsOutput, ListPartsInput, ListPartsOutput, MultipartUpload, Owner, Part, StorageClass,
    UploadPartInput, UploadPartOutput,
};
use s3s::{S3Error, S3ErrorCode, S3Request, S3Response, S3Result};

use super::asked::take_asked;
use super::attributes;
use super::checksum::{self, Declared, explain, given_checksum, set_checksum};
use super::customer_key::{self, encryption_of, set_encryption, take_key};
use super::list::{Encoding, after_marker, fits_xml, given, page_size};
use super::object::{etag, version_text};
use super::{Frontend, access, acl, asker, body, condition, error, lifecycle, notification, signed, timestamp};
use crate::object::{CompletedPart, Completion, ListQuery, Listed, MAX_PARTS, NewUpload, PartInfo, Store};

/// A part number a client may use.
pub fn part_number(number: i32) -> S3Result<u16> {
    let valid = u16::try_from(number).ok().filter(|number| (1..=MAX_PARTS).contains(number));
    valid.ok_or_else(|| error::invalid_argument("Part number must be an integer between 1 and 10000, inclusive"))
}

/// An upload id of ours; any other text names no upload.
pub fn upload_id(text: &str) -> S3Result<BodyId> {
    text.parse().map_err(|_| S3Error::new(S3ErrorCode::NoSuchUpload))
}

/// A part's entity tag, unquoted.
pub fn part_etag(md5: &[u8; 16]) -> String {
    HEXLOWER.encode(md5)
}

pub async fn create(
    frontend: &Frontend,
    request: S3Request<CreateMultipartUploadInput>,
) -> S3Result<S3Response<CreateMultipartUploadOutput>> {
    let owner = asker(&request)?.canonical_id();
    let mut input = request.input;
    let asked = take_asked!(input);
    let key = asked.key.clone();
    let asked_kind = input.checksum_type.as_ref().map(ChecksumType::as_str).map(checksum::parse_kind).transpose()?;
    let checksum = match input.checksum_algorithm.as_ref() {
        Some(name) => {
            let algorithm = checksum::parse_name(name.as_str())?;
            Some((algorithm, checksum::kind(algorithm, asked_kind)?))
        }
        None if asked_kind.is_some() => {
            return Err(error::invalid_request(
                "The x-amz-checksum-type header can only be used with the x-amz-checksum-algorithm header.",
            ));
        }
        None => None,
    };
    let bucket = access::bucket(&request.extensions)?;
    let acl = acl::of_new_object(frontend, &request.extensions, &request.headers).await?;
    let (object, _) = asked.object(bucket, acl, frontend.store.now_ms())?;
    let new = NewUpload { owner, object, checksum };
    let id = frontend.store.create_upload(&input.bucket, &input.key, new).await.map_err(error::of)?;
    let (checksum_algorithm, checksum_type) = described(checksum);
    let abort = lifecycle::abort_headers(frontend, &input.bucket, &input.key, frontend.store.now_ms());
    let (abort_date, abort_rule_id) = abort.unzip();
    let mut output = CreateMultipartUploadOutput {
        abort_date,
        abort_rule_id,
        bucket: Some(input.bucket),
        key: echo(input.key),
        upload_id: Some(id.to_string()),
        checksum_algorithm,
        checksum_type,
        ..CreateMultipartUploadOutput::default()
    };
    set_encryption!(output, key.as_ref());
    Ok(S3Response::new(output))
}

/// A key in an XML answer, left out where XML cannot hold it: the client knows it.
fn echo(key: String) -> Option<String> {
    fits_xml(&key).then_some(key)
}

fn described(
    checksum: Option<(palm_core::record::ChecksumAlgorithm, ChecksumKind)>,
) -> (Option<ChecksumAlgorithm>, Option<ChecksumType>) {
    let algorithm = checksum.map(|(algorithm, _)| ChecksumAlgorithm::from_static(checksum::name(algorithm)));
    let kind = checksum.map(|(_, kind)| ChecksumType::from_static(checksum::kind_name(kind)));
    (algorithm, kind)
}

pub async fn upload_part(
    frontend: &Frontend,
    mut request: S3Request<UploadPartInput>,
) -> S3Result<S3Response<UploadPartOutput>> {
    let declared = Declared::read(&request.headers, request.trailing_headers.take())?;
    let mut input = request.input;
    let key = take_key!(input)?;
    let number = part_number(input.part_number)?;
    let id = upload_id(&input.upload_id)?;
    let upload = frontend.store.upload(&input.bucket, &input.key, id).await.map_err(error::of)?;
    let declared = declared.for_upload(upload.checksum.map(|(algorithm, _)| algorithm))?;
    let algorithm = declared.algorithm();
    let cipher = customer_key::open_upload(upload.customer_key.as_ref(), key.as_ref())?;
    let body = body::incoming(input.body, input.content_length, declared, cipher)?;
    let stored = frontend.store.put_part(&input.bucket, &input.key, id, number, body).await;
    let part = stored.map_err(|failure| explain(failure, algorithm))?;
    let mut output =
        UploadPartOutput { e_tag: Some(ETag::Strong(part_etag(&part.md5))), ..UploadPartOutput::default() };
    set_encryption!(output, key.as_ref());
    if let Some(sum) = &part.checksum {
        set_checksum!(output, sum.algorithm, checksum::encode(sum, 0));
    }
    Ok(S3Response::new(output))
}

pub async fn complete(
    frontend: &Frontend,
    request: S3Request<CompleteMultipartUploadInput>,
) -> S3Result<S3Response<CompleteMultipartUploadOutput>> {
    let mut input = request.input;
    // Taken as it came: only the parts need it.
    take_key!(input)?;
    let id = upload_id(&input.upload_id)?;
    let conditions = condition::of_write(input.if_match.take(), input.if_none_match.as_ref())?;
    let size = match input.mpu_object_size {
        None => None,
        Some(size) => {
            let invalid = |_| error::invalid_request("Value for x-amz-mp-object-size header is invalid.");
            Some(u64::try_from(size).map_err(invalid)?)
        }
    };
    let given = given_checksum!(input)?;
    let parts = input.multipart_upload.take().and_then(|upload| upload.parts).unwrap_or_default();
    if parts.is_empty() || parts.len() > usize::from(MAX_PARTS) {
        return Err(S3Error::new(S3ErrorCode::MalformedXML));
    }
    let parts = parts.into_iter().map(completed_part).collect::<S3Result<Vec<_>>>()?;
    let algorithm = given.as_ref().map(|(algorithm, _)| *algorithm);
    // A checksum of the other kind than the upload's does not match, and is refused as that.
    let kind = input.checksum_type.as_ref().map(ChecksumType::as_str).map(checksum::parse_kind).transpose()?;
    let checksum = match given {
        None => None,
        Some((algorithm, value)) => Some(Checksum { algorithm, kind: checksum::kind(algorithm, kind)?, value }),
    };
    let completion = Completion { parts, conditions, checksum, kind, size };
    let event = Event::CreatedCompleteMultipartUpload;
    let notice = notification::begin(frontend, &request.extensions, (&input.bucket, &input.key), event).await?;
    let completed = frontend.store.complete_upload(&input.bucket, &input.key, id, completion).await;
    notice.end(&completed);
    let object = completed.map_err(|failure| explain(failure, algorithm))?;
    let expiration = lifecycle::expiration_header(frontend, &input.bucket, &input.key, &object);
    let location = format!("/{}/{}", input.bucket, Encoding::Url.write(&input.key));
    let mut output = CompleteMultipartUploadOutput {
        bucket: Some(input.bucket),
        key: echo(input.key),
        location: Some(location),
        expiration,
        e_tag: Some(etag(&object)),
        version_id: version_text(&object),
        server_side_encryption: encryption_of(&object),
        ..CompleteMultipartUploadOutput::default()
    };
    if let Some(sum) = &object.record.checksum {
        set_checksum!(output, sum.algorithm, checksum::encode(sum, usize::from(object.record.etag.parts)));
        output.checksum_type = Some(ChecksumType::from_static(checksum::kind_name(sum.kind)));
    }
    Ok(S3Response::new(output))
}

fn completed_part(part: GivenPart) -> S3Result<CompletedPart> {
    let malformed = || S3Error::new(S3ErrorCode::MalformedXML);
    let number = part_number(part.part_number.ok_or_else(malformed)?)?;
    let checksum =
        given_checksum!(part)?.map(|(algorithm, value)| Checksum { algorithm, kind: ChecksumKind::FullObject, value });
    let etag = part.e_tag.ok_or_else(malformed)?.into_value();
    Ok(CompletedPart { number, etag, checksum })
}

pub async fn abort(
    frontend: &Frontend,
    request: S3Request<AbortMultipartUploadInput>,
) -> S3Result<S3Response<AbortMultipartUploadOutput>> {
    let input = request.input;
    if input.if_match_initiated_time.is_some() {
        return Err(error::not_implemented("Conditions on the initiation time belong to directory buckets"));
    }
    let id = upload_id(&input.upload_id)?;
    frontend.store.abort_upload(&input.bucket, &input.key, id).await.map_err(error::of)?;
    Ok(S3Response::new(AbortMultipartUploadOutput::default()))
}

/// The parts after a marker, at most `limit`, and whether more follow.
fn page(parts: Vec<PartInfo>, marker: i32, limit: usize) -> (Vec<PartInfo>, bool) {
    let mut rest: Vec<PartInfo> = parts.into_iter().filter(|part| i32::from(part.number) > marker).collect();
    let truncated = limit > 0 && rest.len() > limit;
    rest.truncate(limit);
    (rest, truncated)
}

pub async fn list_parts(
    frontend: &Frontend,
    request: S3Request<ListPartsInput>,
) -> S3Result<S3Response<ListPartsOutput>> {
    let input = request.input;
    let limit = page_size(input.max_parts, "max-parts")?;
    let marker = input.part_number_marker.unwrap_or(0);
    if marker < 0 {
        return Err(error::invalid_argument("Argument part-number-marker must be an integer between 0 and 2147483647"));
    }
    let id = upload_id(&input.upload_id)?;
    let listed = frontend.store.list_parts(&input.bucket, &input.key, id).await;
    let (upload, parts) = listed.map_err(error::of)?;
    let (parts, truncated) = page(parts, marker, limit as usize);
    let abort = lifecycle::abort_headers(frontend, &input.bucket, &input.key, upload.created_ms);
    let (abort_date, abort_rule_id) = abort.unzip();
    let (checksum_algorithm, checksum_type) = described(upload.checksum);
    Ok(S3Response::new(ListPartsOutput {
        abort_date,
        abort_rule_id,
        bucket: Some(input.bucket),
        key: echo(input.key),
        upload_id: Some(input.upload_id),
        initiator: Some(initiator(&frontend.store, &upload.owner)),
        owner: Some(acl::owner(&frontend.store, &upload.owner)),
        storage_class: Some(storage_class(&upload)),
        part_number_marker: Some(marker),
        next_part_number_marker: parts.last().map(|part| i32::from(part.number)),
        max_parts: Some(super::bounded(limit)),
        is_truncated: Some(truncated),
        parts: Some(parts.iter().map(part_entry).collect()),
        checksum_algorithm,
        checksum_type,
        ..ListPartsOutput::default()
    }))
}

fn part_entry(part: &PartInfo) -> Part {
    let mut entry = Part {
        e_tag: Some(ETag::Strong(part_etag(&part.md5))),
        last_modified: Some(timestamp(part.modified_ms)),
        part_number: Some(i32::from(part.number)),
        size: Some(signed(part.size)),
        ..Part::default()
    };
    if let Some(sum) = &part.checksum {
        set_checksum!(entry, sum.algorithm, checksum::encode(sum, 0));
    }
    entry
}

fn initiator(store: &Store, owner: &str) -> Initiator {
    let Owner { display_name, id } = acl::owner(store, owner);
    Initiator { display_name, id }
}

fn storage_class(upload: &UploadRecord) -> StorageClass {
    let class = upload.attributes.storage_class.clone();
    StorageClass::from(class.unwrap_or_else(|| attributes::STANDARD.to_owned()))
}

/// Where `ListMultipartUploads` starts: behind the key marker, or, with an upload id beside it, at the marker's own
/// key behind that upload.
fn uploads_start(
    key_marker: &str,
    id_marker: Option<&str>,
    prefix: &str,
    delimiter: Option<&str>,
) -> S3Result<(String, Option<BodyId>)> {
    if let Some(id) = id_marker.filter(|_| !key_marker.is_empty()) {
        let id = id.parse().map_err(|_| error::invalid_argument("Invalid uploadId marker"))?;
        return Ok((key_marker.to_owned(), Some(id)));
    }
    let mut start = after_marker(key_marker, prefix, delimiter);
    // The registers of a key's uploads begin with the key and a NUL.
    if start.ends_with('\0') {
        start.pop();
        start.push('\u{1}');
    }
    Ok((start, None))
}

pub async fn list_uploads(
    frontend: &Frontend,
    request: S3Request<ListMultipartUploadsInput>,
) -> S3Result<S3Response<ListMultipartUploadsOutput>> {
    let input = request.input;
    let limit = page_size(input.max_uploads, "max-uploads")?;
    let delimiter = given(input.delimiter);
    let id_marker = given(input.upload_id_marker);
    let (prefix, key_marker) = (input.prefix.unwrap_or_default(), input.key_marker.unwrap_or_default());
    let echoed = [prefix.as_str(), key_marker.as_str(), delimiter.as_deref().unwrap_or_default()];
    super::check_texts(echoed)?;
    let encoding = Encoding::parse(input.encoding_type.as_ref())?.fitting(echoed.into_iter());
    let (start, marker) = uploads_start(&key_marker, id_marker.as_deref(), &prefix, delimiter.as_deref())?;
    let (items, next) = if limit == 0 {
        frontend.store.bucket(&input.bucket).await.map_err(error::of)?;
        (Vec::new(), None)
    } else {
        let query = ListQuery { prefix: prefix.clone(), start, delimiter: delimiter.clone(), limit };
        let page = frontend.store.list_uploads(&input.bucket, query, marker).await.map_err(error::of)?;
        (page.items, page.next)
    };
    let truncated = next.is_some();
    let encoding = encoding.fitting(items.iter().map(|item| match item {
        Listed::Key(name, _) | Listed::Group(name) => name.as_str(),
    }));
    let (next_key_marker, next_upload_id_marker) = match items.last().filter(|_| truncated) {
        Some(Listed::Key(key, (id, _))) => (Some(key.clone()), Some(id.to_string())),
        Some(Listed::Group(group)) => (Some(group.clone()), None),
        None => (None, None),
    };
    let (mut uploads, mut prefixes) = (Vec::new(), Vec::new());
    for item in items {
        match item {
            Listed::Key(key, (id, record)) => {
                uploads.push(upload_entry(&frontend.store, encoding.write(&key), id, &record));
            }
            Listed::Group(group) => prefixes.push(CommonPrefix { prefix: Some(encoding.write(&group)) }),
        }
    }
    Ok(S3Response::new(ListMultipartUploadsOutput {
        bucket: Some(input.bucket),
        common_prefixes: Some(prefixes),
        delimiter: delimiter.map(|delimiter| encoding.write(&delimiter)),
        encoding_type: encoding.name(),
        is_truncated: Some(truncated),
        key_marker: Some(encoding.write(&key_marker)),
        max_uploads: Some(super::bounded(limit)),
        next_key_marker: next_key_marker.map(|marker| encoding.write(&marker)),
        next_upload_id_marker,
        prefix: Some(encoding.write(&prefix)),
        upload_id_marker: id_marker,
        uploads: Some(uploads),
        request_charged: None,
    }))
}

fn upload_entry(store: &Store, key: String, id: BodyId, record: &UploadRecord) -> MultipartUpload {
    let (checksum_algorithm, checksum_type) = described(record.checksum);
    MultipartUpload {
        checksum_algorithm,
        checksum_type,
        initiated: Some(timestamp(record.created_ms)),
        initiator: Some(initiator(store, &record.owner)),
        key: Some(key),
        owner: Some(acl::owner(store, &record.owner)),
        storage_class: Some(storage_class(record)),
        upload_id: Some(id.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::after_group;

    fn parts(numbers: &[u16]) -> Vec<PartInfo> {
        let part = |&number| PartInfo { number, size: 1, md5: [0; 16], checksum: None, modified_ms: 0 };
        numbers.iter().map(part).collect()
    }

    #[test]
    fn part_numbers_are_bounded() {
        assert_eq!(part_number(1).expect("first"), 1);
        assert_eq!(part_number(10_000).expect("last"), 10_000);
        for number in [0, -1, 10_001, 65_537, i32::MAX] {
            assert_eq!(part_number(number).expect_err("refused").code().as_str(), "InvalidArgument");
        }
    }

    #[test]
    fn a_foreign_upload_id_names_no_upload() {
        let id = BodyId::from_bytes([7; 16]);
        assert_eq!(upload_id(&id.to_string()).expect("ours"), id);
        for text in ["", "abc", "../../x"] {
            assert_eq!(upload_id(text).expect_err(text).code().as_str(), "NoSuchUpload");
        }
    }

    /// Scenario: paging through parts with gaps. Danger: a resuming client skips or repeats a part.
    /// Expectation: each part once, and truncation told exactly.
    #[test]
    fn parts_page_without_gaps_or_repeats() {
        let numbers = |page: &[PartInfo]| page.iter().map(|part| part.number).collect::<Vec<_>>();
        let (first, more) = page(parts(&[1, 3, 7]), 0, 2);
        assert_eq!((numbers(&first), more), (vec![1, 3], true));
        let (rest, more) = page(parts(&[1, 3, 7]), 3, 2);
        assert_eq!((numbers(&rest), more), (vec![7], false));
        let (none, more) = page(parts(&[1]), 0, 0);
        assert_eq!((none.len(), more), (0, false));
    }

    #[test]
    fn upload_markers_resume_at_the_key_only_with_an_upload_id() {
        let id = BodyId::from_bytes([7; 16]).to_string();
        let at = uploads_start("k", Some(&id), "", None).expect("marker");
        assert_eq!(at, ("k".to_owned(), Some(BodyId::from_bytes([7; 16]))));
        let behind = ("k\u{1}".to_owned(), None);
        assert_eq!(uploads_start("k", None, "", None).expect("marker"), behind, "behind all uploads of k");
        assert_eq!(
            uploads_start("a/", None, "", Some("/")).expect("group"),
            (after_group("a/").expect("a group"), None)
        );
        assert_eq!(uploads_start("", Some("ignored without a key"), "", None).expect("none"), (String::new(), None));
        assert!(uploads_start("k", Some("x"), "", None).is_err());
    }

    #[test]
    fn a_part_named_without_number_or_tag_is_malformed() {
        let given = |number, tag: Option<&str>| GivenPart {
            part_number: number,
            e_tag: tag.map(|tag| ETag::Strong(tag.to_owned())),
            ..GivenPart::default()
        };
        let part = completed_part(given(Some(2), Some("abc"))).expect("whole");
        assert_eq!((part.number, part.etag.as_str()), (2, "abc"));
        for part in [given(None, Some("abc")), given(Some(2), None)] {
            assert_eq!(completed_part(part).expect_err("malformed").code().as_str(), "MalformedXML");
        }
    }
}
