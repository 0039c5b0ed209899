//! Where segments are now: as their records say, or where repair has put them since.
//!
//! A record names the homes of its segments as they were written. Repair does not change it, since a client may be
//! replacing it at the same time; it writes a [`MovedRecord`] under the segment's id, which overrides it. Whoever
//! needs a segment peeks at this peer's own copy of that: it may be behind, and then the fragments it names are where they
//! were a moment ago, or not found. Only then is it worth asking the voters.

use bytes::Bytes;
use palm_core::id::{BodyId, KeyId, SegmentId};
use palm_core::record::{
    Content, MovedRecord, ObjectRecord, PartRecord, Placed, Segment, SharersRecord, Stored, UploadRecord, key,
};
use palm_core::register::Current;

use super::head::object_in;
use super::store::is_upload;
use super::{ObjectError, Store};
use crate::pool::Decision;

/// What a segment belongs to: enough to find its record again.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Whose {
    /// The body.
    pub(super) body: BodyId,
    /// Register key of an object or version that holds it, or for which it is being uploaded.
    pub(super) object: Bytes,
    /// Number and attempt of the part it is of, where that is known: it saves looking through all of them.
    pub(super) part: Option<(u16, u64)>,
}

/// A segment as its record has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Recorded {
    pub(super) segment: Segment,
    pub(super) data_key: KeyId,
    /// Storage class of what it belongs to.
    pub(super) class: Option<String>,
}

/// What repair has done to a segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Change {
    /// Some fragments are elsewhere, or there at last.
    Mended(Vec<Placed>),
    /// It is coded anew: nothing of the old remains.
    Recoded(Segment),
}

impl Store {
    /// Where a segment is, as far as this peer knows.
    pub(super) fn placed(&self, recorded: &Segment) -> Segment {
        let moved = self.ledger.peek(&key::moved(recorded.id));
        overridden(recorded, moved.as_ref())
    }

    /// Where a segment is.
    pub(super) async fn placed_now(&self, recorded: &Segment) -> Result<Segment, ObjectError> {
        let moved = self.ledger.read(&key::moved(recorded.id)).await?;
        Ok(overridden(recorded, moved.as_ref()))
    }

