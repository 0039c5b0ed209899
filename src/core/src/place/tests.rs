use proptest::prelude::*;

use super::rendezvous::cost;
use super::*;

const GIB: u64 = 1 << 30;
const NEED: u64 = 1 << 20;

fn peer(number: u8) -> PeerId {
    PeerId::from_public_key(&[number; 32])
}

fn segment(number: u64) -> SegmentId {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&number.to_le_bytes());
    SegmentId::from_bytes(bytes)
}

fn candidate(number: u8, free: u64) -> Candidate {
    Candidate { peer: peer(number), free, domains: Vec::new(), disks: 1 }
}

fn pool(peers: u8) -> Vec<Candidate> {
    (0..peers).map(|number| candidate(number, GIB)).collect()
}

fn policy(text: &str) -> Policy {
    text.parse().unwrap()
}

fn fullest(homes: &[PeerId]) -> usize {
    counts(homes.iter().copied()).into_values().max().unwrap_or(0)
}

/// Promise 4 by definition: whichever peer vanishes, k fragments remain.
fn survives_any_loss(policy: Policy, stored: &[PeerId]) -> bool {
    stored.iter().all(|gone| stored.iter().filter(|home| *home != gone).count() >= usize::from(policy.k))
        && stored.len() >= usize::from(policy.k)
}

#[test]
fn auto_is_the_table_of_the_design() {
    let table = ["1-of-1", "1-of-1", "1-of-2", "2-of-3", "3-of-4", "3-of-5", "4-of-6", "4-of-7", "5-of-8", "5-of-8"];
    for (members, expected) in table.into_iter().enumerate() {
        assert_eq!(Policy::auto(members).to_string(), expected, "{members} members");
    }
    assert_eq!(Policy::auto(usize::MAX), policy("5-of-8"));
}

#[test]
fn policies_read_as_they_print_and_refuse_nonsense() {
    for n in 1..=64 {
        for k in 1..=n {
            let policy = Policy::new(k, n).unwrap();
            assert_eq!(policy.to_string().parse(), Ok(policy));
        }
    }
    for text in ["", "3", "3of5", "-of-", "3-of-", "3-of-5-of-7", " 3-of-5", "300-of-500", "-3-of-5"] {
        assert!(matches!(text.parse::<Policy>(), Err(PolicyError::Syntax(_))), "{text:?}");
    }
    for text in ["0-of-0", "0-of-5", "6-of-5", "3-of-65"] {
        assert!(matches!(text.parse::<Policy>(), Err(PolicyError::Bounds { .. })), "{text:?}");
    }
}

/// The cases the design names, with the reasons in its words.
#[test]
fn narrow_pools_behave_as_designed() {
    let place = |wanted: &str, automatic, alive| plan(segment(1), policy(wanted), automatic, &pool(alive), NEED);
    let spread = |plan: &Plan| {
        let mut counts: Vec<usize> = counts(plan.homes.iter().copied()).into_values().collect();
        counts.sort_unstable();
        counts
    };

    let narrow = place("3-of-5", false, 3).unwrap();
    assert_eq!((spread(&narrow), narrow.exposed), (vec![1, 2, 2], false));

    let fell = place("3-of-4", true, 3).unwrap();
    assert_eq!((fell.policy, spread(&fell), fell.exposed), (policy("2-of-3"), vec![1, 1, 1], false));

    let fell = place("2-of-3", true, 2).unwrap();
    assert_eq!((fell.policy, spread(&fell), fell.exposed), (policy("1-of-2"), vec![1, 1], true));

    let alone = place("3-of-5", true, 1).unwrap();
    assert_eq!((alone.policy, spread(&alone), alone.exposed), (policy("1-of-1"), vec![1], true));

    // A chosen policy never narrows by itself.
    let refused = place("3-of-5", false, 2).unwrap_err();
    assert_eq!(refused, PlaceError::TooFewHomes { policy: policy("3-of-5"), need: 3, have: 2 });
    assert_eq!(refused.to_string(), "3-of-5 needs 3 homes and 2 are in reach, 1 missing");
    assert!(matches!(place("3-of-5", true, 0), Err(PlaceError::TooFewHomes { .. })));

    // Where n = k no home may vanish anyway, and any number of homes will do.
    let all = place("3-of-3", false, 2).unwrap();
    assert_eq!((spread(&all), all.exposed), (vec![1, 2], false));
    assert!(place("3-of-3", false, 1).unwrap().exposed);
}

