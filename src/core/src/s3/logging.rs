//! Lines of server access logs (<https://docs.aws.amazon.com/AmazonS3/latest/userguide/LogFormat.html>) and the keys they
//! are delivered under.

use std::fmt::Write as _;

use super::calendar::{Moment, log_date};

/// One request, as logged. What is `None` is written as `-`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields of the page cited, in its order")]
pub struct Entry<'a> {
    pub bucket_owner: &'a str,
    pub bucket: &'a str,
    /// Milliseconds since the epoch.
    pub time_ms: u64,
    pub remote_ip: Option<&'a str>,
    pub requester: Option<&'a str>,
    pub request_id: &'a str,
    /// `REST.GET.OBJECT`.
    pub operation: &'a str,
    /// Not encoded yet.
    pub key: Option<&'a str>,
    /// `GET /bucket/key HTTP/1.1`.
    pub request_uri: Option<&'a str>,
    pub status: Option<u16>,
    pub error_code: Option<&'a str>,
    pub bytes_sent: Option<u64>,
    pub object_size: Option<u64>,
    pub total_ms: Option<u64>,
    pub turn_around_ms: Option<u64>,
    pub referer: Option<&'a str>,
    pub user_agent: Option<&'a str>,
    pub version_id: Option<&'a str>,
    pub host_id: Option<&'a str>,
    /// `SigV4`.
    pub signature_version: Option<&'a str>,
    pub cipher_suite: Option<&'a str>,
    /// `AuthHeader`, `QueryString`.
    pub authentication: Option<&'a str>,
    pub host: Option<&'a str>,
    /// `TLSv1.3`.
    pub tls_version: Option<&'a str>,
    pub access_point: Option<&'a str>,
    /// `Yes` where an ACL was what let the requester in.
    pub acl_required: bool,
}

impl Entry<'_> {
    /// Its line, without the line break.
    pub fn line(&self) -> String {
        let some = |text: Option<&str>, encode: fn(&str) -> String| match text {
            None | Some("") => "-".to_owned(),
            Some(text) => encode(text),
        };
        let plain = |text| some(text, encode_blank);
        let quoted = |text| format!("\"{}\"", some(text, encode_quoted));
        let count = |number: Option<u64>| number.map_or_else(|| "-".to_owned(), |number| number.to_string());
        let fields = [
            self.bucket_owner.to_owned(),
            self.bucket.to_owned(),
            log_date(self.time_ms),
            plain(self.remote_ip),
            plain(self.requester),
            self.request_id.to_owned(),
            self.operation.to_owned(),
            some(self.key, |key| encode(&encode(key))),
            quoted(self.request_uri),
            count(self.status.map(u64::from)),
            plain(self.error_code),
            count(self.bytes_sent.filter(|bytes| *bytes > 0)),
            count(self.object_size),
            count(self.total_ms),
            count(self.turn_around_ms),
            quoted(self.referer),
            quoted(self.user_agent),
            plain(self.version_id),
            plain(self.host_id),
            plain(self.signature_version),
            plain(self.cipher_suite),
            plain(self.authentication),
            plain(self.host),
            plain(self.tls_version),
            plain(self.access_point),
            if self.acl_required { "Yes" } else { "-" }.to_owned(),
        ];
        fields.join(" ")
    }
}

/// The key of a log object: `PREFIXYYYY-mm-DD-HH-MM-SS-UniqueString`, with 16 hexadecimal digits drawn at random.
pub fn log_key(prefix: &str, now_ms: u64, unique: u64) -> String {
    let Moment { year, month, day, hour, minute, second, .. } = Moment::of(now_ms);
    format!("{prefix}{year:04}-{month:02}-{day:02}-{hour:02}-{minute:02}-{second:02}-{unique:016X}")
}

/// The same with `PartitionedPrefix`: `PREFIXACCOUNT/REGION/BUCKET/YYYY/mm/DD/YYYY-mm-DD-HH-MM-SS-UniqueString`.
pub fn partitioned_key(
    prefix: &str,
    (account, region, bucket): (&str, &str, &str),
    time_ms: u64,
    unique: u64,
) -> String {
    let Moment { year, month, day, .. } = Moment::of(time_ms);
    let place = format!("{prefix}{account}/{region}/{bucket}/{year:04}/{month:02}/{day:02}/");
    log_key(&place, time_ms, unique)
}

