//! Catch-up over real QUIC, its bytes counted: a voter that was away, a new learner, a learner that becomes a voter.
//!
//! The measurement of a million records is run by hand:
//! `cargo test -p palm --test it catchup::a_million -- --ignored --nocapture`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt, stream};
use palm::net::{FragmentSink, FragmentSource, Handler, Identity, Net};
use palm::pool::ledger::{Decision, Ledger};
use palm_backends::memory::MemoryIndex;
use palm_backends::{Durability, IndexStore, Next, Space, Write};
use palm_core::hlc::{Ballot, Stamp};
use palm_core::id::{BodyId, FragmentId, KeyId, PeerId, RequestId, SegmentId};
use palm_core::record::{Attributes, Content, Etag, ObjectRecord, Placed, Segment, Stored, Subresources, key};
use palm_core::register::{Accepted, Config, Record};
use palm_core::wire::{self, FragmentOrigin, JoinRequest, JoinResponse, Request, Response};
use parking_lot::Mutex;
use tokio::time::timeout;

use crate::ledger::acquaint;
use crate::voters::reach;

/// What was asked of all peers, and answered, as the frames' bodies count it.
#[derive(Default)]
struct Traffic {
    messages: AtomicU64,
    bytes: AtomicU64,
    /// Phase 1 of updates: what consensus costs.
    prepares: AtomicU64,
}

impl Traffic {
    fn take(&self) -> (u64, u64, u64) {
        let take = |counter: &AtomicU64| counter.swap(0, Ordering::Relaxed);
        (take(&self.messages), take(&self.bytes), take(&self.prepares))
    }
}

/// Answers ledger requests only, and counts.
struct Counting(Ledger, Arc<Traffic>);

#[async_trait]
impl Handler for Counting {
    async fn call(&self, from: PeerId, request: Request) -> Response {
        let asked = wire::encode(&request).len();
        self.1.prepares.fetch_add(u64::from(matches!(request, Request::Prepare { .. })), Ordering::Relaxed);
        let response = self.0.handle(from, request).await;
        self.1.messages.fetch_add(1, Ordering::Relaxed);
        self.1.bytes.fetch_add((asked + wire::encode(&response).len()) as u64, Ordering::Relaxed);
        response
    }
    async fn put_fragment(&self, _: PeerId, _: FragmentOrigin, _: FragmentSource) -> Response {
        Response::NotFound
    }
    async fn get_fragment(&self, _: PeerId, _: FragmentId, _: u64, _: u64, _: FragmentSink) {}
    fn gossip(&self, _: PeerId, _: Bytes) {}
    async fn join(&self, _: PeerId, _: SocketAddr, _: JoinRequest) -> JoinResponse {
        JoinResponse::Pending
    }
}

struct Peer {
    net: Net,
    ledger: Ledger,
    index: Arc<dyn IndexStore>,
}

/// One peer for each index, of which the first `voters` vote.
async fn pool(indexes: Vec<Arc<dyn IndexStore>>, voters: usize) -> (Vec<Peer>, Arc<Traffic>) {
    let traffic = Arc::new(Traffic::default());
    let identities: Vec<Identity> =
        (0..indexes.len()).map(|tag| Identity::from_seed(&[tag as u8 + 101; 32]).unwrap()).collect();
    let ids: BTreeSet<PeerId> = identities.iter().map(Identity::peer_id).collect();
    let voting = identities.iter().take(voters).map(Identity::peer_id).collect();
    let config = Config { epoch: 1, voters: voting, outgoing: None };
    let mut peers = Vec::new();
    for (identity, index) in identities.iter().zip(indexes) {
        let net = Net::bind(identity, "127.0.0.1:0".parse().unwrap()).unwrap();
        let me = identity.peer_id();
        let ledger = Ledger::open(me, Arc::clone(&index), net.clone(), Some(config.clone())).await.unwrap();
        net.serve(Arc::new(Counting(ledger.clone(), Arc::clone(&traffic))));
        ledger.set_members(ids.clone());
        peers.push(Peer { net, ledger, index });
    }
    acquaint(&peers.iter().map(|peer| &peer.net).collect::<Vec<_>>());
    // A connection between any two, to compare over.
    for peer in &peers {
        for other in peers.iter().filter(|other| other.net.me() != peer.net.me()) {
            // While two that dial each other settle on one connection, a call may find it gone, and was not carried out.
            let answered = async {
                while peer.net.call(other.net.me(), Request::Ping, Duration::from_secs(5)).await.is_err() {
                    tokio::task::yield_now().await;
                }
            };
            timeout(Duration::from_secs(60), answered).await.expect("no connection");
        }
    }
    traffic.take();
    (peers, traffic)
}

