//! Emptying a backend that is to be removed: what it holds goes to the other backends of this peer.
//!
//! A fragment is copied, read back against its name on the way, then noted where it is now, and only then deleted where it
//! was. So a crash leaves it in one place or in both, and the next pass goes on.

use std::collections::BTreeMap;
use std::time::Duration;

use blake3::Hasher;
use futures::{StreamExt, stream};
use palm_backends::{Backend, FragmentStat, FragmentStore as _, StoreError};
use palm_core::id::FragmentId;
use palm_core::record::FragmentRecord;
use tokio::time::sleep;
use tracing::{debug, warn};

use super::Home;

/// Fragments listed at a time.
const PAGE: usize = 256;
/// Fragments moved at once: a disk has other work.
const AT_ONCE: usize = 4;
/// While requests are served, each fragment moved is followed by this.
const BREATH: Duration = Duration::from_millis(5);
/// A fragment is copied in pieces of this.
const PIECE_BYTES: u64 = 256 << 10;
/// Fragments that stay are remembered up to this; the next pass meets the others.
const MAX_STAYING: usize = 1024;

/// What one pass over a backend came to.
#[derive(Debug, Default)]
pub(in crate::object) struct Pass {
    /// Fragments that are not there any more.
    pub(in crate::object) moved: u64,
    /// Fragments that had to stay.
    pub(in crate::object) stayed: u64,
    /// Notes of some of those that had to stay for want of room.
    pub(in crate::object) homeless: Vec<FragmentRecord>,
    /// Why the last of those that stayed did.
    pub(in crate::object) why: String,
}

/// Why a fragment was not copied.
enum Kept {
    /// It does not read.
    Unreadable(StoreError),
    /// The other backend does not take it.
    Refused(StoreError),
}

impl Home {
    /// Moves the fragments of a backend to others, once over all of them. `busy` says whether to take it slowly.
    pub(in crate::object) async fn move_away(
        &self,
        from: &Backend,
        busy: impl Fn() -> bool + Sync,
    ) -> Result<Pass, StoreError> {
        let (mut pass, mut after) = (Pass::default(), None);
        while from.is_leaving() {
            let listed = from.list(after, PAGE).await?;
            let Some(last) = listed.last() else { break };
            after = Some(last.id);
            let moves = listed.into_iter().map(|stat| {
                let (home, from) = (self.clone(), from.clone());
                async move { (stat.id, home.move_one(stat, &from).await) }
            });
            let mut moves = stream::iter(moves).buffer_unordered(AT_ONCE);
            while let Some((id, moved)) = moves.next().await {
                match moved {
                    Ok(true) => pass.moved += 1,
                    Ok(false) => pass.stay("they are being changed".to_owned(), None),
                    Err(error) => {
                        debug!(fragment = %id, backend = %from.place(), %error, "fragment stays for now");
                        let homeless = self.record(id)?.filter(|_| matches!(error, StoreError::Full));
                        pass.stay(error.to_string(), homeless);
                    }
                }
                if busy() {
                    sleep(BREATH).await;
                }
            }
        }
        Ok(pass)
    }

    /// Moves a fragment; whether it is there no more.
    async fn move_one(&self, FragmentStat { id, len }: FragmentStat, from: &Backend) -> Result<bool, StoreError> {
        let note = self.record(id)?;
        let has_twins = self.has_twins(id)?;
        let is_surplus = note.as_ref().is_some_and(|note| note.backend != from.number()) && !has_twins;
        if is_surplus && self.delete_copy(id, from).await? {
            return Ok(true);
        }
        let held = match &note {
            Some(note) => self.noted_of(note.segment, note.body).await,
            None => BTreeMap::new(),
        };
        let (mut twin, mut failed) = (None, StoreError::Full);
        for to in self.0.backends.for_writing(len, &held).await {
            if has_twins && to.stat(id).await?.is_some() {
                twin = Some(to);
                continue;
            }
            match copy(id, len, from, &to).await {
                Ok(()) => return self.settle_move(id, note.as_ref(), from, &to).await,
                Err(Kept::Refused(error)) => failed = error,
                Err(Kept::Unreadable(error)) => return self.give_up(id, note, from, error).await,
            }
        }
        match twin {
            // It lies on every other one already.
            Some(to) => self.settle_move(id, note.as_ref(), from, &to).await,
            None => Err(failed),
        }
    }

    /// What cannot be read cannot be moved. Repair makes it anew elsewhere; what nobody knows anything of goes, if it is wrong.
    async fn give_up(
        &self,
        id: FragmentId,
        note: Option<FragmentRecord>,
        from: &Backend,
        error: StoreError,
    ) -> Result<bool, StoreError> {
        match (note, &error) {
            (Some(note), StoreError::Corrupt(cause)) => self.found_wrong(id, &note, cause).await?,
            (None, StoreError::Corrupt(cause)) => {
                warn!(fragment = %id, backend = %from.place(), cause, "fragment of nobody is wrong, and is deleted");
                return from.delete(id).await;
            }
            (_, StoreError::NotFound(_)) => return Ok(true),
            _ => {}
        }
        Err(error)
    }
}

impl Pass {
    fn stay(&mut self, why: String, homeless: Option<FragmentRecord>) {
        self.stayed += 1;
        self.why = why;
        if self.homeless.len() < MAX_STAYING {
            self.homeless.extend(homeless);
        }
    }
}

/// Copies a fragment, if its bytes are those of its name.
async fn copy(id: FragmentId, len: u64, from: &Backend, to: &Backend) -> Result<(), Kept> {
    let reader = from.open(id).await.map_err(Kept::Unreadable)?;
    let mut writer = to.writer(Some(len)).await.map_err(Kept::Refused)?;
    let (mut hasher, mut at) = (Hasher::new(), 0);
    while at < reader.len() {
        let next = (at + PIECE_BYTES).min(reader.len());
        let bytes = reader.read(at..next).await.map_err(Kept::Unreadable)?;
        hasher.update(&bytes);
        writer.write(bytes).await.map_err(Kept::Refused)?;
        at = next;
    }
    if FragmentId::from_bytes(*hasher.finalize().as_bytes()) != id {
        return Err(Kept::Unreadable(StoreError::Corrupt("holds other bytes than its name says".to_owned())));
    }
    writer.finish().await.map(drop).map_err(Kept::Refused)
}
