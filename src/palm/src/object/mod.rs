//! The object layer: buckets, objects and uploads over the ledger and the homes. It never sees s3s.

use std::ops::Range;

use bytes::Bytes;
use futures::stream::BoxStream;
use palm_core::hlc::Ballot;
use palm_core::id::BodyId;
use palm_core::record::{
    Attributes, BucketRecord, Checksum, ChecksumAlgorithm, ChecksumKind, Etag, ObjectRecord, UploadRecord,
};

/// A body on its way in or out.
pub type ByteStream = BoxStream<'static, Result<Bytes, BodyError>>;

/// Why a body ended early.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// The client stopped sending, or sent too little or too much.
    #[error("body incomplete")]
    Incomplete,
    /// The front end refused the body while it streamed (a bad chunk signature, say).
    #[error("body refused: {0}")]
    Refused(Rejection),
    /// On the way out: too few fragments could be read. The connection must be cut, never ended cleanly.
    #[error("body unavailable: {0}")]
    Unavailable(String),
}

/// Why the front end refuses a body; the S3 layer knows the codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// `Content-MD5` does not match.
    #[error("content md5 does not match")]
    BadDigest,
    /// `x-amz-content-sha256` does not match.
    #[error("payload sha256 does not match")]
    BadPayloadHash,
    /// `x-amz-checksum-*` does not match or is missing where promised.
    #[error("checksum does not match")]
    BadChecksum,
    /// A chunk's signature is wrong.
    #[error("chunk signature does not match")]
    BadSignature,
    /// The chunked framing or a trailer is malformed.
    #[error("malformed chunked body")]
    Malformed,
    /// More bytes than S3 allows.
    #[error("body too large")]
    TooLarge,
}

/// What was computed over a body once it has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Digested {
    /// Bytes.
    pub size: u64,
    /// MD5.
    pub md5: [u8; 16],
    /// The checksums asked for by [`Incoming::algorithms`], full-object.
    pub checksums: Vec<Checksum>,
}

/// Judges a body once it has ended, before anything of it becomes visible (trailers are readable by
/// then), and says which checksum to store.
pub type Verify = Box<dyn FnOnce(&Digested) -> Result<Option<Checksum>, Rejection> + Send>;

/// A body being uploaded.
pub struct Incoming {
    /// Its bytes.
    pub stream: ByteStream,
    /// Its (decoded) length where the client declared it.
    pub length: Option<u64>,
    /// Checksums to compute beside MD5.
    pub algorithms: Vec<ChecksumAlgorithm>,
    /// Judges it.
    pub verify: Verify,
}

/// Conditions of a write, decided inside the ledger update on the record it replaces.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct WriteConditions {
    /// `If-None-Match: *`: only where no object is.
    pub if_absent: bool,
    /// `If-Match`: only where the object has one of these entity tags (unquoted), or any with `*`.
    pub if_match: Option<String>,
}

/// An object as a strong read found it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// Stamp of the write that made it; its milliseconds are the last-modified time.
    pub version: Ballot,
    /// The record.
    pub record: ObjectRecord,
}

impl Object {
    /// Milliseconds since the Unix epoch.
    pub fn modified_ms(&self) -> u64 {
        self.version.stamp.millis()
    }
}

