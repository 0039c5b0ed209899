//! Authorization headers and presigned URLs that are none: what AWS says of those that s3s would only call invalid, or take for
//! unsigned
//! (<https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-auth-using-authorization-header.html>,
//! <https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-query-string-auth.html>,
//! <https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html>).

use std::borrow::Cow;

use http::header::AUTHORIZATION;
use http::{HeaderMap, StatusCode};
use percent_encoding::percent_decode_str;
use s3s::{S3Error, S3ErrorCode, S3Result};
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;
use time::{Duration, OffsetDateTime, PrimitiveDateTime};

use super::error;

/// The one mechanism that is spoken.
const SIGV4: &str = "AWS4-HMAC-SHA256";
/// What a header of it is made of.
const COMPONENTS: [&str; 3] = ["Credential", "SignedHeaders", "Signature"];
/// `20261122`.
const DAY_LEN: usize = 8;
/// Clocks may differ by this (`RequestTimeTooSkewed`).
const CLOCKS_AGREE: Duration = Duration::minutes(15);
/// What a scope ends with.
const SCOPE_END: &str = "aws4_request";
/// The services that are here.
const SERVICES: [&str; 2] = ["s3", "sts"];

/// What a presigned URL is made of, all of it.
const PARAMETERS: [&str; 6] =
    ["X-Amz-Algorithm", "X-Amz-Credential", "X-Amz-Signature", "X-Amz-Date", "X-Amz-SignedHeaders", "X-Amz-Expires"];
/// Each of the first of them says that a URL is meant to be presigned.
const SAYING: usize = 3;
/// A presigned URL is good for a week at most.
const EXPIRES_MAX_SECONDS: i64 = 7 * 24 * 3600;

/// Refuses a presigned URL that lacks something, or is of another mechanism, for another service or for too long.
pub fn check_query(query: &str) -> S3Result<()> {
    let value = |name: &str| query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
    let values = PARAMETERS.map(|name| value(name).unwrap_or_default());
    if values[..SAYING].iter().all(|value| value.is_empty()) {
        return Ok(());
    }
    let [algorithm, credential, _, _, _, expires] = values;
    if !algorithm.is_empty() && algorithm != SIGV4 {
        return Err(wrong_query(format!("Error parsing the X-Amz-Algorithm parameter: only {SIGV4} is supported")));
    }
    if values.iter().any(|value| value.is_empty()) {
        return Err(wrong_query(
            "Query-string authentication version 4 requires the X-Amz-Algorithm, X-Amz-Credential, X-Amz-Signature, \
             X-Amz-Date, X-Amz-SignedHeaders, and X-Amz-Expires parameters.",
        ));
    }
    let credential = percent_decode_str(credential).decode_utf8_lossy();
    if credential.rsplit('/').nth(1).is_some_and(|service| !SERVICES.contains(&service)) {
        return Err(wrong_query("Error parsing the X-Amz-Credential parameter: only the service s3 is here"));
    }
    check_expiry(expires)
}

fn check_expiry(expires: &str) -> S3Result<()> {
    let why = match expires.parse::<i64>() {
        Err(_) => "X-Amz-Expires should be a number",
        Ok(..=0) => "X-Amz-Expires must be at least 1",
        Ok(1..=EXPIRES_MAX_SECONDS) => return Ok(()),
        Ok(_) => {
            "X-Amz-Expires must be less than a week (in seconds); that is, the given X-Amz-Expires must be less than \
             604800 seconds"
        }
    };
    // AWS says 400. To public suites such a link is 403, as one that has expired is.
    let mut told = wrong_query(why);
    told.set_status_code(StatusCode::FORBIDDEN);
    Err(told)
}

fn wrong_query(why: impl Into<Cow<'static, str>>) -> S3Error {
    S3Error::with_message(S3ErrorCode::AuthorizationQueryParametersError, why)
}

/// Refuses a header that cannot be a signature of version 4. One that is empty is as good as none where nothing is public, and
/// is told so; whether a signature is right is not decided here.
pub fn check(headers: &HeaderMap, now: OffsetDateTime) -> S3Result<()> {
    let Some(value) = headers.get(AUTHORIZATION) else {
        return Ok(());
    };
    let text = value.to_str().unwrap_or("?").trim();
    if text.is_empty() {
        return Err(S3Error::new(S3ErrorCode::AccessDenied));
    }
    let Some((mechanism, rest)) = text.split_once(' ') else {
        return Err(error::invalid_argument(
            "Authorization header is invalid -- one and only one ' ' (space) required.",
        ));
    };
    match (mechanism, rest) {
        (SIGV4, rest) => {
            let credential = credential_of(rest)?;
            match headers.get("x-amz-date").and_then(|date| date.to_str().ok()) {
                Some(date) if is_date(date) => check_scope(credential, date, now)?,
                _ => {
                    return Err(S3Error::with_message(
                        S3ErrorCode::AccessDenied,
                        "AWS authentication requires a valid Date or x-amz-date header",
                    ));
                }
            }
            check_payload_hash(headers)
        }
        ("AWS", rest) if rest.contains(':') => Err(error::invalid_request(
            "The authorization mechanism you have provided is not supported. Please use AWS4-HMAC-SHA256.",
        )),
        ("AWS", _) => {
            Err(error::invalid_argument("AWS authorization header is invalid. Expected AwsAccessKeyId:signature"))
        }
        _ => Err(error::invalid_argument("Unsupported Authorization Type")),
    }
}

