//! An object, or one version of it: what clients said of it, and where its bytes are.

use serde::{Deserialize, Serialize};

use super::{DecodeError, Stored, decode_exact};
use crate::id::{BodyId, FragmentId, KeyId, PeerId, SegmentId};
use crate::s3::acl::Acl;
use crate::s3::lock::Lock;
use crate::s3::tags::Tag;

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
    /// Which of possibly several uploads of this number: names the register with [`key::part`](super::key::part).
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
    /// SHA-512, 64 bytes.
    Sha512,
    /// MD5, 16 bytes.
    Md5,
    /// XXH64 with seed 0, 8 bytes.
    XxHash64,
    /// XXH3 of 64 bits with seed 0, 8 bytes.
    XxHash3,
    /// XXH3 of 128 bits with seed 0, 16 bytes.
    XxHash128,
}

impl ChecksumAlgorithm {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Crc32,
        Self::Crc32c,
        Self::Crc64Nvme,
        Self::Sha1,
        Self::Sha256,
        Self::Sha512,
        Self::Md5,
        Self::XxHash64,
        Self::XxHash3,
        Self::XxHash128,
    ];

    /// Bytes of a value.
    pub const fn width(self) -> usize {
        match self {
            Self::Crc32 | Self::Crc32c => 4,
            Self::Crc64Nvme | Self::XxHash64 | Self::XxHash3 => 8,
            Self::Md5 | Self::XxHash128 => 16,
            Self::Sha1 => 20,
            Self::Sha256 => 32,
            Self::Sha512 => 64,
        }
    }
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
