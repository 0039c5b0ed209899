//! What a home does: keeps fragments for the pool, and notes what each belongs to.
//!
//! Notes live in the index space [`Space::Fragments`]:
//!
//! | key | value | for |
//! | --- | --- | --- |
//! | `f`, fragment id (32 bytes) | [`FragmentRecord`] | what is this fragment? |
//! | `b`, body id (16 bytes), fragment id (32 bytes) | empty | which fragments has this body? |
//!
//! Both are written in one batch, [`Durability::Buffered`]: the fragment is synced, its note need not be.
//! A fragment whose note a power loss took is never collected and costs space until scrubbing reports it; the
//! other way round, a synced note per fragment would double the syncs of every small write.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use palm_backends::{
    Backend, Backends, Durability, FragmentReader, FragmentStat, FragmentStore, FragmentWriter, IndexStore, Next,
    Space, StoreError, Usage, Write,
};
use palm_core::code::{SEGMENT_BYTES, STRIPE_BYTES};
use palm_core::id::{BodyId, FragmentId, PeerId};
use palm_core::record::{FragmentRecord, Stored};
use palm_core::wire::{Failure, FragmentOrigin, MAX_SMALL_FRAGMENT_BYTES, Request, Response};
use parking_lot::Mutex;
use tracing::{debug, warn};

use super::store::InFlight;
use crate::net::{FragmentSink, FragmentSource};
use crate::pool::Homes;

/// No fragment is longer: a whole segment (k = 1) and what sealing adds to its stripes, with room to spare.
const MAX_FRAGMENT_BYTES: u64 = SEGMENT_BYTES + (1 << 20);
/// A fragment is read from the backend and sent in pieces of this.
const SEND_BYTES: u64 = STRIPE_BYTES as u64 / 4;
/// Released bodies remembered; further ones wait for the walk over all fragments.
const MAX_RELEASED: usize = 256 << 10;
/// Ids in one [`Request::DeleteFragments`].
pub(super) const MAX_DELETE_IDS: usize = 1024;

/// This peer as a home. Cheap to clone.
#[derive(Clone)]
pub struct Home(Arc<Inner>);

struct Inner {
    backends: Arc<Backends>,
    index: Arc<dyn IndexStore>,
    in_flight: Arc<InFlight>,
    now_ms: Box<dyn Fn() -> u64 + Send + Sync>,
    released: Mutex<VecDeque<(BodyId, u64)>>,
    notes: tokio::sync::Mutex<()>,
}

#[async_trait]
impl Homes for Home {
    /// Answers a request about fragments. Others are refused as malformed.
    async fn call(&self, from: PeerId, request: Request) -> Response {
        match request {
            Request::PutSmall { origin, bytes } if bytes.len() <= MAX_SMALL_FRAGMENT_BYTES => {
                match self.put(from, &origin, bytes).await {
                    Ok(stat) => Response::Stored { id: stat.id, len: stat.len },
                    Err(error) => refused(&error),
                }
            }
            Request::GetSmall { id } => self.get_small(id).await,
            Request::DeleteFragments { ids } if ids.len() <= MAX_DELETE_IDS => {
                for id in ids {
                    if let Err(error) = self.delete_of(from, id).await {
                        return refused(&error);
                    }
                }
                Response::Done
            }
            Request::Release { body } => {
                self.release(body);
                Response::Done
            }
            Request::CheckFragments { ids, .. } => {
                let mut states = Vec::new();
                for id in ids {
                    let noted = self.record(id).ok().flatten().is_some_and(|note| !note.corrupt);
                    let there = self.0.backends.first().stat(id).await.ok().flatten().is_some();
                    states.push(match noted && there {
                        true => palm_core::wire::FragmentState::Sound,
                        false => palm_core::wire::FragmentState::Missing,
                    });
                }
                Response::Checked(states)
            }
            Request::InFlight { body } => Response::InFlight(self.0.in_flight.contains(body)),
            _ => malformed("not a request to a home"),
        }
    }

