//! Lines of versions on their way between a head and its pages ([`palm_core::s3::version`], "Pages").
//!
//! Every step is one update that does nothing the second time, so a move left half-done by a peer that died is finished by
//! whoever meets it.

use bytes::Bytes;
use palm_core::record::{HeadRecord, LineRecord, PageRecord, Stored, key};
use palm_core::s3::version::{Move, Name, SEAL_AT, Stop, VersionId};
use tracing::debug;

use super::head::head_in;
use super::store::{At, random};
use super::{ObjectError, Store};
use crate::pool::Decision;

/// Moves that stand in the way of one change are few: each other one needs at least one more writer of the key.
pub(super) const ATTEMPTS: usize = 16;

/// What came of removing a line from a page.
enum Removed {
    /// It is not there any more; it was, if a line is given.
    Gone(Option<LineRecord>),
    /// The page is being taken back, or has been.
    Elsewhere,
}

impl Store {
    /// Removes a version's line from its head, wherever it is; answers it if it was there. The version's own register must
    /// have been emptied.
    pub(super) async fn drop_line(&self, at: &At, id: VersionId) -> Result<Option<LineRecord>, ObjectError> {
        for _ in 0..ATTEMPTS {
            let dropped = self.ledger.update(at.register.clone(), |current| {
                let head = match head_in(current) {
                    Ok(head) => head,
                    Err(error) => return Decision::Keep(Err(error)),
                };
                let line = head.recent.iter().find(|line| line.id == id).cloned();
                match head.delete_version(Name::Id(id), |_| Ok(())) {
                    Err(stop) => Decision::Keep(Ok(Err(stop))),
                    Ok(_) if line.is_none() => Decision::Keep(Ok(Ok(None))),
                    Ok(done) => match done.head {
                        Some(head) => Decision::Put(head.encode(), Ok(Ok(line))),
                        None => Decision::Delete(Ok(Ok(line))),
                    },
                }
            });
            match dropped.await?.answer? {
                Ok(line) => return Ok(line),
                Err(Stop::InPage(page)) => match self.drop_from_page(at, page, id).await? {
                    Removed::Gone(line) => return Ok(line),
                    Removed::Elsewhere => self.finish_move(at).await?,
                },
                Err(stop) => self.clear_way(at, stop).await?,
            }
        }
        Err(ObjectError::Overloaded)
    }

    /// Ends the deletion of a version whose register was found empty by this peer's copy of its head, which may be behind.
    pub(super) async fn end_deletion(&self, object: &Bytes, id: VersionId) -> Result<(), ObjectError> {
        let bucket = key::parse_object(object).map_or("", |(bucket, _)| bucket);
        let at = At { bucket: bucket.to_owned(), register: object.clone() };
        self.drop_line(&at, id).await?;
        Ok(())
    }

    /// Does what a change of the head was stopped for; an error where only the client can.
    pub(super) async fn clear_way(&self, at: &At, stop: Stop) -> Result<(), ObjectError> {
        match stop {
            Stop::Refused(refusal) => Err(refusal.into()),
            Stop::Finish => {
                self.seal(at).await?;
                self.finish_move(at).await
            }
            Stop::TakeBack(page) => self.take_back(at, page, false).await,
            Stop::InPage(_) | Stop::Overtaken => Err(ObjectError::Overloaded),
        }
    }

    /// Moves the oldest recent lines to a page, where there are so many that it is time.
    pub(super) async fn seal(&self, at: &At) -> Result<(), ObjectError> {
        let page = u64::from_be_bytes(random()?);
        if self.change_head(at, |head| head.begin_seal(page)).await? {
            self.finish_move(at).await?;
        }
        Ok(())
    }

    /// The same, waited for by nobody: the next writer meets what is not done.
    pub(super) fn seal_if_due(&self, at: &At, recent: usize) {
        if recent < SEAL_AT {
            return;
        }
        let (store, at) = (self.clone(), at.clone());
        tokio::spawn(async move {
            if let Err(error) = store.seal(&at).await {
                debug!(register = %at.register.escape_ascii(), %error, "older versions stay in the head for now");
            }
        });
    }

    async fn take_back(&self, at: &At, page: u64, seen_empty: bool) -> Result<(), ObjectError> {
        self.change_head(at, |head| head.begin_return(page, seen_empty)).await?;
        self.finish_move(at).await
    }

    /// Ends the move under way, if there is one.
    pub(super) async fn finish_move(&self, at: &At) -> Result<(), ObjectError> {
        let head = head_in(self.ledger.read(&at.register).await?.as_ref())?;
        match head.moving {
            None => Ok(()),
            Some(Move::Seal(id)) => {
                let Some((_, page)) = head.page_to_seal() else { return Ok(()) };
                let value = page.encode();
                let written = self.ledger.update(key::page(&at.register, id), |current| match current {
                    None => Decision::Put(value.clone(), ()),
                    Some(_) => Decision::Keep(()),
                });
                written.await?;
                self.change_head(at, |head| head.end_seal(id)).await?;
                Ok(())
            }
            Some(Move::Return(id)) => {
                let register = key::page(&at.register, id);
                let frozen = self.ledger.update(register.clone(), |current| {
                    match current.map(|current| PageRecord::decode(&current.value)) {
                        Some(Ok(page)) if page.frozen => Decision::Keep(Ok(Some(page.lines))),
                        Some(Ok(page)) => Decision::Put(page.clone().freeze().encode(), Ok(Some(page.lines))),
                        Some(Err(error)) => Decision::Keep(Err(error)),
                        // Somebody else has ended this move.
                        None => Decision::Keep(Ok(None)),
                    }
                });
                let Some(lines) = frozen.await?.answer? else { return Ok(()) };
                self.change_head(at, |head| head.end_return(id, lines.clone())).await?;
                self.ledger.update(register, |_| Decision::Delete(())).await?;
                Ok(())
            }
        }
    }

    /// Changes a head that is there; answers whether anything was to be changed.
    async fn change_head(
        &self,
        at: &At,
        change: impl Fn(HeadRecord) -> Option<HeadRecord> + Send + Sync,
    ) -> Result<bool, ObjectError> {
        let changed = self.ledger.update(at.register.clone(), |current| match head_in(current).map(&change) {
            Ok(Some(head)) if head.is_empty() => Decision::Delete(Ok(true)),
            Ok(Some(head)) => Decision::Put(head.encode(), Ok(true)),
            Ok(None) => Decision::Keep(Ok(false)),
            Err(error) => Decision::Keep(Err(error)),
        });
        changed.await?.answer
    }

    async fn drop_from_page(&self, at: &At, page: u64, id: VersionId) -> Result<Removed, ObjectError> {
        let dropped = self.ledger.update(key::page(&at.register, page), |current| {
            let Some(current) = current else { return Decision::Keep(Ok((Removed::Elsewhere, false))) };
            match PageRecord::decode(&current.value).map(|page| page.remove(id)) {
                Ok(Ok((page, Some(line)))) => {
                    Decision::Put(page.encode(), Ok((Removed::Gone(Some(line)), page.lines.is_empty())))
                }
                Ok(Ok((_, None))) => Decision::Keep(Ok((Removed::Gone(None), false))),
                Ok(Err(_)) => Decision::Keep(Ok((Removed::Elsewhere, false))),
                Err(error) => Decision::Keep(Err(error)),
            }
        });
        let (removed, empty) = dropped.await?.answer?;
        if empty {
            self.take_back(at, page, true).await?;
        }
        Ok(removed)
    }
}
