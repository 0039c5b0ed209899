//! Versions of objects at several peers over real QUIC: races, crashes at the seams, thousands of versions, collection.

use std::collections::BTreeSet;

use bytes::Bytes;
use futures::future::{join, join_all};
use palm::object::{
    CollectSettings, Deleted, Deletion, ListQuery, Listed, ListedVersion, NewObject, Object, ObjectError,
    VersionsQuery, WriteConditions,
};
use palm::pool::{Decision, NewPool};
use palm_core::place::Policy;
use palm_core::record::{BucketConfig, Consistency, HeadRecord, Stored, key};
use palm_core::s3::version::{Kind, Name, VersionId, Versioning};

use crate::object::{EAGER, Peer, body, cluster_of, eventually, get, keys, put, sample, settings};

async fn versioned(count: u8, collect: CollectSettings) -> Vec<Peer> {
    let policy = (count > 1).then_some(Policy { k: 2, n: 3 });
    let peers = cluster_of(count, collect, NewPool { policy, ..settings(Consistency::Strong) }).await;
    peers[0].store.create_bucket("bucket", "me", BucketConfig::default()).await.unwrap();
    set(&peers[0], Versioning::Enabled).await;
    peers
}

async fn set(peer: &Peer, versioning: Versioning) {
    let changed = peer.store.change_bucket("bucket", |bucket| {
        bucket.config.versioning = versioning;
        Ok(())
    });
    changed.await.unwrap();
}

fn id_of(object: &Object) -> VersionId {
    match object.id {
        Some(Name::Id(id)) => id,
        other => panic!("no version: {other:?}"),
    }
}

async fn delete(peer: &Peer, key: &str, version: Option<Name>) -> Result<Deleted, ObjectError> {
    peer.store.delete("bucket", key, Deletion { version, ..Deletion::default() }).await
}

async fn versions(peer: &Peer, limit: u32) -> Vec<(String, ListedVersion)> {
    let mut found: Vec<(String, ListedVersion)> = Vec::new();
    let (mut start, mut after) = (String::new(), None);
    loop {
        let keys = ListQuery { start, limit, ..ListQuery::default() };
        let page = peer.store.list_versions("bucket", VersionsQuery { keys, after }).await.unwrap();
        assert!(page.items.len() <= limit as usize);
        found.extend(page.items.into_iter().map(|item| match item {
            Listed::Key(key, version) => (key, version),
            Listed::Group(group) => panic!("{group}"),
        }));
        match found.last() {
            Some((key, version)) if page.truncated => (start, after) = (key.clone(), Some(version.id)),
            _ => return found,
        }
    }
}

async fn read(peer: &Peer, key: &str, version: Name) -> Result<Vec<u8>, ObjectError> {
    let object = peer.store.head("bucket", key, Some(version)).await?;
    let stream = peer.store.read(&object, 0..object.record.size).await?;
    let chunks: Vec<Bytes> = futures::TryStreamExt::try_collect(stream).await?;
    Ok(chunks.concat())
}