/// Why an operation failed. Variants by what the front end answers; after any error but
/// `Unavailable`/`Internal` nothing has changed, after those the outcome of a write is unknown.
#[derive(Debug, thiserror::Error)]
pub enum ObjectError {
    /// 404.
    #[error("no such bucket")]
    NoSuchBucket,
    /// 404.
    #[error("no such key")]
    NoSuchKey,
    /// 404.
    #[error("no such upload")]
    NoSuchUpload,
    /// 409; `owned` by the asker or by another.
    #[error("bucket exists")]
    BucketExists {
        /// By the asker itself.
        owned: bool,
    },
    /// 409.
    #[error("bucket not empty")]
    BucketNotEmpty,
    /// 412.
    #[error("precondition failed")]
    PreconditionFailed,
    /// 409: lost a race against another conditional write.
    #[error("conflicting conditional write")]
    Conflict,
    /// 400: a part that is not there or whose tag differs.
    #[error("invalid part")]
    InvalidPart,
    /// 400.
    #[error("parts out of order")]
    InvalidPartOrder,
    /// 400: a part other than the last under 5 MiB.
    #[error("part too small")]
    PartTooSmall,
    /// 400: the completed object's checksum or size is not what the client says.
    #[error("object does not match what the client expects: {0}")]
    Mismatch(Rejection),
    /// 416.
    #[error("range not satisfiable")]
    BadRange,
    /// The body ended early or was refused.
    #[error(transparent)]
    Body(#[from] BodyError),
    /// 503 SlowDown: the global buffer budget is used up.
    #[error("too busy")]
    Overloaded,
    /// 507.
    #[error("pool is full")]
    PoolFull,
    /// 503: too few voters or homes in reach; the text says how many are missing.
    #[error("unavailable: {0}")]
    Unavailable(String),
    /// 500: our own fault.
    #[error("internal: {0}")]
    Internal(String),
}

/// Which keys a listing asks for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ListQuery {
    /// Keys start with it.
    pub prefix: String,
    /// Keys from here on (inclusive). The front end turns marker, start-after and tokens into it with
    /// [`after_key`] and [`after_group`].
    pub start: String,
    /// Groups keys by it; never empty.
    pub delimiter: Option<String>,
    /// Keys and groups together, at most 1000.
    pub limit: u32,
}

/// One line of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listed<T> {
    /// A key.
    Key(String, T),
    /// A common prefix, with its delimiter.
    Group(String),
}

/// One page of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListPage<T> {
    /// Keys and groups in binary order.
    pub items: Vec<Listed<T>>,
    /// Where the next page starts ([`ListQuery::start`]); `None` when this was the last.
    pub next: Option<String>,
}

/// A new upload's properties.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NewUpload {
    /// Access key of the asker.
    pub owner: String,
    /// For the object to come.
    pub attributes: Attributes,
    /// Checksum asked for.
    pub checksum: Option<(ChecksumAlgorithm, ChecksumKind)>,
}

/// A part as listed or stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartInfo {
    /// 1 to 10,000.
    pub number: u16,
    /// Bytes.
    pub size: u64,
    /// MD5: its entity tag.
    pub md5: [u8; 16],
    /// Its checksum.
    pub checksum: Option<Checksum>,
    /// Milliseconds since the Unix epoch.
    pub modified_ms: u64,
}

/// A part as a client names it in CompleteMultipartUpload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CompletedPart {
    /// 1 to 10,000.
    pub number: u16,
    /// Entity tag without quotes.
    pub etag: String,
    /// The part's checksum as the client says; must match the stored one when given.
    pub checksum: Option<Checksum>,
}

/// What a client expects of a completed upload.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Completion {
    /// Its parts, in ascending order.
    pub parts: Vec<CompletedPart>,
    /// Conditions on the object replaced.
    pub conditions: WriteConditions,
    /// Full-object checksum the client expects.
    pub checksum: Option<Checksum>,
    /// `x-amz-mp-object-size`.
    pub size: Option<u64>,
}