/// Every pool of 1 to 12, with every number of dead peers, under its automatic policy: a write finds homes,
/// loses nothing with any one of them, and shows no disk k fragments unless the pool has no third peer.
#[test]
fn automatic_pools_always_find_durable_homes() {
    for members in 1..=12_u8 {
        for dead in 0..members {
            for number in 0..50 {
                let candidates = &pool(members)[usize::from(dead)..];
                let plan = plan(segment(number), Policy::auto(members.into()), true, candidates, NEED).unwrap();
                let alive = candidates.len();
                assert_eq!(plan.homes.len(), usize::from(plan.policy.n));
                assert!(plan.homes.iter().all(|home| candidates.iter().any(|candidate| candidate.peer == *home)));
                assert!(durable(plan.policy, &plan.homes));
                assert!(alive == 1 || survives_any_loss(plan.policy, &plan.homes));
                assert_eq!(plan.exposed, alive <= 2);
                assert_eq!(plan.exposed, fullest(&plan.homes) >= usize::from(plan.policy.k));
                assert!(plan.exposed || fullest(&plan.homes) <= plan.policy.privacy_cap());
                assert_eq!(fullest(&plan.homes), plan.homes.len().div_ceil(alive), "as even as can be");
            }
        }
    }
}

proptest! {
    /// A chosen policy is placed exactly when that many peers can hold it with one of them lost, and within
    /// the privacy cap exactly when the pool is wide enough for it.
    #[test]
    fn chosen_policies_are_placed_when_possible(
        (k, n) in (1..=12_u8).prop_flat_map(|n| (1..=n, Just(n))),
        alive in 0..=14_u8,
        number: u64,
    ) {
        let policy = Policy::new(k, n).unwrap();
        let most = if n == k { n } else { n - k };
        let possible = alive > 0 && u32::from(alive) * u32::from(most) >= u32::from(n);
        match plan(segment(number), policy, false, &pool(alive), NEED) {
            Ok(plan) => {
                prop_assert!(possible);
                prop_assert_eq!(plan.policy, policy);
                prop_assert!(durable(policy, &plan.homes));
                let wide = usize::from(alive) * policy.privacy_cap() >= usize::from(n);
                prop_assert_eq!(plan.exposed, !wide);
                prop_assert_eq!(plan.exposed, fullest(&plan.homes) >= usize::from(k));
            }
            Err(error) => {
                prop_assert!(!possible);
                let expected = PlaceError::TooFewHomes { policy, need: policy.homes_needed(), have: alive.into() };
                prop_assert_eq!(error, expected);
                prop_assert!(policy.homes_needed() > alive.into());
            }
        }
    }

    /// Room differs from peer to peer: no home gets more than fits, and what is placed is durable.
    #[test]
    fn no_home_gets_more_than_fits(
        rooms in proptest::collection::vec(0..4_u64, 1..10),
        (k, n) in (1..=8_u8).prop_flat_map(|n| (1..=n, Just(n))),
        automatic: bool,
        number: u64,
    ) {
        let candidates: Vec<Candidate> =
            (0..).zip(&rooms).map(|(number, room)| candidate(number, room * NEED + NEED / 2)).collect();
        let wanted = Policy::new(k, n).unwrap();
        match plan(segment(number), wanted, automatic, &candidates, NEED) {
            Ok(plan) => {
                prop_assert!(durable(plan.policy, &plan.homes));
                for (home, count) in counts(plan.homes.iter().copied()) {
                    let at = candidates.iter().position(|candidate| candidate.peer == home).unwrap();
                    prop_assert!(count as u64 <= rooms[at]);
                }
            }
            Err(_) => prop_assert!(!automatic || rooms.iter().all(|&room| room == 0)),
        }
    }

    /// Promise 4 over acknowledged homes against its definition.
    #[test]
    fn durable_agrees_with_taking_each_home_away(
        (k, n) in (1..=6_u8).prop_flat_map(|n| (1..=n, Just(n))),
        homes in proptest::collection::vec(0..5_u8, 0..=6),
    ) {
        let policy = Policy::new(k, n).unwrap();
        let stored: Vec<PeerId> = homes.into_iter().take(n.into()).map(peer).collect();
        let expected = if n == k { stored.len() == usize::from(n) } else { survives_any_loss(policy, &stored) };
        prop_assert_eq!(durable(policy, &stored), expected);
    }

    /// Homes fail one after the other while fragments are stored. Each alternate is new to the failure,
    /// within the cap, and has room; `None` comes only when no peer is left that could take it.
    #[test]
    fn alternates_keep_the_plan_s_promises(
        (k, n) in (1..=8_u8).prop_flat_map(|n| (1..=n, Just(n))),
        alive in 1..=10_u8,
        number: u64,
    ) {
        let (policy, candidates) = (Policy::new(k, n).unwrap(), pool(alive));
        let Ok(mut plan) = plan(segment(number), policy, false, &candidates, NEED) else { return Ok(()) };
        let before = fullest(&plan.homes);
        let mut failed = Vec::new();
        for index in 0..plan.homes.len() {
            failed.push(plan.homes[index]);
            for at in 0..plan.homes.len() {
                if !failed.contains(&plan.homes[at]) {
                    continue;
                }
                let Some(home) = alternate(segment(number), &plan, &failed, &candidates, NEED) else {
                    let cap = if plan.exposed { policy.durability_cap() } else { policy.privacy_cap() };
                    let counts = counts(plan.homes.iter().copied());
                    let spare = candidates.iter().find(|candidate| {
                        !failed.contains(&candidate.peer) && counts.get(&candidate.peer).is_none_or(|&count| count < cap)
                    });
                    prop_assert_eq!(spare, None);
                    return Ok(());
                };
                prop_assert!(!failed.contains(&home));
                plan.homes[at] = home;
            }
            prop_assert!(durable(policy, &plan.homes));
            prop_assert!(plan.exposed || fullest(&plan.homes) < usize::from(k));
            prop_assert!(fullest(&plan.homes) >= before.min(1));
        }
    }

    /// The integer logarithm against the platform's.
    #[test]
    fn costs_are_logarithms(draw in prop_oneof![any::<u64>(), 1..1000_u64, u64::MAX - 1000..]) {
        let expected = 64.0 - (draw.max(1) as f64).log2();
        let actual = cost(draw) as f64 / (1_u64 << 40) as f64;
        prop_assert!((actual - expected).abs() < 1e-9, "{actual} {expected}");
        prop_assert!(cost(draw) >= 1);
        prop_assert!(cost(draw) >= cost(draw.saturating_add(1)));
    }

    /// A peer that joins takes its place and moves nothing else: the others keep their order.
    #[test]
    fn a_newcomer_moves_nothing_else(frees in proptest::collection::vec(0..(1_u64 << 40), 1..20), number: u64) {
        let all: Vec<Candidate> = (0..).zip(&frees).map(|(number, &free)| candidate(number, free)).collect();
        let before = order(segment(number), &all[1..]);
        let mut after = order(segment(number), &all);
        after.retain(|candidate| candidate.peer != all[0].peer);
        prop_assert_eq!(before, after);
    }
}