/// Story: a key lives through a bucket without versions, with them, suspended, and with them again, every step at another
/// peer. Danger: a peer that has not heard of the bucket's state overwrites what should stay. Expectation: what AWS says
/// (<https://docs.aws.amazon.com/AmazonS3/latest/userguide/AddingObjectstoVersionSuspendedBuckets.html>), at every peer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_state_of_the_bucket_is_known_at_once_everywhere() {
    let peers = cluster_of(5, CollectSettings::default(), settings(Consistency::Strong)).await;
    peers[0].store.create_bucket("bucket", "me", BucketConfig::default()).await.unwrap();
    let contents: Vec<Bytes> = (0..6).map(|seed| sample(5_000, seed)).collect();
    let first = put(&peers[1], "k", &contents[0]).await.unwrap();
    assert_eq!(first.id, None);
    set(&peers[2], Versioning::Enabled).await;
    let second = put(&peers[3], "k", &contents[1]).await.unwrap();
    let third = put(&peers[4], "k", &contents[2]).await.unwrap();
    assert!(id_of(&third) > id_of(&second));
    assert_eq!(read(&peers[0], "k", Name::Null).await.unwrap(), contents[0]);
    assert_eq!(read(&peers[0], "k", second.id.unwrap()).await.unwrap(), contents[1]);
    assert_eq!(get(&peers[0], "k", None).await.unwrap(), contents[2]);

    set(&peers[1], Versioning::Suspended).await;
    assert_eq!(put(&peers[2], "k", &contents[3]).await.unwrap().id, None);
    assert_eq!(read(&peers[3], "k", Name::Null).await.unwrap(), contents[3]);
    let gone = delete(&peers[4], "k", None).await.unwrap();
    assert_eq!(gone, Deleted { version: Some(Name::Null), delete_marker: true, found: true });
    let marker = peers[0].store.head("bucket", "k", None).await;
    assert!(matches!(marker, Err(ObjectError::Marker { named: false, version: Name::Null, .. })), "{marker:?}");
    let marker = peers[1].store.head("bucket", "k", Some(Name::Null)).await;
    assert!(matches!(marker, Err(ObjectError::Marker { named: true, .. })), "{marker:?}");
    assert_eq!(keys(&peers[2], None, 10).await, Vec::<String>::new(), "a marker hides the key");
    assert!(matches!(peers[3].store.delete_bucket("bucket").await, Err(ObjectError::BucketNotEmpty)));

    set(&peers[3], Versioning::Enabled).await;
    let gone = delete(&peers[4], "k", None).await.unwrap();
    let Some(Name::Id(marker)) = gone.version.filter(|_| gone.delete_marker) else { panic!("{gone:?}") };
    let listed: Vec<_> = versions(&peers[0], 2).await.into_iter().map(|(_, version)| version).collect();
    let names: Vec<Name> = listed.iter().map(|version| version.id).collect();
    assert_eq!(names, [Name::Id(marker), Name::Null, third.id.unwrap(), second.id.unwrap()]);
    assert_eq!(listed.iter().filter(|version| version.is_latest).count(), 1);
    assert!(listed[0].is_latest && listed[1].kind == Kind::DeleteMarker);

    assert!(delete(&peers[1], "k", Some(Name::Id(marker))).await.unwrap().delete_marker, "a marker was deleted");
    assert!(delete(&peers[2], "k", Some(Name::Null)).await.unwrap().delete_marker);
    assert_eq!(get(&peers[3], "k", None).await.unwrap(), contents[2], "what they hid is back");
    assert_eq!(keys(&peers[4], None, 10).await, ["k"]);
    delete(&peers[0], "k", third.id).await.unwrap();
    assert_eq!(get(&peers[1], "k", None).await.unwrap(), contents[1]);
    assert!(
        matches!(read(&peers[1], "k", third.id.unwrap()).await, Err(ObjectError::Refused(refusal)) if refusal.code == "NoSuchVersion")
    );
    delete(&peers[2], "k", second.id).await.unwrap();
    assert!(matches!(get(&peers[3], "k", None).await, Err(ObjectError::NoSuchKey)));
    peers[4].store.delete_bucket("bucket").await.unwrap();
}

/// Story: at every peer at once a client creates the same key if it is absent; then all replace it if it is what they read.
/// Danger: a condition on the current version that is decided on anything but the head lets two win. Expectation: one winner
/// each time; the others hear 412 or 409 (<https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes.html>).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_condition_has_one_winner() {
    let peers = versioned(3, CollectSettings::default()).await;
    for round in 0..5 {
        let key = format!("k{round}");
        let mut conditions = WriteConditions { if_absent: true, ..WriteConditions::default() };
        for step in 0..3 {
            let tries = join_all(peers.iter().zip(0..).map(|(peer, at)| {
                let (key, conditions) = (key.clone(), conditions.clone());
                let bytes = sample(100, 1_000 * round + 10 * step + at);
                async move { peer.store.put("bucket", &key, NewObject::default(), conditions, body(&bytes)).await }
            }));
            let mut winners = Vec::new();
            for outcome in tries.await {
                match outcome {
                    Ok(object) => winners.push(object),
                    Err(ObjectError::PreconditionFailed | ObjectError::Conflict) => {}
                    Err(other) => panic!("{other}"),
                }
            }
            assert!(winners.len() <= 1, "{} won", winners.len());
            let current = peers[0].store.head("bucket", &key, None).await;
            if let Some(winner) = winners.first() {
                assert_eq!(current.as_ref().unwrap().id, winner.id);
            }
            if let Ok(current) = current {
                let if_match = Some(current.record.etag.to_string());
                conditions = WriteConditions { if_match, ..WriteConditions::default() };
            }
        }
    }
}