fn malformed(why: &str) -> S3Error {
    let message = format!("The authorization header is malformed; {why}");
    S3Error::with_message(S3ErrorCode::AuthorizationHeaderMalformed, message)
}

/// The credential of a header that has all its components.
fn credential_of(rest: &str) -> S3Result<&str> {
    let components: Vec<&str> = rest.split(',').map(str::trim).collect();
    if components.len() < COMPONENTS.len() {
        return Err(malformed(
            "the authorization header requires three components: Credential, SignedHeaders, and Signature.",
        ));
    }
    let mut named = Vec::with_capacity(components.len());
    for component in components {
        let told = || malformed(&format!("the authorization component \"{component}\" is malformed."));
        named.push(component.split_once('=').ok_or_else(told)?);
    }
    let value = |wanted: &str| named.iter().find(|(name, value)| *name == wanted && !value.is_empty());
    match COMPONENTS.iter().find(|name| value(name).is_none()) {
        Some(missing) => Err(malformed(&format!("missing {missing}."))),
        None => Ok(value(COMPONENTS[0]).map_or("", |(_, credential)| credential)),
    }
}

/// Checks `key/day/region/service/aws4_request` for a request of this date. A key may hold slashes; the rest may not. The region may be
/// any: tools have their own idea of it, and a pool has but one.
fn check_scope(credential: &str, date: &str, now: OffsetDateTime) -> S3Result<()> {
    let parts: Vec<&str> = credential.rsplitn(5, '/').collect();
    let &[end, service, _region, day, key] = parts.as_slice() else { return Err(no_credential()) };
    if key.is_empty() {
        return Err(no_credential());
    }
    if end != SCOPE_END {
        return Err(malformed(&format!("incorrect terminal \"{end}\". This endpoint uses \"{SCOPE_END}\".")));
    }
    if !SERVICES.contains(&service) {
        return Err(malformed(&format!("incorrect service \"{service}\". This endpoint belongs to \"s3\".")));
    }
    if day.len() != DAY_LEN || !day.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(malformed(&format!(
            "incorrect date format \"{day}\". This date in the credential must be in the format \"yyyyMMdd\"."
        )));
    }
    // A clock that is off is another matter, and s3s tells it.
    if !date.starts_with(day) && is_near(date, now) {
        return Err(malformed("Invalid credential date. Date is not the same as X-Amz-Date."));
    }
    Ok(())
}

fn no_credential() -> S3Error {
    malformed("the Credential is mal-formed; expecting \"<YOUR-AKID>/YYYYMMDD/REGION/SERVICE/aws4_request\".")
}

/// What the signature covers of the body.
fn check_payload_hash(headers: &HeaderMap) -> S3Result<()> {
    let Some(value) = headers.get("x-amz-content-sha256") else { return Ok(()) };
    let text = value.to_str().unwrap_or_default();
    let is_hash = text.len() == 2 * 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_hash || text == "UNSIGNED-PAYLOAD" || text.starts_with("STREAMING-") {
        return Ok(());
    }
    Err(error::invalid_argument(
        "x-amz-content-sha256 must be UNSIGNED-PAYLOAD, STREAMING-UNSIGNED-PAYLOAD-TRAILER, \
         STREAMING-AWS4-HMAC-SHA256-PAYLOAD, STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER or a valid sha256 value.",
    ))
}

