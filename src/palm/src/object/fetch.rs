//! Fetching the shards of a segment's stripes from the quickest k of its homes.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use palm_backends::FragmentReader;
use palm_core::code::Shape;
use palm_core::id::PeerId;
use palm_core::record::{Placed, Segment};
use palm_core::wire::MAX_SMALL_FRAGMENT_BYTES;
use parking_lot::Mutex;
use tokio::time::{Instant, sleep_until};
use tracing::debug;

use super::homes::HomeError;
use super::store::Counters;
use super::{ObjectError, Store};
use crate::net::FragmentDownload;

/// A stripe whose shards are not all there by then has a further home asked, then another after twice that
/// time, and so on: a slow home costs this much once, and a machine where all are slow is not flooded.
const HEDGE: Duration = Duration::from_millis(75);
/// The same for those who read in the background: bytes matter more to them than time.
const PATIENT_HEDGE: Duration = Duration::from_secs(2);
/// A stripe that is not there by then is not coming.
pub(super) const STRIPE_DEADLINE: Duration = Duration::from_secs(10);

/// Fragments found to hold wrong bytes, by index. Shared with whoever opens the stripes.
pub(super) type Distrusted = Arc<Mutex<BTreeSet<u8>>>;

/// Reads the shards of some stripes of a segment, in order, from k homes at a time.
///
/// Streams stay open from stripe to stripe. There is no queue of our own: while a stripe is opened or waits for
/// the client, the next shards fill the windows of the QUIC streams, which bounds them.
pub(super) struct Fetcher {
    store: Store,
    segment: Arc<Segment>,
    shape: Shape,
    end: u32,
    /// Open streams, all at the same stripe.
    lanes: Vec<Lane>,
    /// Fragments not being read, best first.
    spares: VecDeque<Placed>,
    distrusted: Distrusted,
    hedge: Duration,
}

impl Fetcher {
    /// Will read the stripes of this range. Opens nothing yet.
    pub(super) fn new(store: &Store, segment: Arc<Segment>, shape: Shape, stripes: std::ops::Range<u32>) -> Self {
        let spares = store.reading_order(&segment).into();
        let (store, end) = (store.clone(), stripes.end);
        Self { store, segment, shape, end, lanes: Vec::new(), spares, distrusted: Distrusted::default(), hedge: HEDGE }
    }

    /// Rather waits for a slow home than asks one more.
    pub(super) fn patient(self) -> Self {
        Self { hedge: PATIENT_HEDGE, ..self }
    }

    /// Where to note fragments that turn out corrupt: they are not read any further.
    pub(super) fn distrusted(&self) -> Distrusted {
        self.distrusted.clone()
    }

    /// Any k shards of a stripe, with their indices. Call it for each stripe in turn; may be given up at any
    /// point, which closes the streams in use.
    pub(super) async fn fetch(&mut self, stripe: u32) -> Result<Vec<(u8, Bytes)>, ObjectError> {
        let need = usize::from(self.segment.k);
        self.drop_distrusted();
        // What has been asked for and has not been answered.
        let mut waiting: Vec<Placed> = Vec::new();
        let mut pending = FuturesUnordered::new();
        for lane in std::mem::take(&mut self.lanes) {
            waiting.push(lane.placed.clone());
            pending.push(self.read(lane, stripe));
        }
        let mut shards = Vec::with_capacity(need);
        let mut wait = self.hedge;
        let mut hedge_at = Instant::now() + wait;
        let mut wanted = need;
        while shards.len() < need {
            while shards.len() + pending.len() < wanted
                && let Some(spare) = self.spares.pop_front()
            {
                waiting.push(spare.clone());
                pending.push(self.read(Lane::closed(spare), stripe));
            }
            if shards.len() + pending.len() < need {
                return Err(self.too_few(shards.len() + pending.len()));
            }
            tokio::select! {
                Some((lane, result)) = pending.next() => {
                    waiting.retain(|placed| placed.index != lane.placed.index);
                    match result {
                        Ok(shard) => {
                            shards.push((lane.placed.index, shard));
                            self.lanes.push(lane);
                        }
                        Err(error) => self.failed(&lane.placed, &error),
                    }
                }
                () = sleep_until(hedge_at), if !self.spares.is_empty() => {
                    Counters::add(&self.store.counters.hedged_reads);
                    wanted = shards.len() + pending.len() + 1;
                    wait *= 2;
                    hedge_at = Instant::now() + wait;
                }
            }
        }
        // Who lost the race is asked again only when no other is left; its stream closes here.
        self.spares.extend(waiting);
        Ok(shards)
    }