/// The record of an object of one segment in five fragments, as a PUT of a small object leaves it.
fn object(number: u32, time: u64) -> Accepted {
    let random =
        |salt: u8| *blake3::hash(&[&number.to_le_bytes()[..], &time.to_le_bytes(), &[salt]].concat()).as_bytes();
    let half = |salt: u8| <[u8; 16]>::try_from(&random(salt)[..16]).unwrap();
    let fragments = (0..5).map(|index| Placed {
        index,
        home: PeerId::from_bytes(random(index)),
        id: FragmentId::from_bytes(random(index + 10)),
    });
    let segment =
        Segment { id: SegmentId::from_bytes(half(20)), len: 4_096, k: 3, n: 5, fragments: fragments.collect() };
    let record = ObjectRecord {
        size: 4_096,
        etag: Etag { md5: half(21), parts: 0 },
        attributes: Attributes { content_type: Some("text/plain".to_owned()), ..Attributes::default() },
        checksum: None,
        data_key: KeyId::from_bytes(half(22)),
        body: BodyId::from_bytes(half(23)),
        content: Content::Segments(vec![segment]),
        subresources: Subresources::default(),
        customer_key: None,
    };
    // Long ago, as of a pool that has lived: not ahead of any clock.
    let ballot = Ballot { stamp: Stamp::from_millis(1_700_000_000_000 + time), peer: u64::from(number % 3), nonce: 7 };
    Accepted { ballot, record: Record::write(None, RequestId(u64::from(number)), ballot, Some(record.encode())) }
}

fn name(number: u32) -> Bytes {
    key::object("photos", &format!("{:04x}/{number:08}.jpg", number.wrapping_mul(2_654_435_761) >> 16))
}

/// Writes these registers into a space. `time` answers when each was last written.
async fn fill(index: &Arc<dyn IndexStore>, space: Space, count: u32, time: impl Fn(u32) -> u64) {
    for from in (0..count).step_by(2_000) {
        let batch = (from..(from + 2_000).min(count))
            .map(|number| Write::Put(space, name(number), object(number, time(number)).encode()));
        index.commit(batch.collect(), Durability::Buffered).await.unwrap();
    }
}

/// Bytes of the registers' keys and values that `changed` says were changed.
fn bytes_of(count: u32, changed: impl Fn(u32) -> bool) -> u64 {
    let bytes = |number| name(number).len() + object(number, 2).record.value.unwrap().len();
    (0..count).filter(|number| changed(*number)).map(|number| bytes(number) as u64).sum()
}

fn contents(index: &Arc<dyn IndexStore>, space: Space) -> BTreeMap<Bytes, Bytes> {
    let mut all = BTreeMap::new();
    let visit = &mut |key: &[u8], value: &[u8]| {
        all.insert(Bytes::copy_from_slice(key), Bytes::copy_from_slice(value));
        Next::Continue
    };
    index.scan(space, &[], visit).unwrap();
    all
}

fn memory() -> Arc<dyn IndexStore> {
    Arc::new(MemoryIndex::default())
}

/// Levels until a whole turn of the voters finds nothing; answers how many records were brought.
async fn level(peer: &Peer) -> usize {
    let (mut brought, mut quiet) = (0, 0);
    for round in 0..40 {
        let more = peer.ledger.level_once(round).await.unwrap();
        brought += more;
        quiet = if more == 0 { quiet + 1 } else { 0 };
        if quiet == 3 {
            return brought;
        }
    }
    panic!("never level");
}

const COUNT: u32 = 20_000;

