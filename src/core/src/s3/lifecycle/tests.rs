use proptest::prelude::*;

use super::*;
use crate::s3::calendar::parse_iso;

fn ms(text: &str) -> u64 {
    parse_iso(text).expect(text)
}

fn rule(id: &str) -> Rule {
    Rule { id: id.to_owned(), enabled: true, ..Rule::default() }
}

fn rules(rules: Vec<Rule>) -> Configuration {
    Configuration::new(rules).expect("valid")
}

const OBJECT: Version<'_> = Version {
    key: "logs/a",
    size: 100,
    tags: &[],
    modified_ms: 0,
    delete_marker: false,
    standing: Standing::Current { only: true },
};

/// The example of <https://docs.aws.amazon.com/AmazonS3/latest/userguide/intro-lifecycle-rules.html>: "if an object was
/// created on 1/15/2014 10:30 AM UTC and you specify 3 days in a transition rule, then the transition date of the object
/// would be calculated as 1/19/2014 00:00 UTC".
#[test]
fn days_end_at_midnight() {
    let configuration = rules(vec![Rule { expiration: Some(Expiration::Days(3)), ..rule("Rule for testfile.txt") }]);
    let object = Version { modified_ms: ms("2014-01-15T10:30:00Z"), ..OBJECT };
    let at = |text| configuration.decide(&object, ms(text), Days::default());
    assert_eq!(at("2014-01-18T23:59:59.999Z"), None);
    assert_eq!(at("2014-01-19T00:00:00Z"), Some(Action::Expire));
    let header = configuration.expiration_header(&object, Days::default());
    let expected = "expiry-date=\"Sun, 19 Jan 2014 00:00:00 GMT\", rule-id=\"Rule%20for%20testfile.txt\"";
    assert_eq!(header.as_deref(), Some(expected));
    let fast = Days::of(10_000);
    assert_eq!(configuration.decide(&Version { modified_ms: 1, ..OBJECT }, 39_999, fast), None);
    assert_eq!(configuration.decide(&Version { modified_ms: 1, ..OBJECT }, 40_000, fast), Some(Action::Expire));
}

#[test]
fn only_what_the_filter_names_expires() {
    let tags = [("k".to_owned(), "v".to_owned()), ("x".to_owned(), "y".to_owned())];
    let filtered = |filter: Filter| rules(vec![Rule { expiration: Some(Expiration::Date(0)), filter, ..rule("1") }]);
    let expires = |filter: Filter, object: &Version<'_>| filtered(filter).decide(object, 1, Days::default()).is_some();
    let tagged = Version { tags: &tags, ..OBJECT };
    let by_tag = Filter { tags: vec![tags[0].clone()], ..Filter::default() };
    assert!(expires(by_tag.clone(), &tagged) && !expires(by_tag, &OBJECT));
    let prefix = |prefix: &str| Filter { prefix: Some(prefix.to_owned()), ..Filter::default() };
    assert!(expires(prefix("logs/"), &OBJECT) && !expires(prefix("/logs"), &OBJECT) && expires(prefix(""), &OBJECT));
    let sized = |larger_than, smaller_than| Filter { larger_than, smaller_than, ..Filter::default() };
    assert!(expires(sized(Some(99), Some(101)), &OBJECT));
    assert!(!expires(sized(Some(100), None), &OBJECT) && !expires(sized(None, Some(100)), &OBJECT));
    let disabled = Rule { enabled: false, expiration: Some(Expiration::Date(0)), ..rule("1") };
    assert_eq!(rules(vec![disabled]).decide(&OBJECT, 1, Days::default()), None);
}

/// Versions: what is current expires by age, what is not by how long it has not been; a marker goes when it is alone.
#[test]
fn versions_and_markers_go_by_where_they_stand() {
    let days = Days::of(10);
    let current = rules(vec![Rule { expiration: Some(Expiration::Days(1)), ..rule("1") }]);
    let marker = rules(vec![Rule { expiration: Some(Expiration::ExpiredDeleteMarker), ..rule("1") }]);
    let noncurrent = Noncurrent { days: 1, keep_newer: Some(2) };
    let old = rules(vec![Rule { noncurrent: Some(noncurrent), ..rule("1") }]);
    let alone = Version { delete_marker: true, ..OBJECT };
    let covering = Version { standing: Standing::Current { only: false }, ..alone };
    let superseded = |since_ms, newer| Version { standing: Standing::Noncurrent { since_ms, newer }, ..OBJECT };
    let decide = |configuration: &Configuration, version: &Version<'_>| configuration.decide(version, 100, days);
    assert_eq!(decide(&current, &covering), None, "what it hides would come back");
    assert_eq!(decide(&current, &alone), Some(Action::DeleteVersion));
    assert_eq!(decide(&marker, &alone), Some(Action::DeleteVersion));
    assert_eq!(decide(&marker, &OBJECT), None);
    assert_eq!(decide(&current, &superseded(0, 9)), None, "that rule is about current versions");
    assert_eq!(decide(&old, &superseded(0, 2)), Some(Action::DeleteVersion));
    assert_eq!(decide(&old, &superseded(0, 1)), None, "two newer ones are kept");
    assert_eq!(decide(&old, &superseded(95, 2)), None);
    assert_eq!(decide(&old, &OBJECT), None);
    assert_eq!(old.expiration_header(&OBJECT, days), None);
}

