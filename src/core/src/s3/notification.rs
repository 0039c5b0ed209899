//! Event notifications (<https://docs.aws.amazon.com/AmazonS3/latest/userguide/EventNotifications.html>): which events go
//! where, and what is sent.

use std::fmt::Write as _;

use serde_json::{Value, json};

use serde::{Deserialize, Serialize};

use super::Refusal;
use super::calendar::iso_date;

/// The most destinations of one configuration.
pub const TARGETS_MAX: usize = 100;

/// Longest id of a destination, in characters.
const ID_MAX: usize = 255;

/// Something that happened
/// (<https://docs.aws.amazon.com/AmazonS3/latest/userguide/notification-how-to-event-types-and-destinations.html>). Those
/// that PALM makes; the names of all others are taken in configurations, and never happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Event {
    /// PUT.
    CreatedPut,
    /// A form.
    CreatedPost,
    /// A copy.
    CreatedCopy,
    /// A completed upload.
    CreatedCompleteMultipartUpload,
    /// An object or version is gone.
    RemovedDelete,
    /// A delete marker came.
    RemovedDeleteMarkerCreated,
    /// Lifecycle took an object or version away.
    ExpirationDelete,
    /// Lifecycle made a delete marker.
    ExpirationDeleteMarkerCreated,
    /// Tags were put.
    TaggingPut,
    /// Tags were taken off.
    TaggingDelete,
    /// An object's ACL was put.
    AclPut,
}

impl Event {
    /// Its name in configurations.
    pub fn name(self) -> &'static str {
        match self {
            Self::CreatedPut => "s3:ObjectCreated:Put",
            Self::CreatedPost => "s3:ObjectCreated:Post",
            Self::CreatedCopy => "s3:ObjectCreated:Copy",
            Self::CreatedCompleteMultipartUpload => "s3:ObjectCreated:CompleteMultipartUpload",
            Self::RemovedDelete => "s3:ObjectRemoved:Delete",
            Self::RemovedDeleteMarkerCreated => "s3:ObjectRemoved:DeleteMarkerCreated",
            Self::ExpirationDelete => "s3:LifecycleExpiration:Delete",
            Self::ExpirationDeleteMarkerCreated => "s3:LifecycleExpiration:DeleteMarkerCreated",
            Self::TaggingPut => "s3:ObjectTagging:Put",
            Self::TaggingDelete => "s3:ObjectTagging:Delete",
            Self::AclPut => "s3:ObjectAcl:Put",
        }
    }

    /// The sort of message it makes: deletions say nothing of size and entity tag.
    fn is_of_what_is_there(self) -> bool {
        !matches!(
            self,
            Self::RemovedDelete
                | Self::RemovedDeleteMarkerCreated
                | Self::ExpirationDelete
                | Self::ExpirationDeleteMarkerCreated
        )
    }
}

/// All names that a configuration may hold.
const NAMES: &[&str] = &[
    "s3:TestEvent",
    "s3:ObjectCreated:*",
    "s3:ObjectCreated:Put",
    "s3:ObjectCreated:Post",
    "s3:ObjectCreated:Copy",
    "s3:ObjectCreated:CompleteMultipartUpload",
    "s3:ObjectRemoved:*",
    "s3:ObjectRemoved:Delete",
    "s3:ObjectRemoved:DeleteMarkerCreated",
    "s3:ObjectRestore:*",
    "s3:ObjectRestore:Post",
    "s3:ObjectRestore:Completed",
    "s3:ObjectRestore:Delete",
    "s3:ReducedRedundancyLostObject",
    "s3:Replication:*",
    "s3:Replication:OperationFailedReplication",
    "s3:Replication:OperationMissedThreshold",
    "s3:Replication:OperationReplicatedAfterThreshold",
    "s3:Replication:OperationNotTracked",
    "s3:LifecycleExpiration:*",
    "s3:LifecycleExpiration:Delete",
    "s3:LifecycleExpiration:DeleteMarkerCreated",
    "s3:LifecycleTransition",
    "s3:IntelligentTiering",
    "s3:ObjectTagging:*",
    "s3:ObjectTagging:Put",
    "s3:ObjectTagging:Delete",
    "s3:ObjectAcl:Put",
];

