//! The object layer of several peers over real QUIC, a real ledger and in-memory stores.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use palm::net::{Identity, Net};
use palm::object::{
    BodyError, CollectSettings, CompletedPart, Completion, Deletion, Incoming, ListQuery, Listed, NewObject, NewUpload,
    Object, ObjectError, Rejection, RepairSettings, Store, StoreParts, WriteConditions,
};
use palm::pool::join::Coordinator;
use palm::pool::{Discovery, JoinWish, NewPool, Parts, Pool, Services};
use palm_backends::memory::{MemoryFragments, MemoryIndex};
use palm_backends::{
    Backends, FragmentReader, FragmentStat, FragmentStore, FragmentWriter, IndexStore, StoreError, Usage,
};
use palm_core::id::FragmentId;
use palm_core::record::{BucketConfig, ChecksumAlgorithm, ChecksumKind, Consistency, Content, WhenMinority};
use parking_lot::Mutex;

/// Garbage goes at once, so that tests can see it go.
pub(crate) const EAGER: CollectSettings = CollectSettings {
    grace: Duration::ZERO,
    released_grace: Duration::ZERO,
    trash: Duration::ZERO,
    unreachable_grace: Duration::from_hours(24),
    walk_every: Duration::from_millis(500),
};

const MIB: usize = 1 << 20;

/// A fragment store whose reads of chosen fragments come back with a bit flipped.
#[derive(Default)]
struct Rotting {
    inner: MemoryFragments,
    rotten: Arc<Mutex<HashSet<FragmentId>>>,
}

struct RottingReader {
    inner: Box<dyn FragmentReader>,
    rotten: bool,
}

fn rot(bytes: &Bytes) -> Bytes {
    let mut bytes = bytes.to_vec();
    if let Some(byte) = bytes.first_mut() {
        *byte ^= 0x40;
    }
    bytes.into()
}

#[async_trait]
impl FragmentStore for Rotting {
    async fn writer(&self, len: Option<u64>) -> Result<Box<dyn FragmentWriter>, StoreError> {
        let (inner, rotten) = (self.inner.writer(len).await?, Arc::clone(&self.rotten));
        Ok(Box::new(MendingWriter { inner, rotten }))
    }
    async fn open(&self, id: FragmentId) -> Result<Box<dyn FragmentReader>, StoreError> {
        let rotten = self.rotten.lock().contains(&id);
        Ok(Box::new(RottingReader { inner: self.inner.open(id).await?, rotten }))
    }
    async fn stat(&self, id: FragmentId) -> Result<Option<FragmentStat>, StoreError> {
        self.inner.stat(id).await
    }
    async fn delete(&self, id: FragmentId) -> Result<bool, StoreError> {
        self.inner.delete(id).await
    }
    async fn list(&self, after: Option<FragmentId>, limit: usize) -> Result<Vec<FragmentStat>, StoreError> {
        self.inner.list(after, limit).await
    }
    async fn usage(&self) -> Result<Usage, StoreError> {
        self.inner.usage().await
    }
}

/// What is stored again is right again.
struct MendingWriter {
    inner: Box<dyn FragmentWriter>,
    rotten: Arc<Mutex<HashSet<FragmentId>>>,
}

#[async_trait]
impl FragmentWriter for MendingWriter {
    async fn write(&mut self, bytes: Bytes) -> Result<(), StoreError> {
        self.inner.write(bytes).await
    }
    async fn finish(self: Box<Self>) -> Result<FragmentStat, StoreError> {
        let stat = self.inner.finish().await?;
        self.rotten.lock().remove(&stat.id);
        Ok(stat)
    }
}

#[async_trait]
impl FragmentReader for RottingReader {
    fn len(&self) -> u64 {
        self.inner.len()
    }
    async fn read(&self, range: Range<u64>) -> Result<Bytes, StoreError> {
        let bytes = self.inner.read(range).await?;
        Ok(if self.rotten { rot(&bytes) } else { bytes })
    }
}

