//! The actions a bucket policy may name, what they are about, and which condition keys go with them
//! (<https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazons3.html>).
//!
//! Those that PALM does not serve are here too: policies made for AWS name them.

/// What an action is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// The account: no bucket policy can name it.
    Account,
    /// A bucket.
    Bucket,
    /// An object.
    Object,
}

use Level::{Account, Bucket, Object};

/// All actions, without `s3:`.
pub const ACTIONS: &[(&str, Level)] = &[
    ("AbortMultipartUpload", Object),
    ("BypassGovernanceRetention", Object),
    ("CreateBucket", Bucket),
    ("DeleteBucket", Bucket),
    ("DeleteBucketOwnershipControls", Bucket),
    ("DeleteBucketPolicy", Bucket),
    ("DeleteBucketWebsite", Bucket),
    ("DeleteObject", Object),
    ("DeleteObjectTagging", Object),
    ("DeleteObjectVersion", Object),
    ("DeleteObjectVersionTagging", Object),
    ("GetAccelerateConfiguration", Bucket),
    ("GetAnalyticsConfiguration", Bucket),
    ("GetBucketAcl", Bucket),
    ("GetBucketCORS", Bucket),
    ("GetBucketLocation", Bucket),
    ("GetBucketLogging", Bucket),
    ("GetBucketNotification", Bucket),
    ("GetBucketObjectLockConfiguration", Bucket),
    ("GetBucketOwnershipControls", Bucket),
    ("GetBucketPolicy", Bucket),
    ("GetBucketPolicyStatus", Bucket),
    ("GetBucketPublicAccessBlock", Bucket),
    ("GetBucketRequestPayment", Bucket),
    ("GetBucketTagging", Bucket),
    ("GetBucketVersioning", Bucket),
    ("GetBucketWebsite", Bucket),
    ("GetEncryptionConfiguration", Bucket),
    ("GetIntelligentTieringConfiguration", Bucket),
    ("GetInventoryConfiguration", Bucket),
    ("GetLifecycleConfiguration", Bucket),
    ("GetMetricsConfiguration", Bucket),
    ("GetObject", Object),
    ("GetObjectAcl", Object),
    ("GetObjectAttributes", Object),
    ("GetObjectLegalHold", Object),
    ("GetObjectRetention", Object),
    ("GetObjectTagging", Object),
    ("GetObjectTorrent", Object),
    ("GetObjectVersion", Object),
    ("GetObjectVersionAcl", Object),
    ("GetObjectVersionAttributes", Object),
    ("GetObjectVersionForReplication", Object),
    ("GetObjectVersionTagging", Object),
    ("GetObjectVersionTorrent", Object),
    ("GetReplicationConfiguration", Bucket),
    ("InitiateReplication", Object),
    ("ListAllMyBuckets", Account),
    ("ListBucket", Bucket),
    ("ListBucketMultipartUploads", Bucket),
    ("ListBucketVersions", Bucket),
    ("ListMultipartUploadParts", Object),
    ("ObjectOwnerOverrideToBucketOwner", Object),
    ("PutAccelerateConfiguration", Bucket),
    ("PutAnalyticsConfiguration", Bucket),
    ("PutBucketAcl", Bucket),
    ("PutBucketCORS", Bucket),
    ("PutBucketLogging", Bucket),
    ("PutBucketNotification", Bucket),
    ("PutBucketObjectLockConfiguration", Bucket),
    ("PutBucketOwnershipControls", Bucket),
    ("PutBucketPolicy", Bucket),
    ("PutBucketPublicAccessBlock", Bucket),
    ("PutBucketRequestPayment", Bucket),
    ("PutBucketTagging", Bucket),
    ("PutBucketVersioning", Bucket),
    ("PutBucketWebsite", Bucket),
    ("PutEncryptionConfiguration", Bucket),
    ("PutIntelligentTieringConfiguration", Bucket),
    ("PutInventoryConfiguration", Bucket),
    ("PutLifecycleConfiguration", Bucket),
    ("PutMetricsConfiguration", Bucket),
    ("PutObject", Object),
    ("PutObjectAcl", Object),
    ("PutObjectLegalHold", Object),
    ("PutObjectRetention", Object),
    ("PutObjectTagging", Object),
    ("PutObjectVersionAcl", Object),
    ("PutObjectVersionTagging", Object),
    ("PutReplicationConfiguration", Bucket),
    ("ReplicateDelete", Object),
    ("ReplicateObject", Object),
    ("ReplicateTags", Object),
    ("RestoreObject", Object),
];

