//! Links that lose, double, delay and reorder messages, and partitions in one direction or both.

use std::collections::BTreeSet;

use rand::Rng;
use rand::rngs::SmallRng;

use super::exec::Micros;

/// How bad the network is.
#[derive(Debug, Clone, Copy)]
pub struct Weather {
    /// Messages lost, per thousand.
    pub loss: u32,
    /// Messages delivered twice, per thousand.
    pub doubled: u32,
    /// Messages that take up to a second instead of milliseconds, per thousand.
    pub slow: u32,
}

impl Weather {
    /// Nothing goes wrong.
    pub const CALM: Self = Self { loss: 0, doubled: 0, slow: 0 };
}

/// All links between peers, by number.
#[derive(Debug)]
pub struct Links {
    /// How bad it is now.
    pub weather: Weather,
    cut: BTreeSet<(usize, usize)>,
}

impl Links {
    /// Whole links.
    pub fn new(weather: Weather) -> Self {
        Self { weather, cut: BTreeSet::new() }
    }

    /// Cuts one direction.
    pub fn cut(&mut self, from: usize, to: usize) {
        self.cut.insert((from, to));
    }

    /// Mends everything.
    pub fn mend(&mut self) {
        self.cut.clear();
    }

    /// The delays of the copies that arrive: none, one or two.
    pub fn delays(&self, rng: &mut SmallRng, from: usize, to: usize) -> Vec<Micros> {
        if from == to {
            return vec![rng.random_range(1..50)];
        }
        if self.cut.contains(&(from, to)) || rng.random_range(0..1000) < self.weather.loss {
            return Vec::new();
        }
        let copies = 1 + usize::from(rng.random_range(0..1000) < self.weather.doubled);
        (0..copies)
            .map(|_| {
                let slow = rng.random_range(0..1000) < self.weather.slow;
                if slow { rng.random_range(5_000..1_000_000) } else { rng.random_range(100..3_000) }
            })
            .collect()
    }
}