/// Story: while clients at three peers put, delete and delete versions of one key, another reads and lists it. Danger: a
/// version that was acknowledged is not listed, one that was deleted is, or a listed one cannot be read. Expectation: in
/// the end the listing is what was acknowledged and not deleted, newest first, and the first of it is what a reader gets.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_under_races() {
    let peers = versioned(3, CollectSettings::default()).await;
    let worker = |at: usize| {
        let peer = &peers[at];
        async move {
            let (mut made, mut gone) = (Vec::new(), BTreeSet::new());
            for step in 0..12_u64 {
                match step % 4 {
                    3 => made.push(delete(peer, "k", None).await.unwrap().version.unwrap()),
                    2 => {
                        let victim: Name = made[step as usize / 4 * 2];
                        delete(peer, "k", Some(victim)).await.unwrap();
                        gone.insert(victim.to_string());
                    }
                    _ => {
                        let bytes = sample(300, 100 * step + at as u64);
                        made.push(put(peer, "k", &bytes).await.unwrap().id.unwrap());
                    }
                }
                match peer.store.head("bucket", "k", None).await {
                    Ok(_) | Err(ObjectError::Marker { .. } | ObjectError::NoSuchKey) => {}
                    Err(other) => panic!("{other}"),
                }
            }
            (made, gone)
        }
    };
    let (mut expected, mut gone) = (BTreeSet::new(), BTreeSet::new());
    for (made, deleted) in join_all((0..3).map(worker)).await {
        expected.extend(made.into_iter().map(|name| name.to_string()));
        gone.extend(deleted);
    }
    let listed = versions(&peers[1], 7).await;
    let names: Vec<String> = listed.iter().map(|(_, version)| version.id.to_string()).collect();
    assert_eq!(names.iter().cloned().collect::<BTreeSet<_>>(), &expected - &gone);
    assert!(names.is_sorted_by(|newer, older| newer > older), "newest first, each once");
    for (_, version) in &listed {
        assert_eq!(read(&peers[2], "k", version.id).await.is_ok(), version.kind != Kind::DeleteMarker);
    }
    match peers[0].store.head("bucket", "k", None).await {
        Ok(object) => assert_eq!(object.id, Some(listed[0].1.id)),
        Err(ObjectError::Marker { version, .. }) => assert_eq!(version, listed[0].1.id),
        Err(other) => panic!("{other}"),
    }
}

/// Story: versioning is enabled at one peer while others overwrite a key without pause. Danger: a PUT that begins after the
/// answer still overwrites. Expectation: whatever begins after it makes a version of its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_puts_after_enabling_makes_a_version() {
    let peers = cluster_of(3, CollectSettings::default(), settings(Consistency::Strong)).await;
    for round in 0..8 {
        let name = format!("bucket{round}");
        peers[0].store.create_bucket(&name, "me", BucketConfig::default()).await.unwrap();
        let put_at = |peer: &Peer, seed| {
            let (store, name) = (peer.store.clone(), name.clone());
            async move {
                let (new, conditions) = (NewObject::default(), WriteConditions::default());
                store.put(&name, "k", new, conditions, body(&sample(50, seed))).await.unwrap()
            }
        };
        let enabling = async {
            let changed = peers[2].store.change_bucket(&name, |bucket| {
                bucket.config.versioning = Versioning::Enabled;
                Ok(())
            });
            changed.await.unwrap();
            // From here on nobody may overwrite anything.
            Box::pin(join(put_at(&peers[0], 1), put_at(&peers[1], 2))).await
        };
        let (_, (left, right)) = Box::pin(join(put_at(&peers[0], 3), enabling)).await;
        assert_ne!(id_of(&left), id_of(&right));
        for version in [left.id, right.id] {
            peers[2].store.head(&name, "k", version).await.unwrap();
        }
    }
}

