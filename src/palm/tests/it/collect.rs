//! Collection at several peers over real QUIC: what goes, what stays, and why. Nothing runs by itself here: every look is
//! ordered by the test.

use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt, stream};
use palm::object::{Because, CollectSettings, Deletion, GcReport, Incoming, NewObject, Object, WriteConditions};
use palm::pool::{Decision, Homes, NewPool};
use palm_core::id::{FragmentId, PeerId};
use palm_core::place::Policy;
use palm_core::record::{BucketConfig, Consistency, Content, HeadRecord, MovedRecord, Placed, Segment, Stored, key};
use palm_core::wire::{FragmentOrigin, Request, Response};

use crate::object::{EAGER, Peer, cluster_of, eventually, get, put, sample, settings};

const MIB: usize = 1 << 20;
/// A trash that is never due within a test.
const LASTING: CollectSettings = CollectSettings { trash: Duration::from_hours(1), ..EAGER };

/// Peers of a pool that spreads 2-of-3, so that a fourth is no home of a segment.
async fn cluster(count: u8, collect: CollectSettings) -> Vec<Peer> {
    let policy = Some(Policy { k: 2, n: 3 });
    let peers = cluster_of(count, collect, NewPool { policy, ..settings(Consistency::Strong) }).await;
    peers[0].store.create_bucket("bucket", "me", BucketConfig::default()).await.unwrap();
    peers
}

/// One look at everything by everyone.
async fn look(peers: &[Peer], dry_run: bool) -> GcReport {
    let mut sum = GcReport::default();
    for peer in peers {
        let report = peer.store.collect_now(dry_run, |_| {}).await.unwrap();
        sum.deleted.fragments += report.deleted.fragments;
        sum.trashed.fragments += report.trashed.fragments;
        sum.restored.fragments += report.restored.fragments;
        sum.in_trash.fragments += report.in_trash.fragments;
        sum.in_trash.bytes += report.in_trash.bytes;
        sum.moved += report.moved;
        for (because, amount) in report.kept_because {
            sum.kept_because.entry(because).or_default().fragments += amount.fragments;
        }
    }
    sum
}

/// What was deleted, put into the trash, taken out of it, and is in it now: fragments.
fn figures(report: &GcReport) -> [u64; 4] {
    [report.deleted, report.trashed, report.restored, report.in_trash].map(|amount| amount.fragments)
}

fn kept(report: &GcReport, because: Because) -> u64 {
    report.kept_because.get(&because).map_or(0, |amount| amount.fragments)
}

async fn fragments(peers: &[Peer]) -> u64 {
    let mut count = 0;
    for peer in peers {
        count += peer.fragment_count().await;
    }
    count
}

fn only_segment(object: &Object) -> &Segment {
    match &object.record.content {
        Content::Segments(segments) if segments.len() == 1 => &segments[0],
        other => panic!("not one segment: {other:?}"),
    }
}

/// Story: an object is overwritten and its homes look, then look again while the trash lasts, then when it is over. Danger:
/// garbage that goes at the first look, where one wrong answer would be the end of it; a dry run that is none; a trash that
/// is never emptied. Expectation: the first look only marks, the dry ones change nothing, and the last one deletes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_goes_at_the_second_look() {
    for (settings, after) in [(LASTING, [0, 0, 0, 3]), (EAGER, [3, 0, 0, 0])] {
        let peers = cluster(3, settings).await;
        let bytes = sample(40_000, 2);
        put(&peers[0], "key", &sample(40_000, 1)).await.unwrap();
        let live = put(&peers[1], "key", &bytes).await.unwrap();
        eventually("everyone heard of it", || async {
            let register = key::object("bucket", "key");
            peers.iter().all(|peer| {
                let known = peer.pool.ledger().peek(&register).map(|now| HeadRecord::of(&now).unwrap());
                known.and_then(|head| Some(head.null?.stamp)) == Some(live.version.stamp)
            })
        })
        .await;
        assert_eq!(figures(&look(&peers, true).await), [0, 3, 0, 3]);
        assert_eq!(figures(&look(&peers, true).await), [0, 3, 0, 3], "a dry run leaves no mark");
        assert_eq!(figures(&look(&peers, false).await), [0, 3, 0, 3]);
        assert_eq!(fragments(&peers).await, 6, "readable in the trash");
        assert_eq!(figures(&look(&peers, true).await), after);
        assert_eq!(figures(&look(&peers, false).await), after);
        assert_eq!(fragments(&peers).await, 6 - after[0]);
        assert_eq!(get(&peers[2], "key", None).await.unwrap(), bytes);
        let trash: u64 = peers.iter().map(|peer| peer.store.trash_bytes()).sum();
        assert_eq!(trash > 0, after[3] > 0, "{trash} bytes");
    }
}

