//! Listings: pages of registers as keys and common prefixes.

use bytes::Bytes;
use palm_core::record::{HeadRecord, Summary, key};
use palm_core::s3::version::{Current, Kind, Line, Null};
use palm_core::wire::ScanQuery;

use super::{ObjectError, Store};
use crate::pool::ledger::Item;

/// Which keys a listing asks for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ListQuery {
    /// Keys start with it.
    pub prefix: String,
    /// Keys from here on (inclusive). The front end turns marker, start-after and tokens into it with
    /// [`after_key`] and [`after_group`].
    pub start: String,
    /// Groups keys by it; never empty.
    pub delimiter: Option<String>,
    /// Keys and groups together, at most 1000.
    pub limit: u32,
}

/// One line of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listed<T> {
    /// A key.
    Key(String, T),
    /// A common prefix, with its delimiter.
    Group(String),
}

/// One page of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListPage<T> {
    /// Keys and groups in binary order.
    pub items: Vec<Listed<T>>,
    /// Where the next page starts ([`ListQuery::start`]); `None` when this was the last.
    pub next: Option<String>,
    /// Not a strong listing, but what this peer knew while no majority was in reach.
    pub stale: bool,
}

/// What a listing says of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedObject {
    /// Milliseconds since the Unix epoch.
    pub modified_ms: u64,
    /// The rest.
    pub summary: Summary,
}

impl ListedObject {
    /// The current version of a head; `None` where that is a delete marker.
    fn of(head: &HeadRecord) -> Option<Self> {
        let (stamp, summary) = match head.current()? {
            Current::Null(Null { stamp, kind: Kind::Object(object) }) => (stamp, Summary::from(object)),
            Current::Version(Line { id, kind: Kind::Object(summary) }) => (&id.stamp, summary.clone()),
            _ => return None,
        };
        Some(Self { modified_ms: stamp.millis(), summary })
    }
}

impl Store {
    /// A page of a bucket's objects, linearizable; labelled where it is stale.
    pub async fn list(&self, bucket: &str, query: ListQuery) -> Result<ListPage<ListedObject>, ObjectError> {
        let base = key::objects(bucket);
        let register = key::bucket(bucket);
        let (found, page) =
            tokio::join!(self.ledger.read_shared(&register), self.objects_or_stale(scan_query(&base, &query)));
        let (found, _) = self.or_stale(found, &register)?;
        if found.is_none() {
            return Err(ObjectError::NoSuchBucket);
        }
        let (page, stale) = page?;
        let mut items = Vec::with_capacity(page.items.len());
        for item in page.items {
            match item {
                Item::Register(register, current) => {
                    let shown = ListedObject::of(&HeadRecord::of(&current)?);
                    let key = text(&register, base.len())?;
                    items.extend(shown.map(|object| Listed::Key(key, object)));
                }
                Item::Group(prefix) => items.push(Listed::Group(text(&prefix, base.len())?)),
            }
        }
        Ok(ListPage { items, next: page.next.and_then(|next| resume_at(&next, base.len())), stale })
    }
}

/// The first key that may follow `key`: keys hold no NUL.
pub fn after_key(key: &str) -> String {
    format!("{key}\0")
}

/// The first key after all keys that start with `prefix`; `None` when there can be none.
pub fn after_group(prefix: &str) -> Option<String> {
    let mut chars: Vec<char> = prefix.chars().collect();
    while let Some(last) = chars.pop() {
        // UTF-8 sorts by code point, so the next character ends the group; `succ` steps over surrogates.
        if let Some(next) = (last..=char::MAX).nth(1) {
            chars.push(next);
            return Some(chars.into_iter().collect());
        }
    }
    None
}

/// A page of registers under `base` (a family and bucket) for a listing.
pub(super) fn scan_query(base: &[u8], query: &ListQuery) -> ScanQuery {
    let under = |text: &str| Bytes::from([base, text.as_bytes()].concat());
    ScanQuery {
        prefix: under(&query.prefix),
        start: under(&query.start),
        delimiter: query.delimiter.as_ref().map(|delimiter| Bytes::copy_from_slice(delimiter.as_bytes())),
        limit: query.limit,
    }
}

