//! `ListObjectVersions` (<https://docs.aws.amazon.com/AmazonS3/latest/API/API_ListObjectVersions.html>).

use palm_core::s3::version::Kind;
use s3s::dto::{
    ChecksumAlgorithm, ChecksumType, CommonPrefix, DeleteMarkerEntry, ETag, ListObjectVersionsInput,
    ListObjectVersionsOutput, ObjectVersion, ObjectVersionStorageClass,
};
use s3s::{S3Request, S3Response, S3Result};

use super::list::{Encoding, Owners, after_marker, given, page_size};
use super::object::version_name;
use super::{Frontend, attributes, checksum, error, timestamp};
use crate::object::{ListQuery, Listed, ListedVersion, VersionsPage, VersionsQuery, after_key};

pub async fn list(
    frontend: &Frontend,
    request: S3Request<ListObjectVersionsInput>,
) -> S3Result<S3Response<ListObjectVersionsOutput>> {
    let ListObjectVersionsInput {
        bucket,
        delimiter,
        encoding_type,
        key_marker,
        max_keys,
        prefix,
        version_id_marker,
        ..
    } = request.input;
    let limit = page_size(max_keys, "max-keys")?;
    let delimiter = given(delimiter);
    let (prefix, marker) = (prefix.unwrap_or_default(), key_marker.unwrap_or_default());
    let version_marker = given(version_id_marker);
    if version_marker.is_some() && marker.is_empty() {
        return Err(error::invalid_argument("A version-id marker cannot be specified without a key marker."));
    }
    let after = version_name(version_marker.as_deref())?;
    let echoed = [prefix.as_str(), marker.as_str(), delimiter.as_deref().unwrap_or_default()];
    super::check_texts(echoed)?;
    let encoding = Encoding::parse(encoding_type.as_ref())?.fitting(echoed.into_iter());
    let owners = Owners::of(frontend, &bucket).await?;
    // The marker's own versions go on after the one named, unless the marker stands for a group.
    let start = match after_marker(&marker, &prefix, delimiter.as_deref()) {
        start if after.is_some() && start == after_key(&marker) => marker.clone(),
        start => start,
    };
    let keys = ListQuery { prefix: prefix.clone(), start, delimiter: delimiter.clone(), limit };
    let page = frontend.store.list_versions(&bucket, VersionsQuery { keys, after }).await.map_err(error::of)?;

    let encoding = encoding.fitting(page.items.iter().map(|item| match item {
        Listed::Key(name, _) | Listed::Group(name) => name.as_str(),
    }));
    let VersionsPage { items, truncated, stale } = page;
    let (next_key, next_version) = match items.last().filter(|_| truncated) {
        None => (None, None),
        Some(Listed::Key(key, version)) => (Some(encoding.write(key)), Some(version.id.to_string())),
        Some(Listed::Group(group)) => (Some(encoding.write(group)), None),
    };
    let (mut versions, mut markers, mut prefixes) = (Vec::new(), Vec::new(), Vec::new());
    let order = Order::of(&items);
    for item in items {
        match item {
            Listed::Group(group) => prefixes.push(CommonPrefix { prefix: Some(encoding.write(&group)) }),
            Listed::Key(key, version) if version.kind == Kind::DeleteMarker => {
                markers.push(DeleteMarkerEntry {
                    is_latest: Some(version.is_latest),
                    key: Some(encoding.write(&key)),
                    last_modified: Some(timestamp(version.modified_ms)),
                    owner: Some(owners.named(None)),
                    version_id: Some(version.id.to_string()),
                });
            }
            Listed::Key(key, version) => versions.extend(entry(encoding.write(&key), version, &owners)),
        }
    }
    let output = ListObjectVersionsOutput {
        common_prefixes: Some(prefixes),
        delete_markers: Some(markers),
        delimiter: delimiter.map(|delimiter| encoding.write(&delimiter)),
        encoding_type: encoding.name(),
        is_truncated: Some(truncated),
        key_marker: Some(encoding.write(&marker)),
        max_keys: Some(super::bounded(limit)),
        name: Some(bucket),
        next_key_marker: next_key,
        next_version_id_marker: next_version,
        prefix: Some(encoding.write(&prefix)),
        request_charged: None,
        version_id_marker: version_marker,
        versions: Some(versions),
    };
    let mut answer = super::answer(output, stale);
    answer.extensions.insert(order);
    Ok(answer)
}