    /// Stores a fragment that streams in.
    async fn put_fragment(&self, from: PeerId, origin: FragmentOrigin, mut body: FragmentSource) -> Response {
        let mut upload = match self.begin(from, origin).await {
            Ok(upload) => upload,
            Err(error) => return refused(&error),
        };
        loop {
            match body.next().await {
                Ok(Some(bytes)) if upload.len + bytes.len() as u64 > MAX_FRAGMENT_BYTES => {
                    return malformed("fragment too long");
                }
                Ok(Some(bytes)) => {
                    if let Err(error) = upload.write(bytes).await {
                        return refused(&error);
                    }
                }
                Ok(None) => break,
                Err(error) => {
                    debug!(%from, %error, "fragment abandoned by its writer");
                    return malformed("fragment ended early");
                }
            }
        }
        match upload.finish().await {
            Ok(stat) => Response::Stored { id: stat.id, len: stat.len },
            Err(error) => refused(&error),
        }
    }

    /// Sends a range of a fragment.
    async fn get_fragment(&self, from: PeerId, id: FragmentId, offset: u64, len: u64, mut out: FragmentSink) {
        let home = self.clone();
        let sent = async move {
            let reader = match home.open(id).await {
                Ok(reader) => reader,
                Err(error) => {
                    out.respond(refused(&error)).await?;
                    return Ok(out);
                }
            };
            let total = reader.len();
            let Some(end) = offset.checked_add(len).filter(|&end| end <= total) else {
                out.respond(malformed("range beyond the fragment's end")).await?;
                return Ok(out);
            };
            out.respond(Response::Fragment { total }).await?;
            let mut at = offset;
            while at < end {
                let next = (at + SEND_BYTES).min(end);
                match reader.read(at..next).await {
                    Ok(bytes) => out.write(bytes).await?,
                    Err(error) => {
                        // Dropping the sink resets the stream: the reader turns to another home.
                        warn!(fragment = %id, %error, "fragment does not read");
                        return Err(crate::net::NetError::Local(error.to_string()));
                    }
                }
                at = next;
            }
            Ok(out)
        };
        match sent.await {
            Ok(out) => out.finish(),
            Err(error) => debug!(%from, fragment = %id, %error, "fragment not sent to its end"),
        }
    }
}

impl Home {
    /// A home over this fragment store, its notes in this index.
    pub(super) fn new(
        backends: Arc<Backends>,
        index: Arc<dyn IndexStore>,
        in_flight: Arc<InFlight>,
        now_ms: impl Fn() -> u64 + Send + Sync + 'static,
    ) -> Self {
        let now_ms = Box::new(now_ms);
        Self(Arc::new(Inner {
            backends,
            index,
            in_flight,
            now_ms,
            released: Mutex::default(),
            notes: tokio::sync::Mutex::default(),
        }))
    }

    /// What the fragment store holds and could.
    pub async fn usage(&self) -> Result<Usage, StoreError> {
        self.0.backends.usage().await
    }

    /// The backend in use.
    fn backend(&self) -> &Backend {
        self.0.backends.first()
    }

    /// Stores a fragment that is in memory.
    pub(super) async fn put(
        &self,
        writer: PeerId,
        origin: &FragmentOrigin,
        bytes: Bytes,
    ) -> Result<FragmentStat, StoreError> {
        let stat = self.backend().put(bytes).await?;
        self.note(writer, origin, stat).await?;
        Ok(stat)
    }

    /// Begins to store a fragment.
    pub(super) async fn begin(&self, writer: PeerId, origin: FragmentOrigin) -> Result<HomeUpload, StoreError> {
        let fragment = self.backend().writer(None).await?;
        Ok(HomeUpload { home: self.clone(), fragment, writer, origin, len: 0 })
    }

    /// The whole of a small fragment.
    pub(super) async fn get(&self, id: FragmentId) -> Result<Bytes, StoreError> {
        self.backend().get(id).await
    }

    /// Opens a fragment.
    pub(super) async fn open(&self, id: FragmentId) -> Result<Box<dyn FragmentReader>, StoreError> {
        self.backend().open(id).await
    }

