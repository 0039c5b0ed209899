//! Conditional requests: RFC 9110, section 13, as S3 applies it.

use http::HeaderMap;
use http::header::IF_RANGE;
use s3s::dto::{
    CopyObjectInput, ETagCondition, GetObjectInput, HeadObjectInput, Timestamp, TimestampFormat, UploadPartCopyInput,
};
use s3s::{S3Error, S3Result};
use time::OffsetDateTime;

use super::error;
use crate::object::WriteConditions;

/// Conditions of a read, or of the source of a copy.
#[derive(Debug, Default)]
pub struct ReadConditions {
    /// `If-Match`, as text.
    pub matches: Option<String>,
    /// `If-None-Match`, as text.
    pub none_match: Option<String>,
    /// `If-Modified-Since`, seconds since the Unix epoch.
    pub modified_since: Option<i64>,
    /// `If-Unmodified-Since`, seconds since the Unix epoch.
    pub unmodified_since: Option<i64>,
}

/// What conditions say about a representation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Go on.
    Proceed,
    /// The client has it already: 304 to a read, 412 to a copy.
    NotModified,
    /// 412.
    Failed,
}

impl ReadConditions {
    /// Judges an object by its entity tag (unquoted) and modification time, in the order of RFC 9110,
    /// section 13.2.2: a tag condition, where given, silences the date condition beside it.
    pub fn judge(&self, etag: &str, modified_ms: u64) -> Verdict {
        // Dates have a resolution of one second, ours of one millisecond.
        let modified = i64::try_from(modified_ms / 1000).unwrap_or(i64::MAX);
        let failed = match (&self.matches, self.unmodified_since) {
            (Some(list), _) => !matches_strongly(list, etag),
            (None, Some(date)) => modified > date,
            (None, None) => false,
        };
        if failed {
            return Verdict::Failed;
        }
        let known = match (&self.none_match, self.modified_since) {
            (Some(list), _) => matches_weakly(list, etag),
            (None, Some(date)) => modified <= date,
            (None, None) => false,
        };
        if known { Verdict::NotModified } else { Verdict::Proceed }
    }
}

/// Whether a range of an object may be sent, or all of it because it is not what `If-Range` names, of which the client has a piece
/// (RFC 9110, section 13.1.5).
pub fn may_be_partial(headers: &HeaderMap, etag: &str, modified_ms: u64) -> bool {
    let Some(named) = headers.get(IF_RANGE) else { return true };
    let named = named.to_str().unwrap_or_default().trim();
    match Timestamp::parse(TimestampFormat::HttpDate, named) {
        Ok(date) => u64::try_from(seconds(date)) == Ok(modified_ms / 1000),
        // A weak tag keeps its mark, and so equals none.
        Err(_) => named.trim_matches('"') == etag,
    }
}

/// The tags of a list such as `"a", W/"b", c`: unquoted, with whether each is weak.
fn tags(list: &str) -> impl Iterator<Item = (&str, bool)> {
    // Tags of S3 hold no comma, so a comma always separates.
    list.split(',').map(|item| {
        let item = item.trim();
        let (item, weak) = item.strip_prefix("W/").map_or((item, false), |rest| (rest, true));
        (item.trim_matches('"'), weak)
    })
}

fn matches_strongly(list: &str, etag: &str) -> bool {
    list == "*" || tags(list).any(|(tag, weak)| !weak && tag == etag)
}

fn matches_weakly(list: &str, etag: &str) -> bool {
    list == "*" || tags(list).any(|(tag, _)| tag == etag)
}

/// The header's text: s3s keeps a list of tags as one odd tag, which only its text shows.
fn text(condition: ETagCondition) -> String {
    match condition {
        ETagCondition::Any => "*".to_owned(),
        ETagCondition::ETag(s3s::dto::ETag::Strong(value)) => format!("\"{value}\""),
        ETagCondition::ETag(s3s::dto::ETag::Weak(value)) => format!("W/\"{value}\""),
    }
}

/// Seconds since the Unix epoch.
pub fn seconds(timestamp: Timestamp) -> i64 {
    OffsetDateTime::from(timestamp).unix_timestamp()
}

macro_rules! read_conditions {
    ($name:ident, $input:ty, $matches:ident, $none_match:ident, $modified:ident, $unmodified:ident) => {
        /// Takes the conditions out of a request.
        pub fn $name(input: &mut $input) -> ReadConditions {
            ReadConditions {
                matches: input.$matches.take().map(text),
                none_match: input.$none_match.take().map(text),
                modified_since: input.$modified.take().map(seconds),
                unmodified_since: input.$unmodified.take().map(seconds),
            }
        }
    };
}
read_conditions!(of_get, GetObjectInput, if_match, if_none_match, if_modified_since, if_unmodified_since);
read_conditions!(of_head, HeadObjectInput, if_match, if_none_match, if_modified_since, if_unmodified_since);
read_conditions!(
    of_copy,
    CopyObjectInput,
    copy_source_if_match,
    copy_source_if_none_match,
    copy_source_if_modified_since,
    copy_source_if_unmodified_since
);
read_conditions!(
    of_part_copy,
    UploadPartCopyInput,
    copy_source_if_match,
    copy_source_if_none_match,
    copy_source_if_modified_since,
    copy_source_if_unmodified_since
);

/// Conditions of a write. AWS knows `If-None-Match: *` and `If-Match` with one tag or `*`; one tag in `If-None-Match` works here
/// too, as public suites ask for it. Anything else is refused rather than half obeyed.
pub fn of_write(matches: Option<ETagCondition>, none_match: Option<&ETagCondition>) -> S3Result<WriteConditions> {
    let if_absent = matches!(none_match, Some(ETagCondition::Any));
    let unless = none_match.filter(|_| !if_absent).cloned().map(one_tag).transpose()?;
    let if_match = matches.map(one_tag).transpose()?;
    Ok(WriteConditions { if_absent, if_match, unless, unchanged: None })
}

