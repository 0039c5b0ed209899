//! Whether anything refers to a body: the questions 1 to 5 of `collect.rs`, in their order.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use palm_core::id::{BodyId, PeerId};
use palm_core::record::{
    BucketRecord, FragmentRecord, MemberRecord, ObjectRecord, SharersRecord, Stored, UploadRecord, key,
};
use palm_core::wire::{Request, Response};

use super::super::head::object_in;
use super::super::store::is_upload;
use super::super::{ObjectError, Store};
use super::{Because, Noted, millis};
use crate::pool::Current;

/// A writer answers within this or counts as out of reach.
const ASK_TIMEOUT: Duration = Duration::from_secs(5);

/// How a body came to be looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    /// Its object was replaced or deleted. Nothing is deleted on this look.
    Released,
    /// On the walk.
    Walking,
}

/// A body, and what is known of it here.
#[derive(Debug)]
pub(super) struct Suspect {
    pub(super) body: BodyId,
    /// Register keys of the objects and versions it was uploaded for or known by.
    pub(super) objects: BTreeSet<Bytes>,
    /// Who stored its fragments here.
    pub(super) writers: BTreeSet<PeerId>,
    /// When the last of them was stored.
    pub(super) youngest_ms: u64,
}

impl Suspect {
    /// What the notes of a body's fragments say; `None` where it has none here.
    pub(super) fn of(body: BodyId, fragments: &[Noted]) -> Option<Self> {
        let notes = || fragments.iter().map(|(_, note)| note);
        Some(Self {
            body,
            youngest_ms: notes().map(|note: &FragmentRecord| note.stored_ms).max()?,
            objects: notes().map(|note| Bytes::copy_from_slice(&note.object)).collect(),
            writers: notes().map(|note| note.writer).collect(),
        })
    }
}

/// What a body is in use for.
#[derive(Debug, Clone)]
pub(super) enum Holder {
    /// This object holds it.
    Object(Bytes, Box<ObjectRecord>),
    /// It is a multipart upload that may be completed, of this object.
    Upload(Bytes),
}

/// What was found of a body.
#[derive(Debug, Clone)]
pub(super) enum Verdict {
    InUse(Holder),
    /// Every question was answered with no.
    Garbage,
    /// Some question was not answered, or too early to ask.
    Kept(Because),
}

impl Store {
    pub(super) async fn judge(&self, suspect: &Suspect, found: Found) -> Result<Verdict, ObjectError> {
        let body = suspect.body;
        if found == Found::Walking {
            // This peer's own copy of the ledger settles nearly all of a walk: a body it shows in use is in use, or
            // was a moment ago.
            if let Some(holder) = self.known_holder(suspect) {
                return Ok(Verdict::InUse(holder));
            }
            let age_ms = self.ledger.now_ms().saturating_sub(suspect.youngest_ms);
            if age_ms < millis(self.collector.settings.grace) {
                return Ok(Verdict::Kept(Because::Young));
            }
            if let Some(because) = self.under_way(suspect.writers.clone(), body, age_ms).await? {
                return Ok(Verdict::Kept(because));
            }
        }
        for object in &suspect.objects {
            if is_upload(body) && self.upload_lives(object, body).await? {
                return Ok(Verdict::InUse(Holder::Upload(object.clone())));
            }
            for current in self.states(object, found).await? {
                let Some(record) = held(object, Some(&current), body)? else { continue };
                if found == Found::Walking
                    && let Some((named_by, id)) = key::parse_version(object)
                    && !self.seems_named(&named_by, id)
                {
                    // Its maker, which may be another than the one noted, has not named it yet or never will.
                    let everyone = self.everyone(suspect.writers.iter().copied())?;
                    let age_ms = self.ledger.now_ms().saturating_sub(suspect.youngest_ms);
                    if let Some(because) = self.under_way(everyone, body, age_ms).await? {
                        return Ok(Verdict::Kept(because));
                    }
                    if !self.is_named(named_by, id).await? {
                        continue;
                    }
                }
                return Ok(Verdict::InUse(Holder::Object(object.clone(), Box::new(record))));
            }
        }
        self.judge_sharers(suspect).await
    }

