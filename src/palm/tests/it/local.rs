//! Pools of local consistency: islands go on alone, and are one again when they meet.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use palm::net::Net;
use palm::object::{
    CollectSettings, CompletedPart, Completion, Deletion, ListQuery, NewObject, NewUpload, ObjectError, WriteConditions,
};
use palm::pool::NewPool;
use palm::pool::ledger::{Current, Decision, Ledger};
use palm_core::hlc::Ballot;
use palm_core::place::Policy;
use palm_core::record::{BucketConfig, Consistency, WhenMinority};
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

use crate::ledger::{self, key};
use crate::object::{self, EAGER, Peer, cluster_of, eventually, get, keys, put, put_whole, sample, settings};

const MIB: usize = 1 << 20;

/// Cuts or mends every connection between two groups.
fn set_connected(left: &[&Net], right: &[&Net], connected: bool) {
    let pairs = || left.iter().flat_map(|a| right.iter().flat_map(move |b| [(a, b), (b, a)]));
    for (one, other) in pairs() {
        if connected {
            one.admit(other.me());
        } else {
            one.expel(other.me());
        }
    }
    // Only now, as it makes them dial: who dials a peer that does not admit it yet is turned away, and tries again much later.
    for (one, other) in pairs().filter(|_| connected) {
        one.hint(other.me(), other.local_addr());
    }
}

/// Every register of the data, by this peer's own copy.
fn copy_of(ledger: &Ledger) -> BTreeMap<Bytes, Current> {
    ledger.local_scan(b"o").unwrap().into_iter().collect()
}

/// Story: five peers with any of twenty keys write, delete and create under conditions, split into changing islands of any
/// shape, meet and split again. Danger: copies that stay different, an acknowledged write undone by one that its writer had
/// seen, a deleted key back. Expectation: once all are connected and have compared, every copy is the same, tombstones
/// included, and each key is at the highest version acknowledged anywhere.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn islands_of_a_ledger_converge() {
    let peers = ledger::pool(5, 3).await;
    let nets: Vec<&Net> = peers.iter().map(|peer| &peer.net).collect();
    for peer in &peers {
        peer.ledger.set_consistency(Some(Consistency::Local));
    }
    let seed: u64 = rand::random();
    eprintln!("seed {seed}");
    let mut rng = SmallRng::seed_from_u64(seed);
    let names: Vec<Bytes> = (0..20).map(|n| key(&format!("ob\0k{n:02}"))).collect();
    // Of each key, the highest version acknowledged, and what it left.
    let mut newest: BTreeMap<Bytes, (Ballot, Option<Bytes>)> = BTreeMap::new();
    for round in 0..8 {
        let (mut left, mut right) = (Vec::new(), Vec::new());
        for net in &nets {
            if rng.random() { left.push(*net) } else { right.push(*net) }
        }
        set_connected(&nets, &nets, true);
        set_connected(&left, &right, false);
        for step in 0..60 {
            let peer = peers.choose(&mut rng).unwrap();
            let at = names.choose(&mut rng).unwrap();
            let value = key(&format!("{round}/{step}"));
            let (delete, create) = (rng.random_bool(0.3), rng.random_bool(0.2));
            let decide = |current: Option<&Current>| match current {
                Some(_) if create => Decision::Keep(false),
                _ if delete => Decision::Delete(true),
                _ => Decision::Put(value.clone(), true),
            };
            let updated = peer.ledger.update(at.clone(), decide).await.unwrap();
            if updated.answer {
                let left = (!delete).then(|| value.clone());
                // Its own write, unless a write of the same millisecond elsewhere has just come and won.
                let now = peer.ledger.read(at).await.unwrap();
                assert!(now.is_none_or(|now| now.version >= updated.version));
                let before = newest.get(at).map_or(Ballot::ZERO, |(version, _)| *version);
                if updated.version > before {
                    newest.insert(at.clone(), (updated.version, left));
                }
            }
            if rng.random_bool(0.1) {
                peer.ledger.level_once(step).await.unwrap();
            }
        }
    }
    set_connected(&nets, &nets, true);
    eventually("every copy is that of the newest writes", || async {
        let mut taken = 0;
        for peer in &peers {
            for round in 0..4 {
                // A connection to compare over, and the comparison.
                let _ = peer.ledger.read_everywhere(&names[0]).await;
                taken += peer.ledger.level_once(round).await.unwrap();
            }
        }
        taken == 0 && peers.iter().all(|peer| copy_of(&peer.ledger) == copy_of(&peers[0].ledger))
    })
    .await;
    for peer in &peers {
        for (at, (version, value)) in &newest {
            let held = peer.ledger.read(at).await.unwrap();
            assert_eq!(held.as_ref().map(|now| &now.value), value.as_ref(), "{at:?}");
            assert!(held.is_none_or(|now| now.version == *version));
        }
    }
}