pub(crate) struct Peer {
    pub(crate) pool: Pool,
    pub(crate) store: Store,
    fragments: Arc<Rotting>,
}

impl Peer {
    async fn start(tag: u8, first: Option<&Peer>, collect: CollectSettings, new: NewPool) -> Self {
        Self::start_tuned(tag, first, collect, RepairSettings::default(), new).await
    }

    pub(crate) async fn start_tuned(
        tag: u8,
        first: Option<&Peer>,
        collect: CollectSettings,
        repair: RepairSettings,
        new: NewPool,
    ) -> Self {
        let fragments = Arc::new(Rotting::default());
        let backends = Backends::single(Arc::clone(&fragments) as Arc<dyn FragmentStore>);
        Self { fragments, ..Self::start_on(backends, tag, first, collect, repair, new).await }
    }

    /// A peer that keeps its fragments there; it has none to let rot.
    pub(crate) async fn start_on(
        backends: Arc<Backends>,
        tag: u8,
        first: Option<&Peer>,
        collect: CollectSettings,
        repair: RepairSettings,
        new: NewPool,
    ) -> Self {
        let identity = Identity::from_seed(&[tag; 32]).unwrap();
        let net = Net::bind(&identity, "127.0.0.1:0".parse().unwrap()).unwrap();
        let index: Arc<dyn IndexStore> = Arc::new(MemoryIndex::new());
        let name = format!("peer-{tag}");
        let parts = Parts {
            net,
            index: Arc::clone(&index),
            fragments: Arc::clone(&backends),
            name: name.clone(),
            domain: String::new(),
            is_gateway: false,
            grace: repair.grace,
        };
        let pool = match first {
            None => Pool::create(parts, new, None).await.unwrap().0,
            Some(first) => {
                let coordinators = vec![Coordinator::Found(first.pool.net().local_addr())];
                let wish = JoinWish { pool: first.pool.id(), coordinators, token: None, name };
                Pool::join(parts, &wish, |_| {}).await.unwrap()
            }
        };
        let store = Store::new(StoreParts {
            ledger: pool.ledger().clone(),
            net: pool.net().clone(),
            view: pool.view().clone(),
            fragments: backends,
            index,
            sealing_key: pool.sealing_key().clone(),
            collect,
            repair,
            chores: palm::object::ChoreSettings::default(),
            traffic: palm_backends::decorate::Bandwidth::UNBOUNDED,
        });
        let homes = Arc::new(store.clone());
        pool.serve(homes, Services::default(), Discovery::default()).await.unwrap();
        Self { pool, store, fragments: Arc::default() }
    }

    /// From now on this fragment reads with a bit flipped, until it is stored again.
    pub(crate) fn let_rot(&self, id: FragmentId) {
        self.fragments.rotten.lock().insert(id);
    }

    pub(crate) fn is_rotten(&self, id: FragmentId) -> bool {
        self.fragments.rotten.lock().contains(&id)
    }

    pub(crate) async fn lose(&self, id: FragmentId) {
        assert!(self.fragments.delete(id).await.unwrap());
    }

    pub(crate) async fn fragment_ids(&self) -> Vec<FragmentId> {
        let stats = self.fragments.list(None, usize::MAX).await.unwrap();
        stats.into_iter().map(|stat| stat.id).collect()
    }

    pub(crate) async fn fragment_count(&self) -> u64 {
        self.fragments.usage().await.unwrap().fragments
    }
}

/// `count` peers that know each other, all of them voting if that is odd.
async fn cluster(count: u8, collect: CollectSettings) -> Vec<Peer> {
    cluster_of(count, collect, settings(Consistency::Strong)).await
}

/// The settings of a pool for tests.
pub(crate) fn settings(consistency: Consistency) -> NewPool {
    let (when_minority, classes) = (WhenMinority::Refuse, Vec::new());
    NewPool { name: "test".to_owned(), max_members: 10, policy: None, open: true, consistency, when_minority, classes }
}

