//! The S3 front end: [`s3s`] speaks HTTP and XML, [`Store`] keeps the objects, and this room lies between.
//! It is the only place that names s3s, whose API changes with every release.
//!
//! A good order to read: [`server`] takes connections and puts limits on them; `access` says who may do
//! what; `Frontend` below hands each operation to its family (`bucket`, `object`, `copy`, `multipart`, `list`);
//! `body`, `checksum`, `condition`, `range`, `attributes`, `asked` and `customer_key` are what the families share; `guard` watches
//! bodies on their way to s3s; `error` is the one table from failures to S3's codes.
//!
//! What is not here answers 501: s3s says so for every operation that `Frontend` does not override, and
//! `access` for headers that ask for something PALM lacks.

use http::HeaderValue;
use http::header::HeaderName;
use s3s::dto;
use s3s::{S3, S3Error, S3ErrorCode, S3Request, S3Response, S3Result};
use time::OffsetDateTime;

use crate::object::Store;

mod access;
mod access_log;
mod acl;
mod asked;
mod attributes;
mod audit;
mod body;
mod bucket;
mod bucket_settings;
mod checksum;
mod condition;
mod copy;
mod cors;
mod customer_key;
mod delete;
mod error;
mod form;
mod get_attributes;
mod guard;
mod hosts;
mod lifecycle;
mod list;
mod list_versions;
mod lock;
mod logging;
mod measure;
mod mechanism;
mod metadata;
mod multipart;
mod notification;
mod object;
mod ownership;
mod policy;
mod range;
mod rename;
mod senseless;
pub mod server;
mod sts;
mod subresource;
mod tagging;
mod versioning;
mod website;
mod words;

pub use server::{Link, S3Options, Service, ServiceError, Tls, TlsError, serve, service};

/// Says that an answer is less than strong: `local` in a pool of local consistency, `stale` where this peer told what it
/// knows because no majority was in reach.
const CONSISTENCY: HeaderName = HeaderName::from_static("x-palm-consistency");

/// Bytes a key may have (AWS's limit).
const KEY_MAX_BYTES: usize = 1024;

/// S3's operations over the object layer.
struct Frontend {
    store: Store,
    /// What clients are told the region is called.
    region: String,
}

/// Hands each operation to its family.
macro_rules! operations {
    ($($name:ident($input:ident) -> $output:ident = $family:ident::$verb:ident;)*) => {
        /// All that is served, for the test that each has its permission.
        #[cfg(test)]
        const OPERATIONS: &[&str] = &[$(stringify!($name)),*];

        #[async_trait::async_trait]
        impl S3 for Frontend {
            $(
                async fn $name(&self, request: S3Request<dto::$input>) -> S3Result<S3Response<dto::$output>> {
                    $family::$verb(self, request).await
                }
            )*
        }
    };
}