/// Story: a copied object's original goes, then the copy. Danger: the shared body goes with its original, or never.
/// Expectation: it goes with the last of them, and with it the register that says who shares it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shared_body_goes_with_its_last_holder() {
    let peers = cluster(3, EAGER).await;
    let bytes = sample(9_000, 1);
    let original = put(&peers[0], "original", &bytes).await.unwrap();
    let (new, conditions) = (NewObject::default(), WriteConditions::default());
    peers[1].store.copy(&original, ("bucket", "original"), "bucket", "copy", new, conditions).await.unwrap();
    assert!(peers[2].store.delete("bucket", "original", Deletion::default()).await.unwrap().found);
    for _ in 0..3 {
        assert_eq!(figures(&look(&peers, false).await), [0; 4]);
    }
    assert_eq!(get(&peers[0], "copy", None).await.unwrap(), bytes);
    assert!(peers[0].store.delete("bucket", "copy", Deletion::default()).await.unwrap().found);
    eventually("all of it is gone", || async {
        look(&peers, false).await;
        fragments(&peers).await == 0
    })
    .await;
    let sharers = key::sharers(original.record.body);
    assert!(peers[2].pool.ledger().read(&sharers).await.unwrap().is_none());
}

/// Story: a client sends a body of two segments and stalls in the second; the homes of the first are told to collect. Danger:
/// fragments that no record names yet go under the upload. Then the client goes on, and every byte must be there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_that_stalls_is_waited_for() {
    let peers = cluster(3, EAGER).await;
    let bytes = sample(67 * MIB, 3);
    let (go_on, stalled) = tokio::sync::oneshot::channel::<()>();
    let (begun, rest) = (bytes.slice(..66 * MIB), bytes.slice(66 * MIB..));
    let pieces = stream::iter(begun.chunks(MIB).map(Bytes::copy_from_slice).map(Ok).collect::<Vec<_>>());
    let rest = stream::once(async move {
        stalled.await.unwrap();
        Ok(rest)
    });
    let incoming = Incoming {
        stream: pieces.chain(rest).boxed(),
        length: Some(bytes.len() as u64),
        algorithms: Vec::new(),
        verify: Box::new(|_| Ok(None)),
        cipher: None,
    };
    let store = peers[0].store.clone();
    let putting = tokio::spawn(async move {
        store.put("bucket", "slow", NewObject::default(), WriteConditions::default(), incoming).await
    });
    eventually("the first segment is stored", || async { fragments(&peers).await >= 3 }).await;
    for _ in 0..3 {
        let report = look(&peers, false).await;
        assert_eq!(figures(&report), [0; 4]);
        assert!(kept(&report, Because::InFlight) >= 3, "{report:?}");
    }
    go_on.send(()).unwrap();
    putting.await.unwrap().unwrap();
    let is_the_same = get(&peers[2], "slow", None).await.unwrap() == bytes;
    assert!(is_the_same, "other bytes than were sent");
}

/// Stores a body's fragment at a peer in the name of another.
async fn store_at(peer: &Peer, writer: PeerId, object: &Object, key: &str, index: u8, bytes: Bytes) -> FragmentId {
    let origin = FragmentOrigin {
        segment: only_segment(object).id,
        index,
        body: object.record.body,
        object: key::object("bucket", key),
    };
    match peer.store.call(writer, Request::PutSmall { origin, bytes }).await {
        Response::Stored { id, .. } => id,
        other => panic!("{other:?}"),
    }
}

async fn bytes_of(peer: &Peer, id: FragmentId) -> Bytes {
    match peer.store.call(peer.pool.me(), Request::GetSmall { id }).await {
        Response::Small(bytes) => bytes,
        other => panic!("{other:?}"),
    }
}

/// Enters where a segment is, as repair does, and waits until everyone has heard of it.
async fn enter(peers: &[Peer], object: &Object, name: &str, segment: Segment) {
    let register = key::moved(segment.id);
    let object_key = key::object("bucket", name).to_vec();
    let value = MovedRecord { body: object.record.body, object: object_key, segment }.encode();
    let entered =
        peers[0].pool.ledger().update(register.clone(), |_| Decision::Put(value.clone(), ())).await.unwrap().version;
    eventually("everyone heard of the move", || async {
        peers.iter().all(|peer| peer.pool.ledger().peek(&register).is_some_and(|now| now.version == entered))
    })
    .await;
}

