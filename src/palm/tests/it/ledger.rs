//! The ledger of several peers over real QUIC: linearizable under contention, restarts, absences and changes of the
//! voters.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use palm::net::{FragmentSink, FragmentSource, Handler, Identity, Net};
use palm::pool::ledger::{Decision, Item, Ledger, LedgerError};
use palm_backends::memory::MemoryIndex;
use palm_backends::{Durability, IndexStore, Next, Space, StoreError, Write};
use palm_core::hlc::Ballot;
use palm_core::id::{FragmentId, PeerId, RequestId};
use palm_core::register::{Config, Record};
use palm_core::wire::{FragmentOrigin, JoinRequest, JoinResponse, Request, Response, ScanQuery};

/// Answers ledger requests only.
struct LedgerOnly(Ledger);

#[async_trait]
impl Handler for LedgerOnly {
    async fn call(&self, from: PeerId, request: Request) -> Response {
        self.0.handle(from, request).await
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

pub(crate) struct Peer {
    pub(crate) seed: [u8; 32],
    pub(crate) net: Net,
    pub(crate) ledger: Ledger,
    pub(crate) index: Arc<dyn IndexStore>,
}

impl Peer {
    pub(crate) async fn start(seed: [u8; 32], index: Arc<dyn IndexStore>, config: &Config) -> Self {
        let identity = Identity::from_seed(&seed).unwrap();
        let net = Net::bind(&identity, "127.0.0.1:0".parse().unwrap()).unwrap();
        let ledger =
            Ledger::open(identity.peer_id(), Arc::clone(&index), net.clone(), Some(config.clone())).await.unwrap();
        net.serve(Arc::new(LedgerOnly(ledger.clone())));
        Self { seed, net, ledger, index }
    }

    pub(crate) fn id(&self) -> PeerId {
        self.net.me()
    }
}

/// Tells every peer of every other.
pub(crate) fn introduce(peers: &[Peer]) {
    acquaint(&peers.iter().map(|peer| &peer.net).collect::<Vec<_>>());
    let members: BTreeSet<PeerId> = peers.iter().map(Peer::id).collect();
    for peer in peers {
        peer.ledger.set_members(members.clone());
    }
}

/// Lets each of these connect to each other.
pub(crate) fn acquaint(nets: &[&Net]) {
    let pairs =
        || nets.iter().flat_map(|net| nets.iter().map(move |other| (net, other))).filter(|(a, b)| a.me() != b.me());
    for (net, other) in pairs() {
        net.admit(other.me());
    }
    // Only now, as it makes them dial: who dials a peer that does not admit it yet is turned away, and tries again much later.
    for (net, other) in pairs() {
        net.hint(other.me(), other.local_addr());
    }
}

/// `count` peers, of which the first `voters` vote.
pub(crate) async fn pool(count: u8, voters: usize) -> Vec<Peer> {
    let seeds: Vec<[u8; 32]> = (0..count).map(|tag| [tag + 1; 32]).collect();
    let ids: Vec<PeerId> = seeds.iter().map(|seed| Identity::from_seed(seed).unwrap().peer_id()).collect();
    let config = Config { epoch: 1, voters: ids.into_iter().take(voters).collect(), outgoing: None };
    let mut peers = Vec::new();
    for seed in seeds {
        peers.push(Peer::start(seed, Arc::new(MemoryIndex::default()), &config).await);
    }
    introduce(&peers);
    peers
}

pub(crate) fn key(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

pub(crate) async fn put(ledger: &Ledger, at: &Bytes, value: &str) -> Result<(), LedgerError> {
    let value = key(value);
    ledger.update(at.clone(), move |_| Decision::Put(value.clone(), ())).await.map(|_| ())
}

pub(crate) async fn names(ledger: &Ledger, prefix: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut start = Bytes::new();
    loop {
        let query = ScanQuery { prefix: key(prefix), start, delimiter: None, limit: 7 };
        let page = ledger.scan(query).await.unwrap();
        found.extend(page.items.into_iter().map(|item| match item {
            Item::Register(key, _) | Item::Group(key) => String::from_utf8(key.to_vec()).unwrap(),
        }));
        match page.next {
            Some(next) => start = next,
            None => return found,
        }
    }
}

/// Story: five peers increment one counter 40 times each, all at once, as fast as they can. Danger: two increments on the
/// same base, or one counted twice. Every acknowledged increment must count once, and be seen from every peer at once. A
/// writer that was outrun by a whole history of others may be told "unknown" (R5): then it counts once or not at all.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn increments_from_everywhere_all_count() {
    let peers = pool(5, 5).await;
    let counter = key("counter");
    let tasks = peers.iter().map(|peer| {
        let (ledger, counter) = (peer.ledger.clone(), counter.clone());
        tokio::spawn(async move {
            let (mut acknowledged, mut unknown) = (0_u32, 0_u32);
            for _ in 0..40 {
                let add = |current: Option<&palm::pool::ledger::Current>| {
                    let value: u32 = current.map_or(0, |now| std::str::from_utf8(&now.value).unwrap().parse().unwrap());
                    Decision::Put(key(&(value + 1).to_string()), ())
                };
                loop {
                    match ledger.update(counter.clone(), add).await {
                        Ok(_) => acknowledged += 1,
                        Err(LedgerError::Unknown(_)) => unknown += 1,
                        // Nothing was written: others were faster for seconds, or the machine stood still.
                        Err(LedgerError::Contended | LedgerError::NoQuorum { .. }) => continue,
                        Err(error) => panic!("{error}"),
                    }
                    break;
                }
            }
            (acknowledged, unknown)
        })
    });
    let (mut acknowledged, mut unknown) = (0, 0);
    for task in tasks.collect::<Vec<_>>() {
        let (sure, unsure) = task.await.unwrap();
        acknowledged += sure;
        unknown += unsure;
    }
    assert!(unknown <= 10, "{unknown} of 200 outcomes unknown");
    for peer in &peers {
        let value = peer.ledger.read(&counter).await.unwrap().unwrap().value;
        let value: u32 = std::str::from_utf8(&value).unwrap().parse().unwrap();
        assert!((acknowledged..=acknowledged + unknown).contains(&value), "{value} of {acknowledged} + {unknown}");
    }
}

/// An index whose syncs take long.
struct SlowIndex(MemoryIndex);

#[async_trait]
impl IndexStore for SlowIndex {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.0.get(space, key)
    }
    fn scan(&self, space: Space, from: &[u8], visit: &mut dyn FnMut(&[u8], &[u8]) -> Next) -> Result<(), StoreError> {
        self.0.scan(space, from, visit)
    }
    async fn commit(&self, batch: Vec<Write>, durability: Durability) -> Result<(), StoreError> {
        tokio::time::sleep(Duration::from_millis(300)).await;
        self.0.commit(batch, durability).await
    }
    fn size(&self) -> u64 {
        self.0.size()
    }
}

/// Story: a voter proposes with an old configuration. Its own promise waits for a sync when another voter tells it of the
/// new one. Danger: adopting waits for the promise, and the promise for whoever adopts (found by simulation, where such a
/// voter never answered again). It must adopt, and its change succeed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proposer_adopts_while_its_own_promise_waits_for_the_disk() {
    let seeds = [[1; 32], [2; 32]];
    let voters: BTreeSet<PeerId> = seeds.iter().map(|seed| Identity::from_seed(seed).unwrap().peer_id()).collect();
    let [old, new] = [1, 2].map(|epoch| Config { epoch, voters: voters.clone(), outgoing: None });
    let peers = [
        Peer::start(seeds[0], Arc::new(SlowIndex(MemoryIndex::default())), &old).await,
        Peer::start(seeds[1], Arc::new(MemoryIndex::default()), &new).await,
    ];
    introduce(&peers);
    let at = key("k");
    let change = put(&peers[0].ledger, &at, "v");
    tokio::time::timeout(Duration::from_secs(20), change).await.expect("stuck for ever").unwrap();
    assert_eq!(peers[0].ledger.config().epoch, 2);
    assert_eq!(peers[1].ledger.read(&at).await.unwrap().unwrap().value, "v");
}