/// A home fails and the next in order has no room for one more: the fragment goes to the one after, and to
/// nobody where none has room.
#[test]
fn alternates_have_room() {
    let wanted = policy("3-of-5");
    let mut candidates = pool(8);
    let plan = plan(segment(1), wanted, false, &candidates, NEED).unwrap();
    let failed = [plan.homes[0]];
    let spares: Vec<PeerId> = order(segment(1), &candidates)[5..].iter().map(|spare| spare.peer).collect();
    for spare in spares {
        assert_eq!(alternate(segment(1), &plan, &failed, &candidates, NEED), Some(spare));
        candidates.iter_mut().find(|candidate| candidate.peer == spare).unwrap().free = NEED - 1;
    }
    // Now a home takes a second fragment, which the cap of 2 allows, as long as both fit.
    for home in &plan.homes[1..] {
        assert_eq!(alternate(segment(1), &plan, &failed, &candidates, NEED), Some(*home));
        candidates.iter_mut().find(|candidate| candidate.peer == *home).unwrap().free = 2 * NEED - 1;
    }
    assert_eq!(alternate(segment(1), &plan, &failed, &candidates, NEED), None);
}

/// A pool that runs full says so, and says it apart from one with too few peers: the cure differs.
#[test]
fn full_pools_say_so() {
    let full: Vec<Candidate> = (0..5).map(|number| candidate(number, NEED - 1)).collect();
    let wanted = policy("3-of-5");
    for automatic in [false, true] {
        let refused = plan(segment(1), wanted, automatic, &full, NEED);
        assert_eq!(refused, Err(PlaceError::Full { policy: wanted, need_bytes: NEED }));
    }
    // Three of five with room for one fragment each: an automatic pool narrows, a chosen policy cannot.
    let mut mixed = full;
    for candidate in &mut mixed[..3] {
        candidate.free = NEED;
    }
    assert_eq!(plan(segment(1), wanted, true, &mixed, NEED).unwrap().policy, policy("2-of-3"));
    assert!(matches!(plan(segment(1), wanted, false, &mixed, NEED), Err(PlaceError::Full { .. })));
}