/// Story: a fragment was moved from one peer to another; the old one is still where it was. One of the others goes missing and
/// comes back; the fragment is moved back while the old one lies in the trash, and away again. Danger: the old one goes while
/// the segment needs it, or after it was made the right one again, or never. Expectation: it stays while its segment is not whole,
/// leaves the trash when it is named again, and goes when it is surplus once more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn surplus_goes_only_while_its_segment_is_whole() {
    let peers = cluster(5, EAGER).await;
    let bytes = sample(50_000, 4);
    let object = put(&peers[0], "key", &bytes).await.unwrap();
    let before = only_segment(&object).clone();
    let by_id = |id: PeerId| peers.iter().find(|peer| peer.pool.me() == id).unwrap();
    let old = before.fragments[0].clone();
    let old_home = by_id(old.home);
    let spare = peers.iter().find(|peer| before.fragments.iter().all(|one| one.home != peer.pool.me())).unwrap();
    let shard = bytes_of(old_home, old.id).await;
    let writer = peers[0].pool.me();
    store_at(spare, writer, &object, "key", 0, shard.clone()).await;
    let mut after = before.clone();
    after.fragments[0] = Placed { home: spare.pool.me(), ..old.clone() };
    enter(&peers, &object, "key", after.clone()).await;

    // Another fragment is missing: all three others may be needed.
    let other = before.fragments[1].clone();
    let lost = bytes_of(by_id(other.home), other.id).await;
    by_id(other.home).lose(other.id).await;
    let report = look(&peers, false).await;
    assert_eq!((figures(&report), kept(&report, Because::NotWhole)), ([0; 4], 1), "{report:?}");
    store_at(by_id(other.home), writer, &object, "key", 1, lost).await;

    assert_eq!(figures(&look(&peers, false).await), [0, 1, 0, 1], "into the trash");
    // A second repair finds the first home to be the better one after all: it stores there, then says so.
    store_at(old_home, writer, &object, "key", 0, shard.clone()).await;
    enter(&peers, &object, "key", before.clone()).await;
    let report = look(&peers, false).await;
    assert_eq!(figures(&report), [0, 1, 0, 1], "now the other one is surplus");
    assert_eq!(figures(&look(&peers, false).await), [1, 0, 0, 0]);
    assert_eq!(old_home.fragment_count().await, 1);
    assert_eq!(spare.fragment_count().await, 0);
    assert_eq!(get(spare, "key", None).await.unwrap(), bytes);

    // Named again without having been stored again: nothing does that, and if it were done, the trash gives it back.
    store_at(spare, writer, &object, "key", 0, shard).await;
    assert_eq!(figures(&look(&peers, false).await), [0, 1, 0, 1]);
    enter(&peers, &object, "key", after).await;
    assert_eq!(figures(&look(&peers, false).await), [0, 1, 1, 1]);
}

/// Story: an object whose segment was moved is deleted. Danger: the register of its move stays for ever, or, worse, the one
/// of an object in use goes, and its readers are sent to where its fragments are no more. Expectation: the first goes, the
/// second stays.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn moves_are_forgotten_with_their_bodies() {
    let peers = cluster(3, EAGER).await;
    let mut registers = Vec::new();
    for name in ["dead", "alive", "late"] {
        let object = put(&peers[0], name, &sample(5_000, 5)).await.unwrap();
        registers.push(key::moved(only_segment(&object).id));
        if name == "late" {
            assert!(peers[1].store.delete("bucket", name, Deletion::default()).await.unwrap().found);
            while fragments(&peers).await > 6 {
                look(&peers, false).await;
            }
        }
        enter(&peers, &object, name, only_segment(&object).clone()).await;
    }
    assert!(peers[1].store.delete("bucket", "dead", Deletion::default()).await.unwrap().found);
    let mut moved = 0;
    for _ in 0..4 {
        moved += look(&peers, false).await.moved;
    }
    assert_eq!(moved, 1, "that of a repair which came too late: the other went with its fragments");
    for (register, is_there) in registers.into_iter().zip([false, true, false]) {
        assert_eq!(peers[2].pool.ledger().read(&register).await.unwrap().is_some(), is_there);
    }
    assert_eq!(fragments(&peers).await, 3);
}

/// Story: a writer dies in the middle of an upload and never returns. Danger: its fragments go while it may be about to enter
/// its record; or they stay for ever. Expectation: they wait for it, until the pool has sent it away.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_writer_is_waited_for_until_it_is_no_member() {
    let mut peers = cluster(5, EAGER).await;
    let object = put(&peers[0], "key", &sample(3_000, 6)).await.unwrap();
    let dead = peers.remove(4);
    let writer = dead.pool.me();
    let upload = Object {
        record: palm_core::record::ObjectRecord { body: palm_core::id::BodyId::from_bytes([8; 16]), ..object.record },
        ..object
    };
    let home = &peers[0];
    let before = home.fragment_count().await;
    store_at(home, writer, &upload, "never", 0, sample(900, 7)).await;
    dead.pool.shutdown().await;
    let walk = || look(std::slice::from_ref(home), false);
    for _ in 0..2 {
        let report = walk().await;
        assert_eq!((figures(&report), kept(&report, Because::Silence)), ([0; 4], 1), "{report:?}");
    }
    peers[1].pool.evict(writer, "never came back").await.unwrap();
    assert_eq!(figures(&walk().await), [0, 1, 0, 1]);
    assert_eq!(figures(&walk().await), [1, 0, 0, 0]);
    assert_eq!(home.fragment_count().await, before);
}

/// Story: objects are deleted, then two of three voters go away. Danger: the one that is left takes its own copy for the
/// truth. Expectation: nothing goes while nobody can say that it may.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_majority_nothing_goes() {
    let peers = cluster(3, EAGER).await;
    put(&peers[0], "key", &sample(3_000, 6)).await.unwrap();
    assert!(peers[0].store.delete("bucket", "key", Deletion::default()).await.unwrap().found);
    peers[1].pool.shutdown().await;
    peers[2].pool.shutdown().await;
    let report = look(&peers[..1], false).await;
    assert_eq!(figures(&report), [0; 4]);
    assert_eq!(kept(&report, Because::Undecided) + kept(&report, Because::Silence), 1, "{report:?}");
}
