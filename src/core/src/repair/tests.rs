//! Segments that were found in every state there is, and what planning makes of them.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::id::FragmentId;
use crate::record::Placed;

const NEED: u64 = 1 << 20;
const ROOMY: u64 = 1 << 40;

fn peer(number: u8) -> PeerId {
    PeerId::from_public_key(&[number; 32])
}

fn policy(text: &str) -> Policy {
    text.parse().unwrap()
}

fn candidates(numbers: impl IntoIterator<Item = u8>) -> Vec<Candidate> {
    numbers
        .into_iter()
        .map(|number| Candidate { peer: peer(number), free: ROOMY, domains: Vec::new(), disks: 1 })
        .collect()
}

/// A segment and the state of its fragments: what a test changes and looks at.
#[derive(Debug, Clone)]
struct State {
    segment: Segment,
    conditions: Vec<Condition>,
}

impl State {
    /// Fragment 0, 1, … at peers by number; their conditions by letter: `s`ound, `l`eaving, `d`amaged, `a`sleep, `g`one, and
    /// `-` for one that was never stored.
    fn new(number: u64, policy: Policy, homes: &[u8], conditions: &str) -> Self {
        let mut id = [0; 16];
        id[..8].copy_from_slice(&number.to_le_bytes());
        let (mut fragments, mut found) = (Vec::new(), Vec::new());
        for ((index, &home), letter) in (0..).zip(homes).zip(conditions.chars()) {
            found.push(match letter {
                's' => Condition::Sound,
                'l' => Condition::Leaving,
                'd' => Condition::Damaged,
                'a' => Condition::Asleep,
                'g' => Condition::Gone,
                _ => continue,
            });
            fragments.push(Placed { index, home: peer(home), id: FragmentId::from_bytes([index; 32]) });
        }
        let segment = Segment { id: SegmentId::from_bytes(id), len: 1 << 20, k: policy.k, n: policy.n, fragments };
        Self { segment, conditions: found }
    }

    fn found(&self) -> Found<'_> {
        Found { segment: &self.segment, conditions: &self.conditions }
    }

    fn plan(&self, wanted: Policy, may_recode: bool, candidates: &[Candidate]) -> Plan {
        plan(self.found(), wanted, may_recode, candidates, |_| NEED)
    }

    /// As it is once a plan was carried out.
    fn after(&self, plan: &Plan) -> Self {
        let mut after = self.clone();
        match plan {
            Plan::Leave | Plan::Unreadable => {}
            Plan::Mend(steps) => {
                for step in steps {
                    let placed =
                        Placed { index: step.index, home: step.to, id: FragmentId::from_bytes([step.index; 32]) };
                    if let Some(at) = after.segment.fragments.iter().position(|placed| placed.index == step.index) {
                        after.segment.fragments[at] = placed;
                        after.conditions[at] = Condition::Sound;
                    } else {
                        after.segment.fragments.push(placed);
                        after.conditions.push(Condition::Sound);
                    }
                }
            }
            Plan::Recode { policy, homes } => {
                let placed = |(index, &home)| Placed { index, home, id: FragmentId::from_bytes([index; 32]) };
                after.segment.fragments = (0..).zip(homes).map(placed).collect();
                (after.segment.k, after.segment.n) = (policy.k, policy.n);
                after.conditions = vec![Condition::Sound; homes.len()];
            }
        }
        after
    }

    fn condition(&self, index: u8) -> Option<(PeerId, Condition)> {
        self.found().by_index().get(&index).copied()
    }

    /// The same, with all that leave a home that takes none gone.
    fn drained(&self, candidates: &[Candidate]) -> Self {
        let mut drained = self.clone();
        for (placed, condition) in drained.segment.fragments.iter().zip(&mut drained.conditions) {
            let stays = candidates.iter().any(|candidate| candidate.peer == placed.home);
            if *condition == Condition::Leaving && !stays {
                *condition = Condition::Gone;
            }
        }
        drained
    }

    /// How many fragments each home has in the end, fullest first.
    fn spread(&self) -> Vec<usize> {
        let there = self.found().by_index().into_values().filter(|(_, condition)| condition.is_there());
        let mut spread: Vec<usize> = place::counts(there.map(|(home, _)| home)).into_values().collect();
        spread.sort_unstable_by(|a, b| b.cmp(a));
        spread
    }
}

