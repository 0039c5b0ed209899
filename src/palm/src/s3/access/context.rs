//! What policies may ask about a request
//! (<https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazons3.html#amazons3-policy-keys>).
//!
//! A key that is left out makes a `Deny` on it silent, so whatever the request says is here, whether its action knows the
//! key or not.

use http::HeaderMap;
use palm_core::s3::account::Account;
use palm_core::s3::calendar::{iso_date, parse_iso};
use palm_core::s3::policy::Context;
use palm_core::s3::policy::operation::Extras;
use palm_core::s3::tags::{self, Tag};

use super::{Asker, Query};

/// Headers whose value is the value of the key `s3:` and their name.
const HEADERS: &[&str] = &[
    "x-amz-acl",
    "x-amz-content-sha256",
    "x-amz-grant-full-control",
    "x-amz-grant-read",
    "x-amz-grant-read-acp",
    "x-amz-grant-write",
    "x-amz-grant-write-acp",
    "x-amz-metadata-directive",
    "x-amz-object-ownership",
    "x-amz-server-side-encryption",
    "x-amz-server-side-encryption-aws-kms-key-id",
    "x-amz-server-side-encryption-customer-algorithm",
    "x-amz-storage-class",
    "x-amz-website-redirect-location",
    "if-match",
    "if-none-match",
];

const LEGAL_HOLD: &str = "x-amz-object-lock-legal-hold";
const MODE: &str = "x-amz-object-lock-mode";
const RETAIN_UNTIL: &str = "x-amz-object-lock-retain-until-date";
const TAGGING: &str = "x-amz-tagging";

/// What `s3:signatureversion` says of `SigV4`.
pub const SIGV4: &str = "AWS4-HMAC-SHA256";

const DAY_MS: u64 = 24 * 60 * 60 * 1000;

/// The value of a header, where it is text.
pub fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// A time as `aws:CurrentTime` has it.
pub fn date(ms: u64) -> String {
    iso_date(ms)
}

/// What a request asks for besides its operation.
pub fn extras(headers: &HeaderMap, query: &Query) -> Extras {
    let is = |name: &str, value: &str| header(headers, name).is_some_and(|given| given.eq_ignore_ascii_case(value));
    let copies = headers.contains_key("x-amz-copy-source");
    Extras {
        version: query.get("versionId").is_some(),
        // The gate knows the source.
        source_version: false,
        acl: headers.keys().any(|name| name == "x-amz-acl" || name.as_str().starts_with("x-amz-grant-")),
        tagging: header(headers, TAGGING).is_some_and(|tags| !tags.is_empty())
            && (!copies || is("x-amz-tagging-directive", "REPLACE")),
        source_tagging: false,
        retention: headers.contains_key(MODE) || headers.contains_key(RETAIN_UNTIL),
        legal_hold: headers.contains_key(LEGAL_HOLD),
        bypass_governance: is("x-amz-bypass-governance-retention", "true"),
        object_lock: is("x-amz-bucket-object-lock-enabled", "true"),
        ownership: headers.contains_key("x-amz-object-ownership"),
    }
}

/// What every request says: who, when, how, and what stands in its headers and query.
pub fn of_request(asker: &Asker, now_ms: u64, query: &Query, headers: &HeaderMap) -> Context {
    let mut context = Context::default();
    asker.describe(&mut context);
    context.add("aws:CurrentTime", iso_date(now_ms));
    context.add("aws:EpochTime", (now_ms / 1000).to_string());
    for (key, name) in [("aws:UserAgent", "user-agent"), ("aws:Referer", "referer")] {
        if let Some(value) = header(headers, name) {
            context.add(key, value);
        }
    }
    if asker.access_key.is_some() {
        let presigned = query.get("X-Amz-Signature").is_some();
        // A `Signer` says itself how it signed.
        if presigned || headers.contains_key("authorization") {
            context.add("s3:signatureversion", SIGV4);
            context.add("s3:authType", if presigned { "REST-QUERY-STRING" } else { "REST-HEADER" });
        }
        if let Some(signed_ms) = query.get("X-Amz-Date").and_then(parse_basic) {
            context.add("s3:signatureAge", now_ms.saturating_sub(signed_ms).to_string());
        }
    }
    for (key, name) in [
        ("s3:prefix", "prefix"),
        ("s3:delimiter", "delimiter"),
        ("s3:max-keys", "max-keys"),
        ("s3:VersionId", "versionId"),
    ] {
        if let Some(value) = query.get(name) {
            context.add(key, value);
        }
    }
    of_headers(&mut context, headers, now_ms);
    context
}

