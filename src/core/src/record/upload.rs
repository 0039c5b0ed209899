//! Multipart uploads under way, and their parts.

use serde::{Deserialize, Serialize};

use super::{
    Attributes, Checksum, ChecksumAlgorithm, ChecksumKind, CustomerKey, DecodeError, Segment, Stored, Subresources,
    decode_exact,
};
use crate::id::KeyId;
use crate::s3::account::Account;

/// Whether an upload still takes parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum UploadState {
    /// Takes parts.
    Open,
    /// A completion has won over any abort and is writing the object; it may be retried.
    Completing,
}

/// A multipart upload under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UploadRecord {
    /// Canonical id of the account that began it.
    pub owner: String,
    /// Milliseconds since the Unix epoch.
    pub created_ms: u64,
    /// Whether it still takes parts.
    pub state: UploadState,
    /// For the object to come.
    pub attributes: Attributes,
    /// Algorithm and kind of the checksum asked for at creation.
    pub checksum: Option<(ChecksumAlgorithm, ChecksumKind)>,
    /// What seals its parts.
    pub data_key: KeyId,
    /// For the object to come. Not in version 1.
    pub subresources: Subresources,
    /// Its parts are encrypted with it. Not in version 1.
    pub customer_key: Option<CustomerKey>,
}

impl Stored for UploadRecord {
    const VERSION: u8 = 2;
    const KIND: &'static str = "upload";

    fn decode_older(version: u8, rest: &[u8]) -> Result<Self, DecodeError> {
        match version {
            1 => decode_exact::<UploadRecord1>(Self::KIND, rest).map(Into::into),
            _ => Err(DecodeError::UnknownVersion { kind: Self::KIND, version }),
        }
    }
}

/// Version 1 of [`UploadRecord`].
#[derive(Deserialize)]
struct UploadRecord1 {
    /// An access key of what is the main account now.
    #[serde(rename = "owner")]
    _owner: String,
    created_ms: u64,
    state: UploadState,
    attributes: Attributes,
    checksum: Option<(ChecksumAlgorithm, ChecksumKind)>,
    data_key: KeyId,
}

impl From<UploadRecord1> for UploadRecord {
    fn from(old: UploadRecord1) -> Self {
        let UploadRecord1 { created_ms, state, attributes, checksum, data_key, .. } = old;
        let (subresources, customer_key) = Default::default();
        let owner = Account::main().canonical_id();
        Self { owner, created_ms, state, attributes, checksum, data_key, subresources, customer_key }
    }
}

/// One uploaded part: written once, under a key of its own for every attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartRecord {
    /// Plaintext bytes.
    pub size: u64,
    /// MD5 of the part; its entity tag.
    pub md5: [u8; 16],
    /// The part's checksum.
    pub checksum: Option<Checksum>,
    /// Where the bytes are.
    pub segments: Vec<Segment>,
}
stored!(PartRecord, 1, "part");
