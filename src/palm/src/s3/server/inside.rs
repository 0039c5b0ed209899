//! Requests from within the peer, for somebody whose access key was verified already, and links made for them.

use std::net::SocketAddr;
use std::time::Duration;

use aws_lc_rs::{digest, hmac};
use bytes::Bytes;
use data_encoding::HEXLOWER;
use http::{Request, Response};
use http_body::Body as HttpBody;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use s3s::auth::{Credentials, SecretKey};
use s3s::{Body, StdError};
use time::OffsetDateTime;
use time::macros::format_description;

use super::{Connection, Service};
use crate::s3::access::{SIGV4, Signer};
use crate::s3::measure::Counted;

/// What stands for itself anywhere in a URL (RFC 3986, section 2.3); `SigV4` wants the rest percent-encoded.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');
/// The same within a path.
const IN_PATH: &AsciiSet = &RESERVED.remove(b'/');

impl Service {
    /// Answers a request from `from` as if `access_key` had signed it, and counts it as any other. It carries no signature of its
    /// own.
    pub async fn answer_for<B>(
        &self,
        access_key: &str,
        from: SocketAddr,
        request: Request<B>,
    ) -> Response<Counted<Body>>
    where
        B: HttpBody<Data = Bytes> + Send + Unpin + 'static,
        StdError: From<B::Error>,
    {
        let (request, watch) = self.measures.begin(request);
        let mut request =
            request.map(|body| if body.is_end_stream() { Body::empty() } else { Body::http_body_unsync(body) });
        // The gate asks whose key it is and what it may; the secret it takes for verified.
        let credentials = Credentials { access_key: access_key.to_owned(), secret_key: SecretKey::from("") };
        let extensions = request.extensions_mut();
        extensions.insert(Signer { credentials, by: "REST-HEADER", version: SIGV4 });
        extensions.insert(Connection { peer: from, tls: None });
        watch.answered(self.handle(request).await)
    }
}

/// A link with which anybody may GET an object for a time
/// (<https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-query-string-auth.html>).
#[derive(Debug)]
pub struct Link<'a> {
    /// The endpoint, with its port.
    pub host: &'a str,
    /// What clients are told the region is called.
    pub region: &'a str,
    /// The bucket.
    pub bucket: &'a str,
    /// The object's key.
    pub key: &'a str,
    /// Its version; none: whichever is the latest.
    pub version: Option<&'a str>,
    /// From when on.
    pub at: OffsetDateTime,
    /// For how long.
    pub lasts: Duration,
}

impl Link<'_> {
    /// The link, signed by an access key (its id and its secret).
    pub fn sign(&self, (id, secret): (&str, &str)) -> String {
        let date = self.at.format(format_description!("[year][month][day]")).unwrap_or_default();
        let clock = self.at.format(format_description!("[hour][minute][second]")).unwrap_or_default();
        let time = format!("{date}T{clock}Z");
        let scope = format!("{date}/{}/s3/aws4_request", self.region);
        let path = format!("/{}/{}", self.bucket, utf8_percent_encode(self.key, IN_PATH));
        // In the order of their names, as they are signed.
        let parameters = [
            ("X-Amz-Algorithm", Some("AWS4-HMAC-SHA256".to_owned())),
            ("X-Amz-Credential", Some(format!("{id}/{scope}"))),
            ("X-Amz-Date", Some(time.clone())),
            ("X-Amz-Expires", Some(self.lasts.as_secs().to_string())),
            ("X-Amz-SignedHeaders", Some("host".to_owned())),
            ("versionId", self.version.map(str::to_owned)),
        ];
        let pairs = parameters.iter().filter_map(|(name, value)| {
            value.as_ref().map(|value| format!("{name}={}", utf8_percent_encode(value, RESERVED)))
        });
        let query = pairs.collect::<Vec<_>>().join("&");
        let canonical = format!("GET\n{path}\n{query}\nhost:{}\n\nhost\nUNSIGNED-PAYLOAD", self.host);
        let hash = HEXLOWER.encode(digest::digest(&digest::SHA256, canonical.as_bytes()).as_ref());
        let key = mac(format!("AWS4{secret}").as_bytes(), &date);
        let key = [self.region, "s3", "aws4_request"].iter().fold(key, |key, part| mac(key.as_ref(), part));
        let signature = mac(key.as_ref(), &format!("AWS4-HMAC-SHA256\n{time}\n{scope}\n{hash}"));
        format!("http://{}{path}?{query}&X-Amz-Signature={}", self.host, HEXLOWER.encode(signature.as_ref()))
    }
}

fn mac(key: &[u8], text: &str) -> hmac::Tag {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A link to a key with signs that URLs escape, and to a version. Danger: a signature that PALM alone takes, or none. Expected:
    /// the one that botocore makes of the same.
    #[test]
    fn links_are_signed_as_others_sign_them() {
        let link = Link {
            host: "127.0.0.1:9000",
            region: "us-east-1",
            bucket: "photos",
            key: "a b/ü+(1).txt",
            version: Some("3/L4kqtJlcpXroDTDmpUMLUo"),
            at: OffsetDateTime::from_unix_timestamp(1_369_353_600).expect("date"),
            lasts: Duration::from_hours(24),
        };
        let url = link.sign(("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"));
        assert!(url.starts_with("http://127.0.0.1:9000/photos/a%20b/%C3%BC%2B%281%29.txt?X-Amz-Algorithm="), "{url}");
        let botocores = "c1d6e1201862051d8d0ba86de5ba8109c2caaaef1b102fe7eb4449cd42912091";
        assert!(url.ends_with(&format!("&versionId=3%2FL4kqtJlcpXroDTDmpUMLUo&X-Amz-Signature={botocores}")), "{url}");
    }
}
