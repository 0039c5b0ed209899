//! What can go wrong, by what the front end answers.

use palm_core::code::CodeError;
use palm_core::place::PlaceError;
use palm_core::record::DecodeError;
use palm_core::s3::Refusal;
use palm_core::s3::version::Name;

use super::body::{BodyError, Rejection};
use crate::pool::secret::SecretError;
use crate::pool::{LedgerError, PoolError};

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
    /// The version is a delete marker: 404 where none was named, else 405
    /// (<https://docs.aws.amazon.com/AmazonS3/latest/userguide/DeleteMarker.html>).
    #[error("delete marker {version}")]
    Marker {
        /// The request named it.
        named: bool,
        /// Its id.
        version: Name,
        /// When it was made, in milliseconds since the Unix epoch.
        modified_ms: u64,
    },
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
    /// 503 `SlowDown`: the global buffer budget is used up.
    #[error("too busy")]
    Overloaded,
    /// 507.
    #[error("pool is full")]
    PoolFull,
    /// What S3's rules say no to: object lock, an ACL, a limit.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// 503: too few voters or homes in reach; the text says how many are missing.
    #[error("unavailable: {0}")]
    Unavailable(String),
    /// 500: our own fault.
    #[error("internal: {0}")]
    Internal(String),
}

impl ObjectError {
    /// Whether it is certain that nothing has changed.
    pub fn is_certain(&self) -> bool {
        !matches!(self, Self::Unavailable(_) | Self::Internal(_))
    }

    /// Whether an object or version was not found, and nothing is known of why.
    pub(super) fn is_absence(&self) -> bool {
        match self {
            Self::NoSuchKey => true,
            Self::Refused(refusal) => refusal.code == "NoSuchVersion",
            _ => false,
        }
    }
}

impl From<LedgerError> for ObjectError {
    fn from(error: LedgerError) -> Self {
        match error {
            LedgerError::NoQuorum { .. }
            | LedgerError::Absent(_)
            | LedgerError::Unknown(_)
            | LedgerError::Recovery(_) => Self::Unavailable(error.to_string()),
            // Nothing was written, and trying again later is the cure.
            LedgerError::Contended => Self::Overloaded,
            LedgerError::Storage(_) | LedgerError::Metrics(_) => Self::Internal(error.to_string()),
        }
    }
}

impl From<PoolError> for ObjectError {
    fn from(error: PoolError) -> Self {
        match error {
            PoolError::Ledger(error) => error.into(),
            PoolError::Wrong(refusal) => refusal.into(),
            other => Self::Internal(other.to_string()),
        }
    }
}

impl From<DecodeError> for ObjectError {
    fn from(error: DecodeError) -> Self {
        Self::Internal(error.to_string())
    }
}

impl From<PlaceError> for ObjectError {
    fn from(error: PlaceError) -> Self {
        match error {
            PlaceError::TooFewHomes { .. } => Self::Unavailable(error.to_string()),
            PlaceError::Full { .. } => Self::PoolFull,
            PlaceError::Policy(_) => Self::Internal(error.to_string()),
        }
    }
}

impl From<CodeError> for ObjectError {
    fn from(error: CodeError) -> Self {
        Self::Internal(error.to_string())
    }
}

impl From<SecretError> for ObjectError {
    fn from(error: SecretError) -> Self {
        Self::Internal(error.to_string())
    }
}

/// A task that panicked or was cancelled by the runtime's end.
impl From<tokio::task::JoinError> for ObjectError {
    fn from(error: tokio::task::JoinError) -> Self {
        Self::Internal(error.to_string())
    }
}
