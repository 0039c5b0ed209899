//! Rebuilding fragments from k others, stripe by stripe, without a key.

use std::sync::Arc;

use futures::future::join_all;
use palm_core::code::{Coder, Shape};
use palm_core::place::Policy;
use palm_core::record::Segment;
use tokio::time::timeout;

use super::fetch::{Fetcher, STRIPE_DEADLINE};
use super::write::{Parcel, Target};
use super::{ObjectError, Store};
use crate::blocking::spawn_blocking;

/// Computes the fragments of `targets` from those the segment has and sends them down their lanes, which it
/// ends. Gives the targets back for their answers. A fragment built from a corrupt one has another id than the
/// target expects and is then not counted as stored.
pub(super) async fn rebuild(
    store: &Store,
    segment: Segment,
    mut targets: Vec<Target>,
) -> Result<Vec<Target>, ObjectError> {
    let policy = Policy { k: segment.k, n: segment.n };
    let shape = Shape::new(policy, segment.len)?;
    let wanted: Arc<[u8]> = targets.iter().map(|target| target.index).collect();
    let mut coder = Coder::new(policy)?;
    let mut fetcher = Fetcher::new(store, Arc::new(segment), shape, 0..shape.stripes());
    for stripe in 0..shape.stripes() {
        let shards = timeout(STRIPE_DEADLINE, fetcher.fetch(stripe))
            .await
            .map_err(|_| ObjectError::Unavailable("fragments to rebuild from do not come".to_owned()))??;
        let wanted = wanted.clone();
        let rebuilt = spawn_blocking(move || {
            let rebuilt = coder.rebuild(shape.stripe_len(stripe), &shards, &wanted);
            rebuilt.map(|rebuilt| (coder, rebuilt))
        });
        let (used, rebuilt) = rebuilt.await??;
        coder = used;
        join_all(targets.iter_mut().zip(rebuilt).map(|(target, shard)| target.lane.send(Parcel::Shard(shard)))).await;
        if targets.iter().all(|target| !target.lane.is_open()) {
            return Ok(targets);
        }
    }
    join_all(targets.iter_mut().map(|target| target.lane.send(Parcel::End))).await;
    Ok(targets)
}
