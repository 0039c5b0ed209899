use std::collections::BTreeMap;

use proptest::prelude::*;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;

type TestHead = Head<u32, u32>;

fn id(stamp: u64) -> VersionId {
    VersionId { stamp: Stamp(stamp), nonce: stamp ^ 0xabcd }
}

fn line(stamp: u64) -> Line<u32> {
    Line { id: id(stamp), kind: Kind::Object(u32::try_from(stamp).expect("small")) }
}

const FREE: fn(&u32) -> Result<(), Refusal> = |_| Ok(());
const LOCKED: fn(&u32) -> Result<(), Refusal> = |_| Err(Refusal::access_denied());

fn put_null(head: TestHead, value: u32, versioning: Versioning) -> Done<u32, u32> {
    head.put_null(Kind::Object(value), Stamp(1), versioning, FREE).expect("free")
}

/// <https://docs.aws.amazon.com/AmazonS3/latest/userguide/AddingObjectstoVersionSuspendedBuckets.html> and
/// <https://docs.aws.amazon.com/AmazonS3/latest/userguide/DeletingObjectsfromVersioningSuspendedBuckets.html>, step by step.
#[test]
fn a_key_lives_through_all_states_of_its_bucket() {
    let off = put_null(TestHead::default(), 1, Versioning::Off);
    assert_eq!((off.version, off.freed), (None, None));
    let off = put_null(off.head.expect("there"), 2, Versioning::Off);
    assert_eq!(off.freed, Some(1), "written over");
    let enabled = off.head.expect("there").add_version(line(10)).expect("added");
    assert_eq!(enabled.version, Some(Name::Id(id(10))));
    let head = enabled.head.expect("there");
    assert!(matches!(head.current(), Some(Current::Version(current)) if current.id == id(10)));
    assert!(matches!(&head.null, Some(Null { kind: Kind::Object(2), .. })), "the null version stays");
    let suspended = put_null(head, 3, Versioning::Suspended);
    assert_eq!((suspended.version, suspended.freed), (Some(Name::Null), Some(2)), "it replaces the null version only");
    let head = suspended.head.expect("there");
    assert!(matches!(head.current(), Some(Current::Null(null)) if null.kind == Kind::Object(3)));
    assert_eq!(head.recent.len(), 1);
    let marked = head.put_null(Kind::DeleteMarker, Stamp(0), Versioning::Suspended, FREE).expect("free");
    assert!(marked.delete_marker && marked.freed == Some(3), "DELETE leaves a null marker in the null version's place");
    let head = marked.head.expect("there");
    assert!(!head.is_shown());
    let unmarked = head.delete_version(Name::Null, FREE).expect("free");
    assert!(unmarked.delete_marker, "a marker was deleted");
    let head = unmarked.head.expect("a version is left");
    assert!(head.is_shown(), "what it hid is back");
    let marker = Line { id: id(20), kind: Kind::DeleteMarker };
    let head = head.add_version(marker).expect("added").head.expect("there");
    assert!(!head.is_shown() && head.recent.len() == 2, "DELETE with versions only adds a marker");
    let head = head.delete_version(Name::Id(id(20)), FREE).expect("free").head.expect("there");
    assert!(head.is_shown());
    let last = head.delete_version(Name::Id(id(10)), FREE).expect("free");
    assert_eq!((last.head, last.delete_marker), (None, false), "nothing is left");
}

#[test]
fn nothing_locked_is_written_over_or_deleted() {
    let head = put_null(TestHead::default(), 1, Versioning::Off).head.expect("there");
    let refused = Err(Stop::Refused(Refusal::access_denied()));
    assert_eq!(head.clone().put_null(Kind::DeleteMarker, Stamp(9), Versioning::Suspended, LOCKED), refused);
    assert_eq!(head.clone().delete(LOCKED), refused);
    assert_eq!(head.clone().delete_version(Name::Null, LOCKED), refused);
    assert!(head.add_version(line(10)).is_ok(), "another version on top harms nothing");
}

#[test]
fn deleting_what_is_not_there_is_no_error() {
    let none = TestHead::default().delete_version(Name::Id(id(4)), LOCKED).expect("nothing to do");
    assert_eq!((none.head, none.version, none.freed), (None, Some(Name::Id(id(4))), None));
    assert_eq!(TestHead::default().delete(LOCKED).expect("nothing to do").head, None);
}

