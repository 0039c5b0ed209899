//! The pool's own key pair, held by every full member: what proves that a peer speaks for a pool.

use std::fmt;

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, UnparsedPublicKey};
use palm_core::id::{PeerId, PoolId};
use zeroize::Zeroizing;

use super::NetError;
use super::identity::{key_pair, public_key, random_seed};

/// What a membership proof signs, before the peer id.
const PROOF_CONTEXT: &[u8] = b"palm member";

/// A pool's Ed25519 key pair.
pub struct PoolKey {
    key: Ed25519KeyPair,
    public: [u8; 32],
    seed: Zeroizing<[u8; 32]>,
}

impl PoolKey {
    /// A new pool's key.
    pub fn generate() -> Result<Self, NetError> {
        Self::from_seed(&*random_seed()?)
    }

    /// From its seed, as a new member is given it.
    pub fn from_seed(seed: &[u8; 32]) -> Result<Self, NetError> {
        let key = key_pair(seed)?;
        let public = public_key(&key)?;
        Ok(Self { key, public, seed: Zeroizing::new(*seed) })
    }

    /// The seed, for storing and for a new member.
    pub fn seed(&self) -> &Zeroizing<[u8; 32]> {
        &self.seed
    }

    /// The raw public key.
    pub fn public_key(&self) -> &[u8; 32] {
        &self.public
    }

    /// The pool's id: the truncated hash of its public key.
    pub fn pool_id(&self) -> PoolId {
        PoolId::from_public_key(&self.public)
    }

    /// Signs that `peer` speaks for the pool: 64 bytes of Ed25519 over `"palm member"` and the peer id. Only the
    /// holder of the peer's own key can use the proof, since its connection must be that peer's.
    pub fn prove(&self, peer: PeerId) -> Vec<u8> {
        self.key.sign(&proof_message(peer)).as_ref().to_vec()
    }
}

impl fmt::Debug for PoolKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PoolKey").field("pool_id", &self.pool_id()).finish_non_exhaustive()
    }
}

/// Whether `proof` shows that `peer` speaks for `pool`: the key must hash to the pool's id and the signature
/// must be its.
pub fn verify_proof(pool: PoolId, public_key: &[u8; 32], peer: PeerId, proof: &[u8]) -> bool {
    PoolId::from_public_key(public_key) == pool
        && UnparsedPublicKey::new(&ED25519, public_key).verify(&proof_message(peer), proof).is_ok()
}

fn proof_message(peer: PeerId) -> Vec<u8> {
    [PROOF_CONTEXT, peer.as_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A joiner was told a pool id out of band. Nobody without that pool's key may convince it, and a proof
    /// made for one peer must be worthless to another.
    #[test]
    fn a_proof_convinces_only_for_its_pool_and_peer() {
        let pool = PoolKey::from_seed(&[1; 32]).unwrap();
        let peer = PeerId::from_public_key(&[2; 32]);
        let proof = pool.prove(peer);
        assert!(verify_proof(pool.pool_id(), pool.public_key(), peer, &proof));

        assert!(!verify_proof(pool.pool_id(), pool.public_key(), PeerId::from_public_key(&[3; 32]), &proof));
        let other = PoolKey::from_seed(&[4; 32]).unwrap();
        assert!(!verify_proof(pool.pool_id(), other.public_key(), peer, &other.prove(peer)));
        assert!(!verify_proof(pool.pool_id(), pool.public_key(), peer, &other.prove(peer)));
        assert!(!verify_proof(pool.pool_id(), pool.public_key(), peer, &proof[..63]));
    }
}
