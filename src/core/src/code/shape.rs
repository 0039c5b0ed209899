//! The arithmetic of a segment: how many stripes, how long each shard, and where it lies in a fragment.

use std::ops::Range;

use super::seal::OVERHEAD_BYTES;
use super::{CodeError, MIN_SHARD_BYTES, SEGMENT_BYTES, STRIPE_BYTES};
use crate::place::Policy;

/// Length of each shard of a stripe of `len` plaintext bytes: what holds it and its overhead in k parts,
/// rounded up to even because the erasure code works on 16-bit symbols.
pub(super) fn shard_len(k: u8, len: usize) -> usize {
    (len + OVERHEAD_BYTES).div_ceil(k.into()).next_multiple_of(2).max(MIN_SHARD_BYTES)
}

/// Length of a sealed stripe: k shards, filled to the last byte.
pub(super) fn sealed_len(k: u8, len: usize) -> usize {
    shard_len(k, len) * usize::from(k)
}

/// A segment's policy and length, from which all other lengths follow.
///
/// Every stripe but the last holds [`STRIPE_BYTES`] of plaintext. A fragment is its shards end to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    policy: Policy,
    len: u64,
}

impl Shape {
    /// The shape of a segment of `len` plaintext bytes, 1 to [`SEGMENT_BYTES`] (an empty body has no
    /// segment).
    pub fn new(policy: Policy, len: u64) -> Result<Self, CodeError> {
        let policy = policy.check()?;
        if len == 0 || len > SEGMENT_BYTES {
            return Err(CodeError::Length(len));
        }
        Ok(Self { policy, len })
    }

    /// Its policy.
    pub fn policy(&self) -> Policy {
        self.policy
    }

    /// Plaintext bytes of the segment; never 0.
    #[expect(clippy::len_without_is_empty, reason = "there is no empty segment")]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Number of stripes.
    pub fn stripes(&self) -> u32 {
        self.len.div_ceil(STRIPE_BYTES as u64) as u32
    }

    /// Where stripe `stripe` lies in the segment's plaintext; empty beyond the last.
    pub fn stripe_range(&self, stripe: u32) -> Range<u64> {
        let start = u64::from(stripe) * STRIPE_BYTES as u64;
        start.min(self.len)..(start + STRIPE_BYTES as u64).min(self.len)
    }

    /// Plaintext bytes of stripe `stripe`; 0 beyond the last.
    pub fn stripe_len(&self, stripe: u32) -> usize {
        let range = self.stripe_range(stripe);
        (range.end - range.start) as usize
    }

    /// Bytes of each shard of stripe `stripe`; 0 beyond the last.
    pub fn shard_len(&self, stripe: u32) -> usize {
        match self.stripe_len(stripe) {
            0 => 0,
            len => shard_len(self.policy.k, len),
        }
    }

    /// Bytes of stripe `stripe` once sealed: k shards; 0 beyond the last.
    pub fn sealed_len(&self, stripe: u32) -> usize {
        self.shard_len(stripe) * usize::from(self.policy.k)
    }

    /// Bytes of each of the n fragments.
    pub fn fragment_len(&self) -> u64 {
        self.shard_offset(self.stripes())
    }

    /// Where the shard of stripe `stripe` starts in every fragment; the fragment's end beyond the last.
    pub fn shard_offset(&self, stripe: u32) -> u64 {
        let last = self.stripes() - 1;
        let full = u64::from(stripe.min(last)) * shard_len(self.policy.k, STRIPE_BYTES) as u64;
        if stripe > last { full + self.shard_len(last) as u64 } else { full }
    }

    /// Where the shards of these stripes lie in every fragment: what to ask a home for.
    pub fn fragment_range(&self, stripes: Range<u32>) -> Range<u64> {
        self.shard_offset(stripes.start)..self.shard_offset(stripes.end.max(stripes.start))
    }

    /// The stripes that hold this range of the segment's plaintext; none for an empty range or one
    /// beyond the end.
    pub fn stripes_of(&self, range: Range<u64>) -> Range<u32> {
        let end = range.end.min(self.len);
        if range.start >= end {
            return 0..0;
        }
        let stripe = STRIPE_BYTES as u64;
        (range.start / stripe) as u32..end.div_ceil(stripe) as u32
    }
}