/// Scenario: two PUTs race, and the one with the earlier stamp comes second. Danger: below the other it would never have been
/// current, though the other may have been told that nothing was there. Expectation: it has to come back with a newer id.
#[test]
fn an_overtaken_version_is_not_added() {
    let head = TestHead::default().add_version(line(20)).expect("added").head.expect("there");
    assert_eq!(head.clone().add_version(line(10)), Err(Stop::Overtaken));
    assert_eq!(
        put_null(head.clone(), 1, Versioning::Suspended).head.expect("there").add_version(line(21)),
        Err(Stop::Overtaken)
    );
    assert_eq!(head.clone().add_version(line(20)).expect("a retry").head, Some(head.clone()));
    let head = head.add_version(line(30)).expect("newer").head.expect("there");
    assert_eq!(head.recent.iter().map(|line| line.id.stamp.0).collect::<Vec<_>>(), [30, 20]);
}

#[test]
fn ids_have_one_text_and_no_other() {
    let name = Name::Id(VersionId { stamp: Stamp(0x0123_4567_89ab_cdef), nonce: 7 });
    assert_eq!(name.to_string(), "0123456789abcdef0000000000000007");
    assert_eq!(name.to_string().parse(), Ok(name));
    assert_eq!("null".parse(), Ok(Name::Null));
    for wrong in ["", "Null", "0123456789ABCDEF0000000000000007", "+123456789abcdef0000000000000007", "é"] {
        assert_eq!(wrong.parse::<Name>().expect_err(wrong).code, "InvalidArgument");
    }
    assert_eq!(is_marker(true).status, 405);
    assert_eq!(is_marker(false).code, "NoSuchKey");
    assert_eq!(no_such_version().status, 404);
}

/// A step of a move, as whoever met it would make it: perhaps long after others have finished it.
#[derive(Debug, Clone)]
enum Step {
    Write(u64, Page<u32>),
    EndSeal(u64),
    Freeze(u64),
    EndReturn(u64, Vec<Line<u32>>),
    Discard(u64),
}

/// The registers of one key, and what they should add up to.
#[derive(Default)]
struct World {
    head: TestHead,
    pages: BTreeMap<u64, Page<u32>>,
    /// The versions there should be.
    model: BTreeMap<VersionId, u32>,
    /// Every step ever made, to be repeated at any time.
    made: Vec<Step>,
    /// The next step of somebody slow, who has read what it needs.
    slow: Option<Step>,
    pages_made: usize,
}

impl World {
    fn make(&mut self, step: Step) {
        self.made.push(step.clone());
        match step {
            // If absent: as a ledger update decides it.
            Step::Write(page, content) => _ = self.pages.entry(page).or_insert(content),
            Step::EndSeal(page) => self.head = self.head.clone().end_seal(page).unwrap_or(self.head.clone()),
            Step::Freeze(page) => {
                if let Some(content) = self.pages.remove(&page) {
                    self.pages.insert(page, content.freeze());
                }
            }
            Step::EndReturn(page, lines) => {
                self.head = self.head.clone().end_return(page, lines).unwrap_or(self.head.clone());
            }
            Step::Discard(page) => _ = self.pages.remove(&page),
        }
    }

    fn finish(&mut self) {
        match self.head.moving {
            Some(Move::Seal(_)) => {
                let (page, content) = self.head.page_to_seal().expect("a seal");
                self.make(Step::Write(page, content));
                self.make(Step::EndSeal(page));
            }
            Some(Move::Return(page)) => {
                self.make(Step::Freeze(page));
                let lines = self.pages[&page].lines.clone();
                self.make(Step::EndReturn(page, lines));
                self.make(Step::Discard(page));
            }
            None => {}
        }
    }

    /// Begins to finish a move, or makes one more step of it; others go on meanwhile.
    fn finish_slowly(&mut self) {
        if let Some(step) = self.slow.take() {
            let page = match &step {
                Step::EndReturn(page, _) => Some(*page),
                _ => None,
            };
            self.make(step);
            self.slow = page.map(Step::Discard);
            return;
        }
        match self.head.moving {
            Some(Move::Seal(_)) => {
                let (page, content) = self.head.page_to_seal().expect("a seal");
                self.make(Step::Write(page, content));
                self.slow = Some(Step::EndSeal(page));
            }
            Some(Move::Return(page)) => {
                self.make(Step::Freeze(page));
                self.slow = Some(Step::EndReturn(page, self.pages[&page].lines.clone()));
            }
            None => {}
        }
    }

