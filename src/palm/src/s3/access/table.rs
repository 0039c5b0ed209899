//! Which operation a request is, and what it needs read before it can be decided.

use palm_core::s3::policy::operation::Operation;

/// The operation of s3s's name. What is not here PALM does not serve, and lets nobody do.
pub fn operation(name: &str) -> Option<Operation> {
    use Operation as Is;
    Some(match name {
        "ListBuckets" => Is::ListBuckets,
        "CreateBucket" => Is::CreateBucket,
        "DeleteBucket" => Is::DeleteBucket,
        "HeadBucket" => Is::HeadBucket,
        "GetBucketLocation" => Is::GetBucketLocation,
        "ListObjects" | "ListObjectsV2" => Is::ListObjects,
        "ListObjectVersions" => Is::ListObjectVersions,
        "ListMultipartUploads" => Is::ListMultipartUploads,
        "GetBucketAcl" => Is::GetBucketAcl,
        "PutBucketAcl" => Is::PutBucketAcl,
        "GetBucketCors" => Is::GetBucketCors,
        "PutBucketCors" => Is::PutBucketCors,
        "DeleteBucketCors" => Is::DeleteBucketCors,
        "GetBucketEncryption" => Is::GetBucketEncryption,
        "PutBucketEncryption" => Is::PutBucketEncryption,
        "DeleteBucketEncryption" => Is::DeleteBucketEncryption,
        "GetBucketLifecycleConfiguration" => Is::GetBucketLifecycle,
        "PutBucketLifecycleConfiguration" => Is::PutBucketLifecycle,
        "DeleteBucketLifecycle" => Is::DeleteBucketLifecycle,
        "GetBucketLogging" => Is::GetBucketLogging,
        "PutBucketLogging" => Is::PutBucketLogging,
        "GetBucketNotificationConfiguration" => Is::GetBucketNotification,
        "PutBucketNotificationConfiguration" => Is::PutBucketNotification,
        "GetBucketOwnershipControls" => Is::GetBucketOwnershipControls,
        "PutBucketOwnershipControls" => Is::PutBucketOwnershipControls,
        "DeleteBucketOwnershipControls" => Is::DeleteBucketOwnershipControls,
        "GetBucketPolicy" => Is::GetBucketPolicy,
        "PutBucketPolicy" => Is::PutBucketPolicy,
        "DeleteBucketPolicy" => Is::DeleteBucketPolicy,
        "GetBucketPolicyStatus" => Is::GetBucketPolicyStatus,
        "GetPublicAccessBlock" => Is::GetPublicAccessBlock,
        "PutPublicAccessBlock" => Is::PutPublicAccessBlock,
        "DeletePublicAccessBlock" => Is::DeletePublicAccessBlock,
        "GetBucketRequestPayment" => Is::GetBucketRequestPayment,
        "PutBucketRequestPayment" => Is::PutBucketRequestPayment,
        "GetBucketAccelerateConfiguration" => Is::GetBucketAccelerate,
        "DeleteBucketReplication" => Is::DeleteBucketReplication,
        "GetBucketReplication" => Is::GetBucketReplication,
        "GetBucketTagging" => Is::GetBucketTagging,
        "PutBucketTagging" => Is::PutBucketTagging,
        "DeleteBucketTagging" => Is::DeleteBucketTagging,
        "GetBucketVersioning" => Is::GetBucketVersioning,
        "PutBucketVersioning" => Is::PutBucketVersioning,
        "GetBucketWebsite" => Is::GetBucketWebsite,
        "PutBucketWebsite" => Is::PutBucketWebsite,
        "DeleteBucketWebsite" => Is::DeleteBucketWebsite,
        "GetObjectLockConfiguration" => Is::GetObjectLockConfiguration,
        "PutObjectLockConfiguration" => Is::PutObjectLockConfiguration,
        "GetObject" => Is::GetObject,
        "HeadObject" => Is::HeadObject,
        "GetObjectAttributes" => Is::GetObjectAttributes,
        "GetObjectAcl" => Is::GetObjectAcl,
        "PutObjectAcl" => Is::PutObjectAcl,
        "GetObjectTagging" => Is::GetObjectTagging,
        "PutObjectTagging" => Is::PutObjectTagging,
        "DeleteObjectTagging" => Is::DeleteObjectTagging,
        "GetObjectRetention" => Is::GetObjectRetention,
        "PutObjectRetention" => Is::PutObjectRetention,
        "GetObjectLegalHold" => Is::GetObjectLegalHold,
        "PutObjectLegalHold" => Is::PutObjectLegalHold,
        "PutObject" => Is::PutObject,
        "PostObject" => Is::PostObject,
        "CopyObject" => Is::CopyObject,
        "RenameObject" => Is::RenameObject,
        "DeleteObject" | "DeleteObjects" => Is::DeleteObject,
        "CreateMultipartUpload" => Is::CreateMultipartUpload,
        "UploadPart" => Is::UploadPart,
        "UploadPartCopy" => Is::UploadPartCopy,
        "CompleteMultipartUpload" => Is::CompleteMultipartUpload,
        "AbortMultipartUpload" => Is::AbortMultipartUpload,
        "ListParts" => Is::ListParts,
        _ => return None,
    })
}

/// Whether an operation is about an object that is there: its ACL and tags have a say, so it is read together with the
/// bucket. (DELETE is told apart: for most who ask, nothing depends on the object.)
pub fn is_of_object(operation: Operation) -> bool {
    use Operation as Is;
    matches!(
        operation,
        Is::GetObject
            | Is::HeadObject
            | Is::GetObjectAttributes
            | Is::GetObjectAcl
            | Is::PutObjectAcl
            | Is::GetObjectTagging
            | Is::PutObjectTagging
            | Is::DeleteObjectTagging
            | Is::GetObjectRetention
            | Is::PutObjectRetention
            | Is::GetObjectLegalHold
            | Is::PutObjectLegalHold
    )
}

/// Whether an operation only reads: where the pool's settings allow it, it is answered from what this peer knows when no
/// majority is in reach, and so are its permissions.
pub fn is_read(name: &str) -> bool {
    ["Get", "Head", "List"].iter().any(|verb| name.starts_with(verb))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::s3::OPERATIONS;

    /// Scenario: an operation is added to the front end. Danger: the gate does not know it, and lets it pass or keeps
    /// everybody out. Expectation: each has its permission (and what has none is refused, see `gate`).
    #[test]
    fn every_operation_has_its_permission() {
        for name in OPERATIONS {
            let name: String = name.split('_').map(|word| word[..1].to_uppercase() + &word[1..]).collect();
            assert!(operation(&name).is_some(), "{name}");
        }
        assert_eq!(operation("SelectObjectContent"), None);
    }
}