    fn read(&self, lane: Lane, stripe: u32) -> impl Future<Output = (Lane, Result<Bytes, HomeError>)> + Send + use<> {
        let (store, shape, end) = (self.store.clone(), self.shape, self.end);
        async move {
            let mut lane = lane;
            let shard = lane.read(&store, shape, stripe..end).await;
            (lane, shard)
        }
    }

    fn failed(&self, placed: &Placed, error: &HomeError) {
        debug!(segment = %self.segment.id, index = placed.index, peer = %placed.home, %error, "shard not read");
        match error {
            HomeError::NotFound => self.store.report(placed),
            HomeError::Failed(_) if placed.home != self.store.me => self.store.suspects.add(placed.home),
            _ => {}
        }
    }

    fn drop_distrusted(&mut self) {
        let distrusted = self.distrusted.lock();
        if !distrusted.is_empty() {
            self.lanes.retain(|lane| !distrusted.contains(&lane.placed.index));
            self.spares.retain(|spare| !distrusted.contains(&spare.index));
        }
    }

    fn too_few(&self, reached: usize) -> ObjectError {
        let Segment { id, k, n, .. } = &*self.segment;
        ObjectError::Unavailable(format!("{reached} of the {k} fragments that segment {id} ({k}-of-{n}) needs"))
    }
}

/// One fragment being read, shard by shard.
pub(super) struct Lane {
    placed: Placed,
    source: Source,
}

enum Source {
    Closed,
    /// A fragment of this peer and the offset to go on from.
    Local(Box<dyn FragmentReader>),
    Remote(FragmentDownload),
}

impl Lane {
    /// Of a fragment that is opened when it is first read.
    pub(super) fn closed(placed: Placed) -> Self {
        Self { placed, source: Source::Closed }
    }

    /// The shard of the first of these stripes; the first call opens the fragment for all of them.
    pub(super) async fn read(
        &mut self,
        store: &Store,
        shape: Shape,
        stripes: std::ops::Range<u32>,
    ) -> Result<Bytes, HomeError> {
        let stripe = stripes.start;
        let len = shape.shard_len(stripe);
        if shape.stripes() == 1 && len <= MAX_SMALL_FRAGMENT_BYTES {
            let fragment = store.small_fragment(self.placed.home, self.placed.id).await?;
            return if fragment.len() == len { Ok(fragment) } else { Err(wrong_length()) };
        }
        if let Source::Closed = self.source {
            self.source = self.open(store, shape.fragment_range(stripes)).await?;
        }
        match &mut self.source {
            Source::Closed => Err(wrong_length()),
            Source::Local(reader) => {
                let range = shape.fragment_range(stripe..stripe + 1);
                if range.end > reader.len() {
                    return Err(wrong_length());
                }
                Ok(reader.read(range).await?)
            }
            Source::Remote(download) => {
                let bytes = download.read(len).await?;
                store.traffic.take(bytes.len() as u64).await;
                Ok(bytes)
            }
        }
    }

