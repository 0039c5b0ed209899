//! What a voter does for many keys at once: take accepts that reach it late, vouch for ranges, and promise.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use palm_backends::{Durability, Next, Space, Write};
use palm_core::hlc::Stamp;
use palm_core::reconcile::Range;
use palm_core::record::Stored;
use palm_core::register::Accepted;
use palm_core::wire::{Failure, MAX_CONFIRM_RANGES, Response};

use super::{LedgerError, Voter, storage_failed};

impl Voter {
    /// Takes records of which [`may_install`](palm_core::reconcile::may_install) has been found true in this epoch, as
    /// if their accepts came late: through every rule of an accept, durable before visible, but one sync for all.
    /// Answers the keys it had to refuse.
    pub(in super::super) async fn install(
        self: &Arc<Self>,
        epoch: u64,
        records: BTreeMap<Bytes, Accepted>,
    ) -> Result<Vec<Bytes>, LedgerError> {
        // As an accept: whoever asks may go away, and must not let go of the keys halfway.
        let this = Arc::clone(self);
        let task = tokio::spawn(async move { this.install_to_the_end(epoch, records).await });
        task.await.unwrap_or_else(|error| Err(LedgerError::Storage(error.to_string())))
    }

    async fn install_to_the_end(
        &self,
        epoch: u64,
        records: BTreeMap<Bytes, Accepted>,
    ) -> Result<Vec<Bytes>, LedgerError> {
        let gate = self.gate.read().await;
        if self.refusal(&gate, epoch).is_some() {
            return Ok(records.into_keys().collect());
        }
        let highest = records.values().map(|accepted| accepted.ballot.stamp).max().unwrap_or_default();
        self.ensure_ceiling(highest).await?;
        let mut held = self.hold(records.keys()).await;
        let (mut batch, mut changes, mut refused) = (Vec::new(), Vec::new(), Vec::new());
        for (key, Accepted { ballot, record }) in records {
            let Some(promises) = held.get(&self.stripe_of(&key)) else { continue };
            let mut slot = self.slot(promises, &key)?;
            let before = slot.accepted.as_ref().map(|accepted| accepted.ballot);
            if before >= Some(ballot) {
                continue; // it came the usual way meanwhile
            }
            match slot.accept(ballot, record) {
                Ok(accepted) => {
                    batch.push(Write::Put(Space::Accepted, key.clone(), accepted.encode()));
                    changes.push((key, before, ballot));
                }
                Err(_) => refused.push(key),
            }
        }
        if !batch.is_empty() {
            self.index.commit(batch, Durability::Synced).await?;
        }
        for (key, before, after) in changes {
            if let Some(promises) = held.get_mut(&self.stripe_of(&key)) {
                promises.fulfilled(&key);
            }
            self.changed(Space::Accepted, key, before, Some(after));
        }
        Ok(refused)
    }

    /// Answers whether exactly these pairs are accepted here, range by range.
    pub(in super::super) async fn confirm(
        &self,
        epoch: u64,
        ranges: Vec<(Bytes, Option<Bytes>, [u8; 32])>,
    ) -> Response {
        if ranges.len() > MAX_CONFIRM_RANGES {
            return Response::Failed { reason: Failure::Malformed, detail: "too many ranges".to_owned() };
        }
        let said = self.holdings.look(|summary| {
            // While the summary is looked at no change of this peer's role is published: in this epoch it sums up what
            // was accepted. Accepts of epochs before are all in it: the epoch was adopted after the last of them.
            self.refusal(&self.config(), epoch).unwrap_or_else(|| {
                let holds = |(from, to, digest)| summary.holds(&Range { from, to }, digest);
                Response::Confirmed(ranges.into_iter().map(holds).collect())
            })
        });
        said.await.unwrap_or_else(|error| storage_failed(&error))
    }

    /// Promises, for all keys at once, to take no ballot up to `floor` (R8 (4)). The durable ceiling covers it, so the
    /// promise outlasts a restart (R3).
    pub(in super::super) async fn raise(&self, epoch: u64, floor: Stamp) -> Response {
        // For writing: what is being promised or accepted just now is done before, or sees the new floor.
        let gate = self.gate.write().await;
        if let Some(refusal) = self.refusal(&gate, epoch) {
            return refusal;
        }
        match self.ensure_ceiling(floor).await {
            Ok(()) => {
                self.floor.fetch_max(floor.0, Ordering::AcqRel);
                Response::Raised { highest: Stamp(self.highest.load(Ordering::Acquire)) }
            }
            Err(error) => storage_failed(&error.into()),
        }
    }

    /// A voter that has taken over what it followed as a learner forgets that copy.
    pub(in super::super) async fn forget_followed(&self) -> Result<(), LedgerError> {
        // No change of role comes between the look and the deed.
        let gate = self.gate.read().await;
        if !gate.is_voter(&self.me) {
            return Ok(());
        }
        let mut any = false;
        self.index.scan(Space::Followed, &[], &mut |_, _| {
            any = true;
            Next::Stop
        })?;
        if any {
            self.index.commit(vec![Write::Clear(Space::Followed)], Durability::Buffered).await?;
        }
        Ok(())
    }
}