/// One destination and what it is told.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Target {
    /// Unique in the configuration.
    pub id: String,
    /// ARN of the queue, topic or function.
    pub arn: String,
    /// Names of events.
    pub events: Vec<String>,
    /// Keys begin so.
    pub prefix: String,
    /// Keys end so.
    pub suffix: String,
}

/// A bucket's destinations; none switches notifications off.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Configuration {
    targets: Vec<Target>,
}

impl Configuration {
    /// Validates destinations as `PutBucketNotificationConfiguration` does; `exists` says whether an ARN is one.
    pub fn new(targets: Vec<Target>, exists: impl Fn(&str) -> bool) -> Result<Self, Refusal> {
        if targets.len() > TARGETS_MAX {
            return Err(Refusal::malformed_xml());
        }
        for (place, target) in targets.iter().enumerate() {
            let earlier = &targets[..place];
            if target.id.chars().count() > ID_MAX || earlier.iter().any(|other| other.id == target.id) {
                return Err(Refusal::invalid_argument(
                    "Configuration ids must be unique and at most 255 characters long",
                ));
            }
            if target.events.is_empty() {
                return Err(Refusal::malformed_xml());
            }
            if target.events.iter().any(|event| !NAMES.contains(&event.as_str())) {
                return Err(Refusal::invalid_argument("A specified event is not supported for notifications."));
            }
            if target.prefix.len() > 1024 || target.suffix.len() > 1024 {
                return Err(Refusal::invalid_argument(
                    "Size of filter rule value cannot exceed 1024 bytes in UTF-8 representation",
                ));
            }
            if !exists(&target.arn) {
                return Err(Refusal::invalid_argument("Unable to validate the following destination configurations"));
            }
            if earlier.iter().any(|other| other.overlaps(target)) {
                let message =
                    "Configurations overlap. Configurations on the same bucket cannot share a common event type.";
                return Err(Refusal::invalid_argument(message));
            }
        }
        Ok(Self { targets })
    }

    /// The destinations as they were put.
    pub fn targets(&self) -> &[Target] {
        &self.targets
    }

    /// Where an event of a key goes.
    pub fn targets_of<'a>(&'a self, event: Event, key: &'a str) -> impl Iterator<Item = &'a Target> {
        self.targets.iter().filter(move |target| target.wants(event, key))
    }
}

/// Reads a filter rule: `prefix` or `suffix`, in any case, each at most once.
pub fn set_filter(target: &mut Target, name: &str, value: String) -> Result<(), Refusal> {
    let (slot, message) = if name.eq_ignore_ascii_case("prefix") {
        (&mut target.prefix, "Cannot specify more than one prefix rule in a filter.")
    } else if name.eq_ignore_ascii_case("suffix") {
        (&mut target.suffix, "Cannot specify more than one suffix rule in a filter.")
    } else {
        return Err(Refusal::invalid_argument("filter rule name must be either prefix or suffix"));
    };
    if !slot.is_empty() {
        return Err(Refusal::invalid_argument(message));
    }
    *slot = value;
    Ok(())
}

impl Target {
    fn wants(&self, event: Event, key: &str) -> bool {
        self.events.iter().any(|wanted| covers(wanted, event.name()))
            && key.starts_with(&self.prefix)
            && key.ends_with(&self.suffix)
    }

