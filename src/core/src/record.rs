//! What the registers hold, how it is encoded, and how register keys sort.
//!
//! Every value starts with one version byte; the rest is postcard (a documented, stable format:
//! varint integers, length-prefixed sequences, fields in order). `docs/format.md` has each as a table and
//! `tests` below keep golden bytes of each version for ever. To change a record: a new struct and version,
//! a conversion from the old, the old golden bytes kept.

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::id::{BodyId, FragmentId, KeyId, PeerId, SegmentId};
use crate::s3::account::Account;
use crate::s3::acl::Acl;
use crate::s3::lock::Lock;
use crate::s3::storage_class::ClassPolicy;
use crate::s3::tags::Tag;

mod bucket;
mod event;
mod head;
mod identity;
pub mod key;
#[cfg(test)]
mod tests;
mod usage;

pub use bucket::{BucketConfig, BucketRecord, BucketState, DefaultEncryption, Logging, ObjectLock};
pub use event::{EventRecord, EventTarget, Outcome};
pub use head::{HeadRecord, LineRecord, PageRecord, Summary};
pub use identity::{AccessKeyRecord, IdentityKind, IdentityRecord, POLICIES_MAX, POLICIES_MAX_BYTES, Session};
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

macro_rules! stored {
    ($name:ident, $version:literal, $kind:literal) => {
        impl Stored for $name {
            const VERSION: u8 = $version;
            const KIND: &'static str = $kind;
        }
    };
}

/// What a pool promises of its buckets and objects. Members, keys and settings are strong in every pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Consistency {
    /// Linearizable; nothing is answered without a majority of the voters.
    #[default]
    Strong,
    /// Every peer answers by itself; what islands wrote is merged when they meet ([`crate::merge`]).
    Local,
}

/// What a strong pool does for readers while the majority of its voters is out of reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WhenMinority {
    /// Answers 503.
    #[default]
    Refuse,
    /// Answers what the peer knows, labelled as stale.
    ReadStale,
}

/// A pool's settings, chosen when it is created.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolRecord {
    /// Shown to people and announced by mDNS.
    pub name: String,
    /// Joins beyond this are refused.
    pub max_members: u16,
    /// `None`: chosen from the number of members ([`crate::place::Policy::auto`]).
    pub policy: Option<(u8, u8)>,
    /// Admit joiners at once, without token or approval.
    pub open: bool,
    /// Milliseconds since the Unix epoch.
    pub created_ms: u64,
    /// Never changes: the two kinds keep their data in different places.
    pub consistency: Consistency,
    /// For strong pools.
    pub when_minority: WhenMinority,
    /// Storage classes with policies of their own. Not in version 2.
    pub classes: Vec<ClassPolicy>,
}

impl Stored for PoolRecord {
    const VERSION: u8 = 3;
    const KIND: &'static str = "pool";

    fn decode_older(version: u8, rest: &[u8]) -> Result<Self, DecodeError> {
        match version {
            1 => decode_exact::<PoolRecordV1>(Self::KIND, rest).map(Self::from),
            2 => decode_exact::<PoolRecordV2>(Self::KIND, rest).map(Self::from),
            _ => Err(DecodeError::UnknownVersion { kind: Self::KIND, version }),
        }
    }
}

/// [`PoolRecord`] as version 1 had it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "as in PoolRecord")]
pub struct PoolRecordV1 {
    pub name: String,
    pub max_members: u16,
    pub policy: Option<(u8, u8)>,
    pub open: bool,
    pub created_ms: u64,
}

impl From<PoolRecordV1> for PoolRecord {
    fn from(old: PoolRecordV1) -> Self {
        let PoolRecordV1 { name, max_members, policy, open, created_ms } = old;
        let (consistency, when_minority, classes) = Default::default();
        Self { name, max_members, policy, open, created_ms, consistency, when_minority, classes }
    }
}

/// [`PoolRecord`] as version 2 had it.
#[derive(Deserialize)]
struct PoolRecordV2 {
    name: String,
    max_members: u16,
    policy: Option<(u8, u8)>,
    open: bool,
    created_ms: u64,
    consistency: Consistency,
    when_minority: WhenMinority,
}

