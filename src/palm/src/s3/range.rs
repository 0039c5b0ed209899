//! Which bytes of an object a request asks for.

use palm_core::record::{Content, ObjectRecord, PartRef};
use s3s::dto::Range;
use s3s::{S3Error, S3ErrorCode, S3Result};

use super::error;

/// A range of an object's bytes, and how it was named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selection {
    /// The bytes.
    pub bytes: std::ops::Range<u64>,
    /// The answer is 206 with this `Content-Range`.
    pub content_range: Option<String>,
    /// The part asked for by number, in a multipart object.
    pub part: Option<PartRef>,
}

impl Selection {
    /// Bytes selected.
    pub fn len(&self) -> u64 {
        self.bytes.end - self.bytes.start
    }

    /// Whether every byte of the object is in it.
    pub fn is_whole(&self, size: u64) -> bool {
        self.len() == size
    }
}

/// Resolves `Range` and `partNumber` against an object. Several ranges in one header never come here:
/// s3s refuses them, as S3 has no multipart/byteranges.
pub fn select(record: &ObjectRecord, range: Option<Range>, part: Option<i32>) -> S3Result<Selection> {
    match (range, part) {
        (None, None) => Ok(Selection { bytes: 0..record.size, content_range: None, part: None }),
        (Some(_), Some(_)) => {
            Err(error::invalid_request("Cannot specify both Range header and partNumber query parameter"))
        }
        (Some(range), None) => {
            let bytes = resolve(range, record.size).ok_or_else(|| error::bad_range(record.size))?;
            Ok(Selection { content_range: Some(header(&bytes, record.size)), bytes, part: None })
        }
        (None, Some(number)) => select_part(record, number),
    }
}

/// The bytes a range means in an object of `size` bytes; `None` where that is none at all (416).
pub fn resolve(range: Range, size: u64) -> Option<std::ops::Range<u64>> {
    let bytes = match range {
        Range::Int { first, last } => first..last.map_or(size, |last| last.saturating_add(1).min(size)),
        Range::Suffix { length } => size.saturating_sub(length)..size,
    };
    (bytes.start < bytes.end).then_some(bytes)
}

fn header(bytes: &std::ops::Range<u64>, size: u64) -> String {
    format!("bytes {}-{}/{size}", bytes.start, bytes.end - 1)
}

fn select_part(record: &ObjectRecord, number: i32) -> S3Result<Selection> {
    super::multipart::part_number(number)?;
    let (bytes, part) = match &record.content {
        Content::Segments(_) if number == 1 => (0..record.size, None),
        Content::Segments(_) => return Err(error::bad_part_number()),
        Content::Parts(parts) => {
            let index = parts.iter().position(|part| i32::from(part.number) == number);
            let index = index.ok_or_else(error::bad_part_number)?;
            let start = parts[..index].iter().map(|part| part.size).sum::<u64>();
            (start..start + parts[index].size, Some(parts[index].clone()))
        }
    };
    // An empty part has no first and last byte to name.
    let content_range = (!bytes.is_empty()).then(|| header(&bytes, record.size));
    Ok(Selection { bytes, content_range, part })
}

/// `x-amz-copy-source-range`: only `bytes=first-last`, and it must lie inside the source.
pub fn select_source(text: &str, size: u64) -> S3Result<std::ops::Range<u64>> {
    let malformed = || {
        error::invalid_argument(
            "The x-amz-copy-source-range value must be of the form bytes=first-last where first and last are the \
             zero-based offsets of the first and last bytes to copy",
        )
    };
    let Ok(Range::Int { first, last: Some(last) }) = Range::parse(text) else {
        return Err(malformed());
    };
    if last >= size {
        // AWS says InvalidArgument; public suites want the code of other ranges that lie outside.
        return Err(S3Error::with_message(
            S3ErrorCode::InvalidRange,
            format!("Range specified is not valid for source object of size: {size}"),
        ));
    }
    Ok(first..last + 1)
}

#[cfg(test)]
mod tests {
    use palm_core::id::{BodyId, KeyId};
    use palm_core::record::{Attributes, Etag, Subresources};

    use super::*;