/// A tenth, scattered: the hard case, as nearly every leaf has some.
fn changed(number: u32) -> bool {
    blake3::hash(&number.to_le_bytes()).as_bytes()[0] < 26
}

fn now(number: u32) -> u64 {
    1 + u64::from(changed(number))
}

/// Story: a voter was away while a scattered tenth of 20,000 records changed. Danger: moving everything, or a message
/// per key and voter. Expectation: under three times the bytes of the changed records, no consensus at all, and then
/// the same registers as the others to the byte. Comparing equal copies afterwards costs one small message.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_voter_back_from_absence_moves_little_more_than_what_changed() {
    let indexes = vec![memory(), memory(), memory()];
    fill(&indexes[0], Space::Accepted, COUNT, now).await;
    fill(&indexes[1], Space::Accepted, COUNT, now).await;
    fill(&indexes[2], Space::Accepted, COUNT, |_| 1).await;
    let (peers, traffic) = pool(indexes, 3).await;

    // The others look first: they find that they are not the ones behind, at the price of a leaf.
    peers[0].ledger.level_once(0).await.unwrap();
    peers[0].ledger.level_once(1).await.unwrap();
    let (_, idle, _) = traffic.take();
    assert!(idle < bytes_of(COUNT, changed) / 10, "{idle} bytes to learn that another is behind");

    let brought = level(&peers[2]).await;
    let (messages, bytes, prepares) = traffic.take();
    assert_eq!(brought, (0..COUNT).filter(|number| changed(*number)).count());
    assert_eq!(contents(&peers[2].index, Space::Accepted), contents(&peers[0].index, Space::Accepted));
    let ratio = bytes as f64 / bytes_of(COUNT, changed) as f64;
    assert!(ratio < 3.0, "{bytes} bytes in {messages} messages: {ratio:.2} times what changed");
    assert_eq!(prepares, 0, "settled by consensus");

    peers[2].ledger.level_once(0).await.unwrap();
    let (messages, bytes, _) = traffic.take();
    // Of the three, two ask the others for a newer configuration.
    assert!(messages <= 3 && bytes < 400, "{messages} messages of {bytes} bytes between equal copies");
}

/// Story: a member that has only now joined follows an existing pool of 20,000 records; then a tenth changes while it is
/// away. Expectation: the first copy moves hardly more than the records, and shows its progress; the second under three
/// times what changed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_learner_copies_in_bulk_and_then_what_changed() {
    let indexes = vec![memory(), memory()];
    fill(&indexes[0], Space::Accepted, COUNT, |_| 1).await;
    let (peers, traffic) = pool(indexes, 1).await;
    let (mut progress, seen) = (peers[1].ledger.catch_up(), Arc::new(Mutex::new(Vec::new())));
    let watching = tokio::spawn({
        let seen = Arc::clone(&seen);
        async move {
            while progress.changed().await.is_ok() {
                seen.lock().extend(*progress.borrow_and_update());
            }
        }
    });
    assert_eq!(level(&peers[1]).await, COUNT as usize);
    let (_, bytes, _) = traffic.take();
    let all = bytes_of(COUNT, |_| true);
    assert!(bytes < all * 3 / 2, "{bytes} bytes for {all}");
    assert_eq!(contents(&peers[1].index, Space::Followed), contents(&peers[0].index, Space::Accepted));

    watching.abort();
    let seen = std::mem::take(&mut *seen.lock());
    let middle = seen.iter().find(|seen| seen.records < u64::from(COUNT)).expect("progress before the end");
    assert!(middle.total.abs_diff(u64::from(COUNT)) < u64::from(COUNT) / 5, "{middle:?}");

    let indexes = vec![memory(), Arc::clone(&peers[1].index)];
    for peer in peers {
        peer.net.close().await;
    }
    fill(&indexes[0], Space::Accepted, COUNT, now).await;
    let (peers, traffic) = pool(indexes, 1).await;
    level(&peers[1]).await;
    let (_, bytes, _) = traffic.take();
    assert!(bytes < 3 * bytes_of(COUNT, changed), "{bytes} bytes for {}", bytes_of(COUNT, changed));
    assert_eq!(contents(&peers[1].index, Space::Followed), contents(&peers[0].index, Space::Accepted));
}

