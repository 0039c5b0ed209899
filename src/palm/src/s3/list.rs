//! Listing objects: the pages of `ListObjects` and `ListObjectsV2`, their markers and tokens.

use std::fmt::Write;

use data_encoding::BASE64URL_NOPAD;
use s3s::dto::{
    ChecksumAlgorithm, ChecksumType, CommonPrefix, ETag, EncodingType, ListObjectsInput, ListObjectsOutput,
    ListObjectsV2Input, ListObjectsV2Output, Object as Entry, ObjectStorageClass, Owner,
};
use s3s::{S3Request, S3Response, S3Result};

use super::{Frontend, KEY_MAX_BYTES, acl, attributes, checksum, error, timestamp};
use crate::object::{ListPage, ListQuery, Listed, ListedObject, Store, after_group, after_key};

/// Entries of one page at most (AWS's limit).
pub const PAGE_MAX: u32 = 1_000;

/// First byte of every continuation token: its version.
const TOKEN_VERSION: u8 = 1;
/// Bytes of a token's check.
const TOKEN_CHECK_BYTES: usize = 8;
/// What a token's check is derived for (BLAKE3 key derivation context).
const TOKEN_CONTEXT: &str = "palm s3 continuation token v1";

/// Where a listing after `marker` starts. A marker at or in a group that the delimiter makes skips the
/// group: the client has seen it.
pub fn after_marker(marker: &str, prefix: &str, delimiter: Option<&str>) -> String {
    if marker.is_empty() {
        return String::new();
    }
    let group_end = delimiter.and_then(|delimiter| {
        let at = marker.strip_prefix(prefix)?.find(delimiter)?;
        Some(prefix.len() + at + delimiter.len())
    });
    match group_end {
        // Behind a group of nothing but the last code point of Unicode lie only texts longer than any key.
        Some(end) => after_group(&marker[..end]).unwrap_or_else(|| "\u{10ffff}".repeat(KEY_MAX_BYTES)),
        None => after_key(marker),
    }
}

/// An opaque token that resumes a listing at `start`: version, check, text. The check tells a token of ours
/// from anything else a client may send; it hides nothing and needs no secret.
pub fn encode_token(start: &str) -> String {
    let mut bytes = vec![TOKEN_VERSION];
    bytes.extend_from_slice(&token_check(start));
    bytes.extend_from_slice(start.as_bytes());
    BASE64URL_NOPAD.encode(&bytes)
}

/// The start a token resumes at; `InvalidArgument` for anything [`encode_token`] did not make.
pub fn decode_token(token: &str) -> S3Result<String> {
    let start = || {
        let bytes = BASE64URL_NOPAD.decode(token.as_bytes()).ok()?;
        let rest = bytes.strip_prefix(&[TOKEN_VERSION])?;
        let (check, start) = rest.split_at_checked(TOKEN_CHECK_BYTES)?;
        let start = std::str::from_utf8(start).ok()?;
        (check == token_check(start)).then(|| start.to_owned())
    };
    start().ok_or_else(|| error::invalid_argument("The continuation token provided is incorrect"))
}

fn token_check(start: &str) -> [u8; TOKEN_CHECK_BYTES] {
    let mut check = [0; TOKEN_CHECK_BYTES];
    check.copy_from_slice(&blake3::derive_key(TOKEN_CONTEXT, start.as_bytes())[..TOKEN_CHECK_BYTES]);
    check
}

/// How texts are written in an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// As they are.
    Plain,
    /// Percent-encoded, because the client asked or XML could not hold them.
    Url,
}

impl Encoding {
    /// Reads `encoding-type`.
    pub fn parse(asked: Option<&EncodingType>) -> S3Result<Self> {
        match asked.map(EncodingType::as_str) {
            None => Ok(Self::Plain),
            Some(EncodingType::URL) => Ok(Self::Url),
            Some(_) => Err(error::invalid_argument("Invalid Encoding Method specified in Request")),
        }
    }

