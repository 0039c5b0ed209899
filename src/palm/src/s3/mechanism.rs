//! Authorization headers that are none: what AWS says of those that s3s would only call invalid
//! (<https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-auth-using-authorization-header.html>,
//! <https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html>).

use http::HeaderMap;
use http::header::AUTHORIZATION;
use s3s::{S3Error, S3ErrorCode, S3Result};

use super::error;

/// The one mechanism that is spoken.
const SIGV4: &str = "AWS4-HMAC-SHA256";
/// What a header of it is made of.
const PIECES: [&str; 3] = ["Credential=", "SignedHeaders=", "Signature="];
/// Key, date, region, service, and `aws4_request`.
const SCOPE_PIECES: usize = 5;

/// Refuses a header that cannot be a signature of version 4. One that is empty is as good as none where nothing is public, and
/// is told so; whether a signature is right is not decided here.
pub fn check(headers: &HeaderMap) -> S3Result<()> {
    let Some(value) = headers.get(AUTHORIZATION) else {
        return Ok(());
    };
    let text = value.to_str().unwrap_or("?").trim();
    match text.split_once(' ').unwrap_or((text, "")) {
        ("", _) => Err(S3Error::new(S3ErrorCode::AccessDenied)),
        (SIGV4, rest) if is_whole(rest) => match headers.get("x-amz-date").and_then(|date| date.to_str().ok()) {
            Some(date) if is_date(date) => Ok(()),
            _ => Err(S3Error::with_message(
                S3ErrorCode::AccessDenied,
                "AWS authentication requires a valid Date or x-amz-date header",
            )),
        },
        (SIGV4, _) => Err(S3Error::with_message(
            S3ErrorCode::AuthorizationHeaderMalformed,
            "The authorization header is malformed; the Credential, SignedHeaders and Signature are needed.",
        )),
        ("AWS", rest) if rest.contains(':') => Err(error::invalid_request(
            "The authorization mechanism you have provided is not supported. Please use AWS4-HMAC-SHA256.",
        )),
        ("AWS", _) => {
            Err(error::invalid_argument("AWS authorization header is invalid. Expected AwsAccessKeyId:signature"))
        }
        _ => Err(error::invalid_argument("Unsupported Authorization Type")),
    }
}

fn is_whole(rest: &str) -> bool {
    let pieces: Vec<&str> = rest.split(',').map(str::trim).collect();
    let values = PIECES.map(|name| pieces.iter().find_map(|piece| piece.strip_prefix(name)).unwrap_or_default());
    // A key may hold slashes; the scope may not.
    values.iter().all(|value| !value.is_empty()) && values[0].split('/').count() >= SCOPE_PIECES
}

/// `20261122T235959Z`, of whatever calendar.
fn is_date(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.len() == 16
        && bytes.iter().enumerate().all(|(at, byte)| match at {
            8 => *byte == b'T',
            15 => *byte == b'Z',
            _ => byte.is_ascii_digit(),
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: headers of other mechanisms, broken ones, none. Danger: a client that gets a vague 400 tries its key again and
    /// again, and an empty header is taken for a signature. Expectation: AWS's codes; what may be a signature passes.
    #[test]
    fn what_is_no_signature_is_told_so() {
        let good = "AWS4-HMAC-SHA256 Credential=K/20261122/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=ab";
        let code = |header: &str, date: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(AUTHORIZATION, header.parse().expect("header"));
            headers.insert("x-amz-date", date.parse().expect("header"));
            check(&headers).err().map_or("taken".to_owned(), |told| told.code().as_str().to_owned())
        };
        let date = "20261122T235959Z";
        for (header, expected) in [
            (good, "taken"),
            (&good.replace(", ", ","), "taken"),
            ("", "AccessDenied"),
            ("AWS4-HMAC-SHA256", "AuthorizationHeaderMalformed"),
            (&good.replace("Signature=ab", "Signature="), "AuthorizationHeaderMalformed"),
            (&good.replace("/s3/", ""), "AuthorizationHeaderMalformed"),
            ("AWS key:signature", "InvalidRequest"),
            ("AWS HAHAHA", "InvalidArgument"),
            ("Bearer token", "InvalidArgument"),
        ] {
            assert_eq!(code(header, date), expected, "{header}");
        }
        for bad in ["", "Bad Date", "Tue, 07 Jul 2010 21:53:04 GMT"] {
            assert_eq!(code(good, bad), "AccessDenied", "{bad}");
        }
        assert!(check(&HeaderMap::new()).is_ok(), "anonymous");
    }
}