    /// Who holds the body by this peer's own copy of the ledger, which may be stale.
    pub(super) fn known_holder(&self, suspect: &Suspect) -> Option<Holder> {
        let body = suspect.body;
        let sharers = || {
            let known = self.ledger.peek(&key::sharers(body))?;
            SharersRecord::decode(&known.value).ok().map(|sharers| sharers.objects.into_iter().map(Bytes::from))
        };
        let by_object = |object: Bytes| {
            let record = held(&object, self.ledger.peek(&object).as_ref(), body).ok()??;
            if key::parse_version(&object).is_some_and(|(named_by, id)| !self.seems_named(&named_by, id)) {
                return None;
            }
            Some(Holder::Object(object, Box::new(record)))
        };
        suspect.objects.iter().cloned().find_map(by_object).or_else(|| sharers()?.find_map(by_object)).or_else(|| {
            let upload =
                suspect.objects.iter().filter(|_| is_upload(body)).find(|object| self.knows_upload(object, body));
            Some(Holder::Upload(upload?.clone()))
        })
    }

    /// Every state of an object's register that may count.
    async fn states(&self, object: &Bytes, found: Found) -> Result<Vec<Current>, ObjectError> {
        let current = match found {
            _ if self.ledger.is_local() => return Ok(self.ledger.read_everywhere(object).await?),
            Found::Released => self.ledger.read(object).await?,
            Found::Walking => self.ledger.read_fenced(object).await?,
        };
        Ok(current.into_iter().collect())
    }

    async fn judge_sharers(&self, suspect: &Suspect) -> Result<Verdict, ObjectError> {
        let body = suspect.body;
        let register = key::sharers(body);
        let Some(before) = self.ledger.read(&register).await? else { return Ok(Verdict::Garbage) };
        let newest_ms = suspect.youngest_ms.max(before.version.stamp.millis());
        let age_ms = self.ledger.now_ms().saturating_sub(newest_ms);
        let everyone = self.everyone(suspect.writers.iter().copied())?;
        if let Some(because) = self.under_way(everyone, body, age_ms).await? {
            return Ok(Verdict::Kept(because));
        }
        for object in SharersRecord::decode(&before.value)?.objects {
            let object = Bytes::from(object);
            let Some(record) = held(&object, self.ledger.read_fenced(&object).await?.as_ref(), body)? else { continue };
            let named = match key::parse_version(&object) {
                Some((named_by, id)) => self.is_named(named_by, id).await?,
                None => true,
            };
            if named {
                return Ok(Verdict::InUse(Holder::Object(object, Box::new(record))));
            }
        }
        let after = self.ledger.read(&register).await?;
        let unchanged = after.is_some_and(|after| after.version == before.version);
        Ok(if unchanged { Verdict::Garbage } else { Verdict::Kept(Because::InFlight) })
    }

    /// Whether the body is a multipart upload that may still be completed: there, and of the bucket that is
    /// there now.
    pub(super) async fn upload_lives(&self, object: &Bytes, body: BodyId) -> Result<bool, ObjectError> {
        let object = key::object_of(object);
        let Some((bucket, key)) = key::parse_object(&object) else { return Ok(true) };
        let register = key::upload(bucket, key, body);
        if self.ledger.is_local() {
            return Ok(!self.ledger.read_everywhere(&register).await?.is_empty());
        }
        let Some(upload) = self.ledger.read(&register).await? else { return Ok(false) };
        of_bucket(&upload, self.ledger.read_shared(&key::bucket(bucket)).await?.as_ref())
    }

    /// The same by this peer's own copy.
    fn knows_upload(&self, object: &Bytes, body: BodyId) -> bool {
        let object = key::object_of(object);
        let Some((bucket, key)) = key::parse_object(&object) else { return false };
        let upload = self.ledger.peek(&key::upload(bucket, key, body));
        upload
            .is_some_and(|upload| of_bucket(&upload, self.ledger.peek(&key::bucket(bucket)).as_ref()).unwrap_or(false))
    }