/// Story: a learner with all 20,000 records becomes the third voter, and starts with an empty acceptor (R8 (3)). Danger:
/// everything fetched once more, or a consensus round per key. Expectation: the voters vouch for what it has; a few bytes
/// per record move, and nothing is left of its learner's copy.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_learner_that_becomes_a_voter_needs_no_bodies() {
    let indexes = vec![memory(), memory(), memory()];
    fill(&indexes[0], Space::Accepted, COUNT, now).await;
    fill(&indexes[1], Space::Accepted, COUNT, now).await;
    fill(&indexes[2], Space::Followed, COUNT, now).await;
    let (peers, traffic) = pool(indexes, 2).await;
    let target = peers.iter().map(|peer| peer.net.me()).collect();
    reach(&peers[0].ledger, &target).await;
    assert_eq!(contents(&peers[2].index, Space::Accepted), contents(&peers[0].index, Space::Accepted));
    assert!(contents(&peers[2].index, Space::Followed).is_empty());
    let (_, bytes, prepares) = traffic.take();
    assert!(bytes < 40 * u64::from(COUNT), "{bytes} bytes moved");
    assert!(prepares < 50, "{prepares} prepares");
}

/// Story: one voter of three is gone for ever, another was away and has to become level from the only one left, with
/// some writes left half done: accepted there and nowhere else. Danger: taking on one voter's word what may never have
/// been chosen (R6), or standing still because nobody else can vouch. Expectation: consensus settles each key.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_enough_to_vouch_consensus_settles() {
    const FEW: u32 = 400;
    let indexes = vec![memory(), memory(), memory()];
    fill(&indexes[0], Space::Accepted, FEW, now).await;
    fill(&indexes[1], Space::Accepted, FEW, |_| 1).await;
    let (mut peers, traffic) = pool(indexes, 3).await;
    peers.pop().unwrap().net.close().await;
    let mut brought = 0;
    for round in 0..4 {
        brought += peers[1].ledger.level_once(round).await.unwrap_or(0);
    }
    assert_eq!(brought, (0..FEW).filter(|number| changed(*number)).count());
    let (_, _, prepares) = traffic.take();
    assert!(prepares > 0);
    let (left, right) = (contents(&peers[0].index, Space::Accepted), contents(&peers[1].index, Space::Accepted));
    for (key, value) in &left {
        let (left, right) = (Accepted::decode(value).unwrap(), Accepted::decode(&right[key]).unwrap());
        assert_eq!(left, right, "{key:?}");
    }
}

/// Story: as above, but all three live, and one key is half done at one voter, another key was promised to a proposer
/// that is about to write. Expectation: nobody vouches for the first key's leaf, and the promise is kept: both keys
/// go by consensus, all others in bulk.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_disputed_or_promised_is_not_installed() {
    let indexes = vec![memory(), memory(), memory()];
    for index in &indexes[..2] {
        fill(index, Space::Accepted, 2_000, now).await;
    }
    fill(&indexes[2], Space::Accepted, 2_000, |_| 1).await;
    let half_done = (0..COUNT).find(|number| !changed(*number)).unwrap();
    let promised = (0..COUNT).find(|number| changed(*number)).unwrap();
    fill(&indexes[0], Space::Accepted, half_done + 1, |number| if number == half_done { 9 } else { now(number) }).await;
    let (peers, traffic) = pool(indexes, 3).await;
    let ballot = Ballot { stamp: Stamp::from_millis(1_700_000_000_500), peer: 9, nonce: 9 };
    let promise = Request::Prepare { epoch: 1, key: name(promised), ballot };
    assert!(matches!(peers[2].ledger.handle(peers[0].net.me(), promise).await, Response::Promised { .. }));
    level(&peers[2]).await;
    let (_, _, prepares) = traffic.take();
    assert!((1..400).contains(&prepares), "{prepares} prepares");
    let after = contents(&peers[2].index, Space::Accepted);
    let ballot_of = |number: u32| Accepted::decode(&after[&name(number)]).unwrap().ballot;
    assert!(ballot_of(promised) > ballot, "installed past a promise");
    assert!(ballot_of(half_done) != object(half_done, 9).ballot, "installed what was accepted by one voter");
    for number in (0..2_000).filter(|number| *number != promised && *number != half_done) {
        assert!(ballot_of(number) >= object(number, now(number)).ballot);
    }
    assert_eq!(peers[1].ledger.read(&name(promised)).await.unwrap().unwrap().version, object(promised, 2).ballot);
}