impl From<PoolRecordV2> for PoolRecord {
    fn from(old: PoolRecordV2) -> Self {
        let PoolRecordV2 { name, max_members, policy, open, created_ms, consistency, when_minority } = old;
        Self { name, max_members, policy, open, created_ms, consistency, when_minority, classes: Vec::new() }
    }
}

/// Where a member stands. Absence is not here: it is observed, never recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum MemberState {
    /// Admitted.
    Active,
    /// Sent away; its connections are refused.
    Evicted,
    /// Gone of its own accord; its connections are refused. Not in version 1.
    Left,
}

impl MemberState {
    /// Whether it is not a member any more, for good: its key opens nothing.
    pub fn is_dismissed(self) -> bool {
        self != Self::Active
    }
}

/// A peer admitted to the pool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberRecord {
    /// Host name or what its owner called it.
    pub name: String,
    /// Where it stands.
    pub state: MemberState,
    /// When it was admitted; the oldest members are the first voters.
    pub joined_ms: u64,
    /// `host:port` it was last known at. A hint: identity decides.
    pub addresses: Vec<String>,
    /// Why it was sent away, in the words of whoever did it. Not in version 1.
    pub reason: String,
}

impl Stored for MemberRecord {
    const VERSION: u8 = 2;
    const KIND: &'static str = "member";

    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        match bytes.split_first() {
            None => Err(DecodeError::Empty),
            Some((2, rest)) => decode_exact(Self::KIND, rest),
            Some((1, rest)) => decode_exact::<MemberRecord1>(Self::KIND, rest).map(Into::into),
            Some((&version, _)) => Err(DecodeError::UnknownVersion { kind: Self::KIND, version }),
        }
    }
}

/// Version 1 of [`MemberRecord`].
#[derive(Deserialize)]
struct MemberRecord1 {
    name: String,
    state: MemberState,
    joined_ms: u64,
    addresses: Vec<String>,
}

impl From<MemberRecord1> for MemberRecord {
    fn from(old: MemberRecord1) -> Self {
        let MemberRecord1 { name, state, joined_ms, addresses } = old;
        Self { name, state, joined_ms, addresses, reason: String::new() }
    }
}

/// A single-use invitation, found under the hash of its secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenRecord {
    /// Refused from then on, milliseconds since the Unix epoch.
    pub expires_ms: u64,
    /// Who used it. The same peer may present it again (its first answer may have been lost).
    pub used_by: Option<PeerId>,
}
stored!(TokenRecord, 1, "token");

/// A peer that asks to be admitted and has no token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinRequestRecord {
    /// What it calls itself.
    pub name: String,
    /// Where it asked from.
    pub address: String,
    /// When, milliseconds since the Unix epoch.
    pub requested_ms: u64,
    /// Set by `palm approve` on any member.
    pub approved: bool,
}
stored!(JoinRequestRecord, 1, "join request");

/// A bucket's data key, sealed by the pool key. Never deleted while anything may be sealed with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataKeyRecord {
    /// 32 bytes, sealed by the pool key.
    pub sealed: Vec<u8>,
}
stored!(DataKeyRecord, 1, "data key");

/// One fragment at one home.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placed {
    /// Which of the n fragments, from 0; below k it is a data fragment.
    pub index: u8,
    /// The peer that keeps it.
    pub home: PeerId,
    /// BLAKE3 of its bytes.
    pub id: FragmentId,
}

/// At most [`crate::code::SEGMENT_BYTES`] of one body.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Segment {
    /// Random; what its sealing secret is derived from.
    pub id: SegmentId,
    /// Plaintext bytes.
    pub len: u64,
    /// Fragments needed.
    pub k: u8,
    /// Fragments meant to exist; `fragments` holds fewer when it was written while homes were away.
    pub n: u8,
    /// In order of index.
    pub fragments: Vec<Placed>,
}

