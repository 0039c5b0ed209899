//! All that this peer holds of the ledger, seen as one: an index space and the [`Summary`] of it, and what is
//! answered to those who compare.

use std::sync::Arc;

use bytes::Bytes;
use palm_backends::{IndexStore, Next, Space};
use palm_core::hlc::Ballot;
use palm_core::reconcile::{Answer, PairHash, Range, Summary, is_boundary, pair_hash};
use palm_core::record::Stored;
use palm_core::register::Accepted;
use parking_lot::Mutex;

use super::LedgerError;
use super::pages::blocking;

/// Keys of one scan of what the summary does not know yet.
const READ_AT_ONCE: usize = 16_384;
/// Records of one answer to who lacks some, about: the leaf in which they are reached is finished.
const SUPPLY_RECORDS: usize = 4_096;
/// Their bytes, likewise.
const SUPPLY_BYTES: usize = 1 << 20;
/// At these bytes an answer ends within a leaf: four records of the largest kind, and half a frame.
const SUPPLY_BYTES_HARD: usize = 4 << 20;

/// Records for who lacks them.
#[derive(Debug, Default)]
pub(super) struct Supplied {
    /// In key order.
    pub(super) registers: Vec<(Bytes, Accepted)>,
    /// Where the rest of the range begins.
    pub(super) next: Option<Bytes>,
    /// How many are in that rest, lacked or not.
    pub(super) left: u64,
    /// Without a rest: which of the asker's pairs are not held here.
    pub(super) surplus: Vec<u32>,
}

struct Kept {
    space: Space,
    summary: Summary,
}

/// An index space and its summary.
pub(super) struct Holdings {
    index: Arc<dyn IndexStore>,
    kept: Mutex<Kept>,
    /// One reads for all.
    reading: tokio::sync::Mutex<()>,
}

impl Holdings {
    /// Of a space whose keys are not known yet: they are read when first asked for.
    pub(super) fn new(index: Arc<dyn IndexStore>, space: Space) -> Self {
        let kept = Mutex::new(Kept { space, summary: Summary::default() });
        Self { index, kept, reading: tokio::sync::Mutex::default() }
    }

    /// The space summed up.
    pub(super) fn space(&self) -> Space {
        self.kept.lock().space
    }

    /// Notes that a key of a space went from one ballot to another, durably. Of another space than the one summed up
    /// it says nothing: what a learner still takes in must not count as what a voter has accepted.
    pub(super) fn changed(&self, space: Space, key: &Bytes, before: Option<Ballot>, after: Option<Ballot>) {
        let mut kept = self.kept.lock();
        if kept.space == space {
            kept.summary.change(key, before, after);
        }
    }

    /// Starts anew with a space. `publish` makes the change visible while nobody can look here: whoever sees the new role
    /// sees the new space, and whoever has seen the old space is refused by the role.
    pub(super) fn move_to(&self, space: Space, publish: impl FnOnce()) {
        let mut kept = self.kept.lock();
        *kept = Kept { space, summary: Summary::default() };
        publish();
    }

    /// Looks at the summary, with all of it known but for what changes just then.
    pub(super) async fn look<T>(&self, look: impl FnOnce(&Summary) -> T) -> Result<T, LedgerError> {
        let reading = self.reading.lock().await;
        loop {
            let unread = {
                let mut kept = self.kept.lock();
                let space = kept.space;
                kept.summary.unread().map(|range| (space, range))
            };
            let Some((space, range)) = unread else { break };
            let (pairs, next) = self.pairs(space, range, READ_AT_ONCE).await?;
            // Had the space changed meanwhile, the new summary would not be reading, and take nothing.
            self.kept.lock().summary.read(&pairs, next);
        }
        drop(reading);
        Ok(look(&self.kept.lock().summary))
    }

    /// Pairs of a range of a space, and the boundary key at which a scan of more than `enough` paused.
    async fn pairs(&self, space: Space, range: Range, enough: usize) -> Result<Pairs, LedgerError> {
        let index = Arc::clone(&self.index);
        blocking(move || {
            let (mut pairs, mut next) = (Vec::new(), None);
            scan(index.as_ref(), space, &range, |key, value| {
                if pairs.len() >= enough && is_boundary(key) {
                    next = Some(Bytes::copy_from_slice(key));
                    return Ok(false);
                }
                pairs.push((Bytes::copy_from_slice(key), Accepted::head(value)?.0));
                Ok(true)
            })?;
            Ok((pairs, next))
        })
        .await
    }

    /// All pairs of a range of this space.
    pub(super) async fn pairs_in(&self, range: Range) -> Result<Vec<(Bytes, Ballot)>, LedgerError> {
        let space = self.kept.lock().space;
        Ok(self.pairs(space, range, usize::MAX).await?.0)
    }

    /// Fingerprint of everything.
    pub(super) async fn digest(&self) -> Result<[u8; 32], LedgerError> {
        self.look(Summary::digest).await
    }

    /// Answers a comparison.
    pub(super) async fn compare(&self, range: &Range, digest: [u8; 32]) -> Result<Answer, LedgerError> {
        self.look(|summary| summary.answer(range, digest)).await
    }

    /// The records of a range that are held here and not among `have`, as many as one answer takes.
    pub(super) async fn supply(&self, range: Range, have: &[PairHash]) -> Result<Supplied, LedgerError> {
        let lacking = self.look(|summary| summary.lacking(&range, have, SUPPLY_RECORDS)).await?;
        let space = self.kept.lock().space;
        let index = Arc::clone(&self.index);
        blocking(move || {
            let more = lacking.within != range;
            let next = lacking.within.to.clone().filter(|_| more);
            let mut supplied = Supplied { next, surplus: lacking.surplus, ..Supplied::default() };
            let mut bytes = 0;
            if !lacking.pairs.is_empty() {
                scan(index.as_ref(), space, &lacking.within, |key, value| {
                    if bytes >= SUPPLY_BYTES_HARD || bytes >= SUPPLY_BYTES && is_boundary(key) {
                        supplied.next = Some(Bytes::copy_from_slice(key));
                        return Ok(false);
                    }
                    if lacking.pairs.contains(&pair_hash(key, Accepted::head(value)?.0)) {
                        bytes += key.len() + value.len();
                        supplied.registers.push((Bytes::copy_from_slice(key), Accepted::decode(value)?));
                    }
                    Ok(true)
                })?;
            }
            let here = lacking.pairs.len().saturating_sub(supplied.registers.len()) as u64;
            if supplied.next.is_some() {
                supplied.left = lacking.left + here;
                supplied.surplus.clear();
            }
            Ok(supplied)
        })
        .await
    }
}

/// Pairs in key order, and where the scan of them paused.
type Pairs = (Vec<(Bytes, Ballot)>, Option<Bytes>);

/// Visits keys and values of a range until `visit` says no.
pub(super) fn scan(
    index: &dyn IndexStore,
    space: Space,
    range: &Range,
    mut visit: impl FnMut(&[u8], &[u8]) -> Result<bool, LedgerError>,
) -> Result<(), LedgerError> {
    let mut broken = None;
    index.scan(space, &range.from, &mut |key, value| {
        if range.to.as_ref().is_some_and(|to| key >= &to[..]) {
            return Next::Stop;
        }
        match visit(key, value) {
            Ok(true) => Next::Continue,
            Ok(false) => Next::Stop,
            Err(error) => {
                broken = Some(error);
                Next::Stop
            }
        }
    })?;
    broken.map_or(Ok(()), Err)
}