pub(crate) async fn cluster_of(count: u8, collect: CollectSettings, new: NewPool) -> Vec<Peer> {
    let mut peers = vec![Peer::start(1, None, collect, new.clone()).await];
    for tag in 2..=count {
        let peer = Peer::start(tag, peers.first(), collect, new.clone()).await;
        peers.push(peer);
    }
    let voters = usize::from(if count.is_multiple_of(2) { count - 1 } else { count });
    eventually("all peers know each other", || async {
        peers.iter().all(|peer| {
            peer.store_candidates() == usize::from(count) && peer.pool.ledger().config().voters.len() == voters
        })
    })
    .await;
    peers
}

impl Peer {
    pub(crate) fn store_candidates(&self) -> usize {
        self.pool.view().candidates().len()
    }
}

pub(crate) async fn eventually<F: Future<Output = bool>>(what: &str, holds: impl Fn() -> F) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !holds().await {
        assert!(Instant::now() < deadline, "{what}: not within a minute");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Bytes that differ everywhere, so that a piece in the wrong place shows.
pub(crate) fn sample(len: usize, seed: u64) -> Bytes {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes.into()
}

pub(crate) fn body(bytes: &Bytes) -> Incoming {
    let pieces: Vec<Bytes> =
        (0..bytes.len()).step_by(60_000).map(|at| bytes.slice(at..bytes.len().min(at + 60_000))).collect();
    Incoming {
        stream: stream::iter(pieces.into_iter().map(Ok)).boxed(),
        length: Some(bytes.len() as u64),
        algorithms: vec![ChecksumAlgorithm::Crc32],
        verify: Box::new(|digested| Ok(digested.checksums.first().cloned())),
        cipher: None,
    }
}

pub(crate) async fn put(peer: &Peer, key: &str, bytes: &Bytes) -> Result<Object, ObjectError> {
    let (new, conditions) = (NewObject::default(), WriteConditions::default());
    peer.store.put("bucket", key, new, conditions, body(bytes)).await
}

/// Puts an object of one segment until it has `n` fragments: a write is answered when any one home may go, so one that is late may leave it
/// with fewer.
pub(crate) async fn put_whole(peer: &Peer, key: &str, bytes: &Bytes, n: usize) -> Object {
    for _ in 0..20 {
        let object = put(peer, key, bytes).await.unwrap();
        if matches!(&object.record.content, Content::Segments(all) if all[0].fragments.len() == n) {
            return object;
        }
    }
    panic!("twenty writes, and none has {n} fragments");
}

pub(crate) async fn get(peer: &Peer, key: &str, range: Option<Range<usize>>) -> Result<Vec<u8>, ObjectError> {
    let object = peer.store.head("bucket", key, None).await?;
    let range = range.map_or(0..object.record.size, |range| range.start as u64..range.end as u64);
    let stream = peer.store.read(&object, range).await?;
    let chunks: Vec<Bytes> = stream.try_collect().await?;
    Ok(chunks.concat())
}

/// Whether an object reads as these bytes. Its own function, so that a failure does not print megabytes.
pub(crate) async fn holds(peer: &Peer, key: &str, bytes: &[u8]) -> bool {
    get(peer, key, None).await.unwrap() == bytes
}

pub(crate) async fn keys(peer: &Peer, delimiter: Option<&str>, limit: u32) -> Vec<String> {
    let mut found = Vec::new();
    let mut start = String::new();
    loop {
        let query = ListQuery { start, delimiter: delimiter.map(str::to_owned), limit, ..ListQuery::default() };
        let page = peer.store.list("bucket", query).await.unwrap();
        found.extend(page.items.into_iter().map(|item| match item {
            Listed::Key(key, _) | Listed::Group(key) => key,
        }));
        match page.next {
            Some(next) => start = next,
            None => return found,
        }
    }
}

/// Story: objects of every size that takes another path (empty, one byte, inline, one stripe, exactly a stripe,
/// several, more than a segment) go in at one peer and are read at the others at once, whole and in part. Danger: a
/// wrong offset, a lost tail, a stale read. Every byte must come back, everywhere, and vanish everywhere.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_put_at_one_peer_is_read_at_all_others() {
    let peers = cluster(5, CollectSettings::default()).await;
    peers[0].store.create_bucket("bucket", "me", BucketConfig::default()).await.unwrap();
    let again = peers[1].store.create_bucket("bucket", "you", BucketConfig::default()).await;
    assert!(matches!(again, Err(ObjectError::BucketExists { owned: false })));

    let sizes = [0, 1, 1_000, 64 << 10, 200_000, MIB - 1, MIB, MIB + 1, 3 * MIB + 17, 70 * MIB + 5];
    for (at, &size) in sizes.iter().enumerate() {
        let (writer, reader) = (&peers[at % 5], &peers[(at + 1) % 5]);
        let bytes = sample(size, at as u64 + 1);
        let key = format!("dir{}/object-{size}", at % 3);
        let stored = put(writer, &key, &bytes).await.unwrap();
        assert_eq!(stored.record.size, size as u64);
        assert_eq!(stored.record.checksum.as_ref().map(|checksum| checksum.value.len()), Some(4));
        if let Content::Segments(segments) = &stored.record.content {
            assert!(segments.iter().all(|segment| (segment.k, segment.n) == (3, 5) && segment.fragments.len() >= 4));
        }
        assert!(holds(reader, &key, &bytes).await, "{size} bytes at another peer");
        for range in [0..1, size / 2..size / 2 + 1, size.saturating_sub(2)..size, size / 3..size] {
            if range.start < range.end && range.end <= size {
                let read = get(reader, &key, Some(range.clone())).await.unwrap();
                assert!(read == bytes[range.clone()], "{range:?} of {size}");
            }
        }
    }
    assert!(matches!(get(&peers[0], "dir0/object-0", Some(0..1)).await, Err(ObjectError::BadRange)));
    assert!(matches!(get(&peers[0], "no", None).await, Err(ObjectError::NoSuchKey)));
    assert!(matches!(peers[0].store.head("nobucket", "no", None).await, Err(ObjectError::NoSuchBucket)));

    let mut expected: Vec<String> =
        sizes.iter().enumerate().map(|(at, size)| format!("dir{}/object-{size}", at % 3)).collect();
    expected.sort();
    assert_eq!(keys(&peers[3], None, 3).await, expected);
    assert_eq!(keys(&peers[4], Some("/"), 2).await, ["dir0/", "dir1/", "dir2/"]);

    assert!(matches!(peers[2].store.delete_bucket("bucket").await, Err(ObjectError::BucketNotEmpty)));
    for key in expected {
        assert!(peers[2].store.delete("bucket", &key, Deletion::default()).await.unwrap().found);
        assert!(matches!(peers[0].store.head("bucket", &key, None).await, Err(ObjectError::NoSuchKey)));
    }
    assert!(!peers[2].store.delete("bucket", "gone", Deletion::default()).await.unwrap().found);
    peers[2].store.delete_bucket("bucket").await.unwrap();
    assert!(matches!(put(&peers[1], "late", &sample(9, 9)).await, Err(ObjectError::NoSuchBucket)));
    assert!(matches!(peers[1].store.bucket("bucket").await, Err(ObjectError::NoSuchBucket)));
}