/// One part of a completed multipart upload. Its segments are in the part's own register.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartRef {
    /// 1 to 10,000.
    pub number: u16,
    /// Which of possibly several uploads of this number: names the register with [`key::part`].
    pub attempt: u64,
    /// Plaintext bytes.
    pub size: u64,
    /// MD5 of the part.
    pub md5: [u8; 16],
    /// The part's own checksum, where the upload has one.
    pub checksum: Option<Checksum>,
}

/// Where the bytes of an object are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Content {
    /// An uploaded body's segments, in order. None when it is empty.
    Segments(Vec<Segment>),
    /// A completed multipart upload's parts, in order.
    Parts(Vec<PartRef>),
}

/// Additional checksum algorithms of S3
/// (<https://docs.aws.amazon.com/AmazonS3/latest/userguide/checking-object-integrity.html>).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ChecksumAlgorithm {
    /// CRC-32 (ISO-HDLC), 4 bytes.
    Crc32,
    /// CRC-32C (Castagnoli), 4 bytes.
    Crc32c,
    /// CRC-64/NVME, 8 bytes.
    Crc64Nvme,
    /// SHA-1, 20 bytes.
    Sha1,
    /// SHA-256, 32 bytes.
    Sha256,
}

/// What a multipart object's checksum covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ChecksumKind {
    /// The object's bytes.
    FullObject,
    /// The concatenated checksums of its parts.
    Composite,
}

/// A checksum S3 stores and returns.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checksum {
    /// How it was computed.
    pub algorithm: ChecksumAlgorithm,
    /// Over what.
    pub kind: ChecksumKind,
    /// Its bytes, big-endian as S3 encodes them.
    pub value: Vec<u8>,
}

/// An object's entity tag: the body's MD5, or for a multipart object the MD5 of its parts' MD5s and their
/// number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Etag {
    /// 16 bytes of MD5.
    pub md5: [u8; 16],
    /// 0 for an object uploaded whole.
    pub parts: u16,
}

impl std::fmt::Display for Etag {
    /// Without quotes: `0123…cdef` or `0123…cdef-17`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&data_encoding::HEXLOWER.encode(&self.md5))?;
        if self.parts > 0 {
            write!(f, "-{}", self.parts)?;
        }
        Ok(())
    }
}

/// What a client says about an object besides its bytes: kept and given back as it came.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Attributes {
    /// `Content-Type`.
    pub content_type: Option<String>,
    /// `Content-Encoding`, without `aws-chunked`.
    pub content_encoding: Option<String>,
    /// `Content-Language`.
    pub content_language: Option<String>,
    /// `Content-Disposition`.
    pub content_disposition: Option<String>,
    /// `Cache-Control`.
    pub cache_control: Option<String>,
    /// `Expires`, as sent.
    pub expires: Option<String>,
    /// `x-amz-website-redirect-location`.
    pub website_redirect: Option<String>,
    /// `x-amz-storage-class` when it is not STANDARD.
    pub storage_class: Option<String>,
    /// `x-amz-meta-*`: lower-case name without the prefix, and value.
    pub user: Vec<(String, String)>,
}

/// What S3 keeps beside an object and can be changed without writing it anew.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Subresources {
    /// `None`: it belongs to the bucket's owner, who alone may do anything with it.
    pub acl: Option<Acl>,
    /// In the order they were given.
    pub tags: Vec<Tag>,
    /// Retention and legal hold.
    pub lock: Lock,
}

/// That an object is encrypted with a key its client keeps (SSE-C), and how to know that key again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CustomerKey {
    /// Drawn at random for the object or upload: what the client's key is mixed with.
    pub salt: [u8; 16],
    /// A hash of both, which says whether a key is the right one and nothing else about it.
    pub check: [u8; 32],
}

/// An object, or one version of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectRecord {
    /// Plaintext bytes.
    pub size: u64,
    /// Entity tag.
    pub etag: Etag,
    /// Headers and user metadata.
    pub attributes: Attributes,
    /// The additional checksum the client gave or asked for.
    pub checksum: Option<Checksum>,
    /// What seals the body.
    pub data_key: KeyId,
    /// What collection counts references to.
    pub body: BodyId,
    /// Where the bytes are.
    pub content: Content,
    /// ACL, tags, lock. Not in version 1.
    pub subresources: Subresources,
    /// Its bytes are encrypted before they are sealed. Not in version 1.
    pub customer_key: Option<CustomerKey>,
}

