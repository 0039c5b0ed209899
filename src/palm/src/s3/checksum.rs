//! S3's additional checksums and `Content-MD5`: what a client declares, how it is judged once the body
//! has ended, and how it is given back
//! (<https://docs.aws.amazon.com/AmazonS3/latest/userguide/checking-object-integrity.html>).
//!
//! s3s verifies chunk signatures, declared lengths and `x-amz-content-sha256`; it verifies none of the
//! values here, so this is the only place that does.

use data_encoding::BASE64;
use http::{HeaderMap, HeaderName, HeaderValue};
use palm_core::record::{Checksum, ChecksumAlgorithm, ChecksumKind};
use s3s::{S3Error, S3ErrorCode, S3Result, TrailingHeaders};

use super::error;
use crate::object::{BodyError, Digested, ObjectError, Rejection};

const PREFIX: &str = "x-amz-checksum-";
/// Headers that share the prefix and carry no value of a checksum.
const NOT_VALUES: [&str; 3] = ["x-amz-checksum-algorithm", "x-amz-checksum-mode", "x-amz-checksum-type"];
const TRAILER: &str = "x-amz-trailer";
const SDK_ALGORITHM: &str = "x-amz-sdk-checksum-algorithm";

/// Its name in `x-amz-checksum-algorithm` and in XML.
pub fn name(algorithm: ChecksumAlgorithm) -> &'static str {
    match algorithm {
        ChecksumAlgorithm::Crc32 => "CRC32",
        ChecksumAlgorithm::Crc32c => "CRC32C",
        ChecksumAlgorithm::Crc64Nvme => "CRC64NVME",
        ChecksumAlgorithm::Sha1 => "SHA1",
        ChecksumAlgorithm::Sha256 => "SHA256",
        ChecksumAlgorithm::Sha512 => "SHA512",
        ChecksumAlgorithm::Md5 => "MD5",
        ChecksumAlgorithm::XxHash64 => "XXHASH64",
        ChecksumAlgorithm::XxHash3 => "XXHASH3",
        ChecksumAlgorithm::XxHash128 => "XXHASH128",
    }
}

/// The header or trailer that carries its value.
fn header(algorithm: ChecksumAlgorithm) -> &'static str {
    match algorithm {
        ChecksumAlgorithm::Crc32 => "x-amz-checksum-crc32",
        ChecksumAlgorithm::Crc32c => "x-amz-checksum-crc32c",
        ChecksumAlgorithm::Crc64Nvme => "x-amz-checksum-crc64nvme",
        ChecksumAlgorithm::Sha1 => "x-amz-checksum-sha1",
        ChecksumAlgorithm::Sha256 => "x-amz-checksum-sha256",
        ChecksumAlgorithm::Sha512 => "x-amz-checksum-sha512",
        ChecksumAlgorithm::Md5 => "x-amz-checksum-md5",
        ChecksumAlgorithm::XxHash64 => "x-amz-checksum-xxhash64",
        ChecksumAlgorithm::XxHash3 => "x-amz-checksum-xxhash3",
        ChecksumAlgorithm::XxHash128 => "x-amz-checksum-xxhash128",
    }
}

/// The algorithm of this name; one that PALM does not compute is refused, as AWS refuses what it does not know.
pub fn parse_name(text: &str) -> S3Result<ChecksumAlgorithm> {
    let found = ChecksumAlgorithm::ALL.into_iter().find(|&algorithm| name(algorithm).eq_ignore_ascii_case(text));
    found.ok_or_else(|| {
        let mut known = ChecksumAlgorithm::ALL.map(name);
        known.sort_unstable();
        let known = known.join(", ");
        error::invalid_request(format!(
            "Checksum algorithm provided is unsupported. Please try again with any of the valid types: [{known}]"
        ))
    })
}