    async fn open(&self, store: &Store, range: std::ops::Range<u64>) -> Result<Source, HomeError> {
        let Placed { home, id, .. } = self.placed;
        if home == store.me {
            return Ok(Source::Local(store.home().open(id).await?));
        }
        match store.net.get_fragment(home, id, range.start, range.end - range.start).await? {
            Ok(download) => Ok(Source::Remote(download)),
            Err(response) => Err(response.into()),
        }
    }
}

/// One shard of one fragment, by itself.
pub(super) async fn read_shard(store: &Store, placed: &Placed, shape: Shape, stripe: u32) -> Result<Bytes, HomeError> {
    Lane::closed(placed.clone()).read(store, shape, stripe..stripe + 1).await
}

fn wrong_length() -> HomeError {
    HomeError::Failed("fragment has not the length recorded".to_owned())
}

impl Store {
    /// The fragments of a segment, those to read first first.
    fn reading_order(&self, segment: &Segment) -> Vec<Placed> {
        order(segment, self.me, |peer| {
            if self.suspects.contains(peer) || !self.view.is_live(peer) {
                Standing::Doubtful
            } else if self.net.is_connected(peer) {
                Standing::Connected
            } else {
                Standing::Live
            }
        })
    }
}

/// How likely a home is to answer at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Standing {
    Connected,
    Live,
    Doubtful,
}

/// Orders fragments for reading: this peer's own first, since a decode costs less than a round trip; then by
/// standing, and within one the data fragments, which need no decode. Ties are broken by segment and peer,
/// so that the readers of many segments spread over the homes.
fn order(segment: &Segment, me: PeerId, standing: impl Fn(PeerId) -> Standing) -> Vec<Placed> {
    let mut ranked: Vec<(_, Placed)> = segment
        .fragments
        .iter()
        .map(|placed| {
            let remote = placed.home != me;
            let doubt = if remote { standing(placed.home) } else { Standing::Connected };
            let parity = placed.index >= segment.k;
            let tie = (placed.index.wrapping_add(segment.id.as_bytes()[0])) % segment.n.max(1);
            ((remote, doubt, parity, tie), placed.clone())
        })
        .collect();
    ranked.sort_by_key(|(rank, _)| *rank);
    ranked.into_iter().map(|(_, placed)| placed).collect()
}

#[cfg(test)]
mod tests {
    use palm_core::id::{FragmentId, SegmentId};

    use super::*;

    fn peer(tag: u8) -> PeerId {
        PeerId::from_bytes([tag; 32])
    }

    fn segment() -> Segment {
        let fragments = (0..5).map(|index| Placed { index, home: peer(index), id: FragmentId::of(&[index]) }).collect();
        Segment { id: SegmentId::from_bytes([0; 16]), len: 1, k: 3, n: 5, fragments }
    }

    fn indices(me: u8, standing: impl Fn(u8) -> Standing) -> Vec<u8> {
        let order = order(&segment(), peer(me), |peer| standing(peer.as_bytes()[0]));
        order.into_iter().map(|placed| placed.index).collect()
    }

    /// Reading a parity fragment costs a decode, a remote one a round trip, a dead home a timeout. A reader must
    /// start with its own fragment, prefer data to parity, and ask homes in doubt only when no other is left.
    #[test]
    fn own_fragments_first_then_data_and_doubtful_homes_last() {
        assert_eq!(indices(9, |_| Standing::Connected), [0, 1, 2, 3, 4]);
        assert_eq!(indices(4, |_| Standing::Connected), [4, 0, 1, 2, 3]);
        let first_is_dead = |peer| if peer == 0 { Standing::Doubtful } else { Standing::Connected };
        assert_eq!(indices(9, first_is_dead), [1, 2, 3, 4, 0]);
        let only_parity_connected = |peer| if peer >= 3 { Standing::Connected } else { Standing::Live };
        assert_eq!(indices(9, only_parity_connected), [3, 4, 0, 1, 2]);
        assert_eq!(indices(0, |_| Standing::Doubtful)[0], 0, "this peer is never in doubt");
    }
}