/// Story: two of five peers die without a word, then a third. Danger: an acknowledged object that cannot be read, a write
/// refused that could be durable, a short body or a 404 where there are too few fragments. With three left everything
/// must be read and written; with two every read must fail as unavailable, within five seconds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_of_five_may_die_and_a_third_is_said_so_in_time() {
    let peers = cluster(5, CollectSettings::default()).await;
    peers[0].store.create_bucket("bucket", "me", BucketConfig::default()).await.unwrap();
    let (small, large) = (sample(5_000, 1), sample(9 * MIB, 2));
    put(&peers[4], "small", &small).await.unwrap();
    put(&peers[4], "large", &large).await.unwrap();

    peers[3].pool.shutdown().await;
    peers[4].pool.shutdown().await;
    for peer in &peers[..3] {
        assert_eq!(get(peer, "small", None).await.unwrap(), small);
        assert_eq!(get(peer, "large", None).await.unwrap(), large);
    }
    eventually("a write while two are away", || async { put(&peers[0], "new", &small).await.is_ok() }).await;
    eventually("a long write while two are away", || async { put(&peers[1], "new-large", &large).await.is_ok() }).await;
    assert_eq!(get(&peers[2], "new-large", None).await.unwrap(), large);

    peers[2].pool.shutdown().await;
    for peer in &peers[..2] {
        let begun = Instant::now();
        assert!(matches!(get(peer, "small", None).await, Err(ObjectError::Unavailable(_))));
        assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    }
}

