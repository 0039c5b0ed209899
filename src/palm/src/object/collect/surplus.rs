//! Surplus: fragments of bodies in use that are not where their segments' fragments are now (6 to 9 of `collect.rs`).

use std::collections::{BTreeMap, BTreeSet};

use futures::{StreamExt, TryStreamExt, stream};
use palm_core::code::SEGMENT_BYTES;
use palm_core::id::{BodyId, FragmentId, SegmentId};
use palm_core::record::{Content, FragmentRecord, MovedRecord, ObjectRecord, PartRecord, Segment, Stored, key};
use palm_core::repair::Condition;
use palm_core::wire::ScanQuery;

use super::super::{ObjectError, Store};
use super::judge::{Holder, held};
use super::report::Walk;
use super::{Because, CONCURRENT, Noted, millis};
use crate::pool::Current;
use crate::pool::ledger::Item;

/// Fragments judged together, so that their homes are asked once for many.
const BATCH: usize = 256;
/// Plaintext bytes of the segments that homes read and hash for one question.
const VERIFY_BYTES: u64 = SEGMENT_BYTES;
/// Part registers read at a time.
const PART_PAGE: u32 = 256;

/// Some segments of a body as its records have them.
#[derive(Debug, Default)]
struct Layout {
    segments: BTreeMap<SegmentId, Segment>,
    /// Whether what is not in it is no segment of the body.
    complete: bool,
}

/// Where a segment's fragments are.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    /// Here too, as far as anyone knows.
    Here,
    /// Elsewhere. In a local pool members may differ on where.
    Elsewhere(Vec<Segment>),
    /// The body has no such segment.
    Nowhere,
    /// Not to be said now.
    Unknown,
}

/// What was found of a fragment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Finding {
    InPlace,
    Surplus,
    Kept(Because),
}

impl Store {
    /// Sorts the fragments here of a body in use: what is in its place leaves the trash, what is not may go.
    pub(super) async fn sort_out(
        &self,
        body: BodyId,
        holder: &Holder,
        fragments: Vec<Noted>,
        walk: &Walk,
    ) -> Result<(), ObjectError> {
        let wanted = fragments.iter().map(|(_, note)| note.segment).collect();
        let known = [self.layout(body, holder, &wanted).await?];
        let now_ms = self.ledger.now_ms();
        let (mut first_look, mut second_look) = (Vec::new(), Vec::new());
        for (id, note) in fragments {
            // This peer's own copy of the ledger settles nearly all of a walk here, too.
            let moved: Vec<_> = self.ledger.peek(&key::moved(note.segment)).into_iter().collect();
            match self.place(id, &note, &moved, &known)? {
                Place::Here => self.restore((id, note), walk).await?,
                _ if now_ms.saturating_sub(note.stored_ms) < millis(self.collector.settings.grace) => {
                    walk.keeps(&note, Because::Young);
                }
                _ if note.trashed_ms.is_none() => first_look.push((id, note)),
                _ if self.is_due(&note) => second_look.push((id, note)),
                _ => walk.waits(&note),
            }
        }
        for (fragments, verify) in [(first_look, false), (second_look, true)] {
            for batch in fragments.chunks(BATCH) {
                let findings = self.find(body, holder, batch, verify).await;
                let undecided = vec![Finding::Kept(Because::Undecided); batch.len()];
                let (findings, failed) = findings.map_or_else(|error| (undecided, Err(error)), |found| (found, Ok(())));
                for (fragment, finding) in batch.iter().cloned().zip(findings) {
                    match finding {
                        Finding::InPlace => self.restore(fragment, walk).await?,
                        Finding::Surplus if verify => self.purge(fragment, walk).await?,
                        Finding::Surplus => self.trash(fragment, walk).await?,
                        Finding::Kept(because) => walk.keeps(&fragment.1, because),
                    }
                }
                failed?;
            }
        }
        Ok(())
    }

