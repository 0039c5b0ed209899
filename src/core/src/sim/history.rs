//! What clients did and saw, in the order it happened, and what befell the peers meanwhile.

use std::fmt::Write;

use bytes::Bytes;

use super::exec::Micros;
use crate::hlc::Ballot;
use crate::listing::Item;

/// A written value: unique, with two marks in the lowest bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Value(pub u64);

impl Value {
    /// Of a bucket: it is being deleted. Of an upload: it is being completed.
    pub const MARK: u64 = 1;
    /// Of an object: it points to a part.
    pub const MULTIPART: u64 = 2;

    /// The value as stored.
    pub fn bytes(self) -> Bytes {
        Bytes::copy_from_slice(&self.0.to_le_bytes())
    }

    /// A stored value.
    pub fn of(bytes: &[u8]) -> Self {
        Self(bytes.try_into().map_or(0, u64::from_le_bytes))
    }

    /// Whether it carries a mark.
    pub fn has(self, mark: u64) -> bool {
        self.0 & mark != 0
    }
}

/// An operation on one register. What it does to a state is [`Op::effect`], for the peer and for the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    /// Look.
    Read,
    /// Write, whatever is there.
    Put(Value),
    /// Write where nothing is: `If-None-Match: *`.
    Create(Value),
    /// Replace just this: `If-Match`. A peer compares versions, the model values: they stand for each other (R1).
    Replace(Value, Value),
    /// Replace whatever is there; nothing where nothing is.
    Touch(Value),
    /// Replace a marked value.
    Lift(Value),
    /// Delete what is there.
    Delete,
    /// Delete just this.
    DeleteOnly(Value),
    /// Delete unless it is marked.
    DeleteUnmarked,
}

impl Op {
    /// What it writes over a state (`None` inside: a tombstone); `None` when it changes nothing.
    #[expect(clippy::option_option, reason = "whether it writes, and what: both are said")]
    pub fn effect(self, state: Option<Value>) -> Option<Option<Value>> {
        let marked = state.is_some_and(|value| value.has(Value::MARK));
        match self {
            Self::Put(value) => Some(Some(value)),
            Self::Create(value) if state.is_none() => Some(Some(value)),
            Self::Replace(expected, value) if state == Some(expected) => Some(Some(value)),
            Self::Touch(value) if state.is_some() => Some(Some(value)),
            Self::Lift(value) if marked => Some(Some(value)),
            Self::Delete if state.is_some() => Some(None),
            Self::DeleteOnly(expected) if state == Some(expected) => Some(None),
            Self::DeleteUnmarked if state.is_some() && !marked => Some(None),
            _ => None,
        }
    }

    /// A name for the figures.
    pub fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Put(_) => "put",
            Self::Create(_) => "create",
            Self::Replace(..) => "replace",
            Self::Touch(_) | Self::Lift(_) => "mark",
            Self::Delete | Self::DeleteOnly(_) | Self::DeleteUnmarked => "delete",
        }
    }
}

/// What a client was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// The state the operation decided on.
    pub state: Option<Value>,
    /// The version of the state after it (R1).
    pub version: Ballot,
    /// Whether it wrote.
    pub wrote: bool,
}

/// How an operation ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome<T> {
    /// The client was told this.
    Ok(T),
    /// Nothing was done.
    Failed,
    /// Nobody knows: it may take effect at any later time, or never.
    Unknown,
}

/// An operation on one register.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The register.
    pub key: Bytes,
    /// What.
    pub op: Op,
    /// Place of its call in the order of all calls and answers.
    pub called: usize,
    /// Place of its answer.
    pub returned: Option<usize>,
    /// How it ended.
    pub outcome: Outcome<Seen>,
}

/// A page asked for.
#[derive(Debug, Clone)]
pub struct Listing {
    /// Every register key on it begins so.
    pub prefix: Bytes,
    /// Where it starts.
    pub start: Bytes,
    /// Whether keys were grouped by `/`.
    pub grouped: bool,
    /// How many lines at most.
    pub limit: usize,
    /// Place of its call.
    pub called: usize,
    /// Place of its answer.
    pub returned: Option<usize>,
    /// Lines, and where the next page starts.
    pub outcome: Outcome<(Vec<Item>, Option<Bytes>)>,
}