/// Whether a date is of a clock that agrees with this one.
fn is_near(date: &str, now: OffsetDateTime) -> bool {
    const FORM: &[BorrowedFormatItem<'_>] = format_description!("[year][month][day]T[hour][minute][second]Z");
    PrimitiveDateTime::parse(date, FORM).is_ok_and(|date| (date.assume_utc() - now).abs() <= CLOCKS_AGREE)
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
    use time::macros::datetime;

    use super::*;

    /// Scenario: headers of other mechanisms, broken ones, none. Danger: a client that gets a vague 400 tries its key again and
    /// again, and an empty header is taken for a signature. Expectation: AWS's codes; what may be a signature passes.
    #[test]
    fn what_is_no_signature_is_told_so() {
        let good = "AWS4-HMAC-SHA256 Credential=K/20261122/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=ab";
        let now = datetime!(2026-11-22 23:55 UTC);
        let told = |header: &str, date: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(AUTHORIZATION, header.parse().expect("header"));
            headers.insert("x-amz-date", date.parse().expect("header"));
            check(&headers, now).err()
        };
        let code = |header: &str, date: &str| {
            told(header, date).map_or("taken".to_owned(), |told| told.code().as_str().to_owned())
        };
        let date = "20261122T235959Z";
        for (header, expected) in [
            (good, "taken"),
            (&good.replace(", ", ","), "taken"),
            ("", "AccessDenied"),
            ("AWS4-HMAC-SHA256", "InvalidArgument"),
            ("AWS4-HMAC-SHA256 Credential=K", "AuthorizationHeaderMalformed"),
            (&good.replace("Credential=K", "Credential="), "AuthorizationHeaderMalformed"),
            (&good.replace("20261122", "20261121"), "AuthorizationHeaderMalformed"),
            (&good.replace("Signature=ab", "Signature="), "AuthorizationHeaderMalformed"),
            (&good.replace("/s3/", ""), "AuthorizationHeaderMalformed"),
            (&good.replace("/s3/", "/ec2/"), "AuthorizationHeaderMalformed"),
            (&good.replace("aws4_request", "aws5_request"), "AuthorizationHeaderMalformed"),
            (&good.replace("Credential=K", "Credential=K/with/slashes"), "taken"),
            ("AWS key:signature", "InvalidRequest"),
            ("AWS HAHAHA", "InvalidArgument"),
            ("Bearer token", "InvalidArgument"),
        ] {
            assert_eq!(code(header, date), expected, "{header}");
        }
        for (header, why) in [
            (good.replace("SignedHeaders=host, ", ""), "requires three components"),
            (good.replace("SignedHeaders=", "SignedHeaders-"), "\"SignedHeaders-host\" is malformed"),
            (good.replace("Signature=ab", "Signature="), "missing Signature."),
            (good.replace("Credential=K", "Other=K"), "missing Credential."),
            (good.replace("K/20261122/", ""), "the Credential is mal-formed"),
            (good.replace("20261122", "2026-11-22"), "incorrect date format \"2026-11-22\""),
            (good.replace("20261122", "20261121"), "Date is not the same as X-Amz-Date"),
        ] {
            let message = told(&header, date).and_then(|told| told.message().map(str::to_owned)).unwrap_or_default();
            assert!(message.contains(why), "{header}: {message}");
        }
        for bad in ["", "Bad Date", "Tue, 07 Jul 2010 21:53:04 GMT"] {
            assert_eq!(code(good, bad), "AccessDenied", "{bad}");
        }
        for (header, off) in [(good, "20261123T235959Z"), (good, "19500707T215304Z"), (good, "99990707T215304Z")] {
            assert_eq!(code(header, off), "taken", "{off}: a clock that is off");
        }
        assert_eq!(
            code(good, "20261123T000459Z"),
            "AuthorizationHeaderMalformed",
            "another day, and a clock that is right"
        );
        assert!(check(&HeaderMap::new(), now).is_ok(), "anonymous");
    }

    /// Scenario: links that lack a part, or have a wrong one. Danger: one that lacks its signature is taken for a request of nobody, and
    /// told that it may not. Expectation: what is wrong with the link; other queries pass.
    #[test]
    fn what_is_no_presigned_url_is_told_so() {
        let good = "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=K%2F20261122%2Fus-east-1%2Fs3%2Faws4_request\
                    &X-Amz-Date=20261122T235959Z&X-Amz-Expires=604800&X-Amz-SignedHeaders=host&X-Amz-Signature=ab";
        let status = |query: &str| match check_query(query) {
            Ok(()) => 200,
            Err(told) => {
                assert_eq!(told.code().as_str(), "AuthorizationQueryParametersError", "{query}");
                told.status_code().map_or(0, |status| status.as_u16())
            }
        };
        for (query, expected) in [
            (good, 200),
            ("", 200),
            ("list-type=2&X-Amz-Date=20261122T235959Z", 200),
            (&good.replace("SHA256", "SHA512"), 400),
            (&good.replace("%2Fs3%2F", "%2Fec2%2F"), 400),
            (&good.replace("604800", "604801"), 403),
            (&good.replace("604800", "0"), 403),
            (&good.replace("604800", "-7"), 403),
            (&good.replace("604800", "week"), 403),
        ] {
            assert_eq!(status(query), expected, "{query}");
        }
        for name in PARAMETERS {
            assert_eq!(status(&good.replace(&format!("{name}="), "other=")), 400, "{name} is missing");
        }
    }
}
