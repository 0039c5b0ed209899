//! A stripe that does not open: which of its shards is wrong, and what it says without it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use palm_core::code::{CodeError, Coder, SegmentSecret, Shape};
use palm_core::record::Segment;
use tokio::time::timeout;
use tracing::error;

use super::fetch::read_shard;
use super::{ObjectError, Store};
use crate::blocking::spawn_blocking;

/// The other fragments have this long to deliver their shards.
const DEADLINE: Duration = Duration::from_secs(3);
/// Sets of shards tried at most. All sets of 5 of 8 are 56; wider policies give up here.
const MAX_TRIALS: usize = 512;

/// What a stripe says after all.
pub(super) struct Recovered {
    pub(super) bytes: Bytes,
    /// Fragments whose shard is wrong, by index.
    pub(super) corrupt: Vec<u8>,
    /// The k shards that opened it, with their indices.
    pub(super) proven: Vec<(u8, Bytes)>,
}

/// Opens a stripe that did not open from the shards at hand: fetches all others and tries sets of k until
/// one opens, which proves its shards right. The true shards of the others then follow from it, so those that
/// differ are named, logged and counted.
pub(super) async fn recover(
    store: &Store,
    segment: &Arc<Segment>,
    shape: Shape,
    stripe: u32,
    mut shards: Vec<(u8, Bytes)>,
    secret: Arc<SegmentSecret>,
) -> Result<Recovered, ObjectError> {
    let others = segment.fragments.iter().filter(|placed| shards.iter().all(|(index, _)| *index != placed.index));
    let mut pending: FuturesUnordered<_> =
        others.map(|placed| async move { (placed.index, read_shard(store, placed, shape, stripe).await) }).collect();
    let all_read = async {
        let mut read = Vec::new();
        while let Some((index, shard)) = pending.next().await {
            read.extend(shard.ok().map(|shard| (index, shard)));
        }
        read
    };
    shards.extend(timeout(DEADLINE, all_read).await.unwrap_or_default());

    let searched = spawn_blocking(move || search(shape, &secret, stripe, &shards)).await?;
    let Some(recovered) = searched? else {
        error!(segment = %segment.id, stripe, "stripe is beyond recovery with the fragments in reach");
        return Err(ObjectError::Unavailable(format!("stripe {stripe} of segment {} is corrupt", segment.id)));
    };
    for &index in &recovered.corrupt {
        store.counters.corrupt_shards.fetch_add(1, Ordering::Relaxed);
        if let Some(placed) = segment.fragments.iter().find(|placed| placed.index == index) {
            error!(segment = %segment.id, stripe, fragment = %placed.id, peer = %placed.home, "corrupt fragment");
            store.report(placed);
        }
    }
    Ok(recovered)
}

/// Tries sets of k shards. `None` when none opens.
fn search(
    shape: Shape,
    secret: &SegmentSecret,
    stripe: u32,
    shards: &[(u8, Bytes)],
) -> Result<Option<Recovered>, CodeError> {
    let len = shape.stripe_len(stripe);
    let k = usize::from(shape.policy().k);
    let mut coder = Coder::new(shape.policy())?;
    // A shard of the wrong length is wrong by itself and would only spoil sets.
    let (fitting, odd): (Vec<_>, Vec<_>) =
        shards.iter().cloned().partition(|(_, shard)| shard.len() == shape.shard_len(stripe));
    let mut set: Vec<usize> = (0..k).collect();
    if fitting.len() < k {
        return Ok(None);
    }
    for _ in 0..MAX_TRIALS {
        let chosen: Vec<(u8, Bytes)> = set.iter().map(|&at| fitting[at].clone()).collect();
        match coder.open(secret, stripe, len, &chosen) {
            Ok(bytes) => {
                let indices: Vec<u8> = fitting.iter().map(|(index, _)| *index).collect();
                let truth = coder.rebuild(len, &chosen, &indices)?;
                let wrong = fitting.iter().zip(truth).filter(|((_, shard), truth)| shard != truth);
                let corrupt = wrong.map(|((index, _), _)| *index).chain(odd.iter().map(|(index, _)| *index));
                return Ok(Some(Recovered { bytes, corrupt: corrupt.collect(), proven: chosen }));
            }
            Err(CodeError::Corrupt) => {}
            Err(error) => return Err(error),
        }
        if !next_set(&mut set, fitting.len()) {
            break;
        }
    }
    Ok(None)
}

/// The next set of positions below `count`, in lexicographic order; `false` after the last.
fn next_set(set: &mut [usize], count: usize) -> bool {
    let k = set.len();
    let Some(at) = (0..k).rfind(|&at| set[at] < count - k + at) else { return false };
    set[at] += 1;
    for later in at + 1..k {
        set[later] = set[later - 1] + 1;
    }
    true
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use palm_core::code::StripeKey;
    use palm_core::id::SegmentId;
    use palm_core::place::Policy;

    use super::*;

    /// Bits rot in up to n - k fragments of a stripe, wherever they are; one is cut short. The client must get
    /// the right bytes and the log the right culprits. With one more gone there must be an error, never wrong bytes.
    #[test]
    fn right_bytes_and_the_right_culprits_up_to_n_minus_k() {
        let policy = Policy { k: 3, n: 5 };
        let plain = b"forty-two stripes walked into a bar".as_slice();
        let shape = Shape::new(policy, plain.len() as u64).unwrap();
        let secret = SegmentSecret::derive(&[1; 32], SegmentId::from_bytes([2; 16]));
        let shards = Coder::new(policy)
            .unwrap()
            .seal_encode(&secret, 0, BytesMut::from(plain), StripeKey::from_random([3; 32]))
            .unwrap();
        let rot = |shard: &Bytes| {
            let mut shard = shard.to_vec();
            shard[7] ^= 0x10;
            Bytes::from(shard)
        };
        for bad in [vec![], vec![0], vec![4], vec![0, 1], vec![1, 3], vec![3, 4]] {
            let mut given: Vec<(u8, Bytes)> = (0..).zip(shards.iter().cloned()).collect();
            for (at, &index) in bad.iter().enumerate() {
                let shard = &mut given[usize::from(index)].1;
                *shard = if at == 0 { rot(shard) } else { shard.slice(..8) };
            }
            let recovered = search(shape, &secret, 0, &given).unwrap().unwrap();
            assert_eq!(recovered.bytes, plain);
            assert_eq!(recovered.corrupt, bad);
        }
        let mut given: Vec<(u8, Bytes)> = (0..).zip(shards.iter().map(rot)).collect();
        given[0].1 = shards[0].clone();
        given[1].1 = shards[1].clone();
        assert!(search(shape, &secret, 0, &given).unwrap().is_none(), "three of five corrupt");
        assert!(search(shape, &secret, 0, &given[..2]).unwrap().is_none(), "two left");
    }

    #[test]
    fn sets_come_each_once() {
        let mut set = vec![0, 1, 2];
        let mut seen = std::collections::BTreeSet::from([set.clone()]);
        while next_set(&mut set, 5) {
            assert!(seen.insert(set.clone()));
        }
        assert_eq!(seen.len(), 10);
    }
}
