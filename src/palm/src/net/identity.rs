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
