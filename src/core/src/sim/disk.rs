//! A disk that loses what was not synced, and may keep some of it: the worst a crash can do and the best.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

use crate::hlc::{Ballot, Stamp};
use crate::register::{Accepted, Config, floor_range};

/// Ranges of collection floors in the simulation: so few that keys share one (R7).
const RANGES: usize = 3;

/// Everything a peer keeps.
#[derive(Debug, Clone, Default)]
pub struct Stored {
    /// What it accepted as a voter.
    pub accepted: BTreeMap<Bytes, Accepted>,
    /// What it heard as a learner.
    pub followed: BTreeMap<Bytes, Accepted>,
    /// Collection floors by range of keys (R7).
    pub floors: BTreeMap<usize, Ballot>,
    /// The clock ceiling (R3).
    pub ceiling: Stamp,
    /// The adopted configuration (R8).
    pub config: Option<Config>,
}

/// One change of what is stored.
#[derive(Debug, Clone)]
pub enum Write {
    /// A register accepted.
    Accept(Bytes, Accepted),
    /// A register heard of.
    Follow(Bytes, Accepted),
    /// A register no longer accepted: collected.
    Forget(Bytes),
    /// Acceptor state emptied: a voter that joins.
    Clear,
    /// A collection floor raised.
    Floor(usize, Ballot),
    /// The clock ceiling raised.
    Ceiling(Stamp),
    /// A configuration adopted.
    Config(Config),
}

/// The range of collection floors a key is in.
pub fn range_of(key: &[u8]) -> usize {
    floor_range(key) % RANGES
}

impl Stored {
    /// The collection floor of a key.
    pub fn floor_of(&self, key: &[u8]) -> Ballot {
        self.floors.get(&range_of(key)).copied().unwrap_or_default()
    }

    fn apply(&mut self, write: &Write) {
        match write {
            Write::Accept(key, accepted) => {
                self.accepted.insert(key.clone(), accepted.clone());
            }
            Write::Follow(key, accepted) => {
                self.followed.insert(key.clone(), accepted.clone());
            }
            Write::Forget(key) => {
                self.accepted.remove(key);
            }
            Write::Clear => self.accepted.clear(),
            Write::Floor(range, ballot) => {
                let floor = self.floors.entry(*range).or_default();
                *floor = (*floor).max(*ballot);
            }
            Write::Ceiling(stamp) => self.ceiling = self.ceiling.max(*stamp),
            Write::Config(config) => self.config = Some(config.clone()),
        }
    }
}

/// A batch on its way to the platter.
struct Pending {
    id: u64,
    batch: Vec<Write>,
    shown: bool,
}

/// The disk of one peer.
#[derive(Default)]
pub struct Disk {
    shown: Stored,
    durable: Stored,
    pending: VecDeque<Pending>,
    last: u64,
}

impl Disk {
    /// What readers see.
    pub fn shown(&self) -> &Stored {
        &self.shown
    }

    /// Hands a batch to the disk. It is shown once [`synced`](Self::synced), unless it need not be durable.
    pub fn write(&mut self, batch: Vec<Write>, show_now: bool) -> u64 {
        if show_now {
            self.only_show(&batch);
        }
        self.last += 1;
        self.pending.push_back(Pending { id: self.last, batch, shown: show_now });
        self.last
    }

    /// Shows a batch and never stores it: for planted faults.
    pub fn only_show(&mut self, batch: &[Write]) {
        for write in batch {
            self.shown.apply(write);
        }
    }

    /// A sync has come back: this batch and all handed over before it are durable.
    pub fn synced(&mut self, id: u64) {
        while let Some(next) = self.pending.pop_front_if(|next| next.id <= id) {
            for write in &next.batch {
                self.durable.apply(write);
                if !next.shown {
                    self.shown.apply(write);
                }
            }
        }
    }

    /// Power fails. Of what was under way the first `kept` batches happen to have reached the platter.
    pub fn crash(&mut self, kept: usize) {
        for next in self.pending.drain(..).take(kept) {
            next.batch.iter().for_each(|write| self.durable.apply(write));
        }
        self.shown = self.durable.clone();
    }

    /// How many batches are under way.
    pub fn under_way(&self) -> usize {
        self.pending.len()
    }
}
