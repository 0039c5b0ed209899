//! Which permissions an S3 operation needs
//! (<https://docs.aws.amazon.com/AmazonS3/latest/userguide/using-with-s3-policy-actions.html>).

use super::super::acl::{Of, Permission};

/// What S3 is asked to do; the front end has one for each request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names of the S3 API")]
pub enum Operation {
    ListBuckets,
    CreateBucket,
    DeleteBucket,
    HeadBucket,
    GetBucketLocation,
    ListObjects,
    ListObjectVersions,
    ListMultipartUploads,
    GetBucketAcl,
    PutBucketAcl,
    GetBucketCors,
    PutBucketCors,
    DeleteBucketCors,
    GetBucketEncryption,
    PutBucketEncryption,
    DeleteBucketEncryption,
    GetBucketLifecycle,
    PutBucketLifecycle,
    DeleteBucketLifecycle,
    GetBucketLogging,
    PutBucketLogging,
    GetBucketNotification,
    PutBucketNotification,
    GetBucketOwnershipControls,
    PutBucketOwnershipControls,
    DeleteBucketOwnershipControls,
    GetBucketPolicy,
    PutBucketPolicy,
    DeleteBucketPolicy,
    GetBucketPolicyStatus,
    GetPublicAccessBlock,
    PutPublicAccessBlock,
    DeletePublicAccessBlock,
    GetBucketRequestPayment,
    PutBucketRequestPayment,
    GetBucketAccelerate,
    GetBucketReplication,
    DeleteBucketReplication,
    GetBucketTagging,
    PutBucketTagging,
    DeleteBucketTagging,
    GetBucketVersioning,
    PutBucketVersioning,
    GetBucketWebsite,
    PutBucketWebsite,
    DeleteBucketWebsite,
    GetObjectLockConfiguration,
    PutObjectLockConfiguration,
    GetObject,
    HeadObject,
    GetObjectAttributes,
    GetObjectAcl,
    PutObjectAcl,
    GetObjectTagging,
    PutObjectTagging,
    DeleteObjectTagging,
    GetObjectRetention,
    PutObjectRetention,
    GetObjectLegalHold,
    PutObjectLegalHold,
    PutObject,
    PostObject,
    CopyObject,
    RenameObject,
    /// Also each key of `DeleteObjects`.
    DeleteObject,
    CreateMultipartUpload,
    UploadPart,
    UploadPartCopy,
    CompleteMultipartUpload,
    AbortMultipartUpload,
    ListParts,
}

/// What a request asks for besides its operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a header or parameter that is there or not")]
pub struct Extras {
    /// `versionId` of the object.
    pub version: bool,
    /// `versionId` of the copy source.
    pub source_version: bool,
    /// `x-amz-acl` or `x-amz-grant-*`.
    pub acl: bool,
    /// `x-amz-tagging` with any tag, or a copy that brings the source's tags along.
    pub tagging: bool,
    /// The copy's tags are the source's, which has some.
    pub source_tagging: bool,
    /// `x-amz-object-lock-mode` or `-retain-until-date`.
    pub retention: bool,
    /// `x-amz-object-lock-legal-hold`.
    pub legal_hold: bool,
    /// `x-amz-bypass-governance-retention: true`.
    pub bypass_governance: bool,
    /// `x-amz-bucket-object-lock-enabled: true`.
    pub object_lock: bool,
    /// `x-amz-object-ownership`.
    pub ownership: bool,
}

/// What a permission is needed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum On {
    /// The account; resource `*`.
    Account,
    /// The bucket; resource `arn:aws:s3:::BUCKET`.
    Bucket,
    /// The object; resource `arn:aws:s3:::BUCKET/KEY`.
    Object,
    /// The source of a copy or rename, with its own bucket, policy and ACL.
    Source,
}

/// A permission needed: an action and what it is needed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Needed {
    /// `s3:GetObject`.
    pub action: &'static str,
    /// On what.
    pub on: On,
}

