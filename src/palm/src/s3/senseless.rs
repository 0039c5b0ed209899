//! What makes no sense of a read: headers with dates that are none, ranges that are none or several, which HTTP says to pass over
//! (RFC 9110, sections 13.1.3, 13.1.4 and 14.2), sizes of pages that are empty, and a `response-expires` that is no date, which is
//! answered as it is. AWS takes them; s3s refuses the request.
//!
//! They may be signed, so they cannot just be taken out. Such a request is shown to s3s as it came, which verifies it and
//! asks the gate; what was let in is sent again without them, vouched for by its [`Signer`].

use std::sync::{Arc, OnceLock};

use http::header::{AUTHORIZATION, EXPIRES, HeaderName, IF_MODIFIED_SINCE, IF_UNMODIFIED_SINCE, RANGE};
use http::{HeaderMap, HeaderValue, Method, Request, Response, Uri};
use s3s::Body;
use s3s::auth::Credentials;
use s3s::dto::{Range, Timestamp, TimestampFormat};

use super::access::{Query, SIGV4, Signer};
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

/// Parameters with the size of a page, or where it begins, that mean nothing when they are empty.
const COUNTS: [&str; 4] = ["max-keys", "max-parts", "max-uploads", "part-number-marker"];
/// The parameter that sets `Expires` of an answer.
const EXPIRY: &str = "response-expires";

/// What of a read is to be passed over.
#[derive(Debug, Default)]
pub struct Senseless {
    headers: Vec<HeaderName>,
    parameters: Vec<&'static str>,
    /// A `response-expires` that is no date.
    expires: Option<String>,
}

/// What of a request is to be passed over, if anything.
pub fn find<B>(request: &Request<B>) -> Option<Senseless> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return None;
    }
    let is_senseless = |name: &HeaderName| {
        let Some(value) = request.headers().get(name) else { return false };
        let Ok(text) = value.to_str() else { return true };
        if *name == RANGE { Range::parse(text).is_err() } else { !is_date(text) }
    };
    let headers: Vec<_> = [IF_MODIFIED_SINCE, IF_UNMODIFIED_SINCE, RANGE].into_iter().filter(is_senseless).collect();
    let query = Query::parse(request.uri().query().unwrap_or_default());
    let mut parameters: Vec<_> = COUNTS.into_iter().filter(|name| query.get(name) == Some("")).collect();
    let expires = query.get(EXPIRY).filter(|text| !is_date(text)).map(str::to_owned);
    parameters.extend(expires.is_some().then_some(EXPIRY));
    let is_found = !(headers.is_empty() && parameters.is_empty());
    is_found.then_some(Senseless { headers, parameters, expires })
}

fn is_date(text: &str) -> bool {
    Timestamp::parse(TimestampFormat::HttpDate, text).is_ok()
}

/// Answers a read without it.
pub async fn pass_over(service: &Service, mut request: Request<Body>, what: Senseless) -> Response<Body> {
    let mut without = Request::new(Body::empty());
    *without.method_mut() = request.method().clone();
    *without.uri_mut() = unsigned(request.uri(), &what.parameters);
    *without.headers_mut() = bare(request.headers(), &what.headers);
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
    let mut answer = service.dispatch(without).await;
    let expires = what.expires.and_then(|text| HeaderValue::try_from(text).ok());
    if let Some(expires) = expires.filter(|_| answer.status().is_success()) {
        answer.headers_mut().insert(EXPIRES, expires);
    }
    answer
}

fn bare(headers: &HeaderMap, without: &[HeaderName]) -> HeaderMap {
    let kept = headers.iter().filter(|(name, _)| **name != AUTHORIZATION && !without.contains(name));
    kept.map(|(name, value)| (name.clone(), value.clone())).collect()
}

/// A URL without the signature it may carry, and without these parameters.
fn unsigned(uri: &Uri, without: &[&str]) -> Uri {
    let is_kept = |pair: &&str| {
        let name = pair.split('=').next().unwrap_or_default();
        name != "X-Amz-Signature" && !without.contains(&name)
    };
    let query = uri.query().unwrap_or_default().split('&').filter(is_kept);
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
            find(&request).is_some()
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
        assert_eq!(unsigned(&uri, &[]), "/b/a%20b?X-Amz-Date=d&versionId=1");
        let uri: Uri = "/b?list-type=2&max-keys=&prefix=max-keys=".parse().expect("uri");
        assert_eq!(unsigned(&uri, &["max-keys"]), "/b?list-type=2&prefix=max-keys=");
    }

    /// Scenario: clients leave a parameter empty that others fill in. Danger: one with a meaning is dropped, and a page is longer than
    /// was asked for. Expected: only those that say nothing.
    #[test]
    fn only_empty_counts_are_passed_over() {
        let found =
            |uri: &str| find(&Request::builder().uri(uri).body(()).expect("request")).map(|what| what.parameters);
        assert_eq!(found("/b?list-type=2&max-keys="), Some(vec!["max-keys"]));
        assert_eq!(
            found("/b/k?uploadId=1&max-parts=&part-number-marker"),
            Some(vec!["max-parts", "part-number-marker"])
        );
        assert_eq!(found("/b/k?response-expires=soon"), Some(vec![EXPIRY]));
        for sensible in [
            "/b?max-keys=0",
            "/b?max-keys=x",
            "/b?prefix=",
            "/b/k?response-expires=Thu,%2001%20Jan%201970%2000:00:00%20GMT",
        ] {
            assert_eq!(found(sensible), None, "{sensible}");
        }
    }
}
