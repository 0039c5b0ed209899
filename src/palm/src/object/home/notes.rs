//! What is noted of each fragment, and how notes change and fragments go without a race.
//!
//! Notes live in the index space [`Space::Fragments`]:
//!
//! | key | value | for |
//! | --- | --- | --- |
//! | `f`, fragment id (32 bytes) | [`FragmentRecord`] | what is this fragment? |
//! | `b`, body id (16 bytes), fragment id (32 bytes) | empty | which fragments has this body? |
//! | `d`, fragment id (32 bytes) | empty | which fragments are noted as corrupt? |
//! | `t`, fragment id (32 bytes) | empty | which are kept here more than once? |
//!
//! Equal bytes are one fragment, also where a policy of copies (1-of-n) gives several of them to one peer of several disks:
//! they lie on distinct ones, and the note is that of the last. Such twins are kept all.
//!
//! All of a fragment change in one batch, [`Durability::Buffered`]: the fragment is synced, its note need not be. A fragment
//! whose note a power loss took counts as missing to those who check it, and is stored and noted again; the other way
//! round, a synced note per fragment would double the syncs of every small write.
//!
//! A fragment is stored and then noted, and a deletion decided on an older note may come in between. Danger: the
//! fragment is answered as stored, and gone. So:
//!
//! 1. What changes or removes a note holds the fragment's lock, and does it only if the note is still the one that was judged.
//!    A fragment that is stored again has another note: its time is a later one. So what was stored in this very
//!    millisecond is not deleted in it.
//! 2. Who stores holds the lock only to write the note. If any deletion was under way since it began to make the bytes
//!    visible, it looks, with the lock held, whether they are still where it put them.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use palm_backends::{Backend, Durability, FragmentStat, FragmentStore, Next, Space, StoreError, Write};
use palm_core::id::{BodyId, FragmentId, PeerId};
use palm_core::record::{FragmentRecord, Stored};
use palm_core::wire::FragmentOrigin;
use tokio::sync::{Mutex, MutexGuard};
use tracing::{debug, warn};

use super::Home;

/// Locks that all fragments share.
const LOCKS: usize = 64;
/// Fragments known to be corrupt are counted up to this.
const MAX_COUNTED: u64 = 100_000;

/// Keeps storing and deleting one fragment apart.
pub(super) struct Guard {
    locks: [Mutex<()>; LOCKS],
    /// Beginnings and ends of deletions so far.
    deletions: AtomicU64,
}

impl Default for Guard {
    fn default() -> Self {
        Self { locks: std::array::from_fn(|_| Mutex::new(())), deletions: AtomicU64::new(0) }
    }
}

/// When something was begun, as the count of deletions then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Begun(u64);

/// A deletion under way. Both ends are counted: one that began before the count was taken is seen by its end.
struct Deleting<'a>(&'a AtomicU64);

impl<'a> Deleting<'a> {
    fn begin(deletions: &'a AtomicU64) -> Self {
        deletions.fetch_add(1, Ordering::SeqCst);
        Self(deletions)
    }
}

impl Drop for Deleting<'_> {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

impl Home {
    /// To be asked before the bytes of a fragment become visible.
    pub(super) fn begun(&self) -> Begun {
        Begun(self.0.guard.deletions.load(Ordering::SeqCst))
    }