impl Operation {
    /// All permissions a request needs; each must be granted.
    pub fn needs(self, extras: Extras) -> Vec<Needed> {
        let mut needs = Vec::with_capacity(2);
        let mut need = |action, on| needs.push(Needed { action, on });
        let (action, on) = self.main();
        need(if extras.version { of_version(action) } else { action }, on);
        let read = if extras.source_version { of_version } else { |action| action };
        if self == Self::GetObjectAttributes {
            need(if extras.version { "s3:GetObjectVersion" } else { "s3:GetObject" }, On::Object);
        }
        if matches!(self, Self::CopyObject | Self::UploadPartCopy | Self::RenameObject) {
            need(read("s3:GetObject"), On::Source);
        }
        if self == Self::RenameObject {
            need("s3:DeleteObject", On::Source);
        }
        if self == Self::CopyObject && extras.source_tagging {
            need(read("s3:GetObjectTagging"), On::Source);
        }
        if self.brings_object() {
            let also = [
                (extras.acl, "s3:PutObjectAcl"),
                (extras.tagging, "s3:PutObjectTagging"),
                (extras.retention, "s3:PutObjectRetention"),
                (extras.legal_hold, "s3:PutObjectLegalHold"),
            ];
            also.into_iter().filter(|(asked, _)| *asked).for_each(|(_, action)| need(action, On::Object));
        }
        if self == Self::CreateBucket {
            let also = [
                (extras.acl, "s3:PutBucketAcl"),
                (extras.object_lock, "s3:PutBucketObjectLockConfiguration"),
                (extras.object_lock, "s3:PutBucketVersioning"),
                (extras.ownership, "s3:PutBucketOwnershipControls"),
            ];
            also.into_iter().filter(|(asked, _)| *asked).for_each(|(_, action)| need(action, On::Bucket));
        }
        let governed = matches!(self, Self::DeleteObject | Self::PutObjectRetention);
        if extras.bypass_governance && governed {
            need("s3:BypassGovernanceRetention", On::Object);
        }
        needs
    }

    /// Whether the request sets what its object will be.
    pub fn brings_object(self) -> bool {
        matches!(self, Self::PutObject | Self::PostObject | Self::CopyObject | Self::CreateMultipartUpload)
    }

    /// The permission of the operation itself.
    fn main(self) -> (&'static str, On) {
        use On::{Account, Bucket, Object};
        match self {
            Self::ListBuckets => ("s3:ListAllMyBuckets", Account),
            Self::CreateBucket => ("s3:CreateBucket", Bucket),
            Self::DeleteBucket => ("s3:DeleteBucket", Bucket),
            Self::HeadBucket | Self::ListObjects => ("s3:ListBucket", Bucket),
            Self::GetBucketLocation => ("s3:GetBucketLocation", Bucket),
            Self::ListObjectVersions => ("s3:ListBucketVersions", Bucket),
            Self::ListMultipartUploads => ("s3:ListBucketMultipartUploads", Bucket),
            Self::GetBucketAcl => ("s3:GetBucketAcl", Bucket),
            Self::PutBucketAcl => ("s3:PutBucketAcl", Bucket),
            Self::GetBucketCors => ("s3:GetBucketCORS", Bucket),
            Self::PutBucketCors | Self::DeleteBucketCors => ("s3:PutBucketCORS", Bucket),
            Self::GetBucketEncryption => ("s3:GetEncryptionConfiguration", Bucket),
            Self::PutBucketEncryption | Self::DeleteBucketEncryption => ("s3:PutEncryptionConfiguration", Bucket),
            Self::GetBucketLifecycle => ("s3:GetLifecycleConfiguration", Bucket),
            Self::PutBucketLifecycle | Self::DeleteBucketLifecycle => ("s3:PutLifecycleConfiguration", Bucket),
            Self::GetBucketLogging => ("s3:GetBucketLogging", Bucket),
            Self::PutBucketLogging => ("s3:PutBucketLogging", Bucket),
            Self::GetBucketNotification => ("s3:GetBucketNotification", Bucket),
            Self::PutBucketNotification => ("s3:PutBucketNotification", Bucket),
            Self::GetBucketOwnershipControls => ("s3:GetBucketOwnershipControls", Bucket),
            Self::PutBucketOwnershipControls | Self::DeleteBucketOwnershipControls => {
                ("s3:PutBucketOwnershipControls", Bucket)
            }
            Self::GetBucketPolicy => ("s3:GetBucketPolicy", Bucket),
            Self::PutBucketPolicy => ("s3:PutBucketPolicy", Bucket),
            Self::DeleteBucketPolicy => ("s3:DeleteBucketPolicy", Bucket),
            Self::GetBucketPolicyStatus => ("s3:GetBucketPolicyStatus", Bucket),
            Self::GetPublicAccessBlock => ("s3:GetBucketPublicAccessBlock", Bucket),
            Self::PutPublicAccessBlock | Self::DeletePublicAccessBlock => ("s3:PutBucketPublicAccessBlock", Bucket),
            Self::GetBucketRequestPayment => ("s3:GetBucketRequestPayment", Bucket),
            Self::PutBucketRequestPayment => ("s3:PutBucketRequestPayment", Bucket),
            Self::GetBucketAccelerate => ("s3:GetAccelerateConfiguration", Bucket),
            Self::DeleteBucketReplication => ("s3:PutReplicationConfiguration", Bucket),
            Self::GetBucketReplication => ("s3:GetReplicationConfiguration", Bucket),
            Self::GetBucketTagging => ("s3:GetBucketTagging", Bucket),
            Self::PutBucketTagging | Self::DeleteBucketTagging => ("s3:PutBucketTagging", Bucket),
            Self::GetBucketVersioning => ("s3:GetBucketVersioning", Bucket),
            Self::PutBucketVersioning => ("s3:PutBucketVersioning", Bucket),
            Self::GetBucketWebsite => ("s3:GetBucketWebsite", Bucket),
            Self::PutBucketWebsite => ("s3:PutBucketWebsite", Bucket),
            Self::DeleteBucketWebsite => ("s3:DeleteBucketWebsite", Bucket),
            Self::GetObjectLockConfiguration => ("s3:GetBucketObjectLockConfiguration", Bucket),
            Self::PutObjectLockConfiguration => ("s3:PutBucketObjectLockConfiguration", Bucket),
            Self::GetObject | Self::HeadObject => ("s3:GetObject", Object),
            Self::GetObjectAttributes => ("s3:GetObjectAttributes", Object),
            Self::GetObjectAcl => ("s3:GetObjectAcl", Object),
            Self::PutObjectAcl => ("s3:PutObjectAcl", Object),
            Self::GetObjectTagging => ("s3:GetObjectTagging", Object),
            Self::PutObjectTagging => ("s3:PutObjectTagging", Object),
            Self::DeleteObjectTagging => ("s3:DeleteObjectTagging", Object),
            Self::GetObjectRetention => ("s3:GetObjectRetention", Object),
            Self::PutObjectRetention => ("s3:PutObjectRetention", Object),
            Self::GetObjectLegalHold => ("s3:GetObjectLegalHold", Object),
            Self::PutObjectLegalHold => ("s3:PutObjectLegalHold", Object),
            Self::PutObject
            | Self::PostObject
            | Self::CopyObject
            | Self::RenameObject
            | Self::CreateMultipartUpload
            | Self::UploadPart
            | Self::UploadPartCopy
            | Self::CompleteMultipartUpload => ("s3:PutObject", Object),
            Self::DeleteObject => ("s3:DeleteObject", Object),
            Self::AbortMultipartUpload => ("s3:AbortMultipartUpload", Object),
            Self::ListParts => ("s3:ListMultipartUploadParts", Object),
        }
    }
}