/// Story: one client puts a legal hold on a version while another deletes it. Danger: both are told that they succeeded. The
/// lock is decided in the update that deletes, so one of them must lose
/// (<https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-lock.html>).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hold_and_a_deletion_do_not_both_succeed() {
    let peers = versioned(3, CollectSettings::default()).await;
    for round in 0..10 {
        let version = put(&peers[0], "k", &sample(50, round)).await.unwrap().id;
        let holding = peers[1].store.change_object("bucket", "k", version, |object| {
            object.subresources.lock.legal_hold = Some(true);
            Ok(())
        });
        let (held, deleted) = join(holding, delete(&peers[2], "k", version)).await;
        assert_ne!(held.is_ok(), deleted.is_ok(), "{held:?} {deleted:?}");
        assert_eq!(peers[0].store.head("bucket", "k", version).await.is_ok(), held.is_ok());
    }
}

/// Story: tags change on the current version and on an older null version. Danger: the change makes the object look new, or
/// lands on another version. Expectation: the version named has it, and keeps its date.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tags_change_one_version_and_no_date() {
    let peers = cluster_of(1, CollectSettings::default(), settings(Consistency::Strong)).await;
    let store = &peers[0].store;
    store.create_bucket("bucket", "me", BucketConfig::default()).await.unwrap();
    let null = put(&peers[0], "k", &sample(10, 1)).await.unwrap();
    set(&peers[0], Versioning::Enabled).await;
    let current = put(&peers[0], "k", &sample(10, 2)).await.unwrap();
    for (named, target, other) in [
        (None, &current, Name::Null),
        (Some(Name::Null), &null, current.id.unwrap()),
        (current.id, &current, Name::Null),
    ] {
        let tag = ("k".to_owned(), format!("{named:?}"));
        let changed = store.change_object("bucket", "k", named, |object| {
            object.subresources.tags = vec![tag.clone()];
            Ok(())
        });
        assert_eq!(changed.await.unwrap().modified_ms(), target.modified_ms());
        let name = named.or(target.id).unwrap_or(Name::Null);
        let read = store.head("bucket", "k", Some(name)).await.unwrap();
        assert_eq!((read.modified_ms(), &read.record.subresources.tags), (target.modified_ms(), &vec![tag.clone()]));
        assert_ne!(store.head("bucket", "k", Some(other)).await.unwrap().record.subresources.tags, [tag]);
    }
}

/// Story: a peer dies between writing a version and naming it, and another in the middle of deleting one. Danger: the first
/// leaves a body that nobody can delete; the second a key that answers neither its version nor the one below. Expectation:
/// the walk collects the one; a reader ends the other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_crash_leaves_between_two_registers_is_cleared() {
    let peers = versioned(3, EAGER).await;
    let old = put(&peers[0], "k", &sample(5_000, 1)).await.unwrap();
    let unnamed = put(&peers[0], "k", &sample(5_000, 2)).await.unwrap();
    let object = key::object("bucket", "k");
    let forget = |id: VersionId| {
        peers[0].pool.ledger().update(object.clone(), move |current| {
            let mut head = HeadRecord::of(current.unwrap()).unwrap();
            head.recent.retain(|line| line.id != id);
            Decision::Put(head.encode(), ())
        })
    };
    forget(id_of(&unnamed)).await.unwrap();
    let orphan = key::version(&object, id_of(&unnamed));
    assert!(peers[0].pool.ledger().read(&orphan).await.unwrap().is_some());
    eventually("what no head names is collected", || async {
        for peer in &peers {
            peer.store.collect_now(false, |_| {}).await.unwrap();
        }
        let fragments: u64 = join_all(peers.iter().map(Peer::fragment_count)).await.iter().sum();
        fragments == 3
    })
    .await;
    assert!(peers[1].pool.ledger().read(&orphan).await.unwrap().is_none());
    assert_eq!(get(&peers[1], "k", None).await.unwrap(), sample(5_000, 1));

    let halfway = put(&peers[1], "k", &sample(5_000, 3)).await.unwrap();
    let register = key::version(&object, id_of(&halfway));
    peers[1].pool.ledger().update(register, |_| Decision::Delete(())).await.unwrap();
    assert_eq!(versions(&peers[2], 9).await.len(), 2);
    assert!(read(&peers[2], "k", halfway.id.unwrap()).await.is_err());
    assert_eq!(peers[2].store.head("bucket", "k", None).await.unwrap().id, old.id);
    assert_eq!(versions(&peers[0], 9).await.len(), 1, "the reader has removed the line");
    let again = delete(&peers[0], "k", halfway.id).await.unwrap();
    assert!(!again.found);
}

