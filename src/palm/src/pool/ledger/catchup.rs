//! Bringing copies level: learners fetch what they missed; voters have what they missed settled by consensus
//! (R6: gossip never writes a voter's registers).

use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt, stream};
use palm_backends::Space;
use palm_core::id::PeerId;
use palm_core::reconcile::{Fingerprint, differing};
use palm_core::wire::{Request, Response};
use tokio_util::sync::CancellationToken;

use super::{Ledger, LedgerError, pages};

/// How often a peer compares its copy with another's. Equal copies cost one small message.
const INTERVAL: Duration = Duration::from_secs(5);
/// Differing keys that are fetched in one request.
pub(super) const FETCH_AT_ONCE: usize = 256;
/// Differing keys that are settled at the same time.
const SETTLE_AT_ONCE: usize = 16;
/// Comparing walks ranges, so it is given more time than a vote.
pub(super) const COMPARE_TIMEOUT: Duration = Duration::from_secs(20);

impl Ledger {
    /// Keeps this peer's copy level until cancelled.
    pub async fn keep_level(self, stop: CancellationToken) {
        let mut round = 0_usize;
        loop {
            let jitter = Duration::from_millis(rand::random_range(0..1_000));
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(INTERVAL + jitter) => {}
            }
            round += 1;
            if let Err(error) = self.level_once(round).await {
                tracing::debug!(%error, "catch-up put off");
            }
        }
    }

    /// Compares with one voter, another each round. Answers how many keys were brought level.
    pub async fn level_once(&self, round: usize) -> Result<usize, LedgerError> {
        self.look_for_newer_config().await;
        if self.is_local() {
            self.level_local(round).await?;
        }
        let me = self.me();
        let voters: Vec<PeerId> = self
            .config()
            .electorate()
            .into_iter()
            .filter(|peer| *peer != me && self.0.net.is_connected(*peer))
            .collect();
        let Some(peer) = voters.get(round % voters.len().max(1)).copied() else { return Ok(0) };
        let digest = self.0.voter.whole_digest().await?;
        let keys = self.find_differing(self.0.voter.space(), peer, Bytes::new(), None, digest).await?;
        if keys.is_empty() {
            return Ok(0);
        }
        // A kept sum may have missed a change while it was first computed.
        self.0.voter.recount();
        let count = keys.len();
        if self.0.voter.is_voter() {
            let mut settled =
                stream::iter(keys).map(|key| async move { self.settle(&key).await }).buffer_unordered(SETTLE_AT_ONCE);
            while let Some(result) = settled.next().await {
                result?;
            }
        } else {
            for chunk in keys.chunks(FETCH_AT_ONCE) {
                let request = Request::Fetch { keys: chunk.to_vec() };
                if let Ok(Response::Registers(found)) = self.0.net.call(peer, request, COMPARE_TIMEOUT).await {
                    self.0.voter.follow(found).await?;
                }
            }
        }
        tracing::info!(keys = count, with = %peer.short(), "copy brought level");
        Ok(count)
    }

    /// Keys on which this peer and another differ in a range of a space.
    pub(super) async fn find_differing(
        &self,
        space: Space,
        peer: PeerId,
        from: Bytes,
        to: Option<Bytes>,
        digest: [u8; 32],
    ) -> Result<Vec<Bytes>, LedgerError> {
        let index = self.0.voter.index();
        let mut keys = Vec::new();
        let mut ranges = vec![(from, to, digest)];
        while let Some((from, to, fingerprint)) = ranges.pop() {
            let (start, end) = (from.clone(), to.clone());
            let request = match space {
                Space::Local => Request::CompareLocal { from: start, to: end, fingerprint },
                _ => Request::Compare { from: start, to: end, fingerprint },
            };
            match self.0.net.call(peer, request, COMPARE_TIMEOUT).await {
                Ok(Response::SameRange) => {}
                Ok(Response::Keys(theirs)) => {
                    let mine = pages::pairs(index, space, from, to).await?;
                    keys.extend(differing(&mine, &theirs));
                }
                Ok(Response::Ranges(parts)) => {
                    let mine = pages::pairs(index, space, from, to.clone()).await?;
                    for (at, (first, theirs)) in parts.iter().enumerate() {
                        let end = parts.get(at + 1).map(|(next, _)| next.clone()).or_else(|| to.clone());
                        let low = mine.partition_point(|(key, _)| key < first);
                        let high = end.as_ref().map_or(mine.len(), |end| mine.partition_point(|(key, _)| key < end));
                        let digest = Fingerprint::of(&mine[low.min(high)..high]).digest();
                        if digest != *theirs {
                            ranges.push((first.clone(), end, digest));
                        }
                    }
                }
                other => {
                    tracing::debug!(peer = %peer.short(), answer = ?other.err(), "no comparison");
                    return Ok(keys);
                }
            }
        }
        Ok(keys)
    }
}