    /// Whether some event of some key would go to both: then AWS refuses the second.
    fn overlaps(&self, other: &Self) -> bool {
        let nested = |one: &str, two: &str| one.starts_with(two) || two.starts_with(one);
        let ends_nested = |one: &str, two: &str| one.ends_with(two) || two.ends_with(one);
        let same_event = |one: &String| other.events.iter().any(|two| covers(one, two) || covers(two, one));
        self.events.iter().any(same_event)
            && nested(&self.prefix, &other.prefix)
            && ends_nested(&self.suffix, &other.suffix)
    }
}

fn covers(wanted: &str, name: &str) -> bool {
    wanted == name || wanted.strip_suffix('*').is_some_and(|family| name.starts_with(family))
}

/// What a message says
/// (<https://docs.aws.amazon.com/AmazonS3/latest/userguide/notification-content-structure.html>).
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "the fields of the page cited")]
pub struct Message<'a> {
    pub event: Event,
    /// Milliseconds since the epoch.
    pub time_ms: u64,
    pub region: &'a str,
    /// Who did it: `AWS:` and the id of its user.
    pub principal: &'a str,
    pub source_ip: &'a str,
    pub request_id: &'a str,
    pub host_id: &'a str,
    pub configuration_id: &'a str,
    pub bucket: &'a str,
    pub bucket_owner: &'a str,
    pub key: &'a str,
    pub size: u64,
    /// Without quotes.
    pub etag: &'a str,
    pub version_id: Option<&'a str>,
    /// The stamp of the change: later events of a key have greater ones.
    pub sequencer: u64,
}

impl Message<'_> {
    /// Its JSON: one record, as AWS sends them.
    pub fn json(&self) -> Value {
        let mut object = serde_json::Map::new();
        object.insert("key".to_owned(), json!(encode_key(self.key)));
        if self.event.is_of_what_is_there() {
            object.insert("size".to_owned(), json!(self.size));
            object.insert("eTag".to_owned(), json!(self.etag));
        }
        if let Some(version) = self.version_id {
            object.insert("versionId".to_owned(), json!(version));
        }
        object.insert("sequencer".to_owned(), json!(format!("{:016X}", self.sequencer)));
        json!({ "Records": [{
            "eventVersion": "2.1",
            "eventSource": "aws:s3",
            "awsRegion": self.region,
            "eventTime": iso_date(self.time_ms),
            // Without the `s3:` that configurations have.
            "eventName": self.event.name().trim_start_matches("s3:"),
            "userIdentity": { "principalId": self.principal },
            "requestParameters": { "sourceIPAddress": self.source_ip },
            "responseElements": { "x-amz-request-id": self.request_id, "x-amz-id-2": self.host_id },
            "s3": {
                "s3SchemaVersion": "1.0",
                "configurationId": self.configuration_id,
                "bucket": {
                    "name": self.bucket,
                    "ownerIdentity": { "principalId": self.bucket_owner },
                    "arn": format!("arn:aws:s3:::{}", self.bucket),
                },
                "object": object,
            },
        }] })
    }
}

/// What is sent to a destination when it is configured.
pub fn test_message(bucket: &str, time_ms: u64, request_id: &str, host_id: &str) -> Value {
    json!({
        "Service": "Amazon S3",
        "Event": "s3:TestEvent",
        "Time": iso_date(time_ms),
        "Bucket": bucket,
        "RequestId": request_id,
        "HostId": host_id,
    })
}

/// "The s3 key provides … the object key name, URL encoded": as a form field, so a blank is `+`.
fn encode_key(key: &str) -> String {
    let mut encoded = String::with_capacity(key.len());
    for byte in key.bytes() {
        match byte {
            b' ' => encoded.push('+'),
            b'/' | b'-' | b'.' | b'_' | b'*' => encoded.push(char::from(byte)),
            _ if byte.is_ascii_alphanumeric() => encoded.push(char::from(byte)),
            _ => {
                // Writing to a text cannot fail.
                let _ = write!(encoded, "%{byte:02X}");
            }
        }
    }
    encoded
}

#[cfg(test)]
mod tests;