/// Story: versions, copies of versions and their originals are deleted one by one, in a bucket that began without versions.
/// Danger: collection takes a body that some version still holds, or leaves one that none does. Expectation: after each
/// deletion and many looks exactly what is listed can be read, and in the end no fragment is left.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deleted_versions_are_collected_and_nothing_else() {
    let peers =
        cluster_of(3, EAGER, NewPool { policy: Some(Policy { k: 2, n: 3 }), ..settings(Consistency::Strong) }).await;
    peers[0].store.create_bucket("bucket", "me", BucketConfig::default()).await.unwrap();
    put(&peers[0], "k", &sample(4_000, 1)).await.unwrap();
    set(&peers[1], Versioning::Enabled).await;
    // The other peers may still believe that there are no versions: then fragments are noted under the object.
    put(&peers[2], "k", &sample(4_000, 2)).await.unwrap();
    let third = put(&peers[0], "k", &sample(4_000, 3)).await.unwrap();
    let (new, conditions) = (NewObject::default(), WriteConditions::default());
    peers[1].store.copy(&third, ("bucket", "k"), "bucket", "copy", new, conditions).await.unwrap();
    delete(&peers[1], "k", None).await.unwrap();
    let look = || async {
        for _ in 0..3 {
            for peer in &peers {
                peer.store.collect_now(false, |_| {}).await.unwrap();
            }
        }
        let counts = join_all(peers.iter().map(Peer::fragment_count)).await;
        counts.iter().sum::<u64>()
    };
    let mut left = versions(&peers[0], 100).await;
    assert_eq!(left.len(), 5);
    while let Some((key, version)) = left.pop() {
        delete(&peers[left.len() % 3], &key, Some(version.id)).await.unwrap();
        let bodies: BTreeSet<_> = join_all(left.iter().map(|(key, version)| {
            let (store, id) = (&peers[0].store, version.id);
            async move { store.head("bucket", key, Some(id)).await.ok().map(|object| object.record.body) }
        }))
        .await
        .into_iter()
        .flatten()
        .collect();
        eventually("as many fragments as the bodies need", || async { look().await == 3 * bodies.len() as u64 }).await;
        for (key, version) in left.iter().filter(|(_, version)| version.kind != Kind::DeleteMarker) {
            assert_eq!(read(&peers[2], key, version.id).await.unwrap().len(), 4_000);
        }
    }
    peers[0].store.delete_bucket("bucket").await.unwrap();
}

/// Story: one key has two thousand versions, listed page by page and deleted from both ends and the middle. Danger: lines on
/// their way between the head and its pages are lost, doubled or come back. Expectation: the listing is the model, in order,
/// at every step, and the key is gone in the end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_thousand_versions_of_one_key() {
    let peers = versioned(1, CollectSettings::default()).await;
    let peer = &peers[0];
    let mut model = Vec::new();
    for step in 0..2_000 {
        let made = match step % 10 {
            0 => put(peer, "k", &Bytes::new()).await.unwrap().id,
            _ => delete(peer, "k", None).await.unwrap().version,
        };
        model.insert(0, made.unwrap());
    }
    put(peer, "l", &sample(10, 1)).await.unwrap();
    let listed = |limit| async move {
        let all = versions(peer, limit).await;
        all.into_iter().filter(|(key, _)| key == "k").map(|(_, version)| version.id).collect::<Vec<_>>()
    };
    assert_eq!(listed(1_000).await, model);
    assert_eq!(listed(77).await, model);
    let head = peer.pool.ledger().read(&key::object("bucket", "k")).await.unwrap().unwrap();
    let head = HeadRecord::of(&head).unwrap();
    assert!(
        head.pages.len() > 10 && head.recent.len() < 200,
        "{} pages, {} lines",
        head.pages.len(),
        head.recent.len()
    );
    while !model.is_empty() {
        for at in [0, model.len() / 2, model.len().saturating_sub(1)] {
            if at < model.len() {
                let version = model.remove(at);
                delete(peer, "k", Some(version)).await.unwrap();
            }
        }
        if model.len() % 300 < 3 {
            assert_eq!(listed(1_000).await, model);
        }
    }
    assert!(matches!(peer.store.head("bucket", "k", None).await, Err(ObjectError::NoSuchKey)));
    assert!(peer.pool.ledger().read(&key::object("bucket", "k")).await.unwrap().is_none());
    assert_eq!(keys(peer, None, 10).await, ["l"]);
}