/// Decodes a value; `None` unless it is base64 of the right length.
pub fn decode(algorithm: ChecksumAlgorithm, text: &str) -> Option<Vec<u8>> {
    BASE64.decode(text.trim().as_bytes()).ok().filter(|value| value.len() == algorithm.width())
}

/// A value as S3 writes it: base64, and for a composite checksum the number of parts behind a dash.
pub fn encode(checksum: &Checksum, parts: usize) -> String {
    let value = BASE64.encode(&checksum.value);
    match checksum.kind {
        ChecksumKind::FullObject => value,
        ChecksumKind::Composite => format!("{value}-{parts}"),
    }
}

/// The kind of checksum an upload gets: AWS's defaults and refusals.
pub fn kind(algorithm: ChecksumAlgorithm, asked: Option<ChecksumKind>) -> S3Result<ChecksumKind> {
    use ChecksumAlgorithm::{Crc32, Crc32c, Crc64Nvme};
    use ChecksumKind::{Composite, FullObject};
    match (asked, algorithm) {
        (Some(FullObject), Crc32 | Crc32c | Crc64Nvme) | (None, Crc64Nvme) => Ok(FullObject),
        (None, _) => Ok(Composite),
        (Some(Composite), algorithm) if algorithm != Crc64Nvme => Ok(Composite),
        (Some(asked), _) => Err(error::invalid_request(format!(
            "The {} checksum type cannot be used with the {} checksum algorithm.",
            kind_name(asked),
            name(algorithm).to_ascii_lowercase()
        ))),
    }
}

/// Reads `x-amz-checksum-type`.
pub fn parse_kind(text: &str) -> S3Result<ChecksumKind> {
    let mut known = [ChecksumKind::FullObject, ChecksumKind::Composite].into_iter();
    let known = known.find(|kind| kind_name(*kind).eq_ignore_ascii_case(text));
    known.ok_or_else(|| error::invalid_request("Value for x-amz-checksum-type header is invalid."))
}

/// `FULL_OBJECT` or `COMPOSITE`.
pub fn kind_name(kind: ChecksumKind) -> &'static str {
    match kind {
        ChecksumKind::FullObject => "FULL_OBJECT",
        ChecksumKind::Composite => "COMPOSITE",
    }
}

/// Sets the one of s3s's checksum fields that belongs to `$algorithm`.
macro_rules! set_checksum {
    ($output:expr, $algorithm:expr, $text:expr) => {{
        use palm_core::record::ChecksumAlgorithm;
        let text = Some($text);
        match $algorithm {
            ChecksumAlgorithm::Crc32 => $output.checksum_crc32 = text,
            ChecksumAlgorithm::Crc32c => $output.checksum_crc32c = text,
            ChecksumAlgorithm::Crc64Nvme => $output.checksum_crc64nvme = text,
            ChecksumAlgorithm::Sha1 => $output.checksum_sha1 = text,
            ChecksumAlgorithm::Sha256 => $output.checksum_sha256 = text,
            ChecksumAlgorithm::Sha512 => $output.checksum_sha512 = text,
            ChecksumAlgorithm::Md5 => $output.checksum_md5 = text,
            ChecksumAlgorithm::XxHash64 => $output.checksum_xxhash64 = text,
            ChecksumAlgorithm::XxHash3 => $output.checksum_xxhash3 = text,
            ChecksumAlgorithm::XxHash128 => $output.checksum_xxhash128 = text,
        }
    }};
}
pub(super) use set_checksum;

