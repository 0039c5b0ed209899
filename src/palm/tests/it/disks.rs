//! A peer of several disks, among others.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use palm::object::{CollectSettings, RepairSettings};
use palm_backends::decorate::Bandwidth;
use palm_backends::disk::{DiskFragments, DiskOptions};
use palm_backends::memory::{MemoryFragments, MemoryIndex};
use palm_backends::{BackendState, Backends, FragmentStore, OpenError};
use palm_core::record::{BucketConfig, Consistency};
use palm_core::repair::Redundancy;
use tokio::task::JoinSet;

use crate::object::{Peer, eventually, holds, put, sample, settings};

const EAGER: RepairSettings = RepairSettings {
    grace: Duration::from_secs(60),
    bandwidth: Bandwidth::UNBOUNDED,
    every: Duration::from_secs(1),
    settle: Duration::from_secs(1),
};

/// Both sides of what is packed and what is a file, one stripe and several.
const SIZES: [usize; 12] = [1, 900, 5_000, 40_000, 70_000, 150_000, 300_000, 700_000, 1 << 20, 2_500_000, 31, 9_999];

async fn two_disks(dir: &Path) -> Arc<Backends> {
    let urls = ["a", "b"].map(|name| format!("disk://{}?reserve=0", dir.join(name).display()));
    Backends::open(&urls, Arc::new(MemoryIndex::new()), "me").await.unwrap()
}

/// Two peers with a disk each, and a third that keeps its fragments in these.
async fn three_peers(backends: Arc<Backends>) -> Vec<Peer> {
    let (collect, new) = (CollectSettings::default(), settings(Consistency::Strong));
    let mut peers = vec![Peer::start_tuned(1, None, collect, EAGER, new.clone()).await];
    peers.push(Peer::start_tuned(2, peers.first(), collect, EAGER, new.clone()).await);
    peers.push(Peer::start_on(backends, 3, peers.first(), collect, EAGER, new).await);
    eventually("all know each other", || async {
        peers.iter().all(|peer| peer.store_candidates() == 3 && peer.pool.ledger().config().voters.len() == 3)
    })
    .await;
    peers[0].store.create_bucket("bucket", "owner", BucketConfig::default()).await.unwrap();
    peers
}

/// Story: a peer of two disks loses one while it runs (somebody removes the directory). Danger: the peer fails as a whole; or
/// answers fragments as stored that lie in removed files; or nobody makes up for what was on that disk. Reading and writing
/// must go on at once, through this peer too; the peer must say which disk is gone and keep the fragments anew on the
/// other; and the directory must not come back by itself.
#[tokio::test(flavor = "multi_thread")]
async fn a_disk_lost_under_a_peer_is_made_up_for_on_its_other() {
    let dir = tempfile::tempdir().unwrap();
    let backends = two_disks(dir.path()).await;
    let peers = three_peers(Arc::clone(&backends)).await;
    let mut objects: Vec<_> =
        SIZES.iter().zip(0..).map(|(&size, at)| (format!("object-{at}"), sample(size, at))).collect();
    for (key, bytes) in &objects {
        put(&peers[2], key, bytes).await.unwrap();
    }
    let held = || join_all(backends.iter().map(|backend| async move { backend.usage().await.unwrap().fragments }));
    // Which disk takes a fragment is drawn: more, until both have some.
    while held().await.contains(&0) {
        assert!(objects.len() < 60, "one disk gets nothing: {:?}", held().await);
        let (key, bytes) = (format!("more-{}", objects.len()), sample(5_000, objects.len() as u64));
        put(&peers[2], &key, &bytes).await.unwrap();
        objects.push((key, bytes));
    }
    let on = held().await;

    std::fs::remove_dir_all(dir.path().join("b")).unwrap();
    for (key, bytes) in &objects {
        for peer in [&peers[0], &peers[2]] {
            assert!(holds(peer, key, bytes).await, "{key}");
        }
    }
    for at in 0..10 {
        let (key, bytes) = (format!("later-{at}"), sample(20_000 * at, at as u64));
        put(&peers[2], &key, &bytes).await.unwrap();
        assert!(holds(&peers[1], &key, &bytes).await, "{key}");
    }
    let ills = peers[2].store.home().figures().await.ills;
    assert!(ills.iter().any(|ill| ill.contains("/b") && ill.contains("not there any more")), "{ills:?}");

    let mut upkeep = JoinSet::new();
    for peer in &peers {
        let (repairing, auditing) = (peer.store.clone(), peer.store.clone());
        upkeep.spawn(async move { repairing.keep_repairing().await });
        upkeep.spawn(async move { auditing.keep_auditing().await });
    }
    // An empty object has no fragment.
    let whole = (objects.len() + 10) as u64;
    eventually("all objects are at full redundancy", || async {
        join_all(peers.iter().map(|peer| peer.store.audit_now())).await;
        let shares = join_all(peers.iter().map(|peer| peer.store.health())).await;
        shares.iter().map(|share| share.objects[Redundancy::Full as usize].objects).sum::<u64>() == whole
    })
    .await;
    assert!(backends.usage().await.unwrap().fragments >= on.iter().sum());
    backends.look().await;
    assert!(!dir.path().join("b").exists(), "the lost directory was made anew");
    for (key, bytes) in &objects {
        assert!(holds(&peers[2], key, bytes).await, "{key}");
    }
}

