//! The register of a key, and the lines that listings show of its versions.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{Checksum, DecodeError, Etag, ObjectRecord, Stored, decode_exact, encode_as};
use crate::hlc::Stamp;
use crate::register::Current;
use crate::s3::version::{self, Head, Kind, Null, Page};

/// What listings say of an object. It is what never changes about one, so each version's register and its line agree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// Plaintext bytes.
    pub size: u64,
    /// Entity tag.
    pub etag: Etag,
    /// Canonical id of its owner; `None`: the bucket's.
    pub owner: Option<String>,
    /// When it is not STANDARD.
    pub storage_class: Option<String>,
    /// Its checksum.
    pub checksum: Option<Checksum>,
}

impl From<&ObjectRecord> for Summary {
    fn from(object: &ObjectRecord) -> Self {
        Self {
            size: object.size,
            etag: object.etag,
            owner: object.subresources.acl.as_ref().map(|acl| acl.owner.clone()),
            storage_class: object.attributes.storage_class.clone(),
            checksum: object.checksum.clone(),
        }
    }
}

/// The register of a key: which versions there are, and the null version itself.
pub type HeadRecord = Head<ObjectRecord, Summary>;
/// A version in it.
pub type LineRecord = version::Line<Summary>;
/// Lines of older versions.
pub type PageRecord = Page<Summary>;

impl HeadRecord {
    /// The head in a register. One written before there were versions is the null version, made when it was written.
    ///
    /// # Errors
    /// The bytes are no head.
    pub fn of(current: &Current) -> Result<Self, DecodeError> {
        match current.value.first() {
            Some(&version) if version < Self::VERSION => {
                let kind = Kind::Object(ObjectRecord::decode(&current.value)?);
                let null = Some(Null { stamp: current.version.stamp, kind });
                Ok(Self { null, ..Self::default() })
            }
            _ => Self::decode(&current.value),
        }
    }

    /// Whether a stored head is left out of listings of objects, as its current version is a delete marker. Looks at two
    /// bytes: pages of a listing ask it of every key.
    pub fn is_hidden(stored: &[u8]) -> bool {
        matches!(stored, [<Self as Stored>::VERSION, 0, ..])
    }

    /// Whether a stored head holds a null version, as all do in buckets without versions. Looks at three bytes.
    pub fn has_null(stored: &[u8]) -> bool {
        !matches!(stored, [<Self as Stored>::VERSION, _, 0, ..])
    }

    /// Entity tag of the current version; `None` where that is a marker or there is none.
    pub fn current_etag(&self) -> Option<Etag> {
        match self.current()? {
            version::Current::Null(Null { kind: Kind::Object(object), .. }) => Some(object.etag),
            version::Current::Version(version::Line { kind: Kind::Object(summary), .. }) => Some(summary.etag),
            _ => None,
        }
    }

    /// The object that is the null version.
    pub fn null_object(&self) -> Option<(Stamp, &ObjectRecord)> {
        match &self.null {
            Some(Null { stamp, kind: Kind::Object(object) }) => Some((*stamp, object)),
            _ => None,
        }
    }
}

/// Versions 1 and 2 of the register were an [`ObjectRecord`]: see [`HeadRecord::of`]. After the version byte comes
/// whether listings show the key (0 or 1).
impl Stored for HeadRecord {
    const VERSION: u8 = 3;
    const KIND: &'static str = "head";

    fn encode(&self) -> Bytes {
        encode_as(Self::VERSION, &(self.is_shown(), self))
    }

    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let malformed = |detail: &str| DecodeError::Malformed { kind: Self::KIND, detail: detail.to_owned() };
        match bytes.split_first() {
            None => Err(DecodeError::Empty),
            Some((&Self::VERSION, rest)) => {
                let (shown, head): (bool, Self) = decode_exact(Self::KIND, rest)?;
                if shown != head.is_shown() {
                    return Err(malformed("its first byte belies it"));
                }
                if head.null.is_none() && head.recent.is_empty() {
                    return Err(malformed("no version"));
                }
                Ok(head)
            }
            Some((&version, _)) => Err(DecodeError::UnknownVersion { kind: Self::KIND, version }),
        }
    }
}

impl Stored for PageRecord {
    const VERSION: u8 = 1;
    const KIND: &'static str = "page of versions";
}
