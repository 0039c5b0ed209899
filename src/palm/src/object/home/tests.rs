//! A home over backends in memory, some of which rot, lag or fail.

use std::collections::{BTreeMap, HashSet};
use std::slice;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use palm_backends::decorate::{Bandwidth, Pace};
use palm_backends::memory::{MemoryFragments, MemoryIndex};
use palm_backends::{FragmentReader, FragmentStat, FragmentStore, FragmentWriter};
use palm_core::id::SegmentId;
use palm_core::record::FragmentRecord;
use palm_core::wire::FragmentState;
use palm_core::wire::FragmentState::{Corrupt, Missing, Sound};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::*;
use crate::object::scrub::Scrubbed;

const ME: PeerId = PeerId::from_bytes([7; 32]);

/// Fragments in memory that rot when told to, whose calls take a while, and whose disk can go away.
#[derive(Clone, Default)]
struct Shaky {
    inner: MemoryFragments,
    rotten: Arc<Mutex<HashSet<FragmentId>>>,
    is_gone: Arc<AtomicBool>,
    is_slow: bool,
}

impl Shaky {
    /// Lets others run in between, as a disk does.
    async fn pause(&self) -> Result<(), StoreError> {
        if self.is_slow {
            let turns = rand::rng().random_range(0..4);
            for _ in 0..turns {
                tokio::task::yield_now().await;
            }
        }
        if self.is_gone.load(Ordering::Relaxed) { Err(StoreError::Gone("disk is gone".into())) } else { Ok(()) }
    }
}

#[async_trait]
impl FragmentStore for Shaky {
    async fn writer(&self, len: Option<u64>) -> Result<Box<dyn FragmentWriter>, StoreError> {
        self.pause().await?;
        self.inner.writer(len).await
    }

    async fn put(&self, bytes: Bytes) -> Result<FragmentStat, StoreError> {
        self.pause().await?;
        self.rotten.lock().remove(&FragmentId::of(&bytes));
        let stat = self.inner.put(bytes).await?;
        self.pause().await?;
        Ok(stat)
    }

    async fn open(&self, id: FragmentId) -> Result<Box<dyn FragmentReader>, StoreError> {
        self.pause().await?;
        let mut bytes = self.inner.get(id).await?.to_vec();
        if self.rotten.lock().contains(&id) {
            bytes[0] ^= 1;
        }
        Ok(Box::new(palm_backends::reader::BytesReader { id, bytes: bytes.into() }))
    }

    async fn stat(&self, id: FragmentId) -> Result<Option<FragmentStat>, StoreError> {
        self.pause().await?;
        self.inner.stat(id).await
    }

    async fn delete(&self, id: FragmentId) -> Result<bool, StoreError> {
        self.pause().await?;
        let deleted = self.inner.delete(id).await?;
        self.pause().await?;
        Ok(deleted)
    }

    async fn list(&self, after: Option<FragmentId>, limit: usize) -> Result<Vec<FragmentStat>, StoreError> {
        self.pause().await?;
        self.inner.list(after, limit).await
    }

    async fn usage(&self) -> Result<Usage, StoreError> {
        if self.is_gone.load(Ordering::Relaxed) {
            return Err(StoreError::Gone("disk is gone".into()));
        }
        self.inner.usage().await
    }
}

/// Milliseconds as tokio counts them: a paused clock moves with sleeps.
fn clock() -> impl Fn() -> u64 {
    let born = tokio::time::Instant::now();
    move || 1_000_000 + u64::try_from(born.elapsed().as_millis()).unwrap()
}

fn unbounded() -> Arc<Pace> {
    Arc::new(Pace::new(Bandwidth::UNBOUNDED, || 0))
}

fn home(disks: &[Shaky], index: &MemoryIndex) -> Home {
    let stores = disks.iter().map(|disk| Arc::new(disk.clone()) as Arc<dyn FragmentStore>);
    Home::new(Backends::of(stores), Arc::new(index.clone()), Arc::default(), unbounded(), clock())
}

fn origin(segment: u8, index: u8) -> FragmentOrigin {
    FragmentOrigin {
        segment: SegmentId::from_bytes([segment; 16]),
        index,
        body: BodyId::from_bytes([segment; 16]),
        object: Bytes::from_static(b"ob\0k"),
    }
}