/// Story: a proposer of epoch 1 got promises for a ballot from voters 1 and 2, one accept reached voter 1, and it died.
/// The voters then change to 1, 3 and 4, by way of adding 4 and removing 2. Danger: voters 3 and 4, who never heard of that
/// ballot, choose a lower one (of a proposer whose clock is behind), and the half-done write comes back over it.
/// Expectation: after the change no voter takes a ballot below it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_of_voters_promises_above_every_old_ballot() {
    let (peers, _) = pool((0..4).map(|_| memory()).collect(), 3).await;
    let ids: Vec<PeerId> = peers.iter().map(|peer| peer.net.me()).collect();
    let now_ms = peers[0].ledger.now_ms();
    // Ahead of the others' clocks, but no further than a second.
    let orphan = Ballot { stamp: Stamp::from_millis(now_ms + 1_000), peer: 9, nonce: 9 };
    for peer in &peers[..2] {
        let promise = Request::Prepare { epoch: 1, key: name(1), ballot: orphan };
        assert!(matches!(peer.ledger.handle(ids[0], promise).await, Response::Promised { .. }));
    }
    let record = Record::write(None, RequestId(1), orphan, Some(Bytes::from_static(b"half done")));
    let accept = Request::Accept { epoch: 1, key: name(1), ballot: orphan, record };
    assert_eq!(peers[0].ledger.handle(ids[0], accept).await, Response::Accepted);
    // Away for as long as the voters change: nobody else can know of it.
    peers[0].net.close().await;

    for target in [vec![0, 1, 2, 3], vec![0, 2, 3]] {
        let target = target.into_iter().map(|at| ids[at]).collect();
        reach(&peers[2].ledger, &target).await;
    }
    let epoch = peers[2].ledger.config().epoch;
    let below = Ballot { stamp: Stamp::from_millis(now_ms + 999), peer: 8, nonce: 8 };
    let mut promises = 0;
    for at in [2, 3] {
        let asked = Request::Prepare { epoch, key: name(1), ballot: below };
        let answer = peers[at].ledger.handle(ids[2], asked).await;
        assert!(matches!(answer, Response::Promised { .. } | Response::Nack { .. }), "{answer:?}");
        promises += usize::from(matches!(answer, Response::Promised { .. }));
    }
    assert!(promises < 2, "a quorum would take a ballot below one that is half done");
    let written = peers[3].ledger.update(name(1), |_| Decision::Put(Bytes::from_static(b"new"), ())).await.unwrap();
    assert!(written.version > orphan);
}

/// Story: a learner that holds 300 records is away while some are deleted, and their tombstones collected (R7). Danger:
/// it keeps them for ever, since no voter has anything newer to tell; or it drops what the voter merely has not got yet.
/// Expectation: what the voter's collection floor refuses is dropped, anything else stays.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_learner_drops_what_was_collected() {
    let indexes = vec![memory(), memory()];
    for (index, space) in indexes.iter().zip([Space::Accepted, Space::Followed]) {
        fill(index, space, 300, |_| 1).await;
    }
    let ahead = object(1, u64::from(u32::MAX) * 1_000);
    let write = Write::Put(Space::Followed, Bytes::from_static(b"only here"), ahead.encode());
    indexes[1].commit(vec![write], Durability::Synced).await.unwrap();
    let (peers, _) = pool(indexes, 1).await;
    // Nobody tells the learner.
    peers[0].ledger.set_members(BTreeSet::from([peers[0].net.me()]));
    for number in 0..40 {
        peers[0].ledger.update(name(number), |_| Decision::Delete(())).await.unwrap();
    }
    assert_eq!(peers[0].ledger.collect_tombstones(Duration::ZERO).await.unwrap(), 40);
    level(&peers[1]).await;
    let left = contents(&peers[1].index, Space::Followed);
    assert_eq!(left.len(), 261);
    assert!(left.contains_key(&b"only here"[..]));
    assert!((40..300).all(|number| left.contains_key(&name(number))));
}