    /// Asks all questions about fragments that seem to be surplus. With `verify` homes read what is to stay.
    async fn find(
        &self,
        body: BodyId,
        holder: &Holder,
        batch: &[Noted],
        verify: bool,
    ) -> Result<Vec<Finding>, ObjectError> {
        let wanted: BTreeSet<SegmentId> = batch.iter().map(|(_, note)| note.segment).collect();
        // Most of what stays does so since its segment is not whole. That costs least to ask, and writes nothing.
        let known = self.layout(body, holder, &wanted).await?.segments;
        let likely: Vec<Segment> = known.values().map(|segment| self.placed(segment)).collect();
        if !likely.is_empty() && !self.are_whole(&likely, false).await.contains(&true) {
            return Ok(vec![Finding::Kept(Because::NotWhole); batch.len()]);
        }
        let Some(youngest_ms) = batch.iter().map(|(_, note)| note.stored_ms).max() else { return Ok(Vec::new()) };
        let age_ms = self.ledger.now_ms().saturating_sub(youngest_ms);
        let everyone = self.everyone(batch.iter().map(|(_, note)| note.writer))?;
        if let Some(because) = self.under_way(everyone, body, age_ms).await? {
            return Ok(vec![Finding::Kept(because); batch.len()]);
        }
        let layouts = self.layouts_now(body, holder, &wanted).await?;
        let moved: BTreeMap<SegmentId, Vec<Current>> = stream::iter(wanted)
            .map(|segment| async move { Ok::<_, ObjectError>((segment, self.moved_now(segment).await?)) })
            .buffer_unordered(CONCURRENT)
            .try_collect()
            .await?;
        let mut findings = Vec::with_capacity(batch.len());
        for (id, note) in batch {
            let moved = moved.get(&note.segment).map_or(&[][..], Vec::as_slice);
            findings.push(match self.place(*id, note, moved, &layouts)? {
                Place::Here => Finding::InPlace,
                Place::Unknown => Finding::Kept(Because::Undecided),
                Place::Elsewhere(placements) if self.are_whole(&placements, verify).await.contains(&false) => {
                    Finding::Kept(Because::NotWhole)
                }
                Place::Elsewhere(_) | Place::Nowhere => Finding::Surplus,
            });
        }
        Ok(findings)
    }

    /// Whether each of these segments has all its n fragments, by what their homes say.
    async fn are_whole(&self, segments: &[Segment], verify: bool) -> Vec<bool> {
        let mut whole = Vec::with_capacity(segments.len());
        let mut rest = segments;
        while !rest.is_empty() {
            let mut bytes = 0;
            let fits = rest.iter().take_while(|segment| {
                bytes += segment.len;
                !verify || bytes <= VERIFY_BYTES
            });
            let (asked, later) = rest.split_at(fits.count().max(1));
            let found = self.look(&asked.iter().collect::<Vec<_>>(), verify).await;
            whole.extend(asked.iter().zip(found).map(|(segment, found)| is_whole(segment, &found)));
            rest = later;
        }
        whole
    }

    /// What the moved register of a segment says, read so that nothing older surfaces later; in a local pool, at any
    /// member.
    async fn moved_now(&self, segment: SegmentId) -> Result<Vec<Current>, ObjectError> {
        let register = key::moved(segment);
        if self.ledger.is_local() {
            return Ok(self.ledger.read_everywhere(&register).await?);
        }
        Ok(self.ledger.read_fenced(&register).await?.into_iter().collect())
    }

    /// The records of a body as they are now; none where its holder does not hold it any more.
    async fn layouts_now(
        &self,
        body: BodyId,
        holder: &Holder,
        wanted: &BTreeSet<SegmentId>,
    ) -> Result<Vec<Layout>, ObjectError> {
        let (register, states) = match holder {
            Holder::Upload(object) => {
                let lives = self.upload_lives(object, body).await?;
                return if lives { Ok(vec![self.layout(body, holder, wanted).await?]) } else { Ok(Vec::new()) };
            }
            Holder::Object(register, _) if self.ledger.is_local() => {
                (register, self.ledger.read_everywhere(register).await?)
            }
            Holder::Object(register, _) => (register, self.ledger.read(register).await?.into_iter().collect()),
        };
        let mut layouts = Vec::new();
        for current in states {
            if let Some(record) = held(register, Some(&current), body)? {
                layouts.push(self.layout_of(&record, wanted)?);
            }
        }
        Ok(layouts)
    }

