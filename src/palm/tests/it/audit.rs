//! Counting among real peers: shares that add up, peers that are away, and one that gives its fragments away.

use std::collections::BTreeSet;
use std::time::Duration;

use futures::future::join_all;
use palm::admin::Admin;
use palm::admin::token::AdminToken;
use palm::config::CustomDomains;
use palm::object::{CollectSettings, CompletedPart, Completion, NewObject, NewUpload, RepairSettings, Store};
use palm::pool::NewPool;
use palm::s3::S3Options;
use palm_backends::decorate::Bandwidth;
use palm_core::id::BodyId;
use palm_core::place::Policy;
use palm_core::record::{BucketConfig, Consistency};
use palm_core::repair::{Health, Redundancy, Tally};
use tokio::task::JoinSet;

use crate::object::{Peer, body, eventually, holds, put, sample, settings};

/// Nothing is counted unless asked for, and nobody who is away is given up.
const PATIENT: RepairSettings = RepairSettings {
    grace: Duration::from_hours(1),
    bandwidth: Bandwidth::UNBOUNDED,
    every: Duration::from_hours(1),
    settle: Duration::from_hours(1),
};

/// Peers that count and repair, of a pool with this policy, and a bucket.
async fn pool_of(count: u8, policy: Policy) -> Vec<(Peer, JoinSet<()>)> {
    let new = NewPool { policy: Some(policy), ..settings(Consistency::Strong) };
    let mut peers: Vec<(Peer, JoinSet<()>)> = Vec::new();
    for tag in 1..=count {
        let first = peers.first().map(|(peer, _)| peer);
        let peer = Peer::start_tuned(tag, first, CollectSettings::default(), PATIENT, new.clone()).await;
        let mut upkeep = JoinSet::new();
        let (repairing, auditing) = (peer.store.clone(), peer.store.clone());
        upkeep.spawn(async move { repairing.keep_repairing().await });
        upkeep.spawn(async move { auditing.keep_auditing().await });
        peers.push((peer, upkeep));
    }
    let voters = usize::from(count - u8::from(count.is_multiple_of(2)));
    eventually("all know each other", || async {
        peers.iter().all(|(peer, _)| {
            peer.store_candidates() == usize::from(count) && peer.pool.ledger().config().voters.len() == voters
        })
    })
    .await;
    peers[0].0.store.create_bucket("bucket", "owner", BucketConfig::default()).await.unwrap();
    peers
}

/// An upload that is open still, and what completes it.
async fn upload_parts(store: &Store, key: &str, sizes: &[usize]) -> (BodyId, Completion) {
    let upload = NewUpload { owner: "owner".to_owned(), object: NewObject::default(), checksum: None };
    let id = store.create_upload("bucket", key, upload).await.unwrap();
    let mut completion = Completion::default();
    for (&size, number) in sizes.iter().zip(1..) {
        let part = store.put_part("bucket", key, id, number, body(&sample(size, number.into()))).await.unwrap();
        let etag = data_encoding::HEXLOWER.encode(&part.md5);
        completion.parts.push(CompletedPart { number, etag, checksum: None });
    }
    (id, completion)
}

fn tally(health: &Health, redundancy: Redundancy) -> Tally {
    health.objects[redundancy as usize]
}

/// Story: objects of every size, an empty one, one of two parts and an upload that is still open lie in a pool of four. Each peer counts those that fall to it. Danger: an object is counted twice, or by nobody, or the open upload as
/// one. Whichever peer adds the shares up, the sum must be the pool, and the survey of one peer alone must say the same. Then
/// one dies: every object that had a fragment there survives one loss fewer, at once, and as long as it may come back nothing
/// is repaired.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shares_add_up_to_the_pool() {
    let mut peers = pool_of(4, Policy { k: 2, n: 4 }).await;
    let sizes = [0, 1, 900, 70_000, 1 << 20, 3_500_000, 40_000, 5];
    for (&size, at) in sizes.iter().zip(0..) {
        put(&peers[at % 4].0, &format!("object-{at}"), &sample(size, at as u64)).await.unwrap();
    }
    let store = &peers[1].0.store;
    let parts = [5 << 20, 70_000];
    upload_parts(store, "open", &parts).await;
    let (id, completion) = upload_parts(store, "completed", &parts).await;
    store.complete_upload("bucket", "completed", id, completion).await.unwrap();
    let bytes: usize = sizes.iter().chain(&parts).sum();
    let all = Tally { objects: sizes.len() as u64 + 1, bytes: bytes as u64 };

    eventually("every share is counted, and they are the pool", || async {
        store.audit_everywhere().await;
        let sums = join_all(peers.iter().map(|(peer, _)| peer.store.pool_health())).await;
        sums.iter().all(|sum| {
            (tally(&sum.health, Redundancy::Full), sum.health.segments_to_mend, sum.silent.len()) == (all, 0, 0)
        })
    })
    .await;
    let health = store.pool_health().await.health;
    assert_eq!((health.can_lose, health.exposed), (2, 0));
    assert!(peers.iter().all(|(peer, _)| peer.store.segments_here() > 0), "two of four at each");
    let found = store.survey().await.unwrap();
    assert_eq!(tally(&found.health, Redundancy::Full), all);
    assert_eq!((found.health.segments_to_mend, found.bytes), (0, 0));

    let (lost, upkeep) = peers.pop().unwrap();
    drop(upkeep);
    lost.pool.shutdown().await;
    let store = &peers[0].0.store;
    eventually("the loss is counted", || async {
        store.audit_everywhere().await;
        let health = store.pool_health().await.health;
        let [unreadable, none, reduced, full] = health.objects;
        assert_eq!(unreadable.objects, 0);
        // The empty object has nothing to lose.
        health.can_lose == 1 && none.objects == 0 && (reduced.objects, full.objects) == (all.objects - 1, 1)
    })
    .await;
    assert_eq!(store.pool_health().await.health.segments_to_mend, 0, "it may be back any moment");
}