    /// Falls back to percent-encoding where a text holds what XML 1.0 cannot: an encoded answer is better
    /// than none.
    pub fn fitting<'a>(self, mut texts: impl Iterator<Item = &'a str>) -> Self {
        if texts.any(|text| !fits_xml(text)) { Self::Url } else { self }
    }

    /// The text as it stands in the answer. The slash stays, as AWS leaves it.
    pub fn write(self, text: &str) -> String {
        if self == Self::Plain {
            return text.to_owned();
        }
        let mut written = String::with_capacity(text.len() + 16);
        for &byte in text.as_bytes() {
            if byte.is_ascii_alphanumeric() || b"-_.~/".contains(&byte) {
                written.push(char::from(byte));
            } else {
                // Writing to a String cannot fail.
                let _ = write!(written, "%{byte:02X}");
            }
        }
        written
    }

    /// `EncodingType` of the answer.
    pub fn name(self) -> Option<EncodingType> {
        (self == Self::Url).then(|| EncodingType::from_static(EncodingType::URL))
    }
}

/// Whether XML 1.0 can hold a text.
pub fn fits_xml(text: &str) -> bool {
    text.chars()
        .all(|c| !matches!(c, '\0'..='\u{8}' | '\u{b}' | '\u{c}' | '\u{e}'..='\u{1f}' | '\u{fffe}' | '\u{ffff}'))
}

/// The page size a client asked for.
pub fn page_size(asked: Option<i32>, what: &str) -> S3Result<u32> {
    let Some(asked) = asked else {
        return Ok(PAGE_MAX);
    };
    let asked = u32::try_from(asked)
        .map_err(|_| error::invalid_argument(format!("Argument {what} must be an integer between 0 and 2147483647")))?;
    Ok(asked.min(PAGE_MAX))
}

/// Empty texts mean "not given" in listings.
pub fn given(text: Option<String>) -> Option<String> {
    text.filter(|text| !text.is_empty())
}

/// Runs one page; a page of no entries asks only whether the bucket is there.
async fn run(frontend: &Frontend, bucket: &str, query: ListQuery) -> S3Result<ListPage<ListedObject>> {
    if query.limit == 0 {
        frontend.store.bucket(bucket).await.map_err(error::of)?;
        return Ok(ListPage { items: Vec::new(), next: None, stale: false });
    }
    frontend.store.list(bucket, query).await.map_err(error::of)
}

/// One page in s3s's terms.
struct Rendered {
    contents: Vec<Entry>,
    prefixes: Vec<CommonPrefix>,
    encoding: Encoding,
    last: Option<String>,
    next: Option<String>,
    stale: bool,
}

fn render(page: ListPage<ListedObject>, encoding: Encoding, owners: Option<&Owners<'_>>) -> Rendered {
    let name = |item: &Listed<ListedObject>| match item {
        Listed::Key(name, _) | Listed::Group(name) => name.clone(),
    };
    let encoding = encoding.fitting(page.items.iter().map(|item| match item {
        Listed::Key(name, _) | Listed::Group(name) => name.as_str(),
    }));
    let last = page.items.last().map(name);
    let mut contents = Vec::with_capacity(page.items.len());
    let mut prefixes = Vec::new();
    for item in page.items {
        match item {
            Listed::Key(key, object) => contents.push(entry(encoding.write(&key), &object, owners)),
            Listed::Group(group) => prefixes.push(CommonPrefix { prefix: Some(encoding.write(&group)) }),
        }
    }
    Rendered { contents, prefixes, encoding, last, next: page.next, stale: page.stale }
}

fn entry(key: String, object: &ListedObject, owners: Option<&Owners<'_>>) -> Entry {
    let record = &object.summary;
    let class = record.storage_class.clone().unwrap_or_else(|| attributes::STANDARD.to_owned());
    let algorithm = |sum: &palm_core::record::Checksum| ChecksumAlgorithm::from_static(checksum::name(sum.algorithm));
    let kind = |sum: &palm_core::record::Checksum| ChecksumType::from_static(checksum::kind_name(sum.kind));
    Entry {
        checksum_algorithm: record.checksum.as_ref().map(|sum| vec![algorithm(sum)]),
        checksum_type: record.checksum.as_ref().map(kind),
        e_tag: Some(ETag::Strong(record.etag.to_string())),
        key: Some(key),
        last_modified: Some(timestamp(object.modified_ms)),
        owner: owners.map(|owners| owners.named(record.owner.as_deref())),
        size: Some(super::signed(record.size)),
        storage_class: Some(ObjectStorageClass::from(class)),
        ..Entry::default()
    }
}