fn content(number: u8) -> Bytes {
    Bytes::from(vec![number; 100 + usize::from(number)])
}

async fn put(home: &Home, number: u8) -> FragmentId {
    home.put(ME, &origin(number, 0), content(number)).await.unwrap().id
}

async fn check(home: &Home, ids: &[FragmentId], verify: bool) -> Vec<FragmentState> {
    match home.call(ME, Request::CheckFragments { ids: ids.to_vec(), verify }).await {
        Response::Checked(states) => states,
        other => panic!("{other:?}"),
    }
}

/// Scenario: a bit flips in one fragment, another is lost, a third was never here. Danger: nobody looks and the home says all
/// is well; or says so again once it knows; or repair never hears. Expectation: until it has looked it says what it knew; then,
/// without looking again, what it found; repair is told of both; storing the bytes again heals and clears everything.
#[tokio::test]
async fn rot_is_found_remembered_told_and_healed() {
    let (disk, index) = (Shaky::default(), MemoryIndex::new());
    let home = home(slice::from_ref(&disk), &index);
    let ids = [put(&home, 1).await, put(&home, 2).await, put(&home, 3).await, FragmentId::of(b"never here")];
    disk.rotten.lock().insert(ids[0]);
    disk.inner.delete(ids[1]).await.unwrap();
    assert_eq!(check(&home, &ids, false).await, [Sound, Missing, Sound, Missing]);
    assert_eq!(check(&home, &ids, true).await, [Corrupt, Missing, Sound, Missing]);
    assert_eq!(check(&home, &ids, false).await, [Corrupt, Missing, Sound, Missing]);
    let mut told = [home.damaged().await, home.damaged().await].map(|damaged| damaged.segment);
    told.sort_unstable();
    assert_eq!(told, [origin(1, 0).segment, origin(2, 0).segment]);
    let figures = home.figures().await;
    assert_eq!((figures.damaged, figures.corrupt_found_total), (2, 2));

    let reborn = self::home(slice::from_ref(&disk), &index);
    assert_eq!(reborn.figures().await.damaged, 2, "known damage is forgotten by a restart");
    for number in [1, 2] {
        put(&home, number).await;
    }
    assert_eq!(check(&home, &ids[..3], false).await, [Sound; 3]);
    assert_eq!(check(&home, &ids[..3], true).await, [Sound; 3]);
    assert_eq!(home.figures().await.damaged, 0);

    // A wrong read that was not the disk's fault: what reads right again is right.
    disk.rotten.lock().insert(ids[2]);
    assert_eq!(check(&home, &ids[2..3], true).await, [Corrupt]);
    disk.rotten.lock().clear();
    assert_eq!(check(&home, &ids[2..3], true).await, [Sound]);
    assert_eq!(check(&home, &ids[2..3], false).await, [Sound]);
}

/// Scenario: a fragment is shorter than its note says. Danger: it is there, so it counts. Expectation: it is missing.
#[tokio::test]
async fn a_fragment_of_another_length_is_not_there() {
    let (disk, index) = (Shaky::default(), MemoryIndex::new());
    let home = home(slice::from_ref(&disk), &index);
    let id = put(&home, 1).await;
    let note = home.record(id).unwrap().unwrap();
    assert!(home.renote_if(id, &note, &FragmentRecord { len: note.len + 1, ..note.clone() }).await.unwrap());
    assert_eq!(check(&home, &[id], false).await, [Missing]);
    assert_ne!(check(&home, &[id], true).await, [Sound]);
}

