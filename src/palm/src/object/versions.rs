//! Listing versions: a scan of heads, and of the pages of those keys that have more versions than a head holds.

use palm_core::hlc::Stamp;
use palm_core::record::{HeadRecord, LineRecord, PageRecord, Stored, Summary, key};
use palm_core::s3::version::{Kind, Name, VersionId};

use super::head::head_in;
use super::list::{scan_query, text};
use super::moves::ATTEMPTS;
use super::store::At;
use super::{ListQuery, Listed, ObjectError, Store};
use crate::pool::ledger::Item;

/// Which versions a listing asks for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct VersionsQuery {
    /// Of which keys; `limit` counts versions and groups together.
    pub keys: ListQuery,
    /// Of the key that is `keys.start`, only those that come after this one.
    pub after: Option<Name>,
}

/// A version, or a delete marker, as listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedVersion {
    /// Its id.
    pub id: Name,
    /// Who names no version is shown this one.
    pub is_latest: bool,
    /// Milliseconds since the Unix epoch.
    pub modified_ms: u64,
    /// What else there is to say.
    pub kind: Kind<Summary>,
}

/// One page of a listing of versions.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct VersionsPage {
    /// By key, and those of one key newest first.
    pub items: Vec<Listed<ListedVersion>>,
    /// There are more: the next page begins after the last item.
    pub truncated: bool,
    /// Not a strong listing, but what this peer knew while no majority was in reach.
    pub stale: bool,
}

impl Store {
    /// A page of the versions of a bucket's objects. Each head on it is read strongly; what was answered before the request
    /// began is listed.
    pub async fn list_versions(&self, bucket: &str, query: VersionsQuery) -> Result<VersionsPage, ObjectError> {
        self.known_bucket(bucket).await?;
        let base = key::objects(bucket);
        let VersionsQuery { keys, mut after } = query;
        let limit = keys.limit as usize;
        let mut scan = scan_query(&base, &keys);
        let mut answer = VersionsPage::default();
        while answer.items.len() < limit {
            scan.limit = u32::try_from(limit - answer.items.len()).unwrap_or(keys.limit);
            let (page, stale) = self.scan_or_stale(scan.clone()).await?;
            answer.stale |= stale;
            for item in page.items {
                let room = limit - answer.items.len();
                if room == 0 {
                    answer.truncated = true;
                    return Ok(answer);
                }
                let (register, current) = match item {
                    Item::Register(register, current) => (register, current),
                    Item::Group(prefix) => {
                        answer.items.push(Listed::Group(text(&prefix, base.len())?));
                        continue;
                    }
                };
                let name = text(&register, base.len())?;
                let after = after.take().filter(|_| name == keys.start);
                let at = At { bucket: bucket.to_owned(), register };
                let walk = self.versions_of(&at, HeadRecord::of(&current)?, after, room).await?;
                answer.items.extend(walk.found.into_iter().map(|version| Listed::Key(name.clone(), version)));
                if walk.more {
                    answer.truncated = true;
                    return Ok(answer);
                }
            }
            match page.next {
                Some(next) => {
                    scan.start = next;
                    answer.truncated = answer.items.len() == limit;
                }
                None => return Ok(answer),
            }
        }
        Ok(answer)
    }

    /// Some versions of one key.
    async fn versions_of(
        &self,
        at: &At,
        mut head: HeadRecord,
        after: Option<Name>,
        room: usize,
    ) -> Result<Walk, ObjectError> {
        for _ in 0..ATTEMPTS {
            if let Some(walk) = self.walk_lines(at, &head, after, room).await? {
                return Ok(walk);
            }
            // A page was taken back into the head since that was read.
            head = head_in(self.ledger.read(&at.register).await?.as_ref())?;
        }
        Err(ObjectError::Overloaded)
    }

    /// The same, as this head has them. `None` where one of its pages is no longer there.
    async fn walk_lines(
        &self,
        at: &At,
        head: &HeadRecord,
        after: Option<Name>,
        room: usize,
    ) -> Result<Option<Walk>, ObjectError> {
        let mut walk = Walk::new(head, after, room);
        walk.take(&head.recent);
        for page in &head.pages {
            if walk.more {
                break;
            }
            if !walk.wants(Place::of(page.oldest)) {
                continue;
            }
            let Some(current) = self.ledger.read(&key::page(&at.register, page.id)).await? else { return Ok(None) };
            walk.take(&PageRecord::decode(&current.value)?.lines);
        }
        walk.take_null();
        Ok(Some(walk))
    }
}

