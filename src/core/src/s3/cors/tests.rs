use proptest::prelude::*;

use super::*;

fn texts(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|&text| text.to_owned()).collect()
}

fn rule(origins: &[&str], methods: &[&str], headers: &[&str]) -> Rule {
    Rule {
        allowed_origins: texts(origins),
        allowed_methods: texts(methods),
        allowed_headers: texts(headers),
        ..Rule::default()
    }
}

fn get<'a>(headers: &'a [Header], name: &str) -> Option<&'a str> {
    headers.iter().find(|(found, _)| *found == name).map(|(_, value)| value.as_str())
}

/// The two rules of <https://docs.aws.amazon.com/AmazonS3/latest/userguide/ManageCorsUsing.html>: a page of one site may
/// write, everybody may read.
fn example() -> Configuration {
    let one = Rule {
        max_age_seconds: Some(3000),
        expose_headers: texts(&["x-amz-request-id", "ETag"]),
        ..rule(&["http://www.example1.com", "http://*.example2.com"], &["PUT", "POST", "DELETE"], &["*"])
    };
    Configuration::new(vec![one, rule(&["*"], &["GET"], &["x-amz-*", "Range"])]).expect("valid")
}

#[test]
fn a_preflight_is_answered_by_the_first_rule_that_fits() {
    let put =
        example().answer_preflight("http://www.example1.com", "PUT", Some("X-Custom, content-type")).expect("allowed");
    assert_eq!(get(&put, "access-control-allow-origin"), Some("http://www.example1.com"));
    assert_eq!(get(&put, "access-control-allow-methods"), Some("PUT, POST, DELETE"));
    assert_eq!(get(&put, "access-control-allow-headers"), Some("x-custom, content-type"));
    assert_eq!(get(&put, "access-control-expose-headers"), Some("x-amz-request-id, ETag"));
    assert_eq!(get(&put, "access-control-max-age"), Some("3000"));
    assert_eq!(get(&put, "access-control-allow-credentials"), Some("true"));
    let read = example().answer_preflight("http://anyone", "GET", Some("x-amz-date,range")).expect("allowed");
    assert_eq!(get(&read, "access-control-allow-origin"), Some("*"));
    assert_eq!(get(&read, "access-control-allow-credentials"), None, "never together with a wildcard");
    assert!(example().answer_preflight("http://a.example2.com", "PUT", None).is_ok());
    for (origin, method, headers) in [
        ("http://anyone", "PUT", None),
        ("http://anyone", "GET", Some("x-custom")),
        ("https://www.example1.com", "PUT", None),
        ("http://example2.com", "PUT", None),
        ("http://anyone", "get", None),
    ] {
        let refused = example().answer_preflight(origin, method, headers).expect_err(origin);
        assert_eq!((refused.status, refused.code), (403, "AccessForbidden"), "{origin} {method}");
    }
}

#[test]
fn an_actual_request_gets_headers_or_goes_without() {
    assert_eq!(get(&example().answer("http://x", "GET"), "access-control-allow-origin"), Some("*"));
    assert_eq!(get(&example().answer("http://x", "GET"), "access-control-allow-headers"), None);
    assert_eq!(example().answer("http://x", "PUT"), vec![]);
}

#[test]
fn wrong_rules_are_refused_as_aws_does() {
    let refused = |rule: Rule| Configuration::new(vec![rule]).expect_err("wrong").code;
    assert_eq!(refused(rule(&[], &["GET"], &[])), "MalformedXML");
    assert_eq!(refused(rule(&["*"], &[], &[])), "MalformedXML");
    assert_eq!(refused(rule(&["*"], &["PATCH"], &[])), "InvalidRequest");
    assert_eq!(refused(rule(&["http://*.*"], &["GET"], &[])), "InvalidRequest");
    assert_eq!(refused(rule(&["*"], &["GET"], &["*-*"])), "InvalidRequest");
    assert_eq!(refused(Rule { expose_headers: texts(&["x-*"]), ..rule(&["*"], &["GET"], &[]) }), "InvalidRequest");
    assert_eq!(refused(Rule { id: Some("i".repeat(256)), ..rule(&["*"], &["GET"], &[]) }), "InvalidArgument");
    assert!(Configuration::new(vec![]).is_err());
    assert!(Configuration::new(vec![rule(&["*"], &["GET"], &[]); RULES_MAX]).is_ok());
    assert!(Configuration::new(vec![rule(&["*"], &["GET"], &[]); RULES_MAX + 1]).is_err());
}

#[test]
fn a_preflight_needs_an_origin_and_a_method() {
    assert_eq!(check_preflight(None, Some("GET")).expect_err("no origin").code, "BadRequest");
    assert_eq!(check_preflight(Some("x"), Some("PATCH")).expect_err("no such method").status, 400);
    assert_eq!(check_preflight(Some("x"), None).expect_err("no method").status, 400);
    assert_eq!(check_preflight(Some("x"), Some("HEAD")), Ok(()));
}

proptest! {
    /// A header that comes back is one that was asked for: what a browser sends must not become another header.
    #[test]
    fn no_request_panics(origin in "\\PC{0,30}", headers in "[ -~]{0,60}") {
        if let Ok(answer) = example().answer_preflight(&origin, "PUT", Some(&headers)) {
            prop_assert!(answer.iter().all(|(_, value)| !value.contains(['\r', '\n'])));
        }
    }
}