/// A register key without its first `base` bytes.
pub(super) fn text(register: &[u8], base: usize) -> Result<String, ObjectError> {
    let rest = register.get(base..).and_then(|rest| std::str::from_utf8(rest).ok());
    rest.map(str::to_owned).ok_or_else(|| ObjectError::Internal("a register key is not UTF-8".to_owned()))
}

/// The start of the next page as text: the smallest text not below the register key's bytes. They differ
/// where the ledger skipped a group by raising its last byte, which can leave UTF-8; no key lies between. `None`
/// when no key can follow.
pub(super) fn resume_at(register: &[u8], base: usize) -> Option<String> {
    let bytes = register.get(base..)?;
    let (whole, rest) = match std::str::from_utf8(bytes) {
        Ok(text) => return Some(text.to_owned()),
        Err(error) => bytes.split_at(error.valid_up_to()),
    };
    let whole = std::str::from_utf8(whole).ok()?;
    match char_not_below(rest) {
        Some(next) => Some(format!("{whole}{next}")),
        None => after_group(whole),
    }
}

/// The first character whose UTF-8 is not below these bytes.
fn char_not_below(bytes: &[u8]) -> Option<char> {
    let below = |code: u32| match char::from_u32(code) {
        Some(c) => c.encode_utf8(&mut [0; 4]).as_bytes() < bytes,
        // A surrogate: as its next real character.
        None => "\u{e000}".as_bytes() < bytes,
    };
    let (mut low, mut high) = (0, u32::from(char::MAX) + 1);
    while low < high {
        let middle = low.midpoint(high);
        if below(middle) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    match low {
        0xd800..=0xdfff => Some('\u{e000}'),
        code => char::from_u32(code),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A client pages through folders. If the start of the next page fell inside a group, the group would be
    /// listed twice; if beyond it, a key would be missed. So `after_group` must be above every key of the
    /// group and not above any other.
    #[test]
    fn the_end_of_a_group_is_tight() {
        for (prefix, after) in [
            ("a/", Some("a0")),
            ("é", Some("ê")),
            ("a\u{d7ff}", Some("a\u{e000}")),
            ("a\u{10ffff}", Some("b")),
            ("\u{10ffff}", None),
            ("", None),
        ] {
            assert_eq!(after_group(prefix).as_deref(), after, "{prefix:?}");
        }
        assert!(after_key("a").as_str() > "a");
        assert!(after_key("a").as_str() < "a\u{1}");
    }

    /// The ledger works on bytes and may resume at ones that are no text; the front end's token must then be
    /// the first text not below them, or keys would be repeated or skipped.
    #[test]
    fn a_page_resumes_at_the_first_text_not_below_the_bytes() {
        assert_eq!(resume_at(b"ob\0a/b", 3).as_deref(), Some("a/b"));
        assert_eq!(resume_at(b"x", 1).as_deref(), Some(""));
        let samples: Vec<char> = (0..=0x0010_ffff)
            .step_by(997)
            .chain([0x7f, 0x80, 0x7ff, 0x800, 0xffff])
            .filter_map(char::from_u32)
            .collect();
        let mut bytes: Vec<Vec<u8>> = Vec::new();
        for lead in 0x80..=0xff_u8 {
            bytes.push(vec![lead]);
            for second in [0x00, 0x7f, 0x80, 0x90, 0x9f, 0xa0, 0xbf, 0xc0, 0xff] {
                bytes.push(vec![lead, second]);
                bytes.push(vec![lead, second, 0xbf]);
                bytes.push(vec![lead, second, 0xbf, 0xc0]);
            }
        }
        for rest in bytes {
            let whole = [b"k".as_slice(), &rest].concat();
            let resumed = resume_at(&whole, 0);
            for &c in &samples {
                let text = format!("k{c}");
                let after = text.as_bytes() >= whole.as_slice();
                let included = resumed.as_ref().is_some_and(|resumed| text >= *resumed);
                assert_eq!(after, included, "{rest:x?} {c:?} {resumed:?}");
            }
        }
    }

    #[test]
    fn queries_stay_under_their_bucket() {
        let query = ListQuery { prefix: "a/".into(), start: "a/b".into(), delimiter: Some("/".into()), limit: 3 };
        let scan = scan_query(&key::objects("bkt"), &query);
        assert_eq!(scan.prefix, "obkt\0a/");
        assert_eq!(scan.start, "obkt\0a/b");
        assert_eq!(scan.delimiter.as_deref(), Some(&b"/"[..]));
    }
}