/// What stands in the headers of a request, or in the fields of a form.
pub fn of_headers(context: &mut Context, headers: &HeaderMap, now_ms: u64) {
    for name in HEADERS {
        if let Some(value) = header(headers, name) {
            context.add(&format!("s3:{name}"), value);
        }
    }
    if let Some(source) = header(headers, "x-amz-copy-source") {
        let source = source.split_once("?versionId=").map_or(source, |(source, _)| source);
        let decoded = Query::parse(&format!("source={}", source.replace('+', "%2B").replace('&', "%26")));
        let decoded = decoded.get("source").unwrap_or_default();
        context.add("s3:x-amz-copy-source", decoded.strip_prefix('/').unwrap_or(decoded));
    }
    if let Some(hold) = header(headers, LEGAL_HOLD) {
        context.add("s3:object-lock-legal-hold", hold);
    }
    of_retention(context, (header(headers, MODE), header(headers, RETAIN_UNTIL)), now_ms);
    let given = header(headers, TAGGING).and_then(|given| tags::parse_header(given).ok());
    of_tags(context, given.iter().flatten().map(|(name, value)| (name.as_str(), value.as_str())));
}

/// Retention that a request brings.
pub fn of_retention(context: &mut Context, (mode, until): (Option<&str>, Option<&str>), now_ms: u64) {
    if let Some(mode) = mode {
        context.add("s3:object-lock-mode", mode);
    }
    if let Some(until) = until {
        context.add("s3:object-lock-retain-until-date", until);
        if let Some(until_ms) = parse_iso(until) {
            let days = until_ms.saturating_sub(now_ms).div_ceil(DAY_MS);
            context.add("s3:object-lock-remaining-retention-days", days.to_string());
        }
    }
}

/// Tags that a request brings.
pub fn of_tags<'a>(context: &mut Context, tags: impl Iterator<Item = (&'a str, &'a str)>) {
    for (name, value) in tags {
        context.add(&format!("s3:RequestObjectTag/{name}"), value);
        context.add("s3:RequestObjectTagKeys", name);
    }
}

/// Tags that an object has.
pub fn with_existing_tags(context: &Context, tags: &[Tag]) -> Context {
    let mut context = context.clone();
    for (name, value) in tags {
        context.add(&format!("s3:ExistingObjectTag/{name}"), value.clone());
    }
    context
}

/// Whose the resource is.
pub fn of_owner(context: &mut Context, owner: &Account) {
    context.add("s3:ResourceAccount", owner.number());
    context.add("aws:ResourceAccount", owner.number());
}

/// The context of the listing that would show a key: who may make it may be told that there is no such key.
pub fn of_listing(context: &Context, key: &str) -> Context {
    let mut context = context.clone();
    context.add("s3:prefix", key);
    context
}