impl Stored for ObjectRecord {
    const VERSION: u8 = 2;
    const KIND: &'static str = "object";

    fn decode_older(version: u8, rest: &[u8]) -> Result<Self, DecodeError> {
        match version {
            1 => decode_exact::<ObjectRecord1>(Self::KIND, rest).map(Into::into),
            _ => Err(DecodeError::UnknownVersion { kind: Self::KIND, version }),
        }
    }
}

/// Version 1 of [`ObjectRecord`].
#[derive(Deserialize)]
struct ObjectRecord1 {
    size: u64,
    etag: Etag,
    attributes: Attributes,
    checksum: Option<Checksum>,
    data_key: KeyId,
    body: BodyId,
    content: Content,
}

impl From<ObjectRecord1> for ObjectRecord {
    fn from(old: ObjectRecord1) -> Self {
        let ObjectRecord1 { size, etag, attributes, checksum, data_key, body, content } = old;
        let (subresources, customer_key) = Default::default();
        Self { size, etag, attributes, checksum, data_key, body, content, subresources, customer_key }
    }
}

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

/// The objects that share a body because one was copied from another, by their register keys: every holder is among them.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SharersRecord {
    /// Object register keys; a key stays after its object is gone, which costs one look, not safety.
    pub objects: Vec<Vec<u8>>,
}
stored!(SharersRecord, 1, "sharers");

/// Where a segment's fragments are since repair changed it. Overrides what the object's or part's record says, so that
/// repair never races a client's overwrite.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MovedRecord {
    /// The body the segment belongs to; the record goes when the body is garbage.
    pub body: BodyId,
    /// Register key of the object the body was uploaded for.
    pub object: Vec<u8>,
    /// The segment as it is now: homes, and after recoding also policy and fragment ids.
    pub segment: Segment,
}
stored!(MovedRecord, 1, "moved segment");

/// What a home notes beside a fragment, so that it can ask whether anything still refers to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FragmentRecord {
    /// The segment it belongs to.
    pub segment: SegmentId,
    /// Which of the n.
    pub index: u8,
    /// The body the segment belongs to.
    pub body: BodyId,
    /// Register key of the object the body was uploaded for.
    pub object: Vec<u8>,
    /// Who uploaded, and in which life: while that one says the upload is in flight, nothing is collected.
    pub writer: PeerId,
    /// When it was stored here, milliseconds since the Unix epoch.
    pub stored_ms: u64,
    /// Bytes.
    pub len: u64,
    /// Which of this peer's backends keeps it, by its number in the index. Not in version 1: there was only 0.
    pub backend: u16,
    /// Found to hold other bytes than its name says. Kept until it is replaced: most of its stripes may be right.
    pub corrupt: bool,
    /// Since when nothing refers to it as far as the ledger says: in the trash, to be deleted after a second look.
    pub trashed_ms: Option<u64>,
}

impl Stored for FragmentRecord {
    const VERSION: u8 = 2;
    const KIND: &'static str = "fragment";

    fn decode_older(version: u8, rest: &[u8]) -> Result<Self, DecodeError> {
        match version {
            1 => decode_exact::<FragmentRecord1>(Self::KIND, rest).map(Into::into),
            _ => Err(DecodeError::UnknownVersion { kind: Self::KIND, version }),
        }
    }
}

/// Version 1 of [`FragmentRecord`].
#[derive(Deserialize)]
struct FragmentRecord1 {
    segment: SegmentId,
    index: u8,
    body: BodyId,
    object: Vec<u8>,
    writer: PeerId,
    stored_ms: u64,
    len: u64,
}

impl From<FragmentRecord1> for FragmentRecord {
    fn from(old: FragmentRecord1) -> Self {
        let FragmentRecord1 { segment, index, body, object, writer, stored_ms, len } = old;
        Self { segment, index, body, object, writer, stored_ms, len, backend: 0, corrupt: false, trashed_ms: None }
    }
}