/// Which entries of an answer are versions, and which delete markers. s3s writes the ones and then the others; AWS writes all
/// as they stand in the listing, newest first, and some clients take them so. Among the answer's extensions.
#[derive(Debug, Clone)]
pub struct Order(Vec<&'static str>);

impl Order {
    fn of(items: &[Listed<ListedVersion>]) -> Self {
        let tags = items.iter().filter_map(|item| match item {
            Listed::Key(_, version) if version.kind == Kind::DeleteMarker => Some(MARKER),
            Listed::Key(..) => Some(VERSION),
            Listed::Group(_) => None,
        });
        Self(tags.collect())
    }

    /// Brings the entries of an answer's XML into this order; `None` where they are in it, or are not there.
    pub fn restore(&self, xml: &str) -> Option<String> {
        if self.0.iter().all(|tag| *tag == VERSION) {
            return None;
        }
        let (rest, markers) = cut(xml, MARKER);
        let (rest, versions) = cut(&rest, VERSION);
        let (mut markers, mut versions) = (markers.into_iter(), versions.into_iter());
        let (head, end) = rest.split_at(rest.rfind("</")?);
        let mut ordered = String::with_capacity(xml.len());
        ordered.push_str(head);
        for tag in &self.0 {
            ordered.push_str(&if *tag == MARKER { markers.next() } else { versions.next() }?);
        }
        ordered.push_str(end);
        Some(ordered)
    }
}

const MARKER: &str = "DeleteMarker";
const VERSION: &str = "Version";

/// What is left of an XML without the elements of a name, and these. Text cannot look like a tag: it is escaped.
fn cut(xml: &str, tag: &str) -> (String, Vec<String>) {
    let (open, close) = (format!("<{tag}>"), format!("</{tag}>"));
    let mut pieces = xml.split(&open);
    let mut rest = pieces.next().unwrap_or_default().to_owned();
    let elements = pieces.map(|piece| {
        let (inner, after) = piece.split_once(&close).unwrap_or((piece, ""));
        rest.push_str(after);
        format!("{open}{inner}{close}")
    });
    let elements = elements.collect();
    (rest, elements)
}

fn entry(key: String, version: ListedVersion, owners: &Owners<'_>) -> Option<ObjectVersion> {
    let ListedVersion { id, is_latest, modified_ms, kind: Kind::Object(object) } = version else { return None };
    let class = object.storage_class.unwrap_or_else(|| attributes::STANDARD.to_owned());
    let sum = object.checksum.as_ref();
    Some(ObjectVersion {
        checksum_algorithm: sum.map(|sum| vec![ChecksumAlgorithm::from_static(checksum::name(sum.algorithm))]),
        checksum_type: sum.map(|sum| ChecksumType::from_static(checksum::kind_name(sum.kind))),
        e_tag: Some(ETag::Strong(object.etag.to_string())),
        is_latest: Some(is_latest),
        key: Some(key),
        last_modified: Some(timestamp(modified_ms)),
        owner: Some(owners.named(object.owner.as_deref())),
        restore_status: None,
        size: Some(super::signed(object.size)),
        storage_class: Some(ObjectVersionStorageClass::from(class)),
        version_id: Some(id.to_string()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: a key was deleted and written again. Danger: a client that reads an answer from its first line to its last takes
    /// the marker for the newest. Expectation: entries stand in the order of the listing, and nothing else is lost.
    #[test]
    fn entries_stand_as_they_were_listed() {
        let xml = "<R><DeleteMarker><Key>a</Key></DeleteMarker><Prefix></Prefix><Version><Key>a</Key><VersionId>2</VersionId></Version>\
                   <Version><Key>&lt;Version&gt;</Key></Version></R>";
        let order = Order(vec![VERSION, MARKER, VERSION]);
        let expected = "<R><Prefix></Prefix><Version><Key>a</Key><VersionId>2</VersionId></Version>\
                        <DeleteMarker><Key>a</Key></DeleteMarker><Version><Key>&lt;Version&gt;</Key></Version></R>";
        assert_eq!(order.restore(xml).as_deref(), Some(expected));
        assert_eq!(Order(vec![VERSION, VERSION]).restore(xml), None, "nothing to do");
        assert_eq!(Order(vec![MARKER, MARKER]).restore(xml), None, "another listing");
    }
}