/// Scenario: a fragment in the trash, judged as garbage, is stored again by repair before it is deleted. Danger: the old
/// judgement takes the new one. Expectation: nothing is deleted, the note is out of the trash, though the clock stands still.
#[tokio::test(start_paused = true)]
async fn a_fragment_stored_again_outlives_its_judgement() {
    let (disk, index) = (Shaky::default(), MemoryIndex::new());
    let home = home(slice::from_ref(&disk), &index);
    let id = put(&home, 1).await;
    let fresh = home.record(id).unwrap().unwrap();
    let trashed = FragmentRecord { trashed_ms: Some(5), ..fresh.clone() };
    assert!(home.renote_if(id, &fresh, &trashed).await.unwrap());
    put(&home, 1).await;
    for judged in [&fresh, &trashed] {
        assert!(!home.delete_if(id, judged).await.unwrap());
        assert!(!home.renote_if(id, judged, &trashed).await.unwrap());
    }
    let note = home.record(id).unwrap().unwrap();
    assert_eq!(note.trashed_ms, None);
    assert_eq!(home.get(id).await.unwrap(), content(1));
    assert!(!home.delete_if(id, &note).await.unwrap(), "stored again at once it would have the same note");
    tokio::time::advance(Duration::from_millis(10)).await;
    assert!(home.delete_if(id, &note).await.unwrap());
    assert!(home.record(id).unwrap().is_none() && home.fragments_of(note.body).unwrap().is_empty());
    assert_eq!(disk.inner.usage().await.unwrap().fragments, 0);
}

/// Scenario: a fragment is judged garbage, and while two walks delete it two writers store it again, whole and streamed, over one
/// or two disks that take their time, thousands of times. Danger: a deletion under way takes the bytes after a writer was answered that they
/// are stored. Expectation: a writer is refused, or what it stored is there with its note: every judgement was older.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_stored_answer_is_kept_against_deletions_under_way() {
    let (mut deleted, mut refused) = (0, 0);
    for round in 0..6000_u32 {
        let disk = || Shaky { is_slow: true, ..Shaky::default() };
        let disks: Vec<Shaky> = std::iter::repeat_with(disk).take(1 + round as usize % 2).collect();
        let stores = disks.iter().map(|disk| Arc::new(disk.clone()) as Arc<dyn FragmentStore>);
        // Each look at the clock takes a while.
        let clock = AtomicU64::new(1);
        let ticking = move || clock.fetch_add(1, Ordering::Relaxed);
        let home = Home::new(Backends::of(stores), Arc::new(MemoryIndex::new()), Arc::default(), unbounded(), ticking);
        let id = put(&home, 1).await;
        let judged = home.record(id).unwrap().unwrap();
        let mut random = SmallRng::seed_from_u64(round.into());
        let mut delay = || random.random_range(0..6);
        let late = async |turns| {
            for _ in 0..turns {
                tokio::task::yield_now().await;
            }
        };
        let delete = |turns| {
            let (home, judged) = (home.clone(), judged.clone());
            async move {
                for _ in 0..turns {
                    tokio::task::yield_now().await;
                }
                home.delete_if(id, &judged).await.unwrap()
            }
        };
        let (first, second) = (tokio::spawn(delete(delay())), tokio::spawn(delete(delay())));
        let turns = [delay(), delay()];
        let whole = async {
            late(turns[0]).await;
            home.put(ME, &origin(1, 0), content(1)).await
        };
        let streamed = async {
            late(turns[1]).await;
            let mut upload = home.begin(ME, origin(1, 0)).await?;
            upload.write(content(1)).await?;
            upload.finish().await
        };
        let (whole, streamed) = tokio::join!(whole, streamed);
        let went = [first.await.unwrap(), second.await.unwrap()];
        deleted += went.iter().filter(|went| **went).count();
        let stored = [whole.is_ok(), streamed.is_ok()];
        refused += stored.iter().filter(|stored| !**stored).count();
        let is_there = match home.record(id).unwrap() {
            Some(note) => disks[usize::from(note.backend)].inner.stat(id).await.unwrap().is_some(),
            None => false,
        };
        assert!(is_there || stored == [false; 2], "round {round}: answered as stored, and gone; {went:?}");
    }
    assert!(deleted > 0 && refused > 0, "nothing raced: {deleted} deleted, {refused} refused");
}

/// Scenario: a peer of three disks is given the three fragments of a segment at the same time, twice. Danger: two of them on
/// one disk, which takes both with it. Expectation: each disk has one, and a fragment is read from wherever it is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fragments_of_a_segment_go_to_distinct_disks() {
    let disks: Vec<Shaky> = (0..3).map(|_| Shaky { is_slow: true, ..Shaky::default() }).collect();
    let home = home(&disks, &MemoryIndex::new());
    for segment in 0..40_u8 {
        let puts = (0..3).map(|index| {
            let home = home.clone();
            let bytes = Bytes::from(vec![segment, index, 9]);
            async move { home.put(ME, &origin(segment, index), bytes).await.unwrap().id }
        });
        let ids = futures::future::join_all(puts).await;
        let at: HashSet<u16> = ids.iter().map(|&id| home.record(id).unwrap().unwrap().backend).collect();
        assert_eq!(at.len(), 3, "segment {segment}");
        for id in ids {
            assert_eq!(home.get(id).await.unwrap().len(), 3);
        }
    }
}

