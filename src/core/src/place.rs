//! Which peers keep the fragments of a segment, and when a write is durable.

use serde::{Deserialize, Serialize};

use crate::id::{PeerId, SegmentId};

/// Any `k` of `n` fragments rebuild a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Policy {
    /// Fragments needed; at least 1.
    pub k: u8,
    /// Fragments kept; at least `k`.
    pub n: u8,
}

/// A peer that could keep a fragment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// Which.
    pub peer: PeerId,
    /// Free bytes; its weight.
    pub free: u64,
    /// What fails together with it; empty when not set, and then the peer is its own domain.
    pub domain: String,
}

/// Where the fragments of a segment go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The policy used; `auto` falls to a narrower one while members are away.
    pub policy: Policy,
    /// Home of fragment 0, 1, … n-1.
    pub homes: Vec<PeerId>,
    /// Some home gets as many fragments as rebuild the segment: with the pool key its disk reveals it.
    pub exposed: bool,
}
