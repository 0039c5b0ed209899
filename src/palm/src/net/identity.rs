//! Who this peer is.

use std::path::Path;

use palm_core::id::PeerId;

use super::NetError;

/// This peer's Ed25519 key pair.
#[derive(Clone)]
pub struct Identity;

impl Identity {
    /// Loads `identity.key` (a 32-byte seed, mode 0600) of a data directory, or makes it.
    pub fn load_or_create(dir: &Path) -> Result<Self, NetError> {
        let _ = dir;
        unimplemented!()
    }
    /// From a seed.
    pub fn from_seed(seed: &[u8; 32]) -> Result<Self, NetError> {
        let _ = seed;
        unimplemented!()
    }
    /// Hash of the public key.
    pub fn peer_id(&self) -> PeerId {
        unimplemented!()
    }
}

/// Scaffold.
pub struct PoolKey;

impl PoolKey {
    /// Scaffold.
    pub fn from_seed(seed: &[u8; 32]) -> Result<Self, NetError> {
        let _ = seed;
        unimplemented!()
    }
    /// Scaffold.
    pub fn public_key(&self) -> &[u8; 32] {
        unimplemented!()
    }
    /// Scaffold.
    pub fn pool_id(&self) -> palm_core::id::PoolId {
        unimplemented!()
    }
    /// Scaffold.
    pub fn prove(&self, peer: PeerId) -> Vec<u8> {
        let _ = peer;
        unimplemented!()
    }
}

/// Scaffold.
pub fn verify_proof(pool: palm_core::id::PoolId, public_key: &[u8; 32], peer: PeerId, proof: &[u8]) -> bool {
    let _ = (pool, public_key, peer, proof);
    unimplemented!()
}
