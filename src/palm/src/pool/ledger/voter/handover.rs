//! A peer's copy changing hands: from the voter it was to the learner it becomes, and, when a lost majority is
//! recovered, from every survivor to the one that founds the ledger anew.

use std::sync::Arc;

use bytes::Bytes;
use palm_backends::{Durability, Next, Space, Write};
use palm_core::hlc::Ballot;
use palm_core::record::Stored;
use palm_core::register::{Accepted, Config, Refusal};
use palm_core::wire::{Failure, Response};

use super::{CONFIG_KEY, Voter, storage_failed};
use crate::pool::ledger::LedgerError;

/// A page ends after this many registers, or this many bytes: it and one more record fit a frame.
const PAGE_KEYS: usize = 2_000;
const PAGE_BYTES: usize = 4 << 20;

/// The first key after this one.
pub(in crate::pool::ledger) fn following(key: &[u8]) -> Bytes {
    [key, &[0]].concat().into()
}

impl Voter {
    /// A page of one space, from a key on; empty at its end.
    fn registers(&self, space: Space, from: &[u8]) -> Result<Vec<(Bytes, Accepted)>, LedgerError> {
        let mut page = Vec::new();
        let mut bytes = 0;
        let mut broken = None;
        self.index.scan(space, from, &mut |key, value| {
            match Accepted::decode(value) {
                Ok(accepted) => page.push((Bytes::copy_from_slice(key), accepted)),
                Err(error) => {
                    broken = Some(error);
                    return Next::Stop;
                }
            }
            bytes += key.len() + value.len();
            if page.len() < PAGE_KEYS && bytes < PAGE_BYTES { Next::Continue } else { Next::Stop }
        })?;
        broken.map_or(Ok(page), |error| Err(error.into()))
    }

    /// The same, moving `from` behind it; `None` at the end of the space.
    fn next_page(&self, space: Space, from: &mut Bytes) -> Result<Option<Vec<(Bytes, Accepted)>>, LedgerError> {
        let page = self.registers(space, from)?;
        let Some((last, _)) = page.last() else { return Ok(None) };
        *from = following(last);
        Ok(Some(page))
    }

    /// What it accepted as a voter becomes a learner's copy, which it did not keep meanwhile. As a vote it is void.
    /// The caller holds the gate, and clears the acceptor in the batch that makes this peer a learner.
    pub(super) async fn keep_as_learner(&self) -> Result<(), LedgerError> {
        let mut from = Bytes::new();
        while let Some(page) = self.next_page(Space::Accepted, &mut from)? {
            self.follow(page).await?;
        }
        Ok(())
    }

    /// A page of another's copy without what is gone for good: a key that this peer, which voted, does not hold, below its
    /// collection floor. A learner that was away has it still from before it was deleted. (The floor is that of a range
    /// of keys. A write below it that this voter never saw goes too; but it took part in the collection that raised the
    /// floor, long after that write, and was level then.)
    pub(in crate::pool::ledger) fn without_collected(
        &self,
        page: Vec<(Bytes, Accepted)>,
    ) -> Result<Vec<(Bytes, Accepted)>, LedgerError> {
        let mut rest = Vec::with_capacity(page.len());
        for (key, accepted) in page {
            if accepted.ballot > self.floors.of(&key) || self.index.get(Space::Followed, &key)?.is_some() {
                rest.push((key, accepted));
            }
        }
        Ok(rest)
    }

    /// Hands over a page of a learner's copy, in the epoch of a standstill only: then nobody is a voter, and the copy
    /// holds all this peer ever accepted.
    pub(in crate::pool::ledger) async fn hand_over(self: &Arc<Self>, epoch: u64, from: Bytes) -> Response {
        let config = self.config();
        match config.refuses(&self.me, epoch) {
            Some(Refusal::NotAVoter) if config.electorate().is_empty() => {}
            Some(Refusal::OtherEpoch) => return Response::WrongEpoch((*config).clone()),
            _ => return Response::Failed { reason: Failure::NotReady, detail: "no recovery is under way".to_owned() },
        }
        let this = Arc::clone(self);
        let page = tokio::task::spawn_blocking(move || this.registers(Space::Followed, &from)).await;
        match page.unwrap_or_else(|error| Err(LedgerError::Storage(error.to_string()))) {
            Ok(page) => Response::Registers(page),
            Err(error) => storage_failed(&error),
        }
    }

    /// Ends the standstill `from` with `config`, by which this peer alone votes. All of its copy is accepted at
    /// `ballot`, just as if it had proposed each record to itself: above everything seen, versions unchanged (R1).
    /// A crash before the end leaves the standstill, and the copy as it was. Answers how many registers there are.
    pub(in crate::pool::ledger) async fn refound(
        &self,
        from: &Config,
        config: Config,
        ballot: Ballot,
    ) -> Result<usize, LedgerError> {
        let mut gate = self.gate.write().await;
        if **gate != *from {
            return Err(LedgerError::Recovery("another came in between".to_owned()));
        }
        // R3, as for any accept.
        self.ensure_ceiling(ballot.stamp).await?;
        // Nobody's vote, so nobody's loss: an earlier attempt may have got this far.
        self.index.commit(vec![Write::Clear(Space::Accepted)], Durability::Buffered).await?;
        let (mut count, mut from) = (0, Bytes::new());
        while let Some(page) = self.next_page(Space::Followed, &mut from)? {
            count += page.len();
            let accept =
                |(key, Accepted { record, .. })| Write::Put(Space::Accepted, key, Accepted { ballot, record }.encode());
            // Batches last in order: the synced one below makes these durable.
            self.index.commit(page.into_iter().map(accept).collect(), Durability::Buffered).await?;
        }
        let put = Write::Put(Space::Meta, Bytes::from_static(CONFIG_KEY), config.encode());
        self.index.commit(vec![put], Durability::Synced).await?;
        self.enter(&mut gate, config);
        Ok(count)
    }
}
