//! Bucket policies (<https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucket-policies.html>).

use palm_core::s3::account::Account;
use palm_core::s3::acl::Acl;
use palm_core::s3::policy::{Attached, Policy};
use s3s::dto::{
    DeleteBucketPolicyInput, DeleteBucketPolicyOutput, GetBucketPolicyInput, GetBucketPolicyOutput,
    GetBucketPolicyStatusInput, GetBucketPolicyStatusOutput, PolicyStatus, PutBucketPolicyInput, PutBucketPolicyOutput,
};
use s3s::{S3Error, S3ErrorCode, S3Request, S3Response, S3Result};

use super::{Frontend, access, error};

/// "If you have the correct permissions, but you're not using an identity that belongs to the bucket owner's account, Amazon
/// S3 returns a 405 Method Not Allowed error"
/// (<https://docs.aws.amazon.com/AmazonS3/latest/API/API_PutBucketPolicy.html>).
fn check_account<T>(request: &S3Request<T>) -> S3Result<()> {
    let owner = &access::bucket(&request.extensions)?.owner;
    if super::asker(request)?.canonical_id() == *owner {
        Ok(())
    } else {
        Err(S3Error::new(S3ErrorCode::MethodNotAllowed))
    }
}

#[expect(clippy::unused_async, reason = "every operation has this shape")]
pub async fn get(
    _: &Frontend,
    request: S3Request<GetBucketPolicyInput>,
) -> S3Result<S3Response<GetBucketPolicyOutput>> {
    check_account(&request)?;
    let policy = access::bucket(&request.extensions)?.config.policy.clone();
    let policy = policy.ok_or_else(|| S3Error::new(S3ErrorCode::NoSuchBucketPolicy))?;
    Ok(S3Response::new(GetBucketPolicyOutput { policy: Some(policy) }))
}

pub async fn put(
    frontend: &Frontend,
    request: S3Request<PutBucketPolicyInput>,
) -> S3Result<S3Response<PutBucketPolicyOutput>> {
    check_account(&request)?;
    let PutBucketPolicyInput { bucket, policy: document, .. } = request.input;
    let policy = Policy::parse(document.as_bytes(), Attached::Bucket(&bucket));
    let policy = policy.map_err(|refusal| error::of_refusal(&refusal))?;
    check_principals(frontend, &policy).await?;
    let is_public = policy.is_public();
    let changed = frontend.store.change_bucket(&bucket, |record| {
        record.config.public_access_block.unwrap_or_default().check_policy(is_public)?;
        record.config.policy = Some(document.clone());
        Ok(())
    });
    changed.await.map_err(error::of)?;
    Ok(S3Response::new(PutBucketPolicyOutput::default()))
}

/// Refuses names that can be nobody's. Only canonical ids can be told so for certain: accounts by number and users may yet be
/// made, and a policy may be put before.
async fn check_principals(frontend: &Frontend, policy: &Policy) -> S3Result<()> {
    for id in policy.principals().filter(|name| name.len() == Account::main().canonical_id().len()) {
        if !id.starts_with("arn:") && frontend.store.find_account(id).await.map_err(error::of)?.is_none() {
            return Err(S3Error::with_message(S3ErrorCode::MalformedPolicy, "Invalid principal in policy"));
        }
    }
    Ok(())
}

pub async fn delete(
    frontend: &Frontend,
    request: S3Request<DeleteBucketPolicyInput>,
) -> S3Result<S3Response<DeleteBucketPolicyOutput>> {
    check_account(&request)?;
    let changed = frontend.store.change_bucket(&request.input.bucket, |record| {
        record.config.policy = None;
        Ok(())
    });
    changed.await.map_err(error::of)?;
    Ok(S3Response::new(DeleteBucketPolicyOutput::default()))
}

/// Says also of a public ACL that the bucket is public, and of a bucket without a policy that it is not: AWS answers 404
/// there, which no client needs.
#[expect(clippy::unused_async, reason = "every operation has this shape")]
pub async fn status(
    _: &Frontend,
    request: S3Request<GetBucketPolicyStatusInput>,
) -> S3Result<S3Response<GetBucketPolicyStatusOutput>> {
    let bucket = access::bucket(&request.extensions)?;
    let policy = bucket.config.policy.as_ref();
    let policy =
        policy.and_then(|policy| Policy::parse(policy.as_bytes(), Attached::Bucket(&request.input.bucket)).ok());
    let block = bucket.config.public_access_block.unwrap_or_default();
    let by_acl = !block.ignore_public_acls && bucket.config.acl.as_ref().is_some_and(Acl::is_public);
    let by_policy = !block.restrict_public_buckets && policy.is_some_and(|policy| policy.is_public());
    let policy_status = Some(PolicyStatus { is_public: Some(by_acl || by_policy) });
    Ok(S3Response::new(GetBucketPolicyStatusOutput { policy_status }))
}
