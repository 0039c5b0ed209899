//! Several stores of one peer: numbers that stay, disks that go and come back.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use palm_core::id::FragmentId;
use tempfile::TempDir;

use super::*;
use crate::conformance::{self, Lifetime};
use crate::fragment::{FragmentReader, FragmentStat, FragmentWriter};
use crate::memory::{MemoryFragments, MemoryIndex};

fn url(dir: &Path) -> String {
    format!("disk://{}?reserve=0", dir.display())
}

async fn open(dirs: &[&PathBuf], index: &Arc<MemoryIndex>) -> Result<Arc<Backends>, OpenError> {
    let urls: Vec<String> = dirs.iter().map(|dir| url(dir)).collect();
    Backends::open(&urls, Arc::clone(index) as _, "me").await
}

fn numbers(backends: &Backends) -> Vec<u16> {
    backends.iter().map(|backend| backend.number()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backend_conforms() {
    let single = |max_bytes| Backends::single(Arc::new(MemoryFragments::new(max_bytes))).only().unwrap();
    conformance::fragments(Lifetime::Handle, async |_| Arc::new(single(u64::MAX)) as _).await;
    conformance::fragments_when_full(Arc::new(single(1 << 20)), 1 << 20).await;
}

/// Scenario: the settings are put in another order, an option changes, a disk is added, one is left out for a while.
/// Danger: a number that means another disk than the notes do. Expectation: a place keeps its number for good, and no other
/// gets it.
#[tokio::test]
async fn numbers_stay_with_their_places() {
    let dir = TempDir::new().unwrap();
    let index = Arc::new(MemoryIndex::new());
    let [a, b, c] = ["a", "b", "c"].map(|name| dir.path().join(name));
    assert_eq!(numbers(&open(&[&a, &b], &index).await.unwrap()), [0, 1]);
    assert_eq!(numbers(&open(&[&b], &index).await.unwrap()), [1]);
    let urls = [format!("disk://{}/", c.display()), url(&b), format!("disk://{}?max_bytes=1GB", a.display())];
    assert_eq!(numbers(&Backends::open(&urls, Arc::clone(&index) as _, "me").await.unwrap()), [2, 1, 0]);
    let twice = open(&[&a, &a], &index).await.unwrap_err();
    assert!(twice.to_string().contains("twice"), "{twice}");
}

/// Scenario: a disk is not mounted when the peer starts: its directory is missing, or is the empty mount point. Danger: a
/// new store is made there, on the system's disk, and everything kept on the other counts as lost. Expectation: nothing
/// is made, the peer goes on with the other disk, and when this one is mounted it works again with all it had.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_is_not_mounted_is_waited_for() {
    let dir = TempDir::new().unwrap();
    let index = Arc::new(MemoryIndex::new());
    let [a, b, away] = ["a", "b", "away"].map(|name| dir.path().join(name));
    let backends = open(&[&a, &b], &index).await.unwrap();
    let kept = backends.get(1).unwrap().put(Bytes::from_static(b"kept")).await.unwrap();
    drop(backends);
    std::fs::rename(&b, &away).unwrap();
    for is_empty in [false, true] {
        if is_empty {
            std::fs::create_dir(&b).unwrap();
        }
        let backends = open(&[&a, &b], &index).await.unwrap();
        let failed = backends.get(1).unwrap();
        assert!(matches!(failed.state().await, BackendState::Failed(reason) if reason.contains("mounted")));
        assert!(matches!(failed.get(kept.id).await, Err(StoreError::Gone(_))));
        let order = backends.for_writing(1, &BTreeMap::new()).await;
        assert_eq!(order.iter().map(Backend::number).collect::<Vec<_>>(), [0]);
        backends.look().await;
        assert_eq!(b.exists(), is_empty);
        assert!(!b.join("packed").exists(), "a store was made on a mount point");
    }
    let backends = open(&[&a, &b], &index).await.unwrap();
    let mut changes = backends.changes();
    std::fs::remove_dir(&b).unwrap();
    std::fs::rename(&away, &b).unwrap();
    backends.look().await;
    assert!(changes.has_changed().unwrap());
    changes.mark_unchanged();
    assert_eq!(backends.get(1).unwrap().state().await, BackendState::Well);
    assert_eq!(&backends.get(1).unwrap().get(kept.id).await.unwrap()[..], b"kept");
}

/// Scenario: a directory is removed under a running store, whose open files take writes as before. Danger: fragments are
/// answered as durable that no restart will find. Expectation: small and large ones are refused, nothing is reported as
/// there, the other backend goes on, and the state says why.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_removed_under_a_store_is_noticed() {
    for len in [10, 100_000] {
        let dir = TempDir::new().unwrap();
        let index = Arc::new(MemoryIndex::new());
        let [a, b] = ["a", "b"].map(|name| dir.path().join(name));
        let backends = open(&[&a, &b], &index).await.unwrap();
        let gone = backends.get(1).unwrap();
        let kept = gone.put(Bytes::from(vec![1; len])).await.unwrap();
        std::fs::remove_dir_all(&b).unwrap();
        assert!(matches!(gone.put(Bytes::from(vec![2; len])).await, Err(StoreError::Gone(_))));
        assert!(gone.stat(kept.id).await.is_err());
        assert!(matches!(gone.state().await, BackendState::Failed(reason) if reason.contains("not there any more")));
        assert_eq!(backends.usage().await.unwrap().fragments, 0);
        assert_eq!(backends.for_writing(1, &BTreeMap::new()).await.len(), 1);
        backends.look().await;
        assert!(!b.exists());
    }
}

