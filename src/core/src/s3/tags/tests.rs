use proptest::prelude::*;

use super::*;

fn tags(pairs: &[(&str, &str)]) -> Vec<Tag> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

#[test]
fn headers_are_read_as_queries() {
    assert_eq!(parse_header("a=1&b=x%20y+z&c="), Ok(tags(&[("a", "1"), ("b", "x y z"), ("c", "")])));
    assert_eq!(parse_header("%C3%A4"), Ok(tags(&[("ä", "")])));
    assert_eq!(parse_header(""), Ok(vec![]));
    for wrong in ["=", "=1", "a=1&a=2", "a=%", "a=%F", "a=%FF", "a=%+1"] {
        assert_eq!(parse_header(wrong).expect_err(wrong).code, "InvalidArgument", "{wrong}");
    }
    let eleven = (0..11).map(|n| format!("k{n}=v")).collect::<Vec<_>>().join("&");
    assert_eq!(parse_header(&eleven).expect_err("too many").code, "InvalidTag");
}

/// The limits of <https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-tagging.html>.
#[test]
fn limits_are_kept() {
    let one = |name: &str, value: &str| validate(tags(&[(name, value)]), On::Object).map_err(|refusal| refusal.code);
    assert!(one(&"n".repeat(128), &"v".repeat(256)).is_ok());
    assert!(one("a+b-c=d.e_f:g/h@i j", "äöü 日本").is_ok());
    for (name, value) in [("", "v"), ("n;", "v"), ("n", "v\n"), ("aws:x", "v"), ("AWS:x", "v")] {
        assert_eq!(one(name, value), Err("InvalidTag"), "{name:?} {value:?}");
    }
    assert_eq!(one(&"n".repeat(129), "v"), Err("InvalidTag"));
    assert_eq!(one("n", &"v".repeat(257)), Err("InvalidTag"));
    assert_eq!(validate(tags(&[("a", "1"), ("a", "2")]), On::Bucket).expect_err("twice").code, "InvalidTag");
    let many = |count: usize| (0..count).map(|n| (n.to_string(), String::new())).collect::<Vec<_>>();
    assert!(validate(many(50), On::Bucket).is_ok());
    assert!(validate(many(51), On::Bucket).is_err());
    assert!(validate(many(11), On::Object).is_err());
}

#[test]
fn copies_take_or_replace_tags() {
    let (source, given) = (tags(&[("a", "1")]), tags(&[("b", "2")]));
    assert_eq!(of_copy(None, source.clone(), Some(given.clone())), Ok(source.clone()));
    assert_eq!(of_copy(Some("REPLACE"), source.clone(), Some(given.clone())), Ok(given));
    assert_eq!(of_copy(Some("REPLACE"), source.clone(), None), Ok(vec![]));
    assert_eq!(of_copy(Some("replace"), source, None).expect_err("unknown").code, "InvalidArgument");
}

proptest! {
    #[test]
    fn no_header_panics(header in "[a-c=&%+0-9A-F]{0,60}|\\PC{0,40}") {
        if let Ok(tags) = parse_header(&header) {
            prop_assert!(tags.len() <= OBJECT_TAGS_MAX);
            prop_assert_eq!(validate(tags.clone(), On::Object), Ok(tags));
        }
    }
}