/// Story: many creators race for one key through every peer. Danger: two told they won, or none (R5).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exactly_one_creator_wins() {
    let peers = pool(5, 5).await;
    for round in 0..10 {
        let at = key(&format!("prize-{round}"));
        let tasks: Vec<_> = (0..30)
            .map(|who: usize| {
                let (ledger, at) = (peers[who % 5].ledger.clone(), at.clone());
                tokio::spawn(async move {
                    let create = |current: Option<&palm::pool::ledger::Current>| match current {
                        None => Decision::Put(key(&who.to_string()), true),
                        Some(_) => Decision::Keep(false),
                    };
                    (who, ledger.update(at, create).await.unwrap().answer)
                })
            })
            .collect();
        let mut winners = Vec::new();
        for task in tasks {
            let (who, won) = task.await.unwrap();
            if won {
                winners.push(who.to_string());
            }
        }
        assert_eq!(winners.len(), 1, "winners of round {round}: {winners:?}");
        let kept = peers[round % 5].ledger.read(&at).await.unwrap().unwrap().value;
        assert_eq!(kept, winners[0].as_bytes());
    }
}

/// Story: keys are written and deleted through one peer and read and listed through all others at once, a
/// learner among them. Danger: a read or page that lags.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_and_pages_are_current_at_every_peer_learners_too() {
    let peers = pool(4, 3).await;
    let mut expected = Vec::new();
    for round in 0..24 {
        let name = format!("o/{round:03}");
        put(&peers[round % 4].ledger, &key(&name), "here").await.unwrap();
        expected.push(name);
        if round % 3 == 2 {
            let gone = expected.remove(expected.len() / 2);
            peers[(round + 1) % 4].ledger.update(key(&gone), |_| Decision::Delete(())).await.unwrap();
            for peer in &peers {
                assert_eq!(peer.ledger.read(&key(&gone)).await.unwrap(), None);
            }
        }
        for peer in &peers {
            assert_eq!(names(&peer.ledger, "o/").await, expected, "round {round}");
        }
    }
}

