//! One count: a walk over this peer's copy of all records, in batches whose homes are asked.

use std::time::Duration;

use bytes::Bytes;
use palm_core::id::{BodyId, PeerId, SegmentId};
use palm_core::place::{Candidate, Policy};
use palm_core::record::{
    Content, HeadRecord, LineRecord, ObjectRecord, PageRecord, PartRecord, Segment, Stored, UploadRecord, key,
};
use palm_core::repair::{Found, owner, owner_of_id};
use palm_core::s3::version::{Kind, Null};
use palm_core::wire::ScanQuery;
use tokio::time::{Instant, sleep};
use tracing::{debug, warn};

use super::tally::{Findings, Kept, Work};
use crate::object::get::load_part;
use crate::object::repair::{Job, give_away};
use crate::object::{ObjectError, Store};
use crate::pool::Current;
use crate::pool::ledger::Item;

/// Records read from this peer's copy at a time.
const PAGE: u32 = 128;
/// Segments whose homes are asked at a time. Of most of them a home has no more than one or two fragments, so one question
/// to each home holds them all.
const BATCH: usize = 512;
/// After each page the walk rests this many times as long as the page took: it takes a tenth of a core at most, or, where
/// something waits for what it finds, half of one.
const REST: u32 = 9;
const URGENT_REST: u32 = 1;
/// No rest is longer: a page that waited for a slow home has kept nobody busy.
const MAX_REST: Duration = Duration::from_millis(500);

/// What a round is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scope {
    /// What this peer sees to; what is found wanting is enqueued.
    Share,
    /// All of the pool; nothing is enqueued.
    Pool,
}

/// The records that a round walks over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Family {
    Objects,
    Uploads,
}

struct Round<'a> {
    store: &'a Store,
    scope: Scope,
    urgent: bool,
    may_recode: bool,
    wanted: Policy,
    /// Members over which fragments may be spread: those that do not drain.
    members: usize,
    live: Vec<PeerId>,
    candidates: Vec<Candidate>,
    findings: Findings,
    /// What it walks over now.
    family: Family,
    /// This peer gives all it has away.
    draining: bool,
    /// Bytes of fragments that it should give to others.
    surplus_bytes: u64,
    /// What the segments of this batch belong to.
    subjects: Vec<Subject>,
    batch: Vec<Piece>,
}

/// An object or an open upload whose segments are being looked at.
struct Subject {
    object: Bytes,
    body: BodyId,
    /// What a write of its storage class would get.
    wanted: Policy,
    /// An object that is counted here, by its size.
    counted: Option<u64>,
    kept: Kept,
}

/// A segment to be looked at.
struct Piece {
    /// Whose, by its place among the subjects.
    subject: usize,
    segment: Segment,
    part: Option<(u16, u64)>,
    /// This peer sees to it.
    owned: bool,
    /// This peer has some of it, and gives it away.
    leaving: bool,
}

impl Store {
    /// Counts once; sooner where it is `urgent`.
    pub(super) async fn round(&self, scope: Scope, urgent: bool, may_recode: bool) -> Result<Findings, ObjectError> {
        let began = Instant::now();
        let members = self.view.members();
        let mut round = Round {
            store: self,
            scope,
            urgent,
            may_recode,
            wanted: self.view.wanted_policy(),
            members: self.view.staying_count(),
            live: members.iter().filter(|member| member.live).map(|member| member.peer).collect(),
            candidates: self.view.candidates(),
            findings: Findings::default(),
            family: Family::Objects,
            draining: scope == Scope::Share && self.view.is_draining(),
            surplus_bytes: if scope == Scope::Share && may_recode { self.own_surplus() } else { 0 },
            subjects: Vec::new(),
            batch: Vec::new(),
        };
        round.walk(Family::Objects).await?;
        round.walk(Family::Uploads).await?;
        round.look(false).await;
        let mut findings = round.findings;
        findings.health.counted_ms = self.ledger.now_ms();
        debug!(?scope, took = ?began.elapsed(), health = ?findings.health, "counted");
        Ok(findings)
    }
}

