//! What befalls the peers: crashes, partitions, clocks that jump, disks that are lost; and, as in life, upkeep that
//! goes on meanwhile: voters change, tombstones are collected.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::rc::Rc;

use bytes::Bytes;

use super::disk::Disk;
use super::fault::{Fault, is_planted};
use super::peer::Peer;
use super::scenario::Scenario;
use super::world::{MS, Node, SECOND, World};
use crate::id::PeerId;

/// Starts everything the scenario has in store; it stops once `calm`.
pub fn unleash(world: &Rc<World>, scenario: &Scenario, calm: &Rc<Cell<bool>>) {
    let quick = scenario.quick_restarts;
    repeat(world, scenario.crash_ms, calm, move |world| async move { crash_one(&world, &world.up(), quick).await });
    repeat(world, scenario.partition_ms, calm, |world| async move { part(&world).await });
    repeat(world, scenario.jump_ms, calm, |world| async move { set_a_clock(&world) });
    repeat(world, scenario.change_ms, calm, |world| async move { change_voters(&world) });
    repeat(world, 4 * scenario.change_ms, calm, |world| async move {
        // In the middle of a change.
        let joiners: Vec<Peer> =
            world.up().into_iter().filter(|peer| peer.config().joiners().contains(&peer.me())).collect();
        crash_one(&world, &joiners, false).await;
    });
    repeat(world, scenario.collect_ms, calm, |world| async move { collect_something(&world) });
    if scenario.disk_loss {
        let (world, calm) = (Rc::clone(world), Rc::clone(calm));
        let voters = scenario.voters;
        world.exec.clone().spawn(0, async move { lose_a_disk(&world, voters, &calm).await });
    }
}

fn repeat<F: Future<Output = ()> + 'static>(
    world: &Rc<World>,
    pause_ms: u64,
    calm: &Rc<Cell<bool>>,
    act: impl Fn(Rc<World>) -> F + 'static,
) {
    if pause_ms == 0 {
        return;
    }
    let (world, calm) = (Rc::clone(world), Rc::clone(calm));
    world.exec.clone().spawn(0, async move {
        loop {
            world.exec.sleep(world.draw(0..2 * pause_ms * MS)).await;
            if calm.get() {
                return;
            }
            act(Rc::clone(&world)).await;
        }
    });
}

/// Stops one of these peers and starts it again, sometimes at once.
async fn crash_one(world: &Rc<World>, peers: &[Peer], quick: bool) {
    let Some(Peer { node, .. }) = world.pick(peers) else { return };
    world.crash(&node);
    let down = if quick || world.chance(500) { world.draw(0..10 * MS) } else { world.draw(0..2 * SECOND) };
    world.exec.sleep(down).await;
    if !node.retired.get() && node.life.borrow().is_none() {
        world.start(&node);
    }
}

/// Cuts some peers off for a while, in one direction or both.
async fn part(world: &Rc<World>) {
    let count = world.nodes.borrow().len();
    let inside: Vec<bool> = (0..count).map(|_| world.chance(400)).collect();
    let one_way = world.chance(400);
    {
        let mut links = world.links.borrow_mut();
        for from in 0..count {
            for to in 0..count {
                if inside[from] && !inside[to] {
                    links.cut(from, to);
                    if !one_way {
                        links.cut(to, from);
                    }
                }
            }
        }
        let mut stats = world.stats.borrow_mut();
        stats.partitions += 1;
        stats.one_way += u64::from(one_way);
    }
    world.log(|| format!("partition{}: {inside:?}", if one_way { " (one way)" } else { "" }));
    world.exec.sleep(world.draw(10 * MS..3 * SECOND)).await;
    world.links.borrow_mut().mend();
    world.log(|| "partition ends".to_owned());
}

/// Sets a clock: a little off mostly, by up to hours now and then.
fn set_a_clock(world: &Rc<World>) {
    let nodes = world.nodes.borrow().clone();
    let Some(node) = world.pick(&nodes) else { return };
    let range = if world.chance(100) { 7_200_000 } else { 3_000 };
    node.skew_ms.set(world.draw(0..2 * range).cast_signed() - range.cast_signed());
    world.stats.borrow_mut().clock_jumps += 1;
    world.log(|| format!("clock of peer {} off by {} ms", node.number, node.skew_ms.get()));
}

/// Has one peer, or two at once, move the voters towards some set.
fn change_voters(world: &Rc<World>) {
    for _ in 0..=u64::from(world.chance(300)) {
        let up = world.up();
        let Some(driver) = world.pick(&up) else { return };
        let mut target = driver.config().voters.clone();
        let everyone: Vec<PeerId> = world.nodes.borrow().iter().map(|node| node.id).collect();
        // One member more, one less, or one for another.
        let kind = world.draw(0..3);
        if kind != 1
            && let Some(joiner) = world.pick(&everyone)
        {
            target.insert(joiner);
        }
        if kind != 0 {
            let voters: Vec<PeerId> = driver.config().voters.iter().copied().collect();
            if let Some(leaver) = world.pick(&voters) {
                target.remove(&leaver);
            }
        }
        if (1..=5).contains(&target.len()) {
            drive(world, driver, target);
        }
    }
}

fn drive(world: &Rc<World>, driver: Peer, target: BTreeSet<PeerId>) {
    let owner = driver.life.owner;
    world.log(|| format!("peer {} moves the voters towards {:?}", driver.node.number, names(&target)));
    world.exec.spawn(owner, async move {
        for _ in 0..2 {
            // What a driver leaves half done, another finishes.
            let _ = driver.change_voters(&target).await;
        }
    });
}

fn names(peers: &BTreeSet<PeerId>) -> Vec<u8> {
    peers.iter().map(|peer| peer.as_bytes()[0] - 1).collect()
}

/// Has a voter collect a tombstone it holds.
fn collect_something(world: &Rc<World>) {
    let Some(peer) = world.pick(&world.up()) else { return };
    let tombstones: Vec<Bytes> = peer.stored(|stored| {
        stored.accepted.iter().filter(|(_, held)| held.record.value.is_none()).map(|(key, _)| key.clone()).collect()
    });
    if let Some(key) = world.pick(&tombstones) {
        let owner = peer.life.owner;
        world.exec.spawn(owner, async move { peer.collect_tombstone(&key).await });
    }
}

/// A voter's disk is lost for good; the machine comes back under a new id and takes the old one's place.
async fn lose_a_disk(world: &Rc<World>, voters: usize, calm: &Cell<bool>) {
    world.exec.sleep(world.draw(0..SECOND)).await;
    let node: Rc<Node> = Rc::clone(&world.nodes.borrow()[world.draw(0..voters as u64) as usize]);
    world.crash(&node);
    world.stats.borrow_mut().disks_lost += 1;
    if is_planted(Fault::LostDiskVotes) {
        *node.disk.borrow_mut() = Disk::default();
        world.start(&node);
        return;
    }
    node.retired.set(true);
    world.log(|| format!("the disk of peer {} is lost", node.number));
    let joiner = world.add_node(node.initial.clone());
    while !calm.get() {
        world.exec.sleep(world.draw(100 * MS..SECOND)).await;
        let Some(driver) = world.pick(&world.up()) else { continue };
        let mut target = driver.config().voters.clone();
        target.insert(joiner.id);
        target.remove(&node.id);
        if driver.config().voters == target && driver.config().outgoing.is_none() {
            continue;
        }
        drive(world, driver, target);
    }
}