/// Story: two of five voters die; writes and reads go on. A third dies: reads and writes are refused in time, as
/// unavailable, and nothing is invented. It returns with its disk: everything is there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_majority_serves_and_a_minority_refuses() {
    let mut peers = pool(5, 5).await;
    put(&peers[0].ledger, &key("before"), "1").await.unwrap();
    for _ in 0..2 {
        peers.pop().unwrap().net.close().await;
    }
    put(&peers[0].ledger, &key("during"), "2").await.unwrap();
    let lost = peers.pop().unwrap();
    lost.net.close().await;
    let asked = std::time::Instant::now();
    let refused = peers[1].ledger.read(&key("before")).await;
    assert!(matches!(refused, Err(LedgerError::NoQuorum { .. })), "{refused:?}");
    assert!(asked.elapsed() < Duration::from_secs(5));
    assert!(put(&peers[0].ledger, &key("minority"), "3").await.is_err());

    let config = (*lost.ledger.config()).clone();
    peers.push(Peer::start(lost.seed, Arc::clone(&lost.index), &config).await);
    introduce(&peers);
    for peer in &peers {
        assert_eq!(peer.ledger.read(&key("before")).await.unwrap().unwrap().value, "1");
        assert_eq!(peer.ledger.read(&key("during")).await.unwrap().unwrap().value, "2");
    }
}

/// Story: a pool grows from one voter to five, one at a time, while clients write. Danger: an acknowledged write
/// that a quorum of the new voters does not hold (R8). Afterwards the two oldest voters die for ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn voters_join_under_writes_and_nothing_is_lost() {
    let peers = pool(5, 1).await;
    let ids: Vec<PeerId> = peers.iter().map(Peer::id).collect();
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let writers: Vec<_> = peers[..3]
        .iter()
        .enumerate()
        .map(|(who, peer)| {
            let (ledger, stop) = (peer.ledger.clone(), Arc::clone(&stop));
            tokio::spawn(async move {
                let mut acknowledged = Vec::new();
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    let name = format!("w/{who}/{:05}", acknowledged.len());
                    put(&ledger, &key(&name), "x").await.unwrap();
                    acknowledged.push(name);
                }
                acknowledged
            })
        })
        .collect();
    let target: BTreeSet<PeerId> = ids.iter().copied().collect();
    // Two drivers compete: the configuration register lets one win each step.
    let drivers = peers[..2].iter().map(|peer| async {
        for _ in 0..200 {
            match peer.ledger.change_voters(&target).await {
                Ok(true) => return,
                Ok(false) => {}
                Err(error) => assert!(!matches!(error, LedgerError::Storage(_)), "{error}"),
            }
        }
        panic!("the voters never changed");
    });
    futures::future::join_all(drivers).await;
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    let mut acknowledged = Vec::new();
    for writer in writers {
        acknowledged.extend(writer.await.unwrap());
    }
    assert_eq!(peers[0].ledger.config().voters, target);
    assert!(acknowledged.len() > 20, "only {} writes", acknowledged.len());

    let mut peers = peers;
    for peer in peers.drain(..2) {
        peer.net.close().await;
    }
    acknowledged.sort();
    assert_eq!(names(&peers[0].ledger, "w/").await, acknowledged);
}