/// Story: somebody builds a dashboard from monitoring/metrics.md. A figure that is not served, or one that nobody documented,
/// is found by them or by this.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn documented_metrics_are_those_served() {
    let peers = pool_of(1, Policy { k: 1, n: 1 }).await;
    let (peer, _) = &peers[0];
    let options = S3Options {
        region: "us-east-1".to_owned(),
        domains: Vec::new(),
        website_domains: Vec::new(),
        custom_domains: CustomDomains::default(),
        host_id: peer.pool.me().to_string(),
    };
    let service = palm::s3::service(peer.store.clone(), options).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let token = AdminToken::load_or_create(dir.path()).unwrap();
    let admin = Admin::new(peer.pool.clone(), peer.store.clone(), Duration::from_hours(1), token);
    let page = admin.showing(service.collectors(None)).unwrap().figures().await.unwrap();

    let names = |text: &str, before: &str| -> BTreeSet<String> {
        let found = text
            .split(before)
            .skip(1)
            .map(|rest| rest.chars().take_while(|&c| c.is_ascii_lowercase() || c == '_').collect::<String>());
        found.filter(|name| name.starts_with("palm_")).collect()
    };
    let documented = include_str!("../../../../monitoring/metrics.md");
    let table: String = documented.lines().filter(|line| line.starts_with("| `palm_")).collect();
    let served = names(&page, "# TYPE ");
    // A lone peer has no links, and this one shows no certificate.
    let elsewhere = |name: &String| name.starts_with("palm_link_") || name.starts_with("palm_tls_");
    let documented: BTreeSet<String> = names(&table, "`");
    assert!(documented.iter().any(elsewhere) && !served.iter().any(elsewhere));
    assert_eq!(served, documented.into_iter().filter(|name| !elsewhere(name)).collect());
}

/// Story: one of four peers is told to drain. Danger: objects lose redundancy on the way, new ones are put there, or it is never
/// done. In the end no segment has a fragment there, all objects are at full redundancy at the others, and read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_draining_peer_ends_with_nothing_that_counts() {
    let peers = pool_of(4, Policy { k: 2, n: 3 }).await;
    let mut objects = Vec::new();
    for (&size, at) in [900, 70_000, 3_500_000, 40_000, 1, 2, 3, 4].iter().zip(0..) {
        let (key, bytes) = (format!("object-{at}"), sample(size, at));
        put(&peers[at as usize % 4].0, &key, &bytes).await.unwrap();
        objects.push((key, bytes));
    }
    let (drained, _) = &peers[3];
    drained.store.audit_now().await;
    assert!(drained.store.segments_here() > 0);
    drained.pool.drain(true).await.unwrap();
    eventually("everyone knows", || async { peers.iter().all(|(peer, _)| peer.store_candidates() == 3) }).await;
    let late = ("late".to_owned(), sample(5_000, 77));
    put(&peers[0].0, &late.0, &late.1).await.unwrap();
    objects.push(late);

    eventually("nothing refers to what it keeps", || async {
        drained.store.audit_now().await;
        drained.store.segments_here() == 0 && drained.store.repair_figures().queued == 0
    })
    .await;
    eventually("all are at full redundancy", || async {
        drained.store.audit_everywhere().await;
        let health = drained.store.pool_health().await.health;
        tally(&health, Redundancy::Full).objects == objects.len() as u64 && health.segments_to_mend == 0
    })
    .await;
    for (key, bytes) in &objects {
        assert!(holds(&peers[1].0, key, bytes).await, "{key}");
    }
    drained.pool.drain(false).await.unwrap();
    eventually("it takes fragments again", || async { peers[0].0.store_candidates() == 4 }).await;
}
