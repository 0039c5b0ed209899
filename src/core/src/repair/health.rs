//! How the objects of a pool are, counted by its peers in shares.

use serde::{Deserialize, Serialize};

/// Objects and their bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Tally {
    /// How many.
    pub objects: u64,
    /// Plaintext bytes.
    pub bytes: u64,
}

/// What one peer knows of the objects it counts and the repairs it does. Those of all live peers add up to the pool's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// When the count ended, milliseconds since the Unix epoch; 0 before the first.
    pub counted_ms: u64,
    /// Objects by redundancy, in the order of [`Redundancy::ALL`](super::Redundancy::ALL).
    pub objects: [Tally; 4],
    /// Segments that should be mended, and are not yet.
    pub segments_to_mend: u64,
    /// Fewest peers that any readable object survives the loss of; 255 when there are none.
    pub can_lose: u8,
    /// Objects of which some one disk holds enough to rebuild them (with the pool key).
    pub exposed: u64,
    /// Segments waiting for repair here.
    pub queued: u64,
    /// Bytes of the fragments they need.
    pub queued_bytes: u64,
    /// Bytes of fragments stored by repairs here in the last minute, a second.
    pub bytes_per_second: u64,
    /// Repairs done since this peer started.
    pub repaired: u64,
    /// Fragments here that are known to be corrupt or missing.
    pub damaged_here: u64,
    /// Fragments checked in this round of scrubbing, and all there are.
    pub scrubbed: (u64, u64),
    /// Bytes in the trash here.
    pub trash_bytes: u64,
    /// What is wrong with this peer's backends, in words.
    pub ills: Vec<String>,
}

impl Default for Health {
    /// Of a peer that has not counted yet. It lowers nobody's `can_lose`.
    fn default() -> Self {
        Self { counted_ms: 0, ..Self::nothing() }
    }
}

impl Health {
    /// What adding starts from: a count of nothing that is never the oldest.
    pub fn nothing() -> Self {
        Self {
            counted_ms: u64::MAX,
            objects: [Tally::default(); 4],
            segments_to_mend: 0,
            can_lose: u8::MAX,
            exposed: 0,
            queued: 0,
            queued_bytes: 0,
            bytes_per_second: 0,
            repaired: 0,
            damaged_here: 0,
            scrubbed: (0, 0),
            trash_bytes: 0,
            ills: Vec::new(),
        }
    }

    /// Adds another peer's share: a pool's health is the sum of its members'.
    pub fn add(&mut self, other: &Self) {
        for (mine, theirs) in self.objects.iter_mut().zip(&other.objects) {
            mine.objects += theirs.objects;
            mine.bytes += theirs.bytes;
        }
        // The oldest of the counts is how old the sum is.
        self.counted_ms = self.counted_ms.min(other.counted_ms);
        self.segments_to_mend += other.segments_to_mend;
        self.can_lose = self.can_lose.min(other.can_lose);
        self.exposed += other.exposed;
        self.queued += other.queued;
        self.queued_bytes += other.queued_bytes;
        self.bytes_per_second += other.bytes_per_second;
        self.repaired += other.repaired;
        self.damaged_here += other.damaged_here;
        self.scrubbed = (self.scrubbed.0 + other.scrubbed.0, self.scrubbed.1 + other.scrubbed.1);
        self.trash_bytes += other.trash_bytes;
        self.ills.extend(other.ills.iter().cloned());
    }
}