    /// A segment's record; `None` where nothing refers to it any more.
    pub(super) async fn recorded(&self, whose: &Whose, segment: SegmentId) -> Result<Option<Recorded>, ObjectError> {
        if let Some(found) = self.recorded_in_object(&whose.object, whose, segment).await? {
            return Ok(Some(found));
        }
        if is_upload(whose.body)
            && let Some(found) = self.recorded_in_upload(whose, segment).await?
        {
            return Ok(Some(found));
        }
        let Some(sharers) = self.ledger.read(&key::sharers(whose.body)).await? else { return Ok(None) };
        for object in SharersRecord::decode(&sharers.value)?.objects {
            if let Some(found) = self.recorded_in_object(&object.into(), whose, segment).await? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    async fn recorded_in_object(
        &self,
        object: &Bytes,
        whose: &Whose,
        segment: SegmentId,
    ) -> Result<Option<Recorded>, ObjectError> {
        // This peer's copy nearly always has it; that it does not is for the voters to say.
        let holding = |current: Option<Current>| -> Result<Option<ObjectRecord>, ObjectError> {
            Ok(object_in(object, current.as_ref())?.filter(|record| record.body == whose.body))
        };
        let record = match holding(self.ledger.peek(object))? {
            Some(record) => Some(record),
            None => holding(self.ledger.read(object).await?)?,
        };
        let Some(ObjectRecord { data_key, content, attributes, .. }) = record else { return Ok(None) };
        let found = match content {
            Content::Segments(segments) => segments.into_iter().find(|one| one.id == segment),
            Content::Parts(_) => self.in_parts(whose, segment)?,
        };
        Ok(found.map(|segment| Recorded { segment, data_key, class: attributes.storage_class }))
    }

    async fn recorded_in_upload(&self, whose: &Whose, segment: SegmentId) -> Result<Option<Recorded>, ObjectError> {
        let object = key::object_of(&whose.object);
        let Some((bucket, name)) = key::parse_object(&object) else { return Ok(None) };
        let Some(upload) = self.ledger.read(&key::upload(bucket, name, whose.body)).await? else { return Ok(None) };
        let UploadRecord { data_key, attributes, .. } = UploadRecord::decode(&upload.value)?;
        let found = self.in_parts(whose, segment)?;
        Ok(found.map(|segment| Recorded { segment, data_key, class: attributes.storage_class }))
    }

    fn in_parts(&self, whose: &Whose, segment: SegmentId) -> Result<Option<Segment>, ObjectError> {
        let scanned = match whose.part {
            Some((number, attempt)) => key::part(whose.body, number, attempt),
            None => key::parts(whose.body),
        };
        for (_, part) in self.ledger.local_scan(&scanned)? {
            let found = PartRecord::decode(&part.value)?.segments.into_iter().find(|one| one.id == segment);
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }

    /// Enters into the ledger what repair has done to a segment that it found as `seen`. What others did meanwhile stands:
    /// each fragment counts by itself, a new coding only where nothing has changed. Answers whether anything was entered.
    pub(super) async fn enter_move(
        &self,
        whose: &Whose,
        recorded: &Segment,
        seen: &Segment,
        change: &Change,
    ) -> Result<bool, ObjectError> {
        let entered = self.ledger.update(key::moved(seen.id), |current| {
            let now = overridden(recorded, current);
            match apply(&now, seen, change) {
                None => Decision::Keep(false),
                Some(segment) => {
                    let record = MovedRecord { body: whose.body, object: whose.object.to_vec(), segment };
                    Decision::Put(record.encode(), true)
                }
            }
        });
        Ok(entered.await?.answer)
    }
}

/// The segment as its moved register says, which must be about this very segment.
fn overridden(recorded: &Segment, moved: Option<&Current>) -> Segment {
    let Some(moved) = moved else { return recorded.clone() };
    match MovedRecord::decode(&moved.value) {
        Ok(MovedRecord { segment, .. }) if segment.id == recorded.id && segment.len == recorded.len => segment,
        Ok(_) => {
            tracing::error!(segment = %recorded.id, "moved segment is another");
            recorded.clone()
        }
        Err(error) => {
            tracing::error!(segment = %recorded.id, %error, "moved segment does not read");
            recorded.clone()
        }
    }
}

/// What becomes of the segment `now` when it was changed from `seen`; `None`: it stays.
fn apply(now: &Segment, seen: &Segment, change: &Change) -> Option<Segment> {
    let same_code = (now.k, now.n) == (seen.k, seen.n);
    match change {
        Change::Recoded(segment) => (now == seen).then(|| segment.clone()),
        Change::Mended(_) if !same_code => None,
        Change::Mended(mended) => {
            let mut next = now.clone();
            for placed in mended {
                let at = |segment: &Segment| segment.fragments.iter().position(|one| one.index == placed.index);
                let before = at(seen).map(|at| &seen.fragments[at]);
                match at(&next) {
                    Some(at) if before == Some(&next.fragments[at]) => next.fragments[at] = placed.clone(),
                    None if before.is_none() => next.fragments.push(placed.clone()),
                    // Somebody else has put this fragment somewhere else.
                    _ => {}
                }
            }
            next.fragments.sort_unstable_by_key(|placed| placed.index);
            (next != *now).then_some(next)
        }
    }
}

#[cfg(test)]
mod tests {
    use palm_core::id::{FragmentId, PeerId};

    use super::*;

    fn placed(index: u8, home: u8) -> Placed {
        Placed { index, home: PeerId::from_bytes([home; 32]), id: FragmentId::of(&[index]) }
    }

    fn segment(homes: &[(u8, u8)]) -> Segment {
        let fragments = homes.iter().map(|&(index, home)| placed(index, home)).collect();
        Segment { id: SegmentId::from_bytes([1; 16]), len: 5, k: 2, n: 4, fragments }
    }

    /// Two peers repair one segment at the same time: one rebuilds fragment 0 at peer 7, the other fragment 1 at peer 8.
    /// Both must count. Where they both rebuilt fragment 0, the first stands, or the fragment named would be one that nobody
    /// names any more and that collection may be taking away.
    #[test]
    fn moves_that_meet_are_merged_fragment_by_fragment() {
        let seen = segment(&[(0, 1), (1, 2), (2, 3)]);
        let first = apply(&seen, &seen, &Change::Mended(vec![placed(0, 7)])).unwrap();
        assert_eq!(first, segment(&[(0, 7), (1, 2), (2, 3)]));
        let both = apply(&first, &seen, &Change::Mended(vec![placed(1, 8), placed(3, 9)])).unwrap();
        assert_eq!(both, segment(&[(0, 7), (1, 8), (2, 3), (3, 9)]));
        assert_eq!(apply(&first, &seen, &Change::Mended(vec![placed(0, 6)])), None);
        assert_eq!(apply(&both, &seen, &Change::Mended(vec![placed(3, 6)])), None);
        assert_eq!(apply(&seen, &seen, &Change::Mended(vec![placed(0, 1)])), None, "rebuilt where it was");
    }

    /// A segment is coded anew while somebody else mends it. Fragments of two codes do not go together, so whoever comes
    /// second has worked in vain.
    #[test]
    fn codes_never_mix() {
        let seen = segment(&[(0, 1), (1, 2)]);
        let wider = Segment { k: 3, n: 5, ..segment(&[(0, 5)]) };
        assert_eq!(apply(&seen, &seen, &Change::Recoded(wider.clone())), Some(wider.clone()));
        let mended = segment(&[(0, 7), (1, 2)]);
        assert_eq!(apply(&mended, &seen, &Change::Recoded(wider.clone())), None);
        assert_eq!(apply(&wider, &seen, &Change::Mended(vec![placed(0, 7)])), None);
    }
}