/// Disks differ tenfold. If the small ones got an equal share they would fill first and the pool with them:
/// the first place must go by free space, within 4 standard deviations.
#[test]
fn places_go_by_free_space() {
    const SEGMENTS: u32 = 20_000;
    let weights = [1, 2, 3, 4, 10];
    let candidates: Vec<Candidate> =
        (0..).zip(weights).map(|(number, weight)| candidate(number, weight * GIB)).collect();
    let total: u64 = weights.iter().sum();
    let firsts: Vec<PeerId> = (0..SEGMENTS).map(|number| order(segment(number.into()), &candidates)[0].peer).collect();
    let firsts = counts(firsts);
    for candidate in &candidates {
        let share = (candidate.free / GIB) as f64 / total as f64;
        let expected = share * f64::from(SEGMENTS);
        let deviation = (expected * (1.0 - share)).sqrt();
        assert!((firsts[&candidate.peer] as f64 - expected).abs() < 4.0 * deviation, "{firsts:?}");
    }
}

/// One candidate in each of these domains, every one with twice the room of the one before.
fn in_domains(domains: &[&str]) -> Vec<Candidate> {
    let placed = |(number, domain): (u8, &&str)| {
        let domains = Some(*domain).filter(|domain| !domain.is_empty()).map(str::to_owned).into_iter().collect();
        Candidate { domains, ..candidate(number, GIB << number) }
    };
    (0..).zip(domains).map(placed).collect()
}

/// The domain of each, where it has one, in the order for a segment.
fn domains_in_order(number: u64, candidates: &[Candidate]) -> Vec<&str> {
    let ordered = order(segment(number), candidates).into_iter();
    ordered.map(|candidate| candidate.domains.first().map_or("", String::as_str)).collect()
}

/// Two hosts with several disks each and a lone peer: one power supply must not take two fragments while a
/// third host has none. Each round names every domain once, as long as it has peers left.
#[test]
fn domains_come_before_second_places() {
    let domains = ["a", "a", "a", "b", "b", "", ""];
    let candidates = in_domains(&domains);
    for number in 0..500 {
        let ordered = domains_in_order(number, &candidates);
        let round = |range: std::ops::Range<usize>| {
            let mut round = ordered[range].to_vec();
            round.sort_unstable();
            round
        };
        assert_eq!(round(0..4), ["", "", "a", "b"]);
        assert_eq!(round(4..6), ["a", "b"]);
        assert_eq!(round(6..7), ["a"]);
    }
}