/// Story: bits rot in two of five fragments, in small and large objects. Danger: wrong bytes, or an error where the other
/// three suffice. The right bytes must come back and the damage be counted; with a third rotten the answer is an error.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rotten_fragments_never_become_wrong_bytes() {
    let peers = cluster(5, CollectSettings::default()).await;
    peers[0].store.create_bucket("bucket", "me", BucketConfig::default()).await.unwrap();
    for (key, len) in [("small", 3_000), ("large", 3 * MIB + 3)] {
        let bytes = sample(len, 5);
        let object = put_whole(&peers[0], key, &bytes, 5).await;
        let Content::Segments(segments) = &object.record.content else { panic!("not uploaded whole") };
        let fragments = &segments[0].fragments;
        let spoil = |count: usize| {
            for placed in &fragments[..count] {
                for peer in &peers {
                    peer.fragments.rotten.lock().insert(placed.id);
                }
            }
        };
        spoil(2);
        for peer in &peers {
            assert!(holds(peer, key, &bytes).await, "{key}");
        }
        let found: u64 = peers
            .iter()
            .map(|peer| peer.store.counters().corrupt_shards.load(std::sync::atomic::Ordering::Relaxed))
            .sum();
        assert!(found > 0, "nobody noticed");
        spoil(3);
        for peer in &peers {
            assert!(get(peer, key, None).await.is_err(), "{key}");
        }
    }
}

/// Story: uploads fail in every way a client can make them fail. Danger: a half object, or space lost for good. Nothing
/// may be visible, and no fragment may stay.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failed_uploads_leave_nothing() {
    let peers = cluster(3, CollectSettings::default()).await;
    let store = &peers[0].store;
    store.create_bucket("bucket", "me", BucketConfig::default()).await.unwrap();
    let bytes = sample(70 * MIB, 3);
    let attempt =
        |incoming: Incoming| store.put("bucket", "key", NewObject::default(), WriteConditions::default(), incoming);
    let short = Incoming { length: Some(bytes.len() as u64 + 1), ..body(&bytes) };
    assert!(matches!(attempt(short).await, Err(ObjectError::Body(BodyError::Incomplete))));
    let refused = Incoming { verify: Box::new(|_| Err(Rejection::BadDigest)), ..body(&bytes) };
    let result = attempt(refused).await;
    assert!(matches!(result, Err(ObjectError::Body(BodyError::Refused(Rejection::BadDigest)))));
    let cut = stream::iter([Ok(bytes.slice(..66 * MIB)), Err(BodyError::Incomplete)]).boxed();
    assert!(matches!(attempt(Incoming { stream: cut, ..body(&bytes) }).await, Err(ObjectError::Body(_))));
    let stalled = stream::iter([Ok(bytes.slice(..66 * MIB))]).chain(stream::pending()).boxed();
    let hung_up = tokio::time::timeout(Duration::from_secs(8), attempt(Incoming { stream: stalled, ..body(&bytes) }));
    assert!(hung_up.await.is_err());

    let taken = put(&peers[1], "taken", &sample(10, 1)).await.unwrap();
    let absent = WriteConditions { if_absent: true, ..WriteConditions::default() };
    let small = sample(20, 2);
    let result = store.put("bucket", "taken", NewObject::default(), absent, body(&small)).await;
    assert!(matches!(result, Err(ObjectError::PreconditionFailed)));
    assert_eq!(store.head("bucket", "taken", None).await.unwrap(), taken);

    assert!(matches!(store.head("bucket", "key", None).await, Err(ObjectError::NoSuchKey)));
    eventually("only the one object's fragments are left", || async {
        let mut left = 0;
        for peer in &peers {
            left += peer.fragment_count().await;
        }
        left == 3
    })
    .await;
}