/// The checksum a structure with s3s's checksum fields carries: at most one, well-formed. The value may end in
/// `-parts`, as S3 writes composite ones.
macro_rules! given_checksum {
    ($input:expr) => {{
        use palm_core::record::ChecksumAlgorithm;
        $crate::s3::checksum::single([
            (ChecksumAlgorithm::Crc32, $input.checksum_crc32.as_deref()),
            (ChecksumAlgorithm::Crc32c, $input.checksum_crc32c.as_deref()),
            (ChecksumAlgorithm::Crc64Nvme, $input.checksum_crc64nvme.as_deref()),
            (ChecksumAlgorithm::Sha1, $input.checksum_sha1.as_deref()),
            (ChecksumAlgorithm::Sha256, $input.checksum_sha256.as_deref()),
            (ChecksumAlgorithm::Sha512, $input.checksum_sha512.as_deref()),
            (ChecksumAlgorithm::Md5, $input.checksum_md5.as_deref()),
            (ChecksumAlgorithm::XxHash64, $input.checksum_xxhash64.as_deref()),
            (ChecksumAlgorithm::XxHash3, $input.checksum_xxhash3.as_deref()),
            (ChecksumAlgorithm::XxHash128, $input.checksum_xxhash128.as_deref()),
        ])
    }};
}
pub(super) use given_checksum;

/// The single value among the fields of a structure; see [`given_checksum`].
pub fn single<const N: usize>(
    fields: [(ChecksumAlgorithm, Option<&str>); N],
) -> S3Result<Option<(ChecksumAlgorithm, Vec<u8>)>> {
    let mut given = None;
    for (algorithm, text) in fields {
        let Some(text) = text else { continue };
        let text = text.split_once('-').map_or(text, |(value, _parts)| value);
        let value = decode(algorithm, text).ok_or_else(|| invalid_value(algorithm))?;
        if given.replace((algorithm, value)).is_some() {
            return Err(several());
        }
    }
    Ok(given)
}

fn invalid_value(algorithm: ChecksumAlgorithm) -> S3Error {
    error::invalid_request(format!("Value for {} header is invalid.", header(algorithm)))
}

fn several() -> S3Error {
    error::invalid_request("Expecting a single x-amz-checksum- header. Multiple checksum Types are not allowed.")
}

/// Where the value of a declared checksum is found.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Value {
    /// In a header, read already.
    Header(Vec<u8>),
    /// In the trailer, readable once the body has ended.
    Trailer,
    /// Nowhere: PALM computes it because the upload was created with this algorithm.
    Computed,
}

/// What a client declares about a body, before the body is read.
#[derive(Debug, Default)]
pub struct Declared {
    md5: Option<[u8; 16]>,
    checksum: Option<(ChecksumAlgorithm, Value)>,
    trailers: Option<TrailingHeaders>,
}

impl Declared {
    /// Reads the headers of a `PutObject` or `UploadPart` request.
    pub fn read(headers: &HeaderMap, trailers: Option<TrailingHeaders>) -> S3Result<Self> {
        let Self { md5, .. } = Self::read_md5(headers)?;
        let mut checksum = None;
        for (header_name, value) in headers {
            if let Some(declared) = read_value(header_name, value)?
                && checksum.replace(declared).is_some()
            {
                return Err(several());
            }
        }
        for promised in text(headers, TRAILER).unwrap_or_default().split(',').map(str::trim) {
            if let Some(algorithm) = value_header(promised)?
                && checksum.replace((algorithm, Value::Trailer)).is_some()
            {
                return Err(several());
            }
        }
        if let Some(named) = text(headers, SDK_ALGORITHM) {
            let named = parse_name(named)?;
            match &checksum {
                Some((algorithm, _)) if *algorithm == named => {}
                Some(_) => {
                    return Err(error::invalid_request("Value for x-amz-sdk-checksum-algorithm header is invalid."));
                }
                None => {
                    return Err(error::invalid_request(
                        "x-amz-sdk-checksum-algorithm specified, but no corresponding x-amz-checksum-* or \
                         x-amz-trailer headers were found.",
                    ));
                }
            }
        }
        Ok(Self { md5, checksum, trailers })
    }

    /// Reads `Content-MD5` alone.
    pub fn read_md5(headers: &HeaderMap) -> S3Result<Self> {
        // An empty one is not none: a client whose digest got lost must hear of it.
        let md5 =
            headers.get("content-md5").map(|value| decode_md5(value.to_str().unwrap_or("?").trim())).transpose()?;
        Ok(Self { md5, ..Self::default() })
    }