fn one_tag(condition: ETagCondition) -> Result<String, S3Error> {
    let text = text(condition);
    if text.contains(',') {
        return Err(error::not_implemented("A condition of a write takes one entity tag"));
    }
    // A weak tag keeps its mark and so matches nothing, as strong comparison wants.
    Ok(text.trim_matches('"').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ETAG: &str = "0123456789abcdef0123456789abcdef";
    const MODIFIED_MS: u64 = 1_000_000_500;
    const MODIFIED: i64 = 1_000_000;

    fn judge(
        matches: Option<&str>,
        unmodified_since: Option<i64>,
        none_match: Option<&str>,
        modified_since: Option<i64>,
    ) -> Verdict {
        let conditions = ReadConditions {
            matches: matches.map(str::to_owned),
            none_match: none_match.map(str::to_owned),
            modified_since,
            unmodified_since,
        };
        conditions.judge(ETAG, MODIFIED_MS)
    }

    /// Scenario: each pair of conditions, true and false. Danger: a date that contradicts a tag wins and
    /// a cache serves what is not there any more. Expectation: the steps of RFC 9110, section 13.2.2.
    #[test]
    fn precedence_follows_rfc_9110() {
        let same = format!("\"{ETAG}\"");
        let (same, other) = (Some(same.as_str()), Some("\"other\""));
        let (before, at, after) = (Some(MODIFIED - 1), Some(MODIFIED), Some(MODIFIED + 1));
        let table = [
            (None, None, None, None, Verdict::Proceed),
            // Step 1: If-Match decides.
            (same, None, None, None, Verdict::Proceed),
            (other, None, None, None, Verdict::Failed),
            (Some("*"), None, None, None, Verdict::Proceed),
            // Step 2: If-Unmodified-Since only without If-Match.
            (None, before, None, None, Verdict::Failed),
            (None, at, None, None, Verdict::Proceed),
            (same, before, None, None, Verdict::Proceed),
            (other, after, None, None, Verdict::Failed),
            // Step 3: If-None-Match.
            (None, None, same, None, Verdict::NotModified),
            (None, None, other, None, Verdict::Proceed),
            (None, None, Some("*"), None, Verdict::NotModified),
            // Step 4: If-Modified-Since only without If-None-Match.
            (None, None, None, before, Verdict::Proceed),
            (None, None, None, at, Verdict::NotModified),
            (None, None, other, after, Verdict::Proceed),
            (None, None, same, before, Verdict::NotModified),
            // The first two steps come before the last two.
            (other, None, same, None, Verdict::Failed),
            (same, None, same, None, Verdict::NotModified),
            (None, before, None, after, Verdict::Failed),
        ];
        for (matches, unmodified, none_match, modified, expected) in table {
            let got = judge(matches, unmodified, none_match, modified);
            assert_eq!(got, expected, "{matches:?} {unmodified:?} {none_match:?} {modified:?}");
        }
    }

    /// Scenario: a browser goes on with a download. Danger: the object was replaced meanwhile, and the file is made of both. Expectation: a
    /// piece of what the browser has a piece of, else the whole.
    #[test]
    fn a_piece_of_another_object_is_not_sent() {
        let may = |named: &str| {
            let headers = HeaderMap::from_iter([(IF_RANGE, named.parse().expect("header"))]);
            may_be_partial(&headers, ETAG, MODIFIED_MS)
        };
        assert!(may(&format!("\"{ETAG}\"")) && may("Mon, 12 Jan 1970 13:46:40 GMT"));
        for other in [
            "\"other\"",
            &format!("W/\"{ETAG}\""),
            "Mon, 12 Jan 1970 13:46:39 GMT",
            "Mon, 12 Jan 1970 13:46:41 GMT",
            "",
        ] {
            assert!(!may(other), "{other}");
        }
        assert!(may_be_partial(&HeaderMap::new(), ETAG, MODIFIED_MS));
    }

    #[test]
    fn lists_and_weak_tags_compare_as_rfc_9110_says() {
        let list = format!("\"a\", \"{ETAG}\"");
        assert_eq!(judge(Some(&list), None, None, None), Verdict::Proceed);
        let weak = format!("W/\"{ETAG}\"");
        assert_eq!(judge(Some(&weak), None, None, None), Verdict::Failed, "If-Match compares strongly");
        assert_eq!(judge(None, None, Some(&weak), None), Verdict::NotModified, "If-None-Match weakly");
        assert_eq!(judge(Some(ETAG), None, None, None), Verdict::Proceed, "unquoted, as many SDKs send it");
    }

    #[test]
    fn writes_take_what_s3_defines_and_refuse_the_rest() {
        let parse = |text: &str| ETagCondition::parse_http_header(text.as_bytes()).expect("header");
        let absent = of_write(None, Some(&parse("*"))).expect("if-none-match: *");
        assert_eq!(absent, WriteConditions { if_absent: true, ..WriteConditions::default() });
        let quoted = of_write(Some(parse("\"abc\"")), None).expect("if-match");
        assert_eq!(quoted.if_match.as_deref(), Some("abc"));
        assert_eq!(of_write(Some(parse("*")), None).expect("if-match: *").if_match.as_deref(), Some("*"));
        assert_eq!(of_write(None, Some(&parse("\"abc\""))).expect("unless").unless.as_deref(), Some("abc"));
        let list = || parse("\"a\", \"b\"");
        for refused in [of_write(None, Some(&list())), of_write(Some(list()), None)] {
            assert_eq!(refused.expect_err("refused").code().as_str(), "NotImplemented");
        }
    }
}