operations! {
    list_buckets(ListBucketsInput) -> ListBucketsOutput = bucket::list;
    create_bucket(CreateBucketInput) -> CreateBucketOutput = bucket::create;
    head_bucket(HeadBucketInput) -> HeadBucketOutput = bucket::head;
    delete_bucket(DeleteBucketInput) -> DeleteBucketOutput = bucket::delete;
    get_bucket_location(GetBucketLocationInput) -> GetBucketLocationOutput = bucket::location;
    put_bucket_tagging(PutBucketTaggingInput) -> PutBucketTaggingOutput = bucket_settings::put_tagging;
    get_bucket_tagging(GetBucketTaggingInput) -> GetBucketTaggingOutput = bucket_settings::get_tagging;
    delete_bucket_tagging(DeleteBucketTaggingInput) -> DeleteBucketTaggingOutput = bucket_settings::delete_tagging;
    put_bucket_encryption(PutBucketEncryptionInput) -> PutBucketEncryptionOutput = bucket_settings::put_encryption;
    get_bucket_encryption(GetBucketEncryptionInput) -> GetBucketEncryptionOutput = bucket_settings::get_encryption;
    delete_bucket_encryption(DeleteBucketEncryptionInput) -> DeleteBucketEncryptionOutput = bucket_settings::delete_encryption;
    put_bucket_request_payment(PutBucketRequestPaymentInput) -> PutBucketRequestPaymentOutput = bucket_settings::put_request_payment;
    get_bucket_request_payment(GetBucketRequestPaymentInput) -> GetBucketRequestPaymentOutput = bucket_settings::get_request_payment;
    get_bucket_accelerate_configuration(GetBucketAccelerateConfigurationInput) -> GetBucketAccelerateConfigurationOutput = bucket_settings::get_accelerate;
    get_bucket_replication(GetBucketReplicationInput) -> GetBucketReplicationOutput = bucket_settings::get_replication;
    delete_bucket_replication(DeleteBucketReplicationInput) -> DeleteBucketReplicationOutput = bucket_settings::delete_replication;
    put_bucket_cors(PutBucketCorsInput) -> PutBucketCorsOutput = cors::put;
    get_bucket_cors(GetBucketCorsInput) -> GetBucketCorsOutput = cors::get;
    delete_bucket_cors(DeleteBucketCorsInput) -> DeleteBucketCorsOutput = cors::delete;
    put_bucket_website(PutBucketWebsiteInput) -> PutBucketWebsiteOutput = website::put;
    get_bucket_website(GetBucketWebsiteInput) -> GetBucketWebsiteOutput = website::get;
    delete_bucket_website(DeleteBucketWebsiteInput) -> DeleteBucketWebsiteOutput = website::delete;
    get_bucket_versioning(GetBucketVersioningInput) -> GetBucketVersioningOutput = versioning::get;
    put_bucket_versioning(PutBucketVersioningInput) -> PutBucketVersioningOutput = versioning::put;
    get_bucket_acl(GetBucketAclInput) -> GetBucketAclOutput = acl::get_bucket;
    put_bucket_acl(PutBucketAclInput) -> PutBucketAclOutput = acl::put_bucket;
    get_object_acl(GetObjectAclInput) -> GetObjectAclOutput = acl::get_object;
    put_object_acl(PutObjectAclInput) -> PutObjectAclOutput = acl::put_object;
    get_bucket_policy(GetBucketPolicyInput) -> GetBucketPolicyOutput = policy::get;
    put_bucket_policy(PutBucketPolicyInput) -> PutBucketPolicyOutput = policy::put;
    delete_bucket_policy(DeleteBucketPolicyInput) -> DeleteBucketPolicyOutput = policy::delete;
    get_bucket_policy_status(GetBucketPolicyStatusInput) -> GetBucketPolicyStatusOutput = policy::status;
    get_bucket_ownership_controls(GetBucketOwnershipControlsInput) -> GetBucketOwnershipControlsOutput = ownership::get;
    put_bucket_ownership_controls(PutBucketOwnershipControlsInput) -> PutBucketOwnershipControlsOutput = ownership::put;
    delete_bucket_ownership_controls(DeleteBucketOwnershipControlsInput) -> DeleteBucketOwnershipControlsOutput = ownership::delete;
    get_public_access_block(GetPublicAccessBlockInput) -> GetPublicAccessBlockOutput = ownership::get_block;
    put_public_access_block(PutPublicAccessBlockInput) -> PutPublicAccessBlockOutput = ownership::put_block;
    delete_public_access_block(DeletePublicAccessBlockInput) -> DeletePublicAccessBlockOutput = ownership::delete_block;
    put_bucket_lifecycle_configuration(PutBucketLifecycleConfigurationInput) -> PutBucketLifecycleConfigurationOutput
        = lifecycle::put;
    get_bucket_lifecycle_configuration(GetBucketLifecycleConfigurationInput) -> GetBucketLifecycleConfigurationOutput
        = lifecycle::get;
    delete_bucket_lifecycle(DeleteBucketLifecycleInput) -> DeleteBucketLifecycleOutput = lifecycle::delete;
    put_bucket_notification_configuration(PutBucketNotificationConfigurationInput)
        -> PutBucketNotificationConfigurationOutput = notification::put;
    get_bucket_notification_configuration(GetBucketNotificationConfigurationInput)
        -> GetBucketNotificationConfigurationOutput = notification::get;
    put_bucket_logging(PutBucketLoggingInput) -> PutBucketLoggingOutput = logging::put;
    get_bucket_logging(GetBucketLoggingInput) -> GetBucketLoggingOutput = logging::get;
    post_object(PostObjectInput) -> PostObjectOutput = object::post;
    put_object(PutObjectInput) -> PutObjectOutput = object::put;
    get_object(GetObjectInput) -> GetObjectOutput = object::get;
    head_object(HeadObjectInput) -> HeadObjectOutput = object::head;
    delete_object(DeleteObjectInput) -> DeleteObjectOutput = delete::delete;
    delete_objects(DeleteObjectsInput) -> DeleteObjectsOutput = delete::delete_many;
    copy_object(CopyObjectInput) -> CopyObjectOutput = copy::copy;
    upload_part_copy(UploadPartCopyInput) -> UploadPartCopyOutput = copy::copy_part;
    rename_object(RenameObjectInput) -> RenameObjectOutput = rename::rename;
    get_object_attributes(GetObjectAttributesInput) -> GetObjectAttributesOutput = get_attributes::get;
    get_object_tagging(GetObjectTaggingInput) -> GetObjectTaggingOutput = tagging::get;
    put_object_tagging(PutObjectTaggingInput) -> PutObjectTaggingOutput = tagging::put;
    delete_object_tagging(DeleteObjectTaggingInput) -> DeleteObjectTaggingOutput = tagging::delete;
    get_object_lock_configuration(GetObjectLockConfigurationInput) -> GetObjectLockConfigurationOutput = lock::get_configuration;
    put_object_lock_configuration(PutObjectLockConfigurationInput) -> PutObjectLockConfigurationOutput = lock::put_configuration;
    get_object_retention(GetObjectRetentionInput) -> GetObjectRetentionOutput = lock::get_retention;
    put_object_retention(PutObjectRetentionInput) -> PutObjectRetentionOutput = lock::put_retention;
    get_object_legal_hold(GetObjectLegalHoldInput) -> GetObjectLegalHoldOutput = lock::get_legal_hold;
    put_object_legal_hold(PutObjectLegalHoldInput) -> PutObjectLegalHoldOutput = lock::put_legal_hold;
    list_objects(ListObjectsInput) -> ListObjectsOutput = list::list_v1;
    list_objects_v2(ListObjectsV2Input) -> ListObjectsV2Output = list::list_v2;
    list_object_versions(ListObjectVersionsInput) -> ListObjectVersionsOutput = list_versions::list;
    create_multipart_upload(CreateMultipartUploadInput) -> CreateMultipartUploadOutput = multipart::create;
    upload_part(UploadPartInput) -> UploadPartOutput = multipart::upload_part;
    list_parts(ListPartsInput) -> ListPartsOutput = multipart::list_parts;
    list_multipart_uploads(ListMultipartUploadsInput) -> ListMultipartUploadsOutput = multipart::list_uploads;
    complete_multipart_upload(CompleteMultipartUploadInput) -> CompleteMultipartUploadOutput = multipart::complete;
    abort_multipart_upload(AbortMultipartUploadInput) -> AbortMultipartUploadOutput = multipart::abort;
}

