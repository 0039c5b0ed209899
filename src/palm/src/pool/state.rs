//! What a peer keeps about its pool: one value in its index, under `pool` in [`Space::Meta`].
//!
//! It is written, synced, before the ledger is opened for the first time, and holds all that opening needs: a
//! crash anywhere in creating or joining leaves either nothing or a peer that finishes at its next start.

use std::sync::Arc;

use bytes::Bytes;
use palm_backends::{Durability, IndexStore, Space, StoreError, Write};
use palm_core::id::{PeerId, PoolId};
use palm_core::record::{DecodeError, PoolRecord, PoolRecordV1, Stored, decode_exact};
use palm_core::register::Config;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::secret::SealingKey;

/// Key of the state in [`Space::Meta`].
const KEY: &[u8] = b"pool";

/// Why the state could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The index failed.
    #[error("pool state: {0}")]
    Index(#[from] StoreError),
    /// The index holds something else there.
    #[error("pool state: {0}")]
    Decode(#[from] DecodeError),
}

/// A peer's own knowledge of its pool. Not `Debug`: it holds the pool's keys.
#[derive(Clone, PartialEq, Eq)]
pub struct PoolState {
    /// The pool; hash of the public key of `seed`.
    pub id: PoolId,
    /// Seed of the pool's Ed25519 key, with which members prove that they speak for the pool.
    pub seed: Zeroizing<[u8; 32]>,
    /// Seals the pool's secrets.
    pub sealing_key: SealingKey,
    /// The pool's name when this peer came to it, for when the ledger cannot be asked.
    pub name: String,
    /// The voters when this peer came to the pool: what the ledger starts from if it has no configuration yet.
    pub initial: Config,
    /// Members and addresses known when this peer came to the pool: where it looks before its ledger holds any.
    pub introduced: Vec<(PeerId, Vec<String>)>,
    /// How it came to the pool.
    pub origin: Origin,
}

/// How a peer came to its pool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Origin {
    /// It made the pool. Until `done`, the first records may be missing from the ledger and are written again.
    Created {
        /// The settings chosen.
        settings: PoolRecord,
        /// Whether all first records are in the ledger.
        done: bool,
    },
    /// It was admitted.
    Joined,
}

/// The stored form.
#[derive(Serialize, Deserialize)]
struct StoredState {
    id: PoolId,
    #[serde(with = "zeroizing")]
    seed: Zeroizing<[u8; 32]>,
    #[serde(with = "zeroizing")]
    sealing_key: Zeroizing<[u8; 32]>,
    name: String,
    initial: Config,
    introduced: Vec<(PeerId, Vec<String>)>,
    origin: Origin,
}

/// Keys as plain bytes that are wiped when dropped.
mod zeroizing {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};
    use zeroize::Zeroizing;

    pub(super) fn serialize<S: Serializer>(key: &Zeroizing<[u8; 32]>, serializer: S) -> Result<S::Ok, S::Error> {
        (**key).serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Zeroizing<[u8; 32]>, D::Error> {
        <[u8; 32]>::deserialize(deserializer).map(Zeroizing::new)
    }
}

impl Stored for StoredState {
    const VERSION: u8 = 2;
    const KIND: &'static str = "pool state";

    fn decode_older(version: u8, rest: &[u8]) -> Result<Self, DecodeError> {
        match version {
            1 => decode_exact::<StoredStateV1>(Self::KIND, rest).map(Self::from),
            _ => Err(DecodeError::UnknownVersion { kind: Self::KIND, version }),
        }
    }
}

/// The form of version 1: the settings inside it were a [`PoolRecordV1`].
#[derive(Serialize, Deserialize)]
struct StoredStateV1 {
    id: PoolId,
    #[serde(with = "zeroizing")]
    seed: Zeroizing<[u8; 32]>,
    #[serde(with = "zeroizing")]
    sealing_key: Zeroizing<[u8; 32]>,
    name: String,
    initial: Config,
    introduced: Vec<(PeerId, Vec<String>)>,
    origin: OriginV1,
}

#[derive(Serialize, Deserialize)]
enum OriginV1 {
    Created { settings: PoolRecordV1, done: bool },
    Joined,
}

impl From<StoredStateV1> for StoredState {
    fn from(old: StoredStateV1) -> Self {
        let StoredStateV1 { id, seed, sealing_key, name, initial, introduced, origin } = old;
        let origin = match origin {
            OriginV1::Created { settings, done } => Origin::Created { settings: settings.into(), done },
            OriginV1::Joined => Origin::Joined,
        };
        Self { id, seed, sealing_key, name, initial, introduced, origin }
    }
}

impl PoolState {
    /// The state in this index; `None` when the peer has no pool yet.
    pub fn load(index: &Arc<dyn IndexStore>) -> Result<Option<Self>, StateError> {
        let Some(bytes) = index.get(Space::Meta, KEY)? else { return Ok(None) };
        let stored = StoredState::decode(&bytes)?;
        Ok(Some(Self {
            id: stored.id,
            seed: stored.seed,
            sealing_key: SealingKey::from_bytes(*stored.sealing_key),
            name: stored.name,
            initial: stored.initial,
            introduced: stored.introduced,
            origin: stored.origin,
        }))
    }

    /// Writes it, durably.
    pub async fn save(&self, index: &Arc<dyn IndexStore>) -> Result<(), StateError> {
        let stored = StoredState {
            id: self.id,
            seed: self.seed.clone(),
            sealing_key: Zeroizing::new(*self.sealing_key.expose()),
            name: self.name.clone(),
            initial: self.initial.clone(),
            introduced: self.introduced.clone(),
            origin: self.origin.clone(),
        };
        let write = Write::Put(Space::Meta, Bytes::from_static(KEY), stored.encode());
        Ok(index.commit(vec![write], Durability::Synced).await?)
    }

    /// Whether this peer made the pool: it shows the root access key at start.
    pub fn is_creator(&self) -> bool {
        matches!(self.origin, Origin::Created { .. })
    }
}

#[cfg(test)]
mod tests {
    use data_encoding::HEXLOWER;

    use super::*;

    /// A peer that made its pool with the first release starts with this one: its state must read, as a strong pool's,
    /// and be written anew as today's version.
    #[test]
    fn the_state_of_version_1_still_reads() {
        let (id, seed, sealing_key, voter) = ("01".repeat(16), "02".repeat(32), "03".repeat(32), "04".repeat(32));
        let hex = format!("01{id}{seed}{sealing_key}036c61620101{voter}000000036c61620a00000501");
        let bytes = HEXLOWER.decode(hex.as_bytes()).unwrap();
        let state = StoredState::decode(&bytes).unwrap();
        let Origin::Created { settings, done: true } = &state.origin else { panic!("{:?}", state.origin) };
        assert_eq!((settings.name.as_str(), settings.max_members, settings.created_ms), ("lab", 10, 5));
        assert_eq!(settings.consistency, palm_core::record::Consistency::Strong);
        assert_eq!(state.encode()[0], 2);
    }
}