/// Story: a multipart upload through three peers, parts out of order, one uploaded twice, completed twice at once
/// through different peers. Danger: two objects, a lost part, wrong bytes at a part's edge, an abort under the
/// completion. One object, the same answer to both, every byte right, its checksum that of the whole.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_multipart_upload_through_several_peers_is_one_object() {
    let peers = cluster(3, CollectSettings::default()).await;
    peers[0].store.create_bucket("bucket", "me", BucketConfig::default()).await.unwrap();
    let checksum = Some((ChecksumAlgorithm::Crc64Nvme, ChecksumKind::FullObject));
    let new = NewUpload { owner: "me".into(), object: NewObject::default(), checksum };
    let id = peers[0].store.create_upload("bucket", "key", new.clone()).await.unwrap();
    let parts = [sample(5 * MIB, 1), sample(6 * MIB + 3, 2), sample(100, 3)];
    let numbers = [1_u16, 4, 9];
    peers[1].store.put_part("bucket", "key", id, 4, body(&sample(7, 7))).await.unwrap();
    for at in [2, 1, 0] {
        let peer = &peers[at % 3];
        peer.store.put_part("bucket", "key", id, numbers[at], body(&parts[at])).await.unwrap();
    }
    let (_, listed) = peers[1].store.list_parts("bucket", "key", id).await.unwrap();
    assert_eq!(listed.iter().map(|part| part.number).collect::<Vec<_>>(), numbers);
    let uploads = peers[2].store.list_uploads("bucket", ListQuery { limit: 10, ..ListQuery::default() }, None).await;
    assert!(matches!(&uploads.unwrap().items[..], [Listed::Key(key, (found, _))] if key == "key" && *found == id));

    let named = |numbers: &[usize]| {
        let parts = numbers.iter().map(|&at| CompletedPart {
            number: listed[at].number,
            etag: data_encoding::HEXLOWER.encode(&listed[at].md5),
            checksum: None,
        });
        Completion { parts: parts.collect(), ..Completion::default() }
    };
    let swapped = peers[0].store.complete_upload("bucket", "key", id, named(&[1, 0])).await;
    assert!(matches!(swapped, Err(ObjectError::InvalidPartOrder)));

    let (first, second) = tokio::join!(
        peers[0].store.complete_upload("bucket", "key", id, named(&[0, 1, 2])),
        peers[2].store.complete_upload("bucket", "key", id, named(&[0, 1, 2])),
    );
    let object = first.unwrap();
    assert_eq!(second.unwrap(), object);
    assert_eq!(object.record.etag.parts, 3);
    let whole = parts.concat();
    let crc = object.record.checksum.as_ref().unwrap();
    assert_eq!(crc.value, crc_fast::crc64_nvme(&whole).to_be_bytes());
    assert_eq!(get(&peers[1], "key", None).await.unwrap(), whole);
    let edge = 5 * MIB;
    assert_eq!(get(&peers[1], "key", Some(edge - 1..edge + 1)).await.unwrap(), whole[(edge - 1)..=edge]);
    let retried = peers[1].store.complete_upload("bucket", "key", id, named(&[0, 1, 2])).await.unwrap();
    assert_eq!(retried, object);
    assert!(matches!(peers[1].store.abort_upload("bucket", "key", id).await, Err(ObjectError::NoSuchUpload)));

    let aborted = peers[0].store.create_upload("bucket", "other", new).await.unwrap();
    peers[1].store.abort_upload("bucket", "other", aborted).await.unwrap();
    let late = peers[2].store.put_part("bucket", "other", aborted, 1, body(&parts[2])).await;
    assert!(matches!(late, Err(ObjectError::NoSuchUpload)));
}

