//! Encryption with keys that clients keep (SSE-C,
//! <https://docs.aws.amazon.com/AmazonS3/latest/userguide/ServerSideEncryptionCustomerKeys.html>).
//!
//! A body is encrypted before it is cut into sealed stripes, so that with the pool's keys alone nobody reads it. Repair moves and
//! codes anew what it cannot read. Integrity is the seal's: what leaves it is what was encrypted.
//!
//! AES-256 in counter mode, because ranges must be readable. Its keystream must never be used twice: the key is derived from the
//! client's key, a salt drawn for each object or upload, and the segment's id, which is drawn at random for each segment ever
//! written. A part uploaded again, or a retried request, has other segments. The counter is the place in the segment.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::cipher::{AES_256, EncryptingKey, EncryptionContext, UnboundCipherKey};
use palm_core::id::SegmentId;
use palm_core::record::CustomerKey;
use zeroize::Zeroizing;

use super::ObjectError;
use super::store::random;

/// Bytes of a client's key.
pub const CLIENT_KEY_BYTES: usize = 32;
/// Bytes of a block of AES.
const BLOCK: usize = 16;

/// What a client's key and a salt make is derived for (BLAKE3 key derivation contexts).
const CHECK_CONTEXT: &str = "palm 2026-11 customer key check";
const CIPHER_CONTEXT: &str = "palm 2026-11 customer key cipher";
const ETAG_CONTEXT: &str = "palm 2026-11 customer key etag";

/// A key of a client's, kept no longer than its request. Zeroed on drop.
#[derive(Clone, PartialEq, Eq)]
pub struct ClientKey(Zeroizing<[u8; CLIENT_KEY_BYTES]>);

impl ClientKey {
    /// A key as it came.
    pub fn new(bytes: [u8; CLIENT_KEY_BYTES]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// For an object or upload to be made.
    pub fn seal(&self) -> Result<Cipher, ObjectError> {
        Ok(self.with(random()?))
    }

    /// For an object or upload there is; `None`: it was made with another key.
    pub fn open(&self, record: &CustomerKey) -> Option<Cipher> {
        let cipher = self.with(record.salt);
        // Hashes compare in constant time.
        let same = blake3::Hash::from_bytes(cipher.record.check) == blake3::Hash::from_bytes(record.check);
        same.then_some(cipher)
    }

    fn with(&self, salt: [u8; 16]) -> Cipher {
        let derive = |context| {
            let mut hasher = blake3::Hasher::new_derive_key(context);
            *hasher.update(self.0.as_slice()).update(&salt).finalize().as_bytes()
        };
        Cipher {
            record: CustomerKey { salt, check: derive(CHECK_CONTEXT) },
            keys: Arc::new(Zeroizing::new([derive(CIPHER_CONTEXT), derive(ETAG_CONTEXT)])),
        }
    }
}

impl fmt::Debug for ClientKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientKey")
    }
}

/// Encrypts and decrypts one object or upload. Cheap to clone.
#[derive(Clone)]
pub struct Cipher {
    record: CustomerKey,
    /// That of the bytes, and that of the entity tag.
    keys: Arc<Zeroizing<[[u8; 32]; 2]>>,
}

impl Cipher {
    /// How the client's key is known again.
    pub fn record(&self) -> &CustomerKey {
        &self.record
    }

    /// The entity tag of a body with this MD5: not the MD5, as at AWS, for that would tell who can list a bucket which objects
    /// are equal, or equal to a known file.
    pub(super) fn etag(&self, md5: [u8; 16]) -> [u8; 16] {
        let hash = blake3::keyed_hash(&self.keys[1], &md5);
        let mut tag = [0; 16];
        tag.copy_from_slice(&hash.as_bytes()[..16]);
        tag
    }

    /// Encrypts, or decrypts, bytes that lie `at` bytes behind the start of a segment.
    pub(super) fn apply(&self, segment: SegmentId, at: u64, bytes: &mut [u8]) -> Result<(), ObjectError> {
        let failed = |_| ObjectError::Internal("the cipher failed".to_owned());
        let key = Zeroizing::new(*blake3::keyed_hash(&self.keys[0], segment.as_bytes()).as_bytes());
        let key = UnboundCipherKey::new(&AES_256, key.as_slice()).and_then(EncryptingKey::ctr).map_err(failed)?;
        let counter = |block: u64| EncryptionContext::Iv128(u128::from(block).to_be_bytes().into());
        let (block, within) = (at / BLOCK as u64, (at % BLOCK as u64) as usize);
        // The rest of a block that begins before these bytes.
        let (head, whole) = bytes.split_at_mut(((BLOCK - within) % BLOCK).min(bytes.len()));
        if !head.is_empty() {
            let mut stream = [0; BLOCK];
            key.less_safe_encrypt(&mut stream, counter(block)).map_err(failed)?;
            head.iter_mut().zip(&stream[within..]).for_each(|(byte, key)| *byte ^= key);
        }
        if !whole.is_empty() {
            key.less_safe_encrypt(whole, counter(block + u64::from(within > 0))).map_err(failed)?;
        }
        Ok(())
    }
}

