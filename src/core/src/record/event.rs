//! Events that are to be told to the targets of a bucket's notifications.

use serde::{Deserialize, Serialize};

use super::Stored;
use crate::id::PeerId;
use crate::s3::notification::Event;

/// Something that is about to happen to an object, or has: written before it happens, so that it is told even when whoever
/// made it happen has no time left to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventRecord {
    /// Which event.
    pub event: Event,
    /// Of which bucket.
    pub bucket: String,
    /// Canonical id of its owner.
    pub bucket_owner: String,
    /// Of which key.
    pub key: String,
    /// Who does it, as messages name it.
    pub principal: String,
    /// Where the request came from; empty where nobody asked.
    pub source_ip: String,
    /// The request.
    pub request_id: String,
    /// Which peer serves it. While that one lives, it also tells the targets.
    pub by: PeerId,
    /// When it was begun, milliseconds since the Unix epoch.
    pub begun_ms: u64,
    /// Who is to be told and has not been.
    pub targets: Vec<EventTarget>,
    /// What came of it; `None`: not known yet.
    pub outcome: Option<Outcome>,
}

impl Stored for EventRecord {
    const VERSION: u8 = 1;
    const KIND: &'static str = "event";
}

/// Who is to be told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventTarget {
    /// Its ARN in the configuration.
    pub arn: String,
    /// Id of the configuration that names it.
    pub configuration: String,
}

/// What came of a request.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Outcome {
    /// When it happened, milliseconds since the Unix epoch.
    pub time_ms: u64,
    /// The stamp of the change.
    pub sequencer: u64,
    /// Bytes of the object.
    pub size: u64,
    /// Its entity tag.
    pub etag: String,
    /// Its version, in buckets that have versions.
    pub version_id: Option<String>,
}
