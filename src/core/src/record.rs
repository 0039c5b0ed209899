//! What the registers hold, how it is encoded, and how register keys sort.
//!
//! Every value starts with one version byte; the rest is postcard (a documented, stable format:
//! varint integers, length-prefixed sequences, fields in order). `docs/format.md` has each as a table and
//! `tests` below keep golden bytes of each version for ever. To change a record: a new struct and version,
//! a conversion from the old, the old golden bytes kept.

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The encoding of a record that has had one version only.
macro_rules! stored {
    ($name:ident, $version:literal, $kind:literal) => {
        impl Stored for $name {
            const VERSION: u8 = $version;
            const KIND: &'static str = $kind;
        }
    };
}

mod bucket;
mod event;
mod fragment;
mod head;
mod identity;
pub mod key;
mod object;
mod pool;
#[cfg(test)]
mod tests;
mod upload;
mod usage;

pub use bucket::{BucketConfig, BucketRecord, BucketState, DefaultEncryption, Logging, ObjectLock};
pub use event::{EventRecord, EventTarget, Outcome};
pub use fragment::{FragmentRecord, MovedRecord, SharersRecord};
pub use head::{HeadRecord, LineRecord, PageRecord, Summary};
pub use identity::{AccessKeyRecord, IdentityKind, IdentityRecord, POLICIES_MAX, POLICIES_MAX_BYTES, Session};
pub use object::{
    Attributes, Checksum, ChecksumAlgorithm, ChecksumKind, Content, CustomerKey, Etag, ObjectRecord, PartRef, Placed,
    Segment, Subresources,
};
pub use pool::{
    Consistency, DataKeyRecord, JoinRequestRecord, MemberRecord, MemberState, PoolRecord, PoolRecordV1, TokenRecord,
    WhenMinority,
};
pub use upload::{PartRecord, UploadRecord, UploadState};
pub use usage::UsageRecord;

/// Bytes that are not the record they should be. They come from disks and peers, so this is an answer,
/// never a panic.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// No bytes at all.
    #[error("empty record")]
    Empty,
    /// Written by a newer PALM, or not a record.
    #[error("unknown {kind} version {version}")]
    UnknownVersion {
        /// Which record was expected.
        kind: &'static str,
        /// The version byte found.
        version: u8,
    },
    /// The version is known and the bytes do not fit it.
    #[error("malformed {kind}: {detail}")]
    Malformed {
        /// Which record was expected.
        kind: &'static str,
        /// What the decoder said.
        detail: String,
    },
}

/// A value with a versioned encoding: one version byte, then postcard.
pub trait Stored: Serialize + DeserializeOwned {
    /// The version written today.
    const VERSION: u8;
    /// The word for it in errors.
    const KIND: &'static str;

    /// Its stored bytes.
    fn encode(&self) -> Bytes {
        encode_as(Self::VERSION, self)
    }

    /// Reads stored bytes of any version ever written; all bytes must be used.
    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        match bytes.split_first() {
            None => Err(DecodeError::Empty),
            Some((&version, rest)) if version == Self::VERSION => decode_exact(Self::KIND, rest),
            Some((&version, rest)) => Self::decode_older(version, rest),
        }
    }

    /// Reads what an older version wrote after its version byte.
    fn decode_older(version: u8, _rest: &[u8]) -> Result<Self, DecodeError> {
        Err(DecodeError::UnknownVersion { kind: Self::KIND, version })
    }
}

/// A version byte, then postcard.
fn encode_as(version: u8, value: &impl Serialize) -> Bytes {
    // Serialising into a vector fails only for types postcard cannot express (unsized sequences);
    // none of ours is one, so failing here would be our own logic gone wrong.
    #[expect(clippy::expect_used, reason = "see above")]
    let bytes = postcard::to_extend(value, vec![version]).expect("record types are plain data");
    bytes.into()
}

/// Decodes postcard that must use every byte.
pub fn decode_exact<T: DeserializeOwned>(kind: &'static str, bytes: &[u8]) -> Result<T, DecodeError> {
    match postcard::take_from_bytes(bytes) {
        Ok((value, [])) => Ok(value),
        Ok((_, rest)) => Err(DecodeError::Malformed { kind, detail: format!("{} bytes left over", rest.len()) }),
        Err(error) => Err(DecodeError::Malformed { kind, detail: error.to_string() }),
    }
}
