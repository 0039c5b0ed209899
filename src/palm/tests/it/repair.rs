//! Repair among real peers: homes that go, fragments that rot, pools that grow and shrink.

use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use palm::object::{CollectSettings, RepairSettings};
use palm::pool::NewPool;
use palm_backends::decorate::Bandwidth;
use palm_core::place::Policy;
use palm_core::record::{BucketConfig, Consistency};
use palm_core::repair::{Health, Redundancy};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::object::{Peer, eventually, holds, put, sample, settings};

const EAGER: RepairSettings = RepairSettings {
    grace: Duration::from_secs(1),
    bandwidth: Bandwidth::UNBOUNDED,
    every: Duration::from_secs(1),
    settle: Duration::from_secs(1),
};

/// Repairing tens of megabytes takes a while where eight tests share a core.
const PATIENCE: Duration = Duration::from_mins(2);

struct Pool {
    peers: Vec<Peer>,
    /// Each peer's upkeep.
    upkeep: Vec<JoinSet<()>>,
    new: NewPool,
}

impl Pool {
    async fn of(count: u8, policy: Option<Policy>) -> Self {
        let new = NewPool { policy, ..settings(Consistency::Strong) };
        let mut pool = Self { peers: Vec::new(), upkeep: Vec::new(), new };
        pool.grow_to(count).await;
        pool.peers[0].store.create_bucket("bucket", "owner", BucketConfig::default()).await.unwrap();
        pool
    }

    async fn grow_to(&mut self, count: u8) {
        while self.peers.len() < usize::from(count) {
            let tag = self.peers.len() as u8 + 1;
            let collect = CollectSettings::default();
            let peer = Peer::start_tuned(tag, self.peers.first(), collect, EAGER, self.new.clone()).await;
            let mut upkeep = JoinSet::new();
            let (repairing, auditing) = (peer.store.clone(), peer.store.clone());
            upkeep.spawn(async move { repairing.keep_repairing().await });
            upkeep.spawn(async move { auditing.keep_auditing().await });
            self.upkeep.push(upkeep);
            self.peers.push(peer);
        }
        let voters = usize::from(count - u8::from(count.is_multiple_of(2))).min(7);
        eventually("all know each other", || async {
            self.peers.iter().all(|peer| {
                peer.store_candidates() == usize::from(count) && peer.pool.ledger().config().voters.len() == voters
            })
        })
        .await;
    }

    /// A peer ends, for good.
    async fn lose(&mut self, at: usize) {
        self.upkeep.remove(at).shutdown().await;
        self.peers.remove(at).pool.shutdown().await;
    }

    /// The pool's health, by what its living peers count.
    async fn health(&self) -> Health {
        let shares = join_all(self.peers.iter().map(|peer| peer.store.health())).await;
        let mut shares = shares.into_iter();
        let mut health = shares.next().unwrap();
        shares.for_each(|share| health.add(&share));
        health
    }

    /// Waits until this many objects are counted, all of them as the pool means them to be.
    async fn is_whole(&self, objects: u64) {
        self.is_kept(Redundancy::Full, objects).await;
    }

    /// Waits until so many objects are kept so, and nothing is to be done about it.
    async fn is_kept(&self, how: Redundancy, objects: u64) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            join_all(self.peers.iter().map(|peer| peer.store.audit_now())).await;
            let health = self.health().await;
            if (health.objects[how as usize].objects, health.segments_to_mend, health.queued) == (objects, 0, 0) {
                return;
            }
            assert!(Instant::now() < deadline, "not {objects} objects are {how:?}: {health:?}");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    async fn all_read(&self, objects: &[(String, Bytes)]) {
        for (key, bytes) in objects {
            for peer in &self.peers {
                assert!(holds(peer, key, bytes).await, "{key} at {}", peer.pool.peer_name());
            }
        }
    }
}

