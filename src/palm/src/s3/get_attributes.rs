//! `GetObjectAttributes` (<https://docs.aws.amazon.com/AmazonS3/latest/API/API_GetObjectAttributes.html>): what HEAD says, and the
//! parts of a multipart object.

use palm_core::record::{Content, PartRef};
use s3s::dto::{
    Checksum, ChecksumType, ETag, GetObjectAttributesInput, GetObjectAttributesOutput, GetObjectAttributesParts,
    ObjectAttributes, ObjectPart, StorageClass,
};
use s3s::{S3Request, S3Response, S3Result};

use super::checksum::{self, set_checksum};
use super::customer_key::{self, take_key};
use super::list::page_size;
use super::object::{version_name, version_text};
use super::{Frontend, access, answer, attributes, bounded, error, signed, timestamp};
use crate::object::Object;

const ATTRIBUTES: [&str; 5] = [
    ObjectAttributes::ETAG,
    ObjectAttributes::CHECKSUM,
    ObjectAttributes::OBJECT_PARTS,
    ObjectAttributes::OBJECT_SIZE,
    ObjectAttributes::STORAGE_CLASS,
];

pub async fn get(
    frontend: &Frontend,
    request: S3Request<GetObjectAttributesInput>,
) -> S3Result<S3Response<GetObjectAttributesOutput>> {
    let mut input = request.input;
    let key = take_key!(input)?;
    let asked: Vec<&str> = input
        .object_attributes
        .iter()
        .flat_map(|list| list.as_str().split(','))
        .map(str::trim)
        .filter(|name| !name.is_empty())
        .collect();
    if asked.is_empty() || asked.iter().any(|name| !ATTRIBUTES.contains(name)) {
        return Err(error::invalid_argument("Invalid attribute name specified."));
    }
    let limit = page_size(input.max_parts, "max-parts")?;
    let marker = input.part_number_marker.unwrap_or(0);
    if marker < 0 {
        return Err(error::invalid_argument("Argument part-number-marker must be an integer between 0 and 2147483647"));
    }
    let version = version_name(input.version_id.as_deref())?;
    let object = access::head(&frontend.store, &request.extensions, (&input.bucket, &input.key, version)).await?;
    customer_key::open(object.record.customer_key.as_ref(), key.as_ref())?;
    let record = &object.record;
    let asks = |name| asked.contains(&name);
    let output = GetObjectAttributesOutput {
        // Without quotes, unlike everywhere else.
        e_tag: asks(ObjectAttributes::ETAG).then(|| ETag::Strong(record.etag.to_string())),
        checksum: if asks(ObjectAttributes::CHECKSUM) { checksum_of(&object) } else { None },
        object_parts: if asks(ObjectAttributes::OBJECT_PARTS) { parts_of(&object, marker, limit) } else { None },
        object_size: asks(ObjectAttributes::OBJECT_SIZE).then(|| signed(record.size)),
        storage_class: asks(ObjectAttributes::STORAGE_CLASS).then(|| {
            let class = record.attributes.storage_class.clone();
            StorageClass::from(class.unwrap_or_else(|| attributes::STANDARD.to_owned()))
        }),
        last_modified: Some(timestamp(object.modified_ms())),
        version_id: version_text(&object),
        delete_marker: None,
        request_charged: None,
    };
    Ok(answer(output, object.stale))
}

fn checksum_of(object: &Object) -> Option<Checksum> {
    let sum = object.record.checksum.as_ref()?;
    let mut told = Checksum {
        checksum_type: Some(ChecksumType::from_static(checksum::kind_name(sum.kind))),
        ..Checksum::default()
    };
    // The number of parts is not part of the value here.
    set_checksum!(told, sum.algorithm, checksum::encode(sum, 0).trim_end_matches("-0").to_owned());
    Some(told)
}

/// A page of the parts; nothing for an object uploaded whole. AWS names parts one by one only where they have checksums, public
/// suites ask for them always.
fn parts_of(object: &Object, marker: i32, limit: u32) -> Option<GetObjectAttributesParts> {
    let Content::Parts(parts) = &object.record.content else { return None };
    let mut rest = parts.iter().filter(|part| i32::from(part.number) > marker).peekable();
    let page: Vec<ObjectPart> = rest.by_ref().take(limit as usize).map(part_entry).collect();
    Some(GetObjectAttributesParts {
        total_parts_count: i32::try_from(parts.len()).ok(),
        is_truncated: Some(limit > 0 && rest.peek().is_some()),
        max_parts: Some(bounded(limit)),
        next_part_number_marker: Some(page.last().and_then(|part| part.part_number).unwrap_or(0)),
        part_number_marker: Some(marker),
        parts: Some(page),
    })
}

fn part_entry(part: &PartRef) -> ObjectPart {
    let mut entry = ObjectPart {
        part_number: Some(i32::from(part.number)),
        size: Some(signed(part.size)),
        ..ObjectPart::default()
    };
    if let Some(sum) = &part.checksum {
        set_checksum!(entry, sum.algorithm, checksum::encode(sum, 0));
    }
    entry
}