impl fmt::Debug for Cipher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Cipher")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cipher() -> Cipher {
        ClientKey::new([7; 32]).with([9; 16])
    }

    fn segment(byte: u8) -> SegmentId {
        SegmentId::from_bytes([byte; 16])
    }

    fn encrypted(segment: SegmentId, at: u64, plain: &[u8]) -> Vec<u8> {
        let mut bytes = plain.to_vec();
        cipher().apply(segment, at, &mut bytes).expect("encrypts");
        bytes
    }

    /// Scenario: an object is read years later, or by another version of PALM. Danger: a derivation or the counter has
    /// changed, and the object is noise. Expectation: these bytes for ever, and AES-256-CTR of them by the book (NIST SP 800-38A,
    /// section 6.5): the keystream is the block cipher of the counter, which `openssl enc -aes-256-ctr` agrees on.
    #[test]
    fn the_keystream_is_always_the_same() {
        let stream = encrypted(segment(1), 0, &[0; 48]);
        let hex = |bytes: &[u8]| data_encoding::HEXLOWER.encode(bytes);
        assert_eq!(hex(&cipher().record().check), "9ef26baf47f1d1a2e69c69ddd35cf3f261764ecb141921b36164091de910e24e");
        assert_eq!(hex(&stream[..32]), "a25d172db7b263b256d524b9394d9573f4070b962bec2022fa0b11b2448f8f6a");
        assert_eq!(hex(&cipher().etag([3; 16])), "8e9d11a1cc2739e58f7a4667930f5887");
        let key = blake3::keyed_hash(&cipher().keys[0], segment(1).as_bytes());
        for (block, expected) in stream.chunks(BLOCK).enumerate() {
            let ecb = UnboundCipherKey::new(&AES_256, key.as_bytes()).and_then(EncryptingKey::ecb).expect("key");
            let mut counter = (block as u128).to_be_bytes();
            ecb.encrypt(&mut counter).expect("a block");
            assert_eq!(counter, expected);
        }
    }

    /// Scenario: ranges that begin and end anywhere. Danger: an offset off by one decrypts to noise. Expectation: every range is
    /// the same as that of the whole.
    #[test]
    fn any_range_decrypts_by_itself() {
        let plain: Vec<u8> = (0..100_u8).collect();
        let whole = encrypted(segment(1), 0, &plain);
        for start in 0..plain.len() {
            for end in start..=plain.len() {
                let mut range = whole[start..end].to_vec();
                cipher().apply(segment(1), start as u64, &mut range).expect("decrypts");
                assert_eq!(range, plain[start..end], "{start}..{end}");
            }
        }
        let far = (1_u64 << 40) + 5;
        assert_eq!(encrypted(segment(1), far, &encrypted(segment(1), far, &plain)), plain);
    }

    /// Scenario: a part is uploaded twice, an object is copied, the same bytes are put again. Danger: a keystream used twice, and
    /// the XOR of two plaintexts lies on the disks. Expectation: another segment, salt or key is another keystream.
    #[test]
    fn no_keystream_is_used_twice() {
        let zeros = [0; 64];
        let mut streams = vec![encrypted(segment(1), 0, &zeros), encrypted(segment(2), 0, &zeros)];
        for other in [ClientKey::new([7; 32]).with([8; 16]), ClientKey::new([6; 32]).with([9; 16])] {
            let mut bytes = zeros.to_vec();
            other.apply(segment(1), 0, &mut bytes).expect("encrypts");
            streams.push(bytes);
        }
        let blocks: std::collections::BTreeSet<&[u8]> =
            streams.iter().flat_map(|stream| stream.chunks(BLOCK)).collect();
        assert_eq!(blocks.len(), 4 * zeros.len() / BLOCK);
        let (one, two) = (ClientKey::new([1; 32]).seal(), ClientKey::new([1; 32]).seal());
        assert_ne!(one.expect("random").record(), two.expect("random").record(), "each object has a salt of its own");
    }

    #[test]
    fn only_the_right_key_opens() {
        let key = ClientKey::new([1; 32]);
        let record = key.seal().expect("random").record().clone();
        assert!(key.open(&record).is_some());
        assert!(ClientKey::new([2; 32]).open(&record).is_none());
        assert!(key.open(&CustomerKey { salt: [0; 16], ..record }).is_none());
    }
}