/// Who owns what is listed.
pub struct Owners<'a> {
    store: &'a Store,
    /// The bucket's owner, and that of what in it names no other.
    bucket: Owner,
}

impl<'a> Owners<'a> {
    /// Those of a bucket's objects.
    pub async fn of(frontend: &'a Frontend, bucket: &str) -> S3Result<Self> {
        let record = frontend.store.known_bucket(bucket).await.map_err(error::of)?;
        Ok(Self { store: &frontend.store, bucket: acl::owner(&frontend.store, &record.owner) })
    }

    /// The owner with this canonical id.
    pub fn named(&self, id: Option<&str>) -> Owner {
        id.map_or_else(|| self.bucket.clone(), |id| acl::owner(self.store, id))
    }
}

pub async fn list_v1(
    frontend: &Frontend,
    request: S3Request<ListObjectsInput>,
) -> S3Result<S3Response<ListObjectsOutput>> {
    let ListObjectsInput { bucket, delimiter, encoding_type, marker, max_keys, prefix, .. } = request.input;
    let limit = page_size(max_keys, "max-keys")?;
    let delimiter = given(delimiter);
    let (prefix, marker) = (prefix.unwrap_or_default(), marker.unwrap_or_default());
    let echoed = [prefix.as_str(), marker.as_str(), delimiter.as_deref().unwrap_or_default()];
    super::check_texts(echoed)?;
    let encoding = Encoding::parse(encoding_type.as_ref())?.fitting(echoed.into_iter());
    let owners = Owners::of(frontend, &bucket).await?;
    let start = after_marker(&marker, &prefix, delimiter.as_deref());
    let query = ListQuery { prefix: prefix.clone(), start, delimiter: delimiter.clone(), limit };
    let page = render(run(frontend, &bucket, query).await?, encoding, Some(&owners));
    let encoding = page.encoding;
    let truncated = page.next.is_some();
    // As AWS: without a delimiter the last key is the marker, and a client knows it.
    let next_marker = page.last.filter(|_| truncated && delimiter.is_some());
    // boto3 decodes everything here but the prefix.
    let prefix = if fits_xml(&prefix) { prefix } else { encoding.write(&prefix) };
    let output = ListObjectsOutput {
        name: Some(bucket),
        prefix: Some(prefix),
        marker: Some(encoding.write(&marker)),
        max_keys: Some(super::bounded(limit)),
        is_truncated: Some(truncated),
        contents: Some(page.contents),
        common_prefixes: Some(page.prefixes),
        delimiter: delimiter.map(|delimiter| encoding.write(&delimiter)),
        next_marker: next_marker.map(|marker| encoding.write(&marker)),
        encoding_type: encoding.name(),
        request_charged: None,
    };
    Ok(super::answer(output, page.stale))
}