/// Where a version stands among those of its key: later ones are newer. The null version is before one of the same stamp.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    stamp: Stamp,
    null: bool,
    nonce: u64,
}

impl Place {
    fn of(VersionId { stamp, nonce }: VersionId) -> Self {
        Self { stamp, null: false, nonce }
    }

    fn of_null(stamp: Stamp) -> Self {
        Self { stamp, null: true, nonce: 0 }
    }
}

/// A walk over the versions of one key, newest first.
struct Walk {
    /// Only what is older is wanted.
    below: Option<Place>,
    room: usize,
    /// The null version, as long as it is still to come.
    null: Option<(Stamp, Kind<Summary>)>,
    /// Nothing was passed yet: the next one is the latest.
    first: bool,
    found: Vec<ListedVersion>,
    /// There was one for which there was no room.
    more: bool,
}

impl Walk {
    fn new(head: &HeadRecord, after: Option<Name>, room: usize) -> Self {
        let null = head.null.as_ref().map(|null| {
            let kind = match &null.kind {
                Kind::Object(object) => Kind::Object(object.into()),
                Kind::DeleteMarker => Kind::DeleteMarker,
            };
            (null.stamp, kind)
        });
        let below = match after {
            Some(Name::Id(id)) => Some(Place::of(id)),
            // Where it is gone, nobody knows what came after it: all are listed again rather than some left out.
            Some(Name::Null) => null.as_ref().map(|(stamp, _)| Place::of_null(*stamp)),
            None => None,
        };
        Self { below, room, null, first: true, found: Vec::new(), more: false }
    }

    fn wants(&self, place: Place) -> bool {
        self.below.is_none_or(|below| place < below)
    }

    fn take(&mut self, lines: &[LineRecord]) {
        for line in lines {
            if self.null.as_ref().is_some_and(|(stamp, _)| Place::of_null(*stamp) > Place::of(line.id)) {
                self.take_null();
            }
            self.add(Place::of(line.id), Name::Id(line.id), line.kind.clone());
        }
    }

    fn take_null(&mut self) {
        if let Some((stamp, kind)) = self.null.take() {
            self.add(Place::of_null(stamp), Name::Null, kind);
        }
    }

    fn add(&mut self, place: Place, id: Name, kind: Kind<Summary>) {
        let is_latest = std::mem::take(&mut self.first);
        if !self.wants(place) {
            return;
        }
        if self.found.len() == self.room {
            self.more = true;
            return;
        }
        self.found.push(ListedVersion { id, is_latest, modified_ms: place.stamp.millis(), kind });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(stamp: u64) -> VersionId {
        VersionId { stamp: Stamp(stamp), nonce: 7 }
    }

    fn head() -> HeadRecord {
        let line = |stamp| LineRecord { id: id(stamp), kind: Kind::DeleteMarker };
        let null = palm_core::s3::version::Null { stamp: Stamp(20), kind: Kind::DeleteMarker };
        HeadRecord { null: Some(null), recent: vec![line(30), line(20), line(10)], ..HeadRecord::default() }
    }

    fn names(after: Option<Name>, room: usize) -> (Vec<(Name, bool)>, bool) {
        let head = head();
        let mut walk = Walk::new(&head, after, room);
        walk.take(&head.recent);
        walk.take_null();
        (walk.found.iter().map(|version| (version.id, version.is_latest)).collect(), walk.more)
    }

    /// Scenario: a client lists four versions of a key page by page, the null version among them. Danger: at the seam one
    /// is left out or comes twice, or a second one is called the latest. Expectation: each page goes on where the
    /// last ended, whichever version that was (<https://docs.aws.amazon.com/AmazonS3/latest/API/API_ListObjectVersions.html>).
    #[test]
    fn pages_of_versions_join_without_gap() {
        let all = [Name::Id(id(30)), Name::Null, Name::Id(id(20)), Name::Id(id(10))];
        assert_eq!(names(None, 9), (all.iter().map(|name| (*name, *name == all[0])).collect(), false));
        for room in 1..4 {
            let (mut listed, mut after) = (Vec::new(), None);
            loop {
                let (page, more) = names(after, room);
                after = page.last().map(|(name, _)| *name);
                listed.extend(page.into_iter().map(|(name, _)| name));
                if !more {
                    break;
                }
            }
            assert_eq!(listed, all);
        }
        assert_eq!(names(Some(Name::Id(id(25))), 9).0.len(), 3, "the marker itself may be gone");
    }
}