    async fn get_small(&self, id: FragmentId) -> Response {
        // A fragment that does not fit a frame is asked for by mistake: say so before reading it.
        match self.backend().get(id).await {
            Ok(bytes) if bytes.len() <= MAX_SMALL_FRAGMENT_BYTES => Response::Small(bytes),
            Ok(_) => malformed("not a small fragment"),
            Err(error) => refused(&error),
        }
    }

    async fn note(&self, writer: PeerId, origin: &FragmentOrigin, stat: FragmentStat) -> Result<(), StoreError> {
        let record = FragmentRecord {
            segment: origin.segment,
            index: origin.index,
            body: origin.body,
            object: origin.object.to_vec(),
            writer,
            stored_ms: (self.0.now_ms)(),
            len: stat.len,
            backend: 0,
            corrupt: false,
            trashed_ms: None,
        };
        let _alone = self.0.notes.lock().await;
        if self.0.backends.first().stat(stat.id).await?.is_none() {
            return Err(StoreError::NotFound(stat.id));
        }
        let batch = vec![
            Write::Put(Space::Fragments, fragment_key(stat.id), record.encode()),
            Write::Put(Space::Fragments, body_key(origin.body, stat.id), Bytes::new()),
        ];
        self.0.index.commit(batch, Durability::Buffered).await
    }