pub async fn list_v2(
    frontend: &Frontend,
    request: S3Request<ListObjectsV2Input>,
) -> S3Result<S3Response<ListObjectsV2Output>> {
    let ListObjectsV2Input {
        bucket,
        continuation_token,
        delimiter,
        encoding_type,
        fetch_owner,
        max_keys,
        prefix,
        start_after,
        ..
    } = request.input;
    let limit = page_size(max_keys, "max-keys")?;
    let delimiter = given(delimiter);
    let prefix = prefix.unwrap_or_default();
    let echoed = [&prefix, start_after.as_deref().unwrap_or_default(), delimiter.as_deref().unwrap_or_default()];
    super::check_texts(echoed)?;
    let encoding = Encoding::parse(encoding_type.as_ref())?.fitting(echoed.into_iter());
    let start = match (continuation_token.as_deref(), &start_after) {
        (Some(token), _) if !token.is_empty() => decode_token(token)?,
        (_, Some(marker)) => after_marker(marker, &prefix, delimiter.as_deref()),
        (_, None) => String::new(),
    };
    let owners = match fetch_owner {
        Some(true) => Some(Owners::of(frontend, &bucket).await?),
        _ => None,
    };
    let query = ListQuery { prefix: prefix.clone(), start, delimiter: delimiter.clone(), limit };
    let page = render(run(frontend, &bucket, query).await?, encoding, owners.as_ref());
    let encoding = page.encoding;
    let count = page.contents.len() + page.prefixes.len();
    let output = ListObjectsV2Output {
        name: Some(bucket),
        prefix: Some(encoding.write(&prefix)),
        max_keys: Some(super::bounded(limit)),
        key_count: i32::try_from(count).ok(),
        continuation_token,
        is_truncated: Some(page.next.is_some()),
        next_continuation_token: page.next.as_deref().map(encode_token),
        contents: Some(page.contents),
        common_prefixes: Some(page.prefixes),
        delimiter: delimiter.map(|delimiter| encoding.write(&delimiter)),
        encoding_type: encoding.name(),
        start_after: start_after.map(|marker| encoding.write(&marker)),
        request_charged: None,
    };
    Ok(super::answer(output, page.stale))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: tokens of ours, of other systems and tampered ones. Danger: a wrong token silently restarts
    /// or skips a listing, and a sync tool deletes what it did not see. Expectation: only ours are taken.
    #[test]
    fn only_our_own_tokens_are_taken() {
        for start in ["", "a", "päth/\u{10ffff}", "k\0"] {
            assert_eq!(decode_token(&encode_token(start)).expect("ours"), start);
        }
        let mut tampered = encode_token("photos/2026").into_bytes();
        tampered[14] ^= 1;
        let tampered = String::from_utf8(tampered).expect("ascii");
        for bad in ["", "x", "photos/2026", "AQ", tampered.as_str()] {
            assert_eq!(decode_token(bad).expect_err(bad).code().as_str(), "InvalidArgument", "{bad}");
        }
    }

    #[test]
    fn a_marker_in_a_group_skips_the_group() {
        assert_eq!(after_marker("", "", Some("/")), "");
        assert_eq!(after_marker("foo/", "", Some("/")), "foo0");
        assert_eq!(after_marker("foo/bar", "", Some("/")), "foo0");
        assert_eq!(after_marker("foo/bar", "foo/", Some("/")), "foo/bar\0");
        assert_eq!(after_marker("foo/bar", "", None), "foo/bar\0");
        assert_eq!(after_marker("a--b--c", "a", Some("--")), "a-.");
        assert_eq!(after_marker("b/c", "zoo/", Some("/")), "b/c\0", "before the prefix");
        let behind_all = after_marker("\u{10ffff}", "", Some("\u{10ffff}"));
        assert!(behind_all > "\u{10ffff}".repeat(KEY_MAX_BYTES / 4), "a listing must not start over");
    }

    #[test]
    fn texts_are_encoded_when_asked_or_when_xml_cannot_hold_them() {
        assert_eq!(Encoding::Url.write("a/b c+d~ü%"), "a/b%20c%2Bd~%C3%BC%25");
        assert_eq!(Encoding::Plain.write("a b"), "a b");
        let keys = ["plain", "bell\u{7}"];
        assert_eq!(Encoding::Plain.fitting(keys.into_iter()), Encoding::Url);
        assert_eq!(Encoding::Plain.fitting(["tab\tü"].into_iter()), Encoding::Plain);
        assert!(Encoding::parse(Some(&EncodingType::from("base64".to_owned()))).is_err());
    }

    #[test]
    fn page_sizes_are_bounded() {
        assert_eq!(page_size(None, "max-keys").expect("default"), 1_000);
        assert_eq!(page_size(Some(0), "max-keys").expect("none"), 0);
        assert_eq!(page_size(Some(5_000), "max-keys").expect("clamped"), 1_000);
        assert!(page_size(Some(-1), "max-keys").is_err());
    }
}
