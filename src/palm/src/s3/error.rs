//! The one table from what went wrong to S3's codes and statuses
//! (<https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html>).
//!
//! 5xx means that the outcome is unknown, every other answer that nothing has changed.

use http::header::{ALLOW, CONTENT_RANGE, CONTENT_TYPE, LAST_MODIFIED, RETRY_AFTER};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use palm_core::s3::Refusal;
use palm_core::s3::version::is_marker;
use s3s::{S3Error, S3ErrorCode};

use crate::object::{BodyError, ObjectError, Rejection};

/// Seconds after which an overloaded or waiting peer should be asked again.
const RETRY_AFTER_SECONDS: u64 = 1;

const VERSION_ID: HeaderName = HeaderName::from_static("x-amz-version-id");
const DELETE_MARKER: HeaderName = HeaderName::from_static("x-amz-delete-marker");

/// One line of the table: code, status where s3s does not know the code, and text where s3s has none.
struct Answer {
    code: S3ErrorCode,
    status: Option<StatusCode>,
    text: Option<String>,
}

impl Answer {
    /// A code s3s knows, with AWS's text.
    fn known(code: S3ErrorCode) -> Self {
        Self { code, status: None, text: None }
    }

    /// A code s3s knows, with our own text.
    fn said(code: S3ErrorCode, text: impl Into<String>) -> Self {
        Self { code, status: None, text: Some(text.into()) }
    }

    /// A code s3s does not know.
    fn custom(code: &'static str, status: StatusCode, text: impl Into<String>) -> Self {
        Self { code: S3ErrorCode::Custom(code.into()), status: Some(status), text: Some(text.into()) }
    }

    fn into_error(self) -> S3Error {
        let retry = matches!(self.code, S3ErrorCode::SlowDown | S3ErrorCode::ServiceUnavailable);
        let mut error = S3Error::new(self.code);
        if let Some(status) = self.status {
            error.set_status_code(status);
        }
        if let Some(text) = self.text {
            error.set_message(text);
        }
        if retry {
            error.set_headers(with_xml([(RETRY_AFTER, HeaderValue::from(RETRY_AFTER_SECONDS))]));
        }
        error
    }
}

/// Headers for an error: s3s replaces its own by these, so the content type has to be among them.
fn with_xml<const N: usize>(headers: [(HeaderName, HeaderValue); N]) -> HeaderMap {
    let xml = (CONTENT_TYPE, HeaderValue::from_static("application/xml"));
    headers.into_iter().chain([xml]).collect()
}

fn answer_rejection(rejection: Rejection) -> Answer {
    match rejection {
        Rejection::BadDigest => {
            Answer::said(S3ErrorCode::BadDigest, "The Content-MD5 you specified did not match what we received.")
        }
        Rejection::BadPayloadHash => Answer::custom(
            "XAmzContentSHA256Mismatch",
            StatusCode::BAD_REQUEST,
            "The provided 'x-amz-content-sha256' header does not match what was computed.",
        ),
        Rejection::BadChecksum => {
            Answer::said(S3ErrorCode::BadDigest, "The checksum you specified did not match the calculated checksum.")
        }
        Rejection::BadSignature => Answer::known(S3ErrorCode::SignatureDoesNotMatch),
        Rejection::Malformed => Answer::custom(
            "MalformedTrailerError",
            StatusCode::BAD_REQUEST,
            "The request contained trailing data that was not well-formed or did not conform to our published schema.",
        ),
        Rejection::TooLarge => Answer::known(S3ErrorCode::EntityTooLarge),
    }
}

fn answer_body(error: &BodyError) -> Answer {
    match error {
        BodyError::Incomplete => Answer::known(S3ErrorCode::IncompleteBody),
        BodyError::Refused(rejection) => answer_rejection(*rejection),
        BodyError::Unavailable(what) => Answer::said(S3ErrorCode::ServiceUnavailable, what.clone()),
    }
}