/// Scenario: a lone peer of two disks is told to keep two copies of everything: equal bytes, so one fragment and one note. Danger:
/// the second copy is taken for the first one stored again elsewhere, and that for needless: one disk then has all there
/// is. Expectation: both stay, also when all is scrubbed, either disk alone has the bytes, and deleting takes both.
#[tokio::test]
async fn copies_of_one_segment_stay_on_their_disks() {
    let disks = [Shaky::default(), Shaky::default()];
    let home = home(&disks, &MemoryIndex::new());
    let [first, second] = [0, 1].map(|index| origin(1, index));
    let id = home.put(ME, &first, content(1)).await.unwrap().id;
    home.put(ME, &second, content(1)).await.unwrap();
    assert_eq!(home.scrub_now(|_, _| {}).await.unwrap(), Scrubbed { checked: 1, damaged: 0, orphans: 0 });
    for disk in &disks {
        assert_eq!(disk.inner.get(id).await.unwrap(), content(1));
    }
    let at = home.record(id).unwrap().unwrap().backend;
    disks[usize::from(at)].inner.delete(id).await.unwrap();
    assert_eq!(home.get(id).await.unwrap(), content(1));
    home.put(ME, &first, content(1)).await.unwrap();
    tokio::time::sleep(Duration::from_millis(5)).await;
    let note = home.record(id).unwrap().unwrap();
    assert!(home.delete_if(id, &note).await.unwrap());
    assert!(disks[0].inner.get(id).await.is_err() && disks[1].inner.get(id).await.is_err());
}

/// Scenario: one of two disks goes away under a running peer. Danger: the peer as a whole counts as failing; each fragment of
/// the disk is noted as corrupt though they will all be back; new fragments fail. Expectation: its fragments are missing
/// and not found, unmarked, the others sound; new ones go to the other disk; the ills name it.
#[tokio::test]
async fn a_disk_that_goes_away_takes_only_its_fragments() {
    let (disks, index) = ([Shaky::default(), Shaky::default()], MemoryIndex::new());
    let home = home(&disks, &index);
    let mut ids = Vec::new();
    for number in 0..20 {
        ids.push(put(&home, number).await);
    }
    let at: BTreeMap<FragmentId, u16> = ids.iter().map(|&id| (id, home.record(id).unwrap().unwrap().backend)).collect();
    disks[1].is_gone.store(true, Ordering::Relaxed);
    for verify in [true, false] {
        for (state, id) in check(&home, &ids, verify).await.into_iter().zip(&ids) {
            assert_eq!(state, if at[id] == 0 { Sound } else { Missing });
        }
    }
    assert_eq!(home.figures().await.damaged, 0);
    assert!(at.values().any(|&disk| disk == 1), "the test shows nothing");
    for id in &ids {
        let answer = home.call(ME, Request::GetSmall { id: *id }).await;
        assert_eq!(matches!(answer, Response::NotFound), at[id] == 1, "{answer:?}");
    }
    assert!(home.figures().await.ills.iter().any(|ill| ill.contains("gone")), "{:?}", home.figures().await.ills);
    for &id in &ids {
        let number = ids.iter().zip(0..).find(|(other, _)| **other == id).unwrap().1;
        put(&home, number).await;
        assert_eq!(home.record(id).unwrap().unwrap().backend, 0);
    }
    assert!(check(&home, &ids, true).await.iter().all(|state| *state == Sound));

    // It comes back with all it had, none of which is needed there any more.
    disks[1].is_gone.store(false, Ordering::Relaxed);
    let home = self::home(&disks, &index);
    let found = home.scrub_now(|_, _| {}).await.unwrap();
    assert_eq!(found, Scrubbed { checked: 20, damaged: 0, orphans: 0 });
    assert_eq!(disks[0].inner.usage().await.unwrap().fragments, 20);
    assert_eq!(disks[1].inner.usage().await.unwrap().fragments, 0, "second copies stay");
}