    /// The segments wanted of a body, by this peer's own copy of the ledger.
    async fn layout(&self, body: BodyId, holder: &Holder, wanted: &BTreeSet<SegmentId>) -> Result<Layout, ObjectError> {
        if let Holder::Object(_, record) = holder {
            return self.layout_of(record, wanted);
        }
        let prefix = key::parts(body);
        let mut layout = Layout::default();
        let mut start = Some(prefix.clone());
        while let Some(from) = start {
            let query = ScanQuery { prefix: prefix.clone(), start: from, delimiter: None, limit: PART_PAGE };
            let page = self.ledger.local_page(query).await?;
            for item in page.items {
                if let Item::Register(_, current) = item {
                    layout.add(PartRecord::decode(&current.value)?.segments, wanted);
                }
            }
            start = page.next;
        }
        Ok(layout)
    }

    fn layout_of(&self, record: &ObjectRecord, wanted: &BTreeSet<SegmentId>) -> Result<Layout, ObjectError> {
        // Another island of a local pool may have completed the upload with other parts.
        let mut layout = Layout { complete: !self.ledger.is_local(), ..Layout::default() };
        match &record.content {
            Content::Segments(segments) => layout.add(segments.clone(), wanted),
            Content::Parts(parts) => {
                for part in parts {
                    match self.ledger.peek(&key::part(record.body, part.number, part.attempt)) {
                        Some(current) => layout.add(PartRecord::decode(&current.value)?.segments, wanted),
                        None => layout.complete = false,
                    }
                }
            }
        }
        Ok(layout)
    }

    /// Where a fragment's segment is, given the states of its moved register and of the body's records.
    fn place(
        &self,
        id: FragmentId,
        note: &FragmentRecord,
        moved: &[Current],
        layouts: &[Layout],
    ) -> Result<Place, ObjectError> {
        let lacks = |layout: &Layout| layout.complete && !layout.segments.contains_key(&note.segment);
        if !layouts.is_empty() && layouts.iter().all(lacks) {
            // Repair may have moved a part before it was dropped.
            return Ok(Place::Nowhere);
        }
        let moved = moved.iter().map(|current| MovedRecord::decode(&current.value)).collect::<Result<Vec<_>, _>>()?;
        if moved.iter().any(|moved| moved.body != note.body || moved.segment.id != note.segment) {
            return Ok(Place::Unknown);
        }
        let recorded = || layouts.iter().filter_map(|layout| layout.segments.get(&note.segment).cloned());
        let placements: Vec<Segment> = if moved.is_empty() {
            recorded().collect()
        } else {
            moved.into_iter().map(|moved| moved.segment).collect()
        };
        let mut named = placements.iter().flat_map(|segment| &segment.fragments);
        Ok(if named.any(|placed| placed.home == self.me && placed.id == id) {
            Place::Here
        } else if !layouts.is_empty() && !placements.is_empty() {
            Place::Elsewhere(placements)
        } else {
            Place::Unknown
        })
    }
}

impl Layout {
    fn add(&mut self, segments: Vec<Segment>, wanted: &BTreeSet<SegmentId>) {
        let wanted = segments.into_iter().filter(|segment| wanted.contains(&segment.id));
        self.segments.extend(wanted.map(|segment| (segment.id, segment)));
    }
}

/// Whether a segment has all its fragments, each of them found to be there.
fn is_whole(segment: &Segment, found: &[Condition]) -> bool {
    segment.fragments.len() == usize::from(segment.n)
        && found.len() == segment.fragments.len()
        && found.iter().all(|condition| condition.is_there())
}