    fn record(content: Content, size: u64) -> ObjectRecord {
        ObjectRecord {
            size,
            etag: Etag { md5: [0; 16], parts: 0 },
            attributes: Attributes::default(),
            checksum: None,
            data_key: KeyId::from_bytes([0; 16]),
            body: BodyId::from_bytes([0; 16]),
            content,
            subresources: Subresources::default(),
            customer_key: None,
        }
    }

    fn plain(size: u64) -> ObjectRecord {
        record(Content::Segments(Vec::new()), size)
    }

    fn multipart(parts: &[(u16, u64)]) -> ObjectRecord {
        let parts: Vec<PartRef> = parts
            .iter()
            .map(|&(number, size)| PartRef { number, attempt: 1, size, md5: [0; 16], checksum: None })
            .collect();
        let size = parts.iter().map(|part| part.size).sum();
        record(Content::Parts(parts), size)
    }

    fn status(result: S3Result<Selection>) -> u16 {
        result.expect_err("refused").status_code().expect("status").as_u16()
    }

    /// Scenario: ranges at, inside and beyond the ends of an object of ten bytes. Danger: an off-by-one
    /// serves a byte too few under a header that promises it. Expectation: RFC 9110, section 14.1.2.
    #[test]
    fn ranges_resolve_against_the_size() {
        let table = [
            ("bytes=0-0", Some((0..1, "bytes 0-0/10"))),
            ("bytes=2-5", Some((2..6, "bytes 2-5/10"))),
            ("bytes=9-", Some((9..10, "bytes 9-9/10"))),
            ("bytes=0-99", Some((0..10, "bytes 0-9/10"))),
            ("bytes=-3", Some((7..10, "bytes 7-9/10"))),
            ("bytes=-99", Some((0..10, "bytes 0-9/10"))),
            ("bytes=10-", None),
            ("bytes=40-50", None),
            ("bytes=-0", None),
        ];
        for (text, expected) in table {
            let got = select(&plain(10), Some(Range::parse(text).expect("parses")), None);
            match expected {
                Some((bytes, header)) => {
                    let got = got.expect("satisfiable");
                    assert_eq!((got.bytes, got.content_range.as_deref()), (bytes, Some(header)), "{text}");
                }
                None => assert_eq!(status(got), 416, "{text}"),
            }
        }
        for text in ["bytes=0-", "bytes=-5", "bytes=0-0"] {
            assert_eq!(status(select(&plain(0), Some(Range::parse(text).expect("parses")), None)), 416, "empty object");
        }
        let whole = select(&plain(10), None, None).expect("whole");
        assert!(whole.is_whole(10) && whole.content_range.is_none());
    }

    /// Scenario: a multipart object with a gap in its part numbers. Danger: counting positions instead of
    /// numbers gives the wrong bytes. Expectation: the part of that number, an error where there is none.
    #[test]
    fn parts_are_selected_by_their_number() {
        let object = multipart(&[(1, 5), (3, 7), (4, 0)]);
        let third = select(&object, None, Some(3)).expect("part 3");
        assert_eq!(third.bytes, 5..12);
        assert_eq!(third.content_range.as_deref(), Some("bytes 5-11/12"));
        assert_eq!(select(&object, None, Some(4)).expect("empty part").content_range, None);
        assert_eq!(status(select(&object, None, Some(2))), 400);
        assert_eq!(status(select(&object, None, Some(0))), 400);
        let whole = select(&plain(10), None, Some(1)).expect("a plain object is its only part");
        assert_eq!(whole.content_range.as_deref(), Some("bytes 0-9/10"));
        assert_eq!(status(select(&plain(10), None, Some(2))), 400);
        assert_eq!(status(select(&object, Range::parse("bytes=0-1").ok(), Some(1))), 400);
    }

    #[test]
    fn a_source_range_lies_inside_the_source() {
        assert_eq!(select_source("bytes=2-4", 10).expect("inside"), 2..5);
        assert_eq!(select_source("bytes=2-10", 10).expect_err("outside").code().as_str(), "InvalidRange");
        for text in ["bytes=2-", "bytes=-3", "2-4", "bytes=5-2"] {
            assert_eq!(select_source(text, 10).expect_err(text).code().as_str(), "InvalidArgument");
        }
    }
}
