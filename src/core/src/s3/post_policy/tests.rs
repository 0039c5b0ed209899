use proptest::prelude::*;

use super::*;

/// The example of <https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-post-example.html>.
const EXAMPLE: &str = r#"{ "expiration": "2015-12-30T12:00:00.000Z",
  "conditions": [
    {"bucket": "sigv4examplebucket"},
    ["starts-with", "$key", "user/user1/"],
    {"acl": "public-read"},
    ["starts-with", "$Content-Type", "image/"],
    {"x-amz-meta-uuid": "14365123651274"},
    ["starts-with", "$x-amz-meta-tag", ""],
    ["content-length-range", 1, "10"]
  ]
}"#;

const NOW: u64 = 1_451_000_000_000;

fn fields() -> Vec<(String, String)> {
    let fields = [
        ("key", "user/user1/me.jpg"),
        ("acl", "public-read"),
        ("Content-Type", "image/jpeg"),
        ("x-amz-meta-uuid", "14365123651274"),
        ("X-Amz-Signature", "abc"),
        ("Policy", "abc"),
        ("x-ignore-this", "abc"),
    ];
    fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn check(fields: &[(String, String)], bucket: &str, now_ms: u64) -> Result<(), String> {
    let policy = PostPolicy::parse(EXAMPLE.as_bytes()).expect("the example");
    policy.check(Form { bucket, fields }, now_ms).map_err(|refusal| refusal.message.into_owned())
}

#[test]
fn the_example_lets_in_what_it_says() {
    assert_eq!(check(&fields(), "sigv4examplebucket", NOW), Ok(()));
}

/// Scenario: somebody who was given a form changes it. Danger: each change uploads what the signer did not allow.
#[test]
fn a_changed_form_is_refused() {
    let expired = check(&fields(), "sigv4examplebucket", 1_451_476_800_000).expect_err("over");
    assert_eq!(expired, "Invalid according to Policy: Policy expired.");
    assert!(check(&fields(), "another", NOW).is_err());
    let changed = |name: &str, value: Option<&str>| {
        let mut fields = fields();
        fields.retain(|(known, _)| known != name);
        fields.extend(value.map(|value| (name.to_owned(), value.to_owned())));
        check(&fields, "sigv4examplebucket", NOW)
    };
    let failed = changed("key", Some("user/user2/x")).expect_err("another's folder");
    let expected = "Invalid according to Policy: Policy Condition failed: [\"starts-with\", \"$key\", \"user/user1/\"]";
    assert_eq!(failed, expected);
    assert!(changed("key", None).is_err());
    assert!(changed("acl", Some("public-read-write")).is_err());
    assert!(changed("Content-Type", Some("image/png, text/html")).is_err());
    assert!(changed("Content-Type", Some("image/png, image/gif")).is_ok());
    assert!(changed("x-amz-meta-tag", Some("anything")).is_ok());
    let extra = changed("x-amz-meta-more", Some("1")).expect_err("not named");
    assert_eq!(extra, "Invalid according to Policy: Extra input fields: x-amz-meta-more");
    let mut twice = fields();
    twice.push(("KEY".to_owned(), "user/user2/x".to_owned()));
    assert!(check(&twice, "sigv4examplebucket", NOW).is_err(), "whichever of the two is taken");
}

#[test]
fn lengths_are_bounded_on_both_sides() {
    let policy = PostPolicy::parse(EXAMPLE.as_bytes()).expect("the example");
    let code = |bytes| policy.check_length(bytes).map_err(|refusal| refusal.code);
    assert_eq!((code(0), code(1), code(10), code(11)), (Err("EntityTooSmall"), Ok(()), Ok(()), Err("EntityTooLarge")));
    assert_eq!(policy.most_bytes(), Some(10));
}

#[test]
fn wrong_documents_are_refused() {
    let wrong = [
        "",
        "[]",
        r#"{"conditions":[]}"#,
        r#"{"expiration":"2015-12-30T12:00:00Z"}"#,
        r#"{"expiration":"tomorrow","conditions":[]}"#,
        r#"{"expiration":"2015-12-30T12:00:00Z","conditions":[],"more":1}"#,
        r#"{"expiration":"2015-12-30T12:00:00Z","conditions":[{}]}"#,
        r#"{"expiration":"2015-12-30T12:00:00Z","conditions":[{"acl":1}]}"#,
        r#"{"expiration":"2015-12-30T12:00:00Z","conditions":[["eq","key","x"]]}"#,
        r#"{"expiration":"2015-12-30T12:00:00Z","conditions":[["ends-with","$key","x"]]}"#,
        r#"{"expiration":"2015-12-30T12:00:00Z","conditions":[["content-length-range",2,1]]}"#,
        r#"{"expiration":"2015-12-30T12:00:00Z","conditions":[["content-length-range",-1,1]]}"#,
    ];
    for document in wrong {
        let refusal = PostPolicy::parse(document.as_bytes()).expect_err(document);
        assert_eq!((refusal.code, refusal.status), ("InvalidPolicyDocument", 400), "{document}");
    }
    assert!(PostPolicy::parse(&vec![b' '; POLICY_MAX_BYTES + 1]).is_err());
}

proptest! {
    #[test]
    fn no_document_panics(text in "\\PC{0,80}", inside in "[\\[\\]{}\",:$a-z0-9-]{0,60}") {
        let _ = PostPolicy::parse(text.as_bytes());
        let document = format!(r#"{{"expiration":"2015-12-30T12:00:00Z","conditions":[{inside}]}}"#);
        if let Ok(policy) = PostPolicy::parse(document.as_bytes()) {
            let _ = policy.check(Form { bucket: "b", fields: &fields() }, NOW);
        }
    }
}
