//! Signature Version 4 in the `Authorization` header, for requests whose body is not signed.
//!
//! AWS: "Authenticating Requests: Using the Authorization Header". Signed are host, x-amz-content-sha256 and x-amz-date.

use std::fmt::Write as _;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::hmac::{HMAC_SHA256, Key, sign};
use time::{Date, OffsetDateTime};

/// The value of x-amz-content-sha256 that leaves the body unsigned.
pub const UNSIGNED_PAYLOAD: &str = "UNSIGNED-PAYLOAD";

const SIGNED_HEADERS: &str = "host;x-amz-content-sha256;x-amz-date";

/// What is signed of a request.
#[derive(Debug, Clone, Copy)]
pub struct Target<'a> {
    /// HTTP method, upper case.
    pub method: &'a str,
    /// The Host header, port included.
    pub host: &'a str,
    /// Path, percent-encoded as sent.
    pub path: &'a str,
    /// Query, percent-encoded and sorted by name; empty when there is none.
    pub query: &'a str,
    /// Value of x-amz-content-sha256.
    pub payload_hash: &'a str,
}

/// Signs for one key and region; derives the day's signing key once a day.
#[derive(Debug, Clone)]
pub struct Signer {
    access_key: String,
    secret_key: String,
    region: String,
    today: Option<(Date, Key)>,
}

impl Signer {
    /// A signer for service `s3`.
    pub fn new(access_key: &str, secret_key: &str, region: &str) -> Self {
        Self {
            access_key: access_key.to_owned(),
            secret_key: secret_key.to_owned(),
            region: region.to_owned(),
            today: None,
        }
    }

    /// Appends the three headers `x-amz-date`, `x-amz-content-sha256` and `authorization`, each line ended by CRLF.
    pub fn write_headers(&mut self, out: &mut String, target: &Target<'_>, now: OffsetDateTime) {
        let (date, stamp) = date_and_stamp(now);
        let scope = format!("{date}/{}/s3/aws4_request", self.region);
        let canonical = format!(
            "{}\n{}\n{}\nhost:{}\nx-amz-content-sha256:{}\nx-amz-date:{stamp}\n\n{SIGNED_HEADERS}\n{}",
            target.method, target.path, target.query, target.host, target.payload_hash, target.payload_hash,
        );
        let canonical_hash = hex(digest(&SHA256, canonical.as_bytes()).as_ref());
        let text = format!("AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{canonical_hash}");
        let signature = hex(sign(self.key(now.date(), &date), text.as_bytes()).as_ref());
        let _ = write!(
            out,
            "x-amz-date: {stamp}\r\nx-amz-content-sha256: {}\r\nauthorization: AWS4-HMAC-SHA256 Credential={}/{scope}, \
             SignedHeaders={SIGNED_HEADERS}, Signature={signature}\r\n",
            target.payload_hash, self.access_key,
        );
    }

    fn key(&mut self, day: Date, date: &str) -> &Key {
        if self.today.as_ref().is_none_or(|(known, _)| *known != day) {
            let mut key = Key::new(HMAC_SHA256, format!("AWS4{}", self.secret_key).as_bytes());
            for step in [date, &self.region, "s3", "aws4_request"] {
                key = Key::new(HMAC_SHA256, sign(&key, step.as_bytes()).as_ref());
            }
            self.today = Some((day, key));
        }
        let (_, key) = self.today.as_ref().unwrap_or_else(|| unreachable!("set above"));
        key
    }
}

/// `20130524` and `20130524T000000Z`.
fn date_and_stamp(now: OffsetDateTime) -> (String, String) {
    let date = format!("{:04}{:02}{:02}", now.year(), u8::from(now.month()), now.day());
    let stamp = format!("{date}T{:02}{:02}{:02}Z", now.hour(), now.minute(), now.second());
    (date, stamp)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY_SHA256: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    /// AWS's published examples ("Examples: Signature Calculations"): the listing and the lifecycle request, which sign exactly
    /// the three headers that we sign. Danger: a signer that only agrees with itself. Expected: AWS's signatures.
    #[test]
    fn the_published_examples_are_met() {
        let now = time::macros::datetime!(2013-05-24 00:00:00 UTC);
        let mut signer = Signer::new("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", "us-east-1");
        for (query, signature) in [
            ("max-keys=2&prefix=J", "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7"),
            ("lifecycle=", "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543"),
        ] {
            let mut headers = String::new();
            let target = Target {
                method: "GET",
                host: "examplebucket.s3.amazonaws.com",
                path: "/",
                query,
                payload_hash: EMPTY_SHA256,
            };
            signer.write_headers(&mut headers, &target, now);
            assert!(headers.ends_with(&format!("Signature={signature}\r\n")), "{headers}");
            assert!(headers.starts_with("x-amz-date: 20130524T000000Z\r\n"));
        }
    }
}