    /// The members, and these. An error while this peer has not heard who they are.
    pub(super) fn everyone(&self, others: impl Iterator<Item = PeerId>) -> Result<BTreeSet<PeerId>, ObjectError> {
        let members: BTreeSet<PeerId> = self.view.members().into_iter().map(|member| member.peer).collect();
        if !members.contains(&self.me) {
            return Err(ObjectError::Unavailable("the members are not known yet".to_owned()));
        }
        Ok(members.into_iter().chain(others).collect())
    }

    /// Why an upload, a copy or a repair of the body may be under way at one of these peers, going by what they say.
    /// `age_ms`: how long ago the last sign of it was.
    pub(super) async fn under_way(
        &self,
        peers: BTreeSet<PeerId>,
        body: BodyId,
        age_ms: u64,
    ) -> Result<Option<Because>, ObjectError> {
        let asked = join_all(peers.into_iter().map(|peer| async move {
            match self.ask(peer, Request::InFlight { body }, ASK_TIMEOUT).await {
                Ok(Response::InFlight(true)) => Ok(Some(Because::InFlight)),
                Ok(Response::InFlight(false)) => Ok(None),
                _ if age_ms > millis(self.collector.settings.unreachable_grace) => Ok(None),
                _ if self.is_dismissed(peer).await? => Ok(None),
                _ => Ok(Some(Because::Silence)),
            }
        }));
        asked.await.into_iter().find(|answer| !matches!(answer, Ok(None))).unwrap_or(Ok(None))
    }

    /// Whether the pool has sent a peer away for good, or it has left: the voters take nothing from it any more.
    async fn is_dismissed(&self, peer: PeerId) -> Result<bool, ObjectError> {
        let Some(member) = self.ledger.read(&key::member(peer)).await? else { return Ok(false) };
        Ok(MemberRecord::decode(&member.value)?.state.is_dismissed())
    }
}

/// The object or version in a register, where it holds this body.
pub(super) fn held(
    holder: &[u8],
    current: Option<&Current>,
    body: BodyId,
) -> Result<Option<ObjectRecord>, ObjectError> {
    Ok(object_in(holder, current)?.filter(|object| object.body == body))
}

/// Whether an upload is of the bucket that is there now.
fn of_bucket(upload: &Current, bucket: Option<&Current>) -> Result<bool, ObjectError> {
    let upload = UploadRecord::decode(&upload.value)?;
    let bucket = bucket.map(|bucket| BucketRecord::decode(&bucket.value)).transpose()?;
    Ok(bucket.is_some_and(|bucket| bucket.data_key == upload.data_key))
}

#[cfg(test)]
mod tests {
    use palm_core::hlc::Ballot;
    use palm_core::id::KeyId;
    use palm_core::record::{Attributes, Content, Etag, Subresources};

    use super::*;

    /// A key is overwritten: its register now holds another body. Only the body it holds is in use; a register
    /// that cannot be read settles nothing.
    #[test]
    fn a_register_holds_exactly_one_body() {
        let (mine, other) = (BodyId::from_bytes([1; 16]), BodyId::from_bytes([2; 16]));
        let record = ObjectRecord {
            size: 0,
            etag: Etag { md5: [0; 16], parts: 0 },
            attributes: Attributes::default(),
            checksum: None,
            data_key: KeyId::from_bytes([0; 16]),
            body: mine,
            content: Content::Segments(Vec::new()),
            subresources: Subresources::default(),
            customer_key: None,
        };
        let current = Current { version: Ballot::ZERO, value: record.encode() };
        assert_eq!(held(b"ob\0k", Some(&current), mine).unwrap(), Some(record));
        assert_eq!(held(b"ob\0k", Some(&current), other).unwrap(), None);
        assert_eq!(held(b"ob\0k", None, mine).unwrap(), None);
        let rotten = Current { version: Ballot::ZERO, value: Bytes::from_static(b"\x63") };
        assert!(held(b"ob\0k", Some(&rotten), mine).is_err());
    }
}