/// Index, target and source of each step, by number of peer.
fn steps(plan: &Plan) -> Vec<(u8, u8, Option<u8>)> {
    let number = |id: PeerId| (0..=255).find(|&number| peer(number) == id).unwrap();
    match plan {
        Plan::Mend(steps) => steps.iter().map(|step| (step.index, number(step.to), step.from.map(number))).collect(),
        other => panic!("no steps: {other:?}"),
    }
}

/// Eight peers, 4-of-6, two of them lost for ever: the two that had nothing take one each, and the segment survives two
/// more. The first criterion, in small.
#[test]
fn the_lost_are_rebuilt_where_nothing_is() {
    for number in 0..100 {
        let state = State::new(number, policy("4-of-6"), &[0, 1, 2, 3, 4, 5], "ssggss");
        let alive = candidates([0, 1, 4, 5, 6, 7]);
        let plan = state.plan(policy("4-of-6"), true, &alive);
        let mut taken = steps(&plan);
        taken.sort_by_key(|step| step.1);
        assert!(matches!(taken[..], [(_, 6, None), (_, 7, None)]), "{taken:?}");
        assert_eq!(tolerance(state.found()), Some(0));
        assert_eq!(tolerance(state.after(&plan).found()), Some(2));
    }
}

/// Each case by hand: policy, homes, conditions, who takes fragments; and the steps.
#[test]
fn fragments_go_where_the_table_says() {
    type Steps = &'static [(u8, u8, Option<u8>)];
    type Row = (&'static str, &'static str, &'static [u8], &'static str, &'static [u8], Steps);
    let table: &[Row] = &[
        ("all is well", "3-of-5", &[0, 1, 2, 3, 4], "sssss", &[0, 1, 2, 3, 4, 5], &[]),
        ("who sleeps may be back", "3-of-5", &[0, 1, 2, 3, 4], "sssaa", &[0, 1, 2, 5, 6], &[]),
        (
            "wrong bytes are replaced in place",
            "3-of-5",
            &[0, 1, 2, 3, 4],
            "ssdss",
            &[0, 1, 2, 3, 4, 5],
            &[(2, 2, None)],
        ),
        (
            "or elsewhere, when that home takes none",
            "3-of-5",
            &[0, 1, 2, 3, 4],
            "ssdss",
            &[0, 1, 3, 4, 5],
            &[(2, 5, None)],
        ),
        ("never written", "3-of-5", &[0, 1, 2, 3, 4], "ssss-", &[0, 1, 2, 3, 4], &[(4, 4, None)]),
        ("gone, and one sleeps: its place is held", "2-of-4", &[0, 1, 2, 2], "ssga", &[0, 1], &[(2, 1, None)]),
        ("copied out of a drain", "2-of-3", &[0, 1, 2], "lss", &[1, 2, 3], &[(0, 3, Some(0))]),
        ("a drain that nobody can take", "2-of-3", &[0, 1, 2], "lss", &[1, 2], &[]),
        ("a drain that only copies can save", "2-of-3", &[0, 1, 2], "lag", &[3], &[(0, 3, Some(0))]),
        ("no second fragment at a home of 3-of-4", "3-of-4", &[0, 1, 2, 3], "sssg", &[0, 1, 2], &[]),
        ("a mirror follows to the second peer", "1-of-2", &[0, 0], "ss", &[0, 1], &[(1, 1, Some(0))]),
        (
            "two damaged at one home, another is free",
            "2-of-4",
            &[0, 0, 1, 2],
            "ddss",
            &[0, 1, 2, 3],
            &[(0, 0, None), (1, 3, None)],
        ),
        ("too much beside others, and room at a fifth", "2-of-3", &[0, 1, 2], "lss", &[0, 1, 2, 3], &[(0, 3, Some(0))]),
        ("too much beside others, and nowhere as safe", "2-of-3", &[0, 1, 2], "lss", &[0, 1, 2], &[]),
    ];
    for (story, text, homes, conditions, alive, expected) in table {
        let state = State::new(7, policy(text), homes, conditions);
        match state.plan(policy(text), true, &candidates(alive.iter().copied())) {
            Plan::Leave => assert!(expected.is_empty(), "{story}"),
            Plan::Unreadable => assert_eq!(story, &"", "unreadable"),
            plan => assert_eq!(steps(&plan), *expected, "{story}"),
        }
    }
}

/// Fewer than k are there: nothing can be rebuilt, and nothing is thrown away.
#[test]
fn the_unreadable_waits() {
    let state = State::new(1, policy("3-of-5"), &[0, 1, 2, 3, 4], "ssaag");
    assert_eq!(state.plan(policy("3-of-5"), true, &candidates(0..8)), Plan::Unreadable);
    assert_eq!(tolerance(state.found()), None);
}

/// A pool grows from one peer to five, and an object written at its first minute follows; but only when the pool has been
/// so for a while.
#[test]
fn old_objects_follow_a_pool_that_grows() {
    let state = State::new(1, policy("1-of-1"), &[0], "s");
    let wanted = Policy::auto(5);
    assert_eq!(state.plan(wanted, false, &candidates(0..5)), Plan::Leave);
    let plan = state.plan(wanted, true, &candidates(0..5));
    assert!(matches!(&plan, Plan::Recode { policy, .. } if *policy == wanted), "{plan:?}");
    let after = state.after(&plan);
    assert_eq!((after.spread(), tolerance(after.found())), (vec![1; 5], Some(2)));
    // Three of the five are away: there is no home for the wanted policy where any one may vanish. Wait.
    assert_eq!(state.plan(wanted, true, &candidates([0, 1])), Plan::Leave);
}

/// Five peers become four by a drain. 3-of-5 over four homes survives what 3-of-4 does: nothing is coded anew, one
/// fragment moves. Then three: two homes hold two. Then two: no home may hold three of five, and 1-of-2 takes over.
#[test]
fn a_pool_that_shrinks_keeps_its_policy_while_it_can() {
    let mut state = State::new(1, policy("3-of-5"), &[0, 1, 2, 3, 4], "sssss");
    for (left, spread) in [(4, vec![2, 1, 1, 1]), (3, vec![2, 2, 1]), (2, vec![1, 1]), (1, vec![1])] {
        for (placed, condition) in state.segment.fragments.iter().zip(&mut state.conditions) {
            *condition = if placed.home == peer(left) { Condition::Leaving } else { Condition::Sound };
        }
        let wanted = Policy::auto(left.into());
        let plan = state.plan(wanted, true, &candidates(0..left));
        state = state.after(&plan);
        assert_eq!(state.spread(), spread, "{left} left: {plan:?}");
        assert_eq!(Redundancy::of(state.found(), wanted, left.into()), Redundancy::Full);
    }
}

/// A peer alone with three disks spreads 2-of-3 over them, loses one disk and then the policy of three; two more peers join,
/// and the fragments on two disks of one peer spread over three.
#[test]
fn one_peer_with_several_disks() {
    let alone = |disks| vec![Candidate { disks, ..candidates([0]).remove(0) }];
    let state = State::new(1, policy("2-of-3"), &[0, 0, 0], "sss");
    assert_eq!(state.plan(Policy::auto_over(1, 3), true, &alone(3)), Plan::Leave);
    assert_eq!(Redundancy::of(state.found(), Policy::auto_over(1, 3), 1), Redundancy::Full);

    let damaged = State::new(1, policy("2-of-3"), &[0, 0, 0], "ssd");
    assert_eq!(steps(&damaged.plan(policy("2-of-3"), true, &alone(3))), [(2, 0, None)], "on the disk that replaced it");
    let plan = damaged.plan(Policy::auto_over(1, 2), true, &alone(2));
    let mirror = damaged.after(&plan);
    assert_eq!((mirror.segment.k, mirror.segment.n, mirror.spread()), (2, 4, vec![4]));
    let wide = mirror.plan(Policy::auto(3), true, &candidates(0..3));
    assert_eq!(mirror.after(&wide).spread(), [2, 1, 1]);
}

/// Every peer must name the same owner, whatever it thinks of free space and in whatever order it lists its members; and the
/// work must be everyone's.
#[test]
fn owners_are_agreed_on_and_share_the_work() {
    const SEGMENTS: u64 = 4000;
    let (mut live, mut owned) = ((0..8).map(peer).collect::<Vec<_>>(), BTreeMap::new());
    for number in 0..SEGMENTS {
        let homes: Vec<u8> = (0..5).map(|index| ((number + index) % 8) as u8).collect();
        let state = State::new(number, policy("3-of-5"), &homes, "sssss");
        live.rotate_left(3);
        let named = owner(&state.segment, &live).unwrap();
        assert!(homes.iter().any(|&home| peer(home) == named));
        *owned.entry(named).or_insert(0_u64) += 1;
        let mut dead = live.clone();
        dead.retain(|peer| *peer != named);
        let heir = owner(&state.segment, &dead).unwrap();
        assert!(heir != named && homes.iter().any(|&home| peer(home) == heir));
        let strangers: Vec<PeerId> = (20..24).map(peer).collect();
        assert!(strangers.contains(&owner(&state.segment, &strangers).unwrap()));
        assert_eq!(owner(&state.segment, &[]), None);
    }
    assert!(owned.len() == 8 && owned.values().all(|&count| count.abs_diff(SEGMENTS / 8) < 100), "{owned:?}");
}

/// What `palm status` calls an object.
#[test]
fn redundancy_in_words() {
    let table = [
        ("3-of-5", "sssss", "3-of-5", 5, Redundancy::Full),
        ("3-of-5", "ssssa", "3-of-5", 5, Redundancy::Reduced),
        ("3-of-5", "sssaa", "3-of-5", 5, Redundancy::None),
        ("3-of-5", "ssaaa", "3-of-5", 5, Redundancy::Unreadable),
        ("3-of-5", "lllll", "3-of-5", 5, Redundancy::Full),
        ("1-of-1", "s", "1-of-1", 1, Redundancy::Full),
        ("1-of-1", "s", "3-of-5", 5, Redundancy::None),
        ("2-of-3", "sss", "3-of-5", 5, Redundancy::Reduced),
        ("2-of-3", "sss", "3-of-4", 4, Redundancy::Full),
    ];
    for (kept, conditions, wanted, members, expected) in table {
        let state = State::new(1, policy(kept), &[0, 1, 2, 3, 4], conditions);
        assert_eq!(Redundancy::of(state.found(), policy(wanted), members), expected, "{kept} {conditions} {wanted}");
    }
}

/// Peers by number, each with a condition that all its fragments share, and whether it takes fragments and how many.
#[derive(Debug, Clone)]
struct Case {
    state: State,
    candidates: Vec<Candidate>,
    wanted: Policy,
}

const PEERS: u8 = 10;

fn policies() -> impl Strategy<Value = Policy> {
    (1..=8_u8).prop_flat_map(|n| (1..=n, Just(n))).prop_map(|(k, n)| Policy { k, n })
}

/// Any segment in any pool: `homes` lives, sleeps or is gone as a whole, while damage and lack strike single fragments.
fn cases() -> impl Strategy<Value = Case> {
    let peers =
        vec((prop_oneof![6 => Just('s'), 1 => Just('l'), 1 => Just('a'), 1 => Just('g')], 0..6_u64), PEERS as usize);
    let fragments = vec((0..PEERS, prop_oneof![8 => Just('s'), 1 => Just('d'), 1 => Just('-')]), 8);
    (any::<u64>(), policies(), policies(), peers, fragments, any::<bool>()).prop_map(
        |(number, kept, wanted, peers, fragments, overfull)| {
            let homes: Vec<u8> = fragments.iter().take(kept.n.into()).map(|(home, _)| *home).collect();
            let conditions = fragments.iter().map(|&(home, letter)| match (peers[usize::from(home)].0, letter) {
                (_, '-') => '-',
                ('s' | 'l', 'd') => 'd',
                (of_home, _) => of_home,
            });
            let state = State::new(number, kept, &homes, &conditions.collect::<String>());
            let taking =
                (0..PEERS).zip(&peers).filter(|(_, (of_home, _))| *of_home == 's' || *of_home == 'l' && overfull);
            let candidates = taking.map(|(number, (of_home, room))| {
                let room = if *of_home == 's' { *room } else { 0 };
                let domains: [&[&str]; 5] = [&[], &["a/1"], &["a/2", "c"], &["b"], &["b", "c"]];
                let domains = domains[usize::from(number % 5)].iter().map(|&domain| domain.to_owned()).collect();
                Candidate { peer: peer(number), free: room * NEED + NEED / 2, domains, disks: 1 }
            });
            Case { state, candidates: candidates.collect(), wanted }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4096, failure_persistence: None, ..ProptestConfig::default() })]

    /// Planning is safe: nothing sound is rebuilt, nobody gets what it cannot take or a fragment whose loss with its home
    /// would end the segment, and each step brings a fragment that is read or rebuilt from what is there.
    #[test]
    fn a_plan_is_sound(case in cases(), may_recode: bool) {
        let Case { state, candidates, wanted } = &case;
        let policy = Policy { k: state.segment.k, n: state.segment.n };
        let plan = state.plan(*wanted, may_recode, candidates);
        let after = state.after(&plan);
        let readable = tolerance(state.found()).is_some();
        match &plan {
            Plan::Leave => prop_assert!(readable),
            Plan::Unreadable => prop_assert!(!readable),
            Plan::Recode { policy, homes } => {
                prop_assert!(readable && may_recode && policy == wanted);
                prop_assert!(place::durable(*policy, homes));
            }
            Plan::Mend(steps) => {
                prop_assert!(!steps.is_empty());
                for (at, step) in steps.iter().enumerate() {
                    prop_assert!(step.index < policy.n && steps[..at].iter().all(|other| other.index != step.index));
                    let taker = candidates.iter().find(|candidate| candidate.peer == step.to);
                    prop_assert!(taker.is_some());
                    let coming = steps.iter().filter(|other| other.to == step.to).count();
                    prop_assert!(taker.is_some_and(|taker| coming <= taker.room(NEED)));
                    let kept = |&(home, found): &(PeerId, Condition)| {
                        home == step.to && !matches!(found, Condition::Damaged | Condition::Gone)
                    };
                    let held = after.found().by_index().values().filter(|at| kept(at)).count();
                    prop_assert!(held <= policy.durability_cap());
                    match state.condition(step.index) {
                        Some((home, Condition::Sound | Condition::Leaving)) => {
                            prop_assert!(step.from == Some(home) && step.to != home);
                        }
                        Some((_, Condition::Asleep)) => prop_assert!(false, "a sleeper is moved"),
                        _ => prop_assert!(step.from.is_none() && readable),
                    }
                }
            }
        }
    }

    /// No plan makes a segment survive less than it does, draining homes not counted: they are to be lost.
    #[test]
    fn a_plan_never_lowers_tolerance(case in cases(), may_recode: bool) {
        let Case { state, candidates, wanted } = &case;
        let after = state.after(&state.plan(*wanted, may_recode, candidates));
        prop_assert!(tolerance(after.drained(candidates).found()) >= tolerance(state.drained(candidates).found()));
    }

    /// Carried out, a plan leaves nothing to do, with the room it used gone as well. Else repair would go on for ever.
    #[test]
    fn a_plan_carried_out_is_the_end(case in cases(), may_recode: bool, is_room_limited: bool) {
        let Case { state, candidates, wanted } = &case;
        let mut candidates = candidates.clone();
        if !is_room_limited {
            candidates.iter_mut().filter(|candidate| candidate.free >= NEED).for_each(|candidate| candidate.free = ROOMY);
        }
        let plan = state.plan(*wanted, may_recode, &candidates);
        let after = state.after(&plan);
        if is_room_limited {
            let homes: Vec<PeerId> = match &plan {
                Plan::Mend(steps) => steps.iter().map(|step| step.to).collect(),
                Plan::Recode { homes, .. } => homes.clone(),
                _ => Vec::new(),
            };
            for home in homes {
                candidates.iter_mut().find(|candidate| candidate.peer == home).unwrap().free -= NEED;
            }
        }
        let again = after.plan(*wanted, may_recode, &candidates);
        prop_assert!(matches!(again, Plan::Leave | Plan::Unreadable), "{:?}\n{:?}\n{:?}", plan, after, again);
    }

    /// Where nobody sleeps, a mended segment is as safe as one written now under its policy, and shows no more.
    #[test]
    fn what_is_mended_is_as_good_as_new(case in cases()) {
        let Case { state, candidates, wanted } = &case;
        let policy = Policy { k: state.segment.k, n: state.segment.n };
        if tolerance(state.found()).is_none() || state.conditions.contains(&Condition::Asleep) {
            return Ok(());
        }
        let Ok(fresh) = place::plan(state.segment.id, policy, false, candidates, NEED) else { return Ok(()) };
        let after = state.after(&state.plan(*wanted, false, candidates));
        let fresh_tolerance = place::losses(place::counts(fresh.homes).into_values(), policy.k);
        prop_assert!(tolerance(after.found()) >= fresh_tolerance);
        prop_assert!(fresh.exposed || after.spread()[0] < usize::from(policy.k));
    }

    /// In a pool where all live and have room, whatever happened before, a plan that may recode ends in full redundancy, if a
    /// write could have it.
    #[test]
    fn repair_ends_in_full_redundancy(case in cases(), members in 1..=PEERS) {
        let state = case.state.clone();
        if tolerance(state.found()).is_none() || state.conditions.contains(&Condition::Asleep) {
            return Ok(());
        }
        let candidates = candidates(0..members);
        let mut state = state;
        for (placed, condition) in state.segment.fragments.iter().zip(&mut state.conditions) {
            let is_member = candidates.iter().any(|candidate| candidate.peer == placed.home);
            *condition = match *condition {
                Condition::Sound | Condition::Leaving if !is_member => Condition::Leaving,
                Condition::Leaving => Condition::Sound,
                Condition::Damaged if !is_member => Condition::Gone,
                other => other,
            };
        }
        for wanted in [Policy::auto(members.into()), case.wanted] {
            if place::plan(state.segment.id, wanted, false, &candidates, NEED).is_err() {
                continue;
            }
            let after = state.after(&state.plan(wanted, true, &candidates)).drained(&candidates);
            prop_assert_eq!(Redundancy::of(after.found(), wanted, members.into()), Redundancy::Full, "{:?}", after);
        }
    }

    /// No fewer steps would do: left out, each one leaves a fragment where it does not count, or the segment less safe.
    #[test]
    fn no_step_is_idle(case in cases()) {
        let Case { state, candidates, wanted } = &case;
        let Plan::Mend(steps) = state.plan(*wanted, false, candidates) else { return Ok(()) };
        let whole = state.after(&Plan::Mend(steps.clone()));
        for step in &steps {
            let Some((_, Condition::Sound)) = state.condition(step.index) else { continue };
            let others = steps.iter().filter(|other| other.index != step.index).copied().collect();
            let without = state.after(&Plan::Mend(others));
            let prospect = |state: &State| {
                let mut awake = state.clone();
                awake.conditions.iter_mut().filter(|found| **found == Condition::Asleep).for_each(|found| *found = Condition::Sound);
                let awake = awake.drained(candidates);
                (tolerance(awake.found()), awake.spread().first().is_none_or(|&fullest| fullest < usize::from(state.segment.k)))
            };
            prop_assert!(prospect(&without) < prospect(&whole) || prospect(&whole).1 && !prospect(&without).1);
        }
    }
}

/// A pool's health is the sum of its peers' shares. A peer that has not counted yet must not make it say that nothing may be
/// lost, and the sum is as old as its oldest share.
#[test]
fn shares_of_health_add_up() {
    let share = |can_lose, counted_ms| Health { can_lose, counted_ms, queued: 2, ..Health::nothing() };
    let mut sum = Health::nothing();
    for one in [share(3, 500), share(2, 400), share(u8::MAX, 600)] {
        sum.add(&one);
    }
    assert_eq!((sum.can_lose, sum.counted_ms, sum.queued), (2, 400, 6));
    sum.add(&Health::default());
    assert_eq!((sum.can_lose, sum.counted_ms), (2, 0));
}