/// A store whose writes fail when told to.
#[derive(Default)]
struct Faulty {
    inner: MemoryFragments,
    fails: Arc<AtomicBool>,
}

#[async_trait]
impl FragmentStore for Faulty {
    async fn writer(&self, len: Option<u64>) -> Result<Box<dyn FragmentWriter>, StoreError> {
        if self.fails.load(Ordering::Relaxed) {
            return Err(StoreError::Io(std::io::Error::from_raw_os_error(5)));
        }
        self.inner.writer(len).await
    }

    async fn open(&self, id: FragmentId) -> Result<Box<dyn FragmentReader>, StoreError> {
        self.inner.open(id).await
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

/// Scenario: a disk answers EIO to writes for a while. Danger: it is given every further fragment and each fails; or it
/// counts as empty though it reads. Expectation: it takes no more, its fragments are read as before, its room counts no
/// more, and once it takes a write on trial it is used again.
#[tokio::test]
async fn a_backend_whose_writes_fail_gives_and_does_not_take() {
    let fails = Arc::new(AtomicBool::new(false));
    let faulty = Faulty { inner: MemoryFragments::new(1 << 30), fails: Arc::clone(&fails) };
    let backends = Backends::of([Arc::new(faulty) as Arc<dyn FragmentStore>, Arc::new(MemoryFragments::new(1 << 20))]);
    let faulty = backends.get(0).unwrap();
    let kept = faulty.put(Bytes::from_static(b"kept")).await.unwrap();
    fails.store(true, Ordering::Relaxed);
    assert!(faulty.put(Bytes::from_static(b"lost")).await.is_err());
    assert!(matches!(faulty.state().await, BackendState::ReadOnly(reason) if reason.contains("i/o")));
    assert_eq!(&faulty.get(kept.id).await.unwrap()[..], b"kept");
    assert_eq!(backends.for_writing(1, &BTreeMap::new()).await[0].number(), 1);
    assert_eq!(backends.usage().await.unwrap(), Usage { fragments: 1, bytes: 4, free: 1 << 20 });
    backends.look().await;
    assert!(!faulty.takes_writes());
    fails.store(false, Ordering::Relaxed);
    backends.look().await;
    assert_eq!(faulty.state().await, BackendState::Well);
    assert_eq!(backends.usage().await.unwrap().fragments, 1, "the trial left something behind");
}

/// Scenario: three disks, one with much more room, one full. Danger: one disk gets all the work, or all fragments of a
/// segment, or what it has no room for. Expectation: who holds fewer of the segment comes first; among equals the order is drawn
/// by room; the full one is last.
#[tokio::test]
async fn fragments_spread_over_disks_by_room() {
    let store = |max_bytes| Arc::new(MemoryFragments::new(max_bytes)) as Arc<dyn FragmentStore>;
    let backends = Backends::of([store(3 << 30), store(1 << 30), store(0)]);
    let mut firsts = [0, 0, 0];
    for _ in 0..4000 {
        let order = backends.for_writing(1, &BTreeMap::new()).await;
        assert_eq!(order[2].number(), 2);
        firsts[usize::from(order[0].number())] += 1;
    }
    assert!((2800..3200).contains(&firsts[0]), "{firsts:?}");
    let order = backends.for_writing(1, &BTreeMap::from([(0, 2), (1, 1)])).await;
    assert_eq!(order.iter().map(Backend::number).collect::<Vec<_>>(), [1, 0, 2]);
}

/// Scenario: three disks hang on one enclosure, a fourth does not, and the peer is to keep some fragments of a segment. Danger: all of them in the
/// enclosure while the fourth disk has none. Expectation: every second one is outside, those inside are on distinct disks, and the peer
/// counts two disks that fail apart.
#[tokio::test]
async fn disks_of_one_domain_count_as_one() {
    let dir = TempDir::new().unwrap();
    let place = |(number, domain)| format!("disk://{}/{number}?reserve=0{domain}", dir.path().display());
    let shelf = "&domain=attic/shelf";
    let urls: Vec<String> = (0..).zip([shelf, shelf, shelf, ""]).map(place).collect();
    let backends = Backends::open(&urls, Arc::new(MemoryIndex::new()), "me").await.unwrap();
    assert_eq!(backends.writable_apart(), 2);
    assert_eq!(backends.domains(), BTreeSet::from(["attic/shelf".to_owned()]));
    for _ in 0..20 {
        let mut held = BTreeMap::new();
        for count in 1..=6 {
            let first = backends.for_writing(1, &held).await[0].number();
            *held.entry(first).or_default() += 1;
            let outside = held.get(&3).copied().unwrap_or(0);
            assert!((count / 2..=count - count / 2).contains(&outside), "{held:?}");
        }
        assert_eq!(held, BTreeMap::from([(0, 1), (1, 1), (2, 1), (3, 3)]));
    }
}

/// Scenario: a peer of an earlier version kept its fragments by a program, told by an option where; the same program is to keep
/// others elsewhere. Danger: refused as named twice; the old fragments under another number than their notes say; a
/// removed one that comes back. Expectation: the first keeps the number, the second has one of its own, and so it stays over
/// restarts.
#[cfg(feature = "exec")]
#[tokio::test]
async fn a_program_with_other_options_is_another_place() {
    let [first, second] = ["a", "b"].map(|dir| format!("exec:///srv/program?dir=/{dir}&max_bytes=5"));
    let former = "exec:///srv/program";
    let numbers_of = async |urls: &[&String], index: &Arc<MemoryIndex>| {
        let urls: Vec<String> = urls.iter().map(|&url| url.clone()).collect();
        numbers(&Backends::open(&urls, Arc::clone(index) as _, "me").await.unwrap())
    };
    for added in [None, Some(&*first)] {
        let index = Arc::new(MemoryIndex::new());
        index.commit(places::used("disk:///gone", 6, None), Durability::Synced).await.unwrap();
        index.commit(places::used(former, 7, added), Durability::Synced).await.unwrap();
        assert_eq!(Backends::known(vec![first.clone()], &*index).unwrap(), std::slice::from_ref(&first));
        let settings: &[&String] = if added.is_some() { &[] } else { &[&first] };
        assert_eq!(numbers_of(settings, &index).await, [7]);
        assert!(!places::load(&*index).unwrap().contains_key(former));
        assert_eq!(numbers_of(&[&second, &first], &index).await, [8, 7]);
        let backends = Backends::open(&[first.clone(), second.clone()], Arc::clone(&index) as _, "me").await.unwrap();
        backends.abandon(&backends.get(7).unwrap()).await.unwrap();
        assert_eq!(numbers_of(&[&first, &second], &index).await, [8]);
    }
    let index = Arc::new(MemoryIndex::new());
    index.commit(places::used(former, 7, None), Durability::Synced).await.unwrap();
    index.commit(places::removed(former), Durability::Synced).await.unwrap();
    assert_eq!(numbers_of(&[&first], &index).await, [0_u16; 0], "a removed program came back");
}

/// Scenario: fragments in a mounted directory are moved away and the backend is removed. Danger: the place counts as another peer's for ever;
/// or is given up while it is in use. Expectation: its mark is there until then and not after, and a second peer takes it without
/// being told to adopt anything, as does the first one.
#[cfg(feature = "opendal-fs")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removed_place_of_a_service_is_nobody_s() {
    let dir = TempDir::new().unwrap();
    let remote = format!("opendal+fs://{}/remote", dir.path().display());
    let mark = dir.path().join("remote/palm.store");
    let mut peers = Vec::new();
    for name in ["one", "other"] {
        let own = url(&dir.path().join(name));
        peers.push(Backends::open(&[own], Arc::new(MemoryIndex::new()), name).await.unwrap());
    }
    for peer in [0, 1, 0, 0] {
        let added = peers[peer].add(&remote).await.unwrap();
        assert!(mark.exists());
        let refused = peers[1 - peer].add(&remote).await.unwrap_err().to_string();
        assert!(refused.contains("adopt=true"), "{refused}");
        peers[peer].leave(&added).await.unwrap();
        assert!(peers[peer].detach(&added).await.unwrap());
        assert!(!mark.exists());
    }
}

async fn store_some(backend: &Backend, tag: u8) -> FragmentStat {
    backend.put(Bytes::from(vec![tag; 100_000])).await.unwrap()
}

/// Scenario: a disk is added to a running peer, the first one is to be removed while a write to it is under way, and the peer
/// restarts in between with its old settings. Danger: fragments written to a disk that is taken away under them; a removed
/// disk that the settings bring back; an added one that is forgotten. Expectation: the added one takes fragments at once and is
/// there after the restart, the leaving one takes none more and goes only when it is empty and the write has ended.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn backends_come_and_go() {
    let dir = TempDir::new().unwrap();
    let index = Arc::new(MemoryIndex::new());
    let [a, b] = ["a", "b"].map(|name| dir.path().join(name));
    let backends = open(&[&a], &index).await.unwrap();
    let first = backends.get(0).unwrap();
    assert!(matches!(backends.leave(&first).await, Err(RemoveError::Last)));
    let mut changes = backends.changes();
    let second = backends.add(&url(&b)).await.unwrap();
    assert!(changes.has_changed().unwrap());
    changes.mark_unchanged();
    assert_eq!((second.number(), backends.for_writing(1, &BTreeMap::new()).await.len()), (1, 2));
    for again in [url(&b), format!("disk://{}/?reserve=7", b.display())] {
        let twice = backends.add(&again).await.unwrap_err().to_string();
        assert!(twice.contains("is backend 1 of this peer already"), "{twice}");
    }