    /// Deletes a fragment at the word of the peer that wrote it; nobody else can vouch that no record refers
    /// to it.
    async fn delete_of(&self, from: PeerId, id: FragmentId) -> Result<(), StoreError> {
        match self.record(id)? {
            Some(record) if record.writer == from => self.delete(id, record.body).await,
            Some(_) => {
                warn!(%from, fragment = %id, "refused to delete another writer's fragment");
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Deletes a fragment and its note, in this order: a crash between leaves a note without a fragment,
    /// which the next walk clears.
    pub(super) async fn delete(&self, id: FragmentId, body: BodyId) -> Result<(), StoreError> {
        self.backend().delete(id).await?;
        let batch = vec![
            Write::Delete(Space::Fragments, fragment_key(id)),
            Write::Delete(Space::Fragments, body_key(body, id)),
        ];
        self.0.index.commit(batch, Durability::Buffered).await
    }

    /// Changes a note, if it still is the one given. Answers whether it was.
    pub(super) async fn renote_if(
        &self,
        id: FragmentId,
        judged: &FragmentRecord,
        changed: &FragmentRecord,
    ) -> Result<bool, StoreError> {
        let _alone = self.0.notes.lock().await;
        if self.record(id)?.as_ref() != Some(judged) {
            return Ok(false);
        }
        let batch = vec![Write::Put(Space::Fragments, fragment_key(id), changed.encode())];
        self.0.index.commit(batch, Durability::Buffered).await?;
        Ok(true)
    }

    /// Deletes a fragment and its note, if the note still is the one given. Answers whether it was.
    pub(super) async fn delete_if(&self, id: FragmentId, judged: &FragmentRecord) -> Result<bool, StoreError> {
        let _alone = self.0.notes.lock().await;
        if self.record(id)?.as_ref() != Some(judged) {
            return Ok(false);
        }
        self.delete(id, judged.body).await?;
        Ok(true)
    }

    /// Notes that a body may have lost its last reference.
    pub(super) fn release(&self, body: BodyId) {
        let mut released = self.0.released.lock();
        if released.len() < MAX_RELEASED {
            released.push_back((body, (self.0.now_ms)()));
        }
    }

    /// The next body released at or before `before_ms`.
    pub(super) fn next_released(&self, before_ms: u64) -> Option<BodyId> {
        let mut released = self.0.released.lock();
        match released.front() {
            Some(&(body, at_ms)) if at_ms <= before_ms => {
                released.pop_front();
                Some(body)
            }
            _ => None,
        }
    }

    /// The note of a fragment.
    pub(super) fn record(&self, id: FragmentId) -> Result<Option<FragmentRecord>, StoreError> {
        let value = self.0.index.get(Space::Fragments, &fragment_key(id))?;
        value
            .map(|value| FragmentRecord::decode(&value))
            .transpose()
            .map_err(|error| StoreError::Corrupt(format!("note of fragment {id}: {error}")))
    }

    /// Up to `limit` bodies that have fragments here, in order, from `from` (inclusive).
    pub(super) fn bodies(&self, from: BodyId, limit: usize) -> Result<Vec<BodyId>, StoreError> {
        let mut bodies: Vec<BodyId> = Vec::new();
        self.0.index.scan(Space::Fragments, &body_prefix(from), &mut |key, _| match parse_body_key(key) {
            Some(_) if bodies.len() == limit => Next::Stop,
            Some((body, _)) => {
                bodies.push(body);
                after_body(body).map_or(Next::Stop, |next| Next::Seek(body_prefix(next)))
            }
            None => Next::Stop,
        })?;
        Ok(bodies)
    }

    /// The fragments of a body kept here, with their notes.
    pub(super) fn fragments_of(&self, body: BodyId) -> Result<Vec<(FragmentId, FragmentRecord)>, StoreError> {
        let mut ids = Vec::new();
        self.0.index.scan(Space::Fragments, &body_prefix(body), &mut |key, _| match parse_body_key(key) {
            Some((found, id)) if found == body => {
                ids.push(id);
                Next::Continue
            }
            _ => Next::Stop,
        })?;
        let mut fragments = Vec::with_capacity(ids.len());
        for id in ids {
            if let Some(record) = self.record(id)? {
                fragments.push((id, record));
            }
        }
        Ok(fragments)
    }
}

/// A fragment being stored here. Dropping it abandons the fragment.
pub(super) struct HomeUpload {
    home: Home,
    fragment: Box<dyn FragmentWriter>,
    writer: PeerId,
    origin: FragmentOrigin,
    len: u64,
}

impl HomeUpload {
    /// Appends.
    pub(super) async fn write(&mut self, bytes: Bytes) -> Result<(), StoreError> {
        self.len += bytes.len() as u64;
        self.fragment.write(bytes).await
    }

    /// Makes it durable, then notes it.
    pub(super) async fn finish(self) -> Result<FragmentStat, StoreError> {
        let stat = self.fragment.finish().await?;
        self.home.note(self.writer, &self.origin, stat).await?;
        Ok(stat)
    }
}

fn fragment_key(id: FragmentId) -> Bytes {
    [b"f".as_slice(), id.as_bytes()].concat().into()
}

fn body_key(body: BodyId, id: FragmentId) -> Bytes {
    [b"b".as_slice(), body.as_bytes(), id.as_bytes()].concat().into()
}

fn body_prefix(body: BodyId) -> Bytes {
    [b"b".as_slice(), body.as_bytes()].concat().into()
}

fn parse_body_key(key: &[u8]) -> Option<(BodyId, FragmentId)> {
    const BODY: Range<usize> = 1..1 + BodyId::LEN;
    const FRAGMENT: Range<usize> = BODY.end..BODY.end + FragmentId::LEN;
    if key.first() != Some(&b'b') || key.len() != FRAGMENT.end {
        return None;
    }
    let body = key.get(BODY)?.try_into().ok()?;
    let fragment = key.get(FRAGMENT)?.try_into().ok()?;
    Some((BodyId::from_bytes(body), FragmentId::from_bytes(fragment)))
}

/// The next body id in order; `None` after the last.
pub(super) fn after_body(body: BodyId) -> Option<BodyId> {
    let next = u128::from_be_bytes(*body.as_bytes()).checked_add(1)?;
    Some(BodyId::from_bytes(next.to_be_bytes()))
}

/// How a storage error is answered.
fn refused(error: &StoreError) -> Response {
    let reason = match error {
        StoreError::NotFound(_) => return Response::NotFound,
        StoreError::Full => Failure::Full,
        StoreError::OutOfRange { .. } => Failure::Malformed,
        StoreError::Poisoned(_) | StoreError::Io(_) | StoreError::Gone(_) | StoreError::Corrupt(_) => Failure::Storage,
    };
    if reason == Failure::Storage {
        warn!(%error, "fragment request failed");
    }
    Response::Failed { reason, detail: error.to_string() }
}

fn malformed(detail: &str) -> Response {
    Response::Failed { reason: Failure::Malformed, detail: detail.to_owned() }
}