    /// Of a body that comes from PALM itself: nothing is declared, and this is computed.
    pub fn computed(algorithm: Option<ChecksumAlgorithm>) -> Self {
        Self { checksum: algorithm.map(|algorithm| (algorithm, Value::Computed)), ..Self::default() }
    }

    /// Binds a part to its upload's algorithm: a client that names none gets it computed, one that names
    /// another is refused.
    pub fn for_upload(mut self, wanted: Option<ChecksumAlgorithm>) -> S3Result<Self> {
        match (wanted, &self.checksum) {
            (Some(wanted), None) => self.checksum = Some((wanted, Value::Computed)),
            (Some(wanted), Some((given, _))) if *given != wanted => {
                return Err(error::invalid_request(format!(
                    "Checksum Type mismatch occurred, expected checksum Type: {}, actual checksum Type: {}",
                    name(wanted).to_ascii_lowercase(),
                    name(*given).to_ascii_lowercase()
                )));
            }
            _ => {}
        }
        Ok(self)
    }

    /// Of an object whose client declares no checksum: it gets this one, "the default integrity protection" of AWS
    /// (<https://docs.aws.amazon.com/AmazonS3/latest/userguide/checking-object-integrity.html>).
    pub fn or_computed(mut self, algorithm: ChecksumAlgorithm) -> Self {
        self.checksum.get_or_insert((algorithm, Value::Computed));
        self
    }

    /// What has to be computed over the body beside its MD5.
    pub fn algorithm(&self) -> Option<ChecksumAlgorithm> {
        self.checksum.as_ref().map(|(algorithm, _)| *algorithm)
    }

    /// Judges a body that has ended, and says which checksum to store.
    pub fn judge(self, digested: &Digested) -> Result<Option<Checksum>, Rejection> {
        if self.md5.is_some_and(|md5| md5 != digested.md5) {
            return Err(Rejection::BadDigest);
        }
        let Some((algorithm, value)) = self.checksum else {
            return Ok(None);
        };
        let computed = digested.checksums.iter().find(|checksum| checksum.algorithm == algorithm);
        // The object layer computes what it was asked to; a missing one would be its fault, and storing
        // an unchecked body would be ours.
        let computed = computed.ok_or(Rejection::BadChecksum)?;
        let expected = match value {
            Value::Computed => None,
            Value::Header(expected) => Some(expected),
            Value::Trailer => {
                let trailers = self.trailers.and_then(|trailers| trailers.take()).ok_or(Rejection::Malformed)?;
                let text = text(&trailers, header(algorithm)).ok_or(Rejection::Malformed)?;
                Some(decode(algorithm, text).ok_or(Rejection::Malformed)?)
            }
        };
        if expected.is_some_and(|expected| expected != computed.value) {
            return Err(Rejection::BadChecksum);
        }
        Ok(Some(computed.clone()))
    }
}

/// Names the algorithm in the answer to a checksum that did not match, as AWS does.
pub fn explain(failure: ObjectError, algorithm: Option<ChecksumAlgorithm>) -> S3Error {
    let mismatch = matches!(
        failure,
        ObjectError::Body(BodyError::Refused(Rejection::BadChecksum)) | ObjectError::Mismatch(Rejection::BadChecksum)
    );
    let mut told = error::of(failure);
    if let (true, Some(algorithm)) = (mismatch, algorithm) {
        told.set_message(format!("The {} you specified did not match the calculated checksum.", name(algorithm)));
    }
    told
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim).filter(|value| !value.is_empty())
}

fn decode_md5(text: &str) -> S3Result<[u8; 16]> {
    let decoded = BASE64.decode(text.as_bytes()).ok().and_then(|value| value.try_into().ok());
    decoded.ok_or_else(|| S3Error::new(S3ErrorCode::InvalidDigest))
}

