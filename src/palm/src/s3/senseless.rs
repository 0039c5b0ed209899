//! Headers of a read that make no sense: dates that are none, ranges that are none or several. HTTP says to pass over them
//! (RFC 9110, sections 13.1.3, 13.1.4 and 14.2) and so does AWS; s3s refuses the request.
//!
//! They may be signed, so they cannot just be taken out. Such a request is shown to s3s as it came, which verifies it and
//! asks the gate; what was let in is sent again without them, vouched for by its [`Signer`].

use std::sync::{Arc, OnceLock};

use http::header::{AUTHORIZATION, HeaderName, IF_MODIFIED_SINCE, IF_UNMODIFIED_SINCE, RANGE};
use http::{HeaderMap, Method, Request, Response, Uri};
use s3s::Body;
use s3s::auth::Credentials;
use s3s::dto::{Range, Timestamp, TimestampFormat};

use super::access::{SIGV4, Signer};
use super::server::Service;

/// Where the gate leaves who it let in; among a request's extensions.
#[derive(Debug, Clone, Default)]
pub struct Admission(Arc<OnceLock<Option<Credentials>>>);

impl Admission {
    /// The gate let a request in: of whom, or of nobody in particular.
    pub fn grant(&self, credentials: Option<&Credentials>) {
        // A request passes the gate once.
        let _ = self.0.set(credentials.cloned());
    }
}

/// The headers of a read that are to be passed over.
pub fn find<B>(request: &Request<B>) -> Vec<HeaderName> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return Vec::new();
    }
    let is_senseless = |name: &HeaderName| {
        let Some(value) = request.headers().get(name) else { return false };
        let Ok(text) = value.to_str() else { return true };
        if *name == RANGE {
            Range::parse(text).is_err()
        } else {
            Timestamp::parse(TimestampFormat::HttpDate, text).is_err()
        }
    };
    [IF_MODIFIED_SINCE, IF_UNMODIFIED_SINCE, RANGE].into_iter().filter(is_senseless).collect()
}

/// Answers a read without these headers.
pub async fn pass_over(service: &Service, mut request: Request<Body>, names: &[HeaderName]) -> Response<Body> {
    let mut without = Request::new(Body::empty());
    *without.method_mut() = request.method().clone();
    *without.uri_mut() = unsigned(request.uri());
    *without.headers_mut() = bare(request.headers(), names);
    *without.extensions_mut() = request.extensions().clone();
    let is_presigned = !request.headers().contains_key(AUTHORIZATION);
    let admission = Admission::default();
    request.extensions_mut().insert(admission.clone());
    let answer = service.dispatch(request).await;
    let Some(credentials) = admission.0.get().filter(|_| answer.status().is_client_error()) else { return answer };
    if let Some(credentials) = credentials.clone() {
        let by = if is_presigned { "REST-QUERY-STRING" } else { "REST-HEADER" };
        without.extensions_mut().insert(Signer { credentials, by, version: SIGV4 });
    }
    service.dispatch(without).await
}

fn bare(headers: &HeaderMap, without: &[HeaderName]) -> HeaderMap {
    let kept = headers.iter().filter(|(name, _)| **name != AUTHORIZATION && !without.contains(name));
    kept.map(|(name, value)| (name.clone(), value.clone())).collect()
}

/// A URL without the signature it may carry.
fn unsigned(uri: &Uri) -> Uri {
    let query = uri.query().unwrap_or_default().split('&').filter(|pair| !pair.starts_with("X-Amz-Signature="));
    let target = format!("{}?{}", uri.path(), query.collect::<Vec<_>>().join("&"));
    target.parse().unwrap_or_else(|_| uri.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: caches and players send what they like. Danger: a header that makes sense is dropped, and a client that
    /// has the object gets it again, or one that asked for a piece gets all. Expected: only nonsense is found.
    #[test]
    fn only_nonsense_is_passed_over() {
        let found = |name: HeaderName, value: &'static str| {
            let request = Request::builder().uri("/b/k").header(name, value).body(()).expect("request");
            !find(&request).is_empty()
        };
        for date in ["Sat, 29 Oct 1994 19:43:31 GMT", "Thu, 01 Jan 1970 00:00:00 GMT"] {
            assert!(!found(IF_MODIFIED_SINCE, date) && !found(IF_UNMODIFIED_SINCE, date), "{date}");
        }
        for date in ["", "yesterday", "1994-10-29", "0"] {
            assert!(found(IF_MODIFIED_SINCE, date) && found(IF_UNMODIFIED_SINCE, date), "{date}");
        }
        for range in ["bytes=0-0", "bytes=5-", "bytes=-5"] {
            assert!(!found(RANGE, range), "{range}");
        }
        for range in ["", "0-5", "bytes=", "bytes=a-b", "bytes=0-1,3-4", "lines=1-2"] {
            assert!(found(RANGE, range), "{range}");
        }
    }

    #[test]
    fn a_url_loses_its_signature_only() {
        let uri: Uri = "/b/a%20b?X-Amz-Date=d&X-Amz-Signature=s&versionId=1".parse().expect("uri");
        assert_eq!(unsigned(&uri), "/b/a%20b?X-Amz-Date=d&versionId=1");
    }
}