/// The permission for a version that is named; the same where there is no other.
fn of_version(action: &'static str) -> &'static str {
    match action {
        "s3:GetObject" => "s3:GetObjectVersion",
        "s3:GetObjectAttributes" => "s3:GetObjectVersionAttributes",
        "s3:GetObjectAcl" => "s3:GetObjectVersionAcl",
        "s3:PutObjectAcl" => "s3:PutObjectVersionAcl",
        "s3:GetObjectTagging" => "s3:GetObjectVersionTagging",
        "s3:PutObjectTagging" => "s3:PutObjectVersionTagging",
        "s3:DeleteObjectTagging" => "s3:DeleteObjectVersionTagging",
        "s3:DeleteObject" => "s3:DeleteObjectVersion",
        other => other,
    }
}

/// The ACL permission that stands for an action, and on whose list
/// (<https://docs.aws.amazon.com/AmazonS3/latest/userguide/acl-overview.html#acl-access-policy-permission-mapping>).
/// What is not here no ACL can grant.
pub fn acl_permission(action: &str) -> Option<(Of, Permission)> {
    Some(match action {
        "s3:ListBucket" | "s3:ListBucketVersions" | "s3:ListBucketMultipartUploads" => (Of::Bucket, Permission::Read),
        "s3:PutObject" | "s3:DeleteObject" => (Of::Bucket, Permission::Write),
        "s3:GetBucketAcl" => (Of::Bucket, Permission::ReadAcp),
        "s3:PutBucketAcl" => (Of::Bucket, Permission::WriteAcp),
        "s3:GetObject" | "s3:GetObjectVersion" => (Of::Object, Permission::Read),
        "s3:GetObjectAcl" | "s3:GetObjectVersionAcl" => (Of::Object, Permission::ReadAcp),
        "s3:PutObjectAcl" | "s3:PutObjectVersionAcl" => (Of::Object, Permission::WriteAcp),
        _ => return None,
    })
}
