//! Sub-resources that do not have a method. s3s takes such a request for one to the bucket or the object itself, so that
//! `DELETE /bucket?logging` would delete the bucket; AWS answers 405
//! (<https://docs.aws.amazon.com/AmazonS3/latest/API/API_Operations_Amazon_Simple_Storage_Service.html>).

use http::{Method, Request};
use s3s::{S3Error, S3ErrorCode, S3Result};

use super::hosts::Place;

/// What can be done to a sub-resource besides reading it.
type Methods = &'static [Method];

const NONE: Methods = &[];
const PUT: Methods = &[Method::PUT];
const BOTH: Methods = &[Method::PUT, Method::DELETE];

/// Names, what a bucket's takes, and what an object's takes.
const SUBRESOURCES: [(&str, Methods, Methods); 36] = [
    ("abac", PUT, NONE),
    ("accelerate", PUT, NONE),
    ("acl", PUT, PUT),
    ("analytics", BOTH, NONE),
    ("annotation", NONE, BOTH),
    ("attributes", NONE, NONE),
    ("cors", BOTH, NONE),
    ("delete", NONE, NONE),
    ("encryption", BOTH, PUT),
    ("intelligent-tiering", BOTH, NONE),
    ("inventory", BOTH, NONE),
    ("legal-hold", NONE, PUT),
    ("lifecycle", BOTH, NONE),
    ("location", NONE, NONE),
    ("logging", PUT, NONE),
    ("metrics", BOTH, NONE),
    ("notification", PUT, NONE),
    ("object-lock", PUT, NONE),
    ("ownershipControls", BOTH, NONE),
    ("policy", BOTH, NONE),
    ("policyStatus", NONE, NONE),
    ("publicAccessBlock", BOTH, NONE),
    ("renameObject", NONE, PUT),
    ("replication", BOTH, NONE),
    ("requestPayment", PUT, NONE),
    ("restore", NONE, NONE),
    ("retention", NONE, PUT),
    ("select", NONE, NONE),
    ("session", NONE, NONE),
    ("tagging", BOTH, BOTH),
    ("torrent", NONE, NONE),
    ("uploadId", NONE, BOTH),
    ("uploads", NONE, NONE),
    ("versioning", PUT, NONE),
    ("versions", NONE, NONE),
    ("website", BOTH, NONE),
];

/// 405 for a PUT or DELETE of what has none.
pub fn check<B>(request: &Request<B>, place: &Place) -> S3Result<()> {
    let method = request.method();
    if !matches!(*method, Method::PUT | Method::DELETE) {
        return Ok(());
    }
    let of_object = place.names_object(request.uri().path());
    let lacks_it = |pair: &str| {
        let name = pair.split('=').next().unwrap_or_default();
        let known = SUBRESOURCES.iter().find(|(known, ..)| *known == name);
        known.is_some_and(|(_, bucket, object)| !(if of_object { object } else { bucket }).contains(method))
    };
    if request.uri().query().is_some_and(|query| query.split('&').any(lacks_it)) {
        return Err(S3Error::new(S3ErrorCode::MethodNotAllowed));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: a script deletes a setting that can only be put. Danger: the bucket or the object goes in its place. Expectation: 405, and
    /// everything that S3 has is let through.
    #[test]
    fn what_has_no_method_is_refused() {
        let taken = |method: Method, uri: &str, place: &Place| {
            let request = Request::builder().method(method).uri(uri).body(()).expect("request");
            check(&request, place).is_ok()
        };
        for uri in [
            "/b?acl",
            "/b?logging",
            "/b/?versioning=",
            "/b?x=1&uploads",
            "/b/k?retention",
            "/b/k?acl",
            "/b/k?cors",
            "/b?uploadId=1",
        ] {
            assert!(!taken(Method::DELETE, uri, &Place::Path), "{uri}");
        }
        for uri in [
            "/b",
            "/b/k",
            "/b?cors",
            "/b/k?tagging",
            "/b/k?versionId=acl",
            "/b/k?uploadId=1",
            "/b/acl?x-id=DeleteObject",
        ] {
            assert!(taken(Method::DELETE, uri, &Place::Path), "{uri}");
        }
        for uri in ["/b?location", "/b/k?torrent", "/b/k?policy", "/b/k?uploads"] {
            assert!(!taken(Method::PUT, uri, &Place::Path), "{uri}");
            assert!(taken(Method::GET, uri, &Place::Path), "{uri}");
        }
        let host = Place::Bucket("b".to_owned());
        assert!(taken(Method::DELETE, "/?cors", &host) && !taken(Method::DELETE, "/k?cors", &host));
    }
}