/// The algorithm whose value a header or trailer of this name carries; an algorithm PALM does not know is refused, so
/// that no promise of a client is dropped unseen.
fn value_header(name: &str) -> S3Result<Option<ChecksumAlgorithm>> {
    let lower = name.to_ascii_lowercase();
    if !lower.starts_with(PREFIX) || NOT_VALUES.contains(&lower.as_str()) {
        return Ok(None);
    }
    parse_name(&lower[PREFIX.len()..]).map(Some)
}

fn read_value(name: &HeaderName, value: &HeaderValue) -> S3Result<Option<(ChecksumAlgorithm, Value)>> {
    // Nearly every header leaves here, before anything is allocated.
    if !name.as_str().starts_with(PREFIX) {
        return Ok(None);
    }
    let Some(algorithm) = value_header(name.as_str())? else {
        return Ok(None);
    };
    let value = value.to_str().ok().and_then(|text| decode(algorithm, text));
    let value = value.ok_or_else(|| invalid_value(algorithm))?;
    Ok(Some((algorithm, Value::Header(value))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().expect("value"))).collect()
    }

    fn read(pairs: &[(&'static str, &str)]) -> S3Result<Declared> {
        Declared::read(&headers(pairs), None)
    }

    fn code(result: S3Result<Declared>) -> String {
        result.expect_err("refused").code().as_str().to_owned()
    }

    /// A body whose CRC-32 is 0xCBF43926 ("123456789") and whose MD5 is all ones, so that tests can tell.
    fn digested() -> Digested {
        let crc32 = Checksum {
            algorithm: ChecksumAlgorithm::Crc32,
            kind: ChecksumKind::FullObject,
            value: vec![0xcb, 0xf4, 0x39, 0x26],
        };
        Digested { size: 9, md5: [1; 16], checksums: vec![crc32] }
    }

    /// Scenario: bodies with right, wrong and no declarations. Danger: a corrupted body is stored and
    /// acknowledged. Expectation: stored only when everything declared matches, and with the checksum
    /// declared.
    #[test]
    fn a_body_is_stored_only_when_all_that_was_declared_matches() {
        let md5 = BASE64.encode(&[1; 16]);
        let wrong_md5 = BASE64.encode(&[2; 16]);
        let judge = |pairs: &[(&'static str, &str)]| read(pairs).expect("declared").judge(&digested());
        assert_eq!(judge(&[]), Ok(None));
        assert_eq!(judge(&[("content-md5", &md5)]), Ok(None));
        assert_eq!(judge(&[("content-md5", &wrong_md5)]), Err(Rejection::BadDigest));
        let stored = judge(&[("x-amz-checksum-crc32", "y/Q5Jg=="), ("content-md5", &md5)]).expect("matches");
        assert_eq!(stored, Some(digested().checksums[0].clone()));
        assert_eq!(judge(&[("x-amz-checksum-crc32", "AAAAAA==")]), Err(Rejection::BadChecksum));
        let uncomputed = judge(&[("x-amz-checksum-crc32c", "y/Q5Jg==")]);
        assert_eq!(uncomputed, Err(Rejection::BadChecksum), "never accepted unseen");
    }

    /// Scenario: a checksum is promised for the trailer and the body ends without one. Danger: cutting the
    /// trailer off would switch verification off. Expectation: refused.
    #[test]
    fn a_promised_trailer_must_come() {
        let declared = read(&[("x-amz-trailer", "x-amz-checksum-crc32")]).expect("declared");
        assert_eq!(declared.algorithm(), Some(ChecksumAlgorithm::Crc32));
        assert_eq!(declared.judge(&digested()), Err(Rejection::Malformed));
    }

    #[test]
    fn malformed_and_contradictory_declarations_are_refused_before_the_body_is_read() {
        assert_eq!(code(read(&[("content-md5", "nonsense")])), "InvalidDigest");
        assert_eq!(code(read(&[("content-md5", "AAAA")])), "InvalidDigest");
        assert_eq!(code(read(&[("content-md5", "")])), "InvalidDigest");
        assert_eq!(code(read(&[("x-amz-checksum-crc32", "AAAA")])), "InvalidRequest");
        assert_eq!(code(read(&[("x-amz-checksum-md6", "AAAA")])), "InvalidRequest");
        assert_eq!(code(read(&[("x-amz-trailer", "x-amz-checksum-xxhash5")])), "InvalidRequest");
        let two = [("x-amz-checksum-crc32", "y/Q5Jg=="), ("x-amz-checksum-crc32c", "y/Q5Jg==")];
        assert_eq!(code(read(&two)), "InvalidRequest");
        let both = [("x-amz-checksum-crc32", "y/Q5Jg=="), ("x-amz-trailer", "x-amz-checksum-crc32")];
        assert_eq!(code(read(&both)), "InvalidRequest");
        assert_eq!(code(read(&[("x-amz-sdk-checksum-algorithm", "CRC32")])), "InvalidRequest");
        let other = [("x-amz-checksum-crc32", "y/Q5Jg=="), ("x-amz-sdk-checksum-algorithm", "SHA1")];
        assert_eq!(code(read(&other)), "InvalidRequest");
        assert!(read(&[("x-amz-checksum-mode", "ENABLED")]).expect("no value").algorithm().is_none());
    }

    #[test]
    fn a_part_follows_the_algorithm_of_its_upload() {
        let silent = read(&[]).expect("declared").for_upload(Some(ChecksumAlgorithm::Crc32)).expect("computed");
        assert_eq!(silent.judge(&digested()).expect("matches"), Some(digested().checksums[0].clone()));
        let other = read(&[("x-amz-checksum-crc32", "y/Q5Jg==")]).expect("declared");
        assert_eq!(code(other.for_upload(Some(ChecksumAlgorithm::Sha256))), "InvalidRequest");
    }

    #[test]
    fn kinds_default_and_refuse_as_aws_does() {
        use ChecksumAlgorithm::{Crc32, Crc32c, Crc64Nvme, Sha256};
        use ChecksumKind::{Composite, FullObject};
        assert_eq!(kind(Crc32, None).expect("kind"), Composite);
        assert_eq!(kind(Sha256, None).expect("kind"), Composite);
        assert_eq!(kind(Crc64Nvme, None).expect("kind"), FullObject);
        for algorithm in ChecksumAlgorithm::ALL {
            let is_crc = matches!(algorithm, Crc32 | Crc32c | Crc64Nvme);
            assert_eq!(kind(algorithm, Some(FullObject)).is_ok(), is_crc, "{algorithm:?}");
            assert_eq!(kind(algorithm, Some(Composite)).is_ok(), algorithm != Crc64Nvme, "{algorithm:?}");
        }
        assert_eq!(parse_kind("full_Object").expect("known"), FullObject);
        assert!(parse_kind("OTHER").is_err());
    }

    #[test]
    fn composite_values_carry_their_number_of_parts() {
        let value = vec![0xcb, 0xf4, 0x39, 0x26];
        let composite = Checksum { algorithm: ChecksumAlgorithm::Crc32, kind: ChecksumKind::Composite, value };
        assert_eq!(encode(&composite, 3), "y/Q5Jg==-3");
        let fields = |crc32, sha1| {
            [(ChecksumAlgorithm::Crc32, crc32), (ChecksumAlgorithm::Crc32c, None), (ChecksumAlgorithm::Sha1, sha1)]
        };
        let parsed = single(fields(Some("y/Q5Jg==-3"), None)).expect("well-formed").expect("given");
        assert_eq!(parsed, (ChecksumAlgorithm::Crc32, composite.value));
        assert!(single(fields(Some("?"), None)).is_err());
    }
}