/// Scenario: a small fragment comes to a disk that is full. Danger: it is refused though another has room. Expectation: it goes
/// there; when all are full the answer is that.
#[tokio::test]
async fn a_full_disk_passes_on() {
    let disks = [50, 300].map(|max_bytes| Shaky { inner: MemoryFragments::new(max_bytes), ..Shaky::default() });
    let home = home(&disks, &MemoryIndex::new());
    for number in [1, 2] {
        let id = put(&home, number).await;
        assert_eq!(home.record(id).unwrap().unwrap().backend, 1);
    }
    assert!(matches!(home.put(ME, &origin(3, 0), content(3)).await, Err(StoreError::Full)));
}

/// Scenario: forty fragments are to be read within forty minutes; the peer is restarted half-way. Danger: all at once; or anew from
/// the start, so that a peer restarted daily never gets to the end. Expectation: evenly, each once, found what rotted and
/// what nobody noted, and the next round when it is due.
#[tokio::test(start_paused = true)]
async fn scrubbing_is_even_and_survives_a_restart() {
    const MINUTE: Duration = Duration::from_mins(1);
    let (disk, index) = (Shaky::default(), MemoryIndex::new());
    let before = home(slice::from_ref(&disk), &index);
    for number in 0..40 {
        put(&before, number).await;
    }
    disk.inner.put(Bytes::from_static(b"nobody noted this")).await.unwrap();
    disk.rotten.lock().insert(FragmentId::of(&content(11)));
    let scrub = |home: &Home, minutes: u32| {
        let home = home.clone();
        async move { tokio::time::timeout(MINUTE * minutes, home.keep_scrubbing(MINUTE * 41)).await }
    };
    assert!(scrub(&before, 10).await.is_err());
    let (done, all) = before.figures().await.scrubbed;
    assert!((8..=11).contains(&done), "{done} of {all} after a quarter of the time");
    assert!(scrub(&before, 10).await.is_err());
    let elapsed_ms = before.now_ms();
    let after =
        Home::new(Backends::single(Arc::new(disk.clone())), Arc::new(index.clone()), Arc::default(), unbounded(), {
            let clock = clock();
            move || clock() - 1_000_000 + elapsed_ms
        });
    assert!(scrub(&after, 12).await.is_err());
    let (done, _) = after.figures().await.scrubbed;
    assert!((27..=35).contains(&done), "{done} after three quarters");
    assert_eq!(after.figures().await.last_round_ms, 0);
    assert!(scrub(&after, 12).await.is_err());
    let figures = after.figures().await;
    assert!(figures.last_round_ms > 0);
    assert_eq!(figures.orphans, 1);
    assert_eq!(before.figures().await.corrupt_found_total + figures.corrupt_found_total, 1);
    assert_eq!(figures.damaged, 1);
}

/// Scenario: `palm scrub` on a store with rot, loss and a stranger. Expectation: all of it is found at once and counted, the walk tells
/// how far it is, and a second one finds the same.
#[tokio::test]
async fn scrubbing_on_command_finds_everything() {
    let (disk, index) = (Shaky::default(), MemoryIndex::new());
    let home = home(slice::from_ref(&disk), &index);
    let mut ids = Vec::new();
    for number in 0..100 {
        for index in 0..6 {
            let bytes = Bytes::from(vec![number, index, 77]);
            ids.push(home.put(ME, &origin(number, index), bytes).await.unwrap().id);
        }
    }
    disk.inner.put(Bytes::from_static(b"nobody noted this")).await.unwrap();
    disk.rotten.lock().extend(ids.iter().take(3));
    disk.inner.delete(ids[300]).await.unwrap();
    for _ in 0..2 {
        let told = Mutex::new(Vec::new());
        let found = home.scrub_now(|done, all| told.lock().push((done, all))).await.unwrap();
        assert_eq!(found, Scrubbed { checked: 600, damaged: 4, orphans: 1 });
        assert_eq!(told.lock().last(), Some(&(600, 600)));
    }
    assert_eq!(home.figures().await.damaged, 4);
}
