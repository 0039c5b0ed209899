//! What a seed's world is like: drawn from the seed, so that a number is all it takes to see it again.

use std::collections::BTreeSet;
use std::rc::Rc;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::link::Weather;
use super::workload::Taste;
use super::world::{World, peer_id};
use crate::id::PeerId;
use crate::register::{Config, HISTORY_WRITES};

/// A world's character.
#[derive(Debug, Clone)]
pub struct Scenario {
    /// Voters at the beginning.
    pub voters: usize,
    /// Learners at the beginning.
    pub learners: usize,
    /// Clients.
    pub clients: usize,
    /// Operations, all clients together.
    pub operations: u64,
    /// What they do.
    pub taste: Taste,
    /// The network.
    pub weather: Weather,
    /// How many writes a record lists (R5).
    pub history_writes: usize,
    /// Pause between two crashes, in milliseconds; zero for none.
    pub crash_ms: u64,
    /// Whether who crashed is back at once.
    pub quick_restarts: bool,
    /// Longest pause between two comparisons of a peer's copy with another's, in milliseconds.
    pub level_ms: u64,
    /// Pause between two partitions.
    pub partition_ms: u64,
    /// Pause between two clock jumps.
    pub jump_ms: u64,
    /// Pause between two attempts to change the voters.
    pub change_ms: u64,
    /// Pause between two attempts to collect tombstones.
    pub collect_ms: u64,
    /// Whether a voter loses its disk and is replaced.
    pub disk_loss: bool,
}

impl Scenario {
    /// The scenario of a seed.
    pub fn of(seed: u64) -> Self {
        // Not the world's own stream, so that what is drawn here does not depend on what happens there.
        let mut rng = SmallRng::seed_from_u64(seed ^ 0x5eed);
        let mut often = |per_mille: u32, range: std::ops::Range<u64>| {
            let value = rng.random_range(range);
            if rng.random_range(0..1000) < per_mille { value } else { 0 }
        };
        let voters = [1, 2, 3, 3, 3, 3, 3, 3, 5, 5][often(1000, 0..10) as usize];
        let disk_loss = voters >= 3 && often(80, 1..2) == 1;
        let hot = often(300, 1..2) == 1;
        let mut scenario = Self {
            voters,
            learners: often(700, 1..3) as usize,
            clients: often(1000, 3..7) as usize,
            operations: often(1000, 20..60),
            taste: Taste {
                keys: if hot { 1 } else { often(1000, 2..5) },
                deletes: often(800, 50..400),
                conditional: often(800, 50..400),
                reads: often(900, 50..300),
                lists: often(600, 50..200),
                uploads: often(250, 30..150),
                buckets: often(250, 100..300),
                pause_ms: [2, 20, 100, 400][often(1000, 0..4) as usize],
            },
            weather: Weather {
                loss: often(600, 1..150) as u32,
                doubled: often(600, 1..200) as u32,
                slow: often(600, 1..150) as u32,
            },
            history_writes: [2, 3, 8, HISTORY_WRITES][often(1000, 0..4) as usize],
            crash_ms: often(700, 50..1500),
            quick_restarts: false,
            level_ms: [20, 500, 3_000, 3_000][often(1000, 0..4) as usize],
            partition_ms: often(600, 100..2000),
            jump_ms: often(500, 100..2000),
            change_ms: if disk_loss { 0 } else { often(450, 50..1500) },
            collect_ms: often(600, 5..300),
            disk_loss,
        };
        match often(1000, 0..10) {
            // One key, and peers that are hardly ever up for the length of an update.
            0 | 1 => {
                scenario.taste.keys = 1;
                scenario.taste.pause_ms = 10;
                scenario.weather.slow = often(1000, 50..300) as u32;
                scenario.crash_ms = often(1000, 3..40);
                scenario.quick_restarts = true;
            }
            // Voters that change all the time, and peers that do not hear of it.
            2 | 3 if !disk_loss => {
                scenario.learners = 2;
                scenario.taste.pause_ms = 200;
                scenario.level_ms = 20_000;
                scenario.change_ms = often(1000, 5..80);
                scenario.partition_ms = often(1000, 50..600);
                scenario.collect_ms = often(700, 2..30);
            }
            _ => {}
        }
        scenario
    }

    /// Puts the peers into the world.
    pub fn populate(&self, world: &Rc<World>) {
        let voters: BTreeSet<PeerId> = (0..self.voters).map(peer_id).collect();
        let first = Config { epoch: 1, voters, outgoing: None };
        for _ in 0..self.voters + self.learners {
            let node = world.add_node(first.clone());
            if self.jump_ms > 0 {
                node.skew_ms.set(world.draw(0..2_000).cast_signed() - 1_000);
            }
        }
    }
}