/// Subresources of a bucket, as queries and as logs name them.
const OF_BUCKETS: &[(&str, &str)] = &[
    ("acl", "ACL"),
    ("cors", "CORS"),
    ("delete", "MULTI_OBJECT_DELETE"),
    ("encryption", "ENCRYPTION"),
    ("lifecycle", "LIFECYCLE"),
    ("location", "LOCATION"),
    ("logging", "LOGGING_STATUS"),
    ("notification", "NOTIFICATION"),
    ("object-lock", "OBJECT_LOCK_CONFIGURATION"),
    ("ownershipControls", "OWNERSHIP_CONTROLS"),
    ("policy", "BUCKETPOLICY"),
    ("policyStatus", "POLICY_STATUS"),
    ("publicAccessBlock", "PUBLIC_ACCESS_BLOCK"),
    ("requestPayment", "REQUEST_PAYMENT"),
    ("tagging", "TAGGING"),
    ("uploads", "UPLOADS"),
    ("versioning", "VERSIONING"),
    ("versions", "BUCKETVERSIONS"),
    ("website", "WEBSITE"),
];

/// Those of objects.
const OF_OBJECTS: &[(&str, &str)] = &[
    ("acl", "ACL"),
    ("attributes", "OBJECT_ATTRIBUTES"),
    ("legal-hold", "OBJECT_LOCK_LEGALHOLD"),
    ("renameObject", "OBJECT_RENAME"),
    ("retention", "OBJECT_LOCK_RETENTION"),
    ("tagging", "OBJECT_TAGGING"),
    ("uploads", "UPLOADS"),
];

/// The operation of a request, `REST.method.resource`: by its method, whether it names an object, the names in its query,
/// and whether it copies.
pub fn operation(method: &str, of_object: bool, query: &[&str], copies: bool) -> String {
    let table = if of_object { OF_OBJECTS } else { OF_BUCKETS };
    let named = table.iter().find(|(name, _)| query.contains(name)).map(|(_, resource)| *resource);
    let verb = if copies && method == "PUT" { "COPY" } else { method };
    let resource = match named {
        Some(resource) => resource,
        None if query.contains(&"uploadId") => {
            if method == "PUT" {
                "PART"
            } else {
                "UPLOAD"
            }
        }
        None if method == "OPTIONS" => "PREFLIGHT",
        // A form names its object within.
        None if of_object || method == "POST" => "OBJECT",
        None => "BUCKET",
    };
    format!("REST.{verb}.{resource}")
}

/// Percent-encodes all but what cannot end a field; a key is encoded twice, as AWS does.
fn encode(text: &str) -> String {
    encode_where(text, |c| c.is_ascii_alphanumeric() || "-._~/".contains(c))
}

/// A field without quotes holds no blanks, quotes and line breaks.
fn encode_blank(text: &str) -> String {
    encode_where(text, |c| c != '"' && !c.is_whitespace() && !c.is_control())
}

/// A field in quotes: "any non-printing character and quotation mark is escaped", so that a client's header cannot write
/// a line of its own.
fn encode_quoted(text: &str) -> String {
    encode_where(text, |c| c != '"' && !c.is_control())
}