/// Story: a voter is away while keys change, and a learner hears nothing of them. Expectation: one comparison
/// each brings their own copies level.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn copies_are_brought_level() {
    let mut peers = pool(4, 3).await;
    let away = peers.remove(2);
    away.net.close().await;
    for round in 0..300 {
        put(&peers[0].ledger, &key(&format!("k/{round:03}")), "new").await.unwrap();
    }
    let config = (*away.ledger.config()).clone();
    peers.push(Peer::start(away.seed, Arc::clone(&away.index), &config).await);
    introduce(&peers);
    for peer in &peers[1..] {
        // A connection to compare over.
        peer.ledger.read(&key("k/000")).await.unwrap();
        for round in 0..4 {
            peer.ledger.level_once(round).await.unwrap();
        }
        assert_eq!(peer.ledger.local_scan(b"k/").unwrap().len(), 300);
    }
}

fn accepted_keys(peer: &Peer) -> usize {
    let mut count = 0;
    peer.index
        .scan(Space::Accepted, &[], &mut |_, _| {
            count += 1;
            Next::Continue
        })
        .unwrap();
    count
}

async fn delete(ledger: &Ledger, at: &Bytes) -> Ballot {
    ledger.update(at.clone(), |_| Decision::Delete(())).await.unwrap().version
}

/// R7. Story: keys are deleted and their tombstones collected. Danger: an accept from before the deletion arrives late,
/// after a voter has forgotten the tombstone and restarted, and the deleted key is back. And: tombstones collected
/// while a voter is away, which would then return with the live record. Expectation: nothing is collected without all
/// voters; afterwards the tombstones are gone everywhere, and the durable floor refuses the late accept.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tombstones_go_when_all_voters_hold_them_and_nothing_returns() {
    let mut peers = pool(3, 3).await;
    let ledger = peers[0].ledger.clone();
    put(&ledger, &key("kept"), "v").await.unwrap();
    let doomed: Vec<Bytes> = (0..40).map(|n| key(&format!("doomed{n}"))).collect();
    for at in &doomed {
        put(&ledger, at, "v").await.unwrap();
    }
    let early = Request::Accept {
        epoch: 1,
        key: doomed[0].clone(),
        ballot: delete(&ledger, &doomed[0]).await,
        record: Record::write(None, RequestId(1), Ballot::ZERO, Some(key("back from the dead"))),
    };
    peers[2].net.close().await;
    for at in &doomed[1..] {
        delete(&ledger, at).await;
    }
    ledger.collect_tombstones(Duration::ZERO).await.expect_err("a voter is away");
    assert_eq!(accepted_keys(&peers[0]), 41);

    let (seed, index) = (peers[2].seed, Arc::clone(&peers[2].index));
    peers[2] = Peer::start(seed, index, &ledger.config()).await;
    introduce(&peers);
    // A write goes to all voters, and so connects them.
    put(&peers[2].ledger, &key("kept"), "w").await.unwrap();
    // Until the returned voter holds all tombstones, those it lacks stay.
    for round in 0.. {
        let levelled = peers[2].ledger.level_once(round).await.unwrap();
        ledger.collect_tombstones(Duration::ZERO).await.unwrap();
        if levelled == 0 && accepted_keys(&peers[0]) == 1 {
            break;
        }
        assert!(round < 20, "tombstones stay: {}", accepted_keys(&peers[0]));
    }
    assert_eq!(peers.iter().map(accepted_keys).collect::<Vec<_>>(), [1, 1, 1]);

    // All restart: what protects them from the late accept must have been durable.
    for peer in &mut peers {
        peer.net.close().await;
        *peer = Peer::start(peer.seed, Arc::clone(&peer.index), &ledger.config()).await;
    }
    introduce(&peers);
    for peer in &peers {
        let answer = peer.ledger.handle(peers[0].id(), early.clone()).await;
        assert!(matches!(answer, Response::Nack { .. }), "{answer:?}");
        assert_eq!(peer.ledger.read(&doomed[0]).await.unwrap(), None);
    }
    assert_eq!(names(&peers[1].ledger, "").await, ["kept"]);
    put(&peers[1].ledger, &doomed[0], "again").await.unwrap();
    assert_eq!(names(&peers[2].ledger, "").await, ["doomed0", "kept"]);
}
