//! Sealing and Reed-Solomon: how a stripe becomes n shards of which any k, with the bucket's key, give it
//! back, and of which fewer than k give nothing.
//!
//! For a stripe P and a fresh random key K:
//!
//! ```text
//! P' = P and zeros, so that P', tag and tail fill k shards exactly
//! C  = AES-256-GCM(K, P'; aad = segment id, stripe index, length of P), tag included
//! T  = K xor BLAKE3(segment secret; C)
//! C || T is cut into k data shards; Reed-Solomon adds n - k
//! ```
//!
//! This is AONT-RS (Resch and Plank, FAST'11) with a keyed hash. K is needed to read any byte, and K needs
//! all of C and T: whoever misses one shard misses at least [`MIN_SHARD_BYTES`] bytes that look random, and
//! whoever lacks the bucket's key cannot compute the hash. There is no padding outside the cipher,
//! so no shard has a guessable byte.
//!
//! What follows from it: data shards are ciphertext, so a read with all k of them decodes nothing;
//! [`Coder::rebuild`] repairs shards without any key; and [`Coder::open`] checks a stripe end to
//! end, so shards need no checksum of their own on the way.

use bytes::{Bytes, BytesMut};

use crate::place::{MAX_FRAGMENTS, Policy, PolicyError};

mod erasure;
mod seal;
mod shape;
#[cfg(test)]
mod tests;

use erasure::{Erasure, Slots};
pub use seal::{SegmentSecret, StripeKey};
pub use shape::Shape;
use shape::{sealed_len, shard_len};

/// Plaintext bytes of a stripe: what is sealed, coded and opened as one.
pub const STRIPE_BYTES: usize = 1 << 20;
/// Plaintext bytes of a segment at most.
pub const SEGMENT_BYTES: u64 = 64 << 20;
/// No shard is shorter: a missing one must not be guessable.
pub const MIN_SHARD_BYTES: usize = 32;

/// Why a stripe was not coded or opened.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum CodeError {
    /// Get more shards of this stripe.
    #[error("{have} of {need} shards needed")]
    NotEnough {
        /// Distinct shards given.
        have: usize,
        /// k.
        need: usize,
    },
    /// This shard is not one of this stripe: wrong length, or an index that cannot be or came twice. Get
    /// another.
    #[error("shard {index} of {len} bytes does not fit: expected one each of {n}, {expected} bytes long")]
    BadShard {
        /// Its index.
        index: u8,
        /// Its length.
        len: usize,
        /// How many shards a stripe has.
        n: u8,
        /// How long they are.
        expected: usize,
    },
    /// The stripe does not open: at least one of the shards used is not what was written, or they belong to
    /// another stripe or secret. Check the fragments, leave out the culprit and try again.
    #[error("stripe does not open: corrupt shard or wrong key")]
    Corrupt,
    /// A stripe holds 1 to [`STRIPE_BYTES`] bytes, a segment 1 to [`SEGMENT_BYTES`].
    #[error("length {0} out of bounds")]
    Length(u64),
    /// The policy cannot be.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// The cipher refused to seal.
    #[error("cipher refused to seal")]
    Cipher,
    /// The erasure code refused its input.
    #[error("reed-solomon: {0}")]
    ReedSolomon(#[from] reed_solomon_simd::Error),
}

/// Seals, opens and rebuilds stripes under one policy. Keeps the working memory of the erasure code (about
/// a stripe, made when first needed), so keep it for as long as stripes follow each other.
pub struct Coder {
    policy: Policy,
    erasure: Erasure,
}

impl Coder {
    /// A coder for this policy.
    pub fn new(policy: Policy) -> Result<Self, CodeError> {
        let policy = policy.check()?;
        Ok(Self { policy, erasure: Erasure::new(policy) })
    }

    /// The policy it codes under.
    pub fn policy(&self) -> Policy {
        self.policy
    }

