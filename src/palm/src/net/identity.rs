//! Who this peer is: an Ed25519 key pair whose seed never leaves `identity.key`.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use palm_core::id::PeerId;
use rand::TryRngCore;
use rand::rngs::OsRng;
use zeroize::Zeroizing;

use super::NetError;

pub use super::poolkey::{PoolKey, verify_proof};

/// The seed's file in a data directory.
pub const IDENTITY_FILE: &str = "identity.key";
/// An Ed25519 seed (RFC 8032).
pub const SEED_BYTES: usize = 32;

/// This peer's Ed25519 key pair. Cheap to clone; AWS-LC wipes the key when the last clone goes.
#[derive(Clone)]
pub struct Identity {
    key: Arc<Ed25519KeyPair>,
    public: [u8; 32],
    reset_key: Arc<Zeroizing<[u8; 32]>>,
}

impl Identity {
    /// Loads `identity.key` (a 32-byte seed, mode 0600) of a data directory, or makes it. A file that others
    /// may read, or of another length, is refused: it is not the secret it should be.
    pub fn load_or_create(dir: &Path) -> Result<Self, NetError> {
        let path = dir.join(IDENTITY_FILE);
        let seed = match File::open(&path) {
            Ok(file) => read_seed(&path, file)?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                create_seed(dir).map_err(|error| NetError::Local(format!("create {}: {error}", path.display())))?
            }
            Err(error) => return Err(NetError::Local(format!("open {}: {error}", path.display()))),
        };
        Self::from_seed(&seed)
    }

    /// From a seed.
    pub fn from_seed(seed: &[u8; 32]) -> Result<Self, NetError> {
        let key = key_pair(seed)?;
        let public = public_key(&key)?;
        // With a reset key that outlives the process, a restarted peer can tell others at once that their
        // old connections are dead (RFC 9000, 10.3) instead of leaving them to time out.
        let reset_key = Zeroizing::new(blake3::derive_key("palm 2026-11 quic stateless reset", seed));
        Ok(Self { key: Arc::new(key), public, reset_key: Arc::new(reset_key) })
    }

    /// Hash of the public key.
    pub fn peer_id(&self) -> PeerId {
        PeerId::from_public_key(&self.public)
    }

    /// The raw public key.
    pub fn public_key(&self) -> &[u8; 32] {
        &self.public
    }

    /// Ed25519 signature, 64 bytes.
    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        self.key.sign(message).as_ref().to_vec()
    }

    /// The key of the endpoint's stateless reset tokens.
    pub(super) fn reset_key(&self) -> &[u8; 32] {
        &self.reset_key
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("peer_id", &self.peer_id()).finish_non_exhaustive()
    }
}

/// The key pair of a seed.
pub(super) fn key_pair(seed: &[u8; 32]) -> Result<Ed25519KeyPair, NetError> {
    Ed25519KeyPair::from_seed_unchecked(seed).map_err(|error| NetError::Local(format!("ed25519 seed: {error}")))
}

/// The raw public key of a pair.
pub(super) fn public_key(key: &Ed25519KeyPair) -> Result<[u8; 32], NetError> {
    key.public_key().as_ref().try_into().map_err(|_| NetError::Local("ed25519 public key is not 32 bytes".into()))
}

/// A fresh random seed.
pub(super) fn random_seed() -> Result<Zeroizing<[u8; 32]>, NetError> {
    let mut seed = Zeroizing::new([0; SEED_BYTES]);
    OsRng.try_fill_bytes(&mut seed[..]).map_err(|error| NetError::Local(format!("no randomness: {error}")))?;
    Ok(seed)
}

fn read_seed(path: &Path, mut file: File) -> Result<Zeroizing<[u8; 32]>, NetError> {
    let failed = |detail: String| NetError::Local(format!("{}: {detail}", path.display()));
    let metadata = file.metadata().map_err(|error| failed(error.to_string()))?;
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(failed(format!("mode {mode:o} lets others read the key, expected 600")));
    }
    if metadata.len() != SEED_BYTES as u64 {
        return Err(failed(format!("{} bytes, expected {SEED_BYTES}", metadata.len())));
    }
    let mut seed = Zeroizing::new([0; SEED_BYTES]);
    file.read_exact(&mut seed[..]).map_err(|error| failed(error.to_string()))?;
    Ok(seed)
}

/// Writes a new seed beside its place, syncs it, moves it there and syncs the directory: after a crash at any
/// point there is a whole key or none.
fn create_seed(dir: &Path) -> Result<Zeroizing<[u8; 32]>, Box<dyn std::error::Error>> {
    fs::create_dir_all(dir)?;
    let seed = random_seed()?;
    let beside = dir.join(format!("{IDENTITY_FILE}.new"));
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
    // An abandoned file from an earlier crash keeps its mode when reopened.
    file.set_permissions(fs::Permissions::from_mode(0o600))?;
    file.write_all(&seed[..])?;
    file.sync_all()?;
    fs::rename(&beside, dir.join(IDENTITY_FILE))?;
    File::open(dir)?.sync_all()?;
    Ok(seed)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A peer that restarts must be the same peer, and its key must be nobody else's to read.
    #[test]
    fn the_key_is_made_once_and_is_private() {
        let dir = tempfile::tempdir().unwrap();
        let first = Identity::load_or_create(dir.path()).unwrap();
        let again = Identity::load_or_create(dir.path()).unwrap();
        assert_eq!(first.peer_id(), again.peer_id());
        let path = dir.path().join(IDENTITY_FILE);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(!format!("{first:?}").contains(&format!("{:?}", fs::read(&path).unwrap())));

        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(Identity::load_or_create(dir.path()).is_err(), "a key that others can read is no key");
    }

    /// A truncated key file must stop the start: making a new identity silently would orphan all this peer holds.
    #[test]
    fn a_damaged_key_is_refused_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        Identity::load_or_create(dir.path()).unwrap();
        let path = dir.path().join(IDENTITY_FILE);
        OpenOptions::new().write(true).open(&path).unwrap().set_len(31).unwrap();
        assert!(Identity::load_or_create(dir.path()).is_err());
        assert_eq!(fs::metadata(&path).unwrap().len(), 31);
    }

    /// RFC 8032, 7.1, test 1: the seed gives the public key everyone else computes for it.
    #[test]
    fn the_public_key_is_ed25519() {
        let hex =
            |text: &str| -> [u8; 32] { data_encoding::HEXLOWER.decode(text.as_bytes()).unwrap().try_into().unwrap() };
        let identity =
            Identity::from_seed(&hex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")).unwrap();
        let public = hex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a");
        assert_eq!(identity.public_key(), &public);
        assert_eq!(identity.peer_id(), PeerId::from_public_key(&public));
    }
}
