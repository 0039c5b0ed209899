//! Reading a segment to make fragments of it: every stripe is opened, so nothing wrong is ever multiplied.

use std::sync::Arc;

use bytes::Bytes;
use palm_core::code::{CodeError, Coder, SegmentSecret, Shape};
use palm_core::id::PeerId;
use palm_core::record::Segment;
use tokio::time::timeout;

use crate::blocking::spawn_blocking;
use crate::object::fetch::{Fetcher, STRIPE_DEADLINE};
use crate::object::get::INLINE_BYTES;
use crate::object::{ObjectError, Store, recover};

/// Reads the stripes of a segment in order.
pub(super) struct StripeReader {
    store: Store,
    segment: Arc<Segment>,
    shape: Shape,
    secret: Arc<SegmentSecret>,
    fetcher: Fetcher,
    coder: Option<Coder>,
    next: u32,
}

/// A stripe that has proved right.
pub(super) struct Opened {
    /// What it says.
    pub(super) plaintext: Bytes,
    /// k of its shards, and from `wanted` those asked for.
    pub(super) wanted: Vec<Bytes>,
}

impl StripeReader {
    /// Will read this segment from the homes it names.
    pub(super) fn new(store: &Store, segment: Segment, shape: Shape, secret: SegmentSecret) -> Self {
        let segment = Arc::new(segment);
        let fetcher = Fetcher::new(store, Arc::clone(&segment), shape, 0..shape.stripes()).patient();
        Self { store: store.clone(), segment, shape, secret: Arc::new(secret), fetcher, coder: None, next: 0 }
    }

    /// The next stripe, with the shards of these indices computed from it.
    pub(super) async fn next(&mut self, wanted: &Arc<[u8]>) -> Result<Opened, ObjectError> {
        let stripe = self.next;
        self.next += 1;
        let late = |_| ObjectError::Unavailable("fragments to repair from do not come".to_owned());
        let shards = timeout(STRIPE_DEADLINE, self.fetcher.fetch(stripe)).await.map_err(late)??;
        self.count(&shards).await;
        let (coder, opened) = self.open(stripe, shards.clone(), wanted).await?;
        self.coder = Some(coder);
        match opened {
            Ok(opened) => Ok(opened),
            Err(CodeError::Corrupt | CodeError::BadShard { .. }) => {
                let found =
                    recover::recover(&self.store, &self.segment, self.shape, stripe, shards, Arc::clone(&self.secret));
                let found = found.await?;
                self.fetcher.distrusted().lock().extend(found.corrupt);
                let (coder, opened) = self.open(stripe, found.proven, wanted).await?;
                self.coder = Some(coder);
                Ok(opened?)
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn open(
        &mut self,
        stripe: u32,
        shards: Vec<(u8, Bytes)>,
        wanted: &Arc<[u8]>,
    ) -> Result<(Coder, Result<Opened, CodeError>), ObjectError> {
        let mut coder = match self.coder.take() {
            Some(coder) => coder,
            None => Coder::new(self.shape.policy())?,
        };
        let len = self.shape.stripe_len(stripe);
        let (secret, wanted) = (Arc::clone(&self.secret), Arc::clone(wanted));
        let open = move || {
            let opened = coder.open(&secret, stripe, len, &shards).and_then(|plaintext| {
                let wanted = if wanted.is_empty() { Vec::new() } else { coder.rebuild(len, &shards, &wanted)? };
                Ok(Opened { plaintext, wanted })
            });
            (coder, opened)
        };
        Ok(if len <= INLINE_BYTES { open() } else { spawn_blocking(open).await? })
    }

    /// What came over the network.
    async fn count(&self, shards: &[(u8, Bytes)]) {
        let from =
            |index: u8| self.segment.fragments.iter().find(|placed| placed.index == index).map(|placed| placed.home);
        let me: PeerId = self.store.me;
        let remote = shards.iter().filter(|(index, _)| from(*index) != Some(me));
        self.store.pace.read(remote.map(|(_, shard)| shard.len() as u64).sum()).await;
    }
}