    let kept = store_some(&first, 1).await;
    let mut late = first.writer(None).await.unwrap();
    backends.leave(&first).await.unwrap();
    assert!(changes.has_changed().unwrap());
    assert!(matches!(first.put(Bytes::from_static(b"no")).await, Err(StoreError::Full)));
    assert_eq!(backends.for_writing(1, &BTreeMap::new()).await.len(), 1);
    assert!(first.delete(kept.id).await.unwrap());
    assert!(!backends.detach(&first).await.unwrap(), "detached under a writer");
    late.write(Bytes::from_static(b"late")).await.unwrap();
    let late = late.finish().await.unwrap();
    assert!(!backends.detach(&first).await.unwrap(), "detached with a fragment");
    drop((first, second, backends));

    let backends = open(&[&a], &index).await.unwrap();
    let first = backends.get(0).unwrap();
    assert!(first.is_leaving() && backends.get(1).is_some());
    backends.stay(&first).await.unwrap();
    backends.leave(&first).await.unwrap();
    assert!(first.delete(late.id).await.unwrap() && backends.detach(&first).await.unwrap());
    assert!(matches!(first.get(late.id).await, Err(StoreError::Gone(_))));
    assert!(!a.join("palm.owner").exists(), "the place still says whose it is");
    drop((first, backends));