/// A room with two hosts of two disks each, another with one host, and a lone peer. One fuse takes a room, one power supply
/// a host: rooms come first, and within a room its hosts.
#[test]
fn rooms_come_before_hosts_and_hosts_before_peers() {
    let domains = ["attic/a", "attic/a", "attic/b", "attic/b", "cellar/c", "cellar/c", ""];
    let candidates = in_domains(&domains);
    for number in 0..500 {
        let ordered = domains_in_order(number, &candidates);
        let round = |range: std::ops::Range<usize>, depth| {
            let mut round: Vec<&str> = ordered[range]
                .iter()
                .map(|domain| if depth == 0 { domain.split('/').next().unwrap() } else { *domain })
                .collect();
            round.sort_unstable();
            round
        };
        assert_eq!(round(0..3, 0), ["", "attic", "cellar"]);
        assert_eq!(round(3..5, 0), ["attic", "cellar"]);
        let attic: Vec<&&str> = ordered.iter().filter(|domain| domain.starts_with("attic")).collect();
        assert_ne!(attic[0], attic[1], "both hosts before a second disk of one");
        assert_eq!(round(5..7, 1)[0].split('/').next(), Some("attic"));
    }
}

proptest! {
    /// Peers have disks in several domains: at home, in an enclosure, on a NAS that others use too. Danger: fragments of a
    /// segment at two peers whose disks fail together, while a third one shares nothing with either. Expectation: those that come
    /// first share no room with each other, and whoever comes later shares one with them; a write to no more peers
    /// than that is spread over as many domains. Nobody is lost or named twice.
    #[test]
    fn disks_that_fail_together_come_after_those_that_do_not(
        places in proptest::collection::vec(proptest::collection::btree_set("[abc](/[xy])?", 0..3), 1..10),
        number: u64,
    ) {
        let candidates: Vec<Candidate> = (0..)
            .zip(&places)
            .map(|(number, domains)| Candidate { domains: domains.iter().cloned().collect(), ..candidate(number, GIB) })
            .collect();
        let ordered = order(segment(number), &candidates);
        let shares = |at: usize| ordered[..at].iter().any(|earlier| earlier.shares_room(ordered[at]));
        let apart = (0..ordered.len()).find(|&at| shares(at)).unwrap_or(ordered.len());
        for later in &ordered[apart..] {
            prop_assert!(ordered[..apart].iter().any(|earlier| earlier.shares_room(later)));
        }
        let mut all: Vec<PeerId> = ordered.iter().map(|candidate| candidate.peer).collect();
        let n = u8::try_from(apart).unwrap();
        let homes = plan(segment(number), Policy::new(n, n).unwrap(), false, &candidates, NEED).unwrap().homes;
        prop_assert_eq!(&homes, &all[..apart]);
        all.sort_unstable();
        all.dedup();
        prop_assert_eq!(all.len(), candidates.len());
    }
}

/// Two peers with disks of their own and a share of one NAS each, two without. One NAS that fails takes one fragment of two:
/// the second of its peers comes after all others, though it has most room.
#[test]
fn a_shared_nas_takes_one_fragment() {
    let mut candidates = pool(4);
    for (number, domains) in [(0, ["attic", "nas"]), (1, ["cellar", "nas"])] {
        candidates[number].domains = domains.map(str::to_owned).into();
        candidates[number].free = 64 * GIB;
    }
    for number in 0..200 {
        let ordered = order(segment(number), &candidates);
        assert_eq!(ordered[3].domains.last().map(String::as_str), Some("nas"));
    }
}

/// One peer with three disks has no second home, and losing a disk must not lose its objects. With a second member in
/// reach the disks count no more: a peer is lost whole.
#[test]
fn disks_of_a_lone_peer_take_the_place_of_members() {
    let alone = |disks| [Candidate { disks, ..candidate(0, GIB) }];
    for (disks, expected) in [(0, "1-of-1"), (1, "1-of-1"), (2, "2-of-4"), (3, "2-of-3"), (5, "3-of-5")] {
        let wanted = Policy::auto_over(1, disks.into());
        assert_eq!(wanted, policy(expected));
        let plan = plan(segment(1), wanted, true, &alone(disks), NEED).unwrap();
        assert_eq!((plan.policy, &plan.homes, plan.exposed), (wanted, &vec![peer(0); wanted.n.into()], true));
        // All of them, or a disk that fails may take the object.
        assert!(plan.durable(&plan.homes));
        assert!(!plan.durable(&plan.homes[1..]));
    }
    assert_eq!(plan(segment(1), policy("4-of-6"), true, &alone(2), NEED).unwrap().policy, policy("2-of-4"), "narrows");
    assert_eq!(Policy::auto_over(5, 3), policy("3-of-5"));
    let two: Vec<Candidate> = (0..2).map(|number| Candidate { disks: 3, ..candidate(number, GIB) }).collect();
    assert_eq!(plan(segment(1), policy("2-of-3"), true, &two, NEED).unwrap().policy, policy("1-of-2"));
    let room = 2 * NEED;
    let full = [Candidate { disks: 3, ..candidate(0, room) }];
    assert!(plan(segment(1), policy("2-of-3"), false, &full, NEED).is_err(), "two fragments fit, not three");
}