fn encode_where(text: &str, stays: impl Fn(char) -> bool) -> String {
    let mut encoded = String::with_capacity(text.len());
    for c in text.chars() {
        if stays(c) {
            encoded.push(c);
        } else {
            for byte in c.encode_utf8(&mut [0; 4]).bytes() {
                // Writing to a text cannot fail.
                let _ = write!(encoded, "%{byte:02X}");
            }
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The first example of the page, in this module's fields.
    #[test]
    fn a_line_is_as_in_the_example() {
        let entry = Entry {
            bucket_owner: "79a59df900b949e55d96a1e698fbacedfd6e09d98eacf8f8d5218e7cd47ef2be",
            bucket: "amzn-s3-demo-bucket1",
            time_ms: 1_549_411_238_000,
            remote_ip: Some("192.0.2.3"),
            requester: Some("79a59df900b949e55d96a1e698fbacedfd6e09d98eacf8f8d5218e7cd47ef2be"),
            request_id: "3E57427F3EXAMPLE",
            operation: "REST.GET.VERSIONING",
            request_uri: Some("GET /amzn-s3-demo-bucket1?versioning HTTP/1.1"),
            status: Some(200),
            bytes_sent: Some(113),
            total_ms: Some(7),
            user_agent: Some("S3Console/0.4"),
            host_id: Some("s9lzHYrFp76ZVxRcpX9"),
            signature_version: Some("SigV4"),
            authentication: Some("AuthHeader"),
            host: Some("amzn-s3-demo-bucket1.s3.us-west-1.amazonaws.com"),
            tls_version: Some("TLSV1.2"),
            acl_required: true,
            ..Entry::default()
        };
        let owner = "79a59df900b949e55d96a1e698fbacedfd6e09d98eacf8f8d5218e7cd47ef2be";
        let expected = format!(
            "{owner} amzn-s3-demo-bucket1 [06/Feb/2019:00:00:38 +0000] 192.0.2.3 {owner} 3E57427F3EXAMPLE \
             REST.GET.VERSIONING - \"GET /amzn-s3-demo-bucket1?versioning HTTP/1.1\" 200 - 113 - 7 - \"-\" \
             \"S3Console/0.4\" - s9lzHYrFp76ZVxRcpX9 SigV4 - AuthHeader \
             amzn-s3-demo-bucket1.s3.us-west-1.amazonaws.com TLSV1.2 - Yes"
        );
        assert_eq!(entry.line(), expected);
        assert_eq!(log_key("logs/", 1_549_411_238_000, 0xAB), "logs/2019-02-06-00-00-38-00000000000000AB");
    }

    #[test]
    fn operations_are_named_as_aws_names_them() {
        let table = [
            ("GET", false, &[][..], false, "REST.GET.BUCKET"),
            ("GET", false, &["list-type", "versions"], false, "REST.GET.BUCKETVERSIONS"),
            ("GET", false, &["versioning"], false, "REST.GET.VERSIONING"),
            ("POST", false, &["delete"], false, "REST.POST.MULTI_OBJECT_DELETE"),
            ("POST", false, &[], false, "REST.POST.OBJECT"),
            ("HEAD", true, &["versionId"], false, "REST.HEAD.OBJECT"),
            ("PUT", true, &[], true, "REST.COPY.OBJECT"),
            ("PUT", true, &["partNumber", "uploadId"], false, "REST.PUT.PART"),
            ("PUT", true, &["partNumber", "uploadId"], true, "REST.COPY.PART"),
            ("POST", true, &["uploadId"], false, "REST.POST.UPLOAD"),
            ("POST", true, &["uploads"], false, "REST.POST.UPLOADS"),
            ("PUT", true, &["tagging"], false, "REST.PUT.OBJECT_TAGGING"),
        ];
        for (method, of_object, query, copies, expected) in table {
            assert_eq!(operation(method, of_object, query, copies), expected);
        }
        let key = partitioned_key("logs/", ("1", "eu", "b"), 1_549_411_238_000, 0xAB);
        assert_eq!(key, "logs/1/eu/b/2019/02/06/2019-02-06-00-00-38-00000000000000AB");
    }

    proptest! {
        /// Danger: a client writes fields or whole lines of its own into the log. Expectation: one line of the same fields.
        #[test]
        fn no_request_writes_its_own_fields(text in "\\PC{0,20}[\" \r\n]{0,3}\\PC{0,20}") {
            let entry = Entry {
                bucket_owner: "o",
                bucket: "b",
                request_id: "r",
                operation: "op",
                key: Some(&text),
                user_agent: Some(&text),
                error_code: Some(&text),
                ..Entry::default()
            };
            let line = entry.line();
            prop_assert!(!line.contains(['\r', '\n']));
            let parts: Vec<&str> = line.split('"').collect();
            prop_assert_eq!(parts.len(), 7, "three fields are quoted, and nothing else");
            let words: Vec<usize> = [0, 2, 4, 6].iter().map(|at| parts[*at].split_whitespace().count()).collect();
            prop_assert_eq!(words, [9, 6, 0, 9], "the date is two words");
        }
    }
}