    let backends = open(&[&a], &index).await.unwrap();
    assert_eq!(numbers(&backends), [1], "the settings brought a removed backend back");
    assert_eq!(add_again(&backends, &url(&a)).await.number(), 0);
}

/// Scenario: a directory is given to a second peer: while the first runs, while it does not, and with fragments of a time when
/// nothing said whose they are. Danger: two peers that share fragments and delete each other's. Expectation: refused with words
/// that say what to do, nothing changed; an empty one without an owner is taken.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_serves_one_peer() {
    let dir = TempDir::new().unwrap();
    let [a, b, own] = ["a", "b", "own"].map(|name| dir.path().join(name));
    let backends = open(&[&a, &b], &Arc::new(MemoryIndex::new())).await.unwrap();
    store_some(&backends.get(1).unwrap(), 1).await;
    let other = Backends::open(&[url(&own)], Arc::new(MemoryIndex::new()), "other").await.unwrap();
    let said = async || other.add(&url(&a)).await.unwrap_err().to_string();
    assert!(said().await.contains("peer me"), "{}", said().await);
    drop(backends);
    assert!(said().await.contains("palm.owner"));
    let started = Backends::open(&[url(&a)], Arc::new(MemoryIndex::new()), "other").await.unwrap_err();
    assert!(matches!(started, OpenError::Foreign { .. }), "{started}");
    for place in [&a, &b] {
        std::fs::remove_file(place.join("palm.owner")).unwrap();
    }
    assert!(matches!(other.add(&url(&b)).await, Err(OpenError::Strange(_))));
    assert!(!b.join("palm.owner").exists(), "a refused directory was claimed");
    other.add(&url(&a)).await.unwrap();
    assert_eq!(std::fs::read_to_string(a.join("palm.owner")).unwrap(), "other\n");
}