/// Who asks, as the gate found out.
fn asker<T>(request: &S3Request<T>) -> S3Result<&access::Asker> {
    Ok(&access::admitted(&request.extensions)?.asker)
}

/// An answer, labelled where it is stale.
fn answer<T>(output: T, stale: bool) -> S3Response<T> {
    let mut response = S3Response::new(output);
    if stale {
        response.headers.insert(CONSISTENCY, HeaderValue::from_static("stale"));
    }
    response
}

/// Milliseconds since the Unix epoch as s3s's time. Times beyond the calendar become the epoch rather than an
/// error: they come from stored records, and an object with a silly date can still be read.
fn timestamp(ms: u64) -> dto::Timestamp {
    let nanos = i128::from(ms) * 1_000_000;
    OffsetDateTime::from_unix_timestamp_nanos(nanos).unwrap_or(OffsetDateTime::UNIX_EPOCH).into()
}

/// The same as a header.
fn http_date(ms: u64) -> Option<HeaderValue> {
    let mut date = Vec::new();
    timestamp(ms).format(dto::TimestampFormat::HttpDate, &mut date).ok()?;
    HeaderValue::from_bytes(&date).ok()
}

/// A size as s3s counts it.
fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

/// A page size as s3s counts it.
fn bounded(limit: u32) -> i32 {
    i32::try_from(limit).unwrap_or(i32::MAX)
}

/// Keys are any UTF-8 of 1 to 1,024 bytes but NUL, which the register keys use to keep their parts apart.
fn check_key(key: &str) -> S3Result<()> {
    if key.is_empty() {
        return Err(S3Error::new(S3ErrorCode::UserKeyMustBeSpecified));
    }
    if key.len() > KEY_MAX_BYTES {
        return Err(S3Error::new(S3ErrorCode::KeyTooLongError));
    }
    check_texts([key])
}

/// Refuses NUL in texts that become part of a register key.
fn check_texts<'a>(texts: impl IntoIterator<Item = &'a str>) -> S3Result<()> {
    if texts.into_iter().any(|text| text.contains('\0')) {
        return Err(error::invalid_argument("Object keys cannot hold the NUL character"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: keys that trip path handling elsewhere, and the few that are refused. Danger: a key is
    /// normalised into another one, or a NUL forges a register key. Expectation: only what S3 or the
    /// register layout forbids is refused.
    #[test]
    fn keys_are_any_utf8_but_nul() {
        let longest = "k".repeat(KEY_MAX_BYTES);
        for key in ["a", "../..", "//", "dir/", "%2e%2e", "\u{1f334}", " ", longest.as_str()] {
            assert!(check_key(key).is_ok(), "{key}");
        }
        let code = |key: &str| check_key(key).expect_err("refused").code().as_str().to_owned();
        assert_eq!(code(""), "UserKeyMustBeSpecified");
        assert_eq!(code(&format!("{longest}k")), "KeyTooLongError");
        assert_eq!(code("nul\0"), "InvalidArgument");
    }

    #[test]
    fn times_beyond_the_calendar_do_not_fail() {
        assert_eq!(timestamp(u64::MAX), timestamp(0));
        assert_eq!(OffsetDateTime::from(timestamp(1_500)).unix_timestamp(), 1);
    }
}