/// A time as presigned URLs have it (`20261123T001500Z`).
fn parse_basic(text: &str) -> Option<u64> {
    if text.len() != 16 || !text.is_ascii() {
        return None;
    }
    let part = |from: usize, to: usize| text.get(from..to);
    let date = format!("{}-{}-{}", part(0, 4)?, part(4, 6)?, part(6, 8)?);
    parse_iso(&format!("{date}T{}:{}:{}Z", part(9, 11)?, part(11, 13)?, part(13, 15)?))
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};
    use palm_core::s3::policy::{Attached, Policy, Principal, Request, Verdict};

    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let pairs = pairs.iter();
        pairs.map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect()
    }

    fn denied(condition: &str, headers: &HeaderMap, query: &str) -> bool {
        let asker = Asker::anonymous(None);
        let context = of_request(&asker, 1_795_000_000_000, &Query::parse(query), headers);
        let document = format!(
            r#"{{"Version":"2012-10-17","Statement":[{{"Effect":"Deny","Principal":"*","Action":"s3:*",
            "Resource":"arn:aws:s3:::b/*","Condition":{{{condition}}}}}]}}"#
        );
        let policy = Policy::parse(document.as_bytes(), Attached::Bucket("b")).expect("policy");
        let request = Request {
            principal: &Principal::Anonymous,
            action: "s3:PutObject",
            resource: "arn:aws:s3:::b/k",
            context: &context,
        };
        policy.evaluate(&request) == Verdict::ExplicitDeny
    }

    /// Scenario: a policy denies by what stands in a request. Danger: a key is misspelt here, and the `Deny` never applies.
    /// Expectation: each key that a header or parameter is for has its value.
    #[test]
    fn each_key_has_its_value() {
        let table = [
            (r#""StringEquals":{"s3:x-amz-acl":"public-read"}"#, ("x-amz-acl", "public-read")),
            (r#""StringLike":{"s3:x-amz-grant-read":"*AllUsers*"}"#, ("x-amz-grant-read", "uri=\"x/AllUsers\"")),
            (r#""StringEquals":{"s3:x-amz-copy-source":"b/a b+"}"#, ("x-amz-copy-source", "/b/a%20b+?versionId=null")),
            (
                r#""StringEquals":{"s3:x-amz-server-side-encryption":"AES256"}"#,
                ("x-amz-server-side-encryption", "AES256"),
            ),
            (r#""StringEquals":{"s3:RequestObjectTag/team":"red"}"#, ("x-amz-tagging", "a=b&team=red")),
            (r#""ForAnyValue:StringEquals":{"s3:RequestObjectTagKeys":"team"}"#, ("x-amz-tagging", "a=b&team=red")),
            (r#""StringEquals":{"s3:object-lock-mode":"GOVERNANCE"}"#, ("x-amz-object-lock-mode", "GOVERNANCE")),
            (r#""StringEquals":{"s3:object-lock-legal-hold":"ON"}"#, ("x-amz-object-lock-legal-hold", "ON")),
            (
                r#""NumericGreaterThan":{"s3:object-lock-remaining-retention-days":"10"}"#,
                ("x-amz-object-lock-retain-until-date", "2030-01-01T00:00:00Z"),
            ),
            (r#""StringEquals":{"s3:x-amz-storage-class":"STANDARD_IA"}"#, ("x-amz-storage-class", "STANDARD_IA")),
            (r#""StringEquals":{"s3:if-none-match":"*"}"#, ("if-none-match", "*")),
            (r#""StringLike":{"aws:UserAgent":"curl*"}"#, ("user-agent", "curl/8")),
            (r#""StringLike":{"aws:Referer":"http://a/*"}"#, ("referer", "http://a/b")),
        ];
        for (condition, (name, value)) in table {
            assert!(denied(condition, &headers(&[(name, value)]), ""), "{condition}");
            assert!(!denied(condition, &HeaderMap::new(), ""), "{condition}");
        }
        let plain = HeaderMap::new();
        assert!(denied(r#""Bool":{"aws:SecureTransport":"false"}"#, &plain, ""));
        assert!(denied(r#""DateGreaterThan":{"aws:CurrentTime":"2026-01-01T00:00:00Z"}"#, &plain, ""));
        assert!(denied(r#""StringEquals":{"aws:PrincipalType":"Anonymous"}"#, &plain, ""));
    }

    #[test]
    fn the_age_of_a_signature_is_known() {
        assert_eq!(parse_basic("20261123T001500Z"), parse_iso("2026-11-23T00:15:00Z"));
        assert_eq!(parse_basic("2026-11-23"), None);
    }
}
