//! The all-or-nothing transform of one stripe, in place in one buffer.
//!
//! | bytes of a sealed stripe | what |
//! | --- | --- |
//! | all but the last 48 | AES-256-GCM ciphertext of the plaintext and its zero padding |
//! | 16 | GCM tag |
//! | 32 | tail: the stripe's key xor the keyed hash of everything before |

use std::fmt;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use zeroize::ZeroizeOnDrop;

use super::CodeError;
use crate::id::SegmentId;

/// Key of the cipher and of the hash.
const KEY_BYTES: usize = 32;
/// Tag of the cipher.
const TAG_BYTES: usize = 16;
/// The stripe's key, masked.
const TAIL_BYTES: usize = KEY_BYTES;
/// What sealing adds to a stripe.
pub(super) const OVERHEAD_BYTES: usize = TAG_BYTES + TAIL_BYTES;
/// BLAKE3's derive-key context: tells this key from all others ever derived from a bucket's. Never changes.
const SECRET_CONTEXT: &str = "PALM 2026-11-22 segment secret v1";

/// The random key of one stripe. Sealing consumes it: under a key used twice with the fixed nonce, GCM
/// keeps neither secrecy nor integrity.
#[derive(ZeroizeOnDrop)]
pub struct StripeKey([u8; KEY_BYTES]);

impl StripeKey {
    /// From 32 bytes drawn for this stripe alone, from a cryptographic random source.
    pub fn from_random(bytes: [u8; KEY_BYTES]) -> Self {
        Self(bytes)
    }

    fn cipher(&self) -> Result<LessSafeKey, CodeError> {
        let key = UnboundKey::new(&AES_256_GCM, &self.0).map_err(|_| CodeError::Cipher)?;
        Ok(LessSafeKey::new(key))
    }

    fn xor(&mut self, other: &[u8; KEY_BYTES]) {
        for (mine, other) in self.0.iter_mut().zip(other) {
            *mine ^= other;
        }
    }
}

impl fmt::Debug for StripeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StripeKey(redacted)")
    }
}

/// What seals and opens the stripes of one segment, beside their shards. It carries the segment's id, so that
/// a stripe cannot be sealed under the secret of one segment and bound to another.
#[derive(Clone, ZeroizeOnDrop)]
pub struct SegmentSecret {
    key: [u8; KEY_BYTES],
    #[zeroize(skip)]
    segment: SegmentId,
}

impl SegmentSecret {
    /// Of this segment, in a bucket with this data key.
    pub fn derive(bucket_key: &[u8; KEY_BYTES], segment: SegmentId) -> Self {
        // Both parts have a fixed length, so no two pairs feed the hash the same bytes.
        let mut hasher = blake3::Hasher::new_derive_key(SECRET_CONTEXT);
        hasher.update(bucket_key).update(segment.as_bytes());
        Self { key: hasher.finalize().into(), segment }
    }

    /// The segment it belongs to.
    pub fn segment(&self) -> SegmentId {
        self.segment
    }

    /// Seals in place: `buffer` holds the padded plaintext and [`OVERHEAD_BYTES`] of space behind it.
    pub(super) fn seal(&self, stripe: u32, len: usize, mut key: StripeKey, buffer: &mut [u8]) -> Result<(), CodeError> {
        let (sealed, tail) = buffer.split_last_chunk_mut::<TAIL_BYTES>().ok_or(CodeError::Cipher)?;
        let (text, tag) = sealed.split_last_chunk_mut::<TAG_BYTES>().ok_or(CodeError::Cipher)?;
        let computed = key
            .cipher()?
            .seal_in_place_separate_tag(nonce(), self.aad(stripe, len), text)
            .map_err(|_| CodeError::Cipher)?;
        tag.copy_from_slice(computed.as_ref());
        key.xor(self.mask(sealed).as_bytes());
        *tail = key.0;
        Ok(())
    }

    /// Opens in place: where it succeeds `buffer` starts with the plaintext.
    pub(super) fn open(&self, stripe: u32, len: usize, buffer: &mut [u8]) -> Result<(), CodeError> {
        let (sealed, tail) = buffer.split_last_chunk_mut::<TAIL_BYTES>().ok_or(CodeError::Corrupt)?;
        let mut key = StripeKey(*self.mask(sealed).as_bytes());
        key.xor(tail);
        key.cipher()?.open_in_place(nonce(), self.aad(stripe, len), sealed).map_err(|_| CodeError::Corrupt)?;
        Ok(())
    }

    /// What hides the stripe's key: it takes every byte of the ciphertext and this secret to compute.
    pub(super) fn mask(&self, sealed: &[u8]) -> blake3::Hash {
        blake3::keyed_hash(&self.key, sealed)
    }

    /// Ties a sealed stripe to its place and its true length: segment id, index and length, little-endian.
    fn aad(&self, stripe: u32, len: usize) -> Aad<[u8; SegmentId::LEN + 8]> {
        let mut aad = [0; SegmentId::LEN + 8];
        aad[..SegmentId::LEN].copy_from_slice(self.segment.as_bytes());
        aad[SegmentId::LEN..][..4].copy_from_slice(&stripe.to_le_bytes());
        aad[SegmentId::LEN + 4..].copy_from_slice(&(len as u32).to_le_bytes());
        Aad::from(aad)
    }
}

impl fmt::Debug for SegmentSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SegmentSecret({}, redacted)", self.segment.short())
    }
}

/// The nonce is always zero: a [`StripeKey`] seals once.
fn nonce() -> Nonce {
    Nonce::assume_unique_for_key([0; NONCE_LEN])
}
