use proptest::prelude::*;

use super::condition::Condition;
use super::operation::{Extras, On, Operation};
use super::*;
use crate::s3::Refusal;
use crate::s3::acl::{Acl, Of, Ownership, PublicAccessBlock};

const ACCOUNT: &str = "123456789012";
const OTHER: &str = "999999999999";

fn identity(account: &str, name: &str) -> Identity {
    let root = name == "root";
    let arn = if root { format!("arn:aws:iam::{account}:root") } else { format!("arn:aws:iam::{account}:user/{name}") };
    Identity { account: account.to_owned(), canonical_id: format!("c-{account}"), arn, role_arn: None, root }
}

fn user(account: &str, name: &str) -> Principal {
    Principal::Identified(identity(account, name))
}

fn context(keys: &[(&str, &str)]) -> Context {
    let mut context = Context::default();
    for (key, value) in keys {
        context.add(key, *value);
    }
    context
}

fn statement(inside: &str) -> String {
    format!(r#"{{"Version":"2012-10-17","Statement":[{{{inside}}}]}}"#)
}

fn bucket_policy(inside: &str) -> Result<Policy, Refusal> {
    Policy::parse(statement(inside).as_bytes(), Attached::Bucket("b"))
}

const ALLOW_ALL: &str = r#""Effect":"Allow","Principal":"*","Action":"s3:GetObject","Resource":"arn:aws:s3:::b/*""#;

/// AWS's `MalformedPolicy` messages, as tools that meet them quote them.
#[test]
fn wrong_documents_are_refused_in_aws_words() {
    let document = |text: &str| Policy::parse(text.as_bytes(), Attached::Bucket("b")).expect_err(text);
    let whole = [
        ("", "Policies must be valid JSON and the first byte must be '{'"),
        (" {}", "Policies must be valid JSON and the first byte must be '{'"),
        ("{", "This policy contains invalid Json"),
        ("{}", "Missing required field Statement"),
        (r#"{"Statement":[]}"#, "Could not parse the policy: Statement is empty!"),
        (r#"{"Version":"2020-01-01","Statement":[]}"#, "The policy must contain a valid version string"),
        (r#"{"Statements":[]}"#, "Unknown field Statements"),
        (r#"{"Statement":["x"]}"#, "Invalid policy syntax."),
        (r#"{"Statement":[{}],"Statement":[{}]}"#, "This policy contains invalid Json"),
    ];
    for (text, message) in whole {
        let refusal = document(text);
        assert_eq!((refusal.code, refusal.status, &*refusal.message), ("MalformedPolicy", 400, message), "{text}");
    }
    let all = ALLOW_ALL;
    let inside = [
        (all.replace(r#""Effect":"Allow","#, ""), "Missing required field Effect"),
        (all.replace("Allow", "allow"), "Invalid effect: allow"),
        (all.replace(r#""Principal":"*","#, ""), "Missing required field Principal"),
        (all.replace(r#""*""#, r#"{"AWS":"nobody"}"#), "Invalid principal in policy"),
        (all.replace(r#""*""#, r#"{"AWS":"arn:aws:iam::123456789012:user/*"}"#), "Invalid principal in policy"),
        (all.replace(r#""*""#, "{}"), "Invalid principal in policy"),
        (all.replace(r#""Action":"s3:GetObject","#, ""), "Missing required field Action"),
        (all.replace("s3:GetObject", "s3:GetNothing"), "Policy has invalid action"),
        (all.replace("s3:GetObject", "ec2:RunInstances"), "Policy has invalid action"),
        (all.replace(r#""s3:GetObject""#, "null"), "Invalid policy syntax."),
        (
            all.replace(r#""Principal":"*""#, r#""NotPrincipal":{"AWS":"123456789012"}"#),
            "Allow with NotPrincipal is not allowed.",
        ),
        (
            format!(r#"{all},"Condition":{{"NumericEquals":{{"s3:signatureAge":"x"}}}}"#),
            "Policy has an invalid condition value",
        ),
        (all.replace(r#","Resource":"arn:aws:s3:::b/*""#, ""), "Missing required field Resource"),
        (all.replace("arn:aws:s3:::b/*", "*"), "Policy has invalid resource"),
        (all.replace("arn:aws:s3:::b/*", "arn:aws:s3:::bb/*"), "Policy has invalid resource"),
        (all.replace("arn:aws:s3:::b/*", "arn:aws:s3:::b/${"), "Policy has invalid resource"),
        (all.replace("s3:GetObject", "s3:ListBucket"), "Action does not apply to any resource(s) in statement"),
        (format!(r#"{all},"Principle":"*""#), "Unknown field Principle"),
        (format!(r#"{all},"NotAction":"s3:PutObject""#), "Invalid policy syntax."),
        (format!(r#"{all},"Condition":{{"Matches":{{"s3:prefix":"x"}}}}"#), "Invalid Condition type : Matches"),
        (format!(r#"{all},"Condition":{{"Bool":{{"s3:nothing":"true"}}}}"#), "Policy has an invalid condition key"),
        (
            format!(r#"{all},"Condition":{{"StringLike":{{"s3:prefix":"x"}}}}"#),
            "Conditions do not apply to combination of actions and resources in statement",
        ),
        (format!(r#"{all},"Condition":{{"IpAddress":{{"aws:SourceIp":"10/8"}}}}"#), "Invalid IP address in Conditions"),
    ];
    for (text, message) in inside {
        let refusal = document(&statement(&text));
        assert_eq!((refusal.code, &*refusal.message), ("MalformedPolicy", message), "{text}");
    }
    let long = document(&statement(&format!(r#"{ALLOW_ALL},"Sid":"{}""#, " ".repeat(POLICY_MAX_BYTES))));
    assert_eq!(long.message, "Normalized policy document exceeds the maximum allowed size of 20480 bytes");
    assert!(bucket_policy(&format!("{ALLOW_ALL}{}", " ".repeat(POLICY_MAX_BYTES))).is_ok(), "blanks do not count");
    assert!(bucket_policy(&format!("{ALLOW_ALL}{}", " ".repeat(4 * POLICY_MAX_BYTES))).is_err());
    assert!(document(&format!("{{\"Statement\":{}", "[".repeat(10_000))).message.contains("invalid Json"));
    let on_user = Policy::parse(statement(ALLOW_ALL).as_bytes(), Attached::Identity).expect_err("has a principal");
    assert_eq!(on_user.code, "MalformedPolicyDocument");
}

/// Forms that AWS takes (<https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_grammar.html>).
#[test]
fn right_documents_are_taken() {
    let all = ALLOW_ALL;
    let taken = [
        all.to_owned(),
        all.replace(r#""*""#, r#"{"AWS":["123456789012","arn:aws:iam::123456789012:user/a/b"]}"#),
        all.replace(r#""*""#, &format!(r#"{{"CanonicalUser":"{}"}}"#, "0af".repeat(22)[..64].to_owned())),
        all.replace(r#""s3:GetObject""#, r#"["S3:getobject","s3:Put*"]"#),
        all.replace("s3:GetObject", "*"),
        all.replace(r#""arn:aws:s3:::b/*""#, r#"["arn:aws:s3:::b","arn:aws:s3:::b/x${aws:username}/*"]"#),
        all.replace("b/*", "b*"),
        // What other servers' suites put and AWS refuses.
        all.replace("b/*", "*"),
        all.replace("b/*", "*/*"),
        all.replace("b/*", "b"),
        all.replace(r#""*""#, r#"{"AWS":"arn:aws:iam::alt:root"}"#),
        all.replace("\"Resource\"", "\"NotResource\"").replace("\"Action\"", "\"NotAction\""),
        format!(
            r#"{all},"Sid":"1","Condition":{{"Bool":{{"aws:SecureTransport":false}},"NumericLessThan":{{"s3:signatureAge":600000}}}}"#
        ),
    ];
    for inside in taken {
        assert!(bucket_policy(&inside).is_ok(), "{inside}: {:?}", bucket_policy(&inside));
    }
    let single = format!("{{\"Statement\":{{{ALLOW_ALL}}}}}");
    assert!(Policy::parse(single.as_bytes(), Attached::Bucket("b")).is_ok(), "a statement need not be in a list");
}

/// Scenario: documents that say who may assume a role. Danger: one that names nobody, or a resource, is taken and means something
/// else. Expectation: principals and `sts:` actions, and the role is the resource.
#[test]
fn trust_names_who_and_nothing_else() {
    let trust = |text: &str| Policy::parse(statement(text).as_bytes(), Attached::Trust);
    let good = r#""Effect":"Allow","Principal":{"AWS":"arn:aws:iam::123456789012:root"},"Action":"sts:AssumeRole""#;
    let policy = trust(good).expect("trust");
    let principal = Principal::Identified(Identity {
        account: "123456789012".to_owned(),
        canonical_id: "c".to_owned(),
        arn: "arn:aws:iam::123456789012:user/u".to_owned(),
        role_arn: None,
        root: false,
    });
    let context = Context::default();
    let request = Request {
        principal: &principal,
        action: "sts:AssumeRole",
        resource: "arn:aws:iam::1:role/r",
        context: &context,
    };
    assert_eq!(policy.evaluate(&request), Verdict::AllowAccount);
    assert_eq!(policy.evaluate(&Request { principal: &Principal::Anonymous, ..request }), Verdict::Silent);
    for bad in [
        format!(r#"{good},"Resource":"*""#),
        good.replace("sts:AssumeRole", "s3:GetObject"),
        good.replace("Principal", "Sid"),
    ] {
        assert_eq!(trust(&bad).expect_err(&bad).code, "MalformedPolicyDocument");
    }
}

/// The operators' page, row by row: operator, values of the policy, values of the request, whether it holds.
#[test]
fn conditions_hold_as_documented() {
    let table: &[(&str, &[&str], &[&str], bool)] = &[
        ("StringEquals", &["a", "b"], &["b"], true),
        ("StringEquals", &["a"], &["A"], false),
        ("StringEquals", &["a*"], &["ab"], false),
        ("StringEquals", &["a"], &[], false),
        ("StringEqualsIfExists", &["a"], &[], true),
        ("StringEqualsIfExists", &["a"], &["b"], false),
        ("StringNotEquals", &["a", "b"], &["b"], false),
        ("StringNotEquals", &["a", "b"], &["c"], true),
        ("StringNotEquals", &["a"], &[], true),
        ("StringEqualsIgnoreCase", &["Ä"], &["ä"], true),
        ("StringNotEqualsIgnoreCase", &["A"], &["a"], false),
        ("StringLike", &["a*c?"], &["abbcd"], true),
        ("StringLike", &["a*c?"], &["abbc"], false),
        ("StringNotLike", &["a*"], &["ab"], false),
        ("NumericEquals", &["10"], &["10.0"], true),
        ("NumericNotEquals", &["10"], &["11"], true),
        ("NumericLessThan", &["10"], &["9"], true),
        ("NumericLessThan", &["10"], &["nine"], false),
        ("NumericLessThanEquals", &["10"], &["10"], true),
        ("NumericGreaterThan", &["10"], &["10"], false),
        ("NumericGreaterThanEquals", &["10"], &["10"], true),
        ("DateGreaterThan", &["2019-07-16T12:00:00Z"], &["2019-07-16T12:00:01Z"], true),
        ("DateLessThan", &["2019-07-16"], &["1563235201"], false),
        ("DateEquals", &["1563235200"], &["2019-07-16T00:00:00Z"], true),
        ("Bool", &["true"], &["True"], true),
        ("Bool", &["false"], &["true"], false),
        ("BinaryEquals", &["QmluYXJ5VmFsdWVJbkJhc2U2NA=="], &["QmluYXJ5VmFsdWVJbkJhc2U2NA=="], true),
        ("BinaryEquals", &["AAAA"], &["AAAB"], false),
        ("IpAddress", &["203.0.113.0/24"], &["203.0.113.9"], true),
        ("IpAddress", &["203.0.113.0/24"], &["203.0.114.9"], false),
        ("IpAddress", &["203.0.113.0/24"], &["::ffff:203.0.113.9"], true),
        ("IpAddress", &["2001:DB8:1234:5678::/64"], &["2001:db8:1234:5678::1"], true),
        ("IpAddress", &["0.0.0.0/0"], &["2001:db8::1"], false),
        ("IpAddress", &["::/0"], &["2001:db8::1"], true),
        ("IpAddress", &["203.0.113.9"], &["203.0.113.9"], true),
        ("NotIpAddress", &["203.0.113.0/24"], &["198.51.100.1"], true),
        ("ArnLike", &["arn:aws:iam::*:user/a*"], &["arn:aws:iam::123456789012:user/ab"], true),
        ("ArnEquals", &["arn:*:user/a"], &["arn:aws:iam::123456789012:user/a"], false),
        ("ArnNotLike", &["arn:aws:iam::*:role/*"], &["arn:aws:iam::123456789012:user/a"], true),
        ("Null", &["true"], &[], true),
        ("Null", &["true"], &["a"], false),
        ("Null", &["false"], &["a"], true),
        ("ForAllValues:StringEquals", &["a", "b"], &["a", "b"], true),
        ("ForAllValues:StringEquals", &["a", "b"], &["a", "c"], false),
        ("ForAllValues:StringEquals", &["a"], &[], true),
        ("ForAnyValue:StringEquals", &["a"], &["a", "c"], true),
        ("ForAnyValue:StringEquals", &["a"], &[], false),
        ("ForAllValues:StringNotEquals", &["a"], &["b", "c"], true),
        ("ForAllValues:StringNotEquals", &["a"], &["a", "c"], false),
        ("ForAnyValue:StringNotLike", &["a*"], &["ab", "c"], true),
        ("ForAnyValue:StringNotLike", &["a*"], &["ab"], false),
    ];
    for (operator, wanted, found, holds) in table {
        let condition = Condition::parse(operator, "AWS:Key", wanted, true).expect(operator);
        let mut request = Context::default();
        for value in *found {
            request.add("aws:kEY", *value);
        }
        assert_eq!(condition.holds(&request), *holds, "{operator} {wanted:?} {found:?}");
    }
    for (operator, value) in
        [("NullIfExists", "true"), ("ForSome:Bool", "true"), ("stringequals", "a"), ("Numeric", "1")]
    {
        assert!(Condition::parse(operator, "k", &[value], true).is_err(), "{operator}");
    }
    assert!(Condition::parse("NumericEquals", "k", &["NaN"], true).is_err());
    assert!(Condition::parse("StringEquals", "k", &[], true).is_err());
}

/// <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_variables.html>. Danger: a user whose name is a
/// wildcard reaches everybody's folder.
#[test]
fn variables_stand_for_themselves_and_nothing_more() {
    let inside = r#""Effect":"Allow","Action":"s3:*","Resource":"arn:aws:s3:::b/${aws:username}/*"#;
    let policy = |version: &str, default: &str| {
        let resource = inside.replace("username", &format!("username{default}"));
        let text = format!(r#"{{"Version":"{version}","Statement":{{{resource}"}}}}"#);
        Policy::parse(text.as_bytes(), Attached::Identity).expect("valid")
    };
    let says = |policy: &Policy, resource: &str, keys: &[(&str, &str)]| {
        let (principal, context) = (user(ACCOUNT, "a"), context(keys));
        let request = Request { principal: &principal, action: "s3:GetObject", resource, context: &context };
        policy.evaluate(&request) == Verdict::Allow
    };
    let new = policy("2012-10-17", "");
    assert!(says(&new, "arn:aws:s3:::b/a/x", &[("aws:username", "a")]));
    assert!(!says(&new, "arn:aws:s3:::b/a/x", &[("aws:username", "*")]));
    assert!(says(&new, "arn:aws:s3:::b/*/x", &[("aws:username", "*")]));
    assert!(!says(&new, "arn:aws:s3:::b//x", &[]));
    assert!(!says(&new, "arn:aws:s3:::b/a/x", &[("aws:username", "a"), ("aws:username", "b")]));
    let defaulted = policy("2012-10-17", ", 'none'");
    assert!(says(&defaulted, "arn:aws:s3:::b/none/x", &[]));
    let old = policy("2008-10-17", "");
    assert!(says(&old, "arn:aws:s3:::b/${aws:username}/x", &[("aws:username", "a")]), "no variables before 2012");
}

#[test]
fn principals_are_matched_by_every_name_they_have() {
    let says = |principal: &str, who: &Principal| {
        let policy = bucket_policy(&ALLOW_ALL.replace(r#""*""#, principal)).expect(principal);
        let context = Context::default();
        let resource = "arn:aws:s3:::b/k";
        policy.evaluate(&Request { principal: who, action: "S3:GETOBJECT", resource, context: &context })
    };
    let session = Principal::Identified(Identity {
        arn: "arn:aws:sts::123456789012:assumed-role/r/s".to_owned(),
        role_arn: Some("arn:aws:iam::123456789012:role/r".to_owned()),
        ..identity(ACCOUNT, "r")
    });
    let one = |name: &str| format!(r#"{{"AWS":"{name}"}}"#);
    assert_eq!(says(&one("*"), &Principal::Anonymous), Verdict::Allow);
    assert_eq!(says(&one(ACCOUNT), &Principal::Anonymous), Verdict::Silent);
    assert_eq!(says(&one(ACCOUNT), &user(ACCOUNT, "a")), Verdict::AllowAccount);
    assert_eq!(says(&one(ACCOUNT), &user(ACCOUNT, "root")), Verdict::Allow);
    assert_eq!(says(&one("arn:aws:iam::123456789012:root"), &user(OTHER, "root")), Verdict::Silent);
    assert_eq!(says(&one("arn:aws:iam::123456789012:user/a"), &user(ACCOUNT, "a")), Verdict::Allow);
    assert_eq!(says(&one("arn:aws:iam::123456789012:user/a"), &user(ACCOUNT, "A")), Verdict::Silent);
    assert_eq!(says(&one("arn:aws:iam::123456789012:role/r"), &session), Verdict::Allow);
    assert_eq!(says(&one("arn:aws:sts::123456789012:assumed-role/r/s"), &session), Verdict::Allow);
    let not = bucket_policy(
        &ALLOW_ALL
            .replace("Allow", "Deny")
            .replace(r#""Principal":"*""#, r#""NotPrincipal":{"AWS":"arn:aws:iam::123456789012:user/a"}"#),
    )
    .expect("valid");
    let context = Context::default();
    let denied = |who: &Principal| {
        let request =
            Request { principal: who, action: "s3:GetObject", resource: "arn:aws:s3:::b/k", context: &context };
        not.evaluate(&request) == Verdict::ExplicitDeny
    };
    assert!(!denied(&user(ACCOUNT, "a")) && denied(&user(ACCOUNT, "b")) && denied(&Principal::Anonymous));
}

/// What one permission comes to with these policies and lists.
struct Case {
    identity: Option<&'static str>,
    bucket: Option<&'static str>,
    acl: &'static str,
    object_owner: &'static str,
    ownership: Ownership,
    block: PublicAccessBlock,
}

const PLAIN: Case = Case {
    identity: None,
    bucket: None,
    acl: "private",
    object_owner: ACCOUNT,
    ownership: Ownership::ObjectWriter,
    block: PublicAccessBlock {
        block_public_acls: false,
        ignore_public_acls: false,
        block_public_policy: false,
        restrict_public_buckets: false,
    },
};

impl Case {
    fn decide(&self, principal: &Principal, action: &str) -> Decision {
        let bucket_owner = format!("c-{ACCOUNT}");
        let object_owner = format!("c-{}", self.object_owner);
        let acl = Acl::canned(self.acl, &bucket_owner, &bucket_owner, Of::Bucket).expect("canned");
        let object_acl = Acl::canned(self.acl, &object_owner, &bucket_owner, Of::Object).expect("canned");
        let parse = |inside: &str, attached| Policy::parse(statement(inside).as_bytes(), attached).expect("valid");
        let policy = self.bucket.map(|inside| parse(inside, Attached::Bucket("b")));
        let identity = self.identity.map(|inside| parse(inside, Attached::Identity));
        let context = Context::default();
        let resource = if action.contains("Object") { "arn:aws:s3:::b/k" } else { "arn:aws:s3:::b" };
        decide(&Question {
            request: Request { principal, action, resource, context: &context },
            identity: &identity.iter().collect::<Vec<_>>(),
            session: None,
            bucket: Some(Bucket { acl: &acl, policy: policy.as_ref(), ownership: self.ownership, block: self.block }),
            object: action.contains("Object").then_some(Object { acl: &object_acl }),
        })
    }

    /// Who gets in: o(wner's root), u(ser of the owner's account), r(oot of another), f(oreign user), a(nonymous).
    fn admitted(&self, action: &str) -> String {
        let principals = [
            ('o', user(ACCOUNT, "root")),
            ('u', user(ACCOUNT, "u")),
            ('r', user(OTHER, "root")),
            ('f', user(OTHER, "f")),
            ('a', Principal::Anonymous),
        ];
        let admitted = principals.iter().filter(|(_, principal)| self.decide(principal, action) == Decision::Allow);
        admitted.map(|(letter, _)| *letter).collect()
    }
}

/// The evaluation order, as a table of who gets in. Danger: any letter too many is a hole.
#[test]
fn access_is_decided_in_the_documented_order() {
    const ALLOW_GET: &str = r#""Effect":"Allow","Action":"s3:GetObject","Resource":"*""#;
    const DENY_GET: &str = r#""Effect":"Deny","Action":"s3:Get*","Resource":"*""#;
    const TO_OTHER: &str =
        r#""Effect":"Allow","Principal":{"AWS":"999999999999"},"Action":"s3:GetObject","Resource":"arn:aws:s3:::b/*""#;
    const TO_OWN: &str =
        r#""Effect":"Allow","Principal":{"AWS":"123456789012"},"Action":"s3:GetObject","Resource":"arn:aws:s3:::b/*""#;
    const TO_USER: &str = r#""Effect":"Allow","Principal":{"AWS":"arn:aws:iam::123456789012:user/u"},"Action":"s3:GetObject","Resource":"arn:aws:s3:::b/*""#;
    const TO_ALL: &str = r#""Effect":"Allow","Principal":"*","Action":"s3:GetObject","Resource":"arn:aws:s3:::b/*""#;
    const DENY_ALL: &str =
        r#""Effect":"Deny","Principal":"*","Action":"s3:*","Resource":["arn:aws:s3:::b","arn:aws:s3:::b/*"]"#;
    let enforced = Ownership::BucketOwnerEnforced;
    let restrict = PublicAccessBlock { restrict_public_buckets: true, ..PLAIN.block };
    let ignore = PublicAccessBlock { ignore_public_acls: true, ..PLAIN.block };
    let get = [
        (PLAIN, "o"),
        (Case { identity: Some(ALLOW_GET), ..PLAIN }, "ou"),
        (Case { identity: Some(DENY_GET), bucket: Some(TO_ALL), ..PLAIN }, "a"),
        (Case { bucket: Some(TO_OTHER), ..PLAIN }, "or"),
        (Case { bucket: Some(TO_OTHER), identity: Some(ALLOW_GET), ..PLAIN }, "ourf"),
        (Case { bucket: Some(TO_OWN), ..PLAIN }, "o"),
        (Case { bucket: Some(TO_USER), ..PLAIN }, "ou"),
        (Case { bucket: Some(TO_ALL), ..PLAIN }, "oura"),
        (Case { bucket: Some(TO_ALL), block: restrict, ..PLAIN }, "ou"),
        (Case { bucket: Some(TO_OTHER), block: restrict, ..PLAIN }, "or"),
        (Case { bucket: Some(DENY_ALL), identity: Some(ALLOW_GET), acl: "public-read", ..PLAIN }, ""),
        (Case { acl: "public-read", ..PLAIN }, "oura"),
        (Case { acl: "public-read", block: ignore, ..PLAIN }, "o"),
        (Case { acl: "public-read", ownership: enforced, ..PLAIN }, "o"),
        (Case { acl: "authenticated-read", ..PLAIN }, "our"),
        (Case { object_owner: OTHER, ..PLAIN }, "r"),
        (Case { object_owner: OTHER, bucket: Some(TO_ALL), ..PLAIN }, "r"),
        (Case { object_owner: OTHER, ownership: enforced, ..PLAIN }, "o"),
        (Case { object_owner: OTHER, bucket: Some(DENY_ALL), ..PLAIN }, ""),
    ];
    for (row, (case, expected)) in get.iter().enumerate() {
        assert_eq!(case.admitted("s3:GetObject"), *expected, "row {row}");
    }
    let foreign = Case { object_owner: OTHER, ..PLAIN };
    assert_eq!(foreign.admitted("s3:DeleteObject"), "or", "the bucket's owner may delete what others own");
    assert_eq!(foreign.admitted("s3:DeleteObjectTagging"), "r", "but not change it");
    let writable = Case { acl: "public-read-write", ..PLAIN };
    assert_eq!(writable.admitted("s3:PutObject"), "oura");
    assert_eq!(writable.admitted("s3:DeleteObject"), "ou", "others may not delete what is not theirs");
    let locked = Case { bucket: Some(DENY_ALL), ..PLAIN };
    assert_eq!(locked.admitted("s3:PutBucketPolicy"), "o", "the owner can always take the policy away");
    assert_eq!(locked.admitted("s3:ListBucket"), "");
    assert_eq!(locked.decide(&user(ACCOUNT, "root"), "s3:GetObject"), Decision::ExplicitDeny);
    assert_eq!(PLAIN.decide(&Principal::Anonymous, "s3:GetObject"), Decision::ImplicitDeny);
}

/// A session has no more than both its user's policies and its own allow; no policy that grants reaches around it.
#[test]
fn a_session_policy_only_takes_away() {
    let allow = r#""Effect":"Allow","Action":"s3:*","Resource":"*""#;
    let read = r#""Effect":"Allow","Action":"s3:Get*","Resource":"*""#;
    let parse = |inside: &str| Policy::parse(statement(inside).as_bytes(), Attached::Identity).expect("valid");
    let (wide, narrow, context, principal) = (parse(allow), parse(read), Context::default(), user(ACCOUNT, "u"));
    let acl = Acl::private(format!("c-{ACCOUNT}"));
    let bucket =
        Bucket { acl: &acl, policy: None, ownership: Ownership::default(), block: PublicAccessBlock::default() };
    let may = |action, identity: &Policy, session: &Policy| {
        let request = Request { principal: &principal, action, resource: "arn:aws:s3:::b/k", context: &context };
        let identity = [identity];
        let question =
            Question { request, identity: &identity, session: Some(session), bucket: Some(bucket), object: None };
        decide(&question) == Decision::Allow
    };
    assert!(may("s3:GetObject", &wide, &narrow));
    assert!(!may("s3:PutObject", &wide, &narrow));
    assert!(!may("s3:PutObject", &narrow, &wide));
}

/// <https://docs.aws.amazon.com/AmazonS3/latest/userguide/access-control-block-public-access.html>, "The meaning of public".
#[test]
fn public_is_what_nothing_fixed_limits() {
    let with = |condition: &str| {
        let policy = bucket_policy(&format!(r#"{ALLOW_ALL},"Condition":{{{condition}}}"#)).expect(condition);
        policy.is_public()
    };
    assert!(bucket_policy(ALLOW_ALL).expect("valid").is_public());
    assert!(!bucket_policy(&ALLOW_ALL.replace("Allow", "Deny")).expect("valid").is_public());
    assert!(!bucket_policy(&ALLOW_ALL.replace(r#""*""#, r#"{"AWS":"123456789012"}"#)).expect("valid").is_public());
    assert!(!with(r#""StringEquals":{"aws:SourceVpc":"vpc-91237329"}"#));
    assert!(with(r#""StringLike":{"aws:SourceVpc":"vpc-*"}"#));
    assert!(with(r#""StringNotEquals":{"aws:SourceVpc":"vpc-91237329"}"#));
    assert!(with(r#""StringEqualsIfExists":{"aws:SourceVpc":"vpc-91237329"}"#));
    assert!(with(r#""StringEquals":{"aws:Referer":"http://example.com"}"#), "anybody can send that");
    assert!(!with(r#""IpAddress":{"aws:SourceIp":"203.0.113.0/24"}"#));
    assert!(with(r#""IpAddress":{"aws:SourceIp":["203.0.113.0/24","0.0.0.0/1"]}"#));
    assert!(with(r#""IpAddress":{"aws:SourceIp":"2000::/3"}"#));
    assert!(with(r#""NotIpAddress":{"aws:SourceIp":"203.0.113.0/24"}"#));
    assert!(with(r#""ArnLike":{"aws:SourceArn":"arn:aws:s3:::${aws:username}"}"#));
}

/// <https://docs.aws.amazon.com/AmazonS3/latest/userguide/using-with-s3-policy-actions.html>.
#[test]
fn operations_need_the_documented_permissions() {
    let needs = |operation: Operation, extras| {
        let needs = operation.needs(extras);
        needs
            .iter()
            .map(|need| format!("{}{}", if need.on == On::Source { "<" } else { "" }, &need.action[3..]))
            .collect::<Vec<_>>()
            .join(" ")
    };
    let none = Extras::default();
    let version = Extras { version: true, ..none };
    let full = Extras {
        acl: true,
        tagging: true,
        retention: true,
        legal_hold: true,
        source_tagging: true,
        source_version: true,
        ..none
    };
    let table = [
        (Operation::HeadObject, none, "GetObject"),
        (Operation::GetObject, version, "GetObjectVersion"),
        (Operation::GetObjectAttributes, version, "GetObjectVersionAttributes GetObjectVersion"),
        (Operation::HeadBucket, none, "ListBucket"),
        (Operation::UploadPart, full, "PutObject"),
        (Operation::PutObject, full, "PutObject PutObjectAcl PutObjectTagging PutObjectRetention PutObjectLegalHold"),
        (Operation::CopyObject, none, "PutObject <GetObject"),
        (
            Operation::CopyObject,
            full,
            "PutObject <GetObjectVersion <GetObjectVersionTagging PutObjectAcl PutObjectTagging PutObjectRetention PutObjectLegalHold",
        ),
        (Operation::RenameObject, none, "PutObject <GetObject <DeleteObject"),
        (Operation::DeleteObject, version, "DeleteObjectVersion"),
        (
            Operation::DeleteObject,
            Extras { bypass_governance: true, ..version },
            "DeleteObjectVersion BypassGovernanceRetention",
        ),
        (
            Operation::CreateBucket,
            Extras { object_lock: true, ..none },
            "CreateBucket PutBucketObjectLockConfiguration PutBucketVersioning",
        ),
        (Operation::DeleteBucketCors, none, "PutBucketCORS"),
        (Operation::ListParts, none, "ListMultipartUploadParts"),
    ];
    for (operation, extras, expected) in table {
        assert_eq!(needs(operation, extras), expected, "{operation:?}");
    }
    assert_eq!(missing_object(false).status, 403);
    assert_eq!(missing_object(true).code, "NoSuchKey");
}

proptest! {
    /// Scenario: somebody puts a policy made to break the reader. Expectation: an answer.
    #[test]
    fn no_document_panics(text in "[\\PC]{0,200}", pieces in prop::collection::vec(prop::sample::select(&[
        "{", "}", "[", "]", ",", ":", "\"Statement\"", "\"Effect\"", "\"Allow\"", "\"Principal\"", "\"*\"", "\"Action\"",
        "\"Condition\"", "\"s3:*\"", "\"Resource\"", "\"arn:aws:s3:::b/${a\"", "\"arn:aws:s3:::b/*\"", "1e999", "null",
    ][..]), 0..40)) {
        let _ = Policy::parse(text.as_bytes(), Attached::Bucket("b"));
        let _ = Policy::parse(pieces.concat().as_bytes(), Attached::Bucket("b"));
        let _ = Policy::parse(format!("{{{}", pieces.concat()).as_bytes(), Attached::Identity);
    }

    /// Any operator with any value and any request gives an answer; a negated operator is the opposite of its own.
    #[test]
    fn no_condition_panics(
        operator in prop::sample::select(&["String{}Equals", "String{}Like", "Numeric{}Equals", "Date{}Equals", "Arn{}Like"][..]),
        value in "[-0-9a:*?${},' T/.]{0,20}",
        found in prop::collection::vec("[-0-9a:*? T/.]{0,20}", 0..3),
    ) {
        let mut request = Context::default();
        for value in &found {
            request.add("k", value.as_str());
        }
        let plain = Condition::parse(&operator.replace("{}", ""), "k", &[&value], true);
        let negated = Condition::parse(&operator.replace("{}", "Not"), "k", &[&value], true);
        prop_assert_eq!(plain.is_ok(), negated.is_ok());
        if let (Ok(plain), Ok(negated)) = (plain, negated) {
            prop_assert_ne!(plain.holds(&request), negated.holds(&request));
        }
    }
}