#[test]
fn uploads_are_aborted_and_their_clients_told() {
    let configuration = rules(vec![
        Rule { abort_days: Some(7), ..rule("late") },
        Rule {
            abort_days: Some(1),
            filter: Filter { prefix: Some("a/".to_owned()), ..Filter::default() },
            ..rule("soon")
        },
    ]);
    let begun = ms("2024-02-28T10:00:00Z");
    let told = |key| configuration.abort_date(key, begun, Days::default()).expect("a rule");
    assert_eq!(http_date(told("a/b").0), "Fri, 01 Mar 2024 00:00:00 GMT");
    assert_eq!((told("a/b").1.id.as_str(), told("b").1.id.as_str()), ("soon", "late"));
    assert!(!configuration.aborts("a/b", begun, ms("2024-02-29T23:59:59Z"), Days::default()));
    assert!(configuration.aborts("a/b", begun, ms("2024-03-01"), Days::default()));
}

/// The earliest of several rules is announced.
#[test]
fn the_first_expiry_is_announced() {
    let of = |id: &str, days| Rule { expiration: Some(Expiration::Days(days)), ..rule(id) };
    let header = rules(vec![of("slow", 9), of("quick", 2)]).expiration_header(&OBJECT, Days::default());
    assert_eq!(header.as_deref(), Some("expiry-date=\"Sat, 03 Jan 1970 00:00:00 GMT\", rule-id=\"quick\""));
}

#[test]
fn wrong_configurations_are_refused_as_aws_does() {
    let refused = |rule: Rule| {
        let refusal = Configuration::new(vec![rule]).expect_err("wrong");
        format!("{} {}", refusal.code, refusal.message)
    };
    let days = |days| Rule { expiration: Some(Expiration::Days(days)), ..rule("1") };
    let with = |filter| Rule { filter, ..days(1) };
    let tags = |names: &[&str]| names.iter().map(|name| ((*name).to_owned(), String::new())).collect::<Vec<_>>();
    let tagged = |names: &[&str]| Filter { tags: tags(names), ..Filter::default() };
    let sized = Filter { larger_than: Some(9), smaller_than: Some(10), ..Filter::default() };
    let keep = |days, keep_newer| Rule { noncurrent: Some(Noncurrent { days, keep_newer }), ..rule("1") };
    let table = [
        (rule("1"), "InvalidRequest At least one action"),
        (days(0), "InvalidArgument 'Days' for Expiration action must be a positive integer"),
        (Rule { expiration: Some(Expiration::Date(1)), ..rule("1") }, "InvalidArgument 'Date' must be at midnight GMT"),
        (Rule { id: "i".repeat(256), ..days(1) }, "InvalidArgument ID length"),
        (with(tagged(&["a", "a"])), "InvalidRequest Duplicate Tag Keys"),
        (with(sized.clone()), "InvalidRequest 'ObjectSizeGreaterThan'"),
        (
            Rule { abort_days: Some(1), ..with(tagged(&["a"])) },
            "InvalidRequest AbortIncompleteMultipartUpload cannot be specified with Tags",
        ),
        (Rule { abort_days: Some(0), ..rule("1") }, "InvalidArgument 'DaysAfterInitiation'"),
        (
            Rule { expiration: Some(Expiration::ExpiredDeleteMarker), ..with(tagged(&["a"])) },
            "InvalidRequest ExpiredObjectDeleteMarker cannot be specified with Tags",
        ),
        (keep(0, None), "InvalidArgument 'NoncurrentDays'"),
        (keep(1, Some(0)), "InvalidArgument 'NewerNoncurrentVersions'"),
        (keep(1, Some(101)), "InvalidArgument 'NewerNoncurrentVersions'"),
    ];
    for (rule, expected) in table {
        let refused = refused(rule);
        assert!(refused.starts_with(expected), "{refused}");
    }
    let abort = Rule { abort_days: Some(1), filter: Filter { larger_than: Some(9), ..Filter::default() }, ..rule("1") };
    assert_eq!(refused(abort), "InvalidRequest AbortIncompleteMultipartUpload cannot be specified with Object Size.");
    assert_eq!(Configuration::new(vec![]).expect_err("empty").code, "MalformedXML");
    assert_eq!(Configuration::new(vec![days(1), days(2)]).expect_err("same id").code, "InvalidArgument");
    let mut unnamed = vec![Rule { id: String::new(), ..days(1) }, days(2)];
    fill_ids(&mut unnamed, |place| format!("rule-{place}"));
    assert_eq!(unnamed.iter().map(|rule| rule.id.as_str()).collect::<Vec<_>>(), ["rule-0", "1"]);
}

proptest! {
    /// Danger: something expires before its days are over, or is announced for another time than it goes.
    #[test]
    fn nothing_expires_early(modified in 0..1u64 << 45, days in 1..100_000u32, now in 0..1u64 << 46) {
        let configuration = rules(vec![Rule { expiration: Some(Expiration::Days(days)), ..rule("1") }]);
        let object = Version { modified_ms: modified, ..OBJECT };
        let full = modified + u64::from(days) * DAY_MS;
        let expired = configuration.decide(&object, now, Days::default()).is_some();
        prop_assert!(!expired || now >= full);
        prop_assert!(expired || now < full + DAY_MS);
    }

    #[test]
    fn no_days_overflow(since: u64, days: u32, day_ms: u64) {
        let _ = Days::of(day_ms).due(since, days);
    }
}