impl Round<'_> {
    /// Takes every live register of a family.
    async fn walk(&mut self, family: Family) -> Result<(), ObjectError> {
        self.family = family;
        let prefix = match family {
            Family::Objects => key::all_objects(),
            Family::Uploads => key::all_uploads(),
        };
        let mut query = ScanQuery { prefix: prefix.clone(), start: prefix, delimiter: None, limit: PAGE };
        loop {
            let began = Instant::now();
            let page = self.store.ledger.local_page(query.clone()).await?;
            for item in page.items {
                let Item::Register(at, current) = item else { continue };
                let taken = match family {
                    Family::Objects => self.versions(&at, &current).await,
                    Family::Uploads => self.upload(&at, &current.value).await,
                };
                // A record that does not read is its readers' trouble, and must not keep all others from being counted.
                if let Err(error) = taken {
                    warn!(register = %at.escape_ascii(), %error, "not counted");
                }
            }
            match page.next {
                Some(next) => query.start = next,
                None => return Ok(()),
            }
            let times = if self.urgent { URGENT_REST } else { REST };
            sleep((began.elapsed() * times).min(MAX_REST)).await;
        }
    }

    /// All versions of a key that are objects: each counts as one.
    async fn versions(&mut self, at: &Bytes, current: &Current) -> Result<(), ObjectError> {
        let HeadRecord { null, recent, pages, .. } = HeadRecord::of(current)?;
        if let Some(Null { kind: Kind::Object(object), .. }) = null {
            self.object(at, object).await?;
        }
        self.lines(at, recent).await?;
        for page in pages {
            let register = key::page(at, page.id);
            let known = match self.store.ledger.peek(&register) {
                Some(known) => Some(known),
                None => self.store.ledger.read(&register).await?,
            };
            let page = known.ok_or_else(|| self.store.gone("a page of versions"))?;
            self.lines(at, PageRecord::decode(&page.value)?.lines).await?;
        }
        Ok(())
    }

    async fn lines(&mut self, at: &Bytes, lines: Vec<LineRecord>) -> Result<(), ObjectError> {
        for line in lines.into_iter().filter(|line| line.kind != Kind::DeleteMarker) {
            let register = key::version(at, line.id);
            let known = match self.store.ledger.peek(&register) {
                Some(known) => Some(known),
                None => self.store.ledger.read(&register).await?,
            };
            match known {
                Some(known) => self.object(&register, ObjectRecord::decode(&known.value)?).await?,
                None => self.store.end_deletion(at, line.id).await?,
            }
        }
        Ok(())
    }

    async fn object(&mut self, at: &Bytes, object: ObjectRecord) -> Result<(), ObjectError> {
        let ObjectRecord { size, body, content, attributes, .. } = object;
        if matches!(&content, Content::Segments(segments) if segments.is_empty()) {
            // Nobody is its home: its counter is drawn by the body's id.
            let id = SegmentId::from_bytes(*body.as_bytes());
            if self.scope == Scope::Pool || owner_of_id(id, &self.live) == Some(self.store.me) {
                self.findings.count(size, Kept::NOTHING);
            }
            return Ok(());
        }
        self.open(at.clone(), body, attributes.storage_class.as_deref());
        let taken = self.content(body, content, size).await;
        self.close(taken.is_ok());
        taken
    }

    async fn content(&mut self, body: BodyId, content: Content, size: u64) -> Result<(), ObjectError> {
        let parts = match content {
            Content::Segments(segments) => {
                self.segments(segments, None, Some(size)).await;
                return Ok(());
            }
            Content::Parts(parts) => parts,
        };
        let mut first = Some(size);
        for part in parts {
            let record = load_part(self.store, body, &part).await?;
            self.segments(record.segments, Some((part.number, part.attempt)), first.take()).await;
        }
        Ok(())
    }

    /// The parts of an upload that is not completed yet.
    async fn upload(&mut self, at: &Bytes, value: &Bytes) -> Result<(), ObjectError> {
        let Some((object, body)) = object_of(at) else {
            return Err(ObjectError::Internal("an upload's register has no such name".to_owned()));
        };
        let class = UploadRecord::decode(value)?.attributes.storage_class;
        self.open(object, body, class.as_deref());
        let taken = self.parts(body).await;
        self.close(taken.is_ok());
        taken
    }

    async fn parts(&mut self, body: BodyId) -> Result<(), ObjectError> {
        let prefix = key::parts(body);
        let mut query = ScanQuery { prefix: prefix.clone(), start: prefix, delimiter: None, limit: PAGE };
        loop {
            let page = self.store.ledger.local_page(query.clone()).await?;
            for item in page.items {
                let Item::Register(at, current) = item else { continue };
                self.segments(PartRecord::decode(&current.value)?.segments, key::parse_part(&at), None).await;
            }
            match page.next {
                Some(next) => query.start = next,
                None => return Ok(()),
            }
        }
    }

    /// The segments that come now are of this body.
    fn open(&mut self, object: Bytes, body: BodyId, class: Option<&str>) {
        let wanted = self.store.view.class_policy(class).unwrap_or(self.wanted);
        self.subjects.push(Subject { object, body, wanted, counted: None, kept: Kept::NOTHING });
    }

    /// No more of them come. Where none concerns this peer there is nothing to be remembered.
    fn close(&mut self, complete: bool) {
        let last = self.subjects.len() - 1;
        if !complete {
            self.subjects[last].counted = None;
        }
        if self.subjects[last].counted.is_none() && self.batch.last().is_none_or(|piece| piece.subject != last) {
            self.subjects.pop();
        }
    }

    /// Takes some segments of the subject opened last, of this part of it. `first`: they begin an object of this size, and
    /// whoever sees to the first of them counts it.
    async fn segments(&mut self, segments: Vec<Segment>, part: Option<(u16, u64)>, mut first: Option<u64>) {
        for recorded in segments {
            let segment = self.store.placed(&recorded);
            let owned = self.owns(&segment);
            let here = segment.fragments.iter().any(|placed| placed.home == self.store.me);
            self.findings.segments_here += u64::from(here);
            if owned && self.family == Family::Uploads {
                self.findings.upload_bytes += segment.len;
            }
            let leaving = here && (self.draining || self.surplus_bytes > 0);
            let subject = self.subjects.len() - 1;
            if let Some(size) = first.take().filter(|_| owned) {
                self.subjects[subject].counted = Some(size);
            }
            if owned || leaving || self.subjects[subject].counted.is_some() {
                self.batch.push(Piece { subject, segment, part, owned, leaving });
            }
            if self.batch.len() == BATCH {
                self.look(true).await;
            }
        }
    }

    fn owns(&self, segment: &Segment) -> bool {
        self.scope == Scope::Pool || owner(segment, &self.live) == Some(self.store.me)
    }

    /// Asks the homes of a batch, and draws the conclusions. `open`: the subject entered last may have more segments.
    async fn look(&mut self, open: bool) {
        let batch = std::mem::take(&mut self.batch);
        let segments: Vec<&Segment> = batch.iter().map(|piece| &piece.segment).collect();
        let mut conditions = self.store.look(&segments, false).await;
        let mut jobs = Vec::new();
        for (piece, conditions) in batch.iter().zip(&mut conditions) {
            let Piece { subject, segment, part, owned, leaving } = piece;
            let found = Found { segment, conditions };
            let subject = &mut self.subjects[*subject];
            let kept = Kept::of(found, subject.wanted, self.members);
            subject.kept = subject.kept.and(kept);
            let leaving = *leaving && (self.draining || self.surplus_bytes > 0);
            if leaving {
                give_away(segment, conditions, self.store.me);
            } else if !owned {
                continue;
            }
            let found = Found { segment, conditions };
            if let Some(work) = Work::of(found, subject.wanted, self.may_recode, &self.candidates) {
                if leaving {
                    self.surplus_bytes = self.surplus_bytes.saturating_sub(work.bytes);
                }
                self.findings.wanting(kept.redundancy, work);
                jobs.push(Job {
                    body: subject.body,
                    object: subject.object.to_vec(),
                    segment: segment.id,
                    part: *part,
                    spare: kept.tolerance.map_or(-1, |spare| i8::try_from(spare).unwrap_or(i8::MAX)),
                    bytes: segment.len,
                    leaving,
                    recode: self.may_recode,
                    verify: false,
                    attempts: 0,
                });
            }
        }
        // Who is cut off sees others absent that are not, and could not enter what it repairs.
        if self.scope == Scope::Share && !jobs.is_empty() && self.store.may_repair() {
            self.store.enqueue(jobs).await;
        }
        let last = if open { self.subjects.pop() } else { None };
        for Subject { counted, kept, .. } in self.subjects.drain(..) {
            if let Some(size) = counted {
                self.findings.count(size, kept);
            }
        }
        self.subjects.extend(last);
    }
}

impl Store {
    /// Whether this peer knows enough to repair anything: a majority of the voters is in touch, and it has the records.
    fn may_repair(&self) -> bool {
        self.view.in_touch() && self.ledger.catch_up().borrow().is_none()
    }
}

/// The object that an upload, by its register key, is for, and the upload.
fn object_of(upload: &[u8]) -> Option<(Bytes, BodyId)> {
    // What is cut off is the family alone, so bucket and key come as one.
    let (names, body) = key::parse_upload(upload.strip_prefix(&key::all_uploads()[..])?)?;
    Some(([&key::all_objects()[..], names.as_bytes()].concat().into(), body))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Repair notes for which object a body is uploaded; a wrong one and collection would ask the wrong register and take
    /// the body away.
    #[test]
    fn an_upload_tells_its_object() {
        let body = BodyId::from_bytes([7; 16]);
        let at = key::upload("b", "a/b c", body);
        assert_eq!(object_of(&at), Some((key::object("b", "a/b c"), body)));
        assert_eq!(object_of(b"unonsense"), None);
        assert_eq!(object_of(b"ub\0k\0nonsense"), None);
    }
}