    /// Seals stripe `stripe` of the secret's segment and codes it into n shards, by index.
    ///
    /// `plaintext` is 1 to [`STRIPE_BYTES`] bytes and is overwritten; with a capacity of
    /// [`Coder::stripe_capacity`] nothing is copied or allocated for the data shards, which
    /// are slices of that one buffer. `key` is fresh from a cryptographic random source.
    pub fn seal_encode(
        &mut self,
        secret: &SegmentSecret,
        stripe: u32,
        mut plaintext: BytesMut,
        key: StripeKey,
    ) -> Result<Vec<Bytes>, CodeError> {
        let len = plaintext.len();
        let shard = self.shard_len(len)?;
        plaintext.resize(sealed_len(self.policy.k, len), 0);
        secret.seal(stripe, len, key, &mut plaintext)?;

        let sealed = plaintext.freeze();
        let mut shards = Vec::with_capacity(self.policy.n.into());
        shards.extend((0..self.k()).map(|index| sealed.slice(index * shard..(index + 1) * shard)));
        let parity = self.erasure.parity(&shards)?;
        shards.extend(parity);
        Ok(shards)
    }

    /// What a buffer for a full stripe should hold so that sealing it neither copies nor allocates.
    pub fn stripe_capacity(&self) -> usize {
        sealed_len(self.policy.k, STRIPE_BYTES)
    }

    /// Opens stripe `stripe`, `len` plaintext bytes long, from any k of its shards with their indices.
    /// Data shards are preferred; decoding happens only where one is missing. The plaintext that comes back
    /// is exactly what was sealed under this secret as this stripe.
    pub fn open(
        &mut self,
        secret: &SegmentSecret,
        stripe: u32,
        len: usize,
        shards: &[(u8, Bytes)],
    ) -> Result<Bytes, CodeError> {
        let slots = self.slots(len, shards)?;
        let data = self.erasure.data(&slots)?;
        let mut sealed = BytesMut::with_capacity(sealed_len(self.policy.k, len));
        for shard in &data {
            sealed.extend_from_slice(shard);
        }
        secret.open(stripe, len, &mut sealed)?;
        sealed.truncate(len);
        Ok(sealed.freeze())
    }

    /// Computes the `wanted` shards of a stripe of `len` plaintext bytes from any k others, without a key.
    ///
    /// Nothing is checked: from a corrupt shard follow corrupt ones, so compare the ids of the fragments
    /// that come of it.
    pub fn rebuild(&mut self, len: usize, shards: &[(u8, Bytes)], wanted: &[u8]) -> Result<Vec<Bytes>, CodeError> {
        let expected = self.shard_len(len)?;
        if let Some(&index) = wanted.iter().find(|&&index| index >= self.policy.n) {
            return Err(CodeError::BadShard { index, len: expected, n: self.policy.n, expected });
        }
        let slots = self.slots(len, shards)?;
        let mut all = self.erasure.data(&slots)?;
        if wanted.iter().any(|&index| index >= self.policy.k) {
            let parity = self.erasure.parity(&all)?;
            all.extend(parity);
        }
        Ok(wanted.iter().map(|&index| all[usize::from(index)].clone()).collect())
    }

    fn k(&self) -> usize {
        self.policy.k.into()
    }

    /// Length of each shard of a stripe of `len` plaintext bytes.
    fn shard_len(&self, len: usize) -> Result<usize, CodeError> {
        if len == 0 || len > STRIPE_BYTES {
            return Err(CodeError::Length(len as u64));
        }
        Ok(shard_len(self.policy.k, len))
    }

    /// Sorts shards by index; each must fit.
    fn slots<'a>(&self, len: usize, shards: &'a [(u8, Bytes)]) -> Result<Slots<'a>, CodeError> {
        let expected = self.shard_len(len)?;
        let n = self.policy.n;
        let mut slots: Slots<'a> = [None; MAX_FRAGMENTS];
        for (index, shard) in shards {
            match slots[..n.into()].get_mut(usize::from(*index)) {
                Some(slot @ None) if shard.len() == expected => *slot = Some(shard),
                _ => {
                    return Err(CodeError::BadShard { index: *index, len: shard.len(), n, expected });
                }
            }
        }
        Ok(slots)
    }
}