/// Story: one of a peer's two disks runs full in the middle of uploads. Danger: uploads fail, or objects are kept with fewer
/// fragments, though the other disk has room. All must succeed in full, the full disk must be called full, and what it has read.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_leaves_the_work_to_the_other() {
    let stores =
        [3 << 20, 1 << 40].map(|max_bytes| Arc::new(MemoryFragments::new(max_bytes)) as Arc<dyn FragmentStore>);
    let backends = Backends::of(stores);
    let peers = three_peers(Arc::clone(&backends)).await;
    // The draw is by room: fill the small disk from behind to where the next fragments do not fit.
    let small = backends.get(0).unwrap();
    small.put(sample((3 << 20) - 100_000, 77)).await.unwrap();
    for at in 0..30 {
        let (key, bytes) = (format!("object-{at}"), sample(300_000, at));
        let stored = put(&peers[at as usize % 3], &key, &bytes).await.unwrap();
        let palm_core::record::Content::Segments(segments) = &stored.record.content else { panic!("parts") };
        assert!(segments.iter().all(|segment| segment.fragments.len() == 3), "{key} has fewer fragments than meant");
    }
    assert_eq!(small.state().await, BackendState::Full);
    for at in 0..30 {
        assert!(holds(&peers[2], &format!("object-{at}"), &sample(300_000, at)).await);
    }
}

/// Story: a peer is alone in its pool and has two disks; one of them goes. Danger: its fragments were on that disk, or the write
/// was acknowledged with one of two, and objects are lost although a disk is left. Each object must have been on both, all
/// must be read and new ones written; and as there is one disk now, all end as one disk can have them.
#[tokio::test(flavor = "multi_thread")]
async fn a_lone_peer_survives_the_loss_of_a_disk() {
    let dir = tempfile::tempdir().unwrap();
    let backends = two_disks(dir.path()).await;
    let (collect, new) = (CollectSettings::default(), settings(Consistency::Strong));
    let peer = Peer::start_on(Arc::clone(&backends), 1, None, collect, EAGER, new).await;
    eventually("it knows of its disks", || async { peer.pool.view().wanted_policy().n == 4 }).await;
    peer.store.create_bucket("bucket", "owner", BucketConfig::default()).await.unwrap();
    let objects: Vec<_> = SIZES.iter().zip(0..).map(|(&size, at)| (format!("object-{at}"), sample(size, at))).collect();
    for (key, bytes) in &objects {
        put(&peer, key, bytes).await.unwrap();
    }
    for backend in backends.iter() {
        assert_eq!(backend.usage().await.unwrap().fragments, 2 * objects.len() as u64);
    }

    std::fs::remove_dir_all(dir.path().join("b")).unwrap();
    for (key, bytes) in &objects {
        assert!(holds(&peer, key, bytes).await, "{key}");
    }
    backends.look().await;
    eventually("it knows that one is gone", || async { peer.pool.view().wanted_policy().n == 1 }).await;
    put(&peer, "later", &sample(70_000, 99)).await.unwrap();
    let mut upkeep = JoinSet::new();
    let (repairing, auditing) = (peer.store.clone(), peer.store.clone());
    upkeep.spawn(async move { repairing.keep_repairing().await });
    upkeep.spawn(async move { auditing.keep_auditing().await });
    eventually("all are as one disk can have them", || async {
        peer.store.audit_now().await;
        peer.store.health().await.objects[Redundancy::Full as usize].objects == objects.len() as u64 + 1
    })
    .await;
    for (key, bytes) in &objects {
        assert!(holds(&peer, key, bytes).await, "{key}");
    }
}

/// Story: a peer gets another disk and is to do without its first one, while clients write and read at it; another disk is
/// too small for all. Danger: a fragment that is acknowledged and gone, by being written, read, deleted or
/// collected while it is moved; a disk taken off with fragments left. All must be read at all times, and the disk end empty.
#[tokio::test(flavor = "multi_thread")]
async fn a_disk_is_replaced_while_clients_work() {
    let dir = tempfile::tempdir().unwrap();
    let url = |name: &str| format!("disk://{}?reserve=0", dir.path().join(name).display());
    let backends = Backends::open(&[url("a")], Arc::new(MemoryIndex::new()), "me").await.unwrap();
    let peers = three_peers(Arc::clone(&backends)).await;
    let objects: Vec<_> = SIZES.iter().zip(0..).map(|(&size, at)| (format!("object-{at}"), sample(size, at))).collect();
    for (key, bytes) in &objects {
        put(&peers[2], key, bytes).await.unwrap();
    }
    let first = backends.get(0).unwrap();
    backends.add(&format!("{}&max_bytes=300KiB", url("small"))).await.unwrap();
    backends.add(&url("b")).await.unwrap();
    let mut upkeep = JoinSet::new();
    let emptying = peers[2].store.clone();
    upkeep.spawn(async move { emptying.keep_emptying().await });
    backends.leave(&first).await.unwrap();

    let mut late = 0;
    let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
    while late < 20 || backends.get(0).is_some() {
        assert!(tokio::time::Instant::now() < deadline, "the first disk is not gone: {:?}", peers[2].store.stuck(0));
        let (key, bytes) = (format!("late-{late}"), sample(5_000 * (late % 50), late as u64));
        put(&peers[2], &key, &bytes).await.unwrap();
        assert!(holds(&peers[2], &key, &bytes).await, "{key}");
        let (key, bytes) = &objects[late % objects.len()];
        assert!(holds(&peers[1], key, bytes).await, "{key}");
        late += 1;
    }
    for (key, bytes) in &objects {
        assert!(holds(&peers[2], key, bytes).await, "{key}");
        assert_eq!(peers[2].store.home().figures().await.damaged, 0);
    }
    assert!(!dir.path().join("a/palm.owner").exists());
    // What was let go of may be closing its database still.
    let emptied = loop {
        match DiskFragments::open(&dir.path().join("a"), DiskOptions::default()) {
            Err(OpenError::InUse(_)) if tokio::time::Instant::now() < deadline => {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            opened => break opened.unwrap(),
        }
    };
    assert_eq!(emptied.list(None, 10).await.unwrap(), []);
}