fn answer(error: &ObjectError) -> Answer {
    match error {
        ObjectError::NoSuchBucket => Answer::known(S3ErrorCode::NoSuchBucket),
        ObjectError::NoSuchKey => Answer::known(S3ErrorCode::NoSuchKey),
        ObjectError::Marker { named, .. } => refused(&is_marker(*named)),
        ObjectError::NoSuchUpload => Answer::known(S3ErrorCode::NoSuchUpload),
        ObjectError::BucketExists { owned: true } => Answer::known(S3ErrorCode::BucketAlreadyOwnedByYou),
        ObjectError::BucketExists { owned: false } => Answer::known(S3ErrorCode::BucketAlreadyExists),
        ObjectError::BucketNotEmpty => Answer::known(S3ErrorCode::BucketNotEmpty),
        ObjectError::PreconditionFailed => Answer::known(S3ErrorCode::PreconditionFailed),
        ObjectError::Conflict => Answer::known(S3ErrorCode::ConditionalRequestConflict),
        ObjectError::InvalidPart => Answer::known(S3ErrorCode::InvalidPart),
        ObjectError::InvalidPartOrder => Answer::known(S3ErrorCode::InvalidPartOrder),
        ObjectError::PartTooSmall => Answer::known(S3ErrorCode::EntityTooSmall),
        // Not a trailer here, but the size of the object to come.
        ObjectError::Mismatch(Rejection::Malformed) => Answer::said(
            S3ErrorCode::InvalidRequest,
            "The provided 'x-amz-mp-object-size' header value does not match what was computed.",
        ),
        ObjectError::Mismatch(rejection) => answer_rejection(*rejection),
        ObjectError::Refused(refusal) => refused(refusal),
        ObjectError::BadRange => Answer::known(S3ErrorCode::InvalidRange),
        ObjectError::Body(body) => answer_body(body),
        ObjectError::Overloaded => Answer::known(S3ErrorCode::SlowDown),
        ObjectError::PoolFull => {
            Answer::custom("InsufficientStorage", StatusCode::INSUFFICIENT_STORAGE, "The pool has no room left.")
        }
        ObjectError::Unavailable(what) => Answer::said(S3ErrorCode::ServiceUnavailable, what.clone()),
        ObjectError::Internal(_) => Answer::known(S3ErrorCode::InternalError),
    }
}

/// A rule of S3 that says no.
fn refused(refusal: &Refusal) -> Answer {
    let status = StatusCode::from_u16(refusal.status).unwrap_or(StatusCode::BAD_REQUEST);
    Answer::custom(refusal.code, status, refusal.message.clone())
}

/// What a client is told of a rule of S3 that says no.
pub fn of_refusal(refusal: &Refusal) -> S3Error {
    refused(refusal).into_error()
}

/// What a client is told. An internal error's text stays in our log: it may name paths or peers.
pub fn of(error: ObjectError) -> S3Error {
    if let ObjectError::Internal(what) = &error {
        tracing::error!(%what, "request failed on our side");
    }
    let mut told = answer(&error).into_error();
    if let ObjectError::Marker { version, named, modified_ms } = &error
        && let Ok(version) = HeaderValue::try_from(version.to_string())
    {
        let mut headers = with_xml([(VERSION_ID, version), (DELETE_MARKER, HeaderValue::from_static("true"))]);
        if *named {
            headers.insert(ALLOW, HeaderValue::from_static("DELETE"));
            headers.extend(super::http_date(*modified_ms).map(|date| (LAST_MODIFIED, date)));
        }
        told.set_headers(headers);
    }
    told.set_source(Box::new(error));
    told
}

/// A request that breaks a rule of the API: 400 with AWS's code and our text.
pub fn invalid_argument(text: impl Into<std::borrow::Cow<'static, str>>) -> S3Error {
    S3Error::with_message(S3ErrorCode::InvalidArgument, text)
}

/// A request that asks for two things at once, or for nothing: 400.
pub fn invalid_request(text: impl Into<std::borrow::Cow<'static, str>>) -> S3Error {
    S3Error::with_message(S3ErrorCode::InvalidRequest, text)
}

/// A feature PALM does not have: 501, never silently ignored.
pub fn not_implemented(text: impl Into<std::borrow::Cow<'static, str>>) -> S3Error {
    S3Error::with_message(S3ErrorCode::NotImplemented, text)
}

/// 416, with the length that a client needs to ask better.
pub fn bad_range(size: u64) -> S3Error {
    let mut error = S3Error::new(S3ErrorCode::InvalidRange);
    if let Ok(value) = HeaderValue::try_from(format!("bytes */{size}")) {
        error.set_headers(with_xml([(CONTENT_RANGE, value)]));
    }
    error
}