/// Time and messages of a change of voters over many keys.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn a_hundred_thousand_keys_change_voters() {
    let dirs: Vec<_> = (0..4).map(|_| tempfile::tempdir().unwrap()).collect();
    let indexes: Vec<_> = dirs.iter().map(|dir| disk(dir.path())).collect();
    for index in &indexes[..3] {
        fill(index, Space::Accepted, 100_000, |_| 1).await;
    }
    fill(&indexes[3], Space::Followed, 100_000, |_| 1).await;
    let (peers, traffic) = pool(indexes, 3).await;
    // What it would cost key by key: a promise of a quorum for each of a tenth of them.
    let began = Instant::now();
    stream::iter(0..10_000)
        .for_each_concurrent(32, |number| {
            let keep = peers[0].ledger.update(name(number), |_| Decision::<()>::Keep(()));
            async move { assert!(keep.await.is_ok()) }
        })
        .await;
    let (_, bytes, _) = traffic.take();
    println!("10,000 keys promised one by one in {:?}, {bytes} bytes", began.elapsed());

    let target = peers.iter().map(|peer| peer.net.me()).collect();
    let began = Instant::now();
    reach(&peers[0].ledger, &target).await;
    let (messages, bytes, prepares) = traffic.take();
    println!(
        "voters changed over 100,000 keys in {:?}: {messages} messages, {bytes} bytes, {prepares} prepares",
        began.elapsed()
    );
}

fn disk(dir: &std::path::Path) -> Arc<dyn IndexStore> {
    palm_backends::open::index(&format!("disk://{}", dir.display())).unwrap()
}

/// Resident memory of this process, in bytes.
fn resident() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    pages.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4_096
}

/// "Done when" 4 of the ledger: a voter away while 100,000 scattered records of 1,000,000 changed. On disk, on this
/// machine, all three peers in one process.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement: some minutes, several gigabytes of disk"]
async fn a_million_records_of_which_a_tenth_changed() {
    const MILLION: u32 = 1_000_000;
    let dirs: Vec<_> = (0..3).map(|_| tempfile::tempdir().unwrap()).collect();
    let indexes: Vec<_> = dirs.iter().map(|dir| disk(dir.path())).collect();
    for index in &indexes[..2] {
        fill(index, Space::Accepted, MILLION, now).await;
    }
    fill(&indexes[2], Space::Accepted, MILLION, |_| 1).await;
    let count = (0..MILLION).filter(|number| changed(*number)).count();
    let payload = bytes_of(MILLION, changed);
    println!("{count} of {MILLION} records changed, {payload} bytes, {} each", payload / count as u64);

    let (peers, traffic) = pool(indexes, 3).await;
    let before = resident();
    let began = Instant::now();
    for peer in &peers[..2] {
        peer.ledger.level_once(0).await.unwrap();
    }
    println!("summaries first read in {:?}, {} MB more resident", began.elapsed(), (resident() - before) >> 20);
    traffic.take();

    let mut progress = peers[2].ledger.catch_up();
    tokio::spawn(async move {
        while progress.changed().await.is_ok() {
            let line = (*progress.borrow_and_update()).map(|progress| progress.to_string());
            println!("{line:?}");
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    });
    let began = Instant::now();
    let brought = peers[2].ledger.level_once(0).await.unwrap();
    let took = began.elapsed();
    let (messages, bytes, prepares) = traffic.take();
    println!(
        "{brought} records in {took:?}: {messages} messages, {bytes} bytes, {:.2} times, {prepares} prepares, {} MB resident",
        bytes as f64 / payload as f64,
        resident() >> 20
    );
    assert_eq!(brought, count);
    assert!(bytes < 3 * payload);
    for round in 0..2 {
        assert_eq!(peers[2].ledger.level_once(round).await.unwrap(), 0);
    }
}
