//! Which operation a request is, and what it needs read before it can be decided.

use palm_core::s3::policy::operation::Operation;

/// Every operation that PALM serves, by s3s's name, in order of it. What is not here nobody may do.
const OPERATIONS: &[(&str, Operation)] = &[
    ("AbortMultipartUpload", Operation::AbortMultipartUpload),
    ("CompleteMultipartUpload", Operation::CompleteMultipartUpload),
    ("CopyObject", Operation::CopyObject),
    ("CreateBucket", Operation::CreateBucket),
    ("CreateMultipartUpload", Operation::CreateMultipartUpload),
    ("DeleteBucket", Operation::DeleteBucket),
    ("DeleteBucketCors", Operation::DeleteBucketCors),
    ("DeleteBucketEncryption", Operation::DeleteBucketEncryption),
    ("DeleteBucketLifecycle", Operation::DeleteBucketLifecycle),
    ("DeleteBucketOwnershipControls", Operation::DeleteBucketOwnershipControls),
    ("DeleteBucketPolicy", Operation::DeleteBucketPolicy),
    ("DeleteBucketReplication", Operation::DeleteBucketReplication),
    ("DeleteBucketTagging", Operation::DeleteBucketTagging),
    ("DeleteBucketWebsite", Operation::DeleteBucketWebsite),
    ("DeleteObject", Operation::DeleteObject),
    ("DeleteObjectTagging", Operation::DeleteObjectTagging),
    ("DeleteObjects", Operation::DeleteObject),
    ("DeletePublicAccessBlock", Operation::DeletePublicAccessBlock),
    ("GetBucketAccelerateConfiguration", Operation::GetBucketAccelerate),
    ("GetBucketAcl", Operation::GetBucketAcl),
    ("GetBucketCors", Operation::GetBucketCors),
    ("GetBucketEncryption", Operation::GetBucketEncryption),
    ("GetBucketLifecycleConfiguration", Operation::GetBucketLifecycle),
    ("GetBucketLocation", Operation::GetBucketLocation),
    ("GetBucketLogging", Operation::GetBucketLogging),
    ("GetBucketNotificationConfiguration", Operation::GetBucketNotification),
    ("GetBucketOwnershipControls", Operation::GetBucketOwnershipControls),
    ("GetBucketPolicy", Operation::GetBucketPolicy),
    ("GetBucketPolicyStatus", Operation::GetBucketPolicyStatus),
    ("GetBucketReplication", Operation::GetBucketReplication),
    ("GetBucketRequestPayment", Operation::GetBucketRequestPayment),
    ("GetBucketTagging", Operation::GetBucketTagging),
    ("GetBucketVersioning", Operation::GetBucketVersioning),
    ("GetBucketWebsite", Operation::GetBucketWebsite),
    ("GetObject", Operation::GetObject),
    ("GetObjectAcl", Operation::GetObjectAcl),
    ("GetObjectAttributes", Operation::GetObjectAttributes),
    ("GetObjectLegalHold", Operation::GetObjectLegalHold),
    ("GetObjectLockConfiguration", Operation::GetObjectLockConfiguration),
    ("GetObjectRetention", Operation::GetObjectRetention),
    ("GetObjectTagging", Operation::GetObjectTagging),
    ("GetPublicAccessBlock", Operation::GetPublicAccessBlock),
    ("HeadBucket", Operation::HeadBucket),
    ("HeadObject", Operation::HeadObject),
    ("ListBuckets", Operation::ListBuckets),
    ("ListMultipartUploads", Operation::ListMultipartUploads),
    ("ListObjectVersions", Operation::ListObjectVersions),
    ("ListObjects", Operation::ListObjects),
    ("ListObjectsV2", Operation::ListObjects),
    ("ListParts", Operation::ListParts),
    ("PostObject", Operation::PostObject),
    ("PutBucketAcl", Operation::PutBucketAcl),
    ("PutBucketCors", Operation::PutBucketCors),
    ("PutBucketEncryption", Operation::PutBucketEncryption),
    ("PutBucketLifecycleConfiguration", Operation::PutBucketLifecycle),
    ("PutBucketLogging", Operation::PutBucketLogging),
    ("PutBucketNotificationConfiguration", Operation::PutBucketNotification),
    ("PutBucketOwnershipControls", Operation::PutBucketOwnershipControls),
    ("PutBucketPolicy", Operation::PutBucketPolicy),
    ("PutBucketRequestPayment", Operation::PutBucketRequestPayment),
    ("PutBucketTagging", Operation::PutBucketTagging),
    ("PutBucketVersioning", Operation::PutBucketVersioning),
    ("PutBucketWebsite", Operation::PutBucketWebsite),
    ("PutObject", Operation::PutObject),
    ("PutObjectAcl", Operation::PutObjectAcl),
    ("PutObjectLegalHold", Operation::PutObjectLegalHold),
    ("PutObjectLockConfiguration", Operation::PutObjectLockConfiguration),
    ("PutObjectRetention", Operation::PutObjectRetention),
    ("PutObjectTagging", Operation::PutObjectTagging),
    ("PutPublicAccessBlock", Operation::PutPublicAccessBlock),
    ("RenameObject", Operation::RenameObject),
    ("UploadPart", Operation::UploadPart),
    ("UploadPartCopy", Operation::UploadPartCopy),
];

/// The place of an operation among all, by s3s's name.
pub fn place(name: &str) -> Option<usize> {
    OPERATIONS.binary_search_by_key(&name, |(known, _)| known).ok()
}

/// The names of all, by place.
pub fn names() -> impl ExactSizeIterator<Item = &'static str> {
    OPERATIONS.iter().map(|(name, _)| *name)
}

/// The operation of s3s's name.
pub fn operation(name: &str) -> Option<Operation> {
    Some(OPERATIONS[place(name)?].1)
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

    /// Names are found by halving: one out of its order would be refused.
    #[test]
    fn names_are_in_order() {
        assert!(names().is_sorted());
        assert!(names().enumerate().all(|(at, name)| place(name) == Some(at)));
    }
}