/// Story: objects are overwritten, deleted and copied while homes collect without any grace. Danger: the fragments of a
/// live object go, above all those of a copy whose original is gone. Live bytes must stay readable; garbage must go.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn collection_takes_garbage_and_nothing_else() {
    let peers = cluster(3, EAGER).await;
    let collectors: Vec<_> = peers
        .iter()
        .map(|peer| {
            let store = peer.store.clone();
            tokio::spawn(async move { store.collect().await })
        })
        .collect();
    peers[0].store.create_bucket("bucket", "me", BucketConfig::default()).await.unwrap();
    let (old, new) = (sample(40_000, 1), sample(2 * MIB, 2));
    for round in 0..5 {
        put(&peers[round % 3], "overwritten", &old).await.unwrap();
    }
    put(&peers[1], "overwritten", &new).await.unwrap();
    let original = put(&peers[2], "original", &old).await.unwrap();
    let at = ("bucket", "original");
    let (plain, conditions) = (NewObject::default(), WriteConditions::default());
    peers[0].store.copy(&original, at, "bucket", "copy", plain, conditions).await.unwrap();
    peers[1].store.delete("bucket", "original", Deletion::default()).await.unwrap();
    let stale = peers[0].store.copy(&original, at, "bucket", "copy2", NewObject::default(), WriteConditions::default());
    assert!(matches!(stale.await, Err(ObjectError::NoSuchKey)));

    let id = peers[0].store.create_upload("bucket", "never", NewUpload::default()).await.unwrap();
    peers[0].store.put_part("bucket", "never", id, 1, body(&old)).await.unwrap();
    peers[2].store.abort_upload("bucket", "never", id).await.unwrap();

    eventually("only live fragments are left", || async {
        let mut left = 0;
        for peer in &peers {
            left += peer.fragment_count().await;
        }
        left == 6
    })
    .await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    for peer in &peers {
        assert_eq!(get(peer, "overwritten", None).await.unwrap(), new);
        assert_eq!(get(peer, "copy", None).await.unwrap(), old);
    }
    for collector in collectors {
        collector.abort();
    }
}

/// Story: a bucket is deleted over and over while clients write into it through all peers. Danger: an acknowledged object
/// in a bucket that is gone. After every success of a write the object must be there until someone deletes it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deleting_a_bucket_never_loses_an_acknowledged_object() {
    let peers = cluster(3, CollectSettings::default()).await;
    let bytes = sample(100, 1);
    let mut survived = 0;
    for round in 0..20 {
        match peers[0].store.create_bucket("bucket", "me", BucketConfig::default()).await {
            Ok(()) | Err(ObjectError::BucketExists { .. }) => {}
            Err(error) => panic!("{error}"),
        }
        let key = format!("key-{round}");
        let (written, deleted) =
            tokio::join!(put(&peers[1 + round % 2], &key, &bytes), peers[2].store.delete_bucket("bucket"));
        match written {
            Ok(_) => {
                survived += 1;
                assert!(deleted.is_err(), "the bucket went under an acknowledged object");
                assert_eq!(get(&peers[0], &key, None).await.unwrap(), bytes);
                peers[0].store.delete("bucket", &key, Deletion::default()).await.unwrap();
            }
            Err(ObjectError::NoSuchBucket) => {
                deleted.unwrap();
                assert!(matches!(peers[0].store.head("bucket", &key, None).await, Err(ObjectError::NoSuchBucket)));
            }
            Err(error) => panic!("{error}"),
        }
    }
    eprintln!("{survived} of 20 writes came before the deletion");
}