/// Objects of every kind of size: short, one stripe, several stripes, more than a segment.
async fn fill(pool: &Pool, sizes: &[usize]) -> Vec<(String, Bytes)> {
    let mut objects = Vec::new();
    for (&size, at) in sizes.iter().zip(0..) {
        let (key, bytes) = (format!("object-{at}"), sample(size, at));
        put(&pool.peers[at as usize % pool.peers.len()], &key, &bytes).await.unwrap();
        objects.push((key, bytes));
    }
    objects
}

const SIZES: &[usize] = &[0, 1, 900, 70_000, 1 << 20, 3_500_000, 1234, 40_000, 300_000, 5, 65 << 20];

/// Story: six peers keep 2-of-4. One dies for ever, and when the others have made up for it, another, and so on: in the end
/// three of six are gone. Each loss alone is harmless; without repair the third would be fatal. Three peers cannot keep the
/// objects as safe as the pool means them to be, and must not say so.
#[tokio::test(flavor = "multi_thread")]
async fn loss_after_loss_is_made_up_for() {
    let mut pool = Pool::of(6, Some(Policy { k: 2, n: 4 })).await;
    let objects = fill(&pool, SIZES).await;
    let count = objects.len() as u64;
    for left in [6, 5, 4] {
        assert_eq!(pool.peers.len(), left);
        pool.is_kept(Redundancy::Full, count).await;
        pool.all_read(&objects).await;
        pool.lose(0).await;
    }
    // All but the empty one.
    pool.is_kept(Redundancy::Reduced, count - 1).await;
    pool.all_read(&objects).await;
}

/// Story: fragments rot and vanish on living peers, as many as every object can do without. Reads must give the right
/// bytes all the time; a read is all it takes for what it met to be mended, and the audit finds the rest.
#[tokio::test(flavor = "multi_thread")]
async fn rotten_and_missing_fragments_are_made_anew() {
    let pool = Pool::of(5, None).await;
    let objects = fill(&pool, &[900, 70_000, 3_500_000, 40_000]).await;
    pool.is_whole(4).await;
    for id in pool.peers[1].fragment_ids().await {
        pool.peers[1].let_rot(id);
    }
    let lost = pool.peers[2].fragment_ids().await;
    for &id in &lost {
        pool.peers[2].lose(id).await;
    }
    pool.all_read(&objects).await;
    pool.is_whole(4).await;
    eventually("what was lost is back", || async { pool.peers[2].fragment_ids().await == lost }).await;
    for id in pool.peers[1].fragment_ids().await {
        assert!(!pool.peers[1].is_rotten(id), "{id} is rotten still");
    }
    pool.all_read(&objects).await;
}

/// Story: a pool of one peer takes objects and then grows to three. What was on one disk alone must be coded for three, and
/// survive the loss of the first.
#[tokio::test(flavor = "multi_thread")]
async fn a_pool_that_grew_codes_its_objects_anew() {
    let mut pool = Pool::of(1, None).await;
    let objects = fill(&pool, &[0, 1, 900, 1 << 20, 3_500_000]).await;
    pool.is_whole(5).await;
    pool.grow_to(3).await;
    pool.is_whole(5).await;
    pool.lose(0).await;
    pool.all_read(&objects).await;
}

/// Story: one of three peers drains. What was coded 2-of-3 has three homes, and two are left: neither may take a second
/// fragment, so copying ends nowhere. It must be coded anew for two, nothing may be left at the third, and nothing be missed
/// when that goes.
#[tokio::test(flavor = "multi_thread")]
async fn a_drain_that_leaves_too_few_homes_ends_all_the_same() {
    let mut pool = Pool::of(3, None).await;
    let objects = fill(&pool, &[0, 1, 900, 1 << 20, 3_500_000]).await;
    pool.is_whole(5).await;
    pool.peers[2].pool.drain(true).await.unwrap();
    eventually("everyone knows", || async { pool.peers.iter().all(|peer| peer.store_candidates() == 2) }).await;
    eventually("nothing refers to what it keeps", || async {
        pool.peers[2].store.audit_now().await;
        pool.peers[2].store.segments_here() == 0
    })
    .await;
    pool.is_whole(5).await;
    pool.lose(2).await;
    pool.all_read(&objects).await;
}