// impl Store { // cheap to clone
//   pub async fn create_bucket(&self, name: &str, owner: &str) -> Result<(), ObjectError>;
//   pub async fn bucket(&self, name: &str) -> Result<BucketRecord, ObjectError>;              // strong
//   pub async fn delete_bucket(&self, name: &str) -> Result<(), ObjectError>;
//   pub async fn list_buckets(&self, query: ListQuery) -> Result<ListPage<BucketRecord>, ObjectError>;
//   pub async fn put(&self, bucket: &str, key: &str, attributes: Attributes, conditions: WriteConditions,
//                    body: Incoming) -> Result<Object, ObjectError>;
//   pub async fn head(&self, bucket: &str, key: &str) -> Result<Object, ObjectError>;         // strong read; NoSuchBucket vs NoSuchKey
//   pub async fn read(&self, object: &Object, range: Range<u64>) -> Result<ByteStream, ObjectError>; // first stripe opened before Ok
//   pub async fn delete(&self, bucket: &str, key: &str, conditions: WriteConditions) -> Result<bool, ObjectError>; // Ok(false): nothing was there
//   pub async fn copy(&self, source: &Object, source_at: (&str, &str), bucket: &str, key: &str, attributes: Attributes,
//                    conditions: WriteConditions) -> Result<Object, ObjectError>;  // shares the body
//   pub async fn list(&self, bucket: &str, query: ListQuery) -> Result<ListPage<Object>, ObjectError>;
//   pub async fn create_upload(&self, bucket: &str, key: &str, new: NewUpload) -> Result<BodyId, ObjectError>;
//   pub async fn upload(&self, bucket: &str, key: &str, id: BodyId) -> Result<UploadRecord, ObjectError>;
//   pub async fn put_part(&self, bucket: &str, key: &str, id: BodyId, number: u16, body: Incoming) -> Result<PartInfo, ObjectError>;
//   pub async fn list_parts(&self, bucket: &str, key: &str, id: BodyId) -> Result<(UploadRecord, Vec<PartInfo>), ObjectError>; // all parts, newest attempt each, ascending
//   pub async fn list_uploads(&self, bucket: &str, query: ListQuery, upload_marker: Option<BodyId>) -> Result<ListPage<(BodyId, UploadRecord)>, ObjectError>;
//       // query.start = key marker semantics: see S3 ListMultipartUploads; next = key to resume at
//   pub async fn complete_upload(&self, bucket: &str, key: &str, id: BodyId, completion: Completion) -> Result<Object, ObjectError>;
//   pub async fn abort_upload(&self, bucket: &str, key: &str, id: BodyId) -> Result<(), ObjectError>;
//   pub async fn access_key(&self, id: &str) -> Result<Option<Credentials>, ObjectError>; // Credentials { secret: Zeroizing<String>, root: bool }
// }

/// Scaffold.
#[derive(Debug, Clone, Copy, Default)]
pub struct CollectSettings;

/// Scaffold.
pub struct StoreParts {
    /// Scaffold.
    pub ledger: crate::pool::Ledger,
    /// Scaffold.
    pub net: crate::net::Net,
    /// Scaffold.
    pub view: crate::pool::View,
    /// Scaffold.
    pub fragments: std::sync::Arc<dyn palm_backends::FragmentStore>,
    /// Scaffold.
    pub index: std::sync::Arc<dyn palm_backends::IndexStore>,
    /// Scaffold.
    pub sealing_key: crate::pool::SealingKey,
    /// Scaffold.
    pub collect: CollectSettings,
}

/// Scaffold.
#[derive(Debug, Default)]
pub struct Counters {
    /// Scaffold.
    pub corrupt_shards: std::sync::atomic::AtomicU64,
    /// Scaffold.
    pub hedged_reads: std::sync::atomic::AtomicU64,
    /// Scaffold.
    pub reduced_segments: std::sync::atomic::AtomicU64,
    /// Scaffold.
    pub collected_fragments: std::sync::atomic::AtomicU64,
}

/// Scaffold.
#[derive(Clone)]
pub struct Store(std::sync::Arc<Counters>);

impl Store {
    /// Scaffold.
    pub fn new(parts: StoreParts) -> Self {
        drop(parts);
        Self(std::sync::Arc::default())
    }
    /// Scaffold.
    pub fn home(&self) -> &Home {
        &Home
    }
    /// Scaffold.
    pub fn counters(&self) -> &Counters {
        &self.0
    }
    /// Scaffold.
    pub fn free_buffer_bytes(&self) -> u64 {
        0
    }
    /// Scaffold.
    pub async fn collect(&self) {
        std::future::pending().await
    }
}

/// Scaffold.
#[derive(Clone)]
pub struct Home;

impl Home {
    /// Scaffold.
    pub async fn call(&self, _: palm_core::id::PeerId, _: palm_core::wire::Request) -> palm_core::wire::Response {
        palm_core::wire::Response::NotFound
    }
    /// Scaffold.
    pub async fn put_fragment(
        &self,
        _: palm_core::id::PeerId,
        _: palm_core::wire::FragmentOrigin,
        _: crate::net::FragmentSource,
    ) -> palm_core::wire::Response {
        palm_core::wire::Response::NotFound
    }
    /// Scaffold.
    pub async fn get_fragment(
        &self,
        _: palm_core::id::PeerId,
        _: palm_core::id::FragmentId,
        _: u64,
        _: u64,
        _: crate::net::FragmentSink,
    ) {
    }
}