/// The connections of one peer to all others.
fn isolate(peers: &[Peer], alone: usize, connected: bool) {
    let one = [peers[alone].pool.net()];
    let others: Vec<&Net> =
        peers.iter().enumerate().filter(|(at, _)| *at != alone).map(|(_, peer)| peer.pool.net()).collect();
    set_connected(&one, &others, connected);
}

async fn all_see(peers: &[Peer], live: usize) {
    eventually("the view follows", || async { peers.iter().all(|peer| peer.store_candidates() == live) }).await;
}

/// Story: of five peers one is cut off from all others; buckets, objects, listings, deletions, copies and a multipart upload
/// go on at both sides, and one key is written on both. Danger: an island that refuses or loses what it acknowledged, or
/// sides that differ for good. Expectation: everything works on both; after they meet every peer has all of it with the
/// same bytes, and of the contested key the later write.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_island_works_alone_and_is_merged() {
    let peers = cluster_of(5, CollectSettings::default(), settings(Consistency::Local)).await;
    let (alone, other) = (&peers[4], &peers[0]);
    other.store.create_bucket("bucket", "me", BucketConfig::default()).await.unwrap();
    let (small, large) = (sample(3_000, 1), sample(2 * MIB + 5, 2));
    put(other, "before", &small).await.unwrap();
    eventually("the bucket is known to all", || async {
        let mut known = 0;
        for peer in &peers {
            known += usize::from(get(peer, "before", None).await.is_ok());
        }
        known == 5
    })
    .await;

    isolate(&peers, 4, false);
    all_see(&peers[4..], 1).await;
    all_see(&peers[..4], 4).await;
    assert!(matches!(get(alone, "before", None).await, Err(ObjectError::Unavailable(_))), "too few fragments in reach");
    put(alone, "island", &large).await.unwrap();
    put(alone, "contested", &small).await.unwrap();
    put(other, "mainland", &large).await.unwrap();
    let later = put(other, "contested", &large).await.unwrap();
    alone.store.delete("bucket", "before", Deletion::default()).await.unwrap();
    alone.store.create_bucket("island-bucket", "me", BucketConfig::default()).await.unwrap();
    let source = alone.store.head("bucket", "island", None).await.unwrap();
    let (new, conditions) = (NewObject::default(), WriteConditions::default());
    alone.store.copy(&source, ("bucket", "island"), "bucket", "copy", new, conditions).await.unwrap();
    let absent = WriteConditions { if_absent: true, ..WriteConditions::default() };
    let refused = alone.store.put("bucket", "island", NewObject::default(), absent, object::body(&small)).await;
    assert!(matches!(refused, Err(ObjectError::PreconditionFailed)));

    let id = alone.store.create_upload("bucket", "parts", NewUpload::default()).await.unwrap();
    let parts = [sample(5 * MIB, 3), sample(1_000, 4)];
    let mut named = Vec::new();
    for (number, part) in (1..).zip(&parts) {
        let stored = alone.store.put_part("bucket", "parts", id, number, object::body(part)).await.unwrap();
        let etag = data_encoding::HEXLOWER.encode(&stored.md5);
        named.push(CompletedPart { number, etag, checksum: None });
    }
    let completion = Completion { parts: named, ..Completion::default() };
    alone.store.complete_upload("bucket", "parts", id, completion).await.unwrap();
    assert_eq!(keys(alone, None, 10).await, ["contested", "copy", "island", "parts"]);
    assert_eq!(keys(other, None, 10).await, ["before", "contested", "mainland"]);
    for name in ["contested", "copy", "island", "parts"] {
        get(alone, name, None).await.unwrap();
    }

    isolate(&peers, 4, true);
    all_see(&peers, 5).await;
    eventually("all are one again", || async {
        for peer in &peers {
            if keys(peer, None, 10).await != ["contested", "copy", "island", "mainland", "parts"] {
                return false;
            }
        }
        true
    })
    .await;
    let whole = parts.concat();
    for peer in &peers {
        for (name, bytes) in
            [("contested", &large[..]), ("copy", &large), ("island", &large), ("mainland", &large), ("parts", &whole)]
        {
            // A part's register may come after its object's.
            eventually("its bytes are there", || async { get(peer, name, None).await.is_ok_and(|got| got == bytes) })
                .await;
        }
        assert_eq!(peer.store.head("bucket", "contested", None).await.unwrap().version, later.version);
        let query = ListQuery { limit: 10, ..ListQuery::default() };
        assert_eq!(peer.store.list_buckets(query).await.unwrap().items.len(), 2);
    }
}