    fn begin_return(&mut self, page: u64) {
        let empty = self.pages[&page].lines.is_empty();
        self.head = self.head.clone().begin_return(page, empty).unwrap_or(self.head.clone());
    }

    fn add(&mut self, stamp: u64, random: &mut StdRng) {
        loop {
            match self.head.clone().add_version(line(stamp)) {
                Ok(done) => break self.head = done.head.expect("there"),
                Err(Stop::Overtaken) => return,
                Err(Stop::Finish) => self.finish(),
                Err(stop) => panic!("{stop:?}"),
            }
        }
        self.model.insert(id(stamp), u32::try_from(stamp).expect("small"));
        if let Some(head) = self.head.clone().begin_seal(random.random()) {
            self.head = head;
            self.pages_made += 1;
        }
    }

    fn delete(&mut self, id: VersionId) {
        for _ in 0..100 {
            match self.head.clone().delete_version(Name::Id(id), FREE) {
                Ok(done) => {
                    self.head = done.head.unwrap_or_default();
                    self.model.remove(&id);
                    return;
                }
                Err(Stop::Finish) => self.finish(),
                Err(Stop::TakeBack(page)) => self.begin_return(page),
                Err(Stop::InPage(page)) => match self.pages[&page].clone().remove(id) {
                    Ok((content, _)) => {
                        let empty = content.lines.is_empty();
                        self.pages.insert(page, content);
                        self.model.remove(&id);
                        if empty {
                            self.begin_return(page);
                        }
                        return;
                    }
                    Err(_) => self.finish(),
                },
                Err(stop) => panic!("{stop:?}"),
            }
        }
        panic!("no end of moves for {id:?}: {:?}", self.head.moving);
    }

    fn check(&self) {
        let in_pages = self.head.pages.iter().flat_map(|page| &self.pages[&page.id].lines);
        let listed: Vec<VersionId> = self.head.recent.iter().chain(in_pages).map(|line| line.id).collect();
        let expected: Vec<VersionId> = self.model.keys().rev().copied().collect();
        assert_eq!(listed, expected);
        assert!(!self.head.recent.is_empty() || self.head.pages.is_empty(), "the current version is in the head");
        assert!(self.head.recent.len() <= RECENT_MAX + PAGE_LINES);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Scenario: hundreds of versions come and go while pages are made and taken back by several, some of whom make
    /// their steps again long after. Danger: a version is lost, comes twice, or comes back after it was deleted.
    /// Expectation: at each moment the lines are those of a plain list, in order, with the newest in the head.
    #[test]
    fn lines_survive_every_move(seed: u64) {
        let mut random = StdRng::seed_from_u64(seed);
        let mut world = World::default();
        let mut clock = 10_000;
        for step in 0..2_500 {
            // Growing, then shrinking, so that pages are made and taken back.
            let grows = if step % 1_000 < 600 { 85 } else { 15 };
            match random.random_range(0..100) {
                dice if dice < grows => {
                    clock += 10;
                    let late = if random.random_bool(0.1) { random.random_range(0..1_500) } else { 0 };
                    world.add(clock - late, &mut random);
                }
                _ => {
                    let len = world.model.len();
                    if len > 0 {
                        // Mostly the newest, which runs recent lines out.
                        let place = if random.random_bool(0.7) { len - 1 } else { random.random_range(0..len) };
                        let id = *world.model.keys().nth(place).expect("within");
                        world.delete(id);
                    }
                }
            }
            match random.random_range(0..10) {
                0 => world.finish(),
                1..4 => world.finish_slowly(),
                _ => {}
            }
            // Somebody takes the newest page back and is slow about it.
            if let Some(page) = world.head.pages.first().map(|page| page.id).filter(|_| random.random_bool(0.02)) {
                world.begin_return(page);
            }
            if !world.made.is_empty() && random.random_bool(0.2) {
                let stale = world.made[random.random_range(0..world.made.len())].clone();
                // A page in force is only discarded by who has taken it back.
                let in_force = |page: &u64| world.head.pages.iter().any(|known| known.id == *page);
                if !matches!(&stale, Step::Discard(page) if in_force(page)) {
                    world.make(stale);
                }
            }
            world.check();
        }
        prop_assert!(world.pages_made > 3, "pages were made: {}", world.pages_made);
    }

    #[test]
    fn no_text_is_two_versions(text in "[0-9a-fA-F]{0,40}|\\PC{0,40}") {
        if let Ok(name) = text.parse::<Name>() {
            prop_assert_eq!(name.to_string(), text);
        }
    }
}
