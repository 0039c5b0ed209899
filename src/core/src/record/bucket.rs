//! What is kept of a bucket: whose it is, and everything that was configured. One register, so that what depends on
//! several settings is decided in one update.

use serde::{Deserialize, Serialize};

use super::{DecodeError, Stored, decode_exact};
use crate::id::KeyId;
use crate::s3::account::Account;
use crate::s3::acl::{Acl, Grant, Ownership, PublicAccessBlock};
use crate::s3::cors;
use crate::s3::lifecycle;
use crate::s3::lock::DefaultRetention;
use crate::s3::notification;
use crate::s3::quota::Quota;
use crate::s3::tags::Tag;
use crate::s3::version::Versioning;
use crate::s3::website::Website;

/// Deleting a bucket takes two steps so that a racing upload cannot slip in between the check that it
/// is empty and its removal: see `object/bucket.rs`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum BucketState {
    /// Takes objects.
    Active,
    /// Being checked for emptiness; takes no new objects.
    Deleting,
}

/// A bucket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BucketRecord {
    /// Canonical id of the account that owns it. In version 1 an access key, of what is the main account now.
    pub owner: String,
    /// Milliseconds since the Unix epoch.
    pub created_ms: u64,
    /// Whether it takes objects.
    pub state: BucketState,
    /// Seals what is written to it.
    pub data_key: KeyId,
    /// What was configured. Not in version 1.
    pub config: BucketConfig,
}

/// The settings of a bucket, as S3's operations put them.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct BucketConfig {
    /// Whether it keeps versions.
    pub versioning: Versioning,
    /// `None`: object lock is off, and no version of it is ever locked.
    pub object_lock: Option<ObjectLock>,
    /// `None`: everything to the owner.
    pub acl: Option<Acl>,
    /// `None`: no ownership controls, which means [`Ownership::ObjectWriter`].
    pub ownership: Option<Ownership>,
    /// `None`: nothing is kept from the public.
    pub public_access_block: Option<PublicAccessBlock>,
    /// The policy document as it was put.
    pub policy: Option<String>,
    /// In the order they were given.
    pub tags: Vec<Tag>,
    /// What browsers are told.
    pub cors: Option<cors::Configuration>,
    /// What website hosts answer.
    pub website: Option<Website>,
    /// What expires when.
    pub lifecycle: Option<lifecycle::Configuration>,
    /// Who is told of what happens.
    pub notification: notification::Configuration,
    /// Where requests are logged.
    pub logging: Option<Logging>,
    /// `None`: as everywhere.
    pub encryption: Option<DefaultEncryption>,
    /// What it may hold.
    pub quota: Quota,
    /// `LocationConstraint`, as it was given.
    pub location: Option<String>,
}

/// Object lock of a bucket; once on, it stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ObjectLock {
    /// For versions that bring no retention.
    pub default: Option<DefaultRetention>,
}

/// Where a bucket's access log goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Logging {
    /// The bucket that takes it.
    pub bucket: String,
    /// What its keys begin with.
    pub prefix: String,
    /// Grants on the log's objects.
    pub grants: Vec<Grant>,
    /// Keys name source and date (`PartitionedPrefix`): `true` by the time of the events, `false` by that of delivery.
    pub partitioned_by_event_time: Option<bool>,
}

/// Encryption of objects that ask for none. All data is sealed, so this only says what is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct DefaultEncryption {
    /// `BucketKeyEnabled`, given back as it came.
    pub bucket_key: bool,
}

impl Stored for BucketRecord {
    const VERSION: u8 = 2;
    const KIND: &'static str = "bucket";

    fn decode_older(version: u8, rest: &[u8]) -> Result<Self, DecodeError> {
        match version {
            1 => decode_exact::<BucketRecord1>(Self::KIND, rest).map(Into::into),
            _ => Err(DecodeError::UnknownVersion { kind: Self::KIND, version }),
        }
    }
}

/// Version 1 of [`BucketRecord`].
#[derive(Deserialize)]
struct BucketRecord1 {
    #[serde(rename = "owner")]
    _owner: String,
    created_ms: u64,
    state: BucketState,
    data_key: KeyId,
}

impl From<BucketRecord1> for BucketRecord {
    fn from(old: BucketRecord1) -> Self {
        let BucketRecord1 { created_ms, state, data_key, .. } = old;
        Self { owner: Account::main().canonical_id(), created_ms, state, data_key, config: BucketConfig::default() }
    }
}