/// A part number the object does not have. AWS answers 416 `InvalidPartNumber`, which it documents nowhere; public suites
/// want this.
pub fn bad_part_number() -> S3Error {
    S3Error::with_message(S3ErrorCode::InvalidPart, "The requested partnumber is not satisfiable")
}

#[cfg(test)]
mod tests {
    use palm_core::s3::version::Name;

    use super::*;

    /// Scenario: each way an operation can fail reaches a client. Danger: an SDK decides by code and
    /// status whether to retry, so a wrong one loses or repeats a write. Expectation: AWS's pairs, for
    /// every variant (the match has no wildcard, so a new variant fails to compile in `answer`).
    #[test]
    fn every_error_has_its_code_and_status() {
        let body = |rejection| ObjectError::Body(BodyError::Refused(rejection));
        let table = [
            (ObjectError::NoSuchBucket, "NoSuchBucket", 404),
            (ObjectError::NoSuchKey, "NoSuchKey", 404),
            (ObjectError::Marker { named: false, version: Name::Null, modified_ms: 0 }, "NoSuchKey", 404),
            (ObjectError::Marker { named: true, version: Name::Null, modified_ms: 0 }, "MethodNotAllowed", 405),
            (ObjectError::NoSuchUpload, "NoSuchUpload", 404),
            (ObjectError::BucketExists { owned: true }, "BucketAlreadyOwnedByYou", 409),
            (ObjectError::BucketExists { owned: false }, "BucketAlreadyExists", 409),
            (ObjectError::BucketNotEmpty, "BucketNotEmpty", 409),
            (ObjectError::PreconditionFailed, "PreconditionFailed", 412),
            (ObjectError::Conflict, "ConditionalRequestConflict", 409),
            (ObjectError::InvalidPart, "InvalidPart", 400),
            (ObjectError::InvalidPartOrder, "InvalidPartOrder", 400),
            (ObjectError::PartTooSmall, "EntityTooSmall", 400),
            (ObjectError::Mismatch(Rejection::BadChecksum), "BadDigest", 400),
            (ObjectError::Mismatch(Rejection::Malformed), "InvalidRequest", 400),
            (ObjectError::BadRange, "InvalidRange", 416),
            (ObjectError::Body(BodyError::Incomplete), "IncompleteBody", 400),
            (ObjectError::Body(BodyError::Unavailable("one short".into())), "ServiceUnavailable", 503),
            (body(Rejection::BadDigest), "BadDigest", 400),
            (body(Rejection::BadPayloadHash), "XAmzContentSHA256Mismatch", 400),
            (body(Rejection::BadChecksum), "BadDigest", 400),
            (body(Rejection::BadSignature), "SignatureDoesNotMatch", 403),
            (body(Rejection::Malformed), "MalformedTrailerError", 400),
            (body(Rejection::TooLarge), "EntityTooLarge", 400),
            (ObjectError::Overloaded, "SlowDown", 503),
            (ObjectError::PoolFull, "InsufficientStorage", 507),
            (ObjectError::Unavailable("two voters missing".into()), "ServiceUnavailable", 503),
            (ObjectError::Internal("disk /srv/a".into()), "InternalError", 500),
        ];
        for (error, code, status) in table {
            let said = format!("{error:?}");
            let told = of(error);
            assert_eq!(told.code().as_str(), code, "{said}");
            assert_eq!(told.status_code().map(|status| status.as_u16()), Some(status), "{said}");
            assert!(!told.message().unwrap_or_default().contains("/srv"), "{said}");
            let retry = told.headers().is_some_and(|headers| headers.contains_key(RETRY_AFTER));
            assert_eq!(retry, status == 503, "{said}");
        }
    }

    #[test]
    fn an_unsatisfiable_range_tells_the_length() {
        let told = bad_range(10);
        assert_eq!(told.status_code(), Some(StatusCode::RANGE_NOT_SATISFIABLE));
        let headers = told.headers().expect("headers");
        assert_eq!(headers[CONTENT_RANGE], "bytes */10");
        assert_eq!(headers[CONTENT_TYPE], "application/xml", "the error is still XML");
        assert_eq!(bad_part_number().status_code(), Some(StatusCode::BAD_REQUEST));
    }
}