/// Story: an object is overwritten while one member, which has not heard of it, is away; homes collect without any grace.
/// Danger: the fragments of a body go while the absent member still serves it, or may have copied it. Expectation: nothing
/// goes as long as it is away, and the old body goes once it has returned and caught up.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_collected_while_a_member_is_away() {
    let peers = cluster_of(3, EAGER, settings(Consistency::Local)).await;
    for peer in &peers {
        let store = peer.store.clone();
        tokio::spawn(async move { store.collect().await });
    }
    peers[0].store.create_bucket("bucket", "me", BucketConfig::default()).await.unwrap();
    let (old, new) = (sample(40_000, 1), sample(50_000, 2));
    put(&peers[0], "key", &old).await.unwrap();
    eventually("all have it", || async { get(&peers[2], "key", None).await.is_ok() }).await;
    let count = || async {
        let mut left = 0;
        for peer in &peers {
            left += peer.fragment_count().await;
        }
        left
    };
    assert_eq!(count().await, 3);

    isolate(&peers, 2, false);
    all_see(&peers[..2], 2).await;
    put(&peers[0], "key", &new).await.unwrap();
    // Several walks of every home.
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!(count().await, 3 + 2, "the old body's three and the new one's two");

    isolate(&peers, 2, true);
    eventually("the old body is gone", || async { count().await == 2 }).await;
    for peer in &peers {
        assert_eq!(get(peer, "key", None).await.unwrap(), new);
    }
}

/// Story: a strong pool that may serve what it knows; one of three is cut off and asked for objects and listings, and to
/// write. Danger: an old answer that passes for a current one, a 404 for what it merely has not heard of, or a write that
/// nobody else knows. Expectation: old answers are labelled, everything else is refused.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_minority_serves_what_it_knows_and_says_so() {
    let policy = Some(Policy::new(1, 3).unwrap());
    let new = NewPool { policy, when_minority: WhenMinority::ReadStale, ..settings(Consistency::Strong) };
    let peers = cluster_of(3, CollectSettings::default(), new).await;
    let (alone, other) = (&peers[2], &peers[0]);
    other.store.create_bucket("bucket", "me", BucketConfig::default()).await.unwrap();
    let (old, young) = (sample(40_000, 1), sample(3_000, 2));
    put_whole(other, "key", &old, 3).await;
    assert!(!alone.store.head("bucket", "key", None).await.unwrap().stale);
    eventually("its own copy has heard", || async { alone.pool.ledger().local_scan(b"o").unwrap().len() == 1 }).await;

    isolate(&peers, 2, false);
    all_see(&peers[2..], 1).await;
    put(other, "key", &young).await.unwrap();
    let known = alone.store.head("bucket", "key", None).await.unwrap();
    assert!(known.stale);
    assert_eq!(get(alone, "key", None).await.unwrap(), old);
    let listed = alone.store.list("bucket", ListQuery { limit: 10, ..ListQuery::default() }).await.unwrap();
    assert!(listed.stale && listed.items.len() == 1);
    assert!(matches!(alone.store.head("bucket", "unheard-of", None).await, Err(ObjectError::Unavailable(_))));
    assert!(matches!(put(alone, "key", &old).await, Err(ObjectError::Unavailable(_))));

    isolate(&peers, 2, true);
    all_see(&peers, 3).await;
    assert!(!alone.store.head("bucket", "key", None).await.unwrap().stale);
    assert_eq!(get(alone, "key", None).await.unwrap(), young);
}