const LISTS: &[&str] = &["ListBucket", "ListBucketVersions"];
const OF_VERSION: &[&str] = &[
    "DeleteObjectVersion",
    "DeleteObjectVersionTagging",
    "GetObjectVersion",
    "GetObjectVersionAcl",
    "GetObjectVersionAttributes",
    "GetObjectVersionTagging",
    "PutObjectVersionAcl",
    "PutObjectVersionTagging",
    // A version may be named to these too, under the one action.
    "GetObjectLegalHold",
    "GetObjectRetention",
    "PutObjectLegalHold",
    "PutObjectRetention",
];
const WITH_TAGS: &[&str] = &["PutObject", "PutObjectTagging", "PutObjectVersionTagging", "ReplicateTags"];
const OF_TAGGED: &[&str] = &[
    "DeleteObjectTagging",
    "DeleteObjectVersionTagging",
    "GetObject",
    "GetObjectAcl",
    "GetObjectAttributes",
    "GetObjectTagging",
    "GetObjectVersion",
    "GetObjectVersionAcl",
    "GetObjectVersionAttributes",
    "GetObjectVersionTagging",
    "PutObjectAcl",
    "PutObjectTagging",
    "PutObjectVersionAcl",
    "PutObjectVersionTagging",
];
const WITH_ACL: &[&str] = &["CreateBucket", "PutBucketAcl", "PutObject", "PutObjectAcl", "PutObjectVersionAcl"];
const PUTS: &[&str] = &["PutObject"];
const WITH_LOCK: &[&str] = &["PutObject", "PutObjectRetention"];
const WITH_HOLD: &[&str] = &["PutObject", "PutObjectLegalHold"];
const ALL: &[&str] = &[];

/// Keys of S3 and the actions they go with; none named: all. A `/` at the end stands for a tag's name.
const KEYS: &[(&str, &[&str])] = &[
    ("s3:authtype", ALL),
    ("s3:dataaccesspointaccount", ALL),
    ("s3:dataaccesspointarn", ALL),
    ("s3:accesspointnetworkorigin", ALL),
    ("s3:resourceaccount", ALL),
    ("s3:signatureage", ALL),
    ("s3:signatureversion", ALL),
    ("s3:tlsversion", ALL),
    ("s3:x-amz-content-sha256", ALL),
    ("s3:bucketexists", ALL),
    ("s3:delimiter", LISTS),
    ("s3:max-keys", LISTS),
    ("s3:prefix", LISTS),
    ("s3:versionid", OF_VERSION),
    ("s3:existingobjecttag/", OF_TAGGED),
    ("s3:requestobjecttag/", WITH_TAGS),
    ("s3:requestobjecttagkeys", WITH_TAGS),
    ("s3:x-amz-acl", WITH_ACL),
    ("s3:x-amz-grant-full-control", WITH_ACL),
    ("s3:x-amz-grant-read", WITH_ACL),
    ("s3:x-amz-grant-read-acp", WITH_ACL),
    ("s3:x-amz-grant-write", WITH_ACL),
    ("s3:x-amz-grant-write-acp", WITH_ACL),
    ("s3:x-amz-copy-source", PUTS),
    ("s3:x-amz-metadata-directive", PUTS),
    ("s3:x-amz-server-side-encryption", PUTS),
    ("s3:x-amz-server-side-encryption-aws-kms-key-id", PUTS),
    ("s3:x-amz-server-side-encryption-customer-algorithm", &["PutObject", "GetObject", "GetObjectVersion"]),
    ("s3:x-amz-storage-class", PUTS),
    ("s3:x-amz-website-redirect-location", PUTS),
    ("s3:if-match", &["PutObject", "DeleteObject"]),
    ("s3:if-none-match", PUTS),
    ("s3:objectcreationoperation", PUTS),
    ("s3:object-lock-legal-hold", WITH_HOLD),
    ("s3:object-lock-mode", WITH_LOCK),
    ("s3:object-lock-retain-until-date", WITH_LOCK),
    (
        "s3:object-lock-remaining-retention-days",
        &["PutObject", "PutObjectRetention", "PutBucketObjectLockConfiguration"],
    ),
    ("s3:x-amz-object-ownership", &["CreateBucket", "PutBucketOwnershipControls"]),
    ("s3:locationconstraint", &["CreateBucket"]),
];

/// What an action without its `s3:` is about, by its exact name in any case.
pub fn level_of(name: &str) -> Option<Level> {
    ACTIONS.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, level)| *level)
}

/// Whether a condition key (in lower case) is known; global keys are by their prefix.
pub fn is_known_key(key: &str) -> bool {
    key.strip_prefix("aws:").is_some_and(|name| !name.is_empty()) || row(key).is_some()
}

/// Whether a known condition key (in lower case) goes with an action (without `s3:`).
pub fn key_applies(key: &str, action: &str) -> bool {
    row(key).is_none_or(|actions| actions.is_empty() || actions.contains(&action))
}

fn row(key: &str) -> Option<&'static [&'static str]> {
    let named = |known: &str| match known.strip_suffix('/') {
        Some(_) => key.len() > known.len() && key.starts_with(known),
        None => key == known,
    };
    KEYS.iter().find(|(known, _)| named(known)).map(|(_, actions)| *actions)
}
