//! What repair and collection go by: who shares a body, where a segment has moved, what a home keeps.

use serde::{Deserialize, Serialize};

use super::{DecodeError, Segment, Stored, decode_exact};
use crate::id::{BodyId, PeerId, SegmentId};

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