/// Adds a backend that was just let go of: its database may be closing still, and is in use until it has.
async fn add_again(backends: &Backends, url: &str) -> Backend {
    let added = async {
        loop {
            match backends.add(url).await {
                Err(OpenError::InUse(_)) => tokio::time::sleep(Duration::from_millis(10)).await,
                added => break added.unwrap(),
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(60), added).await.unwrap()
}

/// Scenario: a disk is dead and will not come back. Danger: it can never be removed. Expectation: it is taken off with what it
/// had, unless it is the only one; what is known of it stays, so that it can be added again with all it has.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_backend_can_be_given_up() {
    let dir = TempDir::new().unwrap();
    let index = Arc::new(MemoryIndex::new());
    let [a, b] = ["a", "b"].map(|name| dir.path().join(name));
    let backends = open(&[&a, &b], &index).await.unwrap();
    let kept = store_some(&backends.get(1).unwrap(), 1).await;
    backends.abandon(&backends.get(1).unwrap()).await.unwrap();
    assert!(matches!(backends.abandon(&backends.get(0).unwrap()).await, Err(RemoveError::Last)));
    assert!(places::load(&*index).unwrap()[&*open::place(&url(&b))].is_removed);
    let back = add_again(&backends, &url(&b)).await;
    assert_eq!((back.number(), back.stat(kept.id).await.unwrap()), (1, Some(kept)));
}