    async fn hold(&self, id: FragmentId) -> MutexGuard<'_, ()> {
        self.0.guard.locks[usize::from(id.as_bytes()[0]) % LOCKS].lock().await
    }

    /// Notes a fragment whose bytes are durable. What was known of it before is over: it is neither corrupt nor in the trash.
    pub(super) async fn note(
        &self,
        begun: Begun,
        backend: u16,
        writer: PeerId,
        origin: &FragmentOrigin,
        FragmentStat { id, len }: FragmentStat,
    ) -> Result<(), StoreError> {
        let _held = self.hold(id).await;
        if self.begun() != begun && !self.is_at(backend, id).await? {
            return Err(StoreError::Io(std::io::Error::other("deleted while it was being stored")));
        }
        // A note that does not read is written anew.
        let before = self.record(id).unwrap_or_default();
        let later_ms = before.as_ref().map_or(0, |before| before.stored_ms + 1);
        let record = FragmentRecord {
            segment: origin.segment,
            index: origin.index,
            body: origin.body,
            object: origin.object.to_vec(),
            writer,
            stored_ms: self.now_ms().max(later_ms),
            len,
            backend,
            corrupt: false,
            trashed_ms: None,
        };
        let mut batch = change(id, before.as_ref(), Some(&record));
        let is_twin = before.as_ref().is_some_and(|before| before.index != record.index);
        if is_twin {
            batch.push(Write::Put(Space::Fragments, twin_key(id), Bytes::new()));
        }
        self.0.index.commit(batch, Durability::Buffered).await?;
        // It lay elsewhere, and was perhaps replaced because it was wrong there, or because that disk is gone with all it had.
        if let Some(before) = before
            && before.backend != backend
            && !self.has_twins(id)?
            && let Some(old) = self.0.backends.get(before.backend)
        {
            let _deleting = Deleting::begin(&self.0.guard.deletions);
            if let Err(error) = old.delete(id).await {
                debug!(fragment = %id, backend = %old.place(), %error, "the former copy of a fragment stays for now");
            }
        }
        Ok(())
    }

    async fn is_at(&self, backend: u16, id: FragmentId) -> Result<bool, StoreError> {
        match self.0.backends.get(backend) {
            Some(backend) => Ok(backend.stat(id).await?.is_some()),
            None => Ok(false),
        }
    }

    /// Deletes a fragment from a backend that is not where its note says, if it is there too: what a disk still held
    /// that was away while its fragments were made anew. Whether it was deleted.
    pub(in crate::object) async fn delete_copy(&self, id: FragmentId, copy: &Backend) -> Result<bool, StoreError> {
        let _held = self.hold(id).await;
        match self.record(id)? {
            Some(note)
                if note.backend != copy.number() && !self.has_twins(id)? && self.is_at(note.backend, id).await? =>
            {
                let _deleting = Deleting::begin(&self.0.guard.deletions);
                copy.delete(id).await
            }
            _ => Ok(false),
        }
    }

    /// A fragment has been copied from one backend to another: notes that, and deletes it where it was, if its note is still the
    /// one that was judged; otherwise the copy goes, unless the new note is of that. Whether it is there no more.
    pub(super) async fn settle_move(
        &self,
        id: FragmentId,
        judged: Option<&FragmentRecord>,
        from: &Backend,
        to: &Backend,
    ) -> Result<bool, StoreError> {
        let _held = self.hold(id).await;
        let note = self.record(id)?;
        let _deleting = Deleting::begin(&self.0.guard.deletions);
        if note.as_ref() != judged {
            if note.is_none_or(|note| note.backend != to.number()) && !self.has_twins(id)? {
                to.delete(id).await?;
            }
            return Ok(false);
        }
        if let Some(note) = note
            && note.backend != to.number()
        {
            let moved = FragmentRecord { backend: to.number(), ..note.clone() };
            self.0.index.commit(change(id, Some(&note), Some(&moved)), Durability::Buffered).await?;
        }
        from.delete(id).await?;
        Ok(true)
    }

    /// Changes a note, if it is still the one that was judged; whether it was.
    pub(in crate::object) async fn renote_if(
        &self,
        id: FragmentId,
        judged: &FragmentRecord,
        new: &FragmentRecord,
    ) -> Result<bool, StoreError> {
        let _held = self.hold(id).await;
        if self.record(id)?.as_ref() != Some(judged) {
            return Ok(false);
        }
        self.0.index.commit(change(id, Some(judged), Some(new)), Durability::Buffered).await?;
        Ok(true)
    }

    /// Deletes a fragment and its note, if that is still the one that was judged; whether it was. In this order: a crash
    /// between leaves a note without a fragment, which the next walk clears.
    pub(in crate::object) async fn delete_if(
        &self,
        id: FragmentId,
        judged: &FragmentRecord,
    ) -> Result<bool, StoreError> {
        if judged.stored_ms >= self.now_ms() {
            // Stored again within this millisecond it would have the same note.
            return Ok(false);
        }
        self.delete_noted(id, judged).await
    }

    /// Runs to its end whoever waits for it: a backend does not stop half-way, and the lock must be held as long.
    async fn delete_noted(&self, id: FragmentId, judged: &FragmentRecord) -> Result<bool, StoreError> {
        let (home, judged) = (self.clone(), judged.clone());
        let deleted = tokio::spawn(async move { home.delete_judged(id, &judged).await });
        deleted.await.unwrap_or_else(|error| Err(StoreError::Io(std::io::Error::other(error))))
    }

    async fn delete_judged(&self, id: FragmentId, judged: &FragmentRecord) -> Result<bool, StoreError> {
        let _held = self.hold(id).await;
        if self.record(id)?.as_ref() != Some(judged) {
            return Ok(false);
        }
        let _deleting = Deleting::begin(&self.0.guard.deletions);
        for backend in self.0.backends.iter() {
            match backend.delete(id).await {
                // Out of reach, and not where it lies.
                Err(_) if backend.number() != judged.backend => {}
                deleted => drop(deleted?),
            }
        }
        let mut batch = change(id, Some(judged), None);
        if self.has_twins(id)? {
            batch.push(Write::Delete(Space::Fragments, twin_key(id)));
        }
        self.0.index.commit(batch, Durability::Buffered).await?;
        Ok(true)
    }

    pub(super) fn has_twins(&self, id: FragmentId) -> Result<bool, StoreError> {
        Ok(self.0.backends.only().is_none() && self.0.index.get(Space::Fragments, &twin_key(id))?.is_some())
    }

    /// Deletes a fragment at the word of the peer that wrote it, which knows that it writes it no more; nobody else can vouch
    /// that no record refers to it.
    pub(super) async fn delete_of(&self, from: PeerId, id: FragmentId) -> Result<(), StoreError> {
        match self.record(id)? {
            Some(record) if record.writer == from => drop(self.delete_noted(id, &record).await?),
            Some(_) => warn!(%from, fragment = %id, "refused to delete another writer's fragment"),
            None => {}
        }
        Ok(())
    }

    /// The note of a fragment.
    pub(in crate::object) fn record(&self, id: FragmentId) -> Result<Option<FragmentRecord>, StoreError> {
        let value = self.0.index.get(Space::Fragments, &fragment_key(id))?;
        value.map(|value| decode(id, &value)).transpose()
    }

    /// Up to `limit` notes in order of fragment id, after the one given.
    pub(in crate::object) fn notes(
        &self,
        after: Option<FragmentId>,
        limit: usize,
    ) -> Result<Vec<FragmentId>, StoreError> {
        let from = after.map_or_else(|| Bytes::from_static(FRAGMENT), fragment_key);
        let mut found = Vec::new();
        self.0.index.scan(Space::Fragments, &from, &mut |key, _| match parse_fragment_key(key) {
            Some(id) if Some(id) == after => Next::Continue,
            Some(id) if found.len() < limit => {
                found.push(id);
                Next::Continue
            }
            _ => Next::Stop,
        })?;
        Ok(found)
    }

    /// Fragments noted as corrupt.
    pub(super) fn count_corrupt(&self) -> Result<u64, StoreError> {
        let mut count = 0;
        self.0.index.scan(Space::Fragments, CORRUPT, &mut |key, _| {
            if !key.starts_with(CORRUPT) || count == MAX_COUNTED {
                return Next::Stop;
            }
            count += 1;
            Next::Continue
        })?;
        Ok(count)
    }

    /// Up to `limit` bodies that have fragments here, in order, from `from` (inclusive).
    pub(in crate::object) fn bodies(&self, from: BodyId, limit: usize) -> Result<Vec<BodyId>, StoreError> {
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
    pub(in crate::object) fn fragments_of(
        &self,
        body: BodyId,
    ) -> Result<Vec<(FragmentId, FragmentRecord)>, StoreError> {
        self.some_fragments_of(body, usize::MAX)
    }

    /// The same, up to `limit` of them.
    pub(super) fn some_fragments_of(
        &self,
        body: BodyId,
        limit: usize,
    ) -> Result<Vec<(FragmentId, FragmentRecord)>, StoreError> {
        let mut ids = Vec::new();
        self.0.index.scan(Space::Fragments, &body_prefix(body), &mut |key, _| match parse_body_key(key) {
            Some((found, id)) if found == body && ids.len() < limit => {
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

fn decode(id: FragmentId, value: &[u8]) -> Result<FragmentRecord, StoreError> {
    FragmentRecord::decode(value).map_err(|error| StoreError::Corrupt(format!("note of fragment {id}: {error}")))
}

/// What turns the notes of a fragment from one state to another.
fn change(id: FragmentId, before: Option<&FragmentRecord>, after: Option<&FragmentRecord>) -> Vec<Write> {
    let key = fragment_key(id);
    let mut batch = vec![match after {
        Some(record) => Write::Put(Space::Fragments, key, record.encode()),
        None => Write::Delete(Space::Fragments, key),
    }];
    let body = |record: &FragmentRecord| body_key(record.body, id);
    let corrupt = |record: &FragmentRecord| record.corrupt;
    if before.map(body) != after.map(body) {
        batch.extend(before.map(|before| Write::Delete(Space::Fragments, body(before))));
    }
    batch.extend(after.map(|after| Write::Put(Space::Fragments, body(after), Bytes::new())));
    match (before.is_some_and(corrupt), after.is_some_and(corrupt)) {
        (false, true) => batch.push(Write::Put(Space::Fragments, corrupt_key(id), Bytes::new())),
        (true, false) => batch.push(Write::Delete(Space::Fragments, corrupt_key(id))),
        _ => {}
    }
    batch
}

const FRAGMENT: &[u8] = b"f";
const BODY: &[u8] = b"b";
const CORRUPT: &[u8] = b"d";
const TWIN: &[u8] = b"t";

fn fragment_key(id: FragmentId) -> Bytes {
    [FRAGMENT, id.as_bytes()].concat().into()
}

fn corrupt_key(id: FragmentId) -> Bytes {
    [CORRUPT, id.as_bytes()].concat().into()
}

fn twin_key(id: FragmentId) -> Bytes {
    [TWIN, id.as_bytes()].concat().into()
}

fn body_key(body: BodyId, id: FragmentId) -> Bytes {
    [BODY, body.as_bytes(), id.as_bytes()].concat().into()
}

fn body_prefix(body: BodyId) -> Bytes {
    [BODY, body.as_bytes()].concat().into()
}

fn parse_fragment_key(key: &[u8]) -> Option<FragmentId> {
    key.strip_prefix(FRAGMENT)?.try_into().ok().map(FragmentId::from_bytes)
}

fn parse_body_key(key: &[u8]) -> Option<(BodyId, FragmentId)> {
    const BODY_ID: Range<usize> = 0..BodyId::LEN;
    const FRAGMENT_ID: Range<usize> = BODY_ID.end..BODY_ID.end + FragmentId::LEN;
    let key = key.strip_prefix(BODY)?;
    if key.len() != FRAGMENT_ID.end {
        return None;
    }
    let body = key.get(BODY_ID)?.try_into().ok()?;
    let fragment = key.get(FRAGMENT_ID)?.try_into().ok()?;
    Some((BodyId::from_bytes(body), FragmentId::from_bytes(fragment)))
}

/// The next body id in order; `None` after the last.
pub(in crate::object) fn after_body(body: BodyId) -> Option<BodyId> {
    let next = u128::from_be_bytes(*body.as_bytes()).checked_add(1)?;
    Some(BodyId::from_bytes(next.to_be_bytes()))
}