/// Everything that happened.
#[derive(Default)]
pub struct History {
    /// Operations on registers, in the order of their calls.
    pub entries: Vec<Entry>,
    /// Pages, likewise.
    pub listings: Vec<Listing>,
    /// Whether to write everything down for a reader.
    pub verbose: bool,
    text: String,
    events: usize,
}

impl History {
    /// The next place in the order of all calls and answers.
    pub fn event(&mut self) -> usize {
        self.events += 1;
        self.events
    }

    /// Writes something down, if anyone will read it.
    pub fn note(&mut self, now: Micros, text: impl FnOnce() -> String) {
        if self.verbose {
            // Writing to a string cannot fail.
            let _ = writeln!(self.text, "{:>10.3} ms  {}", now as f64 / 1000.0, text());
        }
    }

    /// What was written down.
    pub fn text(&self) -> &str {
        &self.text
    }
}

/// A register's name for a reader.
pub fn name_of(key: &[u8]) -> String {
    String::from_utf8_lossy(key).replace('\0', "|")
}

/// What happened, counted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stats {
    /// Seeds run.
    pub seeds: u64,
    /// Operations by kind and outcome.
    pub operations: std::collections::BTreeMap<(&'static str, &'static str), u64>,
    /// Peers crashed.
    pub crashes: u64,
    /// Disks lost.
    pub disks_lost: u64,
    /// Partitions made, of which one-way.
    pub partitions: u64,
    /// Those in one direction only.
    pub one_way: u64,
    /// Clocks set to another time.
    pub clock_jumps: u64,
    /// Messages sent.
    pub messages: u64,
    /// Messages lost.
    pub lost: u64,
    /// Messages doubled.
    pub doubled: u64,
    /// Configurations chosen.
    pub changes: u64,
    /// Joint phases taken back.
    pub given_up: u64,
    /// Late accepts taken in bulk.
    pub installed: u64,
    /// Tombstones collected, counted at each voter.
    pub collected: u64,
    /// Registers whose history was checked.
    pub registers_checked: u64,
    /// Pages checked.
    pub pages_checked: u64,
}

impl Stats {
    /// Adds another's.
    pub fn add(&mut self, other: &Self) {
        for (kind, count) in &other.operations {
            *self.operations.entry(*kind).or_default() += count;
        }
        let sums = [
            (&mut self.seeds, other.seeds),
            (&mut self.crashes, other.crashes),
            (&mut self.disks_lost, other.disks_lost),
            (&mut self.partitions, other.partitions),
            (&mut self.one_way, other.one_way),
            (&mut self.clock_jumps, other.clock_jumps),
            (&mut self.messages, other.messages),
            (&mut self.lost, other.lost),
            (&mut self.doubled, other.doubled),
            (&mut self.changes, other.changes),
            (&mut self.given_up, other.given_up),
            (&mut self.installed, other.installed),
            (&mut self.collected, other.collected),
            (&mut self.registers_checked, other.registers_checked),
            (&mut self.pages_checked, other.pages_checked),
        ];
        for (sum, more) in sums {
            *sum += more;
        }
    }
}

impl std::fmt::Display for Stats {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "seeds              {:>12}", self.seeds)?;
        for ((kind, outcome), count) in &self.operations {
            writeln!(f, "{kind:<9}{outcome:<10}{count:>12}")?;
        }
        writeln!(f, "crashes            {:>12}", self.crashes)?;
        writeln!(f, "disks lost         {:>12}", self.disks_lost)?;
        writeln!(f, "partitions         {:>12}, one-way {}", self.partitions, self.one_way)?;
        writeln!(f, "clock jumps        {:>12}", self.clock_jumps)?;
        writeln!(f, "messages           {:>12}, lost {}, doubled {}", self.messages, self.lost, self.doubled)?;
        writeln!(f, "configurations     {:>12}", self.changes)?;
        writeln!(f, "joint phases left  {:>12}", self.given_up)?;
        writeln!(f, "late accepts       {:>12}", self.installed)?;
        writeln!(f, "tombstones dropped {:>12}", self.collected)?;
        writeln!(f, "registers checked  {:>12}", self.registers_checked)?;
        write!(f, "pages checked      {:>12}", self.pages_checked)
    }
}
