//! Sealing small secrets (access keys, data keys) by the pool's sealing key.
//!
//! AES-256-GCM with a random nonce; what a secret is for is authenticated with it, so that a sealed value moved
//! under another name does not open. A sealed secret is
//!
//! | bytes | what |
//! | --- | --- |
//! | 12 | nonce, random |
//! | n | ciphertext |
//! | 16 | tag |
//!
//! Nonces are random: at 2^32 secrets under one key the chance of a repeat reaches 2^-32 (NIST SP 800-38D, 8.3).
//! A pool seals one secret per bucket and access key.

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use rand::TryRngCore;
use rand::rngs::OsRng;
use zeroize::{Zeroize, Zeroizing};

/// Why a secret could not be sealed or opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SecretError {
    /// The system's randomness or the cipher failed.
    #[error("sealing failed")]
    Seal,
    /// Sealed by another key, for another purpose, or altered.
    #[error("sealed secret does not open: wrong key, wrong purpose or altered")]
    Open,
}

/// The key that seals a pool's secrets; every full member holds it. Zeroed on drop, never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct SealingKey(Zeroizing<[u8; 32]>);

impl SealingKey {
    /// A new random key.
    pub fn random() -> Result<Self, SecretError> {
        let mut key = Zeroizing::new([0; 32]);
        fill_random(key.as_mut_slice())?;
        Ok(Self(key))
    }

    /// The key with these bytes.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// Its bytes, for a new member and this peer's own index. Handle with care.
    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }

    /// Another key, for one purpose only.
    pub fn derive(&self, purpose: &str) -> Self {
        Self(Zeroizing::new(blake3::derive_key(purpose, self.0.as_slice())))
    }

    /// Seals `secret` for the purpose `context` names, which must be given again to open it.
    pub fn seal(&self, context: &str, secret: &[u8]) -> Result<Vec<u8>, SecretError> {
        let mut buffer = secret.to_vec();
        let Ok(nonce) = self.cipher()?.seal_in_place_append_tag(Aad::from(context), &mut buffer) else {
            buffer.zeroize();
            return Err(SecretError::Seal);
        };
        let mut sealed = Vec::with_capacity(NONCE_LEN + buffer.len());
        sealed.extend_from_slice(nonce.as_ref());
        sealed.append(&mut buffer);
        Ok(sealed)
    }

    /// Opens what [`seal`](Self::seal) made for the same `context`.
    pub fn open(&self, context: &str, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, SecretError> {
        let (nonce, body) = sealed.split_at_checked(NONCE_LEN).ok_or(SecretError::Open)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| SecretError::Open)?;
        let mut buffer = Zeroizing::new(body.to_vec());
        let len =
            self.cipher()?.open_in_place(nonce, Aad::from(context), &mut buffer).map_err(|_| SecretError::Open)?.len();
        buffer.truncate(len);
        Ok(buffer)
    }

    fn cipher(&self) -> Result<RandomizedNonceKey, SecretError> {
        RandomizedNonceKey::new(&AES_256_GCM, self.0.as_slice()).map_err(|_| SecretError::Seal)
    }
}

impl std::fmt::Debug for SealingKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SealingKey(redacted)")
    }
}

/// Fills a buffer from the system's randomness.
pub fn fill_random(buffer: &mut [u8]) -> Result<(), SecretError> {
    OsRng.try_fill_bytes(buffer).map_err(|_| SecretError::Seal)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A sealed access key is copied over another key's record, or a byte of it rots. Opening it must fail:
    /// otherwise whoever can write a record could swap secrets. Only the same key and purpose open it.
    #[test]
    fn only_the_same_key_and_purpose_open_a_secret() {
        let key = SealingKey::from_bytes([1; 32]);
        let sealed = key.seal("access key A", b"secret").unwrap();
        assert_eq!(key.open("access key A", &sealed).unwrap().as_slice(), b"secret");
        assert_eq!(key.open("access key B", &sealed), Err(SecretError::Open));
        assert_eq!(SealingKey::from_bytes([2; 32]).open("access key A", &sealed), Err(SecretError::Open));
        for at in 0..sealed.len() {
            let mut altered = sealed.clone();
            altered[at] ^= 1;
            assert_eq!(key.open("access key A", &altered), Err(SecretError::Open), "byte {at}");
        }
        for len in 0..sealed.len() {
            assert_eq!(key.open("access key A", &sealed[..len]), Err(SecretError::Open), "length {len}");
        }
    }

    /// Equal secrets must not show as equal on a disk, and a log line must not hold a key.
    #[test]
    fn sealing_is_randomised_and_keys_are_not_printed() {
        let key = SealingKey::random().unwrap();
        assert_ne!(key.seal("x", b"same").unwrap(), key.seal("x", b"same").unwrap());
        assert_eq!(format!("{key:?}"), "SealingKey(redacted)");
    }
}