proptest! {
    /// An overfull member gives so much that it is no more overfull; and what is given, put where there is room,
    /// makes nobody overfull who then gives in turn: a level pool moves nothing.
    #[test]
    fn surplus_levels_a_pool(members in proptest::collection::vec((1..1000_u64, 0..=100_u64), 1..12)) {
        let mut fills: Vec<Fill> = members
            .iter()
            .map(|(capacity, percent)| Fill { used: capacity * GIB / 100 * percent, free: capacity * GIB / 100 * (100 - percent) })
            .collect();
        let is_level = |fills: &[Fill]| surplus_bytes(fills).iter().all(|&bytes| bytes == 0);
        for _ in 0..100 {
            let surplus = surplus_bytes(&fills);
            for (at, bytes) in surplus.into_iter().enumerate() {
                prop_assert!(bytes <= fills[at].used);
                fills[at].used -= bytes;
                fills[at].free += bytes;
                // As placement does: in proportion to what is free, and never back.
                let free: u128 = (0..fills.len()).filter(|&other| other != at).map(|other| u128::from(fills[other].free)).sum();
                for other in (0..fills.len()).filter(|&other| other != at) {
                    let share = (u128::from(bytes) * u128::from(fills[other].free) / free.max(1)) as u64;
                    fills[other].used += share;
                    fills[other].free -= share;
                }
            }
        }
        prop_assert!(is_level(&fills), "{:?}", fills);
    }
}

/// The hysteresis by hand: ten points above the mean are borne, and what is above is brought half-way back.
#[test]
fn surplus_by_hand() {
    let fill = |used, free| Fill { used, free };
    assert_eq!(surplus_bytes(&[]), [0_u64; 0]);
    assert_eq!(surplus_bytes(&[fill(90, 10)]), [0], "alone");
    assert_eq!(surplus_bytes(&[fill(60, 40), fill(40, 60)]), [0, 0], "ten points above 50");
    assert_eq!(surplus_bytes(&[fill(700, 300), fill(300, 700)]), [150, 0], "from 70 to 55 %");
    assert_eq!(surplus_bytes(&[fill(700, 300), fill(0, u64::MAX)]), [0, 0], "one without bounds is no measure");
    assert_eq!(surplus_bytes(&[fill(0, 0), fill(5, 0)]), [0, 0]);
}

/// Peers of different versions and platforms must agree on the order, or two of them repair the same segment.
/// The values were also computed apart from this code, with 60 decimal digits. Never edit: a new rule needs a new
/// context string.
#[test]
fn golden_placement() {
    let frees = [GIB, 7 * GIB, 3 * GIB, GIB, 0, 2 * GIB];
    let candidates: Vec<Candidate> = (0..).zip(frees).map(|(number, free)| candidate(number, free)).collect();
    let orders: Vec<Vec<usize>> = (0..4)
        .map(|number| {
            let ordered = order(segment(number), &candidates);
            ordered.iter().map(|found| candidates.iter().position(|all| all == *found).unwrap()).collect()
        })
        .collect();
    assert_eq!(orders, [[1, 3, 2, 5, 0, 4], [0, 1, 5, 2, 3, 4], [1, 5, 2, 3, 0, 4], [2, 1, 3, 5, 0, 4]]);
    assert_eq!([1, 1 << 63, u64::MAX, 0xdead_beef_dead_beef].map(cost), [64 << 40, 1 << 40, 1, 221_200_055_573]);
}
