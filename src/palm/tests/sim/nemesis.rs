//! What goes wrong: machines crash and come back, links break in one or both directions, stall or slow down, and clocks
//! jump; by the seed's dice, a few at a time.

use std::collections::BTreeMap;
use std::time::Duration;

use rand::Rng;
use rand::rngs::SmallRng;
use rand::seq::SliceRandom;
use turmoil::Sim;

use crate::os;
use crate::world::{World, name};

/// Pauses between its deeds.
const PAUSE_MS: std::ops::Range<u64> = 100..1_500;
/// How long a crashed machine stays off.
const OFF_MS: std::ops::Range<u64> = 50..5_000;
/// How far a clock jumps, either way.
const JUMP_MS: i64 = 60 * 60 * 1000;
/// The slowest a link becomes.
const SLOWEST_LINK_MS: u64 = 400;
/// How fast it is otherwise.
const LINK_MS: u64 = 1;

/// What was done, for the figures.
#[derive(Debug, Default, Clone, Copy)]
pub struct Deeds {
    pub crashes: usize,
    pub partitions: usize,
    pub one_way: usize,
    pub holds: usize,
    pub slow_links: usize,
    pub clock_jumps: usize,
}

/// The one who does it.
pub struct Nemesis {
    dice: SmallRng,
    machines: usize,
    next_at: Duration,
    /// Machines that are off, and until when.
    off: BTreeMap<usize, Duration>,
    pub deeds: Deeds,
}

impl Nemesis {
    pub fn new(dice: SmallRng, machines: usize) -> Self {
        Self { dice, machines, next_at: Duration::ZERO, off: BTreeMap::new(), deeds: Deeds::default() }
    }

    /// Does what is due.
    pub fn act(&mut self, sim: &mut Sim<'_>, world: &World) {
        let now = sim.elapsed();
        for machine in self.off.extract_if(.., |_, until| *until <= now).map(|(machine, _)| machine).collect::<Vec<_>>()
        {
            switch_on(sim, world, machine);
        }
        if now < self.next_at {
            return;
        }
        self.next_at = now + Duration::from_millis(self.dice.random_range(PAUSE_MS));
        match self.dice.random_range(0..10) {
            0 | 1 => self.crash(sim, world),
            2 => self.partition(sim, world),
            3 => self.one_way(sim, world),
            4 => self.hold(sim, world),
            5 => self.slow_down(sim, world),
            6 => self.jump(world),
            _ => self.mend_links(sim, world),
        }
    }

    /// Mends everything but the clocks.
    pub fn relent(&mut self, sim: &mut Sim<'_>, world: &World) {
        self.mend_links(sim, world);
        for machine in std::mem::take(&mut self.off).into_keys() {
            switch_on(sim, world, machine);
        }
    }

    fn crash(&mut self, sim: &mut Sim<'_>, world: &World) {
        let machine = self.dice.random_range(0..self.machines);
        if self.off.contains_key(&machine) {
            return;
        }
        world.log(&format!("machine {machine} crashes"));
        sim.crash(name(machine));
        world.disks[machine].crash();
        self.off.insert(machine, sim.elapsed() + Duration::from_millis(self.dice.random_range(OFF_MS)));
        self.deeds.crashes += 1;
    }

    /// Two sides, neither empty.
    fn sides(&mut self) -> (Vec<usize>, Vec<usize>) {
        let mut machines: Vec<usize> = (0..self.machines).collect();
        machines.shuffle(&mut self.dice);
        let far = machines.split_off(self.dice.random_range(1..self.machines));
        (machines, far)
    }

    fn partition(&mut self, sim: &mut Sim<'_>, world: &World) {
        let (near, far) = self.sides();
        world.log(&format!("{near:?} and {far:?} are cut off from each other"));
        for_pairs(&near, &far, |a, b| sim.partition(name(a), name(b)));
        self.deeds.partitions += 1;
    }

    fn one_way(&mut self, sim: &mut Sim<'_>, world: &World) {
        let (near, far) = self.sides();
        world.log(&format!("{near:?} cannot send to {far:?}"));
        for_pairs(&near, &far, |a, b| sim.partition_oneway(name(a), name(b)));
        self.deeds.one_way += 1;
    }

    fn hold(&mut self, sim: &mut Sim<'_>, world: &World) {
        let (near, far) = self.sides();
        world.log(&format!("packets between {near:?} and {far:?} stall"));
        for_pairs(&near, &far, |a, b| sim.hold(name(a), name(b)));
        self.deeds.holds += 1;
    }

    fn slow_down(&mut self, sim: &mut Sim<'_>, world: &World) {
        let (near, far) = self.sides();
        let ms = self.dice.random_range(LINK_MS..SLOWEST_LINK_MS);
        world.log(&format!("{near:?} and {far:?} are {ms} ms apart"));
        for_pairs(&near, &far, |a, b| sim.set_link_latency(name(a), name(b), Duration::from_millis(ms)));
        self.deeds.slow_links += 1;
    }

    fn jump(&mut self, world: &World) {
        if world.eager && !world.trash.is_zero() {
            // The ledger's clock stands still for as long as one was ahead, and nothing in the trash gets older.
            return;
        }
        let machine = self.dice.random_range(0..self.machines);
        let ahead_ms = self.dice.random_range(-JUMP_MS..JUMP_MS);
        world.log(&format!("clock of machine {machine} is off by {ahead_ms} ms"));
        os::skew(machine, ahead_ms);
        self.deeds.clock_jumps += 1;
    }

    /// Releasing a link mends it whatever was wrong with it, and delivers what it held.
    fn mend_links(&mut self, sim: &mut Sim<'_>, world: &World) {
        world.log("links are mended");
        let machines: Vec<usize> = (0..self.machines).collect();
        for_pairs(&machines, &machines, |a, b| {
            if a < b {
                sim.release(name(a), name(b));
                sim.set_link_latency(name(a), name(b), Duration::from_millis(LINK_MS));
            }
        });
    }
}

fn switch_on(sim: &mut Sim<'_>, world: &World, machine: usize) {
    world.log(&format!("machine {machine} is switched on"));
    sim.bounce(name(machine));
}

fn for_pairs(near: &[usize], far: &[usize], mut each: impl FnMut(usize, usize)) {
    for &a in near {
        for &b in far {
            each(a, b);
        }
    }
}
